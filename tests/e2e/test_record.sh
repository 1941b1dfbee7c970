# test_record.sh - `cortado generate --record`: the file as Python's safetensors library reads it, and what is refused.
. "$(dirname "$0")/check.sh"
model=models/griffin-demo
device=${CORTADO_TEST_DEVICE:-cpu} # as in tests/test.h
needle='The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.'
prompt=$'CONTEXT: \n'"$needle"$'\nShips wait for the tide.\n\nQUESTION: What is the best thing to do in San Francisco?\n\n'
prompt+='ANSWER: Here is the most relevant sentence in the context: '
record() {
    "$cortado" generate -m $model --device "$device" --threads 1 --compute f32 -p "$prompt" --needle "$needle" "$@"
}

# The answer is that of a run without a recorder.
record >"$tmp/plain" || fail 'without a recorder'
record --weights-generation omit --keep-heads 3 >"$tmp/plain_omit" || fail 'omit without a recorder'
record --record "$tmp/last.safetensors" >"$tmp/out" || fail '--record'
cmp "$tmp/plain" "$tmp/out" || fail 'a recorder changed the answer'
record --record "$tmp/all.safetensors" --record-stages prefill+generation --record-steps all \
    --weights-generation omit --keep-heads 3 >"$tmp/out" || fail 'all rows'
cmp "$tmp/plain_omit" "$tmp/out" || fail 'a recorder changed the answer under omit'
record --record "$tmp/light.safetensors" --record-what light --record-layers 5 --record-steps all >"$tmp/out" || fail light

# What is refused, and that nothing is written then.
refuse() {
    expect "$1" "$2" "$cortado" generate -m $model --threads 1 -p "$prompt" --record "$tmp/no.safetensors" "${@:3}"
    [ -e "$tmp/no.safetensors" ] && fail "a file beside an error: ${*:3}"
}
refuse 2 'did you mean "weights"' --record-what weight
refuse 1 'record fewer steps' --record-stages prefill --record-steps all --record-limit 1
refuse 1 'expected attention layers' --record-layers 3
expect 1 'without' "$cortado" generate -m models/mamba-demo --threads 1 -p x --record "$tmp/no.safetensors"
[ -e "$tmp/no.safetensors" ] && fail 'a recording of a model without attention'
expect 2 'expected --record FILE' "$cortado" generate -m $model -p x --record-steps all
# A study: files named by cell, for the chosen cells alone; the outcomes are those of the study without `record`; what is
# missing is made again, what is there is not.
study() {
    cat <<YAML
study: recorded
model: griffin-demo
task:
  niah:
    haystack: $PWD/data/haystack
    needle: "\n$needle\n"
    question: What is the best thing to do in San Francisco?
    lengths: [260, 330]
    depths: [0, 50]
generate: {max_new_tokens: 8}
interventions:
  - heads: {keep: 3, metric: entropy, stages: prefill+generation}
  - heads: none
  - weights: {generation: omit}
YAML
}
run() {
    "$cortado" run "$tmp/$1.yaml" --model-root models --out "$tmp/$1" --device "$device" --compute f32 "${@:2}"
}
study >"$tmp/off.yaml"
{
    study
    echo 'record: {what: [weights, light], stages: prefill+generation, lengths: 330, interventions: [2, 3]}'
} >"$tmp/on.yaml"
run on --dry-run >"$tmp/out" || fail '--dry-run'
grep -q '^recordings *4 files, ' "$tmp/out" || fail "no estimate: $(cat "$tmp/out")"
[ -e "$tmp/on" ] && fail '--dry-run wrote something'
run off >/dev/null || fail 'the study without record'
run on --limit 11 >/dev/null || fail 'the study with record, in part'
run on >/dev/null || fail 'the study with record'
[ -e "$tmp/off/recordings" ] && fail 'recordings that nobody asked for'
for name in on off; do
    "$cortado" export "$tmp/$name" --format csv | python3 -c '
import csv, sys
for r in csv.DictReader(sys.stdin):
    print([v for k, v in r.items() if not k.endswith("_ms") and "time" not in k and k != "finished"])' >"$tmp/$name.csv"
done
cmp "$tmp/on.csv" "$tmp/off.csv" || fail 'a recorded study has other outcomes'
ls "$tmp/on/recordings" >"$tmp/names"
[ "$(wc -l <"$tmp/names")" = 4 ] || fail "not four recordings: $(cat "$tmp/names")"
for ending in svg pdf png csv; do [ -s "$tmp/on/figures/attention_weights.$ending" ] || fail "no attention_weights.$ending"; done
[ -e "$tmp/off/figures/attention_weights.svg" ] && fail 'weights drawn that were not recorded'
python3 - "$tmp/on" <<'PY' || fail 'recordings are not named by the keys of their cells'
import os, sqlite3, sys
rows = sqlite3.connect(f"file:{sys.argv[1]}/run.sqlite?mode=ro", uri=True).execute(
    "SELECT key FROM cell WHERE length = 330 AND (weights_generation = 'omit' OR keep_heads < 0)")
