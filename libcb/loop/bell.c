#include "loop/bell.h"
#include "base/error.h"
#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct cb_bell {
    int fd;
    cb_watch *watch;
    cb_loop *loop;
    void (*fn)(void *user);
    void *user;
};

static void on_rung(cb_watch *w, unsigned events, void *user) {
    cb_bell *b = user;
    uint64_t times;
    (void)w;
    (void)events;
    if (read(b->fd, &times, sizeof times) == sizeof times) b->fn(b->user); /* b may be gone */
}

int cb_bell_new(cb_bell **out, cb_loop *loop, void (*fn)(void *user), void *user) {
    int rc = cb_loop_needs_kernel(loop, "a bell");
    if (rc < 0) return rc;
    cb_bell *b = cb_mem_new(cb_loop_alloc(loop), sizeof *b);
    if (!b) return cb_fail(CB_ENOMEM, "no memory for a bell");
    *b = (cb_bell){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .loop = loop, .fn = fn, .user = user};
    rc = b->fd < 0 ? cb_fail_errno(errno, "eventfd") : cb_watch_new(&b->watch, loop, b->fd, CB_READABLE, on_rung, b);
    if (rc < 0) {
        cb_bell_free(b);
        return rc;
    }
    *out = b;
    return CB_OK;
}

void cb_bell_ring(cb_bell *b) {
    const uint64_t once = 1;
    ssize_t n = write(b->fd, &once, sizeof once); /* a counter that is full was not heard yet: fine as well */
    (void)n;
}

void cb_bell_free(cb_bell *b) {
    if (!b) return;
    if (b->watch) cb_watch_free(b->watch);
    if (b->fd >= 0) close(b->fd);
    cb_mem_free(cb_loop_alloc(b->loop), b);
}
