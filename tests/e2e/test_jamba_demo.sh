# test_jamba_demo.sh - a hybrid finds a needle with its heads and not without them, its control without attention finds
# one needle and mixes up two: the committed studies of both, cut down to a few cells.
. "$(dirname "$0")/check.sh"

# cells STUDY SED: runs a study of studies/demo changed by SED; its scores by k or weight edit, and depth.
cells() {
    sed -e "$2" -e "s#\.\./\.\./data/haystack#$PWD/data/haystack#; s#other-needle.txt#$PWD/studies/demo/other-needle.txt#" \
        "studies/demo/$1.yaml" >"$tmp/$1.yaml"
    cmp -s "studies/demo/$1.yaml" "$tmp/$1.yaml" && fail "$1: not changed by $2"
    "$cortado" run "$tmp/$1.yaml" --model-root models --threads 1 --out "$tmp/$1" >"$tmp/out" 2>"$tmp/err" ||
        fail "$1: $(tail -3 "$tmp/err")"
    "$cortado" export "$tmp/$1" --format jsonl | python3 -c 'import json, sys
cells = sorted((a["keep_heads"], a["weights_generation"], a["depth"], a["score"]) for a in map(json.loads, sys.stdin))
print(*(f"{k if k >= 0 else edit}:{score:g}" for k, edit, _, score in cells))'
}
few='s/lengths: .*/lengths: [677]/; s/depths: .*/depths: [0, 56]/'
keep='s/keep: {from: 0, to: [48]}/keep: [0, 4]/; s/stages: .*}/stages: generation}/'
# The control, which keeps no heads, comes first: one needle it finds.
found=$(cells jamba-figure-3.2 "$few; $keep")
[ "$found" = 'keep:5 keep:5 0:0 0:0 4:5 4:5' ] || fail "jamba-figure-3.2: $found"
found=$(cells jamba-figure-4.1 "$few; $keep; s/read_twice: .*/read_twice: true/")
[ "$found" = '0:0 0:0 4:5 4:5' ] || fail "jamba-figure-4.1, read twice: $found"
found=$(cells two-needles "$few; $keep")
[[ $found == keep:*\ keep:*\ '0:0 0:0 4:5 4:5' && $found != keep:*:[45]*\ 0:* ]] || fail "two-needles: $found" # partial points at most
# Global attention: the needle is never out of the window, and omitting it while the answer is written ends retrieval.
found=$(cells jamba-table-6.1 "$few; s/generation: \[.*/generation: [keep, omit], prefill: keep}/")
[ "$found" = 'keep:5 keep:5 omit:0 omit:0' ] || fail "jamba-table-6.1: $found"
# What a model without attention cannot do is refused before any cell runs, with the line.
sed 's/^model: .*/model: mamba-demo/; /^interventions:/,/^figures:/d' studies/demo/jamba-figure-3.2.yaml >"$tmp/mamba.yaml"
for change in '$a interventions: [{heads: {keep: 3, metric: entropy, stages: generation}}]' \
    '$a interventions: [{heads: none}, {weights: {prefill: omit}}]' '$a record: {what: light}'; do
    sed -e "$few; s#\.\./\.\./data/haystack#$PWD/data/haystack#; $change" "$tmp/mamba.yaml" >"$tmp/refused.yaml"
    expect 1 "refused.yaml, line $(wc -l <"$tmp/refused.yaml"))" \
        "$cortado" run "$tmp/refused.yaml" --model-root models --out "$tmp/refused"
    grep -q 'mamba-demo' "$tmp/err" || fail "the model is not named: $(cat "$tmp/err")"
    [ -e "$tmp/refused" ] && fail "a run was begun: $change"
done
finish
