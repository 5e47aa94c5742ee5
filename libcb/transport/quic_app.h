/* The seam between a QUIC connection and what rides on it: HTTP/3 (http/h3_conn.c) or raw streams
 * (transport/quic_stream.c).
 *
 * The connection core (quic_conn.c, F1, over ngtcp2) calls cb_quic_app_ops; the application calls cb_quic_conn_*.
 * Nothing here does I/O. Calls of the application into the connection are allowed inside callbacks: they only change
 * state and mark the connection for its next flush. */
#ifndef CB_TRANSPORT_QUIC_APP_H
#define CB_TRANSPORT_QUIC_APP_H

#include "base/addr.h"
#include "transport/tls_session.h"
#include <cb/quic.h>
#include <stdbool.h>

typedef struct cb_quic_app {
    const struct cb_quic_app_ops *ops;
} cb_quic_app; /* embedded as the first member */

enum { CB_QUIC_FIN = 1, CB_QUIC_EARLY = 2 };

/* Members may be NULL except pull. A negative return closes the connection: with the application error that the app set
 * by cb_quic_conn_fail(), else with an internal error. */
typedef struct cb_quic_app_ops {
    int (*ready)(cb_quic_app *app); /* streams can be opened: server when its 1-RTT (0-RTT answer) keys exist, client
                                     * when 0-RTT or 1-RTT keys exist. Once. HTTP/3 opens its control streams here */
    int (*handshake)(cb_quic_app *app);      /* complete, peer verified */
    int (*early_rejected)(cb_quic_app *app); /* client: 0-RTT was refused; all stream state is void, start again */

    /* --- receiving. The app returns credit by cb_quic_conn_credit() when it has consumed (HTTP/3: at once for framing)
     * --- */
    int (*recv)(cb_quic_app *app, int64_t stream, unsigned flags, cb_slice data);
    int (*stream_open)(cb_quic_app *app, int64_t stream);                 /* by the peer */
    int (*stream_reset)(cb_quic_app *app, int64_t stream, uint64_t code); /* peer's RESET_STREAM */
    int (*stream_stop)(cb_quic_app *app, int64_t stream,
                       uint64_t code); /* peer's STOP_SENDING (RESET_STREAM is answered) */
    int (*stream_close)(cb_quic_app *app, int64_t stream, uint64_t code); /* both sides over; code UINT64_MAX: none */
    int (*datagram)(cb_quic_app *app, cb_slice data);
    int (*path_change)(cb_quic_app *app);

    /* --- sending: the connection pulls when a packet has room. pull gives the next stream with data: *stream = -1 for
     * none; up to n vectors, none empty (memory stable until `acked`), *fin; returns the number of vectors (0 with
     * *fin: a bare FIN) or < 0 --- */
    int (*pull)(cb_quic_app *app, int64_t *stream, bool *fin, cb_slice *vec, size_t n);
    int (*committed)(cb_quic_app *app, int64_t stream,
                     size_t bytes);                    /* so many of them went into a packet (0: only the FIN) */
    void (*blocked)(cb_quic_app *app, int64_t stream); /* flow control: do not offer it until unblocked */
    void (*unblocked)(cb_quic_app *app, int64_t stream);
    void (*shut)(cb_quic_app *app, int64_t stream); /* the write side is closed: never offer it again */
    void (*acked)(cb_quic_app *app, int64_t stream, uint64_t bytes); /* release so much memory from the front */
    void (*streams_available)(cb_quic_app *app);

    void (*closed)(cb_quic_app *app, int rc); /* last, once; the connection is gone after it returns */
} cb_quic_app_ops;

/* --- what the app calls --- */
int cb_quic_conn_open_stream(cb_quic_conn *c, bool bidi, int64_t *stream); /* CB_EAGAIN */
void cb_quic_conn_wake(cb_quic_conn *c); /* there is something to pull: flush at the end of the turn */
void cb_quic_conn_rest(cb_quic_conn *c); /* nothing is expected soon: give back what the next packet can make again */
void cb_quic_conn_credit(cb_quic_conn *c, int64_t stream,
                         size_t bytes); /* both windows: stream (>= 0) and connection */
