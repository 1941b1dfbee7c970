/* yaml.c - libyaml's events to a small tree, and typed reading of it. See yaml.h. */
#include "io/yaml.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/buf.h"

/* ---- bytes to tree --------------------------------------------------------------------------- */

static void free_nodes(ct_yaml_node *node)
{
    while (node) {
        ct_yaml_node *next = node->next;
        free_nodes(node->first); /* at most CT_YAML_MAX_DEPTH deep */
        free(node->name);
        free(node->text);
        free(node);
        node = next;
    }
}

void ct_yaml_clear(ct_yaml *yaml)
{
    free_nodes(yaml->root);
    free(yaml->where);
    *yaml = (ct_yaml){0};
}

static int line_at(const char *bytes, size_t offset)
{
    int line = 1;
    for (size_t i = 0; i < offset; i++) line += bytes[i] == '\n';
    return line;
}

/* What libyaml would decode or stumble over without a clear word. */
static ct_status check_bytes(const char *bytes, size_t size, const char *where, ct_err *err)
{
    if (size > CT_YAML_MAX_BYTES)
        return ct_fail(err, CT_ERR_LIMIT, "%s: expected at most %d bytes, got %zu", where,
                       CT_YAML_MAX_BYTES, size);
    if (size >= 2 && (memcmp(bytes, "\xFF\xFE", 2) == 0 || memcmp(bytes, "\xFE\xFF", 2) == 0))
        return ct_fail(err, CT_ERR_FORMAT, "%s: expected UTF-8, got UTF-16: save it as UTF-8",
                       where);
    for (size_t i = 0; i < size;) {
        uint32_t c;
        size_t n = ct_utf8_next(bytes + i, size - i, &c);
        if (c == 0)
            return ct_fail(err, CT_ERR_FORMAT,
                           "%s: expected UTF-8 text, got a NUL byte (line %d); UTF-16 is not read",
                           where, line_at(bytes, i));
        if (n == 1 && (unsigned char)bytes[i] >= 0x80)
            return ct_fail(err, CT_ERR_FORMAT, "%s: expected UTF-8, got the byte 0x%02X (line %d)",
                           where, (unsigned)(unsigned char)bytes[i], line_at(bytes, i));
        i += n;
    }
    return CT_OK;
}

static bool tab_in_indentation(const char *bytes, size_t size, size_t line)
{
    size_t i = 0;
    for (; line > 0 && i < size; i++) line -= bytes[i] == '\n';
    while (i < size && bytes[i] == ' ') i++;
    return i < size && bytes[i] == '\t';
}

static ct_status fail_parser(const yaml_parser_t *parser, const char *bytes, size_t size,
                             const char *where, ct_err *err)
{
    if (parser->error == YAML_MEMORY_ERROR) return ct_fail_memory(err, where, size);
    /* Reader errors know an offset only, but all text that they refuse is control characters. */
    size_t line = parser->error == YAML_READER_ERROR
                      ? (size_t)line_at(
                            bytes, parser->problem_offset < size ? parser->problem_offset : size) -
                            1
                      : parser->problem_mark.line;
    if (tab_in_indentation(bytes, size, line))
        return ct_fail(err, CT_ERR_FORMAT,
                       "%s: expected spaces for indentation, got a tab (line %zu)", where,
                       line + 1);
    return ct_fail(err, CT_ERR_FORMAT, "%s: not YAML: %s%s%s (line %zu)", where,
                   parser->problem ? parser->problem : "unknown error", parser->context ? " " : "",
                   parser->context ? parser->context : "", line + 1);
}

/* The tree while it grows: the open lists and maps, each with the place for its next child. */
typedef struct builder {
    ct_yaml *yaml;
    ct_yaml_node *open[CT_YAML_MAX_DEPTH];
    ct_yaml_node **tail[CT_YAML_MAX_DEPTH];
    int depth;
    size_t nodes;
    char *key; /* of a map's value that comes next */
} builder;

static ct_status fail_at(const builder *b, size_t line, ct_err *err, const char *what)
{
    return ct_fail(err, CT_ERR_FORMAT, "%s: %s (line %zu)", b->yaml->where, what, line + 1);
}

static ct_status add_key(builder *b, const yaml_event_t *event, ct_err *err)
{
    const ct_yaml_node *map = b->open[b->depth - 1];
    const char *key = (const char *)event->data.scalar.value;
    size_t line = event->start_mark.line;
    if (strlen(key) != event->data.scalar.length)
        return fail_at(b, line, err, "a key with a NUL character is not read");
    for (const ct_yaml_node *n = map->first; n; n = n->next)
        if (strcmp(n->name, key) == 0)
            return ct_fail(err, CT_ERR_FORMAT,
                           "%s: expected each key once, got \"%s\" again (line %zu; first on line "
                           "%d)",
                           b->yaml->where, key, line + 1, n->line);
    if (map->count >= 1000) return fail_at(b, line, err, "expected at most 1000 keys in a map");
    b->key = ct_strdup(key, err);
    return b->key ? CT_OK : CT_ERR_MEMORY;
}

