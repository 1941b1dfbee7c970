/* outbox.c - finished cells, counts, progress, the first error. See outbox.h.
 *
 * `lock` guards what lanes share and is held for moments only; `storing` is held while the store is
 * written to, before `lock` where both are needed. The store's handle and the recordings' folder are
 * touched under `storing` alone.
 */
#include "run/outbox.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "io/file.h"

enum {
    ROOM = 64, /* cells in one transaction */
    FLUSH_MS = 200,
    PROGRESS_MS = 100,
};

/* Finished cells; text that they point to is owned here. */
typedef struct batch {
    ct_cell cells[ROOM];
    uint32_t index[ROOM];
    char *text[ROOM], *error[ROOM];
    int32_t *ids[ROOM];
    size_t n;
    bool unsynced; /* recordings of these cells are not on the disk yet */
} batch;

struct ct_outbox {
    ct_work *work;
    pthread_mutex_t lock, storing;
    batch waiting, going; /* going: under `storing`, but for its number */
    double oldest_ms;     /* when the first of the waiting ones was finished */
    int64_t total;        /* cells of all models that the run may come to */
    int64_t tokens;
    double shown_ms;
    ct_err failure; /* the first; status CT_OK: none */
};

ct_status ct_outbox_new(ct_work *work, int64_t planned, ct_outbox **out, ct_err *err)
{
    ct_outbox *box = calloc(1, sizeof *box);
    if (!box) return ct_fail_memory(err, "run", sizeof *box);
    const ct_run_result *result = work->result;
    box->work = work;
    box->tokens = work->tokens;
    box->total = result->stored + result->done + result->failed + planned + work->later;
    pthread_mutex_init(&box->lock, NULL);
    pthread_mutex_init(&box->storing, NULL);
    *out = box;
    return CT_OK;
}

static void drop(batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        free(b->text[i]);
        free(b->error[i]);
        free(b->ids[i]);
    }
    b->n = 0;
    b->unsynced = false;
}

/* ---- storing --------------------------------------------------------------------------------- */

/* The cells that were stored, in the counts; `lock` is held. */
static void count_stored(ct_work *work, const batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        bool done = b->cells[i].status == CT_CELL_DONE;
        work->result->done += done;
        work->result->failed += !done;
        if (!done && !work->result->first_error[0])
            snprintf(work->result->first_error, sizeof work->result->first_error,
                     "length %lld, depth %lld: %s", (long long)b->cells[i].length,
                     (long long)b->cells[i].depth, b->cells[i].error);
        ct_prompt *prompt = &work->prompts[work->grid.cells[b->index[i]].point];
        if (--prompt->cells_left == 0) ct_niah_request_clear(&prompt->request);
    }
}

/* Writes all that waits; `storing` is held. What could not be written is lost, and the run ends. */
static ct_status store_waiting(ct_outbox *box, ct_err *err)
{
    ct_work *work = box->work;
    pthread_mutex_lock(&box->lock);
    box->going = box->waiting;
    box->waiting.n = 0;
    box->waiting.unsynced = false;
    pthread_mutex_unlock(&box->lock);
    if (box->going.n == 0) return CT_OK;
    /* A stored cell has its recording, whatever happens: one sync for all files. */
    ct_status st = box->going.unsynced ? ct_dir_sync(work->recordings, err) : CT_OK;
    if (st == CT_OK) st = ct_store_put(work->store, box->going.cells, box->going.n, err);
    pthread_mutex_lock(&box->lock);
    if (st == CT_OK) count_stored(work, &box->going);
    drop(&box->going);
    pthread_mutex_unlock(&box->lock);
    return st;
}

static ct_status flush(ct_outbox *box, ct_err *err)
{
    pthread_mutex_lock(&box->storing);
    ct_status st = store_waiting(box, err);
    pthread_mutex_unlock(&box->storing);
    return st;
}

/* ---- finished cells -------------------------------------------------------------------------- */

