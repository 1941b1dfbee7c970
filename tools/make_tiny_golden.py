"""Makes tests/golden/tiny-griffin: a tiny random RecurrentGemma and what it must compute.

    python tools/make_tiny_golden.py [folder]

Needs the PyPI packages numpy, safetensors, torch and transformers 5 (made with the versions named in the
folder's README). Two oracles: transformers for the model without interventions, and
tools/griffin_oracle.py (numpy, float64) for interventions under `paper` semantics. They must agree
to 1e-4 before anything is written.
"""
import json
import pathlib
import struct
import sys

import numpy as np
import safetensors.torch
import torch
import transformers

from griffin_oracle import Griffin

TOKENS, WINDOW = 8, 16
CONFIG = {
    "architectures": ["RecurrentGemmaForCausalLM"],
    "model_type": "recurrent_gemma",
    "hidden_size": 48, "intermediate_size": 112, "num_hidden_layers": 6,
    "num_attention_heads": 3, "num_key_value_heads": 1, "lru_width": 60, "conv1d_width": 4,
    "attention_window_size": WINDOW, "block_types": ["recurrent", "recurrent", "attention"],
    "vocab_size": 97, "logits_soft_cap": 30.0, "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0, "partial_rotary_factor": 0.5,
    "hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True,
    "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
}
NEEDLE = [20, 21, 22, 33, 34]  # partly in the window of the generated tokens


def write_safetensors(path, tensors):
    names = {np.dtype(np.float32): "F32", np.dtype(np.int32): "I32", np.dtype(np.uint8): "U8"}
    header, at = {}, 0
    for name, value in tensors.items():
        header[name] = {"dtype": names[value.dtype], "shape": list(value.shape),
                        "data_offsets": [at, at + value.nbytes]}
        at += value.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(np.ascontiguousarray(v).tobytes() for v in tensors.values())
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + body)


def make_weights(rng, model):
    """Normal numbers, scaled so that attention is peaked and continuations vary."""
    out = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" or "normalizer" in name:
            continue
        shape = tuple(tensor.shape)
        scale = 0.1 if len(shape) == 1 or name.endswith("bias") else 1.2 / np.sqrt(shape[-1])
        if "q_proj" in name or "k_proj" in name:
            scale *= 1.6
        if "conv_1d.weight" in name:
            scale = 0.5
        value = rng.standard_normal(shape) * scale
        if "recurrent_param" in name:
            value = rng.standard_normal(shape) - 4.4
        if "embed_tokens" in name:
            value = rng.standard_normal(shape) * 0.3
        out[name] = value.astype(np.float32)
    return out


def transformers_logits(folder, visible):
    """transformers counts the current token in its window: `visible` tokens in all."""
    config = transformers.RecurrentGemmaConfig(**{**CONFIG, "attention_window_size": visible})
    model = transformers.RecurrentGemmaForCausalLM(config).float().eval()
    missing, extra = model.load_state_dict(
        safetensors.torch.load_file(folder / "model.safetensors"), strict=False)
    assert not extra and set(missing) <= {"lm_head.weight"}, (missing, extra)

    def run(ids):
        with torch.no_grad():
            return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    return run


def cases():
    both = "prefill+generation"
    for metric in ("entropy", "l2"):
        for keep in (0, 1, 2, 3):
            for stages in ("generation", both):
                yield f"heads.{metric}.{keep}.{stages}", {
                    "heads": {"metric": metric, "keep": keep, "stages": stages}}
    modes = ("keep", "null", "only", "binary", "omit")
    for generation in modes:
        for prefill in modes:
            yield f"edit.{generation}.{prefill}", {
                "weights": {"generation": {"mode": generation, "positions": NEEDLE},
                            "prefill": {"mode": prefill, "positions": NEEDLE}}}
    edit = {"generation": {"mode": "only", "positions": NEEDLE},
            "prefill": {"mode": "omit", "positions": [3, 30, 31]}}
    heads = {"metric": "entropy", "keep": 1, "stages": both}
    yield "both", {"weights": edit, "heads": heads}
    yield "window.full", {"weights": edit, "heads": heads, "prefill_window": "full"}
    for mode in modes:
        yield f"cache.off.{mode}", {"kv_cache": "off", "weights": {
            "generation": {"mode": mode, "positions": NEEDLE}}}
    yield "cache.off.heads", {"kv_cache": "off", "heads": {
        "metric": "l2", "keep": 1, "stages": "generation"}}


def main():
    here = pathlib.Path(__file__).resolve().parent.parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here / "tests/golden/tiny-griffin"
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20240611)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")
    empty = transformers.RecurrentGemmaForCausalLM(transformers.RecurrentGemmaConfig(**CONFIG))
    write_safetensors(folder / "model.safetensors", make_weights(rng, empty))

    prompts = {f"p{n}": [2] + rng.integers(3, 97, n - 1).tolist() for n in (1, 2, 7, 40, 65)}
    oracle, run = Griffin(folder), transformers_logits(folder, WINDOW + 1)
    hf_rule, hf_run = Griffin(folder, visible=WINDOW), transformers_logits(folder, WINDOW)
    tensors, manifest, worst = {}, {"window": WINDOW, "prompts": prompts, "cases": []}, 0
    for name, prompt in prompts.items():
        ids, logits, _ = oracle.generate(prompt, TOKENS, {})
        whole = run(prompt + ids[:-1])
        tensors[f"{name}.prompt_logits"] = whole[:len(prompt)]
        worst = max(worst, np.abs(whole[len(prompt) - 1:] - logits).max())
        other = hf_run(prompt)
        mine = hf_rule.forward(prompt, ["prefill"] * len(prompt), {})[0]
        worst = max(worst, np.abs(mine - other).max())
        tensors[f"{name}.prompt_logits_transformers_window"] = other
    todo = [(f"{p}.base", p, {}) for p in prompts]
    todo += [(f"p40.{name}", "p40", iv) for name, iv in cases()]
    todo += [(f"p7.{name}", "p7", iv) for name, iv in cases() if name.startswith("heads")]
    for name, prompt, iv in todo:
        ids, logits, heads = oracle.generate(prompts[prompt], TOKENS, iv)
        top = np.sort(logits, -1)
        manifest["cases"].append({"id": name, "prompt": prompt, "intervention": iv, "tokens": ids,
                                  "argmax_gap": float((top[:, -1] - top[:, -2]).min())})
        tensors[f"{name}.logits"] = logits.astype(np.float32)
        tensors[f"{name}.heads"] = heads.astype(np.uint8)
    print(f"transformers {transformers.__version__} against numpy: {worst:.2e}; "
          f"logits' deviation {logits.std():.2f}; {len(todo)} cases")
    assert worst < 1e-4
    write_safetensors(folder / "goldens.safetensors", tensors)
    (folder / "goldens.json").write_text(json.dumps(manifest, indent=1) + "\n")


main()
