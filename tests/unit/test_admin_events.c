/* Events as they happen: in order, resumed, filtered; who reads slowly is told what they missed. */
#include "support/admin_fixture.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static admin_reply r;

/* What a listener has got: the text of its stream, without chunks. */
typedef struct listener {
    int fd;
    size_t raw_len, len;
    char raw[1 << 20], text[1 << 20];
    int status;
    bool ended;
} listener;

static listener one, two;

/* Takes chunks apart. */
static void decode(listener *l) {
    char *at = strstr(l->raw, "\r\n\r\n"), *end = l->raw + l->raw_len;
    l->len = 0;
    if (!at) return;
    l->status = atoi(l->raw + 9);
    for (at += 4; at < end;) {
        char *data = strstr(at, "\r\n");
        const size_t size = strtoul(at, NULL, 16);
        if (!data) break;
        data += 2;
        if (size == 0) l->ended = true;
        const size_t have = (size_t)(end - data) < size ? (size_t)(end - data) : size;
        memcpy(l->text + l->len, data, have);
        l->len += have;
        at = data + size + 2;
        if (size == 0) break;
    }
    l->text[l->len] = '\0';
}

static void hear(admin_world *w, listener *l, int ms) {
    for (int i = 0; i < ms; i++) {
        admin_turn(w, 1);
        ssize_t n;
        while (l->raw_len + 1 < sizeof l->raw &&
               (n = recv(l->fd, l->raw + l->raw_len, sizeof l->raw - 1 - l->raw_len, MSG_DONTWAIT)) > 0)
            l->raw_len += (size_t)n;
        l->raw[l->raw_len] = '\0';
    }
    decode(l);
}

static void listen_to(admin_world *w, listener *l, const char *query, const char *fields) {
    char head[512];
    *l = (listener){.fd = admin_dial(w->path)};
    const int n = snprintf(head, sizeof head, "GET /v1/events%s HTTP/1.1\r\nhost: x\r\n%s\r\n", query, fields);
    cr_assert_eq(write(l->fd, head, (size_t)n), n);
    for (int i = 0; i < 2000 && !strstr(l->text, "retry: "); i++)
        hear(w, l, 1);
    cr_assert(strstr(l->text, "retry: "), "%s", l->raw);
}

static int count(const char *text, const char *what) {
    int n = 0;
    for (const char *at = strstr(text, what); at; at = strstr(at + 1, what))
        n++;
    return n;
}

static void tell(admin_world *w, const char *type, int from, int to) {
    char json[64];
    for (int i = from; i < to; i++) {
        snprintf(json, sizeof json, "{\"n\":%d}", i);
        cr_assert_eq(cb_admin_event(w->a, type, cb_slice_str(json)), CB_OK, "%s", cb_last_error());
    }
}

Test(admin_events, are_told_in_order) {
    admin_world w;
    admin_open(&w, 0, "viewer", NULL);
    tell(&w, "config", 0, 3); /* before anybody listens */
    listen_to(&w, &one, "", "");
    listen_to(&w, &two, "?types=drain,origin", "");
    cr_expect_eq(cb_admin_listeners(w.a), 2);
    tell(&w, "config", 3, 6);
    tell(&w, "drain", 6, 7);
    hear(&w, &one, 20);
    hear(&w, &two, 20);
    cr_expect_eq(one.status, 200, "%s", one.raw);
    cr_expect(strstr(one.raw, "content-type: text/event-stream\r\n") && strstr(one.raw, "cache-control: no-store\r\n"),
              "%s", one.raw);
    cr_expect(strstr(one.text, "retry: 1000\n\n"), "%s", one.text);
    cr_expect_eq(count(one.text, "event: config\n"), 3, "%s", one.text);
    cr_expect(strstr(one.text, "-4\nevent: config\ndata: {\"n\":3}\n\nid: "), "%s", one.text);
    cr_expect(strstr(one.text, "event: drain\ndata: {\"n\":6}\n\n"), "%s", one.text);
    cr_expect_eq(count(two.text, "event: "), 1, "%s", two.text);
    cr_expect_eq(count(two.text, "event: drain\n"), 1, "%s", two.text);
    close(one.fd);
    close(two.fd);
    admin_turn(&w, 20);
    tell(&w, "drain", 7, 9); /* a client may end its own direction: that it is gone shows when something is sent */
    for (int i = 0; i < 500 && cb_admin_listeners(w.a); i++)
        admin_turn(&w, 10);
    cr_expect_eq(cb_admin_listeners(w.a), 0);
    admin_close(&w);
}

