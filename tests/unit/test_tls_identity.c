#include "support/tls_fixture.h"
#include "transport/client_hello.h"
#include "transport/tls_identity.h"
#include <criterion/criterion.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int add(cb_identity **id, tls_pki *p, const char *stem) {
    char cert[160], key[160], name[64];
    snprintf(name, sizeof name, "%s.pem", stem);
    tls_pki_path(p, name, cert);
    snprintf(name, sizeof name, "%s-key.pem", stem);
    tls_pki_path(p, name, key);
    const cb_identity_opts o = {.size = sizeof o, .cert_file = cert, .key_file = key};
    return *id ? cb_identity_add(*id, &o) : cb_identity_new(id, &o);
}

/* The common name of a chain's leaf: the tests give each certificate its own first name. */
static const char *leaf_name(const cb_tls_cert *cert, char out[128]) {
    gnutls_x509_crt_t crt;
    size_t size = 128;
    gnutls_x509_crt_init(&crt);
    gnutls_x509_crt_import(crt, &cert->chain[0].cert, GNUTLS_X509_FMT_DER);
    if (gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, out, &size) < 0) out[0] = '\0';
    gnutls_x509_crt_deinit(crt);
    return out;
}

static void write_file(const char *path, const void *data, size_t len) {
    FILE *f = fopen(path, "w");
    cr_assert(f != NULL && fwrite(data, 1, len, f) == len);
    fclose(f);
    chmod(path, 0600);
}

static void copy_file(const char *from, const char *to) {
    char data[16384];
    FILE *f = fopen(from, "r");
    cr_assert(f != NULL);
    size_t n = fread(data, 1, sizeof data, f);
    fclose(f);
    write_file(to, data, n);
}

Test(tls_identity, which_certificate_for_which_name) {
    static const struct {
        const char *name;
        unsigned abilities;
        const char *leaf;
        unsigned ability;
    } rows[] = {
        {"", 0, "first", CB_SIG_ECDSA_P256},
        {"unknown.test", 0, "first", CB_SIG_ECDSA_P256},
        {"www.example.org", 0, "www.example.org", CB_SIG_ECDSA_P256}, /* exact before wildcard */
        {"api.example.org", 0, "*.example.org", CB_SIG_ECDSA_P256},
        {"a.b.example.org", 0, "first", CB_SIG_ECDSA_P256}, /* one label only */
        {"example.org", 0, "first", CB_SIG_ECDSA_P256},
        {".example.org", 0, "first", CB_SIG_ECDSA_P256},
        {"*.example.org", 0, "*.example.org", CB_SIG_ECDSA_P256},
        {"upper.example.net", 0, "Upper.Example.NET", CB_SIG_ECDSA_P256},
        {"both.test", CB_SIG_ECDSA_P256 | CB_SIG_RSA, "both.test", CB_SIG_ECDSA_P256},
        {"both.test", CB_SIG_RSA, "both.test", CB_SIG_RSA},
        {"both.test", CB_SIG_ECDSA_P256, "both.test", CB_SIG_ECDSA_P256},
        {"both.test", CB_SIG_ED25519, "both.test", CB_SIG_RSA}, /* neither fits: right name, first of them */
        {"unknown.test", CB_SIG_RSA, "both.test", CB_SIG_RSA},  /* no name fits: what the client can check */
        {"www.example.org", CB_SIG_RSA, "www.example.org", CB_SIG_ECDSA_P256},
    };
    tls_pki p;
    cb_identity *id = NULL;
    tls_pki_make(&p);
    tls_pki_leaf(&p, "first,192.0.2.1", 0, "a", 0, 0);
    tls_pki_leaf(&p, "*.example.org", 0, "b", 0, 0);
    tls_pki_leaf(&p, "www.example.org", 0, "c", 0, 0);
    tls_pki_leaf(&p, "both.test", CB_KEY_RSA_2048, "d", 0, 0);
    tls_pki_leaf(&p, "both.test", CB_KEY_ECDSA_P256, "e", 0, 0);
    tls_pki_leaf(&p, "Upper.Example.NET", 0, "f", 0, 0);
    for (const char *stem = "a\0b\0c\0d\0e\0f\0"; *stem; stem += 2) {
        cr_assert_eq(add(&id, &p, stem), CB_OK, "%s", cb_last_error());
    }
    cb_identity_view *view = cb_identity_view_get(id);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[128];
        const cb_tls_cert *cert = cb_identity_view_choose(view, rows[i].name, rows[i].abilities);
        cr_assert(cert != NULL);
        cr_expect(strcmp(leaf_name(cert, name), rows[i].leaf) == 0, "row %zu: got %s", i, name);
        cr_expect_eq(cert->ability, rows[i].ability, "row %zu: got a key of %u", i, cert->ability);
    }
    cb_identity_view_unref(view);
    cb_identity_unref(id);
    tls_pki_drop(&p);
}

