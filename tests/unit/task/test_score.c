/* test_score.c - the three scorings and keywords of a study. */
#include "test.h"

#include <math.h>

#include "task/niah.h"

static const char needle[] = "\nThe best thing to do in San Francisco is eat a sandwich and sit in "
                             "Dolores Park on a sunny day.\n";

static double score_of(ct_scoring scoring, const char *answer)
{
    ct_err err = {0};
    double score = -1, max = -1;
    assert_ok(ct_score(scoring, NULL, 0, needle, answer, strlen(answer), &score, &max, &err));
    assert_true(max == 5);
    return score;
}

/* All points are multiples of 0.5, so sums are exact and compared exactly. */
static void points_follow_the_tables(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        double table, reference, binary;
    } cases[] = {
        {"", 0, 0, 0},
        {"I do not know.", 0, 0, 0},
        {"Eat a sandwich!", 1, 1, 0},
        {"EAT  A\nSANDWICH", 1, 1, 0},
        {"eating a sandwich", 0, 0, 0},
        {"Go to Dolores Park", 0.5, 0.5, 0},
        {"sit in Dolores Park", 1, 1, 0},
        {"It was a sunny day", 1, 0, 0},
        {"sandwich on a sunny day", 1, 1, 0},
        {"eat a sandwich and sit in Dolores Park on a sunny day", 3, 3, 0},
        {"The best thing to do in SF is to eat a sandwich and sit in Dolores Park on a sunny day.",
         4, 3, 0},
        {"The best thing to do in San Francisco is to eat a sandwich and sit in Dolores Park on a "
         "sunny day.",
         4, 3, 0},
        {"He said: \"The best thing to do in San Francisco is eat a sandwich, and sit in Dolores "
         "Park on a sunny day\", and left.",
         5, 5, 5},
        {"the best thing to do in san francisco is eat a sandwich and sit in dolores park on a "
         "sunny",
         2, 2, 0},
        /* Deleted characters join words: a dash is no blank. */
        {"eat-a-sandwich", 0, 0, 0},
        {"sun\xE2\x80\x99ny d'ay", 1, 0, 0},
        {"under_score eat a sandwich_", 1, 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *a = cases[i].answer;
        if (score_of(CT_SCORING_TABLE, a) != cases[i].table ||
            score_of(CT_SCORING_REFERENCE, a) != cases[i].reference ||
            score_of(CT_SCORING_BINARY, a) != cases[i].binary)
            fail_msg("\"%s\": %g %g %g", a, score_of(CT_SCORING_TABLE, a),
                     score_of(CT_SCORING_REFERENCE, a), score_of(CT_SCORING_BINARY, a));
    }
}

static void other_needles_need_keywords_or_binary(void **state)
{
    (void)state;
    ct_err err = {0};
    double score, max;
    static const char other[] = "The code of the safe is 4471.";
    assert_fails(
        ct_score(CT_SCORING_TABLE, NULL, 0, other, "x", 1, &score, &max, &err), CT_ERR_VALUE,
        "scoring: table: its points are for the needle \"the best thing to do in san francisco"
        "...\", got the needle \"The code of the safe is 4471.\"; give keywords of your "
        "own in a study, or use binary");
    assert_fails(ct_score_check(CT_SCORING_REFERENCE, NULL, 0, other, &err), CT_ERR_VALUE,
                 "scoring: reference: its points");
    static const char answer[] = "the code of the safe is 4471";
    assert_ok(
        ct_score(CT_SCORING_BINARY, NULL, 0, other, answer, sizeof answer - 1, &score, &max, &err));
    assert_true(score == 5 && max == 5);
}

static void keywords_add_or_set_and_the_needle_itself_is_the_maximum(void **state)
{
    (void)state;
    ct_err err = {0};
    double score, max;
    static const char safe[] = "The code of the safe is 4471.";
    const ct_keyword words[] = {{.text = "4471", .points = 2},
                                {.text = "Safe!", .points = 0.5},
                                {.text = "vault", .points = 9},
                                {.text = "code of the safe is 4471", .points = 4, .set = true}};
#define SCORE(answer)                                                                              \
    assert_ok(                                                                                     \
        ct_score(CT_SCORING_TABLE, words, 4, safe, answer, strlen(answer), &score, &max, &err))
    SCORE("4471");
    assert_true(score == 2 && max == 4);
    SCORE("The SAFE: 4471");
    assert_true(score == 2.5);
    SCORE("a code of the safe is 4471");
    assert_true(score == 4);
    SCORE("the vault"); /* more than the needle itself gets is cut to it */
    assert_true(score == 4);
    assert_ok(ct_score(CT_SCORING_BINARY, words, 4, safe, "4471", 4, &score, &max, &err));
    assert_true(score == 0 && max == 4);
#undef SCORE
}

static void keywords_that_cannot_score_are_refused(void **state)
{
    (void)state;
    ct_err err = {0};
    const struct {
        ct_keyword word;
        const char *text;
    } bad[] = {
        {{.text = "...", .points = 1},
         "scoring: keyword 1: expected at least one letter or digit, got \"...\""},
        {{.text = "safe", .points = -1},
         "scoring: keyword \"safe\": expected points of 0 or more, got -1"},
        {{.text = "safe", .points = NAN}, "expected points of 0 or more, got "},
        {{.text = "safe", .points = INFINITY}, "expected points of 0 or more, got inf"},
        {{.text = "vault", .points = 1},
         "expected that the needle \"The safe\" itself gets points, got 0"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_fails(ct_score_check(CT_SCORING_TABLE, &bad[i].word, 1, "The safe", &err),
                     CT_ERR_VALUE, bad[i].text);
    assert_fails(ct_score_check(CT_SCORING_BINARY, NULL, 0, " .\n", &err), CT_ERR_VALUE,
                 "scoring: needle: expected at least one letter or digit, got \" . \"");
}

static void scoring_names_are_parsed_and_slips_named(void **state)
{
    (void)state;
    ct_err err = {0};
    for (int i = CT_SCORING_TABLE; i <= CT_SCORING_BINARY; i++) {
        ct_scoring parsed;
        assert_ok(ct_scoring_parse(ct_scoring_name((ct_scoring)i), "--scoring", &parsed, &err));
        assert_int_equal(parsed, i);
    }
    ct_scoring parsed;
    assert_fails(ct_scoring_parse("tabel", "--scoring", &parsed, &err), CT_ERR_USAGE,
                 "--scoring: expected table, reference or binary, got \"tabel\"; did you mean "
                 "table?");
    assert_fails(ct_scoring_parse("", "--scoring", &parsed, &err), CT_ERR_USAGE, "got \"\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(points_follow_the_tables),
        cmocka_unit_test(other_needles_need_keywords_or_binary),
        cmocka_unit_test(keywords_add_or_set_and_the_needle_itself_is_the_maximum),
        cmocka_unit_test(keywords_that_cannot_score_are_refused),
        cmocka_unit_test(scoring_names_are_parsed_and_slips_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
