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

enum {
    PASS_TOKENS = 1024, /* packed tokens of one pass; only a row that must be whole may exceed it */
    LOGITS_TOKENS = 64, /* tokens whose logits are computed by one product */
    LOGITS_FLOATS = 1 << 18, /* of a product: a slice of the vocabulary that stays in cache */
    LINE_FLOATS = 16,
};

struct ct_session {
    const ct_model *model;
    ct_edit_plan plan;
    float *memory; /* working memory of the pass, on a cache line */
    size_t memory_floats;
    void *scratch; /* of the operations */
    size_t scratch_bytes;
    /* Per pass; grown together with the numbers of rows, tokens, runs and blocks. */
    int32_t *ids, *keep;
    size_t tokens_capacity;
    ct_pass_row *rows;
    ct_seg *segs;
    float **states;
    size_t rows_capacity;
    ct_attn_row *attn;
    size_t attn_capacity;
    ct_attn_row *recorded;
    ct_weights_out *recorded_out;
    size_t recorded_capacity;
    const float **kv_blocks;
    size_t kv_capacity;
    int64_t *done; /* tokens of each row of the step that earlier passes have run */
    size_t done_capacity;
    struct wanted *wanted;
    size_t wanted_capacity;
};

/* A token of a pass whose logits are wanted, and where. */
typedef struct wanted {
    int64_t token;
    float *out; /* [V] */
} wanted;

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
    free(session->memory);
    free(session->scratch);
    free(session->ids);
    free(session->keep);
    free(session->rows);
    free(session->segs);
    free(session->states);
    free(session->attn);
    free(session->recorded);
    free(session->recorded_out);
    free(session->kv_blocks);
    free(session->done);
    free(session->wanted);
    free(session);
}

const ct_model *ct_session_model(const ct_session *session)
{
    return session->model;
}

size_t ct_session_bytes(const ct_session *session)
{
    return session->memory_floats * sizeof(float) + session->scratch_bytes;
}

/* Floats of working memory for a pass of `tokens`: x and normed, then the hungriest part. */
static size_t working_floats(const ct_model *m, int64_t tokens)
{
    size_t most = ct_pass_round(LOGITS_FLOATS);
    for (int64_t i = 0; i < m->info.layers; i++) {
        const ct_layer *l = &m->layers[i];
        size_t mixer = l->mixer_kind->floats(l->mixer, m, tokens);
        size_t ffn = l->ffn_kind->floats(l->ffn, m, tokens);
        most = mixer > most ? mixer : most;
        most = ffn > most ? ffn : most;
    }
    return 2 * ct_pass_round((size_t)(tokens * m->info.width)) + most;
}

static size_t scratch_bytes(const ct_model *m, int64_t tokens)
{
    size_t layers = m->ops->scratch_bytes(tokens, m->matrix_rows, m->matrix_cols, m->info.heads,
                                          m->info.head_dim);
    size_t logits = m->ops->scratch_bytes(LOGITS_TOKENS, m->info.vocab, m->info.width,
                                          m->info.heads, m->info.head_dim);
    return layers > logits ? layers : logits;
}

int64_t ct_session_working_bytes(const ct_model *model)
{
    return (int64_t)(working_floats(model, PASS_TOKENS) * sizeof(float) +
                     scratch_bytes(model, PASS_TOKENS));
}

