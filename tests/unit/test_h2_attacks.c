/* A server of HTTP/2 against frames that no honest client sends: each gets the error that RFC 9113 names, and floods
 * end the connection before they cost memory. */
#include "base/error.h"
#include "support/http_pair.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION, PRIORITY_UPDATE = 16 };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8 };
enum {
    NO_ERROR,
    PROTOCOL,
    INTERNAL,
    FLOW,
    SETTINGS_TIMEOUT,
    CLOSED,
    FRAME_SIZE,
    REFUSED,
    CANCEL,
    COMPRESSION,
    CONNECT,
    CALM
};
#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

/* ---- the attacker ---- */

static void frame(cb_buf *b, int type, int flags, uint32_t stream, const void *payload, size_t len) {
    uint8_t h[9] = {(uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len, (uint8_t)type, (uint8_t)flags};
    for (int i = 0; i < 4; i++)
        h[5 + i] = (uint8_t)(stream >> (24 - 8 * i));
    cb_buf_add(b, h, sizeof h);
    cb_buf_add(b, payload, len);
}

static void number(cb_buf *b, size_t n) { /* HPACK, 7 bits of prefix */
    uint8_t byte = n < 127 ? (uint8_t)n : 127;
    cb_buf_add(b, &byte, 1);
    if (n < 127) return;
    for (n -= 127;; n >>= 7) {
        byte = (uint8_t)(n < 128 ? n : (n & 127) | 128);
        cb_buf_add(b, &byte, 1);
        if (n < 128) return;
    }
}

static void field(cb_buf *b, const char *name, const char *value) {
    cb_buf_add(b, "", 1); /* literal, not indexed, new name */
    number(b, strlen(name));
    cb_buf_text(b, name);
    number(b, strlen(value));
    cb_buf_text(b, value);
}

/* "name: value\n" lines as a header block. */
static void block(cb_buf *b, const char *lines) {
    char line[512];
    while (*lines) {
        size_t n = strcspn(lines, "\n");
        cr_assert_lt(n, sizeof line);
        memcpy(line, lines, n);
        line[n] = '\0';
        char *sep = strstr(line, "= ");
        cr_assert(sep != NULL, "no \"= \" in %s", line);
        *sep = '\0';
        field(b, line, sep + 2);
        lines += n + (lines[n] == '\n');
    }
}

static void headers(cb_buf *out, uint32_t stream, int flags, const char *lines) {
    cb_buf b;
    cb_buf_init(&b, NULL, 1 << 20);
    block(&b, lines);
    frame(out, HEADERS, flags, stream, b.base, b.len);
    cb_buf_free(&b);
}

#define GET   ":method= GET\n:scheme= https\n:authority= a\n:path= /\n"
#define POST5 ":method= POST\n:scheme= https\n:authority= a\n:path= /\ncontent-length= 5\n"

typedef struct seen {
    int goaway, status; /* -1 / 0: none */
    int rst[64];        /* by stream / 2 */
    unsigned acks, pongs, updates;
} seen;

/* What the server sent. The status is read from the first byte of the block: :status 200 and 4xx are in HPACK's static
 * table or literals with an indexed name. */
static void look(pair *p, seen *s) {
    const uint8_t *b = p->pipe[1].bytes.base;
    size_t left = p->pipe[1].bytes.len;
    s->goaway = -1;
    memset(s->rst, -1, sizeof s->rst);
    while (left >= 9) {
        size_t len = (size_t)b[0] << 16 | (size_t)b[1] << 8 | b[2];
        uint32_t id = (uint32_t)b[7] << 8 | b[8];
        cr_assert_leq(9 + len, left, "half a frame");
        if (b[3] == GOAWAY && (int)b[16] != NO_ERROR) s->goaway = b[16];
        if (b[3] == GOAWAY && s->goaway < 0) s->goaway = b[16];
        if (b[3] == RST && id / 2 < 64) s->rst[id / 2] = b[12];
        if (b[3] == SETTINGS && b[4] & ACK) s->acks++;
        if (b[3] == PING && b[4] & ACK) s->pongs++;
        if (b[3] == WINDOW) s->updates++;
        if (b[3] == HEADERS && len) {
            static const int known[] = {200, 204, 206, 304, 400, 404, 500};
            if (b[9] >= 0x88 && b[9] <= 0x8e)
                s->status = known[b[9] - 0x88];
            else
                s->status = -1; /* another one */
        }
        b += 9 + len;
        left -= 9 + len;
    }
}

static int on_end(cb_exchange *x, void *user) {
    unsigned *served = user;
    (*served)++;
    return cb_exchange_send_text(x, 200, "hello");
}
static const cb_exchange_ops ops = {.size = sizeof ops, .on_end = on_end};

static unsigned served;

static void begin(pair *p, cb_buf *in) {
    pair_init(p, CB_HTTP_2);
    p->serve = &ops;
    p->serve_user = &served;
    p->pipe[1].cap = 1 << 20;
    served = 0;
    cb_buf_init(in, NULL, 1 << 24);
    cb_buf_add(in, PREFACE, 24);
    frame(in, SETTINGS, 0, 0, NULL, 0);
}

/* Feeds everything in pieces; true while the connection lives. */
static bool attack(pair *p, cb_buf *in, seen *s) {
    cb_hconn *h = p->side[1];
    memset(s, 0, sizeof *s);
    cr_assert_eq(h->vt->flush(h, p->now), CB_OK); /* our SETTINGS go first */
    while (in->len && !p->gone[1]) {
        size_t n = 1 + pair_random(p, 3000);
        if (n > in->len) n = in->len;
        uint8_t *piece = malloc(n);
        memcpy(piece, in->base, n);
        int64_t rc = h->vt->feed(h, (cb_slice){piece, n}, p->now);
        free(piece);
        cb_buf_drop(in, n);
        if (rc >= 0) rc = h->vt->flush(h, p->now);
        if (rc < 0 || h->vt->done(h)) {
            p->gone[1] = true;
            p->rc[1] = rc < 0 ? (int)rc : 0;
            h->vt->closed(h, CB_EPROTO);
        }
    }
    look(p, s);
    return !p->gone[1];
}

static void end(pair *p, cb_buf *in) {
    cb_hconn *h = p->side[1];
    cb_buf_free(in);
    for (int i = 0; i < 2; i++)
        cb_buf_free(&p->pipe[i].bytes);
    h->vt->closed(h, CB_ECLOSED);
    h->vt->free(h);
    cr_assert_eq(p->live, 0, "%zu bytes are left", p->live);
}

Test(h2_attacks, malformed_requests_are_reset) {
    static const struct {
        const char *lines;
        int rst, status; /* one of them */
    } rows[] = {
        {GET, -1, 200},
        {GET "te= trailers\n", -1, 200},
        {GET "host= a\n", -1, 200},
        {GET "cookie= a=b\ncookie= c=d\n", -1, 200},
        {":method= GET\n:scheme= https\n:authority= a\n", PROTOCOL, 0},
        {":method= GET\n:authority= a\n:path= /\n", PROTOCOL, 0},
        {":scheme= https\n:authority= a\n:path= /\n", PROTOCOL, 0},
        {":method= GET\n:scheme= https\n:path= /\n", PROTOCOL, 0},
        {":method= GET\n:scheme= https\n:authority= a\n:path= \n", PROTOCOL, 0},
        {":method= GET\n:scheme= https\n:authority= a\n:path= x\n", PROTOCOL, 0},
        {":method= GET\n:scheme= https\n:authority= u@a\n:path= /\n", PROTOCOL, 0},
        {":method= G T\n:scheme= https\n:authority= a\n:path= /\n", PROTOCOL, 0},
        {GET ":path= /\n", PROTOCOL, 0},
        {GET ":method= GET\n", PROTOCOL, 0},
        {GET "x= y\n:foo= /\n", PROTOCOL, 0},
        {":method= GET\nx= y\n:scheme= https\n:authority= a\n:path= /\n", PROTOCOL, 0},
        {GET ":status= 200\n", PROTOCOL, 0},
        {GET ":unknown= 1\n", PROTOCOL, 0},
        {GET "X-Upper= y\n", PROTOCOL, 0},
        {GET "connection= close\n", PROTOCOL, 0},
        {GET "keep-alive= 1\n", PROTOCOL, 0},
        {GET "proxy-connection= x\n", PROTOCOL, 0},
        {GET "transfer-encoding= chunked\n", PROTOCOL, 0},
        {GET "upgrade= websocket\n", PROTOCOL, 0},
        {GET "te= gzip\n", PROTOCOL, 0},
        {GET "host= b\n", PROTOCOL, 0},
        {GET "na me= y\n", PROTOCOL, 0},
        {GET "= y\n", PROTOCOL, 0},
        {GET "x= a\rb\n", PROTOCOL, 0},
        {GET "x=  a\n", PROTOCOL, 0},
        {GET "content-length= 1\n", PROTOCOL, 0},
        {GET "content-length= -1\n", PROTOCOL, 0},
        {GET "content-length= 0\ncontent-length= 0\n", PROTOCOL, 0},
        {GET ":protocol= websocket\n", PROTOCOL, 0},
        {":method= CONNECT\n:scheme= https\n:authority= a\n:path= /\n", PROTOCOL, 0},
        {":method= CONNECT\n", PROTOCOL, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pair p;
        cb_buf in;
        seen s;
        begin(&p, &in);
        cr_assert_eq(cb_h2_new(&p.side[1], &p.env[1]), CB_OK);
        headers(&in, 1, END_STREAM | END_HEADERS, rows[i].lines);
        headers(&in, 3, END_STREAM | END_HEADERS, GET);
        cr_expect(attack(&p, &in, &s), "row %zu: the connection ended with %d", i, s.goaway);
        cr_expect_eq(s.rst[0], rows[i].rst, "row %zu: reset with %d\n%s", i, s.rst[0], rows[i].lines);
        cr_expect_eq(served, rows[i].status ? 2U : 1U, "row %zu: %u served", i, served);
        end(&p, &in);
    }
}

/* ---- frames out of order ---- */

static void a_window_overflow(cb_buf *b) {
    headers(b, 1, END_HEADERS, GET);
    frame(b, WINDOW, 0, 1, "\x7f\xff\xff\xff", 4);
}
static void a_window_overflow_of_all(cb_buf *b) {
    frame(b, WINDOW, 0, 0, "\x7f\xff\xff\xff", 4);
}
static void a_zero_increment(cb_buf *b) {
    headers(b, 1, END_HEADERS, GET);
    frame(b, WINDOW, 0, 1, "\0\0\0\0", 4);
}
static void a_zero_increment_of_all(cb_buf *b) {
    frame(b, WINDOW, 0, 0, "\0\0\0\0", 4);
}
static void data_on_an_idle_stream(cb_buf *b) {
    frame(b, DATA, 0, 5, "x", 1);
}
static void data_on_stream_zero(cb_buf *b) {
    frame(b, DATA, 0, 0, "x", 1);
}
static void an_even_stream(cb_buf *b) {
    headers(b, 2, END_STREAM | END_HEADERS, GET);
}
static void streams_backwards(cb_buf *b) {
    headers(b, 5, END_STREAM | END_HEADERS, GET);
    headers(b, 3, END_STREAM | END_HEADERS, GET);
}
static void a_push(cb_buf *b) {
    headers(b, 1, END_HEADERS, GET);
    frame(b, PUSH, END_HEADERS, 1, "\0\0\0\2\x82", 5);
}
static void a_block_interrupted(cb_buf *b) {
    headers(b, 1, END_STREAM, GET);
    frame(b, PING, 0, 0, "12345678", 8);
}
static void a_continuation_alone(cb_buf *b) {
    frame(b, CONTINUATION, END_HEADERS, 1, "\x82", 1);
}
static void bad_padding(cb_buf *b) {
    headers(b, 1, END_HEADERS, POST5);
    frame(b, DATA, PADDED, 1, "\x09hello", 6);
}
static void a_short_ping(cb_buf *b) {
    frame(b, PING, 0, 0, "1234", 4);
}
static void a_long_frame(cb_buf *b) {
    static const uint8_t big[16385];
    headers(b, 1, END_HEADERS, GET);
    frame(b, DATA, 0, 1, big, sizeof big);
}
static void odd_settings(cb_buf *b) {
    frame(b, SETTINGS, 0, 0, "12345", 5);
}
static void settings_ack_with_payload(cb_buf *b) {
    frame(b, SETTINGS, ACK, 0, "123456", 6);
}
static void a_window_too_large(cb_buf *b) {
    frame(b, SETTINGS, 0, 0, "\0\4\xff\xff\xff\xff", 6);
}
static void bad_hpack(cb_buf *b) {
    frame(b, HEADERS, END_STREAM | END_HEADERS, 1, "\xff\xff\xff\xff\xff\xff", 6);
}
static void data_after_the_end(cb_buf *b) {
    headers(b, 1, END_STREAM | END_HEADERS, GET);
    frame(b, DATA, 0, 1, "x", 1);
}
static void more_than_content_length(cb_buf *b) {
    headers(b, 1, END_HEADERS, POST5);
    frame(b, DATA, END_STREAM, 1, "too long", 8);
}
static void less_than_content_length(cb_buf *b) {
    headers(b, 1, END_HEADERS, POST5);
    frame(b, DATA, END_STREAM, 1, "abc", 3);
}
static void pseudo_fields_in_trailers(cb_buf *b) {
    headers(b, 1, END_HEADERS, POST5);
    frame(b, DATA, 0, 1, "hello", 5);
    headers(b, 1, END_STREAM | END_HEADERS, ":path= /\n");
}
static void trailers_without_an_end(cb_buf *b) {
    headers(b, 1, END_HEADERS, POST5);
    frame(b, DATA, 0, 1, "hello", 5);
    headers(b, 1, END_HEADERS, "x= y\n");
}
static void a_self_dependency(cb_buf *b) {
    headers(b, 1, END_HEADERS, GET);
    frame(b, RST, 0, 0, "\0\0\0\0", 4);
}

Test(h2_attacks, frames_that_break_the_rules) {
    static const struct {
        const char *name;
        void (*make)(cb_buf *b);
        int goaway, rst; /* -1: none */
    } rows[] = {
        {"a window overflow", a_window_overflow, -1, FLOW},
        {"a window overflow of all", a_window_overflow_of_all, FLOW, -1},
        {"a zero increment", a_zero_increment, PROTOCOL, -1},
        {"a zero increment of all", a_zero_increment_of_all, PROTOCOL, -1},
        {"data on an idle stream", data_on_an_idle_stream, PROTOCOL, -1},
        {"data on stream zero", data_on_stream_zero, PROTOCOL, -1},
        {"an even stream", an_even_stream, PROTOCOL, -1},
        {"streams backwards", streams_backwards, -1, -1}, /* taken as a race with a reset: not served */
        {"a push", a_push, PROTOCOL, -1},
        {"a block interrupted", a_block_interrupted, PROTOCOL, -1},
        {"a continuation alone", a_continuation_alone, PROTOCOL, -1},
        {"bad padding", bad_padding, PROTOCOL, -1},
        {"a short ping", a_short_ping, FRAME_SIZE, -1},
        {"a long frame", a_long_frame, FRAME_SIZE, -1},
        {"odd settings", odd_settings, FRAME_SIZE, -1},
        {"settings ack with payload", settings_ack_with_payload, FRAME_SIZE, -1},
        {"a window too large", a_window_too_large, FLOW, -1},
        {"bad hpack", bad_hpack, COMPRESSION, -1},
        {"data after the end", data_after_the_end, CLOSED, -1},
        {"more than content-length", more_than_content_length, -1, PROTOCOL},
        {"less than content-length", less_than_content_length, -1, PROTOCOL},
        {"pseudo fields in trailers", pseudo_fields_in_trailers, -1, PROTOCOL},
        {"trailers without an end", trailers_without_an_end, -1, PROTOCOL},
        {"a reset of stream zero", a_self_dependency, PROTOCOL, -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pair p;
        cb_buf in;
        seen s;
        begin(&p, &in);
        cr_assert_eq(cb_h2_new(&p.side[1], &p.env[1]), CB_OK);
        p.seed = 99 + (uint32_t)i;
        rows[i].make(&in);
        bool alive = attack(&p, &in, &s);
        cr_expect_eq(s.goaway, rows[i].goaway, "%s: GOAWAY %d", rows[i].name, s.goaway);
        if (rows[i].goaway < 0) cr_expect_eq(s.rst[0], rows[i].rst, "%s: reset with %d", rows[i].name, s.rst[0]);
        cr_expect_eq(alive, rows[i].goaway < 0, "%s", rows[i].name);
        end(&p, &in);
    }
}

/* ---- floods ---- */

static void rapid_reset(cb_buf *b, uint32_t n) {
    headers(b, 1 + 2 * n, END_HEADERS, GET);
    frame(b, RST, 0, 1 + 2 * n, "\0\0\0\x08", 4);
}
static void made_resets(cb_buf *b, uint32_t n) { /* has the server reset them */
    headers(b, 1 + 2 * n, END_HEADERS, GET);
    frame(b, WINDOW, 0, 1 + 2 * n, "\x7f\xff\xff\xff", 4);
}
static void bad_requests(cb_buf *b, uint32_t n) {
    headers(b, 1 + 2 * n, END_HEADERS | END_STREAM, GET "connection= x\n");
}
static void settings(cb_buf *b, uint32_t n) {
    (void)n;
    frame(b, SETTINGS, 0, 0, NULL, 0);
}
static void pings(cb_buf *b, uint32_t n) {
    (void)n;
    frame(b, PING, 0, 0, "12345678", 8);
}
static void priorities(cb_buf *b, uint32_t n) {
    (void)n;
    frame(b, PRIORITY, 0, 1, "\0\0\0\3\1", 5);
}
static void priority_updates(cb_buf *b, uint32_t n) {
    (void)n;
    frame(b, PRIORITY_UPDATE, 0, 0, "\0\0\0\1u=3", 7);
}
static void empty_data(cb_buf *b, uint32_t n) {
    if (!n) headers(b, 1, END_HEADERS, GET);
    frame(b, DATA, 0, 1, NULL, 0);
}
static void padding_only(cb_buf *b, uint32_t n) {
    if (!n) headers(b, 1, END_HEADERS, GET);
    frame(b, DATA, PADDED, 1, "\2\0\0", 3);
}
static void window_updates(cb_buf *b, uint32_t n) {
    (void)n;
    frame(b, WINDOW, 0, 0, "\0\0\0\1", 4);
}
static void unknown_frames(cb_buf *b, uint32_t n) {
    frame(b, 10 + (int)(n % 6), 0, 0, NULL, 0);
}
static void continuations(cb_buf *b, uint32_t n) {
    if (!n) headers(b, 1, END_STREAM, GET);
    frame(b, CONTINUATION, 0, 1, NULL, 0);
}

Test(h2_attacks, floods_end_the_connection) {
    static const struct {
        const char *name, *limit;
        void (*make)(cb_buf *b, uint32_t n);
        unsigned allowed; /* so many pass, twice as many do not */
    } rows[] = {
        {"rapid reset", "resets", rapid_reset, 200},
        {"resets that we are made to send", "resets", made_resets, 200},
        {"malformed requests", "resets", bad_requests, 200},
        {"SETTINGS", "SETTINGS frames", settings, 499},
        {"PING", "PING frames", pings, 500},
        {"PRIORITY", "PRIORITY frames", priorities, 500},
        {"PRIORITY_UPDATE", "PRIORITY frames", priority_updates, 500},
        {"empty DATA", "empty DATA frames", empty_data, 500},
        {"DATA with nothing but padding", "empty DATA frames", padding_only, 500},
        {"WINDOW_UPDATE", "WINDOW_UPDATE frames", window_updates, 500},
        {"unknown types", "unknown frames", unknown_frames, 500},
        {"CONTINUATION", "CONTINUATION frames", continuations, 8},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int twice = 0; twice < 2; twice++) {
            pair p;
            cb_buf in;
            seen s;
            begin(&p, &in);
            cr_assert_eq(cb_h2_new(&p.side[1], &p.env[1]), CB_OK);
            for (uint32_t n = 0; n < rows[i].allowed << twice; n++)
                rows[i].make(&in, n);
            bool alive = attack(&p, &in, &s);
            cr_expect_eq(alive, !twice, "%s, %u of them: GOAWAY %d", rows[i].name, rows[i].allowed << twice, s.goaway);
            cr_expect_eq(s.goaway, twice ? CALM : -1, "%s: GOAWAY %d", rows[i].name, s.goaway);
            cr_expect_str_eq(p.limit[1], twice ? rows[i].limit : "", "%s", rows[i].name);
            cr_expect_lt(p.peak, 600000, "%s: %zu bytes", rows[i].name, p.peak);
            end(&p, &in);
        }
}

Test(h2_attacks, a_rate_is_not_a_count) {
    pair p;
    cb_buf in;
    seen s;
    begin(&p, &in);
    cr_assert_eq(cb_h2_new(&p.side[1], &p.env[1]), CB_OK);
    for (int i = 0; i < 2000; i++) { /* 40 a second for 50 seconds */
        pings(&in, 0);
        p.now += 25 * CB_MS;
        cr_assert(attack(&p, &in, &s), "after %d", i);
    }
    end(&p, &in);
}

/* Indexed fields of a full table: two bytes on the wire become kilobytes. */
Test(h2_attacks, a_header_bomb_is_answered_and_costs_its_limit) {
    pair p;
    cb_buf in, b;
    seen s;
    static char value[4000];
    memset(value, 'v', sizeof value - 1);
    begin(&p, &in);
    cr_assert_eq(cb_h2_new(&p.side[1], &p.env[1]), CB_OK);
    cb_buf_init(&b, NULL, 1 << 20);
    block(&b, GET);
    cb_buf_add(&b, "\x40", 1); /* into the table */
    number(&b, 1);
    cb_buf_text(&b, "x");
    number(&b, strlen(value));
    cb_buf_text(&b, value);
    for (int i = 0; i < 10000; i++)
        cb_buf_add(&b, "\xbe", 1);
    frame(&in, HEADERS, END_STREAM | END_HEADERS, 1, b.base, b.len);
    headers(&in, 3, END_STREAM | END_HEADERS, GET);
    cr_assert(attack(&p, &in, &s), "GOAWAY %d", s.goaway);
    cr_assert_eq(served, 1, "the bomb was served");
    cr_assert_str_eq(p.limit[1], "head bytes");
    cr_assert_lt(p.peak, 400000, "%zu bytes", p.peak);
    cb_buf_free(&b);
    end(&p, &in);
}

Test(h2_attacks, a_window_is_not_to_be_exceeded) {
    static const uint8_t piece[16384];
    pair p;
    cb_buf in;
    seen s;
    begin(&p, &in);
    p.limits[1].stream_window_bytes = 65536;
    cr_assert_eq(cb_h2_new(&p.side[1], &p.env[1]), CB_OK);
    headers(&in, 1, END_HEADERS, ":method= POST\n:scheme= https\n:authority= a\n:path= /\n");
    frame(&in, SETTINGS, ACK, 0, NULL, 0);
    for (int i = 0; i < 4; i++)
        frame(&in, DATA, 0, 1, piece, sizeof piece);
    cr_assert(attack(&p, &in, &s)); /* taken at once: credit came back */
    cr_assert_gt(s.updates, 1);
    end(&p, &in);
}

/* Before the client can know the limit its streams are refused; afterwards it is at fault (RFC 9113, 5.1.2). */
Test(h2_attacks, too_many_streams) {
    for (int knows = 0; knows < 2; knows++) {
        pair p;
        cb_buf in;
        seen s;
        begin(&p, &in);
        p.limits[1].max_streams = 10;
        cr_assert_eq(cb_h2_new(&p.side[1], &p.env[1]), CB_OK);
        if (knows) frame(&in, SETTINGS, ACK, 0, NULL, 0);
        for (uint32_t n = 0; n < 15; n++)
            headers(&in, 1 + 2 * n, END_HEADERS, GET);
        cr_assert_eq(attack(&p, &in, &s), !knows);
        cr_assert_eq(s.goaway, knows ? PROTOCOL : -1, "GOAWAY %d", s.goaway);
        for (int n = 0; n < 15 && !knows; n++)
            cr_assert_eq(s.rst[n], n < 10 ? -1 : REFUSED, "stream %d: %d", n, s.rst[n]);
        cr_assert_eq(p.side[1]->n_exchanges, knows ? 0 : 10);
        end(&p, &in);
    }
}

Test(h2_attacks, a_head_that_never_ends) {
    pair p;
    cb_buf in;
    seen s;
    begin(&p, &in);
    cr_assert_eq(cb_h2_new(&p.side[1], &p.env[1]), CB_OK);
    headers(&in, 1, END_STREAM, GET);
    cr_assert(attack(&p, &in, &s));
    cb_hconn *h = p.side[1];
    cb_time due = h->vt->deadline(h);
    cr_assert_eq(due, p.now + 10 * CB_SEC);
    p.now = due;
    cr_assert_eq(h->vt->expire(h, p.now), CB_OK);
    cr_assert_eq(h->vt->flush(h, p.now), CB_OK);
    cr_assert(h->vt->done(h));
    look(&p, &s);
    cr_assert_eq(s.goaway, CALM);
    cr_assert_str_eq(p.limit[1], "head timeout");
    end(&p, &in);
}

/* The peer takes nothing at all: output waits in the session, not in the sink, and time ends it. */
Test(h2_attacks, a_peer_that_does_not_read) {
    pair p;
    cb_buf in;
    seen s;
    begin(&p, &in);
    cr_assert_eq(cb_h2_new(&p.side[1], &p.env[1]), CB_OK);
    p.pipe[1].cap = 0;
    for (uint32_t n = 0; n < 100; n++)
        headers(&in, 1 + 2 * n, END_STREAM | END_HEADERS, GET);
    cr_assert(attack(&p, &in, &s));
    cr_assert_eq(p.pipe[1].bytes.len, 0);
    cr_assert_eq(served, 100);
    cb_hconn *h = p.side[1];
    p.now += 30 * CB_SEC;
    cr_assert_leq(h->vt->deadline(h), p.now);
    cr_assert_eq(h->vt->expire(h, p.now), CB_ETIMEOUT);
    cr_assert_str_eq(p.limit[1], "send timeout");
    end(&p, &in);
}

Test(h2_attacks, what_is_no_http2) {
    static const char *const rows[] = {"GET / HTTP/1.1\r\n\r\nxxxxxxxxxxxxxxxxx", "PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
                                       PREFACE "GET / HTTP/1.1\r\n\r\n"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        pair p;
        cb_buf in;
        seen s;
        begin(&p, &in);
        cb_buf_drop(&in, in.len);
        cb_buf_text(&in, rows[i]);
        cr_assert_eq(cb_h2_new(&p.side[1], &p.env[1]), CB_OK);
        cr_assert_not(attack(&p, &in, &s), "row %zu is taken", i);
        cr_assert_lt(strlen(cb_last_error()), 200);
        end(&p, &in);
    }
}
