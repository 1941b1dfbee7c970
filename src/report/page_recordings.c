/* page_recordings.c - recordings of the page's cells, as JSON: the last recorded row of each stage.
 *
 * Weights are put into at most BINS bins of positions, each with its largest weight, in units of
 * 1/10000. A file that is not what a recording is gives its error instead.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "io/safetensors.h"
#include "report/page_data.h"

enum { BINS = 160, CELLS_MAX = 64, HEADS_MAX = 1 << 16 };

/* The tensor STAGE.NAME if it is there with this type and leading shape, else NULL. */
static const ct_st_tensor *tensor_of(const ct_st_file *file, const char *stage, const char *name,
                                     const char *dtype, int rank, const int64_t *shape)
{
    char full[64];
    snprintf(full, sizeof full, "%s.%s", stage, name);
    const ct_st_tensor *t = ct_st_find(file, full);
    if (!t || strcmp(t->dtype, dtype) != 0 || t->rank != rank) return NULL;
    for (int i = 0; shape && i < 3; i++)
        if (t->shape[i] != shape[i]) return NULL;
    return t;
}

static float float_at(const ct_st_tensor *t, int64_t i)
{
    float x;
    memcpy(&x, (const char *)t->data + i * (int64_t)sizeof x, sizeof x);
    return x;
}

static int32_t int_at(const ct_st_tensor *t, int64_t i)
{
    int32_t x;
    memcpy(&x, (const char *)t->data + i * (int64_t)sizeof x, sizeof x);
    return x;
}

/* A weight or share as a whole number; what is not from 0 to 1 is 0. */
static int share(float x)
{
    return x > 0 && x <= 1.001f ? (int)(x * 10000 + 0.5f) : 0;
}

/* "name":[...] of the last row's heads. */
static ct_status numbers_add(const ct_st_tensor *t, const char *name, int64_t rows, int64_t heads,
                             ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    if (!t) return CT_OK;
    CT_TRY(ct_buf_addf(out, err, ",\"%s\":[", name));
    for (int64_t i = (rows - 1) * heads; i < rows * heads; i++) {
        if (i > (rows - 1) * heads) CT_TRY(ct_buf_adds(out, ",", err));
        if (t->dtype[0] == 'U')
            CT_TRY(ct_buf_addf(out, err, "%d", ((const uint8_t *)t->data)[i] != 0));
        else if (t->dtype[0] == 'I') CT_TRY(ct_buf_addf(out, err, "%" PRId32, int_at(t, i)));
        else if (strcmp(name, "entropy") == 0) {
            float x = float_at(t, i);
            CT_TRY(ct_buf_addf(out, err, "%d", x > 0 && x < 64 ? (int)(x * 100 + 0.5f) : 0));
        } else CT_TRY(ct_buf_addf(out, err, "%d", share(float_at(t, i))));
    }
    CT_TRY(ct_buf_adds(out, "]", err));
done:
    return st;
}

static ct_status weights_add(const ct_st_tensor *t, const char *name, int64_t rows, int64_t heads,
                             ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    if (!t || t->shape[3] <= 0) return CT_OK;
    int64_t keys = t->shape[3], bins = keys < BINS ? keys : BINS;
    CT_TRY(ct_buf_addf(out, err, ",\"keys\":%" PRId64 ",\"%s\":[", keys, name));
    for (int64_t h = 0; h < heads; h++) {
        CT_TRY(ct_buf_adds(out, h ? ",[" : "[", err));
        for (int64_t b = 0; b < bins; b++) {
            int most = 0;
            for (int64_t k = b * keys / bins; k < (b + 1) * keys / bins; k++) {
                int w = share(float_at(t, ((rows - 1) * heads + h) * keys + k));
                most = w > most ? w : most;
            }
            CT_TRY(ct_buf_addf(out, err, "%s%d", b ? "," : "", most));
        }
        CT_TRY(ct_buf_adds(out, "]", err));
    }
    CT_TRY(ct_buf_adds(out, "]", err));
done:
    return st;
}

