/* grid.c - expansion of a study's entries, and the grid in words. See grid.h. */
#include "run/grid.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

#define ORDER(a, b)                                                                                \
    do {                                                                                           \
        if ((a) != (b)) return (a) < (b) ? -1 : 1;                                                 \
    } while (0)

static int compare_versions(const void *pa, const void *pb)
{
    const ct_grid_version *a = pa, *b = pb;
    ORDER(a->heads.active[CT_STAGE_GENERATION], b->heads.active[CT_STAGE_GENERATION]);
    ORDER(a->heads.active[CT_STAGE_PREFILL], b->heads.active[CT_STAGE_PREFILL]);
    ORDER(a->heads.metric, b->heads.metric);
    ORDER(a->modes[CT_STAGE_GENERATION], b->modes[CT_STAGE_GENERATION]);
    ORDER(a->modes[CT_STAGE_PREFILL], b->modes[CT_STAGE_PREFILL]);
    ORDER(a->heads.keep, b->heads.keep);
    ORDER(a->heads.seed, b->heads.seed);
    return 0;
}

static int compare_points(const void *pa, const void *pb)
{
    const ct_point *a = pa, *b = pb;
    ORDER(a->read_twice, b->read_twice);
    ORDER(a->length, b->length);
    ORDER(a->depth, b->depth);
    return 0;
}

static int compare_cells(const void *pa, const void *pb)
{
    const ct_grid_cell *a = pa, *b = pb;
    ORDER(a->point, b->point);
    ORDER(a->version, b->version);
    return 0;
}

/* Sorts, keeps one of equals, returns how many are left. */
static size_t sort_distinct(void *items, size_t n, size_t size,
                            int (*compare)(const void *, const void *))
{
    if (n == 0) return 0;
    qsort(items, n, size, compare);
    char *at = items;
    size_t kept = 1;
    for (size_t i = 1; i < n; i++) {
        if (compare(at + (kept - 1) * size, at + i * size) == 0) continue;
        if (kept != i) memcpy(at + kept * size, at + i * size, size);
        kept++;
    }
    return kept;
}

static size_t version_count(const ct_study_entry *e)
{
    size_t n = 1;
    if (e->selects_heads) {
        size_t selections = 0;
        for (size_t i = 0; i < e->n_metrics; i++)
            selections += e->metrics[i] == CT_METRIC_RANDOM && e->seeds.count ? e->seeds.count : 1;
        n = selections * e->keep.count * e->n_stages;
    }
    return n * e->n_modes[CT_STAGE_GENERATION] * e->n_modes[CT_STAGE_PREFILL];
}

/* Every combination of weight edits with one head selection. */
static ct_grid_version *add_modes(const ct_study_entry *e, const ct_head_selection *heads,
                                  ct_grid_version *out)
{
    for (size_t g = 0; g < e->n_modes[CT_STAGE_GENERATION]; g++)
        for (size_t p = 0; p < e->n_modes[CT_STAGE_PREFILL]; p++) {
            *out = (ct_grid_version){.line = e->line};
            if (heads) out->heads = *heads;
            out->modes[CT_STAGE_GENERATION] = e->modes[CT_STAGE_GENERATION][g];
            out->modes[CT_STAGE_PREFILL] = e->modes[CT_STAGE_PREFILL][p];
            out++;
        }
    return out;
}

/* Writes the version_count(e) versions of an entry. */
static void entry_versions(const ct_study_entry *e, ct_grid_version *out)
{
    if (!e->selects_heads) {
        add_modes(e, NULL, out);
        return;
    }
    for (size_t s = 0; s < e->n_stages; s++)
        for (size_t m = 0; m < e->n_metrics; m++) {
            bool random = e->metrics[m] == CT_METRIC_RANDOM && e->seeds.count > 0;
            for (size_t i = 0; i < (random ? e->seeds.count : 1); i++)
                for (size_t k = 0; k < e->keep.count; k++) {
                    ct_head_selection heads = {.keep = (int32_t)e->keep.values[k],
                                               .metric = e->metrics[m],
                                               .seed = random ? (uint64_t)e->seeds.values[i] : 0};
                    memcpy(heads.active, e->stages[s], sizeof heads.active);
                    out = add_modes(e, &heads, out);
                }
        }
}

static void *alloc(size_t n, size_t size, ct_err *err)
{
    void *p = calloc(n ? n : 1, size); /* at most CT_STUDY_MAX_CELLS items */
    if (!p) ct_fail_memory(err, "grid", n * size);
    return p;
}

