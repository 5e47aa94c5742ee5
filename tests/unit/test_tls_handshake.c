#include "base/mem.h"
#include "support/tls_fixture.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct world {
    tls_pki pki;
    cb_identity *server_id, *client_id;
    cb_tls_opts server, client;
} world;

static void begin(world *w) {
    memset(w, 0, sizeof *w);
    tls_pki_make(&w->pki);
    w->server_id = tls_pki_identity(&w->pki, "localhost,127.0.0.1,::1");
    w->client_id = tls_pki_client(&w->pki);
    w->server = (cb_tls_opts){.server = true, .identity = w->server_id, .alpn = "h2,http/1.1"};
    w->client = (cb_tls_opts){.identity = w->client_id, .alpn = "http/1.1,h2", .server_name = "localhost"};
}

static void end(world *w) {
    cb_identity_unref(w->server_id);
    cb_identity_unref(w->client_id);
    tls_pki_drop(&w->pki);
}

static void say(tls_end *e, const char *text) {
    cb_slice v = cb_slice_str(text);
    int rc = cb_tls_stream_write(e->tls, &v, 1);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

static bool heard(const tls_end *e, const char *text) {
    return e->plain.len == strlen(text) && memcmp(e->plain.base, text, e->plain.len) == 0;
}

Test(tls_handshake, opens_and_carries_data_in_any_portions) {
    static const size_t steps[] = {0, 1, 2, 3, 5, 1000};
    world w;
    begin(&w);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        tls_end c, s;
        tls_end_make(&c, &w.client);
        tls_end_make(&s, &w.server);
        tls_talk(&c, &s, steps[i]);
        cr_assert_eq(c.rc, CB_OK, "%s", c.error);
        cr_assert_eq(s.rc, CB_OK, "%s", s.error);
        cr_expect_eq(c.opened, 1);
        cr_expect_eq(s.opened, 1);
        cr_expect_str_eq(cb_tls_session_sni(s.tls), "localhost");
        cr_expect_str_eq(cb_tls_session_alpn(s.tls), "h2"); /* the server's order decides */
        cr_expect_str_eq(cb_tls_session_alpn(c.tls), "h2");
        cr_expect_eq(gnutls_protocol_get_version(cb_tls_session_handle(c.tls)), GNUTLS_TLS1_3);
        say(&c, "ping");
        say(&s, "pong");
        cb_tls_stream_bye(c.tls);
        tls_talk(&c, &s, steps[i]);
        cr_expect(heard(&s, "ping"));
        cr_expect(heard(&c, "pong"));
        cr_expect_eq(s.eofs, 1);
        say(&s, ", and more after the client's end"); /* half closed */
        tls_talk(&c, &s, steps[i]);
        cr_expect_eq(c.plain.len, strlen("pong, and more after the client's end"));
        tls_end_drop(&c);
        tls_end_drop(&s);
    }
    end(&w);
}

