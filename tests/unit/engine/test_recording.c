/* test_recording.c - recordings: they change no bit, hold the rows that were asked for, refuse what is
 * too large or not there, and a prefill that is recorded is not shared. */
#include "fixture.h"

#include <math.h>

#include "intervene/record.h"

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

enum { PROMPT = 700, NEW = 5, ALL = CT_RECORD_WEIGHTS | CT_RECORD_HEADS | CT_RECORD_LIGHT };
static const ct_span needle = {60, 70};

/* Three heads of some kept in both stages, the needle alone in generation. */
static ct_generate_request request_of(const int32_t *ids, const ct_record_options *record)
{
    ct_generate_request r = {.prompt = ids,
                             .prompt_count = PROMPT,
                             .max_new_tokens = NEW,
                             .eos = -1,
                             .record = record,
                             .keep_logits = true};
    r.intervention.heads = (ct_head_selection){.active = {true, true}, .keep = 2};
    r.intervention.weights[CT_STAGE_GENERATION] = (ct_weight_edit){CT_WEIGHTS_ONLY, &needle, 1};
    return r;
}

static ct_record_options options_of(unsigned what, ct_record_steps steps)
{
    return (ct_record_options){
        .what = what, .stages = {true, true}, .steps = steps, .needle = &needle, .n_needle = 1};
}

static ct_job *generate(const ct_generate_request *r)
{
    ct_err err = {0};
    ct_job *job = NULL;
    assert_ok(ct_generate(f.session, r, &job, &err));
    return job;
}

static void a_recorded_request_has_the_outcome_of_an_unrecorded_one(void **state)
{
    (void)state;
    int32_t *ids = random_ids(&f, PROMPT, 1);
    ct_generate_request plain = request_of(ids, NULL);
    ct_job *want = generate(&plain);
    assert_null(ct_job_recording(want));
    for (unsigned what = 1; what <= ALL; what++) {
        const ct_record_options record = options_of(what, CT_RECORD_ALL);
        ct_generate_request r = request_of(ids, &record);
        ct_job *job = generate(&r);
        assert_same_outcome(&f, want, job);
        ct_job_free(job);
    }
    ct_job_free(want);
    free(ids);
}

/* Row `at` of b is row `from` of a, to the bit; they may have different columns. */
static void assert_same_row(const ct_recording *a, const ct_recording *b, ct_stage stage,
                            int64_t from, int64_t at)
{
    const ct_record_track *x = &a->tracks[stage], *y = &b->tracks[stage];
    size_t n = (size_t)(a->n_layers * a->heads);
    size_t i = (size_t)from * n, j = (size_t)at * n;
    assert_int_equal(x->position[from], y->position[at]);
    assert_int_equal(x->keys, y->keys);
    assert_memory_equal(x->before + i * (size_t)x->keys, y->before + j * (size_t)y->keys,
                        n * (size_t)x->keys * sizeof(float));
    assert_memory_equal(x->after + i * (size_t)x->keys, y->after + j * (size_t)y->keys,
                        n * (size_t)x->keys * sizeof(float));
    assert_memory_equal(x->entropy_bits + i, y->entropy_bits + j, n * sizeof(float));
    assert_memory_equal(x->needle_after + i, y->needle_after + j, n * sizeof(float));
    assert_memory_equal(x->peak + i, y->peak + j, n * sizeof(int32_t));
    assert_memory_equal(x->heads_kept + i, y->heads_kept + j, n);
}

static void first_and_last_are_rows_of_all(void **state)
{
    (void)state;
    int32_t *ids = random_ids(&f, PROMPT, 2);
    ct_job *jobs[3];
    const ct_recording *r[3];
    for (int steps = 0; steps < 3; steps++) {
        const ct_record_options record = options_of(ALL, (ct_record_steps)steps);
        ct_generate_request request = request_of(ids, &record);
        jobs[steps] = generate(&request);
        r[steps] = ct_job_recording(jobs[steps]);
    }
    const ct_recording *all = r[CT_RECORD_ALL];
    assert_int_equal(all->tracks[CT_STAGE_PREFILL].rows, PROMPT);
    assert_int_equal(all->tracks[CT_STAGE_GENERATION].rows, NEW - 1);
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++) {
        const ct_record_track *t = &all->tracks[stage];
        assert_int_equal(r[CT_RECORD_FIRST]->tracks[stage].rows, 1);
        assert_int_equal(r[CT_RECORD_LAST]->tracks[stage].rows, 1);
        assert_same_row(all, r[CT_RECORD_FIRST], (ct_stage)stage, 0, 0);
        assert_same_row(all, r[CT_RECORD_LAST], (ct_stage)stage, t->rows - 1, 0);
        for (int64_t i = 0; i < t->rows; i++)
            assert_int_equal(t->position[i], i + (stage == CT_STAGE_GENERATION ? PROMPT : 0));
    }
    /* The last rows' heads are those that the job reports. */
    const ct_record_track *t = &r[CT_RECORD_LAST]->tracks[CT_STAGE_GENERATION];
    size_t heads = (size_t)(all->n_layers * all->heads);
    assert_memory_equal(t->heads_kept, ct_job_heads_kept(jobs[0]) + (NEW - 1) * heads, heads);
    for (int i = 0; i < 3; i++) ct_job_free(jobs[i]);
    free(ids);
}

