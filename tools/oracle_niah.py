#!/usr/bin/env python3
"""The needle-in-a-haystack golden of tests/unit/task/niah, made with the `tokenizers` library.

    tools/oracle_niah.py            writes the tokenizer and golden.jsonl into that folder

The tokenizer is a small one of Gemma's kind (blanks as U+2581, no pre-tokenizer, byte fallback,
BOS), trained on the project's own haystack. The builder below is written from the description in
docs/semantics.md, without looking at the C one, and is a test oracle only.
"""
import json
import pathlib

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "tests/unit/task/niah"
NEEDLE = ("\nThe best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a "
          "sunny day.\n")
QUESTION = "What is the best thing to do in San Francisco?"


def make_tokenizer(path):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False,
                                  special_tokens=special + [f"<0x{i:02X}>" for i in range(256)])
    essays = sorted((ROOT / "data/haystack").glob("[0-9]*.txt"))
    tokenizer.train_from_iterator((p.read_text() for p in essays), trainer)
    data = json.loads(tokenizer.to_str())
    data["pre_tokenizer"] = None
    # The byte tokens were "special" only to get their ids; Gemma's are ordinary vocabulary.
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] in special]
    data["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"}]}
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [bos, {"Sequence": {"id": "A", "type_id": 0}},
                 {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}}
    path.write_text(json.dumps(data, separators=(",", ":")))
    path.with_name("tokenizer_config.json").write_text(
        '{"bos_token":"<bos>","eos_token":"<eos>","chat_template":"gemma"}')
    return Tokenizer.from_file(str(path))


def build(tok, text, lengths_max, case):
    def encode(s):
        return tok.encode(s, add_special_tokens=False).ids

    context = text
    while len(tok.encode(context).ids) < lengths_max:
        context += text
    ids = encode(context)
    if len(ids) > case["length"]:
        context = tok.decode(ids[:case["length"]], skip_special_tokens=False)
    ids, needle = encode(context), encode(case["needle"])
    room = case["length"] - case["buffer"]
    if len(ids) + len(needle) > room:
        ids = ids[:room - len(needle)]
    if case["depth"] == 100:
        ids = ids + needle
    else:
        cut = int(len(ids) * (case["depth"] / 100))
        while ids[:cut] and ids[cut - 1] not in encode("."):
            cut -= 1
        ids = ids[:cut] + needle + ids[cut:]
    prompt = "CONTEXT: " + tok.decode(ids) + "\n\nQUESTION: " + case["question"]
    if case["read_twice"]:
        prompt = prompt + "\n\n" + prompt
    if case["template"] == "base":
        return prompt + "\n\nANSWER: Here is the most relevant sentence in the context: "
    prompt += " Output the most relevant sentence in the context, word by word!"
    return [{"role": "user", "content": prompt}]


def feed(content):
    """The text that is encoded, with BOS: for a message, what Gemma's chat template makes of it."""
    if isinstance(content, list):
        message = content[0]["content"].strip()
        content = f"<start_of_turn>user\n{message}<end_of_turn>\n<start_of_turn>model\n"
    return content


def spans(tok, prompt, needle):
    """Token spans by characters, and the published code's (or None)."""
    fed, core = tok.encode(prompt), needle.strip()
    found, start = [], prompt.find(core)
    while start >= 0:
        stop = start + len(core)
        hit = [i for i, (b, e) in enumerate(fed.offsets) if b < stop and e > start and b < e]
        if found and found[-1][1] > hit[0]:  # copies that share a token are one span
            found[-1][1] = hit[-1] + 1
        else:
            found.append([hit[0], hit[-1] + 1])
        start = prompt.find(core, stop)
    ids = tok.encode(prompt, add_special_tokens=False).ids
    part = tok.encode(needle, add_special_tokens=False).ids[1:-1]
    match = next((i for i in range(len(ids) - len(part) + 1) if part and ids[i:i + len(part)] == part),
                 None)
    return fed.ids, found, match if match is None else [match, match + len(part)]


def main():
    tok = make_tokenizer(OUT / "tokenizer.json")
    essays = ["data/haystack/01-how-bread-rises.txt", "data/haystack/02-tide-tables.txt"]
    short = ["tests/unit/task/niah/short.txt"]
    cases = [dict(haystack=h, length=length, depth=depth, read_twice=twice, template=template,
                  buffer=buffer, needle=needle, question=QUESTION)
             for h, needle, template, twice, buffer, grid in (
                 (essays, NEEDLE, "base", False, 20, [(97, 0), (97, 100), (257, 0), (257, 11),
                                                     (257, 33), (257, 67), (257, 99)]),
                 (essays, NEEDLE.replace("\n", "\n ", 1), "base", True, 33, [(129, 0), (129, 50)]),
                 (essays, NEEDLE, "instruct", False, 20, [(129, 50)]),
                 (essays, NEEDLE, "instruct", True, 20, [(129, 100)]),
                 (essays, "4471", "base", True, 1, [(63, 44), (64, 100), (65, 78)]),
                 (short, "\u00a0Caf\u00e9 \U0001f95e: 12 \u20ac.\u3000", "base", False, 0,
                  [(65, 0), (66, 50), (67, 65), (68, 66), (69, 67), (300, 90), (301, 100)]),
                 # The cut moves through characters of several byte tokens.
                 (short, "e", "base", False, 0, [(n, 100) for n in range(12, 31)]),
             ) for length, depth in grid]
    with open(OUT / "golden.jsonl", "w", encoding="ascii") as out:
        for case in cases:
            text = "".join(open(ROOT / name, encoding="utf-8").read() for name in case["haystack"])
            content = build(tok, text, 301, case)
            case["file"] = json.dumps({
                "model": "a \"model\"", "tokenizer": "Tiny", "context_length": case["length"],
                "depth_percent": case["depth"], "needle": case["needle"],
                "retrieval_question": case["question"], "content": content}, indent=2)
            ids, case["spans"], case["reference"] = spans(tok, feed(content), case["needle"])
            case["n_ids"] = len(ids)
            out.write(json.dumps(case, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
