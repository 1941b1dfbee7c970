/* grid.c - even grids and lists of whole numbers. See grid.h. */
#include "task/grid.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "task/text.h"

static const int64_t EXACT = INT64_C(1) << 53; /* whole numbers up to here are exact in a double */

ct_status ct_grid_linspace(int64_t from, int64_t to, int64_t count, const char *what,
                           int64_t **values, ct_err *err)
{
    *values = NULL;
    if (count < 1)
        return ct_fail(err, CT_ERR_VALUE, "%s: expected a count of at least 1, got %" PRId64, what,
                       count);
    if (count > CT_GRID_MAX)
        return ct_fail(err, CT_ERR_LIMIT, "%s: expected a count of at most %d, got %" PRId64, what,
                       CT_GRID_MAX, count);
    if (from < -EXACT || from > EXACT || to < -EXACT || to > EXACT)
        return ct_fail(err, CT_ERR_VALUE,
                       "%s: expected ends between -2^53 and 2^53, got %" PRId64 " and %" PRId64,
                       what, from, to);
    size_t n = (size_t)count;
    int64_t *out = malloc(n * sizeof *out);
    if (!out) return ct_fail_memory(err, what, n * sizeof *out);
    double step = n > 1 ? ((double)to - (double)from) / (double)(n - 1) : 0;
    for (size_t i = 0; i < n; i++) {
        /* volatile: numpy rounds the product before it adds; a fused multiply-add would not. */
        volatile double product = (double)i * step;
        out[i] = (int64_t)nearbyint(product + (double)from);
    }
    if (n > 1) out[n - 1] = to;
    *values = out;
    return CT_OK;
}

static ct_status malformed(const char *text, const char *what, ct_err *err)
{
    return ct_fail(err, CT_ERR_USAGE,
                   "%s: expected whole numbers such as 1,2,3 or FROM:TO:COUNT, got \"%s\"", what,
                   ct_text_quote(text, strlen(text)).text);
}

/* Reads one whole number and the blanks around it; *text moves behind them. */
static bool read_number(const char **text, int64_t *value, bool *overflow)
{
    const char *s = *text;
    while (*s == ' ') s++;
    if (!(*s >= '0' && *s <= '9') && !(*s == '-' && s[1] >= '0' && s[1] <= '9')) return false;
    char *end;
    errno = 0;
    long long number = strtoll(s, &end, 10);
    if (errno == ERANGE) *overflow = true;
    *value = number;
    while (*end == ' ') end++;
    *text = end;
    return true;
}

ct_status ct_grid_parse(const char *text, const char *what, int64_t min, int64_t max,
                        int64_t **values, size_t *count, ct_err *err)
{
    *values = NULL;
    *count = 0;
    size_t room = 1;
    char separator = 0; /* the first one decides between the two forms */
    for (const char *s = text; *s; s++)
        if (*s == ',' || *s == ':') {
            if (!separator) separator = *s;
            if (*s != separator) return malformed(text, what, err);
            room++;
        }
    if (separator == ':' && room != 3) return malformed(text, what, err);
    if (room > CT_GRID_MAX)
        return ct_fail(err, CT_ERR_LIMIT, "%s: expected at most %d numbers, got %zu", what,
                       CT_GRID_MAX, room);
    ct_status st = CT_OK;
    int64_t *list = malloc(room * sizeof *list);
    if (!list) return ct_fail_memory(err, what, room * sizeof *list);
    const char *s = text;
    for (size_t i = 0; i < room; i++) {
        const char *start = s;
        bool overflow = false;
        if (!read_number(&s, &list[i], &overflow) || *s != (i + 1 < room ? separator : 0)) {
            st = malformed(text, what, err);
            goto done;
        }
        const char *end = s;
        if (*s) s++;
        bool is_count = separator == ':' && i == 2;
        if (overflow || (!is_count && (list[i] < min || list[i] > max))) {
            st = ct_fail(err, CT_ERR_VALUE,
                         "%s: expected numbers from %" PRId64 " to %" PRId64 ", got %s", what, min,
                         max, ct_text_quote(start, (size_t)(end - start)).text);
            goto done;
        }
    }
    if (separator == ':') {
        int64_t *grid;
        CT_TRY(ct_grid_linspace(list[0], list[1], list[2], what, &grid, err));
        *count = (size_t)list[2];
        free(list);
        list = grid;
    } else {
        *count = room;
    }
    *values = list;
    list = NULL;
done:
    free(list);
    return st;
}
