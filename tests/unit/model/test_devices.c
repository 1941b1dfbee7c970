/* test_devices.c - lists of devices, and the copies of a model that GPUs hold. */
#include "test.h"

#include "model/devices.h"

#define GIB (INT64_C(1) << 30)

static void assert_list(const ct_devices *list, const char *expected)
{
    char text[1024] = "";
    for (size_t i = 0; i < list->n; i++) {
        if (i) strcat(text, " ");
        strcat(text, list->names[i]);
    }
    assert_string_equal(text, expected);
}

static void a_list_names_devices_and_numbers_of_the_kind_before(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_devices list;
    static const struct {
        const char *text, *names;
    } lists[] = {
        {NULL, "cpu"},
        {"cpu", "cpu"},
        {"cpu,cpu", "cpu cpu"},
        {"cuda:0,1", "cuda:0 cuda:1"},
        {"cuda:0,cuda:1,2", "cuda:0 cuda:1 cuda:2"},
        {"cuda:0+1,2+3", "cuda:0+1 cuda:2+3"},
        {"cuda,ref", "cuda ref"},
        {"cpu,1", "cpu 1"}, /* opening it says that there is no such device */
    };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        assert_ok(ct_devices_parse(lists[i].text, &list, &err));
        assert_list(&list, lists[i].names);
    }
}

static void a_list_with_a_gap_or_too_long_or_with_all_is_refused(void **state)
{
    (void)state;
    ct_err err;
    ct_devices list;
    static const char *const gaps[] = {"", ",", "cpu,", ",cpu", "cuda:0,,1"};
    for (size_t i = 0; i < sizeof gaps / sizeof *gaps; i++)
        assert_fails(ct_devices_parse(gaps[i], &list, &err), CT_ERR_USAGE, "such as cuda:0,1");
    assert_fails(ct_devices_parse("cuda:0,cuda:all", &list, &err), CT_ERR_USAGE, "alone");
    char many[4 * CT_DEVICES_MAX + 8] = "cpu", name[CT_DEVICE_NAME + 2] = "";
    for (int i = 1; i < CT_DEVICES_MAX; i++) strcat(many, ",cpu");
    err = (ct_err){0};
    assert_ok(ct_devices_parse(many, &list, &err));
    assert_int_equal(list.n, CT_DEVICES_MAX);
    strcat(many, ",cpu");
    assert_fails(ct_devices_parse(many, &list, &err), CT_ERR_USAGE, "at most 64");
    memset(name, 'x', CT_DEVICE_NAME);
    assert_fails(ct_devices_parse(name, &list, &err), CT_ERR_USAGE, "expected names");
    /* With the kind before it, a number may be too long, too. */
    memset(name, '1', CT_DEVICE_NAME - 1);
    name[CT_DEVICE_NAME - 1] = 0;
    snprintf(many, sizeof many, "cuda:0,%s", name);
    assert_fails(ct_devices_parse(many, &list, &err), CT_ERR_USAGE, "expected names");
}

static void a_copy_goes_on_as_few_gpus_as_hold_it(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_devices list;
    static const struct {
        int n;
        int64_t free_gib[8], shared, each, unevenly;
        const char *names;
    } cases[] = {
        {1, {80}, 20, 4, 1, "cuda:0"},
        {4, {80, 80, 80, 80}, 20, 4, 1, "cuda:0 cuda:1 cuda:2 cuda:3"},
        {2, {24, 23}, 20, 4, 1, "cuda:0"}, /* the other one does not hold a copy of its own */
        {4, {80, 80, 80, 80}, 110, 4, 8, "cuda:0+1 cuda:2+3"},
        {4,
         {80, 80, 80, 80},
         150,
         4,
         8,
         "cuda:0+1+2"}, /* 75 + 2 * 4 + 8 on each of two is too much */
        {3, {80, 80, 80}, 110, 4, 8, "cuda:0+1"},
        {4, {80, 10, 80, 80}, 110, 4, 8, "cuda:0+2"}, /* one that others use is left out */
        {5, {80, 10, 80, 80, 80}, 110, 4, 8, "cuda:0+2 cuda:3+4"},
        {8, {80, 80, 80, 80, 80, 80, 80, 80}, 240, 4, 2, "cuda:0+1+2+3 cuda:4+5+6+7"},
        {8, {80, 80, 80, 80, 80, 80, 80, 80}, 360, 4, 2, "cuda:0+1+2+3+4+5+6+7"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t bytes[8];
        for (int g = 0; g < 8; g++) bytes[g] = cases[i].free_gib[g] * GIB;
        const ct_device_needs needs = {cases[i].shared * GIB, cases[i].each * GIB,
                                       cases[i].unevenly * GIB};
        assert_ok(ct_devices_fill(bytes, cases[i].n, &needs, &list, &err));
        assert_list(&list, cases[i].names);
        for (size_t c = 0; c < list.n; c++)
            assert_true(ct_device_places(list.names[c]) == ct_device_places(list.names[0]));
    }
}

static void gpus_that_hold_no_copy_together_are_an_error_with_what_is_needed(void **state)
{
    (void)state;
    ct_err err;
    ct_devices list;
    const int64_t bytes[] = {80 * GIB, 80 * GIB};
    const ct_device_needs large = {200 * GIB, 4 * GIB, GIB}, wide = {GIB, 81 * GIB, GIB};
    assert_fails(ct_devices_fill(bytes, 2, &large, &list, &err), CT_ERR_MEMORY,
                 "got 160.0 GiB free on 2 GPUs");
    assert_fails(ct_devices_fill(bytes, 2, &wide, &list, &err), CT_ERR_MEMORY,
                 "81.0 GiB or more on each GPU");
    assert_fails(ct_devices_fill(bytes, 0, &wide, &list, &err), CT_ERR_MEMORY, "on 0 GPUs");
}

static void a_place_is_counted_for_each_joined_name(void **state)
{
    (void)state;
    assert_int_equal(ct_device_places("cpu"), 1);
    assert_int_equal(ct_device_places("cuda:3"), 1);
    assert_int_equal(ct_device_places("cuda:0+1+12"), 3);
}

static void who_wants_one_device_is_told_that_a_list_is_for_run(void **state)
{
    (void)state;
    ct_err err = {0};
    char name[CT_DEVICE_NAME];
    ct_model_options options = {.device = "cuda:0+1"};
    assert_ok(ct_device_choose_one(NULL, &options, name, &err));
    assert_string_equal(name, "cuda:0+1");
    options.device = "cuda:all";
    assert_ok(ct_device_choose_one(NULL, &options, name, &err)); /* for no model: any GPU */
    assert_string_equal(name, "cuda");
    options.device = NULL;
    assert_ok(ct_device_choose_one(NULL, &options, name, &err));
    assert_string_equal(name, "cpu");
    options.device = "cuda:0,1";
    assert_fails(ct_device_choose_one(NULL, &options, name, &err), CT_ERR_USAGE,
                 "a list is for `cortado run`");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_list_names_devices_and_numbers_of_the_kind_before),
        cmocka_unit_test(a_list_with_a_gap_or_too_long_or_with_all_is_refused),
        cmocka_unit_test(a_copy_goes_on_as_few_gpus_as_hold_it),
        cmocka_unit_test(gpus_that_hold_no_copy_together_are_an_error_with_what_is_needed),
        cmocka_unit_test(a_place_is_counted_for_each_joined_name),
        cmocka_unit_test(who_wants_one_device_is_told_that_a_list_is_for_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