Test(tls_handshake, what_fails_and_in_which_words) {
    static const struct {
        const char *name, *server_alpn, *client_alpn;
        bool client12, server12, old_only, foreign_ca, need_cert;
        int verify, client_rc, server_rc;
        const char *client_says, *server_says;
    } rows[] = {
        {.name = "localhost", .client_says = "", .server_says = ""},
        {.name = "LOCALHOST.", .client_says = "", .server_says = ""},
        {.name = "127.0.0.1", .client_says = "", .server_says = ""},
        {.name = "::1", .client_says = "", .server_says = ""},
        {.name = "[::1]", .client_says = "", .server_says = ""},
        {.name = "other.example",
         .client_rc = CB_EAUTH,
         .server_rc = CB_ETLS,
         .client_says = "not for \"other.example\" but for localhost, 127.0.0.1, ::1",
         .server_says = "bad"},
        {.name = "127.0.0.2",
         .client_rc = CB_EAUTH,
         .server_rc = CB_ETLS,
         .client_says = "not for \"127.0.0.2\"",
         .server_says = "bad"},
        {.name = "other.example", .verify = CB_VERIFY_CHAIN, .client_says = "", .server_says = ""},
        {.name = "localhost",
         .foreign_ca = true,
         .client_rc = CB_EAUTH,
         .server_rc = CB_ETLS,
         .client_says = "unknown issuer",
         .server_says = "CA is unknown"},
        {.name = "localhost",
         .foreign_ca = true,
         .verify = CB_VERIFY_CHAIN,
         .client_rc = CB_EAUTH,
         .server_rc = CB_ETLS,
         .client_says = "unknown issuer",
         .server_says = "CA is unknown"},
        {.name = "localhost", .foreign_ca = true, .verify = CB_VERIFY_NONE, .client_says = "", .server_says = ""},
        {.name = "localhost",
         .client_alpn = "smtp",
         .client_rc = CB_ETLS,
         .server_rc = CB_ETLS,
         .client_says = "application protocol",
         .server_says = "no protocol"},
        {.name = "localhost", .client12 = true, .server12 = true, .client_says = "", .server_says = ""},
        {.name = "localhost",
         .client12 = true,
         .old_only = true,
         .server12 = true,
         .client_says = "",
         .server_says = ""},
        {.name = "localhost",
         .client12 = true,
         .old_only = true,
         .client_rc = CB_ETLS,
         .server_rc = CB_ETLS,
         .client_says = "version",
         .server_says = "not speak TLS 1.3"},
        {.name = "localhost",
         .need_cert = true,
         .server_rc = CB_EAUTH,
         .client_rc = CB_ETLS,
         .server_says = "showed no certificate",
         .client_says = "alert"},
    };
    world w;
    tls_pki foreign;
    begin(&w);
    tls_pki_make(&foreign);
    cb_identity *foreign_id = tls_pki_client(&foreign);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tls_end c, s;
        cb_tls_opts co = w.client, so = w.server;
        co.server_name = rows[i].name;
        co.verify = rows[i].verify;
        co.tls12 = rows[i].client12;
        so.tls12 = rows[i].server12;
        so.require_client_cert = rows[i].need_cert;
        if (rows[i].foreign_ca) co.identity = foreign_id;
        if (rows[i].client_alpn) co.alpn = rows[i].client_alpn;
        tls_end_make(&s, &so);
        tls_end_prepare(&c, &co);
        if (rows[i].old_only) {
            gnutls_priority_set_direct(cb_tls_session_handle(c.tls), "NORMAL:-VERS-ALL:+VERS-TLS1.2", NULL);
        }
        tls_end_start(&c);
        tls_talk(&c, &s, 0);
        cr_expect_eq(c.rc, rows[i].client_rc, "row %zu: client: %d %s", i, c.rc, c.error);
        cr_expect_eq(s.rc, rows[i].server_rc, "row %zu: server: %d %s", i, s.rc, s.error);
        cr_expect(strstr(c.error, rows[i].client_says) != NULL, "row %zu: client: %s", i, c.error);
        cr_expect(strstr(s.error, rows[i].server_says) != NULL, "row %zu: server: %s", i, s.error);
        cr_expect_eq(s.opened, s.rc >= 0, "row %zu", i);
        tls_end_drop(&c);
        tls_end_drop(&s);
    }
    cb_identity_unref(foreign_id);
    tls_pki_drop(&foreign);
    end(&w);
}

static void identity_with(cb_identity **out, tls_pki *p, const char *names, int key_type, int64_t begin_s,
                          uint32_t days) {
    char cert[160], key[160];
    tls_pki_leaf(p, names, key_type, "special", begin_s, days);
    int rc = cb_identity_new(out, CB_OPTS(cb_identity_opts, .cert_file = tls_pki_path(p, "special.pem", cert),
                                          .key_file = tls_pki_path(p, "special-key.pem", key), .ca_file = p->ca_file));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

Test(tls_handshake, dates_of_certificates) {
    static const struct {
        int64_t begin_days;
        uint32_t days;
        int rc;
        const char *says;
    } rows[] = {
        {-10, 20, CB_OK, ""},
        {-10, 3, CB_EAUTH, "expired on 20"},
        {5, 20, CB_EAUTH, "valid only from 20"},
    };
    world w;
    begin(&w);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tls_end c, s;
        cb_identity *id = NULL;
        cb_tls_opts so = w.server;
        identity_with(&id, &w.pki, "localhost", 0, (int64_t)time(NULL) + rows[i].begin_days * 86400, rows[i].days);
        so.identity = id;
        tls_end_make(&c, &w.client);
        tls_end_make(&s, &so);
        tls_talk(&c, &s, 0);
        cr_expect_eq(c.rc, rows[i].rc, "row %zu: %s", i, c.error);
        cr_expect(strstr(c.error, rows[i].says) != NULL, "row %zu: %s", i, c.error);
        cr_expect(c.rc == CB_OK || strstr(c.error, "CN=localhost") != NULL, "row %zu: %s", i, c.error);
        cr_expect(s.rc == CB_OK || strstr(s.error, "expired") != NULL, "row %zu: %s", i, s.error);
        tls_end_drop(&c);
        tls_end_drop(&s);
        cb_identity_unref(id);
    }
    end(&w);
}

