# test_jamba.sh - Jamba on the command line: synth, inspect, generate, chat, and a study, from a clone alone.
. "$(dirname "$0")/check.sh"
tiny=tests/golden/tiny-jamba
field() {
    python3 -c "import json, sys; a = json.load(open(sys.argv[1])); print($2)" "$1"
}

# Random weights are the same for the same seed, and the model is told from others by its hash.
for seed in 1 1 2; do
    "$cortado" synth --config $tiny/config.json --seed $seed -o "$tmp/random" >"$tmp/out" || fail 'synth'
    "$cortado" inspect --json "$tmp/random" >"$tmp/inspect.json" || fail 'inspect of random weights'
    field "$tmp/inspect.json" 'a["weights_hash"]' >>"$tmp/hashes"
done
[ "$(uniq "$tmp/hashes" | wc -l)" = 2 ] || fail "hashes: $(cat "$tmp/hashes")"

# inspect says what a model needs before it reads the weights.
"$cortado" inspect --no-read --tokens 1000 $tiny >"$tmp/out" || fail 'inspect --no-read'
for line in '^experts  *4, of which a token takes 2' '^window  *all tokens' '^state, 1000 tokens ' '^memory ' '^fits '; do
    grep -q "$line" "$tmp/out" || fail "no $line in: $(cat "$tmp/out")"
done
grep -q '^weights hash' "$tmp/out" && fail 'weights were read'
"$cortado" inspect --no-read --json --tokens 65 $tiny >"$tmp/inspect.json" || fail 'inspect --json'
[ "$(field "$tmp/inspect.json" 'a["state_bytes"] - a["state_bytes_fixed"] == 2 * a["state_bytes_per_block"]')" = True ] ||
    fail 'state_bytes'
[ "$(field "$tmp/inspect.json" 'a["weights_hash"]')" = None ] || fail 'a hash without reading'

# One token more: its heads and edits act on the attention layers alone.
"$cortado" generate -m $tiny --threads 1 --prompt-ids 2,5,9,11 -n 3 --ignore-eos --keep-heads 1 \
    --stages prefill+generation --weights-generation omit --needle-positions 1-2 --json >"$tmp/out" ||
    fail 'generate'
[ "$(field "$tmp/out" 'a["audit"]["prefill"]["rows"], a["audit"]["generation"]["edit_rows"]')" = '8 4' ] ||
    fail "audit: $(cat "$tmp/out")"
expect 1 'keep' "$cortado" generate -m $tiny --threads 1 --prompt-ids 2,5 --keep-heads 5

# A chat template by its family's name; another one is refused with how to name one.
mkdir "$tmp/chat"
cp $tiny/config.json $tiny/model.safetensors tests/data/letters/tokenizer.json "$tmp/chat/"
"$cortado" tokenize --tokenizer "$tmp/chat" - <<<'a' >/dev/null || fail 'tokenize'
expect 1 'expected one of a known family (gemma, jamba), got none' \
    "$cortado" generate -m "$tmp/chat" --threads 1 --chat -p 'a' -n 1
echo '{"chat_template": "jamba"}' >"$tmp/chat/tokenizer_config.json"
printf a | "$cortado" tokenize --tokenizer "$tmp/chat" --chat --ids >"$tmp/first" || fail 'tokenize --chat'
printf '%s' '<|bom|><|system|> <|eom|><|bom|><|user|> a<|eom|><|bom|><|assistant|>' |
    "$cortado" tokenize --tokenizer "$tmp/chat" --ids >"$tmp/second"
cmp "$tmp/first" "$tmp/second" || fail 'the message is not in its template'
expect 2 '--chat: expected a prompt as text' "$cortado" generate -m $tiny --chat --prompt-ids 2

# A study on it, with instruct prompts.
mkdir "$tmp/model"
cp "$tmp/chat"/* "$tmp/model/"
for i in $(seq 1 60); do
    printf 'Sentence %d tells of tea, of rain and of "quoted" ships. ' "$i"
done >"$tmp/essay.txt"
cat >"$tmp/study.yaml" <<'YAML'
study: jamba
model: model
task:
  niah:
    haystack: [essay.txt]
    needle: "\nTea is kept in the blue tin.\n"
    question: Where is tea?
    template: instruct
    scoring: binary
    lengths: [300]
    depths: [0, 50]
generate: {max_new_tokens: 3, ignore_eos: true}
interventions:
  - heads: {keep: [0, 4], metric: entropy, stages: generation}
  - weights: {generation: [omit]}
YAML
"$cortado" run "$tmp/study.yaml" --model-root "$tmp" --threads 1 --out "$tmp/run" >"$tmp/out" 2>"$tmp/err" ||
    fail "run: $(cat "$tmp/err")"
"$cortado" export "$tmp/run" --format jsonl >"$tmp/cells"
[ "$(wc -l <"$tmp/cells")" = 6 ] || fail "cells: $(wc -l <"$tmp/cells")"
grep -q '"status":"done"' "$tmp/cells" || fail "no cell is done: $(head -1 "$tmp/cells")"
finish
