/* Whom a side lets in: rules by host, revocation lists, names, pins, stapled answers; and what of it resumes. */
#include "base/mem.h"
#include "support/moved.h"
#include "support/scratch.h"
#include "support/tls_fixture.h"
#include "transport/peer.h"
#include "transport/tls_cert.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef struct world {
    tls_pki pki;
    cb_metrics *m;
    cb_loop *loop;
    cb_identity *server_id, *roots;
    cb_tls_opts server, client;
} world;

static void begin(world *w) {
    memset(w, 0, sizeof *w);
    tls_pki_make(&w->pki);
    w->server_id = tls_pki_identity(&w->pki, "localhost,a.test,b.test,*.c.test");
    w->roots = tls_pki_client(&w->pki);
    cr_assert_eq(cb_metrics_new(&w->m, NULL), CB_OK);
    cr_assert_eq(cb_loop_new(&w->loop, CB_OPTS(cb_loop_opts, .metrics = w->m)), CB_OK);
    w->server = (cb_tls_opts){.server = true, .identity = w->server_id, .alpn = "h2", .loop = w->loop};
    w->client = (cb_tls_opts){.identity = w->roots, .alpn = "h2", .server_name = "localhost", .loop = w->loop};
}

static void end(world *w) {
    cb_loop_free(w->loop);
    cb_metrics_unref(w->m);
    cb_identity_unref(w->server_id);
    cb_identity_unref(w->roots);
    tls_pki_drop(&w->pki);
}

/* A client's certificate of pki, named by a SPIFFE ID, that trusts `ca_file`. */
static cb_identity *somebody(tls_pki *pki, const char *stem, const char *ca_file, uint32_t lifetime_s) {
    char id[128], cert[160], key[160], file[64];
    const char *uris[] = {id};
    cb_identity *out = NULL;
    snprintf(id, sizeof id, "spiffe://td.test/%s", stem);
    int rc = cb_ca_issue(pki->ca,
                         CB_OPTS(cb_leaf_opts, .uris = uris, .uris_len = 1, .profile = CB_CERT_SVID, .file_stem = stem,
                                 .lifetime_s = lifetime_s),
                         NULL, NULL);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    snprintf(file, sizeof file, "%s.pem", stem);
    tls_pki_path(pki, file, cert);
    snprintf(file, sizeof file, "%s-key.pem", stem);
    rc = cb_identity_new(&out, CB_OPTS(cb_identity_opts, .cert_file = cert, .key_file = tls_pki_path(pki, file, key),
                                       .ca_file = ca_file));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    return out;
}

/* The first certificate of a file. */
static cb_peer *of_file(tls_pki *pki, const char *file) {
    char path[160];
    gnutls_datum_t pem, der;
    cb_peer *p = NULL;
    cr_assert_eq(cb_tls_file_read(tls_pki_path(pki, file, path), &pem, NULL), CB_OK, "%s", cb_last_error());
    cr_assert_geq(gnutls_pem_base64_decode2("CERTIFICATE", &pem, &der), 0);
    cr_assert_eq(cb_peer_read(&p, &(cb_slice){der.data, der.size}, 1), CB_OK, "%s", cb_last_error());
    gnutls_free(pem.data);
    gnutls_free(der.data);
    return p;
}

static void pin_of(tls_pki *pki, const char *file, char out[64]) {
    cb_peer *p = of_file(pki, file);
    gnutls_datum_t key = {(unsigned char *)(uintptr_t)cb_peer_key_sha256(p), 32}, text;
    cr_assert_geq(gnutls_base64_encode2(&key, &text), 0);
    snprintf(out, 64, "%.*s", (int)text.size, text.data);
    gnutls_free(text.data);
    cb_peer_unref(p);
}

static void take_back(tls_pki *pki, const char *file) {
    cb_peer *p = of_file(pki, file);
    cr_assert_eq(cb_ca_revoke(pki->ca, cb_peer_serial(p), CB_REVOKE_KEY_COMPROMISE), CB_OK, "%s", cb_last_error());
    cb_peer_unref(p);
}

static const char *list_of(tls_pki *pki, uint32_t next_update_s) {
    static char path[160];
    cr_assert_eq(cb_ca_crl(pki->ca, next_update_s, NULL), CB_OK, "%s", cb_last_error());
    return tls_pki_path(pki, "ca.crl", path);
}

/* A conversation from start to end. */
typedef struct outcome {
    int client, server;
    bool shown, resumed, client_resumed;
    char error[256], client_error[256];
} outcome;

