/* lookup.c - where a study's model and haystack are, what machine this is, and how much of its memory
 * is free. See work.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/buf.h"
#include "io/file.h"
#include "io/memory.h"
#include "run/work.h"

static bool exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

/* share/cortado/models beside the program's bin/, so that an installed tree may stand anywhere.
 * *out stays NULL if the system does not say where the program is. */
static ct_status models_of_program(char **out, ct_err *err)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) return CT_OK;
    path[n] = 0;
    for (int up = 0; up < 2; up++) { /* the program's name, and bin */
        char *slash = strrchr(path, '/');
        if (!slash) return CT_OK;
        *slash = 0;
    }
    *out = ct_path_join(path, "share/cortado/models", err);
    return *out ? CT_OK : CT_ERR_MEMORY;
}

ct_status ct_study_model_dir(const ct_study *study, size_t model, const char *model_root,
                             char **out, ct_err *err)
{
    const char *name = study->models[model].name;
    ct_status st = CT_OK;
    ct_buf tried = {0};
    /* A slip in it must not lead to a model of the same name elsewhere. */
    struct stat info;
    if (model_root && (stat(model_root, &info) != 0 || !S_ISDIR(info.st_mode)))
        return ct_fail(err, CT_ERR_NOT_FOUND, "--model-root: expected a folder, got none at %s",
                       model_root);
    char *beside = NULL, *dir = NULL, *config = NULL, *installed = NULL;
    beside = ct_path_join(study->dir, "../models", err);
    if (!beside) {
        st = CT_ERR_MEMORY;
        goto done;
    }
    CT_TRY(models_of_program(&installed, err));
    const char *const roots[] = {
        model_root,
        study->dir,
        strcmp(study->dir, ".") ? "." : NULL,
        "models",
        beside,
        installed,
        CT_DATA_DIR "/models",
    };
    bool absolute = name[0] == '/';
    for (size_t i = 0; i < (absolute ? 1 : sizeof roots / sizeof *roots); i++) {
        if (!absolute && (!roots[i] || !*roots[i])) continue;
        dir = absolute ? ct_strdup(name, err) : ct_path_join(roots[i], name, err);
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
                 tried.data, study->path, study->models[model].line);
done:
    ct_buf_clear(&tried);
    free(beside);
    free(installed);
    free(dir);
    free(config);
    return st;
}

char *ct_study_path(const ct_study *study, const char *name, ct_err *err)
{
    if (name[0] == '/') return ct_strdup(name, err);
    char *path = ct_path_join(study->dir, name, err);
    if (!path || exists(path) || !exists(name)) return path;
    free(path);
    return ct_strdup(name, err);
}

ct_status ct_study_niah_options(const ct_study *study, size_t model, bool read_twice,
                                ct_niah_options *out, ct_err *err)
{
    for (size_t i = 0; i < study->n_haystack; i++)
        if (!exists(study->haystack[i]))
            return ct_fail(err, CT_ERR_NOT_FOUND,
                           "task.niah.haystack: expected a file or folder, got none at %s (%s, "
                           "line %d)",
                           study->haystack[i], study->path, study->haystack_line);
    *out = (ct_niah_options){
        .haystack = (const char *const *)study->haystack,
        .n_haystack = study->n_haystack,
        .needle = study->needle,
        .question = study->question,
        .template_kind = study->models[model].template_kind,
        .read_twice = read_twice,
        .buffer = study->buffer,
    };
    return CT_OK;
}

int64_t ct_memory_free(void)
{
    int64_t available = ct_memory_read("").available_bytes;
    if (available >= 0) return available;
    return (int64_t)sysconf(_SC_AVPHYS_PAGES) * sysconf(_SC_PAGESIZE);
}

char *ct_machine(const char *devices, ct_err *err)
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
    return ct_strf(err, "%s, %ld cores, %s %s %s, on %s", cpu, sysconf(_SC_NPROCESSORS_ONLN),
                   kernel.sysname, kernel.release, kernel.machine, devices);
}
