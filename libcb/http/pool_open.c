/* Opening one connection to an origin: a leg over QUIC and a leg over TCP race, QUIC with a head start where nothing
 * speaks against it. What came of it is remembered for the next time. */
#include "base/error.h"
#include "http/pool_int.h"
#include <stdio.h>
#include <string.h>

struct cb_opening {
    cb_list link;
    cb_origin *origin;
    int kind; /* enum cb_opening_kind; a race that TCP has won goes on as CB_OPENING_PROBE */
    cb_leg quic, tcp;
    cb_alarm limit; /* the time for all of it */
    bool over, rescue;
    int rc; /* the gravest of the failures */
    char why[POOL_WHY_BYTES];
    cb_grave grave;
};

cb_origin *cb_opening_origin(const cb_opening *op) {
    return op->origin;
}

bool cb_opening_is_rescue(const cb_opening *op) {
    return op->rescue;
}

static void opening_bury(cb_grave *g) {
    cb_opening *op = CB_CONTAINER(g, cb_opening, grave);
    cb_origin *o = op->origin;
    cb_mem_free(o->pool->alloc, op);
    cb_origin_unref(o);
}

/* ---- the end ---- */

static void quic_over(cb_opening *op) {
    if (op->quic.over) return;
    cb_leg_end(&op->quic);
    op->origin->n_quic--;
}

/* Ends it in whatever state; connections that were being opened go. */
static void finish(cb_opening *op) {
    if (op->over) return;
    op->over = true;
    cb_list_del(&op->link);
    if (op->kind != CB_OPENING_PROBE) op->origin->n_openings--;
    quic_over(op);
    cb_leg_end(&op->tcp);
    cb_alarm_stop(&op->limit);
    cb_loop_bury(op->origin->pool->loop, &op->grave, opening_bury);
}

void cb_opening_note(cb_opening *op, int rc) {
    const size_t used = strlen(op->why);
    const bool grave = op->rc == CB_EAUTH || op->rc == CB_ETLS;
    if (!grave) op->rc = rc;
    if (strstr(op->why, cb_last_error())) return; /* both legs ask for the same name */
    snprintf(op->why + used, sizeof op->why - used, "%s%s", used ? "; " : "", cb_last_error());
}

/* QUIC did not come through where TCP does, or may. */
static void quic_failed(cb_opening *op) {
    cb_origin *o = op->origin;
    const bool about_quic = op->quic.used && op->quic.rc != CB_EAUTH && op->quic.rc != CB_ETLS;
    if (!o->dest || !about_quic) return;
    cb_cells_add(cb_loop_cells(o->pool->loop), CB_C_POOL_FALLBACKS, 1);
    cb_dest_quic_failed(o->dest, &o->pool->dests, cb_loop_now(o->pool->loop));
    cb_log_line(o->pool->log, CB_LOG_DEBUG, "pool", "%s: HTTP/3 does not come through: %s", o->name, op->why);
}

static void fail(cb_opening *op, int rc) {
    const bool waited_for = op->kind != CB_OPENING_PROBE;
    finish(op);
    if (!waited_for) return;
    cb_fail(rc, "%s", op->why);
    cb_origin_open_failed(op->origin, rc);
}

void cb_opening_leg_over(cb_opening *op, cb_leg *leg) {
    cb_origin *o = op->origin;
    if (op->over) return;
    if (leg->quic) {
        o->n_quic--;
        if (leg->alt && (leg->rc == CB_EAUTH || leg->rc == CB_ETLS) && o->dest) /* it is not the origin */
            cb_dest_alt_drop(o->dest, strcmp(leg->host, o->host) == 0 ? "" : leg->host, leg->port);
        if (op->kind == CB_OPENING_PROBE) quic_failed(op);
        if (!op->tcp.over) cb_leg_hurry(&op->tcp);
    }
    if (op->quic.over && op->tcp.over) fail(op, op->rc);
}

/* ---- somebody has won ---- */

void cb_opening_won(cb_opening *op, cb_leg *leg, cb_pool_conn *c) {
    cb_origin *o = op->origin;
    const cb_time now = cb_loop_now(o->pool->loop);
    const bool heard = !leg->quic || !cb_quic_conn_in_early_data(c->drive.qc); /* early data waits for nobody */
    if (o->dest && heard) {
        cb_dest_came_through(o->dest, &c->at, now);
        if (leg->quic) cb_dest_quic_worked(o->dest);
    }
    cb_pool_conn_opened(c);
    if (leg->quic || op->kind == CB_OPENING_PROBE) {
        finish(op);
    } else if (op->quic.over) {
        quic_failed(op); /* it was tried, and TCP proves that the network is there */
        finish(op);
    } else { /* QUIC may be slow only, as when its first packet was lost: let it show */
        cb_leg_end(&op->tcp);
        op->kind = CB_OPENING_PROBE;
        o->n_openings--;
    }
    cb_stall_rescued(o, c);
    cb_origin_wake(o);
}

/* ---- the beginning ---- */