static outcome talk(const cb_tls_opts *server, const cb_tls_opts *client) {
    tls_end c, s;
    outcome o = {0};
    tls_end_make(&c, client);
    tls_end_make(&s, server);
    tls_talk(&c, &s, 0);
    o.client = c.rc;
    o.server = s.rc;
    o.client_resumed = cb_tls_session_resumed(c.tls);
    if (s.rc == CB_OK) o.shown = cb_tls_session_peer(s.tls) != NULL;
    if (s.rc == CB_OK) o.resumed = cb_tls_session_resumed(s.tls);
    snprintf(o.error, sizeof o.error, "%s", s.error);
    snprintf(o.client_error, sizeof o.client_error, "%s", c.error);
    tls_end_drop(&c);
    tls_end_drop(&s);
    return o;
}

static void trust(cb_identity *id, cb_trust_opts o) {
    o.size = sizeof o;
    cr_assert_eq(cb_identity_trust(id, &o), CB_OK, "%s", cb_last_error());
}

Test(trust, each_host_has_its_rule) {
    world w;
    tls_pki other;
    begin(&w);
    tls_pki_make(&other);
    cb_identity *ours = somebody(&w.pki, "ours", w.pki.ca_file, 0);
    cb_identity *theirs = somebody(&other, "theirs", w.pki.ca_file, 0);
    trust(w.server_id, (cb_trust_opts){.host = "A.test.", .ca_file = other.ca_file, .clients = CB_CLIENTS_REQUIRE});
    trust(w.server_id, (cb_trust_opts){.host = "b.test", .clients = CB_CLIENTS_NONE});
    trust(w.server_id, (cb_trust_opts){.host = "*.c.test", .ca_file = w.pki.ca_file, .clients = CB_CLIENTS_ASK});
    const struct {
        const char *name;
        cb_identity *client;
        bool asked; /* by the owner of the server, for all other hosts */
        int rc;
        bool shown;
    } rows[] = {
        {"a.test", theirs, false, CB_OK, true},      {"a.test", ours, false, CB_EAUTH, false},
        {"a.test", w.roots, false, CB_EAUTH, false}, {"b.test", theirs, true, CB_OK, false},
        {"b.test", w.roots, true, CB_OK, false},     {"x.c.test", ours, false, CB_OK, true},
        {"x.c.test", w.roots, false, CB_OK, false},  {"x.c.test", theirs, false, CB_EAUTH, false},
        {"localhost", ours, true, CB_OK, true},      {"localhost", theirs, true, CB_EAUTH, false},
        {"localhost", theirs, false, CB_OK, false},
    };
    for (int tls12 = 0; tls12 < 2; tls12++) {
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            cb_tls_opts s = w.server, c = w.client;
            s.tls12 = tls12;
            s.request_client_cert = rows[i].asked;
            c.identity = rows[i].client;
            c.server_name = rows[i].name;
            outcome o = talk(&s, &c);
            cr_expect_eq(o.server, rows[i].rc, "row %zu: %s", i, o.error);
            cr_expect_eq(o.shown, rows[i].shown, "row %zu", i);
        }
    }
    cb_identity_unref(ours);
    cb_identity_unref(theirs);
    tls_pki_drop(&other);
    end(&w);
}

/* As DER, with a bit of its signature turned over. */
static void spoil(tls_pki *pki, const char *file) {
    char path[160];
    gnutls_datum_t pem, der;
    cr_assert_eq(cb_tls_file_read(tls_pki_path(pki, file, path), &pem, NULL), CB_OK);
    cr_assert_geq(gnutls_pem_base64_decode2("X509 CRL", &pem, &der), 0);
    der.data[der.size - 1] ^= 1;
    FILE *f = fopen(path, "w");
    cr_assert_eq(fwrite(der.data, 1, der.size, f), der.size);
    fclose(f);
    gnutls_free(pem.data);
    gnutls_free(der.data);
}

