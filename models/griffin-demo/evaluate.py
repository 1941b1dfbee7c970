"""Needle-in-a-haystack evaluation of griffin-demo with head selection, in torch.

    python3 evaluate.py --haystack FILES... [--model .] [--out RESULTS.json] [--paper-prompts DIR]

Prompts, scoring and head selection: ../common/niah.py; lengths 250 .. 4096 of this tokenizer's tokens times depths 0 .. 100
(10 x 10). The window is counted as DeepMind does: a query sees itself and W tokens before it.
"""
import argparse
import json
import os
import sys
import time

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "common"))

import griffin
from niah import all_heads, prompt_sets, read_haystack, selection, show


def evaluate(weights, cfg, tok, haystack, paper_prompts, device, quick=False, grid=10):
    """haystack: {name: text}. Returns a dict for JSON and prints tables."""
    started, W, results = time.time(), cfg["attention_window_size"], {}
    dec = griffin.Decoder(weights, cfg, W, device)
    uncut = griffin.Decoder(weights, cfg, 1 << 30, device)
    for n, (name, prompts) in enumerate(prompt_sets(tok, haystack, paper_prompts, grid).items()):
        if quick and n:
            break
        r, first, state = all_heads(dec, tok, prompts)
        results[f"all heads, window {W}: {name}"] = r
        print(f"all heads, window {W}: {name}: accuracy {r['accuracy']:.3f}; "
              + ", ".join(f"{k} {a:.3f} ({m})" for k, (m, a) in sorted(r["by_place"].items())))
        u, ufirst, ustate = all_heads(uncut, tok, prompts)
        results[f"all heads, window uncut: {name}"] = u
        print(f"all heads, window uncut: {name}: accuracy {u['accuracy']:.3f}")
        if "read twice" in name or "jrt" in name:
            continue
        inside = [i for i, p in enumerate(prompts) if p.place(W) == "inside"]
        part = lambda s: {"n": s["n"][inside], "used": s["used"], "kpos": s["kpos"][inside], "layers": [[z[inside] for z in y] for y in s["layers"]]}
        within = [prompts[i] for i in inside]
        if within:
            r = selection(dec, tok, within, range(9), "generation", merged=([first[i] for i in inside], part(state)))
            results[f"window {W}, needle inside: {name}, generation"] = r
            show(f"window {W}, needle inside: {name}", r)
        r = selection(uncut, tok, prompts, range(9), "generation", merged=(ufirst, ustate))
        results[f"window uncut: {name}, generation"] = r
        show(f"window uncut: {name}", r)
        if n == 0:
            print("answers, lowest entropy, uncut:", json.dumps(r["sample_answers"], indent=0))
            few = (within or prompts)[:: max(1, len(within) // 25)][:25]
            r = selection(dec, tok, few, range(9), "prefill+generation")
            results[f"window {W}, needle inside: {name}, prefill+generation"] = r
            show(f"window {W}, needle inside: {name}", r)
        del state, ustate
    print(f"\nevaluation took {time.time() - started:.0f} s")
    return results


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--haystack", nargs="+", required=True, metavar="NAME=GLOB")
    ap.add_argument("--model", default=HERE)
    ap.add_argument("--paper-prompts", help="folder with prompts_base and prompts_base_jrt")
    ap.add_argument("--out")
    ap.add_argument("--quick", action="store_true", help="the first set only")
    ap.add_argument("--grid", type=int, default=10)
    args = ap.parse_args()
    with open(os.path.join(args.model, "config.json")) as f:
        cfg = json.load(f)
    weights = load_file(os.path.join(args.model, "model.safetensors"))
    tok = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = evaluate(weights, cfg, tok, read_haystack(args.haystack), args.paper_prompts, device, args.quick, args.grid)
    if args.out:
        with open(args.out, "w") as f:
            json.dump(results, f, indent=1)


if __name__ == "__main__":
    main()
