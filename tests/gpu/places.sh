#!/usr/bin/env bash
# places.sh - a model whose layers lie on several GPUs gives what it gives on one, to the byte. Random weights; not in
# the suite, which needs no GPU. SEVERAL may name one GPU twice.
#   tests/gpu/places.sh build/cuda/cortado [ONE SEVERAL [CONFIG...]], such as cuda:0 cuda:0+1 bench/gpu/jamba-mini.json
cd "$(dirname "$0")/../.." || exit 1
. tests/e2e/check.sh
one=${2:-cuda:0} several=${3:-cuda:0+1}
configs=("${@:4}")
[ ${#configs[@]} -gt 0 ] || configs=(bench/gpu/recurrentgemma-2b.json)

# ids N: N tokens of a prompt.
ids() {
    awk -v n="$1" 'BEGIN { for (i = 0; i < n; i++) printf "%s%d", i ? "," : "", 3 + (i * 7919 + i * i) % 60000 }'
}
for config in "${configs[@]}"; do
    model=$tmp/model
    mkdir -p "$model"
    cp "$config" "$model/config.json"
    "$cortado" inspect --no-read --weights random:1 --device "$several" "$model" | grep -E '^(place|fits)'
    for options in '' '--keep-heads 3 --metric entropy --stages prefill+generation' '--compute f32'; do
        # f32 takes twice the memory: for models of which one GPU holds that.
        [ "$options" = '--compute f32' ] && [[ $config != *recurrentgemma* ]] && continue
        for length in 1 300 9000; do # one pass, and more than one
            for device in "$one" "$several"; do
                # shellcheck disable=SC2086
                "$cortado" generate -m "$model" --weights random:1 --device "$device" --prompt-ids "$(ids $length)" -n 40 --ignore-eos \
                    --json --save-logits "$tmp/$device.logits" $options >"$tmp/out" 2>"$tmp/err" || fail "$device: $(cat "$tmp/err")"
                echo "$config $device $length $options: $(grep -o '"timing":{[^}]*}' "$tmp/out")"
                sed 's/"timing":{[^}]*},//' "$tmp/out" >"$tmp/$device"
            done
            cmp "$tmp/$one" "$tmp/$several" || fail "$config, $length tokens, $options: $several differs from $one"
            cmp "$tmp/$one.logits" "$tmp/$several.logits" || fail "$config, $length tokens, $options: logits differ"
        done
    done
done
finish
