/* test.h - what every test includes: cmocka, the shared data's place, SKIP.
 *
 * Tests are named like sentences. Shared data is found through CORTADO_SHARED (default ../shared
 * beside the source tree); a test that needs it and does not find it says SKIP and exits 77.
 */
#ifndef CT_TESTS_TEST_H
#define CT_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>
#include <cortado/status.h>

/* Fails the test with the error's text unless the call returned CT_OK. */
#define assert_ok(call)                                                                            \
    do {                                                                                           \
        ct_status assert_ok_status = (call);                                                       \
        if (assert_ok_status != CT_OK)                                                             \
            fail_msg("%s: %s: %s", #call, ct_status_name(assert_ok_status), err.text);             \
    } while (0)

/* The call must fail with this status and a text that contains `part`. Needs `ct_err err`. */
#define assert_fails(call, expected, part)                                                         \
    do {                                                                                           \
        err = (ct_err){0};                                                                         \
        ct_status assert_fails_status = (call);                                                    \
        if (assert_fails_status != (expected))                                                     \
            fail_msg("%s: expected %s, got %s: %s", #call, ct_status_name(expected),               \
                     ct_status_name(assert_fails_status), err.text);                               \
        if (!strstr(err.text, (part))) fail_msg("%s: no \"%s\" in: %s", #call, (part), err.text);  \
    } while (0)

/* Path of a file in the shared data, in a static buffer that the 8th next call reuses; NULL if
 * absent. */
static inline const char *shared_path(const char *name)
{
    static char paths[8][4096];
    static unsigned next;
    char *path = paths[next++ % 8];
    const char *root = getenv("CORTADO_SHARED");
    if (root && *root) snprintf(path, 4096, "%s/%s", root, name);
    else snprintf(path, 4096, "%s/../shared/%s", CT_SOURCE_DIR, name);
    struct stat info;
    return stat(path, &info) == 0 ? path : NULL;
}

/* The device that a test means by "cpu": another one where the environment names it, so that a GPU is held
 * to what the CPU is. */
static inline const char *test_device(const char *device)
{
    const char *other = getenv("CORTADO_TEST_DEVICE");
    return other && strcmp(device, "cpu") == 0 ? other : device;
}

/* Ends the whole program as skipped. */
static inline void skip_program(const char *missing)
{
    printf("SKIP: %s is missing\n", missing);
    exit(77);
}

#endif
