/* test_elementwise.c - embedding, norm, activation, soft cap, sums, head selection. */
#include "op_test.h"

static const int64_t counts[] = {1, 7, 15, 16, 17, 63, 65, 4095, 4097, 40001};
enum { COUNTS = sizeof counts / sizeof *counts };

/* Values from 1e-6 to 40 of both signs. */
static float *wide_floats(int64_t count, uint64_t stream)
{
    float *x = random_floats(count, 1, stream);
    for (int64_t i = 0; i < count; i++) x[i] *= powf(10, (float)(i % 8) - 6) * 4;
    return x;
}

/* The exponential is good to 2e-7; a few roundings of 6e-8 are added. The absolute part is for
 * gelu near -13 and below, where the exponential is held at e^-88. */
static void gelu_is_right_and_may_overwrite_either_input(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < COUNTS; c++) {
        int64_t n = counts[c];
        float *a = wide_floats(n, 1), *b = wide_floats(n, 2), *y = floats(n), *want = floats(n);
        ct_ops_ref()->gelu_mul(want, a, b, n);
        ops->gelu_mul(y, a, b, n);
        /* gelu(v) for v < 0 is v times a small sigmoid: its argument's rounding counts |u| times */
        assert_close(ops->class_name(), "gelu(a) b", y, want, n, 1e-6, 1e-6);
        memcpy(y, a, (size_t)n * sizeof *y);
        ops->gelu_mul(y, y, b, n);
        assert_close(ops->class_name(), "gelu in place of a", y, want, n, 1e-6, 1e-6);
        memcpy(y, b, (size_t)n * sizeof *y);
        ops->gelu_mul(y, a, y, n);
        assert_close(ops->class_name(), "gelu in place of b", y, want, n, 1e-6, 1e-6);
        ct_ops_ref()->gelu_mul(want, a, NULL, n);
        ops->gelu_mul(y, a, NULL, n);
        assert_close(ops->class_name(), "gelu(a)", y, want, n, 1e-7, 1e-6);
        free(a), free(b), free(y), free(want);
    }
}

static void soft_cap_keeps_small_values_and_bounds_large_ones(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < COUNTS; c++) {
        int64_t n = counts[c];
        float *x = wide_floats(n, 3), *want = wide_floats(n, 3);
        x[0] = want[0] = 1e30f;
        float *got = floats(3 * n), *rows[] = {got + 2 * n, got, got + n}, *same = want;
        float *three = floats(3 * n); /* each row of three goes where it is told to */
        for (int r = 0; r < 3; r++) memcpy(three + r * n, x, (size_t)n * sizeof *x);
        ct_ops_ref()->soft_cap(&same, want, 1, n, 30);
        ops->soft_cap(rows, three, 3, n, 30);
        for (int r = 0; r < 3; r++)
            assert_close(ops->class_name(), "soft cap", rows[r], want, n, 0, 5e-7);
        assert_true(got[0] == 30);
        ops->soft_cap(rows, three, 3, n, 0);
        assert_memory_equal(got, three, 3 * (size_t)n * sizeof *got);
        free(x), free(want), free(got), free(three);
    }
}

static void not_a_number_comes_through(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    {
        float x[5] = {NAN, NAN, 1, -NAN, 2}, y[5];
        ops->gelu_mul(y, x, NULL, 5);
        assert_true(isnan(y[0]) && isnan(y[3]) && !isnan(y[2]) && !isnan(y[4]));
        ops->soft_cap(&(float *){x}, x, 1, 5, 30);
        assert_true(isnan(x[0]) && isnan(x[3]) && !isnan(x[2]) && !isnan(x[4]));
    }
}

static void products_and_sums_of_elements_are_exact(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < COUNTS; c++) {
        int64_t n = counts[c];
        float *a = wide_floats(n, 4), *b = wide_floats(n, 5), *y = floats(n), *want = floats(n);
        ops->mul(y, a, b, n);
        ct_ops_ref()->mul(want, a, b, n);
        assert_same_bits(ops->class_name(), "a b", y, want, n);
        ops->add(y, a, n);
        ct_ops_ref()->add(want, a, n);
        assert_same_bits(ops->class_name(), "y + a", y, want, n);
        free(a), free(b), free(y), free(want);
    }
}

/* The sum of squares is positive: its relative error is at most the additions on one lane's way,
 * width / (4 VL) + 8 times 2^-24, and the root halves it. */
