/* synth.c - random weights: shards, their index, and the numbers in pieces. See synth.h. */
#include "load/synth.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/file.h"
#include "io/memory.h"
#include "io/safetensors.h"
#include "load/load.h"

enum { PIECE = 1 << 20 }; /* elements made and written at a time */

typedef struct plan {
    const char *dir;
    const ct_synth_tensor *tensors;
    ct_st_out *outs;  /* [n] */
    size_t *shard;    /* [n] rising from 0 */
    size_t n, shards; /* shards >= 1 */
    uint64_t seed, total_bytes;
    ct_dtype dtype;
} plan;

static ct_status plan_make(plan *p, uint64_t shard_bytes, ct_err *err)
{
    p->outs = calloc(p->n + 1, sizeof *p->outs);
    p->shard = calloc(p->n + 1, sizeof *p->shard);
    if (!p->outs || !p->shard) return ct_fail_memory(err, "synth", p->n * sizeof *p->outs);
    if (p->dtype != CT_F32 && p->dtype != CT_BF16)
        return ct_fail(err, CT_ERR_UNSUPPORTED, "synth: expected f32 or bf16, got %s",
                       ct_dtype_name(p->dtype));
    uint64_t in_shard = 0;
    for (size_t i = 0; i < p->n; i++) {
        const ct_synth_tensor *t = &p->tensors[i];
        int64_t bytes = p->dtype == CT_F32 ? 4 : 2;
        bool good =
            t->rank >= 0 && t->rank <= CT_ST_MAX_RANK && isfinite(t->scale) && isfinite(t->offset);
        for (int d = 0; good && d < t->rank; d++)
            good = t->shape[d] >= 0 && !__builtin_mul_overflow(bytes, t->shape[d], &bytes);
        if (!good || __builtin_add_overflow(p->total_bytes, (uint64_t)bytes, &p->total_bytes) ||
            p->total_bytes > INT64_MAX)
            return ct_fail(
                err, CT_ERR_VALUE,
                "synth: tensor \"%s\": expected rank 0 to %d, dimensions that fit memory "
                "and finite scale and offset",
                t->name, CT_ST_MAX_RANK);
        if (in_shard > 0 && in_shard + (uint64_t)bytes > shard_bytes) {
            p->shards++;
            in_shard = 0;
        }
        in_shard += (uint64_t)bytes;
        p->shard[i] = p->shards - 1;
        p->outs[i] = (ct_st_out){.name = t->name,
                                 .dtype = p->dtype == CT_F32 ? "F32" : "BF16",
                                 .rank = t->rank,
                                 .shape = t->shape,
                                 .size_bytes = (size_t)bytes};
    }
    return CT_OK;
}

static void shard_name(const plan *p, size_t shard, char out[64])
{
    if (p->shards == 1) snprintf(out, 64, "model.safetensors");
    else snprintf(out, 64, "model-%05zu-of-%05zu.safetensors", shard + 1, p->shards);
}

/* Elements first .. first + count - 1 of a tensor; piece holds PIECE elements of either type. */
static void fill(const plan *p, const ct_synth_tensor *t, uint64_t first, int64_t count,
                 void *piece)
{
    uint64_t stream = ct_synth_stream(t->name);
    float *f32 = piece;
    uint16_t *bf16 = piece;
#pragma omp parallel for schedule(static) if (count > 1 << 16)
    for (int64_t i = 0; i < count; i++) {
        float x = ct_synth_value(p->seed, stream, first + (uint64_t)i, t->scale, t->offset);
        if (p->dtype == CT_F32) f32[i] = x;
        else bf16[i] = ct_f32_to_bf16(x);
    }
}

