/* origin_demo - an origin to try an edge with.
 *   origin_demo LISTEN [CERT KEY]
 * Paths: / a page · /large?BYTES · /echo the request's body · /headers its head · /slow?MILLISECONDS ·
 * /fail a 500 · /drop ends in mid-body */
#include <cb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct job {
    uint64_t left; /* of a large body */
    cb_exchange *x;
    cb_timer *timer;
};

static cb_field field(const char *name, const char *value) {
    return (cb_field){cb_slice_str(name), cb_slice_str(value)};
}

static void job_over(cb_exchange *x, int rc, void *user) {
    struct job *job = user;
    (void)x;
    (void)rc;
    cb_timer_free(job->timer);
    free(job);
}

/* ---- /large and /drop ---- */
static int pump(cb_exchange *x, void *user) {
    static uint8_t block[65536];
    struct job *job = user;
    memset(block, 'x', sizeof block);
    while (job->left) {
        int64_t n = cb_exchange_write(x, (cb_slice){block, job->left < sizeof block ? job->left : sizeof block});
        if (n < 0) return n == CB_EAGAIN ? CB_OK : (int)n;
        job->left -= (uint64_t)n;
    }
    return cb_exchange_finish(x); /* of /drop this fails: fewer bytes than declared */
}

static int large(cb_exchange *x, struct job *job, uint64_t bytes, uint64_t declared) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_writable = pump, .on_close = job_over};
    char length[32];
    snprintf(length, sizeof length, "%llu", (unsigned long long)declared);
    const cb_field fields[] = {field("content-type", "application/octet-stream"), field("content-length", length)};
    job->left = bytes;
    cb_exchange_handle(x, &ops, job);
    int rc = cb_exchange_reply(x, 200, fields, 2);
    return rc < 0 ? rc : pump(x, job);
}

/* ---- /echo: what does not fit back is not taken ---- */
static int64_t echo_body(cb_exchange *x, cb_slice data, void *user) {
    (void)user;
    int64_t n = cb_exchange_write(x, data);
    return n == CB_EAGAIN ? 0 : n;
}
static int echo_more(cb_exchange *x, void *user) {
    (void)user;
    cb_exchange_resume(x);
    return CB_OK;
}
static int echo_end(cb_exchange *x, void *user) {
    (void)user;
    return cb_exchange_finish(x);
}

/* ---- /slow ---- */
static void wake_up(cb_loop *loop, void *user) {
    (void)loop;
    cb_exchange_send_text(((struct job *)user)->x, 200, "slow, and there\n");
}

static int headers(cb_exchange *x) {
    char text[16384];
    size_t n = 0, used = 0;
    const cb_field *f = cb_exchange_fields(x, &n);
    cb_slice method = cb_exchange_method(x), path = cb_exchange_path(x), host = cb_exchange_authority(x);
    used += (size_t)snprintf(text, sizeof text, "%.*s %.*s from %s, for %.*s\n", (int)method.len,
                             (const char *)method.base, (int)path.len, (const char *)path.base, cb_exchange_remote(x),
                             (int)host.len, (const char *)host.base);
    for (size_t i = 0; i < n && used + f[i].name.len + f[i].value.len + 4 < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%.*s: %.*s\n", (int)f[i].name.len,
                                 (const char *)f[i].name.base, (int)f[i].value.len, (const char *)f[i].value.base);
    return cb_exchange_send_text(x, 200, text);
}

static int on_head(cb_exchange *x, void *user) {
    static const cb_exchange_ops echo = {
        .size = sizeof echo, .on_body = echo_body, .on_writable = echo_more, .on_end = echo_end};
    static const cb_exchange_ops slow = {.size = sizeof slow, .on_close = job_over};
    static const char page[] = "<!doctype html><title>origin</title><h1>It works</h1>\n<p>This page came from the "
                               "origin: <a href=/headers>what it was asked</a>.\n";
    char path[256];
    cb_slice p = cb_exchange_path(x);
    (void)user;
    snprintf(path, sizeof path, "%.*s", (int)p.len, (const char *)p.base);
    char *query = strchr(path, '?');
    if (query) *query++ = '\0';
    const uint64_t number = query ? strtoull(query, NULL, 10) : 0;

    if (strcmp(path, "/") == 0) {
        const cb_field html = field("content-type", "text/html; charset=utf-8");
        return cb_exchange_send(x, 200, &html, 1, cb_slice_str(page));
    }
    if (strcmp(path, "/headers") == 0) return headers(x);
    if (strcmp(path, "/fail") == 0) return cb_exchange_send_text(x, 500, "the origin failed, as asked\n");
    if (strcmp(path, "/echo") == 0) {
        cb_exchange_handle(x, &echo, NULL);
        return cb_exchange_reply(x, 200, NULL, 0);
    }
    const int is_large = strcmp(path, "/large") == 0, is_drop = strcmp(path, "/drop") == 0;
    if (!is_large && !is_drop && strcmp(path, "/slow") != 0) return cb_exchange_send_text(x, 404, "no such path\n");
    struct job *job = calloc(1, sizeof *job);
    if (!job) return cb_exchange_send_text(x, 503, "out of memory\n");
    if (is_large) return large(x, job, number, number);
    if (is_drop) return large(x, job, 100000, 1000000);
    job->x = x;
    cb_exchange_handle(x, &slow, job);
    return cb_timer_start(&job->timer, cb_exchange_loop(x), number ? number : 1000, 0, wake_up, job);
}

static void quit(cb_loop *loop, void *server) {
    (void)loop;
    cb_http_server_drain(server, 2000);
}

int main(int argc, char **argv) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = on_head};
    cb_loop *loop = NULL;
    cb_identity *me = NULL;
    cb_http_server *server = NULL;
    if (argc != 2 && argc != 4) {
        fprintf(stderr, "usage: origin_demo LISTEN [CERT KEY]\n");
        return 2;
    }
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK && argc == 4)
        rc = cb_identity_new(&me, CB_OPTS(cb_identity_opts, .cert_file = argv[2], .key_file = argv[3]));
    if (rc == CB_OK)
        rc = cb_http_server_new(&server, loop,
                                CB_OPTS(cb_http_server_opts, .listen = argv[1], .identity = me, .ops = &ops));
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, server);
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGINT, quit, server);
    if (rc == CB_OK) printf("origin on %s\n", cb_http_server_address(server)), fflush(stdout);
    if (rc == CB_OK) rc = cb_loop_run(loop);
    if (rc < 0) fprintf(stderr, "origin_demo: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_http_server_free(server);
    cb_identity_unref(me);
    cb_loop_free(loop);
    return rc < 0;
}
