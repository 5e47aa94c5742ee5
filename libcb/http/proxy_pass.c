/* One exchange on its way: front is the client's, back the origin's. Each call on one side may end the other, and with
 * it the pass: its memory stays until the end of the turn, so `front` tells whether it is still alive. */
#include "base/error.h"
#include "base/mem.h"
#include "http/proxy_int.h"
#include "http/ws_key.h"
#include <stdio.h>
#include <string.h>

enum { INFO_BYTES_MAX = 64 * 1024 };

static const cb_exchange_ops front_ops, back_ops;

/* A text into its place, cut when it is too long. */
static void copy_text(char *out, size_t cap, const char *text, size_t len) {
    if (len >= cap) len = cap - 1;
    memcpy(out, text, len);
    out[len] = '\0';
}

/* ---- life ---- */

cb_pass *cb_pass_new(cb_proxy *p, cb_exchange *front) {
    cb_pass *pass = NULL;
    if (!cb_list_empty(&p->spare)) {
        pass = CB_CONTAINER(p->spare.next, cb_pass, link);
        cb_list_del(&pass->link);
        memset(pass, 0, sizeof *pass);
    } else {
        pass = cb_mem_new(p->alloc, sizeof *pass);
        if (!pass) return NULL;
    }
    pass->proxy = p;
    pass->front = front;
    pass->table = p->table;
    pass->table->refs++;
    pass->started = pass->last = cb_loop_now(p->loop);
    cb_list_init(&pass->wait);
    cb_list_add_tail(&p->passes, &pass->link);
    const char *remote = cb_exchange_remote(front);
    copy_text(pass->remote, sizeof pass->remote, remote, strlen(remote));
    p->stats.requests++;
    p->stats.active++;
    cb_proxy_ref(p);
    cb_exchange_handle(front, &front_ops, pass);
    cb_pass_notes_begin(pass);
    return pass;
}

static void bury(cb_grave *grave) {
    cb_pass *pass = CB_CONTAINER(grave, cb_pass, grave);
    cb_proxy *p = pass->proxy;
    cb_proxy_table_unref(pass->table);
    cb_list_add_tail(&p->spare, &pass->link);
    cb_proxy_unref(p);
}

/* The attempt that is under way ends. */
static void attempt_over(cb_pass *pass, cb_exchange *back, const char *reason) {
    pass->times = *cb_pool_times_of(back);
    if (pass->notes) cb_pass_trace_attempt_over(pass, back, reason);
}

static void release_peer(cb_pass *pass) {
    if (!pass->picked) return;
    cb_lb_end(&pass->group->lb, pass->peer);
    cb_pass_count_attempt(pass, -1);
    pass->picked = 0;
}

static void drop_back(cb_pass *pass) {
    cb_exchange *back = pass->back;
    if (back) attempt_over(pass, back, pass->reason);
    pass->back = NULL;
    release_peer(pass);
    if (back) cb_exchange_abandon(back);
}

static void on_front_close(cb_exchange *x, int rc, void *user) {
    cb_pass *pass = user;
    cb_proxy *p = pass->proxy;
    (void)x;
    /* All was handed over: clients may leave before they have acknowledged it (HTTP/3). */
    bool told = pass->back_end && pass->front_end;
    if (rc < 0 && !pass->reason && !told) pass->reason = rc == CB_ETIMEOUT ? "client_timeout" : "client_gone";
    drop_back(pass);
    cb_pass_notes_end(pass);
    cb_pass_auth_release(pass);
    if (pass->tunnel) p->stats.tunnels--;
    if (pass->tunnel) cb_pass_count_tunnel(pass, -1);
    p->stats.active--;
    pass->front = NULL;
    cb_list_del(&pass->wait);
    cb_list_del(&pass->link);
    cb_loop_bury(p->loop, &pass->grave, bury);
}

/* ---- waiting ---- */

static void wait_for(cb_pass *pass, int which) {
    cb_time at = pass->last + pass->group->limits[which];
    pass->waits = which;
    cb_list_del(&pass->wait);
    cb_list_add_tail(&pass->group->waits[which], &pass->wait);
    cb_proxy_arm(pass->proxy, at);
}

