/* A client of HTTP/2 with one request under way: what becomes of it when the server says unusual things. */
#include "base/error.h"
#include "support/http_pair.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static size_t hex(uint8_t *out, const char *text) {
    size_t n = 0;
    for (; text[0] && text[1]; text += text[2] == ' ' ? 3 : 2) {
        unsigned v = 0;
        sscanf(text, "%2x", &v);
        out[n++] = (uint8_t)v;
    }
    return n;
}

#define SETTINGS "00 00 00 04 00 00 00 00 00 "
#define OK_HEAD  "00 00 01 01 04 00 00 00 01 88 " /* :status 200 */
#define OK_END   "00 00 01 01 05 00 00 00 01 88 "

Test(h2_client, answers_of_all_kinds) {
    static const struct {
        const char *name, *bytes;
        int closes, rc, status;
        bool alive, refused, again; /* the connection lives, may carry another request */
    } rows[] = {
        {"nothing yet", SETTINGS, 0, 1, 0, true, false, true},
        {"an answer", SETTINGS OK_END, 1, CB_OK, 200, true, false, true},
        {"an answer before SETTINGS", OK_END, 0, 1, 0, false, false, false},
        {"half an answer", SETTINGS OK_HEAD "00 00 02 00 00 00 00 00 01 61 62", 0, 1, 200, true, false, true},
        {"refused", SETTINGS "00 00 04 03 00 00 00 00 01 00 00 00 07", 1, CB_EAGAIN, 0, true, true, true},
        {"cancelled", SETTINGS "00 00 04 03 00 00 00 00 01 00 00 00 08", 1, CB_ECLOSED, 0, true, false, true},
        {"an answer that is cut", SETTINGS OK_HEAD "00 00 04 03 00 00 00 00 01 00 00 00 02", 1, CB_ECLOSED, 200, true,
         false, true},
        {"goaway, not processed", SETTINGS "00 00 08 07 00 00 00 00 00 00 00 00 00 00 00 00 00", 1, CB_EAGAIN, 0, true,
         true, false},
        {"goaway, processed", SETTINGS "00 00 08 07 00 00 00 00 00 00 00 00 01 00 00 00 00 " OK_END, 1, CB_OK, 200,
         true, false, false},
        {"goaway for later", SETTINGS "00 00 08 07 00 00 00 00 00 7f ff ff ff 00 00 00 00", 0, 1, 0, true, false,
         false},
        {"a push before it knows", SETTINGS "00 00 05 05 04 00 00 00 01 00 00 00 02 82", 0, 1, 0, true, false, true},
        {"a push", SETTINGS "00 00 00 04 01 00 00 00 00 00 00 05 05 04 00 00 00 01 00 00 00 02 82", 0, 1, 0, false,
         false, false},
        {"no status", SETTINGS "00 00 05 01 05 00 00 00 01 00 01 78 01 79", 1, CB_EPROTO, 0, true, false, true},
        {"status 101", SETTINGS "00 00 0d 01 05 00 00 00 01 00 07 3a 73 74 61 74 75 73 03 31 30 31", 1, CB_EPROTO, 0,
         true, false, true},
        {"data before the head", SETTINGS "00 00 01 00 00 00 00 00 01 78", 0, 1, 0, false, false, false},
        {"SETTINGS that push", "00 00 06 04 00 00 00 00 00 00 02 00 00 00 01", 0, 1, 0, false, false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pair p;
        uint8_t bytes[128];
        call c = {0};
        pair_init(&p, CB_HTTP_2);
        cr_assert_eq(cb_h2_new(&p.side[0], &p.env[0]), CB_OK);
        cb_hconn *h = p.side[0];
        call_start(&p, &c, NULL);
        cr_assert_eq(h->vt->flush(h, p.now), CB_OK);
        size_t n = hex(bytes, rows[i].bytes);
        int64_t rc = h->vt->feed(h, (cb_slice){bytes, n}, p.now);
        if (rc >= 0) rc = h->vt->flush(h, p.now);
        bool refused = c.rc == CB_EAGAIN;
        bool alive = rc >= 0 && (!h->vt->done(h) || h->draining);
        cr_expect_eq(alive, rows[i].alive, "%s: %s", rows[i].name, alive ? "it lives" : "it ends");
        cr_expect_eq(c.closes, rows[i].closes, "%s: %d ends", rows[i].name, c.closes);
        cr_expect_eq(c.rc, rows[i].rc, "%s: %d, %s", rows[i].name, c.rc, c.reason);
        cr_expect_eq(c.status, rows[i].status, "%s: status %d", rows[i].name, c.status);
        cr_expect_eq(refused, rows[i].refused, "%s", rows[i].name);
        cr_expect_eq(h->vt->capacity(h) > 0, rows[i].again, "%s: capacity %zu", rows[i].name, h->vt->capacity(h));
        h->vt->closed(h, CB_ECLOSED);
        cr_expect_eq(c.closes, 1, "%s: %d ends", rows[i].name, c.closes);
        h->vt->free(h);
        cr_expect_eq(p.live, 0, "%s: %zu bytes are left", rows[i].name, p.live);
        call_free(&c);
        cb_buf_free(&p.pipe[0].bytes);
    }
}

Test(h2_client, the_peers_limit_is_kept) {
    static const char settings[] = "00 00 06 04 00 00 00 00 00 00 03 00 00 00 02"; /* 2 streams */
    pair p;
    uint8_t bytes[32];
    call c[3] = {{0}};
    pair_init(&p, CB_HTTP_2);
    cr_assert_eq(cb_h2_new(&p.side[0], &p.env[0]), CB_OK);
    cb_hconn *h = p.side[0];
    cr_assert_gt(h->vt->capacity(h), 2);
    size_t n = hex(bytes, settings);
    cr_assert_eq(h->vt->feed(h, (cb_slice){bytes, n}, p.now), (int64_t)n);
    cr_assert_eq(h->vt->capacity(h), 2);
    call_start(&p, &c[0], NULL);
    call_start(&p, &c[1], NULL);
    cr_assert_eq(h->vt->capacity(h), 0);
    cr_assert_eq(call_try(&p, &c[2], NULL), CB_EAGAIN);
    h->vt->closed(h, CB_ECLOSED);
    h->vt->free(h);
    cr_assert_eq(p.live, 0);
    for (int i = 0; i < 3; i++)
        call_free(&c[i]);
    cb_buf_free(&p.pipe[0].bytes);
}
