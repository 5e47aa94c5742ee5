#include "http/url.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

Test(url, taken) {
    static const struct {
        const char *text, *host, *authority, *target;
        int tls, port, add_slash;
    } rows[] = {
        {"http://example.org", "example.org", "example.org", "", 0, 80, 1},
        {"https://example.org/", "example.org", "example.org", "/", 1, 443, 0},
        {"HTTPS://EXAMPLE.org:443/A?b=C#frag", "example.org", "example.org", "/A?b=C", 1, 443, 0},
        {"http://example.org:443/", "example.org", "example.org:443", "/", 0, 443, 0},
        {"http://example.org:/x", "example.org", "example.org", "/x", 0, 80, 0},
        {"http://h?q=1", "h", "h", "?q=1", 0, 80, 1},
        {"http://h#f", "h", "h", "", 0, 80, 1},
        {"http://127.0.0.1:8080/%20", "127.0.0.1", "127.0.0.1:8080", "/%20", 0, 8080, 0},
        {"https://[::1]:8443/a", "::1", "[::1]:8443", "/a", 1, 8443, 0},
        {"https://[2001:db8::1]", "2001:db8::1", "[2001:db8::1]", "", 1, 443, 1},
        {"http://a_b-c.d/@:x", "a_b-c.d", "a_b-c.d", "/@:x", 0, 80, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_url u;
        char target[64];
        int rc = cb_url_parse(&u, rows[i].text);
        cr_assert_eq(rc, CB_OK, "%s: %s", rows[i].text, cb_last_error());
        snprintf(target, sizeof target, "%.*s", (int)u.target.len, (const char *)u.target.base);
        cr_expect_str_eq(u.host, rows[i].host, "%s: host %s", rows[i].text, u.host);
        cr_expect_str_eq(u.authority, rows[i].authority, "%s: authority %s", rows[i].text, u.authority);
        cr_expect_str_eq(target, rows[i].target, "%s: target %s", rows[i].text, target);
        cr_expect_eq(u.tls, rows[i].tls, "%s: tls", rows[i].text);
        cr_expect_eq(u.port, rows[i].port, "%s: port %u", rows[i].text, u.port);
        cr_expect_eq(u.add_slash, rows[i].add_slash, "%s: slash", rows[i].text);
    }
}

Test(url, refused_with_a_reason) {
    static const struct {
        const char *text, *why;
    } rows[] = {
        {"", "http://"},
        {"example.org", "http://"},
        {"ftp://example.org/", "http://"},
        {"https:/example.org/", "http://"},
        {"http://", "no host"},
        {"http:///path", "no host"},
        {"http://:80/", "no host"},
        {"http://user@host/", "user names"},
        {"http://user:pw@host/", "user names"},
        {"http://host:0/", "port is 0"},
        {"http://host:65536/", "65535"},
        {"http://host:8a/", "not a number"},
        {"http://host:99999999999999999999/", "65535"},
        {"http://a:b:c/", "not a number"},
        {"http://[::1/", "bracket"},
        {"http://[::1]x/", "bracket"},
        {"http://[::zz]/", "IPv6"},
        {"http://[127.0.0.1]/", "IPv6"},
        {"http://::1/", "no host"},
        {"http://ho st/", "host has a character"},
        {"http://ho%41st/", "host has a character"},
        {"http://b\xc3\xbc"
         "cher.example/",
         "xn--"},
        {"http://host/a b", "%XX"},
        {"http://host/\r\nX: y", "%XX"},
        {"http://host/\x7f", "%XX"},
        {"http://host\\evil/", "host has a character"},
        {"http://host/\\evil", "%XX"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_url u;
        cr_expect_eq(cb_url_parse(&u, rows[i].text), CB_EINVAL, "\"%s\" was taken", rows[i].text);
        cr_expect(strstr(cb_last_error(), rows[i].why), "\"%s\": %s", rows[i].text, cb_last_error());
    }
    char name[400] = "http://";
    memset(name + 7, 'a', 256);
    cb_url u;
    cr_expect_eq(cb_url_parse(&u, name), CB_EINVAL, "a host of 256 bytes");
    name[7 + 255] = '\0';
    cr_expect_eq(cb_url_parse(&u, name), CB_OK, "a host of 255 bytes");
    cr_expect_eq(cb_url_parse(&u, NULL), CB_EINVAL, "NULL");
}
