/* test_figure.c - planning and drawing of figures from made-up cells.
 *
 * With CORTADO_FIGURES_OUT=DIR every figure drawn here is written there, to be looked at.
 */
#include "test.h"

#include <math.h>

#include "cells.h"
#include "report/figure.h"

static ct_stats *begin(void)
{
    ct_err err = {0};
    ct_stats *stats;
    assert_ok(ct_stats_new(&stats, &err));
    return stats;
}

static void write_out(const char *set, const ct_figure *f, const char *ending, const ct_buf *bytes)
{
    const char *dir = getenv("CORTADO_FIGURES_OUT");
    if (!dir) return;
    char path[4096];
    snprintf(path, sizeof path, "%s/%s-%s.%s", dir, set, f->name, ending);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes->data, 1, bytes->size, file), bytes->size);
    fclose(file);
}

/* Draws a figure in all forms and checks what must hold for each: no text comes within a point of
 * another or leaves the page, none is under 8 points, nothing is "nan", the same bytes come twice.
 */
static void check_figure(ct_fonts *fonts, const char *set, const ct_figure *f)
{
    ct_err err = {0};
    ct_box page;
    ct_text_box *texts;
    size_t n;
    assert_ok(ct_figure_measure(fonts, ct_figure_draw, f, &page, &texts, &n, &err));
    assert_true(n > 3);
    for (size_t i = 0; i < n; i++) {
        ct_box a = texts[i].box;
        if (a.x < 0 || a.y < 0 || a.x + a.width > page.width || a.y + a.height > page.height)
            fail_msg("%s/%s: \"%s\" leaves the page", set, f->name, texts[i].text);
        if (texts[i].size < 8) fail_msg("%s/%s: \"%s\" is small", set, f->name, texts[i].text);
        for (size_t j = 0; j < i; j++)
            if (ct_box_meets((ct_box){a.x - 1, a.y - 1, a.width + 2, a.height + 2}, texts[j].box))
                fail_msg("%s/%s: \"%s\" lies on \"%s\"", set, f->name, texts[i].text,
                         texts[j].text);
    }
    ct_text_boxes_free(texts, n);
    static const char *const endings[] = {"svg", "pdf", "png"};
    for (int form = CT_FIGURE_SVG; form <= CT_FIGURE_PNG; form++) {
        ct_buf bytes = {0}, again = {0};
        assert_ok(ct_figure_render(fonts, ct_figure_draw, f, f->title, f->description,
                                   (ct_figure_form)form, &bytes, &err));
        assert_ok(ct_figure_render(fonts, ct_figure_draw, f, f->title, f->description,
                                   (ct_figure_form)form, &again, &err));
        assert_int_equal(bytes.size, again.size);
        assert_memory_equal(bytes.data, again.data, bytes.size);
        if (form == CT_FIGURE_SVG) {
            assert_null(strstr(bytes.data, "nan"));
            assert_null(strstr(bytes.data, "inf"));
        }
        write_out(set, f, endings[form], &bytes);
        ct_buf_clear(&bytes);
        ct_buf_clear(&again);
    }
    ct_buf csv = {0};
    assert_ok(ct_figure_csv(f, &csv, &err));
    write_out(set, f, "csv", &csv);
    ct_buf_clear(&csv);
}

/* Checks all figures and frees stats; their names must be `names`, separated by spaces, if given. */
static void draw_all(const char *set, ct_stats *stats, const char *names)
{
    ct_err err = {0};
    ct_figure *figures;
    ct_fonts *fonts;
    size_t n, singles = 0;
    char got[4096] = "";
    assert_ok(ct_fonts_new(&fonts, &err));
    assert_ok(ct_figures_plan(stats, CT_WANT_ALL, &figures, &n, &err));
    for (size_t i = 0; i < n; i++) {
        /* Of the single maps, which differ in their colours alone, two of each set are enough. */
        singles += figures[i].single;
        size_t used = strlen(got);
        snprintf(got + used, sizeof got - used, "%s%s", i ? " " : "", figures[i].name);
        if (!figures[i].single || singles <= 2) check_figure(fonts, set, &figures[i]);
    }
    if (names) assert_string_equal(got, names);
    ct_figures_free(figures, n);
    ct_fonts_free(fonts);
    ct_stats_free(stats);
}

/* The same after the last cell is in. */
static void check_all(const char *set, ct_stats *stats, const char *names)
{
    ct_err err = {0};
    assert_ok(ct_stats_finish(stats, &err));
    draw_all(set, stats, names);
}

static const made_sweep SWEEP = {.study = "figure-3.2-recurrentgemma-2b",
                                 .model = "recurrentgemma-2b",
                                 .metric = "entropy",
                                 .stages = "generation",
                                 .heads = 10,
                                 .k_to = 10,
                                 .knee = 1.2,
                                 .slope = 2,
                                 .top = 0.75,
                                 .window = 2048,
                                 .n_lengths = 10,
                                 .n_depths = 10};

