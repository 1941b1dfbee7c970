/* trace.c - the table that notes each call, and what each operation costs. See trace.h.
 *
 * Costs count every operand once, as if it were read from memory and no more than that: weights in
 * their stored type, activations as f32, keys and values of the blocks in view once for all rows that
 * share them.
 */
#include "bench/trace.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"

/* An operation gets no context of its caller, so the trace in progress is the calling thread's. It is
 * set while ct_trace_step runs and at no other time. */
static _Thread_local ct_trace *active;

enum { F32 = sizeof(float) };

/* The entry of this name and shape, made if it is new; `cost` enters its mean. NULL if there is no
 * room. */
static ct_trace_op *entry(const char *name, int64_t tokens, int64_t a, int64_t b, int64_t c,
                          ct_cost cost, const char *shape, ...) CT_PRINTF(7, 8);

static ct_trace_op *entry(const char *name, int64_t tokens, int64_t a, int64_t b, int64_t c,
                          ct_cost cost, const char *shape, ...)
{
    for (size_t i = 0; i < active->n_ops; i++) {
        ct_trace_op *op = &active->list[i];
        if (!strcmp(op->name, name) && op->tokens == tokens && op->dims[0] == a &&
            op->dims[1] == b && op->dims[2] == c) {
            double part = 1 / (double)(op->calls + 1);
            op->cost.flops += part * (cost.flops - op->cost.flops);
            op->cost.memory_bytes += part * (cost.memory_bytes - op->cost.memory_bytes);
            op->cost.activation_bytes += part * (cost.activation_bytes - op->cost.activation_bytes);
            return op;
        }
    }
    if (active->n_ops == CT_TRACE_OPS) {
        active->overflow = true;
        return NULL;
    }
    ct_trace_op *op = &active->list[active->n_ops++];
    *op = (ct_trace_op){.name = name, .tokens = tokens, .dims = {a, b, c}, .cost = cost};
    va_list ap;
    va_start(ap, shape);
    vsnprintf(op->shape, sizeof op->shape, shape, ap);
    va_end(ap);
    return op;
}

/* The time when all is done that was asked of the device before; the first failure ends the step. */
static double clock_ms(ct_op_ctx *ctx)
{
    if (active->base->sync && active->failed == CT_OK)
        active->failed = active->base->sync(ctx->device, &active->err);
    return ct_now_ms();
}

static void took(ct_op_ctx *ctx, ct_trace_op *op, double start_ms)
{
    double now = clock_ms(ctx);
    if (!op) return;
    op->ms[active->steps] += now - start_ms;
    op->calls++;
}

#define LL(x) (long long)(x)

/* ---- one function for each operation --------------------------------------------------------- */

static double matrix_bytes(const ct_matrix *w)
{
    return (double)w->rows * (double)w->cols * (double)ct_dtype_bytes(w->dtype);
}

static ct_status matmul(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                        const ct_matrix *w, const float *bias, bool accumulate, ct_err *err)
{
    double t = (double)tokens, n = (double)w->rows, k = (double)w->cols;
    ct_cost cost = {
        .flops = 2 * t * n * k,
        .memory_bytes = matrix_bytes(w),
        .activation_bytes = t * (k + n * (accumulate ? 2 : 1)) * F32,
        .product = true,
    };
    ct_trace_op *op = entry("matmul", tokens, w->rows, w->cols, accumulate, cost, "%lld x %lld%s",
                            LL(w->rows), LL(w->cols), accumulate ? " +=" : "");
    double start = clock_ms(ctx);
    ct_status st = active->base->matmul(ctx, y, x, tokens, w, bias, accumulate, err);
    took(ctx, op, start);
    return st;
}

