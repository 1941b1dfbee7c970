/* synth.h - random weights of any size, the same bits on every machine and backend.
 *
 * Owns the numbers and the files; which tensors there are comes from the model layer. Element i of
 * a tensor is offset + scale * (2u - 1), u being 24 random bits of (seed, stream of the name, i):
 * no transcendental function, no order, no state.
 */
#ifndef CT_LOAD_SYNTH_H
#define CT_LOAD_SYNTH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "op/op.h"
#include <cortado/status.h>

typedef struct ct_synth_tensor {
    const char *name;
    int rank;
    int64_t shape[8];
    float scale, offset; /* values are uniform in [offset - scale, offset + scale) */
} ct_synth_tensor;

/* The random stream of a tensor: the low half of its name's XXH3-128. */
static inline uint64_t ct_synth_stream(const char *name)
{
    return ct_hash_bytes(name, strlen(name)).low;
}

/* Element i. */
static inline float ct_synth_value(uint64_t seed, uint64_t stream, uint64_t i, float scale,
                                   float offset)
{
    return ct_rng_uniform(seed, stream, i, scale, offset);
}

/* Writes DIR/model.safetensors with n tensors as CT_F32 or CT_BF16 (rounded to nearest even), or
 * shards of at most 4,000,000,000 bytes (or one tensor) and their index if there is more than that,
 * and copies config_path to DIR/config.json. Makes DIR; replaces weights that are there. */
ct_status ct_synth_write(const char *dir, const char *config_path, const ct_synth_tensor *tensors,
                         size_t n, uint64_t seed, ct_dtype dtype, ct_err *err) CT_CHECK;
/* Same with shards of another size. */
ct_status ct_synth_write_shards(const char *dir, const char *config_path,
                                const ct_synth_tensor *tensors, size_t n, uint64_t seed,
                                ct_dtype dtype, uint64_t shard_bytes, ct_err *err) CT_CHECK;

/* Bytes of the host's memory that random weights may take; INT64_MAX: not known. */
int64_t ct_synth_host_memory(void);

#endif
