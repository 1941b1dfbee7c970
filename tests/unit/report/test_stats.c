/* test_stats.c - exact numbers from hand-made cells. */
#include "test.h"

#include <math.h>

#include "cells.h"
#include "report/label.h"

static ct_stats *with(const ct_cell *cells, size_t n)
{
    ct_err err = {0};
    ct_stats *stats;
    assert_ok(ct_stats_new(&stats, &err));
    for (size_t i = 0; i < n; i++) assert_ok(ct_stats_add(stats, &cells[i], &err));
    assert_ok(ct_stats_finish(stats, &err));
    return stats;
}

static void accuracy_is_the_mean_of_score_over_maximum(void **state)
{
    (void)state;
    ct_cell cells[] = {cell_make("c", 1, 500, 0, 5), cell_make("a", 0, 250, 0, 0),
                       cell_make("d", 1, 500, 100, 2.5), cell_make("b", 1, 250, 0, 0)};
    cells[2].max_score = 10; /* 0.25: each cell counts with its own maximum */
    ct_stats *stats = with(cells, 4);
    assert_int_equal(stats->n_versions, 1);
    const ct_stats_version *v = &stats->versions[0];
    assert_int_equal(v->n_points, 2);
    assert_int_equal(v->points[0].keep_heads, 0);
    assert_true(v->points[0].accuracy == 0);
    assert_true(v->points[0].low == 0 && v->points[0].high == 0);
    assert_int_equal(v->points[1].prompts, 3);
    assert_true(v->points[1].accuracy == (0 + 1 + 0.25) / 3);
    assert_int_equal(v->prompts_least, 1);
    assert_int_equal(v->prompts_most, 3);
    ct_stats_free(stats);
}

static void failed_cells_are_counted_apart_and_change_no_number(void **state)
{
    (void)state;
    ct_cell cells[] = {cell_make("a", 2, 250, 0, 5), cell_make("b", 2, 250, 50, 0),
                       cell_make("c", 2, 250, 100, NAN)};
    cells[2].status = CT_CELL_FAILED;
    cells[2].max_score = 0;
    cells[2].error = "no needle";
    ct_stats *stats = with(cells, 3);
    const ct_point *p = &stats->versions[0].points[0];
    assert_true(p->accuracy == 0.5);
    assert_int_equal(p->prompts, 2);
    assert_int_equal(p->cells, 2);
    assert_int_equal(p->failed, 1);
    assert_int_equal(stats->done, 2);
    assert_int_equal(stats->failed, 1);
    ct_retrieval map;
    ct_err err = {0};
    assert_ok(ct_stats_retrieval(stats, 0, 2, &map, &err));
    assert_int_equal(map.missing, 1);
    assert_true(map.mean[0] == 5 && map.counts[2] == 0);
    ct_retrieval_clear(&map);
    ct_stats_free(stats);
}

static void seeds_of_one_prompt_are_one_prompt(void **state)
{
    (void)state;
    ct_cell cells[] = {cell_make("a", 1, 250, 0, 5), cell_make("b", 1, 250, 0, 0),
                       cell_make("c", 1, 250, 0, 5), cell_make("d", 1, 250, 0, 5)};
    cells[0].prompt_ids_hash = cells[1].prompt_ids_hash = cells[2].prompt_ids_hash = "p";
    cells[3].prompt_ids_hash = "q";
    ct_stats *stats = with(cells, 4);
    const ct_point *p = &stats->versions[0].points[0];
    assert_int_equal(p->prompts, 2);
    assert_int_equal(p->cells, 4);
    assert_true(p->accuracy == (2.0 / 3 + 1) / 2);
    ct_stats_free(stats);
}

