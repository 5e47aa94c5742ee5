/* The private authority: chains, profiles, signing requests, the index, revocation. Outside judges are in
 * interop/test_ca.py. */
#include "auth/ca_int.h"
#include "support/scratch.h"
#include "support/tls_fixture.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A root with the given path length in a folder of its own. */
static void make_root(tls_pki *p, uint32_t path_len) {
    scratch_folder(p->dir, sizeof p->dir, "pki");
    snprintf(p->ca_file, sizeof p->ca_file, "%s/ca.pem", p->dir);
    int rc = cb_ca_open(&p->ca, CB_OPTS(cb_ca_opts, .dir = p->dir, .path_len = path_len, .mode = CB_CA_MAKE));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

static int make_below(tls_pki *p, cb_ca *parent, const char *const *permitted, size_t permitted_len) {
    scratch_folder(p->dir, sizeof p->dir, "pki");
    p->ca = NULL;
    return cb_ca_open(&p->ca, CB_OPTS(cb_ca_opts, .dir = p->dir, .parent = parent, .permitted = permitted,
                                      .permitted_len = permitted_len));
}

static gnutls_x509_crt_t first_of(const char *pem) {
    gnutls_x509_crt_t crt;
    gnutls_datum_t data = {(uint8_t *)(uintptr_t)pem, (unsigned)strlen(pem)};
    gnutls_x509_crt_init(&crt);
    cr_assert_eq(gnutls_x509_crt_import(crt, &data, GNUTLS_X509_FMT_PEM), 0);
    return crt;
}

static void issue_pem(cb_ca *ca, const char *name, char **cert, char **key) {
    int rc = cb_ca_issue_pem(ca, CB_OPTS(cb_leaf_opts, .names = &name, .names_len = 1), cert, key);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

Test(ca_private, defaults_of_roots_and_leaves) {
    tls_pki p;
    char *cert, *key, serial[CB_SERIAL_TEXT];
    make_root(&p, 0);
    gnutls_x509_crt_t root = p.ca->crt;
    unsigned bits = 0;
    cr_expect_eq(gnutls_x509_crt_get_pk_algorithm(root, &bits), GNUTLS_PK_ECDSA);
    cr_expect_eq(bits, 384);
    cr_expect_eq(gnutls_x509_crt_get_signature_algorithm(root), GNUTLS_SIGN_ECDSA_SHA384);
    int64_t left = (int64_t)gnutls_x509_crt_get_expiration_time(root) - (int64_t)time(NULL);
    cr_expect(left <= 3650 * 86400 && left > 3649 * 86400, "10 years: %lld s", (long long)left);
    time_t before = time(NULL);
    issue_pem(p.ca, "a.test", &cert, &key);
    gnutls_x509_crt_t leaf = first_of(cert);
    int64_t end = gnutls_x509_crt_get_expiration_time(leaf);
    cr_expect(end >= before + 86400 && end <= time(NULL) + 86400);
    cr_expect_eq(cb_cert_serial(leaf, serial), CB_OK);
    cr_expect_eq(strlen(serial), 32, "128 bits: %s", serial);
    gnutls_x509_crt_deinit(leaf);
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    tls_pki_drop(&p);
}

Test(ca_private, what_is_refused_and_why) {
    static const char *const good = "a.test", *const svid = "spiffe://td.test/web",
                             *const two[] = {"spiffe://td.test/a", "spiffe://td.test/b"};
    static const char *const bad_uris[] = {"",
                                           "noscheme",
                                           "spiffe:td/web",
                                           "spiffe://",
                                           "spiffe:///web",
                                           "spiffe://TD.test/web",
                                           "spiffe://td.test/",
                                           "spiffe://td.test//web",
                                           "spiffe://td.test/web/",
                                           "spiffe://td.test/../x",
                                           "spiffe://td.test/./x",
                                           "spiffe://td.test:1/x",
                                           "spiffe://u@td.test/x",
                                           "spiffe://td.test/a%20b",
                                           "spiffe://td.test/x?q",
                                           "https://a b",
                                           "https://a\tb",
                                           "https://a,b",
                                           "https://\xc3\xa9"};
    const struct {
        const char *say;
        cb_leaf_opts o;
    } rows[] = {
        {"366 days", {.names = &good, .names_len = 1, .days = 367}},
        {"366 days", {.names = &good, .names_len = 1, .lifetime_s = 367 * 86400}},
        {"no such profile", {.names = &good, .names_len = 1, .profile = 5}},
        {"no such profile", {.names = &good, .names_len = 1, .profile = -1}},
        {"needs a name", {.file_stem = "x"}},
        {"exactly one URI", {.names = &good, .names_len = 1, .profile = CB_CERT_SVID}},
        {"at most one SPIFFE", {.uris = two, .uris_len = 2}},
        {"must_staple", {.names = &good, .names_len = 1, .profile = CB_CERT_CLIENT, .must_staple = 1}},
        {"file_stem", {.profile = CB_CERT_CLIENT}},
        {"names are NULL", {.names_len = 1}},
        {"cannot name", {.names = &good, .names_len = 1, .file_stem = "root"}},
    };
    tls_pki p;
    make_root(&p, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_leaf_opts o = rows[i].o;
        o.size = sizeof o;
        cr_expect_eq(cb_ca_issue(p.ca, &o, NULL, NULL), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), rows[i].say) != NULL, "row %zu: %s", i, cb_last_error());
    }
    for (size_t i = 0; i < sizeof bad_uris / sizeof *bad_uris; i++) {
        int rc =
            cb_ca_issue(p.ca, CB_OPTS(cb_leaf_opts, .uris = &bad_uris[i], .uris_len = 1, .file_stem = "u"), NULL, NULL);
        cr_expect_eq(rc, CB_EINVAL, "\"%s\" was certified", bad_uris[i]);
    }
    cr_expect_eq(
        cb_ca_issue(p.ca, CB_OPTS(cb_leaf_opts, .uris = &svid, .uris_len = 1, .profile = CB_CERT_SVID), NULL, NULL),
        CB_OK, "%s", cb_last_error());
    cb_ca_index index;
    cr_assert_eq(cb_ca_index_read(&index, p.dir), CB_OK);
    cr_expect_eq(index.len, 1, "what was refused is in no index");
    cb_ca_index_clear(&index);
    tls_pki_drop(&p);
}