/* Bytes have moved. */
static void touch(cb_pass *pass) {
    cb_time now = cb_loop_now(pass->proxy->loop);
    if (now == pass->last || !pass->group || cb_list_empty(&pass->wait)) return;
    pass->last = now;
    cb_list_del(&pass->wait);
    cb_list_add_tail(&pass->group->waits[pass->waits], &pass->wait);
}

/* ---- answers of our own ---- */

static const char *status_text(int status) {
    static const struct {
        int status;
        const char *text;
    } rows[] = {{400, "bad request"},         {401, "unauthorized"},       {403, "forbidden"},
                {404, "not found"},           {405, "method not allowed"}, {421, "misdirected request"},
                {425, "too early"},           {501, "not implemented"},    {502, "bad gateway"},
                {503, "service unavailable"}, {504, "gateway timeout"},    {508, "loop detected"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].status == status) return rows[i].text;
    return "error";
}

int cb_pass_refuse_with(cb_pass *pass, int status, const char *reason, const cb_field *more, size_t n_more) {
    cb_field fields[8] = {{cb_slice_str("content-type"), cb_slice_str("text/plain; charset=utf-8")}};
    char body[64];
    size_t n_fields = 1;
    pass->reason = reason;
    if (status >= 502) pass->proxy->stats.failed++;
    drop_back(pass);
    cb_list_del(&pass->wait);
    if (pass->answered) {
        pass->cut = 1;
        cb_exchange_reset(pass->front, CB_RESET_INTERNAL);
        return CB_OK;
    }
    pass->answered = 1;
    pass->status = status;
    while (n_more && n_fields < sizeof fields / sizeof *fields) {
        fields[n_fields++] = *more++;
        n_more--;
    }
    int n = snprintf(body, sizeof body, "%d %s\n", status, status_text(status));
    pass->bytes_out = (uint64_t)n; /* before the call: it may end the pass */
    int rc = cb_exchange_send(pass->front, status, fields, n_fields, (cb_slice){(const uint8_t *)body, (size_t)n});
    return rc == CB_ECLOSED ? CB_OK : rc;
}

int cb_pass_refuse(cb_pass *pass, int status, const char *reason) {
    const cb_field allow = {cb_slice_str("allow"), cb_slice_str("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")};
    return cb_pass_refuse_with(pass, status, reason, &allow, status == 405);
}

/* ---- towards the origin ---- */

static bool method_in(cb_slice method, const char *const *names, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (cb_slice_eq(method, names[i])) return true;
    return false;
}

int cb_pass_build_fields(cb_pass *pass) {
    cb_proxy *p = pass->proxy;
    const cb_router *r = pass->table->router;
    size_t n = 0;
    const cb_field *in = cb_exchange_fields(pass->front, &n);
    const int client_cert = pass->group->def->opts.client_cert;
    cb_relay_env env = {.trusted = r->trusted,
                        .n_trusted = r->n_trusted,
                        .remote = pass->remote,
                        .via = p->via,
                        .authority = cb_exchange_authority(pass->front),
                        .version = cb_exchange_version(pass->front),
                        .secure = cb_exchange_is_secure(pass->front),
                        .early = cb_exchange_is_early(pass->front),
                        .no_forwarded = p->no_forwarded,
                        .no_x_forwarded = p->no_x_forwarded,
                        .peer = client_cert ? cb_exchange_peer(pass->front) : NULL,
                        .client_cert = client_cert,
                        .hidden = r->hidden,
                        .n_hidden = r->n_hidden,
                        .more = pass->auth ? pass->auth->more : NULL,
                        .n_more = pass->auth ? pass->auth->n_more : 0};
    cb_pass_trace_env(pass, &env);
    int rc = cb_relay_request(&p->forward, in, n, &env);
    if (rc == CB_OK && pass->guard) cb_pass_drop_credentials(pass, &p->forward);
    cb_slice client = p->forward.client;
    if (rc == CB_OK && client.len < sizeof pass->client)
        copy_text(pass->client, sizeof pass->client, (const char *)client.base, client.len);
    return rc;
}

