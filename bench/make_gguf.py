"""A Jamba in Hugging Face format as a GGUF file, so that llama.cpp can be measured on the same weights.

    PYTHON bench/make_gguf.py MODEL bf16|f32 -o MODEL.gguf

Matrices stay in the given type, vectors, convolutions and A are f32, as llama.cpp reads them. The vocabulary is one
made up of numbers: a benchmark feeds ids. PYTHON has the packages gguf and numpy.
"""
import argparse
import json
import pathlib

import gguf
import numpy as np

NAMES = {  # of a layer
    "input_layernorm.weight": "attn_norm.weight", "pre_ff_layernorm.weight": "ffn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight", "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight", "self_attn.o_proj.weight": "attn_output.weight",
    "mamba.in_proj.weight": "ssm_in.weight", "mamba.conv1d.weight": "ssm_conv1d.weight",
    "mamba.conv1d.bias": "ssm_conv1d.bias", "mamba.x_proj.weight": "ssm_x.weight",
    "mamba.dt_layernorm.weight": "ssm_dt_norm.weight", "mamba.b_layernorm.weight": "ssm_b_norm.weight",
    "mamba.c_layernorm.weight": "ssm_c_norm.weight", "mamba.dt_proj.weight": "ssm_dt.weight",
    "mamba.dt_proj.bias": "ssm_dt.bias", "mamba.A_log": "ssm_a", "mamba.D": "ssm_d",
    "mamba.out_proj.weight": "ssm_out.weight", "feed_forward.router.weight": "ffn_gate_inp.weight",
    "feed_forward.gate_proj.weight": "ffn_gate.weight", "feed_forward.up_proj.weight": "ffn_up.weight",
    "feed_forward.down_proj.weight": "ffn_down.weight"}
OUTER = {"model.embed_tokens.weight": "token_embd.weight", "model.final_layernorm.weight": "output_norm.weight",
         "lm_head.weight": "output.weight"}
FLOATS = ("norm.weight", "bias", "conv1d.weight", "A_log", ".D", "router.weight")


def tensors(folder):
    """Name and values, widened to f32, of each tensor of the folder's one safetensors file."""
    data = np.memmap(folder / "model.safetensors", np.uint8, "r")
    size = int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:8 + size].tobytes())
    for name, about in header.items():
        if name == "__metadata__":
            continue
        begin, end = (8 + size + at for at in about["data_offsets"])
        raw = data[begin:end]
        if about["dtype"] == "BF16":
            values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        elif about["dtype"] == "F32":
            values = raw.view(np.float32)
        else:
            raise SystemExit(f"{name}: expected BF16 or F32, got {about['dtype']}")
        yield name, values.reshape(about["shape"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("dtype", choices=["bf16", "f32"])
    parser.add_argument("-o", "--out", required=True)
    args = parser.parse_args()
    c = json.loads((args.model / "config.json").read_text())
    layers, vocab = c["num_hidden_layers"], c["vocab_size"]
    w = gguf.GGUFWriter(args.out, "jamba")
    w.add_block_count(layers)
    w.add_context_length(c.get("max_position_embeddings", 262144))
    w.add_embedding_length(c["hidden_size"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv([c["num_key_value_heads"] if i % c["attn_layer_period"] == c["attn_layer_offset"] else 0
                         for i in range(layers)])
    w.add_ssm_conv_kernel(c["mamba_d_conv"])
    w.add_ssm_inner_size(c["mamba_expand"] * c["hidden_size"])
    w.add_ssm_state_size(c["mamba_d_state"])
    w.add_ssm_time_step_rank(c["mamba_dt_rank"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_expert_count(c["num_experts"])
    w.add_expert_used_count(c["num_experts_per_tok"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_BF16 if args.dtype == "bf16" else gguf.LlamaFileType.ALL_F32)
    w.add_vocab_size(vocab)
    w.add_tokenizer_model("llama")
    w.add_token_list([f"<{i}>" for i in range(vocab)])
    w.add_token_scores([0.0] * vocab)
    w.add_token_types([gguf.TokenType.NORMAL] * vocab)

    def add(name, values, exact):
        if args.dtype == "f32" or exact or values.ndim == 1:
            w.add_tensor(name, np.ascontiguousarray(values))
        else:  # no rounding: the values are those of a bf16 file
            kind = gguf.GGMLQuantizationType.BF16
            w.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values), kind), raw_dtype=kind)

    experts = {}
    for name, values in tensors(args.model):
        exact = name.endswith(FLOATS)
        if name in OUTER:
            add(OUTER[name], values, exact)
            continue
        _, _, layer, rest = name.split(".", 3)
        if ".experts." in name:
            _, _, number, part, _ = rest.split(".")
            group = experts.setdefault((layer, part), {})
            group[int(number)] = values
            if len(group) == c["num_experts"]:
                add(f"blk.{layer}.ffn_{part.removesuffix('_proj')}_exps.weight",
                    np.stack([group[i] for i in sorted(group)]), False)
                del experts[layer, part]
            continue
        if rest.endswith("A_log"):
            values = -np.exp(values)
        elif rest.endswith("conv1d.weight"):
            values = values.squeeze(1)
        add(f"blk.{layer}.{NAMES[rest]}", values, exact)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
