# test_generate.sh - `cortado generate` on the model that comes with cortado: where a prompt may come from, what is
# printed, which interventions are legal, and what is said about those that are not.
. "$(dirname "$0")/check.sh"
model=models/griffin-demo
needle='The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.'
prompt=$'CONTEXT: \n'"$needle"$'\nShips wait for the tide.\n\nQUESTION: What is the best thing to do in San Francisco?\n\n'
prompt+='ANSWER: Here is the most relevant sentence in the context: '
printf %s "$prompt" >"$tmp/prompt.txt"
generate() {
    "$cortado" generate -m $model --threads 1 "$@"
}
# field FILE EXPRESSION: of the one JSON object in the file.
field() {
    python3 -c "import json, sys; a = json.load(open(sys.argv[1])); print($2)" "$1"
}
# refused STATUS TEXT OPTIONS...: of a call that would otherwise be right.
refused() {
    local status=$1 text=$2
    shift 2
    expect "$status" "$text" "$cortado" generate -m $model --threads 1 --prompt-file "$tmp/prompt.txt" "$@"
    [ -s "$tmp/out" ] && fail "results printed beside an error: $*"
}

# The same prompt from four places gives the same answer.
ids=$("$cortado" tokenize -m $model --ids "$tmp/prompt.txt")
n_ids=$(tr , '\n' <<<"$ids" | wc -l)
generate -p "$prompt" >"$tmp/text" || fail 'prompt as text'
generate --prompt-file "$tmp/prompt.txt" >"$tmp/file" || fail 'prompt as a file'
generate --prompt-file - <"$tmp/prompt.txt" >"$tmp/stdin" || fail 'prompt on standard input'
generate --prompt-ids "$ids" >"$tmp/ids" || fail 'prompt as ids'
grep -qxF "$needle" "$tmp/text" || fail "the needle is not the answer: $(head -c 300 "$tmp/text")"
for other in file stdin ids; do
    cmp "$tmp/text" "$tmp/$other" || fail "the answer differs: $other"
done

# --json is one JSON object and nothing else; with --ignore-eos it has exactly N ids.
generate -p "$prompt" --json >"$tmp/eos.json" 2>"$tmp/err" || fail '--json'
[ -s "$tmp/err" ] && fail "stderr is not empty: $(cat "$tmp/err")"
[ "$(field "$tmp/eos.json" 'a["ids"][-1]')" = 1 ] || fail 'the answer does not end with end-of-text'
[ "$(field "$tmp/eos.json" 'a["prompt_tokens"]')" = "$n_ids" ] || fail 'prompt_tokens'
[ "$(field "$tmp/eos.json" 'a["text"]')" = "$needle" ] || fail 'text'
for n in 1 2 50; do
    generate -p "$prompt" -n $n --ignore-eos --json >"$tmp/n.json" || fail "-n $n"
    [ "$(field "$tmp/n.json" 'len(a["ids"])')" = $n ] || fail "not exactly $n ids"
done
python3 - "$tmp/eos.json" "$tmp/n.json" <<'PY' || fail 'what follows end-of-text changes what stands before it'
import json, sys
stopped, on = (json.load(open(name))["ids"] for name in sys.argv[1:])
sys.exit(on[:len(stopped)] != stopped)
PY

# Without a tokenizer: ids only, and text is null.
mkdir "$tmp/bare"
cp $model/config.json $model/model.safetensors "$tmp/bare/"
"$cortado" generate -m "$tmp/bare" --threads 1 --prompt-ids "$ids" --json >"$tmp/bare.json" || fail 'no tokenizer'
[ "$(field "$tmp/bare.json" 'a["text"]')" = None ] || fail 'text without a tokenizer is not null'
[ "$(field "$tmp/bare.json" 'a["ids"]')" = "$(field "$tmp/eos.json" 'a["ids"]')" ] || fail 'ids without a tokenizer'
expect 1 '--prompt-ids needs no tokenizer' "$cortado" generate -m "$tmp/bare" -p x
expect 2 'use --needle-positions' "$cortado" generate -m "$tmp/bare" --prompt-ids "$ids" --needle x

# A needle as text and as the positions that the text has.
first=$(printf 'CONTEXT: \n' | "$cortado" tokenize -m $model --ids | tr , '\n' | wc -l)
last=$((first - 1 + $(printf %s "$needle" | "$cortado" tokenize -m $model --ids --no-special | tr , '\n' | wc -l)))
for source in "--needle" "--needle-positions"; do
    value=$needle
    [ $source = --needle-positions ] && value=$first-$last
    generate -p "$prompt" $source "$value" --weights-generation omit --weights-prefill omit --json >"$tmp/$source.json" ||
        fail "$source"
done
changed='a["audit"]["generation"]["edit_rows_changed"] > 0 and a["audit"]["prefill"]["edit_rows_changed"] > 0'
[ "$(field "$tmp/--needle.json" "$changed")" = True ] || fail 'omit changed no row'
[ "$(field "$tmp/--needle.json" 'a["text"]')" = "$needle" ] && fail 'the needle was found though it was omitted'
field "$tmp/--needle.json" 'a["ids"]' >"$tmp/a"
field "$tmp/--needle-positions.json" 'a["ids"]' >"$tmp/b"
cmp "$tmp/a" "$tmp/b" || fail 'a needle as text and as positions differ'
generate --prompt-ids "$ids" --needle "$needle" --weights-generation omit --weights-prefill omit --json >"$tmp/c.json" ||
    fail 'needle in ids'