/* WebSocket between versions: the key belongs to HTTP/1.1 only (RFC 8441, 5.1). */
static int build_websocket(cb_pass *pass, cb_head *head) {
    cb_relay *f = &pass->proxy->forward;
    bool from_h1 = cb_exchange_version(pass->front) == CB_HTTP_1;
    uint8_t random[16];
    char key[CB_WS_KEY + 1];
    int rc = CB_OK;
    pass->to_h1 = cb_origin_group_tunnel_versions(pass->group) == CB_HTTP_1;
    pass->ws_accept[0] = '\0';
    head->protocol = cb_exchange_protocol(pass->front);
    head->method = cb_slice_str(pass->to_h1 ? "GET" : "CONNECT");
    cb_relay_drop(
        f, "content-length"); /* an origin that declines would wait for a body, or take the next request for it */
    if (!pass->to_h1) {
        cb_relay_drop(f, "sec-websocket-key");
    } else if (!from_h1) {
        cb_relay_drop(f, "sec-websocket-key");
        rc = cb_loop_random(pass->proxy->loop, random, sizeof random);
        if (rc < 0) return rc;
        cb_ws_key(key, random);
        rc = cb_relay_add(f, "sec-websocket-key", cb_slice_str(key));
        if (rc == CB_OK) rc = cb_ws_accept(pass->ws_accept, cb_slice_str(key));
    }
    return rc;
}

static int send_head(cb_pass *pass, cb_origin *origin) {
    const cb_router_origin_def *def = pass->group->targets[pass->peer].def;
    const char *host = pass->group->def->opts.host;
    cb_slice path = cb_exchange_path(pass->front);
    cb_head head = {.method = cb_exchange_method(pass->front),
                    .scheme = cb_slice_str(def->tls ? "https" : "http"),
                    .authority = host ? cb_slice_str(host) : cb_exchange_authority(pass->front),
                    .path = path,
                    .length = -1,
                    .checked = true};
    int rc = cb_pass_build_fields(pass);
    if (rc == CB_OK && pass->upgrade) rc = build_websocket(pass, &head);
    if (rc < 0) return rc;
    head.fields = pass->proxy->forward.at;
    head.n = pass->proxy->forward.n;
    if (!pass->upgrade) head.length = pass->proxy->forward.length;
    const cb_pool_request req = {.head = &head, .has_body = pass->has_body, .ops = &back_ops, .user = pass};
    return cb_pool_send(&pass->back, origin, &req);
}

/* The client, as far as trusted peers tell; 0 where the policy does not ask. */
static uint64_t stays_together(cb_pass *pass) {
    static const uint8_t key[CB_LB_KEY_BYTES]; /* none: all workers and hosts choose alike */
    if (!pass->group->lb.policy->by_hash) return 0;
    if (!*pass->client) (void)cb_pass_build_fields(pass); /* when it fails it will fail again, with its answer */
    return cb_lb_hash(key, pass->client, strlen(pass->client));
}

static int next_origin(cb_pass *pass) {
    cb_origin_group *g = pass->group;
    cb_origin *origin = NULL;
    const uint64_t client = stays_together(pass);
    pass->picked_at = cb_loop_now(pass->proxy->loop);
    int64_t i = cb_lb_begin(&g->lb, pass->picked_at, client, pass->tried, NULL);
    if (i < 0) return cb_fail(CB_ENOENT, "group \"%s\" has no origin left to try", g->def->opts.name);
    pass->peer = (size_t)i;
    pass->picked = 1;
    cb_pass_count_attempt(pass, 1);
    if (i < 64) pass->tried |= UINT64_C(1) << i;
    copy_text(pass->origin, sizeof pass->origin, g->targets[i].def->url, strlen(g->targets[i].def->url));
    if (pass->notes) cb_pass_trace_attempt(pass);
    int rc = cb_origin_group_open(&origin, g, pass->peer, pass);
    if (rc == CB_OK) rc = send_head(pass, origin);
    if (rc < 0 && pass->notes) cb_pass_trace_attempt_over(pass, NULL, "internal");
    if (rc < 0) release_peer(pass);
    return rc;
}

