/* The error table, QUIC's part: a peer that really encrypts breaks one rule in each row, and our server or our client
 * must answer with the error that the RFC names. The rows are in tests/support/violations_quic.c. */
#include "support/quic_fixture.h"
#include "support/raw_quic.h"
#include "support/violations.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

typedef struct rig {
    qt_world *w;
    raw_quic r;
    const violation *v;
    bool client, started; /* client: it is ours that is attacked */
} rig;

/* ---- life ---- */

static void set_params(raw_quic *r) {
    const rig *g = r->user;
    const char *how = g->v->how;
    violation_step s;
    while (violation_next(&how, &s)) {
        uint8_t value[128];
        unsigned id = 0;
        if (strcmp(s.verb, "param") != 0) continue;
        bool again = s.text[0] == '+';
        cr_assert_eq(sscanf(s.text + again, "%2x", &id), 1);
        if (!again) raw_param_drop(r, id);
        const char *is = strchr(s.text, '=');
        if (is) raw_param_add(r, id, value, violation_bytes(value, sizeof value, is + 1, r->server));
    }
}

static void make_peer(rig *g, tls_pki *pki, const char *alpn) {
    char cert[160], key[160];
    raw_make(&g->r, g->w->loop, alpn, g->client ? tls_pki_path(pki, "leaf.pem", cert) : NULL,
             g->client ? tls_pki_path(pki, "leaf-key.pem", key) : NULL);
    g->r.user = g;
    g->r.prepare = set_params;
}

static void make(rig *g, qt_world *w, const violation *v, bool client) {
    memset(g, 0, sizeof *g);
    g->w = w;
    g->v = v;
    g->client = client;
    make_peer(g, &w->pki, "test");
}

/* The first flight: the peer's is sent, or our client's is there (and nothing is answered yet when held from there). */
static void start(rig *g) {
    g->started = true;
    if (!g->client) {
        raw_client(&g->r, g->w->remote, "server.test");
        raw_flush(&g->r);
        return;
    }
    char remote[32];
    snprintf(remote, sizeof remote, "127.0.0.1:%u", raw_port(&g->r));
    cr_assert_eq(cb_quic_connect(&g->w->client.conn, g->w->client.endpoint, remote, "server.test"), CB_OK);
    cr_assert(raw_wait(&g->r, &g->r.tx[RAW_INITIAL].have), "%s: no first packet", g->v->what);
}

static bool handshake(rig *g) {
    if (!g->started) start(g);
    return raw_wait(&g->r, &g->r.confirmed) && g->r.complete;
}

/* What was held back goes out. */
static bool go_on(rig *g) {
    g->r.hold_from = RAW_LEVELS;
    raw_flush(&g->r);
    if (g->r.server && g->r.complete) raw_frames(&g->r, RAW_APP, "\x1e\x01\x00\x00", 4);
    return handshake(g) && raw_answered(&g->r);
}

/* A connection before this one brought a ticket; now there are keys for early data. */
static void start_early(rig *g) {
    gnutls_datum_t session = {NULL, 0};
    cr_assert(handshake(g), "%s: no first connection", g->v->what);
    for (int ms = 0; ms < 5000 && !(gnutls_session_get_flags(g->r.tls) & GNUTLS_SFLAGS_SESSION_TICKET); ms++)
        raw_turn(&g->r, 1);
    raw_keep_session(&g->r, &session);
    raw_frames(&g->r, RAW_APP, "\x1c\0\0\0\0", 5);
    raw_drop(&g->r);
    make(g, g->w, g->v, false);
    g->r.session = session;
    start(g);
    cr_assert(g->r.tx[RAW_EARLY].have, "%s: no early keys", g->v->what);
}

static void at_level(rig *g, enum raw_level level) {
    if (g->started) return;
    if (level == RAW_EARLY) {
        start_early(g);
        return;
    }
    if (level == RAW_APP) {
        cr_assert(handshake(g), "%s: no connection: closed with 0x%x, TLS %d", g->v->what, (unsigned)g->r.close_code,
                  g->r.tls_rc);
        return;
    }
    g->r.hold_from = level == RAW_INITIAL && !g->client ? RAW_HANDSHAKE : level;
    start(g);
    cr_assert(raw_wait(&g->r, &g->r.tx[level].have), "%s: no keys", g->v->what);
}

/* ---- what bytes alone cannot say ---- */

