/* Heads of HTTP/1.1 between the parser and the exchange: target forms, framing fields, connection options. What makes
 * two parsers disagree about where a message ends is refused here (RFC 9112, 6 and 11.2). */
#include "base/error.h"
#include "http/h1_int.h"
#include <string.h>

static int refuse(h1_conn *c, int status, const char *what) {
    c->err_status = status;
    return cb_fail(CB_EPROTO, "%s", what);
}

static int pseudo(h1_conn *c, const char *name, cb_slice value) {
    int rc = cb_exchange_in_pseudo(c->x, cb_slice_str(name), value);
    if (rc < 0) c->err_status = c->x->fail_status;
    return rc;
}

static size_t find(cb_slice s, char what) {
    const uint8_t *p = s.len ? memchr(s.base, what, s.len) : NULL;
    return p ? (size_t)(p - s.base) : s.len;
}

/* RFC 9112, 3.2.2: absolute-form, "http://authority/path?query". */
static int absolute_form(h1_conn *c, cb_slice t) {
    size_t colon = find(t, ':');
    if (t.len < colon + 4 || memcmp(t.base + colon, "://", 3) != 0)
        return refuse(c, 400, "the target has no known form");
    cb_slice scheme = {t.base, colon};
    cb_slice rest = {t.base + colon + 3, t.len - colon - 3};
    if (!cb_slice_ieq(scheme, "http") && !cb_slice_ieq(scheme, "https"))
        return refuse(c, 400, "the scheme of the target is neither http nor https");
    size_t end = find(rest, '/'), query = find(rest, '?');
    if (query < end) end = query;
    cb_slice authority = {rest.base, end}, path = {rest.base + end, rest.len - end};
    int rc = pseudo(c, ":scheme", cb_slice_str(scheme.len == 4 ? "http" : "https"));
    if (rc == CB_OK) rc = pseudo(c, ":authority", authority);
    if (rc < 0) return rc;
    if (path.len && path.base[0] == '/') return pseudo(c, ":path", path);
    if (!path.len) return pseudo(c, ":path", cb_slice_str(cb_slice_eq(c->x->method, "OPTIONS") ? "*" : "/"));
    /* "?query" right after the authority: the path is empty, which means "/". The byte before it in our buffer was the
     * last one of the authority, which has been copied. */
    c->line.base[c->line.len - path.len - 1] = '/';
    return pseudo(c, ":path", (cb_slice){c->line.base + c->line.len - path.len - 1, path.len + 1});
}

/* RFC 9112, 3.2.3: authority-form has a port. */
static int authority_form(h1_conn *c, cb_slice t) {
    const uint8_t *end = t.base + t.len, *p = end;
    while (p > t.base && p[-1] >= '0' && p[-1] <= '9')
        p--;
    if (p == end || p == t.base || p[-1] != ':') return refuse(c, 400, "the target of CONNECT is not host:port");
    return pseudo(c, ":authority", t);
}

static int check_target(h1_conn *c, bool connect) {
    cb_slice t = {c->line.base + c->method_len, c->line.len - c->method_len};
    if (!t.len) return refuse(c, 400, "a request without a target");
    if (find(t, '#') != t.len) return refuse(c, 400, "a fragment in the target");
    if (connect) return authority_form(c, t);
    if (t.base[0] != '/' && !(t.base[0] == '*' && t.len == 1)) return absolute_form(c, t);
    int rc = pseudo(c, ":scheme", cb_slice_str(c->h.env.scheme ? c->h.env.scheme : "http"));
    return rc < 0 ? rc : pseudo(c, ":path", t);
}

/* ---- fields that belong to this connection ---- */

typedef struct facts {
    size_t hosts, lengths, codings;
    cb_slice coding, upgrade, expect, te;
    bool close, keep_alive, connection_upgrade, te_listed;
    bool nominated; /* Connection names other fields */
    cb_slice host;
} facts;

static void read_connection(facts *f, cb_slice list) {
    cb_slice item;
    while (cb_list_next(&list, &item)) {
        if (cb_slice_ieq(item, "close"))
            f->close = true;
        else if (cb_slice_ieq(item, "keep-alive"))
            f->keep_alive = true;
        else if (cb_slice_ieq(item, "upgrade"))
            f->connection_upgrade = true;
        else if (cb_slice_ieq(item, "te"))
            f->te_listed = true;
        else
            f->nominated = true;
    }
}

