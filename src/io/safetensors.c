/* safetensors.c - checked, mapped reading of the safetensors format. See safetensors.h.
 *
 * The header is read twice by the same code: once to check it and to count, once to fill tables of
 * exactly that size. So no tree of JSON values is ever built, and a hostile header costs at most
 * twice its size. Between the passes another process may change the mapped bytes: the second pass
 * trusts no count of the first.
 */
#include "io/safetensors.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "io/scan.h"

/* bits: of one element. */
static const struct {
    char name[12];
    int bits;
} DTYPES[] = {
    {"F32", 32},    {"BF16", 16},   {"F16", 16},        {"I64", 64},        {"I32", 32},
    {"U8", 8},      {"I8", 8},      {"BOOL", 8},        {"F64", 64},        {"I16", 16},
    {"U16", 16},    {"U32", 32},    {"U64", 64},        {"C64", 64},        {"F8_E5M2", 8},
    {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F4", 4},
    {"F6_E2M3", 6}, {"F6_E3M2", 6},
};
enum { DTYPE_COUNT = sizeof DTYPES / sizeof *DTYPES };

struct ct_st_file {
    ct_map map;
    size_t count;
    ct_st_tensor *tensors;
    int64_t *dims;   /* every tensor's shape, one after another */
    uint32_t *order; /* tensors sorted by name; before, scratch of the checks */
    char *text;      /* names and metadata keys, each with its NUL */
};

/* How many of each a header holds: what the first pass counts and the second may use. */
typedef struct sizes {
    size_t tensors, dims, keys, text;
} sizes;

typedef struct reader {
    ct_scan scan;
    const char *where; /* names the file in errors */
    const char *data;
    size_t data_size;
    sizes used, room;
    ct_st_file *file; /* NULL in the first pass */
    ct_err *err;
} reader;

size_t ct_st_dtype_bytes(const char *dtype)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (strcmp(DTYPES[i].name, dtype) == 0) return (size_t)DTYPES[i].bits / 8;
    return 0;
}

/* The start of outside text for an error line: whole characters of its first 64 bytes. */
static const char *shown(const char *bytes, size_t size, char out[72])
{
    size_t n = size < 64 ? size : 64;
    while (n < size && n > 0 && ((unsigned char)bytes[n] & 0xC0) == 0x80) n--;
    memcpy(out, bytes, n);
    snprintf(out + n, 72 - n, "%s", n < size ? "..." : "");
    return out;
}

/* The JSON was not as expected: says what, where, and what stands there. */
static ct_status fail_scan(const reader *r, const ct_scan_text *name)
{
    char got[72], tensor[72];
    const ct_scan *s = &r->scan;
    size_t left = (size_t)(s->end - s->at);
    shown(s->at, left, got);
    return ct_fail(
        r->err, CT_ERR_FORMAT, "%s: %s%s%sexpected %s, got %s%s%s (byte %zu of the header)",
        r->where,
        name ? "tensor \"" : "header: ", name ? shown(name->bytes, name->size, tensor) : "",
        name ? "\": " : "", s->problem, left ? "\"" : "the header's end", got, left ? "\"" : "",
        (size_t)(s->at - s->begin));
}

/* Keeps a resolved copy of text with its NUL; *out is NULL in the first pass. */
static ct_status keep_text(reader *r, ct_scan_text text, const char **out)
{
    char name[72];
    *out = NULL;
    size_t at = r->used.text;
    if (!r->file) {
        r->used.text += text.size + 1; /* escapes only become shorter */
        return CT_OK;
    }
    if (text.size + 1 > r->room.text - at)
        return ct_fail(r->err, CT_ERR_FORMAT, "%s: the header changed while it was read", r->where);
    size_t size = ct_scan_unescape(text, r->file->text + at);
    if (memchr(r->file->text + at, 0, size))
        return ct_fail(r->err, CT_ERR_UNSUPPORTED,
                       "%s: name \"%s\": a NUL character in a name is not supported", r->where,
                       shown(text.bytes, text.size, name));
    r->file->text[at + size] = 0;
    r->used.text += size + 1;
    *out = r->file->text + at;
    return CT_OK;
}

