/* test_fork.c - prefills that requests share: what counts as shared is equal to the bit, and a job
 * that was forked anywhere in it is the job alone, in its ids, logits, heads, and audit.
 *
 * On the tiny Griffin (3 heads, window 16, so that blocks are dropped on the way).
 */
#include "fixture.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const char *const devices[] = {"ref", "cpu", "cpu bf16"};
enum { HEADS = 3, TOKENS = 192, NEW_TOKENS = 3, CUTS = TOKENS / 64 };

static const ct_span late[] = {{70, 80}}, late_in_two[] = {{70, 75}, {75, 80}},
                     later[] = {{70, 80}, {130, 131}}, last[] = {{140, 150}}, first[] = {{0, 2}};

typedef struct variant {
    const char *name;
    int32_t keep; /* in prefill; -1: no selection */
    ct_metric metric;
    uint64_t seed;
    ct_weights_mode mode; /* in prefill */
    const ct_span *spans;
    size_t n_spans;
    bool full, per_layer, at_last;
} variant;

#define SPANS(s) s, COUNT(s)

static const variant variants[] = {
    {.name = "none", .keep = -1},
    {.name = "k = H", .keep = HEADS, .metric = CT_METRIC_L2},
    {.name = "keep at positions", .keep = -1, .spans = late, .n_spans = 1},
    {"omit late", -1, 0, 0, CT_WEIGHTS_OMIT, SPANS(late), 0, 0, 0},
    {"omit late in two", HEADS, 0, 0, CT_WEIGHTS_OMIT, SPANS(late_in_two), 0, 0, 0},
    {"omit later", -1, 0, 0, CT_WEIGHTS_OMIT, SPANS(later), 0, 0, 0},
    {"omit last", -1, 0, 0, CT_WEIGHTS_OMIT, SPANS(last), 0, 0, 0},
    {"omit first", -1, 0, 0, CT_WEIGHTS_OMIT, SPANS(first), 0, 0, 0},
    {.name = "null", .keep = -1, .mode = CT_WEIGHTS_NULL},
    {"null at positions", -1, 0, 0, CT_WEIGHTS_NULL, SPANS(late), 0, 0, 0},
    {.name = "null, k = 1", .keep = 1, .mode = CT_WEIGHTS_NULL},
    {.name = "k = 0"},
    {.name = "k = 0, random", .metric = CT_METRIC_RANDOM, .seed = 3},
    {"k = 0, omit", 0, 0, 0, CT_WEIGHTS_OMIT, SPANS(late), 0, 0, 0},
    {"only late", -1, 0, 0, CT_WEIGHTS_ONLY, SPANS(late), 0, 0, 0},
    {"only later", -1, 0, 0, CT_WEIGHTS_ONLY, SPANS(later), 0, 0, 0},
    {"only late, k = 2", 2, 0, 0, CT_WEIGHTS_ONLY, SPANS(late), 0, 0, 0},
    {"only last", -1, 0, 0, CT_WEIGHTS_ONLY, SPANS(last), 0, 0, 0},
    {"only first", -1, 0, 0, CT_WEIGHTS_ONLY, SPANS(first), 0, 0, 0},
    {"binary late", -1, 0, 0, CT_WEIGHTS_BINARY, SPANS(late), 0, 0, 0},
    {"binary last", -1, 0, 0, CT_WEIGHTS_BINARY, SPANS(last), 0, 0, 0},
    {.name = "k = 1, entropy", .keep = 1},
    {.name = "k = 1, entropy, a seed", .keep = 1, .seed = 9},
    {.name = "k = 2, entropy", .keep = 2},
    {.name = "k = 1, inverted", .keep = 1, .metric = CT_METRIC_ENTROPY_INVERTED},
    {.name = "k = 1, random 0", .keep = 1, .metric = CT_METRIC_RANDOM},
    {.name = "k = 1, random 7", .keep = 1, .metric = CT_METRIC_RANDOM, .seed = 7},
    {"k = 1, omit late", 1, 0, 0, CT_WEIGHTS_OMIT, SPANS(late), 0, 0, 0},
    {.name = "full", .keep = -1, .full = true},
    {"full, omit late", -1, 0, 0, CT_WEIGHTS_OMIT, SPANS(late), true, 0, 0},
    {"binary late per layer", -1, 0, 0, CT_WEIGHTS_BINARY, SPANS(late), 0, true, 0},
    {"binary last per layer", -1, 0, 0, CT_WEIGHTS_BINARY, SPANS(last), 0, true, 0},
    {"omit late per layer", -1, 0, 0, CT_WEIGHTS_OMIT, SPANS(late), 0, true, 0},
    {.name = "none, at last", .keep = -1, .at_last = true},
    {"omit late, at last", -1, 0, 0, CT_WEIGHTS_OMIT, SPANS(late), 0, 0, true},
    {.name = "null, k = 1, at last", .keep = 1, .mode = CT_WEIGHTS_NULL, .at_last = true},
    {.name = "null, at last", .keep = -1, .mode = CT_WEIGHTS_NULL, .at_last = true},
};
enum { VARIANTS = COUNT(variants) };

