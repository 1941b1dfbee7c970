/* Tests of bench/trace.h: a traced step computes what an untraced one does, notes every operation of
 * the table, and counts costs that can be counted by hand. */
#include "test.h"

#include "bench/trace.h"

static ct_model *open_folder(const char *folder)
{
    ct_model *model = NULL;
    ct_err err;
    const ct_model_options options = {.compute = CT_CHOOSE_F32};
    assert_ok(ct_model_open(folder, &options, &model, &err));
    return model;
}

static ct_model *open_demo(void)
{
    return open_folder(CT_SOURCE_DIR "/models/griffin-demo");
}

/* The members of ct_ops that compute nothing come first: a name and three functions. */
static void every_operation_of_the_table_is_noted(void **state)
{
    (void)state;
    ct_model *model = open_demo();
    ct_err err;
    ct_trace *trace = ct_trace_new(model, &err);
    assert_non_null(trace);
    const size_t end = offsetof(ct_ops, block_matmul); /* from there on models call none */
    for (size_t at = offsetof(ct_ops, matmul); at < end; at += sizeof(void (*)(void)))
        if (at != offsetof(ct_ops, experts) && at != offsetof(ct_ops, layer_mean)) /* not here */
            assert_memory_not_equal((const char *)&trace->ops + at, (const char *)model->ops + at,
                                    sizeof(void (*)(void)));
    free(trace);
    ct_model_close(model);
}

static const ct_trace_op *find(const ct_trace *trace, const char *name, const char *shape)
{
    for (size_t i = 0; i < trace->n_ops; i++)
        if (!strcmp(trace->list[i].name, name) && !strcmp(trace->list[i].shape, shape))
            return &trace->list[i];
    fail_msg("no %s of %s", name, shape);
    return NULL;
}

/* Two rows of one step: a fork at position 63 with 2 tokens, and a row of 7 from position 0. */
static void a_traced_step_gives_the_bits_of_an_untraced_one(void **state)
{
    (void)state;
    enum { VOCAB = 4096, PROMPT = 63 };
    ct_err err;
    ct_model *model = open_demo();
    ct_session *session = NULL;
    ct_sequence *prompt = NULL, *fork = NULL, *other = NULL;
    int32_t ids[PROMPT];
    static float logits[2][2][VOCAB];
    for (int i = 0; i < PROMPT; i++) ids[i] = 3 + i * 61 % 4000;
    ct_trace *trace = ct_trace_new(model, &err);
    assert_non_null(trace);
    assert_ok(ct_session_new(model, &session, &err));
    assert_ok(ct_sequence_new(model, &prompt, &err));
    ct_row first = {.sequence = prompt, .ids = ids, .count = PROMPT};
    assert_ok(ct_step(session, &first, 1, &err));
    for (int traced = 0; traced < 2; traced++) {
        assert_ok(ct_sequence_fork(prompt, &fork, &err));
        assert_ok(ct_sequence_new(model, &other, &err));
        ct_row rows[2] = {
            {.sequence = fork,
             .ids = ids,
             .count = 2,
             .want = CT_LOGITS_LAST,
             .logits = logits[traced][0]},
            {.sequence = other,
             .ids = ids,
             .count = 7,
             .want = CT_LOGITS_LAST,
             .logits = logits[traced][1]},
        };
        if (traced) assert_ok(ct_trace_step(trace, model, session, rows, 2, &err));
        else assert_ok(ct_step(session, rows, 2, &err));
        ct_sequence_free(fork);
        ct_sequence_free(other);
    }
    assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    assert_int_equal(trace->steps, 1);
    assert_ptr_equal(model->ops, trace->base);

    const ct_trace_op *x = find(trace, "products", "512 x 256"); /* linear_x and _y of 8 layers */
    assert_int_equal(x->tokens, 9);
    assert_int_equal(x->calls, 8);
    assert_true(x->cost.product);
    assert_true(x->cost.flops == 2.0 * 9 * 512 * 256);
    assert_true(x->cost.memory_bytes == 512 * 256 * 2);
    assert_true(x->cost.activation_bytes == 9 * (256 + 512) * 4);
    const ct_trace_op *mlp = find(trace, "gated_mlp", "384 x 256");
    assert_int_equal(mlp->calls, 10); /* the last layer's is for the wanted tokens only */
    assert_true(mlp->cost.flops == 6.0 * 9 * 384 * 256);
    assert_true(mlp->cost.memory_bytes == 3 * 384 * 256 * 2);
    /* 64 + 65 keys and 1 + ... + 7; two blocks of the fork and one of the other row. */
    const ct_trace_op *attention = find(trace, "attention", "8 x 32, keys 128");
    assert_int_equal(attention->calls, 3);
    assert_true(attention->cost.flops == (64 + 65 + 28) * 8 * (4.0 * 32 + 4));
    assert_true(attention->cost.memory_bytes == 3 * 64 * 2 * 32 * 4);
    free(trace);
    ct_sequence_free(prompt);
    ct_session_free(session);
    ct_model_close(model);
}

