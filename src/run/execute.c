/* execute.c - runs a plan: prefills the nodes of its tree, forks states, decodes cells in a batch.
 *
 * The schedule says what comes next (schedule.h); here it is done. Rows join and leave: cells decode
 * together whatever their prompts. Prefill and decode are separate steps, so that their times are
 * known.
 *
 *   batches --prefill--> states of nodes --fork--> states of nodes below, rows --decode--> outbox
 *
 * A finished cell waits in the outbox for at most FLUSH_MS, or for the end of one step. Outcomes do
 * not depend on the batch, nor on where a state was forked (the engine's promise), so neither do
 * they on where a run was interrupted. All cells of a plan passed ct_request_check: making their
 * jobs fails for what ends the run only, or with a cell's own logits.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "io/file.h"
#include "model/model.h"
#include "run/work.h"

enum {
    OUTBOX = 64, /* cells in one transaction */
    FLUSH_MS = 200,
    PROGRESS_MS = 100,
};

typedef struct running_row {
    ct_job *job;
    size_t node, item; /* of the plan */
    uint32_t cell;
    double prefill_ms, decode_ms;
} running_row;

typedef struct runner {
    ct_work *work;
    const ct_plan *plan;
    ct_schedule schedule;
    ct_session *session;
    size_t n_refused;
    int64_t done_before; /* cells that other models of this run have finished */
    ct_job **states;     /* by node; NULL: not prefilled yet, or gone on from */
    double *prefill_ms;  /* by node: an item's share of it and of those above */
    running_row *rows;
    ct_job **row_jobs;
    size_t n_rows;

    ct_cell outbox[OUTBOX];
    uint32_t outbox_cell[OUTBOX];
    char *outbox_text[OUTBOX], *outbox_error[OUTBOX];
    int32_t *outbox_ids[OUTBOX];
    size_t n_outbox;
    bool unsynced;       /* recordings of cells in the outbox are not on the disk yet */
    double oldest_ms;    /* when the first cell in the outbox was finished */
    double last_step_ms; /* how long the last step took */

    double shown_ms;
    int64_t tokens;
} runner;

/* ---- finished cells -------------------------------------------------------------------------- */

static void drop_outbox(runner *r)
{
    for (size_t i = 0; i < r->n_outbox; i++) {
        free(r->outbox_text[i]);
        free(r->outbox_error[i]);
        free(r->outbox_ids[i]);
    }
    r->n_outbox = 0;
}

static ct_status flush(runner *r, ct_err *err)
{
    ct_work *work = r->work;
    /* A stored cell has its recording, whatever happens: one sync for all files. */
    ct_status st = r->unsynced ? ct_dir_sync(work->recordings, err) : CT_OK;
    r->unsynced = false;
    if (st == CT_OK) st = ct_store_put(work->store, r->outbox, r->n_outbox, err);
    for (size_t i = 0; st == CT_OK && i < r->n_outbox; i++) {
        bool done = r->outbox[i].status == CT_CELL_DONE;
        work->result->done += done;
        work->result->failed += !done;
        if (!done && !work->result->first_error[0])
            snprintf(work->result->first_error, sizeof work->result->first_error,
                     "length %lld, depth %lld: %s", (long long)r->outbox[i].length,
                     (long long)r->outbox[i].depth, r->outbox[i].error);
        ct_prompt *prompt = &work->prompts[work->grid.cells[r->outbox_cell[i]].point];
        if (--prompt->cells_left == 0) ct_niah_request_clear(&prompt->request);
    }
    drop_outbox(r);
    return st;
}

/* Writes if the oldest finished cell has waited long enough, or the next step may take long. */
static ct_status flush_if_due(runner *r, ct_err *err)
{
    if (r->n_outbox == 0) return CT_OK;
    if (ct_now_ms() - r->oldest_ms + r->last_step_ms < FLUSH_MS) return CT_OK;
    return flush(r, err);
}

/* The next place in the outbox, with everything but the outcome filled in. */
static ct_status post(runner *r, uint32_t cell, ct_cell **out, ct_err *err)
{
    ct_status st = r->n_outbox == OUTBOX ? flush(r, err) : CT_OK;
    if (st != CT_OK) return st;
    if (r->n_outbox == 0) r->oldest_ms = ct_now_ms();
    size_t i = r->n_outbox++;
    r->outbox_cell[i] = cell;
    r->outbox_text[i] = r->outbox_error[i] = NULL;
    r->outbox_ids[i] = NULL;
    ct_work_cell(r->work, cell, &r->outbox[i]);
    r->outbox[i].finished_unix_ms = ct_unix_ms();
    *out = &r->outbox[i];
    return CT_OK;
}

