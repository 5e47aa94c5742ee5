/* Mutual TLS as HTTP sees it: who is there, on both sides, over every version. */
#include "base/addr.h"
#include "support/http_fixture.h"
#include "support/moved.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

typedef struct seen {
    cb_peer *peer; /* of the last request */
    char name[256];
    int requests, early;
} seen;

static int note(cb_exchange *x, void *user) {
    seen *s = user;
    const cb_peer *p = cb_exchange_peer(x);
    s->requests++;
    s->early += cb_exchange_is_early(x);
    snprintf(s->name, sizeof s->name, "%s", p ? cb_peer_spiffe_id(p) : "nobody");
    cb_peer_unref(s->peer);
    s->peer = p ? cb_peer_ref((cb_peer *)(uintptr_t)p) : NULL;
    return cb_exchange_send_text(x, 200, "ok\n");
}

static const cb_exchange_ops note_ops = {.size = sizeof note_ops, .on_head = note};

/* A client with a SPIFFE ID. */
static cb_identity *spiffe_client(tls_pki *pki, const char *id, const char *stem) {
    char cert[160], key[160], file[64];
    const char *uris[] = {id};
    cb_identity *out = NULL;
    int rc = cb_ca_issue(pki->ca,
                         CB_OPTS(cb_leaf_opts, .uris = uris, .uris_len = 1, .profile = CB_CERT_SVID, .file_stem = stem),
                         NULL, NULL);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    snprintf(file, sizeof file, "%s.pem", stem);
    tls_pki_path(pki, file, cert);
    snprintf(file, sizeof file, "%s-key.pem", stem);
    rc = cb_identity_new(&out, CB_OPTS(cb_identity_opts, .cert_file = cert, .key_file = tls_pki_path(pki, file, key),
                                       .ca_file = pki->ca_file));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    return out;
}

static int server_subject(cb_exchange *x, void *user) {
    const cb_peer *p = cb_exchange_peer(x);
    snprintf(user, 256, "%s", p ? cb_peer_name(p, CB_SAN_DNS, 0) : "nobody");
    return CB_OK;
}

static void mark(cb_exchange *x, int rc, void *user) {
    (void)x;
    (void)rc;
    strcat(user, "!");
}

static const cb_exchange_ops subject_ops = {.size = sizeof subject_ops, .on_head = server_subject, .on_close = mark};

Test(mtls, both_sides_know_each_other) {
    for (int i = 0; i < HTTP_WAYS; i++) {
        const http_way *way = &http_ways[i];
        http_world w;
        seen s = {0};
        char name[300] = "", expected[160] = "";
        http_world_open(&w);
        cb_identity *me = spiffe_client(&w.pki, "spiffe://td.test/client", "client");
        http_serve(&w, (cb_http_server_opts){.identity = way->tls ? w.me : NULL,
                                             .versions = way->version,
                                             .request_client_cert = way->tls ? 2 : 0,
                                             .ops = &note_ops,
                                             .user = &s});
        http_client_make(&w, (cb_http_client_opts){.versions = way->version, .identity = me});
        cb_exchange *x = NULL;
        char url[160];
        const cb_request req = {.size = sizeof req, .url = http_url(&w, "/", url)};
        cr_assert_eq(cb_http_request(&x, w.client, &req, &subject_ops, name), CB_OK);
        for (int turn = 0; turn < 2000 && !strchr(name, '!'); turn++)
            cb_loop_step(w.loop);
        snprintf(expected, sizeof expected, "%s!", way->tls ? "localhost" : "nobody");
        cr_expect_str_eq(name, expected, "%s: %s %s", way->name, name, w.log);
        cr_expect_str_eq(s.name, way->tls ? "spiffe://td.test/client" : "nobody", "%s", way->name);
        http_world_close(&w);
        if (s.peer) cr_expect_str_eq(cb_peer_spiffe_id(s.peer), "spiffe://td.test/client"); /* it outlives all */
        cb_peer_unref(s.peer);
        cb_identity_unref(me);
    }
}

