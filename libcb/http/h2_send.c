#include "base/error.h"
#include "base/mem.h"
#include "http/extras.h"
#include "http/h2_conn.h"
#include <string.h>

/* Fields for nghttp2, on the stack as long as they are few. */
enum { NV_STACK = 48, NV_OURS = 5 /* pseudo-header fields, or a status and cb_head_extras() */ };
typedef struct nv_list {
    nghttp2_nv stack[NV_STACK];
    nghttp2_nv *at;
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
    l->at[l->len++] = (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.base,
                                   .value = (uint8_t *)(uintptr_t)value.base,
                                   .namelen = name.len,
                                   .valuelen = value.len,
                                   .flags = flags};
}

/* A pseudo-header field; its name is a literal. */
static void nv_pseudo(nv_list *l, const char *name, cb_slice value) {
    nv_add(l, cb_slice_str(name), value, NGHTTP2_NV_FLAG_NO_COPY_NAME);
}

static void nv_fields(nv_list *l, const cb_field *f, size_t n) {
    for (size_t i = 0; i < n; i++)
        nv_add(l, f[i].name, f[i].value, NGHTTP2_NV_FLAG_NONE);
}

/* RFC 9113, 8.3.1 and 8.5; RFC 8441, 4. */
static void nv_request(nv_list *l, const cb_head *head) {
    bool plain_connect = cb_slice_eq(head->method, "CONNECT") && !head->protocol.len;
    nv_pseudo(l, ":method", head->method);
    if (head->protocol.len) nv_pseudo(l, ":protocol", head->protocol);
    if (!plain_connect) nv_pseudo(l, ":scheme", head->scheme);
    if (head->authority.len) nv_pseudo(l, ":authority", head->authority);
    if (!plain_connect) nv_pseudo(l, ":path", head->path);
}

/* ---- DATA ---- */

static void submit_trailers(h2_conn *c, h2_stream *s) {
    nv_list l;
    if (nv_init(&l, c->m.h.env.alloc, s->m.kept.len) < 0) return;
    nv_fields(&l, s->m.kept.at, s->m.kept.len);
    nghttp2_submit_trailer(c->ng, s->id, l.at, l.len);
    nv_done(&l, c->m.h.env.alloc);
}

static ssize_t read_body(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                         nghttp2_data_source *source, void *user) {
    (void)ng, (void)id, (void)buf;
    h2_stream *s = source->ptr;
    size_t n = s->m.out.len < length ? s->m.out.len : length;
    if (!n && !s->m.fin) {
        s->m.deferred = true;
        cb_list_del(&s->m.send.link);
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (s->m.fin && n == s->m.out.len) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->m.trailers) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            submit_trailers(user, s);
        }
    }
    return (ssize_t)n;
}

/* A whole DATA frame from the exchange's chain to the sink. */
int h2_on_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *framehd, size_t length,
                    nghttp2_data_source *source, void *user) {
    (void)ng, (void)frame;
    h2_conn *c = user;
    h2_stream *s = source->ptr;
    if (!h2_has_room(c)) return NGHTTP2_ERR_WOULDBLOCK;
    if (s->m.out.len < length) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    enum { SLICES = 12 };
    cb_slice v[SLICES] = {{framehd, 9}};
    size_t n = 1, left = length;
    for (;;) {
        size_t count = n + cb_chain_peek(&s->m.out, v + n, SLICES - n), bytes = 0;
        for (; n < count && left; n++) {
            if (v[n].len > left) v[n].len = left;
            left -= v[n].len;
            bytes += v[n].len;
        }
        if (h2_write(c, v, n) < 0) return NGHTTP2_ERR_CALLBACK_FAILURE;
        cb_chain_drop(&s->m.out, bytes);
        c->m.h.queued -= bytes;
        if (!left) break;
        n = 0;
    }
    if (length) cb_quiet_touch(&c->m.sends, &s->m.send, c->m.now);
    if (!s->m.out.len) cb_list_del(&s->m.send.link);
    if (s->m.x && !s->m.fin && cb_list_empty(&s->m.writable)) cb_list_add_tail(&c->m.writable, &s->m.writable);
    return 0;
}

static const nghttp2_data_provider *body_of(h2_stream *s, nghttp2_data_provider *p) {
    *p = (nghttp2_data_provider){.source.ptr = s, .read_callback = read_body};
    return p;
}

/* ---- heads ---- */

int h2_open(cb_hconn *h, cb_exchange *x) {
    h2_conn *c = h2_of(h);
    if (c->m.closed || !h->vt->capacity(h)) return cb_fail(CB_EAGAIN, "the connection takes no more streams now");
    return h2_stream_new(c, x) ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a stream");
}

static int submit_request(h2_conn *c, h2_stream *s, const nv_list *l, bool end) {
    nghttp2_data_provider p;
    int32_t id = nghttp2_submit_request(c->ng, NULL, l->at, l->len, end ? NULL : body_of(s, &p), s);
    if (id < 0) return cb_fail(id == NGHTTP2_ERR_NOMEM ? CB_ENOMEM : CB_EAGAIN, "no stream: %s", nghttp2_strerror(id));
    s->id = id;
    s->m.open = true;
    if (s->m.x) s->m.x->stream_id = id;
    return CB_OK;
}

