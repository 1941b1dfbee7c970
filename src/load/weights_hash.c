/* weights_hash.c - the hash of a folder's weights, remembered between runs. See load.h.
 *
 * Owns the cache: one small file for each state of a folder, named by a hash of config.json's bytes
 * and of every shard's device, inode, size and times. A state's file is never changed, so there is
 * nothing to lock and nothing to invalidate.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/buf.h"
#include "io/file.h"
#include "load/folder.h"

static const char SCHEME[] = "cortado weights 1"; /* changes with anything that is hashed below */

/* The place of the cache's file for this state, or NULL if there is no cache. */
static char *cache_path(const ct_folder *folder, ct_hash config, bool make)
{
    char *path = NULL, *dir = NULL, hex[CT_HASH_HEX];
    const char *root = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    /* The XDG specification: a relative path is to be ignored. */
    if (root && *root == '/') dir = ct_strf(NULL, "%s/cortado/weights", root);
    else if (home && *home == '/') dir = ct_strf(NULL, "%s/.cache/cortado/weights", home);
    ct_hasher *hasher = ct_hasher_new();
    if (!dir || !hasher || (make && ct_dir_make(dir, NULL) != CT_OK)) goto done;
    ct_hasher_add_text(hasher, SCHEME);
    ct_hasher_add(hasher, &config, sizeof config);
    for (size_t i = 0; i < folder->shard_count; i++) {
        ct_file_id id = ct_st_id(folder->shards[i].file);
        ct_hasher_add_text(hasher, folder->shards[i].name);
        ct_hasher_add(hasher, &id, sizeof id);
    }
    ct_hash_hex(ct_hasher_get(hasher), hex);
    path = ct_path_join(dir, hex, NULL);
done:
    ct_hasher_free(hasher);
    free(dir);
    return path;
}

/* A file changed so recently may be changed again without its times telling: not remembered. */
static bool is_settled(const ct_folder *folder)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t limit = ((int64_t)now.tv_sec - 2) * 1000000000 + now.tv_nsec;
    for (size_t i = 0; i < folder->shard_count; i++) {
        ct_file_id id = ct_st_id(folder->shards[i].file);
        if (id.modified_ns > limit || id.changed_ns > limit) return false;
    }
    return true;
}

static bool recall(const char *path, char hex[CT_HASH_HEX])
{
    char *bytes;
    size_t size;
    if (ct_file_read(path, CT_HASH_HEX, &bytes, &size, NULL) != CT_OK) return false;
    bool good = size == CT_HASH_HEX && bytes[size - 1] == '\n' &&
                strspn(bytes, "0123456789abcdef") == CT_HASH_HEX - 1;
    if (good) {
        memcpy(hex, bytes, CT_HASH_HEX - 1);
        hex[CT_HASH_HEX - 1] = 0;
    }
    free(bytes);
    return good;
}

static void remember(const char *path, const char *hex)
{
    char line[CT_HASH_HEX + 1];
    memcpy(line, hex, CT_HASH_HEX - 1);
    line[CT_HASH_HEX - 1] = '\n';
    (void)!ct_file_write(path, line, CT_HASH_HEX, NULL);
}

/* Numbers are hashed as little-endian 64-bit words: the hash is the same on every machine that the
 * format's own little-endian data is read on. */
static ct_status hash_all(const ct_folder *folder, ct_hash config, char hex[CT_HASH_HEX],
                          ct_err *err)
{
    ct_hasher *hasher = ct_hasher_new();
    if (!hasher) return ct_fail_memory(err, folder->path, 1024);
    ct_hasher_add_text(hasher, SCHEME);
    ct_hasher_add(hasher, &config, sizeof config);
    for (size_t i = 0; i < folder->count; i++) {
        const ct_st_tensor *t = folder->tensors[i].st;
        int64_t rank = t->rank;
        ct_hasher_add_text(hasher, t->name);
        ct_hasher_add_text(hasher, t->dtype);
        ct_hasher_add(hasher, &rank, sizeof rank);
        ct_hasher_add(hasher, t->shape, (size_t)t->rank * sizeof *t->shape);
        ct_hasher_add(hasher, t->data, t->size_bytes);
    }
    ct_hash_hex(ct_hasher_get(hasher), hex);
    ct_hasher_free(hasher);
    return CT_OK;
}

ct_status ct_folder_hash(ct_folder *folder, const char **hex, ct_err *err)
{
    *hex = folder->hash;
    if (*folder->hash) return CT_OK;
    ct_status st = CT_OK;
    char *config_path = NULL, *config = NULL, *cache = NULL;
    size_t size;
    config_path = ct_path_join(folder->path, "config.json", err);
    if (!config_path) return CT_ERR_MEMORY;
    CT_TRY(ct_file_read(config_path, CT_CONFIG_MAX_BYTES, &config, &size, err));
    ct_hash config_hash = ct_hash_bytes(config, size);
    cache = cache_path(folder, config_hash, false);
    if (cache && recall(cache, folder->hash)) goto done;
    CT_TRY(hash_all(folder, config_hash, folder->hash, err));
    if (is_settled(folder)) {
        free(cache);
        cache = cache_path(folder, config_hash, true);
        if (cache) remember(cache, folder->hash);
    }
done:
    free(config_path);
    free(config);
    free(cache);
    if (st != CT_OK) *hex = NULL;
    return st;
}
