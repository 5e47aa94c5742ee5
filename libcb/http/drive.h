/* What drives one HTTP connection of either side: framing above, a channel or a QUIC connection below, the loop beside.
 *
 * A turn is: take all input, handle all of it, one flush. Deadlines of framing become one alarm; framing is never ended
 * while it is on the stack. Server and pool embed a cb_drive as the first member of their connection. */
#ifndef CB_HTTP_DRIVE_H
#define CB_HTTP_DRIVE_H

#include "http/hconn.h"
#include "transport/channel.h"
#include "transport/quic_app.h"

typedef struct cb_drive cb_drive;

typedef struct cb_drive_ops {
    /* TCP: connected and, with TLS, handshake done. Makes framing and gives it to cb_drive_run(), or waits for input.
     */
    void (*open)(cb_drive *d);
    /* TCP: the first bytes (all that came, at most 4) while there is no framing. CB_EAGAIN: more are needed; CB_OK:
     * framing exists now; else the connection ends. NULL: there must be none. */
    int (*first)(cb_drive *d, cb_slice bytes);
    /* The end is decided (framing may be there or not): for the log and for counting. Comes once, before exchanges get
     * their on_close. */
    void (*ended)(cb_drive *d, int rc);
    /* The transport is gone, after `ended`; nothing follows. The owner lets the memory go by cb_loop_bury(). */
    void (*gone)(cb_drive *d);
} cb_drive_ops;

struct cb_drive {
    const cb_drive_ops *ops;
    cb_loop *loop;
    cb_hconn *h;    /* NULL: not yet, or over */
    cb_channel *ch; /* one of ch and qc; NULL when gone */
    cb_quic_conn *qc;
    cb_sink sink;    /* onto ch */
    cb_defer defer;  /* flush at the end of the turn */
    cb_alarm alarm;  /* framing's deadline; may be early: moving it back is left to its firing */
    unsigned busy;   /* framing is on the stack */
    int dead_rc;     /* with dead: the result to end with */
    uint8_t kept[4]; /* the first bytes */
    uint8_t n_kept;
    bool dead;     /* to be ended when framing has returned */
    bool forget;   /* with dead or ending: do not wait for the transport's orderly end */
    bool waits;    /* framing took less than it was given */
    bool resuming; /* input is being taken up */
    bool ending;
    bool over; /* `gone` was called */
};

void cb_drive_init(cb_drive *d, cb_loop *loop, const cb_drive_ops *ops);
extern const cb_channel_ops cb_drive_channel_ops; /* of the channel; its user is the cb_drive */
void cb_drive_run(cb_drive *d, cb_hconn *h);      /* framing exists now; its env.owner_user is the cb_drive */
void cb_drive_flush(cb_drive *d);
void cb_drive_later(cb_drive *d); /* flush at the end of the turn */
/* Ends it: exchanges that are not over get rc; what framing has written may still leave, unless `forget`. When framing
 * is on the stack this happens when it returns. */
void cb_drive_end(cb_drive *d, int rc, bool forget);

/* Of every cb_hconn_owner_ops in which env.owner_user is a cb_drive. */
void cb_drive_on_wake(cb_hconn *h);
void cb_drive_on_gone(cb_hconn *h, int rc);

#endif
