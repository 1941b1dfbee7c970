/* test_config.c - every field of config.json that a model is built from, and what is refused.
 *
 * Each case changes one field of a good config in a folder without weights: the error must come
 * from the config, name the file and the key, and be found before any weight is opened.
 */
#include "test.h"

#include <jansson.h>
#include <unistd.h>

#include <cortado/engine.h>

#include "model/model.h"

static char folder[] = "/tmp/cortado-config-XXXXXX";

static const char good[] =
    "{\"architectures\": [\"RecurrentGemmaForCausalLM\"], \"model_type\": \"recurrent_gemma\","
    " \"hidden_size\": 48, \"intermediate_size\": 112, \"num_hidden_layers\": 6,"
    " \"num_attention_heads\": 3, \"num_key_value_heads\": 1, \"lru_width\": 60,"
    " \"conv1d_width\": 4, \"attention_window_size\": 16,"
    " \"block_types\": [\"recurrent\", \"recurrent\", \"attention\"], \"vocab_size\": 97,"
    " \"logits_soft_cap\": 30.0, \"rms_norm_eps\": 1e-6, \"rope_theta\": 10000.0,"
    " \"partial_rotary_factor\": 0.5, \"hidden_activation\": \"gelu_pytorch_tanh\","
    " \"tie_word_embeddings\": true, \"bos_token_id\": 2, \"eos_token_id\": 1,"
    " \"pad_token_id\": 0}";

static const char good_jamba[] =
    "{\"architectures\": [\"JambaForCausalLM\"], \"model_type\": \"jamba\", \"hidden_size\": 48,"
    " \"intermediate_size\": 56, \"num_hidden_layers\": 6, \"num_attention_heads\": 4,"
    " \"num_key_value_heads\": 2, \"attn_layer_period\": 3, \"attn_layer_offset\": 1,"
    " \"expert_layer_period\": 2, \"expert_layer_offset\": 1, \"num_experts\": 4,"
    " \"num_experts_per_tok\": 2, \"mamba_d_state\": 16, \"mamba_d_conv\": 4, \"mamba_expand\": 2,"
    " \"mamba_dt_rank\": \"auto\", \"mamba_conv_bias\": true, \"mamba_proj_bias\": false,"
    " \"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-6, \"vocab_size\": 97,"
    " \"sliding_window\": null, \"tie_word_embeddings\": false, \"bos_token_id\": 1,"
    " \"eos_token_id\": 2, \"pad_token_id\": 0}";

/* A good config with one field set to JSON text; NULL removes it. */
static json_t *changed_from(const char *text, const char *key, const char *value)
{
    json_t *config = json_loads(text, 0, NULL);
    assert_non_null(config);
    if (!key) return config;
    if (value) {
        json_t *json = json_loads(value, JSON_DECODE_ANY, NULL);
        assert_non_null(json);
        assert_int_equal(json_object_set_new(config, key, json), 0);
    } else {
        json_object_del(config, key);
    }
    return config;
}

static json_t *changed(const char *key, const char *value)
{
    return changed_from(good, key, value);
}

static ct_status open_config(json_t *config, ct_err *err)
{
    char path[64];
    snprintf(path, sizeof path, "%s/config.json", folder);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    json_decref(config);
    ct_model *model = NULL;
    ct_status st = ct_model_open(folder, NULL, &model, err);
    assert_null(model);
    return st;
}

typedef struct bad_field {
    const char *key, *value;
    ct_status status;
    const char *part;
} bad_field;

static void assert_refused(const char *text, const bad_field *field)
{
    ct_err err = {0};
    assert_fails(open_config(changed_from(text, field->key, field->value), &err), field->status,
                 field->part);
    if (!strstr(err.text, "config.json")) fail_msg("no file in: %s", err.text);
    if (strstr(err.text, "safetensors")) fail_msg("weights were opened: %s", err.text);
}

