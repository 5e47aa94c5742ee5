#include "transport/token_key.h"
#include "base/error.h"
#include "base/list.h"
#include "base/mem.h"
#include "transport/sign_wait.h"
#include "transport/tls_cert.h"
#include <gnutls/pkcs11.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const cb_alloc *const heap = &cb_alloc_libc;
static const char scheme[] = "pkcs11:";

enum {
    WAITING_MAX = 1024, /* signatures of one key at a time: more would only wait for their handshakes' deadlines */
    SESSIONS = 4,       /* as many threads as libuv's pool has */
    RSA_PKCS_PSS = 0x0d /* CKM_RSA_PKCS_PSS of PKCS#11 */
};

/* Where the PIN comes from, and what became of asking. */
struct pin {
    char *file;   /* NULL = the environment */
    bool missing; /* nobody has told one */
    bool wrong;   /* the token said so: it is not asked again, for it counts */
    int rc;       /* why the file cannot be read; the detail is cb_last_error() */
};

/* A key, opened as often as it is needed at a time: each has a session of its own with the token. */
struct token {
    atomic_uint refs; /* the key's, and of each signature under way */
    char *url;
    struct pin pin;
    int algorithm;
    unsigned bits;
    bool pss; /* the token can make RSA-PSS signatures, which TLS 1.3 wants */
    pthread_mutex_t lock;
    pthread_cond_t freed;
    gnutls_privkey_t keys[SESSIONS];
    bool busy[SESSIONS];
};

bool cb_token_is_url(const char *text) {
    return text && strncasecmp(text, scheme, sizeof scheme - 1) == 0;
}

/* --- the URL --- */

