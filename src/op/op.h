/* op.h - the operations table: every computation of a forward pass, behind function pointers.
 *
 * Owns the shapes and the meaning of each operation. Knows dimensions, no model names. A backend
 * (ref: scalar loops that follow the equations; cpu: vector kernels; cuda: a GPU) is one
 * ct_ops table. Tensors are dense, row-major; activations are f32. An operation that a backend lacks
 * is NULL, and opening a model on it fails with the operation's name.
 *
 * Memory: weights, activations, states, KV blocks and scratch lie in the backend's memory, which only its
 * operations read and write (the host's own where ct_ops.host_memory says so); they come from ct_ops.alloc.
 * Everything else, such as ids, segments, lists of pointers and the structures here, lies in the host's.
 * Kernels never allocate: scratch comes from ct_ops.scratch_bytes through ct_op_ctx.
 *
 * Threads: one pass at a time runs on a device, others wait in begin until its end. The functions of memory
 * may be called meanwhile by other threads, for memory that no pass under way writes.
 *
 * Dimension letters: B rows of a batch, T query tokens (all rows packed one after another), S key
 * positions, H query heads, G kv heads, D head size, E width, R recurrent width, C conv taps,
 * F ffn width, V vocabulary, L layers, N states of a channel, X experts.
 */
#ifndef CT_OP_OP_H
#define CT_OP_OP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/intervention.h>
#include <cortado/status.h>

typedef enum ct_dtype { CT_F32, CT_F16, CT_BF16 } ct_dtype;

/* Bytes of one element. */
size_t ct_dtype_bytes(ct_dtype dtype);
/* "f32", "f16" or "bf16". */
const char *ct_dtype_name(ct_dtype dtype);
/* Element i of an array of dtype, widened to f32 (exact). */
float ct_dtype_get(const void *data, ct_dtype dtype, int64_t i);
/* f32 to bf16 bits and f16 bits, round to nearest even. */
uint16_t ct_f32_to_bf16(float x);
uint16_t ct_f32_to_f16(float x);

/* How matrix products are computed. F32: activations and weights as f32 (bf16 and f16 weights are
 * widened, exactly). BF16: activations, and weights that are not, rounded to bf16; f32 sums. */
typedef enum ct_compute { CT_COMPUTE_AUTO, CT_COMPUTE_F32, CT_COMPUTE_BF16 } ct_compute;

/* A weight matrix [rows = out, cols = in] in its stored type; borrowed, usually from a mapped file.
 */
typedef struct ct_matrix {
    const void *data;
    ct_dtype dtype;
    int64_t rows, cols;
} ct_matrix;

typedef enum ct_activation { CT_GELU, CT_SILU } ct_activation;

/* A gated feed-forward: (f(x Wg^T + bg) * (x Wu^T + bu)) Wd^T + bd, f the activation; biases may be
 * NULL. */
typedef struct ct_mlp {
    ct_activation activation;
    ct_matrix gate, up, down; /* [F, E] twice, [E, F] */
    const float *gate_bias, *up_bias, *down_bias;
} ct_mlp;

/* One row of a batch as the operations see it: `count` tokens, packed from token `first` on, at
 * absolute positions position .. position + count - 1 of its own sequence. */
typedef struct ct_seg {
    int64_t first, count, position;
} ct_seg;

enum { CT_KV_BLOCK = 64 }; /* positions of one KV block; blocks are aligned to absolute positions */

/* A mean over the layer in place of marked weights (binary under binary_mean: per_layer). */
typedef struct ct_mean {
    int64_t columns;    /* positions that it is taken over, those counted twice twice */
    int64_t twice;      /* a position that counts twice, or -1 */
    int64_t begin, end; /* positions that hold it, where they are marked */
} ct_mean;

/* Attention's view of one row. */
typedef struct ct_attn_row {
    ct_seg seg;
    int64_t window; /* W: query p sees keys p-W .. p (W+1 of them); < 0: all keys 0 .. p */
    /* k[b] + k_offset of the call: keys of positions 64b .. 64b+63, [64, G, D] of the cache's type;
     * k[b] is NULL if never visible. Likewise the values. */
    const void *const *k, *const *v;
    ct_weights_mode edit;  /* after the softmax, no renormalisation; KEEP: `marked` is not read */
    const uint8_t *marked; /* [marked_count] 1 where the key position is in the edited span */
    int64_t marked_count;  /* positions from here on are unmarked */
    const ct_mean *mean;   /* of ct_ops.layer_mean, or NULL; then `edit` is KEEP */
    const ct_span *needle; /* [n_needle] sorted, disjoint; read where ct_attn_args.light is set */
    size_t n_needle;
    int64_t light_first,
        n_light; /* the row's tokens whose ct_attn_light somebody reads, from light_first on: a
                                   * backend in other memory makes it for these alone */
} ct_attn_row;

