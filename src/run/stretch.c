/* stretch.c - where to cut. See stretch.h.
 *
 * Given a bound, taking as much into each stretch as stays below it needs the fewest stretches, since
 * a stretch that begins later never costs more. So the least bound is found by halving.
 */
#include "run/stretch.h"

#include <stdlib.h>

#include "base/err.h"

enum {
    BLOCK = 64,
    /* A row of a decoding step, in tokens of prefill. Measured on GPUs with 128 rows: 4.5
     * (RecurrentGemma-2B), 3.7 (9B), 8.8 (Jamba-Mini); bench/results/gpu.md has the times. */
    ROW_COST = 5,
};

/* What is not cut: an item, or all items of one prefill. */
typedef struct unit {
    int64_t begin_cost, next_cost; /* where a stretch begins with it; where it goes on */
    size_t end;                    /* the item after its last */
} unit;

static int64_t row_cost(const ct_plan_item *item, bool begins_anew)
{
    return item->steps * (begins_anew ? item->tokens : ROW_COST);
}

/* Units of single items, or of those that prefill alike. */
static size_t make_units(const ct_plan_item *items, size_t n, ct_plan_compare_fn compare,
                         void *user, bool begins_anew, bool single, unit *out)
{
    size_t n_units = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t shared = 0, rows = row_cost(&items[i], begins_anew), prefill = items[i].prefill;
        int order = i > 0 ? compare(user, &items[i - 1], &items[i], &shared) : -1;
        if (order == 0 && !single) {
            unit *u = &out[n_units - 1];
            u->begin_cost += rows;
            u->next_cost += rows;
            u->end = i + 1;
            continue;
        }
        if (shared > prefill) shared = prefill;
        int64_t fresh = order == 0 ? 0 : prefill - shared / BLOCK * BLOCK;
        out[n_units++] = (unit){prefill + rows, fresh + rows, i + 1};
    }
    return n_units;
}

/* Fills stretches below bound * share; returns how many, or n + 1 if that is not enough. Every
 * stretch gets a unit while there are some. */
static size_t fill(const unit *units, size_t n_units, double bound, const double *share, size_t n,
                   ct_stretch *out)
{
    size_t used = 0;
    for (size_t u = 0; u < n_units; used++) {
        if (used == n) return n + 1;
        double most = bound * share[used];
        int64_t cost = units[u].begin_cost;
        size_t first = u > 0 ? units[u - 1].end : 0;
        if ((double)cost > most) return n + 1;
        for (u++;
             u < n_units && n_units - u >= n - used && (double)(cost + units[u].next_cost) <= most;
             u++)
            cost += units[u].next_cost;
        out[used] = (ct_stretch){first, units[u - 1].end - first, cost};
    }
    return used;
}

/* The least bound under which the units fit, up to a part in 4096 of all. */
static double least_bound(const unit *units, size_t n_units, const double *share, size_t n,
                          ct_stretch *room)
{
    double high = 1, low = 0, all = 0, least = share[0];
    for (size_t u = 0; u < n_units; u++) all += (double)units[u].begin_cost;
    for (size_t i = 1; i < n; i++) least = share[i] < least ? share[i] : least;
    high = all / least + 1; /* every stretch could hold everything */
    for (double step = high / (1 << 20); high - low > step && high - low > low / 4096;) {
        double middle = (low + high) / 2;
        if (fill(units, n_units, middle, share, n, room) <= n) high = middle;
        else low = middle;
    }
    return high;
}

ct_status ct_stretches_cut(const ct_plan_item *items, size_t n_items, ct_plan_compare_fn compare,
                           void *user, bool begins_anew, const double *share, size_t n,
                           ct_stretch **out, size_t *n_out, ct_err *err)
{
    *out = NULL;
    *n_out = 0;
    unit *units = malloc((n_items + 1) * sizeof *units);
    unit *prefills = malloc((n_items + 1) * sizeof *prefills);
    ct_stretch *stretches = calloc(n + 1, sizeof *stretches);
    if (!units || !prefills || !stretches) {
        free(units);
        free(prefills);
        free(stretches);
        return ct_fail_memory(err, "plan", n_items * 2 * sizeof *units);
    }
    size_t n_units = make_units(items, n_items, compare, user, begins_anew, true, units);
    size_t n_prefills = make_units(items, n_items, compare, user, begins_anew, false, prefills);
    double bound = least_bound(units, n_units, share, n, stretches);
    double together = least_bound(prefills, n_prefills, share, n, stretches);
    bool keep = n_prefills >= n && together <= 1.1 * bound;
    *n_out = keep ? fill(prefills, n_prefills, together, share, n, stretches)
                  : fill(units, n_units, bound, share, n, stretches);
    CT_ASSERT(*n_out <= n);
    *out = stretches;
    free(units);
    free(prefills);
    return CT_OK;
}
