/* Decisions of an Open Policy Agent. */
#include "auth/json.h"
#include "base/error.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/opts.h"
#include "http/fetch.h"
#include "http/web.h"
#include "loop/loop_int.h"
#include "loop/turn.h"
#include <arpa/inet.h>
#include <cb/opa.h>
#include <gnutls/crypto.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { ANSWER_BYTES = 65536, EXTRA_BYTES = 65536, BODY_BYTES = 262144, KEY = 32, CACHE_MS_MAX = 60000 };
enum { CACHED_DEFAULT = 4096, CACHED_MAX = 1 << 20, CALLS_DEFAULT = 1024, TIMEOUT_DEFAULT = 250 };

/* One place a key can be at: what comes later takes it over. */
typedef struct kept {
    uint8_t key[KEY];
    cb_time until; /* 0: nothing */
    bool allowed;
} kept;

struct cb_opa {
    cb_opa_opts opts;
    char *url, *bearer;
    cb_list calls;
    kept *cache; /* NULL: none */
    cb_opa_stats stats;
};

struct cb_opa_call {
    cb_fetch fetch; /* first */
    cb_list link;
    cb_opa *opa;
    cb_buf body;
    uint8_t key[KEY];
    cb_opa_fn done;
    void *user;
    cb_time asked;
};

/* ---- the input ---- */

/* Appends a member, unless its text is not there. */
static int put(cb_buf *b, const char *name, cb_slice text) {
    char copy[1024];
    if (!text.len) return CB_OK;
    char *all = text.len < sizeof copy ? copy : cb_mem_get(&cb_alloc_libc, text.len + 1);
    if (!all) return cb_fail(CB_ENOMEM, "no memory for the input of a decision");
    memcpy(all, text.base, text.len);
    all[text.len] = '\0';
    int rc = memchr(all, 0, text.len) ? cb_fail(CB_EINVAL, "%s has a NUL", name) : cb_buf_printf(b, ",\"%s\":", name);
    if (rc == CB_OK) rc = cb_json_quote(b, all);
    if (all != copy) cb_mem_free(&cb_alloc_libc, all);
    return rc;
}

static int put_roles(cb_buf *b, const cb_policy_request *r) {
    cb_buf one;
    int rc = cb_buf_text(b, ",\"roles\":[");
    cb_buf_init(&one, &cb_alloc_libc, BODY_BYTES);
    for (size_t i = 0; rc == CB_OK && i < r->roles_len; i++) {
        one.len = 0;
        rc = put(&one, "r", r->roles[i]); /* ,"r":"role" */
        if (rc == CB_OK && one.len > 5) rc = i ? cb_buf_text(b, ",") : CB_OK;
        if (rc == CB_OK && one.len > 5) rc = cb_buf_add(b, one.base + 5, one.len - 5);
    }
    cb_buf_free(&one);
    return rc == CB_OK ? cb_buf_text(b, "]") : rc;
}

static int put_source(cb_buf *b, cb_slice source) {
    char text[INET6_ADDRSTRLEN];
    if (!source.len) return CB_OK;
    if (source.len != 4 && source.len != 16) return cb_fail(CB_EINVAL, "cb_opa_ask: source is no address");
    if (!inet_ntop(source.len == 4 ? AF_INET : AF_INET6, source.base, text, sizeof text)) return CB_EINVAL;
    return put(b, "source", cb_slice_str(text));
}

static int put_extra(cb_buf *b, cb_slice extra) {
    cb_json j = {.text = NULL};
    if (!extra.len) return CB_OK;
    if (extra.len > EXTRA_BYTES) return cb_fail(CB_EINVAL, "cb_opa_ask: extra has more than 64 KiB");
    int rc = cb_json_open(&j, extra);
    bool object = rc == 0 && j.nodes[0].kind == CB_JSON_OBJECT;
    cb_json_close(&j);
    if (rc == CB_ENOMEM) return rc;
    if (!object) return cb_fail(CB_EINVAL, "cb_opa_ask: extra is no JSON object");
    rc = cb_buf_text(b, ",\"extra\":");
    return rc < 0 ? rc : cb_buf_add(b, extra.base, extra.len);
}

