/* alloc.h - what a test's allocations cost, and the n-th one failing.
 *
 * Include it in one file of a program. Counting works under AddressSanitizer (through its hooks)
 * and without it (malloc and its kin are replaced by wrappers of glibc's); failing only without:
 * alloc_can_fail says which.
 */
#ifndef CT_TESTS_ALLOC_H
#define CT_TESTS_ALLOC_H

#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static struct {
    bool on;
    int64_t live, peak;  /* bytes since alloc_start */
    long calls, fail_at; /* the fail_at-th call fails; 0: none */
} alloc;

static inline void alloc_start(long fail_at)
{
    alloc.live = alloc.peak = 0;
    alloc.calls = 0;
    alloc.fail_at = fail_at;
    alloc.on = true;
}

static inline void alloc_stop(void)
{
    alloc.on = false;
}

static inline void alloc_note(int64_t bytes)
{
    if (!alloc.on) return;
    alloc.live += bytes;
    if (alloc.live > alloc.peak) alloc.peak = alloc.live;
}

#if defined(__SANITIZE_ADDRESS__)
/* From sanitizer/allocator_interface.h, which gcc does not install. */
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *));
size_t __sanitizer_get_allocated_size(const volatile void *p);

enum { alloc_can_fail = 0 };

static void alloc_on_malloc(const volatile void *p, size_t size)
{
    (void)p;
    alloc_note((int64_t)size);
}

static void alloc_on_free(const volatile void *p)
{
    if (p && alloc.on) alloc_note(-(int64_t)__sanitizer_get_allocated_size(p));
}

__attribute__((constructor)) static void alloc_hook(void)
{
    __sanitizer_install_malloc_and_free_hooks(alloc_on_malloc, alloc_on_free);
}
#else
enum { alloc_can_fail = 1 };

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void __libc_free(void *p);

static inline bool alloc_fails(void)
{
    if (!alloc.on || ++alloc.calls != alloc.fail_at) return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    void *p = alloc_fails() ? NULL : __libc_malloc(size);
    if (p) alloc_note((int64_t)malloc_usable_size(p));
    return p;
}

void *calloc(size_t count, size_t size)
{
    void *p = alloc_fails() ? NULL : __libc_calloc(count, size);
    if (p) alloc_note((int64_t)malloc_usable_size(p));
    return p;
}

void *realloc(void *old, size_t size)
{
    if (alloc_fails()) return NULL;
    int64_t before = old ? (int64_t)malloc_usable_size(old) : 0;
    void *p = __libc_realloc(old, size);
    if (p) alloc_note((int64_t)malloc_usable_size(p) - before);
    return p;
}

void free(void *p)
{
    if (p) alloc_note(-(int64_t)malloc_usable_size(p));
    __libc_free(p);
}
#endif

#endif
