/* plan.c - the prefix tree: order, branch points, what is held, what is prefilled together.
 *
 * 1. Items are sorted, so that those that share rows are neighbours; equal ones are one leaf.
 * 2. The shared rows of neighbours, cut down to a multiple of 64, give the tree.
 * 3. A walk lays out its nodes. At a branch point the side branches come first and the trunk last,
 *    in place: that is the branch which holds most states itself. A branch point whose state does
 *    not fit is none: the trunk goes through, and the side branches begin at the one held before it.
 * 4. Nodes that come one after another are put together where their steps are small.
 * 5. A count with every item taking all its steps gives the figures of the plan.
 */
#include "run/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "run/schedule.h"

enum { BLOCK = 64 };

/* A branch of the tree before it is laid out: rows from its parent's end on. */
typedef struct branch {
    int64_t begin, end;         /* begin: while the tree is built */
    size_t child, last, next;   /* first and last child, next sibling; or CT_PLAN_NONE */
    size_t first_item, n_items; /* sorted; of a leaf */
    size_t states; /* to hold at a time, itself included, if nothing is in short supply */
    int64_t far;   /* the longest prefill that it leads to, and the largest recording */
    int64_t recording;
} branch;

/* A held branch point, and what goes on from it. */
typedef struct held {
    size_t node; /* CT_PLAN_NONE: the empty state at position 0 */
    int64_t position;
    size_t pending; /* a list of branches; the trunk is its last */
    int64_t bytes;  /* of this state and those below it in the stack */
} held;

typedef struct builder {
    ct_plan *plan;
    ct_plan_limits limits;
    ct_plan_compare_fn compare;
    void *user;
    const ct_plan_item *given;
    size_t n;
    size_t *order, *spare; /* of the items given */
    branch *branches;
    size_t n_branches;
    held *stack;
    size_t depth, n_placed;
    int64_t row_blocks; /* most that an item decodes into */
} builder;

void ct_plan_clear(ct_plan *plan)
{
    free(plan->items);
    free(plan->nodes);
    free(plan->batches);
    *plan = (ct_plan){0};
}

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int64_t blocks_of(int64_t tokens)
{
    return (tokens + BLOCK - 1) / BLOCK;
}

/* ---- order ----------------------------------------------------------------------------------- */

static int compare(const builder *b, size_t x, size_t y, int64_t *shared)
{
    return b->compare(b->user, &b->given[x], &b->given[y], shared);
}

/* Merge sort, bottom up and stable. Halves that are in order already, as are the many cells of a
 * prompt that prefill alike, take one comparison. */
static void sort_items(builder *b)
{
    int64_t shared;
    for (size_t width = 1; width < b->n; width *= 2)
        for (size_t at = 0; at + width < b->n; at += 2 * width) {
            size_t *left = b->order + at, n = width, m = b->n - at - width;
            if (m > width) m = width;
            size_t *right = left + n;
            if (compare(b, left[n - 1], right[0], &shared) <= 0) continue;
            memcpy(b->spare, left, n * sizeof *left);
            size_t i = 0, j = 0, k = 0;
            while (i < n && j < m)
                left[k++] =
                    compare(b, b->spare[i], right[j], &shared) <= 0 ? b->spare[i++] : right[j++];
            memcpy(left + k, b->spare + i, (n - i) * sizeof *left);
        }
}

/* ---- tree ------------------------------------------------------------------------------------ */

static size_t add_branch(builder *b, int64_t begin, int64_t end)
{
    b->branches[b->n_branches] = (branch){.begin = begin,
                                          .end = end,
                                          .child = CT_PLAN_NONE,
                                          .last = CT_PLAN_NONE,
                                          .next = CT_PLAN_NONE};
    return b->n_branches++;
}

static void add_child(builder *b, size_t parent, size_t child)
{
    branch *p = &b->branches[parent];
    if (p->child == CT_PLAN_NONE) p->child = child;
    else b->branches[p->last].next = child;
    p->last = child;
}

static size_t add_leaf(builder *b, size_t parent, int64_t begin, size_t first, size_t count)
{
    size_t leaf = add_branch(b, begin, b->given[b->order[first]].prefill);
    b->branches[leaf].first_item = first;
    b->branches[leaf].n_items = count;
    add_child(b, parent, leaf);
    return leaf;
}

