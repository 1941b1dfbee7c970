/* test_recurrent.c - convolution, RG-LRU and rotary embedding: values, state, and laws of cutting.
 */
#include "op/parts.h"
#include "op_test.h"

static const int64_t widths[] = {1, 7, 24, 63, 65, 130, 256};
enum { WIDTHS = sizeof widths / sizeof *widths };

/* Three rows in one call: the middle of a sequence, a start, and a single token. */
static const ct_seg segs[] = {{0, 65, 64}, {65, 7, 0}, {72, 1, 3}};
enum { SEGS = 3, TOKENS = 73 };

static void new_state(float *state[SEGS], int64_t count)
{
    for (int s = 0; s < SEGS; s++) state[s] = random_floats(count, 1, (uint64_t)(100 + s));
}

static void free_state(float *state[SEGS])
{
    for (int s = 0; s < SEGS; s++) free(state[s]);
}

static void convolution_is_right_and_its_state_is_the_last_inputs(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < WIDTHS; c++)
        for (int64_t taps = 1; taps <= 10; taps += 3) {
            int64_t R = widths[c];
            float *x = random_floats(TOKENS * R, 1, 1), *w = random_floats(R * taps, 1, 2);
            float *bias = taps == 7 ? NULL : random_floats(R, 1, 3), *y = floats(TOKENS * R);
            float *want = floats(TOKENS * R), *got_state[SEGS], *want_state[SEGS];
            new_state(got_state, (taps - 1) * R);
            new_state(want_state, (taps - 1) * R);
            ops->conv1d(NULL, y, x, R, taps, w, bias, BATCH(segs, got_state, SEGS), 0);
            ct_ops_ref()->conv1d(NULL, want, x, R, taps, w, bias, BATCH(segs, want_state, SEGS), 0);
            /* taps products of at most 1 and a bias: taps roundings of at most taps + 1 */
            assert_close(ops->class_name(NULL), "y", y, want, TOKENS * R,
                         (double)(taps * (taps + 1)) * 0x1p-24, 0);
            for (int s = 0; s < SEGS; s++)
                assert_same_bits(ops->class_name(NULL), "state", got_state[s], want_state[s],
                                 (taps - 1) * R);
            free(x), free(w), free(bias), free(y), free(want);
            free_state(got_state), free_state(want_state);
        }
}

typedef struct lru_case {
    float *x, *gate_x, *gate_a, *param, *y;
} lru_case;

static lru_case new_lru(int64_t tokens, int64_t width)
{
    lru_case c = {random_floats(tokens * width, 3, 1), random_floats(tokens * width, 6, 2),
                  random_floats(tokens * width, 6, 3), random_floats(width, 1, 4),
                  floats(tokens * width)};
    for (int64_t i = 0; i < width; i++) c.param[i] = c.param[i] * 12 - 8; /* -20 .. 4 */
    return c;
}

static void free_lru(lru_case *c)
{
    free(c->x), free(c->gate_x), free(c->gate_a), free(c->param), free(c->y);
}

/* A step errs by a few 2^-24 of h and of its input (at most 3); errors live on as a^n, and where a
 * is near 1, for 1 / (1 - a) steps or all 65 of them: 65 x 4 x 2^-24 x 3 = 5e-5 at the worst. */
static void rg_lru_is_right_and_moves_its_state(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < WIDTHS; c++) {
        int64_t R = widths[c];
        lru_case in = new_lru(TOKENS, R);
        float *want = floats(TOKENS * R), *got_state[SEGS], *want_state[SEGS];
        new_state(got_state, R);
        new_state(want_state, R);
        ct_ops_ref()->rg_lru(NULL, want, in.x, in.gate_x, in.gate_a, in.param, R,
                             BATCH(segs, want_state, SEGS), 0);
        ops->rg_lru(NULL, in.y, in.x, in.gate_x, in.gate_a, in.param, R,
                    BATCH(segs, got_state, SEGS), 0);
        assert_close(ops->class_name(NULL), "y", in.y, want, TOKENS * R, 5e-5, 0);
        for (int s = 0; s < SEGS; s++)
            assert_same_bits(ops->class_name(NULL), "state", got_state[s],
                             in.y + (segs[s].first + segs[s].count - 1) * R, R);
        free_state(got_state);
        new_state(got_state, R); /* y over x: the same bits */
        ops->rg_lru(NULL, in.x, in.x, in.gate_x, in.gate_a, in.param, R,
                    BATCH(segs, got_state, SEGS), 0);
        assert_same_bits(ops->class_name(NULL), "y over x", in.x, in.y, TOKENS * R);
        free(want), free_state(got_state), free_state(want_state), free_lru(&in);
    }
}

