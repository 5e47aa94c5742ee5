/* A provider over real HTTP on loopback: keys for all threads, introspection, grants, and what hostile ones answer. */
#include "base/buf.h"
#include "base/mem.h"
#include "support/http_fixture.h"
#include "support/jwt_keys.h"
#include "support/moved.h"
#include <cb/oidc.h>
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ED_PRIVATE "{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"ed\"," ED_X "," ED_D "}"
#define EC_PRIVATE "{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"ec\"," EC_XY "," EC_D "}"
#define ED_SET     "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"ed\"," ED_X "}]}"
#define EC_SET     "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"ec\"," EC_XY "}]}"

enum { PATHS = 8 };

/* What a path answers. NULL body: nothing, for ever. */
typedef struct page {
    const char *path, *type, *body, *field, *value; /* one more field */
    int status;
    atomic_int asked;
} page;

typedef struct idp {
    http_world w;
    char meta[1024];
    page pages[PATHS];
    char last_body[8192], last_authorization[1024]; /* of the last POST */
    cb_oidc *provider;
    cb_identity *certified; /* of the client; NULL: http without certificates */
    bool named;             /* the last request came with a certificate */
    int done, rc, calls;
    int32_t reason;
    char detail[512], subject[64];
} idp;

typedef struct visit {
    idp *at;
    page *page;
    cb_buf body;
} visit;

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    visit *v = user;
    return cb_buf_add(&v->body, data.base, data.len) < 0 ? CB_ELIMIT : (int64_t)data.len;
}

static int on_end(cb_exchange *x, void *user) {
    visit *v = user;
    page *p = v->page;
    if (v->body.len)
        snprintf(v->at->last_body, sizeof v->at->last_body, "%.*s", (int)v->body.len, (const char *)v->body.base);
    const cb_slice who = cb_exchange_field(x, "authorization");
    v->at->named = cb_exchange_peer(x) != NULL;
    snprintf(v->at->last_authorization, sizeof v->at->last_authorization, "%.*s", (int)who.len, (const char *)who.base);
    if (!p) return cb_exchange_send_text(x, 404, "nothing here");
    p->asked++;
    if (!p->body) return CB_OK;
    const cb_field fields[] = {{cb_slice_str("content-type"), cb_slice_str(p->type)},
                               {cb_slice_str(p->field), cb_slice_str(p->value)}};
    return cb_exchange_send(x, p->status, fields, p->field ? 2 : 1, cb_slice_str(p->body));
}

static void on_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    (void)rc;
    visit *v = user;
    cb_buf_free(&v->body);
    free(v);
}

static int on_head(cb_exchange *x, void *user) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_body = on_body, .on_end = on_end, .on_close = on_close};
    idp *at = CB_CONTAINER(user, idp, w);
    visit *v = calloc(1, sizeof *v);
    const cb_slice path = cb_exchange_path(x);
    v->at = at;
    cb_buf_init(&v->body, &cb_alloc_libc, 65536);
    for (size_t i = 0; i < PATHS; i++)
        if (at->pages[i].path && strlen(at->pages[i].path) == path.len &&
            memcmp(at->pages[i].path, path.base, path.len) == 0)
            v->page = at->pages + i;
    return cb_exchange_handle(x, &ops, v);
}

static page *set_page(idp *at, int i, const char *path, const char *body) {
    page *p = at->pages + i;
    p->path = path;
    p->body = body;
    p->type = "application/json";
    p->status = 200;
    return p;
}

enum { META, KEYS, TOKEN, INTROSPECT, REVOKE, DEVICE };

static void open_idp_by(idp *at, cb_oidc_opts o, bool tls) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = on_head};
    memset(at, 0, sizeof *at);
    http_world_open(&at->w);
    if (tls) at->certified = tls_pki_identity(&at->w.pki, "edge.test");
    http_serve(&at->w, (cb_http_server_opts){
                           .ops = &ops, .identity = tls ? at->w.me : NULL, .request_client_cert = tls ? 2 : 0});
    http_client_make(&at->w, (cb_http_client_opts){.identity = at->certified});
    const char *u = at->w.url;
    snprintf(
        at->meta, sizeof at->meta,
        "{\"issuer\":\"%s\",\"jwks_uri\":\"%s/keys\",\"token_endpoint\":\"%s/token\",\"introspection_endpoint\":\"%s/"
        "introspect\",\"revocation_endpoint\":\"%s/revoke\",\"device_authorization_endpoint\":\"%s/device\","
        "\"authorization_endpoint\":\"%s/auth\",\"authorization_response_iss_parameter_supported\":true}",
        u, u, u, u, u, u, u);
    set_page(at, META, "/.well-known/openid-configuration", at->meta);
    set_page(at, KEYS, "/keys", ED_SET);
    o.size = sizeof o;
    o.issuer = u;
    o.loopback_http = !tls;
    cr_assert_eq(cb_oidc_new(&at->provider, &o), CB_OK, "%s", cb_last_error());
}

static void open_idp(idp *at, cb_oidc_opts o) {
    open_idp_by(at, o, false);
}

static void close_idp(idp *at) {
    cb_oidc_stop(at->provider);
    cb_oidc_unref(at->provider);
    cb_identity_unref(at->certified);
    http_world_close(&at->w);
}

