/* stats.c - grouping of cells, accuracy with bootstrap intervals, retrieval maps. See stats.h. */
#include "report/stats.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/rng.h"

/* Makes room for one more element; returns the array or NULL with err filled. */
static void *grow(void *array, size_t count, size_t *capacity, size_t size, ct_err *err)
{
    if (count < *capacity) return array;
    size_t next = *capacity ? *capacity * 2 : 16;
    void *bigger = next > SIZE_MAX / 2 / size ? NULL : realloc(array, next * size);
    if (!bigger) ct_fail_memory(err, "report cells", next);
    else *capacity = next;
    return bigger;
}

ct_status ct_stats_new(ct_stats **out, ct_err *err)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return ct_fail_memory(err, "report", sizeof **out);
    ct_status st = ct_textset_new(&(*out)->texts, err);
    if (st == CT_OK) return CT_OK;
    free(*out);
    *out = NULL;
    return st;
}

static void version_clear(ct_stats_version *v)
{
    free(v->study);
    free(v->model);
    free(v->metric);
    free(v->stages);
    free(v->weights_generation);
    free(v->weights_prefill);
    free(v->template_name);
    free(v->semantics);
    free(v->scoring);
    free(v->points);
    free(v->lengths);
    free(v->depths);
}

void ct_stats_free(ct_stats *stats)
{
    if (!stats) return;
    for (size_t i = 0; i < stats->n_versions; i++) version_clear(&stats->versions[i]);
    for (size_t i = 0; i < stats->n_cells; i++) free(stats->cells[i].error);
    free(stats->versions);
    free(stats->cells);
    ct_textset_free(stats->texts);
    free(stats);
}

static const char *text_of(const char *text)
{
    return text ? text : "";
}

static bool version_has(const ct_stats_version *v, const ct_cell *c)
{
    return strcmp(v->study, text_of(c->study)) == 0 && strcmp(v->model, text_of(c->model)) == 0 &&
           strcmp(v->metric, text_of(c->metric)) == 0 &&
           strcmp(v->stages, text_of(c->stages)) == 0 &&
           strcmp(v->weights_generation, text_of(c->weights_generation)) == 0 &&
           strcmp(v->weights_prefill, text_of(c->weights_prefill)) == 0 &&
           strcmp(v->template_name, text_of(c->template_name)) == 0 &&
           strcmp(v->semantics, text_of(c->semantics)) == 0 &&
           strcmp(v->scoring, text_of(c->scoring)) == 0 && v->read_twice == c->read_twice &&
           v->heads == c->heads && v->window == c->window;
}

static ct_status version_add(ct_stats *stats, const ct_cell *c, ct_err *err)
{
    ct_stats_version *all =
        grow(stats->versions, stats->n_versions, &stats->version_capacity, sizeof *all, err);
    if (!all) return CT_ERR_MEMORY;
    stats->versions = all;
    ct_stats_version v = {.heads = c->heads, .window = c->window, .read_twice = c->read_twice};
    v.model_index = stats->n_models;
    for (size_t i = 0; i < stats->n_versions; i++)
        if (strcmp(all[i].model, text_of(c->model)) == 0) v.model_index = all[i].model_index;
    const struct {
        char **to;
        const char *from;
    } fields[] = {{&v.study, c->study},
                  {&v.model, c->model},
                  {&v.metric, c->metric},
                  {&v.stages, c->stages},
                  {&v.weights_generation, c->weights_generation},
                  {&v.weights_prefill, c->weights_prefill},
                  {&v.template_name, c->template_name},
                  {&v.semantics, c->semantics},
                  {&v.scoring, c->scoring}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        *fields[i].to = ct_strdup(text_of(fields[i].from), err);
        if (!*fields[i].to) {
            version_clear(&v);
            return CT_ERR_MEMORY;
        }
    }
    if (v.model_index == stats->n_models) stats->n_models++;
    all[stats->n_versions++] = v;
    return CT_OK;
}

