/* Certificates, rules and priorities of an identity as handshakes see them: immutable but for the system's roots. */
#include "transport/tls_view.h"
#include "base/error.h"
#include "base/mem.h"
#include "transport/tls_cert.h"
#include <gnutls/crypto.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const cb_alloc *const heap = &cb_alloc_libc;

/* A name of a certificate. */
struct name {
    char *text; /* lower case; "*.example.org" for wildcards */
    size_t cert;
};

struct cb_identity_view {
    atomic_uint refs;
    cb_tls_cert *certs;
    size_t certs_len;
    struct name *names; /* sorted by text, then by certificate */
    size_t names_len;
    cb_tls_trust *trusts; /* sorted by host: that for all others, "", is the first */
    size_t trusts_len;
    gnutls_priority_t priorities[CB_TLS_FLAVOURS];
    uint8_t client_digest[32];
    cb_alpn01 *alpn01;          /* may be NULL */
    pthread_mutex_t roots_lock; /* guards reading the system's roots into the credentials */
    bool roots_ready;
};

static const char *const priority_text[CB_TLS_FLAVOURS] = {
    [CB_TLS_13] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:-GROUP-ALL:"
                  "+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1",
    [CB_TLS_12] =
        "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-KX-ALL:+ECDHE-ECDSA:+ECDHE-RSA:-MAC-ALL:+AEAD:-CIPHER-ALL:"
        "+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:"
        "+GROUP-SECP384R1",
    [CB_TLS_QUIC] = "%DISABLE_TLS13_COMPAT_MODE:NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:"
                    "+CHACHA20-POLY1305:-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1",
};

static void view_free(cb_identity_view *v) {
    if (!v) return;
    for (size_t i = 0; i < v->trusts_len; i++) {
        cb_tls_trust_clear(&v->trusts[i]);
    }
    cb_mem_free(heap, v->trusts);
    for (size_t i = 0; i < CB_TLS_FLAVOURS; i++) {
        if (v->priorities[i]) gnutls_priority_deinit(v->priorities[i]);
    }
    for (size_t i = 0; i < v->certs_len; i++) {
        cb_tls_cert_clear(&v->certs[i]);
    }
    for (size_t i = 0; i < v->names_len; i++) {
        cb_mem_free(heap, v->names[i].text);
    }
    cb_mem_free(heap, v->certs);
    cb_mem_free(heap, v->names);
    cb_alpn01_unref(v->alpn01);
    pthread_mutex_destroy(&v->roots_lock);
    cb_mem_free(heap, v);
}

static int view_new(cb_identity_view **out) {
    cb_identity_view *v = cb_mem_new(heap, sizeof *v);
    if (!v) return cb_fail(CB_ENOMEM, "no memory for an identity");
    atomic_init(&v->refs, 1);
    pthread_mutex_init(&v->roots_lock, NULL);
    int rc = 0;
    for (size_t i = 0; rc >= 0 && i < CB_TLS_FLAVOURS; i++) {
        rc = gnutls_priority_init2(&v->priorities[i], priority_text[i], NULL, 0);
    }
    if (rc < 0) {
        view_free(v);
        return cb_fail(rc == GNUTLS_E_MEMORY_ERROR ? CB_ENOMEM : CB_ETLS, "cannot set TLS up: %s", gnutls_strerror(rc));
    }
    *out = v;
    return CB_OK;
}

static int add_name(void *user, const char *text) {
    cb_identity_view *v = user;
    struct name *grown = cb_mem_grow(heap, v->names, (v->names_len + 1) * sizeof *grown);
    if (!grown) return CB_ENOMEM;
    v->names = grown;
    char *copy = cb_mem_text(heap, text);
    if (!copy) return CB_ENOMEM;
    for (char *c = copy; *c; c++) {
        if (*c >= 'A' && *c <= 'Z') *c = (char)(*c - 'A' + 'a');
    }
    v->names[v->names_len++] = (struct name){copy, v->certs_len};
    return CB_OK;
}

static int view_add_cert(cb_identity_view *v, const cb_identity_opts *s) {
    cb_tls_cert *grown = cb_mem_grow(heap, v->certs, (v->certs_len + 1) * sizeof *grown);
    if (!grown) return cb_fail(CB_ENOMEM, "no memory for a certificate");
    v->certs = grown;
    int rc = cb_tls_cert_load(&v->certs[v->certs_len], s, add_name, v);
    if (rc < 0) return rc;
    v->certs_len++;
    return CB_OK;
}

