/* test_compare.c - paired tests against known values, and which configurations are compared. */
#include "test.h"

#include <math.h>

#include "cells.h"
#include "report/compare.h"

static double p_of(const double *d, size_t n, ct_paired_method expected)
{
    ct_err err = {0};
    double p;
    ct_paired_method method;
    assert_ok(ct_sign_flip(d, n, &p, &method, &err));
    assert_int_equal(method, expected);
    return p;
}

/* A bound of 1e-12, relative: sums of at most 1,000 terms of one sign in double precision. */
static void assert_near(double got, double expected)
{
    if (fabs(got - expected) > 1e-12 * fabs(expected))
        fail_msg("expected %.17g, got %.17g", expected, got);
}

static void fill(double *d, size_t n, double value)
{
    for (size_t i = 0; i < n; i++) d[i] = value;
}

static void binary_scores_get_mcnemars_exact_p(void **state)
{
    (void)state;
    /* scipy.stats.binomtest(min(b, c), b + c).pvalue, scipy 1.17.1 */
    static const struct {
        size_t better, worse;
        double p;
    } cases[] = {
        {1, 0, 1},
        {5, 1, 0.21875},
        {10, 0, 0.001953125},
        {7, 7, 1},
        {8, 7, 1},
        {12, 3, 0.03515625},
        {63, 50, 0.25886200016531552},
        {70, 63, 0.60304638912887987},
        {100, 1, 8.0463812332543204e-29},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double d[200] = {0};
        fill(d, cases[i].better, 5);
        fill(d + cases[i].better, cases[i].worse, -5);
        /* The rest are pairs without a difference: they must change nothing. */
        size_t n = cases[i].better + cases[i].worse;
        assert_near(p_of(d, n, CT_PAIRED_MCNEMAR), cases[i].p);
        assert_near(p_of(d, n + 7, CT_PAIRED_MCNEMAR), cases[i].p);
    }
}

static void partial_scores_get_the_exact_share_of_sign_flips(void **state)
{
    (void)state;
    /* scipy.stats.permutation_test((d,), numpy.mean, permutation_type="samples", n_resamples=inf) */
    static const double a[] = {5, 2.5, -0.5, 1, 1, -3, 0.5, 4},
                        b[] = {-5, -5, 0.5, -4, -1.5, 2, -0.5, -3, -3, 1, -5, -2, 0.5, -1, -4},
                        c[] = {0.40123015335748302,  0.69874553750847002,   0.125862144637782,
                               -0.49059183875727402, -0.054670785171722497, -0.59164655499646202,
                               0.46014360259743903,  1.7402152455545301,    -0.092206518551329594,
                               -0.22047489981994001, 0.88984205018519802,   0.75688700816006105,
                               0.505414248997899};
    assert_near(p_of(a, sizeof a / sizeof *a, CT_PAIRED_EXACT), 0.1953125);
    assert_near(p_of(b, sizeof b / sizeof *b, CT_PAIRED_EXACT), 0.00823974609375);
    /* No common step: every one of 2^13 choices is tried. */
    assert_near(p_of(c, sizeof c / sizeof *c, CT_PAIRED_EXACT), 0.09375);
}

static void the_exact_distribution_agrees_with_trying_every_choice(void **state)
{
    (void)state;
    enum { N = 13 };
    for (uint64_t run = 0; run < 50; run++) {
        double d[N], observed = 0;
        for (size_t i = 0; i < N; i++) {
            d[i] = floor(ct_rng_f64(run, 1, i) * 21 - 10) / 2;
            observed += d[i];
        }
        size_t reached = 0;
        for (unsigned bits = 0; bits < 1u << N; bits++) {
            double sum = 0;
            for (size_t i = 0; i < N; i++) sum += bits >> i & 1 ? d[i] : -d[i];
            reached += fabs(sum) >= fabs(observed);
        }
        assert_near(p_of(d, N, CT_PAIRED_EXACT), (double)reached / (1u << N));
    }
}

