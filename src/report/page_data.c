/* page_data.c - the page's data. See page_data.h. */
#include "report/page_data.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "report/keywords.h"
#include "report/label.h"

ct_status ct_page_json_text(ct_buf *out, const char *text, ct_err *err)
{
    ct_status st = CT_OK;
    size_t size = strlen(text), from = 0;
    CT_TRY(ct_buf_adds(out, "\"", err));
    for (size_t i = 0; i < size;) {
        uint32_t c;
        size_t n = ct_utf8_next(text + i, size - i, &c);
        bool plain =
            c >= 0x20 && c != '"' && c != '\\' && c != '<' && c != 0x7F && !(n == 1 && c == 0xFFFD);
        if (!plain) {
            CT_TRY(ct_buf_add(out, text + from, i - from, err));
            from = i + n;
            if (c == '\n') CT_TRY(ct_buf_adds(out, "\\n", err));
            else CT_TRY(ct_buf_addf(out, err, "\\u%04x", (unsigned)c));
        }
        i += n;
    }
    CT_TRY(ct_buf_add(out, text + from, size - from, err));
    CT_TRY(ct_buf_adds(out, "\"", err));
done:
    return st;
}

/* The data being written: every call goes through `st`. */
typedef struct ct_data {
    const ct_stats *stats;
    ct_buf *out;
    ct_status st;
    ct_err *err;
    ct_textset *audits, *errors; /* each once, as their JSON */
    uint32_t *prompts, *outputs; /* texts of the stats, in the order in which cells meet them */
    uint32_t *prompt_place, *output_place; /* of a text of the stats in these, + 1 */
    size_t n_prompts, n_outputs;
} ct_data;

static void raw(ct_data *d, const char *json)
{
    if (d->st == CT_OK) d->st = ct_buf_adds(d->out, json, d->err);
}

static void whole(ct_data *d, int64_t value)
{
    if (d->st == CT_OK) d->st = ct_buf_addf(d->out, d->err, "%" PRId64, value);
}

static void fixed(ct_data *d, double value, int digits)
{
    if (d->st == CT_OK) d->st = ct_label_fixed(d->out, value, digits, d->err);
}

/* A score or time: without decimals that are 0. */
static void real(ct_data *d, double value)
{
    fixed(d, value, 4);
    ct_buf *b = d->out;
    while (d->st == CT_OK && b->data[b->size - 1] == '0') b->data[--b->size] = 0;
    if (d->st == CT_OK && b->data[b->size - 1] == '.') b->data[--b->size] = 0;
}

static void text(ct_data *d, const char *words)
{
    if (d->st == CT_OK) d->st = ct_page_json_text(d->out, words, d->err);
}

static void field(ct_data *d, const char *name, const char *value)
{
    raw(d, ",\"");
    raw(d, name);
    raw(d, "\":");
    text(d, value);
}

static void label(ct_data *d, size_t v, unsigned mask)
{
    ct_buf words = {0};
    if (d->st == CT_OK) d->st = ct_label_version(&d->stats->versions[v], mask, &words, d->err);
    text(d, words.data ? words.data : "");
    ct_buf_clear(&words);
}

/* ---- parts ----------------------------------------------------------------------------------- */

static const char *study_text_of(const ct_report_runs *runs, const char *study)
{
    for (size_t i = 0; i < runs->n; i++) {
        const ct_provenance *from = &runs->runs[i].provenance;
        if (runs->runs[i].known && from->study && strcmp(from->study, study) == 0)
            return from->study_text;
    }
    return NULL;
}

static void versions_add(ct_data *d)
{
    raw(d, "\"versions\":[");
    for (size_t i = 0; i < d->stats->n_versions; i++) {
        const ct_stats_version *v = &d->stats->versions[i];
        raw(d, i ? ",\n{" : "\n{");
        raw(d, "\"heads\":");
        whole(d, v->heads);
        raw(d, ",\"window\":");
        whole(d, v->window);
        raw(d, ",\"max\":");
        real(d, v->max_score);
        raw(d, ",\"keywords\":");
        whole(d, (int64_t)i);
        field(d, "model", v->model);
        field(d, "study", v->study);
        field(d, "template", v->template_name);
        field(d, "reading", v->read_twice ? "read twice" : "read once");
        field(d, "semantics", v->semantics);
        field(d, "scoring", v->scoring);
        field(d, "stages", v->stages);
        field(d, "metric", v->metric);
        field(d, "generation", v->weights_generation);
        field(d, "prefill", v->weights_prefill);
        raw(d, "}");
    }
    raw(d, "]");
}

