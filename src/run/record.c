/* record.c - which cells of a study are recorded, and where. See work.h. */
#include <stdlib.h>

#include "base/buf.h"
#include "base/err.h"
#include "model/model.h"
#include "run/work.h"

/* True if the axis has the value, or names none. */
static bool chosen(const ct_study_axis *axis, int64_t value)
{
    for (size_t i = 0; i < axis->count; i++)
        if (axis->values[i] == value) return true;
    return axis->count == 0;
}

/* The entry, from 1, whose version it is: the first that names it. */
static int64_t entry_of(const ct_study *study, const ct_grid_version *version)
{
    size_t i = 0;
    while (i + 1 < study->n_entries && study->entries[i].line != version->line) i++;
    return (int64_t)i + 1;
}

static ct_status check_layers(const ct_work *work, ct_err *err)
{
    const ct_study_record *r = &work->study->record;
    if (work->info->attention_layers == 0)
        return ct_fail(err, CT_ERR_VALUE,
                       "record: expected a model with attention layers, got %s without (%s, line "
                       "%d)",
                       work->study->models[work->at].name, work->study->path, r->line);
    for (size_t i = 0; i < r->layers.count; i++) {
        int64_t layer = r->layers.values[i];
        if (layer < work->info->layers && work->model->layers[layer].attention_index >= 0) continue;
        return ct_fail(err, CT_ERR_VALUE,
                       "record.layers: expected attention layers of the model (`cortado inspect` "
                       "lists them), got %lld (%s, line %d)",
                       (long long)layer, work->study->path, r->layers.line);
    }
    return CT_OK;
}

/* Whether the study's `record` is for a cell of this model. */
static bool is_recorded(const ct_work *work, size_t cell)
{
    const ct_study_record *r = &work->study->record;
    const ct_grid_cell *c = &work->grid.cells[cell];
    const ct_point *point = &work->grid.points[c->point];
    return chosen(&r->lengths, point->length) && chosen(&r->depths, point->depth) &&
           chosen(&r->entries, entry_of(work->study, &work->grid.versions[c->version]));
}

/* Whether anything of this model is recorded. */
static bool records_model(const ct_work *work)
{
    const ct_study_record *r = &work->study->record;
    return r->line && ct_study_has_model(r->models, work->at);
}

ct_status ct_work_check_records(const ct_work *work, ct_err *err)
{
    const ct_study_record *r = &work->study->record;
    if (!records_model(work)) return CT_OK;
    ct_status st = check_layers(work, err);
    if (st != CT_OK) return st;
    for (size_t i = 0; i < work->grid.n_cells; i++)
        if (is_recorded(work, i)) return CT_OK;
    return ct_fail(
        err, CT_ERR_VALUE,
        "record: expected lengths, depths and interventions of some cell of %s, got none "
        "(%s, line %d)",
        work->study->models[work->at].name, work->study->path, r->line);
}

ct_status ct_work_choose_records(ct_work *work, ct_err *err)
{
    const ct_study_record *r = &work->study->record;
    size_t n = work->grid.n_cells;
    if (!records_model(work)) return CT_OK;
    work->records = calloc(n, sizeof *work->records);
    if (!work->records) return ct_fail_memory(err, "recordings", n * sizeof *work->records);
    for (size_t i = 0; i < n; i++) {
        if (!is_recorded(work, i)) continue;
        const ct_niah_request *prompt = &work->prompts[work->grid.cells[i].point].request;
        work->records[i] = (ct_record_options){
            .what = r->what,
            .stages = {r->stages[0], r->stages[1]},
            .steps = r->steps,
            .layers = r->layers.values,
            .n_layers = r->layers.count,
            .needle = prompt->needle,
            .n_needle = prompt->n_needle,
            .limit = r->limit,
            .number = (int64_t)i,
        };
    }
    return CT_OK;
}

char *ct_work_recording_path(const ct_work *work, uint32_t cell, ct_err *err)
{
    return ct_strf(err, "%s/%s.safetensors", work->recordings, work->keys[cell]);
}
