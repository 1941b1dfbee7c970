/* kernels.h - everything that is neither a product nor attention: embedding, norm, activation,
 * convolution, RG-LRU, rotary embedding. Part of cpu_<isa>.c, see vec.h.
 *
 * An element's sum or scan is always done by one thread in one order, so that results depend
 * neither on the number of threads nor on what else is in the batch. Small calls stay on one
 * thread: waking the others costs a few microseconds.
 */
#ifndef CT_OP_CPU_KERNELS_H
#define CT_OP_CPU_KERNELS_H

#include <omp.h>

#include "op/cpu/vec.h"
#include "op/ref/ref.h"

enum {
    CT_CHUNK = 4096,     /* elements that one task of an elementwise loop takes */
    CT_PARALLEL = 32768, /* elements below which a call stays on one thread */
    CT_CHANNELS = 64,    /* channels that one task of a scan takes: one or two cache lines */
    CT_TAPS_MAX = 8,     /* taps that conv1d keeps in registers' reach */
    CT_WIDE = 512,       /* channels at most of a task that goes through a row's tokens */
};

/* for each vector [i, i + n) of [0, count), n <= VL; in parallel where it pays. `i` and `n` are
 * declared for the body. */
#define CT_FOR_VECTORS(count, ...)                                                                 \
    do {                                                                                           \
        int64_t total_ = (count), chunks_ = (total_ + CT_CHUNK - 1) / CT_CHUNK;                    \
        _Pragma(                                                                                   \
            "omp parallel for schedule(static) if (total_ >= CT_PARALLEL)") for (int64_t chunk_ =  \
                                                                                     0;            \
                                                                                 chunk_ < chunks_; \
                                                                                 chunk_++)         \
        {                                                                                          \
            int64_t end_ = min_i64(total_, (chunk_ + 1) * CT_CHUNK);                               \
            for (int64_t i = chunk_ * CT_CHUNK; i < end_; i += VL) {                               \
                int64_t n = min_i64(VL, end_ - i);                                                 \
                __VA_ARGS__                                                                        \
            }                                                                                      \
        }                                                                                          \
    } while (0)

static void gelu_mul(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count)
{
    (void)ctx;
    if (b)
        CT_FOR_VECTORS(
            count, v_store_part(y + i, v_gelu(v_load_part(a + i, n)) * v_load_part(b + i, n), n););
    else CT_FOR_VECTORS(count, v_store_part(y + i, v_gelu(v_load_part(a + i, n)), n););
}

static void silu_mul(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count)
{
    (void)ctx;
    if (b)
        CT_FOR_VECTORS(
            count, v_store_part(y + i, v_silu(v_load_part(a + i, n)) * v_load_part(b + i, n), n););
    else CT_FOR_VECTORS(count, v_store_part(y + i, v_silu(v_load_part(a + i, n)), n););
}

static void mul(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count)
{
    (void)ctx;
    CT_FOR_VECTORS(count, v_store_part(y + i, v_load_part(a + i, n) * v_load_part(b + i, n), n););
}

static void soft_cap(ct_op_ctx *ctx, float *const *y, const float *x, int64_t rows, int64_t count,
                     float cap)
{
    (void)ctx;
    int64_t chunks = (count + CT_CHUNK - 1) / CT_CHUNK;
#pragma omp parallel for schedule(static) if (rows * count >= CT_PARALLEL)
    for (int64_t task = 0; task < rows * chunks; task++) {
        int64_t r = task / chunks, end = min_i64(count, (task % chunks + 1) * CT_CHUNK);
        for (int64_t i = task % chunks * CT_CHUNK; i < end; i += VL) {
            int64_t n = min_i64(VL, end - i);
            vf v = v_load_part(x + r * count + i, n);
            v_store_part(y[r] + i, cap > 0 ? v_tanh(v / cap) * cap : v, n);
        }
    }
}

static void embed(ct_op_ctx *ctx, float *x, const ct_batch *batch, const ct_matrix *table,
                  float scale)
{
    (void)ctx;
    int64_t width = table->cols, tokens = batch->tokens;
    const int32_t *ids = batch->ids;
#pragma omp parallel for schedule(static) if (tokens * width >= CT_PARALLEL)
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < width; i += VL) {
            int64_t n = min_i64(VL, width - i);
            vf v = v_load_part_as(table->data, table->dtype, ids[t] * width + i, n);
            v_store_part(x + t * width + i, v * scale, n);
        }
}

