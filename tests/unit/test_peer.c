/* Identities that certificates carry: names, SPIFFE IDs, fingerprints. */
#include "transport/peer.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <string.h>

typedef struct san {
    int type;
    const char *bytes;
    size_t len; /* 0 = a text */
} san;

typedef struct shape {
    const char *dn, *raw_cn;
    san names[6];
    unsigned usage; /* 0 = no extension */
    int ca;
} shape;

/* By hand: GnuTLS does not write names that play tricks. */
static void add_names(gnutls_x509_crt_t crt, const shape *s, unsigned many) {
    uint8_t der[4096];
    size_t at = 4;
    for (size_t i = 0; i < 6 && s->names[i].bytes; i++) {
        size_t len = s->names[i].len ? s->names[i].len : strlen(s->names[i].bytes);
        static const uint8_t tags[] = {[GNUTLS_SAN_DNSNAME] = 0x82,
                                       [GNUTLS_SAN_RFC822NAME] = 0x81,
                                       [GNUTLS_SAN_URI] = 0x86,
                                       [GNUTLS_SAN_IPADDRESS] = 0x87};
        cr_assert(len < 128 && at + len + 2 < sizeof der);
        der[at++] = tags[s->names[i].type];
        der[at++] = (uint8_t)len;
        memcpy(der + at, s->names[i].bytes, len);
        at += len;
    }
    for (unsigned i = 0; i < many; i++, at += 3)
        memcpy(der + at, (const uint8_t[]){0x82, 1, 'a'}, 3);
    if (at == 4) return;
    der[0] = 0x30;
    der[1] = 0x82;
    der[2] = (uint8_t)((at - 4) >> 8);
    der[3] = (uint8_t)(at - 4);
    cr_assert_geq(gnutls_x509_crt_set_extension_by_oid(crt, "2.5.29.17", der, at, 0), 0);
}

/* A self-signed certificate of that shape, and with so many DNS names more; the DER is the caller's. */
static gnutls_datum_t make(const shape *s, unsigned many) {
    static gnutls_x509_privkey_t key; /* one for all: making keys takes longer than all else here */
    gnutls_x509_crt_t crt;
    gnutls_datum_t der = {NULL, 0};
    if (!key) {
        gnutls_x509_privkey_init(&key);
        cr_assert_geq(
            gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0), 0);
    }
    gnutls_x509_crt_init(&crt);
    gnutls_x509_crt_set_version(crt, 3);
    gnutls_x509_crt_set_serial(crt, "\x0a\xbc", 2);
    gnutls_x509_crt_set_activation_time(crt, 1700000000);
    gnutls_x509_crt_set_expiration_time(crt, 1800000000);
    if (s->dn) cr_assert_geq(gnutls_x509_crt_set_dn(crt, s->dn, NULL), 0, "%s", s->dn);
    if (s->raw_cn)
        gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, s->raw_cn, (unsigned)strlen(s->raw_cn));
    add_names(crt, s, many);
    if (s->usage) gnutls_x509_crt_set_key_usage(crt, s->usage);
    gnutls_x509_crt_set_basic_constraints(crt, (unsigned)s->ca, -1);
    gnutls_x509_crt_set_key(crt, key);
    cr_assert_geq(gnutls_x509_crt_sign2(crt, crt, key, GNUTLS_DIG_SHA256, 0), 0);
    cr_assert_geq(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_DER, &der), 0);
    gnutls_x509_crt_deinit(crt);
    return der;
}

static cb_peer *read_one(const shape *s) {
    gnutls_datum_t der = make(s, 0);
    cb_peer *p = NULL;
    cb_slice chain = {der.data, der.size};
    cr_assert_eq(cb_peer_read(&p, &chain, 1), CB_OK, "%s", cb_last_error());
    gnutls_free(der.data);
    return p;
}