Test(mtls, a_client_that_shows_nothing_is_nobody) {
    for (int i = 2; i < HTTP_WAYS; i++) {
        http_world w;
        seen s = {0};
        http_reply r = {0};
        http_world_open(&w);
        http_serve(&w, (cb_http_server_opts){.identity = w.me,
                                             .versions = http_ways[i].version,
                                             .request_client_cert = 1,
                                             .ops = &note_ops,
                                             .user = &s});
        http_client_make(&w, (cb_http_client_opts){.versions = http_ways[i].version});
        http_fetch(&r, &w, (cb_request){0}, "/");
        cr_expect_eq(r.status, 200, "%s: %s", http_ways[i].name, r.detail);
        cr_expect_str_eq(s.name, "nobody");
        http_world_close(&w);
    }
}

/* By ticket alone, and with early data. */
static void resume(const http_way *way, bool early) {
    http_world w;
    seen s = {0};
    cb_sessions *store = NULL;
    cb_http_client_stats st = {.size = sizeof st};
    http_world_open(&w);
    cb_identity *me = spiffe_client(&w.pki, "spiffe://td.test/client", "client");
    cr_assert_eq(cb_sessions_new(&store, NULL), CB_OK);
    http_serve(&w, (cb_http_server_opts){.identity = w.me,
                                         .versions = way->version,
                                         .request_client_cert = 2,
                                         .early_data = 2,
                                         .ops = &note_ops,
                                         .user = &s});
    for (int round = 0; round < 2; round++) {
        http_reply r = {0};
        http_client_make(&w, (cb_http_client_opts){
                                 .versions = way->version, .identity = me, .sessions = store, .early_data = early});
        http_fetch(&r, &w, (cb_request){0}, "/");
        cr_expect_eq(r.status, 200, "%s: %s", way->name, r.detail);
        cr_expect_str_eq(s.name, "spiffe://td.test/client", "%s, round %d", way->name, round);
        cb_http_client_stats_get(w.client, &st);
        if (!early) cr_expect_eq(st.resumed, (uint64_t)round, "%s", way->name);
        cb_http_client_free(w.client);
        w.client = NULL;
    }
    cr_expect_eq(s.early, early, "%s: early %d", way->name, s.early);
    cb_sessions_unref(store);
    cb_peer_unref(s.peer);
    cb_identity_unref(me);
    http_world_close(&w);
}

Test(mtls, a_resumed_session_has_the_identity) {
    for (int i = 2; i < HTTP_WAYS; i++)
        resume(&http_ways[i], false);
    resume(&http_ways[HTTP_WAYS - 1], true);
}

/* A connection that was opened for a host without a rule is no way to one that has one, nor the other way round. */
Test(mtls, an_authority_with_another_rule_is_misdirected) {
    static const struct {
        const char *sni, *host;
        int status;
    } rows[] = {
        {"b.test", "a.test", 421},    {"b.test", "A.Test", 421},    {"b.test", "b.test", 200},
        {"b.test", "localhost", 200}, {"b.test", "127.0.0.1", 200}, {"127.0.0.1", "a.test", 421},
        {"a.test", "a.test", 200},    {"a.test", "b.test", 421},    {"b.test", "a.test.", 421},
        {"a.test", "a.test.", 200},
    };
    for (int i = 2; i < HTTP_WAYS; i++) {
        http_world w;
        seen s = {0};
        char url[160], at[CB_ADDR_TEXT];
        http_world_open(&w);
        cb_identity *me = spiffe_client(&w.pki, "spiffe://td.test/client", "client");
        int rc = cb_identity_trust(
            w.me, CB_OPTS(cb_trust_opts, .host = "a.test", .ca_file = w.pki.ca_file, .clients = CB_CLIENTS_REQUIRE));
        cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
        http_serve(&w, (cb_http_server_opts){
                           .identity = w.me, .versions = http_ways[i].version, .ops = &note_ops, .user = &s});
        snprintf(at, sizeof at, "%s", cb_http_server_address(w.server));
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            http_reply r = {0};
            http_client_make(&w, (cb_http_client_opts){
                                     .versions = http_ways[i].version, .server_name = rows[k].sni, .identity = me});
            snprintf(url, sizeof url, "https://%s:%s/", rows[k].host, strrchr(at, ':') + 1);
            http_fetch(&r, &w, (cb_request){.connect_to = at}, url);
            cr_expect_eq(r.status, rows[k].status, "%s row %zu: %d %s", http_ways[i].name, k, r.status, r.detail);
            cb_http_client_free(w.client);
            w.client = NULL;
        }
        cb_peer_unref(s.peer);
        cb_identity_unref(me);
        http_world_close(&w);
    }
}

