/* The inside of a worker group: secrets, the form of its connection IDs, and the way to the owner of a packet. */
#ifndef CB_TRANSPORT_GROUP_INT_H
#define CB_TRANSPORT_GROUP_INT_H

#include "base/list.h"
#include "lb/quic_lb.h"
#include "transport/mail.h"
#include <cb/group.h>
#include <pthread.h>
#include <stdatomic.h>

typedef struct cb_group_keys {
    uint8_t token[32]; /* Retry and NEW_TOKEN */
    uint8_t reset[32]; /* stateless reset */
    cb_quic_lb cid;    /* connection IDs */
    uint8_t generation;
} cb_group_keys;

const cb_group_keys *cb_group_keys_of(const cb_group *g); /* immutable */
uint32_t cb_group_workers(const cb_group *g);
/* Has it a predecessor, or has another process heard of it? Then more generations than this may live. */
bool cb_group_linked(const cb_group *g);

/* Tells the hook, if there is one, of a connection ID that a client chose. */
void cb_group_dcid_opened(const cb_group *g, cb_slice dcid);
void cb_group_dcid_closed(const cb_group *g, cb_slice dcid);

/* Whose packet it is. */
typedef struct cb_owner {
    uint8_t generation, worker;
    uint16_t port;
} cb_owner;

/* What reached the wrong worker, or is told to one. */
typedef struct cb_stray {
    cb_list link;
    enum cb_mail_kind kind;
    cb_datagram d; /* data points behind */
} cb_stray;

/* Where a worker's strays wait; guarded by the family. */
typedef struct cb_inbox {
    cb_list member; /* in the family */
    cb_list strays;
    size_t count;
    cb_owner owner; /* one inbox a generation, worker and UDP port */
    int wake;       /* eventfd, written when the first stray comes */
    int mail[2];    /* for other processes: they write to 1, the worker reads from 0; -1 until cb_group_open_mail() */
} cb_inbox;

enum { CB_INBOX_MAX = 1024 };

/* Mail for one worker of another process, which leaves as one message. */
typedef struct cb_mail_batch {
    cb_owner to;
    size_t len;
    uint8_t bytes[CB_MAIL_MAX];
} cb_mail_batch;

/* Opens the eventfd. CB_EEXIST: this worker has this port already; CB_EINVAL: no such worker. udp_fd -1: a socket that
 * an older generation steers. *steered: the kernel delivers to the owner. */
int cb_group_join(cb_group *g, cb_inbox *box, uint32_t worker, uint16_t port, int udp_fd, bool *steered);
void cb_group_leave(cb_group *g, cb_inbox *box); /* drops what waits */
/* Lets other processes reach the inbox. */
int cb_group_open_mail(cb_group *g, cb_inbox *box);
/* New connections at the address of this socket go to the group. */
void cb_group_activate(cb_group *g, int udp_fd);

/* Gives a copy of d to its owner: into the inbox in this process, else into the batch, which is sent when it is full or
 * for somebody else. CB_ENOENT: no such worker, as far as known; CB_ELIMIT: the inbox is full; CB_ENOMEM. */
int cb_group_hand_over(cb_group *g, cb_owner to, const cb_datagram *d, cb_mail_batch *batch);
void cb_group_flush(cb_group *g, cb_mail_batch *batch);
/* A worker of the newest generation above the group's own; hash chooses among them. False: there is none. */
bool cb_group_newest(cb_group *g, uint16_t port, uint64_t hash, cb_owner *out);
/* Tells all older workers of the port that the socket is read here from now on. */
void cb_group_tell_rest(cb_group *g, uint16_t port, uint64_t cookie);
/* Moves what waits to `out` (an initialised list) and clears the eventfd; cb_stray_free() each. */
void cb_group_take(cb_group *g, cb_inbox *box, cb_list *out);
void cb_stray_free(cb_stray *s);

/* --- what group.c, group_family.c and group_save.c share --- */

/* All generations of a service that live in this process, and what is known of other processes. */
typedef struct cb_group_family {
    atomic_uint refs;
    atomic_bool linked;
    pthread_mutex_t lock;
    cb_list members;   /* cb_inbox */
    cb_list mailboxes; /* cb_mailbox */
} cb_group_family;

/* The way to a worker of another process. */
typedef struct cb_mailbox {
    cb_list link;
    cb_owner owner;
    int fd;
} cb_mailbox;

struct cb_group {
    atomic_uint refs;
    uint32_t workers;
    cb_group_keys keys;
    cb_steering_hook steering;
    cb_dcid_hook dcids;
    cb_group_family *family;
};

cb_group_family *cb_family_new(void); /* NULL: no memory */
cb_group_family *cb_family_ref(cb_group_family *f);
void cb_family_unref(cb_group_family *f);
/* Keeps a duplicate of fd, unless the owner is known already. */
int cb_family_add_mailbox(cb_group_family *f, cb_owner owner, int fd);
/* May this generation begin? CB_ELIMIT: the one whose place it takes is alive. */
int cb_family_room(cb_group_family *f, uint8_t generation);
/* Is a later than b? Generations wrap. */
bool cb_generation_after(uint8_t a, uint8_t b);

/* Keys and generation of the predecessor, and its mailboxes. */
int cb_group_adopt(cb_group *g, const cb_handoff *h, const char *name);

#endif
