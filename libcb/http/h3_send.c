#include "base/error.h"
#include "base/mem.h"
#include "http/extras.h"
#include "http/h3_conn.h"
#include "http/h3_datagram.h"

/* Fields for nghttp3, on the stack as long as they are few. */
enum { NV_STACK = 48, NV_OURS = 5 /* pseudo-header fields, or a status and cb_head_extras() */ };
typedef struct nv_list {
    nghttp3_nv stack[NV_STACK];
    nghttp3_nv *at;
    size_t len;
} nv_list;

static int nv_init(nv_list *l, const cb_alloc *alloc, size_t fields) {
    l->len = 0;
    l->at = l->stack;
    if (fields + NV_OURS <= NV_STACK) return CB_OK;
    l->at = cb_mem_get(alloc, (fields + NV_OURS) * sizeof *l->at);
    return l->at ? CB_OK : cb_fail(CB_ENOMEM, "no memory for %zu fields", fields);
}

static void nv_done(nv_list *l, const cb_alloc *alloc) {
    if (l->at != l->stack) cb_mem_free(alloc, l->at);
}

static void nv_add(nv_list *l, cb_slice name, cb_slice value, uint8_t flags) {
    l->at[l->len++] = (nghttp3_nv){
        .name = name.base, .value = value.base, .namelen = name.len, .valuelen = value.len, .flags = flags};
}

/* A pseudo-header field; its name is a literal. */
static void nv_pseudo(nv_list *l, const char *name, cb_slice value) {
    nv_add(l, cb_slice_str(name), value, NGHTTP3_NV_FLAG_NO_COPY_NAME);
}

static void nv_fields(nv_list *l, const cb_field *f, size_t n) {
    for (size_t i = 0; i < n; i++)
        nv_add(l, f[i].name, f[i].value, NGHTTP3_NV_FLAG_NONE);
}

/* RFC 9114, 4.3.1 and 4.4; RFC 9220, 3. */
static void nv_request(nv_list *l, const cb_head *head) {
    bool plain_connect = cb_slice_eq(head->method, "CONNECT") && !head->protocol.len;
    nv_pseudo(l, ":method", head->method);
    if (head->protocol.len) nv_pseudo(l, ":protocol", head->protocol);
    if (!plain_connect) nv_pseudo(l, ":scheme", head->scheme);
    if (head->authority.len) nv_pseudo(l, ":authority", head->authority);
    if (!plain_connect) nv_pseudo(l, ":path", head->path);
}

/* ---- DATA ---- */

static nghttp3_ssize read_body(nghttp3_conn *ng, int64_t id, nghttp3_vec *vec, size_t count, uint32_t *flags,
                               void *user, void *stream_user) {
    (void)ng, (void)id, (void)user;
    enum { SLICES = 8 };
    h3_stream *s = stream_user;
    cb_slice v[SLICES];
    size_t n = cb_chain_peek(&s->m.out, v, count < SLICES ? count : SLICES), bytes = 0;
    if (!n && !s->m.fin) {
        s->m.deferred = true;
        return NGHTTP3_ERR_WOULDBLOCK;
    }
    for (size_t i = 0; i < n; i++) {
        vec[i] = (nghttp3_vec){(uint8_t *)(uintptr_t)v[i].base, v[i].len};
        bytes += v[i].len;
    }
    cb_chain_take(&s->m.out, bytes);
    if (s->m.fin && !cb_chain_ready(&s->m.out)) {
        *flags |= NGHTTP3_DATA_FLAG_EOF;
        if (s->m.trailers) *flags |= NGHTTP3_DATA_FLAG_NO_END_STREAM;
    }
    return (nghttp3_ssize)n;
}

static const nghttp3_data_reader body_reader = {.read_data = read_body};

/* ---- heads ---- */

