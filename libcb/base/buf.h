/* One growable piece of memory with a limit. */
#ifndef CB_BASE_BUF_H
#define CB_BASE_BUF_H

#include <cb/base.h>

typedef struct cb_buf {
    uint8_t *base;
    size_t len;
    size_t cap;
    size_t max; /* never grows past this; set at init */
    const cb_alloc *alloc;
} cb_buf;

void cb_buf_init(cb_buf *b, const cb_alloc *alloc, size_t max);
void cb_buf_free(cb_buf *b);                             /* memory back, still usable */
int cb_buf_grow(cb_buf *b, size_t more);                 /* what cb_buf_reserve() does when there is no room */
int cb_buf_add(cb_buf *b, const void *data, size_t len); /* all or nothing */
int cb_buf_text(cb_buf *b, const char *text);
int cb_buf_printf(cb_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cb_buf_drop(cb_buf *b, size_t n); /* removes n bytes from the front */
/* Room for `more` bytes: CB_ELIMIT past max, CB_ENOMEM. */
static inline int cb_buf_reserve(cb_buf *b, size_t more) {
    return more <= b->cap - b->len ? CB_OK : cb_buf_grow(b, more);
}
static inline cb_slice cb_buf_slice(const cb_buf *b) {
    return (cb_slice){b->base, b->len};
}

#endif
