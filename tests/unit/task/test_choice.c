/* test_choice.c - MMLU and GLUE: every layout of files, prompts, scores, and what is refused.
 *
 * Files are made here; those of the shared data, with the prompts that lm-evaluation-harness made of them,
 * are compared by test_choice_golden.c.
 */
#include "test.h"

#include <math.h>

#include "task/choice.h"
#include "unit/io/temp.h"

static ct_err err;

static void make_folder(const char *name)
{
    mkdir(temp_path(name), 0777);
}

static void expect_context(const ct_choice_set *set, size_t question, const char *expected)
{
    ct_buf text = {0};
    assert_ok(ct_choice_context(set, &set->questions[question], &text, &err));
    assert_string_equal(text.data, expected);
    ct_buf_clear(&text);
}

/* ---- MMLU ------------------------------------------------------------------------------------ */

static void make_mmlu(void)
{
    make_folder("mmlu"), make_folder("mmlu/dev"), make_folder("mmlu/test");
    temp_text("mmlu/dev/us_foreign_policy_dev.csv", "Who?,a,b,c,d,C\n\" When? \",1,2,3,4,A\n");
    temp_text("mmlu/test/us_foreign_policy_test.csv",
              "\"Where,\nthen?  \",here,there, everywhere ,nowhere,D\nWhy?,p,q,r,s,B\n");
}

static ct_choice_options mmlu_options(int shots)
{
    static const char *const subjects[] = {"us_foreign_policy"};
    return (ct_choice_options){
        .dir = temp_path("mmlu"), .subjects = subjects, .n_subjects = 1, .shots = shots};
}

static void a_question_of_mmlu_follows_its_description_and_shots(void **state)
{
    (void)state;
    ct_choice_set set;
    ct_choice_options options = mmlu_options(2);
    make_mmlu();
    assert_ok(ct_mmlu_open(&options, &set, &err));
    assert_int_equal(set.n_subjects, 1);
    assert_int_equal(set.n_questions, 2);
    assert_string_equal(set.subjects[0].group, "social_sciences");
    assert_int_equal(set.questions[0].gold, 3);
    assert_int_equal(set.questions[1].gold, 1);
    assert_int_equal(set.questions[1].doc_id, 1);
    /* The question alone is stripped. */
    expect_context(&set, 0,
                   "The following are multiple choice questions (with answers) about us foreign "
                   "policy.\n\nWho?\nA. a\nB. b\nC. c\nD. d\nAnswer: C\n\nWhen?\nA. 1\nB. 2\nC. "
                   "3\nD. 4\nAnswer: A\n\nWhere,\nthen?\nA. here\nB. there\nC.  everywhere \nD. "
                   "nowhere\nAnswer:");
    ct_chat_message m[CT_CHOICE_MESSAGES];
    assert_int_equal(ct_choice_messages(&set, &set.questions[1], m), 6);
    const ct_chat_role roles[] = {CT_CHAT_SYSTEM, CT_CHAT_USER,      CT_CHAT_ASSISTANT,
                                  CT_CHAT_USER,   CT_CHAT_ASSISTANT, CT_CHAT_USER};
    for (int i = 0; i < 6; i++) assert_int_equal(m[i].role, roles[i]);
    assert_string_equal(m[2].text, "C");
    assert_string_equal(m[5].text, "Why?\nA. p\nB. q\nC. r\nD. s\nAnswer:");
    ct_choice_set_clear(&set);

    options.shots = 0, options.limit = 1;
    assert_ok(ct_mmlu_open(&options, &set, &err));
    assert_int_equal(set.n_questions, 1);
    assert_int_equal(ct_choice_messages(&set, &set.questions[0], m), 2);
    ct_choice_set_clear(&set);
}

