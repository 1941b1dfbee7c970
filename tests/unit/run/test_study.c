/* test_study.c - study files: what is read, and that everything else is refused with its line. */
#include "test.h"

#include "base/buf.h"
#include "run/grid.h"
#include "run/study.h"

#define NEEDLE                                                                                     \
    "The best thing to do in San Francisco is eat a sandwich and sit in Dolores Park on a sunny "  \
    "day."

/* Lines 1 to 8 of a study; a test adds its own from line 9 on. */
#define HEAD                                                                                       \
    "study: s\n"                                                                                   \
    "model: m\n"                                                                                   \
    "task:\n"                                                                                      \
    "  niah:\n"                                                                                    \
    "    haystack: essays\n"                                                                       \
    "    needle: \"\\n" NEEDLE "\\n\"\n"                                                           \
    "    question: What is the best thing to do in San Francisco?\n"                               \
    "    buffer: 200\n"
#define GRID "    lengths: [300, 250]\n    depths: [0, 50, 100]\n"

static ct_status parse(const char *text, ct_study **out, ct_err *err)
{
    return ct_study_parse_bytes(text, strlen(text), "dir/s.yaml", out, err);
}

static void a_full_study_is_read_value_by_value(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *s;
    assert_ok(parse("study: figure-1.a_b\n"
                    "model: m/n\n"
                    "task:\n"
                    "  niah:\n"
                    "    haystack: [a.txt, b]\n"
                    "    needle: |\n"
                    "      Tea is kept in the blue tin.\n"
                    "    question: \"Where: # is tea?\"\n"
                    "    template: instruct\n"
                    "    read_twice: true\n"
                    "    buffer: 100\n"
                    "    lengths: {from: 250, to: 4096, count: 10}\n"
                    "    depths: {from: 0, to: 100, step: 25}\n"
                    "    scoring: table\n"
                    "    keywords:\n"
                    "      - {text: blue, points: 0.5}\n"
                    "      - {text: in the blue tin, points: 2, set: true}\n"
                    "generate: {max_new_tokens: 7, ignore_eos: true}\n"
                    "semantics: {kv_cache: off, prefill_window: full}\n"
                    "compute: f32\n"
                    "window_visible: 2048\n"
                    "interventions:\n"
                    "  - heads: {keep: {from: 0, to: 8}, metric: [entropy, random], seed: [1, 2],\n"
                    "            stages: [generation, prefill+generation]}\n"
                    "    weights: {generation: [null, omit], prefill: keep}\n"
                    "  - heads: none\n"
                    "    prompts: {lengths: 250}\n"
                    "figures: [retrieval_map]\n",
                    &s, &err));
    assert_string_equal(ct_study_name(s), "figure-1.a_b");
    assert_string_equal(s->dir, "dir");
    assert_string_equal(s->models[0].name, "m/n");
    assert_int_equal(s->n_haystack, 2);
    assert_string_equal(s->haystack[1], "dir/b");
    assert_string_equal(s->needle, "Tea is kept in the blue tin.\n");
    assert_string_equal(s->question, "Where: # is tea?");
    assert_int_equal(s->models[0].template_kind, CT_NIAH_INSTRUCT);
    assert_int_equal(s->n_readings, 1);
    assert_true(s->read_twice[0]);
    assert_int_equal(s->buffer, 100);
    /* numpy.round(numpy.linspace(250, 4096, 10)), the thesis's lengths */
    static const int64_t lengths[] = {250, 677, 1105, 1532, 1959, 2387, 2814, 3241, 3669, 4096};
    assert_int_equal(s->lengths.count, 10);
    assert_memory_equal(s->lengths.values, lengths, sizeof lengths);
    static const int64_t depths[] = {0, 25, 50, 75, 100};
    assert_int_equal(s->depths.count, 5);
    assert_memory_equal(s->depths.values, depths, sizeof depths);
    assert_int_equal(s->scoring, CT_SCORING_TABLE);
    assert_int_equal(s->n_keywords, 2);
    assert_string_equal(s->keywords[1].text, "in the blue tin");
    assert_true(s->keywords[0].points == 0.5 && s->keywords[1].set && !s->keywords[0].set);
    assert_int_equal(s->max_new_tokens, 7);
    assert_true(s->ignore_eos);
    assert_int_equal(s->n_options, 2);
    assert_string_equal(s->options[0].key, "kv_cache");
    assert_string_equal(s->options[0].value, "off");
    assert_int_equal(s->compute, CT_CHOOSE_F32);
    assert_int_equal(s->window_visible, 2048);
    assert_string_equal(s->figures, "retrieval_map");
    assert_int_equal(s->n_entries, 2);
    const ct_study_entry *e = &s->entries[0];
    assert_int_equal(e->keep.count, 9);
    assert_int_equal(e->keep.values[8], 8);
    assert_int_equal(e->n_metrics, 2);
    assert_int_equal(e->metrics[1], CT_METRIC_RANDOM);
    assert_int_equal(e->n_stages, 2);
    assert_true(e->stages[0][CT_STAGE_GENERATION] && !e->stages[0][CT_STAGE_PREFILL]);
    assert_true(e->stages[1][CT_STAGE_GENERATION] && e->stages[1][CT_STAGE_PREFILL]);
    assert_int_equal(e->n_modes[CT_STAGE_GENERATION], 2);
    assert_int_equal(e->modes[CT_STAGE_GENERATION][1], CT_WEIGHTS_OMIT);
    assert_int_equal(e->n_modes[CT_STAGE_PREFILL], 1);
    assert_false(s->entries[1].selects_heads);
    ct_grid grid;
    assert_ok(ct_grid_new(s, 0, &grid, &err));
    /* stages 2 x (entropy + random with 2 seeds) x k 9 x weights 2, and the one without anything */
    assert_int_equal(grid.n_versions, 2 * 3 * 9 * 2 + 1);
    assert_int_equal(grid.n_cells, 108 * 50 + 5);
    ct_grid_clear(&grid);
    ct_study_close(s);
}

