/* test_tiny_griffin.c - the golden of the repository itself: `paper` semantics and its options on a
 * tiny random Griffin, against tools/griffin_oracle.py (float64) and transformers. It needs no
 * shared data.
 */
#include "tiny.h"

#define FOLDER "tiny-griffin"

static void interventions_match_an_independent_float64_program_on_ref(void **state)
{
    (void)state;
    tiny_compare_cases(FOLDER, "ref");
}

static void interventions_match_an_independent_float64_program_on_cpu(void **state)
{
    (void)state;
    tiny_compare_cases(FOLDER, "cpu");
}

static void whole_prompts_match_transformers(void **state)
{
    (void)state;
    tiny_compare_prompts(FOLDER, "ref", 0, "prompt_logits");
    tiny_compare_prompts(FOLDER, "cpu", 0, "prompt_logits");
}

static void window_visible_counts_the_window_as_transformers_does(void **state)
{
    (void)state;
    tiny_compare_prompts(FOLDER, "ref", 16, "prompt_logits_transformers_window");
    tiny_compare_prompts(FOLDER, "cpu", 16, "prompt_logits_transformers_window");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_prompts_match_transformers),
        cmocka_unit_test(window_visible_counts_the_window_as_transformers_does),
        cmocka_unit_test(interventions_match_an_independent_float64_program_on_ref),
        cmocka_unit_test(interventions_match_an_independent_float64_program_on_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
