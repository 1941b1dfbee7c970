/* fuzz_config.c - any bytes as config.json: refused with a text, or fields in range. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "io/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    ct_err err = {0};
    json_t *config;
    ct_status st = ct_json_parse((const char *)bytes, size, "config.json", &config, &err);
    CT_ASSERT((st == CT_OK) == (config != NULL));
    if (st != CT_OK) {
        CT_ASSERT(err.status == st && err.text[0] && ct_utf8_valid(err.text, strlen(err.text)));
        return 0;
    }
    static const char *const keys[] = {"hidden_size", "num_hidden_layers", "rope_theta",
                                       "block_types", "model_type",        "tie_word_embeddings"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        int64_t whole = 7;
        double real = 0.5;
        bool yes = true;
        const char *text = "";
        const json_t *list = NULL;
        if (ct_json_int(config, keys[k], k % 2, 1, 1 << 20, "config.json", &whole, &err) == CT_OK)
            CT_ASSERT(whole >= 1 && whole <= 1 << 20);
        if (ct_json_real(config, keys[k], k % 2, 0, 1e6, "config.json", &real, &err) == CT_OK)
            CT_ASSERT(isfinite(real) && real >= 0 && real <= 1e6);
        if (ct_json_bool(config, keys[k], k % 2, "config.json", &yes, &err) == CT_OK)
            CT_ASSERT(yes == 0 || yes == 1);
        if (ct_json_text(config, keys[k], k % 2, "config.json", &text, &err) == CT_OK)
            CT_ASSERT(ct_utf8_valid(text, strlen(text)));
        if (ct_json_texts(config, keys[k], k % 2, "config.json", &list, &err) == CT_OK && list)
            CT_ASSERT(json_is_array(list));
        CT_ASSERT(ct_utf8_valid(err.text, strlen(err.text)));
    }
    json_decref(config);
    return 0;
}
