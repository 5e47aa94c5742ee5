#include "transport/tls_trust.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "transport/client_hello.h"
#include "transport/peer.h"
#include "transport/tls_cert.h"
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { TEXTS_MAX = 4096, SHA256 = 32, WHO = 200 };

static const cb_alloc *const heap = &cb_alloc_libc;

/* ---- the source ---- */

static int check(const cb_trust_opts *o) {
    if (o->clients < CB_CLIENTS_DEFAULT || o->clients > CB_CLIENTS_REQUIRE)
        return cb_fail(CB_EINVAL, "cb_trust_opts: clients %d is none of enum cb_clients", o->clients);
    if (o->max_chain > CB_PEER_CHAIN_MAX)
        return cb_fail(CB_EINVAL, "cb_trust_opts: max_chain %u is above %d", o->max_chain, CB_PEER_CHAIN_MAX);
    if (o->names_len > TEXTS_MAX / 2 || o->pins_len > TEXTS_MAX / 2 || (o->names_len && !o->names) ||
        (o->pins_len && !o->pins))
        return cb_fail(CB_EINVAL, "cb_trust_opts: names_len or pins_len");
    if (o->pins_len == 1 && !o->single_pin)
        return cb_fail(CB_EINVAL,
                       "cb_trust_opts: one pin only: when that key is lost nobody gets in; give a spare one");
    if (o->crl_file && !o->ca_file)
        return cb_fail(CB_EINVAL, "cb_trust_opts: crl_file needs a ca_file, whose authorities sign the lists");
    if (o->host && !*o->host) return cb_fail(CB_EINVAL, "cb_trust_opts: host is empty");
    if (o->host && !o->ca_file && o->clients != CB_CLIENTS_NONE)
        return cb_fail(CB_EINVAL, "cb_trust_opts: host \"%s\" needs a ca_file", o->host);
    if (o->host && strlen(o->host) >= CB_SNI_MAX) return cb_fail(CB_EINVAL, "cb_trust_opts: host is too long");
    return CB_OK;
}

static char *keep(cb_trust_source *s, const char *text) {
    if (!text) return NULL;
    char *copy = cb_mem_text(heap, text);
    s->texts[s->texts_len] = copy;
    s->texts_len += copy != NULL;
    return copy;
}

static const char *const *keep_list(cb_trust_source *s, const char *const *texts, size_t n, bool *whole) {
    char **list = n ? cb_mem_new(heap, n * sizeof *list) : NULL;
    for (size_t i = 0; list && i < n; i++)
        *whole &= (list[i] = keep(s, texts[i] ? texts[i] : "")) != NULL;
    *whole &= !n || list;
    return (const char *const *)list;
}

int cb_trust_source_copy(cb_trust_source *out, const cb_trust_opts *o) {
    int rc = check(o);
    if (rc < 0) return rc;
    cb_trust_source s = {.o = *o};
    s.texts = cb_mem_new(heap, (3 + o->names_len + o->pins_len) * sizeof *s.texts);
    if (!s.texts) return cb_fail(CB_ENOMEM, "no memory for a rule");
    bool whole = true;
    char *host = keep(&s, o->host ? o->host : "");
    s.o.host = host;
    s.o.ca_file = keep(&s, o->ca_file);
    s.o.crl_file = keep(&s, o->crl_file);
    s.o.names = keep_list(&s, o->names, o->names_len, &whole);
    s.o.pins = keep_list(&s, o->pins, o->pins_len, &whole);
    if (!whole || !host || !o->ca_file != !s.o.ca_file || !o->crl_file != !s.o.crl_file) {
        cb_trust_source_clear(&s);
        return cb_fail(CB_ENOMEM, "no memory for a rule");
    }
    for (; *host; host++)
        if (*host >= 'A' && *host <= 'Z') *host = (char)(*host - 'A' + 'a');
    if (host > s.o.host && host[-1] == '.') host[-1] = '\0';
    *out = s;
    return CB_OK;
}

