/* yaml.h - strict YAML from outside, through libyaml's events, with errors that name the line.
 *
 * Owns the limits (size, depth, number of values) and what is refused: anchors and aliases, tags,
 * several documents, duplicate keys, keys that are not text, UTF-16, bytes that are not UTF-8. A
 * scalar has no type of its own: the getters read it as what the schema asks for, so that `no` is
 * never a truth value by accident and 1e3 never a length. Knows no study.
 */
#ifndef CT_IO_YAML_H
#define CT_IO_YAML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cortado/status.h>

enum { CT_YAML_MAX_BYTES = 1 << 20, CT_YAML_MAX_DEPTH = 16, CT_YAML_MAX_NODES = 50000 };

typedef enum ct_yaml_kind { CT_YAML_SCALAR, CT_YAML_LIST, CT_YAML_MAP } ct_yaml_kind;

typedef struct ct_yaml_node {
    ct_yaml_kind kind;
    int line;                          /* from 1 */
    bool quoted;                       /* a scalar in quotes or a block: text, never a number */
    char *name;                        /* its key, if it is a value of a map; else NULL */
    char *text;                        /* of a scalar; without NULs inside */
    size_t count;                      /* items or values */
    struct ct_yaml_node *first, *next; /* of a list or map: its first child; the next sibling */
} ct_yaml_node;

typedef struct ct_yaml {
    char *where; /* the file's name, for errors */
    ct_yaml_node *root;
} ct_yaml;

/* Parses bytes; `where` names them in errors. The root must be a map. Everything is checked here
 * but the schema. */
ct_status ct_yaml_parse(const char *bytes, size_t size, const char *where, ct_yaml *out,
                        ct_err *err) CT_CHECK;
void ct_yaml_clear(ct_yaml *yaml);

/* In the functions below `what` is the value's place in words, such as "task.niah". */

/* The node must be a map, and each of its keys one of `names`; the nearest is named if not. */
ct_status ct_yaml_check_keys(const ct_yaml *yaml, const ct_yaml_node *node, const char *what,
                             const char *const *names, size_t n, ct_err *err) CT_CHECK;
/* The value of a key of a map, or NULL. */
const ct_yaml_node *ct_yaml_get(const ct_yaml_node *map, const char *name);
/* The same, but a key that is absent is CT_ERR_NOT_FOUND. */
ct_status ct_yaml_need(const ct_yaml *yaml, const ct_yaml_node *map, const char *what,
                       const char *name, const ct_yaml_node **out, ct_err *err) CT_CHECK;
/* Text: any scalar that is not empty or ~; borrowed from the node. The word null is text: it is one
 * of the weight modes. */
ct_status ct_yaml_text(const ct_yaml *yaml, const ct_yaml_node *node, const char *what,
                       const char **out, ct_err *err) CT_CHECK;
/* A whole number in decimal digits, without quotes, from min to max. */
ct_status ct_yaml_int(const ct_yaml *yaml, const ct_yaml_node *node, const char *what, int64_t min,
                      int64_t max, int64_t *out, ct_err *err) CT_CHECK;
/* A finite decimal number, from min to max. */
ct_status ct_yaml_real(const ct_yaml *yaml, const ct_yaml_node *node, const char *what, double min,
                       double max, double *out, ct_err *err) CT_CHECK;
/* true or false, so spelled. */
ct_status ct_yaml_bool(const ct_yaml *yaml, const ct_yaml_node *node, const char *what, bool *out,
                       ct_err *err) CT_CHECK;
/* Fails with "what: expected <expected>, got <the node> (file, line n)". */
ct_status ct_yaml_fail(const ct_yaml *yaml, const ct_yaml_node *node, const char *what, ct_err *err,
                       const char *fmt, ...) CT_PRINTF(5, 6);

#endif
