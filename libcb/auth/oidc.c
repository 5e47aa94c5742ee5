/* A provider: what all threads share, and the driver that keeps it fresh on one loop. */
#include "auth/oidc_core.h"
#include "auth/oidc_int.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "http/web.h"
#include "loop/bell.h"
#include "telemetry/shown.h"
#include <gnutls/crypto.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { REFRESH_S = 300, GRACE_S = 300, DAY_S = 86400, HOUR_S = 3600, TIMEOUT_MS = 10000 };

static const cb_alloc *const heap = &cb_alloc_libc;

struct cb_oidc_runner {
    cb_oidc *o;
    cb_loop *loop;
    cb_http_client *client;
    cb_bell *bell;
    cb_alarm alarm;
    cb_fetch fetch;
    cb_oidc_core core;
    atomic_bool missed;
};

/* ---- the driver ---- */

static int64_t now_ms(const cb_loop *loop) {
    return (int64_t)(cb_loop_now(loop) / CB_MS);
}

/* Lets everybody see what the core has. */
static void publish(cb_oidc_runner *r) {
    cb_oidc *o = r->o;
    const cb_oidc_core *c = &r->core;
    const int64_t wall_s = (int64_t)(cb_loop_wall(r->loop) / CB_SEC);
    cb_oidc_meta *meta = NULL;
    cb_jwks *keys = NULL;
    pthread_mutex_lock(&o->lock);
    if (c->changed) {
        meta = o->meta;
        keys = o->keys;
        o->meta = c->meta ? cb_oidc_meta_ref(c->meta) : NULL;
        o->keys = c->keys ? cb_jwks_ref(c->keys) : NULL;
    }
    if (c->fetches != o->fetches) o->good_at_s = wall_s;
    if (c->failures != o->failures) o->failed_at_s = wall_s;
    o->fetches = c->fetches;
    o->failures = c->failures;
    o->rotations = c->rotations;
    snprintf(o->error, sizeof o->error, "%s", c->detail);
    pthread_mutex_unlock(&o->lock);
    r->core.changed = false;
    cb_oidc_meta_unref(meta);
    cb_jwks_unref(keys);
}

static int ask(cb_oidc_runner *r) {
    const cb_field match = {cb_slice_str("if-none-match"), cb_slice_str(r->core.etag)};
    return cb_fetch_start(&r->fetch, r->client,
                          &(cb_fetch_request){.method = "GET",
                                              .url = r->core.url,
                                              .accept = "application/json",
                                              .fields = &match,
                                              .n_fields = r->core.asking_keys && r->core.etag[0],
                                              .timeout_ms = r->o->conf.timeout_ms});
}

static void drive(cb_oidc_runner *r) {
    const int64_t now = now_ms(r->loop);
    if (atomic_load(&r->missed)) cb_oidc_core_miss(&r->core, now);
    while (cb_oidc_core_next(&r->core, now) == CB_OIDC_SEND) {
        if (ask(r) >= 0) break;
        cb_oidc_core_unanswered(&r->core, now);
    }
    cb_oidc_core_next(&r->core, now); /* sets wake_ms also when something was sent */
    publish(r);
    atomic_store(&r->missed, r->core.missed); /* until it is asked, further ones need not wake the loop */
    const int64_t wake = r->core.wake_ms;
    cb_alarm_set(&r->alarm, wake == INT64_MAX ? CB_NEVER : (cb_time)wake * CB_MS);
}

static void on_alarm(cb_alarm *alarm, cb_time now) {
    (void)now;
    drive(CB_CONTAINER(alarm, cb_oidc_runner, alarm));
}

static void on_miss(void *user) {
    drive(user);
}