static void light_says_what_the_rows_say(void **state)
{
    (void)state;
    int32_t *ids = random_ids(&f, PROMPT, 3);
    const ct_record_options record = options_of(ALL, CT_RECORD_ALL);
    const ct_record_options light = options_of(CT_RECORD_LIGHT, CT_RECORD_ALL);
    ct_generate_request r = request_of(ids, &record), s = request_of(ids, &light);
    ct_job *job = generate(&r), *other = generate(&s);
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++) {
        const ct_record_track *t = &ct_job_recording(job)->tracks[stage];
        const ct_record_track *u = &ct_job_recording(other)->tracks[stage];
        int64_t heads = f.info->attention_layers * f.info->heads;
        assert_null(u->before);
        assert_null(u->heads_kept);
        for (int64_t i = 0; i < t->rows * heads; i++) {
            double entropy = 0, mass = 0;
            for (int64_t k = 0; k < t->keys; k++) {
                double w = (double)t->before[i * t->keys + k];
                entropy -= w > 0 ? w * log2(w) : 0;
                if (k >= needle.begin && k < needle.end) mass += w;
                assert_true((double)t->before[i * t->keys + k] <= (double)t->peak_weight[i] + 1e-6);
            }
            assert_true(fabs(entropy - (double)t->entropy_bits[i]) < 1e-4); /* 10 bits in f32 */
            assert_true(fabs(mass - (double)t->needle_before[i]) < 1e-6);
            double peak = (double)t->before[i * t->keys + t->peak[i]];
            assert_true(fabs(peak - (double)t->peak_weight[i]) < 1e-6);
            /* `only` acts in generation: nothing but the needle is left. Prefill has no edit. */
            assert_true(t->needle_after[i] == t->needle_before[i]);
        }
        size_t bytes = (size_t)(t->rows * heads) * sizeof(float);
        assert_memory_equal(t->entropy_bits, u->entropy_bits, bytes);
        assert_memory_equal(t->needle_before, u->needle_before, bytes);
        assert_memory_equal(t->peak, u->peak, bytes);
    }
    ct_job_free(job);
    ct_job_free(other);
    free(ids);
}

static void what_is_too_large_or_not_there_is_refused_before_anything_runs(void **state)
{
    (void)state;
    ct_err err = {0};
    int32_t *ids = random_ids(&f, PROMPT, 4);
    const int64_t wrong[] = {0}, twice[] = {2, 2};
    const ct_span outside = {PROMPT, PROMPT + NEW + 1};
    ct_record_options record = options_of(ALL, CT_RECORD_ALL);
    ct_generate_request r = request_of(ids, &record);
    /* 2 layers of heads, 8 bytes a weight: prefill alone is 700 x 700. */
    int64_t heads = f.info->attention_layers * f.info->heads, keys = PROMPT + NEW;
    int64_t bytes = heads * (PROMPT * (PROMPT * 8 + 21) + NEW * (keys * 8 + 21));
    assert_int_equal(ct_request_recording_bytes(f.model, &r), bytes);
    record.limit = bytes;
    assert_ok(ct_request_check(f.model, &r, &err));
    record.limit = bytes - 1;
    assert_fails(ct_request_check(f.model, &r, &err), CT_ERR_LIMIT, "record fewer steps");
    record = options_of(0, CT_RECORD_ALL);
    assert_fails(ct_request_check(f.model, &r, &err), CT_ERR_USAGE, "something to record");
    record = options_of(ALL, CT_RECORD_LAST);
    record.layers = wrong;
    record.n_layers = 1;
    assert_fails(ct_request_check(f.model, &r, &err), CT_ERR_VALUE, "attention layers");
    record.layers = twice;
    record.n_layers = 2;
    assert_fails(ct_request_check(f.model, &r, &err), CT_ERR_VALUE, "attention layers");
    record = options_of(ALL, CT_RECORD_LAST);
    record.needle = &outside;
    assert_fails(ct_request_check(f.model, &r, &err), CT_ERR_VALUE, "inside the prompt");
    free(ids);
}

