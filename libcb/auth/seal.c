/* Envelopes. Numbers are big-endian.
 *
 *    0  8  "CBSEAL1\n"                      12  8  number of the key that wraps
 *    8  1  who wraps: 1 a secret, 2 RSA     20 12  nonce of the content
 *    9  1  bytes of the purpose             32     purpose, wrapped data key, content and its tag (16)
 *   10  2  bytes of the wrapped data key
 *
 * The content is AES-256-GCM under the data key (32 random bytes, fresh for each envelope), with all bytes before it as
 * associated data. A secret wraps by AES-256-GCM (nonce 12, key 32, tag 16), with the bytes 0 to 19 as associated data;
 * an RSA key by PKCS #1 v1.5 (RFC 8017, 7.2), the one scheme that GnuTLS 3.7 has. */
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/tls_cert.h"
#include "transport/token_key.h"
#include <cb/seal.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { HEAD = 32, WRAP_HEAD = 20, NONCE = 12, TAG = 16, KEY = CB_SEAL_KEY_BYTES, ID = 8, KEYS = 8 };
enum { BY_SECRET = 1, BY_RSA = 2, SECRET_WRAPPED = NONCE + KEY + TAG, RSA_MIN = 256, RSA_MAX = 1024 };
static const char magic[8] = {'C', 'B', 'S', 'E', 'A', 'L', '1', '\n'};

typedef struct seal_key {
    int kind; /* BY_SECRET, BY_RSA */
    uint8_t secret[KEY];
    gnutls_privkey_t priv;
    gnutls_pubkey_t pub;
    uint8_t id[ID];
    char id_text[2 * ID + 1];
} seal_key;

struct cb_seal {
    _Atomic uint32_t refs;
    size_t n;
    seal_key keys[KEYS]; /* the first seals */
};

/* ---- keys ---- */

static int key_number(seal_key *k) {
    static const char label[] = "cb seal key number";
    uint8_t text[sizeof label + KEY], hash[32];
    size_t len = sizeof hash;
    int grc;
    if (k->kind == BY_SECRET) {
        memcpy(text, label, sizeof label);
        memcpy(text + sizeof label, k->secret, KEY);
        grc = gnutls_hash_fast(GNUTLS_DIG_SHA256, text, sizeof text, hash);
        cb_mem_wipe(text, sizeof text);
    } else {
        grc = gnutls_pubkey_get_key_id(k->pub, GNUTLS_KEYID_USE_SHA256, hash, &len);
    }
    if (grc < 0) return cb_fail(CB_ETLS, "a sealing key has no number: %s", gnutls_strerror(grc));
    memcpy(k->id, hash, ID);
    for (size_t i = 0; i < ID; i++)
        snprintf(k->id_text + 2 * i, 3, "%02x", k->id[i]);
    return CB_OK;
}

static int make_key_file(const char *path) {
    uint8_t secret[KEY];
    if (gnutls_rnd(GNUTLS_RND_KEY, secret, sizeof secret) < 0) return cb_fail(CB_ETLS, "no random bytes for %s", path);
    int rc = CB_OK, fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno != EEXIST) rc = cb_fail_errno(errno, "%s", path);
    errno = ENOSPC; /* what a short write means */
    if (fd >= 0 && (write(fd, secret, sizeof secret) != (ssize_t)sizeof secret || fsync(fd) < 0)) {
        rc = cb_fail_errno(errno, "%s", path);
        unlink(path);
    }
    if (fd >= 0) close(fd);
    cb_mem_wipe(secret, sizeof secret);
    return rc;
}

static int read_key_file(seal_key *k, const char *path, bool make) {
    gnutls_datum_t bytes;
    bool loose = false;
    int rc = make && access(path, F_OK) < 0 && errno == ENOENT ? make_key_file(path) : CB_OK;
    if (rc == CB_OK) rc = cb_tls_file_read(path, &bytes, &loose);
    if (rc < 0) return rc;
    if (loose)
        rc = cb_fail(CB_EPERM, "%s: others may read this key; it must be of mode 0600", path);
    else if (bytes.size != KEY)
        rc = cb_fail(CB_EINVAL, "%s: has %u bytes; a sealing key is %d random ones", path, bytes.size, KEY);
    else
        memcpy(k->secret, bytes.data, KEY);
    cb_mem_wipe(bytes.data, bytes.size);
    gnutls_free(bytes.data);
    return rc;
}

