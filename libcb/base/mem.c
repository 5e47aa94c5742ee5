#include "base/mem.h"
#include <stdlib.h>
#include <string.h>

static void *libc_realloc(void *ptr, size_t size, void *user) {
    (void)user;
    if (!ptr) return size ? malloc(size) : NULL;
    if (size) return realloc(ptr, size);
    free(ptr);
    return NULL;
}

const cb_alloc cb_alloc_libc = {.realloc = libc_realloc};

static void *resize(const cb_alloc *a, void *p, size_t size) {
    if (!a) a = &cb_alloc_libc;
    return a->realloc(p, size, a->user);
}

void *cb_mem_get(const cb_alloc *a, size_t size) {
    return resize(a, NULL, size);
}

void *cb_mem_new(const cb_alloc *a, size_t size) {
    void *p = cb_mem_get(a, size);
    if (p) memset(p, 0, size);
    return p;
}

void *cb_mem_grow(const cb_alloc *a, void *p, size_t size) {
    return resize(a, p, size);
}

void cb_mem_free(const cb_alloc *a, void *p) {
    if (p) resize(a, p, 0);
}

char *cb_mem_text(const cb_alloc *a, const char *text) {
    if (!text) return NULL;
    size_t size = strlen(text) + 1;
    char *p = cb_mem_get(a, size);
    if (p) memcpy(p, text, size);
    return p;
}

void cb_mem_wipe(void *p, size_t size) {
    if (p && size) explicit_bzero(p, size);
}
