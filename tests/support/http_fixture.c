#include "support/http_fixture.h"
#include "http/fields.h"
#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const http_way http_ways[5] = {{"h1", CB_HTTP_1, false},
                               {"h2c", CB_HTTP_2, false},
                               {"h1 TLS", CB_HTTP_1, true},
                               {"h2 TLS", CB_HTTP_2, true},
                               {"h3", CB_HTTP_3, true}};

/* ---- the server ---- */

struct work {
    http_world *world;
    uint64_t left;
    bool cut;
};

uint32_t http_sum(uint32_t sum, const uint8_t *data, size_t len) {
    for (size_t i = 0; i < len; i++)
        sum = sum * 31 + data[i];
    return sum;
}

static void served(cb_exchange *x, int rc, void *user) {
    http_world *w = user;
    w->closes++;
    w->last_rc = rc;
    if (w->later == x) w->later = NULL;
}

static int pump(cb_exchange *x, void *user) {
    struct work *job = user;
    static uint8_t block[16384];
    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (uint8_t)(i * 7);
    while (job->left) {
        int64_t n = cb_exchange_write(x, (cb_slice){block, job->left < sizeof block ? job->left : sizeof block});
        if (n < 0) return n == CB_EAGAIN ? CB_OK : (int)n;
        job->left -= (uint64_t)n;
    }
    if (!job->cut) return cb_exchange_finish(x);
    cb_exchange_reset(x, CB_RESET_INTERNAL);
    return CB_OK;
}

static void pumped(cb_exchange *x, int rc, void *user) {
    struct work *job = user;
    served(x, rc, job->world);
    free(job);
}

static int64_t echo(cb_exchange *x, cb_slice data, void *user) {
    (void)user;
    int64_t n = cb_exchange_write(x, data);
    return n == CB_EAGAIN ? 0 : n;
}

static int echo_on(cb_exchange *x, void *user) {
    (void)user;
    cb_exchange_resume(x);
    return CB_OK;
}

static int echo_end(cb_exchange *x, void *user) {
    (void)user;
    return cb_exchange_finish(x);
}

static int head_text(cb_exchange *x) {
    char text[4096];
    size_t n = 0;
    const cb_field *f = cb_exchange_fields(x, &n);
    cb_slice m = cb_exchange_method(x), a = cb_exchange_authority(x), p = cb_exchange_path(x);
    int used =
        snprintf(text, sizeof text, "method=%.*s authority=%.*s path=%.*s sni=%s secure=%d early=%d remote=%s\n",
                 (int)m.len, (const char *)m.base, (int)a.len, (const char *)a.base, (int)p.len, (const char *)p.base,
                 cb_exchange_sni(x), cb_exchange_is_secure(x), cb_exchange_is_early(x), cb_exchange_remote(x));
    for (size_t i = 0; i < n && used < 3500; i++)
        used += snprintf(text + used, sizeof text - (size_t)used, "%.*s: %.*s\n", (int)f[i].name.len,
                         (const char *)f[i].name.base, (int)f[i].value.len, (const char *)f[i].value.base);
    return cb_exchange_send_text(x, 200, text);
}