void cb_oidc_answer_of(cb_oidc_answer *out, cb_exchange *x, const cb_fetch *fetch) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    const int64_t wall_ms = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    const int64_t retry_ms = cb_web_retry_after(cb_exchange_field(x, "retry-after"), wall_ms);
    *out = (cb_oidc_answer){.status = cb_exchange_status(x),
                            .content_type = cb_exchange_field(x, "content-type"),
                            .cache_control = cb_exchange_field(x, "cache-control"),
                            .age = cb_exchange_field(x, "age"),
                            .etag = cb_exchange_field(x, "etag"),
                            .retry_ms = retry_ms > wall_ms ? retry_ms - wall_ms : 0,
                            .body = cb_buf_slice(&fetch->answer)};
}

static void on_answer(cb_fetch *fetch, cb_exchange *x, int rc) {
    cb_oidc_runner *r = CB_CONTAINER(fetch, cb_oidc_runner, fetch);
    const char *what = r->core.asking_keys ? "keys" : "discovery";
    cb_oidc_answer a;
    char why[400];
    if (rc < 0) {
        snprintf(why, sizeof why, "%s", cb_last_error());
        cb_fail(rc, "%s: %s", what, why);
        cb_oidc_core_unanswered(&r->core, now_ms(r->loop));
    } else {
        cb_oidc_answer_of(&a, x, fetch);
        cb_oidc_core_answer(&r->core, &a, now_ms(r->loop));
    }
    drive(r);
}

static void free_runner(cb_oidc_runner *r) {
    cb_bell_free(r->bell);
    cb_alarm_stop(&r->alarm);
    cb_fetch_free(&r->fetch);
    cb_oidc_core_clear(&r->core);
    cb_mem_free(heap, r);
}

int cb_oidc_run(cb_oidc *o, cb_loop *loop, cb_http_client *client) {
    if (!o || !loop || !client) return cb_fail(CB_EINVAL, "cb_oidc_run: o, loop and client are needed");
    cb_oidc_runner *r = cb_mem_new(heap, sizeof *r);
    if (!r) return cb_fail(CB_ENOMEM, "no memory to fetch keys");
    r->o = o;
    r->loop = loop;
    r->client = client;
    cb_alarm_init(&r->alarm, loop, on_alarm);
    cb_fetch_init(&r->fetch, CB_OIDC_ANSWER_BYTES, on_answer);
    cb_oidc_core_init(&r->core, &o->conf, now_ms(loop));
    int rc = cb_bell_new(&r->bell, loop, on_miss, r);
    if (rc == CB_OK) rc = cb_alarm_set(&r->alarm, cb_loop_now(loop));
    if (rc == CB_OK) {
        pthread_mutex_lock(&o->lock);
        if (o->runner) rc = cb_fail(CB_EEXIST, "a loop keeps this provider fresh already");
        if (rc == CB_OK) o->runner = r;
        r->core.fetches = o->fetches;
        r->core.failures = o->failures;
        r->core.rotations = o->rotations;
        pthread_mutex_unlock(&o->lock);
    }
    if (rc < 0) free_runner(r);
    return rc;
}

void cb_oidc_stop(cb_oidc *o) {
    pthread_mutex_lock(&o->lock);
    cb_oidc_runner *r = o->runner;
    o->runner = NULL;
    pthread_mutex_unlock(&o->lock);
    if (r) free_runner(r);
}

/* ---- what is shared ---- */

static int check_client(const cb_oidc_opts *o) {
    if (o->client_auth < 0 || o->client_auth > CB_OIDC_AUTH_TLS)
        return cb_fail(CB_EINVAL, "cb_oidc_opts: client_auth %d", o->client_auth);
    if ((o->client_secret || o->client_key || o->client_auth) && !o->client_id)
        return cb_fail(CB_EINVAL, "cb_oidc_opts: client_id is needed");
    if (o->client_id && !*o->client_id) return cb_fail(CB_EINVAL, "cb_oidc_opts: client_id is empty");
    const bool secret = o->client_auth == CB_OIDC_AUTH_BASIC || o->client_auth == CB_OIDC_AUTH_POST;
    if (secret && !o->client_secret)
        return cb_fail(CB_EINVAL, "cb_oidc_opts: client_secret is needed for this client_auth");
    if (o->client_auth == CB_OIDC_AUTH_KEY && !o->client_key)
        return cb_fail(CB_EINVAL, "cb_oidc_opts: client_key is needed for private_key_jwt");
    return CB_OK;
}

