/* bench.c - the steps that are run. See bench.h. */
#include "bench/bench.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/rng.h"
#include "engine/sample.h"
#include "model/state.h"

/* ---- resident memory ------------------------------------------------------------------------- */

bool ct_bench_reset_peak(void)
{
    malloc_trim(0);
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (!file) return false;
    bool good = fputs("5", file) >= 0;
    return fclose(file) == 0 && good;
}

static int64_t peak_bytes(void)
{
    long long kib = -1;
    char line[256];
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "VmHWM: %lld kB", &kib) == 1) break;
    if (file) fclose(file);
    return kib < 0 ? -1 : kib * 1024;
}

/* ---- sequences ------------------------------------------------------------------------------- */

/* Gives the sequence keys of its own, as one with another prompt has them. */
static ct_status unshare(ct_sequence *s, ct_err *err)
{
    ct_status st = CT_OK;
    for (int64_t b = 0; st == CT_OK && b < s->n_blocks; b++)
        if (s->blocks[b]) st = ct_sequence_own_block(s, b, err);
    return st;
}

/* Bytes of all sequences, a block that several have counted once. */
static int64_t states_bytes(ct_sequence *const *sequences, int64_t n)
{
    int64_t bytes = 0;
    for (int64_t i = 0; i < n; i++) {
        const ct_sequence *s = sequences[i];
        bytes += s->model->info.state_bytes_fixed;
        for (int64_t b = 0; b < s->n_blocks; b++) {
            bool counted = !s->blocks[b];
            for (int64_t e = 0; e < i && !counted; e++)
                counted = b < sequences[e]->n_blocks && sequences[e]->blocks[b] == s->blocks[b];
            if (!counted) bytes += s->model->info.state_bytes_per_block;
        }
    }
    return bytes;
}

static void free_sequences(ct_sequence **sequences, int64_t n)
{
    for (int64_t i = 0; sequences && i < n; i++) ct_sequence_free(sequences[i]);
    free(sequences);
}

/* ---- one kind of step ------------------------------------------------------------------------ */

/* Steps of one shape before a device replays it: it records the second, and loads with the first replay. */
enum { WARM = 3 };

typedef struct bench {
    ct_model *model;
    const int32_t *ids; /* as many as the longest prompt */
    float *logits;      /* [most rows, V] */
    int repeat;
    bool ops, waits;                       /* waits: traced operations wait for the device */
    ct_sequence *short_cache, *long_cache; /* CT_BENCH_CACHE and CT_BENCH_LONG_CACHE tokens */
    ct_bench_steps *out;
} bench;

static ct_status begin_step(bench *b, const ct_bench_step *kind, ct_session **session,
                            ct_bench_step **out, ct_err *err)
{
    if (b->out->n == CT_BENCH_STEPS)
        return ct_fail(err, CT_ERR_LIMIT, "bench: expected at most %d kinds of steps",
                       CT_BENCH_STEPS);
    ct_status st = ct_session_new(b->model, session, err);
    if (st != CT_OK) return st;
    ct_trace *trace = ct_trace_new(b->model, err);
    if (!trace) return err->status;
    *out = &b->out->list[b->out->n++];
    **out = *kind;
    (*out)->trace = trace;
    (*out)->peak_bytes = ct_bench_reset_peak() ? 0 : -1;
    return CT_OK;
}

static void end_step(const bench *b, ct_bench_step *step, const ct_session *session,
                     ct_sequence *const *sequences)
{
    if (step->peak_bytes == 0) step->peak_bytes = peak_bytes();
    step->state_bytes = states_bytes(sequences, step->rows);
    step->working_bytes = (int64_t)ct_session_bytes(session) +
                          step->rows * b->model->info.vocab * (int64_t)sizeof *b->logits;
}

/* What a generation asks for: a device chooses the greedy token itself. */
static ct_logits_want wanted(const bench *b)
{
    return b->waits ? CT_LOGITS_GREEDY : CT_LOGITS_LAST;
}

/* Traced steps of a kind: all of them, but where tracing changes a step's time those for the operations'
 * own times, or one for their costs. */
static int traced(const bench *b, int steps)
{
    return !b->waits ? steps : b->ops ? b->repeat : 1;
}