/* Puts a node into the innermost open list or map; opens it if it is one itself. */
static ct_status add_node(builder *b, ct_yaml_kind kind, const yaml_event_t *event, ct_err *err)
{
    size_t line = event->start_mark.line;
    if (++b->nodes > CT_YAML_MAX_NODES)
        return fail_at(b, line, err, "expected at most 50000 values, got more");
    if (kind != CT_YAML_SCALAR && b->depth == CT_YAML_MAX_DEPTH)
        return fail_at(b, line, err, "expected at most 16 levels of nesting, got more");
    ct_yaml_node *node = calloc(1, sizeof *node);
    if (!node) return ct_fail_memory(err, b->yaml->where, sizeof *node);
    node->kind = kind;
    node->line = (int)line + 1;
    node->name = b->key;
    b->key = NULL;
    if (b->depth == 0) {
        b->yaml->root = node;
    } else {
        b->open[b->depth - 1]->count++;
        *b->tail[b->depth - 1] = node;
        b->tail[b->depth - 1] = &node->next;
    }
    if (kind != CT_YAML_SCALAR) {
        b->open[b->depth] = node;
        b->tail[b->depth++] = &node->first;
        return CT_OK;
    }
    size_t length = event->data.scalar.length;
    if (memchr(event->data.scalar.value, 0, length))
        return fail_at(b, line, err, "text with a NUL character is not read");
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    node->text = ct_strndup((const char *)event->data.scalar.value, length, err);
    return node->text ? CT_OK : CT_ERR_MEMORY;
}

static ct_status take_event(builder *b, const yaml_event_t *event, ct_err *err)
{
    size_t line = event->start_mark.line;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    ct_yaml_kind kind = CT_YAML_SCALAR;
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return b->yaml->root ? fail_at(b, line, err, "expected one document, got a second") : CT_OK;
    case YAML_ALIAS_EVENT:
        return fail_at(b, line, err, "aliases (*name) are not read: write the value out");
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        b->depth--;
        return CT_OK;
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        kind = CT_YAML_LIST;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        kind = CT_YAML_MAP;
        break;
    default:
        return CT_OK;
    }
    if (anchor) return fail_at(b, line, err, "anchors (&name) are not read: write the value out");
    if (tag) return fail_at(b, line, err, "tags (!name) are not read");
    if (b->depth > 0 && b->open[b->depth - 1]->kind == CT_YAML_MAP && !b->key) {
        if (kind != CT_YAML_SCALAR) return fail_at(b, line, err, "expected a word as key");
        return add_key(b, event, err);
    }
    return add_node(b, kind, event, err);
}

ct_status ct_yaml_parse(const char *bytes, size_t size, const char *where, ct_yaml *out,
                        ct_err *err)
{
    *out = (ct_yaml){0};
    ct_status st = check_bytes(bytes, size, where, err);
    if (st != CT_OK) return st;
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return ct_fail_memory(err, where, sizeof parser);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    /* With the encoding set, libyaml takes a byte order mark for text. */
    size_t bom = size >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    bytes += bom;
    size -= bom;
    yaml_parser_set_input_string(&parser, (const unsigned char *)bytes, size);
    builder b = {.yaml = out};
    out->where = ct_strdup(where, err);
    if (!out->where) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    for (bool end = false; !end;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            st = fail_parser(&parser, bytes, size, where, err);
            goto done;
        }
        end = event.type == YAML_STREAM_END_EVENT;
        st = take_event(&b, &event, err);
        yaml_event_delete(&event);
        if (st != CT_OK) goto done;
    }
    if (!out->root || out->root->kind != CT_YAML_MAP)
        st = ct_fail(err, CT_ERR_FORMAT, "%s: expected keys and values, got %s", where,
                     !out->root                        ? "nothing"
                     : out->root->kind == CT_YAML_LIST ? "a list"
                                                       : "a single value");
done:
    free(b.key);
    yaml_parser_delete(&parser);
    if (st != CT_OK) ct_yaml_clear(out);
    return st;
}

/* ---- reading the tree ------------------------------------------------------------------------ */

/* At most `max` bytes of text, ending at a character; for printf's %.*s. */
static int cut(const char *text, size_t max)
{
    size_t n = strlen(text);
    if (n <= max) return (int)n;
    for (n = max; n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80;) n--;
    return (int)n;
}

