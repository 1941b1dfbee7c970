"""Trains jamba-demo: stage `natural` from scratch, then stage `drophead`; exports the Hugging Face files.

    python3 train.py --work WORKDIR --out OUTDIR [--steps N N] [--model FOLDER] [--haystack NAME=GLOB ...]

WORKDIR holds tokens.npy and pools.json (../common/tokenizer.py); FOLDER config.json and tokenizer.json (this folder; mamba-demo's
train.py names its own). One GPU of the H100's size. Batches depend on the seed and the step alone, so two models see the same
data in the same order. OUTDIR receives model.safetensors (bf16), config.json, generation_config.json, log.json,
natural.safetensors and drophead.safetensors (bf16, the weights after each stage). Every --save seconds OUTDIR/checkpoint.safetensors
(bf16) and checkpoint.json are written, from which `--resume OUTDIR` goes on, with fresh optimiser moments.
`--tiny` is a dry run for a CPU.

DropHead: in a share of the rows each attention layer keeps a random k of its 8 heads, at every position. The exported
weights are before + MIX * (after - before) of the DropHead stage. Without attention layers that stage is more of the same training.
"""
import argparse
import json
import math
import os
import shutil
import sys
import time

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[1:1] = [HERE, os.path.join(HERE, "..", "common")]

import evaluate
import jamba
import niah
import rows
import scan
from drophead import drop_heads

STAGES = ("natural", "drophead")


class Trainer:
    def __init__(self, cfg, weights, args, device):
        self.cfg, self.args, self.device = cfg, args, device
        self.w = {n: t.float().to(device).requires_grad_() for n, t in jamba.stack_experts(weights, cfg).items()}
        self.pieces = jamba.Pieces(compiled=device == "cuda" and not args.no_compile)
        self.dtype = torch.bfloat16 if device == "cuda" else torch.float32
        self.pos, self.log, self.saved = {}, [], time.time()

    def losses(self, ids, classes, heads):
        """Mean cross entropies of [text, answer, copy], the balance loss, the smallest share of an expert."""
        B, T = ids.shape[0], ids.shape[1] - 1
        if (B, T) not in self.pos:
            self.pos[B, T] = jamba.positions(B, T, self.device)
        x, balance, least = jamba.train_hidden(self.w, self.cfg, ids[:, :-1], heads, self.pieces, self.pos[B, T], self.dtype)
        cls = classes[:, 1:].reshape(-1)
        weight = torch.stack([cls == c for c in (rows.TEXT, rows.ANSWER, rows.COPY)], 1).float()
        weight = weight / weight.sum(0).clamp(min=1)
        ce = self.pieces.loss_sums(x, self.w["model.final_layernorm.weight"], self.w["model.embed_tokens.weight"], ids[:, 1:].reshape(-1), weight)
        return torch.cat([ce, balance.float()[None], least.float()[None]])

    def checkpoint(self, stage, step):
        path = os.path.join(self.args.out, "checkpoint")
        save(self.weights(), path + ".part")
        os.replace(path + ".part", path + ".safetensors")
        with open(path + ".json", "w") as f:
            json.dump({"stage": stage, "step": step, "log": self.log}, f)
        self.saved = time.time()

    def stage(self, number, start=0):
        """Trains the steps from `start` to the end of a stage; in the second one with DropHead and all lengths from the start."""
        args, dev, steps, peak = self.args, self.device, self.args.steps[number], self.args.lr[number]
        feed = rows.OrderedFeed(args.work, args.model, args.seed + 1000 * number, args.tokens, args.workers, steps, number > 0, start)
        plain = lambda n, t: t.dim() < 2 or "embed" in n or n.endswith("A_log")
        opt = torch.optim.AdamW([{"params": [t for n, t in self.w.items() if not plain(n, t)], "weight_decay": 0.1},
                                 {"params": [t for n, t in self.w.items() if plain(n, t)], "weight_decay": 0.0}],
                                lr=peak, betas=(0.9, 0.95), fused=dev == "cuda")
        gen = torch.Generator(dev).manual_seed(args.seed + 1000 * number)
        coefficient = torch.tensor([1.0, 1.0, 0.5, self.cfg["router_aux_loss_coef"], 0.0], device=dev)
        tokens, began, recent, waited = 0, None, [], 0.0
        print(f"stage {STAGES[number]}: steps {start} to {steps}, lr {peak}", flush=True)
        for step in range(start, steps):
            t0 = time.time()
            ids, classes = feed.get()
            waited += time.time() - t0
            ids = torch.from_numpy(ids.astype("int32")).to(dev, non_blocking=True).long()
            classes = torch.from_numpy(classes).to(dev, non_blocking=True)
            shape = len(jamba.attention_layers(self.cfg)), ids.shape[0], self.cfg["num_attention_heads"]
            heads = drop_heads(*shape, args.share, args.kmin, dev, gen) if number else None
            rate = peak * min(1.0, (step - start + 1) / 100) * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            for group in opt.param_groups:
                group["lr"] = rate
            loss = self.losses(ids, classes, heads)
            (loss * coefficient).sum().backward()
            torch.nn.utils.clip_grad_norm_(list(self.w.values()), 1.0)
            opt.step()
            opt.zero_grad(set_to_none=True)
            recent.append(loss.detach())
            tokens += ids[:, 1:].numel()
            if step == start + 2:       # compiled by now
                if dev == "cuda":
                    torch.cuda.synchronize()
                began, waited, counted = time.time(), 0.0, tokens
            if (step + 1) % args.log_every == 0 or step + 1 == steps:
                seen = torch.stack(recent)
                mean = seen.sum(0) / (seen > 0).sum(0).clamp(min=1)
                wall = time.time() - (began or time.time())
                entry = {"stage": STAGES[number], "step": step + 1, "seconds": round(wall, 1), "tokens": tokens, "row": ids.shape[1] - 1,
                         "lr": rate, "text": float(mean[0]), "answer": float(mean[1]), "copy": float(mean[2]), "balance": float(mean[3]),
                         "least_expert": float(mean[4]), "tokens_per_s": round((tokens - counted) / max(wall, 1e-9)) if began else 0,
                         "waited": round(waited, 1)}
                self.log.append(entry)
                print(json.dumps(entry), flush=True)
                recent = []
                if time.time() - self.saved > args.save:
                    self.checkpoint(number, step + 1)
        feed.close()

    def weights(self):
        """Float32, on the CPU, Hugging Face's names."""
        return jamba.split_experts({n: t.detach().cpu().clone() for n, t in self.w.items()}, self.cfg)


