/* test_plan.c - the prefix tree of prefills and its schedule, run on a model that only remembers.
 *
 * An item's prefill is a list of symbols, one a row: its id and what is done to it. A state is the
 * list of symbols that it has seen, and blocks of 64 positions, shared and copied on write as the
 * engine's are. So a run of a plan shows that every item decodes from its own prefill, what is
 * computed, and what the states take at every moment, counted anew here.
 */
#include "test.h"

#include <time.h>

#include "base/rng.h"
#include "run/schedule.h"

enum { MAX_ITEMS = 400, MAX_TOKENS = 1600, BLOCK = 64, MAX_BLOCKS = MAX_TOKENS / BLOCK + 2 };

/* ---- items ----------------------------------------------------------------------------------- */

typedef struct world {
    int32_t symbols[MAX_ITEMS][MAX_TOKENS];
    ct_plan_item items[MAX_ITEMS];
    bool gives_token[MAX_ITEMS];
    size_t n;
    int64_t comparisons;
} world;

static world w;

/* The end of a prefill that gives a token is a symbol of its own. */
static int32_t symbol(uint32_t cell, int64_t at)
{
    bool last = at + 1 == w.items[cell].prefill && w.gives_token[cell];
    return w.symbols[cell][at] + (last ? 1 << 24 : 0);
}

static int compare(void *user, const ct_plan_item *a, const ct_plan_item *b, int64_t *shared)
{
    (void)user;
    w.comparisons++;
    int64_t n = a->prefill < b->prefill ? a->prefill : b->prefill;
    for (*shared = 0; *shared < n; ++*shared) {
        int32_t x = symbol(a->cell, *shared), y = symbol(b->cell, *shared);
        if (x == y) continue;
        int order = x < y ? -1 : 1;
        if (a->whole || b->whole) *shared = 0;
        return order;
    }
    if ((a->whole || b->whole) && a->prefill != b->prefill) *shared = 0;
    return (a->prefill > b->prefill) - (a->prefill < b->prefill);
}

static uint32_t add_item(int64_t prefill, int64_t new_tokens, bool gives_token)
{
    assert_true(w.n < MAX_ITEMS && prefill <= MAX_TOKENS);
    uint32_t cell = (uint32_t)w.n++;
    w.gives_token[cell] = gives_token;
    w.items[cell] = (ct_plan_item){.cell = cell,
                                   .prefill = prefill,
                                   .tokens = prefill + !gives_token + new_tokens,
                                   .steps = new_tokens - gives_token};
    return cell;
}

static void clear_items(void)
{
    w.n = 0;
    w.comparisons = 0;
}

/* Needles in a haystack: `version` changes all symbols from `from` on. */
static void add_niah(int64_t length, int64_t cut, int32_t version, int64_t from)
{
    uint32_t cell = add_item(length, 9, true);
    for (int64_t i = 0, hay = 0; i < length; i++) {
        bool needle = i >= cut && i < cut + 20;
        int32_t s = needle ? 500000 + (int32_t)(i - cut) : (int32_t)(hay * 7919 % 100000);
        hay += !needle;
        w.symbols[cell][i] = s + (i >= from ? version * 1000000 : 0);
    }
}

static const int64_t sizes[] = {0, 1, 7, 63, 64, 65, 127, 128, 129, 191, 192, 200, 640, 700, 1300};
enum { SIZES = sizeof sizes / sizeof *sizes };

static uint64_t random_below(uint64_t seed, uint64_t *at, uint64_t n)
{
    return ct_rng_u64(seed, 1, (*at)++) % n;
}

