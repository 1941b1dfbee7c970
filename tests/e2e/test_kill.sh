# test_kill.sh - kill -9 at random moments: what was finished survives, nothing is counted twice, and the run that
# goes on from there ends with the outcomes of an uninterrupted one.
. "$(dirname "$0")/check.sh"
. "$(dirname "$0")/study.sh"
run() {
    "$cortado" run "$tmp/study.yaml" --threads 1 "$@"
}

begin=$(date +%s%N)
run --out "$tmp/whole" >/dev/null 2>"$tmp/err" || fail "uninterrupted run: $(cat "$tmp/err")"
whole_ms=$((($(date +%s%N) - begin) / 1000000))

RANDOM=${SEED:-1}
stored=0
killed=0
for _ in $(seq 1 8); do
    # Not through run(): $! must be the program itself, not a shell around it.
    "$cortado" run "$tmp/study.yaml" --threads 1 --out "$tmp/killed" >/dev/null 2>"$tmp/err" &
    pid=$!
    # Anywhere in the first two thirds of a run: some kills meet it reading, some computing or writing.
    ms=$((RANDOM * whole_ms * 2 / 3 / 32768))
    sleep "$((ms / 1000)).$(printf %03d $((ms % 1000)))"
    kill -KILL $pid 2>/dev/null && killed=$((killed + 1))
    wait $pid 2>/dev/null
    [ -f "$tmp/killed/run.sqlite" ] || continue
    # The file may be there without its tables yet: then there is nothing to survive.
    now=$(outcomes "$tmp/killed" 2>"$tmp/err" | wc -l)
    [ "$now" -ge "$stored" ] || fail "$stored cells were stored, $now survived: $(cat "$tmp/err")"
    stored=$now
done
[ $killed -gt 0 ] || fail 'no run was killed'
run --out "$tmp/killed" >/dev/null 2>"$tmp/err" || fail "last run: $(cat "$tmp/err")"
same "$tmp/whole" "$tmp/killed"
echo "$killed runs killed; $stored cells had been stored by them"
finish
