/* test_attention.c - attention against the reference, its edits, entropy and l2, and the laws: any
 * batch, any cut, any number of threads, decode and prefill give the same bits.
 */
#include "op_test.h"

/* One sequence: queries, and keys and values in blocks of their own. What no query of the case may
 * see is NaN: the positions behind `length`, and blocks wholly before the first window are NULL. */
typedef struct sequence {
    int64_t heads, kv_heads, dim, length, blocks;
    float *q; /* [length, H, D] */
    float **k, **v;
    uint8_t *marked;
} sequence;

static sequence new_sequence(int64_t heads, int64_t kv_heads, int64_t dim, int64_t length,
                             uint64_t stream)
{
    sequence s = {heads, kv_heads, dim, length, (length + CT_KV_BLOCK - 1) / CT_KV_BLOCK,
                  0,     0,        0,   0};
    s.q = random_floats(length * heads * dim, 2, stream);
    s.k = room((size_t)s.blocks * sizeof *s.k);
    s.v = room((size_t)s.blocks * sizeof *s.v);
    int64_t per_position = kv_heads * dim, per_block = CT_KV_BLOCK * per_position;
    for (int64_t b = 0; b < s.blocks; b++) {
        s.k[b] = random_floats(per_block, 2, stream + 1 + (uint64_t)b * 2);
        s.v[b] = random_floats(per_block, 1, stream + 2 + (uint64_t)b * 2);
        for (int64_t i = 0; i < per_block; i++)
            if (b * CT_KV_BLOCK + i / per_position >= length) s.k[b][i] = s.v[b][i] = NAN;
    }
    s.marked = room((size_t)length);
    for (int64_t p = 0; p < length; p++) s.marked[p] = ct_rng_u64(3, stream, (uint64_t)p) % 4 == 0;
    return s;
}

static void free_sequence(sequence *s)
{
    for (int64_t b = 0; b < s->blocks; b++) free(s->k[b]), free(s->v[b]);
    free(s->q), free(s->k), free(s->v), free(s->marked);
}

typedef struct result {
    float *out, *entropy, *l2;
} result;

static result new_result(const sequence *s, int64_t tokens)
{
    return (result){floats(tokens * s->heads * s->dim), floats(tokens * s->heads),
                    floats(tokens * s->heads)};
}

static void free_result(result *r)
{
    free(r->out), free(r->entropy), free(r->l2);
}

static ct_attn_row row_of(const sequence *s, int64_t first, int64_t position, int64_t count,
                          int64_t window, ct_weights_mode edit)
{
    return (ct_attn_row){.seg = {first, count, position},
                         .window = window,
                         .k = (const void *const *)s->k,
                         .v = (const void *const *)s->v,
                         .edit = edit,
                         .marked = s->marked,
                         .marked_count = s->length};
}

static ct_compute compute = CT_COMPUTE_F32; /* of the test at hand */

/* Tables without tiles take no bf16 in attention. */
static bool takes(const ct_ops *ops)
{
    return compute == CT_COMPUTE_F32 || strcmp(ops->class_name(NULL), "cpu-amx") == 0;
}

static ct_status run_rows(const ct_ops *ops, const sequence *s, const float *q,
                          const ct_attn_row *rows, int64_t n_rows, int64_t tokens, result *r,
                          ct_err *err)
{
    ct_attn_args args = {.tokens = tokens,
                         .heads = s->heads,
                         .kv_heads = s->kv_heads,
                         .head_dim = s->dim,
                         .scale = 1 / sqrtf((float)s->dim),
                         .q = q,
                         .out = r->out,
                         .entropy_bits = r->entropy,
                         .l2 = r->l2,
                         .rows = rows,
                         .n_rows = n_rows};
    ct_op_ctx ctx = new_ctx(ops, compute, tokens, 1, 1, s->heads, s->dim);
    ct_status st = ops->attention(&ctx, &args, err);
    free(ctx.scratch);
    return st;
}

/* Queries at positions position .. position + count - 1 of one sequence. */
static result run(const ct_ops *ops, const sequence *s, int64_t position, int64_t count,
                  int64_t window, ct_weights_mode edit)
{
    ct_err err = {0};
    result r = new_result(s, count);
    ct_attn_row row = row_of(s, 0, position, count, window, edit);
    assert_ok(run_rows(ops, s, s->q + position * s->heads * s->dim, &row, 1, count, &r, &err));
    return r;
}