/* One more step of this kind, traced or not, with its whole time. */
static ct_status step_once(bench *b, ct_bench_step *step, bool trace, ct_session *session,
                           ct_row *rows, int64_t n, ct_err *err)
{
    double start = ct_now_ms();
    ct_status st = trace ? ct_trace_step(step->trace, b->model, session, rows, (size_t)n, err)
                         : ct_step(session, rows, (size_t)n, err);
    double ms = trace ? step->trace->wall_ms[step->trace->steps - 1] : ct_now_ms() - start;
    if (!trace || !b->waits) step->wall_ms[step->n_wall++] = ms;
    return st;
}

static ct_status run_prefill(bench *b, int64_t tokens, ct_err *err)
{
    ct_status st = CT_OK;
    ct_session *session = NULL;
    ct_sequence *sequence = NULL;
    ct_bench_step *step, kind = {.rows = 1, .tokens = tokens};
    CT_TRY(begin_step(b, &kind, &session, &step, err));
    const int first = traced(b, b->repeat), steps = first + (b->waits ? b->repeat : 0);
    for (int i = 0; i < steps; i++) {
        ct_sequence_free(sequence);
        sequence = NULL;
        CT_TRY(ct_sequence_new(b->model, &sequence, err));
        ct_row row = {.sequence = sequence,
                      .ids = b->ids,
                      .count = tokens,
                      .want = wanted(b),
                      .logits = b->logits};
        CT_TRY(step_once(b, step, i < first, session, &row, 1, err));
    }
    end_step(b, step, session, &sequence);
done:
    ct_sequence_free(sequence);
    ct_session_free(session);
    return st;
}

/* Every row's next token: the first maximum of its logits, as greedy generation chooses. */
static ct_status choose(const bench *b, ct_row *rows, int32_t *ids, int64_t n, ct_err *err)
{
    static const ct_sampling greedy = {0};
    for (int64_t i = 0; i < n; i++) {
        ids[i] = rows[i].greedy;
        if (rows[i].want != CT_LOGITS_GREEDY || ids[i] == CT_NO_CHOICE) {
            ct_status st =
                ct_sample(&greedy, rows[i].logits, b->model->info.vocab, 0, &ids[i], err);
            if (st != CT_OK) return st;
        } else if (ids[i] < 0) {
            return ct_fail(err, CT_ERR_VALUE, "bench: the logit of id %d is not a number",
                           -1 - ids[i]);
        }
        rows[i].ids = &ids[i];
    }
    return CT_OK;
}

static ct_status run_decode(bench *b, const ct_sequence *from, int64_t n, bool own_prompts,
                            ct_err *err)
{
    ct_status st = CT_OK;
    ct_session *session = NULL;
    int32_t *ids = NULL;
    ct_row *rows = calloc((size_t)n, sizeof *rows);
    ct_sequence **sequences = calloc((size_t)n, sizeof(ct_sequence *));
    if (!rows || !sequences) CT_TRY(ct_fail_memory(err, "rows", (size_t)n * sizeof *rows));
    ct_bench_step *step, kind = {.decode = true,
                                 .rows = n,
                                 .tokens = n,
                                 .cache_tokens = ct_sequence_position(from),
                                 .own_prompts = own_prompts};
    CT_TRY(begin_step(b, &kind, &session, &step, err));
    int64_t vocab = b->model->info.vocab;
    for (int64_t i = 0; i < n; i++) {
        CT_TRY(ct_sequence_fork(from, &sequences[i], err));
        if (own_prompts) CT_TRY(unshare(sequences[i], err));
        rows[i] = (ct_row){.sequence = sequences[i],
                           .ids = b->ids + i, /* the rows differ from here on */
                           .count = 1,
                           .stage = CT_STAGE_GENERATION,
                           .want = wanted(b),
                           .logits = b->logits + i * vocab};
    }
    ids = malloc((size_t)n * sizeof *ids);
    if (!ids) CT_TRY(ct_fail_memory(err, "ids", (size_t)n * sizeof *ids));
    const int decodes = CT_BENCH_DECODES * b->repeat, first = traced(b, decodes);
    for (int i = 0; i < first; i++) { /* after the first step, which copies the block in use */
        if (i == 0) {
            CT_TRY(ct_step(session, rows, (size_t)n, err));
            CT_TRY(choose(b, rows, ids, n, err));
        }
        CT_TRY(step_once(b, step, true, session, rows, n, err));
        double start = ct_now_ms();
        CT_TRY(choose(b, rows, ids, n, err));
        step->choose_ms[i] = ct_now_ms() - start;
        step->trace->wall_ms[i] += step->choose_ms[i];
        if (!b->waits) step->wall_ms[i] += step->choose_ms[i];
    }
    for (int i = 0; b->waits && i < WARM + decodes; i++) {
        double start = ct_now_ms();
        CT_TRY(step_once(b, step, false, session, rows, n, err));
        CT_TRY(choose(b, rows, ids, n, err));
        step->wall_ms[step->n_wall - 1] = ct_now_ms() - start;
        if (i < WARM) step->n_wall--;
    }
    end_step(b, step, session, sequences);
done:
    ct_session_free(session);
    free_sequences(sequences, n);
    free(rows);
    free(ids);
    return st;
}