static void on_limit(cb_alarm *a, cb_time now) {
    (void)now;
    cb_opening *op = CB_CONTAINER(a, cb_opening, limit);
    cb_origin *o = op->origin;
    const cb_leg *leg = op->tcp.over ? &op->quic : &op->tcp;
    char failed[POOL_WHY_BYTES];
    snprintf(failed, sizeof failed, "%s", op->why);
    snprintf(op->why, sizeof op->why, "no connection within %llu ms: %s took too long%s%.300s",
             (unsigned long long)(o->pool->opts.connect_timeout / CB_MS), cb_leg_step(leg), *failed ? "; " : "",
             failed);
    op->quic.rc = CB_ETIMEOUT;
    if (op->kind == CB_OPENING_PROBE) quic_failed(op);
    fail(op, CB_ETIMEOUT);
}

/* On another host only what proves to be the origin by its name counts (RFC 7838, 2.1), and never where the caller has
 * said which host to dial. */
static bool may_use(const cb_origin *o, const cb_dest_alt *alt) {
    return !*alt->v.host || (o->t.verify == CB_VERIFY_FULL && strcmp(o->host, o->sni) == 0);
}

/* May HTTP/3 be tried, and where? False: no. */
static bool quic_place(const cb_origin *o, cb_time now, const char **host, uint16_t *port, bool *alt) {
    const cb_dest_alt *other = o->t.alt_svc && o->dest ? cb_dest_offer(o->dest, now) : NULL;
    if (other && !may_use(o, other)) other = NULL;
    *alt = other != NULL;
    *host = other && *other->v.host ? other->v.host : o->host;
    *port = other ? other->v.port : o->t.port;
    return other || (o->t.versions & CB_HTTP_3);
}

static void plan(cb_opening *op) {
    cb_origin *o = op->origin;
    const cb_time now = cb_loop_now(o->pool->loop);
    const bool tcp = (o->t.versions & (CB_HTTP_1 | CB_HTTP_2)) && op->kind != CB_OPENING_PROBE;
    const int hope = o->dest ? cb_dest_quic(o->dest, now) : CB_QUIC_UNTRIED;
    const char *host;
    uint16_t port;
    bool alt, quic = quic_place(o, now, &host, &port, &alt);
    if (tcp && (hope == CB_QUIC_BROKEN || o->n_quic) && op->kind == CB_OPENING_WANTED) quic = false;
    const bool head_start = quic && hope != CB_QUIC_DUE && op->kind != CB_OPENING_RESCUE;
    cb_leg_init(&op->quic, op, true, host, port, now);
    cb_leg_init(&op->tcp, op, false, o->host, o->t.port, head_start ? now + o->pool->opts.h3_grace : now);
    op->quic.alt = alt;
    op->quic.over = !quic;
    op->tcp.over = !tcp;
    o->n_quic += quic;
}

static int start_legs(cb_opening *op) {
    int rc = cb_alarm_set(&op->limit, cb_loop_now(op->origin->pool->loop) + op->origin->pool->opts.connect_timeout);
    if (rc == CB_OK && !op->tcp.over) rc = cb_leg_start(&op->tcp);
    if (rc == CB_OK && !op->quic.over && cb_leg_start(&op->quic) < 0) { /* an alternative's host may be no name */
        op->quic.over = true;
        op->origin->n_quic--;
        if (op->tcp.over)
            rc = op->quic.rc;
        else
            cb_leg_hurry(&op->tcp);
    }
    return rc;
}

int cb_opening_start(cb_origin *o, int kind) {
    cb_pool *p = o->pool;
    cb_opening *op = cb_mem_new(p->alloc, sizeof *op);
    if (!op) return cb_fail(CB_ENOMEM, "connection");
    op->origin = o;
    op->kind = kind;
    op->rescue = kind == CB_OPENING_RESCUE;
    op->rc = CB_EUNREACH;
    cb_list_init(&op->link);
    cb_alarm_init(&op->limit, p->loop, on_limit);
    plan(op);
    int rc = start_legs(op);
    if (rc < 0) {
        quic_over(op);
        cb_leg_end(&op->tcp);
        cb_alarm_stop(&op->limit);
        cb_mem_free(p->alloc, op);
        return rc;
    }
    cb_list_add_tail(&o->openings, &op->link);
    if (kind != CB_OPENING_PROBE) o->n_openings++;
    cb_origin_hold(o);
    return CB_OK;
}

void cb_opening_cancel_all(cb_origin *o) {
    while (!cb_list_empty(&o->openings))
        finish(CB_CONTAINER(o->openings.next, cb_opening, link));
}

void cb_opening_cancel_rescue(cb_origin *o) {
    for (cb_list *l = o->openings.next, *next; l != &o->openings; l = next) {
        next = l->next;
        cb_opening *op = CB_CONTAINER(l, cb_opening, link);
        if (op->kind == CB_OPENING_RESCUE) finish(op);
    }
}

void cb_origin_probe(cb_origin *o) {
    cb_pool *p = o->pool;
    const cb_time now = cb_loop_now(p->loop);
    const char *host;
    uint16_t port;
    bool alt;
    if (o->n_quic || o->quic_conns || !o->dest || p->freed || p->draining) return;
    if (!quic_place(o, now, &host, &port, &alt) || cb_dest_quic(o->dest, now) == CB_QUIC_BROKEN) return;
    if (cb_opening_start(o, CB_OPENING_PROBE) < 0) return;
    p->stats.probes++;
    cb_cells_add(cb_loop_cells(p->loop), CB_C_POOL_PROBES, 1);
}
