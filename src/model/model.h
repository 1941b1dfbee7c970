/* model.h - what an opened model is made of, and how an architecture joins.
 *
 * Owns the structures that the forward pass runs over. A model is a list of layers; a layer is a
 * mixer (attention, rglru, mamba) and a feed-forward (mlp, moe), each behind a small table of functions, with
 * residual additions around pre-norms. An architecture is one file that reads config.json, names
 * its tensors and fills the layers; registry.c lists it; step.c runs any of them.
 */
#ifndef CT_MODEL_MODEL_H
#define CT_MODEL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/engine.h>

#include "intervene/intervene.h"
#include "intervene/record.h"
#include "load/load.h"
#include "load/synth.h"
#include "op/op.h"

typedef struct ct_pass ct_pass;
typedef struct ct_layer ct_layer;

/* An operation that a layer kind calls: its place in ct_ops and its name for the error. */
typedef struct ct_op_need {
    const char *name;
    size_t offset;
} ct_op_need;
#define CT_NEEDS(op)                                                                               \
    {                                                                                              \
#op, offsetof(ct_ops, op)                                                                  \
    }

/* How a mixer or a feed-forward runs: adds its output for the pass's tokens to x [T, E], given
 * normed [T, E]. Working memory comes from ct_pass_floats; `floats` says how much at most. */
typedef struct ct_layer_kind {
    const char *name; /* "attention", "rglru", "mamba", "mlp", "moe" */
    const ct_op_need *needs;
    size_t n_needs;
    size_t (*floats)(const void *part, const ct_model *model, int64_t tokens);
    ct_status (*forward)(const ct_layer *layer, ct_pass *pass, const float *normed, float *x,
                         ct_err *err);
} ct_layer_kind;

struct ct_layer {
    int64_t index;                      /* 0 .. layers-1 */
    const float *mixer_norm, *ffn_norm; /* [E] */
    const ct_layer_kind *mixer_kind, *ffn_kind;
    const void *mixer, *ffn; /* the kind's weights, such as ct_mixer_attention */
    int64_t attention_index; /* among attention layers, or -1 */
    int64_t state_offset;    /* of the layer's recurrent state in the sequence's, in floats */
    int64_t state_floats;    /* 0: none */
};

/* One tensor of an architecture: where it goes when loading, how it is drawn when synthesised (with
 * standard deviation `scale` around `offset`). Exactly one of matrix and vector is set. */
typedef struct ct_tensor_spec {
    char name[128];
    int rank;
    int64_t shape[8];
    float scale, offset;
    ct_matrix *matrix;    /* filled with the tensor as it is stored (cols: the last dimension) */
    const float **vector; /* filled with the tensor widened to f32 */
    bool expert;          /* of an expert: a token reads few of them */
} ct_tensor_spec;

/* A list of tensor specs that grows. */
typedef struct ct_tensor_list {
    ct_tensor_spec *specs;
    size_t n, capacity;
} ct_tensor_list;

/* Appends a spec and returns it (valid until the next call), or NULL with err filled. */
ct_tensor_spec *ct_tensor_list_add(ct_tensor_list *list, ct_err *err, int rank,
                                   const int64_t *shape, float scale, float offset, const char *fmt,
                                   ...) CT_PRINTF(7, 8);

/* The tensors that a model of this config.json has, with the scales of ct_synth_write such that
 * random weights keep activations about as large as their inputs at any depth. `where` is the
 * config's path, for errors. The caller frees *out (one allocation, names included). */
ct_status ct_model_synth_tensors(const json_t *config, const char *where, ct_synth_tensor **out,
                                 size_t *n, ct_err *err) CT_CHECK;

