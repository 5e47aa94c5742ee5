/* The trace of a pass: whose context it is in, what origins are told, and the spans when it is over. Names of
 * attributes are those of OpenTelemetry's semantic conventions (HTTP, network, TLS), and "cb." ones for what they do
 * not name. */
#include "base/error.h"
#include "http/hconn.h"
#include "http/proxy_int.h"
#include "telemetry/redact.h"
#include "transport/tls_session.h"
#include <stdio.h>
#include <string.h>

enum { ATTRIBUTES_MAX = 32, NAME_MAX = 256, URL_MAX = CB_REDACT_MAX + 320 };

/* ---- context ---- */

/* IDs are random, and never all zero. */
static bool random_id(cb_proxy *p, uint8_t *out, size_t n) {
    if (cb_loop_random(p->loop, out, n) < 0) return false;
    out[0] |= out[0] == 0;
    return true;
}

static bool believed(const cb_pass *pass) {
    const cb_router *r = pass->table->router;
    const uint8_t from = pass->proxy->trace_from;
    if (from == CB_TRACE_FROM_ALL) return true;
    return from == CB_TRACE_FROM_TRUSTED && cb_prefix_any(r->trusted, r->n_trusted, cb_slice_str(pass->remote));
}

/* Several tracestate fields are one (W3C Trace Context, 3.3). Too much, or malformed: none goes on. */
static void read_state(cb_pass_notes *n, const cb_field *in, size_t n_in) {
    int rc = CB_OK;
    for (size_t i = 0; i < n_in && rc == CB_OK; i++) {
        if (in[i].name.len != 10 || !cb_slice_eq(in[i].name, "tracestate")) continue;
        if (n->state.len) rc = cb_buf_text(&n->state, ",");
        if (rc == CB_OK) rc = cb_buf_add(&n->state, in[i].value.base, in[i].value.len);
    }
    if (rc < 0 || !cb_tracestate_valid(cb_buf_slice(&n->state))) n->state.len = 0;
}

/* Exactly one good traceparent: it is gone on with. */
static void read_caller(cb_pass *pass) {
    cb_pass_notes *n = pass->notes;
    size_t n_in = 0, parents = 0;
    cb_slice parent = {NULL, 0};
    const cb_field *in = cb_exchange_fields(pass->front, &n_in);
    for (size_t i = 0; i < n_in; i++) {
        if (in[i].name.len != 11 || !cb_slice_eq(in[i].name, "traceparent")) continue;
        parent = in[i].value;
        parents++;
    }
    n->called = parents == 1 && cb_trace_context_parse(&n->parent, parent) == CB_OK;
    if (n->called) read_state(n, in, n_in);
}

void cb_pass_trace_begin(cb_pass *pass) {
    cb_proxy *p = pass->proxy;
    cb_pass_notes *n = pass->notes;
    cb_trace_context *c = &n->context;
    const cb_hconn *h = pass->front->conn;
    if (believed(pass)) read_caller(pass);
    c->flags = n->called ? n->parent.flags : CB_TRACE_RANDOM;
    if (n->called) memcpy(c->trace_id, n->parent.trace_id, sizeof c->trace_id);
    if (!n->called && !random_id(p, c->trace_id, sizeof c->trace_id)) return;
    if (!random_id(p, c->span_id, sizeof c->span_id)) return;
    if (p->sampler)
        cb_sampler_begin(p->sampler, c, n->called ? &n->parent : NULL, cb_loop_now(p->loop));
    else if (!n->called)
        c->flags |= CB_TRACE_SAMPLED;
    n->traced = true;
    n->first = h && h->n_served == 0 && h->n_exchanges == 1;
}

void cb_pass_trace_env(const cb_pass *pass, cb_relay_env *env) {
    const cb_pass_notes *n = pass->notes;
    const bool traced = n && n->traced;
    env->own_trace = traced || !believed(pass);
    if (!traced || !n->n_attempts) return;
    env->traceparent = n->traceparent;
    env->tracestate = cb_buf_slice(&n->state);
}

/* ---- attempts ---- */

static cb_attempt *attempt_now(cb_pass_notes *n) {
    if (!n->n_attempts) return NULL;
    return &n->attempts[n->n_attempts < CB_NOTES_ATTEMPTS ? n->n_attempts - 1 : CB_NOTES_ATTEMPTS - 1];
}

