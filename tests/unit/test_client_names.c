/* A client whose names have addresses of both families, by a name server that takes its time. */
#include "support/http_fixture.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TYPE_A = 1, TYPE_AAAA = 28, SILENT = -1 };

/* One name server for every name: what it answers, and after how long. */
struct names {
    cb_loop *loop;
    int fd;
    cb_watch *watch;
    const char *v4, *v6; /* NULL: there is none */
    int v4_ms, v6_ms;    /* SILENT: never */
    struct late {
        struct names *names;
        cb_alarm alarm;
        struct sockaddr_in to;
        uint8_t bytes[256];
        size_t len;
    } late[16];
    size_t n;
    char address[32];
};

static void send_late(cb_alarm *a, cb_time now) {
    struct late *l = CB_CONTAINER(a, struct late, alarm);
    (void)now;
    (void)sendto(l->names->fd, l->bytes, l->len, 0, (struct sockaddr *)&l->to, sizeof l->to);
}

static void on_question(cb_watch *w, unsigned events, void *user) {
    (void)w;
    (void)events;
    struct names *d = user;
    cr_assert_lt(d->n, 16, "too many questions");
    struct late *l = &d->late[d->n++];
    socklen_t len = sizeof l->to;
    ssize_t n = recvfrom(d->fd, l->bytes, 200, MSG_DONTWAIT, (struct sockaddr *)&l->to, &len);
    size_t end = 12;
    while (n > 12 && end < (size_t)n && l->bytes[end])
        end += l->bytes[end] + 1U;
    if (n < 17 || end + 5 > (size_t)n) return;
    const unsigned type = l->bytes[end + 2];
    end += 5;
    const char *text = type == TYPE_A ? d->v4 : type == TYPE_AAAA ? d->v6 : NULL;
    const int after = type == TYPE_A ? d->v4_ms : d->v6_ms;
    if (after == SILENT) return;
    l->bytes[2] = 0x84 | (l->bytes[2] & 1);
    l->bytes[3] = 0x80;
    memset(l->bytes + 6, 0, 6);
    if (text) {
        const uint8_t size = type == TYPE_A ? 4 : 16;
        const uint8_t record[] = {0xc0, 12, 0, (uint8_t)type, 0, 1, 0, 0, 0, 60, 0, size};
        memcpy(l->bytes + end, record, sizeof record);
        inet_pton(type == TYPE_A ? AF_INET : AF_INET6, text, l->bytes + end + sizeof record);
        end += sizeof record + size;
        l->bytes[7] = 1;
    }
    l->len = end;
    l->names = d;
    cb_alarm_init(&l->alarm, d->loop, send_late);
    cr_assert_eq(cb_alarm_set(&l->alarm, cb_loop_now(d->loop) + (cb_time)after * CB_MS), CB_OK);
}

static void names_open(struct names *d, cb_loop *loop) {
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof at;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    d->loop = loop;
    d->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(d->fd, (struct sockaddr *)&at, sizeof at), 0);
    cr_assert_eq(getsockname(d->fd, (struct sockaddr *)&at, &len), 0);
    snprintf(d->address, sizeof d->address, "127.0.0.1:%u", ntohs(at.sin_port));
    cr_assert_eq(cb_watch_new(&d->watch, loop, d->fd, CB_READABLE, on_question, d), CB_OK);
}

static void names_close(struct names *d) {
    for (size_t i = 0; i < d->n; i++)
        if (d->late[i].names) cb_alarm_stop(&d->late[i].alarm);
    cb_watch_free(d->watch);
    close(d->fd);
}

static bool has_ipv6(void) {
    struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    const bool ok = fd >= 0 && bind(fd, (struct sockaddr *)&at, sizeof at) == 0;
    if (fd >= 0) close(fd);
    return ok;
}

