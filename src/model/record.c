/* record.c - what a pass hands to the recordings of its rows.
 *
 * The light recorder's numbers come out of the attention operation itself and kept heads out of their
 * selection; here they are noted. Rows of weights are computed anew from the keys, for the recorded
 * tokens alone. Of generation's last step nobody knows that it is the last before its token is chosen: its
 * query is kept, and its weights are computed once, when the request has ended (ct_record_settle).
 */
#include <string.h>

#include "base/err.h"
#include "model/model.h"
#include "model/state.h"

/* Writes a layer's mean as the weights of one token after its edit, [H, keys]. */
static void write_mean_weights(const ct_attn_row *row, int64_t begin, int64_t end, float mean,
                               int64_t heads, int64_t keys, float *after)
{
    memset(after, 0, (size_t)(heads * keys) * sizeof *after);
    for (int64_t h = 0; h < heads; h++)
        for (int64_t s = begin; s < end && s < row->marked_count; s++)
            if (row->marked[s]) after[h * keys + s] = mean;
}

/* What the needle holds of those weights. */
static float mean_on_needle(const ct_attn_row *row, int64_t begin, int64_t end, float mean)
{
    int64_t count = 0;
    for (size_t i = 0; i < row->n_needle; i++)
        for (int64_t s = row->needle[i].begin; s < row->needle[i].end; s++)
            count += s >= begin && s < end && s < row->marked_count && row->marked[s];
    return mean * (float)count;
}

/* Keeps the query of a run's last token, from which ct_record_settle computes its weights. */
static ct_status keep_query(const ct_pass *pass, ct_recording *recording, int64_t nth,
                            const ct_attn_args *args, const ct_attn_row *row,
                            const ct_edit_run *run, ct_stage stage, const float *mean, ct_err *err)
{
    ct_record_query *query = &recording->query;
    int64_t size = args->heads * args->head_dim, last = row->seg.count - 1;
    query->there = true;
    query->row = *row;
    query->row.seg = (ct_seg){0, 1, row->seg.position + last};
    query->row.k = query->row.v = NULL;
    query->row.mean = NULL;
    query->row.n_light = 0;
    query->has_means = run->mean_per_layer;
    if (run->mean_per_layer) {
        query->means[nth] = *mean;
        ct_attn_mean_positions(row, stage, &query->mean_begin, &query->mean_end);
    }
    if (nth == 0 && run->mode != CT_WEIGHTS_KEEP)
        memcpy(query->marked, row->marked, (size_t)row->marked_count);
    query->row.marked = query->marked;
    return pass->model->ops->read(pass->op.device, query->q + nth * size,
                                  args->q + (row->seg.first + last) * size,
                                  (size_t)size * sizeof *args->q, err);
}

int64_t ct_record_tokens(const ct_pass_row *row, const ct_edit_run *run, int64_t *first)
{
    int64_t from = row->part.first > run->offset ? row->part.first : run->offset;
    int64_t to = row->part.first + row->part.count;
    if (to > run->offset + run->count) to = run->offset + run->count;
    *first = from - run->offset;
    return to > from ? to - from : 0;
}

/* ---- what a layer left, where the host reads it ---------------------------------------------- */

/* [T, H] each, NULL where nobody asked; means: by run. */
typedef struct layer_values {
    const float *entropy_bits, *means;
    const uint8_t *keep;
    ct_attn_light light;
} layer_values;

size_t ct_record_room(const ct_pass *pass)
{
    size_t heads = (size_t)(pass->tokens * pass->model->info.heads);
    return 5 * heads + (heads + sizeof(float) - 1) / sizeof(float) + pass->plan->n_runs;
}

/* Reads `bytes` to *room, which moves on; from NULL: nothing. */
static ct_status take(const ct_pass *pass, float **room, const void *from, size_t bytes,
                      void *taken, ct_err *err)
{
    float *to = from ? *room : NULL;
    memcpy(taken, &to, sizeof to);
    *room += from ? (bytes + sizeof **room - 1) / sizeof **room : 0;
    return from ? pass->model->ops->read(pass->op.device, to, from, bytes, err) : CT_OK;
}

