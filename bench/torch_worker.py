"""transformers and oneDNN behind a pipe, for bench/compare.py and bench/sweep.py: one process that does one thing at a
time, so that its time and memory are its own.

    PYTHON bench/torch_worker.py MODEL DTYPE THREADS

Reads one JSON object a line on standard input, {"do": name, ...}, and answers each with one line. The first line,
unasked, comes when the model has answered a prompt of 16 ids. Everything torch prints goes to standard error.
"""
import json
import os
import re
import select
import sys
import time

REPLIES = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import torch
import transformers
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

HEADS = {"keep": None, "metric": "entropy"}  # the intervention in force; keep None: all heads


def attention_with_heads(module, query, key, value, attention_mask, scaling, **kwargs):
    """sdpa in prefill; while generating, eager attention of which the `keep` heads of the highest score stay."""
    if HEADS["keep"] is None or query.shape[2] > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    groups = module.num_key_value_groups
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = torch.softmax(weights, -1, dtype=torch.float32)
    out = torch.matmul(weights.to(query.dtype), value)
    metric = HEADS["metric"]
    if metric == "l2":
        score = weights.square().sum(-1).sqrt()
    else:
        p = weights + 1e-12
        score = (p * p.log2()).sum(-1)
        if metric == "entropy-inverted":
            score = -score
    mask = torch.zeros_like(score).scatter_(1, score.topk(HEADS["keep"], 1).indices, 1)
    return (out * mask[..., None].to(out.dtype)).transpose(1, 2).contiguous(), weights


AttentionInterface.register("heads", attention_with_heads)
AttentionMaskInterface.register("heads", eager_mask)


class Worker:
    def __init__(self, folder, dtype, threads):
        torch.set_num_threads(threads)
        self.dtype = getattr(torch, {"f32": "float32", "bf16": "bfloat16"}[dtype])
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=self.dtype).eval()

    def prefill(self, ids):
        """Logits of the last token, and the cache. RecurrentGemma keeps its recurrent states in its layers, Jamba in
        the cache."""
        cache = DynamicCache(config=self.model.config)
        if hasattr(self.model, "_setup_cache"):
            self.model._setup_cache(self.model.config, 1, "cpu", self.dtype)
        return self.step(ids, cache), cache

    def step(self, ids, cache):
        out = self.model(torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1)
        return int(out.logits[0, -1].argmax())

    def do_prefill(self, ids):
        start = time.perf_counter()
        self.prefill(ids)
        return {"ms": (time.perf_counter() - start) * 1e3}

    def do_decode(self, ids, steps):
        """Each token's time after a prompt; the first step warms up and is not told."""
        token, cache = self.prefill(ids)
        ms = []
        for _ in range(steps + 1):
            start = time.perf_counter()
            token = self.step([token], cache)
            ms.append((time.perf_counter() - start) * 1e3)
        return {"ms": ms[1:]}

    def do_cell(self, ids, tokens, keep, metric):
        """One cell of a sweep as a loop runs it: the whole prompt, then `tokens` tokens, under one intervention."""
        if self.model.config._attn_implementation != "heads":
            self.model.set_attn_implementation("heads")
        HEADS.update(keep=keep, metric=metric)
        start = time.perf_counter()
        token, cache = self.prefill(ids)
        chosen = [token]
        while len(chosen) < tokens:
            chosen.append(self.step([chosen[-1]], cache))
        return {"ms": (time.perf_counter() - start) * 1e3, "ids": chosen}

    def do_linear(self, n, k, tokens, copies, repeat):
        """torch.nn.functional.linear at one shape: the median over `repeat` of a pass over `copies` weights, as cold
        as those of a model's layers."""
        x = torch.randn(tokens, k).to(self.dtype)
        weights = [torch.randn(n, k).to(self.dtype) for _ in range(copies)]
        ms = []
        for _ in range(repeat + 1):
            start = time.perf_counter()
            for w in weights:
                torch.nn.functional.linear(x, w)
            ms.append((time.perf_counter() - start) * 1e3 / copies)
        return {"ms": sorted(ms[1:])[repeat // 2]}

    def do_library(self, n, k, tokens):
        """Which of torch's libraries computes such a product: oneDNN says so if it is asked to be verbose."""
        x, w = torch.randn(tokens, k).to(self.dtype), torch.randn(n, k).to(self.dtype)
        reader, writer = os.pipe()
        before = os.dup(1)
        os.dup2(writer, 1)
        with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
            torch.nn.functional.linear(x, w)
        os.dup2(before, 1)
        os.close(writer)
        said = os.read(reader, 1 << 20).decode(errors="replace") if select.select([reader], [], [], 0)[0] else ""
        for line in said.splitlines():
            fields = line.split(",")
            if "exec" in fields and ("matmul" in fields or "inner_product" in fields):
                return {"library": "oneDNN", "kernel": next(f for f in fields if ":" in f)}
        mkl = torch.backends.mkl.is_available()
        return {"library": "MKL" if mkl else "not oneDNN", "kernel": None}

    def do_peak(self):
        with open("/proc/self/status", encoding="ascii") as status:
            return {"bytes": next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))}

    def do_versions(self):
        mkldnn = re.search(r"MKL-DNN v(\S+)", torch.__config__.show())
        return {"torch": torch.__version__, "transformers": transformers.__version__,
                "onednn": mkldnn and mkldnn[1]}


def main():
    folder, dtype, threads = sys.argv[1:4]
    with torch.inference_mode():
        worker = Worker(folder, dtype, int(threads))
        token, _ = worker.prefill(list(range(1, 17)))
        print(json.dumps({"first_token": token}), file=REPLIES)
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps(getattr(worker, "do_" + request.pop("do"))(**request)), file=REPLIES)


if __name__ == "__main__":
    main()