static void assert_same(const char *table, const sequence *s, const result *got, int64_t at,
                        const result *want, int64_t want_at, int64_t tokens)
{
    int64_t H = s->heads, D = s->dim;
    assert_same_bits(table, "out", got->out + at * H * D, want->out + want_at * H * D,
                     tokens * H * D);
    assert_same_bits(table, "entropy", got->entropy + at * H, want->entropy + want_at * H,
                     tokens * H);
    assert_same_bits(table, "l2", got->l2 + at * H, want->l2 + want_at * H, tokens * H);
}

static const struct {
    int64_t heads, kv_heads, dim;
} shapes[] = {{1, 1, 1},  {8, 1, 32},   {4, 1, 24}, {7, 1, 7}, {4, 2, 63},
              {6, 3, 65}, {10, 1, 256}, {4, 4, 16}, {98, 2, 8}};
enum { SHAPES = sizeof shapes / sizeof *shapes };
static const ct_weights_mode modes[] = {CT_WEIGHTS_KEEP, CT_WEIGHTS_NULL, CT_WEIGHTS_ONLY,
                                        CT_WEIGHTS_BINARY, CT_WEIGHTS_OMIT};

/* Scores are at most 4 sqrt(D) in size (|q|, |k| < 2), sums of D terms: each errs by at most
 * D 2^-24 of it (D / 2 on the average way), so weights err by that relatively; values are below 1.
 * Entropy moves by its weights' errors times their logarithm (at most 11 bits). */
static double error_in_f32(int64_t dim)
{
    return (4 + (double)dim / 2) * 4 * sqrt((double)dim) * 0x1p-24;
}

/* Each product of a score errs by up to 2^-7 of at most 4, most of which cancels over D (sqrt D of
 * them stay; 4 deviations), as does that of the values' weights (2^-8 each). */
static double error_in_bf16(int64_t dim)
{
    (void)dim;
    return 4 * 4 * 0x1p-8;
}

/* Every shape, length, window and edit beside the reference in f32, which is computed once for all: it is what takes
 * the time. Where bf16 is not taken the bound is that of f32. */
static void attention_is_right_under_every_edit_in_either_arithmetic(void **state)
{
    (void)state;
    const int64_t lengths[] = {1, 7, 63, 65, 130, 257};
    for (int c = 0; c < SHAPES; c++)
        for (int i = 0; i < 6; i++) {
            sequence s = new_sequence(shapes[c].heads, shapes[c].kv_heads, shapes[c].dim,
                                      lengths[i], (uint64_t)(c * 1000));
            for (int m = 0; m < 5; m++) {
                int64_t window = (const int64_t[]){-1, 0, 1, 63, 64, 100}[(i + c + m) % 6];
                result want = run(ct_ops_ref(), &s, 0, s.length, window, modes[m]);
                FOR_EACH_TABLE(ops)
                for (int kind = 0; kind < 2; kind++) {
                    int64_t n = s.length * s.heads;
                    const char *name = ops->class_name(NULL);
                    compute = kind ? CT_COMPUTE_BF16 : CT_COMPUTE_F32;
                    double error = kind && takes(ops) ? error_in_bf16(s.dim) : error_in_f32(s.dim);
                    result got = run(ops, &s, 0, s.length, window, modes[m]);
                    assert_close(name, "out", got.out, want.out, n * s.dim, 2 * error + 1e-6, 0);
                    assert_close(name, "entropy", got.entropy, want.entropy, n, 11 * error + 1e-5,
                                 0);
                    assert_close(name, "l2", got.l2, want.l2, n, 2 * error + 1e-6, 0);
                    free_result(&got);
                }
                compute = CT_COMPUTE_F32;
                free_result(&want);
            }
            free_sequence(&s);
        }
}