/* Prompts that part from one another anywhere, some equal, some the beginning of others. */
static void random_items(uint64_t seed, size_t n, bool wholes)
{
    uint64_t at = 0;
    clear_items();
    for (size_t i = 0; i < n; i++) {
        int64_t prefill = sizes[random_below(seed, &at, SIZES)];
        uint32_t cell = add_item(prefill, 1 + (int64_t)random_below(seed, &at, 70),
                                 prefill > 0 && random_below(seed, &at, 3) > 0);
        w.items[cell].whole = wholes && random_below(seed, &at, 8) == 0;
        uint32_t like = (uint32_t)random_below(seed, &at, i + 1);
        int64_t same = sizes[random_below(seed, &at, SIZES)];
        if (random_below(seed, &at, 3) == 0) same = MAX_TOKENS;
        for (int64_t t = 0; t < prefill; t++)
            w.symbols[cell][t] = like != cell && t < same && t < w.items[like].prefill
                                     ? w.symbols[like][t]
                                     : (int32_t)random_below(seed, &at, 1 << 20);
        if (i % 3 == 0) w.items[cell].recording_bytes = (int64_t)random_below(seed, &at, 9000);
        w.items[cell].records_prefill = i % 6 == 0 && prefill > 0; /* and shares none of it */
        if (w.symbols[cell][0] < 0) w.symbols[cell][0] = 7;        /* copied from one that does */
        if (w.items[cell].records_prefill) w.symbols[cell][0] = -1 - (int32_t)cell;
        if (w.items[cell].whole)
            for (int64_t t = 0; t < prefill; t++) w.symbols[cell][t] |= 1 << 21;
    }
}

static ct_plan_limits limits_of(int64_t memory, int64_t window)
{
    return (ct_plan_limits){.memory = memory,
                            .sequence_bytes = 1000,
                            .block_bytes = 300,
                            .window = window,
                            .step_tokens = 512,
                            .rows = 7};
}

/* ---- a model that remembers ------------------------------------------------------------------ */

typedef struct memory_state {
    bool live;
    int64_t position, first_block, recording;
    int32_t seen[MAX_TOKENS]; /* of the prefill */
    int64_t blocks[MAX_BLOCKS];
} memory_state;

enum { MAX_STATES = 3 * MAX_ITEMS };
typedef struct machine {
    const ct_plan *plan;
    memory_state *states; /* by node, then by row */
    int64_t next_block, tokens, peak;
    size_t joined[MAX_ITEMS];
} machine;

/* Bytes of all states, every block once. */
static void recount(machine *m)
{
    static int64_t seen[MAX_STATES * MAX_BLOCKS];
    const ct_plan_limits *l = &m->plan->limits;
    size_t n = 0;
    int64_t bytes = 0;
    static bool *known;
    static int64_t known_size;
    if (known_size < m->next_block + 1) {
        known_size = 2 * m->next_block + 1024;
        free(known);
        known = calloc((size_t)known_size, 1);
        assert_non_null(known);
    }
    for (size_t i = 0; i < MAX_STATES; i++) {
        const memory_state *s = &m->states[i];
        if (!s->live) continue;
        bytes += l->sequence_bytes + s->recording;
        for (int64_t b = s->first_block; b < (s->position + BLOCK - 1) / BLOCK; b++)
            if (!known[s->blocks[b]]) {
                known[s->blocks[b]] = true;
                seen[n++] = s->blocks[b];
                bytes += l->block_bytes;
            }
    }
    for (size_t i = 0; i < n; i++) known[seen[i]] = false;
    if (bytes > m->peak) m->peak = bytes;
    assert_true(bytes <= l->memory);
}

static bool is_shared(const machine *m, const memory_state *s, int64_t block)
{
    for (size_t i = 0; i < MAX_STATES; i++) {
        const memory_state *o = &m->states[i];
        if (o == s || !o->live || block < o->first_block) continue;
        if (block < (o->position + BLOCK - 1) / BLOCK && o->blocks[block] == s->blocks[block])
            return true;
    }
    return false;
}

/* Room for tokens up to `end`: a shared block that is begun is copied, others are new. */
static void reserve(machine *m, memory_state *s, int64_t end)
{
    int64_t begun = s->position / BLOCK;
    if (s->position % BLOCK && is_shared(m, s, begun)) s->blocks[begun] = m->next_block++;
    for (int64_t b = (s->position + BLOCK - 1) / BLOCK; b < (end + BLOCK - 1) / BLOCK; b++)
        s->blocks[b] = m->next_block++;
    s->position = end;
}

static void drop_unseen(const machine *m, memory_state *s)
{
    int64_t window = m->plan->limits.window;
    if (window >= 0 && s->position > window) s->first_block = (s->position - window) / BLOCK;
}

static const ct_plan_item *leader_of(const ct_plan *plan, const ct_plan_node *node)
{
    return &plan->items[node->first_item + node->n_items - 1];
}

