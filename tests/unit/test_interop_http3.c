/* The case of the QUIC interop runner that needs HTTP/3 (the others: test_interop_cases.c): three files on one
 * connection, by the whole server and the whole client, over the runner's line. */
#include "support/quic_fixture.h"
#include <cb/http.h>
#include <criterion/criterion.h>

enum { MB = 1 << 20 };
static const cb_sim_link_opts line = {
    .size = sizeof line, .rate_bps = 10000000, .delay_us = 15000, .buffer_bytes = 25 * 1500};

static void note_port(const cb_sim_packet *p, void *user) {
    uint16_t *port = user;
    if (!*port) *port = p->from_port;
    cr_assert_eq(*port, p->from_port, "more than one connection");
}

typedef struct file {
    uint64_t size, at, sum;
    int closed, rc;
} file;

static uint8_t byte_at(uint64_t at) {
    return (uint8_t)(at * 31 + at / 977);
}

static int push_file(cb_exchange *x, void *user) {
    file *f = user;
    uint8_t block[8192];
    while (f->at < f->size) {
        size_t n = f->size - f->at < sizeof block ? (size_t)(f->size - f->at) : sizeof block;
        for (size_t i = 0; i < n; i++)
            block[i] = byte_at(f->at + i);
        int64_t took = cb_exchange_write(x, (cb_slice){block, n});
        if (took < 0) return took == CB_EAGAIN ? CB_OK : (int)took;
        f->at += (uint64_t)took;
    }
    return cb_exchange_finish(x);
}

static int serve_file(cb_exchange *x, void *user) {
    static const cb_exchange_ops pushing = {.size = sizeof pushing, .on_writable = push_file};
    file *files = user, *f = &files[(cb_exchange_path(x).base[1] - '1') % 3];
    int rc = cb_exchange_handle(x, &pushing, f);
    if (rc == CB_OK) rc = cb_exchange_reply(x, 200, NULL, 0);
    return rc < 0 ? rc : push_file(x, f);
}

static int64_t take_file(cb_exchange *x, cb_slice data, void *user) {
    file *f = user;
    (void)x;
    for (size_t i = 0; i < data.len; i++)
        f->sum += data.base[i] == byte_at(f->at + i); /* how many bytes are right */
    f->at += data.len;
    return (int64_t)data.len;
}

static void end_file(cb_exchange *x, int rc, void *user) {
    file *f = user;
    (void)x;
    f->closed++;
    f->rc = rc;
}

Test(interop_case, http3) {
    static const cb_exchange_ops serving = {.size = sizeof serving, .on_head = serve_file};
    static const cb_exchange_ops taking = {.size = sizeof taking, .on_body = take_file, .on_close = end_file};
    static const char *const urls[] = {"https://10.0.0.2/1", "https://10.0.0.2/2", "https://10.0.0.2/3"};
    file sent[3] = {{.size = MB / 2}, {.size = MB}, {.size = 2 * MB}}, got[3] = {{0}};
    cb_http_server *s = NULL;
    cb_http_client *c = NULL;
    cb_exchange *x = NULL;
    qt_world w;
    uint16_t port = 0;
    qt_world_make_sim(&w, 1, &line, NULL);
    cb_sim_link_tap(w.there, note_port, &port);
    cb_identity *me = tls_pki_identity(&w.pki, "10.0.0.2");
    int rc = cb_http_server_new(&s, w.loop,
                                CB_OPTS(cb_http_server_opts, .listen = ":443", .identity = me, .versions = CB_HTTP_3,
                                        .ops = &serving, .user = sent));
    if (rc == CB_OK)
        rc = cb_http_client_new(&c, w.client_loop,
                                CB_OPTS(cb_http_client_opts, .identity = w.client_id, .versions = CB_HTTP_3));
    for (int i = 0; i < 3 && rc == CB_OK; i++)
        rc = cb_http_request(&x, c, CB_OPTS(cb_request, .url = urls[i]), &taking, &got[i]);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    for (int i = 0; i < 3; i++) {
        cr_assert(qt_until(&w, &got[i].closed, 1), "file %d", i);
        cr_assert_eq(got[i].rc, CB_OK);
        cr_assert_eq(got[i].at, sent[i].size);
        cr_assert_eq(got[i].sum, sent[i].size, "bytes of file %d are wrong", i);
    }
    cb_http_client_free(c);
    cb_http_server_free(s);
    cb_identity_unref(me);
    qt_world_drop(&w);
}
