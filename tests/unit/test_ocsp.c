/* The OCSP responder: what it says, how it is signed, and requests that it must not take. openssl and ocsptool judge it
 * in interop/test_ca.py. */
#include "auth/ca_int.h"
#include "support/tls_fixture.h"
#include <criterion/criterion.h>
#include <gnutls/crypto.h>
#include <gnutls/ocsp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char *issue(cb_ca *ca, const char *name, char serial[CB_SERIAL_TEXT], gnutls_x509_crt_t *crt) {
    char *pem, *key;
    cr_assert_eq(cb_ca_issue_pem(ca, CB_OPTS(cb_leaf_opts, .names = &name, .names_len = 1), &pem, &key), CB_OK, "%s",
                 cb_last_error());
    cb_ca_text_free(key);
    gnutls_datum_t data = {(uint8_t *)pem, (unsigned)strlen(pem)};
    gnutls_x509_crt_init(crt);
    cr_assert_eq(gnutls_x509_crt_import(*crt, &data, GNUTLS_X509_FMT_PEM), 0);
    cr_assert_eq(cb_cert_serial(*crt, serial), CB_OK);
    return pem;
}

static gnutls_datum_t request_for(gnutls_x509_crt_t issuer, const gnutls_x509_crt_t *crts, size_t n, size_t nonce_len,
                                  gnutls_digest_algorithm_t hash) {
    gnutls_ocsp_req_t req;
    gnutls_datum_t der;
    uint8_t bytes[256] = {7};
    const gnutls_datum_t nonce = {bytes, (unsigned)nonce_len};
    gnutls_ocsp_req_init(&req);
    for (size_t i = 0; i < n; i++) {
        cr_assert_eq(gnutls_ocsp_req_add_cert(req, hash, issuer, crts[i]), 0);
    }
    if (nonce_len) cr_assert_eq(gnutls_ocsp_req_set_nonce(req, 0, &nonce), 0);
    cr_assert_eq(gnutls_ocsp_req_export(req, &der), 0);
    gnutls_ocsp_req_deinit(req);
    return der;
}

/* The answer, verified by GnuTLS as the client that trusts the authority does. */
static gnutls_ocsp_resp_t read_answer(const cb_ocsp_answer *a, gnutls_x509_crt_t ca) {
    gnutls_ocsp_resp_t resp;
    gnutls_x509_trust_list_t list;
    const gnutls_datum_t der = {(uint8_t *)(uintptr_t)a->der.base, (unsigned)a->der.len};
    unsigned verdict = 1;
    gnutls_ocsp_resp_init(&resp);
    cr_assert_eq(gnutls_ocsp_resp_import(resp, &der), 0);
    gnutls_x509_trust_list_init(&list, 0);
    gnutls_x509_trust_list_add_cas(list, &ca, 1, 0);
    cr_expect_eq(gnutls_ocsp_resp_verify(resp, list, &verdict, 0), 0);
    cr_expect_eq(verdict, 0, "verdict %x", verdict);
    gnutls_x509_trust_list_deinit(list, 0);
    return resp;
}

static unsigned status_of(gnutls_ocsp_resp_t resp, unsigned i, unsigned *reason) {
    unsigned status = 99;
    time_t from, until;
    cr_expect_eq(gnutls_ocsp_resp_get_single(resp, i, NULL, NULL, NULL, NULL, &status, &from, &until, NULL, reason), 0);
    cr_expect(until > from, "nextUpdate is there");
    return status;
}

