/* test_synth.c - random models: the list of tensors is what opening asks for, and they compute. */
#include "test.h"

#include <math.h>
#include <unistd.h>

#include <cortado/engine.h>

#include "load/synth.h"
#include "model/model.h"

#define CONFIG(folder) CT_SOURCE_DIR "/tests/golden/" folder "/config.json"
static const char config_path[] = CONFIG("tiny-griffin");

static char folder[] = "/tmp/cortado-synth-XXXXXX";

/* Writes a model of the config's kind, of other depth; returns its number of tensors. */
static size_t write_model(const char *config_file, int layers, ct_dtype dtype)
{
    ct_err err = {0};
    json_t *config = NULL;
    ct_synth_tensor *tensors = NULL;
    size_t n = 0;
    char path[64];
    snprintf(path, sizeof path, "%s/source.json", folder);
    assert_ok(ct_config_open(config_file, &config, &err));
    json_object_set_new(config, "num_hidden_layers", json_integer(layers));
    assert_int_equal(json_dump_file(config, path, 0), 0);
    assert_ok(ct_model_synth_tensors(config, path, &tensors, &n, &err));
    assert_ok(ct_synth_write(folder, path, tensors, n, 7, dtype, &err));
    free(tensors);
    json_decref(config);
    return n;
}

/* Logits of a prompt and two more tokens must have a deviation between low and high. */
static void assert_sane(const char *what, int layers, ct_dtype dtype, double low, double high)
{
    ct_err err = {0};
    ct_model *model = NULL;
    ct_session *session = NULL;
    ct_job *job = NULL;
    ct_model_options options = {.device = "cpu", .compute = CT_CHOOSE_F32};
    assert_ok(ct_model_open(folder, &options, &model, &err));
    assert_string_equal(ct_model_get_info(model)->dtype, dtype == CT_F32 ? "f32" : "bf16");
    assert_ok(ct_session_new(model, &session, &err));
    int32_t prompt[65];
    for (int j = 0; j < 65; j++) prompt[j] = (j * 37 + 2) % 97;
    ct_generate_request r = {
        .prompt = prompt, .prompt_count = 65, .max_new_tokens = 3, .eos = -1, .keep_logits = true};
    assert_ok(ct_generate(session, &r, &job, &err));
    double squares = 0;
    int64_t n = 3 * ct_model_get_info(model)->vocab;
    for (int64_t j = 0; j < n; j++)
        squares += (double)ct_job_logits(job)[j] * (double)ct_job_logits(job)[j];
    double deviation = sqrt(squares / (double)n);
    printf("%s, %d layers: deviation of the logits %.2f\n", what, layers, deviation);
    assert_true(deviation > low && deviation < high);
    ct_job_free(job);
    ct_session_free(session);
    ct_model_close(model);
}

static void a_random_model_opens_and_its_logits_stay_sane_at_any_depth(void **state)
{
    (void)state;
    const int layers[] = {3, 27, 60};
    for (int i = 0; i < 6; i++) {
        int n = layers[i / 2], attention = n / 3;
        size_t tensors = write_model(config_path, n, i % 2 ? CT_BF16 : CT_F32);
        /* Top level 2; per layer 2 norms and 6 of the mlp; 13 of a recurrent layer, 5 of attention.
         */
        assert_int_equal(tensors, 2 + 8 * n + 13 * (n - attention) + 5 * attention);
        /* Normed rows times an embedding of rows of length 1: about 1, far from the cap of 30. */
        assert_sane("griffin", n, i % 2 ? CT_BF16 : CT_F32, 0.3, 3);
    }
}

