/* test_names.c - the words for interventions and semantics options. */
#include "test.h"

#include <cortado/intervention.h>

static void every_name_parses_to_what_it_names(void **state)
{
    (void)state;
    ct_err err = {0};
    for (int i = 0; i <= CT_METRIC_ENTROPY_INVERTED; i++) {
        ct_metric metric;
        assert_ok(ct_metric_parse(ct_metric_name((ct_metric)i), "--metric", &metric, &err));
        assert_int_equal(metric, i);
    }
    for (int i = 0; i <= CT_WEIGHTS_OMIT; i++) {
        ct_weights_mode mode;
        assert_ok(
            ct_weights_mode_parse(ct_weights_mode_name((ct_weights_mode)i), "mode", &mode, &err));
        assert_int_equal(mode, i);
    }
    for (int i = 0; i < 4; i++) {
        ct_head_selection heads = {.active = {i & 1, (i & 2) != 0}};
        bool active[CT_STAGE_COUNT];
        assert_ok(ct_head_stages_parse(ct_head_stages_name(&heads), "--stages", active, &err));
        assert_memory_equal(active, heads.active, sizeof active);
    }
}

static void an_unknown_name_is_answered_with_the_choices_and_the_nearest(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_metric metric;
    ct_weights_mode mode;
    bool active[CT_STAGE_COUNT];
    ct_semantics semantics = {0};
    assert_fails(
        ct_metric_parse("entorpy", "--metric", &metric, &err), CT_ERR_USAGE,
        "--metric: expected one of entropy, l2, random, entropy-inverted, got \"entorpy\"; "
        "did you mean \"entropy\"?");
    assert_fails(ct_weights_mode_parse("ommit", "--weights-prefill", &mode, &err), CT_ERR_USAGE,
                 "did you mean \"omit\"?");
    assert_fails(ct_head_stages_parse("prefil", "--stages", active, &err), CT_ERR_USAGE,
                 "did you mean \"prefill\"?");
    assert_fails(ct_semantics_parse("papre", "griffin", &semantics, &err), CT_ERR_USAGE,
                 "did you mean \"paper\"?");
    assert_fails(ct_semantics_set(&semantics, "kv_cach", "off", &err), CT_ERR_USAGE,
                 "did you mean \"kv_cache\"?");
    assert_fails(ct_semantics_set(&semantics, "kv_cache", "of", &err), CT_ERR_USAGE,
                 "kv_cache: expected one of on, off");
    assert_fails(ct_metric_parse("", "--metric", &metric, &err), CT_ERR_USAGE, "got \"\"");
}

static void reference_means_other_options_for_griffin_than_for_jamba(void **state)
{
    (void)state;
    ct_err err = {0};
    ct_semantics griffin, jamba;
    assert_ok(ct_semantics_parse("reference", "griffin", &griffin, &err));
    assert_ok(ct_semantics_parse("reference", "jamba", &jamba, &err));
    assert_true(griffin.generation_begins_at_last_prompt_token && griffin.ring_slots_reference &&
                griffin.eos_on_first_token_ignored && griffin.binary_mean_per_layer &&
                griffin.needle_span_reference && griffin.needle_outside_window_unchanged);
    assert_false(griffin.kv_cache_off || griffin.prefill_window_full);
    assert_true(jamba.binary_mean_per_layer);
    assert_false(jamba.generation_begins_at_last_prompt_token || jamba.ring_slots_reference ||
                 jamba.eos_on_first_token_ignored);
    assert_fails(ct_semantics_parse("reference", "llama", &jamba, &err), CT_ERR_UNSUPPORTED,
                 "llama");
}

static void describe_names_the_whole_or_lists_every_option_of_a_mixture(void **state)
{
    (void)state;
    ct_err err = {0};
    char text[512];
    ct_semantics semantics = {0};
    ct_semantics_describe(&semantics, "griffin", text, sizeof text);
    assert_string_equal(text, "paper");
    assert_ok(ct_semantics_parse("reference", "griffin", &semantics, &err));
    ct_semantics_describe(&semantics, "griffin", text, sizeof text);
    assert_string_equal(text, "reference");
    assert_ok(ct_semantics_set(&semantics, "binary_mean", "per_query", &err));
    ct_semantics_describe(&semantics, "griffin", text, sizeof text);
    assert_string_equal(text,
                        "generation_begins=at_last_prompt_token,needle_span=reference,kv_cache=on,"
                        "needle_outside_window=unchanged,binary_mean=per_query,"
                        "ring_slots=reference,prefill_window=local,eos_on_first_token=ignored");
    ct_semantics_describe(&semantics, "griffin", text, 10);
    assert_string_equal(text, "generatio");
    ct_semantics_describe(&semantics, "griffin", text, 0);
    assert_string_equal(text, "generatio");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_name_parses_to_what_it_names),
        cmocka_unit_test(an_unknown_name_is_answered_with_the_choices_and_the_nearest),
        cmocka_unit_test(reference_means_other_options_for_griffin_than_for_jamba),
        cmocka_unit_test(describe_names_the_whole_or_lists_every_option_of_a_mixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
