/* chat.c - chat templates, rendered natively. See chat.h. */
#include "tok/chat.h"

#include <string.h>

#include "base/buf.h"
#include "tok/tok.h"
#include "tok/unicode.h"

/* A family: the template is one of its own if it contains every marker. */
typedef struct family {
    const char *name;
    const char *markers[4];
    const char *before, *after; /* around the message; BOS comes first if the template names it */
    bool trims;                 /* white space around the message goes */
} family;

static const family families[] = {
    {"gemma",
     {"<start_of_turn>", "<end_of_turn>", "| trim"},
     "<start_of_turn>user\n",
     "<end_of_turn>\n<start_of_turn>model\n",
     true},
    /* Without a system message the system block stands there empty. */
    {"jamba",
     {"<|bom|>", "<|eom|>", "default_system_message"},
     "<|bom|><|system|> <|eom|><|bom|><|user|> ",
     "<|eom|><|bom|><|assistant|>",
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

ct_status ct_chat_render(const ct_tokenizer *tokenizer, const char *user_text, size_t size,
                         char **text, size_t *out_size, ct_err *err)
{
    const char *template = ct_tokenizer_chat_template(tokenizer);
    const char *bos = ct_tokenizer_bos_text(tokenizer);
    const family *f = template ? find_family(template) : NULL;
    ct_buf out = {0};
    ct_status st = CT_OK;
    size_t valid = ct_utf8_check(user_text, size);
    if (!f) return unknown(tokenizer, err);
    if (valid < size)
        return ct_fail(err, CT_ERR_VALUE, "message: expected UTF-8, got byte 0x%02X at offset %zu",
                       (unsigned char)user_text[valid], valid);
    bool named = strcmp(template, f->name) == 0;
    if (bos && (named || strstr(template, "bos_token"))) CT_TRY(ct_buf_adds(&out, bos, err));
    if (f->trims) trim(&user_text, &size);
    CT_TRY(ct_buf_adds(&out, f->before, err));
    CT_TRY(ct_buf_add(&out, user_text, size, err));
    CT_TRY(ct_buf_adds(&out, f->after, err));
    *out_size = out.size;
    *text = ct_buf_take(&out);
    if (!*text) st = ct_fail_memory(err, "chat", *out_size);
done:
    ct_buf_clear(&out);
    return st;
}
