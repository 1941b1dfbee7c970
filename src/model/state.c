/* state.c - sequences: new, fork, grow, drop. See state.h. */
#include "model/state.h"

#include <stdlib.h>

#include "base/err.h"

static void block_free(const ct_model *model, ct_kv_block *block)
{
    for (int p = 0; p < model->n_places; p++)
        model->ops->free(model->places[p].device, block->data[p]);
    free(block);
}

static void block_release(const ct_model *model, ct_kv_block *block)
{
    if (block && atomic_fetch_sub(&block->references, 1) == 1) block_free(model, block);
}

/* Positions not yet written are never visible, but a kernel may load a whole block and mask it: what
 * it loads must be finite, and alloc gives zeros. */
static ct_status block_new(const ct_model *model, ct_kv_block **out, ct_err *err)
{
    size_t n = (size_t)model->n_places;
    ct_kv_block *block = calloc(1, sizeof *block + n * sizeof *block->data);
    if (!block) return ct_fail_memory(err, "KV block", sizeof *block);
    for (size_t p = 0; p < n; p++) {
        size_t bytes = (size_t)model->places[p].block_bytes;
        if (bytes == 0) continue;
        block->data[p] = model->ops->alloc(model->places[p].device, bytes);
        if (block->data[p]) continue;
        block_free(model, block);
        return ct_fail_memory(err, "KV block", bytes);
    }
    atomic_init(&block->references, 1);
    *out = block;
    return CT_OK;
}

ct_status ct_sequence_new(const ct_model *model, ct_sequence **out, ct_err *err)
{
    ct_sequence *s = calloc(1, sizeof *s);
    if (!s) return ct_fail_memory(err, "sequence", sizeof *s);
    s->model = model;
    for (int p = 0; p < model->n_places; p++) {
        size_t bytes = (size_t)model->places[p].state_bytes;
        s->fixed[p] = model->ops->alloc(model->places[p].device, bytes);
        if (s->fixed[p]) continue;
        ct_sequence_free(s);
        return ct_fail_memory(err, "recurrent state", bytes);
    }
    *out = s;
    return CT_OK;
}

ct_status ct_sequence_fork(const ct_sequence *sequence, ct_sequence **out, ct_err *err)
{
    ct_sequence *s = NULL;
    ct_status st = ct_sequence_new(sequence->model, &s, err);
    if (st != CT_OK) return st;
    size_t n = (size_t)sequence->n_blocks;
    s->blocks = malloc((n ? n : 1) * sizeof *s->blocks);
    if (!s->blocks) {
        ct_sequence_free(s);
        return ct_fail_memory(err, "KV block list", n * sizeof *s->blocks);
    }
    for (size_t i = 0; i < n; i++) {
        s->blocks[i] = sequence->blocks[i];
        if (s->blocks[i]) atomic_fetch_add(&s->blocks[i]->references, 1);
    }
    s->n_blocks = s->capacity = sequence->n_blocks;
    s->first_block = sequence->first_block;
    s->position = sequence->position;
    for (int p = 0; p < s->model->n_places; p++) {
        const ct_place *place = &s->model->places[p];
        s->model->ops->copy(place->device, s->fixed[p], sequence->fixed[p],
                            (size_t)place->state_bytes);
    }
    *out = s;
    return CT_OK;
}

void ct_sequence_free(ct_sequence *sequence)
{
    if (!sequence) return;
    for (int64_t i = 0; i < sequence->n_blocks; i++)
        block_release(sequence->model, sequence->blocks[i]);
    free(sequence->blocks);
    for (int p = 0; p < sequence->model->n_places; p++)
        sequence->model->ops->free(sequence->model->places[p].device, sequence->fixed[p]);
    free(sequence);
}

int64_t ct_sequence_position(const ct_sequence *sequence)
{
    return sequence->position;
}

int64_t ct_sequence_bytes(const ct_sequence *sequence)
{
    int64_t live = 0;
    for (int64_t i = 0; i < sequence->n_blocks; i++) live += sequence->blocks[i] != NULL;
    return sequence->model->info.state_bytes_fixed +
           live * sequence->model->info.state_bytes_per_block;
}

void ct_sequence_list_blocks(const ct_sequence *sequence, int place, const void **list)
{
    for (int64_t b = 0; b < sequence->n_blocks; b++)
        list[b] = sequence->blocks[b] ? sequence->blocks[b]->data[place] : NULL;
}

ct_status ct_sequence_own_block(ct_sequence *s, int64_t block, ct_err *err)
{
    if (atomic_load(&s->blocks[block]->references) == 1) return CT_OK;
    ct_kv_block *copy = NULL;
    ct_status st = block_new(s->model, &copy, err);
    if (st != CT_OK) return st;
    for (int p = 0; p < s->model->n_places; p++) {
        const ct_place *place = &s->model->places[p];
        if (place->block_bytes > 0)
            s->model->ops->copy(place->device, copy->data[p], s->blocks[block]->data[p],
                                (size_t)place->block_bytes);
    }
    block_release(s->model, s->blocks[block]);
    s->blocks[block] = copy;
    return CT_OK;
}

ct_status ct_sequence_reserve(ct_sequence *s, int64_t count, ct_err *err)
{
    if (s->model->info.state_bytes_per_block == 0) return CT_OK;
    int64_t need = (s->position + count + CT_KV_BLOCK - 1) / CT_KV_BLOCK;
    if (need > s->capacity) {
        int64_t capacity = need > 2 * s->capacity ? need : 2 * s->capacity;
        ct_kv_block **blocks = realloc(s->blocks, (size_t)capacity * sizeof *blocks);
        if (!blocks) return ct_fail_memory(err, "KV block list", (size_t)capacity * sizeof *blocks);
        s->blocks = blocks;
        s->capacity = capacity;
    }
    int64_t partial = s->position / CT_KV_BLOCK;
    if (partial < s->n_blocks) {
        ct_status st = ct_sequence_own_block(s, partial, err);
        if (st != CT_OK) return st;
    }
    while (s->n_blocks < need) {
        ct_status st = block_new(s->model, &s->blocks[s->n_blocks], err);
        if (st != CT_OK) return st;
        s->n_blocks++;
    }
    return CT_OK;
}

void ct_sequence_advance(ct_sequence *s, int64_t count, int64_t window)
{
    s->position += count;
    if (window < 0 || s->position <= window) return;
    int64_t first = (s->position - window) / CT_KV_BLOCK;
    for (; s->first_block < first && s->first_block < s->n_blocks; s->first_block++) {
        block_release(s->model, s->blocks[s->first_block]);
        s->blocks[s->first_block] = NULL;
    }
}
