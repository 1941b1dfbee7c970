# test_page.sh - the report page in a headless Chromium: what it shows, by mouse and keyboard, in print and in the dark.
. "$(dirname "$0")/check.sh"
here=$(dirname "$0")
for need in chromium python3; do
    command -v $need >/dev/null || {
        echo "SKIP: $need is missing (scripts/deps --browser installs it)"
        exit 77
    }
done
. "$here/study.sh"
# Pages of made-up cells: 10,000 of them, hostile text, Table 6.1, failures.
pages=$tmp/pages
mkdir "$pages"
CORTADO_FIGURES_OUT=$pages "$(dirname "$cortado")/tests/report_test_report" >"$tmp/unit" 2>&1 || fail "test_report: $(tail -3 "$tmp/unit")"
# A page of a real run.
"$cortado" run "$tmp/study.yaml" --out "$tmp/run" >"$tmp/out" 2>"$tmp/err" || fail "run: $(tail -3 "$tmp/err")"
# A run with recordings, on the model that finds its needle; one file is damaged.
cat >"$tmp/recorded.yaml" <<YAML
study: recorded
model: griffin-demo
task:
  niah:
    haystack: $PWD/data/haystack
    needle: "\nThe best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny day.\n"
    question: What is the best thing to do in San Francisco?
    lengths: [400, 700]
    depths: [0, 50]
generate: {max_new_tokens: 6, ignore_eos: true}
interventions:
  - heads: {keep: 3, metric: entropy, stages: generation}
    weights: {generation: [keep, omit, binary]}
record: {what: [weights, light, heads], steps: first, lengths: 700}
YAML
"$cortado" run "$tmp/recorded.yaml" --model-root models --out "$tmp/recorded" >"$tmp/out" 2>"$tmp/err" || fail "recorded run: $(tail -3 "$tmp/err")"
damaged=$("$cortado" export "$tmp/recorded" --format jsonl | python3 -c 'import json, sys
print(*(c["key"] for c in map(json.loads, sys.stdin) if (c["length"], c["depth"], c["weights_generation"]) == (700, 0, "keep")))')
truncate -s 100 "$tmp/recorded/recordings/$damaged.safetensors"
"$cortado" report "$tmp/recorded" -o "$tmp/recorded/report.html" >"$tmp/out" 2>"$tmp/err" || fail "report: $(tail -3 "$tmp/err")"
python3 "$here/page.py" "$pages" "$tmp/run" "$tmp/recorded" || fail 'the page'
# Two runs together: versions of both are compared, figures and tables lie beside the page.
sed 's/^study: letters/study: letters-twice/; s/^    scoring:/    read_twice: true\n&/' "$tmp/study.yaml" >"$tmp/twice.yaml"
"$cortado" run "$tmp/twice.yaml" --out "$tmp/twice" --limit 40 >"$tmp/out" 2>"$tmp/err" || fail "run: $(tail -3 "$tmp/err")"
"$cortado" report "$tmp/run" "$tmp/twice" -o "$tmp/both.html" >"$tmp/out" 2>"$tmp/err" || fail "report: $(tail -3 "$tmp/err")"
grep -q '^difference from the context read once, at the same k' "$tmp/out" || fail "no comparison in $(cat "$tmp/out")"
grep -q 'From the context read once, at the same k' "$tmp/both.html" || fail 'no comparison on the page of both'
for file in accuracy_by_heads.pdf accuracy.tex differences.csv; do
    [ -s "$tmp/both_figures/$file" ] || fail "no both_figures/$file"
done
[ -s "$tmp/run/figures/table_6.1.tex" ] || fail 'no table_6.1.tex'
finish