static void keywords_add(ct_data *d, const ct_report_runs *runs)
{
    raw(d, ",\n\"keywords\":[");
    for (size_t i = 0; i < d->stats->n_versions && d->st == CT_OK; i++) {
        const ct_stats_version *v = &d->stats->versions[i];
        ct_keywords words = {0};
        d->st = ct_keywords_new(v->scoring, v->max_score, study_text_of(runs, v->study), &words,
                                d->err);
        raw(d, i ? ",\n[" : "\n[");
        for (size_t k = 0; k < words.count; k++) {
            raw(d, k ? ",{\"text\":" : "{\"text\":");
            text(d, words.items[k].text);
            raw(d, ",\"points\":");
            real(d, words.items[k].points);
            raw(d, words.items[k].set ? ",\"set\":true}" : ",\"set\":false}");
        }
        raw(d, "]");
        ct_keywords_clear(&words);
    }
    raw(d, "]");
}

static uint32_t interned(ct_data *d, ct_textset *set, const char *json)
{
    uint32_t index = 0;
    if (d->st == CT_OK) d->st = ct_textset_add(set, json, &index, d->err);
    return index;
}

static uint32_t audit_index(ct_data *d, const ct_audit *a)
{
    const int64_t *const parts[] = {a->rows, a->head_rows, a->heads_dropped, a->edit_rows,
                                    a->edit_rows_changed};
    ct_buf json = {0};
    for (int i = 0; i < 5 && d->st == CT_OK; i++)
        d->st = ct_buf_addf(&json, d->err, "%s%" PRId64 ",%" PRId64, i ? "," : "[",
                            parts[i][CT_STAGE_PREFILL], parts[i][CT_STAGE_GENERATION]);
    if (d->st == CT_OK) d->st = ct_buf_adds(&json, "]", d->err);
    uint32_t index = d->st == CT_OK ? interned(d, d->audits, json.data) : 0;
    ct_buf_clear(&json);
    return index;
}

static void cell_add(ct_data *d, const ct_stats_cell *c)
{
    int64_t outcome = c->failed ? -1 - (int64_t)interned(d, d->errors, c->error)
                                : (int64_t)d->output_place[c->output] - 1;
    const int64_t head[] = {c->length, c->depth, c->seed,
                            (int64_t)d->prompt_place[c->prompt_text] - 1, outcome};
    for (int i = 0; i < 5; i++) {
        raw(d, i ? "," : "[");
        whole(d, head[i]);
    }
    raw(d, ",");
    real(d, c->score);
    raw(d, ",");
    whole(d, audit_index(d, &c->audit));
    raw(d, ",");
    fixed(d, c->prefill_ms, 1);
    raw(d, ",");
    fixed(d, c->decode_ms, 1);
    const int64_t tail[] = {c->prompt_tokens, c->needle_token_begin, c->needle_token_end, c->n_ids};
    for (int i = 0; i < 4; i++) {
        raw(d, ",");
        whole(d, tail[i]);
    }
    raw(d, "]");
}

/* The group of version v at k: groups stand in the order of versions and their points. */
static size_t group_of(const ct_stats *stats, size_t v, int64_t k)
{
    size_t group = 0;
    for (size_t i = 0; i < v; i++) group += stats->versions[i].n_points;
    for (size_t p = 0; stats->versions[v].points[p].keep_heads != k; p++) group++;
    return group;
}

static void against_add(ct_data *d, const ct_comparison *all, size_t n, size_t v, int64_t k)
{
    bool first = true;
    raw(d, ",\"against\":[");
    for (size_t i = 0; i < n; i++) {
        const ct_comparison *c = &all[i];
        if (c->version != v || c->k != k) continue;
        raw(d, first ? "{" : ",{");
        first = false;
        raw(d, "\"name\":");
        text(d, ct_against_name(c->against));
        raw(d, ",\"group\":");
        whole(d, (int64_t)group_of(d->stats, c->base, c->base_k));
        const double numbers[] = {c->test.difference, c->test.low, c->test.high, c->test.p};
        static const char *const names[] = {"difference", "low", "high", "p"};
        for (int m = 0; m < 4; m++) {
            raw(d, ",\"");
            raw(d, names[m]);
            raw(d, "\":");
            fixed(d, numbers[m], 6);
        }
        raw(d, ",\"pairs\":");
        whole(d, (int64_t)c->test.pairs);
        raw(d, ",\"better\":");
        whole(d, (int64_t)c->test.better);
        raw(d, ",\"worse\":");
        whole(d, (int64_t)c->test.worse);
        raw(d, "}");
    }
    raw(d, "]");
}

