/* version.h - what this build is called. */
#ifndef CT_BASE_VERSION_H
#define CT_BASE_VERSION_H

const char *ct_version(void); /* "0.1.0" */
const char *ct_commit(void);  /* git's short commit, "-dirty" with local changes, or "unknown" */

/* Counts the changes that may alter an outcome's bits; part of every cell's key. */
enum { CT_NUMERICS_VERSION = 2 };

#endif
