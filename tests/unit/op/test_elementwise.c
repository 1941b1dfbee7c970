/* test_elementwise.c - embedding, norm, activation, soft cap, sums, head selection. */
#include "op/parts.h"
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
        ct_ops_ref()->gelu_mul(NULL, want, a, b, n);
        ops->gelu_mul(NULL, y, a, b, n);
        /* gelu(v) for v < 0 is v times a small sigmoid: its argument's rounding counts |u| times */
        assert_close(ops->class_name(NULL), "gelu(a) b", y, want, n, 1e-6, 1e-6);
        memcpy(y, a, (size_t)n * sizeof *y);
        ops->gelu_mul(NULL, y, y, b, n);
        assert_close(ops->class_name(NULL), "gelu in place of a", y, want, n, 1e-6, 1e-6);
        memcpy(y, b, (size_t)n * sizeof *y);
        ops->gelu_mul(NULL, y, a, y, n);
        assert_close(ops->class_name(NULL), "gelu in place of b", y, want, n, 1e-6, 1e-6);
        ct_ops_ref()->gelu_mul(NULL, want, a, NULL, n);
        ops->gelu_mul(NULL, y, a, NULL, n);
        assert_close(ops->class_name(NULL), "gelu(a)", y, want, n, 1e-7, 1e-6);
        free(a), free(b), free(y), free(want);
    }
}

/* As gelu: the exponential is good to 2e-7, and where silu(v) is tiny its argument's rounding counts
 * |v| times. */
static void silu_is_right_and_may_overwrite_either_input(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < COUNTS; c++) {
        int64_t n = counts[c];
        float *a = wide_floats(n, 1), *b = wide_floats(n, 2), *y = floats(n), *want = floats(n);
        ct_ops_ref()->silu_mul(NULL, want, a, b, n);
        ops->silu_mul(NULL, y, a, b, n);
        assert_close(ops->class_name(NULL), "silu(a) b", y, want, n, 1e-7, 3e-6);
        memcpy(y, a, (size_t)n * sizeof *y);
        ops->silu_mul(NULL, y, y, b, n);
        assert_close(ops->class_name(NULL), "silu in place of a", y, want, n, 1e-7, 3e-6);
        memcpy(y, b, (size_t)n * sizeof *y);
        ops->silu_mul(NULL, y, a, y, n);
        assert_close(ops->class_name(NULL), "silu in place of b", y, want, n, 1e-7, 3e-6);
        ct_ops_ref()->silu_mul(NULL, want, a, NULL, n);
        ops->silu_mul(NULL, y, a, NULL, n);
        assert_close(ops->class_name(NULL), "silu(a)", y, want, n, 1e-7, 3e-6);
        free(a), free(b), free(y), free(want);
    }
    float one = 1;
    ct_ops_ref()->silu_mul(NULL, &one, &one, NULL, 1);
    assert_true(fabs((double)one - 0.731058578630005) < 1e-7); /* 1 / (1 + 1/e) */
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
        ct_ops_ref()->soft_cap(NULL, &same, want, 1, n, 30);
        ops->soft_cap(NULL, rows, three, 3, n, 30);
        for (int r = 0; r < 3; r++)
            assert_close(ops->class_name(NULL), "soft cap", rows[r], want, n, 0, 5e-7);
        assert_true(got[0] == 30);
        ops->soft_cap(NULL, rows, three, 3, n, 0);
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
        ops->gelu_mul(NULL, y, x, NULL, 5);
        assert_true(isnan(y[0]) && isnan(y[3]) && !isnan(y[2]) && !isnan(y[4]));
        ops->silu_mul(NULL, y, x, NULL, 5);
        assert_true(isnan(y[0]) && isnan(y[3]) && !isnan(y[2]) && !isnan(y[4]));
        ops->soft_cap(NULL, &(float *){x}, x, 1, 5, 30);
        assert_true(isnan(x[0]) && isnan(x[3]) && !isnan(x[2]) && !isnan(x[4]));
    }
}

