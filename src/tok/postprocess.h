/* postprocess.h - ids that are put around a text's.
 *
 * Owns tokenizer.json's "post_processor": TemplateProcessing (its single form), ByteLevel (which
 * only trims offsets: not done here, a token's range holds all its characters), and Sequence.
 */
#ifndef CT_TOK_POSTPROCESS_H
#define CT_TOK_POSTPROCESS_H

#include "tok/vocab.h"

typedef struct ct_postprocessor {
    int32_t *ids; /* those before the text, then those after */
    size_t count, before;
    const ct_vocab *vocab; /* while reading */
    bool given;            /* a template was read */
} ct_postprocessor;

/* Reads "post_processor" (at == NULL: none). Ids that no token has are CT_ERR_VALUE. */
ct_status ct_postprocessor_read(ct_postprocessor *post, ct_scan value, const ct_vocab *vocab,
                                ct_err *err) CT_CHECK;
void ct_postprocessor_clear(ct_postprocessor *post);

#endif