static int finish_back(cb_pass *pass) {
    size_t n = 0;
    const cb_field *in = cb_exchange_trailers(pass->front, &n);
    const cb_relay_env env = {.hidden = pass->table->router->hidden, .n_hidden = pass->table->router->n_hidden};
    int rc = n ? cb_relay_trailers(&pass->proxy->forward, in, n, &env) : CB_OK;
    if (rc < 0) return rc;
    n = n ? pass->proxy->forward.n : 0;
    rc = n ? cb_exchange_finish_trailers(pass->back, pass->proxy->forward.at, n) : cb_exchange_finish(pass->back);
    return rc == CB_ECLOSED ? CB_OK : rc;
}

int cb_pass_start(cb_pass *pass) {
    if (!pass->routed) pass->routed = cb_loop_now(pass->proxy->loop);
    int rc = next_origin(pass);
    if (rc == CB_ENOENT) return cb_pass_refuse(pass, 503, "no_origin");
    if (rc == CB_ELIMIT) return cb_pass_refuse(pass, 508, "loop");
    if (rc < 0) {
        cb_log_line(cb_loop_log(pass->proxy->loop), CB_LOG_WARN, "proxy", "%s: %s", pass->origin, cb_last_error());
        return cb_pass_refuse(pass, 502, "internal");
    }
    wait_for(pass, CB_WAIT_HEAD);
    /* On a second try the body may be here already. */
    if (pass->front_end && pass->has_body) return finish_back(pass);
    if (pass->retries) cb_exchange_resume(pass->front);
    return CB_OK;
}

/* RFC 9110, 7.6.2: the last to forward answers. True: it was answered here. */
static bool max_forwards_over(cb_pass *pass) {
    const cb_field fields[] = {{cb_slice_str("allow"), cb_slice_str("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")}};
    if (!cb_slice_eq(cb_exchange_method(pass->front), "OPTIONS")) return false;
    if (!cb_slice_eq(cb_exchange_field(pass->front, "max-forwards"), "0")) return false;
    pass->answered = 1;
    pass->status = 200;
    cb_exchange_send(pass->front, 200, fields, 1, cb_slice_str(""));
    return true;
}

/* What the client wants beyond a plain request: < 0 refused with -status, else whether it is an upgrade. */
static int upgrade_wanted(const cb_exchange *front) {
    cb_slice protocol = cb_exchange_protocol(front), method = cb_exchange_method(front);
    bool connect = cb_slice_eq(method, "CONNECT");
    if (cb_exchange_version(front) == CB_HTTP_1) {
        if (connect) return -405;
        return cb_slice_ieq(protocol, "websocket") && cb_slice_eq(method, "GET");
    }
    if (connect && !protocol.len) return -405;
    if (connect && !cb_slice_ieq(protocol, "websocket")) return -501;
    return connect;
}

static int no_route(cb_pass *pass, int miss) {
    if (miss == CB_ROUTE_BAD_PATH) return cb_pass_refuse(pass, 400, "bad_path");
    if (miss == CB_ROUTE_AMBIGUOUS) return cb_pass_refuse(pass, 400, "ambiguous_path");
    if (miss == CB_ROUTE_NO_PATH) return cb_pass_refuse(pass, 404, "no_route");
    bool other = cb_exchange_version(pass->front) != CB_HTTP_1 && cb_exchange_is_secure(pass->front);
    return cb_pass_refuse(pass, other ? 421 : 404, "no_host");
}

static int on_new(cb_exchange *x, void *user) {
    cb_proxy *p = user;
    const char *const refused[] = {"TRACE", "TRACK"};
    int miss = 0;
    cb_pass *pass = cb_pass_new(p, x);
    if (!pass) return cb_fail(CB_ENOMEM, "no memory for one more request");
    int upgrade = upgrade_wanted(x);
    if (upgrade < 0) return cb_pass_refuse(pass, -upgrade, "connect");
    if (method_in(cb_exchange_method(x), refused, 2)) return cb_pass_refuse(pass, 405, "method");
    /* RFC 8470, 5.1: a field of an earlier hop says the same, and waiting for our handshake makes it no safer. */
    bool early = x->early || cb_exchange_field(x, "early-data").base;
    if (early && (!cb_exchange_early_ok(x) || upgrade)) return cb_pass_refuse(pass, 425, "early_data");
    if (max_forwards_over(pass)) return CB_OK;
    if (!upgrade) x->asked = 0; /* an Upgrade that is not wanted: an ordinary request, whose end is known at once */
    pass->upgrade = upgrade > 0;
    pass->has_body = pass->upgrade || cb_exchange_length(x) != 0;
    const cb_route *route = cb_router_find(pass->table->router, cb_exchange_authority(x), cb_exchange_path(x), &miss);
    if (!route) return no_route(pass, miss);
    pass->group = &pass->table->groups[route->group->index];
    pass->route = route;
    pass->guard = route->guard;
    cb_pass_count_routed(pass);
    return pass->guard ? cb_pass_authenticate(pass) : cb_pass_start(pass);
}

