#include "auth/jwt.h"
#include "auth/revocations.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "telemetry/shown.h"
#include <gnutls/crypto.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* Sets of WAYS entries, found by the token's SHA-256. Only tokens that a key of ours has signed get in, so nobody else
 * can choose what collides. Each shard of sets has a lock. */
enum { WAYS = 8, SHARDS = 16, TOKENS = 16384, TOKENS_MAX = 1 << 22, TTL_S = 60, BYTES = 64 << 20 };

typedef struct entry {
    uint8_t sum[32];
    cb_jwt *token; /* NULL: free */
    int64_t until_s;
} entry;

typedef struct shard {
    _Alignas(64) pthread_mutex_t lock;
    uint64_t hits, misses, evicted, refused, tokens, bytes;
    int64_t swept_s; /* when what is over was last looked for everywhere */
} shard;

struct cb_jwt_cache {
    shard shards[SHARDS];
    cb_shown *shown; /* NULL: in no registry */
    _Atomic uint32_t refs;
    uint32_t ttl_s;
    uint64_t max_bytes; /* of a shard */
    size_t sets;        /* a power of 2, at least SHARDS */
    entry *entries;
};

int cb_jwt_cache_new(cb_jwt_cache **out, const cb_jwt_cache_opts *opts) {
    cb_jwt_cache_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_jwt_cache_new: out is needed");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_jwt_cache_opts");
    if (rc < 0) return rc;
    if (o.max_tokens > TOKENS_MAX) return cb_fail(CB_EINVAL, "cb_jwt_cache_opts: max_tokens is at most %d", TOKENS_MAX);
    size_t want = (o.max_tokens ? o.max_tokens : TOKENS) / WAYS, sets = SHARDS;
    while (sets * 2 <= want)
        sets *= 2;
    void *made = NULL;
    cb_jwt_cache *c = posix_memalign(&made, 64, sizeof *c) ? NULL : made;
    entry *entries = cb_mem_new(&cb_alloc_libc, sets * WAYS * sizeof *entries);
    if (!c || !entries) {
        free(c);
        cb_mem_free(&cb_alloc_libc, entries);
        return cb_fail(CB_ENOMEM, "no memory for a cache of tokens");
    }
    memset(c, 0, sizeof *c);
    atomic_init(&c->refs, 1);
    c->sets = sets;
    c->entries = entries;
    c->ttl_s = o.ttl_s ? o.ttl_s : TTL_S;
    c->max_bytes = (o.max_bytes ? o.max_bytes : BYTES) / SHARDS;
    for (size_t i = 0; i < SHARDS; i++)
        pthread_mutex_init(&c->shards[i].lock, NULL);
    *out = c;
    return CB_OK;
}

static size_t set_of(const cb_jwt_cache *c, const uint8_t *sum) {
    uint64_t h;
    memcpy(&h, sum, sizeof h);
    return (size_t)h & (c->sets - 1);
}

static void drop(shard *s, entry *e) {
    s->tokens--;
    s->bytes -= e->token->bytes;
    cb_jwt_unref(e->token);
    e->token = NULL;
}

/* Every set whose number is that of the shard modulo SHARDS. now_s INT64_MAX: all goes. */
static void sweep(cb_jwt_cache *c, size_t number, int64_t now_s) {
    for (size_t set = number; set < c->sets; set += SHARDS)
        for (entry *e = c->entries + set * WAYS, *end = e + WAYS; e < end; e++)
            if (e->token && e->until_s <= now_s) drop(c->shards + number, e);
}

static cb_jwt *lookup(cb_jwt_cache *c, const uint8_t *sum, const cb_jwks *keys, int64_t now_s) {
    size_t set = set_of(c, sum);
    shard *s = c->shards + set % SHARDS;
    cb_jwt *found = NULL;
    pthread_mutex_lock(&s->lock);
    for (entry *e = c->entries + set * WAYS, *end = e + WAYS; e < end && !found; e++) {
        if (!e->token || memcmp(e->sum, sum, 32) != 0) continue;
        if (e->until_s <= now_s)
            drop(s, e);
        else if (cb_jwks_holds(keys, e->token->print))
            found = cb_jwt_ref(e->token);
    }
    *(found ? &s->hits : &s->misses) += 1;
    pthread_mutex_unlock(&s->lock);
    return found;
}

/* The entry that a new one may take: of the same token, free, over, or the one that is over first. */
static entry *place(shard *s, entry *set, const uint8_t *sum, int64_t now_s) {
    entry *best = set;
    for (entry *e = set; e < set + WAYS; e++) {
        if (e->token && e->until_s <= now_s) drop(s, e);
        if (e->token && memcmp(e->sum, sum, 32) == 0) {
            drop(s, e);
            return e;
        }
        if (best->token && (!e->token || e->until_s < best->until_s)) best = e;
    }
    if (best->token) {
        s->evicted++;
        drop(s, best);
    }
    return best;
}

