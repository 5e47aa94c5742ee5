/* Network address translation in front of one host: a public port for each flow. */
#include "base/error.h"
#include "base/opts.h"
#include "sim/sim_int.h"
#include <string.h>

enum { PORT_FIRST = 1024, PORT_LAST = 65535, IDLE_DEFAULT_MS = 120000, FLOW_KEY = 36 };

typedef struct flow {
    cb_list link; /* in the NAT, the longest unused first */
    cb_addr inside, remote;
    uint16_t port;
    cb_time used;
} flow;

struct cb_sim_nat {
    cb_sim_host *host;
    cb_addr address; /* port 0 */
    cb_time idle;
    cb_list flows;
    size_t count;
    cb_map by_ends, by_port;
    uint16_t next_port;
};

static void key_of(uint8_t key[FLOW_KEY], const cb_addr *inside, const cb_addr *remote) {
    const cb_addr *ends[2] = {inside, remote};
    memset(key, 0, FLOW_KEY);
    for (int i = 0; i < 2; i++) {
        uint16_t port = cb_addr_port(ends[i]);
        if (ends[i]->sa.sa_family == AF_INET)
            memcpy(key + 18 * i, &ends[i]->v4.sin_addr, 4);
        else
            memcpy(key + 18 * i, &ends[i]->v6.sin6_addr, 16);
        memcpy(key + 18 * i + 16, &port, 2);
    }
}

static void forget(cb_sim_nat *n, flow *f) {
    uint8_t key[FLOW_KEY];
    key_of(key, &f->inside, &f->remote);
    (void)cb_map_del(&n->by_ends, key, sizeof key);
    (void)cb_map_del(&n->by_port, &f->port, sizeof f->port);
    cb_list_del(&f->link);
    n->count--;
    cb_mem_free(&n->host->sim->alloc, f);
}

static void forget_all(cb_sim_nat *n) {
    while (!cb_list_empty(&n->flows))
        forget(n, CB_CONTAINER(n->flows.next, flow, link));
}

static void forget_idle(cb_sim_nat *n) {
    while (!cb_list_empty(&n->flows)) {
        flow *f = CB_CONTAINER(n->flows.next, flow, link);
        if (n->host->sim->now - f->used < n->idle) return;
        forget(n, f);
    }
}

static void use(cb_sim_nat *n, flow *f) {
    f->used = n->host->sim->now;
    cb_list_del(&f->link);
    cb_list_add_tail(&n->flows, &f->link);
}

static uint16_t free_port(cb_sim_nat *n) {
    if (n->count > PORT_LAST - PORT_FIRST) return 0;
    for (int tries = PORT_FIRST; tries <= PORT_LAST; tries++) {
        uint16_t port = n->next_port;
        n->next_port = port == PORT_LAST ? PORT_FIRST : (uint16_t)(port + 1);
        if (!cb_map_get(&n->by_port, &port, sizeof port)) return port;
    }
    return 0;
}

static flow *open_flow(cb_sim_nat *n, const sim_packet *p, const uint8_t key[FLOW_KEY]) {
    const cb_alloc *alloc = &n->host->sim->alloc;
    uint16_t port = free_port(n);
    flow *f = port ? cb_mem_new(alloc, sizeof *f) : NULL;
    if (!f) return NULL;
    f->inside = p->from;
    f->remote = p->to;
    f->port = port;
    if (cb_map_put(&n->by_port, &port, sizeof port, f) < 0 || cb_map_put(&n->by_ends, key, FLOW_KEY, f) < 0) {
        (void)cb_map_del(&n->by_port, &port, sizeof port);
        cb_mem_free(alloc, f);
        return NULL;
    }
    cb_list_init(&f->link);
    n->count++;
    return f;
}

int sim_nat_out(cb_sim_nat *n, sim_packet *p) {
    uint8_t key[FLOW_KEY];
    if (p->from.sa.sa_family != n->address.sa.sa_family) return CB_OK;
    forget_idle(n);
    key_of(key, &p->from, &p->to);
    flow *f = cb_map_get(&n->by_ends, key, sizeof key);
    if (!f) f = open_flow(n, p, key);
    if (!f) return CB_ELIMIT;
    use(n, f);
    p->from = n->address;
    cb_addr_set_port(&p->from, f->port);
    return CB_OK;
}

bool sim_nat_in(cb_sim_nat *n, sim_packet *p) {
    if (p->to.sa.sa_family != n->address.sa.sa_family || p->origin == n->host) return true;
    if (!cb_addr_same_host(&p->to, &n->address)) return false;
    forget_idle(n);
    uint16_t port = cb_addr_port(&p->to);
    flow *f = cb_map_get(&n->by_port, &port, sizeof port);
    if (!f || !cb_addr_equal(&f->remote, &p->from)) return false;
    use(n, f);
    p->to = f->inside;
    return true;
}

/* ---- life ---- */

static int take_address(cb_sim_host *host, cb_addr *out, const char *text) {
    int rc = sim_address_parse(out, text);
    return rc < 0 ? rc : sim_address_add(host, out, false, true);
}

int cb_sim_nat_new(cb_sim_nat **out, cb_sim_host *host, const cb_sim_nat_opts *opts) {
    cb_sim_nat_opts o;
    if (!out || !host) return cb_fail(CB_EINVAL, "cb_sim_nat_new: %s is NULL", !out ? "out" : "host");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_sim_nat_opts");
    if (rc < 0) return rc;
    if (!o.address) return cb_fail(CB_EINVAL, "cb_sim_nat_opts.address: required");
    if (host->nat) return cb_fail(CB_EEXIST, "host \"%s\" is behind a NAT already", host->name);
    cb_sim *sim = host->sim;
    cb_sim_nat *n = cb_mem_new(&sim->alloc, sizeof *n);
    if (!n) return cb_fail(CB_ENOMEM, "no memory for a NAT");
    rc = take_address(host, &n->address, o.address);
    if (rc < 0) {
        cb_mem_free(&sim->alloc, n);
        return rc;
    }
    n->host = host;
    n->idle = (o.idle_ms ? o.idle_ms : IDLE_DEFAULT_MS) * SIM_NS_MS;
    n->next_port = (uint16_t)(PORT_FIRST + sim_rng_below(&sim->rng, PORT_LAST - PORT_FIRST));
    cb_list_init(&n->flows);
    cb_map_init(&n->by_ends, &sim->alloc, sim->hash_key);
    cb_map_init(&n->by_port, &sim->alloc, sim->hash_key);
    host->nat = n;
    *out = n;
    return CB_OK;
}

int cb_sim_nat_rebind(cb_sim_nat *n, const char *address) {
    if (!n) return cb_fail(CB_EINVAL, "cb_sim_nat_rebind: n is NULL");
    cb_addr fresh;
    int rc = address ? take_address(n->host, &fresh, address) : CB_OK;
    if (rc < 0) return rc;
    if (address) {
        sim_address_find(n->host->sim, &n->address)->dead = true;
        n->address = fresh;
    }
    forget_all(n);
    return CB_OK;
}

size_t cb_sim_nat_flows(const cb_sim_nat *n) {
    size_t idle = 0;
    for (const cb_list *l = n->flows.next; l != &n->flows; l = l->next, idle++)
        if (n->host->sim->now - CB_CONTAINER(l, flow, link)->used < n->idle) break;
    return n->count - idle;
}

void sim_nat_destroy(cb_sim_nat *n) {
    if (!n) return;
    forget_all(n);
    cb_map_free(&n->by_ends);
    cb_map_free(&n->by_port);
    cb_mem_free(&n->host->sim->alloc, n);
}
