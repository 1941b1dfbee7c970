/* json.c - JSON from outside, through jansson. See json.h. */
#include "io/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>

#include "base/buf.h"
#include "io/file.h"
#include "io/scan.h"

/* What jansson 2.14 allocates, with malloc's overhead: measured by the unit test, rounded up. */
enum { OBJECT_BYTES = 256, ARRAY_BYTES = 144, VALUE_BYTES = 96, KEY_BYTES = 80 };
static const uint64_t FREE_BYTES = 16u << 20, BYTES_PER_BYTE = 16;

typedef struct survey {
    uint64_t tree_bytes; /* at most, for the parsed tree */
    size_t depth;
    size_t big_integers; /* that jansson would refuse */
} survey;

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Length of the integer at p if int64 cannot hold it, else 0. A fraction or exponent makes no
 * integer. 19 digits may or may not fit; all are taken as too big from 9223372036854775808 on. */
static size_t big_integer(const char *p, const char *end)
{
    const char *q = p;
    while (q < end && is_digit(*q)) q++;
    size_t digits = (size_t)(q - p);
    if (q < end && (*q == '.' || *q == 'e' || *q == 'E')) return 0;
    if (digits < 19 || *p == '0') return 0;
    return digits > 19 || memcmp(p, "9223372036854775807", 19) > 0 ? digits : 0;
}

/* Walks the text once, without judging it: bounds the tree before jansson builds it. If `copy` is
 * not NULL, the text goes there with "e0" after each too big integer. */
static survey look_over(const char *bytes, size_t size, char *copy)
{
    survey s = {0};
    size_t depth = 0;
    const char *end = bytes + size;
    for (const char *p = bytes; p < end;) {
        const char *begin = p;
        size_t big = 0;
        char c = *p++;
        if (c == '"') {
            while (p < end && *p != '"') p += *p == '\\' && end - p > 1 ? 2 : 1;
            if (p < end) p++;
            s.tree_bytes += VALUE_BYTES + (uint64_t)(p - begin);
        } else if (is_digit(c)) {
            big = big_integer(begin, end);
            s.big_integers += big > 0;
            while (p < end &&
                   (is_digit(*p) || *p == '.' || *p == 'e' || *p == 'E' || *p == '+' || *p == '-'))
                p++;
            s.tree_bytes += VALUE_BYTES;
        } else if (c == '{' || c == '[') {
            s.tree_bytes += c == '{' ? OBJECT_BYTES : ARRAY_BYTES;
            if (++depth > s.depth) s.depth = depth;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        } else if (c == ':') {
            s.tree_bytes += KEY_BYTES;
        } else if (c == ',') {
            s.tree_bytes += 2 * sizeof(void *); /* the array's slot; arrays double */
        }
        if (copy) {
            memcpy(copy, begin, (size_t)(p - begin));
            copy += p - begin;
            if (big > 0) {
                memcpy(copy, "e0", 2);
                copy += 2;
            }
        }
    }
    return s;
}

/* jansson 2.14 reports most allocations that fail as wrong syntax, and where the buffer of a token cannot
 * grow it leaves the byte out and says nothing. So its allocations are watched, by a function that is put
 * once in front of the one that it has. */
static _Thread_local bool ran_out;
static once_flag noting = ONCE_FLAG_INIT;
static json_malloc_t allocate;

static void *noting_malloc(size_t size)
{
    void *p = allocate(size);
    ran_out |= !p;
    return p;
}

static void start_noting(void)
{
    json_free_t release;
    json_get_alloc_funcs(&allocate, &release);
    json_set_alloc_funcs(noting_malloc, release);
}

ct_status ct_json_parse(const char *bytes, size_t size, const char *where, json_t **out,
                        ct_err *err)
{
    *out = NULL;
    ct_status st = CT_OK;
    json_t *value = NULL;
    char *copy = NULL;
    survey s = look_over(bytes, size, NULL);
    if (s.depth > CT_JSON_MAX_DEPTH)
        return ct_fail(err, CT_ERR_LIMIT, "%s: expected at most %d nested values, got %zu", where,
                       CT_JSON_MAX_DEPTH, s.depth);
    if (s.tree_bytes > FREE_BYTES + BYTES_PER_BYTE * size)
        return ct_fail(err, CT_ERR_LIMIT,
                       "%s: expected JSON that takes at most %" PRIu64 " bytes, got up to %" PRIu64,
                       where, FREE_BYTES + BYTES_PER_BYTE * size, s.tree_bytes);
    if (s.big_integers > 0) {
        size_t copy_size = size + 2 * s.big_integers;
        copy = malloc(copy_size);
        if (!copy) return ct_fail_memory(err, where, copy_size);
        look_over(bytes, size, copy);
        bytes = copy;
        size = copy_size;
    }
    json_error_t error = {0};
    call_once(&noting, start_noting);
    ran_out = false;
    value = json_loadb(bytes, size, JSON_REJECT_DUPLICATES, &error);
    if (ran_out) {
        st = ct_fail_memory(err, where, s.tree_bytes);
        goto done;
    }
    if (!value) {
        st = ct_fail(err, CT_ERR_FORMAT, "%s: line %d, column %d: not valid JSON: %s", where,
                     error.line, error.column, error.text);
        goto done;
    }
    if (!json_is_object(value)) {
        st = ct_fail(err, CT_ERR_FORMAT, "%s: expected a JSON object, got an array", where);
        goto done;
    }
    *out = value;
    value = NULL;
done:
    json_decref(value);
    free(copy);
    return st;
}

