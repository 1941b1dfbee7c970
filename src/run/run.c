/* run.c - one execution of a study: open everything, skip what is stored, plan, execute.
 *
 * Owns the order of the work and what is checked before the first cell: all that would make every
 * cell fail is an error of the run, with the study's line; what concerns one cell is that cell's.
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
#include "run/work.h"

/* ---- model, semantics, checks ---------------------------------------------------------------- */

static ct_status open_model(ct_work *work, ct_err *err)
{
    const ct_study *study = work->study;
    const ct_run_options *o = work->options;
    const ct_model_options options = {
        .device = o->device,
        .compute = o->compute != CT_CHOOSE_AUTO ? o->compute : study->compute,
        .threads = o->threads,
        .window_visible = study->window_visible,
    };
    char *dir = NULL;
    ct_status st;
    CT_TRY(ct_study_model_dir(study, o->model_root, &dir, err));
    CT_TRY(ct_tokenizer_open(dir, &work->tokenizer, err));
    CT_TRY(ct_model_open(dir, &options, &work->model, err));
    work->info = ct_model_get_info(work->model);
done:
    free(dir);
    return st;
}

static ct_status choose_semantics(ct_work *work, ct_err *err)
{
    const ct_study *study = work->study;
    ct_status st;
    CT_TRY(ct_semantics_parse(study->semantics, work->info->family, &work->semantics, err));
    for (size_t i = 0; i < study->n_options; i++)
        CT_TRY(ct_semantics_set(&work->semantics, study->options[i].key, study->options[i].value,
                                err));
    ct_semantics_describe(&work->semantics, work->info->family, work->semantics_text,
                          sizeof work->semantics_text);
done:
    return st;
}

static ct_status check_heads(const ct_work *work, ct_err *err)
{
    for (size_t i = 0; i < work->grid.n_versions; i++) {
        const ct_grid_version *v = &work->grid.versions[i];
        if (v->heads.keep > work->info->heads)
            return ct_fail(err, CT_ERR_VALUE,
                           "heads.keep: expected 0 to %" PRId64 ", the heads of %s, got %" PRId32
                           " (%s, line %d)",
                           work->info->heads, work->study->model, v->heads.keep, work->study->path,
                           v->line);
    }
    return CT_OK;
}

/* ---- prompts and keys ------------------------------------------------------------------------ */

static ct_status build_prompt(ct_work *work, const ct_niah *niah, size_t point, ct_err *err)
{
    ct_status st;
    ct_prompt *p = &work->prompts[point];
    const ct_point *at = &work->grid.points[point];
    ct_niah_prompt text = {0};
    CT_TRY(ct_niah_build(niah, at->length, at->depth, &text, err));
    ct_err why = {0};
    st = ct_niah_request_new(niah, &text, work->semantics.needle_span_reference, &p->request, &why);
    if (st == CT_ERR_NOT_FOUND) {
        /* An error of this prompt's cells; they keep the text for whoever looks for the reason. */
        p->request = (ct_niah_request){.text = text.content};
        text.content = NULL;
        p->error = ct_strdup(why.text, err);
        st = p->error ? CT_OK : CT_ERR_MEMORY;
        ct_hash_hex(ct_hash_bytes(p->request.text, strlen(p->request.text)), p->hash);
    } else if (st == CT_OK) {
        ct_hash_hex(ct_hash_bytes(p->request.ids, p->request.n_ids * sizeof *p->request.ids),
                    p->hash);
    } else {
        *err = why;
    }
done:
    ct_niah_prompt_clear(&text);
    return st;
}

static ct_status build_prompts(ct_work *work, ct_err *err)
{
    ct_status st;
    ct_niah *niah = NULL;
    work->prompts = calloc(work->grid.n_points, sizeof *work->prompts);
    if (!work->prompts) {
        st = ct_fail_memory(err, "prompts", work->grid.n_points * sizeof *work->prompts);
        goto done;
    }
    ct_niah_options options;
    CT_TRY(ct_study_niah_options(work->study, &options, err));
    const ct_point *last = &work->grid.points[work->grid.n_points - 1];
    CT_TRY(ct_niah_open(&options, work->tokenizer, last->length, &niah, err));
    for (size_t i = 0; i < work->grid.n_points; i++) {
        if (ct_work_stopped(work)) {
            st = ct_fail(err, CT_ERR_INTERRUPTED, "run: interrupted");
            goto done;
        }
        ct_err why = {0};
        st = build_prompt(work, niah, i, &why);
        if (st != CT_OK) {
            ct_fail(err, st, "%s (%s)", why.text, work->study->path);
            goto done;
        }
    }
done:
    ct_niah_close(niah);
    return st;
}

