/* csv.h - tables of text from outside: CSV as Python's csv module writes it, and TSV without quotes.
 *
 * Owns the splitting into rows and fields, and the line in every error. Text must be UTF-8 without NUL; a
 * byte-order mark in front is dropped. Lines end with "\n", "\r\n" or "\r"; empty lines are no rows.
 * Knows no column.
 */
#ifndef CT_IO_CSV_H
#define CT_IO_CSV_H

#include <stddef.h>
#include <stdint.h>

#include <cortado/status.h>

/* COMMA: fields may stand in double quotes and then hold commas, line ends and doubled quotes (RFC
 * 4180; a quote inside a field without quotes is text). TAB: quotes are text (csv.QUOTE_NONE). */
typedef enum ct_csv_form { CT_CSV_COMMA, CT_CSV_TAB } ct_csv_form;

/* A row; fields are NUL-terminated and borrowed for the call. */
typedef struct ct_csv_row {
    char *const *fields;
    size_t n;
    int64_t line; /* at which it begins, from 1 */
} ct_csv_row;

typedef ct_status (*ct_csv_fn)(void *user, const ct_csv_row *row, ct_err *err);

/* Calls fn for every row of a regular file of at most max_bytes; a status that is not CT_OK ends the walk
 * and is returned. CT_ERR_FORMAT: bytes that are not UTF-8, a quote that is never closed, text behind a
 * closing quote. */
ct_status ct_csv_each(const char *path, size_t max_bytes, ct_csv_form form, ct_csv_fn fn,
                      void *user, ct_err *err) CT_CHECK;

#endif
