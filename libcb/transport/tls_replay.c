#include "transport/tls_replay.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/siphash.h"
#include <gnutls/crypto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

/* Two generations of hashes, each as long as a ticket lives: a lookup asks both, an insertion goes into the young one.
 * A 64-bit keyed hash stands for a ClientHello: a false match costs a round trip, nothing else. */
enum { SLOTS = 1 << 16, FULL = SLOTS / 4 * 3, GNUTLS_PREFIX = 12 };

struct generation {
    uint64_t *slots; /* open addressing, 0 = empty; allocated at first use */
    size_t len;
};

struct cb_replay_guard {
    _Atomic(gnutls_anti_replay_t) gnutls; /* NULL: not ready yet */
    uint32_t keep_s, skew_s;
    time_t first; /* use; 0 = not yet. Of a clock that nobody sets, as young_since */
    pthread_mutex_t lock;
    uint8_t hash_key[16];
    struct generation young, old;
    time_t young_since;
    _Atomic uint64_t replays; /* that nobody has counted yet */
};

static bool has(const struct generation *g, uint64_t hash) {
    if (!g->slots) return false;
    for (size_t i = hash & (SLOTS - 1); g->slots[i]; i = (i + 1) & (SLOTS - 1)) {
        if (g->slots[i] == hash) return true;
    }
    return false;
}

static bool put(struct generation *g, uint64_t hash) {
    if (!g->slots) g->slots = cb_mem_new(&cb_alloc_libc, SLOTS * sizeof *g->slots);
    if (!g->slots || g->len >= FULL) return false;
    size_t i = hash & (SLOTS - 1);
    while (g->slots[i]) {
        i = (i + 1) & (SLOTS - 1);
    }
    g->slots[i] = hash;
    g->len++;
    return true;
}

static time_t seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec;
}

static void age(cb_replay_guard *g, time_t now) {
    if (now - g->young_since < (time_t)g->keep_s) return;
    struct generation spare = g->old;
    if (spare.slots) memset(spare.slots, 0, SLOTS * sizeof *spare.slots);
    spare.len = 0;
    g->old = g->young;
    g->young = spare;
    g->young_since = now;
}

/* GnuTLS calls this with the start of its window and the PSK binder. The window start is cut off: what counts is that
 * the same ClientHello never comes through twice. */
static int remember(void *ptr, time_t expires, const gnutls_datum_t *key, const gnutls_datum_t *data) {
    cb_replay_guard *g = ptr;
    (void)expires;
    (void)data;
    if (key->size <= GNUTLS_PREFIX) return GNUTLS_E_DB_ERROR;
    uint64_t hash = cb_siphash(g->hash_key, key->data + GNUTLS_PREFIX, key->size - GNUTLS_PREFIX);
    if (hash == 0) hash = 1;
    pthread_mutex_lock(&g->lock);
    age(g, seconds());
    const bool known = has(&g->young, hash) || has(&g->old, hash);
    const bool fresh = !known && put(&g->young, hash);
    pthread_mutex_unlock(&g->lock);
    if (known) atomic_fetch_add_explicit(&g->replays, 1, memory_order_relaxed);
    return fresh ? 0 : GNUTLS_E_DB_ENTRY_EXISTS;
}

/* GnuTLS refuses the early data of tickets that are older than its object. So that is made with the first session: a
 * successor, which has the keys of a process that still takes early data, remembers none of that. */
static int begin(cb_replay_guard *g) {
    gnutls_anti_replay_t made;
    if (gnutls_anti_replay_init(&made) < 0) return cb_fail(CB_ETLS, "cannot make a replay guard");
    /* GnuTLS moves the start of its window when that is over, which would race between threads and refuse the early
     * data of older tickets. The longest window never ends (its clock wraps before), and our own memory decides. */
    gnutls_anti_replay_set_window(made, UINT32_MAX);
    gnutls_anti_replay_set_ptr(made, g);
    gnutls_anti_replay_set_add_function(made, remember);
    atomic_store(&g->gnutls, made);
    return CB_OK;
}

int cb_replay_guard_new(cb_replay_guard **out, uint32_t lifetime_s, uint32_t skew_s) {
    cb_replay_guard *g = cb_mem_new(&cb_alloc_libc, sizeof *g);
    if (!g) return cb_fail(CB_ENOMEM, "no memory for a replay guard");
    pthread_mutex_init(&g->lock, NULL);
    g->keep_s = lifetime_s + skew_s;
    g->skew_s = skew_s;
    g->young_since = seconds();
    int rc = CB_OK;
    if (gnutls_rnd(GNUTLS_RND_NONCE, g->hash_key, 16) < 0) rc = cb_fail(CB_ETLS, "no random bytes for a replay guard");
    if (rc < 0) {
        cb_replay_guard_free(g);
        return rc;
    }
    *out = g;
    return CB_OK;
}

bool cb_replay_guard_ready(cb_replay_guard *g) {
    if (atomic_load(&g->gnutls)) return true;
    pthread_mutex_lock(&g->lock);
    bool ready = atomic_load(&g->gnutls) != NULL;
    const time_t now = seconds();
    if (g->first == 0) g->first = now;
    if (!ready && (g->skew_s == 0 || now - g->first > (time_t)g->skew_s)) ready = begin(g) == CB_OK;
    pthread_mutex_unlock(&g->lock);
    return ready;
}

uint64_t cb_replay_guard_take_replays(cb_replay_guard *g) {
    return atomic_exchange_explicit(&g->replays, 0, memory_order_relaxed);
}

void cb_replay_guard_free(cb_replay_guard *g) {
    if (!g) return;
    gnutls_anti_replay_t made = atomic_load(&g->gnutls);
    if (made) gnutls_anti_replay_deinit(made);
    cb_mem_free(&cb_alloc_libc, g->young.slots);
    cb_mem_free(&cb_alloc_libc, g->old.slots);
    pthread_mutex_destroy(&g->lock);
    cb_mem_free(&cb_alloc_libc, g);
}

void cb_replay_guard_enable(cb_replay_guard *g, gnutls_session_t session) {
    if (!cb_replay_guard_ready(g)) return;
    gnutls_anti_replay_enable(session, atomic_load(&g->gnutls));
}
