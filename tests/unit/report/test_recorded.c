/* test_recorded.c - the figure of attention weights before and after their edit: which recordings stand together,
 * which head is shown, what is drawn, and files that are no recordings. */
#include "test.h"

#include <sys/stat.h>

#include "cells.h"
#include "io/safetensors.h"
#include "report/recorded.h"
#include "unit/io/alloc.h"
#include "unit/io/temp.h"

enum { ROWS = 2, LAYERS = 2, HEADS = 3, KEYS = 60, BEGIN = 30, END = 34 };

/* Weights of which head 1 of the first layer has the most on the needle; `after`: without the needle's. */
static void make_weights(float *w, bool after)
{
    for (int64_t i = 0; i < ROWS * LAYERS * HEADS * KEYS; i++) {
        int64_t key = i % KEYS, head = i / KEYS % HEADS, layer = i / KEYS / HEADS % LAYERS,
                row = i / KEYS / HEADS / LAYERS;
        bool needle = key >= BEGIN && key < END;
        w[i] = needle && head == 1 ? 0.1f + 0.02f * (float)row : 0.001f * (float)(key % 7);
        if (needle && layer == 1) w[i] = 0.2f; /* a later layer has more, and is not shown */
        if (needle && after) w[i] = 0;
    }
}

static void write_recording(const char *key, bool with_weights)
{
    static float before[ROWS * LAYERS * HEADS * KEYS], after[ROWS * LAYERS * HEADS * KEYS];
    static const int32_t layers[LAYERS] = {2, 5}, needle[2] = {BEGIN, END},
                         positions[ROWS] = {50, 51};
    const int64_t shape[4] = {ROWS, LAYERS, HEADS, KEYS}, one[1] = {LAYERS}, two[2] = {1, 2},
                  rows[1] = {ROWS};
    make_weights(before, false);
    make_weights(after, true);
    const ct_st_out tensors[] = {
        {"layers", "I32", 1, one, layers, sizeof layers},
        {"needle", "I32", 2, two, needle, sizeof needle},
        {"generation.positions", "I32", 1, rows, positions, sizeof positions},
        {"generation.weights_before", "F32", 4, shape, before, sizeof before},
        {"generation.weights_after", "F32", 4, shape, after, sizeof after},
    };
    char name[64];
    ct_err err = {0};
    snprintf(name, sizeof name, "recordings/%s.safetensors", key);
    assert_ok(ct_st_write(temp_path(name), tensors, with_weights ? 5 : 3, &err));
}

/* Cells of two prompts: two versions of the first are recorded, and one of the second. */
static ct_stats *make_stats(void)
{
    static const struct {
        const char *key, *mode, *prompt;
    } cells[] = {{"a", "keep", "p"}, {"b", "omit", "p"}, {"c", "keep", "q"},
                 {"d", "omit", "q"}, {"e", "null", "q"}, {"f", "null", "p"}};
    ct_stats *stats;
    ct_err err = {0};
    assert_ok(ct_stats_new(&stats, &err));
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
        ct_cell c = cell_make(cells[i].key, -1, cells[i].prompt[0] == 'p' ? 250 : 500, 50, 5);
        c.weights_generation = cells[i].mode;
        c.prompt_ids_hash = cells[i].prompt;
        assert_ok(ct_stats_add(stats, &c, &err));
    }
    assert_ok(ct_stats_finish(stats, &err));
    mkdir(temp_path("recordings"), 0777);
    write_recording("a", true);
    write_recording("b", true);
    write_recording("c", true);
    write_recording("d", false); /* without weights, and e a file that is none: passed over */
    temp_text("recordings/e.safetensors", "none");
    return stats;
}

