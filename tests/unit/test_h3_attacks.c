/* A server of HTTP/3 against streams that no honest client sends: each gets the error of RFC 9114, section 8.1. */
#include "base/error.h"
#include "http/h3_conn.h"
#include "http/h3_datagram.h"
#include "support/fake_quic.h"
#include "support/h3_bytes.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

enum {
    CREATION = 0x103,
    CRITICAL = 0x104,
    UNEXPECTED = 0x105,
    FRAME_ERROR = 0x106,
    LOAD = 0x107,
    SETTINGS_ERROR = 0x109,
    MISSING = 0x10a,
    CANCELLED = 0x10c,
    INCOMPLETE = 0x10d,
    MESSAGE = 0x10e,
    QPACK = 0x200,
    QPACK_ENCODER = 0x201,
    QPACK_DECODER = 0x202
};
enum { DATA = 0, HEADERS = 1, SETTINGS = 4, PUSH_PROMISE = 5, GOAWAY = 7, MAX_PUSH_ID = 13 };

static unsigned served;
static int on_end(cb_exchange *x, void *user) {
    (void)user;
    served++;
    return cb_exchange_send_text(x, 200, "hello");
}
static const cb_exchange_ops ops = {.size = sizeof ops, .on_end = on_end};

static void begin(pair *p) {
    pair_init(p, CB_HTTP_3);
    p->serve = &ops;
    p->hold_ready = true;
    served = 0;
    pair_start(p);
    fake_quic_only_server(p->quic);
}

static int64_t control(pair *p) {
    int64_t id = fake_quic_open(p->quic, 0, false);
    fake_quic_send(p->quic, 0, id, "\0\x04\0", 3, false); /* an empty SETTINGS */
    return id;
}

static int64_t request(pair *p, const cb_buf *b, bool fin) {
    int64_t id = fake_quic_open(p->quic, 0, true);
    fake_quic_send(p->quic, 0, id, b->base, b->len, fin);
    return id;
}

static int64_t get(pair *p) {
    cb_buf b;
    cb_buf_init(&b, NULL, 1 << 16);
    h3_headers(&b, H3_GET);
    int64_t id = request(p, &b, true);
    cb_buf_free(&b);
    return id;
}

static void end(pair *p) {
    pair_stop(p);
}