static void products_of_elements_are_exact(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < COUNTS; c++) {
        int64_t n = counts[c];
        float *a = wide_floats(n, 4), *b = wide_floats(n, 5), *y = floats(n), *want = floats(n);
        ops->mul(NULL, y, a, b, n);
        ct_ops_ref()->mul(NULL, want, a, b, n);
        assert_same_bits(ops->class_name(NULL), "a b", y, want, n);
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
            ops->rms_norm(NULL, y, x, E, T, E, w, 1e-6f, (float)offset);
            ct_ops_ref()->rms_norm(NULL, want, x, E, T, E, w, 1e-6f, (float)offset);
            assert_close(ops->class_name(NULL), "norm", y, want, T * E, 1e-7,
                         ((double)E / 32 + 12) * 0x1p-24);
            for (int64_t t = 0; t < T; t += 5) {
                ops->rms_norm(NULL, want, x + t * E, E, 1, E, w, 1e-6f, (float)offset);
                assert_same_bits(ops->class_name(NULL), "row of norm", want, y + t * E, E);
            }
            ops->rms_norm(NULL, x, x, E, T, E, w, 1e-6f, (float)offset);
            assert_same_bits(ops->class_name(NULL), "norm in place", x, y, T * E);
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
            ops->embed(NULL, x, &(ct_batch){.tokens = T, .ids = ids}, &table, 9.8125f);
            ct_ops_ref()->embed(NULL, want, &(ct_batch){.tokens = T, .ids = ids}, &table, 9.8125f);
            assert_same_bits(ops->class_name(NULL), "embedding", x, want, T * E);
            free(x), free(want), free_matrix(&table);
        }
}

/* Keeps heads of T tokens by these scores (as entropy, so that the lowest win), each its own row. */
static void keep_by_entropy(const ct_ops *ops, uint8_t *keep, float *out, const float *entropy,
                            const int32_t *k, int64_t T, int64_t H, int64_t D)
{
    ct_seg segs[8];
    ct_head_rule rules[8];
    for (int64_t t = 0; t < T; t++) {
        segs[t] = (ct_seg){t, 1, 3};
        rules[t] = (ct_head_rule){.keep = k[t], .metric = CT_METRIC_ENTROPY};
    }
    ct_op_ctx ctx = new_ctx(ops, CT_COMPUTE_F32, T, 1, 1, H, D);
    const ct_keep_args args = {.heads = H, .head_dim = D, .entropy_bits = entropy};
    const ct_batch batch = {.tokens = T, .n_segs = T, .segs = segs, .rules = rules};
    ops->keep_heads(&ctx, keep, out, &args, &batch);
    free(ctx.scratch);
}

static void topk_heads_with_equal_scores_keep_the_lowest_index(void **state)
{
    (void)state;
    const float entropy[] = {-1,        -3, -3,    -2, /* k = 1 */ 5, 5,  5,  5, /* 2 */
                             0,         0,  -0.0f, -1, /* 2 */ -1,    -2, -3, -4,
                             /* 3 */ 1, 2,  3,     4 /* 3 */};
    const int32_t k[] = {1, 2, 2, 3, 3};
    const uint8_t want[] = {0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 0};
    FOR_EACH_TABLE(ops)
    {
        uint8_t keep[20];
        float out[20] = {0};
        keep_by_entropy(ops, keep, out, entropy, k, 5, 4, 1);
        assert_memory_equal(keep, want, sizeof want);
    }
}

static void negative_k_keeps_all_zero_keeps_none_and_nan_is_the_lowest(void **state)
{
    (void)state;
    const float entropy[] = {-1,  -2, -3,    -1,  -2,  -3,  -1,  -2, -3,
                             NAN, -2, 1e30f, NAN, NAN, NAN, NAN, -1, NAN};
    const int32_t k[] = {-1, 0, 3, 2, 1, 2};
    const uint8_t want[] = {1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 0};
    FOR_EACH_TABLE(ops)
    {
        uint8_t keep[18];
        float x[18 * 5];
        for (int i = 0; i < 90; i++) x[i] = i == 2 ? NAN : 1; /* head 0 of token 0 is kept */
        x[3 * 5] = NAN;                                       /* head 0 of token 1 is not */
        keep_by_entropy(ops, keep, x, entropy, k, 6, 3, 5);
        assert_memory_equal(keep, want, sizeof want);
        for (int i = 0; i < 90; i++)
            if (i != 2) assert_true(x[i] == want[i / 5]);
    }
}

/* Random heads by (seed, layer, position, head), the same as ct_head_scores ranks them; each row its
 * own rule. */