/* A packet of the handshake that must be thrown away: it is not acknowledged, and the handshake goes on. */
static bool dropped(rig *g, const raw_packet *p) {
    raw_quic *r = &g->r;
    if (!g->client) raw_wait(r, &r->tx[RAW_HANDSHAKE].have);
    uint64_t acked = r->acked[p->level];
    raw_send(r, p);
    raw_turn(r, 10);
    return r->acked[p->level] == acked && go_on(g);
}
static bool bad_initial(rig *g, raw_packet p) {
    at_level(g, RAW_INITIAL);
    p.level = RAW_INITIAL;
    if (!p.pad_outside) {
        p.frames = "\1\0\0\0";
        p.len = 4;
    }
    return dropped(g, &p);
}
static bool empty_initial(rig *g) {
    return bad_initial(g, (raw_packet){.pad_outside = true});
}
static bool reserved(rig *g, enum raw_level level, uint8_t bits) {
    at_level(g, level);
    raw_send(&g->r, &(raw_packet){.level = level, .frames = "\1\0\0\0", .len = 4, .first_xor = bits});
    return true;
}
static bool reserved_short(rig *g) {
    return reserved(g, RAW_APP, 0x08);
}
static bool reserved_initial(rig *g) {
    return bad_initial(g, (raw_packet){.first_xor = 0x04});
}
static bool reserved_handshake(rig *g) {
    return reserved(g, RAW_HANDSHAKE, 0x08);
}
static bool many_cids(rig *g) {
    at_level(g, RAW_APP);
    for (uint8_t seq = 1; seq <= 8; seq++) {
        uint8_t f[4 + 8 + 16] = {0x18, seq, 0, 8};
        memset(f + 4, seq, 24);
        raw_frames(&g->r, RAW_APP, f, sizeof f);
    }
    return true;
}
static bool no_params(rig *g) {
    g->r.no_params = true;
    start(g);
    return true;
}
static void cut_params(raw_quic *r) {
    cb_buf_add(&r->params, "\x1b\x3f\x00", 3);
}
static bool long_param(rig *g) {
    g->r.prepare = cut_params;
    start(g);
    return true;
}
static bool connect_well(rig *g) {
    return handshake(g);
}

/* -- TLS: the peer's messages are changed on their way out -- */

static bool alpn(rig *g, const char *name) {
    raw_drop(&g->r);
    make_peer(g, &g->w->pki, name);
    start(g);
    return true;
}
static bool no_alpn(rig *g) {
    return alpn(g, NULL);
}
static bool other_alpn(rig *g) {
    return alpn(g, "other");
}
static bool session_id(rig *g) {
    g->r.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:-GROUP-ALL:+GROUP-X25519";
    start(g);
    return true;
}
/* A key share that the server does not take: HelloRetryRequest, and the ClientHello comes twice. */
static bool retried_hello(rig *g) {
    g->r.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:-GROUP-ALL:+GROUP-SECP521R1:+GROUP-X25519:"
                    "%DISABLE_TLS13_COMPAT_MODE";
    start(g);
    uint64_t first = g->r.crypto_sent[RAW_INITIAL];
    return handshake(g) && g->r.crypto_sent[RAW_INITIAL] > first + 100;
}
static int hide_versions(raw_quic *r, enum raw_level level, cb_buf *crypto) {
    (void)r;
    for (size_t i = 40; level == RAW_INITIAL && i + 5 < crypto->len; i++)
        if (memcmp(crypto->base + i, "\0\x2b\0\3\2\3\4", 7) == 0) crypto->base[i] = 0x7f; /* supported_versions */
    return 0;
}
static int turn_finished(raw_quic *r, enum raw_level level, cb_buf *crypto) {
    (void)r;
    for (size_t i = 0; level == RAW_HANDSHAKE && i + 4 <= crypto->len;) {
        size_t len = 4 + ((size_t)crypto->base[i + 1] << 16 | (size_t)crypto->base[i + 2] << 8 | crypto->base[i + 3]);
        if (crypto->base[i] == 20) crypto->base[i + len - 1] ^= 1;
        i += len;
    }
    return 0;
}
static int turn_type(raw_quic *r, enum raw_level level, cb_buf *crypto) {
    (void)r;
    if (level == RAW_INITIAL) crypto->base[0] = 2;
    return 0;
}
static int turn_length(raw_quic *r, enum raw_level level, cb_buf *crypto) {
    (void)r;
    if (level == RAW_INITIAL) crypto->base[4 + 2 + 32 + 1] = 0xff; /* of the cipher suites */
    return 0;
}
static int turn_size(raw_quic *r, enum raw_level level, cb_buf *crypto) {
    (void)r;
    if (level == RAW_INITIAL) crypto->base[1] = 0xff; /* the highest byte of the message's length */
    return 0;
}
static bool edited(rig *g, int (*edit)(raw_quic *, enum raw_level, cb_buf *)) {
    g->r.edit = edit;
    start(g);
    return true;
}
static bool old_tls(rig *g) {
    return edited(g, hide_versions);
}
static bool bad_finished(rig *g) {
    return edited(g, turn_finished);
}
static bool server_hello_to_server(rig *g) {
    return edited(g, turn_type);
}
static bool huge_hello(rig *g) {
    return edited(g, turn_size);
}
static bool bad_hello(rig *g) {
    return edited(g, turn_length);
}
static bool stranger(rig *g) {
    tls_pki other;
    tls_pki_make(&other);
    tls_pki_leaf(&other, "server.test", 0, "leaf", 0, 0);
    raw_drop(&g->r);
    make_peer(g, &other, "test");
    tls_pki_drop(&other);
    start(g);
    return true;
}

