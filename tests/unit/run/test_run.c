/* test_run.c - studies run on the small golden model: sharing, resuming, failing, exporting.
 *
 * Its answers mean nothing; that they are the same however the work was arranged is what is tested.
 */
#include "tiny_run.h"

#include "run/grid.h"
#include "store/store.h"

/* Every kind of intervention, with and without shared prefill. */
#define MIXED                                                                                      \
    STUDY("mixed",                                                                                 \
          "generate: {max_new_tokens: 7, ignore_eos: true}\n"                                      \
          "interventions:\n"                                                                       \
          "  - heads: {keep: {from: 0, to: 3}, metric: [entropy, random], seed: [1, 2],\n"         \
          "            stages: [generation, prefill+generation]}\n"                                \
          "  - weights: {generation: [keep, null, only, binary, omit],\n"                          \
          "              prefill: [keep, \"null\", only, binary, omit]}\n"                         \
          "  - heads: {keep: 1, metric: l2, stages: prefill}\n"                                    \
          "    weights: {generation: binary}\n"                                                    \
          "    prompts: {depths: [50]}\n")

static ct_run_result run_in(const char *text, const char *out, int64_t limit, int64_t memory)
{
    ct_err err = {0};
    ct_study *study = study_of(text);
    ct_run_result result;
    const ct_run_options options = {.out_dir = path_of(out),
                                    .limit = limit,
                                    .memory = memory,
                                    .threads = 1,
                                    .command_line = "test"};
    assert_ok(ct_run_study(study, &options, &result, &err));
    ct_study_close(study);
    if (result.first_error[0]) print_message("first error: %s\n", result.first_error);
    return result;
}

static ct_run_result run_ok(const char *text, const char *out, int64_t limit)
{
    return run_in(text, out, limit, 0);
}

/* The least memory under which the study runs, from the error of less. */
static int64_t least_memory(const char *text)
{
    ct_err err = {0};
    ct_study *study = study_of(text);
    ct_run_result result;
    const ct_run_options options = {
        .out_dir = path_of("least"), .memory = 1, .threads = 1, .dry_run = true};
    assert_fails(ct_run_study(study, &options, &result, &err), CT_ERR_LIMIT,
                 "memory: expected room for the state of one sequence");
    ct_study_close(study);
    const char *at = strstr(err.text, " tokens, ");
    assert_non_null(at);
    return strtoll(at + 9, NULL, 10);
}

/* ---- tests ----------------------------------------------------------------------------------- */

typedef struct plain_loop {
    ct_semantics semantics;
    ct_session *session;
    ct_tokenizer *tokenizer;
    int n;
} plain_loop;

/* What a plain loop gives for a stored cell: its own prefill, alone in its batch. */
static ct_status check_alone(void *user, const ct_cell *cell, ct_err *outer)
{
    (void)outer;
    ct_err err = {0};
    plain_loop *with = user;
    assert_int_equal(cell->status, CT_CELL_DONE);
    int32_t *ids;
    size_t n_ids, n_out;
    assert_ok(ct_tokenizer_encode(with->tokenizer, cell->prompt, strlen(cell->prompt), true, &ids,
                                  &n_ids, &err));
    assert_int_equal(n_ids, cell->prompt_tokens);
    const ct_span span = {cell->needle_token_begin, cell->needle_token_end};
    ct_generate_request r = {.prompt = ids,
                             .prompt_count = n_ids,
                             .intervention.semantics = with->semantics,
                             .max_new_tokens = 7,
                             .eos = -1};
    if (cell->keep_heads >= 0) {
        r.intervention.heads.keep = (int32_t)cell->keep_heads;
        r.intervention.heads.seed = (uint64_t)cell->seed;
        assert_ok(ct_metric_parse(cell->metric, "metric", &r.intervention.heads.metric, &err));
        assert_ok(ct_head_stages_parse(cell->stages, "stages", r.intervention.heads.active, &err));
    }
    const char *const modes[CT_STAGE_COUNT] = {[CT_STAGE_PREFILL] = cell->weights_prefill,
                                               [CT_STAGE_GENERATION] = cell->weights_generation};
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++) {
        ct_weight_edit *edit = &r.intervention.weights[stage];
        assert_ok(ct_weights_mode_parse(modes[stage], "mode", &edit->mode, &err));
        if (edit->mode == CT_WEIGHTS_KEEP || edit->mode == CT_WEIGHTS_NULL) continue;
        edit->spans = &span;
        edit->n_spans = 1;
    }
    ct_job *job;
    assert_ok(ct_generate(with->session, &r, &job, &err));
    const int32_t *out = ct_job_ids(job, &n_out);
    assert_int_equal(n_out, cell->n_ids);
    assert_memory_equal(out, cell->ids, n_out * sizeof *out);
    assert_memory_equal(ct_job_audit(job), &cell->audit, sizeof cell->audit);
    ct_job_free(job);
    free(ids);
    with->n++;
    return CT_OK;
}