/* The definitions once more, from a plain array of weights, apart from the reference's code. */
static void edits_and_measures_follow_their_definitions(void **state)
{
    (void)state;
    const int64_t window = 70, length = 200, position = 180;
    sequence s = new_sequence(3, 1, 16, length, 50);
    const ct_ops *every[5];
    int tables = ct_ops_cpu_all(every);
    every[tables++] = ct_ops_ref();
    for (int table = 0; table < tables; table++)
        for (int m = 0; m < 5; m++)
            for (int64_t h = 0; h < 3; h++) {
                double weight[71], sum = 0, entropy = 0, squares = 0, mass = 0, marked = 0;
                const uint8_t *mark = s.marked + position - window;
                for (int64_t i = 0; i <= window; i++) {
                    int64_t p = position - window + i;
                    const float *k = s.k[p / 64] + p % 64 * 16, *q = s.q + (position * 3 + h) * 16;
                    double dot = 0;
                    for (int d = 0; d < 16; d++) dot += (double)q[d] * (double)k[d];
                    sum += weight[i] = exp(dot / 4);
                }
                for (int64_t i = 0; i <= window; i++) {
                    weight[i] /= sum;
                    entropy -= weight[i] * log(weight[i]) / log(2);
                    squares += weight[i] * weight[i];
                    mass += mark[i] ? weight[i] : 0;
                    marked += mark[i];
                }
                double want[16] = {0};
                for (int64_t i = 0; i <= window; i++) {
                    int64_t p = position - window + i;
                    double w = weight[i];
                    if (modes[m] == CT_WEIGHTS_NULL) w = 0;
                    if (modes[m] == CT_WEIGHTS_ONLY && !mark[i]) w = 0;
                    if (modes[m] == CT_WEIGHTS_OMIT && mark[i]) w = 0;
                    if (modes[m] == CT_WEIGHTS_BINARY) w = mark[i] ? mass / marked : 0;
                    for (int d = 0; d < 16; d++)
                        want[d] += w * (double)s.v[p / 64][p % 64 * 16 + d];
                }
                result got = run(every[table], &s, position, 1, window, modes[m]);
                for (int d = 0; d < 16; d++)
                    assert_true(fabs((double)got.out[h * 16 + d] - want[d]) < 5e-6);
                assert_true(fabs((double)got.entropy[h] - entropy) < 2e-5);
                assert_true(fabs((double)got.l2[h] - sqrt(squares)) < 2e-6);
                free_result(&got);
            }
    free_sequence(&s);
}

static void marks_out_of_sight_leave_zero_for_only_and_binary_and_all_for_omit(void **state)
{
    (void)state;
    sequence s = new_sequence(8, 1, 32, 300, 60);
    memset(s.marked, 0, 300);
    memset(s.marked + 10, 1, 5); /* seen by no query from 115 on with window 100 */
    FOR_EACH_TABLE(ops)
    {
        result keep = run(ops, &s, 250, 50, 100, CT_WEIGHTS_KEEP);
        for (int m = 1; m < 5; m++) {
            result r = run(ops, &s, 250, 50, 100, modes[m]);
            for (int64_t i = 0; i < 50 * 8 * 32; i++)
                assert_true(modes[m] == CT_WEIGHTS_OMIT ? r.out[i] == keep.out[i] : r.out[i] == 0);
            assert_same_bits("entropy", "unedited", r.entropy, keep.entropy, 50 * 8);
            assert_same_bits("l2", "unedited", r.l2, keep.l2, 50 * 8);
            free_result(&r);
        }
        free_result(&keep);
    }
    free_sequence(&s);
}

static void one_visible_key_has_entropy_zero_and_l2_one_exactly_in_every_head(void **state)
{
    (void)state;
    sequence s = new_sequence(8, 2, 32, 70, 70);
    FOR_EACH_TABLE(ops)
    {
        result first = run(ops, &s, 0, 70, -1, CT_WEIGHTS_KEEP); /* the first token sees itself */
        result self = run(ops, &s, 0, 70, 0, CT_WEIGHTS_KEEP);   /* window 0: every token does */
        for (int64_t i = 0; i < 8; i++) assert_true(first.entropy[i] == 0 && first.l2[i] == 1);
        for (int64_t i = 0; i < 70 * 8; i++) assert_true(self.entropy[i] == 0 && self.l2[i] == 1);
        for (int64_t i = 0; i < 70 * 8 * 32; i++) { /* its output is its own value */
            int64_t t = i / 256, g = i / 128 % 2, d = i % 32;
            assert_true(self.out[i] == s.v[t / 64][(t % 64 * 2 + g) * 32 + d]);
        }
        free_result(&first), free_result(&self);
    }
    free_sequence(&s);
}

static void equal_scores_give_the_logarithm_of_their_number(void **state)
{
    (void)state;
    sequence s = new_sequence(1, 1, 8, 2100, 80);
    for (int64_t i = 0; i < 2100 * 8; i++) s.q[i] = 0;
    FOR_EACH_TABLE(ops)
    {
        result r = run(ops, &s, 0, 2100, 2047, CT_WEIGHTS_KEEP);
        for (int64_t t = 0; t < 2100; t++) {
            double n = t < 2048 ? (double)t + 1 : 2048;
            assert_true(fabs((double)r.entropy[t] - log2(n)) < 1e-6); /* one rounding of 11 */
            assert_true(fabs((double)r.l2[t] - 1 / sqrt(n)) < 1e-7);
        }
        free_result(&r);
    }
    free_sequence(&s);
}

