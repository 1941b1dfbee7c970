/* memory.h - how much memory there is for this process: the machine's, or its control group's.
 *
 * Owns reading /proc/meminfo and the limits of control groups (version 2, and 1's memory
 * controller). Memory that holds file pages counts as available: the system takes it back.
 */
#ifndef CT_IO_MEMORY_H
#define CT_IO_MEMORY_H

#include <stdint.h>

typedef struct ct_memory {
    int64_t total_bytes, available_bytes; /* -1: not known */
} ct_memory;

/* What /proc and /sys say below `root` ("" on a real system). */
ct_memory ct_memory_read(const char *root);

#endif
