/* samples.h - the answers of an evaluation as JSON lines: written as they come, read to go on from.
 *
 * Owns the file's form: {"key","subject","doc_id","gold","picked","log_p"} a line. A line counts when its
 * line end is there; what a killed process left of the last one is cut off.
 */
#ifndef CT_CLI_SAMPLES_H
#define CT_CLI_SAMPLES_H

#include "run/evaluate.h"

typedef struct ct_samples ct_samples;

/* Opens the file to go on with, or makes it. Marks the items whose keys it has as done, with their numbers.
 * A line that is none of its own is CT_ERR_FORMAT. */
ct_status ct_samples_open(const char *path, ct_eval *eval, ct_samples **out, ct_err *err) CT_CHECK;
/* Appends an item that is done; it is in the system's hands when this returns, on the disk after a close. */
ct_status ct_samples_add(ct_samples *samples, const ct_eval *eval, const ct_eval_item *item,
                         ct_err *err) CT_CHECK;
/* CT_ERR_IO if what was added did not get to the disk. NULL is allowed. */
ct_status ct_samples_close(ct_samples *samples, ct_err *err) CT_CHECK;

#endif
