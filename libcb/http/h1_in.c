/* What llhttp finds, told to the exchange. Nothing here is lenient: llhttp runs with its strict defaults. */
#include "base/error.h"
#include "http/h1_int.h"
#include <string.h>

/* Stops the parser; h1_feed() looks at c->err. */
static int stop(h1_conn *c, int rc, int status) {
    c->err = rc;
    if (status) c->err_status = status;
    return HPE_USER;
}

/* The result of an exchange function. */
static int check(h1_conn *c, int rc) {
    if (rc >= 0) return HPE_OK;
    if (rc == CB_EUSER) return stop(c, rc, 500);
    return stop(c, rc, rc == CB_ECLOSED || !c->x ? 0 : c->x->fail_status);
}

static int on_begin(llhttp_t *p) {
    h1_conn *c = p->data;
    c->line.len = 0;
    c->method_len = 0;
    c->chunk_ext = 0;
    c->has_version = false;
    c->in = H1_IN_HEAD;
    if (!c->h.env.server) return c->x ? HPE_OK : stop(c, cb_fail(CB_EPROTO, "a response that nobody asked for"), 0);
    c->expect = c->upgrade = c->keep_alive_10 = false;
    c->mode = H1_OUT_NONE;
    int rc = cb_hconn_exchange(&c->h, &c->x);
    if (rc < 0) return stop(c, rc, 503);
    c->x->stream_id = (int64_t)c->h.n_served;
    if (c->h.n_served + 1 >= c->h.env.limits->max_requests) c->close_after = true;
    return HPE_OK;
}

static int gather(h1_conn *c, const char *at, size_t len) {
    int rc = cb_buf_add(&c->line, at, len);
    return rc < 0 ? stop(c, rc, 503) : HPE_OK;
}

static int on_method(llhttp_t *p, const char *at, size_t len) {
    h1_conn *c = p->data;
    c->method_len += (uint32_t)len;
    return gather(c, at, len);
}

static int on_url(llhttp_t *p, const char *at, size_t len) {
    h1_conn *c = p->data;
    if (c->line.len - c->method_len + len <= c->h.env.limits->max_target_bytes) return gather(c, at, len);
    h1_limit(c, "target bytes");
    return stop(c, cb_fail(CB_ELIMIT, "the target is longer than %u bytes", c->h.env.limits->max_target_bytes), 414);
}

static int on_version_done(llhttp_t *p) {
    ((h1_conn *)p->data)->has_version = true;
    return HPE_OK;
}

static int part(h1_conn *c, bool name, const char *at, size_t len) {
    if (!c->x) return stop(c, CB_ECLOSED, 0);
    int rc = cb_exchange_part(c->x, name, (cb_slice){(const uint8_t *)at, len});
    if (rc == CB_ELIMIT) h1_limit(c, "head");
    return check(c, rc);
}

static int on_name(llhttp_t *p, const char *at, size_t len) {
    return part(p->data, true, at, len);
}

static int on_value(llhttp_t *p, const char *at, size_t len) {
    return part(p->data, false, at, len);
}

static int on_value_done(llhttp_t *p) {
    h1_conn *c = p->data;
    if (!c->x) return stop(c, CB_ECLOSED, 0);
    int rc = cb_exchange_part_end(c->x);
    if (rc == CB_ELIMIT) h1_limit(c, "head");
    return check(c, rc);
}

/* Client: no body follows a response to HEAD, and raw bytes follow one that opens a tunnel. */
static int response_head(h1_conn *c) {
    cb_exchange *x = c->x;
    if (c->interim_now) return check(c, cb_exchange_in_head(x, false));
    int status = c->parser.status_code;
    bool tunnel = status == 101 || (x->connect && status < 300);
    bool none = x->head_req || status == 204 || status == 304;
    if (!none && !tunnel && !c->chunked_in && cb_fields_get(&x->in, "content-length").base == NULL)
        c->close_after = true; /* delimited by the end of the connection */
    c->in = H1_IN_BODY;
    c->body_from = c->now;
    if (tunnel) {
        int rc = h1_begin_tunnel(c);
        if (rc < 0) return stop(c, rc, 0);
    }
    int rc = check(c, cb_exchange_in_head(x, false));
    if (rc != HPE_OK) return rc;
    if (tunnel) return 2;
    return x->head_req ? 1 : HPE_OK;
}