static ct_status gated_mlp(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                           const ct_mlp *mlp, float *hidden, ct_err *err)
{
    double t = (double)tokens, f = (double)mlp->gate.rows, e = (double)mlp->gate.cols;
    ct_cost cost = {
        .flops = 6 * t * f * e,
        .memory_bytes =
            matrix_bytes(&mlp->gate) + matrix_bytes(&mlp->up) + matrix_bytes(&mlp->down),
        .activation_bytes = 3 * t * e * F32, /* the hidden units need not leave the caches */
        .product = true,
    };
    bool expert = active->routed;
    ct_trace_op *op =
        entry("gated_mlp", expert ? 0 : tokens, mlp->gate.rows, mlp->gate.cols, expert, cost,
              "%lld x %lld%s", LL(mlp->gate.rows), LL(mlp->gate.cols), expert ? ", an expert" : "");
    double start = clock_ms(ctx);
    ct_status st = active->base->gated_mlp(ctx, y, x, tokens, mlp, hidden, err);
    took(ctx, op, start);
    return st;
}

/* Which experts the tokens take is the router's choice; the bytes are those of as many as there would be
 * if it chose evenly. */
static ct_status experts(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                         const ct_experts *moe, ct_err *err)
{
    const ct_mlp *mlp = &moe->expert[0];
    double t = (double)tokens, f = (double)mlp->gate.rows, e = (double)mlp->gate.cols;
    double n = (double)moe->experts, used = (double)moe->used;
    double missed = 1; /* the probability that no token takes a given expert */
    for (int64_t i = 0; i < tokens && missed > 1e-9; i++) missed *= 1 - used / n;
    ct_cost cost = {
        .flops = t * (6 * used * f * e + 2 * n * e),
        .memory_bytes =
            matrix_bytes(&moe->router) +
            n * (1 - missed) *
                (matrix_bytes(&mlp->gate) + matrix_bytes(&mlp->up) + matrix_bytes(&mlp->down)),
        .activation_bytes = 3 * t * e * F32,
        .product = true,
    };
    ct_trace_op *op = entry("experts", tokens, mlp->gate.rows, mlp->gate.cols, moe->experts, cost,
                            "%lld of %lld, %lld x %lld", LL(moe->used), LL(moe->experts),
                            LL(mlp->gate.rows), LL(mlp->gate.cols));
    double start = clock_ms(ctx);
    ct_status st = active->base->experts(ctx, y, x, tokens, moe, err);
    took(ctx, op, start);
    return st;
}

static void embed(ct_op_ctx *ctx, float *x, const ct_batch *batch, const ct_matrix *table,
                  float scale)
{
    int64_t tokens = batch->tokens;
    double values = (double)tokens * (double)table->cols;
    ct_cost cost = {values, values * (double)ct_dtype_bytes(table->dtype), values * F32, false};
    ct_trace_op *op =
        entry("embed", tokens, table->rows, table->cols, 0, cost, "%lld", LL(table->cols));
    double start = clock_ms(ctx);
    active->base->embed(ctx, x, batch, table, scale);
    took(ctx, op, start);
}

static void rms_norm(ct_op_ctx *ctx, float *y, const float *x, int64_t stride, int64_t tokens,
                     int64_t width, const float *w, float eps, float offset)
{
    double values = (double)tokens * (double)width;
    ct_cost cost = {5 * values, (double)width * F32, 2 * values * F32, false};
    ct_trace_op *op = entry("rms_norm", tokens, width, 0, 0, cost, "%lld", LL(width));
    double start = clock_ms(ctx);
    active->base->rms_norm(ctx, y, x, stride, tokens, width, w, eps, offset);
    took(ctx, op, start);
}

/* Element by element: `flops` of each, `arrays` read or written. These do not know T. */
static ct_trace_op *elements(const char *name, int64_t count, double flops, double arrays)
{
    ct_cost cost = {flops * (double)count, 0, arrays * (double)count * F32, false};
    return entry(name, 0, count, (int64_t)arrays, 0, cost, "%lld values", LL(count));
}

static void silu_mul(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count)
{
    ct_trace_op *op = elements("silu_mul", count, b ? 6 : 5, b ? 3 : 2);
    double start = clock_ms(ctx);
    active->base->silu_mul(ctx, y, a, b, count);
    took(ctx, op, start);
}