static int check_opts(const cb_oidc_opts *o) {
    char why[300];
    if (!o->issuer) return cb_fail(CB_EINVAL, "cb_oidc_opts: issuer is needed");
    int rc = cb_oidc_issuer_check(o->issuer, o->loopback_http);
    if (rc < 0) {
        snprintf(why, sizeof why, "%s", cb_last_error());
        return cb_fail(rc, "cb_oidc_opts: issuer: %s", why);
    }
    if (o->refresh_s > DAY_S) return cb_fail(CB_EINVAL, "cb_oidc_opts: refresh_s is at most %d", DAY_S);
    if (o->introspect_ttl_s > HOUR_S || o->inactive_ttl_s > HOUR_S)
        return cb_fail(CB_EINVAL, "cb_oidc_opts: introspect_ttl_s and inactive_ttl_s are at most %d", HOUR_S);
    return check_client(o);
}

static int copy(char **to, const char *from) {
    *to = cb_mem_text(heap, from);
    return from && !*to ? cb_fail(CB_ENOMEM, "no memory for a provider") : CB_OK;
}

static int set_conf(cb_oidc_conf *c, const cb_oidc_opts *o) {
    int rc = copy(&c->issuer, o->issuer);
    if (rc == CB_OK) rc = copy(&c->client_id, o->client_id);
    if (rc == CB_OK) rc = copy(&c->client_secret, o->client_secret);
    if (rc == CB_OK) rc = copy(&c->assertion_aud, o->assertion_aud ? o->assertion_aud : o->issuer);
    c->client_key = o->client_key ? cb_jwt_signer_ref(o->client_key) : NULL;
    c->client_auth = o->client_auth     ? o->client_auth
                     : o->client_key    ? CB_OIDC_AUTH_KEY
                     : o->client_secret ? CB_OIDC_AUTH_BASIC
                                        : CB_OIDC_AUTH_NONE;
    c->timeout_ms = o->timeout_ms ? o->timeout_ms : TIMEOUT_MS;
    c->refresh_ms = (int64_t)(o->refresh_s ? o->refresh_s : REFRESH_S) * 1000;
    c->grace_ms = o->no_grace ? 0 : (int64_t)(o->grace_s ? o->grace_s : GRACE_S) * 1000;
    c->stale_ms = (int64_t)(o->stale_s ? o->stale_s : DAY_S) * 1000;
    c->other_hosts = o->other_hosts;
    c->loopback_http = o->loopback_http;
    return rc;
}

int cb_oidc_new(cb_oidc **out, const cb_oidc_opts *opts) {
    cb_oidc_opts o;
    uint32_t seed;
    if (!out || !opts) return cb_fail(CB_EINVAL, "cb_oidc_new: out and opts are needed");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_oidc_opts");
    if (rc == CB_OK) rc = check_opts(&o);
    if (rc < 0) return rc;
    if (gnutls_rnd(GNUTLS_RND_NONCE, &seed, sizeof seed) < 0) return cb_fail(CB_ETLS, "no random bytes");
    cb_oidc *p = cb_mem_new(heap, sizeof *p);
    if (!p) return cb_fail(CB_ENOMEM, "no memory for a provider");
    atomic_init(&p->refs, 1);
    pthread_mutex_init(&p->lock, NULL);
    p->conf.seed = seed;
    p->revocations = o.revocations ? cb_revocations_ref(o.revocations) : NULL;
    rc = set_conf(&p->conf, &o);
    if (rc == CB_OK) rc = cb_introspect_cache_new(&p->answers, o.introspect_max, o.introspect_ttl_s, o.inactive_ttl_s);
    if (rc < 0) {
        cb_oidc_unref(p);
        return rc;
    }
    *out = p;
    return CB_OK;
}