static void a_bad_field_is_refused_by_file_and_key_before_any_weight_is_opened(void **state)
{
    (void)state;
    static const bad_field cases[] = {
        {"hidden_size", NULL, CT_ERR_NOT_FOUND, "config.json: hidden_size"},
        {"hidden_size", "null", CT_ERR_NOT_FOUND, "config.json: hidden_size"},
        {"hidden_size", "-48", CT_ERR_VALUE, "config.json: hidden_size"},
        {"hidden_size", "0", CT_ERR_VALUE, "config.json: hidden_size"},
        {"hidden_size", "9223372036854775807", CT_ERR_VALUE, "config.json: hidden_size"},
        {"hidden_size", "48.5", CT_ERR_FORMAT, "config.json: hidden_size"},
        {"hidden_size", "\"48\"", CT_ERR_FORMAT, "config.json: hidden_size"},
        {"hidden_size", "50", CT_ERR_VALUE,
         "hidden_size: expected a multiple of num_attention_heads"},
        {"num_hidden_layers", NULL, CT_ERR_NOT_FOUND, "num_hidden_layers"},
        {"num_hidden_layers", "0", CT_ERR_VALUE, "num_hidden_layers"},
        {"num_hidden_layers", "1000000000", CT_ERR_VALUE, "num_hidden_layers"},
        {"num_attention_heads", NULL, CT_ERR_NOT_FOUND, "num_attention_heads"},
        {"num_attention_heads", "0", CT_ERR_VALUE, "num_attention_heads"},
        {"num_attention_heads", "-3", CT_ERR_VALUE, "num_attention_heads"},
        {"num_key_value_heads", "0", CT_ERR_VALUE, "num_key_value_heads"},
        {"num_key_value_heads", "2", CT_ERR_VALUE,
         "expected a multiple of num_key_value_heads = 2"},
        {"head_dim", "32", CT_ERR_UNSUPPORTED,
         "head_dim: expected hidden_size / num_attention_heads"},
        {"intermediate_size", NULL, CT_ERR_NOT_FOUND, "intermediate_size"},
        {"intermediate_size", "113", CT_ERR_VALUE, "intermediate_size: expected a multiple of"},
        {"intermediate_size", "[112]", CT_ERR_FORMAT, "intermediate_size"},
        {"lru_width", "61", CT_ERR_VALUE, "lru_width: expected a multiple of num_attention_heads"},
        {"lru_width", "0", CT_ERR_VALUE, "lru_width"},
        {"conv1d_width", "0", CT_ERR_VALUE, "conv1d_width"},
        {"conv1d_width", "1000", CT_ERR_VALUE, "conv1d_width"},
        {"vocab_size", NULL, CT_ERR_NOT_FOUND, "vocab_size"},
        {"vocab_size", "2147483648", CT_ERR_VALUE, "vocab_size"},
        {"attention_window_size", "0", CT_ERR_VALUE, "attention_window_size"},
        {"attention_window_size", "2147483649", CT_ERR_VALUE, "attention_window_size"},
        {"sliding_window", "17", CT_ERR_VALUE, "attention_window_size and sliding_window"},
        {"block_types", "[]", CT_ERR_FORMAT, "block_types"},
        {"block_types", "\"recurrent\"", CT_ERR_FORMAT, "block_types"},
        {"block_types", "[\"recurrent\", \"mamba\"]", CT_ERR_VALUE,
         "block_types: entry 1: expected \"recurrent\" or \"attention\", got \"mamba\""},
        {"block_types", "[3]", CT_ERR_VALUE, "entry 0"},
        {"_block_types", "[\"attention\"]", CT_ERR_VALUE, "block_types and _block_types: layer 0"},
        {"layer_types", "[\"linear_attention\"]", CT_ERR_VALUE,
         "one entry for each of num_hidden_layers = 6, got 1"},
        {"logits_soft_cap", "-1", CT_ERR_VALUE, "logits_soft_cap"},
        {"rms_norm_eps", "\"small\"", CT_ERR_FORMAT, "rms_norm_eps"},
        {"rope_theta", "0", CT_ERR_VALUE, "rope_theta"},
        {"rope_parameters", "[]", CT_ERR_FORMAT, "rope_parameters"},
        {"rope_parameters", "{\"rope_type\": \"yarn\"}", CT_ERR_UNSUPPORTED, "rope_type"},
        {"partial_rotary_factor", "1.5", CT_ERR_VALUE, "partial_rotary_factor"},
        {"partial_rotary_factor", "0.07", CT_ERR_VALUE, "even number of rotated dimensions, got 1"},
        {"hidden_activation", "\"relu\"", CT_ERR_UNSUPPORTED, "hidden_activation"},
        {"attention_bias", "true", CT_ERR_UNSUPPORTED, "attention_bias"},
        {"tie_word_embeddings", "1", CT_ERR_FORMAT, "tie_word_embeddings"},
        {"eos_token_id", "97", CT_ERR_VALUE, "eos_token_id"},
        {"eos_token_id", "[97]", CT_ERR_VALUE, "eos_token_id"},
        {"eos_token_id", "[]", CT_ERR_FORMAT, "eos_token_id"},
        {"bos_token_id", "-5", CT_ERR_VALUE, "bos_token_id"},
        {"architectures", "[\"LlamaForCausalLM\"]", CT_ERR_UNSUPPORTED,
         "expected one of RecurrentGemmaForCausalLM, JambaForCausalLM (supported), got "
         "\"LlamaForCausalLM\""},
        {"architectures", "[]", CT_ERR_FORMAT, "architectures"},
        {"architectures", "7", CT_ERR_FORMAT, "architectures"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) assert_refused(good, &cases[i]);
}

static void a_bad_field_of_jamba_is_refused_likewise(void **state)
{
    (void)state;
    static const bad_field cases[] = {
        {"hidden_size", NULL, CT_ERR_NOT_FOUND, "hidden_size"},
        {"hidden_size", "-1", CT_ERR_VALUE, "hidden_size"},
        {"hidden_size", "50", CT_ERR_VALUE, "expected a multiple of num_attention_heads = 4"},
        {"num_key_value_heads", "3", CT_ERR_VALUE,
         "expected a multiple of num_key_value_heads = 3"},
        {"num_hidden_layers", "1000000000", CT_ERR_VALUE, "num_hidden_layers"},
        {"intermediate_size", "0", CT_ERR_VALUE, "intermediate_size"},
        {"attn_layer_period", "0", CT_ERR_VALUE, "attn_layer_period"},
        {"attn_layer_offset", "3", CT_ERR_VALUE,
         "attn_layer_offset: expected less than attn_layer_period = 3, got 3"},
        {"attn_layer_offset", "-1", CT_ERR_VALUE, "attn_layer_offset"},
        {"expert_layer_offset", "2", CT_ERR_VALUE,
         "expert_layer_offset: expected less than expert_layer_period = 2, got 2"},
        {"expert_layer_period", "\"2\"", CT_ERR_FORMAT, "expert_layer_period"},
        {"num_experts", "0", CT_ERR_VALUE, "num_experts"},
        {"num_experts", "100000", CT_ERR_VALUE, "num_experts"},
        {"num_experts_per_tok", "5", CT_ERR_VALUE,
         "num_experts_per_tok: expected at most num_experts = 4, got 5"},
        {"num_experts_per_tok", "0", CT_ERR_VALUE, "num_experts_per_tok"},
        {"mamba_d_state", "0", CT_ERR_VALUE, "mamba_d_state"},
        {"mamba_d_conv", "65", CT_ERR_VALUE, "mamba_d_conv"},
        {"mamba_expand", "0", CT_ERR_VALUE, "mamba_expand"},
        {"mamba_expand", "1.5", CT_ERR_FORMAT, "mamba_expand"},
        {"mamba_dt_rank", "\"half\"", CT_ERR_UNSUPPORTED,
         "mamba_dt_rank: expected \"auto\", got \"half\""},
        {"mamba_dt_rank", "0", CT_ERR_VALUE, "mamba_dt_rank"},
        {"mamba_conv_bias", "1", CT_ERR_FORMAT, "mamba_conv_bias"},
        {"hidden_act", "\"gelu\"", CT_ERR_UNSUPPORTED, "hidden_act"},
        {"sliding_window", "4096", CT_ERR_UNSUPPORTED, "sliding_window: expected null"},
        {"rms_norm_eps", "2", CT_ERR_VALUE, "rms_norm_eps"},
        {"vocab_size", NULL, CT_ERR_NOT_FOUND, "vocab_size"},
        {"eos_token_id", "97", CT_ERR_VALUE, "eos_token_id"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) assert_refused(good_jamba, &cases[i]);
}

/* One expert makes every layer dense, however many a token is to take. */
static void what_jamba_may_lack_or_spell_otherwise_reaches_the_weights(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value;
    } cases[] = {
        {NULL, NULL},
        {"num_experts", "1"},
        {"num_experts", NULL},
        {"num_experts_per_tok", NULL},
        {"mamba_dt_rank", "7"},
        {"mamba_dt_rank", NULL},
        {"mamba_conv_bias", "false"},
        {"mamba_proj_bias", "true"},
        {"sliding_window", NULL},
        {"tie_word_embeddings", "true"},
        {"architectures", NULL},
        {"use_mamba_kernels", "true"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_err err = {0};
        assert_fails(open_config(changed_from(good_jamba, cases[i].key, cases[i].value), &err),
                     CT_ERR_NOT_FOUND, "safetensors");
    }
}

static void what_may_be_absent_or_spelt_otherwise_reaches_the_weights(void **state)
{
    (void)state;
    const struct {
        const char *key, *value;
    } cases[] = {
        {NULL, NULL},
        {"lru_width", NULL},
        {"lru_width", "null"},
        {"conv1d_width", NULL},
        {"attention_window_size", NULL},
        {"attention_window_size", "2147483647"},
        {"sliding_window", "16"},
        {"block_types", NULL},
        {"_block_types", "[\"recurrent\", \"recurrent\", \"attention\"]"},
        {"layer_types", "[\"linear_attention\", \"linear_attention\", \"sliding_attention\","
                        " \"linear_attention\", \"linear_attention\", \"sliding_attention\"]"},
        {"rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 500.0}"},
        {"partial_rotary_factor", "0"},
        {"tie_word_embeddings", "false"},
        {"architectures", NULL},
        {"eos_token_id", "[1, 5]"},
        {"eos_token_id", NULL},
        {"an_unknown_key", "{}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_err err = {0};
        assert_fails(open_config(changed(cases[i].key, cases[i].value), &err), CT_ERR_NOT_FOUND,
                     "safetensors");
    }
}

static void without_architectures_and_model_type_the_key_is_named(void **state)
{
    (void)state;
    ct_err err = {0};
    json_t *config = changed("architectures", NULL);
    json_object_del(config, "model_type");
    assert_fails(open_config(config, &err), CT_ERR_NOT_FOUND, "config.json: model_type");
    config = changed("architectures", NULL);
    json_object_set_new(config, "model_type", json_string("gpt2"));
    assert_fails(open_config(config, &err), CT_ERR_UNSUPPORTED, "got \"gpt2\"");
}

static void options_and_devices_that_do_not_exist_are_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_model *model = NULL;
    ct_model_options options = {.device = "tpu"};
    assert_fails(ct_model_open(folder, &options, &model, &err), CT_ERR_USAGE,
                 "device: expected cpu, cuda, cuda:N, cuda:N+M or ref, got \"tpu\"");
    options = (ct_model_options){.threads = -1};
    assert_fails(ct_model_open(folder, &options, &model, &err), CT_ERR_USAGE, "threads");
    options = (ct_model_options){.window_visible = -1};
    assert_fails(ct_model_open(folder, &options, &model, &err), CT_ERR_USAGE, "window_visible");
    assert_fails(ct_model_open("/no/such/folder", NULL, &model, &err), CT_ERR_NOT_FOUND,
                 "/no/such/folder");
}

static void a_vocabulary_other_than_the_embeddings_rows_is_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    char link[64];
    snprintf(link, sizeof link, "%s/model.safetensors", folder);
    assert_int_equal(symlink(CT_SOURCE_DIR "/tests/golden/tiny-griffin/model.safetensors", link),
                     0);
    assert_fails(open_config(changed("vocab_size", "98"), &err), CT_ERR_VALUE,
                 "model.embed_tokens.weight");
    assert_fails(open_config(changed("num_hidden_layers", "7"), &err), CT_ERR_NOT_FOUND,
                 "model.layers.6");
    assert_fails(open_config(changed("tie_word_embeddings", "false"), &err), CT_ERR_NOT_FOUND,
                 "lm_head.weight");
    assert_fails(open_config(changed("num_key_value_heads", NULL), &err), CT_ERR_VALUE, "k_proj");
    assert_int_equal(unlink(link), 0);
}

static void the_tiny_model_is_described_as_it_is(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_model *model = NULL;
    ct_model_options options = {.device = "ref", .compute = CT_CHOOSE_F32, .window_visible = 16};
    assert_ok(ct_model_open(CT_SOURCE_DIR "/tests/golden/tiny-griffin", &options, &model, &err));
    const ct_model_info *info = ct_model_get_info(model);
    assert_string_equal(info->family, "griffin");
    assert_string_equal(info->architecture, "RecurrentGemmaForCausalLM");
    assert_string_equal(info->dtype, "f32");
    assert_string_equal(info->compute, "f32");
    assert_int_equal(strlen(info->weights_hash), 32);
    assert_int_equal(info->layers, 6);
    assert_int_equal(info->attention_layers, 2);
    assert_int_equal(info->recurrent_layers, 4);
    assert_int_equal(info->heads, 3);
    assert_int_equal(info->head_dim, 16);
    assert_int_equal(info->ffn_width, 56);
    assert_int_equal(info->window, 16);
    assert_int_equal(info->bos, 2);
    assert_int_equal(info->eos, 1);
    assert_int_equal(info->pad, 0);
    assert_int_equal(info->weight_bytes, 4 * info->parameters);
    /* sqrt(48) = 6.9282 rounds to 6.9375 in bf16. */
    assert_true(model->embed_scale == 6.9375f);
    ct_model_close(model);
}

static void the_tiny_jamba_is_described_as_it_is(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_model *model = NULL;
    ct_model_options options = {.compute = CT_CHOOSE_F32};
    assert_ok(ct_model_open(CT_SOURCE_DIR "/tests/golden/tiny-jamba", &options, &model, &err));
    const ct_model_info *info = ct_model_get_info(model);
    assert_string_equal(info->family, "jamba");
    assert_string_equal(info->architecture, "JambaForCausalLM");
    assert_int_equal(info->layers, 5);
    assert_int_equal(info->attention_layers, 2);
    assert_int_equal(info->recurrent_layers, 3);
    assert_int_equal(info->heads, 4);
    assert_int_equal(info->kv_heads, 2);
    assert_int_equal(info->head_dim, 8);
    assert_int_equal(info->window, 0);
    assert_int_equal(info->experts, 4);
    assert_int_equal(info->experts_per_token, 2);
    assert_int_equal(info->expert_bytes, 2 * 4 * 3 * 24 * 32 * 4); /* two layers */
    assert_int_equal(info->weight_bytes, 4 * info->parameters);
    /* Of each Mamba layer 64 channels: 16 states and 3 past inputs. */
    assert_int_equal(info->state_bytes_fixed, 3 * 64 * (16 + 3) * 4);
    assert_int_equal(info->state_bytes_per_block, 2 * 2 * 64 * 2 * 8 * 4);
    /* A token reads half of the experts, and one row of the embeddings. */
    ct_model_needs needs = ct_model_get_needs(model);
    assert_int_equal(needs.weights, info->weight_bytes);
    assert_int_equal(needs.read_per_token,
                     info->weight_bytes - info->expert_bytes / 2 - 96 * 32 * 4);
    assert_true(needs.working > 1024 * 97);
    assert_int_equal(ct_model_state_bytes(model, 65),
                     info->state_bytes_fixed + 2 * info->state_bytes_per_block);
    ct_model_close(model);
    assert_ok(
        ct_model_open_unhashed(CT_SOURCE_DIR "/tests/golden/tiny-jamba", &options, &model, &err));
    assert_null(ct_model_get_info(model)->weights_hash);
    assert_ok(ct_model_hash(model, &err));
    assert_int_equal(strlen(ct_model_get_info(model)->weights_hash), 32);
    ct_model_close(model);
    assert_ok(
        ct_model_open(CT_SOURCE_DIR "/tests/golden/tiny-jamba-dense", &options, &model, &err));
    info = ct_model_get_info(model);
    assert_int_equal(info->experts, 0);
    assert_int_equal(info->expert_bytes, 0);
    assert_ptr_equal(model->head.data, model->embed.data); /* tied */
    assert_int_equal(ct_model_get_needs(model).read_per_token, info->weight_bytes);
    ct_model_close(model);
}

static void an_operation_that_a_backend_lacks_is_named_when_a_model_is_opened(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_model *model = NULL;
    assert_ok(ct_model_open(CT_SOURCE_DIR "/tests/golden/tiny-griffin", NULL, &model, &err));
    assert_ok(ct_model_check_ops(model, &err));
    const ct_ops *whole = model->ops;
    ct_ops lacking = *whole;
    model->ops = &lacking;
    lacking.rglru = NULL;
    assert_fails(ct_model_check_ops(model, &err), CT_ERR_UNSUPPORTED,
                 "device cpu: operation rglru, which rglru needs, is missing there");
    lacking = *whole;
    lacking.logits = NULL;
    assert_fails(ct_model_check_ops(model, &err), CT_ERR_UNSUPPORTED, "operation logits");
    model->ops = whole;
    ct_model_close(model);
    assert_ok(ct_model_open(CT_SOURCE_DIR "/tests/golden/tiny-jamba", NULL, &model, &err));
    lacking = *whole;
    model->ops = &lacking;
    lacking.rglru = NULL; /* not its own */
    assert_ok(ct_model_check_ops(model, &err));
    lacking.selective_scan = NULL;
    assert_fails(ct_model_check_ops(model, &err), CT_ERR_UNSUPPORTED,
                 "operation selective_scan, which mamba needs");
    lacking = *whole;
    lacking.route = NULL;
    assert_fails(ct_model_check_ops(model, &err), CT_ERR_UNSUPPORTED,
                 "operation route, which moe needs");
    model->ops = whole;
    ct_model_close(model);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char path[64];
    snprintf(path, sizeof path, "%s/config.json", folder);
    unlink(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_bad_field_is_refused_by_file_and_key_before_any_weight_is_opened),
        cmocka_unit_test(what_may_be_absent_or_spelt_otherwise_reaches_the_weights),
        cmocka_unit_test(a_bad_field_of_jamba_is_refused_likewise),
        cmocka_unit_test(what_jamba_may_lack_or_spell_otherwise_reaches_the_weights),
        cmocka_unit_test(without_architectures_and_model_type_the_key_is_named),
        cmocka_unit_test(options_and_devices_that_do_not_exist_are_refused),
        cmocka_unit_test(a_vocabulary_other_than_the_embeddings_rows_is_refused),
        cmocka_unit_test(the_tiny_model_is_described_as_it_is),
        cmocka_unit_test(the_tiny_jamba_is_described_as_it_is),
        cmocka_unit_test(an_operation_that_a_backend_lacks_is_named_when_a_model_is_opened),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