/* Generation differs with the variant, too: that never matters to prefill. */
static ct_generate_request request_of(const variant *v, const int32_t *ids, int64_t n)
{
    static const ct_span spans[] = {{5, 9}};
    ct_generate_request r = {.prompt = ids,
                             .prompt_count = (size_t)n,
                             .max_new_tokens = NEW_TOKENS,
                             .eos = -1,
                             .keep_logits = true};
    ct_intervention *iv = &r.intervention;
    iv->heads = (ct_head_selection){{v->keep >= 0, v->keep == 1}, v->keep, v->metric, v->seed};
    iv->weights[CT_STAGE_PREFILL] = (ct_weight_edit){v->mode, v->spans, v->n_spans};
    if (v->mode == CT_WEIGHTS_OMIT)
        iv->weights[CT_STAGE_GENERATION] = (ct_weight_edit){CT_WEIGHTS_ONLY, spans, 1};
    iv->semantics.prefill_window_full = v->full;
    iv->semantics.binary_mean_per_layer = v->per_layer;
    iv->semantics.generation_begins_at_last_prompt_token = v->at_last;
    return r;
}

static const variant *named(const char *name)
{
    for (size_t i = 0; i < VARIANTS; i++)
        if (strcmp(variants[i].name, name) == 0) return &variants[i];
    fail_msg("no variant \"%s\"", name);
    return NULL;
}

static bool whole(const variant *v)
{
    return v->mode == CT_WEIGHTS_BINARY && v->per_layer;
}

/* ---- which rows are shared ------------------------------------------------------------------- */

