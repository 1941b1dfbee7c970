/* test_recordings.c - what is recorded against what the published code's recorder gave on tiny random
 * models: attention weights and scores, and the heads that prefill kept.
 *
 * The published weights are few: for every other case of the manifests the weights before its edit are
 * compared with those of the case without any, as far as nothing has been changed before them, and the
 * weights after it with the edit's definition (docs/semantics.md, 5) from the weights before it.
 * RecurrentGemma's generation columns are cache slots, a key at position p in slot p mod 32, and the current
 * token last; its prefill columns are positions.
 */
#include "golden.h"

#include "intervene/record.h"

#define GRIFFIN "data/goldens/recurrentgemma-tiny"
#define JAMBA   "data/goldens/jamba-tiny"

/* As the data's notes suggest; f32 against f64 differ by far less. */
#define WEIGHTS_TOLERANCE 1e-4
/* From weights of the same run: nothing is computed but the mean, of at most 800 sums of weights up to 1. */
#define EDIT_TOLERANCE 1e-6

typedef struct recorded {
    ct_model *model;
    const ct_model_info *info;
    ct_session *session;
    golden_file file, bases; /* the cases at hand; those without intervention */
    int64_t window;          /* previous tokens that a query sees; INT64_MAX: all */
    int rows, needles, edited, before, heads, cases;
    double largest, largest_edit;
} recorded;

static const ct_st_tensor *tensor_of(const golden_file *file, const json_t *test, const char *what,
                                     int64_t i)
{
    const json_t *list = json_object_get(json_object_get(test, "tensors"), what);
    const char *name = json_string_value(json_array_get(list, (size_t)i));
    return name ? ct_st_find(file->tensors, name) : NULL;
}

static void compare(recorded *f, double want, double got, const char *id, const char *what,
                    int64_t row, int64_t column)
{
    double diff = fabs(want - got);
    if (!(diff <= WEIGHTS_TOLERANCE))
        fail_msg("%s: %s, row %d, column %d: expected %g, got %g", id, what, (int)row, (int)column,
                 want, got);
    f->largest = fmax(f->largest, diff);
}

/* Row i's weights of a head in the layer at the place. */
static const float *weights_at(const recorded *f, const ct_record_track *t, const float *of,
                               int64_t i, int64_t layer, int64_t h)
{
    return of + ((i * f->info->attention_layers + layer) * f->info->heads + h) * t->keys;
}

static bool in_spans(const ct_span *spans, size_t n, int64_t position)
{
    for (size_t i = 0; i < n; i++)
        if (position >= spans[i].begin && position < spans[i].end) return true;
    return false;
}

/* The golden's weights on the needle against what the light recorder says. */
static void compare_needle(recorded *f, const ct_recording *r, ct_stage stage, double want,
                           int64_t i, int64_t layer, int64_t h, const char *id)
{
    int64_t at = (i * f->info->attention_layers + layer) * f->info->heads + h;
    f->needles += r->n_needle > 0 && want > 0;
    compare(f, want, (double)r->tracks[stage].needle_after[at], id, "needle", i, 0);
}

/* A row of generation against one of attn_gen [steps, H, window + 1]. */
static void compare_slots(recorded *f, const ct_recording *r, const ct_st_tensor *want,
                          const float *(*side)(const ct_record_track *), int64_t i, int64_t layer,
                          bool needle, const char *id)
{
    const ct_record_track *t = &r->tracks[CT_STAGE_GENERATION];
    int64_t w = f->window, p = t->position[i], first = p < w ? 0 : p - w;
    assert_int_equal(want->shape[2], w + 1);
    for (int64_t h = 0; h < f->info->heads; h++) {
        const float *row = weights_at(f, t, side(t), i, layer, h);
        int64_t from = (i * f->info->heads + h) * (w + 1);
        double mass = 0;
        for (int64_t s = first; s < p; s++) {
            double weight = golden_element(want, from + s % w);
            compare(f, weight, (double)row[s], id, "generation", i, s);
            mass += in_spans(r->needle, r->n_needle, s) ? weight : 0;
        }
        compare(f, golden_element(want, from + w), (double)row[p], id, "generation", i, p);
        if (needle) compare_needle(f, r, CT_STAGE_GENERATION, mass, i, layer, h, id);
    }
}