/* Scores up to 1e5 apart: the weights before the largest underflow to 0, nothing overflows. */
static void a_late_huge_score_takes_all_the_weight(void **state)
{
    (void)state;
    sequence s = new_sequence(2, 1, 16, 200, 90);
    for (int64_t d = 0; d < 16; d++) s.k[2][40 * 16 + d] *= 1e5f; /* position 168 */
    FOR_EACH_TABLE(ops)
    {
        result got = run(ops, &s, 0, 200, -1, CT_WEIGHTS_KEEP);
        result want = run(ct_ops_ref(), &s, 0, 200, -1, CT_WEIGHTS_KEEP);
        /* a score of 1e5 errs by 1e-2, but then it stands alone or counts for nothing */
        assert_close(ops->class_name(NULL), "out", got.out, want.out, 200 * 2 * 16, 1e-5, 0);
        assert_close(ops->class_name(NULL), "entropy", got.entropy, want.entropy, 400, 1e-4, 0);
        free_result(&got), free_result(&want);
    }
    free_sequence(&s);
}

static void decode_and_prefill_in_any_pieces_and_threads_give_the_same_bits(void **state)
{
    (void)state;
    const int64_t cuts[] = {64, 1, 65, 128, 7, 200};
    FOR_EACH_TABLE(ops)
    for (int c = takes(ops) ? 1 : SHAPES; c < SHAPES; c++)
        for (int m = 0; m < 5; m++) {
            int64_t window = (const int64_t[]){-1, 100, 64, 5}[(c + m) % 4], T = 300;
            sequence s = new_sequence(shapes[c].heads, shapes[c].kv_heads, shapes[c].dim, T, 200);
            omp_set_num_threads(2);
            result whole = run(ops, &s, 0, T, window, modes[m]);
            omp_set_num_threads(1);
            for (int64_t at = 0, i = c, n; at < T; at += n, i++) {
                n = cuts[i % 6] < T - at ? cuts[i % 6] : T - at;
                result part = run(ops, &s, at, n, window, modes[m]);
                assert_same(ops->class_name(NULL), &s, &part, 0, &whole, at, n);
                free_result(&part);
            }
            for (int64_t t = 0; t < T; t += 37) {
                result one = run(ops, &s, t, 1, window, modes[m]);
                assert_same(ops->class_name(NULL), &s, &one, 0, &whole, t, 1);
                free_result(&one);
            }
            omp_set_num_threads(omp_get_num_procs());
            free_result(&whole), free_sequence(&s);
        }
}

static void rows_of_a_batch_do_not_touch_one_another(void **state)
{
    (void)state;
    ct_err err = {0};
    sequence a = new_sequence(8, 1, 32, 150, 300), b = new_sequence(8, 1, 32, 90, 400);
    int64_t per_token = 8 * 32, counts[] = {150, 1, 1, 90, 0};
    float *q = floats(242 * per_token);
    memcpy(q, a.q, (size_t)(150 * per_token) * sizeof *q);
    memcpy(q + 150 * per_token, b.q + 89 * per_token, (size_t)per_token * sizeof *q);
    memcpy(q + 151 * per_token, a.q + 149 * per_token, (size_t)per_token * sizeof *q);
    memcpy(q + 152 * per_token, b.q, (size_t)(90 * per_token) * sizeof *q);
    ct_attn_row rows[] = {row_of(&a, 0, 0, counts[0], 100, CT_WEIGHTS_ONLY),
                          row_of(&b, 150, 89, counts[1], 64, CT_WEIGHTS_KEEP),
                          row_of(&a, 151, 149, counts[2], -1, CT_WEIGHTS_BINARY),
                          row_of(&b, 152, 0, counts[3], 10, CT_WEIGHTS_OMIT),
                          row_of(&b, 242, 0, counts[4], 10, CT_WEIGHTS_KEEP)};
    FOR_EACH_TABLE(ops)
    {
        result all = new_result(&a, 242);
        assert_ok(run_rows(ops, &a, q, rows, 5, 242, &all, &err));
        for (int i = 0; i < 4; i++) {
            const sequence *s = i == 0 || i == 2 ? &a : &b;
            result one = run(ops, s, rows[i].seg.position, counts[i], rows[i].window, rows[i].edit);
            assert_same(ops->class_name(NULL), s, &all, rows[i].seg.first, &one, 0, counts[i]);
            free_result(&one);
        }
        free_result(&all);
    }
    free(q), free_sequence(&a), free_sequence(&b);
}

/* Where bf16 is taken at all: in the other tables it would be the same code again. */
/* Rows of one token each that share leading blocks, as forks do, beside others that share none or fewer,
 * under edits and windows of their own: each has the bits that it has alone. What a row does not see is
 * NaN or not there, so no row's memory gets into another's. */