/* Branch 0 is the root, the empty state. `path` has room for every branch: those from the root to
 * the last leaf, each the last child of the one before it. */
static void build_tree(builder *b, size_t *path)
{
    size_t depth = 1;
    path[0] = add_branch(b, 0, 0);
    for (size_t i = 0; i < b->n;) {
        int64_t shared = 0, prefill = b->given[b->order[i]].prefill;
        if (i > 0) compare(b, b->order[i - 1], b->order[i], &shared);
        shared = min_i64(shared, prefill) / BLOCK * BLOCK;
        size_t count = 1;
        for (int64_t all; prefill > 0 && i + count < b->n; count++)
            if (compare(b, b->order[i + count - 1], b->order[i + count], &all) != 0) break;

        while (b->branches[path[depth - 1]].begin >= shared && depth > 1) depth--;
        branch *top = &b->branches[path[depth - 1]];
        if (top->end > shared && depth > 1) { /* the new leaf parts from it on the way */
            size_t rest = add_branch(b, shared, top->end);
            branch *lower = &b->branches[rest];
            lower->child = top->child;
            lower->last = top->last;
            lower->first_item = top->first_item;
            lower->n_items = top->n_items;
            top->end = shared;
            top->child = top->last = rest;
            top->n_items = 0;
        } else if (top->n_items > 0) { /* items end where others go on: a child without rows */
            size_t first = top->first_item, n = top->n_items;
            top->n_items = 0;
            add_leaf(b, path[depth - 1], top->end, first, n);
        }
        size_t leaf = add_leaf(b, path[depth - 1], shared, i, count);
        path[depth++] = leaf;
        i += count;
    }
}

/* From the leaves up: how many states each branch holds, how far it leads; its trunk comes last. */
static void choose_trunks(builder *b, size_t *list)
{
    size_t n = 0;
    list[n++] = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t c = b->branches[list[i]].child; c != CT_PLAN_NONE; c = b->branches[c].next)
            list[n++] = c;
    while (n-- > 0) {
        branch *v = &b->branches[list[n]];
        v->far = v->end;
        v->states = 1;
        v->recording = 0;
        for (size_t i = v->first_item; i < v->first_item + v->n_items; i++)
            v->recording = max_i64(v->recording, b->given[b->order[i]].recording_bytes);
        if (v->child == CT_PLAN_NONE) continue;
        size_t trunk = CT_PLAN_NONE, before = CT_PLAN_NONE, side = 0;
        for (size_t c = v->child, previous = CT_PLAN_NONE; c != CT_PLAN_NONE;
             previous = c, c = b->branches[c].next) {
            const branch *w = &b->branches[c];
            v->far = max_i64(v->far, w->far);
            v->recording = max_i64(v->recording, w->recording);
            const branch *t = trunk == CT_PLAN_NONE ? NULL : &b->branches[trunk];
            if (t && (t->states > w->states || (t->states == w->states && t->far > w->far))) {
                side = w->states > side ? w->states : side;
            } else {
                side = t && t->states > side ? t->states : side;
                trunk = c;
                before = previous;
            }
        }
        v->states = b->branches[trunk].states;
        if (side + 1 > v->states && v->child != v->last) v->states = side + 1;
        if (trunk == v->last) continue;
        if (before == CT_PLAN_NONE) v->child = b->branches[trunk].next;
        else b->branches[before].next = b->branches[trunk].next;
        b->branches[v->last].next = trunk;
        b->branches[trunk].next = CT_PLAN_NONE;
        v->last = trunk;
    }
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Blocks that a state at the position sees beyond `held`, where another one stands. */
static int64_t blocks_beyond(const ct_plan_limits *limits, int64_t position, int64_t held_at)
{
    return blocks_of(position) - max_i64(ct_plan_first_block(limits, position), held_at / BLOCK);
}

/* Most blocks beyond `held_at` that a prefill up to `end` sees, in any step. */
static int64_t run_blocks(const ct_plan_limits *limits, int64_t end, int64_t held_at, bool whole)
{
    int64_t all = blocks_of(end) - held_at / BLOCK;
    if (whole || limits->window < 0) return all;
    return min_i64(all, blocks_of(limits->window) + limits->step_tokens / BLOCK);
}