Test(ocsp, says_good_revoked_and_unknown) {
    static const int kinds[] = {CB_KEY_ECDSA_P256, CB_KEY_ECDSA_P384, CB_KEY_RSA_2048, CB_KEY_ED25519};
    static const gnutls_digest_algorithm_t hashes[] = {GNUTLS_DIG_SHA1, GNUTLS_DIG_SHA256, GNUTLS_DIG_SHA384,
                                                       GNUTLS_DIG_SHA512};
    for (size_t k = 0; k < 4; k++) {
        tls_pki p, other;
        char serial[4][CB_SERIAL_TEXT];
        gnutls_x509_crt_t crt[4];
        cb_ocsp *r = NULL;
        cb_ocsp_answer a = {.size = sizeof a};
        unsigned reason = 99;
        int64_t now = (int64_t)time(NULL);
        tls_pki_make_of(&p, kinds[k]);
        tls_pki_make_of(&other, CB_KEY_ECDSA_P256);
        for (size_t i = 0; i < 4; i++) {
            cb_ca_text_free(issue(i == 3 ? other.ca : p.ca, "a.test", serial[i], &crt[i]));
        }
        cr_assert_eq(cb_ca_revoke(p.ca, serial[1], CB_REVOKE_KEY_COMPROMISE), CB_OK);
        cr_assert_eq(cb_ocsp_new(&r, CB_OPTS(cb_ocsp_opts, .dir = p.dir)), CB_OK, "%s", cb_last_error());
        gnutls_datum_t der = request_for(p.ca->crt, crt, 4, 32, hashes[k]); /* the last as if it were of this one */
        cr_assert_eq(cb_ocsp_respond(r, (cb_slice){der.data, der.size}, now, &a), CB_OK, "%s", cb_last_error());
        cr_assert_eq(a.status, CB_OCSP_OK, "%s", cb_last_error());
        cr_expect_eq(a.cacheable, 0);
        cr_expect_eq(a.next_update_s, now + 3600);
        gnutls_ocsp_resp_t resp = read_answer(&a, p.ca->crt);
        cr_expect_eq(status_of(resp, 0, &reason), GNUTLS_OCSP_CERT_GOOD);
        cr_expect_eq(status_of(resp, 1, &reason), GNUTLS_OCSP_CERT_REVOKED);
        cr_expect_eq(reason, GNUTLS_X509_CRLREASON_KEYCOMPROMISE);
        cr_expect_eq(status_of(resp, 2, &reason), GNUTLS_OCSP_CERT_GOOD);
        cr_expect_eq(status_of(resp, 3, &reason), GNUTLS_OCSP_CERT_UNKNOWN);
        cr_expect_eq(gnutls_ocsp_resp_check_crt(resp, 1, crt[1]), 0, "it is about the certificate that was asked for");
        gnutls_datum_t nonce = {NULL, 0};
        cr_expect_eq(gnutls_ocsp_resp_get_nonce(resp, NULL, &nonce), 0);
        cr_expect(nonce.size == 32 && nonce.data[0] == 7);
        gnutls_free(nonce.data);
        gnutls_ocsp_resp_deinit(resp);
        gnutls_free(der.data);

        cr_assert_eq(cb_ca_revoke(p.ca, serial[2], 0), CB_OK);
        cr_assert_eq(cb_ocsp_refresh(r), CB_OK);
        der = request_for(p.ca->crt, crt + 2, 1, 0, hashes[k]);
        cr_assert_eq(cb_ocsp_respond(r, (cb_slice){der.data, der.size}, now, &a), CB_OK);
        cr_expect_eq(a.cacheable, 1);
        resp = read_answer(&a, p.ca->crt);
        cr_expect_eq(status_of(resp, 0, &reason), GNUTLS_OCSP_CERT_REVOKED);
        gnutls_ocsp_resp_deinit(resp);
        gnutls_free(der.data);
        for (size_t i = 0; i < 4; i++) {
            gnutls_x509_crt_deinit(crt[i]);
        }
        cb_ocsp_free(r);
        tls_pki_drop(&other);
        tls_pki_drop(&p);
    }
}

static void expect_status(cb_ocsp *r, cb_slice request, int64_t now, int status, const char *say) {
    cb_ocsp_answer a = {.size = sizeof a};
    cr_expect_eq(cb_ocsp_respond(r, request, now, &a), CB_OK, "%s", say);
    cr_expect_eq(a.status, status, "%s: status %d", say, a.status);
    cr_expect(strstr(cb_last_error(), say) != NULL, "\"%s\": %s", say, cb_last_error());
    cr_expect_eq(a.cacheable, 0);
    cr_expect(a.der.len == 5 && a.der.base[4] == status, "%s: the bytes", say);
}

