/* Opening one connection to an origin: name, addresses in turn, HTTP/3 first where it is wanted, TCP after a while. */
#include "base/error.h"
#include "http/pool_int.h"
#include <stdio.h>
#include <string.h>

struct cb_opening {
    cb_list link;
    cb_origin *origin;
    cb_lookup *lookup;
    cb_dial *dial;
    cb_list tries;  /* connections in their handshake */
    cb_alarm limit; /* the time for all of it */
    cb_alarm hedge; /* when the next attempt is due */
    cb_time h3_due, tcp_due;
    size_t n, next_h3;
    bool begun, over;
    int rc; /* of the last attempt that failed */
    char why[POOL_WHY_BYTES];
    cb_grave grave;
    cb_addr at[POOL_ADDRESSES];
};

cb_origin *cb_opening_origin(const cb_opening *op) {
    return op->origin;
}

static void opening_bury(cb_grave *g) {
    cb_opening *op = CB_CONTAINER(g, cb_opening, grave);
    cb_origin *o = op->origin;
    cb_mem_free(o->pool->alloc, op);
    cb_origin_unref(o);
}

/* Ends it in whatever state; connections that were being opened go. */
static void finish(cb_opening *op) {
    if (op->over) return;
    op->over = true;
    cb_list_del(&op->link);
    op->origin->n_openings--;
    cb_lookup_cancel(op->lookup);
    cb_dial_cancel(op->dial);
    op->lookup = NULL;
    op->dial = NULL;
    cb_alarm_stop(&op->limit);
    cb_alarm_stop(&op->hedge);
    while (!cb_list_empty(&op->tries))
        cb_pool_conn_dropped(CB_CONTAINER(op->tries.next, cb_pool_conn, link));
    cb_loop_bury(op->origin->pool->loop, &op->grave, opening_bury);
}

static void note(cb_opening *op, int rc) {
    const size_t used = strlen(op->why);
    op->rc = rc;
    snprintf(op->why + used, sizeof op->why - used, "%s%s", used ? "; " : "", cb_last_error());
}

static void fail(cb_opening *op, int rc) {
    finish(op);
    cb_fail(rc, "%s", op->why);
    cb_origin_open_failed(op->origin, rc);
}

static bool wants_h3(const cb_opening *op) {
    return (op->origin->t.versions & CB_HTTP_3) != 0 && op->next_h3 < op->n;
}

/* ---- TCP ---- */

static void go_on(cb_opening *op);

static void on_dial(int fd_or_rc, const cb_addr *at, void *user) {
    cb_opening *op = user;
    cb_pool_conn *c = NULL;
    op->dial = NULL;
    int rc = fd_or_rc < 0 ? fd_or_rc : cb_pool_conn_tcp(&c, op, fd_or_rc, at);
    if (rc == CB_OK) {
        cb_list_add_tail(&op->tries, &c->link);
        return;
    }
    note(op, rc);
    go_on(op);
}

static int begin_tcp(cb_opening *op) {
    cb_pool *p = op->origin->pool;
    op->tcp_due = CB_NEVER;
    return cb_dial_start(&op->dial, p->loop, op->at, op->n, p->opts.happy_eyeballs, on_dial, op);
}

/* ---- QUIC ---- */

static int begin_h3(cb_opening *op) {
    cb_pool_conn *c = NULL;
    int rc = cb_pool_conn_quic(&c, op, &op->at[op->next_h3++]);
    if (rc == CB_OK) cb_list_add_tail(&op->tries, &c->link);
    return rc;
}

/* ---- what comes next ---- */

/* Begins what is due, and something in any case when nothing is under way; fails when there is nothing left. */
static void go_on(cb_opening *op) {
    cb_pool *p = op->origin->pool;
    const cb_time now = cb_loop_now(p->loop);
    for (;;) {
        const bool nothing = cb_list_empty(&op->tries) && !op->dial;
        int rc = CB_OK;
        if (wants_h3(op) && (nothing || op->h3_due <= now)) {
            op->h3_due = now + p->opts.happy_eyeballs;
            rc = begin_h3(op);
        } else if (op->tcp_due != CB_NEVER && (nothing || op->tcp_due <= now)) {
            rc = begin_tcp(op);
        } else if (nothing) {
            fail(op, op->rc);
            return;
        } else {
            break;
        }
        if (rc < 0) note(op, rc);
    }
    cb_time due = op->tcp_due;
    if (wants_h3(op) && op->h3_due < due) due = op->h3_due;
    cb_alarm_set(&op->hedge, due);
}

static void on_hedge(cb_alarm *a, cb_time now) {
    (void)now;
    go_on(CB_CONTAINER(a, cb_opening, hedge));
}

