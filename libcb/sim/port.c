#include "sim/port.h"
#include "base/error.h"
#include <errno.h>
#include <string.h>

enum {
    EPHEMERAL_FIRST = 49152,
    PORT_MAX = 65535,
    UDP_HEADER = 8,
    ICMP_HEADER = 8,
    IPV4_HEADER = 20,
    IPV6_HEADER = 40,
    QUOTE_MAX = 520 /* what fits 576 bytes (RFC 1812, 4.3.2.3) */
};

static bool takes(const sim_port *p, const cb_addr *to) {
    if (!cb_addr_is_any(&p->local)) return cb_addr_same_host(&p->local, to);
    return p->both || p->local.sa.sa_family == to->sa.sa_family;
}

static sim_port *first_at(const cb_sim_host *h, uint16_t number) {
    return cb_map_get(&h->ports, &number, sizeof number);
}

/* ---- binding ---- */

static bool collide(const sim_port *a, const sim_port *b) {
    bool any_a = cb_addr_is_any(&a->local), any_b = cb_addr_is_any(&b->local);
    if (!any_a && !any_b) return cb_addr_same_host(&a->local, &b->local);
    return a->both || b->both || a->local.sa.sa_family == b->local.sa.sa_family;
}

static bool is_free(const cb_sim_host *h, const sim_port *p, uint16_t number) {
    for (sim_port *other = first_at(h, number); other; other = other->next)
        if (collide(p, other)) return false;
    return true;
}

static uint16_t choose(cb_sim_host *h, const sim_port *p) {
    for (int tries = EPHEMERAL_FIRST; tries <= PORT_MAX; tries++) {
        uint16_t number = h->next_port;
        h->next_port = number == PORT_MAX ? EPHEMERAL_FIRST : (uint16_t)(number + 1);
        if (is_free(h, p, number)) return number;
    }
    return 0;
}

int sim_port_open(sim_port *p, cb_sim_host *h, const cb_addr *bind, bool v6_only) {
    char text[CB_ADDR_TEXT];
    p->host = h;
    p->local = *bind;
    cb_addr_unmap(&p->local);
    p->both = p->local.sa.sa_family == AF_INET6 && cb_addr_is_any(&p->local) && !v6_only;
    cb_list_init(&p->touched);
    if (!cb_addr_is_any(&p->local) && !sim_address_alive(h, &p->local))
        return cb_fail(CB_EINVAL, "binding UDP %s: host \"%s\" has no such address", cb_addr_text(bind, text), h->name);
    uint16_t number = cb_addr_port(bind);
    if (!number) number = choose(h, p);
    if (!number || !is_free(h, p, number))
        return cb_fail(CB_EEXIST, "binding UDP %s on host \"%s\": address in use", cb_addr_text(bind, text), h->name);
    cb_addr_set_port(&p->local, number);
    p->next = first_at(h, number);
    int rc = cb_map_put(&h->ports, &number, sizeof number, p);
    return rc < 0 ? cb_fail(rc, "no memory to bind a UDP port") : CB_OK;
}

void sim_port_close(sim_port *p) {
    cb_sim_host *h = p->host;
    uint16_t number = cb_addr_port(&p->local);
    sim_port *first = first_at(h, number);
    cb_list_del(&p->touched);
    if (h->last_port == p) h->last_port = NULL;
    if (first != p) {
        while (first->next != p)
            first = first->next;
        first->next = p->next;
    } else if (p->next) {
        (void)cb_map_put(&h->ports, &number, sizeof number, p->next); /* replaces: needs no memory */
    } else {
        (void)cb_map_del(&h->ports, &number, sizeof number);
    }
}

/* ---- sending ---- */

int sim_port_route(const sim_port *p, sim_route *out, const cb_addr *source, const cb_addr *to) {
    cb_sim_host *h = p->host;
    cb_addr from;
    *out = (sim_route){.host = h, .to = *to};
    cb_addr_unmap(&out->to);
    const int family = out->to.sa.sa_family;
    if (source) {
        from = *source;
        cb_addr_unmap(&from);
        if (cb_addr_is_any(&from)) source = NULL;
    }
    if (!source && !cb_addr_is_any(&p->local)) {
        from = p->local;
        source = &from;
    }
    if (!source) {
        const cb_addr *first = sim_address_of(h, family);
        if (first) from = *first;
        if (!first || !takes(p, first)) return ENETUNREACH;
    } else if (from.sa.sa_family != family) {
        return ENETUNREACH;
    } else if (!sim_address_alive(h, &from)) {
        return EADDRNOTAVAIL;
    }
    out->from = from;
    cb_addr_set_port(&out->from, cb_addr_port(&p->local));
    const sim_address *at = sim_address_find(h->sim, &out->to);
    if (!at) return 0;
    out->target = at->host;
    out->path = sim_path_find(h, &from, at->host);
    return out->path ? 0 : EHOSTUNREACH;
}

