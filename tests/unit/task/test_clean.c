/* test_clean.c - cleaning of answers against Python: tests/unit/task/clean.jsonl, written by
 * tools/oracle_clean.py. With a file of the same form as argument, compares that one instead. */
#include "test.h"

#include <jansson.h>

#include "task/niah.h"
#include "task/text.h"

static const char *golden_path;

static void cleaning_agrees_with_python_on_every_line_of_the_golden(void **state)
{
    (void)state;
    ct_err err = {0};
    FILE *file = fopen(golden_path, "r");
    if (!file) fail_msg("%s cannot be opened", golden_path);
    char *line = NULL;
    size_t capacity = 0, lines = 0;
    while (getline(&line, &capacity, file) > 0) {
        json_t *pair = json_loads(line, JSON_ALLOW_NUL, NULL);
        const char *text, *expected;
        size_t size, expected_size;
        lines++;
        if (json_unpack(pair, "[s%s%]", &text, &size, &expected, &expected_size) != 0)
            fail_msg("line %zu is not [text, cleaned]", lines);
        char *clean;
        assert_ok(ct_score_clean(text, size, &clean, &err));
        if (strlen(clean) != expected_size || memcmp(clean, expected, expected_size) != 0)
            fail_msg("line %zu: %s gave \"%s\"", lines, line, clean);
        free(clean);
        json_decref(pair);
    }
    free(line);
    fclose(file);
    assert_true(lines >= 100);
}

static void assert_clean(const char *text, size_t size, const char *expected)
{
    ct_err err = {0};
    char *clean;
    assert_ok(ct_score_clean(text, size, &clean, &err));
    assert_string_equal(clean, expected);
    free(clean);
}

static void cleaning_handles_what_python_strings_cannot_hold(void **state)
{
    (void)state;
    assert_clean("", 0, "");
    assert_clean(" \t\n\xC2\x85\xE3\x80\x80", 8, "");
    assert_clean("a\xFF"
                 "b\xC3",
                 4, "ab");                 /* bytes that are not UTF-8 */
    assert_clean("\xED\xA0\x80x", 4, "x"); /* a lone surrogate */
    assert_clean("a\0b", 3, "ab");         /* NUL */
}

static void capital_sigma_is_final_only_at_the_end_of_a_word(void **state)
{
    (void)state;
    assert_clean("\xCE\x91\xCE\xA3 \xCE\xA3", 7, "\xCE\xB1\xCF\x82 \xCF\x83");
    assert_clean("\xCE\x91\xCE\xA3\xCE\xA3.\xCE\x91", 9, "\xCE\xB1\xCF\x83\xCF\x83\xCE\xB1");
}

static void cleaning_takes_linear_time(void **state)
{
    (void)state;
    ct_err err = {0};
    /* Case-ignorable dots after and before sigmas: a scan from each would take 10^12 steps, and the
     * test's time limit would end it. */
    enum { N = 1000000 };
    char *text = malloc(2 * N), *clean;
    assert_non_null(text);
    memset(text, '.', 2 * N);
    for (size_t i = 0; i < N; i += 1000) memcpy(text + i, "a\xCE\xA3", 3);
    assert_ok(ct_score_clean(text, 2 * N, &clean, &err));
    assert_int_equal(strlen(clean), N / 1000 * 3);
    free(clean);
    free(text);
}

static void stripping_leaves_white_space_within(void **state)
{
    (void)state;
    static const char text[] = "\n \xC2\xA0The best\tday.\n\n";
    size_t begin = 0, end = sizeof text - 1;
    ct_text_strip(text, &begin, &end);
    assert_int_equal(begin, 4);
    assert_int_equal(end, sizeof text - 3);
    begin = 0, end = 2;
    ct_text_strip(text, &begin, &end);
    assert_int_equal(begin, end);
}

static void quotes_are_cut_at_a_character(void **state)
{
    (void)state;
    char text[100];
    memset(text, 'x', sizeof text);
    memcpy(text + 59, "\xE2\x82\xAC", 3);
    const char *quote = ct_text_quote(text, sizeof text).text;
    assert_int_equal(strlen(quote), 62);
    assert_string_equal(quote + 58, "x...");
    assert_string_equal(ct_text_quote("short", 5).text, "short");
}

int main(int argc, char **argv)
{
    golden_path = argc > 1 ? argv[1] : CT_SOURCE_DIR "/tests/unit/task/clean.jsonl";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cleaning_agrees_with_python_on_every_line_of_the_golden),
        cmocka_unit_test(cleaning_handles_what_python_strings_cannot_hold),
        cmocka_unit_test(capital_sigma_is_final_only_at_the_end_of_a_word),
        cmocka_unit_test(cleaning_takes_linear_time),
        cmocka_unit_test(stripping_leaves_white_space_within),
        cmocka_unit_test(quotes_are_cut_at_a_character),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
