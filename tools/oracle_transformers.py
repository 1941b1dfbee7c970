"""Greedy tokens and logits of a RecurrentGemma folder from transformers 5, to compare with cortado.

    python tools/oracle_transformers.py MODEL PROMPTS.json -o OUT.safetensors [-n 40]
        [--visible N] [--dtype float32|bfloat16] [--cortado build/release/cortado]

PROMPTS.json is a list of lists of ids (BOS included) or an object of such lists. OUT gets
`<name>.ids` I32 [n] and `<name>.logits` F32 [n, V]: row i is the distribution from which token i is
chosen. No stop at EOS. With --cortado each prompt is also run through

    cortado generate -m MODEL --prompt-ids ... -n N --ignore-eos --force-ids ... --save-logits FILE

with the oracle's tokens fed back, and the largest difference of a logit is printed.

transformers counts the current token in its window, DeepMind's code and cortado do not. --visible
is the number of tokens a query sees, itself counted; the default, the config's window + 1, is
DeepMind's rule. For transformers' own reading give the config's window here, and to cortado
`--window-visible` the same.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import safetensors.numpy
import torch
import transformers


def greedy(model, prompt, count):
    """transformers' own generate; where the RG-LRU is not as wide as the model its cache fails, and
    the whole sequence is computed anew for each token."""
    with torch.no_grad():
        if model.config.lru_width == model.config.hidden_size:
            out = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=count,
                                 min_new_tokens=count, eos_token_id=None, output_logits=True,
                                 return_dict_in_generate=True)
            ids, rows = out.sequences[0, len(prompt):].tolist(), [row[0] for row in out.logits]
        else:
            ids, rows = [], []
            for _ in range(count):
                rows.append(model(torch.tensor([prompt + ids]), use_cache=False).logits[0, -1])
                ids.append(int(rows[-1].argmax()))
    return np.array(ids, np.int32), torch.stack(rows).float().numpy()


def run_cortado(program, model, prompt, ids, visible):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "logits.safetensors"
        join = ",".join
        subprocess.run([program, "generate", "-m", model, "--prompt-ids", join(map(str, prompt)),
                        "-n", str(len(ids)), "--ignore-eos", "--force-ids", join(map(str, ids)),
                        "--save-logits", str(path), "--window-visible", str(visible), "--json"],
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
    args = parser.parse_args()

    config = transformers.AutoConfig.from_pretrained(args.model)
    visible = args.visible or config.attention_window_size + 1
    config.attention_window_size = visible
    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, config=config, dtype=getattr(torch, args.dtype), attn_implementation="eager")
    model.eval()
    prompts = json.loads(pathlib.Path(args.prompts).read_text())
    if isinstance(prompts, list):
        prompts = {f"prompt{i}": ids for i, ids in enumerate(prompts)}
    tensors, worst = {}, 0.0
    for name, prompt in prompts.items():
        ids, logits = greedy(model, prompt, args.new_tokens)
        tensors[f"{name}.ids"], tensors[f"{name}.logits"] = ids, logits
        line = f"{name}: {len(prompt)} tokens, {ids.tolist()}"
        if args.cortado:
            ours = run_cortado(args.cortado, args.model, prompt, ids.tolist(), visible)
            largest = float(abs(ours - logits).max())
            same = int((ours.argmax(-1) == ids).sum())
            worst = max(worst, largest)
            line += f"; largest difference {largest:.3g}, {same} of {len(ids)} tokens the same"
        print(line)
    safetensors.numpy.save_file(tensors, args.out)
    print(f"transformers {transformers.__version__}, {visible} visible tokens, {args.dtype}" +
          (f"; largest difference of a logit {worst:.3g}" if args.cortado else ""))


main()