static int64_t now_s(void) {
    return (int64_t)time(NULL);
}

static char *token_by(const idp *at, const char *jwk) {
    cb_jwt_signer *s = NULL;
    char *token = NULL;
    cr_assert_eq(cb_jwt_signer_new(&s, CB_OPTS(cb_jwt_signer_opts, .jwk = cb_slice_str(jwk))), CB_OK);
    const cb_jwt_field claims[] = {{.name = "iss", .text = at->w.url},
                                   {.name = "sub", .text = "joe"},
                                   {.name = "aud", .text = "api"},
                                   {.name = "exp", .number = now_s() + 300}};
    cr_assert_eq(cb_jwt_sign(&token, s, NULL, 0, claims, 4), CB_OK);
    cb_jwt_signer_unref(s);
    return token;
}

/* Turns the loop until cond() holds. */
static void run_until(idp *at, bool (*cond)(idp *at)) {
    for (int i = 0; i < 120000 && !cond(at); i++) { /* a minute */
        cb_loop_step(at->w.loop);
        if (!cond(at)) nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
    cr_assert(cond(at), "it did not happen");
}

static bool has_keys(idp *at) {
    cb_jwks *keys = cb_oidc_keys(at->provider);
    cb_jwks_unref(keys);
    return keys != NULL;
}

static bool is_done(idp *at) {
    return at->done > 0;
}

static int verify(idp *at, const char *token, int32_t *reason) {
    static const char *const audiences[] = {"api"};
    cb_jwt *t = NULL;
    int rc = cb_oidc_verify(at->provider, NULL, &t, cb_slice_str(token),
                            CB_OPTS(cb_jwt_rules, .audiences = audiences, .audiences_len = 1),
                            CB_OPTS(cb_jwt_facts, .now_s = now_s()), reason);
    cb_jwt_unref(t);
    return rc;
}

/* ---- keys ---- */

static bool knows_ec(idp *at) {
    cb_jwks *keys = cb_oidc_keys(at->provider);
    const bool has = keys && cb_jwks_has(keys, "ec");
    cb_jwks_unref(keys);
    return has;
}

Test(oidc, keys_are_there_for_whoever_verifies) {
    idp at;
    int32_t reason = -1;
    cb_oidc_stats stats = {.size = sizeof stats};
    char url[1025];
    open_idp(&at, (cb_oidc_opts){0});
    char *ed = token_by(&at, ED_PRIVATE), *ec = token_by(&at, EC_PRIVATE);
    cr_expect_eq(verify(&at, ed, &reason), CB_EAGAIN, "no keys yet");
    cr_expect_eq(cb_oidc_endpoint(at.provider, CB_OIDC_TOKEN, url, sizeof url), CB_EAGAIN);
    cr_assert_eq(cb_oidc_run(at.provider, at.w.loop, at.w.client), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_oidc_run(at.provider, at.w.loop, at.w.client), CB_EEXIST);
    run_until(&at, has_keys);
    cr_expect_eq(verify(&at, ed, &reason), CB_OK, "%s", cb_last_error());
    cr_expect_eq(verify(&at, ec, &reason), CB_EAUTH);
    cr_expect_eq(reason, CB_JWT_UNKNOWN_KEY);
    cr_expect_gt(cb_oidc_endpoint(at.provider, CB_OIDC_TOKEN, url, sizeof url), 0);
    cr_expect_str_eq(url + strlen(url) - 6, "/token");
    cr_expect_eq(cb_oidc_endpoint(at.provider, CB_OIDC_USERINFO, url, sizeof url), CB_ENOENT);
    cr_expect_eq(cb_oidc_endpoint(at.provider, CB_OIDC_TOKEN, url, 5), CB_ELIMIT);
    cr_assert_eq(cb_oidc_stats_get(at.provider, &stats), CB_OK);
    cr_expect_eq(stats.fetches, 1);
    cr_expect_eq(stats.misses, 1);
    cr_expect_eq(stats.keys, 1);
    cr_expect(now_s() - stats.good_at_s < 60);
    cr_assert_eq(cb_oidc_metrics(at.provider, at.w.metrics, "idp"), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_oidc_metrics(at.provider, at.w.metrics, "idp"), CB_EEXIST);
    moved_scrape(at.w.metrics);
    EXPECT_MOVED(at.w.metrics, 1, "cb_oidc_refreshes", "idp", "ok");
    EXPECT_MOVED(at.w.metrics, 0, "cb_oidc_refreshes", "idp", "failed");
    EXPECT_MOVED(at.w.metrics, 1, "cb_oidc_unknown_keys", "idp");
    EXPECT_MOVED(at.w.metrics, 1, "cb_oidc_keys", "idp");
    EXPECT_MOVED(at.w.metrics, stats.good_at_s, "cb_oidc_good_timestamp_seconds", "idp");
    EXPECT_MOVED(at.w.metrics, stats.rotations, "cb_oidc_rotations", "idp");
    cb_jwt_text_free(ed);
    cb_jwt_text_free(ec);
    close_idp(&at);
}

typedef struct reader {
    pthread_t thread;
    idp *at;
    const char *token;
    atomic_bool *stop;
    uint64_t good, bad;
} reader;

static void *read_on(void *user) {
    reader *r = user;
    while (!atomic_load(r->stop)) {
        int32_t reason = 0;
        if (verify(r->at, r->token, &reason) == CB_OK)
            r->good++;
        else
            r->bad++;
        cb_oidc_miss(r->at->provider);
    }
    return NULL;
}

/* Old and new keys are published by turns: with the grace time, no thread ever sees one missing. */
Test(oidc, threads_verify_while_keys_turn) {
    idp at;
    atomic_bool stop = false;
    reader readers[3] = {0};
    open_idp(&at, (cb_oidc_opts){.refresh_s = 1});
    cr_assert_eq(cb_oidc_run(at.provider, at.w.loop, at.w.client), CB_OK);
    run_until(&at, has_keys);
    char *ed = token_by(&at, ED_PRIVATE);
    at.pages[KEYS].body = EC_SET;
    for (size_t i = 0; i < 3; i++) {
        readers[i] = (reader){.at = &at, .token = ed, .stop = &stop};
        cr_assert_eq(pthread_create(&readers[i].thread, NULL, read_on, readers + i), 0);
    }
    run_until(&at, knows_ec);
    atomic_store(&stop, true);
    for (size_t i = 0; i < 3; i++) {
        pthread_join(readers[i].thread, NULL);
        cr_expect_eq(readers[i].bad, 0);
        cr_expect_gt(readers[i].good, 0);
    }
    cb_jwt_text_free(ed);
    close_idp(&at);
}

static bool failed(idp *at) {
    char text[64];
    return cb_oidc_error(at->provider, text, sizeof text) > 0;
}

Test(oidc, hostile_providers_are_refused) {
    static char huge[400000];
    memset(huge, ' ', sizeof huge - 1);
    huge[0] = '{';
    const struct {
        int status;
        const char *type, *body, *field, *value, *why;
        uint32_t timeout_ms;
    } rows[] = {
        {302, "application/json", "{}", "location", "https://evil.example/", "redirects are not followed", 0},
        {200, "application/json", huge, NULL, NULL, "more than 262144 bytes", 0},
        {200, "text/html", "<html>", NULL, NULL, "another content type", 0},
        {200, "application/json", "{\"issuer\":\"https://other.example\"}", NULL, NULL, "the issuer is", 0},
        {200, "application/json", NULL, NULL, NULL, "", 50}, /* it never answers */
        {503, "application/json", "{}", "retry-after", "1", "status 503", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        idp at;
        char text[512];
        open_idp(&at, (cb_oidc_opts){.timeout_ms = rows[i].timeout_ms});
        page *p = set_page(&at, META, "/.well-known/openid-configuration", rows[i].body);
        p->status = rows[i].status;
        p->type = rows[i].type;
        p->field = rows[i].field;
        p->value = rows[i].value;
        cr_assert_eq(cb_oidc_run(at.provider, at.w.loop, at.w.client), CB_OK);
        run_until(&at, failed);
        cb_oidc_error(at.provider, text, sizeof text);
        cr_expect(strncmp(text, "discovery: ", 11) == 0 && strstr(text, rows[i].why), "row %zu: %s", i, text);
        cr_expect_null(cb_oidc_keys(at.provider));
        close_idp(&at);
    }
}

Test(oidc, options_are_judged) {
    cb_oidc *o = NULL;
    const cb_oidc_opts rows[] = {
        {.issuer = NULL},
        {.issuer = "id.example"},
        {.issuer = "http://id.example"},
        {.issuer = "http://127.0.0.1"},
        {.issuer = "https://id.example?x"},
        {.issuer = "https://id.example#x"},
        {.issuer = "https://u@id.example"},
        {.issuer = "https://id.example", .client_secret = "s"},
        {.issuer = "https://id.example", .client_id = ""},
        {.issuer = "https://id.example", .client_id = "c", .client_auth = CB_OIDC_AUTH_KEY},
        {.issuer = "https://id.example", .client_id = "c", .client_auth = CB_OIDC_AUTH_POST},
        {.issuer = "https://id.example", .client_id = "c", .client_auth = 9},
        {.issuer = "https://id.example", .refresh_s = 100000},
        {.issuer = "https://id.example", .introspect_ttl_s = 4000},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_oidc_opts opts = rows[i];
        opts.size = sizeof opts;
        cr_expect_eq(cb_oidc_new(&o, &opts), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), "cb_oidc_opts") != NULL, "row %zu: %s", i, cb_last_error());
    }
}