static void a_recorded_prefill_is_shared_with_nobody(void **state)
{
    (void)state;
    ct_err err = {0};
    int32_t *ids = random_ids(&f, PROMPT, 5);
    ct_record_options one = options_of(ALL, CT_RECORD_LAST), two = one, late = one;
    two.number = 1;
    late.stages[CT_STAGE_PREFILL] = false;
    ct_generate_request plain = request_of(ids, NULL), a = request_of(ids, &one);
    ct_generate_request b = request_of(ids, &two), c = request_of(ids, &late);
    int order = 0, back = 0;
    assert_int_equal(ct_request_shared_prefill(f.model, &plain, &a, &order), 0);
    assert_int_equal(ct_request_shared_prefill(f.model, &a, &b, &order), 0);
    assert_int_equal(ct_request_shared_prefill(f.model, &b, &a, &back), 0);
    assert_true(order < 0 && back > 0);
    assert_int_equal(ct_request_shared_prefill(f.model, &plain, &c, &order), PROMPT);
    assert_int_equal(order, 0);
    /* Nor can it be forked into, and the fork of an unrecorded one records its generation. */
    ct_job *at = NULL, *fork = NULL;
    assert_ok(ct_job_new(f.model, &plain, &at, &err));
    while (ct_job_get_state(at) == CT_JOB_PREFILL) assert_ok(ct_jobs_step(f.session, &at, 1, &err));
    assert_fails(ct_job_fork(at, &a, &fork, &err), CT_ERR_USAGE, "computes all of it itself");
    assert_ok(ct_job_fork(at, &c, &fork, &err));
    while (ct_job_get_state(fork) != CT_JOB_DONE)
        assert_ok(ct_jobs_step(f.session, &fork, 1, &err));
    ct_job *alone = generate(&c);
    assert_same_row(ct_job_recording(alone), ct_job_recording(fork), CT_STAGE_GENERATION, 0, 0);
    ct_job_free(at);
    ct_job_free(fork);
    ct_job_free(alone);
    free(ids);
}

/* The last step's weights are computed when the request has ended, from the keys that its query saw: the
 * tiny model's window of 16 leaves a block behind at position 79. Under each edit, with what the published
 * code does in generation, and without a cache. */
static void the_last_step_is_that_of_all_wherever_it_stands(void **state)
{
    (void)state;
    enum { STEPS = 70, FEW = 70 };
    int32_t *ids = random_ids(&f, FEW, 6);
    const ct_span near = {60, 70};
    for (int variant = 0; variant < 7; variant++) {
        bool anew = variant == 6;
        ct_record_options record = {.what = ALL,
                                    .stages = {false, true},
                                    .steps = CT_RECORD_ALL,
                                    .needle = &near,
                                    .n_needle = 1};
        ct_generate_request r = {.prompt = ids,
                                 .prompt_count = FEW,
                                 .max_new_tokens = STEPS,
                                 .eos = -1,
                                 .record = &record};
        r.intervention.weights[CT_STAGE_GENERATION] =
            (ct_weight_edit){(ct_weights_mode)(variant % 5), &near, 1};
        if (variant >= 5) {
            r.intervention.weights[CT_STAGE_GENERATION].mode = CT_WEIGHTS_BINARY;
            r.intervention.semantics.binary_mean_per_layer = true;
        }
        r.intervention.semantics.kv_cache_off = anew;
        ct_job *all = generate(&r);
        record.steps = CT_RECORD_LAST;
        for (int32_t n = 2; n <= STEPS; n += anew ? 17 : 1) {
            r.max_new_tokens = n;
            ct_job *job = generate(&r);
            const ct_record_track *t = &ct_job_recording(job)->tracks[CT_STAGE_GENERATION];
            const ct_record_track *u = &ct_job_recording(all)->tracks[CT_STAGE_GENERATION];
            size_t heads = (size_t)(f.info->attention_layers * f.info->heads);
            assert_int_equal(t->rows, 1);
            assert_int_equal(t->position[0], u->position[n - 2]);
            for (size_t h = 0; h < heads; h++) {
                size_t i = (size_t)(n - 2) * heads + h;
                size_t bytes = (size_t)(t->position[0] + 1) * sizeof(float);
                assert_memory_equal(t->before + h * (size_t)t->keys,
                                    u->before + i * (size_t)u->keys, bytes);
                assert_memory_equal(t->after + h * (size_t)t->keys, u->after + i * (size_t)u->keys,
                                    bytes);
            }
            ct_job_free(job);
        }
        ct_job_free(all);
    }
    free(ids);
}