static void pick(ct_op_ctx *ctx, float *y, const float *x, const ct_batch *batch, int64_t width)
{
    double values = (double)batch->n_wanted * (double)width;
    ct_cost cost = {0, 0, 2 * values * F32, false};
    ct_trace_op *op = entry("pick", batch->n_wanted, width, 0, 0, cost, "%lld", LL(width));
    double start = clock_ms(ctx);
    active->base->pick(ctx, y, x, batch, width);
    took(ctx, op, start);
}

static ct_status logits(ct_op_ctx *ctx, const ct_logits_args *args, ct_err *err)
{
    double t = (double)args->n, n = (double)args->head.rows, k = (double)args->head.cols;
    ct_cost cost = {
        .flops = 2 * t * n * k + 3 * t * n,
        .memory_bytes = matrix_bytes(&args->head),
        .activation_bytes = t * (k + n) * F32,
        .product = true,
    };
    ct_trace_op *op = entry("logits", args->n, args->head.cols, args->head.rows, 0, cost,
                            "%lld x %lld", LL(args->head.cols), LL(args->head.rows));
    double start = clock_ms(ctx);
    ct_status st = active->base->logits(ctx, args, err);
    took(ctx, op, start);
    return st;
}

static void conv1d(ct_op_ctx *ctx, float *y, const float *x, int64_t width, int64_t taps,
                   const float *w, const float *bias, const ct_batch *batch, int64_t state_offset)
{
    int64_t tokens = batch->tokens, n_segs = batch->n_segs;
    double values = (double)tokens * (double)width, channels = (double)width;
    ct_cost cost = {
        .flops = 2 * values * (double)taps,
        .memory_bytes = channels * F32 * ((double)(taps + 1) + 2.0 * (double)(n_segs * (taps - 1))),
        .activation_bytes = 2 * values * F32,
    };
    ct_trace_op *op =
        entry("conv1d", tokens, width, taps, n_segs, cost, "%lld, taps %lld", LL(width), LL(taps));
    double start = clock_ms(ctx);
    active->base->conv1d(ctx, y, x, width, taps, w, bias, batch, state_offset);
    took(ctx, op, start);
}

static ct_status rglru(ct_op_ctx *ctx, float *out, const float *x, float *y, const ct_rglru *w,
                       float *work, const ct_batch *batch, int64_t state_offset, ct_err *err)
{
    int64_t tokens = batch->tokens, of_block = w->gate_x.cols;
    double values = (double)tokens * (double)w->width, channels = (double)w->width;
    ct_cost cost = {
        /* the convolution; two gates; two sigmoids of 4, a of 2, the scale of 4, the sum of 3; the
         * other branch's gelu and product */
        .flops = values * (2 * (double)w->taps + 4 * (double)of_block + 17 + 9),
        .memory_bytes = 2 * matrix_bytes(&w->gate_x) +
                        channels * F32 * (5 + (double)w->taps * (1 + 2.0 * (double)batch->n_segs)),
        .activation_bytes = 3 * values * F32,
    };
    ct_trace_op *op = entry("rglru", tokens, w->width, of_block, batch->n_segs, cost,
                            "%lld, blocks of %lld", LL(w->width), LL(of_block));
    double start = clock_ms(ctx);
    ct_status st = active->base->rglru(ctx, out, x, y, w, work, batch, state_offset, err);
    took(ctx, op, start);
    return st;
}

static void selective_scan(ct_op_ctx *ctx, float *y, const ct_scan *scan, const ct_batch *batch,
                           int64_t state_offset)
{
    int64_t tokens = batch->tokens, n_segs = batch->n_segs, width = scan->width,
            states = scan->states;
    double values = (double)tokens * (double)width, held = (double)width * (double)states;
    ct_cost cost = {
        /* of each state the decay with its exponential, the update and the sum; a softplus */
        .flops = values * (8 * (double)states + 8),
        .memory_bytes = F32 * (held * (1 + 2.0 * (double)n_segs) + (double)width),
        .activation_bytes = F32 * (3 * values + 2.0 * (double)(tokens * states)),
    };
    ct_trace_op *op = entry("selective_scan", tokens, width, states, n_segs, cost, "%lld x %lld",
                            LL(width), LL(states));
    double start = clock_ms(ctx);
    active->base->selective_scan(ctx, y, scan, batch, state_offset);
    took(ctx, op, start);
}

