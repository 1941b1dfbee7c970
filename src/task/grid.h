/* grid.h - lists of whole numbers: even grids and what a flag or a study key spells.
 *
 * Owns the rounding of lengths, depths and head counts, so that the command line and a study give
 * the same numbers. No meaning of the numbers is known here.
 */
#ifndef CT_TASK_GRID_H
#define CT_TASK_GRID_H

#include <stddef.h>
#include <stdint.h>

#include <cortado/status.h>

enum { CT_GRID_MAX = 1000000 }; /* numbers in one list */

/* numpy.round(numpy.linspace(from, to, count)) as whole numbers: halves go to the even neighbour,
 * count 1 gives `from`, and a grid finer than 1 repeats numbers. The caller frees *values. count
 * outside 1 .. CT_GRID_MAX or an end beyond 2^53 is an error; `what` names the flag or key in it.
 */
ct_status ct_grid_linspace(int64_t from, int64_t to, int64_t count, const char *what,
                           int64_t **values, ct_err *err) CT_CHECK;

/* Parses "A:B:N" (ct_grid_linspace) or "1,2,3" (kept as it stands, blanks around a number allowed);
 * every number of the list must be in min .. max. Malformed text is CT_ERR_USAGE, a number out of
 * range CT_ERR_VALUE, too long a list CT_ERR_LIMIT; each names `what` and the value. */
ct_status ct_grid_parse(const char *text, const char *what, int64_t min, int64_t max,
                        int64_t **values, size_t *count, ct_err *err) CT_CHECK;

#endif
