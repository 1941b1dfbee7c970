/* execute.c - runs a plan: prefill a group once, fork it for its members, decode all in a batch.
 *
 * Rows join and leave: up to MAX_ROWS cells decode together, whatever their prompts; when rows end,
 * members of the next groups take their places. Prefill and decode are separate steps, so that
 * their times are known; prompts shorter than a chunk are prefilled together.
 *
 *   groups --prefill--> open groups (a leader that has fed nothing) --fork--> rows --> outbox
 *
 * A finished cell waits in the outbox for at most FLUSH_MS, or for the end of one step. Outcomes do
 * not depend on the batch (the engine's promise), so neither do they on where a run was
 * interrupted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "run/work.h"

enum {
    MAX_ROWS = 64,
    MAX_OPEN = 16,        /* groups prefilled together */
    PREFILL_TOKENS = 512, /* prompts are put together up to so many tokens: a chunk of the engine */
    OUTBOX = 64,          /* cells in one transaction */
    FLUSH_MS = 200,
    PROGRESS_MS = 100,
};

typedef struct running_row {
    ct_job *job;
    uint32_t cell;
    double prefill_ms, decode_ms;
} running_row;

/* A group whose leader has been prefilled. The leader is forked for the other members and becomes a
 * row itself when none of them waits any more. */
typedef struct open_group {
    ct_job *leader;
    uint32_t leader_cell;
    size_t next, end;  /* members that wait, in plan->items */
    double prefill_ms; /* a member's share */
} open_group;

typedef struct runner {
    ct_work *work;
    const ct_plan *plan;
    ct_session *session;
    size_t next_group, n_refused;
    open_group open[MAX_OPEN];
    size_t n_open;
    running_row rows[MAX_ROWS];
    size_t n_rows;

    ct_cell outbox[OUTBOX];
    uint32_t outbox_cell[OUTBOX];
    char *outbox_text[OUTBOX], *outbox_error[OUTBOX];
    int32_t *outbox_ids[OUTBOX];
    size_t n_outbox;
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
    ct_status st = ct_store_put(work->store, r->outbox, r->n_outbox, err);
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
        .cells_total = result->stored + (int64_t)r->plan->n_items + (int64_t)r->n_refused,
        .cells_first = result->stored,
        .tokens = r->tokens,
        .elapsed_ms = now - r->work->begin_ms,
    };
    o->progress(o->user, &p);
}

/* One step of the engine, with what must happen between steps. */
static ct_status step(runner *r, ct_job *const *jobs, size_t n, double *ms, ct_err *err)
{
    if (ct_work_stopped(r->work)) return ct_fail(err, CT_ERR_INTERRUPTED, "run: interrupted");
    double begin = ct_now_ms();
    ct_status st = ct_jobs_step(r->session, jobs, n, err);
    *ms = ct_now_ms() - begin;
    r->last_step_ms = *ms;
    if (st == CT_OK) st = flush_if_due(r, err);
    show_progress(r, false);
    return st;
}

/* Makes the first member of a group that can be made its leader; those before it have failed.
 * *leader is NULL if none could. */
static ct_status make_leader(runner *r, const ct_plan_group *group, open_group *out, ct_err *err)
{
    *out = (open_group){.next = group->begin, .end = group->begin + group->count};
    while (out->next < out->end) {
        uint32_t cell = r->plan->items[out->next++].cell;
        ct_generate_request request;
        ct_err why = {0};
        ct_work_request(r->work, cell, &request);
        ct_status st = ct_job_new(r->work->model, &request, &out->leader, &why);
        if (st == CT_OK) {
            out->leader_cell = cell;
            return CT_OK;
        }
        out->leader = NULL;
        if (ends_run(st)) {
            *err = why;
            return st;
        }
        st = post_failed(r, cell, why.text, err);
        if (st != CT_OK) return st;
    }
    return CT_OK;
}