static void route(ct_op_ctx *ctx, int32_t *expert, float *weight, const float *logits,
                  int64_t tokens, int64_t experts, int64_t k)
{
    double values = (double)tokens * (double)experts;
    ct_cost cost = {4 * values, 0, F32 * (values + 2.0 * (double)(tokens * k)), false};
    ct_trace_op *op =
        entry("route", tokens, experts, k, 0, cost, "%lld of %lld", LL(k), LL(experts));
    double start = clock_ms(ctx);
    active->base->route(ctx, expert, weight, logits, tokens, experts, k);
    took(ctx, op, start);
}

/* How many tokens an expert gets is the router's choice and another number at nearly every call, so
 * that what is done to them, up to scatter_add, counts as one shape. */
static void gather(ct_op_ctx *ctx, float *y, const float *x, const int32_t *row, int64_t rows,
                   int64_t width)
{
    ct_cost cost = {0, 0, 2.0 * (double)(rows * width) * F32, false};
    ct_trace_op *op = entry("gather", 0, width, 0, 0, cost, "%lld", LL(width));
    active->routed = true;
    double start = clock_ms(ctx);
    active->base->gather(ctx, y, x, row, rows, width);
    took(ctx, op, start);
}

static void scatter_add(ct_op_ctx *ctx, float *x, const float *y, const int32_t *row,
                        const float *weight, int64_t rows, int64_t width)
{
    double values = (double)(rows * width);
    ct_cost cost = {2 * values, 0, 3 * values * F32, false};
    ct_trace_op *op = entry("scatter_add", 0, width, 0, 0, cost, "%lld", LL(width));
    active->routed = false;
    double start = clock_ms(ctx);
    active->base->scatter_add(ctx, x, y, row, weight, rows, width);
    took(ctx, op, start);
}

/* Key positions that the query at `position` sees. */
static int64_t keys_seen(const ct_attn_row *row, int64_t position)
{
    return row->window < 0 || position < row->window ? position + 1 : row->window + 1;
}

/* Blocks of keys that some query of row r sees and no earlier row has as well. */
static int64_t own_blocks(const ct_attn_args *args, int64_t r)
{
    const ct_attn_row *row = &args->rows[r];
    int64_t last = row->seg.position + row->seg.count - 1, own = 0;
    int64_t first = row->seg.position + 1 - keys_seen(row, row->seg.position);
    for (int64_t b = first / CT_KV_BLOCK; b <= last / CT_KV_BLOCK; b++) {
        bool shared = false;
        for (int64_t e = 0; e < r && !shared; e++) {
            const ct_seg *seg = &args->rows[e].seg;
            shared = b <= (seg->position + seg->count - 1) / CT_KV_BLOCK &&
                     args->rows[e].k[b] == row->k[b];
        }
        own += !shared;
    }
    return own;
}

/* Keys and blocks of keys that the queries of a call meet. */
typedef struct met {
    double pairs, blocks; /* (query, key) pairs of a head */
    int64_t tokens, keys; /* keys: most of a query; a few more change no time worth telling apart */
} met;

static met met_by(const ct_attn_args *args)
{
    met m = {0};
    int64_t most = 0;
    for (int64_t r = 0; r < args->n_rows; r++) {
        const ct_attn_row *row = &args->rows[r];
        int64_t end = row->seg.position + row->seg.count;
        int64_t seen = keys_seen(row, end - 1);
        most = seen > most ? seen : most;
        for (int64_t p = row->seg.position; p < end; p++) m.pairs += (double)keys_seen(row, p);
        m.blocks += (double)own_blocks(args, r);
        m.tokens += row->seg.count;
    }
    m.keys = (most + CT_KV_BLOCK - 1) / CT_KV_BLOCK * CT_KV_BLOCK;
    return m;
}