static ct_status read_metadata(reader *r)
{
    ct_scan *s = &r->scan;
    if (ct_scan_peek(s) == 'n') /* null: as in the reference library, the same as absent */
        return ct_scan_skip(s) ? CT_OK : fail_scan(r, NULL);
    ct_scan_text key, value;
    bool first = true;
    if (!ct_scan_take(s, '{')) return fail_scan(r, NULL);
    while (ct_scan_next_key(s, &first, &key)) {
        const char *kept;
        if (!ct_scan_string(s, &value)) return fail_scan(r, NULL);
        size_t at = r->used.text;
        ct_status st = keep_text(r, key, &kept);
        if (st != CT_OK) return st;
        if (r->file) {
            if (r->used.keys == r->room.keys)
                return ct_fail(r->err, CT_ERR_FORMAT, "%s: the header changed while it was read",
                               r->where);
            r->file->order[r->used.keys] = (uint32_t)at; /* fits: text is shorter than the header */
        }
        r->used.keys++;
    }
    return s->problem ? fail_scan(r, NULL) : CT_OK;
}

/* A tensor's entry as it stands, before it is checked against itself and the file. */
typedef struct entry {
    int dtype; /* index into DTYPES */
    int64_t shape[CT_ST_MAX_RANK];
    size_t rank;
    int64_t offsets[2];
} entry;

static ct_status read_dtype(reader *r, const ct_scan_text *name, entry *e)
{
    char shown_name[72], got[72];
    ct_scan_text text;
    if (!ct_scan_string(&r->scan, &text)) return fail_scan(r, name);
    for (e->dtype = 0; e->dtype < DTYPE_COUNT; e->dtype++)
        if (ct_scan_equal(text, DTYPES[e->dtype].name)) break;
    if (e->dtype == DTYPE_COUNT)
        return ct_fail(r->err, CT_ERR_FORMAT,
                       "%s: tensor \"%s\": expected a dtype such as F32, F16 or BF16, got \"%s\"",
                       r->where, shown(name->bytes, name->size, shown_name),
                       shown(text.bytes, text.size, got));
    if (DTYPES[e->dtype].bits < 8)
        return ct_fail(r->err, CT_ERR_UNSUPPORTED,
                       "%s: tensor \"%s\": elements smaller than a byte (%s) are not supported",
                       r->where, shown(name->bytes, name->size, shown_name), DTYPES[e->dtype].name);
    return CT_OK;
}

/* An array of integers; the first `max` of them go to out, *count may become larger. */
static bool read_integers(ct_scan *s, int64_t *out, size_t max, size_t *count)
{
    bool first = true;
    *count = 0;
    if (!ct_scan_take(s, '[')) return false;
    while (ct_scan_next_element(s, &first)) {
        int64_t value;
        if (!ct_scan_integer(s, &value)) return false;
        if (*count < max) out[*count] = value;
        ++*count;
    }
    return !s->problem;
}

static ct_status read_entry(reader *r, const ct_scan_text *name, entry *e)
{
    static const char *const fields[] = {"dtype", "shape", "data_offsets"};
    ct_scan *s = &r->scan;
    char shown_name[72];
    ct_scan_text key;
    size_t count;
    ct_status st = CT_OK;
    unsigned seen = 0;
    bool first = true;
    if (!ct_scan_take(s, '{')) return fail_scan(r, name);
    while (ct_scan_next_key(s, &first, &key)) {
        int field = 0;
        while (field < 3 && !ct_scan_equal(key, fields[field])) field++;
        if (field == 3) { /* unknown fields are ignored, as in the reference library */
            if (!ct_scan_skip(s)) return fail_scan(r, name);
            continue;
        }
        if (seen & 1u << field)
            return ct_fail(r->err, CT_ERR_FORMAT,
                           "%s: tensor \"%s\": expected %s once, got it twice", r->where,
                           shown(name->bytes, name->size, shown_name), fields[field]);
        seen |= 1u << field;
        if (field == 0) {
            st = read_dtype(r, name, e);
        } else if (field == 1) {
            if (!read_integers(s, e->shape, CT_ST_MAX_RANK, &e->rank)) return fail_scan(r, name);
            if (e->rank > CT_ST_MAX_RANK)
                st = ct_fail(r->err, CT_ERR_LIMIT,
                             "%s: tensor \"%s\": expected a rank of at most %d, got %zu", r->where,
                             shown(name->bytes, name->size, shown_name), CT_ST_MAX_RANK, e->rank);
        } else {
            if (!read_integers(s, e->offsets, 2, &count)) return fail_scan(r, name);
            if (count != 2)
                st = ct_fail(r->err, CT_ERR_FORMAT,
                             "%s: tensor \"%s\": expected 2 data_offsets, got %zu", r->where,
                             shown(name->bytes, name->size, shown_name), count);
        }
        if (st != CT_OK) return st;
    }
    if (s->problem) return fail_scan(r, name);
    for (int field = 0; field < 3; field++)
        if (!(seen & 1u << field))
            return ct_fail(r->err, CT_ERR_FORMAT, "%s: tensor \"%s\": expected %s, got none",
                           r->where, shown(name->bytes, name->size, shown_name), fields[field]);
    return CT_OK;
}

