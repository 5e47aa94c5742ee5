/* QUIC connections that fall silent while requests wait: a path that lets UDP through no more, a server or a whole PoP
 * that died, a NAT that forgot. Nobody says so, and the idle timeout is far: when several probe timeouts pass without
 * a packet, another way is tried beside it (all addresses, QUIC and TCP), and what may be repeated moves there. If the
 * connection comes back to life first, it stays. */
#include "base/error.h"
#include "http/pool_int.h"
#include <string.h>

#define SILENCE_MIN  (400 * CB_MS)  /* a peer may be busy for a moment */
#define SILENCE_MAX  (1200 * CB_MS) /* also where round trips take long */
#define PING_FIRST   (500 * CB_MS)  /* after so long without data a waiting client asks whether anybody is there */
#define PING_MAX     (15 * CB_SEC)
#define GIVE_UP      (3 * CB_SEC) /* another way works, and this one has been silent for so long on top */
#define RESCUE_AGAIN (1 * CB_SEC) /* after another way was not found either */
#define LOOK_AGAIN   (50 * CB_MS)

enum { PTOS = 3 };

static void look(cb_alarm *a, cb_time now);

void cb_stall_init(cb_pool_conn *c) {
    cb_alarm_init(&c->watch, c->drive.loop, look);
}

static bool waits(const cb_pool_conn *c) {
    return c->drive.h && c->drive.h->n_exchanges;
}

void cb_stall_watch(cb_pool_conn *c) {
    if (!c->is_quic || !c->drive.qc || cb_alarm_at(&c->watch) != CB_NEVER) return;
    c->busy_since = cb_loop_now(c->drive.loop);
    cb_quic_conn_keep_alive(c->drive.qc, PING_FIRST);
    cb_alarm_set(&c->watch, c->busy_since + SILENCE_MIN);
}

static cb_time patience(const cb_quic_pulse *p) {
    const cb_time t = PTOS * p->pto;
    return t < SILENCE_MIN ? SILENCE_MIN : t < SILENCE_MAX ? t : SILENCE_MAX;
}

/* ---- silent, and not any more ---- */

/* Until one is found: the network may be gone for a while, and come back as another one. */
static void look_for_another_way(cb_pool_conn *c, cb_time now) {
    cb_origin *o = c->origin;
    if (o->pool->freed || o->n_openings || c->silent_due != CB_NEVER || now < c->rescue_due) return;
    c->rescue_due = now + RESCUE_AGAIN;
    (void)cb_opening_start(o, CB_OPENING_RESCUE);
}

static void fall_silent(cb_pool_conn *c, cb_time since, cb_time now) {
    cb_origin *o = c->origin;
    char text[CB_ADDR_TEXT];
    c->silent = true;
    c->silent_due = CB_NEVER;
    o->quic_conns--;
    o->pool->stats.silent++;
    cb_cells_add(cb_loop_cells(o->pool->loop), CB_C_POOL_SILENT, 1);
    cb_list_del(&c->avail);
    cb_log_line(o->pool->log, CB_LOG_INFO, "pool", "%s: nothing from %s for %llu ms while %zu requests wait", o->name,
                cb_addr_text(&c->at, text), (unsigned long long)((now - since) / CB_MS), c->drive.h->n_exchanges);
    if (o->dest) cb_dest_went_dead(o->dest, &c->at, now);
    c->rescue_due = now;
    look_for_another_way(c, now);
}

static void come_back(cb_pool_conn *c, cb_time now) {
    cb_origin *o = c->origin;
    c->silent = false;
    o->quic_conns++;
    if (o->dest) cb_dest_came_through(o->dest, &c->at, now);
    cb_opening_cancel_rescue(o);
    cb_pool_conn_offer(c);
    cb_origin_wake(o);
}

static void take_away(cb_pool_conn *c, cb_exchange *x) {
    c->drive.h->vt->reset(c->drive.h, x, CB_RESET_CANCEL); /* should it come back, it need not answer */
    cb_exchange_closed(x, CB_ECLOSED);
}

/* What was asked for, and nothing of its answer has come, goes elsewhere if it may. No user is called here: the pool
 * takes such an exchange back. */
static void move_exchanges(cb_pool_conn *c) {
    for (cb_list *l = c->drive.h->exchanges.next, *next; l != &c->drive.h->exchanges; l = next) {
        next = l->next;
        cb_exchange *x = CB_CONTAINER(l, cb_exchange, link);
        if (!x->head_in && cb_pool_may_move(x)) take_away(c, x);
    }
    cb_drive_later(&c->drive);
}

void cb_stall_rescued(cb_origin *o, cb_pool_conn *fresh) {
    const cb_time now = cb_loop_now(o->pool->loop);
    for (cb_list *l = o->conns.next; l != &o->conns; l = l->next) {
        cb_pool_conn *c = CB_CONTAINER(l, cb_pool_conn, link);
        if (!c->silent || !c->open || c == fresh || !c->drive.h) continue;
        if (c->silent_due == CB_NEVER) c->silent_due = now + GIVE_UP;
        move_exchanges(c);
    }
}

static void give_up(cb_pool_conn *c) {
    char text[CB_ADDR_TEXT];
    cb_addr_text(&c->at, text);
    while (waits(c)) {
        cb_exchange *x = CB_CONTAINER(c->drive.h->exchanges.next, cb_exchange, link);
        x->on_retry = NULL;
        cb_fail(CB_ECLOSED,
                "%s: the HTTP/3 connection to %s fell silent after the %s; another connection works, but this request "
                "was sent and must not be repeated",
                c->origin->name, text, x->head_in ? "response had begun" : "request had gone out");
        take_away(c, x);
    }
    cb_fail(CB_ECLOSED, "fell silent");
    cb_drive_end(&c->drive, CB_ECLOSED, false);
}

/* ---- looking after it ---- */

/* How long a peer that sends no data, but answers, is left alone: longer and longer. */
static void pace_pings(cb_pool_conn *c, const cb_quic_pulse *p, cb_time now) {
    if (p->rx_bytes > c->busy_bytes + 256) c->busy_since = now; /* more than answers to a PING */
    c->busy_bytes = p->rx_bytes;
    cb_time every = (now - c->busy_since) / 4;
    every = every < PING_FIRST ? PING_FIRST : every < PING_MAX ? every : PING_MAX;
    cb_quic_conn_keep_alive(c->drive.qc, every);
}

static void look(cb_alarm *a, cb_time now) {
    cb_pool_conn *c = CB_CONTAINER(a, cb_pool_conn, watch);
    if (!c->drive.qc || !c->open || c->drive.ending) return;
    const cb_quic_pulse p = cb_quic_conn_pulse(c->drive.qc);
    const cb_time allowed = patience(&p);
    if (c->silent && !p.owed) come_back(c, now);
    if (!waits(c) && !c->silent) {
        cb_quic_conn_keep_alive(c->drive.qc, 0);
        return;
    }
    if (c->silent) {
        if (c->silent_due <= now) {
            give_up(c);
            return;
        }
        look_for_another_way(c, now);
        cb_alarm_set(&c->watch, now + LOOK_AGAIN);
        return;
    }
    if (p.owed && now - p.owed >= allowed) {
        fall_silent(c, p.owed, now);
        cb_alarm_set(&c->watch, now + LOOK_AGAIN);
        return;
    }
    pace_pings(c, &p, now);
    cb_alarm_set(&c->watch, p.owed ? p.owed + allowed : now + SILENCE_MIN / 2);
}
