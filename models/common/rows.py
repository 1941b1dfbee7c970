"""Makes the training rows of the demo models: needles in text, plain text, copying. Every row is drawn afresh.

A row is T + 1 token ids and a class for each: 0 no loss, 1 text, 2 answer, 3 second copy. Needles are random: their words
come from tokenizer.py's pools, which hold no content word of the evaluation's needle. The answer is always the exact
tokens of the needle as they stand in the text, with or without the leading space.
Text is inserted as text and encoded together with its neighbours where tokens could merge (runs of newlines), so that
a row has the ids that its text would have.
"""
import json
import multiprocessing
import os

import numpy as np
from tokenizers import Tokenizer

PAD, EOS, BOS = 0, 1, 2
NONE, TEXT, ANSWER, COPY = 0, 1, 2, 3
CUE = "\n\nANSWER: Here is the most relevant sentence in the context: "
LENGTHS = (256, 512, 1024, 1280, 2048, 2560, 4096, 5120)

SUBJECTS = (
    "the secret code of {n}", "the favourite food of {n}", "the capital of {n}", "the password of {n}", "the first rule of {n}",
    "the hidden treasure of {n}", "{n}'s greatest fear", "{n}'s oldest friend", "the name of the {w} in {n}", "the reason for the {w} in {n}",
    "the best {w} in {n}", "the only {w} of {n}", "the motto of {n}", "what {n} said about the {w}", "the price of the {w} in {n}",
    "the most important thing about {n}", "the best way to reach {n}", "the colour of the {w} of {n}", "the last wish of {n}", "the {w} that {n} wanted",
)
VERBS = ("visit", "watch", "find", "buy", "draw", "read", "carry", "count", "paint", "follow", "hear", "play", "drink", "cook", "build", "meet",
         "walk", "run", "sing", "wait", "rest", "swim", "climb", "talk", "dance", "look", "ride", "work", "stand", "sleep")
PLACES = ("Square", "Garden", "Street", "Hall", "Tower", "Market", "Museum", "Harbour", "Bridge", "Library", "Valley", "Station", "House")
TIMES = ("evening", "morning", "afternoon", "night", "week", "summer", "winter", "holiday", "weekend", "month")
ONSETS = ("b", "br", "c", "ch", "d", "dr", "f", "g", "gr", "h", "j", "k", "kl", "l", "m", "n", "p", "pl", "qu", "r", "s", "st", "t", "tr", "v", "w", "z")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ea", "oo")
CODAS = ("", "", "n", "r", "l", "s", "th", "m", "ck", "nd")


def curriculum(progress, rng):
    """Row length at a share `progress` of the stage's time."""
    for until, longest in ((0.12, 256), (0.25, 512), (0.42, 1024), (0.60, 2048)):
        if progress < until:
            return int(rng.choice([t for t in LENGTHS if t <= longest]))
    return int(rng.choice(LENGTHS, p=(0.08, 0.08, 0.14, 0.10, 0.20, 0.14, 0.13, 0.13)))


