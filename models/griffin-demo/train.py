"""Trains griffin-demo: stage `natural` from scratch, then stage `drophead`; exports the Hugging Face files.

    python3 train.py --work WORKDIR --out OUTDIR [--seconds 450 85] [--haystack NAME=GLOB ...]

WORKDIR holds tokens.npy and pools.json (../common/tokenizer.py). One GPU of the H100's size; stage lengths are wall-clock seconds,
compilation not counted. OUTDIR receives model.safetensors (bf16), config.json, generation_config.json, log.json and the
float32 weights after the first stage (natural-0.safetensors, natural-1.safetensors), from which `--from OUTDIR` starts
the second stage alone. `--tiny` is a dry run for a CPU.

DropHead: in a share of the rows each attention layer keeps a random k of its 8 heads, at every position. The exported
weights are the mean of those before and after the DropHead stage (`--mix 0.5`): enough for three heads to carry the
answer, little enough that it matters which three.
"""
import argparse
import json
import math
import os
import sys
import time

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "common"))

import evaluate
import griffin
import niah
import rows
from drophead import drop_heads


class Trainer:
    def __init__(self, cfg, weights, args, device):
        self.cfg, self.args, self.device = cfg, args, device
        self.w = {n: t.to(device).requires_grad_() for n, t in weights.items()}
        self.pieces = griffin.Pieces(compiled=device == "cuda" and not args.no_compile)
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.tables, self.log = {}, []

    def losses(self, ids, classes, heads):
        """[text, answer, copy] mean cross entropies."""
        B, T = ids.shape[0], ids.shape[1] - 1
        if (B, T) not in self.tables:
            self.tables[B, T] = griffin.flat_tables(self.cfg, B, T, self.device)
        x = griffin.train_hidden(self.w, self.cfg, ids[:, :-1], heads, self.pieces, self.tables[B, T], self.dtype)
        cls = classes[:, 1:].reshape(-1)
        weight = torch.stack([cls == c for c in (rows.TEXT, rows.ANSWER, rows.COPY)], 1).float()
        weight = weight / weight.sum(0).clamp(min=1)
        return self.pieces.loss_sums(x, self.w["model.final_norm.weight"], self.w["model.embed_tokens.weight"],
                                     ids[:, 1:].reshape(-1), weight)

    def stage(self, name, seconds, lr, share, seed, spread):
        """Trains for `seconds`; `spread`: all lengths from the start. DropHead on `share` of the rows."""
        args, dev = self.args, self.device
        feed = rows.Feed(args.work, HERE, seed, args.tokens, args.workers)
        matrices = [t for n, t in self.w.items() if t.dim() > 1 and "embed" not in n and not n.endswith("_bias")]
        ids_of = {id(t) for t in matrices}
        opt = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1},
                                 {"params": [t for t in self.w.values() if id(t) not in ids_of], "weight_decay": 0.0}],
                                lr=lr, betas=(0.9, 0.95), fused=dev == "cuda")
        gen = torch.Generator(dev).manual_seed(seed)
        coefficient = torch.tensor([1.0, 1.0, 0.5], device=dev)
        feed.progress.value = 0.61 if spread else 0.0
        step, tokens, start, recent, busy = 0, 0, None, [], 0.0
        print(f"stage {name}: {seconds} s, lr {lr}, DropHead on {share:.0%} of rows", flush=True)
        while True:
            t0 = time.time()
            ids, classes = feed.get()
            busy += time.time() - t0
            ids = torch.from_numpy(ids.astype("int32")).to(dev, non_blocking=True).long()
            classes = torch.from_numpy(classes).to(dev, non_blocking=True)
            shape = len(griffin.attention_layers(self.cfg)), ids.shape[0], self.cfg["num_attention_heads"]
            heads = drop_heads(*shape, share, args.kmin, dev, gen) if share else None
            passed = 0.0 if start is None else min(1.0, (time.time() - start) / seconds)
            feed.progress.value = 0.61 + 0.39 * passed if spread else passed
            rate = lr * min(1.0, (step + 1) / 100) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * passed)))
            for group in opt.param_groups:
                group["lr"] = rate
            loss = self.losses(ids, classes, heads)
            (loss * coefficient).sum().backward()
            torch.nn.utils.clip_grad_norm_(list(self.w.values()), 1.0)
            opt.step()
            opt.zero_grad(set_to_none=True)
            recent.append(loss.detach())
            step, tokens = step + 1, tokens + ids[:, 1:].numel()
            if start is None and step == 3:     # compiled by now
                if dev == "cuda":
                    torch.cuda.synchronize()
                start, busy = time.time(), 0.0
            if step % args.log_every == 0 or passed >= 1.0:
                seen = torch.stack(recent)
                mean = seen.sum(0) / (seen > 0).sum(0).clamp(min=1)
                wall = time.time() - (start or time.time())
                entry = {"stage": name, "step": step, "seconds": round(wall, 1), "tokens": tokens, "row": ids.shape[1] - 1, "lr": rate,
                         "text": float(mean[0]), "answer": float(mean[1]), "copy": float(mean[2]), "tokens_per_s": round(tokens / max(wall, 1e-9)),
                         "waited": round(busy, 1)}
                self.log.append(entry)
                print(json.dumps(entry), flush=True)
                recent = []
            if passed >= 1.0 or step == args.max_steps:
                break
        feed.close()

    def weights(self):
        return {n: t.detach().cpu().clone() for n, t in self.w.items()}