Test(trust, revocation_lists) {
    world w;
    begin(&w);
    cb_identity *good = somebody(&w.pki, "good", w.pki.ca_file, 0), *bad = somebody(&w.pki, "bad", w.pki.ca_file, 0);
    cb_trust_opts rule = {.ca_file = w.pki.ca_file, .crl_file = list_of(&w.pki, 0), .clients = CB_CLIENTS_REQUIRE};
    trust(w.server_id, rule);
    cb_tls_opts c = w.client;
    c.identity = bad;
    cr_expect_eq(talk(&w.server, &c).server, CB_OK, "nobody is revoked yet");
    cr_expect_eq(cb_identity_refresh(w.server_id), 0, "nothing has changed");
    take_back(&w.pki, "bad.pem");
    list_of(&w.pki, 0);
    cr_expect_eq(cb_identity_refresh(w.server_id), 1, "the list has changed: %s", cb_last_error());
    outcome o = talk(&w.server, &c);
    cr_expect_eq(o.server, CB_EAUTH);
    cr_expect(strstr(o.error, "spiffe://td.test/bad") && strstr(o.error, "was revoked on"), "%s", o.error);
    cr_expect(strstr(o.client_error, "revoked"), "%s", o.client_error);
    c.identity = good;
    o = talk(&w.server, &c);
    cr_expect_eq(o.server, CB_OK, "%s", o.error);

    list_of(&w.pki, 1); /* due in a second */
    cr_expect_eq(cb_identity_refresh(w.server_id), 1);
    for (time_t due = time(NULL) + 1; time(NULL) <= due;)
        usleep(20000);
    o = talk(&w.server, &c);
    cr_expect_eq(o.server, CB_EAUTH, "a list that is too old");
    cr_expect(strstr(o.error, "a new revocation list was due on"), "%s", o.error);
    rule.stale_crl = 1;
    trust(w.server_id, rule);
    o = talk(&w.server, &c);
    cr_expect_eq(o.server, CB_OK, "%s", o.error);
    c.identity = bad;
    cr_expect_eq(talk(&w.server, &c).server, CB_EAUTH, "revoked by an old list");
    EXPECT_MOVED(w.m, 2, "cb_tls_peer_certificates", "server", "revoked");
    EXPECT_MOVED(w.m, 1, "cb_tls_peer_certificates", "server", "revocation_unknown");
    spoil(&w.pki, "ca.crl");
    cr_expect_eq(cb_identity_refresh(w.server_id), CB_EINVAL, "an old list with a wrong signature");
    list_of(&w.pki, 0);
    spoil(&w.pki, "ca.crl");
    cr_expect_eq(cb_identity_refresh(w.server_id), CB_EINVAL, "a list with a wrong signature");
    cr_expect_eq(talk(&w.server, &c).server, CB_EAUTH, "the old list serves on");
    cb_identity_unref(good);
    cb_identity_unref(bad);
    end(&w);
}

static void make_below(tls_pki *p, tls_pki *parent) {
    memset(p, 0, sizeof *p);
    scratch_folder(p->dir, sizeof p->dir, "pki");
    snprintf(p->ca_file, sizeof p->ca_file, "%s/ca.pem", p->dir);
    int rc = cb_ca_open(&p->ca, CB_OPTS(cb_ca_opts, .dir = p->dir, .parent = parent->ca, .common_name = "Below"));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
}

static void join(const char *out, const char *const *files, size_t n) {
    FILE *to = fopen(out, "w");
    for (size_t i = 0; i < n; i++) {
        gnutls_datum_t text;
        cr_assert_eq(cb_tls_file_read(files[i], &text, NULL), CB_OK, "%s", cb_last_error());
        cr_assert_eq(fwrite(text.data, 1, text.size, to), text.size);
        gnutls_free(text.data);
    }
    fclose(to);
}

/* Below an intermediate: its list is needed, and its own place in the list of the root counts. */
Test(trust, revocation_along_the_chain) {
    world w;
    tls_pki root, below;
    char both[160], lists[160], root_list[160];
    begin(&w);
    tls_pki_make_of(&root, 0);
    tls_pki_drop(&root);
    scratch_folder(root.dir, sizeof root.dir, "pki");
    snprintf(root.ca_file, sizeof root.ca_file, "%s/ca.pem", root.dir);
    cr_assert_eq(cb_ca_open(&root.ca, CB_OPTS(cb_ca_opts, .dir = root.dir, .path_len = 1)), CB_OK, "%s",
                 cb_last_error());
    make_below(&below, &root);
    cb_identity *me = somebody(&below, "me", w.pki.ca_file, 0);
    tls_pki_path(&root, "both.pem", both);
    tls_pki_path(&root, "lists.pem", lists);
    snprintf(root_list, sizeof root_list, "%s", list_of(&root, 0));
    join(both, (const char *const[]){root.ca_file, below.ca_file}, 2);
    join(lists, (const char *const[]){root_list, list_of(&below, 0)}, 2);
    cb_tls_opts c = w.client;
    c.identity = me;
    const cb_trust_opts only_root = {.ca_file = root.ca_file, .crl_file = root_list, .clients = CB_CLIENTS_REQUIRE};
    const cb_trust_opts all = {.ca_file = both, .crl_file = lists, .clients = CB_CLIENTS_REQUIRE};

    trust(w.server_id, only_root);
    outcome o = talk(&w.server, &c);
    cr_expect_eq(o.server, CB_EAUTH);
    cr_expect(strstr(o.error, "has no revocation list of its issuer (CN=Below"), "%s", o.error);
    trust(w.server_id, all);
    o = talk(&w.server, &c);
    cr_expect_eq(o.server, CB_OK, "%s", o.error);

    cb_trust_opts strange = all;
    strange.size = sizeof strange;
    strange.ca_file = root.ca_file; /* nobody there has signed the list of the intermediate */
    cr_expect_eq(cb_identity_trust(w.server_id, &strange), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "has signed the list of CN=Below"), "%s", cb_last_error());
    cr_expect_eq(talk(&w.server, &c).server, CB_OK, "a refused rule has changed something");

    cb_peer *p = of_file(&below, "ca.pem");
    cr_assert_eq(cb_ca_revoke(root.ca, cb_peer_serial(p), 0), CB_OK, "%s", cb_last_error());
    cb_peer_unref(p);
    list_of(&root, 0);
    join(lists, (const char *const[]){root_list, list_of(&below, 0)}, 2);
    cr_expect_eq(cb_identity_refresh(w.server_id), 1, "%s", cb_last_error());
    o = talk(&w.server, &c);
    cr_expect_eq(o.server, CB_EAUTH, "its authority was revoked");
    cb_identity_unref(me);
    tls_pki_drop(&below);
    tls_pki_drop(&root);
    end(&w);
}