/* Product of the shape and its bytes; false if either overflows. Zeros do not hide an overflow
 * before them, as in the reference library. */
static bool shape_sizes(const int64_t *shape, size_t rank, size_t element, int64_t *count,
                        int64_t *bytes)
{
    *count = 1;
    for (size_t i = 0; i < rank; i++)
        if (__builtin_mul_overflow(*count, shape[i], count)) return false;
    return !__builtin_mul_overflow(*count, (int64_t)element, bytes);
}

static ct_status read_tensor(reader *r, const ct_scan_text *name)
{
    char tensor[72];
    entry e = {0};
    ct_status st = read_entry(r, name, &e);
    if (st != CT_OK) return st;
    shown(name->bytes, name->size, tensor);
    int64_t count, bytes;
    if (!shape_sizes(e.shape, e.rank, (size_t)DTYPES[e.dtype].bits / 8, &count, &bytes))
        return ct_fail(r->err, CT_ERR_FORMAT,
                       "%s: tensor \"%s\": expected a shape that fits memory, got one whose size "
                       "overflows 63 bits",
                       r->where, tensor);
    if (e.offsets[0] > e.offsets[1])
        return ct_fail(r->err, CT_ERR_FORMAT,
                       "%s: tensor \"%s\": expected data_offsets in order, got [%" PRId64
                       ", %" PRId64 "]",
                       r->where, tensor, e.offsets[0], e.offsets[1]);
    if ((uint64_t)e.offsets[1] > r->data_size)
        return ct_fail(r->err, CT_ERR_FORMAT,
                       "%s: tensor \"%s\": expected data_offsets within %zu bytes of data, got an "
                       "end of %" PRId64 "; is the file truncated?",
                       r->where, tensor, r->data_size, e.offsets[1]);
    if (e.offsets[1] - e.offsets[0] != bytes)
        return ct_fail(r->err, CT_ERR_FORMAT,
                       "%s: tensor \"%s\": expected %" PRId64
                       " bytes for its shape and dtype, got %" PRId64,
                       r->where, tensor, bytes, e.offsets[1] - e.offsets[0]);
    const char *kept;
    st = keep_text(r, *name, &kept);
    if (st != CT_OK) return st;
    if (r->file) {
        if (r->used.tensors == r->room.tensors || e.rank > r->room.dims - r->used.dims)
            return ct_fail(r->err, CT_ERR_FORMAT, "%s: the header changed while it was read",
                           r->where);
        int64_t *shape = r->file->dims + r->used.dims;
        memcpy(shape, e.shape, e.rank * sizeof *shape);
        r->file->tensors[r->used.tensors] = (ct_st_tensor){.name = kept,
                                                           .dtype = DTYPES[e.dtype].name,
                                                           .rank = (int)e.rank,
                                                           .shape = shape,
                                                           .count = count,
                                                           .data = r->data + e.offsets[0],
                                                           .size_bytes = (size_t)bytes};
    }
    r->used.tensors++;
    r->used.dims += e.rank;
    return CT_OK;
}