static void assert_as_alone(const char *run, const ct_semantics *semantics, int64_t cells)
{
    ct_err err = {0};
    ct_store *store;
    ct_model *model;
    plain_loop with = {.semantics = *semantics};
    char path[64];
    snprintf(path, sizeof path, "%s/run.sqlite", run);
    assert_ok(ct_model_open(path_of("model"), &(ct_model_options){.threads = 1}, &model, &err));
    assert_ok(ct_tokenizer_open(path_of("model"), &with.tokenizer, &err));
    assert_ok(ct_session_new(model, &with.session, &err));
    assert_ok(ct_store_open(path_of(path), false, &store, &err));
    assert_ok(ct_store_each(store, check_alone, &with, &err));
    assert_int_equal(with.n, cells);
    ct_store_close(store);
    ct_session_free(with.session);
    ct_tokenizer_close(with.tokenizer);
    ct_model_close(model);
}

static void shared_prefills_and_batches_give_what_each_cell_gives_alone(void **state)
{
    (void)state;
    ct_run_result result = run_ok(MIXED, "mixed", 0);
    /* stages 2 x (entropy, random 1, random 2) x k 4 = 24; weights 25 (keep/keep is the one without
     * any); on 6 prompts; and l2 with binary on 2 */
    assert_int_equal(result.cells, 49 * 6 + 2);
    assert_int_equal(result.done, result.cells);
    assert_int_equal(result.failed + result.left + result.stored, 0);
    assert_true(result.prefill_tokens_planned < result.prefill_tokens_plain / 4);
    assert_true(result.segments < result.cells && result.batches < result.segments);
    assert_true(result.state_bytes <= result.memory_limit);
    assert_as_alone("mixed", &(ct_semantics){0}, result.cells);
}

static void a_run_with_little_memory_computes_more_and_ends_with_the_same_outcomes(void **state)
{
    (void)state;
    int64_t least = least_memory(MIXED);
    ct_run_result ample = run_ok(MIXED, "ample", 0), tight = run_in(MIXED, "tight", 0, least);
    assert_int_equal(tight.done, ample.done);
    assert_true(tight.prefill_tokens_planned > ample.prefill_tokens_planned);
    assert_int_equal(tight.prefill_tokens_plain, ample.prefill_tokens_plain);
    assert_true(tight.state_bytes <= least && ample.state_bytes > least);
    int64_t done = 0;
    for (int i = 0; i < 5; i++) done += run_in(MIXED, "uneven", 61, least * (2 + i)).done;
    assert_int_equal(done, ample.done);
    char *want = outcomes("ample"), *got = outcomes("tight"), *uneven = outcomes("uneven");
    assert_string_equal(want, got);
    assert_string_equal(want, uneven);
    free(want);
    free(got);
    free(uneven);
}

/* Where prefill ends before the last token, prompts may begin others, and means need whole prompts;
 * without a cache each step begins anew. */