Test(trust, names) {
    static const struct {
        const char *names[2];
        int rc;
    } rows[] = {
        {{"spiffe://td.test/me"}, CB_OK},
        {{"spiffe://td.test/"}, CB_OK},
        {{"spiffe://td.test/other"}, CB_EAUTH},
        {{"x.test", "spiffe://td.test/me"}, CB_OK},
        {{"td.test"}, CB_EAUTH},
    };
    world w;
    begin(&w);
    cb_identity *me = somebody(&w.pki, "me", w.pki.ca_file, 0);
    cb_tls_opts c = w.client;
    c.identity = me;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        trust(w.server_id, (cb_trust_opts){.ca_file = w.pki.ca_file,
                                           .clients = CB_CLIENTS_REQUIRE,
                                           .names = rows[i].names,
                                           .names_len = rows[i].names[1] ? 2 : 1});
        outcome o = talk(&w.server, &c);
        cr_expect_eq(o.server, rows[i].rc, "row %zu: %s", i, o.error);
    }
    /* The other way: a server that has no name but its SPIFFE ID. */
    cb_tls_opts s = {.server = true, .identity = me, .alpn = "h2"};
    cr_expect_eq(talk(&s, &w.client).client, CB_EAUTH, "it is not localhost");
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "spiffe://td.test/other" : "spiffe://td.test/me";
        trust(w.roots, (cb_trust_opts){.ca_file = w.pki.ca_file, .names = &name, .names_len = 1});
        outcome o = talk(&s, &w.client);
        cr_expect_eq(o.client, i ? CB_EAUTH : CB_OK, "%s", o.client_error);
    }
    cb_identity_unref(me);
    end(&w);
}

static void count(int level, const char *module, const char *text, void *user) {
    (void)module;
    if (level == CB_LOG_WARN && strstr(text, "no pin fits")) ++*(int *)user;
}

