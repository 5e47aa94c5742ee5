/* Making a session: who we are, whom we trust, which ticket key, what to resume. */
#include "base/error.h"
#include "base/mem.h"
#include "transport/tls_session_int.h"
#include "transport/tls_tickets.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { ALPN_MAX = 8, EXTRA_MAX = 4096, TICKETS_FRESH = 2, TICKETS_RESUMED = 1, UNTOLD_LIFE_S = 3600 };

static cb_tls_session *session_of(gnutls_session_t session) {
    return gnutls_db_get_ptr(session); /* no session database is used, so its pointer is free for this */
}

int cb_tls_retrieve_cert(gnutls_session_t session, const struct gnutls_cert_retr_st *info, gnutls_pcert_st **certs,
                         unsigned *certs_len, gnutls_ocsp_data_st **ocsp, unsigned *ocsp_len, gnutls_privkey_t *key,
                         unsigned *flags) {
    cb_tls_session *s = session_of(session);
    const cb_tls_cert *cert = s->alpn01 ? cb_alpn01_cert_of(s->alpn01)
                                        : cb_identity_view_choose(s->view, s->server ? s->sni : "", s->abilities);
    const bool staple = s->server && cert && cb_tls_staple_usable(&cert->staple, (int64_t)time(NULL));
    (void)info;
    *ocsp = staple ? (gnutls_ocsp_data_st *)(uintptr_t)&cert->staple.data : NULL;
    *ocsp_len = staple;
    s->stapled = staple;
    *flags = 0;
    *certs = cert ? cert->chain : NULL;
    *certs_len = cert ? cert->chain_len : 0;
    *key = cert ? cert->key : NULL;
    return 0;
}

/* --- server --- */

static int choose_ticket_key(cb_tls_session *s, const cb_client_hello *hello) {
    cb_ticket_scope scope = {
        .context = s->ticket_context,
        .host = s->sni,
        .roots = s->want_cert ? s->trust->digest : NULL,
        .cert_needed = s->need_cert,
    };
    uint8_t key[CB_TICKET_KEY];
    cb_slice ticket = hello->has_tls13 && hello->psk_identity.len ? hello->psk_identity : hello->ticket;
    if (cb_tickets_key(s->tickets, &scope, ticket, key, &s->ticket_newest) < 0) return GNUTLS_E_INTERNAL_ERROR;
    gnutls_datum_t datum = {key, sizeof key};
    int rc = gnutls_session_ticket_enable_server(s->gnutls, &datum);
    cb_mem_wipe(key, sizeof key);
    s->ticket_keyed = rc >= 0;
    return rc;
}

/* Goes by the rule for the name. */
static int set_trust(cb_tls_session *s, const cb_tls_trust *t) {
    s->trust = t;
    s->want_cert = cb_tls_session_wants(s, t);
    s->need_cert = cb_tls_session_needs(s, t);
    gnutls_certificate_server_set_request(s->gnutls, s->need_cert   ? GNUTLS_CERT_REQUIRE
                                                     : s->want_cert ? GNUTLS_CERT_REQUEST
                                                                    : GNUTLS_CERT_IGNORE);
    /* The system's roots would make a list of 15 KB that helps no client to choose. */
    gnutls_certificate_send_x509_rdn_sequence(s->gnutls, s->want_cert && !t->own_roots);
    return gnutls_credentials_set(s->gnutls, GNUTLS_CRD_CERTIFICATE, t->credentials);
}

/* The name asked for. After a HelloRetryRequest it must be the same (RFC 8446, 4.1.2): rule and ticket key went by it.
 */
static int take_name(cb_tls_session *s, const char *name) {
    if (s->greeted) return strcmp(s->sni, name) == 0 ? 0 : GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER;
    char *copy = cb_mem_text(s->alloc, name);
    if (!copy) return GNUTLS_E_MEMORY_ERROR;
    cb_mem_free(s->alloc, s->sni);
    s->sni = copy;
    s->greeted = true;
    const cb_tls_trust *t = cb_identity_view_trust(s->view, name);
    return t == s->trust ? 0 : set_trust(s, t);
}

