/* jamba.c - Jamba (Lieber et al. 2024): 1.5, 1.6 and 1.7 Mini and Large, and dense relatives.
 *
 * Owns its config.json keys, its tensor names and its layer pattern: Mamba layers and a few layers of
 * global attention without any position encoding, each followed by a gated MLP or, in some layers,
 * by a mixture of experts. Names and defaults are those of the Hugging Face files;
 * docs/semantics.md has the equations.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/err.h"
#include "model/arch.h"

enum { EXPERTS_MAX = 256, EXPAND_MAX = 16, STATES_MAX = 1024 };

/* Layer i has something iff i mod period = offset. */
typedef struct pattern {
    int64_t period, offset;
} pattern;

typedef struct jamba {
    int64_t width, layers, heads, kv_heads, head_dim, mlp_width, vocab;
    int64_t inner, states, taps, rank; /* of Mamba: R, N, C */
    int64_t experts, experts_used;
    pattern attention, expert;
    bool tied, conv_bias, proj_bias;
} jamba;

/* ---- config.json ----------------------------------------------------------------------------- */

static bool matches(const pattern *p, int64_t layer)
{
    return layer % p->period == p->offset;
}

static ct_status configure_pattern(const json_t *config, const char *period_key,
                                   const char *offset_key, pattern *out, const char *where,
                                   ct_err *err)
{
    ct_status st = CT_OK;
    CT_TRY(ct_json_int(config, period_key, false, 1, CT_ARCH_LAYERS_MAX, where, &out->period, err));
    CT_TRY(ct_json_int(config, offset_key, false, 0, CT_ARCH_LAYERS_MAX, where, &out->offset, err));
    if (out->offset >= out->period)
        CT_TRY(ct_fail(err, CT_ERR_VALUE,
                       "%s: %s: expected less than %s = %" PRId64 ", got %" PRId64, where,
                       offset_key, period_key, out->period, out->offset));
done:
    return st;
}

/* mamba_dt_rank: a number, or "auto" for a sixteenth of the width. */
static ct_status configure_rank(jamba *j, const json_t *config, const char *where, ct_err *err)
{
    const json_t *value = json_object_get(config, "mamba_dt_rank");
    j->rank = (j->width + 15) / 16;
    if (json_is_string(value)) return ct_arch_text(config, "mamba_dt_rank", "auto", where, err);
    return ct_json_int(config, "mamba_dt_rank", false, 1, CT_ARCH_WIDTH_MAX, where, &j->rank, err);
}

static ct_status configure_mamba(jamba *j, const json_t *config, const char *where, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t expand = 2;
    j->states = 16;
    j->taps = 4;
    j->conv_bias = true;
    CT_TRY(ct_json_int(config, "mamba_expand", false, 1, EXPAND_MAX, where, &expand, err));
    CT_TRY(ct_json_int(config, "mamba_d_state", false, 1, STATES_MAX, where, &j->states, err));
    CT_TRY(ct_json_int(config, "mamba_d_conv", false, 1, CT_ARCH_TAPS_MAX, where, &j->taps, err));
    CT_TRY(ct_json_bool(config, "mamba_conv_bias", false, where, &j->conv_bias, err));
    CT_TRY(ct_json_bool(config, "mamba_proj_bias", false, where, &j->proj_bias, err));
    CT_TRY(configure_rank(j, config, where, err));
    j->inner = expand * j->width;
done:
    return st;
}

