# test_random.sh - `--weights random:SEED` end to end: what a synth folder gives, without its files; the list of
# tensors; one line for what cannot be.
. "$(dirname "$0")/check.sh"

for model in tiny-griffin tiny-jamba; do
    mkdir "$tmp/$model"
    cp "tests/golden/$model/config.json" "$tmp/$model/"
    "$cortado" synth --config "$tmp/$model/config.json" --seed 7 -o "$tmp/$model-synth" >/dev/null || fail synth
    for place in "$tmp/$model --weights random:7" "$tmp/$model-synth"; do
        # shellcheck disable=SC2086
        "$cortado" generate -m $place --prompt-ids 1,5,9,33 -n 6 --ignore-eos \
            --save-logits "$tmp/$(basename "${place%% *}").st" >>"$tmp/ids" || fail "generate -m $place"
    done
    cmp "$tmp/$model.st" "$tmp/$model-synth.st" || fail "$model: random:7 is not what synth --seed 7 writes"
    "$cortado" inspect "$tmp/$model" --weights random:7 --tensors --json >"$tmp/json" || fail inspect
    "$cortado" inspect "$tmp/$model-synth" --json >"$tmp/json-synth" || fail inspect
    python3 - "$tmp/json" "$tmp/json-synth" "$tmp/$model-synth/model.safetensors" <<'PYTHON' || fail 'the list of tensors'
import json, math, struct, sys
mine, theirs = (json.load(open(path)) for path in sys.argv[1:3])
for key in ("parameters", "weight_bytes", "read_per_token_bytes", "dtype", "compute", "working_bytes"):
    assert mine[key] == theirs[key], key
assert mine["weights_hash"].startswith("random:7:bf16:")
file = open(sys.argv[3], "rb")
header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
header.pop("__metadata__", None)
listed = {t["name"]: t["shape"] for t in mine["tensors"]}
assert listed == {name: t["shape"] for name, t in header.items()}
assert sum(math.prod(shape) for shape in listed.values()) == mine["parameters"]
assert all(0 <= int(t["stream"]) < 1 << 64 and t["scale"] > 0 for t in mine["tensors"])
PYTHON
done

one="$tmp/tiny-griffin"
expect 2 'expected random:SEED' "$cortado" generate -m "$one" --weights random:x --prompt-ids 1 -n 1
expect 1 'expected tokenizer.json' "$cortado" generate -m "$one" --weights random:1 -p hello -n 1
expect 1 'model.safetensors' "$cortado" generate -m "$one" --prompt-ids 1 -n 1
expect 2 '--tensors: expected --json and --weights' "$cortado" inspect "$one" --tensors
finish