static void as_many_rows_are_shared_as_the_rules_say(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, "cpu");
    int32_t *ids = random_ids(&f, TOKENS, 1);
    enum { ALL = TOKENS, BUT_LAST = TOKENS - 1 };
    static const struct {
        const char *a, *b;
        int64_t rows;
    } cases[] = {
        {"none", "none", ALL},
        {"none", "k = H", ALL},
        {"none", "keep at positions", ALL},
        {"none", "omit late", 70},
        {"k = H", "omit last", 140},
        {"none", "omit first", 0},
        {"omit first", "omit first", ALL},
        {"omit late", "omit late in two", ALL},
        {"omit late", "omit later", 130},
        {"omit late in two", "omit later", 130},
        {"omit late", "omit last", 70},
        {"null", "null at positions", ALL},
        {"null", "k = 0", ALL},
        {"null", "k = 0, random", ALL},
        {"null", "k = 0, omit", ALL},
        {"null", "null, k = 1", BUT_LAST}, /* which heads it keeps there is reported */
        {"null, at last", "null, k = 1, at last", TOKENS - 1},
        {"null", "only late", 70},
        {"k = 0", "binary last", 140},
        {"only late", "binary late", 70},
        {"only late", "only last", 70},
        {"only late", "only later", 130},
        {"only late", "only late, k = 2", 70},
        {"only first", "only late", 0},
        {"null", "only first", 0},
        {"null", "none", 0},
        {"only late", "omit late", 0},
        {"k = 1, entropy", "k = 1, entropy, a seed", ALL},
        {"k = 1, entropy", "k = 2, entropy", 0},
        {"k = 1, entropy", "k = 1, inverted", 0},
        {"k = 1, entropy", "none", 0},
        {"k = 1, entropy", "k = 1, omit late", 70},
        {"k = 1, random 0", "k = 1, random 7", 0},
        {"k = 1, random 7", "k = 1, random 7", ALL},
        {"full", "none", 0},
        {"full", "full, omit late", 70},
        {"binary late per layer", "binary late per layer", ALL},
        {"binary late per layer", "binary last per layer", 0},
        {"binary late per layer", "binary late", 0},
        {"binary late per layer", "null", 0},
        {"omit late", "omit late per layer", ALL},
        {"none", "none, at last", TOKENS - 1},
        {"none, at last", "omit late, at last", 70},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        ct_generate_request a = request_of(named(cases[i].a), ids, TOKENS);
        ct_generate_request b = request_of(named(cases[i].b), ids, TOKENS);
        int order, back;
        int64_t rows = ct_request_shared_prefill(f.model, &a, &b, &order);
        if (rows != cases[i].rows)
            fail_msg("%s and %s: expected %d rows, got %d", cases[i].a, cases[i].b,
                     (int)cases[i].rows, (int)rows);
        assert_int_equal(ct_request_shared_prefill(f.model, &b, &a, &back), rows);
        assert_int_equal((order > 0) - (order < 0), (back < 0) - (back > 0));
        assert_int_equal(order == 0, rows == ct_request_prefill_count(&a) &&
                                         rows == ct_request_prefill_count(&b));
    }
    free(ids);
    close_fixture(&f);
}

static void other_prompts_share_up_to_the_id_that_differs_and_random_heads_nothing(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, "cpu");
    int32_t *ids = random_ids(&f, TOKENS, 1), *other = random_ids(&f, TOKENS, 1);
    other[130]++;
    const variant *none = named("none"), *random = named("k = 1, random 7");
    const variant *at_last = named("none, at last"), *omit = named("omit last");
    const struct {
        const variant *a, *b;
        const int32_t *ids_b;
        int64_t n_a, n_b, rows;
    } cases[] = {
        {none, none, other, TOKENS, TOKENS, 130},
        {none, omit, other, TOKENS, TOKENS, 130},
        {omit, named("omit late"), other, TOKENS, TOKENS, 70},
        {random, random, other, TOKENS, TOKENS, 0},
        {random, random, ids, TOKENS, TOKENS - 1, 0},
        {named("k = 0, random"), named("k = 0, random"), other, TOKENS, TOKENS, 130},
        /* A prefill that ends with a token, and one that goes on there. */
        {none, none, ids, 128, TOKENS, 127},
        {none, none, ids, 1, TOKENS, 0},
        {none, none, ids, 1, 1, 1},
        /* One that ends without. */
        {at_last, at_last, ids, 129, TOKENS, 128},
        {at_last, at_last, ids, 100, TOKENS, 99},
        {at_last, at_last, ids, 1, TOKENS, 0},
        {at_last, none, ids, 129, TOKENS, 128},
        {at_last, none, ids, 129, 128, 127},
        /* The only row of a prompt of two belongs to generation. */
        {at_last, at_last, ids, 2, 2, 1},
        {at_last, at_last, ids, 2, 3, 0},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        ct_generate_request a = request_of(cases[i].a, ids, cases[i].n_a);
        ct_generate_request b = request_of(cases[i].b, cases[i].ids_b, cases[i].n_b);
        int64_t rows = ct_request_shared_prefill(f.model, &a, &b, NULL);
        if (rows != cases[i].rows)
            fail_msg("case %zu: expected %d rows, got %d", i, (int)cases[i].rows, (int)rows);
        assert_int_equal(ct_request_shared_prefill(f.model, &b, &a, NULL), rows);
    }
    free(ids);
    free(other);
    close_fixture(&f);
}