static void two_versions_of_a_sweep_are_drawn_clean(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    made_sweep s = SWEEP;
    made_add(stats, s, &err);
    s.stages = "prefill+generation";
    s.knee = 8;
    s.slope = 0.8;
    s.fail_every = 97;
    made_add(stats, s, &err);
    check_all("two", stats, NULL);
}

static void three_models_stand_in_three_panels(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    const struct {
        const char *study, *model;
        int64_t heads;
        double knee;
    } models[] = {{"figure-3.2-rg2b", "recurrentgemma-2b", 10, 1.5},
                  {"figure-3.2-rg9b", "recurrentgemma-9b", 16, 2.5},
                  {"figure-3.2-jamba", "jamba-mini-1.6", 32, 4}};
    for (int m = 0; m < 3; m++)
        for (int stage = 0; stage < 2; stage++) {
            made_sweep s = SWEEP;
            s.study = models[m].study;
            s.model = models[m].model;
            s.heads = s.k_to = models[m].heads;
            s.knee = models[m].knee + stage;
            s.top = 0.7 + 0.15 * m;
            s.slope = 1;
            s.stages = stage ? "prefill+generation" : "generation";
            s.window = 0;
            made_add(stats, s, &err);
        }
    check_all("three", stats, NULL);
}

/* Figures B.1 to B.3: a figure for each k, in it a row for each model and a column for each way of reading. */
static void maps_of_several_sweeps_stand_together_at_each_k(void **state)
{
    (void)state;
    ct_err err = {0};
    const char *const models[] = {"recurrentgemma-2b", "recurrentgemma-9b", "jamba-mini-1.6"};
    for (int draw = 0; draw < 2; draw++) {
        ct_stats *stats = begin();
        for (int m = 0; m < 3; m++)
            for (int twice = 0; twice < 2; twice++) {
                made_sweep s = SWEEP;
                s.study = twice ? "figure-4.1-jrt" : "figure-4.1";
                s.model = models[m];
                s.heads = 10 << m;
                s.k_to = 2;
                s.read_twice = twice;
                made_add(stats, s, &err);
            }
        if (draw) {
            check_all("jrt", stats, NULL);
            continue;
        }
        ct_figure *figures;
        size_t n, at_k = 0;
        assert_ok(ct_stats_finish(stats, &err));
        assert_ok(ct_figures_plan(stats, CT_WANT_MAPS, &figures, &n, &err));
        for (size_t i = 0; i < n; i++) {
            const ct_figure *f = &figures[i];
            char name[40];
            snprintf(name, sizeof name, "retrieval_maps_k%02zu", at_k);
            if (strcmp(f->name, name) != 0) continue;
            assert_false(f->single); /* three are few enough for the page */
            assert_int_equal(f->n_panels, 6);
            for (size_t p = 0; p < 6; p++) {
                const ct_stats_version *v = &stats->versions[f->panels[p].version];
                assert_string_equal(v->model, models[p / 2]);
                assert_int_equal(v->read_twice, p % 2);
                assert_int_equal(f->panels[p].keep_heads, at_k);
            }
            assert_non_null(strstr(f->caption, "100 prompts a map"));
            assert_non_null(strstr(f->caption, "that of one copy"));
            at_k++;
        }
        assert_int_equal(at_k, 3);
        ct_figures_free(figures, n);
        ct_stats_free(stats);
    }
}

/* Each map keeps labels of its own: check_all sees that none lies on another. */
static void maps_with_other_lengths_and_depths_are_drawn(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    for (int i = 0; i < 3; i++) {
        made_sweep s = SWEEP;
        s.model = (const char *[]){"a", "b", "c"}[i];
        s.k_to = 6;
        s.n_lengths = s.n_depths = 10 - 2 * i;
        made_add(stats, s, &err);
    }
    check_all("unlike", stats, NULL);
}

static void a_caption_names_the_studies_of_its_versions(void **state)
{
    (void)state;
    ct_err err = {0};
    for (int studies = 1; studies <= 3; studies++) {
        static const char *const named[] = {"; study a; ", "; studies a, b. ",
                                            "; studies a, b, c. "};
        ct_stats *stats = begin();
        ct_figure *figures;
        size_t n;
        for (int i = 0; i < 3; i++) { /* three versions in one, two or three studies */
            made_sweep s = SWEEP;
            s.study = (const char *[]){"a", "b", "c"}[i % studies];
            s.model = (const char *[]){"x", "y", "z"}[i];
            s.n_lengths = s.n_depths = 1;
            made_add(stats, s, &err);
        }
        assert_ok(ct_stats_finish(stats, &err));
        assert_ok(ct_figures_plan(stats, CT_WANT_ACCURACY, &figures, &n, &err));
        for (size_t i = 0; i < n; i++)
            if (!strstr(figures[i].caption, named[studies - 1] + (studies == 1 ? 2 : 0)))
                fail_msg("expected %s in: %s", named[studies - 1], figures[i].caption);
        ct_figures_free(figures, n);
        ct_stats_free(stats);
    }
}

