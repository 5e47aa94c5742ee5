/* A listener's server in a worker: with sockets of its own, or with some that were open before. */
#include "edge.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

cb_http_limits edge_limits_of(const edge_conf *c) {
    const edge_limits_conf *m = c->limits;
    return (cb_http_limits){.size = sizeof(cb_http_limits),
                            .max_head_bytes = (uint32_t)m->max_head_bytes,
                            .max_fields = (uint32_t)m->max_fields,
                            .max_target_bytes = (uint32_t)m->max_target_bytes,
                            .max_streams = (uint32_t)m->max_streams,
                            .max_body_bytes = (uint64_t)m->max_body_bytes,
                            .head_timeout_ms = (uint32_t)m->head_timeout_ms,
                            .body_timeout_ms = (uint32_t)m->body_timeout_ms,
                            .idle_timeout_ms = (uint32_t)m->idle_timeout_ms,
                            .send_timeout_ms = (uint32_t)m->send_timeout_ms,
                            .max_resets_per_s = (uint32_t)m->max_resets_per_s,
                            .max_requests = (uint32_t)m->max_requests};
}

bool edge_speaks_quic(const edge_listener_conf *l) {
    return l->tls && (!l->versions || l->versions & CB_HTTP_3);
}

/* ---- sockets ---- */

static bool is_udp(int fd) {
    int type = 0;
    socklen_t len = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_DGRAM;
}

typedef struct share {
    int32_t fds[CB_HTTP_SERVER_FDS];
    uint32_t n;
} share;

static void share_close(share *s) {
    while (s->n)
        close(s->fds[--s->n]);
}

/* Duplicates of this worker's part: every socket is somebody's, and a worker for whom none is left shares one. */
static int share_take(share *s, const edge_given *g, bool udp) {
    uint32_t of_kind = 0, mine = 0;
    for (uint32_t i = 0; i < g->n; i++)
        of_kind += is_udp(g->fds[i]) == udp;
    for (uint32_t i = 0, k = 0; i < g->n; i++) {
        if (is_udp(g->fds[i]) != udp) continue;
        const uint32_t number = k++;
        const bool own = number % g->of == g->share, borrowed = g->share >= of_kind && number == g->share % of_kind;
        if (!own && !borrowed) continue;
        int copy = fcntl(g->fds[i], F_DUPFD_CLOEXEC, 3);
        if (copy < 0) return CB_ESYS;
        s->fds[s->n++] = copy;
        mine++;
    }
    return CB_OK;
}

static bool has_udp(const edge_given *g) {
    for (uint32_t i = 0; g && i < g->n; i++)
        if (is_udp(g->fds[i])) return true;
    return false;
}

/* ---- servers ---- */

static int open_once(cb_http_server **out, edge_worker *w, edge_listener *l, const edge_conf *c,
                     const edge_given *given, bool with_udp) {
    const cb_http_limits limits = edge_limits_of(c);
    const edge_tls_conf *t = l->conf->tls;
    share mine = {.n = 0};
    int rc = given ? share_take(&mine, given, false) : CB_OK;
    if (rc == CB_OK && given && with_udp) rc = share_take(&mine, given, true);
    const cb_http_server_opts o = {.size = sizeof o,
                                   .listen = l->address,
                                   .name = l->conf->name,
                                   .identity = l->identity,
                                   .tickets = l->tickets,
                                   .group = l->group,
                                   .ops = edge_front_ops(l->conf->redirect_to_https),
                                   .user = w,
                                   .limits = &limits,
                                   .server_name = c->server_name,
                                   .versions = l->conf->versions,
                                   .worker = w->number,
                                   .max_conns = (uint32_t)l->conf->max_connections,
                                   .cc = c->congestion_control,
                                   .tls12 = t ? (uint8_t)t->tls12 : 0,
                                   .early_data = t && t->early_data ? 2 : 0, /* the proxy decides, and logs it */
                                   .request_client_cert = t ? (uint8_t)t->client_certificates : 0,
                                   .proxy_protocol = (uint8_t)l->conf->proxy_protocol,
                                   .at_rest = given != NULL,
                                   .fds = mine.fds,
                                   .n_fds = mine.n};
    if (rc == CB_OK) rc = cb_http_server_new(out, w->loop, &o);
    if (rc < 0) share_close(&mine);
    return rc;
}

/* Where the kernel steers by generation, a successor's UDP socket is its own, and nobody reads for somebody else. That
 * cannot be had without the right to open the port; then the socket is the one that was there. */
static int open_steered(cb_http_server **out, edge_worker *w, edge_listener *l, const edge_conf *c,
                        const edge_given *given) {
    cb_quic_endpoint_stats st = {.size = sizeof st};
    int rc = open_once(out, w, l, c, given, false);
    if (rc < 0) return rc;
    if (cb_http_server_quic_stats_get(*out, &st) == CB_OK && st.steering) return CB_OK;
    cb_http_server_free(*out);
    return CB_ENOTSUP;
}

int edge_server_open(edge_server **out, edge_worker *w, edge_listener *l, const edge_conf *c, const edge_given *given) {
    edge_server *s = calloc(1, sizeof *s);
    int rc = CB_ENOTSUP;
    if (!s) return CB_ENOMEM;
    if (w->edge->steering && has_udp(given) && edge_speaks_quic(l->conf)) rc = open_steered(&s->http, w, l, c, given);
    if (rc < 0) rc = open_once(&s->http, w, l, c, given, true);
    if (rc < 0) {
        free(s);
        return rc;
    }
    s->worker = w;
    s->serial = ++w->serials;
    s->listener = edge_listener_ref(l);
    *out = s;
    return CB_OK;
}
