/* step.c - sessions, and one step: rows of tokens through every layer at once.
 *
 * Owns the packing of rows into passes of bounded size, working memory, and the logits. A row that
 * is longer than a pass is cut at multiples of 64 absolute positions, where no operation's sums
 * notice the cut; the rows of one pass are packed one after another, and every operation treats
 * each token, or each row, by itself. Together that makes a row's bits independent of its company.
 */
#include <inttypes.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "model/model.h"
#include "model/state.h"

enum { LINE_FLOATS = 16 };

/* On one place. */
typedef struct working {
    float *memory; /* of the pass; x [T, E] comes first */
    size_t memory_floats;
    void *scratch; /* of the operations */
    size_t scratch_bytes;
} working;

struct ct_session {
    const ct_model *model;
    ct_edit_plan plan;
    working on[CT_PLACES_MAX];
    /* Per pass; grown together with the numbers of rows, tokens, runs and blocks. */
    int32_t *ids;
    size_t tokens_capacity;
    ct_pass_row *rows;
    ct_seg *segs;
    float **states;
    ct_head_rule *rules;
    size_t rows_capacity;
    ct_attn_row *attn;
    ct_mean *means;
    size_t attn_capacity;
    ct_attn_row *recorded;
    ct_weights_out *recorded_out;
    size_t recorded_capacity;
    float *noted; /* what a pass's recordings read back, a layer at a time */
    size_t noted_capacity;
    const void **kv_blocks;
    size_t kv_capacity;
    uint8_t *keep; /* the pass's kept heads, brought back from the backend */
    size_t keep_capacity;
    int64_t *done; /* tokens of each row of the step that earlier passes have run */
    size_t done_capacity;
    ct_watch watch;
    /* Tokens of the pass whose logits are wanted, and where they or the choice from them go. */
    int32_t *wanted;
    float **logits;
    int32_t **greedy;
    size_t wanted_capacity;
};

/* ---- memory ---------------------------------------------------------------------------------- */

