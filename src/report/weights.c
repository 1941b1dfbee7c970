/* weights.c - the layout of Table 6.1 and its published values. See weights.h. */
#include "report/weights.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/err.h"
#include "report/label.h"
#include "report/tables.h"

static const char *const modes[] = {"keep", "omit", "only", "binary", "null"};

/* Rows: prefill; columns: generation; both as in `modes`. */
static const double published[CT_WEIGHTS_ROWS][CT_WEIGHTS_COLUMNS] = {
    {50.3, 3.7, 85.7, 3.7, -1}, {63.0, 0.0, 53.0, 0.0, -1}, {70.6, 0.1, 18.2, 0.1, -1},
    {0.0, 0.0, 0.0, 0.0, -1},   {68.8, 0.0, 17.0, 0.0, -1},
};

const char ct_weights_source[] =
    "K. F. Michalak, Exploring Retrieval in Hybrid SSM-Transformers, bachelor's thesis, University "
    "of Groningen, Table 6.1 (RecurrentGemma-2B, 100 prompts)";

const char *ct_weights_table_mode(size_t place)
{
    return modes[place];
}

double ct_weights_published(size_t prefill, size_t generation)
{
    return published[prefill][generation];
}

bool ct_weights_same_model(const char *model)
{
    static const char name[] = "recurrentgemma-2b";
    for (; *model; model++)
        if (strncasecmp(model, name, sizeof name - 1) == 0) return true;
    return false;
}

static size_t place_of(const char *mode)
{
    size_t i = 0;
    while (i < CT_WEIGHTS_ROWS && strcmp(modes[i], mode) != 0) i++;
    return i;
}