/* For every three: an order, in which the outer two share what both neighbours share. */
static void the_order_puts_requests_together_that_share_rows(void **state)
{
    (void)state;
    fixture f;
    open_fixture(&f, "cpu");
    enum { N = 2 * VARIANTS };
    int32_t *ids = random_ids(&f, TOKENS, 1), *other = random_ids(&f, TOKENS, 1);
    other[75]--;
    static int order[N][N];
    static int64_t rows[N][N];
    ct_generate_request r[N];
    for (size_t i = 0; i < N; i++)
        r[i] = request_of(&variants[i % VARIANTS], i < VARIANTS ? ids : other, TOKENS);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++)
            rows[i][j] = ct_request_shared_prefill(f.model, &r[i], &r[j], &order[i][j]);
    for (size_t i = 0; i < N; i++) {
        assert_int_equal(order[i][i], 0);
        for (size_t j = 0; j < N; j++) {
            assert_int_equal((order[i][j] > 0) - (order[i][j] < 0),
                             (order[j][i] < 0) - (order[j][i] > 0));
            for (size_t k = 0; k < N; k++) {
                if (order[i][j] > 0 || order[j][k] > 0) continue;
                assert_true(order[i][k] <= 0);
                int64_t least = rows[i][j] < rows[j][k] ? rows[i][j] : rows[j][k];
                assert_int_equal(rows[i][k], least);
            }
        }
    }
    free(ids);
    free(other);
    close_fixture(&f);
}

/* ---- bits ------------------------------------------------------------------------------------ */

/* A prefill: logits of all its rows, and the state at every multiple of 64. */
typedef struct prefill {
    float *logits;
    ct_sequence *at[CUTS + 1];
} prefill;

static prefill run(const fixture *f, const int32_t *ids, const variant *v)
{
    ct_err err = {0};
    ct_intervention iv = request_of(v, ids, TOKENS).intervention;
    prefill p = {.logits = malloc((size_t)(TOKENS * f->info->vocab) * sizeof(float))};
    ct_sequence *sequence = NULL;
    assert_non_null(p.logits);
    assert_ok(ct_sequence_new(f->model, &sequence, &err));
    int64_t step = whole(v) ? TOKENS : 64;
    for (int64_t at = 0; at < TOKENS; at += step) {
        ct_row row = {.sequence = sequence,
                      .ids = ids + at,
                      .count = step,
                      .intervention = &iv,
                      .want = CT_LOGITS_ALL,
                      .logits = p.logits + at * f->info->vocab};
        assert_ok(ct_step(f->session, &row, 1, &err));
        assert_ok(ct_sequence_fork(sequence, &p.at[(at + step) / 64], &err));
    }
    ct_sequence_free(sequence);
    return p;
}

static void shared_rows_have_the_same_logits_and_leave_the_same_state_to_the_bit(void **state)
{
    (void)state;
    for (size_t d = 0; d < COUNT(devices); d++) {
        fixture f;
        open_fixture(&f, devices[d]);
        int32_t *ids = random_ids(&f, TOKENS, 2);
        prefill runs[VARIANTS];
        int64_t shared = 0;
        for (size_t i = 0; i < VARIANTS; i++) runs[i] = run(&f, ids, &variants[i]);
        for (size_t i = 0; i < VARIANTS; i++)
            for (size_t j = 0; j < i; j++) {
                ct_generate_request a = request_of(&variants[i], ids, TOKENS);
                ct_generate_request b = request_of(&variants[j], ids, TOKENS);
                int64_t rows = ct_request_shared_prefill(f.model, &a, &b, NULL);
                if (memcmp(runs[i].logits, runs[j].logits,
                           (size_t)(rows * f.info->vocab) * sizeof(float)))
                    fail_msg("%s: %s and %s: of %d rows not all are equal", devices[d],
                             variants[i].name, variants[j].name, (int)rows);
                for (int64_t c = 1; c <= rows / 64; c++)
                    if (runs[i].at[c] && runs[j].at[c])
                        assert_same_state(&f, runs[i].at[c], runs[j].at[c]);
                shared += rows;
            }
        assert_true(shared > 0);
        for (size_t i = 0; i < VARIANTS; i++) {
            free(runs[i].logits);
            for (size_t c = 0; c <= CUTS; c++) ct_sequence_free(runs[i].at[c]);
        }
        free(ids);
        close_fixture(&f);
    }
}

