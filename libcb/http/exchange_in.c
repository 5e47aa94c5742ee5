/* What framing delivers: heads are checked here, for all versions alike, and bodies find their way to the user. */
#include "base/error.h"
#include "http/exchange_int.h"
#include <string.h>

enum { LOG_CHARS = 64, INTERIM_MAX = 64 };

/* Refuses the head: the detail names the field, the status is what a server answers. */
static int refuse(cb_exchange *x, int status, const char *what, cb_slice bad) {
    char text[LOG_CHARS];
    x->fail_status = status;
    return cb_fail(status == 431 || status == 413 ? CB_ELIMIT : CB_EPROTO, "%s: \"%s\"", what,
                   cb_text_escape(text, sizeof text, bad));
}

static int over(cb_exchange *x, int rc) {
    if (rc == CB_ELIMIT) x->fail_status = 431;
    if (rc == CB_ENOMEM) x->fail_status = 503;
    return rc;
}

/* ---- pseudo-header fields ---- */

static bool scheme_ok(cb_slice s) {
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = cb_token_lower[s.base[i]];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.')) return false;
    }
    return s.len > 0 && s.len <= 32;
}

static bool protocol_ok(cb_slice s) {
    /* RFC 9110, 7.8: token or token/token. */
    const uint8_t *slash = s.len ? memchr(s.base, '/', s.len) : NULL;
    if (s.len > 64) return false;
    if (!slash) return cb_field_name_ok(s);
    size_t n = (size_t)(slash - s.base);
    return cb_field_name_ok((cb_slice){s.base, n}) && cb_field_name_ok((cb_slice){slash + 1, s.len - n - 1});
}

enum { P_METHOD, P_SCHEME, P_AUTHORITY, P_PATH, P_PROTOCOL, P_STATUS };
static const struct {
    const char *name;
    size_t len;
    size_t slot;
    bool (*ok)(cb_slice value);
    int status; /* when it is not ok */
} pseudo[] = {[P_METHOD] = {":method", 7, offsetof(cb_exchange, method), cb_method_ok, 400},
              [P_SCHEME] = {":scheme", 7, offsetof(cb_exchange, scheme), scheme_ok, 400},
              [P_AUTHORITY] = {":authority", 10, offsetof(cb_exchange, authority), cb_authority_ok, 400},
              [P_PATH] = {":path", 5, offsetof(cb_exchange, path), cb_target_ok, 400},
              [P_PROTOCOL] = {":protocol", 9, offsetof(cb_exchange, protocol), protocol_ok, 400}};

static cb_slice *slot_of(cb_exchange *x, size_t i) {
    return (cb_slice *)(void *)((char *)x + pseudo[i].slot);
}

static int in_status(cb_exchange *x, cb_slice value) {
    int status = 0;
    if (value.len != 3) return refuse(x, 400, "not a status", value);
    for (size_t i = 0; i < 3; i++) {
        if (value.base[i] < '0' || value.base[i] > '9') return refuse(x, 400, "not a status", value);
        status = status * 10 + (value.base[i] - '0');
    }
    if (status < 100) return refuse(x, 400, "not a status", value);
    x->status = status;
    return CB_OK;
}

int cb_exchange_in_pseudo(cb_exchange *x, cb_slice name, cb_slice value) {
    if (x->closed) return CB_ECLOSED;
    if (x->head_in) return refuse(x, 400, "a pseudo-header field in a trailer section", name);
    size_t i = 0;
    if (!x->server) {
        i = P_STATUS;
        if (!cb_slice_eq(name, ":status")) return refuse(x, 400, "a pseudo-header field that no response has", name);
    }
    while (i < P_STATUS && (name.len != pseudo[i].len || memcmp(name.base, pseudo[i].name, name.len) != 0))
        i++;
    if (x->server && i == P_STATUS) return refuse(x, 400, "an unknown pseudo-header field", name);
    if (x->pseudo_seen & (1U << i)) return refuse(x, 400, "a repeated pseudo-header field", name);
    x->pseudo_seen |= 1U << i;
    if (i == P_STATUS) return in_status(x, value);
    if (i == P_PATH && value.len > x->max_target) return refuse(x, 414, "the target is too long", value);
    if (i == P_METHOD && value.len > 64) return refuse(x, 501, "the method is too long", value);
    if (!pseudo[i].ok(value)) return refuse(x, pseudo[i].status, pseudo[i].name, value);
    return over(x, cb_fields_put(&x->in, value, slot_of(x, i)));
}

/* ---- fields ---- */

