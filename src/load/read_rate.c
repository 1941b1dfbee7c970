/* read_rate.c - how fast weights come from storage. See load.h.
 *
 * Pieces lie a fixed stride apart over all tensors; those that the page cache holds (mincore) are
 * passed over, the others are touched page by page, as a product would do it.
 */
#define _DEFAULT_SOURCE /* mincore */
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "load/folder.h"

enum { PIECE = 4 << 20, PIECES_LOOKED_AT = 1024 };

/* The pages of [data, data + PIECE) that are in memory, of `pages`; -1 if that cannot be told. */
static int pages_in_memory(const unsigned char *data, size_t page, size_t pages)
{
    unsigned char held[PIECE / 4096 + 1];
    int count = 0;
    if (pages > sizeof held) return -1;
    /* mincore's argument is not const; it only looks. */
    if (mincore((void *)(uintptr_t)data, pages * page, held) != 0) return -1;
    for (size_t i = 0; i < pages; i++) count += held[i] & 1;
    return count;
}

double ct_folder_read_rate(const ct_folder *folder, size_t max_bytes, double max_ms)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), total = 0, read = 0;
    for (size_t i = 0; i < folder->count; i++) total += folder->tensors[i].st->size_bytes;
    size_t stride = total / PIECES_LOOKED_AT + PIECE, next = 0, base = 0;
    double spent_ms = 0;
    volatile unsigned char sink = 0;
    for (size_t i = 0; i < folder->count; i++) {
        const ct_st_tensor *t = folder->tensors[i].st;
        for (; next < base + t->size_bytes; next += stride) {
            if (read >= max_bytes || spent_ms >= max_ms) goto done;
            const unsigned char *at = (const unsigned char *)t->data + (next - base);
            at += (page - (uintptr_t)at % page) % page;
            const unsigned char *end = (const unsigned char *)t->data + t->size_bytes;
            if (at + PIECE > end) continue;
            size_t pages = PIECE / page;
            if (pages_in_memory(at, page, pages) != 0) continue;
            double start = ct_now_ms();
            for (size_t p = 0; p < pages; p++) sink ^= at[p * page];
            spent_ms += ct_now_ms() - start;
            read += PIECE;
        }
        base += t->size_bytes;
    }
done:
    return read && spent_ms > 0 ? (double)read / spent_ms * 1e3 : 0;
}
