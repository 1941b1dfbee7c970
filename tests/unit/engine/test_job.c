/* test_job.c - requests: where stages begin, what is refused, when they stop. */
#include "fixture.h"

#include <math.h>

#include "model/model.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static fixture f;

static int open_all(void **state)
{
    (void)state;
    open_fixture(&f, "cpu");
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    close_fixture(&f);
    return 0;
}

static const int32_t prompt[] = {2, 17, 5, 40, 9, 77, 31};

static ct_generate_request request_of(size_t n, int32_t max_new)
{
    return (ct_generate_request){.prompt = prompt,
                                 .prompt_count = n,
                                 .max_new_tokens = max_new,
                                 .eos = -1,
                                 .keep_logits = true};
}

static ct_job *generate(const ct_generate_request *r)
{
    ct_err err = {0};
    ct_job *job = NULL;
    assert_ok(ct_generate(f.session, r, &job, &err));
    return job;
}

/* Rows are (token, attention layer) pairs: the tiny model has 2 attention layers. */
static void stages_begin_where_the_semantics_say(void **state)
{
    (void)state;
    const struct {
        size_t prompt;
        int32_t max_new;
        bool at_last, cache_off;
        int64_t prefill, generation; /* tokens computed */
    } cases[] = {
        /* paper: n tokens need the prompt and n-1 steps */
        {5, 3, false, false, 5, 2},
        {1, 1, false, false, 1, 0},
        {1, 3, false, false, 1, 2},
        {2, 3, false, false, 2, 2},
        /* reference: the last prompt token is a step; one call of one token is generation */
        {5, 3, true, false, 4, 3},
        {3, 1, true, false, 2, 1},
        {2, 3, true, false, 0, 4},
        {1, 3, true, false, 0, 3},
        /* without a cache each later step computes everything */
        {5, 3, false, true, 5, 6 + 7},
        {5, 3, true, true, 0, 5 + 6 + 7},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        ct_generate_request r = request_of(cases[i].prompt, cases[i].max_new);
        r.intervention.semantics.generation_begins_at_last_prompt_token = cases[i].at_last;
        r.intervention.semantics.kv_cache_off = cases[i].cache_off;
        ct_job *job = generate(&r);
        size_t count;
        ct_job_ids(job, &count);
        assert_int_equal(count, cases[i].max_new);
        const ct_audit *audit = ct_job_audit(job);
        assert_int_equal(audit->rows[CT_STAGE_PREFILL], 2 * cases[i].prefill);
        assert_int_equal(audit->rows[CT_STAGE_GENERATION], 2 * cases[i].generation);
        assert_int_equal(audit->head_rows[CT_STAGE_PREFILL], 0);
        assert_int_equal(audit->edit_rows[CT_STAGE_GENERATION], 0);
        ct_job_free(job);
    }
}

/* Where nothing intervenes, stages and the cache make no difference at all. */
static void staging_alone_changes_no_token(void **state)
{
    (void)state;
    for (size_t n = 1; n <= COUNT(prompt); n++) {
        ct_generate_request r = request_of(n, 4);
        ct_job *plain = generate(&r);
        for (int options = 1; options < 4; options++) {
            r.intervention.semantics.generation_begins_at_last_prompt_token = options & 1;
            r.intervention.semantics.kv_cache_off = options & 2;
            ct_job *other = generate(&r);
            size_t count;
            const int32_t *ids = ct_job_ids(plain, &count);
            assert_memory_equal(ids, ct_job_ids(other, &count), count * sizeof *ids);
            for (int64_t i = 0; i < 4 * f.info->vocab; i++)
                if (!(fabsf(ct_job_logits(plain)[i] - ct_job_logits(other)[i]) <= 2e-4f))
                    fail_msg("prompt %zu, options %d, logit %d", n, options, (int)i);
            ct_job_free(other);
        }
        ct_job_free(plain);
    }
}