static void malformed_files_of_mmlu_are_refused_with_their_line(void **state)
{
    (void)state;
    ct_choice_set set;
    ct_choice_options options = mmlu_options(3);
    make_mmlu();
    assert_fails(ct_mmlu_open(&options, &set, &err), CT_ERR_VALUE,
                 "us_foreign_policy_dev.csv: expected 3 rows for the shots, got 2");
    options = mmlu_options(2);
    temp_text("mmlu/test/us_foreign_policy_test.csv", "Why?,p,q,r,s,B\nWhy?,p,q,r,s,E\n");
    assert_fails(ct_mmlu_open(&options, &set, &err), CT_ERR_FORMAT,
                 "expected the right choice's letter, A to D, got \"E\" (line 2)");
    temp_text("mmlu/test/us_foreign_policy_test.csv", "Why?,p,q,r,B\n");
    assert_fails(ct_mmlu_open(&options, &set, &err), CT_ERR_FORMAT,
                 "expected 6 fields (question, four choices, letter), got 5 (line 1)");
    temp_text("mmlu/test/us_foreign_policy_test.csv", "\n");
    assert_fails(ct_mmlu_open(&options, &set, &err), CT_ERR_FORMAT, "expected questions, got none");
    remove(temp_path("mmlu/test/us_foreign_policy_test.csv"));
    assert_fails(ct_mmlu_open(&options, &set, &err), CT_ERR_NOT_FOUND,
                 "us_foreign_policy_test.csv");
    static const char *const wrong[] = {"anatomi"};
    options.subjects = wrong;
    assert_fails(ct_mmlu_open(&options, &set, &err), CT_ERR_VALUE,
                 "mmlu: expected one of its 57 subjects, got \"anatomi\"; did you mean anatomy?");
    options.shots = 6;
    assert_fails(ct_mmlu_open(&options, &set, &err), CT_ERR_VALUE, "expected 0 to 5 shots, got 6");
}

/* ---- GLUE ------------------------------------------------------------------------------------ */

/* Every task in both layouts gives the same question. */
static const struct {
    const char *task, *folder, *tsv, *tsv_text, *jsonl, *json, *context;
    int gold;
} layouts[] = {
    {"cola", "CoLA", "CoLA/dev.tsv", "gj04\t1\t\tThe \"sailors\" rode.\n", "cola.jsonl",
     "{\"sentence\": \"The \\\"sailors\\\" rode.\", \"label\": 1, \"idx\": 0}",
     "The \"sailors\" rode.\nQuestion: Does this sentence make sense?\nAnswer:", 1},
    {"mnli", "MNLI", "MNLI/dev_matched.tsv",
     "index\tgenre\tsentence1\tsentence2\tlabel1\tgold_label\n0\tx\tIt rains.\t It is wet "
     "\tneutral\tcontradiction\n",
     "mnli.jsonl", "{\"premise\": \"It rains.\", \"hypothesis\": \" It is wet \", \"label\": 2}",
     "It rains.\nQuestion: It is wet. True, False or Neither?\nAnswer:", 2},
    {"mnli_mismatch", "MNLI", "MNLI/dev_mismatched.tsv",
     "sentence1\tsentence2\tgold_label\nIt rains.\tIt is dry.\tneutral\n", "mnli_mismatch.jsonl",
     "{\"premise\": \"It rains.\", \"hypothesis\": \"It is dry.\", \"label\": 1}",
     "It rains.\nQuestion: It is dry. True, False or Neither?\nAnswer:", 1},
    {"mrpc", "MRPC", "MRPC/dev.tsv",
     "\xEF\xBB\xBFQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t2\t3\tOne.\tTwo.\n", "mrpc.jsonl",
     "{\"sentence1\": \"One.\", \"sentence2\": \"Two.\", \"label\": 1}",
     "Sentence 1: One.\nSentence 2: Two.\nQuestion: Do both sentences mean the same "
     "thing?\nAnswer:",
     1},
    {"qnli", "QNLI", "QNLI/dev.tsv", "index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tentailment\n",
     "qnli.jsonl", "{\"question\": \"Who?\", \"sentence\": \"He.\", \"label\": 0}",
     "Who?\nHe.\nQuestion: Does this response answer the question?\nAnswer:", 0},
    {"qqp", "QQP", "QQP/dev.tsv",
     "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tA?\tB?\t0\n", "qqp.jsonl",
     "{\"question1\": \"A?\", \"question2\": \"B?\", \"label\": 0}",
     "Question 1: A?\nQuestion 2: B?\nQuestion: Do both questions ask the same thing?\nAnswer:", 0},
    {"rte", "RTE", "RTE/dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\tP.\tQ.\tnot_entailment\n",
     "rte.jsonl", "{\"sentence1\": \"P.\", \"sentence2\": \"Q.\", \"label\": 1}",
     "P.\nQuestion: Q. True or False?\nAnswer:", 1},
    {"sst2", "SST-2", "SST-2/dev.tsv", "sentence\tlabel\nfine \t1\n", "sst2.jsonl",
     "{\"sentence\": \"fine \", \"label\": 1}",
     "fine \nQuestion: Is this sentence positive or negative?\nAnswer:", 1},
    {"wnli", "WNLI", "WNLI/dev.tsv", "index\tsentence1\tsentence2\tlabel\n0\tP.\tQ.\t1\n",
     "wnli.jsonl", "{\"sentence1\": \"P.\", \"sentence2\": \"Q.\", \"label\": 1}",
     "P.\nQuestion: Q. True or False?\nAnswer:", 1},
};
enum { N_LAYOUTS = sizeof layouts / sizeof *layouts };