/* Bytes that the prefill of an item and its decoding take beside a state at held_at; with a fork of
 * it if others still wait for its state. */
static int64_t item_bytes(const ct_plan_limits *limits, const ct_plan_item *item, int64_t held_at,
                          bool fork)
{
    int64_t run = run_blocks(limits, item->prefill, held_at, item->whole);
    int64_t row = blocks_beyond(limits, item->prefill, held_at) + ct_plan_row_blocks(limits, item);
    int64_t prefill = limits->sequence_bytes + run * limits->block_bytes;
    int64_t decode =
        (1 + fork + limits->begins_anew) * limits->sequence_bytes + row * limits->block_bytes;
    if (item->records_prefill) prefill += item->recording_bytes;
    return max_i64(prefill, decode + item->recording_bytes);
}

/* Whether the state at the end of branch v may be held above `top`: all held states take half of
 * the limit at most, so that rows have the other half, and whatever v leads to fits beside them. */
static bool can_hold(const builder *b, const held *top, const branch *v, int64_t *bytes)
{
    const ct_plan_limits *l = &b->limits;
    int64_t row = min_i64(blocks_of(v->far) - v->end / BLOCK,
                          l->window < 0 ? INT64_MAX : blocks_of(l->window) + 1) +
                  b->row_blocks;
    int64_t blocks = max_i64(run_blocks(l, v->far, v->end, false), row);
    *bytes =
        top->bytes + l->sequence_bytes + blocks_beyond(l, v->end, top->position) * l->block_bytes;
    return *bytes <= l->memory / 2 && *bytes + (2 + l->begins_anew) * l->sequence_bytes +
                                              blocks * l->block_bytes + v->recording <=
                                          l->memory;
}

static ct_status check_memory(const builder *b, ct_err *err)
{
    int64_t most = 0;
    size_t which = 0;
    for (size_t i = 0; i < b->n; i++) {
        int64_t bytes = item_bytes(&b->limits, &b->given[i], 0, false);
        if (bytes > most) which = i;
        most = max_i64(most, bytes);
    }
    if (most <= b->limits.memory) return CT_OK;
    return ct_fail(err, CT_ERR_LIMIT,
                   "memory: expected room for the state of one sequence of %" PRId64
                   " tokens%s, %" PRId64 " bytes, got %" PRId64 " (--memory sets it)",
                   b->given[which].tokens,
                   b->given[which].recording_bytes > 0 ? " and its recording" : "", most,
                   b->limits.memory);
}

/* ---- layout ---------------------------------------------------------------------------------- */

static void place_node(builder *b, size_t parent, bool in_place, const branch *v, size_t n_items)
{
    ct_plan *p = b->plan;
    ct_plan_node *node = &p->nodes[p->n_nodes++];
    *node = (ct_plan_node){.parent = parent,
                           .begin = parent == CT_PLAN_NONE ? 0 : p->nodes[parent].end,
                           .end = v->end,
                           .in_place = in_place,
                           .first_item = b->n_placed,
                           .n_items = n_items,
                           .first_block = p->n_blocks};
    p->n_blocks += (size_t)(blocks_of(node->end) - node->begin / BLOCK);
    p->tokens_planned += node->end - node->begin;
    if (parent != CT_PLAN_NONE) {
        p->nodes[parent].n_children++;
        p->n_forks += !in_place;
    }
    for (size_t i = 0; i < n_items; i++) {
        p->items[b->n_placed] = b->given[b->order[v->first_item + i]];
        p->tokens_plain += p->items[b->n_placed++].prefill;
    }
    if (n_items > 0) p->n_forks += n_items - 1;
}

/* Puts the children of v but its last before what is pending; returns the last. */
static size_t defer_sides(builder *b, held *top, const branch *v)
{
    size_t c = v->child;
    if (c == v->last) return c;
    while (b->branches[c].next != v->last) c = b->branches[c].next;
    b->branches[c].next = top->pending;
    top->pending = v->child;
    return v->last;
}

