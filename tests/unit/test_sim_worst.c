/* Everything that QUIC and HTTP/3 do, over links at their worst: it completes, intact, in bounded time and memory, or
 * ends with the error that says what happened. */
#include "base/mem.h"
#include "support/sim_fixture.h"
#include "support/tls_fixture.h"
#include <cb/http.h>
#include <cb/quic.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STREAMS_MAX = 64, MEMORY_MAX = 12 << 20, LIMIT_S = 900 };

/* ---- the links ---- */

#define LINE .size = sizeof(cb_sim_link_opts), .rate_bps = 10000000, .delay_us = 10000

static const struct {
    const char *name;
    cb_sim_link_opts o;
} links[] = {
    {"clean", {LINE}},
    {"half is lost", {LINE, .loss = 0.5}},
    {"a fifth is damaged", {LINE, .corrupt = 0.2, .corrupt_bits = 3}},
    {"doubled and reordered", {LINE, .duplicate = 0.5, .reorder = 0.5, .reorder_us = 30000}},
    {"losses in bursts", {LINE, .burst_enter = 0.1, .burst_leave = 0.4}},
    {"everything",
     {LINE, .loss = 0.25, .corrupt = 0.1, .duplicate = 0.2, .reorder = 0.3, .reorder_us = 50000, .jitter_us = 20000}},
    {"a shallow buffer", {LINE, .buffer_bytes = 4000, .loss = 0.05}},
};
enum { LINKS = sizeof links / sizeof links[0], EVERYTHING = 5 };

/* ---- memory ---- */

typedef struct meter {
    size_t now, most;
} meter;

static void *metered(void *p, size_t size, void *user) {
    meter *m = user;
    size_t *block = p ? (size_t *)p - 2 : NULL; /* 16 bytes, so that alignment stays */
    if (block) m->now -= *block;
    if (size == 0) {
        free(block);
        return NULL;
    }
    block = realloc(block, size + 16);
    cr_assert_not_null(block);
    *block = size;
    m->now += size;
    if (m->now > m->most) m->most = m->now;
    return block + 2;
}

/* ---- a world ---- */

typedef struct world {
    meter meter;
    cb_sim *sim;
    cb_sim_host *client_host, *server_host;
    cb_sim_nat *nat;
    cb_sim_link *there, *back;
} world;

typedef struct keys {
    tls_pki pki;
    cb_identity *server, *client;
} keys;

static void keys_make(keys *k) {
    tls_pki_make_of(&k->pki, CB_KEY_ED25519);
    k->server = tls_pki_identity(&k->pki, "server");
    k->client = tls_pki_client(&k->pki);
}

static void keys_drop(keys *k) {
    cb_identity_unref(k->server);
    cb_identity_unref(k->client);
    tls_pki_drop(&k->pki);
}