Test(ca_private, intermediates_keep_to_path_length_and_names) {
    static const char *const permitted[] = {"corp.test", "10.0.0.0/8"}, *const range = "10.0.0.0/8";
    static const struct {
        const char *name;
        int rc;
    } rows[] = {{"a.corp.test", CB_OK}, {"corp.test", CB_OK},    {"acorp.test", CB_EPERM}, {"a.other.test", CB_EPERM},
                {"10.1.2.3", CB_OK},    {"192.0.2.1", CB_EPERM}, {"::1", CB_EPERM},        {"*.corp.test", CB_OK}};
    tls_pki root, mid, low, leafless;
    make_root(&root, 1);
    cr_assert_eq(make_below(&mid, root.ca, permitted, 2), CB_OK, "%s", cb_last_error());
    cr_expect_eq(make_below(&low, mid.ca, NULL, 0), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "path length") != NULL, "%s", cb_last_error());
    cr_expect_eq(make_below(&leafless, root.ca, &range, 1), CB_EINVAL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *cert = NULL, *key = NULL;
        int rc = cb_ca_issue_pem(mid.ca, CB_OPTS(cb_leaf_opts, .names = &rows[i].name, .names_len = 1), &cert, &key);
        cr_expect_eq(rc, rows[i].rc, "%s: %d %s", rows[i].name, rc, cb_last_error());
        if (rc < 0) continue;
        gnutls_x509_crt_t chain[4];
        gnutls_datum_t data = {(uint8_t *)cert, (unsigned)strlen(cert)};
        gnutls_x509_trust_list_t trust;
        unsigned n = 4, status = 1;
        cr_assert_eq(gnutls_x509_crt_list_import(chain, &n, &data, GNUTLS_X509_FMT_PEM, 0), 2, "leaf and intermediate");
        gnutls_x509_trust_list_init(&trust, 0);
        gnutls_x509_trust_list_add_cas(trust, &root.ca->crt, 1, 0);
        cr_expect_eq(gnutls_x509_trust_list_verify_crt(trust, chain, n, 0, &status, NULL), 0);
        cr_expect_eq(status, 0, "%s: status %x", rows[i].name, status);
        gnutls_x509_trust_list_deinit(trust, 0);
        for (unsigned k = 0; k < n; k++) {
            gnutls_x509_crt_deinit(chain[k]);
        }
        cb_ca_text_free(cert);
        cb_ca_text_free(key);
    }
    tls_pki *all[] = {&low, &leafless, &mid, &root};
    for (size_t i = 0; i < 4; i++) {
        tls_pki_drop(all[i]);
    }
}