static void every_task_of_glue_is_read_from_tsv_and_from_json_lines(void **state)
{
    (void)state;
    make_folder("tsv"), make_folder("json");
    for (int i = 0; i < N_LAYOUTS; i++) {
        char name[128];
        snprintf(name, sizeof name, "tsv/%s", layouts[i].folder);
        make_folder(name);
        snprintf(name, sizeof name, "tsv/%s", layouts[i].tsv);
        temp_text(name, layouts[i].tsv_text);
        snprintf(name, sizeof name, "json/%s", layouts[i].jsonl);
        temp_text(name, layouts[i].json);
        for (int json = 0; json < 2; json++) {
            ct_choice_set set;
            const ct_choice_options options = {.dir = temp_path(json ? "json" : "tsv"),
                                               .subjects = &layouts[i].task,
                                               .n_subjects = 1};
            assert_ok(ct_glue_open(&options, &set, &err));
            assert_int_equal(set.n_questions, 1);
            assert_int_equal(set.questions[0].gold, layouts[i].gold);
            expect_context(&set, 0, layouts[i].context);
            ct_choice_set_clear(&set);
        }
    }
    ct_choice_set set;
    const ct_choice_options all = {.dir = temp_path("tsv")};
    assert_ok(ct_glue_open(&all, &set, &err));
    assert_int_equal(set.n_subjects, N_LAYOUTS);
    for (int i = 0; i < N_LAYOUTS; i++) assert_string_equal(set.subjects[i].name, layouts[i].task);
    assert_int_equal(set.subjects[0].metric, CT_CHOICE_MATTHEWS);
    ct_choice_set_clear(&set);
}

static void malformed_files_of_glue_are_refused_with_their_line(void **state)
{
    (void)state;
    ct_choice_set set;
    static const char *const task = "qnli";
    make_folder("bad"), make_folder("bad/QNLI");
    ct_choice_options options = {.dir = temp_path("bad"), .subjects = &task, .n_subjects = 1};
    assert_fails(ct_glue_open(&options, &set, &err), CT_ERR_NOT_FOUND, "QNLI/dev.tsv or ");
    options.n_subjects = 0;
    assert_fails(ct_glue_open(&options, &set, &err), CT_ERR_NOT_FOUND, "of another task, got none");
    temp_text("bad/QNLI/dev.tsv", "index\tquestion\tsentence\n0\tWho?\tHe.\n");
    assert_fails(ct_glue_open(&options, &set, &err), CT_ERR_FORMAT, "expected a column \"label\"");
    temp_text("bad/QNLI/dev.tsv", "question\tsentence\tlabel\nWho?\tHe.\tentailed\n");
    assert_fails(ct_glue_open(&options, &set, &err), CT_ERR_FORMAT, "got \"entailed\" (line 2)");
    temp_text("bad/QNLI/dev.tsv", "question\tsentence\tlabel\nWho?\tHe.\n");
    assert_fails(ct_glue_open(&options, &set, &err), CT_ERR_FORMAT,
                 "expected 3 fields, got 2 (line 2)");
    remove(temp_path("bad/QNLI/dev.tsv"));
    temp_text("bad/qnli.jsonl", "{\"question\": \"a\", \"sentence\": \"b\", \"label\": 0}\n\n"
                                "{\"question\": \"a\", \"sentence\": \"b\", \"label\": 2}\n");
    assert_fails(ct_glue_open(&options, &set, &err), CT_ERR_VALUE, "qnli.jsonl, line 3");
    temp_text("bad/qnli.jsonl", "{\"question\": \"a\", \"sentence\": \"b\"");
    assert_fails(ct_glue_open(&options, &set, &err), CT_ERR_FORMAT, "qnli.jsonl, line 1");
    options.shots = 1;
    assert_fails(ct_glue_open(&options, &set, &err), CT_ERR_UNSUPPORTED, "expected 0 shots, got 1");
}

