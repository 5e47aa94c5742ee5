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