static int check_field(cb_exchange *x, cb_slice name, cb_slice value) {
    if (!cb_field_name_ok(name)) return refuse(x, 400, "not a field name", name);
    if (!cb_field_value_ok(value)) return refuse(x, 400, "the value of a field is malformed", name);
    if (x->version == CB_HTTP_1) return CB_OK;
    return cb_field_name_no_upper(name) ? CB_OK : refuse(x, 400, "upper case in a field name", name);
}

int cb_exchange_in_field(cb_exchange *x, cb_slice name, cb_slice value) {
    if (x->closed) return CB_ECLOSED;
    int rc = check_field(x, name, value);
    if (rc < 0) return rc;
    return over(x, cb_fields_add(&x->in, name, value));
}

static cb_fields *section(cb_exchange *x) {
    return x->head_in ? &x->trailers : &x->in;
}

int cb_exchange_part(cb_exchange *x, bool name, cb_slice piece) {
    cb_fields *f = section(x);
    if (x->part_name == 0 && name && !x->part_open) {
        x->part_at = f->arena.len;
        x->part_open = 1;
    }
    int rc = cb_fields_room(f, f->arena.len - x->part_at + piece.len);
    if (rc == CB_OK) rc = cb_buf_add(&f->arena, piece.base, piece.len);
    if (rc < 0) return over(x, rc);
    if (name) x->part_name += (uint32_t)piece.len;
    return CB_OK;
}

static int trailer_allowed(cb_exchange *x, cb_slice name);

int cb_exchange_part_end(cb_exchange *x) {
    cb_fields *f = section(x);
    if (!x->part_open) return CB_OK;
    uint8_t *name = f->arena.base + x->part_at;
    size_t len = x->part_name, value_at = x->part_at + len, value_len = f->arena.len - value_at;
    if (len && !cb_field_name_fold(name, len)) return refuse(x, 400, "not a field name", (cb_slice){name, len});
    uint8_t *value = f->arena.base + value_at;
    while (value_len && (value[value_len - 1] == ' ' || value[value_len - 1] == '\t'))
        value_len--;
    size_t skip = 0;
    while (skip < value_len && (value[skip] == ' ' || value[skip] == '\t'))
        skip++;
    cb_slice all = {name, len};
    if (!len) return refuse(x, 400, "a field without a name", all);
    if (!cb_field_value_ok((cb_slice){value + skip, value_len - skip}))
        return refuse(x, 400, "the value of a field is malformed", all);
    int rc = x->head_in ? trailer_allowed(x, all) : CB_OK;
    if (rc < 0) return rc;
    x->part_name = 0;
    x->part_open = 0;
    return over(x, cb_fields_note(f, x->part_at, len, value_at + skip, value_len - skip));
}

/* RFC 9110, 6.5.1: framing and routing do not belong into trailers. */
static int trailer_allowed(cb_exchange *x, cb_slice name) {
    static const char *const never[] = {"content-length", "host", "authorization"};
    if (cb_field_is_hop(name)) return refuse(x, 400, "a trailer section cannot have this field", name);
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        if (cb_slice_eq(name, never[i])) return refuse(x, 400, "a trailer section cannot have this field", name);
    return CB_OK;
}

int cb_exchange_in_trailer(cb_exchange *x, cb_slice name, cb_slice value) {
    if (x->closed) return CB_ECLOSED;
    int rc = check_field(x, name, value);
    if (rc == CB_OK) rc = trailer_allowed(x, name);
    if (rc < 0) return rc;
    return over(x, cb_fields_add(&x->trailers, name, value));
}

/* ---- the head as a whole ---- */

static int check_lengths(cb_exchange *x, cb_slice value, size_t *count) {
    int64_t n = cb_content_length(value);
    if (n < 0) return refuse(x, 400, "content-length is malformed", value);
    if ((*count)++) return refuse(x, 400, "content-length appears twice", value);
    x->in_length = n;
    return CB_OK;
}

/* RFC 9113, 8.2.2 and RFC 9114, 4.2. */
static int check_hop(cb_exchange *x, const cb_field *f) {
    if (x->version == CB_HTTP_1 || !cb_field_is_hop(f->name)) return CB_OK;
    if (f->name.len == 2 && x->server && cb_slice_ieq(f->value, "trailers")) return CB_OK;
    return refuse(x, 400, "a connection-specific field", f->name);
}

