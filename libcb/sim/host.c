/* Hosts: each a virtual loop with addresses and ports. */
#include "base/error.h"
#include "base/opts.h"
#include "loop/virtual.h"
#include "sim/port.h"
#include "sim/udp.h"
#include <string.h>

/* ---- what the loop asks of its world ---- */

static cb_time world_now(void *world) {
    return ((cb_sim_host *)world)->sim->now;
}

static uint64_t world_wall(void *world) {
    const cb_sim *sim = ((cb_sim_host *)world)->sim;
    return (uint64_t)sim->o.wall_s * SIM_NS_S + sim->now;
}

static void world_random(void *world, void *out, size_t len) {
    cb_sim_host *h = world;
    for (uint8_t *p = out; len;) {
        uint64_t word = sim_rng_next(&h->rng);
        size_t n = len < sizeof word ? len : sizeof word;
        memcpy(p, &word, n);
        p += n;
        len -= n;
    }
}

static void world_stir(void *world) {
    sim_host_ready(world);
}

static void world_wake(void *world) {
    atomic_store(&((cb_sim_host *)world)->sim->woken, true);
}

static size_t world_resolve(void *world, const char *name, cb_addr *out, size_t cap) {
    const cb_sim_host *h = sim_host_named(((cb_sim_host *)world)->sim, name, strlen(name));
    size_t n = 0;
    for (const cb_list *l = h ? h->addresses.next : NULL; l && l != &h->addresses && n < cap; l = l->next)
        out[n++] = CB_CONTAINER(l, sim_address, link)->addr;
    if (h && h->nat) return 0; /* nobody reaches it from outside by what it calls itself */
    return n;
}

static const cb_virtual_ops ops = {
    .now = world_now,
    .wall = world_wall,
    .random = world_random,
    .stir = world_stir,
    .wake = world_wake,
    .resolve = world_resolve,
    .udp = &sim_udp_port,
};

/* ---- turns ---- */

void sim_host_ready(cb_sim_host *h) {
    if (cb_list_empty(&h->ready)) cb_list_add_tail(&h->sim->ready, &h->ready);
}

static void set_timed(cb_sim_host *h, bool timed) {
    if (timed != h->timed) h->sim->timers += timed ? 1 : (uint64_t)-1;
    h->timed = timed;
}

static void on_wake(sim_event *e, cb_time now) {
    cb_sim_host *h = CB_CONTAINER(e, cb_sim_host, wake);
    (void)now;
    h->wake_at = UINT64_MAX;
    set_timed(h, false);
    sim_host_ready(h);
}

static void receive(void *world) {
    cb_sim_host *h = world;
    if (!cb_list_empty(&h->inbox)) sim_ports_receive(h);
}

void sim_host_turn(cb_sim_host *h) {
    cb_sim *sim = h->sim;
    cb_list_del(&h->ready);
    cb_loop_virtual_turn(h->loop, receive);
    cb_time next = cb_loop_virtual_next(h->loop);
    if (next <= sim->now || !cb_list_empty(&h->inbox)) sim_host_ready(h);
    if (next <= sim->now) next = UINT64_MAX;
    if (next == h->wake_at) return;
    h->wake_at = next;
    set_timed(h, next != UINT64_MAX);
    if (next == UINT64_MAX)
        sim_events_drop(&sim->events, &h->wake);
    else
        (void)sim_set(sim, &h->wake, next);
}

void sim_host_take(cb_sim_host *h, sim_packet *p) {
    uint64_t *why = NULL;
    if (h->nat && !sim_nat_in(h->nat, p))
        why = &h->stats.drop_nat;
    else if (!sim_address_alive(h, &p->to))
        why = &h->stats.drop_address;
    if (why) {
        ++*why;
        sim_packet_free(h->sim, p);
        return;
    }
    cb_list_add_tail(&h->inbox, &p->link);
    sim_host_ready(h);
}

/* ---- life ---- */

static bool name_ok(const char *name) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789-.";
    size_t len = strlen(name);
    return len && len < sizeof((cb_sim_host *)NULL)->name && strspn(name, allowed) == len;
}

