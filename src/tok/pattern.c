/* pattern.c - strings and regular expressions to look for. See pattern.h. */
#include "tok/pattern.h"

#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/buf.h"
#include "tok/fields.h"

struct ct_pattern {
    char *string; /* NULL: a regular expression */
    size_t size;
    pcre2_code *code;
};

/* Nested quantifiers end at these limits with an error. The longest honest match, a megabyte of
 * white space that is given back character by character, needs a tenth of them. */
enum {
    MATCH_LIMIT = 10000000,
    DEPTH_LIMIT = 10000000,
    HEAP_LIMIT_KIB = 65536,
    JIT_STACK_MAX = 16 << 20,
};

void ct_pattern_free(ct_pattern *pattern)
{
    if (!pattern) return;
    free(pattern->string);
    pcre2_code_free(pattern->code);
    free(pattern);
}

ct_status ct_pattern_new_string(const char *text, size_t size, const char *where, ct_pattern **out,
                                ct_err *err)
{
    if (size == 0)
        return ct_fail(err, CT_ERR_VALUE, "%s: expected a string that is not empty", where);
    ct_pattern *pattern = calloc(1, sizeof *pattern);
    if (pattern) pattern->string = ct_strndup(text, size, err);
    if (!pattern || !pattern->string) {
        free(pattern);
        return ct_fail_memory(err, where, size);
    }
    pattern->size = size;
    *out = pattern;
    return CT_OK;
}

/* ---- Oniguruma's syntax ---------------------------------------------------------------------- */

/* The first n bytes of `what`, which goes on or ends with a NUL, are named. */
static ct_status differs(const char *where, const char *what, size_t n, ct_err *err)
{
    return ct_fail(err, CT_ERR_UNSUPPORTED,
                   "%s: expected an expression that Oniguruma and PCRE2 read alike, got %.*s",
                   where, ct_shown(what, n + 1, n), what);
}

/* \w, and what Oniguruma takes for it outside of brackets only. */
#define WORD          "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define LATIN_NUMBERS "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"

/* \p{...} at p: a general category or Alphabetic as it is; else a script, which PCRE2 would widen
 * to its extensions. Other properties PCRE2 then refuses. */
static ct_status translate_property(const char *p, const char *end, const char *where, ct_buf *out,
                                    size_t *used, ct_err *err)
{
    const char *close = end - p > 2 && p[2] == '{' ? memchr(p, '}', (size_t)(end - p)) : NULL;
    if (!close) return differs(where, p, 2, err);
    const char *name = p + 3;
    bool negated = name < close && *name == '^';
    name += negated;
    bool category = close - name == 1 || close - name == 2 ||
                    (close - name == 10 && memcmp(name, "Alphabetic", 10) == 0);
    *used = (size_t)(close + 1 - p);
    return ct_buf_addf(out, err, "\\%c{%s%s%.*s}", p[1], negated ? "^" : "",
                       category ? "" : "sc:", (int)(close - name), name);
}

/* One escape at p (a backslash) as PCRE2 reads it; *used is its length. */
static ct_status translate_escape(const char *p, const char *end, bool in_class, const char *where,
                                  ct_buf *out, size_t *used, ct_err *err)
{
    *used = 2;
    if (end - p < 2)
        return ct_fail(err, CT_ERR_FORMAT, "%s: expected a character after the last \\", where);
    switch (p[1]) {
    case 's':
        return ct_buf_adds(out, "\\p{White_Space}", err);
    case 'S':
        return ct_buf_adds(out, "\\P{White_Space}", err);
    case 'd':
        return ct_buf_adds(out, "\\p{Nd}", err);
    case 'D':
        return ct_buf_adds(out, "\\P{Nd}", err);
    case 'w':
        return ct_buf_adds(out, in_class ? WORD : "[" WORD LATIN_NUMBERS "]", err);
    case 'W':
        if (in_class) return differs(where, p, 2, err);
        return ct_buf_adds(out, "[^" WORD LATIN_NUMBERS "]", err);
    case 'p':
    case 'P':
        return translate_property(p, end, where, out, used, err);
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'a':
    case 'e':
    case 'x':
        return ct_buf_add(out, p, 2, err);
    case 'v': /* one character there, a class here */
        return ct_buf_adds(out, "\\x0B", err);
    case 'u': /* \uHHHH */
        for (int i = 2; i < 6; i++)
            if (end - p < 6 || !strchr("0123456789abcdefABCDEF", p[i]) || !p[i])
                return differs(where, p, 2, err);
        *used = 6;
        return ct_buf_addf(out, err, "\\x{%.4s}", p + 2);
    default:
        if ((p[1] >= '0' && p[1] <= '9') || (p[1] >= 'A' && p[1] <= 'Z') ||
            (p[1] >= 'a' && p[1] <= 'z') || (unsigned char)p[1] >= 0x80)
            return differs(where, p, 2, err);
        return ct_buf_add(out, p, 2, err); /* an escaped sign */
    }
}

