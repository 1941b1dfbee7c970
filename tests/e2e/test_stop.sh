# test_stop.sh - Ctrl-C while a step of a slow model computes: the run ends within two seconds, not with the step; what
# was finished is stored, nothing else is, and the run that goes on from there ends with the outcomes of a whole one.
. "$(dirname "$0")/check.sh"
. "$(dirname "$0")/study.sh"

# The reference's scalar loops on one thread: the long prompt's first step takes most of the run, and no mixer or
# feed-forward of its 24 more than a fraction of a second.
sed -e 's/"hidden_size": 48/"hidden_size": 96/' -e 's/"intermediate_size": 112/"intermediate_size": 1100/' \
    -e 's/"num_hidden_layers": 6/"num_hidden_layers": 12/' -e 's/"lru_width": 60/"lru_width": 96/' \
    -e 's/"num_attention_heads": 3/"num_attention_heads": 4/' tests/golden/tiny-griffin/config.json >"$tmp/config.json"
"$cortado" synth --config "$tmp/config.json" -o "$tmp/slow" >/dev/null 2>"$tmp/err" || fail "synth: $(cat "$tmp/err")"
cp tests/data/letters/tokenizer.json "$tmp/slow/"
sed -e 's/^model: model/model: slow/' -e 's/lengths: .*/lengths: [240, 560]/' -e 's/depths: .*/depths: [0]/' \
    -e 's/max_new_tokens: 16/max_new_tokens: 2/' -e '/^interventions/,$d' "$tmp/study.yaml" >"$tmp/slow.yaml"
run=("$cortado" run "$tmp/slow.yaml" --device ref --threads 1)

begin=$(date +%s%N)
"${run[@]}" --out "$tmp/whole" >"$tmp/log" 2>"$tmp/err" || fail "uninterrupted run: $(cat "$tmp/err")"
whole_ms=$((($(date +%s%N) - begin) / 1000000))

# One cell first, so that there is something to lose; then a stop in the other one's first step.
"${run[@]}" --out "$tmp/cut" --limit 1 >/dev/null 2>"$tmp/err" || fail "limited run: $(cat "$tmp/err")"
for signal in INT TERM USR1; do
    "${run[@]}" --out "$tmp/cut" >/dev/null 2>"$tmp/err" &
    pid=$!
    sleep 1
    begin=$(date +%s%N)
    kill -$signal $pid || fail "the run was over before SIG$signal"
    wait $pid
    status=$?
    ms=$((($(date +%s%N) - begin) / 1000000))
    echo "SIG$signal: ended after $ms ms; the whole run takes $whole_ms ms"
    [ $status = 130 ] || fail "exit $status instead of 130: $(cat "$tmp/err")"
    [ $ms -lt 2000 ] && [ $((ms * 8)) -lt $whole_ms ] || fail "it took $ms ms to stop"
    [ "$(outcomes "$tmp/cut" | wc -l)" = 1 ] || fail "not the finished cell alone: $(outcomes "$tmp/cut")"
done
"${run[@]}" --out "$tmp/cut" >/dev/null 2>"$tmp/err" || fail "resumed run: $(cat "$tmp/err")"
same "$tmp/whole" "$tmp/cut"
finish
