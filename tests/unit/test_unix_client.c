/* cb_http_client over unix sockets: every version that goes over them, one pool of connections a path, and what it says
 * when nobody is there. */
#include "base/addr.h"
#include "support/http_fixture.h"
#include "support/scratch.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* A world whose server listens on a socket in the file system. */
struct place {
    http_world w;
    char dir[64], to[128]; /* "unix:/..." */
    int fd;
};

static int listen_at(const char *to, int backlog) {
    struct sockaddr_un un;
    cr_assert_eq(cb_unix_addr(&un, cb_unix_path(to)), CB_OK, "%s", cb_last_error());
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&un, sizeof un), 0, "bind %s", to);
    cr_assert_eq(listen(fd, backlog), 0, "listen");
    return fd;
}

static void place_open(struct place *p, const http_way *way) {
    scratch_folder(p->dir, sizeof p->dir, "unix");
    snprintf(p->to, sizeof p->to, "unix:%s/sock", p->dir);
    p->fd = listen_at(p->to, 64);
    http_world_open(&p->w);
    http_serve(&p->w, (cb_http_server_opts){
                          .identity = way->tls ? p->w.me : NULL, .versions = CB_HTTP_1 | CB_HTTP_2, .tcp_fd = p->fd});
}

static void place_close(struct place *p) {
    http_world_close(&p->w);
    unlink(cb_unix_path(p->to));
    rmdir(p->dir);
}

Test(unix_client, every_version_but_http3) {
    for (int i = 0; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        struct place p;
        http_reply r = {0}, big = {0}, head = {0};
        if (way->version == CB_HTTP_3) continue;
        place_open(&p, way);
        http_client_make(&p.w, (cb_http_client_opts){.versions = way->version, .follow_network = 1});
        const char *base = way->tls ? "https://a.test" : "http://a.test";
        char url[64];
        snprintf(url, sizeof url, "%s/hello", base);
        http_fetch(&r, &p.w, (cb_request){.connect_to = p.to}, url);
        cr_expect_eq(r.rc, CB_OK, "%s: %d %s", way->name, r.rc, r.detail);
        cr_expect_str_eq(r.body, "hello\n", "%s: %s", way->name, r.body);
        cr_expect_eq(r.version, (int)way->version, "%s: version %d", way->name, r.version);
        cr_assert_eq(cb_http_client_network_changed(p.w.client), CB_OK);
        snprintf(url, sizeof url, "%s/big?3000000", base);
        http_fetch(&big, &p.w, (cb_request){.connect_to = p.to}, url);
        cr_expect_eq(big.bytes, 3000000, "%s: %zu bytes, %d %s", way->name, big.bytes, big.rc, big.detail);
        snprintf(url, sizeof url, "%s/head", base);
        http_fetch(&head, &p.w, (cb_request){.connect_to = p.to}, url);
        cr_expect(strstr(head.body, "authority=a.test path=/head"), "%s: %s", way->name, head.body);
        cr_expect(strstr(head.body, "remote=unix\n"), "%s: a unix socket has no address: %s", way->name, head.body);
        cb_http_client_stats s = {.size = sizeof s};
        cr_assert_eq(cb_http_client_stats_get(p.w.client, &s), CB_OK);
        cr_expect_eq(s.opened_h1 + s.opened_h2, 1, "%s: one connection for all, also when the network changes",
                     way->name);
        place_close(&p);
    }
}

Test(unix_client, another_path_is_another_server) {
    struct place p, q;
    http_reply r = {0}, s = {0}, t = {0};
    place_open(&p, &http_ways[0]);
    place_open(&q, &http_ways[0]);
    http_client_make(&p.w, (cb_http_client_opts){0});
    http_fetch(&r, &p.w, (cb_request){.connect_to = p.to}, "http://a.test/hello");
    cr_expect_eq(r.rc, CB_OK, "%d %s", r.rc, r.detail);
    cb_http_server_free(p.w.server);
    p.w.server = NULL;
    http_fetch(&s, &p.w, (cb_request){.connect_to = p.to}, "http://a.test/hello");
    cr_expect_eq(s.rc, CB_EUNREACH, "the first one is gone: %d %s", s.rc, s.detail);
    http_begin(&t, &p.w, (cb_request){.connect_to = q.to}, "http://a.test/hello");
    while (!t.closes) {
        cb_loop_step(p.w.loop);
        cb_loop_step(q.w.loop);
    }
    cr_expect_eq(t.rc, CB_OK, "the second one answers: %d %s", t.rc, t.detail);
    cr_expect_eq(q.w.heads, 1, "%d requests", q.w.heads);
    place_close(&p);
    place_close(&q);
}

