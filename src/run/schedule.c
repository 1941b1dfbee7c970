/* schedule.c - the order of the work of a plan, and the bytes of its states. See schedule.h. */
#include "run/schedule.h"

#include <stdlib.h>

#include "base/err.h"

enum { BLOCK = 64 };

static int64_t blocks_of(int64_t tokens)
{
    return (tokens + BLOCK - 1) / BLOCK;
}

int64_t ct_plan_first_block(const ct_plan_limits *limits, int64_t position)
{
    return limits->window < 0 || position <= limits->window ? 0
                                                            : (position - limits->window) / BLOCK;
}

int64_t ct_plan_row_blocks(const ct_plan_limits *limits, const ct_plan_item *item)
{
    return blocks_of(item->tokens) - (limits->begins_anew ? 0 : item->prefill / BLOCK);
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* Counts a state on the path of the node (sign 1) or no longer (-1), which stands at `from` and may
 * come to `to` before it is counted again. */
static void count_state(ct_schedule *s, size_t node, int64_t from, int64_t to, int sign)
{
    const ct_plan_limits *limits = &s->plan->limits;
    int64_t first = ct_plan_first_block(limits, from), end = blocks_of(to);
    s->bytes += sign * limits->sequence_bytes;
    for (; node != CT_PLAN_NONE; node = s->plan->nodes[node].parent) {
        const ct_plan_node *n = &s->plan->nodes[node];
        int64_t begin = n->begin / BLOCK;
        for (int64_t b = begin > first ? begin : first; b < end; b++) {
            uint32_t *users = &s->users[n->first_block + (size_t)(b - begin)];
            s->bytes += (sign > 0 ? *users == 0 : *users == 1) ? sign * limits->block_bytes : 0;
            *users += (uint32_t)sign;
        }
        if (begin < end) end = begin;
        if (end <= first) break;
    }
    if (s->bytes > s->peak_bytes) s->peak_bytes = s->bytes;
}

/* Bytes that the node's own prefill records into. */
static int64_t recorded_bytes(const ct_schedule *s, size_t node)
{
    const ct_plan_node *n = &s->plan->nodes[node];
    const ct_plan_item *leader = &s->plan->items[n->first_item + n->n_items - 1];
    return leader->records_prefill ? leader->recording_bytes : 0;
}

/* The state at the node's end. */
static void count_held(ct_schedule *s, size_t node, int sign)
{
    int64_t end = s->plan->nodes[node].end;
    s->bytes += sign * recorded_bytes(s, node);
    count_state(s, node, end, end, sign);
}

static void count_row(ct_schedule *s, size_t node, size_t item, int sign)
{
    const ct_plan_limits *limits = &s->plan->limits;
    int64_t own = ct_plan_row_blocks(limits, &s->plan->items[item]) * limits->block_bytes;
    if (limits->begins_anew) own += limits->sequence_bytes; /* the one before is still there */
    int64_t end = s->plan->nodes[node].end;
    s->bytes += sign * (own + s->plan->items[item].recording_bytes);
    count_state(s, node, end, end, sign);
}

static int64_t step_end(const ct_schedule *s, const ct_plan_node *node, int64_t at)
{
    const ct_plan_item *leader = &s->plan->items[node->first_item + node->n_items - 1];
    int64_t end = (at + s->plan->limits.step_tokens) / BLOCK * BLOCK;
    return leader->whole || end > node->end ? node->end : end;
}

/* Counts the nodes' prefills, step by step, up to their ends; returns the most that it came to. */
static int64_t count_batch(ct_schedule *s, size_t first, size_t count)
{
    const ct_plan_node *nodes = s->plan->nodes + first;
    int64_t at[CT_PLAN_TOGETHER],
        to[CT_PLAN_TOGETHER]; /* counted as standing at `at`, up to `to` */
    int64_t peak_before = s->peak_bytes, peak;
    s->peak_bytes = 0;
    for (size_t i = 0; i < count; i++) {
        at[i] = to[i] = nodes[i].begin;
        if (nodes[i].in_place) count_held(s, nodes[i].parent, -1);
        s->bytes += recorded_bytes(s, first + i);
        count_state(s, first + i, at[i], to[i], 1);
    }
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < count; i++)
            if (at[i] < nodes[i].end) count_state(s, first + i, at[i], to[i], -1);
        for (size_t i = 0; i < count; i++) {
            if (at[i] == nodes[i].end) continue;
            at[i] = to[i];
            to[i] = at[i] < nodes[i].end ? step_end(s, &nodes[i], at[i]) : at[i];
            count_state(s, first + i, at[i], to[i], 1);
            more |= at[i] < nodes[i].end;
        }
    }
    peak = s->peak_bytes;
    s->peak_bytes = peak_before > peak ? peak_before : peak;
    return peak;
}

/* As if count_batch had not been, but for peak_bytes. */
static void uncount_batch(ct_schedule *s, size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++) {
        if (s->plan->nodes[i].in_place) count_held(s, s->plan->nodes[i].parent, 1);
        count_held(s, i, -1);
    }
}

