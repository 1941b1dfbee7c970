/* test_report.c - from stores to files: the terminal's table, figures, the page.
 *
 * With CORTADO_FIGURES_OUT=DIR the pages are written there too, to be looked at.
 */
#include "test.h"

#include <dirent.h>
#include <unistd.h>

#include "cells.h"
#include "io/file.h"
#include "report/compare.h"
#include "report/draw.h"
#include "report/keywords.h"
#include "report/report.h"
#include "report/tables.h"
#include "report/weights.h"
#include "task/niah.h"

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

static ct_stats *begin(void)
{
    ct_err err = {0};
    ct_stats *stats;
    assert_ok(ct_stats_new(&stats, &err));
    return stats;
}

static char *table_of(ct_stats *stats)
{
    ct_err err = {0};
    ct_buf text = {0};
    assert_ok(ct_stats_finish(stats, &err));
    assert_ok(ct_table_text(stats, &text, &err));
    ct_stats_free(stats);
    return ct_buf_take(&text);
}

/* Columns, counting characters and not bytes. */
static size_t widest_line(const char *text)
{
    size_t widest = 0, used = 0;
    for (; *text; text++) {
        if (*text == '\n') used = 0;
        else if (((unsigned char)*text & 0xC0) != 0x80 && ++used > widest) widest = used;
    }
    return widest;
}

static void the_table_has_a_row_for_each_k(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    const struct {
        int64_t k;
        double score;
        const char *stages;
    } made[] = {{0, 0, "generation"}, {4, 5, "generation"}, {4, 2.5, "prefill+generation"}};
    for (int i = 0; i < 3; i++) {
        char key[33];
        snprintf(key, sizeof key, "%d", i);
        ct_cell c = cell_make(key, made[i].k, 250, 0, made[i].score);
        c.stages = made[i].stages;
        assert_ok(ct_stats_add(stats, &c, &err));
    }
    ct_cell failed = cell_make("f", 4, 250, 50, 0);
    failed.status = CT_CELL_FAILED;
    failed.error = "the needle is gone";
    assert_ok(ct_stats_add(stats, &failed, &err));
    char *text = table_of(stats);
    assert_string_equal(text,
                        "tiny-griffin; study made-up; heads kept by entropy; base prompts; "
                        "semantics:\npaper; scoring: table\n"
                        "accuracy in %, with the 95 % bootstrap interval over prompts\n"
                        "\n"
                        "   k generation              prefill + generation\n"
                        "   0   0.0                       -\n"
                        "   4 100.0                    50.0\n"
                        "\n"
                        "difference from the unchanged model in points; p: paired test over "
                        "prompts\n"
                        "\n"
                        "   k generation              prefill + generation\n"
                        "   0 -100.0  p 1.000\n"
                        "\n"
                        "difference from selection in generation only, at the same k; prompts "
                        "paired by\nlength and depth\n"
                        "prefill + generation                   4   -50.0  [ -50.0,  -50.0]  "
                        "p 1.000\n"
                        "\n"
                        "1 of 4 cells failed; the first: the needle is gone\n");
    free(text);
}

static void tables_of_any_shape_fit_eighty_columns(void **state)
{
    (void)state;
    ct_err err = {0};
    for (int versions = 1; versions <= 9; versions += 2) {
        ct_stats *stats = begin();
        for (int v = 0; v < versions; v++) {
            char name[100];
            snprintf(name, sizeof name, "m\xC3\xA9tric-%d\x1B[31m %0*d", v, v * 9 + 1, v);
            made_sweep s = SWEEP;
            s.metric = name;
            s.n_lengths = s.n_depths = 3;
            s.fail_every = 5;
            made_add(stats, s, &err);
        }
        char *text = table_of(stats);
        assert_true(widest_line(text) <= 80);
        assert_null(strchr(text, '\x1B'));
        free(text);
    }
    char *text = table_of(begin());
    assert_string_equal(text, "no cell is finished yet\n");
    free(text);
}

/* ---- the page -------------------------------------------------------------------------------- */

