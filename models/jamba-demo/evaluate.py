"""Needle-in-a-haystack evaluation of jamba-demo and mamba-demo with head selection, in torch.

    python3 evaluate.py --haystack NAME=GLOB ... [--model FOLDER] [--paper-prompts DIR] [--out RESULTS.json] [--quick]

Prompts, scoring and head selection: ../common/niah.py; lengths 250 .. 4096 of this tokenizer's tokens times depths 0 .. 100 (10 x 10).
Not with --quick: prompts longer than the training rows, and prompts with up to 32 more needles of the same form.
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
sys.path[1:1] = [HERE, os.path.join(HERE, "..", "common")]

import jamba
import niah


def print_map(table):
    """Scores 0 .. 5 by length (rows) and depth (columns)."""
    print("length " + " ".join(f"{d:>5}" for d in next(iter(table.values()))))
    for length, by_depth in table.items():
        print(f"{length:6} " + " ".join(f"{s:5.1f}" for s in by_depth.values()))


def no_heads(P):
    return P.new_zeros(P.shape[:3])


def crowd(dec, tok, text, grid=10):
    """Accuracy and scores by length and depth, by the number of other needles in the prompt: with all heads, and without any in both
    stages. Prompts whose needles would leave less than 250 tokens are left out. Then prompts longer than the training rows."""
    ids = tok.encode(text, add_special_tokens=False).ids
    lengths, depths = niah.linspace(250, 4096, grid), niah.linspace(0, 100, grid)
    sets = {}
    for others in (0, 1, 2, 4, 8, 16, 32):
        fitting = [n for n in lengths if n - 36 * others >= 250]
        sets[f"{others} other needles"] = [niah.crowded(tok, ids, n, d, others) for n in fitting for d in depths]
    for n in (6144, 8192, 12288):
        sets[f"length {n}"] = [niah.Prompt(tok, niah.build_prompt(tok, ids, f"\n{niah.SENTENCE}\n", n, d), n, d) for d in (0, 25, 50, 75, 100)]
    out = {}
    for name, prompts in sets.items():
        out[name] = {"prompts": len(prompts)}
        for label, select in (("all heads", None), ("no heads", no_heads)):
            if select is None or jamba.attention_layers(dec.cfg):
                first, state = niah.prefill_all(dec, prompts, select)
                texts = niah.answers(dec, tok, first, state, select)
                table = {}
                for p, t in zip(prompts, texts):
                    table.setdefault(p.length, {})[p.depth] = niah.score(t)
                out[name][label] = {"accuracy": niah.accuracy(texts), "score_by_length_depth": table, "answers": texts[5::17]}
                if name == "4 other needles" and select is None and jamba.attention_layers(dec.cfg):
                    g = niah.selection(dec, tok, prompts, range(9), "generation", merged=(first, state))
                    out[name]["generation"] = g
                    niah.show(name, g)
        print(name, {k: round(v["accuracy"], 3) for k, v in out[name].items() if "heads" in k}, flush=True)
    return out


def text_loss(dec, tok, text, size=1024):
    """Mean cross entropy in nats over rows of `size` tokens of the text: (all heads, no heads)."""
    ids = tok.encode(text, add_special_tokens=False).ids
    rows = torch.tensor([[2] + ids[i:i + size - 1] for i in range(0, len(ids) - size, size)], device=dec.device)
    out = []
    for select in (None, no_heads):
        total = 0.0
        for part in rows.split(4):
            logits, _ = dec.prefill(part, torch.full((len(part),), size, device=dec.device), select, all_logits=True)
            total += float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), part[:, 1:].flatten(), reduction="sum"))
        out.append(total / (rows.numel() - len(rows)))
    return out


def evaluate(weights, cfg, tok, haystack, device, grid=10, quick=False, prefill=True, paper_prompts=None, crowds=False):
    """haystack: {name: text}. Returns a dict for JSON and prints tables. `quick`: the first set of prompts only; `prefill`: also selection
    in both stages, on every fourth prompt."""
    started, results = time.time(), {}
    dec = jamba.Decoder(weights, cfg, device)
    for name, prompts in niah.prompt_sets(tok, haystack, paper_prompts, grid).items():
        if (quick or crowds) and results:
            break
        r, first, state = niah.all_heads(dec, tok, prompts)
        results[f"all heads: {name}"] = r
        print(f"\nall heads: {name}: accuracy {r['accuracy']:.3f} ({r['prompts']} prompts, {min(len(p.ids) for p in prompts)} to "
              f"{max(len(p.ids) for p in prompts)} tokens)", flush=True)
        print_map(r["score_by_length_depth"])
        if "read twice" in name or "jrt" in name or not jamba.attention_layers(cfg):
            print("answers:", json.dumps([f["answer"] for f in r["failures"][::6]], indent=0))
            continue
        g = niah.selection(dec, tok, prompts, range(9), "generation", merged=(first, state))
        results[f"{name}, generation"] = g
        niah.show(name, g)
        print("answers, lowest entropy:", json.dumps(g["sample_answers"], indent=0), flush=True)
        if prefill and not any("prefill" in k for k in results):
            g = niah.selection(dec, tok, prompts[::4], range(9), "prefill+generation")
            results[f"{name}, prefill+generation"] = g
            niah.show(name, g)
            sys.stdout.flush()
        del state
    if crowds or not quick:
        results["crowd"] = crowd(dec, tok, next(iter(haystack.values())), grid)
    for name, text in haystack.items():
        results[f"text: {name}"] = text_loss(dec, tok, text)
        print(f"cross entropy of {name}: all heads {results[f'text: {name}'][0]:.3f}, no heads {results[f'text: {name}'][1]:.3f}")
    print(f"\nevaluation took {time.time() - started:.0f} s", flush=True)
    return results


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--haystack", nargs="+", required=True, metavar="NAME=GLOB")
    ap.add_argument("--model", default=HERE)
    ap.add_argument("--weights", help="another weights file than the model's")
    ap.add_argument("--paper-prompts", help="folder with prompts_base and prompts_base_jrt")
    ap.add_argument("--out")
    ap.add_argument("--quick", action="store_true", help="the first set of prompts only")
    ap.add_argument("--crowd", action="store_true", help="the first set of prompts, then crowded and long ones")
    ap.add_argument("--no-prefill", action="store_true", help="head selection in the generation stage only")
    ap.add_argument("--grid", type=int, default=10)
    args = ap.parse_args()
    with open(os.path.join(args.model, "config.json")) as f:
        cfg = json.load(f)
    weights = load_file(args.weights or os.path.join(args.model, "model.safetensors"))
    tok = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    results = evaluate(weights, cfg, tok, niah.read_haystack(args.haystack), device, args.grid, args.quick, not args.no_prefill, args.paper_prompts, args.crowd)
    if args.out:
        with open(args.out, "w") as f:
            json.dump(results, f, indent=1)


if __name__ == "__main__":
    main()
