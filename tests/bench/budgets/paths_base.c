/* Small things that every request or packet does, and the reading of a configuration. */
#include "base/buf.h"
#include "base/mem.h"
#include "http/fields.h"
#include "http/hconn.h"
#include "http/proxy_headers.h"
#include "http/route.h"
#include "loop/loop_int.h"
#include "paths.h"
#include "telemetry/access_line.h"
#include <cb/config.h>
#include <cb/quic_lb.h>
#include <string.h>

#define SLICE(text)                                                                                                    \
    { (const uint8_t *)(text), sizeof(text) - 1 }

/* What a browser sends. */
static const cb_field browser[] = {
    {SLICE("sec-ch-ua"), SLICE("\"Chromium\";v=\"128\", \"Not;A=Brand\";v=\"24\"")},
    {SLICE("sec-ch-ua-mobile"), SLICE("?0")},
    {SLICE("sec-ch-ua-platform"), SLICE("\"Linux\"")},
    {SLICE("upgrade-insecure-requests"), SLICE("1")},
    {SLICE("user-agent"),
     SLICE("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36")},
    {SLICE("accept"), SLICE("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8")},
    {SLICE("sec-fetch-site"), SLICE("none")},
    {SLICE("accept-encoding"), SLICE("gzip, deflate, br, zstd")},
    {SLICE("accept-language"), SLICE("en-US,en;q=0.9,de;q=0.8")},
    {SLICE("cookie"), SLICE("session=6f1d0c2e9a7b4c3d8e5f; theme=dark; consent=1")},
    {SLICE("if-none-match"), SLICE("\"5f3c-61a2b3c4d5e6f\"")},
};
enum { N_BROWSER = sizeof browser / sizeof *browser };

/* ---- header-check: the fields of a request are checked, and what the origin gets is made of them ---- */

static cb_relay forward;

static void forward_prepare(void) {
    cb_relay_init(&forward, NULL);
}

static void forward_run(size_t times) {
    const cb_relay_env env = {.remote = "192.0.2.1:54321",
                              .via = "libcb",
                              .authority = cb_slice_str("www.example.org"),
                              .version = CB_HTTP_2,
                              .secure = true};
    for (size_t i = 0; i < times; i++) {
        for (size_t k = 0; k < N_BROWSER; k++)
            MUST(cb_field_name_ok(browser[k].name) && cb_field_value_ok(browser[k].value));
        MUST(cb_relay_request(&forward, browser, N_BROWSER, &env) == CB_OK);
    }
}

static void forward_clean(void) {
    cb_relay_free(&forward);
}

/* ---- h1-head: a request's head is parsed, and answered ---- */

static struct {
    cb_hconn *h;
    cb_hconn_env env;
    cb_http_limits limits;
    cb_sink sink;
    size_t out;
    cb_exchange *spare;
} h1;

static size_t h1_room(cb_sink *s) {
    (void)s;
    return 65536;
}

static int h1_write(cb_sink *s, const cb_slice *v, size_t n) {
    (void)s;
    for (size_t i = 0; i < n; i++)
        h1.out += v[i].len;
    return CB_OK;
}

static int h1_answer(cb_exchange *x, void *user) {
    (void)user;
    return cb_exchange_send(x, 204, NULL, 0, (cb_slice){NULL, 0});
}

static void h1_keep(cb_exchange *x, void *user) {
    (void)user;
    h1.spare = x;
}

static void h1_new(cb_hconn *h, cb_exchange *x) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_end = h1_answer};
    (void)h;
    x->on_keep = h1_keep;
    cb_exchange_handle(x, &ops, NULL);
}

static cb_exchange *h1_spare(cb_hconn *h) {
    cb_exchange *x = h1.spare;
    (void)h;
    h1.spare = NULL;
    return x;
}

static void h1_prepare(void) {
    static const cb_hconn_owner_ops owner = {.exchange_new = h1_new, .spare = h1_spare};
    const cb_http_limits most = {.size = sizeof most, .max_requests = UINT32_MAX};
    MUST(cb_http_limits_fill(&h1.limits, &most) == CB_OK);
    h1.sink = (cb_sink){.room = h1_room, .write = h1_write};
    h1.env = (cb_hconn_env){.alloc = &cb_alloc_libc,
                            .limits = &h1.limits,
                            .owner = &owner,
                            .sink = &h1.sink,
                            .scheme = "https",
                            .sni = "",
                            .server = true};
    MUST(cb_h1_new(&h1.h, &h1.env) == CB_OK);
}

