/* The life of an exchange, and what a user reads of it. */
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "http/exchange_int.h"
#include "transport/tls_session.h"
#include <string.h>

const cb_exchange_ops cb_exchange_no_ops = {.size = sizeof cb_exchange_no_ops};

/* The user wants more: gives it what is held, then lets framing go on. */
static void resumed(cb_exchange *x) {
    x->resume_due = 0;
    x->paused = 0;
    int rc = cb_exchange_deliver(x);
    if (rc < 0)
        cb_exchange_abort(x, rc);
    else if (!x->closed && !x->held.len && x->conn && x->conn->vt->resume)
        x->conn->vt->resume(x->conn, x);
}

static void run_deliver(cb_defer *d) {
    cb_exchange *x = CB_CONTAINER(d, cb_exchange, deliver);
    cb_exchange_enter(x);
    resumed(x);
    cb_exchange_leave(x);
}

/* What a new and a recycled exchange have in common; memory of heads and chains is kept. */
static void begin(cb_exchange *x, cb_loop *loop, const cb_alloc *alloc, bool server, const cb_http_limits *l) {
    cb_fields in = x->in, trailers = x->trailers;
    memset(x, 0, sizeof *x);
    x->in = in;
    x->trailers = trailers;
    cb_list_init(&x->link);
    cb_chain_init(&x->held, alloc);
    cb_chain_init(&x->rest, alloc);
    x->loop = loop;
    x->alloc = alloc;
    x->server = server;
    x->ops = &cb_exchange_no_ops;
    x->in_length = x->out_length = -1;
    x->held_max = l->stream_window_bytes;
    x->max_body = server ? l->max_body_bytes : 0;
    x->max_target = l->max_target_bytes;
    x->fail_status = 400;
    if (!loop) return;
    cb_defer_init(&x->deliver, loop, run_deliver);
    x->started = cb_loop_now(loop);
}

int cb_exchange_new(cb_exchange **out, cb_loop *loop, const cb_alloc *alloc, bool server, const cb_http_limits *l) {
    if (!alloc && loop) alloc = cb_loop_alloc(loop);
    cb_exchange *x = cb_mem_new(alloc, sizeof *x);
    if (!x) return cb_fail(CB_ENOMEM, "no memory for an exchange");
    cb_fields_init(&x->in, alloc, l->max_head_bytes, l->max_fields);
    cb_fields_init(&x->trailers, alloc, l->max_head_bytes, l->max_fields);
    begin(x, loop, alloc, server, l);
    *out = x;
    return CB_OK;
}

/* Limits may have changed since it was used. */
static void clear_heads(cb_exchange *x, const cb_http_limits *l) {
    cb_fields_clear(&x->in);
    cb_fields_clear(&x->trailers);
    cb_fields_limit(&x->in, l->max_head_bytes, l->max_fields);
    cb_fields_limit(&x->trailers, l->max_head_bytes, l->max_fields);
}

void cb_exchange_renew(cb_exchange *x, cb_loop *loop, const cb_http_limits *l) {
    clear_heads(x, l);
    begin(x, loop, x->alloc, false, l);
}

static void forget_peer(cb_exchange *x) {
    cb_peer_unref(x->peer);
    x->peer = NULL;
}

void cb_exchange_destroy(cb_exchange *x) {
    forget_peer(x);
    cb_chain_free(&x->held);
    cb_chain_free(&x->rest);
    cb_fields_free(&x->in);
    cb_fields_free(&x->trailers);
    cb_mem_free(x->alloc, x);
}

static void bury(cb_grave *g) {
    cb_exchange *x = CB_CONTAINER(g, cb_exchange, grave);
    forget_peer(x);
    if (x->on_keep) {
        cb_chain_free(&x->held);
        cb_chain_free(&x->rest);
        x->on_keep(x, x->keep_user);
    } else {
        cb_exchange_destroy(x);
    }
}

