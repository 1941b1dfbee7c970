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
    CT_STATES = 16,        /* of every published model: the count that is unrolled */
    CT_STATES_MAX = 64,    /* more are right, not fast */
    CT_ROWS_OF_SCAN = 8,   /* of a task */
    CT_TOKENS_OF_SCAN = 32 /* fetched together: rows of x lie pages apart, one cache set for all */
};

/* What a task works on, CT_CHANNELS side by side; channels beyond the last are 0 everywhere. */
typedef struct scan_room {
    float rate[CT_STATES_MAX]
              [CT_CHANNELS]; /* -log2(e) exp(a_log): exp(-d exp(a_log)) = 2^(d rate) */
    float h[CT_STATES_MAX][CT_CHANNELS];
    float skip[CT_CHANNELS];
    float x[CT_TOKENS_OF_SCAN][CT_CHANNELS]; /* becomes y */
    float step[CT_TOKENS_OF_SCAN][CT_CHANNELS];
} scan_room;

static void scan_rates(scan_room *room, const ct_scan *scan, int64_t first, int64_t channels)
{
    float row[CT_STATES_MAX];
    for (int64_t j = 0; j < channels; j++) {
        for (int64_t n = 0; n < scan->states; n += VL) {
            int64_t count = min_i64(VL, scan->states - n);
            vf a = v_load_part(scan->a_log + (first + j) * scan->states + n, count);
            v_store_part(row + n, v_exp(a) * -1.44269504088896f, count);
        }
        for (int64_t n = 0; n < scan->states; n++) room->rate[n][j] = row[n];
    }
}

/* `tokens` tokens of VL channels from room channel `at` on; b and c: [tokens, states]. */
CT_INLINE void scan_channels(scan_room *room, int64_t at, const float *b, const float *c,
                             int64_t tokens, int64_t states)
{
    vf h[CT_STATES_MAX], skip = v_load(room->skip + at);
    CT_UNROLL
    for (int64_t n = 0; n < states; n++) h[n] = v_load(room->h[n] + at);
    for (int64_t t = 0; t < tokens; t++) {
        vf x = v_load(room->x[t] + at), step = v_load(room->step[t] + at);
        vf in = step * x, sum = skip * x;
        CT_UNROLL
        for (int64_t n = 0; n < states; n++) {
            vf decay = v_exp2_falling(step * v_load(room->rate[n] + at));
            h[n] = v_fma(decay, h[n], in * b[t * states + n]);
            sum = v_fma(h[n], v_set1(c[t * states + n]), sum);
        }
        v_store(room->x[t] + at, sum);
    }
    CT_UNROLL
    for (int64_t n = 0; n < states; n++) v_store(room->h[n] + at, h[n]);
}

/* Channels first .. first+channels-1 of one row. */
static void scan_row(float *y, const ct_scan *scan, scan_room *room, const ct_seg *seg,
                     float *state, int64_t first, int64_t channels)
{
    int64_t width = scan->width, states = scan->states, end = seg->first + seg->count;
    size_t bytes = (size_t)channels * sizeof(float);
    for (int64_t n = 0; n < states; n++) memcpy(room->h[n], state + n * width + first, bytes);
    for (int64_t t = seg->first; t < end; t += CT_TOKENS_OF_SCAN) {
        int64_t tokens = min_i64(CT_TOKENS_OF_SCAN, end - t);
        for (int64_t i = 0; i < tokens; i++) {
            memcpy(room->x[i], scan->x + (t + i) * width + first, bytes);
            memcpy(room->step[i], scan->dt + (t + i) * width + first, bytes);
            for (int64_t at = 0; at < channels; at += VL)
                v_store(room->step[i] + at, v_softplus(v_load(room->step[i] + at)));
        }
        const float *b = scan->b + t * states, *c = scan->c + t * states;
        for (int64_t at = 0; at < channels; at += VL)
            if (states == CT_STATES) scan_channels(room, at, b, c, tokens, CT_STATES);
            else scan_channels(room, at, b, c, tokens, states);
        for (int64_t i = 0; i < tokens; i++) memcpy(y + (t + i) * width + first, room->x[i], bytes);
    }
    for (int64_t n = 0; n < states; n++) memcpy(state + n * width + first, room->h[n], bytes);
}

static void selective_scan(ct_op_ctx *ctx, float *y, const ct_scan *scan, const ct_batch *batch,
                           int64_t state_offset)
{
    const ct_seg *segs = batch->segs;
    int64_t n_segs = batch->n_segs;
    if (scan->states > CT_STATES_MAX) {
        ct_ref_selective_scan(ctx, y, scan, batch, state_offset);
        return;
    }
    int64_t width = scan->width, per_row = channel_tasks(width);
    int64_t groups = (n_segs + CT_ROWS_OF_SCAN - 1) / CT_ROWS_OF_SCAN;
    int64_t work = all_tokens(segs, n_segs) * width * scan->states;
#pragma omp parallel for schedule(static) if (work >= CT_PARALLEL)
    for (int64_t task = 0; task < groups * per_row; task++) {
        int64_t first = task % per_row * CT_CHANNELS, row = task / per_row * CT_ROWS_OF_SCAN;
        int64_t channels = min_i64(CT_CHANNELS, width - first);
        scan_room room;
        if (channels < CT_CHANNELS) memset(&room, 0, sizeof room);
        memcpy(room.skip, scan->skip + first, (size_t)channels * sizeof *room.skip);
        scan_rates(&room, scan, first, channels);
        for (int64_t s = row; s < min_i64(row + CT_ROWS_OF_SCAN, n_segs); s++)
            scan_row(y, scan, &room, &segs[s], batch->states[s] + state_offset, first, channels);
    }
}

#endif
