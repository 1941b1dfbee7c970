/* test_choice_golden.c - prompts byte for byte those of lm-evaluation-harness 0.4.13, and the benchmarks' sizes.
 */
#include "test.h"

#include <jansson.h>

#include "task/choice.h"

static ct_err err;

static void compare_messages(const ct_choice_set *set, const ct_question *q, const json_t *chat)
{
    ct_chat_message m[CT_CHOICE_MESSAGES];
    const json_t *messages = json_object_get(chat, "messages");
    size_t n = ct_choice_messages(set, q, m);
    assert_int_equal(n, json_array_size(messages));
    for (size_t i = 0; i < n; i++) {
        const json_t *message = json_array_get(messages, i);
        assert_string_equal(ct_chat_role_name(m[i].role),
                            json_string_value(json_object_get(message, "role")));
        assert_string_equal(m[i].text, json_string_value(json_object_get(message, "content")));
    }
}

static void compare(const char *file, const char *task, const char *subject)
{
    char name[128];
    snprintf(name, sizeof name, "data/goldens/prompts/%s.json", file);
    const char *path = shared_path(name);
    snprintf(name, sizeof name, "data/%s", task);
    const char *data = shared_path(name);
    if (!path || !data) skip_program("shared/data/goldens/prompts");
    json_t *golden = json_load_file(path, 0, NULL);
    assert_non_null(golden);
    bool mmlu = !strcmp(task, "mmlu");
    const ct_choice_options options = {
        .dir = data, .subjects = &subject, .n_subjects = 1, .shots = mmlu ? 5 : 0};
    ct_choice_set set;
    assert_ok(mmlu ? ct_mmlu_open(&options, &set, &err) : ct_glue_open(&options, &set, &err));
    assert_int_equal(json_array_size(golden), 20);
    for (size_t i = 0; i < 20; i++) {
        const json_t *g = json_array_get(golden, i);
        const ct_question *q = &set.questions[i];
        ct_buf text = {0};
        assert_int_equal(q->doc_id, json_integer_value(json_object_get(g, "doc_id")));
        assert_int_equal(q->gold, json_integer_value(json_object_get(g, "gold")));
        assert_ok(ct_choice_context(&set, q, &text, &err));
        assert_string_equal(text.data, json_string_value(json_object_get(g, "plain_context")));
        ct_buf_clear(&text);
        compare_messages(&set, q, json_object_get(g, "chat"));
        const json_t *choices = json_object_get(g, "chat_continuations");
        assert_int_equal(json_array_size(choices), set.subjects[0].n_choices);
        for (size_t c = 0; c < json_array_size(choices); c++)
            assert_string_equal(set.subjects[0].choices[c],
                                json_string_value(json_array_get(choices, c)));
    }
    ct_choice_set_clear(&set);
    json_decref(golden);
}

static void prompts_are_those_of_the_harness(void **state)
{
    (void)state;
    compare("g_cola", "glue", "cola");
    compare("g_mmlu_abstract_algebra", "mmlu", "abstract_algebra");
    compare("g_mmlu_anatomy", "mmlu", "anatomy");
    compare("g_mmlu_high_school_us_history", "mmlu", "high_school_us_history");
}

static void mmlu_has_14042_questions_of_57_subjects(void **state)
{
    (void)state;
    static const struct {
        const char *group;
        size_t subjects;
    } groups[] = {{"stem", 19}, {"humanities", 13}, {"social_sciences", 12}, {"other", 13}};
    ct_choice_set set;
    const ct_choice_options options = {.dir = shared_path("data/mmlu"), .shots = 5};
    assert_ok(ct_mmlu_open(&options, &set, &err));
    assert_int_equal(set.n_subjects, 57);
    assert_int_equal(set.n_questions, 14042);
    for (size_t g = 0; g < 4; g++) {
        size_t n = 0;
        for (size_t i = 0; i < set.n_subjects; i++)
            n += !strcmp(set.subjects[i].group, groups[g].group);
        assert_int_equal(n, groups[g].subjects);
    }
    ct_choice_set_clear(&set);
    const ct_choice_options glue = {.dir = shared_path("data/glue")};
    assert_ok(ct_glue_open(&glue, &set, &err));
    assert_int_equal(set.n_subjects, 2);
    assert_int_equal(set.subjects[0].count, 1043);
    assert_int_equal(set.subjects[1].count, 5463);
    ct_choice_set_clear(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_are_those_of_the_harness),
        cmocka_unit_test(mmlu_has_14042_questions_of_57_subjects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