static uint32_t index_of(const void *item, const void *items, size_t n, size_t size,
                         int (*compare)(const void *, const void *))
{
    const char *found = bsearch(item, items, n, size, compare);
    CT_ASSERT(found != NULL);
    return (uint32_t)((size_t)(found - (const char *)items) / size);
}

/* The points of an entry, each reading with each length and depth. */
static size_t point_count(const ct_study *study, const ct_study_entry *e)
{
    return study->n_readings * ct_study_lengths(study, e)->count * ct_study_depths(study, e)->count;
}

static void entry_points(const ct_study *study, const ct_study_entry *e, ct_point *out)
{
    const ct_study_axis *lengths = ct_study_lengths(study, e);
    const ct_study_axis *depths = ct_study_depths(study, e);
    for (size_t r = 0; r < study->n_readings; r++)
        for (size_t l = 0; l < lengths->count; l++)
            for (size_t d = 0; d < depths->count; d++)
                *out++ = (ct_point){lengths->values[l], depths->values[d], study->read_twice[r]};
}

ct_status ct_grid_new(const ct_study *study, size_t model, ct_grid *out, ct_err *err)
{
    ct_status st = CT_ERR_MEMORY;
    ct_grid g = {0};
    ct_grid_version *own = NULL; /* of one entry */
    ct_point *own_points = NULL;
    size_t most = 0, most_points = 0;
    for (size_t i = 0; i < study->n_entries; i++) {
        const ct_study_entry *e = &study->entries[i];
        if (!ct_study_has_model(e->models, model)) continue;
        size_t versions = version_count(e), points = point_count(study, e);
        g.n_versions += versions;
        g.n_points += points;
        g.n_cells += versions * points;
        if (versions > most) most = versions;
        if (points > most_points) most_points = points;
    }
    if (!(g.versions = alloc(g.n_versions, sizeof *g.versions, err))) goto done;
    if (!(g.points = alloc(g.n_points, sizeof *g.points, err))) goto done;
    if (!(g.cells = alloc(g.n_cells, sizeof *g.cells, err))) goto done;
    if (!(own = alloc(most, sizeof *own, err))) goto done;
    if (!(own_points = alloc(most_points, sizeof *own_points, err))) goto done;

    ct_grid_version *version = g.versions;
    ct_point *point = g.points;
    for (size_t i = 0; i < study->n_entries; i++) {
        const ct_study_entry *e = &study->entries[i];
        if (!ct_study_has_model(e->models, model)) continue;
        entry_versions(e, version);
        version += version_count(e);
        entry_points(study, e, point);
        point += point_count(study, e);
    }
    g.n_versions = sort_distinct(g.versions, g.n_versions, sizeof *g.versions, compare_versions);
    g.n_points = sort_distinct(g.points, g.n_points, sizeof *g.points, compare_points);

    ct_grid_cell *cell = g.cells;
    for (size_t i = 0; i < study->n_entries; i++) {
        const ct_study_entry *e = &study->entries[i];
        if (!ct_study_has_model(e->models, model)) continue;
        size_t n = version_count(e), n_points = point_count(study, e);
        entry_versions(e, own);
        entry_points(study, e, own_points);
        for (size_t v = 0; v < n; v++) {
            uint32_t at =
                index_of(&own[v], g.versions, g.n_versions, sizeof *own, compare_versions);
            /* The line that errors name is that of the first entry. */
            if (g.versions[at].line > own[v].line) g.versions[at].line = own[v].line;
            for (size_t p = 0; p < n_points; p++)
                *cell++ = (ct_grid_cell){
                    index_of(&own_points[p], g.points, g.n_points, sizeof *point, compare_points),
                    at};
        }
    }
    g.n_cells = sort_distinct(g.cells, g.n_cells, sizeof *g.cells, compare_cells);
    *out = g;
    g = (ct_grid){0};
    st = CT_OK;
done:
    free(own);
    free(own_points);
    ct_grid_clear(&g);
    return st;
}

void ct_grid_clear(ct_grid *grid)
{
    free(grid->versions);
    free(grid->points);
    free(grid->cells);
    *grid = (ct_grid){0};
}

bool ct_grid_needs_needle(const ct_grid_version *version)
{
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++)
        if (version->modes[stage] != CT_WEIGHTS_KEEP && version->modes[stage] != CT_WEIGHTS_NULL)
            return true;
    return false;
}