/* Counts one item of the node as a row; the last one takes the node's state over. */
static void count_join(ct_schedule *s, size_t node, size_t item, bool in_place, int sign)
{
    if (in_place) count_held(s, node, -sign);
    count_row(s, node, item, sign);
}

/* ---- planning -------------------------------------------------------------------------------- */

bool ct_schedule_fits(ct_schedule *s, size_t first, size_t count, int64_t bytes)
{
    int64_t peak_before = s->peak_bytes, memory = s->plan->limits.memory;
    bool fits = count_batch(s, first, count) <= bytes;
    size_t gone = first;
    for (; fits && gone < first + count; gone++) {
        const ct_plan_node *node = &s->plan->nodes[gone];
        if (node->n_children > 0) continue;
        for (size_t i = 0; fits && i < node->n_items; i++) {
            bool last = i + 1 == node->n_items;
            count_join(s, gone, node->first_item + i, last, 1);
            fits = s->bytes <= memory;
            count_join(s, gone, node->first_item + i, last, -1);
        }
        count_held(s, gone, -1);
    }
    while (gone-- > first)
        if (s->plan->nodes[gone].n_children == 0) count_held(s, gone, 1);
    uncount_batch(s, first, count);
    s->peak_bytes = peak_before;
    return fits;
}

void ct_schedule_pass(ct_schedule *s, size_t first, size_t count)
{
    count_batch(s, first, count);
    for (size_t i = first; i < first + count; i++)
        if (s->plan->nodes[i].n_children == 0) count_held(s, i, -1);
}

/* ---- running --------------------------------------------------------------------------------- */

ct_status ct_schedule_init(ct_schedule *s, const ct_plan *plan, ct_err *err)
{
    *s = (ct_schedule){.plan = plan};
    s->users = calloc(plan->n_blocks + 1, sizeof *s->users);
    return s->users ? CT_OK : ct_fail_memory(err, "plan", (plan->n_blocks + 1) * sizeof *s->users);
}

void ct_schedule_clear(ct_schedule *s)
{
    free(s->users);
    *s = (ct_schedule){0};
}

static size_t all_rows(const ct_schedule *s)
{
    return s->n_rows + (s->beside ? s->beside->n_rows : 0);
}

static bool fits(const ct_schedule *s, int64_t bytes)
{
    return bytes + (s->beside ? s->beside->bytes : 0) <= s->plan->limits.memory;
}

/* Goes on to the next open node with an item that has not joined; whether there is one. */
static bool find_item(ct_schedule *s)
{
    const ct_plan_node *nodes = s->plan->nodes;
    while (s->node < s->open_end &&
           (nodes[s->node].n_children > 0 || s->joined == nodes[s->node].n_items)) {
        s->node++;
        s->joined = 0;
    }
    return s->node < s->open_end;
}

bool ct_schedule_all_begun(ct_schedule *s)
{
    return !find_item(s) && s->next_batch == s->plan->n_batches;
}

/* The next item of the nodes that are open, if there is one and it fits. */
static bool next_join(ct_schedule *s, ct_schedule_task *task)
{
    const ct_plan_node *nodes = s->plan->nodes;
    if (!find_item(s)) return false;
    const ct_plan_node *node = &nodes[s->node];
    *task = (ct_schedule_task){.what = CT_DO_JOIN,
                               .node = s->node,
                               .item = node->first_item + s->joined,
                               .in_place = s->joined + 1 == node->n_items};
    int64_t peak_before = s->peak_bytes;
    count_join(s, task->node, task->item, task->in_place, 1);
    if (!fits(s, s->bytes) && all_rows(s) > 0) {
        count_join(s, task->node, task->item, task->in_place, -1);
        s->peak_bytes = peak_before;
        *task = (ct_schedule_task){.what = CT_DO_DECODE};
        return true;
    }
    s->joined++;
    s->n_rows++;
    return true;
}

/* The next batch, if it fits. */
static bool next_prefill(ct_schedule *s, ct_schedule_task *task)
{
    const ct_plan_batch *batch = &s->plan->batches[s->next_batch];
    int64_t peak_before = s->peak_bytes;
    if (!fits(s, count_batch(s, batch->first, batch->count)) && all_rows(s) > 0) {
        uncount_batch(s, batch->first, batch->count);
        s->peak_bytes = peak_before;
        return false;
    }
    *task = (ct_schedule_task){.what = CT_DO_PREFILL, .batch = s->next_batch++};
    s->node = batch->first;
    s->open_end = batch->first + batch->count;
    s->joined = 0;
    return true;
}

ct_schedule_task ct_schedule_next(ct_schedule *s)
{
    ct_schedule_task task = {.what = all_rows(s) > 0 ? CT_DO_DECODE : CT_DO_END};
    if (all_rows(s) == s->plan->limits.rows) return task;
    if (next_join(s, &task)) return task;
    if (s->next_batch < s->plan->n_batches) next_prefill(s, &task);
    return task;
}

void ct_schedule_leave(ct_schedule *s, size_t node, size_t item)
{
    count_row(s, node, item, -1);
    s->n_rows--;
}