/* A sequence that holds the first `tokens` ids, forked from `from` if that is not NULL. */
static ct_status fill_cache(bench *b, const ct_sequence *from, int64_t tokens, ct_sequence **out,
                            ct_err *err)
{
    ct_status st = CT_OK;
    ct_session *session = NULL;
    CT_TRY(from ? ct_sequence_fork(from, out, err) : ct_sequence_new(b->model, out, err));
    CT_TRY(ct_session_new(b->model, &session, err));
    int64_t done = ct_sequence_position(*out);
    ct_row row = {.sequence = *out, .ids = b->ids + done, .count = tokens - done};
    CT_TRY(ct_step(session, &row, 1, err));
done:
    ct_session_free(session);
    return st;
}

/* ---- all ------------------------------------------------------------------------------------- */

ct_status ct_bench_run(ct_model *model, const ct_bench_plan *plan, ct_bench_steps *out, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t longest = CT_BENCH_LONG_CACHE, most = 1, vocab = model->info.vocab;
    for (size_t i = 0; i < plan->n_prefill; i++)
        if (plan->prefill[i] > longest) longest = plan->prefill[i];
    for (size_t i = 0; i < plan->n_rows; i++)
        if (plan->rows[i] > most) most = plan->rows[i];
    *out = (ct_bench_steps){0};
    int64_t cache = plan->cache > 0 ? plan->cache : CT_BENCH_CACHE;
    if (cache > longest) longest = cache;
    bench b = {.model = model,
               .repeat = plan->repeat,
               .ops = plan->ops,
               .waits = model->ops->sync != NULL,
               .out = out};
    int32_t *ids = malloc((size_t)(longest + most) * sizeof *ids);
    b.logits = malloc((size_t)(most * vocab) * sizeof *b.logits);
    if (!ids || !b.logits) CT_TRY(ct_fail_memory(err, "logits", (size_t)(most * vocab) * 4));
    for (int64_t i = 0; i < longest + most; i++)
        ids[i] = (int32_t)(ct_rng_u64(0, 0, (uint64_t)i) % (uint64_t)vocab);
    b.ids = ids;

    CT_TRY(fill_cache(&b, NULL, cache, &b.short_cache, err)); /* warms up as well */
    for (size_t i = 0; i < plan->n_prefill; i++) CT_TRY(run_prefill(&b, plan->prefill[i], err));
    for (size_t i = 0; i < plan->n_rows; i++) {
        CT_TRY(run_decode(&b, b.short_cache, plan->rows[i], false, err));
        if (plan->rows[i] > 1) {
            CT_TRY(run_decode(&b, b.short_cache, plan->rows[i], true, err));
            continue;
        }
        if (plan->cache > 0) continue;
        CT_TRY(fill_cache(&b, b.short_cache, CT_BENCH_LONG_CACHE, &b.long_cache, err));
        CT_TRY(run_decode(&b, b.long_cache, 1, false, err));
        ct_sequence_free(b.long_cache);
        b.long_cache = NULL;
    }
done:
    ct_sequence_free(b.short_cache);
    ct_sequence_free(b.long_cache);
    free(b.logits);
    free(ids);
    if (st != CT_OK) ct_bench_clear(out);
    return st;
}

void ct_bench_clear(ct_bench_steps *steps)
{
    for (size_t i = 0; i < steps->n; i++) free(steps->list[i].trace);
    steps->n = 0;
}
