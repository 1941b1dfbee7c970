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
    int64_t state_floats;    /* of its recurrent state; 0: none */
    /* Where it lies (places.c): */
    int place;
    int64_t kv_index;     /* among the attention layers of its place, or -1 */
    int64_t state_offset; /* of its recurrent state in the sequence's there, in floats */
};

/* A device that holds some of the layers, one after another; the first holds the embeddings too, the last
 * the final norm and the head. */
enum { CT_PLACES_MAX = 16 };
typedef struct ct_place {
    ct_device *device;
    int index; /* its number in the backend */
    int64_t first_layer, n_layers;
    int64_t first_attention, n_attention; /* attention layers before it, in it */
    int64_t weight_bytes;                 /* as held there */
    int64_t state_bytes, block_bytes; /* its part of a sequence's recurrent state, of a KV block */
} ct_place;

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
    int64_t layer;        /* that it is of, or -1 */
} ct_tensor_spec;

int64_t ct_tensor_count(const ct_tensor_spec *spec); /* elements */

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
    int n_places;
    ct_place places[CT_PLACES_MAX];
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
    struct ct_placed *placed; /* likewise in the places' memory */
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

/* What a model needs, in bytes, known before its weights are read. */
typedef struct ct_model_needs {
    int64_t weights;        /* mapped */
    int64_t read_per_token; /* of the weights, what one token alone reads */
    int64_t working;        /* of a session that computes long prompts */
} ct_model_needs;
ct_model_needs ct_model_get_needs(const ct_model *model);
/* Recurrent state and KV blocks of one sequence of so many tokens, in bytes. */
int64_t ct_model_state_bytes(const ct_model *model, int64_t tokens);
/* Working memory and scratch of a session for its longest pass, in bytes: on all places, on one. */
int64_t ct_session_working_bytes(const ct_model *model);
int64_t ct_place_working_bytes(const ct_model *model, int place);

/* Zeroed memory that lives as long as the model, or NULL with err filled. */
void *ct_model_alloc(ct_model *model, size_t bytes, ct_err *err);
/* Likewise in the memory of a place; `what` is named by the error. */
void *ct_model_place(ct_model *model, int place, size_t bytes, const char *what, ct_err *err);

/* ---- places (places.c) ---------------------------------------------------------------------- */

/* The backend that a device's name stands for, and the numbers of its devices: "cpu", "ref", "cuda",
 * "cuda:1"; "cuda:0+1", and for tests "cpu+cpu" and "ref+ref": the layers of a model spread over several. */
typedef struct ct_device_choice {
    const ct_ops *ops;
    int n, index[CT_PLACES_MAX];
} ct_device_choice;
ct_status ct_device_choose(const char *device, ct_device_choice *out, ct_err *err) CT_CHECK;

/* Splits n layers of so many bytes into stretches that follow one another, none empty, such that the largest
 * is as small as can be; first[p]: stretch p's first layer. places <= n. */
void ct_places_split(const int64_t *bytes, int64_t n, int places, int64_t *first);
/* Spreads the layers over the model's places, once the types of all listed tensors are known. May add to the
 * list what two places need. CT_ERR_VALUE if there are more places than layers. */
ct_status ct_places_lay_out(ct_model *model, ct_tensor_list *tensors, ct_err *err) CT_CHECK;
/* The place of a tensor, and its type in memory: matrices are bf16 on a device of its own that computes in
 * it, which is what products would make of them. */
int ct_tensor_place(const ct_model *model, const ct_tensor_spec *spec);
ct_dtype ct_tensor_held(const ct_model *model, const ct_tensor_spec *spec);

/* What a place's device can still give; a part of it where several places are on one device. */
int64_t ct_place_free_bytes(const ct_model *model, int place);
/* Bytes that states of sequences can take on devices with memory of their own, beside the weights and the
 * working memory of a session: as many as fit on every place, whatever they are states of; -1: the model
 * computes in the host's memory. */
int64_t ct_model_free_bytes(const ct_model *model);

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

/* A pass visits the model's places in order; op, the batch's states and lists of blocks, keep and memory
 * are those of the place at hand. */
struct ct_pass {
    const ct_model *model;
    ct_op_ctx op;
    int64_t tokens;
    int64_t n_wanted; /* tokens whose logits the last place makes */
    const ct_pass_row *rows;
    int64_t n_rows;
    const ct_seg *segs; /* [n_rows] */
    ct_batch batch;     /* the rows as the operations see them */
    const ct_edit_plan *plan;
    const ct_attn_row *attn; /* [plan->n_runs], with the edits */
    const void **kv_spare;   /* room for one more list of blocks, as long as the longest */
    bool has_layer_means;    /* some run's edit takes its mean over the layer */
    uint8_t *keep; /* [place's attention layers, T, H] heads kept; NULL: no token selects any */
    bool wants_entropy, wants_l2;
    bool records, wants_light;    /* some row records some token; has the light recorder */
    ct_attn_row *recorded;        /* room for plan->n_runs, if some row records */
    ct_weights_out *recorded_out; /* likewise */
    float *
        noted; /* ct_record_room in the host's memory, if some row records and the backend's is another */
    float *memory; /* working memory, the backend's: memory_used of memory_floats are taken */
    size_t memory_used, memory_floats;
    ct_watch watch;
};

/* Rounded up so that every array begins on a cache line. */
size_t ct_pass_round(size_t floats);
/* Takes working memory; the layer's caller gives it back. */
float *ct_pass_floats(ct_pass *pass, size_t floats);

/* ---- attention, for its mixer and for recordings --------------------------------------------- */

/* Of the layer's keys (part 0) or values (part 1) in a block, in elements: on each place a block holds all of
 * its attention layers, [attention layers, 2, 64, G, D]. */
int64_t ct_attn_kv_offset(const ct_layer *layer, const ct_model_info *info, int part);
/* 1/sqrt(D). */
float ct_attn_scale(const ct_model_info *info);
/* The key positions begin .. end-1 that hold the mean of a run whose edit takes it over the layer, where
 * they are marked. */
void ct_attn_mean_positions(const ct_attn_row *attn, ct_stage stage, int64_t *begin, int64_t *end);

/* ---- recordings (record.c) ------------------------------------------------------------------ */

/* The tokens that are both in a run of the row and recorded: *first of the run, how many. */
int64_t ct_record_tokens(const ct_pass_row *row, const ct_edit_run *run, int64_t *first);
/* Floats that ct_record_layer takes of the host's memory for what the backend's holds of a layer. */
size_t ct_record_room(const ct_pass *pass);
/* Hands what rows want recorded of a layer to their recordings. args: what the layer's attention was
 * computed with; means: by run; keep: [T, H] or NULL, all; all of it in the backend's memory. The pass is
 * plain (ct_op_ctx): it is not replayed past this. */
ct_status ct_record_layer(const ct_layer *layer, ct_pass *pass, const ct_attn_args *args,
                          const float *means, const uint8_t *keep, ct_err *err) CT_CHECK;
/* Computes the weights that the recording of a request that has ended still lacks: those of the last
 * step of generation, on one place, as a pass of its own. `blocks` is room for the sequence's list of blocks. */
ct_status ct_record_settle(const ct_model *model, ct_op_ctx *op, const ct_sequence *sequence,
                           int place, const void **blocks, ct_recording *recording,
                           ct_err *err) CT_CHECK;
/* Likewise, with the session's memory and threads (step.c). */
ct_status ct_session_settle(ct_session *session, const ct_sequence *sequence,
                            ct_recording *recording, ct_err *err) CT_CHECK;

#endif
