/* The seam between HTTP framing and everything else.
 *
 *   transport  <->  cb_hconn (h1_conn.c, h2_conn.c, h3_conn.c: F1 cores)  <->  cb_exchange (exchange.c, F1)  <->  the
 * user
 *
 * A cb_hconn is one HTTP connection of either side. h1 and h2 are fed bytes of a channel and write into a cb_sink; h3
 * is a cb_quic_app. Its owner (server.c, client_conn.c, or a test) drives it and gets told by cb_hconn_owner_ops. */
#ifndef CB_HTTP_HCONN_H
#define CB_HTTP_HCONN_H

#include "base/addr.h"
#include "base/list.h"
#include "http/exchange.h"
#include "telemetry/count.h"
#include <stdbool.h>

/* Where h1 and h2 put their output; in a driver this is a channel. */
typedef struct cb_sink {
    size_t (*room)(struct cb_sink *s);                            /* bytes that it would like to take now */
    int (*write)(struct cb_sink *s, const cb_slice *v, size_t n); /* copies all */
    /* Half-close after what was written (a tunnel's end in one direction). NULL: the whole connection ends instead. */
    void (*shut)(struct cb_sink *s);
} cb_sink;

/* How the owner is told. Every member may be NULL. */
typedef struct cb_hconn_owner_ops {
    /* Server: a request begins; sets its handler with cb_exchange_handle(). */
    void (*exchange_new)(cb_hconn *h, cb_exchange *x);
    /* An exchange ended (after its on_close) with what was served: statistics and reuse. */
    void (*exchange_done)(cb_hconn *h, cb_exchange *x);
    /* Something outside of feed() changed: there is output to flush, or the deadline moved. Coalesce, then call flush
     * at the end of the turn. */
    void (*wake)(cb_hconn *h);
    /* Client: streams became available, or none will be again (see cb_hconn_usable). */
    void (*capacity)(cb_hconn *h);
    /* A limit was hit: its name ("head bytes", "resets", ...), for logs and counters. */
    void (*limit)(cb_hconn *h, const char *what);
    /* HTTP/3: the QUIC connection is over with rc and every exchange has had its on_close. Last; the owner calls
     * vt->free (vt->closed has been done). */
    void (*gone)(cb_hconn *h, int rc);
    /* Server: memory of an exchange that x->on_keep got, to be used again; NULL: there is none. */
    cb_exchange *(*spare)(cb_hconn *h);
} cb_hconn_owner_ops;

struct cb_hconn_vt {
    int version; /* enum cb_http_version */
    /* --- owner side. All return < 0 when the connection must be closed by the owner (detail set); `now` is
     * cb_loop_now() --- */
    int64_t (*feed)(cb_hconn *h, cb_slice in,
                    cb_time now);           /* h1, h2: bytes taken; fewer = paused until flush()/resume wakes */
    int (*eof)(cb_hconn *h, cb_time now);   /* the peer sends no more */
    int (*flush)(cb_hconn *h, cb_time now); /* produces output while the sink has room; delivers what was resumed */
    cb_time (*deadline)(const cb_hconn *h);
    int (*expire)(cb_hconn *h, cb_time now);
    void (*drain)(cb_hconn *h);            /* graceful: GOAWAY / Connection: close; finishes when exchanges are done */
    bool (*done)(const cb_hconn *h);       /* nothing more will happen: flush the transport and close it */
    size_t (*capacity)(const cb_hconn *h); /* client: how many more exchanges can start now */
    void (*closed)(cb_hconn *h, int rc);   /* the transport is gone: ends every exchange with rc */
    void (*free)(cb_hconn *h);             /* after closed; memory goes when no call is on the stack */
    /* --- client: a new exchange, head not yet sent --- */
    int (*open)(cb_hconn *h, cb_exchange *x); /* x was made by cb_exchange_new(); CB_EAGAIN: no stream now */
    /* --- exchange side: called by exchange.c only --- */
    int (*send_head)(cb_hconn *h, cb_exchange *x, const cb_head *head, bool end); /* request, 1xx or final response */
    size_t (*room)(const cb_hconn *h, const cb_exchange *x);
    int64_t (*send_body)(cb_hconn *h, cb_exchange *x, cb_slice data, bool end); /* bytes taken (up to room) */
    int (*send_trailers)(cb_hconn *h, cb_exchange *x, const cb_field *f, size_t n);
    void (*reset)(cb_hconn *h, cb_exchange *x, int code); /* exchange.c delivers on_close */
    void (*took)(cb_hconn *h, cb_exchange *x, size_t n);  /* the user took n body bytes: give credit back */
    void (*resume)(cb_hconn *h, cb_exchange *x);          /* go on delivering (h1: parse on) at the next flush */
    int (*send_datagram)(cb_hconn *h, cb_exchange *x, cb_slice payload);
    void (*detach)(cb_hconn *h, cb_exchange *x); /* x is over: drop x->frame; exchange.c unlinks, counts and frees x */
};

