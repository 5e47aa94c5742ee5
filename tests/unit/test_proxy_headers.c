#include "base/base64.h"
#include "base/mem.h"
#include "http/proxy_headers.h"
#include "http/ws_key.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* "name: value\n..." to fields. */
static size_t read_fields(cb_field *out, const char *lines) {
    size_t n = 0;
    while (*lines) {
        const char *colon = strchr(lines, ':'), *end = strchr(lines, '\n');
        const char *value = colon + (colon[1] == ' ' ? 2 : 1);
        out[n++] = (cb_field){{(const uint8_t *)lines, (size_t)(colon - lines)},
                              {(const uint8_t *)value, (size_t)(end - value)}};
        lines = end + 1;
    }
    return n;
}

static void write_fields(char *out, size_t cap, const cb_relay *f) {
    *out = '\0';
    for (size_t i = 0; i < f->n; i++) {
        size_t at = strlen(out);
        snprintf(out + at, cap - at, "%.*s: %.*s\n", (int)f->at[i].name.len, (const char *)f->at[i].name.base,
                 (int)f->at[i].value.len, (const char *)f->at[i].value.base);
    }
}

#define OURS(peer, proto, v)                                                                                           \
    "x-forwarded-for: " peer "\nx-forwarded-proto: " proto "\nx-forwarded-host: h\nforwarded: for=" peer               \
    ";host=h;proto=" proto "\nvia: " v " edge\n"