/* 11 rows that are forks of one prompt: the keys they share are counted once. */
static void keys_that_rows_share_are_counted_once(void **state)
{
    (void)state;
    enum { ROWS = 11, PROMPT = 130 };
    ct_err err;
    ct_model *model = open_demo();
    ct_session *session = NULL;
    ct_sequence *prompt = NULL, *forks[ROWS];
    int32_t ids[PROMPT] = {0};
    ct_row rows[ROWS];
    ct_trace *trace = ct_trace_new(model, &err);
    assert_non_null(trace);
    assert_ok(ct_session_new(model, &session, &err));
    assert_ok(ct_sequence_new(model, &prompt, &err));
    ct_row first = {.sequence = prompt, .ids = ids, .count = PROMPT};
    assert_ok(ct_step(session, &first, 1, &err));
    for (int i = 0; i < ROWS; i++) {
        assert_ok(ct_sequence_fork(prompt, &forks[i], &err));
        rows[i] = (ct_row){.sequence = forks[i], .ids = ids, .count = 1};
    }
    assert_ok(ct_trace_step(trace, model, session, rows, ROWS, &err));
    const ct_trace_op *attention = find(trace, "attention", "8 x 32, keys 192");
    /* Blocks 0 and 1 are shared; each row writes its own copy of block 2. */
    assert_true(attention->cost.memory_bytes == (2 + ROWS) * 64 * 2 * 32 * 4);
    for (int i = 0; i < ROWS; i++) ct_sequence_free(forks[i]);
    free(trace);
    ct_sequence_free(prompt);
    ct_session_free(session);
    ct_model_close(model);
}

/* 65 tokens, each through 2 of 4 experts in 4 layers: however the router shares them out, one shape. */
static void experts_are_one_shape_with_the_mean_cost_of_their_calls(void **state)
{
    (void)state;
    enum { PROMPT = 65, STEPS = 3 };
    ct_err err;
    ct_model *model = open_folder(CT_SOURCE_DIR "/models/jamba-demo");
    ct_session *session = NULL;
    ct_sequence *sequence[STEPS];
    int32_t ids[PROMPT];
    ct_trace *trace = ct_trace_new(model, &err);
    assert_non_null(trace);
    assert_ok(ct_session_new(model, &session, &err));
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < PROMPT; i++) ids[i] = 3 + (i + step) * 61 % 4000;
        assert_ok(ct_sequence_new(model, &sequence[step], &err));
        ct_row row = {.sequence = sequence[step], .ids = ids, .count = PROMPT};
        assert_ok(ct_trace_step(trace, model, session, &row, 1, &err));
    }
    const ct_trace_op *expert = find(trace, "gated_mlp", "224 x 256, an expert");
    assert_in_range(expert->calls, 2 * 3 * STEPS, 4 * 3 * STEPS);
    double tokens = expert->cost.flops * (double)expert->calls / (6.0 * 224 * 256);
    const ct_trace_op *gather = find(trace, "gather", "256"); /* read and written */
    double gathered = gather->cost.activation_bytes * (double)gather->calls / (2.0 * 256 * 4);
    assert_float_equal(tokens, gathered, 1e-9 * gathered); /* sums of means: rounding alone */
    const ct_trace_op *dense = find(trace, "gated_mlp", "224 x 256");
    assert_int_equal(dense->calls, 4 * STEPS); /* layers 0, 2, 4 and 6 */
    /* The last layer computes no token, since no logits are asked for; the others all. */
    assert_float_equal(tokens, 2.0 * 3 * PROMPT * STEPS, 1e-6);
    for (int step = 0; step < STEPS; step++) ct_sequence_free(sequence[step]);
    free(trace);
    ct_session_free(session);
    ct_model_close(model);
}

static void the_least_time_is_of_arithmetic_or_of_bytes(void **state)
{
    (void)state;
    const ct_limits limits = {.read_gb_s = 10, .f32_gflop_s = 100, .bf16_gflop_s = 1000};
    ct_cost cost = {.flops = 1e9, .memory_bytes = 1e6, .activation_bytes = 1e9, .product = true};
    assert_true(ct_cost_least_ms(&cost, &limits, CT_COMPUTE_F32, true) == 10);
    assert_true(ct_cost_least_ms(&cost, &limits, CT_COMPUTE_BF16, true) == 1);
    assert_float_equal(ct_cost_least_ms(&cost, &limits, CT_COMPUTE_BF16, false), 100.1, 1e-9);
    cost.product = false; /* all else is computed in f32 */
    assert_true(ct_cost_least_ms(&cost, &limits, CT_COMPUTE_BF16, true) == 10);
}

static void the_median_of_an_even_count_is_between_two(void **state)
{
    (void)state;
    const double values[] = {7, 1, 3, 100};
    assert_true(ct_trace_median(values, 4) == 5);
    assert_true(ct_trace_median(values, 3) == 3);
    assert_true(ct_trace_median(values, 1) == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_of_the_table_is_noted),
        cmocka_unit_test(a_traced_step_gives_the_bits_of_an_untraced_one),
        cmocka_unit_test(keys_that_rows_share_are_counted_once),
        cmocka_unit_test(experts_are_one_shape_with_the_mean_cost_of_their_calls),
        cmocka_unit_test(the_least_time_is_of_arithmetic_or_of_bytes),
        cmocka_unit_test(the_median_of_an_even_count_is_between_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
