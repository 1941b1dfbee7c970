/* safetensors_write.c - writing safetensors files, in one call or in pieces. See safetensors.h. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/file.h"
#include "io/safetensors.h"

struct ct_st_writer {
    ct_sink *sink;
    char *path;
    uint64_t expected, written; /* bytes of data */
};

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static ct_status check_names(const char *path, const ct_st_out *tensors, size_t n, ct_err *err)
{
    const char **names = calloc(n + 1, sizeof *names);
    if (!names) return ct_fail_memory(err, path, (n + 1) * sizeof *names);
    ct_status st = CT_OK;
    for (size_t i = 0; i < n; i++) names[i] = tensors[i].name;
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n && st == CT_OK; i++) {
        if (strcmp(names[i], "__metadata__") == 0 || !ct_utf8_valid(names[i], strlen(names[i])))
            st = ct_fail(err, CT_ERR_VALUE, "%s: \"%s\" cannot be a tensor's name", path, names[i]);
        else if (i > 0 && strcmp(names[i - 1], names[i]) == 0)
            st = ct_fail(err, CT_ERR_VALUE, "%s: expected each tensor once, got \"%s\" twice", path,
                         names[i]);
    }
    free(names);
    return st;
}

static ct_status add_quoted(ct_buf *buf, const char *text, ct_err *err)
{
    ct_status st;
    CT_TRY(ct_buf_adds(buf, "\"", err));
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c < 0x20) CT_TRY(ct_buf_addf(buf, err, "\\u%04x", c));
        else if (c == '"' || c == '\\') CT_TRY(ct_buf_addf(buf, err, "\\%c", c));
        else CT_TRY(ct_buf_add(buf, p, 1, err));
    }
    CT_TRY(ct_buf_adds(buf, "\"", err));
done:
    return st;
}

/* One tensor's entry; *offset moves on by its bytes. */
static ct_status add_entry(ct_buf *buf, const char *path, const ct_st_out *t, uint64_t *offset,
                           ct_err *err)
{
    ct_status st = CT_OK;
    size_t element = ct_st_dtype_bytes(t->dtype);
    if (element == 0)
        return ct_fail(err, CT_ERR_VALUE, "%s: tensor \"%s\": unknown dtype \"%s\"", path, t->name,
                       t->dtype);
    if (t->rank < 0 || t->rank > CT_ST_MAX_RANK)
        return ct_fail(err, CT_ERR_LIMIT, "%s: tensor \"%s\": expected a rank of 0 to %d, got %d",
                       path, t->name, CT_ST_MAX_RANK, t->rank);
    CT_TRY(ct_buf_adds(buf, ",", err));
    CT_TRY(add_quoted(buf, t->name, err));
    CT_TRY(ct_buf_addf(buf, err, ":{\"dtype\":\"%s\",\"shape\":[", t->dtype));
    int64_t bytes = (int64_t)element;
    for (int i = 0; i < t->rank; i++) {
        if (t->shape[i] < 0 || __builtin_mul_overflow(bytes, t->shape[i], &bytes))
            return ct_fail(err, CT_ERR_VALUE,
                           "%s: tensor \"%s\": dimension %d is %" PRId64 ": negative or too large",
                           path, t->name, i, t->shape[i]);
        CT_TRY(ct_buf_addf(buf, err, "%s%" PRId64, i ? "," : "", t->shape[i]));
    }
    if ((uint64_t)bytes != t->size_bytes || *offset + t->size_bytes > INT64_MAX)
        return ct_fail(err, CT_ERR_VALUE,
                       "%s: tensor \"%s\": expected %" PRId64 " bytes for its shape, got %zu", path,
                       t->name, bytes, t->size_bytes);
    CT_TRY(ct_buf_addf(buf, err, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", *offset,
                       *offset + t->size_bytes));
    *offset += t->size_bytes;
done:
    return st;
}

ct_status ct_st_writer_begin(const char *path, const ct_st_out *tensors, size_t n,
                             ct_st_writer **out, ct_err *err)
{
    *out = NULL;
    ct_status st = CT_OK;
    ct_buf header = {0};
    ct_st_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return ct_fail_memory(err, path, sizeof *writer);
    CT_TRY(check_names(path, tensors, n, err));
    CT_TRY(ct_buf_adds(&header, "{\"__metadata__\":{\"format\":\"pt\"}", err));
    for (size_t i = 0; i < n; i++)
        CT_TRY(add_entry(&header, path, &tensors[i], &writer->expected, err));
    CT_TRY(ct_buf_adds(&header, "}", err));
    while (header.size % 8) CT_TRY(ct_buf_adds(&header, " ", err));
    if (header.size > CT_ST_MAX_HEADER) {
        st = ct_fail(err, CT_ERR_LIMIT, "%s: expected a header of at most %d bytes, got %zu", path,
                     CT_ST_MAX_HEADER, header.size);
        goto done;
    }
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)header.size >> 8 * i);
    writer->path = ct_strdup(path, err);
    if (!writer->path) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    CT_TRY(ct_sink_begin(path, &writer->sink, err));
    CT_TRY(ct_sink_write(writer->sink, length, sizeof length, err));
    CT_TRY(ct_sink_write(writer->sink, header.data, header.size, err));
    *out = writer;
    writer = NULL;
done:
    ct_buf_clear(&header);
    if (writer) (void)!ct_st_writer_end(writer, 0, NULL);
    return st;
}

ct_status ct_st_writer_add(ct_st_writer *writer, const void *bytes, size_t size, ct_err *err)
{
    if (size > writer->expected - writer->written)
        return ct_fail(err, CT_ERR_VALUE, "%s: expected %" PRIu64 " bytes of data, got more",
                       writer->path, writer->expected);
    writer->written += size;
    return ct_sink_write(writer->sink, bytes, size, err);
}

ct_status ct_st_writer_end(ct_st_writer *writer, int commit, ct_err *err)
{
    if (!writer) return CT_OK;
    ct_status st = CT_OK;
    if (commit && writer->written != writer->expected) {
        st = ct_fail(err, CT_ERR_VALUE, "%s: expected %" PRIu64 " bytes of data, got %" PRIu64,
                     writer->path, writer->expected, writer->written);
        commit = 0;
    }
    ct_status end = ct_sink_end(writer->sink, commit, err);
    free(writer->path);
    free(writer);
    return st != CT_OK ? st : end;
}

ct_status ct_st_write(const char *path, const ct_st_out *tensors, size_t n, ct_err *err)
{
    ct_st_writer *writer;
    ct_status st = ct_st_writer_begin(path, tensors, n, &writer, err);
    if (st != CT_OK) return st;
    for (size_t i = 0; i < n && st == CT_OK; i++)
        st = ct_st_writer_add(writer, tensors[i].data, tensors[i].size_bytes, err);
    ct_status end = ct_st_writer_end(writer, st == CT_OK, err);
    return st != CT_OK ? st : end;
}
