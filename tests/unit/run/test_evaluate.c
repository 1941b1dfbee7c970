/* test_evaluate.c - log-probabilities of choices: against the engine asked plainly, alone and in company. */
#include "test.h"

#include <math.h>
#include <omp.h>

#include "model/model.h"
#include "run/evaluate.h"
#include "unit/io/alloc.h"
#include "unit/io/temp.h"

static ct_err err;
static ct_model *model;
static ct_tokenizer *tokenizer;
static ct_choice_set set; /* of the two tasks below */

/* Choices of several tokens, two questions that are the same, and some that begin alike. */
static int open_all(void **state)
{
    temp_begin(state);
    char dir[1024];
    snprintf(dir, sizeof dir, "%s/models/griffin-demo", CT_SOURCE_DIR);
    const ct_model_options options = {.device = test_device("cpu"), .compute = CT_CHOOSE_F32};
    assert_ok(ct_model_open(dir, &options, &model, &err));
    assert_ok(ct_tokenizer_open(dir, &tokenizer, &err));
    mkdir(temp_path("MNLI"), 0777);
    mkdir(temp_path("CoLA"), 0777);
    temp_text("CoLA/dev.tsv", "a\t1\t\tThe cat sat on the mat.\na\t0\t*\tMat the on cat.\n"
                              "a\t1\t\tThe cat sat on the mat.\n");
    ct_buf text = {0};
    assert_ok(ct_buf_adds(&text, "sentence1\tsentence2\tgold_label\n", &err));
    for (int i = 0; i < 5; i++)
        assert_ok(ct_buf_addf(&text, &err,
                              "In the old town by the river, where boats lay for the winter and "
                              "children played until it was dark, a baker sold bread, cakes and "
                              "sometimes stories about the sea and the people who had crossed it, "
                              "and about those who had not come back from it in his time.\tHe had "
                              "%d brothers\tneutral\n",
                              i));
    temp_text("MNLI/dev_matched.tsv", text.data);
    ct_buf_clear(&text);
    const ct_choice_options all = {.dir = temp_root};
    assert_ok(ct_glue_open(&all, &set, &err));
    assert_int_equal(set.n_questions, 8);
    return 0;
}

static int close_all(void **state)
{
    ct_choice_set_clear(&set);
    ct_tokenizer_close(tokenizer);
    ct_model_close(model);
    return temp_end(state);
}

static ct_eval_options options_of(int32_t keep)
{
    ct_eval_options o = {.set = &set, .model = model, .tokenizer = tokenizer};
    o.heads.active[CT_STAGE_PREFILL] = keep >= 0;
    o.heads.keep = keep >= 0 ? keep : 0;
    return o;
}

static ct_status count(void *user, const ct_eval_item *item, ct_err *e)
{
    (void)e;
    assert_true(item->done);
    ++*(int *)user;
    return CT_OK;
}

static ct_eval *evaluated(const ct_eval_options *options)
{
    ct_eval *eval;
    int n = 0;
    assert_ok(ct_eval_new(options, &eval, &err));
    assert_ok(ct_eval_run(eval, count, &n, &err));
    assert_int_equal(n, eval->n_items);
    return eval;
}

static double log_softmax(const float *logits, int32_t id)
{
    double sum = 0, most = -INFINITY;
    int64_t vocab = ct_model_get_info(model)->vocab;
    for (int64_t i = 0; i < vocab; i++) most = fmax(most, logits[i]);
    for (int64_t i = 0; i < vocab; i++) sum += exp(logits[i] - most);
    return logits[id] - most - log(sum);
}

/* The choice fed token by token: generation without an intervention computes what prefill does, but for
 * the order of some sums. */
static void a_choice_is_the_product_of_its_tokens(void **state)
{
    (void)state;
    const ct_eval_options options = options_of(-1);
    ct_eval *eval = evaluated(&options);
    ct_session *session;
    size_t longest = 0;
    assert_ok(ct_session_new(model, &session, &err));
    for (size_t i = 0; i < eval->n_items; i++) {
        const ct_eval_item *item = &eval->items[i];
        for (size_t c = 0; c < set.subjects[item->question->subject].n_choices; c++) {
            const int32_t *choice = item->ids + item->choice_at[c];
            size_t n = item->choice_at[c + 1] - item->choice_at[c];
            const ct_generate_request r = {.prompt = item->ids,
                                           .prompt_count = item->prompt_tokens,
                                           .max_new_tokens = (int32_t)n,
                                           .eos = -1,
                                           .force_ids = choice,
                                           .force_count = n,
                                           .keep_logits = true};
            ct_job *job;
            double sum = 0;
            assert_ok(ct_generate(session, &r, &job, &err));
            for (size_t t = 0; t < n; t++)
                sum += log_softmax(ct_job_logits(job) + t * ct_model_get_info(model)->vocab,
                                   choice[t]);
            if (!(fabs(sum - item->log_p[c]) < 1e-4))
                fail_msg("question %zu, choice %zu: %.9g, token by token %.9g", i, c,
                         item->log_p[c], sum);
            ct_job_free(job);
            if (n > longest) longest = n;
        }
    }
    assert_true(longest > 1);
    assert_true(0 < eval->tokens && eval->tokens < eval->tokens_plain); /* the premise is shared */
    ct_session_free(session);
    ct_eval_free(eval);
}