static ct_status write_shard(const plan *p, size_t begin, size_t end, void *piece, ct_err *err)
{
    ct_status st = CT_OK;
    ct_st_writer *writer = NULL;
    char name[64];
    shard_name(p, begin < p->n ? p->shard[begin] : 0, name);
    char *path = ct_path_join(p->dir, name, err);
    if (!path) return CT_ERR_MEMORY;
    CT_TRY(ct_st_writer_begin(path, p->outs + begin, end - begin, &writer, err));
    size_t element = p->dtype == CT_F32 ? 4 : 2;
    for (size_t i = begin; i < end; i++) {
        uint64_t count = p->outs[i].size_bytes / element;
        for (uint64_t first = 0; first < count; first += PIECE) {
            uint64_t here = count - first < PIECE ? count - first : PIECE;
            fill(p, &p->tensors[i], first, (int64_t)here, piece);
            CT_TRY(ct_st_writer_add(writer, piece, (size_t)here * element, err));
        }
    }
    st = ct_st_writer_end(writer, 1, err);
    writer = NULL;
done:
    if (writer) (void)!ct_st_writer_end(writer, 0, NULL);
    free(path);
    return st;
}

static ct_status write_index(const plan *p, const char *path, ct_err *err)
{
    ct_status st = CT_OK;
    char *text = NULL;
    json_t *map = json_object();
    json_t *index = json_pack("{s:{s:I}, s:O}", "metadata", "total_size",
                              (json_int_t)p->total_bytes, "weight_map", map);
    bool good = map && index;
    for (size_t i = 0; good && i < p->n; i++) {
        char name[64];
        shard_name(p, p->shard[i], name);
        good = json_object_set_new(map, p->outs[i].name, json_string(name)) == 0;
    }
    if (good) text = json_dumps(index, JSON_INDENT(2) | JSON_SORT_KEYS);
    st = text ? ct_file_write(path, text, strlen(text), err)
              : ct_fail_memory(err, path, p->n * sizeof *p->outs);
    free(text);
    json_decref(map);
    json_decref(index);
    return st;
}

static ct_status drop(const char *path, ct_err *err)
{
    return unlink(path) == 0 || errno == ENOENT ? CT_OK
                                                : ct_fail_errno(err, "%s: cannot remove", path);
}

ct_status ct_synth_write_shards(const char *dir, const char *config_path,
                                const ct_synth_tensor *tensors, size_t n, uint64_t seed,
                                ct_dtype dtype, uint64_t shard_bytes, ct_err *err)
{
    ct_status st = CT_OK;
    plan p = {.dir = dir, .tensors = tensors, .n = n, .shards = 1, .seed = seed, .dtype = dtype};
    char *config = NULL;
    size_t config_size;
    void *piece = malloc((size_t)PIECE * sizeof(float));
    char *single = ct_path_join(dir, "model.safetensors", err);
    char *index = ct_path_join(dir, "model.safetensors.index.json", err);
    char *config_out = ct_path_join(dir, "config.json", err);
    if (!piece || !single || !index || !config_out) {
        st = ct_fail_memory(err, "synth", (size_t)PIECE * sizeof(float));
        goto done;
    }
    CT_TRY(plan_make(&p, shard_bytes, err));
    CT_TRY(ct_file_read(config_path, CT_CONFIG_MAX_BYTES, &config, &config_size, err));
    CT_TRY(ct_dir_make(dir, err));
    CT_TRY(ct_file_write(config_out, config, config_size, err));
    for (size_t begin = 0, end; begin == 0 || begin < n; begin = end) {
        for (end = begin; end < n && p.shard[end] == p.shard[begin]; end++) {
        }
        CT_TRY(write_shard(&p, begin, end, piece, err));
        if (end == 0) break; /* no tensors at all: one empty file */
    }
    /* A folder holds one form: readers prefer the single file, whatever the index says. */
    CT_TRY(drop(p.shards > 1 ? single : index, err));
    if (p.shards > 1) CT_TRY(write_index(&p, index, err));
done:
    free(piece);
    free(single);
    free(index);
    free(config_out);
    free(config);
    free(p.outs);
    free(p.shard);
    return st;
}

ct_status ct_synth_write(const char *dir, const char *config_path, const ct_synth_tensor *tensors,
                         size_t n, uint64_t seed, ct_dtype dtype, ct_err *err)
{
    return ct_synth_write_shards(dir, config_path, tensors, n, seed, dtype, 4000000000u, err);
}

int64_t ct_synth_host_memory(void)
{
    int64_t available = ct_memory_read("").available_bytes;
    return available < 0 ? INT64_MAX : available;
}
