/* Connections to origins, kept and shared: what the client and the reverse proxy send their requests through.
 *
 * A pool belongs to one loop. A cb_origin stands for everything that makes two connections interchangeable (decision:
 * address or name, scheme, server name, identity, verification, versions, PROXY header). Idle HTTP/1.1 connections are
 * kept last in, first out; HTTP/2 and HTTP/3 connections carry as many exchanges as they have capacity for. What finds
 * no connection and may open none waits in a bounded queue, first in, first out. */
#ifndef CB_HTTP_POOL_H
#define CB_HTTP_POOL_H

#include "base/addr.h"
#include "http/exchange.h"
#include <cb/resolver.h>
#include <stdbool.h>

typedef struct cb_pool cb_pool;
typedef struct cb_origin cb_origin;

typedef struct cb_pool_opts {
    cb_resolver *resolver;        /* borrowed, must outlive the pool; NULL = literal addresses only */
    const cb_http_limits *limits; /* copied; NULL = defaults */
    cb_time connect_timeout;      /* name, TCP or QUIC, and TLS together; 0 = 10 s */
    cb_time idle_timeout;         /* of a connection without exchanges; 0 = 60 s */
    cb_time queue_timeout;        /* waiting for a connection when max_conns are busy; 0 = a little above that */
    cb_time happy_eyeballs;       /* RFC 8305, 8: Connection Attempt Delay; 0 = 250 ms */
    cb_time h3_grace;             /* head start of QUIC before TCP, where both may be used; 0 = 300 ms */
    cb_time quic_retry;           /* QUIC that failed is not tried for so long, then twice as long...; 0 = 15 s */
    uint32_t max_conns;           /* per origin, those being opened included; 0 = 64 */
    uint32_t max_idle;            /* per origin; 0 = 32 */
    uint32_t max_queue;           /* exchanges per origin; 0 = 1,024 */
    int32_t cc;                   /* enum cb_cc, HTTP/3 */
    bool follows;                 /* cb_pool_network_changed() will be called at each change */
    cb_sessions *sessions;        /* referenced; NULL = private, in memory */
} cb_pool_opts;

/* Copied by cb_origin_get(). */
typedef struct cb_pool_target {
    const char *host; /* name, IP literal (without brackets) or "unix:/path", what is dialled */
    uint16_t port;    /* 0 for a unix socket */
    bool tls;         /* https */
    bool tls12, early_data;
    bool alt_svc;            /* with TLS: HTTP/3 where the origin's Alt-Svc says so, whatever `versions` */
    uint8_t verify;          /* enum cb_verify */
    uint8_t send_proxy;      /* 0, or version 1 or 2 of the PROXY header, first on each new TCP connection */
    uint32_t versions;       /* enum cb_http_version, or-ed; 0 = h2 and h1 with TLS, h1 without. CB_HTTP_2 alone without
                              * TLS is prior knowledge; CB_HTTP_3 needs TLS */
    const char *server_name; /* SNI and name to verify; NULL = host */
    cb_identity *identity;   /* referenced; NULL = system roots, no certificate */
    /* With send_proxy: what the header names; connections are then shared only between equal pairs. NULL = LOCAL
     * (version 2) or UNKNOWN (version 1). */
    const cb_addr *proxy_src, *proxy_dst;
} cb_pool_target;

/* Of all origins together, since ever. */
typedef struct cb_pool_stats {
    uint64_t opened[5]; /* connections, by enum cb_http_version */
    uint64_t failed;    /* openings of which nothing came */
    uint64_t retried;   /* requests sent a second time */
    uint64_t moved;     /* of these: away from a connection that had fallen silent */
    uint64_t silent;    /* connections that fell silent while requests waited */
    uint64_t probes;    /* HTTP/3 tried beside TCP */
    uint64_t resumed;   /* connections that resumed a TLS session */
    uint64_t migrated;  /* QUIC connections, to another local address */
} cb_pool_stats;

int cb_pool_new(cb_pool **out, cb_loop *loop, const cb_pool_opts *opts);
/* Ends everything: exchanges get on_close(CB_ECLOSED). Origins that are still referenced live on, without connections.
 */
void cb_pool_free(cb_pool *p);
/* New connections only from now on: idle ones close, busy ones close when their exchanges are done. */
void cb_pool_drain(cb_pool *p);

