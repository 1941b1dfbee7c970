/* folder.h - what a ct_folder is inside, for the files of load alone. */
#ifndef CT_LOAD_FOLDER_H
#define CT_LOAD_FOLDER_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/hash.h"
#include "io/safetensors.h"
#include "load/load.h"

typedef struct folder_shard {
    char *name; /* inside the folder */
    ct_st_file *file;
} folder_shard;

typedef struct folder_tensor {
    const ct_st_tensor *st;
    const folder_shard *shard;
    _Atomic(void *) aligned; /* a copy, once asked for, if the file holds it misaligned */
} folder_tensor;

struct ct_folder {
    char *path;
    folder_shard *shards; /* in order of names */
    size_t shard_count;
    folder_tensor *tensors; /* in order of names */
    size_t count;
    char hash[CT_HASH_HEX]; /* "" until asked for */
};

/* The tensor of that name, or NULL. */
folder_tensor *folder_find(const ct_folder *folder, const char *name);

#endif