static void prefill(machine *m, const ct_plan_batch *batch)
{
    const ct_plan *plan = m->plan;
    const ct_plan_node *nodes = plan->nodes;
    for (size_t i = batch->first; i < batch->first + batch->count; i++) {
        memory_state *s = &m->states[i], *parent = NULL;
        assert_false(s->live);
        if (nodes[i].parent != CT_PLAN_NONE) {
            parent = &m->states[nodes[i].parent];
            assert_true(parent->live);
            *s = *parent;
            if (nodes[i].in_place) parent->live = false;
        } else {
            *s = (memory_state){.live = true};
        }
        const ct_plan_item *leader = leader_of(plan, &nodes[i]);
        if (leader->records_prefill) {
            s->recording = leader->recording_bytes;
            assert_true(nodes[i].parent == CT_PLAN_NONE && nodes[i].n_items == 1);
        }
        assert_int_equal(s->position, nodes[i].begin);
        assert_true(s->position % BLOCK == 0);
    }
    for (bool more = true; more;) {
        more = false;
        for (size_t i = batch->first; i < batch->first + batch->count; i++) {
            memory_state *s = &m->states[i];
            const ct_plan_item *leader = leader_of(plan, &nodes[i]);
            if (s->position == nodes[i].end) continue;
            int64_t end = s->position + 512 < nodes[i].end ? s->position + 512 : nodes[i].end;
            if (leader->whole) end = nodes[i].end;
            for (int64_t t = s->position; t < end; t++) s->seen[t] = symbol(leader->cell, t);
            m->tokens += end - s->position;
            reserve(m, s, end);
            more = true;
        }
        recount(m); /* all have taken their blocks, none has dropped any */
        for (size_t i = batch->first; i < batch->first + batch->count; i++)
            drop_unseen(m, &m->states[i]);
    }
}

typedef struct row {
    size_t node, item, state;
    int64_t left;
} row;

/* Runs the plan; with `early`, rows end after a random part of their steps. Checks on the way. */
static void run_plan(const ct_plan *plan, uint64_t early)
{
    ct_err err = {0};
    static memory_state states[MAX_STATES];
    static machine m;
    row rows[64];
    size_t n = 0;
    uint64_t at = 0;
    int64_t steps = 0;
    ct_schedule s;
    memset(states, 0, sizeof states);
    m = (machine){.plan = plan, .states = states};
    assert_true(plan->n_nodes + plan->limits.rows <= MAX_STATES);
    assert_ok(ct_schedule_init(&s, plan, &err));
    for (;;) {
        ct_schedule_task task = ct_schedule_next(&s);
        if (task.what == CT_DO_END) break;
        if (task.what == CT_DO_PREFILL) prefill(&m, &plan->batches[task.batch]);
        if (task.what == CT_DO_JOIN) {
            const ct_plan_item *item = &plan->items[task.item];
            size_t place = plan->n_nodes;
            while (states[place].live) place++;
            assert_true(place < plan->n_nodes + plan->limits.rows);
            memory_state *from = &states[task.node], *to = &states[place];
            assert_true(from->live);
            *to = *from;
            if (task.in_place) from->live = false;
            to->recording = item->recording_bytes;
            assert_int_equal(to->position, item->prefill);
            for (int64_t t = 0; t < item->prefill; t++)
                if (to->seen[t] != symbol(item->cell, t))
                    fail_msg("cell %u: row %d is another's", item->cell, (int)t);
            m.joined[item->cell]++;
            int64_t left =
                early ? (int64_t)random_below(early, &at, (uint64_t)item->steps + 1) : item->steps;
            rows[n++] = (row){task.node, task.item, place, left};
        }
        if (task.what == CT_DO_DECODE) {
            steps++;
            for (size_t i = 0; i < n; i++) {
                memory_state *state = &states[rows[i].state];
                int64_t end = state->position + 1;
                if (plan->limits.begins_anew) state->position = state->first_block = 0;
                reserve(&m, state, end);
                rows[i].left--;
            }
        }
        recount(&m);
        assert_true(m.peak <= s.peak_bytes);
        for (size_t i = 0; i < n;) {
            memory_state *state = &states[rows[i].state];
            drop_unseen(&m, state);
            if (rows[i].left > 0) {
                i++;
                continue;
            }
            state->live = false;
            ct_schedule_leave(&s, rows[i].node, rows[i].item);
            rows[i] = rows[--n];
        }
    }
    assert_int_equal(n, 0);
    assert_int_equal(s.bytes, 0);
    for (size_t i = 0; i < MAX_STATES; i++) assert_false(states[i].live);
    for (size_t i = 0; i < plan->n_items; i++) assert_int_equal(m.joined[i], 1);
    assert_int_equal(m.tokens, plan->tokens_planned);
    if (!early) {
        assert_int_equal(steps, plan->decode_steps);
        assert_true(m.peak <= plan->peak_bytes);
    }
    ct_schedule_clear(&s);
}

