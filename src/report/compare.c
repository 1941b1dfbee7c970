/* compare.c - paired tests and the choice of what is compared. See compare.h. */
#include "report/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/rng.h"

const char *ct_paired_method_name(ct_paired_method method)
{
    static const char *const names[] = {"exact McNemar", "exact sign flips", "100,000 sign flips"};
    return names[method];
}

const char *ct_against_name(ct_against against)
{
    static const char *const names[] = {"the unchanged model", "the context read once",
                                        "selection in generation only", "selection by entropy"};
    return names[against];
}

/* ---- the test -------------------------------------------------------------------------------- */

enum { STEPS_MAX = 60, ENUMERATE_MAX = 20 };
static const double COST_MAX = 5e7; /* of the exact distribution: n times its width */

/* Finds the least 1/q of which all d are multiples and writes |d| in these units; false if there is
 * none with q <= STEPS_MAX or the distribution would cost too much. */
static bool on_lattice(const double *d, size_t n, size_t *units, size_t *total)
{
    for (int q = 1; q <= STEPS_MAX; q++) {
        double sum = 0;
        size_t i = 0;
        for (; i < n; i++) {
            double scaled = fabs(d[i]) * q, whole = round(scaled);
            if (fabs(scaled - whole) > 1e-9 * q || whole < 1) break;
            units[i] = whole < 1e9 ? (size_t)whole : 0;
            sum += whole;
        }
        if (i < n) continue;
        *total = (size_t)sum;
        return sum * (double)n <= COST_MAX;
    }
    return false;
}

/* Distribution of the sum over those units whose sign is plus, each with chance 1/2: chance[t] for
 * t = 0..total. The signed sum is 2 t - total. */
static ct_status exact_p(const double *d, const size_t *units, size_t n, size_t total, double *p,
                         ct_err *err)
{
    double *chance = calloc(total + 1, sizeof *chance);
    if (!chance) return ct_fail_memory(err, "sign flips", (total + 1) * sizeof *chance);
    chance[0] = 1;
    size_t reach = 0, plus = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t t = reach + units[i] + 1; t-- > 0;) {
            double without = t <= reach ? chance[t] : 0;
            double with = t >= units[i] ? chance[t - units[i]] : 0;
            chance[t] = (without + with) / 2;
        }
        reach += units[i];
        if (d[i] > 0) plus += units[i];
    }
    size_t far = plus > total - plus ? plus : total - plus, near = total - far;
    double sum = 0;
    if (near < far) { /* else the observed sum is 0, and every choice is at least as far */
        for (size_t t = 0; t <= near; t++) sum += chance[t];
        for (size_t t = far; t <= total; t++) sum += chance[t];
        *p = fmin(sum, 1);
    } else {
        *p = 1;
    }
    free(chance);
    return CT_OK;
}

/* The share of sign choices that are at least as far, all of them or drawn ones. */
static double tried_p(const double *d, size_t n, bool all)
{
    double observed = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        observed += d[i];
        size += fabs(d[i]);
    }
    const double bound = fabs(observed) - 1e-12 * size;
    const uint64_t tries = all ? UINT64_C(1) << n : CT_SIGN_FLIP_DRAWS;
    uint64_t reached = 0;
    for (uint64_t t = 0; t < tries; t++) {
        double sum = 0;
        uint64_t bits = t;
        for (size_t i = 0; i < n; i++) {
            if (!all && i % 64 == 0) bits = ct_rng_u64(CT_SIGN_FLIP_SEED, t, i / 64);
            sum += bits >> (i % 64) & 1 ? d[i] : -d[i];
        }
        reached += fabs(sum) >= bound;
    }
    return all ? (double)reached / (double)tries : (double)(reached + 1) / (double)(tries + 1);
}

ct_status ct_sign_flip(const double *d, size_t n, double *p, ct_paired_method *method, ct_err *err)
{
    ct_status st = CT_OK;
    *p = 1;
    *method = CT_PAIRED_MCNEMAR;
    double *left = calloc(n + 1, sizeof *left);
    size_t *units = calloc(n + 1, sizeof *units);
    if (!left || !units) {
        st = ct_fail_memory(err, "sign flips", n * sizeof *left);
        goto done;
    }
    size_t m = 0, total = 0;
    bool one_size = true;
    for (size_t i = 0; i < n; i++) {
        if (fabs(d[i]) < 1e-9) continue; /* rounding of a mean over seeds, not a difference */
        left[m++] = d[i];
        one_size &= fabs(fabs(d[i]) - fabs(left[0])) < 1e-9;
    }
    if (!m) goto done;
    if (one_size) {
        for (size_t i = 0; i < m; i++) units[i] = 1;
        st = exact_p(left, units, m, m, p, err);
    } else if (on_lattice(left, m, units, &total)) {
        *method = CT_PAIRED_EXACT;
        st = exact_p(left, units, m, total, p, err);
    } else {
        *method = m <= ENUMERATE_MAX ? CT_PAIRED_EXACT : CT_PAIRED_SAMPLED;
        *p = tried_p(left, m, m <= ENUMERATE_MAX);
    }
done:
    free(left);
    free(units);
    return st;
}