static void cells_that_differ_in_what_was_done_are_versions(void **state)
{
    (void)state;
    enum { N = 9 };
    ct_cell cells[N];
    for (int i = 0; i < N; i++) {
        char key[33];
        snprintf(key, sizeof key, "%d", i);
        cells[i] = cell_make(key, 1, 250, 0, 5);
    }
    cells[0].keep_heads = 2; /* k alone makes no version */
    cells[1].metric = "random";
    cells[2].stages = "prefill+generation";
    cells[3].weights_prefill = "omit";
    cells[4].template_name = "instruct";
    cells[5].read_twice = true;
    cells[6].semantics = "reference";
    cells[7].model = "another";
    ct_stats *stats = with(cells, N);
    assert_int_equal(stats->n_versions, 8);
    /* The model that came first is first, the generation stage before both. */
    assert_string_equal(stats->versions[0].model, "tiny-griffin");
    assert_string_equal(stats->versions[0].stages, "generation");
    assert_string_equal(stats->versions[7].model, "another");
    ct_stats_free(stats);
}

static void order_of_cells_changes_no_bit(void **state)
{
    (void)state;
    enum { N = 63 };
    ct_cell cells[N], reversed[N];
    for (int i = 0; i < N; i++) {
        char key[33];
        snprintf(key, sizeof key, "%032d", i * 37 % 64);
        cells[i] = cell_make(key, i % 3, 250 + i / 3, 10, (i * 7 % 11) * 5.0 / 10.0);
        if (i % 2) cells[i].stages = "prefill+generation";
        reversed[N - 1 - i] = cells[i];
    }
    ct_stats *a = with(cells, N), *b = with(reversed, N);
    assert_int_equal(a->n_versions, 2);
    for (size_t v = 0; v < 2; v++) {
        assert_string_equal(a->versions[v].stages, b->versions[v].stages);
        assert_int_equal(a->versions[v].n_points, 3);
        assert_memory_equal(a->versions[v].points, b->versions[v].points, 3 * sizeof(ct_point));
    }
    ct_stats_free(a);
    ct_stats_free(b);
}

static void a_cell_that_two_folders_hold_counts_once(void **state)
{
    (void)state;
    ct_cell cells[] = {cell_make("a", 1, 250, 0, 5), cell_make("a", 1, 250, 0, 5),
                       cell_make("b", 1, 250, 50, 0), cell_make("b", 1, 250, 50, 0)};
    cells[0].decode_ms = cells[1].decode_ms = 7;
    cells[3].status = CT_CELL_FAILED; /* failed in one folder, done in the other: done */
    ct_stats *stats = with(cells, 4);
    assert_int_equal(stats->n_cells, 2);
    assert_int_equal(stats->done, 2);
    assert_int_equal(stats->failed, 0);
    assert_true(stats->versions[0].points[0].accuracy == 0.5);
    assert_true(stats->versions[0].decode_ms == 7);
    ct_stats_free(stats);
}

static void scores_that_cannot_be_are_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats;
    assert_ok(ct_stats_new(&stats, &err));
    ct_cell c = cell_make("deadbeef", 1, 250, 0, 5);
    c.max_score = 0;
    assert_fails(ct_stats_add(stats, &c, &err), CT_ERR_VALUE,
                 "cell deadbeef: max_score: expected above 0, got 0");
    c.max_score = NAN;
    assert_fails(ct_stats_add(stats, &c, &err), CT_ERR_VALUE, "max_score");
    c.max_score = 4;
    assert_fails(ct_stats_add(stats, &c, &err), CT_ERR_VALUE, "score: expected 0 to 4, got 5");
    c.score = NAN;
    assert_fails(ct_stats_add(stats, &c, &err), CT_ERR_VALUE, "score");
    c.score = -1;
    assert_fails(ct_stats_add(stats, &c, &err), CT_ERR_VALUE, "score");
    assert_int_equal(stats->n_cells, 0);
    ct_stats_free(stats);
}