ct_status ct_stats_add(ct_stats *stats, const ct_cell *c, ct_err *err)
{
    bool failed = c->status != CT_CELL_DONE;
    if (!failed && !(isfinite(c->max_score) && c->max_score > 0))
        return ct_fail(err, CT_ERR_VALUE, "cell %s: max_score: expected above 0, got %g", c->key,
                       c->max_score);
    if (!failed && !(c->score >= 0 && c->score <= c->max_score))
        return ct_fail(err, CT_ERR_VALUE, "cell %s: score: expected 0 to %g, got %g", c->key,
                       c->max_score, c->score);
    size_t v = 0;
    while (v < stats->n_versions && !version_has(&stats->versions[v], c)) v++;
    if (v == stats->n_versions) {
        ct_status made = version_add(stats, c, err);
        if (made != CT_OK) return made;
    }
    ct_stats_cell *cells =
        grow(stats->cells, stats->n_cells, &stats->cell_capacity, sizeof *cells, err);
    if (!cells) return CT_ERR_MEMORY;
    stats->cells = cells;
    ct_stats_cell kept = {.version = v,
                          .keep_heads = c->keep_heads < 0 ? -1 : c->keep_heads,
                          .length = c->length,
                          .depth = c->depth,
                          .seed = c->seed,
                          .failed = failed,
                          .score = failed ? 0 : c->score,
                          .max_score = failed ? 0 : c->max_score,
                          .audit = c->audit,
                          .prefill_ms = c->prefill_ms,
                          .decode_ms = c->decode_ms,
                          .prompt_tokens = c->prompt_tokens,
                          .n_ids = (int64_t)c->n_ids,
                          .needle_begin = c->needle_begin,
                          .needle_end = c->needle_end,
                          .needle_token_begin = c->needle_token_begin,
                          .needle_token_end = c->needle_token_end};
    ct_status st = ct_textset_add(stats->texts, text_of(c->prompt), &kept.prompt_text, err);
    if (st == CT_OK) st = ct_textset_add(stats->texts, text_of(c->text), &kept.output, err);
    if (st != CT_OK) return st;
    memcpy(kept.key, c->key, sizeof kept.key);
    kept.key[sizeof kept.key - 1] = 0;
    const char *prompt = *text_of(c->prompt_ids_hash) ? c->prompt_ids_hash : kept.key;
    snprintf(kept.prompt, sizeof kept.prompt, "%s", prompt);
    if (failed && !(kept.error = ct_strdup(text_of(c->error), err))) return CT_ERR_MEMORY;
    cells[stats->n_cells++] = kept;
    if (c->finished_unix_ms > 0) {
        if (!stats->first_finished_unix_ms || c->finished_unix_ms < stats->first_finished_unix_ms)
            stats->first_finished_unix_ms = c->finished_unix_ms;
        if (c->finished_unix_ms > stats->last_finished_unix_ms)
            stats->last_finished_unix_ms = c->finished_unix_ms;
    }
    return CT_OK;
}

/* ---- order ----------------------------------------------------------------------------------- */

/* A name's place in the order in which the thesis speaks of it; unknown names last. */
static size_t rank_of(const char *name, const char *const *names, size_t count)
{
    size_t i = 0;
    while (i < count && strcmp(name, names[i]) != 0) i++;
    return i;
}

static int compare_named(const char *a, const char *b, const char *const *names, size_t count)
{
    size_t x = rank_of(a, names, count), y = rank_of(b, names, count);
    return x != y ? (x < y ? -1 : 1) : strcmp(a, b);
}

