/* Counts the allocations of a benchmark, those of libcb and of the libraries below it too. Included once. */
#ifndef CB_BENCH_ALLOCATIONS_H
#define CB_BENCH_ALLOCATIONS_H

#include <stddef.h>

static unsigned long allocations;

/* The program's own names come before libc's, in the libraries too: so all allocations are counted. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

void *malloc(size_t n) {
    allocations++;
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size) {
    allocations++;
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n) {
    allocations++;
    return __libc_realloc(p, n);
}

#endif
