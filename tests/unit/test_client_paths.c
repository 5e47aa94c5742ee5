/* One client transport that finds its way: QUIC races TCP, Alt-Svc, UDP that stops to pass, and comes back. */
#include "support/http_fixture.h"
#include "support/moved.h"
#include "support/udp_relay.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ALL = CB_HTTP_1 | CB_HTTP_2 | CB_HTTP_3, TCP = CB_HTTP_1 | CB_HTTP_2 };

/* A server on TCP, and HTTP/3 of it by way of a relay, as its Alt-Svc says. */
struct paths {
    http_world w;
    udp_relay relay;
    uint16_t port;
};

static uint16_t port_of(const http_world *w) {
    return (uint16_t)strtoul(strrchr(w->url, ':') + 1, NULL, 10);
}

/* A port that is free for UDP and TCP, most likely: bound and let go. */
static uint16_t free_port(void) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static void paths_open(struct paths *p, cb_http_client_opts o) {
    const uint16_t relay_port = free_port();
    http_world_open(&p->w);
    http_serve(&p->w, (cb_http_server_opts){.identity = p->w.me, .alt_svc_port = relay_port});
    p->port = port_of(&p->w);
    udp_relay_open(&p->relay, p->w.loop, relay_port, p->port);
    http_client_make(&p->w, o);
}

static void paths_close(struct paths *p) {
    cb_http_client_free(p->w.client);
    p->w.client = NULL;
    udp_relay_close(&p->relay);
    http_world_close(&p->w);
}

static cb_http_client_stats stats_of(http_world *w) {
    cb_http_client_stats s = {.size = sizeof s};
    cr_assert_eq(cb_http_client_stats_get(w->client, &s), CB_OK, "%s", cb_last_error());
    return s;
}

static void turns_for(http_world *w, cb_time span) {
    const cb_time until = cb_loop_now(w->loop) + span;
    while (cb_loop_now(w->loop) < until) {
        struct pollfd p = {.fd = cb_loop_fd(w->loop), .events = POLLIN};
        int64_t ms = cb_loop_timeout_ms(w->loop);
        poll(&p, 1, ms < 0 || ms > 5 ? 5 : (int)ms);
        cb_loop_step(w->loop);
    }
}

/* Requests one after the other until one comes over `version`; how many it took. */
static int until_version(http_world *w, int version) {
    for (int i = 1; i < 400; i++) {
        http_reply r = {0};
        http_fetch(&r, w, (cb_request){0}, "/hello");
        cr_assert_eq(r.rc, CB_OK, "request %d: %s", i, r.detail);
        if (r.version == version) return i;
        turns_for(w, 10 * CB_MS);
    }
    return 0;
}

Test(client_paths, alt_svc_leads_to_http3) {
    struct paths p;
    http_reply r = {0};
    paths_open(&p, (cb_http_client_opts){0});
    http_fetch(&r, &p.w, (cb_request){0}, "/hello");
    cr_expect_eq(r.version, CB_HTTP_2, "the first: version %d, %s", r.version, r.detail);
    cr_expect(until_version(&p.w, CB_HTTP_3), "it never went to HTTP/3");
    cr_expect_gt(p.relay.passed, 0, "not by the port that Alt-Svc names");
    cr_expect_eq(stats_of(&p.w).probes, 1, "%llu probes", (unsigned long long)stats_of(&p.w).probes);
    for (int i = 0; i < 5; i++) {
        http_reply again = {0};
        http_fetch(&again, &p.w, (cb_request){0}, "/hello");
        cr_expect_eq(again.version, CB_HTTP_3, "once there it stays: %d", again.version);
    }
    EXPECT_MOVED(p.w.metrics, 1, "cb_pool_quic_probes");
    EXPECT_MOVED(p.w.metrics, 1, "cb_pool_alternatives", "used");
    EXPECT_MOVED_IN(p.w.metrics, 1, 400, "cb_pool_alternatives", "told");
    EXPECT_MOVED(p.w.metrics, 1, "cb_pool_opened_connections", "2");
    EXPECT_MOVED(p.w.metrics, 1, "cb_pool_opened_connections", "3");
    EXPECT_MOVED(p.w.metrics, 1, "cb_pool_connect_seconds", "tcp");
    EXPECT_MOVED(p.w.metrics, 1, "cb_pool_connect_seconds", "quic");
    paths_close(&p);
    /* who does not want it does not get it */
    static const cb_http_client_opts not [] = {{.alt_svc = 1}, {.versions = TCP}};
    for (size_t i = 0; i < 2; i++) {
        paths_open(&p, not [i]);
        for (int k = 0; k < 3; k++) {
            http_reply t = {0};
            http_fetch(&t, &p.w, (cb_request){0}, "/hello");
            turns_for(&p.w, 20 * CB_MS);
            cr_expect_eq(t.version, CB_HTTP_2, "%zu: %d", i, t.version);
        }
        cr_expect_eq(p.relay.passed, 0, "%zu: it tried", i);
        paths_close(&p);
    }
}

