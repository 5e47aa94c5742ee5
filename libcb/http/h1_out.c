/* What leaves on HTTP/1.1: a head is assembled in one buffer and goes to the sink together with the first bytes of its
 * body, or at the next flush. */
#include "base/error.h"
#include "http/h1_int.h"
#include <string.h>

typedef struct reason {
    uint16_t status;
    const char *text;
} reason;

static const char *reason_of(int status) {
    static const reason list[] = {{100, "Continue"},
                                  {101, "Switching Protocols"},
                                  {102, "Processing"},
                                  {103, "Early Hints"},
                                  {201, "Created"},
                                  {202, "Accepted"},
                                  {203, "Non-Authoritative Information"},
                                  {204, "No Content"},
                                  {205, "Reset Content"},
                                  {206, "Partial Content"},
                                  {300, "Multiple Choices"},
                                  {301, "Moved Permanently"},
                                  {302, "Found"},
                                  {303, "See Other"},
                                  {304, "Not Modified"},
                                  {307, "Temporary Redirect"},
                                  {308, "Permanent Redirect"},
                                  {400, "Bad Request"},
                                  {401, "Unauthorized"},
                                  {402, "Payment Required"},
                                  {403, "Forbidden"},
                                  {404, "Not Found"},
                                  {405, "Method Not Allowed"},
                                  {406, "Not Acceptable"},
                                  {407, "Proxy Authentication Required"},
                                  {408, "Request Timeout"},
                                  {409, "Conflict"},
                                  {410, "Gone"},
                                  {411, "Length Required"},
                                  {412, "Precondition Failed"},
                                  {413, "Content Too Large"},
                                  {414, "URI Too Long"},
                                  {415, "Unsupported Media Type"},
                                  {416, "Range Not Satisfiable"},
                                  {417, "Expectation Failed"},
                                  {421, "Misdirected Request"},
                                  {422, "Unprocessable Content"},
                                  {423, "Locked"},
                                  {424, "Failed Dependency"},
                                  {425, "Too Early"},
                                  {426, "Upgrade Required"},
                                  {428, "Precondition Required"},
                                  {429, "Too Many Requests"},
                                  {431, "Request Header Fields Too Large"},
                                  {451, "Unavailable For Legal Reasons"},
                                  {500, "Internal Server Error"},
                                  {501, "Not Implemented"},
                                  {502, "Bad Gateway"},
                                  {503, "Service Unavailable"},
                                  {504, "Gateway Timeout"},
                                  {505, "HTTP Version Not Supported"},
                                  {507, "Insufficient Storage"},
                                  {511, "Network Authentication Required"}};
    if (status == 200) return "OK";
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (list[i].status == status) return list[i].text;
    return "";
}

/* ---- assembling ---- */

static size_t fields_size(const cb_field *f, size_t n) {
    size_t all = 0;
    for (size_t i = 0; i < n; i++)
        all += f[i].name.len + f[i].value.len + 4;
    return all;
}

/* These write where room was reserved. */
static void put(cb_buf *b, const void *data, size_t len) {
    if (len) memcpy(b->base + b->len, data, len);
    b->len += len;
}

static void put_text(cb_buf *b, const char *text) {
    put(b, text, strlen(text));
}

static void put_slice(cb_buf *b, cb_slice s) {
    put(b, s.base, s.len);
}

static uint8_t *copy(uint8_t *to, cb_slice s) {
    if (s.len) memcpy(to, s.base, s.len);
    return to + s.len;
}

static void put_fields(cb_buf *b, const cb_field *f, size_t n) {
    uint8_t *p = b->base + b->len;
    for (size_t i = 0; i < n; i++) {
        p = copy(p, f[i].name);
        *p++ = ':';
        *p++ = ' ';
        p = copy(p, f[i].value);
        *p++ = '\r';
        *p++ = '\n';
    }
    b->len = (size_t)(p - b->base);
}

static void put_line(cb_buf *b, const char *name, const char *value) {
    put_text(b, name);
    put(b, ": ", 2);
    put_text(b, value);
    put(b, "\r\n", 2);
}

static bool has(const cb_head *h, const char *name) {
    size_t n = strlen(name);
    for (size_t i = 0; i < h->n; i++)
        if (h->fields[i].name.len == n && cb_slice_ieq(h->fields[i].name, name)) return true;
    return false;
}

