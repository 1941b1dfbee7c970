/* test_stretch.c - where cells are cut into stretches, against every other way to cut them. */
#include "test.h"

#include "base/rng.h"
#include "run/stretch.h"

enum { MAX_ITEMS = 2400, BLOCK = 64, ROW = 5 };

/* Needles in one haystack: prompts share rows up to the first of their needles, and versions none. */
typedef struct prompt {
    int64_t version, cut;
} prompt;

static prompt prompts[MAX_ITEMS];
static ct_plan_item items[MAX_ITEMS];
static size_t n_items;

static int compare(void *user, const ct_plan_item *a, const ct_plan_item *b, int64_t *shared)
{
    (void)user;
    const prompt *x = &prompts[a->cell], *y = &prompts[b->cell];
    int64_t shorter = a->prefill < b->prefill ? a->prefill : b->prefill;
    *shared = 0;
    if (x->version != y->version) return x->version < y->version ? -1 : 1;
    *shared = x->cut < y->cut ? x->cut : y->cut;
    if (x->cut == y->cut || *shared > shorter) *shared = shorter;
    if (x->cut != y->cut) return x->cut > y->cut ? -1 : 1;
    return (a->prefill > b->prefill) - (a->prefill < b->prefill);
}

/* `cells` items of one prefill. */
static void add(int64_t version, int64_t length, int64_t cut, int64_t steps, size_t cells)
{
    for (; cells-- > 0; n_items++) {
        assert_true(n_items < MAX_ITEMS);
        prompts[n_items] = (prompt){version, cut};
        items[n_items] = (ct_plan_item){
            .cell = (uint32_t)n_items, .prefill = length, .tokens = length + steps, .steps = steps};
    }
}

static void sort_all(void)
{
    ct_err err = {0};
    assert_ok(ct_plan_sort(items, n_items, compare, NULL, &err));
    for (size_t i = 1; i < n_items; i++) {
        int64_t shared;
        assert_true(compare(NULL, &items[i - 1], &items[i], &shared) <= 0);
    }
}

/* What a stretch costs, counted item by item. */
static int64_t cost_of(size_t first, size_t end, bool begins_anew)
{
    int64_t cost = 0;
    for (size_t i = first; i < end; i++) {
        int64_t shared = 0;
        int order = i > first ? compare(NULL, &items[i - 1], &items[i], &shared) : -1;
        cost += i > first && order == 0 ? 0 : items[i].prefill - shared / BLOCK * BLOCK;
        cost += items[i].steps * (begins_anew ? items[i].tokens : ROW);
    }
    return cost;
}

/* Cuts, checks that every item is there once and the costs are right, and returns the largest of cost
 * divided by share. */
static double cut(const double *share, size_t n, bool begins_anew, ct_stretch **out, size_t *n_out)
{
    ct_err err = {0};
    double most = 0;
    size_t at = 0;
    assert_ok(
        ct_stretches_cut(items, n_items, compare, NULL, begins_anew, share, n, out, n_out, &err));
    assert_int_equal(*n_out, n_items < n ? n_items : n);
    for (size_t i = 0; i < *n_out; i++) {
        const ct_stretch *s = &(*out)[i];
        assert_int_equal(s->first, at);
        assert_true(s->count > 0);
        at += s->count;
        assert_int_equal(s->cost, cost_of(s->first, at, begins_anew));
        if ((double)s->cost / share[i] > most) most = (double)s->cost / share[i];
    }
    assert_int_equal(at, n_items);
    return most;
}

/* The least maximum of any n stretches from `first` on, none of them empty. */
static double best(size_t first, size_t part, size_t n, const double *share)
{
    double least = 1e300;
    if (part + 1 == n) return (double)cost_of(first, n_items, false) / share[part];
    for (size_t end = first + 1; end + (n - part - 1) <= n_items; end++) {
        double here = (double)cost_of(first, end, false) / share[part];
        double rest = here < least ? best(end, part + 1, n, share) : here;
        double most = here > rest ? here : rest;
        if (most < least) least = most;
    }
    return least;
}