static ct_status post_failed(runner *r, uint32_t cell, const char *error, ct_err *err)
{
    ct_cell *c;
    char *copy = ct_strdup(error, err);
    if (!copy) return CT_ERR_MEMORY;
    ct_status st = post(r, cell, &c, err);
    if (st != CT_OK) {
        free(copy);
        return st;
    }
    r->outbox_error[r->n_outbox - 1] = copy;
    c->error = copy;
    c->status = CT_CELL_FAILED;
    return CT_OK;
}

/* What a cell's failure must not hide: the machine's state, which the next cell would meet, too. */
static bool ends_run(ct_status st)
{
    return st == CT_ERR_MEMORY || st == CT_ERR_IO || st == CT_ERR_INTERRUPTED;
}

/* The answer's text with NUL bytes (a byte token may stand for one) replaced, so that the store and
 * the scoring see the whole of it. */
static ct_status answer_text(const ct_tokenizer *tokenizer, const int32_t *ids, size_t n,
                             char **out, size_t *size, ct_err *err)
{
    char *text = NULL;
    ct_buf buf = {0};
    ct_status st;
    CT_TRY(ct_tokenizer_decode(tokenizer, ids, n, true, &text, size, err));
    if (!memchr(text, 0, *size)) {
        *out = text;
        text = NULL;
        goto done;
    }
    for (size_t i = 0; i < *size; i++) {
        if (text[i]) CT_TRY(ct_buf_add(&buf, &text[i], 1, err));
        else CT_TRY(ct_buf_adds(&buf, "\xEF\xBF\xBD", err));
    }
    *size = buf.size;
    *out = ct_buf_take(&buf);
    if (!*out) st = ct_fail_memory(err, "answer", 1);
done:
    free(text);
    ct_buf_clear(&buf);
    return st;
}

/* Writes a cell's recording before its outcome is stored: a stored cell has its file. */
static ct_status write_recording(runner *r, const running_row *row, ct_err *err)
{
    const ct_recording *recording = ct_job_recording(row->job);
    size_t n;
    if (!recording) return CT_OK;
    char *path = ct_work_recording_path(r->work, row->cell, err);
    if (!path) return CT_ERR_MEMORY;
    const int32_t *ids = ct_job_fed(row->job, &n);
    ct_status st = ct_recording_write(recording, path, ids, n, false, err);
    r->unsynced = true;
    free(path);
    return st;
}