/* UDP is swallowed from the start: TCP serves, a broken QUIC costs the next connection nothing, and is used when it
 * heals. */
Test(client_paths, udp_blocked_from_the_start) {
    struct paths p;
    http_reply r = {0};
    paths_open(&p, (cb_http_client_opts){.connect_timeout_ms = 800, .h3_retry_ms = 1500, .h3_head_start_ms = 100});
    p.relay.blocked = true;
    http_fetch(&r, &p.w, (cb_request){0}, "/hello"); /* learns of the alternative */
    cb_time begun = cb_loop_now(p.w.loop);
    for (int i = 0; i < 50; i++) {
        http_reply t = {0};
        http_fetch(&t, &p.w, (cb_request){0}, "/hello");
        cr_assert(t.rc == CB_OK && t.version == CB_HTTP_2, "%d: %d %d %s", i, t.rc, t.version, t.detail);
        turns_for(&p.w, 20 * CB_MS);
    }
    cr_expect_gt(p.relay.swallowed, 0, "it did not try QUIC");
    EXPECT_MOVED_IN(p.w.metrics, 1, 2, "cb_pool_quic_fallbacks");
    cr_expect_lt(cb_loop_now(p.w.loop) - begun, 20 * CB_SEC, "requests waited for QUIC");
    cr_expect_leq(stats_of(&p.w).probes, 2, "back-off: %llu probes", (unsigned long long)stats_of(&p.w).probes);
    p.relay.blocked = false;
    cr_expect(until_version(&p.w, CB_HTTP_3), "it does not return to HTTP/3");
    paths_close(&p);
}

/* HTTP/3 is allowed by the options, and the UDP port swallows: TCP after the head start; the next connection at once.
 */
Test(client_paths, tcp_wins_the_race_against_silence) {
    http_world w;
    http_reply r = {0}, next = {0};
    http_world_open(&w);
    http_serve(&w, (cb_http_server_opts){.identity = w.me, .versions = TCP});
    struct sockaddr_in hole = {.sin_family = AF_INET, .sin_port = htons(port_of(&w))};
    hole.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&hole, sizeof hole), 0);
    http_client_make(&w, (cb_http_client_opts){.versions = ALL, .connect_timeout_ms = 700, .idle_timeout_ms = 50});
    cb_time begun = cb_loop_now(w.loop);
    http_fetch(&r, &w, (cb_request){0}, "/hello");
    cr_expect(r.rc == CB_OK && r.version == CB_HTTP_2, "%d %d %s", r.rc, r.version, r.detail);
    cr_expect_geq(cb_loop_now(w.loop) - begun, 290 * CB_MS, "QUIC got no head start: %s", w.log);
    cr_expect_lt(cb_loop_now(w.loop) - begun, 5 * CB_SEC, "that is not within the limit");
    turns_for(&w, 1000 * CB_MS); /* QUIC's time is over, the idle connection too */
    const uint64_t opened = stats_of(&w).opened_h2;
    char packet[2048];
    while (recv(fd, packet, sizeof packet, MSG_DONTWAIT) > 0) {}
    http_fetch(&next, &w, (cb_request){0}, "/hello");
    cr_expect(next.rc == CB_OK && next.version == CB_HTTP_2, "%d %d %s", next.rc, next.version, next.detail);
    cr_expect_eq(stats_of(&w).opened_h2, opened + 1, "the idle connection was to be closed");
    cr_expect_lt(recv(fd, packet, sizeof packet, MSG_DONTWAIT), 0, "what is known to be broken was tried again");
    close(fd);
    http_world_close(&w);
}