static ct_status attention(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err)
{
    met m = met_by(args);
    double q = (double)(args->tokens * args->heads * args->head_dim);
    ct_cost cost = {
        /* scores and values, 2 D each; scale, maximum, exponential, sum of the softmax */
        .flops = m.pairs * (double)args->heads * (4.0 * (double)args->head_dim + 4),
        .memory_bytes = m.blocks * CT_KV_BLOCK * 2.0 * (double)(args->kv_heads * args->head_dim) *
                        active->cached,
        .activation_bytes = 2 * q * F32,
    };
    ct_trace_op *op =
        entry("attention", args->tokens, m.keys, args->heads, args->n_rows, cost,
              "%lld x %lld, keys %lld", LL(args->heads), LL(args->head_dim), LL(m.keys));
    double start = clock_ms(ctx);
    ct_status st = active->base->attention(ctx, args, err);
    took(ctx, op, start);
    return st;
}

static ct_status attention_weights(ct_op_ctx *ctx, const ct_attn_args *args,
                                   const ct_weights_out *out, ct_err *err)
{
    met m = met_by(args);
    double values = m.pairs * (double)args->heads;
    ct_cost cost = {
        .flops = values * (2.0 * (double)args->head_dim + 4),
        .memory_bytes =
            m.blocks * CT_KV_BLOCK * (double)(args->kv_heads * args->head_dim) * active->cached,
        .activation_bytes = 2 * values * F32,
    };
    ct_trace_op *op =
        entry("attention_weights", m.tokens, m.keys, args->heads, args->head_dim, cost,
              "%lld x %lld, keys %lld", LL(args->heads), LL(args->head_dim), LL(m.keys));
    double start = clock_ms(ctx);
    ct_status st = active->base->attention_weights(ctx, args, out, err);
    took(ctx, op, start);
    return st;
}

static void place_keys(ct_op_ctx *ctx, const ct_place_args *args, const ct_batch *batch)
{
    int64_t width = args->kv_heads * args->head_dim, all = args->heads + 2 * args->kv_heads;
    double turned = (double)batch->tokens * (double)((args->heads + args->kv_heads) * args->rotary);
    double values = 2.0 * (double)(batch->tokens * width);
    ct_cost cost = {3 * turned, values * active->cached, (2 * turned + values) * F32, false};
    ct_trace_op *op = entry("place_keys", batch->tokens, all, args->head_dim, args->rotary, cost,
                            "%lld x %lld", LL(all), LL(args->head_dim));
    double start = clock_ms(ctx);
    active->base->place_keys(ctx, args, batch);
    took(ctx, op, start);
}

static void keep_heads(ct_op_ctx *ctx, uint8_t *keep, float *out, const ct_keep_args *args,
                       const ct_batch *batch)
{
    double values = (double)(batch->tokens * args->heads);
    ct_cost cost = {0, 0, values * (double)((args->head_dim + 1) * F32 + 1), false};
    ct_trace_op *op = entry("keep_heads", batch->tokens, args->heads, args->head_dim, 0, cost,
                            "%lld x %lld", LL(args->heads), LL(args->head_dim));
    double start = clock_ms(ctx);
    active->base->keep_heads(ctx, keep, out, args, batch);
    took(ctx, op, start);
}