Test(ocsp, requests_that_are_refused) {
    tls_pki p, other;
    char serial[CB_SERIAL_TEXT];
    gnutls_x509_crt_t crt, many[9], foreign;
    cb_ocsp *r = NULL;
    int64_t now = (int64_t)time(NULL);
    static uint8_t zeros[CB_OCSP_REQUEST_BYTES + 1];
    static const uint8_t no_list[] = {0x30, 4, 0x30, 2, 0x30, 0};
    tls_pki_make(&p);
    tls_pki_make(&other);
    cb_ca_text_free(issue(p.ca, "a.test", serial, &crt));
    cb_ca_text_free(issue(other.ca, "a.test", serial, &foreign));
    cr_assert_eq(cb_ocsp_new(&r, CB_OPTS(cb_ocsp_opts, .dir = p.dir)), CB_OK, "%s", cb_last_error());
    expect_status(r, (cb_slice){zeros, 0}, now, CB_OCSP_MALFORMED, "0 bytes");
    expect_status(r, (cb_slice){zeros, sizeof zeros}, now, CB_OCSP_MALFORMED, "16385 bytes");
    expect_status(r, (cb_slice){zeros, 40}, now, CB_OCSP_MALFORMED, "not an OCSP request");
    expect_status(r, (cb_slice){no_list, sizeof no_list}, now, CB_OCSP_MALFORMED, "for no certificate");

    gnutls_datum_t der = request_for(p.ca->crt, &crt, 1, 129, GNUTLS_DIG_SHA1);
    expect_status(r, (cb_slice){der.data, der.size}, now, CB_OCSP_MALFORMED, "nonce");
    for (size_t cut = 1; cut < der.size; cut += 7) {
        cb_ocsp_answer a = {.size = sizeof a};
        cr_expect_eq(cb_ocsp_respond(r, (cb_slice){der.data, cut}, now, &a), CB_OK);
        cr_expect_eq(a.status, CB_OCSP_MALFORMED, "cut to %zu", cut);
    }
    gnutls_free(der.data);

    for (size_t i = 0; i < 9; i++) {
        many[i] = crt;
    }
    der = request_for(p.ca->crt, many, 9, 0, GNUTLS_DIG_SHA1);
    expect_status(r, (cb_slice){der.data, der.size}, now, CB_OCSP_MALFORMED, "more than 8");
    gnutls_free(der.data);

    der = request_for(other.ca->crt, &foreign, 1, 0, GNUTLS_DIG_SHA256);
    expect_status(r, (cb_slice){der.data, der.size}, now, CB_OCSP_UNAUTHORIZED, "other authorities");
    gnutls_free(der.data);

    gnutls_ocsp_req_t req;
    const gnutls_datum_t odd = {(uint8_t *)"\x05\x00", 2};
    gnutls_ocsp_req_init(&req);
    cr_assert_eq(gnutls_ocsp_req_add_cert(req, GNUTLS_DIG_SHA1, p.ca->crt, crt), 0);
    cr_assert_eq(gnutls_ocsp_req_set_extension(req, "1.2.3.4", 1, &odd), 0);
    cr_assert_eq(gnutls_ocsp_req_export(req, &der), 0);
    gnutls_ocsp_req_deinit(req);
    expect_status(r, (cb_slice){der.data, der.size}, now, CB_OCSP_MALFORMED, "critical extension");
    gnutls_free(der.data);

    der = request_for(p.ca->crt, &crt, 1, 1, GNUTLS_DIG_SHA1);
    expect_status(r, (cb_slice){der.data, der.size}, now + 4000 * 86400LL, CB_OCSP_INTERNAL, "expired");
    cb_ocsp_answer small = {.size = 0};
    cr_expect_eq(cb_ocsp_respond(r, (cb_slice){der.data, der.size}, now, &small), CB_EINVAL);
    gnutls_free(der.data);
    gnutls_x509_crt_deinit(crt);
    gnutls_x509_crt_deinit(foreign);
    cb_ocsp_free(r);
    tls_pki_drop(&other);
    tls_pki_drop(&p);
}