static ct_status configure_attention(jamba *j, const json_t *config, const char *where, ct_err *err)
{
    ct_status st = CT_OK;
    const json_t *window = json_object_get(config, "sliding_window");
    if (window && !json_is_null(window))
        CT_TRY(ct_fail(err, CT_ERR_UNSUPPORTED,
                       "%s: sliding_window: expected null (Jamba's attention is global)", where));
    j->kv_heads = 8;
    CT_TRY(ct_json_int(config, "num_attention_heads", true, 1, CT_ARCH_HEADS_MAX, where, &j->heads,
                       err));
    CT_TRY(ct_json_int(config, "num_key_value_heads", false, 1, CT_ARCH_HEADS_MAX, where,
                       &j->kv_heads, err));
    CT_TRY(ct_arch_divides(j->width, "hidden_size", j->heads, "num_attention_heads", where, err));
    CT_TRY(ct_arch_divides(j->heads, "num_attention_heads", j->kv_heads, "num_key_value_heads",
                           where, err));
    j->head_dim = j->width / j->heads;
    j->attention = (pattern){8, 4};
    CT_TRY(configure_pattern(config, "attn_layer_period", "attn_layer_offset", &j->attention, where,
                             err));
done:
    return st;
}

/* A layer of the pattern has experts only if there are several; else, and elsewhere, an MLP. */
static ct_status configure_experts(jamba *j, const json_t *config, const char *where, ct_err *err)
{
    ct_status st = CT_OK;
    j->experts = 16;
    j->experts_used = 2;
    j->expert = (pattern){2, 1};
    CT_TRY(ct_json_int(config, "num_experts", false, 1, EXPERTS_MAX, where, &j->experts, err));
    CT_TRY(ct_json_int(config, "num_experts_per_tok", false, 1, EXPERTS_MAX, where,
                       &j->experts_used, err));
    if (j->experts > 1 && j->experts_used > j->experts)
        CT_TRY(ct_fail(err, CT_ERR_VALUE,
                       "%s: num_experts_per_tok: expected at most num_experts = %" PRId64
                       ", got %" PRId64,
                       where, j->experts, j->experts_used));
    CT_TRY(configure_pattern(config, "expert_layer_period", "expert_layer_offset", &j->expert,
                             where, err));
done:
    return st;
}

