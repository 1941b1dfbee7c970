"""Makes the folders of tests/golden: a tiny random model and what it must compute.

    python tools/make_tiny_golden.py tiny-griffin|tiny-jamba|tiny-jamba-dense [folder]

Needs the PyPI packages numpy, safetensors, torch and transformers 5 (made with the versions named in the
folder's README). Two oracles: transformers for the model without interventions, and
tools/griffin_oracle.py or tools/jamba_oracle.py (numpy, float64) for interventions under `paper`
semantics. They must agree to 1e-4 before anything is written.
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
from jamba_oracle import Jamba

TOKENS, WINDOW = 8, 16
GRIFFIN = {
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
JAMBA = {
    "architectures": ["JambaForCausalLM"],
    "model_type": "jamba",
    "hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 5,
    "num_attention_heads": 4, "num_key_value_heads": 2,
    "attn_layer_period": 3, "attn_layer_offset": 1,
    "num_experts": 4, "num_experts_per_tok": 2, "expert_layer_period": 2, "expert_layer_offset": 1,
    "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2, "mamba_dt_rank": 6,
    "mamba_conv_bias": True, "mamba_proj_bias": False,
    "vocab_size": 97, "rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": False,
    "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "use_mamba_kernels": False,
}
# No layer has experts; what few files set otherwise is otherwise.
DENSE = {
    **JAMBA, "hidden_size": 30, "num_attention_heads": 3, "num_key_value_heads": 1,
    "num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1,
    "num_experts": 1, "num_experts_per_tok": 1, "mamba_d_state": 7, "mamba_d_conv": 3,
    "mamba_expand": 3, "mamba_dt_rank": "auto", "mamba_conv_bias": False, "mamba_proj_bias": True,
    "tie_word_embeddings": True,
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
        if "normalizer" in name or name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        shape = tuple(tensor.shape)
        scale = 0.1 if len(shape) == 1 or name.endswith("bias") else 1.2 / np.sqrt(shape[-1])
        if "q_proj" in name or "k_proj" in name:
            scale *= 1.6
        if "conv_1d.weight" in name or "conv1d.weight" in name:
            scale = 0.5
        value = rng.standard_normal(shape) * scale
        if "recurrent_param" in name:
            value = rng.standard_normal(shape) - 4.4
        if "embed_tokens" in name:
            value = rng.standard_normal(shape) * 0.3
        if model.config.model_type == "jamba":
            if "layernorm" in name or name.endswith(".D"):
                value += 1
            if "router" in name:
                value *= 2
            if "lm_head" in name or "embed_tokens" in name and model.config.tie_word_embeddings:
                value = rng.standard_normal(shape) * 2.2 / np.sqrt(shape[-1])
            if "A_log" in name:
                value = rng.standard_normal(shape) * 0.7 + 1.4
            if "dt_proj.bias" in name:
                value = rng.standard_normal(shape) - 3
        if ".experts." in name and len(shape) == 3:
            # transformers 5 holds a layer's experts in two tensors, files one by one.
            stem, what = name.split("experts.")
            for e in range(shape[0]):
                parts = np.split(value[e], 2) if "gate_up" in what else [value[e]]
                for part, kind in zip(parts, ["gate", "up"] if len(parts) == 2 else ["down"]):
                    out[f"{stem}experts.{e}.{kind}_proj.weight"] = part.astype(np.float32)
            continue
        out[name] = value.astype(np.float32)
    return out


def transformers_logits(folder, **changes):
    """transformers counts the current token in its window."""
    config = transformers.AutoConfig.from_pretrained(folder, **changes)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager",
        output_loading_info=True)
    assert not info["unexpected_keys"], info
    assert set(info["missing_keys"]) <= {"lm_head.weight"}, info
    model.eval()

    def run(ids):
        with torch.no_grad():
            return model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    return run


def cases(heads_kept=(0, 1, 2, 3)):
    both = "prefill+generation"
    for metric in ("entropy", "l2"):
        for keep in heads_kept:
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


def small_cases():
    """One of each kind."""
    for name, iv in cases((1,)):
        if name.startswith(("heads", "both", "cache.off.only")) or \
                name in ("edit.null.omit", "edit.only.binary", "edit.binary.null", "edit.omit.only"):
            yield name, iv


def main():
    name = sys.argv[1]
    config, oracle_of, all_cases = {"tiny-griffin": (GRIFFIN, Griffin, cases),
                                    "tiny-jamba": (JAMBA, Jamba, cases),
                                    "tiny-jamba-dense": (DENSE, Jamba, small_cases)}[name]
    windowed = config is GRIFFIN
    here = pathlib.Path(__file__).resolve().parent.parent
    folder = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else here / "tests/golden" / name
    folder.mkdir(parents=True, exist_ok=True)
    # tiny-jamba's seed gives no near tie of heads or of experts.
    rng = np.random.default_rng(5 if name == "tiny-jamba" else 20240611)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    empty = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.from_pretrained(folder))
    write_safetensors(folder / "model.safetensors", make_weights(rng, empty))

    prompts = {f"p{n}": [2] + rng.integers(3, 97, n - 1).tolist() for n in (1, 2, 7, 40, 65)}
    oracle = oracle_of(folder)
    window = {"attention_window_size": WINDOW + 1} if windowed else {}
    run = transformers_logits(folder, **window)
    if windowed:
        hf_rule, hf_run = Griffin(folder, visible=WINDOW), transformers_logits(folder)
    manifest = {"window": WINDOW} if windowed else {}
    manifest.update(prompts=prompts, cases=[])
    tensors, worst = {}, 0
    for prompt, ids in prompts.items():
        new, logits, _ = oracle.generate(ids, TOKENS, {})
        whole = run(ids + new[:-1])
        tensors[f"{prompt}.prompt_logits"] = whole[:len(ids)]
        worst = max(worst, np.abs(whole[len(ids) - 1:] - logits).max())
        if windowed:
            other = hf_run(ids)
            mine = hf_rule.forward(ids, ["prefill"] * len(ids), {})[0]
            worst = max(worst, np.abs(mine - other).max())
            tensors[f"{prompt}.prompt_logits_transformers_window"] = other
    todo = [(f"{p}.base", p, {}) for p in prompts]
    todo += [(f"p40.{name}", "p40", iv) for name, iv in all_cases()]
    todo += [(f"p7.{name}", "p7", iv) for name, iv in all_cases() if name.startswith("heads")]
    for name, prompt, iv in todo:
        ids, logits, heads = oracle.generate(prompts[prompt], TOKENS, iv)
        top = np.sort(logits, -1)
        manifest["cases"].append({"id": name, "prompt": prompt, "intervention": iv, "tokens": ids,
                                  "argmax_gap": float((top[:, -1] - top[:, -2]).min())})
        tensors[f"{name}.logits"] = logits.astype(np.float32)
        tensors[f"{name}.heads"] = heads.astype(np.uint8)
    print(f"transformers {transformers.__version__} against numpy: {worst:.2e}; "
          f"logits' deviation {logits.std():.2f}; {len(todo)} cases; least distance of a head "
          f"kept from the next {oracle.head_gap:.1e}, of an expert taken "
          f"{getattr(oracle, 'router_gap', np.inf):.1e}")
    assert worst < 1e-4
    write_safetensors(folder / "goldens.safetensors", tensors)
    (folder / "goldens.json").write_text(json.dumps(manifest, indent=1) + "\n")


main()
