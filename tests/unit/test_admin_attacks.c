/* What somebody does who wants in, or wants others out: slow, large, many, smuggled. */
#include "support/admin_fixture.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static admin_reply r;
static int n_calls;
static size_t n_bytes;

static int count(cb_admin_call *c, void *user) {
    (void)user;
    n_calls++;
    n_bytes = cb_admin_body(c).len;
    return cb_admin_send_nothing(c);
}

static int for_a_tenant(cb_admin_call *c, void *user) {
    (void)user;
    n_calls++;
    if (!cb_admin_of_tenant(cb_admin_who(c), cb_admin_param(c, "tenant")))
        return cb_admin_problem(c, 403, "another tenant's");
    return cb_admin_send_nothing(c);
}

static const cb_admin_resource rows[] = {
    {.method = "PUT",
     .path = "/v1/bytes",
     .id = "putBytes",
     .summary = "Bytes",
     .rights = CB_RIGHT_CHANGE,
     .flags = CB_ADMIN_CHANGES | CB_ADMIN_RAW,
     .consumes = "application/octet-stream",
     .handle = count},
    {.method = "PUT",
     .path = "/v1/json",
     .id = "putJson",
     .summary = "JSON",
     .rights = CB_RIGHT_CHANGE,
     .flags = CB_ADMIN_CHANGES,
     .consumes = "application/json",
     .handle = count},
    {.method = "PUT",
     .path = "/v1/tenants/{tenant}/routes",
     .id = "putRoutes",
     .summary = "Routes",
     .rights = CB_RIGHT_CHANGE_TENANT,
     .flags = CB_ADMIN_CHANGES,
     .handle = for_a_tenant},
};

static void open_world(admin_world *w, uint32_t with, const char *role, const cb_admin_opts *o) {
    admin_open(w, with, role, o);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_admin_resource one = rows[i];
        one.size = sizeof one;
        cr_assert_eq(cb_admin_add(w->a, &one, NULL), CB_OK, "%s", cb_last_error());
    }
    n_calls = 0;
    n_bytes = 0;
}

static int say(admin_world *w, const char *text) {
    const int fd = admin_dial(w->path);
    cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
    admin_turn(w, 5);
    return fd;
}

static bool is_open(admin_world *w, int fd) {
    char byte;
    admin_turn(w, 5);
    const ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
    return n > 0 || (n < 0 && errno == EAGAIN);
}

Test(admin_attacks, another_tenant) {
    static const struct {
        const char *line;
        int status;
    } cases[] = {
        {"PUT /v1/tenants/acme/routes", 204},
        {"PUT /v1/tenants/beta/routes", 403},
        {"PUT /v1/tenants/ACME/routes", 403},
        {"PUT /v1/tenants/acme%20/routes", 403},
        {"PUT /v1/tenants/acme%00/routes", 400},
        {"PUT /v1/tenants/beta%2f..%2facme/routes", 400},
        {"PUT /v1/tenants/acme/../beta/routes", 400},
        {"PUT /v1/tenants/%2e%2e/routes", 400},
        {"PUT /v1/tenants//routes", 400},
        {"PUT /v1/tenants/%61cme/routes", 204},
        {"PUT /v1/tenants/acme/routes?tenant=beta", 400},
    };
    admin_world w;
    open_world(&w, ADMIN_AUDIT, "tenant-admin", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        cr_expect_eq(admin_ask(&w, &r, cases[i].line, "content-length: 0", NULL), cases[i].status, "%s: %s",
                     cases[i].line, r.text);
    cr_expect_eq(admin_ask(&w, &r, "PUT /v1/json", "content-type: application/json", "1"), 403);
    cr_expect_eq(admin_ask(&w, &r, "GET /metrics", NULL, NULL), 404, "there are none");
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/audit", NULL, NULL), 403);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/events", NULL, NULL), 403);
    admin_role(&w, "viewer");
    cr_expect_eq(admin_ask(&w, &r, "PUT /v1/tenants/acme/routes", "content-length: 0", NULL), 403);
    admin_close(&w);
}