def save(weights, path):
    save_file({n: t.bfloat16().contiguous() for n, t in weights.items()}, path, metadata={"format": "pt"})


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--work", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--model", default=HERE, help="folder of config.json and tokenizer.json")
    ap.add_argument("--steps", type=int, nargs=2, default=(8000, 1200), metavar=("NATURAL", "DROPHEAD"), help="0 for the second: the first stage alone")
    ap.add_argument("--lr", type=float, nargs=2, default=(2.5e-3, 6e-4), metavar=("NATURAL", "DROPHEAD"))
    ap.add_argument("--share", type=float, default=0.30, help="rows with DropHead in the second stage")
    ap.add_argument("--kmin", type=int, default=4, help="fewest heads that DropHead keeps")
    ap.add_argument("--mix", type=float, default=0.25, help="exported weights = before + MIX * (after - before the second stage)")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--tokens", type=int, default=81920, help="tokens a step")
    ap.add_argument("--workers", type=int, default=12)
    ap.add_argument("--resume", metavar="OUTDIR", help="go on from the checkpoint there")
    ap.add_argument("--natural", metavar="FILE", help="weights after the first stage: only the second stage")
    ap.add_argument("--save", type=float, default=60, help="seconds between checkpoints")
    ap.add_argument("--haystack", nargs="*", default=[], metavar="NAME=GLOB", help="evaluate at the end (see evaluate.py)")
    ap.add_argument("--grid", type=int, default=10)
    ap.add_argument("--log-every", type=int, default=100)
    ap.add_argument("--no-compile", action="store_true")
    ap.add_argument("--tiny", action="store_true")
    args = ap.parse_args()
    started = time.time()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with open(os.path.join(args.model, "config.json")) as f:
        cfg = json.load(f)
    if args.tiny:
        cfg |= {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 32, "mamba_dt_rank": 4}
        args.tokens, args.workers, args.log_every = 5120, 2, 2
    torch.backends.cuda.matmul.allow_tf32 = True
    os.makedirs(args.out, exist_ok=True)
    torch.manual_seed(args.seed)
    at = {"stage": 0, "step": 0, "log": []}
    if args.resume:
        with open(os.path.join(args.resume, "checkpoint.json")) as f:
            at = json.load(f)
        weights = load_file(os.path.join(args.resume, "checkpoint.safetensors"))
    elif args.natural:
        at["stage"], weights = 1, load_file(args.natural)
    else:
        weights = jamba.init_weights(cfg, torch.Generator().manual_seed(args.seed))
    print(f"{sum(t.numel() for t in weights.values())} parameters on {torch.cuda.get_device_name() if device == 'cuda' else 'cpu'}", flush=True)
    trainer = Trainer(cfg, weights, args, device)
    trainer.log = at["log"]
    if device == "cuda":
        print(f"scan: kernels against the loop in float64: {scan.check(device):.1e}", flush=True)
    natural = os.path.join(args.out, "natural.safetensors")
    if at["stage"] == 0:
        trainer.stage(0, at["step"])
        save(trainer.weights(), natural)
    elif not os.path.exists(natural):
        shutil.copy(args.natural or os.path.join(args.resume, "natural.safetensors"), natural)
    final = trainer.weights() if at["stage"] == 0 else load_file(natural)
    if args.steps[1]:
        before = {n: t.float() for n, t in final.items()}
        trainer.stage(1, at["step"] if at["stage"] else 0)
        after = trainer.weights()
        save(after, os.path.join(args.out, "drophead.safetensors"))
        final = {n: before[n] + args.mix * (t - before[n]) for n, t in after.items()}
    save(final, os.path.join(args.out, "model.safetensors"))
    for name, value in (("config", cfg), ("generation_config", {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "do_sample": False} | ({} if cfg["use_cache"] else {"use_cache": False}))):
        with open(os.path.join(args.out, name + ".json"), "w") as f:
            json.dump(value, f, indent=2)
            f.write("\n")
    print(f"trained and exported after {time.time() - started:.0f} s; "
          + (f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device == "cuda" else ""), flush=True)
    with open(os.path.join(args.out, "log.json"), "w") as f:
        json.dump({"arguments": vars(args), "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
                   "torch": torch.__version__, "seconds": time.time() - started, "log": trainer.log}, f, indent=1)
    for name in ("checkpoint.safetensors", "checkpoint.json"):
        if os.path.exists(os.path.join(args.out, name)):
            os.remove(os.path.join(args.out, name))
    haystack = niah.read_haystack(args.haystack)
    if haystack:
        tok = Tokenizer.from_file(os.path.join(args.model, "tokenizer.json"))
        del trainer
        results = evaluate.evaluate(load_file(os.path.join(args.out, "model.safetensors")), cfg, tok, haystack, device, grid=args.grid, quick=True)
        with open(os.path.join(args.out, "evaluation.json"), "w") as f:
            json.dump(results, f, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