/* UDP stops to pass while requests are under way: what may be repeated goes over TCP by itself, what may not ends with
 * a clear error, and what comes after does not notice. */
Test(client_paths, udp_blocked_in_mid_connection) {
    struct paths p;
    http_reply get = {.keep_running = true}, post = {.keep_running = true}, big = {.keep_running = true}, next = {0};
    paths_open(&p, (cb_http_client_opts){.h3_retry_ms = 300, .connect_timeout_ms = 2000});
    cr_assert(until_version(&p.w, CB_HTTP_3));
    cr_assert_eq(http_begin(&big, &p.w, (cb_request){0}, "/big?200000000"), CB_OK);
    while (!big.bytes)
        turns_for(&p.w, CB_MS);
    cr_assert_eq(big.version, CB_HTTP_3);
    p.relay.blocked = true;
    cr_assert_eq(http_begin(&post, &p.w, (cb_request){.method = "POST"}, "/hello"), CB_OK);
    cr_assert_eq(http_begin(&get, &p.w, (cb_request){0}, "/hello"), CB_OK);
    const cb_time begun = cb_loop_now(p.w.loop);
    http_run(&p.w, &get.closes);
    cr_expect(get.rc == CB_OK && get.version == CB_HTTP_2, "%d %d %s", get.rc, get.version, get.detail);
    cr_expect_lt(cb_loop_now(p.w.loop) - begun, 4 * CB_SEC, "far beyond the 2 s that it should take");
    http_fetch(&next, &p.w, (cb_request){.method = "POST"}, "/hello"); /* not sent yet: it may go anywhere */
    cr_expect(next.rc == CB_OK && next.version == CB_HTTP_2, "%d %d %s", next.rc, next.version, next.detail);
    cr_expect_eq(post.closes, 0, "it was given up at once");
    http_run(&p.w, &post.closes);
    cr_expect_eq(post.rc, CB_ECLOSED, "%d", post.rc);
    cr_expect(strstr(post.detail, "must not be repeated"), "%s", post.detail);
    http_run(&p.w, &big.closes);
    cr_expect_eq(big.rc, CB_ECLOSED, "%d", big.rc);
    cr_expect(strstr(big.detail, "response had begun"), "%s", big.detail);
    const cb_http_client_stats s = stats_of(&p.w);
    cr_expect(s.silent >= 1 && s.moved >= 1, "%llu silent, %llu moved", (unsigned long long)s.silent,
              (unsigned long long)s.moved);
    EXPECT_MOVED(p.w.metrics, s.silent, "cb_pool_silent_connections");
    EXPECT_MOVED(p.w.metrics, s.moved, "cb_pool_retried_requests", "silent");
    p.relay.blocked = false;
    cr_expect(until_version(&p.w, CB_HTTP_3), "it does not return to HTTP/3");
    paths_close(&p);
}

/* There is no other way either, for longer than an attempt may take: it is looked for again and again. */
Test(client_paths, nothing_passes_for_a_while) {
    struct paths p;
    http_reply r = {.keep_running = true};
    paths_open(&p, (cb_http_client_opts){.versions = CB_HTTP_3, .connect_timeout_ms = 500});
    snprintf(p.w.url, sizeof p.w.url, "https://127.0.0.1:%u", p.relay.port);
    cr_assert(until_version(&p.w, CB_HTTP_3));
    p.relay.blocked = true;
    cr_assert_eq(http_begin(&r, &p.w, (cb_request){0}, "/hello"), CB_OK);
    turns_for(&p.w, 2600 * CB_MS);
    cr_expect_eq(r.closes, 0, "%d %s", r.rc, r.detail);
    cr_expect_geq(stats_of(&p.w).failed, 2, "%d attempts", (int)stats_of(&p.w).failed);
    p.relay.blocked = false;
    http_run(&p.w, &r.closes);
    cr_expect(r.rc == CB_OK && r.version == CB_HTTP_3, "%d %s", r.rc, r.detail);
    paths_close(&p);
}

