/* What the user sends: heads are checked and cleaned here, then framing writes them in its version's way. */
#include "base/error.h"
#include "base/mem.h"
#include "http/exchange_int.h"
#include <stdio.h>
#include <string.h>

enum { FIELDS_STACK = 48, LOG_CHARS = 64, ROOM_DROPPED = 1 << 20 };

/* The fields of an outgoing head: checked, without those that framing owns, with some of ours. */
typedef struct out_fields {
    cb_field *at;
    size_t n;
    int64_t length;
    cb_field stack[FIELDS_STACK];
} out_fields;

static int bad_field(int rc, const char *what, cb_slice name) {
    char text[LOG_CHARS];
    return cb_fail(rc, "%s: \"%s\"", what, cb_text_escape(text, sizeof text, name));
}

enum { KEEP, DROP, LENGTH };

/* Names are told apart by their length first: most need no comparison at all. */
static int kind_of(const cb_field *f, bool request) {
    switch (f->name.len) {
    case 2:
        if (!cb_slice_ieq(f->name, "te")) return KEEP;
        return request && cb_slice_ieq(f->value, "trailers") ? KEEP : DROP;
    case 4:
        return request && cb_slice_ieq(f->name, "host") ? DROP : KEEP;
    case 7:
    case 10:
    case 16:
    case 17:
        return cb_field_is_hop(f->name) ? DROP : KEEP;
    case 14:
        return cb_slice_ieq(f->name, "content-length") ? LENGTH : KEEP;
    default:
        return KEEP;
    }
}

static int check_field(const cb_field *f) {
    if (!cb_field_name_ok(f->name)) return bad_field(CB_EINVAL, "not a field name", f->name);
    if (cb_field_value_ok(f->value)) return CB_OK;
    return bad_field(CB_EINVAL, "a field's value has control characters or is not trimmed", f->name);
}

/* Room for `extra` fields more is left at the end. */
static int clean(cb_exchange *x, out_fields *o, const cb_field *fields, size_t n, size_t extra, bool checked) {
    o->at = o->stack; /* the rest of it stays as it is: most heads are short */
    o->n = 0;
    o->length = -1;
    if (n + extra > FIELDS_STACK) {
        o->at = cb_mem_get(x->alloc, (n + extra) * sizeof *o->at);
        if (!o->at) return cb_fail(CB_ENOMEM, "no memory for %zu fields", n);
    }
    for (size_t i = 0; i < n; i++) {
        const cb_field *f = &fields[i];
        int rc = checked ? CB_OK : check_field(f);
        if (rc < 0) return rc;
        int kind = kind_of(f, !x->server);
        if (kind == DROP) continue;
        if (kind == LENGTH) {
            int64_t length = cb_content_length(f->value);
            if (length < 0 || (o->length >= 0 && o->length != length))
                return bad_field(CB_EINVAL, "content-length is malformed or contradicts itself", f->value);
            if (o->length >= 0) continue;
            o->length = length;
        }
        o->at[o->n++] = *f;
    }
    return CB_OK;
}

static void clean_done(cb_exchange *x, out_fields *o) {
    if (o->at != o->stack) cb_mem_free(x->alloc, o->at);
}

static void drop_length(out_fields *o) {
    for (size_t i = 0; i < o->n; i++) {
        if (!cb_slice_ieq(o->at[i].name, "content-length")) continue;
        o->at[i] = o->at[--o->n];
        break;
    }
    o->length = -1;
}

static int check_reply(const cb_exchange *x, int status) {
    if (x->done || x->closed) return cb_fail(CB_ECLOSED, "the exchange is over");
    if (!x->server) return cb_fail(CB_EINVAL, "a client does not reply");
    if (!x->conn) return cb_fail(CB_ECLOSED, "the connection of the exchange is gone");
    if (x->head_out) return cb_fail(CB_EINVAL, "status %d: the final response was begun already", status);
    if (status < 100 || status > 599) return cb_fail(CB_EINVAL, "%d is not a status", status);
    if (status == 101 && (x->version != CB_HTTP_1 || !x->protocol.len))
        return cb_fail(CB_EINVAL, "status 101 needs HTTP/1.1 and a request with Upgrade");
    return CB_OK;
}