/* One family of models. */
typedef struct ct_arch {
    const char *family;       /* "griffin", "jamba" */
    const char *architecture; /* as in config.json's `architectures` */
    const char *model_type;   /* as in config.json, where `architectures` is absent */
    /* Checks every field that matters, fills model->info, the numbers below and the layers' kinds,
     * and lists the tensors with their destinations. `where` is config.json's path. */
    ct_status (*configure)(ct_model *model, const json_t *config, const char *where,
                           ct_tensor_list *tensors, ct_err *err);
} ct_arch;

extern const ct_arch ct_arch_griffin, ct_arch_jamba;

struct ct_model {
    const ct_arch *arch;
    const ct_ops *ops;
    ct_device *device;
    ct_compute compute;
    ct_dtype cache_dtype; /* of keys and values */
    int threads;
    ct_folder *folder; /* NULL: random weights */
    ct_model_info info;
    char weights_hash[96];

    /* Top level. x = embed[id] * embed_scale; after the layers, logits = soft_cap(norm(x) head^T).
     */
    ct_matrix embed, head; /* [V, E] */
    const float *final_norm;
    float embed_scale, norm_eps, norm_offset, logits_soft_cap; /* soft cap 0: none */
    float rope_theta;
    int64_t rotary; /* rotated dims of a head; 0: none */
    int64_t window; /* a query sees this many previous tokens and itself; < 0: all */

    ct_layer *layers;                 /* [info.layers] */
    int64_t matrix_rows, matrix_cols; /* the largest among the layers' matrices */
    bool tied;                        /* the head is the embeddings */
    bool described;                   /* ct_model_describe: there are no weights to compute with */
    void **owned;                     /* freed on close */
    size_t n_owned, owned_capacity;
    void **placed; /* likewise in the backend's memory */
    size_t n_placed, placed_capacity;
};

/* ct_model_open without reading the weights through: weights_hash is NULL until ct_model_hash. */
ct_status ct_model_open_unhashed(const char *dir, const ct_model_options *options, ct_model **out,
                                 ct_err *err) CT_CHECK;
ct_status ct_model_hash(ct_model *model, ct_err *err) CT_CHECK;
/* A model that can be asked (info, needs, bytes of states) and not run: where its weights are random
 * they are not made, and no device is looked for but to name its class. */
ct_status ct_model_describe(const char *dir, const ct_model_options *options, ct_model **out,
                            ct_err *err) CT_CHECK;
/* The backend that a device's name stands for ("cpu", "ref", "cuda", "cuda:1"), and its number there. */
ct_status ct_device_choose(const char *device, const ct_ops **out, int *index,
                           ct_err *err) CT_CHECK;
/* Bytes that states of sequences can take on a device with memory of its own, beside the weights and
 * the working memory of a session; -1: the model computes in the host's memory. */
int64_t ct_model_free_bytes(const ct_model *model);

/* What a model needs, in bytes, known before its weights are read. */
typedef struct ct_model_needs {
    int64_t weights;        /* mapped */
    int64_t read_per_token; /* of the weights, what one token alone reads */
    int64_t working;        /* of a session that computes long prompts */
} ct_model_needs;
ct_model_needs ct_model_get_needs(const ct_model *model);
/* Recurrent state and KV blocks of one sequence of so many tokens, in bytes. */
int64_t ct_model_state_bytes(const ct_model *model, int64_t tokens);
/* Working memory and scratch of a session for its longest pass, in bytes. */
int64_t ct_session_working_bytes(const ct_model *model);

/* Zeroed memory that lives as long as the model, or NULL with err filled. */
void *ct_model_alloc(ct_model *model, size_t bytes, ct_err *err);
/* Likewise in the backend's memory; `what` is named by the error. */
void *ct_model_place(ct_model *model, size_t bytes, const char *what, ct_err *err);

/* ---- random weights (random.c) -------------------------------------------------------------- */

