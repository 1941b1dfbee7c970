/* test_hidden.c - the hidden states of whole prompts against the published code's, on tiny random models: the
 * embedding, the output of every layer, and of the final norm.
 */
#include "golden.h"

#include "model/model.h"

/* As the data's notes suggest. Between f32 and f64 they differ by up to 7e-5 (RecurrentGemma) and 1.3e-4 (Jamba), at
 * sizes up to some tens; a wrong layer moves them by 0.01 and more. */
#define HIDDEN_TOLERANCE 1e-3

typedef struct seen {
    const ct_st_tensor *want; /* [layers + 2, T, E] */
    const char *id;
    int64_t layers, compared; /* of the model; states */
    double largest;
} seen;

/* Places 2 i are states: the embedding, the outputs of the layers; 2 layers + 1 is the final norm's. */
static ct_status see(void *user, int64_t place, const float *x, int64_t tokens, ct_err *err)
{
    (void)err;
    seen *s = user;
    int64_t T = s->want->shape[1], E = s->want->shape[2];
    if (place % 2 == 1 && place < 2 * s->layers) return CT_OK;
    int64_t state = (place + 1) / 2;
    assert_int_equal(tokens, T);
    for (int64_t i = 0; i < T * E; i++) {
        double want = golden_element(s->want, state * T * E + i);
        double diff = fabs(want - (double)x[i]);
        if (!(diff <= HIDDEN_TOLERANCE))
            fail_msg("%s: state %d, token %d, element %d: expected %g, got %g", s->id, (int)state,
                     (int)(i / E), (int)(i % E), want, (double)x[i]);
        s->largest = fmax(s->largest, diff);
    }
    s->compared++;
    return CT_OK;
}

static void compare(const char *folder, const char *device)
{
    ct_err err = {0};
    ct_model *model = golden_model(folder, device);
    const ct_model_info *info = ct_model_get_info(model);
    ct_session *session = NULL;
    assert_ok(ct_session_new(model, &session, &err));
    golden_file file = golden_open_in(folder, "goldens");
    float *logits = malloc((size_t)(256 * info->vocab) * sizeof *logits);
    assert_non_null(logits);
    size_t i;
    int prompts = 0;
    double largest = 0;
    json_t *test;
    json_array_foreach(json_object_get(file.manifest, "cases"), i, test)
    {
        golden_request g;
        seen s = {.want = golden_tensor(&file, test, "hidden"),
                  .id = json_string_value(json_object_get(test, "id")),
                  .layers = info->layers};
        /* A device's memory cannot be looked into from here. */
        if (!s.want || !model->ops->host_memory) continue;
        golden_read(&file, test, info->family, &g);
        assert_int_equal(s.want->shape[0], info->layers + 2);
        assert_int_equal(s.want->shape[1], g.request.prompt_count);
        ct_session_watch(session, (ct_watch){see, &s});
        ct_sequence *sequence = NULL;
        assert_ok(ct_sequence_new(model, &sequence, &err));
        ct_row row = {.sequence = sequence,
                      .ids = g.prompt,
                      .count = (int64_t)g.request.prompt_count,
                      .want = CT_LOGITS_ALL,
                      .logits = logits};
        assert_ok(ct_step(session, &row, 1, &err));
        assert_int_equal(s.compared, info->layers + 2);
        ct_sequence_free(sequence);
        largest = fmax(largest, s.largest);
        prompts++;
    }
    printf("%s: %s: %d prompts; largest difference of a hidden state %.3g\n", folder, device,
           prompts, largest);
    assert_true(prompts == 2 || !model->ops->host_memory);
    free(logits);
    golden_close(&file);
    ct_session_free(session);
    ct_model_close(model);
}

static void every_layer_of_recurrentgemma_gives_the_published_codes_states(void **state)
{
    (void)state;
    compare("data/goldens/recurrentgemma-tiny", "ref");
    compare("data/goldens/recurrentgemma-tiny", "cpu");
}

static void every_layer_of_jamba_gives_the_published_codes_states(void **state)
{
    (void)state;
    compare("data/goldens/jamba-tiny", "ref");
    compare("data/goldens/jamba-tiny", "cpu");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer_of_recurrentgemma_gives_the_published_codes_states),
        cmocka_unit_test(every_layer_of_jamba_gives_the_published_codes_states),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
