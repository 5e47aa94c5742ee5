/* A check by connecting, with bytes that are sent and expected. F3. */
#include "base/buf.h"
#include "base/error.h"
#include "http/dial.h"
#include "lb/probe.h"
#include "loop/tcp.h"
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct tcp {
    cb_probe *probe;
    cb_lookup *lookup;
    cb_dial dial;
    cb_tcp_connector *connector;
    cb_watch *watch;
    cb_buf got;
    cb_addr at;
    size_t sent;
    int fd;
} tcp;

static const char *whom(const tcp *t, char out[CB_ADDR_TEXT]) {
    return cb_unix_path(t->probe->conf->host) ? t->probe->conf->host : cb_addr_text(&t->at, out);
}

static void well(tcp *t) {
    char text[CB_ADDR_TEXT], took[24];
    cb_probe_took(t->probe, took);
    if (t->probe->conf->c.expect.len)
        cb_probe_over(t->probe, true, "%s answered as expected after %s", whom(t, text), took);
    else
        cb_probe_over(t->probe, true, "connected to %s in %s", whom(t, text), took);
}

/* ---- what is sent, and comes ---- */

/* false: it failed, which was told. */
static bool send_more(tcp *t) {
    const cb_slice all = t->probe->conf->c.send;
    char text[CB_ADDR_TEXT];
    while (t->sent < all.len) {
        const ssize_t n = send(t->fd, all.base + t->sent, all.len - t->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return true;
        if (n < 0) {
            cb_fail_errno(errno, "sending to %s", whom(t, text));
            cb_probe_failed(t->probe);
            return false;
        }
        t->sent += (size_t)n;
    }
    return true;
}

static void judge(tcp *t, bool more) {
    const cb_slice want = t->probe->conf->c.expect;
    char text[CB_ADDR_TEXT], took[24], seen[80];
    if (memmem(t->got.base, t->got.len, want.base, want.len)) {
        well(t);
        return;
    }
    if (more && t->got.len < CB_CHECK_BYTES_MAX) return;
    cb_probe_quote(cb_buf_slice(&t->got), seen);
    cb_probe_over(t->probe, false, "%s %s after %s without what was expected: it sent %s", whom(t, text),
                  more ? "was read" : "closed the connection", cb_probe_took(t->probe, took), seen);
}

static void on_ready(cb_watch *w, unsigned events, void *user) {
    tcp *t = user;
    const cb_slice all = t->probe->conf->c.send;
    char text[CB_ADDR_TEXT];
    uint8_t bytes[1024];
    if (t->probe->is_over) return;
    if (events & CB_WRITABLE) {
        if (!send_more(t)) return;
        if (t->sent == all.len && !t->probe->conf->c.expect.len) {
            well(t);
            return;
        }
        cb_watch_events(w, CB_READABLE | (t->sent < all.len ? CB_WRITABLE : 0));
    }
    if (!(events & CB_READABLE)) return;
    const size_t room = CB_CHECK_BYTES_MAX - t->got.len;
    const ssize_t n = recv(t->fd, bytes, room < sizeof bytes ? room : sizeof bytes, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    int rc = n < 0 ? cb_fail_errno(errno, "reading from %s", whom(t, text)) : cb_buf_add(&t->got, bytes, (size_t)n);
    if (rc < 0)
        cb_probe_failed(t->probe);
    else
        judge(t, n > 0);
}

/* ---- connecting ---- */

static void next(tcp *t);

static void on_connect(int fd_or_rc, void *user) {
    tcp *t = user;
    const cb_check *c = &t->probe->conf->c;
    t->connector = NULL;
    if (fd_or_rc < 0) {
        next(t);
        return;
    }
    t->fd = fd_or_rc;
    if (!c->send.len && !c->expect.len)
        well(t);
    else if (cb_watch_new(&t->watch, t->probe->loop, t->fd, c->send.len ? CB_READABLE | CB_WRITABLE : CB_READABLE,
                          on_ready, t) < 0)
        cb_probe_failed(t->probe);
}

/* The next address; none: the detail of the one before says why. */
static void next(tcp *t) {
    const char *path = cb_unix_path(t->probe->conf->host);
    for (const cb_addr *at; (at = cb_dial_next(&t->dial)) != NULL;) {
        t->at = *at;
        const int rc = path ? cb_unix_connect(&t->connector, t->probe->loop, path, CB_NEVER, on_connect, t)
                            : cb_tcp_connect(&t->connector, t->probe->loop, at, CB_NEVER, on_connect, t);
        if (rc == CB_OK) return;
    }
    cb_probe_failed(t->probe);
}

static void on_name(int rc, const cb_host_address *at, size_t n, void *user) {
    tcp *t = user;
    t->lookup = NULL;
    for (size_t i = 0; rc == CB_OK && i < n; i++) {
        cb_addr to;
        cb_dial_addr(&to, &at[i], t->probe->conf->port);
        cb_dial_add(&t->dial, &to, false);
    }
    if (rc < 0)
        cb_probe_failed(t->probe);
    else
        next(t);
}

static int tcp_begin(cb_probe *p) {
    tcp *t = cb_mem_new(p->alloc, sizeof *t);
    if (!t) return cb_fail(CB_ENOMEM, "no memory for a check");
    t->probe = p;
    t->fd = -1;
    cb_buf_init(&t->got, p->alloc, CB_CHECK_BYTES_MAX);
    p->state = t;
    if (cb_unix_path(p->conf->host)) {
        cb_dial_add(&t->dial, &(const cb_addr){.sa.sa_family = AF_UNIX}, false);
        next(t);
        return CB_OK;
    }
    return cb_resolver_lookup(&t->lookup, p->resolver, p->conf->host, CB_FAMILY_ANY, on_name, t);
}

static void tcp_end(cb_probe *p) {
    tcp *t = p->state;
    if (!t) return;
    cb_lookup_cancel(t->lookup);
    cb_tcp_connect_cancel(t->connector);
    cb_watch_free(t->watch);
    if (t->fd >= 0) close(t->fd);
    cb_buf_free(&t->got);
    cb_mem_free(p->alloc, t);
    p->state = NULL;
}

const cb_probe_kind cb_probe_tcp = {
    .name = "tcp", .begin = tcp_begin, .end = tcp_end, .dials = true, .needs_address = true};