static void a_random_jamba_likewise_with_experts_and_without(void **state)
{
    (void)state;
    const int layers[] = {6, 24, 60};
    for (int i = 0; i < 6; i++) {
        int n = layers[i / 2], attention = n / 3;
        ct_dtype dtype = i % 2 ? CT_BF16 : CT_F32;
        size_t tensors = write_model(CONFIG("tiny-jamba"), n, dtype);
        /* Top level 3; per layer 2 norms; 12 of Mamba, 4 of attention; half the layers have 3 of an
         * mlp, the others those of 4 experts and a router. */
        assert_int_equal(tensors,
                         3 + 2 * n + 12 * (n - attention) + 4 * attention + n / 2 * 3 + n / 2 * 13);
        assert_sane("jamba", n, dtype, 0.3, 3);
        tensors = write_model(CONFIG("tiny-jamba-dense"), n, dtype);
        /* A tied head; biases at Mamba's two projections, none at its convolution. */
        assert_int_equal(tensors, 2 + 2 * n + 13 * (n / 2) + 4 * (n / 2) + 3 * n);
        assert_sane("dense jamba", n, dtype, 0.3, 3);
    }
}

static void a_config_that_cannot_be_opened_lists_nothing(void **state)
{
    (void)state;
    ct_err err = {0};
    json_t *config = NULL;
    ct_synth_tensor *tensors = NULL;
    size_t n = 0;
    assert_ok(ct_config_open(config_path, &config, &err));
    json_object_set_new(config, "hidden_size", json_integer(-1));
    assert_fails(ct_model_synth_tensors(config, "x.json", &tensors, &n, &err), CT_ERR_VALUE,
                 "x.json: hidden_size");
    assert_null(tensors);
    json_decref(config);
}

/* Six tokens of a prompt with their logits, from files or from weights made in memory. */
static ct_job *generate(const char *dir, const char *weights, ct_compute_choice compute,
                        ct_model **model, ct_session **session)
{
    ct_err err = {0};
    ct_job *job = NULL;
    const ct_model_options options = {.device = "cpu", .compute = compute, .weights = weights};
    assert_ok(ct_model_open(dir, &options, model, &err));
    assert_ok(ct_session_new(*model, session, &err));
    static const int32_t prompt[] = {1, 5, 9, 33, 71, 2, 2, 90};
    ct_generate_request r = {
        .prompt = prompt, .prompt_count = 8, .max_new_tokens = 6, .eos = -1, .keep_logits = true};
    assert_ok(ct_generate(*session, &r, &job, &err));
    return job;
}

static void random_weights_are_those_of_a_synth_folder_bit_for_bit(void **state)
{
    (void)state;
    static const char *const configs[] = {CONFIG("tiny-griffin"), CONFIG("tiny-jamba"),
                                          CONFIG("tiny-jamba-dense")};
    static const ct_compute_choice computes[] = {CT_CHOOSE_F32, CT_CHOOSE_BF16};
    for (int i = 0; i < 12; i++) {
        bool f32 = i % 2;
        write_model(configs[i / 4], 6, f32 ? CT_F32 : CT_BF16);
        ct_model *models[2];
        ct_session *sessions[2];
        ct_job *jobs[2];
        jobs[0] = generate(folder, NULL, computes[i / 2 % 2], &models[0], &sessions[0]);
        jobs[1] = generate(folder, f32 ? "random:7:f32" : "random:7", computes[i / 2 % 2],
                           &models[1], &sessions[1]);
        const ct_model_info *a = ct_model_get_info(models[0]), *b = ct_model_get_info(models[1]);
        assert_int_equal(a->parameters, b->parameters);
        assert_int_equal(a->weight_bytes, b->weight_bytes);
        assert_int_equal(a->expert_bytes, b->expert_bytes);
        assert_string_equal(a->dtype, b->dtype);
        assert_string_equal(a->compute, b->compute);
        assert_int_equal(ct_model_get_needs(models[0]).read_per_token,
                         ct_model_get_needs(models[1]).read_per_token);
        assert_memory_equal(ct_job_logits(jobs[0]), ct_job_logits(jobs[1]),
                            6 * (size_t)a->vocab * sizeof(float));
        /* Tensors too, not only what a few tokens see of them. */
        assert_memory_equal(models[0]->embed.data, models[1]->embed.data,
                            (size_t)(models[0]->embed.rows * models[0]->embed.cols) *
                                ct_dtype_bytes(models[0]->embed.dtype));
        for (int64_t l = 0; l < a->layers; l++)
            assert_memory_equal(models[0]->layers[l].ffn_norm, models[1]->layers[l].ffn_norm,
                                (size_t)a->width * sizeof(float));
        for (int m = 0; m < 2; m++) {
            ct_job_free(jobs[m]);
            ct_session_free(sessions[m]);
            ct_model_close(models[m]);
        }
    }
}