static void forks_that_share_blocks_have_the_bits_that_each_has_alone(void **state)
{
    (void)state;
    enum { ROWS = 23 };
    const int64_t lengths[] = {200, 193, 192, 129, 256, 65, 200}, shared[] = {3, 3, 2, 2, 3, 1, 0};
    FOR_EACH_TABLE(ops)
    for (int c = takes(ops) ? 0 : SHAPES; c < SHAPES; c++)
        for (int threads = 1; threads <= 3; threads++) {
            ct_err err = {0};
            int64_t H = shapes[c].heads, G = shapes[c].kv_heads, D = shapes[c].dim;
            sequence base = new_sequence(H, G, D, 256, 700), s[ROWS];
            const float *k[ROWS][4], *v[ROWS][4];
            ct_attn_row rows[ROWS];
            float *q = floats(ROWS * H * D), *room = floats(8 * ROWS * H);
            result all = new_result(&base, ROWS);
            ct_op_ctx ctx = new_ctx(ops, compute, ROWS, 1, 1, H, D);
            const ct_span needle[] = {{0, 3}, {60, 190}};
            ct_attn_light light[2];
            for (int i = 0; i < 2; i++) {
                float *at = room + i * 4 * ROWS * H;
                light[i] = (ct_attn_light){at, at + ROWS * H, at + 2 * ROWS * H,
                                           (int32_t *)(void *)(at + 3 * ROWS * H)};
            }
            for (int r = 0; r < ROWS; r++) {
                int kind = r < 9 ? r % 3 : (r + c) % 7; /* some neighbours alike, others not */
                int64_t last = lengths[kind] - 1,
                        window = (const int64_t[]){-1, 100, -1, 64}[r % 4];
                int64_t begin = window < 0 || window > last ? 0 : last - window;
                s[r] = new_sequence(H, G, D, lengths[kind], 800 + (uint64_t)r * 20);
                for (int64_t b = 0; b < s[r].blocks; b++) {
                    k[r][b] = b < shared[kind] ? base.k[b] : s[r].k[b];
                    v[r][b] = b < shared[kind] ? base.v[b] : s[r].v[b];
                    if ((b + 1) * CT_KV_BLOCK <= begin) k[r][b] = v[r][b] = NULL;
                }
                ct_weights_mode edit = modes[r < 4 ? 0 : (r + c) % 5];
                rows[r] = row_of(&s[r], r, last, 1, window, edit);
                rows[r].k = (const void *const *)k[r], rows[r].v = (const void *const *)v[r];
                rows[r].needle = needle, rows[r].n_needle = 2;
                memcpy(q + r * H * D, s[r].q + last * H * D, (size_t)(H * D) * sizeof *q);
            }
            ct_attn_args args = {.tokens = ROWS,
                                 .heads = H,
                                 .kv_heads = G,
                                 .head_dim = D,
                                 .scale = 1 / sqrtf((float)D),
                                 .q = q,
                                 .out = all.out,
                                 .entropy_bits = all.entropy,
                                 .l2 = all.l2,
                                 .rows = rows,
                                 .n_rows = ROWS,
                                 .light = &light[0]};
            omp_set_num_threads(threads);
            assert_ok(ops->attention(&ctx, &args, &err));
            omp_set_num_threads(1);
            result alone = new_result(&base, ROWS);
            args.out = alone.out, args.entropy_bits = alone.entropy, args.l2 = alone.l2;
            args.light = &light[1];
            for (int r = 0; r < ROWS; r++) {
                args.rows = &rows[r], args.n_rows = 1;
                assert_ok(ops->attention(&ctx, &args, &err));
            }
            omp_set_num_threads(omp_get_num_procs());
            const char *name = ops->class_name(NULL);
            assert_same(name, &base, &all, 0, &alone, 0, ROWS);
            for (int64_t i = 0; i < ROWS * H * D; i++) assert_true(isfinite(all.out[i]));
            assert_same_bits(name, "light", room, room + 4 * ROWS * H, 4 * ROWS * H);
            for (int r = 0; r < ROWS; r++) free_sequence(&s[r]);
            free(ctx.scratch), free(q), free(room);
            free_result(&all), free_result(&alone), free_sequence(&base);
        }
}

static void the_same_holds_with_bf16_products(void **state)
{
    compute = CT_COMPUTE_BF16;
    decode_and_prefill_in_any_pieces_and_threads_give_the_same_bits(state);
    rows_of_a_batch_do_not_touch_one_another(state);
    forks_that_share_blocks_have_the_bits_that_each_has_alone(state);
    compute = CT_COMPUTE_F32;
}

