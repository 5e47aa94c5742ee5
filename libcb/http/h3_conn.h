/* The inside of an HTTP/3 connection, beyond what it shares with HTTP/2 (mux.h): h3_conn.c (life, output, time),
 * h3_app.c (what QUIC tells), h3_cb.c (what nghttp3 tells), h3_send.c (what an exchange sends), h3_quic.c (the QUIC
 * connection below). */
#ifndef CB_HTTP_H3_CONN_H
#define CB_HTTP_H3_CONN_H

#include "http/h3_control.h"
#include "http/h3_frames.h"
#include "http/h3_settings.h"
#include "http/mux.h"
#include "transport/quic_app.h"
#include <nghttp3/nghttp3.h>

typedef struct h3_conn h3_conn;

/* What HTTP/3 asks of the QUIC connection: cb_quic_conn_*() of transport/quic_app.h, or a stand-in of the tests. */
typedef struct h3_below {
    int (*open_stream)(cb_quic_conn *q, bool bidi, int64_t *stream);
    void (*wake)(cb_quic_conn *q);
    void (*credit)(cb_quic_conn *q, int64_t stream, size_t bytes);
    void (*reset_stream)(cb_quic_conn *q, int64_t stream, uint64_t code);
    void (*stop_stream)(cb_quic_conn *q, int64_t stream, uint64_t code);
    void (*extend_streams)(cb_quic_conn *q, bool bidi, size_t n);
    int (*fail)(cb_quic_conn *q, uint64_t app_error, const char *reason);
    int (*datagram)(cb_quic_conn *q, const cb_slice *v, size_t n);
    cb_time (*now)(const cb_quic_conn *q);
    cb_time (*rtt)(const cb_quic_conn *q); /* 0: not known */
    bool (*in_early_data)(const cb_quic_conn *q);
    void (*rest)(cb_quic_conn *q); /* may be NULL */
} h3_below;

extern const h3_below cb_h3_below_quic;
int cb_h3_new_on(cb_hconn **out, const cb_hconn_env *env, cb_quic_conn *qc, const h3_below *below);

/* A request stream. */
typedef struct h3_stream {
    cb_mux_stream m;
    struct h3_stream *hash_next;
    int64_t id;
    cb_h3_frames frames;    /* that the peer sends */
    unsigned submitted : 1; /* nghttp3 has our head */
    unsigned blocked : 1;   /* by the stream's flow control */
    unsigned stopped : 1;   /* we stopped reading */
    unsigned began : 1;     /* server: its exchange was made */
} h3_stream;

enum { H3_BUCKETS = 16 }; /* IDs of streams follow each other, so chains stay short */

struct h3_conn {
    cb_mux m;
    cb_quic_app app;
    cb_quic_conn *qc;
    const h3_below *below;
    nghttp3_conn *ng;
    nghttp3_mem mem;
    h3_stream *buckets[H3_BUCKETS];
    cb_list heads;              /* by cb_mux_stream.head */
    cb_time linger_at, sent_at; /* 0: not running */
    cb_time told;               /* the owner knows a deadline not later than this */
    cb_rate control_bytes, idle_frames, uni_streams;
    uint64_t max_bidi;
    size_t fed;            /* bytes of bodies in the delivery that nghttp3 reads now */
    cb_h3_control control; /* the peer's control stream */
    cb_h3_settings peer;   /* client: what the server allows */
    unsigned ready : 1, failed : 1, peer_datagram : 1, no_streams : 1, drained : 1, rests : 1;
};

static inline h3_conn *h3_of(const cb_hconn *h) {
    return (h3_conn *)(void *)(uintptr_t)h;
}

/* Ends what we send on a stream before its time. */
static inline void h3_reset_stream(h3_conn *c, int64_t id, uint64_t code) {
    cb_cells_add(c->m.h.env.cells, c->m.h.env.server ? CB_C_HTTP_RESETS_SERVER_OUT : CB_C_HTTP_RESETS_CLIENT_OUT, 1);
    c->below->reset_stream(c->qc, id, code);
}

/* h3_conn.c */
h3_stream *h3_stream_new(h3_conn *c, int64_t id);
h3_stream *h3_stream_find(const h3_conn *c, int64_t id);
void h3_stream_unhash(h3_conn *c, h3_stream *s);
void h3_attach(h3_conn *c, h3_stream *s, cb_exchange *x);
int h3_start(h3_conn *c); /* makes the nghttp3 connection */
int h3_bind(h3_conn *c);  /* opens control and QPACK streams */
void h3_told(h3_conn *c); /* tells the owner when the deadline has come nearer */
int h3_fail(h3_conn *c, uint64_t code, const char *reason);
int h3_failed(h3_conn *c, int error); /* an nghttp3 error */
void h3_drain(cb_hconn *h);

/* h3_app.c */
extern const cb_quic_app_ops h3_app_ops;
h3_conn *h3_of_app(cb_quic_app *app);
void h3_stream_over(h3_conn *c, int64_t id, uint64_t code);

/* h3_cb.c */
extern const nghttp3_callbacks h3_callbacks;

/* h3_send.c */
int h3_open(cb_hconn *h, cb_exchange *x);
int h3_send_head(cb_hconn *h, cb_exchange *x, const cb_head *head, bool end);
int h3_send_trailers(cb_hconn *h, cb_exchange *x, const cb_field *f, size_t n);
int h3_send_datagram(cb_hconn *h, cb_exchange *x, cb_slice payload);
void h3_send_late(h3_conn *c); /* the peer's SETTINGS are here */
void h3_output(cb_mux *m, cb_mux_stream *s);

#endif
