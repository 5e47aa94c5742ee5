#include "base/addr.h"
#include <criterion/criterion.h>
#include <string.h>

Test(base_addr, texts_that_are_read) {
    static const struct {
        const char *in, *out, *host;
        int family;
    } rows[] = {
        {"127.0.0.1:80", "127.0.0.1:80", "127.0.0.1", AF_INET},
        {"127.0.0.1", "127.0.0.1:443", "127.0.0.1", AF_INET},
        {"[::1]:80", "[::1]:80", "::1", AF_INET6},
        {"[::1]", "[::1]:443", "::1", AF_INET6},
        {"::1", "[::1]:443", "::1", AF_INET6},
        {":8080", "[::]:8080", "::", AF_INET6},
        {"[::]:0", "[::]:0", "::", AF_INET6},
        {"[fe80::1%3]:65535", "[fe80::1%3]:65535", "fe80::1%3", AF_INET6},
        {"[::ffff:10.0.0.1]:5", "10.0.0.1:5", "10.0.0.1", AF_INET6},
        {"[2001:DB8:0:0:0:0:0:1]:443", "[2001:db8::1]:443", "2001:db8::1", AF_INET6},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_addr a;
        char text[CB_ADDR_TEXT];
        cr_assert_eq(cb_addr_parse(&a, rows[i].in, 443), CB_OK, "%s: %s", rows[i].in, cb_last_error());
        cr_expect_str_eq(cb_addr_text(&a, text), rows[i].out);
        cr_expect_str_eq(cb_addr_host(&a, text), rows[i].host);
        cr_expect_eq(a.sa.sa_family, rows[i].family);
        cr_expect_eq(cb_addr_len(&a),
                     rows[i].family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
    }
}

Test(base_addr, texts_that_are_refused_and_named) {
    static const char *const rows[] = {
        "",
        ":",
        "localhost:80",
        "1.2.3:80",
        "1.2.3.4:",
        "1.2.3.4:65536",
        "1.2.3.4:-1",
        "1.2.3.4:80x",
        "1.2.3.4: 80",
        "256.1.1.1:1",
        "[::1:80",
        "[::1]80",
        "[::1]:",
        "[1.2.3.4]:80",
        "[]:80",
        "[fe80::1%]:1",
        "[fe80::1%eth0]:1",
        "::g",
        "1.2.3.4:99999999999999999999",
        "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000]:1",
        "]:80",
        " 1.2.3.4:80",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_addr a;
        memset(&a, 0x55, sizeof a);
        cr_expect_eq(cb_addr_parse(&a, rows[i], 443), CB_EINVAL, "\"%s\" was taken", rows[i]);
        cr_expect_eq(a.sa.sa_family, 0x5555, "\"%s\" clobbered the result", rows[i]);
        if (*rows[i]) cr_expect(strstr(cb_last_error(), "address \"") != NULL, "%s", cb_last_error());
    }
    cb_addr a;
    cr_expect_eq(cb_addr_parse(&a, NULL, 443), CB_EINVAL);
}

Test(base_addr, comparing) {
    static const struct {
        const char *a, *b;
        bool equal, same_host;
    } rows[] = {
        {"1.2.3.4:5", "1.2.3.4:5", true, true},
        {"1.2.3.4:5", "1.2.3.4:6", false, true},
        {"1.2.3.4:5", "1.2.3.5:5", false, false},
        {"[::ffff:1.2.3.4]:5", "1.2.3.4:5", true, true},
        {"[::1]:5", "[::1]:5", true, true},
        {"[::1]:5", "127.0.0.1:5", false, false},
        {"[fe80::1%1]:5", "[fe80::1%2]:5", false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_addr a, b;
        cb_addr_parse(&a, rows[i].a, 0);
        cb_addr_parse(&b, rows[i].b, 0);
        cr_expect_eq(cb_addr_equal(&a, &b), rows[i].equal, "%s %s", rows[i].a, rows[i].b);
        cr_expect_eq(cb_addr_same_host(&b, &a), rows[i].same_host, "%s %s", rows[i].a, rows[i].b);
    }
    cb_addr a, none = {.sa = {.sa_family = AF_UNSPEC}};
    char text[CB_ADDR_TEXT];
    cb_addr_parse(&a, "[::ffff:9.8.7.6]:54", 0);
    cb_addr_unmap(&a);
    cr_expect_eq(a.sa.sa_family, AF_INET);
    cb_addr_set_port(&a, 53);
    cr_expect_str_eq(cb_addr_text(&a, text), "9.8.7.6:53");
    cr_expect_eq(cb_addr_len(&none), 0);
    cr_expect_str_eq(cb_addr_text(&none, text), "none");
    cr_expect(!cb_addr_equal(&none, &none));
}

Test(base_addr, any) {
    static const struct {
        const char *text;
        bool any;
    } rows[] = {{"0.0.0.0:5", true}, {"[::]:0", true}, {":80", true}, {"0.0.0.1:0", false}, {"[::1]:0", false}};
    cb_addr a, none = {.sa = {.sa_family = AF_UNSPEC}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_addr_parse(&a, rows[i].text, 0);
        cr_expect_eq(cb_addr_is_any(&a), rows[i].any, "%s", rows[i].text);
    }
    cr_expect(!cb_addr_is_any(&none));
}