cb_oidc *cb_oidc_ref(cb_oidc *o) {
    atomic_fetch_add_explicit(&o->refs, 1, memory_order_relaxed);
    return o;
}

void cb_oidc_unref(cb_oidc *o) {
    if (!o || atomic_fetch_sub_explicit(&o->refs, 1, memory_order_acq_rel) != 1) return;
    cb_shown_end(o->shown);
    cb_oidc_stop(o);
    cb_introspect_cache_free(o->answers);
    cb_oidc_meta_unref(o->meta);
    cb_jwks_unref(o->keys);
    cb_revocations_unref(o->revocations);
    cb_jwt_signer_unref(o->conf.client_key);
    if (o->conf.client_secret) cb_mem_wipe(o->conf.client_secret, strlen(o->conf.client_secret));
    cb_mem_free(heap, o->conf.client_secret);
    cb_mem_free(heap, o->conf.client_id);
    cb_mem_free(heap, o->conf.assertion_aud);
    cb_mem_free(heap, o->conf.issuer);
    pthread_mutex_destroy(&o->lock);
    cb_mem_free(heap, o);
}

const char *cb_oidc_issuer(const cb_oidc *o) {
    return o->conf.issuer;
}

cb_jwks *cb_oidc_keys(cb_oidc *o) {
    pthread_mutex_lock(&o->lock);
    cb_jwks *keys = o->keys ? cb_jwks_ref(o->keys) : NULL;
    pthread_mutex_unlock(&o->lock);
    return keys;
}

cb_oidc_meta *cb_oidc_meta_get(cb_oidc *o) {
    pthread_mutex_lock(&o->lock);
    cb_oidc_meta *meta = o->meta ? cb_oidc_meta_ref(o->meta) : NULL;
    pthread_mutex_unlock(&o->lock);
    return meta;
}

void cb_oidc_meta_offer(cb_oidc *o, cb_oidc_meta *meta) {
    pthread_mutex_lock(&o->lock);
    if (!o->meta) o->meta = cb_oidc_meta_ref(meta);
    pthread_mutex_unlock(&o->lock);
}

void cb_oidc_miss(cb_oidc *o) {
    pthread_mutex_lock(&o->lock);
    o->misses++;
    if (o->runner && !atomic_exchange(&o->runner->missed, true)) cb_bell_ring(o->runner->bell);
    pthread_mutex_unlock(&o->lock);
}

int cb_oidc_verify(cb_oidc *o, cb_jwt_cache *cache, cb_jwt **out, cb_slice token, const cb_jwt_rules *rules,
                   const cb_jwt_facts *facts, int32_t *reason) {
    cb_jwt_rules r;
    int32_t why = CB_JWT_GOOD;
    char detail[512];
    if (!o || !out || !rules) return cb_fail(CB_EINVAL, "cb_oidc_verify: o, out and rules are needed");
    int rc = cb_opts_read(&r, sizeof r, rules, "cb_jwt_rules");
    if (rc < 0) return rc;
    if (!r.issuer && !r.any_issuer) r.issuer = o->conf.issuer;
    r.size = sizeof r;
    if (reason) *reason = CB_JWT_GOOD;
    cb_jwks *keys = cb_oidc_keys(o);
    if (!keys) {
        cb_oidc_error(o, detail, sizeof detail);
        return cb_fail(CB_EAGAIN, "there are no keys of %s%s%s", o->conf.issuer, *detail ? ": " : " yet", detail);
    }
    rc = cache ? cb_jwt_cache_verify(cache, out, token, keys, &r, facts, &why)
               : cb_jwt_verify(out, token, keys, &r, facts, &why);
    cb_jwks_unref(keys);
    if (why == CB_JWT_UNKNOWN_KEY) cb_oidc_miss(o);
    if (reason) *reason = why;
    return rc;
}

