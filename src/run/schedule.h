/* schedule.h - what to do next while a plan runs: prefill, let a cell join the rows, decode.
 *
 * Owns that order, and the count of what the states take, so that the limit holds however early
 * cells end: nothing begins that does not fit; with no rows left the next thing always fits, which
 * the plan has seen to. Pure, as the plan is: it runs a model (execute.c) as well as a count.
 *
 * Bytes of a state: the sequence's own, and the blocks of 64 positions that it can still see. The
 * blocks of a node's rows are counted once, whoever shares them. A recording counts from its first row
 * on: its memory is not touched before.
 */
#ifndef CT_RUN_SCHEDULE_H
#define CT_RUN_SCHEDULE_H

#include "run/plan.h"

typedef struct ct_schedule {
    const ct_plan *plan;
    /* NULL, or that of the stretch before, which has begun all it has: its rows go on beside these,
     * and what they take counts. */
    const struct ct_schedule *beside;
    uint32_t *users; /* [plan->n_blocks] states that can see the block */
    int64_t bytes, peak_bytes;
    size_t next_batch;
    size_t node, open_end; /* the node whose items join next; the end of the batch that was last */
    size_t joined;         /* of its items, those that did */
    size_t n_rows;
} ct_schedule;

typedef enum ct_schedule_do {
    CT_DO_PREFILL, /* the batch */
    CT_DO_JOIN,    /* one item of the node; its last one takes over the node's state */
    CT_DO_DECODE,  /* one step of all rows; then ct_schedule_leave for those that are done */
    CT_DO_END,
} ct_schedule_do;

typedef struct ct_schedule_task {
    ct_schedule_do what;
    size_t batch, node, item;
    bool in_place; /* of a join */
} ct_schedule_task;

/* The plan must outlive the schedule. */
ct_status ct_schedule_init(ct_schedule *schedule, const ct_plan *plan, ct_err *err) CT_CHECK;
void ct_schedule_clear(ct_schedule *schedule);
/* Nothing is left to begin, so that another schedule may begin beside this one. */
bool ct_schedule_all_begun(ct_schedule *schedule);
/* The next task, counted as done. CT_DO_END: no row is left, beside it neither. */
ct_schedule_task ct_schedule_next(ct_schedule *schedule);
/* A row of the item has ended. */
void ct_schedule_leave(ct_schedule *schedule, size_t node, size_t item);

/* For the plan itself: whether nodes first .. first+count-1 can be prefilled side by side within
 * `bytes`, and their items join one at a time within the limit, when no rows are left. */
bool ct_schedule_fits(ct_schedule *schedule, size_t first, size_t count, int64_t bytes);
/* Counts them as prefilled and their items as gone. */
void ct_schedule_pass(ct_schedule *schedule, size_t first, size_t count);

/* Blocks of an item's own while it decodes: those that it writes. */
int64_t ct_plan_row_blocks(const ct_plan_limits *limits, const ct_plan_item *item);
/* The first block that a query from `position` on can see. */
int64_t ct_plan_first_block(const ct_plan_limits *limits, int64_t position);

#endif