/* ---- introspection ---- */

static void on_told(int rc, cb_jwt *token, int32_t reason, void *user) {
    idp *at = user;
    at->done++;
    at->calls++;
    at->rc = rc;
    at->reason = reason;
    snprintf(at->detail, sizeof at->detail, "%s", cb_last_error());
    snprintf(at->subject, sizeof at->subject, "%s", token && cb_jwt_subject(token) ? cb_jwt_subject(token) : "");
}

static cb_introspector *introspector(idp *at) {
    cb_introspector *in = NULL;
    cr_assert_eq(cb_introspector_new(&in, at->w.loop,
                                     CB_OPTS(cb_introspector_opts, .provider = at->provider, .client = at->w.client)),
                 CB_OK, "%s", cb_last_error());
    return in;
}

static int ask(idp *at, cb_introspector *in, const char *text) {
    cb_jwt *token = NULL;
    at->done = 0;
    int rc = cb_introspect(in, NULL, cb_slice_str(text), now_s(), &token, &at->reason, on_told, at);
    if (rc == CB_OK) cr_expect_str_eq(cb_jwt_subject(token), "joe");
    cb_jwt_unref(token);
    return rc;
}

static int ask_and_wait(idp *at, cb_introspector *in, const char *text) {
    int rc = ask(at, in, text);
    if (rc != CB_EAGAIN) return rc;
    run_until(at, is_done);
    return at->rc;
}

