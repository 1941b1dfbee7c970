"""What recorders cost: one study on a demo model without a recorder and with each, in turn, in short rounds.

    python3 bench/recorders.py build/release/cortado >bench/results/recorders.md

The study is 3 lengths x 4 depths under 9 selections of heads; each variant runs into a folder of its own, which is
removed. Told are the median over rounds of each variant's wall and CPU time over those without a recorder in the same
round, and the bytes written. `weights` of all steps writes a hundred times what a study needs: it is told to show the
price of a byte.
"""
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
STUDY = """study: recorders
model: griffin-demo
task:
  niah:
    haystack: {root}/data/haystack
    needle: "\\nThe best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.\\n"
    question: What is the best thing to do in San Francisco?
    template: base
    lengths: [512, 1024, 2048]
    depths: [0, 33, 67, 100]
    scoring: table
generate: {{max_new_tokens: 40, ignore_eos: true}}
semantics: paper
interventions:
  - heads: {{keep: {{from: 0, to: 8}}, metric: entropy, stages: [generation]}}
figures: [accuracy_by_heads]
{record}
"""
VARIANTS = {"none": "", "light, all steps": "record: {what: light, stages: generation, steps: all}",
            "heads and light, all steps": "record: {what: [heads, light], stages: generation, steps: all}",
            "weights, last step": "record: {what: weights, stages: generation, steps: last}",
            "weights, all steps": "record: {what: weights, stages: generation, steps: all, limit_mib: 8192}"}
ROUNDS = 7


def run(program, record):
    """Wall seconds, CPU seconds, bytes of recordings."""
    with tempfile.TemporaryDirectory() as folder:
        study = pathlib.Path(folder, "study.yaml")
        study.write_text(STUDY.format(root=ROOT, record=record))
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([program, "run", study, "--out", folder + "/out", "--model-root", ROOT / "models"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            sys.exit(done.stderr)
        written = sum(f.stat().st_size for f in pathlib.Path(folder, "out").glob("recordings/*"))
        shutil.rmtree(folder + "/out")
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, written


def main():
    program = sys.argv[1]
    run(program, "")  # warms up
    times = {name: [] for name in VARIANTS}
    for _ in range(ROUNDS):
        for name, record in VARIANTS.items():
            times[name].append(run(program, record))
    version = subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    print(f"# What recorders cost\n\n`python3 bench/recorders.py build/release/cortado`, {ROUNDS} rounds; {version}. 108 cells "
          "of griffin-demo, table, figures and page drawn. Medians; in brackets the range of the rounds' own ratios to `none`.\n")
    print("| recorder | wall, s | over none | CPU, s | over none | MiB written |\n| --- | --- | --- | --- | --- | --- |")
    for name, found in times.items():
        cells = [name]
        for i in range(2):
            ratios = [f[i] / n[i] for f, n in zip(found, times["none"])]
            cells += [f"{statistics.median(f[i] for f in found):.2f}",
                      f"{statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})"]
        print("| " + " | ".join(cells + [f"{found[0][2] / 2**20:.1f}"]) + " |")


if __name__ == "__main__":
    main()