static ct_status add(ct_outbox *box, uint32_t index, const ct_cell *cell, char *text, char *error,
                     int32_t *ids, ct_err *err)
{
    pthread_mutex_lock(&box->lock);
    while (box->waiting.n == ROOM) {
        pthread_mutex_unlock(&box->lock);
        ct_status st = flush(box, err);
        if (st != CT_OK) {
            free(text);
            free(error);
            free(ids);
            return st;
        }
        pthread_mutex_lock(&box->lock);
    }
    batch *b = &box->waiting;
    if (b->n == 0) box->oldest_ms = ct_now_ms();
    b->cells[b->n] = *cell;
    b->cells[b->n].finished_unix_ms = ct_unix_ms();
    b->index[b->n] = index;
    b->text[b->n] = text;
    b->error[b->n] = error;
    b->ids[b->n++] = ids;
    pthread_mutex_unlock(&box->lock);
    return CT_OK;
}

ct_status ct_outbox_done(ct_outbox *box, uint32_t index, const ct_cell *cell, char *text,
                         int32_t *ids, ct_err *err)
{
    return add(box, index, cell, text, NULL, ids, err);
}

ct_status ct_outbox_failed(ct_outbox *box, uint32_t index, const char *error, ct_err *err)
{
    ct_cell cell;
    char *copy = ct_strdup(error, err);
    if (!copy) return CT_ERR_MEMORY;
    ct_work_cell(box->work, index, &cell);
    cell.error = copy;
    cell.status = CT_CELL_FAILED;
    return add(box, index, &cell, NULL, copy, NULL, err);
}

void ct_outbox_recorded(ct_outbox *box)
{
    pthread_mutex_lock(&box->lock);
    box->waiting.unsynced = true;
    pthread_mutex_unlock(&box->lock);
}

/* ---- between steps --------------------------------------------------------------------------- */

/* `lock` is held. */
static void show_progress(ct_outbox *box, bool force)
{
    const ct_run_options *o = box->work->options;
    const ct_run_result *result = box->work->result;
    double now = ct_now_ms();
    if (!o->progress || (!force && now - box->shown_ms < PROGRESS_MS)) return;
    box->shown_ms = now;
    const ct_run_progress p = {
        .cells_done = result->stored + result->done + result->failed +
                      (int64_t)(box->waiting.n + box->going.n),
        .cells_total = box->total,
        .cells_first = result->stored,
        .tokens = box->tokens,
        .elapsed_ms = now - box->work->run_begin_ms,
    };
    o->progress(o->user, &p);
}

ct_status ct_outbox_tend(ct_outbox *box, double last_step_ms, ct_err *err)
{
    ct_status st = CT_OK;
    pthread_mutex_lock(&box->lock);
    bool due = box->waiting.n > 0 && ct_now_ms() - box->oldest_ms + last_step_ms >= FLUSH_MS;
    show_progress(box, box->shown_ms == 0);
    pthread_mutex_unlock(&box->lock);
    /* Another lane that is writing comes back to its own steps, and to this question. */
    if (due && pthread_mutex_trylock(&box->storing) == 0) {
        st = store_waiting(box, err);
        pthread_mutex_unlock(&box->storing);
    }
    return st;
}

void ct_outbox_count_tokens(ct_outbox *box, int64_t tokens)
{
    pthread_mutex_lock(&box->lock);
    box->tokens += tokens;
    pthread_mutex_unlock(&box->lock);
}

ct_status ct_outbox_check_stop(ct_outbox *box, ct_err *err)
{
    pthread_mutex_lock(&box->lock);
    bool failed = box->failure.status != CT_OK;
    pthread_mutex_unlock(&box->lock);
    if (failed || ct_work_stopped(box->work))
        return ct_fail(err, CT_ERR_INTERRUPTED, "run: interrupted");
    return CT_OK;
}

void ct_outbox_fail(ct_outbox *box, const ct_err *why)
{
    pthread_mutex_lock(&box->lock);
    if (box->failure.status == CT_OK) box->failure = *why;
    pthread_mutex_unlock(&box->lock);
}

ct_status ct_outbox_close(ct_outbox *box, ct_err *err)
{
    ct_err late = {0};
    /* What is finished is kept, however the run ends; the first error is the one reported. */
    if (flush(box, &late) != CT_OK) ct_outbox_fail(box, &late);
    show_progress(box, true);
    ct_status st = box->failure.status;
    if (st != CT_OK && err) *err = box->failure;
    box->work->tokens = box->tokens;
    drop(&box->waiting);
    pthread_mutex_destroy(&box->lock);
    pthread_mutex_destroy(&box->storing);
    free(box);
    return st;
}
