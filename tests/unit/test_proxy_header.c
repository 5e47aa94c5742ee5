#include "transport/proxy_header.h"
#include <criterion/criterion.h>
#include <string.h>

#define V2 "\r\n\r\n\0\r\nQUIT\n"

Test(proxy_header, forms) {
    static const struct {
        const char *in;
        size_t len;
        int64_t rc; /* 0 = the whole of it */
        const char *source, *dest;
    } rows[] = {
#define ROW(text, ...) {text, sizeof text - 1, __VA_ARGS__}
        ROW("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", 0, "192.0.2.1:56324", "198.51.100.2:443"),
        ROW("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", 0, "[2001:db8::1]:1", "[2001:db8::2]:65535"),
        ROW("PROXY TCP4 1.2.3.4 5.6.7.8 0 0\r\n", 0, "1.2.3.4:0", "5.6.7.8:0"),
        ROW("PROXY UNKNOWN\r\n", 0, NULL, NULL),
        ROW("PROXY UNKNOWN ffff::1 what ever\r\n", 0, NULL, NULL),
        ROW("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n", 32, "1.2.3.4:1", "5.6.7.8:2"),
        ROW("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r", CB_EAGAIN, NULL, NULL),
        ROW("PROX", CB_EAGAIN, NULL, NULL),
        ROW("", CB_EAGAIN, NULL, NULL),
        ROW("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY TCP4 1.2.3.4 5.6.7.8 65536 2\r\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY TCP4 ::1 ::2 1 2\r\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY \r\n", CB_EPROTO, NULL, NULL),
        ROW("PROXY UNKNOWN 0123456789012345678901234567890123456789012345678901234567890123456789"
            "012345678901234567890123456789\r\n",
            CB_EPROTO, NULL, NULL),
        ROW("GET / HTTP/1.1\r\n", CB_EPROTO, NULL, NULL),
        ROW("\x16\x03\x01", CB_EPROTO, NULL, NULL),
        ROW(V2 "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\2\xdc\4\1\xbb", 0, "192.0.2.1:56324", "198.51.100.2:443"),
        ROW(V2 "\x21\x11\0\x11\xc0\0\2\1\xc6\x33\x64\2\xdc\4\1\xbb\4\0\2hi", 0, "192.0.2.1:56324", "198.51.100.2:443"),
        ROW(V2 "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\2\xdc\4\1\xbbtail", 28, "192.0.2.1:56324", "198.51.100.2:443"),
        ROW(V2 "\x21\x21\0\x24"
               "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
               "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\2"
               "\0\1\0\2",
            0, "[2001:db8::1]:1", "[2001:db8::2]:2"),
        ROW(V2 "\x20\0\0\0", 0, NULL, NULL),       /* LOCAL */
        ROW(V2 "\x20\x11\0\4abcd", 0, NULL, NULL), /* LOCAL: what follows is skipped, whatever it is */
        ROW(V2 "\x21\0\0\0", 0, NULL, NULL),       /* PROXY, address family unspecified */
        ROW(V2 "\x21\x31\0\2ab", 0, NULL, NULL),   /* unix socket */
        ROW(V2 "\x21\x11\0\x0c\xc0", CB_EAGAIN, NULL, NULL),
        ROW(V2 "\x21\x11\0", CB_EAGAIN, NULL, NULL),
        ROW(V2, CB_EAGAIN, NULL, NULL),
        ROW("\r\n\r\n", CB_EAGAIN, NULL, NULL),
        ROW(V2 "\x11\x11\0\x0c", CB_EPROTO, NULL, NULL), /* version 1 in binary */
        ROW(V2 "\x22\x11\0\x0c", CB_EPROTO, NULL, NULL), /* unknown command */
        ROW(V2 "\x21\x11\0\x0b", CB_EPROTO, NULL, NULL), /* no room for the addresses */
        ROW(V2 "\x21\x21\0\x23", CB_EPROTO, NULL, NULL),
        ROW(V2 "\x21\x11\x10\0", CB_EPROTO, NULL, NULL), /* too long */
        ROW("\r\n\r\nX", CB_EPROTO, NULL, NULL),
#undef ROW
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_proxy_header h;
        char text[CB_ADDR_TEXT];
        int64_t want = rows[i].rc ? rows[i].rc : (int64_t)rows[i].len;
        int64_t got = cb_proxy_header_read(&h, (cb_slice){(const uint8_t *)rows[i].in, rows[i].len});
        cr_expect_eq(got, want, "row %zu: %d", i, (int)got);
        if (got < 0 || got != want) continue;
        cr_expect_eq(h.named, rows[i].source != NULL, "row %zu", i);
        if (!h.named) continue;
        cr_expect_str_eq(cb_addr_text(&h.source, text), rows[i].source);
        cr_expect_str_eq(cb_addr_text(&h.dest, text), rows[i].dest);
        for (size_t cut = 0; cut < (size_t)got; cut++) { /* each beginning of a good header may become one */
            int64_t part = cb_proxy_header_read(&h, (cb_slice){(const uint8_t *)rows[i].in, cut});
            cr_expect_eq(part, CB_EAGAIN, "row %zu cut at %zu: %d", i, cut, (int)part);
        }
    }
}

Test(proxy_header, what_is_written_can_be_read) {
    static const char *const pairs[][2] = {
        {"192.0.2.1:1", "198.51.100.2:65535"},
        {"[2001:db8::1]:4711", "[::1]:443"},
        {"[::ffff:192.0.2.1]:7", "198.51.100.2:9"},
    };
    for (int version = 1; version <= 2; version++) {
        uint8_t out[128];
        cb_proxy_header h;
        for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
            cb_addr s, d;
            cb_addr_parse(&s, pairs[i][0], 0);
            cb_addr_parse(&d, pairs[i][1], 0);
            int n = cb_proxy_header_write(out, version, &s, &d);
            cr_assert(n > 0 && n <= 107);
            cr_expect_eq(cb_proxy_header_read(&h, (cb_slice){out, (size_t)n}), n);
            cr_expect_eq(h.version, version);
            cr_assert(h.named);
            cb_addr_unmap(&s);
            cr_expect(cb_addr_equal(&h.source, &s));
            cr_expect(cb_addr_equal(&h.dest, &d));
        }
        int n = cb_proxy_header_write(out, version, NULL, NULL);
        cr_expect_eq(cb_proxy_header_read(&h, (cb_slice){out, (size_t)n}), n);
        cr_expect_not(h.named);
        cb_addr four, six; /* families that differ go as IPv6 */
        cb_addr_parse(&four, "192.0.2.1:1", 0);
        cb_addr_parse(&six, "[2001:db8::2]:2", 0);
        n = cb_proxy_header_write(out, version, &four, &six);
        cr_expect_eq(cb_proxy_header_read(&h, (cb_slice){out, (size_t)n}), n);
        cr_expect(cb_addr_equal(&h.dest, &six));
    }
    uint8_t out[128];
    cr_expect_eq(cb_proxy_header_write(out, 3, NULL, NULL), CB_EINVAL);
}
