#!/usr/bin/env python3
"""Compares cortado's logits with transformers' on the same random weights: needs torch, transformers 5 and a GPU.

    bench/gpu/compare_logits.py --cortado build/release/cortado --config bench/gpu/recurrentgemma-2b.json

Both make the weights themselves (random_weights.py), so nothing is downloaded or written. A prompt of random ids goes
through cortado's prefill but for its last `--tail` ids, which are decoded one by one (teacher forcing), and through
transformers' forward pass at once. Printed as one JSON object: relative errors (norm of the difference over the norm)
and agreement of the highest logit, of cortado in f32 and bf16 against transformers in f32, and of transformers in bf16
against itself in f32. Exit status 1 if the f32 error is not below --limit.
"""
import argparse
import gc
import json
import os
import struct
import subprocess
import sys
import tempfile

import torch

from random_weights import Tensors, check_bits, make_model

HERE = os.path.dirname(os.path.abspath(__file__))


def read_logits(path):
    with open(path, "rb") as file:
        data = file.read()
    length = struct.unpack("<Q", data[:8])[0]
    at = json.loads(data[8:8 + length])["logits"]
    begin, end = at["data_offsets"]
    return torch.frombuffer(bytearray(data[8 + length + begin:8 + length + end]), dtype=torch.float32).view(at["shape"])


def cortado_logits(args, folder, ids, compute, window):
    prompt, forced = ids[:-args.tail], ids[-args.tail:]
    path = os.path.join(folder, "logits.safetensors")
    command = [args.cortado, "generate", "-m", folder, "--weights", f"random:{args.seed}", "--device", args.device,
               "--compute", compute, "--prompt-ids", ",".join(map(str, prompt)), "--force-ids",
               ",".join(map(str, forced)), "-n", str(args.tail), "--ignore-eos", "--save-logits", path, "--json"]
    if window:
        command += ["--window-visible", str(window)]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode:
        sys.exit(f"cortado failed: {run.stderr}")
    logits = read_logits(path)
    os.remove(path)
    return logits, json.loads(run.stdout)["timing"]


@torch.no_grad()
def torch_logits(args, tensors, ids, dtype):
    model = make_model(args.config, tensors, dtype, args.torch_device, args.layers)
    inputs = torch.tensor([ids], device=args.torch_device)
    logits = model(input_ids=inputs, use_cache=False).logits[0]
    first = len(ids) - args.tail - 1  # the distribution from which the first forced id would have been chosen
    logits = logits[first:first + args.tail].float().cpu()
    del model
    gc.collect()
    if args.torch_device.startswith("cuda"):
        torch.cuda.empty_cache()
    return logits


def compare(mine, oracle):
    difference = (mine - oracle).double().norm() / oracle.double().norm()
    rows = (mine - oracle).double().norm(dim=1) / oracle.double().norm(dim=1)
    return {"relative_error": difference.item(), "worst_row": rows.max().item(),
            "largest_difference": (mine - oracle).abs().max().item(),
            "top1_agreement": (mine.argmax(1) == oracle.argmax(1)).double().mean().item()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cortado", default="build/release/cortado")
    parser.add_argument("--config", required=True)
    parser.add_argument("--layers", type=int, help="fewer layers than the config says, for what does not fit in f32")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--tail", type=int, default=64, help="of the tokens, decoded one by one")
    parser.add_argument("--device", default="cuda", help="of cortado")
    parser.add_argument("--torch-device", default="cuda")
    parser.add_argument("--limit", type=float, default=1e-3)
    parser.add_argument("--no-bf16", action="store_true")
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False

    with open(args.config) as file:
        fields = json.load(file)
    if args.layers:
        fields["num_hidden_layers"] = args.layers
    # transformers counts the current token into its window
    window = fields.get("attention_window_size", 0)
    generator = torch.Generator().manual_seed(args.seed)
    ids = torch.randint(3, fields["vocab_size"], (args.tokens,), generator=generator).tolist()
    with tempfile.TemporaryDirectory() as folder:
        small = os.path.join(folder, "small")
        tiny = {"recurrent_gemma": "tiny-griffin", "jamba": "tiny-jamba"}[fields["model_type"]]
        bits = check_bits(args.cortado, os.path.join(HERE, "../../tests/golden", tiny, "config.json"), args.seed,
                          args.torch_device, small)
        if not bits:
            sys.exit("random weights: torch makes other numbers than `cortado synth`")
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(fields, file)
        tensors = Tensors(args.cortado, folder, args.seed)
        mine = {}
        timing = {}
        for compute in ("f32",) if args.no_bf16 else ("f32", "bf16"):
            mine[compute], timing[compute] = cortado_logits(args, folder, ids, compute, window)
    oracle = torch_logits(args, tensors, ids, torch.float32)
    out = {"config": os.path.basename(args.config), "layers": fields["num_hidden_layers"], "seed": args.seed,
           "tokens": args.tokens, "compared_rows": args.tail, "parameters": tensors.info["parameters"],
           "torch": torch.__version__, "weights_have_the_bits_of_cortado_synth": bits,
           "deviation_of_the_logits": oracle.std().item(), "cortado_timing": timing,
           "cortado_f32_vs_transformers_f32": compare(mine["f32"], oracle)}
    if not args.no_bf16:
        theirs = torch_logits(args, tensors, ids, torch.bfloat16)
        out["cortado_bf16_vs_transformers_f32"] = compare(mine["bf16"], oracle)
        out["transformers_bf16_vs_transformers_f32"] = compare(theirs, oracle)
    if args.torch_device.startswith("cuda"):
        out["torch_peak_bytes"] = torch.cuda.max_memory_allocated()
        out["device"] = torch.cuda.get_device_name()
    print(json.dumps(out, indent=1))
    return 0 if out["cortado_f32_vs_transformers_f32"]["relative_error"] < args.limit else 1


if __name__ == "__main__":
    sys.exit(main())