Test(h3_attacks, malformed_requests_are_reset) {
    static const struct {
        const char *lines, *data;
        int bad;
    } rows[] = {
        {H3_GET, "", 0},
        {H3_GET "te= trailers\n", "", 0},
        {H3_POST5, "hello", 0},
        {":method= GET\n:scheme= https\n:authority= a\n", "", 1},
        {":method= GET\n:authority= a\n:path= /\n", "", 1},
        {":scheme= https\n:authority= a\n:path= /\n", "", 1},
        {":method= GET\n:scheme= https\n:path= /\n", "", 1},
        {":method= GET\n:scheme= https\n:authority= a\n:path= \n", "", 1},
        {":method= GET\n:scheme= https\n:authority= a\n:path= x\n", "", 1},
        {":method= GET\n:scheme= https\n:authority= u@a\n:path= /\n", "", 1},
        {":method= G T\n:scheme= https\n:authority= a\n:path= /\n", "", 1},
        {H3_GET ":path= /\n", "", 1},
        {H3_GET "x= y\n:foo= /\n", "", 1},
        {":method= GET\nx= y\n:scheme= https\n:authority= a\n:path= /\n", "", 1},
        {H3_GET ":status= 200\n", "", 1},
        {H3_GET "X-Upper= y\n", "", 1},
        {H3_GET "connection= close\n", "", 1},
        {H3_GET "keep-alive= 1\n", "", 1},
        {H3_GET "proxy-connection= x\n", "", 1},
        {H3_GET "transfer-encoding= chunked\n", "", 1},
        {H3_GET "upgrade= websocket\n", "", 1},
        {H3_GET "te= gzip\n", "", 1},
        {H3_GET "host= b\n", "", 1},
        {H3_GET "na me= y\n", "", 0}, /* nghttp3 leaves such fields out */
        {H3_GET "x= a\rb\n", "", 0},
        {H3_GET "content-length= -1\n", "", 1},
        {H3_GET ":protocol= websocket\n", "", 1},
        {":method= CONNECT\n:scheme= https\n:authority= a\n:path= /\n", "", 1},
        {":method= CONNECT\n", "", 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pair p;
        cb_buf b;
        begin(&p);
        control(&p);
        cb_buf_init(&b, NULL, 1 << 16);
        h3_headers(&b, rows[i].lines);
        if (rows[i].data[0]) h3_frame(&b, DATA, rows[i].data, strlen(rows[i].data));
        int64_t id = request(&p, &b, true);
        pair_run(&p);
        get(&p);
        pair_run(&p);
        const fq_way *w = &fake_quic_stream(p.quic, id)->way[1];
        cr_expect_eq(p.rc[1], 0, "row %zu ended the connection: %s", i, p.quic->side[1].reason);
        cr_expect_eq(w->reset, rows[i].bad, "row %zu: reset %d\n%s", i, w->reset, rows[i].lines);
        if (rows[i].bad) cr_expect_eq(w->reset_code, MESSAGE, "row %zu: 0x%x", i, (unsigned)w->reset_code);
        cr_expect_eq(served, rows[i].bad ? 1U : 2U, "row %zu: %u served", i, served);
        cb_buf_free(&b);
        end(&p);
    }
}

/* ---- connection errors ---- */

typedef struct raw {
    char kind;        /* 'c' control stream (its type is there), 'u' unidirectional, 'r' request */
    const char *data; /* hex */
    bool fin;
} raw;

static size_t hex(uint8_t *out, const char *text) {
    size_t n = 0;
    for (; text[0] && text[1]; text += text[2] == ' ' ? 3 : 2) {
        unsigned v = 0;
        sscanf(text, "%2x", &v);
        out[n++] = (uint8_t)v;
    }
    return n;
}

Test(h3_attacks, streams_that_break_the_rules) {
    static const struct {
        const char *name;
        raw streams[3];
        unsigned error; /* 0: none */
    } rows[] = {
        {"settings", {{'u', "00 04 00", false}}, 0},
        {"an unknown stream", {{'c', "", false}, {'u', "21 01 02 03", true}}, 0},
        {"an unknown frame", {{'c', "21 03 01 02 03", false}}, 0},
        {"a unidirectional stream that ends at once", {{'c', "", false}, {'u', "", true}}, 0},
        {"data before headers", {{'c', "", false}, {'r', "00 01 78", false}}, UNEXPECTED},
        {"settings on a request", {{'c', "", false}, {'r', "04 00", false}}, UNEXPECTED},
        {"goaway on a request", {{'c', "", false}, {'r', "07 01 00", false}}, UNEXPECTED},
        {"a push promise", {{'c', "", false}, {'r', "05 01 00", false}}, UNEXPECTED},
        {"a frame of HTTP/2", {{'c', "", false}, {'r', "06 00", false}}, UNEXPECTED},
        {"half a frame", {{'c', "", false}, {'r', "01 20 00 00", true}}, FRAME_ERROR},
        {"no settings", {{'u', "00 07 01 00", false}}, MISSING},
        {"settings twice", {{'c', "04 00", false}}, UNEXPECTED},
        {"a setting of HTTP/2", {{'u', "00 04 02 02 01", false}}, SETTINGS_ERROR},
        {"a setting cut short", {{'u', "00 04 01 06", false}}, FRAME_ERROR},
        {"h3_datagram 2", {{'u', "00 04 02 33 02", false}}, SETTINGS_ERROR},
        {"two control streams", {{'c', "", false}, {'u', "00", false}}, CREATION},
        {"two encoder streams", {{'c', "", false}, {'u', "02", false}, {'u', "02", false}}, CREATION},
        {"a push stream of a client", {{'c', "", false}, {'u', "01", false}}, CREATION},
        {"the control stream ends", {{'c', "", true}}, CRITICAL},
        {"headers on the control stream", {{'c', "01 00", false}}, UNEXPECTED},
        {"data on the control stream", {{'c', "00 00", false}}, UNEXPECTED},
        {"a field that is not in the table", {{'c', "", false}, {'r', "01 03 00 00 ff", true}}, QPACK},
        {"a dynamic field without a table", {{'c', "", false}, {'r', "01 03 00 00 80", true}}, QPACK},
        {"an encoder stream beyond the capacity", {{'c', "", false}, {'u', "02 3f ff ff 7f", false}}, QPACK_ENCODER},
        {"a decoder stream that acknowledges nothing", {{'c', "", false}, {'u', "03 80", false}}, QPACK_DECODER},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pair p;
        uint8_t bytes[64];
        begin(&p);
        for (int k = 0; k < 3 && rows[i].streams[k].kind; k++) {
            const raw *r = &rows[i].streams[k];
            int64_t id = r->kind == 'c' ? control(&p) : fake_quic_open(p.quic, 0, r->kind == 'r');
            fake_quic_send(p.quic, 0, id, bytes, hex(bytes, r->data), r->fin);
            pair_run(&p);
        }
        if (!rows[i].error) {
            get(&p);
            pair_run(&p);
            cr_expect_eq(served, 1, "%s: not served", rows[i].name);
        }
        cr_expect_eq(p.quic->side[1].error, rows[i].error, "%s: 0x%x, %s", rows[i].name,
                     (unsigned)p.quic->side[1].error, p.quic->side[1].reason);
        cr_expect_eq(p.rc[1], rows[i].error ? CB_EPROTO : 0, "%s: %d", rows[i].name, p.rc[1]);
        end(&p);
    }
}

/* nghttp3 makes a connection error of these; they are one of the stream (RFC 9114, 4.1.2). */
Test(h3_attacks, bodies_that_are_not_as_long_as_they_say) {
    static const char *const rows[] = {"too long", "abc", ""};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pair p;
        cb_buf b;
        begin(&p);
        control(&p);
        cb_buf_init(&b, NULL, 1 << 16);
        h3_headers(&b, H3_POST5);
        if (rows[i][0]) h3_frame(&b, DATA, rows[i], strlen(rows[i]));
        int64_t id = request(&p, &b, true);
        pair_run(&p);
        const fq_way *w = &fake_quic_stream(p.quic, id)->way[1];
        cr_expect_eq(p.quic->side[1].error, 0, "row %zu: 0x%x", i, (unsigned)p.quic->side[1].error);
        cr_expect(w->reset && w->reset_code == MESSAGE, "row %zu: %d 0x%x", i, w->reset, (unsigned)w->reset_code);
        cr_expect_eq(served, 0);
        get(&p);
        pair_run(&p);
        cr_expect_eq(served, 1, "row %zu: nothing is served any more", i);
        cb_buf_free(&b);
        end(&p);
    }
}