Test(ocsp, a_delegate_signs_without_the_authoritys_key) {
    tls_pki p, other;
    char serial[CB_SERIAL_TEXT], path[160], *cert = NULL, *key = NULL, *leaf_cert = NULL, *leaf_key = NULL;
    gnutls_x509_crt_t crt;
    cb_ocsp *r = NULL;
    cb_ocsp_answer a = {.size = sizeof a};
    int64_t now = (int64_t)time(NULL);
    const char *name = "web.test";
    tls_pki_make(&p);
    tls_pki_make(&other);
    char *pem = issue(p.ca, "a.test", serial, &crt);
    cr_assert_eq(cb_ca_issue(p.ca,
                             CB_OPTS(cb_leaf_opts, .file_stem = "ocsp", .profile = CB_CERT_OCSP, .lifetime_s = 600),
                             &cert, &key),
                 CB_OK);
    cr_assert_eq(cb_ca_issue(p.ca, CB_OPTS(cb_leaf_opts, .names = &name, .names_len = 1), &leaf_cert, &leaf_key),
                 CB_OK);
    cr_expect_eq(cb_ocsp_new(&r, CB_OPTS(cb_ocsp_opts, .dir = p.dir, .cert_file = leaf_cert, .key_file = leaf_key)),
                 CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "may not sign OCSP") != NULL, "%s", cb_last_error());
    cr_expect_eq(cb_ocsp_new(&r, CB_OPTS(cb_ocsp_opts, .dir = p.dir, .cert_file = cert, .key_file = leaf_key)),
                 CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "is not the key of") != NULL, "%s", cb_last_error());
    cr_expect_eq(cb_ocsp_new(&r, CB_OPTS(cb_ocsp_opts, .dir = other.dir, .cert_file = cert, .key_file = key)),
                 CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "not issued by") != NULL, "%s", cb_last_error());

    cr_assert_eq(unlink(tls_pki_path(&p, "ca-key.pem", path)), 0);
    cr_assert_eq(cb_ocsp_new(&r, CB_OPTS(cb_ocsp_opts, .dir = p.dir, .cert_file = cert, .key_file = key)), CB_OK, "%s",
                 cb_last_error());
    cr_assert_eq(cb_ocsp_staple(r, cb_slice_str(pem), now, &a), CB_OK, "%s", cb_last_error());
    cr_assert_eq(a.status, CB_OCSP_OK);
    cr_expect(a.next_update_s <= (int64_t)time(NULL) + 600, "never beyond the delegate's end"); /* issued after `now` */
    gnutls_ocsp_resp_t resp = read_answer(&a, p.ca->crt);
    cr_expect_eq(status_of(resp, 0, NULL), GNUTLS_OCSP_CERT_GOOD);
    cr_expect_eq(gnutls_ocsp_resp_check_crt(resp, 0, crt), 0);
    gnutls_ocsp_resp_deinit(resp);
    cr_expect_eq(cb_ocsp_staple(r, cb_slice_str("nonsense"), now, &a), CB_EINVAL);

    /* A new delegate takes its place; one that is damaged does not. */
    FILE *f = fopen(cert, "w");
    fputs("garbage", f);
    fclose(f);
    cr_expect_eq(cb_ocsp_refresh(r), CB_EINVAL);
    cr_expect_eq(cb_ocsp_staple(r, cb_slice_str(pem), now, &a), CB_OK, "the one that was read before serves on");
    cr_expect_eq(a.status, CB_OCSP_OK);
    cb_ocsp_free(r);
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    cb_ca_text_free(leaf_cert);
    cb_ca_text_free(leaf_key);
    cb_ca_text_free(pem);
    gnutls_x509_crt_deinit(crt);
    tls_pki_drop(&other);
    tls_pki_drop(&p);
}

