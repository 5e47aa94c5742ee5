/* One direction of a line. Two things happen on it: a packet has been sent (its last bit left), and a packet arrives.
 */
#include "base/error.h"
#include "base/opts.h"
#include "sim/sim_int.h"
#include <string.h>

static void tell(cb_sim_link *l, const sim_packet *p, int event, int cause) {
    if (!l->tap) return;
    const cb_sim_packet told = {
        .size = sizeof told,
        .id = p->id,
        .at = l->sim->now,
        .sent_at = p->sent_at,
        .entered_at = p->entered_at,
        .wait_ns = p->wait_ns,
        .link = l,
        .from = p->origin,
        .to = p->target,
        .data = {p->path ? p->data : NULL, p->path ? p->len : 0},
        .event = event,
        .cause = cause,
        .wire_bytes = p->wire,
        .from_port = p->path ? cb_addr_port(&p->from) : 0,
        .to_port = p->path ? cb_addr_port(&p->to) : 0,
        .ecn = p->ecn,
        .copy = p->copy,
        .icmp = p->icmp,
    };
    l->tap(&told, l->tap_user);
}

/* ---- the entry ---- */

static bool policed(cb_sim_link *l, const sim_packet *p) {
    const cb_sim_link_opts *o = &l->o;
    if (!o->police_bps) return false;
    l->tokens += (double)(l->sim->now - l->tokens_at) * ((double)o->police_bps / 8e9);
    l->tokens_at = l->sim->now;
    if (l->tokens > (double)o->police_burst_bytes) l->tokens = (double)o->police_burst_bytes;
    if (l->tokens < p->wire) return true;
    l->tokens -= p->wire;
    return false;
}

static bool lost_in_burst(cb_sim_link *l) {
    const cb_sim_link_opts *o = &l->o;
    if (!(o->burst_enter > 0)) return false;
    if (sim_rng_hit(&l->rng, l->bad ? o->burst_leave : o->burst_enter)) l->bad = !l->bad;
    return l->bad && sim_rng_hit(&l->rng, o->burst_loss);
}

static int judge(cb_sim_link *l, const sim_packet *p) {
    const cb_sim_link_opts *o = &l->o;
    if (o->down) return CB_SIM_CAUSE_DOWN;
    if (p->wire > o->mtu_bytes) return CB_SIM_CAUSE_MTU;
    if (policed(l, p)) return CB_SIM_CAUSE_POLICER;
    if (sim_rng_hit(&l->rng, o->loss)) return CB_SIM_CAUSE_LOSS;
    if (lost_in_burst(l)) return CB_SIM_CAUSE_BURST;
    if (l->serving && l->stats.queue_bytes + p->wire > l->buffer) return CB_SIM_CAUSE_QUEUE;
    return CB_SIM_CAUSE_NONE;
}

static void drop(cb_sim_link *l, sim_packet *p, int cause) {
    cb_sim_link_stats *s = &l->stats;
    uint64_t *const counters[] = {
        [CB_SIM_CAUSE_DOWN] = &s->drop_down,       [CB_SIM_CAUSE_MTU] = &s->drop_mtu,
        [CB_SIM_CAUSE_POLICER] = &s->drop_policer, [CB_SIM_CAUSE_LOSS] = &s->drop_loss,
        [CB_SIM_CAUSE_BURST] = &s->drop_burst,     [CB_SIM_CAUSE_QUEUE] = &s->drop_queue,
    };
    ++*counters[cause];
    sim_digest(l->sim, l, p, CB_SIM_DROPPED);
    tell(l, p, CB_SIM_DROPPED, cause);
    sim_packet_free(l->sim, p);
}

/* ---- the wire ---- */

static void fly(cb_sim_link *l, sim_packet *p) {
    cb_list *at = l->flight.prev;
    while (at != &l->flight && CB_CONTAINER(at, sim_packet, link)->due > p->due)
        at = at->prev;
    cb_list_add_tail(at->next, &p->link);
    if (at == &l->flight) (void)sim_set(l->sim, &l->arrival, p->due);
}