/* What the light recorder wants of every token and head; [T, H] each. */
typedef struct ct_attn_light {
    float *needle_before, *needle_after; /* sums of the weights on the row's needle, by the edit */
    float *peak_weight;                  /* the largest unedited weight */
    int32_t *peak;                       /* its position, the first of equals */
} ct_attn_light;

/* How many heads the tokens of a row keep, and by what they are chosen. */
typedef struct ct_head_rule {
    int32_t keep; /* < 0: all, nothing is chosen */
    ct_metric metric;
    uint64_t seed; /* of CT_METRIC_RANDOM */
} ct_head_rule;

/* The rows of a pass. ct_ops.begin takes it over to the backend, so that nothing in it may change until
 * ct_ops.end. */
typedef struct ct_batch {
    int64_t tokens, n_segs, n_runs, n_wanted; /* T, rows, stretches of rows under one edit */
    const int32_t *ids;                       /* [T] */
    const ct_seg *segs;                       /* [n_segs] one after another, all T tokens */
    float *const *states;                     /* [n_segs] each sequence's recurrent state */
    const ct_attn_row
        *runs; /* [n_runs] one after another, all T tokens; a row's runs share k and v */
    const ct_head_rule *rules; /* [n_segs], or NULL: no row selects heads */
    const int32_t *wanted;     /* [n_wanted] ascending: tokens whose logits are wanted, */
    float *const *logits;   /* and [n_wanted] where, in the host's memory, as in ct_logits_args */
    int32_t *const *greedy; /* [n_wanted] */
    int64_t vocab;          /* V */
    int64_t kv_width;       /* G D */
    /* What end takes to the host's memory once all is computed: back_bytes from back_from; 0: nothing. */
    void *back;
    const void *back_from;
    size_t back_bytes;
    void *image; /* the backend's */
} ct_batch;

typedef struct ct_attn_args {
    int64_t tokens, heads, kv_heads, head_dim; /* T H G D; head h uses kv head h / (H/G) */
    float scale;                               /* 1/sqrt(D) */
    const float *q;                            /* [T, H, D], rotated already */
    float *out;                 /* [T, H, D] head outputs, before any head selection */
    float *entropy_bits;        /* [T, H] or NULL; of the unedited weights */
    float *l2;                  /* [T, H] or NULL; sqrt(sum of squared weights), unedited */
    int64_t k_offset, v_offset; /* of the layer's keys and values in a block, in elements */
    const ct_attn_row *rows;    /* the batch's runs, or (in host memory alone) others */
    int64_t n_rows;
    const ct_batch *batch;      /* NULL for others */
    const ct_attn_light *light; /* or NULL */
} ct_attn_args;

/* Where the weights of one row's tokens go: of its token t to before + t * stride and after + t *
 * stride, [H, keys] each; keys is greater than the position of its last token. after may be NULL. */
typedef struct ct_weights_out {
    float *before, *after;
    int64_t keys, stride;
} ct_weights_out;

/* What ct_ops.place_keys takes. */
typedef struct ct_place_args {
    float *q, *k;                              /* [T, H, D], [T, G, D]: rotated in place */
    const float *v;                            /* [T, G, D] */
    int64_t heads, kv_heads, head_dim, rotary; /* rotary 0: nothing is rotated */
    float theta;
    int64_t k_offset, v_offset; /* as in ct_attn_args */
} ct_place_args;

/* What ct_ops.keep_heads chooses by. */
typedef struct ct_keep_args {
    int64_t heads, head_dim, layer; /* H D; the layer's index in the model, for random heads */
    const float *entropy_bits, *l2; /* [T, H], where some rule needs them */
} ct_keep_args;

/* What Mamba's selective scan reads: N states for each of R channels. */
typedef struct ct_scan {
    const float *x, *dt;   /* [T, R]: inputs, step sizes before their softplus */
    const float *b, *c;    /* [T, N]: how the input enters the states, how they are read */
    const float *a_log;    /* [R, N]: log of the decay rates */
    const float *skip;     /* [R]: D, the input's own way to the output */
    int64_t width, states; /* R, N */
} ct_scan;

