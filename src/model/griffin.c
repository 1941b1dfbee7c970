/* griffin.c - Griffin (De et al. 2024) as RecurrentGemma ships it.
 *
 * Owns its config.json keys, its tensor names and its layer pattern: RG-LRU layers and layers of
 * local attention, each followed by a gated MLP. Names and defaults are those of the Hugging Face
 * files; docs/semantics.md has the equations.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "model/arch.h"

typedef struct griffin {
    int64_t width, layers, heads, kv_heads, head_dim, lru_width, mlp_width, vocab, taps;
    bool tied;
} griffin;

/* s = sqrt(E) rounded to bf16: DeepMind's code computes the factor in bf16 whatever the dtype. */
static float embed_scale(int64_t width)
{
    uint32_t bits = (uint32_t)ct_f32_to_bf16((float)sqrt((double)width)) << 16;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return scale;
}

/* ---- layer pattern --------------------------------------------------------------------------- */

/* One spelling of the pattern. A repeating list (block_types, _block_types) or one entry a layer
 * (layer_types, as transformers 5 names them). */
typedef struct pattern_key {
    const char *key, *recurrent, *attention;
    bool repeats;
} pattern_key;

static const pattern_key pattern_keys[] = {
    {"block_types", "recurrent", "attention", true},
    {"_block_types", "recurrent", "attention", true},
    {"layer_types", "linear_attention", "sliding_attention", false},
};

/* attends[i] from one spelling. */
static ct_status read_pattern(const pattern_key *spelling, const json_t *list, int64_t layers,
                              bool *attends, const char *where, ct_err *err)
{
    if (!json_is_array(list) || json_array_size(list) == 0)
        return ct_fail(err, CT_ERR_FORMAT,
                       "%s: %s: expected a list of layer types that is not empty", where,
                       spelling->key);
    int64_t size = (int64_t)json_array_size(list);
    if (!spelling->repeats && size != layers)
        return ct_fail(err, CT_ERR_VALUE,
                       "%s: %s: expected one entry for each of num_hidden_layers = %" PRId64
                       ", got %" PRId64,
                       where, spelling->key, layers, size);
    for (int64_t i = 0; i < size; i++) {
        const char *type = json_string_value(json_array_get(list, (size_t)i));
        bool attention = type && strcmp(type, spelling->attention) == 0;
        if (!attention && !(type && strcmp(type, spelling->recurrent) == 0))
            return ct_fail(err, CT_ERR_VALUE,
                           "%s: %s: entry %" PRId64 ": expected \"%s\" or \"%s\", got %s%s%s",
                           where, spelling->key, i, spelling->recurrent, spelling->attention,
                           type ? "\"" : "", type ? type : "something that is not text",
                           type ? "\"" : "");
        for (int64_t l = i; l < layers; l += size) attends[l] = attention;
    }
    return CT_OK;
}

/* The pattern from whichever spellings are there (they must agree); recurrent, recurrent, attention
 * where none is. */
static ct_status configure_pattern(const json_t *config, int64_t layers, bool *attends, bool *other,
                                   const char *where, ct_err *err)
{
    const char *seen = NULL;
    for (int64_t i = 0; i < layers; i++) attends[i] = i % 3 == 2;
    for (size_t k = 0; k < sizeof pattern_keys / sizeof *pattern_keys; k++) {
        const json_t *list = json_object_get(config, pattern_keys[k].key);
        if (!list || json_is_null(list)) continue;
        ct_status st =
            read_pattern(&pattern_keys[k], list, layers, seen ? other : attends, where, err);
        if (st != CT_OK) return st;
        for (int64_t i = 0; seen && i < layers; i++)
            if (attends[i] != other[i])
                return ct_fail(err, CT_ERR_VALUE,
                               "%s: %s and %s: layer %" PRId64 " differs between them", where, seen,
                               pattern_keys[k].key, i);
        if (!seen) seen = pattern_keys[k].key;
    }
    return CT_OK;
}

/* ---- config.json ----------------------------------------------------------------------------- */

