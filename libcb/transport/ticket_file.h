/* A ring of ticket keys, and the file in which several processes share it. */
#ifndef CB_TRANSPORT_TICKET_FILE_H
#define CB_TRANSPORT_TICKET_FILE_H

#include <cb/base.h>
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

/* The ring as it stands in a file. */
void cb_ticket_ring_write(const cb_ticket_ring *ring, uint8_t out[CB_TICKET_RING_BYTES]);
/* CB_EINVAL: it is none; `where` is for the message. */
int cb_ticket_ring_read(const char *where, const uint8_t *in, size_t len, cb_ticket_ring *out);
int cb_ticket_ring_turn(cb_ticket_ring *ring, int64_t now); /* a fresh key in front, the oldest goes */

bool cb_ticket_file_changed(const char *path, const cb_ticket_stamp *stamp);
/* Reads the ring from the file (made with mode 0600 when absent), turns it there when its newest key is older than
 * rotate_s or `force`, all under a lock against other processes. On failure nothing changes. CB_EINVAL: not a ring, or
 * open to others. */
int cb_ticket_file_sync(const char *path, cb_ticket_ring *ring, cb_ticket_stamp *stamp, int64_t now, uint32_t rotate_s,
                        bool force);

#endif