void cb_pass_trace_attempt(cb_pass *pass) {
    cb_pass_notes *n = pass->notes;
    cb_trace_context below = n->context;
    if (!n->traced) return;
    n->n_attempts++;
    cb_attempt *a = attempt_now(n);
    memset(a, 0, sizeof *a);
    a->def = pass->group->targets[pass->peer].def;
    a->began = cb_loop_now(pass->proxy->loop);
    if (!random_id(pass->proxy, a->span_id, sizeof a->span_id)) memcpy(a->span_id, n->context.span_id, 8);
    memcpy(below.span_id, a->span_id, sizeof below.span_id);
    cb_trace_context_text(&below, n->traceparent);
}

void cb_pass_trace_answered(cb_pass *pass, cb_exchange *back) {
    cb_attempt *a = attempt_now(pass->notes);
    if (!a) return;
    a->answered = pass->answered_at;
    a->status = cb_exchange_status(back);
}

void cb_pass_trace_attempt_over(cb_pass *pass, cb_exchange *back, const char *reason) {
    cb_attempt *a = attempt_now(pass->notes);
    if (!a || a->ended) return;
    a->ended = cb_loop_now(pass->proxy->loop);
    a->reason = reason;
    if (!back) return;
    const char *peer = cb_pool_peer(back);
    a->times = *cb_pool_times_of(back);
    a->version = cb_pool_version(back);
    a->reused = cb_pool_reused(back);
    memcpy(a->peer, peer, strlen(peer) + 1);
}

/* ---- spans ---- */

typedef struct writer {
    cb_pass *pass;
    cb_tracer *tracer;
    int64_t wall; /* to add to loop times */
    cb_attribute at[ATTRIBUTES_MAX];
    size_t n;
} writer;

static void add_text(writer *w, const char *key, cb_slice text) {
    if (!text.len || w->n == ATTRIBUTES_MAX) return;
    w->at[w->n++] = (cb_attribute){.key = key, .text = text, .type = CB_ATTRIBUTE_TEXT};
}

static void add_str(writer *w, const char *key, const char *text) {
    add_text(w, key, cb_slice_str(text));
}

static void add_int(writer *w, const char *key, int64_t value) {
    if (w->n == ATTRIBUTES_MAX) return;
    w->at[w->n++] = (cb_attribute){.key = key, .integer = value, .type = CB_ATTRIBUTE_INT};
}

/* What follows the host and a colon; 0: nothing. */
static int64_t port_part(cb_slice host_port) {
    int64_t port = 0;
    const uint8_t *colon = host_port.len ? memrchr(host_port.base, ':', host_port.len) : NULL;
    if (!colon || cb_host_part(host_port).len + 1 >= host_port.len) return 0;
    for (const uint8_t *p = colon + 1; p < host_port.base + host_port.len; p++) {
        if (*p < '0' || *p > '9' || port > 6553) return 0;
        port = port * 10 + (*p - '0');
    }
    return port <= 65535 ? port : 0;
}

static void add_host(writer *w, const char *host_key, const char *port_key, cb_slice host_port) {
    const int64_t port = port_part(host_port);
    add_text(w, host_key, cb_host_part(host_port));
    if (port) add_int(w, port_key, port);
}

