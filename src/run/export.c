/* export.c - a run's cells as CSV or JSON lines, for other programs.
 *
 * Owns the names and order of the exported columns (docs/STUDIES.md lists them). Outcomes come
 * first; what differs from run to run of the same study (times) comes last, so that the rest can be
 * compared byte by byte.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cortado/lab.h>

#include "base/buf.h"
#include "io/file.h"
#include "store/store.h"

typedef struct exporter {
    ct_export_format format;
    ct_write_fn write;
    void *user;
    ct_buf line;
    size_t column; /* of the line at hand */
    bool header;   /* the line at hand is the CSV header */
} exporter;

/* Invalid UTF-8 as \xNN: what is written is always UTF-8, and the byte can still be seen. */
static ct_status add_utf8(ct_buf *out, const char *text, ct_err *err)
{
    size_t n = strlen(text);
    ct_status st = CT_OK;
    for (size_t i = 0; i < n && st == CT_OK;) {
        uint32_t c;
        size_t len = ct_utf8_next(text + i, n - i, &c);
        if (len == 1 && (unsigned char)text[i] >= 0x80)
            st = ct_buf_addf(out, err, "\\x%02X", (unsigned)(unsigned char)text[i]);
        else st = ct_buf_add(out, text + i, len, err);
        i += len;
    }
    return st;
}

/* RFC 4180: quoted if it holds a comma, a quote or a line end; quotes are doubled. */
static ct_status add_csv(ct_buf *out, const char *text, ct_err *err)
{
    ct_status st = CT_OK;
    bool quote = strpbrk(text, ",\"\r\n") != NULL;
    if (quote) CT_TRY(ct_buf_adds(out, "\"", err));
    for (const char *p = text; *p; p++) {
        if (*p == '"') CT_TRY(ct_buf_adds(out, "\"", err));
        CT_TRY(ct_buf_add(out, p, 1, err));
    }
    if (quote) CT_TRY(ct_buf_adds(out, "\"", err));
done:
    return st;
}

static ct_status add_json(ct_buf *out, const char *text, ct_err *err)
{
    ct_status st;
    CT_TRY(ct_buf_adds(out, "\"", err));
    for (const char *p = text; *p; p++) {
        if (*p == '"' || *p == '\\') CT_TRY(ct_buf_addf(out, err, "\\%c", *p));
        else if (*p == '\n') CT_TRY(ct_buf_adds(out, "\\n", err));
        else if ((unsigned char)*p < 0x20 || *p == 0x7F)
            CT_TRY(ct_buf_addf(out, err, "\\u%04x", (unsigned)(unsigned char)*p));
        else CT_TRY(ct_buf_add(out, p, 1, err));
    }
    CT_TRY(ct_buf_adds(out, "\"", err));
done:
    return st;
}

/* A value that is text; `raw`: that is JSON as it stands (numbers, lists). */
static ct_status field(exporter *e, const char *name, const char *value, bool raw, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf clean = {0};
    bool json = e->format == CT_EXPORT_JSONL;
    if (e->column++ > 0) CT_TRY(ct_buf_adds(&e->line, ",", err));
    if (e->header) {
        CT_TRY(ct_buf_adds(&e->line, name, err));
        goto done;
    }
    if (json) CT_TRY(ct_buf_addf(&e->line, err, "\"%s\":", name));
    CT_TRY(ct_buf_reserve(&clean, 0, err));
    CT_TRY(add_utf8(&clean, value, err));
    if (json && raw) CT_TRY(ct_buf_adds(&e->line, clean.data, err));
    else if (json) CT_TRY(add_json(&e->line, clean.data, err));
    else CT_TRY(add_csv(&e->line, clean.data, err));
done:
    ct_buf_clear(&clean);
    return st;
}

static ct_status text(exporter *e, const char *name, const char *value, ct_err *err)
{
    return field(e, name, value, false, err);
}

static ct_status whole(exporter *e, const char *name, int64_t value, ct_err *err)
{
    char digits[24];
    snprintf(digits, sizeof digits, "%" PRId64, value);
    return field(e, name, digits, true, err);
}

/* The shortest digits that read back as the same number. */
static ct_status real(exporter *e, const char *name, double value, ct_err *err)
{
    char digits[32] = "0";
    if (isfinite(value))
        for (int precision = 1; precision <= 17; precision++) {
            snprintf(digits, sizeof digits, "%.*g", precision, value);
            if (strtod(digits, NULL) == value) break;
        }
    return field(e, name, digits, true, err);
}

static ct_status id_list(exporter *e, const ct_cell *c, ct_err *err)
{
    ct_status st;
    ct_buf list = {0};
    CT_TRY(ct_buf_adds(&list, "[", err));
    for (size_t i = 0; i < c->n_ids; i++)
        CT_TRY(ct_buf_addf(&list, err, i ? ",%" PRId32 : "%" PRId32, c->ids[i]));
    CT_TRY(ct_buf_adds(&list, "]", err));
    CT_TRY(field(e, "ids", list.data, true, err));
done:
    ct_buf_clear(&list);
    return st;
}

