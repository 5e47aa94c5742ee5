/* Session-ticket keys.
 *
 * GnuTLS has one ticket key a session and rotates it by itself: the key that seals is SHA3-512(T || secret), where T
 * is the wall time divided by three ticket lifetimes, and a ticket of T - 1 is opened too; the first 16 bytes are the
 * name that the ticket begins with. This is a function of the secret and the time only, the same in each process, and
 * no ticket lives long enough to need T - 2: so it does no harm, and it is kept (the API has no switch for it: only a
 * ticket lifetime of decades would stop it). To find which of our three keys sealed a ticket, the names of T and T - 1
 * are computed for each. Should another version of GnuTLS derive names differently, no name matches, the newest key is
 * used and GnuTLS judges: resumption on older keys then becomes a full handshake, nothing worse. */
#include "transport/tls_tickets.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/ticket_file.h"
#include "transport/tls_replay.h"
#include <gnutls/crypto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum { ROTATE_DEFAULT_S = 43200, LIFETIME_DEFAULT_S = 7200, LIFETIME_MAX_S = 604800, SKEW_MAX_S = 3600, NAME = 16 };

struct cb_tickets {
    atomic_uint refs;
    uint32_t lifetime_s;
    cb_ticket_turns turns;
    bool follow;
    char *file;
    cb_seal *seal;
    pthread_mutex_t lock; /* guards ring, stamp and checked */
    cb_ticket_ring ring;
    bool own;              /* follow: the file is absent or too old, the ring is ours alone */
    cb_ticket_stamp stamp; /* of the file as it was read last */
    time_t checked;        /* when the file was looked at last */
    cb_replay_guard *replay;
};

static void tickets_free(cb_tickets *t) {
    cb_replay_guard_free(t->replay);
    cb_mem_wipe(&t->ring, sizeof t->ring);
    cb_mem_free(&cb_alloc_libc, t->file);
    cb_seal_unref(t->seal);
    pthread_mutex_destroy(&t->lock);
    cb_mem_free(&cb_alloc_libc, t);
}

static bool older_than(const cb_tickets *t, int64_t now, int turns) {
    return now - t->ring.keys[0].made >= turns * (int64_t)t->turns.rotate_s;
}

/* The file that somebody else turns. While there is none, or nobody has turned it for long, a ring of our own serves: a
 * key must not seal for ever because a timer on another host has died, nor because what came is no ring. */
static int follow(cb_tickets *t, int64_t now) {
    int rc = CB_OK;
    if (cb_ticket_file_changed(t->file, &t->stamp) || t->own || t->ring.keys[0].made == 0) {
        cb_ticket_ring found;
        cb_ticket_stamp stamp;
        rc = cb_ticket_file_read(t->file, &found, &stamp, t->seal);
        if (rc < 0 && rc != CB_ENOENT && t->ring.keys[0].made == 0) return rc;
        bool fresh = rc == CB_OK && now - found.keys[0].made < 2 * (int64_t)t->turns.rotate_s;
        if (fresh || (rc == CB_OK && !t->own)) {
            t->ring = found;
            t->stamp = stamp;
            t->own = false;
        }
        cb_mem_wipe(&found, sizeof found);
    }
    bool stale = t->ring.keys[0].made == 0 || older_than(t, now, t->own ? 1 : 2);
    int made = stale ? cb_ticket_ring_turn(&t->ring, now) : CB_OK;
    if (made < 0) return made;
    t->own = t->own || stale;
    if ((rc < 0 && rc != CB_ENOENT) || !t->own) return rc;
    if (rc == CB_ENOENT) return cb_fail(rc, "%s: no ticket keys there yet: our own serve", t->file);
    return cb_fail(CB_ETIMEOUT, "%s: nobody has turned these ticket keys for %u s: our own serve", t->file,
                   2 * t->turns.rotate_s);
}

/* Called with the lock, on threads of loops too: it waits for no other process unless it must turn the ring now. */
static int refresh(cb_tickets *t, bool force) {
    time_t now = time(NULL);
    t->checked = now;
    if (t->follow) return follow(t, (int64_t)now);
    bool due = force || cb_ticket_ring_due(&t->ring, &t->turns, (int64_t)now);
    if (!t->file) return due ? cb_ticket_ring_renew(&t->ring, &t->turns, (int64_t)now) : CB_OK;
    if (!due && !cb_ticket_file_changed(t->file, &t->stamp)) return CB_OK;
    int rc = cb_ticket_file_sync(t->file, &t->ring, &t->stamp, (int64_t)now, &t->turns, t->seal, force, force);
    /* Nor must it seal for ever because the disk is full or whoever has the lock hangs: then a key of our own does. */
    if (rc < 0 && older_than(t, (int64_t)now, 2)) (void)cb_ticket_ring_turn(&t->ring, (int64_t)now);
    return rc == CB_EAGAIN ? CB_OK : rc; /* another process turns it at this moment: asked again soon */
}