static int view_add_trusts(cb_identity_view *v, const cb_identity_content *c) {
    v->trusts = cb_mem_new(heap, c->trusts_len * sizeof *v->trusts);
    if (!v->trusts) return cb_fail(CB_ENOMEM, "no memory for an identity");
    for (; v->trusts_len < c->trusts_len; v->trusts_len++) {
        cb_tls_trust *t = &v->trusts[v->trusts_len];
        int rc = cb_tls_trust_load(t, &c->trusts[v->trusts_len]);
        if (rc < 0) return rc;
        gnutls_certificate_set_retrieve_function3(t->credentials, cb_tls_retrieve_cert);
    }
    v->roots_ready = v->trusts[0].own_roots;
    return CB_OK;
}

static int compare_names(const void *pa, const void *pb) {
    const struct name *a = pa, *b = pb;
    int order = strcmp(a->text, b->text);
    return order ? order : (a->cert > b->cert) - (a->cert < b->cert);
}

static int digest_client(cb_identity_view *v) {
    gnutls_hash_hd_t hash;
    int rc = gnutls_hash_init(&hash, GNUTLS_DIG_SHA256);
    if (rc >= 0) {
        rc = gnutls_hash(hash, v->trusts[0].digest, sizeof v->trusts[0].digest);
        for (size_t i = 0; rc >= 0 && i < v->certs_len; i++) {
            rc = gnutls_hash(hash, v->certs[i].chain[0].cert.data, v->certs[i].chain[0].cert.size);
        }
        gnutls_hash_deinit(hash, v->client_digest);
    }
    return rc < 0 ? cb_fail(CB_ETLS, "cannot hash a certificate: %s", gnutls_strerror(rc)) : CB_OK;
}

int cb_identity_view_load(cb_identity_view **out, const cb_identity_content *c) {
    cb_identity_view *v = NULL;
    int rc = view_new(&v);
    if (rc < 0) return rc;
    if (c->alpn01) v->alpn01 = cb_alpn01_ref(c->alpn01);
    for (size_t i = 0; rc >= 0 && i < c->sources_len; i++) {
        rc = view_add_cert(v, &c->sources[i]);
    }
    if (rc >= 0) rc = view_add_trusts(v, c);
    if (rc >= 0) rc = digest_client(v);
    if (rc < 0) {
        view_free(v);
        return rc;
    }
    if (v->names_len > 1) qsort(v->names, v->names_len, sizeof *v->names, compare_names);
    *out = v;
    return CB_OK;
}

cb_identity_view *cb_identity_view_ref(cb_identity_view *view) {
    atomic_fetch_add_explicit(&view->refs, 1, memory_order_relaxed);
    return view;
}

void cb_identity_view_unref(cb_identity_view *view) {
    if (view && atomic_fetch_sub_explicit(&view->refs, 1, memory_order_acq_rel) == 1) view_free(view);
}

int cb_identity_view_need_roots(cb_identity_view *view) {
    int rc = CB_OK;
    pthread_mutex_lock(&view->roots_lock);
    if (!view->roots_ready) {
        int n = gnutls_certificate_set_x509_system_trust(view->trusts[0].credentials);
        if (n > 0) {
            view->roots_ready = true;
        } else {
            rc = cb_fail(CB_ETLS, "the system has no trust roots (is the package ca-certificates installed?); name a "
                                  "ca_file in the identity");
        }
    }
    pthread_mutex_unlock(&view->roots_lock);
    return rc;
}

bool cb_identity_view_slow(const cb_identity_view *view) {
    for (size_t i = 0; i < view->certs_len; i++) {
        if (view->certs[i].slow) return true;
    }
    return false;
}

gnutls_priority_t cb_identity_view_priority(const cb_identity_view *view, enum cb_tls_flavour flavour) {
    return view->priorities[flavour];
}

const uint8_t *cb_identity_view_client_digest(const cb_identity_view *view) {
    return view->client_digest;
}

cb_alpn01 *cb_identity_view_alpn01(const cb_identity_view *view) {
    return view->alpn01;
}

/* "*.example.org" for "www.example.org"; false: the name has no label to spare. */
static bool wildcard_of(const char *name, char out[CB_SNI_MAX + 1]) {
    const char *dot = strchr(name, '.');
    size_t rest = dot ? strlen(dot) : 0;
    if (!dot || dot == name || rest + 2 > CB_SNI_MAX + 1) return false;
    out[0] = '*';
    memcpy(out + 1, dot, rest + 1);
    return true;
}

