/* pretokenize.h - cutting normalized text into words, which BPE never merges across.
 *
 * Owns tokenizer.json's "pre_tokenizer": ByteLevel, Metaspace, Split, Digits, Punctuation, and
 * Sequence of them. Others are refused.
 */
#ifndef CT_TOK_PRETOKENIZE_H
#define CT_TOK_PRETOKENIZE_H

#include "io/scan.h"
#include "tok/aligned.h"
#include "tok/pattern.h"

typedef struct ct_pretokenizer_step ct_pretokenizer_step;

typedef struct ct_pretokenizer {
    ct_pretokenizer_step *steps;
    size_t count;
} ct_pretokenizer;

typedef struct ct_word {
    size_t begin, end; /* bytes of the text it was cut from */
} ct_word;

typedef struct ct_words {
    ct_word *items;
    size_t count, capacity;
} ct_words;

/* Working memory of one caller; the result lies in it. */
typedef struct ct_pretokenizer_work {
    ct_aligned texts[2];
    ct_words words, spare;
    ct_search search;
} ct_pretokenizer_work;

/* Reads "pre_tokenizer" (at == NULL: none, the text is one word). */
ct_status ct_pretokenizer_read(ct_pretokenizer *pretokenizer, ct_scan value, ct_err *err) CT_CHECK;
void ct_pretokenizer_clear(ct_pretokenizer *pretokenizer);
/* Cuts bytes [from, to) of `in`. The words, in work->words, are ranges of *out, which is `in`
 * itself if no step changes the text, else one of work->texts. */
ct_status ct_pretokenizer_run(const ct_pretokenizer *pretokenizer, const ct_aligned *in,
                              size_t from, size_t to, ct_pretokenizer_work *work,
                              const ct_aligned **out, ct_err *err) CT_CHECK;
void ct_pretokenizer_work_clear(ct_pretokenizer_work *work);

/* Metaspace, which is a pre-tokenizer and a decoder: its sign, and where one is put in front. */
typedef enum ct_prepend { CT_PREPEND_ALWAYS, CT_PREPEND_FIRST, CT_PREPEND_NEVER } ct_prepend;
typedef struct ct_metaspace {
    char sign[5]; /* one character */
    size_t size;
    ct_prepend prepend;
    bool split;
} ct_metaspace;
ct_status ct_metaspace_read(ct_metaspace *metaspace, ct_scan object, const char *where,
                            ct_err *err) CT_CHECK;

#endif