typedef struct ct_ranked {
    double p;
    size_t at;
} ct_ranked;

static int compare_ranked(const void *left, const void *right)
{
    const ct_ranked *a = left, *b = right;
    if (a->p != b->p) return a->p < b->p ? -1 : 1;
    return (a->at > b->at) - (a->at < b->at);
}

ct_status ct_holm(double *p, size_t n, ct_err *err)
{
    ct_ranked *ranked = calloc(n + 1, sizeof *ranked);
    if (!ranked) return ct_fail_memory(err, "Holm's adjustment", n * sizeof *ranked);
    for (size_t i = 0; i < n; i++) ranked[i] = (ct_ranked){p[i], i};
    qsort(ranked, n, sizeof *ranked, compare_ranked);
    double least = 0;
    for (size_t i = 0; i < n; i++) {
        least = fmax(least, fmin(1, (double)(n - i) * ranked[i].p));
        p[ranked[i].at] = least;
    }
    free(ranked);
    return CT_OK;
}

/* ---- pairs ----------------------------------------------------------------------------------- */

typedef struct ct_side {
    const ct_stats_cell *cells;
    size_t n;
} ct_side;

static int compare_place(const ct_stats_cell *c, size_t version, int64_t k)
{
    if (c->version != version) return c->version < version ? -1 : 1;
    return (c->keep_heads > k) - (c->keep_heads < k);
}

/* The cells of a version at k; they stand together, by length and depth. */
static ct_side side_of(const ct_stats *stats, size_t version, int64_t k)
{
    size_t begin = 0, end = stats->n_cells;
    while (begin < end) { /* the first that is not before */
        size_t middle = begin + (end - begin) / 2;
        if (compare_place(&stats->cells[middle], version, k) < 0) begin = middle + 1;
        else end = middle;
    }
    ct_side side = {stats->cells + begin, 0};
    while (begin + side.n < stats->n_cells && compare_place(&side.cells[side.n], version, k) == 0)
        side.n++;
    return side;
}

/* Takes the cells of one point off the side: their number, the done ones' mean of score / maximum.
 */
static size_t take_point(ct_side *side, double *mean)
{
    const ct_stats_cell *first = side->cells;
    size_t done = 0;
    double sum = 0;
    while (side->n && side->cells->length == first->length && side->cells->depth == first->depth) {
        if (!side->cells->failed) {
            sum += side->cells->score / side->cells->max_score;
            done++;
        }
        side->cells++;
        side->n--;
    }
    *mean = done ? sum / (double)done : 0;
    return done;
}

static int compare_points(const ct_stats_cell *a, const ct_stats_cell *b)
{
    if (a->length != b->length) return a->length < b->length ? -1 : 1;
    return (a->depth > b->depth) - (a->depth < b->depth);
}

ct_status ct_compare(const ct_stats *stats, size_t v, int64_t k, size_t base, int64_t base_k,
                     ct_paired *out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_side a = side_of(stats, v, k), b = side_of(stats, base, base_k);
    *out = (ct_paired){.p = 1, .same_prompts = true};
    size_t most = a.n < b.n ? a.n : b.n;
    double *d = calloc(most + 1, sizeof *d);
    if (!d) return ct_fail_memory(err, "pairs", most * sizeof *d);
    while (a.n && b.n) {
        int order = compare_points(a.cells, b.cells);
        const ct_stats_cell *one = a.cells, *other = b.cells;
        double mine = 0, theirs = 0;
        size_t mine_done = order <= 0 ? take_point(&a, &mine) : 0;
        size_t theirs_done = order >= 0 ? take_point(&b, &theirs) : 0;
        if (order != 0 || !mine_done || !theirs_done) continue;
        out->same_prompts &= strcmp(one->prompt, other->prompt) == 0;
        out->better += mine > theirs + 1e-9;
        out->worse += mine < theirs - 1e-9;
        out->difference += mine - theirs;
        d[out->pairs++] = mine - theirs;
    }
    if (!out->pairs) goto done;
    out->difference /= (double)out->pairs;
    CT_TRY(ct_bootstrap_mean(d, out->pairs, &out->low, &out->high, err));
    /* In points of score, so that halves are steps that the test can count. */
    for (size_t i = 0; i < out->pairs; i++) d[i] *= stats->versions[v].max_score;
    CT_TRY(ct_sign_flip(d, out->pairs, &out->p, &out->method, err));
done:
    free(d);
    return st;
}

/* ---- what is compared ------------------------------------------------------------------------ */