const cb_pool_stats *cb_pool_stats_of(const cb_pool *p);
/* Addresses or routes of this host changed: what was learned of the old network is forgotten, QUIC connections whose
 * packets now leave from another address migrate, TCP connections whose address is gone end, and what is idempotent of
 * them goes out again. */
void cb_pool_network_changed(cb_pool *p);

/* Finds or makes the origin of a target, with a reference for the caller. An origin without references, connections
 * and exchanges is dropped. CB_EINVAL (the detail names the member), CB_ENOMEM. */
int cb_origin_get(cb_origin **out, cb_pool *p, const cb_pool_target *t);
void cb_origin_unref(cb_origin *o); /* NULL is fine */

typedef struct cb_origin_stats {
    uint32_t conns; /* open and usable */
    uint32_t connecting;
    uint32_t idle;   /* of conns, without an exchange */
    uint32_t active; /* exchanges on connections */
    uint32_t queued; /* exchanges that wait */
    uint64_t opened; /* connections, since ever */
    uint64_t failed; /* attempts to open one */
    uint64_t requests, reused, retried;
} cb_origin_stats;

void cb_origin_stats_get(const cb_origin *o, cb_origin_stats *out);
const char *cb_origin_name(const cb_origin *o); /* "https://host:port", "http+unix:/path", for logs */

typedef struct cb_pool_request {
    const cb_head *head;  /* copied; scheme and authority as they go out; length -1 with has_body: streamed */
    bool has_body;        /* the body follows by cb_exchange_write() and cb_exchange_finish() */
    bool no_retry;        /* never send it twice, also when it is idempotent */
    cb_time timeout;      /* to the end of the exchange; 0 = none. CB_ETIMEOUT */
    cb_time head_timeout; /* from the request's head going out to the final response's head; 0 = none. CB_ETIMEOUT */
    const cb_exchange_ops *ops;
    void *user;
} cb_pool_request;

/* Starts an exchange. It is live at once with conn NULL: writes give CB_EAGAIN until it has a connection (then
 * on_writable), reset and abandon work at any time. Callbacks never come inside this call. It is sent again by itself,
 * once on a fresh connection, when nothing of a response had come, no body byte had gone out, and either the peer said
 * that it did not process it, or the method is idempotent and the connection was a reused one, was QUIC, or went with
 * the address that it used. Idempotent ones also move away from a QUIC connection that fell silent.
 * What goes wrong arrives as on_close(rc), with the reason in cb_last_error() during the call: CB_EUNREACH (refused,
 * reset while connecting, no route), CB_ETIMEOUT (the detail says which limit), CB_ETLS and CB_EAUTH (handshake,
 * certificate), CB_EDNS, CB_ELIMIT (queue full), CB_EPROTO, CB_ECLOSED (the origin went away in the middle).
 * CB_EINVAL, CB_ENOMEM, CB_ECLOSED (pool freed). */
int cb_pool_send(cb_exchange **out, cb_origin *o, const cb_pool_request *req);

/* How far an exchange of a pool got; for decisions in on_close (may another origin be tried?) and for logs. Valid until
 * on_close returns. */
enum cb_pool_phase {
    CB_PHASE_QUEUED = 0,  /* no connection yet: not sent */
    CB_PHASE_CONNECT = 1, /* its connection was being opened: not sent */
    CB_PHASE_SENT = 2,    /* the head has gone out */
    CB_PHASE_ANSWERED = 3 /* the final response's head has come */
};
int cb_pool_phase(const cb_exchange *x);
/* When what happened to it, by cb_loop_now(); 0: it did not. Valid as the phase. */
typedef struct cb_pool_times {
    cb_time queued;                  /* it began to wait for a connection (again, when it is sent a second time) */
    cb_time sent;                    /* its head went out */
    cb_time began, connected, ready; /* of the connection that it went out on: the attempt, TCP (never on QUIC), the
                                      * end of the handshake. 0 before `sent` */
} cb_pool_times;
const cb_pool_times *cb_pool_times_of(const cb_exchange *x);
int cb_pool_version(const cb_exchange *x);      /* enum cb_http_version of that connection; 0 before `sent` */
bool cb_pool_reused(const cb_exchange *x);      /* it went out on a connection that had served before */
const char *cb_pool_peer(const cb_exchange *x); /* "address:port" of the origin; "" before SENT */

#endif