static void read_fields(const cb_fields *in, facts *f) {
    for (size_t i = 0; i < in->len; i++) {
        cb_slice n = in->at[i].name, v = in->at[i].value;
        switch (n.len) {
        case 2:
            if (cb_slice_eq(n, "te")) f->te = v;
            break;
        case 4:
            if (cb_slice_eq(n, "host")) f->hosts++, f->host = v;
            break;
        case 6:
            if (cb_slice_eq(n, "expect")) f->expect = v;
            break;
        case 7:
            if (cb_slice_eq(n, "upgrade")) f->upgrade = v;
            break;
        case 10:
            if (cb_slice_eq(n, "connection")) read_connection(f, v);
            break;
        case 14:
            if (cb_slice_eq(n, "content-length")) f->lengths++;
            break;
        case 17:
            if (cb_slice_eq(n, "transfer-encoding")) f->codings++, f->coding = v;
            break;
        default:
            break;
        }
    }
}

/* End-to-end fields that Connection must not take away from the rest of the chain, nor from us. */
static bool protected_name(cb_slice name) {
    static const char *const list[] = {"host",       "content-length", "authorization", "cookie",
                                       "set-cookie", "cache-control",  "content-type",  "content-encoding",
                                       "forwarded",  "early-data"};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (cb_slice_eq(name, list[i])) return true;
    return name.len > 12 && !memcmp(name.base, "x-forwarded-", 12);
}

static bool is_nominated(const cb_fields *in, cb_slice name) {
    for (size_t i = 0; i < in->len; i++) {
        if (in->at[i].name.len != 10 || !cb_slice_eq(in->at[i].name, "connection")) continue;
        cb_slice list = in->at[i].value, item;
        while (cb_list_next(&list, &item)) {
            if (item.len != name.len) continue;
            size_t k = 0;
            while (k < item.len && cb_token_lower[item.base[k]] == name.base[k])
                k++;
            if (k == item.len) return !protected_name(name);
        }
    }
    return false;
}

/* The exchange is the same for all versions: connection-specific fields stay in here (RFC 9110, 7.6.1). */
static void strip(cb_fields *in, const facts *f) {
    bool te = f->te_listed && cb_field_has_token(f->te, "trailers");
    size_t kept = 0;
    if (f->nominated)
        for (size_t i = 0; i < in->len; i++)
            if (!cb_field_is_hop(in->at[i].name) && is_nominated(in, in->at[i].name)) in->at[i].name.len = 0;
    for (size_t i = 0; i < in->len; i++) {
        cb_field one = in->at[i];
        if (!one.name.len) continue;
        if (cb_field_is_hop(one.name)) {
            if (one.name.len != 2 || !te) continue;
            one.value = cb_slice_str("trailers");
            te = false;
        }
        in->at[kept++] = one;
    }
    in->len = kept;
}

static int check_framing(h1_conn *c, const facts *f) {
    if (f->lengths > 1) return refuse(c, 400, "content-length appears twice");
    if (!f->codings) return CB_OK;
    if (f->lengths) return refuse(c, 400, "both content-length and transfer-encoding");
    if (c->version_10) return refuse(c, 400, "transfer-encoding in HTTP/1.0");
    if (f->codings > 1) return refuse(c, 400, "transfer-encoding appears twice");
    if (!cb_slice_ieq(f->coding, "chunked"))
        return refuse(c, cb_field_has_token(f->coding, "chunked") ? 400 : 501, "a transfer coding other than chunked");
    c->chunked_in = true;
    return CB_OK;
}

/* ---- requests ---- */

static int check_host(h1_conn *c, const facts *f) {
    if (f->hosts > 1) return refuse(c, 400, "more than one Host");
    if (!f->hosts) return c->version_10 ? CB_OK : refuse(c, 400, "no Host");
    if (!f->host.len) return refuse(c, 400, "an empty Host");
    return CB_OK; /* what it says is checked with the whole head, for all versions */
}