static void a_short_study_gets_the_defaults_and_one_version(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *s;
    assert_ok(parse(HEAD GRID, &s, &err));
    assert_int_equal(s->max_new_tokens, 40);
    assert_int_equal(s->buffer, 200);
    assert_string_equal(s->semantics, "paper");
    assert_string_equal(s->figures, "");
    assert_int_equal(s->compute, CT_CHOOSE_AUTO);
    ct_grid grid;
    assert_ok(ct_grid_new(s, 0, &grid, &err));
    assert_int_equal(grid.n_versions, 1);
    assert_int_equal(grid.n_cells, 6);
    ct_grid_clear(&grid);
    ct_study_close(s);
}

typedef struct bad_study {
    const char *text;
    ct_status status;
    const char *part; /* of the error */
} bad_study;

#define V        CT_ERR_VALUE
#define F        CT_ERR_FORMAT
#define U        CT_ERR_USAGE
#define HEADS(x) HEAD GRID "interventions:\n  - heads: {" x "}\n"

static const bad_study bad_studies[] = {
    /* YAML itself */
    {"", F, "got nothing"},
    {"- a\n", F, "got a list"},
    {"word\n", F, "got a single value"},
    {"study: s\n\tmodel: m\n", F, "got a tab (line 2)"},
    {"study: s\nmodel: [a\n", F, "not YAML"},
    {"study: s\nmodel: m\nstudy: t\n", F, "got \"study\" again (line 3; first on line 1)"},
    {"study: &a s\n", F, "anchors (&name) are not read: write the value out (line 1)"},
    {"study: s\nmodel: *a\n", F, "aliases (*name) are not read: write the value out (line 2)"},
    {"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", F, "anchors"},
    {"study: !!str s\n", F, "tags (!name) are not read (line 1)"},
    {"study: s\n---\nstudy: t\n", F, "got a second"},
    {"[a, b]: c\n", F, "expected a word as key"},
    {"<<: {a: b}\n", U, "unknown key \"<<\""},
    {"study: [[[[[[[[[[[[[[[[[[a]]]]]]]]]]]]]]]]]]\n", F, "16 levels"},
    {"study: \"a\\0b\"\n", F, "NUL character"},
    {"study: \x80\n", F, "got the byte 0x80 (line 1)"},
    {"\xFF\xFEs\0", F, "got UTF-16"},
    /* keys */
    {"stduy: s\n", U, "did you mean \"study\"? (dir/s.yaml, line 1)"},
    {"study: s\n", CT_ERR_NOT_FOUND, "the key \"model\""},
    {HEAD GRID "    read_twce: true\n", U, "did you mean \"read_twice\"? (dir/s.yaml, line 11)"},
    {HEAD "    depths: 0\n", CT_ERR_NOT_FOUND, "task.niah: expected the key \"lengths\""},
    {HEAD GRID "  mmlu: {}\n", U, "unknown key \"mmlu\""},
    {HEAD GRID "generate: {max_tokens: 4}\n", U, "unknown key \"max_tokens\""},
    /* values */
    {"study: a/b\n", V, "expected a name"},
    {"study: ..\n", V, "expected a name"},
    {"study:\n", V, "expected text, got nothing"},
    {"study: ~\n", V, "expected text"},
    {"study: [a]\n", V, "expected text, got a list"},
    {HEAD GRID "    read_twice: no\n", V, "expected true or false, got no (dir/s.yaml, line 11)"},
    {HEAD GRID "    read_twice: \"true\"\n", V, "true or false, got \"true\""},
    {HEAD "    lengths: 1e3\n    depths: 0\n", V,
     "lengths: expected a whole number from 1 to 16777216, got 1e3 (dir/s.yaml, line 9)"},
    {HEAD "    lengths: 250.5\n    depths: 0\n", V, "got 250.5"},
    {HEAD "    lengths: 0250\n    depths: 0\n", V, "got 0250"},
    {HEAD "    lengths: \"250\"\n    depths: 0\n", V, "got \"250\""},
    {HEAD "    lengths: 0\n    depths: 0\n", V, "got 0"},
    {HEAD "    lengths: 99999999999999999999\n    depths: 0\n", V, "whole number"},
    {HEAD "    lengths: []\n    depths: 0\n", V, "at least one value, got an empty list"},
    {HEAD "    lengths: [250, 250]\n    depths: 0\n", V, "got 250 twice"},
    {HEAD "    lengths: [250, [300]]\n    depths: 0\n", V, "got a list"},
    {HEAD "    lengths: {from: 250, to: 300}\n    depths: 0\n", V, "either `count` or `step`"},
    {HEAD "    lengths: {from: 250, to: 300, count: 2, step: 2}\n    depths: 0\n", V,
     "either `count` or `step`"},
    {HEAD "    lengths: {from: 300, to: 250, count: 2}\n    depths: 0\n", V,
     "`to` not below `from`"},
    {HEAD "    lengths: {from: 250, to: 300, count: 52}\n    depths: 0\n", V, "from 2 to 51"},
    {HEAD "    lengths: {from: 250, to: 300, count: 1}\n    depths: 0\n", V, "from 2 to 51"},
    {HEAD "    lengths: {from: 250, to: 300, step: 0}\n    depths: 0\n", V, "got 0"},
    {HEAD "    lengths: {from: 250, too: 300, step: 1}\n    depths: 0\n", U, "mean \"to\""},
    {HEAD "    lengths: 250\n    depths: -1\n", V, "whole number from 0 to 100, got -1"},
    {HEAD "    lengths: 250\n    depths: 101\n", V, "whole number from 0 to 100, got 101"},
    {HEAD "    lengths: 250\n    depths: .nan\n", V, "got .nan"},
    {HEAD "    lengths: 250\n    depths: [0, .inf]\n", V, "got .inf"},
    {HEAD GRID "    scoring: tabel\n", U, "did you mean table"},
    {HEAD GRID "    template: chat\n", V, "base or instruct, got chat"},
    {HEAD GRID "    keywords: []\n", V, "a list of {text, points}"},
    {HEAD GRID "    keywords: [{text: a, points: .inf}]\n", V, "got .inf (dir/s.yaml, line 11)"},
    {HEAD GRID "generate: {max_new_tokens: 0}\n", V, "from 1 to 1000000, got 0"},
    {HEAD GRID "semantics: papre\n", V, "paper, reference, or single options, got papre"},
    {HEAD GRID "semantics: {kv_cash: off}\n", U, "kv_cache"},
    {HEAD GRID "semantics: {base: papre}\n", V,
     "semantics.base: expected paper or reference, got papre"},
    {HEAD GRID "semantics: {base: [paper]}\n", V, "got a list"},
    /* models and readings */
    {"study: s\nmodel: []\n", V, "1 to 16 models, got an empty list (dir/s.yaml, line 2)"},
    {"study: s\nmodel: [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q]\n", V, "1 to 16 models"},
    {"study: s\nmodel: [a,\n b, a]\n", V, "each model once, got a (dir/s.yaml, line 3)"},
    {"study: s\nmodel: {a: b}\n", V, "expected text, got keys and values"},
    {HEAD GRID "    read_twice: []\n", V, "true, false, or [false, true]"},
    {HEAD GRID "    read_twice: [true, false, true]\n", V, "true, false, or [false, true]"},
    {HEAD GRID "    read_twice: [true, true]\n", V, "each value once"},
    {HEAD GRID "    read_twice: [true, 1]\n", V, "expected true or false, got 1"},
    {HEAD GRID "    template: {n: base}\n", U, "unknown key \"n\""},
    {HEAD GRID "    template: {m: chat}\n", V, "base or instruct, got chat (dir/s.yaml, line 11)"},
    {HEAD GRID "interventions:\n  - heads: none\n    models: n\n", V,
     "one of the study's models; nearest: m, got n (dir/s.yaml, line 13)"},
    {HEAD GRID "interventions:\n  - heads: none\n    models: [m, m]\n", V, "each name once"},
    {HEAD GRID "interventions:\n  - heads: none\n    models: []\n", V, "at least one name"},
    {HEAD GRID "record: {what: light, models: zebra}\n", V, "one of the study's models, got zebra"},
    {"study: s\nmodel: [a,\n        b]\ntask:\n  niah:\n    haystack: essays\n    needle: x\n"
     "    question: y\n    scoring: binary\n" GRID "interventions:\n  - {heads: none, models: a}\n",
     V, "an entry for each model, got none for b (dir/s.yaml, line 3)"},
    {HEAD GRID "semantics: {kv_cache: none}\n", U, "(dir/s.yaml, line 11)"},
    {HEAD GRID "compute: f16\n", V, "auto, f32 or bf16"},
    {HEAD GRID "window_visible: 0\n", V, "got 0"},
    {HEAD GRID "figures: [retrieval_maps]\n", V, "nearest: retrieval_map"},
    /* interventions */
    {HEAD GRID "interventions: []\n", V, "got an empty list"},
    {HEAD GRID "interventions: {heads: none}\n", V, "a list of heads and weights"},
    {HEAD GRID "interventions:\n  - {}\n", V, "got neither"},
    {HEAD GRID "interventions:\n  - prompts: {depths: 0}\n", V, "got neither"},
    {HEAD GRID "interventions:\n  - head: none\n", U, "did you mean \"heads\""},
    {HEAD GRID "interventions:\n  - heads: all\n", V, "or none, got all (dir/s.yaml, line 12)"},
    {HEADS("metric: entropy, stages: generation"), CT_ERR_NOT_FOUND, "the key \"keep\""},
    {HEADS("keep: -1, metric: entropy, stages: generation"), V, "got -1"},
    {HEADS("keep: 1, metric: entorpy, stages: generation"), U, "did you mean \"entropy\""},
    {HEADS("keep: 1, metric: [], stages: generation"), V, "at least one word"},
    {HEADS("keep: 1, metric: [l2, l2], stages: generation"), V, "each word once, got l2"},
    {HEADS("keep: 1, metric: l2, stages: decode"), U, "(dir/s.yaml, line 12)"},
    {HEADS("keep: 1, metric: l2, stages: none"), V, "write `heads: none`"},
    {HEADS("keep: 1, metric: l2, stages: prefill, seed: 3"), V, "no metric is random"},
    {HEAD GRID "interventions:\n  - weights: {}\n", V, "generation or prefill"},
    {HEAD GRID "interventions:\n  - weights: {generation: ommit}\n", U, "did you mean \"omit\""},
    /* grids */
    {HEAD "    lengths: {from: 1, to: 10000, step: 1}\n    depths: {from: 0, to: 99, step: 1}\n"
          "interventions:\n  - heads: {keep: {from: 0, to: 999}, metric: l2, stages: prefill}\n",
     CT_ERR_LIMIT, "expected at most 1000000 cells, got 1000000000"},
    {HEAD GRID "interventions:\n  - heads: {keep: 1, metric: random, stages: prefill,\n"
               "            seed: {from: 0, to: 2147483647}}\n",
     CT_ERR_LIMIT, "got 12884901888"},
    {HEAD "    lengths: {from: 1, to: 16777216, step: 1}\n    depths: 0\n"
          "interventions:\n  - heads: none\n    prompts: {lengths: 250}\n",
     V, "at most 1000000 values"},
};