void cb_trust_source_clear(cb_trust_source *s) {
    while (s->texts_len)
        cb_mem_free(heap, s->texts[--s->texts_len]);
    cb_mem_free(heap, s->texts);
    cb_mem_free(heap, (void *)(uintptr_t)s->o.names);
    cb_mem_free(heap, (void *)(uintptr_t)s->o.pins);
    *s = (cb_trust_source){.texts_len = 0};
}

/* ---- reading ---- */

static int read_pin(uint8_t out[SHA256], const char *text) {
    const char *base64 = strncmp(text, "sha256/", 7) == 0 ? text + 7 : text;
    const gnutls_datum_t in = {(unsigned char *)(uintptr_t)base64, (unsigned)strlen(base64)};
    gnutls_datum_t raw = {NULL, 0};
    bool good = gnutls_base64_decode2(&in, &raw) >= 0 && raw.size == SHA256;
    if (good) memcpy(out, raw.data, SHA256);
    gnutls_free(raw.data);
    return good ? CB_OK : cb_fail(CB_EINVAL, "the pin \"%.80s\" is not the SHA-256 of a key in base64", text);
}

static int read_pins(cb_tls_trust *t, const cb_trust_opts *o) {
    if (o->pins_len && !(t->pins = cb_mem_new(heap, o->pins_len * sizeof *t->pins)))
        return cb_fail(CB_ENOMEM, "no memory for pins");
    for (; t->pins_len < o->pins_len; t->pins_len++) {
        int rc = read_pin(t->pins[t->pins_len], o->pins[t->pins_len]);
        if (rc < 0) return rc;
        for (size_t i = 0; i < t->pins_len && !o->single_pin; i++)
            if (memcmp(t->pins[i], t->pins[t->pins_len], SHA256) == 0)
                return cb_fail(CB_EINVAL, "the pin \"%.80s\" stands there twice", o->pins[i]);
    }
    return CB_OK;
}

static int read_names(cb_tls_trust *t, const cb_trust_opts *o) {
    if (o->names_len && !(t->names = cb_mem_new(heap, o->names_len * sizeof *t->names)))
        return cb_fail(CB_ENOMEM, "no memory for names");
    for (size_t i = 0; i < o->names_len; i++) {
        const char *name = o->names[i];
        size_t len = strlen(name);
        char id[512];
        bool tree = len > 10 && name[len - 1] == '/';
        snprintf(id, sizeof id, "%.*s", (int)(tree ? len - 1 : len), name);
        if (!*name || (strncmp(name, "spiffe:", 7) == 0 && (len >= sizeof id || !cb_spiffe_id_ok(id))))
            return cb_fail(CB_EINVAL, "\"%.80s\" is no name that a certificate can have", name);
        if (!(t->names[i] = cb_mem_text(heap, name))) return cb_fail(CB_ENOMEM, "no memory for names");
        t->names_len++;
    }
    return CB_OK;
}

static int read_crls(cb_tls_trust *t, const cb_trust_opts *o, const gnutls_x509_crt_t *roots, unsigned n,
                     gnutls_hash_hd_t hash) {
    gnutls_datum_t raw;
    if (!o->crl_file) return CB_OK;
    int rc = cb_tls_file_read(o->crl_file, &raw, NULL);
    if (rc < 0) return rc;
    rc = cb_crl_set_read(&t->crls, o->crl_file, (cb_slice){raw.data, raw.size}, roots, n);
    if (rc >= 0 && gnutls_hash(hash, raw.data, raw.size) < 0) rc = cb_fail(CB_ETLS, "cannot hash %s", o->crl_file);
    gnutls_free(raw.data);
    return rc;
}

static void note_expiry(cb_tls_trust *t, gnutls_x509_crt_t crt) {
    int64_t at = gnutls_x509_crt_get_expiration_time(crt);
    if (!t->roots_expire || at < t->roots_expire) t->roots_expire = at;
}

