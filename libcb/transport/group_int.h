/* The inside of a worker group: secrets, the form of its connection IDs, and the way to the owner of a packet. */
#ifndef CB_TRANSPORT_GROUP_INT_H
#define CB_TRANSPORT_GROUP_INT_H

#include "base/list.h"
#include "lb/quic_lb.h"
#include "loop/udp.h"
#include <cb/group.h>

typedef struct cb_group_keys {
    uint8_t token[32]; /* Retry and NEW_TOKEN */
    uint8_t reset[32]; /* stateless reset */
    cb_quic_lb cid;    /* connection IDs */
    uint8_t generation;
} cb_group_keys;

const cb_group_keys *cb_group_keys_of(const cb_group *g); /* immutable */
uint32_t cb_group_workers(const cb_group *g);

/* A packet that reached the wrong worker. */
typedef struct cb_stray {
    cb_list link;
    cb_datagram d; /* data points behind */
} cb_stray;

/* Where a worker's strays wait; guarded by the group. */
typedef struct cb_inbox {
    cb_list member; /* in the group */
    cb_list strays;
    size_t count;
    uint32_t worker;
    uint16_t port; /* one inbox a worker and UDP port */
    int wake;      /* eventfd, written when the first stray comes */
} cb_inbox;

enum { CB_INBOX_MAX = 1024 };

/* Opens the eventfd. CB_EEXIST: this worker has this port already; CB_EINVAL: no such worker. *steered: the kernel
 * delivers to the owner. */
int cb_group_join(cb_group *g, cb_inbox *box, uint32_t worker, uint16_t port, int udp_fd, bool *steered);
void cb_group_leave(cb_group *g, cb_inbox *box); /* drops what waits */
/* Copies d into the worker's inbox. CB_ENOENT: no such worker; CB_ELIMIT: it is full; CB_ENOMEM. */
int cb_group_hand_over(cb_group *g, uint32_t worker, uint16_t port, const cb_datagram *d);
/* Moves what waits to `out` (an initialised list) and clears the eventfd; cb_stray_free() each. */
void cb_group_take(cb_group *g, cb_inbox *box, cb_list *out);
void cb_stray_free(cb_stray *s);

#endif
