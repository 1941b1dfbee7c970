/* bench.h - what is measured of one model: prefill, decode and start.
 *
 * Owns which steps are run and how often. Each kind of step is traced (trace.h), so that a step's wall
 * time, its operations, its bytes and what the machine's limits allow come from the same runs. Prompts
 * are random ids: no arithmetic here depends on their values.
 */
#ifndef CT_BENCH_BENCH_H
#define CT_BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/trace.h"

enum {
    CT_BENCH_LIST = 8,          /* lengths, or numbers of rows, of one run */
    CT_BENCH_STEPS = 40,        /* kinds of steps of one run at most */
    CT_BENCH_CACHE = 1000,      /* tokens before a decode step */
    CT_BENCH_LONG_CACHE = 2048, /* and in the second one of a row alone */
    CT_BENCH_REPEAT_MAX = 11,   /* so that decode steps stay within one block of keys */
    CT_BENCH_DECODES = 2,       /* decode steps a repeat */
    CT_BENCH_START_TOKENS = 16, /* of the prompt whose first token is waited for */
};

typedef struct ct_bench_plan {
    int64_t prefill[CT_BENCH_LIST], rows[CT_BENCH_LIST];
    size_t n_prefill, n_rows;
    int64_t cache; /* tokens before a decode step; 0: CT_BENCH_CACHE, and CT_BENCH_LONG_CACHE too */
    bool ops;      /* the operations' own times are wanted, beside their costs */
    int repeat;    /* times that a prefill is run; decode steps: CT_BENCH_DECODES times as many */
} ct_bench_plan;

/* One kind of step, and what was found. */
typedef struct ct_bench_step {
    bool decode;
    int64_t rows, tokens; /* of the step; tokens of all rows */
    int64_t cache_tokens; /* before it */
    bool own_prompts;     /* no two rows share keys; else all rows are forks of one prefill */
    ct_trace *trace;      /* its operations; its wall times include choosing the tokens */
    double wall_ms
        [CT_TRACE_STEPS]; /* of whole steps: trace's, or, where the operations of a traced step
                                     * wait for a device, of steps that are not traced */
    int64_t n_wall;
    double choose_ms[CT_TRACE_STEPS]; /* of decode: finding each row's largest logit */
    int64_t peak_bytes;    /* resident at most while it ran; -1: the system does not say */
    int64_t state_bytes;   /* of all its sequences, shared blocks once */
    int64_t working_bytes; /* the session's memory and the logits */
} ct_bench_step;

typedef struct ct_bench_steps {
    ct_bench_step list[CT_BENCH_STEPS];
    size_t n;
} ct_bench_steps;

/* Runs the plan on the model: each length as one step from position 0 that asks for the last logits,
 * each number of rows as decode steps of one token a row (the plan's cache before them), forked
 * and, where there are several, with keys of their own; a row alone also after CT_BENCH_LONG_CACHE.
 * A prefill warms up first, and each decode by one step. On an error *out is empty; else free it with
 * ct_bench_clear. */
ct_status ct_bench_run(ct_model *model, const ct_bench_plan *plan, ct_bench_steps *out,
                       ct_err *err) CT_CHECK;
void ct_bench_clear(ct_bench_steps *steps);

/* Lets the most that was resident in this process begin anew; false where the system cannot. */
bool ct_bench_reset_peak(void);

/* Time from starting `program generate` on a prompt of CT_BENCH_START_TOKENS ids to its end after one
 * token, the median of `repeat` processes, and the memory that one had at most. `more` are further
 * arguments, NULL at the end. */
ct_status ct_bench_start(const char *program, const char *model, char *const *more, int repeat,
                         double *wall_ms, int64_t *peak_bytes, ct_err *err) CT_CHECK;

#endif
