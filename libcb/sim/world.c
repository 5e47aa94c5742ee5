/* Time: what happens next, on which host. */
#include "base/error.h"
#include "base/opts.h"
#include "loop/virtual.h"
#include "sim/sim_int.h"
#include <string.h>

enum { INSTANT_MAX = 1000000 };

static const int64_t wall_default_s = 1767225600; /* 2026-01-01 00:00 UTC */
static const uint64_t max_time_default_ms = 86400000;

/* ---- life ---- */

static void on_end_of_path(cb_sim *sim, sim_packet *p) {
    (void)sim;
    sim_host_take(p->target, p);
}

int cb_sim_new(cb_sim **out, const cb_sim_opts *opts) {
    cb_sim_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_sim_new: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_sim_opts");
    if (rc < 0) return rc;
    if (o.wall_s < 0 || o.wall_s > INT64_C(8000000000))
        return cb_fail(CB_EINVAL, "cb_sim_opts.wall_s %lld: 0 to 8,000,000,000", (long long)o.wall_s);
    if (o.max_time_ms > UINT64_MAX / 4 / SIM_NS_MS)
        return cb_fail(CB_EINVAL, "cb_sim_opts.max_time_ms: more than a century");
    cb_sim *sim = cb_mem_new(o.alloc ? o.alloc : &cb_alloc_libc, sizeof *sim);
    if (!sim) return cb_fail(CB_ENOMEM, "no memory for a simulation");
    sim->alloc = o.alloc ? *o.alloc : cb_alloc_libc;
    sim->log = o.log;
    sim->o = o;
    if (o.metrics) cb_metrics_ref(o.metrics);
    if (!o.wall_s) sim->o.wall_s = wall_default_s;
    if (!o.max_time_ms) sim->o.max_time_ms = max_time_default_ms;
    sim->arrived = on_end_of_path;
    atomic_init(&sim->woken, false);
    sim_rng_init(&sim->rng, o.seed, 0);
    sim_events_init(&sim->events, &sim->alloc);
    sim_rng keys;
    sim_rng_init(&keys, o.seed, UINT64_MAX);
    for (size_t i = 0; i < sizeof sim->hash_key; i++)
        sim->hash_key[i] = (uint8_t)sim_rng_next(&keys);
    cb_map_init(&sim->addresses, &sim->alloc, sim->hash_key);
    cb_map_init(&sim->names, &sim->alloc, sim->hash_key);
    cb_list *const lists[] = {&sim->hosts, &sim->links, &sim->traffic, &sim->scripts, &sim->sockets, &sim->ready};
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
        cb_list_init(lists[i]);
    *out = sim;
    return CB_OK;
}

static void free_addresses(cb_sim *sim) {
    size_t it = 0;
    cb_slice key;
    for (void *a; (a = cb_map_next(&sim->addresses, &it, &key)) != NULL;)
        cb_mem_free(&sim->alloc, a);
    cb_map_free(&sim->addresses);
}

void cb_sim_free(cb_sim *sim) {
    if (!sim || sim->running) return;
    sim->running = true; /* last words of loops must not start anything */
    sim_sockets_free(sim);
    while (!cb_list_empty(&sim->hosts))
        sim_host_destroy(CB_CONTAINER(sim->hosts.next, cb_sim_host, link));
    sim_traffic_free_all(sim);
    while (!cb_list_empty(&sim->links))
        sim_link_destroy(CB_CONTAINER(sim->links.next, cb_sim_link, link));
    sim_scripts_free(sim);
    while (sim->spare) {
        sim_packet *p = sim->spare;
        sim->spare = (sim_packet *)(void *)p->link.next;
        cb_mem_free(&sim->alloc, p);
    }
    free_addresses(sim);
    cb_map_free(&sim->names);
    sim_events_free(&sim->events);
    cb_metrics_unref(sim->o.metrics);
    cb_alloc alloc = sim->alloc;
    cb_mem_free(&alloc, sim);
}

/* ---- running ---- */

void cb_sim_stop(cb_sim *sim) {
    sim->stop = true;
}