/* ---- a backend in another memory ------------------------------------------------------------- */

/* The reference as a backend that says its memory is not the host's: its operations see the same numbers,
 * and what a recording holds must have come by `read`, from memory that `alloc` gave, while a pass is under
 * way that is not replayed. */
static struct elsewhere {
    const ct_ops *base;
    bool pass, asked; /* asked: of memory, within a pass, and not yet waited for */
    int64_t reads, weighed;
} elsewhere;

static void *alloc_elsewhere(ct_device *device, size_t bytes)
{
    elsewhere.asked = elsewhere.pass;
    return elsewhere.base->alloc(device, bytes);
}

static ct_status write_elsewhere(ct_device *device, void *to, const void *from, size_t bytes,
                                 ct_err *err)
{
    elsewhere.asked = elsewhere.pass;
    return elsewhere.base->write(device, to, from, bytes, err);
}

static ct_status sync_elsewhere(ct_device *device, ct_err *err)
{
    (void)device, (void)err;
    elsewhere.asked = false;
    return CT_OK;
}

static ct_status begin_elsewhere(ct_op_ctx *ctx, ct_batch *batch, const void *memory,
                                 uint64_t shape, bool *replayed, ct_err *err)
{
    assert_false(elsewhere.pass);
    elsewhere.pass = true;
    assert_true(batch->segs[0].position >= 0 && batch->ids[0] >= 0 && batch->states[0]);
    return elsewhere.base->begin(ctx, batch, memory, shape, replayed, err);
}

static ct_status end_elsewhere(ct_op_ctx *ctx, ct_batch *batch, ct_err *err)
{
    assert_true(elsewhere.pass);
    elsewhere.pass = false;
    return elsewhere.base->end(ctx, batch, err);
}

static ct_status read_elsewhere(ct_device *device, void *to, const void *from, size_t bytes,
                                ct_err *err)
{
    elsewhere.reads++;
    return elsewhere.base->read(device, to, from, bytes, err);
}

/* Rows are parts of the batch's runs, and one token's edit is its run's. */
static ct_status weigh_elsewhere(ct_op_ctx *ctx, const ct_attn_args *args,
                                 const ct_weights_out *out, ct_err *err)
{
    assert_true(elsewhere.pass && ctx->plain && !elsewhere.asked);
    assert_non_null(args->batch);
    for (int64_t r = 0; r < args->n_rows; r++) {
        const ct_attn_row *row = &args->rows[r], *run = args->batch->runs;
        while (row->seg.first >= run->seg.first + run->seg.count) run++;
        assert_true(run < args->batch->runs + args->batch->n_runs);
        assert_true(row->seg.first + row->seg.count <= run->seg.first + run->seg.count);
        assert_int_equal(row->seg.position - run->seg.position, row->seg.first - run->seg.first);
        assert_true(row->edit == run->edit && row->marked == run->marked && row->k == run->k);
        elsewhere.weighed += row->seg.count;
    }
    return elsewhere.base->attention_weights(ctx, args, out, err);
}

/* Only the listed tokens' numbers are made, as on a GPU. */
static ct_status attend_elsewhere(ct_op_ctx *ctx, const ct_attn_args *args, ct_err *err)
{
    ct_status st = elsewhere.base->attention(ctx, args, err);
    for (int64_t r = 0; args->light && r < args->n_rows; r++)
        for (int64_t t = 0; t < args->rows[r].seg.count; t++) {
            const ct_attn_row *row = &args->rows[r];
            if (t >= row->light_first && t < row->light_first + row->n_light) continue;
            for (int64_t h = 0; h < args->heads; h++) {
                int64_t i = (row->seg.first + t) * args->heads + h;
                args->light->needle_before[i] = args->light->peak_weight[i] = NAN;
                args->light->needle_after[i] = NAN;
                args->light->peak[i] = -1;
            }
        }
    return st;
}

