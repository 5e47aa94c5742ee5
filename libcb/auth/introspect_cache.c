#include "auth/introspect_cache.h"
#include "auth/jwt.h"
#include "base/error.h"
#include "base/map.h"
#include "base/mem.h"
#include <gnutls/crypto.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

enum { MAX = 16384, TTL_S = 60, INACTIVE_TTL_S = 10, FAILED_TTL_S = 1, SUM = 32 };

static const cb_alloc *const heap = &cb_alloc_libc;

typedef struct entry {
    cb_list link; /* cache->known, or cache->asked */
    uint8_t sum[SUM];
    const cb_introspect_reader *asker; /* NULL: an answer is known */
    bool wanted;                       /* others wait for it */
    bool forgotten;                    /* while it was asked: the answer is not kept */
    int rc;
    cb_jwt *token;
    int64_t until_s;
} entry;

struct cb_introspect_cache {
    pthread_mutex_t lock;
    cb_map map;
    cb_list known, asked, readers; /* known: the oldest first */
    uint32_t max, n_known, ttl_s, inactive_ttl_s;
    uint64_t requests, hits, failures;
};

int cb_introspect_cache_new(cb_introspect_cache **out, uint32_t max, uint32_t ttl_s, uint32_t inactive_ttl_s) {
    uint8_t key[16];
    if (gnutls_rnd(GNUTLS_RND_NONCE, key, sizeof key) < 0) return cb_fail(CB_ETLS, "no random bytes");
    cb_introspect_cache *c = cb_mem_new(heap, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for answers about tokens");
    pthread_mutex_init(&c->lock, NULL);
    cb_map_init(&c->map, heap, key);
    cb_list_init(&c->known);
    cb_list_init(&c->asked);
    cb_list_init(&c->readers);
    c->max = max ? max : MAX;
    c->ttl_s = ttl_s ? ttl_s : TTL_S;
    c->inactive_ttl_s = inactive_ttl_s ? inactive_ttl_s : INACTIVE_TTL_S;
    *out = c;
    return CB_OK;
}

static void drop(cb_introspect_cache *c, entry *e) {
    if (!e->asker) c->n_known--;
    cb_list_del(&e->link);
    cb_map_del(&c->map, e->sum, SUM);
    cb_jwt_unref(e->token);
    cb_mem_free(heap, e);
}

static entry *first(const cb_list *l) {
    return cb_list_empty(l) ? NULL : CB_CONTAINER(l->next, entry, link);
}

void cb_introspect_cache_free(cb_introspect_cache *c) {
    if (!c) return;
    for (entry *e; (e = first(&c->known)) || (e = first(&c->asked));)
        drop(c, e);
    cb_map_free(&c->map);
    pthread_mutex_destroy(&c->lock);
    cb_mem_free(heap, c);
}

static void ring_others(cb_introspect_cache *c, const cb_introspect_reader *but) {
    for (cb_list *l = c->readers.next; l != &c->readers; l = l->next) {
        const cb_introspect_reader *r = CB_CONTAINER(l, cb_introspect_reader, link);
        if (r != but) cb_bell_ring(r->bell);
    }
}

void cb_introspect_cache_join(cb_introspect_cache *c, cb_introspect_reader *r) {
    pthread_mutex_lock(&c->lock);
    cb_list_add_tail(&c->readers, &r->link);
    pthread_mutex_unlock(&c->lock);
}

void cb_introspect_cache_leave(cb_introspect_cache *c, cb_introspect_reader *r) {
    pthread_mutex_lock(&c->lock);
    cb_list_del(&r->link);
    for (cb_list *l = c->asked.next; l != &c->asked;) {
        entry *e = CB_CONTAINER(l, entry, link);
        l = l->next;
        if (e->asker == r) drop(c, e);
    }
    ring_others(c, r);
    pthread_mutex_unlock(&c->lock);
}

/* Nobody knows: r asks. Without memory it asks as well, and others may too. */
static void claim(cb_introspect_cache *c, const uint8_t *sum, const cb_introspect_reader *r) {
    entry *e = cb_mem_new(heap, sizeof *e);
    if (!e) return;
    memcpy(e->sum, sum, SUM);
    e->asker = r;
    if (cb_map_put(&c->map, sum, SUM, e) < 0) {
        cb_mem_free(heap, e);
        return;
    }
    cb_list_add_tail(&c->asked, &e->link);
}

enum cb_introspect_state cb_introspect_cache_look(cb_introspect_cache *c, const uint8_t sum[32],
                                                  const cb_introspect_reader *r, int64_t now_s, cb_jwt **token,
                                                  int *rc) {
    enum cb_introspect_state state = CB_INTROSPECT_MINE;
    pthread_mutex_lock(&c->lock);
    entry *e = cb_map_get(&c->map, sum, SUM);
    if (e && !e->asker && e->until_s <= now_s) {
        drop(c, e);
        e = NULL;
    }
    if (!e) {
        claim(c, sum, r);
        c->requests++;
    } else if (e->asker) {
        state = e->asker == r ? CB_INTROSPECT_MINE : CB_INTROSPECT_BUSY;
        e->wanted = e->wanted || e->asker != r;
    } else {
        c->hits++;
        state = e->token ? CB_INTROSPECT_ACTIVE : e->rc == CB_EAUTH ? CB_INTROSPECT_INACTIVE : CB_INTROSPECT_FAILED;
        if (e->token) *token = cb_jwt_ref(e->token);
        *rc = e->rc;
    }
    pthread_mutex_unlock(&c->lock);
    return state;
}

static int64_t keep_until(const cb_introspect_cache *c, int rc, const cb_jwt *token, int64_t now_s) {
    if (rc == CB_EAUTH) return now_s + c->inactive_ttl_s;
    if (rc < 0) return now_s + FAILED_TTL_S;
    const int64_t until = now_s + c->ttl_s;
    return !isnan(token->exp) && token->exp < (double)until ? (int64_t)token->exp : until;
}

void cb_introspect_cache_settle(cb_introspect_cache *c, const uint8_t sum[32], const cb_introspect_reader *r, int rc,
                                cb_jwt *token, int64_t now_s) {
    pthread_mutex_lock(&c->lock);
    entry *e = cb_map_get(&c->map, sum, SUM);
    if (rc < 0 && rc != CB_EAUTH) c->failures++;
    if (e && e->asker == r) {
        const bool wanted = e->wanted;
        if (e->forgotten) {
            drop(c, e);
        } else {
            cb_list_del(&e->link);
            cb_list_add_tail(&c->known, &e->link);
            c->n_known++;
            e->asker = NULL;
            e->rc = rc;
            e->token = rc == CB_OK ? cb_jwt_ref(token) : NULL;
            e->until_s = keep_until(c, rc, token, now_s);
        }
        if (wanted) ring_others(c, r);
        while (c->n_known > c->max)
            drop(c, first(&c->known));
    }
    pthread_mutex_unlock(&c->lock);
}

void cb_introspect_cache_give_up(cb_introspect_cache *c, const uint8_t sum[32], const cb_introspect_reader *r) {
    pthread_mutex_lock(&c->lock);
    entry *e = cb_map_get(&c->map, sum, SUM);
    if (e && e->asker == r) {
        if (e->wanted) ring_others(c, r);
        drop(c, e);
    }
    pthread_mutex_unlock(&c->lock);
}

void cb_introspect_cache_forget(cb_introspect_cache *c, cb_slice token) {
    uint8_t sum[SUM];
    /* A hash that fails forgets everything: whoever cannot look must not remember. */
    const bool one = token.len && gnutls_hash_fast(GNUTLS_DIG_SHA256, token.base, token.len, sum) >= 0;
    pthread_mutex_lock(&c->lock);
    entry *e = one ? cb_map_get(&c->map, sum, SUM) : NULL;
    if (e && e->asker) e->forgotten = true;
    if (e && !e->asker) drop(c, e);
    for (cb_list *l = c->asked.next; !one && l != &c->asked; l = l->next)
        CB_CONTAINER(l, entry, link)->forgotten = true;
    while (!one && (e = first(&c->known)))
        drop(c, e);
    pthread_mutex_unlock(&c->lock);
}

void cb_introspect_cache_count(cb_introspect_cache *c, cb_oidc_stats *stats) {
    pthread_mutex_lock(&c->lock);
    stats->introspections = c->requests;
    stats->introspect_hits = c->hits;
    stats->introspect_failures = c->failures;
    stats->introspect_kept = c->n_known;
    pthread_mutex_unlock(&c->lock);
}
