/* What TLS counts: each family moves by what a handshake was. */
#include "loop/turn.h"
#include "support/moved.h"
#include "support/tls_fixture.h"
#include "transport/tls_alert.h"
#include <gnutls/gnutls.h>
#include <string.h>
#include <time.h>

typedef struct world {
    tls_pki pki, foreign;
    cb_metrics *m;
    cb_loop *loop;
    cb_identity *server_id, *roots;
    cb_tickets *ring;
    cb_session_cache *cache;
    cb_tls_opts server, client;
} world;

static void begin(world *w) {
    memset(w, 0, sizeof *w);
    cr_assert_eq(cb_metrics_new(&w->m, NULL), CB_OK);
    cr_assert_eq(cb_loop_new(&w->loop, CB_OPTS(cb_loop_opts, .metrics = w->m)), CB_OK);
    tls_pki_make(&w->pki);
    tls_pki_make(&w->foreign);
    w->server_id = tls_pki_identity(&w->pki, "localhost,*.c.test");
    w->roots = tls_pki_client(&w->pki);
    cr_assert_eq(cb_tickets_new(&w->ring, NULL), CB_OK);
    cr_assert_eq(cb_session_cache_new(&w->cache, &cb_alloc_libc, 8, NULL), CB_OK);
    w->server = (cb_tls_opts){
        .server = true, .identity = w->server_id, .tickets = w->ring, .alpn = "h2,http/1.1,smtp", .loop = w->loop};
    w->client = (cb_tls_opts){
        .identity = w->roots, .alpn = "h2", .server_name = "localhost", .cache = w->cache, .loop = w->loop};
}

static void end(world *w) {
    EXPECT_MOVED(w->m, 0, "cb_tls_handshakes_under_way", "server");
    EXPECT_MOVED(w->m, 0, "cb_tls_handshakes_under_way", "client");
    cb_loop_free(w->loop);
    cb_metrics_unref(w->m);
    cb_session_cache_free(w->cache);
    cb_tickets_unref(w->ring);
    cb_identity_unref(w->server_id);
    cb_identity_unref(w->roots);
    tls_pki_drop(&w->pki);
    tls_pki_drop(&w->foreign);
}

static int talk(const cb_tls_opts *server, const cb_tls_opts *client) {
    tls_end c, s;
    tls_end_make(&c, client);
    tls_end_make(&s, server);
    tls_talk(&c, &s, 0);
    int rc = s.rc < 0 ? s.rc : c.rc;
    tls_end_drop(&c);
    tls_end_drop(&s);
    return rc;
}

