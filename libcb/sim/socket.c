/* Plain datagram sockets. */
#include "base/error.h"
#include "sim/port.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct cb_sim_socket {
    sim_port port;
    cb_list link; /* in the simulation */
    cb_sim_datagram_fn fn;
    void *user;
};

static void receive(sim_port *port, sim_packet *p) {
    cb_sim_socket *s = CB_CONTAINER(port, cb_sim_socket, port);
    char from[CB_ADDR_TEXT], to[CB_ADDR_TEXT];
    const cb_sim_datagram d = {
        .size = sizeof d,
        .data = {p->data, p->len},
        .from = cb_addr_text(&p->from, from),
        .to = cb_addr_text(&p->to, to),
        .ecn = p->ecn,
    };
    s->fn(s, &d, s->user);
}

int cb_sim_socket_new(cb_sim_socket **out, cb_sim_host *host, uint16_t port, cb_sim_datagram_fn fn, void *user) {
    if (!out || !host || !fn)
        return cb_fail(CB_EINVAL, "cb_sim_socket_new: %s is NULL", !out ? "out" : !host ? "host" : "fn");
    cb_sim *sim = host->sim;
    cb_addr any = {.v6 = {.sin6_family = AF_INET6}};
    cb_addr_set_port(&any, port);
    cb_sim_socket *s = cb_mem_new(&sim->alloc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a socket");
    s->fn = fn;
    s->user = user;
    s->port.receive = receive;
    int rc = sim_port_open(&s->port, host, &any, false);
    if (rc < 0) {
        cb_mem_free(&sim->alloc, s);
        return rc;
    }
    cb_list_add_tail(&sim->sockets, &s->link);
    *out = s;
    return CB_OK;
}

void cb_sim_socket_free(cb_sim_socket *s) {
    if (!s) return;
    const cb_alloc *alloc = &s->port.host->sim->alloc;
    sim_port_close(&s->port);
    cb_list_del(&s->link);
    cb_mem_free(alloc, s);
}

void sim_sockets_free(cb_sim *sim) {
    while (!cb_list_empty(&sim->sockets))
        cb_sim_socket_free(CB_CONTAINER(sim->sockets.next, cb_sim_socket, link));
}

/* "host:port", when the part before the last colon is a name of this simulation. */
static int by_name(const cb_sim *sim, cb_addr *out, const char *to) {
    const char *colon = strrchr(to, ':');
    char *end = NULL;
    const cb_sim_host *h = colon ? sim_host_named(sim, to, (size_t)(colon - to)) : NULL;
    if (!h) return CB_ENOENT;
    long port = strtol(colon + 1, &end, 10);
    const cb_addr *first = sim_address_of(h, AF_INET);
    if (!first) first = sim_address_of(h, AF_INET6);
    if (!first || *end || port < 1 || port > 65535) return CB_ENOENT;
    *out = *first;
    cb_addr_set_port(out, (uint16_t)port);
    return CB_OK;
}

static int parse(const cb_sim *sim, cb_addr *out, const char *to) {
    if (by_name(sim, out, to) == CB_OK) return CB_OK;
    int rc = cb_addr_parse(out, to, 0);
    if (rc < 0 && ((*to >= 'a' && *to <= 'z') || (*to >= '0' && *to <= '9')))
        return cb_fail(CB_ENOENT, "\"%.80s\": neither \"address:port\" nor \"host:port\" of this simulation", to);
    if (rc >= 0 && !cb_addr_port(out)) return cb_fail(CB_EINVAL, "\"%.80s\" has no port", to);
    return rc;
}

int cb_sim_socket_send(cb_sim_socket *s, const char *to, cb_slice data, unsigned ecn) {
    cb_addr at;
    sim_route route;
    if (!s || !to) return cb_fail(CB_EINVAL, "cb_sim_socket_send: %s is NULL", !s ? "s" : "to");
    cb_sim_host *h = s->port.host;
    if (data.len > SIM_PAYLOAD_MAX)
        return cb_fail(CB_EINVAL, "a datagram of %zu bytes: at most %d", data.len, SIM_PAYLOAD_MAX);
    if (ecn > 3) return cb_fail(CB_EINVAL, "ecn %u: 0 to 3", ecn);
    int rc = parse(h->sim, &at, to);
    if (rc < 0) return rc;
    int err = sim_port_route(&s->port, &route, NULL, &at);
    if (err) {
        h->stats.drop_no_route++;
        return cb_fail(CB_EUNREACH, "host \"%s\" has no %s %s", h->name,
                       err == EHOSTUNREACH ? "path (cb_sim_path) to" : "address of the family of", to);
    }
    return sim_route_send(&route, ecn, data.base, data.len);
}

uint16_t cb_sim_socket_port(const cb_sim_socket *s) {
    return cb_addr_port(&s->port.local);
}