static int check_fields(cb_exchange *x, cb_slice *host, size_t *hosts) {
    size_t lengths = 0;
    for (size_t i = 0; i < x->in.len; i++) {
        const cb_field *f = &x->in.at[i];
        int rc = CB_OK;
        if (f->name.len == 14 && cb_slice_eq(f->name, "content-length")) {
            rc = check_lengths(x, f->value, &lengths);
        } else if (f->name.len == 4 && cb_slice_eq(f->name, "host")) {
            *host = f->value;
            (*hosts)++;
        } else {
            rc = check_hop(x, f);
        }
        if (rc < 0) return rc;
    }
    return CB_OK;
}

static int check_request(cb_exchange *x, cb_slice host, size_t hosts) {
    unsigned seen = x->pseudo_seen;
    x->connect = cb_slice_eq(x->method, "CONNECT");
    x->head_req = cb_slice_eq(x->method, "HEAD");
    if (hosts > 1) return refuse(x, 400, "more than one Host", host);
    if (!(seen & 1U << P_METHOD)) return refuse(x, 400, "a request without", cb_slice_str(":method"));
    bool extended = seen & 1U << P_PROTOCOL;
    if (x->version != CB_HTTP_1 && extended && !x->connect)
        return refuse(x, 400, ":protocol without CONNECT", x->method);
    if (x->connect && !extended) {
        if (seen & (1U << P_PATH | 1U << P_SCHEME)) return refuse(x, 400, "CONNECT with :scheme or :path", x->path);
        if (!x->authority.len) return refuse(x, 400, "CONNECT without", cb_slice_str(":authority"));
    } else {
        if (!(seen & 1U << P_SCHEME)) return refuse(x, 400, "a request without", cb_slice_str(":scheme"));
        if (!(seen & 1U << P_PATH)) return refuse(x, 400, "a request without", cb_slice_str(":path"));
        if (x->path.len == 1 && x->path.base[0] == '*' && !cb_slice_eq(x->method, "OPTIONS"))
            return refuse(x, 400, "the target \"*\" is for OPTIONS, not", x->method);
    }
    if (hosts && host.len && !cb_authority_ok(host)) return refuse(x, 400, "Host is malformed", host);
    bool differ = host.len != x->authority.len;
    for (size_t i = 0; !differ && i < host.len; i++) {
        uint8_t a = host.base[i], b = x->authority.base[i];
        differ = a != b && (cb_token_lower[a] != cb_token_lower[b] || !cb_token_lower[a]);
    }
    if (!x->authority.len)
        x->authority = host;
    else if (hosts && differ)
        return refuse(x, 400, "Host differs from the target's authority", host);
    bool needed = x->version != CB_HTTP_1 && (cb_slice_eq(x->scheme, "http") || cb_slice_eq(x->scheme, "https"));
    if (needed && !x->authority.len) return refuse(x, 400, "a request without", cb_slice_str(":authority"));
    return CB_OK;
}

static int check_response(cb_exchange *x) {
    if (!(x->pseudo_seen & 1U << P_STATUS)) return refuse(x, 400, "a response without", cb_slice_str(":status"));
    if (x->status == 101 && x->version != CB_HTTP_1)
        return refuse(x, 400, "only HTTP/1.1 has status", cb_slice_str("101"));
    bool none = x->status < 200 || x->status == 204 || (x->connect && x->status < 300);
    if (none && x->in_length > 0 && x->status != 101)
        return refuse(x, 400, "this status has no content-length", cb_fields_get(&x->in, "content-length"));
    return CB_OK;
}

void cb_exchange_in_seal(cb_exchange *x) {
    if (x->in.sealed) return;
    cb_fields_seal(&x->in);
    for (size_t i = 0; i < P_STATUS; i++) {
        cb_slice *slot = slot_of(x, i);
        if (x->pseudo_seen & 1U << i)
            cb_fields_fix(&x->in, slot);
        else if (!slot->base) /* else a client's, noted by its owner */
            *slot = (cb_slice){(const uint8_t *)"", 0};
    }
}

void cb_exchange_in_forget(cb_exchange *x) {
    cb_fields_clear(&x->in);
    x->pseudo_seen = 0;
    x->part_at = x->part_name = 0;
    x->part_open = 0;
    x->status = 0;
    x->in_length = -1;
}

static int in_info(cb_exchange *x) {
    int rc = CB_OK;
    if (++x->interims > INTERIM_MAX)
        return cb_fail(CB_EPROTO, "more than %d informational responses", (int)INTERIM_MAX);
    cb_cells_add(x->conn->env.cells, CB_C_HTTP_INTERIM_CLIENT, 1);
    if (x->ops->on_info) {
        cb_exchange_enter(x);
        if (x->ops->on_info(x, x->status, x->user) < 0) rc = CB_EUSER;
        if (cb_exchange_leave(x)) return CB_ECLOSED;
    }
    cb_exchange_in_forget(x);
    return rc;
}