Test(h3_attacks, a_request_without_a_head) {
    pair p;
    begin(&p);
    control(&p);
    int64_t id = fake_quic_open(p.quic, 0, true);
    fake_quic_send(p.quic, 0, id, "", 0, true);
    pair_run(&p);
    cr_assert_eq(p.rc[1], 0);
    const fq_way *w = &fake_quic_stream(p.quic, id)->way[1];
    cr_assert(w->reset);
    cr_assert_eq(w->reset_code, INCOMPLETE, "0x%x", (unsigned)w->reset_code);
    get(&p);
    pair_run(&p);
    cr_assert_eq(served, 1);
    end(&p);
}

Test(h3_attacks, a_head_that_never_ends) {
    pair p;
    begin(&p);
    control(&p);
    int64_t empty = fake_quic_open(p.quic, 0, true), half = fake_quic_open(p.quic, 0, true);
    fake_quic_send(p.quic, 0, empty, "\x01", 1, false);
    fake_quic_send(p.quic, 0, half, "\x01\x40\x80\0\0\xd1", 6, false);
    pair_run(&p);
    pair_pass(&p, 9 * CB_SEC);
    cr_assert_not(fake_quic_stream(p.quic, half)->way[1].reset);
    pair_pass(&p, 2 * CB_SEC);
    cr_assert_str_eq(p.limit[1], "head timeout");
    for (int i = 0; i < 2; i++) {
        fq_stream *t = fake_quic_stream(p.quic, i ? half : empty);
        bool answered = t->way[1].fin && t->way[0].stop; /* 408, and the rest is not wanted */
        cr_assert(t->way[1].reset || answered, "stream %d: nothing happens", i);
    }
    cr_assert_eq(served, 0);
    end(&p);
}