static void the_audit_counts_what_was_examined_and_changed(void **state)
{
    (void)state;
    const ct_span needle = {1, 3};
    ct_generate_request r = request_of(6, 4);
    r.intervention.heads = (ct_head_selection){.active = {true, true}, .keep = 1};
    r.intervention.weights[CT_STAGE_PREFILL] = (ct_weight_edit){CT_WEIGHTS_OMIT, &needle, 1};
    r.intervention.weights[CT_STAGE_GENERATION] = (ct_weight_edit){CT_WEIGHTS_NULL, NULL, 0};
    ct_job *job = generate(&r);
    const ct_audit *a = ct_job_audit(job);
    assert_int_equal(a->head_rows[CT_STAGE_PREFILL], 2 * 6);
    assert_int_equal(a->heads_dropped[CT_STAGE_PREFILL], 2 * 6 * 2);
    assert_int_equal(a->heads_dropped[CT_STAGE_GENERATION], 2 * 3 * 2);
    assert_int_equal(a->edit_rows[CT_STAGE_PREFILL], 2 * 6);
    assert_int_equal(a->edit_rows_changed[CT_STAGE_PREFILL], 2 * 5); /* token 0 sees no needle */
    assert_int_equal(a->edit_rows_changed[CT_STAGE_GENERATION], 2 * 3);
    const uint8_t *kept = ct_job_heads_kept(job);
    for (int i = 0; i < 4 * 2; i++)
        assert_int_equal(kept[3 * i] + kept[3 * i + 1] + kept[3 * i + 2], 1);
    ct_job_free(job);

    r.intervention = (ct_intervention){.heads = {.active = {true, true}, .keep = 3}};
    job = generate(&r);
    assert_int_equal(ct_job_audit(job)->head_rows[CT_STAGE_PREFILL], 2 * 6);
    assert_int_equal(ct_job_audit(job)->heads_dropped[CT_STAGE_PREFILL], 0);
    ct_job_free(job);
}

static void keeping_every_head_or_every_weight_changes_no_bit(void **state)
{
    (void)state;
    const ct_span needle = {1, 3}, all = {0, 7};
    ct_generate_request r = request_of(7, 4);
    ct_job *plain = generate(&r);
    size_t bytes = 4 * (size_t)f.info->vocab * sizeof(float);
    ct_intervention same[4] = {0};
    same[0].heads = (ct_head_selection){.active = {true, true}, .keep = 3};
    same[1].weights[CT_STAGE_PREFILL] = (ct_weight_edit){CT_WEIGHTS_KEEP, &needle, 1};
    same[1].weights[CT_STAGE_GENERATION] = same[1].weights[CT_STAGE_PREFILL];
    same[2].weights[CT_STAGE_PREFILL] = (ct_weight_edit){CT_WEIGHTS_ONLY, &all, 1};
    same[3].semantics.prefill_window_full = true; /* 7 tokens are all in the window of 17 */
    for (size_t i = 0; i < COUNT(same); i++) {
        r.intervention = same[i];
        ct_job *job = generate(&r);
        assert_memory_equal(ct_job_logits(plain), ct_job_logits(job), bytes);
        ct_job_free(job);
    }
    /* And one that does change something does. */
    r.intervention.weights[CT_STAGE_PREFILL] = (ct_weight_edit){CT_WEIGHTS_OMIT, &needle, 1};
    ct_job *job = generate(&r);
    assert_memory_not_equal(ct_job_logits(plain), ct_job_logits(job), bytes);
    ct_job_free(job);
    ct_job_free(plain);
}

static void a_malformed_request_is_refused_with_the_reason(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_job *job = NULL;
    const int32_t big[] = {2, 97}, negative[] = {-1};
    const ct_span beyond = {5, 8};
    ct_generate_request r = request_of(0, 3);
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_VALUE, "prompt: expected 1 or more");
    r = request_of(3, 0);
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_VALUE, "new tokens: expected 1 to");
    r = request_of(3, -1);
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_VALUE, "got -1");
    r = request_of(3, 3);
    r.prompt = big;
    r.prompt_count = 2;
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_VALUE,
                 "prompt: token 1: expected an id from 0 to 96 (the model's vocabulary), got 97");
    r = request_of(3, 3);
    r.force_ids = negative;
    r.force_count = 1;
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_VALUE, "forced ids: token 0");
    r = request_of(3, 3);
    r.intervention.heads = (ct_head_selection){.active = {true, false}, .keep = 4};
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_VALUE, "0 to 3 heads");
    r = request_of(7, 3);
    r.intervention.weights[CT_STAGE_GENERATION] = (ct_weight_edit){CT_WEIGHTS_ONLY, &beyond, 1};
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_VALUE,
                 "below the prompt's length 7, got 7");
    r = request_of(3, 3);
    r.sampling.temperature = -1;
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_VALUE, "temperature");
    r.sampling = (ct_sampling){.temperature = NAN};
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_VALUE, "temperature");
    r.sampling = (ct_sampling){.top_p = 1.5f};
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_VALUE, "top_p");
    r.sampling = (ct_sampling){.top_k = -2};
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_VALUE, "top_k");
    assert_null(job);
}

static void a_mean_over_the_prompt_is_refused_where_it_includes_the_last_token(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_job *job = NULL;
    const ct_span last = {6, 7}, before = {5, 6};
    ct_generate_request r = request_of(7, 3);
    assert_ok(ct_semantics_parse("reference", "griffin", &r.intervention.semantics, &err));
    r.intervention.weights[CT_STAGE_PREFILL] = (ct_weight_edit){CT_WEIGHTS_BINARY, &last, 1};
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_VALUE, "not defined at position 6");
    r.intervention.weights[CT_STAGE_PREFILL].spans = &before;
    ct_job_free(generate(&r));
}

