/* op.h - the operations table: every computation of a forward pass, behind function pointers.
 *
 * Owns the shapes and the meaning of each operation. Knows dimensions, no model names. A backend
 * (ref: scalar loops that follow the equations; cpu: vector kernels; later cuda) is one
 * ct_ops table. Tensors are dense, row-major; activations are f32. Kernels never allocate: scratch
 * comes from ct_ops.scratch_bytes through ct_op_ctx. An operation that a backend lacks is NULL, and
 * opening a model on it fails with the operation's name.
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

/* Attention's view of one row. */
typedef struct ct_attn_row {
    ct_seg seg;
    int64_t window; /* W: query p sees keys p-W .. p (W+1 of them); < 0: all keys 0 .. p */
    const float *const
        *k; /* k[b]: keys of positions 64b .. 64b+63, [64, G, D]; NULL if never visible */
    const float *const *v; /* likewise values */
    ct_weights_mode edit;  /* after the softmax, no renormalisation; KEEP: `marked` is not read */
    const uint8_t *marked; /* [marked_count] 1 where the key position is in the edited span */
    int64_t marked_count;  /* positions from here on are unmarked */
    const ct_span *needle; /* [n_needle] sorted, disjoint; read where ct_attn_args.light is set */
    size_t n_needle;
} ct_attn_row;

/* What the light recorder wants of every token and head; [T, H] each. */
typedef struct ct_attn_light {
    float *needle_before, *needle_after; /* sums of the weights on the row's needle, by the edit */
    float *peak_weight;                  /* the largest unedited weight */
    int32_t *peak;                       /* its position, the first of equals */
} ct_attn_light;

typedef struct ct_attn_args {
    int64_t tokens, heads, kv_heads, head_dim; /* T H G D; head h uses kv head h / (H/G) */
    float scale;                               /* 1/sqrt(D) */
    const float *q;                            /* [T, H, D], rotated already */
    float *out;          /* [T, H, D] head outputs, before any head selection */
    float *entropy_bits; /* [T, H] or NULL; of the unedited weights */
    float *l2;           /* [T, H] or NULL; sqrt(sum of squared weights), unedited */
    const ct_attn_row *rows;
    int64_t n_rows;
    const ct_attn_light *light; /* or NULL */
} ct_attn_args;

/* Where the weights of one row's tokens go: of its token t to before + t * stride and after + t *
 * stride, [H, keys] each; keys is greater than the position of its last token. after may be NULL. */
typedef struct ct_weights_out {
    float *before, *after;
    int64_t keys, stride;
} ct_weights_out;

/* What Mamba's selective scan reads: N states for each of R channels. */
typedef struct ct_scan {
    const float *x, *dt;   /* [T, R]: inputs, step sizes before their softplus */
    const float *b, *c;    /* [T, N]: how the input enters the states, how they are read */
    const float *a_log;    /* [R, N]: log of the decay rates */
    const float *skip;     /* [R]: D, the input's own way to the output */
    int64_t width, states; /* R, N */
} ct_scan;

/* Scratch for one call; provided by the caller, grown outside kernels. */
typedef struct ct_op_ctx {
    void *scratch;
    size_t scratch_bytes;
    ct_compute compute; /* F32 or BF16, never AUTO here */
} ct_op_ctx;