static int open_token_key(seal_key *k, const char *url) {
    unsigned bits = 0;
    int rc = cb_token_key_open(&k->priv, &k->pub, url);
    if (rc < 0) return rc;
    if (gnutls_pubkey_get_pk_algorithm(k->pub, &bits) != GNUTLS_PK_RSA || bits < 8 * RSA_MIN || bits > 8 * RSA_MAX)
        return cb_fail(CB_EINVAL, "%s: to wrap, a key must be RSA of 2,048 to 8,192 bits", url);
    return CB_OK;
}

static int add_key(cb_seal *s, const char *name, cb_slice secret, bool make) {
    seal_key *k = &s->keys[s->n++];
    int rc = CB_OK;
    k->kind = cb_token_is_url(name) ? BY_RSA : BY_SECRET;
    if (!name)
        memcpy(k->secret, secret.base, KEY);
    else
        rc = k->kind == BY_RSA ? open_token_key(k, name) : read_key_file(k, name, make);
    return rc < 0 ? rc : key_number(k);
}

int cb_seal_new(cb_seal **out, const cb_seal_opts *opts) {
    cb_seal_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_seal_new: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_seal_opts");
    if (rc < 0) return rc;
    if (!o.key == !o.secret.len) return cb_fail(CB_EINVAL, "cb_seal_opts: one of key and secret is needed");
    if (!o.key && o.secret.len != KEY) return cb_fail(CB_EINVAL, "cb_seal_opts: secret must have %d bytes", KEY);
    if (o.n_old_keys > KEYS - 1) return cb_fail(CB_EINVAL, "cb_seal_opts: more than %d old keys", KEYS - 1);
    cb_seal *s = cb_mem_new(&cb_alloc_libc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for sealing keys");
    atomic_init(&s->refs, 1);
    rc = add_key(s, o.key, o.secret, o.make != 0);
    for (size_t i = 0; rc == CB_OK && i < o.n_old_keys; i++)
        rc = o.old_keys[i] ? add_key(s, o.old_keys[i], o.secret, false)
                           : cb_fail(CB_EINVAL, "cb_seal_opts: an old key is NULL");
    if (rc < 0) {
        cb_seal_unref(s);
        return rc;
    }
    *out = s;
    return CB_OK;
}

cb_seal *cb_seal_ref(cb_seal *s) {
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void cb_seal_unref(cb_seal *s) {
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) > 1) return;
    for (size_t i = 0; i < s->n; i++) {
        if (s->keys[i].priv) gnutls_privkey_deinit(s->keys[i].priv);
        if (s->keys[i].pub) gnutls_pubkey_deinit(s->keys[i].pub);
    }
    cb_mem_wipe(s, sizeof *s);
    cb_mem_free(&cb_alloc_libc, s);
}

const char *cb_seal_key_id(const cb_seal *s) {
    return s->keys[0].id_text;
}

void cb_seal_free(uint8_t *bytes, size_t len) {
    if (bytes) cb_mem_wipe(bytes, len);
    cb_mem_free(&cb_alloc_libc, bytes);
}

/* ---- AES-256-GCM ---- */

/* out gets len and the tag, or, to open, len without it. False: it does not fit the tag. */
static int gcm(bool close, const uint8_t key[KEY], const uint8_t nonce[NONCE], cb_slice aad, cb_slice in,
               uint8_t *out) {
    gnutls_aead_cipher_hd_t h;
    uint8_t copy[KEY];
    size_t n = close ? in.len + TAG : in.len - TAG;
    memcpy(copy, key, KEY);
    int grc = gnutls_aead_cipher_init(&h, GNUTLS_CIPHER_AES_256_GCM, &(gnutls_datum_t){copy, KEY});
    cb_mem_wipe(copy, sizeof copy);
    if (grc < 0) return grc;
    grc = close ? gnutls_aead_cipher_encrypt(h, nonce, NONCE, aad.base, aad.len, TAG, in.base, in.len, out, &n)
                : gnutls_aead_cipher_decrypt(h, nonce, NONCE, aad.base, aad.len, TAG, in.base, in.len, out, &n);
    gnutls_aead_cipher_deinit(h);
    return grc;
}

/* ---- the data key ---- */