/* The first protocol of Upgrade; HTTP/2 by Upgrade is obsolete (RFC 9113, 3.1). */
static cb_slice upgrade_of(const facts *f) {
    cb_slice list = f->upgrade, item;
    while (cb_list_next(&list, &item))
        if (!cb_slice_ieq(item, "h2c") && !cb_slice_ieq(item, "h2") && item.len <= 64) return item;
    return (cb_slice){NULL, 0};
}

static int check_expect(h1_conn *c, const facts *f, bool body) {
    if (!f->expect.base || c->version_10) return CB_OK;
    if (!cb_slice_ieq(f->expect, "100-continue")) return refuse(c, 417, "an unknown expectation");
    c->expect = body;
    return CB_OK;
}

static int check_request(h1_conn *c, const facts *f) {
    cb_exchange *x = c->x;
    if (c->line_spaces > 2 || memcmp(c->line_proto, "HTTP/", 5) != 0)
        return refuse(c, 400, "a request line that is not method, target and HTTP version");
    if (!c->has_version) return refuse(c, 400, "a request line without a version");
    if (c->parser.http_major != 1 || c->parser.http_minor > 1) return refuse(c, 505, "neither HTTP/1.0 nor HTTP/1.1");
    int rc = check_host(c, f);
    if (rc == CB_OK) rc = check_framing(c, f);
    if (rc < 0) return rc;
    bool body = c->chunked_in || (f->lengths && c->parser.content_length > 0);
    cb_slice method = {c->line.base, c->method_len};
    bool connect = cb_slice_eq(method, "CONNECT");
    if (connect && body) return refuse(c, 400, "CONNECT with a body");
    rc = pseudo(c, ":method", method);
    if (rc == CB_OK) rc = check_target(c, connect);
    if (rc == CB_OK) rc = check_expect(c, f, body);
    if (rc < 0) return rc;
    c->keep_alive_10 = c->version_10 && f->keep_alive && !f->close;
    if (f->close || (c->version_10 && !f->keep_alive)) c->close_after = true;
    cb_slice protocol = upgrade_of(f);
    c->upgrade = protocol.len && f->connection_upgrade && !c->version_10 && !body && !connect;
    if (c->upgrade) x->protocol = protocol;
    return CB_OK;
}

/* ---- responses ---- */

static int check_response(h1_conn *c, const facts *f) {
    cb_exchange *x = c->x;
    int status = c->parser.status_code;
    char text[4] = {(char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10), (char)('0' + status % 10), 0};
    if (c->parser.http_major != 1 || c->parser.http_minor > 1) return refuse(c, 400, "neither HTTP/1.0 nor HTTP/1.1");
    bool none = status < 200 || status == 204 || (x->connect && status < 300);
    if (none && f->codings) return refuse(c, 400, "transfer-encoding in a response that has no body");
    int rc = check_framing(c, f);
    if (rc == CB_OK) rc = pseudo(c, ":status", cb_slice_str(text));
    if (rc < 0) return rc;
    if (status < 100 || status > 599) return refuse(c, 400, "the status is not between 100 and 599");
    c->interim_now = status < 200 && status != 101;
    if (status == 101 && !(c->upgrade && f->connection_upgrade && f->upgrade.len))
        return refuse(c, 400, "status 101 without an upgrade that was asked for");
    if (!c->interim_now && (f->close || (c->version_10 && !f->keep_alive))) c->close_after = true;
    if (status == 101) x->protocol = upgrade_of(f);
    return CB_OK;
}

int h1_check_head(h1_conn *c) {
    facts f = {0};
    cb_fields *in = &c->x->in;
    c->version_10 = c->parser.http_major == 1 && c->parser.http_minor == 0;
    c->chunked_in = false;
    /* Room for the pseudo-header fields first: what is sealed must not move. */
    int rc = cb_buf_reserve(&in->arena, c->line.len + H1_LINE_EXTRA);
    if (rc < 0) return rc;
    cb_exchange_in_seal(c->x);
    read_fields(in, &f);
    rc = c->h.env.server ? check_request(c, &f) : check_response(c, &f);
    if (rc == CB_OK) strip(in, &f);
    return rc;
}