/* What "random:SEED" or "random:SEED:DTYPE" says. */
typedef struct ct_random_weights {
    uint64_t seed;
    ct_dtype dtype; /* as they would be stored: BF16 (default) or F32 */
} ct_random_weights;
ct_status ct_random_parse(const char *text, ct_random_weights *out, ct_err *err) CT_CHECK;
/* As ct_synth_tensors, one entry: a uniform number in [-s, s) has the deviation s / sqrt(3). */
ct_synth_tensor ct_random_tensor(const ct_tensor_spec *spec);
/* Sets every listed matrix's shape and stored type, and what info says of the weights. */
void ct_random_describe(ct_model *model, const ct_tensor_list *tensors,
                        const ct_random_weights *how);
/* Makes them in the backend's memory with the bits that loading them from a folder of `cortado synth`
 * would give. CT_ERR_MEMORY before anything is made if there is too little. */
ct_status ct_random_fill_all(ct_model *model, const ct_tensor_list *tensors,
                             const ct_random_weights *how, ct_err *err) CT_CHECK;
/* The text that stands for the weights' hash, in model->weights_hash. */
ct_status ct_random_hash(ct_model *model, const json_t *config, const ct_tensor_list *tensors,
                         const ct_random_weights *how, ct_err *err) CT_CHECK;

/* CT_ERR_UNSUPPORTED, naming the operation, if the model's backend lacks one that its layers need.
 */
ct_status ct_model_check_ops(const ct_model *model, ct_err *err) CT_CHECK;

/* Who looks on while a session computes, and may stop it. `see` is given x [tokens, E], in the
 * backend's memory, at every place of a pass that is not replayed: 2 i before layer i's mixer, 2 i + 1
 * before its feed-forward, 2 layers after the last one, and one more after the final norm. From the
 * last feed-forward on x has the wanted tokens only, and without any the pass ends before it. A status
 * other than CT_OK ends the step with it, and as with any error none of its sequences may be used again. */
typedef struct ct_watch {
    ct_status (*see)(void *user, int64_t place, const float *x, int64_t tokens, ct_err *err);
    void *user;
} ct_watch;
/* {0}: nobody. */
void ct_session_watch(ct_session *session, ct_watch watch);
/* The model whose sequences the session steps. */
const ct_model *ct_session_model(const ct_session *session);
/* Bytes of working memory and scratch that the session holds by now. */
size_t ct_session_bytes(const ct_session *session);

/* ---- kinds of layers ------------------------------------------------------------------------ */

typedef struct ct_mixer_attention {
    ct_matrix q, k, v, o; /* [H*D, E], [G*D, E] twice, [E, H*D] */
    const float *o_bias;  /* [E] or NULL */
} ct_mixer_attention;
extern const ct_layer_kind ct_kind_attention;

typedef struct ct_mixer_rglru {
    ct_matrix linear_x, linear_y, linear_out;
    const float *linear_x_bias, *linear_y_bias, *linear_out_bias;
    ct_rglru cell;
} ct_mixer_rglru;
extern const ct_layer_kind ct_kind_rglru;
/* Floats of one layer's state: h [R], then the last C-1 inputs of the convolution [C-1, R]. */
int64_t ct_rglru_state_floats(int64_t width, int64_t taps);

typedef struct ct_mixer_mamba {
    int64_t width, states, taps, rank;      /* R, N, C, size of what the step sizes are made from */
    ct_matrix in, out;                      /* [2 R, E] (inputs, then gates), [E, R] */
    const float *in_bias, *out_bias;        /* [2 R], [E], or NULL */
    const float *conv, *conv_bias;          /* [R, C], [R] or NULL */
    ct_matrix parts, dt;                    /* [rank + 2 N, R] (dt, b, c), [R, rank] */
    const float *dt_norm, *b_norm, *c_norm; /* [rank], [N], [N] */
    const float *dt_bias, *a_log, *skip;    /* [R], [R, N], [R] */
} ct_mixer_mamba;
extern const ct_layer_kind ct_kind_mamba;
/* Floats of one layer's state: h [N, R], then the last C-1 inputs of the convolution [C-1, R]. */
int64_t ct_mamba_state_floats(int64_t width, int64_t states, int64_t taps);

