#include "http/mux.h"
#include "base/blocks.h"
#include "base/error.h"
#include <string.h>

/* ---- life ---- */

void cb_mux_init(cb_mux *m, const cb_hconn_vt *vt, const cb_mux_ops *ops, const cb_hconn_env *env) {
    cb_hconn_init(&m->h, vt, env);
    m->ops = ops;
    cb_list_init(&m->streams);
    cb_list_init(&m->bodies);
    cb_list_init(&m->sends);
    cb_list_init(&m->writable);
}

void cb_mux_enter(cb_mux *m) {
    m->depth++;
}

void cb_mux_leave(cb_mux *m) {
    if (--m->depth == 0 && m->freed && !m->h.env.loop) m->ops->destroy(m);
}

void cb_mux_closed(cb_hconn *h, int rc) {
    cb_mux *m = cb_mux_of(h);
    if (m->closed) return;
    cb_mux_enter(m);
    m->closed = true;
    cb_hconn_end_all(h, rc);
    cb_mux_leave(m);
}

static void bury(cb_grave *g) {
    cb_mux *m = CB_CONTAINER(g, cb_mux, grave);
    m->ops->destroy(m);
}

void cb_mux_free(cb_hconn *h) {
    cb_mux *m = cb_mux_of(h);
    if (m->freed) return;
    cb_mux_closed(h, CB_ECLOSED);
    m->freed = true;
    if (h->env.loop)
        cb_loop_bury(h->env.loop, &m->grave, bury);
    else if (!m->depth)
        m->ops->destroy(m);
}

void cb_mux_wake(cb_mux *m) {
    if (!m->closed && m->h.env.owner->wake) m->h.env.owner->wake(&m->h);
}

void cb_mux_limit(cb_mux *m, const char *what) {
    if (m->h.env.owner->limit) m->h.env.owner->limit(&m->h, what);
}

void cb_mux_count_request(cb_mux *m) {
    if (++m->n_opened >= m->h.env.limits->max_requests && !m->h.draining) m->h.vt->drain(&m->h);
}

/* ---- streams ---- */

void *cb_mux_stream_new(cb_mux *m, size_t size) {
    cb_mux_stream *s = cb_block_get(m->h.env.alloc, CB_BLOCK_MIN);
    if (!s) {
        cb_fail(CB_ENOMEM, "no memory for a stream");
        return NULL;
    }
    memset(s, 0, size);
    cb_chain_init(&s->out, m->h.env.alloc);
    cb_list *lists[] = {&s->link, &s->head.link, &s->body.link, &s->send.link, &s->writable};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        cb_list_init(lists[i]);
    cb_list_add_tail(&m->streams, &s->link);
    return s;
}

static void stream_free(cb_mux *m, cb_mux_stream *s) {
    cb_list_del(&s->link);
    cb_chain_free(&s->out);
    cb_fields_free(&s->kept);
    cb_tunnel_in_free(s->tunnel, m->h.env.alloc);
    cb_block_put(m->h.env.alloc, s, CB_BLOCK_MIN);
}

void cb_mux_free_streams(cb_mux *m) {
    while (!cb_list_empty(&m->streams))
        stream_free(m, CB_CONTAINER(m->streams.next, cb_mux_stream, link));
}

static void quiet(cb_mux_stream *s) {
    cb_list_del(&s->head.link);
    cb_list_del(&s->body.link);
    cb_list_del(&s->send.link);
    cb_list_del(&s->writable);
}

/* The exchange is done with; what is left of the stream is between us and the peer. */
static cb_exchange *part(cb_mux_stream *s) {
    cb_exchange *x = s->x;
    s->x = NULL;
    quiet(s);
    return x;
}

void cb_mux_attach(cb_mux *m, cb_mux_stream *s, cb_exchange *x) {
    s->x = x;
    s->attached = true;
    x->frame = s;
    if (!m->h.env.server) cb_exchange_attach(x, &m->h);
}