static ct_status logits_elsewhere(ct_op_ctx *ctx, const ct_logits_args *args, ct_err *err)
{
    static float room[CT_LOGITS_ROOM];
    ct_logits_args with = *args;
    with.room = room;
    return elsewhere.base->logits(ctx, &with, err);
}

static void assert_same_track(const ct_recording *a, const ct_recording *b, ct_stage stage)
{
    const ct_record_track *x = &a->tracks[stage], *y = &b->tracks[stage];
    size_t n = (size_t)(x->rows * a->n_layers * a->heads), bytes = n * sizeof(float);
    assert_int_equal(x->rows, y->rows);
    assert_true(x->rows > 0);
    if (x->before) {
        assert_memory_equal(x->before, y->before, bytes * (size_t)x->keys);
        assert_memory_equal(x->after, y->after, bytes * (size_t)x->keys);
    }
    if (x->heads_kept) assert_memory_equal(x->heads_kept, y->heads_kept, n);
    if (!x->peak) return;
    assert_memory_equal(x->entropy_bits, y->entropy_bits, bytes);
    assert_memory_equal(x->needle_before, y->needle_before, bytes);
    assert_memory_equal(x->needle_after, y->needle_after, bytes);
    assert_memory_equal(x->peak_weight, y->peak_weight, bytes);
    assert_memory_equal(x->peak, y->peak, bytes);
}

static void what_another_memory_holds_is_recorded_as_the_host_s_own(void **state)
{
    (void)state;
    fixture g;
    open_fixture(&g, "ref");
    const ct_ops *base = elsewhere.base = g.model->ops;
    ct_ops ops = *base;
    ops.host_memory = false;
    ops.begin = begin_elsewhere;
    ops.end = end_elsewhere;
    ops.read = read_elsewhere;
    ops.alloc = alloc_elsewhere;
    ops.write = write_elsewhere;
    ops.sync = sync_elsewhere;
    ops.attention_weights = weigh_elsewhere;
    ops.attention = attend_elsewhere;
    ops.logits = logits_elsewhere;
    int32_t *ids = random_ids(&g, 150, 7);
    for (unsigned what = 1; what <= ALL; what++)
        for (int steps = 0; steps < 3; steps++)
            for (int mode = what == ALL ? 0 : 5; mode < 6; mode++) { /* 5: one mean for a layer */
                ct_err err = {0};
                const ct_record_options record = options_of(what, (ct_record_steps)steps);
                ct_generate_request r = request_of(ids, &record);
                r.prompt_count = 150;
                for (int s = 0; s < CT_STAGE_COUNT; s++)
                    r.intervention.weights[s] = (ct_weight_edit){
                        mode == 5 ? CT_WEIGHTS_BINARY : (ct_weights_mode)mode, &needle, 1};
                r.intervention.semantics.binary_mean_per_layer = mode == 5;
                ct_job *want = NULL, *got = NULL;
                assert_ok(ct_generate(g.session, &r, &want, &err));
                ct_session *session = NULL; /* its working memory is another where the logits' is */
                elsewhere.reads = elsewhere.weighed = 0;
                g.model->ops = &ops;
                assert_ok(ct_session_new(g.model, &session, &err));
                assert_ok(ct_generate(session, &r, &got, &err));
                ct_session_free(session);
                g.model->ops = base;
                assert_same_outcome(&g, want, got);
                for (int stage = 0; stage < CT_STAGE_COUNT; stage++)
                    assert_same_track(ct_job_recording(want), ct_job_recording(got),
                                      (ct_stage)stage);
                assert_true(elsewhere.reads > 0 &&
                            (elsewhere.weighed > 0) == ((what & CT_RECORD_WEIGHTS) != 0));
                ct_job_free(want);
                ct_job_free(got);
            }
    free(ids);
    close_fixture(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_recorded_request_has_the_outcome_of_an_unrecorded_one),
        cmocka_unit_test(first_and_last_are_rows_of_all),
        cmocka_unit_test(the_last_step_is_that_of_all_wherever_it_stands),
        cmocka_unit_test(light_says_what_the_rows_say),
        cmocka_unit_test(what_is_too_large_or_not_there_is_refused_before_anything_runs),
        cmocka_unit_test(a_recorded_prefill_is_shared_with_nobody),
        cmocka_unit_test(what_another_memory_holds_is_recorded_as_the_host_s_own),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
