/* study_lists.c - values of a study file that may be one or several. See study_lists.h. */
#include "run/study_lists.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "task/grid.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- lists of numbers ------------------------------------------------------------------------ */

int ct_compare_int64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

ct_status ct_study_check_distinct(const int64_t *values, size_t n, const char *what, ct_err *err)
{
    int64_t *sorted = malloc(n * sizeof *sorted);
    if (!sorted) return ct_fail_memory(err, what, n * sizeof *sorted);
    memcpy(sorted, values, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, ct_compare_int64);
    ct_status st = CT_OK;
    for (size_t i = 1; i < n && st == CT_OK; i++)
        if (sorted[i] == sorted[i - 1])
            st = ct_fail(err, CT_ERR_VALUE, "%s: expected each value once, got %lld twice", what,
                         (long long)sorted[i]);
    free(sorted);
    return st;
}

/* from, to and how many numbers that gives; *step 0: evenly spread, rounded. */
static ct_status read_range(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                            int64_t min, int64_t max, bool step_is_one, int64_t *from,
                            int64_t *step, size_t *count, ct_err *err)
{
    static const char *const keys[] = {"from", "to", "count", "step"};
    ct_status st;
    const ct_yaml_node *value;
    int64_t to, n;
    CT_TRY(ct_yaml_check_keys(y, node, what, keys, COUNT(keys), err));
    CT_TRY(ct_yaml_need(y, node, what, "from", &value, err));
    CT_TRY(ct_yaml_int(y, value, what, min, max, from, err));
    CT_TRY(ct_yaml_need(y, node, what, "to", &value, err));
    CT_TRY(ct_yaml_int(y, value, what, min, max, &to, err));
    if (to < *from) {
        st = ct_yaml_fail(y, value, what, err, "`to` not below `from` (%lld)", (long long)*from);
        goto done;
    }
    const ct_yaml_node *count_node = ct_yaml_get(node, "count");
    const ct_yaml_node *step_node = ct_yaml_get(node, "step");
    if ((count_node && step_node) || (!count_node && !step_node && !step_is_one)) {
        st = ct_yaml_fail(y, node, what, err, "either `count` or `step` beside `from` and `to`");
    } else if (count_node) {
        /* More numbers than there are between the ends would repeat some. One alone must be both.
         */
        CT_TRY(ct_yaml_int(y, count_node, what, to > *from ? 2 : 1, to - *from + 1, &n, err));
        *count = (size_t)n;
        *step = 0;
    } else {
        *step = 1;
        if (step_node) CT_TRY(ct_yaml_int(y, step_node, what, 1, INT32_MAX, step, err));
        *count = (size_t)((to - *from) / *step + 1);
    }
done:
    return st;
}

ct_status ct_study_read_axis(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                             int64_t min, int64_t max, bool step_is_one, bool expand,
                             ct_study_axis *out, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t from = 0, to = 0, step = 0;
    out->line = node->line;
    if (node->kind == CT_YAML_MAP) {
        CT_TRY(read_range(y, node, what, min, max, step_is_one, &from, &step, &out->count, err));
        if (!expand) return CT_OK;
        if (out->count > CT_STUDY_MAX_CELLS) /* an axis of no cell: all entries have their own */
            return ct_yaml_fail(y, node, what, err, "at most %d values", CT_STUDY_MAX_CELLS);
        if (step == 0) {
            CT_TRY(ct_yaml_int(y, ct_yaml_get(node, "to"), what, min, max, &to, err));
            return ct_grid_linspace(from, to, (int64_t)out->count, what, &out->values, err);
        }
        out->values = malloc(out->count * sizeof *out->values);
        if (!out->values) return ct_fail_memory(err, what, out->count * sizeof *out->values);
        for (size_t i = 0; i < out->count; i++) out->values[i] = from + (int64_t)i * step;
        return CT_OK;
    }
    out->count = node->kind == CT_YAML_LIST ? node->count : 1;
    if (out->count == 0) return ct_yaml_fail(y, node, what, err, "at least one value");
    out->values = malloc(out->count * sizeof *out->values);
    if (!out->values) return ct_fail_memory(err, what, out->count * sizeof *out->values);
    const ct_yaml_node *item = node->kind == CT_YAML_LIST ? node->first : node;
    for (size_t i = 0; i < out->count; i++, item = item->next)
        CT_TRY(ct_yaml_int(y, item, what, min, max, &out->values[i], err));
    CT_TRY(ct_study_at_line(y, node->line,
                            ct_study_check_distinct(out->values, out->count, what, err), err));
done:
    if (!expand || st != CT_OK) {
        free(out->values);
        out->values = NULL;
    }
    return st;
}