#define CLIENT .client_id = "edge", .client_secret = "s:e c"

Test(oidc, introspection_is_remembered) {
    idp at;
    open_idp(&at, (cb_oidc_opts){CLIENT});
    page *p = set_page(&at, INTROSPECT, "/introspect", "{\"active\":true,\"sub\":\"joe\",\"scope\":\"read\"}");
    cb_introspector *in = introspector(&at), *other = introspector(&at);
    cr_expect_eq(ask_and_wait(&at, in, "opaque-1"), CB_OK, "%s", at.detail);
    cr_expect_str_eq(at.subject, "joe");
    cr_expect_str_eq(at.last_body, "token=opaque-1&token_type_hint=access_token");
    cr_expect_str_eq(at.last_authorization, "Basic ZWRnZTpzJTNBZStj", "RFC 6749 2.3.1");
    cr_expect_eq(ask(&at, in, "opaque-1"), CB_OK, "at once");
    cr_expect_eq(ask(&at, other, "opaque-1"), CB_OK, "for others too");
    cr_expect_eq(p->asked, 1);
    cb_oidc_forget(at.provider, cb_slice_str("opaque-1"));
    cr_expect_eq(ask_and_wait(&at, in, "opaque-1"), CB_OK);
    cr_expect_eq(p->asked, 2);
    p->body = "{\"active\":false}";
    cr_expect_eq(ask_and_wait(&at, in, "opaque-2"), CB_EAUTH);
    cr_expect_eq(at.reason, CB_JWT_INACTIVE);
    at.reason = 0;
    cr_expect_eq(ask(&at, other, "opaque-2"), CB_EAUTH);
    cr_expect_eq(at.reason, CB_JWT_INACTIVE);
    cr_expect_eq(p->asked, 3);
    cr_assert_eq(cb_oidc_metrics(at.provider, at.w.metrics, ""), CB_OK, "%s", cb_last_error());
    moved_scrape(at.w.metrics);
    EXPECT_MOVED(at.w.metrics, 3, "cb_oidc_introspections", "", "asked");
    EXPECT_MOVED(at.w.metrics, 3, "cb_oidc_introspections", "", "remembered");
    EXPECT_MOVED(at.w.metrics, 0, "cb_oidc_introspections", "", "failed");
    EXPECT_MOVED(at.w.metrics, 2, "cb_oidc_kept_answers", "");
    cb_oidc_forget(at.provider, (cb_slice){0});
    cr_expect_eq(ask(&at, in, "opaque-1"), CB_EAGAIN);
    cr_expect_eq(ask(&at, in, ""), CB_EINVAL);
    cr_expect_eq(ask(&at, in, "a b"), CB_EINVAL);
    cr_expect_eq(ask(&at, in, "a\r\nx: y"), CB_EINVAL);
    cr_expect_eq(ask(&at, in, "==="), CB_EINVAL);
    cb_introspector_free(in);
    cb_introspector_free(other);
    cr_expect_eq(at.done, 0, "freed: nobody is told");
    close_idp(&at);
}

static bool both_done(idp *at) {
    return at->calls >= 4;
}

Test(oidc, one_question_at_a_time_is_under_way) {
    idp at;
    open_idp(&at, (cb_oidc_opts){CLIENT});
    page *p = set_page(&at, INTROSPECT, "/introspect", "{\"active\":true,\"sub\":\"joe\"}");
    cb_introspector *in = introspector(&at), *other = introspector(&at);
    cb_introspection *gone = NULL;
    cb_jwt *token = NULL;
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(ask(&at, in, "t"), CB_EAGAIN);
        cr_expect_eq(ask(&at, other, "t"), CB_EAGAIN);
    }
    cr_expect_eq(cb_introspect(in, &gone, cb_slice_str("t"), now_s(), &token, NULL, on_told, &at), CB_EAGAIN);
    cb_introspection_cancel(gone);
    run_until(&at, both_done);
    cr_expect_eq(at.calls, 4);
    cr_expect_eq(p->asked, 1);
    at.calls = 0;
    cr_expect_eq(ask(&at, in, "u"), CB_EAGAIN);
    cr_expect_eq(ask(&at, other, "u"), CB_EAGAIN);
    cb_introspector_free(in); /* which was asking: the other one takes over */
    run_until(&at, is_done);
    cr_expect_eq(at.rc, CB_OK, "%s", at.detail);
    cr_expect_eq(at.calls, 1);
    cb_introspector_free(other);
    close_idp(&at);
}

enum { WORKERS = 3, QUESTIONS = 40 };

/* A thread with a loop, an HTTP client and an introspector of its own. */
typedef struct worker {
    pthread_t thread;
    cb_oidc *provider;
    cb_loop *loop;
    atomic_int *ended;
    int good, bad;
} worker;

