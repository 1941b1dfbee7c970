# test_models.sh - a study of several models, whose prompts are read once and twice: the same cells as studies of one
# model and one reading each, however the run was cut; the report tells them apart and compares them.
. "$(dirname "$0")/check.sh"
. "$(dirname "$0")/study.sh"
cp -r "$tmp/model" "$tmp/other"
rm "$tmp/other/model.safetensors"
"$cortado" synth --config tests/golden/tiny-griffin/config.json --seed 7 --dtype f32 -o "$tmp/made" >/dev/null 2>"$tmp/err" || fail "synth: $(cat "$tmp/err")"
cp "$tmp/made/model.safetensors" "$tmp/other/"
mkdir "$tmp/hybrid"
cp tests/golden/tiny-jamba/config.json tests/golden/tiny-jamba/model.safetensors tests/data/letters/tokenizer.json "$tmp/hybrid/"

# study MODEL READINGS NAME [MORE]: few prompts, all kinds of interventions.
study() {
    cat <<YAML
study: ${3:-several}
model: $1
task:
  niah:
    haystack: [essay.txt]
    needle: "\nTea is kept in the blue tin.\n"
    question: Where is tea?
    scoring: binary
    read_twice: $2
    lengths: [300, 420]
    depths: [0, 50, 100]
generate: {max_new_tokens: 24, ignore_eos: true}
interventions:
  - heads: {keep: {from: 0, to: 2}, metric: entropy, stages: [generation, prefill+generation]}
  - weights: {generation: [keep, only, omit]}
${4:-}
figures: [accuracy_by_heads]
YAML
}
run() {
    "$cortado" run "$tmp/$1.yaml" --threads 1 --out "$tmp/$1" "${@:2}"
}
must() {
    run "$@" >"$tmp/log" 2>"$tmp/err" || fail "run $*: $(cat "$tmp/err")"
}
all='[model, other, hybrid]'
study "$all" '[false, true]' >"$tmp/several.yaml"
must several --dry-run
[ -e "$tmp/several" ] && fail 'a dry run wrote something'
grep -q '^cells  *324 ' "$tmp/log" || fail "not 3 models x 2 readings x 6 prompts x 9 versions: $(cat "$tmp/log")"
[ "$(grep -c '^model  ' "$tmp/log")" = 3 ] || fail "not three models: $(cat "$tmp/log")"
awk 'length > 80 {exit 1}' "$tmp/log" || fail "the plan is wider than 80 columns: $(cat "$tmp/log")"
plain() {
    sed -nE 's/^prefill +([0-9]+) tokens in a plain loop/\1/p' "$tmp/log"
}
tokens=$(plain)
must several
grep -q '^cells  *324 done now, 0 stored before, 0 failed, 0 left' "$tmp/log" || fail "$(cat "$tmp/log")"
awk 'length > 80 {exit 1}' <(sed '1,/^store/d; /^figures  /,$d' "$tmp/log") || fail "the table is wider than 80 columns: $(cat "$tmp/log")"
outcomes "$tmp/several" | sort >"$tmp/together"

# One by one: the same cells, keys and outcomes.
sum=0
for model in model other hybrid; do
    for twice in false true; do
        study $model $twice >"$tmp/$model-$twice.yaml"
        must $model-$twice --dry-run
        sum=$((sum + $(plain)))
        must $model-$twice
        outcomes "$tmp/$model-$twice"
    done
done | sort >"$tmp/apart"
[ "$(wc -l <"$tmp/apart")" = 324 ] || fail "$(wc -l <"$tmp/apart") cells one by one"
cmp "$tmp/together" "$tmp/apart" || fail 'together and one by one differ'
for model in model other hybrid; do
    [ "$(grep -c "\"model\":\"$model\",.*\"read_twice\":true" "$tmp/together")" = 54 ] || fail "$model: not 54 cells read twice"
