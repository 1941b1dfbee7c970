/* temp.h - a directory that a test fills and that goes away with it. */
#ifndef CT_TESTS_TEMP_H
#define CT_TESTS_TEMP_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char temp_root[512];

static inline int temp_begin(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    snprintf(temp_root, sizeof temp_root, "%s/cortado-test-XXXXXX", base && *base ? base : "/tmp");
    return mkdtemp(temp_root) ? 0 : -1;
}

static inline int temp_drop(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info, (void)kind, (void)walk;
    return remove(path);
}

static inline int temp_end(void **state)
{
    (void)state;
    return nftw(temp_root, temp_drop, 16, FTW_DEPTH | FTW_PHYS);
}

/* Path of a name in the directory, in a static buffer that the 8th next call reuses. */
static inline const char *temp_path(const char *name)
{
    static char paths[8][1024];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, 1024, "%s/%s", temp_root, name);
    return path;
}

static inline void temp_write(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(temp_path(name), "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) {
        perror(name);
        abort();
    }
}

static inline void temp_text(const char *name, const char *text)
{
    temp_write(name, text, strlen(text));
}

#endif
