/* What HTTP/2 and HTTP/3 have in common: a connection whose exchanges are streams; what streams owe and are owed, what
 * they have to send, and how all of it ends. h2_conn and h3_conn begin with a cb_mux, their streams with a
 * cb_mux_stream; where the versions differ, cb_mux_ops asks. */
#ifndef CB_HTTP_MUX_H
#define CB_HTTP_MUX_H

#include "http/hconn.h"
#include "http/rate.h"
#include "http/tunnel_in.h"

typedef struct cb_mux cb_mux;

/* From its opening until the library below and the exchange have both forgotten it. */
typedef struct cb_mux_stream {
    cb_list link;          /* in cb_mux.streams */
    cb_exchange *x;        /* NULL: none yet, or it was told to close */
    cb_chain out;          /* written by the user; HTTP/2: not yet in a frame; HTTP/3: not yet acknowledged */
    cb_fields kept;        /* a request that waits for the peer's SETTINGS; HTTP/2: or trailers */
    cb_quiet head;         /* HTTP/3: in h3_conn.heads: a request whose head is not complete */
    cb_quiet body;         /* in cb_mux.bodies: the peer owes a body */
    cb_quiet send;         /* in cb_mux.sends (or h2_conn.fresh): the peer owes credit or acknowledgements */
    cb_list writable;      /* in cb_mux.writable: room came back */
    cb_tunnel_in *tunnel;  /* capsules came */
    size_t owed;           /* body bytes received, credit not given back */
    int section_rc;        /* first error of the field section that is being received */
    unsigned open : 1;     /* the library below knows it */
    unsigned attached : 1; /* an exchange points to it */
    unsigned fin : 1, trailers : 1, late : 1, late_end : 1, deferred : 1, was_reset : 1;
    unsigned mute : 1;     /* the peer stopped reading: what is written is thrown away */
    unsigned capsules : 1; /* a request of ours for a protocol of capsules */
} cb_mux_stream;

typedef struct cb_mux_ops {
    void (*credit)(cb_mux *m, cb_mux_stream *s, size_t n); /* the peer may send n bytes more */
    void (*output)(cb_mux *m, cb_mux_stream *s);           /* there is more to send, or its end is known */
    void (*dropped)(cb_mux *m, cb_mux_stream *s);          /* the stream goes now; may be NULL */
    void (*destroy)(cb_mux *m);                            /* frees the connection */
} cb_mux_ops;

struct cb_mux {
    cb_hconn h;
    const cb_mux_ops *ops;
    cb_list streams; /* cb_mux_stream.link */
    cb_list bodies, sends, writable;
    cb_time now, idle_since, drain_at; /* 0: not running */
    cb_rate resets;
    uint64_t n_opened;
    uint32_t n_late;
    int depth; /* library calls on the stack */
    unsigned closed : 1, freed : 1, settings_in : 1, drain_asked : 1, final_goaway : 1;
    cb_grave grave;
};

static inline cb_mux *cb_mux_of(const cb_hconn *h) {
    return (cb_mux *)(void *)(uintptr_t)h;
}

/* --- life --- */
void cb_mux_init(cb_mux *m, const cb_hconn_vt *vt, const cb_mux_ops *ops, const cb_hconn_env *env);
void cb_mux_enter(cb_mux *m);
void cb_mux_leave(cb_mux *m);            /* m may be gone afterwards */
void cb_mux_closed(cb_hconn *h, int rc); /* cb_hconn_vt.closed */
void cb_mux_free(cb_hconn *h);           /* cb_hconn_vt.free */
void cb_mux_free_streams(cb_mux *m);     /* for cb_mux_ops.destroy */
void cb_mux_wake(cb_mux *m);             /* the owner shall flush, or ask for the deadline */
void cb_mux_limit(cb_mux *m, const char *what);
void cb_mux_count_request(cb_mux *m); /* server: one more; the last that is allowed begins the drain */

/* --- streams --- */
/* `size` bytes of a block of CB_BLOCK_MIN, which begin with a cb_mux_stream. NULL: CB_ENOMEM. */
void *cb_mux_stream_new(cb_mux *m, size_t size);
void cb_mux_attach(cb_mux *m, cb_mux_stream *s, cb_exchange *x);
void cb_mux_detach(cb_hconn *h, cb_exchange *x);         /* cb_hconn_vt.detach */
void cb_mux_drop(cb_mux *m, cb_mux_stream *s);           /* frees it when nobody knows it any more */
void cb_mux_close(cb_mux_stream *s, int rc);             /* tells the exchange, once */
void cb_mux_failed(cb_mux *m, cb_mux_stream *s, int rc); /* answers or resets, then closes the exchange */
/* For cb_hconn_vt.reset: takes the exchange away. The stream when the peer has to be told, else NULL. */
cb_mux_stream *cb_mux_reset(cb_hconn *h, cb_exchange *x);
cb_mux_stream *cb_mux_first_late(const cb_mux *m); /* whose request waits for the peer's SETTINGS */
void cb_mux_expire_bodies(cb_mux *m, cb_time now);

/* --- what comes in --- */
void cb_mux_head(cb_mux *m, cb_mux_stream *s, bool end);      /* the head is complete, or was wrong: section_rc */
void cb_mux_data(cb_mux *m, cb_mux_stream *s, cb_slice data); /* s->x is there and does not fail */
void cb_mux_end(cb_mux *m, cb_mux_stream *s);                 /* the same; the peer sends no more */
void cb_mux_credit(cb_mux *m, cb_mux_stream *s, size_t n);
void cb_mux_took(cb_hconn *h, cb_exchange *x, size_t n); /* cb_hconn_vt.took */

/* --- what goes out --- */
int cb_mux_usable(const cb_mux *m, const cb_mux_stream *s);  /* CB_OK, or CB_ECLOSED with its detail; s may be NULL */
size_t cb_mux_room(const cb_hconn *h, const cb_exchange *x); /* cb_hconn_vt.room */
int64_t cb_mux_send_body(cb_hconn *h, cb_exchange *x, cb_slice data, bool end); /* cb_hconn_vt.send_body */
int cb_mux_send_capsule(cb_mux *m, cb_mux_stream *s, cb_slice datagram);        /* RFC 9297, 3.5; CB_EAGAIN: no room */
bool cb_mux_deliver_writable(cb_mux *m); /* tells the streams that have room again; true: there was one */

#endif