/* The client goes while a connection is silent, another one is being opened, or requests have moved. */
Test(client_paths, freed_while_it_looks_for_a_way) {
    static const unsigned after_ms[] = {0, 300, 420, 440, 700};
    for (size_t i = 0; i < sizeof after_ms / sizeof *after_ms; i++) {
        struct paths p;
        http_reply get = {.keep_running = true}, post = {.keep_running = true}, late = {.keep_running = true};
        paths_open(&p, (cb_http_client_opts){.follow_network = i % 2});
        cr_assert(until_version(&p.w, CB_HTTP_3));
        p.relay.blocked = true;
        cr_assert_eq(http_begin(&post, &p.w, (cb_request){.method = "POST"}, "/hello"), CB_OK);
        cr_assert_eq(http_begin(&get, &p.w, (cb_request){0}, "/never"), CB_OK);
        turns_for(&p.w, after_ms[i] * CB_MS);
        cr_assert_eq(http_begin(&late, &p.w, (cb_request){0}, "/never"), CB_OK);
        cr_expect_eq(cb_http_client_network_changed(p.w.client), CB_OK);
        cb_http_client_free(p.w.client);
        p.w.client = NULL;
        turns_for(&p.w, 10 * CB_MS);
        cr_expect(get.closes == 1 && post.closes == 1 && late.closes == 1, "%u ms: %d %d %d", after_ms[i], get.closes,
                  post.closes, late.closes);
        cr_expect_eq(get.rc, CB_ECLOSED, "%u ms: %d %s", after_ms[i], get.rc, get.detail);
        paths_close(&p);
    }
}

/* A short silence: the connection is kept when it comes back before another one is there. */
Test(client_paths, a_connection_that_comes_back_is_kept) {
    struct paths p;
    http_reply r = {.keep_running = true};
    paths_open(&p, (cb_http_client_opts){.versions = CB_HTTP_3});
    snprintf(p.w.url, sizeof p.w.url, "https://localhost:%u", p.relay.port); /* nothing but HTTP/3 by the relay */
    cr_assert(until_version(&p.w, CB_HTTP_3));
    p.relay.blocked = true;
    cr_assert_eq(http_begin(&r, &p.w, (cb_request){.method = "POST"}, "/hello"), CB_OK);
    for (int i = 0; i < 1000 && !stats_of(&p.w).silent; i++)
        turns_for(&p.w, 5 * CB_MS);
    cr_expect_eq(stats_of(&p.w).silent, 1);
    p.relay.blocked = false;
    http_run(&p.w, &r.closes);
    cr_expect(r.rc == CB_OK && r.version == CB_HTTP_3, "%d %s", r.rc, r.detail);
    turns_for(&p.w, 200 * CB_MS);
    cr_expect_eq(stats_of(&p.w).moved, 0);
    http_reply next = {0};
    http_fetch(&next, &p.w, (cb_request){0}, "/hello");
    cr_expect(next.rc == CB_OK && next.version == CB_HTTP_3, "%d %s", next.rc, next.detail);
    paths_close(&p);
}

/* A NAT that rebinds in the middle of a download: nobody notices. */
Test(client_paths, a_nat_rebinds_in_a_download) {
    enum { SIZE = 24 << 20, TIMES = 8 };
    struct paths p;
    http_reply r = {.keep_running = true};
    paths_open(&p, (cb_http_client_opts){0});
    cr_assert(until_version(&p.w, CB_HTTP_3));
    cr_assert_eq(http_begin(&r, &p.w, (cb_request){0}, "/big?25165824"), CB_OK);
    for (size_t i = 1; i <= TIMES; i++) {
        while (r.bytes < SIZE / (TIMES + 1) * i && !r.closes)
            turns_for(&p.w, CB_MS);
        udp_relay_rebind(&p.relay);
    }
    http_run(&p.w, &r.closes);
    cr_expect(r.rc == CB_OK && r.bytes == SIZE && r.version == CB_HTTP_3, "%d, %zu bytes: %s", r.rc, r.bytes, r.detail);
    paths_close(&p);
}

/* ---- alternatives that are not what they say ---- */

/* Speaks for itself: over HTTP/3 everything is misdirected. */
static int misdirect(cb_exchange *x, void *user) {
    const char *alt = user;
    const cb_field f = {cb_slice_str("alt-svc"), cb_slice_str(alt)};
    if (cb_exchange_version(x) == CB_HTTP_3) return cb_exchange_send(x, 421, NULL, 0, cb_slice_str("not me\n"));
    return cb_exchange_send(x, 200, &f, 1, cb_slice_str("me\n"));
}

