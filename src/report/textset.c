/* textset.c - interning, and packing by reference to what was packed before. See textset.h. */
#include "report/textset.h"

#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/hash.h"

/* ---- interning ------------------------------------------------------------------------------- */

struct ct_textset {
    char **items;
    size_t count, capacity;
    uint32_t *slots; /* open addressing: index + 1, 0 if free */
    size_t n_slots;  /* a power of two, at least twice count */
};

ct_status ct_textset_new(ct_textset **out, ct_err *err)
{
    *out = calloc(1, sizeof **out);
    return *out ? CT_OK : ct_fail_memory(err, "texts", sizeof **out);
}

void ct_textset_free(ct_textset *texts)
{
    if (!texts) return;
    for (size_t i = 0; i < texts->count; i++) free(texts->items[i]);
    free(texts->items);
    free(texts->slots);
    free(texts);
}

static size_t slot_of(const ct_textset *t, const char *text)
{
    size_t at = (size_t)ct_hash_bytes(text, strlen(text)).low & (t->n_slots - 1);
    while (t->slots[at] && strcmp(t->items[t->slots[at] - 1], text) != 0)
        at = (at + 1) & (t->n_slots - 1);
    return at;
}

static ct_status grow(ct_textset *t, ct_err *err)
{
    size_t capacity = t->capacity ? t->capacity * 2 : 64;
    if (capacity > INT32_MAX) return ct_fail(err, CT_ERR_LIMIT, "texts: more than 2^31");
    char **items = realloc(t->items, capacity * sizeof *items);
    if (!items) return ct_fail_memory(err, "texts", capacity * sizeof *items);
    t->items = items;
    uint32_t *slots = calloc(capacity * 2, sizeof *slots);
    if (!slots) return ct_fail_memory(err, "texts", capacity * 2 * sizeof *slots);
    free(t->slots);
    t->slots = slots;
    t->n_slots = capacity * 2;
    t->capacity = capacity;
    for (size_t i = 0; i < t->count; i++) t->slots[slot_of(t, t->items[i])] = (uint32_t)i + 1;
    return CT_OK;
}

ct_status ct_textset_add(ct_textset *t, const char *text, uint32_t *index, ct_err *err)
{
    if (t->count == t->capacity) {
        ct_status st = grow(t, err);
        if (st != CT_OK) return st;
    }
    size_t at = slot_of(t, text);
    if (!t->slots[at]) {
        char *copy = ct_strdup(text, err);
        if (!copy) return CT_ERR_MEMORY;
        t->items[t->count++] = copy;
        t->slots[at] = (uint32_t)t->count;
    }
    *index = t->slots[at] - 1;
    return CT_OK;
}

size_t ct_textset_count(const ct_textset *texts)
{
    return texts->count;
}

const char *ct_textset_get(const ct_textset *texts, uint32_t index)
{
    CT_ASSERT(index < texts->count);
    return texts->items[index];
}

size_t ct_utf16_length(const char *text, size_t size)
{
    size_t units = 0;
    for (size_t i = 0; i < size;) {
        uint32_t c;
        i += ct_utf8_next(text + i, size - i, &c);
        units += c > 0xFFFF ? 2 : 1;
    }
    return units;
}

/* ---- packing --------------------------------------------------------------------------------- */

enum { BLOCK = 32, POOL_MAX = 1 << 30 };

/* Where blocks of the pool begin, by their hash; several with one hash: the first stays, and what is
 * there is compared, so that a clash costs a reference and never a byte. */
typedef struct ct_packer {
    ct_packed *out;
    uint32_t *slots; /* place in the pool + 1 */
    size_t n_slots, n_blocks, indexed;
    size_t n_pieces, piece_capacity;
    uint32_t *units; /* [pool.size] UTF-16 units before each byte */
    size_t unit_capacity, total_units;
} ct_packer;

static size_t block_slot(const ct_packer *p, const char *bytes)
{
    return (size_t)ct_hash_bytes(bytes, BLOCK).low & (p->n_slots - 1);
}

static void block_put(ct_packer *p, size_t place)
{
    const char *pool = p->out->pool.data;
    size_t at = block_slot(p, pool + place);
    while (p->slots[at] && memcmp(pool + p->slots[at] - 1, pool + place, BLOCK) != 0)
        at = (at + 1) & (p->n_slots - 1);
    if (p->slots[at]) return;
    p->slots[at] = (uint32_t)place + 1;
    p->n_blocks++;
}

static ct_status index_grow(ct_packer *p, size_t need, ct_err *err)
{
    if (need * 2 <= p->n_slots) return CT_OK;
    size_t n = p->n_slots ? p->n_slots : 1 << 12;
    while (n < need * 2) n *= 2;
    uint32_t *slots = calloc(n, sizeof *slots);
    if (!slots) return ct_fail_memory(err, "texts", n * sizeof *slots);
    free(p->slots);
    p->slots = slots;
    p->n_slots = n;
    p->n_blocks = 0;
    size_t until = p->indexed;
    for (p->indexed = 0; p->indexed < until; p->indexed++) block_put(p, p->indexed);
    return CT_OK;
}