static void plan_items(const ct_plan_limits *limits, ct_plan *plan)
{
    ct_err err = {0};
    assert_ok(ct_plan_new(w.items, w.n, compare, NULL, limits, plan, &err));
    int64_t plain = 0;
    for (size_t i = 0; i < w.n; i++) plain += w.items[i].prefill;
    assert_int_equal(plan->tokens_plain, plain);
    assert_true(plan->tokens_planned <= plain);
    assert_true(plan->peak_bytes <= limits->memory);
    assert_true(plan->n_forks <= plan->n_items + plan->n_nodes);
    size_t covered = 0;
    for (size_t i = 0; i < plan->n_batches; i++) {
        assert_int_equal(plan->batches[i].first, covered);
        covered += plan->batches[i].count;
        if (limits->rows == 1) assert_int_equal(plan->batches[i].count, 1);
    }
    assert_int_equal(covered, plan->n_nodes);
    covered = 0;
    for (size_t i = 0; i < plan->n_nodes; i++)
        if (plan->nodes[i].n_children == 0) {
            assert_int_equal(plan->nodes[i].first_item, covered);
            covered += plan->nodes[i].n_items;
        }
    assert_int_equal(covered, w.n);
}

/* The least memory that gives a plan, from the error of one that does not. */
static int64_t least_memory(int64_t window, bool begins_anew)
{
    ct_err err = {0};
    ct_plan plan;
    ct_plan_limits limits = limits_of(1, window);
    limits.begins_anew = begins_anew;
    assert_int_equal(ct_plan_new(w.items, w.n, compare, NULL, &limits, &plan, &err), CT_ERR_LIMIT);
    const char *at = strstr(err.text, " bytes, got");
    assert_non_null(at);
    while (at[-1] != ' ') at--;
    return strtoll(at, NULL, 10);
}

/* ---- tests ----------------------------------------------------------------------------------- */

static void the_haystack_is_prefilled_once_and_each_needle_from_its_place_on(void **state)
{
    (void)state;
    clear_items();
    add_niah(1000, 300, 0, 0); /* parts from the next at 300: at 256 */
    add_niah(1000, 700, 0, 0);
    add_niah(1000, 300, 0, 0);  /* the same as the first */
    add_niah(1000, 1000, 0, 0); /* no needle: parts at 700, at 640 */
    ct_plan plan;
    ct_plan_limits limits = limits_of(1 << 20, -1);
    plan_items(&limits, &plan);
    assert_int_equal(plan.tokens_plain, 4000);
    assert_int_equal(plan.tokens_planned, 1000 + (1000 - 256) + (1000 - 640));
    assert_int_equal(plan.n_nodes, 5);
    assert_int_equal(plan.n_forks, 2 + 1);
    assert_int_equal(plan.nodes[0].end, 256);
    assert_false(plan.nodes[1].in_place); /* the side branch comes first */
    assert_int_equal(plan.nodes[1].n_items, 2);
    assert_true(plan.nodes[2].in_place);
    assert_int_equal(plan.nodes[2].end, 640);
    /* The side of 744 rows fills a step, and takes the trunk's 384 along. */
    assert_int_equal(plan.n_batches, 3);
    assert_int_equal(plan.batches[1].count, 2);
    run_plan(&plan, 0);
    ct_plan_clear(&plan);
}