static ct_status read_layer(const ct_pass *pass, const ct_attn_args *args, const float *means,
                            const uint8_t *keep, layer_values *out, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_attn_light none = {0}, *light = args->light ? args->light : &none;
    size_t heads = (size_t)(args->tokens * args->heads), floats = heads * sizeof(float);
    float *room = pass->noted;
    *out = (layer_values){args->entropy_bits, means, keep, *light};
    if (pass->model->ops->host_memory) return CT_OK;
    CT_TRY(take(pass, &room, args->entropy_bits, floats, &out->entropy_bits, err));
    CT_TRY(take(pass, &room, light->needle_before, floats, &out->light.needle_before, err));
    CT_TRY(take(pass, &room, light->needle_after, floats, &out->light.needle_after, err));
    CT_TRY(take(pass, &room, light->peak_weight, floats, &out->light.peak_weight, err));
    CT_TRY(take(pass, &room, light->peak, floats, &out->light.peak, err));
    CT_TRY(take(pass, &room, keep, heads, &out->keep, err));
    CT_TRY(take(pass, &room, means, pass->plan->n_runs * sizeof *means, &out->means, err));
done:
    return st;
}

/* ---- weights --------------------------------------------------------------------------------- */

enum { WEIGHTS_BYTES = 64 << 20 }; /* of another memory at once, or one token's */

/* Within a pass: until what was asked of the backend's memory is there for its operations. */
static ct_status wait_for_memory(const ct_model *model, const ct_op_ctx *op, ct_err *err)
{
    return model->ops->sync ? model->ops->sync(op->device, err) : CT_OK;
}

/* The weights of some tokens of a row, [H, keys] each, by way of the backend's memory, which is new and so
 * 0 where nothing is written. */
static ct_status bring_weights(const ct_model *model, ct_op_ctx *op, const ct_attn_args *args,
                               const ct_weights_out *to, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_ops *ops = model->ops;
    int64_t size = args->heads * to->keys, count = args->rows->seg.count;
    size_t bytes = (size_t)size * sizeof(float);
    float *room = ops->alloc(op->device, (size_t)count * 2 * bytes);
    if (!room) return ct_fail_memory(err, "recorded weights", (size_t)count * 2 * bytes);
    const ct_weights_out out = {room, to->after ? room + count * size : NULL, to->keys, size};
    CT_TRY(wait_for_memory(model, op, err));
    CT_TRY(ops->attention_weights(op, args, &out, err));
    for (int64_t t = 0; t < count; t++) {
        CT_TRY(
            ops->read(op->device, to->before + t * to->stride, out.before + t * size, bytes, err));
        if (to->after)
            CT_TRY(ops->read(op->device, to->after + t * to->stride, out.after + t * size, bytes,
                             err));
    }
done:
    ops->free(op->device, room);
    return st;
}

/* attention_weights with its results in the host's memory. */
static ct_status weigh(const ct_model *model, ct_op_ctx *op, const ct_attn_args *args,
                       const ct_weights_out *out, ct_err *err)
{
    ct_status st = CT_OK;
    if (model->ops->host_memory) return model->ops->attention_weights(op, args, out, err);
    for (int64_t r = 0; r < args->n_rows && st == CT_OK; r++) {
        ct_attn_row part = args->rows[r];
        ct_weights_out to = out[r];
        int64_t all = part.seg.count;
        int64_t at_once = WEIGHTS_BYTES / (2 * args->heads * to.keys * (int64_t)sizeof(float));
        ct_attn_args some = *args;
        some.rows = &part, some.n_rows = 1;
        for (int64_t t = 0; t < all && st == CT_OK; t += part.seg.count) {
            part.seg = args->rows[r].seg;
            part.seg.first += t, part.seg.position += t;
            part.seg.count = at_once < 1 ? 1 : at_once < all - t ? at_once : all - t;
            to.before = out[r].before + t * to.stride;
            to.after = out[r].after ? out[r].after + t * to.stride : NULL;
            st = bring_weights(model, op, &some, &to, err);
        }
    }
    return st;
}