/* Blocks before every window are NULL; positions before it in its first block, and behind the last
 * token, hold NaN. None of it may be read into a result. */
static void memory_out_of_sight_is_never_used(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    for (int m = 0; m < 5; m++) {
        sequence s = new_sequence(8, 1, 24, 400, 500), clean = new_sequence(8, 1, 24, 400, 500);
        const int64_t position = 300, window = 70; /* sees 230 .. : block 3 from its 38th on */
        for (int64_t i = 0; i < 38 * 24; i++) s.k[3][i] = s.v[3][i] = NAN;
        float *dropped[6];
        for (int b = 0; b < 3; b++) {
            dropped[2 * b] = s.k[b], dropped[2 * b + 1] = s.v[b];
            s.k[b] = s.v[b] = NULL;
        }
        result got = run(ops, &s, position, 100, window, modes[m]);
        result want = run(ops, &clean, position, 100, window, modes[m]);
        assert_same(ops->class_name(NULL), &s, &got, 0, &want, 0, 100);
        for (int64_t i = 0; i < 100 * 8 * 24; i++) assert_false(isnan(got.out[i]));
        for (int i = 0; i < 6; i++) free(dropped[i]);
        free_result(&got), free_result(&want), free_sequence(&s), free_sequence(&clean);
    }
}

static void measures_may_be_left_out_and_missing_scratch_is_an_error(void **state)
{
    (void)state;
    ct_err err = {0};
    sequence s = new_sequence(8, 1, 32, 65, 600);
    FOR_EACH_TABLE(ops)
    {
        result with = run(ops, &s, 0, 65, -1, CT_WEIGHTS_KEEP), without = new_result(&s, 65);
        result bare = {without.out, NULL, NULL};
        ct_attn_row row = row_of(&s, 0, 0, 65, -1, CT_WEIGHTS_KEEP);
        row.marked = NULL, row.marked_count = 0;
        assert_ok(run_rows(ops, &s, s.q, &row, 1, 65, &bare, &err));
        assert_same_bits(ops->class_name(NULL), "out", bare.out, with.out, 65 * 8 * 32);
        ct_attn_args args = {.tokens = 65,
                             .heads = 8,
                             .kv_heads = 1,
                             .head_dim = 32,
                             .scale = 1,
                             .q = s.q,
                             .out = bare.out,
                             .rows = &row,
                             .n_rows = 1};
        ct_op_ctx none = {.compute = CT_COMPUTE_F32};
        assert_fails(ops->attention(&none, &args, &err), CT_ERR_LIMIT, "scratch");
        free_result(&with), free_result(&without);
    }
    free_sequence(&s);
}

/* Weights of the tokens position .. position + count - 1 by one call; [count, H, keys]. Untouched
 * elements are 0. */
static float *weights_of(const ct_ops *ops, const sequence *s, const ct_attn_row *row, int64_t keys,
                         float **after)
{
    ct_err err = {0};
    int64_t count = row->seg.count, size = count * s->heads * keys;
    ct_attn_args args = {.tokens = count,
                         .heads = s->heads,
                         .kv_heads = s->kv_heads,
                         .head_dim = s->dim,
                         .scale = 1 / sqrtf((float)s->dim),
                         .q = s->q + row->seg.position * s->heads * s->dim,
                         .rows = row,
                         .n_rows = 1};
    float *before = floats(size), *then = floats(size);
    memset(before, 0, (size_t)size * sizeof *before);
    memset(then, 0, (size_t)size * sizeof *then);
    const ct_weights_out out = {before, after ? then : NULL, keys, s->heads * keys};
    ct_op_ctx ctx = new_ctx(ops, CT_COMPUTE_F32, count, 1, 1, s->heads, s->dim);
    assert_ok(ops->attention_weights(&ctx, &args, &out, &err));
    free(ctx.scratch);
    if (after) *after = then;
    else free(then);
    return before;
}

/* Rows of weights against the reference's, and against what the fused kernel says of the same weights:
 * their entropy, l2, and, with values of 1, their sum after the edit. The bounds are those of the
 * first test. */