static int on_head(llhttp_t *p) {
    h1_conn *c = p->data;
    if (!c->x) return stop(c, CB_ECLOSED, 0);
    c->err_status = 400;
    c->head_begun = false;
    int rc = h1_check_head(c);
    if (rc < 0) return stop(c, rc, 0);
    if (!c->h.env.server) return response_head(c);
    c->in = H1_IN_BODY;
    c->body_from = c->now;
    rc = cb_exchange_in_head(c->x, false);
    if (rc < 0) return check(c, rc);
    if (c->upgrade && !c->x->asked && !c->x->tunnel) { /* nobody is interested: an ordinary request */
        c->upgrade = false;
        c->x->protocol.len = 0;
    }
    return HPE_OK;
}

static int on_body(llhttp_t *p, const char *at, size_t len) {
    h1_conn *c = p->data;
    if (c->in == H1_IN_DISCARD) return HPE_OK;
    if (!c->x) return stop(c, CB_ECLOSED, 0);
    c->body_from = c->now;
    int rc = cb_exchange_in_body(c->x, (cb_slice){(const uint8_t *)at, len});
    if (rc == CB_ELIMIT) h1_limit(c, "body bytes");
    if (rc < 0) return check(c, rc);
    return cb_exchange_in_blocked(c->x) ? HPE_PAUSED : HPE_OK;
}

static int on_chunk_extension(llhttp_t *p, const char *at, size_t len) {
    h1_conn *c = p->data;
    (void)at;
    c->chunk_ext += len <= H1_CHUNK_EXT_MAX ? (uint32_t)len : H1_CHUNK_EXT_MAX + 1;
    if (c->chunk_ext <= H1_CHUNK_EXT_MAX) return HPE_OK;
    h1_limit(c, "chunk extensions");
    return stop(c, cb_fail(CB_ELIMIT, "chunk extensions of more than %d bytes", H1_CHUNK_EXT_MAX), 400);
}

static int on_chunk_extension_done(llhttp_t *p) {
    return on_chunk_extension(p, NULL, 1);
}

/* The parser always pauses between messages: h1_feed() decides, off the parser's stack, whether it goes on. */
static int on_end(llhttp_t *p) {
    h1_conn *c = p->data;
    if (!c->x) return stop(c, CB_ECLOSED, 0);
    if (c->interim_now) {
        c->interim_now = false;
        return HPE_PAUSED;
    }
    if (c->in == H1_IN_TUNNEL || c->in == H1_IN_DISCARD) return HPE_PAUSED;
    if (c->h.env.server && !c->x->tunnel && !c->x->head_out && (c->upgrade || c->x->connect)) {
        c->in = H1_IN_WAIT;
        return HPE_PAUSED;
    }
    c->in = H1_IN_END;
    int rc = cb_exchange_in_end(c->x);
    if (rc == CB_ECLOSED && !c->err) return HPE_PAUSED; /* answered and over */
    if (rc < 0) return check(c, rc);
    h1_settle(c);
    return HPE_PAUSED;
}

const llhttp_settings_t h1_settings = {.on_message_begin = on_begin,
                                       .on_method = on_method,
                                       .on_url = on_url,
                                       .on_version_complete = on_version_done,
                                       .on_header_field = on_name,
                                       .on_header_value = on_value,
                                       .on_header_value_complete = on_value_done,
                                       .on_headers_complete = on_head,
                                       .on_body = on_body,
                                       .on_chunk_extension_name = on_chunk_extension,
                                       .on_chunk_extension_value = on_chunk_extension,
                                       .on_chunk_extension_name_complete = on_chunk_extension_done,
                                       .on_message_complete = on_end};
