"""cortado and transformers on one model folder, interleaved; and cortado's products against torch's.

    PYTHON bench/compare.py MODEL --cortado build/release/cortado --dtype bf16|f32 -o RESULTS.json

Each of --rounds runs transformers (bench/torch_worker.py, a process that stays), then `cortado bench`: prefill of 512
and 2,048 tokens, decode of one row after 1,000, each --repeat times, and the machine's read bandwidth; the time from a
process's start to its first token; peak resident memory; then torch.nn.functional.linear at the shapes that the
model's prefill of 512 tokens has (as `cortado bench` lists them), weighted by their calls. Rounds are short and many, so
that a change of the machine meets both sides, and bench/table.py tells the median of the rounds' own ratios. They are
added to those in RESULTS.json under "compare-bf16" or "compare-f32". What other programs took of the cores during a
round stands beside it.
"""
import argparse
import re

from common import Others, Worker, cortado, load, median, random_ids, save

LENGTHS = (512, 2048)
CACHE = 1000  # tokens before a decode step, as in `cortado bench`


def step(found, kind, **match):
    for s in found["models"][0]["steps"]:
        if s["step"] == kind and all(s[key] == value for key, value in match.items()):
            return s
    raise KeyError((kind, match))


def products(worker, found):
    """Both sides' time of the matrix products of the shorter prefill."""
    whole = step(found, "prefill", tokens=LENGTHS[0])
    shapes = []
    for op in whole["operations"]:
        if op["op"] not in ("matmul", "products") or op["tokens"] == 1:
            continue
        n, k = map(int, re.match(r"(\d+) x (\d+)", op["shape"]).groups())
        calls = round(op["calls_a_step"])
        # As many weights as calls, so that they are as cold as a model's.
        torch_ms = worker.ask("linear", n=n, k=k, tokens=op["tokens"], copies=calls, repeat=5)["ms"]
        shapes.append({"shape": op["shape"], "tokens": op["tokens"], "calls": calls, "flop": op["flop"],
                       "cortado_ms": op["ms_a_call"], "torch_ms": torch_ms})
    flop = sum(s["flop"] * s["calls"] for s in shapes)
    rate = {side: flop / sum(s[f"{side}_ms"] * s["calls"] for s in shapes) * 1e-6 for side in ("cortado", "torch")}
    return {"shapes": shapes, "torch_gflop_s": rate["torch"], "cortado_gflop_s": rate["cortado"],
            "prefill_gflop_s": whole["gflop_s"]}


def one_round(args, worker, ids):
    """Medians of both sides, and cortado's whole report."""
    others = Others(worker)
    theirs = {f"prefill_{n}_ms": median([worker.ask("prefill", ids=ids[:n])["ms"] for _ in range(args.repeat)])
              for n in LENGTHS}
    theirs["decode_ms"] = median(worker.ask("decode", ids=ids[:CACHE], steps=4 * args.repeat)["ms"])
    theirs["start_ms"] = worker.start_ms
    theirs["peak_bytes"] = worker.ask("peak")["bytes"]
    found = cortado(args.cortado, "bench", "-m", args.model, "--compute", args.dtype, "--threads", args.threads,
                    "--prefill", ",".join(map(str, LENGTHS)), "--rows", 1, "--repeat", args.repeat)
    ours = {f"prefill_{n}_ms": step(found, "prefill", tokens=n)["ms"] for n in LENGTHS}
    decode = step(found, "decode", cache_tokens=CACHE)
    ours["decode_ms"] = decode["ms"]
    ours["start_ms"] = found["models"][0]["start_to_first_token_ms"]
    ours["peak_bytes"] = max(s["peak_bytes"] for s in found["models"][0]["steps"])
    both = {"transformers": theirs, "cortado": ours, "products": products(worker, found)}
    return both | {"cpu_share_of_others": others.share(), "read_gb_s": found["machine"]["read_gb_s"],
                   "decode_share_of_limit": decode["share_of_limit"]}, found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--cortado", default="build/release/cortado")
    parser.add_argument("--dtype", choices=["bf16", "f32"], required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("-o", "--out", required=True)
    args = parser.parse_args()

    ids = random_ids(max(LENGTHS), cortado(args.cortado, "inspect", args.model)["vocab"])
    worker = Worker(args.model, args.dtype, args.threads)
    worker.ask("prefill", ids=ids[:LENGTHS[0]])  # warms up
    key = f"compare-{args.dtype}"
    results = load(args.out).get(key, {"rounds": []})
    for _ in range(args.rounds):
        found_round, found = one_round(args, worker, ids)
        results["rounds"].append(found_round)
        for name, ms in found_round["transformers"].items():
            print(f"{args.dtype} {name:16} transformers {ms:14.1f}  cortado {found_round['cortado'][name]:14.1f}")
        print(f"{args.dtype} other programs took {100 * found_round['cpu_share_of_others']:.0f} % of the cores")
    results |= {"dtype": args.dtype, "threads": args.threads, "repeat": args.repeat, "machine": found["machine"],
                "commit": found["commit"], "versions": worker.ask("versions"),
                "linear": worker.ask("library", n=3072, k=1024, tokens=512)}
    worker.close()
    save(args.out, key, results)
    last = results["rounds"][-1]["products"]
    print(f"{args.dtype} products, GFLOP/s: cortado {last['cortado_gflop_s']:.0f}, {results['linear']['library']} "
          f"{last['torch_gflop_s']:.0f}; cortado's whole prefill {last['prefill_gflop_s']:.0f}")


if __name__ == "__main__":
    main()
