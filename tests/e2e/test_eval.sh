# test_eval.sh - cortado eval: prompts, tables, JSON; what a samples file has is not computed again; wrong use.
. "$(dirname "$0")/check.sh"
data=$tmp/glue
mkdir -p "$data/CoLA" "$data/RTE" "$tmp/mmlu/dev" "$tmp/mmlu/test"
for i in $(seq 40); do printf 'a\t%d\t\tThe %s cat sat on %d mats.\n' $((i % 2)) "$i" $((i * 7)); done >"$data/CoLA/dev.tsv"
printf 'index\tsentence1\tsentence2\tlabel\n0\tIt rains.\tIt is wet.\tentailment\n' >"$data/RTE/dev.tsv"
for i in 1 2 3 4 5; do echo "What is $i + $i?,$((i)),$((2 * i)),7,11,B"; done >"$tmp/mmlu/dev/anatomy_dev.csv"
for i in 1 2 3 4 5 6; do echo "What is $i + 3?,1,$((i + 3)),99,111,B"; done >"$tmp/mmlu/test/anatomy_test.csv"
glue() {
    "$cortado" eval -m models/griffin-demo --task glue --data "$data" --threads 1 "$@"
}

glue --samples "$tmp/whole" >"$tmp/table" 2>"$tmp/err" || fail "glue: $(cat "$tmp/err")"
grep -Eq '^cola +40 +[0-9.]+ +\+- +[0-9.]+ +-?[0-9.]+$' "$tmp/table" || fail "no row of cola: $(cat "$tmp/table")"
grep -Eq '^rte +1 +[0-9.]+ *$' "$tmp/table" || fail "no row of rte: $(cat "$tmp/table")"
awk 'length > 80 {exit 1}' "$tmp/table" || fail 'the table is wider than 80 columns'
[ "$(wc -l <"$tmp/whole")" = 41 ] || fail "not 41 samples: $(wc -l <"$tmp/whole")"

# Cut in the middle of a line, and in two halves: the same lines, and none twice.
head -c 3000 "$tmp/whole" >"$tmp/cut"
known=$(grep -c . <(head -n "$(wc -l <"$tmp/cut")" "$tmp/cut"))
glue --samples "$tmp/cut" --json >"$tmp/json" 2>"$tmp/err" || fail "resumed: $(cat "$tmp/err")"
diff <(sort "$tmp/whole") <(sort "$tmp/cut") >/dev/null || fail 'resumed samples differ from uninterrupted ones'
python3 - "$tmp/json" "$known" <<'PY' || fail "JSON: $(cat "$tmp/json")"
import json, sys
result = json.load(open(sys.argv[1]))
assert result["known_before"] == int(sys.argv[2]) > 3, result
assert result["subjects"]["cola"]["n"] == 40 and "mcc" in result["subjects"]["cola"], result
assert 0 < result["prefill_tokens"] <= result["prefill_tokens_plain"], result
PY
glue --limit 7 --subjects cola --samples "$tmp/few" >/dev/null 2>"$tmp/err" || fail "few: $(cat "$tmp/err")"
[ "$(wc -l <"$tmp/few")" = 7 ] && [ -z "$(grep -vxFf "$tmp/whole" "$tmp/few")" ] || fail 'fewer questions have other numbers'
glue --samples "$tmp/few" --keep-heads 2 --limit 7 --subjects cola >/dev/null 2>"$tmp/err" || fail "heads: $(cat "$tmp/err")"
[ "$(wc -l <"$tmp/few")" = 14 ] || fail 'another intervention did not add its own lines'

# Ctrl-C keeps what was answered.
"$cortado" eval -m models/griffin-demo --task glue --data "$data" --threads 1 --device ref --samples "$tmp/stopped" >"$tmp/out" 2>"$tmp/err" &
pid=$!
while kill -0 $pid 2>/dev/null && [ ! -s "$tmp/stopped" ]; do sleep 0.02; done
kill -INT $pid 2>/dev/null
wait $pid
status=$?
[ $status = 130 ] || fail "exit $status instead of 130: $(cat "$tmp/err")"
grep -q 'of 41 questions; the same command goes on from there' "$tmp/err" || fail "no word of going on: $(cat "$tmp/err")"

