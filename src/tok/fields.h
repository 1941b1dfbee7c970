/* fields.h - typed fields of JSON objects, read in place through io/scan.h.
 *
 * Owns the error texts of tokenizer.json's parts. The document as a whole was checked before
 * (ct_scan_skip, UTF-8), so that what can still be wrong here is a type, a range or a repetition.
 */
#ifndef CT_TOK_FIELDS_H
#define CT_TOK_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "io/scan.h"

/* Finds the values of n named keys of the object at `object`; a key that is absent or null gets
 * values[i].at = NULL. A named key that occurs twice, or a value that is no object, is
 * CT_ERR_FORMAT; other keys are passed over. `where` names the object in errors. */
ct_status ct_fields_read(ct_scan object, const char *where, const char *const *names, size_t n,
                         ct_scan *values, ct_err *err) CT_CHECK;

/* One value each; `where` and `name` are for the error text. An absent value is CT_ERR_FORMAT in
 * ct_field_text and leaves *out as it is in the others. */
ct_status ct_field_text(ct_scan value, const char *where, const char *name, char **out,
                        size_t *size, ct_err *err) CT_CHECK; /* NUL-terminated; free() it */
ct_status ct_field_bool(ct_scan value, const char *where, const char *name, bool *out,
                        ct_err *err) CT_CHECK;
ct_status ct_field_int(ct_scan value, const char *where, const char *name, int64_t max,
                       int64_t *out, ct_err *err) CT_CHECK; /* 0 to max */

/* The kind of a part: the "type" of the object at `object`, looked up in n names. An unknown one is
 * CT_ERR_UNSUPPORTED with the kinds that are known. */
ct_status ct_field_kind(ct_scan object, const char *where, const char *const *names, size_t n,
                        size_t *kind, ct_err *err) CT_CHECK;

/* A text from outside in an error: printf's "%.*s" arguments for its first bytes, at most `max`,
 * cut at a character. */
int ct_shown(const char *text, size_t size, size_t max);
#define CT_SHOWN(text, size) ct_shown(text, size, 60), text

/* Calls `each` for the object at `object`, or, if its type is Sequence, for each object in its
 * array `list` (and in sequences within): how sequences of parts become one flat list. More than
 * CT_PARTS_MAX are CT_ERR_LIMIT. */
enum { CT_PARTS_MAX = 1000 };
typedef ct_status (*ct_part_reader)(void *into, ct_scan object, ct_err *err);
ct_status ct_fields_flatten(ct_scan object, const char *where, const char *list,
                            ct_part_reader each, void *into, ct_err *err) CT_CHECK;

#endif