static void on_worker_told(int rc, cb_jwt *token, int32_t reason, void *user) {
    worker *w = user;
    (void)token;
    (void)reason;
    *(rc == CB_OK ? &w->good : &w->bad) += 1;
    cb_loop_stop(w->loop);
}

static void *work(void *user) {
    worker *w = user;
    cb_http_client *client = NULL;
    cb_introspector *in = NULL;
    int rc = cb_loop_new(&w->loop, NULL);
    if (rc == CB_OK) rc = cb_http_client_new(&client, w->loop, NULL);
    if (rc == CB_OK)
        rc =
            cb_introspector_new(&in, w->loop, CB_OPTS(cb_introspector_opts, .provider = w->provider, .client = client));
    for (int i = 0; rc == CB_OK && i < QUESTIONS; i++) {
        char text[16];
        cb_jwt *token = NULL;
        snprintf(text, sizeof text, "t%d", i);
        int told = cb_introspect(in, NULL, cb_slice_str(text), now_s(), &token, NULL, on_worker_told, w);
        if (told == CB_EAGAIN)
            cb_loop_run(w->loop);
        else
            *(told == CB_OK ? &w->good : &w->bad) += 1;
        cb_jwt_unref(token);
    }
    cb_introspector_free(in);
    cb_http_client_free(client);
    cb_loop_free(w->loop);
    atomic_fetch_add(w->ended, 1);
    return NULL;
}

Test(oidc, workers_share_questions_and_answers) {
    idp at;
    atomic_int ended = 0;
    worker workers[WORKERS] = {0};
    open_idp(&at, (cb_oidc_opts){CLIENT});
    page *p = set_page(&at, INTROSPECT, "/introspect", "{\"active\":true,\"sub\":\"joe\"}");
    for (size_t i = 0; i < WORKERS; i++) {
        workers[i] = (worker){.provider = at.provider, .ended = &ended};
        cr_assert_eq(pthread_create(&workers[i].thread, NULL, work, workers + i), 0);
    }
    while (atomic_load(&ended) < WORKERS) { /* serves */
        cb_loop_step(at.w.loop);
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    for (size_t i = 0; i < WORKERS; i++) {
        pthread_join(workers[i].thread, NULL);
        cr_expect_eq(workers[i].good, QUESTIONS);
        cr_expect_eq(workers[i].bad, 0);
    }
    cr_expect_eq(p->asked, QUESTIONS, "of one token one question: %d", p->asked);
    close_idp(&at);
}

Test(oidc, what_nobody_waits_for_is_not_asked) {
    idp at;
    cb_introspector *in = NULL;
    cb_introspection *asks[3] = {NULL};
    cb_jwt *token = NULL;
    open_idp(&at, (cb_oidc_opts){CLIENT});
    page *p = set_page(&at, INTROSPECT, "/introspect", "{\"active\":true,\"sub\":\"joe\"}");
    cr_assert_eq(cb_introspector_new(&in, at.w.loop,
                                     CB_OPTS(cb_introspector_opts, .provider = at.provider, .client = at.w.client,
                                             .max_requests = 1, .max_waiting = 3)),
                 CB_OK);
    static const char *const names[] = {"a", "b", "c"};
    for (int i = 0; i < 3; i++)
        cr_expect_eq(cb_introspect(in, asks + i, cb_slice_str(names[i]), now_s(), &token, NULL, on_told, &at),
                     CB_EAGAIN);
    cr_expect_eq(cb_introspect(in, NULL, cb_slice_str("d"), now_s(), &token, NULL, on_told, &at), CB_ELIMIT);
    cb_introspection_cancel(asks[1]);
    run_until(&at, is_done);
    at.done = 0;
    run_until(&at, is_done);
    cr_expect_eq(at.calls, 2);
    cr_expect_eq(p->asked, 2);
    cb_introspector_free(in);
    close_idp(&at);
}

Test(oidc, revocation_holds_for_what_is_remembered) {
    idp at;
    cb_revocations *gone = NULL;
    char body[200];
    cr_assert_eq(cb_revocations_new(&gone, 0), CB_OK);
    open_idp(&at, (cb_oidc_opts){CLIENT, .revocations = gone});
    snprintf(body, sizeof body, "{\"active\":true,\"sub\":\"joe\",\"iat\":%lld}", (long long)now_s() - 5);
    set_page(&at, INTROSPECT, "/introspect", body);
    cb_introspector *in = introspector(&at);
    cr_expect_eq(ask_and_wait(&at, in, "t"), CB_OK);
    cr_expect_eq(ask(&at, in, "t"), CB_OK);
    cr_assert_eq(cb_revocations_add(gone,
                                    CB_OPTS(cb_revocation, .issuer = at.w.url, .subject = "joe", .before_s = now_s(),
                                            .until_s = now_s() + 600),
                                    now_s()),
                 CB_OK);
    cr_expect_eq(ask(&at, in, "t"), CB_EAUTH);
    cr_expect_eq(at.reason, CB_JWT_REVOKED);
    cb_introspector_free(in);
    close_idp(&at);
    cb_revocations_unref(gone);
}

Test(oidc, introspection_answers_are_judged) {
    const struct {
        int status;
        const char *type, *body;
        int rc;
        int32_t reason;
        const char *why;
    } rows[] = {
        {200, "application/json", "{\"active\":\"true\"}", CB_EPROTO, 0, "active"},
        {200, "application/json", "{}", CB_EPROTO, 0, "active"},
        {200, "application/json", "{\"active\":true,\"active\":false}", CB_EPROTO, 0, "twice"},
        {200, "application/json", "{\"active\":true,\"exp\":1}", CB_EAUTH, CB_JWT_EXPIRED, "expired"},
        {200, "application/json", "{\"active\":true,\"exp\":\"1\"}", CB_EPROTO, 0, "exp"},
        {200, "application/json", "{\"active\":true,\"nbf\":99999999999}", CB_EAUTH, CB_JWT_NOT_YET, "valid in"},
        {200, "application/json", "{\"active\":true,\"iss\":\"https://evil.example\"}", CB_EAUTH, CB_JWT_ISSUER, "iss"},
        {200, "application/json", "[true]", CB_EPROTO, 0, "object"},
        {200, "text/plain", "{\"active\":true}", CB_EPROTO, 0, "content type"},
        {401, "application/json", "{\"error\":\"invalid_client\"}", CB_EPROTO, 0, "does not take our client"},
        {302, "application/json", "{\"active\":true}", CB_EPROTO, 0, "redirects"},
        {503, "application/json", "{\"active\":true}", CB_EUNREACH, 0, "503"},
    };
    idp at;
    open_idp(&at, (cb_oidc_opts){CLIENT});
    cb_introspector *in = introspector(&at);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[16];
        page *p = set_page(&at, INTROSPECT, "/introspect", rows[i].body);
        p->status = rows[i].status;
        p->type = rows[i].type;
        snprintf(text, sizeof text, "t%zu", i);
        cr_expect_eq(ask_and_wait(&at, in, text), rows[i].rc, "row %zu: %s", i, at.detail);
        cr_expect_eq(at.reason, rows[i].reason, "row %zu: %d", i, at.reason);
        cr_expect(strstr(at.detail, rows[i].why) != NULL, "row %zu: %s", i, at.detail);
    }
    cr_expect_eq(at.pages[INTROSPECT].asked, (int)(sizeof rows / sizeof *rows) + 2, "503 is tried three times");
    cb_introspector_free(in);
    close_idp(&at);
}