/* --- signing requests --- */

struct request {
    const char *what;
    const char *dns, *uri, *ip; /* ip: four bytes */
    bool authority, cert_sign, weak_key, email, nul_name, forged;
    int rc;
    const char *say;
};

static gnutls_datum_t make_request(const struct request *r, bool pem) {
    gnutls_x509_crq_t crq;
    gnutls_x509_privkey_t key;
    gnutls_datum_t out = {NULL, 0};
    gnutls_x509_crq_init(&crq);
    gnutls_x509_privkey_init(&key);
    if (r->weak_key) {
        cr_assert_eq(gnutls_x509_privkey_generate(key, GNUTLS_PK_RSA, 1024, 0), 0);
    } else {
        cr_assert_eq(
            gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0), 0);
    }
    gnutls_x509_crq_set_version(crq, 1);
    gnutls_x509_crq_set_key(crq, key);
    gnutls_x509_crq_set_dn_by_oid(crq, GNUTLS_OID_X520_COMMON_NAME, 0, "ignored", 7);
    if (r->dns && !r->nul_name) {
        gnutls_x509_crq_set_subject_alt_name(crq, GNUTLS_SAN_DNSNAME, r->dns, (unsigned)strlen(r->dns),
                                             GNUTLS_FSAN_APPEND);
    }
    if (r->nul_name) { /* GnuTLS does not write such a name */
        static const char der[] = "\x30\x0a\x82\x08"
                                  "a.test\0b";
        cr_assert_eq(gnutls_x509_crq_set_extension_by_oid(crq, "2.5.29.17", (void *)(uintptr_t)der, 12, 0), 0);
    }
    if (r->uri) {
        gnutls_x509_crq_set_subject_alt_name(crq, GNUTLS_SAN_URI, r->uri, (unsigned)strlen(r->uri), GNUTLS_FSAN_APPEND);
    }
    if (r->ip) gnutls_x509_crq_set_subject_alt_name(crq, GNUTLS_SAN_IPADDRESS, r->ip, 4, GNUTLS_FSAN_APPEND);
    if (r->email) {
        gnutls_x509_crq_set_subject_alt_name(crq, GNUTLS_SAN_RFC822NAME, "a@a.test", 8, GNUTLS_FSAN_APPEND);
    }
    if (r->authority) gnutls_x509_crq_set_basic_constraints(crq, 1, -1);
    if (r->cert_sign) gnutls_x509_crq_set_key_usage(crq, GNUTLS_KEY_KEY_CERT_SIGN);
    cr_assert_eq(gnutls_x509_crq_sign2(crq, key, GNUTLS_DIG_SHA256, 0), 0);
    cr_assert_eq(gnutls_x509_crq_export2(crq, pem ? GNUTLS_X509_FMT_PEM : GNUTLS_X509_FMT_DER, &out), 0);
    if (r->forged) out.data[out.size - 1] ^= 1;
    gnutls_x509_crq_deinit(crq);
    gnutls_x509_privkey_deinit(key);
    return out;
}

