/* cell.c - a cell of the grid as the engine's request, as a key, and as a row of the store.
 *
 * The key holds everything that determines the outcome, so that a stored cell is never computed
 * again and never mistaken for another one. Length and depth stand in it, too: two depths may give
 * the same prompt, and both are points of a map.
 */
#include <inttypes.h>
#include <string.h>

#include "base/buf.h"
#include "base/version.h"
#include "run/work.h"

static bool uses_spans(ct_weights_mode mode)
{
    return mode != CT_WEIGHTS_KEEP && mode != CT_WEIGHTS_NULL;
}

void ct_work_request(const ct_work *work, uint32_t cell, ct_generate_request *out)
{
    const ct_grid_cell *c = &work->grid.cells[cell];
    const ct_grid_version *v = &work->grid.versions[c->version];
    const ct_niah_request *prompt = &work->prompts[c->point].request;
    *out = (ct_generate_request){
        .prompt = prompt->ids,
        .prompt_count = prompt->n_ids,
        .intervention = {.heads = v->heads, .semantics = work->semantics},
        .max_new_tokens = work->study->max_new_tokens,
        .eos = work->study->ignore_eos ? -1 : work->info->eos,
    };
    if (work->records && work->records[cell].what) out->record = &work->records[cell];
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++) {
        ct_weight_edit *edit = &out->intervention.weights[stage];
        edit->mode = v->modes[stage];
        if (!uses_spans(edit->mode)) continue;
        edit->spans = prompt->needle;
        edit->n_spans = prompt->n_needle;
    }
}

const char *ct_work_refusal(const ct_work *work, uint32_t cell)
{
    const ct_grid_cell *c = &work->grid.cells[cell];
    const ct_prompt *prompt = &work->prompts[c->point];
    if (prompt->error) return prompt->error;
    if (prompt->request.needle_missing && ct_grid_needs_needle(&work->grid.versions[c->version]))
        return "needle_missing: the needle's ids are not in the prompt's ids "
               "(needle_span: reference)";
    return NULL;
}

ct_status ct_work_key_text(const ct_work *work, uint32_t cell, ct_buf *out, ct_err *err)
{
    const ct_study *study = work->study;
    const ct_grid_cell *c = &work->grid.cells[cell];
    const ct_point *point = &work->grid.points[c->point];
    const ct_semantics *s = &work->semantics;
    const ct_prompt *prompt = &work->prompts[c->point];
    ct_generate_request r;
    ct_status st;
    ct_work_request(work, cell, &r);
    CT_TRY(ct_buf_addf(out, err,
                       "cell 1\nnumerics %d\nbackend %s\ncompute %s\ndtype %s\nwindow %" PRId64
                       "\nweights %s\ntokenizer %s\n",
                       CT_NUMERICS_VERSION, work->info->backend, work->info->compute,
                       work->info->dtype, work->info->window, work->info->weights_hash,
                       ct_tokenizer_hash(work->tokenizer)));
    CT_TRY(ct_buf_addf(out, err, "prompt %s %zu\nlength %" PRId64 "\ndepth %" PRId64 "\n",
                       prompt->hash, r.prompt_count, point->length, point->depth));
    CT_TRY(ct_buf_addf(out, err, "semantics %d%d%d%d%d%d%d%d\n",
                       s->generation_begins_at_last_prompt_token, s->needle_span_reference,
                       s->kv_cache_off, s->needle_outside_window_unchanged,
                       s->binary_mean_per_layer, s->ring_slots_reference, s->prefill_window_full,
                       s->eos_on_first_token_ignored));
    CT_TRY(ct_buf_addf(out, err, "heads %s %s %" PRId32 " %" PRIu64 "\n",
                       ct_head_stages_name(&r.intervention.heads),
                       ct_metric_name(r.intervention.heads.metric), r.intervention.heads.keep,
                       r.intervention.heads.seed));
    for (int stage = 0; stage < CT_STAGE_COUNT; stage++) {
        const ct_weight_edit *edit = &r.intervention.weights[stage];
        CT_TRY(ct_buf_addf(out, err, "weights %s %s", ct_stage_name((ct_stage)stage),
                           ct_weights_mode_name(edit->mode)));
        for (size_t i = 0; i < edit->n_spans; i++)
            CT_TRY(ct_buf_addf(out, err, " %" PRId64 "-%" PRId64, edit->spans[i].begin,
                               edit->spans[i].end));
        CT_TRY(ct_buf_adds(out, "\n", err));
    }
    CT_TRY(ct_buf_addf(out, err, "generate greedy %" PRId32 " eos %" PRId32 "\n", r.max_new_tokens,
                       r.eos));
    CT_TRY(ct_buf_addf(out, err, "scoring %s needle %zu %s\n", ct_scoring_name(study->scoring),
                       strlen(study->needle), study->needle));
    for (size_t i = 0; i < study->n_keywords; i++)
        CT_TRY(ct_buf_addf(out, err, "keyword %.17g %d %zu %s\n", study->keywords[i].points,
                           study->keywords[i].set, strlen(study->keywords[i].text),
                           study->keywords[i].text));
done:
    return st;
}

void ct_work_cell(const ct_work *work, uint32_t cell, ct_cell *out)
{
    const ct_study *study = work->study;
    const ct_study_model *model = &study->models[work->at];
    const ct_grid_cell *c = &work->grid.cells[cell];
    const ct_grid_version *v = &work->grid.versions[c->version];
    const ct_prompt *prompt = &work->prompts[c->point];
    const ct_niah_request *r = &prompt->request;
    bool selects = v->heads.active[CT_STAGE_PREFILL] || v->heads.active[CT_STAGE_GENERATION];
    *out = (ct_cell){
        .study = study->name,
        .model = model->name,
        .family = work->info->family,
        .heads = work->info->heads,
        .window = work->info->window,
        .length = work->grid.points[c->point].length,
        .depth = work->grid.points[c->point].depth,
        .keep_heads = selects ? v->heads.keep : -1,
        .metric = selects ? ct_metric_name(v->heads.metric) : "",
        .seed = (int64_t)v->heads.seed,
        .stages = selects ? ct_head_stages_name(&v->heads) : "",
        .weights_generation = ct_weights_mode_name(v->modes[CT_STAGE_GENERATION]),
        .weights_prefill = ct_weights_mode_name(v->modes[CT_STAGE_PREFILL]),
        .template_name = model->template_kind == CT_NIAH_INSTRUCT ? "instruct" : "base",
        .read_twice = work->grid.points[c->point].read_twice,
        .semantics = work->semantics_text,
        .scoring = ct_scoring_name(study->scoring),
        .prompt = r->text,
        .prompt_ids_hash = prompt->hash,
        .prompt_tokens = (int64_t)r->n_ids,
        .needle_begin = (int64_t)r->needle_begin,
        .needle_end = (int64_t)r->needle_end,
        .needle_token_begin = r->n_needle ? r->needle[0].begin : 0,
        .needle_token_end = r->n_needle ? r->needle[0].end : 0,
    };
    memcpy(out->key, work->keys[cell], sizeof out->key);
}

bool ct_work_stopped(const ct_work *work)
{
    return work->options->stop && *work->options->stop != 0;
}