/* Runs the jobs to their ends. */
static void finish(const fixture *f, ct_job *const *jobs, size_t n)
{
    ct_err err = {0};
    for (bool more = true; more;) {
        assert_ok(ct_jobs_step(f->session, jobs, n, &err));
        more = false;
        for (size_t i = 0; i < n; i++) more |= ct_job_get_state(jobs[i]) != CT_JOB_DONE;
    }
}

/* Of every pair that shares 64 rows or more, one is forked from the other at 64, 128 and at the end;
 * both go on together, then are compared with themselves alone. */
static void a_fork_gives_what_a_fresh_job_gives_and_leaves_the_other_alone(void **state)
{
    (void)state;
    for (size_t d = 0; d < COUNT(devices); d++) {
        ct_err err = {0};
        fixture f;
        open_fixture(&f, devices[d]);
        int32_t *ids[] = {random_ids(&f, TOKENS, 3), random_ids(&f, TOKENS, 3)};
        ids[1][150]++;
        enum { N = 2 * VARIANTS };
        ct_job *alone[N] = {0};
        ct_generate_request r[N];
        int forks = 0;
        /* ref is slow by design: a third of the variants, and of the pairs every 7th. */
        static const size_t stride[] = {7, 7, 11};
        size_t n = d == 0 ? N / 3 : N;
        for (size_t i = 0; i < n; i++) {
            r[i] = request_of(&variants[i / 2], ids[i % 2], TOKENS - (i / 2 % 3 == 2));
            assert_ok(ct_generate(f.session, &r[i], &alone[i], &err));
        }
        for (size_t i = 0; i < n; i++)
            for (size_t j = i % stride[d]; j < n; j += stride[d]) {
                int64_t rows = ct_request_shared_prefill(f.model, &r[i], &r[j], NULL);
                bool end = rows == ct_request_prefill_count(&r[i]) &&
                           rows == ct_request_prefill_count(&r[j]);
                for (int64_t p = 64; p <= rows; p += 64) {
                    int64_t at = end && p + 64 > rows ? rows : p;
                    if (at < rows && (whole(&variants[i / 2]) || whole(&variants[j / 2]))) continue;
                    ct_job *pair[2] = {0};
                    assert_ok(ct_job_new(f.model, &r[i], &pair[0], &err));
                    if (at % 64 == 0 && !whole(&variants[i / 2]))
                        assert_ok(ct_job_pause_at(pair[0], at, &err));
                    while (ct_job_position(pair[0]) < at)
                        assert_ok(ct_jobs_step(f.session, pair, 1, &err));
                    assert_int_equal(ct_job_position(pair[0]), at);
                    assert_ok(ct_job_fork(pair[0], &r[j], &pair[1], &err));
                    assert_ok(ct_job_pause_at(pair[0], INT64_MAX, &err));
                    finish(&f, pair, 2);
                    assert_same_outcome(&f, pair[0], alone[i]);
                    assert_same_outcome(&f, pair[1], alone[j]);
                    assert_ok(ct_job_check(pair[1], &err));
                    ct_job_free(pair[0]);
                    ct_job_free(pair[1]);
                    forks++;
                }
            }
        print_message("%s: %d forks\n", devices[d], forks);
        assert_true(forks > 50);
        for (size_t i = 0; i < n; i++) ct_job_free(alone[i]);
        free(ids[0]);
        free(ids[1]);
        close_fixture(&f);
    }
}

