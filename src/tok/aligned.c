/* aligned.c - text with the ranges it stands for. See aligned.h. */
#include "tok/aligned.h"

#include <stdlib.h>
#include <string.h>

void ct_aligned_clear(ct_aligned *aligned)
{
    free(aligned->text);
    free(aligned->begin);
    free(aligned->end);
    *aligned = (ct_aligned){0};
}

size_t ct_growth_limit(size_t size)
{
    size_t limit = size < CT_ALIGNED_MAX / 64 ? 64 * size + 4096 : CT_ALIGNED_MAX;
    return limit < CT_ALIGNED_MAX ? limit : CT_ALIGNED_MAX;
}

ct_status ct_aligned_reserve(ct_aligned *aligned, size_t extra, ct_err *err)
{
    size_t max = aligned->max ? aligned->max : CT_ALIGNED_MAX;
    if (aligned->size > max || extra > max - aligned->size)
        return ct_fail(err, CT_ERR_LIMIT,
                       "text: expected at most %zu bytes after normalization: does a step of "
                       "tokenizer.json multiply it?",
                       max);
    size_t need = aligned->size + extra;
    if (need <= aligned->capacity) return CT_OK;
    size_t capacity = aligned->capacity * 2 > need ? aligned->capacity * 2 : need + 64;
    /* Each pointer is kept as soon as it moved, so that a failure in between leaks nothing. */
    char *text = realloc(aligned->text, capacity);
    if (text) aligned->text = text;
    uint32_t *begin = realloc(aligned->begin, capacity * sizeof *begin);
    if (begin) aligned->begin = begin;
    uint32_t *end = realloc(aligned->end, capacity * sizeof *end);
    if (end) aligned->end = end;
    if (!text || !begin || !end) return ct_fail_memory(err, "text", capacity * 9);
    aligned->capacity = capacity;
    return CT_OK;
}

ct_status ct_aligned_add(ct_aligned *aligned, const char *bytes, size_t size, uint32_t begin,
                         uint32_t end, ct_err *err)
{
    ct_status st = ct_aligned_reserve(aligned, size, err);
    if (st != CT_OK) return st;
    for (size_t i = 0; i < size; i++) {
        aligned->text[aligned->size] = bytes[i];
        aligned->begin[aligned->size] = begin;
        aligned->end[aligned->size++] = end;
    }
    return CT_OK;
}

ct_status ct_aligned_add_part(ct_aligned *aligned, const ct_aligned *other, size_t from, size_t to,
                              ct_err *err)
{
    size_t size = to - from;
    ct_status st = ct_aligned_reserve(aligned, size, err);
    if (st != CT_OK || size == 0) return st;
    memcpy(aligned->text + aligned->size, other->text + from, size);
    memcpy(aligned->begin + aligned->size, other->begin + from, size * sizeof *other->begin);
    memcpy(aligned->end + aligned->size, other->end + from, size * sizeof *other->end);
    aligned->size += size;
    return CT_OK;
}

ct_status ct_aligned_add_original(ct_aligned *aligned, const char *bytes, size_t size,
                                  uint32_t offset, ct_err *err)
{
    ct_status st = ct_aligned_reserve(aligned, size, err);
    if (st != CT_OK) return st;
    for (size_t i = 0; i < size;) {
        unsigned char lead = (unsigned char)bytes[i];
        size_t n = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        for (size_t j = 0; j < n; j++) {
            aligned->text[aligned->size] = bytes[i + j];
            aligned->begin[aligned->size] = offset + (uint32_t)i;
            aligned->end[aligned->size++] = offset + (uint32_t)(i + n);
        }
        i += n;
    }
    return CT_OK;
}