static void world_make(world *w, uint64_t seed, const cb_sim_link_opts *o) {
    const cb_alloc alloc = {metered, &w->meter};
    int rc = cb_sim_new(&w->sim, CB_OPTS(cb_sim_opts, .seed = seed, .alloc = &alloc));
    if (rc == CB_OK) rc = cb_sim_host_new(&w->client_host, w->sim, "client", "192.168.1.2");
    if (rc == CB_OK) rc = cb_sim_host_new(&w->server_host, w->sim, "server", "10.0.0.2");
    if (rc == CB_OK) rc = cb_sim_connect(w->client_host, w->server_host, o, NULL, &w->there, &w->back);
    if (rc == CB_OK) rc = cb_sim_nat_new(&w->nat, w->client_host, CB_OPTS(cb_sim_nat_opts, .address = "203.0.113.1"));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

static void world_drop(world *w, const char *where) {
    cb_sim_free(w->sim);
    cr_assert_eq(w->meter.now, 0, "%s: %zu bytes are left", where, w->meter.now);
    cr_assert_lt(w->meter.most, (size_t)MEMORY_MAX, "%s: %zu bytes at the most", where, w->meter.most);
}

/* ---- QUIC ---- */

typedef struct scenario {
    const char *name;
    int streams;
    uint64_t bytes; /* of each; they come back */
    int datagrams;
    bool migrate, rebind, key_update, again, early, retry;
} scenario;

static const scenario scenarios[] = {
    {.name = "handshake"},
    {.name = "small request", .streams = 1, .bytes = 200},
    {.name = "transfer", .streams = 1, .bytes = 60000},
    {.name = "many streams", .streams = 50, .bytes = 1500},
    {.name = "datagrams", .streams = 1, .bytes = 100, .datagrams = 50},
    {.name = "migration", .streams = 1, .bytes = 60000, .migrate = true},
    {.name = "rebinding", .streams = 1, .bytes = 60000, .rebind = true},
    {.name = "key update", .streams = 1, .bytes = 60000, .key_update = true},
    {.name = "resumption", .streams = 1, .bytes = 2000, .again = true},
    {.name = "early data", .streams = 1, .bytes = 2000, .again = true, .early = true},
    {.name = "retry", .streams = 1, .bytes = 2000, .retry = true},
};
enum { SCENARIOS = sizeof scenarios / sizeof scenarios[0] };

typedef struct story {
    world w;
    const scenario *s;
    cb_quic_endpoint *client, *server;
    cb_quic_conn *conn, *peer;
    bool stalled;
    int shaken, closed, server_shaken, server_closed, close_rc, finished, datagrams, done_moves;
    char detail[256];
    uint64_t sent[STREAMS_MAX], got[STREAMS_MAX], wrong, total;
} story;

static uint8_t pattern(int64_t stream, uint64_t at) {
    return (uint8_t)((at + (uint64_t)stream * 7919) * 2654435761u >> 11);
}

static void pump(story *t, int64_t stream) {
    uint8_t piece[4096];
    uint64_t *sent = &t->sent[stream / 4];
    while (t->conn && *sent < t->s->bytes) {
        size_t n = t->s->bytes - *sent < sizeof piece ? (size_t)(t->s->bytes - *sent) : sizeof piece;
        for (size_t i = 0; i < n; i++)
            piece[i] = pattern(stream, *sent + i);
        int64_t rc = cb_quic_stream_write(t->conn, stream, (cb_slice){piece, n}, *sent + n == t->s->bytes);
        if (rc <= 0) return;
        *sent += (uint64_t)rc;
    }
}

static void start(story *t) {
    memset(t->sent, 0, sizeof t->sent);
    memset(t->got, 0, sizeof t->got);
    t->finished = 0;
    t->total = 0;
    for (int i = 0; i < t->s->streams; i++) {
        int64_t stream;
        int rc = cb_quic_stream_open(t->conn, 1, &stream);
        cr_assert_eq(rc, CB_OK, "%s: stream %d: %s", t->s->name, i, cb_strerror(rc));
        pump(t, stream);
    }
}

static int on_client_handshake(cb_quic_conn *c, void *user) {
    story *t = user;
    (void)c;
    t->shaken++;
    return CB_OK;
}

/* Something happens to the path each time another fifth has come back. */
static void disturb(story *t) {
    const scenario *s = t->s;
    if (t->total < s->bytes * (uint64_t)(t->done_moves + 1) / 5 || t->done_moves == 4) return;
    int rc = CB_OK;
    if (s->rebind) rc = cb_sim_nat_rebind(t->w.nat, t->done_moves % 2 ? "203.0.113.1" : "203.0.113.2");
    /* By one side only: when both update and lose acknowledgements, ngtcp2 1.11 lets them run out of step. */
    if (s->key_update) rc = cb_quic_conn_key_update(t->conn);
    if (rc == CB_OK) t->done_moves++;
}

static int64_t on_client_data(cb_quic_conn *c, int64_t stream, cb_slice data, int fin, void *user) {
    story *t = user;
    (void)c;
    for (size_t i = 0; i < data.len; i++)
        t->wrong += data.base[i] != pattern(stream, t->got[stream / 4] + i);
    t->got[stream / 4] += data.len;
    t->total += data.len;
    t->finished += fin != 0;
    if (t->s->rebind || t->s->key_update) disturb(t);
    return (int64_t)data.len;
}

static int on_client_writable(cb_quic_conn *c, int64_t stream, void *user) {
    (void)c;
    pump(user, stream);
    return CB_OK;
}

static int on_client_datagram(cb_quic_conn *c, cb_slice data, void *user) {
    story *t = user;
    (void)c;
    t->datagrams++;
    t->wrong += data.len != 100 || data.base[0] != 'd';
    return CB_OK;
}

static void on_client_close(cb_quic_conn *c, int rc, void *user) {
    story *t = user;
    t->closed++;
    t->close_rc = rc;
    snprintf(t->detail, sizeof t->detail, "%s: %s", cb_strerror(rc), rc < 0 ? cb_last_error() : "");
    if (t->conn == c) t->conn = NULL;
}

static int on_server_handshake(cb_quic_conn *c, void *user) {
    ((story *)user)->peer = c;
    ((story *)user)->server_shaken++;
    return CB_OK;
}

static int64_t on_server_data(cb_quic_conn *c, int64_t stream, cb_slice data, int fin, void *user) {
    (void)user;
    int64_t n = cb_quic_stream_write(c, stream, data, fin);
    return n == CB_EAGAIN ? 0 : n;
}

static int on_server_writable(cb_quic_conn *c, int64_t stream, void *user) {
    (void)user;
    cb_quic_stream_resume(c, stream);
    return CB_OK;
}

static int on_server_datagram(cb_quic_conn *c, cb_slice data, void *user) {
    (void)user;
    (void)cb_quic_datagram_send(c, data);
    return CB_OK;
}

static void on_server_close(cb_quic_conn *c, int rc, void *user) {
    story *t = user;
    (void)rc;
    t->server_closed++;
    if (t->peer == c) t->peer = NULL;
}

static const cb_quic_conn_ops client_ops = {.size = sizeof client_ops,
                                            .on_handshake = on_client_handshake,
                                            .on_stream_data = on_client_data,
                                            .on_stream_writable = on_client_writable,
                                            .on_datagram = on_client_datagram,
                                            .on_close = on_client_close};
static const cb_quic_conn_ops server_ops = {.size = sizeof server_ops,
                                            .on_handshake = on_server_handshake,
                                            .on_stream_data = on_server_data,
                                            .on_stream_writable = on_server_writable,
                                            .on_datagram = on_server_datagram,
                                            .on_close = on_server_close};

static void open_ends(story *t, const keys *k) {
    cb_quic_opts so = {.size = sizeof so,
                       .alpn = "worst",
                       .identity = k->server,
                       .idle_timeout_ms = 300000,
                       .handshake_timeout_ms = 200000,
                       .max_datagram_bytes = 1200,
                       .early_data = t->s->early,
                       .retry = t->s->retry ? 1 : 0,
                       .ops = &server_ops,
                       .user = t};
    cb_quic_opts co = so;
    co.identity = k->client;
    co.keep_alive_ms = 2000; /* who only receives would never tell the server of its new address */
    co.ops = &client_ops;
    int rc = cb_quic_listen(&t->server, cb_sim_host_loop(t->w.server_host), ":443", &so);
    if (rc == CB_OK) rc = cb_quic_client(&t->client, cb_sim_host_loop(t->w.client_host), "0.0.0.0:0", &co);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

/* False: the connection is over, or stands still. */
static bool until(story *t, const int *value, int target) {
    while (*value < target && !t->closed && !t->stalled) {
        int rc = cb_sim_run_until(t->w.sim, cb_sim_now(t->w.sim) + 5 * ST_MS);
        cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
        t->stalled = cb_sim_now(t->w.sim) > LIMIT_S * ST_S;
    }
    return *value >= target;
}

static void move_about(story *t) {
    for (int i = 0; i < 3 && !t->closed && t->finished < t->s->streams; i++) {
        int rc = cb_quic_conn_migrate(t->conn, NULL);
        cr_assert(rc == CB_OK || rc == CB_EAGAIN, "%s", cb_last_error());
        st_until(t->w.sim, cb_sim_now(t->w.sim) + 500 * ST_MS);
    }
}

static void one_connection(story *t, int nth) {
    int rc = cb_quic_connect(&t->conn, t->client, "10.0.0.2:443", "server");
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    t->shaken = t->closed = 0;
    if (t->s->early && nth > 0) start(t);
    if (!until(t, &t->shaken, 1)) return;
    if (!t->s->early || nth == 0) start(t);
    uint8_t datagram[100] = {'d'};
    for (int i = 0; i < t->s->datagrams; i++)
        (void)cb_quic_datagram_send(t->conn, (cb_slice){datagram, sizeof datagram});
    if (t->s->migrate) move_about(t);
    if (!until(t, &t->finished, t->s->streams)) return;
    if (t->s->again || t->s->datagrams) st_until(t->w.sim, cb_sim_now(t->w.sim) + 20 * ST_S); /* tickets come, too */
    cb_quic_conn_stats s = {.size = sizeof s};
    if (t->conn) cb_quic_conn_stats_get(t->conn, &s);
    if (nth > 0) cr_assert(s.resumed, "%s", t->s->name);
    if (t->conn) cb_quic_conn_close(t->conn, 0, "done");
    (void)until(t, &t->closed, 1);
}

static void tell(const story *t, const char *link, uint64_t seed, char out[200]) {
    snprintf(out, 200, "%s, %s, seed %llu", t->s->name, link, (unsigned long long)seed);
}

/* A connection may stand still for longer than anybody waits: probe timeouts double without an end, and half of all
 * probes and half of their acknowledgements are lost; and where a path changes amid heavy losses, ngtcp2 1.11 can stop
 * its loss timer for good (the new path is not validated, three times what came is used up, and nothing sets the timer
 * when more comes). An application's own time limit ends that, as this test's does. So: the whole of it, checked; or,
 * but not on a clean line, nothing wrong and an end that says what took too long. */
static bool check_end(const story *t, size_t link, int nth, const char *where) {
    const scenario *s = t->s;
    cr_assert_eq(t->wrong, 0, "%s: %d bytes are wrong", where, (int)t->wrong);
    if (t->stalled && link != 0) return false;
    cr_assert_eq(t->closed, 1, "%s", where);
    if (t->close_rc == CB_ETIMEOUT && link != 0) return false;
    if (s->retry && t->close_rc == CB_EPROTO && strstr(t->detail, "INVALID_TOKEN"))
        return false; /* it lives for 10 s */
    cr_assert_eq(t->close_rc, CB_OK, "%s: connection %d: %s", where, nth, t->detail);
    cr_assert_eq(t->finished, s->streams, "%s", where);
    cr_assert_eq(t->total, s->bytes * (uint64_t)s->streams, "%s", where);
    cr_assert_leq(t->datagrams, s->datagrams, "%s", where);
    if (link == 0) cr_assert_eq(t->datagrams, s->datagrams, "%s", where);
    return true;
}

/* 1: it gave up. */
static size_t play(const scenario *s, size_t link, uint64_t seed, const keys *k) {
    story *t = calloc(1, sizeof *t);
    char where[200];
    bool good = true;
    cr_assert_not_null(t);
    t->s = s;
    tell(t, links[link].name, seed, where);
    world_make(&t->w, seed, &links[link].o);
    open_ends(t, k);
    for (int i = 0; i < (s->again ? 2 : 1) && good; i++) {
        one_connection(t, i);
        good = check_end(t, link, i, where);
    }
    if (t->conn) cb_quic_conn_close(t->conn, 0, "enough");
    /* The server hears of the end, or its own timeout tells it. */
    cr_assert_eq(cb_sim_run(t->w.sim), CB_OK, "%s: %s", where, cb_last_error());
    cr_assert_geq(t->server_closed, t->server_shaken, "%s", where);
    cr_assert_lt(cb_sim_now(t->w.sim), 2 * LIMIT_S * ST_S, "%s", where);
    cb_quic_endpoint_stats e = {.size = sizeof e};
    cb_quic_endpoint_stats_get(t->server, &e);
    cr_assert_eq(e.conns_now, 0, "%s", where);
    cb_quic_endpoint_free(t->client);
    cb_quic_endpoint_free(t->server);
    world_drop(&t->w, where);
    free(t);
    return !good;
}

static void play_all(size_t first, size_t last) {
    size_t gave_up = 0, runs = (last - first) * LINKS * 3;
    keys k;
    keys_make(&k);
    for (size_t s = first; s < last; s++)
        for (size_t l = 0; l < LINKS; l++)
            for (uint64_t seed = 1; seed <= 3; seed++)
                gave_up += play(&scenarios[s], l, seed, &k);
    keys_drop(&k);
    cr_assert_leq(gave_up, runs / 10, "%zu of %zu runs gave up", gave_up, runs);
}

Test(sim_worst, handshakes_and_transfers) {
    play_all(0, 5);
}

Test(sim_worst, paths_and_keys_change) {
    play_all(5, 8);
}

Test(sim_worst, connections_come_back) {
    play_all(8, SCENARIOS);
}

/* ---- HTTP/3 ---- */

enum { REQUESTS = 6, UPLOAD = 30000, DOWNLOAD = 60000, TIMEOUT_MS = 400000 };

typedef struct fetch {
    uint64_t sent, got, wrong, want;
    int status, closed, rc;
} fetch;

/* Bytes of the pattern, as many as are wanted, and the end. */
static int serve_more(cb_exchange *x, void *user) {
    fetch *f = user;
    uint8_t piece[2000];
    while (f->sent < f->want) {
        size_t n = f->want - f->sent < sizeof piece ? (size_t)(f->want - f->sent) : sizeof piece;
        for (size_t i = 0; i < n; i++)
            piece[i] = pattern(0, f->sent + i);
        int64_t rc = cb_exchange_write(x, (cb_slice){piece, n});
        if (rc < 0) return rc == CB_EAGAIN ? CB_OK : (int)rc;
        f->sent += (uint64_t)rc;
    }
    return cb_exchange_finish(x);
}

static void serve_over(cb_exchange *x, int rc, void *user) {
    (void)x;
    (void)rc;
    free(user);
}

static int64_t take_body(cb_exchange *x, cb_slice data, void *user) {
    fetch *f = user;
    (void)x;
    for (size_t i = 0; i < data.len; i++)
        f->wrong += data.base[i] != pattern(0, f->got + i);
    f->got += data.len;
    return (int64_t)data.len;
}

static int upload_end(cb_exchange *x, void *user) {
    const fetch *f = user;
    return cb_exchange_reply(x, f->got == UPLOAD && !f->wrong ? 201 : 500, NULL, 0) < 0 ? CB_EUSER
                                                                                        : cb_exchange_finish(x);
}

static int serve_head(cb_exchange *x, void *user) {
    static const cb_exchange_ops down = {.size = sizeof down, .on_writable = serve_more, .on_close = serve_over};
    static const cb_exchange_ops up = {
        .size = sizeof up, .on_body = take_body, .on_end = upload_end, .on_close = serve_over};
    fetch *f = calloc(1, sizeof *f);
    (void)user;
    cr_assert_not_null(f);
    if (cb_exchange_method(x).len == 4) return cb_exchange_handle(x, &up, f); /* POST */
    f->want = cb_exchange_path(x).len > 1 ? DOWNLOAD : 100;
    cb_exchange_handle(x, &down, f);
    int rc = cb_exchange_reply(x, 200, NULL, 0);
    return rc < 0 ? rc : serve_more(x, f);
}

static int get_head(cb_exchange *x, void *user) {
    ((fetch *)user)->status = cb_exchange_status(x);
    return CB_OK;
}

static void get_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    ((fetch *)user)->closed++;
    ((fetch *)user)->rc = rc;
}

static const cb_exchange_ops serving = {.size = sizeof serving, .on_head = serve_head};
static const cb_exchange_ops getting = {
    .size = sizeof getting, .on_head = get_head, .on_body = take_body, .on_close = get_close};
static const cb_exchange_ops posting = {.size = sizeof posting,
                                        .on_head = get_head,
                                        .on_body = take_body,
                                        .on_writable = serve_more,
                                        .on_close = get_close};

static size_t judge_fetch(const fetch *f, int i, size_t link, const char *where) {
    static const uint64_t bytes[] = {100, DOWNLOAD, 0};
    cr_assert_eq(f->closed, 1, "%s: request %d", where, i);
    cr_assert_eq(f->wrong, 0, "%s: request %d", where, i);
    if (f->rc < 0) { /* each on a connection that died, or that never came about in time */
        cr_assert(link != 0 && (f->rc == CB_ETIMEOUT || f->rc == CB_ECLOSED || f->rc == CB_EUNREACH),
                  "%s: request %d: %s", where, i, cb_strerror(f->rc));
        return 1;
    }
    cr_assert_eq(f->status, i % 3 == 2 ? 201 : 200, "%s: request %d: %d", where, i, f->status);
    cr_assert_eq(f->got, bytes[i % 3], "%s: request %d", where, i);
    return 0;
}

static size_t browse(size_t link, uint64_t seed, const keys *k, uint64_t *digest) {
    static const char *const urls[] = {"https://server/", "https://server/large", "https://server/upload"};
    const cb_http_limits patient = {
        .size = sizeof patient, .idle_timeout_ms = TIMEOUT_MS, .head_timeout_ms = TIMEOUT_MS};
    world w = {0};
    char where[200];
    fetch f[REQUESTS] = {{0}};
    cb_http_server *server;
    cb_http_client *client;
    size_t failed = 0;
    snprintf(where, sizeof where, "HTTP/3, %s, seed %llu", links[link].name, (unsigned long long)seed);
    world_make(&w, seed, &links[link].o);
    int rc = cb_http_server_new(&server, cb_sim_host_loop(w.server_host),
                                CB_OPTS(cb_http_server_opts, .listen = ":443", .identity = k->server,
                                        .versions = CB_HTTP_3, .limits = &patient, .ops = &serving));
    if (rc == CB_OK)
        rc = cb_http_client_new(&client, cb_sim_host_loop(w.client_host),
                                CB_OPTS(cb_http_client_opts, .identity = k->client, .versions = CB_HTTP_3,
                                        .connect_timeout_ms = TIMEOUT_MS, .limits = &patient));
    cr_assert_eq(rc, CB_OK, "%s: %s", where, cb_last_error());
    for (int i = 0; i < REQUESTS; i++) {
        cb_exchange *x;
        const bool post = i % 3 == 2;
        rc = cb_http_request(&x, client,
                             CB_OPTS(cb_request, .url = urls[i % 3], .method = post ? "POST" : NULL, .has_body = post,
                                     .timeout_ms = TIMEOUT_MS),
                             post ? &posting : &getting, &f[i]);
        cr_assert_eq(rc, CB_OK, "%s: %s", where, cb_last_error());
        f[i].want = post ? UPLOAD : 0;
        if (post) (void)serve_more(x, &f[i]);
    }
    st_until(w.sim, (TIMEOUT_MS / 1000 + 1) * ST_S);
    for (int i = 0; i < REQUESTS; i++)
        failed += judge_fetch(&f[i], i, link, where);
    *digest = cb_sim_digest(w.sim);
    cb_http_client_free(client);
    cb_http_server_free(server);
    st_until(w.sim, cb_sim_now(w.sim));
    world_drop(&w, where);
    return failed;
}

Test(sim_worst, requests_end) {
    enum { SEEDS = 3 };
    size_t failed = 0;
    uint64_t one, same, other;
    keys k;
    keys_make(&k);
    for (size_t l = 0; l < LINKS; l++)
        for (uint64_t seed = 1; seed <= SEEDS; seed++)
            failed += browse(l, seed, &k, &other);
    (void)browse(EVERYTHING, 7, &k, &one);
    (void)browse(EVERYTHING, 7, &k, &same);
    (void)browse(EVERYTHING, 8, &k, &other);
    cr_assert(one == same && one != other, "a run repeats itself");
    keys_drop(&k);
    cr_assert_leq(failed, LINKS * SEEDS * REQUESTS / 10, "%zu requests failed", failed);
}