/* The ID of the last event of a stream's text. */
static void last_id(const listener *l, char out[80]) {
    const char *last = NULL;
    for (const char *at = strstr(l->text, "id: "); at; at = strstr(at + 1, "id: "))
        last = at;
    cr_assert(last, "%s", l->text);
    snprintf(out, 80, "last-event-id: %.*s\r\n", (int)strcspn(last + 4, "\n"), last + 4);
}

Test(admin_events, go_on_where_they_ended) {
    const cb_admin_opts o = {.keep_events = 8};
    admin_world w;
    char field[80];
    admin_open(&w, 0, "viewer", &o);
    listen_to(&w, &one, "", "");
    tell(&w, "config", 0, 2);
    hear(&w, &one, 20);
    last_id(&one, field);
    close(one.fd);
    admin_turn(&w, 10);
    tell(&w, "config", 2, 7);
    listen_to(&w, &one, "", field);
    hear(&w, &one, 20);
    cr_expect_eq(count(one.text, "event: config\n"), 5, "%s", one.text);
    cr_expect(strstr(one.text, "{\"n\":2}") && strstr(one.text, "{\"n\":6}") && !strstr(one.text, "{\"n\":1}"), "%s",
              one.text);
    cr_expect_eq(count(one.text, "event: gap"), 0, "%s", one.text);
    close(one.fd);
    admin_turn(&w, 10);
    tell(&w, "config", 7, 27); /* more than are kept: 20 of them and 5 were missed, 8 are there */
    listen_to(&w, &one, "", field);
    hear(&w, &one, 20);
    cr_expect(strstr(one.text, "event: gap\ndata: {\"missed\":17}\n\n"), "%s", one.text);
    cr_expect_eq(count(one.text, "event: config\n"), 8, "%s", one.text);
    close(one.fd);
    listen_to(&w, &one, "", "last-event-id: 123-4\r\n"); /* of another process */
    hear(&w, &one, 20);
    cr_expect(strstr(one.text, "event: gap\ndata: {\"missed\":0}\n\n"), "%s", one.text);
    cr_expect_eq(count(one.text, "event: config\n"), 8, "%s", one.text);
    close(one.fd);
    admin_close(&w);
}

/* 10,000 events of some hundred bytes to somebody who reads nothing meanwhile: memory stays, and the gap is told. */
Test(admin_events, a_slow_reader_is_overtaken) {
    admin_world w;
    char json[600];
    admin_open(&w, ADMIN_METRICS, "viewer", NULL);
    memset(json, 'x', sizeof json);
    listen_to(&w, &one, "", "");
    for (int i = 0; i < 10000; i++) {
        const int n = snprintf(json, 32, "{\"n\":%5d,\"pad\":\"", i);
        json[n] = 'x';
        memcpy(json + 500, "\"}", 3);
        cr_assert_eq(cb_admin_event(w.a, "config", cb_slice_str(json)), CB_OK);
        if (i % 100 == 0) cb_loop_step(w.loop);
    }
    for (int i = 0; i < 400 && !strstr(one.text, "{\"n\": 9999,"); i++)
        hear(&w, &one, 5);
    int last = -1, seen = 0, missed = 0;
    for (char *at = strstr(one.text, "data: {"); at; at = strstr(at + 1, "data: {")) {
        if (strncmp(at, "data: {\"missed\":", 16) == 0) {
            missed += atoi(at + 16);
            continue;
        }
        const int n = atoi(at + 11);
        cr_assert_gt(n, last, "out of order");
        last = n;
        seen++;
    }
    cr_expect_eq(last, 9999);
    cr_expect_gt(missed, 5000, "%d", missed);
    cr_expect_eq(seen + missed, 10000, "%d seen, %d missed", seen, missed);
    cr_expect_eq(admin_metric(&w, "cb_admin_events", NULL, NULL), 10000);
    cr_expect_eq(admin_metric(&w, "cb_admin_missed_events", NULL, NULL), missed);
    cr_expect_eq(admin_metric(&w, "cb_admin_listeners", NULL, NULL), 1);
    close(one.fd);
    admin_close(&w);
}