/* h2, h3: how much an exchange may write now that has `own` bytes waiting. All exchanges of a connection together have
 * the room of CB_OUT_SHARE full buffers, so that a peer which opens many and reads none costs little; each has its
 * first CB_OUT_FLOOR bytes in any case, so none starves. */
enum { CB_OUT_SHARE = 16, CB_OUT_FLOOR = 16384 };
size_t cb_hconn_out_room(const cb_hconn *h, size_t own);
bool cb_hconn_out_ready(const cb_hconn *h, size_t own); /* enough room to tell a writer that waits */

#define CB_TRIM (5 * CB_SEC) /* an idle connection gives back what makes the next request cheap */

/* What a connection knows about its surroundings; filled by the owner before the constructor, text must outlive the
 * connection. */
struct cb_hconn_env {
    cb_loop *loop; /* may be NULL in tests: then alloc must be set */
    const cb_alloc *alloc;
    const cb_log *log;
    const cb_cells *cells;        /* NULL: nothing is counted */
    const cb_http_limits *limits; /* every field set (cb_http_limits_fill) */
    const cb_hconn_owner_ops *owner;
    void *owner_user;
    cb_sink *sink;              /* h1, h2 */
    const char *scheme;         /* "http" or "https" */
    const char *sni;            /* "" */
    struct cb_tls_session *tls; /* NULL: clear text */
    const char *server_name;    /* Server field or NULL */
    const char *alt_svc;        /* whole value of Alt-Svc or NULL */
    const char *date; /* Date field for final responses that carry none (RFC 9110, 6.6.1), 29 bytes that the owner
                       * updates in place; NULL = none is added */
    cb_addr remote, local;
    bool server;
    bool early_any; /* server: every request of early data reaches the user, who answers 425 by themselves */
};

/* The beginning of every connection: cb_hconn_init() fills it, exchange.c keeps the list and the counts. */
struct cb_hconn {
    const cb_hconn_vt *vt;
    cb_hconn_env env;
    cb_list exchanges; /* open ones, by cb_exchange.link */
    size_t n_exchanges;
    uint64_t n_served;
    size_t queued; /* h2, h3: bytes that wait in the streams' output, all together */
    bool draining;
    cb_time accepted, secured; /* server, by cb_loop_now(): it came, its TLS handshake was over; 0: it was not */
    cb_time linger_until; /* h1, draining: an unused connection stays so long for its next request; 0 = not at all */
    char remote[CB_ADDR_TEXT], local[CB_ADDR_TEXT]; /* texts of the addresses, when an exchange was asked for them */
};

int cb_h1_new(cb_hconn **out, const cb_hconn_env *env);
int cb_h2_new(cb_hconn **out, const cb_hconn_env *env);
/* HTTP/3: h is the connection for the owner, its cb_quic_app is what quic_app.h's factory hands out. */
struct cb_quic_app;
int cb_h3_new(cb_hconn **out, const cb_hconn_env *env, cb_quic_conn *qc);
struct cb_quic_app *cb_h3_app(cb_hconn *h);

/* Fills zero fields of limits with their defaults. in may be NULL. CB_E2BIG, CB_EINVAL. */
int cb_http_limits_fill(cb_http_limits *out, const cb_http_limits *in);

#endif
