/* haystack.c - reading the haystack. See haystack.h. */
#include "task/haystack.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/file.h"
#include "task/text.h"

/* Adds a file's text up to the limit; *whole becomes false if some of it is left. */
static ct_status read_one(const char *path, size_t max_bytes, ct_buf *text, bool *whole,
                          ct_err *err)
{
    ct_map map = {0};
    ct_status st = ct_map_open(path, &map, err);
    if (st != CT_OK) return st;
    const char *bytes = (const char *)map.data;
    size_t size = map.size, room = max_bytes - text->size;
    if (size > room) {
        size = room;
        while (size && ((unsigned char)bytes[size] & 0xC0) == 0x80) size--;
        *whole = false;
    }
    CT_TRY(ct_text_check(bytes, size, path, err));
    for (size_t i = 0; i < size;) {
        const char *cr = memchr(bytes + i, '\r', size - i);
        size_t run = cr ? (size_t)(cr - bytes) - i : size - i;
        CT_TRY(ct_buf_add(text, bytes + i, run, err));
        i += run;
        if (!cr) break;
        CT_TRY(ct_buf_add(text, "\n", 1, err));
        i += i + 1 < map.size && bytes[i + 1] == '\n' ? 2 : 1;
    }
done:
    ct_map_close(&map);
    return st;
}

static int is_text_file(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return entry->d_name[0] != '.' && length > 4 && !strcmp(entry->d_name + length - 4, ".txt");
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name); /* alphasort would ask the locale */
}

static ct_status read_folder(const char *path, size_t max_bytes, ct_buf *text, bool *whole,
                             ct_err *err)
{
    ct_status st = CT_OK;
    struct dirent **entries = NULL;
    char *file = NULL;
    int count = scandir(path, &entries, is_text_file, by_bytes);
    if (count < 0) return ct_fail_errno(err, "%s: haystack folder", path);
    if (count == 0) {
        st = ct_fail(err, CT_ERR_NOT_FOUND,
                     "%s: expected a haystack folder with *.txt files, got none", path);
        goto done;
    }
    for (int i = 0; i < count && *whole; i++) {
        file = ct_path_join(path, entries[i]->d_name, err);
        if (!file) {
            st = CT_ERR_MEMORY;
            goto done;
        }
        CT_TRY(read_one(file, max_bytes, text, whole, err));
        free(file);
        file = NULL;
    }
done:
    for (int i = 0; i < count; i++) free(entries[i]);
    free(entries);
    free(file);
    return st;
}

ct_status ct_haystack_read(const char *const *paths, size_t n_paths, size_t max_bytes, ct_buf *text,
                           bool *whole, ct_err *err)
{
    ct_status st = CT_OK;
    *whole = true;
    for (size_t i = 0; i < n_paths && *whole; i++) {
        struct stat info;
        bool folder = stat(paths[i], &info) == 0 && S_ISDIR(info.st_mode);
        CT_TRY(folder ? read_folder(paths[i], max_bytes, text, whole, err)
                      : read_one(paths[i], max_bytes, text, whole, err));
    }
done:
    return st;
}