static void count_tunnel(cb_exchange *x) {
    static const struct {
        const char *protocol;
        enum cb_cell_id cell;
    } rows[] = {{"websocket", CB_C_HTTP_UPGRADES_WEBSOCKET},
                {"", CB_C_HTTP_UPGRADES_CONNECT},
                {"connect-udp", CB_C_HTTP_UPGRADES_CONNECT_UDP}};
    const cb_cells *cells = x->conn->env.cells;
    enum cb_cell_id cell = CB_C_HTTP_UPGRADES_OTHER;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (cb_slice_ieq(x->protocol, rows[i].protocol)) cell = rows[i].cell;
    cb_cells_add(cells, cell, 1);
    cb_cells_move(cells, CB_C_HTTP_TUNNELS, 1);
    x->counted = 1;
}

/* Sends a checked head of a response. */
static int put_head(cb_exchange *x, int status, out_fields *o, bool end) {
    bool interim = status < 200 && status != 101;
    bool tunnel = status == 101 || (x->connect && status < 300 && !interim);
    if (interim || tunnel || status == 204) drop_length(o);
    cb_head head = {.status = status, .fields = o->at, .n = o->n, .length = o->length};
    if (interim) {
        cb_cells_add(x->conn->env.cells, CB_C_HTTP_INTERIM_SERVER, 1);
    } else {
        x->head_out = 1;
        x->out_status = (uint16_t)status;
        x->tunnel = tunnel;
        if (tunnel) count_tunnel(x);
        x->no_body = !tunnel && (x->head_req || status == 204 || status == 304);
        x->out_length = x->no_body ? -1 : o->length;
        x->end_out = end;
        if (end) x->out_length = -1;
    }
    return x->conn->vt->send_head(x->conn, x, &head, end && !tunnel);
}

static int reply(cb_exchange *x, int status, const cb_field *fields, size_t n, bool checked) {
    out_fields o;
    int rc = check_reply(x, status);
    if (rc < 0) return rc;
    cb_exchange_enter(x);
    rc = clean(x, &o, fields, n, 0, checked);
    if (rc == CB_OK) rc = put_head(x, status, &o, false);
    clean_done(x, &o);
    cb_exchange_leave(x);
    return rc;
}

int cb_exchange_reply(cb_exchange *x, int status, const cb_field *fields, size_t n) {
    return reply(x, status, fields, n, false);
}

int cb_exchange_pass_on(cb_exchange *x, int status, const cb_field *fields, size_t n) {
    return reply(x, status, fields, n, true);
}

static cb_slice decimal(char out[24], uint64_t v) {
    char *p = out + 24;
    do
        *--p = (char)('0' + v % 10);
    while (v /= 10);
    return (cb_slice){(const uint8_t *)p, (size_t)(out + 24 - p)};
}

int cb_exchange_push_rest(cb_exchange *x) {
    cb_slice piece;
    while (!x->closed && cb_chain_peek(&x->rest, &piece, 1)) {
        int64_t n = x->conn->vt->send_body(x->conn, x, piece, piece.len == x->rest.len);
        if (n == CB_EAGAIN || n == 0) return CB_OK;
        if (n < 0) return (int)n;
        if (x->closed) break;
        cb_chain_drop(&x->rest, (size_t)n);
        if ((size_t)n < piece.len) break;
    }
    return CB_OK;
}

/* A whole body at once: what framing has no room for now is kept. */
static int put_all(cb_exchange *x, cb_slice body) {
    int64_t n = x->conn->vt->send_body(x->conn, x, body, true);
    if (n == CB_EAGAIN) n = 0;
    if (n < 0) return (int)n;
    if (x->closed || (size_t)n == body.len) return CB_OK;
    return cb_chain_add(&x->rest, body.base + n, body.len - (size_t)n);
}

int cb_exchange_send(cb_exchange *x, int status, const cb_field *fields, size_t n, cb_slice body) {
    out_fields o;
    char text[24];
    int rc = check_reply(x, status);
    if (rc < 0) return rc;
    if (status < 200) return cb_fail(CB_EINVAL, "status %d: a whole response is a final one", status);
    cb_exchange_enter(x);
    rc = clean(x, &o, fields, n, 1, false);
    if (rc == CB_OK && o.length >= 0 && (uint64_t)o.length != body.len && !x->head_req && status != 304)
        rc = cb_fail(CB_EINVAL, "content-length says %lld, the body has %zu bytes", (long long)o.length, body.len);
    if (rc == CB_OK && o.length < 0 && status != 304) {
        o.length = (int64_t)body.len;
        o.at[o.n++] = (cb_field){cb_slice_str("content-length"), decimal(text, body.len)};
    }
    bool none = !body.len || x->head_req || status == 204 || status == 304;
    if (rc == CB_OK) rc = put_head(x, status, &o, none);
    clean_done(x, &o);
    if (rc == CB_OK && !none && !x->closed) {
        x->end_out = 1;
        x->out_bytes = (int64_t)body.len;
        rc = put_all(x, body);
        if (rc < 0) cb_exchange_abort(x, rc);
    }
    cb_exchange_leave(x);
    return rc;
}

