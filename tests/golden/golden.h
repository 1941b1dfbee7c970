/* golden.h - reading a golden manifest and comparing a generated job with it.
 *
 * Owns what the golden programs share: the manifest's cases as requests under `reference`
 * semantics, teacher forcing, and the comparison of logits, tokens and heads.
 */
#ifndef CT_TESTS_GOLDEN_H
#define CT_TESTS_GOLDEN_H

#include "test.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>

#include <cortado/engine.h>

#include "io/json.h"
#include "io/safetensors.h"

enum { GOLDEN_TOKENS = 12, GOLDEN_SPANS = 16, GOLDEN_PREFILLS = 128 };

/* Agreed between implementations: f32 against f64 differ by at most 7e-5 in logits (std 2.2), an
 * independent float64 program by 6.2e-5; a wrong mask, head or position moves them by 0.01 and
 * more.
 */
#define LOGITS_TOLERANCE 5e-4

typedef struct golden_file {
    json_t *manifest;
    ct_st_file *tensors;
} golden_file;

typedef struct golden_tally {
    int compared, tokens_compared, heads_compared, left_out;
    double largest;
    char largest_case[128];
} golden_tally;

static inline golden_file golden_open(const char *manifest, const char *tensors)
{
    ct_err err = {0};
    golden_file file = {0};
    const char *json_path = shared_path(manifest), *st_path = shared_path(tensors);
    if (!json_path || !st_path) skip_program(manifest);
    assert_ok(ct_json_open(json_path, 64 << 20, &file.manifest, &err));
    assert_ok(ct_st_open(st_path, &file.tensors, &err));
    return file;
}

static inline void golden_close(golden_file *file)
{
    json_decref(file->manifest);
    ct_st_close(file->tensors);
}

static inline const ct_st_tensor *golden_tensor(const golden_file *file, const json_t *test,
                                                const char *what)
{
    const char *name = json_string_value(json_object_get(json_object_get(test, "tensors"), what));
    return name ? ct_st_find(file->tensors, name) : NULL;
}

static inline double golden_element(const ct_st_tensor *tensor, int64_t i)
{
    float x;
    memcpy(&x, (const char *)tensor->data + i * (int64_t)sizeof x, sizeof x);
    return (double)x;
}

static inline size_t golden_ids(const json_t *list, int32_t *ids, size_t max)
{
    size_t n = json_array_size(list);
    assert_true(n <= max);
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return n;
}

/* A sorted list of positions as spans. */
static inline size_t golden_spans(const json_t *list, ct_span *spans)
{
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        int64_t p = json_integer_value(json_array_get(list, i));
        if (n > 0 && spans[n - 1].end == p) spans[n - 1].end++;
        else {
            assert_true(n < GOLDEN_SPANS);
            spans[n++] = (ct_span){p, p + 1};
        }
    }
    return n;
}

static inline ct_weights_mode golden_mode(const json_t *name)
{
    ct_err err = {0};
    ct_weights_mode mode = CT_WEIGHTS_KEEP;
    const char *text = json_string_value(name);
    assert_non_null(text);
    if (strcmp(text, "balanced") == 0) text = "binary";
    assert_ok(ct_weights_mode_parse(text, "golden", &mode, &err));
    return mode;
}

/* A case as a request; prompt and spans are the caller's room. */
typedef struct golden_request {
    ct_generate_request request;
    int32_t prompt[256], force[GOLDEN_TOKENS];
    ct_span spans[CT_STAGE_COUNT][GOLDEN_SPANS];
} golden_request;