static void a_map_has_depth_as_rows_and_length_as_columns(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_cell cells[] = {cell_make("a", 1, 4096, 100, 1), cell_make("b", 1, 250, 100, 2),
                       cell_make("c", 1, 250, 0, 3), cell_make("d", 1, 250, 0, 4),
                       cell_make("e", 0, 999, 50, 5)};
    const int64_t tokens[5] = {8011, 310, 309, 311, 1800}; /* of the prompts, e.g. read twice */
    for (int i = 0; i < 5; i++) cells[i].prompt_tokens = tokens[i];
    ct_stats *stats = with(cells, 5);
    ct_retrieval map;
    assert_ok(ct_stats_retrieval(stats, 0, 1, &map, &err));
    /* Axes are those of the version, so that its maps for all k stand side by side. */
    assert_int_equal(map.n_lengths, 3);
    assert_int_equal(map.n_depths, 3);
    assert_int_equal(map.lengths[1], 999);
    const double mean[9] = {3.5, 0, 0, 0, 0, 0, 2, 0, 1};
    const size_t counts[9] = {2, 0, 0, 0, 0, 0, 1, 0, 1};
    assert_memory_equal(map.mean, mean, sizeof mean);
    assert_memory_equal(map.counts, counts, sizeof counts);
    assert_int_equal(map.missing, 6);
    const int64_t longest[3] = {311, 1800, 8011};
    assert_memory_equal(map.tokens, longest, sizeof longest);
    ct_retrieval_clear(&map);
    assert_fails(ct_stats_retrieval(stats, 0, 7, &map, &err), CT_ERR_NOT_FOUND, "k = 7");
    ct_stats_free(stats);
}

static void a_grid_that_is_none_is_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats;
    assert_ok(ct_stats_new(&stats, &err));
    for (int i = 0; i < 257; i++) { /* 257 x 257 is the least square above 2^16 */
        char key[33];
        snprintf(key, sizeof key, "%d", i);
        ct_cell c = cell_make(key, 1, i, i, 5);
        assert_ok(ct_stats_add(stats, &c, &err));
    }
    assert_ok(ct_stats_finish(stats, &err));
    ct_retrieval map;
    assert_fails(ct_stats_retrieval(stats, 0, 1, &map, &err), CT_ERR_LIMIT, "257 lengths x 257");
    ct_stats_free(stats);
}

static void bootstrap_of_equal_values_is_that_value(void **state)
{
    (void)state;
    ct_err err = {0};
    double low, high, x[7] = {0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5};
    assert_ok(ct_bootstrap_mean(x, 7, &low, &high, &err));
    assert_true(low == 0.5 && high == 0.5);
    assert_ok(ct_bootstrap_mean(x, 1, &low, &high, &err));
    assert_true(low == 0.5 && high == 0.5);
}

static void bootstrap_of_coin_flips_agrees_with_the_binomial(void **state)
{
    (void)state;
    ct_err err = {0};
    double low, high, x[100];
    for (int i = 0; i < 100; i++) x[i] = i % 2;
    assert_ok(ct_bootstrap_mean(x, 100, &low, &high, &err));
    /* A resampled mean is Binomial(100, 1/2) / 100, whose 2.5 % and 97.5 % points are 0.40 and
     * 0.60. The share below 0.395 is 0.0176 and below 0.405 is 0.0284: with 2000 resamples the
     * standard error of such a share is 0.0035, so the point lies within 0.02 in all but 1e-5. */
    assert_true(fabs(low - 0.40) <= 0.02);
    assert_true(fabs(high - 0.60) <= 0.02);
    double again_low, again_high;
    assert_ok(ct_bootstrap_mean(x, 100, &again_low, &again_high, &err));
    assert_true(low == again_low && high == again_high);
}

static void labels_say_only_what_differs(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_cell cells[] = {cell_make("a", 1, 250, 0, 5), cell_make("b", 1, 250, 0, 5),
                       cell_make("c", -1, 250, 0, 5)};
    cells[1].metric = "random";
    ct_stats *stats = with(cells, 3);
    unsigned all, mask = ct_label_differing(stats, NULL, 3, &all);
    const char *const expected[] = {"entropy", "random heads", "no head selection"};
    for (size_t i = 0; i < 3; i++) {
        ct_buf text = {0};
        assert_ok(ct_label_version(&stats->versions[i], mask, &text, &err));
        assert_string_equal(text.data, expected[i]);
        ct_buf_clear(&text);
    }
    ct_buf shared = {0};
    assert_ok(ct_label_shared(&stats->versions[0], all, &shared, &err));
    assert_string_equal(shared.data, "tiny-griffin; study made-up; heads selected in generation; "
                                     "base prompts; semantics: paper; scoring: table");
    ct_buf_clear(&shared);
    ct_stats_free(stats);
}