static void recorded_weights_are_those_that_attention_uses(void **state)
{
    (void)state;
    const int64_t lengths[] = {1, 7, 63, 65, 130, 257};
    FOR_EACH_TABLE(ops)
    for (int c = 0; c < SHAPES; c++)
        for (int i = 0; i < 6; i++)
            for (int m = 0; m < 5; m++) {
                int64_t window = (const int64_t[]){-1, 0, 1, 63, 64, 100}[(i + c + m) % 6];
                sequence s = new_sequence(shapes[c].heads, shapes[c].kv_heads, shapes[c].dim,
                                          lengths[i], (uint64_t)(c * 1000));
                for (int64_t b = 0; b < s.blocks; b++)
                    for (int64_t j = 0; j < CT_KV_BLOCK * s.kv_heads * s.dim; j++) s.v[b][j] = 1;
                int64_t n = s.length < 9 ? s.length : 9, p = s.length - n, keys = s.length + 3;
                result fused = run(ops, &s, p, n, window, modes[m]);
                ct_attn_row row = row_of(&s, 0, p, n, window, modes[m]);
                float *after, *want_after, *before = weights_of(ops, &s, &row, keys, &after);
                float *want = weights_of(ct_ops_ref(), &s, &row, keys, &want_after);
                double score_error = (4 + (double)s.dim / 2) * 4 * sqrt((double)s.dim) * 0x1p-24;
                double bound = 2 * score_error + 1e-6;
                int64_t size = n * s.heads * keys;
                assert_close(ops->class_name(NULL), "before", before, want, size, bound, 0);
                assert_close(ops->class_name(NULL), "after", after, want_after, size, bound, 0);
                for (int64_t h = 0; h < n * s.heads; h++) {
                    double entropy = 0, squares = 0, sum = 0;
                    for (int64_t k = 0; k < keys; k++) {
                        double w = (double)before[h * keys + k];
                        entropy -= w > 0 ? w * log2(w) : 0;
                        squares += w * w;
                        sum += (double)after[h * keys + k];
                    }
                    assert_true(fabs(entropy - (double)fused.entropy[h]) <=
                                11 * score_error + 1e-5);
                    assert_true(fabs(sqrt(squares) - (double)fused.l2[h]) <= bound);
                    assert_true(fabs(sum - (double)fused.out[h * s.dim]) <= bound);
                }
                /* Alone, and without the edited ones: the same bits. */
                ct_attn_row last = row_of(&s, 0, s.length - 1, 1, window, modes[m]);
                float *alone = weights_of(ops, &s, &last, keys, NULL);
                assert_same_bits(ops->class_name(NULL), "last", alone,
                                 before + (n - 1) * s.heads * keys, s.heads * keys);
                free(before), free(after), free(want), free(want_after), free(alone);
                free_result(&fused), free_sequence(&s);
            }
}

/* The light recorder's numbers against rows of weights, with a needle of two spans that cross blocks;
 * and they leave the rest of attention as it is, to the bit. */
static void light_numbers_are_those_of_the_weights(void **state)
{
    (void)state;
    const int64_t lengths[] = {1, 7, 65, 130, 257};
    const ct_span needle[] = {{0, 3}, {60, 129}};
    for (int c = 0; c < SHAPES; c++)
        for (int i = 0; i < 5; i++) {
            sequence s = new_sequence(shapes[c].heads, shapes[c].kv_heads, shapes[c].dim,
                                      lengths[i], (uint64_t)(c * 1000));
            int64_t n = s.length, keys = n, all = n * s.heads;
            double score_error = (4 + (double)s.dim / 2) * 4 * sqrt((double)s.dim) * 0x1p-24;
            double bound = 2 * score_error + 1e-6;
            for (int m = 0; m < 5; m++) {
                int64_t window = (const int64_t[]){-1, 0, 1, 63, 64, 100}[(i + c + m) % 6];
                ct_attn_row row = row_of(&s, 0, 0, n, window, modes[m]);
                row.needle = needle;
                row.n_needle = 2;
                /* What the reference's weights say, once for all tables. */
                float *after, *before = weights_of(ct_ops_ref(), &s, &row, keys, &after);
                float *want = floats(3 * all), *mass = want, *mass_after = want + all,
                      *peak = want + 2 * all;
                for (int64_t j = 0; j < all; j++) {
                    double sums[2] = {0, 0}, most = 0;
                    for (int64_t k = 0; k < keys; k++) {
                        double w = (double)before[j * keys + k];
                        most = w > most ? w : most;
                    }
                    for (int span = 0; span < 2; span++)
                        for (int64_t k = needle[span].begin; k < needle[span].end && k < keys;
                             k++) {
                            sums[0] += (double)before[j * keys + k];
                            sums[1] += (double)after[j * keys + k];
                        }
                    mass[j] = (float)sums[0], mass_after[j] = (float)sums[1], peak[j] = (float)most;
                }
                FOR_EACH_TABLE(ops)
                {
                    ct_err err = {0};
                    const char *name = ops->class_name(NULL);
                    result plain = run(ops, &s, 0, n, window, modes[m]), with = new_result(&s, n);
                    float *room = floats(4 * all);
                    const ct_attn_light light = {room, room + all, room + 2 * all,
                                                 (int32_t *)(void *)(room + 3 * all)};
                    ct_attn_args args = {.tokens = n,
                                         .heads = s.heads,
                                         .kv_heads = s.kv_heads,
                                         .head_dim = s.dim,
                                         .scale = 1 / sqrtf((float)s.dim),
                                         .q = s.q,
                                         .out = with.out,
                                         .entropy_bits = with.entropy,
                                         .l2 = with.l2,
                                         .rows = &row,
                                         .n_rows = 1,
                                         .light = &light};
                    ct_op_ctx ctx = new_ctx(ops, CT_COMPUTE_F32, n, 1, 1, s.heads, s.dim);
                    assert_ok(ops->attention(&ctx, &args, &err));
                    free(ctx.scratch);
                    assert_same(name, &s, &with, 0, &plain, 0, n);
                    assert_close(name, "needle", light.needle_before, mass, all, bound, 0);
                    assert_close(name, "needle after", light.needle_after, mass_after, all, bound,
                                 0);
                    assert_close(name, "peak", light.peak_weight, peak, all, bound, 0);
                    for (int64_t j = 0; j < all; j++) {
                        assert_true(light.peak[j] >= 0 && light.peak[j] <= j / s.heads);
                        assert_true((double)peak[j] - (double)before[j * keys + light.peak[j]] <=
                                    bound);
                    }
                    free(room);
                    free_result(&plain), free_result(&with);
                }
                free(before), free(after), free(want);
            }
            free_sequence(&s);
        }
}

