/* status.h - how every fallible function of cortado reports.
 *
 * Owns the status codes and the error record. A fallible function returns ct_status (0 is success)
 * and takes `ct_err *err` last; `err` may be NULL. The library never prints and never exits.
 * Error text has the form: what: expected X, got Y (file, place, and what to do).
 */
#ifndef CORTADO_STATUS_H
#define CORTADO_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default) /* what a header here declares is exported */

typedef enum ct_status {
    CT_OK = 0,
    CT_ERR_USAGE,        /* the caller or the command line asked for something malformed */
    CT_ERR_IO,           /* the operating system refused: open, read, write, map */
    CT_ERR_FORMAT,       /* bytes from outside are not what their format says */
    CT_ERR_VALUE,        /* well formed, but out of range or inconsistent */
    CT_ERR_UNSUPPORTED,  /* valid, but not something this build or backend can do */
    CT_ERR_NOT_FOUND,    /* a file, key, tensor, token or needle that should be there is not */
    CT_ERR_MEMORY,       /* an allocation failed */
    CT_ERR_LIMIT,        /* a stated limit would be exceeded */
    CT_ERR_INTERRUPTED,  /* asked to stop (signal) */
    CT_ERR_INTERVENTION, /* an intervention none of whose rows was computed */
} ct_status;

enum { CT_ERR_TEXT_MAX = 768 };

typedef struct ct_err {
    ct_status status;
    char text[CT_ERR_TEXT_MAX]; /* one line, UTF-8, always terminated; cut at a character if too
                                   long */
} ct_err;

#if defined(__GNUC__)
#define CT_CHECK             __attribute__((warn_unused_result))
#define CT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define CT_CHECK
#define CT_PRINTF(fmt, args)
#endif

/* The name of a status in lower case with dashes, such as "not-found"; never NULL. */
const char *ct_status_name(ct_status status);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
