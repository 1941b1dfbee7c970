/* tiny.h - comparing a folder of tests/golden with what its goldens.json and goldens.safetensors say.
 *
 * Owns what the programs of the repository's own goldens share: cases under `paper` semantics and its
 * options, and logits of whole prompts. They need no shared data.
 */
#ifndef CT_TESTS_TINY_H
#define CT_TESTS_TINY_H

#include "golden.h"

typedef struct tiny {
    const char *folder; /* of tests/golden */
    ct_model *model;
    const ct_model_info *info;
    ct_session *session;
    golden_file file;
} tiny;

static inline void tiny_open(tiny *f, const char *folder, const char *device,
                             int64_t window_visible)
{
    char path[512];
    *f = (tiny){.folder = folder};
    ct_err err = {0};
    ct_model_options options = {.device = test_device(device),
                                .compute = CT_CHOOSE_F32,
                                .threads = 1,
                                .window_visible = window_visible};
    snprintf(path, sizeof path, CT_SOURCE_DIR "/tests/golden/%s", folder);
    assert_ok(ct_model_open(path, &options, &f->model, &err));
    f->info = ct_model_get_info(f->model);
    assert_ok(ct_session_new(f->model, &f->session, &err));
    snprintf(path, sizeof path, CT_SOURCE_DIR "/tests/golden/%s/goldens.json", folder);
    assert_ok(ct_json_open(path, 1 << 20, &f->file.manifest, &err));
    snprintf(path, sizeof path, CT_SOURCE_DIR "/tests/golden/%s/goldens.safetensors", folder);
    assert_ok(ct_st_open(path, &f->file.tensors, &err));
}

static inline void tiny_close(tiny *f)
{
    golden_close(&f->file);
    ct_session_free(f->session);
    ct_model_close(f->model);
}

static inline const ct_st_tensor *tiny_find(const tiny *f, const char *id, const char *what)
{
    char name[160];
    snprintf(name, sizeof name, "%s.%s", id, what);
    const ct_st_tensor *tensor = ct_st_find(f->file.tensors, name);
    if (!tensor) fail_msg("no tensor %s", name);
    return tensor;
}

static inline double tiny_compare(const char *id, const float *got, const ct_st_tensor *want)
{
    double largest = 0;
    for (int64_t i = 0; i < want->count; i++) {
        float w;
        memcpy(&w, (const char *)want->data + i * (int64_t)sizeof w, sizeof w);
        double diff = fabs((double)w - (double)got[i]);
        if (!(diff <= LOGITS_TOLERANCE))
            fail_msg("%s: element %d: expected %g, got %g", id, (int)i, (double)w, (double)got[i]);
        largest = diff > largest ? diff : largest;
    }
    return largest;
}

/* The manifest's intervention; spans is the caller's room for both stages. */
static inline ct_intervention tiny_intervention(const json_t *from, ct_span (*spans)[GOLDEN_SPANS])
{
    ct_err err = {0};
    ct_intervention iv = {0};
    const json_t *heads = json_object_get(from, "heads");
    if (heads) {
        iv.heads.keep = (int32_t)json_integer_value(json_object_get(heads, "keep"));
        assert_ok(ct_metric_parse(json_string_value(json_object_get(heads, "metric")), "golden",
                                  &iv.heads.metric, &err));
        assert_ok(ct_head_stages_parse(json_string_value(json_object_get(heads, "stages")),
                                       "golden", iv.heads.active, &err));
    }
    for (int s = 0; s < CT_STAGE_COUNT; s++) {
        const json_t *edit =
            json_object_get(json_object_get(from, "weights"), ct_stage_name((ct_stage)s));
        if (!edit) continue;
        iv.weights[s].mode = golden_mode(json_object_get(edit, "mode"));
        iv.weights[s].n_spans = golden_spans(json_object_get(edit, "positions"), spans[s]);
        iv.weights[s].spans = spans[s];
    }
    static const char *const options[] = {"kv_cache", "prefill_window"};
    for (size_t i = 0; i < 2; i++) {
        const char *value = json_string_value(json_object_get(from, options[i]));
        if (value) assert_ok(ct_semantics_set(&iv.semantics, options[i], value, &err));
    }
    return iv;
}

static inline void tiny_compare_cases(const char *folder, const char *device)
{
    ct_err err = {0};
    tiny f;
    tiny_open(&f, folder, device, 0);
    double largest = 0;
    size_t i;
    json_t *test;
    json_array_foreach(json_object_get(f.file.manifest, "cases"), i, test)
    {
        const char *id = json_string_value(json_object_get(test, "id"));
        const char *prompt = json_string_value(json_object_get(test, "prompt"));
        int32_t ids[128], force[16];
        ct_span spans[CT_STAGE_COUNT][GOLDEN_SPANS];
        ct_generate_request r = {.prompt = ids, .force_ids = force, .eos = -1, .keep_logits = true};
        r.prompt_count = golden_ids(
            json_object_get(json_object_get(f.file.manifest, "prompts"), prompt), ids, 128);
        r.force_count = golden_ids(json_object_get(test, "tokens"), force, 16);
        r.max_new_tokens = (int32_t)r.force_count;
        r.intervention = tiny_intervention(json_object_get(test, "intervention"), spans);
        ct_job *job = NULL;
        ct_status st = ct_generate(f.session, &r, &job, &err);
        if (st != CT_OK) fail_msg("%s: %s", id, err.text);
        double diff = tiny_compare(id, ct_job_logits(job), tiny_find(&f, id, "logits"));
        largest = diff > largest ? diff : largest;
        size_t count;
        const int32_t *got = ct_job_ids(job, &count);
        assert_int_equal(count, r.force_count);
        /* Twice the tolerance: closer logits may change places. */
        if (json_real_value(json_object_get(test, "argmax_gap")) > 1e-3)
            assert_memory_equal(got, force, count * sizeof *got);
        const ct_st_tensor *heads = tiny_find(&f, id, "heads");
        if (memcmp(ct_job_heads_kept(job), heads->data, heads->size_bytes) != 0)
            fail_msg("%s: other heads were kept", id);
        ct_job_free(job);
    }
    printf("%s: %s: %zu cases compared; largest difference of a logit %.3g\n", folder, device, i,
           largest);
    assert_true(i > 0);
    tiny_close(&f);
}

static inline void tiny_compare_prompts(const char *folder, const char *device,
                                        int64_t window_visible, const char *what)
{
    ct_err err = {0};
    tiny f;
    tiny_open(&f, folder, device, window_visible);
    const char *name;
    json_t *list;
    double largest = 0;
    json_object_foreach(json_object_get(f.file.manifest, "prompts"), name, list)
    {
        int32_t ids[128];
        int64_t n = (int64_t)golden_ids(list, ids, 128);
        float *logits = malloc((size_t)(n * f.info->vocab) * sizeof *logits);
        assert_non_null(logits);
        ct_sequence *sequence = NULL;
        assert_ok(ct_sequence_new(f.model, &sequence, &err));
        ct_row row = {
            .sequence = sequence, .ids = ids, .count = n, .want = CT_LOGITS_ALL, .logits = logits};
        assert_ok(ct_step(f.session, &row, 1, &err));
        double diff = tiny_compare(name, logits, tiny_find(&f, name, what));
        largest = diff > largest ? diff : largest;
        free(logits);
        ct_sequence_free(sequence);
    }
    printf("%s: %s: %s: largest difference %.3g\n", folder, device, what, largest);
    tiny_close(&f);
}

#endif
