/* The inside of an HTTP/2 connection, beyond what it shares with HTTP/3 (mux.h): h2_conn.c (life, output, time),
 * h2_session.c (nghttp2's session), h2_cb.c (what it tells), h2_send.c (what an exchange sends). */
#ifndef CB_HTTP_H2_CONN_H
#define CB_HTTP_H2_CONN_H

#include "http/mux.h"
#include <nghttp2/nghttp2.h>

typedef struct h2_conn h2_conn;

typedef struct h2_stream {
    cb_mux_stream m;
    int32_t id; /* 0: nghttp2 does not know it yet */
    bool in_trailer, refused;
} h2_stream;

struct h2_conn {
    cb_mux m;
    nghttp2_session *ng;
    nghttp2_mem mem;
    void *frames;       /* the session's own buffer */
    cb_list fresh;      /* by cb_mux_stream.send: not yet in cb_mux.sends */
    h2_stream *section; /* whose field section is being received */
    cb_time section_since;
    cb_time stall_since; /* 0: not running */
    cb_rate settings, pings, priorities, empties, updates, unknown;
    uint32_t earned; /* WINDOW_UPDATE frames that what we sent gives reason for */
    int rc;          /* why the connection failed */
    unsigned wrote : 1, ended : 1;
    unsigned plain_malloc : 1; /* that is what our allocator ends in */
    unsigned over : 1;         /* the peer is gone and nothing was open */
    uint8_t *batch;            /* during a flush: H2_BATCH bytes in which frames gather */
    size_t batched;
};

enum { H2_BATCH = 16384 }; /* a TLS record: sealing one for each frame would cost more than the frames */

static inline h2_conn *h2_of(const cb_hconn *h) {
    return (h2_conn *)(void *)(uintptr_t)h;
}

/* h2_conn.c */
h2_stream *h2_stream_new(h2_conn *c, cb_exchange *x);
void h2_calm(h2_conn *c, const char *what); /* a flood: GOAWAY with ENHANCE_YOUR_CALM */
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
int h2_send_trailers(cb_hconn *h, cb_exchange *x, const cb_field *f, size_t n);
int h2_send_datagram(cb_hconn *h, cb_exchange *x, cb_slice payload);
void h2_send_late(h2_conn *c); /* the peer's SETTINGS are here */
void h2_output(cb_mux *m, cb_mux_stream *s);
int h2_on_send_data(nghttp2_session *ng, nghttp2_frame *frame, const uint8_t *framehd, size_t length,
                    nghttp2_data_source *source, void *user);

#endif