mmlu="eval --task mmlu --data $tmp/mmlu --subjects anatomy"
"$cortado" $mmlu -m models/jamba-demo >"$tmp/table" 2>"$tmp/err" || fail "mmlu: $(cat "$tmp/err")"
for name in anatomy stem mmlu; do grep -Eq "^$name +6 +[0-9.]+ +\+-" "$tmp/table" || fail "no row $name: $(cat "$tmp/table")"; done
"$cortado" $mmlu -m models/jamba-demo --json >"$tmp/json" 2>"$tmp/err" || fail "mmlu: $(cat "$tmp/err")"
python3 - "$tmp/json" <<'PY' || fail "JSON: $(cat "$tmp/json")"
import json, sys
result = json.load(open(sys.argv[1]))
assert result["groups"]["mmlu"] == result["groups"]["stem"] == result["subjects"]["anatomy"], result
assert 0 < result["prefill_tokens"] < result["prefill_tokens_plain"] / 2, result # the shots are shared
PY

# Prompts: no model is needed, and a template that refuses a system message does without.
"$cortado" $mmlu --dump-prompts "$tmp/prompts" >"$tmp/out" 2>"$tmp/err" || fail "prompts: $(cat "$tmp/err")"
python3 - "$tmp/prompts" <<'PY' || fail "prompts: $(head -c 300 "$tmp/prompts")"
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
assert len(lines) == 6 and lines[5]["doc_id"] == 5 and lines[0]["gold"] == 1
assert lines[0]["continuations"] == [" A", " B", " C", " D"] and "messages" not in lines[0]
assert lines[0]["context"].startswith("The following are multiple choice questions (with answers) about anatomy.\n\nWhat is 1 + 1?\nA. 1\n")
assert lines[0]["context"].endswith("\nAnswer: B\n\nWhat is 1 + 3?\nA. 1\nB. 4\nC. 99\nD. 111\nAnswer:")
PY
for family in gemma jamba; do
    mkdir "$tmp/$family"
    cp models/griffin-demo/tokenizer.json "$tmp/$family"
    echo "{\"chat_template\": \"$family\"}" >"$tmp/$family/tokenizer_config.json"
    "$cortado" $mmlu --chat --tokenizer "$tmp/$family" --dump-prompts "$tmp/$family.prompts" >"$tmp/out" 2>"$tmp/err" ||
        fail "$family: $(cat "$tmp/err")"
done
python3 - "$tmp/gemma.prompts" "$tmp/jamba.prompts" <<'PY' || fail 'prompts in a chat template'
import json, sys
gemma, jamba = ([json.loads(line) for line in open(name)] for name in sys.argv[1:])
assert jamba[0]["continuations"] == ["A", "B", "C", "D"]
assert [m["role"] for m in jamba[0]["messages"]] == ["system"] + 5 * ["user", "assistant"] + ["user"]
assert gemma[0]["messages"] == jamba[0]["messages"][1:]
assert "about anatomy.\n\n<|eom|>" in jamba[0]["context"] and jamba[0]["context"].endswith("\nAnswer:<|eom|><|bom|><|assistant|>")
assert gemma[0]["context"].count("<start_of_turn>model\n") == 6 and "about anatomy" not in gemma[0]["context"]
PY

expect 2 'expected --task mmlu or --task glue' "$cortado" eval -m models/griffin-demo
expect 2 'expected --data DIR' "$cortado" eval -m models/griffin-demo --task glue
expect 2 'expected -m MODEL, or --dump-prompts FILE' "$cortado" eval --task glue --data "$data"
expect 2 '--chat: expected -m MODEL or --tokenizer DIR' "$cortado" eval --task glue --data "$data" --chat --dump-prompts "$tmp/x"
expect 1 'did you mean cola?' glue --subjects colla
expect 1 'CoLA/dev.tsv or' "$cortado" eval -m models/griffin-demo --task glue --data "$tmp/none" --subjects cola
expect 1 '--keep-heads: expected 0 to 8' glue --keep-heads 9
expect 2 '--metric: expected --keep-heads with it' glue --metric l2
expect 2 '--seed: expected --keep-heads and --metric random' glue --keep-heads 2 --seed 1
expect 2 '--samples: --dump-prompts computes nothing' glue --dump-prompts "$tmp/x" --samples "$tmp/y"
expect 1 'expected a model with attention layers' "$cortado" eval -m models/mamba-demo --task glue --data "$data" --keep-heads 0
echo 'no sample' >"$tmp/other"
expect 1 "$tmp/other, line 1" glue --samples "$tmp/other"
[ "$(cat "$tmp/other")" = 'no sample' ] || fail 'a file of somebody else was changed'
expect 1 '/none/x' glue --samples "$tmp/none/x"
finish
