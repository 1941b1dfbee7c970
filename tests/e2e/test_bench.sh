# test_bench.sh - `cortado bench` on the demonstration model: one JSON object whose numbers can be true, a table of
# 80 columns, and one line for wrong usage.
. "$(dirname "$0")/check.sh"

expect 2 'did you mean --prefill?' "$cortado" bench --prefil 5
expect 2 '--prefill: expected 1 to 8 numbers from 1 to 1048576' "$cortado" bench --prefill 0
expect 2 '--rows: expected 1 to 8 numbers from 1 to 1024' "$cortado" bench --rows 1,2,3,4,5,6,7,8,9
expect 2 '--rows: expected integers' "$cortado" bench --rows x
expect 2 '--repeat: expected an integer from 1 to 11' "$cortado" bench --repeat 12
expect 2 '--only: expected ops|model' "$cortado" bench --only some
expect 1 'nowhere' "$cortado" bench -m "$tmp/nowhere" --repeat 1

"$cortado" bench --json -m models/griffin-demo --prefill 65 --rows 1,3 --repeat 1 >"$tmp/json" 2>"$tmp/err" ||
    fail "bench --json: $(head -c 300 "$tmp/err")"
[ "$(wc -l <"$tmp/json")" = 1 ] || fail 'not exactly one line of JSON'
python3 - "$tmp/json" <<'PYTHON' || fail 'the JSON'
import json, sys

def positive(*values):
    assert all(isinstance(v, (int, float)) and v > 0 for v in values), values

found = json.load(open(sys.argv[1]))
machine = found["machine"]
positive(machine["read_gb_s"], machine["read_gb_s_one_thread"], machine["f32_gflop_s"], machine["threads"])
assert (machine["bf16_gflop_s"] is not None) == (machine["class"] == "cpu-amx"), machine
(model,) = found["models"]
positive(model["start_to_first_token_ms"], model["weight_bytes"], model["parameters"])
kinds = [(s["step"], s["rows"], s["tokens"], s["cache_tokens"], s["own_keys"]) for s in model["steps"]]
assert kinds == [("prefill", 1, 65, 0, False), ("decode", 1, 1, 1000, False), ("decode", 1, 1, 2048, False),
                 ("decode", 3, 3, 1000, False), ("decode", 3, 3, 1000, True)], kinds
for step in model["steps"]:
    positive(step["ms"], step["tokens_per_s"], step["gflop_s"], step["least_ms"], step["state_bytes"])
    assert len(step["all_ms"]) == (1 if step["step"] == "prefill" else 2)
    names = {op["op"] for op in step["operations"]}
    assert names >= {"matmul", "products", "attention", "rglru", "gated_mlp", "logits", "rms_norm", "embed"}, names
    for op in step["operations"]:
        positive(op["ms_a_call"], op["calls_a_step"], op["share_of_limit"])
    # What the operations take is within what the step takes.
    inside = sum(op["ms_a_call"] * op["calls_a_step"] for op in step["operations"])
    assert inside < 1.05 * max(step["all_ms"]), (inside, step["all_ms"])
# The products of a prefill are the arithmetic of its parameters: 2 a parameter and token, but for the
# embedding (looked up), whose table meets the last token alone, as the last feed-forward does, the gates
# (inside rglru), and the vectors.
prefill = model["steps"][0]
products = sum(op["flop"] * op["calls_a_step"] for op in prefill["operations"]
               if op["op"] in ("matmul", "products", "gated_mlp") and op["tokens"] == 65)
table, last, gates = 4096 * 256, 3 * 256 * 384, 8 * 2 * 256 * 32
assert 0.98 < products / (2 * 65 * (model["parameters"] - table - last - gates)) <= 1, products
forked, own = model["steps"][3:]
assert own["state_bytes"] > forked["state_bytes"]
PYTHON

"$cortado" bench --only ops --prefill 65 --rows 1 --repeat 1 >"$tmp/table" || fail 'bench'
awk 'length > 80 {exit 1}' "$tmp/table" || fail "the table is wider than 80 columns: $(awk 'length > 80' "$tmp/table" | head -2)"
grep -q '^  attention ' "$tmp/table" || fail 'no attention in the table'
"$cortado" bench --only model --prefill 65 --rows 1,64 --repeat 1 --compute f32 >"$tmp/table" || fail 'bench --compute f32'
awk 'length > 80 {exit 1}' "$tmp/table" || fail 'the table of steps is wider than 80 columns'
grep -q '^  decode 1 row ' "$tmp/table" || fail 'no decode in the table'
finish
