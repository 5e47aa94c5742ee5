/* Answers that are kept for who asks again with the same Idempotency-Key (draft-ietf-httpapi-idempotency-key-header).
 */
#ifndef CB_ADMIN_REPLAY_H
#define CB_ADMIN_REPLAY_H

#include "base/list.h"
#include "base/map.h"
#include <stdbool.h>

enum { CB_REPLAY_KEY = 128, CB_REPLAY_PRINT = 32, CB_REPLAY_BODY = 65536 };

/* What was answered. */
typedef struct cb_replay {
    cb_list link; /* by age */
    char *name;   /* principal and key: the name in the map */
    size_t name_len, who_len;
    uint8_t print[CB_REPLAY_PRINT]; /* of the request: SHA-256 */
    uint64_t until;                 /* the loop's time when it is forgotten */
    bool done;                      /* false: the first request is under way */
    bool large;                     /* it was answered, with more than is kept */
    int status;
    char etag[80], type[64], *location; /* fields; "" and NULL: none */
    uint8_t *body;
    size_t len;
} cb_replay;

typedef struct cb_replays {
    cb_map map;
    cb_list list;
    size_t n, max;
    size_t bytes; /* of bodies */
    const cb_alloc *alloc;
} cb_replays;

void cb_replays_init(cb_replays *r, const cb_alloc *alloc, const uint8_t hash_key[16], size_t max);
void cb_replays_free(cb_replays *r);
/* The value of an Idempotency-Key field (a quoted string or the bare text), unquoted; len 0: it is none. */
cb_slice cb_replay_key(cb_slice field);

/* Looks for who's key. *out: the entry, found (returns 1) or new (0). CB_ELIMIT: no room, all that is kept is under
 * way; CB_ENOMEM. */
int cb_replays_enter(cb_replays *r, const char *who, cb_slice key, const uint8_t print[CB_REPLAY_PRINT], uint64_t now,
                     cb_replay **out);
/* The first request was answered: keeps it, or what of it is kept. */
void cb_replays_answered(cb_replays *r, cb_replay *e, cb_slice body);
/* The first request came to nothing that is worth to be kept. */
void cb_replays_forget(cb_replays *r, cb_replay *e);

#endif