static int put_input(cb_buf *b, const cb_policy_request *r, cb_slice extra) {
    const struct {
        const char *name;
        cb_slice text;
    } texts[] = {{"tenant", r->tenant}, {"subject", r->subject}, {"issuer", r->issuer}, {"spiffe_id", r->spiffe_id},
                 {"route", r->route},   {"method", r->method},   {"path", r->path},     {"target_host", r->target_host},
                 {"verb", r->verb}};
    int rc = cb_buf_printf(b, "{\"input\":{\"mtls\":%s", r->mtls ? "true" : "false");
    for (size_t i = 0; rc == CB_OK && i < sizeof texts / sizeof *texts; i++)
        rc = put(b, texts[i].name, texts[i].text);
    if (rc == CB_OK && r->target_host.len) rc = cb_buf_printf(b, ",\"target_port\":%" PRId32, r->target_port);
    if (rc == CB_OK) rc = put_roles(b, r);
    if (rc == CB_OK) rc = put_source(b, r->source);
    if (rc == CB_OK) rc = put_extra(b, extra);
    return rc;
}

/* The time is no part of what a decision is remembered by. */
static int body_of(cb_opa_call *c, const cb_policy_request *r, cb_slice extra) {
    int rc = put_input(&c->body, r, extra);
    if (rc == CB_OK && gnutls_hash_fast(GNUTLS_DIG_SHA256, c->body.base, c->body.len, c->key) < 0)
        rc = cb_fail(CB_ETLS, "no SHA-256");
    if (rc == CB_OK && r->now_s > 0) rc = cb_buf_printf(&c->body, ",\"time\":%" PRId64, r->now_s);
    if (rc == CB_OK) rc = cb_buf_text(&c->body, "}}");
    return rc == CB_ELIMIT ? cb_fail(CB_EINVAL, "cb_opa_ask: the input has more than 256 KiB") : rc;
}

/* ---- what is remembered ---- */

static kept *place_of(const cb_opa *opa, const uint8_t key[KEY]) {
    uint32_t at;
    memcpy(&at, key, sizeof at);
    return &opa->cache[at % opa->opts.max_cached];
}

static bool remembered(const cb_opa *opa, const uint8_t key[KEY], bool *allowed) {
    if (!opa->cache) return false;
    const kept *k = place_of(opa, key);
    if (k->until <= cb_loop_now(opa->opts.loop) || memcmp(k->key, key, KEY) != 0) return false;
    *allowed = k->allowed;
    return true;
}

static void remember(cb_opa *opa, const uint8_t key[KEY], bool allowed) {
    if (!opa->cache) return;
    kept *k = place_of(opa, key);
    memcpy(k->key, key, KEY);
    k->until = cb_loop_now(opa->opts.loop) + (cb_time)opa->opts.cache_ms * 1000000;
    k->allowed = allowed;
}

void cb_opa_flush(cb_opa *opa) {
    if (opa->cache) memset(opa->cache, 0, opa->opts.max_cached * sizeof *opa->cache);
}

/* ---- answers ---- */

/* enum cb_opa_reason; *allowed where that is CB_OPA_RESULT. */
static int result_of(cb_slice answer, bool *allowed) {
    cb_json j = {.text = NULL};
    int reason = CB_OPA_ANSWER;
    if (cb_json_open(&j, answer) == 0 && j.nodes[0].kind == CB_JSON_OBJECT) {
        const cb_json_node *result = cb_json_get(&j, j.nodes, "result", 6);
        if (!result) reason = CB_OPA_UNDEFINED;
        if (cb_json_is(result, CB_JSON_OBJECT)) result = cb_json_get(&j, result, "allow", 5);
        if (cb_json_is(result, CB_JSON_TRUE) || cb_json_is(result, CB_JSON_FALSE)) reason = CB_OPA_RESULT;
        *allowed = cb_json_is(result, CB_JSON_TRUE);
        if (reason == CB_OPA_ANSWER)
            (void)cb_fail(CB_EPROTO, "the agent's result is neither a boolean nor has \"allow\"");
    }
    cb_json_close(&j);
    return reason;
}

static int judge(cb_exchange *x, const cb_fetch *fetch, int rc, bool *allowed) {
    if (rc == CB_ETIMEOUT) return CB_OPA_TIMEOUT;
    if (rc < 0) return fetch->too_large ? CB_OPA_ANSWER : CB_OPA_OUTAGE;
    const int status = cb_exchange_status(x);
    if (status >= 500) (void)cb_fail(CB_EPROTO, "the agent answers with status %d", status);
    if (status >= 500) return CB_OPA_OUTAGE;
    if (status == 200 && cb_web_is_type(cb_exchange_field(x, "content-type"), "application/json"))
        return result_of(cb_buf_slice(&fetch->answer), allowed);
    (void)cb_fail(CB_EPROTO, "the agent answers with status %d, or not with JSON", status);
    return CB_OPA_ANSWER;
}