static void labels_of_mixed_studies_say_what_was_done(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_cell cells[] = {cell_make("a", 1, 250, 0, 5), cell_make("b", 1, 250, 0, 5),
                       cell_make("c", -1, 250, 0, 5), cell_make("d", -1, 250, 0, 5)};
    cells[1].weights_generation = "omit";
    cells[3].weights_prefill = "only";
    ct_stats *stats = with(cells, 4);
    unsigned all, mask = ct_label_differing(stats, NULL, 4, &all);
    const char *const expected[] = {"generation", "generation, weights omit \xE2\x80\x93 keep",
                                    "no intervention", "weights keep \xE2\x80\x93 only"};
    for (size_t i = 0; i < 4; i++) {
        ct_buf text = {0};
        assert_ok(ct_label_version(&stats->versions[i], mask, &text, &err));
        assert_string_equal(text.data, expected[i]);
        ct_buf_clear(&text);
    }
    ct_stats_free(stats);
}

static void slugs_are_safe_file_names_and_all_differ(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_cell cells[] = {cell_make("a", 1, 250, 0, 5), cell_make("b", 1, 250, 0, 5),
                       cell_make("c", 1, 250, 0, 5), cell_make("d", 1, 250, 0, 5)};
    char semantics[400];
    memset(semantics, 'x', sizeof semantics - 1);
    semantics[sizeof semantics - 1] = 0;
    cells[1].study = "another study of the same";
    cells[2].model = "../../etc/.pass\xC3\xA9wd\n";
    cells[2].weights_prefill = "/a/b";
    cells[3].semantics = semantics;
    ct_stats *stats = with(cells, 4);
    char **slugs;
    assert_ok(ct_label_slugs(stats, &slugs, &err));
    for (size_t i = 0; i < 4; i++) {
        assert_true(strlen(slugs[i]) <= 100);
        assert_int_equal(strspn(slugs[i], "abcdefghijklmnopqrstuvwxyz0123456789-_."),
                         strlen(slugs[i]));
        assert_true(slugs[i][0] != '.');
        for (size_t j = 0; j < i; j++) assert_string_not_equal(slugs[i], slugs[j]);
    }
    assert_string_equal(slugs[3], "etc-pass-wd_generation_entropy_keep-a-b");
    ct_slugs_free(slugs, 4);
    ct_stats_free(stats);
}

static void fixed_numbers_have_a_point_and_no_negative_zero(void **state)
{
    (void)state;
    ct_err err = {0};
    const struct {
        double value;
        int digits;
        const char *text;
    } cases[] = {
        {74.45, 1, "74.5"},       {0, 0, "0"},           {-0.04, 1, "0.0"}, {-1.25, 1, "-1.3"},
        {1.0 / 3, 6, "0.333333"}, {999.95, 1, "1000.0"}, {5, 2, "5.00"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ct_buf text = {0};
        assert_ok(ct_label_fixed(&text, cases[i].value, cases[i].digits, &err));
        assert_string_equal(text.data, cases[i].text);
        ct_buf_clear(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accuracy_is_the_mean_of_score_over_maximum),
        cmocka_unit_test(failed_cells_are_counted_apart_and_change_no_number),
        cmocka_unit_test(seeds_of_one_prompt_are_one_prompt),
        cmocka_unit_test(cells_that_differ_in_what_was_done_are_versions),
        cmocka_unit_test(order_of_cells_changes_no_bit),
        cmocka_unit_test(a_cell_that_two_folders_hold_counts_once),
        cmocka_unit_test(scores_that_cannot_be_are_refused),
        cmocka_unit_test(a_map_has_depth_as_rows_and_length_as_columns),
        cmocka_unit_test(a_grid_that_is_none_is_refused),
        cmocka_unit_test(bootstrap_of_equal_values_is_that_value),
        cmocka_unit_test(bootstrap_of_coin_flips_agrees_with_the_binomial),
        cmocka_unit_test(labels_say_only_what_differs),
        cmocka_unit_test(labels_of_mixed_studies_say_what_was_done),
        cmocka_unit_test(slugs_are_safe_file_names_and_all_differ),
        cmocka_unit_test(fixed_numbers_have_a_point_and_no_negative_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