Test(proxy_headers, requests) {
    static const struct {
        const char *remote, *in, *out, *client;
        int version;
        bool secure, early;
    } rows[] = {
        {"203.0.113.9:5", "host: h\naccept: */*\n", "accept: */*\n" OURS("203.0.113.9", "http", "1.1"), "203.0.113.9",
         1, false, false},
        {"203.0.113.9:5", "accept: a\n", "accept: a\n" OURS("203.0.113.9", "https", "3"), "203.0.113.9", 4, true,
         false},
        /* hop by hop, and what Connection names */
        {"203.0.113.9:5",
         "connection: close, X-Secret ,, x-other\nkeep-alive: 5\nproxy-connection: x\nte: gzip\ntransfer-encoding: "
         "chunked\n"
         "upgrade: h2c\nhttp2-settings: a\nx-secret: 1\nx-other: 2\nx-kept: 3\nproxy-authorization: p\n",
         "x-kept: 3\n" OURS("203.0.113.9", "http", "1.1"), "203.0.113.9", 1, false, false},
        {"203.0.113.9:5", "connection: content-length, authorization\ncontent-length: 4\nauthorization: a\n",
         "content-length: 4\nauthorization: a\n" OURS("203.0.113.9", "http", "1.1"), "203.0.113.9", 1, false, false},
        {"203.0.113.9:5", "te: gzip, trailers;q=0.5\n", OURS("203.0.113.9", "http", "2"), "203.0.113.9", 2, false,
         false},
        {"203.0.113.9:5", "te: trailers\n", "te: trailers\n" OURS("203.0.113.9", "http", "2"), "203.0.113.9", 2, false,
         false},
        /* an untrusted peer cannot say who forwarded */
        {"203.0.113.9:5",
         "x-forwarded-for: 1.1.1.1\nforwarded: for=1.1.1.1\nx-real-ip: 1.1.1.1\nx_forwarded_for: 1.1.1.1\n"
         "x-forwarded-proto: https\nx-forwarded-host: evil\nx-forwarded-port: 1\n",
         OURS("203.0.113.9", "http", "1.1"), "203.0.113.9", 1, false, false},
        /* a trusted one can */
        {"10.1.2.3:5", "x-forwarded-for: 1.1.1.1, 198.51.100.7\nx-forwarded-for: 10.9.9.9\nx-forwarded-proto: https\n",
         "x-forwarded-for: 1.1.1.1, 198.51.100.7, 10.9.9.9, 10.1.2.3\nx-forwarded-proto: https\nx-forwarded-host: h\n"
         "forwarded: for=10.1.2.3;host=h;proto=http\nvia: 1.1 edge\n",
         "198.51.100.7", 1, false, false},
        {"10.1.2.3:5", "forwarded: for=1.1.1.1;proto=https\n",
         "x-forwarded-for: 10.1.2.3\nx-forwarded-proto: http\nx-forwarded-host: h\n"
         "forwarded: for=1.1.1.1;proto=https, for=10.1.2.3;host=h;proto=http\nvia: 1.1 edge\n",
         "10.1.2.3", 1, false, false},
        {"10.1.2.3:5", "x-forwarded-for: 1.1.1.1, unknown\n",
         "x-forwarded-for: 1.1.1.1, unknown, 10.1.2.3\nx-forwarded-proto: http\nx-forwarded-host: h\n"
         "forwarded: for=10.1.2.3;host=h;proto=http\nvia: 1.1 edge\n",
         "10.1.2.3", 1, false, false},
        {"[2001:db8:1::2]:5", "",
         "x-forwarded-for: 2001:db8:1::2\nx-forwarded-proto: http\nx-forwarded-host: h\n"
         "forwarded: for=\"[2001:db8:1::2]\";host=h;proto=http\nvia: 1.1 edge\n",
         "2001:db8:1::2", 1, false, false},
        /* crumbs, early data, Via goes on */
        {"203.0.113.9:5", "cookie: a=1\nx: y\ncookie: b=2\n",
         "x: y\ncookie: a=1; b=2\n" OURS("203.0.113.9", "https", "2"), "203.0.113.9", 2, true, false},
        {"203.0.113.9:5", "", "early-data: 1\n" OURS("203.0.113.9", "https", "3"), "203.0.113.9", 4, true, true},
        {"203.0.113.9:5", "early-data: 1\n", "early-data: 1\n" OURS("203.0.113.9", "https", "3"), "203.0.113.9", 4,
         true, true},
        /* once, whatever came (RFC 8470, 5.1); Connection cannot take it away */
        {"203.0.113.9:5", "early-data: 1\nx: y\nearly-data: no\n",
         "x: y\nearly-data: 1\n" OURS("203.0.113.9", "https", "3"), "203.0.113.9", 4, true, false},
        {"203.0.113.9:5", "connection: early-data, close\nearly-data: 1\n",
         "early-data: 1\n" OURS("203.0.113.9", "http", "1.1"), "203.0.113.9", 1, false, false},
        {"203.0.113.9:5", "via: 1.0 fred\n", "via: 1.0 fred\n" OURS("203.0.113.9", "http", "1.1"), "203.0.113.9", 1,
         false, false},
    };
    cb_prefix trusted[2];
    cb_relay f;
    cr_assert_eq(cb_prefix_parse(&trusted[0], "10.0.0.0/8"), CB_OK);
    cr_assert_eq(cb_prefix_parse(&trusted[1], "fd00::/8"), CB_OK);
    cb_relay_init(&f, NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_field in[32];
        char out[2048];
        const cb_relay_env env = {.trusted = trusted,
                                  .n_trusted = 2,
                                  .remote = rows[i].remote,
                                  .via = "edge",
                                  .authority = cb_slice_str("h"),
                                  .version = rows[i].version,
                                  .secure = rows[i].secure,
                                  .early = rows[i].early};
        cr_assert_eq(cb_relay_request(&f, in, read_fields(in, rows[i].in), &env), CB_OK);
        write_fields(out, sizeof out, &f);
        cr_expect_str_eq(out, rows[i].out, "row %zu\n%s", i, out);
        cr_expect(f.client.len == strlen(rows[i].client) && !memcmp(f.client.base, rows[i].client, f.client.len),
                  "row %zu: client %.*s", i, (int)f.client.len, (const char *)f.client.base);
    }
    cb_relay_free(&f);
}

