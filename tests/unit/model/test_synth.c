/* test_synth.c - random models: the list of tensors is what opening asks for, and they compute. */
#include "test.h"

#include <math.h>
#include <unistd.h>

#include <cortado/engine.h>

#include "load/synth.h"
#include "model/model.h"

static const char config_path[] = CT_SOURCE_DIR "/tests/golden/tiny-griffin/config.json";

static char folder[] = "/tmp/cortado-synth-XXXXXX";

static void write_model(int layers, ct_dtype dtype)
{
    ct_err err = {0};
    json_t *config = NULL;
    ct_synth_tensor *tensors = NULL;
    size_t n = 0;
    char path[64];
    snprintf(path, sizeof path, "%s/source.json", folder);
    assert_ok(ct_config_open(config_path, &config, &err));
    json_object_set_new(config, "num_hidden_layers", json_integer(layers));
    assert_int_equal(json_dump_file(config, path, 0), 0);
    assert_ok(ct_model_synth_tensors(config, path, &tensors, &n, &err));
    /* Top level 2; per layer 2 norms and 6 of the mlp; 13 of a recurrent layer, 5 of attention. */
    int attention = layers / 3;
    assert_int_equal(n, 2 + 8 * layers + 13 * (layers - attention) + 5 * attention);
    assert_ok(ct_synth_write(folder, path, tensors, n, 7, dtype, &err));
    free(tensors);
    json_decref(config);
}

static void a_random_model_opens_and_its_logits_stay_sane_at_any_depth(void **state)
{
    (void)state;
    const int layers[] = {3, 27, 60};
    for (size_t i = 0; i < 3; i++)
        for (int dtype = 0; dtype < 2; dtype++) {
            ct_err err = {0};
            ct_model *model = NULL;
            ct_session *session = NULL;
            ct_job *job = NULL;
            write_model(layers[i], dtype ? CT_BF16 : CT_F32);
            ct_model_options options = {.device = "cpu", .compute = CT_CHOOSE_F32};
            assert_ok(ct_model_open(folder, &options, &model, &err));
            assert_string_equal(ct_model_get_info(model)->dtype, dtype ? "bf16" : "f32");
            assert_ok(ct_session_new(model, &session, &err));
            int32_t prompt[65];
            for (int j = 0; j < 65; j++) prompt[j] = (j * 37 + 2) % 97;
            ct_generate_request r = {.prompt = prompt,
                                     .prompt_count = 65,
                                     .max_new_tokens = 3,
                                     .eos = -1,
                                     .keep_logits = true};
            assert_ok(ct_generate(session, &r, &job, &err));
            double squares = 0;
            int64_t n = 3 * ct_model_get_info(model)->vocab;
            for (int64_t j = 0; j < n; j++)
                squares += (double)ct_job_logits(job)[j] * (double)ct_job_logits(job)[j];
            double deviation = sqrt(squares / (double)n);
            printf("%d layers: deviation of the logits %.2f\n", layers[i], deviation);
            /* Normed rows times an embedding of rows of length 1: about 1, far from the cap of 30.
             */
            assert_true(deviation > 0.3 && deviation < 3);
            ct_job_free(job);
            ct_session_free(session);
            ct_model_close(model);
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
        cmocka_unit_test(a_config_that_cannot_be_opened_lists_nothing),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