Test(h3_attacks, floods_end_the_connection) {
    for (int kind = 0; kind < 3; kind++)
        for (int many = 0; many < 2; many++) {
            pair p;
            cb_buf b;
            begin(&p);
            control(&p);
            cb_buf_init(&b, NULL, 1 << 16);
            h3_headers(&b, kind == 2 ? H3_GET "connection= x\n" : H3_GET);
            for (int n = 0; n < (many ? 250 : 190) && !p.rc[1]; n++) {
                int64_t id = request(&p, &b, kind == 2);
                pair_run(&p);
                if (kind == 0) fake_quic_reset(p.quic, 0, id, CANCELLED);
                if (kind == 1) fake_quic_stop_stream(p.quic, 0, id, CANCELLED);
                pair_run(&p);
                cr_assert_lt(p.side[1]->n_exchanges, 3);
            }
            cr_expect_eq(p.quic->side[1].error, many ? LOAD : 0, "kind %d: 0x%x", kind,
                         (unsigned)p.quic->side[1].error);
            cr_expect_str_eq(p.limit[1], many ? "resets" : "");
            cb_buf_free(&b);
            end(&p);
        }
}

Test(h3_attacks, a_control_stream_that_never_stops) {
    static const struct {
        const char *name, *bytes;
        size_t len;
    } rows[] = {{"unknown frames", "\x21\0\x21\0\x21\0\x21\0", 8}, {"PRIORITY_UPDATE", "\x80\x0f\x07\0\4\0u=3", 9}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int many = 0; many < 2; many++) {
            pair p;
            begin(&p);
            int64_t id = control(&p);
            for (size_t sent = 0; sent < (many ? 9000 : 7900) && !p.rc[1]; sent += rows[i].len) {
                fake_quic_send(p.quic, 0, id, rows[i].bytes, rows[i].len, false);
                pair_run(&p);
            }
            cr_expect_eq(p.quic->side[1].error, many ? LOAD : 0, "%s: 0x%x", rows[i].name,
                         (unsigned)p.quic->side[1].error);
            cr_expect_str_eq(p.limit[1], many ? "control stream bytes" : "", "%s", rows[i].name);
            end(&p);
        }
}

/* Frames on request streams that nghttp3 skips; in one delivery or each in its own, before, behind and without a head.
 */
