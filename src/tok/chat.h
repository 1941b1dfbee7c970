/* chat.h - a user's message in the form that an instruction-tuned model was taught.
 *
 * Owns the renderers of the supported families, chosen by what the tokenizer's chat_template
 * (Jinja, which is not run) contains. One message of the user, then the head of the model's answer.
 */
#ifndef CT_TOK_CHAT_H
#define CT_TOK_CHAT_H

#include <stddef.h>

#include <cortado/engine.h>

/* Renders one user message (UTF-8) with the tokenizer's template; *text is NUL-terminated and the
 * caller's. Encode it with special = ct_tokenizer_wants_special(): BOS, where the template begins
 * with it, stands in the text. CT_ERR_NOT_FOUND if the folder has no template, CT_ERR_UNSUPPORTED
 * if it is none of those that are known; a tokenizer_config.json whose "chat_template" is just a
 * family's name ("gemma", "jamba") names it. */
ct_status ct_chat_render(const ct_tokenizer *tokenizer, const char *user_text, size_t size,
                         char **text, size_t *out_size, ct_err *err) CT_CHECK;

#endif