Test(admin_events, one_that_never_reads_is_put_out) {
    const cb_admin_opts o = {.send_timeout_ms = 200};
    admin_world w;
    char json[8000];
    admin_open(&w, 0, "viewer", &o);
    memset(json, '1', sizeof json - 1);
    json[sizeof json - 1] = '\0';
    listen_to(&w, &one, "", "");
    for (int i = 0; i < 200; i++)
        cr_assert_eq(cb_admin_event(w.a, "config", cb_slice_str(json)), CB_OK);
    admin_turn(&w, 600);
    cr_expect_eq(cb_admin_listeners(w.a), 0);
    close(one.fd);
    admin_close(&w);
}

Test(admin_events, passing_ones_are_not_kept) {
    admin_world w;
    admin_open(&w, 0, "viewer", NULL);
    listen_to(&w, &one, "", "");
    cr_assert_eq(cb_admin_event_passing(w.a, "stats", cb_slice_str("{\"rps\":1}")), CB_OK);
    tell(&w, "config", 0, 1);
    hear(&w, &one, 20);
    cr_expect(strstr(one.text, "event: stats\ndata: {\"rps\":1}\n\n"), "%s", one.text);
    listen_to(&w, &two, "", "last-event-id: 1-1\r\n");
    hear(&w, &two, 20);
    cr_expect_eq(count(two.text, "stats"), 0, "%s", two.text);
    cr_expect_eq(count(two.text, "config"), 1, "%s", two.text);
    close(one.fd);
    close(two.fd);
    admin_close(&w);
}

Test(admin_events, end_with_roles_and_drain) {
    admin_world w;
    admin_open(&w, 0, "viewer", NULL);
    listen_to(&w, &one, "", "");
    admin_role(&w, "viewer"); /* a reload that changes nothing for anybody */
    hear(&w, &one, 20);
    cr_expect(!one.ended, "%s", one.raw);
    admin_role(&w, "tenant-admin");
    hear(&w, &one, 20);
    cr_expect(one.ended, "%s", one.raw);
    close(one.fd);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/events", NULL, NULL), 403, "who may not read hears nothing");
    admin_role(&w, "viewer");
    listen_to(&w, &two, "", "");
    cr_assert_eq(cb_admin_drain(w.a, 1000, 0, NULL, NULL), CB_OK);
    hear(&w, &two, 20);
    cr_expect(two.ended, "%s", two.raw);
    close(two.fd);
    admin_close(&w);
}

Test(admin_events, mistakes) {
    static char big[CB_ADMIN_EVENT_BYTES + 2];
    memset(big, '1', CB_ADMIN_EVENT_BYTES + 1);
    const struct {
        const char *type, *json;
        int rc;
    } rows[] = {{NULL, "1", CB_EINVAL},     {"", "1", CB_EINVAL},
                {"A", "1", CB_EINVAL},      {"a\nb", "1", CB_EINVAL},
                {"a", "", CB_EINVAL},       {"a", "1\n2", CB_EINVAL},
                {"a", "1\r2", CB_EINVAL},   {"a", big, CB_ELIMIT},
                {"log-levels", "1", CB_OK}, {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "1", CB_EINVAL}};
    admin_world w;
    admin_open(&w, ADMIN_NO_DOOR, "viewer", NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(cb_admin_event(w.a, rows[i].type, cb_slice_str(rows[i].json)), rows[i].rc, "row %zu", i);
        cr_expect_eq(cb_admin_event_passing(w.a, rows[i].type, cb_slice_str(rows[i].json)), rows[i].rc, "row %zu", i);
    }
    admin_close(&w);
}

Test(admin_events, only_so_many_listen) {
    admin_world w;
    int fds[65];
    const cb_admin_opts o = {.max_conns = 200};
    static const char text[] = "GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n";
    admin_open(&w, 0, "viewer", &o);
    for (int i = 0; i < 64; i++) {
        fds[i] = admin_dial(w.path);
        cr_assert_eq(write(fds[i], text, sizeof text - 1), (ssize_t)sizeof text - 1);
        cb_loop_step(w.loop);
    }
    admin_turn(&w, 50);
    cr_expect_eq(cb_admin_listeners(w.a), 64);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/events", NULL, NULL), 429, "%s", r.text);
    for (int i = 0; i < 64; i++)
        close(fds[i]);
    admin_close(&w);
}