static int64_t on_front_body(cb_exchange *x, cb_slice data, void *user) {
    cb_pass *pass = user;
    (void)x;
    if (pass->auth && pass->auth->waiting) return 0;
    if (!pass->back) {
        pass->bytes_in += data.len;
        return (int64_t)data.len; /* nobody wants it any more */
    }
    int64_t n = cb_exchange_write(pass->back, data);
    if (n == CB_ECLOSED) return (int64_t)data.len;
    if (n > 0 && pass->front) {
        pass->bytes_in += (uint64_t)n;
        touch(pass);
    }
    return n;
}

static int on_front_end(cb_exchange *x, void *user) {
    cb_pass *pass = user;
    (void)x;
    pass->front_end = 1;
    return pass->back && pass->has_body ? finish_back(pass) : CB_OK;
}

static int on_front_writable(cb_exchange *x, void *user) {
    cb_pass *pass = user;
    (void)x;
    if (pass->back) cb_exchange_resume(pass->back);
    return CB_OK;
}

static const cb_exchange_ops front_ops = {.size = sizeof front_ops,
                                          .on_body = on_front_body,
                                          .on_end = on_front_end,
                                          .on_writable = on_front_writable,
                                          .on_close = on_front_close};

const cb_exchange_ops cb_proxy_new_ops = {.size = sizeof cb_proxy_new_ops, .on_head = on_new};

/* ---- towards the client ---- */

static int build_response(cb_pass *pass, cb_exchange *back) {
    size_t n = 0;
    const cb_field *in = cb_exchange_fields(back, &n);
    const cb_relay_env env = {.via = pass->proxy->via, .version = cb_exchange_version(back)};
    return cb_relay_response(&pass->proxy->forward, in, n, &env);
}

/* Informational responses have no flow control: a client that does not read gets a limited amount of them. */
static int on_back_info(cb_exchange *back, int status, void *user) {
    cb_pass *pass = user;
    const cb_relay *f = &pass->proxy->forward;
    size_t bytes = 0;
    int rc = build_response(pass, back);
    if (rc < 0 || pass->answered) return rc;
    for (size_t i = 0; i < f->n; i++)
        bytes += f->at[i].name.len + f->at[i].value.len;
    if (bytes > INFO_BYTES_MAX - pass->info_bytes) return CB_OK;
    pass->info_bytes += (uint32_t)bytes;
    rc = cb_exchange_pass_on(pass->front, status, f->at, f->n);
    return rc == CB_ENOMEM ? rc : CB_OK;
}

/* The origin's answer to WebSocket, in the client's version. Returns the status, 0 when it is not acceptable. */
static int upgrade_status(cb_pass *pass, cb_exchange *back, int status) {
    cb_relay *f = &pass->proxy->forward;
    bool front_h1 = cb_exchange_version(pass->front) == CB_HTTP_1;
    bool accepted = pass->to_h1 ? status == 101 : status >= 200 && status < 300;
    char accept[CB_WS_ACCEPT + 1];
    if (!accepted) return status == 101 || (!front_h1 && status < 300) ? 0 : status;
    if (*pass->ws_accept && !cb_slice_eq(cb_exchange_field(back, "sec-websocket-accept"), pass->ws_accept)) return 0;
    if (!front_h1) {
        cb_relay_drop(f, "sec-websocket-accept");
        cb_relay_drop(f, "content-length");
    } else if (!pass->to_h1) {
        if (cb_ws_accept(accept, cb_exchange_field(pass->front, "sec-websocket-key")) < 0 ||
            cb_relay_add(f, "sec-websocket-accept", cb_slice_str(accept)) < 0)
            return 0;
    }
    pass->tunnel = 1;
    return front_h1 ? 101 : 200;
}