Test(ca_private, signing_requests) {
    static const struct request rows[] = {
        {.what = "good", .dns = "a.test", .rc = CB_OK},
        {.what = "without names: those of the options", .rc = CB_EINVAL, .say = ".below.test"},
        {.what = "below", .dns = "x.y.below.test", .rc = CB_OK},
        {.what = "not the apex of below", .dns = "below.test", .rc = CB_EPERM, .say = "not allowed"},
        {.what = "suffix without a dot", .dns = "xbelow.test", .rc = CB_EPERM, .say = "not allowed"},
        {.what = "other name", .dns = "b.test", .rc = CB_EPERM, .say = "\"b.test\""},
        {.what = "wildcard that nobody allowed", .dns = "*.test", .rc = CB_EPERM, .say = "\"*.test\""},
        {.what = "address", .ip = "\xc0\x00\x02\x01", .rc = CB_OK},
        {.what = "other address", .ip = "\xc0\x00\x02\x02", .rc = CB_EPERM, .say = "192.0.2.2"},
        {.what = "URI", .uri = "spiffe://td.test/ns/web", .rc = CB_OK},
        {.what = "other trust domain", .uri = "spiffe://td.test.evil/ns/web", .rc = CB_EPERM, .say = "not allowed"},
        {.what = "URI that is none", .uri = "spiffe://td.test/ns/../web", .rc = CB_EINVAL, .say = "SPIFFE"},
        {.what = "email", .dns = "a.test", .email = true, .rc = CB_EINVAL, .say = "neither DNS name"},
        {.what = "NUL", .nul_name = true, .rc = CB_EINVAL, .say = "NUL"},
        {.what = "authority", .dns = "a.test", .authority = true, .rc = CB_EINVAL, .say = "become an authority"},
        {.what = "signer", .dns = "a.test", .cert_sign = true, .rc = CB_EINVAL, .say = "right to sign"},
        {.what = "weak key", .dns = "a.test", .weak_key = true, .rc = CB_EINVAL, .say = "1024 bits"},
        {.what = "forged", .dns = "a.test", .forged = true, .rc = CB_EAUTH, .say = "own key"},
    };
    static const char *const names[] = {"a.test", ".below.test", "192.0.2.1"}, *const uris[] = {"spiffe://td.test/ns/"};
    const cb_leaf_opts o = {.size = sizeof o, .names = names, .names_len = 3, .uris = uris, .uris_len = 1};
    tls_pki p;
    make_root(&p, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int pem = 0; pem < (rows[i].forged ? 1 : 2); pem++) {
            gnutls_datum_t csr = make_request(&rows[i], pem);
            char *cert = NULL;
            int rc = cb_ca_sign(p.ca, (cb_slice){csr.data, csr.size}, &o, &cert);
            cr_expect_eq(rc, rows[i].rc, "%s: %d %s", rows[i].what, rc, rc < 0 ? cb_last_error() : "");
            if (rc < 0)
                cr_expect(strstr(cb_last_error(), rows[i].say) != NULL, "%s: %s", rows[i].what, cb_last_error());
            cb_ca_text_free(cert);
            gnutls_free(csr.data);
        }
    }
    tls_pki_drop(&p);
}

Test(ca_private, damaged_requests_are_refused) {
    static const struct request good = {.dns = "a.test"};
    static const char *const name = "a.test";
    const cb_leaf_opts o = {.size = sizeof o, .names = &name, .names_len = 1};
    tls_pki p;
    char *cert = NULL;
    make_root(&p, 0);
    gnutls_datum_t csr = make_request(&good, false);
    for (unsigned cut = 0; cut < csr.size; cut++) {
        cr_expect(cb_ca_sign(p.ca, (cb_slice){csr.data, cut}, &o, &cert) < 0, "cut to %u bytes", cut);
    }
    for (unsigned i = 0; i < csr.size; i++) { /* each byte is under the signature, or is it, or frames it */
        csr.data[i] ^= 0x55;
        cr_expect(cb_ca_sign(p.ca, (cb_slice){csr.data, csr.size}, &o, &cert) < 0, "byte %u", i);
        csr.data[i] ^= 0x55;
    }
    static uint8_t huge[(64 << 10) + 1];
    cr_expect_eq(cb_ca_sign(p.ca, (cb_slice){huge, sizeof huge}, &o, &cert), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "65536 bytes") != NULL, "%s", cb_last_error());
    cr_expect_null(cert);
    gnutls_free(csr.data);
    tls_pki_drop(&p);
}

/* --- the index and CRLs --- */

