/* json.h - JSON from outside, through jansson, with errors that name file and key.
 *
 * Owns the limits (size, depth, memory, duplicate keys refused, UTF-8 checked) and the typed
 * getters. Malformed text and values of another type are CT_ERR_FORMAT, numbers out of range
 * CT_ERR_VALUE, absent keys CT_ERR_NOT_FOUND. Parsed values are jansson's json_t, freed with
 * json_decref.
 */
#ifndef CT_IO_JSON_H
#define CT_IO_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/status.h>

enum { CT_JSON_MAX_DEPTH = 128 };

/* Parses a whole file of at most max_bytes; the top value must be an object. */
ct_status ct_json_open(const char *path, size_t max_bytes, json_t **out, ct_err *err) CT_CHECK;
/* Parses bytes, likewise an object; `where` names them in errors. Text whose tree would take more
 * than 16 MiB + 16 bytes for each of its bytes is CT_ERR_LIMIT, before anything is allocated. An
 * integer beyond 64 bits becomes a real number, as in Python's writers' "model_max_length". */
ct_status ct_json_parse(const char *bytes, size_t size, const char *where, json_t **out,
                        ct_err *err) CT_CHECK;

/* Typed fields of an object: the value must be of that JSON type and in range. If the key is absent
 * or null: *out keeps its value if `required` is false, else CT_ERR_NOT_FOUND with the nearest key
 * that is there. `where` names the file. A real may be written as an integer, not the reverse. */
ct_status ct_json_int(const json_t *object, const char *key, bool required, int64_t min,
                      int64_t max, const char *where, int64_t *out, ct_err *err) CT_CHECK;
ct_status ct_json_real(const json_t *object, const char *key, bool required, double min, double max,
                       const char *where, double *out, ct_err *err) CT_CHECK;
ct_status ct_json_bool(const json_t *object, const char *key, bool required, const char *where,
                       bool *out, ct_err *err) CT_CHECK;
ct_status ct_json_text(const json_t *object, const char *key, bool required, const char *where,
                       const char **out, ct_err *err) CT_CHECK; /* borrowed from object */
/* Same for an array of strings: *out is the array itself, borrowed; json_array_get gives its
 * strings. */
ct_status ct_json_texts(const json_t *object, const char *key, bool required, const char *where,
                        const json_t **out, ct_err *err) CT_CHECK;

#endif
