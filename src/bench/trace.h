/* trace.h - a step whose operations are timed: every operation that a model calls says its shape,
 * its time, its bytes and its arithmetic.
 *
 * A traced step runs the model as it is, on a table that passes each call on to the model's own and
 * notes it. So nothing here knows an architecture: an operation says its cost in one place, trace.c,
 * and what a model is made of shows by itself, with its weights and caches as cold as they are in use.
 * The clock is read twice for a call, which adds well under a microsecond. A device that computes while
 * the host goes on is waited for at both, so its operations do not overlap and no pass is replayed from a
 * recording: whole steps are timed without tracing there (bench.c).
 */
#ifndef CT_BENCH_TRACE_H
#define CT_BENCH_TRACE_H

#include <stdbool.h>
#include <stdint.h>

#include "bench/limits.h"
#include "model/model.h"

enum { CT_TRACE_OPS = 128, CT_TRACE_STEPS = 64 };

/* What one call takes, from its shapes. Each operand is counted once: */
typedef struct ct_cost {
    double flops;            /* additions, multiplications, divisions; a function counts as one */
    double memory_bytes;     /* weights, keys and values, recurrent state: larger than the caches */
    double activation_bytes; /* f32 activations read and written, which may stay in a cache */
    bool product;            /* a matrix product, in the model's arithmetic; else in f32 */
} ct_cost;

/* All calls of one operation with one shape. */
typedef struct ct_trace_op {
    const char *name;          /* as in ct_ops */
    char shape[40];            /* "1024 x 6144", "8 x 128, keys 1024" */
    int64_t tokens, dims[3];   /* T (0: no T, or the router's choice), and what else tells apart */
    ct_cost cost;              /* mean of the calls */
    int64_t calls;             /* in all steps */
    double ms[CT_TRACE_STEPS]; /* [steps] of the step's calls together */
} ct_trace_op;

/* Steps of one kind, traced one after another. */
typedef struct ct_trace {
    ct_ops ops;         /* the table that notes and passes on */
    const ct_ops *base; /* the model's own */
    ct_trace_op list[CT_TRACE_OPS];
    size_t n_ops;
    int64_t steps;
    double wall_ms[CT_TRACE_STEPS];
    bool overflow;    /* more shapes than CT_TRACE_OPS */
    bool routed;      /* between the gather and the scatter_add of an expert's tokens */
    double cached;    /* bytes of a key's or value's element */
    ct_status failed; /* the first failure of waiting for the device */
    ct_err err;
} ct_trace;

/* A trace of steps of this model, or NULL with err filled; free with free(). */
ct_trace *ct_trace_new(const ct_model *model, ct_err *err);
/* ct_step, traced: one more of trace->steps. The model must not be stepped elsewhere meanwhile. */
ct_status ct_trace_step(ct_trace *trace, ct_model *model, ct_session *session, ct_row *rows,
                        size_t n_rows, ct_err *err) CT_CHECK;

/* Median of n numbers, which are left as they are; n in 1 .. CT_TRACE_STEPS. */
double ct_trace_median(const double *values, int64_t n);
/* Milliseconds of one call: the median over steps of the mean over a step's calls. */
double ct_trace_call_ms(const ct_trace *trace, const ct_trace_op *op);
/* The least time that the limits allow one call: the larger of its arithmetic over the machine's rate
 * (bf16's for products if the model computes in it and there is a unit) and its bytes over the read
 * bandwidth; all its bytes, or those of memory alone. */
double ct_cost_least_ms(const ct_cost *cost, const ct_limits *limits, ct_compute compute,
                        bool memory_alone);
/* The sum of that over a step's calls, bytes of memory alone: what a step could be. */
double ct_trace_least_ms(const ct_trace *trace, const ct_limits *limits, ct_compute compute);

#endif