/* A validation of a name that it is waiting for: the handshake is all there is to it (RFC 8737, 3). Nothing else is
 * asked of this client, and nothing of it resumes. True: it is one. */
static bool answer_validation(cb_tls_session *s, int *rc) {
    cb_alpn01 *answers = cb_identity_view_alpn01(s->view);
    const gnutls_datum_t name = {(unsigned char *)(uintptr_t)CB_ALPN_ACME, sizeof CB_ALPN_ACME - 1};
    if (!s->alpn01 && (s->quic || !answers || !(s->alpn01 = cb_alpn01_find(answers, s->sni)))) return false;
    s->want_cert = s->need_cert = false;
    gnutls_certificate_server_set_request(s->gnutls, GNUTLS_CERT_IGNORE);
    *rc = gnutls_alpn_set_protocols(s->gnutls, &name, 1, GNUTLS_ALPN_MANDATORY);
    return true;
}

/* Before GnuTLS parses the ClientHello. It may come twice (HelloRetryRequest); the ticket key is chosen once. */
static int on_client_hello(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                           const gnutls_datum_t *message) {
    cb_tls_session *s = session_of(session);
    cb_client_hello hello;
    (void)type;
    (void)when;
    if (!incoming) return 0;
    int read = cb_client_hello_read(&hello, (cb_slice){message->data, message->size});
    int rc = take_name(s, hello.sni);
    if (rc < 0) return rc;
    s->abilities = hello.abilities;
    s->brought_ticket = hello.has_tls13 && hello.psk_identity.len > 0;
    s->offered_early = hello.has_early || s->offered_early; /* not in the hello after a HelloRetryRequest */
    if (read >= 0 && !hello.has_tls13 && !s->tls12) return GNUTLS_E_UNSUPPORTED_VERSION_PACKET;
    if (s->quic && hello.has_session_id) return GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER;      /* RFC 9001, 8.4 */
    if (read >= 0 && s->quic && !hello.has_alpn) return GNUTLS_E_NO_APPLICATION_PROTOCOL; /* RFC 9001, 8.1 */
    if (read >= 0 && hello.only_acme && answer_validation(s, &rc)) return rc;
    return s->tickets && !s->ticket_keyed ? choose_ticket_key(s, &hello) : 0;
}

/* gnutls_handshake(), on a stack of its own where it may have to wait. */
static int handshake(cb_tls_session *s) {
    if (!s->loop) return gnutls_handshake(s->gnutls);
    if (!s->wait && cb_sign_wait_new(&s->wait, s->loop, s->ready, s->ready_user) < 0) return GNUTLS_E_MEMORY_ERROR;
    return cb_sign_wait_handshake(s->wait, s->gnutls);
}

/* Who resumes is who was verified then, under the very same rule (that is bound into the key of the ticket); but a
 * certificate may have expired meanwhile, or a revocation list become too old. GnuTLS knows the certificate again when
 * the server's flight has been made: before early data is read. */
static int judged_handshake(cb_tls_session *s) {
    unsigned n = 0;
    int rc = handshake(s);
    if ((rc < 0 && gnutls_error_is_fatal(rc)) || !s->want_cert || s->judged) return rc;
    if (!gnutls_session_is_resumed(s->gnutls) || (rc < 0 && !gnutls_certificate_get_peers(s->gnutls, &n))) return rc;
    s->judged = true;
    int verdict = cb_tls_verify_peer(s->gnutls);
    return verdict < 0 ? verdict : rc;
}

int cb_tls_session_handshake(cb_tls_session *s) {
    int rc = judged_handshake(s);
    if (rc == 0 || gnutls_error_is_fatal(rc)) cb_tls_count_end(s, rc);
    return rc;
}