static void count(const cb_opa *opa, int reason, bool allowed, bool open) {
    const cb_cells *cells = cb_loop_cells(opa->opts.loop);
    const enum cb_cell_id cell = reason == CB_OPA_TIMEOUT     ? CB_C_OPA_DECISIONS_TIMEOUT
                                 : reason == CB_OPA_OUTAGE    ? CB_C_OPA_DECISIONS_OUTAGE
                                 : reason == CB_OPA_ANSWER    ? CB_C_OPA_DECISIONS_SENSELESS
                                 : reason == CB_OPA_UNDEFINED ? CB_C_OPA_DECISIONS_UNDEFINED
                                 : allowed                    ? CB_C_OPA_DECISIONS_ALLOWED
                                                              : CB_C_OPA_DECISIONS_DENIED;
    cb_cells_add(cells, cell, 1);
    if (open) cb_cells_add(cells, CB_C_OPA_OPEN, 1);
}

static cb_opa_decision decide(cb_opa *opa, int reason, bool allowed) {
    const bool outage = reason == CB_OPA_TIMEOUT || reason == CB_OPA_OUTAGE;
    if (outage) allowed = opa->opts.fail_open != 0;
    count(opa, reason, allowed, outage && allowed);
    opa->stats.outages += outage;
    opa->stats.senseless += reason == CB_OPA_ANSWER;
    *(allowed ? &opa->stats.allowed : &opa->stats.denied) += 1;
    return (cb_opa_decision){.size = sizeof(cb_opa_decision), .allowed = allowed, .reason = reason};
}

static void call_free(cb_opa_call *c) {
    cb_list_del(&c->link);
    cb_fetch_free(&c->fetch);
    cb_buf_free(&c->body);
    cb_mem_free(&cb_alloc_libc, c);
}

static void on_answer(cb_fetch *fetch, cb_exchange *x, int rc) {
    cb_opa_call *c = (cb_opa_call *)(void *)fetch;
    cb_opa *opa = c->opa;
    const cb_opa_fn done = c->done;
    void *user = c->user;
    bool allowed = false;
    const int reason = judge(x, fetch, rc, &allowed);
    const cb_opa_decision d = decide(opa, reason, allowed);
    if (reason == CB_OPA_RESULT) remember(opa, c->key, allowed);
    opa->stats.calls--;
    cb_cells_observe(cb_loop_cells(opa->opts.loop), CB_C_OPA_SECONDS, cb_loop_now(opa->opts.loop) - c->asked);
    call_free(c);
    done(&d, d.allowed ? CB_OK : CB_EAUTH, user); /* opa may be gone */
}

/* ---- asking ---- */

static int at_once(cb_opa_decision d, cb_opa_decision *now) {
    int rc = now ? cb_stats_give(now, &d, sizeof d, "cb_opa_decision") : CB_OK;
    return rc < 0 ? rc : d.allowed ? CB_OK : CB_EAUTH;
}

static int send_call(cb_opa_call *c) {
    const cb_opa *opa = c->opa;
    const cb_field token = {cb_slice_str("authorization"), cb_slice_str(opa->bearer ? opa->bearer : "")};
    if (opa->stats.calls >= opa->opts.max_calls)
        return cb_fail(CB_ELIMIT, "%" PRIu32 " decisions wait already", opa->opts.max_calls);
    return cb_fetch_start(&c->fetch, opa->opts.client,
                          &(cb_fetch_request){.method = "POST",
                                              .url = opa->url,
                                              .accept = "application/json",
                                              .content_type = "application/json",
                                              .body = cb_buf_slice(&c->body),
                                              .fields = &token,
                                              .n_fields = opa->bearer != NULL,
                                              .timeout_ms = opa->opts.timeout_ms});
}

