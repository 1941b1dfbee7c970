/* plan.c - grouping by shared prefill. See plan.h. */
#include "run/plan.h"

#include <stdlib.h>

#include "base/err.h"

void ct_plan_clear(ct_plan *plan)
{
    free(plan->items);
    free(plan->groups);
    *plan = (ct_plan){0};
}

ct_status ct_plan_new(const ct_plan_item *items, size_t n, ct_plan_same_fn same, void *user,
                      ct_plan *out, ct_err *err)
{
    *out = (ct_plan){0};
    ct_plan p = {.n_items = n};
    size_t *group_of = calloc(n + 1, sizeof *group_of);
    size_t *leader = calloc(n + 1, sizeof *leader); /* first item of each group */
    size_t *next = calloc(n + 1, sizeof *next);     /* where its next member goes */
    p.items = calloc(n + 1, sizeof *p.items);
    p.groups = calloc(n + 1, sizeof *p.groups);
    ct_status st = CT_OK;
    if (!group_of || !leader || !next || !p.items || !p.groups) {
        st = ct_fail_memory(err, "plan", (n + 1) * sizeof *p.items);
        goto done;
    }
    size_t first = 0; /* group of the point at hand */
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && items[i].point != items[i - 1].point) first = p.n_groups;
        size_t g = first;
        while (g < p.n_groups && !same(user, &items[i], &items[leader[g]])) g++;
        if (g == p.n_groups) {
            leader[p.n_groups++] = i;
            p.tokens_planned += items[i].prompt_tokens;
        }
        p.tokens_plain += items[i].prompt_tokens;
        p.groups[g].count++;
        group_of[i] = g;
    }
    for (size_t g = 1; g < p.n_groups; g++)
        p.groups[g].begin = p.groups[g - 1].begin + p.groups[g - 1].count;
    for (size_t i = 0; i < n; i++) {
        size_t g = group_of[i];
        p.items[p.groups[g].begin + next[g]++] = items[i];
    }
    *out = p;
    p = (ct_plan){0};
done:
    free(group_of);
    free(leader);
    free(next);
    ct_plan_clear(&p);
    return st;
}