static ct_status products(ct_op_ctx *ctx, const ct_product *list, int64_t n, const float *x,
                          int64_t tokens, ct_err *err)
{
    double t = (double)tokens, k = (double)list[0].w->cols;
    int64_t rows = 0;
    ct_cost cost = {.activation_bytes = t * k * F32, .product = true};
    for (int64_t i = 0; i < n; i++) {
        rows += list[i].w->rows;
        cost.memory_bytes += matrix_bytes(list[i].w);
    }
    cost.flops = 2 * t * (double)rows * k;
    cost.activation_bytes += t * (double)rows * F32;
    ct_trace_op *op = entry("products", tokens, list[0].w->cols, rows, n, cost, "%lld x %lld",
                            LL(rows), LL(list[0].w->cols));
    double start = clock_ms(ctx);
    ct_status st = active->base->products(ctx, list, n, x, tokens, err);
    took(ctx, op, start);
    return st;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* A pass whose operations are timed one by one is neither recorded nor replayed. */
static ct_status begin(ct_op_ctx *ctx, ct_batch *batch, const void *memory, uint64_t shape,
                       bool *replayed, ct_err *err)
{
    ctx->plain = true;
    return active->base->begin(ctx, batch, memory, shape, replayed, err);
}

static ct_status end(ct_op_ctx *ctx, ct_batch *batch, ct_err *err)
{
    ctx->plain = false;
    ct_status st = active->base->end(ctx, batch, err);
    if (st != CT_OK || active->failed == CT_OK) return st;
    *err = active->err;
    return active->failed;
}

ct_trace *ct_trace_new(const ct_model *model, ct_err *err)
{
    ct_trace *trace = calloc(1, sizeof *trace);
    if (!trace) {
        (void)ct_fail_memory(err, "trace", sizeof *trace);
        return NULL;
    }
    trace->base = model->ops;
    trace->ops = *model->ops;
    trace->ops.begin = begin;
    trace->ops.end = end;
    trace->cached = (double)ct_dtype_bytes(model->cache_dtype);
#define NOTE(op)                                                                                   \
    if (trace->ops.op) trace->ops.op = op
    NOTE(matmul);
    NOTE(products);
    NOTE(gated_mlp);
    NOTE(experts);
    NOTE(embed);
    NOTE(rms_norm);
    NOTE(silu_mul);
    NOTE(pick);
    NOTE(logits);
    NOTE(conv1d);
    NOTE(rglru);
    NOTE(selective_scan);
    NOTE(place_keys);
    NOTE(attention);
    NOTE(keep_heads);
    NOTE(attention_weights);
    NOTE(route);
    NOTE(gather);
    NOTE(scatter_add);
#undef NOTE
    return trace;
}

ct_status ct_trace_step(ct_trace *trace, ct_model *model, ct_session *session, ct_row *rows,
                        size_t n_rows, ct_err *err)
{
    CT_ASSERT(model->ops == trace->base && trace->steps < CT_TRACE_STEPS);
    model->ops = &trace->ops;
    active = trace;
    trace->routed = false; /* a step that failed may have ended between the two */
    double start = ct_now_ms();
    ct_status st = ct_step(session, rows, n_rows, err);
    trace->wall_ms[trace->steps++] = ct_now_ms() - start;
    active = NULL;
    model->ops = trace->base;
    if (st == CT_OK && trace->overflow)
        st = ct_fail(err, CT_ERR_LIMIT, "trace: expected at most %d shapes of operations in a step",
                     CT_TRACE_OPS);
    return st;
}

/* ---- what was found -------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double ct_trace_median(const double *values, int64_t n)
{
    double sorted[CT_TRACE_STEPS];
    CT_ASSERT(n > 0 && n <= CT_TRACE_STEPS);
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_value);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

double ct_trace_call_ms(const ct_trace *trace, const ct_trace_op *op)
{
    return ct_trace_median(op->ms, trace->steps) * (double)trace->steps / (double)op->calls;
}

double ct_cost_least_ms(const ct_cost *cost, const ct_limits *limits, ct_compute compute,
                        bool memory_alone)
{
    bool bf16 = cost->product && compute == CT_COMPUTE_BF16 && limits->bf16_gflop_s > 0;
    double bytes = cost->memory_bytes + (memory_alone ? 0 : cost->activation_bytes);
    double arithmetic = cost->flops / (bf16 ? limits->bf16_gflop_s : limits->f32_gflop_s) * 1e-6;
    double moved = bytes / limits->read_gb_s * 1e-6;
    return arithmetic > moved ? arithmetic : moved;
}

double ct_trace_least_ms(const ct_trace *trace, const ct_limits *limits, ct_compute compute)
{
    double sum = 0;
    for (size_t i = 0; i < trace->n_ops; i++)
        sum += ct_cost_least_ms(&trace->list[i].cost, limits, compute, true) *
               (double)trace->list[i].calls / (double)trace->steps;
    return sum;
}