static ct_status configure_sizes(jamba *j, ct_model *model, const json_t *config, const char *where,
                                 ct_err *err)
{
    ct_status st = CT_OK;
    double eps = 1e-6;
    CT_TRY(ct_json_int(config, "hidden_size", true, 1, CT_ARCH_WIDTH_MAX, where, &j->width, err));
    CT_TRY(ct_json_int(config, "num_hidden_layers", true, 1, CT_ARCH_LAYERS_MAX, where, &j->layers,
                       err));
    CT_TRY(ct_json_int(config, "intermediate_size", true, 1, CT_ARCH_WIDTH_MAX, where,
                       &j->mlp_width, err));
    CT_TRY(ct_json_int(config, "vocab_size", true, 1, CT_ARCH_VOCAB_MAX, where, &j->vocab, err));
    CT_TRY(ct_json_bool(config, "tie_word_embeddings", false, where, &j->tied, err));
    CT_TRY(ct_arch_text(config, "hidden_act", "silu", where, err));
    CT_TRY(ct_json_real(config, "rms_norm_eps", false, 0, 1, where, &eps, err));
    CT_TRY(configure_attention(j, config, where, err));
    CT_TRY(configure_mamba(j, config, where, err));
    CT_TRY(configure_experts(j, config, where, err));
    model->norm_eps = (float)eps;
    model->norm_offset = 0;
    model->embed_scale = 1;
    model->window = -1;
done:
    return st;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static ct_status attention_tensors(const jamba *j, const ct_layer *layer, ct_mixer_attention *m,
                                   ct_tensor_list *list, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t d = j->width, kv = j->kv_heads * j->head_dim;
    CT_MATRIX("self_attn.q_proj.weight", &m->q, d, d, d);
    CT_MATRIX("self_attn.k_proj.weight", &m->k, d, kv, d);
    CT_MATRIX("self_attn.v_proj.weight", &m->v, d, kv, d);
    CT_MATRIX("self_attn.o_proj.weight", &m->o, d, d, d);
done:
    return st;
}

static ct_status mamba_tensors(const jamba *j, const ct_layer *layer, ct_mixer_mamba *m,
                               ct_tensor_list *list, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t d = j->width, r = j->inner, n = j->states, low = j->rank;
    *m = (ct_mixer_mamba){.width = r, .states = n, .taps = j->taps, .rank = low};
    CT_MATRIX("mamba.in_proj.weight", &m->in, d, 2 * r, d);
    if (j->proj_bias) CT_VECTOR("mamba.in_proj.bias", &m->in_bias, 0.05f, 0, 2 * r);
    CT_VECTOR("mamba.conv1d.weight", &m->conv, 0.5f, 0, r, 1, j->taps);
    if (j->conv_bias) CT_VECTOR("mamba.conv1d.bias", &m->conv_bias, 0.05f, 0, r);
    CT_MATRIX("mamba.x_proj.weight", &m->parts, r, low + 2 * n, r);
    CT_VECTOR("mamba.dt_layernorm.weight", &m->dt_norm, 0.1f, 1, low);
    CT_VECTOR("mamba.b_layernorm.weight", &m->b_norm, 0.1f, 1, n);
    CT_VECTOR("mamba.c_layernorm.weight", &m->c_norm, 0.1f, 1, n);
    CT_MATRIX("mamba.dt_proj.weight", &m->dt, low, r, low);
    /* Steps around softplus(-4.6) = 0.01 and decay rates around e^1.4 = 4, as training begins with:
     * a state lives for some 25 tokens. */
    CT_VECTOR("mamba.dt_proj.bias", &m->dt_bias, 1.2f, -4.6f, r);
    CT_VECTOR("mamba.A_log", &m->a_log, 0.7f, 1.4f, r, n);
    CT_VECTOR("mamba.D", &m->skip, 0.1f, 1, r);
    CT_MATRIX("mamba.out_proj.weight", &m->out, r, d, r);
    if (j->proj_bias) CT_VECTOR("mamba.out_proj.bias", &m->out_bias, 0.05f, 0, d);
done:
    return st;
}

/* One matrix of an MLP whose tensors begin with feed_forward.<prefix>. */
static ct_status mlp_tensor(ct_tensor_list *list, const ct_layer *layer, int64_t expert,
                            const char *name, int64_t rows, int64_t cols, ct_matrix *to,
                            ct_err *err)
{
    const int64_t shape[] = {rows, cols};
    float scale = 1.0f / sqrtf((float)cols);
    ct_tensor_spec *spec =
        expert < 0 ? ct_tensor_list_add(list, err, 2, shape, scale, 0,
                                        "model.layers.%" PRId64 ".feed_forward.%s.weight",
                                        layer->index, name)
                   : ct_tensor_list_add(list, err, 2, shape, scale, 0,
                                        "model.layers.%" PRId64 ".feed_forward.experts.%" PRId64
                                        ".%s.weight",
                                        layer->index, expert, name);
    if (!spec) return CT_ERR_MEMORY;
    spec->layer = layer->index;
    spec->matrix = to;
    spec->expert = expert >= 0;
    return CT_OK;
}

/* expert < 0: the layer's only MLP. */
static ct_status mlp_tensors(const jamba *j, const ct_layer *layer, int64_t expert, ct_mlp *m,
                             ct_tensor_list *list, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t d = j->width, f = j->mlp_width;
    m->activation = CT_SILU;
    CT_TRY(mlp_tensor(list, layer, expert, "gate_proj", f, d, &m->gate, err));
    CT_TRY(mlp_tensor(list, layer, expert, "up_proj", f, d, &m->up, err));
    CT_TRY(mlp_tensor(list, layer, expert, "down_proj", d, f, &m->down, err));
done:
    return st;
}

static ct_status ffn_tensors(const jamba *j, ct_model *model, ct_layer *layer, ct_tensor_list *list,
                             ct_err *err)
{
    ct_status st = CT_OK;
    if (j->experts == 1 || !matches(&j->expert, layer->index)) {
        ct_mlp *mlp = ct_model_alloc(model, sizeof *mlp, err);
        if (!mlp) return CT_ERR_MEMORY;
        layer->ffn_kind = &ct_kind_mlp;
        layer->ffn = mlp;
        return mlp_tensors(j, layer, -1, mlp, list, err);
    }
    ct_experts *moe = ct_model_alloc(model, sizeof *moe, err);
    if (!moe) return CT_ERR_MEMORY;
    layer->ffn_kind = &ct_kind_moe;
    layer->ffn = moe;
    moe->experts = j->experts;
    moe->used = j->experts_used;
    moe->expert = ct_model_alloc(model, (size_t)j->experts * sizeof *moe->expert, err);
    if (!moe->expert) return CT_ERR_MEMORY;
    model->info.experts = j->experts;
    model->info.experts_per_token = j->experts_used;
    CT_MATRIX("feed_forward.router.weight", &moe->router, j->width, j->experts, j->width);
    for (int64_t e = 0; e < j->experts; e++)
        CT_TRY(mlp_tensors(j, layer, e, &moe->expert[e], list, err));
done:
    return st;
}

static ct_status configure_layer(const jamba *j, ct_model *model, ct_layer *layer,
                                 ct_tensor_list *list, ct_err *err)
{
    ct_status st = CT_OK;
    CT_VECTOR("input_layernorm.weight", &layer->mixer_norm, 0.1f, 1, j->width);
    if (matches(&j->attention, layer->index)) {
        ct_mixer_attention *m = ct_model_alloc(model, sizeof *m, err);
        if (!m) return CT_ERR_MEMORY;
        layer->mixer_kind = &ct_kind_attention;
        layer->mixer = m;
        CT_TRY(attention_tensors(j, layer, m, list, err));
    } else {
        ct_mixer_mamba *m = ct_model_alloc(model, sizeof *m, err);
        if (!m) return CT_ERR_MEMORY;
        layer->mixer_kind = &ct_kind_mamba;
        layer->mixer = m;
        layer->state_floats = ct_mamba_state_floats(j->inner, j->states, j->taps);
        CT_TRY(mamba_tensors(j, layer, m, list, err));
    }
    CT_VECTOR("pre_ff_layernorm.weight", &layer->ffn_norm, 0.1f, 1, j->width);
    CT_TRY(ffn_tensors(j, model, layer, list, err));
done:
    return st;
}

static ct_status configure(ct_model *model, const json_t *config, const char *where,
                           ct_tensor_list *list, ct_err *err)
{
    ct_status st = CT_OK;
    jamba j = {0};
    const ct_layer *layer = NULL; /* CT_MATRIX and CT_VECTOR name top-level tensors with it */
    CT_TRY(configure_sizes(&j, model, config, where, err));
    model->info.layers = j.layers;
    model->info.heads = j.heads;
    model->info.kv_heads = j.kv_heads;
    model->info.head_dim = j.head_dim;
    model->info.width = j.width;
    model->info.ffn_width = j.mlp_width;
    model->info.vocab = j.vocab;
    model->layers = ct_model_alloc(model, (size_t)j.layers * sizeof *model->layers, err);
    if (!model->layers) CT_TRY(CT_ERR_MEMORY);

    CT_MATRIX("model.embed_tokens.weight", &model->embed, j.tied ? j.width : 1, j.vocab, j.width);
    CT_VECTOR("model.final_layernorm.weight", &model->final_norm, 0.1f, 1, j.width);
    if (!j.tied) CT_MATRIX("lm_head.weight", &model->head, j.width, j.vocab, j.width);
    for (int64_t i = 0; i < j.layers; i++) {
        model->layers[i].index = i;
        CT_TRY(configure_layer(&j, model, &model->layers[i], list, err));
    }
done:
    return st;
}

const ct_arch ct_arch_jamba = {
    .family = "jamba",
    .architecture = "JambaForCausalLM",
    .model_type = "jamba",
    .configure = configure,
};