/* ---- requests ---- */

static void on_tokens(cb_oidc_request *r, int rc, const cb_oidc_tokens *t, const char *error, void *user) {
    idp *at = user;
    at->done++;
    at->rc = rc;
    snprintf(at->subject, sizeof at->subject, "%s", t ? t->access_token : error);
    snprintf(at->detail, sizeof at->detail, "%s", cb_last_error());
    cb_oidc_request_free(r);
}

static int request(idp *at, cb_oidc_request_opts o) {
    cb_oidc_request *r = NULL;
    o.size = sizeof o;
    o.provider = at->provider;
    o.client = at->w.client;
    at->done = 0;
    int rc = cb_oidc_request_start(&r, at->w.loop, &o, on_tokens, at);
    if (rc < 0) return rc;
    run_until(at, is_done);
    return at->rc;
}

Test(oidc, requests_send_what_the_standards_say) {
    static const struct {
        cb_oidc_request_opts o;
        const char *body;
    } rows[] = {
        {{.type = CB_OIDC_CLIENT_CREDENTIALS, .scope = "a b", .resource = "https://x"},
         "grant_type=client_credentials&scope=a+b&resource=https%3A%2F%2Fx"},
        {{.type = CB_OIDC_CODE, .code = "c&d", .redirect_uri = "https://me/cb", .verifier = "v", .scope = "unsent"},
         "grant_type=authorization_code&code=c%26d&redirect_uri=https%3A%2F%2Fme%2Fcb&code_verifier=v"},
        {{.type = CB_OIDC_REFRESH, .token = "r"}, "grant_type=refresh_token&refresh_token=r"},
        {{.type = CB_OIDC_REVOKE, .token = "r", .token_hint = "refresh_token"},
         "token=r&token_type_hint=refresh_token"},
    };
    idp at;
    open_idp(&at, (cb_oidc_opts){CLIENT});
    set_page(&at, TOKEN, "/token", "{\"access_token\":\"good\",\"token_type\":\"Bearer\",\"expires_in\":300}");
    set_page(&at, REVOKE, "/revoke", "")->type = "text/plain";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(request(&at, rows[i].o), CB_OK, "row %zu: %s", i, at.detail);
        cr_expect_str_eq(at.last_body, rows[i].body);
        cr_expect_str_eq(at.last_authorization, "Basic ZWRnZTpzJTNBZStj");
        cr_expect_str_eq(at.subject, rows[i].o.type == CB_OIDC_REVOKE ? "" : "good");
    }
    cr_expect_eq(at.pages[META].asked, 1, "what one request has discovered serves the next");
    page *p = set_page(&at, TOKEN, "/token", "{\"error\":\"invalid_scope\"}");
    p->status = 400;
    cr_expect_eq(request(&at, rows[0].o), CB_EAUTH);
    cr_expect_str_eq(at.subject, "invalid_scope");
    const cb_oidc_request_opts bad[] = {{.type = 0},
                                        {.type = 7},
                                        {.type = CB_OIDC_CODE, .code = "c"},
                                        {.type = CB_OIDC_REFRESH},
                                        {.type = CB_OIDC_REVOKE},
                                        {.type = CB_OIDC_JWT_BEARER, .subject = "s"},
                                        {.type = CB_OIDC_DEVICE_CODE}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(request(&at, bad[i]), CB_EINVAL, "row %zu", i);
    close_idp(&at);
}

