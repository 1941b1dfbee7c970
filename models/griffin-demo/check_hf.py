"""Compares griffin.py with Hugging Face transformers on the CPU, in float32.

    python3 check_hf.py random              random weights: training path, plain path, cached decoding
    python3 check_hf.py files PROMPTS.json  the exported files: greedy tokens of `generate` against the plain path

Transformers counts the attention window as W tokens with the current one, DeepMind (and cortado) as W + 1; so the plain
path is run here with window W - 1. PROMPTS.json is a list of strings.
"""
import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, RecurrentGemmaConfig, RecurrentGemmaForCausalLM

import griffin

HERE = os.path.dirname(os.path.abspath(__file__))


def relative(a, b):
    return float((a - b).norm() / b.norm())


def check_random():
    cfg = dict(griffin.CONFIG, attention_window_size=24)
    cfg.pop("torch_dtype")
    torch.manual_seed(0)
    weights = griffin.init_weights(cfg, torch.Generator().manual_seed(0), "cpu")
    for name, w in weights.items():     # norms and biases are zero at the start: make them count
        if w.dim() == 1 and "recurrent_param" not in name or name.endswith("gate_bias"):
            weights[name] = torch.randn_like(w) * 0.3
    T = 23
    ids = torch.randint(4, cfg["vocab_size"], (3, 40))
    ids[:, 0] = 2
    for window, upto in ((24, T), (24, 40)):
        model = RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**dict(cfg, attention_window_size=window))).eval()
        missing, unexpected = model.load_state_dict(weights, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
        with torch.no_grad():
            ref = model(ids[:, :upto], use_cache=False).logits
        dec = griffin.Decoder(weights, cfg, window - 1, "cpu", bf16_weights=False)
        plain, _ = dec.prefill(ids[:, :upto], torch.full((3,), upto), all_logits=True)
        print(f"plain path, {upto} tokens, window {window}: relative difference {relative(plain, ref):.1e}")
        lengths = torch.tensor([9, 10, 11])
        out, state = dec.prefill(ids[:, :11], lengths)
        worst = relative(out, plain[torch.arange(3), lengths - 1])
        for t in range(20):
            at = lengths + t
            out = dec.step(state, ids[torch.arange(3), at])
            worst = max(worst, relative(out, plain[torch.arange(3), at])) if int(at.max()) < upto else worst
        print(f"  cached steps against whole prompt: {worst:.1e}")
        if upto == T:
            tables = griffin.flat_tables(cfg, 3, T, "cpu")
            x = griffin.train_hidden(weights, cfg, ids[:, :T], None, griffin.Pieces(False), tables, torch.float32)
            print(f"training path, {T} tokens: relative difference {relative(dec._logits(x).view(3, T, -1), ref):.1e}")
            target = ids[:, 1:T + 1].reshape(-1)
            ours = griffin.loss_sums(x, weights["model.final_norm.weight"], weights["model.embed_tokens.weight"], target,
                                     torch.ones(3 * T, 1))[0] / (3 * T)
            theirs = torch.nn.functional.cross_entropy(ref.view(3 * T, -1), target)
            print(f"  loss {float(ours):.6f}, transformers {float(theirs):.6f}")


def check_files(path):
    from safetensors.torch import load_file
    tok = AutoTokenizer.from_pretrained(HERE)
    model = AutoModelForCausalLM.from_pretrained(HERE, dtype=torch.float32).eval()
    weights = load_file(os.path.join(HERE, "model.safetensors"))
    with open(os.path.join(HERE, "config.json")) as f:
        cfg = json.load(f)
    dec = griffin.Decoder(weights, cfg, cfg["attention_window_size"] - 1, "cpu")
    with open(path) as f:
        prompts = json.load(f)
    for prompt in prompts:
        ids = tok(prompt, return_tensors="pt").input_ids
        with torch.no_grad():
            theirs = model.generate(ids, max_new_tokens=46, do_sample=False)[0, ids.shape[1]:].tolist()
        logits, state = dec.prefill(ids, torch.tensor([ids.shape[1]]))
        ours = [int(logits.argmax())]
        while len(ours) < 46 and ours[-1] != cfg["eos_token_id"]:
            ours.append(int(dec.step(state, torch.tensor(ours[-1:])).argmax()))
        print("same" if ours == theirs else "DIFFERENT", ids.shape[1], "tokens:", repr(tok.decode(theirs)))
        if ours != theirs:
            print("   ours:", repr(tok.decode(ours)))


if __name__ == "__main__":
    check_random() if sys.argv[1:] == ["random"] else check_files(sys.argv[2])