static int check(const cb_tickets_opts *o) {
    uint32_t rotate = o->rotate_s ? o->rotate_s : ROTATE_DEFAULT_S;
    if (o->lifetime_s > LIFETIME_MAX_S) {
        return cb_fail(CB_EINVAL, "cb_tickets_opts: lifetime_s %u is above 604800 (RFC 8446, 4.6.1)", o->lifetime_s);
    }
    if (o->lead_s >= rotate) {
        return cb_fail(CB_EINVAL, "cb_tickets_opts: lead_s %u is not below rotate_s (%u)", o->lead_s, rotate);
    }
    if (o->skew_s > SKEW_MAX_S) return cb_fail(CB_EINVAL, "cb_tickets_opts: skew_s %u is above 3600", o->skew_s);
    if (o->follow > 1 || (o->follow && !o->file)) {
        return cb_fail(CB_EINVAL, "cb_tickets_opts: follow %u: 0, or 1 with a file", o->follow);
    }
    return CB_OK;
}

static int begin_in_memory(cb_tickets *t, const cb_tickets_opts *o) {
    cb_slice kept;
    if (!o->handoff || !o->handoff_name || cb_handoff_get(o->handoff, o->handoff_name, &kept) < 0)
        return cb_ticket_ring_turn(&t->ring, (int64_t)time(NULL));
    return cb_ticket_ring_read("handoff", kept.base, kept.len, &t->ring);
}

int cb_tickets_new(cb_tickets **out, const cb_tickets_opts *opts) {
    if (!out) return cb_fail(CB_EINVAL, "cb_tickets_new: out is NULL");
    cb_tickets_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_tickets_opts");
    if (rc < 0) return rc;
    if ((rc = check(&o)) < 0) return rc;
    cb_tickets *t = cb_mem_new(&cb_alloc_libc, sizeof *t);
    if (!t) return cb_fail(CB_ENOMEM, "no memory for ticket keys");
    atomic_init(&t->refs, 1);
    pthread_mutex_init(&t->lock, NULL);
    t->turns = (cb_ticket_turns){o.rotate_s ? o.rotate_s : ROTATE_DEFAULT_S, o.lead_s};
    t->lifetime_s = o.lifetime_s ? o.lifetime_s : LIFETIME_DEFAULT_S;
    t->follow = o.follow;
    if (o.seal) t->seal = cb_seal_ref(o.seal);
    if (o.file && !(t->file = cb_mem_text(&cb_alloc_libc, o.file)))
        rc = cb_fail(CB_ENOMEM, "no memory for ticket keys");
    if (rc >= 0)
        rc = o.follow ? refresh(t, false)
             : o.file ? cb_ticket_file_sync(t->file, &t->ring, &t->stamp, (int64_t)time(NULL), &t->turns, t->seal,
                                            false, true)
                      : begin_in_memory(t, &o);
    if (t->own && (rc == CB_ENOENT || rc == CB_ETIMEOUT)) rc = CB_OK; /* cb_tickets_rotate() tells */
    if (rc >= 0) rc = cb_replay_guard_new(&t->replay, t->lifetime_s, o.skew_s);
    if (rc < 0) {
        tickets_free(t);
        return rc;
    }
    *out = t;
    return CB_OK;
}

int cb_tickets_rotate(cb_tickets *t, int force) {
    if (!t) return cb_fail(CB_EINVAL, "cb_tickets_rotate: t is NULL");
    if (force && t->follow) return cb_fail(CB_ENOTSUP, "%s: is turned by somebody else (follow)", t->file);
    pthread_mutex_lock(&t->lock);
    int rc = refresh(t, force != 0);
    pthread_mutex_unlock(&t->lock);
    return rc;
}

int cb_tickets_stats_get(cb_tickets *t, cb_tickets_stats *out) {
    if (!t) return cb_fail(CB_EINVAL, "cb_tickets_stats_get: t is NULL");
    pthread_mutex_lock(&t->lock);
    const cb_tickets_stats all = {.newest_s = t->ring.keys[0].made, .rotate_s = t->turns.rotate_s, .own = t->own};
    pthread_mutex_unlock(&t->lock);
    return cb_stats_give(out, &all, sizeof all, "cb_tickets_stats");
}

int cb_tickets_save(cb_tickets *t, cb_handoff *h, const char *name) {
    uint8_t raw[CB_TICKET_RING_BYTES];
    pthread_mutex_lock(&t->lock);
    cb_ticket_ring_write(&t->ring, raw);
    pthread_mutex_unlock(&t->lock);
    int rc = cb_handoff_put(h, name, (cb_slice){raw, sizeof raw});
    cb_mem_wipe(raw, sizeof raw);
    return rc;
}

