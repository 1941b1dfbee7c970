"""Trains the tokenizer of the demo models and prepares the training data.

    python3 tokenizer.py --work WORKDIR --model ../griffin-demo

Reads WORKDIR/corpus.txt (corpus.py); writes tokenizer.json and tokenizer_config.json into the model's folder, and
WORKDIR/tokens.npy (uint16 ids of the whole corpus, <bos> never inside) and WORKDIR/pools.json (words and phrases
that the training needles are made of). Needs tokenizers and numpy; takes about a minute.

The tokenizer is built like Gemma's: BPE over text whose spaces are replaced by U+2581, no pre-tokenizer, unknown
characters as bytes, <bos> first. It is TRAINED on pieces that keep words, numbers, punctuation and newlines apart,
so that no token crosses a word's beginning and a sentence has the same ids wherever it stands.
"""
import argparse
import json
import os
import re
from collections import Counter

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

VOCAB = 4096
SPECIALS = ["<pad>", "<eos>", "<bos>", "<unk>"]     # ids 0 1 2 3
BYTES = [f"<0x{b:02X}>" for b in range(256)]        # ids 4 .. 259
PIECES = r"▁?\p{L}+|\p{N}|▁?[^\p{L}\p{N}▁\n]+|\n+|▁+"

# Content words of the evaluation's needle: no needle of the training may contain them.
FORBIDDEN = {"san", "francisco", "eat", "eats", "eating", "ate", "eaten", "sandwich", "sandwiches", "sit", "sits", "sitting", "sat",
             "dolores", "park", "parks", "sunny", "sun", "day", "days", "sandy"}


def train(text):
    tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tok.normalizer = normalizers.Replace(" ", "▁")
    tok.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    tok.train_from_iterator(
        (text[i:i + 20000] for i in range(0, len(text), 40000)),    # every other 20,000 characters
        trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIALS + BYTES, limit_alphabet=200,
                            initial_alphabet=[chr(c) for c in range(33, 127)] + ["\n", "▁"], show_progress=False))
    state = json.loads(tok.to_str())
    state["pre_tokenizer"] = None
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] in SPECIALS]
    tok = Tokenizer.from_str(json.dumps(state))
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tok.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)])
    assert tok.get_vocab_size() == VOCAB and [tok.token_to_id(t) for t in SPECIALS] == [0, 1, 2, 3]
    return tok


def pools(text, rng):
    """Words, capitalised words and two- to five-word phrases for needles, free of FORBIDDEN words."""
    words = Counter(re.findall(r"(?<=[a-z,] )[a-z]{3,12}(?=[ ,.])", text))
    names = Counter(re.findall(r"(?<=[a-z,] )[A-Z][a-z]{2,11}(?=[ ,.])", text))
    words = [w for w, n in words.most_common(14000) if w not in FORBIDDEN and n >= 3]
    names = [w for w, n in names.most_common(4000) if w.lower() not in FORBIDDEN and n >= 3]
    phrases, spans = set(), list(re.finditer(r"(?<= )[a-z]+(?: [a-z]+){1,4}(?=[ ,.])", text))
    for i in rng.permutation(len(spans)):
        phrase = spans[i].group()
        if len(phrase) < 45 and not FORBIDDEN & set(phrase.split()):
            phrases.add(phrase)
        if len(phrases) == 40000:
            break
    return {"words": words, "names": names, "phrases": sorted(phrases)}


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--work", required=True)
    ap.add_argument("--model", required=True, help="folder that receives the tokenizer")
    args = ap.parse_args()
    with open(os.path.join(args.work, "corpus.txt")) as f:
        text = f.read()
    tok = train(text)
    tok.save(os.path.join(args.model, "tokenizer.json"))
    with open(os.path.join(args.model, "tokenizer_config.json"), "w") as f:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, "add_eos_token": False,
                   "clean_up_tokenization_spaces": False, "model_max_length": 5120, "pad_token": "<pad>", "eos_token": "<eos>",
                   "bos_token": "<bos>", "unk_token": "<unk>", "padding_side": "left"}, f, indent=2)
        f.write("\n")
    blocks = text.split("\n\n")
    blocks = ["\n\n".join(blocks[i:i + 200]) + "\n\n" for i in range(0, len(blocks), 200)]
    ids = [e.ids for e in tok.encode_batch(blocks, add_special_tokens=False)]
    flat = np.fromiter((i for e in ids for i in e), np.uint16)
    np.save(os.path.join(args.work, "tokens.npy"), flat)
    with open(os.path.join(args.work, "pools.json"), "w") as f:
        json.dump(pools(text, np.random.default_rng(0)), f)
    print(f"{len(text)} characters, {len(flat)} tokens, {len(text) / len(flat):.2f} characters a token")


if __name__ == "__main__":
    main()