static char *page_of(const char *name, ct_stats *stats, bool known)
{
    ct_err err = {0};
    ct_buf page = {0};
    ct_report_run run = {
        .dir = "runs/figure-3.2",
        .known = known,
        .provenance = {.version = "0.1.0",
                       .commit = "0123456789ab",
                       .study = "figure-3.2-recurrentgemma-2b",
                       .study_hash = "5a17c2d1e6b88f10aa3450b1c6f0d9e2",
                       .study_text = "study: figure-3.2-recurrentgemma-2b\nmodel: "
                                     "recurrentgemma-2b   # <script>alert(1)</script>\n",
                       .figures = "",
                       .model = "recurrentgemma-2b",
                       .weights_hash = "0f3c9d0b8de24d5f9a6b17c8e1d2f3a4",
                       .tokenizer_hash = "b31d22c09e7a4c11853f6a90d1e2c3b4",
                       .backend = "cpu-amx",
                       .compute = "bf16",
                       .dtype = "bf16",
                       .machine = "A CPU of many cores, 2 cores, Linux 6.1.0",
                       .flags = "cortado run studies/figure-3.2-recurrentgemma-2b.yaml",
                       .numerics_version = 1,
                       .started_unix_ms = 1750000000000}};
    if (!stats->done && !stats->failed) assert_ok(ct_stats_finish(stats, &err));
    ct_report_runs runs = {.n = 1, .runs = &run, .stats = stats, .wanted = 3};
    assert_ok(ct_html_page(&runs, &page, &err));
    ct_stats_free(stats);
    const char *dir = getenv("CORTADO_FIGURES_OUT");
    if (dir && *dir) {
        char *path = ct_path_join(dir, name, &err);
        assert_ok(ct_file_write(path, page.data, page.size, &err));
        free(path);
    }
    return ct_buf_take(&page);
}

/* Every id is defined once, and every reference inside the page has its id. */
static void check_ids(const char *page)
{
    size_t ids = 0;
    for (const char *at = page; (at = strstr(at, " id=\"")); ids++) {
        at += 5;
        char needle[128];
        size_t n = strcspn(at, "\"");
        assert_true(n > 0 && n < 100);
        snprintf(needle, sizeof needle, " id=\"%.*s\"", (int)n, at);
        const char *first = strstr(page, needle);
        assert_ptr_equal(first + 5, at);
    }
    assert_true(ids >= 2); /* provenance and method are on every page */
    const char *const marks[] = {"href=\"#", "url(#"};
    for (int m = 0; m < 2; m++)
        for (const char *at = page; (at = strstr(at, marks[m]));) {
            at += strlen(marks[m]);
            char needle[128];
            if (!strncmp(at, "cell-", 5)) continue; /* opens a cell in the explorer */
            snprintf(needle, sizeof needle, " id=\"%.*s\"", (int)strcspn(at, "\")"), at);
            assert_non_null(strstr(page, needle));
        }
}

static size_t count(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part)) n++;
    return n;
}

