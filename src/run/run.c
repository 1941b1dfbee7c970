/* run.c - one execution of a study: for each of its models, open it, skip what is stored, plan,
 * execute.
 *
 * Owns the order of the work, and that models are run one after another into one store. What would
 * make every cell of a model fail is found by prepare.c, for all models before the first one runs;
 * what concerns one cell is that cell's.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cortado/lab.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/version.h"
#include "io/file.h"
#include "model/model.h"
#include "run/work.h"

/* ---- what is left to do ---------------------------------------------------------------------- */

typedef struct todo {
    ct_plan_item *items;
    size_t n_items;
    ct_refused *refused; /* cells that cannot run and are stored as failed */
    size_t n_refused;
} todo;

static void clear_todo(todo *left)
{
    for (size_t i = 0; i < left->n_refused; i++) free(left->refused[i].why);
    free(left->refused);
    free(left->items);
}

/* Counts a cell's recording; their sum is known, and refused, before anything runs. */
static ct_status add_recording(const ct_work *work, const ct_generate_request *r, ct_err *err)
{
    ct_run_result *result = work->result;
    int64_t limit = work->study->record.limit;
    if (!r->record) return CT_OK;
    result->recordings++;
    result->recording_bytes += ct_request_recording_bytes(work->model, r);
    if (result->recording_bytes <= limit) return CT_OK;
    return ct_fail(err, CT_ERR_LIMIT,
                   "record: expected at most %lld MiB of recordings, got more with %lld cells; "
                   "record fewer cells, steps or layers, only light, or raise limit_mib (%s, line "
                   "%d)",
                   (long long)(limit >> 20), (long long)result->recordings, work->study->path,
                   work->study->record.line);
}

/* Whether a stored cell lacks the recording that the study asks for. */
static ct_status lacks_recording(const ct_work *work, uint32_t cell, bool *lacks, ct_err *err)
{
    *lacks = false;
    if (!work->records || !work->records[cell].what) return CT_OK;
    char *path = ct_work_recording_path(work, cell, err);
    if (!path) return CT_ERR_MEMORY;
    *lacks = access(path, F_OK) != 0;
    free(path);
    return CT_OK;
}

/* Puts a cell among those to run, or, if it cannot run, among the refused with the reason. */
static ct_status add_todo(const ct_work *work, uint32_t cell, todo *out, ct_err *err)
{
    ct_err why = {0};
    ct_generate_request r;
    ct_work_request(work, cell, &r);
    const char *refusal = ct_work_refusal(work, cell);
    ct_status st = refusal ? CT_ERR_NOT_FOUND : ct_request_check(work->model, &r, &why);
    if (st == CT_OK) {
        st = add_recording(work, &r, err);
        if (st != CT_OK) return st;
        const ct_intervention *iv = &r.intervention;
        int64_t prefill = ct_request_prefill_count(&r);
        out->items[out->n_items++] = (ct_plan_item){
            .cell = cell,
            .prefill = prefill,
            .tokens = (int64_t)r.prompt_count + r.max_new_tokens,
            /* A prefill of the whole prompt gives the first token. */
            .steps = r.max_new_tokens - (prefill == (int64_t)r.prompt_count),
            .whole = iv->weights[CT_STAGE_PREFILL].mode == CT_WEIGHTS_BINARY &&
                     iv->semantics.binary_mean_per_layer,
            .recording_bytes = ct_request_recording_bytes(work->model, &r),
            .records_prefill = r.record && r.record->stages[CT_STAGE_PREFILL],
        };
        return CT_OK;
    }
    /* A recording that alone is over the limit is the study's error like the sum of all. */
    if (st == CT_ERR_LIMIT && r.record &&
        ct_request_recording_bytes(work->model, &r) > work->study->record.limit)
        return add_recording(work, &r, err);
    if (st == CT_ERR_MEMORY) { /* the machine's state, not the cell's */
        *err = why;
        return st;
    }
    char *copy = ct_strdup(refusal ? refusal : why.text, err);
    if (!copy) return CT_ERR_MEMORY;
    out->refused[out->n_refused++] = (ct_refused){cell, copy};
    return CT_OK;
}