static void release(cb_exchange *x, cb_hconn *h) {
    if (!h && x->server) x->on_keep = NULL; /* whose memory it would be may be gone */
    if (!x->loop) {
        bury(&x->grave);
        return;
    }
    cb_defer_cancel(&x->deliver);
    cb_loop_bury(x->loop, &x->grave, bury);
}

int cb_hconn_exchange(cb_hconn *h, cb_exchange **out) {
    cb_exchange *x = h->env.owner && h->env.owner->spare ? h->env.owner->spare(h) : NULL;
    if (x) {
        clear_heads(x, h->env.limits);
        begin(x, h->env.loop, x->alloc, true, h->env.limits);
    } else {
        int rc = cb_exchange_new(&x, h->env.loop, h->env.alloc, true, h->env.limits);
        if (rc < 0) return rc;
    }
    cb_exchange_attach(x, h);
    *out = x;
    return CB_OK;
}

void cb_exchange_attach(cb_exchange *x, cb_hconn *h) {
    forget_peer(x);
    x->conn = h;
    x->version = (uint8_t)h->vt->version;
    x->remote[0] = x->local[0] = '\0';
    cb_list_add_tail(&h->exchanges, &x->link);
    h->n_exchanges++;
}

static void unlink_conn(cb_exchange *x) {
    cb_hconn *h = x->conn;
    if (!h) return;
    if (h->vt->detach) h->vt->detach(h, x);
    cb_list_del(&x->link);
    h->n_exchanges--;
    h->n_served++;
    x->frame = NULL;
}

static void finalize(cb_exchange *x) {
    x->done = 1;
    x->busy = 1; /* calls from on_close find an exchange that is over */
    if (x->close_rc == CB_OK) x->close_rc = x->fail_rc;
    if ((x->seen || !x->server) && !x->abandoned && x->ops->on_close) x->ops->on_close(x, x->close_rc, x->user);
    cb_hconn *h = x->conn;
    if (x->counted && x->loop) cb_cells_move(cb_loop_cells(x->loop), CB_C_HTTP_TUNNELS, -1);
    unlink_conn(x);
    if (h && (x->seen || !x->server) && h->env.owner && h->env.owner->exchange_done) h->env.owner->exchange_done(h, x);
    x->conn = NULL;
    if (x->on_release) x->on_release(x, x->release_user);
    release(x, h);
}

bool cb_exchange_left(cb_exchange *x) {
    /* Without a loop there is no end of a turn: what was resumed is delivered here. */
    while (!x->loop && x->resume_due && (!x->closed || x->close_rc == CB_OK)) {
        resumed(x);
    }
    x->busy = 0;
    if (!x->closed) return false;
    if (x->close_rc == CB_OK && (x->held.len || x->end_due)) return true;
    finalize(x);
    return true;
}

/* The pool may have another connection for a request that got no answer. */
static bool retried(cb_exchange *x, int rc) {
    if (x->server || rc == CB_OK || x->head_in || !x->on_retry) return false;
    unlink_conn(x);
    x->conn = NULL;
    bool over = x->end_out;
    x->head_out = x->end_out = x->head_req = x->connect = x->blocked = 0;
    cb_exchange_in_forget(x); /* half a head may have come */
    if (x->on_retry(x, rc, x->release_user)) return true;
    x->end_out = over;
    return false;
}

void cb_exchange_closed(cb_exchange *x, int rc) {
    if (x->done || x->closed) {
        /* Its connection goes while the user has not taken everything yet: it lives on without. */
        if (x->closed && !x->done && rc < 0) {
            unlink_conn(x);
            x->conn = NULL;
        }
        return;
    }
    if (retried(x, rc)) return;
    cb_exchange_enter(x);
    x->closed = 1;
    x->close_rc = rc;
    if (rc < 0) {
        cb_chain_free(&x->held);
        x->end_due = 0;
    }
    cb_chain_free(&x->rest);
    cb_exchange_leave(x);
}

int cb_reset_code(int rc) {
    switch (rc) {
    case CB_EPROTO:
        return CB_RESET_PROTOCOL;
    case CB_ELIMIT:
        return CB_RESET_CALM;
    case CB_EUSER:
    case CB_ENOMEM:
    case CB_EINVAL:
        return CB_RESET_INTERNAL;
    default:
        return CB_RESET_CANCEL;
    }
}