Test(client_names, families_and_resolution_delay) {
    static const struct {
        const char *what, *v4, *v6;
        int v4_ms, v6_ms;
        const char *remote; /* that the server sees */
        unsigned at_least_ms, below_ms;
    } rows[] = {
        {"both at once: IPv6 first", "127.0.0.1", "::1", 0, 0, "remote=[::1]:", 0, 1500},
        {"IPv6 a little later: it is waited for", "127.0.0.1", "::1", 0, 20, "remote=[::1]:", 18, 1500},
        {"IPv6 never: 50 ms, and not the time limit of the name server", "127.0.0.1", "::1", 0, SILENT,
         "remote=127.0.0.1:", 48, 1500},
        {"IPv6 too late", "127.0.0.1", "::1", 0, 700, "remote=127.0.0.1:", 48, 650},
        {"IPv4 later: IPv6 does not wait", "127.0.0.1", "::1", 700, 0, "remote=[::1]:", 0, 650},
        {"no IPv6", "127.0.0.1", NULL, 0, 0, "remote=127.0.0.1:", 0, 1500},
        {"no IPv4", NULL, "::1", 0, 0, "remote=[::1]:", 0, 1500},
        {"IPv6 leads nowhere", "127.0.0.1", "100::1", 0, 0, "remote=127.0.0.1:", 0, 1500},
    };
    if (!has_ipv6()) cr_skip_test("this machine has no IPv6");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct names d = {.v4 = rows[i].v4, .v6 = rows[i].v6, .v4_ms = rows[i].v4_ms, .v6_ms = rows[i].v6_ms};
        http_world w;
        http_reply r = {0};
        char url[96];
        http_world_open(&w);
        names_open(&d, w.loop);
        http_serve(&w, (cb_http_server_opts){.listen = ":0"});
        http_client_make(&w, (cb_http_client_opts){.resolver = d.address, .happy_eyeballs_ms = 100});
        snprintf(url, sizeof url, "http://name.example:%s/head", strrchr(w.url, ':') + 1);
        cb_loop_step(w.loop);
        const cb_time begun = cb_loop_now(w.loop);
        http_fetch(&r, &w, (cb_request){0}, url);
        const unsigned took = (unsigned)((cb_loop_now(w.loop) - begun) / CB_MS);
        cr_expect_eq(r.rc, CB_OK, "%s: %d %s", rows[i].what, r.rc, r.detail);
        cr_expect(strstr(r.body, rows[i].remote), "%s: %s", rows[i].what, r.body);
        cr_expect(took >= rows[i].at_least_ms && took < rows[i].below_ms, "%s: %u ms", rows[i].what, took);
        names_close(&d);
        http_world_close(&w);
    }
}

/* The family that came through is remembered: it does not wait for the other one the next time. */
Test(client_names, the_family_that_works_is_remembered) {
    struct names d = {.v4 = "127.0.0.1", .v6 = "100::1"};
    http_world w;
    char url[96];
    http_world_open(&w);
    names_open(&d, w.loop);
    http_serve(&w, (cb_http_server_opts){.listen = "127.0.0.1:0"});
    http_client_make(&w, (cb_http_client_opts){.resolver = d.address, .idle_timeout_ms = 1});
    snprintf(url, sizeof url, "http://name.example:%s/head", strrchr(w.url, ':') + 1);
    for (int i = 0; i < 3; i++) {
        http_reply r = {0};
        http_fetch(&r, &w, (cb_request){0}, url);
        cr_expect_eq(r.rc, CB_OK, "%d: %s", i, r.detail);
        for (int k = 0; k < 20; k++) {
            usleep(1000);
            cb_loop_step(w.loop);
        }
    }
    cb_http_client_stats s = {.size = sizeof s};
    cr_assert_eq(cb_http_client_stats_get(w.client, &s), CB_OK);
    cr_expect_eq(s.opened_h1, 3, "%d connections", (int)s.opened_h1);
    cr_expect_eq(d.n, 2, "%zu questions: one for each family, then the cache", d.n);
    names_close(&d);
    http_world_close(&w);
}