static inline void golden_read(const golden_file *file, const json_t *test, const char *family,
                               golden_request *out)
{
    ct_err err = {0};
    *out = (golden_request){0};
    ct_generate_request *r = &out->request;
    const json_t *prompt = json_object_get(json_object_get(file->manifest, "prompts"),
                                           json_string_value(json_object_get(test, "prompt")));
    r->prompt = out->prompt;
    r->prompt_count = golden_ids(json_object_get(prompt, "ids"), out->prompt, 256);
    r->force_ids = out->force;
    r->force_count = golden_ids(json_object_get(test, "tokens"), out->force, GOLDEN_TOKENS);
    r->max_new_tokens = GOLDEN_TOKENS;
    r->eos = -1;
    r->keep_logits = true;
    assert_ok(ct_semantics_parse("reference", family, &r->intervention.semantics, &err));
    const json_t *heads = json_object_get(test, "topk");
    if (json_is_object(heads)) {
        ct_head_selection *to = &r->intervention.heads;
        to->keep = (int32_t)json_integer_value(json_object_get(heads, "k"));
        to->active[CT_STAGE_PREFILL] = json_is_true(json_object_get(heads, "prefill"));
        to->active[CT_STAGE_GENERATION] = true;
        assert_ok(ct_metric_parse(json_string_value(json_object_get(heads, "metric")), "golden",
                                  &to->metric, &err));
    }
    const json_t *edit = json_object_get(test, "manipulation");
    if (json_is_object(edit)) {
        static const char *const modes[] = {"prefill", "gen"};
        static const char *const needles[] = {"prefill_needle", "needle"};
        for (int s = 0; s < CT_STAGE_COUNT; s++) {
            ct_weight_edit *to = &r->intervention.weights[s];
            to->mode = golden_mode(json_object_get(edit, modes[s]));
            to->n_spans = golden_spans(json_object_get(edit, needles[s]), out->spans[s]);
            to->spans = out->spans[s];
        }
    }
}

static inline bool golden_fragile(const json_t *test, const char *what)
{
    const json_t *list = json_object_get(test, "fragile");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (strstr(json_string_value(json_array_get(list, i)), what)) return true;
    return false;
}

/* Heads chosen in prefill with 0 < k < H, ties as torch.topk broke them: not to be matched. */
static inline bool golden_has_torch_ties(const json_t *test, int64_t heads)
{
    const json_t *topk = json_object_get(test, "topk");
    int64_t k = json_integer_value(json_object_get(topk, "k"));
    return json_is_true(json_object_get(topk, "prefill")) && k > 0 && k < heads &&
           !strstr(json_string_value(json_object_get(test, "id")), ".lowtie");
}

/* The heads kept at each generation step, as sets, against topk_gen [steps, attention layers, k].
 * The steps are the last ones: where the first token comes from prefill it has none. */
static inline void golden_compare_heads(const ct_job *job, const ct_model_info *info,
                                        const ct_st_tensor *want, const char *id)
{
    const uint8_t *kept = ct_job_heads_kept(job);
    int64_t k = want->shape[2], first = GOLDEN_TOKENS - want->shape[0];
    assert_true(first >= 0);
    kept += first * info->attention_layers * info->heads;
    for (int64_t i = 0; i < want->shape[0]; i++)
        for (int64_t l = 0; l < info->attention_layers; l++) {
            const uint8_t *row = kept + (i * info->attention_layers + l) * info->heads;
            int64_t n = 0;
            for (int64_t h = 0; h < info->heads; h++) n += row[h];
            if (n != k) fail_msg("%s: step %d: %d heads kept", id, (int)i, (int)n);
            for (int64_t j = 0; j < k; j++) {
                int32_t h;
                memcpy(&h,
                       (const char *)want->data +
                           ((i * info->attention_layers + l) * k + j) * (int64_t)sizeof h,
                       sizeof h);
                if (!row[h])
                    fail_msg("%s: step %d, attention layer %d: head %d not kept", id, (int)i,
                             (int)l, (int)h);
            }
        }
}

/* Prefills that cases share, so that a slow backend computes each once. */
typedef struct golden_prefills {
    golden_request *requests[GOLDEN_PREFILLS];
    ct_job *jobs[GOLDEN_PREFILLS];
    size_t n;
} golden_prefills;

static inline void golden_prefills_clear(golden_prefills *shared)
{
    for (size_t i = 0; i < shared->n; i++) {
        ct_job_free(shared->jobs[i]);
        free(shared->requests[i]);
    }
    *shared = (golden_prefills){0};
}

/* A job for the request, forked from a prefill that an earlier case has computed, or prefilled now.
 */