Test(proxy_headers, loops_and_lengths) {
    cb_relay f;
    cb_field in[16];
    cb_relay_init(&f, NULL);
    cb_relay_env env = {.remote = "", .via = "edge", .version = 2, .no_forwarded = true, .no_x_forwarded = true};
    size_t n = read_fields(
        in, "via: 1.1 edge, 2 edge, 3 edge,1.1 edge\nvia: 1.1 edge, 1.1 edge\nvia: 1.1 edge, 2 edge, 3 edge\n");
    cr_expect_eq(cb_relay_request(&f, in, n, &env), CB_OK);
    n = read_fields(
        in, "via: 1.1 edge, 2 edge, 3 edge,1.1 edge\nvia: 1.1 edge, 1.1 edge\nvia: 1.1 edge, 2 edge, 3 edge, 2 edge\n");
    cr_expect_eq(cb_relay_request(&f, in, n, &env), CB_ELIMIT);
    n = read_fields(in, "content-length: 42\n");
    cr_expect_eq(cb_relay_request(&f, in, n, &env), CB_OK);
    cr_expect_eq(f.length, 42);
    cr_expect_eq(f.n, 2);
    cr_expect_eq(cb_relay_request(&f, in, 0, &env), CB_OK);
    cr_expect_eq(f.length, -1);
    cb_relay_free(&f);
}

Test(proxy_headers, responses_and_trailers) {
    cb_relay f;
    cb_field in[16];
    char out[1024];
    cb_relay_init(&f, NULL);
    const cb_relay_env env = {.via = "edge", .version = 1};
    size_t n = read_fields(in, "connection: x-a\nx-a: 1\nset-cookie: a\nset-cookie: b\nalt-svc: "
                               "h3=\":1\"\ntransfer-encoding: chunked\nserver: s\nvia: 1.1 o\n");
    cr_expect_eq(cb_relay_response(&f, in, n, &env), CB_OK);
    write_fields(out, sizeof out, &f);
    cr_expect_str_eq(out, "set-cookie: a\nset-cookie: b\nserver: s\nvia: 1.1 o\nvia: 1.1 edge\n", "%s", out);
    cb_relay_drop(&f, "set-cookie");
    cr_expect_eq(f.n, 3);
    cr_expect_eq(cb_relay_add(&f, "x-more", cb_slice_str("1")), CB_OK);
    n = read_fields(in, "grpc-status: 0\ncontent-length: 5\nset-cookie: a\nx-forwarded-for: 1\nx-checksum: q\n");
    cr_expect_eq(cb_relay_trailers(&f, in, n, &(cb_relay_env){.n_hidden = 0}), CB_OK);
    write_fields(out, sizeof out, &f);
    cr_expect_str_eq(out, "grpc-status: 0\nx-checksum: q\n", "%s", out);
    char *const hidden[] = {"x-checksum", "x-user"};
    n = read_fields(in, "x-checksum: q\nx_checksum: q\nx-user: evil\nx_user: evil\nx-users: 1\n");
    cr_expect_eq(cb_relay_trailers(&f, in, n, &(cb_relay_env){.hidden = hidden, .n_hidden = 2}), CB_OK);
    write_fields(out, sizeof out, &f);
    cr_expect_str_eq(out, "x-users: 1\n", "%s", out);
    cb_relay_free(&f);
}