/* The longest run of the pool that begins as text[0..size) does; 0 if shorter than a block. */
static size_t match(const ct_packer *p, const char *text, size_t size, size_t *place)
{
    if (size < BLOCK || !p->n_slots) return 0;
    const ct_buf *pool = &p->out->pool;
    for (size_t at = block_slot(p, text); p->slots[at]; at = (at + 1) & (p->n_slots - 1)) {
        size_t begin = p->slots[at] - 1;
        if (memcmp(pool->data + begin, text, BLOCK) != 0) continue;
        size_t n = BLOCK;
        while (n < size && begin + n < pool->size && pool->data[begin + n] == text[n]) n++;
        /* Never half a character. */
        while (n && n < size && ((unsigned char)text[n] & 0xC0) == 0x80) n--;
        *place = begin;
        return n;
    }
    return 0;
}

static ct_status piece_add(ct_packer *p, size_t begin, size_t end, ct_err *err)
{
    if (begin == end) return CT_OK;
    if (p->n_pieces == p->piece_capacity) {
        size_t capacity = p->piece_capacity ? p->piece_capacity * 2 : 256;
        ct_piece *pieces = realloc(p->out->pieces, capacity * sizeof *pieces);
        if (!pieces) return ct_fail_memory(err, "texts", capacity * sizeof *pieces);
        p->out->pieces = pieces;
        p->piece_capacity = capacity;
    }
    size_t last = end < p->out->pool.size ? p->units[end] : p->total_units;
    p->out->pieces[p->n_pieces++] = (ct_piece){p->units[begin], (uint32_t)(last - p->units[begin])};
    return CT_OK;
}

/* Adds bytes to the pool, with the units before each of them. */
static ct_status pool_add(ct_packer *p, const char *text, size_t size, ct_err *err)
{
    ct_buf *pool = &p->out->pool;
    if (size > POOL_MAX - pool->size)
        return ct_fail(err, CT_ERR_LIMIT, "report: expected at most 1 GiB of different text");
    if (pool->size + size > p->unit_capacity) {
        size_t capacity = p->unit_capacity ? p->unit_capacity : 4096;
        while (capacity < pool->size + size) capacity *= 2;
        uint32_t *units = realloc(p->units, capacity * sizeof *units);
        if (!units) return ct_fail_memory(err, "texts", capacity * sizeof *units);
        p->units = units;
        p->unit_capacity = capacity;
    }
    for (size_t i = 0; i < size;) {
        uint32_t c;
        size_t n = ct_utf8_next(text + i, size - i, &c);
        for (size_t b = 0; b < n; b++) p->units[pool->size + i + b] = (uint32_t)p->total_units;
        p->total_units += c > 0xFFFF ? 2 : 1;
        i += n;
    }
    return ct_buf_add(pool, text, size, err);
}

/* text is UTF-8. */
static ct_status pack_one(ct_packer *p, const char *text, size_t size, ct_err *err)
{
    ct_status st = CT_OK;
    const ct_buf *pool = &p->out->pool;
    for (size_t i = 0; i < size;) {
        size_t place = 0, fresh = i, found = 0;
        for (; i < size; i++) {
            bool begins = ((unsigned char)text[i] & 0xC0) != 0x80;
            if (begins && (found = match(p, text + i, size - i, &place))) break;
        }
        size_t begin = pool->size;
        CT_TRY(pool_add(p, text + fresh, i - fresh, err));
        CT_TRY(piece_add(p, begin, pool->size, err));
        CT_TRY(piece_add(p, place, place + found, err));
        i += found;
    }
    /* What was added is referred to by the texts after this one. */
    CT_TRY(index_grow(p, pool->size, err));
    for (; p->indexed + BLOCK <= pool->size; p->indexed++) block_put(p, p->indexed);
done:
    return st;
}

static ct_status clean_utf8(const char *text, ct_buf *out, ct_err *err)
{
    ct_status st = CT_OK;
    size_t size = strlen(text);
    out->size = 0;
    for (size_t i = 0; i < size;) {
        uint32_t c;
        char bytes[4];
        i += ct_utf8_next(text + i, size - i, &c);
        CT_TRY(ct_buf_add(out, bytes, ct_utf8_put(c, bytes), err));
    }
done:
    return st;
}

ct_status ct_textset_pack(const ct_textset *texts, const uint32_t *wanted, size_t n, ct_packed *out,
                          ct_err *err)
{
    ct_status st = CT_OK;
    ct_packer packer = {.out = out};
    ct_buf clean = {0};
    *out = (ct_packed){.n_texts = n};
    out->first = calloc(n + 1, sizeof *out->first);
    if (!out->first) return ct_fail_memory(err, "texts", (n + 1) * sizeof *out->first);
    for (size_t i = 0; i < n; i++) {
        out->first[i] = packer.n_pieces;
        CT_TRY(clean_utf8(ct_textset_get(texts, wanted[i]), &clean, err));
        CT_TRY(pack_one(&packer, clean.data ? clean.data : "", clean.size, err));
    }
    out->first[n] = packer.n_pieces;
done:
    ct_buf_clear(&clean);
    free(packer.slots);
    free(packer.units);
    if (st != CT_OK) ct_packed_clear(out);
    return st;
}

void ct_packed_clear(ct_packed *packed)
{
    ct_buf_clear(&packed->pool);
    free(packed->first);
    free(packed->pieces);
    *packed = (ct_packed){0};
}
