/* test_intervene.c - checks, what two interventions share, edit runs, head scores. */
#include "test.h"

#include "base/rng.h"
#include "intervene/intervene.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static ct_intervention edit_of(ct_stage stage, ct_weights_mode mode, const ct_span *spans, size_t n)
{
    ct_intervention iv = {0};
    iv.weights[stage] = (ct_weight_edit){mode, spans, n};
    return iv;
}

static void an_ill_formed_intervention_is_refused_with_the_reason(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_intervention iv = {.heads = {.active = {false, true}, .keep = 5}};
    assert_fails(ct_intervention_check(&iv, 4, 10, &err), CT_ERR_VALUE,
                 "expected 0 to 4 heads to keep (the model's heads), got 5");
    iv.heads.keep = -1;
    assert_fails(ct_intervention_check(&iv, 4, 10, &err), CT_ERR_VALUE, "got -1");
    iv.heads.active[CT_STAGE_GENERATION] = false;
    assert_ok(ct_intervention_check(&iv, 4, 10, &err));
    iv.heads = (ct_head_selection){.active = {true, false}, .metric = (ct_metric)9};
    assert_fails(ct_intervention_check(&iv, 4, 10, &err), CT_ERR_USAGE, "metric");

    const ct_span beyond = {3, 11}, empty = {4, 4}, negative = {-1, 2};
    const ct_span unsorted[] = {{5, 7}, {2, 3}}, overlap[] = {{2, 5}, {4, 6}};
    const struct {
        const ct_span *spans;
        size_t n;
        ct_status status;
        const char *part;
    } cases[] = {
        {NULL, 0, CT_ERR_USAGE, "mode only needs positions, got none"},
        {NULL, 1, CT_ERR_USAGE, "no list"},
        {&beyond, 1, CT_ERR_VALUE, "below the prompt's length 10, got 10"},
        {&empty, 1, CT_ERR_VALUE, "not empty, got 4 to 3"},
        {&negative, 1, CT_ERR_VALUE, "from 0 on"},
        {unsorted, 2, CT_ERR_VALUE, "sorted, disjoint spans, got position 2 after 6"},
        {overlap, 2, CT_ERR_VALUE, "sorted, disjoint"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        iv = edit_of(CT_STAGE_PREFILL, CT_WEIGHTS_ONLY, cases[i].spans, cases[i].n);
        assert_fails(ct_intervention_check(&iv, 4, 10, &err), cases[i].status, cases[i].part);
    }
    iv = edit_of(CT_STAGE_PREFILL, CT_WEIGHTS_NULL, NULL, 0);
    assert_ok(ct_intervention_check(&iv, 4, 10, &err));
    iv.weights[CT_STAGE_GENERATION].mode = (ct_weights_mode)7;
    assert_fails(ct_intervention_check(&iv, 4, 10, &err), CT_ERR_USAGE, "mode");
}

/* Whether all rows of a prefill in the stage are the same under both, in a model of 4 heads. */
static bool alike(const ct_intervention *a, const ct_intervention *b, ct_stage stage)
{
    ct_prefill_program x, y;
    int64_t rows;
    ct_prefill_program_init(&x, a, stage, 4);
    ct_prefill_program_init(&y, b, stage, 4);
    int order = ct_prefill_program_compare(&x, &y, &rows);
    assert_int_equal(order == 0, rows == INT64_MAX);
    return order == 0;
}

static void only_what_acts_in_a_stage_tells_two_interventions_apart_there(void **state)
{
    (void)state;
    const ct_span a = {3, 5}, b = {3, 6};
    ct_intervention x = {0}, y = {0};
    assert_true(alike(&x, &y, CT_STAGE_PREFILL));
    y.heads = (ct_head_selection){.active = {false, true}, .keep = 2};
    y.weights[CT_STAGE_GENERATION] = (ct_weight_edit){CT_WEIGHTS_ONLY, &a, 1};
    assert_true(alike(&x, &y, CT_STAGE_PREFILL));
    assert_false(alike(&x, &y, CT_STAGE_GENERATION));
    x.heads = (ct_head_selection){.active = {true, true}, .keep = 2, .seed = 1};
    y.heads = (ct_head_selection){.active = {true, true}, .keep = 2, .seed = 2};
    assert_true(alike(&x, &y, CT_STAGE_PREFILL));
    x.heads.metric = y.heads.metric = CT_METRIC_RANDOM;
    assert_false(alike(&x, &y, CT_STAGE_PREFILL));
    x.heads.seed = 2;
    x.weights[CT_STAGE_PREFILL] = (ct_weight_edit){CT_WEIGHTS_KEEP, &a, 1};
    y.weights[CT_STAGE_PREFILL] = (ct_weight_edit){CT_WEIGHTS_KEEP, &b, 1};
    assert_true(alike(&x, &y, CT_STAGE_PREFILL));
    x.weights[CT_STAGE_PREFILL].mode = y.weights[CT_STAGE_PREFILL].mode = CT_WEIGHTS_OMIT;
    assert_false(alike(&x, &y, CT_STAGE_PREFILL));
    y.weights[CT_STAGE_PREFILL].spans = &a;
    assert_true(alike(&x, &y, CT_STAGE_PREFILL));
    y.semantics.prefill_window_full = true;
    assert_false(alike(&x, &y, CT_STAGE_PREFILL));
    y.semantics = (ct_semantics){.needle_outside_window_unchanged = true};
    assert_true(alike(&x, &y, CT_STAGE_PREFILL));
}

/* What the forward pass would count: the plan of its edits, and heads - keep dropped a row. */
static void the_audit_of_rows_is_what_their_passes_would_count(void **state)
{
    (void)state;
    ct_err err = {0};
    enum { ROWS = 65, LAYERS = 3, HEADS = 4 };
    const ct_span spans[] = {{2, 3}, {20, 27}, {40, 41}};
    const int64_t windows[] = {-1, 1, 7, 16};
    for (int mode = CT_WEIGHTS_KEEP; mode <= CT_WEIGHTS_OMIT; mode++)
        for (int options = 0; options < 16; options++)
            for (size_t w = 0; w < COUNT(windows); w++) {
                ct_stage stage = options & 8 ? CT_STAGE_GENERATION : CT_STAGE_PREFILL;
                ct_intervention iv = edit_of(stage, (ct_weights_mode)mode, spans, 3);
                iv.semantics.needle_outside_window_unchanged = options & 1;
                iv.semantics.ring_slots_reference = options & 2;
                iv.semantics.prefill_window_full = options & 4;
                iv.heads = (ct_head_selection){{options & 1, options & 2}, options % 5, 0, 0};
                ct_edit_plan plan = {0};
                ct_audit want = {0}, got = {0};
                for (int64_t p = 0; p < ROWS; p += 13)
                    assert_ok(ct_edit_plan_add(&plan, &iv, stage, p, 13, windows[w], &err));
                for (size_t i = 0; i < plan.n_runs; i++) {
                    want.edit_rows[stage] += LAYERS * plan.runs[i].edited * plan.runs[i].count;
                    want.edit_rows_changed[stage] += LAYERS * plan.runs[i].changed;
                }
                want.rows[stage] = LAYERS * ROWS;
                if (iv.heads.active[stage]) {
                    want.head_rows[stage] = LAYERS * ROWS;
                    want.heads_dropped[stage] = LAYERS * ROWS * (HEADS - options % 5);
                }
                ct_intervention_audit(&iv, stage, ROWS, windows[w], LAYERS, HEADS, &got);
                assert_memory_equal(&want, &got, sizeof got);
                ct_edit_plan_clear(&plan);
            }
}

/* ---- edit runs ------------------------------------------------------------------------------- */

static bool in_spans(const ct_weight_edit *edit, int64_t p)
{
    for (size_t i = 0; i < edit->n_spans; i++)
        if (p >= edit->spans[i].begin && p < edit->spans[i].end) return true;
    return false;
}

/* What docs/semantics.md says of one query at p and a key at s: is s edited? */
static bool expect_marked(const ct_intervention *iv, ct_stage stage, int64_t p, int64_t s,
                          int64_t window)
{
    const ct_weight_edit *edit = &iv->weights[stage];
    bool ring = stage == CT_STAGE_GENERATION && iv->semantics.ring_slots_reference && window >= 0 &&
                p > 0 && in_spans(edit, p);
    if (ring && s == p) return false;
    if (ring && s == p - window) return true;
    return in_spans(edit, s);
}

/* Compares the runs of one row with the definition, key by key. */
static void compare_runs(const ct_intervention *iv, ct_stage stage, int64_t position, int64_t count,
                         int64_t window)
{
    ct_err err = {0};
    ct_edit_plan plan = {0};
    assert_ok(ct_edit_plan_add(&plan, iv, stage, position, count, window, &err));
    const ct_weight_edit *edit = &iv->weights[stage];
    int64_t next = 0;
    for (size_t i = 0; i < plan.n_runs; i++) {
        const ct_edit_run *run = &plan.runs[i];
        assert_int_equal(run->offset, next);
        next += run->count;
        int64_t changed = 0;
        for (int64_t p = position + run->offset; p < position + next; p++) {
            int64_t low = run->window < 0 || p < run->window ? 0 : p - run->window;
            int64_t edited = 0, marked = 0;
            for (int64_t s = low; s <= p; s++) edited += in_spans(edit, s);
            bool unchanged = stage == CT_STAGE_GENERATION && edited == 0 &&
                             iv->semantics.needle_outside_window_unchanged;
            assert_int_equal(run->mode, unchanged ? CT_WEIGHTS_KEEP : edit->mode);
            for (int64_t s = low; s <= p; s++) {
                bool want = expect_marked(iv, stage, p, s, run->window);
                if (!unchanged)
                    assert_int_equal(
                        s < run->marked_count && plan.marked[run->marked_at + (size_t)s], want);
                marked += want;
            }
            if (!unchanged)
                changed += edit->mode == CT_WEIGHTS_ONLY   ? marked < p - low + 1
                           : edit->mode == CT_WEIGHTS_OMIT ? marked > 0
                                                           : true;
        }
        assert_int_equal(run->changed, changed);
        assert_true(run->edited);
    }
    assert_int_equal(next, count);
    ct_edit_plan_clear(&plan);
}

static void edit_runs_mark_what_the_definition_says_for_every_query_and_key(void **state)
{
    (void)state;
    const ct_span spans[] = {{0, 3}, {9, 10}, {14, 22}}; /* 0 and 1: no ring, a ring */
    const int64_t windows[] = {-1, 1, 7, 16};
    for (int mode = CT_WEIGHTS_NULL; mode <= CT_WEIGHTS_OMIT; mode++)
        for (int stage = 0; stage < CT_STAGE_COUNT; stage++)
            for (int options = 0; options < 8; options++)
                for (size_t w = 0; w < COUNT(windows); w++)
                    for (int64_t position = 0; position < 30; position += 7) {
                        ct_intervention iv =
                            edit_of((ct_stage)stage, (ct_weights_mode)mode, spans, 3);
                        iv.semantics.needle_outside_window_unchanged = options & 1;
                        /* Null has no marks, so the ring says nothing about it. */
                        iv.semantics.ring_slots_reference =
                            (options & 2) && mode != CT_WEIGHTS_NULL;
                        iv.semantics.prefill_window_full = options & 4;
                        compare_runs(&iv, (ct_stage)stage, position, 1, windows[w]);
                        compare_runs(&iv, (ct_stage)stage, position, 33, windows[w]);
                    }
}

static void a_row_without_an_edit_is_one_run_that_keeps(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_edit_plan plan = {0};
    const ct_span span = {1, 2};
    ct_intervention iv = edit_of(CT_STAGE_GENERATION, CT_WEIGHTS_ONLY, &span, 1);
    iv.semantics.prefill_window_full = true;
    assert_ok(ct_edit_plan_add(&plan, NULL, CT_STAGE_PREFILL, 5, 7, 3, &err));
    assert_ok(ct_edit_plan_add(&plan, &iv, CT_STAGE_PREFILL, 5, 7, 3, &err));
    assert_int_equal(plan.n_runs, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(plan.runs[i].mode, CT_WEIGHTS_KEEP);
        assert_int_equal(plan.runs[i].count, 7);
        assert_false(plan.runs[i].edited);
        assert_int_equal(plan.runs[i].window, i == 0 ? 3 : -1);
    }
    ct_edit_plan_clear(&plan);
}

/* Position 8 with W = 4: slot 0 holds position 4. The needle {4, 8} maps to slot 0 twice. */
static void a_mean_per_layer_counts_a_slot_twice_that_two_needle_tokens_share(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_edit_plan plan = {0};
    const ct_span spans[] = {{1, 2}, {4, 5}, {8, 9}};
    ct_intervention iv = edit_of(CT_STAGE_GENERATION, CT_WEIGHTS_BINARY, spans, 3);
    iv.semantics.ring_slots_reference = iv.semantics.binary_mean_per_layer = true;
    assert_ok(ct_edit_plan_add(&plan, &iv, CT_STAGE_GENERATION, 8, 1, 4, &err));
    const ct_edit_run *run = &plan.runs[0];
    assert_true(run->mean_per_layer);
    assert_int_equal(run->mean_columns, 2);
    assert_int_equal(run->twice, 4);
    assert_int_equal(plan.marked[run->marked_at + 8], 0);
    assert_int_equal(plan.marked[run->marked_at + 4], 1);
    ct_edit_plan_clear(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_ill_formed_intervention_is_refused_with_the_reason),
        cmocka_unit_test(only_what_acts_in_a_stage_tells_two_interventions_apart_there),
        cmocka_unit_test(the_audit_of_rows_is_what_their_passes_would_count),
        cmocka_unit_test(edit_runs_mark_what_the_definition_says_for_every_query_and_key),
        cmocka_unit_test(a_row_without_an_edit_is_one_run_that_keeps),
        cmocka_unit_test(a_mean_per_layer_counts_a_slot_twice_that_two_needle_tokens_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