static void plans_under_other_semantics_give_what_each_cell_gives_alone(void **state)
{
    (void)state;
    ct_err err = {0};
    static const char *const texts[] = {
        STUDY("other",
              "generate: {max_new_tokens: 7, ignore_eos: true}\nsemantics: reference\n"
              "interventions:\n"
              "  - heads: {keep: [0, 2, 3], metric: l2, stages: prefill+generation}\n"
              "  - weights: {generation: [keep, omit], prefill: [\"null\", only, binary]}\n"),
        STUDY("other", "generate: {max_new_tokens: 7, ignore_eos: true}\n"
                       "semantics: {kv_cache: off, prefill_window: full}\ninterventions:\n"
                       "  - heads: {keep: [0, 2], metric: entropy, stages: prefill}\n"
                       "  - weights: {generation: [keep, omit], prefill: [keep, omit]}\n")};
    for (int i = 0; i < 2; i++) {
        ct_semantics semantics;
        assert_ok(ct_semantics_parse(i ? "paper" : "reference", "griffin", &semantics, &err));
        if (i) semantics.kv_cache_off = semantics.prefill_window_full = true;
        for (int tight = 0; tight < 2; tight++) {
            char out[16];
            snprintf(out, sizeof out, "other-%d-%d", i, tight);
            ct_run_result result = run_in(texts[i], out, 0, tight ? least_memory(texts[i]) : 0);
            assert_int_equal(result.failed + result.left, 0);
            assert_as_alone(out, &semantics, result.cells);
        }
    }
}

static void a_run_in_pieces_ends_with_the_bytes_of_an_uninterrupted_one(void **state)
{
    (void)state;
    run_ok(MIXED, "whole", 0);
    int64_t done = 0;
    ct_run_result result;
    do {
        result = run_ok(MIXED, "pieces", 37);
        assert_int_equal(result.stored, done);
        assert_true(result.done == 37 || result.left == 0);
        done += result.done;
    } while (result.left > 0);
    assert_int_equal(done, result.cells);
    char *whole = outcomes("whole"), *pieces = outcomes("pieces");
    assert_string_equal(whole, pieces);
    free(whole);
    free(pieces);
    result = run_ok(MIXED, "pieces", 0);
    assert_int_equal(result.done, 0);
    assert_int_equal(result.stored, result.cells);
}

static volatile sig_atomic_t stop;
static int64_t stop_at_tokens;

static void stop_when_reached(void *user, const ct_run_progress *p)
{
    ++*(int *)user;
    assert_true(p->cells_done <= p->cells_total);
    assert_true(p->cells_first <= p->cells_done);
    if (p->tokens >= stop_at_tokens) stop = 1;
}

static void a_stopped_run_says_so_keeps_what_is_finished_and_resumes(void **state)
{
    (void)state;
    ct_err err = {0};
    int64_t stored = 0;
    int calls = 0;
    ct_run_result result;
    stop_at_tokens = 0; /* as soon as possible, then later and later */
    for (int i = 0; i < 20; i++) {
        ct_study *study = study_of(MIXED);
        stop = 0;
        const ct_run_options options = {.out_dir = path_of("stopped"),
                                        .threads = 1,
                                        .stop = &stop,
                                        .progress = stop_when_reached,
                                        .user = &calls};
        ct_status st = ct_run_study(study, &options, &result, &err);
        ct_study_close(study);
        assert_int_equal(result.stored, stored);
        stored += result.done;
        if (st == CT_OK) break;
        assert_int_equal(st, CT_ERR_INTERRUPTED);
        assert_int_equal(result.left, result.cells - stored);
        stop_at_tokens += 1500;
    }
    run_ok(MIXED, "stopped", 0);
    assert_true(calls > 0);
    char *whole = outcomes("whole"), *resumed = outcomes("stopped");
    assert_string_equal(whole, resumed);
    free(whole);
    free(resumed);
}

static const char *const lane_devices[] = {"cpu", "cpu,cpu", "cpu,cpu,cpu", "cpu,cpu,cpu,cpu,cpu"};
enum { LANE_DEVICES = sizeof lane_devices / sizeof *lane_devices };