static void the_page_escapes_what_comes_from_outside_and_its_ids_are_unique(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    made_sweep s = SWEEP;
    s.n_lengths = s.n_depths = 3;
    s.model = "</title><b>&\"'\xFF";
    s.hostile = true;
    made_add(stats, s, &err);
    s.stages = "prefill+generation";
    s.knee = 8;
    s.fail_every = 40;
    made_add(stats, s, &err);
    char *page = page_of("hostile.html", stats, true);
    check_ids(page);
    /* The data and the script, and nothing that an output or a study brought. */
    assert_int_equal(count(page, "<script"), 2);
    assert_int_equal(count(page, "</script"), 2);
    assert_int_equal(count(page, "<!--"), 0);
    assert_null(strstr(page, "</title><b>"));
    assert_null(strstr(page, "<b>"));
    assert_null(strstr(page, "http://fonts"));
    assert_null(strstr(page, "src=\""));
    const char *data = strstr(page, "id=\"data\">"), *end = strstr(data, "</script");
    data = strchr(data, '>') + 1;
    assert_ptr_equal(strchr(data, '<'), end);
    assert_non_null(strstr(data, "\\u003c/script>"));
    assert_non_null(strstr(page, "&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert_non_null(strstr(page, "&lt;b&gt;&quot;eat a sandwich&quot;&lt;/b&gt;"));
    assert_true(ct_utf8_valid(page, strlen(page)));
    free(page);
}

static void the_page_of_a_whole_study_is_drawn(void **state)
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
    char *page = page_of("report.html", stats, true);
    check_ids(page);
    assert_non_null(strstr(page, "11 of 2200 cells"));
    free(page);
}

static void a_page_is_made_even_if_all_failed_or_nothing_ran(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    made_sweep s = SWEEP;
    s.fail_every = 1;
    made_add(stats, s, &err);
    char *page = page_of("failed.html", stats, true);
    assert_non_null(strstr(page, "All cells failed"));
    assert_non_null(strstr(page, "And 900 more.")); /* of 1100, 200 are listed */
    assert_null(strstr(page, "<svg"));
    check_ids(page);
    free(page);
    page = page_of("empty.html", begin(), false);
    assert_non_null(strstr(page, "No cell is finished yet"));
    check_ids(page);
    free(page);
}

static void a_page_of_ten_thousand_cells_holds_each_prompt_once(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = begin();
    made_sweep s = SWEEP;
    s.heads = 49;
    s.k_to = 49;
    s.knee = 20;
    s.slope = 0.3;
    made_add(stats, s, &err);
    s.stages = "prefill+generation";
    made_add(stats, s, &err);
    assert_int_equal(stats->n_cells, 10000);
    char *page = page_of("large.html", stats, true);
    const char *data = strstr(page, "id=\"data\">");
    const char *pool = strstr(data, "\"pool\":"), *end = strchr(pool + 8, '}');
    /* 100 prompts of up to 1.3 kB, 70 kB in all, share one haystack; what stands around a needle is
     * new in each. 10,000 rows have about 70 bytes. */
    assert_true(end - pool < 20000);
    assert_true(strlen(data) < 1000000);
    free(page);
}

static void keywords_on_the_page_are_those_that_are_scored(void **state)
{
    (void)state;
    ct_err err = {0};
    static const char needle[] =
        "\nThe best thing to do in San Francisco is eat a sandwich and sit "
        "in Dolores Park on a sunny day.\n";
    static const char *const answers[] = {
        "Eat a SANDWICH!",
        "dolores park",
        "to sit in Dolores  Park",
        "a sunny day",
        "on a sunny day",
        "The best thing is to eat a sandwich and sit in Dolores Park on a sunny day.",
        needle,
        "nothing of it"};
    static const ct_scoring scorings[] = {CT_SCORING_TABLE, CT_SCORING_REFERENCE,
                                          CT_SCORING_BINARY};
    for (size_t s = 0; s < 3; s++)
        for (size_t a = 0; a < sizeof answers / sizeof *answers; a++) {
            double score, max_score, sum = 0;
            ct_keywords words;
            char *clean, *word;
            assert_ok(ct_score(scorings[s], NULL, 0, needle, answers[a], strlen(answers[a]), &score,
                               &max_score, &err));
            assert_ok(ct_keywords_new(ct_scoring_name(scorings[s]), max_score, NULL, &words, &err));
            assert_ok(ct_score_clean(answers[a], strlen(answers[a]), &clean, &err));
            for (size_t k = 0; k < words.count; k++) {
                assert_ok(
                    ct_score_clean(words.items[k].text, strlen(words.items[k].text), &word, &err));
                if (strstr(clean, word))
                    sum = words.items[k].set ? words.items[k].points : sum + words.items[k].points;
                free(word);
            }
            if (sum != score) fail_msg("%s: expected %g, got %g", answers[a], score, sum);
            free(clean);
            ct_keywords_clear(&words);
        }
    ct_keywords words;
    assert_ok(ct_keywords_new("table", 3,
                              "study: own\ntask:\n  niah:\n    needle: tea is in the tin\n    "
                              "keywords:\n      - {text: tea, points: 1}\n      - {text: the tin, "
                              "points: 3, set: true}\n",
                              &words, &err));
    assert_int_equal(words.count, 3);
    assert_string_equal(words.items[1].text, "the tin");
    assert_true(words.items[1].set && words.items[1].points == 3);
    assert_string_equal(words.items[2].text, "tea is in the tin");
    ct_keywords_clear(&words);
    assert_ok(ct_keywords_new("binary", 5, "no: [study", &words, &err));
    assert_int_equal(words.count, 1);
    ct_keywords_clear(&words);
}

static void table_6_1_has_the_layout_and_the_values_of_the_thesis(void **state)
{
    (void)state;
    ct_err err = {0};
    static const char *const modes[] = {"keep", "omit", "only", "binary", "null"};
    ct_stats *stats = begin();
    for (int g = 0; g < 4; g++)
        for (int p = 0; p < 5; p++)
            for (int prompt = 0; prompt < 10; prompt++) {
                char key[33];
                snprintf(key, sizeof key, "%d-%d-%d", g, p, prompt);
                /* Of 10 prompts: keep - keep 5, keep - null 10, only - keep 9, the rest none. */
                int found = g == 0 && p == 0 ? 5 : g == 0 && p == 4 ? 10 : g == 2 && p == 0 ? 9 : 0;
                ct_cell c = cell_make(key, -1, 250, prompt, prompt < found ? 5 : 0);
                c.weights_generation = modes[g];
                c.weights_prefill = modes[p];
                assert_ok(ct_stats_add(stats, &c, &err));
            }
    ct_cell lone = cell_make("lone", -1, 250, 0, 5);
    lone.model = "another"; /* a single version makes no table */
    assert_ok(ct_stats_add(stats, &lone, &err));
    assert_ok(ct_stats_finish(stats, &err));
    ct_comparison *all;
    ct_weights_table *tables;
    size_t n, n_tables;
    assert_ok(ct_comparisons_new(stats, &all, &n, &err));
    assert_ok(ct_weights_tables_new(stats, all, n, &tables, &n_tables, &err));
    assert_int_equal(n_tables, 1);
    const ct_weights_table *t = &tables[0];
    assert_false(t->null_in_generation);
    assert_null(t->at[0][0].unchanged);
    assert_int_equal(t->at[4][0].rank, 1);
    assert_int_equal(t->at[0][2].rank, 2);
    assert_int_equal(t->at[0][0].rank, 3);
    assert_int_equal(t->at[1][1].rank, 0);
    assert_true(t->at[4][0].unchanged->test.p == 0.0625); /* 5 better, none worse: 2 / 2^5 */
    assert_true(ct_weights_published(0, 2) == 85.7 && ct_weights_published(4, 0) == 68.8);
    assert_true(ct_weights_published(4, 4) < 0);
    ct_buf text = {0};
    assert_ok(ct_weights_latex(stats, t, &text, &err));
    assert_non_null(strstr(text.data, "\nKeep & \\textit{50.0\\%} (50.3\\%) & 0.0\\% (3.7\\%) & "
                                      "\\underline{90.0\\%} (85.7\\%) & 0.0\\% (3.7\\%) \\\\\n"));
    ct_buf_clear(&text);
    assert_ok(ct_accuracy_latex(stats, all, n, &text, &err)); /* 21 versions: a row each */
    assert_non_null(strstr(text.data, "{lrlr}\n"));
    assert_int_equal(count(text.data, " & all & "), 21);
    assert_non_null(
        strstr(text.data, "keep \xE2\x80\x93 null & all & 100.0 [100.0, 100.0] & 10 \\\\\n"));
    ct_buf_clear(&text);
    assert_ok(ct_weights_csv(stats, t, &text, &err));
    assert_int_equal(count(text.data, "\n"), 21);
    assert_non_null(strstr(text.data,
                           "\"tiny-griffin\",keep,null,10,1.000000,1.000000,1.000000,0.688,"
                           "0.500000,"));
    ct_buf_clear(&text);
    assert_ok(ct_comparisons_csv(stats, all, n, &text, &err));
    assert_int_equal(count(text.data, "exact McNemar"), 19);
    ct_buf_clear(&text);
    assert_ok(ct_latex_text(&text, "50% of a_b & {c} \\ ~^\x01", &err));
    assert_string_equal(text.data, "50\\% of a\\_b \\& \\{c\\} \\textbackslash{} "
                                   "\\textasciitilde{}\\textasciicircum{}");
    ct_buf_clear(&text);
    free(all);
    free(tables);
    char *page = page_of("table.html", stats, true);
    assert_non_null(strstr(page, "<small class=\"published\">thesis 85.7</small>"));
    assert_non_null(strstr(page, "The thesis measured another model"));
    free(page);
}

/* ---- with a store ---------------------------------------------------------------------------- */

static char folder[64];

static int folder_make(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/cortado-report-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

/* Removes the folder and what is in it, two levels deep. */
static int folder_remove(void **state)
{
    (void)state;
    const char *const below[] = {"run/figures", "run/both", "run", "empty", ""};
    for (size_t i = 0; i < 5; i++) {
        char dir[128], path[512];
        snprintf(dir, sizeof dir, "%s/%s", folder, below[i]);
        DIR *d = opendir(dir);
        if (!d) continue;
        for (struct dirent *e; (e = readdir(d));) {
            snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
            unlink(path);
        }
        closedir(d);
        rmdir(dir);
    }
    return 0;
}

static void make_store(const char *dir, const ct_cell *cells, size_t n, const char *figures)
{
    ct_err err = {0};
    ct_store *store;
    assert_ok(ct_dir_make(dir, &err));
    char *path = ct_path_join(dir, "run.sqlite", &err);
    assert_ok(ct_store_open(path, true, &store, &err));
    ct_provenance from = {.version = "0.1.0",
                          .commit = "abc",
                          .study = "made-up",
                          .study_hash = "1",
                          .study_text = "study: made-up\n",
                          .figures = figures,
                          .model = "tiny-griffin",
                          .weights_hash = "2",
                          .tokenizer_hash = "3",
                          .backend = "ref",
                          .compute = "f32",
                          .dtype = "f32",
                          .machine = "here",
                          .flags = "cortado run made-up.yaml",
                          .numerics_version = 1,
                          .started_unix_ms = 1750000000000};
    assert_ok(ct_store_begin(store, &from, &err));
    if (n) assert_ok(ct_store_put(store, cells, n, &err));
    assert_ok(ct_store_end(store, "done", 5, &err));
    ct_store_close(store);
    free(path);
}

static bool there(const char *name)
{
    char path[512];
    struct stat info;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return stat(path, &info) == 0 && info.st_size > 0;
}

static void a_stored_run_becomes_table_figures_and_page(void **state)
{
    (void)state;
    ct_err err = {0};
    char dir[128], figures[128], html[128], *text;
    snprintf(dir, sizeof dir, "%s/run", folder);
    snprintf(figures, sizeof figures, "%s/run/figures", folder);
    snprintf(html, sizeof html, "%s/run/report.html", folder);
    ct_cell cells[6];
    for (int i = 0; i < 6; i++) {
        char key[33];
        snprintf(key, sizeof key, "%032d", i);
        cells[i] = cell_make(key, i / 2, 250, i % 2 * 100, i);
    }
    make_store(dir, cells, 6, "accuracy_by_heads,retrieval_map");
    const char *dirs[1] = {dir};
    assert_ok(ct_report_table(dirs, 1, &text, &err));
    assert_non_null(strstr(text, "   2  90.0"));
    free(text);
    assert_ok(ct_report_figures(dirs, 1, figures, &err));
    assert_true(there("run/figures/accuracy_by_heads.svg"));
    assert_true(there("run/figures/accuracy_by_heads.pdf"));
    assert_true(there("run/figures/accuracy_by_heads.png"));
    assert_true(there("run/figures/accuracy_by_heads.csv"));
    assert_true(there("run/figures/retrieval_map_tiny-griffin_generation_entropy.pdf"));
    assert_true(there("run/figures/retrieval_map_tiny-griffin_generation_entropy_k02.png"));
    assert_ok(ct_report_html(dirs, 1, html, &err));
    assert_true(there("run/report.html"));
    /* The numbers behind the figure, exactly. */
    char *csv, path[256];
    size_t size;
    snprintf(path, sizeof path, "%s/accuracy_by_heads.csv", figures);
    assert_ok(ct_file_read(path, 1 << 20, &csv, &size, &err));
    assert_non_null(strstr(csv,
                           "\"made-up\",\"tiny-griffin\",4,\"entropy\",\"generation\",\"keep\","
                           "\"keep\",\"base\",0,\"paper\",\"table\",2,2,2,0,0.900000,"
                           "0.800000,1.000000\n"));
    free(csv);
}

static void a_study_that_asks_for_one_kind_of_figure_gets_that(void **state)
{
    (void)state;
    ct_err err = {0};
    char dir[128], figures[128];
    snprintf(dir, sizeof dir, "%s/run", folder);
    snprintf(figures, sizeof figures, "%s/run/figures", folder);
    ct_cell c = cell_make("a", 1, 250, 0, 5);
    make_store(dir, &c, 1, "retrieval_map");
    const char *dirs[1] = {dir};
    assert_ok(ct_report_figures(dirs, 1, figures, &err));
    assert_false(there("run/figures/accuracy_by_heads.svg"));
    assert_true(there("run/figures/retrieval_map_tiny-griffin_generation_entropy.svg"));
}

static void several_runs_make_one_page_and_no_cell_counts_twice(void **state)
{
    (void)state;
    ct_err err = {0};
    char first[128], second[128], html[160], *page;
    size_t size;
    snprintf(first, sizeof first, "%s/run", folder);
    snprintf(second, sizeof second, "%s/empty", folder);
    snprintf(html, sizeof html, "%s/report.html", folder);
    ct_cell cells[3];
    for (int i = 0; i < 3; i++) {
        char key[33];
        snprintf(key, sizeof key, "%032d", i);
        cells[i] = cell_make(key, i, 250, 50, i);
    }
    make_store(first, cells, 3, "");
    cells[1].study = "another-study"; /* a run of its own */
    cells[1].model = "another-model";
    make_store(second, cells, 2, ""); /* of these, cell 0 is in both */
    const char *dirs[2] = {first, second};
    assert_ok(ct_report_html(dirs, 2, html, &err));
    assert_ok(ct_file_read(html, 1 << 24, &page, &size, &err));
    assert_non_null(strstr(page, "<h1>made-up, another-study</h1>"));
    assert_non_null(
        strstr(page, "tiny-griffin, another-model \xC2\xB7 2 versions \xC2\xB7 4 cells"));
    /* A figure names the studies of its versions: in its caption, and below it on the page. */
    assert_non_null(strstr(page, "</code>, studies made-up, another-study</figcaption>"));
    assert_non_null(strstr(page, "</code>, study another-study</figcaption>"));
    check_ids(page);
    free(page);
}

static void folders_without_cells_or_without_a_store_are_errors_that_say_so(void **state)
{
    (void)state;
    ct_err err = {0};
    char dir[128], figures[128], *text;
    snprintf(dir, sizeof dir, "%s/empty", folder);
    snprintf(figures, sizeof figures, "%s/empty/figures", folder);
    const char *dirs[1] = {dir};
    assert_fails(ct_report_figures(dirs, 0, figures, &err), CT_ERR_USAGE, "got none");
    assert_fails(ct_report_table(dirs, 1, &text, &err), CT_ERR_NOT_FOUND, "run.sqlite");
    assert_null(text);
    make_store(dir, NULL, 0, "");
    assert_ok(ct_report_table(dirs, 1, &text, &err));
    assert_string_equal(text, "no cell is finished yet\n");
    free(text);
    assert_fails(ct_report_figures(dirs, 1, figures, &err), CT_ERR_NOT_FOUND, "got none");
    assert_false(there("empty/figures"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_has_a_row_for_each_k),
        cmocka_unit_test(tables_of_any_shape_fit_eighty_columns),
        cmocka_unit_test(the_page_escapes_what_comes_from_outside_and_its_ids_are_unique),
        cmocka_unit_test(the_page_of_a_whole_study_is_drawn),
        cmocka_unit_test(a_page_is_made_even_if_all_failed_or_nothing_ran),
        cmocka_unit_test(a_page_of_ten_thousand_cells_holds_each_prompt_once),
        cmocka_unit_test(keywords_on_the_page_are_those_that_are_scored),
        cmocka_unit_test(table_6_1_has_the_layout_and_the_values_of_the_thesis),
        cmocka_unit_test_setup_teardown(a_stored_run_becomes_table_figures_and_page, folder_make,
                                        folder_remove),
        cmocka_unit_test_setup_teardown(a_study_that_asks_for_one_kind_of_figure_gets_that,
                                        folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(several_runs_make_one_page_and_no_cell_counts_twice,
                                        folder_make, folder_remove),
        cmocka_unit_test_setup_teardown(
            folders_without_cells_or_without_a_store_are_errors_that_say_so, folder_make,
            folder_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