static void put_options(cb_buf *b, const char *const *options, size_t n) {
    if (!n) return;
    put_text(b, "connection: ");
    for (size_t i = 0; i < n; i++) {
        if (i) put(b, ", ", 2);
        put_text(b, options[i]);
    }
    put(b, "\r\n", 2);
}

/* ---- responses ---- */

static void choose_response_mode(h1_conn *c, cb_exchange *x, const cb_head *head, bool end) {
    if (x->tunnel)
        c->mode = H1_OUT_TUNNEL;
    else if (x->no_body)
        c->mode = H1_OUT_NOBODY;
    else if (head->length >= 0 || end)
        c->mode = H1_OUT_LENGTH;
    else if (!c->version_10)
        c->mode = H1_OUT_CHUNKED;
    else
        c->mode = H1_OUT_CLOSE;
    if (c->mode == H1_OUT_CLOSE) c->close_after = true;
    /* The peer may or may not send the body that it announced: nothing after it can be trusted (RFC 9110, 10.1.1). */
    if (c->expect && x->in_bytes == 0 && c->in == H1_IN_BODY) c->close_after = true;
    if (x->failing || c->h.draining || c->eof) c->close_after = true;
    if (x->connect && !x->tunnel) c->close_after = true; /* bytes of the tunnel may be under way */
}

static int put_response(h1_conn *c, cb_exchange *x, const cb_head *head, bool end) {
    cb_buf *b = &c->out;
    const cb_hconn_env *env = &c->h.env;
    const char *options[2];
    size_t n = 0, extra = 256 + x->protocol.len;
    bool final = head->status >= 200 || head->status == 101;
    const char *why = reason_of(head->status);
    if (env->server_name) extra += strlen(env->server_name);
    if (env->alt_svc) extra += strlen(env->alt_svc);
    int rc = cb_buf_reserve(b, fields_size(head->fields, head->n) + extra);
    if (rc < 0) return rc;
    char line[] = "HTTP/1.1 200 ";
    line[9] = (char)('0' + head->status / 100);
    line[10] = (char)('0' + head->status / 10 % 10);
    line[11] = (char)('0' + head->status % 10);
    put(b, line, sizeof line - 1);
    put_text(b, why);
    put(b, "\r\n", 2);
    if (final && env->date && !has(head, "date")) {
        put_text(b, "date: ");
        put(b, env->date, 29);
        put(b, "\r\n", 2);
    }
    if (final && env->server_name && !has(head, "server")) put_line(b, "server", env->server_name);
    put_fields(b, head->fields, head->n);
    if (final && env->alt_svc && !has(head, "alt-svc")) put_line(b, "alt-svc", env->alt_svc);
    if (final && head->length < 0 && c->mode == H1_OUT_LENGTH && end) put_line(b, "content-length", "0");
    if (c->mode == H1_OUT_CHUNKED && final) put_line(b, "transfer-encoding", "chunked");
    if (head->status == 101) {
        options[n++] = "upgrade";
        put_text(b, "upgrade: ");
        put_slice(b, x->protocol);
        put(b, "\r\n", 2);
    } else if (final && !x->tunnel) {
        if (c->close_after)
            options[n++] = "close";
        else if (c->keep_alive_10)
            options[n++] = "keep-alive";
    }
    put_options(b, options, n);
    put(b, "\r\n", 2);
    return CB_OK;
}

/* ---- requests ---- */

static void choose_request_mode(h1_conn *c, cb_exchange *x, const cb_head *head, bool end) {
    c->upgrade = head->protocol.len > 0;
    if (c->upgrade) x->connect = 0; /* HTTP/1.1 upgrades with GET, where later versions extend CONNECT */
    if (c->upgrade || x->connect)
        c->mode = H1_OUT_WAIT;
    else if (head->length >= 0 || end)
        c->mode = H1_OUT_LENGTH;
    else
        c->mode = H1_OUT_CHUNKED;
}

static bool wants_length(cb_slice method) {
    return cb_slice_eq(method, "POST") || cb_slice_eq(method, "PUT") || cb_slice_eq(method, "PATCH");
}

