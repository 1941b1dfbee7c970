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

/* Reads an array of numbers, one or two a place, into a list of int64. */
static int64_t *numbers(ct_scan value, size_t per_place, size_t *count)
{
    int64_t *list = malloc((size_t)(value.end - value.at) * sizeof *list);
    bool first = true, inner;
    *count = 0;
    assert_true(ct_scan_take(&value, '['));
    while (ct_scan_next_element(&value, &first)) {
        if (per_place == 1) {
            assert_true(ct_scan_integer(&value, &list[(*count)++]));
            continue;
        }
        inner = true;
        assert_true(ct_scan_take(&value, '['));
        while (ct_scan_next_element(&value, &inner))
            assert_true(ct_scan_integer(&value, &list[(*count)++]));
    }
    assert_null(value.problem);
    return list;
}

static void compare_ids(const char *what, size_t line, const int32_t *got, size_t n_got,
                        ct_scan expected)
{
    size_t n;
    int64_t *list = numbers(expected, 1, &n);
    for (size_t i = 0; i < n && i < n_got; i++)
        if (got[i] != list[i])
            fail_msg("line %zu: %s: place %zu: expected %lld, got %d", line, what, i,
                     (long long)list[i], got[i]);
    if (n != n_got) fail_msg("line %zu: %s: expected %zu ids, got %zu", line, what, n, n_got);
    free(list);
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

/* What every tokenizer's offsets must satisfy: in the text, in order, on character boundaries. */
static void check_offsets(const char *text, size_t size, const size_t *begin, const size_t *end,
                          size_t count, size_t line)
{
    for (size_t i = 0; i < count; i++) {
        if (begin[i] > end[i] || end[i] > size || (i > 0 && begin[i] < begin[i - 1]))
            fail_msg("line %zu: offsets %zu: %zu-%zu of %zu", line, i, begin[i], end[i], size);
        if (begin[i] < size) assert_true(((unsigned char)text[begin[i]] & 0xC0) != 0x80);
        if (end[i] < size) assert_true(((unsigned char)text[end[i]] & 0xC0) != 0x80);
    }
}

static void run_case(const ct_tokenizer *t, ct_scan object, size_t line, bool same_offsets)
{
    enum { TEXT, IDS, PLAIN, OFFSETS, DECODED, SKIPPED, N };
    static const char *const names[] = {"text", "ids", "plain", "offsets", "decoded", "skipped"};
    ct_scan v[N];
    char *text;
    int32_t *ids;
    size_t size, count, *begin, *end, n;
    assert_ok(ct_fields_read(object, "case", names, N, v, &err));
    assert_ok(ct_field_text(v[TEXT], "case", "text", &text, &size, &err));

    assert_ok(ct_tokenizer_encode(t, text, size, true, &ids, &count, &err));
    compare_ids("with special tokens", line, ids, count, v[IDS]);
    compare_decoded(t, false, line, ids, count, v[DECODED]);
    compare_decoded(t, true, line, ids, count, v[SKIPPED]);
    free(ids);

    assert_ok(ct_tokenizer_encode_offsets(t, text, size, false, &ids, &begin, &end, &count, &err));
    compare_ids("plain", line, ids, count, v[PLAIN]);
    check_offsets(text, size, begin, end, count, line);
    int64_t *offsets = numbers(v[OFFSETS], 2, &n);
    assert_int_equal(n, 2 * count);
    for (size_t i = 0; same_offsets && i < count; i++)
        if ((int64_t)begin[i] != offsets[2 * i] || (int64_t)end[i] != offsets[2 * i + 1])
            fail_msg("line %zu: offsets %zu: expected %lld-%lld, got %zu-%zu", line, i,
                     (long long)offsets[2 * i], (long long)offsets[2 * i + 1], begin[i], end[i]);
    free(offsets);
    free(ids);
    free(begin);
    free(end);
    free(text);
}

static void run_folder(const char *folder, bool same_offsets)
{
    ct_tokenizer *t;
    ct_map cases;
    assert_ok(ct_tokenizer_open(folder, &t, &err));
    char *path = ct_path_join(folder, "cases.jsonl", &err);
    assert_ok(ct_map_open(path, &cases, &err));
    size_t line = 0;
    ct_scan scan = ct_scan_start(cases.data, cases.size);
    while (ct_scan_peek(&scan)) {
        run_case(t, scan, ++line, same_offsets);
        assert_true(ct_scan_skip(&scan));
    }
    printf("%s: %zu cases\n", folder, line);
    assert_true(line > 0);
    ct_map_close(&cases);
    free(path);
    ct_tokenizer_close(t);
}

static void a_given_folder_is_encoded_and_decoded_as_the_library_does(void **state)
{
    run_folder(*state, true);
}

int main(void)
{
    char *given = getenv("CORTADO_TOKENIZER_GOLDEN");
    const struct CMUnitTest given_tests[] = {
        cmocka_unit_test_prestate(a_given_folder_is_encoded_and_decoded_as_the_library_does, given),
    };
    if (given) return cmocka_run_group_tests(given_tests, NULL, NULL);
    return 77;
}