static ct_status fields(exporter *e, const ct_cell *c, ct_err *err)
{
    ct_status st;
    CT_TRY(text(e, "study", c->study, err));
    CT_TRY(text(e, "model", c->model, err));
    CT_TRY(whole(e, "length", c->length, err));
    CT_TRY(whole(e, "depth", c->depth, err));
    CT_TRY(whole(e, "keep_heads", c->keep_heads, err));
    CT_TRY(text(e, "metric", c->metric, err));
    CT_TRY(whole(e, "seed", c->seed, err));
    CT_TRY(text(e, "stages", c->stages, err));
    CT_TRY(text(e, "weights_generation", c->weights_generation, err));
    CT_TRY(text(e, "weights_prefill", c->weights_prefill, err));
    CT_TRY(text(e, "template", c->template_name, err));
    CT_TRY(field(e, "read_twice", c->read_twice ? "true" : "false", true, err));
    CT_TRY(text(e, "semantics", c->semantics, err));
    CT_TRY(text(e, "text", c->text, err));
    CT_TRY(real(e, "score", c->score, err));
    CT_TRY(real(e, "max_score", c->max_score, err));
    CT_TRY(text(e, "status", c->status == CT_CELL_DONE ? "done" : "failed", err));
    CT_TRY(text(e, "error", c->error, err));
    CT_TRY(text(e, "scoring", c->scoring, err));
    CT_TRY(whole(e, "heads", c->heads, err));
    CT_TRY(whole(e, "window", c->window, err));
    CT_TRY(whole(e, "prompt_tokens", c->prompt_tokens, err));
    CT_TRY(text(e, "prompt_ids_hash", c->prompt_ids_hash, err));
    CT_TRY(whole(e, "needle_begin", c->needle_begin, err));
    CT_TRY(whole(e, "needle_end", c->needle_end, err));
    CT_TRY(whole(e, "needle_token_begin", c->needle_token_begin, err));
    CT_TRY(whole(e, "needle_token_end", c->needle_token_end, err));
    CT_TRY(id_list(e, c, err));
    CT_TRY(whole(e, "head_rows_prefill", c->audit.head_rows[CT_STAGE_PREFILL], err));
    CT_TRY(whole(e, "head_rows_generation", c->audit.head_rows[CT_STAGE_GENERATION], err));
    CT_TRY(whole(e, "heads_dropped_prefill", c->audit.heads_dropped[CT_STAGE_PREFILL], err));
    CT_TRY(whole(e, "heads_dropped_generation", c->audit.heads_dropped[CT_STAGE_GENERATION], err));
    CT_TRY(whole(e, "edit_rows_prefill", c->audit.edit_rows[CT_STAGE_PREFILL], err));
    CT_TRY(whole(e, "edit_rows_generation", c->audit.edit_rows[CT_STAGE_GENERATION], err));
    CT_TRY(
        whole(e, "edit_rows_changed_prefill", c->audit.edit_rows_changed[CT_STAGE_PREFILL], err));
    CT_TRY(whole(e, "edit_rows_changed_generation", c->audit.edit_rows_changed[CT_STAGE_GENERATION],
                 err));
    CT_TRY(text(e, "key", c->key, err));
    CT_TRY(real(e, "prefill_ms", c->prefill_ms, err));
    CT_TRY(real(e, "decode_ms", c->decode_ms, err));
    CT_TRY(whole(e, "finished_unix_ms", c->finished_unix_ms, err));
done:
    return st;
}

static ct_status write_line(exporter *e, const ct_cell *cell, ct_err *err)
{
    ct_status st;
    bool json = e->format == CT_EXPORT_JSONL;
    e->line.size = 0;
    e->column = 0;
    if (json) CT_TRY(ct_buf_adds(&e->line, "{", err));
    CT_TRY(fields(e, cell, err));
    CT_TRY(ct_buf_adds(&e->line, json ? "}\n" : "\r\n", err));
    CT_TRY(e->write(e->user, e->line.data, e->line.size, err));
done:
    return st;
}

static ct_status each_cell(void *user, const ct_cell *cell, ct_err *err)
{
    return write_line(user, cell, err);
}

ct_status ct_run_export(const char *dir, ct_export_format format, ct_write_fn write, void *user,
                        ct_err *err)
{
    ct_status st;
    ct_store *store = NULL;
    exporter e = {.format = format, .write = write, .user = user};
    char *path = ct_path_join(dir, "run.sqlite", err);
    if (!path) return CT_ERR_MEMORY;
    CT_TRY(ct_store_open(path, false, &store, err));
    if (format == CT_EXPORT_CSV) {
        static const ct_cell none; /* the header needs names only */
        e.header = true;
        CT_TRY(write_line(&e, &none, err));
        e.header = false;
    }
    CT_TRY(ct_store_each(store, each_cell, &e, err));
done:
    ct_store_close(store);
    ct_buf_clear(&e.line);
    free(path);
    return st;
}