/* ---- scores ---------------------------------------------------------------------------------- */

static void of_equal_probabilities_the_first_choice_is_picked(void **state)
{
    (void)state;
    assert_int_equal(ct_choice_pick((double[]){-1, -1, -1}, 3), 0);
    assert_int_equal(ct_choice_pick((double[]){-2, -1, -1}, 3), 1);
    assert_int_equal(ct_choice_pick((double[]){-2, -3, -1.5}, 3), 2);
}

/* The numbers of scikit-learn 1.9 for the same lists. */
static void scores_are_those_of_scikit_learn(void **state)
{
    (void)state;
    static const int gold[] = {0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 1},
                     picked[] = {0, 1, 0, 0, 1, 1, 0, 1, 0, 0, 1};
    ct_choice_score s = ct_choice_scores(picked, gold, 11);
    assert_true(fabs(s.accuracy - 8.0 / 11) < 1e-15);
    assert_true(fabs(s.accuracy_stderr - sqrt(8.0 / 11 * 3 / 11 / 10)) < 1e-15);
    assert_true(fabs(s.f1 - 8.0 / 11) < 1e-15);
    assert_true(fabs(s.matthews - 0.46666666666666667) < 1e-15);
    static const int none[11] = {0};
    s = ct_choice_scores(none, gold, 11);
    assert_true(s.f1 == 0 && s.matthews == 0);
    s = ct_choice_scores(gold, gold, 11);
    assert_true(s.f1 == 1 && s.matthews == 1 && s.accuracy == 1);
    s = ct_choice_scores(gold, gold, 1);
    assert_true(isnan(s.accuracy_stderr));
}

static void subjects_are_pooled_by_their_sizes(void **state)
{
    (void)state;
    const ct_choice_score of[] = {{.n = 100, .accuracy = 0.3, .accuracy_stderr = 0.046},
                                  {.n = 300, .accuracy = 0.5, .accuracy_stderr = 0.029}};
    ct_choice_score s = ct_choice_pool(of, 2);
    assert_int_equal(s.n, 400);
    assert_true(fabs(s.accuracy - 0.45) < 1e-15);
    double variance = (99 * 0.046 * 0.046 * 100 + 299 * 0.029 * 0.029 * 300) / 398;
    assert_true(fabs(s.accuracy_stderr - sqrt(variance / 400)) < 1e-15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_question_of_mmlu_follows_its_description_and_shots),
        cmocka_unit_test(malformed_files_of_mmlu_are_refused_with_their_line),
        cmocka_unit_test(every_task_of_glue_is_read_from_tsv_and_from_json_lines),
        cmocka_unit_test(malformed_files_of_glue_are_refused_with_their_line),
        cmocka_unit_test(of_equal_probabilities_the_first_choice_is_picked),
        cmocka_unit_test(scores_are_those_of_scikit_learn),
        cmocka_unit_test(subjects_are_pooled_by_their_sizes),
    };
    return cmocka_run_group_tests(tests, temp_begin, temp_end);
}
