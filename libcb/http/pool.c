/* Pools, origins and the requests that wait for a connection. */
#include "base/error.h"
#include "base/opts.h"
#include "http/pool_int.h"
#include <stdio.h>
#include <string.h>

enum { MOVES_MAX = 3 };

/* ---- memory ---- */

static void drop_spare(cb_pool *p) {
    while (!cb_list_empty(&p->spare)) {
        cb_pool_req *r = CB_CONTAINER(p->spare.next, cb_pool_req, link);
        cb_list_del(&r->link);
        cb_buf_free(&r->bytes);
        cb_mem_free(p->alloc, r);
    }
    while (!cb_list_empty(&p->spare_exchanges)) {
        cb_exchange *x = CB_CONTAINER(p->spare_exchanges.next, cb_exchange, link);
        cb_list_del(&x->link);
        cb_exchange_destroy(x);
    }
    p->n_spare = p->n_spare_exchanges = 0;
}

static void pool_bury(cb_grave *g) {
    cb_pool *p = CB_CONTAINER(g, cb_pool, grave);
    drop_spare(p);
    cb_session_cache_free(p->sessions);
    cb_dests_free(&p->dests);
    cb_map_free(&p->origins);
    cb_mem_free(p->alloc, p);
}

void cb_pool_unref(cb_pool *p) {
    if (--p->refs == 0) cb_loop_bury(p->loop, &p->grave, pool_bury);
}

void cb_origin_wake(cb_origin *o) {
    cb_defer_later(&o->dispatch);
}

/* ---- requests ---- */

