"""Tables of what bench/run measured: python3 bench/table.py RESULTS.json > RESULTS.md

RESULTS.json holds `cortado bench --json` under "bench-bf16" and "bench-f32", and what compare.py, llama.py and sweep.py add.
"""
import sys

from common import load, median

OPS_OF = [("prefill", 512), ("decode", 1), ("decode", 64)]  # steps whose operations are told
NAMES = {"prefill_512_ms": "prefill of 512 tokens, ms", "prefill_2048_ms": "prefill of 2,048 tokens, ms",
         "decode_ms": "decode, 1 row after 1,000, ms a token", "start_ms": "start to first token, ms",
         "peak_bytes": "peak resident memory, MiB"}


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def head(*cells):
    row(*cells)
    row(*("---" for _ in cells))


def shown(values, name):
    """Median and range."""
    scale = 1 / 2**20 if name == "peak_bytes" else 1
    values = [value * scale for value in values]
    digits = 1 if median(values) < 100 else 0
    text = f"{median(values):.{digits}f}"
    return text if len(values) < 2 else f"{text} ({min(values):.{digits}f} to {max(values):.{digits}f})"


MODELS = {
    "RecurrentGemmaForCausalLM": "Model G: Griffin with 438 M parameters (`bench/griffin-438m.json`, random weights, "
                                 "seed 1). Made by `bench/run`, which has every command",
    "JambaForCausalLM": "Model J: Jamba with 510 M parameters, of which a token uses 339 M (`bench/jamba-510m.json`, random "
                        "weights, seed 1). Made by `bench/run-jamba`, which has every command"}
QUIET = 0.05


def ratio(theirs, ours):
    """Median and range of the rounds' own ratios."""
    ratios = [a / b for a, b in zip(theirs, ours)]
    text = f"**{median(ratios):.2f}**"
    return text if len(ratios) < 2 else f"{text} ({min(ratios):.2f} to {max(ratios):.2f})"


def quiet(rounds):
    """Those during which other programs took less than QUIET of the cores; all if there are none."""
    return [r for r in rounds if r["cpu_share_of_others"] < QUIET] or rounds


def step_name(step):
    if step["step"] == "prefill":
        return f"prefill {step['tokens']}"
    kind = "" if step["rows"] == 1 else ", own keys" if step["own_keys"] else ", forked"
    return f"decode {step['rows']}{kind}, cache {step['cache_tokens']}"


def machine(found):
    m = found["machine"]
    print(f"{m['cpu']}, {m['cores']} cores, {m['memory_bytes'] / 2**30:.1f} GiB, {m['system']}, {m['class']}; "
          f"{m['threads']} threads; cortado {found['version']} ({found['commit']}).\n")
    print(f"Limits ({m['method']}): reading {m['read_gb_s']:.1f} GB/s (one thread {m['read_gb_s_one_thread']:.1f}), "
          f"f32 {m['f32_gflop_s']:.0f} GFLOP/s" +
          (f", bf16 tiles {m['bf16_gflop_s']:.0f} GFLOP/s" if m["bf16_gflop_s"] else "") + ".\n")


def bench(found):
    model = found["models"][0]
    runs = found["runs"]
    print(f"\n## cortado, products in {model['compute']}\n")
    print(f"`{found['command']}`: {model['parameters'] / 1e6:.0f} M parameters in {model['dtype']}; medians of "
          f"{runs['prefill']} prefills and {runs['decode']} decode steps. Start to first token "
          f"{model['start_to_first_token_ms']:.0f} ms. Other programs took "
          f"{100 * model['cpu_share_of_others']:.0f} % of the cores.\n")
    head("step", "ms", "tokens/s", "GFLOP/s", "share of limit", "peak MiB", "states MiB", "working MiB")
    for s in model["steps"]:
        row(step_name(s), f"{s['ms']:.1f}", f"{s['tokens_per_s']:.1f}", f"{s['gflop_s']:.0f}",
            f"{100 * s['share_of_limit']:.0f} %", *(f"{s[key] / 2**20:.0f}" if s[key] is not None else "-"
                                                    for key in ("peak_bytes", "state_bytes", "working_bytes")))
    for kind, tokens in OPS_OF:
        for s in model["steps"]:
            if (s["step"], s["tokens"]) == (kind, tokens) and not s["own_keys"] and s["cache_tokens"] in (0, 1000):
                operations(s)


def operations(s):
    print(f"\n{step_name(s)}: {s['ms']:.1f} ms, of which {s['outside_ms']:.1f} outside operations and "
          f"{s['choosing_ms']:.1f} choosing tokens\n")
    head("operation", "shape", "T", "calls", "ms a call", "of the step", "GFLOP/s", "GB/s", "share of limit")
    for op in s["operations"]:
        part = op["ms_a_call"] * op["calls_a_step"] / s["ms"]
        row(op["op"], op["shape"], op["tokens"] or "", round(op["calls_a_step"]), f"{op['ms_a_call']:.4f}",
            f"{100 * part:.1f} %", f"{op['gflop_s']:.1f}", f"{op['gb_s']:.1f}", f"{100 * op['share_of_limit']:.0f} %")


