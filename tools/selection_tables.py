#!/usr/bin/env python3
"""Accuracy of a head-selection study by k, rule and place of the needle, as Markdown tables.

    tools/selection_tables.py PROGRAM RUN CELLS.csv

RUN is the folder of a run (studies/demo/selection.yaml); CELLS.csv gets one short line a cell, the
tables go to standard output. A needle is inside if all its tokens are in the window of every step
of an answer of full length, outside if all have left it before the first, else on the edge.
"""
import csv
import io
import subprocess
import sys

NEW_TOKENS = 40
METRICS = ("entropy", "random", "entropy-inverted")
COLUMNS = ("length", "depth", "metric", "seed", "keep_heads", "score", "max_score", "status",
           "prompt_tokens", "needle_token_begin", "needle_token_end", "window")


def place(cell):
    # `window` counts the query itself: the row at position p sees p - window + 1 to p. Token i of the
    # answer comes from the row at prompt_tokens - 1 + i.
    begin, end, prompt, window = (int(cell[name]) for name in (
        "needle_token_begin", "needle_token_end", "prompt_tokens", "window"))
    if begin >= prompt - 1 + NEW_TOKENS - 1 - window + 1:
        return "inside"
    return "outside" if end - 1 < prompt - 1 - window + 1 else "edge"


def accuracy(cells):
    return sum(float(c["score"]) for c in cells) / sum(float(c["max_score"]) for c in cells)


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print()


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__.strip().splitlines()[2].strip())
    program, run, path = sys.argv[1:]
    text = subprocess.run([program, "export", run, "--format", "csv"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    cells = list(csv.DictReader(io.StringIO(text)))
    bad = sum(c["status"] != "done" for c in cells)
    if bad or not cells:
        sys.exit(f"expected all cells done, got {bad} of {len(cells)} that are not")
    cells.sort(key=lambda c: (METRICS.index(c["metric"]), int(c["seed"]), int(c["keep_heads"]),
                              int(c["length"]), int(c["depth"])))
    with open(path, "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(cells)
    keeps = sorted({c["keep_heads"] for c in cells}, key=int)
    for where in ("inside", "outside", "edge", "all"):
        some = [c for c in cells if where in ("all", place(c))]
        prompts = len({(c["length"], c["depth"]) for c in some})
        if not prompts:
            continue
        print(f"Accuracy, needle {where} the window ({prompts} prompts):\n" if where != "all" else
              f"Accuracy, all {prompts} prompts:\n")
        table(["k", *map(str, keeps)],
              [[m, *(f"{accuracy([c for c in some if (c['metric'], c['keep_heads']) == (m, k)]):.3f}"
                     for k in keeps)] for m in METRICS])
    most = [c for c in cells if c["metric"] == "entropy" and c["keep_heads"] == keeps[-1]]
    depths = sorted({int(c["depth"]) for c in most})
    lengths = sorted({int(c["length"]) for c in most})
    score = {(int(c["length"]), int(c["depth"])): f'{float(c["score"]):g}' for c in most}
    print(f"Score by length (rows) and depth (columns), k = {keeps[-1]}:\n")
    table(["length", *map(str, depths)], [[n, *(score[n, d] for d in depths)] for n in lengths])


if __name__ == "__main__":
    main()
