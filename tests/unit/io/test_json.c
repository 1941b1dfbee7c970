/* test_json.c - JSON from outside: limits, and fields whose errors name file and key. */
#include "test.h"

#include "base/buf.h"
#include "io/json.h"
#include "unit/io/alloc.h"
#include "unit/io/temp.h"

static json_t *parse(const char *text)
{
    ct_err err = {0};
    json_t *value;
    assert_ok(ct_json_parse(text, strlen(text), "config.json", &value, &err));
    return value;
}

static void expect_refused(const char *text, size_t size, ct_status status, const char *part)
{
    ct_err err = {0};
    json_t *value;
    assert_fails(ct_json_parse(text, size, "t", &value, &err), status, part);
    assert_null(value);
}

static void text_that_is_no_json_object_is_refused_with_its_place(void **state)
{
    (void)state;
    const char *const cases[][2] = {
        {"", "t: line 1, column 0: not valid JSON: '[' or '{' expected near end of file"},
        {"[]", "t: expected a JSON object, got an array"},
        {"1", "t: line 1, column 1: not valid JSON: '[' or '{' expected near '1'"},
        {"{} {}", "t: line 1, column 4: not valid JSON: end of file expected near '{'"},
        {"{\n\"a\": 1,\n}", "t: line 3, column 1: not valid JSON: string or '}' expected near '}'"},
        {"{\"a\":1,\"a\":2}",
         "t: line 1, column 10: not valid JSON: duplicate object key near '\"a\"'"},
        {"{\"a\":NaN}", "t: line 1, column 8: not valid JSON: invalid token near 'NaN'"},
        {"{\"a\":\"\xff\"}", "t: line 1, column 6: not valid JSON: unable to decode byte 0xff"},
        {"{\"a\":\"\\u0000\"}", "t: line 1, column 13: not valid JSON: \\u0000 is not allowed"},
        {"{\"a\":1e999}", "t: line 1, column 10: not valid JSON: real number overflow"},
        {"\xef\xbb\xbf{}", "t: line 1, column 1: not valid JSON: '[' or '{' expected near"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refused(cases[i][0], strlen(cases[i][0]), CT_ERR_FORMAT, cases[i][1]);
    expect_refused("{}\0", 3, CT_ERR_FORMAT, "not valid JSON");
}

static void nesting_beyond_128_is_refused_before_it_is_parsed(void **state)
{
    (void)state;
    static char deep[100000];
    memset(deep, '[', sizeof deep);
    expect_refused(deep, sizeof deep, CT_ERR_LIMIT,
                   "t: expected at most 128 nested values, got 100000");
    /* Brackets in strings do not nest, quotes behind a backslash do not end a string. */
    ct_buf text = {0};
    ct_err err = {0};
    json_t *value;
    assert_ok(ct_buf_adds(&text, "{\"a\":\"\\\"", &err));
    for (int i = 0; i < 1000; i++) assert_ok(ct_buf_adds(&text, "[{", &err));
    assert_ok(ct_buf_adds(&text, "\"}", &err));
    assert_ok(ct_json_parse(text.data, text.size, "t", &value, &err));
    json_decref(value);
    ct_buf_clear(&text);
}

static void a_tree_takes_at_most_16_mib_and_16_bytes_for_each_byte(void **state)
{
    (void)state;
    /* The texts whose trees are largest for their size. */
    const char *const items[] = {"{}", "[]", "1", "\"\"", "{\"\":0}", "1.5", "[[]]", "null"};
    for (size_t i = 0; i < sizeof items / sizeof *items; i++)
        for (size_t n = 10; n <= 1000000; n *= 10) {
            ct_err err = {0};
            ct_buf text = {0};
            json_t *value;
            assert_ok(ct_buf_adds(&text, "{\"a\":[0", &err));
            for (size_t k = 0; k < n; k++) {
                assert_ok(ct_buf_adds(&text, ",", &err));
                assert_ok(ct_buf_adds(&text, items[i], &err));
            }
            assert_ok(ct_buf_adds(&text, "]}", &err));
            alloc_start(0);
            ct_status st = ct_json_parse(text.data, text.size, "t", &value, &err);
            json_decref(value);
            alloc_stop();
            assert_int_equal(alloc.live, 0);
            assert_true(alloc.peak <= (16 << 20) + 16 * (int64_t)text.size);
            if (n <= 10000) assert_int_equal(st, CT_OK);
            else if (st != CT_OK) assert_int_equal(st, CT_ERR_LIMIT);
            ct_buf_clear(&text);
        }
}

static void keys_are_counted_in_the_limit_too(void **state)
{
    (void)state;
    for (size_t n = 100; n <= 1000000; n *= 10) {
        ct_err err = {0};
        ct_buf text = {0};
        json_t *value;
        for (size_t k = 0; k < n; k++)
            assert_ok(ct_buf_addf(&text, &err, "%s\"%zx\":0", k ? "," : "{", k));
        assert_ok(ct_buf_adds(&text, "}", &err));
        alloc_start(0);
        ct_status st = ct_json_parse(text.data, text.size, "t", &value, &err);
        json_decref(value);
        alloc_stop();
        assert_true(alloc.peak <= (16 << 20) + 16 * (int64_t)text.size);
        assert_int_equal(st, n <= 10000 ? CT_OK : st == CT_OK ? CT_OK : CT_ERR_LIMIT);
        ct_buf_clear(&text);
    }
}

static void an_integer_beyond_64_bits_becomes_a_real_and_no_other_does(void **state)
{
    (void)state;
    ct_err err = {0};
    int64_t whole = 0;
    double real = 0;
    const char *text = NULL;
    json_t *value = parse("{\"big\": 1000000000000000019884624838656, \"max\": 9223372036854775807,"
                          "\"over\":9223372036854775808,\"min\": -9223372036854775807, \"s\": "
                          "\"99999999999999999999\","
                          "\"r\": 123456789012345678901.5, \"list\": [99999999999999999999]}");
    assert_ok(ct_json_real(value, "big", true, 0, 1e40, "t", &real, &err));
    assert_true(real == 1e30);
    assert_ok(ct_json_int(value, "max", true, 0, INT64_MAX, "t", &whole, &err));
    assert_int_equal(whole, INT64_MAX);
    assert_ok(ct_json_int(value, "min", true, INT64_MIN, 0, "t", &whole, &err));
    assert_int_equal(whole, -INT64_MAX);
    assert_ok(ct_json_real(value, "over", true, 0, 1e40, "t", &real, &err));
    assert_true(real == 0x1p63);
    assert_fails(ct_json_int(value, "over", true, 0, INT64_MAX, "t", &whole, &err), CT_ERR_FORMAT,
                 "t: over: expected an integer, got a number with a fraction or exponent");
    assert_ok(ct_json_text(value, "s", true, "t", &text, &err));
    assert_string_equal(text, "99999999999999999999");
    json_decref(value);
}

static void integers_must_be_integers_in_range(void **state)
{
    (void)state;
    ct_err err = {0};
    int64_t n = 7;
    json_t *c =
        parse("{\"n\": 4, \"zero\": 0, \"neg\": -4, \"huge\": 9223372036854775807, \"f\": 4.0,"
              "\"e\": 1e3, \"s\": \"4\", \"null\": null, \"t\": true, \"l\": [4], \"o\": {}}");
    assert_ok(ct_json_int(c, "n", true, 1, 8, "config.json", &n, &err));
    assert_int_equal(n, 4);
    const struct {
        const char *key;
        ct_status status;
        const char *text;
    } cases[] = {
        {"zero", CT_ERR_VALUE, "config.json: zero: expected 1 to 8, got 0"},
        {"neg", CT_ERR_VALUE, "config.json: neg: expected 1 to 8, got -4"},
        {"huge", CT_ERR_VALUE, "config.json: huge: expected 1 to 8, got 9223372036854775807"},
        {"f", CT_ERR_FORMAT,
         "config.json: f: expected an integer, got a number with a fraction or exponent"},
        {"e", CT_ERR_FORMAT,
         "config.json: e: expected an integer, got a number with a fraction or exponent"},
        {"s", CT_ERR_FORMAT, "config.json: s: expected an integer, got a string"},
        {"t", CT_ERR_FORMAT, "config.json: t: expected an integer, got a boolean"},
        {"l", CT_ERR_FORMAT, "config.json: l: expected an integer, got an array"},
        {"o", CT_ERR_FORMAT, "config.json: o: expected an integer, got an object"},
        {"null", CT_ERR_NOT_FOUND, "config.json: null: expected an integer, got null"},
        {"absent", CT_ERR_NOT_FOUND, "config.json: absent: expected an integer, got none"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(ct_json_int(c, cases[i].key, true, 1, 8, "config.json", &n, &err),
                         cases[i].status);
        assert_string_equal(err.text, cases[i].text);
        assert_int_equal(n, 4); /* untouched */
    }
    assert_ok(ct_json_int(c, "null", false, 1, 8, "config.json", &n, &err));
    assert_ok(ct_json_int(c, "absent", false, 1, 8, "config.json", &n, &err));
    assert_int_equal(n, 4);
    assert_fails(ct_json_int(c, "s", false, 1, 8, "config.json", &n, &err), CT_ERR_FORMAT,
                 "s: expected an integer");
    json_decref(c);
}

static void a_missing_key_names_the_nearest_that_is_there(void **state)
{
    (void)state;
    ct_err err = {0};
    int64_t n;
    json_t *c = parse("{\"hiden_size\": 96, \"num_layers\": 2, \"vocab_size\": 512}");
    assert_fails(
        ct_json_int(c, "hidden_size", true, 1, 8, "config.json", &n, &err), CT_ERR_NOT_FOUND,
        "config.json: hidden_size: expected an integer, got none; did you mean \"hiden_size\"?");
    assert_int_equal(ct_json_int(c, "rope_theta", true, 1, 8, "config.json", &n, &err),
                     CT_ERR_NOT_FOUND);
    assert_string_equal(err.text, "config.json: rope_theta: expected an integer, got none");
    json_decref(c);
}

static void reals_booleans_texts_and_lists_have_their_own_type(void **state)
{
    (void)state;
    ct_err err = {0};
    double real = -1;
    bool yes = true;
    const char *text = "old";
    const json_t *list = NULL;
    json_t *c = parse("{\"i\": 10000, \"r\": 1e-6, \"neg\": -0.5, \"no\": false, \"s\": \"gelu\","
                      "\"l\": [\"a\", \"b\"], \"mixed\": [\"a\", 1], \"empty\": []}");
    assert_ok(ct_json_real(c, "i", true, 0, 1e9, "c", &real, &err));
    assert_true(real == 10000);
    assert_ok(ct_json_real(c, "r", true, 0, 1, "c", &real, &err));
    assert_true(real == 1e-6);
    assert_fails(ct_json_real(c, "neg", true, 0, 1, "c", &real, &err), CT_ERR_VALUE,
                 "c: neg: expected 0 to 1, got -0.5");
    assert_fails(ct_json_real(c, "s", true, 0, 1, "c", &real, &err), CT_ERR_FORMAT,
                 "c: s: expected a number, got a string");
    assert_ok(ct_json_bool(c, "no", true, "c", &yes, &err));
    assert_false(yes);
    assert_fails(ct_json_bool(c, "i", true, "c", &yes, &err), CT_ERR_FORMAT,
                 "c: i: expected true or false, got an integer");
    assert_ok(ct_json_text(c, "absent", false, "c", &text, &err));
    assert_string_equal(text, "old");
    assert_ok(ct_json_text(c, "s", true, "c", &text, &err));
    assert_string_equal(text, "gelu");
    assert_fails(ct_json_text(c, "l", true, "c", &text, &err), CT_ERR_FORMAT,
                 "c: l: expected a string, got an array");
    assert_ok(ct_json_texts(c, "l", true, "c", &list, &err));
    assert_int_equal(json_array_size(list), 2);
    assert_ok(ct_json_texts(c, "empty", true, "c", &list, &err));
    assert_fails(ct_json_texts(c, "mixed", true, "c", &list, &err), CT_ERR_FORMAT,
                 "c: mixed[1]: expected a string, got an integer");
    assert_fails(ct_json_texts(c, "s", true, "c", &list, &err), CT_ERR_FORMAT,
                 "c: s: expected an array of strings, got a string");
    json_decref(c);
}

static void a_file_is_parsed_up_to_its_limit(void **state)
{
    (void)state;
    ct_err err = {0};
    json_t *value;
    temp_text("c.json", "{\"a\": 1}");
    assert_ok(ct_json_open(temp_path("c.json"), 8, &value, &err));
    json_decref(value);
    assert_fails(ct_json_open(temp_path("c.json"), 7, &value, &err), CT_ERR_LIMIT,
                 "/c.json: expected at most 7 bytes, got 8");
    assert_fails(ct_json_open(temp_path("d.json"), 7, &value, &err), CT_ERR_NOT_FOUND, "/d.json: ");
    temp_text("e.json", "{");
    assert_fails(ct_json_open(temp_path("e.json"), 7, &value, &err), CT_ERR_FORMAT,
                 "/e.json: line 1");
}

static void every_allocation_that_fails_gives_a_status_and_no_leak(void **state)
{
    (void)state;
    /* Texts and numbers that are longer than jansson's buffer of a token at its start. */
    const char *text = "{\"a\": [1, 2.5, \"x\", {\"b\": null}], \"big\": 99999999999999999999, "
                       "\"n\": 0.12345678901234567890, \"long\": \"a text of more than 32 bytes, "
                       "and then more than 64 bytes\"}";
    for (long n = 1;; n++) {
        ct_err err = {0};
        json_t *value;
        alloc_start(n);
        ct_status st = ct_json_parse(text, strlen(text), "t", &value, &err);
        size_t length = json_string_length(json_object_get(value, "long"));
        json_decref(value);
        alloc_stop();
        assert_int_equal(alloc.live, 0);
        if (st == CT_OK) {
            assert_true(alloc.calls < n);
            assert_int_equal(length, 57);
            assert_true(n > 10);
            break;
        }
        if (st != CT_ERR_MEMORY) fail_msg("call %ld: %s: %s", n, ct_status_name(st), err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_that_is_no_json_object_is_refused_with_its_place),
        cmocka_unit_test(nesting_beyond_128_is_refused_before_it_is_parsed),
        cmocka_unit_test(a_tree_takes_at_most_16_mib_and_16_bytes_for_each_byte),
        cmocka_unit_test(keys_are_counted_in_the_limit_too),
        cmocka_unit_test(an_integer_beyond_64_bits_becomes_a_real_and_no_other_does),
        cmocka_unit_test(integers_must_be_integers_in_range),
        cmocka_unit_test(a_missing_key_names_the_nearest_that_is_there),
        cmocka_unit_test(reals_booleans_texts_and_lists_have_their_own_type),
        cmocka_unit_test(a_file_is_parsed_up_to_its_limit),
        cmocka_unit_test(every_allocation_that_fails_gives_a_status_and_no_leak),
    };
    return cmocka_run_group_tests(tests, temp_begin, temp_end);
}
