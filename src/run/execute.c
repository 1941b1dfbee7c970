/* execute.c - runs plans: prefills the nodes of their trees, forks states, decodes cells in a batch.
 *
 * A lane takes one plan after another and lets the rows of two overlap, so that its batch of rows stays
 * full. The schedule says what comes next (schedule.h); here it is done. Rows join and leave: cells decode
 * together whatever their prompts. Prefill and decode are separate steps, so that their times are
 * known.
 *
 *   batches --prefill--> states of nodes --fork--> states of nodes below, rows --decode--> outbox
 *
 * Outcomes do not depend on the batch, nor on where a state was forked (the engine's promise), so
 * neither do they on where a run was interrupted, nor on how many lanes there are. All cells of a plan passed ct_request_check: making their
 * jobs fails for what ends the run only, or with a cell's own logits.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "model/model.h"
#include "run/outbox.h"

/* A plan that a lane has begun. */
typedef struct stretch {
    const ct_plan *plan; /* NULL: none */
    ct_schedule schedule;
    ct_job **states;    /* by node; NULL: not prefilled yet, or gone on from */
    double *prefill_ms; /* by node: an item's share of it and of those above */
} stretch;

typedef struct running_row {
    ct_job *job;
    stretch *of;
    size_t node, item; /* of its plan */
    uint32_t cell;
    double prefill_ms, decode_ms;
} running_row;

/* What the lanes of a run share. */
typedef struct execution {
    ct_work *work;
    const ct_plans *plans;
    atomic_size_t next_plan;
    ct_outbox *box;
} execution;

typedef struct runner {
    execution *shared;
    ct_work *work;
    ct_outbox *box;
    ct_model *model;
    pthread_t thread;
    bool started;
    ct_session *session;
    stretch stretches[2]; /* that which is at work, and the one before, whose rows may go on */
    stretch *now, *before;
    running_row *rows;
    ct_job **row_jobs;
    size_t n_rows;
    double last_step_ms;
} runner;

/* ---- finished cells -------------------------------------------------------------------------- */

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
    ct_outbox_recorded(r->box);
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
        else st = ct_outbox_failed(r->box, row->cell, why.text, err);
        goto done;
    }
    copy = malloc(n * sizeof *copy + 1);
    if (!copy) {
        st = ct_fail_memory(err, "outcome", n * sizeof *copy);
        goto done;
    }
    memcpy(copy, ids, n * sizeof *copy);
    ct_cell c;
    ct_work_cell(r->work, row->cell, &c);
    c.status = CT_CELL_DONE;
    c.text = text;
    c.ids = copy;
    c.n_ids = n;
    c.score = score;
    c.max_score = max_score;
    c.audit = *ct_job_audit(row->job);
    c.prefill_ms = row->prefill_ms;
    c.decode_ms = row->decode_ms;
    return ct_outbox_done(r->box, row->cell, &c, text, copy, err);
done:
    free(text);
    return st;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* Between layers, too: a step of a long prompt may take many seconds. What it computed is dropped. */
static ct_status stop_if_asked(void *user, int64_t where, const float *x, int64_t tokens,
                               ct_err *err)
{
    (void)where, (void)x, (void)tokens;
    const runner *r = user;
    return ct_outbox_check_stop(r->box, err);
}

/* One step of the engine, with what must happen between steps. */
static ct_status step(runner *r, ct_job *const *jobs, size_t n, double *ms, ct_err *err)
{
    ct_status st = ct_outbox_check_stop(r->box, err);
    if (st != CT_OK) return st;
    double begin = ct_now_ms();
    st = ct_jobs_step(r->session, jobs, n, err);
    r->last_step_ms = *ms = ct_now_ms() - begin;
    return st == CT_OK ? ct_outbox_tend(r->box, r->last_step_ms, err) : st;
}

/* ---- prefill --------------------------------------------------------------------------------- */