/* Asks for the weights of the recorded tokens of one run; n: how many runs asked so far. */
static ct_status ask_weights(const ct_pass *pass, const ct_pass_row *row, size_t index, int64_t nth,
                             const ct_attn_args *args, const float *means, int64_t *n, ct_err *err)
{
    ct_recording *recording = row->recording;
    const ct_edit_run *run = &pass->plan->runs[index];
    const ct_attn_row *attn = &pass->attn[index];
    int64_t first, count = ct_record_tokens(row, run, &first);
    if (row->stage == CT_STAGE_GENERATION && recording->query.q)
        return keep_query(pass, recording, nth, args, attn, run, row->stage,
                          means ? &means[index] : NULL, err);
    int64_t at = row->part.row + run->offset + first - row->part.first;
    ct_weights_out out = ct_recording_room(recording, row->stage, at, nth);
    if (run->mean_per_layer) {
        int64_t begin, end;
        ct_attn_mean_positions(attn, row->stage, &begin, &end);
        for (int64_t t = 0; t < count; t++)
            write_mean_weights(attn, begin, end, means[index], args->heads, out.keys,
                               out.after + t * out.stride);
        out.after = NULL;
    }
    pass->recorded[*n] = *attn;
    pass->recorded[*n].seg = (ct_seg){attn->seg.first + first, count, attn->seg.position + first};
    pass->recorded_out[(*n)++] = out;
    return CT_OK;
}

/* Notes the recorded tokens of one run. */
static void note_values(const ct_pass *pass, const ct_pass_row *row, size_t index, int64_t nth,
                        int64_t heads, const layer_values *found)
{
    const ct_edit_run *run = &pass->plan->runs[index];
    const ct_attn_row *attn = &pass->attn[index];
    int64_t first, count = ct_record_tokens(row, run, &first), begin, end;
    if (run->mean_per_layer) ct_attn_mean_positions(attn, row->stage, &begin, &end);
    for (int64_t t = first; t < first + count; t++) {
        int64_t i = (attn->seg.first + t) * heads;
        ct_record_values values = {.kept = found->keep ? found->keep + i : NULL};
        if (row->recording->what & CT_RECORD_LIGHT) {
            const ct_attn_light *l = &found->light;
            values.entropy_bits = found->entropy_bits + i;
            values.light = (ct_attn_light){l->needle_before + i, l->needle_after + i,
                                           l->peak_weight + i, l->peak + i};
            for (int64_t h = 0; run->mean_per_layer && h < heads; h++)
                values.light.needle_after[h] =
                    mean_on_needle(attn, begin, end, found->means[index]);
        }
        ct_recording_note(row->recording, row->stage,
                          row->part.row + run->offset + t - row->part.first, nth, &values);
    }
}

ct_status ct_record_layer(const ct_layer *layer, ct_pass *pass, const ct_attn_args *args,
                          const float *means, const uint8_t *keep, ct_err *err)
{
    ct_status st = CT_OK;
    layer_values found;
    int64_t n = 0;
    bool read = false; /* other layers are not recorded */
    for (int64_t r = 0; r < pass->n_rows; r++) {
        const ct_pass_row *row = &pass->rows[r];
        int64_t nth = row->part.count ? ct_recording_layer(row->recording, layer->index) : -1;
        if (nth < 0) continue;
        if (!read) CT_TRY(read_layer(pass, args, means, keep, &found, err));
        read = true;
        for (size_t i = row->first_run; i < row->first_run + row->n_runs; i++) {
            int64_t first;
            if (ct_record_tokens(row, &pass->plan->runs[i], &first) == 0) continue;
            note_values(pass, row, i, nth, args->heads, &found);
            if (row->recording->what & CT_RECORD_WEIGHTS)
                CT_TRY(ask_weights(pass, row, i, nth, args, found.means, &n, err));
        }
    }
    if (n == 0) return CT_OK;
    ct_attn_args asked = *args;
    asked.rows = pass->recorded;
    asked.n_rows = n;
    st = weigh(pass->model, &pass->op, &asked, pass->recorded_out, err);
done:
    return st;
}