static void cells_have_the_same_outcomes_however_many_lanes_compute_them(void **state)
{
    (void)state;
    run_ok(MIXED, "one", 0);
    char *one = outcomes("one");
    int64_t least = least_memory(MIXED);
    for (int i = 1; i < LANE_DEVICES; i++)
        for (int little = 0; little < 2; little++) {
            ct_err err = {0};
            char out[32];
            snprintf(out, sizeof out, "lanes%d-%d", i, little);
            ct_study *study = study_of(MIXED);
            ct_run_result result;
            const ct_run_options options = {.out_dir = path_of(out),
                                            .device = lane_devices[i],
                                            /* of all lanes together, in the host's memory */
                                            .memory = little ? least * (i == 3 ? 5 : i + 1) : 0,
                                            .threads = 2};
            assert_ok(ct_run_study(study, &options, &result, &err));
            ct_study_close(study);
            assert_int_equal(result.lanes, i == 3 ? 5 : i + 1);
            assert_true(result.stretches >= result.lanes);
            assert_int_equal(result.done, result.cells);
            assert_int_equal(result.failed, 0);
            assert_true(result.state_bytes <= result.memory_limit);
            char *many = outcomes(out);
            assert_string_equal(one, many);
            free(many);
        }
    free(one);
}

static void a_stopped_run_goes_on_with_another_number_of_lanes(void **state)
{
    (void)state;
    ct_err err = {0};
    int64_t stored = 0;
    int calls = 0;
    ct_run_result result = {0};
    ct_status st = CT_ERR_INTERRUPTED;
    stop_at_tokens = 0;
    for (int i = 0; i < 40 && st != CT_OK; i++) {
        ct_study *study = study_of(MIXED);
        stop = 0;
        const ct_run_options options = {.out_dir = path_of("stopped-lanes"),
                                        .device = lane_devices[i % LANE_DEVICES],
                                        .threads = 1,
                                        .stop = &stop,
                                        .progress = stop_when_reached,
                                        .user = &calls};
        st = ct_run_study(study, &options, &result, &err);
        ct_study_close(study);
        assert_true(st == CT_OK || st == CT_ERR_INTERRUPTED);
        assert_int_equal(result.stored, stored);
        stored += result.done;
        assert_int_equal(result.left, result.cells - stored);
        stop_at_tokens += 1500;
    }
    assert_int_equal(st, CT_OK);
    char *one = outcomes("one"), *resumed = outcomes("stopped-lanes");
    assert_string_equal(one, resumed);
    free(one);
    free(resumed);
}

static void devices_that_would_give_other_bits_or_are_not_there_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *device, *part;
        ct_status status;
    } bad[] = {
        {"cpu,ref", "expected devices of one kind", CT_ERR_USAGE},
        {"cpu,gpu", "got \"gpu\"", CT_ERR_USAGE},
        {"cpu,,cpu", "with commas between them", CT_ERR_USAGE},
        {"cpu,cuda:all", "cuda:all alone", CT_ERR_USAGE},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ct_err err = {0};
        ct_study *study = study_of(MIXED);
        ct_run_result result;
        const ct_run_options options = {
            .out_dir = path_of("refused"), .device = bad[i].device, .threads = 1};
        assert_fails(ct_run_study(study, &options, &result, &err), bad[i].status, bad[i].part);
        ct_study_close(study);
    }
}

static void a_cell_that_fails_is_stored_reported_and_tried_again(void **state)
{
    (void)state;
    /* One new token comes from prefill: an intervention in generation alone reaches no row. */
    static const char text[] =
        STUDY("failing", "generate: {max_new_tokens: 1}\n"
                         "interventions:\n"
                         "  - heads: {keep: 1, metric: l2, stages: [generation, prefill]}\n"
                         "  - heads: none\n"); /* its prefill is that of the cells that fail */
    ct_err err = {0};
    ct_run_result result = run_ok(text, "failing", 0);
    assert_int_equal(result.done, 12);
    assert_int_equal(result.failed, 6);
    assert_non_null(strstr(result.first_error, "length 90, depth 0: intervention"));
    result = run_ok(text, "failing", 0);
    assert_int_equal(result.stored, 12);
    assert_int_equal(result.done, 0);
    assert_int_equal(result.failed, 6);
    ct_buf csv = {0};
    assert_ok(ct_run_export(path_of("failing"), CT_EXPORT_CSV, append, &csv, &err));
    assert_non_null(strstr(csv.data, ",failed,"));
    ct_buf_clear(&csv);
}

static void copy_file(const char *from, const char *to)
{
    char command[512];
    snprintf(command, sizeof command, "cp '%s' '%s'", from, to);
    assert_int_equal(system(command), 0);
}

