/* A ring of ticket keys, and the file in which several processes share it. */
#ifndef CB_TRANSPORT_TICKET_FILE_H
#define CB_TRANSPORT_TICKET_FILE_H

#include <cb/base.h>
#include <cb/seal.h>
#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

#define CB_TICKET_RING 3

typedef struct cb_ticket_key {
    int64_t made; /* seconds since 1970; 0 = no key in this place */
    uint8_t secret[32];
} cb_ticket_key;

typedef struct cb_ticket_ring {
    cb_ticket_key keys[CB_TICKET_RING]; /* newest first */
} cb_ticket_ring;

/* By what a changed file is known. */
typedef struct cb_ticket_stamp {
    struct timespec mtime;
    ino_t inode;
} cb_ticket_stamp;

enum { CB_TICKET_RING_BYTES = 8 + CB_TICKET_RING * 40 };

/* The ring as it stands in a file: "CBTICK1\n", then for each of the three keys, newest first, from when on it seals
 * (seconds since 1970, 8 bytes, big-endian; 0 = no key) and its secret (32 bytes). */
void cb_ticket_ring_write(const cb_ticket_ring *ring, uint8_t out[CB_TICKET_RING_BYTES]);
/* CB_EINVAL: it is none; `where` is for the message. */
int cb_ticket_ring_read(const char *where, const uint8_t *in, size_t len, cb_ticket_ring *out);
/* A fresh key in front, which seals from `made` on; the oldest goes. */
int cb_ticket_ring_turn(cb_ticket_ring *ring, int64_t made);
/* Which key seals now: the newest whose time has come. */
int cb_ticket_ring_sealing(const cb_ticket_ring *ring, int64_t now);

typedef struct cb_ticket_turns {
    uint32_t rotate_s, lead_s; /* as in cb_tickets_opts */
} cb_ticket_turns;

/* Is it time for a new key? Also when the clock went back far: then all starts anew. */
bool cb_ticket_ring_due(const cb_ticket_ring *ring, const cb_ticket_turns *turns, int64_t now);
/* That new key. */
int cb_ticket_ring_renew(cb_ticket_ring *ring, const cb_ticket_turns *turns, int64_t now);

bool cb_ticket_file_changed(const char *path, const cb_ticket_stamp *stamp);
/* Reads the ring from the file (made with mode 0600 when absent), turns it there when that is due or `force`, all under
 * a lock against other processes. With `seal` (may be NULL) it is sealed. On failure nothing changes. CB_EINVAL: not a
 * ring, or open to others; CB_EAGAIN: without `wait`, another process has the lock. */
int cb_ticket_file_sync(const char *path, cb_ticket_ring *ring, cb_ticket_stamp *stamp, int64_t now,
                        const cb_ticket_turns *turns, const cb_seal *seal, bool force, bool wait);
/* Reads it only. CB_ENOENT: there is none, or an empty one. */
int cb_ticket_file_read(const char *path, cb_ticket_ring *ring, cb_ticket_stamp *stamp, const cb_seal *seal);

#endif