Test(peer, reads_what_a_certificate_says) {
    const shape s = {"CN=Anna\\, M\xc3\xbcller,O=Example",
                     NULL,
                     {{GNUTLS_SAN_DNSNAME, "WWW.Example.org", 0},
                      {GNUTLS_SAN_IPADDRESS, "\xc0\x00\x02\x01", 4},
                      {GNUTLS_SAN_RFC822NAME, "anna@Example.org", 0},
                      {GNUTLS_SAN_URI, "spiffe://td.test/a/b", 0},
                      {GNUTLS_SAN_DNSNAME, "*.example.net", 0}},
                     GNUTLS_KEY_DIGITAL_SIGNATURE,
                     0};
    cb_peer *p = read_one(&s);
    uint8_t digest[32];
    cb_slice der = cb_peer_cert(p, 0);
    cr_expect_str_eq(cb_peer_subject(p), "CN=Anna\\, M\\C3\\BCller,O=Example");
    cr_expect_str_eq(cb_peer_issuer(p), cb_peer_subject(p));
    cr_expect_str_eq(cb_peer_common_name(p), "Anna, M\\xc3\\xbcller");
    cr_expect_str_eq(cb_peer_serial(p), "0abc");
    cr_expect_eq(cb_peer_names(p, CB_SAN_DNS), 2);
    cr_expect_str_eq(cb_peer_name(p, CB_SAN_DNS, 0), "www.example.org");
    cr_expect_str_eq(cb_peer_name(p, CB_SAN_DNS, 1), "*.example.net");
    cr_expect_null(cb_peer_name(p, CB_SAN_DNS, 2));
    cr_expect_str_eq(cb_peer_name(p, CB_SAN_IP, 0), "192.0.2.1");
    cr_expect_str_eq(cb_peer_name(p, CB_SAN_EMAIL, 0), "anna@Example.org");
    cr_expect_str_eq(cb_peer_spiffe_id(p), "spiffe://td.test/a/b");
    cr_expect_eq(cb_peer_not_before(p), 1700000000);
    cr_expect_eq(cb_peer_expires(p), 1800000000);
    gnutls_hash_fast(GNUTLS_DIG_SHA256, der.base, der.len, digest);
    cr_expect_arr_eq(cb_peer_cert_sha256(p), digest, 32);
    cr_expect_arr_neq(cb_peer_key_sha256(p), digest, 32);
    cr_expect_eq(cb_peer_cert(p, 1).len, 0);
    cb_peer *again = cb_peer_ref(p);
    cb_peer_unref(p);
    cr_expect_eq(cb_peer_names(again, CB_SAN_URI), 1);
    cb_peer_unref(again);
}

Test(peer, an_empty_certificate_has_no_names) {
    cb_peer *p = read_one(&(shape){0});
    cr_expect_str_eq(cb_peer_subject(p), "");
    cr_expect_str_eq(cb_peer_common_name(p), "");
    cr_expect_str_eq(cb_peer_spiffe_id(p), "");
    for (int kind = CB_SAN_DNS; kind <= CB_SAN_URI; kind++)
        cr_expect_eq(cb_peer_names(p, kind), 0);
    cb_peer_unref(p);
}

