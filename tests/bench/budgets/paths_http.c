/* Proxied requests: server, proxy and pool of libcb on one loop; client and origin are bare sockets of this program,
 * which takes every step itself. On loopback a write has arrived when it returns, so that each request takes the same
 * steps. */
#include "base/buf.h"
#include "paths.h"
#include "transport/tls_session.h"
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ORIGINS = 8, TRIES = 10000 };

static struct {
    cb_loop *loop;
    cb_router *router;
    cb_proxy *proxy;
    cb_http_server *server;
    int listener, client;
    int origins[ORIGINS]; /* connections that the proxy has opened */
    size_t n_origins;
    uint32_t stream;
} world;

static const char answer_head[] =
    "HTTP/1.1 200 OK\r\nServer: origin/1.0\r\nDate: Wed, 25 Nov 2026 12:00:00 GMT\r\n"
    "Content-Type: text/html; charset=utf-8\r\nContent-Length: 1024\r\nETag: \"65f1-400\"\r\n"
    "Last-Modified: Mon, 02 Nov 2026 10:00:00 GMT\r\nCache-Control: max-age=600\r\n\r\n";
static char answer[sizeof answer_head - 1 + 1024];

static int socket_at(uint32_t port, bool listens) {
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | (listens ? SOCK_NONBLOCK : 0), 0);
    MUST(fd >= 0);
    MUST((listens ? bind : connect)(fd, (struct sockaddr *)&at, sizeof at) == 0);
    if (listens) MUST(listen(fd, ORIGINS) == 0);
    return fd;
}

static uint32_t port_of(int fd) {
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    MUST(getsockname(fd, (struct sockaddr *)&at, &len) == 0);
    return ntohs(at.sin_port);
}

static void step(void) {
    MUST(cb_loop_step(world.loop) == CB_OK);
}

static void world_prepare(void) {
    char url[64];
    memcpy(answer, answer_head, sizeof answer_head - 1);
    memset(answer + sizeof answer_head - 1, 'x', 1024);
    memset(&world, 0, sizeof world);
    world.listener = socket_at(0, true);
    snprintf(url, sizeof url, "http://127.0.0.1:%u", port_of(world.listener));
    const cb_http_limits limits = {.size = sizeof limits, .max_requests = UINT32_MAX};
    MUST(cb_loop_new(&world.loop, NULL) == CB_OK);
    MUST(cb_router_new(&world.router) == CB_OK);
    MUST(cb_router_group(world.router, CB_OPTS(cb_origin_group_opts, .name = "g")) == CB_OK);
    MUST(cb_router_origin(world.router, "g", CB_OPTS(cb_origin_opts, .url = url)) == CB_OK);
    MUST(cb_router_route(world.router, CB_OPTS(cb_route_opts, .group = "g")) == CB_OK);
    MUST(cb_proxy_new(&world.proxy, world.loop, CB_OPTS(cb_proxy_opts, .router = world.router)) == CB_OK);
    MUST(cb_http_server_new(&world.server, world.loop,
                            CB_OPTS(cb_http_server_opts, .listen = "127.0.0.1:0", .limits = &limits,
                                    .ops = cb_proxy_exchange_ops(), .user = world.proxy)) == CB_OK);
    const char *colon = strrchr(cb_http_server_address(world.server), ':');
    world.client = socket_at((uint32_t)atoi(colon + 1), false);
}

static void world_clean(void) {
    close(world.client);
    for (size_t i = 0; i < world.n_origins; i++)
        close(world.origins[i]);
    close(world.listener);
    cb_http_server_free(world.server);
    cb_proxy_free(world.proxy);
    cb_router_unref(world.router);
    cb_loop_free(world.loop);
}