/* Makes the job that prefills the node, at the node's begin, and has it stop at its end. */
static ct_status start_node(runner *r, size_t index, ct_err *err)
{
    ct_status st = CT_OK;
    stretch *s = r->now;
    const ct_plan_node *node = &s->plan->nodes[index];
    const ct_plan_item *leader = &s->plan->items[node->first_item + node->n_items - 1];
    ct_job **parent = node->parent == CT_PLAN_NONE ? NULL : &s->states[node->parent];
    ct_generate_request request;
    ct_work_request(r->work, leader->cell, &request);
    if (!parent) {
        CT_TRY(ct_job_new(r->model, &request, &s->states[index], err));
    } else if (node->in_place) { /* the parent's leader is this node's */
        s->states[index] = *parent;
        *parent = NULL;
    } else {
        CT_TRY(ct_job_fork(*parent, &request, &s->states[index], err));
    }
    CT_TRY(ct_job_pause_at(s->states[index], node->n_children > 0 ? node->end : INT64_MAX, err));
done:
    return st;
}

static ct_status prefill_batch(runner *r, const ct_plan_batch *batch, ct_err *err)
{
    ct_status st = CT_OK;
    ct_job *jobs[CT_PLAN_TOGETHER];
    stretch *s = r->now;
    const ct_plan_node *nodes = s->plan->nodes + batch->first;
    double ms, total_ms = 0;
    int64_t tokens = 0;
    for (size_t i = 0; i < batch->count; i++) {
        CT_TRY(start_node(r, batch->first + i, err));
        tokens += nodes[i].end - nodes[i].begin;
    }
    for (;;) {
        size_t n = 0;
        for (size_t i = 0; i < batch->count; i++) {
            ct_job *job = s->states[batch->first + i];
            if (ct_job_position(job) < nodes[i].end) jobs[n++] = job;
        }
        if (n == 0) break;
        CT_TRY(step(r, jobs, n, &ms, err));
        total_ms += ms;
    }
    ct_outbox_count_tokens(r->box, tokens);
    for (size_t i = 0; i < batch->count; i++) {
        const ct_plan_node *node = &nodes[i];
        double above = node->parent == CT_PLAN_NONE ? 0 : s->prefill_ms[node->parent];
        double share = tokens > 0 ? (double)(node->end - node->begin) / (double)tokens : 0;
        s->prefill_ms[batch->first + i] = above + total_ms * share / (double)node->n_items;
    }
done:
    return st;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* Ends row i. */
static void drop_row(runner *r, size_t i)
{
    ct_schedule_leave(&r->rows[i].of->schedule, r->rows[i].node, r->rows[i].item);
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
    stretch *s = r->now;
    running_row *row = &r->rows[r->n_rows++];
    *row = (running_row){.of = s,
                         .node = task->node,
                         .item = task->item,
                         .cell = s->plan->items[task->item].cell,
                         .prefill_ms = s->prefill_ms[task->node]};
    if (task->in_place) {
        row->job = s->states[task->node];
        s->states[task->node] = NULL;
        return leave_rows(r, err);
    }
    ct_generate_request request;
    ct_err why = {0};
    ct_work_request(r->work, row->cell, &request);
    st = ct_job_fork(s->states[task->node], &request, &row->job, &why);
    if (st == CT_OK) return leave_rows(r, err);
    if (ends_run(st)) *err = why;
    else st = ct_outbox_failed(r->box, row->cell, why.text, err);
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
    ct_outbox_count_tokens(r->box, (int64_t)r->n_rows);
    return leave_rows(r, err);
}

/* ---- lanes ----------------------------------------------------------------------------------- */

static void end_stretch(stretch *s)
{
    for (size_t i = 0; s->states && i < s->plan->n_nodes; i++) ct_job_free(s->states[i]);
    free(s->states);
    free(s->prefill_ms);
    ct_schedule_clear(&s->schedule);
    *s = (stretch){0};
}

/* Takes the next plan, if there is one; the rows of the one before go on beside it. */
static ct_status next_stretch(runner *r, bool *taken, ct_err *err)
{
    size_t i = atomic_fetch_add(&r->shared->next_plan, 1);
    *taken = i < r->shared->plans->n;
    if (!*taken) return CT_OK;
    stretch *s = r->before;
    r->before = r->now;
    r->before->schedule.beside = NULL;
    r->now = s;
    end_stretch(s); /* all of its rows have ended */
    s->plan = &r->shared->plans->list[i];
    s->states = calloc(s->plan->n_nodes + 1, sizeof *s->states);
    s->prefill_ms = calloc(s->plan->n_nodes + 1, sizeof *s->prefill_ms);
    if (!s->states || !s->prefill_ms)
        return ct_fail_memory(err, "run", s->plan->n_nodes * sizeof *s->prefill_ms);
    ct_status st = ct_schedule_init(&s->schedule, s->plan, err);
    if (r->before->plan) s->schedule.beside = &r->before->schedule;
    return st;
}

/* The next task; CT_DO_END when no plan is left. */
static ct_status next_task(runner *r, ct_schedule_task *task, ct_err *err)
{
    bool more = !r->now->plan || ct_schedule_all_begun(&r->now->schedule);
    while (more && r->before->schedule.n_rows == 0) {
        ct_status st = next_stretch(r, &more, err);
        if (st != CT_OK) return st;
        more = more && ct_schedule_all_begun(&r->now->schedule); /* it has no cells */
    }
    *task =
        r->now->plan ? ct_schedule_next(&r->now->schedule) : (ct_schedule_task){.what = CT_DO_END};
    return CT_OK;
}

static ct_status run_lane(runner *r, ct_err *err)
{
    ct_status st;
    size_t rows = r->shared->plans->n > 0 ? r->shared->plans->list[0].limits.rows : 1;
    r->rows = calloc(rows, sizeof *r->rows);
    r->row_jobs = calloc(rows, sizeof(ct_job *));
    if (!r->rows || !r->row_jobs) CT_TRY(ct_fail_memory(err, "run", rows * sizeof *r->rows));
    CT_TRY(ct_session_new(r->model, &r->session, err));
    ct_session_watch(r->session, (ct_watch){stop_if_asked, r});
    for (bool more = true; more;) {
        ct_schedule_task task;
        /* What has ended must not wait for the next step. */
        CT_TRY(ct_outbox_tend(r->box, r->last_step_ms, err));
        CT_TRY(next_task(r, &task, err));
        switch (task.what) {
        case CT_DO_PREFILL:
            CT_TRY(prefill_batch(r, &r->now->plan->batches[task.batch], err));
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
    }
done:
    for (size_t i = 0; i < r->n_rows; i++) ct_job_free(r->rows[i].job);
    end_stretch(&r->stretches[0]);
    end_stretch(&r->stretches[1]);
    free(r->rows);
    free(r->row_jobs);
    ct_session_free(r->session);
    return st;
}

static void *lane_thread(void *of)
{
    runner *r = of;
    ct_err why = {0};
    ct_status st = run_lane(r, &why);
    why.status = st;
    if (st != CT_OK) ct_outbox_fail(r->box, &why);
    return NULL;
}

/* Lanes beyond the first are threads of their own; what they leave undone if one cannot be had, the
 * others do. */
static void run_lanes(execution *e, runner *lanes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        runner *r = &lanes[i];
        *r = (runner){.shared = e, .work = e->work, .box = e->box, .model = e->work->lanes[i]};
        r->now = &r->stretches[0];
        r->before = &r->stretches[1];
        r->started = i > 0 && pthread_create(&r->thread, NULL, lane_thread, r) == 0;
    }
    lane_thread(&lanes[0]);
    for (size_t i = 1; i < n; i++)
        if (lanes[i].started) pthread_join(lanes[i].thread, NULL);
}

/* ---- the whole ------------------------------------------------------------------------------- */

ct_status ct_work_execute(ct_work *work, const ct_plans *plans, const ct_refused *refused,
                          size_t n_refused, ct_err *err)
{
    execution e = {.work = work, .plans = plans};
    ct_err why = {0};
    ct_status st = CT_OK;
    size_t planned = n_refused, n = work->n_lanes < plans->n ? work->n_lanes : plans->n;
    for (size_t i = 0; i < plans->n; i++) planned += plans->list[i].n_items;
    runner *lanes = calloc(n + 1, sizeof *lanes);
    if (!lanes) return ct_fail_memory(err, "run", n * sizeof *lanes);
    st = ct_outbox_new(work, (int64_t)planned, &e.box, err);
    if (st != CT_OK) goto done;
    for (size_t i = 0; i < n_refused && st == CT_OK; i++)
        st = ct_outbox_failed(e.box, refused[i].cell, refused[i].why, &why);
    why.status = st;
    if (st != CT_OK) ct_outbox_fail(e.box, &why);
    else if (n > 0) run_lanes(&e, lanes, n);
    st = ct_outbox_close(e.box, err);
done:
    free(lanes);
    return st;
}
