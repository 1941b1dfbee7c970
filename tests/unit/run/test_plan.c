/* test_plan.c - grouping of cells by shared prefill, without a model. */
#include "test.h"

#include "run/plan.h"

/* Cells of one point share a prefill if their numbers have the same last digit. */
static bool same_digit(void *user, const ct_plan_item *a, const ct_plan_item *b)
{
    assert_int_equal(a->point, b->point); /* others are never compared */
    ++*(int *)user;
    return a->cell % 10 == b->cell % 10;
}

static void cells_of_a_point_that_prefill_alike_form_one_group(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_plan plan;
    int calls = 0;
    const ct_plan_item items[] = {{11, 0, 100}, {12, 0, 100}, {21, 0, 100}, {31, 0, 100},
                                  {22, 0, 100}, {41, 3, 7},   {51, 3, 7},   {61, 4, 1}};
    assert_ok(ct_plan_new(items, 8, same_digit, &calls, &plan, &err));
    static const size_t counts[] = {3, 2, 2, 1}, begins[] = {0, 3, 5, 7};
    static const uint32_t cells[] = {11, 21, 31, 12, 22, 41, 51, 61};
    assert_int_equal(plan.n_groups, 4);
    assert_int_equal(plan.n_items, 8);
    for (size_t g = 0; g < 4; g++) {
        assert_int_equal(plan.groups[g].count, counts[g]);
        assert_int_equal(plan.groups[g].begin, begins[g]);
    }
    for (size_t i = 0; i < 8; i++) assert_int_equal(plan.items[i].cell, cells[i]);
    assert_int_equal(plan.tokens_plain, 5 * 100 + 2 * 7 + 1);
    assert_int_equal(plan.tokens_planned, 2 * 100 + 7 + 1);
    assert_true(calls > 0);
    ct_plan_clear(&plan);
}

static void no_cells_give_an_empty_plan(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_plan plan;
    int calls = 0;
    assert_ok(ct_plan_new(NULL, 0, same_digit, &calls, &plan, &err));
    assert_int_equal(plan.n_groups, 0);
    assert_int_equal(plan.tokens_plain, 0);
    assert_int_equal(calls, 0);
    ct_plan_clear(&plan);
}

static void every_item_is_in_exactly_one_group_for_many_points(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_plan plan;
    int calls = 0;
    enum { POINTS = 65, EACH = 63 };
    static ct_plan_item items[POINTS * EACH];
    static bool seen[POINTS * EACH];
    for (uint32_t i = 0; i < POINTS * EACH; i++)
        items[i] = (ct_plan_item){i, i / EACH, 10 + i / EACH};
    assert_ok(ct_plan_new(items, POINTS * EACH, same_digit, &calls, &plan, &err));
    assert_int_equal(plan.n_groups, POINTS * 10);
    size_t covered = 0;
    for (size_t g = 0; g < plan.n_groups; g++) {
        const ct_plan_item *leader = &plan.items[plan.groups[g].begin];
        assert_int_equal(plan.groups[g].begin, covered);
        for (size_t i = 0; i < plan.groups[g].count; i++) {
            assert_int_equal(leader[i].point, leader->point);
            assert_int_equal(leader[i].cell % 10, leader->cell % 10);
            assert_false(seen[leader[i].cell]);
            seen[leader[i].cell] = true;
        }
        covered += plan.groups[g].count;
    }
    assert_int_equal(covered, POINTS * EACH);
    ct_plan_clear(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_of_a_point_that_prefill_alike_form_one_group),
        cmocka_unit_test(no_cells_give_an_empty_plan),
        cmocka_unit_test(every_item_is_in_exactly_one_group_for_many_points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
