# study.sh - a study on the small golden model, for the tests of `cortado run`; sourced after check.sh.
# Its answers mean nothing; what is tested is that they are the same however a run was cut.
[ -f tests/golden/tiny-griffin/model.safetensors ] || {
    echo "SKIP: tests/golden/tiny-griffin is missing"
    exit 77
}
mkdir "$tmp/model"
cp tests/golden/tiny-griffin/config.json tests/golden/tiny-griffin/model.safetensors \
    tests/data/letters/tokenizer.json "$tmp/model/"
cat >"$tmp/study.yaml" <<'YAML'
study: letters
model: model
task:
  niah:
    haystack: [essay.txt]
    needle: "\nTea is kept in the blue tin.\n"
    question: Where is tea?
    scoring: binary
    lengths: {from: 300, to: 1000, count: 4}
    depths: {from: 0, to: 100, count: 5}
generate: {max_new_tokens: 16, ignore_eos: true}
interventions:
  - heads: {keep: {from: 0, to: 3}, metric: [entropy, l2], stages: [generation, prefill+generation]}
  - weights: {generation: [keep, "null", only, binary, omit]}
YAML
for i in $(seq 1 60); do
    printf 'Sentence %d tells of tea, of rain and of "quoted" ships. ' "$i"
done >"$tmp/essay.txt"

# outcomes DIR: the run's cells without the columns of time, which come last.
outcomes() {
    "$cortado" export "$1" --format jsonl | sed 's/,"prefill_ms":.*//'
}
# same DIR DIR: both runs have the same outcomes.
same() {
    outcomes "$1" >"$tmp/first"
    outcomes "$2" >"$tmp/second"
    [ -s "$tmp/first" ] || fail "no outcomes in $1"
    cmp -s "$tmp/first" "$tmp/second" ||
        fail "outcomes differ: $(wc -l <"$tmp/first") and $(wc -l <"$tmp/second") cells"
    [ -z "$(sort "$tmp/second" | uniq -d)" ] || fail 'a cell is stored twice'
}