int64_t cb_oidc_endpoint(cb_oidc *o, int endpoint, char *out, size_t cap) {
    if (!o || !out || endpoint < 0 || endpoint >= CB_OIDC_ENDPOINTS)
        return cb_fail(CB_EINVAL, "cb_oidc_endpoint: endpoint %d", endpoint);
    cb_oidc_meta *meta = cb_oidc_meta_get(o);
    if (!meta) return cb_fail(CB_EAGAIN, "nothing is known of %s yet", o->conf.issuer);
    const char *url = meta->endpoints[endpoint];
    int64_t n = url ? (int64_t)strlen(url) : cb_fail(CB_ENOENT, "%s has no such endpoint", o->conf.issuer);
    if (n >= 0 && (size_t)n >= cap) n = cb_fail(CB_ELIMIT, "the URL has %zu bytes", strlen(url));
    if (n >= 0) memcpy(out, url, (size_t)n + 1);
    cb_oidc_meta_unref(meta);
    return n;
}

int cb_oidc_stats_get(cb_oidc *o, cb_oidc_stats *out) {
    cb_oidc_stats all = {0};
    if (!o) return cb_fail(CB_EINVAL, "cb_oidc_stats_get: o is needed");
    pthread_mutex_lock(&o->lock);
    all.fetches = o->fetches;
    all.failures = o->failures;
    all.rotations = o->rotations;
    all.misses = o->misses;
    all.keys = o->keys ? cb_jwks_len(o->keys) : 0;
    all.good_at_s = o->good_at_s;
    all.failed_at_s = o->failed_at_s;
    pthread_mutex_unlock(&o->lock);
    cb_introspect_cache_count(o->answers, &all);
    return cb_stats_give(out, &all, sizeof all, "cb_oidc_stats");
}

static int stats_for_metrics(void *o, void *out) {
    return cb_oidc_stats_get(o, out);
}

int cb_oidc_metrics(cb_oidc *o, cb_metrics *m, const char *name) {
    static const cb_shown_row rows[] = {
        {CB_F_OIDC_FETCHES, offsetof(cb_oidc_stats, fetches), "ok"},
        {CB_F_OIDC_FETCHES, offsetof(cb_oidc_stats, failures), "failed"},
        {CB_F_OIDC_ROTATIONS, offsetof(cb_oidc_stats, rotations), NULL},
        {CB_F_OIDC_UNKNOWN, offsetof(cb_oidc_stats, misses), NULL},
        {CB_F_OIDC_KEYS, offsetof(cb_oidc_stats, keys), NULL},
        {CB_F_OIDC_GOOD_AT, offsetof(cb_oidc_stats, good_at_s), NULL},
        {CB_F_OIDC_INTROSPECTIONS, offsetof(cb_oidc_stats, introspections), "asked"},
        {CB_F_OIDC_INTROSPECTIONS, offsetof(cb_oidc_stats, introspect_hits), "remembered"},
        {CB_F_OIDC_INTROSPECTIONS, offsetof(cb_oidc_stats, introspect_failures), "failed"},
        {CB_F_OIDC_KEPT, offsetof(cb_oidc_stats, introspect_kept), NULL}};
    static const cb_shown_what what = {rows, sizeof rows / sizeof *rows, sizeof(cb_oidc_stats), stats_for_metrics};
    if (!o) return cb_fail(CB_EINVAL, "cb_oidc_metrics: o is needed");
    return cb_shown_begin(&o->shown, m, name, &what, o);
}

size_t cb_oidc_error(cb_oidc *o, char *out, size_t cap) {
    pthread_mutex_lock(&o->lock);
    snprintf(out, cap, "%s", o->error);
    pthread_mutex_unlock(&o->lock);
    return cap ? strlen(out) : 0;
}

void cb_oidc_forget(cb_oidc *o, cb_slice token) {
    cb_introspect_cache_forget(o->answers, token);
}
