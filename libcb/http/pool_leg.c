/* One leg of an opening: a transport to a host and a port. Both families are asked for together, attempts follow each
 * other by RFC 8305: the next address after the Connection Attempt Delay, or at once when one has failed. */
#include "base/error.h"
#include "http/pool_int.h"
#include <stdio.h>
#include <string.h>

#define RESOLUTION_DELAY (50 * CB_MS) /* RFC 8305, 3: IPv4 addresses wait so long for IPv6 ones */
#define TLS_PATIENCE     (2 * CB_SEC) /* a TCP connection whose handshake hangs gets company */

static cb_pool *pool_of(const cb_leg *leg) {
    return cb_opening_origin(leg->op)->pool;
}

static bool asking(const cb_leg *leg) {
    return leg->names[0].lookup || leg->names[1].lookup;
}

/* ---- the end ---- */

static void stop(cb_leg *leg) {
    leg->over = true;
    cb_alarm_stop(&leg->alarm);
    for (size_t i = 0; i < 2; i++) {
        cb_lookup_cancel(leg->names[i].lookup);
        leg->names[i].lookup = NULL;
    }
}

void cb_leg_end(cb_leg *leg) {
    if (!leg->over) stop(leg);
    while (!cb_list_empty(&leg->tries))
        cb_pool_conn_dropped(CB_CONTAINER(leg->tries.next, cb_pool_conn, link));
}

/* Nothing is left to try, or trying more is no use. */
static void fail(cb_leg *leg, int rc) {
    leg->rc = rc;
    cb_leg_end(leg);
    cb_opening_leg_over(leg->op, leg);
}

/* ---- attempts ---- */

static void attempt(cb_leg *leg, const cb_addr *at) {
    cb_pool_conn *c = NULL;
    leg->used = true;
    int rc = leg->quic ? cb_pool_conn_quic(&c, leg, at) : cb_pool_conn_tcp(&c, leg, at);
    if (rc == CB_OK)
        cb_list_add_tail(&leg->tries, &c->link);
    else {
        leg->rc = rc;
        cb_opening_note(leg->op, rc);
    }
}

/* Begins what is due, and something in any case when nothing is under way. */
static void go(cb_leg *leg, cb_time now) {
    if (leg->over) return;
    if (now < leg->start) {
        cb_alarm_set(&leg->alarm, leg->start);
        return;
    }
    while (cb_list_empty(&leg->tries) || leg->next_due <= now) {
        const cb_addr *at = cb_dial_next(&leg->dial);
        if (!at) break;
        leg->next_due = now + pool_of(leg)->opts.happy_eyeballs;
        attempt(leg, at);
        if (leg->over) return;
    }
    if (cb_dial_has(&leg->dial, 0))
        cb_alarm_set(&leg->alarm, leg->next_due);
    else if (cb_list_empty(&leg->tries) && !asking(leg))
        fail(leg, leg->rc < 0 ? leg->rc : CB_EUNREACH);
}

/* May the first attempt begin, or would waiting for IPv6 addresses be better? */
static bool ready(const cb_leg *leg) {
    if (leg->used || leg->waited || !leg->names[0].lookup) return true;
    return leg->dial.first == AF_INET || cb_dial_has(&leg->dial, AF_INET6);
}

static void on_alarm(cb_alarm *a, cb_time now) {
    cb_leg *leg = CB_CONTAINER(a, cb_leg, alarm);
    leg->waited = true;
    go(leg, now);
}

void cb_leg_hurry(cb_leg *leg) {
    const cb_time now = cb_loop_now(pool_of(leg)->loop);
    leg->start = now;
    if (!leg->over && cb_dial_has(&leg->dial, 0) && ready(leg)) cb_alarm_set(&leg->alarm, now);
}

void cb_leg_connected(cb_leg *leg, const cb_pool_conn *c) {
    for (cb_list *l = leg->tries.next, *next; l != &leg->tries; l = next) {
        next = l->next;
        cb_pool_conn *other = CB_CONTAINER(l, cb_pool_conn, link);
        if (other == c || !other->connector) continue;
        cb_dial_again(&leg->dial, &other->at);
        cb_pool_conn_dropped(other);
    }
    leg->next_due = cb_loop_now(pool_of(leg)->loop) + TLS_PATIENCE;
    if (cb_dial_has(&leg->dial, 0)) cb_alarm_set(&leg->alarm, leg->next_due);
}

void cb_leg_won(cb_leg *leg, cb_pool_conn *c) {
    cb_opening_won(leg->op, leg, c);
}