/* Checks, decodes and scores a job that is done. */
static ct_status post_done(runner *r, const running_row *row, ct_err *err)
{
    const ct_study *study = r->work->study;
    char *text = NULL;
    int32_t *copy = NULL;
    size_t n, size = 0;
    double score = 0, max_score = 0;
    ct_err why = {0};
    const int32_t *ids = ct_job_ids(row->job, &n);
    ct_status st = ct_job_check(row->job, &why);
    if (st == CT_OK) st = answer_text(r->work->tokenizer, ids, n, &text, &size, &why);
    if (st == CT_OK)
        st = ct_score(study->scoring, study->keywords, study->n_keywords, study->needle, text, size,
                      &score, &max_score, &why);
    if (st == CT_OK) st = write_recording(r, row, &why);
    if (st != CT_OK) {
        if (ends_run(st)) *err = why;
        else st = post_failed(r, row->cell, why.text, err);
        goto done;
    }
    copy = malloc(n * sizeof *copy + 1);
    if (!copy) {
        st = ct_fail_memory(err, "outcome", n * sizeof *copy);
        goto done;
    }
    memcpy(copy, ids, n * sizeof *copy);
    ct_cell *c;
    CT_TRY(post(r, row->cell, &c, err));
    size_t i = r->n_outbox - 1;
    r->outbox_text[i] = text;
    r->outbox_ids[i] = copy;
    c->status = CT_CELL_DONE;
    c->text = text;
    c->ids = copy;
    c->n_ids = n;
    c->score = score;
    c->max_score = max_score;
    c->audit = *ct_job_audit(row->job);
    c->prefill_ms = row->prefill_ms;
    c->decode_ms = row->decode_ms;
    text = NULL;
    copy = NULL;
done:
    free(text);
    free(copy);
    return st;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void show_progress(runner *r, bool force)
{
    const ct_run_options *o = r->work->options;
    double now = ct_now_ms();
    if (!o->progress || (!force && now - r->shown_ms < PROGRESS_MS)) return;
    r->shown_ms = now;
    const ct_run_result *result = r->work->result;
    const ct_run_progress p = {
        .cells_done = result->stored + result->done + result->failed + (int64_t)r->n_outbox,
        .cells_total = result->stored + r->done_before + (int64_t)r->plan->n_items +
                       (int64_t)r->n_refused + r->work->later,
        .cells_first = result->stored,
        .tokens = r->tokens,
        .elapsed_ms = now - r->work->run_begin_ms,
    };
    o->progress(o->user, &p);
}

/* Between layers, too: a step of a long prompt may take many seconds. What it computed is dropped. */
static ct_status stop_if_asked(void *user, int64_t place, const float *x, int64_t tokens,
                               ct_err *err)
{
    (void)place, (void)x, (void)tokens;
    const runner *r = user;
    return ct_work_stopped(r->work) ? ct_fail(err, CT_ERR_INTERRUPTED, "run: interrupted") : CT_OK;
}

/* One step of the engine, with what must happen between steps. */
static ct_status step(runner *r, ct_job *const *jobs, size_t n, double *ms, ct_err *err)
{
    ct_status st = stop_if_asked(r, 0, NULL, 0, err);
    if (st != CT_OK) return st;
    double begin = ct_now_ms();
    st = ct_jobs_step(r->session, jobs, n, err);
    *ms = ct_now_ms() - begin;
    r->last_step_ms = *ms;
    if (st == CT_OK) st = flush_if_due(r, err);
    show_progress(r, false);
    return st;
}

/* ---- prefill --------------------------------------------------------------------------------- */

/* Makes the job that prefills the node, at the node's begin, and has it stop at its end. */
static ct_status start_node(runner *r, size_t index, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_plan_node *node = &r->plan->nodes[index];
    const ct_plan_item *leader = &r->plan->items[node->first_item + node->n_items - 1];
    ct_job **parent = node->parent == CT_PLAN_NONE ? NULL : &r->states[node->parent];
    ct_generate_request request;
    ct_work_request(r->work, leader->cell, &request);
    if (!parent) {
        CT_TRY(ct_job_new(r->work->model, &request, &r->states[index], err));
    } else if (node->in_place) { /* the parent's leader is this node's */
        r->states[index] = *parent;
        *parent = NULL;
    } else {
        CT_TRY(ct_job_fork(*parent, &request, &r->states[index], err));
    }
    CT_TRY(ct_job_pause_at(r->states[index], node->n_children > 0 ? node->end : INT64_MAX, err));
done:
    return st;
}

static ct_status prefill_batch(runner *r, const ct_plan_batch *batch, ct_err *err)
{
    ct_status st = CT_OK;
    ct_job *jobs[CT_PLAN_TOGETHER];
    const ct_plan_node *nodes = r->plan->nodes + batch->first;
    double ms, total_ms = 0;
    int64_t tokens = 0;
    for (size_t i = 0; i < batch->count; i++) {
        CT_TRY(start_node(r, batch->first + i, err));
        tokens += nodes[i].end - nodes[i].begin;
    }
    for (;;) {
        size_t n = 0;
        for (size_t i = 0; i < batch->count; i++) {
            ct_job *job = r->states[batch->first + i];
            if (ct_job_position(job) < nodes[i].end) jobs[n++] = job;
        }
        if (n == 0) break;
        CT_TRY(step(r, jobs, n, &ms, err));
        total_ms += ms;
    }
    r->tokens += tokens;
    for (size_t i = 0; i < batch->count; i++) {
        const ct_plan_node *node = &nodes[i];
        double above = node->parent == CT_PLAN_NONE ? 0 : r->prefill_ms[node->parent];
        double share = tokens > 0 ? (double)(node->end - node->begin) / (double)tokens : 0;
        r->prefill_ms[batch->first + i] = above + total_ms * share / (double)node->n_items;
    }
done:
    return st;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Ends row i. */
static void drop_row(runner *r, size_t i)
{
    ct_schedule_leave(&r->schedule, r->rows[i].node, r->rows[i].item);
    ct_job_free(r->rows[i].job);
    r->rows[i] = r->rows[--r->n_rows];
}

/* Posts the rows that are done and closes the gaps. */
static ct_status leave_rows(runner *r, ct_err *err)
{
    for (size_t i = 0; i < r->n_rows;) {
        if (ct_job_get_state(r->rows[i].job) != CT_JOB_DONE) {
            i++;
            continue;
        }
        ct_status st = post_done(r, &r->rows[i], err);
        if (st != CT_OK) return st;
        drop_row(r, i);
    }
    return CT_OK;
}

/* Makes an item a row: a fork of its node's state, or, for the last one, that state itself. A job
 * may be done with its first token. */
static ct_status join_row(runner *r, const ct_schedule_task *task, ct_err *err)
{
    ct_status st = CT_OK;
    running_row *row = &r->rows[r->n_rows++];
    *row = (running_row){.node = task->node,
                         .item = task->item,
                         .cell = r->plan->items[task->item].cell,
                         .prefill_ms = r->prefill_ms[task->node]};
    if (task->in_place) {
        row->job = r->states[task->node];
        r->states[task->node] = NULL;
        return leave_rows(r, err);
    }
    ct_generate_request request;
    ct_err why = {0};
    ct_work_request(r->work, row->cell, &request);
    st = ct_job_fork(r->states[task->node], &request, &row->job, &why);
    if (st == CT_OK) return leave_rows(r, err);
    if (ends_run(st)) *err = why;
    else st = post_failed(r, row->cell, why.text, err);
    drop_row(r, r->n_rows - 1);
    return st;
}

static ct_status decode_step(runner *r, ct_err *err)
{
    double ms;
    for (size_t i = 0; i < r->n_rows; i++) r->row_jobs[i] = r->rows[i].job;
    ct_status st = step(r, r->row_jobs, r->n_rows, &ms, err);
    if (st != CT_OK) return st;
    for (size_t i = 0; i < r->n_rows; i++) r->rows[i].decode_ms += ms / (double)r->n_rows;
    r->tokens += (int64_t)r->n_rows;
    return leave_rows(r, err);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static ct_status make_room(runner *r, ct_err *err)
{
    size_t nodes = r->plan->n_nodes + 1, rows = r->plan->limits.rows;
    r->states = calloc(nodes, sizeof *r->states);
    r->prefill_ms = calloc(nodes, sizeof *r->prefill_ms);
    r->rows = calloc(rows, sizeof *r->rows);
    r->row_jobs = calloc(rows, sizeof(ct_job *));
    if (!r->states || !r->prefill_ms || !r->rows || !r->row_jobs)
        return ct_fail_memory(err, "run", nodes * sizeof *r->prefill_ms + rows * sizeof *r->rows);
    return ct_schedule_init(&r->schedule, r->plan, err);
}

ct_status ct_work_execute(ct_work *work, const ct_plan *plan, const ct_refused *refused,
                          size_t n_refused, ct_err *err)
{
    ct_status st;
    runner *r = calloc(1, sizeof *r);
    if (!r) return ct_fail_memory(err, "run", sizeof *r);
    r->work = work;
    r->plan = plan;
    r->n_refused = n_refused;
    r->done_before = work->result->done + work->result->failed;
    r->tokens = work->tokens;
    CT_TRY(make_room(r, err));
    show_progress(r, true);
    for (size_t i = 0; i < n_refused; i++)
        CT_TRY(post_failed(r, refused[i].cell, refused[i].why, err));
    CT_TRY(ct_session_new(work->model, &r->session, err));
    ct_session_watch(r->session, (ct_watch){stop_if_asked, r});
    for (bool more = true; more;) {
        ct_schedule_task task = ct_schedule_next(&r->schedule);
        switch (task.what) {
        case CT_DO_PREFILL:
            CT_TRY(prefill_batch(r, &plan->batches[task.batch], err));
            break;
        case CT_DO_JOIN:
            CT_TRY(join_row(r, &task, err));
            break;
        case CT_DO_DECODE:
            CT_TRY(decode_step(r, err));
            break;
        case CT_DO_END:
            more = false;
        }
        CT_TRY(flush_if_due(r, err)); /* what has ended must not wait for the next step */
    }
done:
    /* What is finished is kept, however the run ends; the first error is the one reported. */
    if (r->n_outbox > 0) {
        ct_err late = {0};
        ct_status flushed = flush(r, &late);
        if (st == CT_OK && flushed != CT_OK) {
            st = flushed;
            if (err) *err = late;
        }
    }
    show_progress(r, true);
    work->tokens = r->tokens;
    drop_outbox(r);
    for (size_t i = 0; i < r->n_rows; i++) ct_job_free(r->rows[i].job);
    for (size_t i = 0; r->states && i < plan->n_nodes; i++) ct_job_free(r->states[i]);
    free(r->states);
    free(r->prefill_ms);
    free(r->rows);
    free(r->row_jobs);
    ct_schedule_clear(&r->schedule);
    ct_session_free(r->session);
    free(r);
    return st;
}
