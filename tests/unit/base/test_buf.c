/* test_buf.c - buffers, nearest names, UTF-8, error lines. */
#include "test.h"

#include "base/buf.h"

static void nearest_name_is_found_for_a_slip_and_not_for_another_word(void **state)
{
    (void)state;
    const char *const names[] = {"entropy", "l2", "random"};
    assert_string_equal(ct_nearest("entorpy", names, 3), "entropy");
    assert_string_equal(ct_nearest("randm", names, 3), "random");
    assert_null(ct_nearest("zzzzzz", names, 3));
}

static void error_text_is_one_line_even_if_the_input_has_control_characters(void **state)
{
    (void)state;
    ct_err err = {0};
    assert_int_equal(ct_fail(&err, CT_ERR_VALUE, "bad %s", "a\nb\x01"), CT_ERR_VALUE);
    assert_string_equal(err.text, "bad a b?");
}

static void error_text_is_utf8_even_if_a_path_is_not(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_fail(&err, CT_ERR_IO, "%s", "a\xE9 \xE2\x82 \xE2\x82\xAC\xFF");
    assert_string_equal(err.text, "a? ?? \xE2\x82\xAC?");
    for (size_t shift = 0; shift < 4; shift++) { /* cut at each place of a character */
        char text[2000] = "abc";
        for (size_t i = shift; i + 4 < sizeof text; i += 4) memcpy(text + i, "\xF0\x9F\x98\x80", 5);
        ct_fail(&err, CT_ERR_IO, "%s", text);
        assert_true(ct_utf8_valid(err.text, strlen(err.text)));
        assert_true(strlen(err.text) >= CT_ERR_TEXT_MAX - 4);
        assert_null(strchr(err.text, '?'));
    }
}

static void error_text_that_is_too_long_is_cut_at_a_character(void **state)
{
    (void)state;
    ct_err err = {0};
    char text[2000];
    for (size_t i = 0; i + 1 < sizeof text; i += 2) memcpy(text + i, "\xC3\xA9", 2);
    text[sizeof text - 2] = 0;
    ct_fail(&err, CT_ERR_VALUE, "%s", text);
    assert_true(ct_utf8_valid(err.text, strlen(err.text)));
    assert_true(strlen(err.text) > CT_ERR_TEXT_MAX - 4);
}

static void utf8_check_refuses_overlong_surrogate_and_truncated_forms(void **state)
{
    (void)state;
    assert_true(ct_utf8_valid("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", 10));
    assert_false(ct_utf8_valid("\xC0\x80", 2));
    assert_false(ct_utf8_valid("\xED\xA0\x80", 3));
    assert_false(ct_utf8_valid("\xE2\x82", 2));
    assert_false(ct_utf8_valid("\xF4\x90\x80\x80", 4));
}

static void utf8_put_and_next_are_inverse(void **state)
{
    (void)state;
    const uint32_t points[] = {0x41,   0xE9,    0x7FF,   0x800,   0x20AC,
                               0xFFFD, 0x10000, 0x1F600, 0x10FFFF};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        char bytes[4];
        uint32_t back;
        size_t n = ct_utf8_put(points[i], bytes);
        assert_int_equal(ct_utf8_next(bytes, n, &back), n);
        assert_int_equal(back, points[i]);
    }
}

static void buffer_grows_and_hands_its_bytes_over(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_buf buf = {0};
    for (int i = 0; i < 100; i++) assert_ok(ct_buf_addf(&buf, &err, "%d,", i));
    assert_int_equal(buf.size, 290);
    char *text = ct_buf_take(&buf);
    assert_int_equal(strlen(text), 290);
    assert_null(buf.data);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearest_name_is_found_for_a_slip_and_not_for_another_word),
        cmocka_unit_test(error_text_is_one_line_even_if_the_input_has_control_characters),
        cmocka_unit_test(error_text_is_utf8_even_if_a_path_is_not),
        cmocka_unit_test(error_text_that_is_too_long_is_cut_at_a_character),
        cmocka_unit_test(utf8_check_refuses_overlong_surrogate_and_truncated_forms),
        cmocka_unit_test(utf8_put_and_next_are_inverse),
        cmocka_unit_test(buffer_grows_and_hands_its_bytes_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