static inline ct_job *golden_fork(const ct_model *model, ct_session *session,
                                  golden_prefills *shared, const golden_request *g)
{
    ct_err err = {0};
    ct_job *job = NULL;
    size_t i = 0;
    int64_t whole = ct_request_prefill_count(&g->request);
    while (i < shared->n && (ct_request_shared_prefill(model, &shared->requests[i]->request,
                                                       &g->request, NULL) != whole ||
                             ct_request_prefill_count(&shared->requests[i]->request) != whole))
        i++;
    if (i == shared->n) {
        assert_true(i < GOLDEN_PREFILLS);
        golden_request *copy = malloc(sizeof *copy);
        assert_non_null(copy);
        *copy = *g;
        copy->request.prompt = copy->prompt;
        copy->request.force_ids = copy->force;
        for (int s = 0; s < CT_STAGE_COUNT; s++)
            copy->request.intervention.weights[s].spans = copy->spans[s];
        assert_ok(ct_job_new(model, &copy->request, &shared->jobs[i], &err));
        shared->requests[i] = copy;
        shared->n++;
        while (ct_job_get_state(shared->jobs[i]) == CT_JOB_PREFILL)
            assert_ok(ct_jobs_step(session, &shared->jobs[i], 1, &err));
    }
    assert_ok(ct_job_fork(shared->jobs[i], &g->request, &job, &err));
    while (ct_job_get_state(job) != CT_JOB_DONE) assert_ok(ct_jobs_step(session, &job, 1, &err));
    assert_ok(ct_job_check(job, &err));
    return job;
}

/* Runs one case with its tokens fed back and compares it; shared may be NULL. */
static inline void golden_compare(const ct_model *model, ct_session *session,
                                  const golden_file *file, const json_t *test,
                                  golden_prefills *shared, golden_tally *tally)
{
    ct_err err = {0};
    const ct_model_info *info = ct_model_get_info(model);
    golden_request g;
    golden_read(file, test, info->family, &g);
    const char *id = json_string_value(json_object_get(test, "id"));
    const ct_st_tensor *want = golden_tensor(file, test, "logits");
    assert_non_null(want);
    ct_job *job = NULL;
    if (shared) {
        job = golden_fork(model, session, shared, &g);
    } else {
        ct_status st = ct_generate(session, &g.request, &job, &err);
        if (st != CT_OK) fail_msg("%s: %s", id, err.text);
    }
    size_t count = 0;
    const int32_t *ids = ct_job_ids(job, &count);
    assert_int_equal(count, GOLDEN_TOKENS);
    const float *got = ct_job_logits(job);
    double largest = 0;
    for (int64_t i = 0; i < GOLDEN_TOKENS * info->vocab; i++) {
        float w;
        memcpy(&w, (const char *)want->data + i * (int64_t)sizeof w, sizeof w);
        double diff = fabs((double)w - (double)got[i]);
        if (!(diff <= LOGITS_TOLERANCE))
            fail_msg("%s: step %d, logit %d: expected %g, got %g", id, (int)(i / info->vocab),
                     (int)(i % info->vocab), (double)w, (double)got[i]);
        if (diff > largest) largest = diff;
    }
    if (largest > tally->largest) {
        tally->largest = largest;
        snprintf(tally->largest_case, sizeof tally->largest_case, "%s", id);
    }
    if (!golden_fragile(test, "argmax gap")) {
        for (size_t i = 0; i < count; i++)
            if (ids[i] != g.force[i])
                fail_msg("%s: step %d: expected token %d, got %d", id, (int)i, (int)g.force[i],
                         (int)ids[i]);
        tally->tokens_compared++;
    }
    const ct_st_tensor *heads = golden_tensor(file, test, "topk_gen");
    if (heads) {
        golden_compare_heads(job, info, heads, id);
        tally->heads_compared++;
    }
    tally->compared++;
    ct_job_free(job);
}

/* ---- whole programs -------------------------------------------------------------------------- */

/* The model of shared data `folder`, such as "data/goldens/jamba-tiny". */
static inline ct_model *golden_model(const char *folder, const char *device)
{
    ct_err err = {0};
    ct_model *model = NULL;
    ct_model_options options = {
        .device = test_device(device), .compute = CT_CHOOSE_F32, .threads = 1};
    const char *dir = shared_path(folder);
    if (!dir) skip_program(folder);
    assert_ok(ct_model_open(dir, &options, &model, &err));
    return model;
}