Test(unix_client, says_why_not) {
    static const struct {
        const char *path; /* below the folder */
        int rc;
        const char *why;
    } rows[] = {{"/nothing", CB_EUNREACH, "/nothing: there is no such socket"},
                {"/left", CB_EUNREACH, "/left: Connection refused"},
                {"/file", CB_EUNREACH, "/file: Connection refused"},
                {"/datagrams", CB_ESYS, "/datagrams: Protocol wrong type"},
                {"/closed/sock", CB_EPERM, "/closed/sock: Permission denied"}};
    struct place p;
    char path[160], sub[96];
    struct sockaddr_un un;
    place_open(&p, &http_ways[0]);
    http_client_make(&p.w, (cb_http_client_opts){.connect_timeout_ms = 2000});
    snprintf(path, sizeof path, "unix:%s/left", p.dir); /* a server that died left it */
    close(listen_at(path, 1));
    snprintf(path, sizeof path, "%s/file", p.dir);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    snprintf(path, sizeof path, "%s/datagrams", p.dir);
    cr_assert_eq(cb_unix_addr(&un, path), CB_OK);
    int datagrams = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(datagrams, (struct sockaddr *)&un, sizeof un), 0);
    snprintf(sub, sizeof sub, "%s/closed", p.dir);
    cr_assert_eq(mkdir(sub, 0700), 0);
    snprintf(path, sizeof path, "unix:%s/closed/sock", p.dir);
    int closed = listen_at(path, 1);
    cr_assert_eq(chmod(sub, 0), 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        http_reply r = {0};
        const bool was_root = rows[i].rc == CB_EPERM && geteuid() == 0; /* who may everything */
        snprintf(path, sizeof path, "unix:%s%s", p.dir, rows[i].path);
        if (was_root) cr_assert_eq(seteuid(65534), 0);
        http_fetch(&r, &p.w, (cb_request){.connect_to = path}, "http://a.test/hello");
        if (was_root) cr_assert_eq(seteuid(0), 0);
        cr_expect_eq(r.rc, rows[i].rc, "%s: %d %s", rows[i].path, r.rc, r.detail);
        cr_expect(strstr(r.detail, rows[i].why), "%s: %s", rows[i].path, r.detail);
        cr_expect_eq(r.closes, 1, "%s: %d on_close", rows[i].path, r.closes);
    }
    close(closed);
    close(datagrams);
    chmod(sub, 0700);
    static const char *const left[] = {"/closed/sock", "/closed", "/datagrams", "/file", "/left"};
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        snprintf(path, sizeof path, "%s%s", p.dir, left[i]);
        cr_expect_eq(remove(path), 0, "%s", path);
    }
    place_close(&p);
}

Test(unix_client, waits_while_the_queue_is_full) {
    struct place p;
    http_reply r = {0}, late = {0};
    char to[128], path[128];
    int filler[8], n = 0;
    struct sockaddr_un un;
    place_open(&p, &http_ways[0]);
    http_client_make(&p.w, (cb_http_client_opts){.connect_timeout_ms = 300});
    snprintf(to, sizeof to, "unix:%s/full", p.dir);
    int fd = listen_at(to, 0);
    snprintf(path, sizeof path, "%s/full", p.dir);
    cr_assert_eq(cb_unix_addr(&un, path), CB_OK);
    for (; n < 8; n++) {
        filler[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (connect(filler[n], (struct sockaddr *)&un, sizeof un) < 0) break;
    }
    cr_assert_lt(n, 8, "the queue never fills");
    http_fetch(&r, &p.w, (cb_request){.connect_to = to}, "http://a.test/hello");
    cr_expect_eq(r.rc, CB_ETIMEOUT, "%d %s", r.rc, r.detail);
    http_begin(&late, &p.w, (cb_request){.connect_to = to, .timeout_ms = 2000}, "http://a.test/hello");
    for (int i = 0; i < 5; i++)
        cb_loop_step(p.w.loop);
    cr_expect_eq(late.closes, 0, "%d %s", late.rc, late.detail);
    int got = -1;
    for (int i = 0; i <= n + 1 && got < 0; i++) { /* behind those that filled the queue comes ours */
        int one = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        char head[512];
        for (int turn = 0; turn < 20 && i >= n; turn++) {
            usleep(2000);
            cb_loop_step(p.w.loop);
        }
        ssize_t len = i < n ? 0 : recv(one, head, sizeof head, MSG_DONTWAIT);
        if (len > 0 && strncmp(head, "GET /hello", 10) == 0)
            got = one;
        else
            close(one);
        if (i + 1 == n) { /* there is room now */
            for (int turn = 0; turn < 20; turn++) {
                usleep(2000);
                cb_loop_step(p.w.loop);
            }
        }
    }
    cr_assert_geq(got, 0, "the request never came");
    static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    cr_assert_eq(write(got, answer, sizeof answer - 1), (ssize_t)sizeof answer - 1);
    http_run(&p.w, &late.closes);
    cr_expect_eq(late.rc, CB_OK, "%d %s", late.rc, late.detail);
    cr_expect_str_eq(late.body, "ok");
    close(got);
    close(fd);
    for (int i = 0; i <= n; i++)
        close(filler[i]);
    unlink(path);
    place_close(&p);
}

Test(unix_client, refuses_what_cannot_be) {
    static const char longest[] = "unix:/"
                                  "0123456789012345678901234567890123456789012345678901234567890123456789"
                                  "0123456789012345678901234567890123456789";
    const struct {
        cb_request req;
        const char *why;
    } rows[] = {{{.connect_to = "unix:relative"}, "absolute"},
                {{.connect_to = "unix:"}, "absolute"},
                {{.connect_to = longest}, "the kernel takes 107"},
                {{.connect_to = "unix:/x", .url = "https://a.test/", .versions = CB_HTTP_3}, "HTTP/3"}};
    http_world w;
    http_world_open(&w);
    http_client_make(&w, (cb_http_client_opts){0});
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_exchange *x = NULL;
        cb_request req = rows[i].req;
        req.size = sizeof req;
        if (!req.url) req.url = "http://a.test/";
        cr_expect_eq(cb_http_request(&x, w.client, &req, NULL, NULL), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), rows[i].why), "row %zu: %s", i, cb_last_error());
    }
    http_world_close(&w);
}
