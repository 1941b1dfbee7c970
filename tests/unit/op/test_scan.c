/* test_scan.c - Mamba's selective scan: the reference against the equation written out, the CPU tables
 * against the reference, and the laws of cutting and company.
 */
#include "op_test.h"

static const int64_t widths[] = {1, 7, 24, 63, 65, 130, 256};
enum { WIDTHS = sizeof widths / sizeof *widths };

/* Ten rows in one call, more than a task takes: the middle of a sequence, starts, single tokens. */
static const ct_seg segs[] = {{0, 65, 64}, {65, 7, 0}, {72, 1, 3}, {73, 1, 0}, {74, 2, 9},
                              {76, 1, 1},  {77, 3, 0}, {80, 1, 5}, {81, 1, 6}, {82, 8, 0}};
enum { SEGS = 10, TOKENS = 90 };

typedef struct scan_case {
    float *x, *dt, *b, *c, *a_log, *skip, *y;
    ct_scan scan;
} scan_case;

/* Steps from softplus(-9) = 1e-4 to 3, rates from e^-1 to e^3. */
static scan_case new_scan(int64_t tokens, int64_t width, int64_t states)
{
    scan_case s = {random_floats(tokens * width, 2, 1),
                   random_floats(tokens * width, 6, 2),
                   random_floats(tokens * states, 2, 3),
                   random_floats(tokens * states, 2, 4),
                   random_floats(width * states, 2, 5),
                   random_floats(width, 2, 6),
                   floats(tokens * width),
                   {0}};
    for (int64_t i = 0; i < tokens * width; i++) s.dt[i] -= 3;
    for (int64_t i = 0; i < width * states; i++) s.a_log[i] += 1;
    s.scan = (ct_scan){s.x, s.dt, s.b, s.c, s.a_log, s.skip, width, states};
    return s;
}

static void free_scan(scan_case *s)
{
    free(s->x), free(s->dt), free(s->b), free(s->c), free(s->a_log), free(s->skip), free(s->y);
}

static void new_states(float *state[SEGS], int64_t count)
{
    for (int s = 0; s < SEGS; s++) state[s] = random_floats(count, 1, (uint64_t)(100 + s));
}

static void free_states(float *state[SEGS])
{
    for (int s = 0; s < SEGS; s++) free(state[s]);
}

/* One channel, one state, three tokens, by hand: softplus(ln(e - 1)) = 1 and exp(-exp(0)) = 1/e. */
static void the_reference_is_the_equation(void **state)
{
    (void)state;
    float one_step = (float)log(exp(1) - 1);
    float x[] = {1, 2, 0}, dt[] = {one_step, one_step, one_step}, b[] = {1, 0.5f, 7};
    float c[] = {1, 2, 4}, a_log = 0, skip = 10, h = 0, *at = &h, y[3];
    ct_scan scan = {x, dt, b, c, &a_log, &skip, 1, 1};
    ct_seg seg = {0, 3, 0};
    ct_ops_ref()->selective_scan(NULL, y, &scan, BATCH(&seg, &at, 1), 0);
    double e = exp(-1), h0 = 1, h1 = e * h0 + 1, h2 = e * h1;
    assert_true(fabs((double)y[0] - (h0 + 10)) < 1e-5);
    assert_true(fabs((double)y[1] - (2 * h1 + 20)) < 1e-5);
    assert_true(fabs((double)y[2] - 4 * h2) < 1e-5);
    assert_true(fabs((double)h - h2) < 1e-6);
}

/* A step errs by a few 2^-24 of h (at most about 12 here) and of its input; errors live on as the
 * decay's powers, for 65 steps at the worst where it is near 1: 65 x 4 x 2^-24 x 12 = 2e-4, and y
 * sums `states` of them with factors up to 2. Errors are random and mostly far below: the bound
 * keeps a tenth of that. */