static int on_back_head(cb_exchange *back, void *user) {
    cb_pass *pass = user;
    cb_origin_group *g = pass->group;
    int status = cb_exchange_status(back), rc = build_response(pass, back);
    if (rc < 0) return rc;
    pass->answered_at = cb_loop_now(pass->proxy->loop);
    (void)cb_lb_report(&g->lb, pass->peer, status >= 500 ? CB_OUTLIER_ERROR : CB_OUTLIER_WORKED,
                       pass->answered_at - pass->picked_at, pass->answered_at);
    if (g->lb.policy->by_latency)
        cb_lb_took(&g->lb, pass->peer, pass->answered_at - pass->picked_at, pass->answered_at);
    cb_pass_count_answered(pass, status);
    if (g->lb.outlier.n_news) cb_origin_group_tell_out(g);
    if (pass->notes) cb_pass_trace_answered(pass, back);
    if (pass->proxy->log) { /* until then it is the origin's URL */
        const char *peer = cb_pool_peer(back);
        copy_text(pass->origin, sizeof pass->origin, peer, strlen(peer));
    }
    if (pass->upgrade)
        status = upgrade_status(pass, back, status);
    else if (status == 101)
        status = 0;
    if (!status) return cb_pass_refuse(pass, 502, "bad_upgrade");
    if (pass->tunnel) pass->proxy->stats.tunnels++;
    if (pass->tunnel) cb_pass_count_tunnel(pass, 1);
    pass->answered = 1;
    pass->status = status;
    pass->last = pass->answered_at;
    wait_for(pass, pass->tunnel ? CB_WAIT_TUNNEL : CB_WAIT_BODY);
    if (pass->notes) cb_pass_notes_response(pass, &pass->proxy->forward);
    rc = cb_exchange_pass_on(pass->front, status, pass->proxy->forward.at, pass->proxy->forward.n);
    if (rc == CB_OK || rc == CB_ECLOSED || !pass->front) return CB_OK;
    cb_log_line(cb_loop_log(pass->proxy->loop), CB_LOG_WARN, "proxy", "%s: its response cannot be passed on: %s",
                pass->origin, cb_last_error());
    pass->answered = 0;
    return cb_pass_refuse(pass, 502, "bad_response");
}

static int64_t on_back_body(cb_exchange *back, cb_slice data, void *user) {
    cb_pass *pass = user;
    (void)back;
    int64_t n = cb_exchange_write(pass->front, data);
    if (n == CB_ECLOSED) return (int64_t)data.len;
    if (n > 0 && pass->front) {
        pass->bytes_out += (uint64_t)n;
        touch(pass);
    }
    return n;
}

static int on_back_end(cb_exchange *back, void *user) {
    cb_pass *pass = user;
    size_t n = 0;
    const cb_field *in = cb_exchange_trailers(back, &n);
    const cb_relay_env env = {.n_hidden = 0};
    pass->back_end = 1;
    cb_list_del(&pass->wait); /* what is left is between us and the client: the server's own limits */
    int rc = n ? cb_relay_trailers(&pass->proxy->forward, in, n, &env) : CB_OK;
    if (rc < 0) return rc;
    n = n ? pass->proxy->forward.n : 0;
    rc = n ? cb_exchange_finish_trailers(pass->front, pass->proxy->forward.at, n) : cb_exchange_finish(pass->front);
    return rc == CB_ECLOSED ? CB_OK : rc;
}

static int on_back_writable(cb_exchange *back, void *user) {
    cb_pass *pass = user;
    (void)back;
    if (pass->front) cb_exchange_resume(pass->front);
    return CB_OK;
}

/* ---- when the origin fails ---- */

typedef struct failure {
    int status;
    const char *reason;
    bool blame;  /* counts against the origin */
    bool no_way; /* there was none to it */
} failure;

