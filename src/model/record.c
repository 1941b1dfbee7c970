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
static void keep_query(ct_recording *recording, int64_t place, const ct_attn_args *args,
                       const ct_attn_row *row, const ct_edit_run *run, ct_stage stage,
                       const float *mean)
{
    ct_record_query *query = &recording->query;
    int64_t size = args->heads * args->head_dim, last = row->seg.count - 1;
    memcpy(query->q + place * size, args->q + (row->seg.first + last) * size,
           (size_t)size * sizeof *args->q);
    query->there = true;
    query->row = *row;
    query->row.seg = (ct_seg){0, 1, row->seg.position + last};
    query->row.k = query->row.v = NULL;
    query->has_means = run->mean_per_layer;
    if (run->mean_per_layer) {
        query->means[place] = *mean;
        ct_attn_mean_positions(row, stage, &query->mean_begin, &query->mean_end);
    }
    if (place == 0 && run->mode != CT_WEIGHTS_KEEP)
        memcpy(query->marked, row->marked, (size_t)row->marked_count);
    query->row.marked = query->marked;
}

/* The tokens of the row that are both in the run and recorded: *first of the run, how many. */
static int64_t common(const ct_pass_row *row, const ct_edit_run *run, int64_t *first)
{
    int64_t from = row->part.first > run->offset ? row->part.first : run->offset;
    int64_t to = row->part.first + row->part.count;
    if (to > run->offset + run->count) to = run->offset + run->count;
    *first = from - run->offset;
    return to > from ? to - from : 0;
}

/* Asks for the weights of the recorded tokens of one run; n: how many runs asked so far. */
static void ask_weights(const ct_pass *pass, const ct_pass_row *row, size_t index, int64_t place,
                        const ct_attn_args *args, const float *means, int64_t *n)
{
    ct_recording *recording = row->recording;
    const ct_edit_run *run = &pass->plan->runs[index];
    const ct_attn_row *attn = &pass->attn[index];
    int64_t first, count = common(row, run, &first);
    if (row->stage == CT_STAGE_GENERATION && recording->query.q) {
        keep_query(recording, place, args, attn, run, row->stage, means ? &means[index] : NULL);
        return;
    }
    int64_t at = row->part.row + run->offset + first - row->part.first;
    ct_weights_out out = ct_recording_room(recording, row->stage, at, place);
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
}

/* Notes the recorded tokens of one run. */
static void note_values(const ct_pass *pass, const ct_pass_row *row, size_t index, int64_t place,
                        const ct_attn_args *args, const float *means, const uint8_t *keep)
{
    const ct_edit_run *run = &pass->plan->runs[index];
    const ct_attn_row *attn = &pass->attn[index];
    int64_t first, count = common(row, run, &first), begin, end;
    if (run->mean_per_layer) ct_attn_mean_positions(attn, row->stage, &begin, &end);
    for (int64_t t = first; t < first + count; t++) {
        int64_t i = (attn->seg.first + t) * args->heads;
        ct_record_values values = {.kept = keep ? keep + i : NULL};
        if (row->recording->what & CT_RECORD_LIGHT) {
            const ct_attn_light *l = args->light;
            values.entropy_bits = args->entropy_bits + i;
            values.light = (ct_attn_light){l->needle_before + i, l->needle_after + i,
                                           l->peak_weight + i, l->peak + i};
            for (int64_t h = 0; run->mean_per_layer && h < args->heads; h++)
                values.light.needle_after[h] = mean_on_needle(attn, begin, end, means[index]);
        }
        ct_recording_note(row->recording, row->stage,
                          row->part.row + run->offset + t - row->part.first, place, &values);
    }
}

ct_status ct_record_layer(const ct_layer *layer, ct_pass *pass, const ct_attn_args *args,
                          const float *means, const uint8_t *keep, ct_err *err)
{
    int64_t n = 0;
    for (int64_t r = 0; r < pass->n_rows; r++) {
        const ct_pass_row *row = &pass->rows[r];
        int64_t place = row->part.count ? ct_recording_layer(row->recording, layer->index) : -1;
        if (place < 0) continue;
        for (size_t i = row->first_run; i < row->first_run + row->n_runs; i++) {
            int64_t first;
            if (common(row, &pass->plan->runs[i], &first) == 0) continue;
            note_values(pass, row, i, place, args, means, keep);
            if (row->recording->what & CT_RECORD_WEIGHTS)
                ask_weights(pass, row, i, place, args, means, &n);
        }
    }
    if (n == 0) return CT_OK;
    ct_attn_args asked = *args;
    asked.rows = pass->recorded;
    asked.n_rows = n;
    asked.batch = NULL;
    return pass->model->ops->attention_weights(&pass->op, &asked, pass->recorded_out, err);
}

ct_status ct_record_settle(const ct_model *model, ct_op_ctx *op, const ct_sequence *sequence,
                           const void **blocks, ct_recording *recording, ct_err *err)
{
    ct_record_query *query = &recording->query;
    const ct_model_info *info = &model->info;
    ct_status st = CT_OK;
    if (!query->there) return CT_OK;
    query->there = false;
    query->row.k = blocks;
    int listed = -1; /* whose blocks these are */
    for (int64_t place = 0; st == CT_OK && place < recording->n_layers; place++) {
        const ct_layer *layer = &model->layers[recording->layers[place]];
        if (layer->place != listed) ct_sequence_list_blocks(sequence, layer->place, blocks);
        listed = layer->place;
        ct_weights_out out = ct_recording_room(recording, CT_STAGE_GENERATION, 0, place);
        if (query->has_means) {
            write_mean_weights(&query->row, query->mean_begin, query->mean_end, query->means[place],
                               info->heads, out.keys, out.after);
            out.after = NULL;
        }
        const ct_attn_args args = {
            .tokens = 1,
            .heads = info->heads,
            .kv_heads = info->kv_heads,
            .head_dim = info->head_dim,
            .scale = ct_attn_scale(info),
            .q = query->q + place * info->heads * info->head_dim,
            .k_offset = ct_attn_kv_offset(layer, info, 0),
            .rows = &query->row,
            .n_rows = 1,
        };
        st = model->ops->attention_weights(op, &args, &out, err);
    }
    return st;
}
