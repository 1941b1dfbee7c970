"""Compares jamba.py with Hugging Face transformers on the CPU, in float32.

    python3 check_hf.py random [--model FOLDER]              random weights: training path, plain path, cached decoding
    python3 check_hf.py files PROMPTS.json [--model FOLDER]  the exported files: logits and greedy tokens against the plain path

PROMPTS.json is a list of strings. Transformers 5.23 cannot keep a cache for a Jamba without attention layers: mamba-demo's
config.json and generation_config.json therefore say use_cache false.
"""
import json
import os
import sys
import tempfile

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[1:1] = [HERE, os.path.join(HERE, "..", "common")]

import jamba


def relative(a, b):
    return float((a - b).norm() / b.norm())


def check_random(folder):
    with open(os.path.join(folder, "config.json")) as f:
        cfg = json.load(f)
    torch.manual_seed(0)
    weights = jamba.init_weights(cfg, torch.Generator().manual_seed(0))
    for name, w in weights.items():     # norms and D are one at the start, biases zero: make them count
        if w.dim() == 1 and "dt_proj" not in name:
            weights[name] = w + torch.randn_like(w) * 0.3
    T = 23
    ids = torch.randint(4, cfg["vocab_size"], (3, T + 1))
    ids[:, 0] = 2
    with tempfile.TemporaryDirectory() as tmp:      # through a file: the loader splits and stacks the experts
        save_file(weights, os.path.join(tmp, "model.safetensors"), metadata={"format": "pt"})
        with open(os.path.join(tmp, "config.json"), "w") as f:
            json.dump(cfg, f)
        model, info = AutoModelForCausalLM.from_pretrained(tmp, dtype=torch.float32, output_loading_info=True)
        assert not any(info.values()), info
    model.eval()
    with torch.no_grad():
        ref = model(ids[:, :T], use_cache=False).logits
    dec = jamba.Decoder(weights, cfg, "cpu", bf16_weights=False)
    plain, _ = dec.prefill(ids[:, :T], torch.full((3,), T), all_logits=True)
    print(f"plain path, {T} tokens: relative difference {relative(plain, ref):.1e}")
    lengths = torch.tensor([9, 10, 11])
    out, state = dec.prefill(ids[:, :11], lengths)
    worst = relative(out, ref[torch.arange(3), lengths - 1])
    for t in range(12):
        at = lengths + t
        out = dec.step(state, ids[torch.arange(3), at])
        worst = max(worst, relative(out, ref[torch.arange(3), at]))
    print(f"cached steps after padded prompts: {worst:.1e}")
    stacked = jamba.stack_experts(weights, cfg)
    assert all(torch.equal(t, weights[n]) for n, t in jamba.split_experts(stacked, cfg).items())
    x, _, _ = jamba.train_hidden(stacked, cfg, ids[:, :T], None, jamba.Pieces(False), jamba.positions(3, T, "cpu"), torch.float32)
    print(f"training path: {relative(dec._logits(x).view(3, T, -1), ref):.1e}")
    target = ids[:, 1:].reshape(-1)
    ours = jamba.loss_sums(x, stacked["model.final_layernorm.weight"], stacked["model.embed_tokens.weight"], target, torch.ones(3 * T, 1))[0] / (3 * T)
    theirs = torch.nn.functional.cross_entropy(ref.view(3 * T, -1), target)
    print(f"loss {float(ours):.6f}, transformers {float(theirs):.6f}")


def check_files(folder, path):
    tok = AutoTokenizer.from_pretrained(folder)
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    model.eval()
    with open(os.path.join(folder, "config.json")) as f:
        cfg = json.load(f)
    dec = jamba.Decoder(load_file(os.path.join(folder, "model.safetensors")), cfg, "cpu")
    with open(path) as f:
        prompts = json.load(f)
    for prompt in prompts:
        ids = tok(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            ref = model(ids, use_cache=False).logits
            theirs = model.generate(ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1]:].tolist()
        logits, state = dec.prefill(ids, torch.tensor([ids.shape[1]]), all_logits=True)
        ours = [int(logits[0, -1].argmax())]
        while len(ours) < 40 and ours[-1] != cfg["eos_token_id"]:
            ours.append(int(dec.step(state, torch.tensor(ours[-1:])).argmax()))
        print(f"logits {relative(logits, ref):.1e},", "same" if ours == theirs else "DIFFERENT", ids.shape[1], "tokens:", repr(tok.decode(theirs)))
        if ours != theirs:
            print("   ours:", repr(tok.decode(ours)))


def main():
    args, folder = sys.argv[1:], HERE
    if "--model" in args:
        at = args.index("--model")
        folder = args[at + 1]
        del args[at:at + 2]
    check_random(folder) if args == ["random"] else check_files(folder, args[1])


if __name__ == "__main__":
    main()