typedef struct ct_ops {
    const char *name; /* "ref", "cpu" */

    /* The class of this backend on this machine for cell keys, such as "cpu-amx"; static text. */
    const char *(*class_name)(void);
    /* What AUTO means for weights stored as dtype on this machine. */
    ct_compute (*choose_compute)(ct_dtype stored);
    /* Scratch that any call needs for T tokens and matrices up to rows x cols, heads H of size D,
     * with as many threads as OpenMP now has; with more later, calls use no more than these. */
    size_t (*scratch_bytes)(int64_t tokens, int64_t max_rows, int64_t max_cols, int64_t heads,
                            int64_t head_dim);

    /* y[T,N] = x[T,K] w[N,K]^T (+ bias[N] if not NULL) (+ what y held, if accumulate).
     * A row of y has the same bits whatever T is and whichever rows stand beside it. */
    ct_status (*matmul)(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                        const ct_matrix *w, const float *bias, bool accumulate,
                        ct_err *err) CT_CHECK;
    /* y[T,N] = block-diagonal product: y[t, b*n+j] = sum_i x[t, b*n+i] w[b,i,j] + bias[b*n+j];
     * w is [blocks, n, n], IN before OUT (RecurrentGemma's gates). w.rows = blocks*n, w.cols = n.
     * Always in f32: the gates decide how long a state lives. */
    ct_status (*block_matmul)(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                              const ct_matrix *w, int64_t blocks, const float *bias,
                              ct_err *err) CT_CHECK;
    /* y[T,E] += the feed-forward of x[T,E], with the bits of matmul, gelu_mul or silu_mul, and matmul
     * one after another. `hidden` is room for 2 F floats for each token, T rounded up to 32. */
    ct_status (*gated_mlp)(ct_op_ctx *ctx, float *y, const float *x, int64_t tokens,
                           const ct_mlp *mlp, float *hidden, ct_err *err) CT_CHECK;
    /* x[t,:] = table[ids[t],:] * scale. Ids are valid. */
    void (*embed)(float *x, const int32_t *ids, int64_t tokens, const ct_matrix *table,
                  float scale);
    /* y = x / sqrt(mean(x^2) + eps) * (offset + w); offset 1 for Griffin, 0 for Jamba. y may be x.
     */
    void (*rms_norm)(float *y, const float *x, int64_t tokens, int64_t width, const float *w,
                     float eps, float offset);
    /* y = gelu(a) * b, gelu in its tanh form; y may be a or b. b NULL: y = gelu(a). */
    void (*gelu_mul)(float *y, const float *a, const float *b, int64_t count);
    /* y = silu(a) * b, silu(a) = a sigmoid(a); y may be a or b. b NULL: y = silu(a). */
    void (*silu_mul)(float *y, const float *a, const float *b, int64_t count);
    /* y = a * b and y += a. */
    void (*mul)(float *y, const float *a, const float *b, int64_t count);
    void (*add)(float *y, const float *a, int64_t count);
    /* y[r][i] = cap * tanh(x[r,i] / cap) for `count` columns of each row; cap 0: y[r][i] = x[r,i].
     * y[r] may be x's row. */
    void (*soft_cap)(float *const *y, const float *x, int64_t rows, int64_t count, float cap);

    /* Depthwise causal convolution of C taps: y[t,j] = bias[j] + sum_k w[j,k] x[t-C+1+k, j].
     * state[s] is row s's last C-1 inputs, [C-1, R] oldest first; read, then moved on. y is not x.
     * bias may be NULL. */
    void (*conv1d)(float *y, const float *x, int64_t width, int64_t taps, const float *w,
                   const float *bias, const ct_seg *segs, float *const *state, int64_t n_segs);
    /* RG-LRU (Griffin, De et al. 2024, section 2.4): per channel
     *   a = exp(-8 sigmoid(ga) softplus(param)); h = a h + sqrt(1-a^2) sigmoid(gx) x; y = h,
     * and at absolute position 0: h = sigmoid(gx) x. ga, gx are the gates before their sigmoid.
     * state[s] is row s's h, [R]; read, then moved on. y may be x. */
    void (*rg_lru)(float *y, const float *x, const float *gate_x, const float *gate_a,
                   const float *param, int64_t width, const ct_seg *segs, float *const *state,
                   int64_t n_segs);
    /* Mamba's selective scan (Gu and Dao 2023, section 3.2): per channel j and state n
     *   d = softplus(dt[t,j]);  h[n,j] = exp(-d exp(a_log[j,n])) h[n,j] + d b[t,n] x[t,j];
     *   y[t,j] = sum_n c[t,n] h[n,j] + skip[j] x[t,j].
     * y is [T, R] and may be scan->x or scan->dt. state[s] is row s's h, [N, R]; read, then moved
     * on. */
    void (*selective_scan)(float *y, const ct_scan *scan, const ct_seg *segs, float *const *state,
                           int64_t n_segs);
    /* expert[t, i] = the expert of the i-th largest of the X logits of a token (the lowest index
     * first among equals), i < k <= X; weight[t, i] = its softmax over all X, not normed again. A
     * NaN counts as lowest and makes every weight of its token NaN. */
    void (*route)(int32_t *expert, float *weight, const float *logits, int64_t tokens,
                  int64_t experts, int64_t k);
    /* y[i,:] = x[row[i],:], and x[row[i],:] += weight[i] * y[i,:]; no row appears twice. */
    void (*gather)(float *y, const float *x, const int32_t *row, int64_t rows, int64_t width);
    void (*scatter_add)(float *x, const float *y, const int32_t *row, const float *weight,
                        int64_t rows, int64_t width);
    /* Rotates the first `rotary` dims of each of the T x heads vectors [heads, D] in place:
     * pairs (j, j + rotary/2), angle position * theta^(-2j/rotary). */
    void (*rope)(float *x, int64_t heads, int64_t head_dim, int64_t rotary, float theta,
                 const ct_seg *segs, int64_t n_segs);
    /* Softmax attention with its entropy and l2 in one pass, see ct_attn_args. Sums run over blocks
     * of 64 absolute positions, so bits do not depend on how the prompt was cut. */
    ct_status (*attention)(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err) CT_CHECK;
    /* before[h, s] = the softmax weight of key position s for each token of the rows, after[h, s] = the
     * same under the row's edit; nothing is written where the query does not see the position.
     * out[r] is row r's. Of args, entropy, l2, light and values are not read, and nothing is
     * written there. For recorders: computed from the keys in f32 apart from `attention`, and so
     * equal to what it uses up to rounding. */
    ct_status (*attention_weights)(ct_op_ctx *ctx, const ct_attn_args *args,
                                   const ct_weights_out *out, ct_err *err) CT_CHECK;
    /* keep[t,h] = 1 for the k[t] heads of the highest score (lowest index first among equals), else
     * 0. k[t] < 0: all heads are kept. NaN scores count as lowest. */
    void (*select_heads)(uint8_t *keep, const float *score, const int32_t *k, int64_t tokens,
                         int64_t heads);
    /* x[t,h,:] = 0 where keep[t,h] is 0. */
    void (*mask_heads)(float *x, const uint8_t *keep, int64_t tokens, int64_t heads,
                       int64_t head_dim);
} ct_ops;

/* ct_ops.gated_mlp by the table's own products. */
ct_status ct_mlp_by_parts(const ct_ops *ops, ct_op_ctx *ctx, float *y, const float *x,
                          int64_t tokens, const ct_mlp *mlp, float *hidden, ct_err *err) CT_CHECK;

/* The scalar reference: the oracle of every other backend. */
const ct_ops *ct_ops_ref(void);
/* Vector kernels, chosen at run time for what the machine has: class "cpu-generic", "cpu-avx2",
 * "cpu-avx512", or "cpu-amx" (the same with bf16 products on the tile unit). The environment
 * variable CORTADO_MAX_ISA (generic, avx2, avx512, amx) names a lesser one; others are ignored. A
 * row's results have the same bits in any batch and with any number of threads; classes differ in
 * bits. */
const ct_ops *ct_ops_cpu(void);

#endif
