/* test_experts.c - which experts a token goes to, with what share, and rows moved there and back. */
#include "op_test.h"

static void the_highest_logits_win_and_their_shares_are_of_the_whole_softmax(void **state)
{
    (void)state;
    const float logits[] = {(float)log(1), (float)log(4), (float)log(2), (float)log(3)};
    int32_t expert[3];
    float weight[3];
    FOR_EACH_TABLE(ops)
    {
        ops->route(NULL, expert, weight, logits, 1, 4, 3);
        assert_true(expert[0] == 1 && expert[1] == 3 && expert[2] == 2);
        for (int i = 0; i < 3; i++)
            assert_true(fabs((double)weight[i] - (4 - i) / 10.0) < 1e-7); /* 0.4, 0.3, 0.2 */
    }
}

static void equal_logits_go_to_the_lowest_index_and_nan_is_lowest(void **state)
{
    (void)state;
    const float ties[] = {1, 2, 2, 1, 2}, lost[] = {NAN, 1, NAN, 0, -INFINITY};
    int32_t expert[5];
    float weight[5];
    FOR_EACH_TABLE(ops)
    {
        ops->route(NULL, expert, weight, ties, 1, 5, 5);
        const int32_t want[] = {1, 2, 4, 0, 3};
        assert_memory_equal(expert, want, sizeof want);
        ops->route(NULL, expert, weight, lost, 1, 5, 2);
        assert_true(expert[0] == 1 && expert[1] == 3);
        assert_true(isnan(weight[0]) && isnan(weight[1]));
    }
}

static void a_token_is_routed_alike_in_any_company(void **state)
{
    (void)state;
    const int64_t counts[] = {2, 7, 16, 17};
    enum { T = 65 };
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < 4; c++)
        for (int64_t k = 1; k <= 2; k++) {
            int64_t X = counts[c];
            float *logits = random_floats(T * X, 5, 1), *weight = floats(T * k), alone[2];
            int32_t *expert = room((size_t)(T * k) * sizeof *expert), own[2];
            ops->route(NULL, expert, weight, logits, T, X, k);
            for (int64_t t = 0; t < T; t++) {
                ops->route(NULL, own, alone, logits + t * X, 1, X, k);
                assert_memory_equal(own, expert + t * k, (size_t)k * sizeof *own);
                assert_same_bits(ops->class_name(NULL), "share", alone, weight + t * k, k);
                for (int64_t e = 0; e < X; e++)
                    if (e != own[0]) assert_true(logits[t * X + e] <= logits[t * X + own[0]]);
            }
            free(logits), free(weight), free(expert);
        }
}

static void rows_go_to_an_expert_and_come_back_weighted(void **state)
{
    (void)state;
    const int64_t sizes[] = {1, 7, 63, 65, 700};
    const int32_t row[] = {64, 3, 17, 0};
    const float weight[] = {0.25f, 0.3f, 1, 0.7f};
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < 5; c++) {
        int64_t E = sizes[c], T = 65;
        float *x = random_floats(T * E, 1, 1), *y = floats(4 * E),
              *sum = random_floats(T * E, 3, 2);
        float *want = random_floats(T * E, 3, 2), *before = random_floats(T * E, 3, 2);
        ops->gather(NULL, y, x, row, 4, E);
        for (int i = 0; i < 4; i++)
            assert_same_bits(ops->class_name(NULL), "row", y + i * E, x + row[i] * E, E);
        ops->scatter_add(NULL, sum, y, row, weight, 4, E);
        ct_ops_ref()->scatter_add(NULL, want, y, row, weight, 4, E);
        /* a product and a sum of at most 4: two roundings */
        assert_close(ops->class_name(NULL), "sum", sum, want, T * E, 2 * 4 * 0x1p-24, 0);
        for (int64_t j = 0; j < E; j++) {
            double third = (double)before[3 * E + j] + 0.3 * (double)x[3 * E + j];
            assert_true(fabs((double)want[3 * E + j] - third) < 1e-6);
            assert_true(sum[E + j] == before[E + j]); /* row 1 is nobody's */
        }
        free(x), free(y), free(sum), free(want), free(before);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_highest_logits_win_and_their_shares_are_of_the_whole_softmax),
        cmocka_unit_test(equal_logits_go_to_the_lowest_index_and_nan_is_lowest),
        cmocka_unit_test(a_token_is_routed_alike_in_any_company),
        cmocka_unit_test(rows_go_to_an_expert_and_come_back_weighted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
