/* fuzz_safetensors.c - any bytes are refused with a text, or give tensors that can be read whole.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/err.h"
#include "io/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    ct_err err = {0};
    ct_st_file *file;
    ct_status st = ct_st_open_bytes(bytes, size, "fuzz", &file, &err);
    CT_ASSERT((st == CT_OK) == (file != NULL));
    if (st != CT_OK) {
        CT_ASSERT(err.status == st && err.text[0] && ct_utf8_valid(err.text, strlen(err.text)));
        return 0;
    }
    volatile unsigned char sum = 0;
    size_t total = 0;
    for (size_t i = 0; i < ct_st_count(file); i++) {
        const ct_st_tensor *t = ct_st_get(file, i);
        int64_t count = 1;
        for (int d = 0; d < t->rank; d++) count *= t->shape[d];
        CT_ASSERT(count == t->count);
        CT_ASSERT(t->size_bytes == (size_t)count * ct_st_dtype_bytes(t->dtype));
        CT_ASSERT(ct_st_find(file, t->name) == t);
        const unsigned char *data = t->data;
        for (size_t j = 0; j < t->size_bytes; j++) sum = (unsigned char)(sum + data[j]);
        total += t->size_bytes;
    }
    CT_ASSERT(total <= size - 8); /* tensors tile the data: none is seen twice */
    ct_st_close(file);
    return 0;
}