Test(tls_handshake, keys_of_each_kind_in_both_versions) {
    static const int kinds[] = {CB_KEY_ECDSA_P256, CB_KEY_ECDSA_P384, CB_KEY_RSA_2048, CB_KEY_ED25519};
    world w;
    begin(&w);
    for (size_t i = 0; i < 2 * sizeof kinds / sizeof *kinds; i++) {
        tls_end c, s;
        cb_identity *id = NULL;
        cb_tls_opts so = w.server;
        identity_with(&id, &w.pki, "localhost", kinds[i / 2], 0, 0);
        so.identity = id;
        so.tls12 = true;
        tls_end_make(&s, &so);
        tls_end_prepare(&c, &w.client);
        if (i % 2) gnutls_priority_set_direct(cb_tls_session_handle(c.tls), "NORMAL:-VERS-ALL:+VERS-TLS1.2", NULL);
        tls_end_start(&c);
        tls_talk(&c, &s, 0);
        cr_expect(c.rc == CB_OK && c.opened, "key %d: %s", kinds[i / 2], c.error);
        cr_expect(s.rc == CB_OK && s.opened, "key %d: %s", kinds[i / 2], s.error);
        tls_end_drop(&c);
        tls_end_drop(&s);
        cb_identity_unref(id);
    }
    end(&w);
}

Test(tls_handshake, the_clients_signatures_choose_the_key) {
    world w;
    char cert[160], key[160];
    begin(&w);
    tls_pki_leaf(&w.pki, "localhost", CB_KEY_RSA_2048, "rsa", 0, 0);
    int rc = cb_identity_add(w.server_id, CB_OPTS(cb_identity_opts, .cert_file = tls_pki_path(&w.pki, "rsa.pem", cert),
                                                  .key_file = tls_pki_path(&w.pki, "rsa-key.pem", key)));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    static const struct {
        const char *signatures;
        int algorithm;
    } rows[] = {
        {"", GNUTLS_SIGN_ECDSA_SECP256R1_SHA256},
        {":-SIGN-ALL:+SIGN-RSA-PSS-RSAE-SHA256:+SIGN-ECDSA-SECP384R1-SHA384", GNUTLS_SIGN_RSA_PSS_RSAE_SHA256},
    };
    for (size_t i = 0; i < 2; i++) {
        tls_end c, s;
        char priority[256];
        tls_end_make(&s, &w.server);
        tls_end_prepare(&c, &w.client);
        snprintf(priority, sizeof priority, "NORMAL:-VERS-ALL:+VERS-TLS1.3%s", rows[i].signatures);
        cr_assert_eq(gnutls_priority_set_direct(cb_tls_session_handle(c.tls), priority, NULL), 0);
        tls_end_start(&c);
        tls_talk(&c, &s, 0);
        cr_expect(s.rc == CB_OK && s.opened, "row %zu: %s", i, s.error);
        int used = gnutls_sign_algorithm_get(cb_tls_session_handle(c.tls));
        cr_expect(used == rows[i].algorithm || (i == 0 && used == GNUTLS_SIGN_ECDSA_SHA256), "row %zu: %s", i,
                  gnutls_sign_get_name((gnutls_sign_algorithm_t)used));
        tls_end_drop(&c);
        tls_end_drop(&s);
    }
    end(&w);
}