static void every_bad_study_is_refused_with_its_place(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad_studies / sizeof *bad_studies; i++) {
        const bad_study *b = &bad_studies[i];
        ct_err err = {0};
        ct_study *s = (ct_study *)state;
        ct_status st = parse(b->text, &s, &err);
        if (st != b->status || !strstr(err.text, b->part))
            fail_msg("case %zu: expected %s with \"%s\", got %s: %s\n%s", i,
                     ct_status_name(b->status), b->part, ct_status_name(st), err.text, b->text);
        assert_null(s);
    }
}

static ct_status append(void *user, const char *bytes, size_t size, ct_err *err)
{
    return ct_buf_add(user, bytes, size, err);
}

/* Each reading of each point under each version, for each model what its entries say. */
static void models_and_readings_multiply_and_have_grids_of_their_own(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *s;
    ct_grid g;
    ct_buf buf = {0};
    assert_ok(
        parse("study: s\nmodel: [a, b/c, m]\n"
              "task:\n  niah:\n    haystack: essays\n    needle: \"\\n" NEEDLE "\\n\"\n"
              "    question: What is the best thing to do in San Francisco?\n" GRID
              "    template: {b/c: instruct}\n    read_twice: [true, false]\n"
              "semantics: {base: reference, prefill_window: full}\n"
              "interventions:\n"
              "  - heads: {keep: [0, 1], metric: l2, stages: generation}\n    models: [m, a]\n"
              "  - heads: {keep: [0, 1, 2], metric: l2, stages: generation}\n    models: b/c\n"
              "  - heads: none\n    prompts: {depths: 0}\n"
              "record: {what: light, models: [b/c]}\n",
              &s, &err));
    assert_int_equal(s->n_models, 3);
    assert_string_equal(s->models[1].name, "b/c");
    assert_int_equal(s->models[2].line, 2);
    assert_int_equal(s->models[0].template_kind, CT_NIAH_BASE);
    assert_int_equal(s->models[1].template_kind, CT_NIAH_INSTRUCT);
    assert_int_equal(s->n_readings, 2);
    assert_true(s->read_twice[0] && !s->read_twice[1]);
    assert_string_equal(s->semantics, "reference");
    assert_int_equal(s->n_options, 1);
    assert_string_equal(s->options[0].key, "prefill_window");
    assert_true(ct_study_has_model(s->record.models, 1));
    assert_false(ct_study_has_model(s->record.models, 0));
    static const size_t versions[] = {3, 4, 3};
    for (size_t m = 0; m < 3; m++) {
        assert_ok(ct_grid_new(s, m, &g, &err));
        assert_int_equal(g.n_versions, versions[m]);
        assert_int_equal(g.n_points, 12);
        assert_int_equal(g.n_cells, 12 * (versions[m] - 1) + 4);
        for (size_t i = 0; i < 12; i++) { /* those read once first, each sorted */
            assert_int_equal(g.points[i].read_twice, i >= 6);
            assert_int_equal(g.points[i].length, i % 6 < 3 ? 250 : 300);
        }
        ct_grid_clear(&g);
    }
    assert_ok(ct_study_describe(s, append, &buf, &err));
    assert_non_null(strstr(buf.data, "model     b/c\nlengths   250 300\ndepths    0 50 100\n"
                                     "context   once twice\nprompts   12\nversions  4\n"));
    assert_non_null(strstr(buf.data, "cells     96\n"));
    ct_buf_clear(&buf);
    ct_study_close(s);
    /* The count before anything is expanded takes them in, too. */
    assert_fails(
        parse("study: s\nmodel: [a, b]\ntask:\n  niah:\n    haystack: essays\n    needle: x\n"
              "    question: y\n    scoring: binary\n    read_twice: [false, true]\n"
              "    lengths: {from: 1, to: 2501, step: 1}\n    depths: {from: 0, to: 99, step: 1}\n",
              &s, &err),
        CT_ERR_LIMIT, "got 1000400");
}