assert sorted(os.listdir(sys.argv[1] + "/recordings")) == sorted(f"{k}.safetensors" for k, in rows)
PY
first="$tmp/on/recordings/$(head -1 "$tmp/names")"
cp "$first" "$tmp/first"
second="$tmp/on/recordings/$(tail -1 "$tmp/names")"
touch -d '2001-01-01' "$second"
rm "$first"
run on >"$tmp/out" || fail 'again'
grep -q '1 done now, 11 stored before' "$tmp/out" || fail "not one cell: $(grep cells "$tmp/out")"
cmp "$first" "$tmp/first" || fail 'a recording made again differs'
[ "$(date -r "$second" +%Y)" = 2001 ] || fail 'a recording that was there was made again'
{
    study
    echo 'record: {what: light, layers: [2, 3]}'
} >"$tmp/layers.yaml"
expect 1 'layers.yaml, line 15)' "$cortado" run "$tmp/layers.yaml" --model-root models --out "$tmp/layers"
{
    study
    echo 'record: {what: weights, stages: prefill, steps: all, limit_mib: 10}'
} >"$tmp/large.yaml"
expect 1 'expected at most 10 MiB of recordings' "$cortado" run "$tmp/large.yaml" --model-root models --out "$tmp/large"
# One alone over the limit is no failure of its cell, but the study's.
sed 's/limit_mib: 10/limit_mib: 1/' "$tmp/large.yaml" >"$tmp/larger.yaml"
expect 1 'expected at most 1 MiB of recordings, got more with 1 cells' \
    "$cortado" run "$tmp/larger.yaml" --model-root models --out "$tmp/large"
expect 1 'larger.yaml, line 15)' "$cortado" run "$tmp/larger.yaml" --model-root models --dry-run

# What the files say, read with the library from PyPI: tools/oracles asks for it.
[ -n "${CORTADO_ORACLES:-}" ] || finish
python3 - "$tmp" <<'PY' || fail 'the files do not say what they should'
import sys
import numpy as np
from safetensors.numpy import load_file
last, everything, light = (load_file(f"{sys.argv[1]}/{n}.safetensors") for n in ("last", "all", "light"))
n = len(everything["ids"])
(begin, end), = everything["needle"]
steps, prompt = len(everything["generation.positions"]), len(everything["prefill.positions"])
assert prompt + steps == n and 0 < begin < end < prompt, (prompt, steps, n)
for stage, rows in (("prefill", prompt), ("generation", steps)):
    before, after = everything[stage + ".weights_before"], everything[stage + ".weights_after"]
    position = everything[stage + ".positions"]
    assert before.shape == (rows, 3, 8, prompt if stage == "prefill" else n), before.shape
    assert abs(before.sum(-1) - 1).max() < 1e-5
    for row, p in zip(before, position):  # causal
        assert (row[..., p + 1:] == 0).all()
    needle = before[..., begin:end].sum(-1)
    assert abs(needle - everything[stage + ".needle_before"]).max() < 1e-5
    assert (before.argmax(-1) == everything[stage + ".peak"]).all()
    bits = before.astype("f8")
    bits = -(bits * np.log2(np.where(bits > 0, bits, 1))).sum(-1)
    assert abs(bits - everything[stage + ".entropy_bits"]).max() < 1e-3
    kept = everything[stage + ".heads_kept"]
    if stage == "generation":  # omit: nothing on the needle, all else as it was; three heads of lowest entropy
        assert (after[..., begin:end] == 0).all() and (after[..., end:] == before[..., end:]).all()
        assert (kept.sum(-1) == 3).all()
        assert (np.where(kept, everything["generation.entropy_bits"], -1).max(-1)
                <= np.where(kept, 99, everything["generation.entropy_bits"]).min(-1)).all()
    else:
        assert (after == before).all() and kept.all()
assert last["generation.weights_before"].shape[0] == 1
assert last["generation.positions"][0] == len(last["ids"]) - 1
assert list(light["layers"]) == [5] and not any("weights" in k or "heads" in k for k in light)
# The demo model answers right because some head looks at the needle.
assert light["generation.needle_before"].max() > 0.5
PY

finish