static failure failure_of(int rc, bool sent) {
    switch (rc) {
    case CB_EUNREACH:
        return (failure){502, "connect_failed", true, true};
    case CB_ETIMEOUT:
        return (failure){504, sent ? "response_timeout" : "connect_timeout", true, !sent};
    case CB_ETLS:
        return (failure){502, "tls_failed", true, true};
    case CB_EAUTH:
        return (failure){502, "tls_untrusted", true, true};
    case CB_EDNS:
        return (failure){503, "resolve_failed", true, true};
    case CB_ELIMIT:
        if (sent) return (failure){502, "response_too_large", false, false};
        return (failure){503, "queue_full", false, false};
    case CB_ENOMEM: /* also of descriptors: not the origin's fault */
        return (failure){503, "internal", false, false};
    case CB_EPROTO:
        return (failure){502, "protocol_error", true, false};
    case CB_ECLOSED:
        return (failure){502, "origin_closed", true, false};
    case CB_EUSER:
        return (failure){502, "internal", false, false};
    default:
        return (failure){502, "origin_failed", true, false};
    }
}

static void blame(cb_pass *pass, const failure *f, const char *detail) {
    cb_origin_group *g = pass->group;
    const cb_log *log = cb_loop_log(pass->proxy->loop);
    const char *url = g->targets[pass->peer].def->url;
    cb_log_line(log, CB_LOG_WARN, "proxy", "%s: %s: %s", url, f->reason, detail);
    const int result = f->no_way ? CB_OUTLIER_CONNECT : CB_OUTLIER_FAILED;
    if (f->blame) (void)cb_lb_report(&g->lb, pass->peer, result, 0, cb_loop_now(pass->proxy->loop));
    cb_pass_count_blame(pass, f->reason);
    if (g->lb.outlier.n_news) cb_origin_group_tell_out(g);
}

/* Nothing has reached an origin, and there is another one. */
static bool may_retry(const cb_pass *pass, bool sent) {
    const cb_origin_group *g = pass->group;
    return !sent && !pass->answered && pass->retries < g->def->opts.retries && g->def->n_origins > 1;
}

static void on_back_close(cb_exchange *back, int rc, void *user) {
    cb_pass *pass = user;
    bool sent = cb_pool_phase(back) >= CB_PHASE_SENT && !back->refused;
    pass->back = NULL;
    if (!pass->front) return;
    if (rc == CB_OK || pass->back_end) {
        attempt_over(pass, back, NULL);
        release_peer(pass);
        if (!pass->back_end) cb_exchange_finish(pass->front); /* a tunnel that ended with our end of it */
        return;
    }
    failure f = failure_of(rc, sent);
    blame(pass, &f, cb_last_error());
    if (pass->answered) f.reason = "origin_cut";
    attempt_over(pass, back, f.reason);
    release_peer(pass);
    if (may_retry(pass, sent)) {
        pass->retries++;
        pass->proxy->stats.retries++;
        cb_pass_count_retry(pass);
        if (cb_pass_start(pass) < 0 && pass->front) cb_pass_refuse(pass, 502, "internal");
        return;
    }
    cb_pass_refuse(pass, f.status, f.reason);
}

static const cb_exchange_ops back_ops = {.size = sizeof back_ops,
                                         .on_head = on_back_head,
                                         .on_info = on_back_info,
                                         .on_body = on_back_body,
                                         .on_end = on_back_end,
                                         .on_writable = on_back_writable,
                                         .on_close = on_back_close};

void cb_pass_expire(cb_pass *pass) {
    if (pass->answered && !cb_exchange_room(pass->front)) { /* it is the client that does not read: also its limits */
        pass->last = cb_loop_now(pass->proxy->loop);
        wait_for(pass, pass->waits);
        return;
    }
    failure f = {504, pass->answered ? "idle_timeout" : "response_timeout", !pass->answered, false};
    if (!pass->answered) blame(pass, &f, "no response within the time limit");
    cb_pass_refuse(pass, f.status, f.reason);
}

void cb_pass_cut(cb_pass *pass) {
    pass->reason = "shutdown";
    cb_exchange_reset(pass->front, CB_RESET_CANCEL);
    if (!pass->front) return;
    cb_exchange *front = pass->front; /* its on_close comes later, when we are gone */
    on_front_close(front, CB_ECLOSED, pass);
    cb_exchange_abandon(front);
}