static void the_scan_is_right_and_moves_its_state(void **state)
{
    (void)state;
    const int64_t states[] = {1, 5, 16, 17, 64, 70};
    FOR_EACH_TABLE(ops)
    for (int w = 0; w < WIDTHS; w++)
        for (int n = 0; n < 6; n++) {
            int64_t R = widths[w], N = states[n];
            scan_case s = new_scan(TOKENS, R, N);
            float *want = floats(TOKENS * R), *got_state[SEGS], *want_state[SEGS];
            new_states(got_state, N * R);
            new_states(want_state, N * R);
            ct_ops_ref()->selective_scan(NULL, want, &s.scan, BATCH(segs, want_state, SEGS), 0);
            ops->selective_scan(NULL, s.y, &s.scan, BATCH(segs, got_state, SEGS), 0);
            assert_close(ops->class_name(NULL), "y", s.y, want, TOKENS * R, 4e-5 * (double)N, 0);
            for (int i = 0; i < SEGS; i++)
                assert_close(ops->class_name(NULL), "state", got_state[i], want_state[i], N * R,
                             2e-5, 0);
            /* y over x, and over dt: the same bits */
            free_states(got_state);
            new_states(got_state, N * R);
            float *x = floats(TOKENS * R);
            memcpy(x, s.x, (size_t)(TOKENS * R) * sizeof *x);
            ops->selective_scan(NULL, s.x, &s.scan, BATCH(segs, got_state, SEGS), 0);
            assert_same_bits(ops->class_name(NULL), "y over x", s.x, s.y, TOKENS * R);
            memcpy(s.x, x, (size_t)(TOKENS * R) * sizeof *x);
            free_states(got_state);
            new_states(got_state, N * R);
            ops->selective_scan(NULL, s.dt, &s.scan, BATCH(segs, got_state, SEGS), 0);
            assert_same_bits(ops->class_name(NULL), "y over dt", s.dt, s.y, TOKENS * R);
            free(x), free(want), free_states(got_state), free_states(want_state), free_scan(&s);
        }
}

/* Steps near 0 keep a state, large ones forget it; decays that underflow are 0, not garbage. */
static void extreme_steps_keep_or_forget(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    {
        float x[] = {0, 0, 0}, dt[] = {-80, 1e-3f, 1e6f}, b[] = {1, 1, 1}, c[] = {1, 1, 1};
        float a_log = 4, skip = 0, h = 3, *at = &h, y[3];
        ct_scan scan = {x, dt, b, c, &a_log, &skip, 1, 1};
        ct_seg seg = {0, 3, 0};
        ops->selective_scan(NULL, y, &scan, BATCH(&seg, &at, 1), 0);
        assert_true(y[0] == 3);
        assert_true(y[1] > 0 && y[1] < 1e-14f);
        assert_true(y[2] == 0 && h == 0);
    }
}

/* 200 tokens in one call on two threads, and in pieces of any size on one; a row in company of nine
 * others and alone. */
static void pieces_threads_and_company_change_no_bit(void **state)
{
    (void)state;
    const int64_t T = 200, N = 16, pieces[] = {1, 2, 3, 7, 64, 123};
    FOR_EACH_TABLE(ops)
    for (int w = 0; w < WIDTHS; w++) {
        int64_t R = widths[w];
        scan_case s = new_scan(T, R, N);
        float *h = calloc((size_t)(N * R), sizeof *h), *g = calloc((size_t)(N * R), sizeof *g);
        float *part = floats(T * R);
        ct_seg whole = {0, T, 0};
        omp_set_num_threads(2);
        ops->selective_scan(NULL, s.y, &s.scan, BATCH(&whole, &h, 1), 0);
        omp_set_num_threads(1);
        for (int64_t at = 0, i = 0, n; at < T; at += n, i++) {
            n = pieces[i % 6] < T - at ? pieces[i % 6] : T - at;
            ct_seg piece = {at, n, at};
            ops->selective_scan(NULL, part, &s.scan, BATCH(&piece, &g, 1), 0);
            assert_same_bits(ops->class_name(NULL), "piece", part + at * R, s.y + at * R, n * R);
        }
        assert_same_bits(ops->class_name(NULL), "state", g, h, N * R);
        omp_set_num_threads(2);
        float *batch[SEGS], *alone[SEGS];
        new_states(batch, N * R);
        new_states(alone, N * R);
        ops->selective_scan(NULL, s.y, &s.scan, BATCH(segs, batch, SEGS), 0);
        for (int i = 0; i < SEGS; i++) {
            ops->selective_scan(NULL, part, &s.scan, BATCH(&segs[i], &alone[i], 1), 0);
            assert_same_bits(ops->class_name(NULL), "row alone", part + segs[i].first * R,
                             s.y + segs[i].first * R, segs[i].count * R);
            assert_same_bits(ops->class_name(NULL), "its state", alone[i], batch[i], N * R);
        }
        omp_set_num_threads(omp_get_num_procs());
        free(h), free(g), free(part), free_states(batch), free_states(alone), free_scan(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_is_the_equation),
        cmocka_unit_test(the_scan_is_right_and_moves_its_state),
        cmocka_unit_test(extreme_steps_keep_or_forget),
        cmocka_unit_test(pieces_threads_and_company_change_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