static void norm_is_right_and_a_row_does_not_depend_on_the_others(void **state)
{
    (void)state;
    const int64_t widths[] = {1, 7, 24, 63, 65, 256, 1000, 2560};
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < 8; c++)
        for (int offset = 0; offset < 2; offset++) {
            int64_t E = widths[c], T = 17;
            float *x = random_floats(T * E, 5, 6), *w = random_floats(E, 1, 7);
            float *y = floats(T * E), *want = floats(T * E);
            memset(x, 0, (size_t)E * sizeof *x); /* a row of zeros stays one */
            ops->rms_norm(y, x, T, E, w, 1e-6f, (float)offset);
            ct_ops_ref()->rms_norm(want, x, T, E, w, 1e-6f, (float)offset);
            assert_close(ops->class_name(), "norm", y, want, T * E, 1e-7,
                         ((double)E / 32 + 12) * 0x1p-24);
            for (int64_t t = 0; t < T; t += 5) {
                ops->rms_norm(want, x + t * E, 1, E, w, 1e-6f, (float)offset);
                assert_same_bits(ops->class_name(), "row of norm", want, y + t * E, E);
            }
            free(x), free(w), free(y), free(want);
        }
}

static void embedding_rows_are_scaled_exactly(void **state)
{
    (void)state;
    const int64_t widths[] = {1, 7, 24, 63, 65, 256};
    const ct_dtype dtypes[] = {CT_F32, CT_BF16, CT_F16};
    const int32_t ids[] = {0, 36, 5, 5, 17, 1, 36};
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < 6; c++)
        for (int type = 0; type < 3; type++) {
            int64_t E = widths[c], T = 7;
            ct_matrix table = random_matrix(37, E, dtypes[type], 8);
            float *x = floats(T * E), *want = floats(T * E);
            ops->embed(x, ids, T, &table, 9.8125f);
            ct_ops_ref()->embed(want, ids, T, &table, 9.8125f);
            assert_same_bits(ops->class_name(), "embedding", x, want, T * E);
            free(x), free(want), free_matrix(&table);
        }
}

static void topk_heads_with_equal_scores_keep_the_lowest_index(void **state)
{
    (void)state;
    const float score[] = {1, 3, 3, 2, /* k = 1 */ 5, 5,  5,  5, /* 2 */ 0, 0, -0.0f, 1, /* 2 */
                           1, 2, 3, 4, /* 3 */ -1,    -2, -3, -4 /* 3 */};
    const int32_t k[] = {1, 2, 2, 3, 3};
    const uint8_t want[] = {0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 0};
    FOR_EACH_TABLE(ops)
    {
        uint8_t keep[20];
        ops->select_heads(keep, score, k, 5, 4);
        assert_memory_equal(keep, want, sizeof want);
    }
}

static void negative_k_keeps_all_zero_keeps_none_and_nan_is_the_lowest(void **state)
{
    (void)state;
    const float score[] = {1, 2, 3, 1, 2, 3, 1, 2, 3, NAN, 2, -1e30f, NAN, NAN, NAN, NAN, 1, NAN};
    const int32_t k[] = {-1, 0, 3, 2, 1, 2};
    const uint8_t want[] = {1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 0};
    FOR_EACH_TABLE(ops)
    {
        uint8_t keep[18];
        ops->select_heads(keep, score, k, 6, 3);
        assert_memory_equal(keep, want, sizeof want);
        float x[18 * 5];
        for (int i = 0; i < 90; i++) x[i] = i == 2 ? NAN : 1; /* head 0 of token 0 is kept */
        x[3 * 5] = NAN;                                       /* head 0 of token 1 is not */
        ops->mask_heads(x, keep, 6, 3, 5);
        for (int i = 0; i < 90; i++)
            if (i != 2) assert_true(x[i] == want[i / 5]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gelu_is_right_and_may_overwrite_either_input),
        cmocka_unit_test(soft_cap_keeps_small_values_and_bounds_large_ones),
        cmocka_unit_test(not_a_number_comes_through),
        cmocka_unit_test(products_and_sums_of_elements_are_exact),
        cmocka_unit_test(norm_is_right_and_a_row_does_not_depend_on_the_others),
        cmocka_unit_test(embedding_rows_are_scaled_exactly),
        cmocka_unit_test(topk_heads_with_equal_scores_keep_the_lowest_index),
        cmocka_unit_test(negative_k_keeps_all_zero_keeps_none_and_nan_is_the_lowest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