/* Copies a pattern, writing out what Oniguruma and PCRE2 name differently. Classes within classes,
 * intersections, named and conditional groups, and the escapes that differ are refused. */
static ct_status translate(const char *text, size_t size, const char *where, ct_buf *out,
                           ct_err *err)
{
    const char *p = text, *end = text + size;
    bool in_class = false;
    ct_status st = CT_OK;
    while (p < end) {
        size_t used = 1;
        if (*p == '\\') {
            CT_TRY(translate_escape(p, end, in_class, where, out, &used, err));
            p += used;
            continue;
        }
        if (in_class) {
            if (*p == '[' || (*p == '&' && p + 1 < end && p[1] == '&')) {
                st = differs(where, *p == '[' ? "a class within a class" : "an intersection",
                             *p == '[' ? 22 : 15, err);
                goto done;
            }
            if (*p == ']') in_class = false;
        } else if (*p == '[') {
            in_class = true;
            /* A bracket that opens a class is itself a member in both, if escaped; unescaped they
             * differ in whether it closes. */
            size_t skip = p + 1 < end && p[1] == '^' ? 2 : 1;
            if (p + skip < end && p[skip] == ']') {
                st = differs(where, p, skip + 1, err);
                goto done;
            }
            used = skip;
        } else if (*p == '(' && p + 1 < end && (p[1] == '?' || p[1] == '*')) {
            static const char *const known[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:"};
            size_t i = 0, n = sizeof known / sizeof *known;
            while (i < n && ((size_t)(end - p) < strlen(known[i]) ||
                             memcmp(p, known[i], strlen(known[i])) != 0))
                i++;
            if (i == n) {
                st = differs(where, p, end - p < 4 ? (size_t)(end - p) : 4, err);
                goto done;
            }
            used = strlen(known[i]);
        } else if (*p == '}' && p + 1 < end && p[1] == '+') {
            st = differs(where, "a possessive interval {n,m}+", 28, err);
            goto done;
        }
        CT_TRY(ct_buf_add(out, p, used, err));
        p += used;
    }
done:
    return st;
}

ct_status ct_pattern_new_regex(const char *text, size_t size, const char *where, ct_pattern **out,
                               ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf source = {0};
    ct_pattern *pattern = calloc(1, sizeof *pattern);
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    int code;
    size_t offset;
    if (!pattern || !context) {
        st = ct_fail_memory(err, where, sizeof *pattern);
        goto done;
    }
    CT_TRY(translate(text, size, where, &source, err));
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, 100);
    /* In Oniguruma's Ruby syntax ^ and $ stand at every line. */
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    pattern->code = pcre2_compile((PCRE2_SPTR)(source.data ? source.data : ""), source.size,
                                  options, &code, &offset, context);
    if (!pattern->code && code == PCRE2_ERROR_HEAP_FAILED) {
        st = ct_fail_memory(err, where, source.size);
        goto done;
    }
    if (!pattern->code) {
        unsigned char message[120] = "";
        pcre2_get_error_message(code, message, sizeof message);
        st = ct_fail(err, CT_ERR_FORMAT, "%s: expected a regular expression, got %.*s: %s", where,
                     CT_SHOWN(source.data ? source.data : "", source.size), (const char *)message);
        goto done;
    }
    /* Without JIT the interpreter runs: slower, same matches. */
    (void)pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE);
    *out = pattern;
    pattern = NULL;
