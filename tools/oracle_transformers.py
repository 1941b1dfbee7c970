"""Greedy tokens and logits of a RecurrentGemma or Jamba folder from transformers 5, to compare with
cortado.

    python tools/oracle_transformers.py MODEL PROMPTS.json -o OUT.safetensors [-n 40]
        [--visible N] [--dtype float32|bfloat16]
        [--cortado build/release/cortado [--compute f32] [--bound X]]

PROMPTS.json is a list of lists of ids (BOS included) or an object of such lists. OUT gets
`<name>.ids` I32 [n] and `<name>.logits` F32 [n, V]: row i is the distribution from which token i is
chosen. No stop at EOS. With --cortado each prompt is also run through

    cortado generate -m MODEL --prompt-ids ... -n N --ignore-eos --force-ids ... --save-logits FILE

with the oracle's tokens fed back, and the largest difference of a logit is printed. With --bound
the exit status is 1 if that is beyond X, or if a token differs.

For RecurrentGemma: transformers counts the current token in its window, DeepMind's code and cortado do
not. --visible
is the number of tokens a query sees, itself counted; the default, the config's window + 1, is
DeepMind's rule. For transformers' own reading give the config's window here, and to cortado
`--window-visible` the same.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import safetensors.numpy
import torch
import transformers


def greedy(model, prompt, count, draft):
    """transformers' own generate. Where the RG-LRU is not as wide as the model its cache fails, and it has none
    for a Jamba without attention layers: then whole sequences are computed, with `draft` for the tokens to come.
    Each token up to the first that the model would not have chosen is its own choice; that one is put right,
    and so on: a right draft takes one pass."""
    with torch.no_grad():
        width = model.config.hidden_size
        if getattr(model.config, "lru_width", width) == width and model.config.use_cache:
            out = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=count,
                                 min_new_tokens=count, eos_token_id=None, output_logits=True,
                                 return_dict_in_generate=True)
            ids, rows = out.sequences[0, len(prompt):].tolist(), [row[0] for row in out.logits]
        else:
            ids = draft
            while True:
                rows = list(model(torch.tensor([prompt + ids[:-1]]), use_cache=False).logits[0, len(prompt) - 1:])
                chosen = [int(row.argmax()) for row in rows]
                if chosen == ids:
                    break
                at = next(i for i in range(count) if chosen[i] != ids[i])
                ids = ids[:at] + [chosen[at]] + ids[at + 1:]
    return np.array(ids, np.int32), torch.stack(rows).float().numpy()


def cortado_greedy(args, prompt, visible):
    """The program's own tokens, for a draft; zeros without it."""
    if not args.cortado:
        return [0] * args.new_tokens
    window = ["--window-visible", str(visible)] if visible else []
    done = subprocess.run([args.cortado, "generate", "-m", args.model, "--compute", args.compute, "--prompt-ids",
                           ",".join(map(str, prompt)), "-n", str(args.new_tokens), "--ignore-eos", *window, "--json"],
                          check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)["ids"]


def run_cortado(args, prompt, ids, visible):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "logits.safetensors"
        join = ",".join
        window = ["--window-visible", str(visible)] if visible else []
        subprocess.run([args.cortado, "generate", "-m", args.model, "--compute", args.compute,
                        "--prompt-ids", join(map(str, prompt)), "-n", str(len(ids)), "--ignore-eos",
                        "--force-ids", join(map(str, ids)), "--save-logits", str(path),
                        *window, "--json"],
                       check=True, stdout=subprocess.DEVNULL)
        return safetensors.numpy.load_file(path)["logits"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("-o", "--out", required=True)
    parser.add_argument("-n", "--new-tokens", type=int, default=40)
    parser.add_argument("--visible", type=int)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--cortado")
    parser.add_argument("--compute", default="auto", choices=["auto", "f32", "bf16"])
    parser.add_argument("--bound", type=float)
    args = parser.parse_args()

    config = transformers.AutoConfig.from_pretrained(args.model)
    visible = None
    if hasattr(config, "attention_window_size"):
        visible = config.attention_window_size = args.visible or config.attention_window_size + 1
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, config=config, dtype=getattr(torch, args.dtype), attn_implementation="eager")
    model.eval()
    prompts = json.loads(pathlib.Path(args.prompts).read_text())
    if isinstance(prompts, list):
        prompts = {f"prompt{i}": ids for i, ids in enumerate(prompts)}
    tensors, worst, tokens, other = {}, 0.0, 0, 0
    for name, prompt in prompts.items():
        ids, logits = greedy(model, prompt, args.new_tokens, cortado_greedy(args, prompt, visible))
        tensors[f"{name}.ids"], tensors[f"{name}.logits"] = ids, logits
        line = f"{name}: {len(prompt)} tokens, {ids.tolist()}"
        if args.cortado:
            ours = run_cortado(args, prompt, ids.tolist(), visible)
            if ours.shape != logits.shape or not np.isfinite(ours).all():
                sys.exit(f"{name}: expected finite logits {logits.shape}, got {ours.shape}")
            largest = float(abs(ours - logits).max())
            differ = int((ours.argmax(-1) != ids).sum())
            worst, tokens, other = max(worst, largest), tokens + len(ids), other + differ
            line += f"; largest difference {largest:.3g}, {differ} of {len(ids)} tokens differ"
        print(line, flush=True)
    safetensors.numpy.save_file(tensors, args.out)
    lengths = [len(prompt) for prompt in prompts.values()]
    line = (f"transformers {transformers.__version__}, {args.dtype}, {visible or 'all'} visible "
            f"tokens: {len(lengths)} prompts of {min(lengths)} to {max(lengths)} tokens")
    if args.cortado:
        line += f"; {other} of {tokens} tokens differ, largest difference of a logit {worst:.3g}"
    if args.bound is not None:
        line += f" (bound {args.bound:g})"
    print(line)
    return 1 if args.bound is not None and (other or not worst <= args.bound) else 0


if __name__ == "__main__":
    sys.exit(main())
