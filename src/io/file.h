/* file.h - mapped files and whole-file reads and writes.
 *
 * Owns every open of an input file: regular files only (a directory, FIFO or link loop is an
 * error).
 */
#ifndef CT_IO_FILE_H
#define CT_IO_FILE_H

#include <stddef.h>
#include <stdint.h>

#include <cortado/status.h>

typedef struct ct_map {
    const unsigned char *data; /* NULL if size is 0 */
    size_t size;
    char *path;
} ct_map;

/* Maps a regular file read-only. */
ct_status ct_map_open(const char *path, ct_map *out, ct_err *err) CT_CHECK;
void ct_map_close(ct_map *map);
/* Reads a regular file of at most max_bytes; *data is NUL-terminated and the caller's. */
ct_status ct_file_read(const char *path, size_t max_bytes, char **data, size_t *size,
                       ct_err *err) CT_CHECK;
/* Writes a file whole: to a temporary name beside it, fsync, rename. */
ct_status ct_file_write(const char *path, const void *data, size_t size, ct_err *err) CT_CHECK;
/* Makes a directory and its parents. */
ct_status ct_dir_make(const char *path, ct_err *err) CT_CHECK;
/* dir/name as a new string, or NULL with err filled. */
char *ct_path_join(const char *dir, const char *name, ct_err *err);

#endif
