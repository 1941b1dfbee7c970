/* scan.h - Mamba's selective scan, VL channels side by side. Part of cpu_<isa>.c, see vec.h.
 *
 * As with the RG-LRU, a channel's scan is done by one thread, token by token, its states in
 * ascending order: the bits depend neither on the threads nor on where a call begins. The decay
 * rates are turned once for the rows of a task, so that one token of many rows costs little more
 * than its exponentials.
 */
#ifndef CT_OP_CPU_SCAN_H
#define CT_OP_CPU_SCAN_H

#include "op/cpu/kernels.h"

enum {
    CT_STATES = 16,      /* of every known model: the count that is unrolled */
    CT_STATES_MAX = 64,  /* more are right, not fast */
    CT_ROWS_OF_SCAN = 8, /* of a task */
};

/* rate[n][j] = -log2(e) exp(a_log[first + j][n]), so that exp(-d exp(a_log)) = 2^(d rate). */
CT_INLINE void scan_rates(float rate[][CT_CHANNELS], const ct_scan *scan, int64_t first,
                          int64_t channels)
{
    float row[CT_STATES_MAX];
    for (int64_t j = 0; j < channels; j++) {
        for (int64_t n = 0; n < scan->states; n += VL) {
            int64_t count = min_i64(VL, scan->states - n);
            vf a = v_load_part(scan->a_log + (first + j) * scan->states + n, count);
            v_store_part(row + n, v_exp(a) * -1.44269504088896f, count);
        }
        for (int64_t n = 0; n < scan->states; n++) rate[n][j] = row[n];
    }
}

/* `lanes` channels from channel j on, of one row; `at` is j less the task's first channel. */
CT_INLINE void scan_channels(float *y, const ct_scan *scan, float rate[][CT_CHANNELS],
                             const ct_seg *seg, float *state, int64_t j, int64_t at, int64_t lanes,
                             int64_t states)
{
    int64_t width = scan->width;
    vf h[CT_STATES_MAX], skip = v_load_part(scan->skip + j, lanes);
    CT_UNROLL
    for (int64_t n = 0; n < states; n++) h[n] = v_load_part(state + n * width + j, lanes);
    for (int64_t t = seg->first; t < seg->first + seg->count; t++) {
        const float *b = scan->b + t * states, *c = scan->c + t * states;
        vf x = v_load_part(scan->x + t * width + j, lanes);
        vf step = v_softplus(v_load_part(scan->dt + t * width + j, lanes));
        vf in = step * x, sum = skip * x;
        CT_UNROLL
        for (int64_t n = 0; n < states; n++) {
            vf decay = v_exp2_falling(step * v_load(rate[n] + at));
            h[n] = v_fma(decay, h[n], in * b[n]);
            sum = v_fma(h[n], v_set1(c[n]), sum);
        }
        v_store_part(y + t * width + j, sum, lanes);
    }
    CT_UNROLL
    for (int64_t n = 0; n < states; n++) v_store_part(state + n * width + j, h[n], lanes);
}

static void selective_scan(float *y, const ct_scan *scan, const ct_seg *segs, float *const *state,
                           int64_t n_segs)
{
    if (scan->states > CT_STATES_MAX) {
        ct_ref_selective_scan(y, scan, segs, state, n_segs);
        return;
    }
    int64_t width = scan->width, per_row = channel_tasks(width);
    int64_t groups = (n_segs + CT_ROWS_OF_SCAN - 1) / CT_ROWS_OF_SCAN;
    int64_t work = all_tokens(segs, n_segs) * width * scan->states;
#pragma omp parallel for schedule(static) if (work >= CT_PARALLEL)
    for (int64_t task = 0; task < groups * per_row; task++) {
        int64_t first = task % per_row * CT_CHANNELS, row = task / per_row * CT_ROWS_OF_SCAN;
        int64_t channels = min_i64(CT_CHANNELS, width - first);
        float rate[CT_STATES_MAX][CT_CHANNELS] = {{0}}; /* finite beyond the last channel */
        scan_rates(rate, scan, first, channels);
        for (int64_t s = row; s < min_i64(row + CT_ROWS_OF_SCAN, n_segs); s++)
            for (int64_t at = 0; at < channels; at += VL) {
                int64_t lanes = min_i64(VL, channels - at);
                if (scan->states == CT_STATES)
                    scan_channels(y, scan, rate, &segs[s], state[s], first + at, at, lanes,
                                  CT_STATES);
                else
                    scan_channels(y, scan, rate, &segs[s], state[s], first + at, at, lanes,
                                  scan->states);
            }
    }
}

#endif