int h3_open(cb_hconn *h, cb_exchange *x) {
    h3_conn *c = h3_of(h);
    int64_t id;
    if (!h->vt->capacity(h)) return cb_fail(CB_EAGAIN, "the connection takes no more streams now");
    int rc = c->below->open_stream(c->qc, true, &id);
    if (rc == CB_EAGAIN) c->no_streams = true;
    if (rc < 0) return rc;
    h3_stream *s = h3_stream_new(c, id);
    if (!s) {
        c->below->reset_stream(c->qc, id, NGHTTP3_H3_INTERNAL_ERROR);
        return CB_ENOMEM;
    }
    h3_attach(c, s, x);
    return CB_OK;
}

static int submit_request(h3_conn *c, h3_stream *s, const nv_list *l, bool end) {
    int error = nghttp3_conn_submit_request(c->ng, s->id, l->at, l->len, end ? NULL : &body_reader, s);
    if (error) return cb_fail(error == NGHTTP3_ERR_NOMEM ? CB_ENOMEM : CB_EAGAIN, "%s", nghttp3_strerror(error));
    s->submitted = true;
    s->m.fin = end;
    c->below->wake(c->qc);
    return CB_OK;
}

/* RFC 9220, 3: extended CONNECT only after the peer's SETTINGS allowed it. Until they are here it waits. */
static int keep_late(h3_conn *c, h3_stream *s, const nv_list *l, bool end) {
    cb_fields_init(&s->m.kept, c->m.h.env.alloc, UINT32_MAX, UINT32_MAX);
    s->m.late = true;
    s->m.late_end = end;
    c->m.n_late++;
    for (size_t i = 0; i < l->len; i++) {
        int rc = cb_fields_add(&s->m.kept, (cb_slice){l->at[i].name, l->at[i].namelen},
                               (cb_slice){l->at[i].value, l->at[i].valuelen});
        if (rc < 0) return rc;
    }
    cb_fields_seal(&s->m.kept);
    return CB_OK;
}

static int no_extended_connect(void) {
    return cb_fail(CB_ENOTSUP, "the peer does not take extended CONNECT over HTTP/3 (RFC 9220)");
}

void h3_send_late(h3_conn *c) {
    for (h3_stream *s; c->m.n_late && (s = (h3_stream *)cb_mux_first_late(&c->m));) {
        c->m.n_late--;
        s->m.late = false;
        nv_list l;
        int rc = c->peer.connect ? nv_init(&l, c->m.h.env.alloc, s->m.kept.len) : no_extended_connect();
        if (rc == CB_OK) {
            nv_fields(&l, s->m.kept.at, s->m.kept.len);
            rc = submit_request(c, s, &l, s->m.late_end);
            nv_done(&l, c->m.h.env.alloc);
        }
        cb_fields_free(&s->m.kept);
        if (rc == CB_OK) continue;
        cb_exchange *x = s->m.x;
        c->m.h.vt->reset(&c->m.h, x, CB_RESET_CANCEL);
        cb_exchange_closed(x, rc);
    }
    c->m.n_late = 0;
}

static int send_request(h3_conn *c, h3_stream *s, const cb_head *head, bool end) {
    if (head->protocol.len && c->m.settings_in && !c->peer.connect) return no_extended_connect();
    nv_list l;
    int rc = nv_init(&l, c->m.h.env.alloc, head->n);
    if (rc < 0) return rc;
    s->m.capsules = cb_tunnel_has_capsules(head->protocol);
    nv_request(&l, head);
    nv_fields(&l, head->fields, head->n);
    rc = head->protocol.len && !c->m.settings_in ? keep_late(c, s, &l, end) : submit_request(c, s, &l, end);
    nv_done(&l, c->m.h.env.alloc);
    return rc;
}

