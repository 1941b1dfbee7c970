/* alloc.h - what a test's allocations cost, and the n-th one failing.
 *
 * Include it in one file of a program. malloc and its kin are replaced by wrappers of glibc's; under
 * AddressSanitizer by wrappers of its own, and bytes are counted through its hooks. Libraries are
 * served by them, too.
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

static inline bool alloc_fails(void)
{
    if (!alloc.on || ++alloc.calls != alloc.fail_at) return false;
    errno = ENOMEM;
    return true;
}

#if defined(__SANITIZE_ADDRESS__)
/* From sanitizer/allocator_interface.h, which gcc does not install. */
int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void *, size_t),
                                              void (*on_free)(const volatile void *));
size_t __sanitizer_get_allocated_size(const volatile void *p);

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

void *__interceptor_malloc(size_t size);
void *__interceptor_calloc(size_t count, size_t size);
void *__interceptor_realloc(void *p, size_t size);
void *__interceptor_aligned_alloc(size_t alignment, size_t size);

void *malloc(size_t size)
{
    return alloc_fails() ? NULL : __interceptor_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return alloc_fails() ? NULL : __interceptor_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return alloc_fails() ? NULL : __interceptor_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return alloc_fails() ? NULL : __interceptor_aligned_alloc(alignment, size);
}
#else
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *p);

/* malloc_usable_size of a block that is NULL is 0. */
static inline void *alloc_noted(void *p)
{
    alloc_note((int64_t)malloc_usable_size(p));
    return p;
}

void *malloc(size_t size)
{
    return alloc_fails() ? NULL : alloc_noted(__libc_malloc(size));
}

void *calloc(size_t count, size_t size)
{
    return alloc_fails() ? NULL : alloc_noted(__libc_calloc(count, size));
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return alloc_fails() ? NULL : alloc_noted(__libc_memalign(alignment, size));
}

/* OpenMP's own, for each parallel region: it ends the process where there is none, so it never fails. */
void *memalign(size_t alignment, size_t size)
{
    return alloc_noted(__libc_memalign(alignment, size));
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