/* ---- lists of words -------------------------------------------------------------------------- */

ct_status ct_study_at_line(const ct_yaml *y, int line, ct_status st, ct_err *err)
{
    if (st == CT_OK || !err) return st;
    char old[CT_ERR_TEXT_MAX];
    snprintf(old, sizeof old, "%s", err->text);
    return ct_fail(err, st, "%s (%s, line %d)", old, y->where, line);
}

ct_status ct_study_read_words(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                              ct_status (*parse)(const char *, const char *, void *, ct_err *),
                              void *out, size_t item, size_t max, size_t *count, ct_err *err)
{
    ct_status st = CT_OK;
    bool list = node->kind == CT_YAML_LIST;
    if (list && node->count == 0) return ct_yaml_fail(y, node, what, err, "at least one word");
    *count = 0;
    for (const ct_yaml_node *n = list ? node->first : node; n; n = list ? n->next : NULL) {
        const char *word;
        char *slot = (char *)out + *count * item;
        CT_TRY(ct_yaml_text(y, n, what, &word, err));
        /* There are `max` words in all, so that a longer list has one of them twice. */
        if (*count == max) {
            st = ct_yaml_fail(y, n, what, err, "each word once");
            goto done;
        }
        memset(slot, 0, item);
        CT_TRY(ct_study_at_line(y, n->line, parse(word, what, slot, err), err));
        for (size_t i = 0; i < *count; i++)
            if (memcmp((char *)out + i * item, slot, item) == 0) {
                st = ct_yaml_fail(y, n, what, err, "each word once");
                goto done;
            }
        ++*count;
    }
done:
    return st;
}

ct_status ct_study_read_bools(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                              bool out[2], size_t *count, ct_err *err)
{
    ct_status st = CT_OK;
    bool list = node->kind == CT_YAML_LIST;
    if (list && (node->count == 0 || node->count > 2))
        return ct_yaml_fail(y, node, what, err, "true, false, or [false, true]");
    *count = 0;
    for (const ct_yaml_node *n = list ? node->first : node; n; n = list ? n->next : NULL) {
        CT_TRY(ct_yaml_bool(y, n, what, &out[*count], err));
        if (++*count == 2 && out[0] == out[1]) {
            st = ct_yaml_fail(y, n, what, err, "each value once");
            goto done;
        }
    }
done:
    return st;
}

ct_status ct_study_read_choices(const ct_yaml *y, const ct_yaml_node *node, const char *what,
                                const char *const *names, size_t n_names, uint32_t *chosen,
                                ct_err *err)
{
    ct_status st = CT_OK;
    bool list = node->kind == CT_YAML_LIST;
    if (list && node->count == 0) return ct_yaml_fail(y, node, what, err, "at least one name");
    *chosen = 0;
    for (const ct_yaml_node *n = list ? node->first : node; n; n = list ? n->next : NULL) {
        const char *word;
        size_t i = 0;
        CT_TRY(ct_yaml_text(y, n, what, &word, err));
        while (i < n_names && strcmp(word, names[i]) != 0) i++;
        if (i == n_names) {
            const char *near = ct_nearest(word, names, n_names);
            st = ct_yaml_fail(y, n, what, err, "one of the study's models%s%s",
                              near ? "; nearest: " : "", near ? near : "");
            goto done;
        }
        if (*chosen & UINT32_C(1) << i) {
            st = ct_yaml_fail(y, n, what, err, "each name once");
            goto done;
        }
        *chosen |= UINT32_C(1) << i;
    }
done:
    return st;
}