/* The keys of a service account sign an assertion about its user. */
Test(oidc, service_accounts) {
    static const char file[] = "{\"type\":\"serviceaccount\",\"keyId\":\"17\",\"userId\":\"4711\",\"key\":\"-----BEGIN "
                               "PRIVATE KEY-----\\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\\n"
                               "-----END PRIVATE KEY-----\\n\"}";
    static const struct {
        const char *json, *why;
    } rows[] = {{"{}", "type"},
                {"[]", "object"},
                {"{\"type\":\"serviceaccount\",\"keyId\":\"1\",\"key\":\"x\"}", "userId"},
                {"{\"type\":\"application\",\"keyId\":\"1\",\"key\":\"x\",\"userId\":\"u\"}", "clientId"},
                {"{\"type\":\"serviceaccount\",\"keyId\":\"1\",\"key\":\"x\",\"userId\":\"u\"}", "key"},
                {"{\"type\":\"serviceaccount\",\"type\":\"application\"}", "twice"}};
    char id[32];
    cb_jwt_signer *key = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(cb_oidc_account_read(&key, id, sizeof id, cb_slice_str(rows[i].json)), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), rows[i].why) != NULL, "row %zu: %s", i, cb_last_error());
    }
    cr_expect_eq(cb_oidc_account_read(&key, id, 4, cb_slice_str(file)), CB_ELIMIT);
    cr_assert_eq(cb_oidc_account_read(&key, id, sizeof id, cb_slice_str(file)), CB_OIDC_JWT_BEARER, "%s",
                 cb_last_error());
    cr_expect_str_eq(id, "4711");
    idp at;
    open_idp(&at, (cb_oidc_opts){0});
    set_page(&at, TOKEN, "/token", "{\"access_token\":\"good\",\"token_type\":\"Bearer\"}");
    cr_assert_eq(
        request(&at, (cb_oidc_request_opts){.type = CB_OIDC_JWT_BEARER, .key = key, .subject = id, .scope = "openid"}),
        CB_OK, "%s", at.detail);
    static const char lead[] =
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&scope=openid&assertion=";
    cr_assert_eq(strncmp(at.last_body, lead, sizeof lead - 1), 0, "%s", at.last_body);
    cb_jwks *keys = NULL;
    cb_jwt *t = NULL;
    const char *const to[] = {at.w.url};
    cr_assert_eq(cb_jwks_new(&keys, CB_OPTS(cb_jwks_opts, .json = cb_slice_str(cb_jwt_signer_jwk(key)))), CB_OK);
    cr_assert_eq(cb_jwt_verify(&t, cb_slice_str(at.last_body + sizeof lead - 1), keys,
                               CB_OPTS(cb_jwt_rules, .issuer = "4711", .audiences = to, .audiences_len = 1),
                               CB_OPTS(cb_jwt_facts, .now_s = now_s()), NULL),
                 CB_OK, "%s", cb_last_error());
    cr_expect_str_eq(cb_jwt_subject(t), "4711");
    cb_jwt_unref(t);
    cb_jwks_unref(keys);
    cb_jwt_signer_unref(key);
    close_idp(&at);
}

/* RFC 8705 2: the certificate of the HTTP client says who asks. */
Test(oidc, clients_with_certificates) {
    idp at;
    open_idp_by(&at, (cb_oidc_opts){.client_id = "edge", .client_auth = CB_OIDC_AUTH_TLS}, true);
    set_page(&at, TOKEN, "/token", "{\"access_token\":\"good\",\"token_type\":\"Bearer\"}");
    cr_assert_eq(request(&at, (cb_oidc_request_opts){.type = CB_OIDC_CLIENT_CREDENTIALS}), CB_OK, "%s", at.detail);
    cr_expect_str_eq(at.last_body, "grant_type=client_credentials&client_id=edge");
    cr_expect_str_empty(at.last_authorization);
    cr_expect(at.named);
    close_idp(&at);
}

/* ---- token sources ---- */

static void on_source(cb_token_source *s, int rc, const cb_oidc_tokens *t, void *user) {
    idp *at = user;
    (void)s;
    at->done++;
    at->rc = rc;
    snprintf(at->subject, sizeof at->subject, "%s", t ? t->access_token : "");
}

static bool renewed(idp *at) {
    return at->done >= 2;
}