static ct_status find_todo(ct_work *work, todo *out, ct_err *err)
{
    ct_status st = CT_OK;
    size_t n = work->grid.n_cells;
    out->items = calloc(n, sizeof *out->items);
    out->refused = calloc(n, sizeof *out->refused);
    if (!out->items || !out->refused) return ct_fail_memory(err, "cells", n * sizeof *out->items);
    for (size_t i = 0; i < n; i++) {
        bool found = false, shown = false;
        ct_cell_status how = CT_CELL_FAILED;
        if (work->store)
            CT_TRY(ct_store_find(work->store, work->keys[i], &found, &how, &shown, err));
        work->hidden |= found && !shown;
        bool lacks;
        CT_TRY(lacks_recording(work, (uint32_t)i, &lacks, err));
        if (found && how == CT_CELL_DONE && !lacks) {
            work->result->stored++;
            continue;
        }
        if (work->limit == 0) continue;
        work->limit--;
        work->prompts[work->grid.cells[i].point].cells_left++;
        CT_TRY(add_todo(work, (uint32_t)i, out, err));
    }
    /* The others' prompts were needed for their keys only. */
    for (size_t i = 0; i < work->grid.n_points; i++)
        if (work->prompts[i].cells_left == 0) ct_niah_request_clear(&work->prompts[i].request);
done:
    return st;
}

/* ---- store ----------------------------------------------------------------------------------- */

/* A study's models share these while they run one after another. */
typedef struct execution {
    const ct_study *study;
    const ct_run_options *options;
    ct_run_result *result;
    ct_store *store; /* NULL: a dry run without one */
    bool anew;   /* the store's last execution was of another text of the study, or there is none */
    bool begun;  /* a model of this execution has begun */
    bool opened; /* the store was looked for */
    char *dir, *recordings;
    double begin_ms;
    int64_t limit;  /* cells that may still be run */
    int64_t tokens; /* computed so far */
    int64_t later;  /* cells of models that were not come to yet */
    struct {
        char weights[CT_HASH_HEX], tokenizer[CT_HASH_HEX];
    } models[CT_STUDY_MAX_MODELS]; /* those that were opened */
} execution;

static ct_status open_store(execution *e, ct_err *err)
{
    ct_status st = CT_OK;
    ct_provenance last;
    char *path = ct_path_join(e->dir, "run.sqlite", err);
    if (!path) return CT_ERR_MEMORY;
    e->anew = true;
    snprintf(e->result->store, sizeof e->result->store, "%s", path);
    if (e->options->dry_run) {
        ct_err none = {0};
        st = ct_store_open(path, false, &e->store, &none);
        if (st == CT_ERR_NOT_FOUND) st = CT_OK; /* nothing stored yet */
        else if (st != CT_OK) *err = none;
    } else {
        CT_TRY(ct_dir_make(e->dir, err));
        CT_TRY(ct_store_open(path, true, &e->store, err));
    }
    if (st != CT_OK || !e->store) goto done;
    st = ct_store_provenance(e->store, 0, &last, err);
    if (st == CT_OK && strcmp(last.study, e->study->name) != 0)
        st = ct_fail(err, CT_ERR_USAGE,
                     "%s: expected a run of the study \"%s\", got one of \"%s\"; choose another "
                     "folder with --out",
                     path, e->study->name, last.study);
    if (st == CT_OK) e->anew = strcmp(last.study_hash, e->study->hash) != 0;
    if (st == CT_ERR_NOT_FOUND) st = CT_OK; /* a new store */
done:
    free(path);
    return st;
}

/* Shows readers the cells of the study as it is now: of this model, and, where the study has
 * changed, none of others until they begin, too. */
static ct_status show_current(const execution *e, const ct_work *work, ct_err *err)
{
    size_t n = work->grid.n_cells;
    const char **keys = malloc(n * sizeof *keys);
    ct_status st = CT_OK;
    if (!keys) return ct_fail_memory(err, "keys", n * sizeof *keys);
    for (size_t i = 0; i < n; i++) keys[i] = work->keys[i];
    if (e->anew && !e->begun) CT_TRY(ct_store_set_current(work->store, NULL, keys, n, err));
    CT_TRY(ct_store_set_current(work->store, e->study->models[work->at].name, keys, n, err));
done:
    free(keys);
    return st;
}