static bool idempotent(cb_slice method) {
    static const char *const safe_to_repeat[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"};
    for (size_t i = 0; i < sizeof safe_to_repeat / sizeof *safe_to_repeat; i++)
        if (cb_slice_eq(method, safe_to_repeat[i])) return true;
    return false;
}

/* Early data may be replayed (RFC 8470, 2.1): only what changes nothing goes before the handshake is complete. */
static bool must_wait(const cb_pool_req *r, const cb_pool_conn *c) {
    static const char *const safe[] = {"GET", "HEAD", "OPTIONS"};
    if (!c->drive.qc || !cb_quic_conn_in_early_data(c->drive.qc)) return false;
    for (size_t i = 0; !r->has_body && !r->no_early && i < sizeof safe / sizeof *safe; i++)
        if (cb_slice_eq(r->head.method, safe[i])) return false;
    return true;
}

static void enqueue(cb_pool_req *r, bool front) {
    cb_origin *o = r->origin;
    cb_list_add_tail(front ? o->queue.next : &o->queue, &r->link);
    r->queued_now = true;
    r->number = ++o->waited;
    o->stats.queued++;
    cb_cells_move(cb_loop_cells(o->pool->loop), CB_C_POOL_WAITING, 1);
    cb_time due = r->times.queued + o->pool->opts.queue_timeout;
    if (due < cb_alarm_at(&o->queue_alarm)) cb_alarm_set(&o->queue_alarm, due);
    cb_origin_wake(o);
}

static void dequeue(cb_pool_req *r) {
    if (!r->queued_now) return;
    cb_list_del(&r->link);
    r->queued_now = false;
    r->origin->stats.queued--;
    cb_cells_move(cb_loop_cells(r->origin->pool->loop), CB_C_POOL_WAITING, -1);
}

/* The detail is set. */
static void req_fail(cb_pool_req *r, int rc) {
    dequeue(r);
    cb_exchange_closed(r->x, rc);
}

static void leave_conn(cb_pool_req *r) {
    if (!r->conn) return;
    r->origin->stats.active--;
    cb_cells_move(cb_loop_cells(r->origin->pool->loop), CB_C_POOL_ACTIVE, -1);
    cb_pool_conn_released(r->conn);
    r->conn = NULL;
}

static void on_keep(cb_exchange *x, void *user) {
    cb_pool *p = user;
    if (p->freed || p->n_spare_exchanges >= POOL_SPARE_REQS ||
        x->in.arena.cap + x->trailers.arena.cap > POOL_SPARE_BYTES) {
        cb_exchange_destroy(x);
        return;
    }
    cb_list_init(&x->link);
    cb_list_add_tail(&p->spare_exchanges, &x->link);
    p->n_spare_exchanges++;
}

static void on_release(cb_exchange *x, void *user) {
    cb_pool_req *r = user;
    cb_origin *o = r->origin;
    cb_pool *p = o->pool;
    if (p->freed) x->on_keep = NULL; /* the pool may be buried before x is */
    dequeue(r);
    leave_conn(r);
    cb_alarm_stop(&r->alarm);
    if (p->n_spare < POOL_SPARE_REQS && !p->freed && r->bytes.cap <= POOL_SPARE_BYTES) {
        r->bytes.len = 0;
        p->n_spare++;
        cb_list_add_tail(&p->spare, &r->link);
    } else {
        cb_buf_free(&r->bytes);
        cb_mem_free(p->alloc, r);
    }
    cb_origin_unref(o);
}

static bool may_repeat(const cb_pool_req *r) {
    return r->conn && r->sent && !r->no_retry && !r->has_body && !r->origin->pool->freed;
}

bool cb_pool_may_move(const cb_exchange *x) {
    const cb_pool_req *r = x->release_user;
    return may_repeat(r) && r->moves < MOVES_MAX && idempotent(r->head.method);
}

/* Nothing of a response has come. Is it safe to send it again (RFC 9110, 9.2.2; RFC 9113, 8.7)? */
static bool goes_again(const cb_pool_req *r, const cb_exchange *x, int rc) {
    const cb_pool_conn *c = r->conn;
    if (!may_repeat(r)) return false;
    if (c->silent) return cb_pool_may_move(x);
    if (r->retried) return false;
    const bool quic_gone = c->drive.qc && cb_quic_conn_is_over(c->drive.qc); /* not just this stream */
    const bool lost = rc == CB_ECLOSED || rc == CB_EUNREACH || rc == CB_ESYS || (quic_gone && rc == CB_ETIMEOUT);
    return x->refused || x->too_early || (lost && idempotent(r->head.method) && (r->reused || quic_gone || c->excused));
}

static bool on_retry(cb_exchange *x, int rc, void *user) {
    cb_pool_req *r = user;
    cb_origin *o = r->origin;
    const bool again = goes_again(r, x, rc), moves = again && r->conn->silent;
    const bool elsewhere = again && (moves || x->too_early || r->conn->excused || r->conn->is_quic);
    leave_conn(r);
    if (!again) return false;
    cb_pool_count_retried(r, moves);
    const bool early = x->early && rc == CB_EAGAIN; /* not taken as early data: its connection is good all the same */
    r->fresh = !early && (x->refused || !elsewhere);
    r->retried = r->retried || !moves;
    r->moves += moves;
    o->pool->stats.moved += moves;
    r->no_early = true;
    x->refused = x->too_early = x->early = 0;
    r->sent = r->reused = false;
    r->times = (cb_pool_times){.queued = cb_loop_now(o->pool->loop)};
    r->version = 0;
    r->head_due = CB_NEVER;
    o->stats.retried++;
    o->pool->stats.retried++;
    enqueue(r, true);
    return true;
}

static void arm(cb_pool_req *r) {
    cb_time due = r->head_due < r->due ? r->head_due : r->due;
    if (due < cb_alarm_at(&r->alarm)) cb_alarm_set(&r->alarm, due);
}

static void on_req_alarm(cb_alarm *a, cb_time now) {
    cb_pool_req *r = CB_CONTAINER(a, cb_pool_req, alarm);
    if (r->x->head_in) r->head_due = CB_NEVER;
    if (r->due > now && r->head_due > now) {
        arm(r);
        return;
    }
    cb_fail(CB_ETIMEOUT,
            r->due <= now ? "%s: the request took longer than its time limit"
                          : "%s: no response head within the time limit",
            r->origin->name);
    r->no_retry = true;
    if (r->conn)
        cb_exchange_abort(r->x, CB_ETIMEOUT);
    else
        req_fail(r, CB_ETIMEOUT);
}

static void copy_slice(cb_buf *b, cb_slice *s) {
    const size_t at = b->len;
    if (s->len) memcpy(b->base + at, s->base, s->len);
    b->len += s->len;
    s->base = b->base + at;
}

/* The array of fields first (for its alignment), then the texts; one reservation, so that nothing moves. */
static int copy_head(cb_pool_req *r, const cb_head *head) {
    cb_head *h = &r->head;
    *h = *head;
    size_t need =
        head->n * sizeof(cb_field) + h->method.len + h->scheme.len + h->authority.len + h->path.len + h->protocol.len;
    for (size_t i = 0; i < head->n; i++)
        need += head->fields[i].name.len + head->fields[i].value.len;
    r->bytes.len = 0;
    int rc = cb_buf_reserve(&r->bytes, need ? need : 1);
    if (rc < 0) return rc;
    cb_field *fields = (cb_field *)(void *)r->bytes.base;
    r->bytes.len = head->n * sizeof *fields;
    for (size_t i = 0; i < head->n; i++) {
        fields[i] = head->fields[i];
        copy_slice(&r->bytes, &fields[i].name);
        copy_slice(&r->bytes, &fields[i].value);
    }
    h->fields = fields;
    copy_slice(&r->bytes, &h->method);
    copy_slice(&r->bytes, &h->scheme);
    copy_slice(&r->bytes, &h->authority);
    copy_slice(&r->bytes, &h->path);
    copy_slice(&r->bytes, &h->protocol);
    return CB_OK;
}

static int req_new(cb_pool_req **out, cb_origin *o) {
    cb_pool *p = o->pool;
    cb_pool_req *r;
    if (p->n_spare) {
        r = CB_CONTAINER(p->spare.next, cb_pool_req, link);
        cb_list_del(&r->link);
        p->n_spare--;
        const cb_buf bytes = r->bytes;
        memset(r, 0, sizeof *r);
        r->bytes = bytes;
    } else {
        r = cb_mem_new(p->alloc, sizeof *r);
        if (!r) return cb_fail(CB_ENOMEM, "request");
        cb_buf_init(&r->bytes, p->alloc, 16u << 20);
    }
    cb_list_init(&r->link);
    cb_alarm_init(&r->alarm, p->loop, on_req_alarm);
    r->origin = o;
    *out = r;
    return CB_OK;
}

static int exchange_new(cb_exchange **out, cb_pool *p) {
    if (p->n_spare_exchanges) {
        cb_exchange *x = CB_CONTAINER(p->spare_exchanges.prev, cb_exchange, link);
        cb_list_del(&x->link);
        p->n_spare_exchanges--;
        cb_exchange_renew(x, p->loop, &p->limits);
        *out = x;
    } else {
        int rc = cb_exchange_new(out, p->loop, p->alloc, false, &p->limits);
        if (rc < 0) return rc;
    }
    (*out)->on_keep = on_keep;
    (*out)->keep_user = p;
    return CB_OK;
}

int cb_pool_send(cb_exchange **out, cb_origin *o, const cb_pool_request *req) {
    cb_pool *p = o->pool;
    cb_pool_req *r = NULL;
    if (p->freed) return cb_fail(CB_ECLOSED, "%s: the pool is closed", o->name);
    int rc = req_new(&r, o);
    if (rc < 0) return rc;
    rc = copy_head(r, req->head);
    if (rc == CB_OK) rc = exchange_new(&r->x, p);
    if (rc < 0) {
        cb_buf_free(&r->bytes);
        cb_mem_free(p->alloc, r);
        return rc;
    }
    const cb_time now = cb_loop_now(p->loop);
    r->has_body = req->has_body;
    r->no_retry = req->no_retry;
    r->times.queued = now;
    r->due = req->timeout ? now + req->timeout : CB_NEVER;
    r->head_timeout = req->head_timeout;
    r->head_due = CB_NEVER;
    if (r->due != CB_NEVER) arm(r);
    cb_exchange *x = r->x;
    x->ops = req->ops ? req->ops : x->ops;
    x->user = req->user;
    x->method = r->head.method;
    x->scheme = r->head.scheme;
    x->authority = r->head.authority;
    x->path = r->head.path;
    x->protocol = r->head.protocol;
    x->on_release = on_release;
    x->on_retry = on_retry;
    x->on_response = o->t.tls ? cb_pool_on_response : NULL;
    x->release_user = r;
    cb_origin_hold(o);
    o->stats.requests++;
    enqueue(r, false);
    *out = x;
    return CB_OK;
}

int cb_pool_phase(const cb_exchange *x) {
    const cb_pool_req *r = x->release_user;
    if (x->head_in) return CB_PHASE_ANSWERED;
    if (r->sent) return CB_PHASE_SENT;
    return r->origin->n_openings ? CB_PHASE_CONNECT : CB_PHASE_QUEUED;
}

const cb_pool_times *cb_pool_times_of(const cb_exchange *x) {
    return &((const cb_pool_req *)x->release_user)->times;
}

int cb_pool_version(const cb_exchange *x) {
    return ((const cb_pool_req *)x->release_user)->version;
}

bool cb_pool_reused(const cb_exchange *x) {
    return ((const cb_pool_req *)x->release_user)->reused;
}

const char *cb_pool_peer(const cb_exchange *x) {
    cb_pool_req *r = x->release_user;
    if (!r->sent) return "";
    return cb_addr_text(&r->at, r->peer);
}

/* ---- handing requests to connections ---- */

/* CB_OK: r is out (or over); CB_EAGAIN: c takes none now. */
static int send_on(cb_pool_req *r, cb_pool_conn *c) {
    cb_hconn *h = c->drive.h;
    cb_exchange *x = r->x;
    cb_origin *o = r->origin;
    if (!h || c->drive.ending || h->vt->capacity(h) == 0) return CB_EAGAIN;
    int rc = must_wait(r, c) ? CB_EAGAIN : h->vt->open(h, x);
    if (rc == CB_EAGAIN) return rc;
    dequeue(r);
    if (rc < 0) {
        cb_exchange_closed(x, rc);
        return CB_OK;
    }
    r->conn = c;
    c->users++;
    x->early = c->drive.qc && cb_quic_conn_in_early_data(c->drive.qc);
    r->reused = c->served++ > 0;
    r->at = c->at;
    cb_pool_conn_idle(c, false);
    o->stats.active++;
    cb_cells_move(cb_loop_cells(o->pool->loop), CB_C_POOL_ACTIVE, 1);
    o->stats.reused += r->reused;
    if (r->head_timeout) {
        r->head_due = cb_loop_now(o->pool->loop) + r->head_timeout;
        arm(r);
    }
    rc = cb_exchange_send_request(x, &r->head, !r->has_body);
    if (rc < 0) {
        r->no_retry = true;
        cb_exchange_abort(x, rc);
        return CB_OK;
    }
    r->sent = true;
    r->times.sent = cb_loop_now(o->pool->loop);
    r->times.began = c->began;
    r->times.connected = c->connected;
    r->times.ready = c->ready;
    r->version = (uint8_t)h->vt->version;
    cb_pool_count_sent(r);
    cb_drive_later(&c->drive);
    if (c->is_quic)
        cb_stall_watch(c);
    else if (o->t.tls)
        cb_origin_probe(o);
    if (r->has_body && x->blocked) cb_exchange_out_writable(x);
    return CB_OK;
}

/* The connection that was used last, QUIC before TCP; a request that lost one wants one that has not served yet. */
static cb_pool_conn *pick(cb_origin *o, bool fresh) {
    cb_pool_conn *found = NULL;
    for (cb_list *l = o->avail.prev, *prev; l != &o->avail; l = prev) {
        prev = l->prev;
        cb_pool_conn *c = CB_CONTAINER(l, cb_pool_conn, avail);
        cb_hconn *h = c->drive.h;
        if (!h || c->drive.ending || h->vt->capacity(h) == 0) {
            cb_list_del(l); /* it tells when that changes */
            continue;
        }
        if (fresh && c->served) continue;
        if (!found || c->is_quic) found = c;
        if (c->is_quic || !o->quic_conns) break;
    }
    return found;
}

/* Closes idle connections, the one that waits longest first, down to `keep`. */
static void trim_idle(cb_origin *o, size_t keep) {
    for (cb_list *l = o->avail.next, *next; o->stats.idle > keep && l != &o->avail; l = next) {
        next = l->next;
        cb_pool_conn *c = CB_CONTAINER(l, cb_pool_conn, avail);
        if (c->idle) cb_drive_end(&c->drive, CB_OK, false);
    }
}

/* How many more connections should be opened for what waits. */
static size_t wanted(const cb_origin *o) {
    const cb_pool_opts *opts = &o->pool->opts;
    const bool may_multiplex =
        o->known ? o->multiplexes : o->t.versions != CB_HTTP_1 && (o->t.tls || o->t.versions == CB_HTTP_2);
    size_t want = may_multiplex ? (o->stats.queued > 0) : o->stats.queued;
    size_t have = o->stats.conns + o->n_openings;
    want = want > o->n_openings ? want - o->n_openings : 0;
    size_t room = opts->max_conns > have ? opts->max_conns - have : 0;
    return want < room ? want : room;
}

static void on_dispatch(cb_defer *d) {
    cb_origin *o = CB_CONTAINER(d, cb_origin, dispatch);
    cb_pool *p = o->pool;
    cb_origin_hold(o); /* callbacks may let go of it */
    while (!cb_list_empty(&o->queue) && !p->freed) {
        cb_pool_req *r = CB_CONTAINER(o->queue.next, cb_pool_req, link);
        cb_pool_conn *c = pick(o, r->fresh);
        if (!c || send_on(r, c) == CB_EAGAIN) break;
    }
    if (!p->freed && !cb_list_empty(&o->queue)) {
        cb_pool_req *r = CB_CONTAINER(o->queue.next, cb_pool_req, link);
        if (r->fresh && o->stats.conns + o->n_openings >= p->opts.max_conns && o->stats.idle)
            trim_idle(o, o->stats.idle - 1);
        for (size_t n = wanted(o); n > 0 && !p->freed; n--) {
            int rc = cb_opening_start(o, CB_OPENING_WANTED);
            if (rc == CB_OK) continue;
            cb_origin_open_failed(o, rc);
            break;
        }
    }
    while (o->stats.queued > p->opts.max_queue) {
        cb_cells_add(cb_loop_cells(p->loop), CB_C_POOL_REJECTED_QUEUE, 1);
        req_fail(CB_CONTAINER(o->queue.prev, cb_pool_req, link),
                 cb_fail(CB_ELIMIT, "%s: %u requests wait for a connection (max_queue)", o->name, p->opts.max_queue));
    }
    if (cb_list_empty(&o->queue)) cb_alarm_stop(&o->queue_alarm);
    trim_idle(o, p->draining || p->freed ? 0 : p->opts.max_idle);
    cb_origin_unref(o);
}

void cb_origin_dispatch(cb_origin *o) {
    cb_defer_cancel(&o->dispatch);
    on_dispatch(&o->dispatch);
}

static cb_pool_req *waiting_since(const cb_origin *o, uint64_t number) {
    for (cb_list *l = o->queue.next; l != &o->queue; l = l->next) {
        cb_pool_req *r = CB_CONTAINER(l, cb_pool_req, link);
        if (r->number <= number) return r;
    }
    return NULL;
}

/* What callbacks add is not of this failure. They may free the pool, too, which ends all that still waits here. */
static void fail_queue(cb_origin *o, int rc, const char *why) {
    uint64_t last = o->waited;
    cb_origin_hold(o);
    for (cb_pool_req *r; (r = waiting_since(o, last)) != NULL;) {
        cb_fail(rc, "%s", why);
        req_fail(r, rc);
    }
    cb_origin_unref(o);
}

void cb_origin_open_failed(cb_origin *o, int rc) {
    char why[POOL_WHY_BYTES];
    snprintf(why, sizeof why, "%s: %s", o->name, cb_last_error());
    o->stats.failed++;
    o->pool->stats.failed++;
    cb_pool_count_failed(o, rc);
    cb_log_line(o->pool->log, CB_LOG_DEBUG, "pool", "cannot connect: %s", why);
    if (o->n_openings || (o->stats.conns && !o->pool->freed)) {
        /* Others may serve what waits. Only who must not use a used connection has no hope left. */
        if (o->n_openings == 0 && !cb_list_empty(&o->queue)) {
            cb_pool_req *r = CB_CONTAINER(o->queue.next, cb_pool_req, link);
            if (r->fresh) {
                cb_fail(rc, "%s", why);
                req_fail(r, rc);
            }
        }
        return;
    }
    fail_queue(o, rc, why);
}

static void on_queue_alarm(cb_alarm *a, cb_time now) {
    cb_origin *o = CB_CONTAINER(a, cb_origin, queue_alarm);
    const cb_time limit = o->pool->opts.queue_timeout;
    cb_origin_hold(o);
    while (!cb_list_empty(&o->queue)) {
        cb_pool_req *r = CB_CONTAINER(o->queue.next, cb_pool_req, link);
        if (r->times.queued + limit > now) {
            cb_alarm_set(&o->queue_alarm, r->times.queued + limit);
            break;
        }
        cb_cells_add(cb_loop_cells(o->pool->loop), CB_C_POOL_REJECTED_TIME, 1);
        req_fail(r, cb_fail(CB_ETIMEOUT, "%s: no connection was free within %llu ms (%u open, %u being opened)",
                            o->name, (unsigned long long)(limit / CB_MS), o->stats.conns, (unsigned)o->n_openings));
    }
    cb_origin_unref(o);
}

void cb_origin_begin(cb_origin *o) {
    cb_defer_init(&o->dispatch, o->pool->loop, on_dispatch);
    cb_alarm_init(&o->queue_alarm, o->pool->loop, on_queue_alarm);
}

/* ---- pools ---- */

static int pool_fill(cb_pool *p, const cb_pool_opts *opts) {
    const cb_pool_opts none = {0};
    cb_pool_opts *o = &p->opts;
    *o = opts ? *opts : none;
    if (!o->connect_timeout) o->connect_timeout = 10 * CB_SEC;
    if (!o->idle_timeout) o->idle_timeout = 60 * CB_SEC;
    if (!o->queue_timeout) o->queue_timeout = o->connect_timeout + 100 * CB_MS; /* its failure has the better reason */
    if (!o->happy_eyeballs) o->happy_eyeballs = 250 * CB_MS;
    if (!o->h3_grace) o->h3_grace = 300 * CB_MS;
    if (!o->quic_retry) o->quic_retry = 15 * CB_SEC;
    if (!o->max_conns) o->max_conns = 64;
    if (!o->max_idle) o->max_idle = 32;
    if (!o->max_queue) o->max_queue = 1024;
    int rc = cb_http_limits_fill(&p->limits, o->limits);
    if (rc < 0) return rc;
    p->limits.idle_timeout_ms = (uint32_t)(o->idle_timeout / CB_MS);
    o->limits = &p->limits;
    cb_dests_init(&p->dests, p->alloc, cb_loop_hash_key(p->loop), o->quic_retry);
    return cb_session_cache_new(&p->sessions, p->alloc, 1024, o->sessions);
}

int cb_pool_new(cb_pool **out, cb_loop *loop, const cb_pool_opts *opts) {
    const cb_alloc *alloc = cb_loop_alloc(loop);
    cb_pool *p = cb_mem_new(alloc, sizeof *p);
    if (!p) return cb_fail(CB_ENOMEM, "pool");
    p->loop = loop;
    p->alloc = alloc;
    p->log = cb_loop_log(loop);
    p->refs = 1;
    cb_list_init(&p->list);
    cb_list_init(&p->spare);
    cb_list_init(&p->spare_exchanges);
    cb_map_init(&p->origins, alloc, cb_loop_hash_key(loop));
    int rc = pool_fill(p, opts);
    if (rc < 0) {
        cb_map_free(&p->origins);
        cb_mem_free(alloc, p);
        return rc;
    }
    *out = p;
    return CB_OK;
}

void cb_pool_drain(cb_pool *p) {
    p->draining = true;
    for (cb_list *l = p->list.next; l != &p->list; l = l->next) {
        cb_origin *o = CB_CONTAINER(l, cb_origin, link);
        for (cb_list *m = o->conns.next; m != &o->conns; m = m->next) {
            cb_pool_conn *c = CB_CONTAINER(m, cb_pool_conn, link);
            if (!c->drive.h) continue;
            c->drive.h->vt->drain(c->drive.h);
            cb_drive_later(&c->drive);
        }
        cb_origin_wake(o);
    }
}

static void close_origin(cb_origin *o) {
    cb_list batch;
    cb_list_init(&batch);
    fail_queue(o, CB_ECLOSED, "the pool is closed");
    cb_opening_cancel_all(o);
    while (!cb_list_empty(&o->conns)) {
        cb_list *l = o->conns.next;
        cb_list_del(l);
        cb_list_add_tail(&batch, l);
    }
    while (!cb_list_empty(&batch)) {
        cb_pool_conn *c = CB_CONTAINER(batch.next, cb_pool_conn, link);
        cb_list_del(&c->link);
        cb_list_add_tail(&o->conns, &c->link);
        cb_fail(CB_ECLOSED, "the pool is closed");
        cb_drive_end(&c->drive, CB_ECLOSED, true);
    }
}

void cb_pool_free(cb_pool *p) {
    if (!p || p->freed) return;
    p->freed = true;
    cb_list batch;
    cb_list_init(&batch);
    while (!cb_list_empty(&p->list)) {
        cb_list *l = p->list.next;
        cb_list_del(l);
        cb_list_add_tail(&batch, l);
    }
    while (!cb_list_empty(&batch)) {
        cb_origin *o = CB_CONTAINER(batch.next, cb_origin, link);
        cb_list_del(&o->link);
        cb_list_add_tail(&p->list, &o->link);
        cb_origin_forget(o);
        cb_origin_hold(o);
        close_origin(o);
        for (int i = 0; i < 2; i++) {
            cb_quic_endpoint_free(o->quic[i]);
            o->quic[i] = NULL;
        }
        cb_origin_unref(o);
    }
    cb_pool_unref(p);
}