static int wrap(const seal_key *k, const uint8_t head[WRAP_HEAD], const uint8_t data_key[KEY], uint8_t *out,
                size_t len) {
    gnutls_datum_t sealed = {NULL, 0};
    uint8_t copy[KEY];
    int grc;
    if (k->kind == BY_SECRET) {
        grc = gnutls_rnd(GNUTLS_RND_NONCE, out, NONCE);
        if (grc >= 0)
            grc = gcm(true, k->secret, out, (cb_slice){head, WRAP_HEAD}, (cb_slice){data_key, KEY}, out + NONCE);
    } else {
        memcpy(copy, data_key, KEY);
        grc = gnutls_pubkey_encrypt_data(k->pub, 0, &(gnutls_datum_t){copy, KEY}, &sealed);
        cb_mem_wipe(copy, sizeof copy);
        if (grc >= 0 && sealed.size != len) grc = GNUTLS_E_INTERNAL_ERROR;
        if (grc >= 0) memcpy(out, sealed.data, len);
        gnutls_free(sealed.data);
    }
    return grc < 0 ? cb_fail(CB_ETLS, "the sealing key %s does not wrap: %s", k->id_text, gnutls_strerror(grc)) : CB_OK;
}

static int unwrap(const seal_key *k, const uint8_t head[WRAP_HEAD], cb_slice wrapped, uint8_t data_key[KEY]) {
    int grc = GNUTLS_E_DECRYPTION_FAILED;
    if (k->kind == BY_SECRET) {
        if (wrapped.len == SECRET_WRAPPED)
            grc = gcm(false, k->secret, wrapped.base, (cb_slice){head, WRAP_HEAD},
                      (cb_slice){wrapped.base + NONCE, KEY + TAG}, data_key);
    } else {
        const gnutls_datum_t in = {(uint8_t *)(uintptr_t)wrapped.base, (unsigned)wrapped.len};
        grc = gnutls_privkey_decrypt_data2(k->priv, 0, &in, data_key, KEY);
    }
    if (grc >= 0) return CB_OK;
    if (grc == GNUTLS_E_DECRYPTION_FAILED)
        return cb_fail(CB_EPROTO, "the envelope was changed: its data key does not open");
    return cb_fail(CB_ETLS, "the sealing key %s does not open: %s", k->id_text, gnutls_strerror(grc));
}

static size_t wrapped_len(const seal_key *k) {
    unsigned bits = 0;
    if (k->kind == BY_SECRET) return SECRET_WRAPPED;
    gnutls_pubkey_get_pk_algorithm(k->pub, &bits);
    return (bits + 7) / 8;
}

/* ---- envelopes ---- */