static void versions_share_what_comes_before_they_act(void **state)
{
    (void)state;
    clear_items();
    for (int32_t v = 0; v < 5; v++) add_niah(900, 400, v, 400); /* parts at 400: at 384 */
    for (int32_t v = 5; v < 8; v++) add_niah(900, 400, v, 0);   /* shares nothing */
    ct_plan plan;
    ct_plan_limits limits = limits_of(1 << 20, 100);
    plan_items(&limits, &plan);
    assert_int_equal(plan.tokens_planned, 384 + 5 * (900 - 384) + 3 * 900);
    run_plan(&plan, 0);
    ct_plan_clear(&plan);
}

static void prompts_of_odd_sizes_run_under_any_limit_and_in_any_order_of_ends(void **state)
{
    (void)state;
    static const int64_t windows[] = {-1, 16, 100, 640};
    int64_t recomputed = 0;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        random_items(seed, 1 + seed * 5 % 67, seed % 3 == 0);
        bool anew = seed % 5 == 0;
        int64_t window = windows[seed % 4], least = least_memory(window, anew), ample = 0;
        for (int level = 0; level < 7; level++) {
            static const int64_t tenths[] = {1000000, 100, 40, 25, 17, 12, 10};
            ct_plan plan;
            ct_plan_limits limits = limits_of(least * tenths[level] / 10, window);
            if (level % 2) limits.rows = 1 + seed % 9;
            limits.begins_anew = anew;
            plan_items(&limits, &plan);
            if (level == 0) ample = plan.tokens_planned;
            assert_true(plan.tokens_planned >= ample);
            recomputed += plan.tokens_planned - ample;
            run_plan(&plan, 0);
            run_plan(&plan, seed);
            ct_plan_clear(&plan);
        }
        ct_err err = {0};
        ct_plan plan;
        ct_plan_limits limits = limits_of(least - 1, window);
        limits.begins_anew = anew;
        assert_fails(ct_plan_new(w.items, w.n, compare, NULL, &limits, &plan, &err), CT_ERR_LIMIT,
                     "expected room for the state of one sequence");
    }
    assert_true(recomputed > 0);
}

static void with_little_memory_prefixes_are_computed_again_instead_of_held(void **state)
{
    (void)state;
    clear_items();
    for (int64_t cut = 100; cut < 1500; cut += 100) add_niah(1500, cut, 0, 0);
    ct_plan ample, tight;
    ct_plan_limits limits = limits_of(1 << 20, -1);
    plan_items(&limits, &ample);
    limits.memory = least_memory(-1, false);
    plan_items(&limits, &tight);
    assert_true(ample.tokens_planned < 14 * 1500 * 6 / 10);
    assert_int_equal(tight.tokens_planned, 14 * 1500); /* a plain loop */
    assert_int_equal(tight.n_nodes, 14);
    int64_t last = tight.tokens_planned;
    for (int64_t memory = limits.memory; memory < 4 * limits.memory; memory += 500) {
        ct_plan plan;
        ct_plan_limits more = limits;
        more.memory = memory;
        plan_items(&more, &plan);
        last = plan.tokens_planned;
        ct_plan_clear(&plan);
    }
    assert_int_equal(last, ample.tokens_planned);
    run_plan(&tight, 0);
    ct_plan_clear(&ample);
    ct_plan_clear(&tight);
}

static void short_prompts_are_prefilled_together(void **state)
{
    (void)state;
    clear_items();
    for (int i = 0; i < 40; i++) {
        uint32_t cell = add_item(60, 3, true);
        for (int64_t t = 0; t < 60; t++) w.symbols[cell][t] = i;
    }
    ct_plan plan;
    ct_plan_limits limits = limits_of(1 << 20, -1);
    plan_items(&limits, &plan);
    assert_int_equal(plan.n_nodes, 40);
    assert_int_equal(plan.n_batches, 3); /* of 16 at most */
    run_plan(&plan, 0);
    ct_plan_clear(&plan);
}

