/* state.h - the state of one sequence: KV blocks and recurrent state.
 *
 * Owns their memory. Keys and values lie in blocks of 64 positions, each holding all attention
 * layers: [attention layers, 2 (k, v), 64, G, D], f32 or bf16 as the backend has it. Blocks are reference
 * counted, shared by forks, copied before a write if shared, and dropped once no later query can see them.
 * The recurrent state of all layers is one small array, copied on fork. Both have a part on each place of
 * the model, with that place's layers. Bytes of a sequence:
 *   state_bytes_fixed + state_bytes_per_block * live blocks,
 * live blocks = positions / 64 rounded up, at most (window + 63) / 64 + 1 with a window. Different sequences
 * may be used by different threads at once, also where they share blocks.
 */
#ifndef CT_MODEL_STATE_H
#define CT_MODEL_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <cortado/engine.h>

#include "model/model.h"

typedef struct ct_kv_block {
    atomic_int references;
    void *data
        []; /* [places] the place's: [its attention layers, 2, 64, G, D] in the cache's type; NULL: it
                     has none */
} ct_kv_block;

struct ct_sequence {
    const ct_model *model;
    int64_t position;            /* tokens consumed */
    float *fixed[CT_PLACES_MAX]; /* recurrent state on each place, each layer at its state_offset */
    ct_kv_block **blocks;        /* [n_blocks] by position / 64; NULL: dropped */
    int64_t n_blocks, capacity;
    int64_t first_block; /* blocks before it are dropped */
    bool in_step;        /* set while a step lists it, to find one that is listed twice */
};

/* Makes positions position .. position+count-1 writable: allocates their blocks and copies a block
 * that is shared. On an error the sequence is as before, but for blocks that are not yet used. */
ct_status ct_sequence_reserve(ct_sequence *sequence, int64_t count, ct_err *err) CT_CHECK;
/* list[b] = the part of block b on a place, or NULL; [n_blocks]. */
void ct_sequence_list_blocks(const ct_sequence *sequence, int place, const void **list);
/* Replaces a block that other sequences have too by a copy of it. */
ct_status ct_sequence_own_block(ct_sequence *sequence, int64_t block, ct_err *err) CT_CHECK;
/* Moves position on by count and drops the blocks that a query from there on, which sees `window`
 * previous tokens (< 0: all), cannot see. */
void ct_sequence_advance(ct_sequence *sequence, int64_t count, int64_t window);

#endif