static uint32_t ip_header(const cb_addr *a) {
    return a->sa.sa_family == AF_INET ? IPV4_HEADER : IPV6_HEADER;
}

static int send_packet(const sim_route *r, unsigned ecn, const uint8_t *data, size_t len, uint32_t wire, bool icmp) {
    cb_sim_host *h = r->host;
    cb_sim *sim = h->sim;
    sim_packet *p = sim_packet_new(sim, len);
    if (!p) return CB_ENOMEM;
    p->icmp = icmp;
    p->id = ++sim->next_id;
    p->sent_at = sim->now;
    p->path = r->path;
    p->origin = h;
    p->target = r->target;
    p->from = r->from;
    p->to = r->to;
    p->wire = wire;
    p->ecn = ecn & 3;
    memcpy(p->data, data, len);
    sim->flying++;
    if (h->nat && r->target != h && sim_nat_out(h->nat, p) < 0) {
        h->stats.drop_nat++;
        sim_packet_free(sim, p);
        return CB_OK;
    }
    sim_packet_go(sim, p);
    return CB_OK;
}

int sim_route_send(const sim_route *r, unsigned ecn, const uint8_t *data, size_t len) {
    uint32_t wire = (uint32_t)len + UDP_HEADER + ip_header(&r->to);
    r->host->stats.tx_packets++;
    r->host->stats.tx_bytes += wire;
    if (r->target) return send_packet(r, ecn, data, len, wire, false);
    r->host->stats.drop_nobody++;
    return CB_OK;
}

/* ---- receiving ---- */

/* "Port unreachable", to who sent p. */
static void refuse(cb_sim_host *h, const sim_packet *p) {
    size_t len = p->len < QUOTE_MAX ? p->len : QUOTE_MAX;
    sim_route back = {.host = h, .target = p->origin, .from = p->to, .to = p->from};
    back.path = sim_path_find(h, &p->to, p->origin);
    if (p->icmp || !back.path) return;
    uint32_t wire = 2 * ip_header(&p->to) + ICMP_HEADER + UDP_HEADER + (uint32_t)len;
    (void)send_packet(&back, 0, p->data, len, wire, true);
}

static sim_port *port_for(cb_sim_host *h, const cb_addr *to) {
    const uint16_t number = cb_addr_port(to);
    sim_port *p = h->last_port;
    if (p && cb_addr_port(&p->local) == number && !p->next && takes(p, to)) return p;
    for (p = first_at(h, number); p; p = p->next) {
        if (!takes(p, to)) continue;
        h->last_port = p;
        return p;
    }
    return NULL;
}

static void give(cb_sim_host *h, sim_packet *p, cb_list *touched) {
    sim_port *port = port_for(h, &p->to);
    if (!port) {
        h->stats.drop_port++;
        refuse(h, p);
        return;
    }
    if (p->icmp) {
        if (port->unreachable) port->unreachable(port, p);
        return;
    }
    h->stats.rx_packets++;
    h->stats.rx_bytes += p->wire;
    if (port->batch_end && cb_list_empty(&port->touched)) cb_list_add_tail(touched, &port->touched);
    port->receive(port, p);
}

void sim_ports_receive(cb_sim_host *h) {
    cb_list batch, touched;
    cb_list_init(&batch);
    cb_list_init(&touched);
    while (!cb_list_empty(&h->inbox)) {
        cb_list *l = h->inbox.next;
        cb_list_del(l);
        cb_list_add_tail(&batch, l);
    }
    while (!cb_list_empty(&batch)) {
        sim_packet *p = CB_CONTAINER(batch.next, sim_packet, link);
        cb_list_del(&p->link);
        give(h, p, &touched);
        sim_packet_free(h->sim, p);
    }
    while (!cb_list_empty(&touched)) {
        sim_port *port = CB_CONTAINER(touched.next, sim_port, touched);
        cb_list_del(&port->touched);
        port->batch_end(port);
    }
}