Test(tls_meters, a_handshake_and_one_that_resumes_it) {
    world w;
    begin(&w);
    tls_end c, s;
    tls_end_make(&c, &w.client);
    tls_end_make(&s, &w.server);
    EXPECT_MOVED(w.m, 1, "cb_tls_handshakes_under_way", "server");
    EXPECT_MOVED(w.m, 1, "cb_tls_handshakes_under_way", "client");
    tls_talk(&c, &s, 0);
    cr_assert_eq(c.rc, CB_OK, "%s", c.error);
    for (size_t i = 0; i < 2; i++) {
        const char *side = i ? "client" : "server";
        EXPECT_MOVED(w.m, 1, "cb_tls_handshakes", side);
        EXPECT_MOVED(w.m, 1, "cb_tls_handshake_seconds", side);
        EXPECT_MOVED(w.m, 0, "cb_tls_resumed_sessions", side);
    }
    EXPECT_MOVED(w.m, 2, "cb_tls_versions", "1.3");
    EXPECT_MOVED(w.m, 2, "cb_tls_protocols", "h2");
    EXPECT_MOVED(w.m, 1, "cb_tls_server_names", "known");
    EXPECT_MOVED(w.m, 2, "cb_tls_tickets", "issued");
    EXPECT_MOVED(w.m, 2, "cb_tls_client_tickets", "received");
    EXPECT_MOVED(w.m, 1, "cb_tls_peer_certificates", "client", "good");
    const double signed_before = moved(w.m, "cb_tls_signatures", "ecdsa", NULL);
    cr_expect_eq(signed_before, 2, "a certificate of the CA has another kind of key");
    tls_end_drop(&c);
    tls_end_drop(&s);

    cr_assert_eq(talk(&w.server, &w.client), CB_OK);
    for (size_t i = 0; i < 2; i++)
        EXPECT_MOVED(w.m, 1, "cb_tls_resumed_sessions", i ? "client" : "server");
    EXPECT_MOVED(w.m, 1, "cb_tls_client_tickets", "offered");
    EXPECT_MOVED(w.m, 1, "cb_tls_client_tickets", "accepted");
    EXPECT_MOVED(w.m, 1, "cb_tls_tickets", "accepted");
    EXPECT_MOVED(w.m, 3, "cb_tls_tickets", "issued");
    EXPECT_MOVED(w.m, 2, "cb_tls_signatures", "none");

    cb_tickets *other = NULL; /* another server, which cannot open it */
    cr_assert_eq(cb_tickets_new(&other, NULL), CB_OK);
    w.server.tickets = other;
    cr_assert_eq(talk(&w.server, &w.client), CB_OK);
    EXPECT_MOVED(w.m, 1, "cb_tls_tickets", "refused");
    EXPECT_MOVED(w.m, 2, "cb_tls_client_tickets", "offered");
    EXPECT_MOVED(w.m, 1, "cb_tls_client_tickets", "accepted");
    w.server.tickets = w.ring;
    cb_tickets_unref(other);
    end(&w);
}

/* What GnuTLS would choose otherwise: what both sides speak is up to the client here. */
static void restrict_to(tls_end *client, const char *priorities) {
    cr_assert_eq(gnutls_priority_set_direct(cb_tls_session_handle(client->tls), priorities, NULL), 0, "%s", priorities);
}