static int compare_int(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int compare_versions(const void *left, const void *right)
{
    static const char *const stages[] = {"generation", "prefill+generation", "prefill", ""};
    static const char *const metrics[] = {"entropy", "l2", "entropy-inverted", "random", ""};
    static const char *const modes[] = {"keep", "omit", "only", "binary", "null"};
    const ct_stats_version *a = *(const ct_stats_version *const *)left;
    const ct_stats_version *b = *(const ct_stats_version *const *)right;
    int d = compare_int((int64_t)a->model_index, (int64_t)b->model_index);
    if (!d) d = compare_named(a->stages, b->stages, stages, 4);
    if (!d) d = compare_named(a->metric, b->metric, metrics, 5);
    if (!d) d = compare_named(a->weights_generation, b->weights_generation, modes, 5);
    if (!d) d = compare_named(a->weights_prefill, b->weights_prefill, modes, 5);
    if (!d) d = strcmp(a->template_name, b->template_name);
    if (!d) d = compare_int(a->read_twice, b->read_twice);
    if (!d) d = strcmp(a->semantics, b->semantics);
    if (!d) d = strcmp(a->study, b->study);
    if (!d) d = strcmp(a->scoring, b->scoring);
    return d ? d : compare_int(a->heads, b->heads);
}

static int compare_cells(const void *left, const void *right)
{
    const ct_stats_cell *a = left, *b = right;
    int d = compare_int((int64_t)a->version, (int64_t)b->version);
    if (!d) d = compare_int(a->keep_heads, b->keep_heads);
    if (!d) d = compare_int(a->length, b->length);
    if (!d) d = compare_int(a->depth, b->depth);
    if (!d) d = strcmp(a->prompt, b->prompt);
    if (!d) d = strcmp(a->key, b->key);
    if (!d) d = a->failed - b->failed; /* of two copies the done one comes first and stays */
    return d;
}

static ct_status order_versions(ct_stats *stats, ct_err *err)
{
    size_t n = stats->n_versions;
    ct_status st = CT_OK;
    const ct_stats_version **order = calloc(n + 1, sizeof *order);
    ct_stats_version *sorted = calloc(n + 1, sizeof *sorted);
    size_t *place = calloc(n + 1, sizeof *place);
    if (!order || !sorted || !place) {
        st = ct_fail_memory(err, "versions", n * sizeof *sorted);
        goto done;
    }
    for (size_t i = 0; i < n; i++) order[i] = &stats->versions[i];
    qsort(order, n, sizeof *order, compare_versions);
    for (size_t i = 0; i < n; i++) {
        sorted[i] = *order[i];
        place[order[i] - stats->versions] = i;
    }
    for (size_t i = 0; i < stats->n_cells; i++)
        stats->cells[i].version = place[stats->cells[i].version];
    if (n) memcpy(stats->versions, sorted, n * sizeof *sorted);
done:
    free(order);
    free(sorted);
    free(place);
    return st;
}

static void drop_copies(ct_stats *stats)
{
    size_t kept = 0;
    for (size_t i = 0; i < stats->n_cells; i++) {
        const ct_stats_cell *before = kept ? &stats->cells[kept - 1] : NULL;
        ct_stats_cell *c = &stats->cells[i];
        if (before && before->version == c->version && before->keep_heads == c->keep_heads &&
            before->length == c->length && before->depth == c->depth &&
            strcmp(before->key, c->key) == 0) {
            free(c->error);
            continue;
        }
        stats->cells[kept++] = *c;
    }
    stats->n_cells = kept;
}

/* ---- numbers --------------------------------------------------------------------------------- */

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static double quantile(const double *sorted, size_t n, double p)
{
    double at = p * (double)(n - 1);
    size_t i = (size_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

ct_status ct_bootstrap_mean(const double *x, size_t n, double *low, double *high, ct_err *err)
{
    CT_ASSERT(n > 0);
    *low = *high = x[0];
    if (n == 1) return CT_OK;
    double *means = malloc(CT_BOOTSTRAP_RESAMPLES * sizeof *means);
    if (!means) return ct_fail_memory(err, "bootstrap", CT_BOOTSTRAP_RESAMPLES * sizeof *means);
    for (uint64_t r = 0; r < CT_BOOTSTRAP_RESAMPLES; r++) {
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += x[(size_t)(ct_rng_f64(CT_BOOTSTRAP_SEED, r, i) * (double)n)];
        means[r] = sum / (double)n;
    }
    qsort(means, CT_BOOTSTRAP_RESAMPLES, sizeof *means, compare_doubles);
    *low = quantile(means, CT_BOOTSTRAP_RESAMPLES, 0.025);
    *high = quantile(means, CT_BOOTSTRAP_RESAMPLES, 0.975);
    free(means);
    return CT_OK;
}

static int compare_int64s(const void *left, const void *right)
{
    return compare_int(*(const int64_t *)left, *(const int64_t *)right);
}

/* The different values of one field over cells[n], ascending. */
static ct_status distinct(const ct_stats_cell *cells, size_t n, bool depth, int64_t **out,
                          size_t *count, ct_err *err)
{
    int64_t *values = malloc(n * sizeof *values);
    if (!values) return ct_fail_memory(err, "axis", n * sizeof *values);
    for (size_t i = 0; i < n; i++) values[i] = depth ? cells[i].depth : cells[i].length;
    qsort(values, n, sizeof *values, compare_int64s);
    *count = 0;
    for (size_t i = 0; i < n; i++)
        if (!*count || values[*count - 1] != values[i]) values[(*count)++] = values[i];
    *out = values;
    return CT_OK;
}

static bool same_prompt(const ct_stats_cell *a, const ct_stats_cell *b)
{
    return a->length == b->length && a->depth == b->depth && strcmp(a->prompt, b->prompt) == 0;
}

/* Seeds of one prompt are averaged first: they are no new prompts, and the interval is over
 * prompts.
 */
static ct_status point_compute(const ct_stats_cell *cells, size_t n, double *values, ct_point *p,
                               ct_err *err)
{
    *p = (ct_point){.keep_heads = cells[0].keep_heads};
    double sum = 0;
    for (size_t begin = 0, end; begin < n; begin = end) {
        double value = 0;
        size_t done = 0;
        for (end = begin; end < n && same_prompt(&cells[begin], &cells[end]); end++) {
            if (cells[end].failed) continue;
            value += cells[end].score / cells[end].max_score;
            done++;
        }
        p->cells += done;
        p->failed += end - begin - done;
        if (!done) continue;
        values[p->prompts] = value / (double)done;
        sum += values[p->prompts++];
    }
    if (!p->prompts) return CT_OK;
    p->accuracy = sum / (double)p->prompts;
    ct_status st = ct_bootstrap_mean(values, p->prompts, &p->low, &p->high, err);
    if (p->prompts == 1) p->low = p->high = p->accuracy;
    return st;
}

static void version_count(ct_stats_version *v, const ct_stats_cell *c)
{
    for (int s = 0; s < CT_STAGE_COUNT; s++) {
        v->audit.rows[s] += c->audit.rows[s];
        v->audit.head_rows[s] += c->audit.head_rows[s];
        v->audit.heads_dropped[s] += c->audit.heads_dropped[s];
        v->audit.edit_rows[s] += c->audit.edit_rows[s];
        v->audit.edit_rows_changed[s] += c->audit.edit_rows_changed[s];
    }
    v->prefill_ms += c->prefill_ms;
    v->decode_ms += c->decode_ms;
    if (c->max_score > v->max_score) v->max_score = c->max_score;
}

/* cells[n] are all of one version, in order; values has room for n. */
static ct_status version_compute(ct_stats_version *v, const ct_stats_cell *cells, size_t n,
                                 double *values, ct_err *err)
{
    ct_status st = distinct(cells, n, false, &v->lengths, &v->n_lengths, err);
    if (st == CT_OK) st = distinct(cells, n, true, &v->depths, &v->n_depths, err);
    if (st != CT_OK) return st;
    for (size_t i = 0; i < n; i++)
        if (!cells[i].failed) version_count(v, &cells[i]);
    size_t points = 0;
    for (size_t i = 0; i < n; i++)
        points += i == 0 || cells[i].keep_heads != cells[i - 1].keep_heads;
    v->points = calloc(points, sizeof *v->points);
    if (!v->points) return ct_fail_memory(err, "points", points * sizeof *v->points);
    for (size_t begin = 0, end; begin < n; begin = end) {
        for (end = begin; end < n && cells[end].keep_heads == cells[begin].keep_heads;) end++;
        ct_point *p = &v->points[v->n_points++];
        st = point_compute(cells + begin, end - begin, values, p, err);
        if (st != CT_OK) return st;
        v->cells += p->cells;
        v->failed += p->failed;
        if (!p->prompts) continue;
        if (!v->prompts_least || p->prompts < v->prompts_least) v->prompts_least = p->prompts;
        if (p->prompts > v->prompts_most) v->prompts_most = p->prompts;
    }
    return CT_OK;
}

ct_status ct_stats_finish(ct_stats *stats, ct_err *err)
{
    ct_status st = order_versions(stats, err);
    if (st != CT_OK || !stats->n_cells) return st;
    qsort(stats->cells, stats->n_cells, sizeof *stats->cells, compare_cells);
    drop_copies(stats);
    double *values = malloc(stats->n_cells * sizeof *values);
    if (!values) return ct_fail_memory(err, "scores", stats->n_cells * sizeof *values);
    for (size_t begin = 0, end; begin < stats->n_cells && st == CT_OK; begin = end) {
        size_t v = stats->cells[begin].version;
        for (end = begin; end < stats->n_cells && stats->cells[end].version == v;) end++;
        st = version_compute(&stats->versions[v], stats->cells + begin, end - begin, values, err);
        stats->done += stats->versions[v].cells;
        stats->failed += stats->versions[v].failed;
    }
    free(values);
    return st;
}

const ct_point *ct_stats_point(const ct_stats_version *v, int64_t keep_heads)
{
    for (size_t i = 0; i < v->n_points; i++)
        if (v->points[i].keep_heads == keep_heads) return &v->points[i];
    return NULL;
}

bool ct_stats_next_k(const ct_stats *stats, size_t begin, size_t end, int64_t after, int64_t *out)
{
    bool found = false;
    for (size_t v = begin; v < end; v++)
        for (size_t i = 0; i < stats->versions[v].n_points; i++) {
            int64_t k = stats->versions[v].points[i].keep_heads;
            if (k <= after || (found && k >= *out)) continue;
            *out = k;
            found = true;
        }
    return found;
}

/* ---- retrieval maps -------------------------------------------------------------------------- */

static size_t index_of(const int64_t *values, size_t n, int64_t value)
{
    size_t i = 0;
    while (i < n && values[i] != value) i++;
    CT_ASSERT(i < n);
    return i;
}

ct_status ct_stats_retrieval(const ct_stats *stats, size_t v, int64_t keep_heads, ct_retrieval *out,
                             ct_err *err)
{
    const ct_stats_version *version = &stats->versions[v];
    *out = (ct_retrieval){.n_lengths = version->n_lengths,
                          .n_depths = version->n_depths,
                          .lengths = version->lengths,
                          .depths = version->depths,
                          .max_score = version->max_score};
    if (version->n_lengths > CT_RETRIEVAL_MAX / version->n_depths)
        return ct_fail(err, CT_ERR_LIMIT,
                       "retrieval map: expected a grid of at most %d places, got %zu lengths x %zu "
                       "depths",
                       (int)CT_RETRIEVAL_MAX, version->n_lengths, version->n_depths);
    size_t places = version->n_lengths * version->n_depths;
    out->mean = calloc(places, sizeof *out->mean);
    out->counts = calloc(places, sizeof *out->counts);
    out->tokens = calloc(out->n_lengths, sizeof *out->tokens);
    if (!out->mean || !out->counts || !out->tokens) {
        ct_retrieval_clear(out);
        return ct_fail_memory(err, "retrieval map", places * sizeof *out->mean);
    }
    bool found = false;
    for (size_t i = 0; i < stats->n_cells; i++) {
        const ct_stats_cell *c = &stats->cells[i];
        if (c->version != v) continue;
        size_t column = index_of(out->lengths, out->n_lengths, c->length);
        if (c->prompt_tokens > out->tokens[column]) out->tokens[column] = c->prompt_tokens;
        if (c->keep_heads != keep_heads) continue;
        found = true;
        if (c->failed) continue;
        size_t at = index_of(out->depths, out->n_depths, c->depth) * out->n_lengths + column;
        out->mean[at] += c->score;
        out->counts[at]++;
    }
    for (size_t i = 0; i < places; i++) {
        if (out->counts[i]) out->mean[i] /= (double)out->counts[i];
        else out->missing++;
    }
    if (found) return CT_OK;
    ct_retrieval_clear(out);
    return ct_fail(err, CT_ERR_NOT_FOUND, "retrieval map: no cell at k = %lld",
                   (long long)keep_heads);
}

void ct_retrieval_clear(ct_retrieval *map)
{
    free(map->mean);
    free(map->counts);
    free(map->tokens);
    *map = (ct_retrieval){0};
}