static void h1_run(size_t times) {
    cb_buf text;
    cb_buf_init(&text, NULL, 1 << 16);
    cb_buf_text(&text, "GET /articles/2026/11/why-edges-matter?utm_source=news HTTP/1.1\r\nHost: www.example.org\r\n");
    for (size_t k = 0; k < N_BROWSER; k++) {
        cb_buf_add(&text, browser[k].name.base, browser[k].name.len);
        cb_buf_text(&text, ": ");
        cb_buf_add(&text, browser[k].value.base, browser[k].value.len);
        cb_buf_text(&text, "\r\n");
    }
    MUST(cb_buf_text(&text, "\r\n") == CB_OK);
    for (size_t i = 0; i < times; i++) {
        size_t before = h1.out;
        MUST(h1.h->vt->feed(h1.h, cb_buf_slice(&text), 1) == (int64_t)text.len);
        MUST(h1.h->vt->flush(h1.h, 1) == CB_OK && h1.out > before);
    }
    cb_buf_free(&text);
}

static void h1_clean(void) {
    h1.h->vt->closed(h1.h, CB_ECLOSED);
    h1.h->vt->free(h1.h);
    if (h1.spare) cb_exchange_destroy(h1.spare);
}

/* ---- route-lookup: in a thousand hosts with three paths each ---- */

static cb_router *router;

static void route_prepare(void) {
    static const char *const prefixes[] = {"/", "/api", "/static/images"};
    MUST(cb_router_new(&router) == CB_OK);
    MUST(cb_router_group(router, CB_OPTS(cb_origin_group_opts, .name = "g")) == CB_OK);
    for (int i = 0; i < 1000; i++) {
        char host[64];
        snprintf(host, sizeof host, "%shost%d.example.org", i % 10 ? "" : "*.", i);
        for (size_t k = 0; k < 3; k++)
            MUST(cb_router_route(router, CB_OPTS(cb_route_opts, .host = host, .path = prefixes[k], .group = "g")) ==
                 CB_OK);
    }
}

static void route_run(size_t times) {
    static const char *const asked[][2] = {{"host123.example.org", "/"},
                                           {"HOST777.example.org:443", "/api/v1/users/17?expand=all"},
                                           {"a.b.host500.example.org", "/static/images/logo.png"},
                                           {"host999.example.org", "/a/../api/%7Euser/./x"}};
    for (size_t i = 0; i < times; i++) {
        int miss = 0;
        MUST(cb_router_find(router, cb_slice_str(asked[i % 4][0]), cb_slice_str(asked[i % 4][1]), &miss));
    }
}

static void route_clean(void) {
    cb_router_unref(router);
}

/* ---- gate: a token that was seen before, among the fields of a browser ---- */

static cb_authn *gate;
static cb_authn_call *call;
static char *bearer;
static cb_field asking[N_BROWSER + 1];

static void gate_prepare(void) {
    static const char secret[] = "a secret of exactly 32 bytes ....";
    static const char *const audiences[] = {"https://api.example.org"}, *const scopes[] = {"read"};
    static const cb_jwt_rules rules = {
        .size = sizeof rules, .issuer = "https://id.example.org", .audiences = audiences, .audiences_len = 1};
    static const cb_authn_claims claims = {.size = sizeof claims, .tenant = "tenant", .roles = "/realm_access/roles"};
    const cb_jwk_opts key = {.size = sizeof key, .secret = cb_slice_str(secret), .alg = CB_JWT_HS256};
    const cb_jwk_opts *const one = &key;
    const cb_jwt_field says[] = {{.name = "iss", .text = "https://id.example.org"},
                                 {.name = "aud", .text = "https://api.example.org"},
                                 {.name = "sub", .text = "7c9e6679-7425-40de-944b-e07fc1f90ae7"},
                                 {.name = "tenant", .text = "acme"},
                                 {.name = "scope", .text = "openid profile read"},
                                 {.name = "realm_access", .json = "{\"roles\":[\"reader\",\"writer\"]}"},
                                 {.name = "exp", .number = 1800000000}};
    cb_authn_source *source = NULL;
    cb_jwt_signer *signer = NULL;
    cb_jwks *keys = NULL;
    char *token = NULL;
    MUST(cb_jwks_new(&keys, CB_OPTS(cb_jwks_opts, .keys = &one, .keys_len = 1)) == CB_OK);
    MUST(cb_jwt_signer_new(&signer, CB_OPTS(cb_jwt_signer_opts, .secret = key.secret, .alg = CB_JWT_HS256)) == CB_OK);
    MUST(cb_jwt_sign(&token, signer, NULL, 0, says, sizeof says / sizeof *says) == CB_OK);
    MUST(cb_authn_source_jwt(&source, CB_OPTS(cb_authn_jwt_opts, .name = "people", .keys = keys, .rules = &rules,
                                              .claims = &claims)) == CB_OK);
    MUST(cb_authn_new(&gate, CB_OPTS(cb_authn_opts, .sources = &source, .n_sources = 1, .scopes = scopes, .n_scopes = 1,
                                     .need_tenant = 1)) == CB_OK);
    MUST(cb_authn_call_new(&call, NULL) == CB_OK);
    MUST(asprintf(&bearer, "Bearer %s", token) > 0);
    memcpy(asking, browser, sizeof browser);
    asking[N_BROWSER] = (cb_field){cb_slice_str("authorization"), cb_slice_str(bearer)};
    cb_jwt_text_free(token);
    cb_authn_source_unref(source);
    cb_jwt_signer_unref(signer);
    cb_jwks_unref(keys);
}