static ct_status read_header(reader *r)
{
    ct_scan *s = &r->scan;
    ct_scan_text name;
    bool first = true, metadata = false;
    if (!ct_scan_take(s, '{')) return fail_scan(r, NULL);
    while (ct_scan_next_key(s, &first, &name)) {
        ct_status st;
        if (!ct_scan_equal(name, "__metadata__")) {
            st = read_tensor(r, &name);
        } else if (metadata) {
            st = ct_fail(r->err, CT_ERR_FORMAT,
                         "%s: header: expected __metadata__ once, got it twice", r->where);
        } else {
            metadata = true;
            st = read_metadata(r);
        }
        if (st != CT_OK) return st;
    }
    if (s->problem || !ct_scan_finish(s)) return fail_scan(r, NULL);
    return CT_OK;
}

static int by_text(const void *a, const void *b, void *text)
{
    const char *base = text;
    return strcmp(base + *(const uint32_t *)a, base + *(const uint32_t *)b);
}

static int by_place(const void *a, const void *b, void *tensors)
{
    const ct_st_tensor *x = (const ct_st_tensor *)tensors + *(const uint32_t *)a;
    const ct_st_tensor *y = (const ct_st_tensor *)tensors + *(const uint32_t *)b;
    const char *x_begin = x->data, *y_begin = y->data;
    if (x_begin != y_begin) return x_begin < y_begin ? -1 : 1;
    return (x->size_bytes > y->size_bytes) - (x->size_bytes < y->size_bytes);
}

static int by_name(const void *a, const void *b, void *tensors)
{
    const ct_st_tensor *x = (const ct_st_tensor *)tensors + *(const uint32_t *)a;
    const ct_st_tensor *y = (const ct_st_tensor *)tensors + *(const uint32_t *)b;
    return strcmp(x->name, y->name);
}

/* Metadata keys must differ; their places in the text stand in file->order. */
static ct_status check_metadata(const reader *r)
{
    ct_st_file *file = r->file;
    size_t n = r->used.keys;
    char key[72];
    if (n == 0) return CT_OK;
    qsort_r(file->order, n, sizeof *file->order, by_text, file->text);
    for (size_t i = 1; i < n; i++) {
        const char *text = file->text + file->order[i];
        if (strcmp(file->text + file->order[i - 1], text) == 0)
            return ct_fail(r->err, CT_ERR_FORMAT,
                           "%s: __metadata__: expected each key once, got \"%s\" twice", r->where,
                           shown(text, strlen(text), key));
    }
    return CT_OK;
}

/* The tensors must tile the data: no overlap, no hole, nothing after the last one. Leaves the order
 * by name behind, which must be strict. */
static ct_status check_tensors(const reader *r)
{
    ct_st_file *file = r->file;
    size_t n = file->count;
    char name[72];
    for (size_t i = 0; i < n; i++) file->order[i] = (uint32_t)i;
    if (n > 0) qsort_r(file->order, n, sizeof *file->order, by_place, file->tensors);
    const char *end = r->data;
    for (size_t i = 0; i < n; i++) {
        const ct_st_tensor *t = &file->tensors[file->order[i]];
        const char *begin = t->data;
        if (begin != end)
            return ct_fail(r->err, CT_ERR_FORMAT,
                           "%s: tensor \"%s\": expected its data at offset %td, got %td (%s)",
                           r->where, shown(t->name, strlen(t->name), name), end - r->data,
                           begin - r->data, begin < end ? "tensors overlap" : "a hole before it");
        end = begin + t->size_bytes;
    }
    if ((size_t)(end - r->data) != r->data_size)
        return ct_fail(r->err, CT_ERR_FORMAT,
                       "%s: expected %td bytes of data for all tensors, got %zu: bytes after the "
                       "last tensor",
                       r->where, end - r->data, r->data_size);
    if (n > 0) qsort_r(file->order, n, sizeof *file->order, by_name, file->tensors);
    for (size_t i = 1; i < n; i++) {
        const char *text = file->tensors[file->order[i]].name;
        if (strcmp(file->tensors[file->order[i - 1]].name, text) == 0)
            return ct_fail(r->err, CT_ERR_FORMAT, "%s: expected each tensor once, got \"%s\" twice",
                           r->where, shown(text, strlen(text), name));
    }
    return CT_OK;
}