static int hex_of(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place; false: not well escaped, or a NUL. */
static bool unescape(char *text) {
    char *to = text;
    for (const char *from = text; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex_of(from[1]), low = high < 0 ? -1 : hex_of(from[2]);
        if (low < 0 || (high == 0 && low == 0)) return false;
        *to++ = (char)(high << 4 | low);
        from += 2;
    }
    *to = '\0';
    return true;
}

/* Takes a query attribute (RFC 7512, 2.3) out of the URL; *value stays NULL when it is not there. */
static int take_query(char *url, const char *name, char **value) {
    size_t len = strlen(name);
    for (char *p = strchr(url, '?'); p; p = strchr(p + 1, '&')) {
        if (strncmp(p + 1, name, len) != 0 || p[1 + len] != '=') continue;
        char *begin = p + 2 + len, *end = begin + strcspn(begin, "&");
        *value = cb_mem_get(heap, (size_t)(end - begin) + 1);
        if (!*value) return cb_fail(CB_ENOMEM, "no memory for a PKCS#11 URL");
        memcpy(*value, begin, (size_t)(end - begin));
        (*value)[end - begin] = '\0';
        if (*end) { /* what follows takes its place, and its "?" or "&" */
            memmove(p + 1, end + 1, strlen(end));
        } else {
            *p = '\0';
        }
        return unescape(*value) ? CB_OK : cb_fail(CB_EINVAL, "PKCS#11 URL: %s is not well escaped", name);
    }
    return CB_OK;
}

/* --- the PIN --- */

static int read_pin_file(const char *path, char *pin, size_t max) {
    gnutls_datum_t text;
    bool loose = false;
    int rc = cb_tls_file_read(path, &text, &loose);
    if (rc < 0) return rc;
    size_t len = 0;
    while (len < text.size && text.data[len] && text.data[len] != '\n' && text.data[len] != '\r') {
        len++;
    }
    if (loose) {
        rc = cb_fail(CB_EPERM, "%s: others may read this PIN (chmod 600)", path);
    } else if (len == 0 || len >= max) {
        rc = cb_fail(CB_EINVAL, "%s: no PIN in its first line", path);
    } else {
        memcpy(pin, text.data, len);
        pin[len] = '\0';
    }
    cb_mem_wipe(text.data, text.size);
    gnutls_free(text.data);
    return rc;
}

static int give_pin(void *user, int attempt, const char *url, const char *label, unsigned flags, char *pin,
                    size_t max) {
    struct pin *p = user;
    (void)url;
    (void)label;
    if (attempt > 0 || flags & GNUTLS_PIN_WRONG) {
        p->wrong = true;
        return GNUTLS_E_PKCS11_PIN_ERROR;
    }
    if (p->file) {
        p->rc = read_pin_file(p->file, pin, max);
        return p->rc < 0 ? GNUTLS_E_PKCS11_PIN_ERROR : 0;
    }
    const char *text = secure_getenv("GNUTLS_PIN");
    p->missing = !text || !*text || strlen(text) >= max;
    if (p->missing) return GNUTLS_E_PKCS11_PIN_ERROR;
    memcpy(pin, text, strlen(text) + 1);
    return 0;
}

/* --- opening --- */

static int add_module(const char *path) {
    int rc = gnutls_pkcs11_add_provider(path, NULL);
    if (rc >= 0 || rc == GNUTLS_E_INT_RET_0) return CB_OK;
    return cb_fail(CB_EINVAL, "PKCS#11 module %s: %s", path, gnutls_strerror(rc));
}

/* Why GnuTLS found nothing. */
static int nothing_found(const char *url) {
    char *token = NULL;
    int rc = gnutls_pkcs11_token_get_url(0, GNUTLS_PKCS11_URL_GENERIC, &token);
    gnutls_free(token);
    if (rc < 0) {
        return cb_fail(CB_EINVAL,
                       "%s: there is no PKCS#11 token (p11-kit knows no module that has one; name one by "
                       "?module-path=/path, or see \"p11tool --list-tokens\")",
                       url);
    }
    return cb_fail(CB_EINVAL, "%s: no token has this private key (see \"p11tool --login --list-privkeys\")", url);
}

static int explain(int grc, const char *url, const struct pin *pin) {
    if (pin->rc < 0) return pin->rc; /* its detail stands */
    if (pin->missing) {
        return cb_fail(CB_EAUTH,
                       "%s: the token wants a PIN: ?pin-source=file:/path in the URL, or GNUTLS_PIN in the "
                       "environment",
                       url);
    }
    switch (grc) {
    case GNUTLS_E_PKCS11_PIN_LOCKED:
        return cb_fail(CB_EAUTH, "%s: the token has locked the PIN after wrong ones", url);
    case GNUTLS_E_PKCS11_PIN_ERROR:
    case GNUTLS_E_PKCS11_PIN_EXPIRED:
        return cb_fail(CB_EAUTH, "%s: the token refuses the PIN%s", url,
                       grc == GNUTLS_E_PKCS11_PIN_EXPIRED ? ": it has expired"
                       : pin->wrong                       ? ": it is wrong"
                                                          : "");
    case GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE:
    case GNUTLS_E_PKCS11_REQUESTED_OBJECT_NOT_AVAILBLE:
        return nothing_found(url);
    default:
        return cb_fail(CB_EINVAL, "%s: %s", url, gnutls_strerror(grc));
    }
}

/* Takes out of the URL what is ours and not GnuTLS's. */
static int read_url(struct token *t) {
    char *source = NULL, *value = NULL, *module = NULL;
    int rc = take_query(t->url, "pin-source", &source);
    if (rc >= 0) rc = take_query(t->url, "pin-value", &value);
    if (rc >= 0) rc = take_query(t->url, "module-path", &module);
    if (rc >= 0 && value) {
        cb_mem_wipe(value, strlen(value));
        rc = cb_fail(CB_EINVAL, "%s: a PIN does not belong into a URL (pin-value): use ?pin-source=file:/path", t->url);
    }
    if (rc >= 0 && source) {
        const char *path = strncmp(source, "file:", 5) == 0 ? source + 5 : source;
        if (strncmp(path, "//", 2) == 0) path += 2; /* file:///path */
        if (!*path || *path == '|') rc = cb_fail(CB_EINVAL, "%s: pin-source is not file:/path", t->url);
        if (rc >= 0 && !(t->pin.file = cb_mem_text(heap, path))) rc = cb_fail(CB_ENOMEM, "%s: no memory", t->url);
    }
    if (rc >= 0 && module) rc = add_module(module);
    cb_mem_free(heap, source);
    cb_mem_free(heap, value);
    cb_mem_free(heap, module);
    return rc;
}

static int open_session(struct token *t, gnutls_privkey_t *out) {
    gnutls_privkey_t key = NULL;
    int rc = gnutls_privkey_init(&key);
    if (rc >= 0) gnutls_privkey_set_pin_function(key, give_pin, &t->pin);
    if (rc >= 0) rc = gnutls_privkey_import_url(key, t->url, 0);
    if (rc >= 0) {
        *out = key;
    } else if (key) {
        gnutls_privkey_deinit(key);
    }
    return rc;
}

static void token_unref(struct token *t) {
    if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) > 1) return;
    for (size_t i = 0; i < SESSIONS; i++) {
        if (t->keys[i]) gnutls_privkey_deinit(t->keys[i]);
    }
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->freed);
    cb_mem_free(heap, t->url);
    cb_mem_free(heap, t->pin.file);
    cb_mem_free(heap, t);
}

