"""A sweep of interventions, by `cortado run` and as a loop over transformers.

    PYTHON bench/sweep.py MODEL --tokenizer DIR --cortado build/release/cortado -o RESULTS.json
    PYTHON bench/sweep.py MODEL --check

20 prompts of about 1,000 tokens under 11 interventions, 40 tokens each, in bf16, no stop at EOS: 0 .. 8 heads kept by
entropy while generating (of 8), 4 by l2 and 4 by inverted entropy. cortado runs a study (MODEL has no tokenizer: one
of its vocabulary is copied into a folder beside a link to the weights). The loop does for each cell what the reference
does: the whole prompt, then token by token, heads chosen in a patched attention (bench/torch_worker.py). A few of its
cells are measured, before and after cortado's run, and the median is taken for all of them: every cell is a prompt
and 40 tokens, so they differ little, and RESULTS.json has each.
"""
import argparse
import json
import lzma
import pathlib
import shutil
import subprocess
import tempfile
import time

from common import Others, Worker, cortado, median, random_ids, save

HERE = pathlib.Path(__file__).resolve().parent
HEADS, TOKENS = 8, 40
INTERVENTIONS = [("entropy", k) for k in range(HEADS + 1)] + [("l2", 4), ("entropy-inverted", 4)]
STUDY = """study: sweep
model: model
task:
  niah:
    haystack: {haystack}
    needle: "\\nThe best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.\\n"
    question: What is the best thing to do in San Francisco?
    buffer: 45    # what the template and the question add: prompts have 1,000 tokens or a few less
    lengths: 1000
    depths: [{depths}]
generate: {{max_new_tokens: {tokens}, ignore_eos: true}}
compute: bf16
interventions:
  - heads: {{keep: {{from: 0, to: {heads}}}, metric: entropy, stages: generation}}
  - heads: {{keep: 4, metric: [l2, entropy-inverted], stages: generation}}
"""