static ct_status make_keys(ct_work *work, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf text = {0};
    work->keys = calloc(work->grid.n_cells, sizeof *work->keys);
    if (!work->keys) return ct_fail_memory(err, "keys", work->grid.n_cells * sizeof *work->keys);
    for (size_t i = 0; i < work->grid.n_cells; i++) {
        text.size = 0;
        CT_TRY(ct_work_key_text(work, (uint32_t)i, &text, err));
        ct_hash_hex(ct_hash_bytes(text.data, text.size), work->keys[i]);
    }
done:
    ct_buf_clear(&text);
    return st;
}

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
                   "record: expected at most %lld MiB of recordings, got more after %lld cells; "
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
    char *copy = ct_strdup(refusal ? refusal : why.text, err);
    if (!copy) return CT_ERR_MEMORY;
    out->refused[out->n_refused++] = (ct_refused){cell, copy};
    return CT_OK;
}

static ct_status find_todo(ct_work *work, todo *out, ct_err *err)
{
    ct_status st = CT_OK;
    size_t n = work->grid.n_cells;
    int64_t limit = work->options->limit > 0 ? work->options->limit : INT64_MAX;
    out->items = calloc(n, sizeof *out->items);
    out->refused = calloc(n, sizeof *out->refused);
    if (!out->items || !out->refused) return ct_fail_memory(err, "cells", n * sizeof *out->items);
    for (size_t i = 0; i < n; i++) {
        bool found = false;
        ct_cell_status how = CT_CELL_FAILED;
        if (work->store) CT_TRY(ct_store_find(work->store, work->keys[i], &found, &how, err));
        bool lacks;
        CT_TRY(lacks_recording(work, (uint32_t)i, &lacks, err));
        if (found && how == CT_CELL_DONE && !lacks) {
            work->result->stored++;
            continue;
        }
        work->result->left++;
        if (limit == 0) continue;
        limit--;
        work->prompts[work->grid.cells[i].point].cells_left++;
        CT_TRY(add_todo(work, (uint32_t)i, out, err));
    }
    /* The others' prompts were needed for their keys only. */
    for (size_t i = 0; i < work->grid.n_points; i++)
        if (work->prompts[i].cells_left == 0) ct_niah_request_clear(&work->prompts[i].request);
done:
    return st;
}

/* ---- plan ------------------------------------------------------------------------------------ */

/* quickstart on two cores: 18 to 20 s; with 64 rows 20 to 27 s, with 256 24 to 26 s */
enum { DECODE_ROWS = 128 };

static int compare_items(void *user, const ct_plan_item *a, const ct_plan_item *b, int64_t *shared)
{
    const ct_work *work = user;
    ct_generate_request x, y;
    int order;
    ct_work_request(work, a->cell, &x);
    ct_work_request(work, b->cell, &y);
    *shared = ct_request_shared_prefill(work->model, &x, &y, &order);
    return order;
}

static ct_status make_plan(ct_work *work, const todo *left, ct_plan *plan, ct_err *err)
{
    const ct_model_info *info = work->info;
    ct_run_result *result = work->result;
    bool full = work->semantics.prefill_window_full;
    result->memory_limit = work->options->memory;
    if (result->memory_limit <= 0) result->memory_limit = ct_memory_free() / 2;
    const ct_plan_limits limits = {
        .memory = result->memory_limit,
        /* With each state goes the distribution of its newest token. */
        .sequence_bytes = info->state_bytes_fixed + info->vocab * (int64_t)sizeof(float),
        .block_bytes = info->state_bytes_per_block,
        .window = full || info->window <= 0 ? -1 : info->window - 1,
        .step_tokens = ct_model_step_tokens(work->model),
        .rows = DECODE_ROWS,
        .begins_anew = work->semantics.kv_cache_off,
    };
    double begin = ct_now_ms();
    ct_status st = ct_plan_new(left->items, left->n_items, compare_items, work, &limits, plan, err);
    result->plan_ms = ct_now_ms() - begin;
    result->segments = (int64_t)plan->n_nodes;
    result->batches = (int64_t)plan->n_batches;
    result->forks = (int64_t)plan->n_forks;
    result->prefill_tokens_plain = plan->tokens_plain;
    result->prefill_tokens_planned = plan->tokens_planned;
    result->decode_steps = plan->decode_steps;
    result->decode_rows = (int64_t)plan->decode_rows;
    result->state_bytes = plan->peak_bytes;
    result->weight_bytes = info->weight_bytes;
    return st;
}

/* ---- store ----------------------------------------------------------------------------------- */

