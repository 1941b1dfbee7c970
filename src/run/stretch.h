/* stretch.h - cells to run, cut into stretches that lanes take one after another. Pure, as the plan.
 *
 * Sorted items that share rows of prefill stand together, so a stretch is a part of that order. Where a
 * stretch begins, the rows that its first item shares with the one before are computed once more.
 */
#ifndef CT_RUN_STRETCH_H
#define CT_RUN_STRETCH_H

#include "run/plan.h"

/* Items first .. first+count-1. */
typedef struct ct_stretch {
    size_t first, count;
    int64_t cost; /* as if in tokens of prefill */
} ct_stretch;

/* Cuts sorted items into n stretches (fewer if there are fewer items) whose costs, each divided by its
 * `share`, have the least maximum. Items of one prefill stay together unless that makes the maximum
 * larger by a tenth. begins_anew: as in ct_plan_limits. The caller frees *out. */
ct_status ct_stretches_cut(const ct_plan_item *items, size_t n_items, ct_plan_compare_fn compare,
                           void *user, bool begins_anew, const double *share, size_t n,
                           ct_stretch **out, size_t *n_out, ct_err *err) CT_CHECK;

#endif