/* A certificate with any of its bytes changed is not one of ours any more, whatever it looks like. */
Test(ocsp, damaged_certificates_are_refused) {
    tls_pki p;
    char serial[CB_SERIAL_TEXT];
    gnutls_x509_crt_t crt;
    cb_ocsp *r = NULL;
    cb_ocsp_answer a = {.size = sizeof a};
    gnutls_datum_t der, pem;
    int64_t now = (int64_t)time(NULL);
    tls_pki_make(&p);
    cb_ca_text_free(issue(p.ca, "a.test", serial, &crt));
    cr_assert_eq(gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_DER, &der), 0);
    cr_assert_eq(cb_ocsp_new(&r, CB_OPTS(cb_ocsp_opts, .dir = p.dir)), CB_OK);
    for (unsigned i = 0; i <= der.size; i++) {
        if (i < der.size) der.data[i] ^= 0x55;
        cr_assert_eq(gnutls_pem_base64_encode2("CERTIFICATE", &der, &pem), 0);
        int rc = cb_ocsp_staple(r, (cb_slice){pem.data, pem.size}, now, &a);
        cr_expect_eq(rc, i < der.size ? CB_EINVAL : CB_OK, "byte %u: %d", i, rc);
        if (i % 16 == 0) cr_expect(cb_ocsp_staple(r, (cb_slice){pem.data, pem.size - 40}, now, &a) < 0, "cut");
        gnutls_free(pem.data);
        if (i < der.size) der.data[i] ^= 0x55;
    }
    gnutls_free(der.data);
    gnutls_x509_crt_deinit(crt);
    cb_ocsp_free(r);
    tls_pki_drop(&p);
}

Test(ocsp, requests_in_paths) {
    static const struct {
        const char *path;
        int64_t len; /* CB_EINVAL = refused */
    } rows[] = {{"/AQID", 3},         {"/AQ%3d%3D", 1},        {"/AQ==", 1},         {"/%2B%2f%2B%2F", 3},
                {"/+/+/", 3},         {"", CB_EINVAL},         {"/", CB_EINVAL},     {"AQID", CB_EINVAL},
                {"/A%", CB_EINVAL},   {"/A%4", CB_EINVAL},     {"/A%zz", CB_EINVAL}, {"/AQID?x", CB_EINVAL},
                {"/A*ID", CB_EINVAL}, {"/AQIDBA==", CB_EINVAL}};
    uint8_t out[3];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_expect_eq(cb_ocsp_path(out, sizeof out, cb_slice_str(rows[i].path)), rows[i].len, "row %zu: %s", i,
                     rows[i].path);
    }
    char *huge = calloc(1, 40000);
    memset(huge, 'A', 39999);
    huge[0] = '/';
    cr_expect_eq(cb_ocsp_path(out, sizeof out, cb_slice_str(huge)), CB_EINVAL);
    free(huge);
}

Test(ocsp, options_that_are_refused) {
    cb_ocsp *r = NULL;
    const struct {
        const char *say;
        cb_ocsp_opts o;
        int rc;
    } rows[] = {
        {"no dir", {0}, CB_EINVAL},
        {"go together", {.dir = "x", .cert_file = "y"}, CB_EINVAL},
        {"7 days", {.dir = "x", .valid_s = 604801}, CB_EINVAL},
        {"max_certs", {.dir = "x", .max_certs = 65}, CB_EINVAL},
        {"/nonexistent/ca.pem", {.dir = "/nonexistent"}, CB_ENOENT},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_ocsp_opts o = rows[i].o;
        o.size = sizeof o;
        cr_expect_eq(cb_ocsp_new(&r, &o), rows[i].rc, "row %zu", i);
        cr_expect(strstr(cb_last_error(), rows[i].say) != NULL, "row %zu: %s", i, cb_last_error());
    }
    cr_expect_eq(cb_ocsp_new(NULL, NULL), CB_EINVAL);
    cb_ocsp_free(NULL);
}