static void gate_run(size_t times) {
    const cb_authn_request request = {.size = sizeof request,
                                      .fields = asking,
                                      .n_fields = N_BROWSER + 1,
                                      .method = cb_slice_str("GET"),
                                      .scheme = cb_slice_str("https"),
                                      .authority = cb_slice_str("www.example.org"),
                                      .path = cb_slice_str("/"),
                                      .now_s = 1700000000};
    for (size_t i = 0; i < times; i++)
        MUST(cb_authn_begin(call, gate, &request, NULL, NULL) == CB_OK);
}

static void gate_clean(void) {
    cb_authn_call_free(call);
    cb_authn_unref(gate);
    free(bearer);
}

/* ---- timer-set: in a loop with ten thousand others, the way a connection moves its deadline ---- */

enum { TIMERS = 10000 };
static cb_loop *loop;
static cb_alarm *alarms;

static void never(cb_alarm *a, cb_time now) {
    (void)a;
    (void)now;
}

static void timer_prepare(void) {
    MUST(cb_loop_new(&loop, NULL) == CB_OK);
    MUST(alarms = calloc(TIMERS, sizeof *alarms));
    for (size_t i = 0; i < TIMERS; i++) {
        cb_alarm_init(&alarms[i], loop, never);
        MUST(cb_alarm_set(&alarms[i], CB_NEVER / 2 + i * 7919 % TIMERS * CB_MS) == CB_OK);
    }
}

static void timer_run(size_t times) {
    for (size_t i = 0; i < times; i++)
        MUST(cb_alarm_set(&alarms[i * 31 % TIMERS], CB_NEVER / 2 + (TIMERS + i * 104729 % TIMERS) * CB_MS) == CB_OK);
}

static void timer_clean(void) {
    for (size_t i = 0; i < TIMERS; i++)
        cb_alarm_stop(&alarms[i]);
    free(alarms);
    cb_loop_free(loop);
}

/* ---- cid: a connection ID is made, and read again ---- */

static cb_quic_lb *lb;

static void cid_prepare(void) {
    static const uint8_t id[4] = {1, 2, 3, 4}, key[16] = {5, 6, 7};
    MUST(cb_quic_lb_new(&lb, CB_OPTS(cb_quic_lb_opts, .server_id = id, .server_id_bytes = 4, .mask_key = key)) ==
         CB_OK);
}

static void cid_run(size_t times) {
    for (size_t i = 0; i < times; i++) {
        uint8_t nonce[16] = {(uint8_t)i, (uint8_t)(i >> 8)}, cid[CB_QUIC_LB_CID_MAX];
        cb_quic_lb_info info;
        int n = cb_quic_lb_encode(lb, cid, sizeof cid, nonce, (uint32_t)i % 256, 7);
        MUST(n > 0 && cb_quic_lb_decode(lb, (cb_slice){cid, (size_t)n}, &info) == CB_QUIC_LB_OURS &&
             info.worker == i % 256);
    }
}

static void cid_clean(void) {
    cb_quic_lb_free(lb);
}

/* ---- log-line: what the access log says of a request ---- */

static cb_buf line;
static cb_access_plan plan;

static void line_prepare(void) {
    cb_buf_init(&line, NULL, 1 << 16);
    MUST(cb_access_plan_make(&plan, NULL, &(cb_access_log_opts){.size = sizeof(cb_access_log_opts)}) == CB_OK);
}