/* How many items of a leaf may decode from one prefill: one, where not even two sequences fit. */
static size_t items_together(builder *b, held *top, size_t leaf)
{
    branch *v = &b->branches[leaf];
    size_t n = v->n_items;
    bool fits = true;
    for (size_t i = 0; n > 1 && i < n; i++)
        fits &= top->bytes + item_bytes(&b->limits, &b->given[b->order[v->first_item + i]],
                                        top->position, true) <=
                b->limits.memory;
    if (fits) return n;
    size_t rest = add_branch(b, 0, v->end);
    b->branches[rest].first_item = v->first_item + 1;
    b->branches[rest].n_items = n - 1;
    b->branches[rest].far = v->end;
    b->branches[rest].next = top->pending;
    top->pending = rest;
    return 1;
}

static void lay_out(builder *b)
{
    b->stack[b->depth++] = (held){.node = CT_PLAN_NONE, .pending = b->branches[0].child};
    while (b->depth > 0) {
        held *from = &b->stack[b->depth - 1];
        size_t at = from->pending, parent = from->node;
        if (at == CT_PLAN_NONE) { /* the root's list is done, and with it all */
            b->depth--;
            continue;
        }
        from->pending = b->branches[at].next;
        bool in_place = parent != CT_PLAN_NONE && from->pending == CT_PLAN_NONE;
        if (in_place) b->depth--;
        held *top = &b->stack[b->depth - 1];
        int64_t bytes = 0;
        while (b->branches[at].child != CT_PLAN_NONE && !can_hold(b, top, &b->branches[at], &bytes))
            at = defer_sides(b, top, &b->branches[at]);
        bool leaf = b->branches[at].child == CT_PLAN_NONE;
        size_t n_items = leaf ? items_together(b, top, at) : 0;
        place_node(b, parent, in_place, &b->branches[at], n_items);
        if (!leaf)
            b->stack[b->depth++] = (held){.node = b->plan->n_nodes - 1,
                                          .position = b->branches[at].end,
                                          .pending = b->branches[at].child,
                                          .bytes = bytes};
    }
    /* Depth first: a node's items are its children's, which stand together. */
    for (size_t i = b->plan->n_nodes; i-- > 0;) {
        const ct_plan_node *node = &b->plan->nodes[i];
        if (node->parent != CT_PLAN_NONE) b->plan->nodes[node->parent].n_items += node->n_items;
    }
}

/* ---- batches and figures --------------------------------------------------------------------- */

static int64_t first_step(const ct_plan *p, const ct_plan_node *node)
{
    return min_i64(node->end - node->begin, p->limits.step_tokens);
}

/* Nodes one after another are prefilled together while their steps are small: a step reads all
 * weights. One that fills a step by itself takes smaller ones along, no second of its kind. */
static ct_status make_batches(ct_plan *p, ct_err *err)
{
    ct_schedule s;
    ct_status st = ct_schedule_init(&s, p, err);
    if (st != CT_OK) return st;
    int64_t step = p->limits.step_tokens;
    size_t together = p->limits.rows == 1 ? 1 : CT_PLAN_TOGETHER;
    for (size_t first = 0; first < p->n_nodes;) {
        size_t count = 1;
        int64_t tokens = first_step(p, &p->nodes[first]);
        CT_ASSERT(ct_schedule_fits(&s, first, 1, p->limits.memory));
        while (first + count < p->n_nodes && count < together) {
            const ct_plan_node *next = &p->nodes[first + count];
            int64_t more = first_step(p, next);
            if (next->parent != CT_PLAN_NONE && next->parent >= first) break;
            if (tokens + more > 2 * step || (tokens >= step && more >= step)) break;
            if (!ct_schedule_fits(&s, first, count + 1, p->limits.memory / 2)) break;
            tokens += more;
            count++;
        }
        p->batches[p->n_batches++] = (ct_plan_batch){first, count};
        ct_schedule_pass(&s, first, count);
        first += count;
    }
    ct_schedule_clear(&s);
    return CT_OK;
}

typedef struct counted_row {
    size_t node, item;
    int64_t steps;
} counted_row;

static size_t leave_done(ct_schedule *s, counted_row *rows, size_t n)
{
    for (size_t i = 0; i < n;) {
        if (rows[i].steps > 0) {
            i++;
            continue;
        }
        ct_schedule_leave(s, rows[i].node, rows[i].item);
        rows[i] = rows[--n];
    }
    return n;
}

