/* csv.c - rows and fields of CSV and TSV, split in place. See csv.h. */
#include "io/csv.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/file.h"

/* What is left of the text; the fields of a row are cut out of it in place. */
typedef struct reader {
    const char *path;
    char *at, *end;
    int64_t line;
    ct_csv_form form;
    char **fields;
    size_t n, capacity;
} reader;

static bool at_line_end(const reader *r)
{
    return r->at == r->end || *r->at == '\n' || *r->at == '\r';
}

static void skip_line_end(reader *r)
{
    if (r->at == r->end) return;
    if (*r->at == '\r' && r->at + 1 < r->end && r->at[1] == '\n') r->at++;
    r->at++;
    r->line++;
}

static ct_status keep_field(reader *r, char *field, ct_err *err)
{
    if (r->n == r->capacity) {
        size_t capacity = r->capacity ? 2 * r->capacity : 16;
        char **more = realloc(r->fields, capacity * sizeof *more);
        if (!more) return ct_fail_memory(err, r->path, capacity * sizeof *more);
        r->fields = more;
        r->capacity = capacity;
    }
    r->fields[r->n++] = field;
    return CT_OK;
}

/* A field in quotes, whose doubled quotes become one; r->at stands behind the closing one. *end is where
 * the field's text ends. */
static ct_status read_quoted(reader *r, char **end, ct_err *err)
{
    int64_t begin = r->line;
    char *to = r->at++;
    for (;; r->at++) {
        if (r->at == r->end)
            return ct_fail(err, CT_ERR_FORMAT,
                           "%s: expected a closing quote, got the end of the file (line %" PRId64
                           ")",
                           r->path, begin);
        if (*r->at == '"') {
            if (r->at + 1 == r->end || r->at[1] != '"') break;
            r->at++;
        } else if (*r->at == '\n' || (*r->at == '\r' && r->at + 1 < r->end && r->at[1] != '\n')) {
            r->line++;
        }
        *to++ = *r->at;
    }
    r->at++;
    *end = to;
    return CT_OK;
}

/* One row; its line end is consumed. */
static ct_status read_row(reader *r, ct_err *err)
{
    const char separator = r->form == CT_CSV_TAB ? '\t' : ',';
    ct_status st = CT_OK;
    r->n = 0;
    for (bool more = true; more;) {
        char *field = r->at, *end = r->at;
        if (r->form == CT_CSV_COMMA && !at_line_end(r) && *r->at == '"') {
            CT_TRY(read_quoted(r, &end, err));
            if (!at_line_end(r) && *r->at != separator)
                CT_TRY(ct_fail(err, CT_ERR_FORMAT,
                               "%s: expected a comma or a line's end behind a closing quote, got "
                               "\"%.1s\" (line %" PRId64 ")",
                               r->path, r->at, r->line));
        } else {
            while (!at_line_end(r) && *r->at != separator) r->at++;
            end = r->at;
        }
        more = !at_line_end(r);
        if (more) r->at++;
        else skip_line_end(r);
        *end = 0; /* a separator, a line end, a closing quote, or the NUL behind the text */
        CT_TRY(keep_field(r, field, err));
    }
done:
    return st;
}

ct_status ct_csv_each(const char *path, size_t max_bytes, ct_csv_form form, ct_csv_fn fn,
                      void *user, ct_err *err)
{
    static const char mark[] = "\xEF\xBB\xBF";
    char *text = NULL;
    size_t size;
    ct_status st = ct_file_read(path, max_bytes, &text, &size, err);
    if (st != CT_OK) return st;
    reader r = {.path = path, .at = text, .end = text + size, .line = 1, .form = form};
    if (!ct_utf8_valid(text, size) || memchr(text, 0, size))
        CT_TRY(ct_fail(err, CT_ERR_FORMAT, "%s: expected UTF-8 text without NUL, got other bytes",
                       path));
    if (size >= 3 && memcmp(text, mark, 3) == 0) r.at += 3;
    while (r.at < r.end) {
        if (at_line_end(&r)) {
            skip_line_end(&r);
            continue;
        }
        int64_t line = r.line;
        CT_TRY(read_row(&r, err));
        const ct_csv_row row = {r.fields, r.n, line};
        CT_TRY(fn(user, &row, err));
    }
done:
    free(r.fields);
    free(text);
    return st;
}
