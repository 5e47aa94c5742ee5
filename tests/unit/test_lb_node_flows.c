/* Flows over a PoP of nodes: hosts follow over a network that delays and loses, processes (the writer's too) start
 * again, members drain and change their weights, and no flow is lost. */
#include "support/lb_pop.h"

enum { FLOWS = 2000 };

typedef struct flow {
    uint32_t bucket, owner;
    bool live;
} flow;

typedef struct story {
    pop *p;
    flow flows[FLOWS];
    uint64_t packets, forwarded;
} story;

/* As a datapath would find out: from its own table, and what lives here. */
static void report_idle(story *s, uint32_t id) {
    const pop_host *h = &s->p->host[id];
    for (uint32_t b = 0; b < POP_BUCKETS; b++) {
        cb_lb_owner o;
        bool busy = false;
        if (cb_lb_table_bucket(h->path, b, &o) < 0 || o.phase != CB_LB_MOVED || o.second != id) continue;
        for (size_t i = 0; i < FLOWS && !busy; i++)
            busy = s->flows[i].live && s->flows[i].bucket == b && s->flows[i].owner == id;
        if (!busy && h->core->t->buckets) cr_assert_eq(cb_lb_core_idle(h->core, b, s->p->now), CB_OK);
    }
}

/* A packet comes to any host, whether its process runs or not. */
static void packet(story *s) {
    pop *p = s->p;
    cb_lb_owner o;
    flow *f = &s->flows[pop_dice(p, FLOWS)];
    const uint32_t h = 1 + (uint32_t)pop_dice(p, p->n);
    if (!f->live) f->bucket = (uint32_t)pop_dice(p, POP_BUCKETS);
    cr_assert_eq(cb_lb_table_bucket(p->host[h].path, f->bucket, &o), CB_OK);
    s->packets++;
    if (!f->live) {
        f->owner = o.first;
        f->live = true;
        return;
    }
    s->forwarded += o.first != f->owner;
    cr_assert(o.first == f->owner || o.second == f->owner,
              "bucket %u lives at %u; host %u at %u/%llu sends it to %u and %u\n%s", f->bucket, f->owner, h,
              p->host[h].path->epoch, (unsigned long long)p->host[h].path->version, o.first, o.second, p->log);
}

static void restart_some(story *s, uint32_t *down, cb_time *up_at) {
    pop *p = s->p;
    if (*down) {
        if (p->now < *up_at) return;
        pop_start(p, *down);
        *down = 0;
    } else if (pop_dice(p, 400) == 0) {
        *down = 1 + (uint32_t)pop_dice(p, p->n);
        *up_at = p->now + (50 + pop_dice(p, 200)) * MS; /* quicker than a death */
        pop_kill(p, *down);
    }
}

static void change(story *s) {
    pop *p = s->p;
    const uint32_t who = 2 + (uint32_t)pop_dice(p, p->n - 1);
    if (!p->host[1].core) return;
    if (pop_dice(p, 2))
        cb_lb_core_weight(p->host[1].core, who, 20 + (uint32_t)pop_dice(p, 300), p->now);
    else
        cb_lb_core_drain(p->host[1].core, who, pop_dice(p, 3) == 0, p->now);
}

Test(lb_node_flows, no_flow_is_lost_though_processes_restart) {
    static story s;
    s.p = pop_new(6, &(cb_lb_node_opts){.ack_ms = UINT32_MAX,
                                        .settle_ms = UINT32_MAX,
                                        .step_ms = 200,
                                        .moves_per_step = 30,
                                        .misses = 12,
                                        .start_ms = 30000});
    pop *p = s.p;
    for (uint32_t id = 1; id <= 6; id++)
        pop_start(p, id);
    pop_run(p, 3000);
    pop_settle(p, 3000);
    p->loss = 20;
    uint32_t down = 0;
    cb_time up_at = 0;
    for (int i = 0; i < 20000; i++) {
        pop_step(p);
        for (int k = 0; k < 30; k++)
            packet(&s);
        for (int k = 0; k < 3; k++)
            s.flows[pop_dice(p, FLOWS)].live = false;
        if (pop_dice(p, 300) == 0) change(&s);
        restart_some(&s, &down, &up_at);
        const uint32_t id = 1 + (uint32_t)pop_dice(p, 6);
        if (i % 20 == 0 && p->host[id].core) report_idle(&s, id);
        if (i % 100 == 0) pop_hush(p);
    }
    if (down) pop_start(p, down);
    p->loss = 0;
    pop_run(p, 3000);
    cb_lb_node_stats w = pop_stats(p, 1);
    cr_expect_gt(w.epoch, 3, "the writer has started %u times", w.epoch);
    cr_expect_eq(w.writes.late, 0);
    cr_expect_eq(w.deaths, 0);
    cr_expect_gt(s.forwarded, 10000, "%llu of %llu packets went on to a second owner", (unsigned long long)s.forwarded,
                 (unsigned long long)s.packets);
    pop_free(p);
}