/* Griffin's recurrence between its projections: weights of ct_ops.rglru. */
typedef struct ct_rglru {
    int64_t width, taps, blocks;                    /* R, C, gate blocks */
    const float *conv, *conv_bias;                  /* [R, C], [R] */
    ct_matrix gate_x, gate_a;                       /* [blocks, R/blocks in, R/blocks out] */
    const float *gate_x_bias, *gate_a_bias, *param; /* [R] each */
} ct_rglru;

/* One of several products of the same x: y[T, w.rows]. */
typedef struct ct_product {
    float *y;
    const ct_matrix *w;
    const float *bias; /* or NULL */
} ct_product;

/* A mixture of experts: the `used` experts that the router rates highest, each times its share of the
 * softmax over all. */
typedef struct ct_experts {
    int64_t experts, used; /* X, k */
    ct_matrix router;      /* [X, E] */
    ct_mlp *expert;        /* [X] */
} ct_experts;

/* What ct_ops.logits makes of n normed rows: logits = cap tanh(x head^T / cap), cap 0: x head^T. */
typedef struct ct_logits_args {
    const float *normed; /* [n, E] */
    int64_t n;
    ct_matrix head; /* [V, E] */
    float cap;
    float *const *logits; /* [n] in host memory: room for V each; NULL: not wanted (a backend in
                             * other memory alone may be asked so) */
    int32_t *const
        *greedy; /* [n] in host memory, where logits[i] is NULL: the first id of the highest
                             * logit, or -1 - the first id whose logit is not a number */
    float *room; /* [CT_LOGITS_ROOM] to work in */
} ct_logits_args;
enum { CT_LOGITS_ROWS = 64, CT_LOGITS_ROOM = 1 << 18 }; /* of one product, in the host's memory */

/* What scratch depends on: T, the largest matrix's rows and columns, H, D, E; of the feed-forward F, and
 * how many experts a token uses (0: none). */
typedef struct ct_op_sizes {
    int64_t tokens, max_rows, max_cols, heads, head_dim, width, ffn, experts_used;
} ct_op_sizes;

typedef struct ct_device ct_device; /* a backend's own; NULL where it needs none */

/* What every call gets. Scratch is provided by the caller, grown outside kernels. */
typedef struct ct_op_ctx {
    void *scratch;
    size_t scratch_bytes;
    ct_compute compute; /* F32 or BF16, never AUTO here */
    ct_stage
        stage; /* where ct_ops.one_kind: GENERATION if every row is one token of it, else PREFILL */
    bool
        plain; /* begin neither records nor replays this pass: its operations are timed, or the caller
                 * reads what they leave between them */
    ct_device *device;
} ct_op_ctx;

/* What ct_ops.fill_random makes: element i is ct_rng_uniform of (seed, stream, i), rounded to `stored`
 * and held as `held`: F32, or BF16 where the rounding to nearest even of what is stored is. */
typedef struct ct_random_fill {
    uint64_t seed, stream;
    int64_t count;
    float scale, offset;
    ct_dtype stored, held; /* F32 or BF16 */
} ct_random_fill;

/* What a device can do at most, measured. */
typedef struct ct_device_limits {
    char name[128];
    int64_t memory_bytes;
    double read_gb_s, copy_gb_s;      /* reading alone; copying, bytes read and written */
    double f32_gflop_s, bf16_gflop_s; /* multiply-adds in registers; a product of 8192^3 */
} ct_device_limits;

