/* folder.h - model folders that the tests of load make. */
#ifndef CT_TESTS_LOAD_FOLDER_H
#define CT_TESTS_LOAD_FOLDER_H

#include "io/file.h"
#include "io/safetensors.h"
#include "unit/io/temp.h"

/* Makes DIR and writes one file of n F32 tensors [2], named by the letters of names, holding the
 * letter's code and that plus one half. */
static inline void folder_file(const char *dir, const char *file, const char *names)
{
    ct_err err = {0};
    static const int64_t two[1] = {2};
    static char texts[64][2];
    static float values[64][2];
    ct_st_out out[64];
    size_t n = strlen(names);
    char path[600];
    for (size_t i = 0; i < n; i++) {
        texts[i][0] = names[i];
        values[i][0] = (float)names[i];
        values[i][1] = (float)names[i] + 0.5f;
        out[i] = (ct_st_out){texts[i], "F32", 1, two, values[i], 8};
    }
    assert_ok(ct_dir_make(temp_path(dir), &err));
    snprintf(path, sizeof path, "%s/%s", dir, file);
    assert_ok(ct_st_write(temp_path(path), out, n, &err));
}

static inline void folder_text(const char *dir, const char *file, const char *text)
{
    ct_err err = {0};
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    assert_ok(ct_dir_make(temp_path(dir), &err));
    temp_text(path, text);
}

static inline void folder_index(const char *dir, const char *text)
{
    folder_text(dir, "model.safetensors.index.json", text);
}

#endif