/* A row of prefill against one of attn_prefill [H, T, T]. */
static void compare_row(recorded *f, const ct_recording *r, const ct_st_tensor *want,
                        const float *(*side)(const ct_record_track *), int64_t i, int64_t layer,
                        bool needle, const char *id)
{
    const ct_record_track *t = &r->tracks[CT_STAGE_PREFILL];
    int64_t n = t->rows;
    assert_int_equal(want->shape[1], n);
    assert_int_equal(t->keys, n);
    for (int64_t h = 0; h < f->info->heads; h++) {
        const float *row = weights_at(f, t, side(t), i, layer, h);
        double mass = 0;
        for (int64_t s = 0; s < n; s++) {
            double weight = golden_element(want, (h * n + i) * n + s);
            compare(f, weight, (double)row[s], id, "prefill", i, s);
            mass += in_spans(r->needle, r->n_needle, s) ? weight : 0;
        }
        if (needle) compare_needle(f, r, CT_STAGE_PREFILL, mass, i, layer, h, id);
    }
}

static const float *before_of(const ct_record_track *t)
{
    return t->before;
}

static const float *after_of(const ct_record_track *t)
{
    return t->after;
}

/* What the published recorder gave for this very case. */
static void compare_published(recorded *f, const json_t *test, const ct_recording *r,
                              const char *id)
{
    for (int64_t l = 0; l < f->info->attention_layers; l++) {
        const ct_st_tensor *gen = tensor_of(&f->file, test, "attn_gen", l);
        const ct_st_tensor *prefill = tensor_of(&f->file, test, "attn_prefill", l);
        if (gen) assert_int_equal(gen->shape[0], r->tracks[CT_STAGE_GENERATION].rows);
        for (int64_t i = 0; gen && i < gen->shape[0]; i++, f->rows++)
            compare_slots(f, r, gen, after_of, i, l, true, id);
        for (int64_t i = 0; prefill && i < r->tracks[CT_STAGE_PREFILL].rows; i++, f->rows++)
            compare_row(f, r, prefill, after_of, i, l, true, id);
    }
}

/* Below the first attention layer nothing depends on attention: its weights before the edit are those of the
 * case without intervention, while the same tokens were fed. */
static void compare_first_layer(recorded *f, const json_t *test, const golden_request *g,
                                const ct_recording *r, const char *id)
{
    char name[64];
    const char *prompt = json_string_value(json_object_get(test, "prompt"));
    snprintf(name, sizeof name, "%s.base", prompt);
    size_t at;
    json_t *base;
    json_array_foreach(json_object_get(f->bases.manifest, "cases"), at, base)
    {
        if (strcmp(json_string_value(json_object_get(base, "id")), name) != 0) continue;
        const ct_st_tensor *gen = tensor_of(&f->bases, base, "attn_gen", 0);
        const ct_st_tensor *prefill = tensor_of(&f->bases, base, "attn_prefill", 0);
        const json_t *tokens = json_object_get(base, "tokens");
        for (int64_t i = 0; prefill && i < r->tracks[CT_STAGE_PREFILL].rows; i++, f->before++)
            compare_row(f, r, prefill, before_of, i, 0, false, id);
        for (int64_t i = 0; gen && i < gen->shape[0]; i++, f->before++) {
            if (i > 0 &&
                g->force[i - 1] != json_integer_value(json_array_get(tokens, (size_t)(i - 1))))
                break;
            compare_slots(f, r, gen, before_of, i, 0, false, id);
        }
    }
}

/* How often position s of the row at p is edited in generation: twice where the current token names the slot of
 * position p - W, which is edited, too. */
static int64_t times_edited(const recorded *f, const ct_weight_edit *edit, int64_t p, int64_t s)
{
    bool ring = f->window != INT64_MAX;
    if (ring && s == p) return 0;
    int64_t times = in_spans(edit->spans, edit->n_spans, s);
    if (ring && s == p - f->window) times += in_spans(edit->spans, edit->n_spans, p);
    return times;
}

static void compare_edited(recorded *f, double want, double got, const char *id, int64_t i,
                           int64_t s)
{
    double diff = fabs(want - got);
    if (!(diff <= EDIT_TOLERANCE))
        fail_msg("%s: row %d, column %d after the edit: expected %g, got %g", id, (int)i, (int)s,
                 want, got);
    f->largest_edit = fmax(f->largest_edit, diff);
}

/* A weight after the edit; m: binary's mean. */
static double edited_weight(ct_weights_mode mode, double weight, bool edited, double m)
{
    switch (mode) {
    case CT_WEIGHTS_NULL:
        return 0;
    case CT_WEIGHTS_ONLY:
        return edited ? weight : 0;
    case CT_WEIGHTS_OMIT:
        return edited ? 0 : weight;
    case CT_WEIGHTS_BINARY:
        return edited ? m : 0;
    default:
        return weight;
    }
}