static void serve_with(http_world *w, const char *alt) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = misdirect};
    const cb_http_server_opts o = {.size = sizeof o,
                                   .listen = "127.0.0.1:0",
                                   .identity = w->me,
                                   .ops = &ops,
                                   .user = (void *)(uintptr_t)alt,
                                   .alt_svc = 1};
    http_world_open(w);
    const cb_http_server_opts real = {
        .size = sizeof real, .listen = o.listen, .identity = w->me, .ops = &ops, .user = o.user, .alt_svc = 1};
    cr_assert_eq(cb_http_server_new(&w->server, w->loop, &real), CB_OK, "%s", cb_last_error());
    snprintf(w->url, sizeof w->url, "https://localhost%s", strrchr(cb_http_server_address(w->server), ':'));
}

Test(client_paths, a_misdirected_request_goes_to_the_origin) {
    http_world w;
    char alt[64] = "";
    serve_with(&w, alt);
    snprintf(alt, sizeof alt, "h3=\":%u\"", port_of(&w));
    http_client_make(&w, (cb_http_client_opts){0});
    for (int i = 0; i < 20; i++) {
        http_reply r = {0};
        http_fetch(&r, &w, (cb_request){0}, "/");
        cr_expect(r.rc == CB_OK && r.status == 200 && r.version == CB_HTTP_2, "%d: %d, status %d, version %d: %s", i,
                  r.rc, r.status, r.version, r.detail);
        cr_expect_str_eq(r.body, "me\n");
        turns_for(&w, 10 * CB_MS);
    }
    cr_expect_gt(stats_of(&w).opened_h3, 0, "it did not try the alternative");
    cr_expect_gt(stats_of(&w).retried, 0, "nothing was misdirected");
    EXPECT_MOVED_IN(w.metrics, 1, 20, "cb_pool_alternatives", "dropped");
    http_world_close(&w);
}

/* Whoever serves as an alternative must prove to be the origin (RFC 7838, 2.1). */
Test(client_paths, an_alternative_with_another_certificate_is_not_used) {
    http_world w, other;
    char alt[64] = "";
    serve_with(&w, alt);
    http_world_open(&other);
    cb_identity *stranger = tls_pki_identity(&w.pki, "stranger.test");
    http_serve(&other, (cb_http_server_opts){.identity = stranger});
    snprintf(alt, sizeof alt, "h3=\"127.0.0.1:%u\"", port_of(&other));
    http_client_make(&w, (cb_http_client_opts){0});
    for (int i = 0; i < 10; i++) {
        http_reply r = {0};
        http_fetch(&r, &w, (cb_request){0}, "/");
        cr_expect(r.rc == CB_OK && r.version == CB_HTTP_2, "%d: %d %d %s", i, r.rc, r.version, r.detail);
        turns_for(&w, 10 * CB_MS);
        turns_for(&other, 10 * CB_MS);
    }
    cr_expect_gt(stats_of(&w).probes, 0, "it did not try the alternative");
    cr_expect_eq(stats_of(&w).opened_h3, 0, "it took a stranger for the origin");
    cr_expect_eq(other.heads, 0, "a stranger saw the request");
    cb_identity_unref(stranger);
    http_world_close(&w);
    http_world_close(&other);
}

Test(client_paths, a_change_of_the_network_forgets) {
    struct paths p;
    paths_open(&p, (cb_http_client_opts){.follow_network = 1});
    cr_expect_eq(cb_http_client_network_changed(NULL), CB_EINVAL);
    cr_expect_eq(cb_http_client_stats_get(p.w.client, NULL), CB_EINVAL);
    cr_assert(until_version(&p.w, CB_HTTP_3));
    http_reply r = {.keep_running = true};
    cr_assert_eq(http_begin(&r, &p.w, (cb_request){0}, "/big?3000000"), CB_OK);
    while (!r.bytes)
        turns_for(&p.w, CB_MS);
    cr_expect_eq(cb_http_client_network_changed(p.w.client), CB_OK);
    http_run(&p.w, &r.closes);
    cr_expect(r.rc == CB_OK && r.bytes == 3000000, "%d %s", r.rc, r.detail);
    cr_expect_geq(stats_of(&p.w).network_changes, 1);
    EXPECT_MOVED(p.w.metrics, stats_of(&p.w).network_changes, "cb_pool_network_changes");
    cr_expect_eq(stats_of(&p.w).migrated, 0, "the way to the server is as it was");
    paths_close(&p);
}

