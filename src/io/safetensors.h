/* safetensors.h - the safetensors format: checked, mapped reading; writing.
 *
 * Owns the header's every check (docs/ROBUSTNESS in tests). Knows names and shapes, no
 * architecture.
 */
#ifndef CT_IO_SAFETENSORS_H
#define CT_IO_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include <cortado/status.h>

enum { CT_ST_MAX_RANK = 8 };

typedef struct ct_st_tensor {
    const char *name;  /* borrowed from the file object */
    const char *dtype; /* "F32", "F16", "BF16", "I32", "U8", ... as in the header */
    int rank;
    int64_t shape[CT_ST_MAX_RANK];
    int64_t count;    /* product of shape */
    const void *data; /* in the map; not necessarily aligned to the element */
    size_t size_bytes;
} ct_st_tensor;

typedef struct ct_st_file ct_st_file;

/* Maps and checks a file; nothing is copied. */
ct_status ct_st_open(const char *path, ct_st_file **out, ct_err *err) CT_CHECK;
/* Checks bytes in memory, borrowed until ct_st_close; `where` names them in errors (tests,
 * fuzzing). */
ct_status ct_st_open_bytes(const void *bytes, size_t size, const char *where, ct_st_file **out,
                           ct_err *err) CT_CHECK;
void ct_st_close(ct_st_file *file);
size_t ct_st_count(const ct_st_file *file);
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

/* Writes tensors in the order given, the header padded to 8 bytes; whole or not at all. */
ct_status ct_st_write(const char *path, const ct_st_out *tensors, size_t n, ct_err *err) CT_CHECK;

/* Streaming form for files larger than memory: ct_st_writer_begin writes the header for the tensors
 * (data ignored), then ct_st_writer_add appends bytes in that order, ct_st_writer_end checks the
 * count and renames. ct_st_writer_end with commit 0 drops the file. */
typedef struct ct_st_writer ct_st_writer;
ct_status ct_st_writer_begin(const char *path, const ct_st_out *tensors, size_t n,
                             ct_st_writer **out, ct_err *err) CT_CHECK;
ct_status ct_st_writer_add(ct_st_writer *writer, const void *bytes, size_t size,
                           ct_err *err) CT_CHECK;
ct_status ct_st_writer_end(ct_st_writer *writer, int commit, ct_err *err) CT_CHECK;

#endif