static void a_needle_of_its_own_needs_keywords_before_the_run(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *s;
    const char *text = "study: s\nmodel: m\ntask:\n  niah:\n    haystack: a\n"
                       "    needle: Tea is kept in the blue tin.\n    question: Where?\n" GRID;
    assert_fails(parse(text, &s, &err), CT_ERR_VALUE, "line");
    char with[1024];
    snprintf(with, sizeof with, "%s    scoring: binary\n", text);
    assert_ok(parse(with, &s, &err));
    ct_study_close(s);
}

static void byte_order_mark_and_windows_line_ends_are_read(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *s;
    ct_buf buf = {0};
    assert_ok(ct_buf_adds(&buf, "\xEF\xBB\xBF", &err));
    for (const char *p = HEAD GRID; *p; p++)
        assert_ok(ct_buf_add(&buf, *p == '\n' ? "\r\n" : p, *p == '\n' ? 2 : 1, &err));
    assert_ok(ct_study_parse_bytes(buf.data, buf.size, "s.yaml", &s, &err));
    assert_string_equal(s->name, "s");
    assert_string_equal(s->dir, ".");
    assert_int_equal(s->depths.count, 3);
    ct_study_close(s);
    ct_buf_clear(&buf);
}

static void a_study_in_utf_16_or_with_nul_bytes_is_refused_by_name(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *s;
    static const char no_mark[] = "s\0t\0u\0";
    assert_fails(ct_study_parse_bytes(no_mark, 6, "s.yaml", &s, &err), CT_ERR_FORMAT, "UTF-16");
}