static void versions_of_a_prompt_stand_together_with_one_head(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = make_stats();
    ct_report_run run = {.dir = temp_root};
    const ct_report_runs runs = {.stats = stats, .runs = &run, .n = 1};
    ct_recorded *figures;
    size_t n;
    assert_ok(ct_recorded_new(&runs, &figures, &n, &err));
    assert_int_equal(n, 2);
    const ct_recorded *f = &figures[0];
    assert_string_equal(f->name, "attention_weights");
    assert_string_equal(figures[1].name, "attention_weights_2");
    assert_int_equal(f->n_panels, 2);
    assert_int_equal(figures[1].n_panels, 1);
    assert_int_equal(f->layer, 2);
    assert_int_equal(f->head, 1);
    assert_int_equal(f->position, 50);
    assert_int_equal(f->begin, BEGIN);
    assert_int_equal(f->end, END);
    /* Twelve positions on either side, and none behind the query. */
    assert_int_equal(f->first, 18);
    assert_int_equal(f->n, 46 - 18);
    assert_true(f->panels[1].before[BEGIN - 18] == 0.1f && f->panels[1].after[BEGIN - 18] == 0);
    assert_true(fabs(f->most - 0.1f) < 1e-9);
    assert_non_null(strstr(f->panels[1].title, "omit"));
    assert_non_null(strstr(f->caption, "position 50, in generation. Layer 2, head 1"));
    assert_non_null(strstr(f->description, "on the needle 0.400 before, 0.000 after"));
    ct_buf csv = {0};
    assert_ok(ct_recorded_csv(f, &csv, &err));
    assert_non_null(strstr(csv.data, ",30,1,0.100000,0.000000\n"));
    assert_non_null(strstr(csv.data, ",29,0,0.001000,0.001000\n"));
    ct_buf_clear(&csv);
    ct_recorded_free(figures, n);
    ct_stats_free(stats);
}

static void no_text_lies_on_another_or_leaves_the_page(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = make_stats();
    ct_report_run run = {.dir = temp_root};
    const ct_report_runs runs = {.stats = stats, .runs = &run, .n = 1};
    ct_recorded *figures;
    ct_fonts *fonts;
    size_t n, n_texts;
    assert_ok(ct_recorded_new(&runs, &figures, &n, &err));
    assert_ok(ct_fonts_new(&fonts, &err));
    for (size_t f = 0; f < n; f++) {
        ct_box page;
        ct_text_box *texts;
        assert_ok(
            ct_figure_measure(fonts, ct_recorded_draw, &figures[f], &page, &texts, &n_texts, &err));
        assert_true(n_texts > 8);
        for (size_t i = 0; i < n_texts; i++) {
            ct_box a = texts[i].box;
            if (a.x < 0 || a.y < 0 || a.x + a.width > page.width || a.y + a.height > page.height)
                fail_msg("\"%s\" leaves the page", texts[i].text);
            for (size_t j = 0; j < i; j++)
                if (ct_box_meets((ct_box){a.x - 1, a.y - 1, a.width + 2, a.height + 2},
                                 texts[j].box))
                    fail_msg("\"%s\" lies on \"%s\"", texts[i].text, texts[j].text);
        }
        ct_text_boxes_free(texts, n_texts);
    }
    ct_fonts_free(fonts);
    ct_recorded_free(figures, n);
    ct_stats_free(stats);
}

static void when_the_nth_allocation_fails_there_is_an_error_and_no_leak(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_stats *stats = make_stats();
    ct_report_run run = {.dir = temp_root};
    const ct_report_runs runs = {.stats = stats, .runs = &run, .n = 1};
    long n_calls = 1;
    for (bool failed = true; failed; n_calls++) {
        ct_recorded *figures = NULL;
        size_t n = 0;
        err = (ct_err){0};
        alloc_start(n_calls);
        ct_status st = ct_recorded_new(&runs, &figures, &n, &err);
        ct_recorded_free(figures, n);
        alloc_stop();
        failed = alloc.calls >= n_calls;
        if (alloc.live != 0) fail_msg("call %ld: %ld bytes are left", n_calls, (long)alloc.live);
        if (st != (failed ? CT_ERR_MEMORY : CT_OK))
            fail_msg("call %ld: %s: %s", n_calls, ct_status_name(st), err.text);
    }
    assert_true(n_calls > 20);
    ct_stats_free(stats);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions_of_a_prompt_stand_together_with_one_head),
        cmocka_unit_test(no_text_lies_on_another_or_leaves_the_page),
        cmocka_unit_test(when_the_nth_allocation_fails_there_is_an_error_and_no_leak),
    };
    return cmocka_run_group_tests(tests, temp_begin, temp_end);
}