void cb_mux_detach(cb_hconn *h, cb_exchange *x) {
    cb_mux *m = cb_mux_of(h);
    cb_mux_stream *s = x->frame;
    if (!s) return;
    x->frame = NULL;
    s->attached = false;
    part(s);
    cb_mux_credit(m, s, s->owed);
    if (m->closed) return;
    if (h->n_exchanges <= 1) cb_mux_wake(m); /* idle time begins, a drain may be over */
    cb_mux_drop(m, s);
}

void cb_mux_drop(cb_mux *m, cb_mux_stream *s) {
    if (s->open || s->attached) return;
    quiet(s);
    if (m->ops->dropped) m->ops->dropped(m, s);
    m->h.queued -= s->out.len;
    stream_free(m, s);
}

void cb_mux_close(cb_mux_stream *s, int rc) {
    if (s->x) cb_exchange_closed(part(s), rc);
}

void cb_mux_failed(cb_mux *m, cb_mux_stream *s, int rc) {
    cb_exchange *x = s->x;
    if (!x || rc == CB_ECLOSED) return;
    if (rc == CB_ELIMIT) cb_mux_limit(m, x->fail_status == 413 ? "body bytes" : "head bytes");
    /* What is malformed is reset (RFC 9113, 8.1.1; RFC 9114, 4.1.2); what is only too much gets its status. */
    if (m->h.env.server && !x->head_out && x->fail_status != 400 && (rc == CB_ELIMIT || rc == CB_EPROTO)) {
        cb_list_del(&s->body.link);
        cb_exchange_fail_status(x, x->fail_status);
        return;
    }
    cb_exchange_abort(part(s), rc);
}

cb_mux_stream *cb_mux_reset(cb_hconn *h, cb_exchange *x) {
    cb_mux_stream *s = x->frame;
    if (!s || s->was_reset) return NULL;
    s->was_reset = true;
    part(s);
    return s->open && !cb_mux_of(h)->closed ? s : NULL;
}

cb_mux_stream *cb_mux_first_late(const cb_mux *m) {
    for (cb_list *i = m->streams.next; i != &m->streams; i = i->next) {
        cb_mux_stream *s = CB_CONTAINER(i, cb_mux_stream, link);
        if (s->late && s->x) return s;
    }
    return NULL;
}

/* No byte of a request's body for too long: 408, unless it is our user who holds it up. */
void cb_mux_expire_bodies(cb_mux *m, cb_time now) {
    cb_time span = m->h.env.limits->body_timeout_ms * CB_MS;
    while (cb_quiet_deadline(&m->bodies, span) <= now) {
        cb_mux_stream *s = CB_CONTAINER(cb_quiet_first(&m->bodies), cb_mux_stream, body);
        if (s->x && cb_exchange_in_blocked(s->x)) {
            cb_quiet_touch(&m->bodies, &s->body, now);
            continue;
        }
        cb_list_del(&s->body.link);
        if (!s->x) continue;
        cb_mux_limit(m, "body timeout");
        cb_exchange_fail_status(s->x, 408);
    }
}

/* ---- what comes in ---- */

void cb_mux_head(cb_mux *m, cb_mux_stream *s, bool end) {
    int rc = s->section_rc;
    if (rc == CB_OK) rc = cb_exchange_in_head(s->x, end);
    if (rc < 0)
        cb_mux_failed(m, s, rc);
    else if (!end && m->h.env.server && s->x && !s->x->connect && !s->x->end_in)
        cb_quiet_touch(&m->bodies, &s->body, m->now);
}

void cb_mux_data(cb_mux *m, cb_mux_stream *s, cb_slice data) {
    if (!cb_list_empty(&s->body.link)) cb_quiet_touch(&m->bodies, &s->body, m->now);
    s->owed += data.len;
    size_t passed = data.len;
    int rc = s->x->connect ? cb_tunnel_in_feed(&s->tunnel, s->x, s->capsules, data, &passed)
                           : cb_exchange_in_body(s->x, data);
    cb_mux_credit(m, s, data.len - passed);
    if (rc < 0) cb_mux_failed(m, s, rc);
}