/* Methods that conventions know; others are one, so that they do not become many. */
static const char *method_name(cb_slice method) {
    static const char *const known[] = {"GET",     "HEAD",  "POST",  "PUT",   "DELETE",
                                        "CONNECT", "PATCH", "TRACE", "QUERY", "OPTIONS"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (cb_slice_eq(method, known[i])) return known[i];
    return NULL;
}

static void add_method(writer *w) {
    const cb_slice method = cb_exchange_method(w->pass->front);
    const char *name = method_name(method);
    add_str(w, "http.request.method", name ? name : "_OTHER");
    if (!name) add_text(w, "http.request.method_original", method);
}

static const char *version_text(int version) {
    return version == CB_HTTP_3 ? "3" : version == CB_HTTP_2 ? "2" : version == CB_HTTP_1 ? "1.1" : NULL;
}

/* Writes a span with the attributes that were gathered. */
static void add_span(writer *w, const char *name, int kind, const cb_trace_context *context,
                     const cb_trace_context *parent, cb_time from, cb_time to, const char *error) {
    const cb_span s = {.size = sizeof s,
                       .context = context,
                       .parent = parent,
                       .name = name,
                       .kind = kind,
                       .tracestate = cb_buf_slice(&w->pass->notes->state),
                       .start_ns = w->wall + (int64_t)from,
                       .end_ns = w->wall + (int64_t)to,
                       .attributes = w->at,
                       .attributes_len = w->n,
                       .status = error ? CB_SPAN_ERROR : CB_SPAN_UNSET,
                       .status_text = error};
    (void)cb_tracer_add(w->tracer, &s); /* what finds no room is counted there */
    w->n = 0;
}

/* A span of ours below `parent`, which gets a context of its own. */
static void add_part(writer *w, const char *name, const cb_trace_context *parent, cb_trace_context *own, cb_time from,
                     cb_time to, const char *error) {
    *own = *parent;
    if (random_id(w->pass->proxy, own->span_id, sizeof own->span_id))
        add_span(w, name, CB_SPAN_INTERNAL, own, parent, from, to, error);
    w->n = 0;
}

/* The connection until its first request, and its handshake. */
static void accept_spans(writer *w) {
    const cb_exchange *x = w->pass->front;
    const cb_hconn *h = x->conn;
    cb_trace_context accepted, handshake;
    if (!w->pass->notes->first || !h || !h->accepted) return;
    add_str(w, "network.transport", h->vt->version == CB_HTTP_3 ? "udp" : "tcp");
    add_host(w, "network.peer.address", "network.peer.port", cb_slice_str(cb_exchange_remote(x)));
    add_part(w, "accept", &w->pass->notes->context, &accepted, h->accepted,
             x->started > h->accepted ? x->started : h->accepted, NULL);
    if (!h->secured) return;
    add_str(w, "tls.protocol.name", "tls");
    add_str(w, "tls.protocol.version", cb_exchange_tls_version(x));
    add_str(w, "tls.cipher", cb_exchange_tls_cipher(x));
    add_str(w, "tls.next_protocol", h->env.tls ? cb_tls_session_alpn(h->env.tls) : NULL);
    add_str(w, "tls.client.server_name", cb_exchange_sni(x));
    if (cb_exchange_tls_resumed(x))
        w->at[w->n++] = (cb_attribute){.key = "tls.resumed", .integer = 1, .type = CB_ATTRIBUTE_BOOL};
    add_part(w, "handshake", &accepted, &handshake, h->accepted, h->secured, NULL);
}

/* Where it goes, and who may: from the request's head to the first attempt, or to the refusal. */
static void route_spans(writer *w, cb_time now) {
    const cb_pass *pass = w->pass;
    const cb_time end = pass->routed ? pass->routed : now;
    const char *refused = pass->routed ? NULL : pass->reason;
    cb_trace_context route, auth;
    if (pass->route) {
        add_str(w, "http.route", pass->route->path);
        add_str(w, "cb.route", pass->route->name);
        add_str(w, "cb.group", pass->group->def->opts.name);
    }
    add_part(w, "route", &pass->notes->context, &route, pass->started, end, refused);
    if (!pass->auth) return;
    const cb_principal *who = cb_authn_principal(pass->auth->call);
    const char *why = pass->auth->reason ? pass->auth->reason : cb_authn_reason(pass->auth->call);
    add_str(w, "cb.auth.source", who->source);
    add_str(w, "cb.auth.reason", why);
    add_str(w, "cb.auth.rule", pass->auth->rule);
    add_part(w, "auth", &route, &auth, pass->started, end, refused);
}

static void connect_span(writer *w, const cb_attempt *a, const cb_trace_context *upstream) {
    const cb_pool_times *t = &a->times;
    cb_trace_context own;
    if (a->reused || !t->ready) return;
    add_str(w, "network.transport", a->version == CB_HTTP_3 ? "udp" : "tcp");
    add_host(w, "network.peer.address", "network.peer.port", cb_slice_str(a->peer));
    if (t->connected) add_int(w, "cb.connect.tcp_ns", (int64_t)(t->connected - t->began));
    add_part(w, "connect", upstream, &own, t->began, t->ready, NULL);
}

static void attempt_span(writer *w, const cb_attempt *a, uint32_t number, cb_time now) {
    const cb_pass *pass = w->pass;
    const cb_slice path = cb_exchange_path(pass->front);
    const char *method = method_name(cb_exchange_method(pass->front));
    cb_trace_context upstream = pass->notes->context;
    char url[URL_MAX], shown[CB_REDACT_MAX];
    bool cut = false;
    const cb_slice safe = cb_redact_url(path, shown, &cut);
    int n = snprintf(url, sizeof url, "%s%.*s", a->def->url, (int)(safe.len < CB_REDACT_MAX ? safe.len : CB_REDACT_MAX),
                     (const char *)safe.base);
    memcpy(upstream.span_id, a->span_id, sizeof upstream.span_id);
    add_method(w);
    add_text(w, "url.full", (cb_slice){(const uint8_t *)url, n < URL_MAX ? (size_t)n : URL_MAX - 1});
    add_str(w, "server.address", a->def->host);
    add_int(w, "server.port", a->def->port);
    add_host(w, "network.peer.address", "network.peer.port", cb_slice_str(a->peer));
    add_str(w, "network.protocol.version", version_text(a->version));
    if (a->status) add_int(w, "http.response.status_code", a->status);
    if (number) add_int(w, "http.request.resend_count", number);
    add_str(w, "cb.group", pass->group->def->opts.name);
    if (a->times.sent) add_int(w, "cb.wait_ns", (int64_t)(a->times.sent - a->times.queued));
    char code[16] = "";
    if (!a->reason && a->status >= 400) snprintf(code, sizeof code, "%d", a->status);
    const char *error = a->reason ? a->reason : *code ? code : NULL;
    add_str(w, "error.type", error);
    add_span(w, method ? method : "HTTP", CB_SPAN_CLIENT, &upstream, &pass->notes->context, a->began,
             a->ended ? a->ended : now, error);
    connect_span(w, a, &upstream);
}

static void add_url(writer *w, cb_slice url) {
    const uint8_t *mark = url.len ? memchr(url.base, '?', url.len) : NULL;
    const size_t path = mark ? (size_t)(mark - url.base) : url.len;
    add_text(w, "url.path", (cb_slice){url.base, path});
    if (mark) add_text(w, "url.query", (cb_slice){mark + 1, url.len - path - 1});
}

static void server_span(writer *w, cb_time now, bool failed) {
    const cb_pass *pass = w->pass;
    const cb_exchange *x = pass->front;
    const char *method = method_name(cb_exchange_method(x));
    const cb_principal *who = pass->auth ? cb_authn_principal(pass->auth->call) : NULL;
    const char *tenant = who && who->tenant ? who->tenant : pass->route ? pass->route->tenant : NULL;
    char name[NAME_MAX], shown[CB_REDACT_MAX], code[16];
    bool cut = false;
    snprintf(code, sizeof code, "%d", pass->status);
    const char *error = !failed ? NULL : pass->reason ? pass->reason : code;
    add_method(w);
    add_url(w, cb_redact_url(cb_exchange_path(x), shown, &cut));
    add_text(w, "url.scheme", cb_exchange_scheme(x));
    if (pass->status) add_int(w, "http.response.status_code", pass->status);
    add_str(w, "error.type", error);
    add_str(w, "http.route", pass->route ? pass->route->path : NULL);
    add_str(w, "network.protocol.version", version_text(cb_exchange_version(x)));
    add_host(w, "server.address", "server.port", cb_exchange_authority(x));
    add_str(w, "client.address", *pass->client ? pass->client : NULL);
    add_host(w, "network.peer.address", "network.peer.port", cb_slice_str(pass->remote));
    add_text(w, "user_agent.original", cb_exchange_field(x, "user-agent"));
    add_int(w, "http.request.body.size", (int64_t)pass->bytes_in);
    add_int(w, "http.response.body.size", (int64_t)pass->bytes_out);
    add_str(w, "tls.protocol.version", cb_exchange_tls_version(x));
    add_str(w, "cb.route", pass->route ? pass->route->name : NULL);
    add_str(w, "cb.group", pass->group ? pass->group->def->opts.name : NULL);
    add_str(w, "cb.tenant", tenant);
    if (!error) add_str(w, "cb.reason", pass->reason);
    snprintf(name, sizeof name, "%s%s%s", method ? method : "HTTP", pass->route ? " " : "",
             pass->route ? pass->route->path : "");
    add_span(w, name, CB_SPAN_SERVER, &pass->notes->context, pass->notes->called ? &pass->notes->parent : NULL,
             x->started, now, error);
}

void cb_pass_trace_end(cb_pass *pass) {
    cb_proxy *p = pass->proxy;
    const cb_pass_notes *n = pass->notes;
    const cb_time now = cb_loop_now(p->loop);
    const bool failed = pass->status >= 500 || pass->cut;
    const bool keep = p->sampler ? cb_sampler_keep(p->sampler, &n->context, failed, now - pass->front->started)
                                 : (n->context.flags & CB_TRACE_SAMPLED) != 0;
    if (!keep) return;
    writer w = {.pass = pass, .tracer = p->tracer, .wall = (int64_t)(cb_loop_wall(p->loop) - now)};
    const uint32_t kept = n->n_attempts < CB_NOTES_ATTEMPTS ? n->n_attempts : CB_NOTES_ATTEMPTS;
    server_span(&w, now, failed);
    accept_spans(&w);
    route_spans(&w, now);
    for (uint32_t i = 0; i < kept; i++) {
        const uint32_t number = i + 1 < kept ? i : n->n_attempts - 1;
        attempt_span(&w, &n->attempts[i], number, now);
    }
}
