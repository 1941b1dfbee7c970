/* err.h - filling an error record, and the assertion that stays in release.
 *
 * Owns ct_fail and friends. Bad input is a status; a broken invariant is CT_ASSERT.
 */
#ifndef CT_BASE_ERR_H
#define CT_BASE_ERR_H

#include <cortado/status.h>

/* Writes status and one line of text into err (which may be NULL) and returns status, so that a
 * function can end with `return ct_fail(err, CT_ERR_VALUE, "...")`. Control characters in the
 * formatted text are replaced by '?', so that bytes from outside cannot break the line. */
ct_status ct_fail(ct_err *err, ct_status status, const char *fmt, ...) CT_PRINTF(3, 4);

/* Same, for a system call that failed: appends ": strerror(errno)"; status is CT_ERR_IO. */
ct_status ct_fail_errno(ct_err *err, const char *fmt, ...) CT_PRINTF(2, 3);

/* Same, for an allocation of size_bytes for `what`. */
ct_status ct_fail_memory(ct_err *err, const char *what, unsigned long long size_bytes);

/* Puts "text: " before what err holds already (context added on the way up); returns err->status.
 */
ct_status ct_fail_context(ct_err *err, ct_status status, const char *fmt, ...) CT_PRINTF(3, 4);

/* Ends the process with file, line and the condition if it is false; kept in every build. */
#define CT_ASSERT(cond) ((cond) ? (void)0 : ct_assert_failed(__FILE__, __LINE__, #cond))
_Noreturn void ct_assert_failed(const char *file, int line, const char *cond);

/* Leaves the function through its one `done:` label if expr fails. Needs `ct_status st`. */
#define CT_TRY(expr)                                                                               \
    do {                                                                                           \
        st = (expr);                                                                               \
        if (st != CT_OK) goto done;                                                                \
    } while (0)

#endif