static void cells_that_begin_anew_each_step_need_their_own_room(void **state)
{
    (void)state;
    clear_items();
    for (int32_t v = 0; v < 5; v++) add_niah(130, 40, 0, 0);
    ct_plan plan;
    ct_plan_limits limits = limits_of(1 << 20, -1);
    limits.begins_anew = true;
    plan_items(&limits, &plan);
    /* 5 rows: each its own 3 blocks, and a sequence before it; the prompt's 3 blocks. */
    assert_int_equal(plan.peak_bytes, 5 * (2 * 1000 + 3 * 300) + 3 * 300);
    ct_plan_clear(&plan);
}

static void recordings_count_while_their_cells_decode(void **state)
{
    (void)state;
    ct_plan plan;
    ct_plan_limits limits = limits_of(1 << 20, -1);
    clear_items();
    for (int32_t v = 0; v < 5; v++) add_niah(130, 40, 0, 0);
    plan_items(&limits, &plan);
    int64_t plain = plan.peak_bytes;
    ct_plan_clear(&plan);
    for (uint32_t i = 0; i < 5; i++) w.items[i].recording_bytes = 5000;
    plan_items(&limits, &plan);
    assert_int_equal(plan.peak_bytes, plain + 5 * 5000);
    assert_int_equal(plan.decode_rows, 5);
    ct_plan_clear(&plan);
    limits.memory = plain + 2 * 5000; /* two at a time, and a third's does not fit */
    plan_items(&limits, &plan);
    assert_int_equal(plan.decode_rows, 2);
    run_plan(&plan, 0);
    ct_plan_clear(&plan);
    /* A recorded prefill has its recording from its first row on. */
    clear_items();
    add_niah(130, 40, 0, 0);
    w.items[0].recording_bytes = 5000;
    w.items[0].records_prefill = true;
    plan_items(&limits, &plan);
    assert_int_equal(plan.peak_bytes, 1000 + (3 + 1) * 300 + 5000); /* and what it decodes into */
    ct_plan_clear(&plan);
    assert_true(least_memory(-1, false) >= 5000);
}

static void no_items_give_an_empty_plan(void **state)
{
    (void)state;
    clear_items();
    ct_plan plan;
    ct_plan_limits limits = limits_of(1, -1);
    plan_items(&limits, &plan);
    assert_int_equal(plan.n_nodes + plan.n_batches, 0);
    assert_int_equal(plan.decode_steps, 0);
    assert_int_equal(w.comparisons, 0);
    run_plan(&plan, 0);
    ct_plan_clear(&plan);
}

/* 100 prompts x 100 versions: as cells come from a grid, of which many prefill alike. */
static int compare_grid(void *user, const ct_plan_item *a, const ct_plan_item *b, int64_t *shared)
{
    int64_t(*cut)[2] = user, x = a->cell / 100, y = b->cell / 100;
    int64_t u = a->cell % 100 / 10, v = b->cell % 100 / 10; /* ten of a hundred differ */
    ++cut[100][0];
    *shared = 0;
    if (u != v) return u < v ? -1 : 1;
    *shared = a->prefill;
    if (x == y) return 0;
    *shared = cut[x][1] < cut[y][1] ? cut[x][1] : cut[y][1];
    if (cut[x][1] != cut[y][1]) return cut[x][1] < cut[y][1] ? -1 : 1;
    return x < y ? -1 : 1;
}

static void ten_thousand_cells_are_planned_with_few_comparisons(void **state)
{
    (void)state;
    ct_err err = {0};
    static ct_plan_item items[10000];
    int64_t cut[101][2] = {{0}};
    for (uint32_t i = 0; i < 10000; i++) {
        int64_t length = 250 + i / 1000 * 427, depth = i / 100 % 10;
        cut[i / 100][1] = length * depth / 10 + 1;
        items[i] = (ct_plan_item){.cell = i, .prefill = length, .tokens = length + 40, .steps = 39};
    }
    ct_plan plan;
    ct_plan_limits limits = limits_of(1 << 30, 2048);
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    assert_ok(ct_plan_new(items, 10000, compare_grid, cut, &limits, &plan, &err));
    clock_gettime(CLOCK_MONOTONIC, &end);
    print_message(
        "10,000 cells: %.1f ms, %d comparisons, %zu nodes, %.1f times fewer tokens\n",
        (double)(end.tv_sec - begin.tv_sec) * 1e3 + (double)(end.tv_nsec - begin.tv_nsec) / 1e6,
        (int)cut[100][0], plan.n_nodes, (double)plan.tokens_plain / (double)plan.tokens_planned);
    /* A sort takes n log n = 133,000, neighbours 20,000; of all pairs there are 50,000,000. */
    assert_true(cut[100][0] < 153000);
    assert_true(plan.tokens_planned * 10 < plan.tokens_plain);
    assert_int_equal(plan.n_items, 10000);
    ct_plan_clear(&plan);
}