/* One block for the file object and all its tables, in falling order of alignment. */
static ct_st_file *file_new(const sizes *room)
{
    size_t order = room->tensors > room->keys ? room->tensors : room->keys;
    /* Cannot overflow: every count is below CT_ST_MAX_HEADER. */
    ct_st_file *file = malloc(sizeof *file + room->tensors * sizeof(ct_st_tensor) +
                              room->dims * sizeof(int64_t) + order * sizeof(uint32_t) + room->text);
    if (!file) return NULL;
    *file = (ct_st_file){.count = room->tensors};
    file->tensors = (ct_st_tensor *)(file + 1);
    file->dims = (int64_t *)(file->tensors + room->tensors);
    file->order = (uint32_t *)(file->dims + room->dims);
    file->text = (char *)(file->order + order);
    return file;
}

ct_status ct_st_open_bytes(const void *bytes, size_t size, const char *where, ct_st_file **out,
                           ct_err *err)
{
    *out = NULL;
    if (size < 8)
        return ct_fail(err, CT_ERR_FORMAT,
                       "%s: expected at least 8 bytes, got %zu; is the file truncated?", where,
                       size);
    const unsigned char *p = bytes;
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | p[i];
    if (length > CT_ST_MAX_HEADER)
        return ct_fail(err, CT_ERR_LIMIT,
                       "%s: expected a header of at most %d bytes, got %" PRIu64
                       "; is this a safetensors file?",
                       where, CT_ST_MAX_HEADER, length);
    if (length > size - 8)
        return ct_fail(err, CT_ERR_FORMAT,
                       "%s: expected a header of %" PRIu64
                       " bytes, got %zu bytes; is the file truncated?",
                       where, length, size - 8);
    if (!ct_utf8_valid(p + 8, (size_t)length))
        return ct_fail(err, CT_ERR_FORMAT, "%s: header: expected UTF-8, got other bytes", where);

    ct_status st = CT_OK;
    reader r = {.where = where, .err = err};
    r.data = (const char *)p + 8 + length;
    r.data_size = size - 8 - (size_t)length;
    r.scan = ct_scan_start(p + 8, (size_t)length);
    CT_TRY(read_header(&r));
    r.room = r.used;
    r.used = (sizes){0};
    r.file = file_new(&r.room);
    if (!r.file) {
        st = ct_fail_memory(err, where, r.room.tensors * sizeof(ct_st_tensor) + r.room.text);
        goto done;
    }
    r.scan = ct_scan_start(p + 8, (size_t)length);
    CT_TRY(read_header(&r));
    r.file->count = r.used.tensors;
    CT_TRY(check_metadata(&r));
    CT_TRY(check_tensors(&r));
    *out = r.file;
    r.file = NULL;
done:
    free(r.file);
    return st;
}

ct_status ct_st_open(const char *path, ct_st_file **out, ct_err *err)
{
    *out = NULL;
    ct_map map;
    ct_status st = ct_map_open(path, &map, err);
    if (st != CT_OK) return st;
    st = ct_st_open_bytes(map.data, map.size, path, out, err);
    if (st == CT_OK) (*out)->map = map;
    else ct_map_close(&map);
    return st;
}

void ct_st_close(ct_st_file *file)
{
    if (!file) return;
    ct_map_close(&file->map);
    free(file);
}

ct_file_id ct_st_id(const ct_st_file *file)
{
    return file->map.id;
}

size_t ct_st_count(const ct_st_file *file)
{
    return file->count;
}

const ct_st_tensor *ct_st_get(const ct_st_file *file, size_t i)
{
    CT_ASSERT(i < file->count);
    return &file->tensors[i];
}

const ct_st_tensor *ct_st_find(const ct_st_file *file, const char *name)
{
    size_t low = 0, high = file->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const ct_st_tensor *t = &file->tensors[file->order[middle]];
        int order = strcmp(name, t->name);
        if (order == 0) return t;
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}