Test(tls_meters, what_was_agreed_on) {
    static const struct {
        const char *priorities, *family, *value;
        bool tls12;
    } rows[] = {
        {"NORMAL:-CIPHER-ALL:+AES-128-GCM", "cb_tls_ciphers", "aes_128_gcm", false},
        {"NORMAL:-CIPHER-ALL:+AES-256-GCM", "cb_tls_ciphers", "aes_256_gcm", false},
        {"NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305", "cb_tls_ciphers", "chacha20_poly1305", false},
        {"NORMAL:-GROUP-ALL:+GROUP-X25519", "cb_tls_groups", "x25519", false},
        {"NORMAL:-GROUP-ALL:+GROUP-SECP256R1", "cb_tls_groups", "secp256r1", false},
        {"NORMAL:-GROUP-ALL:+GROUP-SECP384R1", "cb_tls_groups", "secp384r1", false},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.2", "cb_tls_versions", "1.2", true},
        {"NORMAL:-VERS-ALL:+VERS-TLS1.3", "cb_tls_versions", "1.3", true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        world w;
        tls_end c, s;
        begin(&w);
        w.server.tls12 = w.client.tls12 = rows[i].tls12;
        tls_end_prepare(&c, &w.client);
        restrict_to(&c, rows[i].priorities);
        tls_end_make(&s, &w.server);
        tls_end_start(&c);
        tls_talk(&c, &s, 0);
        cr_expect_eq(s.rc, CB_OK, "row %zu: %s", i, s.error);
        EXPECT_MOVED(w.m, 2, rows[i].family, rows[i].value);
        tls_end_drop(&c);
        tls_end_drop(&s);
        end(&w);
    }
}

Test(tls_meters, keys_protocols_and_names) {
    static const struct {
        int key;
        const char *algorithm;
    } keys[] = {{CB_KEY_ECDSA_P256, "ecdsa"}, {CB_KEY_RSA_2048, "rsa"}, {CB_KEY_ED25519, "eddsa"}};
    static const struct {
        const char *name, *result, *alpn, *protocol;
    } rows[] = {{"localhost", "known", "http/1.1", "http/1.1"},
                {"x.c.test", "known", NULL, "none"},
                {"elsewhere.test", "unknown", "smtp", "other"},
                {NULL, "none", "h2", "h2"}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        world w;
        char cert[160], key[160];
        cb_identity *id = NULL;
        begin(&w);
        tls_pki_leaf(&w.pki, "localhost", keys[i].key, "special", 0, 0);
        cr_assert_eq(
            cb_identity_new(&id, CB_OPTS(cb_identity_opts, .cert_file = tls_pki_path(&w.pki, "special.pem", cert),
                                         .key_file = tls_pki_path(&w.pki, "special-key.pem", key))),
            CB_OK, "%s", cb_last_error());
        w.server.identity = id;
        cr_expect_eq(talk(&w.server, &w.client), CB_OK);
        EXPECT_MOVED(w.m, 2, "cb_tls_signatures", keys[i].algorithm);
        cb_identity_unref(id);
        end(&w);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        world w;
        begin(&w);
        w.client.server_name = rows[i].name;
        w.client.alpn = rows[i].alpn;
        w.client.verify = CB_VERIFY_NONE;
        if (!rows[i].alpn) w.server.alpn = NULL;
        cr_expect_eq(talk(&w.server, &w.client), CB_OK, "row %zu", i);
        EXPECT_MOVED(w.m, 1, "cb_tls_server_names", rows[i].result);
        EXPECT_MOVED(w.m, 2, "cb_tls_protocols", rows[i].protocol);
        EXPECT_MOVED(w.m, 0, "cb_tls_peer_certificates", "client", "good"); /* it did not look */
        end(&w);
    }
}

Test(tls_meters, handshakes_that_fail) {
    static const struct {
        const char *name, *alpn, *priorities;
        bool server12, foreign;
        const char *server, *client; /* the reasons of either side */
        const char *alert;           /* that one side sent and the other got */
        const char *certificate;     /* what the client thought of it */
    } rows[] = {
        {"other.example", "h2", NULL, false, false, "alert", "certificate", "bad_certificate", "wrong_name"},
        {"localhost", "h2", NULL, false, true, "alert", "certificate", "unknown_ca", "unknown_issuer"},
        {"localhost", "imap", NULL, false, false, "alpn", "alert", "no_application_protocol", NULL},
        {"localhost", "h2", "NORMAL:-VERS-ALL:+VERS-TLS1.2", false, false, "version", "alert", "protocol_version",
         NULL},
        {"localhost", "h2", "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-CCM", false, false, "parameters",
         "alert", "handshake_failure", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        world w;
        tls_end c, s;
        begin(&w);
        cb_identity *strange = tls_pki_client(&w.foreign);
        w.client.server_name = rows[i].name;
        w.client.alpn = rows[i].alpn;
        if (rows[i].foreign) w.client.identity = strange;
        tls_end_prepare(&c, &w.client);
        if (rows[i].priorities) restrict_to(&c, rows[i].priorities);
        tls_end_make(&s, &w.server);
        tls_end_start(&c);
        tls_talk(&c, &s, 0);
        cr_expect(s.rc < 0 && c.rc < 0, "row %zu", i);
        const bool by_client = strcmp(rows[i].server, "alert") == 0;
        EXPECT_MOVED(w.m, 1, "cb_tls_failed_handshakes", "server", rows[i].server);
        EXPECT_MOVED(w.m, 1, "cb_tls_failed_handshakes", "client", rows[i].client);
        EXPECT_MOVED(w.m, 1, "cb_tls_alerts", "in", rows[i].alert);
        EXPECT_MOVED(w.m, 1, "cb_tls_alerts", "out", rows[i].alert);
        EXPECT_MOVED(w.m, 0, "cb_tls_handshakes", by_client ? "client" : "server");
        if (rows[i].certificate) EXPECT_MOVED(w.m, 1, "cb_tls_peer_certificates", "client", rows[i].certificate);
        tls_end_drop(&c);
        tls_end_drop(&s);
        cb_identity_unref(strange);
        end(&w);
    }
}

Test(tls_meters, handshakes_that_come_to_nothing) {
    world w;
    tls_end c, s;
    begin(&w);
    tls_end_make(&s, &w.server);
    tls_end_drop(&s);
    EXPECT_MOVED(w.m, 1, "cb_tls_failed_handshakes", "server", "silent");
    tls_end_make(&c, &w.client);
    tls_end_make(&s, &w.server);
    cr_assert_eq(cb_tls_stream_feed(s.tls, cb_buf_slice(&c.out)), CB_OK);
    tls_end_drop(&s);
    tls_end_drop(&c);
    EXPECT_MOVED(w.m, 1, "cb_tls_failed_handshakes", "server", "abandoned");
    EXPECT_MOVED(w.m, 1, "cb_tls_failed_handshakes", "client", "abandoned");
    tls_end_make(&s, &w.server);
    cr_assert_lt(cb_tls_stream_feed(s.tls, cb_slice_str("GET / HTTP/1.1\r\nHost: x\r\n\r\n")), 0);
    tls_end_drop(&s);
    EXPECT_MOVED(w.m, 1, "cb_tls_failed_handshakes", "server", "protocol");
    end(&w);
}

static cb_identity *client_of(tls_pki *pki, const char *ca_file, int64_t not_before, uint32_t days) {
    char cert[160], key[160];
    cb_identity *id = NULL;
    tls_pki_leaf(pki, "somebody", 0, "somebody", not_before, days);
    cr_assert_eq(
        cb_identity_new(&id, CB_OPTS(cb_identity_opts, .cert_file = tls_pki_path(pki, "somebody.pem", cert),
                                     .key_file = tls_pki_path(pki, "somebody-key.pem", key), .ca_file = ca_file)),
        CB_OK, "%s", cb_last_error());
    return id;
}

Test(tls_meters, certificates_of_clients) {
    const int64_t now = (int64_t)time(NULL);
    const struct {
        bool shows, foreign, need, named;
        int64_t not_before;
        const char *result;
    } rows[] = {{true, false, true, false, 0, "good"},
                {false, false, false, false, 0, "none"},
                {false, false, true, false, 0, "missing"},
                {true, true, true, false, 0, "unknown_issuer"},
                {true, false, true, false, now - 3 * 86400, "expired"},
                {true, false, true, false, now + 86400, "not_yet_valid"},
                {true, false, true, true, 0, "not_allowed"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        world w;
        const char *name = "spiffe://td.test/nobody";
        begin(&w);
        cb_identity *id = NULL;
        if (rows[i].shows) id = client_of(rows[i].foreign ? &w.foreign : &w.pki, w.pki.ca_file, rows[i].not_before, 1);
        if (id) w.client.identity = id;
        w.server.request_client_cert = true;
        w.server.require_client_cert = rows[i].need;
        if (rows[i].named)
            cr_assert_eq(cb_identity_trust(w.server_id, CB_OPTS(cb_trust_opts, .ca_file = w.pki.ca_file, .names = &name,
                                                                .names_len = 1, .clients = CB_CLIENTS_REQUIRE)),
                         CB_OK, "%s", cb_last_error());
        const bool good = i < 2;
        cr_expect_eq(talk(&w.server, &w.client), good ? CB_OK : CB_EAUTH, "row %zu: %s", i, cb_last_error());
        EXPECT_MOVED(w.m, 1, "cb_tls_peer_certificates", "server", rows[i].result);
        EXPECT_MOVED(w.m, good, "cb_tls_handshakes", "server");
        EXPECT_MOVED(w.m, !good, "cb_tls_failed_handshakes", "server", "certificate");
        cb_identity_unref(id);
        end(&w);
    }
}

Test(tls_meters, who_is_not_welcome_any_more) {
    world w;
    tls_end c, s;
    begin(&w);
    cb_identity *id = client_of(&w.pki, w.pki.ca_file, 0, 1);
    w.client.identity = id;
    w.server.require_client_cert = true;
    tls_end_make(&c, &w.client);
    tls_end_make(&s, &w.server);
    tls_talk(&c, &s, 0);
    cr_assert_eq(s.rc, CB_OK, "%s", s.error);
    cr_assert(cb_tls_session_still_welcome(s.tls, w.server_id));
    EXPECT_MOVED(w.m, 0, "cb_tls_expelled_peers");
    cr_assert_eq(cb_identity_trust(w.server_id,
                                   CB_OPTS(cb_trust_opts, .ca_file = w.foreign.ca_file, .clients = CB_CLIENTS_REQUIRE)),
                 CB_OK, "%s", cb_last_error());
    cr_assert(!cb_tls_session_still_welcome(s.tls, w.server_id));
    cr_assert(!cb_tls_session_still_welcome(s.tls, w.server_id));
    EXPECT_MOVED(w.m, 1, "cb_tls_expelled_peers");
    tls_end_drop(&c);
    tls_end_drop(&s);
    cb_identity_unref(id);
    end(&w);
}

/* Every alert that has a name is counted under it; peers of tests cannot be made to send each. */
Test(tls_meters, alerts_have_their_names) {
    static const struct {
        gnutls_alert_description_t alert;
        const char *name;
    } rows[] = {
        {GNUTLS_A_UNEXPECTED_MESSAGE, "unexpected_message"},
        {GNUTLS_A_BAD_RECORD_MAC, "bad_record_mac"},
        {GNUTLS_A_RECORD_OVERFLOW, "record_overflow"},
        {GNUTLS_A_HANDSHAKE_FAILURE, "handshake_failure"},
        {GNUTLS_A_BAD_CERTIFICATE, "bad_certificate"},
        {GNUTLS_A_CERTIFICATE_REVOKED, "certificate_revoked"},
        {GNUTLS_A_CERTIFICATE_EXPIRED, "certificate_expired"},
        {GNUTLS_A_CERTIFICATE_UNKNOWN, "certificate_unknown"},
        {GNUTLS_A_ILLEGAL_PARAMETER, "illegal_parameter"},
        {GNUTLS_A_UNKNOWN_CA, "unknown_ca"},
        {GNUTLS_A_ACCESS_DENIED, "access_denied"},
        {GNUTLS_A_DECODE_ERROR, "decode_error"},
        {GNUTLS_A_DECRYPT_ERROR, "decrypt_error"},
        {GNUTLS_A_PROTOCOL_VERSION, "protocol_version"},
        {GNUTLS_A_INTERNAL_ERROR, "internal_error"},
        {GNUTLS_A_MISSING_EXTENSION, "missing_extension"},
        {GNUTLS_A_UNSUPPORTED_EXTENSION, "unsupported_extension"},
        {GNUTLS_A_UNRECOGNIZED_NAME, "unrecognized_name"},
        {GNUTLS_A_CERTIFICATE_REQUIRED, "certificate_required"},
        {GNUTLS_A_NO_APPLICATION_PROTOCOL, "no_application_protocol"},
        {GNUTLS_A_USER_CANCELED, "other"},
    };
    world w;
    begin(&w);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_tls_count_alert(cb_loop_cells(w.loop), false, rows[i].alert);
        EXPECT_MOVED(w.m, 1, "cb_tls_alerts", "in", rows[i].name);
        cb_tls_count_alert(cb_loop_cells(w.loop), true, rows[i].alert);
        EXPECT_MOVED(w.m, 1, "cb_tls_alerts", "out", rows[i].name);
    }
    end(&w);
}