/* The last weight is made a NaN, so that no prefill gives a token to choose. */
static void cells_whose_logits_are_not_numbers_fail_alone_and_the_run_goes_on(void **state)
{
    (void)state;
    assert_int_equal(mkdir(path_of("broken"), 0777), 0);
    copy_file(TINY "/config.json", path_of("broken/config.json"));
    copy_file(TINY "/model.safetensors", path_of("broken/model.safetensors"));
    copy_file(LETTERS, path_of("broken/tokenizer.json"));
    FILE *f = fopen(path_of("broken/model.safetensors"), "rb+");
    assert_non_null(f);
    assert_int_equal(fseek(f, -2, SEEK_END), 0);
    assert_int_equal(fwrite("\xC0\x7F", 1, 2, f), 2);
    fclose(f);
    char *text = strdup(MIXED), *model = strstr(text, "model: model");
    assert_non_null(model);
    ct_buf broken = {0};
    assert_int_equal(ct_buf_addf(&broken, NULL, "%.*smodel: broken%s", (int)(model - text), text,
                                 model + strlen("model: model")),
                     CT_OK);
    ct_run_result result = run_ok(broken.data, "nan", 0);
    assert_true(result.failed > 0);
    assert_int_equal(result.done + result.failed, result.cells);
    assert_non_null(strstr(result.first_error, "is not a number"));
    ct_buf_clear(&broken);
    free(text);
}

static void a_changed_study_runs_only_what_is_new_and_shows_only_itself(void **state)
{
    (void)state;
    static const char one[] =
        STUDY("change", "generate: {max_new_tokens: 3}\n"
                        "interventions:\n"
                        "  - heads: {keep: [0, 1], metric: l2, stages: generation}\n");
    static const char two[] =
        STUDY("change", "generate: {max_new_tokens: 3}\n"
                        "interventions:\n"
                        "  - heads: {keep: [1, 2], metric: l2, stages: generation}\n");
    ct_run_result result = run_ok(one, "change", 0);
    assert_int_equal(result.done, 12);
    result = run_ok(two, "change", 0);
    assert_int_equal(result.stored, 6);
    assert_int_equal(result.done, 6);
    char *text = outcomes("change");
    assert_null(strstr(text, "\"keep_heads\":0"));
    assert_non_null(strstr(text, "\"keep_heads\":2"));
    free(text);
    result = run_ok(one, "change", 0); /* nothing to compute, but to show */
    assert_int_equal(result.stored, 12);
    assert_int_equal(result.done, 0);
    text = outcomes("change");
    assert_non_null(strstr(text, "\"keep_heads\":0"));
    assert_null(strstr(text, "\"keep_heads\":2"));
    free(text);
}

static void a_dry_run_counts_and_writes_nothing(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *study = study_of(MIXED);
    ct_run_result result;
    ct_run_options options = {.out_dir = path_of("dry"), .threads = 1, .dry_run = true};
    assert_ok(ct_run_study(study, &options, &result, &err));
    assert_int_equal(result.cells, 296);
    assert_int_equal(result.prompts, 6);
    assert_int_equal(result.versions, 50);
    assert_int_equal(result.left, 296);
    assert_int_equal(result.done, 0);
    assert_true(result.segments > 6 && result.segments < 296);
    assert_int_equal(access(path_of("dry"), F_OK), -1);
    options.out_dir = path_of("whole");
    assert_ok(ct_run_study(study, &options, &result, &err));
    assert_int_equal(result.stored, 296);
    assert_int_equal(result.segments, 0);
    ct_study_close(study);
}

