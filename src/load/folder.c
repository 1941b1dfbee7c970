/* folder.c - a model folder's shards and the index over them. See load.h.
 *
 * Owns opening: model.safetensors alone, or the index and its shards, which must agree. What is
 * done with the tensors then stands in tensors.c, their hash in weights_hash.c.
 */
#include "load/folder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/json.h"

static const char SINGLE[] = "model.safetensors", INDEX[] = "model.safetensors.index.json";
enum { INDEX_MAX_BYTES = 64 << 20 };

static int by_name(const void *a, const void *b)
{
    return strcmp(((const folder_tensor *)a)->st->name, ((const folder_tensor *)b)->st->name);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static ct_status open_shard(ct_folder *folder, const char *name, ct_err *err)
{
    ct_status st = CT_OK;
    char *path = ct_path_join(folder->path, name, err);
    folder_shard *shard = &folder->shards[folder->shard_count];
    *shard = (folder_shard){.name = ct_strdup(name, err)};
    if (!path || !shard->name) st = CT_ERR_MEMORY;
    else st = ct_st_open(path, &shard->file, err);
    folder->shard_count++; /* a shard that failed is closed with the folder */
    free(path);
    return st;
}

static ct_status make_table(ct_folder *folder, ct_err *err)
{
    size_t count = 0;
    for (size_t s = 0; s < folder->shard_count; s++) count += ct_st_count(folder->shards[s].file);
    folder->tensors = calloc(count + 1, sizeof *folder->tensors);
    if (!folder->tensors)
        return ct_fail_memory(err, folder->path, (count + 1) * sizeof *folder->tensors);
    for (size_t s = 0; s < folder->shard_count; s++)
        for (size_t i = 0; i < ct_st_count(folder->shards[s].file); i++) {
            folder_tensor *t = &folder->tensors[folder->count++];
            t->st = ct_st_get(folder->shards[s].file, i);
            t->shard = &folder->shards[s];
        }
    qsort(folder->tensors, count, sizeof *folder->tensors, by_name);
    return CT_OK;
}

static ct_status open_single(ct_folder *folder, ct_err *err)
{
    folder->shards = calloc(1, sizeof *folder->shards);
    if (!folder->shards) return ct_fail_memory(err, folder->path, sizeof *folder->shards);
    return open_shard(folder, SINGLE, err);
}

/* A shard is a file of this folder: its name must not lead anywhere else. */
static bool is_plain_name(const char *name)
{
    return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* The distinct file names of the index, sorted; *names is the caller's, its strings the map's. */
static ct_status list_shards(json_t *map, const char *where, const char ***names, size_t *count,
                             ct_err *err)
{
    const char *tensor;
    json_t *value;
    *count = 0;
    *names = calloc(json_object_size(map) + 1, sizeof **names);
    if (!*names) return ct_fail_memory(err, where, json_object_size(map) * sizeof **names);
    json_object_foreach(map, tensor, value)
    {
        const char *name = json_string_value(value);
        if (!name)
            return ct_fail(err, CT_ERR_FORMAT,
                           "%s: weight_map: \"%s\": expected a file name, got another value", where,
                           tensor);
        if (!is_plain_name(name))
            return ct_fail(
                err, CT_ERR_VALUE,
                "%s: weight_map: \"%s\": expected the name of a file in this folder, got "
                "\"%s\"",
                where, tensor, name);
        (*names)[(*count)++] = name;
    }
    qsort(*names, *count, sizeof **names, by_text);
    size_t distinct = 0;
    for (size_t i = 0; i < *count; i++)
        if (distinct == 0 || strcmp((*names)[distinct - 1], (*names)[i]) != 0)
            (*names)[distinct++] = (*names)[i];
    *count = distinct;
    if (distinct == 0)
        return ct_fail(err, CT_ERR_VALUE, "%s: weight_map: expected tensors, got none", where);
    if (distinct > CT_FOLDER_MAX_SHARDS)
        return ct_fail(err, CT_ERR_LIMIT, "%s: weight_map: expected at most %d shards, got %zu",
                       where, CT_FOLDER_MAX_SHARDS, distinct);
    return CT_OK;
}

/* Every tensor stands in exactly the shard that the index names for it. */
static ct_status check_map(const ct_folder *folder, json_t *map, const char *where, ct_err *err)
{
    for (size_t i = 0; i < folder->count; i++) {
        const folder_tensor *t = &folder->tensors[i];
        const char *named = json_string_value(json_object_get(map, t->st->name));
        if (!named)
            return ct_fail(err, CT_ERR_VALUE,
                           "%s: tensor \"%s\" of %s: expected it in weight_map, got none", where,
                           t->st->name, t->shard->name);
        if (strcmp(named, t->shard->name) != 0)
            return ct_fail(err, CT_ERR_VALUE,
                           "%s: tensor \"%s\": expected it in %s alone, got it in %s too", where,
                           t->st->name, named, t->shard->name);
    }
    if (folder->count == json_object_size(map)) return CT_OK;
    const char *name;
    json_t *value;
    json_object_foreach(map, name, value)
    {
        if (!folder_find(folder, name))
            return ct_fail(err, CT_ERR_NOT_FOUND, "%s: tensor \"%s\": expected it in %s, got none",
                           where, name, json_string_value(value));
    }
    return CT_OK;
}

/* Some writers give total_size as a real number. */
static ct_status check_total(const ct_folder *folder, const json_t *index, const char *where,
                             ct_err *err)
{
    const json_t *metadata = json_object_get(index, "metadata");
    if (!metadata || json_is_null(metadata)) return CT_OK;
    if (!json_is_object(metadata))
        return ct_fail(err, CT_ERR_FORMAT, "%s: metadata: expected an object, got another value",
                       where);
    uint64_t total = 0;
    for (size_t i = 0; i < folder->count; i++) total += folder->tensors[i].st->size_bytes;
    double claimed = (double)total;
    ct_status st = ct_json_real(metadata, "total_size", false, 0, 0x1p62, where, &claimed, err);
    if (st != CT_OK) return st;
    if (claimed != (double)total)
        return ct_fail(err, CT_ERR_VALUE,
                       "%s: total_size: expected %" PRIu64 " bytes as in the shards, got %.0f",
                       where, total, claimed);
    return CT_OK;
}

static ct_status open_sharded(ct_folder *folder, const char *path, ct_err *err)
{
    ct_status st = CT_OK;
    json_t *index = NULL;
    const char **names = NULL;
    size_t count;
    CT_TRY(ct_json_open(path, INDEX_MAX_BYTES, &index, err));
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map)) {
        st = ct_fail(err, map ? CT_ERR_FORMAT : CT_ERR_NOT_FOUND,
                     "%s: weight_map: expected an object, got %s", path,
                     map ? "another value" : "none");
        goto done;
    }
    CT_TRY(list_shards(map, path, &names, &count, err));
    folder->shards = calloc(count, sizeof *folder->shards);
    if (!folder->shards) {
        st = ct_fail_memory(err, path, count * sizeof *folder->shards);
        goto done;
    }
    for (size_t i = 0; i < count; i++) {
        st = open_shard(folder, names[i], err);
        if (st == CT_ERR_NOT_FOUND) st = ct_fail_context(err, st, "%s: a shard is missing", path);
        if (st != CT_OK) goto done;
    }
    CT_TRY(make_table(folder, err));
    CT_TRY(check_map(folder, map, path, err));
    CT_TRY(check_total(folder, index, path, err));
done:
    json_decref(index);
    free(names);
    return st;
}

