/* The last events, for those who come back: a ring that is bounded in number and in bytes. */
#ifndef CB_ADMIN_RING_H
#define CB_ADMIN_RING_H

#include <cb/base.h>
#include <stdbool.h>

enum { CB_RING_ID = 48 };

typedef struct cb_admin_ring {
    struct cb_ring_slot *slots;
    uint64_t first, next; /* numbers of the oldest that is kept, and of the one to come; from 1 */
    size_t cap, bytes, max_bytes;
    char epoch[24]; /* of this process: numbers of another one mean nothing */
    const cb_alloc *alloc;
} cb_admin_ring;

/* CB_ENOMEM. */
int cb_ring_init(cb_admin_ring *r, const cb_alloc *alloc, size_t cap, size_t max_bytes, uint64_t epoch);
void cb_ring_free(cb_admin_ring *r);
/* Adds an event, in the form of the wire: id, event, data. type and json are good. CB_ENOMEM. */
int cb_ring_add(cb_admin_ring *r, const char *type, cb_slice json);
/* The event of that number as text, and its type; false: it is not kept (any more). */
bool cb_ring_get(const cb_admin_ring *r, uint64_t number, cb_slice *text, const char **type);
/* Where somebody goes on who has seen id: the number after it. 0: it is not an ID of this process. */
uint64_t cb_ring_after(const cb_admin_ring *r, cb_slice id);
/* The ID of a number. */
void cb_ring_id(const cb_admin_ring *r, uint64_t number, char out[CB_RING_ID]);

#endif