Test(proxy_headers, prefixes) {
    static const struct {
        const char *prefix, *address;
        bool in;
    } rows[] = {
        {"10.0.0.0/8", "10.255.0.1", true},
        {"10.0.0.0/8", "11.0.0.1", false},
        {"10.0.0.0/8", "::ffff:10.1.1.1", true},
        {"10.0.0.0/8", "[::ffff:10.1.1.1]:80", true},
        {"10.0.0.0/8", "10.0.0.1:80", true},
        {"0.0.0.0/0", "1.2.3.4", true},
        {"0.0.0.0/0", "::1", false},
        {"::/0", "1.2.3.4", true},
        {"192.0.2.128/25", "192.0.2.127", false},
        {"192.0.2.128/25", "192.0.2.200", true},
        {"2001:db8::/33", "2001:db8:7fff::", true},
        {"2001:db8::/33", "2001:db8:8000::", false},
        {"::1", "::1", true},
        {"::1", "::2", false},
        {"127.0.0.1", "127.0.0.1", true},
        {"fe80::/10", "fe80::1%eth0", true},
        {"::/0", "", false},
        {"::/0", "x", false},
        {"::/0", "[::1", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_prefix p;
        cr_assert_eq(cb_prefix_parse(&p, rows[i].prefix), CB_OK, "%s", rows[i].prefix);
        cr_expect_eq(cb_prefix_any(&p, 1, cb_slice_str(rows[i].address)), rows[i].in, "%s %s", rows[i].prefix,
                     rows[i].address);
    }
    static const char *const bad[] = {NULL,       "",          "/8", "1.2.3.4/33", "::/129",
                                      "1.2.3.4/", "1.2.3.4/x", "x",  "1.2.3.4/8/8"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cb_prefix p;
        cr_expect_eq(cb_prefix_parse(&p, bad[i]), CB_EINVAL, "%s", bad[i] ? bad[i] : "NULL");
    }
}

Test(proxy_headers, websocket_keys) {
    /* The example of RFC 6455, 1.3. */
    char accept[CB_WS_ACCEPT + 1], key[CB_WS_KEY + 1];
    cb_ws_key(key, (const uint8_t *)"the sample nonce");
    cr_expect_str_eq(key, "dGhlIHNhbXBsZSBub25jZQ==");
    cr_assert_eq(cb_ws_accept(accept, cb_slice_str(key)), CB_OK);
    cr_expect_str_eq(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    cr_expect_eq(cb_ws_accept(accept, cb_slice_str("short")), CB_EINVAL);
    cr_expect_eq(cb_ws_accept(accept, (cb_slice){NULL, 0}), CB_EINVAL);
}

/* RFC 9440: ours, or that of a trusted proxy in front; never one of the outside, in no spelling. */
Test(proxy_headers, certificate_of_the_client) {
    char cert[1 << 10], out[8192], expected[4096];
    uint8_t der[700];
    FILE *f = fopen(CB_SOURCE_DIR "/tests/fuzz/corpus/peer/svid", "rb");
    cr_assert(f, "no seed");
    const size_t len = fread(der, 1, sizeof der, f);
    fclose(f);
    const cb_slice chain[] = {{der, len}, {der, len}};
    cb_peer *peer = NULL;
    cr_assert_eq(cb_peer_read(&peer, chain, 2), CB_OK, "%s", cb_last_error());
    cb_base64_encode(cert, der, len);
    cb_prefix trusted;
    cr_assert_eq(cb_prefix_parse(&trusted, "203.0.113.0/24"), CB_OK);
    static const char theirs[] = "client-cert: :AAAA:\nclient-cert-chain: :AAAA:\nclient_cert: :AAAA:\n"
                                 "x-forwarded-client-cert: By=x\nclient_cert_chain: :AAAA:\n";
    for (int mode = 0; mode <= 2; mode++)
        for (int shown = 0; shown < 2; shown++)
            for (size_t n_trusted = 0; n_trusted < 2; n_trusted++) {
                cb_field in[8];
                cb_relay fwd;
                const cb_relay_env env = {.remote = "203.0.113.9:5",
                                          .via = "edge",
                                          .version = 2,
                                          .no_forwarded = true,
                                          .no_x_forwarded = true,
                                          .trusted = &trusted,
                                          .n_trusted = n_trusted,
                                          .peer = shown ? peer : NULL,
                                          .client_cert = mode};
                cb_relay_init(&fwd, &cb_alloc_libc);
                cr_assert_eq(cb_relay_request(&fwd, in, read_fields(in, theirs), &env), CB_OK);
                write_fields(out, sizeof out, &fwd);
                if (mode && shown)
                    snprintf(expected, sizeof expected, "client-cert: :%s:\n%s%s%svia: 2 edge\n", cert,
                             mode > 1 ? "client-cert-chain: :" : "", mode > 1 ? cert : "", mode > 1 ? ":\n" : "");
                else
                    snprintf(expected, sizeof expected, "%svia: 2 edge\n",
                             n_trusted
                                 ? "client-cert: :AAAA:\nclient-cert-chain: :AAAA:\nx-forwarded-client-cert: By=x\n"
                                 : "");
                cr_expect_str_eq(out, expected, "mode %d, shown %d, trusted %zu: %s", mode, shown, n_trusted, out);
                cb_relay_free(&fwd);
            }
    cb_peer_unref(peer);
}
