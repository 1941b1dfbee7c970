# test_places.sh - a model over several places gives what it gives on one, to the byte, recordings and stores
# included; devices that cannot go together are refused. Places of the host's memory stand for several GPUs.
. "$(dirname "$0")/check.sh"

# same MODEL OPTIONS...: the ids, text, logits, audit and recording of one place, of two, and of seven, some of which have
# attention alone or none.
seven=cpu+cpu+cpu+cpu+cpu+cpu+cpu
prompt='The best thing to do in San Francisco is eat a sandwich. What is the best thing to do?'
same() {
    local model=$1 device
    shift
    for device in cpu cpu+cpu $seven; do
        "$cortado" generate -m "$model" --threads 2 -p "$prompt" -n 12 --json --device $device \
            --save-logits "$tmp/$device.logits" "$@" ${record:+--record "$tmp/$device.safetensors"} >"$tmp/out" 2>"$tmp/err" ||
            fail "$model --device $device $*: $(cat "$tmp/err")"
        sed -e 's/"timing":{[^}]*},//' -e "s#$tmp/$device#RECORDING#" "$tmp/out" >"$tmp/$device"
    done
    grep -q '"ids":\[' "$tmp/cpu" || fail "no ids: $(cat "$tmp/cpu")"
    for device in cpu+cpu $seven; do
        cmp "$tmp/cpu" "$tmp/$device" || fail "$model $*: --device $device differs from cpu"
        cmp "$tmp/cpu.logits" "$tmp/$device.logits" || fail "$model $*: the logits of --device $device differ"
        [ -z "${record:-}" ] || cmp "$tmp/cpu.safetensors" "$tmp/$device.safetensors" ||
            fail "$model $*: the recording of --device $device differs"
    done
}
for model in models/griffin-demo models/jamba-demo; do
    same $model
    same $model --keep-heads 1 --stages prefill+generation --metric l2
    record=1 same $model --keep-heads 2 --record-stages prefill+generation --record-steps all
done
same models/mamba-demo # a place without attention is as good as any
same models/jamba-demo --weights random:7

# A study: the same cells in the store, with the same answers.
sed -e "s#\.\./\.\./data/haystack#$PWD/data/haystack#; s/lengths: .*/lengths: [677]/; s/depths: .*/depths: [0, 56]/" \
    -e 's/keep: {from: 0, to: \[48\]}/keep: [0, 4]/; s/stages: .*}/stages: generation}/' studies/demo/jamba-figure-3.2.yaml >"$tmp/study.yaml"
for device in cpu cpu+cpu; do
    "$cortado" run "$tmp/study.yaml" --model-root models --threads 2 --device $device --out "$tmp/run-$device" >"$tmp/out" 2>"$tmp/err" ||
        fail "run --device $device: $(tail -3 "$tmp/err")"
    "$cortado" export "$tmp/run-$device" --format jsonl | python3 -c 'import json, sys
for cell in map(json.loads, sys.stdin):
    print({k: v for k, v in cell.items() if not k.endswith("_ms") and "time" not in k and k not in ("finished", "started")})' | sort >"$tmp/cells-$device"
done
[ "$(wc -l <"$tmp/cells-cpu")" -ge 4 ] || fail "too few cells: $(cat "$tmp/cells-cpu")"
cmp "$tmp/cells-cpu" "$tmp/cells-cpu+cpu" || fail 'the cells of a run over two places differ'

# What lies where.
"$cortado" inspect --no-read --device cpu+cpu models/griffin-demo >"$tmp/out" || fail inspect
grep -q '^place 1, cpu  *layers 1 to [0-9]*, weights' "$tmp/out" && grep -q '^place 2, cpu  *layers [0-9]* to 11,' "$tmp/out" ||
    fail "inspect --device cpu+cpu: $(cat "$tmp/out")"
"$cortado" inspect --no-read models/griffin-demo | grep -q '^place' && fail 'one place is not worth a line'
"$cortado" inspect --no-read --json --device cpu+cpu models/jamba-demo | python3 -c 'import json, sys
m = json.load(sys.stdin)
for key in ("layers", "weight_bytes", "state_bytes_fixed", "state_bytes_per_block"):
    assert sum(p[key] for p in m["places"]) == m[key], key' || fail 'inspect --json: the places do not add up'

# Benchmarks run on them as well.
"$cortado" bench -m models/griffin-demo --only model --no-start --prefill 64 --rows 1 --cache 64 --repeat 1 --json \
    --device cpu+cpu >"$tmp/out" || fail 'bench --device cpu+cpu'

expect 2 'expected cpu, or cpu+cpu' "$cortado" generate -m models/griffin-demo --device cpu+ref -p x -n 1
expect 2 'expected cuda or cuda:N, or cuda:N+M' "$cortado" generate -m models/griffin-demo --device cuda:0+x -p x -n 1
expect 1 'at most as many parts as the model has layers, 11, got 12' "$cortado" generate -m models/griffin-demo -p x -n 1 \
    --device cpu+cpu+cpu+cpu+cpu+cpu+cpu+cpu+cpu+cpu+cpu+cpu
finish
