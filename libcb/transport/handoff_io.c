/* A handoff on its way through a unix socket. */
#include "base/error.h"
#include "base/mem.h"
#include "transport/handoff_int.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { FDS_A_MESSAGE = 200, FDS_MOST = 253 /* SCM_MAX_FD of the kernel */ };

typedef union control {
    struct cmsghdr align;
    uint8_t bytes[CMSG_SPACE(FDS_MOST * sizeof(int))];
} control;

/* A socket and how long it may take. */
typedef struct wire {
    int sock;
    int64_t until_ms;
} wire;

static int64_t now_ms(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int wait_for(const wire *w, short what) {
    for (;;) {
        int64_t left = w->until_ms - now_ms();
        struct pollfd p = {.fd = w->sock, .events = what};
        int n = left > 0 ? poll(&p, 1, left < INT_MAX ? (int)left : INT_MAX) : 0;
        if (n > 0) return CB_OK;
        if (n == 0) return cb_fail(CB_ETIMEOUT, "handoff: the other process took too long");
        if (errno != EINTR) return cb_fail_errno(errno, "handoff");
    }
}

static int broken(int err) {
    if (err == EPIPE || err == ECONNRESET) return cb_fail(CB_ECLOSED, "handoff: the other process went away");
    return cb_fail_errno(err, "handoff");
}

/* ---- sending ---- */

/* All of the bytes; the descriptors go with the first of them. */
static int send_all(const wire *w, const uint8_t *at, size_t len, const int32_t *fds, size_t n) {
    control c;
    while (len) {
        struct iovec v = {(void *)(uintptr_t)at, len};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
        if (n) {
            memset(&c, 0, sizeof c);
            m.msg_control = &c;
            m.msg_controllen = CMSG_SPACE(n * sizeof(int));
            c.align.cmsg_level = SOL_SOCKET;
            c.align.cmsg_type = SCM_RIGHTS;
            c.align.cmsg_len = CMSG_LEN(n * sizeof(int));
            memcpy(CMSG_DATA(&c.align), fds, n * sizeof(int));
        }
        ssize_t sent = sendmsg(w->sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) return broken(errno);
        if (sent < 0) {
            int rc = wait_for(w, POLLOUT);
            if (rc < 0) return rc;
            continue;
        }
        at += sent;
        len -= (size_t)sent;
        n = 0;
    }
    return CB_OK;
}

static size_t at_most(size_t n, size_t most) {
    return n < most ? n : most;
}

int cb_handoff_send(const cb_handoff *h, int sock, uint32_t timeout_ms) {
    const wire w = {sock, now_ms() + timeout_ms};
    int32_t *fds = NULL;
    size_t n = 0;
    cb_buf b;
    cb_buf_init(&b, &cb_alloc_libc, CB_HANDOFF_HEADER + CB_HANDOFF_BYTES);
    int rc = cb_handoff_write(h, &b, &fds, &n);
    size_t done = at_most(n, FDS_A_MESSAGE);
    if (rc == CB_OK) rc = send_all(&w, b.base, CB_HANDOFF_HEADER, fds, done);
    while (rc == CB_OK && done < n) { /* each further batch with one byte that means nothing */
        size_t some = at_most(n - done, FDS_A_MESSAGE);
        rc = send_all(&w, (const uint8_t *)"f", 1, fds + done, some);
        done += some;
    }
    if (rc == CB_OK) rc = send_all(&w, b.base + CB_HANDOFF_HEADER, b.len - CB_HANDOFF_HEADER, NULL, 0);
    if (b.base) cb_mem_wipe(b.base, b.len);
    cb_buf_free(&b);
    cb_mem_free(&cb_alloc_libc, fds);
    return rc;
}

/* ---- receiving ---- */

/* The descriptors that have come. */
typedef struct haul {
    int32_t *fds;
    size_t n;
} haul;

static int keep_fds(struct msghdr *m, haul *got) {
    bool too_many = m->msg_flags & MSG_CTRUNC;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (got->n < CB_HANDOFF_FDS)
                got->fds[got->n++] = fd;
            else
                close(fd), too_many = true;
        }
    }
    return too_many ? cb_fail(CB_ESYS, "handoff: not all descriptors arrived (RLIMIT_NOFILE)") : CB_OK;
}

static int receive_all(const wire *w, uint8_t *at, size_t len, haul *got) {
    control c;
    while (len) {
        struct iovec v = {at, len};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
        ssize_t n = recvmsg(w->sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        int rc = n > 0 ? keep_fds(&m, got) : CB_OK;
        if (n == 0) rc = cb_fail(CB_ECLOSED, "handoff: the other process went away");
        if (n < 0) rc = errno == EAGAIN || errno == EINTR ? wait_for(w, POLLIN) : broken(errno);
        if (rc < 0) return rc;
        if (n < 0) continue;
        at += n;
        len -= (size_t)n;
    }
    return CB_OK;
}

static int receive(const wire *w, cb_handoff *h, haul *got) {
    uint8_t head[CB_HANDOFF_HEADER], filler;
    uint32_t body = 0, fds = 0;
    int rc = receive_all(w, head, sizeof head, got);
    if (rc == CB_OK) rc = cb_handoff_read_header(head, &body, &fds);
    while (rc == CB_OK && got->n < fds) {
        const size_t before = got->n;
        rc = receive_all(w, &filler, 1, got);
        if (rc == CB_OK && got->n == before) rc = cb_fail(CB_EPROTO, "handoff: fewer descriptors came than it says");
    }
    if (rc < 0) return rc;
    uint8_t *bytes = cb_mem_get(&cb_alloc_libc, body ? body : 1);
    if (!bytes) return cb_fail(CB_ENOMEM, "no memory for a handoff");
    rc = receive_all(w, bytes, body, got);
    if (rc == CB_OK) rc = cb_handoff_read_body(h, (cb_slice){bytes, body}, got->fds, got->n);
    if (rc == CB_OK) got->n = 0; /* they are the handoff's */
    cb_mem_wipe(bytes, body);
    cb_mem_free(&cb_alloc_libc, bytes);
    return rc;
}

int cb_handoff_receive(cb_handoff **out, int sock, uint32_t timeout_ms) {
    const wire w = {sock, now_ms() + timeout_ms};
    cb_handoff *h = NULL;
    if (!out) return cb_fail(CB_EINVAL, "cb_handoff_receive: out is NULL");
    haul got = {.fds = cb_mem_new(&cb_alloc_libc, CB_HANDOFF_FDS * sizeof(int32_t))};
    if (!got.fds) return cb_fail(CB_ENOMEM, "no memory for a handoff");
    int rc = cb_handoff_new(&h);
    if (rc == CB_OK) rc = receive(&w, h, &got);
    for (size_t i = 0; i < got.n; i++)
        close(got.fds[i]);
    cb_mem_free(&cb_alloc_libc, got.fds);
    if (rc < 0) {
        cb_handoff_free(h);
        return rc;
    }
    *out = h;
    return CB_OK;
}
