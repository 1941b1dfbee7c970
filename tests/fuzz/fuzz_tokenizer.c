/* fuzz_tokenizer.c - any bytes as tokenizer.json: refused with a text, or a tokenizer that encodes
 * any UTF-8 to ids of its own with offsets in the text, and decodes them.
 *
 * The input is a tokenizer.json up to the first NUL, then the text.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "tok/chat.h"
#include "tok/tok.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check_encoding(const ct_tokenizer *t, const char *text, size_t size, bool special)
{
    ct_err err = {0};
    int32_t *ids;
    size_t *begin, *end, count, decoded_size;
    char *decoded;
    ct_status st =
        ct_tokenizer_encode_offsets(t, text, size, special, &ids, &begin, &end, &count, &err);
    if (st != CT_OK) {
        CT_ASSERT(err.status == st && err.text[0]);
        CT_ASSERT(ct_utf8_valid(err.text, strlen(err.text)));
        return;
    }
    CT_ASSERT(ct_utf8_valid(text, size));
    for (size_t i = 0; i < count; i++) {
        CT_ASSERT(ids[i] >= 0 && (size_t)ids[i] < ct_tokenizer_vocab_size(t));
        CT_ASSERT(begin[i] <= end[i] && end[i] <= size);
    }
    for (int skip = 0; skip < 2; skip++) {
        st = ct_tokenizer_decode(t, ids, count, skip, &decoded, &decoded_size, &err);
        if (st != CT_OK) {
            CT_ASSERT(st == CT_ERR_LIMIT);
            continue;
        }
        CT_ASSERT(ct_utf8_valid(decoded, decoded_size) && decoded[decoded_size] == 0);
        free(decoded);
    }
    free(ids);
    free(begin);
    free(end);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char config[] = "{\"chat_template\":\"gemma\"}";
    ct_err err = {0};
    ct_tokenizer *t;
    const uint8_t *nul = size ? memchr(bytes, 0, size) : NULL;
    size_t json_size = nul ? (size_t)(nul - bytes) : size;
    const char *text = nul ? (const char *)nul + 1 : "";
    size_t text_size = nul ? size - json_size - 1 : 0;
    char *rendered;
    size_t rendered_size;
    ct_status st =
        ct_tokenizer_open_bytes(bytes, json_size, config, strlen(config), "fuzz", &t, &err);
    CT_ASSERT((st == CT_OK) == (t != NULL));
    if (st != CT_OK) {
        CT_ASSERT(err.status == st && err.text[0]);
        CT_ASSERT(ct_utf8_valid(err.text, strlen(err.text)));
        return 0;
    }
    check_encoding(t, text, text_size, true);
    if (ct_chat_render(t, text, text_size, &rendered, &rendered_size, &err) == CT_OK) {
        check_encoding(t, rendered, rendered_size, false);
        free(rendered);
    }
    ct_tokenizer_close(t);
    return 0;
}