static void line_run(size_t times) {
    const cb_access_record r = {.size = sizeof r,
                                .time_ms = INT64_C(1790000000123),
                                .remote = "203.0.113.7:49152",
                                .method = cb_slice_str("GET"),
                                .host = cb_slice_str("www.example.org"),
                                .path = cb_slice_str("/articles/2026/11/why-edges-matter?utm_source=news"),
                                .route = "web",
                                .origin = "10.0.0.17:8080",
                                .bytes_out = 10240,
                                .duration_us = 1234,
                                .status = 200,
                                .version = CB_HTTP_3};
    for (size_t i = 0; i < times; i++) {
        line.len = 0;
        MUST(cb_access_line(&line, &plan, &r) == CB_OK);
    }
}

static void line_clean(void) {
    cb_access_plan_free(&plan);
    cb_buf_free(&line);
}

/* ---- config: a document of two hundred routes is checked and decoded ---- */

typedef struct conf_route {
    const char *host, *path, *group;
    int64_t weight;
} conf_route;

typedef struct conf_root {
    const char *listen;
    cb_config_list routes;
} conf_root;

static cb_buf document;

static void config_prepare(void) {
    cb_buf_init(&document, NULL, 1 << 20);
    MUST(cb_buf_text(&document, "// generated\n{\"listen\": \"127.0.0.1:8443\", \"routes\": [\n") == CB_OK);
    for (int i = 0; i < 200; i++)
        MUST(cb_buf_printf(
                 &document,
                 "%s{\"host\": \"www%d.example.org\", \"path\": \"/part/%d\", \"group\": \"g%d\", \"weight\": %d}",
                 i ? ",\n" : "", i, i, i % 7, 1 + i) == CB_OK);
    MUST(cb_buf_text(&document, "]}") == CB_OK);
}

static void config_run(size_t times) {
    static const cb_config_rule route_rules[] = {
        {.name = "host", .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_HOST, .offset = offsetof(conf_route, host)},
        {.name = "path",
         .kind = CB_CONFIG_TEXT,
         .format = CB_FORMAT_PATH,
         .fallback = "/",
         .offset = offsetof(conf_route, path)},
        {.name = "group",
         .kind = CB_CONFIG_TEXT,
         .format = CB_FORMAT_NAME,
         .required = 1,
         .offset = offsetof(conf_route, group)},
        {.name = "weight",
         .kind = CB_CONFIG_INT,
         .min = 1,
         .max = 1000,
         .fallback = "1",
         .offset = offsetof(conf_route, weight)},
        {.name = NULL}};
    static const cb_config_rule root_rules[] = {{.name = "listen",
                                                 .kind = CB_CONFIG_TEXT,
                                                 .format = CB_FORMAT_LISTEN,
                                                 .required = 1,
                                                 .offset = offsetof(conf_root, listen)},
                                                {.name = "routes",
                                                 .kind = CB_CONFIG_ARRAY,
                                                 .members = route_rules,
                                                 .item_size = sizeof(conf_route),
                                                 .offset = offsetof(conf_root, routes)},
                                                {.name = NULL}};
    static const cb_config_schema schema = {
        .size = sizeof schema, .title = "budget", .members = root_rules, .root_size = sizeof(conf_root)};
    for (size_t i = 0; i < times; i++) {
        cb_config *c = NULL;
        MUST(cb_config_parse(&c, &schema, cb_buf_slice(&document), "budget", NULL, NULL) == CB_OK);
        MUST(((const conf_root *)cb_config_root(c))->routes.len == 200);
        cb_config_unref(c);
    }
}

static void config_clean(void) {
    cb_buf_free(&document);
}

const path paths_base[] = {{"h1-head", h1_prepare, h1_run, h1_clean, 20, 400},
                           {"header-check", forward_prepare, forward_run, forward_clean, 20, 400},
                           {"route-lookup", route_prepare, route_run, route_clean, 20, 2000},
                           {"gate", gate_prepare, gate_run, gate_clean, 20, 1000},
                           {"timer-set", timer_prepare, timer_run, timer_clean, 1000, 10000},
                           {"cid", cid_prepare, cid_run, cid_clean, 20, 2000},
                           {"log-line", line_prepare, line_run, line_clean, 20, 1000},
                           {"config", config_prepare, config_run, config_clean, 1, 5},
                           {.name = NULL}};