/* --- signing --- */

/* A session that nobody uses; a code of GnuTLS when one cannot be opened. */
static int acquire(struct token *t, size_t *at) {
    int rc = 0;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        size_t i = 0;
        while (i < SESSIONS && t->busy[i]) {
            i++;
        }
        if (i == SESSIONS) {
            pthread_cond_wait(&t->freed, &t->lock);
            continue;
        }
        if (!t->keys[i]) rc = open_session(t, &t->keys[i]);
        t->busy[i] = rc >= 0;
        *at = i;
        break;
    }
    pthread_mutex_unlock(&t->lock);
    return rc;
}

static void release(struct token *t, size_t at) {
    pthread_mutex_lock(&t->lock);
    t->busy[at] = false;
    pthread_cond_signal(&t->freed);
    pthread_mutex_unlock(&t->lock);
}

/* A signature that is wanted. */
struct job {
    cb_sign_job base;
    struct token *token;
    gnutls_sign_algorithm_t algorithm;
    unsigned flags;
    bool hashed;
    gnutls_datum_t data;
};

static void job_run(cb_sign_job *base) {
    struct job *j = CB_CONTAINER(base, struct job, base);
    size_t at;
    base->rc = acquire(j->token, &at);
    if (base->rc < 0) return;
    gnutls_privkey_t key = j->token->keys[at];
    base->rc = j->hashed ? gnutls_privkey_sign_hash2(key, j->algorithm, j->flags, &j->data, &base->signature)
                         : gnutls_privkey_sign_data2(key, j->algorithm, j->flags, &j->data, &base->signature);
    release(j->token, at);
}

static void job_drop(cb_sign_job *base) {
    struct job *j = CB_CONTAINER(base, struct job, base);
    gnutls_free(base->signature.data);
    token_unref(j->token);
    cb_mem_free(heap, j);
}

static int sign(struct token *t, gnutls_sign_algorithm_t algorithm, bool hashed, unsigned flags,
                const gnutls_datum_t *data, gnutls_datum_t *signature) {
    if (atomic_load_explicit(&t->refs, memory_order_relaxed) > WAITING_MAX) return GNUTLS_E_PKCS11_DEVICE_ERROR;
    struct job *j = cb_mem_new(heap, sizeof *j + data->size);
    if (!j) return GNUTLS_E_MEMORY_ERROR;
    uint8_t *copy = (uint8_t *)(j + 1);
    memcpy(copy, data->data, data->size);
    *j = (struct job){{job_run, job_drop, 0, {NULL, 0}}, t, algorithm, flags, hashed, {copy, data->size}};
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return cb_sign_job_do(&j->base, signature);
}

static int sign_data(gnutls_privkey_t key, gnutls_sign_algorithm_t algorithm, void *user, unsigned flags,
                     const gnutls_datum_t *data, gnutls_datum_t *signature) {
    (void)key;
    return sign(user, algorithm, false, flags, data, signature);
}

static int sign_hash(gnutls_privkey_t key, gnutls_sign_algorithm_t algorithm, void *user, unsigned flags,
                     const gnutls_datum_t *hash, gnutls_datum_t *signature) {
    (void)key;
    return sign(user, algorithm, true, flags, hash, signature);
}

/* RSA only: PKCS #1 v1.5 (RFC 8017, 7.2). */
static int decrypt(gnutls_privkey_t key, void *user, const gnutls_datum_t *in, gnutls_datum_t *out) {
    struct token *t = user;
    size_t at;
    (void)key;
    int rc = acquire(t, &at);
    if (rc < 0) return rc;
    rc = gnutls_privkey_decrypt_data(t->keys[at], 0, in, out);
    release(t, at);
    return rc;
}

static int tell(gnutls_privkey_t key, unsigned flags, void *user) {
    const struct token *t = user;
    (void)key;
    if (flags & GNUTLS_PRIVKEY_INFO_PK_ALGO) return t->algorithm;
    if (flags & GNUTLS_PRIVKEY_INFO_PK_ALGO_BITS) return (int)t->bits;
    if (!(flags & GNUTLS_PRIVKEY_INFO_HAVE_SIGN_ALGO)) return -1;
    gnutls_sign_algorithm_t algorithm = (gnutls_sign_algorithm_t)GNUTLS_FLAGS_TO_SIGN_ALGO(flags);
    bool pss = gnutls_sign_supports_pk_algorithm(algorithm, GNUTLS_PK_RSA_PSS) != 0;
    if (pss && !t->pss) return 0;
    return gnutls_sign_supports_pk_algorithm(algorithm, (gnutls_pk_algorithm_t)t->algorithm) != 0;
}

