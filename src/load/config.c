/* config.c - opening config.json and files like it. See load.h. */
#include <stdlib.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "io/file.h"
#include "io/json.h"
#include "load/load.h"

ct_status ct_config_open(const char *path, json_t **config, ct_err *err)
{
    *config = NULL;
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode))
        return ct_json_open(path, CT_CONFIG_MAX_BYTES, config, err);
    char *file = ct_path_join(path, "config.json", err);
    if (!file) return CT_ERR_MEMORY;
    ct_status st = ct_json_open(file, CT_CONFIG_MAX_BYTES, config, err);
    free(file);
    return st;
}
