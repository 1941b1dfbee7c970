/* decode.h - token texts back to text.
 *
 * Owns tokenizer.json's "decoder": ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip, and
 * Sequence of them. Others are refused.
 */
#ifndef CT_TOK_DECODE_H
#define CT_TOK_DECODE_H

#include <stdbool.h>

#include "base/buf.h"
#include "io/scan.h"

typedef struct ct_decoder_step ct_decoder_step;

typedef struct ct_decoder {
    ct_decoder_step *steps;
    size_t count;
    bool given; /* false: texts are joined by spaces */
} ct_decoder;

/* A list of texts: the i-th ends at ends[i] and begins where the one before ends. */
typedef struct ct_texts {
    ct_buf bytes;
    size_t *ends;
    size_t count, capacity;
    size_t max; /* bytes that all texts may reach; 0: any */
} ct_texts;

/* Reads "decoder" (at == NULL: none). */
ct_status ct_decoder_read(ct_decoder *decoder, ct_scan value, ct_err *err) CT_CHECK;
void ct_decoder_clear(ct_decoder *decoder);
/* Turns the texts of tokens into one text, left in texts->bytes. */
ct_status ct_decoder_run(const ct_decoder *decoder, ct_texts *texts, ct_err *err) CT_CHECK;

/* Adds one text to the list. */
ct_status ct_texts_add(ct_texts *texts, const char *bytes, size_t size, ct_err *err) CT_CHECK;
void ct_texts_clear(ct_texts *texts);

#endif