void cb_leg_lost(cb_leg *leg, cb_pool_conn *c, int rc) {
    const cb_time now = cb_loop_now(pool_of(leg)->loop);
    cb_list_del(&c->link);
    cb_list_add_tail(&c->origin->conns, &c->link); /* until its transport is gone */
    leg->rc = rc;
    cb_opening_note(leg->op, rc);
    if (!leg->quic && rc == CB_EUNREACH && c->origin->dest) cb_dest_went_dead(c->origin->dest, &c->at, now);
    if (rc == CB_EAUTH || rc == CB_ETLS) {
        fail(leg, rc); /* somebody answered, and is not who it must be: another address is no way out */
        return;
    }
    leg->next_due = now;
    go(leg, now);
}

/* ---- names ---- */

static void add(cb_leg *leg, const cb_addr *at, cb_time now) {
    const cb_dest *dest = cb_opening_origin(leg->op)->dest;
    cb_dial_add(&leg->dial, at, dest && cb_dest_is_dead(dest, at, now));
}

static void on_name(int rc, const cb_host_address *at, size_t n, void *user) {
    struct cb_leg_name *name = user;
    cb_leg *leg = name->leg;
    const cb_time now = cb_loop_now(pool_of(leg)->loop);
    name->lookup = NULL;
    for (size_t i = 0; rc == CB_OK && i < n; i++) {
        cb_addr to;
        cb_dial_addr(&to, &at[i], leg->port);
        add(leg, &to, now);
    }
    const bool nothing = !leg->dial.n && !asking(leg);
    if (rc < 0 && (rc != CB_EDNS || (nothing && !leg->rc))) { /* one family may well have no address */
        leg->rc = rc;
        cb_opening_note(leg->op, rc);
    }
    if (nothing) {
        fail(leg, leg->rc);
    } else if (ready(leg)) {
        go(leg, now);
    } else if (cb_dial_has(&leg->dial, 0)) {
        cb_alarm_set(&leg->alarm, now + RESOLUTION_DELAY);
    }
}

static bool literal(cb_leg *leg) {
    char text[CB_ADDR_TEXT + 2];
    cb_addr at;
    const bool v6 = strchr(leg->host, ':') != NULL;
    if (cb_unix_path(leg->host)) {
        at = (cb_addr){.sa.sa_family = AF_UNIX};
        cb_dial_add(&leg->dial, &at, false);
        return true;
    }
    if (strlen(leg->host) >= CB_ADDR_TEXT) return false;
    if (!v6 && leg->host[strspn(leg->host, "0123456789.")]) return false;
    snprintf(text, sizeof text, v6 ? "[%s]" : "%s", leg->host);
    if (cb_addr_parse(&at, text, leg->port) < 0) return false;
    cb_dial_add(&leg->dial, &at, false);
    return true;
}

static int ask(cb_leg *leg) {
    static const int families[] = {CB_FAMILY_V6, CB_FAMILY_V4};
    cb_resolver *resolver = pool_of(leg)->opts.resolver;
    if (!resolver) return cb_fail(CB_EDNS, "%s: there is no resolver for names", leg->host);
    for (size_t i = 0; i < 2; i++) {
        int rc = cb_resolver_lookup(&leg->names[i].lookup, resolver, leg->host, families[i], on_name, &leg->names[i]);
        if (rc < 0) return rc;
    }
    return CB_OK;
}

void cb_leg_init(cb_leg *leg, cb_opening *op, bool quic, const char *host, uint16_t port, cb_time start) {
    leg->op = op;
    leg->quic = quic;
    leg->port = port;
    leg->start = start;
    leg->names[0].leg = leg->names[1].leg = leg;
    snprintf(leg->host, sizeof leg->host, "%s", host);
    cb_list_init(&leg->tries);
    cb_alarm_init(&leg->alarm, pool_of(leg)->loop, on_alarm);
}

int cb_leg_start(cb_leg *leg) {
    const cb_origin *o = cb_opening_origin(leg->op);
    const cb_time now = cb_loop_now(o->pool->loop);
    if (o->dest) leg->dial.first = cb_dest_family(o->dest, now);
    int rc = literal(leg) ? cb_alarm_set(&leg->alarm, leg->start > now ? leg->start : now) : ask(leg);
    if (rc < 0) {
        stop(leg);
        leg->rc = rc;
    }
    return rc;
}

const char *cb_leg_step(const cb_leg *leg) {
    if (!leg->dial.n && asking(leg)) return "resolving the name";
    for (const cb_list *l = leg->tries.next; l != &leg->tries; l = l->next)
        if (!CB_CONTAINER(l, cb_pool_conn, link)->connector)
            return cb_opening_origin(leg->op)->t.tls ? "the TLS handshake" : "the first bytes";
    return "connecting";
}