static void forget(gnutls_privkey_t key, void *user) {
    (void)key;
    token_unref(user);
}

/* --- the key --- */

static int open_token(struct token *t, gnutls_pubkey_t *pub) {
    int rc = read_url(t);
    if (rc < 0) return rc;
    int grc = open_session(t, &t->keys[0]);
    if (grc < 0) return explain(grc, t->url, &t->pin);
    t->algorithm = gnutls_privkey_get_pk_algorithm(t->keys[0], &t->bits);
    t->pss = gnutls_pkcs11_token_check_mechanism(t->url, RSA_PKCS_PSS, NULL, 0, 0) > 0;
    if (!pub) return CB_OK;
    grc = gnutls_pubkey_init(pub);
    if (grc < 0) return cb_fail(CB_ENOMEM, "%s: no memory", t->url);
    grc = gnutls_pubkey_import_privkey(*pub, t->keys[0], 0, 0);
    if (grc >= 0) return CB_OK;
    gnutls_pubkey_deinit(*pub);
    *pub = NULL;
    return cb_fail(CB_EINVAL, "%s: the token does not tell the public key: %s", t->url, gnutls_strerror(grc));
}

int cb_token_key_open(gnutls_privkey_t *out, gnutls_pubkey_t *pub, const char *url) {
    gnutls_privkey_t key = NULL;
    struct token *t = cb_mem_new(heap, sizeof *t);
    if (!t) return cb_fail(CB_ENOMEM, "no memory for a key on a token");
    atomic_init(&t->refs, 1);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->freed, NULL);
    t->url = cb_mem_text(heap, url);
    if (pub) *pub = NULL;
    int rc = t->url ? open_token(t, pub) : cb_fail(CB_ENOMEM, "no memory for a key on a token");
    if (rc >= 0 && (gnutls_privkey_init(&key) < 0 ||
                    gnutls_privkey_import_ext4(key, t, sign_data, sign_hash, decrypt, forget, tell, 0) < 0)) {
        rc = cb_fail(CB_ENOMEM, "%s: no memory", t->url);
    }
    if (rc >= 0) {
        *out = key;
        return CB_OK;
    }
    if (key) gnutls_privkey_deinit(key);
    if (pub && *pub) gnutls_pubkey_deinit(*pub);
    token_unref(t);
    return rc;
}

int cb_token_key_check(gnutls_privkey_t key, gnutls_x509_crt_t crt, const char *url, const char *cert_file) {
    static const gnutls_datum_t text = {(uint8_t *)(uintptr_t) "is it the key of this certificate?", 34};
    gnutls_pubkey_t pub = NULL;
    gnutls_datum_t signature = {NULL, 0};
    gnutls_digest_algorithm_t hash = GNUTLS_DIG_SHA256;
    int rc = gnutls_pubkey_init(&pub);
    if (rc >= 0) rc = gnutls_pubkey_import_x509(pub, crt, 0);
    if (rc >= 0) rc = gnutls_pubkey_get_preferred_hash_algorithm(pub, &hash, NULL);
    bool alike = rc >= 0 && gnutls_pubkey_get_pk_algorithm(pub, NULL) == gnutls_privkey_get_pk_algorithm(key, NULL);
    gnutls_sign_algorithm_t sign_by =
        alike ? gnutls_pk_to_sign((gnutls_pk_algorithm_t)gnutls_pubkey_get_pk_algorithm(pub, NULL), hash)
              : GNUTLS_SIGN_UNKNOWN;
    if (alike) rc = gnutls_privkey_sign_data2(key, sign_by, 0, &text, &signature);
    int signed_rc = rc;
    if (alike && rc >= 0) rc = gnutls_pubkey_verify_data2(pub, sign_by, 0, &text, &signature);
    gnutls_free(signature.data);
    if (pub) gnutls_pubkey_deinit(pub);
    if (alike && rc >= 0) return CB_OK;
    if (signed_rc < 0) return cb_fail(CB_EINVAL, "%s: the token does not sign: %s", url, gnutls_strerror(signed_rc));
    return cb_fail(CB_EINVAL, "%s is not the key of %s", url, cert_file);
}