Test(h3_attacks, frames_that_carry_nothing) {
    static const struct {
        const char *name, *bytes;
        size_t len;
        bool head;
        unsigned ok, bad; /* so many are fine, so many are not */
    } rows[] = {
        {"empty DATA", "\0\0", 2, true, 490, 560},
        {"unknown, empty", "\x21\0", 2, true, 490, 560},
        {"unknown before the head", "\x21\0", 2, false, 490, 560},
        {"unknown, long type", "\x80\0\x40\x21\0", 5, true, 490, 560},
        {"unknown with a byte", "\x21\1x", 3, true, 490, 560},
        {"DATA with a byte", "\0\1x", 3, true, 5000, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int many = 0; many < 2; many++)
            for (int apart = 0; apart < 2; apart++) {
                pair p;
                cb_buf b;
                const unsigned n = many ? rows[i].bad : rows[i].ok;
                if (!n) continue;
                begin(&p);
                control(&p);
                cb_buf_init(&b, NULL, 1 << 16);
                if (rows[i].head) h3_headers(&b, H3_GET);
                int64_t id = request(&p, &b, false);
                b.len = 0;
                for (unsigned k = 0; k < n && !p.rc[1]; k++) {
                    cb_buf_add(&b, rows[i].bytes, rows[i].len);
                    if (!apart && k + 1 < n) continue;
                    fake_quic_send(p.quic, 0, id, (const char *)b.base, b.len, false);
                    pair_run(&p);
                    b.len = 0;
                }
                cr_expect_eq(p.quic->side[1].error, many ? LOAD : 0, "%s, %u: 0x%x", rows[i].name, n,
                             (unsigned)p.quic->side[1].error);
                cr_expect_str_eq(p.limit[1], many ? "empty and unknown frames" : "", "%s", rows[i].name);
                cb_buf_free(&b);
                end(&p);
            }
}

/* Streams of unknown types, opened one after the other. */
Test(h3_attacks, streams_of_no_use) {
    for (int many = 0; many < 2; many++) {
        pair p;
        begin(&p);
        control(&p);
        for (int n = 0; n < (many ? 560 : 490) && !p.rc[1]; n++) {
            int64_t id = fake_quic_open(p.quic, 0, false);
            fake_quic_send(p.quic, 0, id, "\x21zz", 3, true);
            pair_run(&p);
        }
        cr_expect_eq(p.quic->side[1].error, many ? LOAD : 0, "0x%x", (unsigned)p.quic->side[1].error);
        cr_expect_str_eq(p.limit[1], many ? "unidirectional streams" : "");
        end(&p);
    }
}

/* Every way to cut PRIORITY_UPDATE frames in two deliveries, and in single bytes: nghttp3 must survive each. */
Test(h3_attacks, priority_updates_cut_anywhere) {
    static const struct {
        const char *bytes;
        size_t len;
    } rows[] = {{"\x80\x0f\x07\0\4\0u=3", 9},
                {"\x80\x0f\x07\0\x40\x05\x40\0u=3", 11},
                {"\x80\x0f\x07\0\x0b\xc0\0\0\0\0\0\0\4u=1", 16},
                {"\x80\x0f\x07\0\1\0\x80\x0f\x07\0\2\0i", 13},
                {"\x21\0\x80\x0f\x07\0\4\0u=3\x21\3abc", 16}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t cut = 0; cut <= rows[i].len; cut++)
            for (int odd = 0; odd < 2; odd++) {
                pair p;
                begin(&p);
                int64_t id = fake_quic_open(p.quic, 0, false);
                /* the type of the stream may be written in two bytes, and come in two pieces */
                for (int k = 0; odd && k < 2; k++) {
                    fake_quic_send(p.quic, 0, id, k ? "\0" : "\x40", 1, false);
                    pair_run(&p);
                }
                if (!odd) fake_quic_send(p.quic, 0, id, "\0", 1, false);
                fake_quic_send(p.quic, 0, id, "\4\0", 2, false);
                pair_run(&p);
                for (size_t at = 0; at < rows[i].len;) {
                    size_t n = at < cut ? cut - at : cut ? rows[i].len - at : 1; /* cut 0: byte by byte */
                    fake_quic_send(p.quic, 0, id, rows[i].bytes + at, n, false);
                    pair_run(&p);
                    at += n;
                }
                cr_expect_eq(p.quic->side[1].error, 0, "row %zu cut at %zu: 0x%x", i, cut,
                             (unsigned)p.quic->side[1].error);
                get(&p);
                pair_run(&p);
                cr_expect_eq(served, 1, "row %zu cut at %zu: not served", i, cut);
                end(&p);
            }
}

/* Field sections that refer to a dynamic table again and again: a few bytes become kilobytes. */
Test(h3_attacks, a_header_bomb_is_answered_and_costs_its_limit) {
    pair p;
    cb_buf b, enc;
    static char value[3000];
    memset(value, 'v', sizeof value);
    begin(&p);
    control(&p);
    cb_buf_init(&b, NULL, 1 << 20);
    cb_buf_init(&enc, NULL, 1 << 20);
    cb_buf_add(&enc, "\x02", 1);
    h3_number(&enc, 0x20, 5, 4096); /* capacity */
    h3_number(&enc, 0x40, 5, 1);    /* insert with literal name */
    cb_buf_text(&enc, "x");
    h3_number(&enc, 0, 7, sizeof value);
    cb_buf_add(&enc, value, sizeof value);
    int64_t id = fake_quic_open(p.quic, 0, false);
    fake_quic_send(p.quic, 0, id, enc.base, enc.len, false);
    pair_run(&p);
    /* required insert count 1, base 1; :method GET, :scheme https, :path /, :authority from the static table */
    cb_buf_add(&b,
               "\x02\0\xd1\xd7\xc1\x50\x01"
               "a",
               8);
    for (int i = 0; i < 10000; i++)
        cb_buf_add(&b, "\x80", 1);
    cb_buf f;
    cb_buf_init(&f, NULL, 1 << 20);
    h3_frame(&f, HEADERS, b.base, b.len);
    int64_t bomb = request(&p, &f, true);
    pair_run(&p);
    cr_assert_eq(p.rc[1], 0, "%s", p.quic->side[1].reason);
    cr_assert_eq(served, 0);
    cr_assert_str_eq(p.limit[1], "head bytes");
    cr_assert(fake_quic_stream(p.quic, bomb)->way[1].fin, "no 431");
    cr_assert_lt(p.peak, 400000, "%zu bytes", p.peak);
    cb_buf_free(&b);
    cb_buf_free(&f);
    cb_buf_free(&enc);
    end(&p);
}

/* ---- datagrams ---- */

Test(h3_attacks, the_quarter_stream_id) {
    static const struct {
        const char *bytes;
        int rc;
        int64_t stream;
        size_t payload;
    } rows[] = {
        {"", CB_EPROTO, 0, 0},
        {"00", CB_OK, 0, 0},
        {"00 61 62", CB_OK, 0, 2},
        {"3f 61", CB_OK, 252, 1},
        {"40", CB_EPROTO, 0, 0},
        {"40 40", CB_OK, 256, 0},
        {"80 00 40", CB_EPROTO, 0, 0},
        {"80 00 40 00 ff", CB_OK, 65536, 1},
        {"c0 00 00 00 40 00 00", CB_EPROTO, 0, 0},
        {"c0 00 00 00 40 00 00 00", CB_OK, (int64_t)1 << 32, 0},
        {"cf ff ff ff ff ff ff ff 00", CB_OK, ((int64_t)1 << 62) - 4, 1},
        {"d0 00 00 00 00 00 00 00", CB_EPROTO, 0, 0},
        {"ff ff ff ff ff ff ff ff", CB_EPROTO, 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t bytes[16], head[CB_H3_DATAGRAM_HEAD_MAX];
        size_t n = hex(bytes, rows[i].bytes);
        int64_t stream = -1;
        cb_slice payload = {NULL, 99};
        int rc = cb_h3_datagram_read((cb_slice){bytes, n}, &stream, &payload);
        cr_expect_eq(rc, rows[i].rc, "row %zu: %d", i, rc);
        if (rc < 0) continue;
        cr_expect_eq(stream, rows[i].stream, "row %zu: %lld", i, (long long)stream);
        cr_expect_eq(payload.len, rows[i].payload, "row %zu", i);
        cr_expect_eq(cb_h3_datagram_head(head, stream), n - payload.len, "row %zu: another length", i);
        cr_expect_eq(memcmp(head, bytes, n - payload.len), 0, "row %zu", i);
    }
}

Test(h3_attacks, datagrams_for_nobody) {
    pair p;
    begin(&p);
    control(&p);
    cb_quic_app *app = p.quic->side[1].app;
    cr_assert_eq(app->ops->datagram(app, (cb_slice){(const uint8_t *)"\x01x", 2}), CB_OK); /* no such stream */
    get(&p);
    pair_run(&p);
    cr_assert_eq(app->ops->datagram(app, (cb_slice){(const uint8_t *)"\0x", 2}), CB_OK); /* it is over */
    cr_assert_eq(app->ops->datagram(app, (cb_slice){(const uint8_t *)"\x40", 1}), CB_EPROTO);
    cr_assert_eq(p.quic->side[1].error, 0x33);
    end(&p);
}

/* ---- what only HTTP/3 has ---- */

static unsigned early;
static int note_early(cb_exchange *x, void *user) {
    (void)user;
    early += cb_exchange_is_early(x) != 0;
    return cb_exchange_send_text(x, 200, "hello");
}

Test(h3_early, requests_say_that_they_came_early) {
    static const cb_exchange_ops note = {.size = sizeof note, .on_end = note_early};
    pair p;
    pair_init(&p, CB_HTTP_3);
    p.serve = &note;
    pair_start(&p);
    early = 0;
    p.quic->side[1].early = true;
    call c[2] = {{0}};
    call_start(&p, &c[0], NULL);
    pair_run(&p);
    cr_assert_eq(early, 1);
    p.quic->side[1].early = false;
    call_start(&p, &c[1], NULL);
    pair_run(&p);
    cr_assert_eq(early, 1);
    cr_assert_eq(c[0].rc, CB_OK);
    cr_assert_eq(c[1].rc, CB_OK);
    call_free(&c[0]);
    call_free(&c[1]);
    pair_stop(&p);
}

/* What is not safe is answered with 425 before anybody hears of it, unless the user asked for everything. */
Test(h3_early, only_safe_requests_run) {
    static const cb_exchange_ops note = {.size = sizeof note, .on_head = note_early};
    static const struct {
        const char *method, *body;
        int status;
    } rows[] = {{"GET", NULL, 200}, {"HEAD", NULL, 200},   {"OPTIONS", NULL, 200},  {"POST", "x", 425},
                {"PUT", "x", 425},  {"DELETE", NULL, 425}, {"PATCH", "", 425},      {"GET", "body", 425},
                {"get", NULL, 425}, {"GETS", NULL, 425},   {"PROPFIND", NULL, 425}, {"TRACE", NULL, 425}};
    for (int any = 0; any < 2; any++) {
        pair p;
        pair_init(&p, CB_HTTP_3);
        p.serve = &note;
        p.env[1].early_any = any;
        pair_start(&p);
        p.quic->side[1].early = true;
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            call c = {.source = cb_slice_str(rows[i].body)};
            const call_head head = {
                .method = rows[i].method, .path = "/", .scheme = "https", .end = rows[i].body == NULL};
            early = 0;
            call_start(&p, &c, &head);
            pair_run(&p);
            cr_expect_eq(c.status, any ? 200 : rows[i].status, "%s: %d, any %d", rows[i].method, c.status, any);
            cr_expect_eq(early, any || rows[i].status == 200, "%s ran %u times", rows[i].method, early);
            call_free(&c);
        }
        pair_stop(&p);
    }
}

Test(h3_early, what_was_refused_may_be_sent_again) {
    pair p;
    pair_init(&p, CB_HTTP_3);
    p.serve = &ops;
    served = 0;
    pair_start(&p);
    p.pipe[0].hold = true; /* nothing of the client arrives */
    call c[3] = {{0}, {.repeat = 100000}, {.no_finish = true}};
    call_start(&p, &c[0], NULL);
    call_start(&p, &c[1], &(call_head){.method = "POST"});
    call_start(&p, &c[2], &(call_head){.method = "CONNECT", .protocol = "websocket"});
    /* QUIC took some of it */
    for (int i = 0; i < 3; i++) {
        cb_slice v[16];
        int64_t id;
        bool fin;
        cb_quic_app *app = p.quic->side[0].app;
        int n = app->ops->pull(app, &id, &fin, v, 16);
        cr_assert_gt(n, 0);
        app->ops->committed(app, id, v[0].len);
    }
    /* The server of the test speaks already; what it said belongs to the new connection. */
    for (size_t k = 0; k < p.quic->n; k++)
        cr_assert(p.quic->streams[k].id & 1 || !p.quic->streams[k].seen[1]);
    p.quic->side[1].app->ops->closed(p.quic->side[1].app, CB_ECLOSED);
    p.quic->side[1].app = NULL;
    fake_quic_reject_early(p.quic);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(c[i].rc, CB_EAGAIN, "exchange %d: %d", i, c[i].rc);
        cr_assert_eq(c[i].closes, 1);
        call_free(&c[i]);
    }
    cr_assert_gt(p.side[0]->vt->capacity(p.side[0]), 0);
    call again = {0};
    call_start(&p, &again, NULL);
    cr_assert_eq(again.x->stream_id, 0);
    pair_stop(&p);
    call_free(&again);
}