static int send_response(h3_conn *c, h3_stream *s, const cb_head *head, bool end) {
    char status[4];
    if (head->status < 100 || head->status > 999) return cb_fail(CB_EINVAL, "status %d", head->status);
    cb_status_text(status, head->status);
    nv_list l;
    int error = nv_init(&l, c->m.h.env.alloc, head->n);
    if (error < 0) return error;
    nv_pseudo(&l, ":status", (cb_slice){(const uint8_t *)status, 3});
    nv_fields(&l, head->fields, head->n);
    cb_field ours[3];
    size_t n = cb_head_extras(&c->m.h.env, head, ours);
    for (size_t i = 0; i < n; i++)
        nv_add(&l, ours[i].name, ours[i].value, NGHTTP3_NV_FLAG_NO_COPY_NAME | NGHTTP3_NV_FLAG_NO_COPY_VALUE);
    if (head->status < 200)
        error = nghttp3_conn_submit_info(c->ng, s->id, l.at, l.len);
    else
        error = nghttp3_conn_submit_response(c->ng, s->id, l.at, l.len, end ? NULL : &body_reader);
    nv_done(&l, c->m.h.env.alloc);
    if (error) return cb_fail(error == NGHTTP3_ERR_NOMEM ? CB_ENOMEM : CB_ECLOSED, "%s", nghttp3_strerror(error));
    if (head->status >= 200) {
        s->submitted = true;
        s->m.fin = end;
    }
    c->below->wake(c->qc);
    return CB_OK;
}

int h3_send_head(cb_hconn *h, cb_exchange *x, const cb_head *head, bool end) {
    h3_conn *c = h3_of(h);
    h3_stream *s = x->frame;
    int rc = cb_mux_usable(&c->m, x->frame);
    if (rc < 0) return rc;
    if (!s->m.open) return cb_fail(CB_ECLOSED, "the stream is closed");
    rc = h->env.server ? send_response(c, s, head, end) : send_request(c, s, head, end);
    if (x->tunnel) cb_list_del(&s->m.body.link); /* silence is no failure there */
    return rc;
}

/* ---- bodies ---- */

void h3_output(cb_mux *m, cb_mux_stream *stream) {
    h3_conn *c = h3_of(&m->h);
    const h3_stream *s = (const h3_stream *)stream;
    if (stream->deferred) {
        stream->deferred = false;
        nghttp3_conn_resume_stream(c->ng, s->id);
    }
    if (stream->out.len && cb_list_empty(&stream->send.link))
        cb_quiet_touch(&m->sends, &stream->send, c->below->now(c->qc));
    c->below->wake(c->qc);
    h3_told(c);
}

int h3_send_trailers(cb_hconn *h, cb_exchange *x, const cb_field *f, size_t n) {
    h3_conn *c = h3_of(h);
    h3_stream *s = x->frame;
    int rc = cb_mux_usable(&c->m, x->frame);
    if (rc < 0) return rc;
    s->m.fin = true;
    if (s->m.mute) return CB_OK;
    nv_list l;
    rc = nv_init(&l, h->env.alloc, n);
    if (rc < 0) return rc;
    nv_fields(&l, f, n);
    /* nghttp3 sends them after the body. */
    int error = n ? nghttp3_conn_submit_trailers(c->ng, s->id, l.at, l.len) : 0;
    nv_done(&l, h->env.alloc);
    if (error) return cb_fail(error == NGHTTP3_ERR_NOMEM ? CB_ENOMEM : CB_ECLOSED, "%s", nghttp3_strerror(error));
    s->m.trailers = n > 0;
    h3_output(&c->m, &s->m);
    return CB_OK;
}

/* ---- datagrams ---- */

/* RFC 9297: a QUIC DATAGRAM where the peer takes them, else a capsule on the stream. */
int h3_send_datagram(cb_hconn *h, cb_exchange *x, cb_slice payload) {
    h3_conn *c = h3_of(h);
    h3_stream *s = x->frame;
    int rc = cb_mux_usable(&c->m, x->frame);
    if (rc < 0) return rc;
    if (s->m.fin) return cb_fail(CB_ECLOSED, "the stream is closed");
    if (s->m.mute) return CB_OK;
    if (!c->m.settings_in) return CB_EAGAIN; /* not known yet what the peer takes */
    uint8_t head[CB_H3_DATAGRAM_HEAD_MAX];
    const cb_slice v[2] = {{head, cb_h3_datagram_head(head, s->id)}, payload};
    rc = c->peer_datagram ? c->below->datagram(c->qc, v, 2) : CB_ENOTSUP;
    return rc == CB_ENOTSUP ? cb_mux_send_capsule(&c->m, &s->m, payload) : rc;
}