static int put_request(h1_conn *c, cb_exchange *x, const cb_head *head, bool end) {
    cb_buf *b = &c->out;
    const char *options[3];
    size_t n = 0;
    cb_slice method = head->method, target = x->connect ? head->authority : head->path;
    if (c->upgrade && cb_slice_eq(method, "CONNECT")) method = cb_slice_str("GET");
    size_t size = method.len + target.len + head->authority.len + head->protocol.len;
    int rc = cb_buf_reserve(b, size + fields_size(head->fields, head->n) + 256);
    if (rc < 0) return rc;
    put_slice(b, method);
    put(b, " ", 1);
    put_slice(b, target);
    put_text(b, " HTTP/1.1\r\nhost: ");
    put_slice(b, head->authority);
    put(b, "\r\n", 2);
    put_fields(b, head->fields, head->n);
    if (end && head->length < 0 && wants_length(method)) put_line(b, "content-length", "0");
    if (c->mode == H1_OUT_CHUNKED) put_line(b, "transfer-encoding", "chunked");
    if (c->upgrade) {
        options[n++] = "upgrade";
        put_text(b, "upgrade: ");
        put_slice(b, head->protocol);
        put(b, "\r\n", 2);
    }
    if (has(head, "te")) options[n++] = "te";
    if (c->h.draining) options[n++] = "close";
    if (c->h.draining) c->close_after = true;
    put_options(b, options, n);
    put(b, "\r\n", 2);
    return CB_OK;
}

/* ---- towards the sink ---- */

int h1_push(h1_conn *c) {
    if (!c->out.len) return CB_OK;
    const cb_slice v = cb_buf_slice(&c->out);
    int rc = c->h.env.sink->write(c->h.env.sink, &v, 1);
    c->out.len = 0;
    return rc;
}

static int usable(const h1_conn *c, const cb_exchange *x) {
    if (c->gone || c->closing || c->x != x) return cb_fail(CB_ECLOSED, "the connection of the exchange is over");
    return CB_OK;
}

static void out_done(h1_conn *c) {
    bool tunnel = c->mode == H1_OUT_TUNNEL;
    c->mode = H1_OUT_DONE;
    if (tunnel) {
        h1_push(c);
        if (c->h.env.sink->shut)
            c->h.env.sink->shut(c->h.env.sink);
        else
            c->in = H1_IN_DISCARD;
        c->close_after = true;
    }
    /* A body that was announced and not asked for, or that nobody wants after an error. */
    if (c->h.env.server && c->in == H1_IN_BODY && (c->x->failing || (c->expect && c->x->in_bytes == 0)))
        c->in = H1_IN_DISCARD;
    h1_settle(c);
}

int h1_send_head(cb_hconn *h, cb_exchange *x, const cb_head *head, bool end) {
    h1_conn *c = h1_of(h);
    int rc = usable(c, x);
    if (rc < 0) return rc;
    if (!c->h.env.server) {
        choose_request_mode(c, x, head, end);
        rc = put_request(c, x, head, end);
        if (c->mode == H1_OUT_WAIT) c->fin_due = end;
    } else {
        bool final = head->status >= 200 || head->status == 101;
        if (!final && c->version_10) return CB_OK; /* RFC 9110, 15.2 */
        if (final) choose_response_mode(c, x, head, end);
        rc = put_response(c, x, head, end);
        if (rc == CB_OK && x->tunnel && final) rc = h1_begin_tunnel(c);
        if (rc == CB_OK && !final) rc = h1_push(c);
        if (head->status == 100) c->expect = false;
    }
    if (rc < 0) return rc;
    if (end && c->mode != H1_OUT_WAIT) {
        rc = h1_push(c);
        out_done(c);
    }
    h1_wake(c);
    return rc;
}

int h1_send_continue(h1_conn *c) {
    const cb_head head = {.status = 100, .length = -1};
    return h1_send_head(&c->h, c->x, &head, false);
}

