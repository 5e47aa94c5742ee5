/* tls-alpn-01: certificates that answer validations (RFC 8737), and identities from memory. */
#include "auth/acme_self.h"
#include "base/mem.h"
#include "support/moved.h"
#include "support/tls_fixture.h"
#include "transport/tls_alpn01.h"
#include <cb/acme.h>
#include <criterion/criterion.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const char key_auth[] = "token.thumbprint";

static char *make(const char *name) {
    cb_buf pem;
    cb_buf_init(&pem, &cb_alloc_libc, 65536);
    const cb_acme_self o = {.names = &name,
                            .names_len = 1,
                            .common_name = "tls-alpn-01",
                            .key_auth = key_auth,
                            .now_s = time(NULL),
                            .days = 7};
    cr_assert_eq(cb_acme_self_signed(&pem, &o), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_buf_add(&pem, "", 1), CB_OK);
    return (char *)pem.base;
}

/* Has the leaf the critical extension with the digest of key_auth? -1: none at all. */
static int answers(cb_tls_session *client) {
    unsigned n = 0, critical = 0;
    uint8_t value[64], want[34] = {4, 32};
    size_t len = sizeof value;
    char oid[64];
    size_t oid_len = sizeof oid;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(cb_tls_session_handle(client), &n);
    gnutls_x509_crt_t crt;
    int found = -1;
    cr_assert(chain && n > 0);
    gnutls_x509_crt_init(&crt);
    gnutls_x509_crt_import(crt, &chain[0], GNUTLS_X509_FMT_DER);
    gnutls_hash_fast(GNUTLS_DIG_SHA256, key_auth, strlen(key_auth), want + 2);
    for (unsigned i = 0; gnutls_x509_crt_get_extension_info(crt, i, oid, &oid_len, &critical) >= 0; i++) {
        if (strcmp(oid, "1.3.6.1.5.5.7.1.31") == 0) {
            gnutls_x509_crt_get_extension_data(crt, i, value, &len);
            found = critical && n == 1 && len == sizeof want && memcmp(value, want, len) == 0;
        }
        oid_len = sizeof oid;
    }
    gnutls_x509_crt_deinit(crt);
    return found;
}

typedef struct world {
    cb_metrics *m;
    cb_loop *loop;
    tls_pki pki;
    cb_alpn01 *alpn01;
    cb_identity *server_id, *client_id;
    cb_tickets *tickets;
    cb_tls_opts server, client;
} world;

static void begin(world *w) {
    char cert[160], key[160];
    memset(w, 0, sizeof *w);
    tls_pki_make(&w->pki);
    tls_pki_leaf(&w->pki, "localhost", 0, "leaf", 0, 0);
    cr_assert_eq(cb_alpn01_new(&w->alpn01), CB_OK);
    const cb_identity_opts o = {.size = sizeof o,
                                .cert_file = tls_pki_path(&w->pki, "leaf.pem", cert),
                                .key_file = tls_pki_path(&w->pki, "leaf-key.pem", key),
                                .ca_file = w->pki.ca_file,
                                .alpn01 = w->alpn01};
    cr_assert_eq(cb_identity_new(&w->server_id, &o), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_tickets_new(&w->tickets, NULL), CB_OK);
    w->client_id = tls_pki_client(&w->pki);
    cr_assert_eq(cb_metrics_new(&w->m, NULL), CB_OK);
    cr_assert_eq(cb_loop_new(&w->loop, CB_OPTS(cb_loop_opts, .metrics = w->m)), CB_OK);
    w->server = (cb_tls_opts){
        .server = true, .identity = w->server_id, .tickets = w->tickets, .alpn = "h2,http/1.1", .loop = w->loop};
    w->client = (cb_tls_opts){.identity = w->client_id, .verify = CB_VERIFY_NONE};
}

static void end(world *w) {
    cb_loop_free(w->loop);
    cb_metrics_unref(w->m);
    cb_alpn01_unref(w->alpn01);
    cb_identity_unref(w->server_id);
    cb_identity_unref(w->client_id);
    cb_tickets_unref(w->tickets);
    tls_pki_drop(&w->pki);
}

