#!/usr/bin/env python3
"""What Python makes of random Unicode text, for tests/unit/task/test_clean.c.

Writes lines of JSON, [text, cleaned], where cleaned is what both scorings compare:

    tools/oracle_clean.py > tests/unit/task/clean.jsonl           the committed golden
    tools/oracle_clean.py --seed 7 --count 100000 > /tmp/more     a larger set, then
    build/dev/tests/task_test_clean /tmp/more                     compares it

    tools/oracle_clean.py --every > /tmp/every                    every character, six ways

Needs a Python with Unicode 14 (3.11): only its characters are drawn, so that newer tables in the
library under test change nothing. The same arguments give the same lines.
"""
import argparse
import json
import random
import re
import sys
import unicodedata


def clean(text):
    text = re.sub(r"[^\w\s]", "", text.strip().lower())
    return re.sub(r"\s+", " ", text).strip()


def assigned():
    """The characters of Unicode 14 by kind."""
    if unicodedata.unidata_version != "14.0.0":
        sys.exit(f"expected a Python with Unicode 14.0.0 (3.11), got {unicodedata.unidata_version}")
    kinds = {"any": [], "cased": [], "mark": [], "space": [], "number": [], "other": []}
    for c in range(1, 0x110000):
        ch, category = chr(c), unicodedata.category(chr(c))
        if category in ("Cn", "Cs", "Co"):
            continue
        kinds["any"].append(ch)
        if ch.lower() != ch or ch.upper() != ch:
            kinds["cased"].append(ch)
        elif ch.isspace():
            kinds["space"].append(ch)
        elif category in ("Mn", "Me", "Lm", "Sk", "Cf") or ch in "'.:\u00b7\u2019":
            kinds["mark"].append(ch)
        elif ch.isnumeric():
            kinds["number"].append(ch)
        else:
            kinds["other"].append(ch)
    return kinds


def draw(rng, kinds):
    recipe = rng.randrange(4)
    if recipe == 0:  # sigmas among cased and case-ignorable characters
        pools = ["\u03a3"] * 3 + [kinds["cased"], kinds["mark"], "aZ.' \u03c3\u03c2\u0345"]
    elif recipe == 1:  # an answer of a model
        pools = ["abcdefgh ABCD .,!?'\"-_\n\t0123456789"] * 6 + [kinds["any"]]
    elif recipe == 2:  # white space at the ends and within
        pools = [kinds["space"], kinds["space"], kinds["other"], "aB", kinds["number"]]
    else:  # anything
        pools = list(kinds.values()) + ["\u0130\u0049\u0131\u1e9e\u2126\u00df"]
    return "".join(rng.choice(rng.choice(pools)) for _ in range(rng.choice((1, 3, 7, 15, 31))))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--every", action="store_true",
                        help="every character of Unicode 14 instead: alone, and beside a sigma")
    args = parser.parse_args()
    kinds, rng = assigned(), random.Random(args.seed)
    if args.every:
        texts = (form.format(ch) for ch in kinds["any"]
                 for form in ("{}", "a{}b", "{}\u03a3", "a{}\u03a3", "a\u03a3{}", "a\u03a3{}b"))
    else:
        texts = (draw(rng, kinds) for _ in range(args.count))
    for text in texts:
        print(json.dumps([text, clean(text)], separators=(",", ":")))


if __name__ == "__main__":
    main()
