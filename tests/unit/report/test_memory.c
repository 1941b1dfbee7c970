/* test_memory.c - comparisons and tables when memory runs out: for every allocation that fails an error, no
 * leak, and never a shorter table that is called complete.
 */
#include "test.h"

#include "base/err.h"
#include "cells.h"
#include "report/tables.h"
#include "report/weights.h"
#include "unit/io/alloc.h"

/* Sweeps over k with failed cells, read twice too, and a grid of edits beside the unchanged model. */
static ct_stats *make_stats(void)
{
    ct_err err = {0};
    ct_stats *stats;
    static const char *const modes[] = {"keep", "omit", "only", "binary", "null"};
    made_sweep s = {.study = "made-up",
                    .model = "recurrentgemma-2b",
                    .metric = "entropy",
                    .stages = "generation",
                    .heads = 4,
                    .k_from = 1,
                    .k_to = 4,
                    .knee = 2,
                    .slope = 2,
                    .top = 1,
                    .n_lengths = 2,
                    .n_depths = 3,
                    .fail_every = 7};
    assert_ok(ct_stats_new(&stats, &err));
    made_add(stats, s, &err);
    s.read_twice = true;
    made_add(stats, s, &err);
    s.read_twice = false;
    s.stages = "prefill+generation";
    s.metric = "l2";
    made_add(stats, s, &err);
    s.k_from = s.k_to = -1;
    s.fail_every = 0;
    for (int i = 0; i < 9; i++) {
        s.weights_generation = modes[i % 5];
        s.weights_prefill = modes[i / 5];
        s.top = 1 - 0.1 * i;
        made_add(stats, s, &err);
    }
    assert_ok(err.status);
    assert_ok(ct_stats_finish(stats, &err));
    return stats;
}

/* One sweep: few enough versions for a table over k. */
static ct_stats *make_few(void)
{
    ct_err err = {0};
    ct_stats *stats;
    assert_ok(ct_stats_new(&stats, &err));
    for (int k = 0; k < 3; k++) {
        char key[33];
        snprintf(key, sizeof key, "few-%d", k);
        ct_cell c = cell_make(key, k, 250, 0, k);
        assert_ok(ct_stats_add(stats, &c, &err));
    }
    assert_ok(ct_stats_finish(stats, &err));
    return stats;
}

/* Everything that these files make of the stats, one after another into `out`. */
static ct_status make_all(const ct_stats *stats, const ct_stats *few, ct_buf *out, ct_err *err)
{
    ct_status st;
    ct_comparison *all = NULL;
    ct_weights_table *tables = NULL;
    size_t n = 0, n_tables = 0;
    CT_TRY(ct_comparisons_new(stats, &all, &n, err));
    CT_TRY(ct_comparisons_csv(stats, all, n, out, err));
    CT_TRY(ct_accuracy_latex(stats, all, n, out, err));
    CT_TRY(ct_accuracy_latex(few, NULL, 0, out, err));
    CT_TRY(ct_weights_tables_new(stats, all, n, &tables, &n_tables, err));
    for (size_t i = 0; i < n_tables; i++) {
        CT_TRY(ct_weights_csv(stats, &tables[i], out, err));
        CT_TRY(ct_weights_latex(stats, &tables[i], out, err));
    }
done:
    free(all);
    free(tables);
    return st;
}

static void every_allocation_that_fails_gives_a_status_and_no_leak(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = make_stats(), *few = make_few();
    ct_buf whole = {0};
    assert_ok(make_all(stats, few, &whole, &err));
    /* Every test and every table is in it: the n-th allocation meets each of them. */
    static const char *const parts[] = {
        "the unchanged model",    "the context read once",    "exact McNemar",
        "exact sign flips",       "model,generation,prefill", "\\begin{tabular}{rl}",
        "\\begin{tabular}{lrlr}", "\\begin{tabular}{l",       "\\textbf{"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!strstr(whole.data, parts[i])) fail_msg("no %s in %s", parts[i], whole.data);
    for (long n = 1;; n++) {
        ct_buf out = {0};
        err = (ct_err){0};
        alloc_start(n);
        ct_status st = make_all(stats, few, &out, &err);
        bool failed = alloc.calls >= n;
        bool same =
            st == CT_OK && out.size == whole.size && !memcmp(out.data, whole.data, out.size);
        ct_buf_clear(&out);
        alloc_stop();
        assert_int_equal(alloc.live, 0);
        if (!failed) {
            assert_true(same);
            assert_true(n > 100);
            print_message("%ld allocations\n", n - 1);
            break;
        }
        if (same) continue; /* qsort sorts in place where it has no memory */
        if (st != CT_ERR_MEMORY) fail_msg("call %ld: %s: %s", n, ct_status_name(st), err.text);
        assert_true(err.status == st && err.text[0]);
    }
    ct_buf_clear(&whole);
    ct_stats_free(stats);
    ct_stats_free(few);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_that_fails_gives_a_status_and_no_leak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