/* Answers `n` requests that are on their way to the origin, each with one read and one write. */
static void origin_answers(size_t n) {
    char request[4096];
    for (int tries = 0; n; tries++) {
        MUST(tries < TRIES);
        step();
        int fd = accept4(world.listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) MUST(world.n_origins < ORIGINS);
        if (fd >= 0) world.origins[world.n_origins++] = fd;
        for (size_t i = 0; i < world.n_origins; i++) {
            ssize_t got = recv(world.origins[i], request, sizeof request, MSG_DONTWAIT);
            if (got <= 0) continue;
            MUST(memcmp(request + got - 4, "\r\n\r\n", 4) == 0);
            MUST(send(world.origins[i], answer, sizeof answer, MSG_NOSIGNAL) == (ssize_t)sizeof answer);
            n--;
        }
    }
}

/* ---- h1-proxied ---- */

static void h1_run(size_t times) {
    static const char get[] =
        "GET /articles/why-edges-matter HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: count/1.0\r\n"
        "Accept: */*\r\nAccept-Encoding: gzip, br\r\n\r\n";
    char got[8192];
    for (size_t i = 0; i < times; i++) {
        size_t len = 0;
        MUST(send(world.client, get, sizeof get - 1, MSG_NOSIGNAL) == (ssize_t)sizeof get - 1);
        origin_answers(1);
        for (int tries = 0; len < 1024 || memcmp(got + len - 4, "xxxx", 4) != 0; tries++) {
            MUST(tries < TRIES && len < sizeof got);
            step();
            ssize_t n = recv(world.client, got + len, sizeof got - len, MSG_DONTWAIT);
            if (n > 0) len += (size_t)n;
        }
        MUST(memcmp(got, "HTTP/1.1 200 OK\r\n", 17) == 0);
    }
}

/* ---- h2-proxied: eight requests at a time ---- */

static void h2_prepare(void) {
    static const uint8_t hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                   "\0\0\6\4\0\0\0\0\0\0\4\x3f\xff\xff\xff" /* SETTINGS: INITIAL_WINDOW_SIZE */
                                   "\0\0\4\x8\0\0\0\0\0\x3f\xff\0\0";       /* WINDOW_UPDATE of the connection */
    world_prepare();
    world.stream = 1;
    MUST(send(world.client, hello, sizeof hello - 1, MSG_NOSIGNAL) == (ssize_t)sizeof hello - 1);
}

/* How many streams end in what has come; *used bytes are whole frames. */
static size_t ends_in(const uint8_t *at, size_t len, size_t *used) {
    size_t ends = 0;
    for (*used = 0; len - *used >= 9;) {
        const uint8_t *f = at + *used;
        size_t frame = 9 + ((size_t)f[0] << 16 | (size_t)f[1] << 8 | f[2]);
        if (len - *used < frame) break;
        MUST(f[3] != 3 && f[3] != 7); /* neither reset nor GOAWAY */
        if (f[3] <= 1 && f[4] & 1) ends++;
        *used += frame;
    }
    return ends;
}

static void h2_run(size_t times) {
    static const char fields[] = "\x82\x86\x41\x0fwww.example.org\x04\x1f/articles/why-edges-matter/2026"
                                 "\x0f\x2b\x09"
                                 "count/1.0\x0f\x04\x03*/*";
    enum { HEAD = sizeof fields - 1, FRAME = 9 + HEAD };
    static uint8_t got[65536];
    for (size_t done = 0; done < times; done += ORIGINS) {
        uint8_t out[ORIGINS * FRAME];
        for (size_t i = 0; i < ORIGINS; i++, world.stream += 2) {
            const uint8_t head[9] = {0,
                                     0,
                                     HEAD,
                                     1,
                                     5,
                                     (uint8_t)(world.stream >> 24),
                                     (uint8_t)(world.stream >> 16),
                                     (uint8_t)(world.stream >> 8),
                                     (uint8_t)world.stream};
            memcpy(out + i * FRAME, head, sizeof head);
            memcpy(out + i * FRAME + 9, fields, HEAD);
        }
        MUST(send(world.client, out, sizeof out, MSG_NOSIGNAL) == (ssize_t)sizeof out);
        origin_answers(ORIGINS);
        size_t ends = 0, len = 0, used = 0;
        for (int tries = 0; ends < ORIGINS; tries++) {
            MUST(tries < TRIES);
            step();
            ssize_t n = recv(world.client, got + len, sizeof got - len, MSG_DONTWAIT);
            if (n <= 0) continue;
            ends += ends_in(got, len + (size_t)n, &used);
            len += (size_t)n - used;
            memmove(got, got + used, len);
        }
    }
}

