/* outbox.h - finished cells on their way to the store, and all else that lanes share while they run.
 *
 * Owns the counts of a run, its progress, and which error ends it. Every function may be called by any
 * lane at any time. A finished cell waits at most FLUSH_MS, or for the end of one step; while a lane
 * writes to the store, the others go on.
 */
#ifndef CT_RUN_OUTBOX_H
#define CT_RUN_OUTBOX_H

#include "run/work.h"

typedef struct ct_outbox ct_outbox;

/* For `planned` cells of the work's model. */
ct_status ct_outbox_new(ct_work *work, int64_t planned, ct_outbox **out, ct_err *err) CT_CHECK;
/* Writes what waits, and counts: work->tokens, result->done, failed and first_error. Returns what ended
 * the run; then frees. No lane may be at work. */
ct_status ct_outbox_close(ct_outbox *box, ct_err *err) CT_CHECK;

/* Takes a done cell; ct_work_cell has filled it, and the lane its outcome. Its text and ids are the
 * outbox's from now on, also on an error. */
ct_status ct_outbox_done(ct_outbox *box, uint32_t index, const ct_cell *cell, char *text,
                         int32_t *ids, ct_err *err) CT_CHECK;
ct_status ct_outbox_failed(ct_outbox *box, uint32_t index, const char *error, ct_err *err) CT_CHECK;
/* A recording of a cell that is done next was written: it must be on the disk before the cell is. */
void ct_outbox_recorded(ct_outbox *box);

/* Between steps of a lane: writes if the oldest cell has waited long enough, or the next step, as long
 * as the last one, would make it wait too long; shows progress. */
ct_status ct_outbox_tend(ct_outbox *box, double last_step_ms, ct_err *err) CT_CHECK;
void ct_outbox_count_tokens(ct_outbox *box, int64_t tokens);

/* CT_ERR_INTERRUPTED if the run is to stop: the caller asked for it, or a lane has failed. */
ct_status ct_outbox_check_stop(ct_outbox *box, ct_err *err) CT_CHECK;
/* A lane ends with an error: the first one is that of the run, and the others stop. */
void ct_outbox_fail(ct_outbox *box, const ct_err *why);

#endif
