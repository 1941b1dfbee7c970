/* table.c - accuracy by k as text for a terminal of 80 columns.
 *
 * Owns the layout in characters: one column a version over rows of k, in blocks of three versions,
 * or one row a version where that is clearer. See report.h.
 */
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "report/label.h"
#include "report/report.h"

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

/* Ends lines without blanks. */
static ct_status end_line(ct_buf *out, ct_err *err)
{
    while (out->size && out->data[out->size - 1] == ' ') out->data[--out->size] = 0;
    return ct_buf_adds(out, "\n", err);
}

static ct_status block_text(const ct_stats *stats, char *const *labels, bool letters, size_t begin,
                            size_t end, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    CT_TRY(ct_buf_adds(out, "\n   k ", err));
    for (size_t v = begin; v < end; v++) {
        char letter[2] = {(char)('A' + v), 0};
        CT_TRY(fit(out, letters ? letter : labels[v], COLUMN, true, err));
    }
    CT_TRY(end_line(out, err));
    int64_t k = -2;
    while (ct_stats_next_k(stats, begin, end, k, &k)) {
        if (k < 0) CT_TRY(ct_buf_adds(out, " all", err));
        else CT_TRY(ct_buf_addf(out, err, "%4lld", (long long)k));
        for (size_t v = begin; v < end; v++) {
            CT_TRY(point_text(ct_stats_point(&stats->versions[v], k), out, err));
            CT_TRY(ct_buf_adds(out, "   ", err));
        }
        CT_TRY(end_line(out, err));
    }
done:
    return st;
}

static ct_status rows_text(const ct_stats *stats, char *const *labels, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    CT_TRY(ct_buf_addf(out, err, "\n%-44s    k    accuracy\n", "version"));
    for (size_t v = 0; v < stats->n_versions; v++) {
        const ct_stats_version *version = &stats->versions[v];
        for (size_t i = 0; i < version->n_points; i++) {
            CT_TRY(fit(out, i ? "" : labels[v], 44, true, err));
            if (version->points[i].keep_heads < 0) CT_TRY(ct_buf_adds(out, "  all", err));
            else CT_TRY(ct_buf_addf(out, err, "%5lld", (long long)version->points[i].keep_heads));
            CT_TRY(point_text(&version->points[i], out, err));
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

ct_status ct_table_text(const ct_stats *stats, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf text = {0};
    char **labels = calloc(stats->n_versions + 1, sizeof *labels);
    if (!labels) return ct_fail_memory(err, "table", stats->n_versions * sizeof *labels);
    if (!stats->n_cells) {
        CT_TRY(ct_buf_adds(out, "no cell is finished yet\n", err));
        goto done;
    }
    unsigned all, mask = ct_label_differing(stats, NULL, stats->n_versions, &all);
    CT_TRY(ct_label_shared(&stats->versions[0], all, &text, err));
    CT_TRY(wrap(out, text.data ? text.data : "", err));
    bool letters = false;
    for (size_t v = 0; v < stats->n_versions; v++) {
        ct_buf_clear(&text);
        CT_TRY(ct_label_version(&stats->versions[v], mask, &text, err));
        labels[v] = ct_buf_take(&text);
        if (!labels[v]) {
            st = ct_fail_memory(err, "table", 1);
            goto done;
        }
        letters |= strlen(labels[v]) > COLUMN - 2;
    }
    CT_TRY(ct_buf_adds(out, "accuracy in %, with the 95 % bootstrap interval over prompts\n", err));
    if (ct_table_by_k(stats)) {
        for (size_t v = 0; v < stats->n_versions && letters; v++) {
            CT_TRY(ct_buf_addf(out, err, "  %c  ", (char)('A' + v)));
            CT_TRY(fit(out, labels[v], WIDTH - 5, false, err));
            CT_TRY(ct_buf_adds(out, "\n", err));
        }
        for (size_t v = 0; v < stats->n_versions; v += PER_BLOCK) {
            size_t end = v + PER_BLOCK < stats->n_versions ? v + PER_BLOCK : stats->n_versions;
            CT_TRY(block_text(stats, labels, letters, v, end, out, err));
        }
    } else {
        CT_TRY(rows_text(stats, labels, out, err));
    }
    ct_buf_clear(&text);
    if (stats->failed) {
        const char *why = "";
        for (size_t i = stats->n_cells; i-- > 0;)
            if (stats->cells[i].failed) why = stats->cells[i].error;
        CT_TRY(ct_buf_addf(&text, err, "%zu of %zu cells failed; the first: %s", stats->failed,
                           stats->n_cells, why));
        CT_TRY(ct_buf_adds(out, "\n", err));
        CT_TRY(wrap(out, text.data, err));
    }
done:
    for (size_t v = 0; v < stats->n_versions; v++) free(labels[v]);
    free(labels);
    ct_buf_clear(&text);
    return st;
}