/* ---- an address that goes away ---- */

enum { LISTENERS = 3 };

/* In a network of its own: what listens (and never answers) at an address of "lo" that can be taken away. */
struct island {
    int home; /* the network before */
    int fds[LISTENERS];
    char urls[LISTENERS][40];
    cb_loop *loop;
    cb_http_client *client;
    int closed;
};

static bool lo_address(const char *name, const char *address, bool up) {
    struct ifreq r = {.ifr_flags = 0};
    struct sockaddr_in *at = (struct sockaddr_in *)&r.ifr_addr;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(r.ifr_name, sizeof r.ifr_name, "%s", name);
    at->sin_family = AF_INET;
    inet_pton(AF_INET, address, &at->sin_addr);
    bool good = !up || ioctl(fd, SIOCSIFADDR, &r) == 0;
    r.ifr_flags = up ? IFF_UP : 0;
    good = good && ioctl(fd, SIOCSIFFLAGS, &r) == 0;
    close(fd);
    return good;
}

static bool island_open(struct island *i) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof at;
    i->home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (i->home < 0 || unshare(CLONE_NEWNET) < 0) return false;
    bool good = lo_address("lo", "127.0.0.1", true) && lo_address("lo:1", "10.77.0.1", true);
    for (int k = 0; k < LISTENERS && good; k++) {
        inet_pton(AF_INET, "10.77.0.1", &at.sin_addr);
        at.sin_port = 0;
        i->fds[k] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        good = bind(i->fds[k], (struct sockaddr *)&at, sizeof at) == 0 && listen(i->fds[k], 8) == 0 &&
               getsockname(i->fds[k], (struct sockaddr *)&at, &len) == 0;
        snprintf(i->urls[k], sizeof i->urls[k], "http://10.77.0.1:%u/", ntohs(at.sin_port));
    }
    return good;
}

static void island_close(struct island *i) {
    for (int k = 0; k < LISTENERS; k++)
        if (i->fds[k] > 0) close(i->fds[k]);
    if (i->home >= 0) {
        (void)setns(i->home, CLONE_NEWNET);
        close(i->home);
    }
}

static void free_client(cb_exchange *x, int rc, void *user) {
    struct island *i = user;
    (void)x;
    (void)rc;
    if (i->closed++) return;
    cb_http_client_free(i->client);
    i->client = NULL;
    cr_expect_eq(i->closed, LISTENERS, "freeing the client ends its requests, also in the middle of a change");
}

Test(client_paths, freed_while_a_lost_address_is_left) {
    static const cb_exchange_ops ops = {.size = sizeof ops, .on_close = free_client};
    struct island i = {.home = -1};
    if (!island_open(&i)) {
        island_close(&i);
        cr_skip_test("needs the right to make a network namespace");
    }
    cr_expect_eq(cb_loop_new(&i.loop, NULL), CB_OK);
    cr_expect_eq(cb_http_client_new(&i.client, i.loop, NULL), CB_OK, "%s", cb_last_error());
    for (int k = 0; k < LISTENERS; k++) {
        cb_exchange *x;
        cr_expect_eq(cb_http_request(&x, i.client, CB_OPTS(cb_request, .url = i.urls[k], .method = "POST"), &ops, &i),
                     CB_OK);
    }
    for (int turns = 0; turns < 200 && !i.closed; turns++) {
        struct pollfd p = {.fd = cb_loop_fd(i.loop), .events = POLLIN};
        poll(&p, 1, 1);
        cr_expect_eq(cb_loop_step(i.loop), CB_OK);
    }
    cr_expect(lo_address("lo:1", "10.77.0.1", false));
    cr_expect_eq(cb_http_client_network_changed(i.client), CB_OK);
    for (int turns = 0; turns < 200 && i.closed < LISTENERS; turns++)
        cr_expect_eq(cb_loop_step(i.loop), CB_OK);
    cr_expect_eq(i.closed, LISTENERS);
    cb_http_client_free(i.client);
    cb_loop_free(i.loop);
    island_close(&i);
}