static int read_roots(cb_tls_trust *t, const cb_trust_opts *o, gnutls_hash_hd_t hash) {
    gnutls_datum_t pem;
    gnutls_x509_crt_t *list = NULL;
    unsigned n = 0;
    if (!o->ca_file) return CB_OK;
    int rc = cb_tls_file_read(o->ca_file, &pem, NULL);
    if (rc < 0) return rc;
    int grc = gnutls_x509_crt_list_import2(&list, &n, &pem, GNUTLS_X509_FMT_PEM, 0);
    if (grc >= 0) grc = gnutls_certificate_set_x509_trust(t->credentials, list, (int)n);
    if (grc >= 0) grc = n == 0 ? GNUTLS_E_NO_CERTIFICATE_FOUND : gnutls_hash(hash, pem.data, pem.size);
    if (grc < 0)
        rc = cb_fail(CB_EINVAL, "%s: no PEM certificate in it that could be a trust root: %s", o->ca_file,
                     gnutls_strerror(grc));
    if (rc >= 0) rc = read_crls(t, o, list, n, hash);
    for (unsigned i = 0; i < n; i++) {
        note_expiry(t, list[i]);
        gnutls_x509_crt_deinit(list[i]);
    }
    gnutls_free(list);
    gnutls_free(pem.data);
    t->own_roots = true;
    return rc;
}

static int hash_rest(const cb_tls_trust *t, gnutls_hash_hd_t hash) {
    const uint8_t flags[] = {(uint8_t)t->clients, (uint8_t)t->max_chain, t->stale_crl, t->pins_report,
                             t->require_staple};
    int rc = gnutls_hash(hash, flags, sizeof flags);
    for (size_t i = 0; rc >= 0 && i < t->names_len; i++)
        rc = gnutls_hash(hash, t->names[i], strlen(t->names[i]) + 1);
    for (size_t i = 0; rc >= 0 && i < t->pins_len; i++)
        rc = gnutls_hash(hash, t->pins[i], SHA256);
    return rc < 0 ? cb_fail(CB_ETLS, "cannot hash a rule: %s", gnutls_strerror(rc)) : CB_OK;
}

static int fill(cb_tls_trust *t, const cb_trust_source *s, gnutls_hash_hd_t hash) {
    const cb_trust_opts *o = &s->o;
    t->clients = o->clients;
    t->max_chain = o->max_chain ? o->max_chain : CB_PEER_CHAIN_MAX;
    t->stale_crl = o->stale_crl;
    t->pins_report = o->pins_report;
    t->require_staple = o->require_staple;
    t->log = o->log;
    t->host = cb_mem_text(heap, o->host ? o->host : "");
    t->ca_file = cb_mem_text(heap, o->ca_file);
    t->crl_file = cb_mem_text(heap, o->crl_file);
    if (!t->host || !o->ca_file != !t->ca_file || !o->crl_file != !t->crl_file)
        return cb_fail(CB_ENOMEM, "no memory for a rule");
    int rc = read_pins(t, o);
    if (rc >= 0) rc = read_names(t, o);
    if (rc >= 0) rc = read_roots(t, o, hash);
    return rc >= 0 ? hash_rest(t, hash) : rc;
}

int cb_tls_trust_load(cb_tls_trust *out, const cb_trust_source *s) {
    cb_tls_trust t = {.clients = 0};
    gnutls_hash_hd_t hash = NULL;
    int rc = gnutls_certificate_allocate_credentials(&t.credentials);
    if (rc >= 0) rc = gnutls_hash_init(&hash, GNUTLS_DIG_SHA256);
    rc = rc < 0 ? cb_fail(CB_ETLS, "cannot set TLS up: %s", gnutls_strerror(rc)) : fill(&t, s, hash);
    if (hash) gnutls_hash_deinit(hash, t.digest);
    if (rc < 0) {
        cb_tls_trust_clear(&t);
        return rc;
    }
    *out = t;
    return CB_OK;
}

void cb_tls_trust_clear(cb_tls_trust *t) {
    if (t->credentials) gnutls_certificate_free_credentials(t->credentials);
    cb_crl_set_free(t->crls);
    for (size_t i = 0; i < t->names_len; i++)
        cb_mem_free(heap, t->names[i]);
    cb_mem_free(heap, t->names);
    cb_mem_free(heap, t->pins);
    cb_mem_free(heap, t->host);
    cb_mem_free(heap, t->ca_file);
    cb_mem_free(heap, t->crl_file);
    *t = (cb_tls_trust){.clients = 0};
}