[ "$(field "$tmp/c.json" 'a["ids"]')" = "$(cat "$tmp/a")" ] || fail 'a needle in ids and in text differ'

# What changes nothing is legal, and the audit shows that it was looked at.
generate -p "$prompt" --keep-heads 8 --stages prefill+generation --json >"$tmp/all.json" || fail 'k = H'
[ "$(field "$tmp/all.json" 'a["ids"]')" = "$(field "$tmp/eos.json" 'a["ids"]')" ] || fail 'k = H changes the answer'
for stage in prefill generation; do
    [ "$(field "$tmp/all.json" "a['audit']['$stage']['head_rows'] > 0")" = True ] || fail "k = H: no row in $stage"
    [ "$(field "$tmp/all.json" "a['audit']['$stage']['heads_dropped']")" = 0 ] || fail "k = H dropped heads in $stage"
done
generate -p "$prompt" --needle "$needle" --weights-generation keep --weights-prefill keep --json >"$tmp/keep.json" ||
    fail 'keep/keep with a needle'
[ "$(field "$tmp/keep.json" 'a["ids"]')" = "$(field "$tmp/eos.json" 'a["ids"]')" ] || fail 'keep changes the answer'
[ "$(field "$tmp/keep.json" 'a["audit"]["generation"]["edit_rows_changed"]')" = 0 ] || fail 'keep changed rows'

# What cannot be done is an error, with what was expected.
refused 1 'expected "not there" in the prompt' --needle 'not there' --weights-generation omit
refused 1 'expected "not there" in the prompt' --needle 'not there'
refused 1 "--needle-positions: expected positions from 0 to $((n_ids - 1))" --needle-positions 5,"$n_ids" --weights-generation omit
refused 1 "--needle-positions-prefill: expected positions from 0 to $((n_ids - 1))" \
    --needle-positions 5 --needle-positions-prefill 2-900 --weights-prefill only
refused 1 'expected 0 to 8 heads to keep' --keep-heads 9
refused 2 '--weights-generation: omit needs a needle' --weights-generation omit
refused 2 '--weights-prefill: binary needs a needle' --weights-prefill binary
refused 1 'prefill yields the first' --keep-heads 3 -n 1
refused 1 'prefill yields the first' --weights-generation "null" -n 1
refused 1 'acts in prefill only' --keep-heads 3 --stages prefill --option kv_cache=off --option generation_begins=at_last_prompt_token
for positions in 5- 7-5 a 5,x 1.5 -1 ''; do
    refused 2 '--needle-positions: expected' "--needle-positions=$positions" --weights-generation omit
done
refused 2 '--metric and --stages: expected --keep-heads K' --metric l2
refused 2 'expected KEY=VALUE' --option kv_cache
refused 2 'got "foo"' --option foo=bar
refused 2 'expected --needle or --needle-positions' --needle x --needle-positions 5
expect 2 'expected one of --prompt' "$cortado" generate -m $model -p x --prompt-ids 2
expect 1 'expected an id from 0 to 4095' "$cortado" generate -m $model --prompt-ids 2,4096
expect 1 'forced ids: token 1: expected an id from 0 to 4095' "$cortado" generate -m $model -p x --force-ids 2,4096
expect 1 'nothing.txt: expected a file' "$cortado" generate -m $model --prompt-file "$tmp/nothing.txt"
refused 1 'nowhere/x' --save-logits "$tmp/nowhere/x" -n 1

# A model without attention layers has nothing to intervene in: said before anything is computed.
for options in '--keep-heads 3' '--weights-generation null' '--keep-heads 8 --stages prefill'; do
    expect 1 'expected a model with attention layers' "$cortado" generate -m models/mamba-demo -p x $options
    [ -s "$tmp/out" ] && fail "results printed beside an error: mamba-demo $options"
done
"$cortado" generate -m models/mamba-demo -p x -n 1 >/dev/null || fail 'mamba-demo without an intervention'
"$cortado" inspect models/mamba-demo >"$tmp/out" || fail 'inspect mamba-demo'
grep -qx 'attention heads  *none' "$tmp/out" || fail "heads of a model without attention: $(cat "$tmp/out")"
grep -qx 'window  *none' "$tmp/out" || fail "window of a model without attention: $(cat "$tmp/out")"

# Sampling: the same seed gives the same tokens, another one others.
sample() {
    generate -p 'The tide' --temperature 1.2 --top-p 0.95 --top-k 200 -n 24 --ignore-eos --seed "$1"
}
sample 7 >"$tmp/a"
sample 7 >"$tmp/b"
sample 8 >"$tmp/c"
cmp "$tmp/a" "$tmp/b" || fail 'a seed does not repeat'
cmp -s "$tmp/a" "$tmp/c" && fail 'another seed gives the same tokens'
finish