static void gather(ct_op_ctx *ctx, float *y, const float *x, const int32_t *row, int64_t rows,
                   int64_t width)
{
    (void)ctx;
#pragma omp parallel for schedule(static) if (rows * width >= CT_PARALLEL)
    for (int64_t i = 0; i < rows; i++)
        memcpy(y + i * width, x + row[i] * width, (size_t)width * sizeof *y);
}

static void scatter_add(ct_op_ctx *ctx, float *x, const float *y, const int32_t *row,
                        const float *weight, int64_t rows, int64_t width)
{
    (void)ctx;
#pragma omp parallel for schedule(static) if (rows * width >= CT_PARALLEL)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < width; j += VL) {
            int64_t n = min_i64(VL, width - j);
            float *to = x + row[i] * width + j;
            vf sum =
                v_fma(v_load_part(y + i * width + j, n), v_set1(weight[i]), v_load_part(to, n));
            v_store_part(to, sum, n);
        }
}

static void rms_norm(ct_op_ctx *ctx, float *y, const float *x, int64_t stride, int64_t tokens,
                     int64_t width, const float *w, float eps, float offset)
{
    (void)ctx;
#pragma omp parallel for schedule(static) if (tokens * width >= CT_PARALLEL)
    for (int64_t t = 0; t < tokens; t++) {
        const float *row = x + t * stride;
        vf sum[4] = {{0}, {0}, {0}, {0}};
        int64_t i = 0;
        for (; i + 4 * VL <= width; i += 4 * VL)
            for (int s = 0; s < 4; s++) {
                vf v = v_load(row + i + s * VL);
                sum[s] = v_fma(v, v, sum[s]);
            }
        for (; i < width; i += VL) {
            vf v = v_load_part(row + i, min_i64(VL, width - i));
            sum[0] = v_fma(v, v, sum[0]);
        }
        float squares = v_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
        float scale = 1.0f / sqrtf(squares / (float)width + eps);
        for (i = 0; i < width; i += VL) {
            int64_t n = min_i64(VL, width - i);
            vf gain = v_load_part(w + i, n) + offset;
            v_store_part(y + t * width + i, v_load_part(row + i, n) * scale * gain, n);
        }
    }
}

/* Scans are cut into tasks of CT_CHANNELS channels: `per_row` tasks for the width. */
CT_INLINE int64_t channel_tasks(int64_t width)
{
    return (width + CT_CHANNELS - 1) / CT_CHANNELS;
}

/* Channels of a task of the convolution and the RG-LRU, which go through a row's tokens: as many as
 * leave work for all threads, so that a token's part is long and the memory behind it comes in time. */
CT_INLINE int64_t wide_channels(int64_t width, int64_t n_segs)
{
    int64_t most = (width + CT_WIDE - 1) / CT_WIDE, threads = omp_get_max_threads();
    if (n_segs < threads) most = (most + threads - 1) / threads * threads;
    return ((width + most - 1) / most + CT_CHANNELS - 1) / CT_CHANNELS * CT_CHANNELS;
}

CT_INLINE int64_t all_tokens(const ct_seg *segs, int64_t n_segs)
{
    int64_t tokens = 0;
    for (int64_t s = 0; s < n_segs; s++) tokens += segs[s].count;
    return tokens;
}

/* by_tap[k][j] = the weight of tap k for channel first + j: side by side. */
CT_INLINE void turn_taps(float by_tap[][CT_WIDE], const float *w, int64_t taps, int64_t first,
                         int64_t channels)
{
    for (int64_t k = 0; k < taps; k++)
        for (int64_t j = 0; j < channels; j++) by_tap[k][j] = w[(first + j) * taps + k];
}

/* One token: channels 0 .. channels of `taps` rows, oldest first. */
CT_INLINE void conv1d_token(float *y, const float *const *in, int64_t taps, float by_tap[][CT_WIDE],
                            const float *bias, int64_t channels)
{
    for (int64_t j = 0; j < channels; j += VL) {
        int64_t n = min_i64(VL, channels - j);
        vf sum = bias ? v_load_part(bias + j, n) : v_set1(0);
        for (int64_t k = 0; k < taps; k++)
            sum = v_fma(v_load_part(in[k] + j, n), v_load_part(&by_tap[k][j], n), sum);
        v_store_part(y + j, sum, n);
    }
}

/* Channels [first, first + channels) of tokens [begin, end) of one row; y begins with them, its rows
 * are `stride` apart. */
