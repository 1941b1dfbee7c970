/* record.h - a recording that grows while its request runs.
 *
 * Owns its memory and the places of its rows. The forward pass (model/record.c) asks which tokens of a
 * row it wants and hands over what it found; nothing here computes attention. A recording has one
 * track for each stage; a track's arrays begin with its rows: [rows, layers, H, ...].
 */
#ifndef CT_INTERVENE_RECORD_H
#define CT_INTERVENE_RECORD_H

#include <cortado/record.h>

#include "op/op.h"

typedef struct ct_record_track {
    int64_t rows, capacity; /* filled, and room for */
    int64_t keys;           /* columns of the weights */
    int32_t *position;      /* [capacity] of the queries */
    float *before, *after;  /* [capacity, layers, H, keys]; NULL unless weights are recorded */
    /* [capacity, layers, H]; light */
    float *entropy_bits, *needle_before, *needle_after, *peak_weight;
    int32_t *peak; /* the position of the largest weight before the edit; the first of equals */
    uint8_t *heads_kept; /* [capacity, layers, H]; heads */
} ct_record_track;

/* The newest row of generation, where the weights of the last one alone are wanted: from it they are
 * computed when the request has ended, and no step spends time on what another one replaces. */
typedef struct ct_record_query {
    bool there;
    float *q;        /* [layers, H, D], rotated; NULL: none is ever kept */
    ct_attn_row row; /* the token's, without keys and values */
    uint8_t *marked; /* [tokens] row.marked */
    bool
        has_means; /* the edit writes one mean to all heads: to the marked of mean_begin .. mean_end-1 */
    int64_t mean_begin, mean_end;
    float *means; /* [layers] */
} ct_record_query;

struct ct_recording {
    unsigned what;
    bool stages[CT_STAGE_COUNT];
    ct_record_steps steps;
    int64_t n_layers, heads, head_dim, prefill;
    int64_t *layers; /* [n_layers] of the model */
    ct_span *needle;
    size_t n_needle;
    ct_record_track tracks[CT_STAGE_COUNT];
    ct_record_query query;
};

/* What the request's numbers say of a recording. */
typedef struct ct_record_shape {
    const int64_t *attention_layers; /* [n_attention] their places among the model's layers */
    int64_t n_attention, heads, head_dim;
    int64_t prefill, tokens; /* rows of prefill; tokens of the sequence, generated ones included */
} ct_record_shape;

/* Bytes of the recording; INT64_MAX if beyond it. */
int64_t ct_record_bytes(const ct_record_options *options, const ct_record_shape *shape);
/* Checks layers, spans, and the bytes against the limit (CT_ERR_LIMIT, with both numbers). */
ct_status ct_record_check(const ct_record_options *options, const ct_record_shape *shape,
                          ct_err *err) CT_CHECK;
/* Options were checked. */
ct_status ct_recording_new(const ct_record_options *options, const ct_record_shape *shape,
                           ct_recording **out, ct_err *err) CT_CHECK;
void ct_recording_free(ct_recording *recording);

/* Which of the tokens at positions position .. position + count - 1 are recorded: `count` from
 * `first` on, into the track's rows from `row` on. */
typedef struct ct_record_part {
    int64_t first, count, row;
} ct_record_part;

/* Takes rows for a stretch of a row; `ends`: its last token is the last of the step's row. Once for
 * each stretch, before its layers. */
ct_record_part ct_recording_take(ct_recording *recording, ct_stage stage, int64_t position,
                                 int64_t count, bool ends);
/* The place of a model's layer in the recording, or -1. */
int64_t ct_recording_layer(const ct_recording *recording, int64_t layer);
/* Where the weights of the track's rows from `row` on go, in the layer at the place. */
ct_weights_out ct_recording_room(const ct_recording *recording, ct_stage stage, int64_t row,
                                 int64_t layer);

/* What a pass found of one token in one layer; [H] each. */
typedef struct ct_record_values {
    const float *entropy_bits; /* it and what follows: unless light is off */
    ct_attn_light light;
    const uint8_t *kept; /* NULL: all */
} ct_record_values;

/* Notes what is recorded of the values. `layer` is the place in the recording. */
void ct_recording_note(ct_recording *recording, ct_stage stage, int64_t row, int64_t layer,
                       const ct_record_values *values);

#endif
