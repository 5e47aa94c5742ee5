/* What a server remembers of proofs, shared by its workers. */
#include "auth/base64url.h"
#include "auth/dpop.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/siphash.h"
#include <gnutls/crypto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum {
    WINDOW_S = 60,
    WINDOW_MAX_S = 3600,
    LEEWAY_S = 10,
    LEEWAY_MAX_S = 300,
    PROOFS = 65536,
    PROOFS_MAX = 1 << 24,
    NONCE_S = 300,
    KEY_BYTES = 32,
    MAC_BYTES = 16
};

/* Two generations of hashes, each as long as a proof can be good: a lookup asks both, an insertion goes into the young
 * one. A 64-bit keyed hash stands for a proof: a false match refuses one, and never lets one in. */
typedef struct generation {
    uint64_t *slots; /* open addressing, 0 = empty */
    uint32_t len;
} generation;

struct cb_dpop {
    _Atomic uint32_t refs;
    uint32_t window_s, leeway_s, nonce_s, max, mask;
    int32_t need_nonce;
    uint8_t nonce_key[KEY_BYTES], hash_key[16];
    pthread_mutex_t lock;
    generation young, old;
    int64_t since_s, first_s; /* of the young one; of all: 0 = no proof yet */
};

static int check_opts(cb_dpop_opts *o) {
    if (o->nonce_key.len && o->nonce_key.len != KEY_BYTES)
        return cb_fail(CB_EINVAL, "cb_dpop_opts: nonce_key has %d bytes", KEY_BYTES);
    if (o->window_s > WINDOW_MAX_S || o->leeway_s > LEEWAY_MAX_S || o->max_proofs > PROOFS_MAX || o->nonce_s > 86400)
        return cb_fail(CB_EINVAL, "cb_dpop_opts: at most window_s %d, leeway_s %d, max_proofs %d, nonce_s 86400",
                       WINDOW_MAX_S, LEEWAY_MAX_S, PROOFS_MAX);
    if (!o->window_s) o->window_s = WINDOW_S;
    if (!o->leeway_s) o->leeway_s = LEEWAY_S;
    if (!o->max_proofs) o->max_proofs = PROOFS;
    if (!o->nonce_s) o->nonce_s = NONCE_S;
    return CB_OK;
}

static int set_up(cb_dpop *d, const cb_dpop_opts *o) {
    uint32_t slots = 64;
    while (slots < o->max_proofs / 3 * 4 + 4)
        slots *= 2;
    d->mask = slots - 1;
    d->young.slots = cb_mem_new(&cb_alloc_libc, slots * sizeof(uint64_t));
    d->old.slots = cb_mem_new(&cb_alloc_libc, slots * sizeof(uint64_t));
    if (!d->young.slots || !d->old.slots) return cb_fail(CB_ENOMEM, "no memory for proofs");
    bool random = gnutls_rnd(GNUTLS_RND_NONCE, d->hash_key, sizeof d->hash_key) >= 0;
    if (o->nonce_key.len)
        memcpy(d->nonce_key, o->nonce_key.base, KEY_BYTES);
    else
        random = random && gnutls_rnd(GNUTLS_RND_KEY, d->nonce_key, KEY_BYTES) >= 0;
    return random ? CB_OK : cb_fail(CB_ETLS, "no random bytes");
}

int cb_dpop_new(cb_dpop **out, const cb_dpop_opts *opts) {
    cb_dpop_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_dpop_new: out is needed");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_dpop_opts");
    if (rc == CB_OK) rc = check_opts(&o);
    if (rc < 0) return rc;
    cb_dpop *d = cb_mem_new(&cb_alloc_libc, sizeof *d);
    if (!d) return cb_fail(CB_ENOMEM, "no memory for proofs");
    atomic_init(&d->refs, 1);
    pthread_mutex_init(&d->lock, NULL);
    d->window_s = o.window_s;
    d->leeway_s = o.leeway_s;
    d->nonce_s = o.nonce_s;
    d->need_nonce = o.need_nonce;
    d->max = o.max_proofs;
    rc = set_up(d, &o);
    if (rc < 0) {
        cb_dpop_unref(d);
        return rc;
    }
    *out = d;
    return CB_OK;
}

cb_dpop *cb_dpop_ref(cb_dpop *d) {
    atomic_fetch_add_explicit(&d->refs, 1, memory_order_relaxed);
    return d;
}

void cb_dpop_unref(cb_dpop *d) {
    if (!d || atomic_fetch_sub_explicit(&d->refs, 1, memory_order_acq_rel) != 1) return;
    pthread_mutex_destroy(&d->lock);
    cb_mem_free(&cb_alloc_libc, d->young.slots);
    cb_mem_free(&cb_alloc_libc, d->old.slots);
    cb_mem_wipe(d->nonce_key, KEY_BYTES);
    cb_mem_free(&cb_alloc_libc, d);
}

/* ---- nonces: a number of a stretch of time, and its keyed hash. Nothing is kept. ---- */