/* Two requests that some reader could take for one, or for others. */
Test(admin_attacks, smuggled_requests) {
    static const struct {
        const char *text;
        int status;
    } cases[] = {
        {"PUT /v1/json HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: "
         "1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
         400},
        {"PUT /v1/json HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 1\r\ncontent-length: "
         "2\r\n\r\n12",
         400},
        {"PUT /v1/json HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked, "
         "identity\r\n\r\n0\r\n\r\n",
         400},
        {"GET /v1/whoami HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n", 400},
        {"GET /v1/whoami\t HTTP/1.1\r\nhost: x\r\n\r\n", 400},
        {"GET http://x/v1/whoami HTTP/1.1\r\nhost: x\r\n\r\n", 200}, /* absolute form (RFC 9112, 3.2.2) */
        {"GET http://x/../v1/whoami HTTP/1.1\r\nhost: x\r\n\r\n", 400},
        {"GET /v1/whoami%20HTTP/1.1 HTTP/1.1\r\nhost: x\r\n\r\n", 404},
        {"GET /v1/whoami#x HTTP/1.1\r\nhost: x\r\n\r\n", 400},
        {"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 400},
        {"CONNECT localhost:1 HTTP/1.1\r\nhost: localhost:1\r\n\r\n", 400},
    };
    admin_world w;
    open_world(&w, 0, "admin", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int fd = say(&w, cases[i].text);
        cr_expect_eq(admin_read(&w, fd, &r), cases[i].status, "%s: %s", cases[i].text, r.text);
        close(fd);
    }
    cr_expect_eq(n_calls, 0);
    admin_close(&w);
}

Test(admin_attacks, bodies_that_are_too_large) {
    const cb_admin_opts o = {.max_body_bytes = 100000};
    admin_world w;
    static char body[200001];
    open_world(&w, 0, "admin", &o);
    memset(body, 'x', sizeof body - 1);
    body[100000] = '\0';
    cr_expect_eq(admin_ask(&w, &r, "PUT /v1/bytes", "content-type: application/octet-stream", body), 204, "%s", r.text);
    cr_expect_eq(n_bytes, 100000);
    body[100000] = 'x';
    body[100001] = '\0';
    cr_expect_eq(admin_ask(&w, &r, "PUT /v1/bytes", "content-type: application/octet-stream", body), 413, "%s", r.text);
    int fd = say(&w, "PUT /v1/bytes HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ncontent-length: "
                     "18446744073709551615\r\n\r\n");
    cr_expect(admin_read(&w, fd, &r) == 400 || r.status == 413, "%s", r.text);
    close(fd);
    fd = say(&w, "PUT /v1/bytes HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n"
                 "content-length: 100001\r\nexpect: 100-continue\r\n\r\n");
    cr_expect_eq(admin_read(&w, fd, &r), 413, "before anything of it is sent: %s", r.text);
    close(fd);
    /* No length is told: chunks, until it is too much. The answer comes at once, and the rest is not kept. */
    fd = say(&w, "PUT /v1/bytes HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ntransfer-encoding: "
                 "chunked\r\n\r\n");
    char chunk[8200];
    const int head = snprintf(chunk, sizeof chunk, "2000\r\n");
    memset(chunk + head, 'x', 8192);
    memcpy(chunk + head + 8192, "\r\n", 2);
    for (int i = 0; i < 20; i++) {
        (void)!send(fd, chunk, (size_t)head + 8194, MSG_NOSIGNAL);
        cb_loop_step(w.loop);
    }
    cr_expect_eq(admin_read(&w, fd, &r), 413, "%s", r.text);
    close(fd);
    cr_expect_eq(n_calls, 1);
    admin_close(&w);
}

/* The bodies of many at once are bounded, too. */
Test(admin_attacks, many_large_bodies) {
    enum { MANY = 40 };
    const cb_admin_opts o = {.max_body_bytes = 10000};
    admin_world w;
    int fds[MANY], refused = 0;
    static char text[10000];
    open_world(&w, 0, "admin", &o);
    const int n = snprintf(
        text, sizeof text,
        "PUT /v1/bytes HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ncontent-length: 10000\r\n\r\n");
    memset(text + n, 'x', sizeof text - (size_t)n);
    for (int i = 0; i < MANY; i++) {
        fds[i] = admin_dial(w.path);
        cr_assert_eq(send(fds[i], text, sizeof text, MSG_NOSIGNAL), (ssize_t)sizeof text); /* all but the last bytes */
        admin_turn(&w, 1);
    }
    admin_turn(&w, 20);
    for (int i = 0; i < MANY; i++) {
        char answer[64] = "";
        if (recv(fds[i], answer, sizeof answer - 1, MSG_DONTWAIT) > 0 && strstr(answer, "503")) refused++;
        close(fds[i]);
    }
    cr_expect_eq(refused, MANY - 16, "%d were refused", refused);
    admin_turn(&w, 20);
    cr_expect_eq(admin_ask(&w, &r, "PUT /v1/bytes", "content-type: application/octet-stream", "x"), 204,
                 "room came back: %s", r.text);
    admin_close(&w);
}

Test(admin_attacks, slow_requests) {
    const cb_admin_opts o = {.request_timeout_ms = 200};
    static const char *const begins[] = {
        "GET /v1/who",
        "GET /v1/whoami HTTP/1.1\r\nhost: x\r\nx-slow: ",
        "PUT /v1/bytes HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\ncontent-length: "
        "1000\r\n\r\nabc",
    };
    admin_world w;
    open_world(&w, 0, "admin", &o);
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) {
        const int fd = say(&w, begins[i]);
        for (int k = 0; k < 40 && is_open(&w, fd); k++) { /* a byte now and then does not buy time */
            (void)!send(fd, "x", 1, MSG_NOSIGNAL);
            admin_turn(&w, 5);
            char answer[16];
            if (recv(fd, answer, sizeof answer, MSG_DONTWAIT | MSG_PEEK) > 0) break;
        }
        cr_expect_eq(admin_read(&w, fd, &r), 408, "%s: %s", begins[i], r.text);
        if (i == 2) cr_expect(strstr(r.text, "application/problem+json"), "%s", r.text);
        close(fd);
    }
    cr_expect_eq(n_calls, 0);
    admin_close(&w);
}