/* A list that comes while the connection is open, and a rule that asks for more. */
Test(mtls, what_is_revoked_ends_open_connections) {
    for (int i = 2; i < HTTP_WAYS; i++)
        for (int how = 0; how < 3; how++) {
            http_world w;
            seen s = {0};
            http_reply r[3] = {{0}};
            char crl[160];
            http_world_open(&w);
            cb_identity *me = spiffe_client(&w.pki, "spiffe://td.test/client", "client");
            cr_assert_eq(cb_ca_crl(w.pki.ca, 0, NULL), CB_OK);
            cb_trust_opts rule = {.size = sizeof rule,
                                  .ca_file = w.pki.ca_file,
                                  .crl_file = tls_pki_path(&w.pki, "ca.crl", crl),
                                  .clients = how == 2 ? CB_CLIENTS_ASK : CB_CLIENTS_REQUIRE};
            cr_assert_eq(cb_identity_trust(w.me, &rule), CB_OK, "%s", cb_last_error());
            http_serve(&w, (cb_http_server_opts){
                               .identity = w.me, .versions = http_ways[i].version, .ops = &note_ops, .user = &s});
            http_client_make(&w,
                             (cb_http_client_opts){.versions = http_ways[i].version, .identity = how == 2 ? NULL : me});
            http_fetch(&r[0], &w, (cb_request){0}, "/");
            cr_expect_eq(r[0].status, 200, "%s: %s", http_ways[i].name, r[0].detail);
            if (how == 0) cr_assert_eq(cb_ca_revoke(w.pki.ca, cb_peer_serial(s.peer), 0), CB_OK, "%s", cb_last_error());
            if (how == 2) {
                rule.clients = CB_CLIENTS_REQUIRE;
                cr_assert_eq(cb_identity_trust(w.me, &rule), CB_OK, "%s", cb_last_error());
            } else {
                cr_assert_eq(cb_ca_crl(w.pki.ca, 0, NULL), CB_OK);
                cr_assert_eq(cb_identity_refresh(w.me), 1, "%s", cb_last_error());
            }
            http_fetch(&r[1], &w, (cb_request){0}, "/");
            cr_expect_eq(r[1].status, how == 1 ? 200 : 421, "%s, %d: %d %s", http_ways[i].name, how, r[1].status,
                         r[1].detail);
            EXPECT_MOVED(w.metrics, how != 1, "cb_http_server_misdirected_requests", "certificate");
            http_fetch(&r[2], &w, (cb_request){0}, "/");
            cr_expect_eq(r[2].status, how == 1 ? 200 : 0, "%s, %d: another connection: %d", http_ways[i].name, how,
                         r[2].status);
            cb_http_client_stats st = {.size = sizeof st};
            cb_http_client_stats_get(w.client, &st);
            if (how == 1) cr_expect_eq(st.opened_h1 + st.opened_h2 + st.opened_h3, 1, "it did not stay open");
            cb_peer_unref(s.peer);
            cb_identity_unref(me);
            http_world_close(&w);
        }
}