def beside_llama(llama, ours):
    print(f"\n{llama['name']}, the same weights as GGUF, one run each in {len(llama['rounds'])} rounds between those "
          "above:\n")
    head("", "llama.cpp", "cortado", "llama.cpp / cortado")
    for name, ms in ours.items():
        theirs = [r[name] for r in llama["rounds"]]
        row(NAMES[name], shown(theirs, name), f"{ms:.1f}" if ms < 100 else f"{ms:.0f}", f"{median(theirs) / ms:.2f}")


def compare(found, llama=None):
    versions, linear = found["versions"], found["linear"]
    print(f"\n## transformers {versions['transformers']} (torch {versions['torch']}), {found['dtype']}\n")
    rounds = quiet(found["rounds"])
    products = [r["products"] for r in rounds]
    print(f"{len(found['rounds'])} rounds of transformers, then cortado, {found['threads']} threads each, of which "
          f"the {len(rounds)} count in which other programs took less than {100 * QUIET:.0f} % of the cores (all, if "
          f"there are none; here at most {100 * max(r['cpu_share_of_others'] for r in rounds):.0f} %). Median and "
          f"range over rounds, also of each round's ratio.\n")
    head("", "transformers", "cortado", "transformers / cortado")
    for name, label in NAMES.items():
        theirs, ours = ([r[side][name] for r in rounds] for side in ("transformers", "cortado"))
        row(label, shown(theirs, name), shown(ours, name), ratio(theirs, ours))
    shares = [100 * r["decode_share_of_limit"] for r in rounds]
    print(f"\nDecode of one row takes its weights and keys at {shown(shares, '')} % of the bandwidth that the same round "
          f"measured, {shown([r['read_gb_s'] for r in rounds], '')} GB/s.")
    if llama:
        beside_llama(llama, {name: median([r["cortado"][name] for r in rounds]) for name in llama["rounds"][0]})
    library = linear["library"] + (f" {versions['onednn']}, {linear['kernel']}" if linear["kernel"] else "")
    theirs = [p["torch_gflop_s"] for p in products]
    ours = [p["cortado_gflop_s"] for p in products]
    whole = [p["prefill_gflop_s"] for p in products]
    print(f"\ntorch.nn.functional.linear ({library}) at the shapes of a prefill of 512 tokens, weighted by their "
          f"calls: {shown(theirs, '')} GFLOP/s. cortado's products there: {shown(ours, '')} GFLOP/s, "
          f"{ratio(ours, theirs)} of it; its whole prefill: {shown(whole, '')} GFLOP/s, "
          f"{ratio(whole, theirs)} of it.")


def sweep(found):
    lengths = found["prompt_tokens"]
    cells = [cell["ms"] for cell in found["loop_cells_measured"]]
    print("\n## The sweep, bf16\n")
    print(f"{found['prompts']} prompts of {min(lengths)} to {max(lengths)} tokens, {found['interventions']} "
          f"interventions (0 to 8 heads by entropy of the 8, 4 by l2, 4 by inverted entropy, while generating), "
          f"{found['new_tokens']} tokens each, EOS ignored: {found['cells']} cells ({found['cortado_failed']} of "
          f"cortado's {found['cortado_cells']} failed).\n")
    print(f"`cortado run`, whole: {found['cortado_ms'] / 1e3:.1f} s. A loop over transformers with the heads chosen in a "
          f"patched attention: {shown(cells, '')} ms a cell in {len(cells)} cells, thus "
          f"{found['loop_ms_extrapolated'] / 1e3:.0f} s for all (extrapolated). Ratio {found['ratio']:.1f}. "
          f"Other programs took {100 * found['cpu_share_of_others']:.0f} % of the cores.")


def main():
    found = load(sys.argv[1])
    print("# Speed on a CPU\n")
    model = MODELS[found["bench-bf16"]["models"][0]["architecture"]]
    print(f"{model}; the JSON file beside this one has every number.\n")
    print("Prompts are random ids. transformers runs its own forward pass (sdpa, logits of the last token only) on the "
          "same files; in f32 it holds the weights widened, cortado widens them as it reads. A loop over its forward "
          "pass is timed, without the rest of `generate`; cortado's steps are timed inside `cortado bench`. Both "
          "choose the largest logit.\n")
    machine(found["bench-bf16"])
    for key, tell in (("compare-bf16", compare), ("compare-f32", compare), ("sweep", sweep), ("bench-bf16", bench),
                      ("bench-f32", bench)):
        if key in found:
            llama = found.get(key.replace("compare", "llama")) if tell is compare else None
            tell(found[key], *([llama] if llama else []))


if __name__ == "__main__":
    main()