def save_natural(weights, out):
    """The first stage's float32 weights in two files of about the same size."""
    half, total = ({}, {}), sum(t.numel() for t in weights.values())
    for name, t in weights.items():
        half[sum(x.numel() for x in half[0].values()) >= total // 2][name] = t
    for n in (0, 1):
        save_file(half[n], os.path.join(out, f"natural-{n}.safetensors"))


def export(weights, cfg, out):
    save_file(weights, os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(cfg, f, indent=2)
        f.write("\n")
    with open(os.path.join(out, "generation_config.json"), "w") as f:
        json.dump({"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "do_sample": False}, f, indent=2)
        f.write("\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--work", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--seconds", type=float, nargs=2, default=(450, 85), metavar=("NATURAL", "DROPHEAD"),
                    help="0 for the second: the first stage alone")
    ap.add_argument("--lr", type=float, nargs=2, default=(2.5e-3, 6e-4), metavar=("NATURAL", "DROPHEAD"))
    ap.add_argument("--share", type=float, default=0.10, help="rows with DropHead in the second stage")
    ap.add_argument("--kmin", type=int, default=4, help="fewest heads that DropHead keeps")
    ap.add_argument("--mix", type=float, default=0.5, help="exported weights = before + MIX * (after - before the second stage)")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--tokens", type=int, default=81920, help="tokens a step")
    ap.add_argument("--workers", type=int, default=12)
    ap.add_argument("--from", dest="start", help="folder with natural-0/1.safetensors: only the second stage")
    ap.add_argument("--haystack", nargs="*", default=[], metavar="NAME=GLOB", help="evaluate at the end (see evaluate.py)")
    ap.add_argument("--paper-prompts")
    ap.add_argument("--grid", type=int, default=10)
    ap.add_argument("--quick", action="store_true")
    ap.add_argument("--log-every", type=int, default=100)
    ap.add_argument("--max-steps", type=int, default=-1)
    ap.add_argument("--no-compile", action="store_true")
    ap.add_argument("--tiny", action="store_true")
    args = ap.parse_args()
    started = time.time()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cfg = dict(griffin.CONFIG)
    if args.tiny:
        cfg |= {"hidden_size": 64, "lru_width": 64, "head_dim": 8, "intermediate_size": 128, "num_hidden_layers": 3, "attention_window_size": 64}
        args.tokens, args.workers, args.log_every = 5120, 1, 2
    torch.backends.cuda.matmul.allow_tf32 = True
    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(args.seed)
    if args.start:
        weights = load_file(os.path.join(args.start, "natural-0.safetensors")) | load_file(os.path.join(args.start, "natural-1.safetensors"))
    else:
        weights = griffin.init_weights(cfg, torch.Generator().manual_seed(args.seed), "cpu")
    print(f"{sum(t.numel() for t in weights.values())} parameters on {torch.cuda.get_device_name() if device == 'cuda' else 'cpu'}", flush=True)
    trainer = Trainer(cfg, weights, args, device)
    if not args.start:
        trainer.stage("natural", args.seconds[0], args.lr[0], 0.0, args.seed, spread=False)
        save_natural(trainer.weights(), args.out)
    final = trainer.weights()
    if args.seconds[1]:
        before = final
        trainer.stage("drophead", args.seconds[1], args.lr[1], args.share, args.seed + 1000, spread=True)
        final = {n: before[n] + args.mix * (t - before[n]) for n, t in trainer.weights().items()}
    final = {n: t.bfloat16() for n, t in final.items()}
    export(final, cfg, args.out)
    print(f"trained and exported after {time.time() - started:.0f} s; "
          + (f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device == "cuda" else ""), flush=True)
    with open(os.path.join(args.out, "log.json"), "w") as f:
        json.dump({"arguments": vars(args), "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
                   "torch": torch.__version__, "seconds": time.time() - started, "log": trainer.log}, f, indent=1)
    haystack = niah.read_haystack(args.haystack)
    if haystack or args.paper_prompts:
        tok = Tokenizer.from_file(os.path.join(HERE, "tokenizer.json"))
        del trainer
        results = evaluate.evaluate(final, cfg, tok, haystack, args.paper_prompts, device, args.quick, args.grid)
        with open(os.path.join(args.out, "evaluation.json"), "w") as f:
            json.dump(results, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