CT_INLINE void conv1d_part(float *y, int64_t stride, const float *x, int64_t width, int64_t taps,
                           float by_tap[][CT_WIDE], const float *bias, const ct_seg *seg,
                           const float *state, int64_t first, int64_t channels, int64_t begin,
                           int64_t end)
{
    int64_t kept = taps - 1, base = seg->first * width;
    for (int64_t t = begin; t < end; t++) {
        const float *in[CT_TAPS_MAX], *b = bias ? bias + first : NULL;
        for (int64_t k = 0; k < taps; k++) {
            int64_t from = t - kept + k;
            in[k] = (from < 0 ? state + (from + kept) * width : x + base + from * width) + first;
        }
        if (taps == 4) conv1d_token(y + (t - begin) * stride, in, 4, by_tap, b, channels);
        else conv1d_token(y + (t - begin) * stride, in, taps, by_tap, b, channels);
    }
}

/* Moves the state of these channels on to the row's last inputs. */
CT_INLINE void conv1d_keep(const float *x, int64_t width, int64_t taps, const ct_seg *seg,
                           float *state, int64_t first, int64_t channels)
{
    int64_t kept = taps - 1, base = seg->first * width;
    for (int64_t i = 0; i < kept; i++) { /* ascending: a source row is read before its turn */
        int64_t from = seg->count - kept + i;
        const float *in = from < 0 ? state + (from + kept) * width : x + base + from * width;
        memmove(state + i * width + first, in + first, (size_t)channels * sizeof *state);
    }
}

static void conv1d(ct_op_ctx *ctx, float *y, const float *x, int64_t width, int64_t taps,
                   const float *w, const float *bias, const ct_batch *batch, int64_t state_offset)
{
    const ct_seg *segs = batch->segs;
    int64_t n_segs = batch->n_segs;
    if (taps > CT_TAPS_MAX) { /* no known model; right, not fast */
        ct_ref_conv1d(ctx, y, x, width, taps, w, bias, batch, state_offset);
        return;
    }
    enum { ROWS = 8 }; /* of a task: the weights are turned once for all */
    int64_t groups = (n_segs + ROWS - 1) / ROWS, of_task = wide_channels(width, groups);
    int64_t per_row = (width + of_task - 1) / of_task;
    int64_t work = all_tokens(segs, n_segs) * width;
#pragma omp parallel for schedule(static) if (work >= CT_PARALLEL)
    for (int64_t task = 0; task < groups * per_row; task++) {
        int64_t first = task % per_row * of_task, row = task / per_row * ROWS;
        int64_t channels = min_i64(of_task, width - first);
        float by_tap[CT_TAPS_MAX][CT_WIDE];
        turn_taps(by_tap, w, taps, first, channels);
        for (int64_t s = row; s < min_i64(row + ROWS, n_segs); s++) {
            float *state = batch->states[s] + state_offset;
            conv1d_part(y + segs[s].first * width + first, width, x, width, taps, by_tap, bias,
                        &segs[s], state, first, channels, 0, segs[s].count);
            conv1d_keep(x, width, taps, &segs[s], state, first, channels);
        }
    }
}

CT_INLINE vf rg_lru_rate(vf param)
{
    return v_softplus(param) * -8.0f;
}

/* The next h; `start`: at position 0. */
CT_INLINE vf rg_lru_step(vf h, vf x, vf gate_x, vf gate_a, vf rate, bool start)
{
    vf in = v_sigmoid(gate_x) * x;
    if (start) return in;
    /* With e = a - 1 = expm1(log a): sqrt(1 - a^2) = sqrt(-e (2 + e)), which keeps its digits where a is
     * near 1. */
    vf e = v_expm1(v_sigmoid(gate_a) * rate);
    return v_fma(e + 1.0f, h, v_sqrt(-e * (e + 2.0f)) * in);
}