/* Tasks from other threads, and cb_loop_stop(). */
static void look_around(cb_sim *sim) {
    if (!atomic_load_explicit(&sim->woken, memory_order_relaxed) || !atomic_exchange(&sim->woken, false)) return;
    for (cb_list *l = sim->hosts.next; l != &sim->hosts; l = l->next) {
        cb_sim_host *h = CB_CONTAINER(l, cb_sim_host, link);
        if (cb_loop_virtual_stopped(h->loop)) sim->stop = true;
        if (cb_loop_virtual_next(h->loop) == 0) sim_host_ready(h);
    }
}

typedef struct run {
    cb_time until;
    bool drain; /* ends when nothing is left */
    uint64_t events, instant;
} run;

/* < 0: a limit. */
static int count(cb_sim *sim, run *r) {
    if (sim->failed) return sim->failed;
    if (sim->o.max_events && ++r->events > sim->o.max_events)
        return cb_fail(CB_ELIMIT, "max_events: %llu have been handled", (unsigned long long)sim->o.max_events);
    if (++r->instant > INSTANT_MAX)
        return cb_fail(CB_ELIMIT,
                       "a million things happened at %llu ns and time does not move: is there a loop without delay?",
                       (unsigned long long)sim->now);
    return CB_OK;
}

static int run_ready(cb_sim *sim, run *r) {
    int rc = CB_OK;
    while (rc == CB_OK && !sim->stop && !cb_list_empty(&sim->ready)) {
        sim_host_turn(CB_CONTAINER(sim->ready.next, cb_sim_host, ready));
        look_around(sim);
        rc = count(sim, r);
    }
    return rc;
}

static int run_events(cb_sim *sim, run *r) {
    int rc = CB_OK;
    while (rc == CB_OK && !sim->stop && sim_events_next(&sim->events) == sim->now) {
        sim_event *e = sim_events_take(&sim->events);
        e->fire(e, sim->now);
        rc = count(sim, r);
    }
    return rc;
}

static int run_world(cb_sim *sim, run *r) {
    int rc = CB_OK;
    look_around(sim);
    for (cb_list *l = sim->hosts.next; l != &sim->hosts; l = l->next)
        sim_host_ready(CB_CONTAINER(l, cb_sim_host, link)); /* a timer that was freed outside tells nobody */
    while (!sim->stop && !sim->failed) {
        rc = run_ready(sim, r);
        if (rc < 0 || sim->stop) break;
        if (r->drain && !sim->flying && !sim->timers && !sim->pending) return CB_OK;
        cb_time next = sim_events_next(&sim->events);
        if (next > r->until) break;
        if (next > sim->now) r->instant = 0;
        sim->now = next;
        rc = run_events(sim, r);
        if (rc < 0) break;
    }
    return sim->failed ? sim->failed : rc;
}

static int run_checked(cb_sim *sim, const char *name, run *r) {
    if (!sim) return cb_fail(CB_EINVAL, "%s: sim is NULL", name);
    if (sim->running) return cb_fail(CB_EINVAL, "%s() was called from inside of the same simulation", name);
    sim->running = true;
    sim->stop = false;
    sim->failed = CB_OK;
    int rc = run_world(sim, r);
    sim->running = false;
    return rc;
}

int cb_sim_run(cb_sim *sim) {
    run r = {.until = sim ? sim->o.max_time_ms * SIM_NS_MS : 0, .drain = true};
    int rc = run_checked(sim, "cb_sim_run", &r);
    if (rc < 0 || sim->stop || (!sim->flying && !sim->timers && !sim->pending)) return rc;
    if (sim->now < r.until) sim->now = r.until;
    return cb_fail(CB_ETIMEOUT, "max_time_ms: something was left to do at %llu ms",
                   (unsigned long long)sim->o.max_time_ms);
}

int cb_sim_run_until(cb_sim *sim, cb_time t) {
    run r = {.until = t};
    int rc = run_checked(sim, "cb_sim_run_until", &r);
    if (rc == CB_OK && !sim->stop && t > sim->now) sim->now = t;
    return rc;
}