/* ---- judging ---- */

typedef struct sent_chain {
    gnutls_x509_crt_t crt[CB_PEER_CHAIN_MAX];
    unsigned n;
} sent_chain;

static void drop(sent_chain *c) {
    while (c->n)
        gnutls_x509_crt_deinit(c->crt[--c->n]);
}

static int import(sent_chain *c, const cb_peer *peer) {
    for (c->n = 0; c->n < CB_PEER_CHAIN_MAX; c->n++) {
        cb_slice der = cb_peer_cert(peer, c->n);
        const gnutls_datum_t raw = {(unsigned char *)(uintptr_t)der.base, (unsigned)der.len};
        if (der.len == 0) break;
        if (gnutls_x509_crt_init(&c->crt[c->n]) < 0) return CB_ENOMEM;
        if (gnutls_x509_crt_import(c->crt[c->n], &raw, GNUTLS_X509_FMT_DER) < 0) {
            gnutls_x509_crt_deinit(c->crt[c->n]);
            return cb_fail(CB_EAUTH, "a certificate of the chain cannot be read");
        }
    }
    return CB_OK;
}

/* Who a peer is, for a person. */
static const char *who(const cb_peer *p, char out[WHO]) {
    const char *id = cb_peer_spiffe_id(p);
    const char *dns = cb_peer_name(p, CB_SAN_DNS, 0);
    snprintf(out, WHO, "%s, serial %s",
             *id                   ? id
             : *cb_peer_subject(p) ? cb_peer_subject(p)
             : dns                 ? dns
                                   : "without a name",
             cb_peer_serial(p));
    return out;
}

static const char *day(int64_t when, char out[32]) {
    time_t t = (time_t)when;
    struct tm tm;
    if (!gmtime_r(&t, &tm) || strftime(out, 32, "%Y-%m-%d %H:%M UTC", &tm) == 0) snprintf(out, 32, "?");
    return out;
}

static int judge_revocation(const cb_tls_trust *t, const cb_peer *peer, const sent_chain *c, int64_t now_s,
                            int *alert) {
    char name[WHO], at[32];
    int64_t when = 0;
    *alert = GNUTLS_A_CERTIFICATE_REVOKED;
    for (unsigned i = 0; i < c->n; i++) {
        switch (cb_crl_set_judge(t->crls, c->crt[i], now_s, t->stale_crl, &when)) {
        case CB_CRL_GOOD:
            continue;
        case CB_CRL_REVOKED:
            return cb_fail(CB_EAUTH, "%s (%s) was revoked%s%s (%s)",
                           i ? "an authority of the certificate" : "the certificate", who(peer, name),
                           when ? " on " : "", when ? day(when, at) : "", t->crl_file);
        case CB_CRL_STALE:
            *alert = GNUTLS_A_CERTIFICATE_UNKNOWN;
            return cb_fail(CB_EAUTH, "the certificate (%s) cannot be checked: a new revocation list was due on %s (%s)",
                           who(peer, name), day(when, at), t->crl_file);
        case CB_CRL_UNCOVERED:
            if (i > 0) continue;
            *alert = GNUTLS_A_CERTIFICATE_UNKNOWN;
            return cb_fail(CB_EAUTH,
                           "the certificate (%s) cannot be checked: %s has no revocation list of its issuer (%s)",
                           who(peer, name), t->crl_file, cb_peer_issuer(peer));
        }
    }
    return CB_OK;
}

static int judge_names(const cb_tls_trust *t, const cb_peer *peer, int *alert) {
    char name[WHO];
    for (size_t i = 0; i < t->names_len; i++)
        if (cb_peer_is(peer, t->names[i])) return CB_OK;
    *alert = GNUTLS_A_ACCESS_DENIED;
    return cb_fail(CB_EAUTH, "the certificate (%s) has none of the names that are let in (%s%s)", who(peer, name),
                   t->names[0], t->names_len > 1 ? ", ..." : "");
}

