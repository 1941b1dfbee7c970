/* others.h - whether a measurement had the machine for itself. */
#ifndef CT_BENCH_OTHERS_H
#define CT_BENCH_OTHERS_H

/* Processor time of the machine and of this process with its ended children, in seconds, and a clock;
 * all 0 where the system does not say. */
typedef struct ct_usage {
    double machine_s, own_s, wall_s;
} ct_usage;

ct_usage ct_usage_now(void);
/* The part of all cores' time since `start` that other programs took, 0 .. 1. */
double ct_usage_of_others(const ct_usage *start);

#endif
