# test_slips.sh - what users get wrong is said before anything is lost or computed in vain: outputs that cannot be
# written, flags that would be ignored, studies that would hide each other, a folder that only others may write.
. "$(dirname "$0")/check.sh"
. "$(dirname "$0")/study.sh"
demo="$(dirname "$0")/../../models/griffin-demo"

# A finished file takes the place of what is there: only a file may be, and that is checked before the work.
echo kept >"$tmp/target"
ln -s target "$tmp/link"
mkfifo "$tmp/fifo"
for flag in --save-logits --record; do
    expect 1 'to write to, got a symbolic link' "$cortado" generate -m "$tmp/model" -p tea -n 1 $flag "$tmp/link"
    expect 1 'to write to, got a FIFO' "$cortado" generate -m nowhere -p tea -n 1 $flag "$tmp/fifo"
    expect 1 'to write to, got a directory' "$cortado" generate -m nowhere -p tea -n 1 $flag "$tmp"
    expect 1 'expected a folder to write the file in' "$cortado" generate -m nowhere -p tea -n 1 $flag "$tmp/none/x"
done
[ -L "$tmp/link" ] && [ -p "$tmp/fifo" ] && [ "$(cat "$tmp/target")" = kept ] || fail 'an output replaced what was there'
expect 2 'expected two files, got one' "$cortado" generate -m x -p y --record "$tmp/x" --save-logits "$tmp/x"

# The advice fits: a needle was given, but not found as the published code looks for it.
expect 1 'needle_span: reference' "$cortado" generate -m "$tmp/model" -p 'hot tea' -n 2 --semantics reference \
    --weights-generation omit --needle te
expect 2 '-n: expected N as an argument of its own, got -n2' "$cortado" generate -m x -p y -n2
expect 2 '-n: expected N as an argument of its own, got -n=2' "$cortado" generate -m x -p y -n=2
expect 2 'got both' "$cortado" tokenize -m x --tokenizer y
expect 2 'got neither' "$cortado" detokenize
expect 2 '--model: expected DIR, got an empty text' "$cortado" generate -m '' -p y
expect 2 'expected DIR..., got an empty text' "$cortado" report ''
"$cortado" generate -m "$demo" -p '' -n 1 >/dev/null 2>"$tmp/err" || fail "an empty prompt: $(cat "$tmp/err")"

# A model that cannot be opened is said before the machine is measured.
expect 1 'nowhere: expected a model folder' "$cortado" bench -m "$tmp/nowhere"
[ -s "$tmp/out" ] && fail 'bench measured before it looked for the model'

# Random weights do not replace a model's.
cp -r "$tmp/model" "$tmp/own"
expect 1 'expected no model there' "$cortado" synth --config "$tmp/own/config.json" -o "$tmp/own"
cmp -s "$tmp/own/model.safetensors" "$tmp/model/model.safetensors" || fail 'synth replaced the weights of a model'

# What a study cannot do is said before it runs, and leaves no folder.
sed 's/scoring: binary/&\n    template: instruct/' "$tmp/study.yaml" >"$tmp/instruct.yaml"
expect 1 'task.niah.template: instruct: chat template' "$cortado" run "$tmp/instruct.yaml" --out "$tmp/instruct"
[ -e "$tmp/instruct" ] && fail 'a study without a chat template left a folder'
sed 's/max_new_tokens: 16/max_new_tokens: 1/' "$tmp/study.yaml" >"$tmp/one.yaml"
"$cortado" run "$tmp/one.yaml" --dry-run >"$tmp/out" 2>"$tmp/err" || fail "dry run: $(cat "$tmp/err")"
grep -q 'warning: 240 cells cannot run, the first: length 300, depth 0: intervention: it acts in generation only' \
    "$tmp/err" || fail "the dry run does not tell of cells that cannot run: $(cat "$tmp/err")"
expect 1 '--model-root: expected a folder' "$cortado" run "$tmp/study.yaml" --model-root "$tmp/none" --dry-run

# All studies are read before the first one runs; two of one name would share a folder.
cp "$tmp/study.yaml" "$tmp/again.yaml"
sed 's/^study: .*/study: third/; s/^model/modle/' "$tmp/study.yaml" >"$tmp/wrong.yaml"
(cd "$tmp" && expect 2 'expected studies of different names' "$cortado" run study.yaml again.yaml; exit $failures) || failures=$?
(cd "$tmp" && expect 2 'did you mean "model"?' "$cortado" run study.yaml wrong.yaml; exit $failures) || failures=$?
[ -e "$tmp/runs" ] && fail 'a study ran beside one that is wrong'

