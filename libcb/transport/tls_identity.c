#include "transport/tls_identity.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/tls_cert.h"
#include <gnutls/crypto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

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
    int64_t expires;
    gnutls_certificate_credentials_t credentials;
    gnutls_priority_t priorities[CB_TLS_FLAVOURS];
    bool own_roots;
    uint8_t roots_digest[32], client_digest[32];
    pthread_mutex_t roots_lock; /* guards reading the system's roots into the credentials */
    bool roots_ready;
};

struct source {
    char *cert_file, *key_file;
};

struct cb_identity {
    atomic_uint refs;
    pthread_mutex_t change_lock; /* one change at a time; guards the sources, held while files are read */
    struct source *sources;
    size_t sources_len;
    char *ca_file;
    pthread_mutex_t view_lock; /* guards the pointer only, so handshakes never wait for a file */
    cb_identity_view *view;
};

/* --- the view --- */

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
    if (v->credentials) gnutls_certificate_free_credentials(v->credentials);
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
    pthread_mutex_destroy(&v->roots_lock);
    cb_mem_free(heap, v);
}

static int view_new(cb_identity_view **out) {
    cb_identity_view *v = cb_mem_new(heap, sizeof *v);
    if (!v) return cb_fail(CB_ENOMEM, "no memory for an identity");
    atomic_init(&v->refs, 1);
    pthread_mutex_init(&v->roots_lock, NULL);
    int rc = gnutls_certificate_allocate_credentials(&v->credentials);
    for (size_t i = 0; rc >= 0 && i < CB_TLS_FLAVOURS; i++) {
        rc = gnutls_priority_init2(&v->priorities[i], priority_text[i], NULL, 0);
    }
    if (rc < 0) {
        view_free(v);
        return cb_fail(rc == GNUTLS_E_MEMORY_ERROR ? CB_ENOMEM : CB_ETLS, "cannot set TLS up: %s", gnutls_strerror(rc));
    }
    gnutls_certificate_set_retrieve_function3(v->credentials, cb_tls_retrieve_cert);
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

static int view_add_cert(cb_identity_view *v, const struct source *s) {
    cb_tls_cert *grown = cb_mem_grow(heap, v->certs, (v->certs_len + 1) * sizeof *grown);
    if (!grown) return cb_fail(CB_ENOMEM, "no memory for a certificate");
    v->certs = grown;
    int64_t expires = 0;
    int rc = cb_tls_cert_load(&v->certs[v->certs_len], s->cert_file, s->key_file, &expires, add_name, v);
    if (rc < 0) return rc;
    if (v->certs_len == 0 || expires < v->expires) v->expires = expires;
    v->certs_len++;
    return CB_OK;
}

static int view_add_roots(cb_identity_view *v, const char *ca_file) {
    gnutls_datum_t pem;
    int rc = cb_tls_file_read(ca_file, &pem, NULL);
    if (rc < 0) return rc;
    int n = gnutls_certificate_set_x509_trust_mem(v->credentials, &pem, GNUTLS_X509_FMT_PEM);
    int digest_rc = gnutls_hash_fast(GNUTLS_DIG_SHA256, pem.data, pem.size, v->roots_digest);
    gnutls_free(pem.data);
    if (n <= 0 || digest_rc < 0) {
        return cb_fail(CB_EINVAL, "%s: no PEM certificate in it that could be a trust root%s%s", ca_file,
                       n < 0 ? ": " : "", n < 0 ? gnutls_strerror(n) : "");
    }
    v->own_roots = v->roots_ready = true;
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
        rc = gnutls_hash(hash, v->roots_digest, sizeof v->roots_digest);
        for (size_t i = 0; rc >= 0 && i < v->certs_len; i++) {
            rc = gnutls_hash(hash, v->certs[i].chain[0].cert.data, v->certs[i].chain[0].cert.size);
        }
        gnutls_hash_deinit(hash, v->client_digest);
    }
    return rc < 0 ? cb_fail(CB_ETLS, "cannot hash a certificate: %s", gnutls_strerror(rc)) : CB_OK;
}