Test(tls_identity, files_that_are_refused) {
    static const char der[] = "\x30\x82\x01\x0a\x02\x82\x01\x01";
    static const char pem_junk[] = "-----BEGIN CERTIFICATE-----\nMIIB////\n-----END CERTIFICATE-----\n";
    tls_pki p;
    tls_pki_make(&p);
    tls_pki_leaf(&p, "localhost", 0, "good", 0, 0);
    tls_pki_leaf(&p, "localhost", 0, "other", 0, 0);
    char path[160];
    write_file(tls_pki_path(&p, "empty", path), "", 0);
    write_file(tls_pki_path(&p, "der", path), der, sizeof der - 1);
    write_file(tls_pki_path(&p, "junk", path), pem_junk, sizeof pem_junk - 1);
    static const struct {
        const char *cert, *key, *ca;
        int rc;
        const char *says;
    } rows[] = {
        {"good.pem", "good-key.pem", NULL, CB_OK, ""},
        {"good.pem", "other-key.pem", NULL, CB_EINVAL, "is not the key of"},
        {"none.pem", "good-key.pem", NULL, CB_ENOENT, "none.pem"},
        {"good.pem", "none", NULL, CB_ENOENT, "none"},
        {"empty", "good-key.pem", NULL, CB_EINVAL, "empty: the file is empty"},
        {"good.pem", "empty", NULL, CB_EINVAL, "empty: the file is empty"},
        {"der", "good-key.pem", NULL, CB_EINVAL, "no PEM certificate"},
        {"junk", "good-key.pem", NULL, CB_EINVAL, "no PEM certificate"},
        {"good.pem", "der", NULL, CB_EINVAL, "not an unencrypted PEM private key"},
        {"good-key.pem", "good.pem", NULL, CB_EINVAL, "no PEM certificate"},
        {".", "good-key.pem", NULL, CB_EINVAL, "not a regular file"},
        {"good.pem", NULL, NULL, CB_EINVAL, "key_file"},
        {NULL, "good-key.pem", NULL, CB_EINVAL, "cert_file"},
        {"good.pem", "good-key.pem", "none", CB_ENOENT, "none"},
        {"good.pem", "good-key.pem", "der", CB_EINVAL, "no PEM certificate"},
        {"good.pem", "good-key.pem", "good-key.pem", CB_EINVAL, "no PEM certificate"},
        {NULL, NULL, "ca.pem", CB_OK, ""},
        {NULL, NULL, NULL, CB_OK, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char cert[160], key[160], ca[160];
        cb_identity *id = NULL;
        cb_identity_opts o = {.size = sizeof o};
        if (rows[i].cert) o.cert_file = tls_pki_path(&p, rows[i].cert, cert);
        if (rows[i].key) o.key_file = tls_pki_path(&p, rows[i].key, key);
        if (rows[i].ca) o.ca_file = tls_pki_path(&p, rows[i].ca, ca);
        int rc = cb_identity_new(&id, &o);
        cr_expect_eq(rc, rows[i].rc, "row %zu: %d %s", i, rc, cb_last_error());
        cr_expect_eq(rc < 0, id == NULL);
        if (rc < 0) cr_expect(strstr(cb_last_error(), rows[i].says) != NULL, "row %zu: %s", i, cb_last_error());
        cb_identity_unref(id);
    }
    char key[160];
    cb_identity *id = NULL;
    cr_assert_eq(chmod(tls_pki_path(&p, "good-key.pem", key), 0644), 0);
    cr_assert_eq(add(&id, &p, "good"), CB_OK);
    cr_expect(strstr(cb_last_error(), "others may read") != NULL, "%s", cb_last_error());
    cr_expect_eq(cb_identity_add(id, CB_OPTS(cb_identity_opts, .ca_file = p.ca_file)), CB_EINVAL);
    cr_expect_eq(add(&id, &p, "none"), CB_ENOENT);
    cb_identity_unref(id);
    tls_pki_drop(&p);
}

Test(tls_identity, reload_swaps_all_or_nothing) {
    tls_pki p;
    cb_identity *id = NULL;
    char a[160], ak[160], b[160], bk[160], n[160], nk[160], name[128];
    tls_pki_make(&p);
    int64_t now = (int64_t)time(NULL);
    tls_pki_leaf(&p, "old-a.test", 0, "a", now - 60, 30);
    tls_pki_leaf(&p, "old-b.test", 0, "b", now - 60, 20);
    tls_pki_leaf(&p, "new-a.test", 0, "n", now - 60, 10);
    cr_assert_eq(add(&id, &p, "a"), CB_OK);
    cr_assert_eq(add(&id, &p, "b"), CB_OK);
    cr_expect_eq(cb_identity_expires(id), now - 60 + 20 * 86400);
    cb_identity_view *old = cb_identity_view_get(id);
    copy_file(tls_pki_path(&p, "n.pem", n), tls_pki_path(&p, "a.pem", a));
    copy_file(tls_pki_path(&p, "n-key.pem", nk), tls_pki_path(&p, "a-key.pem", ak));
    tls_pki_path(&p, "b.pem", b);
    tls_pki_path(&p, "b-key.pem", bk);
    cr_assert_eq(rename(bk, n), 0); /* one file of four is missing: nothing changes */
    cr_expect_eq(cb_identity_reload(id), CB_ENOENT);
    cb_identity_view *still = cb_identity_view_get(id);
    cr_expect(still == old);
    cb_identity_view_unref(still);
    cr_assert_eq(rename(n, bk), 0);
    cr_assert_eq(cb_identity_reload(id), CB_OK, "%s", cb_last_error());
    cb_identity_view *fresh = cb_identity_view_get(id);
    cr_expect_str_eq(leaf_name(cb_identity_view_choose(fresh, "", 0), name), "new-a.test");
    cr_expect_str_eq(leaf_name(cb_identity_view_choose(fresh, "old-b.test", 0), name), "old-b.test");
    cr_expect_str_eq(leaf_name(cb_identity_view_choose(old, "", 0), name), "old-a.test"); /* who holds it keeps it */
    cr_expect_eq(cb_identity_expires(id), now - 60 + 10 * 86400);
    cb_identity_view_unref(fresh);
    cb_identity_view_unref(old);
    cb_identity_unref(id);
    tls_pki_drop(&p);
}

struct racer {
    cb_identity *id, *client;
    atomic_int stop, fails;
};

static void *handshakes(void *user) {
    struct racer *r = user;
    while (!atomic_load(&r->stop)) {
        cb_tls_opts so = {.server = true, .identity = r->id}, co = {.identity = r->client, .server_name = "localhost"};
        tls_end c, s;
        tls_end_make(&c, &co);
        tls_end_make(&s, &so);
        tls_talk(&c, &s, 0);
        if (c.rc < 0 || s.rc < 0 || !c.opened) atomic_fetch_add(&r->fails, 1);
        tls_end_drop(&c);
        tls_end_drop(&s);
    }
    return NULL;
}

Test(tls_identity, reloads_while_other_threads_shake_hands) {
    tls_pki p;
    pthread_t threads[2];
    struct racer r = {0};
    tls_pki_make(&p);
    r.id = tls_pki_identity(&p, "localhost");
    r.client = tls_pki_client(&p);
    for (size_t i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, handshakes, &r);
    }
    for (int i = 0; i < 30; i++) {
        tls_pki_leaf(&p, "localhost", 0, "leaf", 0, 0);
        cr_expect_eq(cb_identity_reload(r.id), CB_OK, "%s", cb_last_error());
    }
    atomic_store(&r.stop, 1);
    for (size_t i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    cr_expect_eq(atomic_load(&r.fails), 0);
    cb_identity_unref(r.id);
    cb_identity_unref(r.client);
    tls_pki_drop(&p);
}
