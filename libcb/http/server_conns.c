/* Connections of a server as administration sees them. */
#include "base/error.h"
#include "http/server_int.h"
#include "transport/tls_session.h"

static void describe(cb_http_conn *out, const cb_http_server *s, const cb_server_conn *c) {
    const cb_hconn *h = c->drive.h;
    *out = (cb_http_conn){.size = sizeof *out,
                          .number = c->number,
                          .age_ms = (uint64_t)((cb_loop_now(s->loop) - c->accepted) / CB_MS),
                          .remote = "",
                          .sni = "",
                          .tls = ""};
    if (!h) return; /* in its handshake */
    out->version = h->vt->version;
    out->requests = h->n_served;
    out->active = (uint32_t)h->n_exchanges;
    out->draining = h->draining;
    out->sni = h->env.sni ? h->env.sni : "";
    if (h->env.tls) out->tls = cb_tls_session_version(h->env.tls);
}

int cb_http_server_conns(const cb_http_server *srv, uint64_t after, int (*fn)(const cb_http_conn *conn, void *user),
                         void *user) {
    if (!srv || !fn) return cb_fail(CB_EINVAL, "cb_http_server_conns: srv and fn are needed");
    for (const cb_list *l = srv->conns.next; l != &srv->conns; l = l->next) {
        const cb_server_conn *c = CB_CONTAINER(l, cb_server_conn, link);
        char remote[CB_ADDR_TEXT];
        cb_http_conn out;
        if (c->number <= after) continue;
        describe(&out, srv, c);
        if (c->drive.h) out.remote = cb_addr_text(&c->drive.h->env.remote, remote);
        int rc = fn(&out, user);
        if (rc < 0) return rc;
    }
    return CB_OK;
}
