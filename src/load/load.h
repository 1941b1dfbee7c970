/* load.h - a Hugging Face model folder: config.json and its tensors by name.
 *
 * Owns finding shards (model.safetensors, or model.safetensors.index.json and its files) and the
 * lookup of tensors with their shape and type checked. Knows no architecture: the model layer asks
 * for names and shapes.
 */
#ifndef CT_LOAD_LOAD_H
#define CT_LOAD_LOAD_H

#include "io/json.h" /* config fields are read with its getters */
#include <stddef.h>
#include <stdint.h>

#include "op/op.h"
#include <cortado/status.h>

typedef struct ct_folder ct_folder;

enum { CT_CONFIG_MAX_BYTES = 1 << 20, CT_FOLDER_MAX_SHARDS = 10000 };

/* Opens config.json alone (any config.json-like file too: `path` may be a folder or the file). Its
 * fields are read with ct_json_int and its kin of io/json.h. */
ct_status ct_config_open(const char *path, json_t **config, ct_err *err) CT_CHECK;

/* Opens and maps a folder's tensors: model.safetensors, or if that is not there the shards that
 * model.safetensors.index.json names (plain file names of this folder). Index and shards must agree
 * on every tensor and on the total size, else CT_ERR_VALUE. Files stay mapped until
 * ct_folder_close and must not be overwritten in place until then (io/file.h). */
ct_status ct_folder_open(const char *dir, ct_folder **out, ct_err *err) CT_CHECK;
void ct_folder_close(ct_folder *folder);
const char *ct_folder_path(const ct_folder *folder);
size_t ct_folder_tensor_count(const ct_folder *folder);
/* Name of tensor i, in sorted order. */
const char *ct_folder_tensor_name(const ct_folder *folder, size_t i);
/* Everything about tensor i but its data; borrowed from the folder. */
typedef struct ct_folder_entry {
    const char *name, *dtype; /* dtype as in the file, such as "BF16" */
    const char *file;         /* the shard's name inside the folder */
    int rank;
    const int64_t *shape; /* [rank] */
    int64_t count;        /* product of shape */
    size_t size_bytes;
} ct_folder_entry;
ct_folder_entry ct_folder_get(const ct_folder *folder, size_t i);
/* How many elements of tensor i are NaN or infinite (they are allowed); 0 for integers. Reads the
 * whole tensor. */
int64_t ct_folder_nonfinite(const ct_folder *folder, size_t i);
/* Bytes of tensor data that come from storage in a second, measured on pieces that are not in memory
 * now: at most max_bytes of them, spread over all files, and not much longer than max_ms. 0: every
 * piece that was looked at is in memory, or that cannot be told. */
double ct_folder_read_rate(const ct_folder *folder, size_t max_bytes, double max_ms);
/* XXH3-128 over config.json's bytes and every tensor's name, dtype, shape and data (32 hex digits),
 * in order of names: how tensors are spread over shards does not matter. Hashed once and remembered
 * by device, inode, size and times under $XDG_CACHE_HOME/cortado (a cache that cannot be read or
 * written is ignored). */
ct_status ct_folder_hash(ct_folder *folder, const char **hex, ct_err *err) CT_CHECK;

/* A tensor of any rank as it stands in the map (f32, f16 or bf16), whose shape must be `shape`; rows =
 * shape[0] and cols = the rest multiplied. It is aligned to its element: a tensor that the file holds
 * misaligned is copied once, and the copy belongs to the folder. Any threads may ask at once. A missing
 * tensor is CT_ERR_NOT_FOUND, another shape CT_ERR_VALUE, another type CT_ERR_UNSUPPORTED, each with
 * the file, the name, what was expected and what is there. */
ct_status ct_folder_tensor(const ct_folder *folder, const char *name, const int64_t *shape,
                           int rank, ct_matrix *out, ct_err *err) CT_CHECK;
/* Same for a small tensor, widened to f32; the caller frees *out. */
ct_status ct_folder_vector(const ct_folder *folder, const char *name, const int64_t *shape,
                           int rank, float **out, ct_err *err) CT_CHECK;

#endif