int cb_exchange_send_text(cb_exchange *x, int status, const char *text) {
    const cb_field type = {cb_slice_str("content-type"), cb_slice_str("text/plain; charset=utf-8")};
    return cb_exchange_send(x, status, &type, 1, cb_slice_str(text));
}

static void count_refused(const cb_exchange *x, int status) {
    static const struct {
        int status;
        enum cb_cell_id cell;
    } rows[] = {{400, CB_C_HTTP_REFUSED_400},
                {408, CB_C_HTTP_REFUSED_408},
                {413, CB_C_HTTP_REFUSED_413},
                {414, CB_C_HTTP_REFUSED_414},
                {431, CB_C_HTTP_REFUSED_431}};
    enum cb_cell_id cell = CB_C_HTTP_REFUSED_OTHER;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].status == status) cell = rows[i].cell;
    cb_cells_add(x->conn->env.cells, cell, 1);
    if (status == 425) cb_cells_add(x->conn->env.cells, CB_C_HTTP_EARLY_REFUSED, 1);
}

void cb_exchange_fail_status(cb_exchange *x, int status) {
    int rc = status == 408                                     ? CB_ETIMEOUT
             : status == 413 || status == 414 || status == 431 ? CB_ELIMIT
             : status == 500                                   ? CB_EUSER
                                                               : CB_EPROTO;
    if (x->done || x->closed) return;
    if (!x->server || x->head_out) {
        cb_exchange_abort(x, rc);
        return;
    }
    if (!x->seen && x->conn) count_refused(x, status);
    cb_exchange_enter(x);
    x->failing = 1; /* what still comes of the request is thrown away */
    x->fail_rc = rc;
    cb_chain_free(&x->held);
    x->paused = 0;
    x->end_due = 0;
    if (cb_exchange_send(x, status, NULL, 0, (cb_slice){NULL, 0}) < 0) cb_exchange_abort(x, rc);
    cb_exchange_leave(x);
}

/* ---- the client's head ---- */

static int check_syntax(const cb_head *h) {
    if (!cb_method_ok(h->method)) return bad_field(CB_EINVAL, "not a method", h->method);
    if (h->authority.len && !cb_authority_ok(h->authority))
        return bad_field(CB_EINVAL, "not an authority", h->authority);
    if (h->path.len && !cb_target_ok(h->path)) return bad_field(CB_EINVAL, "not a path", h->path);
    return CB_OK;
}

static int check_request_head(const cb_head *h) {
    int rc = h->checked ? CB_OK : check_syntax(h);
    if (rc < 0) return rc;
    bool plain = cb_slice_eq(h->method, "CONNECT") && !h->protocol.len;
    if (!h->path.len && !plain) return cb_fail(CB_EINVAL, "a request needs a path");
    if (plain && !h->authority.len) return cb_fail(CB_EINVAL, "CONNECT needs an authority");
    return CB_OK;
}

int cb_exchange_send_request(cb_exchange *x, const cb_head *head, bool end) {
    out_fields o;
    if (x->done || x->closed || !x->conn) return cb_fail(CB_ECLOSED, "the exchange has no connection");
    if (x->server || x->head_out) return cb_fail(CB_EINVAL, "the request was sent already");
    int rc = check_request_head(head);
    if (rc < 0) return rc;
    cb_exchange_enter(x);
    rc = clean(x, &o, head->fields, head->n, 0, head->checked);
    cb_head h = *head;
    h.fields = o.at;
    h.n = o.n;
    h.length = o.length;
    end = end || x->end_out;
    if (rc == CB_OK && end && h.length > 0)
        rc = cb_fail(CB_EINVAL, "content-length %lld, and the request has no body", (long long)h.length);
    if (rc == CB_OK) {
        x->head_out = 1;
        x->end_out = end;
        x->out_length = h.length;
        x->head_req = cb_slice_eq(h.method, "HEAD");
        x->connect = cb_slice_eq(h.method, "CONNECT");
        rc = x->conn->vt->send_head(x->conn, x, &h, end);
    }
    clean_done(x, &o);
    cb_exchange_leave(x);
    return rc;
}

/* ---- bodies ---- */