/* Prefills the next groups: one long prompt, or several short ones together. */
static ct_status open_groups(runner *r, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t tokens = 0, chunk = 0;
    double total_ms = 0;
    while (r->n_open < MAX_OPEN && r->next_group < r->plan->n_groups && chunk < PREFILL_TOKENS) {
        const ct_plan_group *group = &r->plan->groups[r->next_group];
        int64_t n = r->plan->items[group->begin].prompt_tokens;
        if (chunk > 0 && chunk + n > PREFILL_TOKENS) break;
        r->next_group++;
        CT_TRY(make_leader(r, group, &r->open[r->n_open], err));
        if (!r->open[r->n_open].leader) continue;
        r->n_open++;
        chunk += n;
        tokens += n;
    }
    for (;;) {
        ct_job *jobs[MAX_OPEN];
        size_t n = 0;
        double ms;
        for (size_t i = 0; i < r->n_open; i++)
            if (ct_job_get_state(r->open[i].leader) == CT_JOB_PREFILL)
                jobs[n++] = r->open[i].leader;
        if (n == 0) break;
        CT_TRY(step(r, jobs, n, &ms, err));
        total_ms += ms;
    }
    r->tokens += tokens;
    for (size_t i = 0; i < r->n_open; i++) {
        open_group *g = &r->open[i];
        double share = (double)r->plan->items[g->next - 1].prompt_tokens / (double)tokens;
        g->prefill_ms = total_ms * share / (double)(g->end - g->next + 1);
    }
done:
    return st;
}

/* Moves one waiting member of an open group to the rows; the leader last. */
static ct_status join_row(runner *r, ct_err *err)
{
    open_group *g = &r->open[r->n_open - 1];
    running_row row = {.prefill_ms = g->prefill_ms};
    if (g->next == g->end) {
        row.job = g->leader;
        row.cell = g->leader_cell;
        r->n_open--;
    } else {
        row.cell = r->plan->items[g->next++].cell;
        ct_generate_request request;
        ct_err why = {0};
        ct_work_request(r->work, row.cell, &request);
        ct_status st = ct_job_fork(g->leader, &request, &row.job, &why);
        if (ends_run(st)) {
            *err = why;
            return st;
        }
        if (st != CT_OK) return post_failed(r, row.cell, why.text, err);
    }
    r->rows[r->n_rows++] = row;
    return CT_OK;
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
        ct_job_free(r->rows[i].job);
        r->rows[i] = r->rows[--r->n_rows];
    }
    return CT_OK;
}

static ct_status decode_step(runner *r, ct_err *err)
{
    ct_job *jobs[MAX_ROWS];
    double ms;
    for (size_t i = 0; i < r->n_rows; i++) jobs[i] = r->rows[i].job;
    ct_status st = step(r, jobs, r->n_rows, &ms, err);
    if (st != CT_OK) return st;
    for (size_t i = 0; i < r->n_rows; i++) r->rows[i].decode_ms += ms / (double)r->n_rows;
    r->tokens += (int64_t)r->n_rows;
    return CT_OK;
}

ct_status ct_work_execute(ct_work *work, const ct_plan *plan, const uint32_t *refused,
                          size_t n_refused, ct_err *err)
{
    ct_status st;
    runner *r = calloc(1, sizeof *r);
    if (!r) return ct_fail_memory(err, "run", sizeof *r);
    r->work = work;
    r->plan = plan;
    r->n_refused = n_refused;
    show_progress(r, true);
    for (size_t i = 0; i < n_refused; i++)
        CT_TRY(post_failed(r, refused[i], ct_work_refusal(work, refused[i]), err));
    CT_TRY(ct_session_new(work->model, &r->session, err));
    for (;;) {
        while (r->n_rows < MAX_ROWS) {
            if (r->n_open > 0) CT_TRY(join_row(r, err));
            else if (r->next_group < plan->n_groups) CT_TRY(open_groups(r, err));
            else break;
        }
        CT_TRY(leave_rows(r, err)); /* a job may be done with its first token */
        CT_TRY(flush_if_due(r, err));
        if (r->n_rows > 0) CT_TRY(decode_step(r, err));
        else if (r->n_open == 0 && r->next_group == plan->n_groups) break;
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
    drop_outbox(r);
    for (size_t i = 0; i < r->n_rows; i++) ct_job_free(r->rows[i].job);
    for (size_t i = 0; i < r->n_open; i++) ct_job_free(r->open[i].leader);
    ct_session_free(r->session);
    free(r);
    return st;
}
