/* hash.c - XXH3-128 through libxxhash. See hash.h. */
#include "base/hash.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

ct_hash ct_hash_bytes(const void *bytes, size_t count)
{
    XXH128_hash_t h = XXH3_128bits(bytes, count);
    return (ct_hash){h.high64, h.low64};
}

void ct_hash_hex(ct_hash hash, char out[CT_HASH_HEX])
{
    snprintf(out, CT_HASH_HEX, "%016llx%016llx", (unsigned long long)hash.high,
             (unsigned long long)hash.low);
}

/* ct_hasher is libxxhash's own state under our name: its allocation is aligned as XXH3 needs. */
ct_hasher *ct_hasher_new(void)
{
    XXH3_state_t *state = XXH3_createState();
    if (state) XXH3_128bits_reset(state);
    return (ct_hasher *)state;
}

void ct_hasher_add(ct_hasher *hasher, const void *bytes, size_t count)
{
    XXH3_128bits_update((XXH3_state_t *)hasher, bytes, count);
}

void ct_hasher_add_text(ct_hasher *hasher, const char *text)
{
    uint64_t count = strlen(text);
    ct_hasher_add(hasher, &count, sizeof count);
    ct_hasher_add(hasher, text, count);
}

ct_hash ct_hasher_get(const ct_hasher *hasher)
{
    XXH128_hash_t h = XXH3_128bits_digest((const XXH3_state_t *)hasher);
    return (ct_hash){h.high64, h.low64};
}

void ct_hasher_free(ct_hasher *hasher)
{
    XXH3_freeState((XXH3_state_t *)hasher);
}