size_t h1_room(const cb_hconn *h, const cb_exchange *x) {
    const h1_conn *c = h1_of(h);
    if (usable(c, x) < 0 || c->mode == H1_OUT_WAIT || c->mode == H1_OUT_DONE) return 0;
    size_t room = c->h.env.sink->room(c->h.env.sink);
    size_t used = c->out.len + H1_CHUNK_OVERHEAD;
    /* Framing may overshoot a little: only a sink without any room tells when there is some again. */
    if (room > used) room -= used;
    return room < c->h.env.limits->send_buffer_bytes ? room : c->h.env.limits->send_buffer_bytes;
}

static size_t put_hex(char out[20], size_t v) {
    char digits[16];
    size_t n = 0, at = 0;
    do
        digits[n++] = "0123456789abcdef"[v & 15];
    while (v >>= 4);
    while (n)
        out[at++] = digits[--n];
    out[at++] = '\r';
    out[at++] = '\n';
    return at;
}

/* One write: a waiting head, the data, and what chunked coding puts around it. */
static int write_piece(h1_conn *c, cb_slice data, bool last) {
    char size[20];
    cb_slice v[4];
    size_t n = 0;
    bool chunked = c->mode == H1_OUT_CHUNKED;
    if (c->out.len) v[n++] = cb_buf_slice(&c->out);
    if (chunked && data.len) v[n++] = (cb_slice){(const uint8_t *)size, put_hex(size, data.len)};
    if (data.len) v[n++] = data;
    if (chunked) {
        const char *tail = data.len ? (last ? "\r\n0\r\n\r\n" : "\r\n") : (last ? "0\r\n\r\n" : "");
        if (*tail) v[n++] = cb_slice_str(tail);
    }
    int rc = n ? c->h.env.sink->write(c->h.env.sink, v, n) : CB_OK;
    c->out.len = 0;
    return rc;
}

int64_t h1_send_body(cb_hconn *h, cb_exchange *x, cb_slice data, bool end) {
    h1_conn *c = h1_of(h);
    int rc = usable(c, x);
    if (rc < 0) return rc;
    if (c->mode == H1_OUT_WAIT) {
        if (!data.len && end) c->fin_due = true;
        return data.len ? CB_EAGAIN : 0;
    }
    size_t room = h1_room(h, x);
    size_t take = data.len < room ? data.len : room;
    if (data.len && !take) {
        h1_wake(c);
        return CB_EAGAIN;
    }
    bool last = end && take == data.len;
    data.len = take;
    if (take || last) rc = write_piece(c, data, last);
    if (rc < 0) return rc;
    if (last) out_done(c);
    h1_wake(c);
    return (int64_t)take;
}

int h1_send_trailers(cb_hconn *h, cb_exchange *x, const cb_field *f, size_t n) {
    h1_conn *c = h1_of(h);
    int rc = usable(c, x);
    if (rc < 0) return rc;
    if (c->mode == H1_OUT_CHUNKED) {
        rc = cb_buf_reserve(&c->out, fields_size(f, n) + 8);
        if (rc < 0) return rc;
        put_text(&c->out, "0\r\n");
        put_fields(&c->out, f, n);
        put(&c->out, "\r\n", 2);
    }
    rc = h1_push(c);
    out_done(c);
    h1_wake(c);
    return rc;
}

int h1_send_datagram(cb_hconn *h, cb_exchange *x, cb_slice payload) {
    h1_conn *c = h1_of(h);
    uint8_t head[CB_CAPSULE_HEAD_MAX];
    int rc = usable(c, x);
    if (rc < 0) return rc;
    if (c->mode == H1_OUT_WAIT) return CB_EAGAIN;
    if (c->mode != H1_OUT_TUNNEL) return cb_fail(CB_ENOTSUP, "datagrams on HTTP/1.1 need a tunnel");
    if (payload.len > CB_DATAGRAM_MAX) return cb_fail(CB_ELIMIT, "a datagram of %zu bytes", payload.len);
    if (h1_room(h, x) < payload.len + CB_CAPSULE_HEAD_MAX) return CB_EAGAIN;
    const cb_slice v[3] = {
        cb_buf_slice(&c->out), {head, cb_capsule_head(head, CB_CAPSULE_DATAGRAM, payload.len)}, payload};
    size_t skip = c->out.len ? 0 : 1;
    rc = c->h.env.sink->write(c->h.env.sink, v + skip, 3 - skip);
    c->out.len = 0;
    h1_wake(c);
    return rc;
}