static void a_question_has_the_same_bits_alone_and_in_company(void **state)
{
    (void)state;
    for (int32_t keep = -1; keep <= 3; keep += 4) {
        const ct_eval_options options = options_of(keep);
        ct_eval *all = evaluated(&options);
        /* Those that are known are left alone, and so is what the caller says of them. */
        for (size_t i = 0; i < all->n_items; i++) {
            ct_eval *one;
            int n = 0;
            assert_ok(ct_eval_new(&options, &one, &err));
            for (size_t j = 0; j < one->n_items; j++) one->items[j].done = j != i;
            assert_ok(ct_eval_run(one, count, &n, &err));
            assert_int_equal(n, 1);
            assert_string_equal(one->items[i].key, all->items[i].key);
            assert_memory_equal(one->items[i].log_p, all->items[i].log_p,
                                sizeof one->items[i].log_p);
            ct_eval_free(one);
        }
        assert_memory_equal(all->items[0].log_p, all->items[2].log_p, sizeof all->items[0].log_p);
        assert_string_not_equal(all->items[0].key, all->items[2].key); /* two rows of the file */
        ct_eval_free(all);
    }
}

static void all_heads_kept_change_nothing_and_none_kept_do(void **state)
{
    (void)state;
    const ct_eval_options none = options_of(-1), zero = options_of(0),
                          every = options_of((int32_t)ct_model_get_info(model)->heads);
    ct_eval *a = evaluated(&none), *b = evaluated(&every), *c = evaluated(&zero);
    for (size_t i = 0; i < a->n_items; i++) {
        assert_memory_equal(a->items[i].log_p, b->items[i].log_p, sizeof a->items[i].log_p);
        assert_true(a->items[i].log_p[0] != c->items[i].log_p[0]);
        assert_string_not_equal(a->items[i].key, c->items[i].key);
    }
    ct_eval_free(a), ct_eval_free(b), ct_eval_free(c);
}

static void what_cannot_be_computed_is_refused(void **state)
{
    (void)state;
    ct_eval *eval;
    ct_eval_options options = options_of(2);
    options.heads.active[CT_STAGE_GENERATION] = true;
    assert_fails(ct_eval_new(&options, &eval, &err), CT_ERR_INTERVENTION,
                 "expected the stage prefill, got generation");
    options = options_of(-1);
    options.chat = true;
    assert_fails(ct_eval_new(&options, &eval, &err), CT_ERR_NOT_FOUND,
                 "chat template: expected one of a known family");
    volatile sig_atomic_t stop = 1;
    options = options_of(-1);
    options.stop = &stop;
    assert_fails(ct_eval_new(&options, &eval, &err), CT_ERR_INTERRUPTED, "interrupted");
}

static ct_status stop_at_third(void *user, const ct_eval_item *item, ct_err *e)
{
    (void)item;
    int *left = user;
    return --*left > 0 ? CT_OK : ct_fail(e, CT_ERR_IO, "no room");
}

static void an_error_of_the_caller_ends_the_evaluation(void **state)
{
    (void)state;
    ct_eval *eval;
    int left = 3;
    const ct_eval_options options = options_of(-1);
    assert_ok(ct_eval_new(&options, &eval, &err));
    assert_fails(ct_eval_run(eval, stop_at_third, &left, &err), CT_ERR_IO, "no room");
    assert_int_equal(left, 0);
    ct_eval_free(eval);
}

static ct_status read_and_evaluate(ct_err *e)
{
    static const char *const task = "cola";
    const ct_choice_options cola = {.dir = temp_root, .subjects = &task, .n_subjects = 1};
    ct_choice_set some;
    ct_eval *eval = NULL;
    int n = 0;
    ct_eval_options options = options_of(1);
    ct_status st = ct_glue_open(&cola, &some, e);
    if (st != CT_OK) return st;
    options.set = &some;
    st = ct_eval_new(&options, &eval, e);
    if (st == CT_OK) st = ct_eval_run(eval, count, &n, e);
    if (st == CT_OK) assert_int_equal(n, 3);
    ct_eval_free(eval);
    ct_choice_set_clear(&some);
    return st;
}

/* On the CPU: one thread allocates. */
static void when_the_nth_allocation_fails_there_is_an_error_or_the_whole_outcome(void **state)
{
    (void)state;
    if (getenv("CORTADO_TEST_DEVICE")) skip();
    omp_set_num_threads(1);
    assert_ok(read_and_evaluate(&err));
    long n = 1;
    for (bool failed = true; failed; n++) {
        err = (ct_err){0};
        alloc_start(n);
        ct_status st = read_and_evaluate(&err);
        alloc_stop();
        failed = alloc.calls >= n;
        if (alloc.live != 0)
            fail_msg("call %ld: %ld bytes are left (%s)", n, (long)alloc.live, err.text);
        /* qsort does without its memory. */
        if ((st != CT_OK && (st != CT_ERR_MEMORY || !failed)) || err.status != st)
            fail_msg("call %ld: %s: %s", n, ct_status_name(st), err.text);
    }
    assert_true(n > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_choice_is_the_product_of_its_tokens),
        cmocka_unit_test(a_question_has_the_same_bits_alone_and_in_company),
        cmocka_unit_test(all_heads_kept_change_nothing_and_none_kept_do),
        cmocka_unit_test(what_cannot_be_computed_is_refused),
        cmocka_unit_test(an_error_of_the_caller_ends_the_evaluation),
        cmocka_unit_test(when_the_nth_allocation_fails_there_is_an_error_or_the_whole_outcome),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
