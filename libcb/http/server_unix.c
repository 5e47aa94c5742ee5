/* An HTTP server on a unix socket: the same as on TCP, but for the address, and for knowing who is there. */
#include "base/error.h"
#include "base/opts.h"
#include "http/server_int.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int adoptable(int fd) {
    int domain = 0;
    socklen_t len = sizeof domain;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) < 0 || domain != AF_UNIX)
        return cb_fail(CB_EINVAL, "fds: descriptor %d is not a unix socket", fd);
    return CB_OK;
}

int cb_server_unix_open(cb_http_server *s, const char *path) {
    cb_http_server_opts *o = &s->opts;
    struct sockaddr_un at;
    int fd = -1;
    if (o->group) return cb_fail(CB_EINVAL, "group: workers cannot share a unix socket");
    if (o->versions & CB_HTTP_3 && !(o->versions & (CB_HTTP_1 | CB_HTTP_2)))
        return cb_fail(CB_EINVAL, "versions: there is no HTTP/3 on a unix socket");
    o->versions &= CB_HTTP_1 | CB_HTTP_2;
    int rc = cb_unix_listenable(&at, path);
    for (uint32_t i = 0; i < o->n_fds && rc == CB_OK; i++)
        rc = adoptable(s->fds[i]);
    if (rc == CB_OK && o->tcp_fd > 0) rc = adoptable(o->tcp_fd);
    if (rc == CB_OK && !o->n_fds && o->tcp_fd <= 0) {
        rc = cb_unix_listen(&fd, &s->place, path, o->unix_mode, o->unix_replace);
        if (rc == CB_OK) o->tcp_fd = fd;
    }
    if (rc == CB_OK) rc = cb_server_tcp_open(s, &(cb_addr){.sa.sa_family = AF_UNIX});
    if (rc < 0 && fd >= 0) { /* it was no listener's yet */
        cb_unix_leave(&s->place);
        close(fd);
    }
    if (rc == CB_OK) snprintf(s->address, sizeof s->address, "unix:%.99s", path);
    return rc;
}

/* The connection's own descriptor; -1: it is no unix socket's. */
static int descriptor(const cb_exchange *x) {
    const cb_hconn_env *env = &x->conn->env;
    if (!env->server || !env->owner_user) return -1;
    const cb_drive *d = env->owner_user;
    if (!d->ch || cb_channel_peer(d->ch)->sa.sa_family != AF_UNIX) return -1;
    return cb_channel_fd(d->ch);
}

int cb_exchange_unix_peer(const cb_exchange *x, cb_unix_peer *out, uint32_t *groups, size_t cap) {
    if (!x || (cap && !groups)) return cb_fail(CB_EINVAL, "cb_exchange_unix_peer: %s is NULL", x ? "groups" : "x");
    if (!x->conn) return cb_fail(CB_ECLOSED, "the connection is gone");
    const int fd = descriptor(x);
    struct ucred who;
    socklen_t len = sizeof who;
    if (fd < 0) return cb_fail(CB_ENOENT, "the connection is no unix socket");
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0) return cb_fail_errno(errno, "SO_PEERCRED");
    len = cap > INT32_MAX / sizeof *groups ? INT32_MAX : (socklen_t)(cap * sizeof *groups);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0 && errno != ERANGE)
        return cb_fail_errno(errno, "SO_PEERGROUPS");
    const cb_unix_peer peer = {.size = sizeof peer,
                               .pid = (uint32_t)who.pid,
                               .uid = who.uid,
                               .gid = who.gid,
                               .n_groups = (uint32_t)(len / sizeof *groups)};
    return cb_stats_give(out, &peer, sizeof peer, "cb_unix_peer");
}