static bool same(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static bool same_but_weights(const ct_stats_version *a, const ct_stats_version *b)
{
    return same(a->study, b->study) && same(a->model, b->model) && same(a->metric, b->metric) &&
           same(a->stages, b->stages) && same(a->template_name, b->template_name) &&
           same(a->semantics, b->semantics) && same(a->scoring, b->scoring) &&
           a->read_twice == b->read_twice && a->heads == b->heads && a->window == b->window;
}

/* What a version found with all heads: no selection, or k = H. */
static const ct_point *all_heads(const ct_stats_version *v)
{
    const ct_point *point = ct_stats_point(v, -1);
    return point ? point : ct_stats_point(v, v->heads);
}

static void rank(ct_weights_table *t)
{
    for (size_t i = 0; i < CT_WEIGHTS_ROWS * CT_WEIGHTS_COLUMNS; i++) {
        ct_weights_entry *e = &t->at[i / CT_WEIGHTS_COLUMNS][i % CT_WEIGHTS_COLUMNS];
        if (!e->there || !e->point->prompts || e->point->accuracy <= 0) continue;
        size_t better = 0;
        for (size_t j = 0; j < CT_WEIGHTS_ROWS * CT_WEIGHTS_COLUMNS; j++) {
            const ct_weights_entry *o = &t->at[j / CT_WEIGHTS_COLUMNS][j % CT_WEIGHTS_COLUMNS];
            better += o->there && o->point->accuracy > e->point->accuracy;
        }
        e->rank = better < 3 ? (int)better + 1 : 0;
    }
}

ct_status ct_weights_tables_new(const ct_stats *stats, const ct_comparison *comparisons,
                                size_t n_comparisons, ct_weights_table **out, size_t *n,
                                ct_err *err)
{
    ct_weights_table *tables = calloc(stats->n_versions + 1, sizeof *tables);
    size_t *entries = calloc(stats->n_versions + 1, sizeof *entries), count = 0;
    *out = NULL;
    *n = 0;
    if (!tables || !entries) {
        free(tables);
        free(entries);
        return ct_fail_memory(err, "table", stats->n_versions * sizeof *tables);
    }
    for (size_t v = 0; v < stats->n_versions; v++) {
        const ct_stats_version *version = &stats->versions[v];
        size_t generation = place_of(version->weights_generation);
        size_t prefill = place_of(version->weights_prefill), t = 0;
        const ct_point *point = all_heads(version);
        if (!point || generation == CT_WEIGHTS_COLUMNS || prefill == CT_WEIGHTS_ROWS) continue;
        while (t < count && !same_but_weights(&stats->versions[tables[t].first], version)) t++;
        if (t == count) tables[count++] = (ct_weights_table){.first = v};
        tables[t].at[prefill][generation] = (ct_weights_entry){
            .there = true,
            .version = v,
            .point = point,
            .unchanged = ct_comparison_find(comparisons, n_comparisons, CT_AGAINST_UNCHANGED, v,
                                            point->keep_heads)};
        tables[t].null_in_generation |= generation == 4;
        entries[t]++;
    }
    for (size_t t = 0; t < count; t++) {
        if (entries[t] < 2) continue;
        rank(&tables[t]);
        tables[(*n)++] = tables[t];
    }
    free(entries);
    *out = tables;
    return CT_OK;
}

ct_status ct_weights_csv(const ct_stats *stats, const ct_weights_table *table, ct_buf *out,
                         ct_err *err)
{
    ct_status st = CT_OK;
    CT_TRY(ct_buf_adds(out,
                       "model,generation,prefill,prompts,accuracy,low,high,published_accuracy,"
                       "difference,difference_low,difference_high,better,worse,p,p_holm\n",
                       err));
    for (size_t p = 0; p < CT_WEIGHTS_ROWS; p++)
        for (size_t g = 0; g < CT_WEIGHTS_COLUMNS; g++) {
            const ct_weights_entry *e = &table->at[p][g];
            if (!e->there) continue;
            CT_TRY(ct_csv_text(out, stats->versions[e->version].model, err));
            CT_TRY(ct_buf_addf(out, err, ",%s,%s,%zu", modes[g], modes[p], e->point->prompts));
            const double numbers[] = {e->point->accuracy, e->point->low, e->point->high};
            for (int i = 0; i < 3; i++) {
                CT_TRY(ct_buf_adds(out, ",", err));
                if (e->point->prompts) CT_TRY(ct_label_fixed(out, numbers[i], 6, err));
            }
            CT_TRY(ct_buf_adds(out, ",", err));
            if (published[p][g] >= 0) CT_TRY(ct_label_fixed(out, published[p][g] / 100, 3, err));
            CT_TRY(ct_csv_comparison(out, e->unchanged, err));
            CT_TRY(ct_buf_adds(out, "\n", err));
        }
done:
    return st;
}

/* "keep" as "Keep". */
static ct_status capital(ct_buf *out, const char *mode, ct_err *err)
{
    return ct_buf_addf(out, err, "%c%s", mode[0] - 'a' + 'A', mode + 1);
}

ct_status ct_weights_latex(const ct_stats *stats, const ct_weights_table *table, ct_buf *out,
                           ct_err *err)
{
    ct_status st = CT_OK;
    static const char *const rank_begin[] = {"", "\\textbf{", "\\underline{", "\\textit{"};
    size_t columns = table->null_in_generation ? 5 : 4;
    CT_TRY(ct_buf_adds(out, "% Accuracy in per cent of ", err));
    CT_TRY(ct_latex_text(out, stats->versions[table->first].model, err));
    CT_TRY(ct_buf_addf(out, err, "; in brackets: %s.\n", ct_weights_source));
    CT_TRY(ct_buf_adds(out, "% Bold: best, underlined: second, italic: third.\n", err));
    CT_TRY(ct_buf_addf(out, err,
                       "\\begin{tabular}{l%.*s}\n\\hline\n & \\multicolumn{%zu}{c}{Generation} "
                       "\\\\\nPrefill",
                       (int)columns, "rrrrr", columns));
    for (size_t g = 0; g < columns; g++) {
        CT_TRY(ct_buf_adds(out, " & ", err));
        CT_TRY(capital(out, modes[g], err));
    }
    CT_TRY(ct_buf_adds(out, " \\\\\n\\hline\n", err));
    for (size_t p = 0; p < CT_WEIGHTS_ROWS; p++) {
        CT_TRY(capital(out, modes[p], err));
        for (size_t g = 0; g < columns; g++) {
            const ct_weights_entry *e = &table->at[p][g];
            CT_TRY(ct_buf_adds(out, " & ", err));
            if (e->there && e->point->prompts) {
                CT_TRY(ct_buf_adds(out, rank_begin[e->rank], err));
                CT_TRY(ct_label_fixed(out, 100 * e->point->accuracy, 1, err));
                CT_TRY(ct_buf_adds(out, e->rank ? "\\%}" : "\\%", err));
            } else {
                CT_TRY(ct_buf_adds(out, "--", err));
            }
            if (published[p][g] < 0) continue;
            CT_TRY(ct_buf_adds(out, " (", err));
            CT_TRY(ct_label_fixed(out, published[p][g], 1, err));
            CT_TRY(ct_buf_adds(out, "\\%)", err));
        }
        CT_TRY(ct_buf_adds(out, " \\\\\n", err));
    }
    CT_TRY(ct_buf_adds(out, "\\hline\n\\end{tabular}\n", err));
done:
    return st;
}