done
[ "$(cut -d'"' -f8 "$tmp/together" | sort | uniq -c | awk '{print $1}' | tr '\n' ' ')" = '108 108 108 ' ] || fail 'not 108 cells a model'

# Cut by a limit within the second model, and by an interrupt, then whole; then nothing to do.
cp "$tmp/several.yaml" "$tmp/cut.yaml"
must cut --limit 150
grep -q '150 done now, 0 stored before, 0 failed, 174 left' "$tmp/log" || fail "limit: $(grep '^cells' "$tmp/log")"
[ "$(outcomes "$tmp/cut" | grep -c '"model":"other"')" = 42 ] || fail 'the limit did not end within the second model'
"$cortado" run "$tmp/cut.yaml" --threads 1 --out "$tmp/cut" >/dev/null 2>"$tmp/err" &
pid=$!
while kill -0 $pid 2>/dev/null && [ "$(outcomes "$tmp/cut" | wc -l)" -lt 151 ]; do sleep 0.01; done
kill -INT $pid 2>/dev/null
wait $pid
status=$?
[ $status = 130 ] || fail "exit $status instead of 130 after an interrupt: $(cat "$tmp/err")"
[ "$(outcomes "$tmp/cut" | wc -l)" -lt 324 ] || fail 'the run was over before the interrupt'
must cut
same "$tmp/several" "$tmp/cut"
must cut
grep -q '^cells  *0 done now, 324 stored before, 0 failed, 0 left' "$tmp/log" || fail "again: $(grep '^cells' "$tmp/log")"

# Model by model, in another order.
cp "$tmp/several.yaml" "$tmp/single.yaml"
for model in hybrid model other; do
    must single --model $model
    grep -q '^cells  *108 done now, 0 stored before, 0 failed, 0 left' "$tmp/log" || fail "--model $model: $(grep '^cells' "$tmp/log")"
done
same "$tmp/several" "$tmp/single"
expect 2 '--model: expected a model of the study, such as other, got othr (' run single --model othr

# The study changes: a model less, one reading less, and back. Only its own cells are shown, none is computed again.
shown() {
    study "$1" "$2" >"$tmp/cut.yaml"
    must cut
    grep -q "^cells  *0 done now, $3 stored before" "$tmp/log" || fail "$1 $2: $(grep '^cells' "$tmp/log")"
    [ "$(outcomes "$tmp/cut" | wc -l)" = "$3" ] || fail "$1 $2: $(outcomes "$tmp/cut" | wc -l) cells are shown"
}
shown '[hybrid, model]' '[false, true]' 216
shown other true 54
shown "$all" '[false, true]' 324
same "$tmp/several" "$tmp/cut"
# A folder that has another name: the same cells under it.
mv "$tmp/other" "$tmp/renamed"
shown '[model, renamed]' false 108
outcomes "$tmp/cut" | grep -q '"model":"other"' && fail 'a cell has the old name of its model'
mv "$tmp/renamed" "$tmp/other"

# Entries and templates of one model.
study "$all" false narrow '    models: [model, hybrid]
  - {heads: none, models: other}
record: {what: light, lengths: 300, models: hybrid}' >"$tmp/narrow.yaml"
must narrow
[ "$(outcomes "$tmp/narrow" | grep -c '"model":"other"')" = 42 ] || fail "entries of a model: $(outcomes "$tmp/narrow" | grep -c '"model":"other"')"
[ "$(find "$tmp/narrow/recordings" -name '*.safetensors' | wc -l)" = 27 ] || fail 'not 27 recordings of one model'

# What a later model cannot do ends the run before the first one has begun.
refused() {
    study "$1" false bad "${3:-}" >"$tmp/bad.yaml"
    expect 1 "$2" run bad
    [ -e "$tmp/bad/run.sqlite" ] && [ "$("$cortado" export "$tmp/bad" --format jsonl | wc -l)" != 0 ] && fail "cells beside an error: $1"
}
refused '[model, nowhere]' 'bad.yaml, line 2)'
refused '[model, other]' 'expected 0 to 3, the heads of model, got 4 (' '  - heads: {keep: 4, metric: l2, stages: generation}'
cp -r "$tmp/model" "$tmp/copy"
study '[model, copy]' false copies >"$tmp/copies.yaml"
expect 1 'expected different weights, got the same in model and copy' run copies
run copies --dry-run >/dev/null 2>&1 && fail 'a dry run took two models with the same weights'

# The report: one figure of all models, readings compared pair by pair, each model's provenance.
[ -s "$tmp/several/figures/accuracy_by_heads_overlay.svg" ] || fail 'no overlay of the models'
for model in model other hybrid; do
    [ "$(grep -c "^\"several\",\"$model\",.*\"keep\",\"keep\",\"base\",1," "$tmp/several/figures/accuracy_by_heads.csv")" = 7 ] ||
        fail "the figure does not have 2 stages x 3 k, and all heads, of $model read twice"
done
[ "$(grep -c '<dt>weights</dt>' "$tmp/several/report.html")" = 3 ] || fail 'not three models in the provenance'
[ "$(grep -c '^"the context read once",' "$tmp/several/figures/differences.csv")" = 27 ] || fail 'readings are not compared'
grep -q 'From the context read once, at the same k' "$tmp/several/report.html" || fail 'no comparison of readings on the page'
finish