Test(peer, spiffe_ids_follow_the_rules_of_svids) {
    enum { SIGN = GNUTLS_KEY_DIGITAL_SIGNATURE };
#define URI(text)                                                                                                      \
    { GNUTLS_SAN_URI, text, 0 }
    static const struct {
        shape s;
        const char *id;
    } rows[] = {
        {{NULL, NULL, {URI("spiffe://td/x")}, SIGN, 0}, "spiffe://td/x"},
        {{NULL, NULL, {URI("spiffe://td-1.a_b/X/y.z/-_")}, SIGN, 0}, "spiffe://td-1.a_b/X/y.z/-_"},
        {{NULL, NULL, {{GNUTLS_SAN_DNSNAME, "a.test", 0}, URI("spiffe://td/x")}, SIGN, 0}, "spiffe://td/x"},
        {{NULL, NULL, {URI("spiffe://td/x"), URI("spiffe://td/y")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/x"), URI("https://a.test/")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/x"), {GNUTLS_SAN_URI, "bad uri", 0}}, SIGN, 0},
         ""}, /* it counts all the same */
        {{NULL, NULL, {URI("spiffe://td/x")}, SIGN, 1}, ""},
        {{NULL, NULL, {URI("spiffe://td/x")}, 0, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/x")}, GNUTLS_KEY_KEY_ENCIPHERMENT, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/x")}, SIGN | GNUTLS_KEY_KEY_CERT_SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/x")}, SIGN | GNUTLS_KEY_CRL_SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/x/")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td//x")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/./x")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/../x")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/.../x")}, SIGN, 0}, "spiffe://td/.../x"},
        {{NULL, NULL, {URI("spiffe://TD/x")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("SPIFFE://td/x")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td:1/x")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://u@td/x")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/x?q")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/x#f")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe://td/%41")}, SIGN, 0}, ""},
        {{NULL, NULL, {URI("spiffe:///x")}, SIGN, 0}, ""},
        {{NULL, NULL, {{GNUTLS_SAN_URI, "spiffe://td/x\0y", 15}}, SIGN, 0}, ""},
        {{NULL, NULL, {{GNUTLS_SAN_DNSNAME, "spiffe://td/x", 0}}, SIGN, 0}, ""},
    };
#undef URI
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_peer *p = read_one(&rows[i].s);
        cr_expect_str_eq(cb_peer_spiffe_id(p), rows[i].id, "row %zu", i);
        cr_expect_eq(cb_peer_is(p, "spiffe://td/x"), strcmp(rows[i].id, "spiffe://td/x") == 0, "row %zu", i);
        cb_peer_unref(p);
    }
}

Test(peer, names_that_play_tricks_are_left_out) {
    const shape s = {NULL,
                     "a\nb",
                     {{GNUTLS_SAN_DNSNAME, "good.test\0.evil.test", 20},
                      {GNUTLS_SAN_DNSNAME, "with space.test", 0},
                      {GNUTLS_SAN_RFC822NAME, "a\r\nX: y@z", 0},
                      {GNUTLS_SAN_IPADDRESS, "\x01\x02\x03", 3},
                      {GNUTLS_SAN_DNSNAME, "b\\x41.test", 0}},
                     0,
                     0};
    cb_peer *p = read_one(&s);
    for (int kind = CB_SAN_DNS; kind <= CB_SAN_URI; kind++)
        cr_expect_eq(cb_peer_names(p, kind), 0, "kind %d", kind);
    cr_expect_str_eq(cb_peer_common_name(p), "");
    cr_expect_null(strchr(cb_peer_subject(p), '\n'));
    cr_expect_not(cb_peer_is(p, "good.test"));
    cb_peer_unref(p);
}

Test(peer, names_fit_or_do_not) {
    const shape s = {"CN=only.cn.test",
                     NULL,
                     {{GNUTLS_SAN_DNSNAME, "*.example.org", 0},
                      {GNUTLS_SAN_DNSNAME, "host.test", 0},
                      {GNUTLS_SAN_IPADDRESS, "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01", 16},
                      {GNUTLS_SAN_RFC822NAME, "Anna@example.org", 0},
                      {GNUTLS_SAN_URI, "spiffe://td/ns/a", 0}},
                     GNUTLS_KEY_DIGITAL_SIGNATURE,
                     0};
    static const struct {
        const char *name;
        int fits;
    } rows[] = {
        {"www.example.org", 1},   {"WWW.EXAMPLE.ORG", 1},  {"www.example.org.", 1}, {"a.www.example.org", 0},
        {"example.org", 0},       {".example.org", 0},     {"host.test", 1},        {"host.tes", 0},
        {"only.cn.test", 0},      {"2001:db8::1", 1},      {"2001:DB8:0::1", 1},    {"[2001:db8::1]", 1},
        {"2001:db8::2", 0},       {"Anna@EXAMPLE.org", 1}, {"anna@example.org", 0}, {"spiffe://td/ns/a", 1},
        {"spiffe://td/ns/", 1},   {"spiffe://td/", 1},     {"spiffe://td", 0},      {"spiffe://td/ns", 0},
        {"spiffe://td/ns/a/", 0}, {"spiffe://t/", 0},      {"spiffe:", 0},          {"", 0},
    };
    cb_peer *p = read_one(&s);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(cb_peer_is(p, rows[i].name), rows[i].fits, "\"%s\"", rows[i].name);
    cb_peer_unref(p);
}

Test(peer, refuses_what_is_no_chain) {
    gnutls_datum_t der = make(&(shape){0}, 0);
    static uint8_t large[70000];
    cb_slice chain[17] = {{der.data, der.size}};
    cb_peer *p = NULL;
    for (size_t i = 1; i < 17; i++)
        chain[i] = chain[0];
    cr_expect_eq(cb_peer_read(NULL, chain, 1), CB_EINVAL);
    cr_expect_eq(cb_peer_read(&p, NULL, 1), CB_EINVAL);
    cr_expect_eq(cb_peer_read(&p, chain, 0), CB_EINVAL);
    cr_expect_eq(cb_peer_read(&p, chain, 17), CB_EINVAL);
    cr_expect_eq(cb_peer_read(&p, chain, 16), CB_OK);
    cr_expect_eq(cb_peer_cert(p, 15).len, der.size);
    cb_peer_unref(p);
    p = NULL;
    chain[1] = (cb_slice){large, sizeof large};
    cr_expect_eq(cb_peer_read(&p, chain, 2), CB_EINVAL);
    for (size_t cut = 0; cut < der.size; cut += 7) {
        chain[0].len = cut;
        cr_expect_eq(cb_peer_read(&p, chain, 1), CB_EINVAL, "cut at %zu", cut);
    }
    cr_expect_null(p);
    gnutls_free(der.data);
}

Test(peer, the_number_of_names_is_bounded) {
    for (unsigned n = 1024; n <= 1025; n++) {
        gnutls_datum_t der = make(&(shape){0}, n);
        cb_slice chain = {der.data, der.size};
        cb_peer *p = NULL;
        cr_expect_eq(cb_peer_read(&p, &chain, 1), n <= 1024 ? CB_OK : CB_EINVAL, "%u: %s", n, cb_last_error());
        if (p) cr_expect_eq(cb_peer_names(p, CB_SAN_DNS), n);
        cb_peer_unref(p);
        gnutls_free(der.data);
    }
}