cb_tickets *cb_tickets_ref(cb_tickets *t) {
    atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
    return t;
}

void cb_tickets_unref(cb_tickets *t) {
    if (t && atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) == 1) tickets_free(t);
}

int cb_tickets_lifetime(const cb_tickets *t) {
    return (int)t->lifetime_s;
}

bool cb_tickets_early(cb_tickets *t) {
    return cb_replay_guard_ready(t->replay);
}

void cb_tickets_guard_replay(cb_tickets *t, gnutls_session_t session) {
    cb_replay_guard_enable(t->replay, session);
}

uint64_t cb_tickets_replays(cb_tickets *t) {
    return cb_replay_guard_take_replays(t->replay);
}

/* --- the key of one session --- */

/* Each part with its length in front, so that no two scopes give the same bytes. */
static int mac_part(gnutls_hmac_hd_t mac, const void *data, size_t len) {
    uint8_t prefix[4] = {(uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
    int rc = gnutls_hmac(mac, prefix, sizeof prefix);
    return rc >= 0 && len ? gnutls_hmac(mac, data, len) : rc;
}

static int derive(const cb_ticket_key *ring_key, const cb_ticket_scope *scope, uint8_t out[CB_TICKET_KEY]) {
    static const char label[] = "libcb ticket 1";
    const char *context = scope->context ? scope->context : "";
    gnutls_hmac_hd_t mac;
    int rc = gnutls_hmac_init(&mac, GNUTLS_MAC_SHA512, ring_key->secret, sizeof ring_key->secret);
    if (rc < 0) return rc;
    rc = mac_part(mac, label, sizeof label - 1);
    if (rc >= 0) rc = mac_part(mac, context, strlen(context));
    if (rc >= 0) rc = mac_part(mac, scope->host, strlen(scope->host));
    if (rc >= 0) rc = mac_part(mac, scope->roots, scope->roots ? 32 : 0);
    if (rc >= 0) rc = mac_part(mac, "!", scope->cert_needed);
    gnutls_hmac_deinit(mac, out);
    return rc;
}

/* Is `name` the one that GnuTLS gives to a ticket of this key now, or gave it one period ago? */
static bool sealed_by(const uint8_t key[CB_TICKET_KEY], const uint8_t *name, uint64_t period) {
    uint8_t in[8 + CB_TICKET_KEY], digest[64];
    bool found = false;
    memcpy(in + 8, key, CB_TICKET_KEY);
    for (int back = 0; back < 2 && !found; back++) {
        uint64_t t = period - (uint64_t)back;
        for (size_t i = 0; i < 8; i++) {
            in[i] = (uint8_t)(t >> (56 - 8 * i));
        }
        found = gnutls_hash_fast(GNUTLS_DIG_SHA3_512, in, sizeof in, digest) >= 0 && memcmp(digest, name, NAME) == 0;
    }
    cb_mem_wipe(in, sizeof in);
    cb_mem_wipe(digest, sizeof digest);
    return found;
}

/* The index of the key that sealed the ticket, -1 if none did; its derived key in out. */
static int find_key(const cb_tickets *t, const cb_ticket_ring *ring, const cb_ticket_scope *scope, cb_slice ticket,
                    uint8_t out[CB_TICKET_KEY]) {
    uint64_t period = (uint64_t)time(NULL) / (3 * (uint64_t)t->lifetime_s);
    for (int i = 0; ticket.len > NAME && i < CB_TICKET_RING; i++) {
        if (ring->keys[i].made == 0) break;
        if (derive(&ring->keys[i], scope, out) >= 0 && sealed_by(out, ticket.base, period)) return i;
    }
    return -1;
}

/* A copy of the ring, looked after at most once a second. */
static void snapshot(cb_tickets *t, cb_ticket_ring *out) {
    pthread_mutex_lock(&t->lock);
    if (time(NULL) != t->checked) (void)refresh(t, false); /* on failure the old keys serve on */
    *out = t->ring;
    pthread_mutex_unlock(&t->lock);
}

int cb_tickets_key(cb_tickets *t, const cb_ticket_scope *scope, cb_slice ticket, uint8_t key[CB_TICKET_KEY],
                   bool *newest) {
    cb_ticket_ring ring;
    snapshot(t, &ring);
    int at = find_key(t, &ring, scope, ticket, key), sealing = cb_ticket_ring_sealing(&ring, (int64_t)time(NULL));
    int rc = at < 0 ? derive(&ring.keys[sealing], scope, key) : 0;
    cb_mem_wipe(&ring, sizeof ring);
    if (rc < 0) return cb_fail(CB_ETLS, "cannot derive a ticket key: %s", gnutls_strerror(rc));
    *newest = at <= sealing;
    return CB_OK;
}
