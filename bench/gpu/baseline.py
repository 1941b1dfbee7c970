#!/usr/bin/env python3
"""Times transformers on a random model of a config.json, as users run it: needs torch, transformers 5 and a GPU.

    bench/gpu/baseline.py --config bench/gpu/recurrentgemma-2b.json

Prefill of several lengths, decode per token, and one case of the sweep (a prompt of 4,096 ids and 41 new tokens), bf16,
sdpa, one prompt at a time. The time of the whole sweep as a loop is extrapolated from these: every case is a prefill,
interpolated over the measured lengths, and its decode steps. Prints one JSON object.
"""
import argparse
import json
import os
import statistics
import time

import torch

from random_weights import Tensors, make_model


def synchronize(device):
    if device.startswith("cuda"):
        torch.cuda.synchronize()


@torch.no_grad()
def seconds(device, function, repeat):
    """Median, after one that warms up."""
    times = []
    for _ in range(repeat + 1):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def interpolate(points, x):
    """Piecewise linear through sorted (x, y), and beyond them."""
    if len(points) == 1:
        return points[0][1] * x / points[0][0]
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x <= x1 or (x1, y1) == points[-1]:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cortado", default="build/release/cortado", help="lists the tensors")
    parser.add_argument("--config", required=True)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--prefill", default="250,2048,4096")
    parser.add_argument("--new", type=int, default=41, help="tokens of a case")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--no-case", action="store_true", help="leave out the whole case")
    args = parser.parse_args()
    lengths = sorted(int(x) for x in args.prefill.split(","))

    import tempfile
    with open(args.config) as file:
        fields = json.load(file)
    if args.layers:
        fields["num_hidden_layers"] = args.layers
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(fields, file)
        tensors = Tensors(args.cortado, folder, args.seed)
    start = time.perf_counter()
    model = make_model(args.config, tensors, getattr(torch, args.dtype), args.device, args.layers)
    synchronize(args.device)
    made = time.perf_counter() - start
    generator = torch.Generator().manual_seed(args.seed)
    ids = torch.randint(3, fields["vocab_size"], (1, lengths[-1]), generator=generator).to(args.device)

    def generate(length, new):
        model.generate(ids[:, :length], attention_mask=torch.ones_like(ids[:, :length]), max_new_tokens=new,
                       min_new_tokens=new, do_sample=False)

    prefill = {n: seconds(args.device, lambda n=n: generate(n, 1), args.repeat) for n in lengths}
    short = lengths[0]
    decode = (seconds(args.device, lambda: generate(short, args.new), args.repeat) - prefill[short]) / (args.new - 1)
    case = None if args.no_case else seconds(args.device, lambda: generate(lengths[-1], args.new), 1)
    points = sorted(prefill.items())
    grid = [250 + round((4096 - 250) * i / 9) for i in range(10)]  # 10 lengths, 10 depths, k = 0 .. 10
    loop = sum(10 * 11 * (interpolate(points, n) + (args.new - 1) * decode) for n in grid)
    import transformers
    out = {"config": os.path.basename(args.config), "layers": fields["num_hidden_layers"],
           "parameters": tensors.info["parameters"], "dtype": args.dtype, "torch": torch.__version__,
           "transformers": transformers.__version__, "weights_made_s": made,
           "prefill_s": {str(n): s for n, s in points}, "decode_ms_a_token": decode * 1e3,
           "case": {"prompt": lengths[-1], "new": args.new, "s": case},
           "loop_of_1100_cases_s": loop, "loop_is_extrapolated": True, "repeat": args.repeat}
    if args.device.startswith("cuda"):
        out["device"] = torch.cuda.get_device_name()
        out["peak_bytes"] = torch.cuda.max_memory_allocated()
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
