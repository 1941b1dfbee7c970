# test_record.sh - `cortado generate --record`: the file as Python's safetensors library reads it, and what is refused.
. "$(dirname "$0")/check.sh"
model=models/griffin-demo
needle='The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.'
prompt=$'CONTEXT: \n'"$needle"$'\nShips wait for the tide.\n\nQUESTION: What is the best thing to do in San Francisco?\n\n'
prompt+='ANSWER: Here is the most relevant sentence in the context: '
record() {
    "$cortado" generate -m $model --threads 1 --compute f32 -p "$prompt" --needle "$needle" "$@"
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

python=python3
for other in "${CORTADO_ORACLE_PYTHON:-}" /opt/oracle/bin/python; do
    [ -x "$other" ] && python=$other
done
if ! $python -c 'import safetensors.numpy' 2>/dev/null; then
    echo 'SKIP: Python has no safetensors library'
    [ $failures = 0 ] && exit 77
    finish
fi
$python - "$tmp" <<'PY' || fail 'the files do not say what they should'
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

# What is refused, and that nothing is written then.
refuse() {
    expect "$1" "$2" "$cortado" generate -m $model --threads 1 -p "$prompt" --record "$tmp/no.safetensors" "${@:3}"
    [ -e "$tmp/no.safetensors" ] && fail "a file beside an error: ${*:3}"
}
refuse 2 'did you mean "weights"' --record-what weight
refuse 1 'record fewer steps' --record-stages prefill --record-steps all --record-limit 1
refuse 1 'expected attention layers' --record-layers 3
expect 2 'expected --record FILE' "$cortado" generate -m $model -p x --record-steps all
finish
