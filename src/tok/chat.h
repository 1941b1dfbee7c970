/* chat.h - messages in the form that an instruction-tuned model was taught.
 *
 * Owns the renderers of the supported families, chosen by what the tokenizer's chat_template
 * (Jinja, which is not run) contains. Messages, then the head of the model's answer.
 */
#ifndef CT_TOK_CHAT_H
#define CT_TOK_CHAT_H

#include <stdbool.h>
#include <stddef.h>

#include <cortado/engine.h>

/* Renders one user message (UTF-8) with the tokenizer's template; *text is NUL-terminated and the
 * caller's. Encode it with special = ct_tokenizer_wants_special(): BOS, where the template begins
 * with it, stands in the text. CT_ERR_NOT_FOUND if the folder has no template, CT_ERR_UNSUPPORTED
 * if it is none of those that are known; a tokenizer_config.json whose "chat_template" is just a
 * family's name ("gemma", "jamba") names it. */
ct_status ct_chat_render(const ct_tokenizer *tokenizer, const char *user_text, size_t size,
                         char **text, size_t *out_size, ct_err *err) CT_CHECK;

typedef enum ct_chat_role { CT_CHAT_SYSTEM, CT_CHAT_USER, CT_CHAT_ASSISTANT } ct_chat_role;

typedef struct ct_chat_message {
    ct_chat_role role;
    const char *text; /* UTF-8 */
} ct_chat_message;

/* "system", "user", "assistant". */
const char *ct_chat_role_name(ct_chat_role role);
/* The same for several messages: one of the system in front if there is one, then the user's and the
 * assistant's by turns, the user's first and last; another order is CT_ERR_VALUE. A message of the system
 * for a template that refuses one (Gemma's) is CT_ERR_UNSUPPORTED. */
ct_status ct_chat_render_messages(const ct_tokenizer *tokenizer, const ct_chat_message *messages,
                                  size_t n, char **text, size_t *out_size, ct_err *err) CT_CHECK;
/* Whether the tokenizer's template takes a message of the system; false without a known template. */
bool ct_chat_takes_system(const ct_tokenizer *tokenizer);

#endif
