/* haystack.h - the text in which needles are hidden.
 *
 * Owns finding and reading haystack files: order, folders, how much is read, newlines. What is done
 * with the text is niah.c's.
 */
#ifndef CT_TASK_HAYSTACK_H
#define CT_TASK_HAYSTACK_H

#include <stdbool.h>
#include <stddef.h>

#include "base/buf.h"

/* Appends the files' text to `text` in the order given, without separators, and stops after
 * max_bytes (at a character): of a large haystack only its beginning is read. A folder stands for
 * its *.txt files in byte order of their names. "\r\n" and "\r" become "\n", as Python's text mode
 * reads. *whole tells whether everything was read. Text that is not UTF-8 or has a NUL is
 * CT_ERR_FORMAT with file and offset; a folder without *.txt is CT_ERR_NOT_FOUND. */
ct_status ct_haystack_read(const char *const *paths, size_t n_paths, size_t max_bytes, ct_buf *text,
                           bool *whole, ct_err *err) CT_CHECK;

#endif