static void too_large_a_study_is_refused_before_it_is_parsed(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *s;
    size_t size = CT_YAML_MAX_BYTES + 1;
    char *text = malloc(size + 1);
    assert_non_null(text);
    memset(text, '#', size);
    text[size] = 0;
    assert_fails(parse(text, &s, &err), CT_ERR_LIMIT, "at most 1048576 bytes");
    /* As many values as fit: refused at a stated number, and in little time. */
    for (size_t i = 0; i + 1 < size; i += 2) memcpy(text + i, "0,", 2);
    memcpy(text, "study: [", 8);
    text[size - 1] = 0;
    assert_fails(parse(text, &s, &err), CT_ERR_FORMAT, "50000 values");
    free(text);
}

static void versions_and_points_named_twice_are_one_and_cells_are_sorted(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *s;
    assert_ok(parse(HEAD GRID "interventions:\n"
                              "  - heads: {keep: [2, 0], metric: entropy, stages: generation}\n"
                              "  - heads: {keep: [0, 1], metric: entropy, stages: generation}\n"
                              "    prompts: {lengths: [250, 400], depths: [50]}\n",
                    &s, &err));
    ct_grid g;
    assert_ok(ct_grid_new(s, 0, &g, &err));
    assert_int_equal(g.n_versions, 3);
    for (size_t i = 0; i < 3; i++) assert_int_equal(g.versions[i].heads.keep, i);
    assert_int_equal(g.versions[0].line, 12);
    assert_int_equal(g.versions[1].line, 13);
    assert_int_equal(g.n_points, 7);
    assert_int_equal(g.points[0].length, 250);
    assert_int_equal(g.points[6].length, 400);
    /* 6 points x k 0, 2; (250, 50) x k 1; (400, 50) x k 0, 1; (250, 50) x k 0 is there already */
    assert_int_equal(g.n_cells, 12 + 1 + 2);
    for (size_t i = 1; i < g.n_cells; i++)
        assert_true(g.cells[i - 1].point < g.cells[i].point ||
                    (g.cells[i - 1].point == g.cells[i].point &&
                     g.cells[i - 1].version < g.cells[i].version));
    ct_grid_clear(&g);
    ct_study_close(s);
}