int cb_tls_session_send_tickets(cb_tls_session *s) {
    if (!s->server || !s->ticket_keyed || !s->ticket_newest) return CB_OK;
    if (gnutls_protocol_get_version(s->gnutls) != GNUTLS_TLS1_3) return CB_OK; /* 1.2 sends it in the handshake */
    unsigned n = gnutls_session_is_resumed(s->gnutls) ? TICKETS_RESUMED : TICKETS_FRESH;
    int rc = gnutls_session_ticket_send(s->gnutls, n, 0);
    if (rc >= 0) cb_cells_add(s->cells, CB_C_TLS_TICKETS_ISSUED, n);
    return rc < 0 ? cb_fail(CB_ETLS, "cannot send a session ticket: %s", gnutls_strerror(rc)) : CB_OK;
}

static int prepare_server(cb_tls_session *s, const cb_tls_opts *o) {
    s->tickets = o->tickets ? cb_tickets_ref(o->tickets) : NULL;
    s->seen = cb_identity_view_ref(s->view);
    s->asked_hard = o->require_client_cert;
    s->asked = o->request_client_cert || o->require_client_cert;
    if (o->ticket_context && !(s->ticket_context = cb_mem_text(s->alloc, o->ticket_context))) return CB_ENOMEM;
    if (!(s->sni = cb_mem_text(s->alloc, ""))) return CB_ENOMEM;
    if (s->tickets) gnutls_db_set_cache_expiration(s->gnutls, cb_tickets_lifetime(s->tickets));
    gnutls_handshake_set_hook_function(s->gnutls, GNUTLS_HANDSHAKE_CLIENT_HELLO, GNUTLS_HOOK_PRE, on_client_hello);
    if (s->early) {
        cb_tickets_guard_replay(s->tickets, s->gnutls);
        gnutls_record_set_max_early_data_size(s->gnutls, UINT32_MAX); /* RFC 9001, 4.6.1 */
    }
    gnutls_session_set_verify_function(s->gnutls, cb_tls_verify_peer);
    int rc = set_trust(s, s->trust);
    if (rc < 0) return cb_fail(CB_ETLS, "cannot make a TLS session: %s", gnutls_strerror(rc));
    return s->want_cert ? cb_identity_view_need_roots(s->view) : CB_OK;
}

/* --- client --- */

void cb_tls_session_keep(cb_tls_session *s) {
    gnutls_datum_t data;
    cb_buf extra;
    if (!s->cache || gnutls_session_get_data2(s->gnutls, &data) < 0) return;
    cb_buf_init(&extra, s->alloc, EXTRA_MAX);
    if (s->ticket_extra) s->ticket_extra(s->user, &extra);
    (void)cb_session_cache_put(s->cache, s->cache_key, (cb_slice){data.data, data.size}, cb_buf_slice(&extra),
                               s->ticket_life);
    cb_buf_free(&extra);
    cb_mem_wipe(data.data, data.size);
    gnutls_free(data.data);
}

/* Before GnuTLS reads a ticket's message (which it does not show afterwards), and after. */
static int on_new_ticket(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                         const gnutls_datum_t *message) {
    cb_tls_session *s = session_of(session);
    bool tls13 = gnutls_protocol_get_version(session) == GNUTLS_TLS1_3;
    (void)type;
    if (!incoming) return 0;
    if (when == GNUTLS_HOOK_POST) {
        cb_cells_add(s->cells, CB_C_TLS_CLIENT_TICKETS_RECEIVED, 1);
        if (tls13) cb_tls_session_keep(s);
        return 0;
    }
    if (message->size < 4) return 0;
    const uint8_t *p = message->data; /* both versions begin with the lifetime */
    uint32_t life = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    if (tls13 || life) s->ticket_life = life; /* RFC 5077, 3.3: 0 leaves it to the client */
    return 0;
}

/* What a session is bound to (RFC 8446, 4.6.1; RFC 9001, 4.6). One that was verified less strictly, by other roots, for
 * another name, or in which we were somebody else, must not be resumed in this one's place. *common: how much of it is
 * the same for every key of the owner. */
