/* This process replaces another one: it gets sockets and secrets from it, opens everything at rest, says so, and begins
 * when it is told to. Until then the other one serves, and goes on if this one fails. */
#include "edge.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAIT_MS = 3600000 }; /* the predecessor keeps the time; it ends us, or the socket, when it is over */

static int socket_of_environment(void) {
    const char *text = getenv(EDGE_UPGRADE_VARIABLE);
    char *end = NULL;
    int type = 0;
    socklen_t len = sizeof type;
    if (!text) return -1;
    long fd = strtol(text, &end, 10);
    bool good = end != text && !*end && fd > 2 && fd < INT32_MAX &&
                getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM;
    unsetenv(EDGE_UPGRADE_VARIABLE);
    return good && fcntl((int)fd, F_SETFD, FD_CLOEXEC) == 0 ? (int)fd : -2;
}

int edge_inherit(edge *e) {
    e->elder = socket_of_environment();
    if (e->elder == -1) return CB_OK;
    if (e->elder < 0) {
        edge_say(e->log, CB_LOG_ERROR, "upgrade: %s names no socket: it is for cb-edge itself", EDGE_UPGRADE_VARIABLE);
        return CB_EINVAL;
    }
    int rc = cb_handoff_receive(&e->inherited, e->elder, WAIT_MS);
    cb_slice what;
    if (rc == CB_OK && cb_handoff_get(e->inherited, EDGE_WHAT, &what) < 0) rc = CB_EPROTO;
    if (rc < 0) {
        edge_say(e->log, CB_LOG_ERROR, "upgrade: nothing to take over: %s", cb_last_error());
        return rc;
    }
    e->elders[e->n_elders++] = e->elder;
    int32_t fds[EDGE_ELDERS_MAX];
    int n = cb_handoff_fds(e->inherited, "elder", fds, EDGE_ELDERS_MAX);
    for (int i = 0; i < n && i < EDGE_ELDERS_MAX && e->n_elders < EDGE_ELDERS_MAX; i++) {
        int copy = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        if (copy >= 0) e->elders[e->n_elders++] = copy;
    }
    return CB_OK;
}

void edge_inherit_given(const edge *e, const edge_listener *l, uint32_t worker, edge_given *out) {
    char name[EDGE_NAME];
    *out = (edge_given){.share = worker, .of = edge_workers_of(e->now->conf)};
    if (!e->inherited) return;
    int n = cb_handoff_fds(e->inherited, edge_name(name, l->conf->address, "sockets"), out->fds, CB_HTTP_SERVER_FDS);
    out->n = n < CB_HTTP_SERVER_FDS ? (uint32_t)n : CB_HTTP_SERVER_FDS;
}

/* How packets of our connections reach us that come to the one before. */
static int fill(const edge *e, cb_handoff *h) {
    char name[EDGE_NAME];
    const char *version = cb_version_text();
    int rc = cb_handoff_put(h, EDGE_WHAT, (cb_slice){(const uint8_t *)version, strlen(version)});
    for (const edge_use *u = e->now->uses; u && rc == CB_OK; u = u->next)
        rc = cb_group_save(u->listener->group, h, edge_name(name, u->listener->conf->address, "group"));
    return rc;
}

int edge_inherit_ready(edge *e) {
    cb_handoff *h = NULL, *go = NULL;
    if (!e->inherited) return CB_OK;
    int rc = cb_handoff_new(&h);
    if (rc == CB_OK) rc = fill(e, h);
    if (rc == CB_OK) rc = cb_handoff_send(h, e->elder, WAIT_MS);
    if (rc == CB_OK) rc = cb_handoff_receive(&go, e->elder, WAIT_MS);
    cb_handoff_free(h);
    cb_handoff_free(go);
    cb_handoff_free(e->inherited); /* what we took is ours; the rest is of listeners that are no more */
    e->inherited = NULL;
    if (rc == CB_OK) edge_post_all(e, edge_worker_resume);
    return rc;
}

static void on_begun(cb_loop *loop, void *user) {
    edge *e = ((edge_worker *)user)->edge;
    (void)loop;
    if (++e->answers < e->n_workers) return;
    edge_serving(e); /* whoever reads that the other one has been replaced finds our number in the file */
    cb_handoff *h = NULL;
    int rc = cb_handoff_new(&h);
    if (rc == CB_OK) rc = cb_handoff_send(h, e->elder, 5000);
    cb_handoff_free(h);
    if (rc < 0) edge_say(e->log, CB_LOG_WARN, "upgrade: the process before cannot be told: %s", cb_last_error());
}

void edge_inherit_begun(edge_worker *w) {
    cb_loop_post(w->edge->loop, on_begun, w);
}

uint32_t edge_elders(edge *e) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->n_elders; i++) {
        struct pollfd p = {.fd = e->elders[i]};
        if (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLERR))
            close(e->elders[i]);
        else
            e->elders[n++] = e->elders[i];
    }
    return e->n_elders = n;
}