static int add_addresses(cb_sim_host *h, const char *list) {
    char text[CB_ADDR_TEXT];
    for (const char *at = list; at;) {
        const char *comma = strchr(at, ',');
        size_t len = comma ? (size_t)(comma - at) : strlen(at);
        cb_addr a;
        if (len >= sizeof text) return cb_fail(CB_EINVAL, "addresses \"%.200s\": not a list of addresses", list);
        memcpy(text, at, len);
        text[len] = '\0';
        int rc = sim_address_parse(&a, text);
        if (rc >= 0) rc = sim_address_add(h, &a, false, false);
        if (rc < 0) return rc;
        at = comma ? comma + 1 : NULL;
    }
    return CB_OK;
}

/* A host that never was must not keep its addresses. */
static void forget(cb_sim_host *h) {
    cb_sim *sim = h->sim;
    while (!cb_list_empty(&h->addresses))
        sim_address_forget(sim, CB_CONTAINER(h->addresses.next, sim_address, link));
    sim_host_destroy(h);
}

int cb_sim_host_new(cb_sim_host **out, cb_sim *sim, const char *name, const char *addresses) {
    if (!out || !sim || !name || !addresses)
        return cb_fail(CB_EINVAL, "cb_sim_host_new: %s is NULL",
                       !out    ? "out"
                       : !sim  ? "sim"
                       : !name ? "name"
                               : "addresses");
    if (!name_ok(name)) return cb_fail(CB_EINVAL, "name \"%.80s\": 1 to 63 of a-z, 0-9, \"-\", \".\"", name);
    if (sim_host_named(sim, name, strlen(name))) return cb_fail(CB_EEXIST, "name \"%s\": there is such a host", name);
    cb_sim_host *h = cb_mem_new(&sim->alloc, sizeof *h);
    if (!h) return cb_fail(CB_ENOMEM, "no memory for a host");
    memcpy(h->name, name, strlen(name));
    h->sim = sim;
    h->number = sim->host_count;
    h->next_port = 49152;
    h->wake_at = UINT64_MAX;
    h->wake.fire = on_wake;
    sim_rng_init(&h->rng, sim->o.seed, (uint64_t)1 << 32 | h->number);
    cb_list_init(&h->link);
    cb_list_init(&h->ready);
    cb_list_init(&h->addresses);
    cb_list_init(&h->inbox);
    cb_map_init(&h->ports, &sim->alloc, sim->hash_key);
    const cb_loop_opts loop = {.size = sizeof loop, .alloc = &sim->alloc, .log = sim->log, .metrics = sim->o.metrics};
    int rc = add_addresses(h, addresses);
    if (rc >= 0) rc = cb_loop_virtual_new(&h->loop, &loop, &ops, h);
    if (rc >= 0) rc = cb_map_put(&sim->names, name, strlen(name), h);
    if (rc < 0) {
        forget(h);
        return rc;
    }
    sim->host_count++;
    cb_list_add_tail(&sim->hosts, &h->link);
    *out = h;
    return CB_OK;
}

cb_loop *cb_sim_host_loop(cb_sim_host *h) {
    return h->loop;
}

const char *cb_sim_host_name(const cb_sim_host *h) {
    return h->name;
}

int cb_sim_host_stats_get(const cb_sim_host *h, cb_sim_host_stats *out) {
    return cb_stats_give(out, &h->stats, sizeof h->stats, "cb_sim_host_stats");
}

void sim_host_destroy(cb_sim_host *h) {
    cb_sim *sim = h->sim;
    cb_loop_virtual_free(h->loop); /* what it still sends goes into links that are there */
    sim_packets_drop(sim, &h->inbox);
    sim_events_drop(&sim->events, &h->wake);
    set_timed(h, false);
    sim_nat_destroy(h->nat);
    sim_paths_free(h);
    cb_map_free(&h->ports);
    cb_list_del(&h->ready);
    cb_list_del(&h->link);
    cb_mem_free(&sim->alloc, h);
}