/* Answered, and it goes on sending: it is put out when its time is over. */
Test(admin_attacks, a_body_without_end_after_the_answer) {
    const cb_admin_opts o = {.request_timeout_ms = 300};
    admin_world w;
    open_world(&w, 0, "viewer", &o);
    const int fd = say(&w, "PUT /v1/bytes HTTP/1.1\r\nhost: x\r\ncontent-type: "
                           "application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    cr_expect_eq(admin_read(&w, fd, &r), 403, "%s", r.text);
    bool over = false;
    for (int i = 0; i < 1000 && !over; i++) { /* closing lingers for 2 s */
        over = send(fd, "5\r\nabcde\r\n", 10, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN;
        admin_turn(&w, 5);
    }
    cr_expect(over, "it may send for ever");
    close(fd);
    admin_close(&w);
}

Test(admin_attacks, all_connections_taken) {
    const cb_admin_opts o = {.max_conns = 8};
    admin_world w;
    int fds[30];
    open_world(&w, 0, "admin", &o);
    for (int i = 0; i < 8; i++)
        fds[i] = say(&w, "GET /livez HTTP/1.1\r\nhost: x\r\n");
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami", NULL, NULL), 503, "%s", r.text);
    cr_expect(strstr(r.body, "8 connections"), "%s", r.body);
    for (int i = 8; i < 30; i++)
        fds[i] = say(&w, "GET /livez HTTP/1.1\r\nhost: x\r\n");
    cb_http_server_stats st = {.size = sizeof st};
    cr_assert_eq(cb_http_server_stats_get(cb_admin_server(w.a, 0), &st), CB_OK);
    cr_expect_leq(st.conns_h1, 16, "%llu connections", (unsigned long long)st.conns_h1);
    for (int i = 0; i < 30; i++)
        close(fds[i]);
    admin_turn(&w, 50);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami", NULL, NULL), 200, "%s", r.text);
    admin_close(&w);
}

/* Scrapers that ask for a large page and read nothing: few pages are made, and they are put out. */
Test(admin_attacks, scrapers_that_never_read) {
    const cb_admin_opts o = {.send_timeout_ms = 3000, .max_conns = 64}; /* sanitizers make pages slowly */
    static const char *const labels[] = {"which"};
    static char value[200];
    admin_world w;
    cb_metric *family = NULL;
    cb_meter *meter = NULL;
    int fds[12];
    open_world(&w, ADMIN_METRICS, "viewer", &o);
    cr_assert_eq(
        cb_metrics_define(&family, w.metrics,
                          CB_OPTS(cb_metric_opts, .name = "many_things", .help = "Many.", .kind = CB_METRIC_GAUGE,
                                  .labels = labels, .labels_len = 1, .max_series = 20000)),
        CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_meter_new(&meter, w.metrics), CB_OK);
    for (int i = 0; i < 5000; i++) {
        cb_gauge *g = NULL;
        memset(value, 'v', sizeof value - 1);
        const int n = snprintf(value, 16, "%d", i);
        value[n] = 'v';
        const cb_slice one = cb_slice_str(value);
        cr_assert_eq(cb_meter_gauge(&g, meter, family, &one), CB_OK);
        cb_gauge_set(g, 1);
    }
    for (int i = 0; i < 12; i++)
        fds[i] = say(&w, "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n");
    int refused = 0;
    for (int i = 0; i < 12; i++) {
        char answer[32] = "";
        (void)!recv(fds[i], answer, sizeof answer - 1, MSG_DONTWAIT | MSG_PEEK);
        refused += strstr(answer, "503") != NULL;
    }
    cr_expect_eq(refused, 8, "%d were refused", refused);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami", NULL, NULL), 200, "others are served: %s", r.text);
    for (int i = 0; i < 200 && admin_ask(&w, &r, "HEAD /metrics", "connection: close", NULL) != 200; i++)
        admin_turn(&w, 50);
    cr_expect_eq(r.status, 200, "and so is the next scrape, when they are put out");
    for (int i = 0; i < 12; i++)
        close(fds[i]);
    cb_meter_free(meter);
    admin_close(&w);
}

/* Deep, wide and odd JSON never reaches a resource, and costs no stack. */
Test(admin_attacks, json_that_is_none) {
    admin_world w;
    static char deep[200001], wide[70000];
    open_world(&w, 0, "admin", NULL);
    memset(deep, '[', sizeof deep - 1);
    cr_expect_eq(admin_ask(&w, &r, "PUT /v1/json", "content-type: application/json", deep), 400, "%s", r.text);
    size_t n = 1;
    wide[0] = '{';
    for (int i = 0; n + 16 < sizeof wide; i++)
        n += (size_t)snprintf(wide + n, sizeof wide - n, "%s\"%d\":1", i ? "," : "", i);
    wide[n] = '}';
    cr_expect_eq(admin_ask(&w, &r, "PUT /v1/json", "content-type: application/json", wide), 400, "%s", r.text);
    static const char *const odd[] = {"\xff", "{\"a\":\"\xc0\xaf\"}",    "\"\\u0000\"",    "{\"a\":1}{}", "nul", "01",
                                      "[1,]", "{\"a\":1,\"\\u0061\":2}", "\xef\xbb\xbf{}", "Infinity"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        cr_expect_eq(admin_ask(&w, &r, "PUT /v1/json", "content-type: application/json", odd[i]), 400, "%s: %s", odd[i],
                     r.text);
    cr_expect_eq(n_calls, 0);
    admin_close(&w);
}