static ct_status configure_window(ct_model *model, const json_t *config, const char *where,
                                  ct_err *err)
{
    ct_status st = CT_OK;
    int64_t window = 2048, sliding = 0;
    CT_TRY(ct_json_int(config, "sliding_window", false, 1, INT32_MAX, where, &sliding, err));
    if (sliding) window = sliding;
    CT_TRY(ct_json_int(config, "attention_window_size", false, 1, INT32_MAX, where, &window, err));
    if (sliding && sliding != window)
        CT_TRY(
            ct_fail(err, CT_ERR_VALUE,
                    "%s: attention_window_size and sliding_window: expected the same, got %" PRId64
                    " and %" PRId64,
                    where, window, sliding));
    model->window = window;
done:
    return st;
}

/* rope_theta and partial_rotary_factor, at the top or (transformers 5) in rope_parameters. */
static ct_status configure_rope(ct_model *model, const json_t *config, int64_t head_dim,
                                const char *where, ct_err *err)
{
    ct_status st = CT_OK;
    double theta = 10000, factor = 0.5;
    const char *type = "default";
    const json_t *rope = json_object_get(config, "rope_parameters");
    if (rope && !json_is_null(rope)) {
        if (!json_is_object(rope))
            CT_TRY(ct_fail(err, CT_ERR_FORMAT, "%s: rope_parameters: expected an object", where));
        CT_TRY(ct_json_text(rope, "rope_type", false, where, &type, err));
        CT_TRY(ct_json_real(rope, "rope_theta", false, 1, 1e12, where, &theta, err));
        CT_TRY(ct_json_real(rope, "partial_rotary_factor", false, 0, 1, where, &factor, err));
    }
    if (strcmp(type, "default") != 0)
        CT_TRY(ct_fail(err, CT_ERR_UNSUPPORTED,
                       "%s: rope_parameters: rope_type: expected \"default\", got \"%s\"", where,
                       type));
    CT_TRY(ct_json_real(config, "rope_theta", false, 1, 1e12, where, &theta, err));
    CT_TRY(ct_json_real(config, "partial_rotary_factor", false, 0, 1, where, &factor, err));
    model->rope_theta = (float)theta;
    model->rotary = (int64_t)((double)head_dim * factor);
    if (model->rotary % 2 != 0)
        CT_TRY(ct_fail(err, CT_ERR_VALUE,
                       "%s: partial_rotary_factor: expected an even number of rotated dimensions, "
                       "got %" PRId64 " of %" PRId64,
                       where, model->rotary, head_dim));
done:
    return st;
}