Test(trust, pins) {
    static const char nobody[] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    char leaf[64], ca[64], prefixed[80];
    int reports = 0;
    const cb_log log = {.write = count, .user = &reports, .level = CB_LOG_INFO};
    world w;
    begin(&w);
    cb_identity *me = somebody(&w.pki, "me", w.pki.ca_file, 0);
    pin_of(&w.pki, "me.pem", leaf);
    pin_of(&w.pki, "ca.pem", ca);
    snprintf(prefixed, sizeof prefixed, "sha256/%s", ca);
    cb_tls_opts c = w.client;
    c.identity = me;
    const struct {
        const char *pins[2];
        bool report, single;
        int made, rc;
    } rows[] = {
        {{leaf, nobody}, false, false, CB_OK, CB_OK},
        {{nobody, prefixed}, false, false, CB_OK, CB_OK}, /* the root, which is not sent */
        {{nobody, "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}, false, false, CB_OK, CB_EAUTH},
        {{nobody, "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}, true, false, CB_OK, CB_OK},
        {{leaf}, false, true, CB_OK, CB_OK},
        {{leaf}, false, false, CB_EINVAL, 0},
        {{leaf, leaf}, false, false, CB_EINVAL, 0},
        {{leaf, "short"}, false, false, CB_EINVAL, 0},
        {{leaf, "AAAA"}, false, false, CB_EINVAL, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const cb_trust_opts o = {.size = sizeof o,
                                 .ca_file = w.pki.ca_file,
                                 .clients = CB_CLIENTS_REQUIRE,
                                 .pins = rows[i].pins,
                                 .pins_len = rows[i].pins[1] ? 2 : 1,
                                 .log = &log,
                                 .pins_report = rows[i].report,
                                 .single_pin = rows[i].single};
        cr_expect_eq(cb_identity_trust(w.server_id, &o), rows[i].made, "row %zu: %s", i, cb_last_error());
        if (rows[i].made < 0) continue;
        outcome got = talk(&w.server, &c);
        cr_expect_eq(got.server, rows[i].rc, "row %zu: %s", i, got.error);
    }
    cr_expect_eq(reports, 1);
    cb_identity_unref(me);
    end(&w);
}

Test(trust, a_client_pins_its_server) {
    char leaf[64];
    world w;
    begin(&w);
    pin_of(&w.pki, "leaf.pem", leaf);
    const char *right[] = {leaf}, *wrong[] = {"BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="};
    trust(w.roots, (cb_trust_opts){.ca_file = w.pki.ca_file, .pins = right, .pins_len = 1, .single_pin = 1});
    cr_expect_eq(talk(&w.server, &w.client).client, CB_OK);
    trust(w.roots, (cb_trust_opts){.ca_file = w.pki.ca_file, .pins = wrong, .pins_len = 1, .single_pin = 1});
    outcome o = talk(&w.server, &w.client);
    cr_expect_eq(o.client, CB_EAUTH);
    cr_expect(strstr(o.client_error, "no pin fits"), "%s", o.client_error);
    end(&w);
}

/* What a ticket is worth: not on another host, not under another rule or list, not when the certificate has expired. */
Test(trust, a_session_is_resumed_under_its_own_rule_only) {
    world w;
    cb_session_cache *cache = NULL;
    begin(&w);
    cb_identity *me = somebody(&w.pki, "me", w.pki.ca_file, 0), *brief = NULL;
    cr_assert_eq(cb_session_cache_new(&cache, &cb_alloc_libc, 64, NULL), CB_OK);
    cr_assert_eq(cb_tickets_new(&w.server.tickets, NULL), CB_OK);
    trust(w.server_id, (cb_trust_opts){.host = "a.test",
                                       .ca_file = w.pki.ca_file,
                                       .crl_file = list_of(&w.pki, 0),
                                       .clients = CB_CLIENTS_REQUIRE});
    cb_tls_opts c = w.client, b = w.client;
    c.identity = me;
    c.server_name = "a.test";
    c.cache = b.cache = cache;
    c.cache_key = "one";
    b.server_name = "a.test";
    b.cache_key = "two";
    cr_expect_not(talk(&w.server, &c).resumed);
    outcome o = talk(&w.server, &c);
    cr_expect(o.resumed && o.shown, "%s", o.error);
    cr_expect_eq(cb_identity_reload(w.server_id), CB_OK);
    cr_expect(talk(&w.server, &c).resumed, "a reload of the same files");
    list_of(&w.pki, 0); /* another number: another list */
    cr_expect_eq(cb_identity_refresh(w.server_id), 1);
    cr_expect_not(talk(&w.server, &c).resumed, "another list");
    cr_expect(talk(&w.server, &c).resumed);
    const char *name = "spiffe://td.test/";
    trust(
        w.server_id,
        (cb_trust_opts){
            .host = "a.test", .ca_file = w.pki.ca_file, .clients = CB_CLIENTS_REQUIRE, .names = &name, .names_len = 1});
    o = talk(&w.server, &c);
    cr_expect(!o.resumed && o.server == CB_OK, "another rule: %s", o.error);

    time_t expired = 0;
    for (uint32_t life = 2; life <= 32; life *= 4) { /* longer, if the machine is too slow for the first */
        cb_identity_unref(brief);
        brief = b.identity = somebody(&w.pki, "brief", w.pki.ca_file, life);
        expired = time(NULL) + life + 1;
        o = talk(&w.server, &b);
        if (o.server == CB_OK) break;
    }
    cr_expect(!o.resumed && o.server == CB_OK, "%s", o.error);
    while (time(NULL) <= expired)
        usleep(20000);
    o = talk(&w.server, &b);
    cr_expect_eq(o.server, CB_EAUTH, "resumed with a certificate that has expired");
    cr_expect(o.client_resumed, "it was not resumed at all");
    cr_expect(strstr(o.error, "expired on"), "%s", o.error);
    cb_tickets_unref(w.server.tickets);
    cb_session_cache_free(cache);
    cb_identity_unref(me);
    cb_identity_unref(brief);
    end(&w);
}

/* A ticket of a host where nobody is asked, brought to one where somebody is. The client is told that it is the same.
 */
Test(trust, no_resumption_across_hosts) {
    world w;
    begin(&w);
    cr_assert_eq(cb_tickets_new(&w.server.tickets, NULL), CB_OK);
    trust(w.server_id, (cb_trust_opts){.host = "a.test", .ca_file = w.pki.ca_file, .clients = CB_CLIENTS_REQUIRE});
    gnutls_datum_t ticket = {NULL, 0};
    for (int round = 0; round < 2; round++) {
        tls_end c, s;
        cb_tls_opts co = w.client;
        co.server_name = round ? "a.test" : "b.test";
        co.cache = NULL;
        cb_session_cache *cache = NULL;
        cr_assert_eq(cb_session_cache_new(&cache, &cb_alloc_libc, 4, NULL), CB_OK);
        co.cache = cache;
        tls_end_make(&s, &w.server);
        tls_end_prepare(&c, &co);
        if (round) cr_assert_eq(gnutls_session_set_data(cb_tls_session_handle(c.tls), ticket.data, ticket.size), 0);
        tls_end_start(&c);
        tls_talk(&c, &s, 0);
        if (!round) {
            cr_assert_eq(s.rc, CB_OK, "%s", s.error);
            cr_assert_eq(gnutls_session_get_data2(cb_tls_session_handle(c.tls), &ticket), 0);
        } else {
            cr_expect_eq(s.rc, CB_EAUTH, "a ticket of another host opened: %s", s.error);
        }
        tls_end_drop(&c);
        tls_end_drop(&s);
        cb_session_cache_free(cache);
    }
    gnutls_free(ticket.data);
    cb_tickets_unref(w.server.tickets);
    end(&w);
}

static void staple_into(tls_pki *pki, const char *cert_file, const char *out, uint32_t valid_s, int64_t now_s) {
    cb_ocsp *r = NULL;
    cb_ocsp_answer answer = {.size = sizeof answer};
    char path[160];
    gnutls_datum_t pem;
    cr_assert_eq(cb_tls_file_read(tls_pki_path(pki, cert_file, path), &pem, NULL), CB_OK);
    int rc = cb_ocsp_new(&r, CB_OPTS(cb_ocsp_opts, .dir = pki->dir, .valid_s = valid_s));
    if (rc == CB_OK) rc = cb_ocsp_staple(r, (cb_slice){pem.data, pem.size}, now_s, &answer);
    gnutls_free(pem.data);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    char fresh[200]; /* renamed, as it should be: the clock of a file system may be too coarse to show a change */
    snprintf(fresh, sizeof fresh, "%s.new", tls_pki_path(pki, out, path));
    FILE *f = fopen(fresh, "w");
    cr_assert_eq(fwrite(answer.der.base, 1, answer.der.len, f), answer.der.len);
    fclose(f);
    cr_assert_eq(rename(fresh, path), 0);
    cb_ocsp_free(r);
}

static void note(int level, const char *text, void *user) {
    size_t used = strlen(user);
    snprintf((char *)user + used, 2000 - used, "%d %s\n", level, text);
}

Test(trust, stapled_answers) {
    world w;
    char cert[160], key[160], answer[160], other[160], notes[2000] = "";
    const char *names[] = {"localhost"};
    begin(&w);
    tls_pki_leaf(&w.pki, "other.test", 0, "other", 0, 0);
    int rc = cb_ca_issue(w.pki.ca,
                         CB_OPTS(cb_leaf_opts, .names = names, .names_len = 1, .file_stem = "must", .must_staple = 1,
                                 .profile = CB_CERT_SERVER),
                         NULL, NULL);
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    tls_pki_path(&w.pki, "must.pem", cert);
    tls_pki_path(&w.pki, "must-key.pem", key);
    tls_pki_path(&w.pki, "must.ocsp", answer);
    tls_pki_path(&w.pki, "other.ocsp", other);
    const int64_t now = (int64_t)time(NULL);
    staple_into(&w.pki, "other.pem", "other.ocsp", 0, now);
    cb_identity *id = NULL;
    cb_identity_opts o = {.size = sizeof o, .cert_file = cert, .key_file = key};
    cb_tls_opts s = w.server;

    cr_assert_eq(cb_identity_new(&id, &o), CB_OK);
    s.identity = id;
    outcome got = talk(&s, &w.client);
    cr_expect_eq(got.client, CB_EAUTH, "must-staple, and nothing is stapled");
    cr_expect(strstr(got.client_error, "must-staple"), "%s", got.client_error);
    cb_identity_examine(id, now, 0, note, notes);
    cr_expect(strstr(notes, "4 ") && strstr(notes, "must staple"), "%s", notes);
    cb_identity_unref(id);
    id = NULL;

    o.ocsp_file = other;
    cr_expect_eq(cb_identity_new(&id, &o), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "issuer's certificate is neither"), "%s", cb_last_error());
    o.issuer_file = w.pki.ca_file;
    cr_expect_eq(cb_identity_new(&id, &o), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "about another certificate"), "%s", cb_last_error());
    o.ocsp_file = cert;
    cr_expect_eq(cb_identity_new(&id, &o), CB_EINVAL);
    o.ocsp_file = answer;
    staple_into(&w.pki, "must.pem", "must.ocsp", 60, now - 120); /* too old: read, and not sent */
    cr_assert_eq(cb_identity_new(&id, &o), CB_OK, "%s", cb_last_error());
    s.identity = id;
    cr_expect_eq(talk(&s, &w.client).client, CB_EAUTH, "an answer that is too old was sent");
    staple_into(&w.pki, "must.pem", "must.ocsp", 0, now);
    cr_expect_eq(cb_identity_refresh(id), 1, "%s", cb_last_error());
    EXPECT_MOVED(w.m, 0, "cb_tls_stapled_answers");
    got = talk(&s, &w.client);
    cr_expect_eq(got.client, CB_OK, "%s", got.client_error);
    EXPECT_MOVED(w.m, 1, "cb_tls_stapled_answers");
    EXPECT_MOVED(w.m, 2, "cb_tls_peer_certificates", "client", "staple");

    /* Revoked: the server does not send that it is not good. */
    take_back(&w.pki, "must.pem");
    staple_into(&w.pki, "must.pem", "must.ocsp", 0, now);
    cr_expect_eq(cb_identity_refresh(id), 1, "%s", cb_last_error());
    cr_expect_eq(talk(&s, &w.client).client, CB_EAUTH);
    notes[0] = '\0';
    cb_identity_examine(id, now, 0, note, notes);
    cr_expect(strstr(notes, "is not good by this OCSP answer"), "%s", notes);
    cb_identity_unref(id);

    /* A client may insist on it where the certificate does not. */
    trust(w.roots, (cb_trust_opts){.ca_file = w.pki.ca_file, .require_staple = 1});
    got = talk(&w.server, &w.client);
    cr_expect_eq(got.client, CB_EAUTH);
    cr_expect(strstr(got.client_error, "stapled no good OCSP answer"), "%s", got.client_error);
    end(&w);
}

Test(trust, what_will_stop_to_work_is_told) {
    world w;
    char notes[2000] = "";
    begin(&w);
    const int64_t now = (int64_t)time(NULL);
    trust(w.server_id, (cb_trust_opts){.ca_file = w.pki.ca_file, .crl_file = list_of(&w.pki, 3600), .clients = 2});
    cb_identity_examine(w.server_id, now, 86400, note, notes);
    cr_expect_str_eq(notes, "", "what has just been made: %s", notes);
    cb_identity_examine(w.server_id, now + 3000, 60, note, notes);
    cr_expect_str_eq(notes, "");
    cb_identity_examine(w.server_id, now + 3000, 86400, note, notes);
    cr_expect(strstr(notes, "3 ") && !strstr(notes, "leaf.pem"), "%s", notes);
    cb_identity_examine(w.server_id, now + 80000, 86400, note, notes);
    cr_expect(strstr(notes, "3 ") && strstr(notes, "leaf.pem: the certificate expires on"), "%s", notes);
    cr_expect(strstr(notes, "ca.crl: the revocation list of"), "%s", notes);
    notes[0] = '\0';
    cb_identity_examine(w.server_id, now + 4000 * INT64_C(86400), 0, note, notes);
    cr_expect(strstr(notes, "4 ") && strstr(notes, "expired on") && strstr(notes, "ca.pem: an authority"), "%s", notes);
    end(&w);
}

typedef struct seen {
    cb_identity_item at[8];
    char names[8][64];
    size_t n;
} seen;

static void see(const cb_identity_item *item, void *user) {
    seen *s = user;
    if (s->n == 8) return;
    snprintf(s->names[s->n], sizeof s->names[0], "%s", item->names_len ? item->names[0] : item->name);
    s->at[s->n++] = *item;
}

/* Leaf and authority in one file. */
static void chain_into(tls_pki *pki, const char *leaf, const char *out) {
    char from[160], to[160], command[600];
    snprintf(command, sizeof command, "cat %s %s > %s", tls_pki_path(pki, leaf, from), pki->ca_file,
             tls_pki_path(pki, out, to));
    cr_assert_eq(system(command), 0);
}

Test(trust, what_has_an_end_is_listed) {
    world w;
    seen s = {.n = 0};
    char cert[160], key[160], ocsp[160];
    const char *names[] = {"must.test", "also.test"};
    begin(&w);
    const int64_t now = (int64_t)time(NULL);
    cr_assert_eq(cb_ca_issue(w.pki.ca,
                             CB_OPTS(cb_leaf_opts, .names = names, .names_len = 2, .file_stem = "must",
                                     .must_staple = 1, .profile = CB_CERT_SERVER),
                             NULL, NULL),
                 CB_OK, "%s", cb_last_error());
    staple_into(&w.pki, "must.pem", "must.ocsp", 3600, now);
    chain_into(&w.pki, "must.pem", "chain.pem");
    cr_assert_eq(
        cb_identity_add(w.server_id, CB_OPTS(cb_identity_opts, .cert_file = tls_pki_path(&w.pki, "chain.pem", cert),
                                             .key_file = tls_pki_path(&w.pki, "must-key.pem", key),
                                             .ocsp_file = tls_pki_path(&w.pki, "must.ocsp", ocsp))),
        CB_OK, "%s", cb_last_error());
    trust(w.server_id, (cb_trust_opts){.ca_file = w.pki.ca_file, .crl_file = list_of(&w.pki, 3600), .clients = 2});
    cr_assert_eq(cb_identity_list(w.server_id, see, &s), CB_OK, "%s", cb_last_error());
    static const int kinds[] = {CB_IDENTITY_CERTIFICATE, CB_IDENTITY_CERTIFICATE, CB_IDENTITY_CHAIN,
                                CB_IDENTITY_OCSP,        CB_IDENTITY_ROOTS,       CB_IDENTITY_CRL};
    cr_assert_eq(s.n, sizeof kinds / sizeof *kinds);
    for (size_t i = 0; i < s.n; i++) {
        cr_expect_eq(s.at[i].kind, kinds[i], "%zu: %d", i, s.at[i].kind);
        cr_expect(s.at[i].until_s > now, "%zu: %lld", i, (long long)s.at[i].until_s);
    }
    cr_expect_str_eq(s.names[0], "*.c.test");
    cr_expect_str_eq(s.names[2], "also.test");
    cr_expect(s.at[1].names_len == 2 && !s.at[0].must_staple && s.at[1].must_staple && !s.at[3].bad);
    cr_expect(s.at[1].until_s < s.at[2].until_s && s.at[2].until_s == s.at[4].until_s, "the authority lives longer");
    cr_expect_leq(s.at[3].until_s, now + 3601);
    cr_expect_leq(s.at[5].until_s, now + 3601);
    cr_expect_eq(cb_identity_list(w.server_id, NULL, NULL), CB_EINVAL);
    end(&w);
}

Test(trust, what_makes_no_sense_is_refused) {
    world w;
    begin(&w);
    const char *bad_id[] = {"spiffe://TD/x"}, *empty[] = {""};
    char missing[160], text[160];
    tls_pki_path(&w.pki, "no-such.crl", missing);
    tls_pki_path(&w.pki, "leaf-key.pem", text);
    const struct {
        cb_trust_opts o;
        int rc;
        const char *words;
    } rows[] = {
        {{.clients = 4}, CB_EINVAL, "clients 4"},
        {{.max_chain = 17}, CB_EINVAL, "max_chain"},
        {{.host = ""}, CB_EINVAL, "host is empty"},
        {{.host = "a.test"}, CB_EINVAL, "needs a ca_file"},
        {{.crl_file = missing}, CB_EINVAL, "needs a ca_file"},
        {{.ca_file = w.pki.ca_file, .crl_file = missing}, CB_ENOENT, "no-such.crl"},
        {{.ca_file = w.pki.ca_file, .crl_file = w.pki.ca_file}, CB_EINVAL, "no revocation list"},
        {{.ca_file = text}, CB_EINVAL, "leaf-key.pem"},
        {{.ca_file = w.pki.ca_file, .names = bad_id, .names_len = 1}, CB_EINVAL, "spiffe://TD/x"},
        {{.ca_file = w.pki.ca_file, .names = empty, .names_len = 1}, CB_EINVAL, "no name"},
        {{.ca_file = w.pki.ca_file, .names_len = 1}, CB_EINVAL, "names_len"},
    };
    cr_expect_eq(cb_identity_trust(NULL, NULL), CB_EINVAL);
    cr_expect_eq(cb_identity_refresh(NULL), CB_EINVAL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_trust_opts o = rows[i].o;
        o.size = sizeof o;
        cr_expect_eq(cb_identity_trust(w.server_id, &o), rows[i].rc, "row %zu: %s", i, cb_last_error());
        cr_expect(strstr(cb_last_error(), rows[i].words), "row %zu: %s", i, cb_last_error());
    }
    cr_expect_eq(talk(&w.server, &w.client).client, CB_OK);
    end(&w);
}

/* The rule goes by the first ClientHello; a second one, after a HelloRetryRequest, must not name another host. */
Test(trust, a_second_hello_cannot_change_the_host) {
    for (int same = 0; same < 2; same++) {
        world w;
        tls_end c, other, s;
        begin(&w);
        cb_tls_opts to_b = w.client, to_a = w.client;
        to_b.server_name = "b.test";
        to_a.server_name = same ? "b.test" : "a.test";
        tls_end_make(&s, &w.server);
        tls_end_prepare(&c, &to_b);
        /* No key share of a group that the server knows. */
        cr_assert_eq(gnutls_priority_set_direct(cb_tls_session_handle(c.tls),
                                                "NORMAL:-VERS-ALL:+VERS-TLS1.3:-GROUP-ALL:+GROUP-SECP521R1:"
                                                "+GROUP-SECP256R1",
                                                NULL),
                     0);
        tls_end_start(&c);
        cr_assert_eq(cb_tls_stream_feed(s.tls, cb_buf_slice(&c.out)), CB_OK);
        cr_assert(s.out.len > 0 && s.out.base[0] == 22, "no HelloRetryRequest");
        tls_end_prepare(&other, &to_a);
        cr_assert_eq(gnutls_priority_set_direct(cb_tls_session_handle(other.tls),
                                                "NORMAL:-VERS-ALL:+VERS-TLS1.3:-GROUP-ALL:+GROUP-SECP256R1", NULL),
                     0);
        tls_end_start(&other);
        int rc = cb_tls_stream_feed(s.tls, cb_buf_slice(&other.out));
        cr_expect_eq(rc, same ? CB_OK : CB_ETLS, "%s", cb_last_error());
        tls_end_drop(&c);
        tls_end_drop(&other);
        tls_end_drop(&s);
        end(&w);
    }
}