static void corrupt(cb_sim_link *l, sim_packet *p) {
    if (!p->len) return;
    for (uint32_t i = 0; i < l->o.corrupt_bits; i++) {
        uint64_t bit = sim_rng_below(&l->rng, (uint64_t)p->len * 8);
        p->data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    l->stats.corrupted++;
}

static cb_time next_batch(cb_time due, cb_time every) {
    return (due + every - 1) / every * every;
}

static void launch(cb_sim_link *l, sim_packet *p) {
    const cb_sim_link_opts *o = &l->o;
    p->due = l->sim->now + o->delay_us * SIM_NS_US;
    if (o->jitter_us) p->due += sim_rng_below(&l->rng, o->jitter_us * SIM_NS_US + 1);
    p->late = sim_rng_hit(&l->rng, o->reorder);
    if (p->late) {
        p->due += o->reorder_us * SIM_NS_US;
        l->stats.reordered++;
    } else {
        if (o->jitter_us && p->due < l->last_due) p->due = l->last_due;
        l->last_due = p->due;
    }
    if (o->batch_us) p->due = next_batch(p->due, o->batch_us * SIM_NS_US);
    fly(l, p);
}

static void leave(cb_sim_link *l, sim_packet *p) {
    sim_packet *copy = NULL;
    if (l->o.down) {
        drop(l, p, CB_SIM_CAUSE_DOWN);
        return;
    }
    if (sim_rng_hit(&l->rng, l->o.duplicate)) copy = sim_packet_copy(l->sim, p);
    if (sim_rng_hit(&l->rng, l->o.corrupt)) corrupt(l, p);
    launch(l, p);
    if (!copy) return;
    l->stats.duplicated++;
    launch(l, copy);
}

static void on_arrival(sim_event *e, cb_time now) {
    cb_sim_link *l = CB_CONTAINER(e, cb_sim_link, arrival);
    while (!cb_list_empty(&l->flight)) {
        sim_packet *p = CB_CONTAINER(l->flight.next, sim_packet, link);
        if (p->due > now) {
            (void)sim_set(l->sim, e, p->due);
            return;
        }
        cb_list_del(&p->link);
        l->stats.out_packets++;
        l->stats.out_bytes += p->wire;
        sim_digest(l->sim, l, p, CB_SIM_DELIVERED);
        tell(l, p, CB_SIM_DELIVERED, CB_SIM_CAUSE_NONE);
        sim_packet_go(l->sim, p);
    }
}

/* ---- the queue ---- */

/* The remainder goes into the next packet's time, so that the rate is exact in the long run. */
static cb_time time_to_send(cb_sim_link *l, uint32_t wire) {
    uint64_t bits = (uint64_t)wire * 8 * SIM_NS_S + l->carry;
    l->carry = bits % l->o.rate_bps;
    return bits / l->o.rate_bps;
}

static void serve(cb_sim_link *l, sim_packet *p) {
    p->wait_ns = l->sim->now - p->entered_at;
    sim_waits_add(&l->waits, p->wait_ns);
    if (!l->o.rate_bps) {
        leave(l, p);
        return;
    }
    l->serving = p;
    l->serving_since = l->sim->now;
    l->served_at = l->sim->now + time_to_send(l, p->wire);
    (void)sim_set(l->sim, &l->served, l->served_at);
}

static void serve_next(cb_sim_link *l) {
    while (!l->serving && !cb_list_empty(&l->queue)) {
        sim_packet *p = CB_CONTAINER(l->queue.next, sim_packet, link);
        cb_list_del(&p->link);
        l->stats.queue_packets--;
        l->stats.queue_bytes -= p->wire;
        serve(l, p);
    }
}

static void on_served(sim_event *e, cb_time now) {
    cb_sim_link *l = CB_CONTAINER(e, cb_sim_link, served);
    sim_packet *p = l->serving;
    l->serving = NULL;
    l->stats.busy_ns += now - l->serving_since;
    leave(l, p);
    if (cb_list_empty(&l->queue)) l->carry = 0;
    serve_next(l);
}

static void enqueue(cb_sim_link *l, sim_packet *p) {
    cb_sim_link_stats *s = &l->stats;
    cb_list_add_tail(&l->queue, &p->link);
    s->queue_packets++;
    s->queue_bytes += p->wire;
    if (s->queue_bytes > s->queue_bytes_max) s->queue_bytes_max = s->queue_bytes;
}

static void mark(cb_sim_link *l, sim_packet *p) {
    if (!l->o.mark_bytes || l->stats.queue_bytes < l->o.mark_bytes || (p->ecn != 1 && p->ecn != 2)) return;
    p->ecn = 3;
    l->stats.marked++;
}

void sim_link_enter(cb_sim_link *l, sim_packet *p) {
    l->stats.in_packets++;
    l->stats.in_bytes += p->wire;
    p->entered_at = l->sim->now;
    p->wait_ns = 0;
    int cause = judge(l, p);
    if (cause) {
        drop(l, p, cause);
        return;
    }
    mark(l, p);
    tell(l, p, CB_SIM_ENTERED, CB_SIM_CAUSE_NONE);
    if (l->serving)
        enqueue(l, p);
    else
        serve(l, p);
}

/* ---- life ---- */

int cb_sim_link_new(cb_sim_link **out, cb_sim *sim, const cb_sim_link_opts *opts) {
    if (!out || !sim) return cb_fail(CB_EINVAL, "cb_sim_link_new: %s is NULL", !out ? "out" : "sim");
    cb_sim_link_opts o;
    int rc = sim_link_opts_read(&o, opts);
    if (rc < 0) return rc;
    cb_sim_link *l = cb_mem_new(&sim->alloc, sizeof *l);
    if (!l) return cb_fail(CB_ENOMEM, "no memory for a link");
    l->sim = sim;
    l->o = o;
    l->number = sim->link_count++;
    l->buffer = sim_link_buffer(&o);
    l->tokens = (double)o.police_burst_bytes;
    l->tokens_at = l->stats.since_ns = sim->now;
    l->served.fire = on_served;
    l->arrival.fire = on_arrival;
    sim_rng_init(&l->rng, sim->o.seed, (uint64_t)2 << 32 | l->number);
    cb_list_init(&l->queue);
    cb_list_init(&l->flight);
    cb_list_add_tail(&sim->links, &l->link);
    *out = l;
    return CB_OK;
}

/* The packet that is being sent has so much left at the old rate: that much goes at the new one. */
static void change_rate(cb_sim_link *l, uint64_t rate) {
    cb_time now = l->sim->now;
    uint64_t old = l->o.rate_bps;
    l->carry = 0;
    if (!l->serving || rate == old) return;
    double left = (double)(l->served_at - now) * (double)old;
    l->served_at = now + (rate ? (cb_time)(left / (double)rate) : 0);
    (void)sim_set(l->sim, &l->served, l->served_at);
}

int cb_sim_link_set(cb_sim_link *l, const cb_sim_link_opts *opts) {
    if (!l) return cb_fail(CB_EINVAL, "cb_sim_link_set: l is NULL");
    cb_sim_link_opts o;
    int rc = sim_link_opts_read(&o, opts);
    if (rc < 0) return rc;
    change_rate(l, o.rate_bps);
    if (!l->o.police_bps) {
        l->tokens = (double)o.police_burst_bytes;
        l->tokens_at = l->sim->now;
    }
    if (!(o.burst_enter > 0)) l->bad = false;
    l->o = o;
    l->buffer = sim_link_buffer(&o);
    return CB_OK;
}

int cb_sim_link_get(const cb_sim_link *l, cb_sim_link_opts *out) {
    return cb_stats_give(out, &l->o, sizeof l->o, "cb_sim_link_opts");
}

void cb_sim_link_down(cb_sim_link *l, int down) {
    l->o.down = down != 0;
}

void cb_sim_link_tap(cb_sim_link *l, cb_sim_tap_fn fn, void *user) {
    l->tap = fn;
    l->tap_user = user;
}

int cb_sim_link_stats_get(const cb_sim_link *l, cb_sim_link_stats *out) {
    cb_sim_link_stats s = l->stats;
    if (l->serving) s.busy_ns += l->sim->now - l->serving_since;
    s.wait_mean_ns = sim_waits_mean(&l->waits);
    s.wait_p50_ns = sim_waits_at(&l->waits, 0.50);
    s.wait_p95_ns = sim_waits_at(&l->waits, 0.95);
    s.wait_p99_ns = sim_waits_at(&l->waits, 0.99);
    s.wait_max_ns = l->waits.max;
    return cb_stats_give(out, &s, sizeof s, "cb_sim_link_stats");
}

void cb_sim_link_stats_reset(cb_sim_link *l) {
    const cb_sim_link_stats old = l->stats;
    l->stats = (cb_sim_link_stats){.queue_packets = old.queue_packets,
                                   .queue_bytes = old.queue_bytes,
                                   .queue_bytes_max = old.queue_bytes,
                                   .since_ns = l->sim->now};
    l->serving_since = l->sim->now;
    memset(&l->waits, 0, sizeof l->waits);
}

void sim_link_destroy(cb_sim_link *l) {
    cb_sim *sim = l->sim;
    cb_list_del(&l->link);
    sim_events_drop(&sim->events, &l->served);
    sim_events_drop(&sim->events, &l->arrival);
    sim_packets_drop(sim, &l->queue);
    sim_packets_drop(sim, &l->flight);
    if (l->serving) sim_packet_free(sim, l->serving);
    cb_mem_free(&sim->alloc, l);
}
