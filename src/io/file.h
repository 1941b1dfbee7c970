/* file.h - mapped files, whole-file reads, and writes that are whole or not at all.
 *
 * Owns every open of an input file: regular files only. A directory, FIFO, device or link loop is
 * CT_ERR_IO (a FIFO without blocking), a missing file CT_ERR_NOT_FOUND.
 */
#ifndef CT_IO_FILE_H
#define CT_IO_FILE_H

#include <stddef.h>
#include <stdint.h>

#include <cortado/status.h>

/* What tells one file's content from another's without reading it; times in ns since 1970. */
typedef struct ct_file_id {
    uint64_t device, inode, size_bytes;
    int64_t modified_ns, changed_ns;
} ct_file_id;

typedef struct ct_map {
    const unsigned char *data; /* NULL if size is 0 */
    size_t size;
    char *path;
    ct_file_id id; /* of the file that was mapped, whatever stands at `path` later */
} ct_map;

/* Maps a regular file read-only. A file that is replaced later leaves the map as it is. One that is
 * truncated in place while mapped raises SIGBUS at the first touch past its new end: a model's
 * files must not be overwritten in place while in use. */
ct_status ct_map_open(const char *path, ct_map *out, ct_err *err) CT_CHECK;
void ct_map_close(ct_map *map);
/* Reads a regular file; more than max_bytes is CT_ERR_LIMIT. *data is NUL-terminated and the
 * caller's. */
ct_status ct_file_read(const char *path, size_t max_bytes, char **data, size_t *size,
                       ct_err *err) CT_CHECK;
/* Whether a file can be written there, as far as that shows before: what exists must be a regular
 * file, since the finished one takes its place, and the folder must be there and writable. All
 * writes below begin with it; long work may, too. */
ct_status ct_file_check_target(const char *path, ct_err *err) CT_CHECK;
/* As `commit` of ct_sink_end: the file is not on the disk before ct_dir_sync. */
enum { CT_SINK_SYNC_LATER = 2 };
/* Writes a file whole: to a temporary name beside it, fsync, rename. */
ct_status ct_file_write(const char *path, const void *data, size_t size, ct_err *err) CT_CHECK;

/* The same in pieces. ct_sink_end renames (commit) or drops what was written, and frees the sink in
 * either case; NULL is allowed. After a failed write only commit 0 makes sense. */
typedef struct ct_sink ct_sink;
ct_status ct_sink_begin(const char *path, ct_sink **out, ct_err *err) CT_CHECK;
ct_status ct_sink_write(ct_sink *sink, const void *data, size_t size, ct_err *err) CT_CHECK;
ct_status ct_sink_end(ct_sink *sink, int commit, ct_err *err) CT_CHECK;

/* Makes a directory and its parents; one that exists is success. */
ct_status ct_dir_make(const char *path, ct_err *err) CT_CHECK;
/* Puts everything written into the folder's file system on the disk: once after many files that were
 * ended with CT_SINK_SYNC_LATER. */
ct_status ct_dir_sync(const char *path, ct_err *err) CT_CHECK;
/* dir/name as a new string, or NULL with err filled. */
char *ct_path_join(const char *dir, const char *name, ct_err *err);

#endif