ct_status ct_folder_open(const char *dir, ct_folder **out, ct_err *err)
{
    *out = NULL;
    ct_status st = CT_OK;
    char *single = NULL, *index = NULL;
    ct_folder *folder = calloc(1, sizeof *folder);
    if (!folder) return ct_fail_memory(err, dir, sizeof *folder);
    folder->path = ct_strdup(dir, err);
    single = ct_path_join(dir, SINGLE, err);
    index = ct_path_join(dir, INDEX, err);
    if (!folder->path || !single || !index) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    if (access(single, F_OK) == 0) {
        CT_TRY(open_single(folder, err));
        CT_TRY(make_table(folder, err));
    } else if (access(index, F_OK) == 0) {
        CT_TRY(open_sharded(folder, index, err));
    } else {
        st = ct_fail(err, CT_ERR_NOT_FOUND,
                     "%s: expected %s or %s, got neither; is this a model folder?", dir, SINGLE,
                     INDEX);
        goto done;
    }
    *out = folder;
    folder = NULL;
done:
    free(single);
    free(index);
    ct_folder_close(folder);
    return st;
}

void ct_folder_close(ct_folder *folder)
{
    if (!folder) return;
    for (size_t i = 0; i < folder->count; i++) free(atomic_load(&folder->tensors[i].aligned));
    for (size_t i = 0; i < folder->shard_count; i++) {
        ct_st_close(folder->shards[i].file);
        free(folder->shards[i].name);
    }
    free(folder->shards);
    free(folder->tensors);
    free(folder->path);
    free(folder);
}

folder_tensor *folder_find(const ct_folder *folder, const char *name)
{
    size_t low = 0, high = folder->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(name, folder->tensors[middle].st->name);
        if (order == 0) return &folder->tensors[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}