/* ---- the last step --------------------------------------------------------------------------- */

/* One layer's; q is room for a query in the backend's memory. */
static ct_status settle_layer(const ct_model *model, ct_op_ctx *op, const ct_batch *batch,
                              ct_recording *recording, int64_t nth, float *q, ct_err *err)
{
    ct_record_query *query = &recording->query;
    const ct_model_info *info = &model->info;
    const ct_layer *layer = &model->layers[recording->layers[nth]];
    int64_t size = info->heads * info->head_dim;
    ct_weights_out out = ct_recording_room(recording, CT_STAGE_GENERATION, 0, nth);
    if (query->has_means) {
        write_mean_weights(&query->row, query->mean_begin, query->mean_end, query->means[nth],
                           info->heads, out.keys, out.after);
        out.after = NULL;
    }
    const ct_attn_args args = {
        .tokens = 1,
        .heads = info->heads,
        .kv_heads = info->kv_heads,
        .head_dim = info->head_dim,
        .scale = ct_attn_scale(info),
        .q = q,
        .k_offset = ct_attn_kv_offset(layer, info, 0),
        .rows = &query->row,
        .n_rows = 1,
        .batch = batch,
    };
    ct_status st =
        model->ops->write(op->device, q, query->q + nth * size, (size_t)size * sizeof *q, err);
    if (st == CT_OK) st = wait_for_memory(model, op, err);
    return st == CT_OK ? weigh(model, op, &args, &out, err) : st;
}

/* The recorded layers of one place. */
ct_status ct_record_settle(const ct_model *model, ct_op_ctx *op, const ct_sequence *sequence,
                           int place, const void **blocks, ct_recording *recording, ct_err *err)
{
    ct_record_query *query = &recording->query;
    const ct_model_info *info = &model->info;
    const int32_t id = 0; /* of a token that is not computed */
    int64_t n = 0;
    bool begun = false, replayed;
    ct_status st = CT_OK;
    for (int64_t l = 0; l < recording->n_layers; l++)
        n += model->layers[recording->layers[l]].place == place;
    if (!query->there || n == 0) return CT_OK;
    query->row.k = query->row.v = blocks;
    ct_sequence_list_blocks(sequence, place, blocks);
    float *state = sequence->fixed[place];
    ct_batch batch = {.tokens = 1,
                      .n_segs = 1,
                      .n_runs = 1,
                      .ids = &id,
                      .segs = &query->row.seg,
                      .states = &state,
                      .runs = &query->row,
                      .vocab = info->vocab,
                      .kv_width = info->kv_heads * info->head_dim};
    size_t bytes = (size_t)(info->heads * info->head_dim) * sizeof(float);
    float *q = model->ops->alloc(op->device, bytes);
    if (!q) return ct_fail_memory(err, "a recorded query", bytes);
    CT_TRY(model->ops->begin(op, &batch, q, 0, &replayed, err));
    begun = true;
    for (int64_t l = 0; l < recording->n_layers; l++)
        if (model->layers[recording->layers[l]].place == place)
            CT_TRY(settle_layer(model, op, &batch, recording, l, q, err));
done:
    if (begun) {
        ct_err late = {0};
        ct_status ended = model->ops->end(op, &batch, st == CT_OK ? &late : NULL);
        if (st == CT_OK && ended != CT_OK) {
            st = ended;
            if (err) *err = late;
        }
    }
    model->ops->free(op->device, q);
    return st;
}
