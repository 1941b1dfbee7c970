/* tok.h - what the layers above may ask of a tokenizer beside cortado/engine.h.
 *
 * Owns opening from memory (tests, fuzzing, embedded models) and the facts of
 * tokenizer_config.json. A tokenizer is immutable: any number of threads may use it.
 */
#ifndef CT_TOK_TOK_H
#define CT_TOK_TOK_H

#include <stdbool.h>
#include <stddef.h>

#include <cortado/engine.h>

/* Opens the bytes of a tokenizer.json and, unless config is NULL, of a tokenizer_config.json, both
 * borrowed for the call; `where` names them in errors. What is not supported (a kind of model,
 * normalizer, pre-tokenizer, decoder, post-processor, or an option of one) is CT_ERR_UNSUPPORTED
 * and named. "truncation" and "padding" are not applied, as transformers does not apply them. */
ct_status ct_tokenizer_open_bytes(const void *json, size_t json_size, const void *config,
                                  size_t config_size, const char *where, ct_tokenizer **out,
                                  ct_err *err) CT_CHECK;

/* The `special` to encode this text with, so that it gets exactly one BOS: false if it begins with
 * BOS's own text (a rendered chat does), else true. */
bool ct_tokenizer_wants_special(const ct_tokenizer *tokenizer, const char *text, size_t size);

/* tokenizer_config.json's bos_token and chat_template (or the file chat_template.jinja); NULL where
 * absent. */
const char *ct_tokenizer_bos_text(const ct_tokenizer *tokenizer);
const char *ct_tokenizer_chat_template(const ct_tokenizer *tokenizer);

#endif