/* The text that stands in cell keys for random weights of this config. */
static void describe(const char *dir, const char *weights, char out[128])
{
    ct_err err = {0};
    ct_model *model = NULL;
    const ct_model_options options = {.weights = weights};
    assert_ok(ct_model_describe(dir, &options, &model, &err));
    assert_null(model->embed.data); /* nothing was made */
    assert_ok(ct_model_hash(model, &err));
    snprintf(out, 128, "%s", ct_model_get_info(model)->weights_hash);
    ct_model_close(model);
}

static void the_hash_of_random_weights_names_seed_and_dtype_and_sees_the_config(void **state)
{
    (void)state;
    char a[128], b[128];
    write_model(config_path, 3, CT_F32);
    describe(folder, "random:7", a);
    assert_memory_equal(a, "random:7:bf16:", 14);
    assert_int_equal(strlen(a), 14 + 32);
    describe(folder, "random:7:bf16", b);
    assert_string_equal(a, b);
    describe(folder, "random:8", b);
    assert_string_not_equal(a, b);
    describe(folder, "random:7:f32", b);
    assert_string_not_equal(a, b);
    write_model(config_path, 6, CT_F32);
    describe(folder, "random:7", b);
    assert_string_not_equal(a, b);
}

static void weights_that_are_no_seed_are_refused_with_what_is_expected(void **state)
{
    (void)state;
    static const char *const bad[] = {"random",
                                      "random:",
                                      "random:x",
                                      "random:1:f16",
                                      "random:1x",
                                      "synth:1",
                                      "random:-1",
                                      "random: 1",
                                      "random:18446744073709551616",
                                      ""};
    ct_random_weights how;
    ct_err err = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_fails(ct_random_parse(bad[i], &how, &err), CT_ERR_USAGE, "random:SEED");
    assert_ok(ct_random_parse("random:18446744073709551615", &how, &err));
    assert_true(how.seed == UINT64_MAX && how.dtype == CT_BF16);
}

static int64_t little_memory(const ct_device *device)
{
    (void)device;
    return 100000;
}

static void too_little_memory_is_told_before_anything_is_made(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_model *model = NULL;
    write_model(config_path, 60, CT_F32);
    const ct_model_options options = {.weights = "random:7"};
    assert_ok(ct_model_describe(folder, &options, &model, &err));
    ct_ops small = *model->ops;
    small.host_memory = false;
    small.free_bytes = little_memory;
    small.alloc = NULL; /* not called */
    model->ops = &small;
    ct_matrix matrix = {.dtype = CT_BF16};
    ct_tensor_spec spec = {
        .name = "big", .rank = 2, .shape = {1000, 51}, .scale = 1, .matrix = &matrix};
    const ct_tensor_list list = {.specs = &spec, .n = 1};
    const ct_random_weights how = {.seed = 7, .dtype = CT_BF16};
    assert_fails(ct_random_fill_all(model, &list, &how, &err), CT_ERR_MEMORY,
                 "expected 102400 bytes of free memory"); /* 102000, in whole grains */
    model->ops = ct_ops_cpu();
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
    const char *const names[] = {"source.json", "config.json", "model.safetensors"};
    for (size_t i = 0; i < 3; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_random_model_opens_and_its_logits_stay_sane_at_any_depth),
        cmocka_unit_test(a_random_jamba_likewise_with_experts_and_without),
        cmocka_unit_test(a_config_that_cannot_be_opened_lists_nothing),
        cmocka_unit_test(random_weights_are_those_of_a_synth_folder_bit_for_bit),
        cmocka_unit_test(the_hash_of_random_weights_names_seed_and_dtype_and_sees_the_config),
        cmocka_unit_test(weights_that_are_no_seed_are_refused_with_what_is_expected),
        cmocka_unit_test(too_little_memory_is_told_before_anything_is_made),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