static inline golden_file golden_open_in(const char *folder, const char *manifest)
{
    char json_path[256], st_path[256];
    snprintf(json_path, sizeof json_path, "%s/%s.json", folder, manifest);
    snprintf(st_path, sizeof st_path, "%s/%s.safetensors", folder, manifest);
    return golden_open(json_path, st_path);
}

/* Compares every case of folder/manifest.json. With `share`, cases with the same prefill are forked
 * from one. */
static inline void golden_compare_file(const char *folder, const char *manifest, const char *device,
                                       bool share)
{
    ct_err err = {0};
    ct_model *model = golden_model(folder, device);
    const ct_model_info *info = ct_model_get_info(model);
    ct_session *session = NULL;
    assert_ok(ct_session_new(model, &session, &err));
    golden_file file = golden_open_in(folder, manifest);
    golden_tally tally = {0};
    golden_prefills shared = {0};
    size_t i;
    json_t *test;
    json_array_foreach(json_object_get(file.manifest, "cases"), i, test)
    {
        if (golden_has_torch_ties(test, info->heads) || golden_fragile(test, "margin"))
            tally.left_out++;
        else golden_compare(model, session, &file, test, share ? &shared : NULL, &tally);
    }
    printf("%s/%s: %s: %d cases compared (%d with tokens, %d with heads), %d left out; largest "
           "difference of a logit %.3g (%s)\n",
           folder, manifest, device, tally.compared, tally.tokens_compared, tally.heads_compared,
           tally.left_out, tally.largest, tally.largest_case);
    assert_true(tally.compared > 0);
    golden_prefills_clear(&shared);
    golden_close(&file);
    ct_session_free(session);
    ct_model_close(model);
}

/* The largest difference of one forward over n ids without intervention from want [n, V]. */
static inline double golden_compare_forward(ct_model *model, ct_session *session,
                                            const int32_t *ids, int64_t n, const ct_st_tensor *want,
                                            const char *id)
{
    ct_err err = {0};
    int64_t vocab = ct_model_get_info(model)->vocab;
    double largest = 0;
    float *logits = malloc((size_t)(n * vocab) * sizeof *logits);
    assert_non_null(logits);
    assert_int_equal(want->count, n * vocab);
    ct_sequence *sequence = NULL;
    assert_ok(ct_sequence_new(model, &sequence, &err));
    ct_row row = {.sequence = sequence,
                  .ids = ids,
                  .count = n,
                  .stage = CT_STAGE_PREFILL,
                  .want = CT_LOGITS_ALL,
                  .logits = logits};
    assert_ok(ct_step(session, &row, 1, &err));
    for (int64_t j = 0; j < n * vocab; j++) {
        float w;
        memcpy(&w, (const char *)want->data + j * (int64_t)sizeof w, sizeof w);
        double diff = fabs((double)w - (double)logits[j]);
        if (!(diff <= LOGITS_TOLERANCE)) fail_msg("%s: row %d", id, (int)(j / vocab));
        if (diff > largest) largest = diff;
    }
    free(logits);
    ct_sequence_free(sequence);
    return largest;
}

/* One forward over each whole prompt without intervention. */
static inline void golden_compare_prompts(const char *folder, const char *device)
{
    ct_err err = {0};
    ct_model *model = golden_model(folder, device);
    ct_session *session = NULL;
    assert_ok(ct_session_new(model, &session, &err));
    golden_file file = golden_open_in(folder, "goldens");
    size_t i;
    int compared = 0;
    double largest = 0;
    json_t *test;
    json_array_foreach(json_object_get(file.manifest, "cases"), i, test)
    {
        const ct_st_tensor *want = golden_tensor(&file, test, "prompt_logits");
        if (!want) continue;
        golden_request g;
        golden_read(&file, test, ct_model_get_info(model)->family, &g);
        double diff =
            golden_compare_forward(model, session, g.prompt, (int64_t)g.request.prompt_count, want,
                                   json_string_value(json_object_get(test, "id")));
        largest = diff > largest ? diff : largest;
        compared++;
    }
    printf("%s: prompt logits: %s: %d prompts compared; largest difference %.3g\n", folder, device,
           compared, largest);
    assert_true(compared > 0);
    golden_close(&file);
    ct_session_free(session);
    ct_model_close(model);
}

#endif
