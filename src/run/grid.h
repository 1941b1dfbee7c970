/* grid.h - a study's entries to versions, points and cells of one model. Pure: no weights, no files.
 *
 * Owns the expansion of every combination, and that a cell which two entries name is one cell. A
 * version is an intervention without the needle's place (that depends on the prompt); a point is a
 * (length, depth), read once or twice; a cell is a point under a version.
 */
#ifndef CT_RUN_GRID_H
#define CT_RUN_GRID_H

#include "base/buf.h"
#include "run/study.h"

typedef struct ct_grid_version {
    ct_head_selection heads; /* all zero where inactive */
    ct_weights_mode modes[CT_STAGE_COUNT];
    int line; /* of its first entry in the study */
} ct_grid_version;

typedef struct ct_point {
    int64_t length, depth;
    bool read_twice;
} ct_point;

typedef struct ct_grid_cell {
    uint32_t point, version;
} ct_grid_cell;

typedef struct ct_grid {
    ct_grid_version *versions; /* sorted: stages, metric, modes, keep, seed; distinct */
    size_t n_versions;
    ct_point *points; /* sorted: read once before twice, length, depth; distinct */
    size_t n_points;
    ct_grid_cell *cells; /* sorted by point, then version; distinct */
    size_t n_cells;
} ct_grid;

/* The grid of the model at this place of the study. */
ct_status ct_grid_new(const ct_study *study, size_t model, ct_grid *out, ct_err *err) CT_CHECK;
void ct_grid_clear(ct_grid *grid);

/* True if the version needs the needle's tokens: a weight edit other than keep and null. */
bool ct_grid_needs_needle(const ct_grid_version *version);
/* The version in words, such as "keep 3 by entropy in generation; weights generation null". */
ct_status ct_grid_describe(const ct_grid_version *version, ct_buf *buf, ct_err *err) CT_CHECK;

#endif
