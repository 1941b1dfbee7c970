# check.sh - helpers for the command-line tests; sourced. $cortado is the program, $tmp a folder that goes away.
set -u
cortado=$1
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failures=0
fail() {
    echo "FAILED: $*"
    failures=$((failures + 1))
}
# expect STATUS TEXT COMMAND...: the exit status, and TEXT in stderr; stderr is at most one line.
expect() {
    local status=$1 text=$2
    shift 2
    "$@" >"$tmp/out" 2>"$tmp/err" </dev/null
    local got=$?
    [ $got = "$status" ] || fail "exit $got instead of $status: $* ($(head -c 300 "$tmp/err"))"
    grep -qF -- "$text" "$tmp/err" || fail "no \"$text\" in: $(head -c 300 "$tmp/err") ($*)"
    [ "$(wc -l <"$tmp/err")" -le 1 ] || fail "more than one line of error: $*"
}
finish() {
    [ $failures = 0 ] && exit 0
    echo "$failures failed"
    exit 1
}