ct_status ct_grid_describe(const ct_grid_version *v, ct_buf *buf, ct_err *err)
{
    ct_status st = CT_OK;
    size_t begin = buf->size;
    if (v->heads.active[CT_STAGE_PREFILL] || v->heads.active[CT_STAGE_GENERATION])
        CT_TRY(ct_buf_addf(buf, err, "keep %d by %s in %s", v->heads.keep,
                           ct_metric_name(v->heads.metric), ct_head_stages_name(&v->heads)));
    if (v->heads.metric == CT_METRIC_RANDOM)
        CT_TRY(ct_buf_addf(buf, err, " (seed %llu)", (unsigned long long)v->heads.seed));
    static const ct_stage stages[] = {CT_STAGE_GENERATION, CT_STAGE_PREFILL};
    for (size_t i = 0; i < CT_STAGE_COUNT; i++)
        if (v->modes[stages[i]] != CT_WEIGHTS_KEEP)
            CT_TRY(ct_buf_addf(buf, err, "%sweights %s in %s", buf->size > begin ? ", " : "",
                               ct_weights_mode_name(v->modes[stages[i]]),
                               ct_stage_name(stages[i])));
    if (buf->size == begin) CT_TRY(ct_buf_adds(buf, "no intervention", err));
done:
    return st;
}

/* ---- the grid in words ----------------------------------------------------------------------- */

/* "250, 677, 1105" of the points' lengths or depths, each once. */
static ct_status add_values(ct_buf *buf, const ct_grid *grid, bool depths, ct_err *err)
{
    ct_status st = CT_OK;
    int64_t *values = alloc(grid->n_points, sizeof *values, err);
    if (!values) return CT_ERR_MEMORY;
    for (size_t i = 0; i < grid->n_points; i++)
        values[i] = depths ? grid->points[i].depth : grid->points[i].length;
    size_t n = sort_distinct(values, grid->n_points, sizeof *values, ct_compare_int64);
    for (size_t i = 0; i < n; i++)
        CT_TRY(ct_buf_addf(buf, err, "%s%lld", i ? " " : "", (long long)values[i]));
done:
    free(values);
    return st;
}

/* One model's part of the grid. */
static ct_status describe_model(const ct_study *study, size_t model, ct_write_fn write, void *user,
                                size_t *sum, ct_err *err)
{
    ct_status st;
    ct_grid grid = {0};
    ct_buf buf = {0};
    size_t *cells = NULL;
    CT_TRY(ct_grid_new(study, model, &grid, err));
    if (!(cells = alloc(grid.n_versions, sizeof *cells, err))) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    for (size_t i = 0; i < grid.n_cells; i++) cells[grid.cells[i].version]++;
    CT_TRY(ct_buf_addf(&buf, err, "model     %s\nlengths   ", study->models[model].name));
    CT_TRY(add_values(&buf, &grid, false, err));
    CT_TRY(ct_buf_adds(&buf, "\ndepths    ", err));
    CT_TRY(add_values(&buf, &grid, true, err));
    if (study->n_readings > 1) CT_TRY(ct_buf_adds(&buf, "\ncontext   once twice", err));
    CT_TRY(
        ct_buf_addf(&buf, err, "\nprompts   %zu\nversions  %zu\n", grid.n_points, grid.n_versions));
    for (size_t i = 0; i < grid.n_versions; i++) {
        CT_TRY(ct_buf_addf(&buf, err, "%8zu  cells: ", cells[i]));
        CT_TRY(ct_grid_describe(&grid.versions[i], &buf, err));
        CT_TRY(ct_buf_adds(&buf, "\n", err));
        if (buf.size > 32768) {
            CT_TRY(write(user, buf.data, buf.size, err));
            buf.size = 0;
        }
    }
    CT_TRY(write(user, buf.data, buf.size, err));
    *sum += grid.n_cells;
done:
    free(cells);
    ct_buf_clear(&buf);
    ct_grid_clear(&grid);
    return st;
}

ct_status ct_study_describe(const ct_study *study, ct_write_fn write, void *user, ct_err *err)
{
    ct_status st;
    ct_buf buf = {0};
    size_t cells = 0;
    CT_TRY(ct_buf_addf(&buf, err, "study     %s\n", study->name));
    CT_TRY(write(user, buf.data, buf.size, err));
    for (size_t m = 0; m < study->n_models; m++)
        CT_TRY(describe_model(study, m, write, user, &cells, err));
    buf.size = 0;
    CT_TRY(ct_buf_addf(&buf, err, "cells     %zu\n", cells));
    CT_TRY(write(user, buf.data, buf.size, err));
done:
    ct_buf_clear(&buf);
    return st;
}