static bool pinned(const cb_tls_trust *t, gnutls_x509_crt_t crt) {
    uint8_t key[SHA256];
    size_t size = sizeof key;
    if (gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, key, &size) < 0) return false;
    for (size_t i = 0; i < t->pins_len; i++)
        if (memcmp(t->pins[i], key, SHA256) == 0) return true;
    return false;
}

static bool signed_by(gnutls_x509_crt_t crt, gnutls_x509_crt_t issuer) {
    unsigned status = 0;
    if (!gnutls_x509_crt_check_issuer(crt, issuer)) return false;
    return gnutls_x509_crt_verify(crt, &issuer, 1, GNUTLS_VERIFY_DISABLE_TIME_CHECKS, &status) >= 0 && status == 0;
}

/* Along the path only: a pinned certificate that was sent along proves nothing (RFC 7469, 2.6). */
static bool path_is_pinned(const cb_tls_trust *t, const sent_chain *c) {
    gnutls_x509_crt_t at = c->n ? c->crt[0] : NULL;
    for (unsigned steps = 0; at && steps <= CB_PEER_CHAIN_MAX; steps++) {
        gnutls_x509_crt_t above = NULL;
        if (pinned(t, at)) return true;
        if (gnutls_x509_crt_check_issuer(at, at)) return false;
        for (unsigned i = 1; i < c->n && !above; i++)
            if (signed_by(at, c->crt[i])) above = c->crt[i];
        if (!above) return gnutls_certificate_get_issuer(t->credentials, at, &above, 0) >= 0 && pinned(t, above);
        at = above;
    }
    return false;
}

static int judge_pins(const cb_tls_trust *t, const cb_peer *peer, const sent_chain *c, int *alert) {
    char name[WHO];
    if (path_is_pinned(t, c)) return CB_OK;
    if (t->pins_report) {
        cb_log_line(t->log, CB_LOG_WARN, "tls", "no pin fits the certificate (%s); it is let in, pins only report",
                    who(peer, name));
        return CB_OK;
    }
    *alert = GNUTLS_A_ACCESS_DENIED;
    return cb_fail(CB_EAUTH, "no pin fits the key of the certificate (%s) or of an authority above it",
                   who(peer, name));
}

int cb_tls_trust_verify(const cb_tls_trust *t, const cb_peer *peer) {
    static const char purpose[] = GNUTLS_KP_TLS_WWW_CLIENT;
    gnutls_typed_vdata_st data = {GNUTLS_DT_KEY_PURPOSE_OID, (unsigned char *)(uintptr_t)purpose, 0};
    gnutls_x509_trust_list_t roots;
    unsigned status = 0;
    char name[WHO];
    sent_chain c = {.n = 0};
    gnutls_certificate_get_trust_list(t->credentials, &roots);
    int rc = import(&c, peer);
    int grc = rc < 0 ? 0 : gnutls_x509_trust_list_verify_crt2(roots, c.crt, c.n, &data, 1, 0, &status, NULL);
    if (rc >= 0 && (grc < 0 || status))
        rc = cb_fail(CB_EAUTH, "the certificate (%s) does not lead to a trusted authority any more", who(peer, name));
    drop(&c);
    return rc;
}

bool cb_tls_trust_asks(const cb_tls_trust *t) {
    return t->names_len || t->pins_len || t->crls || t->require_staple || t->max_chain < CB_PEER_CHAIN_MAX;
}

int cb_tls_trust_judge(const cb_tls_trust *t, const cb_peer *peer, int64_t now_s, int *alert) {
    sent_chain c = {.n = 0};
    *alert = GNUTLS_A_BAD_CERTIFICATE;
    if (t->max_chain < CB_PEER_CHAIN_MAX && cb_peer_cert(peer, t->max_chain).len)
        return cb_fail(CB_EAUTH, "the peer sent more than %u certificates", t->max_chain);
    int rc = t->names_len ? judge_names(t, peer, alert) : CB_OK;
    if (rc < 0 || (!t->crls && t->pins_len == 0)) return rc;
    rc = import(&c, peer);
    if (rc >= 0 && t->crls) rc = judge_revocation(t, peer, &c, now_s, alert);
    if (rc >= 0 && t->pins_len) rc = judge_pins(t, peer, &c, alert);
    drop(&c);
    return rc;
}
