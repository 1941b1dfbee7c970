/* safetensors.h - the safetensors format: checked, mapped reading; writing.
 *
 * Owns the header's every check. A file is what the format says or CT_ERR_FORMAT; CT_ERR_LIMIT for
 * a header over 100,000,000 bytes or a rank over 8, CT_ERR_UNSUPPORTED for elements smaller than a
 * byte and for names with a NUL. Opening allocates at most twice the header's size and a constant.
 * Knows names and shapes, no architecture.
 */
#ifndef CT_IO_SAFETENSORS_H
#define CT_IO_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "io/file.h"
#include <cortado/status.h>

enum { CT_ST_MAX_RANK = 8, CT_ST_MAX_HEADER = 100000000 }; /* bytes, as the reference library */

typedef struct ct_st_tensor {
    const char *name;  /* UTF-8, borrowed from the file object like all below; never a path */
    const char *dtype; /* "F32", "F16", "BF16", "I32", "U8", ... as in the header */
    int rank;
    const int64_t *shape; /* [rank] */
    int64_t count;        /* product of shape */
    const void *data;     /* in the map; not necessarily aligned to the element */
    size_t size_bytes;
} ct_st_tensor;

typedef struct ct_st_file ct_st_file;

/* Bytes of one element of a dtype as named in a header; 0 for an unknown or sub-byte one. */
size_t ct_st_dtype_bytes(const char *dtype);

/* Maps and checks a file; nothing is copied. */
ct_status ct_st_open(const char *path, ct_st_file **out, ct_err *err) CT_CHECK;
/* Checks bytes in memory, borrowed until ct_st_close; `where` names them in errors (tests,
 * fuzzing). */
ct_status ct_st_open_bytes(const void *bytes, size_t size, const char *where, ct_st_file **out,
                           ct_err *err) CT_CHECK;
void ct_st_close(ct_st_file *file);
/* The file as it was mapped; all zero if it was opened from bytes. */
ct_file_id ct_st_id(const ct_st_file *file);
size_t ct_st_count(const ct_st_file *file);
/* Tensor i, in the header's order. */
const ct_st_tensor *ct_st_get(const ct_st_file *file, size_t i);
const ct_st_tensor *ct_st_find(const ct_st_file *file, const char *name); /* NULL if absent */

/* One tensor to write. */
typedef struct ct_st_out {
    const char *name, *dtype;
    int rank;
    const int64_t *shape;
    const void *data;
    size_t size_bytes;
} ct_st_out;

/* Writes tensors in the order given, the header padded to 8 bytes; whole or not at all. The
 * metadata is {"format": "pt"}, without which transformers refuses a file. Wide types first keep
 * every tensor aligned; torch cannot read others. CT_ERR_VALUE for sizes that do not fit shapes,
 * names that are twice there, or not UTF-8. */
ct_status ct_st_write(const char *path, const ct_st_out *tensors, size_t n, ct_err *err) CT_CHECK;

/* Streaming form for files larger than memory: ct_st_writer_begin writes the header for the tensors
 * (data ignored), then ct_st_writer_add appends bytes in that order, ct_st_writer_end checks the
 * count and renames (commit CT_SINK_SYNC_LATER: see io/file.h). ct_st_writer_end with commit 0 drops the file; it frees the writer always. */
typedef struct ct_st_writer ct_st_writer;
ct_status ct_st_writer_begin(const char *path, const ct_st_out *tensors, size_t n,
                             ct_st_writer **out, ct_err *err) CT_CHECK;
ct_status ct_st_writer_add(ct_st_writer *writer, const void *bytes, size_t size,
                           ct_err *err) CT_CHECK;
ct_status ct_st_writer_end(ct_st_writer *writer, int commit, ct_err *err) CT_CHECK;

#endif