/* Plans of stretches one after another as a lane runs them: the next begins when the last has nothing left
 * to begin, and rows of two at most are there. */
static void stretches_overlap_within_the_limits_of_one(void **state)
{
    (void)state;
    enum { STRETCHES = 4 };
    ct_err err = {0};
    size_t overlapped = 0;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        random_items(seed, 20 + seed * 5 % 67, seed % 3 == 0);
        int64_t window = seed % 2 ? -1 : 100, least = least_memory(window, false);
        ct_plan_limits limits = limits_of(seed % 4 < 2 ? least : 5 * least, window);
        assert_ok(ct_plan_sort(w.items, w.n, compare, NULL, &err));
        ct_plan plans[STRETCHES];
        ct_schedule schedules[STRETCHES];
        for (size_t i = 0; i < STRETCHES; i++) {
            size_t first = w.n * i / STRETCHES, end = w.n * (i + 1) / STRETCHES;
            assert_ok(
                ct_plan_new(w.items + first, end - first, compare, NULL, &limits, &plans[i], &err));
            assert_ok(ct_schedule_init(&schedules[i], &plans[i], &err));
        }
        struct {
            row row;
            size_t of;
        } rows[64];
        size_t n = 0, now = 0, joined = 0;
        uint64_t at = 0;
        for (;;) {
            if (ct_schedule_all_begun(&schedules[now]) && now + 1 < STRETCHES &&
                (now == 0 || schedules[now - 1].n_rows == 0)) {
                overlapped += schedules[now].n_rows > 0;
                schedules[now + 1].beside = &schedules[now];
                now++;
            }
            ct_schedule_task task = ct_schedule_next(&schedules[now]);
            if (task.what == CT_DO_END) break;
            if (task.what == CT_DO_JOIN) {
                assert_true(n < limits.rows);
                int64_t steps = plans[now].items[task.item].steps;
                rows[n].of = now;
                rows[n++].row = (row){task.node, task.item, 0,
                                      (int64_t)random_below(seed, &at, (uint64_t)steps + 1)};
                joined++;
            }
            int64_t bytes = 0;
            for (size_t i = 0; i < STRETCHES; i++) bytes += schedules[i].bytes;
            assert_true(bytes <= limits.memory);
            for (size_t i = 0; i < n;) {
                rows[i].row.left -= task.what == CT_DO_DECODE;
                if (rows[i].row.left > 0) {
                    i++;
                    continue;
                }
                ct_schedule_leave(&schedules[rows[i].of], rows[i].row.node, rows[i].row.item);
                rows[i] = rows[--n];
            }
        }
        assert_int_equal(n, 0);
        assert_int_equal(now, STRETCHES - 1);
        assert_int_equal(joined, w.n);
        for (size_t i = 0; i < STRETCHES; i++) {
            assert_int_equal(schedules[i].bytes, 0);
            ct_schedule_clear(&schedules[i]);
            ct_plan_clear(&plans[i]);
        }
    }
    assert_true(overlapped > 24);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_haystack_is_prefilled_once_and_each_needle_from_its_place_on),
        cmocka_unit_test(versions_share_what_comes_before_they_act),
        cmocka_unit_test(prompts_of_odd_sizes_run_under_any_limit_and_in_any_order_of_ends),
        cmocka_unit_test(with_little_memory_prefixes_are_computed_again_instead_of_held),
        cmocka_unit_test(short_prompts_are_prefilled_together),
        cmocka_unit_test(cells_that_begin_anew_each_step_need_their_own_room),
        cmocka_unit_test(recordings_count_while_their_cells_decode),
        cmocka_unit_test(no_items_give_an_empty_plan),
        cmocka_unit_test(ten_thousand_cells_are_planned_with_few_comparisons),
        cmocka_unit_test(stretches_overlap_within_the_limits_of_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
