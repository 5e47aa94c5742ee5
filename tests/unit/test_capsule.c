#include "base/error.h"
#include "tunnel/capsule.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Test(capsule, varints) {
    /* RFC 9000, A.1, and the edges. */
    static const struct {
        uint64_t v;
        uint8_t bytes[8];
        size_t len;
    } rows[] = {{151288809941952652, {0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c}, 8},
                {494878333, {0x9d, 0x7f, 0x3e, 0x7d}, 4},
                {15293, {0x7b, 0xbd}, 2},
                {37, {0x25}, 1},
                {0, {0}, 1},
                {63, {0x3f}, 1},
                {64, {0x40, 0x40}, 2},
                {16383, {0x7f, 0xff}, 2},
                {16384, {0x80, 0, 0x40, 0}, 4},
                {1073741823, {0xbf, 0xff, 0xff, 0xff}, 4},
                {1073741824, {0xc0, 0, 0, 0, 0x40, 0, 0, 0}, 8},
                {CB_VARINT_MAX, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 8}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t out[8];
        uint64_t v;
        cr_expect_eq(cb_varint_put(out, rows[i].v), rows[i].len);
        cr_expect(memcmp(out, rows[i].bytes, rows[i].len) == 0, "row %zu", i);
        cr_expect_eq(cb_varint_get((cb_slice){out, rows[i].len}, &v), rows[i].len);
        cr_expect_eq(v, rows[i].v);
        cr_expect_eq(cb_varint_get((cb_slice){out, rows[i].len - 1}, &v), 0);
    }
    uint64_t v;
    static const uint8_t longer[] = {0x40, 0x25};
    cr_expect_eq(cb_varint_get((cb_slice){longer, 2}, &v), 2);
    cr_expect_eq(v, 37);
}

typedef struct seen {
    char log[4096];
    size_t others;
    int fail; /* the n-th datagram fails */
} seen;

static void flush_others(seen *s) {
    if (s->others) snprintf(s->log + strlen(s->log), 64, "other %zu;", s->others);
    s->others = 0;
}

static int datagram(void *user, cb_slice payload) {
    seen *s = user;
    flush_others(s);
    snprintf(s->log + strlen(s->log), 64, "datagram %zu %.*s;", payload.len, payload.len < 9 ? (int)payload.len : 0,
             payload.base);
    return s->fail && --s->fail == 0 ? CB_EUSER : CB_OK;
}

static int other(void *user, cb_slice bytes) {
    ((seen *)user)->others += bytes.len;
    return CB_OK;
}

static const cb_capsule_ops ops = {datagram, other};

static int feed_all(seen *s, const uint8_t *in, size_t len, size_t step, int *ended, uint64_t *skipped) {
    cb_capsules c;
    int rc = CB_OK;
    cb_capsules_init(&c, NULL, &ops, s);
    for (size_t at = 0; rc == CB_OK && at < len; at += step) {
        size_t n = len - at < step ? len - at : step;
        uint8_t *copy = malloc(n);
        memcpy(copy, in + at, n);
        rc = cb_capsules_feed(&c, (cb_slice){copy, n});
        free(copy);
    }
    flush_others(s);
    *ended = cb_capsules_end(&c);
    *skipped = c.skipped;
    cb_capsules_free(&c);
    return rc;
}

Test(capsule, streams) {
    static const struct {
        const char *in;
        size_t len;
        const char *log;
        int end;
    } rows[] = {{"", 0, "", CB_OK},
                {"\0\3abc", 5, "datagram 3 abc;", CB_OK},
                {"\0\0", 2, "datagram 0 ;", CB_OK},
                {"\0\3abc\0\1z", 8, "datagram 3 abc;datagram 1 z;", CB_OK},
                {"\x40\0\x80\0\0\2hi", 8, "datagram 2 hi;", CB_OK}, /* longer encodings of 0 and 2 */
                {"\x29\2xy\0\1z", 7, "other 4;datagram 1 z;", CB_OK},
                {"\x29\0\0\1z", 5, "other 2;datagram 1 z;", CB_OK},
                {"\0\3ab", 4, "", CB_EPROTO},
                {"\0", 1, "", CB_EPROTO},
                {"\xc0", 1, "", CB_EPROTO},
                {"\x29\2x", 3, "other 3;", CB_EPROTO}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t step = 1; step < 10; step++) {
            seen s = {0};
            int ended;
            uint64_t skipped;
            int rc = feed_all(&s, (const uint8_t *)rows[i].in, rows[i].len, step, &ended, &skipped);
            cr_expect_eq(rc, CB_OK);
            cr_expect(strcmp(s.log, rows[i].log) == 0, "row %zu, step %zu: %s", i, step, s.log);
            cr_expect_eq(ended, rows[i].end);
        }
}

Test(capsule, sizes) {
    static uint8_t in[70000];
    for (size_t len = CB_DATAGRAM_MAX; len <= CB_DATAGRAM_MAX + 1; len++)
        for (size_t step = 1000; step < sizeof in; step *= 9) {
            seen s = {0};
            int ended;
            uint64_t skipped;
            size_t n = cb_capsule_head(in, CB_CAPSULE_DATAGRAM, len) + len;
            n += cb_capsule_head(in + n, CB_CAPSULE_DATAGRAM, 1);
            in[n++] = '!';
            cr_assert_eq(feed_all(&s, in, n, step, &ended, &skipped), CB_OK);
            cr_expect(strcmp(s.log, len == CB_DATAGRAM_MAX ? "datagram 65535 ;datagram 1 !;" : "datagram 1 !;") == 0,
                      "%zu, step %zu: %s", len, step, s.log);
            cr_expect_eq(skipped, len - CB_DATAGRAM_MAX);
            cr_expect_eq(ended, CB_OK);
        }
    seen s = {.fail = 2};
    int ended;
    uint64_t skipped;
    cr_expect_eq(feed_all(&s, (const uint8_t *)"\0\1a\0\1b\0\1c", 9, 9, &ended, &skipped), CB_EUSER);
    cr_expect_str_eq(s.log, "datagram 1 a;datagram 1 b;");
}
