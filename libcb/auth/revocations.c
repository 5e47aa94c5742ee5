#include "auth/revocations.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/opts.h"
#include <gnutls/crypto.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { MAX = 65536, KEY_BYTES = 32 };

/* One entry a name: the widest of what was asked for it. */
typedef struct entry {
    int64_t before_s, until_s;
} entry;

struct cb_revocations {
    _Atomic uint32_t refs, len;
    uint32_t max;
    pthread_rwlock_t lock;
    cb_map entries; /* by SHA-256 of kind, issuer and name */
};

/* In pieces of fixed length, so that no two names can give the same bytes, and without allocating. */
static bool make_key(uint8_t key[KEY_BYTES], char kind, const char *issuer, const char *name) {
    uint8_t parts[1 + 2 * KEY_BYTES] = {(uint8_t)kind};
    return gnutls_hash_fast(GNUTLS_DIG_SHA256, issuer, strlen(issuer), parts + 1) >= 0 &&
           gnutls_hash_fast(GNUTLS_DIG_SHA256, name, strlen(name), parts + 1 + KEY_BYTES) >= 0 &&
           gnutls_hash_fast(GNUTLS_DIG_SHA256, parts, sizeof parts, key) >= 0;
}

int cb_revocations_new(cb_revocations **out, uint32_t max) {
    uint8_t hash_key[16];
    if (!out) return cb_fail(CB_EINVAL, "cb_revocations_new: out is needed");
    if (gnutls_rnd(GNUTLS_RND_NONCE, hash_key, sizeof hash_key) < 0) return cb_fail(CB_ETLS, "no random bytes");
    cb_revocations *r = cb_mem_new(&cb_alloc_libc, sizeof *r);
    if (!r) return cb_fail(CB_ENOMEM, "no memory for revocations");
    atomic_init(&r->refs, 1);
    r->max = max ? max : MAX;
    pthread_rwlock_init(&r->lock, NULL);
    cb_map_init(&r->entries, &cb_alloc_libc, hash_key);
    *out = r;
    return CB_OK;
}

/* Forgets what is over, a batch at a time because the map does not change while it is walked. */
static void expire(cb_revocations *r, int64_t now_s) {
    uint8_t over[256][KEY_BYTES];
    size_t n = 0;
    do {
        size_t it = 0;
        cb_slice key;
        n = 0;
        for (entry *e = cb_map_next(&r->entries, &it, &key); e && n < 256; e = cb_map_next(&r->entries, &it, &key))
            if (e->until_s < now_s) memcpy(over[n++], key.base, KEY_BYTES);
        for (size_t i = 0; i < n; i++)
            cb_mem_free(&cb_alloc_libc, cb_map_del(&r->entries, over[i], KEY_BYTES));
    } while (n == 256);
}

static int add(cb_revocations *r, const uint8_t *key, const cb_revocation *w, int64_t now_s) {
    entry *e = cb_map_get(&r->entries, key, KEY_BYTES);
    if (e) {
        if (w->before_s > e->before_s) e->before_s = w->before_s;
        if (w->until_s > e->until_s) e->until_s = w->until_s;
        return CB_OK;
    }
    if (r->entries.len >= r->max) expire(r, now_s);
    if (r->entries.len >= r->max) return cb_fail(CB_ELIMIT, "%u revocations are held: no room for more", r->max);
    e = cb_mem_new(&cb_alloc_libc, sizeof *e);
    if (!e) return cb_fail(CB_ENOMEM, "no memory for a revocation");
    *e = (entry){.before_s = w->before_s, .until_s = w->until_s};
    int rc = cb_map_put(&r->entries, key, KEY_BYTES, e);
    if (rc < 0) cb_mem_free(&cb_alloc_libc, e);
    return rc;
}

int cb_revocations_add(cb_revocations *r, const cb_revocation *what, int64_t now_s) {
    cb_revocation w;
    uint8_t key[KEY_BYTES];
    if (!r || !what) return cb_fail(CB_EINVAL, "cb_revocations_add: what is needed");
    int rc = cb_opts_read(&w, sizeof w, what, "cb_revocation");
    if (rc < 0) return rc;
    if (!w.issuer || !w.until_s) return cb_fail(CB_EINVAL, "cb_revocation: issuer and until_s are needed");
    if (w.jti && w.subject) return cb_fail(CB_EINVAL, "cb_revocation: jti or subject, not both");
    if (!w.jti && !w.before_s) return cb_fail(CB_EINVAL, "cb_revocation: before_s is needed without a jti");
    if (!make_key(key, w.jti ? 'j' : w.subject ? 's' : 'i', w.issuer, w.jti ? w.jti : w.subject ? w.subject : ""))
        return cb_fail(CB_ENOMEM, "no memory for a revocation");
    pthread_rwlock_wrlock(&r->lock);
    rc = add(r, key, &w, now_s);
    atomic_store_explicit(&r->len, (uint32_t)r->entries.len, memory_order_release);
    pthread_rwlock_unlock(&r->lock);
    return rc;
}

/* A hash that fails counts as a hit: whoever cannot look must not let in. */
static bool look(cb_revocations *r, char kind, const char *issuer, const char *name, double iat) {
    uint8_t key[KEY_BYTES];
    if (!make_key(key, kind, issuer, name)) return true;
    const entry *e = cb_map_get(&r->entries, key, KEY_BYTES);
    return e && (kind == 'j' || isnan(iat) || iat <= (double)e->before_s);
}

bool cb_revocations_hit(cb_revocations *r, const char *issuer, const char *jti, const char *subject, double iat) {
    if (!atomic_load_explicit(&r->len, memory_order_acquire) || !issuer) return false;
    pthread_rwlock_rdlock(&r->lock);
    bool hit = look(r, 'i', issuer, "", iat) || (jti && look(r, 'j', issuer, jti, iat)) ||
               (subject && look(r, 's', issuer, subject, iat));
    pthread_rwlock_unlock(&r->lock);
    return hit;
}

size_t cb_revocations_len(const cb_revocations *r) {
    return atomic_load_explicit(&r->len, memory_order_relaxed);
}

cb_revocations *cb_revocations_ref(cb_revocations *r) {
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void cb_revocations_unref(cb_revocations *r) {
    if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1) return;
    size_t it = 0;
    for (entry *e = cb_map_next(&r->entries, &it, NULL); e; e = cb_map_next(&r->entries, &it, NULL))
        cb_mem_free(&cb_alloc_libc, e);
    cb_map_free(&r->entries);
    pthread_rwlock_destroy(&r->lock);
    cb_mem_free(&cb_alloc_libc, r);
}