/* Where a is within 1e-7 of 1, sqrt(1 - a^2) by subtraction would have no digit left. */
static void rg_lru_keeps_its_digits_where_the_decay_is_tiny(void **state)
{
    (void)state;
    ct_seg one = {0, 1, 5};
    float x = 1, gate_x = 0, gate_a = 0, param = -17, y, want, got_state = 0, want_state = 0;
    float *got = &got_state, *expected = &want_state;
    ct_ops_ref()->rg_lru(NULL, &want, &x, &gate_x, &gate_a, &param, 1, BATCH(&one, &expected, 1),
                         0);
    FOR_EACH_TABLE(ops)
    {
        got_state = 0;
        ops->rg_lru(NULL, &y, &x, &gate_x, &gate_a, &param, 1, BATCH(&one, &got, 1), 0);
        assert_close(ops->class_name(NULL), "y", &y, &want, 1, 0, 5e-7);
    }
}

static void the_reset_is_at_position_zero_not_at_the_first_token_of_a_call(void **state)
{
    (void)state;
    float x[2] = {2, 2}, gate_x[2] = {0, 0}, gate_a[2] = {0, 0}, param = 0, y[2];
    FOR_EACH_TABLE(ops)
    {
        float h = 1000, *at = &h;
        ct_seg start = {0, 1, 0}, later = {0, 1, 7};
        ops->rg_lru(NULL, y, x, gate_x, gate_a, &param, 1, BATCH(&start, &at, 1), 0);
        assert_true(y[0] == 1 && h == 1); /* sigmoid(0) x, nothing of the old state */
        h = 1000;
        ops->rg_lru(NULL, y, x, gate_x, gate_a, &param, 1, BATCH(&later, &at, 1), 0);
        /* a = exp(-8 sigmoid(0) softplus(0)) = 2^-4 */
        assert_true(fabsf(y[0] - (62.5f + sqrtf(255.0f / 256))) < 1e-4f);
    }
}

/* conv1d and rg_lru of 200 tokens in one call, and in pieces of any size, on 1 and 2 threads. */
static void scans_in_pieces_equal_the_scan_of_the_whole_bit_for_bit(void **state)
{
    (void)state;
    const int64_t T = 200, pieces[] = {1, 2, 3, 7, 64, 123};
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < WIDTHS; c++) {
        int64_t R = widths[c], taps = 4;
        lru_case in = new_lru(T, R);
        float *w = random_floats(R * taps, 1, 5), *bias = random_floats(R, 1, 6);
        float *conv_y = floats(T * R), *h = calloc((size_t)R, sizeof *h);
        float *conv = calloc((size_t)(R * 3), sizeof *conv), *part = floats(T * R);
        ct_seg whole = {0, T, 0};
        omp_set_num_threads(2);
        ops->conv1d(NULL, conv_y, in.x, R, taps, w, bias, BATCH(&whole, &conv, 1), 0);
        ops->rg_lru(NULL, in.y, conv_y, in.gate_x, in.gate_a, in.param, R, BATCH(&whole, &h, 1), 0);
        omp_set_num_threads(1);
        memset(conv, 0, (size_t)(R * 3) * sizeof *conv);
        memset(h, 0, (size_t)R * sizeof *h);
        for (int64_t at = 0, i = 0, n; at < T; at += n, i++) {
            n = pieces[i % 6] < T - at ? pieces[i % 6] : T - at;
            ct_seg piece = {0, n, at};
            ops->conv1d(NULL, part, in.x + at * R, R, taps, w, bias, BATCH(&piece, &conv, 1), 0);
            assert_same_bits(ops->class_name(NULL), "conv", part, conv_y + at * R, n * R);
            ops->rg_lru(NULL, part, part, in.gate_x + at * R, in.gate_a + at * R, in.param, R,
                        BATCH(&piece, &h, 1), 0);
            assert_same_bits(ops->class_name(NULL), "rg_lru", part, in.y + at * R, n * R);
        }
        omp_set_num_threads(omp_get_num_procs());
        free(w), free(bias), free(conv_y), free(conv), free(h), free(part), free_lru(&in);
    }
}

/* rglru of four rows, one of more tokens than a task has at a time, against conv1d, block_matmul, rg_lru,
 * gelu_mul and mul one after the other: outputs and states, on 1 to 3 threads. */