static void differences_without_a_common_step_are_drawn_and_p_is_near(void **state)
{
    (void)state;
    enum { N = 65 };
    double d[N], square = 0, sum = 0;
    for (size_t i = 0; i < N; i++) {
        d[i] = ct_rng_f64(3, 2, i) - 0.4;
        sum += d[i];
        square += d[i] * d[i];
    }
    double p = p_of(d, N, CT_PAIRED_SAMPLED);
    assert_true(p == p_of(d, N, CT_PAIRED_SAMPLED)); /* drawn by counter: the same again */
    /* The normal approximation is within a few per cent for 65 terms of like size; 100,000 draws
     * of p near 0.05 have a standard error of 0.0007. */
    double normal = erfc(fabs(sum) / sqrt(square) / sqrt(2));
    assert_true(fabs(p - normal) < 0.01);
    for (size_t i = 0; i < N; i++) d[i] = 0.3 + sqrt((double)i); /* all on one side */
    assert_near(p_of(d, N, CT_PAIRED_SAMPLED), 1.0 / (CT_SIGN_FLIP_DRAWS + 1));
}

static void no_difference_is_p_one(void **state)
{
    (void)state;
    const double d[3] = {0, 1e-17, 0};
    assert_true(p_of(d, 0, CT_PAIRED_MCNEMAR) == 1);
    assert_true(p_of(d, 3, CT_PAIRED_MCNEMAR) == 1);
    const double even[2] = {2.5, -2.5};
    assert_true(p_of(even, 2, CT_PAIRED_MCNEMAR) == 1);
}

static void means_over_seeds_stay_on_a_step_and_large_n_stays_exact(void **state)
{
    (void)state;
    enum { N = 2000 };
    static double d[N];
    for (size_t i = 0; i < N; i++) {
        double sum = 0;
        for (int s = 0; s < 3; s++) sum += floor(ct_rng_f64(9, i, (uint64_t)s) * 11) / 2 - 2.4;
        d[i] = sum / 3;
    }
    double p = p_of(d, 63, CT_PAIRED_EXACT);
    assert_true(p > 0 && p <= 1);
    fill(d, N, 5); /* 2^-1999 is below the least double, and 0 is what is left */
    assert_true(p_of(d, N, CT_PAIRED_MCNEMAR) < 1e-300);
}

static void holm_multiplies_the_least_by_n_and_never_decreases(void **state)
{
    (void)state;
    ct_err err = {0};
    /* statsmodels.stats.multitest.multipletests(p, method="holm") gives these, too. */
    double p[] = {0.01, 0.04, 0.03, 0.005};
    assert_ok(ct_holm(p, 4, &err));
    const double expected[] = {0.03, 0.06, 0.06, 0.02};
    for (int i = 0; i < 4; i++) assert_true(fabs(p[i] - expected[i]) < 1e-15);
    double high[] = {0.9, 0.8};
    assert_ok(ct_holm(high, 2, &err));
    assert_true(high[0] == 1 && high[1] == 1);
    assert_ok(ct_holm(high, 0, &err));
}

/* ---- from cells ------------------------------------------------------------------------------ */

typedef struct made {
    const char *key, *stages, *weights_prefill;
    int64_t k, length, depth;
    double score;
    bool failed, read_twice;
} made;

static ct_stats *stats_of(const made *list, size_t n)
{
    ct_err err = {0};
    ct_stats *stats;
    assert_ok(ct_stats_new(&stats, &err));
    for (size_t i = 0; i < n; i++) {
        char key[33], prompt[33];
        snprintf(key, sizeof key, "%zu", i);
        snprintf(prompt, sizeof prompt, "%d-%d-%d", (int)list[i].length, (int)list[i].depth,
                 list[i].read_twice);
        ct_cell c = cell_make(key, list[i].k, list[i].length, list[i].depth, list[i].score);
        c.prompt_ids_hash = prompt;
        if (list[i].stages && list[i].k >= 0) c.stages = list[i].stages;
        if (list[i].weights_prefill) c.weights_prefill = list[i].weights_prefill;
        c.read_twice = list[i].read_twice;
        if (list[i].failed) c.status = CT_CELL_FAILED;
        assert_ok(ct_stats_add(stats, &c, &err));
    }
    assert_ok(ct_stats_finish(stats, &err));
    return stats;
}