CT_INLINE void rg_lru_task(float *y, const float *x, const float *gate_x, const float *gate_a,
                           const float *param, int64_t width, const ct_seg *seg, float *state,
                           int64_t first, int64_t channels)
{
    vf h[CT_WIDE / VL], rate[CT_WIDE / VL];
    int64_t vectors = (channels + VL - 1) / VL;
    for (int64_t v = 0; v < vectors; v++) {
        int64_t n = min_i64(VL, channels - v * VL);
        h[v] = v_load_part(state + first + v * VL, n);
        rate[v] = rg_lru_rate(v_load_part(param + first + v * VL, n));
    }
    for (int64_t t = 0; t < seg->count; t++)
        for (int64_t v = 0; v < vectors; v++) {
            int64_t at = (seg->first + t) * width + first + v * VL;
            int64_t n = min_i64(VL, channels - v * VL);
            h[v] = rg_lru_step(h[v], v_load_part(x + at, n), v_load_part(gate_x + at, n),
                               v_load_part(gate_a + at, n), rate[v], seg->position + t == 0);
            v_store_part(y + at, h[v], n);
        }
    for (int64_t v = 0; v < vectors; v++)
        v_store_part(state + first + v * VL, h[v], min_i64(VL, channels - v * VL));
}

static void rg_lru(ct_op_ctx *ctx, float *y, const float *x, const float *gate_x,
                   const float *gate_a, const float *param, int64_t width, const ct_batch *batch,
                   int64_t state_offset)
{
    (void)ctx;
    const ct_seg *segs = batch->segs;
    int64_t n_segs = batch->n_segs;
    int64_t of_task = wide_channels(width, n_segs), per_row = (width + of_task - 1) / of_task;
    int64_t work = all_tokens(segs, n_segs) * width;
#pragma omp parallel for schedule(static) if (work >= CT_PARALLEL / 4)
    for (int64_t task = 0; task < n_segs * per_row; task++) {
        int64_t s = task / per_row, first = task % per_row * of_task;
        rg_lru_task(y, x, gate_x, gate_a, param, width, &segs[s], batch->states[s] + state_offset,
                    first, min_i64(of_task, width - first));
    }
}

enum { CT_ANGLES = 64 }; /* frequencies handled at a time */

/* cosine and sine of `count` angles position * frequency[j]. The angle is reduced in f64, where it
 * is exact to 1e-12 at any position; Taylor polynomials on [-pi/4, pi/4] leave 1e-8. */
CT_INLINE void cos_sin(float *cosine, float *sine, const double *frequency, double position,
                       int64_t count)
{
    const double magic = 0x1.8p52;
    for (int64_t j = 0; j < count; j++) {
        double angle = position * frequency[j];
        double shifted = angle * 0.63661977236758134308 + magic; /* quarter turns, rounded */
        double turns = shifted - magic;
        int64_t quarter;
        memcpy(&quarter, &shifted, sizeof quarter);
        double r = (angle - turns * 0x1.921fb544p0) - turns * 0x1.0b4611a626331p-34, z = r * r;
        double s =
            r + r * z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880))));
        double c = 1 + z * (-0.5 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320))));
        double even = quarter & 1 ? s : c, odd = quarter & 1 ? c : s;
        cosine[j] = (float)((quarter + 1) & 2 ? -even : even);
        sine[j] = (float)(quarter & 2 ? -odd : odd);
    }
}

static void rope(ct_op_ctx *ctx, float *x, int64_t heads, int64_t head_dim, int64_t rotary,
                 float theta, const ct_batch *batch)
{
    (void)ctx;
    int64_t half = rotary / 2;
    for (int64_t base = 0; base < half; base += CT_ANGLES) {
        int64_t count = min_i64(CT_ANGLES, half - base);
        double frequency[CT_ANGLES];
        for (int64_t j = 0; j < count; j++)
            frequency[j] = pow((double)theta, -2.0 * (double)(base + j) / (double)rotary);
        for (int64_t s = 0; s < batch->n_segs; s++) {
            const ct_seg seg = batch->segs[s];
#pragma omp parallel for schedule(static) if (seg.count * heads * head_dim >= CT_PARALLEL)
            for (int64_t t = 0; t < seg.count; t++) {
                float cosine[CT_ANGLES], sine[CT_ANGLES];
                cos_sin(cosine, sine, frequency, (double)(seg.position + t), count);
                for (int64_t h = 0; h < heads; h++) {
                    float *a = x + ((seg.first + t) * heads + h) * head_dim + base, *b = a + half;
                    for (int64_t j = 0; j < count; j += VL) {
                        int64_t n = min_i64(VL, count - j);
                        vf c = v_load_part(cosine + j, n), d = v_load_part(sine + j, n);
                        vf va = v_load_part(a + j, n), vb = v_load_part(b + j, n);
                        v_store_part(a + j, v_fma(va, c, -(vb * d)), n);
                        v_store_part(b + j, v_fma(vb, c, va * d), n);
                    }
                }
            }
        }
    }
}

#endif
