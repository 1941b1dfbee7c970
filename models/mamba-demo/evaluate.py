"""Evaluates mamba-demo: ../jamba-demo/evaluate.py on this folder.

    python3 evaluate.py --haystack NAME=GLOB ...
"""
import os
import runpy
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    sys.argv[1:1] = ["--model", HERE]
    runpy.run_path(os.path.join(HERE, "..", "jamba-demo", "evaluate.py"), run_name="__main__")