static int on_head(cb_exchange *x, void *user) {
    static const cb_exchange_ops echo_ops = {
        .size = sizeof echo_ops, .on_body = echo, .on_writable = echo_on, .on_end = echo_end, .on_close = served};
    static const cb_exchange_ops pump_ops = {.size = sizeof pump_ops, .on_writable = pump, .on_close = pumped};
    http_world *w = user;
    cb_slice p = cb_exchange_path(x);
    char path[256];
    snprintf(path, sizeof path, "%.*s", (int)p.len, (const char *)p.base);
    w->heads++;
    if (strcmp(path, "/hello") == 0) return cb_exchange_send_text(x, 200, "hello\n");
    if (strcmp(path, "/head") == 0) return head_text(x);
    if (strcmp(path, "/never") == 0) return CB_OK;
    if (strcmp(path, "/later") == 0) {
        w->later = x;
        return CB_OK;
    }
    if (strcmp(path, "/free") == 0) {
        cb_http_server *s = w->server;
        w->server = NULL;
        cb_http_server_free(s);
        return CB_OK;
    }
    if (strcmp(path, "/echo") == 0) {
        cb_exchange_handle(x, &echo_ops, w);
        return cb_exchange_reply(x, 200, NULL, 0);
    }
    const bool cut = strncmp(path, "/cut?", 5) == 0;
    if (!cut && strncmp(path, "/big?", 5) != 0) return cb_exchange_send_text(x, 404, "no such path\n");
    struct work *job = calloc(1, sizeof *job);
    job->world = w;
    job->left = strtoull(path + 5, NULL, 10);
    job->cut = cut;
    char length[32];
    snprintf(length, sizeof length, "%llu", (unsigned long long)job->left + cut);
    const cb_field f = {cb_slice_str("content-length"), cb_slice_str(length)};
    cb_exchange_handle(x, &pump_ops, job);
    int rc = cb_exchange_reply(x, 200, &f, 1);
    return rc < 0 ? rc : pump(x, job);
}

void http_answer_later(http_world *w) {
    cr_assert(w->later, "nobody waits for a later answer");
    cr_assert_eq(cb_exchange_send_text(w->later, 200, "later\n"), CB_OK, "answer: %s", cb_last_error());
}

static void take_log(int level, const char *module, const char *text, void *user) {
    http_world *w = user;
    size_t used = strlen(w->log);
    snprintf(w->log + used, sizeof w->log - used, "%d %s: %s\n", level, module, text);
}

void http_world_open(http_world *w) {
    memset(w, 0, sizeof *w);
    w->hook = (cb_log){.write = take_log, .user = w, .level = CB_LOG_DEBUG};
    cr_assert_eq(cb_metrics_new(&w->metrics, NULL), CB_OK);
    const cb_loop_opts o = {.size = sizeof o, .log = &w->hook, .metrics = w->metrics};
    cr_assert_eq(cb_loop_new(&w->loop, &o), CB_OK, "loop");
    tls_pki_make(&w->pki);
    w->me = tls_pki_identity(&w->pki, "localhost,127.0.0.1,a.test,b.test");
    w->roots = tls_pki_client(&w->pki);
}

void http_serve(http_world *w, cb_http_server_opts o) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = on_head, .on_close = served};
    o.size = sizeof o;
    if (!o.listen) o.listen = "127.0.0.1:0";
    if (!o.ops) o.ops = &ops;
    w->ops = o.ops;
    if (!o.user) o.user = w;
    cr_assert_eq(cb_http_server_new(&w->server, w->loop, &o), CB_OK, "server: %s", cb_last_error());
    snprintf(w->url, sizeof w->url, "%s://%s%s", o.identity ? "https" : "http", "localhost",
             strrchr(cb_http_server_address(w->server), ':'));
}

void http_client_make(http_world *w, cb_http_client_opts o) {
    o.size = sizeof o;
    if (!o.identity) o.identity = w->roots;
    cr_assert_eq(cb_http_client_new(&w->client, w->loop, &o), CB_OK, "client: %s", cb_last_error());
}

void http_world_close(http_world *w) {
    cb_http_client_free(w->client);
    cb_http_server_free(w->server);
    for (int i = 0; i < 200 && cb_loop_alive(w->loop); i++) { /* alerts of failed handshakes linger */
        struct pollfd p = {.fd = cb_loop_fd(w->loop), .events = POLLIN};
        poll(&p, 1, 1);
        cb_loop_step(w->loop);
    }
    cb_identity_unref(w->me);
    cb_identity_unref(w->roots);
    cb_loop_free(w->loop);
    cb_metrics_unref(w->metrics);
    tls_pki_drop(&w->pki);
}

/* ---- the client ---- */