static void an_intervention_that_can_reach_no_row_is_an_error_from_the_start(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_job *job = NULL;
    ct_generate_request r = request_of(5, 1);
    r.intervention.heads = (ct_head_selection){.active = {false, true}, .keep = 1};
    assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_INTERVENTION,
                 "it acts in generation only, where this request computes no row");
    r.intervention.semantics.generation_begins_at_last_prompt_token = true;
    ct_job_free(generate(&r));
    for (size_t n = 1; n <= 2; n++) {
        r = request_of(n, 3);
        r.intervention.weights[CT_STAGE_PREFILL].mode = CT_WEIGHTS_NULL;
        r.intervention.semantics.generation_begins_at_last_prompt_token = true;
        assert_fails(ct_job_new(f.model, &r, &job, &err), CT_ERR_INTERVENTION, "prefill only");
    }
}

static void the_end_of_text_stops_and_is_part_of_the_ids(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_generate_request r = request_of(7, 6);
    ct_job *job = generate(&r);
    size_t count;
    int32_t ids[6];
    memcpy(ids, ct_job_ids(job, &count), sizeof ids);
    ct_job_free(job);

    /* On the first token: checked in paper, ignored in reference. */
    r.eos = ids[0];
    job = generate(&r);
    ct_job_ids(job, &count);
    assert_int_equal(count, 1);
    ct_job_free(job);
    r.intervention.semantics.eos_on_first_token_ignored = true;
    job = generate(&r);
    ct_job_ids(job, &count);
    size_t expected = 1;
    while (expected < 6 && ids[expected] != ids[0]) expected++;
    assert_int_equal(count, expected < 6 ? expected + 1 : 6);
    ct_job_free(job);

    /* An intervention in generation that the stop leaves without a row ends in an error. */
    r.intervention = (ct_intervention){.heads = {.active = {false, true}, .keep = 1}};
    assert_fails(ct_generate(f.session, &r, &job, &err), CT_ERR_INTERVENTION,
                 "acts in generation, but no row was computed there");
}

static void forced_ids_are_fed_while_the_chosen_ones_are_reported(void **state)
{
    (void)state;
    const int32_t force[] = {50, 51, 52};
    int32_t longer[10];
    memcpy(longer, prompt, sizeof prompt);
    memcpy(longer + 7, force, sizeof force);
    ct_generate_request r = request_of(7, 5);
    r.force_ids = force;
    r.force_count = 3;
    ct_job *forced = generate(&r);
    size_t count;
    const int32_t *ids = ct_job_ids(forced, &count);
    assert_int_equal(count, 5);
    assert_true(ids[0] != 50 || ids[1] != 51 || ids[2] != 52);
    /* Token 3 is chosen after prompt + forced ids: the same as with these as the prompt. */
    ct_generate_request whole = {
        .prompt = longer, .prompt_count = 10, .max_new_tokens = 2, .eos = -1};
    ct_job *job = generate(&whole);
    assert_memory_equal(ids + 3, ct_job_ids(job, &count), 2 * sizeof *ids);
    ct_job_free(job);
    ct_job_free(forced);

    /* What ends a replayed text is an end of text in it. */
    r.eos = 51;
    forced = generate(&r);
    ct_job_ids(forced, &count);
    assert_int_equal(count, 2);
    ct_job_free(forced);
}

static void logits_that_are_not_numbers_end_the_job_and_leave_the_step_whole(void **state)
{
    (void)state;
    ct_err err = {0};
    fixture broken;
    open_fixture(&broken, "cpu");
    float *norm = malloc((size_t)broken.info->width * sizeof *norm);
    assert_non_null(norm);
    const float *good = broken.model->final_norm;
    memcpy(norm, good, (size_t)broken.info->width * sizeof *norm);
    ct_generate_request r = request_of(7, 3);
    ct_job *job = NULL;
    assert_ok(ct_job_new(broken.model, &r, &job, &err));
    assert_ok(ct_jobs_step(broken.session, &job, 1, &err));
    assert_int_equal(ct_job_get_state(job), CT_JOB_DECODE);
    norm[5] = NAN;
    broken.model->final_norm = norm;
    assert_ok(ct_jobs_step(broken.session, &job, 1, &err));
    assert_int_equal(ct_job_get_state(job), CT_JOB_DONE);
    size_t count;
    ct_job_ids(job, &count);
    assert_int_equal(count, 1);
    assert_fails(ct_job_check(job, &err), CT_ERR_VALUE, "step 1: the logit of token 0 is not");
    ct_job_free(job);
    assert_fails(ct_generate(broken.session, &r, &job, &err), CT_ERR_VALUE, "step 0");
    broken.model->final_norm = good;
    free(norm);
    close_fixture(&broken);
}