static void make_nonce(const cb_dpop *d, int64_t slot, char *out) {
    uint8_t bytes[8 + 32];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)slot >> (56 - 8 * i));
    gnutls_hmac_fast(GNUTLS_MAC_SHA256, d->nonce_key, KEY_BYTES, bytes, 8, bytes + 8);
    cb_base64url_encode(out, bytes, 8 + MAC_BYTES);
}

void cb_dpop_nonce(const cb_dpop *d, int64_t now_s, char *out) {
    make_nonce(d, now_s / d->nonce_s, out);
}

/* Of this stretch or its neighbours: hosts that share the key need not agree to the second. */
static bool nonce_good(const cb_dpop *d, const char *nonce, int64_t now_s) {
    char want[CB_DPOP_NONCE_BYTES];
    bool good = false;
    for (int64_t slot = now_s / d->nonce_s - 1, end = slot + 2; slot <= end; slot++) {
        make_nonce(d, slot, want);
        good = good || (strlen(nonce) == strlen(want) && gnutls_memcmp(nonce, want, strlen(want)) == 0);
    }
    return good;
}

/* ---- replays ---- */

static void age(cb_dpop *d, int64_t now_s) {
    int64_t keep_s = (int64_t)d->window_s + d->leeway_s + 1, gone = now_s - d->since_s;
    size_t bytes = ((size_t)d->mask + 1) * sizeof(uint64_t);
    if (d->since_s && gone < keep_s) return;
    generation spare = d->old;
    d->old = d->young;
    memset(spare.slots, 0, bytes);
    spare.len = 0;
    d->young = spare;
    if (gone >= 2 * keep_s) {
        memset(d->old.slots, 0, bytes);
        d->old.len = 0;
    }
    d->since_s = now_s;
}

static bool has(const cb_dpop *d, const generation *g, uint64_t hash) {
    for (size_t i = hash & d->mask; g->slots[i]; i = (i + 1) & d->mask)
        if (g->slots[i] == hash) return true;
    return false;
}

static int remember(cb_dpop *d, uint64_t hash, int64_t now_s) {
    age(d, now_s);
    if (has(d, &d->young, hash) || has(d, &d->old, hash)) return CB_JWT_DPOP_REPLAY;
    if (d->young.len >= d->max) return CB_JWT_DPOP_FULL;
    size_t i = hash & d->mask;
    while (d->young.slots[i])
        i = (i + 1) & d->mask;
    d->young.slots[i] = hash;
    d->young.len++;
    return CB_JWT_GOOD;
}

/* Proofs from before this object could remember any may have been used with a predecessor: only a nonce tells. */
static bool nonce_needed(cb_dpop *d, const cb_dpop_proof *p, int64_t now_s) {
    pthread_mutex_lock(&d->lock);
    if (!d->first_s) d->first_s = now_s;
    bool early = p->iat <= (double)(d->first_s + d->leeway_s);
    pthread_mutex_unlock(&d->lock);
    return early || d->need_nonce;
}

int cb_dpop_remember(cb_dpop *d, const cb_dpop_proof *p, int64_t now_s, int32_t *reason) {
    char name[CB_DPOP_JKT_BYTES + CB_DPOP_TEXT_BYTES + 2];
    if (*p->nonce ? !nonce_good(d, p->nonce, now_s) : nonce_needed(d, p, now_s))
        return cb_jwt_refuse(reason, CB_JWT_DPOP_NONCE, "the proof needs a fresh nonce of this server");
    int n = snprintf(name, sizeof name, "%s.%s", p->jkt, p->jti);
    uint64_t hash = cb_siphash(d->hash_key, name, (size_t)n);
    pthread_mutex_lock(&d->lock);
    int verdict = remember(d, hash ? hash : 1, now_s);
    pthread_mutex_unlock(&d->lock);
    if (verdict == CB_JWT_GOOD) return CB_OK;
    if (verdict == CB_JWT_DPOP_REPLAY) return cb_jwt_refuse(reason, verdict, "this proof was used before");
    return cb_jwt_refuse(reason, verdict, "more than %u proofs at a time", d->max);
}

int cb_dpop_look(const cb_dpop *d, cb_dpop_proof *out, const cb_dpop_request *r, int32_t *reason) {
    return cb_dpop_read(out, r, d->window_s, d->leeway_s, reason);
}

int cb_dpop_verify(cb_dpop *d, const cb_dpop_request *request, char *jkt, int32_t *reason) {
    cb_dpop_request r;
    cb_dpop_proof p;
    if (!d || !request || !jkt) return cb_fail(CB_EINVAL, "cb_dpop_verify: dpop, request and jkt are needed");
    int rc = cb_opts_read(&r, sizeof r, request, "cb_dpop_request");
    if (rc < 0) return rc;
    if (reason) *reason = CB_JWT_GOOD;
    if (!r.method || !r.url || r.now_s <= 0)
        return cb_fail(CB_EINVAL, "cb_dpop_request: method, url and now_s are needed");
    rc = cb_dpop_look(d, &p, &r, reason);
    if (rc == CB_OK) rc = cb_dpop_remember(d, &p, r.now_s, reason);
    if (rc == CB_OK) memcpy(jkt, p.jkt, CB_DPOP_JKT_BYTES);
    return rc;
}
