"""llama.cpp's llama-bench on GGUF files of the model that compare.py measures; adds to RESULTS.json.

    PYTHON bench/llama.py LLAMA_BENCH MODEL.gguf --dtype bf16|f32 -o RESULTS.json

Prefill of 512 and 2,048 tokens, decode of one row after 1,000, under "llama-bf16" or "llama-f32", a round a call.
bench/make_gguf.py writes the files. Made for builds of the PyPI package llama-cpp-python's source
(cmake, target llama-bench).
"""
import argparse
import json
import subprocess

from common import load, save

STEPS = 16  # tokens decoded: their mean


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("model")
    parser.add_argument("--dtype", choices=["bf16", "f32"], required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--out", required=True)
    args = parser.parse_args()
    key, found, name = f"llama-{args.dtype}", {}, "llama.cpp"
    for label, options, tokens in (("prefill_512_ms", ["-p", 512, "-n", 0], 1),
                                   ("prefill_2048_ms", ["-p", 2048, "-n", 0, "--no-warmup"], 1),
                                   ("decode_ms", ["-p", 0, "-n", STEPS, "-d", 1000], STEPS)):
        command = [args.program, "-m", args.model, "-t", args.threads, "-r", 1, "-o", "json", *options]
        done = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        said = json.loads(done.stdout)[0]
        found[label] = said["avg_ns"] * 1e-6 / tokens
        name = f"llama.cpp ({said['build_commit']}), {args.dtype}"
        print(f"{args.dtype} {label:16} llama.cpp {found[label]:14.1f}", flush=True)
    results = load(args.out).get(key, {"rounds": []})
    results["rounds"].append(found)
    save(args.out, key, results | {"name": name, "threads": args.threads})


if __name__ == "__main__":
    main()