static ct_status stage_add(const ct_st_file *file, const char *stage, bool *first, ct_buf *out,
                           ct_err *err)
{
    static const struct {
        const char *name, *dtype, *out;
    } parts[] = {{"entropy_bits", "F32", "entropy"},
                 {"needle_before", "F32", "needle_before"},
                 {"needle_after", "F32", "needle_after"},
                 {"peak_weight", "F32", "peak_weight"},
                 {"peak", "I32", "peak"},
                 {"heads_kept", "U8", "kept"}};
    ct_status st = CT_OK;
    const ct_st_tensor *layers = ct_st_find(file, "layers"), *any = NULL;
    const ct_st_tensor *positions = tensor_of(file, stage, "positions", "I32", 1, NULL);
    if (!positions || positions->count == 0) return CT_OK;
    for (size_t i = 0; !any && i < sizeof parts / sizeof *parts; i++)
        any = tensor_of(file, stage, parts[i].name, parts[i].dtype, 3, NULL);
    if (!any) any = tensor_of(file, stage, "weights_before", "F32", 4, NULL);
    if (!layers || strcmp(layers->dtype, "I32") != 0 || layers->rank != 1 || !any ||
        any->shape[0] != positions->count || any->shape[1] != layers->count || any->count == 0 ||
        any->shape[1] > HEADS_MAX || any->shape[2] > HEADS_MAX)
        return ct_fail(err, CT_ERR_FORMAT, "recording: expected the tensors of a recording");
    int64_t rows = any->shape[0], heads = any->shape[1] * any->shape[2];
    CT_TRY(ct_buf_addf(out, err, "%s{\"stage\":\"%s\",\"position\":%" PRId32 ",\"heads\":%" PRId64,
                       *first ? "" : ",", stage, int_at(positions, rows - 1), any->shape[2]));
    *first = false;
    CT_TRY(ct_buf_adds(out, ",\"layers\":[", err));
    for (int64_t i = 0; i < layers->count; i++)
        CT_TRY(ct_buf_addf(out, err, "%s%" PRId32, i ? "," : "", int_at(layers, i)));
    CT_TRY(ct_buf_adds(out, "]", err));
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        CT_TRY(numbers_add(tensor_of(file, stage, parts[i].name, parts[i].dtype, 3, any->shape),
                           parts[i].out, rows, heads, out, err));
    CT_TRY(weights_add(tensor_of(file, stage, "weights_before", "F32", 4, any->shape), "before",
                       rows, heads, out, err));
    CT_TRY(weights_add(tensor_of(file, stage, "weights_after", "F32", 4, any->shape), "after", rows,
                       heads, out, err));
    CT_TRY(ct_buf_adds(out, "}", err));
done:
    return st;
}

/* The rows of one file, as a list. */
static ct_status file_add(const char *path, ct_buf *out, ct_err *err)
{
    ct_st_file *file = NULL;
    bool first = true;
    ct_status st;
    CT_TRY(ct_st_open(path, &file, err));
    CT_TRY(ct_buf_adds(out, "[", err));
    CT_TRY(stage_add(file, "generation", &first, out, err));
    CT_TRY(stage_add(file, "prefill", &first, out, err));
    CT_TRY(ct_buf_adds(out, "]", err));
done:
    ct_st_close(file);
    return st;
}

/* "index": rows or an error's text, if one of the runs has a recording of the cell. */
static ct_status cell_add(const ct_report_runs *runs, size_t index, size_t *n, ct_buf *out,
                          ct_err *err)
{
    ct_status st = CT_OK;
    char *path = NULL;
    ct_buf rows = {0};
    for (size_t r = 0; r < runs->n; r++) {
        if (!runs->runs[r].dir) continue; /* cells from an array */
        path = ct_strf(err, "%s/recordings/%s.safetensors", runs->runs[r].dir,
                       runs->stats->cells[index].key);
        if (!path) return CT_ERR_MEMORY;
        if (access(path, R_OK) == 0) break;
        free(path);
        path = NULL;
    }
    if (!path) return CT_OK;
    ++*n;
    if (*n > CELLS_MAX) goto done;
    CT_TRY(ct_buf_addf(out, err, "%s\n\"%zu\":", *n > 1 ? "," : "", index));
    ct_err why = {0};
    st = file_add(path, &rows, &why);
    if (st == CT_ERR_MEMORY) *err = why;
    else if (st != CT_OK) st = ct_page_json_text(out, why.text, err);
    else st = ct_buf_adds(out, rows.data, err);
done:
    ct_buf_clear(&rows);
    free(path);
    return st;
}

ct_status ct_page_recordings(const ct_report_runs *runs, ct_buf *out, ct_err *err)
{
    ct_status st;
    size_t n = 0;
    ct_err own = {0};
    if (!err) err = &own;
    CT_TRY(ct_buf_adds(out, "{", err));
    for (size_t i = 0; i < runs->stats->n_cells; i++) CT_TRY(cell_add(runs, i, &n, out, err));
    CT_TRY(ct_buf_addf(out, err, "},\n\"recorded\":[%zu,%d]", n, CELLS_MAX));
done:
    return st;
}
