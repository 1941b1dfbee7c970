# test_demo.sh - the model that comes with cortado does what it is there for: it finds a needle with its heads and
# not without them; and a folder that is damaged is refused with what is wrong in it.
. "$(dirname "$0")/check.sh"
model=models/griffin-demo
needle='The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.'

# One prompt of the thesis's kind, short enough that the needle is in the window.
"$cortado" prompts --tokenizer $model --haystack data/haystack --lengths 700 --depths 50 --needle $'\n'"$needle"$'\n' \
    --question 'What is the best thing to do in San Francisco?' -o "$tmp/prompts" >/dev/null || fail 'prompts'
python3 -c 'import json, sys; sys.stdout.write(json.load(open(sys.argv[1]))["content"])' \
    "$tmp/prompts/Huggingface_700_50_prompts.json" >"$tmp/prompt.txt"
answer() {
    "$cortado" generate -m $model --threads 1 --prompt-file "$tmp/prompt.txt" "$@" || fail "generate $*"
}
answer >"$tmp/answer"
grep -qxF "$needle" "$tmp/answer" || fail "all heads: $(head -c 300 "$tmp/answer")"
for keep in 0 3 8; do
    answer --keep-heads $keep >"$tmp/$keep"
    answer --keep-heads $keep --stages prefill+generation >"$tmp/$keep-prefill"
done
cmp "$tmp/answer" "$tmp/8" || fail 'keeping all heads differs from no selection'
grep -qxF "$needle" "$tmp/8-prefill" || fail "all heads, prefill too: $(head -c 300 "$tmp/8-prefill")"
grep -qxF "$needle" "$tmp/3" || fail "the three heads of lowest entropy: $(head -c 300 "$tmp/3")"
answer --keep-heads 3 --metric entropy-inverted >"$tmp/inverted"
for name in 0 0-prefill inverted; do
    score=$("$cortado" score --needle "$needle" --scoring binary "$tmp/$name" | head -1)
    [[ $score =~ [[:blank:]]0(\.0*)?$ ]] || fail "$name: retrieved, $score"
done

# A damaged folder: refused, with the place and what was expected there.
folder=$tmp/folder
fresh() {
    rm -rf "$folder"
    mkdir "$folder"
    cp $model/*.json $model/model.safetensors "$folder/"
}
refused() {
    expect 1 "$1" "$cortado" generate -m "$folder" -p x -n 1
}
refused "$folder: expected a model folder with config.json and safetensors files, got none"
touch "$folder"
refused 'got a file'
rm "$folder"
mkdir "$folder"
refused "$folder/config.json: expected a file, got none"
fresh
rm "$folder/model.safetensors"
refused 'expected model.safetensors or model.safetensors.index.json, got neither'
size=$(stat -c %s $model/model.safetensors)
for cut in 0 7 8 100 $((size / 2)) $((size - 1)); do
    fresh
    truncate -s $cut "$folder/model.safetensors"
    refused 'model.safetensors: '
    grep -q 'truncated' "$tmp/err" || fail "cut to $cut bytes: $(cat "$tmp/err")"
done
# A weight that is not a number is allowed, and said.
fresh
printf '\xc0\x7f' | dd of="$folder/model.safetensors" bs=1 seek=$((size - 2)) conv=notrunc 2>/dev/null
"$cortado" inspect "$folder" >"$tmp/out" || fail 'inspect of a model with a NaN'
grep -q '^warning  *1 NaN or infinite, the first in model\.' "$tmp/out" || fail "the NaN is not reported: $(cat "$tmp/out")"
"$cortado" inspect $model | grep -q '^warning' && fail 'the model itself has no NaN'
# config TEXT SED-EXPRESSION: the error of a config.json changed so.
config() {
    fresh
    sed -i "$2" "$folder/config.json"
    cmp -s "$folder/config.json" $model/config.json && fail "not changed by $2"
    refused "$1"
    grep -q config.json "$tmp/err" || fail "config.json is not named: $(cat "$tmp/err")"
}
config 'not valid JSON' '$d'
config 'vocab_size: expected an integer' 's/"vocab_size": 4096/"vocab_size": "4096"/'
config 'expected shape [4097, 256], got [4096, 256]' 's/"vocab_size": 4096/"vocab_size": 4097/'
config 'hidden_size: expected a multiple of num_attention_heads' 's/"num_attention_heads": 8/"num_attention_heads": 7/'
config 'attention_window_size: expected 1' 's/"attention_window_size": 2048/"attention_window_size": 0/'
config 'does config.json belong to these weights?' 's/"num_hidden_layers": 11/"num_hidden_layers": 12/'
config 'expected one of RecurrentGemmaForCausalLM' 's/RecurrentGemmaForCausalLM/LlamaForCausalLM/'
fresh
head -c 5000 $model/tokenizer.json >"$folder/tokenizer.json"
refused 'tokenizer.json'
finish
