/* test_golden.c - ids, offsets and decoded text as the `tokenizers` library gives them.
 *
 * By default on the small tokenizers in golden/, which tools/oracle_tokenizer.py made; with
 * CORTADO_TOKENIZER_GOLDEN on that folder (tokenizer.json and cases.jsonl) alone.
 */
#include "test.h"

#include "base/buf.h"
#include "io/file.h"
#include "tok/fields.h"
#include "tok/tok.h"

static ct_err err;

/* Reads an array of numbers. */
static int64_t *numbers(ct_scan value, size_t *count)
{
    int64_t *list = malloc((size_t)(value.end - value.at) * sizeof *list);
    bool first = true;
    *count = 0;
    assert_true(ct_scan_take(&value, '['));
    while (ct_scan_next_element(&value, &first))
        assert_true(ct_scan_integer(&value, &list[(*count)++]));
    assert_null(value.problem);
    return list;
}

static void compare_ids(const char *what, size_t line, const int32_t *got, size_t n_got,
                        const int64_t *expected, size_t n)
{
    for (size_t i = 0; i < n && i < n_got; i++)
        if (got[i] != expected[i])
            fail_msg("line %zu: %s: place %zu: expected %lld, got %d", line, what, i,
                     (long long)expected[i], got[i]);
    if (n != n_got) fail_msg("line %zu: %s: expected %zu ids, got %zu", line, what, n, n_got);
}

static void compare_decoded(const ct_tokenizer *t, bool skip, size_t line, const int32_t *ids,
                            size_t count, ct_scan expected)
{
    char *text, *want;
    size_t size, want_size;
    assert_ok(ct_field_text(expected, "case", "decoded", &want, &want_size, &err));
    assert_ok(ct_tokenizer_decode(t, ids, count, skip, &text, &size, &err));
    if (size != want_size || memcmp(text, want, size) != 0)
        fail_msg("line %zu: decoded%s: expected \"%s\", got \"%s\"", line, skip ? " (skip)" : "",
                 want, text);
    assert_int_equal(text[size], 0);
    free(text);
    free(want);
}

/* What every tokenizer's offsets must satisfy: in the text, on character boundaries. */
static void check_offsets(const char *text, size_t size, const size_t *begin, const size_t *end,
                          size_t count, size_t line)
{
    for (size_t i = 0; i < count; i++) {
        if (begin[i] > end[i] || end[i] > size)
            fail_msg("line %zu: offsets %zu: %zu-%zu of %zu", line, i, begin[i], end[i], size);
        if (begin[i] < size) assert_true(((unsigned char)text[begin[i]] & 0xC0) != 0x80);
        if (end[i] < size) assert_true(((unsigned char)text[end[i]] & 0xC0) != 0x80);
    }
}

static void run_case(const ct_tokenizer *t, ct_scan object, size_t line)
{
    enum { TEXT, IDS, OFFSETS, DECODED, SKIPPED, N };
    static const char *const names[] = {"text", "ids", "offsets", "decoded", "skipped"};
    ct_scan v[N];
    char *text;
    int32_t *ids, *plain;
    size_t size, count, n, n_plain, *begin, *end;
    assert_ok(ct_fields_read(object, "case", names, N, v, &err));
    assert_ok(ct_field_text(v[TEXT], "case", "text", &text, &size, &err));
    int64_t *expected = numbers(v[IDS], &n);

    assert_ok(ct_tokenizer_encode(t, text, size, true, &ids, &count, &err));
    compare_ids("with special tokens", line, ids, count, expected, n);
    compare_decoded(t, false, line, ids, count, v[DECODED]);
    compare_decoded(t, true, line, ids, count, v[SKIPPED].at ? v[SKIPPED] : v[DECODED]);

    assert_ok(
        ct_tokenizer_encode_offsets(t, text, size, false, &plain, &begin, &end, &n_plain, &err));
    assert_true(n_plain <= n && n - n_plain <= 1);
    compare_ids("plain", line, plain, n_plain, expected + (n - n_plain), n_plain);
    check_offsets(text, size, begin, end, n_plain, line);
    free(expected);
    if (v[OFFSETS].at) {
        expected = numbers(v[OFFSETS], &n);
        assert_int_equal(n, 2 * n_plain);
        for (size_t i = 0; i < n_plain; i++)
            if ((int64_t)begin[i] != expected[2 * i] || (int64_t)end[i] != expected[2 * i + 1])
                fail_msg("line %zu: offsets %zu: expected %lld-%lld, got %zu-%zu", line, i,
                         (long long)expected[2 * i], (long long)expected[2 * i + 1], begin[i],
                         end[i]);
        free(expected);
    }
    free(plain);
    free(begin);
    free(end);
    free(ids);
    free(text);
}

/* Runs all cases of a folder; returns how many. */
static size_t run_folder(const char *folder)
{
    ct_tokenizer *t;
    ct_map cases;
    assert_ok(ct_tokenizer_open(folder, &t, &err));
    char *path = ct_path_join(folder, "cases.jsonl", &err);
    assert_ok(ct_map_open(path, &cases, &err));
    size_t line = 0;
    ct_scan scan = ct_scan_start(cases.data, cases.size);
    while (ct_scan_peek(&scan)) {
        run_case(t, scan, ++line);
        assert_true(ct_scan_skip(&scan));
    }
    ct_map_close(&cases);
    free(path);
    ct_tokenizer_close(t);
    return line;
}

static void ids_offsets_and_text_are_those_of_the_library(void **state)
{
    char folder[4096];
    const char *name = *state, *given = getenv("CORTADO_TOKENIZER_GOLDEN");
    snprintf(folder, sizeof folder, "%s/tests/unit/tok/golden/%s", CT_SOURCE_DIR, name);
    size_t count = run_folder(given ? given : folder);
    printf("%s: %zu cases\n", given ? given : name, count);
    assert_true(count > 30);
}

int main(void)
{
    static char names[][32] = {"gemma",  "llama",   "llama-metaspace", "gpt2",
                               "llama3", "options", "contiguous"};
    enum { N = sizeof names / sizeof *names };
    struct CMUnitTest tests[N] = {{0}};
    for (size_t i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest){names[i], ids_offsets_and_text_are_those_of_the_library,
                                       NULL, NULL, names[i]};
    if (getenv("CORTADO_TOKENIZER_GOLDEN")) tests[0].name = "given folder";
    return _cmocka_run_group_tests("golden", tests, getenv("CORTADO_TOKENIZER_GOLDEN") ? 1 : N,
                                   NULL, NULL);
}
