#!/usr/bin/env python3
"""What the PyPI library `tokenizers` says, for cortado's tokenizer to be compared with.

  oracle_tokenizer.py write TOKENIZER.json -o CASES.jsonl [--texts DIR] [--random N] [--seed S]
      one case a line: text, ids with and without special tokens, byte offsets, decoded text.
  oracle_tokenizer.py check PROGRAM TOKENIZER.json[.xz] [--texts DIR] [--random N]
      writes the cases to a temporary folder and runs PROGRAM (tests/unit/tok/test_golden.c as
      built) on them; exits with its status.

Test time only; needs `tokenizers`.
"""
import argparse
import json
import lzma
import os
import pathlib
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

# Ranges that random strings draw from, the likely and the nasty: ASCII, Latin, Greek, Cyrillic,
# Hebrew, Arabic, Devanagari, Thai, Hangul, kana, CJK, symbols, emoji with joiners and modifiers,
# combining marks, spaces of all kinds, private use, non-characters, the last planes.
RANGES = [(0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x30, 0x39), (0xA0, 0x24F), (0x370, 0x3FF),
          (0x400, 0x4FF), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F),
          (0x1100, 0x11FF), (0xAC00, 0xD7A3), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0x2190, 0x2BFF),
          (0x1F300, 0x1FAFF), (0x1F3FB, 0x1F3FF), (0x200B, 0x200F), (0xFE00, 0xFE0F),
          (0x300, 0x36F), (0x2000, 0x200A), (0x09, 0x0D), (0x00, 0x1F), (0xE000, 0xF8FF),
          (0xFFF0, 0xFFFF), (0x20000, 0x2A6DF), (0xE0000, 0xE01FF), (0x10FFF0, 0x10FFFF)]
PIECES = ["  ", "\n\n", "\t", "▁", "▁▁", " ▁", "<bos>", "<eos>", "<pad>", "<unk>", "<s>", "</s>",
          "<start_of_turn>", "<end_of_turn>", "<0x41>", "<0x-1>", "<0xZZ>", "<|special|>", "<mask>",
          " the", "don't", "I'LL", "1234567", "ſ", "İ", "é", "ﬁ", "각", "\r\n", "\u0085",
          "\u180e", "\u00a0", "\u3000", "👩‍👩‍👧‍👦", "🇩🇪", "a" * 40, " " * 33, "e\u0323\u0302\u0301"]


def random_texts(count, seed):
    draw = random.Random(seed)
    for _ in range(count):
        parts = []
        for _ in range(draw.randint(1, 12)):
            kind = draw.random()
            if kind < 0.3:
                parts.append(draw.choice(PIECES))
            else:
                low, high = draw.choice(RANGES)
                parts.append("".join(chr(draw.randint(low, high))
                                     for _ in range(draw.randint(1, 8))))
        yield "".join(parts)


def case(tokenizer, text):
    plain = tokenizer.encode(text, add_special_tokens=False)
    ids = tokenizer.encode(text).ids
    bounds = [0]
    for character in text:
        bounds.append(bounds[-1] + len(character.encode()))
    return {"text": text, "ids": ids, "plain": plain.ids,
            "offsets": [[bounds[a], bounds[b]] for a, b in plain.offsets],
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "skipped": tokenizer.decode(ids, skip_special_tokens=True)}


def texts_of(options):
    if options.texts:
        for path in sorted(pathlib.Path(options.texts).glob("*.txt")):
            yield path.read_bytes().decode()
    yield from random_texts(options.random, options.seed)


def write_cases(tokenizer, texts, path):
    with open(path, "w", encoding="ascii") as out:
        for text in texts:
            out.write(json.dumps(case(tokenizer, text)) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    write = verbs.add_parser("write")
    check = verbs.add_parser("check")
    check.add_argument("program")
    for verb in (write, check):
        verb.add_argument("tokenizer")
        verb.add_argument("--texts", help="folder of .txt files to encode too")
        verb.add_argument("--random", type=int, default=10000)
        verb.add_argument("--seed", type=int, default=1)
    write.add_argument("-o", "--output", required=True)
    options = parser.parse_args()

    opener = lzma.open if options.tokenizer.endswith(".xz") else open
    with opener(options.tokenizer, "rb") as file:
        source = file.read()
    tokenizer = Tokenizer.from_str(source.decode())
    if options.verb == "write":
        write_cases(tokenizer, texts_of(options), options.output)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "tokenizer.json").write_bytes(source)
        write_cases(tokenizer, texts_of(options), pathlib.Path(folder, "cases.jsonl"))
        return subprocess.run([options.program],
                              env={**os.environ, "CORTADO_TOKENIZER_GOLDEN": folder}).returncode


if __name__ == "__main__":
    sys.exit(main())