ct_status ct_json_open(const char *path, size_t max_bytes, json_t **out, ct_err *err)
{
    *out = NULL;
    char *bytes;
    size_t size;
    ct_status st = ct_file_read(path, max_bytes, &bytes, &size, err);
    if (st != CT_OK) return st;
    st = ct_json_parse(bytes, size, path, out, err);
    free(bytes);
    return st;
}

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
        return "an integer";
    case JSON_REAL:
        return "a number with a fraction or exponent";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        break;
    }
    return "null";
}

/* The key of the object that is nearest to `key`, or NULL. */
static const char *nearest_key(const json_t *object, const char *key)
{
    enum { MAX = 512 };
    const char *names[MAX];
    size_t count = 0;
    void *i = json_object_iter((json_t *)(uintptr_t)object);
    for (; i && count < MAX; i = json_object_iter_next((json_t *)(uintptr_t)object, i))
        names[count++] = json_object_iter_key(i);
    return ct_nearest(key, names, count);
}

/* *value is NULL if the key is absent or null and that is allowed. */
static ct_status field(const json_t *object, const char *key, bool required, const char *expected,
                       const char *where, const json_t **value, ct_err *err)
{
    *value = json_object_get(object, key);
    bool there = *value != NULL;
    if (there && !json_is_null(*value)) return CT_OK;
    *value = NULL;
    if (!required) return CT_OK;
    const char *near = there ? NULL : nearest_key(object, key);
    return ct_fail(err, CT_ERR_NOT_FOUND, "%s: %s: expected %s, got %s%s%s%s", where, key, expected,
                   there ? "null" : "none", near ? "; did you mean \"" : "", near ? near : "",
                   near ? "\"?" : "");
}

static ct_status wrong_type(const json_t *value, const char *key, const char *expected,
                            const char *where, ct_err *err)
{
    return ct_fail(err, CT_ERR_FORMAT, "%s: %s: expected %s, got %s", where, key, expected,
                   type_name(value));
}

ct_status ct_json_int(const json_t *object, const char *key, bool required, int64_t min,
                      int64_t max, const char *where, int64_t *out, ct_err *err)
{
    const json_t *value;
    ct_status st = field(object, key, required, "an integer", where, &value, err);
    if (st != CT_OK || !value) return st;
    if (!json_is_integer(value)) return wrong_type(value, key, "an integer", where, err);
    int64_t number = json_integer_value(value);
    if (number < min || number > max)
        return ct_fail(err, CT_ERR_VALUE,
                       "%s: %s: expected %" PRId64 " to %" PRId64 ", got %" PRId64, where, key, min,
                       max, number);
    *out = number;
    return CT_OK;
}

ct_status ct_json_real(const json_t *object, const char *key, bool required, double min, double max,
                       const char *where, double *out, ct_err *err)
{
    const json_t *value;
    ct_status st = field(object, key, required, "a number", where, &value, err);
    if (st != CT_OK || !value) return st;
    if (!json_is_number(value)) return wrong_type(value, key, "a number", where, err);
    double number = json_number_value(value);
    if (!(number >= min && number <= max))
        return ct_fail(err, CT_ERR_VALUE, "%s: %s: expected %g to %g, got %g", where, key, min, max,
                       number);
    *out = number;
    return CT_OK;
}

ct_status ct_json_bool(const json_t *object, const char *key, bool required, const char *where,
                       bool *out, ct_err *err)
{
    const json_t *value;
    ct_status st = field(object, key, required, "true or false", where, &value, err);
    if (st != CT_OK || !value) return st;
    if (!json_is_boolean(value)) return wrong_type(value, key, "true or false", where, err);
    *out = json_is_true(value);
    return CT_OK;
}

ct_status ct_json_text(const json_t *object, const char *key, bool required, const char *where,
                       const char **out, ct_err *err)
{
    const json_t *value;
    ct_status st = field(object, key, required, "a string", where, &value, err);
    if (st != CT_OK || !value) return st;
    if (!json_is_string(value)) return wrong_type(value, key, "a string", where, err);
    *out = json_string_value(value);
    return CT_OK;
}

ct_status ct_json_texts(const json_t *object, const char *key, bool required, const char *where,
                        const json_t **out, ct_err *err)
{
    const json_t *value;
    ct_status st = field(object, key, required, "an array of strings", where, &value, err);
    if (st != CT_OK || !value) return st;
    if (!json_is_array(value)) return wrong_type(value, key, "an array of strings", where, err);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        if (!json_is_string(item))
            return ct_fail(err, CT_ERR_FORMAT, "%s: %s[%zu]: expected a string, got %s", where, key,
                           i, type_name(item));
    }
    *out = value;
    return CT_OK;
}