size_t ct_pass_round(size_t floats)
{
    return (floats + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
}

float *ct_pass_floats(ct_pass *pass, size_t floats)
{
    float *at = pass->memory + pass->memory_used;
    pass->memory_used += ct_pass_round(floats);
    CT_ASSERT(pass->memory_used <= pass->memory_floats);
    return at;
}

/* Replaces *memory by one of at least `bytes`, on a cache line; what it held is lost. */
static ct_status grow(void **memory, size_t bytes, const char *what, ct_err *err)
{
    size_t size = (bytes + 63) / 64 * 64;
    free(*memory);
    *memory = aligned_alloc(64, size ? size : 64);
    return *memory ? CT_OK : ct_fail_memory(err, what, size);
}

/* Makes room for n elements of `size` bytes each; *capacity counts elements. What was held is lost.
 */
static ct_status room(void **memory, size_t *capacity, size_t n, size_t size, ct_err *err)
{
    if (n <= *capacity && *memory) return CT_OK;
    size_t want = n > 2 * *capacity ? n : 2 * *capacity;
    *capacity = 0;
    ct_status st = grow(memory, want * size, "session", err);
    if (st == CT_OK) *capacity = want;
    return st;
}

ct_status ct_session_new(const ct_model *model, ct_session **out, ct_err *err)
{
    ct_session *session = calloc(1, sizeof *session);
    if (!session) return ct_fail_memory(err, "session", sizeof *session);
    session->model = model;
    *out = session;
    return CT_OK;
}

void ct_session_free(ct_session *session)
{
    if (!session) return;
    ct_edit_plan_clear(&session->plan);
    for (int p = 0; p < session->model->n_places; p++) {
        session->model->ops->free(session->model->places[p].device, session->on[p].memory);
        session->model->ops->free(session->model->places[p].device, session->on[p].scratch);
    }
    free(session->ids);
    free(session->rows);
    free(session->segs);
    free(session->states);
    free(session->rules);
    free(session->attn);
    free(session->means);
    free(session->recorded);
    free(session->recorded_out);
    free(session->noted);
    free(session->kv_blocks);
    free(session->keep);
    free(session->done);
    free(session->wanted);
    free(session->logits);
    free(session->greedy);
    free(session);
}

void ct_session_watch(ct_session *session, ct_watch watch)
{
    session->watch = watch;
}

const ct_model *ct_session_model(const ct_session *session)
{
    return session->model;
}

size_t ct_session_bytes(const ct_session *session)
{
    size_t bytes = 0;
    for (int p = 0; p < session->model->n_places; p++)
        bytes += session->on[p].memory_floats * sizeof(float) + session->on[p].scratch_bytes;
    return bytes;
}

static bool is_last(const ct_model *m, int place)
{
    return place == m->n_places - 1;
}

static size_t keep_floats(const ct_model *m, int place, int64_t tokens)
{
    size_t bytes = (size_t)(m->places[place].n_attention * tokens * m->info.heads);
    return ct_pass_round((bytes + sizeof(float) - 1) / sizeof(float));
}

/* Floats of a place's working memory for a pass of `tokens`: x and normed, kept heads, then the hungriest
 * part. */
static size_t working_floats(const ct_model *m, int place, int64_t tokens)
{
    size_t most = m->ops->host_memory && is_last(m, place) ? ct_pass_round(CT_LOGITS_ROOM) : 0;
    for (int64_t i = 0; i < m->places[place].n_layers; i++) {
        const ct_layer *l = &m->layers[m->places[place].first_layer + i];
        size_t mixer = l->mixer_kind->floats(l->mixer, m, tokens);
        size_t ffn = l->ffn_kind->floats(l->ffn, m, tokens);
        most = mixer > most ? mixer : most;
        most = ffn > most ? ffn : most;
    }
    return 2 * ct_pass_round((size_t)(tokens * m->info.width)) + keep_floats(m, place, tokens) +
           most;
}

static size_t scratch_bytes(const ct_model *m, int place, int64_t tokens)
{
    const ct_model_info *info = &m->info;
    ct_op_sizes sizes = {.tokens = tokens,
                         .max_rows = m->matrix_rows,
                         .max_cols = m->matrix_cols,
                         .heads = info->heads,
                         .head_dim = info->head_dim,
                         .width = info->width,
                         .ffn = info->ffn_width,
                         .experts_used = info->experts > 1 ? info->experts_per_token : 0};
    size_t layers = m->ops->scratch_bytes(&sizes);
    if (!is_last(m, place)) return layers;
    sizes.tokens = CT_LOGITS_ROWS;
    sizes.max_rows = info->vocab;
    sizes.max_cols = info->width;
    size_t logits = m->ops->scratch_bytes(&sizes);
    return layers > logits ? layers : logits;
}

int64_t ct_place_working_bytes(const ct_model *model, int place)
{
    int64_t tokens = model->ops->pass_tokens;
    return (int64_t)(working_floats(model, place, tokens) * sizeof(float) +
                     scratch_bytes(model, place, tokens));
}

int64_t ct_session_working_bytes(const ct_model *model)
{
    int64_t bytes = 0;
    for (int p = 0; p < model->n_places; p++) bytes += ct_place_working_bytes(model, p);
    return bytes;
}

int64_t ct_model_step_tokens(const ct_model *model)
{
    return model->ops->pass_tokens / 2;
}

/* Replaces *memory of a place by one of `bytes`; what it held is lost. */
static ct_status grow_place(const ct_model *m, int place, void **memory, size_t bytes,
                            const char *what, ct_err *err)
{
    m->ops->free(m->places[place].device, *memory);
    *memory = m->ops->alloc(m->places[place].device, bytes);
    return *memory ? CT_OK : ct_fail_memory(err, what, bytes);
}

static ct_status reserve_place(ct_session *s, int place, int64_t tokens, ct_err *err)
{
    const ct_model *m = s->model;
    working *on = &s->on[place];
    size_t floats = working_floats(m, place, tokens), scratch = scratch_bytes(m, place, tokens);
    if (floats > on->memory_floats) {
        on->memory_floats = 0;
        ct_status st = grow_place(m, place, (void **)&on->memory, floats * sizeof(float),
                                  "working memory", err);
        if (st != CT_OK) return st;
        on->memory_floats = floats;
    }
    if (scratch > on->scratch_bytes) {
        on->scratch_bytes = 0;
        ct_status st = grow_place(m, place, &on->scratch, scratch, "scratch memory", err);
        if (st != CT_OK) return st;
        on->scratch_bytes = scratch;
    }
    return CT_OK;
}

static ct_status reserve_memory(ct_session *s, int64_t tokens, ct_err *err)
{
    ct_status st = CT_OK;
    for (int p = 0; p < s->model->n_places && st == CT_OK; p++)
        st = reserve_place(s, p, tokens, err);
    return st;
}

/* ---- checks ---------------------------------------------------------------------------------- */

static ct_status check_row(const ct_session *session, const ct_row *row, size_t index, ct_err *err)
{
    const ct_model_info *info = &session->model->info;
    if (!row->sequence || row->sequence->model != session->model)
        return ct_fail(err, CT_ERR_USAGE,
                       "step: row %zu: expected a sequence of the session's model", index);
    if (row->sequence->in_step)
        return ct_fail(err, CT_ERR_USAGE, "step: row %zu: its sequence is in another row too",
                       index);
    if (row->count <= 0 || row->count > INT32_MAX - row->sequence->position)
        return ct_fail(
            err, CT_ERR_USAGE,
            "step: row %zu: expected 1 or more tokens (below position 2^31), got %" PRId64, index,
            row->count);
    if ((unsigned)row->stage >= CT_STAGE_COUNT || (row->want != CT_LOGITS_NONE && !row->logits))
        return ct_fail(err, CT_ERR_USAGE, "step: row %zu: no stage, or no room for its logits",
                       index);
    for (int64_t i = 0; i < row->count; i++)
        if (row->ids[i] < 0 || row->ids[i] >= info->vocab)
            return ct_fail(err, CT_ERR_VALUE,
                           "step: row %zu: token %" PRId64 ": expected an id from 0 to %" PRId64
                           ", got %" PRId32,
                           index, i, info->vocab - 1, row->ids[i]);
    if (!row->intervention) return CT_OK;
    if (ct_intervention_needs_whole(row->intervention, row->stage) && row->sequence->position > 0)
        return ct_fail(
            err, CT_ERR_UNSUPPORTED,
            "step: row %zu: binary with binary_mean: per_layer sums over the whole prompt "
            "and needs it in one call, got a call from position %" PRId64,
            index, row->sequence->position);
    if (ct_intervention_window(row->intervention, row->stage, session->model->window) < 0 &&
        row->sequence->first_block > 0)
        return ct_fail(err, CT_ERR_USAGE,
                       "step: row %zu: prefill_window: full needs every key, but those before "
                       "position %" PRId64 " left the window in an earlier call",
                       index, row->sequence->first_block * CT_KV_BLOCK);
    return ct_intervention_check(row->intervention, info->heads, INT32_MAX, err);
}

/* ---- packing --------------------------------------------------------------------------------- */

/* A row's own doing, whatever its company and however it is cut into passes. */
static bool is_lone(const ct_row *row)
{
    return row->stage == CT_STAGE_GENERATION && row->count == 1;
}

/* How many tokens of the row go into a pass that has room for `room`; 0: none. A pass that holds
 * nothing yet always takes some. */
static int64_t take_tokens(const ct_row *row, int64_t done, int64_t left, int64_t packed)
{
    int64_t rest = row->count - done;
    if (rest <= left) return rest;
    if (ct_intervention_needs_whole(row->intervention, row->stage)) return packed == 0 ? rest : 0;
    int64_t position = row->sequence->position;
    int64_t to_boundary = CT_KV_BLOCK - position % CT_KV_BLOCK;
    if (left < to_boundary) return packed == 0 ? (to_boundary < rest ? to_boundary : rest) : 0;
    return left - (position + left) % CT_KV_BLOCK;
}

/* Lays out the next pass: rows, segments, ids, kept heads, edit runs. */
static ct_status pack(ct_session *s, ct_row *rows, size_t n_rows, size_t *first, ct_pass *pass,
                      ct_err *err)
{
    ct_status st = CT_OK;
    const ct_model *model = s->model;
    *pass = (ct_pass){.model = model, .rows = s->rows, .segs = s->segs, .watch = s->watch};
    ct_edit_plan_reset(&s->plan);
    bool selects = false;
    for (size_t i = *first; i < n_rows; i++) {
        ct_row *row = &rows[i];
        if (model->ops->one_kind && is_lone(row) != is_lone(&rows[*first])) break;
        int64_t room = model->ops->pass_tokens - pass->tokens;
        int64_t take = take_tokens(row, s->done[i], room, pass->tokens);
        if (take == 0) break;
        ct_pass_row *to = &s->rows[pass->n_rows];
        bool ends = s->done[i] + take == row->count;
        *to = (ct_pass_row){
            .seg = {pass->tokens, take, row->sequence->position},
            .sequence = row->sequence,
            .stage = row->stage,
            .intervention = row->intervention,
            .audit = row->audit,
            .heads_kept = ends ? row->heads_kept : NULL,
            .first_run = s->plan.n_runs,
            .recording = row->recording,
        };
        CT_TRY(ct_edit_plan_add(&s->plan, row->intervention, row->stage, to->seg.position, take,
                                model->window, err));
        CT_TRY(ct_sequence_reserve(row->sequence, take, err));
        to->n_runs = s->plan.n_runs - to->first_run;
        if (to->recording)
            to->part = ct_recording_take(to->recording, to->stage, to->seg.position, take, ends);
        if (to->part.count > 0) {
            pass->records = true;
            pass->wants_light |= (to->recording->what & CT_RECORD_LIGHT) != 0;
            pass->wants_entropy |= pass->wants_light;
        }
        s->segs[pass->n_rows++] = to->seg;
        selects |= ct_heads_keep(row->intervention, row->stage) >= 0;
        pass->tokens += take;
        if (!ends) break;
    }
    CT_ASSERT(pass->tokens > 0);
    CT_TRY(room((void **)&s->ids, &s->tokens_capacity, (size_t)pass->tokens, sizeof *s->ids, err));
    for (int64_t r = 0; r < pass->n_rows; r++) {
        const ct_pass_row *row = &s->rows[r];
        size_t i = *first + (size_t)r;
        memcpy(s->ids + row->seg.first, rows[i].ids + s->done[i],
               (size_t)row->seg.count * sizeof *s->ids);
        s->rules[r] = (ct_head_rule){.keep = ct_heads_keep(row->intervention, row->stage)};
        if (s->rules[r].keep < 0) continue;
        ct_metric metric = s->rules[r].metric = row->intervention->heads.metric;
        s->rules[r].seed = row->intervention->heads.seed;
        pass->wants_entropy |= metric == CT_METRIC_ENTROPY || metric == CT_METRIC_ENTROPY_INVERTED;
        pass->wants_l2 |= metric == CT_METRIC_L2;
    }
    pass->batch = (ct_batch){.tokens = pass->tokens,
                             .n_segs = pass->n_rows,
                             .ids = s->ids,
                             .segs = s->segs,
                             .states = s->states,
                             .rules = selects ? s->rules : NULL};
    pass->plan = &s->plan;
done:
    return st;
}

static ct_mean mean_of(const ct_edit_run *run, const ct_attn_row *attn, ct_stage stage)
{
    ct_mean mean = {.columns = run->mean_columns, .twice = run->twice};
    ct_attn_mean_positions(attn, stage, &mean.begin, &mean.end);
    return mean;
}

/* The edit runs as the attention operation takes them. A row's runs share its list of blocks, which
 * list_states fills for one place after another. */
static ct_status pack_attention(ct_session *s, ct_pass *pass, ct_err *err)
{
    size_t lists = 0, longest = 0;
    size_t capacity = s->attn_capacity;
    ct_status st = room((void **)&s->means, &capacity, s->plan.n_runs, sizeof *s->means, err);
    if (st == CT_OK)
        st = room((void **)&s->attn, &s->attn_capacity, s->plan.n_runs, sizeof *s->attn, err);
    for (int64_t r = 0; r < pass->n_rows; r++) {
        size_t blocks = (size_t)s->rows[r].sequence->n_blocks;
        lists += blocks;
        longest = blocks > longest ? blocks : longest;
    }
    if (st == CT_OK)
        st = room((void **)&s->kv_blocks, &s->kv_capacity, lists + longest, sizeof *s->kv_blocks,
                  err);
    if (st != CT_OK) return st;
    const void **at = s->kv_blocks;
    for (int64_t r = 0; r < pass->n_rows; r++) {
        const ct_pass_row *row = &s->rows[r];
        const ct_sequence *sequence = row->sequence;
        for (size_t i = row->first_run; i < row->first_run + row->n_runs; i++) {
            const ct_edit_run *run = &s->plan.runs[i];
            s->attn[i] = (ct_attn_row){
                .seg = {row->seg.first + run->offset, run->count, row->seg.position + run->offset},
                .window = run->window,
                .k = at,
                .v = at,
                .edit = run->mode,
                .marked = s->plan.marked + run->marked_at,
                .marked_count = run->marked_count,
            };
            if (row->part.count > 0) {
                s->attn[i].needle = row->recording->needle;
                s->attn[i].n_needle = row->recording->n_needle;
                if (row->recording->what & CT_RECORD_LIGHT)
                    s->attn[i].n_light = ct_record_tokens(row, run, &s->attn[i].light_first);
            }
            if (!run->mean_per_layer) continue;
            /* Head scores come from the unedited weights all the same; the output of this first
             * product is replaced. */
            s->attn[i].edit = CT_WEIGHTS_KEEP;
            s->means[i] = mean_of(run, &s->attn[i], row->stage);
            s->attn[i].mean = &s->means[i];
            pass->has_layer_means = true;
        }
        at += sequence->n_blocks;
    }
    pass->attn = pass->batch.runs = s->attn;
    pass->batch.n_runs = (int64_t)s->plan.n_runs;
    pass->kv_spare = at;
    if (pass->records) {
        capacity = s->recorded_capacity;
        CT_TRY(room((void **)&s->recorded_out, &capacity, s->plan.n_runs, sizeof *s->recorded_out,
                    err));
        CT_TRY(room((void **)&s->recorded, &s->recorded_capacity, s->plan.n_runs,
                    sizeof *s->recorded, err));
    }
    if (pass->records && !pass->model->ops->host_memory)
        CT_TRY(room((void **)&s->noted, &s->noted_capacity, ct_record_room(pass), sizeof *s->noted,
                    err));
    pass->recorded = s->recorded;
    pass->recorded_out = s->recorded_out;
    pass->noted = s->noted;
done:
    return st;
}

/* The rows' states on a place. */
static void list_states(ct_session *s, const ct_pass *pass, int place)
{
    const void **at = s->kv_blocks;
    for (int64_t r = 0; r < pass->n_rows; r++) {
        const ct_sequence *sequence = pass->rows[r].sequence;
        s->states[r] = sequence->fixed[place];
        ct_sequence_list_blocks(sequence, place, at);
        at += sequence->n_blocks;
    }
}

/* ---- the pass -------------------------------------------------------------------------------- */

/* The tokens of the pass whose logits are wanted, in order. */
static ct_status find_wanted(ct_session *s, ct_pass *pass, ct_row *rows, size_t first, ct_err *err)
{
    int64_t n = 0, vocab = pass->model->info.vocab;
    size_t capacity = s->wanted_capacity, most = (size_t)pass->tokens;
    ct_status st = room((void **)&s->wanted, &capacity, most, sizeof *s->wanted, err);
    capacity = s->wanted_capacity;
    if (st == CT_OK) st = room((void **)&s->logits, &capacity, most, sizeof(float *), err);
    if (st == CT_OK)
        st = room((void **)&s->greedy, &s->wanted_capacity, most, sizeof(int32_t *), err);
    if (st != CT_OK) return st;
    for (int64_t r = 0; r < pass->n_rows; r++) {
        ct_row *row = &rows[first + (size_t)r];
        const ct_seg *seg = &pass->segs[r];
        int64_t done = s->done[first + (size_t)r];
        bool all = row->want == CT_LOGITS_ALL, ends = done + seg->count == row->count;
        bool greedy = row->want == CT_LOGITS_GREEDY && !pass->model->ops->host_memory;
        if (row->want == CT_LOGITS_NONE) continue;
        row->greedy = CT_NO_CHOICE;
        for (int64_t t = all ? 0 : seg->count - ends; t < seg->count; t++) {
            s->wanted[n] = (int32_t)(seg->first + t);
            s->logits[n] = greedy ? NULL : row->logits + (all ? (done + t) * vocab : 0);
            s->greedy[n++] = greedy ? &row->greedy : NULL;
        }
    }
    pass->batch.wanted = s->wanted;
    pass->batch.logits = s->logits;
    pass->batch.greedy = s->greedy;
    pass->n_wanted = n;
    pass->batch.vocab = vocab;
    pass->batch.kv_width = pass->model->info.kv_heads * pass->model->info.head_dim;
    return CT_OK;
}

static ct_status watch(const ct_pass *pass, int64_t where, const float *x, ct_err *err)
{
    const ct_watch *w = &pass->watch;
    return w->see ? w->see(w->user, where, x, pass->tokens, err) : CT_OK;
}

/* All layers of a place; before them on the first the embeddings, after them on the last the logits.
 * Nothing after the last mixer leaves a state, so from there on only the wanted tokens are computed. */
static ct_status run_layers(ct_pass *pass, int place, float *x, float *normed, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_model *m = pass->model;
    const ct_place *at = &m->places[place];
    const ct_batch *batch = &pass->batch;
    int64_t width = m->info.width;
    size_t mark = pass->memory_used;
    if (place == 0) m->ops->embed(&pass->op, x, batch, &m->embed, m->embed_scale);
    for (int64_t i = at->first_layer; i < at->first_layer + at->n_layers; i++) {
        const ct_layer *layer = &m->layers[i];
        CT_TRY(watch(pass, 2 * i, x, err));
        m->ops->rms_norm(&pass->op, normed, x, width, pass->tokens, width, layer->mixer_norm,
                         m->norm_eps, m->norm_offset);
        CT_TRY(layer->mixer_kind->forward(layer, pass, normed, x, err));
        pass->memory_used = mark;
        if (i == m->info.layers - 1) {
            pass->tokens = batch->n_wanted;
            if (pass->tokens == 0) goto done;
            m->ops->pick(&pass->op, normed, x, batch, width);
            float *picked = normed;
            normed = x;
            x = picked;
        }
        CT_TRY(watch(pass, 2 * i + 1, x, err));
        m->ops->rms_norm(&pass->op, normed, x, width, pass->tokens, width, layer->ffn_norm,
                         m->norm_eps, m->norm_offset);
        CT_TRY(layer->ffn_kind->forward(layer, pass, normed, x, err));
        pass->memory_used = mark;
    }
    if (!is_last(m, place)) goto done;
    CT_TRY(watch(pass, 2 * m->info.layers, x, err));
    m->ops->rms_norm(&pass->op, normed, x, width, pass->tokens, width, m->final_norm, m->norm_eps,
                     m->norm_offset);
    CT_TRY(watch(pass, 2 * m->info.layers + 1, normed, err));
    const ct_logits_args logits = {
        .normed = normed,
        .n = pass->tokens,
        .head = m->head,
        .cap = m->logits_soft_cap,
        .logits = batch->logits,
        .greedy = batch->greedy,
        .room = m->ops->host_memory ? ct_pass_floats(pass, CT_LOGITS_ROOM) : NULL};
    CT_TRY(m->ops->logits(&pass->op, &logits, err));
done:
    return st;
}

/* What the choice of operations depends on beside the batch's counts. */
static uint64_t shape_of(const ct_pass *pass)
{
    return (uint64_t)pass->wants_entropy | (uint64_t)pass->wants_l2 << 1 |
           (uint64_t)pass->has_layer_means << 2;
}

/* Counts what the layers did to each row, and copies the last token's heads to who wants them. */
static void report_heads(const ct_session *s, const ct_pass *pass)
{
    const ct_model_info *info = &pass->model->info;
    int64_t heads = info->heads, layers = info->attention_layers;
    int64_t of_layer = pass->batch.tokens * heads;
    for (int64_t r = 0; r < pass->n_rows; r++) {
        const ct_pass_row *row = &pass->rows[r];
        int64_t last = (row->seg.first + row->seg.count - 1) * heads;
        for (int64_t l = 0; row->heads_kept && l < layers; l++)
            if (pass->batch.rules)
                memcpy(row->heads_kept + l * heads, s->keep + l * of_layer + last, (size_t)heads);
            else memset(row->heads_kept + l * heads, 1, (size_t)heads);
        ct_audit *audit = row->audit;
        if (!audit) continue;
        audit->rows[row->stage] += layers * row->seg.count;
        if (ct_heads_keep(row->intervention, row->stage) >= 0) {
            audit->head_rows[row->stage] += layers * row->seg.count;
            for (int64_t l = 0; l < layers; l++)
                for (int64_t i = 0; i < row->seg.count * heads; i++)
                    audit->heads_dropped[row->stage] +=
                        !s->keep[l * of_layer + row->seg.first * heads + i];
        }
        for (size_t i = row->first_run; i < row->first_run + row->n_runs; i++) {
            const ct_edit_run *run = &pass->plan->runs[i];
            audit->edit_rows[row->stage] += run->edited ? layers * run->count : 0;
            audit->edit_rows_changed[row->stage] += layers * run->changed;
        }
    }
}

/* The pass on one place: it takes x over from the place before it and leaves x at the beginning of its own
 * memory. */
static ct_status run_place(ct_session *s, ct_pass *pass, int place, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_model *model = s->model;
    const ct_place *at = &model->places[place];
    const working *on = &s->on[place];
    bool begun = false, replayed = false;
    pass->op.scratch = on->scratch;
    pass->op.scratch_bytes = on->scratch_bytes;
    pass->op.device = at->device;
    pass->memory = on->memory;
    pass->memory_floats = on->memory_floats;
    pass->memory_used = 0;
    size_t size = (size_t)(pass->tokens * model->info.width);
    float *x = ct_pass_floats(pass, size), *normed = ct_pass_floats(pass, size);
    ct_batch *batch = &pass->batch;
    if (batch->rules) {
        int64_t of_layer = pass->tokens * model->info.heads;
        pass->keep = (uint8_t *)ct_pass_floats(pass, keep_floats(model, place, pass->tokens));
        batch->back = s->keep + at->first_attention * of_layer;
        batch->back_from = pass->keep;
        batch->back_bytes = (size_t)(at->n_attention * of_layer);
    }
    batch->n_wanted = is_last(model, place) ? pass->n_wanted : 0;
    list_states(s, pass, place);
    if (place > 0)
        CT_TRY(model->ops->transfer(model->places[place - 1].device, at->device, x,
                                    s->on[place - 1].memory, size * sizeof *x, err));
    CT_TRY(model->ops->begin(&pass->op, batch, on->memory, shape_of(pass), &replayed, err));
    begun = true;
    if (!replayed) CT_TRY(run_layers(pass, place, x, normed, err));
done:
    if (begun) {
        ct_err late = {0};
        ct_status ended = model->ops->end(&pass->op, batch, st == CT_OK ? &late : NULL);
        if (st == CT_OK && ended != CT_OK) {
            st = ended;
            if (err) *err = late;
        }
    }
    return st;
}

static ct_status run_pass(ct_session *s, ct_row *rows, size_t n_rows, size_t *first, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_model *model = s->model;
    ct_pass pass;
    CT_TRY(pack(s, rows, n_rows, first, &pass, err));
    CT_TRY(pack_attention(s, &pass, err));
    CT_TRY(reserve_memory(s, pass.tokens, err));
    CT_TRY(find_wanted(s, &pass, rows, *first, err));
    size_t kept = (size_t)(model->info.attention_layers * pass.tokens * model->info.heads);
    if (pass.batch.rules) CT_TRY(room((void **)&s->keep, &s->keep_capacity, kept, 1, err));
    pass.op.compute = model->compute;
    pass.op.plain = pass.records;
    pass.op.stage = is_lone(&rows[*first]) ? CT_STAGE_GENERATION : CT_STAGE_PREFILL;
    for (int p = 0; p < model->n_places; p++) CT_TRY(run_place(s, &pass, p, err));
    report_heads(s, &pass);
    for (int64_t r = 0; r < pass.n_rows; r++) {
        const ct_pass_row *row = &s->rows[r];
        int64_t window = ct_intervention_window(row->intervention, row->stage, model->window);
        /* The last query may be asked once more, from one position further on. */
        if (window >= 0 && row->recording && row->recording->query.there) window++;
        ct_sequence_advance(row->sequence, row->seg.count, window);
        s->done[*first + (size_t)r] += row->seg.count;
    }
    while (*first < n_rows && s->done[*first] == rows[*first].count) ++*first;
done:
    return st;
}

ct_status ct_step(ct_session *session, ct_row *rows, size_t n_rows, ct_err *err)
{
    ct_status st = CT_OK;
    size_t marked = 0, capacity = session->rows_capacity;
    int threads = omp_get_max_threads(); /* of the calling thread; given back at the end */
    if (session->model->threads > 0) omp_set_num_threads(session->model->threads);
    for (; marked < n_rows; marked++) {
        CT_TRY(check_row(session, &rows[marked], marked, err));
        rows[marked].sequence->in_step = true;
    }
    CT_TRY(
        room((void **)&session->done, &session->done_capacity, n_rows, sizeof *session->done, err));
    memset(session->done, 0, n_rows * sizeof *session->done);
    CT_TRY(room((void **)&session->rows, &capacity, n_rows, sizeof *session->rows, err));
    capacity = session->rows_capacity;
    CT_TRY(room((void **)&session->segs, &capacity, n_rows, sizeof *session->segs, err));
    capacity = session->rows_capacity;
    CT_TRY(room((void **)&session->rules, &capacity, n_rows, sizeof *session->rules, err));
    CT_TRY(room((void **)&session->states, &session->rows_capacity, n_rows, sizeof *session->states,
                err));
    for (size_t first = 0; first < n_rows;) CT_TRY(run_pass(session, rows, n_rows, &first, err));
done:
    omp_set_num_threads(threads);
    for (size_t i = 0; i < marked; i++) rows[i].sequence->in_step = false;
    return st;
}

ct_status ct_session_settle(ct_session *s, const ct_sequence *sequence, ct_recording *recording,
                            ct_err *err)
{
    ct_status st = CT_OK;
    int threads = omp_get_max_threads();
    if (s->model->threads > 0) omp_set_num_threads(s->model->threads);
    CT_TRY(reserve_memory(s, 1, err));
    CT_TRY(room((void **)&s->kv_blocks, &s->kv_capacity, (size_t)sequence->n_blocks,
                sizeof *s->kv_blocks, err));
    for (int p = 0; p < s->model->n_places; p++) {
        ct_op_ctx op = {.scratch = s->on[p].scratch,
                        .scratch_bytes = s->on[p].scratch_bytes,
                        .compute = s->model->compute,
                        .stage = CT_STAGE_GENERATION,
                        .plain = true,
                        .device = s->model->places[p].device};
        CT_TRY(ct_record_settle(s->model, &op, sequence, p, s->kv_blocks, recording, err));
    }
    recording->query.there = false;
done:
    omp_set_num_threads(threads);
    return st;
}