static void the_longest_stretch_is_hardly_longer_than_by_any_other_cut(void **state)
{
    (void)state;
    static const double shares[][4] = {{1, 1, 1, 1}, {0.6, 0.6, 0.2, 0.2}, {1, 0.5, 0.25, 0.25}};
    uint64_t at = 0;
    for (int round = 0; round < 300; round++) {
        n_items = 0;
        size_t groups = 1 + ct_rng_u64(1, 1, at++) % 6;
        for (size_t g = 0; g < groups; g++) {
            uint64_t random[5];
            for (int i = 0; i < 5; i++) random[i] = ct_rng_u64(1, 1, at++);
            int64_t length = 64 + (int64_t)(random[0] % 1000);
            add((int64_t)(random[1] % 2), length, (int64_t)(random[2] % (uint64_t)length),
                (int64_t)(random[3] % 40), 1 + random[4] % 2);
        }
        sort_all();
        for (size_t n = 1; n <= 4; n++) {
            ct_stretch *list;
            size_t n_out;
            const double *share = shares[round % 3];
            double most = cut(share, n, false, &list, &n_out);
            /* A tenth for prefills that stay together, and where the search ends. */
            if (n_items >= n) assert_true(most <= best(0, 0, n, share) * 1.11 + 1);
            free(list);
        }
    }
}

/* The thesis's Figure 3.2: 10 lengths, 10 depths; versions that share their prefill, and others. */
static void figure(size_t shared_versions, int64_t own_versions)
{
    n_items = 0;
    for (int64_t l = 0; l < 10; l++)
        for (int64_t d = 0; d < 10; d++) {
            int64_t length = 250 + l * 427, needle = length * d / 9;
            add(0, length, needle, 40, shared_versions);
            for (int64_t v = 1; v <= own_versions; v++) add(v, length, needle, 40, 1);
        }
    sort_all();
}

static void stretches_of_a_study_are_alike_and_keep_prompts_together(void **state)
{
    (void)state;
    static const double even[] = {1, 1, 1, 1, 1, 1, 1, 1};
    static const double falling[] = {0.6, 0.6, 0.2, 0.2, 0.12, 0.12, 0.08, 0.08};
    for (int64_t own = 0; own <= 11; own += 11) {
        figure(11, own);
        for (size_t n = 2; n <= 8; n *= 2)
            for (int f = 0; f < 2; f++) {
                if (f && n < 8) continue;
                ct_stretch *list;
                size_t n_out;
                double parts = f ? 2 : (double)n;
                double most = cut(f ? falling : even, n, false, &list, &n_out);
                double fair = (double)cost_of(0, n_items, false) / parts;
                print_message("%zu cells, %zu stretches%s: the longest %.3f of a fair one\n",
                              n_items, n, f ? " of falling size" : "", most / fair);
                assert_true(most <= 1.1 * fair);
                for (size_t i = 1; i < n_out; i++) {
                    int64_t shared;
                    const ct_plan_item *b = &items[list[i].first];
                    assert_int_not_equal(compare(NULL, b - 1, b, &shared), 0);
                }
                free(list);
            }
    }
}

static void one_prompt_is_cut_among_its_cells_and_few_cells_into_few_stretches(void **state)
{
    (void)state;
    static const double even[] = {1, 1, 1, 1};
    ct_stretch *list;
    size_t n_out;
    n_items = 0;
    add(0, 640, 0, 40, 100);
    cut(even, 4, false, &list, &n_out);
    for (size_t i = 0; i < 4; i++) assert_int_equal(list[i].count, 25);
    free(list);
    for (n_items = 0; n_items < 4; n_items++) {
        cut(even, 4, false, &list, &n_out);
        free(list);
    }
}

static void steps_that_begin_anew_cost_their_whole_sequence(void **state)
{
    (void)state;
    static const double even[] = {1, 1};
    ct_stretch *list;
    size_t n_out;
    n_items = 0;
    for (int64_t i = 0; i < 16; i++) add(i, 0, 0, 10, 1);
    for (size_t i = 0; i < n_items; i++) items[i].tokens = i < 4 ? 3000 : 1000;
    cut(even, 2, true, &list, &n_out);
    assert_int_equal(list[0].count, 4);
    free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_longest_stretch_is_hardly_longer_than_by_any_other_cut),
        cmocka_unit_test(stretches_of_a_study_are_alike_and_keep_prompts_together),
        cmocka_unit_test(one_prompt_is_cut_among_its_cells_and_few_cells_into_few_stretches),
        cmocka_unit_test(steps_that_begin_anew_cost_their_whole_sequence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