Test(tls_handshake, client_certificates) {
    world w;
    tls_pki foreign;
    begin(&w);
    tls_pki_make(&foreign);
    cb_identity *mine = NULL, *strange = NULL;
    identity_with(&mine, &w.pki, "client", 0, 0, 0);
    identity_with(&strange, &foreign, "client", 0, 0, 0);
    char cert[160], key[160];
    cb_identity *stranger_who_trusts = NULL; /* a certificate of the foreign CA, but our roots */
    int rc =
        cb_identity_new(&stranger_who_trusts,
                        CB_OPTS(cb_identity_opts, .cert_file = tls_pki_path(&foreign, "special.pem", cert),
                                .key_file = tls_pki_path(&foreign, "special-key.pem", key), .ca_file = w.pki.ca_file));
    cr_assert_eq(rc, CB_OK);
    const struct {
        cb_identity *client;
        bool require;
        int rc;
        bool shown;
    } rows[] = {
        {w.client_id, false, CB_OK, false},
        {w.client_id, true, CB_EAUTH, false},
        {mine, false, CB_OK, true},
        {mine, true, CB_OK, true},
        {stranger_who_trusts, false, CB_EAUTH, false},
        {stranger_who_trusts, true, CB_EAUTH, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tls_end c, s;
        cb_tls_opts so = w.server, co = w.client;
        so.request_client_cert = true;
        so.require_client_cert = rows[i].require;
        co.identity = rows[i].client;
        tls_end_make(&s, &so);
        tls_end_make(&c, &co);
        tls_talk(&c, &s, 0);
        cr_expect_eq(s.rc, rows[i].rc, "row %zu: %s", i, s.error);
        if (s.rc == CB_OK) cr_expect_eq(cb_tls_session_has_peer_cert(s.tls), rows[i].shown, "row %zu", i);
        tls_end_drop(&c);
        tls_end_drop(&s);
    }
    cb_identity_unref(stranger_who_trusts);
    cb_identity_unref(mine);
    cb_identity_unref(strange);
    tls_pki_drop(&foreign);
    end(&w);
}

Test(tls_handshake, a_reload_leaves_connections_alone) {
    world w;
    tls_end c, s, c2, s2;
    begin(&w);
    tls_end_make(&c, &w.client);
    tls_end_make(&s, &w.server);
    tls_talk(&c, &s, 0);
    tls_end_make(&c2, &w.client); /* one that is in the middle of its handshake */
    tls_end_make(&s2, &w.server);
    cr_assert_eq(cb_tls_stream_feed(s2.tls, (cb_slice){c2.out.base, 10}), CB_OK);
    cb_buf_drop(&c2.out, 10);
    tls_pki_leaf(&w.pki, "renewed.example,localhost", 0, "leaf", 0, 0);
    cr_assert_eq(cb_identity_reload(w.server_id), CB_OK, "%s", cb_last_error());
    say(&c, "still here");
    tls_talk(&c, &s, 0);
    cr_expect(heard(&s, "still here"));
    tls_talk(&c2, &s2, 0);
    cr_expect(c2.rc == CB_OK && c2.opened, "%s", c2.error);
    tls_end_drop(&c);
    tls_end_drop(&s);
    tls_end_drop(&c2);
    tls_end_drop(&s2);
    w.client.server_name = "renewed.example"; /* new handshakes see the new certificate */
    tls_end_make(&c, &w.client);
    tls_end_make(&s, &w.server);
    tls_talk(&c, &s, 0);
    cr_expect(c.rc == CB_OK && c.opened, "%s", c.error);
    tls_end_drop(&c);
    tls_end_drop(&s);
    end(&w);
}

Test(tls_handshake, large_data_and_a_reader_that_takes_bites) {
    world w;
    tls_end c, s;
    enum { SIZE = 1000003 };
    begin(&w);
    tls_end_make(&c, &w.client);
    tls_end_make(&s, &w.server);
    tls_talk(&c, &s, 0);
    uint8_t *data = malloc(SIZE);
    for (size_t i = 0; i < SIZE; i++) {
        data[i] = (uint8_t)(i * 7 + i / 251);
    }
    static const size_t cuts[] = {1, 100, 16384, 16385, 50000};
    cb_slice v[6];
    size_t at = 0;
    for (size_t i = 0; i < 5; i++) {
        v[i] = (cb_slice){data + at, cuts[i]};
        at += cuts[i];
    }
    v[5] = (cb_slice){data + at, SIZE - at};
    cr_assert_eq(cb_tls_stream_write(c.tls, v, 6), CB_OK);
    s.take = 5000;
    for (int i = 0; i < 1000 && s.plain.len < SIZE; i++) {
        tls_talk(&c, &s, 3000);
        cr_assert_eq(cb_tls_stream_resume(s.tls), CB_OK);
    }
    cr_assert_eq(s.plain.len, SIZE);
    cr_expect(memcmp(s.plain.base, data, SIZE) == 0);
    free(data);
    tls_end_drop(&c);
    tls_end_drop(&s);
    end(&w);
}

Test(tls_handshake, garbage_and_tampering_end_it) {
    world w;
    begin(&w);
    for (size_t flip = 5; flip < 400; flip += 3) { /* the record's header is not protected */
        tls_end c, s;
        tls_end_make(&c, &w.client);
        tls_end_make(&s, &w.server);
        c.out.base[flip % c.out.len] ^= 0x55;
        tls_talk(&c, &s, 0);
        cr_expect_not(s.opened, "with byte %zu changed", flip);
        tls_end_drop(&c);
        tls_end_drop(&s);
    }
    tls_end c, s;
    tls_end_make(&c, &w.client);
    tls_end_make(&s, &w.server);
    tls_talk(&c, &s, 0);
    say(&c, "secret");
    c.out.base[c.out.len - 1] ^= 1; /* a record changed on its way */
    tls_talk(&c, &s, 0);
    cr_expect_eq(s.rc, CB_ETLS, "%s", s.error);
    cr_expect_eq(s.plain.len, 0);
    cr_expect_eq(c.rc, CB_ETLS);
    cr_expect_eq(cb_tls_stream_feed(s.tls, cb_slice_str("x")), CB_ECLOSED);
    tls_end_drop(&c);
    tls_end_drop(&s);
    end(&w);
}