/* RFC 8441, 3: extended CONNECT only after the peer's SETTINGS allowed it. Until they are here it waits. */
static int keep_late(h2_conn *c, h2_stream *s, const nv_list *l, bool end) {
    cb_fields_init(&s->m.kept, c->m.h.env.alloc, UINT32_MAX, UINT32_MAX);
    for (size_t i = 0; i < l->len; i++) {
        int rc = cb_fields_add(&s->m.kept, (cb_slice){l->at[i].name, l->at[i].namelen},
                               (cb_slice){l->at[i].value, l->at[i].valuelen});
        if (rc < 0) return rc;
    }
    cb_fields_seal(&s->m.kept);
    s->m.late = true;
    c->m.n_late++;
    s->m.late_end = end;
    return CB_OK;
}

static bool peer_takes_connect(const h2_conn *c) {
    return nghttp2_session_get_remote_settings(c->ng, NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
}

static int no_extended_connect(void) {
    return cb_fail(CB_ENOTSUP, "the peer does not take extended CONNECT over HTTP/2 (RFC 8441)");
}

void h2_send_late(h2_conn *c) {
    for (h2_stream *s; c->m.n_late && (s = (h2_stream *)cb_mux_first_late(&c->m));) {
        c->m.n_late--;
        s->m.late = false;
        nv_list l;
        int rc = peer_takes_connect(c) ? nv_init(&l, c->m.h.env.alloc, s->m.kept.len) : no_extended_connect();
        if (rc == CB_OK) {
            nv_fields(&l, s->m.kept.at, s->m.kept.len);
            rc = submit_request(c, s, &l, s->m.late_end);
            nv_done(&l, c->m.h.env.alloc);
        }
        cb_fields_free(&s->m.kept);
        if (rc < 0) cb_mux_close(&s->m, rc);
    }
}

static int send_request(h2_conn *c, h2_stream *s, const cb_head *head, bool end) {
    if (head->protocol.len && c->m.settings_in && !peer_takes_connect(c)) return no_extended_connect();
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

static int send_response(h2_conn *c, h2_stream *s, const cb_head *head, bool end) {
    char status[4];
    if (head->status < 100 || head->status > 999) return cb_fail(CB_EINVAL, "status %d", head->status);
    cb_status_text(status, head->status);
    nv_list l;
    int rc = nv_init(&l, c->m.h.env.alloc, head->n);
    if (rc < 0) return rc;
    nv_pseudo(&l, ":status", (cb_slice){(const uint8_t *)status, 3});
    nv_fields(&l, head->fields, head->n);
    cb_field ours[3];
    size_t n = cb_head_extras(&c->m.h.env, head, ours);
    for (size_t i = 0; i < n; i++)
        nv_add(&l, ours[i].name, ours[i].value, NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE);
    nghttp2_data_provider p;
    if (head->status < 200)
        rc = nghttp2_submit_headers(c->ng, NGHTTP2_FLAG_NONE, s->id, NULL, l.at, l.len, NULL);
    else
        rc = nghttp2_submit_response(c->ng, s->id, l.at, l.len, end ? NULL : body_of(s, &p));
    nv_done(&l, c->m.h.env.alloc);
    if (rc < 0) return cb_fail(rc == NGHTTP2_ERR_NOMEM ? CB_ENOMEM : CB_ECLOSED, "%s", nghttp2_strerror(rc));
    return CB_OK;
}

int h2_send_head(cb_hconn *h, cb_exchange *x, const cb_head *head, bool end) {
    h2_conn *c = h2_of(h);
    h2_stream *s = x->frame;
    int rc = cb_mux_usable(&c->m, x->frame);
    if (rc < 0) return rc;
    if (h->env.server && !s->m.open) return cb_fail(CB_ECLOSED, "the stream is closed");
    rc = h->env.server ? send_response(c, s, head, end) : send_request(c, s, head, end);
    if (x->tunnel) cb_list_del(&s->m.body.link); /* silence is no failure there */
    cb_mux_wake(&c->m);
    return rc;
}

/* ---- bodies ---- */

void h2_output(cb_mux *m, cb_mux_stream *stream) {
    h2_conn *c = h2_of(&m->h);
    const h2_stream *s = (const h2_stream *)stream;
    if (cb_list_empty(&stream->send.link)) cb_list_add_tail(&c->fresh, &stream->send.link);
    if (stream->deferred) {
        stream->deferred = false;
        nghttp2_session_resume_data(c->ng, s->id);
    }
    cb_mux_wake(m);
}

int h2_send_trailers(cb_hconn *h, cb_exchange *x, const cb_field *f, size_t n) {
    h2_conn *c = h2_of(h);
    h2_stream *s = x->frame;
    int rc = cb_mux_usable(&c->m, x->frame);
    if (rc < 0) return rc;
    cb_fields_init(&s->m.kept, h->env.alloc, UINT32_MAX, UINT32_MAX);
    for (size_t i = 0; i < n; i++) {
        rc = cb_fields_add(&s->m.kept, f[i].name, f[i].value);
        if (rc < 0) {
            cb_fields_free(&s->m.kept);
            return rc;
        }
    }
    cb_fields_seal(&s->m.kept);
    s->m.trailers = n > 0;
    s->m.fin = true;
    h2_output(&c->m, &s->m);
    return CB_OK;
}

/* ---- datagrams ---- */

int h2_send_datagram(cb_hconn *h, cb_exchange *x, cb_slice payload) {
    h2_conn *c = h2_of(h);
    h2_stream *s = x->frame;
    int rc = cb_mux_usable(&c->m, x->frame);
    if (rc < 0) return rc;
    if (s->m.fin) return cb_fail(CB_ECLOSED, "the stream is closed");
    return cb_mux_send_capsule(&c->m, &s->m, payload);
}