static void groups_add(ct_data *d, const ct_comparison *all, size_t n)
{
    unsigned differ, mask = ct_label_differing(d->stats, NULL, d->stats->n_versions, &differ);
    size_t at = 0, group = 0, first = SIZE_MAX;
    raw(d, ",\n\"groups\":[");
    for (size_t v = 0; v < d->stats->n_versions; v++)
        for (size_t p = 0; p < d->stats->versions[v].n_points; p++, group++) {
            const ct_point *point = &d->stats->versions[v].points[p];
            if (point->prompts && first == SIZE_MAX) first = group;
            raw(d, group ? ",\n{\"v\":" : "\n{\"v\":");
            whole(d, (int64_t)v);
            raw(d, ",\"k\":");
            whole(d, point->keep_heads);
            raw(d, ",\"label\":");
            label(d, v, mask);
            raw(d, ",\"prompts\":");
            whole(d, (int64_t)point->prompts);
            const double numbers[] = {point->accuracy, point->low, point->high};
            static const char *const names[] = {",\"accuracy\":", ",\"low\":", ",\"high\":"};
            for (int i = 0; i < 3; i++) {
                raw(d, names[i]);
                fixed(d, numbers[i], 6);
            }
            against_add(d, all, n, v, point->keep_heads);
            raw(d, ",\"cells\":[");
            bool begun = false;
            for (; at < d->stats->n_cells && d->stats->cells[at].version == v &&
                   d->stats->cells[at].keep_heads == point->keep_heads;
                 at++) {
                if (begun) raw(d, ",");
                begun = true;
                cell_add(d, &d->stats->cells[at]);
            }
            raw(d, "]}");
        }
    CT_ASSERT(d->st != CT_OK || at == d->stats->n_cells); /* links count cells in this order */
    raw(d, "],\n\"first\":");
    whole(d, first == SIZE_MAX ? 0 : (int64_t)first);
}

static void strings_add(ct_data *d, const char *name, const ct_textset *set, bool json)
{
    raw(d, ",\n\"");
    raw(d, name);
    raw(d, "\":[");
    for (uint32_t i = 0; i < ct_textset_count(set); i++) {
        if (i) raw(d, ",");
        if (json) raw(d, ct_textset_get(set, i));
        else text(d, ct_textset_get(set, i));
    }
    raw(d, "]");
}

/* ---- texts ----------------------------------------------------------------------------------- */

static ct_status texts_find(ct_data *d)
{
    size_t n = ct_textset_count(d->stats->texts);
    d->prompts = calloc(n + 1, sizeof *d->prompts);
    d->outputs = calloc(n + 1, sizeof *d->outputs);
    d->prompt_place = calloc(n + 1, sizeof *d->prompt_place);
    d->output_place = calloc(n + 1, sizeof *d->output_place);
    if (!d->prompts || !d->outputs || !d->prompt_place || !d->output_place)
        return ct_fail_memory(d->err, "page", n * sizeof *d->prompts);
    for (size_t i = 0; i < d->stats->n_cells; i++) {
        const ct_stats_cell *c = &d->stats->cells[i];
        if (!d->prompt_place[c->prompt_text]) {
            d->prompts[d->n_prompts++] = c->prompt_text;
            d->prompt_place[c->prompt_text] = (uint32_t)d->n_prompts;
        }
        if (c->failed || d->output_place[c->output]) continue;
        d->outputs[d->n_outputs++] = c->output;
        d->output_place[c->output] = (uint32_t)d->n_outputs;
    }
    return CT_OK;
}

static void texts_free(ct_data *d)
{
    free(d->prompts);
    free(d->outputs);
    free(d->prompt_place);
    free(d->output_place);
    ct_textset_free(d->audits);
    ct_textset_free(d->errors);
}