static ct_status reserve_memory(ct_session *s, int64_t tokens, ct_err *err)
{
    size_t floats = working_floats(s->model, tokens), scratch = scratch_bytes(s->model, tokens);
    if (floats > s->memory_floats) {
        s->memory_floats = 0;
        ct_status st = grow((void **)&s->memory, floats * sizeof(float), "working memory", err);
        if (st != CT_OK) return st;
        s->memory_floats = floats;
    }
    if (scratch > s->scratch_bytes) {
        s->scratch_bytes = 0;
        ct_status st = grow(&s->scratch, scratch, "scratch memory", err);
        if (st != CT_OK) return st;
        s->scratch_bytes = scratch;
    }
    return CT_OK;
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
    *pass = (ct_pass){.model = model, .rows = s->rows, .segs = s->segs, .states = s->states};
    ct_edit_plan_reset(&s->plan);
    bool selects = false;
    for (size_t i = *first; i < n_rows; i++) {
        ct_row *row = &rows[i];
        int64_t take = take_tokens(row, s->done[i], PASS_TOKENS - pass->tokens, pass->tokens);
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
    if (s->tokens_capacity < (size_t)pass->tokens) {
        size_t capacity = s->tokens_capacity;
        CT_TRY(room((void **)&s->keep, &capacity, (size_t)pass->tokens, sizeof *s->keep, err));
        CT_TRY(
            room((void **)&s->ids, &s->tokens_capacity, (size_t)pass->tokens, sizeof *s->ids, err));
    }
    for (int64_t r = 0; r < pass->n_rows; r++) {
        const ct_pass_row *row = &s->rows[r];
        size_t i = *first + (size_t)r;
        memcpy(s->ids + row->seg.first, rows[i].ids + s->done[i],
               (size_t)row->seg.count * sizeof *s->ids);
        int32_t keep = ct_heads_keep(row->intervention, row->stage);
        for (int64_t t = 0; t < row->seg.count; t++) s->keep[row->seg.first + t] = keep;
        if (keep < 0) continue;
        ct_metric metric = row->intervention->heads.metric;
        pass->wants_entropy |= metric == CT_METRIC_ENTROPY || metric == CT_METRIC_ENTROPY_INVERTED;
        pass->wants_l2 |= metric == CT_METRIC_L2;
    }
    pass->ids = s->ids;
    pass->keep = selects ? s->keep : NULL;
    pass->plan = &s->plan;
done:
    return st;
}

/* The edit runs as the attention operation takes them; keys and values are per layer. */
static ct_status pack_attention(ct_session *s, ct_pass *pass, ct_err *err)
{
    size_t lists = 0, longest = 0;
    ct_status st = room((void **)&s->attn, &s->attn_capacity, s->plan.n_runs, sizeof *s->attn, err);
    for (int64_t r = 0; r < pass->n_rows; r++) {
        size_t blocks = (size_t)s->rows[r].sequence->n_blocks;
        lists += 2 * blocks;
        longest = blocks > longest ? blocks : longest;
    }
    if (st == CT_OK)
        st = room((void **)&s->kv_blocks, &s->kv_capacity, lists + longest, sizeof *s->kv_blocks,
                  err);
    if (st != CT_OK) return st;
    for (int64_t r = 0; r < pass->n_rows; r++) {
        const ct_pass_row *row = &s->rows[r];
        for (size_t i = row->first_run; i < row->first_run + row->n_runs; i++) {
            const ct_edit_run *run = &s->plan.runs[i];
            s->attn[i] = (ct_attn_row){
                .seg = {row->seg.first + run->offset, run->count, row->seg.position + run->offset},
                .window = run->window,
                .edit = run->mode,
                .marked = s->plan.marked + run->marked_at,
                .marked_count = run->marked_count,
            };
            /* Head scores come from the unedited weights all the same; the output of this first
             * product is replaced. */
            if (run->mean_per_layer) s->attn[i].edit = CT_WEIGHTS_KEEP;
            if (row->part.count > 0) {
                s->attn[i].needle = row->recording->needle;
                s->attn[i].n_needle = row->recording->n_needle;
            }
            pass->has_layer_means |= run->mean_per_layer;
        }
    }
    if (pass->records) {
        size_t capacity = s->recorded_capacity;
        CT_TRY(room((void **)&s->recorded_out, &capacity, s->plan.n_runs, sizeof *s->recorded_out,
                    err));
        CT_TRY(room((void **)&s->recorded, &s->recorded_capacity, s->plan.n_runs,
                    sizeof *s->recorded, err));
    }
    pass->recorded = s->recorded;
    pass->recorded_out = s->recorded_out;
    pass->attn = s->attn;
    pass->kv_blocks = s->kv_blocks;
    pass->kv_spare = s->kv_blocks + lists;
done:
    return st;
}

/* ---- logits ---------------------------------------------------------------------------------- */

/* The tokens of the pass whose logits are wanted, in order. */
static ct_status find_wanted(ct_session *s, const ct_pass *pass, ct_row *rows, size_t first,
                             int64_t *count, ct_err *err)
{
    int64_t n = 0, vocab = pass->model->info.vocab;
    ct_status st = room((void **)&s->wanted, &s->wanted_capacity, (size_t)pass->tokens,
                        sizeof *s->wanted, err);
    if (st != CT_OK) return st;
    for (int64_t r = 0; r < pass->n_rows; r++) {
        const ct_row *row = &rows[first + (size_t)r];
        const ct_seg *seg = &pass->segs[r];
        int64_t done = s->done[first + (size_t)r];
        bool all = row->want == CT_LOGITS_ALL, ends = done + seg->count == row->count;
        if (row->want == CT_LOGITS_NONE) continue;
        for (int64_t t = all ? 0 : seg->count - ends; t < seg->count; t++)
            s->wanted[n++] = (wanted){seg->first + t, row->logits + (all ? (done + t) * vocab : 0)};
    }
    *count = n;
    return CT_OK;
}

/* Logits of n <= LOGITS_TOKENS rows of normed to out, a slice of the vocabulary at a time. */
static ct_status compute_logits(ct_pass *pass, const float *normed, const wanted *out, int64_t n,
                                ct_err *err)
{
    const ct_model *m = pass->model;
    int64_t vocab = m->info.vocab, slice = LOGITS_FLOATS / n / CT_KV_BLOCK * CT_KV_BLOCK;
    size_t mark = pass->memory_used,
           row_bytes = (size_t)m->head.cols * ct_dtype_bytes(m->head.dtype);
    float *logits = ct_pass_floats(pass, LOGITS_FLOATS), *to[LOGITS_TOKENS];
    ct_status st = CT_OK;
    for (int64_t v = 0; st == CT_OK && v < vocab; v += slice) {
        int64_t count = slice < vocab - v ? slice : vocab - v;
        ct_matrix head = m->head;
        head.data = (const char *)head.data + (size_t)v * row_bytes;
        head.rows = count;
        st = m->ops->matmul(&pass->op, logits, normed, n, &head, NULL, false, err);
        for (int64_t i = 0; i < n; i++) to[i] = out[i].out + v;
        if (st == CT_OK) m->ops->soft_cap(to, logits, n, count, m->logits_soft_cap);
    }
    pass->memory_used = mark;
    return st;
}

/* ---- the pass -------------------------------------------------------------------------------- */

/* All layers. Nothing after the last mixer leaves a state, so from there on only the wanted tokens
 * are computed: they move to the front of x. */
static ct_status run_layers(ct_pass *pass, const wanted *wants, int64_t n_wanted, float *x,
                            float *normed, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_model *m = pass->model;
    int64_t width = m->info.width;
    size_t mark = pass->memory_used;
    m->ops->embed(x, pass->ids, pass->tokens, &m->embed, m->embed_scale);
    for (int64_t i = 0; i < m->info.layers; i++) {
        const ct_layer *layer = &m->layers[i];
        m->ops->rms_norm(normed, x, pass->tokens, width, layer->mixer_norm, m->norm_eps,
                         m->norm_offset);
        CT_TRY(layer->mixer_kind->forward(layer, pass, normed, x, err));
        pass->memory_used = mark;
        if (i == m->info.layers - 1) {
            for (int64_t t = 0; t < n_wanted; t++)
                memmove(x + t * width, x + wants[t].token * width, (size_t)width * sizeof *x);
            pass->tokens = n_wanted;
            if (n_wanted == 0) break;
        }
        m->ops->rms_norm(normed, x, pass->tokens, width, layer->ffn_norm, m->norm_eps,
                         m->norm_offset);
        CT_TRY(layer->ffn_kind->forward(layer, pass, normed, x, err));
        pass->memory_used = mark;
    }
    m->ops->rms_norm(normed, x, n_wanted, width, m->final_norm, m->norm_eps, m->norm_offset);
    for (int64_t t = 0; t < n_wanted; t += LOGITS_TOKENS) {
        int64_t n = n_wanted - t < LOGITS_TOKENS ? n_wanted - t : LOGITS_TOKENS;
        CT_TRY(compute_logits(pass, normed + t * width, wants + t, n, err));
    }
done:
    return st;
}

static ct_status run_pass(ct_session *s, ct_row *rows, size_t n_rows, size_t *first, ct_err *err)
{
    ct_status st = CT_OK;
    ct_pass pass;
    CT_TRY(pack(s, rows, n_rows, first, &pass, err));
    CT_TRY(pack_attention(s, &pass, err));
    CT_TRY(reserve_memory(s, pass.tokens, err));
    pass.op = (ct_op_ctx){s->scratch, s->scratch_bytes, s->model->compute};
    pass.memory = s->memory;
    pass.memory_floats = s->memory_floats;
    size_t size = (size_t)(pass.tokens * s->model->info.width);
    float *x = ct_pass_floats(&pass, size), *normed = ct_pass_floats(&pass, size);
    int64_t n_wanted = 0;
    CT_TRY(find_wanted(s, &pass, rows, *first, &n_wanted, err));
    CT_TRY(run_layers(&pass, s->wanted, n_wanted, x, normed, err));
    for (int64_t r = 0; r < pass.n_rows; r++) {
        const ct_pass_row *row = &s->rows[r];
        int64_t window = ct_intervention_window(row->intervention, row->stage, s->model->window);
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
    ct_op_ctx op = {s->scratch, s->scratch_bytes, s->model->compute};
    CT_TRY(ct_record_settle(s->model, &op, sequence, s->kv_blocks, recording, err));
done:
    omp_set_num_threads(threads);
    return st;
}