static int echo_datagram(cb_exchange *x, cb_slice payload, void *user) {
    (void)user;
    return cb_exchange_datagram_send(x, payload);
}
static int accept_tunnel(cb_exchange *x, void *user) {
    (void)user;
    return cb_exchange_reply(x, 200, NULL, 0);
}

/* RFC 9297, 3.5: a peer without QUIC datagrams gets capsules, and each form is understood. */
Test(h3_datagrams, go_as_capsules_when_quic_has_none) {
    static const cb_exchange_ops echo = {.size = sizeof echo, .on_head = accept_tunnel, .on_datagram = echo_datagram};
    for (int who = 0; who < 3; who++) {
        pair p;
        pair_init(&p, CB_HTTP_3);
        p.serve = &echo;
        pair_start(&p);
        p.quic->side[0].no_datagrams = who != 1;
        p.quic->side[1].no_datagrams = who != 0;
        call c = {.no_finish = true};
        call_start(&p, &c, &(call_head){.method = "CONNECT", .protocol = "connect-udp", .path = "/x"});
        pair_run(&p);
        cr_assert_eq(cb_exchange_datagram_send(c.x, cb_slice_str("one")), CB_OK, "%s", cb_last_error());
        cr_assert_eq(cb_exchange_datagram_send(c.x, cb_slice_str("")), CB_OK);
        cr_assert_eq(cb_exchange_datagram_send(c.x, cb_slice_str("three")), CB_OK);
        pair_run(&p);
        cr_assert(cb_slice_eq(cb_buf_slice(&c.datagrams), "one;;three;"), "%d: %.*s", who, (int)c.datagrams.len,
                  (const char *)c.datagrams.base);
        cr_assert_eq(c.body.len, 0);
        call_free(&c);
        pair_stop(&p);
    }
}

