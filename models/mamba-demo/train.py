"""Trains mamba-demo: ../jamba-demo/train.py with this folder's config.json, so on the same data in the same order.

    python3 train.py --work WORKDIR --out OUTDIR
"""
import os
import runpy
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    sys.argv[1:1] = ["--model", HERE, "--mix", "0.5"]
    runpy.run_path(os.path.join(HERE, "..", "jamba-demo", "train.py"), run_name="__main__")