static void the_grid_is_described_in_words(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *s;
    ct_buf buf = {0};
    assert_ok(parse(HEAD GRID
                    "interventions:\n"
                    "  - heads: {keep: 3, metric: random, seed: 5, stages: prefill+generation}\n"
                    "    weights: {generation: only, prefill: null}\n"
                    "  - heads: none\n    prompts: {depths: 0}\n",
                    &s, &err));
    assert_ok(ct_study_describe(s, append, &buf, &err));
    assert_string_equal(
        buf.data,
        "study     s\nmodel     m\nlengths   250 300\ndepths    0 50 100\nprompts   6\n"
        "versions  2\n"
        "       2  cells: no intervention\n"
        "       6  cells: keep 3 by random in prefill+generation (seed 5), weights only in "
        "generation, weights null in prefill\n"
        "cells     8\n");
    ct_buf_clear(&buf);
    ct_study_close(s);
}

static void the_studies_that_come_with_cortado_parse(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *s;
    assert_ok(ct_study_open(CT_SOURCE_DIR "/studies/quickstart.yaml", &s, &err));
    ct_grid g;
    assert_ok(ct_grid_new(s, 0, &g, &err));
    /* k = 0 .. 8 on 10 x 10 prompts in generation, on 5 x 5 in prefill and generation */
    assert_int_equal(g.n_points, 100);
    assert_int_equal(g.n_cells, 9 * 100 + 9 * 25);
    ct_grid_clear(&g);
    ct_study_close(s);
    /* Those of the thesis, on its models and on the demo model: cells as the thesis counts them. */
    static const struct {
        const char *name;
        size_t model, points, versions, cells;
    } studies[] = {
        {"paper/figure-3.2", 0, 100, 22, 2200},
        {"paper/figure-3.2", 1, 100, 34, 3400},
        {"paper/figure-3.2", 2, 100, 66, 6600},
        {"paper/figure-4.1", 0, 100, 3, 300},
        {"paper/figure-4.1", 2, 100, 3, 300},
        {"paper/figure-4.1-jrt", 1, 100, 3, 300},
        {"paper/figure-6.1", 0, 1, 5, 5},
        {"paper/table-6.1", 0, 100, 20, 2000},
        {"paper/figure-6.2", 0, 100, 3, 300},
        {"paper/figure-6.2-full-window", 0, 100, 3, 300},
        {"demo/figure-3.2", 0, 100, 18, 1800},
        {"demo/figure-4.1", 0, 200, 5, 1000},
        {"demo/figure-6.1", 0, 1, 5, 5},
        {"demo/table-6.1", 0, 100, 20, 2000},
        {"demo/figure-6.2", 0, 100, 3, 300},
        {"demo/figure-6.2-full-window", 0, 100, 3, 300},
        {"demo/selection", 0, 100, 63, 6300},
        {"demo/jamba-figure-3.2", 0, 100, 18, 1800},
        {"demo/jamba-figure-3.2", 1, 100, 1, 100},
        {"demo/jamba-figure-4.1", 0, 200, 5, 1000},
        {"demo/jamba-table-6.1", 0, 100, 20, 2000},
        {"demo/two-needles", 0, 90, 18, 1620},
        {"demo/two-needles", 1, 90, 1, 90},
    };
    for (size_t i = 0; i < sizeof studies / sizeof *studies; i++) {
        char path[512];
        snprintf(path, sizeof path, CT_SOURCE_DIR "/studies/%s.yaml", studies[i].name);
        assert_ok(ct_study_open(path, &s, &err));
        assert_ok(ct_grid_new(s, studies[i].model, &g, &err));
        assert_int_equal(g.n_points, studies[i].points);
        assert_int_equal(g.n_versions, studies[i].versions);
        assert_int_equal(g.n_cells, studies[i].cells);
        ct_grid_clear(&g);
        ct_study_close(s);
    }
    /* Full-window differs from `reference` in one option; each model has its own template. */
    assert_ok(ct_study_open(CT_SOURCE_DIR "/studies/paper/figure-6.2-full-window.yaml", &s, &err));
    assert_string_equal(s->semantics, "reference");
    assert_int_equal(s->n_options, 1);
    ct_study_close(s);
    assert_ok(ct_study_open(CT_SOURCE_DIR "/studies/paper/figure-3.2.yaml", &s, &err));
    assert_int_equal(s->models[1].template_kind, CT_NIAH_BASE);
    assert_int_equal(s->models[2].template_kind, CT_NIAH_INSTRUCT);
    ct_study_close(s);
    assert_fails(ct_study_open("/no/such/study.yaml", &s, &err), CT_ERR_NOT_FOUND,
                 "/no/such/study.yaml");
}