/* What is written stays where it is until the peer acknowledged it, and takes part in the limit. */
Test(h3_streams, unacknowledged_bytes_count) {
    pair p;
    pair_init(&p, CB_HTTP_3);
    p.serve = &ops;
    p.limits[0].send_buffer_bytes = 20000;
    pair_start(&p);
    pair_run(&p);
    call c = {.repeat = 100000};
    p.quic->hold_acks = true;
    call_start(&p, &c, &(call_head){.method = "POST"});
    pair_run(&p);
    cr_assert_eq(c.repeat, 80000, "%zu are left", c.repeat);
    p.quic->hold_acks = false;
    pair_run(&p);
    cr_assert_eq(c.rc, CB_OK, "%s", c.reason);
    cr_assert_eq(c.repeat, 0);
    call_free(&c);
    pair_stop(&p);
}

Test(h3_streams, come_back_one_by_one) {
    pair p;
    pair_init(&p, CB_HTTP_3);
    p.serve = &ops;
    p.limits[1].max_streams = 4;
    pair_start(&p);
    pair_run(&p);
    call c[5] = {{0}};
    for (int i = 0; i < 4; i++)
        call_start(&p, &c[i], NULL);
    cr_assert_eq(call_try(&p, &c[4], NULL), CB_EAGAIN);
    cr_assert_eq(p.side[0]->vt->capacity(p.side[0]), 0);
    call_free(&c[4]);
    memset(&c[4], 0, sizeof c[4]);
    unsigned told = p.capacity;
    pair_run(&p);
    cr_assert_gt(p.capacity, told);
    cr_assert_gt(p.side[0]->vt->capacity(p.side[0]), 0);
    call_start(&p, &c[4], NULL);
    pair_run(&p);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(c[i].rc, CB_OK);
        call_free(&c[i]);
    }
    /* far more than the limit, one after the other */
    for (int i = 0; i < 100; i++) {
        call one = {0};
        call_start(&p, &one, NULL);
        pair_run(&p);
        cr_assert_eq(one.rc, CB_OK);
        call_free(&one);
    }
    pair_stop(&p);
}
