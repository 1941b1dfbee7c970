#!/usr/bin/env python3
"""What the PyPI library `tokenizers` says, for cortado's tokenizer to be compared with.

  oracle_tokenizer.py write TOKENIZER.json -o CASES.jsonl [--texts DIR] [--random N] [--seed S]
      one case a line: text, ids with and without special tokens, byte offsets, decoded text.
  oracle_tokenizer.py small TEXT... -o DIR
      trains the small tokenizers of tests/unit/tok/golden on the texts and writes each with cases.
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

from tokenizers import Tokenizer, pre_tokenizers, trainers

# Ranges that random strings draw from, the likely and the nasty: ASCII, Latin, Greek, Cyrillic,
# Hebrew, Arabic, Devanagari, Thai, Hangul, kana, CJK, symbols, emoji with joiners and modifiers,
# combining marks, spaces of all kinds, private use, non-characters, the last planes.
RANGES = [(0x20, 0x7E), (0x20, 0x7E), (0x61, 0x7A), (0x30, 0x39), (0xA0, 0x24F), (0x370, 0x3FF),
          (0x400, 0x4FF), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xE00, 0xE7F),
          (0x1100, 0x11FF), (0xAC00, 0xD7A3), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0x2190, 0x2BFF),
          (0x1F300, 0x1FAFF), (0x1F3FB, 0x1F3FF), (0x200B, 0x200F), (0xFE00, 0xFE0F),
          (0x300, 0x36F), (0x2000, 0x200A), (0x09, 0x0D), (0x00, 0x1F), (0xE000, 0xF8FF),
          (0xFFF0, 0xFFFF), (0x20000, 0x2A6DF), (0xE0000, 0xE01FF), (0x10FFF0, 0x10FFFF)]
# Punctuation since Unicode 14, but not in the older tables of the library's Punctuation: of RANGES
# the only such character.
NEWER = "\u061d"
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


def case(tokenizer, text, with_offsets=True):
    """ids hold the special tokens that the post-processor adds, all before the text; offsets are in
    bytes, begin and end in turn, of the ids without them. `skipped` is there if it differs."""
    plain = tokenizer.encode(text, add_special_tokens=False)
    ids = tokenizer.encode(text).ids
    result = {"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=False)}
    assert ids[len(ids) - len(plain.ids):] == plain.ids
    skipped = tokenizer.decode(ids, skip_special_tokens=True)
    if skipped != result["decoded"]:
        result["skipped"] = skipped
    if with_offsets:
        bounds = [0]
        for character in text:
            bounds.append(bounds[-1] + len(character.encode()))
        result["offsets"] = [bounds[at] for pair in plain.offsets for at in pair]
    return result


def texts_of(options):
    if options.texts:
        for path in sorted(pathlib.Path(options.texts).glob("*.txt")):
            yield path.read_bytes().decode()
    for text in random_texts(options.random, options.seed):
        yield text.replace(NEWER, "")


def write_cases(tokenizer, texts, path, with_offsets=True):
    with open(path, "w", encoding="ascii") as out:
        for text in texts:
            found = case(tokenizer, text, with_offsets)
            out.write(json.dumps(found, separators=(",", ":")) + "\n")


# ---- the small tokenizers ------------------------------------------------------------------------
# Each is a tokenizer.json of one family's form around a BPE of a few hundred tokens.

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TO_SIGN = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
FROM_SIGN = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}


def sequence(name, *parts):
    return {"type": "Sequence", name: list(parts)}


def byte_level(**options):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False,
            "use_regex": True, **options}


def metaspace(**options):
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True,
            **options}


def added(number, content, **options):
    return {"id": number, "content": content, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": True, **options}


def bos_template(token, number):
    return {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": token, "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}}}


def trained(files, size, first, pre_tokenizer, normalizer=None, alphabet=()):
    """A BPE model trained on the files; `first` are its first tokens."""
    frame = {"version": "1.0", "added_tokens": [], "normalizer": normalizer,
             "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": None,
             "model": {"type": "BPE", "vocab": {}, "merges": []}}
    tokenizer = Tokenizer.from_str(json.dumps(frame))
    tokenizer.train(files, trainers.BpeTrainer(vocab_size=size, special_tokens=list(first),
                                               initial_alphabet=list(alphabet), show_progress=False,
                                               limit_alphabet=len(alphabet) or 90))
    return json.loads(tokenizer.to_str())["model"]


def small_tokenizers(files):
    words = metaspace(prepend_scheme="never")

    first = ["<pad>", "<eos>", "<bos>", "<unk>"]
    model = trained(files, 620, first + BYTES, words, TO_SIGN)
    model.update(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    model["merges"] = [" ".join(pair) for pair in model["merges"]]
    yield "gemma", {
        "added_tokens": [added(i, token) for i, token in enumerate(first)],
        "normalizer": TO_SIGN, "pre_tokenizer": None, "post_processor": bos_template("<bos>", 2),
        "decoder": sequence("decoders", FROM_SIGN, {"type": "ByteFallback"}, {"type": "Fuse"}),
        "model": model}

    first = ["<unk>", "<s>", "</s>"]
    model = trained(files, 560, first + BYTES, words, TO_SIGN)
    model.update(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    llama = {
        "added_tokens": [added(0, "<unk>", normalized=True), added(1, "<s>", normalized=True),
                         added(2, "</s>")],
        "normalizer": sequence("normalizers", {"type": "Prepend", "prepend": "▁"}, TO_SIGN),
        "pre_tokenizer": None, "post_processor": bos_template("<s>", 1),
        "decoder": sequence("decoders", FROM_SIGN, {"type": "ByteFallback"}, {"type": "Fuse"},
                            strip),
        "model": model}
    yield "llama", llama
    yield "llama-metaspace", {
        **llama, "normalizer": None,
        "added_tokens": [added(i, token) for i, token in enumerate(first)],
        "pre_tokenizer": metaspace(prepend_scheme="first", split=False),
        "decoder": sequence("decoders", {"type": "ByteFallback"}, metaspace(), {"type": "Fuse"})}

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    model = trained(files, 420, ["<|endoftext|>"], byte_level(), alphabet=alphabet)
    model["merges"] = [" ".join(pair) for pair in model["merges"]]
    yield "gpt2", {
        "added_tokens": [added(0, "<|endoftext|>", normalized=True)],
        "normalizer": None, "pre_tokenizer": byte_level(add_prefix_space=True),
        "post_processor": byte_level(), "decoder": byte_level(), "model": model}

    split = {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated",
             "invert": False}
    model = trained(files, 480, [], sequence("pretokenizers", split, byte_level(use_regex=False)),
                    alphabet=alphabet)
    model["ignore_merges"] = True
    model["merges"] = model["merges"][:-60]  # some whole words that only ignore_merges finds
    size = len(model["vocab"])
    yield "llama3", {
        "added_tokens": [added(size, "<|begin|>"), added(size + 1, "<|end|>"),
                         added(size + 2, "<|begin|>+")],
        "normalizer": None,
        "pre_tokenizer": sequence("pretokenizers", split, byte_level(use_regex=False)),
        "post_processor": sequence("processors", byte_level(), bos_template("<|begin|>", size)),
        "decoder": byte_level(), "model": model}

    # What the families leave out: normal forms, case, digits, punctuation, the other behaviours of
    # Split, options of added tokens, byte tokens that are missing.
    model = trained(files, 360, ["<unk>"] + BYTES[:-90], words, TO_SIGN)
    model.update(unk_token="<unk>", fuse_unk=False, byte_fallback=True)
    size = len(model["vocab"])
    yield "options", {
        "added_tokens": [added(0, "<unk>"), added(size, "<mask>", lstrip=True),
                         added(size + 1, "<s>", rstrip=True),
                         added(size + 2, "I'LL", normalized=True, special=False),
                         added(size + 3, "the", single_word=True, special=False),
                         added(size + 4, "</s>", lstrip=True, rstrip=True, single_word=True),
                         added(size + 5, "İ", normalized=True)],
        "normalizer": sequence("normalizers", {"type": "Strip", "strip_left": False,
                                               "strip_right": True},
                               {"type": "NFKC"}, {"type": "Lowercase"}, TO_SIGN,
                               {"type": "Replace", "pattern": {"Regex": "a{3,}|▁{5}"},
                                "content": "aa"}),
        "pre_tokenizer": sequence("pretokenizers", {"type": "Digits", "individual_digits": False},
                                  {"type": "Punctuation", "behavior": "MergedWithPrevious"},
                                  {"type": "Split", "pattern": {"String": "▁"},
                                   "behavior": "MergedWithNext", "invert": False}),
        "post_processor": None,
        "decoder": sequence("decoders", {"type": "ByteFallback"}, FROM_SIGN), "model": model}
    yield "contiguous", {
        "added_tokens": [added(0, "<unk>")],
        "normalizer": sequence("normalizers", {"type": "NFD"}, {"type": "StripAccents"},
                               {"type": "NFC"}, TO_SIGN),
        "pre_tokenizer": sequence("pretokenizers", {"type": "Split", "pattern": {"Regex": "[▁a]"},
                                                    "behavior": "Contiguous", "invert": False},
                                  {"type": "Split", "pattern": {"Regex": r"\p{L}+"},
                                   "behavior": "Removed", "invert": True},
                                  {"type": "Digits", "individual_digits": True}),
        "post_processor": None, "decoder": None,
        "model": {**model, "fuse_unk": True}}


def small(options):
    texts = list(random_texts(options.random, options.seed))
    texts += ["", " ", "Hello world", "  two  spaces ", "one\n\ntwo", "don't I'LL we've 'S 12345 x",
              " <mask>  <s>  the other the, thereby </s> </s>x", "<bos>twice", "naïve café ﬁne Ⅷ"]
    for name, parts in small_tokenizers(options.files):
        folder = pathlib.Path(options.output, name)
        folder.mkdir(parents=True, exist_ok=True)
        source = json.dumps({"version": "1.0", **parts}, separators=(",", ":"), ensure_ascii=True)
        (folder / "tokenizer.json").write_text(source + "\n")
        # Where something is inserted or removed, cortado's ranges are its own: an inserted character
        # stands for nothing, a replaced string for all of what was replaced.
        same = name in ("gemma", "llama3")
        write_cases(Tokenizer.from_str(source), texts, folder / "cases.jsonl", same)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    write = verbs.add_parser("write")
    check = verbs.add_parser("check")
    check.add_argument("program")
    check.add_argument("--no-offsets", action="store_true")
    for verb in (write, check):
        verb.add_argument("tokenizer")
        verb.add_argument("--texts", help="folder of .txt files to encode too")
        verb.add_argument("--random", type=int, default=10000)
        verb.add_argument("--seed", type=int, default=1)
    train = verbs.add_parser("small")
    train.add_argument("files", nargs="+")
    train.add_argument("--random", type=int, default=24)
    train.add_argument("--seed", type=int, default=2)
    for verb in (write, train):
        verb.add_argument("-o", "--output", required=True)
    options = parser.parse_args()
    if options.verb == "small":
        small(options)
        return 0

    opener = lzma.open if options.tokenizer.endswith(".xz") else open
    with opener(options.tokenizer, "rb") as file:
        source = file.read()
    tokenizer = Tokenizer.from_str(source.decode())
    if options.verb == "write":
        write_cases(tokenizer, texts_of(options), options.output)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "tokenizer.json").write_bytes(source)
        write_cases(tokenizer, texts_of(options), pathlib.Path(folder, "cases.jsonl"),
                    not options.no_offsets)
        return subprocess.run([options.program],
                              env={**os.environ, "CORTADO_TOKENIZER_GOLDEN": folder}).returncode


if __name__ == "__main__":
    sys.exit(main())
