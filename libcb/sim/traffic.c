/* Packets of nobody, to fill a link. */
#include "base/error.h"
#include "base/opts.h"
#include "sim/sim_int.h"

enum { PACKET_DEFAULT = 1250, PACKET_MIN = 28, PACKET_MAX = 65535 };

struct cb_sim_traffic {
    cb_list link; /* in the simulation */
    cb_sim_link *on;
    cb_sim_traffic_opts o;
    sim_event next;
    sim_rng rng;
    cb_time began;
    uint64_t carry;
};

/* Exponential with mean 1 from comparisons alone (von Neumann): the same bits on every machine. */
static double exponential(sim_rng *r) {
    for (double whole = 0;; whole++) {
        double first = sim_rng_unit(r), last = first;
        unsigned run = 1;
        for (double u; (u = sim_rng_unit(r)) < last; run++)
            last = u;
        if (run % 2) return whole + first;
    }
}

static cb_time gap(cb_sim_traffic *t) {
    uint64_t bits = (uint64_t)t->o.packet_bytes * 8 * SIM_NS_S + t->carry;
    uint64_t ns = bits / t->o.rate_bps;
    t->carry = bits % t->o.rate_bps;
    return t->o.poisson ? (cb_time)((double)ns * exponential(&t->rng)) : ns;
}

/* When `at` falls into silence, the end of that. */
static cb_time when_on(const cb_sim_traffic *t, cb_time at) {
    cb_time on = t->o.on_ms * SIM_NS_MS, cycle = on + t->o.off_ms * SIM_NS_MS;
    if (!t->o.off_ms) return at;
    cb_time into = (at - t->began) % cycle;
    return into < on ? at : at + cycle - into;
}

static void on_next(sim_event *e, cb_time now) {
    cb_sim_traffic *t = CB_CONTAINER(e, cb_sim_traffic, next);
    cb_sim *sim = t->on->sim;
    (void)sim_set(sim, e, when_on(t, now + gap(t)));
    sim_packet *p = sim_packet_new(sim, 0);
    if (!p) return;
    p->id = ++sim->next_id;
    p->sent_at = now;
    p->wire = t->o.packet_bytes;
    p->ecn = t->o.ecn;
    sim_link_enter(t->on, p);
}

static int check(cb_sim_traffic_opts *o) {
    if (!o->rate_bps || o->rate_bps > 10000000000000u)
        return cb_fail(CB_EINVAL, "cb_sim_traffic_opts.rate_bps %llu: 1 to 10^13", (unsigned long long)o->rate_bps);
    if (!o->packet_bytes) o->packet_bytes = PACKET_DEFAULT;
    if (o->packet_bytes < PACKET_MIN || o->packet_bytes > PACKET_MAX)
        return cb_fail(CB_EINVAL, "cb_sim_traffic_opts.packet_bytes %u: %d to %d", o->packet_bytes, PACKET_MIN,
                       PACKET_MAX);
    if (!o->on_ms != !o->off_ms)
        return cb_fail(CB_EINVAL, "cb_sim_traffic_opts.%s: on_ms and off_ms go together",
                       o->on_ms ? "off_ms" : "on_ms");
    if (o->poisson > 1) return cb_fail(CB_EINVAL, "cb_sim_traffic_opts.poisson %u: 0 or 1", o->poisson);
    if (o->ecn > 3) return cb_fail(CB_EINVAL, "cb_sim_traffic_opts.ecn %u: 0 to 3", o->ecn);
    return CB_OK;
}

int cb_sim_traffic_new(cb_sim_traffic **out, cb_sim_link *l, const cb_sim_traffic_opts *opts) {
    cb_sim_traffic_opts o;
    if (!out || !l) return cb_fail(CB_EINVAL, "cb_sim_traffic_new: %s is NULL", !out ? "out" : "l");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_sim_traffic_opts");
    if (rc >= 0) rc = check(&o);
    if (rc < 0) return rc;
    cb_sim *sim = l->sim;
    cb_sim_traffic *t = cb_mem_new(&sim->alloc, sizeof *t);
    if (!t) return cb_fail(CB_ENOMEM, "no memory for cross traffic");
    t->on = l;
    t->o = o;
    t->began = sim->now;
    t->next.fire = on_next;
    sim_rng_init(&t->rng, sim->o.seed, (uint64_t)3 << 32 | sim->traffic_count++);
    rc = sim_events_set(&sim->events, &t->next, sim->now);
    if (rc < 0) {
        cb_mem_free(&sim->alloc, t);
        return rc;
    }
    cb_list_add_tail(&sim->traffic, &t->link);
    *out = t;
    return CB_OK;
}

void cb_sim_traffic_free(cb_sim_traffic *t) {
    if (!t) return;
    cb_sim *sim = t->on->sim;
    sim_events_drop(&sim->events, &t->next);
    cb_list_del(&t->link);
    cb_mem_free(&sim->alloc, t);
}

void sim_traffic_free_all(cb_sim *sim) {
    while (!cb_list_empty(&sim->traffic))
        cb_sim_traffic_free(CB_CONTAINER(sim->traffic.next, cb_sim_traffic, link));
}