Test(ca_private, a_torn_line_is_cut_and_a_damaged_one_is_named) {
    tls_pki p;
    char path[160], *cert, *key;
    struct stat st;
    cb_ca_index index;
    make_root(&p, 0);
    issue_pem(p.ca, "a.test", &cert, &key);
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    tls_pki_path(&p, "index", path);
    cr_assert_eq(stat(path, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0600);
    int fd = open(path, O_WRONLY | O_APPEND);
    cr_assert_eq(write(fd, "issued\t12", 9), 9); /* a crash in the middle */
    cr_assert_eq(cb_ca_index_read(&index, p.dir), CB_OK, "%s", cb_last_error());
    cr_expect_eq(index.len, 1);
    cb_ca_index_clear(&index);
    issue_pem(p.ca, "b.test", &cert, &key);
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    cr_assert_eq(cb_ca_index_read(&index, p.dir), CB_OK, "%s", cb_last_error());
    cr_expect_eq(index.len, 2);
    cr_expect_str_eq(index.entries[1].names, "b.test");
    cb_ca_index_clear(&index);
    static const char *const bad[] = {"what\t1\t2\t3\n", "revoked\tff\t1\t1\n",         "issued\taa\tx\t2\t0\ta\n",
                                      "crl\t0\t1\t2\n",  "issued\taa\t1\t2\t0\ta\tb\n", "\n"};
    cr_assert_eq(stat(path, &st), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(write(fd, bad[i], strlen(bad[i])), (ssize_t)strlen(bad[i]));
        cr_expect_eq(cb_ca_crl(p.ca, 0, NULL), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), "index:4") != NULL, "row %zu: %s", i, cb_last_error());
        cr_assert_eq(ftruncate(fd, st.st_size), 0);
    }
    close(fd);
    tls_pki_drop(&p);
}

Test(ca_private, revoked_certificates_are_in_the_next_crl) {
    static const int kinds[] = {CB_KEY_ECDSA_P256, CB_KEY_ECDSA_P384, CB_KEY_RSA_2048, CB_KEY_ED25519};
    for (size_t k = 0; k < 4; k++) {
        tls_pki p;
        char *cert[2], *key, *pem = NULL, serial[2][CB_SERIAL_TEXT], again[64] = "";
        gnutls_x509_crl_t crl;
        unsigned status = 1;
        tls_pki_make_of(&p, kinds[k]);
        for (size_t i = 0; i < 2; i++) {
            issue_pem(p.ca, i ? "b.test" : "a.test", &cert[i], &key);
            cb_ca_text_free(key);
            gnutls_x509_crt_t crt = first_of(cert[i]);
            cb_cert_serial(crt, serial[i]);
            gnutls_x509_crt_deinit(crt);
        }
        cr_assert_eq(cb_ca_crl(p.ca, 0, NULL), CB_OK, "an empty list: %s", cb_last_error());
        for (size_t i = 0; i < strlen(serial[0]); i += 2) { /* as openssl prints it */
            snprintf(again + strlen(again), 4, "%s%c%c", i ? ":" : "", serial[0][i] & ~(serial[0][i] >= 'a' ? 0x20 : 0),
                     serial[0][i + 1]);
        }
        cr_expect_eq(cb_ca_revoke(p.ca, again, CB_REVOKE_SUPERSEDED), CB_OK, "%s: %s", again, cb_last_error());
        cr_expect_eq(cb_ca_revoke(p.ca, serial[0], 0), CB_EEXIST);
        cr_expect_eq(cb_ca_revoke(p.ca, "00ff", 0), CB_ENOENT);
        cr_expect_eq(cb_ca_revoke(p.ca, "xyz", 0), CB_EINVAL);
        cr_expect_eq(cb_ca_revoke(p.ca, serial[1], 7), CB_EINVAL);
        cr_assert_eq(cb_ca_crl(p.ca, 3600, &pem), CB_OK, "%s", cb_last_error());
        gnutls_datum_t data = {(uint8_t *)pem, (unsigned)strlen(pem)};
        gnutls_x509_crl_init(&crl);
        cr_assert_eq(gnutls_x509_crl_import(crl, &data, GNUTLS_X509_FMT_PEM), 0);
        cr_expect_eq(gnutls_x509_crl_verify(crl, &p.ca->crt, 1, 0, &status), 0);
        cr_expect_eq(status, 0, "key type %d: status %x", kinds[k], status);
        cr_expect_eq(gnutls_x509_crl_get_crt_count(crl), 1);
        uint8_t number[20];
        size_t len = sizeof number;
        unsigned critical;
        cr_expect_eq(gnutls_x509_crl_get_number(crl, number, &len, &critical), 0);
        cr_expect(len == 1 && number[0] == 2, "the second list");
        for (size_t i = 0; i < 2; i++) {
            gnutls_x509_crt_t crt = first_of(cert[i]);
            cr_expect_eq(gnutls_x509_crt_check_revocation(crt, &crl, 1), i == 0);
            gnutls_x509_crt_deinit(crt);
            cb_ca_text_free(cert[i]);
        }
        gnutls_x509_crl_deinit(crl);
        cb_ca_text_free(pem);
        tls_pki_drop(&p);
    }
}