done:
    pcre2_compile_context_free(context);
    ct_pattern_free(pattern);
    ct_buf_clear(&source);
    return st;
}

ct_status ct_pattern_read(ct_scan value, const char *where, ct_pattern **out, ct_err *err)
{
    static const char *const names[] = {"String", "Regex"};
    ct_scan values[2];
    char *text = NULL;
    size_t size;
    ct_status st = CT_OK;
    CT_TRY(ct_fields_read(value, where, names, 2, values, err));
    int which = values[1].at != NULL;
    CT_TRY(ct_field_text(values[which], where, names[which], &text, &size, err));
    st = which ? ct_pattern_new_regex(text, size, where, out, err)
               : ct_pattern_new_string(text, size, where, out, err);
done:
    free(text);
    return st;
}

/* ---- searching ------------------------------------------------------------------------------- */

void ct_search_start(ct_search *search, const ct_pattern *pattern, const char *text, size_t size)
{
    search->pattern = pattern;
    search->text = text;
    search->size = size;
    search->at = search->last_end = 0;
    search->any = false;
}

void ct_search_clear(ct_search *search)
{
    pcre2_match_data_free(search->match);
    pcre2_match_context_free(search->context);
    pcre2_jit_stack_free(search->stack);
    *search = (ct_search){0};
}

static ct_status prepare(ct_search *search, ct_err *err)
{
    if (search->match) return CT_OK;
    search->match = pcre2_match_data_create(1, NULL);
    search->context = pcre2_match_context_create(NULL);
    search->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK_MAX, NULL);
    if (!search->match || !search->context) return ct_fail_memory(err, "regular expression", 1024);
    pcre2_set_match_limit(search->context, MATCH_LIMIT);
    pcre2_set_depth_limit(search->context, DEPTH_LIMIT);
    pcre2_set_heap_limit(search->context, HEAP_LIMIT_KIB);
    if (search->stack) pcre2_jit_stack_assign(search->context, NULL, search->stack);
    return CT_OK;
}

ct_status ct_search_next(ct_search *search, bool *found, ct_err *err)
{
    const ct_pattern *pattern = search->pattern;
    *found = false;
    if (pattern->string) {
        const char *hit = memmem(search->text + search->at, search->size - search->at,
                                 pattern->string, pattern->size);
        if (!hit) return CT_OK;
        search->begin = (size_t)(hit - search->text);
        search->at = search->end = search->begin + pattern->size;
        *found = true;
        return CT_OK;
    }
    ct_status st = prepare(search, err);
    if (st != CT_OK) return st;
    while (search->at <= search->size) {
        int n = pcre2_match(pattern->code, (PCRE2_SPTR)search->text, search->size, search->at,
                            PCRE2_NO_UTF_CHECK, search->match, search->context);
        if (n == PCRE2_ERROR_NOMATCH) return CT_OK;
        if (n < 0)
            return ct_fail(err, n == PCRE2_ERROR_NOMEMORY ? CT_ERR_MEMORY : CT_ERR_LIMIT,
                           "regular expression: expected a match within the limits, got PCRE2's "
                           "error %d at byte %zu (nested quantifiers?)",
                           n, search->at);
        const size_t *range = pcre2_get_ovector_pointer(search->match);
        search->begin = range[0];
        search->end = range[1];
        if (search->end <= search->begin && search->any && search->last_end == search->end) {
            uint32_t c; /* an empty match behind the last match: go on one character later */
            if (search->at == search->size) return CT_OK;
            search->at += ct_utf8_next(search->text + search->at, search->size - search->at, &c);
            continue;
        }
        search->at = search->last_end = search->end;
        search->any = true;
        *found = true;
        return CT_OK;
    }
    return CT_OK;
}