Test(alpn01, only_who_validates_sees_the_answer_and_only_while_it_is_set) {
    static const struct {
        const char *set, *sni, *alpn;
        bool need_cert, tls12;
        int rc, answers;
        const char *chosen;
    } rows[] = {
        {"localhost", "localhost", "acme-tls/1", false, false, CB_OK, 1, "acme-tls/1"},
        {"LOCALHOST", "localhost", "acme-tls/1", false, false, CB_OK, 1, "acme-tls/1"},
        {"localhost", "localhost", "acme-tls/1", false, true, CB_OK, 1, "acme-tls/1"},
        {"localhost", "localhost", "acme-tls/1", true, false, CB_OK, 1, "acme-tls/1"}, /* it has no certificate */
        {"localhost", "localhost", "h2", false, false, CB_OK, -1, "h2"},
        {"localhost", "localhost", "acme-tls/1,h2", false, false, CB_OK, -1, "h2"},
        {"localhost", "localhost", "acme-tls/2", false, false, CB_ETLS, 0, ""},
        {"localhost", "other.example", "acme-tls/1", false, false, CB_ETLS, 0, ""},
        {NULL, "localhost", "acme-tls/1", false, false, CB_ETLS, 0, ""},
        {"192.0.2.7", "7.2.0.192.in-addr.arpa", "acme-tls/1", false, false, CB_OK, 1, "acme-tls/1"}, /* RFC 8738 */
        {"2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "acme-tls/1", false,
         false, CB_OK, 1, "acme-tls/1"},
    };
    world w;
    begin(&w);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tls_end c, s;
        if (rows[i].set) {
            char *pem = make(rows[i].set);
            cr_assert_eq(cb_alpn01_set(w.alpn01, rows[i].set, pem), CB_OK, "%s", cb_last_error());
            cb_mem_free(&cb_alloc_libc, pem);
        }
        w.server.tls12 = w.client.tls12 = rows[i].tls12;
        w.server.require_client_cert = rows[i].need_cert;
        w.client.server_name = rows[i].sni;
        w.client.alpn = rows[i].alpn;
        tls_end_make(&c, &w.client);
        tls_end_make(&s, &w.server);
        tls_talk(&c, &s, 0);
        cr_expect_eq(s.rc, rows[i].rc, "row %zu: %s", i, s.error);
        if (rows[i].rc == CB_OK) {
            cr_expect_eq(c.rc, CB_OK, "row %zu: %s", i, c.error);
            cr_expect_eq(answers(c.tls), rows[i].answers, "row %zu", i);
            cr_expect_str_eq(cb_tls_session_alpn(s.tls), rows[i].chosen, "row %zu", i);
        }
        tls_end_drop(&c);
        tls_end_drop(&s);
        if (rows[i].set) cr_assert_eq(cb_alpn01_set(w.alpn01, rows[i].set, NULL), CB_OK);
    }
    EXPECT_MOVED(w.m, 6, "cb_tls_acme_validations"); /* rows with an answer of 1 */
    end(&w);
}

Test(alpn01, what_is_refused) {
    cb_alpn01 *a = NULL;
    cr_expect_eq(cb_alpn01_new(NULL), CB_EINVAL);
    cr_assert_eq(cb_alpn01_new(&a), CB_OK);
    cr_expect_eq(cb_alpn01_set(a, "a.example", "no pem"), CB_EINVAL);
    cr_expect_eq(cb_alpn01_set(a, "", NULL), CB_EINVAL);
    cr_expect_eq(cb_alpn01_set(a, NULL, NULL), CB_EINVAL);
    cr_expect_eq(cb_alpn01_set(NULL, "a.example", NULL), CB_EINVAL);
    cr_expect_eq(cb_alpn01_set(a, "a.example", NULL), CB_OK, "nothing to take back is fine");
    char *pem = make("x.example");
    for (int i = 0; i < 1024; i++) {
        char name[32];
        snprintf(name, sizeof name, "n%d.example", i);
        cr_assert_eq(cb_alpn01_set(a, name, pem), CB_OK);
    }
    cr_expect_eq(cb_alpn01_set(a, "more.example", pem), CB_ELIMIT);
    cr_expect_eq(cb_alpn01_set(a, "n7.example", pem), CB_OK, "one that is there is replaced");
    cb_alpn01_cert *held = cb_alpn01_find(a, "n7.example");
    cb_mem_free(&cb_alloc_libc, pem);
    cb_alpn01_unref(a);
    cr_expect(cb_alpn01_cert_of(held)->chain_len == 1); /* a handshake keeps what it shows */
    cb_alpn01_cert_unref(held);
}

Test(alpn01, an_identity_from_memory_serves_and_survives_a_reload) {
    static const char *const names[] = {"localhost", "192.0.2.1"};
    world w;
    cb_identity *id = NULL;
    char *pem = NULL;
    begin(&w);
    cr_assert_eq(cb_acme_placeholder(&pem, names, 2, time(NULL)), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_identity_new(&id, CB_OPTS(cb_identity_opts, .pem = pem)), CB_OK, "%s", cb_last_error());
    cb_acme_text_free(pem);
    cr_assert_eq(cb_identity_reload(id), CB_OK);
    cr_expect(cb_identity_expires(id) > time(NULL) + 29 * 86400);
    for (int verify = 0; verify < 2; verify++) {
        tls_end c, s;
        w.server.identity = id;
        w.client.verify = verify ? CB_VERIFY_FULL : CB_VERIFY_NONE;
        w.client.server_name = "localhost";
        w.client.alpn = "h2";
        tls_end_make(&c, &w.client);
        tls_end_make(&s, &w.server);
        tls_talk(&c, &s, 0);
        cr_expect_eq(c.rc, verify ? CB_EAUTH : CB_OK, "%s", c.error); /* no client trusts it */
        tls_end_drop(&c);
        tls_end_drop(&s);
    }
    cb_identity_unref(id);
    cr_expect_eq(cb_identity_new(&id, CB_OPTS(cb_identity_opts, .pem = "x", .cert_file = "a", .key_file = "b")),
                 CB_EINVAL);
    cr_expect_eq(cb_identity_new(&id, CB_OPTS(cb_identity_opts, .pem = "x")), CB_EINVAL);
    cr_expect_eq(cb_acme_placeholder(&pem, (const char *const[]){"not a name"}, 1, 0), CB_EINVAL);
    cr_expect_eq(cb_acme_placeholder(&pem, names, 0, 0), CB_EINVAL);
    end(&w);
}