static char *scoped_cache_key(const cb_tls_session *s, const cb_tls_opts *o, size_t *common) {
    cb_buf b;
    cb_buf_init(&b, s->alloc, 4096);
    int rc = cb_buf_printf(&b, "%s|%s|%d|%s|",
                           o->quic    ? "quic"
                           : o->tls12 ? "tls12"
                                      : "tls13",
                           o->alpn ? o->alpn : "", o->verify, o->server_name ? o->server_name : "");
    const uint8_t *digest = cb_identity_view_client_digest(s->view);
    for (size_t i = 0; rc >= 0 && i < 16; i++) {
        rc = cb_buf_printf(&b, "%02x", digest[i]);
    }
    *common = b.len + 1;
    if (rc >= 0) rc = cb_buf_printf(&b, "|%s", o->cache_key ? o->cache_key : "");
    char *key = rc >= 0 ? cb_mem_get(s->alloc, b.len + 1) : NULL;
    if (key) {
        memcpy(key, b.base, b.len);
        key[b.len] = '\0';
    }
    cb_buf_free(&b);
    return key;
}

static int prepare_resumption(cb_tls_session *s, const cb_tls_opts *o) {
    cb_slice data, extra;
    size_t common;
    s->cache = o->cache;
    s->ticket_extra = o->ticket_extra;
    s->ticket_life = UNTOLD_LIFE_S;
    s->user = o->user;
    if (!(s->cache_key = scoped_cache_key(s, o, &common))) return CB_ENOMEM;
    gnutls_handshake_set_hook_function(s->gnutls, GNUTLS_HANDSHAKE_NEW_SESSION_TICKET, GNUTLS_HOOK_BOTH, on_new_ticket);
    if (!cb_session_cache_take(s->cache, s->cache_key, 0, &data, &extra)) {
        if (!o->cache_any || !cb_session_cache_take(s->cache, s->cache_key, common, &data, &extra)) return CB_OK;
        extra = (cb_slice){0}; /* early data is for the server that is known to take it */
    }
    /* What it cannot read leaves GnuTLS's session half filled, and its handshake crashes: begin with a fresh one. */
    if (gnutls_session_set_data(s->gnutls, data.base, data.len) < 0) return CB_EAGAIN;
    s->brought_ticket = true;
    return cb_buf_add(&s->extra, extra.base, extra.len);
}

static int set_server_name(cb_tls_session *s, const char *name) {
    uint8_t ip[16];
    size_t len = strlen(name);
    bool literal = cb_tls_ip_literal(name, ip) != 0;
    if (!(s->peer_name = cb_mem_text(s->alloc, name))) return CB_ENOMEM;
    if (!literal && len > 0 && name[len - 1] == '.') s->peer_name[--len] = '\0';
    if (!(s->sni = cb_mem_text(s->alloc, literal ? "" : s->peer_name))) return CB_ENOMEM;
    if (literal) return CB_OK; /* RFC 6066, 3 */
    int rc = gnutls_server_name_set(s->gnutls, GNUTLS_NAME_DNS, s->sni, len);
    return rc < 0 ? cb_fail(CB_EINVAL, "server name \"%s\": %s", name, gnutls_strerror(rc)) : CB_OK;
}

static int prepare_client(cb_tls_session *s, const cb_tls_opts *o) {
    int rc = CB_OK;
    if (o->server_name) rc = set_server_name(s, o->server_name);
    if (rc >= 0 && !s->sni && !(s->sni = cb_mem_text(s->alloc, ""))) rc = CB_ENOMEM;
    if (rc >= 0 && o->cache) rc = prepare_resumption(s, o);
    if (rc < 0 || o->verify == CB_VERIFY_NONE) return rc;
    if (o->verify == CB_VERIFY_CHAIN) {
        cb_mem_free(s->alloc, s->peer_name);
        s->peer_name = NULL;
    } else if (!s->peer_name) {
        return cb_fail(CB_EINVAL, "a TLS client needs the server's name to verify it");
    }
    gnutls_session_set_verify_function(s->gnutls, cb_tls_verify_peer);
    s->verifies = true;
    return cb_identity_view_need_roots(s->view);
}

/* --- both --- */

