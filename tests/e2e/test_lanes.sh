# test_lanes.sh - a study whose cells are spread over several devices ends with the outcomes of one, also cut by
# Ctrl-C, and with a lane that fails; here the devices are the CPU named several times.
. "$(dirname "$0")/check.sh"
. "$(dirname "$0")/study.sh"
sed -i 's/to: 1000, count: 4/to: 1000, count: 2/' "$tmp/study.yaml"
run() {
    "$cortado" run "$tmp/study.yaml" "$@"
}
column() {
    python3 -c 'import sqlite3, sys
print(sqlite3.connect(f"file:{sys.argv[1]}/run.sqlite?mode=ro", uri=True).execute(sys.argv[2]).fetchone()[0])' "$@"
}

run --out "$tmp/dry" --device cpu,cpu --dry-run >"$tmp/plan" 2>"$tmp/err" || fail "dry run: $(cat "$tmp/err")"
grep -Eq '^lanes +2, which take [28] stretches of the plan \(cpu, cpu\)$' "$tmp/plan" ||
    fail "the plan does not tell of lanes: $(cat "$tmp/plan")"
awk 'length > 80 {exit 1}' "$tmp/plan" || fail "the plan is wider than 80 columns: $(cat "$tmp/plan")"

run --out "$tmp/one" --device cpu --threads 1 >"$tmp/log" 2>"$tmp/err" || fail "one device: $(cat "$tmp/err")"
run --out "$tmp/two" --device cpu,cpu --threads 2 >"$tmp/log" 2>"$tmp/err" || fail "two devices: $(cat "$tmp/err")"
grep -q '210 done now, 0 stored before, 0 failed, 0 left' "$tmp/log" || fail "not 210 cells: $(cat "$tmp/log")"
same "$tmp/one" "$tmp/two"
column "$tmp/two" 'SELECT machine FROM execution' | grep -q ', on cpu, cpu$' || fail 'the store does not say where'
run --out "$tmp/alone" --device cpu,cpu,cpu --alone --limit 60 >/dev/null 2>"$tmp/err" || fail "alone: $(cat "$tmp/err")"
outcomes "$tmp/alone" >"$tmp/cells"
[ "$(wc -l <"$tmp/cells")" = 60 ] && [ -z "$(grep -vxFf "$tmp/first" "$tmp/cells")" ] ||
    fail 'cells computed alone in lanes have other outcomes'

# Cut by --limit with three, by Ctrl-C with two, and ended by one.
run --out "$tmp/cut" --device cpu,cpu,cpu --limit 60 >/dev/null 2>"$tmp/err" || fail "limited: $(cat "$tmp/err")"
[ "$(outcomes "$tmp/cut" | wc -l)" = 60 ] || fail '--limit 60 did not store 60 cells'
# Not through run(): $! must be the program itself, not a shell around it. Alone, so that it takes long enough.
"$cortado" run "$tmp/study.yaml" --device cpu,cpu --threads 1 --alone --out "$tmp/cut" >/dev/null 2>"$tmp/err" &
pid=$!
while kill -0 $pid 2>/dev/null && [ "$(outcomes "$tmp/cut" | wc -l)" -lt 70 ]; do sleep 0.02; done
kill -INT $pid 2>/dev/null
wait $pid
status=$?
[ $status = 130 ] || fail "exit $status instead of 130 after an interrupt: $(cat "$tmp/err")"
[ "$(outcomes "$tmp/cut" | wc -l)" -lt 210 ] || fail 'the run was over before the interrupt'
run --out "$tmp/cut" >/dev/null 2>"$tmp/err" || fail "resumed: $(cat "$tmp/err")"
same "$tmp/one" "$tmp/cut"

# A lane that cannot write a recording ends the run with that error; what the lanes had finished is stored.
echo 'record: {what: light, lengths: 1000}' >>"$tmp/study.yaml"
run --out "$tmp/recorded" --device cpu --threads 1 >/dev/null 2>"$tmp/err" || fail "recorded: $(cat "$tmp/err")"
key=$(column "$tmp/recorded" 'SELECT key FROM cell WHERE length = 1000 ORDER BY finished_unix_ms DESC')
mkdir -p "$tmp/failing/recordings/$key.safetensors/in-the-way"
expect 1 "$key" run --out "$tmp/failing" --device cpu,cpu,cpu
n=$(outcomes "$tmp/failing" | wc -l)
[ "$n" -gt 0 ] && [ "$n" -lt 210 ] || fail "$n cells were stored before a lane failed"
rm -r "$tmp/failing/recordings/$key.safetensors"
run --out "$tmp/failing" --device cpu,cpu >"$tmp/log" 2>"$tmp/err" || fail "after the failure: $(cat "$tmp/err")"
grep -q " $n stored before, 0 failed, 0 left" "$tmp/log" || fail "not $n cells before: $(grep cells "$tmp/log")"
same "$tmp/one" "$tmp/failing"
diff -r "$tmp/recorded/recordings" "$tmp/failing/recordings" >"$tmp/log" || fail "recordings differ: $(cat "$tmp/log")"

expect 2 'expected devices of one kind' run --out "$tmp/no" --device cpu,ref
expect 2 'a list is for `cortado run`' "$cortado" generate -m models/griffin-demo -p x --device cpu,cpu
expect 2 'a list is for `cortado run`' "$cortado" bench -m models/griffin-demo --device cpu,cpu
"$cortado" run --help | grep -q 'cuda:all' || fail 'help does not tell of cuda:all'
finish