const char *http_url(const http_world *w, const char *path, char out[160]) {
    snprintf(out, 160, "%s%s", path[0] == '/' ? w->url : "", path);
    return out;
}

static int got_head(cb_exchange *x, void *user) {
    http_reply *r = user;
    size_t n = 0, used = 0;
    const cb_field *f = cb_exchange_fields(x, &n);
    r->heads++;
    r->status = cb_exchange_status(x);
    r->version = cb_exchange_version(x);
    for (size_t i = 0; i < n && used < sizeof r->head - 200; i++)
        used += (size_t)snprintf(r->head + used, sizeof r->head - used, "%.*s: %.*s\n", (int)f[i].name.len,
                                 (const char *)f[i].name.base, f[i].value.len < 100 ? (int)f[i].value.len : 100,
                                 (const char *)f[i].value.base);
    return CB_OK;
}

static int got_info(cb_exchange *x, int status, void *user) {
    (void)x;
    (void)status;
    ((http_reply *)user)->infos++;
    return CB_OK;
}

static int64_t got_body(cb_exchange *x, cb_slice data, void *user) {
    (void)x;
    http_reply *r = user;
    r->sum = http_sum(r->sum, data.base, data.len);
    for (size_t i = 0; i < data.len && r->bytes + i + 1 < sizeof r->body; i++)
        r->body[r->bytes + i] = (char)data.base[i];
    r->bytes += data.len;
    return (int64_t)data.len;
}

static int got_end(cb_exchange *x, void *user) {
    (void)x;
    ((http_reply *)user)->ends++;
    return CB_OK;
}

static int push(cb_exchange *x, void *user) {
    http_reply *r = user;
    while (r->sent < r->send_len) {
        int64_t n = cb_exchange_write(x, (cb_slice){r->send + r->sent, r->send_len - r->sent});
        if (n < 0) return n == CB_EAGAIN ? CB_OK : (int)n;
        r->sent += (size_t)n;
    }
    return cb_exchange_finish(x);
}

static void got_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    http_reply *r = user;
    r->closes++;
    r->rc = rc;
    r->x = NULL;
    if (rc < 0) snprintf(r->detail, sizeof r->detail, "%s", cb_last_error());
}

static const cb_exchange_ops client_ops = {.size = sizeof client_ops,
                                           .on_head = got_head,
                                           .on_info = got_info,
                                           .on_body = got_body,
                                           .on_end = got_end,
                                           .on_writable = push,
                                           .on_close = got_close};

int http_begin(http_reply *r, http_world *w, cb_request req, const char *path) {
    char url[160];
    r->world = w;
    req.size = sizeof req;
    req.url = http_url(w, path, url);
    if (r->send) {
        req.has_body = 1;
        if (!req.method) req.method = "POST";
    }
    int rc = cb_http_request(&r->x, w->client, &req, &client_ops, r);
    if (rc < 0) {
        r->rc = rc;
        snprintf(r->detail, sizeof r->detail, "%s", cb_last_error());
        return rc;
    }
    return r->send ? push(r->x, r) : CB_OK;
}

void http_run(http_world *w, const int *until_not_zero) {
    cb_time began = 0;
    struct pollfd p = {.fd = cb_loop_fd(w->loop), .events = POLLIN};
    while (!*until_not_zero) {
        int64_t ms = cb_loop_timeout_ms(w->loop);
        if (ms) poll(&p, 1, ms < 0 || ms > 1000 ? 1000 : (int)ms);
        cr_assert_eq(cb_loop_step(w->loop), CB_OK, "step");
        if (!began) began = cb_loop_now(w->loop);
        cr_assert_lt(cb_loop_now(w->loop) - began, 60 * CB_SEC, "nothing happened for a minute; log:\n%s", w->log);
    }
}

void http_fetch(http_reply *r, http_world *w, cb_request req, const char *path) {
    if (http_begin(r, w, req, path) == CB_OK) http_run(w, &r->closes);
}