static void end_now(cb_exchange *x, int code, int rc) {
    if (x->done) return;
    cb_exchange_enter(x);
    if (x->closed) { /* complete, only held */
        if (x->close_rc == CB_OK && (x->held.len || x->end_due)) x->close_rc = rc;
        cb_chain_free(&x->held);
        x->end_due = 0;
    } else {
        if (x->conn) x->conn->vt->reset(x->conn, x, code);
        cb_exchange_closed(x, rc);
    }
    cb_exchange_leave(x);
}

void cb_exchange_abort(cb_exchange *x, int rc) {
    if (rc == CB_ECLOSED) return;
    end_now(x, cb_reset_code(rc), rc);
}

void cb_exchange_reset(cb_exchange *x, int code) {
    x->on_retry = NULL;
    if (!x->done && !x->closed) cb_fail(CB_ECLOSED, "the exchange was reset by its user");
    end_now(x, code, CB_ECLOSED);
}

void cb_exchange_abandon(cb_exchange *x) {
    x->on_retry = NULL;
    x->abandoned = 1;
    x->ops = &cb_exchange_no_ops;
    if (x->done) return;
    if (x->closed || !x->end_in || !x->end_out) {
        end_now(x, CB_RESET_CANCEL, CB_ECLOSED);
        return;
    }
    cb_exchange_resume(x); /* the response goes out by itself; what is held is thrown away */
}

void cb_exchange_resume(cb_exchange *x) {
    if (x->done || (x->closed && x->close_rc < 0)) return;
    x->resume_due = 1;
    if (x->loop) {
        cb_defer_later(&x->deliver);
        return;
    }
    cb_exchange_enter(x);
    cb_exchange_leave(x);
}

/* ---- connections ---- */

void cb_hconn_init(cb_hconn *h, const cb_hconn_vt *vt, const cb_hconn_env *env) {
    h->vt = vt;
    h->env = *env;
    if (!h->env.alloc && env->loop) h->env.alloc = cb_loop_alloc(env->loop);
    cb_list_init(&h->exchanges);
}

size_t cb_hconn_out_room(const cb_hconn *h, size_t own) {
    size_t max = h->env.limits->send_buffer_bytes, share = max * CB_OUT_SHARE;
    size_t floor = max < CB_OUT_FLOOR ? max : CB_OUT_FLOOR;
    size_t room = own < max ? max - own : 0;
    size_t left = h->queued < share ? share - h->queued : 0;
    size_t sure = own < floor ? floor - own : 0;
    if (room > left) room = left;
    return room > sure ? room : sure;
}

bool cb_hconn_out_ready(const cb_hconn *h, size_t own) {
    size_t max = h->env.limits->send_buffer_bytes;
    size_t enough = (max < CB_OUT_FLOOR ? max : CB_OUT_FLOOR) / 2;
    return own <= max / 2 && cb_hconn_out_room(h, own) >= enough;
}

void cb_hconn_end_all(cb_hconn *h, int rc) {
    while (!cb_list_empty(&h->exchanges)) {
        cb_exchange *x = CB_CONTAINER(h->exchanges.next, cb_exchange, link);
        cb_exchange_closed(x, rc);
        if (h->exchanges.next != &x->link) continue;
        /* The user is on the stack of it, or has not taken everything: on_close comes later, without us. */
        unlink_conn(x);
        x->conn = NULL;
    }
}

/* ---- what a user reads ---- */

