/* test_sample.c - choosing a token: greedy, temperature, top-k, top-p. */
#include "test.h"

#include <math.h>

#include "engine/sample.h"

static int32_t sample(ct_sampling s, const float *logits, int64_t n, int64_t step)
{
    ct_err err = {0};
    int32_t id = -1;
    assert_ok(ct_sample(&s, logits, n, step, &id, &err));
    return id;
}

static void greedy_takes_the_first_maximum(void **state)
{
    (void)state;
    const float logits[] = {1, 3, 2, 3, -INFINITY};
    assert_int_equal(sample((ct_sampling){0}, logits, 5, 0), 1);
    assert_int_equal(sample((ct_sampling){0}, logits, 1, 0), 0);
}

/* Sizes around the blocks that the choice looks at; equal maxima and NaN at every kind of place. */
static void the_first_maximum_and_the_first_nan_are_found_wherever_they_stand(void **state)
{
    (void)state;
    enum { MOST = 1100 };
    static const int64_t sizes[] = {1, 7, 255, 256, 257, 512, 1100};
    static float x[MOST];
    for (size_t n = 0; n < sizeof sizes / sizeof *sizes; n++)
        for (int64_t at = 0; at < sizes[n]; at += at < 300 ? 1 : 37) {
            ct_err err = {0};
            int32_t id = -1;
            for (int64_t i = 0; i < sizes[n]; i++) x[i] = i % 3 ? -1 : -INFINITY;
            x[at] = x[sizes[n] - 1] = 2;
            assert_ok(ct_sample(&(ct_sampling){0}, x, sizes[n], 0, &id, &err));
            assert_int_equal(id, at);
            x[at] = NAN;
            char where[32];
            snprintf(where, sizeof where, "token %lld ", (long long)at);
            assert_fails(ct_sample(&(ct_sampling){0}, x, sizes[n], 0, &id, &err), CT_ERR_VALUE,
                         where);
        }
}

static void a_cut_to_one_token_is_greedy_whatever_the_temperature(void **state)
{
    (void)state;
    const float logits[] = {1, 3, 2, 3, 0, 1, 2};
    for (int64_t step = 0; step < 50; step++) {
        assert_int_equal(sample((ct_sampling){.temperature = 5, .top_k = 1}, logits, 7, step), 1);
        assert_int_equal(sample((ct_sampling){.temperature = 5, .top_p = 0.01f}, logits, 7, step),
                         1);
    }
}

static void a_choice_depends_on_seed_and_step_alone(void **state)
{
    (void)state;
    float logits[63];
    for (int i = 0; i < 63; i++) logits[i] = (float)(i % 7);
    int other_step = 0, other_seed = 0;
    for (int64_t step = 0; step < 40; step++) {
        ct_sampling s = {.temperature = 2, .seed = 9}, t = {.temperature = 2, .seed = 10};
        int32_t id = sample(s, logits, 63, step);
        assert_int_equal(id, sample(s, logits, 63, step));
        other_step += id != sample(s, logits, 63, step + 1);
        other_seed += id != sample(t, logits, 63, step);
    }
    assert_true(other_step > 20 && other_seed > 20);
}

/* 20,000 draws; a frequency's deviation is below 0.0036, the bound is five of them. */
static void frequencies_follow_the_softmax_of_what_top_k_and_top_p_leave(void **state)
{
    (void)state;
    enum { N = 5, DRAWS = 20000 };
    const float logits[N] = {0, 1, 2, 0.5f, -1};
    const ct_sampling settings[] = {
        {.temperature = 1, .seed = 1},
        {.temperature = 2, .seed = 2},
        {.temperature = 1, .top_k = 3, .seed = 3},
        {.temperature = 1, .top_p = 0.7f, .seed = 4},
        {.temperature = 1, .top_k = 4, .top_p = 0.95f, .seed = 5},
    };
    /* Which tokens remain: e^2, e^1, e^.5, e^0, e^-1 are .563 .207 .126 .076 .028 of the sum. */
    const bool remain[][N] = {
        {1, 1, 1, 1, 1}, {1, 1, 1, 1, 1}, {0, 1, 1, 1, 0}, {0, 1, 1, 0, 0}, {1, 1, 1, 1, 0},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        int counts[N] = {0};
        for (int64_t step = 0; step < DRAWS; step++) counts[sample(settings[i], logits, N, step)]++;
        double sum = 0;
        for (int j = 0; j < N; j++)
            sum += remain[i][j] ? exp((double)logits[j] / (double)settings[i].temperature) : 0;
        for (int j = 0; j < N; j++) {
            double want =
                remain[i][j] ? exp((double)logits[j] / (double)settings[i].temperature) / sum : 0;
            if (fabs((double)counts[j] / DRAWS - want) > (want > 0 ? 0.018 : 0))
                fail_msg("setting %zu, token %d: %d draws, expected %.0f", i, j, counts[j],
                         want * DRAWS);
        }
    }
}

static void a_logit_that_is_not_a_number_is_an_error(void **state)
{
    (void)state;
    ct_err err = {0};
    const float logits[] = {0, NAN, 1};
    ct_sampling s = {0};
    int32_t id;
    assert_fails(ct_sample(&s, logits, 3, 4, &id, &err), CT_ERR_VALUE,
                 "step 4: the logit of token 1 is not a number");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_first_maximum),
        cmocka_unit_test(the_first_maximum_and_the_first_nan_are_found_wherever_they_stand),
        cmocka_unit_test(a_cut_to_one_token_is_greedy_whatever_the_temperature),
        cmocka_unit_test(a_choice_depends_on_seed_and_step_alone),
        cmocka_unit_test(frequencies_follow_the_softmax_of_what_top_k_and_top_p_leave),
        cmocka_unit_test(a_logit_that_is_not_a_number_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
