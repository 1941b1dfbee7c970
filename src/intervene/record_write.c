/* record_write.c - a recording as safetensors. The tensors: docs/RECORDINGS.md. */
#include <stdio.h>
#include <stdlib.h>

#include "base/err.h"
#include "intervene/record.h"
#include "io/safetensors.h"

enum { TENSORS = 3 + CT_STAGE_COUNT * 9, NAME = 48 };

typedef struct tensors {
    ct_st_out list[TENSORS];
    int64_t shape[TENSORS][4];
    char name[TENSORS][NAME];
    size_t n;
    /* Where list[i] has fewer columns than its memory: those of the memory. Else 0. */
    int64_t stride[TENSORS];
} tensors;

static void add(tensors *t, const char *stage, const char *name, const char *dtype, int rank,
                const int64_t *shape, const void *data)
{
    size_t i = t->n++;
    int64_t bytes = (int64_t)ct_st_dtype_bytes(dtype);
    for (int d = 0; d < rank; d++) bytes *= t->shape[i][d] = shape[d];
    snprintf(t->name[i], NAME, "%s%s%s", stage, *stage ? "." : "", name);
    t->list[i] = (ct_st_out){t->name[i], dtype, rank, t->shape[i], data, (size_t)bytes};
}

/* The columns that the track's queries may see. */
static int64_t columns(const ct_recording *r, ct_stage stage)
{
    const ct_record_track *t = &r->tracks[stage];
    if (stage == CT_STAGE_PREFILL || t->rows == 0) return t->keys;
    return t->position[t->rows - 1] + 1;
}

static void add_wide(tensors *to, const ct_recording *r, ct_stage stage)
{
    const ct_record_track *t = &r->tracks[stage];
    const char *name = ct_stage_name(stage);
    const int64_t shape[] = {t->rows, r->n_layers, r->heads, columns(r, stage)};
    add(to, name, "positions", "I32", 1, shape, t->position);
    if (t->before) {
        add(to, name, "weights_before", "F32", 4, shape, t->before);
        to->stride[to->n - 1] = t->keys;
        add(to, name, "weights_after", "F32", 4, shape, t->after);
        to->stride[to->n - 1] = t->keys;
    }
    if (!t->peak) return;
    add(to, name, "entropy_bits", "F32", 3, shape, t->entropy_bits);
    add(to, name, "needle_before", "F32", 3, shape, t->needle_before);
    add(to, name, "needle_after", "F32", 3, shape, t->needle_after);
    add(to, name, "peak_weight", "F32", 3, shape, t->peak_weight);
    add(to, name, "peak", "I32", 3, shape, t->peak);
}

static ct_status write_one(ct_st_writer *writer, const ct_st_out *t, int64_t stride, ct_err *err)
{
    if (stride == 0 || stride == t->shape[3])
        return ct_st_writer_add(writer, t->data, t->size_bytes, err);
    ct_status st = CT_OK;
    int64_t rows = t->shape[0] * t->shape[1] * t->shape[2];
    const float *data = t->data;
    for (int64_t i = 0; i < rows && st == CT_OK; i++)
        st = ct_st_writer_add(writer, data + i * stride, (size_t)t->shape[3] * sizeof *data, err);
    return st;
}

ct_status ct_recording_write(const ct_recording *r, const char *path, const int32_t *ids,
                             size_t count, bool sync, ct_err *err)
{
    ct_status st;
    ct_st_writer *writer = NULL;
    tensors *t = calloc(1, sizeof *t);
    int32_t *small = malloc(((size_t)r->n_layers + 2 * r->n_needle + 1) * sizeof *small);
    if (!t || !small) {
        st = ct_fail_memory(err, path, sizeof *t);
        goto done;
    }
    int32_t *needle = small + r->n_layers;
    for (int64_t i = 0; i < r->n_layers; i++) small[i] = (int32_t)r->layers[i];
    for (size_t i = 0; i < r->n_needle; i++) {
        needle[2 * i] = (int32_t)r->needle[i].begin;
        needle[2 * i + 1] = (int32_t)r->needle[i].end;
    }
    add(t, "", "ids", "I32", 1, (const int64_t[]){(int64_t)count}, ids);
    add(t, "", "layers", "I32", 1, &r->n_layers, small);
    add(t, "", "needle", "I32", 2, (const int64_t[]){(int64_t)r->n_needle, 2}, needle);
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++)
        if (r->stages[stage]) add_wide(t, r, (ct_stage)stage);
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++) { /* bytes last, so that all is aligned */
        const ct_record_track *track = &r->tracks[stage];
        const int64_t shape[] = {track->rows, r->n_layers, r->heads};
        if (r->stages[stage] && track->heads_kept)
            add(t, ct_stage_name((ct_stage)stage), "heads_kept", "U8", 3, shape, track->heads_kept);
    }
    CT_TRY(ct_st_writer_begin(path, t->list, t->n, &writer, err));
    for (size_t i = 0; i < t->n && st == CT_OK; i++)
        st = write_one(writer, &t->list[i], t->stride[i], err);
    ct_status end = ct_st_writer_end(writer, st != CT_OK ? 0 : sync ? 1 : CT_SINK_SYNC_LATER, err);
    if (st == CT_OK) st = end;
done:
    free(small);
    free(t);
    return st;
}