static bool takes_early(const cb_tls_opts *o) {
    if (!o->quic || !o->early_data) return false;
    return !o->server || (o->tickets && cb_tickets_early(o->tickets));
}

static unsigned init_flags(const cb_tls_opts *o, bool early) {
    unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL;
    if (o->server) flags |= GNUTLS_SERVER | GNUTLS_NO_AUTO_SEND_TICKET;
    if (!o->server) flags |= GNUTLS_CLIENT;
    if (o->server ? !o->tickets : !o->cache) flags |= GNUTLS_NO_TICKETS;
    if (o->quic) flags |= GNUTLS_NO_END_OF_EARLY_DATA;
    if (early) flags |= GNUTLS_ENABLE_EARLY_DATA;
    return flags;
}

static int set_alpn(cb_tls_session *s, const char *list) {
    gnutls_datum_t names[ALPN_MAX];
    unsigned n = 0;
    for (const char *p = list; *p;) {
        size_t len = strcspn(p, ",");
        if (len == 0 || len > 255 || n == ALPN_MAX) return cb_fail(CB_EINVAL, "not a list of protocols: \"%s\"", list);
        names[n++] = (gnutls_datum_t){(unsigned char *)(uintptr_t)p, (unsigned)len};
        p += len;
        if (*p == ',') p++;
    }
    unsigned flags = s->server ? GNUTLS_ALPN_MANDATORY | GNUTLS_ALPN_SERVER_PRECEDENCE : 0;
    int rc = gnutls_alpn_set_protocols(s->gnutls, names, n, flags);
    return rc < 0 ? cb_fail(CB_ETLS, "ALPN \"%s\": %s", list, gnutls_strerror(rc)) : CB_OK;
}

static void drop_identity(void *object) {
    cb_identity_unref(object);
}

/* Nobody in particular, with the system's roots: kept with the cache, because reading those takes its time. */
static int adopt_anybody(cb_tls_session *s, cb_session_cache *cache) {
    cb_identity *id = cache ? cb_session_cache_attached(cache) : NULL;
    if (id) {
        s->view = cb_identity_view_get(id);
        return CB_OK;
    }
    int rc = cb_identity_new(&id, NULL);
    if (rc < 0) return rc;
    s->view = cb_identity_view_get(id);
    if (cache) {
        cb_session_cache_attach(cache, id, drop_identity);
    } else {
        cb_identity_unref(id);
    }
    return CB_OK;
}

static int adopt_identity(cb_tls_session *s, const cb_tls_opts *o) {
    if (!o->identity && s->server) return cb_fail(CB_EINVAL, "a TLS server needs an identity");
    if (!o->identity) return adopt_anybody(s, o->cache);
    s->view = cb_identity_view_get(o->identity);
    return CB_OK;
}

static int prepare(cb_tls_session *s, const cb_tls_opts *o) {
    int rc = adopt_identity(s, o);
    if (rc < 0) return rc;
    enum cb_tls_flavour flavour = o->quic ? CB_TLS_QUIC : o->tls12 ? CB_TLS_12 : CB_TLS_13;
    s->early = takes_early(o);
    int grc = gnutls_init(&s->gnutls, init_flags(o, s->early));
    if (grc >= 0) grc = gnutls_priority_set(s->gnutls, cb_identity_view_priority(s->view, flavour));
    s->trust = cb_identity_view_trust(s->view, "");
    if (grc >= 0) grc = gnutls_credentials_set(s->gnutls, GNUTLS_CRD_CERTIFICATE, s->trust->credentials);
    if (grc < 0) return cb_fail(CB_ETLS, "cannot make a TLS session: %s", gnutls_strerror(grc));
    gnutls_db_set_ptr(s->gnutls, s);
    if (o->alpn) rc = set_alpn(s, o->alpn);
    if (rc < 0) return rc;
    return s->server ? prepare_server(s, o) : prepare_client(s, o);
}

