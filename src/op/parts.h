/* parts.h - operations made of others of the same table, and those that any backend in the host's
 * memory does alike.
 *
 * What an operation means is said by its parts; a table takes these where it gains nothing by doing the
 * whole at once.
 */
#ifndef CT_OP_PARTS_H
#define CT_OP_PARTS_H

#include "op/op.h"

/* ct_ops.gated_mlp, products, rglru and logits by the table's own parts. */
ct_status ct_mlp_by_parts(const ct_ops *ops, ct_op_ctx *ctx, float *y, const float *x,
                          int64_t tokens, const ct_mlp *mlp, float *hidden, ct_err *err) CT_CHECK;
ct_status ct_products_by_parts(const ct_ops *ops, ct_op_ctx *ctx, const ct_product *list, int64_t n,
                               const float *x, int64_t tokens, ct_err *err) CT_CHECK;
ct_status ct_rglru_by_parts(const ct_ops *ops, ct_op_ctx *ctx, float *out, const float *x, float *y,
                            const ct_rglru *w, float *work, const ct_batch *batch,
                            int64_t state_offset, ct_err *err) CT_CHECK;
ct_status ct_logits_by_parts(const ct_ops *ops, ct_op_ctx *ctx, const ct_logits_args *args,
                             ct_err *err) CT_CHECK;

/* A table's memory and passes where its memory is the host's. */
ct_status ct_host_open(int index, ct_device **out, ct_err *err) CT_CHECK;
void ct_host_close(ct_device *device);
void *ct_host_alloc(ct_device *device, size_t bytes);
void ct_host_free(ct_device *device, void *memory);
ct_status ct_host_transfer(ct_device *device, void *to, const void *from, size_t bytes,
                           ct_err *err) CT_CHECK;
void ct_host_copy(ct_device *device, void *to, const void *from, size_t bytes);
ct_status ct_host_between(ct_device *from_device, ct_device *to_device, void *to, const void *from,
                          size_t bytes, ct_err *err) CT_CHECK;
int64_t ct_host_free_bytes(const ct_device *device);
ct_status ct_host_fill_random(ct_device *device, void *to, const ct_random_fill *what,
                              ct_err *err) CT_CHECK;
ct_status ct_host_begin(ct_op_ctx *ctx, ct_batch *batch, const void *memory, uint64_t shape,
                        bool *replayed, ct_err *err) CT_CHECK;
ct_status ct_host_end(ct_op_ctx *ctx, ct_batch *batch, ct_err *err) CT_CHECK;
ct_dtype ct_host_cache_dtype(ct_compute compute); /* f32 */
void ct_host_pick(ct_op_ctx *ctx, float *y, const float *x, const ct_batch *batch, int64_t width);
/* The part of ct_ops.place_keys after the rotation. */
void ct_host_store_kv(const ct_place_args *args, const ct_batch *batch);
void ct_host_keep_heads(ct_op_ctx *ctx, uint8_t *keep, float *out, const ct_keep_args *args,
                        const ct_batch *batch);
/* score[h], h < heads, of one token in one layer, such that the highest are kept. entropy_bits and l2
 * are [heads]; only what the metric needs is read. */
void ct_head_scores(const ct_head_rule *rule, int64_t layer, int64_t position, int64_t heads,
                    const float *entropy_bits, const float *l2, float *score);

/* The members of a table that lives in the host's memory. Rows of a decode step: quickstart on two cores
 * took 18 to 20 s with 128, with 64 20 to 27 s, with 256 24 to 26 s. */
#define CT_HOST_MEMORY                                                                             \
    .host_memory = true, .pass_tokens = 1024, .decode_rows = 128,                                  \
    .cache_dtype = ct_host_cache_dtype, .fill_random = ct_host_fill_random, .open = ct_host_open,  \
    .close = ct_host_close, .alloc = ct_host_alloc, .free = ct_host_free,                          \
    .write = ct_host_transfer, .read = ct_host_transfer, .copy = ct_host_copy,                     \
    .transfer = ct_host_between, .free_bytes = ct_host_free_bytes, .begin = ct_host_begin,         \
    .end = ct_host_end, .pick = ct_host_pick, .keep_heads = ct_host_keep_heads

#endif