static const cb_tls_trust *find_trust(const cb_identity_view *v, const char *host) {
    size_t low = 0, high = v->trusts_len;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(v->trusts[mid].host, host);
        if (order == 0) return &v->trusts[mid];
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

const cb_tls_trust *cb_identity_view_trust(const cb_identity_view *view, const char *name) {
    char wildcard[CB_SNI_MAX + 1];
    const cb_tls_trust *found = *name && view->trusts_len > 1 ? find_trust(view, name) : NULL;
    if (!found && *name && view->trusts_len > 1 && wildcard_of(name, wildcard)) found = find_trust(view, wildcard);
    return found ? found : &view->trusts[0];
}

/* Where the names equal to text begin; names_len when there is none. */
static size_t find_name(const cb_identity_view *v, const char *text) {
    size_t low = 0, high = v->names_len;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (strcmp(v->names[mid].text, text) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < v->names_len && strcmp(v->names[low].text, text) == 0 ? low : v->names_len;
}

static bool client_can(const cb_tls_cert *cert, unsigned abilities) {
    return abilities == 0 || (cert->ability & abilities) != 0;
}

/* Among two that the client can check, the one that is cheaper to sign with. */
static const cb_tls_cert *better(const cb_tls_cert *a, const cb_tls_cert *b) {
    const unsigned rsa = CB_SIG_RSA | CB_SIG_RSA_PSS;
    if (!a) return b;
    return (a->ability & rsa) && !(b->ability & rsa) ? b : a;
}

static const cb_tls_cert *choose_named(const cb_identity_view *v, const char *text, unsigned abilities,
                                       const cb_tls_cert **any) {
    const cb_tls_cert *best = NULL;
    for (size_t i = find_name(v, text); i < v->names_len && strcmp(v->names[i].text, text) == 0; i++) {
        const cb_tls_cert *cert = &v->certs[v->names[i].cert];
        if (!*any) *any = cert;
        if (client_can(cert, abilities)) best = better(best, cert);
    }
    return best;
}

const cb_tls_cert *cb_identity_view_choose(const cb_identity_view *view, const char *name, unsigned abilities) {
    if (view->certs_len == 0) return NULL;
    const cb_tls_cert *any = NULL, *found = NULL;
    if (*name) found = choose_named(view, name, abilities, &any);
    char wildcard[CB_SNI_MAX + 1];
    if (!found && wildcard_of(name, wildcard)) found = choose_named(view, wildcard, abilities, &any);
    if (found) return found;
    /* A certificate with the right name that the client may not like says more to a person than a wrong name. */
    if (any) return any;
    for (size_t i = 0; i < view->certs_len; i++) {
        if (client_can(&view->certs[i], abilities)) return &view->certs[i];
    }
    return &view->certs[0];
}

bool cb_identity_view_named(const cb_identity_view *view, const char *name) {
    const cb_tls_cert *any = NULL;
    char wildcard[CB_SNI_MAX + 1];
    (void)choose_named(view, name, 0, &any);
    if (!any && wildcard_of(name, wildcard)) (void)choose_named(view, wildcard, 0, &any);
    return any != NULL;
}

int64_t cb_identity_view_expires(const cb_identity_view *v) {
    int64_t at = 0;
    for (size_t i = 0; i < v->certs_len; i++)
        if (i == 0 || v->certs[i].expires < at) at = v->certs[i].expires;
    return at;
}

/* ---- what will stop to work ---- */

typedef struct examiner {
    int64_t now_s, within_s;
    void (*fn)(int level, const char *text, void *user);
    void *user;
} examiner;

static void say(const examiner *e, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void say(const examiner *e, int level, const char *fmt, ...) {
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    e->fn(level, text, e->user);
}

/* `harm`: the level when it is over. */
static void examine_date(const examiner *e, int64_t from, int64_t at, int harm, const char *file, const char *what) {
    const int64_t third = (at - from) / 3;
    char day[32];
    time_t t = (time_t)at;
    struct tm tm;
    if (at - e->now_s > (third < e->within_s ? third : e->within_s)) return;
    if (!gmtime_r(&t, &tm) || strftime(day, sizeof day, "%Y-%m-%d %H:%M UTC", &tm) == 0) snprintf(day, sizeof day, "?");
    if (at <= e->now_s)
        say(e, harm, "%s: %s expired on %s", file, what, day);
    else
        say(e, CB_LOG_WARN, "%s: %s expires on %s", file, what, day);
}

static void examine_cert(const examiner *e, const cb_tls_cert *cert, const cb_identity_opts *o) {
    const bool staples = cb_tls_staple_usable(&cert->staple, e->now_s);
    examine_date(e, cert->begins, cert->expires, CB_LOG_ERROR, o->cert_file, "the certificate");
    if (o->ocsp_file && !cert->staple.good)
        say(e, CB_LOG_ERROR, "%s: the certificate %s is not good by this OCSP answer, which is not sent", o->ocsp_file,
            o->cert_file);
    if (o->ocsp_file && cert->staple.next_update != -1)
        examine_date(e, cert->staple.this_update, cert->staple.next_update, CB_LOG_WARN, o->ocsp_file,
                     "the OCSP answer");
    if (cert->must_staple && !staples)
        say(e, CB_LOG_ERROR, "%s: the certificate must staple, and there is no good OCSP answer: clients refuse it",
            o->cert_file);
}

static void examine_trust(const examiner *e, const cb_tls_trust *t) {
    if (t->roots_expire) examine_date(e, 0, t->roots_expire, CB_LOG_ERROR, t->ca_file, "an authority");
    for (size_t i = 0; i < cb_crl_set_len(t->crls); i++) {
        char what[256];
        const char *issuer;
        int64_t since, due = cb_crl_set_due(t->crls, i, &issuer, &since);
        snprintf(what, sizeof what, "the revocation list of %s%s", issuer,
                 t->stale_crl ? "" : ", without which nobody gets in,");
        if (due != -1) examine_date(e, since, due, t->stale_crl ? CB_LOG_WARN : CB_LOG_ERROR, t->crl_file, what);
    }
}

void cb_identity_view_examine(const cb_identity_view *v, const cb_identity_content *c, int64_t now_s, uint32_t within_s,
                              void (*fn)(int level, const char *text, void *user), void *user) {
    const examiner e = {now_s, (int64_t)within_s, fn, user};
    for (size_t i = 0; i < v->certs_len; i++)
        examine_cert(&e, &v->certs[i], &c->sources[i]);
    for (size_t i = 0; i < v->trusts_len; i++)
        examine_trust(&e, &v->trusts[i]);
}

/* ---- what there is ---- */

typedef struct lister {
    void (*fn)(const cb_identity_item *item, void *user);
    void *user;
    const char **names; /* room for those of any certificate */
} lister;

static void list_cert(const lister *l, const cb_identity_view *v, size_t i, const cb_identity_opts *o) {
    const cb_tls_cert *cert = &v->certs[i];
    cb_identity_item item = {.size = sizeof item,
                             .kind = CB_IDENTITY_CERTIFICATE,
                             .file = o->cert_file,
                             .names = l->names,
                             .since_s = cert->begins,
                             .until_s = cert->expires,
                             .must_staple = cert->must_staple};
    for (size_t k = 0; k < v->names_len; k++)
        if (v->names[k].cert == i) l->names[item.names_len++] = v->names[k].text;
    item.name = item.names_len ? l->names[0] : o->cert_file ? o->cert_file : "";
    l->fn(&item, l->user);
    if (cert->above_expires) {
        item.kind = CB_IDENTITY_CHAIN;
        item.since_s = cert->above_begins;
        item.until_s = cert->above_expires;
        l->fn(&item, l->user);
    }
    if (!o->ocsp_file) return;
    item.kind = CB_IDENTITY_OCSP;
    item.file = o->ocsp_file;
    item.since_s = cert->staple.this_update;
    item.until_s = cert->staple.next_update;
    item.bad = !cert->staple.good;
    l->fn(&item, l->user);
}

static void list_trust(const lister *l, const cb_tls_trust *t) {
    cb_identity_item item = {.size = sizeof item,
                             .kind = CB_IDENTITY_ROOTS,
                             .name = t->host,
                             .file = t->ca_file,
                             .since_s = -1,
                             .until_s = t->roots_expire};
    if (t->roots_expire) l->fn(&item, l->user);
    item.kind = CB_IDENTITY_CRL;
    item.file = t->crl_file;
    for (size_t i = 0; i < cb_crl_set_len(t->crls); i++) {
        item.until_s = cb_crl_set_due(t->crls, i, &item.name, &item.since_s);
        l->fn(&item, l->user);
    }
}

int cb_identity_view_list(const cb_identity_view *v, const cb_identity_content *c,
                          void (*fn)(const cb_identity_item *item, void *user), void *user) {
    lister l = {.fn = fn, .user = user};
    if (v->names_len && !(l.names = cb_mem_new(heap, v->names_len * sizeof *l.names)))
        return cb_fail(CB_ENOMEM, "no memory for a list of certificates");
    for (size_t i = 0; i < v->certs_len; i++)
        list_cert(&l, v, i, &c->sources[i]);
    for (size_t i = 0; i < v->trusts_len; i++)
        list_trust(&l, &v->trusts[i]);
    cb_mem_free(heap, l.names);
    return CB_OK;
}
