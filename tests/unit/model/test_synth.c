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
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