Test(oidc, a_token_source_has_a_token_and_renews_it) {
    idp at;
    char text[64], scope[] = "read";
    int64_t expires = 0;
    cb_token_source *s = NULL;
    open_idp(&at, (cb_oidc_opts){CLIENT});
    page *p = set_page(&at, TOKEN, "/token", "{\"access_token\":\"first\",\"token_type\":\"Bearer\",\"expires_in\":1}");
    cb_oidc_request_opts r = {.size = sizeof r,
                              .provider = at.provider,
                              .client = at.w.client,
                              .type = CB_OIDC_CLIENT_CREDENTIALS,
                              .scope = scope};
    cr_assert_eq(cb_token_source_new(&s, at.w.loop,
                                     CB_OPTS(cb_token_source_opts, .request = &r, .on_token = on_source, .user = &at)),
                 CB_OK, "%s", cb_last_error());
    scope[0] = '!';
    cr_expect_eq(cb_token_source_get(s, text, sizeof text, NULL), CB_EAGAIN);
    run_until(&at, is_done);
    cr_expect_eq(cb_token_source_get(s, text, 3, NULL), CB_ELIMIT);
    p->body = "{\"access_token\":\"second\",\"token_type\":\"Bearer\",\"expires_in\":300}";
    run_until(&at, renewed);
    cr_assert_eq(cb_token_source_get(s, text, sizeof text, &expires), 6);
    cr_expect_str_eq(text, "second");
    cr_expect(expires > now_s() + 200);
    cr_expect_str_eq(at.last_body, "grant_type=client_credentials&scope=read");
    cb_token_source_free(s);
    r.type = CB_OIDC_CODE;
    cr_expect_eq(cb_token_source_new(&s, at.w.loop, CB_OPTS(cb_token_source_opts, .request = &r)), CB_EINVAL);
    close_idp(&at);
}

/* ---- logins ---- */

static bool discovered(idp *at) {
    char url[1025];
    return cb_oidc_endpoint(at->provider, CB_OIDC_AUTHORIZATION, url, sizeof url) > 0;
}

static void expand(char *out, size_t cap, const char *from, const char *state, const char *issuer) {
    size_t n = 0;
    for (; *from && n + 1 < cap; from++) {
        if (*from == '$') {
            n += (size_t)snprintf(out + n, cap - n, "%s", *++from == 's' ? state : issuer);
        } else {
            out[n++] = *from;
        }
    }
    out[n] = '\0';
}

Test(oidc, logins_come_back_to_who_began_them) {
    idp at;
    cb_oidc_login *l = NULL;
    cb_oidc_request_opts r = {.size = sizeof r};
    char error[64], query[512], issuer[200];
    const cb_oidc_login_opts o = {
        .size = sizeof o, .redirect_uri = "https://me/cb", .scope = "openid email", .prompt = "login"};
    open_idp(&at, (cb_oidc_opts){.client_id = "app"});
    cr_expect_eq(cb_oidc_login_new(&l, at.provider, &o), CB_EAGAIN);
    cr_assert_eq(cb_oidc_run(at.provider, at.w.loop, at.w.client), CB_OK);
    run_until(&at, discovered);
    cr_assert_eq(cb_oidc_login_new(&l, at.provider, &o), CB_OK, "%s", cb_last_error());
    const char *url = cb_oidc_login_url(l), *state = cb_oidc_login_state(l);
    cr_expect_eq(strncmp(url, at.w.url, strlen(at.w.url)), 0);
    cr_expect(strstr(
        url, "/auth?response_type=code&client_id=app&redirect_uri=https%3A%2F%2Fme%2Fcb&scope=openid+email&state="));
    cr_expect(strstr(url, state) && strstr(url, "&code_challenge_method=S256&prompt=login"));
    cr_expect_eq(strlen(state), 43);
    snprintf(issuer, sizeof issuer, "http%%3A%%2F%%2F%.90s", at.w.url + 7);
    const struct {
        const char *query; /* $s: the state, $i: the issuer */
        int rc;
        const char *error, *why;
    } rows[] = {
        {"code=a%2Bb&state=$s&iss=$i", CB_OK, "", ""},
        {"state=$s&iss=$i&error=access_denied&error_description=no+way", CB_EAUTH, "access_denied",
         "access_denied: no way"},
        {"code=c&state=$s&iss=https%3A%2F%2Fevil.example", CB_EAUTH, "", "another issuer"},
        {"code=c&state=$s", CB_EAUTH, "", "without issuer"},
        {"code=c&state=x$s&iss=$i", CB_EAUTH, "", "state is another"},
        {"code=c&iss=$i", CB_EAUTH, "", "state is missing"},
        {"code=c&state=$s&iss=$i&code=d", CB_EPROTO, "", "twice"},
        {"state=$s&iss=$i", CB_EPROTO, "", "no code"},
        {"code=&state=$s&iss=$i", CB_EPROTO, "", "no code"},
        {"code=%00&state=$s&iss=$i", CB_EPROTO, "", "no text"},
        {"code=%4&state=$s&iss=$i", CB_EPROTO, "", "no text"},
        {"", CB_EAUTH, "", "state is missing"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        expand(query, sizeof query, rows[i].query, state, issuer);
        cr_expect_eq(cb_oidc_login_answer(l, cb_slice_str(query), &r, error), rows[i].rc, "row %zu: %s: %s", i, query,
                     cb_last_error());
        cr_expect_str_eq(error, rows[i].error, "row %zu", i);
        if (rows[i].rc < 0) cr_expect(strstr(cb_last_error(), rows[i].why) != NULL, "row %zu: %s", i, cb_last_error());
    }
    cr_expect_eq(r.type, CB_OIDC_CODE);
    cr_expect_str_eq(r.code, "a+b");
    cr_expect_str_eq(r.redirect_uri, "https://me/cb");
    cr_expect_eq(strlen(r.verifier), 43);
    cr_expect_eq(strlen(r.nonce), 43);
    cb_oidc_login_free(l);
    close_idp(&at);
}
