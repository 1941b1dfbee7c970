"""Needle in a haystack in torch: the paper's prompts, its `table` scoring, greedy answers, head selection by rule and k.

Prompts: the paper's template, lengths in tokens of the model's tokenizer, the needle about Dolores Park. Greedy, 40 tokens,
accuracy = mean score / 5. Generation stage: the prompt yields the first token with all heads, and head selection acts from
the second token on. A model is an object with `device`, `window` (a query sees itself and that many tokens before it) and

    prefill(ids [B, T], lengths [B], select, room) -> (logits at each row's last token, state)
    step(state, ids [B], select) -> logits

where select(P) maps attention weights P [B, H, Q, S] to 0 or 1 for each head, [B, H, Q], or is None for all heads. A state
is a dict: n [B] tokens read, kpos [B, S] key positions (negative: empty), used (columns in use), layers (lists of tensors
[B, ...]). Weights as in the file (bf16), arithmetic float32.
"""
import glob
import json
import math
import os
import random
import re

import torch

SENTENCE = "The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day."
QUESTION = "What is the best thing to do in San Francisco?"
CUE = "\n\nANSWER: Here is the most relevant sentence in the context: "
NEW_TOKENS = 40
RULES = ("entropy", "random", "inverted")


def linspace(a, b, n):
    return [round(a + (b - a) * i / (n - 1)) for i in range(n)]


def build_prompt(tok, haystack_ids, needle, length, depth, twice=False):
    """The prompt for `length` tokens: haystack + needle are `length` - 200 tokens."""
    def encode(s):
        return tok.encode(s, add_special_tokens=False).ids
    ids, full_stop = encode(needle), set(encode("."))
    context = encode(tok.decode(haystack_ids[:length]))[:length - 200 - len(ids)]
    cut = len(context)
    if depth < 100:
        cut = int(len(context) * (depth / 100))
        while cut and context[cut - 1] not in full_stop:
            cut -= 1
    prompt = "CONTEXT: " + tok.decode(context[:cut] + ids + context[cut:]) + "\n\nQUESTION: " + QUESTION
    return (prompt + "\n\n" + prompt if twice else prompt) + CUE


def clean(text):
    return " ".join(re.sub(r"[^\w\s]", "", text.lower()).split())


def score(text):
    text = clean(text)
    if clean(SENTENCE) in text:
        return 5.0
    if "is to eat a sandwich and sit in dolores park on a sunny day" in text:
        return 4.0
    return (1.0 * ("eat a sandwich" in text) + 0.5 * ("dolores park" in text) + 0.5 * ("sit in dolores park" in text)
            + 1.0 * ("sunny day" in text))


class Prompt:
    def __init__(self, tok, text, length, depth):
        e = tok.encode(text)
        self.text, self.length, self.depth, self.ids = text, length, depth, e.ids
        at = text.rindex(SENTENCE)      # the last copy of a read-twice prompt
        span = [i for i, (a, b) in enumerate(e.offsets) if b > at and a < at + len(SENTENCE) and b > a]
        self.first, self.last = span[0], span[-1]

    def place(self, window):
        """Where the needle is during the answer: inside the window to its end, outside from the start, or between."""
        if self.first >= len(self.ids) - 1 + NEW_TOKENS - window:
            return "inside"
        return "outside" if self.last < len(self.ids) - 1 - window else "between"


def selector(rule, k, generator, heads):
    if rule is None or k == heads:
        return None
    return lambda P: select_heads(P, rule, k, generator)


