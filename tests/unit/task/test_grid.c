/* test_grid.c - lists of whole numbers. */
#include "test.h"

#include "task/grid.h"

#define assert_list(values, count, ...)                                                            \
    do {                                                                                           \
        const int64_t expected[] = {__VA_ARGS__};                                                  \
        assert_int_equal(count, sizeof expected / sizeof *expected);                               \
        assert_memory_equal(values, expected, sizeof expected);                                    \
        free(values);                                                                              \
    } while (0)

static void linspace_gives_the_lengths_and_depths_of_the_thesis(void **state)
{
    (void)state;
    ct_err err = {0};
    int64_t *v;
    assert_ok(ct_grid_linspace(250, 4096, 10, "lengths", &v, &err));
    assert_list(v, 10, 250, 677, 1105, 1532, 1959, 2387, 2814, 3241, 3669, 4096);
    assert_ok(ct_grid_linspace(0, 100, 10, "depths", &v, &err));
    assert_list(v, 10, 0, 11, 22, 33, 44, 56, 67, 78, 89, 100);
}

/* Expected values: numpy.round(numpy.linspace(a, b, n)).astype(int), numpy 2.4.6. */
static void linspace_rounds_halves_to_even_as_numpy(void **state)
{
    (void)state;
    ct_err err = {0};
    int64_t *v;
    assert_ok(ct_grid_linspace(0, 5, 11, "x", &v, &err));
    assert_list(v, 11, 0, 0, 1, 2, 2, 2, 3, 4, 4, 4, 5);
    assert_ok(ct_grid_linspace(3, -4, 7, "x", &v, &err));
    assert_list(v, 7, 3, 2, 1, 0, -2, -3, -4);
    assert_ok(ct_grid_linspace(7, 100, 1, "x", &v, &err));
    assert_list(v, 1, 7);
    assert_ok(ct_grid_linspace(9, 9, 3, "x", &v, &err));
    assert_list(v, 3, 9, 9, 9);
    assert_ok(ct_grid_linspace(0, 9007199254740992, 3, "x", &v, &err));
    assert_list(v, 3, 0, 4503599627370496, 9007199254740992);
}

static void linspace_refuses_counts_and_ends_it_cannot_make(void **state)
{
    (void)state;
    ct_err err = {0};
    int64_t *v;
    assert_fails(ct_grid_linspace(0, 1, 0, "--depths", &v, &err), CT_ERR_VALUE,
                 "--depths: expected a count of at least 1, got 0");
    assert_fails(ct_grid_linspace(0, 1, 1000000000, "--depths", &v, &err), CT_ERR_LIMIT,
                 "--depths: expected a count of at most 1000000, got 1000000000");
    assert_fails(ct_grid_linspace(0, 9007199254740993, 2, "--lengths", &v, &err), CT_ERR_VALUE,
                 "--lengths: expected ends between -2^53 and 2^53, got 0 and 9007199254740993");
}

static void both_spellings_are_parsed(void **state)
{
    (void)state;
    ct_err err = {0};
    int64_t *v;
    size_t n;
    assert_ok(ct_grid_parse("250:4096:3", "--lengths", 1, 10000, &v, &n, &err));
    assert_list(v, n, 250, 2173, 4096);
    assert_ok(ct_grid_parse("7", "--lengths", 1, 10000, &v, &n, &err));
    assert_list(v, n, 7);
    assert_ok(ct_grid_parse(" 65, 1 ,7,65", "--lengths", 1, 10000, &v, &n, &err));
    assert_list(v, n, 65, 1, 7, 65);
    assert_ok(ct_grid_parse("-3:3:3", "x", -9, 9, &v, &n, &err));
    assert_list(v, n, -3, 0, 3);
}

static void malformed_lists_name_flag_and_value(void **state)
{
    (void)state;
    ct_err err = {0};
    static const char *const bad[] = {"",    ",",     "1,",  ",1",    "1,,2", "1:2",   "1:2:3:4",
                                      "1;2", "1:2,3", "4x",  "1.5",   "1e3",  "0x10",  "- 1",
                                      "--1", "+1",    "nan", "1 2,3", "::",   "1:2:3x"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t *v;
        size_t n;
        char text[200];
        snprintf(text, sizeof text,
                 "--lengths: expected whole numbers such as 1,2,3 or FROM:TO:COUNT, got \"%s\"",
                 bad[i]);
        assert_fails(ct_grid_parse(bad[i], "--lengths", 1, 100, &v, &n, &err), CT_ERR_USAGE, text);
        assert_string_equal(err.text, text);
        assert_null(v);
    }
}

static void numbers_out_of_range_name_flag_and_value(void **state)
{
    (void)state;
    ct_err err = {0};
    int64_t *v;
    size_t n;
    assert_fails(ct_grid_parse("0,101", "--depths", 0, 100, &v, &n, &err), CT_ERR_VALUE,
                 "--depths: expected numbers from 0 to 100, got 101");
    assert_fails(ct_grid_parse("-1,5", "--depths", 0, 100, &v, &n, &err), CT_ERR_VALUE,
                 "--depths: expected numbers from 0 to 100, got -1");
    assert_fails(ct_grid_parse("1:101:3", "--depths", 0, 100, &v, &n, &err), CT_ERR_VALUE,
                 "got 101");
    assert_fails(
        ct_grid_parse("99999999999999999999", "--depths", INT64_MIN, INT64_MAX, &v, &n, &err),
        CT_ERR_VALUE, "got 99999999999999999999");
    assert_fails(ct_grid_parse("1:100:0", "--depths", 0, 100, &v, &n, &err), CT_ERR_VALUE,
                 "--depths: expected a count of at least 1, got 0");
    assert_fails(ct_grid_parse("1:100:1000000000", "--depths", 0, 100, &v, &n, &err), CT_ERR_LIMIT,
                 "got 1000000000");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linspace_gives_the_lengths_and_depths_of_the_thesis),
        cmocka_unit_test(linspace_rounds_halves_to_even_as_numpy),
        cmocka_unit_test(linspace_refuses_counts_and_ends_it_cannot_make),
        cmocka_unit_test(both_spellings_are_parsed),
        cmocka_unit_test(malformed_lists_name_flag_and_value),
        cmocka_unit_test(numbers_out_of_range_name_flag_and_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