static void pairs_are_matched_by_length_and_depth_and_failed_cells_have_none(void **state)
{
    (void)state;
    ct_err err = {0};
    const made list[] = {
        {.k = 1, .length = 250, .score = 5},
        {.k = 1, .length = 250, .depth = 50, .score = 0},
        {.k = 1, .length = 500, .score = 5, .failed = true},
        {.k = 1, .length = 750, .score = 2.5},
        {.k = 1, .length = 900, .score = 5}, /* not run at k = 4 */
        {.k = 4, .length = 250, .score = 5},
        {.k = 4, .length = 250, .depth = 50, .score = 5},
        {.k = 4, .length = 500, .score = 5},
        {.k = 4, .length = 750, .score = 5},
    };
    ct_stats *stats = stats_of(list, 9);
    ct_paired test;
    assert_ok(ct_compare(stats, 0, 1, 0, 4, &test, &err));
    assert_int_equal(test.pairs, 3);
    assert_int_equal(test.better, 0);
    assert_int_equal(test.worse, 2);
    assert_near(test.difference, -0.5);
    assert_near(test.p, 0.5); /* of the 4 signs of 5 and 2.5, 2 are as far as -7.5 */
    assert_int_equal(test.method, CT_PAIRED_EXACT);
    assert_true(test.same_prompts);
    assert_true(test.low <= test.difference && test.difference <= test.high);
    assert_ok(ct_compare(stats, 0, 4, 0, 1, &test, &err)); /* the other way round */
    assert_near(test.difference, 0.5);
    assert_near(test.p, 0.5);
    assert_ok(ct_compare(stats, 0, 2, 0, 4, &test, &err)); /* there is no k = 2 */
    assert_int_equal(test.pairs, 0);
    ct_stats_free(stats);
}

static void every_version_is_compared_with_the_unchanged_model_and_its_siblings(void **state)
{
    (void)state;
    ct_err err = {0};
    const made list[] = {
        {.k = 1, .length = 250, .score = 0},
        {.k = 4, .length = 250, .score = 5}, /* of 4 heads: unchanged */
        {.k = 1, .length = 250, .stages = "prefill+generation", .score = 5},
        {.k = -1, .length = 250, .weights_prefill = "omit", .score = 0},
        {.k = 1, .length = 250, .read_twice = true, .score = 5},
    };
    ct_stats *stats = stats_of(list, 5);
    ct_comparison *all;
    size_t n;
    assert_ok(ct_comparisons_new(stats, &all, &n, &err));
    int counts[CT_AGAINST_COUNT] = {0};
    for (size_t i = 0; i < n; i++) {
        counts[all[i].against]++;
        assert_int_equal(all[i].test.pairs, 1);
        const ct_stats_version *base = &stats->versions[all[i].base];
        if (all[i].against == CT_AGAINST_UNCHANGED) assert_true(ct_unchanged(base, all[i].base_k));
        else assert_int_equal(all[i].base_k, 1);
    }
    /* k = 1 in both stages and the edit; read twice has no unchanged model on its prompts. */
    assert_int_equal(counts[CT_AGAINST_UNCHANGED], 3);
    assert_int_equal(counts[CT_AGAINST_READ_ONCE], 1);
    assert_int_equal(counts[CT_AGAINST_GENERATION], 1);
    assert_int_equal(counts[CT_AGAINST_ENTROPY], 0);
    size_t edited = 0;
    while (strcmp(stats->versions[edited].weights_prefill, "omit") != 0) edited++;
    const ct_comparison *c = ct_comparison_find(all, n, CT_AGAINST_UNCHANGED, edited, -1);
    assert_non_null(c);
    assert_near(c->test.difference, -1);
    assert_null(ct_comparison_find(all, n, CT_AGAINST_ENTROPY, edited, -1));
    free(all);
    ct_stats_free(stats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(binary_scores_get_mcnemars_exact_p),
        cmocka_unit_test(partial_scores_get_the_exact_share_of_sign_flips),
        cmocka_unit_test(the_exact_distribution_agrees_with_trying_every_choice),
        cmocka_unit_test(differences_without_a_common_step_are_drawn_and_p_is_near),
        cmocka_unit_test(no_difference_is_p_one),
        cmocka_unit_test(means_over_seeds_stay_on_a_step_and_large_n_stays_exact),
        cmocka_unit_test(holm_multiplies_the_least_by_n_and_never_decreases),
        cmocka_unit_test(pairs_are_matched_by_length_and_depth_and_failed_cells_have_none),
        cmocka_unit_test(every_version_is_compared_with_the_unchanged_model_and_its_siblings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