static void what_would_fail_every_cell_is_an_error_of_the_run_with_its_line(void **state)
{
    (void)state;
    ct_err err = {0};
    static const struct {
        const char *text;
        ct_status status;
        const char *part;
    } bad[] = {
        {STUDY("bad", "interventions:\n"
                      "  - heads: {keep: [3, 4], metric: l2, stages: generation}\n"),
         CT_ERR_VALUE, "expected 0 to 3, the heads of model, got 4"},
        {"study: bad\nmodel: nowhere\ntask:\n  niah: {haystack: essay.txt, needle: a, question: b, "
         "lengths: 90, depths: 0, scoring: binary}\n",
         CT_ERR_NOT_FOUND, "line 2"},
        {"study: bad\nmodel: model\ntask:\n  niah: {haystack: none, needle: a, question: b, "
         "lengths: 90, depths: 0, scoring: binary}\n",
         CT_ERR_NOT_FOUND, "line 4"},
        {"study: bad\nmodel: model\ntask:\n  niah: {haystack: essay.txt, needle: a, question: b, "
         "lengths: 90, depths: 0, scoring: binary}\n",
         CT_ERR_VALUE, "length"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ct_study *study = study_of(bad[i].text);
        ct_run_result result;
        const ct_run_options options = {.out_dir = path_of("bad"), .threads = 1};
        assert_fails(ct_run_study(study, &options, &result, &err), bad[i].status, bad[i].part);
        assert_int_equal(access(path_of("bad"), F_OK), -1);
        assert_int_equal(ct_run_study(study, &options, &result, NULL), bad[i].status);
        ct_study_close(study);
    }
}

static void a_folder_of_another_study_or_of_a_run_at_work_is_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *study = study_of(STUDY("another", ""));
    ct_run_result result;
    ct_run_options options = {.out_dir = path_of("whole"), .threads = 1};
    assert_fails(ct_run_study(study, &options, &result, &err), CT_ERR_USAGE,
                 "expected a run of the study \"another\", got one of \"mixed\"");
    ct_store *store;
    assert_int_equal(mkdir(path_of("busy"), 0777), 0);
    assert_ok(ct_store_open(path_of("busy/run.sqlite"), true, &store, &err));
    assert_ok(ct_store_begin(store, &(ct_provenance){.study = "another"}, &err));
    options.out_dir = path_of("busy");
    assert_fails(ct_run_study(study, &options, &result, &err), CT_ERR_USAGE, "another at work");
    assert_int_equal(result.done, 0);
    ct_store_close(store);
    ct_study_close(study);
}

static void a_hidden_needle_is_an_error_of_its_cells_alone(void **state)
{
    (void)state;
    /* Under needle_span: reference, the ids of "a" without first and last are none: never found. */
    static const char text[] =
        "study: hidden\nmodel: model\ntask:\n  niah:\n    haystack: essay.txt\n"
        "    needle: \"z\"\n    question: Where is tea?\n    scoring: binary\n    buffer: 20\n"
        "    lengths: 90\n    depths: 0\n"
        "generate: {max_new_tokens: 3}\nsemantics: {needle_span: reference}\n"
        "interventions:\n  - heads: none\n  - weights: {generation: only}\n";
    ct_run_result result = run_ok(text, "hidden", 0);
    assert_int_equal(result.done, 1);
    assert_int_equal(result.failed, 1);
    assert_non_null(strstr(result.first_error, "needle_missing"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_prefills_and_batches_give_what_each_cell_gives_alone),
        cmocka_unit_test(a_run_with_little_memory_computes_more_and_ends_with_the_same_outcomes),
        cmocka_unit_test(plans_under_other_semantics_give_what_each_cell_gives_alone),
        cmocka_unit_test(a_run_in_pieces_ends_with_the_bytes_of_an_uninterrupted_one),
        cmocka_unit_test(a_stopped_run_says_so_keeps_what_is_finished_and_resumes),
        cmocka_unit_test(cells_have_the_same_outcomes_however_many_lanes_compute_them),
        cmocka_unit_test(a_stopped_run_goes_on_with_another_number_of_lanes),
        cmocka_unit_test(devices_that_would_give_other_bits_or_are_not_there_are_refused),
        cmocka_unit_test(a_cell_that_fails_is_stored_reported_and_tried_again),
        cmocka_unit_test(cells_whose_logits_are_not_numbers_fail_alone_and_the_run_goes_on),
        cmocka_unit_test(a_changed_study_runs_only_what_is_new_and_shows_only_itself),
        cmocka_unit_test(a_dry_run_counts_and_writes_nothing),
        cmocka_unit_test(what_would_fail_every_cell_is_an_error_of_the_run_with_its_line),
        cmocka_unit_test(a_folder_of_another_study_or_of_a_run_at_work_is_refused),
        cmocka_unit_test(a_hidden_needle_is_an_error_of_its_cells_alone),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
