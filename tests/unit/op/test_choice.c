/* test_choice.c - which table is chosen, and what it says of itself. */
#include "op_test.h"

static void the_best_table_of_the_machine_is_chosen_unless_a_lesser_one_is_named(void **state)
{
    (void)state;
    const ct_ops *all[4];
    int count = ct_ops_cpu_all(all);
    unsetenv("CORTADO_MAX_ISA");
    assert_ptr_equal(ct_ops_cpu(), all[count - 1]);
    for (int i = 0; i < count; i++) {
        setenv("CORTADO_MAX_ISA", all[i]->class_name(NULL) + strlen("cpu-"), 1);
        assert_ptr_equal(ct_ops_cpu(), all[i]);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(all[i]->class_name(NULL), all[j]->class_name(NULL));
    }
    setenv("CORTADO_MAX_ISA", "no-such-thing", 1);
    assert_ptr_equal(ct_ops_cpu(), all[count - 1]);
    unsetenv("CORTADO_MAX_ISA");
}

static void bf16_products_are_chosen_for_bf16_weights_and_only_where_tiles_are(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    {
        bool tiles = strcmp(ops->class_name(NULL), "cpu-amx") == 0;
        assert_int_equal(ops->choose_compute(CT_F32), CT_COMPUTE_F32);
        assert_int_equal(ops->choose_compute(CT_F16), CT_COMPUTE_F32);
        assert_int_equal(ops->choose_compute(CT_BF16), tiles ? CT_COMPUTE_BF16 : CT_COMPUTE_F32);
    }
}

static void no_operation_is_missing_in_any_table(void **state)
{
    (void)state;
    const ct_ops *every[5];
    int count = ct_ops_cpu_all(every);
    every[count++] = ct_ops_ref();
    for (int i = 0; i < count; i++) {
        void *const *member = (void *const *)(const void *)every[i];
        size_t first = offsetof(ct_ops, class_name) / sizeof *member;
        for (size_t m = first; m < sizeof(ct_ops) / sizeof *member; m++)
            if (m != offsetof(ct_ops, experts) / sizeof *member && /* made of their parts */
                m != offsetof(ct_ops, layer_mean) / sizeof *member &&
                m != offsetof(ct_ops, sync) / sizeof *member &&  /* nothing to wait for */
                m != offsetof(ct_ops, count) / sizeof *member && /* there is one host */
                m != offsetof(ct_ops, limits) / sizeof *member)  /* the host's own */
                assert_non_null(member[m]);
        assert_true(every[i]->pass_tokens > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_table_of_the_machine_is_chosen_unless_a_lesser_one_is_named),
        cmocka_unit_test(bf16_products_are_chosen_for_bf16_weights_and_only_where_tiles_are),
        cmocka_unit_test(no_operation_is_missing_in_any_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