/* Runs the schedule with every item taking all its steps. */
static ct_status count_steps(ct_plan *p, ct_err *err)
{
    ct_schedule s;
    counted_row *rows = malloc((p->limits.rows + 1) * sizeof *rows);
    ct_status st = ct_schedule_init(&s, p, err);
    if (!rows) st = ct_fail_memory(err, "plan", p->limits.rows * sizeof *rows);
    size_t n = 0;
    for (bool more = st == CT_OK; more;) {
        ct_schedule_task task = ct_schedule_next(&s);
        switch (task.what) {
        case CT_DO_PREFILL:
            break;
        case CT_DO_JOIN:
            rows[n++] = (counted_row){task.node, task.item, p->items[task.item].steps};
            if (rows[n - 1].steps > 0 && n > p->decode_rows) p->decode_rows = n;
            n = leave_done(&s, rows, n);
            break;
        case CT_DO_DECODE:
            p->decode_steps++;
            for (size_t i = 0; i < n; i++) rows[i].steps--;
            n = leave_done(&s, rows, n);
            break;
        case CT_DO_END:
            more = false;
        }
    }
    p->peak_bytes = s.peak_bytes;
    CT_ASSERT(s.bytes == 0 && s.peak_bytes <= p->limits.memory);
    ct_schedule_clear(&s);
    free(rows);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------- */

ct_status ct_plan_sort(ct_plan_item *items, size_t n, ct_plan_compare_fn order, void *user,
                       ct_err *err)
{
    ct_plan_item *given = malloc((n + 1) * sizeof *given);
    size_t *indices = malloc((2 * n + 1) * sizeof *indices);
    ct_status st = CT_OK;
    if (!given || !indices) {
        st = ct_fail_memory(err, "plan", n * sizeof *given);
        goto done;
    }
    memcpy(given, items, n * sizeof *given);
    builder b = {.compare = order,
                 .user = user,
                 .given = given,
                 .n = n,
                 .order = indices,
                 .spare = indices + n};
    for (size_t i = 0; i < n; i++) indices[i] = i;
    sort_items(&b);
    for (size_t i = 0; i < n; i++) items[i] = given[indices[i]];
done:
    free(given);
    free(indices);
    return st;
}

ct_status ct_plan_new(const ct_plan_item *items, size_t n, ct_plan_compare_fn order, void *user,
                      const ct_plan_limits *limits, ct_plan *out, ct_err *err)
{
    *out = (ct_plan){0};
    ct_plan plan = {.limits = *limits, .n_items = n};
    builder b = {
        .plan = &plan, .limits = *limits, .compare = order, .user = user, .given = items, .n = n};
    ct_status st = CT_OK;
    size_t most = 3 * n + 2; /* a leaf an item, a branch point between two, a leaf again if split */
    b.order = calloc(n + 1, sizeof *b.order);
    b.spare = calloc(most, sizeof *b.spare);
    b.branches = calloc(most, sizeof *b.branches);
    b.stack = calloc(most, sizeof *b.stack);
    plan.items = calloc(n + 1, sizeof *plan.items);
    plan.nodes = calloc(most, sizeof *plan.nodes);
    plan.batches = calloc(most, sizeof *plan.batches);
    if (!b.order || !b.spare || !b.branches || !b.stack || !plan.items || !plan.nodes ||
        !plan.batches) {
        st = ct_fail_memory(err, "plan", most * sizeof *b.branches);
        goto done;
    }
    CT_TRY(check_memory(&b, err));
    for (size_t i = 0; i < n; i++) {
        b.order[i] = i;
        b.row_blocks = max_i64(b.row_blocks, ct_plan_row_blocks(limits, &items[i]));
    }
    sort_items(&b);
    build_tree(&b, b.spare);
    choose_trunks(&b, b.spare);
    lay_out(&b);
    CT_TRY(make_batches(&plan, err));
    CT_TRY(count_steps(&plan, err));
    *out = plan;
    plan = (ct_plan){0};
done:
    free(b.order);
    free(b.spare);
    free(b.branches);
    free(b.stack);
    ct_plan_clear(&plan);
    return st;
}