/* The gated feed-forward; its part is a ct_mlp. */
extern const ct_layer_kind ct_kind_mlp;
/* Floats of `hidden` that ct_ops.gated_mlp takes for so many tokens. */
size_t ct_mlp_floats(const ct_mlp *mlp, int64_t tokens);

/* A mixture of experts; its part is a ct_experts. */
extern const ct_layer_kind ct_kind_moe;

/* ---- one pass over packed tokens ------------------------------------------------------------ */

/* One row's part of a pass: a stretch of its tokens. */
typedef struct ct_pass_row {
    ct_seg seg;
    ct_sequence *sequence;
    ct_stage stage;
    const ct_intervention *intervention;
    ct_audit *audit;
    uint8_t *heads_kept; /* [attention layers, H] if the row's last token is in this pass, or NULL
                          */
    size_t first_run, n_runs; /* of pass->plan */
    ct_recording *recording;  /* NULL, or with the part of the tokens that it takes */
    ct_record_part part;
} ct_pass_row;

struct ct_pass {
    const ct_model *model;
    ct_op_ctx op;
    int64_t tokens;
    const ct_pass_row *rows;
    int64_t n_rows;
    const ct_seg *segs; /* [n_rows] */
    ct_batch batch;     /* the rows as the operations see them */
    const ct_edit_plan *plan;
    const ct_attn_row *attn; /* [plan->n_runs], with the edits */
    const void **kv_spare;   /* room for one more list of blocks, as long as the longest */
    bool has_layer_means;    /* some run's edit takes its mean over the layer */
    uint8_t *keep;           /* [attention layers, T, H] heads kept; NULL: no token selects any */
    bool wants_entropy, wants_l2;
    bool records, wants_light;    /* some row records some token; has the light recorder */
    ct_attn_row *recorded;        /* room for plan->n_runs, if some row records */
    ct_weights_out *recorded_out; /* likewise */
    float *memory; /* working memory, the backend's: memory_used of memory_floats are taken */
    size_t memory_used, memory_floats;
    ct_watch watch;
};

/* Rounded up so that every array begins on a cache line. */
size_t ct_pass_round(size_t floats);
/* Takes working memory; the layer's caller gives it back. */
float *ct_pass_floats(ct_pass *pass, size_t floats);

/* ---- attention, for its mixer and for recordings --------------------------------------------- */

/* Of the layer's keys (part 0) or values (part 1) in a block, in elements: a block holds all attention
 * layers, [attention layers, 2, 64, G, D]. */
int64_t ct_attn_kv_offset(const ct_layer *layer, const ct_model_info *info, int part);
/* 1/sqrt(D). */
float ct_attn_scale(const ct_model_info *info);
/* The key positions begin .. end-1 that hold the mean of a run whose edit takes it over the layer, where
 * they are marked. */
void ct_attn_mean_positions(const ct_attn_row *attn, ct_stage stage, int64_t *begin, int64_t *end);

/* ---- recordings (record.c) ------------------------------------------------------------------ */

/* Hands what rows want recorded of a layer to their recordings. args: what the layer's attention was
 * computed with; means: by run; keep: [T, H] or NULL, all. */
ct_status ct_record_layer(const ct_layer *layer, ct_pass *pass, const ct_attn_args *args,
                          const float *means, const uint8_t *keep, ct_err *err) CT_CHECK;
/* Computes the weights that the recording of a request that has ended still lacks: those of the last
 * step of generation. `blocks` is room for the sequence's list of blocks. */
ct_status ct_record_settle(const ct_model *model, ct_op_ctx *op, const ct_sequence *sequence,
                           const void **blocks, ct_recording *recording, ct_err *err) CT_CHECK;
/* Likewise, with the session's memory and threads (step.c). */
ct_status ct_session_settle(ct_session *session, const ct_sequence *sequence,
                            ct_recording *recording, ct_err *err) CT_CHECK;

#endif