static int view_load(cb_identity_view **out, const struct source *sources, size_t n, const char *ca_file) {
    cb_identity_view *v = NULL;
    int rc = view_new(&v);
    if (rc < 0) return rc;
    for (size_t i = 0; rc >= 0 && i < n; i++) {
        rc = view_add_cert(v, &sources[i]);
    }
    if (rc >= 0 && ca_file) rc = view_add_roots(v, ca_file);
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
        int n = gnutls_certificate_set_x509_system_trust(view->credentials);
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

gnutls_certificate_credentials_t cb_identity_view_credentials(cb_identity_view *view) {
    return view->credentials;
}

gnutls_priority_t cb_identity_view_priority(const cb_identity_view *view, enum cb_tls_flavour flavour) {
    return view->priorities[flavour];
}

const uint8_t *cb_identity_view_roots_digest(const cb_identity_view *view) {
    return view->roots_digest;
}

const uint8_t *cb_identity_view_client_digest(const cb_identity_view *view) {
    return view->client_digest;
}

int cb_identity_view_own_roots(const cb_identity_view *view) {
    return view->own_roots;
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
    const char *dot = strchr(name, '.');
    size_t rest = dot ? strlen(dot) : 0;
    char wildcard[CB_SNI_MAX + 1];
    if (!found && dot && dot != name && rest + 2 <= sizeof wildcard) {
        wildcard[0] = '*';
        memcpy(wildcard + 1, dot, rest + 1);
        found = choose_named(view, wildcard, abilities, &any);
    }
    if (found) return found;
    /* A certificate with the right name that the client may not like says more to a person than a wrong name. */
    if (any) return any;
    for (size_t i = 0; i < view->certs_len; i++) {
        if (client_can(&view->certs[i], abilities)) return &view->certs[i];
    }
    return &view->certs[0];
}

/* --- the identity --- */

cb_identity_view *cb_identity_view_get(cb_identity *id) {
    pthread_mutex_lock(&id->view_lock);
    cb_identity_view *v = cb_identity_view_ref(id->view);
    pthread_mutex_unlock(&id->view_lock);
    return v;
}

static void swap_view(cb_identity *id, cb_identity_view *fresh) {
    pthread_mutex_lock(&id->view_lock);
    cb_identity_view *old = id->view;
    id->view = fresh;
    pthread_mutex_unlock(&id->view_lock);
    cb_identity_view_unref(old);
}

static void source_clear(struct source *s) {
    cb_mem_free(heap, s->cert_file);
    cb_mem_free(heap, s->key_file);
    *s = (struct source){NULL, NULL};
}

static void identity_free(cb_identity *id) {
    for (size_t i = 0; i < id->sources_len; i++) {
        source_clear(&id->sources[i]);
    }
    cb_mem_free(heap, id->sources);
    cb_mem_free(heap, id->ca_file);
    cb_identity_view_unref(id->view);
    pthread_mutex_destroy(&id->view_lock);
    pthread_mutex_destroy(&id->change_lock);
    cb_mem_free(heap, id);
}

static int check_pair(const cb_identity_opts *o) {
    if (!o->cert_file != !o->key_file) {
        return cb_fail(CB_EINVAL, "cb_identity_opts: %s is set but not %s", o->cert_file ? "cert_file" : "key_file",
                       o->cert_file ? "key_file" : "cert_file");
    }
    return CB_OK;
}

/* Reads all sources and one more; makes it part of the identity when everything was good. Called with change_lock. */
static int identity_extend(cb_identity *id, const char *cert_file, const char *key_file) {
    struct source *grown = cb_mem_grow(heap, id->sources, (id->sources_len + 1) * sizeof *grown);
    if (!grown) return cb_fail(CB_ENOMEM, "no memory for an identity");
    id->sources = grown;
    struct source s = {cb_mem_text(heap, cert_file), cb_mem_text(heap, key_file)};
    int rc = s.cert_file && s.key_file ? CB_OK : cb_fail(CB_ENOMEM, "no memory for an identity");
    cb_identity_view *v = NULL;
    if (rc >= 0) {
        id->sources[id->sources_len] = s;
        rc = view_load(&v, id->sources, id->sources_len + 1, id->ca_file);
    }
    if (rc < 0) {
        source_clear(&s);
        return rc;
    }
    id->sources_len++;
    swap_view(id, v);
    return CB_OK;
}

int cb_identity_new(cb_identity **out, const cb_identity_opts *opts) {
    if (!out) return cb_fail(CB_EINVAL, "cb_identity_new: out is NULL");
    cb_identity_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_identity_opts");
    if (rc >= 0) rc = check_pair(&o);
    if (rc < 0) return rc;
    cb_identity *id = cb_mem_new(heap, sizeof *id);
    if (!id) return cb_fail(CB_ENOMEM, "no memory for an identity");
    atomic_init(&id->refs, 1);
    pthread_mutex_init(&id->view_lock, NULL);
    pthread_mutex_init(&id->change_lock, NULL);
    if (o.ca_file && !(id->ca_file = cb_mem_text(heap, o.ca_file)))
        rc = cb_fail(CB_ENOMEM, "no memory for an identity");
    if (rc >= 0 && o.cert_file) rc = identity_extend(id, o.cert_file, o.key_file);
    if (rc >= 0 && !o.cert_file) rc = view_load(&id->view, NULL, 0, id->ca_file);
    if (rc < 0) {
        identity_free(id);
        return rc;
    }
    *out = id;
    return CB_OK;
}

int cb_identity_add(cb_identity *id, const cb_identity_opts *opts) {
    if (!id) return cb_fail(CB_EINVAL, "cb_identity_add: id is NULL");
    cb_identity_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_identity_opts");
    if (rc >= 0) rc = check_pair(&o);
    if (rc < 0) return rc;
    if (o.ca_file) return cb_fail(CB_EINVAL, "cb_identity_add: ca_file belongs into cb_identity_new()");
    if (!o.cert_file) return cb_fail(CB_EINVAL, "cb_identity_add: no cert_file");
    pthread_mutex_lock(&id->change_lock);
    rc = identity_extend(id, o.cert_file, o.key_file);
    pthread_mutex_unlock(&id->change_lock);
    return rc;
}

int cb_identity_reload(cb_identity *id) {
    if (!id) return cb_fail(CB_EINVAL, "cb_identity_reload: id is NULL");
    cb_identity_view *fresh;
    pthread_mutex_lock(&id->change_lock);
    int rc = view_load(&fresh, id->sources, id->sources_len, id->ca_file);
    if (rc >= 0) swap_view(id, fresh);
    pthread_mutex_unlock(&id->change_lock);
    return rc;
}

void cb_identity_swap(cb_identity *a, cb_identity *b) {
    if (a == b) return;
    cb_identity *first = a < b ? a : b, *second = a < b ? b : a; /* one order for all: no deadlock */
    pthread_mutex_lock(&first->change_lock);
    pthread_mutex_lock(&second->change_lock);
    struct source *sources = a->sources;
    size_t sources_len = a->sources_len;
    char *ca_file = a->ca_file;
    cb_identity_view *view = cb_identity_view_get(a);
    a->sources = b->sources;
    a->sources_len = b->sources_len;
    a->ca_file = b->ca_file;
    b->sources = sources;
    b->sources_len = sources_len;
    b->ca_file = ca_file;
    swap_view(a, cb_identity_view_get(b));
    swap_view(b, view);
    pthread_mutex_unlock(&second->change_lock);
    pthread_mutex_unlock(&first->change_lock);
}

int64_t cb_identity_expires(cb_identity *id) {
    pthread_mutex_lock(&id->view_lock);
    int64_t at = id->view->expires;
    pthread_mutex_unlock(&id->view_lock);
    return at;
}

cb_identity *cb_identity_ref(cb_identity *id) {
    atomic_fetch_add_explicit(&id->refs, 1, memory_order_relaxed);
    return id;
}

void cb_identity_unref(cb_identity *id) {
    if (id && atomic_fetch_sub_explicit(&id->refs, 1, memory_order_acq_rel) == 1) identity_free(id);
}