static void check_generation(recorded *f, const ct_weight_edit *edit, const ct_recording *r,
                             int64_t layer, const char *id)
{
    const ct_record_track *t = &r->tracks[CT_STAGE_GENERATION];
    for (int64_t i = 0; i < t->rows; i++, f->edited++) {
        int64_t p = t->position[i], first = p <= f->window ? 0 : p - f->window, n = 0;
        double sum = 0;
        /* The slot that the current token names is still empty, and counts. */
        if (p < f->window && f->window != INT64_MAX) n += in_spans(edit->spans, edit->n_spans, p);
        for (int64_t s = first; s <= p; s++) {
            int64_t times = times_edited(f, edit, p, s);
            n += times;
            for (int64_t h = 0; h < f->info->heads; h++)
                sum += (double)times * (double)weights_at(f, t, t->before, i, layer, h)[s];
        }
        double m = n ? sum / (double)f->info->heads / (double)n : 0;
        ct_weights_mode mode = n || edit->n_spans == 0 ? edit->mode : CT_WEIGHTS_KEEP;
        for (int64_t h = 0; h < f->info->heads; h++) {
            const float *before = weights_at(f, t, t->before, i, layer, h);
            const float *after = weights_at(f, t, t->after, i, layer, h);
            for (int64_t s = 0; s <= p; s++)
                compare_edited(f,
                               edited_weight(mode, (double)before[s],
                                             s >= first && times_edited(f, edit, p, s), m),
                               (double)after[s], id, i, s);
        }
    }
}

static void check_prefill(recorded *f, const ct_weight_edit *edit, const ct_recording *r,
                          int64_t layer, const char *id)
{
    const ct_record_track *t = &r->tracks[CT_STAGE_PREFILL];
    double sum = 0;
    int64_t n = 0;
    for (size_t i = 0; i < edit->n_spans; i++) n += edit->spans[i].end - edit->spans[i].begin;
    for (int64_t i = 0; i < t->rows; i++)
        for (int64_t h = 0; h < f->info->heads; h++)
            for (int64_t s = 0; s < t->keys; s++)
                if (in_spans(edit->spans, edit->n_spans, s))
                    sum += (double)weights_at(f, t, t->before, i, layer, h)[s];
    double m = n ? sum / (double)f->info->heads / (double)n : 0;
    for (int64_t i = 0; i < t->rows; i++, f->edited++)
        for (int64_t h = 0; h < f->info->heads; h++) {
            const float *before = weights_at(f, t, t->before, i, layer, h);
            const float *after = weights_at(f, t, t->after, i, layer, h);
            for (int64_t s = 0; s < t->keys; s++)
                compare_edited(f,
                               edited_weight(edit->mode, (double)before[s],
                                             in_spans(edit->spans, edit->n_spans, s), m),
                               (double)after[s], id, i, s);
        }
}

/* Scores before the softmax, [H, S] of each layer and step: their softmax is what is recorded. */
static void compare_scores(recorded *f, const json_t *test, const ct_recording *r, const char *id)
{
    const ct_record_track *t = &r->tracks[CT_STAGE_GENERATION];
    for (int64_t l = 0; l < f->info->attention_layers; l++)
        for (int64_t i = 0; i < t->rows; i++) {
            const ct_st_tensor *want =
                tensor_of(&f->file, test, "attn_gen_scores", l * t->rows + i);
            if (!want) return;
            int64_t n = want->shape[1];
            assert_int_equal(want->shape[0], f->info->heads);
            assert_int_equal(n, t->position[i] + 1);
            for (int64_t h = 0; h < f->info->heads; h++) {
                double sum = 0;
                for (int64_t s = 0; s < n; s++) sum += exp(golden_element(want, h * n + s));
                for (int64_t s = 0; s < n; s++)
                    compare(f, exp(golden_element(want, h * n + s)) / sum,
                            (double)weights_at(f, t, t->before, i, l, h)[s], id, "scores", i, s);
            }
            f->rows++;
        }
}

/* Heads that prefill kept, as sets, against topk_prefill [layers, k, rows]. With torch's choice among the heads that
 * tie in row 0, what follows from it is left out: row 0, and the layers above. */
static void compare_heads(recorded *f, const ct_recording *r, const ct_st_tensor *want, bool ties,
                          const char *id)
{
    const ct_record_track *track = &r->tracks[CT_STAGE_PREFILL];
    int64_t k = want->shape[1], n = want->shape[2], heads = f->info->heads;
    assert_int_equal(track->rows, n);
    for (int64_t l = 0; l < (ties ? 1 : f->info->attention_layers); l++)
        for (int64_t i = ties; i < n; i++) {
            const uint8_t *kept = track->heads_kept + (i * f->info->attention_layers + l) * heads;
            int64_t count = 0;
            for (int64_t h = 0; h < heads; h++) count += kept[h];
            assert_int_equal(count, k);
            for (int64_t j = 0; j < k; j++) {
                int32_t h;
                memcpy(&h, (const char *)want->data + ((l * k + j) * n + i) * (int64_t)sizeof h,
                       sizeof h);
                if (!kept[h]) fail_msg("%s: row %d: head %d not kept", id, (int)i, (int)h);
            }
            f->heads++;
        }
}