/* A TLS message of 16 MiB, of which 400 kB come. */
static bool endless(rig *g, enum raw_level level, uint8_t type) {
    raw_quic *r = &g->r;
    at_level(g, level);
    for (uint64_t at = 0; at < 400000 && !r->closed; at += 1000) {
        cb_buf b;
        cb_buf_init(&b, NULL, 2048);
        raw_varint(&b, 6);
        raw_varint(&b, at);
        raw_varint(&b, 1000);
        const uint8_t head[] = {type, 0xff, 0xff, 0xff};
        if (!at) cb_buf_add(&b, head, sizeof head);
        for (size_t i = at ? 0 : sizeof head; i < 1000; i++)
            cb_buf_add(&b, "x", 1);
        raw_frames(r, level, b.base, b.len);
        cb_buf_free(&b);
        if (at % 20000 == 0) raw_turn(r, 1);
    }
    return true;
}
/* Empty messages of no known type, behind the first one, where nothing is expected. */
static bool endless_initials(rig *g) {
    raw_quic *r = &g->r;
    uint8_t f[1000] = {6, 0x80, 0, 0, 0, 0x43, 0xb8};
    at_level(g, RAW_INITIAL); /* nothing is read meanwhile: a Handshake packet of the peer would end this level */
    for (uint64_t n = 0; n < 300 && !r->closed; n++) {
        uint64_t at = r->crypto_sent[RAW_INITIAL] + n * 952;
        for (size_t i = 0; i < 952; i++)
            f[7 + i] = i % 4 ? 0 : 99;
        f[2] = (uint8_t)(at >> 16);
        f[3] = (uint8_t)(at >> 8);
        f[4] = (uint8_t)at;
        raw_frames(r, RAW_INITIAL, f, 7 + 952);
    }
    return true;
}
static bool endless_ticket(rig *g) {
    return endless(g, RAW_APP, 4);
}
static bool endless_certificate(rig *g) {
    return endless(g, RAW_HANDSHAKE, 11);
}
static bool endless_finished(rig *g) {
    return endless(g, RAW_HANDSHAKE, 20);
}

/* -- keys -- */

/* Sends PING with other keys than it should, and goes back to the right ones. */
static void ping_with(rig *g, const uint8_t secret[32], bool phase) {
    raw_keys other = {0}, right = g->r.tx[RAW_APP];
    bool right_phase = g->r.phase;
    raw_keys_set(&other, secret);
    memcpy(other.hp, right.hp, sizeof other.hp); /* it stays through all updates */
    g->r.tx[RAW_APP] = other;
    g->r.phase = phase;
    raw_frames(&g->r, RAW_APP, "\1\0\0\0", 4);
    raw_turn(&g->r, 5);
    raw_keys_free(&other);
    g->r.tx[RAW_APP] = right;
    g->r.phase = right_phase;
}
static bool early_key_update(rig *g) {
    raw_keys next = {0};
    g->r.hold_from = RAW_HANDSHAKE;
    start(g);
    raw_wait(&g->r, &g->r.tx[RAW_APP].have);
    memcpy(next.secret, g->r.tx[RAW_APP].secret, 32);
    raw_keys_next(&next);
    ping_with(g, next.secret, true);
    raw_keys_free(&next);
    return g->r.acked[RAW_APP] == 0 && go_on(g);
}
static bool two_key_updates(rig *g) {
    raw_keys next = {0};
    at_level(g, RAW_APP);
    raw_next_keys(&g->r);
    raw_frames(&g->r, RAW_APP, "\1\0\0\0", 4);
    memcpy(next.secret, g->r.tx[RAW_APP].secret, 32);
    raw_keys_next(&next);
    ping_with(g, next.secret, false);
    raw_keys_free(&next);
    return true;
}
static bool old_keys(rig *g) {
    uint8_t old[32];
    at_level(g, RAW_APP);
    memcpy(old, g->r.tx[RAW_APP].secret, sizeof old);
    raw_next_keys(&g->r);
    cr_assert(raw_answered(&g->r), "%s: no key update", g->v->what);
    ping_with(g, old, false);
    return true;
}

