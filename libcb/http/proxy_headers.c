#include "http/proxy_headers.h"
#include "base/base64.h"
#include "base/error.h"
#include "base/mem.h"
#include "http/fields.h"
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS_MAX = 32, LOOP_MAX = 10, TEXT_MAX = 1 << 20, EXTRA_FIELDS = 14 };

/* ---- addresses ---- */

static cb_slice slice_of(const void *at, size_t n) {
    return (cb_slice){at, n};
}

cb_slice cb_host_part(cb_slice s) {
    if (s.len && s.base[0] == '[') {
        const uint8_t *close = memchr(s.base, ']', s.len);
        return close ? slice_of(s.base + 1, (size_t)(close - s.base) - 1) : slice_of("", 0);
    }
    const uint8_t *colon = s.len ? memchr(s.base, ':', s.len) : NULL;
    if (!colon) return s;
    size_t before = (size_t)(colon - s.base);
    return memchr(colon + 1, ':', s.len - before - 1) ? s : slice_of(s.base, before);
}

bool cb_prefix_any(const cb_prefix *at, size_t n, cb_slice host_port) {
    char text[INET6_ADDRSTRLEN];
    uint8_t bytes[16], shift;
    cb_slice host = cb_host_part(host_port);
    if (!n || !host.len || host.len >= sizeof text) return false;
    memcpy(text, host.base, host.len);
    text[host.len] = '\0';
    char *scope = strchr(text, '%');
    if (scope) *scope = '\0';
    if (!cb_prefix_address(bytes, text, &shift)) return false;
    for (size_t i = 0; i < n; i++)
        if (cb_prefix_has(&at[i], bytes)) return true;
    return false;
}

/* ---- lists ---- */