int cb_opa_ask(cb_opa *opa, const cb_policy_request *request, cb_slice extra, cb_opa_decision *now, cb_opa_call **call,
               cb_opa_fn done, void *user) {
    cb_policy_request r;
    bool allowed = false;
    if (!opa || !request || !done)
        return cb_fail(CB_EINVAL, "cb_opa_ask: %s is NULL", !opa ? "opa" : request ? "done" : "request");
    int rc = cb_opts_read(&r, sizeof r, request, "cb_policy_request");
    if (rc < 0) return rc;
    if (!r.tenant.len) return at_once(decide(opa, CB_OPA_UNDEFINED, false), now);
    cb_opa_call *c = cb_mem_new(&cb_alloc_libc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for a decision");
    cb_list_init(&c->link);
    cb_buf_init(&c->body, &cb_alloc_libc, BODY_BYTES);
    cb_fetch_init(&c->fetch, ANSWER_BYTES, on_answer);
    c->opa = opa;
    c->done = done;
    c->user = user;
    rc = body_of(c, &r, extra);
    if (rc == CB_OK && remembered(opa, c->key, &allowed)) {
        opa->stats.cached++;
        cb_cells_add(cb_loop_cells(opa->opts.loop), CB_C_OPA_CACHED, 1);
        call_free(c);
        cb_opa_decision d = decide(opa, CB_OPA_RESULT, allowed);
        d.cached = 1;
        return at_once(d, now);
    }
    if (rc < 0) {
        call_free(c);
        return rc;
    }
    opa->stats.asked++;
    if (send_call(c) < 0) {
        call_free(c);
        return at_once(decide(opa, CB_OPA_OUTAGE, false), now);
    }
    opa->stats.calls++;
    c->asked = cb_loop_now(opa->opts.loop);
    cb_list_add_tail(&opa->calls, &c->link);
    if (call) *call = c;
    return CB_EAGAIN;
}

void cb_opa_cancel(cb_opa_call *c) {
    c->opa->stats.calls--;
    call_free(c);
}

/* ---- life ---- */

static int check(cb_opa_opts *o, const cb_opa_opts *opts) {
    int rc = cb_opts_read(o, sizeof *o, opts, "cb_opa_opts");
    if (rc < 0) return rc;
    if (!o->loop || !o->client || !o->url)
        return cb_fail(CB_EINVAL, "cb_opa_opts: %s is missing", !o->loop ? "loop" : o->client ? "url" : "client");
    if (strncmp(o->url, "http://", 7) != 0 && strncmp(o->url, "https://", 8) != 0)
        return cb_fail(CB_EINVAL, "cb_opa_opts: url must begin with \"http://\" or \"https://\"");
    if (o->cache_ms > CACHE_MS_MAX) return cb_fail(CB_EINVAL, "cb_opa_opts: cache_ms is more than 60,000");
    if (o->max_cached > CACHED_MAX) return cb_fail(CB_EINVAL, "cb_opa_opts: max_cached is more than 1,048,576");
    if (!o->max_cached) o->max_cached = CACHED_DEFAULT;
    if (!o->max_calls) o->max_calls = CALLS_DEFAULT;
    if (!o->timeout_ms) o->timeout_ms = TIMEOUT_DEFAULT;
    return CB_OK;
}

int cb_opa_new(cb_opa **out, const cb_opa_opts *opts) {
    cb_opa_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_opa_new: out is NULL");
    int rc = check(&o, opts);
    if (rc < 0) return rc;
    cb_opa *opa = cb_mem_new(&cb_alloc_libc, sizeof *opa);
    if (!opa) return cb_fail(CB_ENOMEM, "no memory for an agent");
    opa->opts = o;
    cb_list_init(&opa->calls);
    opa->url = cb_mem_text(&cb_alloc_libc, o.url);
    if (o.cache_ms) opa->cache = cb_mem_new(&cb_alloc_libc, o.max_cached * sizeof *opa->cache);
    if (o.token) {
        const size_t n = strlen(o.token) + sizeof "Bearer ";
        opa->bearer = cb_mem_get(&cb_alloc_libc, n);
        if (opa->bearer) snprintf(opa->bearer, n, "Bearer %s", o.token);
    }
    if (!opa->url || (o.cache_ms && !opa->cache) || (o.token && !opa->bearer)) {
        cb_opa_free(opa);
        return cb_fail(CB_ENOMEM, "no memory for an agent");
    }
    *out = opa;
    return CB_OK;
}

void cb_opa_free(cb_opa *opa) {
    if (!opa) return;
    while (!cb_list_empty(&opa->calls))
        call_free(CB_CONTAINER(opa->calls.next, cb_opa_call, link));
    if (opa->bearer) cb_mem_wipe(opa->bearer, strlen(opa->bearer));
    cb_mem_free(&cb_alloc_libc, opa->bearer);
    cb_mem_free(&cb_alloc_libc, opa->cache);
    cb_mem_free(&cb_alloc_libc, opa->url);
    cb_mem_free(&cb_alloc_libc, opa);
}

int cb_opa_stats_get(const cb_opa *opa, cb_opa_stats *out) {
    return cb_stats_give(out, &opa->stats, sizeof opa->stats, "cb_opa_stats");
}

const char *cb_opa_reason_text(int reason) {
    static const char *const names[] = {"", "result", "undefined", "answer", "timeout", "outage"};
    return reason > 0 && (size_t)reason < sizeof names / sizeof *names ? names[reason] : "";
}
