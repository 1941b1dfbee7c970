/* samples.c - the answers of an evaluation as JSON lines. See samples.h. */
#include "cli/samples.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/file.h"
#include "io/json.h"

enum { MAX_BYTES = 1 << 30 };

struct ct_samples {
    FILE *file;
    char *path;
};

static int by_key(const void *a, const void *b)
{
    const ct_eval_item *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

/* Puts a line's numbers into the items of its key. */
static ct_status read_line(const ct_eval *eval, ct_eval_item **sorted, const json_t *object,
                           const char *where, ct_err *err)
{
    const char *key;
    ct_status st = ct_json_text(object, "key", true, where, &key, err);
    if (st != CT_OK) return st;
    ct_eval_item wanted = {0}, *of = &wanted;
    snprintf(wanted.key, sizeof wanted.key, "%s", key);
    ct_eval_item **found = bsearch(&of, sorted, eval->n_items, sizeof *sorted, by_key);
    if (!found) return CT_OK; /* of another model, intervention or set */
    const json_t *log_p = json_object_get(object, "log_p");
    const ct_subject *subject = &eval->options.set->subjects[(*found)->question->subject];
    if (json_array_size(log_p) != subject->n_choices)
        return ct_fail(err, CT_ERR_FORMAT, "%s: expected log_p with %zu numbers, got %zu", where,
                       subject->n_choices, json_array_size(log_p));
    for (size_t c = 0; c < subject->n_choices; c++) {
        const json_t *value = json_array_get(log_p, c);
        if (!json_is_number(value))
            return ct_fail(err, CT_ERR_FORMAT, "%s: expected numbers in log_p, got something else",
                           where);
        (*found)->log_p[c] = json_number_value(value);
    }
    (*found)->done = true;
    return CT_OK;
}

/* *end: behind the last line that is whole. */
static ct_status read_all(const char *path, ct_eval *eval, size_t *end, ct_err *err)
{
    char *text = NULL;
    size_t size, line = 0;
    *end = 0;
    if (access(path, F_OK) != 0) return CT_OK;
    ct_eval_item **sorted = malloc((eval->n_items + 1) * sizeof *sorted);
    if (!sorted) return ct_fail_memory(err, path, eval->n_items * sizeof *sorted);
    for (size_t i = 0; i < eval->n_items; i++) sorted[i] = &eval->items[i];
    qsort(sorted, eval->n_items, sizeof *sorted, by_key);
    ct_status st;
    CT_TRY(ct_file_read(path, MAX_BYTES, &text, &size, err));
    for (char *at = text, *stop; (stop = memchr(at, '\n', size - *end)); at = stop + 1) {
        json_t *object = NULL;
        char *where = ct_strf(err, "%s, line %zu", path, ++line);
        st = where ? ct_json_parse(at, (size_t)(stop - at), where, &object, err) : CT_ERR_MEMORY;
        if (st == CT_OK) st = read_line(eval, sorted, object, where, err);
        json_decref(object);
        free(where);
        if (st != CT_OK) goto done;
        *end = (size_t)(stop + 1 - text);
    }
done:
    free(sorted);
    free(text);
    return st;
}

ct_status ct_samples_open(const char *path, ct_eval *eval, ct_samples **out, ct_err *err)
{
    size_t end;
    ct_status st = read_all(path, eval, &end, err);
    if (st != CT_OK) return st;
    ct_samples *samples = calloc(1, sizeof *samples);
    if (!samples) return ct_fail_memory(err, path, sizeof *samples);
    samples->path = ct_strdup(path, err);
    if (!samples->path) CT_TRY(CT_ERR_MEMORY);
    samples->file = fopen(path, "ae");
    if (!samples->file) CT_TRY(ct_fail_errno(err, "%s: opening", path));
    if (ftruncate(fileno(samples->file), (off_t)end) != 0)
        CT_TRY(ct_fail_errno(err, "%s: cutting off an unfinished line", path));
    *out = samples;
    samples = NULL;
done:
    if (samples && samples->file) fclose(samples->file);
    if (samples) free(samples->path);
    free(samples);
    return st;
}

ct_status ct_samples_add(ct_samples *samples, const ct_eval *eval, const ct_eval_item *item,
                         ct_err *err)
{
    const ct_subject *subject = &eval->options.set->subjects[item->question->subject];
    json_t *log_p = json_array();
    for (size_t c = 0; c < subject->n_choices; c++)
        json_array_append_new(log_p, json_real(item->log_p[c]));
    json_t *line =
        json_pack("{s:s, s:s, s:I, s:i, s:i, s:o}", "key", item->key, "subject", subject->name,
                  "doc_id", (json_int_t)item->question->doc_id, "gold", item->question->gold,
                  "picked", ct_choice_pick(item->log_p, subject->n_choices), "log_p", log_p);
    char *text = line ? json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    ct_status st = CT_OK;
    if (!text) st = ct_fail_memory(err, "sample", 1);
    else if (fprintf(samples->file, "%s\n", text) < 0 || fflush(samples->file) != 0)
        st = ct_fail_errno(err, "%s: writing", samples->path);
    json_decref(line);
    free(text);
    return st;
}

ct_status ct_samples_close(ct_samples *samples, ct_err *err)
{
    if (!samples) return CT_OK;
    ct_status st = CT_OK;
    bool written = fflush(samples->file) == 0 && fsync(fileno(samples->file)) == 0;
    if (fclose(samples->file) != 0 || !written)
        st = ct_fail_errno(err, "%s: writing", samples->path);
    free(samples->path);
    free(samples);
    return st;
}