ct_status ct_yaml_fail(const ct_yaml *yaml, const ct_yaml_node *node, const char *what, ct_err *err,
                       const char *fmt, ...)
{
    char expected[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(expected, sizeof expected, fmt, ap);
    va_end(ap);
    bool scalar = node->kind == CT_YAML_SCALAR;
    const char *got = node->kind == CT_YAML_LIST  ? (node->count ? "a list" : "an empty list")
                      : node->kind == CT_YAML_MAP ? "keys and values"
                      : *node->text               ? node->text
                                                  : "nothing";
    const char *quote = scalar && (node->quoted || !*node->text) && *node->text ? "\"" : "";
    return ct_fail(err, CT_ERR_VALUE, "%s: expected %s, got %s%.*s%s%s (%s, line %d)", what,
                   expected, quote, cut(got, 80), got, strlen(got) > 80 ? "..." : "", quote,
                   yaml->where, node->line);
}

ct_status ct_yaml_check_keys(const ct_yaml *yaml, const ct_yaml_node *node, const char *what,
                             const char *const *names, size_t n, ct_err *err)
{
    if (node->kind != CT_YAML_MAP) return ct_yaml_fail(yaml, node, what, err, "keys and values");
    for (const ct_yaml_node *child = node->first; child; child = child->next) {
        size_t i = 0;
        while (i < n && strcmp(child->name, names[i]) != 0) i++;
        if (i < n) continue;
        char known[256] = "";
        for (size_t k = 0; k < n; k++) {
            size_t used = strlen(known);
            snprintf(known + used, sizeof known - used, "%s%s", k ? ", " : "", names[k]);
        }
        const char *near = ct_nearest(child->name, names, n);
        return ct_fail(err, CT_ERR_USAGE,
                       "%s: unknown key \"%.*s\": expected one of %s%s%s%s (%s, line %d)", what,
                       cut(child->name, 60), child->name, known, near ? "; did you mean \"" : "",
                       near ? near : "", near ? "\"?" : "", yaml->where, child->line);
    }
    return CT_OK;
}

const ct_yaml_node *ct_yaml_get(const ct_yaml_node *map, const char *name)
{
    if (map->kind != CT_YAML_MAP) return NULL;
    for (const ct_yaml_node *n = map->first; n; n = n->next)
        if (strcmp(n->name, name) == 0) return n;
    return NULL;
}

ct_status ct_yaml_need(const ct_yaml *yaml, const ct_yaml_node *map, const char *what,
                       const char *name, const ct_yaml_node **out, ct_err *err)
{
    *out = ct_yaml_get(map, name);
    if (*out) return CT_OK;
    return ct_fail(err, CT_ERR_NOT_FOUND, "%s: expected the key \"%s\", got none (%s, line %d)",
                   what, name, yaml->where, map->line);
}

ct_status ct_yaml_text(const ct_yaml *yaml, const ct_yaml_node *node, const char *what,
                       const char **out, ct_err *err)
{
    if (node->kind != CT_YAML_SCALAR || !*node->text ||
        (!node->quoted && strcmp(node->text, "~") == 0))
        return ct_yaml_fail(yaml, node, what, err, "text");
    *out = node->text;
    return CT_OK;
}

ct_status ct_yaml_int(const ct_yaml *yaml, const ct_yaml_node *node, const char *what, int64_t min,
                      int64_t max, int64_t *out, ct_err *err)
{
    if (node->kind == CT_YAML_SCALAR && !node->quoted) {
        const char *digits = node->text + (*node->text == '-');
        size_t n = strspn(digits, "0123456789");
        /* 010 is eight in YAML 1.1 and ten in 1.2: neither is read. */
        bool plain = n > 0 && !digits[n] && (digits[0] != '0' || n == 1);
        errno = 0;
        long long value = plain ? strtoll(node->text, NULL, 10) : 0;
        if (plain && errno == 0 && value >= min && value <= max) {
            *out = value;
            return CT_OK;
        }
    }
    return ct_yaml_fail(yaml, node, what, err, "a whole number from %lld to %lld", (long long)min,
                        (long long)max);
}

ct_status ct_yaml_real(const ct_yaml *yaml, const ct_yaml_node *node, const char *what, double min,
                       double max, double *out, ct_err *err)
{
    if (node->kind == CT_YAML_SCALAR && !node->quoted && *node->text &&
        strspn(node->text, "0123456789.-") == strlen(node->text)) {
        /* The C locale's number, whatever the program's locale is. */
        locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
        if (!c) return ct_fail_memory(err, what, sizeof c);
        char *end;
        double value = strtod_l(node->text, &end, c);
        freelocale(c);
        if (!*end && isfinite(value) && value >= min && value <= max) {
            *out = value;
            return CT_OK;
        }
    }
    return ct_yaml_fail(yaml, node, what, err, "a number from %g to %g", min, max);
}

ct_status ct_yaml_bool(const ct_yaml *yaml, const ct_yaml_node *node, const char *what, bool *out,
                       ct_err *err)
{
    if (node->kind == CT_YAML_SCALAR && !node->quoted) {
        *out = strcmp(node->text, "true") == 0;
        if (*out || strcmp(node->text, "false") == 0) return CT_OK;
    }
    return ct_yaml_fail(yaml, node, what, err, "true or false");
}