void cb_mux_end(cb_mux *m, cb_mux_stream *s) {
    cb_list_del(&s->body.link);
    int rc = cb_tunnel_in_end(s->tunnel);
    if (rc == CB_OK) rc = cb_exchange_in_end(s->x);
    if (rc < 0) cb_mux_failed(m, s, rc);
}

void cb_mux_credit(cb_mux *m, cb_mux_stream *s, size_t n) {
    if (n > s->owed) n = s->owed;
    s->owed -= n;
    if (n && !m->closed) m->ops->credit(m, s, n);
}

void cb_mux_took(cb_hconn *h, cb_exchange *x, size_t n) {
    cb_mux *m = cb_mux_of(h);
    cb_mux_stream *s = x->frame;
    if (!s) return;
    if (!cb_list_empty(&s->body.link)) cb_quiet_touch(&m->bodies, &s->body, m->now);
    cb_mux_credit(m, s, n);
}

/* ---- what goes out ---- */

int cb_mux_usable(const cb_mux *m, const cb_mux_stream *s) {
    if (s && !m->closed && !s->was_reset) return CB_OK;
    return cb_fail(CB_ECLOSED, "the stream is closed");
}

size_t cb_mux_room(const cb_hconn *h, const cb_exchange *x) {
    const cb_mux_stream *s = x->frame;
    if (!s || s->fin || s->was_reset) return 0;
    if (s->mute) return h->env.limits->send_buffer_bytes;
    return cb_hconn_out_room(h, s->out.len);
}

static int put(cb_mux *m, cb_mux_stream *s, const cb_slice *v, size_t n) {
    const size_t before = s->out.len;
    int rc = cb_chain_addv(&s->out, v, n);
    m->h.queued += s->out.len - before;
    return rc;
}

int64_t cb_mux_send_body(cb_hconn *h, cb_exchange *x, cb_slice data, bool end) {
    cb_mux *m = cb_mux_of(h);
    cb_mux_stream *s = x->frame;
    int rc = cb_mux_usable(m, s);
    if (rc < 0) return rc;
    if (s->mute) {
        s->fin = s->fin || end;
        return (int64_t)data.len;
    }
    const size_t room = cb_mux_room(h, x);
    if (data.len > room) {
        data.len = room;
        end = false;
    }
    rc = put(m, s, &data, 1);
    if (rc < 0) return rc;
    if (end) s->fin = true;
    if (data.len || s->fin) m->ops->output(m, s);
    return (int64_t)data.len;
}

int cb_mux_send_capsule(cb_mux *m, cb_mux_stream *s, cb_slice datagram) {
    uint8_t head[CB_CAPSULE_HEAD_MAX];
    if (datagram.len > CB_DATAGRAM_MAX) return cb_fail(CB_ELIMIT, "a datagram of %zu bytes", datagram.len);
    const cb_slice v[2] = {{head, cb_capsule_head(head, CB_CAPSULE_DATAGRAM, datagram.len)}, datagram};
    if (cb_hconn_out_room(&m->h, s->out.len) < v[0].len + v[1].len) return CB_EAGAIN;
    int rc = put(m, s, v, 2); /* both or none: half a capsule could not be taken back */
    if (rc == CB_OK) m->ops->output(m, s);
    return rc;
}

/* Those that are there now: what they write may bring them back. */
bool cb_mux_deliver_writable(cb_mux *m) {
    bool any = false;
    cb_list todo;
    cb_list_init(&todo);
    while (!cb_list_empty(&m->writable)) {
        cb_list *l = m->writable.next;
        cb_list_del(l);
        cb_list_add_tail(&todo, l);
    }
    while (!cb_list_empty(&todo)) {
        cb_mux_stream *s = CB_CONTAINER(todo.next, cb_mux_stream, writable);
        cb_list_del(&s->writable);
        if (!s->x || s->fin || !cb_hconn_out_ready(&m->h, s->out.len)) continue;
        any = true;
        cb_exchange_out_writable(s->x);
    }
    return any;
}
