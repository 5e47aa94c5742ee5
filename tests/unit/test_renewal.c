/* Renewal of certificates of the private authority: when, what becomes of them, and that nobody notices. */
#include "auth/ca_int.h"
#include "auth/renew_time.h"
#include "support/http_fixture.h"
#include <cb/renewal.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DAY = 86400 };

Test(renewal, when_a_certificate_is_due) {
    static const struct {
        int64_t life, due;
    } rows[] = {{90 * DAY, 60 * DAY}, {10 * DAY, 576000}, {10 * DAY - 2, 5 * DAY - 1}, {DAY, DAY / 2}, {2, 1}, {0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int64_t at = cb_renew_at(1000, 1000 + rows[i].life, 0),
                early = cb_renew_at(1000, 1000 + rows[i].life, UINT32_MAX);
        cr_expect_eq(at, 1000 + rows[i].due, "row %zu: %lld", i, (long long)at);
        cr_expect_eq(at - early, rows[i].life / 20, "row %zu: earlier by a twentieth at most", i);
    }
    cr_expect_eq(cb_renew_at(1000, 10, 0), 1000, "an end before the beginning");
    static const uint32_t waits[] = {60, 120, 240, 480, 960, 1920, 3600, 3600};
    for (uint32_t n = 0; n < 8; n++) {
        cr_expect_eq(cb_renew_wait(n + 1, 60, 3600, 0), waits[n], "failure %u", n + 1);
        cr_expect_eq(cb_renew_wait(n + 1, 60, 3600, UINT32_MAX), waits[n] - waits[n] / 4, "failure %u", n + 1);
    }
    cr_expect_eq(cb_renew_wait(UINT32_MAX, UINT32_MAX, UINT32_MAX, 0), UINT32_MAX);
    cr_expect_eq(cb_renew_wait(1, 0, 0, 0), 1);
}

static gnutls_x509_crt_t crt_of(const char *path) {
    gnutls_x509_crt_t crt;
    gnutls_datum_t pem;
    cr_assert_eq(gnutls_load_file(path, &pem), 0, "%s", path);
    gnutls_x509_crt_init(&crt);
    cr_assert_eq(gnutls_x509_crt_import(crt, &pem, GNUTLS_X509_FMT_PEM), 0, "%s", path);
    gnutls_free(pem.data);
    return crt;
}

static void serial_of(const char *path, char out[CB_SERIAL_TEXT]) {
    gnutls_x509_crt_t crt = crt_of(path);
    cr_assert_eq(cb_cert_serial(crt, out), CB_OK);
    gnutls_x509_crt_deinit(crt);
}

/* The text of both certificates without what must differ. */
static void expect_alike(gnutls_x509_crt_t a, gnutls_x509_crt_t b) {
    static const char *const oids[] = {"2.5.29.17", "2.5.29.15", "2.5.29.37", "2.5.29.19", "1.3.6.1.5.5.7.1.24"};
    unsigned critical[2] = {0, 0}, bits[2];
    for (size_t i = 0; i < sizeof oids / sizeof *oids; i++) {
        gnutls_datum_t x = {NULL, 0}, y = {NULL, 0};
        int rc = gnutls_x509_crt_get_extension_by_oid2(a, oids[i], 0, &x, &critical[0]);
        cr_expect_eq(gnutls_x509_crt_get_extension_by_oid2(b, oids[i], 0, &y, &critical[1]), rc, "%s", oids[i]);
        cr_expect(x.size == y.size && critical[0] == critical[1] && (!x.size || memcmp(x.data, y.data, x.size) == 0),
                  "%s", oids[i]);
        gnutls_free(x.data);
        gnutls_free(y.data);
    }
    gnutls_datum_t x, y;
    gnutls_x509_crt_get_raw_dn(a, &x);
    gnutls_x509_crt_get_raw_dn(b, &y);
    cr_expect(x.size == y.size && memcmp(x.data, y.data, x.size) == 0, "the subject");
    gnutls_free(x.data);
    gnutls_free(y.data);
    cr_expect_eq(gnutls_x509_crt_get_pk_algorithm(a, &bits[0]), gnutls_x509_crt_get_pk_algorithm(b, &bits[1]));
    cr_expect_eq(bits[0], bits[1]);
    int64_t lives[2] = {gnutls_x509_crt_get_expiration_time(a) - gnutls_x509_crt_get_activation_time(a),
                        gnutls_x509_crt_get_expiration_time(b) - gnutls_x509_crt_get_activation_time(b)};
    cr_expect_eq(lives[0], lives[1], "%lld and %lld", (long long)lives[0], (long long)lives[1]);
}

Test(renewal, the_new_one_is_like_the_old_one) {
    static const char *const names[] = {"a.test", "*.b.test", "127.0.0.1", "::1"}, *const uris[] = {
                                                                                       "spiffe://td.test/web"};
    const cb_leaf_opts leaves[] = {
        {.names = names, .names_len = 4, .key_type = CB_KEY_ECDSA_P384, .must_staple = 1, .profile = CB_CERT_SERVER},
        {.uris = uris, .uris_len = 1, .profile = CB_CERT_SVID, .file_stem = "svid", .lifetime_s = 7200},
        {.profile = CB_CERT_CLIENT, .file_stem = "somebody", .key_type = CB_KEY_RSA_2048, .days = 90},
        {.names = names, .names_len = 1, .uris = uris, .uris_len = 1, .key_type = CB_KEY_ED25519, .file_stem = "both"},
    };
    tls_pki p;
    tls_pki_make(&p);
    for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++) {
        char *cert, *key, before[CB_SERIAL_TEXT], after[CB_SERIAL_TEXT];
        cb_renew_result got = {.size = sizeof got};
        cb_leaf_opts leaf = leaves[i];
        struct stat st;
        leaf.size = sizeof leaf;
        cr_assert_eq(cb_ca_issue(p.ca, &leaf, &cert, &key), CB_OK, "%s", cb_last_error());
        gnutls_x509_crt_t old = crt_of(cert);
        cr_assert_eq(chmod(key, 0640), 0);
        cr_expect_eq(cb_ca_renew(p.ca, CB_OPTS(cb_renew_opts, .cert_file = cert, .if_due = 1), &got), CB_OK, "%s",
                     cb_last_error());
        cr_expect_eq(got.renewed, 0);
        cr_expect(got.renew_at_s > (int64_t)time(NULL) && got.renew_at_s < got.not_after_s);
        cr_assert_eq(cb_ca_renew(p.ca, CB_OPTS(cb_renew_opts, .cert_file = cert), &got), CB_OK, "%s", cb_last_error());
        cr_expect_eq(got.renewed, 1);
        gnutls_x509_crt_t fresh = crt_of(cert);
        expect_alike(old, fresh);
        cr_expect_eq(got.not_after_s, (int64_t)gnutls_x509_crt_get_expiration_time(fresh));
        cb_cert_serial(old, before);
        cb_cert_serial(fresh, after);
        cr_expect(strcmp(before, after) != 0);
        cb_identity *id = NULL;
        cr_expect_eq(cb_identity_new(&id, CB_OPTS(cb_identity_opts, .cert_file = cert, .key_file = key)), CB_OK, "%s",
                     cb_last_error());
        cb_identity_unref(id);
        cr_assert_eq(stat(key, &st), 0);
        cr_expect_eq(st.st_mode & 0777, 0640, "the mode that the operator gave");
        gnutls_x509_crt_deinit(old);
        gnutls_x509_crt_deinit(fresh);
        cb_ca_text_free(cert);
        cb_ca_text_free(key);
    }
    tls_pki_drop(&p);
}