/* All keys alike: every weight is the largest, and the first position that is seen is the peak. */
static void the_peak_of_equal_weights_is_the_first_position(void **state)
{
    (void)state;
    FOR_EACH_TABLE(ops)
    {
        ct_err err = {0};
        sequence s = new_sequence(4, 1, 24, 200, 5);
        for (int64_t b = 0; b < s.blocks; b++)
            for (int64_t j = 0; j < CT_KV_BLOCK * 24; j++) s.k[b][j] = s.k[0][j % 24];
        for (int64_t window = -1; window < 100; window += 33) {
            result r = new_result(&s, 200);
            float *room = floats(4 * 800);
            const ct_attn_light light = {room, room + 800, room + 1600,
                                         (int32_t *)(void *)(room + 2400)};
            ct_attn_row row = row_of(&s, 0, 0, 200, window, CT_WEIGHTS_KEEP);
            ct_attn_args args = {.tokens = 200,
                                 .heads = 4,
                                 .kv_heads = 1,
                                 .head_dim = 24,
                                 .scale = 1,
                                 .q = s.q,
                                 .out = r.out,
                                 .rows = &row,
                                 .n_rows = 1,
                                 .light = &light};
            ct_op_ctx ctx = new_ctx(ops, CT_COMPUTE_F32, 200, 1, 1, 4, 24);
            assert_ok(ops->attention(&ctx, &args, &err));
            for (int64_t j = 0; j < 800; j++) {
                int64_t p = j / 4, first = window < 0 || p < window ? 0 : p - window;
                assert_int_equal(light.peak[j], first);
                assert_true(light.needle_before[j] == 0 && light.needle_after[j] == 0);
            }
            free(ctx.scratch), free(room), free_result(&r);
        }
        free_sequence(&s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_is_right_under_every_edit_in_either_arithmetic),
        cmocka_unit_test(recorded_weights_are_those_that_attention_uses),
        cmocka_unit_test(light_numbers_are_those_of_the_weights),
        cmocka_unit_test(the_peak_of_equal_weights_is_the_first_position),
        cmocka_unit_test(edits_and_measures_follow_their_definitions),
        cmocka_unit_test(marks_out_of_sight_leave_zero_for_only_and_binary_and_all_for_omit),
        cmocka_unit_test(one_visible_key_has_entropy_zero_and_l2_one_exactly_in_every_head),
        cmocka_unit_test(equal_scores_give_the_logarithm_of_their_number),
        cmocka_unit_test(a_late_huge_score_takes_all_the_weight),
        cmocka_unit_test(decode_and_prefill_in_any_pieces_and_threads_give_the_same_bits),
        cmocka_unit_test(rows_of_a_batch_do_not_touch_one_another),
        cmocka_unit_test(forks_that_share_blocks_have_the_bits_that_each_has_alone),
        cmocka_unit_test(memory_out_of_sight_is_never_used),
        cmocka_unit_test(measures_may_be_left_out_and_missing_scratch_is_an_error),
        cmocka_unit_test(the_same_holds_with_bf16_products),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
