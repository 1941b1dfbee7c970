/* hash.h - 128-bit content hashes (XXH3) and their hex form.
 *
 * Owns hashing for cell keys, weights, tokenizers and studies. Not cryptographic.
 */
#ifndef CT_BASE_HASH_H
#define CT_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct ct_hash {
    uint64_t high, low;
} ct_hash;

enum { CT_HASH_HEX = 33 }; /* 32 hex digits and the NUL */

/* XXH3-128 of the bytes. */
ct_hash ct_hash_bytes(const void *bytes, size_t count);
/* Writes 32 lower-case hex digits, high half first, and a NUL. */
void ct_hash_hex(ct_hash hash, char out[CT_HASH_HEX]);

/* Streaming form. ct_hasher_new gives NULL if out of memory. */
typedef struct ct_hasher ct_hasher;
ct_hasher *ct_hasher_new(void);
void ct_hasher_add(ct_hasher *hasher, const void *bytes, size_t count);
/* Adds the length, then the bytes, so that ("ab","c") differs from ("a","bc"). */
void ct_hasher_add_text(ct_hasher *hasher, const char *text);
ct_hash ct_hasher_get(const ct_hasher *hasher);
void ct_hasher_free(ct_hasher *hasher);

#endif
