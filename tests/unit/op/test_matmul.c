/* test_matmul.c - products: right within the rounding of their sums, and a row's bits depend on
 * nothing but the row and the matrix.
 */
#include "op/parts.h"
#include "op_test.h"

static const int64_t depths[] = {1, 7, 24, 63, 65, 96, 256, 384, 768, 1000, 1024, 1025, 2560, 4096};
static const int64_t widths[] = {1, 3, 24, 33, 66, 96};
static const int64_t batches[] = {1, 2, 3, 5, 8, 16, 17, 33, 64, 65, 100, 512};
enum { DEPTHS = sizeof depths / sizeof *depths, WIDTHS = sizeof widths / sizeof *widths };
enum { BATCHES = sizeof batches / sizeof *batches, MAX_BATCH = 512 };

static const struct {
    ct_dtype stored;
    ct_compute compute;
} kinds[] = {
    {CT_F32, CT_COMPUTE_F32},   {CT_BF16, CT_COMPUTE_F32}, {CT_F16, CT_COMPUTE_F32},
    {CT_BF16, CT_COMPUTE_BF16}, {CT_F32, CT_COMPUTE_BF16}, {CT_F16, CT_COMPUTE_BF16},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

/* The worst case of a sum in f32: each of the n additions on a term's way rounds by 2^-24 of at
 * most sum |x w|. With 4 lanes over 1024 terms, then lanes and chunks: n = 256 + 16 at K = 4096;
 * AMX adds pairs in order: n = K / 2. */
static void products_are_right_within_the_rounding_of_their_sums(void **state)
{
    (void)state;
    ct_err err = {0};
    FOR_EACH_TABLE(ops)
    for (int kind = 0; kind < KINDS; kind++)
        for (int d = 0; d < DEPTHS; d++)
            for (int n = 0; n < WIDTHS; n++) {
                int64_t K = depths[d], N = widths[n], T = 1 + (d * 5 + n * 3) % 9;
                ct_matrix w = random_matrix(N, K, kinds[kind].stored, (uint64_t)(d + n));
                float *x = random_floats(T * K, 1, (uint64_t)d), *bias = random_floats(N, 1, 3);
                float *y = random_floats(T * N, 1, 4), *want = random_floats(T * N, 1, 4);
                ct_op_ctx ctx = new_ctx(ops, kinds[kind].compute, T, N, K, 1, 1);
                bool accumulate = n & 1;
                const float *b = n & 2 ? bias : NULL;
                assert_ok(ops->matmul(&ctx, y, x, T, &w, b, accumulate, &err));
                assert_ok(ct_ops_ref()->matmul(&ctx, want, x, T, &w, b, accumulate, &err));
                double bound = (16 + (double)(K < 512 ? K : K < 1024 ? 512 : K / 2)) * 0x1p-24;
                /* |x| and |w| are below 1, with means 1/2 and 1/2: sum |x w| < K / 2 + 8 */
                assert_close(ops->class_name(NULL), "y", y, want, T * N,
                             bound * ((double)K / 2 + 8) + 2e-7, 0);
                free(x), free(bias), free(y), free(want), free(ctx.scratch), free_matrix(&w);
            }
}

/* Rows [first, first + M) of x alone must give what they gave among all MAX_BATCH. */
static void check_rows(const ct_ops *ops, int kind, int64_t K, int64_t N)
{
    ct_err err = {0};
    ct_matrix w = random_matrix(N, K, kinds[kind].stored, 11);
    float *x = random_floats(MAX_BATCH * K, 1, 12), *bias = random_floats(N, 1, 13);
    float *all = floats(MAX_BATCH * N), *y = floats(MAX_BATCH * N);
    ct_op_ctx ctx = new_ctx(ops, kinds[kind].compute, MAX_BATCH, N, K, 1, 1);
    omp_set_num_threads(2);
    assert_ok(ops->matmul(&ctx, all, x, MAX_BATCH, &w, bias, false, &err));
    for (int threads = 1; threads <= 2; threads++) {
        omp_set_num_threads(threads);
        for (int b = 0; b < BATCHES; b++) {
            int64_t M = batches[b], first = (MAX_BATCH - M) * (b % 3) / 2;
            memset(y, 0xFF, (size_t)(M * N) * sizeof *y);
            assert_ok(ops->matmul(&ctx, y, x + first * K, M, &w, bias, false, &err));
            assert_same_bits(ops->class_name(NULL), "row of y", y, all + first * N, M * N);
        }
    }
    omp_set_num_threads(omp_get_num_procs());
    free(x), free(bias), free(all), free(y), free(ctx.scratch), free_matrix(&w);
}

static void a_row_has_the_same_bits_alone_and_in_any_batch(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    for (int kind = 0; kind < KINDS; kind++)
        for (int d = 0; d < DEPTHS; d++)
            check_rows(ops, kind, depths[d], d % 2 ? 24 + d : depths[d] < 1000 ? 96 : 33);
}

static void weights_of_any_type_give_the_same_bits_if_their_values_are_the_same(void **state)
{
    (void)state;
    ct_err err = {0};
    int64_t K = 1030, N = 37;
    FOR_EACH_TABLE(ops)
    for (int b = 0; b < 6; b++) {
        int64_t T = batches[b];
        float *x = random_floats(T * K, 1, 21), *y[3];
        for (int type = 0; type < 3; type++) {
            const ct_dtype dtypes[] = {CT_F32, CT_BF16, CT_F16};
            ct_matrix w = random_matrix(N, K, dtypes[type], 22);
            ct_op_ctx ctx = new_ctx(ops, CT_COMPUTE_F32, T, N, K, 1, 1);
            y[type] = floats(T * N);
            assert_ok(ops->matmul(&ctx, y[type], x, T, &w, NULL, false, &err));
            free(ctx.scratch), free_matrix(&w);
        }
        assert_same_bits(ops->class_name(NULL), "y of bf16 weights", y[1], y[0], T * N);
        assert_same_bits(ops->class_name(NULL), "y of f16 weights", y[2], y[0], T * N);
        free(x), free(y[0]), free(y[1]), free(y[2]);
    }
}

/* Weights in a mapped file lie at any address, and the last element ends the map. */
static void weights_may_lie_at_any_address_and_nothing_beyond_them_is_read(void **state)
{
    (void)state;
    ct_err err = {0};
    FOR_EACH_TABLE(ops)
    for (int kind = 0; kind < KINDS; kind++)
        for (int d = 0; d < 7; d++) {
            int64_t K = depths[d], N = 67, T = 5;
            ct_matrix w = random_matrix(N, K, kinds[kind].stored, 31);
            size_t size = (size_t)(N * K) * ct_dtype_bytes(w.dtype);
            char *moved = room(size + 1); /* with ASan a read behind it fails */
            memcpy(moved + 1, w.data, size);
            ct_matrix at = {moved + 1, w.dtype, N, K};
            float *x = random_floats(T * K, 1, 32), *y = floats(T * N), *want = floats(T * N);
            ct_op_ctx ctx = new_ctx(ops, kinds[kind].compute, T, N, K, 1, 1);
            assert_ok(ops->matmul(&ctx, want, x, T, &w, NULL, false, &err));
            assert_ok(ops->matmul(&ctx, y, x, T, &at, NULL, false, &err));
            assert_same_bits(ops->class_name(NULL), "y", y, want, T * N);
            free(x), free(y), free(want), free(moved), free(ctx.scratch), free_matrix(&w);
        }
}

static void gates_multiply_block_by_block_with_in_before_out(void **state)
{
    (void)state;
    ct_err err = {0};
    const int64_t sizes[] = {1, 7, 24, 32, 63, 65};
    FOR_EACH_TABLE(ops)
    for (int kind = 0; kind < 3; kind++)
        for (int s = 0; s < 6; s++) {
            int64_t n = sizes[s], blocks = 1 + s % 4, width = n * blocks, T = 101;
            ct_matrix w = random_matrix(width, n, kinds[kind].stored, 41);
            float *x = random_floats(T * width, 1, 42), *bias = random_floats(width, 1, 43);
            float *y = floats(T * width), *want = floats(T * width), *one = floats(width);
            ct_op_ctx ctx = new_ctx(ops, CT_COMPUTE_F32, T, width, n, 1, 1);
            assert_ok(ops->block_matmul(&ctx, y, x, T, &w, blocks, bias, &err));
            assert_ok(ct_ops_ref()->block_matmul(&ctx, want, x, T, &w, blocks, bias, &err));
            /* n additions in order, each rounding by 2^-24 of at most n + 1 */
            assert_close(ops->class_name(NULL), "y", y, want, T * width,
                         (double)((n + 2) * (n + 2)) * 0x1p-24, 0);
            for (int64_t t = 0; t < T; t += 25) { /* alone: the same bits */
                assert_ok(ops->block_matmul(&ctx, one, x + t * width, 1, &w, blocks, bias, &err));
                assert_same_bits(ops->class_name(NULL), "row of y", one, y + t * width, width);
            }
            free(x), free(bias), free(y), free(want), free(one), free(ctx.scratch);
            free_matrix(&w);
        }
}

static ct_mlp random_mlp(int64_t E, int64_t F, ct_dtype dtype)
{
    return (ct_mlp){.gate = random_matrix(F, E, dtype, 1),
                    .up = random_matrix(F, E, dtype, 2),
                    .down = random_matrix(E, F, dtype, 3),
                    .gate_bias = random_floats(F, 1, 4),
                    .up_bias = random_floats(F, 1, 5),
                    .down_bias = random_floats(E, 1, 6)};
}

static void free_mlp(ct_mlp *mlp)
{
    free_matrix(&mlp->gate), free_matrix(&mlp->up), free_matrix(&mlp->down);
    free((void *)(uintptr_t)mlp->gate_bias), free((void *)(uintptr_t)mlp->up_bias);
    free((void *)(uintptr_t)mlp->down_bias);
}

static void the_feed_forward_has_the_bits_of_its_parts(void **state)
{
    (void)state;
    /* E, F, tokens: nothing whole; whole steps of k; more k and tokens than a task takes at once. */
    static const int64_t sizes[][3] = {{7, 5, 3},     {32, 64, 1},    {64, 32, 17},
                                       {96, 160, 65}, {1056, 64, 33}, {64, 1056, 700}};
    static const ct_dtype dtypes[] = {CT_BF16, CT_F32, CT_F16};
    FOR_EACH_TABLE(ops)
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int kind = 0; kind < 6; kind++) {
            int64_t E = sizes[s][0], F = sizes[s][1], T = sizes[s][2],
                    hidden = (T + 31) / 32 * 32 * F;
            ct_mlp mlp = random_mlp(E, F, dtypes[kind % 3]);
            mlp.activation = kind % 2 ? CT_SILU : CT_GELU;
            if (kind == 5) free((void *)(uintptr_t)mlp.up_bias), mlp.up_bias = NULL;
            int64_t most = E > F ? E : F;
            ct_op_ctx ctx =
                new_ctx(ops, kind < 3 ? CT_COMPUTE_BF16 : CT_COMPUTE_F32, T, most, most, 1, 1);
            float *x = random_floats(T * E, 1, 7), *y = random_floats(T * E, 1, 8);
            float *want = random_floats(T * E, 1, 8), *room = floats(2 * hidden);
            ct_err err = {0};
            assert_ok(ct_mlp_by_parts(ops, &ctx, want, x, T, &mlp, room, &err));
            memset(room, 0xFF, (size_t)(2 * hidden) * sizeof *room);
            assert_ok(ops->gated_mlp(&ctx, y, x, T, &mlp, room, &err));
            assert_same_bits(ops->class_name(NULL), "feed-forward", y, want, T * E);
            free(ctx.scratch), free(x), free(y), free(want), free(room);
            free_mlp(&mlp);
        }
}

static void missing_scratch_is_an_error_not_a_crash(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_matrix w = random_matrix(8, 64, CT_BF16, 1);
    float *x = random_floats(64, 1, 1), y[8];
    FOR_EACH_TABLE(ops)
    {
        ct_op_ctx ctx = {.compute = CT_COMPUTE_BF16};
        assert_fails(ops->matmul(&ctx, y, x, 1, &w, NULL, false, &err), CT_ERR_LIMIT, "scratch");
    }
    free(x), free_matrix(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_right_within_the_rounding_of_their_sums),
        cmocka_unit_test(a_row_has_the_same_bits_alone_and_in_any_batch),
        cmocka_unit_test(weights_of_any_type_give_the_same_bits_if_their_values_are_the_same),
        cmocka_unit_test(weights_may_lie_at_any_address_and_nothing_beyond_them_is_read),
        cmocka_unit_test(gates_multiply_block_by_block_with_in_before_out),
        cmocka_unit_test(the_feed_forward_has_the_bits_of_its_parts),
        cmocka_unit_test(missing_scratch_is_an_error_not_a_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
