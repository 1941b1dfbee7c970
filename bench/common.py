"""What the scripts of bench/ share: the worker process, cortado's JSON, medians, the results file."""
import json
import os
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
median = statistics.median


class Worker:
    """bench/torch_worker.py as a process; .start_ms is from its start to its first token."""

    def __init__(self, model, dtype, threads):
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, HERE / "torch_worker.py", model, dtype, str(threads)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
            env=dict(os.environ, HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", OMP_NUM_THREADS=str(threads)))
        self.read()
        self.start_ms = (time.perf_counter() - start) * 1e3

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"the worker ended with status {self.process.wait()}; what it said is above")
        return json.loads(line)

    def ask(self, do, **request):
        print(json.dumps({"do": do, **request}), file=self.process.stdin, flush=True)
        return self.read()

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Others:
    """What part of the cores other programs take from now on: .share() is 0 .. 1."""

    def __init__(self, worker):
        self.worker, self.start = worker, self.now(worker)

    @staticmethod
    def now(worker):
        tick = os.sysconf("SC_CLK_TCK")
        ticks = [int(word) for word in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        fields = pathlib.Path(f"/proc/{worker.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        own = (int(fields[11]) + int(fields[12])) / tick
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            used = resource.getrusage(who)
            own += used.ru_utime + used.ru_stime
        return (sum(ticks) - ticks[3] - ticks[4]) / tick, own, time.perf_counter()

    def share(self):
        busy, own, wall = (b - a for a, b in zip(self.start, self.now(self.worker)))
        return max(0.0, (busy - own) / (wall * os.cpu_count()))


def cortado(program, *arguments):
    """What a verb's --json says."""
    done = subprocess.run([program, *map(str, arguments), "--json"], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def random_ids(count, vocab, seed=0):
    draw = random.Random(seed)
    return [draw.randrange(3, vocab) for _ in range(count)]


def load(path):
    """The JSON file of results; empty if it is not there."""
    return json.loads(pathlib.Path(path).read_text()) if pathlib.Path(path).exists() else {}


def save(path, key, value):
    """Puts value under key into the JSON file of results."""
    pathlib.Path(path).write_text(json.dumps(load(path) | {key: value}, separators=(",", ":")) + "\n")


if __name__ == "__main__":  # common.py RESULTS KEY FILE: a JSON file becomes a part of the results
    save(sys.argv[1], sys.argv[2], load(sys.argv[3]))
