/* chat.c - chat templates, rendered natively. See chat.h. */
#include "tok/chat.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "tok/tok.h"
#include "tok/unicode.h"

/* A family: the template is one of its own if it contains every marker. */
typedef struct family {
    const char *name;
    const char *markers[4];
    const char *no_system; /* what stands in front without a message of the system */
    const char *heads[3];  /* of a message, by role; NULL: the template refuses it */
    const char *tail;      /* of a message */
    const char *answer;    /* the head of the answer; BOS comes first if the template names it */
    bool trims;            /* white space around a message goes */
} family;

static const family families[] = {
    {"gemma",
     {"<start_of_turn>", "<end_of_turn>", "| trim"},
     "",
     {NULL, "<start_of_turn>user\n", "<start_of_turn>model\n"},
     "<end_of_turn>\n",
     "<start_of_turn>model\n",
     true},
    /* Without a system message the system block stands there empty. */
    {"jamba",
     {"<|bom|>", "<|eom|>", "default_system_message"},
     "<|bom|><|system|> <|eom|>",
     {"<|bom|><|system|> ", "<|bom|><|user|> ", "<|bom|><|assistant|> "},
     "<|eom|>",
     "<|bom|><|assistant|>",
     false},
};
enum { N_FAMILIES = sizeof families / sizeof *families };

static const family *find_family(const char *template)
{
    for (size_t i = 0; i < N_FAMILIES; i++) {
        const family *f = &families[i];
        bool all = true;
        for (size_t m = 0; m < 4 && f->markers[m]; m++)
            all = all && strstr(template, f->markers[m]);
        if (all || strcmp(template, f->name) == 0) return f;
    }
    return NULL;
}

static ct_status unknown(const ct_tokenizer *tokenizer, ct_err *err)
{
    ct_buf known = {0};
    ct_status st = CT_OK;
    bool absent = !ct_tokenizer_chat_template(tokenizer);
    for (size_t i = 0; i < N_FAMILIES; i++)
        CT_TRY(ct_buf_addf(&known, err, "%s%s", i ? ", " : "", families[i].name));
    st = ct_fail(err, absent ? CT_ERR_NOT_FOUND : CT_ERR_UNSUPPORTED,
                 "chat template: expected one of a known family (%s), got %s; to name the family, "
                 "put \"chat_template\": \"NAME\" into tokenizer_config.json",
                 known.data, absent ? "none" : "another");
done:
    ct_buf_clear(&known);
    return st;
}

/* What Python's str.strip() takes away, which Jinja's trim is: White_Space and the separators of
 * ASCII. */
static bool is_python_space(uint32_t c)
{
    return ct_is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

static void trim(const char **text, size_t *size)
{
    uint32_t c;
    while (*size > 0) {
        size_t n = ct_utf8_next(*text, *size, &c);
        if (!is_python_space(c)) break;
        *text += n;
        *size -= n;
    }
    while (*size > 0) {
        size_t at = ct_utf8_back(*text, *size);
        ct_utf8_next(*text + at, *size - at, &c);
        if (!is_python_space(c)) break;
        *size = at;
    }
}

/* A message with its size, which may hold NUL. */
typedef struct sized {
    ct_chat_role role;
    const char *text;
    size_t size;
} sized;

static ct_status add_message(const family *f, sized m, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    size_t valid = ct_utf8_check(m.text, m.size);
    if (valid < m.size)
        return ct_fail(err, CT_ERR_VALUE, "message: expected UTF-8, got byte 0x%02X at offset %zu",
                       (unsigned char)m.text[valid], valid);
    if (!f->heads[m.role])
        return ct_fail(err, CT_ERR_UNSUPPORTED,
                       "chat template: expected messages of user and assistant, got one of the %s, "
                       "which the %s template refuses",
                       ct_chat_role_name(m.role), f->name);
    if (f->trims) trim(&m.text, &m.size);
    CT_TRY(ct_buf_adds(out, f->heads[m.role], err));
    CT_TRY(ct_buf_add(out, m.text, m.size, err));
    CT_TRY(ct_buf_adds(out, f->tail, err));
done:
    return st;
}

static ct_status render(const ct_tokenizer *tokenizer, const sized *messages, size_t n, char **text,
                        size_t *out_size, ct_err *err)
{
    const char *template = ct_tokenizer_chat_template(tokenizer);
    const char *bos = ct_tokenizer_bos_text(tokenizer);
    const family *f = template ? find_family(template) : NULL;
    ct_buf out = {0};
    ct_status st = CT_OK;
    if (!f) return unknown(tokenizer, err);
    bool named = strcmp(template, f->name) == 0;
    if (bos && (named || strstr(template, "bos_token"))) CT_TRY(ct_buf_adds(&out, bos, err));
    if (messages[0].role != CT_CHAT_SYSTEM) CT_TRY(ct_buf_adds(&out, f->no_system, err));
    for (size_t i = 0; i < n; i++) CT_TRY(add_message(f, messages[i], &out, err));
    CT_TRY(ct_buf_adds(&out, f->answer, err));
    *out_size = out.size;
    *text = ct_buf_take(&out);
    if (!*text) st = ct_fail_memory(err, "chat", *out_size);
done:
    ct_buf_clear(&out);
    return st;
}

ct_status ct_chat_render(const ct_tokenizer *tokenizer, const char *user_text, size_t size,
                         char **text, size_t *out_size, ct_err *err)
{
    const sized message = {CT_CHAT_USER, user_text, size};
    return render(tokenizer, &message, 1, text, out_size, err);
}

const char *ct_chat_role_name(ct_chat_role role)
{
    static const char *const names[] = {"system", "user", "assistant"};
    return names[role];
}

ct_status ct_chat_render_messages(const ct_tokenizer *tokenizer, const ct_chat_message *messages,
                                  size_t n, char **text, size_t *out_size, ct_err *err)
{
    size_t first = n > 0 && messages[0].role == CT_CHAT_SYSTEM;
    bool right = n > first && (n - first) % 2 == 1;
    for (size_t i = first; i < n; i++)
        right &= messages[i].role == ((i - first) % 2 ? CT_CHAT_ASSISTANT : CT_CHAT_USER);
    if (!right)
        return ct_fail(err, CT_ERR_VALUE,
                       "messages: expected the user's and the assistant's by turns, the user's "
                       "first and last, got %zu in another order",
                       n);
    sized *list = malloc(n * sizeof *list);
    if (!list) return ct_fail_memory(err, "messages", n * sizeof *list);
    for (size_t i = 0; i < n; i++)
        list[i] = (sized){messages[i].role, messages[i].text, strlen(messages[i].text)};
    ct_status st = render(tokenizer, list, n, text, out_size, err);
    free(list);
    return st;
}

bool ct_chat_takes_system(const ct_tokenizer *tokenizer)
{
    const char *template = ct_tokenizer_chat_template(tokenizer);
    const family *f = template ? find_family(template) : NULL;
    return f && f->heads[CT_CHAT_SYSTEM];
}