bool cb_exchange_early_ok(const cb_exchange *x) {
    static const char *const safe[] = {"GET", "HEAD", "OPTIONS"};
    bool body = x->in_length > 0 || (x->in_length < 0 && x->version != CB_HTTP_1); /* HTTP/1.1 tells without a length */
    for (size_t i = 0; !body && i < sizeof safe / sizeof *safe; i++)
        if (cb_slice_eq(x->method, safe[i])) return true;
    return false;
}

/* A client's request that went out as early data: its owner sends it again when the handshake is complete. */
static int too_early(cb_exchange *x) {
    cb_exchange_in_forget(x);
    x->too_early = 1;
    return cb_fail(CB_EAGAIN, "the server takes the request only after the handshake (425)");
}

/* A client's request that an alternative does not serve: its owner sends it to the origin itself. */
static int misdirected(cb_exchange *x) {
    cb_exchange_in_forget(x);
    x->refused = 1;
    return cb_fail(CB_EAGAIN, "the alternative does not serve this origin (421)");
}

static void announce(cb_exchange *x) {
    const cb_hconn_owner_ops *o = x->conn ? x->conn->env.owner : NULL;
    x->seen = 1;
    if (x->server && o && o->exchange_new) o->exchange_new(x->conn, x);
}

int cb_exchange_in_head(cb_exchange *x, bool end) {
    if (x->closed) return CB_ECLOSED;
    cb_exchange_in_seal(x);
    cb_slice host = {NULL, 0};
    size_t hosts = 0;
    x->in_length = -1;
    int rc = check_fields(x, &host, &hosts);
    if (rc == CB_OK) rc = x->server ? check_request(x, host, hosts) : check_response(x);
    if (rc < 0) return rc;
    if (!x->server && x->status < 200 && x->status != 101)
        return end ? refuse(x, 400, "an interim response that ends the message", cb_slice_str("1xx")) : in_info(x);
    bool bodyless = x->head_req || x->status == 304;
    if (x->server || !bodyless) {
        if (end && x->in_length > 0) return refuse(x, 400, "a body shorter than content-length", x->path);
        if (end) x->in_length = 0;
    }
    if (x->max_body && x->in_length > 0 && (uint64_t)x->in_length > x->max_body)
        return refuse(x, 413, "the body would be too large", cb_fields_get(&x->in, "content-length"));
    if (x->server && x->early && !x->conn->env.early_any && !cb_exchange_early_ok(x))
        return refuse(x, 425, "not a safe request in early data:", x->method);
    if (!x->server && x->early && x->status == 425 && x->on_retry) return too_early(x);
    if (!x->server && x->on_response && x->on_response(x, x->release_user)) return misdirected(x);
    if (!x->server) x->tunnel = x->status == 101 || (x->connect && x->status < 300);
    x->head_in = 1;
    cb_exchange_enter(x);
    announce(x);
    if (x->server && x->connect && !x->ops->on_head)
        rc = refuse(x, 501, "nobody handles CONNECT to", x->authority);
    else
        rc = cb_exchange_tell(x, x->ops->on_head, "on_head");
    if (rc == CB_OK && end) rc = cb_exchange_in_end(x);
    return cb_exchange_leave(x) ? CB_ECLOSED : rc;
}

/* ---- bodies ---- */

int cb_exchange_tell(cb_exchange *x, int (*fn)(cb_exchange *x, void *user), const char *what) {
    if (!fn || x->closed) return x->closed ? CB_ECLOSED : CB_OK;
    int rc = fn(x, x->user);
    if (x->closed) return CB_ECLOSED;
    return rc < 0 ? cb_fail(CB_EUSER, "%s failed: %s", what, cb_strerror(rc)) : CB_OK;
}

/* How many bytes the user (or nobody) took; < 0: CB_EUSER. */
static int64_t give(cb_exchange *x, cb_slice data) {
    int64_t n = (int64_t)data.len;
    if (x->ops->on_body && !x->failing) n = x->ops->on_body(x, data, x->user);
    if (n == CB_EAGAIN) n = 0;
    if (n < 0)
        return x->closed && x->close_rc < 0 ? CB_ECLOSED : cb_fail(CB_EUSER, "on_body failed: %s", cb_strerror((int)n));
    if ((size_t)n > data.len) n = (int64_t)data.len;
    if ((size_t)n < data.len) x->paused = 1;
    if (n && x->conn && x->conn->vt->took && !(x->closed && x->close_rc < 0)) x->conn->vt->took(x->conn, x, (size_t)n);
    return n;
}