/* Begins the model's execution, if there is anything to compute or to show. */
static ct_status begin(execution *e, const ct_work *work, bool anything, bool *begun, ct_err *err)
{
    if (!anything && !e->anew && !work->hidden) return CT_OK;
    ct_status st;
    char *machine = ct_machine(e->result->devices, err);
    if (!machine) return CT_ERR_MEMORY;
    const ct_provenance p = {
        .version = ct_version(),
        .commit = ct_commit(),
        .study = work->study->name,
        .study_hash = work->study->hash,
        .study_text = work->study->text,
        .figures = work->study->figures,
        .model = work->study->models[work->at].name,
        .weights_hash = work->info->weights_hash,
        .tokenizer_hash = ct_tokenizer_hash(work->tokenizer),
        .backend = work->info->backend,
        .compute = work->info->compute,
        .dtype = work->info->dtype,
        .machine = machine,
        .flags = work->options->command_line,
        .numerics_version = CT_NUMERICS_VERSION,
        .started_unix_ms = ct_unix_ms(),
    };
    CT_TRY(ct_store_begin(work->store, &p, err));
    *begun = true;
    CT_TRY(show_current(e, work, err));
    e->begun = true;
done:
    free(machine);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* The cells of one model have one key each; two folders with the same weights would have the same. */
static ct_status check_other_weights(execution *e, const ct_work *work, ct_err *err)
{
    const ct_study_model *models = e->study->models;
    snprintf(e->models[work->at].weights, CT_HASH_HEX, "%s", work->info->weights_hash);
    snprintf(e->models[work->at].tokenizer, CT_HASH_HEX, "%s", ct_tokenizer_hash(work->tokenizer));
    for (size_t i = 0; i < work->at; i++)
        if (strcmp(e->models[i].weights, e->models[work->at].weights) == 0 &&
            strcmp(e->models[i].tokenizer, e->models[work->at].tokenizer) == 0)
            return ct_fail(err, CT_ERR_VALUE,
                           "model: expected different weights, got the same in %s and %s (%s, line "
                           "%d)",
                           models[i].name, models[work->at].name, e->study->path,
                           models[work->at].line);
    return CT_OK;
}

/* Whether the model is to be run. */
static bool is_chosen(const execution *e, size_t m)
{
    const char *only = e->options->only_model;
    return !only || strcmp(only, e->study->models[m].name) == 0;
}

static ct_status check_chosen(const execution *e, ct_err *err)
{
    const char *names[CT_STUDY_MAX_MODELS];
    size_t n = e->study->n_models;
    for (size_t m = 0; m < n; m++) {
        if (is_chosen(e, m)) return CT_OK;
        names[m] = e->study->models[m].name;
    }
    const char *near = ct_nearest(e->options->only_model, names, n);
    return ct_fail(err, CT_ERR_USAGE, "--model: expected a model of the study%s%s, got %s (%s)",
                   near ? ", such as " : "", near ? near : "", e->options->only_model,
                   e->study->path);
}

/* Finds what would make all cells of a model fail, before the first cell of any model is run. On the
 * CPU, whose models are mapped files: another device would take in all weights for it. */
static ct_status check_models(const execution *e, ct_err *err)
{
    ct_status st = CT_OK;
    ct_run_options options = *e->options;
    options.device = NULL;
    options.dry_run = true; /* random weights are not made for it */
    for (size_t m = 0; e->study->n_models > 1 && m < e->study->n_models && st == CT_OK; m++) {
        if (!is_chosen(e, m)) continue;
        ct_work work = {.study = e->study, .at = m, .options = &options};
        st = ct_work_open(&work, err);
        ct_work_clear(&work);
    }
    return st;
}

/* A run stores these as failed; a dry run tells of them here. */
static void count_refused(const ct_work *work, const todo *left)
{
    ct_run_result *r = work->result;
    r->failed += (int64_t)left->n_refused;
    if (left->n_refused == 0 || r->first_error[0]) return;
    const ct_point *at = &work->grid.points[work->grid.cells[left->refused[0].cell].point];
    snprintf(r->first_error, sizeof r->first_error, "length %lld, depth %lld: %s",
             (long long)at->length, (long long)at->depth, left->refused[0].why);
}

static ct_status run_model(execution *e, size_t at, ct_err *err)
{
    ct_status st;
    ct_work work = {.study = e->study,
                    .at = at,
                    .options = e->options,
                    .result = e->result,
                    .begin_ms = ct_now_ms(),
                    .run_begin_ms = e->begin_ms,
                    .tokens = e->tokens,
                    .recordings = e->recordings,
                    .limit = e->limit};
    todo left = {0};
    ct_plans plans = {0};
    bool begun = false;
    int64_t recordings = e->result->recordings;
    CT_TRY(ct_work_open(&work, err));
    CT_TRY(ct_work_identify(&work, err));
    CT_TRY(check_other_weights(e, &work, err));
    if (!e->opened) CT_TRY(open_store(e, err)); /* a study that cannot run leaves no folder */
    e->opened = true;
    work.store = e->store;
    CT_TRY(find_todo(&work, &left, err));
    e->limit = work.limit;
    e->later -= (int64_t)work.grid.n_cells;
    work.later = e->later < e->limit ? e->later : e->limit;
    CT_TRY(ct_work_plan(&work, left.items, left.n_items, &plans, err));
    if (e->options->dry_run) {
        count_refused(&work, &left);
        goto done;
    }
    if (e->result->recordings > recordings) CT_TRY(ct_dir_make(e->recordings, err));
    CT_TRY(begin(e, &work, left.n_items + left.n_refused > 0, &begun, err));
    if (left.n_items + left.n_refused > 0)
        CT_TRY(ct_work_execute(&work, &plans, left.refused, left.n_refused, err));
done:
    if (begun) {
        const char *how = st == CT_OK                ? "done"
                          : st == CT_ERR_INTERRUPTED ? "interrupted"
                                                     : "failed";
        ct_err late = {0};
        ct_status ended = ct_store_end(work.store, how, ct_now_ms() - work.begin_ms, &late);
        if (st == CT_OK && ended != CT_OK) {
            st = ended;
            *err = late;
        }
    }
    e->tokens = work.tokens;
    ct_plans_clear(&plans);
    clear_todo(&left);
    ct_work_clear(&work);
    return st;
}

/* How many cells, prompts and versions there are to run, of all models together. */
static ct_status count_grids(const execution *e, ct_run_result *result, ct_err *err)
{
    ct_status st = CT_OK;
    for (size_t m = 0; m < e->study->n_models && st == CT_OK; m++) {
        ct_grid grid;
        if (!is_chosen(e, m)) continue;
        st = ct_grid_new(e->study, m, &grid, err);
        if (st != CT_OK) break;
        result->cells += (int64_t)grid.n_cells;
        result->prompts += (int64_t)grid.n_points;
        result->versions += (int64_t)grid.n_versions;
        ct_grid_clear(&grid);
    }
    return st;
}

ct_status ct_run_study(const ct_study *study, const ct_run_options *options, ct_run_result *result,
                       ct_err *err)
{
    ct_status st;
    ct_err own = {0};
    if (!err) err = &own;
    *result = (ct_run_result){0};
    execution e = {.study = study,
                   .options = options,
                   .result = result,
                   .begin_ms = ct_now_ms(),
                   .limit = options->limit > 0 ? options->limit : INT64_MAX,
                   .dir = options->out_dir ? ct_strdup(options->out_dir, err)
                                           : ct_path_join("runs", study->name, err)};
    if (e.dir) e.recordings = ct_path_join(e.dir, "recordings", err);
    if (!e.recordings) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    CT_TRY(check_chosen(&e, err));
    CT_TRY(count_grids(&e, result, err));
    e.later = result->cells;
    CT_TRY(check_models(&e, err));
    for (size_t m = 0; m < study->n_models; m++)
        if (is_chosen(&e, m)) CT_TRY(run_model(&e, m, err));
done:
    /* Of models that were not come to, all cells count as left. */
    result->left = result->cells - result->stored - result->done - result->failed;
    result->wall_ms = ct_now_ms() - e.begin_ms;
    ct_store_close(e.store);
    free(e.dir);
    free(e.recordings);
    return st;
}
