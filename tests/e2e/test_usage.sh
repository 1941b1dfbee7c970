# test_usage.sh - wrong usage gives one line that names what is wrong, what was expected and the nearest right
# spelling; help, man page and completion know every option.
. "$(dirname "$0")/check.sh"

expect 2 'did you mean generate?' "$cortado" genrate
expect 2 'unknown verb' "$cortado" zzzz
expect 2 'did you mean --keep-heads?' "$cortado" generate --keep-head 2
expect 2 'expected -m MODEL' "$cortado" generate -p x
expect 2 'expected one of --prompt, --prompt-file and --prompt-ids' "$cortado" generate -m x
expect 2 '--max-new-tokens: expected an integer' "$cortado" generate -m x -p y -n 0
expect 2 '--max-new-tokens: expected an integer' "$cortado" generate -m x -p y -n 2147483648
expect 2 '--max-new-tokens: expected an integer' "$cortado" generate -m x -p y -n -1
expect 2 'did you mean entropy?' "$cortado" generate -m x -p y --keep-heads 1 --metric entopy
expect 2 'expected DIR after it' "$cortado" generate -m
expect 2 'got the option --needle' "$cortado" generate -m --needle x
expect 2 'takes no value' "$cortado" generate -m x -p y --json=1
expect 2 'expected MODEL' "$cortado" inspect
expect 2 'unexpected argument "b"' "$cortado" inspect a b
expect 2 'expected FILE...' "$cortado" score --needle x
expect 2 'expected -m MODEL or --tokenizer DIR' "$cortado" tokenize
for size in 5X 1.5G -1 0 G '' 9999999999G; do
    expect 2 '--memory: expected bytes such as 500M or 4G' "$cortado" run x.yaml "--memory=$size"
done
expect 1 'nowhere' "$cortado" inspect "$tmp/nowhere"
expect 1 'nowhere' "$cortado" run "$tmp/nowhere.yaml"

# A GPU that is not there, or a program built without CUDA, is said at once; a wrong name is wrong usage.
demo="$(dirname "$0")/../../models/griffin-demo"
expect 2 'expected cpu, cuda, cuda:N, cuda:N+M or ref, got "gpu"' "$cortado" generate -m "$demo" --device gpu -p x -n 1
expect 2 'expected cuda or cuda:N' "$cortado" generate -m "$demo" --device cuda:x -p x -n 1
if "$cortado" generate -m "$demo" --device cuda -p x -n 1 >"$tmp/out" 2>"$tmp/err"; then
    expect 1 'expected a number below' "$cortado" generate -m "$demo" --device cuda:1000 -p x -n 1
else
    grep -qE 'no GPU can be used here|was built without CUDA|are for 9.0' "$tmp/err" ||
        fail "--device cuda: $(cat "$tmp/err")"
fi

# A closed or full output is a failure, not a silent success.
"$cortado" --help >/dev/full 2>"$tmp/err" && fail 'writing to a full device succeeded'

"$cortado" >"$tmp/out" 2>"$tmp/err"
[ $? = 2 ] || fail 'no verb is wrong usage'
verbs=$("$cortado" --help | sed -n '/^verbs:/,/^$/s/^  \([a-z][a-z]*\) .*/\1/p')
[ "$(wc -w <<<"$verbs")" -ge 10 ] || fail "too few verbs: $verbs"
"$cortado" --man >"$tmp/man"
for verb in $verbs; do
    "$cortado" "$verb" --help >"$tmp/help" || fail "$verb --help"
    awk 'length > 80 {exit 1}' "$tmp/help" || fail "$verb --help is wider than 80 columns"
    grep -q '^example:' "$tmp/help" || fail "$verb --help has no example"
    for option in $(grep -oE '^  (-[a-z], )?--[a-z-]+' "$tmp/help" | grep -oE -- '--[a-z-]+'); do
        [ "$option" = --help ] && continue
        grep -qF -- "${option//-/\\-}" "$tmp/man" || fail "the man page lacks $verb $option"
    done
done
if command -v man >/dev/null; then
    man --warnings -E UTF-8 -l "$tmp/man" >/dev/null 2>"$tmp/err"
    [ -s "$tmp/err" ] && fail "man: $(head -3 "$tmp/err")"
fi

# Completion offers verbs, options and listed values.
complete_line() {
    PATH=$(dirname "$cortado"):$PATH bash -c '
        . scripts/cortado.bash
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); compopt() { :; }
        _cortado; printf "%s\n" "${COMPREPLY[@]}"' _ "$@"
}
[ "$(complete_line cortado gen)" = generate ] || fail 'completion of a verb'
complete_line cortado generate --keep | grep -qx -- --keep-heads || fail 'completion of an option'
complete_line cortado generate --semantics '' | grep -qx reference || fail 'completion of a value'
finish
