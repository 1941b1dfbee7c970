/* record.h - recordings: what attention looked at while a request ran.
 *
 * Owns what a request may ask to have recorded, and how a recording becomes a file. Recorders read
 * the engine's keys and queries beside its own computation: outcomes have the same bits with and
 * without them. The file's tensors: docs/RECORDINGS.md. Errors: status.h.
 */
#ifndef CORTADO_RECORD_H
#define CORTADO_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/intervention.h>
#include <cortado/status.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) /* what a header here declares is exported */

enum {
    CT_RECORD_WEIGHTS = 1, /* rows of attention weights, before and after the edit */
    CT_RECORD_HEADS = 2,   /* which heads are kept */
    CT_RECORD_LIGHT = 4,   /* entropy, needle mass and arg-max of each head; no rows are stored */
};

/* Of each recorded stage: the first row, the last one, or all. A row of prefill is a prompt token;
 * of generation, the token fed in a step. */
typedef enum ct_record_steps {
    CT_RECORD_LAST,
    CT_RECORD_FIRST,
    CT_RECORD_ALL,
} ct_record_steps;

#define CT_RECORD_DEFAULT_LIMIT (INT64_C(1) << 30)

typedef struct ct_record_options {
    unsigned what; /* CT_RECORD_... added up; not 0 */
    bool stages[CT_STAGE_COUNT];
    ct_record_steps steps;
    const int64_t *layers; /* of the model, from 0; attention layers, ascending; borrowed */
    size_t n_layers;       /* 0: all attention layers */
    const ct_span *needle; /* whose mass is recorded; sorted, disjoint; borrowed; may be empty */
    size_t n_needle;
    int64_t limit; /* bytes that the recording may take; 0: CT_RECORD_DEFAULT_LIMIT */
    /* Among requests that are planned together: a number of its own for each that records rows of
     * prefill. They compute those rows themselves instead of sharing them. */
    int64_t number;
} ct_record_options;

typedef struct ct_recording ct_recording;

/* "weights", "heads" or "light", several joined by '+'. */
ct_status ct_record_what_parse(const char *text, const char *flag, unsigned *out,
                               ct_err *err) CT_CHECK;
/* "first", "last" or "all". */
ct_status ct_record_steps_parse(const char *text, const char *flag, ct_record_steps *out,
                                ct_err *err) CT_CHECK;

/* Writes the recording as safetensors; ids: the `count` tokens as fed. sync: it is on the disk when
 * the function returns. */
ct_status ct_recording_write(const ct_recording *recording, const char *path, const int32_t *ids,
                             size_t count, bool sync, ct_err *err) CT_CHECK;

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
