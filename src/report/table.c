/* table.c - accuracy by k as text for a terminal of 80 columns.
 *
 * Owns the layout in characters: one column a version over rows of k, in blocks of three versions,
 * or one row a version where that is clearer. See report.h.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "report/compare.h"
#include "report/label.h"
#include "report/report.h"
#include "report/tables.h"

enum { WIDTH = 80, COLUMN = 24, PER_BLOCK = 3, VERSIONS_BY_K = 6 };

bool ct_table_by_k(const ct_stats *stats)
{
    bool sweep = false;
    for (size_t i = 0; i < stats->n_versions; i++) sweep |= stats->versions[i].n_points > 1;
    return sweep && stats->n_versions <= VERSIONS_BY_K;
}

/* Appends text in exactly (or, with pad false, at most) `width` columns; one that is cut ends with
 * an ellipsis. Control characters from a store must not reach a terminal. */
static ct_status fit(ct_buf *out, const char *text, size_t width, bool pad, ct_err *err)
{
    ct_status st = CT_OK;
    size_t total = 0, used = 0, left = strlen(text);
    uint32_t point;
    for (size_t at = 0; at < left; total++) at += ct_utf8_next(text + at, left - at, &point);
    for (; left && used < width; used++) {
        char bytes[4];
        size_t n = ct_utf8_next(text, left, &point);
        if (point < 0x20 || (point >= 0x7F && point < 0xA0)) point = '?';
        if (total > width && used + 1 == width) point = 0x2026;
        CT_TRY(ct_buf_add(out, bytes, ct_utf8_put(point, bytes), err));
        text += n;
        left -= n;
    }
    for (; pad && used < width; used++) CT_TRY(ct_buf_adds(out, " ", err));
done:
    return st;
}

/* " 74.5  [65.9, 82.4]" in 21 columns, or why there is none. */
static ct_status point_text(const ct_point *p, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf part[3] = {{0}, {0}, {0}};
    if (!p || !p->prompts) {
        CT_TRY(ct_buf_addf(out, err, "%6s%-15s", "-", p ? "  (all failed)" : ""));
        goto done;
    }
    CT_TRY(ct_label_fixed(&part[0], 100 * p->accuracy, 1, err));
    CT_TRY(ct_label_fixed(&part[1], 100 * p->low, 1, err));
    CT_TRY(ct_label_fixed(&part[2], 100 * p->high, 1, err));
    if (p->prompts > 1)
        CT_TRY(ct_buf_addf(out, err, "%6s  [%4s, %5s]", part[0].data, part[1].data, part[2].data));
    else CT_TRY(ct_buf_addf(out, err, "%6s%15s", part[0].data, ""));
done:
    for (int i = 0; i < 3; i++) ct_buf_clear(&part[i]);
    return st;
}

/* " -12.4   p 0.013" in 21 columns: the difference from the unchanged model, in points. */
static ct_status difference_text(const ct_comparison *c, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf part[2] = {{0}, {0}};
    if (!c) return ct_buf_addf(out, err, "%21s", "");
    CT_TRY(ct_buf_adds(&part[0], c->test.difference >= 0.0005 ? "+" : "", err));
    CT_TRY(ct_label_fixed(&part[0], 100 * c->test.difference, 1, err));
    CT_TRY(ct_p_text(&part[1], c->test.p, err));
    CT_TRY(ct_buf_addf(out, err, "%7s  p %-10s", part[0].data, part[1].data));
done:
    for (int i = 0; i < 2; i++) ct_buf_clear(&part[i]);
    return st;
}

/* Ends lines without blanks. */
static ct_status end_line(ct_buf *out, ct_err *err)
{
    while (out->size && out->data[out->size - 1] == ' ') out->data[--out->size] = 0;
    return ct_buf_adds(out, "\n", err);
}

/* What a table shows: labels by version, and the comparisons. */
typedef struct ct_table {
    const ct_stats *stats;
    char **labels;
    bool letters; /* columns are headed by letters, which stand for the labels */
    ct_comparison *comparisons;
    size_t n_comparisons;
} ct_table;

static const ct_comparison *unchanged_of(const ct_table *t, size_t v, int64_t k)
{
    return ct_comparison_find(t->comparisons, t->n_comparisons, CT_AGAINST_UNCHANGED, v, k);
}

