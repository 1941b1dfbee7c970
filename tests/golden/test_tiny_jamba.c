/* test_tiny_jamba.c - the goldens of the repository itself: `paper` semantics and its options on a tiny
 * random Jamba with experts, and on one without that sets otherwise what few files do, against
 * tools/jamba_oracle.py (float64) and transformers. They need no shared data.
 */
#include "tiny.h"

static const char *const folders[] = {"tiny-jamba", "tiny-jamba-dense"};
static const char *const devices[] = {"ref", "cpu"};

static void interventions_match_an_independent_float64_program(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++) tiny_compare_cases(folders[i / 2], devices[i % 2]);
}

static void whole_prompts_match_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < 4; i++)
        tiny_compare_prompts(folders[i / 2], devices[i % 2], 0, "prompt_logits");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_prompts_match_transformers),
        cmocka_unit_test(interventions_match_an_independent_float64_program),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