typedef struct ct_ops {
    const char *name; /* "ref", "cpu", "cuda" */
    bool host_memory; /* the backend's memory is the host's */
    /* A pass holds rows of one kind (ct_op_ctx.stage): kernels are chosen by it, never by how many rows
     * there are. */
    bool one_kind;
    int64_t pass_tokens; /* tokens of one pass at most, but for a row that must be whole */
    int64_t decode_rows; /* rows of generation that are worth computing together, at most */

    /* The class of this backend on this machine for cell keys, such as "cpu-amx"; static text. */
    const char *(*class_name)(const ct_device *device);
    /* What AUTO means for weights stored as dtype on this machine. */
    ct_compute (*choose_compute)(ct_dtype stored);
    /* The type of keys and values in the cache. */
    ct_dtype (*cache_dtype)(ct_compute compute);
    /* Scratch that any call of such sizes needs, with as many threads as OpenMP now has; with more
     * later, calls use no more than these. */
    size_t (*scratch_bytes)(const ct_op_sizes *sizes);

    /* ---- memory ---- */
    /* Devices of this kind that are there, by number from 0. NULL: the host, which is one. */
    int (*count)(void);
    /* Device number `index`; *out may be NULL where the backend needs none. */
    ct_status (*open)(int index, ct_device **out, ct_err *err) CT_CHECK;
    void (*close)(ct_device *device);
    /* Zeroed, at least on a cache line; NULL if there is none left. */
    void *(*alloc)(ct_device *device, size_t bytes);
    void (*free)(ct_device *device, void *memory);
    /* From the host's memory to the backend's, back, and within it. A read waits for what was asked
     * before. */
    ct_status (*write)(ct_device *device, void *to, const void *from, size_t bytes,
                       ct_err *err) CT_CHECK;
    ct_status (*read)(ct_device *device, void *to, const void *from, size_t bytes,
                      ct_err *err) CT_CHECK;
    void (*copy)(ct_device *device, void *to, const void *from, size_t bytes);
    /* From one open device of the backend to another, which may be the same; done when it returns. No pass
     * that writes `from` is under way. */
    ct_status (*transfer)(ct_device *from_device, ct_device *to_device, void *to, const void *from,
                          size_t bytes, ct_err *err) CT_CHECK;
    /* Bytes that alloc can still give; INT64_MAX: as much as the host has. */
    int64_t (*free_bytes)(const ct_device *device);
    /* Random weights, made where they lie. They are there after the next read, sync or pass. */
    ct_status (*fill_random)(ct_device *device, void *to, const ct_random_fill *what,
                             ct_err *err) CT_CHECK;
    /* Waits until all is done that was asked before, so that a clock can be read. NULL: operations
     * return when they are done. */
    ct_status (*sync)(ct_device *device, ct_err *err) CT_CHECK;
    /* Takes a second and 4 GiB of the device's memory. NULL: the host's own (bench/limits.h). */
    ct_status (*limits)(ct_device *device, ct_device_limits *out, ct_err *err) CT_CHECK;

    /* ---- passes ---- */
    /* Before the operations of a pass. `memory` is where its activations lie. Where *replayed becomes
     * true they are already on their way, recorded from an earlier pass of the same shape (`shape`: what
     * the caller's choice of operations depends on beside the batch's counts): the caller goes to end. */
    ct_status (*begin)(ct_op_ctx *ctx, ct_batch *batch, const void *memory, uint64_t shape,
                       bool *replayed, ct_err *err) CT_CHECK;
    /* After them: waits until all is done, and tells what failed meanwhile. err NULL: an operation
     * failed, and no recording of the pass is kept. Called by the thread that began the pass. */
    ct_status (*end)(ct_op_ctx *ctx, ct_batch *batch, ct_err *err) CT_CHECK;

    /* ---- operations ---- */
    /* y[T,N] = x[T,K] w[N,K]^T (+ bias[N] if not NULL) (+ what y held, if accumulate).
     * A row of y has the same bits whatever T is and whichever rows stand beside it. */
    ct_status (*matmul)(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                        const ct_matrix *w, const float *bias, bool accumulate,
                        ct_err *err) CT_CHECK;
    /* Several products of one x, with the bits of matmul one by one. */
    ct_status (*products)(ct_op_ctx *ctx, const ct_product *list, int64_t n, const float *x,
                          int64_t tokens, ct_err *err) CT_CHECK;
    /* y[T,E] += the feed-forward of x[T,E], with the bits of matmul, gelu_mul or silu_mul, and matmul
     * one after another. `hidden` is room for 2 F floats for each token, T rounded up to 32. */
    ct_status (*gated_mlp)(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                           const ct_mlp *mlp, float *hidden, ct_err *err) CT_CHECK;
    /* y[T,E] += the mixture of experts of x[T,E]; NULL: the caller makes it of route, gather, gated_mlp
     * and scatter_add. A token's experts add to it in ascending order. */
    ct_status (*experts)(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                         const ct_experts *moe, ct_err *err) CT_CHECK;
    /* x[t,:] = table[ids[t],:] * scale. Ids are valid. */
    void (*embed)(ct_op_ctx *ctx, float *x, const ct_batch *batch, const ct_matrix *table,
                  float scale);
    /* y = x / sqrt(mean(x^2) + eps) * (offset + w); offset 1 for Griffin, 0 for Jamba. y is
     * [T, width]; x's rows begin every `stride` floats; y may be x if that is the width. */
    void (*rms_norm)(ct_op_ctx *ctx, float *y, const float *x, int64_t stride, int64_t tokens,
                     int64_t width, const float *w, float eps, float offset);
    /* y = silu(a) * b, silu(a) = a sigmoid(a); y may be a or b. b NULL: y = silu(a). */
    void (*silu_mul)(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count);
    /* y[i,:] = x[batch->wanted[i],:], [n_wanted, width]; y is not x. */
    void (*pick)(ct_op_ctx *ctx, float *y, const float *x, const ct_batch *batch, int64_t width);
    /* See ct_logits_args. */
    ct_status (*logits)(ct_op_ctx *ctx, const ct_logits_args *args, ct_err *err) CT_CHECK;

    /* Depthwise causal convolution of C taps: y[t,j] = bias[j] + sum_k w[j,k] x[t-C+1+k, j].
     * states[s] + state_offset is row s's last C-1 inputs, [C-1, R] oldest first; read, then moved
     * on. y is not x. bias may be NULL. */
    void (*conv1d)(ct_op_ctx *ctx, float *y, const float *x, int64_t width, int64_t taps,
                   const float *w, const float *bias, const ct_batch *batch, int64_t state_offset);
    /* Griffin's recurrent block between its projections (De et al. 2024, sections 2.3 and 2.4):
     *   c = conv1d(x);  ga, gx = c times the blocks of gate_a, gate_x + biases;
     *   a = exp(-8 sigmoid(ga) softplus(param));  h = a h + sqrt(1-a^2) sigmoid(gx) c, and at absolute
     *   position 0: h = sigmoid(gx) c;  out = h * gelu(y).
     * The gates' products are in f32 always: they decide how long a state lives. x, y, out: [T, R]; out
     * is none of the others. states[s] + state_offset is row s's h [R], then the last C-1 inputs of the
     * convolution [C-1, R]; read, then moved on. `work` is room for 3 R floats for each token. */
    ct_status (*rglru)(ct_op_ctx *ctx, float *out, const float *x, float *y, const ct_rglru *w,
                       float *work, const ct_batch *batch, int64_t state_offset,
                       ct_err *err) CT_CHECK;
    /* Mamba's selective scan (Gu and Dao 2023, section 3.2): per channel j and state n
     *   d = softplus(dt[t,j]);  h[n,j] = exp(-d exp(a_log[j,n])) h[n,j] + d b[t,n] x[t,j];
     *   y[t,j] = sum_n c[t,n] h[n,j] + skip[j] x[t,j].
     * y is [T, R] and may be scan->x or scan->dt. states[s] + state_offset is row s's h, [N, R]; read,
     * then moved on. */
    void (*selective_scan)(ct_op_ctx *ctx, float *y, const ct_scan *scan, const ct_batch *batch,
                           int64_t state_offset);
    /* Rotates queries and keys of the batch's tokens as `rope` below does, and writes keys and values
     * into the rows' blocks, in the cache's type. */
    void (*place_keys)(ct_op_ctx *ctx, const ct_place_args *args, const ct_batch *batch);
    /* Softmax attention with its entropy and l2 in one pass, see ct_attn_args. Sums run over blocks
     * of 64 absolute positions, so bits do not depend on how the prompt was cut. */
    ct_status (*attention)(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err) CT_CHECK;
    /* Replaces the outputs of runs that have a mean (the published code's "balanced" edit):
     *   mean = sum over heads, tokens and marked positions of the weights / H / columns;
     *   out = mean * (sum of the values at marked positions begin .. end-1), in every head and token.
     * `args` is attention's call before it; work is room for H D floats for each token; means: [n_runs], where
     * the means go, 0 for the other runs. NULL in the host's memory: there the model layer does it. */
    ct_status (*layer_mean)(ct_op_ctx *ctx, const ct_attn_args *args, float *work, float *means,
                            const ct_batch *batch, ct_err *err) CT_CHECK;
    /* Chooses heads by each row's rule and zeroes the outputs of the others: keep[t,h] = 1 for the heads
     * of the highest score (lowest index first among equals; NaN counts as lowest), else 0 and
     * out[t,h,:] = 0. Rows that choose none keep all. Scores: -entropy, l2, entropy, or random by
     * (seed, layer, position * H + h). */
    void (*keep_heads)(ct_op_ctx *ctx, uint8_t *keep, float *out, const ct_keep_args *args,
                       const ct_batch *batch);
    /* before[h, s] = the softmax weight of key position s for each token of the rows, after[h, s] = the
     * same under the row's edit; nothing is written where the query does not see the position.
     * out[r] is row r's, in the backend's memory. The rows are parts of the batch's runs, or (in host memory
     * alone) others. Of args, entropy, l2, light and values are not read, and nothing is written there. For
     * recorders: computed from the keys in f32 apart from `attention`, and so equal to what it uses up to
     * rounding. */
    ct_status (*attention_weights)(ct_op_ctx *ctx, const ct_attn_args *args,
                                   const ct_weights_out *out, ct_err *err) CT_CHECK;

    /* expert[t, i] = the expert of the i-th largest of the X logits of a token (the lowest index
     * first among equals), i < k <= X; weight[t, i] = its softmax over all X, not normed again. A
     * NaN counts as lowest and makes every weight of its token NaN. */
    void (*route)(ct_op_ctx *ctx, int32_t *expert, float *weight, const float *logits,
                  int64_t tokens, int64_t experts, int64_t k);
    /* y[i,:] = x[row[i],:], and x[row[i],:] += weight[i] * y[i,:]; no row appears twice. */
    void (*gather)(ct_op_ctx *ctx, float *y, const float *x, const int32_t *row, int64_t rows,
                   int64_t width);
    void (*scatter_add)(ct_op_ctx *ctx, float *x, const float *y, const int32_t *row,
                        const float *weight, int64_t rows, int64_t width);

    /* ---- parts of the operations above, which no model calls (op/parts.h) ---- */
    /* y[T,N] = block-diagonal product: y[t, b*n+j] = sum_i x[t, b*n+i] w[b,i,j] + bias[b*n+j];
     * w is [blocks, n, n], IN before OUT (RecurrentGemma's gates). w.rows = blocks*n, w.cols = n.
     * Always in f32. */
    ct_status (*block_matmul)(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                              const ct_matrix *w, int64_t blocks, const float *bias,
                              ct_err *err) CT_CHECK;
    /* y = gelu(a) * b, gelu in its tanh form; y may be a or b. b NULL: y = gelu(a). */
    void (*gelu_mul)(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count);
    /* y = a * b. */
    void (*mul)(ct_op_ctx *ctx, float *y, const float *a, const float *b, int64_t count);
    /* y[r][i] = cap * tanh(x[r,i] / cap) for `count` columns of each row; cap 0: y[r][i] = x[r,i].
     * y[r] may be x's row. */
    void (*soft_cap)(ct_op_ctx *ctx, float *const *y, const float *x, int64_t rows, int64_t count,
                     float cap);
    /* Rotates the first `rotary` dims of each of the T x heads vectors [heads, D] in place:
     * pairs (j, j + rotary/2), angle position * theta^(-2j/rotary). */
    void (*rope)(ct_op_ctx *ctx, float *x, int64_t heads, int64_t head_dim, int64_t rotary,
                 float theta, const ct_batch *batch);
    /* The recurrence of rglru alone: gate_x, gate_a are the gates before their sigmoid; y may be x;
     * states[s] + state_offset is row s's h, [R]. */
    void (*rg_lru)(ct_op_ctx *ctx, float *y, const float *x, const float *gate_x,
                   const float *gate_a, const float *param, int64_t width, const ct_batch *batch,
                   int64_t state_offset);
} ct_ops;

/* The scalar reference: the oracle of every other backend. */
const ct_ops *ct_ops_ref(void);
/* Vector kernels, chosen at run time for what the machine has: class "cpu-generic", "cpu-avx2",
 * "cpu-avx512", or "cpu-amx" (the same with bf16 products on the tile unit). The environment
 * variable CORTADO_MAX_ISA (generic, avx2, avx512, amx) names a lesser one; others are ignored. A
 * row's results have the same bits in any batch and with any number of threads; classes differ in
 * bits. */
const ct_ops *ct_ops_cpu(void);
/* A GPU through CUDA, class such as "cuda-sm90"; NULL where the program was built without. */
const ct_ops *ct_ops_cuda(void);

#endif