void cb_quic_conn_reset_stream(cb_quic_conn *c, int64_t stream, uint64_t code); /* RESET_STREAM */
void cb_quic_conn_stop_stream(cb_quic_conn *c, int64_t stream, uint64_t code);  /* STOP_SENDING */
void cb_quic_conn_extend_streams(cb_quic_conn *c, bool bidi,
                                 size_t n); /* lets the peer open n more (after stream_close) */
int cb_quic_conn_fail(cb_quic_conn *c, uint64_t app_error,
                      const char *reason); /* remembers what to close with; returns CB_EPROTO */
int cb_quic_conn_datagram(cb_quic_conn *c, const cb_slice *v, size_t n); /* as cb_quic_datagram_send, gathered */
bool cb_quic_conn_is_server(const cb_quic_conn *c);
cb_time cb_quic_conn_now(const cb_quic_conn *c);
const cb_alloc *cb_quic_conn_alloc(const cb_quic_conn *c);
const cb_log *cb_quic_conn_log(const cb_quic_conn *c);
cb_loop *cb_quic_conn_loop(const cb_quic_conn *c);
const cb_addr *cb_quic_conn_peer_addr(const cb_quic_conn *c);
const cb_addr *cb_quic_conn_local_addr(const cb_quic_conn *c); /* client: as bound, which may be "any" */
cb_tls_session *cb_quic_conn_tls(const cb_quic_conn *c);
/* The handshake is not complete yet: what a server receives, and what a client sends now, may be a replay. */
bool cb_quic_conn_in_early_data(const cb_quic_conn *c);

/* --- a client's: does the peer still answer? --- */
typedef struct cb_quic_pulse {
    cb_time owed;      /* since when it owes an answer to something that was sent; 0 = it owes none */
    cb_time pto;       /* the probe timeout as it is now (RFC 9002, 6.2), without back-off */
    uint64_t rx_bytes; /* received in all */
} cb_quic_pulse;
cb_quic_pulse cb_quic_conn_pulse(const cb_quic_conn *c);
/* PING after so long without packets; 0 = as its options say. */
void cb_quic_conn_keep_alive(cb_quic_conn *c, cb_time every);

bool cb_quic_conn_is_over(const cb_quic_conn *c); /* its end is decided: no stream of it gets further */

/* --- how a driver attaches an app: the endpoint calls make for every connection it accepts or starts --- */
typedef struct cb_quic_app_factory {
    int (*make)(cb_quic_app **out, cb_quic_conn *c,
                void *user); /* when the ALPN is known (server: after the ClientHello) */
    void *user;
} cb_quic_app_factory;

/* cb_quic_listen/_client with HTTP/3 or another app on top instead of cb_quic_conn_ops. */
/* Server: what else its tickets are bound to: what a client may remember of the application (HTTP/3's SETTINGS). New
 * handshakes go by it. CB_ENOMEM: nothing has changed. */
int cb_quic_endpoint_bind_tickets(cb_quic_endpoint *e, const char *app);
int cb_quic_endpoint_open(cb_quic_endpoint **out, cb_loop *loop, const cb_addr *bind, bool server,
                          const cb_quic_opts *opts, const cb_quic_app_factory *factory);
/* elsewhere: another address of the same server has served before, and its session may be resumed here. */
int cb_quic_endpoint_connect(cb_quic_conn **out, cb_quic_endpoint *e, const cb_addr *remote, const char *server_name,
                             const cb_quic_app_factory *factory /* NULL = the endpoint's */, bool elsewhere);
/* Its sockets: writes up to cap and returns how many there are. */
size_t cb_quic_endpoint_fds(const cb_quic_endpoint *e, int32_t *out, size_t cap);
/* Before _free, when opening failed elsewhere: sockets that were taken over stay the caller's. */
void cb_quic_endpoint_give_back(cb_quic_endpoint *e);
const cb_addr *cb_quic_endpoint_addr(const cb_quic_endpoint *e);
/* The host's addresses or routes changed: client connections whose packets would now leave from another address than
 * before migrate at once. Returns how many. */
size_t cb_quic_endpoint_follow(cb_quic_endpoint *e);
/* cb_quic_endpoint_follow() will be called at each change. Without, a client whose address goes leaves the choice of
 * another one to the kernel, and the server finds out by itself (RFC 9000, 9.3). */
void cb_quic_endpoint_pin(cb_quic_endpoint *e);

#endif
