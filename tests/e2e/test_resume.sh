# test_resume.sh - a run that is cut by --limit and by Ctrl-C, or has little memory, ends with the outcomes of an
# uninterrupted one that has enough.
. "$(dirname "$0")/check.sh"
. "$(dirname "$0")/study.sh"
run() {
    "$cortado" run "$tmp/study.yaml" --threads 1 "$@"
}

run --out "$tmp/dry" --dry-run >"$tmp/plan" 2>"$tmp/err" || fail "dry run: $(cat "$tmp/err")"
grep -q '420' "$tmp/plan" || fail "the plan does not count 420 cells: $(cat "$tmp/plan")"
[ -e "$tmp/dry" ] && fail 'a dry run wrote something'
awk 'length > 80 {exit 1}' "$tmp/plan" || fail "the plan is wider than 80 columns: $(cat "$tmp/plan")"
tokens() {
    sed -nE 's/^ +([0-9]+) as planned.*/\1/p' "$1"
}
run --out "$tmp/dry" --dry-run --memory 160K >"$tmp/little" 2>"$tmp/err" || fail "little memory: $(cat "$tmp/err")"
[ "$(tokens "$tmp/plan")" -lt "$(tokens "$tmp/little")" ] ||
    fail "little memory changed nothing: $(cat "$tmp/plan" "$tmp/little")"
expect 1 'expected room for the state of one sequence' run --out "$tmp/dry" --dry-run --memory 1K

run --out "$tmp/whole" >"$tmp/log" 2>"$tmp/err" || fail "uninterrupted run: $(cat "$tmp/err")"

run --out "$tmp/tight" --memory 160K >/dev/null 2>"$tmp/err" || fail "little memory: $(cat "$tmp/err")"
same "$tmp/whole" "$tmp/tight"
rm -r "$tmp/tight"

# No cell depends on those that it is computed with.
run --out "$tmp/alone" --alone >"$tmp/log" 2>"$tmp/err" || fail "each cell alone: $(cat "$tmp/err")"
same "$tmp/whole" "$tmp/alone"
run --out "$tmp/dry" --dry-run --alone >"$tmp/log" 2>"$tmp/err" || fail "each cell alone, dry: $(cat "$tmp/err")"
plain=$(sed -nE 's/^prefill +([0-9]+) tokens in a plain loop/\1/p' "$tmp/log")
[ "$(tokens "$tmp/log")" = "$plain" ] || fail "cells alone share rows: $(cat "$tmp/log")"
grep -q 'steps of up to 1 rows' "$tmp/log" || fail "cells alone decode together: $(cat "$tmp/log")"

run --out "$tmp/cut" --limit 100 --memory 250K >/dev/null 2>"$tmp/err" || fail "limited run: $(cat "$tmp/err")"
[ "$(outcomes "$tmp/cut" | wc -l)" = 100 ] || fail '--limit 100 did not store 100 cells'

# Not through run(): $! must be the program itself, not a shell around it.
"$cortado" run "$tmp/study.yaml" --threads 1 --out "$tmp/cut" >/dev/null 2>"$tmp/err" &
pid=$!
while kill -0 $pid 2>/dev/null && [ "$(outcomes "$tmp/cut" | wc -l)" -lt 150 ]; do sleep 0.02; done
begin=$(date +%s%N)
kill -INT $pid 2>/dev/null
wait $pid
status=$?
ms=$((($(date +%s%N) - begin) / 1000000))
[ $status = 130 ] || fail "exit $status instead of 130 after an interrupt: $(cat "$tmp/err")"
[ $ms -lt 5000 ] || fail "it took $ms ms to stop"
[ "$(outcomes "$tmp/cut" | wc -l)" -lt 420 ] || fail 'the run was over before the interrupt'

run --out "$tmp/cut" >/dev/null 2>"$tmp/err" || fail "resumed run: $(cat "$tmp/err")"
same "$tmp/whole" "$tmp/cut"

run --out "$tmp/cut" >"$tmp/log" 2>"$tmp/err" || fail "run with nothing to do: $(cat "$tmp/err")"
grep -q '0 done now, 420 stored before' "$tmp/log" || fail "cells were computed again: $(cat "$tmp/log")"
finish
