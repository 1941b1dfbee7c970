/* tensors.c - a folder's tensors, their shape and type checked against what is asked. See load.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "load/folder.h"

const char *ct_folder_path(const ct_folder *folder)
{
    return folder->path;
}

size_t ct_folder_tensor_count(const ct_folder *folder)
{
    return folder->count;
}

const char *ct_folder_tensor_name(const ct_folder *folder, size_t i)
{
    CT_ASSERT(i < folder->count);
    return folder->tensors[i].st->name;
}

ct_folder_entry ct_folder_get(const ct_folder *folder, size_t i)
{
    CT_ASSERT(i < folder->count);
    const ct_st_tensor *t = folder->tensors[i].st;
    return (ct_folder_entry){.name = t->name,
                             .dtype = t->dtype,
                             .file = folder->tensors[i].shard->name,
                             .rank = t->rank,
                             .shape = t->shape,
                             .count = t->count,
                             .size_bytes = t->size_bytes};
}

int64_t ct_folder_nonfinite(const ct_folder *folder, size_t i)
{
    static const struct {
        char dtype[8];
        uint64_t exponent; /* all ones: infinite or NaN */
    } kinds[] = {
        {"F32", 0x7F800000u}, {"BF16", 0x7F80u}, {"F16", 0x7C00u}, {"F64", 0x7FF0000000000000u}};
    CT_ASSERT(i < folder->count);
    const ct_st_tensor *t = folder->tensors[i].st;
    uint64_t mask = 0;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        if (strcmp(kinds[k].dtype, t->dtype) == 0) mask = kinds[k].exponent;
    if (mask == 0 || t->count == 0) return 0;
    size_t element = t->size_bytes / (size_t)t->count;
    const char *data = t->data;
    int64_t found = 0;
#pragma omp parallel for reduction(+ : found) if (t->count > 1 << 20)
    for (int64_t j = 0; j < t->count; j++) {
        uint64_t bits = 0; /* little-endian, as the format */
        memcpy(&bits, data + (size_t)j * element, element);
        found += (bits & mask) == mask;
    }
    return found;
}

static const char *shape_text(const int64_t *shape, int rank, char out[192])
{
    size_t n = (size_t)snprintf(out, 192, "[");
    for (int i = 0; i < rank; i++)
        n += (size_t)snprintf(out + n, 192 - n, "%s%" PRId64, i ? ", " : "", shape[i]);
    snprintf(out + n, 192 - n, "]");
    return out;
}

/* Finds a tensor and checks that it has this shape and elements that the operations know. */
static ct_status find(const ct_folder *folder, const char *name, const int64_t *shape, int rank,
                      folder_tensor **out, ct_dtype *dtype, ct_err *err)
{
    CT_ASSERT(rank >= 0 && rank <= CT_ST_MAX_RANK);
    char expected[192], got[192];
    folder_tensor *t = folder_find(folder, name);
    if (!t)
        return ct_fail(err, CT_ERR_NOT_FOUND,
                       "%s: tensor \"%s\": expected shape %s, got no such tensor; does config.json "
                       "belong to these weights?",
                       folder->path, name, shape_text(shape, rank, expected));
    if (t->st->rank != rank ||
        (rank > 0 && memcmp(t->st->shape, shape, (size_t)rank * sizeof *shape) != 0))
        return ct_fail(
            err, CT_ERR_VALUE,
            "%s/%s: tensor \"%s\": expected shape %s, got %s; does config.json belong to "
            "these weights?",
            folder->path, t->shard->name, name, shape_text(shape, rank, expected),
            shape_text(t->st->shape, t->st->rank, got));
    if (strcmp(t->st->dtype, "F32") == 0) *dtype = CT_F32;
    else if (strcmp(t->st->dtype, "BF16") == 0) *dtype = CT_BF16;
    else if (strcmp(t->st->dtype, "F16") == 0) *dtype = CT_F16;
    else
        return ct_fail(err, CT_ERR_UNSUPPORTED,
                       "%s/%s: tensor \"%s\": expected F32, BF16 or F16, got %s", folder->path,
                       t->shard->name, name, t->st->dtype);
    *out = t;
    return CT_OK;
}

/* The tensor's data where its elements are aligned. Threads that ask at once for the first time may
 * all copy; one copy wins. */
static ct_status aligned_data(folder_tensor *t, size_t element, const void **out, ct_err *err)
{
    *out = t->st->data;
    if ((uintptr_t)t->st->data % element == 0) return CT_OK;
    void *copy = atomic_load(&t->aligned);
    if (!copy) {
        void *mine = malloc(t->st->size_bytes + 1);
        if (!mine) return ct_fail_memory(err, t->st->name, t->st->size_bytes);
        memcpy(mine, t->st->data, t->st->size_bytes);
        if (atomic_compare_exchange_strong(&t->aligned, &copy, mine)) copy = mine;
        else free(mine);
    }
    *out = copy;
    return CT_OK;
}

ct_status ct_folder_tensor(const ct_folder *folder, const char *name, const int64_t *shape,
                           int rank, ct_matrix *out, ct_err *err)
{
    folder_tensor *t;
    *out = (ct_matrix){0};
    ct_dtype dtype;
    ct_status st = find(folder, name, shape, rank, &t, &dtype, err);
    if (st != CT_OK) return st;
    const void *data;
    st = aligned_data(t, dtype == CT_F32 ? 4 : 2, &data, err);
    if (st != CT_OK) return st;
    out->data = data;
    out->dtype = dtype;
    out->rows = rank > 0 ? shape[0] : 1;
    out->cols = 1;
    for (int i = 1; i < rank; i++) out->cols *= shape[i]; /* the file's own shape: no overflow */
    return CT_OK;
}

ct_status ct_folder_vector(const ct_folder *folder, const char *name, const int64_t *shape,
                           int rank, float **out, ct_err *err)
{
    folder_tensor *t;
    *out = NULL;
    ct_dtype dtype;
    ct_status st = find(folder, name, shape, rank, &t, &dtype, err);
    if (st != CT_OK) return st;
    size_t count = (size_t)t->st->count; /* count * 2 fits int64, so count * 4 fits size_t */
    float *values = malloc(count * sizeof *values + 1);
    if (!values) return ct_fail_memory(err, name, count * sizeof *values);
    if (dtype == CT_F32) {
        if (count) memcpy(values, t->st->data, count * sizeof *values);
    } else {
        const char *data = t->st->data;
        for (size_t i = 0; i < count; i++) { /* element by element: it may be misaligned */
            uint16_t bits;
            memcpy(&bits, data + i * sizeof bits, sizeof bits);
            values[i] = ct_dtype_get(&bits, dtype, 0);
        }
    }
    *out = values;
    return CT_OK;
}