static void the_recurrent_block_at_once_has_the_bits_of_its_parts(void **state)
{
    (void)state;
    const struct {
        int64_t blocks, n, taps;
    } shapes[] = {{1, 7, 4}, {2, 65, 1}, {3, 16, 4}, {8, 128, 4}, {2, 520, 2}, {5, 24, 10}};
    const ct_seg rows[] = {{0, 100, 64}, {100, 7, 0}, {107, 1, 3}, {108, 49, 0}};
    enum { ROWS = 4, T = 157 };
    static const ct_dtype dtypes[] = {CT_F32, CT_BF16, CT_F16};
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < 18; c++) {
        int64_t n = shapes[c / 3].n, blocks = shapes[c / 3].blocks, R = n * blocks;
        int64_t taps = shapes[c / 3].taps;
        ct_matrix gate_x = random_matrix(R, n, dtypes[c % 3], 7);
        ct_matrix gate_a = random_matrix(R, n, dtypes[c % 3], 8);
        float *conv = random_floats(R * taps, 0.1f, 2);
        float *bias = random_floats(R, 1, 3), *param = random_floats(R, 4, 4);
        ct_rglru w = {R,
                      taps,
                      blocks,
                      conv,
                      c % 2 ? bias : NULL,
                      gate_x,
                      gate_a,
                      bias,
                      c % 2 ? NULL : bias,
                      param};
        float *x = random_floats(T * R, 3, 5), *y = floats(T * R), *work = floats(3 * T * R);
        float *want = floats(T * R), *got = floats(T * R);
        float *want_state[ROWS], *got_state[ROWS];
        for (int s = 0; s < ROWS; s++)
            want_state[s] = random_floats(R * taps + 3, 1, (uint64_t)(9 + s));
        float *from = random_floats(T * R, 3, 6);
        ct_batch before = {.tokens = T, .n_segs = ROWS, .segs = rows, .states = want_state};
        ct_batch after = {.tokens = T, .n_segs = ROWS, .segs = rows, .states = got_state};
        memcpy(y, from, (size_t)(T * R) * sizeof *y);
        ct_err err;
        assert_int_equal(ct_rglru_by_parts(ops, NULL, want, x, y, &w, work, &before, 3, &err),
                         CT_OK);
        for (int threads = 1; threads <= 3; threads++) {
            for (int s = 0; s < ROWS; s++)
                got_state[s] = random_floats(R * taps + 3, 1, (uint64_t)(9 + s));
            memcpy(y, from, (size_t)(T * R) * sizeof *y);
            omp_set_num_threads(threads);
            assert_int_equal(ops->rglru(NULL, got, x, y, &w, work, &after, 3, &err), CT_OK);
            omp_set_num_threads(omp_get_num_procs());
            assert_same_bits(ops->class_name(NULL), "out", got, want, T * R);
            for (int s = 0; s < ROWS; s++) {
                assert_same_bits(ops->class_name(NULL), "state", got_state[s], want_state[s],
                                 R * taps + 3);
                free(got_state[s]);
            }
        }
        for (int s = 0; s < ROWS; s++) free(want_state[s]);
        free((void *)(uintptr_t)gate_x.data), free((void *)(uintptr_t)gate_a.data), free(conv),
            free(bias), free(param), free(x), free(y);
        free(work), free(want), free(got), free(from);
    }
}

/* cos and sin are right to 1e-7; each of two products adds 2^-24 of at most 1. */
static void rope_turns_the_first_dims_and_leaves_the_others(void **state)
{
    (void)state;
    const struct {
        int64_t heads, dim, rotary;
    } shapes[] = {{1, 8, 4}, {8, 32, 16}, {3, 24, 12}, {2, 256, 128}, {1, 300, 300}, {2, 7, 2}};
    const ct_seg far[] = {{0, 65, 4000}, {65, 7, 0}, {72, 1, 1000003}};
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < 6; c++) {
        int64_t H = shapes[c].heads, D = shapes[c].dim, n = TOKENS * H * D;
        float *x = random_floats(n, 1, 1), *want = random_floats(n, 1, 1);
        ops->rope(NULL, x, H, D, shapes[c].rotary, 10000, BATCH(far, NULL, SEGS));
        ct_ops_ref()->rope(NULL, want, H, D, shapes[c].rotary, 10000, BATCH(far, NULL, SEGS));
        assert_close(ops->class_name(NULL), "rotated", x, want, n, 4e-7, 0);
        float *one = random_floats(n, 1, 1);
        ct_seg alone = {0, 1, far[0].position + 33};
        ops->rope(NULL, one + 33 * H * D, H, D, shapes[c].rotary, 10000, BATCH(&alone, NULL, 1));
        assert_same_bits(ops->class_name(NULL), "token alone", one + 33 * H * D, x + 33 * H * D,
                         H * D);
        for (int64_t d = shapes[c].rotary; d < D; d++) assert_true(x[d] == one[d]);
        free(x), free(want), free(one);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolution_is_right_and_its_state_is_the_last_inputs),
        cmocka_unit_test(rg_lru_is_right_and_moves_its_state),
        cmocka_unit_test(rg_lru_keeps_its_digits_where_the_decay_is_tiny),
        cmocka_unit_test(the_reset_is_at_position_zero_not_at_the_first_token_of_a_call),
        cmocka_unit_test(scans_in_pieces_equal_the_scan_of_the_whole_bit_for_bit),
        cmocka_unit_test(the_recurrent_block_at_once_has_the_bits_of_its_parts),
        cmocka_unit_test(rope_turns_the_first_dims_and_leaves_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
