/* Flows over a forwarding table: whoever is behind, and whoever dies, none is lost but those of the dead. */
#include "support/lb_rig.h"
#include <stdio.h>

static uint64_t step(uint64_t *x) {
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

enum { HOSTS = 6, FLOWS = 3000, BUCKETS = 251 };

typedef struct flow {
    uint32_t bucket, owner;
    bool live;
} flow;

/* Every host has a copy of its own, some records behind. A packet comes to any of them; the flow lives where its first
 * packet was accepted, and must be found there at every other. */
typedef struct pop {
    rig r;
    cb_lb_table *host[HOSTS + 1];
    size_t applied[HOSTS + 1];
    bool dead[HOSTS + 1];
    flow flows[FLOWS];
    uint64_t x, packets, forwarded, lost;
    unsigned deaths;
    uint32_t rises; /* has come back, follows the log, and takes no packets before the table has it up */
} pop;

static void host_apply(pop *p, uint32_t h) {
    if ((p->dead[h] && p->rises != h) || p->applied[h] >= p->r.n) return;
    cr_assert_eq(cb_lb_table_apply(p->host[h], (cb_slice){p->r.log[p->applied[h]].base, p->r.log[p->applied[h]].len}),
                 CB_OK, "%s", cb_last_error());
    p->applied[h]++;
    cb_lb_writer_ack(p->r.writer, h, p->applied[h]);
    const int seat = cb_lb_table_seat(p->host[h], h);
    if (p->rises != h || p->applied[h] < p->r.n || p->host[h]->seats[seat].state != CB_LB_UP) return;
    p->dead[h] = false;
    p->rises = 0;
}

static void host_report(pop *p, uint32_t h) {
    for (uint32_t b = 0; b < BUCKETS; b++) {
        cb_lb_owner o;
        bool busy = false;
        cb_lb_table_bucket(p->r.table, b, &o);
        if (o.phase != CB_LB_MOVED || o.second != h) continue;
        for (size_t i = 0; i < FLOWS && !busy; i++)
            busy = p->flows[i].live && p->flows[i].bucket == b && p->flows[i].owner == h;
        if (!busy) cr_assert_geq(cb_lb_writer_idle(p->r.writer, h, b, p->r.now), 0);
    }
}

/* What a host that is behind sends to a dead one is lost until it has caught up; no flow is. */
static bool on_its_way_to_the_dead(pop *p, uint32_t h, const cb_lb_owner *o) {
    if (!p->dead[o->first]) return false;
    cr_assert_lt(p->applied[h], p->r.n, "host %u knows all, and sends to %u, which is dead", h, o->first);
    p->lost++;
    return true;
}

static void packet(pop *p, flow *f) {
    cb_lb_owner o;
    uint32_t h = 0;
    do
        h = 1 + (uint32_t)(step(&p->x) % HOSTS);
    while (p->dead[h]);
    if (!f->live) f->bucket = (uint32_t)(step(&p->x) % BUCKETS);
    cr_assert_eq(cb_lb_table_bucket(p->host[h], f->bucket, &o), CB_OK);
    p->packets++;
    if (on_its_way_to_the_dead(p, h, &o)) return;
    if (!f->live) {
        f->owner = o.first;
        f->live = true;
        return;
    }
    p->forwarded += o.first != f->owner;
    cr_assert(o.first == f->owner || o.second == f->owner,
              "bucket %u lives at %u; host %u, %zu records behind, sends it to %u and %u", f->bucket, f->owner, h,
              p->r.n - p->applied[h], o.first, o.second);
}

static void change(pop *p) {
    const uint32_t who = 2 + (uint32_t)(step(&p->x) % (HOSTS - 1));
    const uint32_t weight = 1 + (uint32_t)(step(&p->x) % 9);
    if (!p->dead[who]) member(&p->r, who, weight, step(&p->x) % 3 ? CB_LB_UP : CB_LB_DRAINING);
}

/* One host at a time: it dies with its flows, or comes back without any. */
static void kill_or_raise(pop *p) {
    uint32_t who = 0;
    for (uint32_t h = 2; h <= HOSTS; h++)
        if (p->dead[h]) who = h;
    if (who) {
        member(&p->r, who, 5, CB_LB_UP);
        p->rises = who;
        return;
    }
    who = 2 + (uint32_t)(step(&p->x) % (HOSTS - 1));
    p->dead[who] = true;
    p->deaths++;
    for (size_t i = 0; i < FLOWS; i++)
        if (p->flows[i].owner == who) p->flows[i].live = false;
    member(&p->r, who, 5, CB_LB_DEAD);
    run(&p->r);
}

static void play(pop *p, bool deaths) {
    for (int i = 0; i < 1000000; i++) {
        const uint64_t what = step(&p->x) % 1000;
        const uint32_t h = 1 + (uint32_t)(step(&p->x) % HOSTS);
        flow *f = &p->flows[step(&p->x) % FLOWS];
        if (what < 30 && p->r.n < LOG_MAX - 20) {
            p->r.now += S / 4;
            run(&p->r);
        } else if (what < 50) {
            if (h > 1 || step(&p->x) % 4 == 0) host_apply(p, h); /* one is slower than all others */
        } else if (what < 70) {
            if (!p->dead[h]) host_report(p, h);
        } else if (what == 70) {
            if (deaths && step(&p->x) % 4 == 0 && p->r.n < LOG_MAX - 20)
                kill_or_raise(p);
            else
                change(p);
        } else if (what < 120) {
            f->live = false;
        } else {
            packet(p, f);
        }
    }
}

static void no_flow_is_lost(bool deaths) {
    pop *p = calloc(1, sizeof *p);
    p->x = 0x9e3779b97f4a7c15u;
    make_of(&p->r, &(cb_lb_writer_opts){
                       .buckets = BUCKETS, .moves_per_step = 40, .ack_ms = UINT32_MAX, .settle_ms = UINT32_MAX});
    for (uint32_t h = 1; h <= HOSTS; h++) {
        member(&p->r, h, 5, CB_LB_UP);
        cr_assert_eq(cb_lb_table_new(&p->host[h], CB_OPTS(cb_lb_table_opts, .key = key)), CB_OK);
    }
    run(&p->r);
    for (uint32_t h = 1; h <= HOSTS; h++)
        while (p->applied[h] < p->r.n)
            host_apply(p, h);
    play(p, deaths);
    cb_lb_writer_stats w = {.size = sizeof w};
    cb_lb_writer_stats_get(p->r.writer, &w);
    cr_expect_gt(w.moves, BUCKETS, "%llu moves", (unsigned long long)w.moves);
    cr_expect_gt(p->forwarded, 1000, "%llu forwarded", (unsigned long long)p->forwarded);
    cr_expect_eq(w.late, 0);
    if (deaths) cr_expect(p->deaths > 15 && p->lost > 100, "%u deaths, %d packets", p->deaths, (int)p->lost);
    for (uint32_t h = 1; h <= HOSTS; h++)
        cb_lb_table_free(p->host[h]);
    drop(&p->r);
    free(p);
}

Test(lb_flows, no_flow_is_lost_whoever_is_behind) {
    no_flow_is_lost(false);
}

Test(lb_flows, deaths_take_only_their_own_flows) {
    no_flow_is_lost(true);
}