static void a_prefill_that_ends_at_64_can_be_gone_on_with_by_a_longer_one(void **state)
{
    (void)state;
    ct_err err = {0};
    fixture f;
    open_fixture(&f, "cpu");
    int32_t *ids = random_ids(&f, TOKENS, 4);
    const variant *v = named("omit late, at last");
    ct_generate_request a = request_of(v, ids, 129), b = request_of(v, ids, 150);
    ct_job *pair[2] = {0}, *alone[2] = {0};
    assert_ok(ct_generate(f.session, &a, &alone[0], &err));
    assert_ok(ct_generate(f.session, &b, &alone[1], &err));
    assert_ok(ct_job_new(f.model, &a, &pair[0], &err));
    assert_ok(ct_jobs_step(f.session, pair, 1, &err));
    assert_int_equal(ct_job_get_state(pair[0]), CT_JOB_DECODE);
    assert_ok(ct_job_fork(pair[0], &b, &pair[1], &err));
    assert_int_equal(ct_job_get_state(pair[1]), CT_JOB_PREFILL);
    finish(&f, pair, 2);
    for (int i = 0; i < 2; i++) {
        assert_same_outcome(&f, pair[i], alone[i]);
        ct_job_free(pair[i]);
        ct_job_free(alone[i]);
    }
    free(ids);
    close_fixture(&f);
}

static void forks_and_pauses_where_they_would_change_bits_are_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    fixture f;
    open_fixture(&f, "cpu");
    int32_t *ids = random_ids(&f, TOKENS, 5);
    ct_generate_request none = request_of(named("none"), ids, TOKENS);
    ct_generate_request omit = request_of(named("omit late"), ids, TOKENS);
    ct_generate_request mean = request_of(named("binary late per layer"), ids, TOKENS);
    ct_job *job = NULL, *fork = NULL;
    assert_ok(ct_job_new(f.model, &none, &job, &err));
    assert_fails(ct_job_pause_at(job, 70, &err), CT_ERR_USAGE, "expected a multiple of 64 from 0");
    assert_ok(ct_job_pause_at(job, 128, &err));
    assert_ok(ct_jobs_step(f.session, &job, 1, &err));
    assert_ok(ct_jobs_step(f.session, &job, 1, &err)); /* paused: nothing */
    assert_int_equal(ct_job_position(job), 128);
    assert_int_equal(ct_job_get_state(job), CT_JOB_PREFILL);
    assert_fails(ct_job_pause_at(job, 64, &err), CT_ERR_USAGE, "from 128 on");
    assert_fails(ct_job_fork(job, &omit, &fork, &err), CT_ERR_USAGE,
                 "within the 70 rows of prefill that the two requests share, got one at 128");
    assert_fails(ct_job_fork(job, &mean, &fork, &err), CT_ERR_USAGE, "within the 0 rows");
    assert_ok(ct_job_pause_at(job, INT64_MAX, &err));
    assert_ok(ct_jobs_step(f.session, &job, 1, &err));
    assert_int_equal(ct_job_get_state(job), CT_JOB_DECODE);
    assert_ok(ct_jobs_step(f.session, &job, 1, &err));
    assert_fails(ct_job_fork(job, &none, &fork, &err), CT_ERR_USAGE, "has fed tokens since");
    ct_job_free(job);
    assert_ok(ct_job_new(f.model, &mean, &job, &err));
    assert_fails(ct_job_pause_at(job, 64, &err), CT_ERR_USAGE, "in one step");
    ct_job_free(job);
    assert_null(fork);
    free(ids);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_many_rows_are_shared_as_the_rules_say),
        cmocka_unit_test(other_prompts_share_up_to_the_id_that_differs_and_random_heads_nothing),
        cmocka_unit_test(the_order_puts_requests_together_that_share_rows),
        cmocka_unit_test(shared_rows_have_the_same_logits_and_leave_the_same_state_to_the_bit),
        cmocka_unit_test(a_fork_gives_what_a_fresh_job_gives_and_leaves_the_other_alone),
        cmocka_unit_test(a_prefill_that_ends_at_64_can_be_gone_on_with_by_a_longer_one),
        cmocka_unit_test(forks_and_pauses_where_they_would_change_bits_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