static bool dropped(const cb_exchange *x) {
    return x->closed && x->close_rc < 0;
}

int cb_exchange_deliver(cb_exchange *x) {
    cb_slice piece;
    while (!x->paused && !dropped(x) && cb_chain_peek(&x->held, &piece, 1)) {
        int64_t n = give(x, piece);
        if (n < 0) return (int)n;
        if (dropped(x)) return CB_ECLOSED;
        cb_chain_drop(&x->held, (size_t)n);
    }
    if (dropped(x)) return CB_ECLOSED;
    if (x->held.len || !x->end_due) return CB_OK;
    x->end_due = 0;
    if (x->failing || !x->ops->on_end) return CB_OK;
    int rc = x->ops->on_end(x, x->user);
    if (dropped(x)) return CB_ECLOSED;
    return rc < 0 ? cb_fail(CB_EUSER, "on_end failed: %s", cb_strerror(rc)) : CB_OK;
}

static int check_body(cb_exchange *x, size_t len) {
    x->in_bytes += (int64_t)len;
    if (x->in_length >= 0 && x->in_bytes > x->in_length && !x->tunnel)
        return refuse(x, 400, "a body longer than content-length", x->path);
    if (x->max_body && (uint64_t)x->in_bytes > x->max_body && !x->tunnel)
        return refuse(x, 413, "the body is too large", x->path);
    return CB_OK;
}

int cb_exchange_in_body(cb_exchange *x, cb_slice data) {
    if (x->closed) return CB_ECLOSED;
    if (!x->head_in || x->end_in) return refuse(x, 400, "body bytes out of order", x->path);
    if (!data.len) return CB_OK;
    int rc = check_body(x, data.len);
    if (rc < 0) return rc;
    cb_exchange_enter(x);
    int64_t n = 0;
    if (!x->paused && !x->held.len) n = give(x, data);
    if (n >= 0 && (size_t)n < data.len && !x->closed) {
        size_t more = data.len - (size_t)n;
        if (x->held.len + more > x->held_max)
            rc = cb_fail(CB_ELIMIT, "%zu bytes of a body wait for the user: the peer ignores the window", x->held.len);
        else
            rc = cb_chain_add(&x->held, data.base + n, more);
    }
    if (n < 0) rc = (int)n;
    return cb_exchange_leave(x) ? CB_ECLOSED : rc;
}

bool cb_exchange_in_blocked(const cb_exchange *x) {
    return x->held.len > 0 || x->paused;
}

int cb_exchange_in_end(cb_exchange *x) {
    if (x->closed) return CB_ECLOSED;
    if (x->end_in) return CB_OK;
    bool bodyless = !x->server && (x->head_req || x->status == 304);
    if (x->in_length >= 0 && x->in_bytes != x->in_length && !x->tunnel && !bodyless)
        return refuse(x, 400, "a body shorter than content-length", x->path);
    cb_fields_seal(&x->trailers);
    x->end_in = 1;
    x->end_due = 1;
    cb_exchange_enter(x);
    int rc = x->held.len || x->paused ? CB_OK : cb_exchange_deliver(x);
    return cb_exchange_leave(x) ? CB_ECLOSED : rc;
}

int cb_exchange_in_datagram(cb_exchange *x, cb_slice payload) {
    if (x->closed) return CB_ECLOSED;
    cb_cells_add(x->conn->env.cells, x->server ? CB_C_HTTP_DATAGRAMS_SERVER_IN : CB_C_HTTP_DATAGRAMS_CLIENT_IN, 1);
    if (!x->ops->on_datagram) return CB_OK;
    cb_exchange_enter(x);
    int rc = x->ops->on_datagram(x, payload, x->user);
    if (rc < 0) rc = cb_fail(CB_EUSER, "on_datagram failed: %s", cb_strerror(rc));
    return cb_exchange_leave(x) ? CB_ECLOSED : rc;
}

void cb_exchange_out_writable(cb_exchange *x) {
    if (x->closed) return;
    cb_exchange_enter(x);
    int rc = cb_exchange_push_rest(x);
    if (rc == CB_OK && x->blocked && !x->closed && !x->rest.len) {
        x->blocked = 0;
        rc = cb_exchange_tell(x, x->ops->on_writable, "on_writable");
    }
    if (rc < 0) cb_exchange_abort(x, rc);
    cb_exchange_leave(x);
}