static cb_slice trim(cb_slice s) {
    while (s.len && (s.base[0] == ' ' || s.base[0] == '\t'))
        s = slice_of(s.base + 1, s.len - 1);
    while (s.len && (s.base[s.len - 1] == ' ' || s.base[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* Takes the first item off a comma list. */
static cb_slice next_item(cb_slice *list) {
    const uint8_t *comma = list->len ? memchr(list->base, ',', list->len) : NULL;
    size_t n = comma ? (size_t)(comma - list->base) : list->len;
    cb_slice item = slice_of(list->base, n);
    size_t skip = n + (comma != NULL);
    *list = slice_of(skip ? list->base + skip : list->base, list->len - skip);
    return trim(item);
}

static cb_slice last_item(cb_slice *list) {
    size_t n = list->len;
    while (n && list->base[n - 1] != ',')
        n--;
    cb_slice item = slice_of(list->base + n, list->len - n);
    list->len = n ? n - 1 : 0;
    return trim(item);
}

/* Names that Connection lists; those that frame or route a message stay whatever it says. */
typedef struct hop_names {
    cb_slice at[TOKENS_MAX];
    size_t n;
} hop_names;

static void hop_names_read(hop_names *h, const cb_field *in, size_t n) {
    h->n = 0;
    for (size_t i = 0; i < n; i++) {
        if (!cb_slice_eq(in[i].name, "connection")) continue;
        cb_slice list = in[i].value;
        while (list.len && h->n < TOKENS_MAX) {
            cb_slice item = next_item(&list);
            if (item.len) h->at[h->n++] = item;
        }
    }
}

static bool hop_named(const hop_names *h, cb_slice name) {
    static const char *const kept[] = {"content-length", "host", "set-cookie", "authorization"};
    for (size_t i = 0; i < h->n; i++) {
        if (h->at[i].len != name.len ||
            strncasecmp((const char *)h->at[i].base, (const char *)name.base, name.len) != 0)
            continue;
        for (size_t k = 0; k < sizeof kept / sizeof *kept; k++)
            if (cb_slice_eq(name, kept[k])) return false;
        return true;
    }
    return false;
}

/* Fields that never pass in either direction. */
static bool is_hop(cb_slice name) {
    switch (name.len) { /* most names need no comparison */
    case 2:
        return cb_slice_eq(name, "te");
    case 7:
        return cb_slice_eq(name, "upgrade");
    case 10:
        return cb_slice_eq(name, "connection") || cb_slice_eq(name, "keep-alive");
    case 14:
        return cb_slice_eq(name, "http2-settings");
    case 16:
        return cb_slice_eq(name, "proxy-connection");
    case 17:
        return cb_slice_eq(name, "transfer-encoding");
    case 19:
        return cb_slice_eq(name, "proxy-authorization");
    default:
        return false;
    }
}

static bool initial_known(uint8_t c) {
    return c == 'c' || c == 'f' || c == 't' || c == 'x';
}

/* Is it one of the fields that tell who forwarded, or one that frames, in disguise? "_" counts as "-": some origins
 * cannot tell them apart. */
static bool is_forwarding(cb_slice name) {
    static const struct {
        const char *text;
        size_t len;
    } names[] = {{"forwarded", 9},          {"x-forwarded-for", 15},
                 {"x-forwarded-proto", 17}, {"x-forwarded-host", 16},
                 {"x-forwarded-port", 16},  {"x-forwarded-server", 18},
                 {"x-real-ip", 9},          {"client-cert", 11},
                 {"client-cert-chain", 17}, {"x-forwarded-client-cert", 23},
                 {"content-length", 14},    {"transfer-encoding", 17}};
    enum { FRAMING = 10, SHORTEST = 9, LONGEST = 23 };
    if (name.len < SHORTEST || name.len > LONGEST || !initial_known(name.base[0])) return false; /* nearly all */
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        const char *known = names[k].text;
        size_t i = 0;
        if (name.len != names[k].len) continue;
        if (k >= FRAMING && !memchr(name.base, '_', name.len)) continue;
        while (i < name.len && (name.base[i] == (uint8_t)known[i] || (name.base[i] == '_' && known[i] == '-')))
            i++;
        if (i == name.len) return true;
    }
    return false;
}

bool cb_forward_name_like(cb_slice name, const char *known) {
    size_t i = 0;
    while (i < name.len && known[i] && (name.base[i] == (uint8_t)known[i] || (name.base[i] == '_' && known[i] == '-')))
        i++;
    return i == name.len && !known[i];
}

static bool is_trace(cb_slice name) {
    return name.len == 11 ? cb_slice_eq(name, "traceparent") : name.len == 10 && cb_slice_eq(name, "tracestate");
}

static bool is_hidden(const cb_relay_env *env, cb_slice name) {
    for (size_t i = 0; i < env->n_hidden; i++)
        if (cb_forward_name_like(name, env->hidden[i])) return true;
    return false;
}

/* ---- output ---- */

void cb_relay_init(cb_relay *f, const cb_alloc *alloc) {
    *f = (cb_relay){.length = -1};
    cb_buf_init(&f->text, alloc, TEXT_MAX);
}

void cb_relay_free(cb_relay *f) {
    cb_mem_free(f->text.alloc, f->at);
    cb_buf_free(&f->text);
    f->at = NULL;
    f->n = f->cap = 0;
}

/* Room for all fields and texts to come, so that slices into them stay. */
static int make_room(cb_relay *f, const cb_field *in, size_t n, size_t extra_text, size_t extra_fields) {
    size_t text = extra_text;
    f->n = 0;
    f->length = -1;
    f->text.len = 0;
    for (size_t i = 0; i < n; i++)
        if (in[i].name.len && initial_known(in[i].name.base[0])) text += in[i].value.len + 2; /* more than is used */
    int rc = cb_buf_reserve(&f->text, text);
    if (rc < 0) return rc;
    size_t cap = n + EXTRA_FIELDS + extra_fields;
    if (f->cap >= cap) return CB_OK;
    cb_field *at = cb_mem_grow(f->text.alloc, f->at, cap * sizeof *at);
    if (!at) return cb_fail(CB_ENOMEM, "no memory for %zu fields", cap);
    f->at = at;
    f->cap = cap;
    return CB_OK;
}

static void put(cb_relay *f, const char *name, cb_slice value) {
    f->at[f->n++] = (cb_field){cb_slice_str(name), value};
}

/* Text is gathered in f->text; make_room() has seen to it that it fits. */
static void add_text(cb_relay *f, cb_slice s) {
    if (f->text.cap - f->text.len < s.len || !s.len) return;
    memcpy(f->text.base + f->text.len, s.base, s.len);
    f->text.len += s.len;
}

static cb_slice text_from(const cb_relay *f, size_t from) {
    return slice_of(f->text.base + from, f->text.len - from);
}

int cb_relay_add(cb_relay *f, const char *name, cb_slice value) {
    if (f->n == f->cap || f->text.cap - f->text.len < value.len)
        return cb_fail(CB_ENOMEM, "no room for one more field (%s)", name);
    size_t from = f->text.len;
    add_text(f, value);
    put(f, name, text_from(f, from));
    return CB_OK;
}

void cb_relay_drop(cb_relay *f, const char *lower_name) {
    size_t to = 0;
    for (size_t i = 0; i < f->n; i++)
        if (!cb_slice_eq(f->at[i].name, lower_name)) f->at[to++] = f->at[i];
    f->n = to;
}

static const char *version_text(int version) {
    return version == CB_HTTP_3 ? "3" : version == CB_HTTP_2 ? "2" : "1.1";
}

static void add_via(cb_relay *f, const cb_relay_env *env) {
    size_t from = f->text.len;
    add_text(f, cb_slice_str(version_text(env->version)));
    add_text(f, cb_slice_str(" "));
    add_text(f, cb_slice_str(env->via));
    put(f, "via", text_from(f, from));
}

/* ---- requests ---- */

static bool all_values(cb_relay *f, const cb_field *in, size_t n, const char *name, const char *glue) {
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        if (!cb_slice_eq(in[i].name, name) || !in[i].value.len) continue;
        if (any) add_text(f, cb_slice_str(glue));
        add_text(f, in[i].value);
        any = true;
    }
    return any;
}

/* The rightmost address that no trusted peer has added. */
static cb_slice client_of(cb_slice list, cb_slice peer, const cb_relay_env *env) {
    cb_slice client = peer;
    while (list.len) {
        cb_slice hop = last_item(&list);
        if (!hop.len) continue;
        cb_slice host = cb_host_part(hop);
        uint8_t bytes[16], shift;
        char text[INET6_ADDRSTRLEN];
        if (!host.len || host.len >= sizeof text) break;
        memcpy(text, host.base, host.len);
        text[host.len] = '\0';
        if (!cb_prefix_address(bytes, text, &shift)) break;
        client = host;
        if (!cb_prefix_any(env->trusted, env->n_trusted, host)) break;
    }
    return client;
}

static void add_x_forwarded(cb_relay *f, const cb_field *in, size_t n, const cb_relay_env *env, bool trusted) {
    size_t from = f->text.len;
    const cb_slice peer = f->client;
    if (trusted && all_values(f, in, n, "x-forwarded-for", ", ")) {
        f->client = client_of(text_from(f, from), peer, env);
        add_text(f, cb_slice_str(", "));
    }
    add_text(f, peer);
    if (!env->no_x_forwarded && f->text.len > from) put(f, "x-forwarded-for", text_from(f, from));
    if (env->no_x_forwarded) return;
    const struct {
        const char *name;
        cb_slice ours;
    } rows[] = {{"x-forwarded-proto", cb_slice_str(env->secure ? "https" : "http")},
                {"x-forwarded-host", env->authority}};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        cb_slice value = rows[r].ours;
        for (size_t i = 0; trusted && i < n; i++) {
            if (!cb_slice_eq(in[i].name, rows[r].name)) continue;
            value = in[i].value;
            break;
        }
        if (value.len) put(f, rows[r].name, value);
    }
}

/* A value of RFC 7239: a token, or quoted. */
static void add_pair(cb_relay *f, const char *name, cb_slice value, bool node) {
    if (!value.len) return;
    bool token = cb_field_name_ok(value);
    bool v6 = !token && node && memchr(value.base, ':', value.len);
    bool quotable = token || !(memchr(value.base, '"', value.len) || memchr(value.base, '\\', value.len));
    if (!quotable) return;
    add_text(f, cb_slice_str(name));
    add_text(f, cb_slice_str(token ? "=" : v6 ? "=\"[" : "=\""));
    add_text(f, value);
    add_text(f, cb_slice_str(token ? "" : v6 ? "]\"" : "\""));
}

static void add_forwarded(cb_relay *f, const cb_field *in, size_t n, const cb_relay_env *env, cb_slice peer,
                          bool trusted) {
    size_t from = f->text.len;
    if (trusted && all_values(f, in, n, "forwarded", ", ")) add_text(f, cb_slice_str(", "));
    add_pair(f, "for", peer.len ? peer : cb_slice_str("unknown"), true);
    if (env->authority.len) add_pair(f, ";host", env->authority, false);
    add_pair(f, ";proto", cb_slice_str(env->secure ? "https" : "http"), false);
    put(f, "forwarded", text_from(f, from));
}

/* ---- the client's certificate (RFC 9440) ---- */

static const char *const cert_fields[] = {"client-cert", "client-cert-chain", "x-forwarded-client-cert"};

static size_t cert_room(const cb_relay_env *env) {
    size_t room = 0;
    cb_slice der;
    for (size_t i = 0; env->peer && env->client_cert && (der = cb_peer_cert(env->peer, i)).len; i++)
        room += (der.len + 2) / 3 * 4 + sizeof ":, :";
    return room;
}

/* Certificates from `first` on, as a list of byte sequences (RFC 8941, 3.3.5). */
static void add_certs(cb_relay *f, const char *name, const cb_peer *p, size_t first, size_t n) {
    size_t from = f->text.len;
    cb_slice der;
    for (size_t i = first; i < first + n && (der = cb_peer_cert(p, i)).len; i++) {
        add_text(f, cb_slice_str(i > first ? ", :" : ":"));
        cb_base64_encode((char *)f->text.base + f->text.len, der.base, der.len);
        f->text.len += (der.len + 2) / 3 * 4;
        add_text(f, cb_slice_str(":"));
    }
    if (f->text.len > from) put(f, name, text_from(f, from));
}

static void add_client_cert(cb_relay *f, const cb_field *in, size_t n, const cb_relay_env *env, bool trusted) {
    if (env->peer && env->client_cert) {
        add_certs(f, cert_fields[0], env->peer, 0, 1);
        if (env->client_cert > 1) add_certs(f, cert_fields[1], env->peer, 1, SIZE_MAX / 2);
        return;
    }
    for (size_t k = 0; trusted && k < sizeof cert_fields / sizeof *cert_fields; k++)
        for (size_t i = 0; i < n; i++)
            if (cb_slice_eq(in[i].name, cert_fields[k])) f->at[f->n++] = in[i];
}

static bool passed_too_often(const cb_field *in, size_t n, const char *via) {
    size_t times = 0, len = strlen(via);
    for (size_t i = 0; i < n; i++) {
        if (!cb_slice_eq(in[i].name, "via")) continue;
        cb_slice list = in[i].value;
        while (list.len) {
            cb_slice item = next_item(&list);
            const uint8_t *space = item.len ? memchr(item.base, ' ', item.len) : NULL;
            size_t before = space ? (size_t)(space - item.base) + 1 : item.len;
            times += item.len - before >= len && memcmp(item.base + before, via, len) == 0;
        }
    }
    return times >= LOOP_MAX;
}

int cb_relay_request(cb_relay *f, const cb_field *in, size_t n, const cb_relay_env *env) {
    hop_names hops;
    bool trusted = cb_prefix_any(env->trusted, env->n_trusted, cb_slice_str(env->remote));
    bool early_data = false, wants_trailers = false;
    size_t cookies = 0;
    int rc = make_room(f, in, n, 512 + 3 * env->authority.len + strlen(env->via) + cert_room(env), env->n_more);
    if (rc < 0) return rc;
    if (passed_too_often(in, n, env->via)) return cb_fail(CB_ELIMIT, "the request goes round in circles");
    hop_names_read(&hops, in, n);
    const cb_slice peer = cb_host_part(cb_slice_str(env->remote));
    f->client = peer;
    for (size_t i = 0; i < n; i++) {
        cb_slice name = in[i].name;
        if (cb_slice_eq(name, "te") && cb_field_has_token(in[i].value, "trailers")) wants_trailers = true;
        if (cb_slice_eq(name, "early-data")) { /* kept, also when Connection names it: RFC 8470, 5.1 */
            early_data = true;
            continue;
        }
        if (is_hop(name) || hop_named(&hops, name) || is_forwarding(name) || cb_slice_eq(name, "host")) continue;
        if (env->own_trace && is_trace(name)) continue;
        if (env->n_hidden && is_hidden(env, name)) continue;
        if (cb_slice_eq(name, "cookie")) cookies++;
        if (cb_slice_eq(name, "content-length")) f->length = cb_content_length(in[i].value);
        f->at[f->n++] = in[i];
    }
    if (cookies > 1) { /* RFC 9113, 8.2.3: crumbs are one field on HTTP/1.1 */
        size_t from = f->text.len;
        all_values(f, in, n, "cookie", "; ");
        cb_relay_drop(f, "cookie");
        put(f, "cookie", text_from(f, from));
    }
    if (wants_trailers) put(f, "te", cb_slice_str("trailers"));
    if (env->early || early_data) put(f, "early-data", cb_slice_str("1"));
    add_x_forwarded(f, in, n, env, trusted);
    if (!env->no_forwarded) add_forwarded(f, in, n, env, peer, trusted);
    add_client_cert(f, in, n, env, trusted);
    add_via(f, env);
    if (env->traceparent) put(f, "traceparent", cb_slice_str(env->traceparent));
    if (env->tracestate.len) put(f, "tracestate", env->tracestate);
    for (size_t i = 0; i < env->n_more; i++)
        f->at[f->n++] = env->more[i];
    return CB_OK;
}

int cb_relay_response(cb_relay *f, const cb_field *in, size_t n, const cb_relay_env *env) {
    hop_names hops;
    int rc = make_room(f, in, n, 128 + strlen(env->via), 0);
    if (rc < 0) return rc;
    hop_names_read(&hops, in, n);
    for (size_t i = 0; i < n; i++) {
        cb_slice name = in[i].name;
        /* Alt-Svc speaks of the origin's own endpoints. */
        if (is_hop(name) || hop_named(&hops, name) || cb_slice_eq(name, "alt-svc")) continue;
        if (cb_slice_eq(name, "content-length")) f->length = cb_content_length(in[i].value);
        f->at[f->n++] = in[i];
    }
    add_via(f, env);
    return CB_OK;
}

int cb_relay_trailers(cb_relay *f, const cb_field *in, size_t n, const cb_relay_env *env) {
    static const char *const never[] = {"content-length",
                                        "content-encoding",
                                        "content-type",
                                        "content-range",
                                        "trailer",
                                        "host",
                                        "authorization",
                                        "proxy-authorization",
                                        "proxy-authenticate",
                                        "www-authenticate",
                                        "cache-control",
                                        "expect",
                                        "max-forwards",
                                        "pragma",
                                        "range",
                                        "set-cookie",
                                        "cookie",
                                        "forwarded",
                                        "via",
                                        "location"};
    int rc = make_room(f, in, n, 0, 0);
    if (rc < 0) return rc;
    for (size_t i = 0; i < n; i++) {
        bool bad = is_hop(in[i].name) || is_forwarding(in[i].name) || is_hidden(env, in[i].name);
        for (size_t k = 0; k < sizeof never / sizeof *never && !bad; k++)
            bad = cb_slice_eq(in[i].name, never[k]);
        if (!bad) f->at[f->n++] = in[i];
    }
    return CB_OK;
}
