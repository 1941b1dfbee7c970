/* tables.c - CSV and LaTeX. See tables.h. */
#include "report/tables.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "report/label.h"
#include "report/report.h"

ct_status ct_csv_text(ct_buf *out, const char *text, ct_err *err)
{
    ct_status st = CT_OK;
    CT_TRY(ct_buf_adds(out, "\"", err));
    for (; *text; text++) {
        if (*text == '"') CT_TRY(ct_buf_adds(out, "\"", err));
        CT_TRY(ct_buf_add(out, text, 1, err));
    }
    CT_TRY(ct_buf_adds(out, "\"", err));
done:
    return st;
}

/* Six significant digits, always with a point: p may be 1e-29. */
static ct_status add_p(ct_buf *out, double p, ct_err *err)
{
    char text[32];
    snprintf(text, sizeof text, "%.6g", p);
    for (char *c = text; *c; c++)
        if (*c == ',') *c = '.'; /* printf follows the locale */
    return ct_buf_adds(out, text, err);
}

ct_status ct_csv_comparison(ct_buf *out, const ct_comparison *c, ct_err *err)
{
    ct_status st = CT_OK;
    if (!c) return ct_buf_adds(out, ",,,,,,,", err);
    const double numbers[] = {c->test.difference, c->test.low, c->test.high};
    for (int i = 0; i < 3; i++) {
        CT_TRY(ct_buf_adds(out, ",", err));
        CT_TRY(ct_label_fixed(out, numbers[i], 6, err));
    }
    CT_TRY(ct_buf_addf(out, err, ",%zu,%zu,", c->test.better, c->test.worse));
    CT_TRY(add_p(out, c->test.p, err));
    CT_TRY(ct_buf_adds(out, ",", err));
    CT_TRY(add_p(out, c->p_holm, err));
done:
    return st;
}

ct_status ct_latex_text(ct_buf *out, const char *text, ct_err *err)
{
    ct_status st = CT_OK;
    for (; *text; text++) {
        if (strchr("&%$#_{}", *text)) CT_TRY(ct_buf_addf(out, err, "\\%c", *text));
        else if (*text == '~') CT_TRY(ct_buf_adds(out, "\\textasciitilde{}", err));
        else if (*text == '^') CT_TRY(ct_buf_adds(out, "\\textasciicircum{}", err));
        else if (*text == '\\') CT_TRY(ct_buf_adds(out, "\\textbackslash{}", err));
        else if ((unsigned char)*text >= 0x20 && *text != 0x7F)
            CT_TRY(ct_buf_add(out, text, 1, err));
    }
done:
    return st;
}

ct_status ct_p_text(ct_buf *out, double p, ct_err *err)
{
    return p < 0.001 ? ct_buf_adds(out, "<0.001", err) : ct_label_fixed(out, p, 3, err);
}

static ct_status add_k(ct_buf *out, int64_t k, const char *none, ct_err *err)
{
    return k < 0 ? ct_buf_adds(out, none, err) : ct_buf_addf(out, err, "%lld", (long long)k);
}

/* The version's words, and k where it has one, as a CSV field. */
static ct_status csv_side(ct_buf *out, const ct_stats *stats, size_t v, int64_t k, unsigned mask,
                          ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf label = {0};
    CT_TRY(ct_label_version(&stats->versions[v], mask, &label, err));
    CT_TRY(ct_csv_text(out, label.data, err));
    CT_TRY(ct_buf_adds(out, ",", err));
    CT_TRY(add_k(out, k, "", err));
done:
    ct_buf_clear(&label);
    return st;
}

ct_status ct_comparisons_csv(const ct_stats *stats, const ct_comparison *all, size_t n, ct_buf *out,
                             ct_err *err)
{
    ct_status st = CT_OK;
    unsigned differ, mask = ct_label_differing(stats, NULL, stats->n_versions, &differ);
    CT_TRY(ct_buf_adds(out,
                       "against,model,version,keep_heads,other,other_keep_heads,pairs,same_prompts,"
                       "method,difference,low,high,better,worse,p,p_holm\n",
                       err));
    for (size_t i = 0; i < n; i++) {
        const ct_comparison *c = &all[i];
        CT_TRY(ct_csv_text(out, ct_against_name(c->against), err));
        CT_TRY(ct_buf_adds(out, ",", err));
        CT_TRY(ct_csv_text(out, stats->versions[c->version].model, err));
        CT_TRY(ct_buf_adds(out, ",", err));
        CT_TRY(csv_side(out, stats, c->version, c->k, mask, err));
        CT_TRY(ct_buf_adds(out, ",", err));
        CT_TRY(csv_side(out, stats, c->base, c->base_k, mask, err));
        CT_TRY(ct_buf_addf(out, err, ",%zu,%s,\"%s\"", c->test.pairs,
                           c->test.same_prompts ? "true" : "false",
                           ct_paired_method_name(c->test.method)));
        CT_TRY(ct_csv_comparison(out, c, err));
        CT_TRY(ct_buf_adds(out, "\n", err));
    }
done:
    return st;
}