/* Accuracies, or with `differences` those from the unchanged model, of versions begin .. end. */
static ct_status block_text(const ct_table *t, size_t begin, size_t end, bool differences,
                            ct_buf *out, ct_err *err)
{
    const ct_stats *stats = t->stats;
    ct_status st = CT_OK;
    CT_TRY(ct_buf_adds(out, "\n   k ", err));
    for (size_t v = begin; v < end; v++) {
        char letter[2] = {(char)('A' + v), 0};
        CT_TRY(fit(out, t->letters ? letter : t->labels[v], COLUMN, true, err));
    }
    CT_TRY(end_line(out, err));
    int64_t k = -2;
    while (ct_stats_next_k(stats, begin, end, k, &k)) {
        bool any = !differences;
        for (size_t v = begin; v < end; v++) any |= unchanged_of(t, v, k) != NULL;
        if (!any) continue;
        if (k < 0) CT_TRY(ct_buf_adds(out, " all", err));
        else CT_TRY(ct_buf_addf(out, err, "%4lld", (long long)k));
        for (size_t v = begin; v < end; v++) {
            if (differences) CT_TRY(difference_text(unchanged_of(t, v, k), out, err));
            else CT_TRY(point_text(ct_stats_point(&stats->versions[v], k), out, err));
            CT_TRY(ct_buf_adds(out, "   ", err));
        }
        CT_TRY(end_line(out, err));
    }
done:
    return st;
}

static ct_status rows_text(const ct_table *t, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_stats *stats = t->stats;
    CT_TRY(ct_buf_addf(out, err, "\n%-44s    k    accuracy%s\n", "version",
                       t->n_comparisons ? "            p" : ""));
    for (size_t v = 0; v < stats->n_versions; v++) {
        const ct_stats_version *version = &stats->versions[v];
        for (size_t i = 0; i < version->n_points; i++) {
            const ct_comparison *c = unchanged_of(t, v, version->points[i].keep_heads);
            CT_TRY(fit(out, i ? "" : t->labels[v], 44, true, err));
            if (version->points[i].keep_heads < 0) CT_TRY(ct_buf_adds(out, "  all", err));
            else CT_TRY(ct_buf_addf(out, err, "%5lld", (long long)version->points[i].keep_heads));
            CT_TRY(point_text(&version->points[i], out, err));
            if (c) CT_TRY(ct_buf_adds(out, "   ", err));
            if (c) CT_TRY(ct_p_text(out, c->test.p, err));
            CT_TRY(end_line(out, err));
        }
    }
done:
    return st;
}

/* Breaks text into lines of at most WIDTH columns at its spaces. */
static ct_status wrap(ct_buf *out, const char *text, ct_err *err)
{
    ct_status st = CT_OK;
    size_t used = 0;
    while (*text) {
        size_t n = strcspn(text, " ");
        if (used && used + 1 + n > WIDTH) {
            CT_TRY(ct_buf_adds(out, "\n", err));
            used = 0;
        } else if (used) {
            CT_TRY(ct_buf_adds(out, " ", err));
            used++;
        }
        char *word = ct_strndup(text, n, err);
        if (!word) return CT_ERR_MEMORY;
        st = fit(out, word, WIDTH, false, err);
        free(word);
        if (st != CT_OK) return st;
        used += n;
        text += n;
        text += strspn(text, " ");
    }
    if (used) CT_TRY(ct_buf_adds(out, "\n", err));
done:
    return st;
}

/* One line for a k at which two configurations that differ in one thing do not score alike. */
static ct_status sibling_text(const ct_table *t, const ct_comparison *c, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf part[3] = {{0}, {0}, {0}};
    const double numbers[3] = {c->test.difference, c->test.low, c->test.high};
    CT_TRY(fit(out, t->labels[c->version], 36, true, err));
    if (c->k < 0) CT_TRY(ct_buf_adds(out, " all", err));
    else CT_TRY(ct_buf_addf(out, err, "%4lld", (long long)c->k));
    for (int n = 0; n < 3; n++) {
        CT_TRY(ct_buf_adds(&part[n], numbers[n] >= 0.0005 ? "+" : "", err));
        CT_TRY(ct_label_fixed(&part[n], 100 * numbers[n], 1, err));
    }
    CT_TRY(ct_buf_addf(out, err, "%8s  [%6s, %6s]  p ", part[0].data, part[1].data, part[2].data));
    CT_TRY(ct_p_text(out, c->test.p, err));
    CT_TRY(ct_buf_adds(out, "\n", err));
done:
    for (int i = 0; i < 3; i++) ct_buf_clear(&part[i]);
    return st;
}