# Flags that a study would override, and grids with a value twice, are refused.
for flag in --needle --question --lengths --depths --haystack; do
    expect 2 "$flag: the study says it" "$cortado" prompts "$tmp/study.yaml" $flag 5 -o "$tmp/prompts"
done
expect 2 "--jrt: the study's read_twice" "$cortado" prompts "$tmp/study.yaml" --jrt -o "$tmp/prompts"
flags=(--tokenizer "$tmp/model" --haystack "$tmp/essay.txt" --needle 'Tea.' --question 'Tea?' -o "$tmp/prompts")
expect 2 '--model-root: expected a study' "$cortado" prompts "${flags[@]}" --model-root "$tmp"
expect 1 '--lengths: expected each value once, got 300 twice' "$cortado" prompts "${flags[@]}" --lengths 300,400,300 --depths 0
expect 1 '--depths: expected each value once, got 1 twice' "$cortado" prompts "${flags[@]}" --lengths 300 --depths 0:100:200
[ -e "$tmp/prompts" ] && fail 'wrong flags wrote prompts'

# The documented study is one: it plans as it stands, with this project's haystack.
mkdir "$tmp/docs"
sed -n '/^```yaml/,/^```/p' docs/STUDIES.md | sed -e '/^```/d' -e 's|\.\./data/haystack|data/haystack|' >"$tmp/docs/study.yaml"
"$cortado" run "$tmp/docs/study.yaml" --dry-run >"$tmp/out" 2>"$tmp/err" || fail "docs/STUDIES.md: $(cat "$tmp/err")"
[ -s "$tmp/err" ] && fail "docs/STUDIES.md: $(cat "$tmp/err")"
grep -q '^recordings  *[1-9]' "$tmp/out" || fail "docs/STUDIES.md records nothing: $(cat "$tmp/out")"

# A run in a folder of somebody else, or on a file system without writing, can be read. SQLite's own files are not there.
"$cortado" run "$tmp/study.yaml" --out "$tmp/run?#%41" --limit 4 >"$tmp/out" 2>"$tmp/err" || fail "run: $(cat "$tmp/err")"
rm -f "$tmp/run?#%41"/run.sqlite-wal "$tmp/run?#%41"/run.sqlite-shm
cp "$cortado" "$tmp/cortado"
chmod 755 "$tmp"
chmod 555 "$tmp/run?#%41"
other=()
[ "$(id -u)" = 0 ] && other=(setpriv --reuid 65534 --regid 65534 --clear-groups)
[ "$("${other[@]}" "$tmp/cortado" export "$tmp/run?#%41" 2>"$tmp/err" | wc -l)" = 5 ] ||
    fail "a store that cannot be written is not read: $(cat "$tmp/err")"
expect 1 'may this user write the file and its folder?' \
    "${other[@]}" "$tmp/cortado" run "$tmp/study.yaml" --out "$tmp/run?#%41"
chmod 755 "$tmp/run?#%41"

# A limit of file sizes is a failed write, no death by a signal; what was stored is there, and the run goes on from it.
limited() (
    ulimit -f 120 # KiB
    exec "$@"
)
expect 1 'a limit of file sizes reached?' limited "$cortado" run "$tmp/study.yaml" --out "$tmp/limited"
outcomes "$tmp/limited" >"$tmp/out" 2>"$tmp/err"
[ -s "$tmp/err" ] && fail "after a limit of file sizes: $(cat "$tmp/err")"
[ "$(wc -l <"$tmp/out")" -lt 420 ] || fail 'the limit of file sizes was not reached'
"$cortado" run "$tmp/study.yaml" --out "$tmp/limited" >/dev/null 2>"$tmp/err" || fail "without a limit: $(cat "$tmp/err")"
"$cortado" run "$tmp/study.yaml" --out "$tmp/whole" >/dev/null 2>"$tmp/err" || fail "whole run: $(cat "$tmp/err")"
same "$tmp/whole" "$tmp/limited"

# A narrow terminal: no blank where a bar has no room.
if command -v script >/dev/null; then
    script -qec "stty cols 40; '$cortado' run '$tmp/study.yaml' --out '$tmp/narrow'" /dev/null </dev/null |
        tr '\r' '\n' >"$tmp/out"
    grep -q $'^\e\\[K[0-9]*/420 cells' "$tmp/out" || fail "no progress on a narrow terminal: $(head -c 300 "$tmp/out")"
else
    echo 'SKIP: narrow terminal: script is missing'
fi
finish
