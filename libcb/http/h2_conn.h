/* The inside of an HTTP/2 connection: h2_conn.c (life, output, time), h2_session.c (nghttp2's session), h2_cb.c (what
 * it tells), h2_send.c (what an exchange sends). */
#ifndef CB_HTTP_H2_CONN_H
#define CB_HTTP_H2_CONN_H

#include "http/hconn.h"
#include "http/rate.h"
#include "http/tunnel_in.h"
#include <nghttp2/nghttp2.h>

typedef struct h2_conn h2_conn;

/* A stream, from its first frame (or cb_hconn_vt.open) until both nghttp2 and the exchange have forgotten it. */
typedef struct h2_stream {
    cb_list link;          /* in h2_conn.streams */
    cb_exchange *x;        /* NULL once it was told to close */
    cb_chain out;          /* written by the user, not yet in a frame */
    cb_fields kept;        /* trailers, or a request that waits for the peer's SETTINGS */
    cb_quiet body;         /* in h2_conn.bodies: the peer owes a body */
    cb_quiet send;         /* in h2_conn.fresh or .sends: we have bytes to send */
    cb_list writable;      /* in h2_conn.writable: room came back */
    cb_tunnel_in *tunnel;  /* capsules came */
    size_t owed;           /* body bytes received, credit not given back */
    int32_t id;            /* 0: nghttp2 does not know it yet */
    int section_rc;        /* first error of the field section that is being received */
    unsigned open : 1;     /* nghttp2 knows it */
    unsigned attached : 1; /* an exchange points to it */
    unsigned fin : 1, trailers : 1, late : 1, late_end : 1, deferred : 1, was_reset : 1, in_trailer : 1, refused : 1;
    unsigned capsules : 1; /* a request of ours for a protocol of capsules */
} h2_stream;

struct h2_conn {
    cb_hconn h;
    nghttp2_session *ng;
    nghttp2_mem mem;
    void *frames;    /* the session's own buffer */
    cb_list streams; /* h2_stream.link */
    cb_list bodies, fresh, sends, writable;
    h2_stream *section; /* whose field section is being received */
    cb_time section_since;
    cb_time now, idle_since, stall_since, drain_at; /* 0: not running */
    cb_rate resets, settings, pings, priorities, empties, updates, unknown;
    uint32_t earned; /* WINDOW_UPDATE frames that what we sent gives reason for */
    uint64_t n_opened;
    uint32_t n_late;
    int depth; /* library calls on the stack */
    int rc;    /* why the connection failed */
    unsigned wrote : 1, closed : 1, freed : 1, ended : 1, settings_in : 1, drain_asked : 1, final_goaway : 1;
    unsigned plain_malloc : 1; /* that is what our allocator ends in */
    unsigned over : 1;         /* the peer is gone and nothing was open */
    uint8_t *batch;            /* during a flush: H2_BATCH bytes in which frames gather */
    size_t batched;
    cb_grave grave;
};

enum { H2_BATCH = 16384 }; /* a TLS record: sealing one for each frame would cost more than the frames */

static inline h2_conn *h2_of(const cb_hconn *h) {
    return (h2_conn *)(void *)(uintptr_t)h;
}

/* h2_conn.c */
h2_stream *h2_stream_new(h2_conn *c, cb_exchange *x);
void h2_stream_drop(h2_conn *c, h2_stream *s); /* frees it when nobody knows it any more */
void h2_wake(h2_conn *c);
void h2_limit(h2_conn *c, const char *what);
void h2_calm(h2_conn *c, const char *what);              /* a flood: GOAWAY with ENHANCE_YOUR_CALM */
void h2_close(h2_conn *c, h2_stream *s, int rc);         /* tells the exchange, once */
void h2_stream_failed(h2_conn *c, h2_stream *s, int rc); /* answers or resets, then closes the exchange */
void h2_credit(h2_conn *c, h2_stream *s, size_t n);
void h2_final_goaway(h2_conn *c);
void h2_drain(cb_hconn *h);
int h2_write(h2_conn *c, const cb_slice *v, size_t n);
bool h2_has_room(const h2_conn *c);

/* h2_session.c */
int h2_session_new(h2_conn *c); /* makes c->ng, with SETTINGS to send */

/* h2_cb.c */
int h2_callbacks(nghttp2_session_callbacks **out);

/* h2_send.c */
int h2_open(cb_hconn *h, cb_exchange *x);
int h2_send_head(cb_hconn *h, cb_exchange *x, const cb_head *head, bool end);
size_t h2_room(const cb_hconn *h, const cb_exchange *x);
int64_t h2_send_body(cb_hconn *h, cb_exchange *x, cb_slice data, bool end);
int h2_send_trailers(cb_hconn *h, cb_exchange *x, const cb_field *f, size_t n);
int h2_send_datagram(cb_hconn *h, cb_exchange *x, cb_slice payload);
void h2_send_late(h2_conn *c); /* the peer's SETTINGS are here */
int h2_on_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *framehd, size_t length,
                    nghttp2_data_source *source, void *user);

#endif