static void several_models_are_also_laid_over_one_pair_of_axes(void **state)
{
    (void)state;
    ct_err err = {0};
    for (int models = 1; models <= 3; models++) {
        ct_stats *stats = begin();
        ct_figure *figures;
        size_t n, overlays = 0;
        for (int m = 0; m < models; m++) {
            char name[16];
            snprintf(name, sizeof name, "model-%d", m);
            made_sweep s = SWEEP;
            s.model = name;
            s.n_lengths = s.n_depths = 1;
            made_add(stats, s, &err);
        }
        assert_ok(ct_stats_finish(stats, &err));
        assert_ok(ct_figures_plan(stats, CT_WANT_ACCURACY, &figures, &n, &err));
        for (size_t i = 0; i < n; i++) {
            overlays += figures[i].overlay;
            assert_int_equal(figures[i].n_versions, models);
        }
        assert_int_equal(overlays, models > 1 ? 1 : 0);
        ct_figures_free(figures, n);
        ct_stats_free(stats);
    }
}

/* The panel of a model that was run without a selection, for want of attention: a level, and no axis of k. */
static void a_panel_without_a_sweep_has_no_k(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    ct_figure *figures;
    ct_fonts *fonts;
    ct_text_box *texts;
    ct_box page;
    size_t n, n_texts, heads = 0, ticks = 0;
    made_sweep s = SWEEP;
    s.k_to = 3;
    s.n_lengths = s.n_depths = 3;
    made_add(stats, s, &err);
    s.model = "mamba";
    s.k_from = s.k_to = -1;
    made_add(stats, s, &err);
    assert_ok(ct_stats_finish(stats, &err));
    assert_ok(ct_figures_plan(stats, CT_WANT_ACCURACY, &figures, &n, &err));
    assert_string_equal(figures[0].name, "accuracy_by_heads");
    assert_ok(ct_fonts_new(&fonts, &err));
    assert_ok(ct_figure_measure(fonts, ct_figure_draw, &figures[0], &page, &texts, &n_texts, &err));
    for (size_t i = 0; i < n_texts; i++) {
        heads += strcmp(texts[i].text, "H = 10") == 0;
        ticks += strcmp(texts[i].text, "1") == 0 || strcmp(texts[i].text, "3") == 0;
        assert_string_not_equal(texts[i].text, "4"); /* k ends where it was measured last */
    }
    assert_int_equal(heads, 1);
    assert_int_equal(ticks, 2);
    ct_text_boxes_free(texts, n_texts);
    ct_fonts_free(fonts);
    ct_figures_free(figures, n);
    ct_stats_free(stats);
}

static void metrics_are_lines_of_their_own_beside_a_reference(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    const char *const metrics[] = {"entropy", "l2", "random", "entropy-inverted"};
    for (int m = 0; m < 4; m++) {
        made_sweep s = SWEEP;
        s.metric = metrics[m];
        s.knee = 1.2 + 2 * m;
        s.n_lengths = 5;
        s.n_depths = 5;
        made_add(stats, s, &err);
    }
    made_sweep s = SWEEP;
    s.k_from = s.k_to = -1;
    s.n_lengths = s.n_depths = 5;
    made_add(stats, s, &err);
    check_all("metrics", stats, NULL);
}

static void weight_edits_are_rows_and_a_grid_of_maps(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    const char *const modes[] = {"keep", "omit", "only", "binary", "null"};
    for (int g = 0; g < 4; g++)
        for (int p = 0; p < 5; p++) {
            made_sweep s = SWEEP;
            s.study = "table-6.1";
            s.k_from = s.k_to = -1;
            s.weights_generation = modes[g];
            s.weights_prefill = modes[p];
            s.top = g == 0 ? 0.5 + 0.1 * p : g == 2 ? 0.85 - 0.2 * p : 0.03;
            s.knee = g * 5 + p;
            made_add(stats, s, &err);
        }
    assert_ok(ct_stats_finish(stats, &err));
    ct_figure *figures;
    size_t n;
    assert_ok(ct_figures_plan(stats, CT_WANT_MAPS, &figures, &n, &err));
    assert_string_equal(figures[0].name, "retrieval_maps_by_weights");
    assert_int_equal(figures[0].n_panels, 20);
    for (size_t i = 0; i < 20; i++) { /* as Table 6.1: generation across, prefill down */
        const ct_stats_version *v = &stats->versions[figures[0].panels[i].version];
        assert_string_equal(v->weights_generation, modes[i % 4]);
        assert_string_equal(v->weights_prefill, modes[i / 4]);
    }
    ct_figures_free(figures, n);
    draw_all("weights", stats, NULL);
}

