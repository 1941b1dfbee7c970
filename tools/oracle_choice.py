#!/usr/bin/env python3
"""Compares `cortado eval` with transformers: log-probabilities of choices, and the scores made of them.

    tools/oracle_choice.py CORTADO MODEL --task mmlu --data DIR [--subjects NAME...] [--limit 20] [--chat]

Prompts come from `cortado eval --dump-prompts`. They are encoded as lm-evaluation-harness does it (white space
that ends a context moves to the choice; a choice's tokens are those behind the context's own), run through
transformers in f32 in one call a choice, and scored with scikit-learn. Prints the largest difference of a
log-probability and exits with 1 if it is not below --limit-difference (1e-4), or if a score differs.
Needs torch, transformers, scikit-learn.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import AutoModelForCausalLM, AutoTokenizer


def pair(tokenizer, context, continuation):
    stripped = context.rstrip()
    continuation, context = context[len(stripped):] + continuation, stripped
    bos = tokenizer.bos_token
    special = not (bos and context.startswith(bos))
    before = tokenizer(context, add_special_tokens=special).input_ids
    whole = tokenizer(context + continuation, add_special_tokens=special).input_ids
    return before, whole[len(before):]


@torch.no_grad()
def log_p(model, before, choice):
    ids = before + choice
    logits = model(torch.tensor([ids[:-1]]), use_cache=False).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(before) - 1 + i, token]) for i, token in enumerate(choice))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cortado")
    parser.add_argument("model")
    parser.add_argument("--task", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--subjects", nargs="*", default=[])
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--chat", action="store_true")
    parser.add_argument("--limit-difference", type=float, default=1e-4)
    args = parser.parse_args()
    command = [args.cortado, "eval", "--task", args.task, "--data", args.data, "--limit", str(args.limit), "-m", args.model]
    command += ["--subjects", *args.subjects] if args.subjects else []
    command += ["--chat"] if args.chat else []
    with tempfile.TemporaryDirectory() as folder:
        prompts, samples = os.path.join(folder, "prompts"), os.path.join(folder, "samples")
        subprocess.run(command + ["--dump-prompts", prompts], check=True, stdout=subprocess.DEVNULL)
        out = subprocess.run(command + ["--compute", "f32", "--samples", samples, "--json"], check=True, stdout=subprocess.PIPE)
        scores = json.loads(out.stdout)["subjects"]
        prompts = [json.loads(line) for line in open(prompts)]
        samples = {(s["subject"], s["doc_id"]): s for s in map(json.loads, open(samples))}
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    worst, seen, picked, gold = 0.0, 0, {}, {}
    for prompt in prompts:
        sample = samples[prompt["subject"], prompt["doc_id"]]
        ours = sample["log_p"]
        theirs = [log_p(model, *pair(tokenizer, prompt["context"], c)) for c in prompt["continuations"]]
        worst = max([worst] + [abs(a - b) for a, b in zip(ours, theirs)])
        seen += len(theirs)
        picked.setdefault(prompt["subject"], []).append(sample["picked"])
        gold.setdefault(prompt["subject"], []).append(prompt["gold"])
    print(f"{seen} log-probabilities, largest difference {worst:.2e}")
    wrong = worst >= args.limit_difference
    for subject, score in scores.items():
        a, b = gold[subject], picked[subject]
        right = {"acc": accuracy_score(a, b), "f1": f1_score(a, b, zero_division=0) if set(a + b) <= {0, 1} else None,
                 "mcc": matthews_corrcoef(a, b)}
        for name in right:
            if name in score and abs(score[name] - right[name]) > 1e-8:
                print(f"{subject}: {name} is {score[name]}, scikit-learn says {right[name]}")
                wrong = True
    sys.exit(wrong)


if __name__ == "__main__":
    main()