static bool purpose_ok(const char *text, size_t len) {
    static const char bytes[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
    for (size_t i = 0; i < len; i++)
        if (!memchr(bytes, text[i], sizeof bytes - 1)) return false;
    return len > 0 && len <= CB_SEAL_PURPOSE_MAX;
}

/* Where the parts lie. */
typedef struct parts {
    cb_slice purpose, wrapped, content;
    size_t before; /* the content */
} parts;

static int read_parts(parts *p, cb_slice in) {
    if (in.len < sizeof magic || memcmp(in.base, magic, 6) != 0 || in.base[7] != '\n')
        return cb_fail(CB_EPROTO, "not a sealed file");
    if (in.base[6] != magic[6]) return cb_fail(CB_ENOTSUP, "sealed by another version of libcb");
    if (in.len < HEAD) return cb_fail(CB_EPROTO, "the envelope is cut off");
    p->purpose = (cb_slice){in.base + HEAD, in.base[9]};
    p->wrapped = (cb_slice){in.base + HEAD + p->purpose.len, (size_t)in.base[10] << 8 | in.base[11]};
    p->before = HEAD + p->purpose.len + p->wrapped.len;
    if (in.len < p->before + TAG) return cb_fail(CB_EPROTO, "the envelope is cut off");
    p->content = (cb_slice){in.base + p->before, in.len - p->before};
    const bool rsa = in.base[8] == BY_RSA && p->wrapped.len >= RSA_MIN && p->wrapped.len <= RSA_MAX;
    if (!(rsa || (in.base[8] == BY_SECRET && p->wrapped.len == SECRET_WRAPPED)) ||
        !purpose_ok((const char *)p->purpose.base, p->purpose.len))
        return cb_fail(CB_EPROTO, "the envelope was changed: its head makes no sense");
    if (p->content.len > CB_SEAL_BYTES_MAX + TAG) return cb_fail(CB_ELIMIT, "an envelope has at most 16 MiB");
    return CB_OK;
}

int cb_seal_close(const cb_seal *s, const char *purpose, cb_slice plain, uint8_t **out, size_t *len) {
    if (!s || !purpose || !out || !len) return cb_fail(CB_EINVAL, "cb_seal_close: an argument is NULL");
    const size_t n = strlen(purpose), wrapped = wrapped_len(&s->keys[0]), before = HEAD + n + wrapped;
    uint8_t data_key[KEY];
    if (!purpose_ok(purpose, n)) return cb_fail(CB_EINVAL, "\"%.80s\" is no purpose of a seal", purpose);
    if (plain.len > CB_SEAL_BYTES_MAX) return cb_fail(CB_ELIMIT, "at most 16 MiB can be sealed at a time");
    uint8_t *e = cb_mem_get(&cb_alloc_libc, before + plain.len + TAG);
    if (!e) return cb_fail(CB_ENOMEM, "no memory for an envelope of %zu bytes", plain.len);
    memcpy(e, magic, sizeof magic);
    e[8] = (uint8_t)s->keys[0].kind;
    e[9] = (uint8_t)n;
    e[10] = (uint8_t)(wrapped >> 8);
    e[11] = (uint8_t)wrapped;
    memcpy(e + 12, s->keys[0].id, ID);
    memcpy(e + HEAD, purpose, n);
    int rc = gnutls_rnd(GNUTLS_RND_KEY, data_key, KEY) < 0 || gnutls_rnd(GNUTLS_RND_NONCE, e + WRAP_HEAD, NONCE) < 0
                 ? cb_fail(CB_ETLS, "no random bytes for an envelope")
                 : wrap(&s->keys[0], e, data_key, e + HEAD + n, wrapped);
    if (rc == CB_OK && gcm(true, data_key, e + WRAP_HEAD, (cb_slice){e, before}, plain, e + before) < 0)
        rc = cb_fail(CB_ETLS, "AES-256-GCM does not work");
    cb_mem_wipe(data_key, sizeof data_key);
    if (rc < 0) {
        cb_mem_free(&cb_alloc_libc, e);
        return rc;
    }
    *out = e;
    *len = before + plain.len + TAG;
    return CB_OK;
}

static const seal_key *key_of(const cb_seal *s, cb_slice sealed) {
    for (size_t i = 0; i < s->n; i++)
        if (s->keys[i].kind == sealed.base[8] && memcmp(s->keys[i].id, sealed.base + 12, ID) == 0) return &s->keys[i];
    return NULL;
}

int cb_seal_open(const cb_seal *s, const char *purpose, cb_slice sealed, uint8_t **out, size_t *len, int32_t *stale) {
    parts p;
    uint8_t data_key[KEY];
    cb_seal_label label = {.size = sizeof label};
    if (!s || !purpose || !out || !len) return cb_fail(CB_EINVAL, "cb_seal_open: an argument is NULL");
    int rc = read_parts(&p, sealed);
    if (rc == CB_OK) rc = cb_seal_label_read(&label, sealed);
    if (rc < 0) return rc;
    if (strcmp(label.purpose, purpose) != 0)
        return cb_fail(CB_EINVAL, "sealed as \"%s\", not as \"%.80s\"", label.purpose, purpose);
    const seal_key *k = key_of(s, sealed);
    if (!k) return cb_fail(CB_ENOENT, "sealed by the key %s, which is not here", label.key_id);
    uint8_t *plain = cb_mem_get(&cb_alloc_libc, p.content.len); /* never 0: the tag */
    if (!plain) return cb_fail(CB_ENOMEM, "no memory to open an envelope of %zu bytes", sealed.len);
    rc = unwrap(k, sealed.base, p.wrapped, data_key);
    if (rc == CB_OK &&
        gcm(false, data_key, sealed.base + WRAP_HEAD, (cb_slice){sealed.base, p.before}, p.content, plain) < 0)
        rc = cb_fail(CB_EPROTO, "the envelope was changed: its content does not fit its tag");
    cb_mem_wipe(data_key, sizeof data_key);
    if (rc < 0) {
        cb_seal_free(plain, p.content.len);
        return rc;
    }
    *out = plain;
    *len = p.content.len - TAG;
    if (stale) *stale = k != &s->keys[0];
    return CB_OK;
}

int cb_seal_label_read(cb_seal_label *out, cb_slice sealed) {
    parts p;
    cb_seal_label l = {.size = sizeof l};
    if (!out) return cb_fail(CB_EINVAL, "cb_seal_label_read: out is NULL");
    int rc = read_parts(&p, sealed);
    if (rc < 0) return rc;
    memcpy(l.purpose, p.purpose.base, p.purpose.len);
    for (size_t i = 0; i < ID; i++)
        snprintf(l.key_id + 2 * i, 3, "%02x", sealed.base[12 + i]);
    l.on_token = sealed.base[8] == BY_RSA;
    return cb_stats_give(out, &l, sizeof l, "cb_seal_label");
}
