/* prepare.c - what must be known before cells can be run: the grid, the model, its prompts, the keys.
 *
 * Owns what is checked before the first cell: all that would make every cell of a model fail is an
 * error of the run, with the study's line.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "model/model.h"
#include "run/work.h"
#include "tok/chat.h"

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
        .weights = o->weights,
    };
    char *dir = NULL;
    ct_status st;
    CT_TRY(ct_study_model_dir(study, work->at, o->model_root, &dir, err));
    CT_TRY(ct_tokenizer_open(dir, &work->tokenizer, err));
    CT_TRY(ct_work_open_copies(work, dir, &options, err));
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

/* Without a template that is known, no prompt of the model can be made. */
static ct_status check_template(const ct_work *work, ct_err *err)
{
    const ct_study_model *model = &work->study->models[work->at];
    if (model->template_kind != CT_NIAH_INSTRUCT) return CT_OK;
    char *text = NULL;
    size_t size;
    ct_err why = {0};
    ct_status st = ct_chat_render(work->tokenizer, "", 0, &text, &size, &why);
    free(text);
    if (st == CT_OK) return CT_OK;
    return ct_fail(err, st, "task.niah.template: instruct: %s (%s, model %s)", why.text,
                   work->study->path, model->name);
}

/* What would fail in every cell of a version. */
static ct_status check_versions(const ct_work *work, ct_err *err)
{
    const char *model = work->study->models[work->at].name;
    for (size_t i = 0; i < work->grid.n_versions; i++) {
        const ct_grid_version *v = &work->grid.versions[i];
        bool acts = false;
        for (int s = 0; s < CT_STAGE_COUNT; s++)
            acts |= v->heads.active[s] || v->modes[s] != CT_WEIGHTS_KEEP;
        if (acts && work->info->attention_layers == 0)
            return ct_fail(err, CT_ERR_VALUE,
                           "interventions: expected none for %s, which has no attention layers, "
                           "got heads or weights (%s, line %d)",
                           model, work->study->path, v->line);
        if (v->heads.keep > work->info->heads)
            return ct_fail(err, CT_ERR_VALUE,
                           "heads.keep: expected 0 to %" PRId64 ", the heads of %s, got %" PRId32
                           " (%s, line %d)",
                           work->info->heads, model, v->heads.keep, work->study->path, v->line);
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

/* Points first..last, which are read alike. */
static ct_status build_readings(ct_work *work, size_t first, size_t end, ct_err *err)
{
    ct_status st;
    ct_niah *niah = NULL;
    ct_niah_options options;
    const ct_point *last = &work->grid.points[end - 1];
    CT_TRY(ct_study_niah_options(work->study, work->at, last->read_twice, &options, err));
    CT_TRY(ct_niah_open(&options, work->tokenizer, last->length, &niah, err));
    for (size_t i = first; i < end; i++) {
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

static ct_status build_prompts(ct_work *work, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_grid *grid = &work->grid;
    work->prompts = calloc(grid->n_points, sizeof *work->prompts);
    if (!work->prompts)
        return ct_fail_memory(err, "prompts", grid->n_points * sizeof *work->prompts);
    for (size_t first = 0, end; st == CT_OK && first < grid->n_points; first = end) {
        for (end = first + 1; end < grid->n_points; end++)
            if (grid->points[end].read_twice != grid->points[first].read_twice) break;
        st = build_readings(work, first, end, err);
    }
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

/* ---- the whole ------------------------------------------------------------------------------- */

ct_status ct_work_open(ct_work *work, ct_err *err)
{
    ct_status st;
    CT_TRY(ct_grid_new(work->study, work->at, &work->grid, err));
    CT_TRY(open_model(work, err));
    CT_TRY(choose_semantics(work, err));
    CT_TRY(check_template(work, err));
    CT_TRY(check_versions(work, err));
    CT_TRY(ct_work_check_records(work, err));
    CT_TRY(build_prompts(work, err));
done:
    return st;
}

ct_status ct_work_identify(ct_work *work, ct_err *err)
{
    ct_status st;
    CT_TRY(ct_model_hash(work->model, err));
    CT_TRY(make_keys(work, err));
    CT_TRY(ct_work_choose_records(work, err));
done:
    return st;
}

void ct_work_clear(ct_work *work)
{
    for (size_t i = 0; work->prompts && i < work->grid.n_points; i++) {
        ct_niah_request_clear(&work->prompts[i].request);
        free(work->prompts[i].error);
    }
    free(work->prompts);
    free(work->keys);
    free(work->records);
    ct_work_close_copies(work);
    ct_tokenizer_close(work->tokenizer);
    ct_grid_clear(&work->grid);
}