cb_slice cb_exchange_method(const cb_exchange *x) {
    return x->method;
}
cb_slice cb_exchange_scheme(const cb_exchange *x) {
    return x->scheme;
}
cb_slice cb_exchange_authority(const cb_exchange *x) {
    return x->authority;
}
cb_slice cb_exchange_path(const cb_exchange *x) {
    return x->path;
}
cb_slice cb_exchange_protocol(const cb_exchange *x) {
    /* HTTP/1.1 ignores an Upgrade that nobody looked at in on_head. */
    ((cb_exchange *)(uintptr_t)x)->asked = 1; // NOLINT(performance-no-int-to-ptr)
    return x->protocol;
}
int cb_exchange_status(const cb_exchange *x) {
    return x->status;
}
int cb_exchange_version(const cb_exchange *x) {
    return x->version;
}
int cb_exchange_is_early(const cb_exchange *x) {
    return x->early;
}
cb_slice cb_exchange_field(const cb_exchange *x, const char *name) {
    return cb_fields_get(&x->in, name);
}
const cb_field *cb_exchange_fields(const cb_exchange *x, size_t *n) {
    *n = x->in.sealed ? x->in.len : 0;
    return x->in.at;
}
const cb_field *cb_exchange_trailers(const cb_exchange *x, size_t *n) {
    *n = x->trailers.sealed ? x->trailers.len : 0;
    return x->trailers.at;
}
int64_t cb_exchange_length(const cb_exchange *x) {
    return x->in_length;
}

/* Made when somebody asks, once a connection; the exchange has a copy of its own, for when that is gone. */
static const char *text_of(const cb_addr *a, char *known, char *text) {
    if (a->sa.sa_family == AF_UNIX) return memcpy(text, "unix", sizeof "unix");
    if (text[0] || (a->sa.sa_family != AF_INET && a->sa.sa_family != AF_INET6)) return text;
    if (!known[0]) cb_addr_text(a, known);
    return memcpy(text, known, CB_ADDR_TEXT);
}

const char *cb_exchange_remote(const cb_exchange *x) {
    cb_exchange *w = (cb_exchange *)(uintptr_t)x; // NOLINT(performance-no-int-to-ptr)
    return x->conn ? text_of(&x->conn->env.remote, x->conn->remote, w->remote) : x->remote;
}
const char *cb_exchange_local(const cb_exchange *x) {
    cb_exchange *w = (cb_exchange *)(uintptr_t)x; // NOLINT(performance-no-int-to-ptr)
    return x->conn ? text_of(&x->conn->env.local, x->conn->local, w->local) : x->local;
}
const char *cb_exchange_sni(const cb_exchange *x) {
    return x->conn && x->conn->env.sni ? x->conn->env.sni : "";
}
const cb_peer *cb_exchange_peer(const cb_exchange *x) {
    cb_exchange *w = (cb_exchange *)(uintptr_t)x; // NOLINT(performance-no-int-to-ptr)
    if (x->peer || !x->conn || !x->conn->env.tls) return x->peer;
    const cb_peer *p = cb_tls_session_peer(x->conn->env.tls);
    if (p) w->peer = cb_peer_ref((cb_peer *)(uintptr_t)p); // NOLINT(performance-no-int-to-ptr)
    return p;
}
int cb_exchange_is_secure(const cb_exchange *x) {
    return x->conn && x->conn->env.scheme && !strcmp(x->conn->env.scheme, "https");
}

const char *cb_exchange_tls_version(const cb_exchange *x) {
    return x->conn && x->conn->env.tls ? cb_tls_session_version(x->conn->env.tls) : "";
}
const char *cb_exchange_tls_cipher(const cb_exchange *x) {
    return x->conn && x->conn->env.tls ? cb_tls_session_cipher(x->conn->env.tls) : "";
}
int cb_exchange_tls_resumed(const cb_exchange *x) {
    return x->conn && x->conn->env.tls && cb_tls_session_resumed(x->conn->env.tls);
}

int cb_exchange_handle(cb_exchange *x, const cb_exchange_ops *ops, void *user) {
    int rc = ops ? cb_ops_check(ops, sizeof *ops, "cb_exchange_ops") : CB_OK;
    if (rc < 0 || x->abandoned) return rc;
    x->ops = ops ? ops : &cb_exchange_no_ops;
    x->user = user;
    return CB_OK;
}
void *cb_exchange_user(const cb_exchange *x) {
    return x->user;
}
cb_loop *cb_exchange_loop(const cb_exchange *x) {
    return x->loop;
}
