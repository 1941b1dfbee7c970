/* plan.h - cells to run as a prefix tree of prefills. Pure: no model, no files.
 *
 * Owns the arrangement: rows of prefill that several cells share are computed once, by a node of the
 * tree; what fits in memory is held at branch points, what does not is computed again; nodes that
 * are small are prefilled together. What cells share is the engine's to say
 * (ct_request_shared_prefill) and is given as a function. The order of the work while rows come
 * and go: schedule.h. Execution: execute.c.
 *
 *   prompts  ----haystack----+----------+-- rest, question          trunk: goes on in place
 *                            |          `-- needle, rest, question  forked at a multiple of 64
 *                            `-- needle, rest, question: cells 0, 1, 2 ... (forked at its end)
 */
#ifndef CT_RUN_PLAN_H
#define CT_RUN_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/status.h>

#define CT_PLAN_NONE SIZE_MAX
enum { CT_PLAN_TOGETHER = 16 }; /* nodes of a batch, at most */

/* A cell to run. */
typedef struct ct_plan_item {
    uint32_t cell;   /* index in the grid */
    int64_t prefill; /* tokens of its prefill, 0 or more */
    int64_t tokens;  /* prompt and answer: what its sequence holds at most */
    int64_t steps;   /* of decoding, at most */
    bool whole;      /* its prefill must run in one step */
    /* Of its recording, while it decodes; from its prefill on if that is recorded, too, which then
     * shares no row with any other. */
    int64_t recording_bytes;
    bool records_prefill;
} ct_plan_item;

/* A total order of items; *shared is the number of leading rows of prefill that both compute alike.
 * Items that share rows stand together, and 0 means all (ct_request_shared_prefill). */
typedef int (*ct_plan_compare_fn)(void *user, const ct_plan_item *a, const ct_plan_item *b,
                                  int64_t *shared);

typedef struct ct_plan_limits {
    int64_t memory;         /* bytes of all states and recordings at any time */
    int64_t sequence_bytes; /* of a sequence beside its keys and values */
    int64_t block_bytes;    /* of keys and values of 64 positions */
    int64_t window;         /* previous tokens that a query of prefill sees; < 0: all */
    int64_t step_tokens;    /* of a prefill, in one step; a multiple of 64 */
    size_t rows;      /* cells that decode together, at most; 1: nor are nodes prefilled together */
    bool begins_anew; /* every decoding step computes its sequence from the start */
} ct_plan_limits;

/* Rows begin .. end-1 of the prefills of items first_item .. first_item+n_items-1, computed once,
 * with the tokens of the last of these items. The items of a node without children end their
 * prefill there, the others have more rows below it. */
typedef struct ct_plan_node {
    size_t parent;      /* a node before it, or CT_PLAN_NONE */
    int64_t begin, end; /* begin: the parent's end, a multiple of 64 */
    size_t first_item, n_items;
    size_t n_children;
    bool in_place; /* the parent's last child: its state goes on, those of others are forked */
    size_t first_block;
} ct_plan_node;

/* Nodes first .. first+count-1, prefilled side by side; their parents are in earlier batches. */
typedef struct ct_plan_batch {
    size_t first, count;
} ct_plan_batch;

typedef struct ct_plan {
    ct_plan_limits limits;
    ct_plan_item *items; /* those given, in the order in which they run */
    size_t n_items;
    ct_plan_node *nodes; /* depth first; a state is needed until its node's last child begins */
    size_t n_nodes;
    ct_plan_batch *batches; /* all nodes, in their order */
    size_t n_batches;
    size_t n_blocks;        /* of all nodes */
    size_t n_forks;         /* states forked: at branch points, and for cells of one prefill */
    int64_t tokens_plain;   /* prefilled by a loop over the items */
    int64_t tokens_planned; /* prefilled by the nodes */
    /* If every item takes all its steps: */
    int64_t decode_steps;
    size_t decode_rows; /* most at a time */
    int64_t peak_bytes; /* of states and recordings, at most limits.memory */
} ct_plan;

/* Puts the items into their order, those that compare alike in the order given. A plan does so itself. */
ct_status ct_plan_sort(ct_plan_item *items, size_t n, ct_plan_compare_fn compare, void *user,
                       ct_err *err) CT_CHECK;
/* Plans the items. CT_ERR_LIMIT, saying what is needed, if one sequence alone takes more than
 * limits->memory. Otherwise any limit gives a plan: the less, the more is computed again. */
ct_status ct_plan_new(const ct_plan_item *items, size_t n, ct_plan_compare_fn compare, void *user,
                      const ct_plan_limits *limits, ct_plan *out, ct_err *err) CT_CHECK;
void ct_plan_clear(ct_plan *plan);

#endif