/* -- packets to throw away -- */

/* The ClientHello in a first packet of its own kind; it is kept to be sent again. */
static void first_packet(rig *g, raw_packet p) {
    raw_quic *r = &g->r;
    r->hold_from = RAW_INITIAL;
    start(g);
    cb_buf b;
    cb_buf_init(&b, NULL, 4096);
    cb_buf_add(&b, "\x06\0", 2);
    raw_varint(&b, r->crypto[RAW_INITIAL].len);
    cb_buf_add(&b, r->crypto[RAW_INITIAL].base, r->crypto[RAW_INITIAL].len);
    p.level = RAW_INITIAL;
    p.frames = b.base;
    p.len = b.len;
    if (p.short_cid) raw_keys_initial(r, r->dcid, 4);
    raw_send(r, &p);
    cb_buf_free(&b);
}
/* One that is no good; then the same as it should be. */
static bool bad_first(rig *g, raw_packet p) {
    raw_quic *r = &g->r;
    first_packet(g, p);
    raw_turn(r, 20);
    bool silent = r->packets == 0;
    if (p.short_cid) raw_keys_initial(r, r->dcid, r->dcid_len);
    return silent && go_on(g);
}
static bool retry_token(rig *g) {
    first_packet(
        g, (raw_packet){.token = "\xb7 looks like a token of a Retry, and is none of this server's: too long ago"});
    return true;
}
static bool new_token(rig *g) {
    first_packet(g, (raw_packet){.token = "\x36 looks like a token of NEW_TOKEN, and is none of this server's"});
    return go_on(g);
}
static bool small_initial(rig *g) {
    return bad_first(g, (raw_packet){.small = true});
}
static bool short_cid(rig *g) {
    return bad_first(g, (raw_packet){.short_cid = true});
}
static bool corrupt_initial(rig *g) {
    return bad_initial(g, (raw_packet){.corrupt = true});
}
static bool other_scid(rig *g) {
    raw_quic *r = &g->r;
    if (!g->client) return bad_initial(g, (raw_packet){.other_scid = true});
    r->hold_from = RAW_HANDSHAKE; /* the client knows the right one by then */
    start(g);
    raw_wait(r, &r->rx[RAW_HANDSHAKE].have);
    raw_turn(r, 5);
    return bad_initial(g, (raw_packet){.other_scid = true});
}
static bool server_token(rig *g) {
    return bad_initial(g, (raw_packet){.token = "token"});
}
static bool corrupt_short(rig *g) {
    at_level(g, RAW_APP);
    raw_send(&g->r, &(raw_packet){.level = RAW_APP, .frames = "\x1e\0\0\0", .len = 4, .corrupt = true});
    return true;
}

/* A packet without protection, to our client: first byte, version, connection IDs, then the rest. */
static void plain_packet(rig *g, uint8_t first, const char *version, const void *rest, size_t len) {
    uint8_t p[128] = {first}, *at = p + 5;
    memcpy(p + 1, version, 4);
    *at++ = (uint8_t)g->r.dcid_len;
    memcpy(at, g->r.dcid, g->r.dcid_len);
    at += g->r.dcid_len;
    *at++ = (uint8_t)g->r.odcid_len;
    memcpy(at, g->r.odcid, g->r.odcid_len);
    at += g->r.odcid_len;
    memcpy(at, rest, len);
    raw_datagram(&g->r, p, (size_t)(at - p) + len);
}
static bool bad_retry(rig *g) {
    at_level(g, RAW_INITIAL);
    plain_packet(g, 0xf0, "\0\0\0\1", "token and sixteen bytes", 23);
    raw_turn(&g->r, 5);
    return go_on(g);
}
static bool silly_vn(rig *g) {
    at_level(g, RAW_INITIAL);
    plain_packet(g, 0x80, "\0\0\0\0", "\0\0\0\1\x1a\x2a\x3a\x4a", 8);
    raw_turn(&g->r, 5);
    return go_on(g);
}
static bool late_vn(rig *g) {
    at_level(g, RAW_APP);
    plain_packet(g, 0x80, "\0\0\0\0", "\x1a\x2a\x3a\x4a", 4);
    return true;
}

