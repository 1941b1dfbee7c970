/* test_scan.c - the scanner accepts exactly JSON; jansson is the judge. */
#include "test.h"

#include <jansson.h>

#include "base/buf.h"
#include "base/rng.h"
#include "io/scan.h"

static bool accepts(const char *bytes, size_t size)
{
    char *exact = malloc(size ? size : 1); /* so that a read beyond the end is seen */
    memcpy(exact, bytes, size);
    ct_scan scan = ct_scan_start(exact, size);
    bool good = ct_scan_skip(&scan) && ct_scan_finish(&scan);
    assert_true(good == !scan.problem);
    assert_true(scan.at >= scan.begin && scan.at <= scan.end);
    free(exact);
    return good;
}

static bool jansson_accepts(const char *bytes, size_t size)
{
    json_t *value =
        json_loadb(bytes, size, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
    json_decref(value);
    return value != NULL;
}

static void values_are_told_from_what_is_none(void **state)
{
    (void)state;
    const char *const good[] = {"0",
                                "-0",
                                "12.5e+3",
                                "1E-2",
                                "\"\"",
                                "\"\\ud83d\\ude00\\n\\/\"",
                                "[]",
                                "[1,[2,{}],null]",
                                "{\"a\":{\"b\":[true,false]}}",
                                " \t\r\n1 "};
    const char *const bad[] = {"",      "-",       "01",          "1.",          ".5",
                               "1e",    "+1",      "tru",         "nul",         "[1,]",
                               "[,1]",  "{\"a\"}", "{\"a\":}",    "{a:1}",       "{\"a\":1,}",
                               "\"",    "\"\\q\"", "\"\\u12g4\"", "\"\\udc00\"", "\"\\ud800x\"",
                               "[1 2]", "1 2",     "NaN",         "\"\n\"",      "[",
                               "{",     "}",       "'a'",         "// x\n1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (!accepts(good[i], strlen(good[i]))) fail_msg("refused: %s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (accepts(bad[i], strlen(bad[i]))) fail_msg("accepted: %s", bad[i]);
}

static void random_texts_are_judged_as_jansson_judges_them(void **state)
{
    (void)state;
    static const char *const pieces[] = {
        "{", "}", "[", "]", ",",    ":",    "\"", "\\",      "\"a\"",   "\"b\":",  "0",
        "1", "-", ".", "e", "true", "null", " ",  "\\u00e9", "\\ud83d", "\\ude00", "\xC3\xA9"};
    const size_t n_pieces = sizeof pieces / sizeof *pieces;
    size_t valid = 0;
    for (uint64_t i = 0; i < 300000; i++) {
        char text[64] = "";
        size_t n = 1 + ct_rng_u64(1, i, 0) % 7;
        for (size_t k = 0; k < n; k++) strcat(text, pieces[ct_rng_u64(1, i, k + 1) % n_pieces]);
        bool expected = jansson_accepts(text, strlen(text));
        valid += expected;
        if (accepts(text, strlen(text)) != expected)
            fail_msg("jansson %s: %s", expected ? "accepts" : "refuses", text);
    }
    assert_true(valid > 1000); /* the comparison met both kinds */
}

static void depth_128_is_read_and_129_is_not(void **state)
{
    (void)state;
    char text[258];
    for (size_t depth = 128; depth <= 129; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        assert_int_equal(accepts(text, 2 * depth), depth == 128);
    }
}

static void integers_are_read_up_to_the_largest_and_no_further(void **state)
{
    (void)state;
    const struct {
        const char *text;
        bool good;
        int64_t value;
    } cases[] = {{"0", true, 0},
                 {" 7,", true, 7},
                 {"9223372036854775807", true, INT64_MAX},
                 {"9223372036854775808", false, 0},
                 {"18446744073709551616", false, 0},
                 {"99999999999999999999999999", false, 0},
                 {"1.0", false, 0},
                 {"1e3", false, 0},
                 {"-1", false, 0},
                 {"00", false, 0},
                 {"", false, 0},
                 {"x", false, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t value = -1;
        ct_scan scan = ct_scan_start(cases[i].text, strlen(cases[i].text));
        assert_int_equal(ct_scan_integer(&scan, &value), cases[i].good);
        if (cases[i].good) assert_int_equal(value, cases[i].value);
    }
}

static void escapes_are_resolved_as_jansson_resolves_them(void **state)
{
    (void)state;
    const char *text =
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t plain \\u0041\\u00e9\\u20ac\\ud83d\\ude00\\u0000!\"";
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    ct_scan scan = ct_scan_start(text, strlen(text));
    ct_scan_text raw;
    char out[128];
    assert_true(ct_scan_string(&scan, &raw));
    assert_int_equal(ct_scan_unescape(raw, out), json_string_length(value));
    assert_memory_equal(out, json_string_value(value), json_string_length(value));
    json_decref(value);
    scan = ct_scan_start("\"d\\u0074ype\"", 12);
    assert_true(ct_scan_string(&scan, &raw));
    assert_true(ct_scan_equal(raw, "dtype"));
    assert_false(ct_scan_equal(raw, "dtyp"));
    assert_false(ct_scan_equal(raw, "dtype2"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_told_from_what_is_none),
        cmocka_unit_test(random_texts_are_judged_as_jansson_judges_them),
        cmocka_unit_test(depth_128_is_read_and_129_is_not),
        cmocka_unit_test(integers_are_read_up_to_the_largest_and_no_further),
        cmocka_unit_test(escapes_are_resolved_as_jansson_resolves_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