static void what_is_recorded_is_read_and_checked(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_study *s;
    assert_ok(parse(HEAD GRID "record:\n"
                              "  what: [light, heads]\n"
                              "  stages: prefill+generation\n"
                              "  steps: all\n"
                              "  layers: [5, 2]\n"
                              "  lengths: 250\n"
                              "  depths: [50, 100]\n"
                              "  interventions: 1\n"
                              "  limit_mib: 7\n",
                    &s, &err));
    const ct_study_record *r = &s->record;
    assert_int_equal(r->line, 12);
    assert_int_equal(r->what, CT_RECORD_LIGHT | CT_RECORD_HEADS);
    assert_true(r->stages[CT_STAGE_PREFILL] && r->stages[CT_STAGE_GENERATION]);
    assert_int_equal(r->steps, CT_RECORD_ALL);
    assert_int_equal(r->layers.values[0], 2);
    assert_int_equal(r->layers.values[1], 5);
    assert_int_equal(r->lengths.values[0], 250);
    assert_int_equal(r->depths.count, 2);
    assert_int_equal(r->entries.values[0], 1);
    assert_int_equal(r->limit, 7 << 20);
    ct_study_close(s);
    assert_ok(parse(HEAD GRID "record: {what: weights}\n", &s, &err));
    assert_true(s->record.stages[CT_STAGE_GENERATION] && !s->record.stages[CT_STAGE_PREFILL]);
    assert_int_equal(s->record.steps, CT_RECORD_LAST);
    assert_int_equal(s->record.entries.count, 0);
    ct_study_close(s);
    const struct {
        const char *text, *error;
    } wrong[] = {
        {HEAD GRID "record: {stages: prefill}\n", "line 11"},
        {HEAD GRID "record: {what: weight}\n", "did you mean \"weights\"? (dir/s.yaml, line 11)"},
        {HEAD GRID "record: {what: light, step: last}\n", "line 11"},
        {HEAD GRID "record: {what: light, steps: some}\n", "line 11"},
        {HEAD GRID "record: {what: light, stages: none}\n", "line 11"},
        {HEAD GRID "record: {what: light, interventions: 2}\n", "line 11"},
        {HEAD GRID "record: {what: light, limit_mib: 0}\n", "line 11"},
        {HEAD GRID "record: light\n", "line 11"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ct_status st = parse(wrong[i].text, &s, &err);
        assert_int_not_equal(st, CT_OK);
        if (!strstr(err.text, wrong[i].error)) fail_msg("%zu: %s", i, err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_recorded_is_read_and_checked),
        cmocka_unit_test(a_full_study_is_read_value_by_value),
        cmocka_unit_test(a_short_study_gets_the_defaults_and_one_version),
        cmocka_unit_test(every_bad_study_is_refused_with_its_place),
        cmocka_unit_test(models_and_readings_multiply_and_have_grids_of_their_own),
        cmocka_unit_test(a_needle_of_its_own_needs_keywords_before_the_run),
        cmocka_unit_test(byte_order_mark_and_windows_line_ends_are_read),
        cmocka_unit_test(a_study_in_utf_16_or_with_nul_bytes_is_refused_by_name),
        cmocka_unit_test(too_large_a_study_is_refused_before_it_is_parsed),
        cmocka_unit_test(versions_and_points_named_twice_are_one_and_cells_are_sorted),
        cmocka_unit_test(the_grid_is_described_in_words),
        cmocka_unit_test(the_studies_that_come_with_cortado_parse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