static void begin(cb_opening *op) {
    const uint32_t versions = op->origin->t.versions;
    const cb_time now = cb_loop_now(op->origin->pool->loop);
    op->begun = true;
    op->h3_due = now;
    op->tcp_due = CB_NEVER;
    if (versions & (CB_HTTP_1 | CB_HTTP_2))
        op->tcp_due = versions & CB_HTTP_3 ? now + op->origin->pool->opts.h3_grace : now;
    go_on(op);
}

void cb_opening_won(cb_opening *op, cb_pool_conn *c) {
    cb_pool_conn_opened(c);
    finish(op);
    cb_origin_wake(op->origin);
}

void cb_opening_lost(cb_opening *op, cb_pool_conn *c, int rc) {
    cb_list_del(&c->link);
    cb_list_add_tail(&c->origin->conns, &c->link); /* until its transport is gone */
    note(op, rc);
    if (rc == CB_EAUTH || rc == CB_ETLS)
        fail(op, rc); /* the origin answered, and is not who it must be: another address or version is no way out */
    else if (cb_list_empty(&op->tries) && !op->dial)
        go_on(op);
}

/* ---- names and time ---- */

static void on_lookup(int rc, const cb_host_address *at, size_t n, void *user) {
    cb_opening *op = user;
    op->lookup = NULL;
    if (rc < 0) {
        note(op, rc);
        fail(op, rc);
        return;
    }
    op->n = cb_dial_order(op->at, POOL_ADDRESSES, at, n, op->origin->t.port);
    begin(op);
}

static void on_limit(cb_alarm *a, cb_time now) {
    (void)now;
    cb_opening *op = CB_CONTAINER(a, cb_opening, limit);
    cb_origin *o = op->origin;
    const char *step = op->lookup ? "resolving the name"
                       : op->dial ? "connecting"
                       : o->t.tls ? "the TLS handshake"
                                  : "the first bytes";
    char failed[POOL_WHY_BYTES];
    snprintf(failed, sizeof failed, "%s", op->why);
    snprintf(op->why, sizeof op->why, "no connection within %llu ms: %s took too long%s%.300s",
             (unsigned long long)(o->pool->opts.connect_timeout / CB_MS), step, *failed ? "; " : "", failed);
    fail(op, CB_ETIMEOUT);
}

static int literal(cb_opening *op) {
    char text[CB_ADDR_TEXT + 2];
    const char *host = op->origin->host;
    if (strlen(host) >= CB_ADDR_TEXT) return cb_fail(CB_EDNS, "%s: there is no resolver for names", host);
    snprintf(text, sizeof text, strchr(host, ':') ? "[%s]" : "%s", host);
    int rc = cb_addr_parse(&op->at[0], text, op->origin->t.port);
    op->n = 1;
    return rc < 0 ? cb_fail(CB_EDNS, "%s: there is no resolver for names", host) : CB_OK;
}

static void on_start(cb_alarm *a, cb_time now) {
    (void)now;
    cb_opening *op = CB_CONTAINER(a, cb_opening, hedge);
    if (op->begun)
        on_hedge(a, now);
    else
        begin(op);
}

int cb_opening_start(cb_origin *o) {
    cb_pool *p = o->pool;
    cb_opening *op = cb_mem_new(p->alloc, sizeof *op);
    if (!op) return cb_fail(CB_ENOMEM, "connection");
    op->origin = o;
    op->rc = CB_EUNREACH;
    cb_list_init(&op->tries);
    cb_list_init(&op->link);
    cb_alarm_init(&op->limit, p->loop, on_limit);
    cb_alarm_init(&op->hedge, p->loop, on_start);
    int rc = p->opts.resolver ? cb_resolver_lookup(&op->lookup, p->opts.resolver, o->host, CB_FAMILY_ANY, on_lookup, op)
                              : literal(op);
    if (rc == CB_OK) rc = cb_alarm_set(&op->limit, cb_loop_now(p->loop) + p->opts.connect_timeout);
    if (rc == CB_OK && !op->lookup) rc = cb_alarm_set(&op->hedge, cb_loop_now(p->loop));
    if (rc < 0) {
        cb_lookup_cancel(op->lookup);
        cb_alarm_stop(&op->limit);
        cb_mem_free(p->alloc, op);
        return rc;
    }
    cb_list_add_tail(&o->openings, &op->link);
    o->n_openings++;
    cb_origin_hold(o);
    return CB_OK;
}

void cb_opening_cancel_all(cb_origin *o) {
    while (!cb_list_empty(&o->openings))
        finish(CB_CONTAINER(o->openings.next, cb_opening, link));
}