static int session_new(cb_tls_session **out, const cb_alloc *alloc, const cb_tls_opts *opts) {
    cb_tls_session *s = cb_mem_new(alloc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a TLS session");
    s->alloc = alloc;
    s->server = opts->server;
    s->quic = opts->quic;
    s->tls12 = opts->tls12 && !opts->quic;
    s->alert = -1;
    s->alive = true;
    cb_buf_init(&s->extra, alloc, EXTRA_MAX);
    cb_buf_init(&s->kept, alloc, SIZE_MAX);
    int rc = prepare(s, opts);
    if (rc < 0) {
        if (rc == CB_ENOMEM) cb_fail(CB_ENOMEM, "no memory for a TLS session");
        cb_tls_session_free(s);
        return rc;
    }
    cb_tls_count_begin(s, opts->loop);
    if (!s->server && s->brought_ticket) cb_cells_add(s->cells, CB_C_TLS_CLIENT_TICKETS_OFFERED, 1);
    *out = s;
    return CB_OK;
}

int cb_tls_session_new(cb_tls_session **out, const cb_alloc *alloc, const cb_tls_opts *opts) {
    int rc;
    do {
        rc = session_new(out, alloc, opts);
    } while (rc == CB_EAGAIN); /* a saved session that cannot be read; it is not saved any more */
    return rc;
}

void cb_tls_session_free(cb_tls_session *s) {
    if (!s) return;
    cb_tls_count_end(s, CB_TLS_ABANDONED);
    if (s->wait) { /* what waits fails now, and nobody wants to hear of it */
        cb_tls_stream_let_go(s);
        cb_sign_wait_free(s->wait);
    }
    cb_tls_stream_clear(s);
    if (s->gnutls) gnutls_deinit(s->gnutls);
    cb_identity_view_unref(s->view);
    cb_identity_view_unref(s->seen);
    cb_tickets_unref(s->tickets);
    cb_buf_free(&s->extra);
    cb_mem_free(s->alloc, s->ticket_context);
    cb_mem_free(s->alloc, s->sni);
    cb_mem_free(s->alloc, s->peer_name);
    cb_mem_free(s->alloc, s->detail);
    cb_peer_unref(s->peer);
    cb_alpn01_cert_unref(s->alpn01);
    cb_mem_free(s->alloc, s->cache_key);
    cb_mem_free(s->alloc, s);
}

void cb_tls_session_on_signed(cb_tls_session *s, cb_loop *loop, void (*ready)(void *user), void *user) {
    if (!cb_identity_view_slow(s->view)) return;
    s->loop = loop;
    s->ready = ready;
    s->ready_user = user;
}

bool cb_tls_session_waits(const cb_tls_session *s) {
    return s->wait && cb_sign_wait_pending(s->wait);
}

gnutls_session_t cb_tls_session_handle(cb_tls_session *s) {
    return s->gnutls;
}

const char *cb_tls_session_sni(const cb_tls_session *s) {
    return s->sni;
}

const char *cb_tls_session_alpn(const cb_tls_session *s) {
    gnutls_datum_t chosen;
    cb_tls_session *mutable_s = (cb_tls_session *)(uintptr_t)s; /* only fills its copy of the text */
    if (s->alpn[0] || s->finished) return s->alpn;
    if (gnutls_alpn_get_selected_protocol(s->gnutls, &chosen) < 0 || chosen.size >= sizeof s->alpn) return "";
    memcpy(mutable_s->alpn, chosen.data, chosen.size);
    mutable_s->alpn[chosen.size] = '\0';
    return s->alpn;
}

void cb_tls_session_finish(cb_tls_session *s) {
    if (s->finished || !s->server || !s->quic) return;
    (void)cb_tls_session_alpn(s);
    s->resumed = cb_tls_session_resumed(s);
    s->peer_cert = cb_tls_session_has_peer_cert(s);
    (void)cb_tls_session_peer(s);
    s->version = cb_tls_session_version(s);
    s->cipher = cb_tls_session_cipher(s);
    s->finished = true;
    cb_sign_wait_free(s->wait);
    s->wait = NULL;
    gnutls_deinit(s->gnutls);
    s->gnutls = NULL;
    cb_identity_view_unref(s->view);
    s->view = NULL;
    s->trust = NULL;
    cb_tickets_unref(s->tickets);
    s->tickets = NULL;
    cb_mem_free(s->alloc, s->ticket_context);
    s->ticket_context = NULL;
}

const char *cb_tls_session_version(const cb_tls_session *s) {
    if (s->finished) return s->version;
    const gnutls_protocol_t v = gnutls_protocol_get_version(s->gnutls);
    return v == GNUTLS_TLS1_3 ? "1.3" : v == GNUTLS_TLS1_2 ? "1.2" : "";
}

const char *cb_tls_session_cipher(const cb_tls_session *s) {
    if (s->finished) return s->cipher;
    const char *name = gnutls_ciphersuite_get(s->gnutls);
    return name ? name : "";
}

bool cb_tls_session_resumed(const cb_tls_session *s) {
    if (s->finished) return s->resumed;
    return gnutls_session_is_resumed(s->gnutls) != 0;
}

bool cb_tls_session_offered_early(const cb_tls_session *s) {
    return s->offered_early;
}

cb_slice cb_tls_session_extra(const cb_tls_session *s) {
    return cb_buf_slice(&s->extra);
}

bool cb_tls_session_has_peer_cert(const cb_tls_session *s) {
    unsigned n = 0;
    if (s->finished) return s->peer_cert;
    return gnutls_certificate_get_peers(s->gnutls, &n) != NULL && n > 0;
}

const cb_peer *cb_tls_session_peer(const cb_tls_session *s) {
    cb_tls_session *mutable_s = (cb_tls_session *)(uintptr_t)s; /* only fills what it remembers */
    unsigned n = 0;
    if (s->peer || s->finished) return s->peer;
    const gnutls_datum_t *sent = gnutls_certificate_get_peers(s->gnutls, &n);
    cb_slice chain[CB_PEER_CHAIN_MAX];
    if (!sent || n == 0) return NULL;
    if (n > CB_PEER_CHAIN_MAX) n = CB_PEER_CHAIN_MAX;
    for (unsigned i = 0; i < n; i++)
        chain[i] = (cb_slice){sent[i].data, sent[i].size};
    return cb_peer_read(&mutable_s->peer, chain, n) < 0 ? NULL : s->peer;
}

int cb_tls_session_fail(cb_tls_session *s, int gnutls_rc) {
    if (s->detail) return cb_fail(CB_EAUTH, "%s", s->detail);
    switch (gnutls_rc) {
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
    case GNUTLS_E_WARNING_ALERT_RECEIVED: {
        const char *name = gnutls_alert_get_name(gnutls_alert_get(s->gnutls));
        return cb_fail(CB_ETLS, "the peer ended TLS with the alert \"%s\"", name ? name : "unknown");
    }
    case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
        if (s->tls12) return cb_fail(CB_ETLS, "the peer speaks neither TLS 1.3 nor TLS 1.2");
        return cb_fail(CB_ETLS, "the peer does not speak TLS 1.3, and nothing older is enabled here");
    case GNUTLS_E_NO_APPLICATION_PROTOCOL:
        return cb_fail(CB_ETLS, "ALPN: the peer offers no protocol that is spoken here");
    case GNUTLS_E_MISSING_EXTENSION:
        return cb_fail(CB_ETLS, "TLS: the peer left out an extension%s",
                       s->quic ? " that is needed, such as QUIC's transport parameters" : "");
    case GNUTLS_E_CERTIFICATE_REQUIRED:
    case GNUTLS_E_NO_CERTIFICATE_FOUND:
        return cb_fail(CB_EAUTH, "the peer showed no certificate, and one is required");
    case GNUTLS_E_PREMATURE_TERMINATION:
    case GNUTLS_E_PULL_ERROR:
        return cb_fail(CB_ETLS, "the peer closed the connection in the middle of TLS");
    default:
        return cb_fail(CB_ETLS, "TLS failed: %s", gnutls_strerror(gnutls_rc));
    }
}