typedef struct ct_sized {
    uint32_t text;
    size_t size;
} ct_sized;

static int longest_first(const void *left, const void *right)
{
    const ct_sized *a = left, *b = right;
    if (a->size != b->size) return a->size > b->size ? -1 : 1;
    return (a->text > b->text) - (a->text < b->text);
}

/* "prompts": [needle begin, end, piece begin, length, ...], in the order of `prompts`; packed with
 * the longest first, since others are parts of it. */
static void prompts_add(ct_data *d)
{
    ct_packed packed = {0};
    size_t n = d->n_prompts;
    ct_sized *order = calloc(n + 1, sizeof *order);
    uint32_t *wanted = calloc(n + 1, sizeof *wanted), *rank = calloc(n + 1, sizeof *rank);
    const ct_stats_cell **cell =
        calloc(ct_textset_count(d->stats->texts) + 1, sizeof *cell); /* one with that prompt */
    if (!order || !wanted || !rank || !cell) {
        if (d->st == CT_OK) d->st = ct_fail_memory(d->err, "page", n * sizeof *order);
        goto done;
    }
    for (size_t i = d->stats->n_cells; i-- > 0;)
        cell[d->stats->cells[i].prompt_text] = &d->stats->cells[i];
    for (size_t i = 0; i < n; i++)
        order[i] = (ct_sized){(uint32_t)i, strlen(ct_textset_get(d->stats->texts, d->prompts[i]))};
    qsort(order, n, sizeof *order, longest_first);
    for (size_t i = 0; i < n; i++) {
        wanted[i] = d->prompts[order[i].text];
        rank[order[i].text] = (uint32_t)i;
    }
    if (d->st == CT_OK) d->st = ct_textset_pack(d->stats->texts, wanted, n, &packed, d->err);
    if (d->st != CT_OK) goto done;
    raw(d, ",\n\"prompts\":[");
    for (size_t i = 0; i < n; i++) {
        const char *prompt = ct_textset_get(d->stats->texts, d->prompts[i]);
        const ct_stats_cell *c = cell[d->prompts[i]];
        size_t size = strlen(prompt), begin = 0, end = 0;
        if (c->needle_begin >= 0 && c->needle_end > c->needle_begin &&
            (size_t)c->needle_end <= size) {
            begin = ct_utf16_length(prompt, (size_t)c->needle_begin);
            end = ct_utf16_length(prompt, (size_t)c->needle_end);
        }
        raw(d, i ? ",[" : "[");
        whole(d, (int64_t)begin);
        raw(d, ",");
        whole(d, (int64_t)end);
        for (size_t p = packed.first[rank[i]]; p < packed.first[rank[i] + 1]; p++) {
            raw(d, ",");
            whole(d, packed.pieces[p].begin);
            raw(d, ",");
            whole(d, packed.pieces[p].length);
        }
        raw(d, "]");
    }
    raw(d, "],\n\"pool\":");
    text(d, packed.pool.data ? packed.pool.data : "");
done:
    free(order);
    free(wanted);
    free(rank);
    free(cell);
    ct_packed_clear(&packed);
}

ct_status ct_page_data(const ct_report_runs *runs, const ct_comparison *comparisons, size_t n,
                       ct_buf *out, ct_err *err)
{
    ct_data d = {.stats = runs->stats, .out = out, .err = err};
    d.st = texts_find(&d);
    if (d.st == CT_OK) d.st = ct_textset_new(&d.audits, err);
    if (d.st == CT_OK) d.st = ct_textset_new(&d.errors, err);
    if (d.st != CT_OK) goto done;
    raw(&d, "{");
    versions_add(&d);
    keywords_add(&d, runs);
    groups_add(&d, comparisons, n);
    strings_add(&d, "audits", d.audits, true);
    strings_add(&d, "errors", d.errors, false);
    raw(&d, ",\n\"outputs\":[");
    for (size_t i = 0; i < d.n_outputs; i++) {
        if (i) raw(&d, ",");
        text(&d, ct_textset_get(d.stats->texts, d.outputs[i]));
    }
    raw(&d, "]");
    prompts_add(&d);
    raw(&d, ",\n\"recordings\":");
    if (d.st == CT_OK) d.st = ct_page_recordings(runs, out, err);
    raw(&d, "}");
done:
    texts_free(&d);
    return d.st;
}