static void keep(cb_jwt_cache *c, const uint8_t *sum, cb_jwt *t, int64_t now_s) {
    size_t set = set_of(c, sum);
    shard *s = c->shards + set % SHARDS;
    int64_t until = now_s + c->ttl_s;
    if (!isnan(t->exp) && t->exp < (double)until) until = (int64_t)t->exp;
    if (until <= now_s) return;
    pthread_mutex_lock(&s->lock);
    if (s->bytes + t->bytes > c->max_bytes && s->swept_s != now_s) {
        sweep(c, set % SHARDS, now_s);
        s->swept_s = now_s;
    }
    entry *e = place(s, c->entries + set * WAYS, sum, now_s);
    if (s->bytes + t->bytes <= c->max_bytes) {
        memcpy(e->sum, sum, 32);
        e->until_s = until;
        e->token = cb_jwt_ref(t);
        s->tokens++;
        s->bytes += t->bytes;
    }
    pthread_mutex_unlock(&s->lock);
}

static void count_refused(cb_jwt_cache *c, const uint8_t *sum) {
    shard *s = c->shards + set_of(c, sum) % SHARDS;
    pthread_mutex_lock(&s->lock);
    s->refused++;
    pthread_mutex_unlock(&s->lock);
}

int cb_jwt_cache_verify(cb_jwt_cache *c, cb_jwt **out, cb_slice token, const cb_jwks *keys, const cb_jwt_rules *rules,
                        const cb_jwt_facts *facts, int32_t *reason) {
    cb_jwt_rules r;
    cb_jwt_facts f;
    uint8_t sum[32];
    if (!c || !out || !keys) return cb_fail(CB_EINVAL, "cb_jwt_cache_verify: cache, out and keys are needed");
    int rc = cb_jwt_rules_read(&r, &f, rules, facts);
    if (rc < 0) return rc;
    if (reason) *reason = CB_JWT_GOOD;
    if (!token.len || token.len > r.max_token_bytes)
        return cb_jwt_refuse(reason, CB_JWT_SIZE, "a token of %zu bytes: 1 to %u are taken", token.len,
                             r.max_token_bytes);
    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, token.base, token.len, sum) < 0)
        return cb_fail(CB_ENOMEM, "SHA-256 does not work here");
    cb_jwt *t = lookup(c, sum, keys, f.now_s);
    if (!t) {
        rc = cb_jwt_open(&t, token, keys, r.max_token_bytes, reason);
        if (rc == CB_OK)
            keep(c, sum, t, f.now_s);
        else
            count_refused(c, sum);
    }
    if (rc == CB_OK) rc = cb_jwt_check_read(t, &r, &f, reason);
    if (rc < 0) {
        cb_jwt_unref(t);
        return rc;
    }
    *out = t;
    return CB_OK;
}

void cb_jwt_cache_flush(cb_jwt_cache *c) {
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&c->shards[i].lock);
        sweep(c, i, INT64_MAX);
        pthread_mutex_unlock(&c->shards[i].lock);
    }
}

int cb_jwt_cache_stats_get(const cb_jwt_cache *cache, cb_jwt_cache_stats *out) {
    cb_jwt_cache *c = (cb_jwt_cache *)cache; /* its locks */
    cb_jwt_cache_stats all = {.size = sizeof all};
    for (size_t i = 0; i < SHARDS; i++) {
        shard *s = c->shards + i;
        pthread_mutex_lock(&s->lock);
        all.hits += s->hits;
        all.misses += s->misses;
        all.evicted += s->evicted;
        all.refused += s->refused;
        all.tokens += s->tokens;
        all.bytes += s->bytes;
        pthread_mutex_unlock(&s->lock);
    }
    return cb_stats_give(out, &all, sizeof all, "cb_jwt_cache_stats");
}

static int stats_for_metrics(void *c, void *out) {
    return cb_jwt_cache_stats_get(c, out);
}

int cb_jwt_cache_metrics(cb_jwt_cache *c, cb_metrics *m, const char *name) {
    static const cb_shown_row rows[] = {{CB_F_JWT_HITS, offsetof(cb_jwt_cache_stats, hits), "hit"},
                                        {CB_F_JWT_HITS, offsetof(cb_jwt_cache_stats, misses), "miss"},
                                        {CB_F_JWT_HITS, offsetof(cb_jwt_cache_stats, refused), "refused"},
                                        {CB_F_JWT_EVICTED, offsetof(cb_jwt_cache_stats, evicted), NULL},
                                        {CB_F_JWT_TOKENS, offsetof(cb_jwt_cache_stats, tokens), NULL},
                                        {CB_F_JWT_BYTES, offsetof(cb_jwt_cache_stats, bytes), NULL}};
    static const cb_shown_what what = {rows, sizeof rows / sizeof *rows, sizeof(cb_jwt_cache_stats), stats_for_metrics};
    if (!c) return cb_fail(CB_EINVAL, "cb_jwt_cache_metrics: c is needed");
    return cb_shown_begin(&c->shown, m, name, &what, c);
}

cb_jwt_cache *cb_jwt_cache_ref(cb_jwt_cache *c) {
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void cb_jwt_cache_unref(cb_jwt_cache *c) {
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
    cb_shown_end(c->shown);
    cb_jwt_cache_flush(c);
    for (size_t i = 0; i < SHARDS; i++)
        pthread_mutex_destroy(&c->shards[i].lock);
    cb_mem_free(&cb_alloc_libc, c->entries);
    free(c);
}