static ct_status latex_label(ct_buf *out, const ct_stats_version *v, unsigned mask, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf label = {0};
    CT_TRY(ct_label_version(v, mask, &label, err));
    CT_TRY(ct_latex_text(out, label.data, err));
done:
    ct_buf_clear(&label);
    return st;
}

static ct_status latex_point(ct_buf *out, const ct_point *p, const ct_comparison *c, ct_err *err)
{
    ct_status st = CT_OK;
    if (!p || !p->prompts) return ct_buf_adds(out, "--", err);
    CT_TRY(ct_label_fixed(out, 100 * p->accuracy, 1, err));
    if (c && c->p_holm < 0.05) CT_TRY(ct_buf_adds(out, "$^{*}$", err));
    if (p->prompts < 2) goto done;
    CT_TRY(ct_buf_adds(out, " [", err));
    CT_TRY(ct_label_fixed(out, 100 * p->low, 1, err));
    CT_TRY(ct_buf_adds(out, ", ", err));
    CT_TRY(ct_label_fixed(out, 100 * p->high, 1, err));
    CT_TRY(ct_buf_adds(out, "]", err));
done:
    return st;
}

/* One column a version over rows of k. */
static ct_status latex_by_k(const ct_stats *stats, const ct_comparison *all, size_t n,
                            unsigned mask, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    CT_TRY(ct_buf_adds(out, "\\begin{tabular}{r", err));
    for (size_t v = 0; v < stats->n_versions; v++) CT_TRY(ct_buf_adds(out, "l", err));
    CT_TRY(ct_buf_adds(out, "}\n\\hline\n$k$", err));
    for (size_t v = 0; v < stats->n_versions; v++) {
        CT_TRY(ct_buf_adds(out, " & ", err));
        CT_TRY(latex_label(out, &stats->versions[v], mask, err));
    }
    CT_TRY(ct_buf_adds(out, " \\\\\n\\hline\n", err));
    for (int64_t k = -2; ct_stats_next_k(stats, 0, stats->n_versions, k, &k);) {
        CT_TRY(add_k(out, k, "all", err));
        for (size_t v = 0; v < stats->n_versions; v++) {
            CT_TRY(ct_buf_adds(out, " & ", err));
            CT_TRY(latex_point(out, ct_stats_point(&stats->versions[v], k),
                               ct_comparison_find(all, n, CT_AGAINST_UNCHANGED, v, k), err));
        }
        CT_TRY(ct_buf_adds(out, " \\\\\n", err));
    }
done:
    return st;
}

/* One row a version and k: many versions would not fit beside each other. */
static ct_status latex_by_version(const ct_stats *stats, const ct_comparison *all, size_t n,
                                  unsigned mask, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    CT_TRY(ct_buf_adds(out,
                       "\\begin{tabular}{lrlr}\n\\hline\nVersion & $k$ & Accuracy & Prompts "
                       "\\\\\n\\hline\n",
                       err));
    for (size_t v = 0; v < stats->n_versions; v++)
        for (size_t i = 0; i < stats->versions[v].n_points; i++) {
            const ct_point *p = &stats->versions[v].points[i];
            CT_TRY(latex_label(out, &stats->versions[v], mask, err));
            CT_TRY(ct_buf_adds(out, " & ", err));
            CT_TRY(add_k(out, p->keep_heads, "all", err));
            CT_TRY(ct_buf_adds(out, " & ", err));
            CT_TRY(latex_point(
                out, p, ct_comparison_find(all, n, CT_AGAINST_UNCHANGED, v, p->keep_heads), err));
            CT_TRY(ct_buf_addf(out, err, " & %zu \\\\\n", p->prompts));
        }
done:
    return st;
}

ct_status ct_accuracy_latex(const ct_stats *stats, const ct_comparison *all, size_t n, ct_buf *out,
                            ct_err *err)
{
    ct_status st = CT_OK;
    unsigned differ, mask = ct_label_differing(stats, NULL, stats->n_versions, &differ);
    CT_TRY(
        ct_buf_adds(out,
                    "% Accuracy in per cent with its 95 % bootstrap interval over prompts, by k, "
                    "the heads kept.\n% *: differs from the unchanged model, p < 0.05 (paired, "
                    "Holm's adjustment).\n",
                    err));
    if (ct_table_by_k(stats)) CT_TRY(latex_by_k(stats, all, n, mask, out, err));
    else CT_TRY(latex_by_version(stats, all, n, mask, out, err));
    CT_TRY(ct_buf_adds(out, "\\hline\n\\end{tabular}\n", err));
done:
    return st;
}