static void a_step_refuses_what_it_cannot_run(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_sequence *sequence = NULL;
    assert_ok(ct_sequence_new(f.model, &sequence, &err));
    const int32_t bad = 97;
    ct_row row = {.sequence = sequence, .ids = prompt, .count = 0};
    assert_fails(ct_step(f.session, &row, 1, &err), CT_ERR_USAGE, "expected 1 or more tokens");
    row = (ct_row){.sequence = sequence, .ids = &bad, .count = 1};
    assert_fails(ct_step(f.session, &row, 1, &err), CT_ERR_VALUE, "got 97");
    row = (ct_row){.sequence = sequence, .ids = prompt, .count = 2};
    ct_row twice[] = {row, row};
    assert_fails(ct_step(f.session, twice, 2, &err), CT_ERR_USAGE, "in another row too");
    row.want = CT_LOGITS_LAST;
    assert_fails(ct_step(f.session, &row, 1, &err), CT_ERR_USAGE, "no room for its logits");
    row = (ct_row){.ids = prompt, .count = 2};
    assert_fails(ct_step(f.session, &row, 1, &err), CT_ERR_USAGE,
                 "sequence of the session's model");
    /* A refused step leaves the sequence as it was. */
    assert_int_equal(ct_sequence_position(sequence), 0);
    row = (ct_row){.sequence = sequence, .ids = prompt, .count = 2};
    assert_ok(ct_step(f.session, &row, 1, &err));
    assert_int_equal(ct_sequence_position(sequence), 2);

    const ct_span span = {0, 1};
    ct_intervention iv = {.semantics = {.binary_mean_per_layer = true}};
    iv.weights[CT_STAGE_PREFILL] = (ct_weight_edit){CT_WEIGHTS_BINARY, &span, 1};
    row.intervention = &iv;
    assert_fails(ct_step(f.session, &row, 1, &err), CT_ERR_UNSUPPORTED, "needs it in one call");
    assert_ok(ct_step(f.session, NULL, 0, &err));
    ct_sequence_free(sequence);
}

static void keys_that_left_the_window_are_dropped_and_missed_by_a_full_window(void **state)
{
    (void)state;
    ct_err err = {0};
    int32_t *ids = random_ids(&f, 200, 5);
    ct_sequence *local = NULL, *full = NULL;
    ct_intervention iv = {.semantics = {.prefill_window_full = true}};
    assert_ok(ct_sequence_new(f.model, &local, &err));
    assert_ok(ct_sequence_new(f.model, &full, &err));
    ct_row rows[] = {{.sequence = local, .ids = ids, .count = 200},
                     {.sequence = full, .ids = ids, .count = 200, .intervention = &iv}};
    assert_ok(ct_step(f.session, rows, 2, &err));
    int64_t fixed = f.info->state_bytes_fixed, block = f.info->state_bytes_per_block;
    /* Position 200 sees 184..200: blocks 2 and 3 of 0..3 stay. */
    assert_int_equal(ct_sequence_bytes(local), fixed + 2 * block);
    assert_int_equal(ct_sequence_bytes(full), fixed + 4 * block);
    /* 4 recurrent layers of 60 channels: h and 3 inputs; 2 attention layers of 64 x 16 x 2. */
    assert_int_equal(fixed, 4 * 60 * 4 * 4);
    assert_int_equal(block, 2 * 2 * 64 * 16 * 4);
    rows[0].intervention = &iv;
    assert_fails(ct_step(f.session, rows, 1, &err), CT_ERR_USAGE,
                 "before position 128 left the window");
    ct_sequence_free(local);
    ct_sequence_free(full);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stages_begin_where_the_semantics_say),
        cmocka_unit_test(staging_alone_changes_no_token),
        cmocka_unit_test(the_audit_counts_what_was_examined_and_changed),
        cmocka_unit_test(keeping_every_head_or_every_weight_changes_no_bit),
        cmocka_unit_test(a_malformed_request_is_refused_with_the_reason),
        cmocka_unit_test(a_mean_over_the_prompt_is_refused_where_it_includes_the_last_token),
        cmocka_unit_test(an_intervention_that_can_reach_no_row_is_an_error_from_the_start),
        cmocka_unit_test(the_end_of_text_stops_and_is_part_of_the_ids),
        cmocka_unit_test(forced_ids_are_fed_while_the_chosen_ones_are_reported),
        cmocka_unit_test(logits_that_are_not_numbers_end_the_job_and_leave_the_step_whole),
        cmocka_unit_test(a_step_refuses_what_it_cannot_run),
        cmocka_unit_test(keys_that_left_the_window_are_dropped_and_missed_by_a_full_window),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
