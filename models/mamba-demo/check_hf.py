"""Compares mamba-demo with Hugging Face transformers: ../jamba-demo/check_hf.py on this folder.

    python3 check_hf.py random | files PROMPTS.json
"""
import os
import runpy
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    sys.argv[1:1] = ["--model", HERE]
    runpy.run_path(os.path.join(HERE, "..", "jamba-demo", "check_hf.py"), run_name="__main__")