static void random_heads_are_those_of_their_scores_whatever_the_company(void **state)
{
    (void)state;
    enum { H = 7, T = 9 };
    const ct_seg segs[] = {{0, 5, 70}, {5, 4, 3}};
    const ct_head_rule rules[] = {{3, CT_METRIC_RANDOM, 11}, {2, CT_METRIC_RANDOM, 12}};
    FOR_EACH_TABLE(ops)
    {
        uint8_t keep[T * H];
        float out[T * H] = {0};
        ct_op_ctx ctx = new_ctx(ops, CT_COMPUTE_F32, T, 1, 1, H, 1);
        const ct_keep_args args = {.heads = H, .head_dim = 1, .layer = 4};
        const ct_batch batch = {.tokens = T, .n_segs = 2, .segs = segs, .rules = rules};
        ops->keep_heads(&ctx, keep, out, &args, &batch);
        for (int s = 0; s < 2; s++)
            for (int64_t t = 0; t < segs[s].count; t++) {
                float score[H];
                const uint8_t *kept = keep + (segs[s].first + t) * H;
                int count = 0;
                ct_head_scores(&rules[s], 4, segs[s].position + t, H, NULL, NULL, score);
                for (int h = 0; h < H; h++) {
                    count += kept[h];
                    for (int o = 0; o < H; o++)
                        if (kept[h] && !kept[o]) assert_true(score[h] >= score[o]);
                }
                assert_int_equal(count, rules[s].keep);
            }
        free(ctx.scratch);
    }
}

static void scores_rank_low_entropy_high_l2_and_high_entropy_as_the_metric_says(void **state)
{
    (void)state;
    const float entropy[] = {2, 0.5f, 3}, l2[] = {0.2f, 0.9f, 0.1f};
    float score[3];
    ct_head_rule rule = {.metric = CT_METRIC_ENTROPY};
    ct_head_scores(&rule, 2, 10, 3, entropy, NULL, score);
    assert_true(score[1] > score[0] && score[0] > score[2]);
    rule.metric = CT_METRIC_ENTROPY_INVERTED;
    ct_head_scores(&rule, 2, 10, 3, entropy, NULL, score);
    assert_true(score[2] > score[0] && score[0] > score[1]);
    rule.metric = CT_METRIC_L2;
    ct_head_scores(&rule, 2, 10, 3, NULL, l2, score);
    assert_true(score[1] > score[0] && score[0] > score[2]);
}

static void random_scores_depend_on_seed_layer_position_and_head_and_are_even(void **state)
{
    (void)state;
    enum { HEADS = 7, POSITIONS = 2000 };
    ct_head_rule rule = {.metric = CT_METRIC_RANDOM, .seed = 5};
    float a[HEADS], b[HEADS];
    ct_head_scores(&rule, 2, 10, HEADS, NULL, NULL, a);
    ct_head_scores(&rule, 2, 10, HEADS, NULL, NULL, b);
    assert_memory_equal(a, b, sizeof a);
    ct_head_scores(&rule, 5, 10, HEADS, NULL, NULL, b);
    assert_memory_not_equal(a, b, sizeof a);
    ct_head_scores(&rule, 2, 11, HEADS, NULL, NULL, b);
    assert_memory_not_equal(a, b, sizeof a);
    rule.seed = 6;
    ct_head_scores(&rule, 2, 10, HEADS, NULL, NULL, b);
    assert_memory_not_equal(a, b, sizeof a);
    int wins[HEADS] = {0};
    for (int64_t p = 0; p < POSITIONS; p++) {
        ct_head_scores(&rule, 2, p, HEADS, NULL, NULL, a);
        int best = 0;
        for (int h = 1; h < HEADS; h++) best = a[h] > a[best] ? h : best;
        wins[best]++;
    }
    /* 2000/7 = 286 with a deviation of 16: five deviations. */
    for (int h = 0; h < HEADS; h++) assert_in_range(wins[h], 206, 366);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gelu_is_right_and_may_overwrite_either_input),
        cmocka_unit_test(silu_is_right_and_may_overwrite_either_input),
        cmocka_unit_test(soft_cap_keeps_small_values_and_bounds_large_ones),
        cmocka_unit_test(not_a_number_comes_through),
        cmocka_unit_test(products_of_elements_are_exact),
        cmocka_unit_test(norm_is_right_and_a_row_does_not_depend_on_the_others),
        cmocka_unit_test(embedding_rows_are_scaled_exactly),
        cmocka_unit_test(topk_heads_with_equal_scores_keep_the_lowest_index),
        cmocka_unit_test(negative_k_keeps_all_zero_keeps_none_and_nan_is_the_lowest),
        cmocka_unit_test(random_heads_are_those_of_their_scores_whatever_the_company),
        cmocka_unit_test(scores_rank_low_entropy_high_l2_and_high_entropy_as_the_metric_says),
        cmocka_unit_test(random_scores_depend_on_seed_layer_position_and_head_and_are_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