static void thirty_three_values_of_k_are_drawn(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    made_sweep s = SWEEP;
    s.model = "jamba-mini-1.6";
    s.heads = s.k_to = 32;
    s.knee = 5;
    s.slope = 0.6;
    s.top = 1;
    s.window = 0;
    made_add(stats, s, &err);
    check_all("jamba", stats, NULL);
}

static void one_prompt_at_one_k_is_drawn(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    ct_cell c = cell_make("a", 1, 250, 0, 5);
    assert_ok(ct_stats_add(stats, &c, &err));
    check_all("one", stats, "accuracy_by_heads retrieval_map_tiny-griffin_generation_entropy");
}

static void a_run_without_interventions_is_drawn(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    made_sweep s = SWEEP;
    s.k_from = s.k_to = -1;
    s.n_lengths = 7;
    s.n_depths = 3;
    made_add(stats, s, &err);
    check_all("plain", stats, "accuracy_by_weights retrieval_map_recurrentgemma-2b_all-heads");
}

static void long_and_hostile_names_stay_inside_the_page(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    char study[400], model[300];
    memset(study, 's', sizeof study - 1);
    study[sizeof study - 1] = 0;
    memset(model, 'm', sizeof model - 1);
    model[sizeof model - 1] = 0;
    memcpy(model, "../<&\"'\xFF\n\x01", 9);
    const char *const metrics[] = {"entropy", "random", "a metric of a later version & its name"};
    for (int m = 0; m < 3; m++)
        for (int other = 0; other < 2; other++) {
            made_sweep s = SWEEP;
            s.study = study;
            s.model = other ? "b" : model;
            s.metric = metrics[m];
            s.n_lengths = s.n_depths = 1;
            s.stages = m ? "prefill+generation" : "generation";
            made_add(stats, s, &err);
        }
    check_all("hostile", stats, NULL);
}

static void a_value_of_k_whose_cells_all_failed_is_a_gap(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    for (int k = 0; k <= 4; k++)
        for (int i = 0; i < 3; i++) {
            char key[33];
            snprintf(key, sizeof key, "%d-%d", k, i);
            ct_cell c = cell_make(key, k, 250 + 100 * i, 50, k);
            if (k == 2) c.status = CT_CELL_FAILED;
            assert_ok(ct_stats_add(stats, &c, &err));
        }
    check_all("gap", stats, NULL);
}

static void all_cells_failed_is_an_error_that_says_so(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    ct_figure *figures;
    size_t n;
    assert_fails(ct_figures_plan(stats, CT_WANT_ALL, &figures, &n, &err), CT_ERR_NOT_FOUND,
                 "got none");
    ct_cell c = cell_make("a", 1, 250, 0, 0);
    c.status = CT_CELL_FAILED;
    c.error = "the needle is not in the prompt";
    assert_ok(ct_stats_add(stats, &c, &err));
    assert_ok(ct_stats_finish(stats, &err));
    assert_fails(ct_figures_plan(stats, CT_WANT_ALL, &figures, &n, &err), CT_ERR_VALUE,
                 "all 1 cells failed; the first: the needle is not in the prompt");
    ct_stats_free(stats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_versions_of_a_sweep_are_drawn_clean),
        cmocka_unit_test(three_models_stand_in_three_panels),
        cmocka_unit_test(maps_of_several_sweeps_stand_together_at_each_k),
        cmocka_unit_test(maps_with_other_lengths_and_depths_are_drawn),
        cmocka_unit_test(a_caption_names_the_studies_of_its_versions),
        cmocka_unit_test(several_models_are_also_laid_over_one_pair_of_axes),
        cmocka_unit_test(a_panel_without_a_sweep_has_no_k),
        cmocka_unit_test(metrics_are_lines_of_their_own_beside_a_reference),
        cmocka_unit_test(weight_edits_are_rows_and_a_grid_of_maps),
        cmocka_unit_test(thirty_three_values_of_k_are_drawn),
        cmocka_unit_test(one_prompt_at_one_k_is_drawn),
        cmocka_unit_test(a_run_without_interventions_is_drawn),
        cmocka_unit_test(long_and_hostile_names_stay_inside_the_page),
        cmocka_unit_test(a_value_of_k_whose_cells_all_failed_is_a_gap),
        cmocka_unit_test(all_cells_failed_is_an_error_that_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
