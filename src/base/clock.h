/* clock.h - wall time. Owns the two clocks that cortado reads. */
#ifndef CT_BASE_CLOCK_H
#define CT_BASE_CLOCK_H

#include <time.h>

/* Milliseconds of a clock that never goes back; only differences mean anything. */
static inline double ct_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

#endif