def lay_out(args, folder):
    """MODEL with a tokenizer, and the study."""
    model = folder / "model"
    model.mkdir()
    for path in pathlib.Path(args.model).resolve().iterdir():
        if not path.name.startswith("tokenizer"):
            (model / path.name).symlink_to(path)
    for path in pathlib.Path(args.tokenizer).iterdir():
        if path.suffix == ".xz":
            (model / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
        elif path.name.startswith("tokenizer"):
            shutil.copy(path, model / path.name)
    depths = ", ".join(str(round(100 * i / (args.prompts - 1))) for i in range(args.prompts))
    study = folder / "sweep.yaml"
    study.write_text(STUDY.format(haystack=HERE.parent / "data/haystack", depths=depths, tokens=TOKENS, heads=HEADS))
    return study


def prompts_of(args, study, folder):
    """Ids of the study's prompts, with what the tokenizer puts before them."""
    out = folder / "prompts"
    subprocess.run([args.cortado, "prompts", study, "-o", out], check=True, stdout=subprocess.DEVNULL)
    all_ids = []
    for path in sorted(out.glob("*_prompts.json")):
        text = folder / "prompt.txt"
        text.write_text(json.loads(path.read_text())["content"])
        done = subprocess.run([args.cortado, "tokenize", "-m", folder / "model", "--ids", text], check=True,
                              stdout=subprocess.PIPE, text=True)
        all_ids.append([int(word) for word in done.stdout.replace(",", " ").replace("[", "").replace("]", "").split()])
    return all_ids


def loop_cells(worker, prompts, cells):
    found = []
    for prompt, (metric, keep) in cells:
        cell = worker.ask("cell", ids=prompts[prompt], tokens=TOKENS, keep=keep, metric=metric)
        found.append({"prompt": prompt, "metric": metric, "keep_heads": keep, "tokens": len(prompts[prompt]),
                      "ms": cell["ms"]})
        print(f"loop: prompt {prompt}, {keep} heads by {metric}: {cell['ms']:.0f} ms", flush=True)
    return found


def check_same(args):
    """The loop's intervention is cortado's: on the demonstration model in f32 both choose the same tokens."""
    model = HERE.parent / "models/griffin-demo"
    ids, count, seen = random_ids(300, 4096), 20, set()
    worker = Worker(model, "f32", args.threads)
    for metric, keep in (("entropy", 2), ("l2", 4), ("entropy-inverted", 4), ("entropy", 0), ("entropy", HEADS)):
        theirs = worker.ask("cell", ids=ids, tokens=count, keep=keep, metric=metric)["ids"]
        ours = cortado(args.cortado, "generate", "-m", model, "--compute", "f32", "--prompt-ids",
                       ",".join(map(str, ids)), "-n", count, "--ignore-eos", "--keep-heads", keep, "--metric", metric)
        if ours["ids"] != theirs:
            raise SystemExit(f"{keep} heads by {metric}: expected the same tokens, got {theirs} and {ours['ids']}")
        seen.add(tuple(theirs))
    worker.close()
    if len(seen) < 3:
        raise SystemExit("the interventions change too little to tell them apart")
    print(f"{count} tokens under 5 interventions on griffin-demo in f32: the same on both sides")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--check", action="store_true", help="only compare tokens, on the demonstration model")
    parser.add_argument("--tokenizer", help="a folder with tokenizer.json (or .json.xz)")
    parser.add_argument("--cortado", default="build/release/cortado")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--cells", type=int, default=3, help="cells of the loop measured before, and as many after")
    parser.add_argument("-o", "--out")
    args = parser.parse_args()
    args.cortado = str(pathlib.Path(args.cortado).resolve())

    if args.check:
        return check_same(args)
    if not args.tokenizer or not args.out:
        parser.error("expected --tokenizer DIR and -o FILE")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        study = lay_out(args, folder)
        prompts = prompts_of(args, study, folder)
        all_cells = [(p, i) for p in range(len(prompts)) for i in INTERVENTIONS]
        chosen = [all_cells[(2 * i + 1) * len(all_cells) // (4 * args.cells)] for i in range(2 * args.cells)]
        worker = Worker(args.model, "bf16", args.threads)
        worker.ask("cell", ids=prompts[0], tokens=2, keep=None, metric="entropy")  # warms up
        others = Others(worker)
        cells = loop_cells(worker, prompts, chosen[:args.cells])
        start = time.perf_counter()
        subprocess.run([args.cortado, "run", study, "--out", folder / "run", "--threads", str(args.threads)],
                       check=True, stdout=subprocess.DEVNULL)
        ours = (time.perf_counter() - start) * 1e3
        cells += loop_cells(worker, prompts, chosen[args.cells:])
        share = others.share()
        versions = worker.ask("versions")
        worker.close()
        rows = subprocess.run([args.cortado, "export", folder / "run", "--format", "jsonl"], check=True,
                              stdout=subprocess.PIPE, text=True).stdout.splitlines()
        done = [json.loads(row) for row in rows]
    failed = sum(row["status"] != "done" for row in done)
    loop = median([cell["ms"] for cell in cells]) * len(all_cells)
    save(args.out, "sweep", {
        "prompts": len(prompts), "prompt_tokens": [len(p) for p in prompts], "interventions": len(INTERVENTIONS),
        "new_tokens": TOKENS, "cells": len(all_cells), "cortado_cells": len(done), "cortado_failed": failed,
        "cortado_ms": ours, "loop_cells_measured": cells, "loop_ms_extrapolated": loop, "ratio": loop / ours,
        "threads": args.threads, "versions": versions, "cpu_share_of_others": share,
        "commit": subprocess.run([args.cortado, "--version"], check=True, stdout=subprocess.PIPE,
                                 text=True).stdout.strip()})
    print(f"sweep of {len(all_cells)} cells: cortado {ours / 1e3:.1f} s ({failed} of {len(done)} failed), loop "
          f"{loop / 1e3:.0f} s (from {len(cells)} cells): ratio {loop / ours:.1f}")


if __name__ == "__main__":
    main()