/* ---- tls-resume: a handshake with a ticket, both ends, in memory ---- */

typedef struct end {
    cb_tls_session *tls;
    cb_buf out;
} end;

static struct {
    cb_identity *server, *client;
    cb_tickets *tickets;
    cb_session_cache *cache;
    bool expect_resumed;
} tls;

static int end_out(void *user, const cb_slice *v, size_t n) {
    end *e = user;
    for (size_t i = 0; i < n; i++)
        MUST(cb_buf_add(&e->out, v[i].base, v[i].len) == CB_OK);
    return CB_OK;
}

static int64_t end_in(void *user, cb_slice data) {
    (void)user;
    return (int64_t)data.len;
}

static void end_start(end *e, const cb_tls_opts *opts) {
    static const cb_tls_stream_ops ops = {.cipher_out = end_out, .plain_in = end_in};
    cb_buf_init(&e->out, NULL, 1 << 20);
    MUST(cb_tls_session_new(&e->tls, NULL, opts) == CB_OK);
    MUST(cb_tls_stream_attach(e->tls, &ops, e) == CB_OK);
    MUST(cb_tls_stream_start(e->tls) == CB_OK);
}

static void tls_once(void) {
    const cb_tls_opts serving = {.server = true, .identity = tls.server, .tickets = tls.tickets, .alpn = "h2,http/1.1"};
    const cb_tls_opts asking = {.identity = tls.client,
                                .alpn = "h2,http/1.1",
                                .server_name = "localhost",
                                .cache = tls.cache,
                                .cache_key = "localhost"};
    end ends[2];
    end_start(&ends[0], &asking);
    end_start(&ends[1], &serving);
    while (ends[0].out.len || ends[1].out.len) {
        for (int i = 0; i < 2; i++) {
            cb_buf bytes = ends[i].out;
            cb_buf_init(&ends[i].out, NULL, 1 << 20);
            MUST(cb_tls_stream_feed(ends[1 - i].tls, cb_buf_slice(&bytes)) == CB_OK);
            cb_buf_free(&bytes);
        }
    }
    MUST(cb_tls_session_resumed(ends[1].tls) == tls.expect_resumed);
    tls.expect_resumed = true;
    for (int i = 0; i < 2; i++) {
        cb_tls_session_free(ends[i].tls);
        cb_buf_free(&ends[i].out);
    }
}

static void tls_prepare(void) {
    MUST(cb_identity_new(&tls.server, CB_OPTS(cb_identity_opts, .cert_file = budget_cert, .key_file = budget_key)) ==
         CB_OK);
    MUST(cb_identity_new(&tls.client, CB_OPTS(cb_identity_opts, .ca_file = budget_ca)) == CB_OK);
    MUST(cb_tickets_new(&tls.tickets, NULL) == CB_OK);
    MUST(cb_session_cache_new(&tls.cache, NULL, 16, NULL) == CB_OK);
}

static void tls_run(size_t times) {
    for (size_t i = 0; i < times; i++)
        tls_once();
}

static void tls_clean(void) {
    cb_session_cache_free(tls.cache);
    cb_tickets_unref(tls.tickets);
    cb_identity_unref(tls.client);
    cb_identity_unref(tls.server);
}

const path paths_http[] = {{"h1-proxied", world_prepare, h1_run, world_clean, 50, 300},
                           {"h2-proxied", h2_prepare, h2_run, world_clean, 80, 400},
                           {"tls-resume", tls_prepare, tls_run, tls_clean, 3, 20},
                           {.name = NULL}};
