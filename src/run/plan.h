/* plan.h - which cells share a prefill. Pure: no model, no files.
 *
 * Owns the grouping: cells of one prompt whose interventions do the same in prefill form a group,
 * which is prefilled once and forked for each member. What "the same" means is the engine's
 * (ct_request_same_prefill) and is given as a function. Execution: run/execute.c.
 */
#ifndef CT_RUN_PLAN_H
#define CT_RUN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/status.h>

/* A cell to run. */
typedef struct ct_plan_item {
    uint32_t cell;         /* index in the grid */
    uint32_t point;        /* its prompt */
    int64_t prompt_tokens; /* to prefill */
} ct_plan_item;

/* Whether a may be forked from b's prefill; an equivalence among items of one point. */
typedef bool (*ct_plan_same_fn)(void *user, const ct_plan_item *a, const ct_plan_item *b);

typedef struct ct_plan_group {
    size_t begin, count; /* in items; count > 0 */
} ct_plan_group;

typedef struct ct_plan {
    ct_plan_item *items; /* as given, but members of a group stand together */
    size_t n_items;
    ct_plan_group *groups;
    size_t n_groups;
    int64_t tokens_plain;   /* prefilled by a loop over the items */
    int64_t tokens_planned; /* prefilled by one prefill a group */
} ct_plan;

/* Groups the items; those of one point must stand together. The order of points, and of items in a
 * group, stays. */
ct_status ct_plan_new(const ct_plan_item *items, size_t n, ct_plan_same_fn same, void *user,
                      ct_plan *out, ct_err *err) CT_CHECK;
void ct_plan_clear(ct_plan *plan);

#endif