def prefill_all(dec, prompts, select=None):
    """Prefills in batches of like length; returns first tokens and one merged state, in the order of `prompts`."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
    longest = len(prompts[order[-1]].ids)
    first, merged, at = [None] * len(prompts), None, 0
    dev = dec.device
    while at < len(order):
        size = max(1, min(16, int((2.5e8 if torch.device(dec.device).type == "cuda" else 2e7) / (8 * len(prompts[order[min(at + 3, len(order) - 1)]].ids) ** 2))))
        chunk = order[at:at + size]
        T = max(len(prompts[i].ids) for i in chunk)
        ids = torch.tensor([prompts[i].ids + [0] * (T - len(prompts[i].ids)) for i in chunk], device=dev)
        lengths = torch.tensor([len(prompts[i].ids) for i in chunk], device=dev)
        logits, state = dec.prefill(ids, lengths, select, room=longest - T + NEW_TOKENS + 1)
        state["used"] = longest
        if merged is None:
            merged = {"n": torch.empty(len(prompts), dtype=torch.long, device=dev), "used": longest,
                      "kpos": torch.empty(len(prompts), state["kpos"].shape[1], dtype=torch.long, device=dev),
                      "layers": [[z.new_empty(len(prompts), *z.shape[1:]) for z in layer] for layer in state["layers"]]}
        where = torch.tensor(chunk, device=dev)
        merged["n"][where], merged["kpos"][where] = state["n"], state["kpos"]
        for mine, new in zip(merged["layers"], state["layers"]):
            for a, b in zip(mine, new):
                a[where] = b
        for i, t in zip(chunk, logits.argmax(-1).tolist()):
            first[i] = t
        at += size
    return first, merged


def answers(dec, tok, first, state, select=None):
    """Greedy answers; `state` is left as it was."""
    state, token = fork(state), torch.tensor(first, device=dec.device)
    out = [token]
    for _ in range(NEW_TOKENS - 1):
        token = dec.step(state, token, select).argmax(-1)
        out.append(token)
    rows = torch.stack(out, 1).tolist()
    return [tok.decode(r[:r.index(1)] if 1 in r else r) for r in rows]


def accuracy(texts):
    return sum(score(t) for t in texts) / 5 / max(1, len(texts))


def all_heads(dec, tok, prompts):
    first, state = prefill_all(dec, prompts)
    texts = answers(dec, tok, first, state)
    by_place = {}
    for p, t in zip(prompts, texts):
        by_place.setdefault(p.place(dec.window), []).append(t)
    table = {}
    for p, t in zip(prompts, texts):
        table.setdefault(p.length, {})[p.depth] = score(t)
    failures = [{"length": p.length, "depth": p.depth, "place": p.place(dec.window), "tokens": len(p.ids), "answer": t}
                for p, t in zip(prompts, texts) if score(t) < 5]
    result = {"prompts": len(prompts), "accuracy": accuracy(texts), "by_place": {k: [len(v), accuracy(v)] for k, v in by_place.items()},
              "score_by_length_depth": table, "failures": failures[:60]}
    return result, first, state


def selection(dec, tok, prompts, ks, stages, seed=0, merged=None):
    """Accuracy by rule and k. stages: 'generation' (uses the prefilled state `merged`) or 'prefill+generation'."""
    gen = torch.Generator(dec.device).manual_seed(seed)
    out, samples = {}, {}
    for rule in RULES:
        out[rule] = {}
        for k in ks:
            if k in (0, 8) and rule != "entropy":
                out[rule][k] = out["entropy"][k]
                continue
            select = selector(rule, k, gen, 8)
            first, state = merged if stages == "generation" else prefill_all(dec, prompts, select)
            texts = answers(dec, tok, first, state, select)
            out[rule][k] = accuracy(texts)
            if rule == "entropy":
                samples[k] = texts[len(texts) // 2]
    return {"prompts": len(prompts), "stages": stages, "accuracy": out, "sample_answers": samples}


def show(name, result):
    print(f"\n{name} ({result['prompts']} prompts, {result['stages']})")
    ks = list(result["accuracy"]["entropy"])
    print("k        " + " ".join(f"{k:>6}" for k in ks))
    for rule in RULES:
        print(f"{rule:8} " + " ".join(f"{result['accuracy'][rule][k]:6.3f}" for k in ks))


def prompt_sets(tok, haystack, paper_prompts=None, grid=10):
    """{name: prompts}: for each haystack {name: text} both forms of the needle and read-twice prompts, then the paper's own prompts.
    Prompts that a model of 5,120 (base) or 4,096 (read twice) tokens cannot hold are left out."""
    lengths, depths = linspace(250, 4096, grid), linspace(0, 100, grid)
    sets = {}
    for name, text in haystack.items():
        ids = tok.encode(text, add_special_tokens=False).ids
        if len(ids) < 4096:
            ids = ids * (4096 // len(ids) + 1)
        for style, needle in (("newline", f"\n{SENTENCE}\n"), ("newline+space", f"\n {SENTENCE}\n")):
            sets[f"{name}, {style}"] = [Prompt(tok, build_prompt(tok, ids, needle, n, d), n, d) for n in lengths for d in depths]
        twice = [Prompt(tok, build_prompt(tok, ids, f"\n{SENTENCE}\n", n, d, True), n, d) for n in lengths for d in depths[::3]]
        sets[f"{name}, newline, read twice"] = [p for p in twice if len(p.ids) + NEW_TOKENS <= 4096]
    for kind in ("prompts_base", "prompts_base_jrt") if paper_prompts else ():
        files = sorted(glob.glob(os.path.join(paper_prompts, kind, "*.json")))
        items = [json.load(open(f)) for f in files]
        prompts = [Prompt(tok, d["content"], d["context_length"], d["depth_percent"]) for d in items]
        sets[f"paper {kind}"] = [p for p in prompts if len(p.ids) + NEW_TOKENS <= (5120 if kind == "prompts_base" else 4096)]
    return {name: prompts for name, prompts in sets.items() if prompts}


CITIES = ("Lisbon", "Oslo", "Kyoto", "Cusco", "Tallinn", "Bergen", "Porto", "Ghent", "Turin", "Riga", "Quito", "Leeds", "Nairobi", "Sofia", "Utrecht",
          "Hobart", "Bilbao", "Graz", "Izmir", "Malmo", "Cork", "Basel", "Split", "Tampere", "Tbilisi", "Dakar", "Nantes", "Perth", "Lima", "Zagreb",
          "Austin", "Minsk")
ACTS = ("draw a bridge", "hear a choir", "buy a lamp", "read a map", "watch a play", "find a stone", "ride a tram", "carry a kite")
STAYS = ("wait", "rest", "sing", "walk", "dance", "stand", "talk", "work")
SPOTS = ("Castle Square", "Market Hall", "Mill Street", "Harbour Gate", "Abbey Garden", "North Pier", "Clock Tower", "Linden Court")
WHENS = ("a cold night", "a quiet evening", "a long weekend", "a windy morning", "a late summer", "a wet holiday", "a bright afternoon", "a busy week")


def crowded(tok, haystack_ids, length, depth, others, seed=0):
    """The prompt with `others` more needles of the same form, about other cities, at random sentence ends."""
    rng = random.Random(f"{seed} {length} {depth} {others}")
    crowd = [f"\nThe best thing to do in {city} is {rng.choice(ACTS)} and {rng.choice(STAYS)} in {rng.choice(SPOTS)} on {rng.choice(WHENS)}.\n"
             for city in rng.sample(CITIES, others)]
    cost = sum(len(tok.encode(n, add_special_tokens=False).ids) for n in crowd)
    text = build_prompt(tok, haystack_ids, f"\n{SENTENCE}\n", length - cost, depth)
    context, rest = text.split("\n\nQUESTION: ")
    needle = context.index(SENTENCE)
    ends = [m.end() for m in re.finditer(r"\.(?= )", context) if not needle <= m.end() <= needle + len(SENTENCE)]
    places = sorted(rng.choices(ends, k=others), reverse=True)
    for at, sentence in zip(places, crowd):
        context = context[:at] + sentence + context[at + 1:]
    return Prompt(tok, context + "\n\nQUESTION: " + rest, length, depth)


def read_haystack(args):
    """NAME=GLOB arguments -> {name: text}, files in sorted order."""
    out = {}
    for arg in args:
        name, pattern = arg.split("=", 1)
        files = sorted(glob.glob(pattern))
        if files:
            out[name] = "".join(open(f).read() for f in files)
        else:
            print(f"no file matches {pattern}: skipped")
    return out


def select_heads(P, rule, k, generator=None):
    """P [B, H, Q, S] attention weights -> keep [B, H, Q]. rule: entropy (lowest first), inverted (highest first), random.
    Ties go to the lowest head index."""
    B, H, Q, _ = P.shape
    if rule == "random":
        score = torch.rand(B, H, Q, device=P.device, generator=generator)
    else:
        score = -torch.xlogy(P, P).sum(-1) / math.log(2.0)
        if rule == "inverted":
            score = -score
    order = torch.argsort(score, dim=1, stable=True)
    keep = torch.zeros(B, H, Q, device=P.device)
    return keep.scatter_(1, order[:, :k], 1.0)


def fork(state):
    """A copy of a decoding state."""
    return {"n": state["n"].clone(), "kpos": state["kpos"].clone(), "used": state["used"],
            "layers": [[z.clone() for z in layer] for layer in state["layers"]]}
