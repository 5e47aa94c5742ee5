#include "support/tls_fixture.h"
#include <criterion/criterion.h>
#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static gnutls_x509_crt_t read_cert(const char *path) {
    gnutls_datum_t pem;
    gnutls_x509_crt_t crt;
    cr_assert_eq(gnutls_load_file(path, &pem), 0, "%s", path);
    gnutls_x509_crt_init(&crt);
    cr_assert_eq(gnutls_x509_crt_import(crt, &pem, GNUTLS_X509_FMT_PEM), 0, "%s", path);
    gnutls_free(pem.data);
    return crt;
}

Test(ca, leaves_of_each_kind_are_valid_and_private) {
    static const struct {
        int key_type, algorithm;
        const char *name, *stem;
    } rows[] = {
        {CB_KEY_DEFAULT, GNUTLS_PK_ECDSA, "localhost", "localhost"},
        {CB_KEY_ECDSA_P384, GNUTLS_PK_ECDSA, "*.example.org", "_.example.org"},
        {CB_KEY_RSA_2048, GNUTLS_PK_RSA, "::1", "__1"},
        {CB_KEY_ED25519, GNUTLS_PK_EDDSA_ED25519, "192.0.2.1", "192.0.2.1"},
    };
    tls_pki p;
    struct stat st;
    tls_pki_make(&p);
    gnutls_x509_crt_t root = read_cert(p.ca_file);
    cr_assert_eq(stat(p.dir, &st), 0);
    cr_expect_eq(st.st_mode & 077, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *cert = NULL, *key = NULL, want[160];
        unsigned status = 1, critical;
        uint8_t serial[64];
        size_t serial_len = sizeof serial;
        int rc = cb_ca_issue(
            p.ca, CB_OPTS(cb_leaf_opts, .names = &rows[i].name, .names_len = 1, .key_type = rows[i].key_type), &cert,
            &key);
        cr_assert_eq(rc, CB_OK, "row %zu: %s", i, cb_last_error());
        snprintf(want, sizeof want, "%s/%s.pem", p.dir, rows[i].stem);
        cr_expect_str_eq(cert, want);
        cr_assert_eq(stat(key, &st), 0);
        cr_expect_eq(st.st_mode & 0777, 0600);
        gnutls_x509_crt_t crt = read_cert(cert);
        cr_expect_eq(gnutls_x509_crt_get_pk_algorithm(crt, NULL), rows[i].algorithm);
        cr_expect_eq(gnutls_x509_crt_verify(crt, &root, 1, 0, &status), 0);
        cr_expect_eq(status, 0, "row %zu: status %x", i, status);
        cr_expect_eq(gnutls_x509_crt_get_ca_status(crt, &critical), 0);
        cr_expect_eq(gnutls_x509_crt_get_serial(crt, serial, &serial_len), 0);
        cr_expect_eq(serial_len, 16);
        cr_expect(gnutls_x509_crt_check_hostname(crt, rows[i].name[0] == '*' ? "a.example.org" : rows[i].name) != 0,
                  "row %zu", i);
        gnutls_x509_crt_deinit(crt);
        cb_ca_text_free(cert);
        cb_ca_text_free(key);
    }
    gnutls_x509_crt_deinit(root);
    tls_pki_drop(&p);
}

Test(ca, is_opened_again_and_refuses_what_is_none) {
    tls_pki p;
    cb_ca *again = NULL;
    char path[160], kept[160];
    tls_pki_make(&p);
    cr_assert_eq(cb_ca_open(&again, CB_OPTS(cb_ca_opts, .dir = p.dir)), CB_OK);
    gnutls_x509_crt_t before = read_cert(p.ca_file);
    cb_ca_free(again);
    gnutls_x509_crt_t after = read_cert(p.ca_file);
    cr_expect(gnutls_x509_crt_equals(before, after), "the root was made anew");
    gnutls_x509_crt_deinit(before);
    gnutls_x509_crt_deinit(after);

    again = NULL;
    tls_pki_path(&p, "ca-key.pem", path);
    tls_pki_path(&p, "kept", kept);
    cr_assert_eq(rename(path, kept), 0);
    cr_expect_eq(cb_ca_open(&again, CB_OPTS(cb_ca_opts, .dir = p.dir)), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "ca-key.pem is missing") != NULL, "%s", cb_last_error());
    tls_pki_leaf(&p, "localhost", 0, "other", 0, 0);
    char other[160];
    cr_assert_eq(rename(tls_pki_path(&p, "other-key.pem", other), path), 0);
    cr_expect_eq(cb_ca_open(&again, CB_OPTS(cb_ca_opts, .dir = p.dir)), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "is not the key of") != NULL, "%s", cb_last_error());
    cr_assert_eq(rename(kept, path), 0);
    cr_assert_eq(rename(tls_pki_path(&p, "other.pem", other), p.ca_file), 0);
    cr_expect_eq(cb_ca_open(&again, CB_OPTS(cb_ca_opts, .dir = p.dir)), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "not that of an authority") != NULL, "%s", cb_last_error());
    cr_expect_eq(cb_ca_open(&again, NULL), CB_EINVAL);
    cr_expect_eq(cb_ca_open(&again, CB_OPTS(cb_ca_opts, .dir = "/nonexistent/a/b")), CB_ENOENT);
    cr_expect_null(again);
    tls_pki_drop(&p);
}

Test(ca, names_that_are_refused) {
    static const char *const names[] = {
        "",
        ".",
        "a..b",
        "a.",
        "*",
        "*.",
        "a.*.b",
        "b*.c",
        "sp ace",
        "a/b",
        "../etc",
        "user@host",
        "h\xc3\xa9",
        "1:2",
        "a,b",
        "-\n",
        "0123456789012345678901234567890123456789012345678901234567890123.example",
    };
    tls_pki p;
    tls_pki_make(&p);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int rc = cb_ca_issue(p.ca, CB_OPTS(cb_leaf_opts, .names = &names[i], .names_len = 1), NULL, NULL);
        cr_expect_eq(rc, CB_EINVAL, "\"%s\" was certified", names[i]);
    }
    const char *good = "localhost";
    static const char *const stems[] = {"", ".hidden", "a/b", "ca"};
    for (size_t i = 0; i < sizeof stems / sizeof *stems; i++) {
        int rc =
            cb_ca_issue(p.ca, CB_OPTS(cb_leaf_opts, .names = &good, .names_len = 1, .file_stem = stems[i]), NULL, NULL);
        cr_expect_eq(rc, CB_EINVAL, "stem \"%s\"", stems[i]);
    }
    cr_expect_eq(cb_ca_issue(p.ca, CB_OPTS(cb_leaf_opts, .names_len = 0), NULL, NULL), CB_EINVAL);
    cr_expect_eq(cb_ca_issue(p.ca, CB_OPTS(cb_leaf_opts, .names = &good, .names_len = 1, .key_type = 9), NULL, NULL),
                 CB_EINVAL);
    tls_pki_drop(&p);
}