#define DO(name)                                                                                                       \
    { #name, name }
static const struct {
    const char *name;
    bool (*run)(rig *g);
} functions[] = {
    DO(empty_initial),
    DO(reserved_short),
    DO(reserved_initial),
    DO(reserved_handshake),
    DO(many_cids),
    DO(no_params),
    DO(long_param),
    {"connect", connect_well},
    DO(no_alpn),
    DO(other_alpn),
    DO(session_id),
    DO(retried_hello),
    DO(old_tls),
    DO(bad_finished),
    DO(server_hello_to_server),
    DO(bad_hello),
    DO(huge_hello),
    DO(stranger),
    DO(endless_ticket),
    DO(endless_initials),
    DO(endless_certificate),
    DO(endless_finished),
    DO(early_key_update),
    DO(two_key_updates),
    DO(old_keys),
    DO(small_initial),
    DO(retry_token),
    DO(new_token),
    DO(short_cid),
    DO(corrupt_initial),
    DO(other_scid),
    DO(server_token),
    DO(corrupt_short),
    DO(bad_retry),
    DO(silly_vn),
    DO(late_vn),
};

static bool run_function(rig *g, const char *name) {
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (strcmp(functions[i].name, name) == 0) return functions[i].run(g);
    cr_assert_fail("%s: no function %s", g->v->what, name);
    return false;
}

/* ---- rows ---- */

static bool run_step(rig *g, const violation_step *s) {
    static const char *const levels[] = {"initial", "handshake", "app", "early"};
    uint8_t bytes[512];
    if (strcmp(s->verb, "do") == 0) return run_function(g, s->text);
    for (int l = RAW_INITIAL; l < RAW_LEVELS; l++)
        if (strcmp(s->verb, levels[l]) == 0) {
            size_t len = violation_bytes(bytes, sizeof bytes, s->text, g->r.server);
            const raw_packet p = {.level = (enum raw_level)l, .frames = bytes, .len = len};
            at_level(g, p.level);
            if (g->v->end == DROP) return dropped(g, &p);
            raw_send(&g->r, &p);
            return true;
        }
    cr_assert_str_eq(s->verb, "param", "%s: no step %s", g->v->what, s->verb);
    return true;
}

static void run_row(qt_world *w, const violation *v, bool client) {
    const char *how = v->how, *who = client ? "client" : "server";
    violation_step s;
    rig g;
    bool good = true;
    make(&g, w, v, client);
    while (violation_next(&how, &s))
        good = run_step(&g, &s) && good;
    if (!g.started) start(&g);
    cr_expect(good, "%s, to our %s: not as it should be (closed %d with 0x%x)", v->what, who, g.r.closed,
              (unsigned)g.r.close_code);
    if (v->end == CLOSE) {
        cr_expect(raw_wait(&g.r, &g.r.closed), "%s, to our %s: not closed", v->what, who);
        bool known = g.r.close_code == (uint64_t)v->code || (v->also && g.r.close_code == (uint64_t)v->also);
        cr_expect(known && !g.r.close_app, "%s, to our %s: closed with 0x%x, not 0x%x", v->what, who,
                  (unsigned)g.r.close_code, (unsigned)v->code);
    } else if (v->end == IGNORE) {
        cr_expect(raw_answered(&g.r), "%s, to our %s: closed with 0x%x", v->what, who, (unsigned)g.r.close_code);
    }
    if (!g.r.closed) raw_frames(&g.r, g.r.confirmed ? RAW_APP : RAW_INITIAL, "\x1c\0\0\0\0", 5);
    raw_drop(&g.r);
}

static void run_rows(bool client) {
    qt_world w;
    qt_world_make(&w);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.early_data = 1;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    for (size_t i = 0; i < n_quic_violations; i++)
        if (quic_violations[i].who & (client ? CLIENT : SERVER)) run_row(&w, &quic_violations[i], client);
    /* whoever behaves is served all the same */
    w.client.handshakes = w.client.fins = w.client.closes = w.client.after_close = 0;
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.client.handshakes, 1), "no honest connection: %s", w.client.detail);
    qt_send(&w.client, 100000);
    cr_assert(qt_until(&w, &w.client.fins, 1));
    w.client.after_close = 0; /* callbacks of the many connections before */
    qt_world_drop(&w);
}

Test(quic_violations, against_our_server, .timeout = 60) {
    run_rows(false);
}

Test(quic_violations, against_our_client, .timeout = 60) {
    run_rows(true);
}
