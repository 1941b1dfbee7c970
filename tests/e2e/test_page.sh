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
python3 "$here/page.py" "$pages" "$tmp/run" || fail 'the page'
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
