/* fields.c - typed fields of JSON objects. See fields.h. */
#include "tok/fields.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

/* What stands at a value, for error texts. */
static const char *value_name(ct_scan value)
{
    if (!value.at) return "nothing";
    switch (ct_scan_peek(&value)) {
    case '{':
        return "an object";
    case '[':
        return "an array";
    case '"':
        return "a string";
    case 't':
    case 'f':
        return "a boolean";
    case 'n':
        return "null";
    default:
        return "a number";
    }
}

int ct_shown(const char *text, size_t size, size_t max)
{
    if (size <= max) return (int)size;
    while (max > 0 && ((unsigned char)text[max] & 0xC0) == 0x80) max--;
    return (int)max;
}

static ct_status wrong_type(ct_scan value, const char *where, const char *name,
                            const char *expected, ct_err *err)
{
    return ct_fail(err, CT_ERR_FORMAT, "%s.%s: expected %s, got %s", where, name, expected,
                   value_name(value));
}

ct_status ct_fields_read(ct_scan object, const char *where, const char *const *names, size_t n,
                         ct_scan *values, ct_err *err)
{
    for (size_t i = 0; i < n; i++) values[i] = (ct_scan){0};
    ct_scan scan = object;
    if (!object.at || ct_scan_peek(&scan) != '{')
        return ct_fail(err, CT_ERR_FORMAT, "%s: expected an object, got %s", where,
                       value_name(object));
    bool first = true, seen[16] = {false};
    CT_ASSERT(n <= sizeof seen / sizeof *seen);
    ct_scan_text key;
    scan.at++;
    while (ct_scan_next_key(&scan, &first, &key)) {
        for (size_t i = 0; i < n; i++) {
            if (!ct_scan_equal(key, names[i])) continue;
            if (seen[i])
                return ct_fail(err, CT_ERR_FORMAT, "%s: expected key \"%s\" once, got it twice",
                               where, names[i]);
            seen[i] = true;
            if (ct_scan_peek(&scan) != 'n') values[i] = scan;
        }
        if (!ct_scan_skip(&scan)) break;
    }
    if (scan.problem) return ct_fail(err, CT_ERR_FORMAT, "%s: expected %s", where, scan.problem);
    return CT_OK;
}

ct_status ct_field_text(ct_scan value, const char *where, const char *name, char **out,
                        size_t *size, ct_err *err)
{
    ct_scan_text text;
    if (!value.at || !ct_scan_string(&value, &text))
        return wrong_type(value, where, name, "a string", err);
    char *copy = malloc(text.size + 1);
    if (!copy) return ct_fail_memory(err, name, text.size + 1);
    size_t n = ct_scan_unescape(text, copy);
    copy[n] = 0;
    *out = copy;
    if (size) *size = n;
    return CT_OK;
}

ct_status ct_field_bool(ct_scan value, const char *where, const char *name, bool *out, ct_err *err)
{
    if (!value.at) return CT_OK;
    char c = ct_scan_peek(&value);
    if (c != 't' && c != 'f') return wrong_type(value, where, name, "true or false", err);
    *out = c == 't';
    return CT_OK;
}

ct_status ct_field_int(ct_scan value, const char *where, const char *name, int64_t max,
                       int64_t *out, ct_err *err)
{
    if (!value.at) return CT_OK;
    const char *begin = (ct_scan_peek(&value), value.at);
    if (!ct_scan_integer(&value, out) || *out > max) {
        ct_scan rest = {.begin = begin, .at = begin, .end = value.end};
        int shown = ct_scan_skip(&rest) && rest.at - begin < 40 ? (int)(rest.at - begin) : 0;
        return ct_fail(err, CT_ERR_VALUE, "%s.%s: expected an integer from 0 to %lld, got %.*s",
                       where, name, (long long)max, shown ? shown : 9, shown ? begin : "something");
    }
    return CT_OK;
}

ct_status ct_field_kind(ct_scan object, const char *where, const char *const *names, size_t n,
                        size_t *kind, ct_err *err)
{
    static const char *const type[] = {"type"};
    ct_scan value;
    ct_buf known = {0};
    char *text = NULL;
    ct_status st = CT_OK;
    CT_TRY(ct_fields_read(object, where, type, 1, &value, err));
    CT_TRY(ct_field_text(value, where, "type", &text, NULL, err));
    for (*kind = 0; *kind < n; ++*kind)
        if (strcmp(text, names[*kind]) == 0) goto done;
    for (size_t i = 0; i < n; i++)
        CT_TRY(ct_buf_addf(&known, err, "%s%s", i ? ", " : "", names[i]));
    st = ct_fail(err, CT_ERR_UNSUPPORTED, "%s.type: expected one of %s, got \"%.*s\"", where,
                 known.data, CT_SHOWN(text, strlen(text)));
done:
    free(text);
    ct_buf_clear(&known);
    return st;
}

/* One part, or those of a sequence; *left counts down from CT_PARTS_MAX. */
static ct_status flatten(ct_scan object, const char *where, const char *list, ct_part_reader each,
                         void *into, size_t *left, ct_err *err)
{
    const char *const names[] = {"type", list};
    ct_scan values[2];
    ct_scan_text type;
    ct_status st = CT_OK;
    CT_TRY(ct_fields_read(object, where, names, 2, values, err));
    if (!values[0].at || !ct_scan_string(&values[0], &type) || !ct_scan_equal(type, "Sequence")) {
        if (*left == 0)
            return ct_fail(err, CT_ERR_LIMIT, "%s: expected at most %d parts", where, CT_PARTS_MAX);
        --*left;
        return each(into, object, err);
    }
    if (!values[1].at || ct_scan_peek(&values[1]) != '[')
        return wrong_type(values[1], where, list, "an array", err);
    bool first = true;
    values[1].at++;
    /* The recursion is as deep as the JSON, and ct_scan_skip has limited that. */
    while (ct_scan_next_element(&values[1], &first)) {
        CT_TRY(flatten(values[1], where, list, each, into, left, err));
        if (!ct_scan_skip(&values[1])) break;
    }
done:
    return st;
}

ct_status ct_fields_flatten(ct_scan object, const char *where, const char *list,
                            ct_part_reader each, void *into, ct_err *err)
{
    size_t left = CT_PARTS_MAX;
    return flatten(object, where, list, each, into, &left, err);
}