/* The numbers, each in a range in which products of three of them stay within 63 bits. */
static ct_status configure_sizes(griffin *g, ct_model *model, const json_t *config,
                                 const char *where, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t inner = 0, head_dim = 0;
    double eps = 1e-6, cap = 30;
    CT_TRY(ct_json_int(config, "hidden_size", true, 1, CT_ARCH_WIDTH_MAX, where, &g->width, err));
    CT_TRY(ct_json_int(config, "num_hidden_layers", true, 1, CT_ARCH_LAYERS_MAX, where, &g->layers,
                       err));
    CT_TRY(ct_json_int(config, "num_attention_heads", true, 1, CT_ARCH_HEADS_MAX, where, &g->heads,
                       err));
    CT_TRY(ct_json_int(config, "intermediate_size", true, 2, 2 * CT_ARCH_WIDTH_MAX, where, &inner,
                       err));
    CT_TRY(ct_json_int(config, "vocab_size", true, 1, CT_ARCH_VOCAB_MAX, where, &g->vocab, err));
    CT_TRY(ct_arch_divides(g->width, "hidden_size", g->heads, "num_attention_heads", where, err));
    g->head_dim = head_dim = g->width / g->heads;
    CT_TRY(ct_json_int(config, "head_dim", false, 1, CT_ARCH_WIDTH_MAX, where, &head_dim, err));
    if (head_dim != g->head_dim)
        CT_TRY(ct_fail(err, CT_ERR_UNSUPPORTED,
                       "%s: head_dim: expected hidden_size / num_attention_heads = %" PRId64
                       ", got %" PRId64,
                       where, g->head_dim, head_dim));
    /* transformers' default where the key is absent; every published file gives 1. */
    g->kv_heads = g->heads;
    CT_TRY(ct_json_int(config, "num_key_value_heads", false, 1, CT_ARCH_HEADS_MAX, where,
                       &g->kv_heads, err));
    CT_TRY(ct_arch_divides(g->heads, "num_attention_heads", g->kv_heads, "num_key_value_heads",
                           where, err));
    g->lru_width = g->width;
    CT_TRY(
        ct_json_int(config, "lru_width", false, 1, CT_ARCH_WIDTH_MAX, where, &g->lru_width, err));
    CT_TRY(ct_arch_divides(g->lru_width, "lru_width", g->heads, "num_attention_heads", where, err));
    /* The file counts the gate's and the up projection's widths together. */
    CT_TRY(ct_arch_divides(inner, "intermediate_size", 2, "two halves", where, err));
    g->mlp_width = inner / 2;
    g->taps = 4;
    CT_TRY(ct_json_int(config, "conv1d_width", false, 1, CT_ARCH_TAPS_MAX, where, &g->taps, err));
    CT_TRY(ct_json_real(config, "rms_norm_eps", false, 0, 1, where, &eps, err));
    CT_TRY(ct_json_real(config, "logits_soft_cap", false, 0, 1e6, where, &cap, err));
    g->tied = true;
    CT_TRY(ct_json_bool(config, "tie_word_embeddings", false, where, &g->tied, err));
    model->norm_eps = (float)eps;
    model->norm_offset = 1; /* weights are stored as offsets from 1 */
    model->logits_soft_cap = (float)cap;
    model->embed_scale = embed_scale(g->width);
done:
    return st;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static ct_status rglru_tensors(const griffin *g, const ct_layer *layer, ct_mixer_rglru *m,
                               ct_tensor_list *list, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t d = g->width, r = g->lru_width, b = g->heads, n = r / b;
    m->cell.width = r;
    m->cell.taps = g->taps;
    m->cell.blocks = b;
    CT_MATRIX("temporal_block.linear_x.weight", &m->linear_x, d, r, d);
    CT_VECTOR("temporal_block.linear_x.bias", &m->linear_x_bias, 0.05f, 0, r);
    CT_MATRIX("temporal_block.linear_y.weight", &m->linear_y, d, r, d);
    CT_VECTOR("temporal_block.linear_y.bias", &m->linear_y_bias, 0.05f, 0, r);
    CT_MATRIX("temporal_block.linear_out.weight", &m->linear_out, r, d, r);
    CT_VECTOR("temporal_block.linear_out.bias", &m->linear_out_bias, 0.05f, 0, d);
    CT_VECTOR("temporal_block.conv_1d.weight", &m->cell.conv, 0.5f, 0, r, 1, g->taps);
    CT_VECTOR("temporal_block.conv_1d.bias", &m->cell.conv_bias, 0.05f, 0, r);
    /* softplus(-4.4) = 0.0122 and gates around 1/2 forget with a = exp(-8 * 0.5 * 0.0122), about
     * 0.95. */
    CT_VECTOR("temporal_block.rg_lru.recurrent_param", &m->cell.param, 1.0f, -4.4f, r);
    CT_MATRIX("temporal_block.rg_lru.input_gate_weight", &m->cell.gate_x, n, b, n, n);
    CT_VECTOR("temporal_block.rg_lru.input_gate_bias", &m->cell.gate_x_bias, 0.1f, 0, b, n);
    CT_MATRIX("temporal_block.rg_lru.recurrent_gate_weight", &m->cell.gate_a, n, b, n, n);
    CT_VECTOR("temporal_block.rg_lru.recurrent_gate_bias", &m->cell.gate_a_bias, 0.1f, 0, b, n);
done:
    return st;
}

static ct_status attention_tensors(const griffin *g, const ct_layer *layer, ct_mixer_attention *m,
                                   ct_tensor_list *list, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t d = g->width, kv = g->kv_heads * g->head_dim;
    CT_MATRIX("temporal_block.q_proj.weight", &m->q, d, d, d);
    CT_MATRIX("temporal_block.k_proj.weight", &m->k, d, kv, d);
    CT_MATRIX("temporal_block.v_proj.weight", &m->v, d, kv, d);
    CT_MATRIX("temporal_block.o_proj.weight", &m->o, d, d, d);
    CT_VECTOR("temporal_block.o_proj.bias", &m->o_bias, 0.05f, 0, d);
done:
    return st;
}

static ct_status mlp_tensors(const griffin *g, const ct_layer *layer, ct_mlp *m,
                             ct_tensor_list *list, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t d = g->width, f = g->mlp_width;
    CT_MATRIX("mlp_block.gate_proj.weight", &m->gate, d, f, d);
    CT_VECTOR("mlp_block.gate_proj.bias", &m->gate_bias, 0.05f, 0, f);
    CT_MATRIX("mlp_block.up_proj.weight", &m->up, d, f, d);
    CT_VECTOR("mlp_block.up_proj.bias", &m->up_bias, 0.05f, 0, f);
    CT_MATRIX("mlp_block.down_proj.weight", &m->down, f, d, f);
    CT_VECTOR("mlp_block.down_proj.bias", &m->down_bias, 0.05f, 0, d);
done:
    return st;
}

static ct_status configure_layer(const griffin *g, ct_model *model, ct_layer *layer, bool attends,
                                 ct_tensor_list *list, ct_err *err)
{
    ct_status st = CT_OK;
    ct_mlp *mlp = ct_model_alloc(model, sizeof *mlp, err);
    if (!mlp) return CT_ERR_MEMORY;
    mlp->activation = CT_GELU;
    layer->ffn_kind = &ct_kind_mlp;
    layer->ffn = mlp;
    CT_VECTOR("temporal_pre_norm.weight", &layer->mixer_norm, 0.1f, 0, g->width);
    if (attends) {
        ct_mixer_attention *m = ct_model_alloc(model, sizeof *m, err);
        if (!m) return CT_ERR_MEMORY;
        layer->mixer_kind = &ct_kind_attention;
        layer->mixer = m;
        CT_TRY(attention_tensors(g, layer, m, list, err));
    } else {
        ct_mixer_rglru *m = ct_model_alloc(model, sizeof *m, err);
        if (!m) return CT_ERR_MEMORY;
        layer->mixer_kind = &ct_kind_rglru;
        layer->mixer = m;
        layer->state_floats = ct_rglru_state_floats(g->lru_width, g->taps);
        CT_TRY(rglru_tensors(g, layer, m, list, err));
    }
    CT_VECTOR("channel_pre_norm.weight", &layer->ffn_norm, 0.1f, 0, g->width);
    CT_TRY(mlp_tensors(g, layer, mlp, list, err));
done:
    return st;
}

static ct_status configure(ct_model *model, const json_t *config, const char *where,
                           ct_tensor_list *list, ct_err *err)
{
    ct_status st = CT_OK;
    griffin g = {0};
    bool *attends = NULL, scaled = true;
    const ct_layer *layer = NULL; /* CT_MATRIX and CT_VECTOR name top-level tensors with it */
    CT_TRY(configure_sizes(&g, model, config, where, err));
    CT_TRY(configure_window(model, config, where, err));
    CT_TRY(configure_rope(model, config, g.head_dim, where, err));
    CT_TRY(ct_arch_text(config, "hidden_activation", "gelu_pytorch_tanh", where, err));
    CT_TRY(ct_arch_only(config, "attention_bias", false, where, err));
    CT_TRY(ct_json_bool(config, "embeddings_scale_by_sqrt_dim", false, where, &scaled, err));
    if (!scaled) model->embed_scale = 1;
    attends = calloc((size_t)g.layers, 2 * sizeof *attends);
    if (!attends) CT_TRY(ct_fail_memory(err, "layer pattern", (size_t)g.layers * 2));
    CT_TRY(configure_pattern(config, g.layers, attends, attends + g.layers, where, err));

    model->info.layers = g.layers;
    model->info.heads = g.heads;
    model->info.kv_heads = g.kv_heads;
    model->info.head_dim = g.head_dim;
    model->info.width = g.width;
    model->info.ffn_width = g.mlp_width;
    model->info.vocab = g.vocab;
    model->layers = ct_model_alloc(model, (size_t)g.layers * sizeof *model->layers, err);
    if (!model->layers) CT_TRY(CT_ERR_MEMORY);

    /* Embeddings are drawn small, because the same matrix makes the logits from normed rows. */
    CT_MATRIX("model.embed_tokens.weight", &model->embed, g.width, g.vocab, g.width);
    CT_VECTOR("model.final_norm.weight", &model->final_norm, 0.1f, 0, g.width);
    if (!g.tied) CT_MATRIX("lm_head.weight", &model->head, g.width, g.vocab, g.width);
    for (int64_t i = 0; i < g.layers; i++) {
        model->layers[i].index = i;
        CT_TRY(configure_layer(&g, model, &model->layers[i], attends[i], list, err));
    }
done:
    free(attends);
    return st;
}

const ct_arch ct_arch_griffin = {
    .family = "griffin",
    .architecture = "RecurrentGemmaForCausalLM",
    .model_type = "recurrent_gemma",
    .configure = configure,
};