static void compare_case(recorded *f, const json_t *test)
{
    ct_err err = {0};
    golden_request g;
    golden_read(&f->file, test, f->info->family, &g);
    const char *id = json_string_value(json_object_get(test, "id"));
    const ct_weight_edit *edits = g.request.intervention.weights;
    const ct_record_options record = {.what = CT_RECORD_WEIGHTS | CT_RECORD_HEADS | CT_RECORD_LIGHT,
                                      .stages = {true, true},
                                      .steps = CT_RECORD_ALL,
                                      .needle = g.spans[0],
                                      .n_needle = edits[0].n_spans};
    g.request.record = &record;
    ct_job *job = NULL;
    assert_ok(ct_generate(f->session, &g.request, &job, &err));
    const ct_recording *r = ct_job_recording(job);
    bool ties = golden_has_torch_ties(test, f->info->heads);
    const ct_st_tensor *heads = golden_tensor(&f->file, test, "topk_prefill");
    if (heads) compare_heads(f, r, heads, ties, id);
    if (!ties) {
        compare_published(f, test, r, id);
        compare_scores(f, test, r, id);
    }
    compare_first_layer(f, test, &g, r, id);
    for (int64_t l = 0; l < f->info->attention_layers; l++) {
        check_prefill(f, &edits[CT_STAGE_PREFILL], r, l, id);
        check_generation(f, &edits[CT_STAGE_GENERATION], r, l, id);
    }
    f->cases++;
    ct_job_free(job);
}

/* All cases of folder/manifest. */
static recorded compare_all(const char *folder, const char *manifest, const char *device)
{
    ct_err err = {0};
    recorded f = {.model = golden_model(folder, device)};
    f.info = ct_model_get_info(f.model);
    f.window = f.info->window > 0 ? f.info->window - 1 : INT64_MAX;
    assert_ok(ct_session_new(f.model, &f.session, &err));
    f.file = golden_open_in(folder, manifest);
    f.bases = golden_open_in(folder, "goldens");
    size_t i;
    json_t *test;
    json_array_foreach(json_object_get(f.file.manifest, "cases"), i, test)
    {
        /* The reference takes long: there the cases that hold something recorded are enough. */
        bool holds = tensor_of(&f.file, test, "attn_gen", 0) ||
                     tensor_of(&f.file, test, "attn_gen_scores", 0) ||
                     golden_tensor(&f.file, test, "topk_prefill");
        if (golden_fragile(test, "margin") || (!holds && strcmp(device, "ref") == 0)) continue;
        compare_case(&f, test);
    }
    printf("%s/%s: %s: %d cases: %d rows as published, %d of the needle; %d before an edit; "
           "largest difference %.3g; %d rows after an edit, %.3g; %d rows of heads\n",
           folder, manifest, device, f.cases, f.rows, f.needles, f.before, f.largest, f.edited,
           f.largest_edit, f.heads);
    golden_close(&f.file);
    golden_close(&f.bases);
    ct_session_free(f.session);
    ct_model_close(f.model);
    return f;
}

static void every_recorded_weight_and_head_of_recurrentgemma_is_the_published_codes(void **state)
{
    (void)state;
    static const char *const devices[] = {"ref", "cpu"};
    for (int d = 0; d < 2; d++) {
        recorded f = compare_all(GRIFFIN, "goldens", devices[d]);
        assert_true(f.rows >= 972 && f.needles >= 1000 && f.heads > 0 && f.before > 0);
    }
}

static void weights_are_right_where_heads_are_chosen_in_prefill_and_weights_edited(void **state)
{
    (void)state;
    recorded f = compare_all(GRIFFIN, "goldens-combo-lowtie", "cpu");
    assert_true(f.before > 0 && f.edited > 0);
}

static void every_recorded_score_and_head_of_jamba_is_the_published_codes(void **state)
{
    (void)state;
    static const char *const devices[] = {"ref", "cpu"};
    for (int d = 0; d < 2; d++) {
        recorded f = compare_all(JAMBA, "goldens", devices[d]);
        assert_true(f.rows > 0 && f.heads > 0);
    }
}

static void weights_are_right_under_the_edits_by_analogy(void **state)
{
    (void)state;
    recorded f = compare_all(JAMBA, "goldens-extension", "cpu");
    assert_true(f.edited > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_recorded_weight_and_head_of_recurrentgemma_is_the_published_codes),
        cmocka_unit_test(weights_are_right_where_heads_are_chosen_in_prefill_and_weights_edited),
        cmocka_unit_test(every_recorded_score_and_head_of_jamba_is_the_published_codes),
        cmocka_unit_test(weights_are_right_under_the_edits_by_analogy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