/* May bytes be written now? CB_EAGAIN: not yet. */
static int check_write(cb_exchange *x) {
    if (x->done || x->closed) return cb_fail(CB_ECLOSED, "the exchange is over");
    if (x->end_out) return cb_fail(CB_EINVAL, "the message was finished already");
    if (!x->conn || (!x->server && !x->head_out)) {
        if (x->server) return cb_fail(CB_ECLOSED, "the connection of the exchange is gone");
        x->blocked = 1;
        return CB_EAGAIN;
    }
    if (!x->head_out) return cb_fail(CB_EINVAL, "a body before the head of the response");
    return CB_OK;
}

int64_t cb_exchange_write(cb_exchange *x, cb_slice data) {
    int rc = check_write(x);
    if (rc < 0) return rc;
    if (!data.len) return 0;
    if (x->out_length >= 0 && (uint64_t)(x->out_length - x->out_bytes) < data.len)
        return cb_fail(CB_EINVAL, "the body is longer than its content-length of %lld", (long long)x->out_length);
    if (x->no_body) {
        x->out_bytes += (int64_t)data.len;
        return (int64_t)data.len;
    }
    cb_exchange_enter(x);
    int64_t n = x->conn->vt->send_body(x->conn, x, data, false);
    if (n == 0) n = CB_EAGAIN;
    if (n > 0) x->out_bytes += n;
    if (n == CB_EAGAIN || (n > 0 && (size_t)n < data.len)) x->blocked = 1;
    cb_exchange_leave(x);
    return n;
}

size_t cb_exchange_room(const cb_exchange *x) {
    if (x->done || x->closed || x->end_out || !x->conn || (!x->server && !x->head_out)) return 0;
    if (x->no_body) return ROOM_DROPPED;
    size_t room = x->conn->vt->room(x->conn, x);
    if (x->out_length < 0) return room;
    uint64_t left = (uint64_t)(x->out_length - x->out_bytes);
    return left < room ? (size_t)left : room;
}

int cb_exchange_finish(cb_exchange *x) {
    return cb_exchange_finish_trailers(x, NULL, 0);
}

static int check_trailers(cb_exchange *x, const cb_field *f, size_t n) {
    (void)x;
    for (size_t i = 0; i < n; i++) {
        int rc = check_field(&f[i]);
        if (rc < 0) return rc;
        if (cb_field_is_hop(f[i].name) || cb_slice_ieq(f[i].name, "content-length") || cb_slice_ieq(f[i].name, "host"))
            return bad_field(CB_EINVAL, "not a field for a trailer section", f[i].name);
    }
    return CB_OK;
}

int cb_exchange_finish_trailers(cb_exchange *x, const cb_field *trailers, size_t n) {
    int rc = check_write(x);
    if (rc == CB_EAGAIN && !n) {
        x->end_out = 1; /* the head will say that nothing follows */
        x->blocked = 0;
        return CB_OK;
    }
    if (rc == CB_OK) rc = check_trailers(x, trailers, n);
    if (rc < 0) return rc;
    cb_exchange_enter(x);
    if (x->out_length >= 0 && x->out_bytes < x->out_length) {
        cb_exchange_reset(x, CB_RESET_INTERNAL);
        rc = cb_fail(CB_EINVAL, "the body ended after %lld of %lld bytes", (long long)x->out_bytes,
                     (long long)x->out_length);
    } else {
        x->end_out = 1;
        x->blocked = 0;
        if (n && !x->no_body && !x->tunnel) {
            rc = x->conn->vt->send_trailers(x->conn, x, trailers, n);
        } else {
            int64_t sent = x->conn->vt->send_body(x->conn, x, (cb_slice){NULL, 0}, true);
            rc = sent < 0 ? (int)sent : CB_OK;
        }
        if (rc < 0) cb_exchange_abort(x, rc);
    }
    cb_exchange_leave(x);
    return rc;
}

int cb_exchange_datagram_send(cb_exchange *x, cb_slice payload) {
    if (x->done || x->closed || !x->conn) return cb_fail(CB_ECLOSED, "the exchange is over");
    if (!x->conn->vt->send_datagram) return cb_fail(CB_ENOTSUP, "datagrams need HTTP/2, HTTP/3 or a tunnel");
    cb_exchange_enter(x);
    const cb_cells *cells = x->conn->env.cells;
    int rc = x->conn->vt->send_datagram(x->conn, x, payload);
    if (rc == CB_OK)
        cb_cells_add(cells, x->server ? CB_C_HTTP_DATAGRAMS_SERVER_OUT : CB_C_HTTP_DATAGRAMS_CLIENT_OUT, 1);
    cb_exchange_leave(x);
    return rc;
}