Test(renewal, what_is_not_renewed) {
    tls_pki p, other;
    char *cert, *key, *foreign, none[160], serial[CB_SERIAL_TEXT], after[CB_SERIAL_TEXT], ca_pem[160], both[160];
    const char *name = "a.test", *another = "b.test";
    tls_pki_make(&p);
    tls_pki_make(&other);
    const cb_leaf_opts leaf = {.size = sizeof leaf, .names = &name, .names_len = 1};
    cr_assert_eq(cb_ca_issue(p.ca, &leaf, &cert, &key), CB_OK);
    cr_assert_eq(cb_ca_issue(other.ca, &leaf, &foreign, NULL), CB_OK);
    tls_pki_path(&p, "none.pem", none);
    tls_pki_path(&p, "ca.pem", ca_pem);
    const struct {
        const char *file, *say;
        int rc;
    } rows[] = {{none, "none.pem", CB_ENOENT},
                {foreign, "not issued by", CB_EINVAL},
                {ca_pem, "not issued by", CB_EINVAL},
                {key, "not a PEM certificate", CB_EINVAL},
                {"", "cert_file", CB_EINVAL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int rc = cb_ca_renew(p.ca, CB_OPTS(cb_renew_opts, .cert_file = rows[i].file), NULL);
        cr_expect_eq(rc, rows[i].rc, "row %zu: %d", i, rc);
        cr_expect(strstr(cb_last_error(), rows[i].say) != NULL, "row %zu: %s", i, cb_last_error());
    }
    /* The first one, key and chain in one file; then other names, which are due at once. */
    tls_pki_path(&p, "both.pem", both);
    cb_renew_result got = {.size = sizeof got};
    cb_renew_opts o = {.size = sizeof o, .cert_file = both, .key_file = both, .leaf = &leaf, .if_due = 1};
    cr_assert_eq(cb_ca_renew(p.ca, &o, &got), CB_OK, "%s", cb_last_error());
    cr_expect_eq(got.renewed, 1);
    struct stat st;
    cr_assert_eq(stat(both, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0600);
    cr_assert_eq(cb_ca_renew(p.ca, &o, &got), CB_OK);
    cr_expect_eq(got.renewed, 0, "not due");
    const cb_leaf_opts moved = {.size = sizeof moved, .names = &another, .names_len = 1};
    o.leaf = &moved;
    cr_assert_eq(cb_ca_renew(p.ca, &o, &got), CB_OK);
    cr_expect_eq(got.renewed, 1, "other names");
    cb_identity *id = NULL;
    cr_expect_eq(cb_identity_new(&id, CB_OPTS(cb_identity_opts, .cert_file = both, .key_file = both)), CB_OK, "%s",
                 cb_last_error());
    cb_identity_unref(id);

    serial_of(cert, serial);
    cr_assert_eq(unlink(key), 0);
    cr_expect_eq(cb_ca_renew(p.ca, CB_OPTS(cb_renew_opts, .cert_file = cert), &got), CB_ENOENT);
    cr_expect(strstr(cb_last_error(), "signing request") != NULL, "%s", cb_last_error());
    cr_expect(got.not_after_s > 0, "the old one's dates are told");
    cr_assert_eq(cb_ca_revoke(p.ca, serial, 0), CB_OK);
    cr_expect_eq(cb_ca_renew(p.ca, CB_OPTS(cb_renew_opts, .cert_file = cert), NULL), CB_EPERM);
    serial_of(cert, after);
    cr_expect_str_eq(serial, after, "it stays");
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
    cb_ca_text_free(foreign);
    tls_pki_drop(&other);
    tls_pki_drop(&p);
}

/* A certificate that has to be stapled: its answer comes with it, and is made anew when it has become old. */
Test(renewal, answers_to_staple_are_kept_fresh) {
    tls_pki p;
    char file[160], staple[160];
    const char *name = "a.test";
    cb_renew_result got = {.size = sizeof got};
    cb_identity *id = NULL;
    struct stat st;
    tls_pki_make(&p);
    const cb_leaf_opts leaf = {
        .size = sizeof leaf, .names = &name, .names_len = 1, .must_staple = 1, .profile = CB_CERT_SERVER};
    cb_renew_opts o = {.size = sizeof o,
                       .cert_file = tls_pki_path(&p, "edge.pem", file),
                       .key_file = file,
                       .leaf = &leaf,
                       .ocsp_file = tls_pki_path(&p, "edge.ocsp", staple)};
    cr_assert_eq(cb_ca_renew(p.ca, &o, &got), CB_OK, "%s", cb_last_error());
    cr_expect(got.renewed && got.stapled);
    const cb_identity_opts mine = {
        .size = sizeof mine, .cert_file = file, .key_file = file, .ocsp_file = staple, .issuer_file = p.ca_file};
    cr_assert_eq(cb_identity_new(&id, &mine), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_ca_renew(p.ca, &o, &got), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_identity_reload(id), CB_OK, "the answer is about the new one: %s", cb_last_error());
    o.if_due = 1;
    got.size = sizeof got;
    cr_assert_eq(cb_ca_renew(p.ca, &o, &got), CB_OK);
    cr_expect(!got.renewed && !got.stapled, "both are fresh");
    const struct timespec old[2] = {{.tv_sec = time(NULL) - 50000}, {.tv_sec = time(NULL) - 50000}};
    cr_assert_eq(utimensat(AT_FDCWD, staple, old, 0), 0);
    cr_assert_eq(cb_ca_renew(p.ca, &o, &got), CB_OK, "%s", cb_last_error());
    cr_expect(!got.renewed && got.stapled, "half of its time is over");
    cr_assert_eq(stat(staple, &st), 0);
    cr_expect(st.st_mtime > time(NULL) - 1000);
    cr_expect_eq(cb_identity_reload(id), CB_OK, "%s", cb_last_error());
    cb_identity_unref(id);
    tls_pki_drop(&p);
}

struct renewals {
    cb_loop *loop;
    int told, failed, stop_at, lines;
};

static void count_line(int level, const char *module, const char *text, void *user) {
    struct renewals *s = user;
    if (strcmp(module, "renewal") != 0) return;
    bool failed = strstr(text, "was not renewed") != NULL && strstr(text, "ca-key.pem is missing") != NULL;
    bool renewed = strstr(text, "was renewed and expires in") != NULL;
    cr_expect(level == CB_LOG_WARN ? failed : renewed, "%d: %s", level, text);
    s->lines++;
}

static void on_done(cb_renewal *r, int rc, void *user) {
    struct renewals *s = user;
    (void)r;
    if (rc < 0) s->failed++;
    s->told++;
    if (s->told == s->stop_at) cb_loop_stop(s->loop);
}

Test(renewal, requests_go_on_while_certificates_change) {
    http_world w = {0};
    http_world_open(&w);
    char file[160];
    const char *names[] = {"localhost", "127.0.0.1"};
    const cb_leaf_opts leaf = {
        .size = sizeof leaf, .names = names, .names_len = 2, .lifetime_s = 200}; /* due at once */
    const cb_renew_opts what = {
        .size = sizeof what, .cert_file = tls_pki_path(&w.pki, "edge.pem", file), .key_file = file, .leaf = &leaf};
    cr_assert_eq(cb_ca_renew(w.pki.ca, &what, NULL), CB_OK, "%s", cb_last_error());
    cb_identity_unref(w.me);
    cr_assert_eq(cb_identity_new(&w.me, CB_OPTS(cb_identity_opts, .cert_file = file, .key_file = file)), CB_OK);
    int64_t first = cb_identity_expires(w.me);
    http_serve(&w, (cb_http_server_opts){.identity = w.me});
    struct renewals seen = {.loop = w.loop};
    cb_renewal *r = NULL;
    cr_assert_eq(cb_renewal_new(&r, w.loop,
                                CB_OPTS(cb_renewal_opts, .ca_dir = w.pki.dir, .renew = &what, .identity = w.me,
                                        .on_done = on_done, .user = &seen)),
                 CB_OK, "%s", cb_last_error());
    size_t requests = 0;
    cb_renewal_status s = {.size = sizeof s};
    for (uint32_t version = 0; s.renewed < 4;
         version++) { /* each on a connection of its own, or it would prove little */
        static const uint32_t versions[] = {CB_HTTP_1, CB_HTTP_2, CB_HTTP_3};
        http_reply reply = {0};
        http_client_make(&w, (cb_http_client_opts){.versions = versions[version % 3]});
        http_fetch(&reply, &w, (cb_request){0}, "/hello");
        cr_assert(reply.rc == CB_OK && reply.status == 200, "request %zu: %d: %s", requests, reply.rc, reply.detail);
        cb_http_client_free(w.client);
        w.client = NULL;
        requests++;
        s.size = sizeof s;
        cr_assert_eq(cb_renewal_status_get(r, &s), CB_OK);
        cr_assert_eq(s.failures, 0, "%s", w.log);
        if (s.renewed) (void)cb_renewal_now(r); /* the first one comes by itself; CB_EAGAIN: this one is under way */
    }
    cr_expect(cb_identity_expires(w.me) >= first && s.not_after_s >= first);
    cr_expect(seen.failed == 0 && seen.told == (int)s.renewed, "%zu requests", requests);
    cb_renewal_free(r);
    http_world_close(&w);
}

Test(renewal, a_failure_keeps_the_old_one_and_is_tried_again) {
    tls_pki p;
    char file[160], hidden[160], index[160], before[CB_SERIAL_TEXT], after[CB_SERIAL_TEXT];
    const char *name = "a.test";
    cb_loop *loop = NULL;
    cb_renewal *r = NULL;
    cb_renewal_status s = {.size = sizeof s};
    tls_pki_make(&p);
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK);
    const cb_leaf_opts leaf = {.size = sizeof leaf, .names = &name, .names_len = 1, .lifetime_s = 600};
    const cb_renew_opts what = {
        .size = sizeof what, .cert_file = tls_pki_path(&p, "edge.pem", file), .key_file = file, .leaf = &leaf};
    struct renewals seen = {.loop = loop, .stop_at = 1};
    const cb_log log = {.write = count_line, .user = &seen};
    cr_assert_eq(cb_ca_renew(p.ca, &what, NULL), CB_OK, "%s", cb_last_error());
    serial_of(file, before);
    tls_pki_path(&p, "ca-key.pem", index);
    tls_pki_path(&p, "hidden", hidden);
    cr_assert_eq(rename(index, hidden), 0);
    cr_assert_eq(cb_renewal_new(&r, loop,
                                CB_OPTS(cb_renewal_opts, .ca_dir = p.dir, .renew = &what, .on_done = on_done,
                                        .user = &seen, .log = &log, .retry_s = 1000, .retry_max_s = 1500)),
                 CB_OK);
    for (uint32_t failure = 1; failure <= 2; failure++) {
        seen.stop_at = seen.told + 1;
        cb_loop_run(loop);
        cr_assert_eq(cb_renewal_status_get(r, &s), CB_OK);
        cr_expect_eq(s.failures, failure);
        cr_expect_eq(s.error, CB_EINVAL);
        int64_t wait = s.next_s - (int64_t)time(NULL), most = failure == 1 ? 1000 : 1500;
        cr_expect(wait <= most && wait >= most - most / 4 - 2, "failure %u: %lld s", failure, (long long)wait);
        serial_of(file, after);
        cr_expect_str_eq(before, after);
        if (failure == 1) cr_assert_eq(cb_renewal_now(r), CB_OK);
    }
    cr_assert_eq(rename(hidden, index), 0);
    cr_assert_eq(cb_renewal_now(r), CB_OK);
    cr_expect_eq(cb_renewal_now(r), CB_EAGAIN);
    seen.stop_at = seen.told + 1;
    cb_loop_run(loop);
    cr_assert_eq(cb_renewal_status_get(r, &s), CB_OK);
    cr_expect(s.failures == 0 && s.renewed == 1 && s.error == CB_OK && s.not_after_s > (int64_t)time(NULL));
    serial_of(file, after);
    cr_expect(strcmp(before, after) != 0);
    cr_expect_eq(seen.lines, 3);
    cr_assert_eq(cb_renewal_now(r), CB_OK);
    cb_renewal_free(r); /* while it is under way */
    cb_loop_free(loop);
    tls_pki_drop(&p);
}

Test(renewal, options_that_are_refused) {
    cb_loop *loop = NULL;
    cb_renewal *r = NULL;
    const cb_renew_opts what = {.size = sizeof what, .cert_file = "x.pem"}, nothing = {.size = sizeof nothing};
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK);
    const struct {
        const char *say;
        cb_renewal_opts o;
    } rows[] = {{"no ca_dir", {.renew = &what}},
                {"no renew", {.ca_dir = "x"}},
                {"no cert_file", {.ca_dir = "x", .renew = &nothing}}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_renewal_opts o = rows[i].o;
        o.size = sizeof o;
        cr_expect_eq(cb_renewal_new(&r, loop, &o), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), rows[i].say) != NULL, "row %zu: %s", i, cb_last_error());
    }
    cr_expect_eq(cb_renewal_new(NULL, loop, NULL), CB_EINVAL);
    cr_expect_eq(cb_renewal_now(NULL), CB_EINVAL);
    cb_renewal_free(NULL);
    cb_loop_free(loop);
}