static bool same(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

bool ct_unchanged(const ct_stats_version *v, int64_t k)
{
    return same(v->weights_generation, "keep") && same(v->weights_prefill, "keep") &&
           (k < 0 || k == v->heads);
}

/* Everything but the intervention and the study's name. */
static bool same_task(const ct_stats_version *a, const ct_stats_version *b)
{
    return same(a->model, b->model) && same(a->template_name, b->template_name) &&
           same(a->semantics, b->semantics) && same(a->scoring, b->scoring) &&
           a->heads == b->heads && a->window == b->window;
}

/* The unchanged model on v's prompts: of v itself, else of its study, else of any. */
static bool find_unchanged(const ct_stats *stats, size_t v, size_t *base, int64_t *base_k)
{
    const ct_stats_version *own = &stats->versions[v];
    int best = 0;
    for (size_t i = 0; i < stats->n_versions; i++) {
        const ct_stats_version *o = &stats->versions[i];
        if (!same_task(own, o) || own->read_twice != o->read_twice) continue;
        for (size_t p = 0; p < o->n_points; p++) {
            int64_t k = o->points[p].keep_heads;
            int rank = i == v ? 3 : same(own->study, o->study) ? 2 : 1;
            if (!ct_unchanged(o, k) || !o->points[p].prompts || rank <= best) continue;
            best = rank;
            *base = i;
            *base_k = k;
        }
    }
    return best > 0;
}

/* The version that differs from v in this one thing and has its common value; prefers v's study. */
static bool find_sibling(const ct_stats *stats, size_t v, ct_against against, size_t *base)
{
    const ct_stats_version *own = &stats->versions[v];
    int best = 0;
    for (size_t i = 0; i < stats->n_versions; i++) {
        const ct_stats_version *o = &stats->versions[i];
        bool twice = own->read_twice != o->read_twice;
        bool stages = !same(own->stages, o->stages), metric = !same(own->metric, o->metric);
        if (i == v || !same_task(own, o) || twice != (against == CT_AGAINST_READ_ONCE) ||
            stages != (against == CT_AGAINST_GENERATION) ||
            metric != (against == CT_AGAINST_ENTROPY) ||
            !same(own->weights_generation, o->weights_generation) ||
            !same(own->weights_prefill, o->weights_prefill))
            continue;
        if ((twice && o->read_twice) ||
            (stages && (!*own->stages || !same(o->stages, "generation"))) ||
            (metric && (!*own->metric || !same(o->metric, "entropy"))))
            continue;
        int rank = same(own->study, o->study) ? 2 : 1;
        if (rank <= best) continue;
        best = rank;
        *base = i;
    }
    return best > 0;
}

static ct_status adjust(ct_comparison *all, size_t n, ct_err *err)
{
    double *p = calloc(n + 1, sizeof *p);
    if (!p) return ct_fail_memory(err, "comparisons", n * sizeof *p);
    ct_status st = CT_OK;
    for (size_t begin = 0, end; begin < n && st == CT_OK; begin = end) {
        for (end = begin; end < n && all[end].against == all[begin].against; end++)
            p[end - begin] = all[end].test.p;
        st = ct_holm(p, end - begin, err);
        for (size_t i = begin; i < end; i++) all[i].p_holm = p[i - begin];
    }
    free(p);
    return st;
}

ct_status ct_comparisons_new(const ct_stats *stats, ct_comparison **out, size_t *n, ct_err *err)
{
    ct_status st = CT_OK;
    size_t points = 0;
    *out = NULL;
    *n = 0;
    for (size_t v = 0; v < stats->n_versions; v++) points += stats->versions[v].n_points;
    ct_comparison *all = calloc(points * CT_AGAINST_COUNT + 1, sizeof *all);
    if (!all) return ct_fail_memory(err, "comparisons", points * sizeof *all);
    for (int against = 0; against < CT_AGAINST_COUNT; against++)
        for (size_t v = 0; v < stats->n_versions; v++) {
            const ct_stats_version *version = &stats->versions[v];
            ct_comparison c = {.against = (ct_against)against, .version = v};
            bool found = against == CT_AGAINST_UNCHANGED
                             ? find_unchanged(stats, v, &c.base, &c.base_k)
                             : find_sibling(stats, v, c.against, &c.base);
            for (size_t i = 0; i < version->n_points && found; i++) {
                c.k = version->points[i].keep_heads;
                if (against == CT_AGAINST_UNCHANGED && ct_unchanged(version, c.k)) continue;
                if (against != CT_AGAINST_UNCHANGED) c.base_k = c.k;
                CT_TRY(ct_compare(stats, v, c.k, c.base, c.base_k, &c.test, err));
                if (c.test.pairs) all[(*n)++] = c;
            }
        }
    CT_TRY(adjust(all, *n, err));
    *out = all;
    all = NULL;
done:
    free(all);
    return st;
}

const ct_comparison *ct_comparison_find(const ct_comparison *all, size_t n, ct_against against,
                                        size_t v, int64_t k)
{
    for (size_t i = 0; i < n; i++)
        if (all[i].against == against && all[i].version == v && all[i].k == k) return &all[i];
    return NULL;
}
