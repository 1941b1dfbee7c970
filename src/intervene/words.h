/* words.h - parsing of one word out of a list, shared inside intervene/. */
#ifndef CT_INTERVENE_WORDS_H
#define CT_INTERVENE_WORDS_H

#include <stddef.h>
#include <stdio.h>

#include <cortado/status.h>

/* *out = the index of `word` in words; else CT_ERR_USAGE with the choices and the nearest of them.
 * `what` is the flag or key for the message. */
ct_status ct_word_parse(const char *word, const char *what, const char *const *words, size_t count,
                        size_t *out, ct_err *err) CT_CHECK;

#endif
