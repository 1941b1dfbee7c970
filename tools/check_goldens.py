#!/usr/bin/env python3
"""Runs every golden case of a model through the command line and compares, as an outside tester would.

    tools/check_goldens.py PROGRAM SHARED [--model jamba-tiny] [--only TEXT]

SHARED is the folder with data/goldens. For each case of the model's goldens*.json:

    PROGRAM generate -m MODEL --prompt-ids ... -n 12 --ignore-eos --semantics reference
        --force-ids ... --save-logits FILE --json, with the case's heads, weights and positions

the logits are compared, the chosen tokens and the heads kept as sets; then the case runs once more
without --force-ids and its tokens are compared. What data/goldens/README.md says is not to be matched
is left out and counted. Needs numpy and safetensors. Exits 1 at a difference.
"""
import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy
from safetensors.numpy import load_file

# The README's tolerance: f32 against f64 differs by up to 4.6e-5, implementations by up to 6.2e-5.
LOGITS = 5e-4
MODES = {"balanced": "binary"}


def positions(numbers):
    """[5, 6, 7, 30] as 5-7,30."""
    ranges = []
    for n in sorted(numbers):
        if ranges and n == ranges[-1][1] + 1:
            ranges[-1][1] = n
        else:
            ranges.append([n, n])
    return ",".join(f"{a}-{b}" if b > a else str(a) for a, b in ranges)


def flags(case):
    """The intervention of a case as options of `cortado generate`."""
    topk, edit, out = case["topk"], case["manipulation"], []
    if topk:
        out += ["--keep-heads", str(topk["k"]), "--metric", topk["metric"],
                "--stages", topk["stage"]]
    if edit:
        out += ["--needle-positions", positions(edit["needle"])]
        if edit["prefill_needle"] != edit["needle"]:
            out += ["--needle-positions-prefill", positions(edit["prefill_needle"])]
        out += ["--weights-generation", MODES.get(edit["gen"], edit["gen"]),
                "--weights-prefill", MODES.get(edit["prefill"], edit["prefill"])]
    return out


def left_out(case, heads):
    """Why the case is not to be matched, or None."""
    topk = case["topk"]
    if topk and topk["prefill"] and 0 < topk["k"] < heads and not case["id"].endswith(".lowtie"):
        return "torch's arbitrary choice at a tie"
    if "margin" in str(case.get("fragile", "")):
        return "near tie of heads"
    return None


class Checker:
    def __init__(self, args):
        self.program = args.program
        self.folder = pathlib.Path(args.shared, "data/goldens", args.model)
        self.only = args.only
        self.counts = collections.Counter()
        self.largest, self.largest_case = 0.0, "none"

    def generate(self, ids, new, options):
        command = [self.program, "generate", "-m", str(self.folder), "--prompt-ids",
                   ",".join(map(str, ids)), "-n", str(new), "--ignore-eos", "--semantics",
                   "reference", "--threads", "1", "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"exit {done.returncode}: {done.stderr.strip()}")
        answer = json.loads(done.stdout)
        if answer["prompt_tokens"] != len(ids) or len(answer["ids"]) != new:
            raise ValueError(f"{answer['prompt_tokens']} prompt tokens, {len(answer['ids'])} new")
        return answer["ids"]

    def heads_kept(self, case, tensors, shape):
        """The golden's heads of each step and attention layer. Jamba's first token comes from
        prefill: its heads are those of the prompt's last row."""
        topk, steps = case["topk"], []
        everything = [range(shape[2])] * shape[1]
        if not topk:
            return [everything] * shape[0]
        if self.family == "jamba":
            if not topk["prefill"]:
                steps = [everything]
            elif topk["k"]:
                steps = [tensors[case["tensors"]["topk_prefill"]][:, :, -1]]
        if topk["k"]:
            steps += list(tensors[case["tensors"]["topk_gen"]])
        return steps + [[[]] * shape[1]] * (shape[0] - len(steps))

    def check(self, case, manifest, tensors):
        prompt, tokens = manifest["prompts"][case["prompt"]]["ids"], case["tokens"]
        chosen_is_safe = "fragile" not in case
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "logits.safetensors")
            ids = self.generate(prompt, len(tokens), flags(case) + [
                "--force-ids", ",".join(map(str, tokens)), "--save-logits", str(path)])
            ours = load_file(path)
        golden = tensors[case["tensors"]["logits"]]
        if ours["logits"].shape != golden.shape:
            raise ValueError(f"logits {ours['logits'].shape}, golden {golden.shape}")
        largest = float(numpy.abs(ours["logits"].astype("f8") - golden).max())
        if not largest <= LOGITS:
            raise ValueError(f"logits differ by {largest:.3g}")
        if largest > self.largest:
            self.largest, self.largest_case = largest, case["id"]
        self.counts["logits rows"] += len(golden)
        if chosen_is_safe and ids != tokens:
            raise ValueError(f"forced: chose {ids}, golden {tokens}")
        for step, layers in enumerate(self.heads_kept(case, tensors, ours["heads_kept"].shape)):
            for layer, heads in enumerate(layers):
                kept = set(numpy.flatnonzero(ours["heads_kept"][step, layer]))
                if kept != set(heads):
                    raise ValueError(f"step {step}, attention layer {layer}: kept {sorted(kept)}, "
                                     f"golden {sorted(heads)}")
                self.counts["head sets"] += 1
        if chosen_is_safe:
            free = self.generate(prompt, len(tokens), flags(case))
            if free != tokens:
                raise ValueError(f"chose {free}, golden {tokens}")
            self.counts["free runs"] += 1

    def run(self):
        for path in sorted(self.folder.glob("goldens*.json")):
            manifest = json.loads(path.read_text())
            self.family = manifest["model_family"]
            tensors = load_file(path.with_suffix(".safetensors"))
            heads = manifest.get("num_heads") or json.loads(
                (self.folder / "config.json").read_text())["num_attention_heads"]
            for case in manifest["cases"]:
                if self.only not in case["id"]:
                    continue
                reason = left_out(case, heads)
                if reason:
                    self.counts[f"left out: {reason}"] += 1
                    continue
                self.counts["cases"] += 1
                try:
                    self.check(case, manifest, tensors)
                except ValueError as error:
                    self.counts["FAILED"] += 1
                    print(f"{path.name}: {case['id']}: {error}")
        counts = ", ".join(f"{n} {what}" for what, n in self.counts.items())
        print(f"goldens {self.folder.name}: {counts}; largest difference of a logit "
              f"{self.largest:.3g} ({self.largest_case}), bound {LOGITS:g}")
        return 1 if self.counts["FAILED"] or not self.counts["cases"] else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("shared")
    parser.add_argument("--model", default="recurrentgemma-tiny")
    parser.add_argument("--only", default="", help="only cases whose name contains this")
    return Checker(parser.parse_args()).run()


if __name__ == "__main__":
    sys.exit(main())
