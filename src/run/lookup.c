/* lookup.c - where a study's model and haystack are, and what machine this is. See work.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/file.h"
#include "run/work.h"

static bool exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

ct_status ct_find_model(const ct_study *study, const char *model_root, char **out, ct_err *err)
{
    ct_status st = CT_OK;
    ct_buf tried = {0};
    char *beside = NULL, *dir = NULL, *config = NULL;
    beside = ct_path_join(study->dir, "../models", err);
    if (!beside) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    const char *const roots[] = {model_root, study->dir, ".", beside, CT_DATA_DIR "/models"};
    bool absolute = study->model[0] == '/';
    for (size_t i = 0; i < (absolute ? 1 : sizeof roots / sizeof *roots); i++) {
        if (!absolute && (!roots[i] || !*roots[i])) continue;
        dir = absolute ? ct_strdup(study->model, err) : ct_path_join(roots[i], study->model, err);
        config = dir ? ct_path_join(dir, "config.json", err) : NULL;
        if (!config) {
            st = CT_ERR_MEMORY;
            goto done;
        }
        if (exists(config)) {
            *out = dir;
            dir = NULL;
            goto done;
        }
        CT_TRY(ct_buf_addf(&tried, err, "%s%s", tried.size ? ", " : "", dir));
        free(dir);
        free(config);
        dir = config = NULL;
    }
    st = ct_fail(err, CT_ERR_NOT_FOUND,
                 "model: expected a folder with config.json, got none at %s (%s, line %d); "
                 "--model-root names where models are",
                 tried.data, study->path, study->model_line);
done:
    ct_buf_clear(&tried);
    free(beside);
    free(dir);
    free(config);
    return st;
}

ct_status ct_find_haystack(const ct_study *study, char ***out, ct_err *err)
{
    ct_status st = CT_OK;
    char **paths = calloc(study->n_haystack, sizeof *paths);
    if (!paths) return ct_fail_memory(err, "haystack", study->n_haystack * sizeof *paths);
    for (size_t i = 0; i < study->n_haystack; i++) {
        const char *name = study->haystack[i];
        paths[i] = name[0] == '/' ? ct_strdup(name, err) : ct_path_join(study->dir, name, err);
        if (!paths[i]) {
            st = CT_ERR_MEMORY;
            goto done;
        }
        if (!exists(paths[i]) && exists(name)) {
            free(paths[i]);
            paths[i] = ct_strdup(name, err);
            if (!paths[i]) {
                st = CT_ERR_MEMORY;
                goto done;
            }
        }
        if (!exists(paths[i])) {
            st = ct_fail(err, CT_ERR_NOT_FOUND,
                         "task.niah.haystack: expected a file or folder, got none at %s nor at %s "
                         "(%s, line %d)",
                         paths[i], name, study->path, study->haystack_line);
            goto done;
        }
    }
    *out = paths;
    paths = NULL;
done:
    for (size_t i = 0; paths && i < study->n_haystack; i++) free(paths[i]);
    free(paths);
    return st;
}

char *ct_machine(ct_err *err)
{
    char cpu[128] = "unknown CPU", line[512];
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(line, sizeof line, f)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value) continue;
        snprintf(cpu, sizeof cpu, "%s", value + 1 + strspn(value + 1, " \t"));
        cpu[strcspn(cpu, "\n")] = 0;
        break;
    }
    if (f) fclose(f);
    struct utsname kernel;
    if (uname(&kernel) != 0) memset(&kernel, 0, sizeof kernel);
    return ct_strf(err, "%s, %ld cores, %s %s %s", cpu, sysconf(_SC_NPROCESSORS_ONLN),
                   kernel.sysname, kernel.release, kernel.machine);
}