class RowMaker:
    def __init__(self, tokens, pools, tokenizer, rng):
        self.tokens, self.rng = tokens, rng
        self.tok = tokenizer
        self.words, self.names, self.phrases = pools["words"], pools["names"], pools["phrases"]
        text = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
        self.newline = np.array([set(t) == {"\n"} for t in text])
        self.opens_word = np.array([t.startswith("▁") and len(t) > 1 and t[1] != "▁" for t in text])
        self.full_stop = np.array([t in (".", "?", "!", '."') for t in text])

    # -------------------------------------------------- small draws

    def chance(self, p):
        return self.rng.random() < p

    def pick(self, pool):
        return pool[int(self.rng.integers(len(pool)))]

    def encode(self, text):
        return self.tok.encode(text, add_special_tokens=False).ids

    def made_up(self):
        return "".join(self.pick(ONSETS) + self.pick(VOWELS) + self.pick(CODAS) for _ in range(int(self.rng.integers(1, 4)))).capitalize()

    def name(self):
        one = self.made_up if self.chance(0.4) else lambda: self.pick(self.names)
        return " ".join(one() for _ in range(2 if self.chance(0.4) else 1))

    def content(self):
        r = self.rng.random()
        if r < 0.45:
            return self.pick(self.phrases)
        if r < 0.75:
            return " ".join(self.pick(self.words) for _ in range(int(self.rng.integers(1, 5))))
        if r < 0.9:
            return f"the {self.pick(self.words)} of {self.name()}"
        return f"{self.pick(self.phrases)} {self.name()}"

    def verb_phrase(self):
        r = self.rng.random()
        if r < 0.35:
            return f"{self.pick(VERBS)} {self.pick(('a', 'the', 'some', 'an old', 'your'))} {self.pick(self.words)}"
        if r < 0.65:
            return f"{self.pick(self.words)} {self.pick(('a', 'the', 'with', 'at the', 'some'))} {self.pick(self.words)}"
        return self.pick(self.phrases) if r < 0.85 else self.pick(self.words)

    def needle(self, kind=None):
        """(sentence, question, kind)."""
        if kind is None:
            kind = self.rng.choice(3, p=(0.50, 0.12, 0.38))
        if kind == 2:
            subject = self.pick(SUBJECTS).format(n=self.name(), w=self.pick(self.words))
            return f"{subject[0].upper()}{subject[1:]} is {self.content()}.", f"What is {subject}?", kind
        city = self.name()
        rest = self.verb_phrase()
        if kind == 0 or self.chance(0.3):
            rest += f" and {self.verb_phrase()}"
        if kind == 0 or self.chance(0.3):
            place = f"{self.name()} {self.pick(PLACES)}" if self.chance(0.5) else self.name()
            rest += f" in {place}"
        if kind == 0 or self.chance(0.2):
            rest += f" on a {self.pick(self.words)} {self.pick(TIMES) if self.chance(0.6) else self.pick(self.words)}"
        return f"The best thing to do in {city} is {rest}.", f"What is the best thing to do in {city}?", kind

    def seat(self, sentence):
        """How a needle sits in the text: (text with its surroundings, text of the answer)."""
        r = self.rng.random()
        if r < 0.38:
            return f"\n{sentence}\n", sentence
        if r < 0.68:
            return f"\n {sentence}\n", " " + sentence
        if r < 0.90:
            return f" {sentence}", " " + sentence
        return f"\n\n{sentence}\n\n", sentence

    def slice(self, n):
        """n corpus tokens; the first one opens a word."""
        if n <= 0:
            return self.tokens[:0]
        at = int(self.rng.integers(len(self.tokens) - n - 200))
        at += int(np.argmax(self.opens_word[self.tokens[at:at + 200]]))
        return self.tokens[at:at + n]

    # -------------------------------------------------- rows

    def join(self, parts):
        """parts: strings (no loss) and id arrays (text); neighbouring strings are encoded together."""
        ids, cls, text = [], [], ""
        for n, part in enumerate(parts):
            if isinstance(part, str):
                text += part
                following = parts[n + 1] if n + 1 < len(parts) else ""
                if not isinstance(following, str) and len(following):
                    new = self.encode(text)
                    ids += new
                    cls += [NONE] * len(new)
                    text = ""
                continue
            a, b = 0, len(part)
            before, after = (parts[n - 1] if n else None), (parts[n + 1] if n + 1 < len(parts) else None)
            if isinstance(before, str) and before.endswith("\n"):
                while a < b and self.newline[part[a]]:
                    a += 1
            if isinstance(after, str) and after.startswith("\n"):
                while b > a and self.newline[part[b - 1]]:
                    b -= 1
            ids += part[a:b].tolist()
            cls += [TEXT] * (b - a)
        new = self.encode(text) if text else []
        return ids + new, cls + [NONE] * len(new)

    def niah(self, size):
        """One example of at most about `size` tokens, <bos> and <eos> included."""
        rng = self.rng
        sentence, question, kind = self.needle()
        twice = size > 500 and self.chance(0.12)
        others = []
        if self.chance(0.35):
            for _ in range(int(rng.integers(1, 5))):
                other = self.needle(kind if self.chance(0.7) else None)
                if other[1] != question:
                    others.append(other[0])
        seat, answer = self.seat(sentence)
        inserts = [(seat, True)] + [(self.seat(o)[0], False) for o in others]
        tail = f"\n\nQUESTION: {question}"
        answer_ids = self.encode(answer) + [EOS]
        cue = self.encode(CUE)

        def cost():
            per_copy = sum(len(self.encode(s)) for s, _ in inserts) + len(self.encode("CONTEXT: " + tail)) + 1
            return 1 + per_copy * (2 if twice else 1) + len(cue) + len(answer_ids)
        spare = size - cost()
        while spare < 24 and len(inserts) > 1:
            inserts.pop()
            spare = size - cost()
        if spare < 8:
            return None
        context = self.slice(spare // 2 if twice else spare)
        n, places = len(context), []
        for seat_text, main in inserts:
            r = rng.random()
            if r < 0.15 and main:
                cut = 0
            elif r < 0.32 and main:
                cut = n
            else:
                cut = int(rng.integers(n + 1))
                if self.chance(0.7):
                    stops = np.flatnonzero(self.full_stop[context[:cut]])
                    cut = int(stops[-1]) + 1 if len(stops) else 0
            places.append((cut, seat_text))
        order = sorted(range(len(places)), key=lambda i: (places[i][0], rng.random()))
        parts, at = [], 0
        for i in order:
            cut, seat_text = places[i]
            if cut > at:
                parts.append(context[at:cut])
                at = cut
            parts.append(seat_text)
        if at < n:
            parts.append(context[at:])
        if isinstance(parts[0], str):
            head = "CONTEXT:" if parts[0][0] == " " else "CONTEXT: "
        else:
            head = "CONTEXT:"           # the text's first token brings its own space
        ids, cls = self.join([head, *parts, tail])
        if twice:
            first_ids, first_cls = self.join([head, *parts, tail + "\n\n"])
            ids, cls = first_ids + ids, first_cls + [NONE] * len(ids)
        ids = [BOS] + ids + cue + answer_ids
        cls = [NONE] + cls + [NONE] * len(cue) + [ANSWER] * len(answer_ids)
        return ids, cls

    def copying(self, size):
        """Segments, a gap of text, the same segments."""
        rng, ids, cls = self.rng, [BOS], [NONE]
        while len(ids) < size:
            n = int(rng.integers(6, 129))
            if self.chance(0.5):
                segment, first = rng.integers(260, self.tok.get_vocab_size(), n).tolist(), NONE
            else:
                segment, first = self.slice(n).tolist(), TEXT
            gap = self.slice(int(rng.integers(0, max(1, min(size - 2 * n, 2000))))).tolist()
            ids += segment + gap + segment
            cls += [first] * n + [TEXT] * len(gap) + [NONE] * 2 + [COPY] * (n - 2)
        return ids, cls

    def row(self, T, progress):
        size, r = T + 1, self.rng.random()
        copies = 0.30 - 0.24 * min(1.0, progress / 0.5)
        text = 0.20 + 0.08 * min(1.0, progress / 0.5)
        ids, cls = [], []
        if r < copies:
            ids, cls = self.copying(size)
        elif r > copies + text:
            want = size if self.chance(0.7) else int(size * self.rng.uniform(0.3, 1))
            made = self.niah(want)
            if made:
                ids, cls = made
            left = size - len(ids)
            if left > 150 and self.chance(0.5):
                made = self.niah(left)
                if made:
                    ids, cls = ids + made[0], cls + made[1]
        left = size - len(ids)
        if left > 0:
            ids, cls = ids + [BOS] + self.slice(left - 1).tolist(), cls + [NONE] + [TEXT] * (left - 1)
        return ids[:size], cls[:size]

    def batch(self, tokens, progress, length=None):
        """(ids uint16 [B, T + 1], classes uint8 [B, T + 1]) with B * T = tokens."""
        T = length or curriculum(progress, self.rng)
        rows = [self.row(T, progress) for _ in range(tokens // T)]
        return np.array([r[0] for r in rows], np.uint16), np.array([r[1] for r in rows], np.uint8)


def load(work, model, seed):
    with open(os.path.join(work, "pools.json")) as f:
        pools = json.load(f)
    tokens = np.load(os.path.join(work, "tokens.npy"), mmap_mode="r")
    return RowMaker(tokens, pools, Tokenizer.from_file(os.path.join(model, "tokenizer.json")), np.random.default_rng(seed))


def _work(work, model, seed, tokens, length, progress, queue):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    maker = load(work, model, seed)
    while True:
        queue.put(maker.batch(tokens, progress.value, length))


class Feed:
    """Worker processes that fill a queue with batches; `progress` (0..1) steers lengths and mixture."""

    def __init__(self, work, model, seed, tokens, workers, length=None):
        ctx = multiprocessing.get_context("spawn")
        self.progress, self.queue = ctx.Value("d", 0.0), ctx.Queue(maxsize=3 * workers)
        self.processes = [ctx.Process(target=_work, daemon=True, args=(work, model, (seed, i), tokens, length, self.progress, self.queue))
                          for i in range(workers)]
        for p in self.processes:
            p.start()

    def get(self):
        return self.queue.get()

    def close(self):
        for p in self.processes:
            p.terminate()


def _work_in_order(work, model, seed, tokens, steps, spread, first, stride, queue):
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    maker = load(work, model, seed)
    for step in range(first, steps, stride):
        maker.rng = np.random.default_rng((seed, step))
        progress = step / steps
        queue.put(maker.batch(tokens, 0.61 + 0.39 * progress if spread else progress))


class OrderedFeed:
    """The batches of a stage of `steps` steps from step `start` on, always the same for a seed: batch n is drawn from (seed, n) alone,
    whatever the number of workers. `spread`: all lengths from the first step."""

    def __init__(self, work, model, seed, tokens, workers, steps, spread=False, start=0):
        ctx = multiprocessing.get_context("spawn")
        self.queues, self.step = [ctx.Queue(maxsize=3) for _ in range(workers)], 0
        self.processes = [ctx.Process(target=_work_in_order, daemon=True,
                                      args=(work, model, seed, tokens, steps, spread, start + i, workers, self.queues[i])) for i in range(workers)]
        for p in self.processes:
            p.start()

    def get(self):
        """The next batch (ids, classes)."""
        batch = self.queues[self.step % len(self.queues)].get()
        self.step += 1
        return batch

    def close(self):
        for p in self.processes:
            p.terminate()