static ct_status open_store(ct_work *work, const char *dir, ct_err *err)
{
    ct_status st = CT_OK;
    ct_provenance last;
    char *path = ct_path_join(dir, "run.sqlite", err);
    if (!path) return CT_ERR_MEMORY;
    snprintf(work->result->store, sizeof work->result->store, "%s", path);
    if (work->options->dry_run) {
        ct_err none = {0};
        st = ct_store_open(path, false, &work->store, &none);
        if (st == CT_ERR_NOT_FOUND) st = CT_OK; /* nothing stored yet */
        else if (st != CT_OK) *err = none;
    } else {
        CT_TRY(ct_dir_make(dir, err));
        CT_TRY(ct_store_open(path, true, &work->store, err));
    }
    if (st != CT_OK || !work->store) goto done;
    st = ct_store_provenance(work->store, &last, err);
    if (st == CT_OK && strcmp(last.study, work->study->name) != 0)
        st = ct_fail(err, CT_ERR_USAGE,
                     "%s: expected a run of the study \"%s\", got one of \"%s\"; choose another "
                     "folder with --out",
                     path, work->study->name, last.study);
    if (st == CT_ERR_NOT_FOUND) st = CT_OK; /* a new store */
done:
    free(path);
    return st;
}

/* Begins an execution, if there is anything to compute or the study has changed: then readers see
 * the cells of the study as it is now. */
static ct_status begin(ct_work *work, bool anything, bool *begun, ct_err *err)
{
    ct_provenance last;
    ct_status st = ct_store_provenance(work->store, &last, err);
    if (st != CT_OK && st != CT_ERR_NOT_FOUND) return st;
    if (!anything && st == CT_OK && strcmp(last.study_hash, work->study->hash) == 0) return CT_OK;
    const char **keys = NULL;
    char *machine = ct_machine(err);
    if (!machine) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    const ct_provenance p = {
        .version = ct_version(),
        .commit = ct_commit(),
        .study = work->study->name,
        .study_hash = work->study->hash,
        .study_text = work->study->text,
        .figures = work->study->figures,
        .model = work->study->model,
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
    keys = malloc(work->grid.n_cells * sizeof *keys);
    if (!keys) {
        st = ct_fail_memory(err, "keys", work->grid.n_cells * sizeof *keys);
        goto done;
    }
    for (size_t i = 0; i < work->grid.n_cells; i++) keys[i] = work->keys[i];
    CT_TRY(ct_store_set_current(work->store, keys, work->grid.n_cells, err));
done:
    free(keys);
    free(machine);
    return st;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void clear_work(ct_work *work)
{
    for (size_t i = 0; work->prompts && i < work->grid.n_points; i++) {
        ct_niah_request_clear(&work->prompts[i].request);
        free(work->prompts[i].error);
    }
    free(work->prompts);
    free(work->keys);
    free(work->records);
    free(work->recordings);
    ct_store_close(work->store);
    ct_model_close(work->model);
    ct_tokenizer_close(work->tokenizer);
    ct_grid_clear(&work->grid);
}

ct_status ct_run_study(const ct_study *study, const ct_run_options *options, ct_run_result *result,
                       ct_err *err)
{
    ct_status st;
    ct_err own = {0};
    if (!err) err = &own;
    *result = (ct_run_result){0};
    ct_work work = {.study = study, .options = options, .result = result, .begin_ms = ct_now_ms()};
    todo left = {0};
    ct_plan plan = {0};
    bool begun = false;
    char *dir = options->out_dir ? ct_strdup(options->out_dir, err)
                                 : ct_path_join("runs", study->name, err);
    if (!dir) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    CT_TRY(ct_grid_new(study, &work.grid, err));
    result->cells = (int64_t)work.grid.n_cells;
    result->prompts = (int64_t)work.grid.n_points;
    result->versions = (int64_t)work.grid.n_versions;
    CT_TRY(open_model(&work, err));
    CT_TRY(choose_semantics(&work, err));
    CT_TRY(check_heads(&work, err));
    CT_TRY(build_prompts(&work, err));
    CT_TRY(make_keys(&work, err));
    CT_TRY(ct_work_choose_records(&work, err));
    work.recordings = ct_path_join(dir, "recordings", err);
    if (!work.recordings) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    CT_TRY(open_store(&work, dir, err));
    CT_TRY(find_todo(&work, &left, err));
    CT_TRY(make_plan(&work, &left, &plan, err));
    if (options->dry_run) goto done;
    if (result->recordings > 0) CT_TRY(ct_dir_make(work.recordings, err));
    CT_TRY(begin(&work, left.n_items + left.n_refused > 0, &begun, err));
    if (left.n_items + left.n_refused > 0)
        CT_TRY(ct_work_execute(&work, &plan, left.refused, left.n_refused, err));
done:
    result->left -= result->done + result->failed;
    result->wall_ms = ct_now_ms() - work.begin_ms;
    if (begun) {
        const char *how = st == CT_OK                ? "done"
                          : st == CT_ERR_INTERRUPTED ? "interrupted"
                                                     : "failed";
        ct_err late = {0};
        ct_status ended = ct_store_end(work.store, how, result->wall_ms, &late);
        if (st == CT_OK && ended != CT_OK) {
            st = ended;
            *err = late;
        }
    }
    ct_plan_clear(&plan);
    clear_todo(&left);
    free(dir);
    clear_work(&work);
    return st;
}