static ct_status siblings_text(const ct_table *t, ct_against against, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    size_t n = 0, equal = 0;
    bool same_prompts = true;
    char *title = NULL;
    for (size_t i = 0; i < t->n_comparisons; i++) {
        const ct_comparison *c = &t->comparisons[i];
        if (c->against != against) continue;
        n++;
        equal += !c->test.better && !c->test.worse;
        same_prompts &= c->test.same_prompts;
    }
    if (!n) return CT_OK;
    title = ct_strf(err, "difference from %s, at the same k%s%s", ct_against_name(against),
                    same_prompts ? "" : "; prompts paired by length and depth",
                    equal == n ? ": none at any k"
                    : equal    ? "; where no prompt differs, none is shown"
                               : "");
    CT_TRY(title ? CT_OK : CT_ERR_MEMORY);
    CT_TRY(ct_buf_adds(out, "\n", err));
    CT_TRY(wrap(out, title, err));
    for (size_t i = 0; i < t->n_comparisons; i++) {
        const ct_comparison *c = &t->comparisons[i];
        if (c->against == against && (c->test.better || c->test.worse))
            CT_TRY(sibling_text(t, c, out, err));
    }
done:
    free(title);
    return st;
}

static ct_status labels_make(ct_table *t, ct_err *err)
{
    ct_buf text = {0};
    unsigned all, mask = ct_label_differing(t->stats, NULL, t->stats->n_versions, &all);
    ct_status st = CT_OK;
    for (size_t v = 0; v < t->stats->n_versions && st == CT_OK; v++) {
        ct_buf_clear(&text);
        st = ct_label_version(&t->stats->versions[v], mask, &text, err);
        if (st != CT_OK) break;
        t->labels[v] = ct_buf_take(&text);
        if (!t->labels[v]) st = ct_fail_memory(err, "table", 1);
        else t->letters |= strlen(t->labels[v]) > COLUMN - 2;
    }
    ct_buf_clear(&text);
    return st;
}

static ct_status blocks_text(const ct_table *t, bool differences, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    size_t n = t->stats->n_versions;
    for (size_t v = 0; v < n; v += PER_BLOCK)
        CT_TRY(block_text(t, v, v + PER_BLOCK < n ? v + PER_BLOCK : n, differences, out, err));
done:
    return st;
}

static ct_status failures_text(const ct_stats *stats, ct_buf *out, ct_err *err)
{
    const char *why = "";
    for (size_t i = stats->n_cells; i-- > 0;)
        if (stats->cells[i].failed) why = stats->cells[i].error;
    char *text =
        ct_strf(err, "%zu of %zu cells failed; the first: %s", stats->failed, stats->n_cells, why);
    if (!text) return CT_ERR_MEMORY;
    ct_status st = ct_buf_adds(out, "\n", err);
    if (st == CT_OK) st = wrap(out, text, err);
    free(text);
    return st;
}

ct_status ct_table_text(const ct_stats *stats, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf text = {0};
    ct_table t = {.stats = stats, .labels = calloc(stats->n_versions + 1, sizeof *t.labels)};
    if (!t.labels) return ct_fail_memory(err, "table", stats->n_versions * sizeof *t.labels);
    if (!stats->n_cells) {
        CT_TRY(ct_buf_adds(out, "no cell is finished yet\n", err));
        goto done;
    }
    CT_TRY(ct_comparisons_new(stats, &t.comparisons, &t.n_comparisons, err));
    unsigned all;
    ct_label_differing(stats, NULL, stats->n_versions, &all);
    CT_TRY(ct_label_shared(&stats->versions[0], all, &text, err));
    CT_TRY(wrap(out, text.data ? text.data : "", err));
    CT_TRY(labels_make(&t, err));
    bool unchanged = t.n_comparisons && t.comparisons[0].against == CT_AGAINST_UNCHANGED;
    CT_TRY(ct_buf_adds(out, "accuracy in %, with the 95 % bootstrap interval over prompts\n", err));
    if (ct_table_by_k(stats)) {
        for (size_t v = 0; v < stats->n_versions && t.letters; v++) {
            CT_TRY(ct_buf_addf(out, err, "  %c  ", (char)('A' + v)));
            CT_TRY(fit(out, t.labels[v], WIDTH - 5, false, err));
            CT_TRY(ct_buf_adds(out, "\n", err));
        }
        CT_TRY(blocks_text(&t, false, out, err));
        if (unchanged) {
            CT_TRY(ct_buf_adds(out,
                               "\ndifference from the unchanged model in points; p: paired test "
                               "over prompts\n",
                               err));
            CT_TRY(blocks_text(&t, true, out, err));
        }
    } else {
        if (unchanged)
            CT_TRY(
                ct_buf_adds(out, "p: paired test over prompts against the unchanged model\n", err));
        CT_TRY(rows_text(&t, out, err));
    }
    for (int against = CT_AGAINST_UNCHANGED + 1; against < CT_AGAINST_COUNT; against++)
        CT_TRY(siblings_text(&t, (ct_against)against, out, err));
    if (stats->failed) CT_TRY(failures_text(stats, out, err));
done:
    for (size_t v = 0; v < stats->n_versions; v++) free(t.labels[v]);
    free(t.labels);
    free(t.comparisons);
    ct_buf_clear(&text);
    return st;
}
