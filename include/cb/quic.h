/* cb/quic.h - QUIC (RFC 9000, 9001, 9002, 9221, 9369) client and server: connections, streams, datagrams.
 *
 * For HTTP use cb/http.h; this is for protocols of your own. An endpoint is one UDP socket on one loop with any number
 * of connections. Everything runs on the loop's thread. Stream IDs are those of RFC 9000, section 2.1. */
#ifndef CB_QUIC_H
#define CB_QUIC_H

#include <cb/group.h>
#include <cb/loop.h>
#include <cb/peer.h>

CB_BEGIN

typedef struct cb_quic_endpoint cb_quic_endpoint;
typedef struct cb_quic_conn cb_quic_conn;

/* Congestion control. Precedence: option, then configuration, then the environment variable CBR_CC, then cubic. */
enum cb_cc {
    CB_CC_DEFAULT = 0,
    CB_CC_CUBIC = 1, /* RFC 9438 */
    CB_CC_RENO = 2,  /* RFC 9002 */
    CB_CC_BBR = 3,   /* ngtcp2's BBR */
    CB_CC_BBRV3 = 4 /* libcb's own governor: paces by a model of the path (after draft-ietf-ccwg-bbr-06) above ngtcp2 */
};

/* What the governor (CB_CC_BBRV3) does at the moment. */
enum cb_cc_phase {
    CB_CC_PHASE_NONE = 0,      /* it does not run */
    CB_CC_PHASE_STARTUP = 1,   /* doubles until the path is full */
    CB_CC_PHASE_DRAIN = 2,     /* empties the queue that the startup made */
    CB_CC_PHASE_UP = 3,        /* a round above the model: is there more? */
    CB_CC_PHASE_DOWN = 4,      /* and back */
    CB_CC_PHASE_CRUISE = 5,    /* by the model */
    CB_CC_PHASE_PROBE_RTT = 6, /* looks for the round trip of the empty path */
    CB_CC_PHASE_COMPETE = 7    /* beside a flow that fills the queue: bounded like the controller below */
};

/* "cubic", "reno", "bbr", "bbrv3" (any case) to enum cb_cc; CB_EINVAL names the text and the choices. Thread-safe. */
CB_API int cb_cc_parse(const char *name);
/* The name; "default" for 0, "unknown" for what is none. Static storage. Thread-safe. */
CB_API const char *cb_cc_name(int cc);

/* Every member may be NULL. `user` is the connection's (at first the endpoint's, see cb_quic_conn_handle). A negative
 * return closes the connection. Freeing or closing anything inside a callback is allowed. */
typedef struct cb_quic_conn_ops {
    size_t size;
    int (*on_handshake)(cb_quic_conn *c, void *user); /* complete; the peer's certificate is verified */
    int (*on_stream_open)(cb_quic_conn *c, int64_t stream, void *user); /* by the peer */
    /* Bytes taken: fewer keeps the rest, and flow control holds the peer, until cb_quic_stream_resume(). fin comes with
     * the last bytes. */
    int64_t (*on_stream_data)(cb_quic_conn *c, int64_t stream, cb_slice data, int fin, void *user);
    int (*on_stream_writable)(cb_quic_conn *c, int64_t stream,
                              void *user); /* after cb_quic_stream_write() took less than it was given */
    int (*on_stream_reset)(cb_quic_conn *c, int64_t stream, uint64_t app_error,
                           void *user); /* RESET_STREAM or STOP_SENDING */
    int (*on_stream_close)(cb_quic_conn *c, int64_t stream, uint64_t app_error,
                           void *user);                       /* both directions are over */
    int (*on_streams_available)(cb_quic_conn *c, void *user); /* more streams may be opened */
    int (*on_datagram)(cb_quic_conn *c, cb_slice data, void *user);
    int (*on_path_change)(cb_quic_conn *c, void *user);    /* migrated, or the NAT rebound */
    void (*on_close)(cb_quic_conn *c, int rc, void *user); /* last, exactly once */
} cb_quic_conn_ops;

/* Who computes packet protection (AEAD and header masks). Precedence: option, then the environment variable CBR_AEAD
 * ("auto", "gnutls", "ipsec-mb"), then what the first endpoint of a process finds out: libipsec-mb where it is built
 * in, gives the known answers and is faster than GnuTLS on this processor. */
enum cb_aead {
    CB_AEAD_DEFAULT = 0,
    CB_AEAD_GNUTLS = 1,
    CB_AEAD_IPSEC_MB = 2 /* CB_ENOTSUP from what opens the endpoint where it is not built in or gives wrong answers */
};

/* "gnutls", "ipsec-mb"; "default" for 0, "unknown" for what is none. Static storage. Thread-safe. */
CB_API const char *cb_aead_name(int aead);

typedef struct cb_quic_opts {
    size_t size;
    const char *alpn;         /* comma list in order of preference; required */
    cb_identity *identity;    /* referenced. Server: required. Client: roots and own certificate; NULL = system roots */
    cb_tickets *tickets;      /* referenced. Server: NULL = a private ring in memory */
    cb_group *group;          /* referenced. Server: NULL = private */
    uint32_t worker;          /* this loop's number in the group, from 0 */
    int32_t cc;               /* enum cb_cc */
    uint32_t idle_timeout_ms; /* 0 = 30,000 */
    uint32_t handshake_timeout_ms; /* 0 = 10,000 */
    uint32_t keep_alive_ms;        /* PING after so long without packets; 0 = none */
    uint32_t max_streams_bidi;     /* that the peer may have open; 0 = 100 */
    uint32_t max_streams_uni;      /* 0 = 100 */
    uint32_t stream_window_bytes;  /* initial receive window of a stream; 0 = 256 KiB */
    uint32_t conn_window_bytes;    /* initial receive window of a connection; 0 = 1 MiB */
    uint32_t max_window_bytes;     /* what the windows may grow to by auto-tuning; 0 = 16 MiB */
    uint32_t stream_send_bytes;    /* send buffer of a stream: written and not acknowledged; 0 = 256 KiB */
    uint32_t max_datagram_bytes;   /* DATAGRAM frames taken; 0 = none (RFC 9221) */
    uint32_t retry_above;          /* server: Retry when more handshakes than this are under way; 0 = 256 (see retry) */
    uint32_t max_conns;            /* server: connections of this endpoint; 0 = 100,000. Above: CONNECTION_REFUSED */
    uint32_t rcvbuf_bytes;         /* 0 = 4 MiB; the granted size is in the statistics */
    uint32_t sndbuf_bytes;         /* 0 = 4 MiB */
    uint8_t retry;                 /* server: 0 = under load, 1 = always, 2 = never */
    uint8_t early_data;            /* 1 = allow 0-RTT; off by default: early data can be replayed */
    uint8_t request_client_cert;   /* server: 1 = ask, 2 = require */
    uint8_t verify;                /* client: enum cb_verify */
    uint8_t no_gso, no_gro, no_ecn, no_pmtud; /* 1 = off */
    uint8_t no_migration;                     /* server: 1 = send disable_active_migration */
    uint8_t version;             /* client: 0 and 1 = v1, 2 = v2 (RFC 9369) first, and v1 when the server has no v2;
                                  * server: 2 = moves clients that can to v2 (RFC 9368), 0 = keeps what the client
                                  * chose, 1 = v1 only */
    uint8_t fixed_stream_window; /* 1 = windows of streams stay at stream_window_bytes: a bound on memory */
    uint8_t aead;                /* enum cb_aead */
    uint8_t at_rest;             /* server: 1 = nothing is read until cb_quic_endpoint_resume() */
    uint8_t reserved[3];
    const cb_quic_conn_ops *ops; /* of each new connection; copied */
    void *user;                  /* of each new connection */
    cb_sessions *sessions;       /* client, referenced: what is kept to resume; NULL = private, in memory */
    const int32_t *fds;          /* server: bound UDP sockets to use instead of one of its own; on success they are the
                                  * endpoint's to close. The first also sends. Who read them before (an older generation
                                  * of the group) is told to stop when this endpoint begins */
    uint32_t n_fds;              /* 0 = it opens its own */
    uint32_t reserved2;
    const char *ticket_context; /* server: what its tickets are bound to as well, such as a tenant: they resume only
                                 * where it is equal; copied; NULL = nothing */
} cb_quic_opts;

/* Opens a server: listen is "host:port" with a literal address or ":port" (both families).
 * CB_EINVAL (the detail names the field), CB_EEXIST (address in use), CB_EPERM (port below 1024), CB_ENOTSUP (aead),
 * CB_ETLS, CB_ESYS, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_quic_listen(cb_quic_endpoint **out, cb_loop *loop, const char *listen, const cb_quic_opts *opts);

/* Opens an endpoint for client connections; bind NULL = any address of the family of the first connection. Errors as
 * cb_quic_listen(). */
CB_API int cb_quic_client(cb_quic_endpoint **out, cb_loop *loop, const char *bind, const cb_quic_opts *opts);

/* Starts a connection to a literal "address:port"; server_name is for SNI and verification. on_handshake or on_close
 * follows, never inside this call. *out lives until on_close returns. server_name NULL: none is sent (and
 * CB_VERIFY_FULL cannot succeed). CB_EINVAL (out, e, remote; e is a server), CB_ECLOSED (e takes no more), CB_ETLS,
 * CB_ESYS, CB_ENOMEM. */
CB_API int cb_quic_connect(cb_quic_conn **out, cb_quic_endpoint *e, const char *remote, const char *server_name);

/* The bound address as text ("127.0.0.1:4433"), valid while the endpoint lives. */
CB_API const char *cb_quic_endpoint_local(const cb_quic_endpoint *e);
/* Takes no new connections; those that exist go on. First packets go to a newer generation of the group, if there is
 * one; else they are refused. */
CB_API void cb_quic_endpoint_refuse(cb_quic_endpoint *e);
/* A server that was opened at rest begins to read, and gets the new connections of its address. */
CB_API void cb_quic_endpoint_resume(cb_quic_endpoint *e);
/* Before cb_group_save(): lets a successor reach this endpoint, and adds its sockets to h under name (NULL: only the
 * former, for a successor that opens sockets of its own). CB_EINVAL (a client), CB_ELIMIT, CB_ENOMEM, CB_ESYS. */
CB_API int cb_quic_endpoint_save(cb_quic_endpoint *e, cb_handoff *h, const char *name);
/* Closes every connection at once (CONNECTION_CLOSE) and the socket; each on_close comes. NULL is fine. */
CB_API void cb_quic_endpoint_free(cb_quic_endpoint *e);

/* Gives the connection to other callbacks (copied; NULL keeps those it has) and another user pointer. On failure
 * nothing changes. CB_EINVAL (ops->size is not set), CB_E2BIG, CB_ECLOSED. */
CB_API int cb_quic_conn_handle(cb_quic_conn *c, const cb_quic_conn_ops *ops, void *user);
/* The protocol that was agreed on, and the server name of the client; "" where there is none (yet). Valid until
 * on_close returns. */
CB_API const char *cb_quic_conn_alpn(const cb_quic_conn *c);
CB_API const char *cb_quic_conn_sni(const cb_quic_conn *c);
/* Who the other side is, by its certificate, from on_handshake on; as cb_exchange_peer(). Valid while c lives. */
CB_API const cb_peer *cb_quic_conn_peer(const cb_quic_conn *c);
/* "address:port" of the peer as it is now, written to out (64 bytes are enough; less cuts it). Returns out. */
CB_API const char *cb_quic_conn_remote(const cb_quic_conn *c, char *out, size_t cap);
/* CONNECTION_CLOSE with an application error code; on_close follows. reason is copied; NULL = none. */
CB_API void cb_quic_conn_close(cb_quic_conn *c, uint64_t app_error, const char *reason);
/* Changes keys (RFC 9001, 6). CB_EAGAIN: not yet possible; CB_ECLOSED. */
CB_API int cb_quic_conn_key_update(cb_quic_conn *c);
/* Client: moves to another local address (NULL: a new port) with path validation (RFC 9000, 9). CB_EINVAL (a server;
 * the address; the peer forbids it), CB_EAGAIN (not yet, or inside a callback), CB_ECLOSED, CB_EEXIST, CB_ESYS,
 * CB_ENOMEM. */
CB_API int cb_quic_conn_migrate(cb_quic_conn *c, const char *local);

/* Opens a stream; bidi 0 = only we write. CB_EAGAIN: at the peer's limit (on_streams_available follows), or before the
 * handshake allows it; CB_ECLOSED, CB_ENOMEM. */
CB_API int cb_quic_stream_open(cb_quic_conn *c, int bidi, int64_t *stream);
/* Takes bytes into the stream's send buffer; returns how many, CB_EAGAIN when full (on_stream_writable follows),
 * CB_ECLOSED (the connection, or the stream takes no more), CB_EINVAL (the peer's own stream), CB_ENOMEM. fin counts
 * only when all of data was taken. */
CB_API int64_t cb_quic_stream_write(cb_quic_conn *c, int64_t stream, cb_slice data, int fin);
/* Goes on delivering after on_stream_data took less than it was given; it may be called inside this call. */
CB_API void cb_quic_stream_resume(cb_quic_conn *c, int64_t stream);
/* RESET_STREAM and STOP_SENDING. CB_ENOENT: no such stream; CB_ECLOSED, CB_EAGAIN as above. */
CB_API int cb_quic_stream_reset(cb_quic_conn *c, int64_t stream, uint64_t app_error);
/* Unreliable. CB_EAGAIN: the queue is full (it is dropped: the caller decides), CB_ELIMIT: larger than the path or the
 * peer takes, CB_ENOTSUP: the peer takes none; CB_ECLOSED, CB_ENOMEM. */
CB_API int cb_quic_datagram_send(cb_quic_conn *c, cb_slice data);
CB_API size_t cb_quic_datagram_max(const cb_quic_conn *c); /* largest that fits now; 0 = none */

typedef struct cb_quic_conn_stats {
    size_t size;                                                     /* set by the caller */
    uint64_t smoothed_rtt_ns, min_rtt_ns, latest_rtt_ns, rtt_var_ns; /* 0 = not known yet */
    uint64_t cwnd_bytes, bytes_in_flight, ssthresh_bytes;
    uint64_t tx_packets, tx_bytes, rx_packets, rx_bytes,
        lost_packets; /* lost: unknown (UINT64_MAX) where the library does not say */
    uint64_t migrations;
    uint32_t version;   /* QUIC version on the wire */
    int32_t cc;         /* enum cb_cc: what really runs */
    uint8_t early_data; /* 0 none, 1 accepted, 2 rejected */
    uint8_t resumed;
    uint8_t ecn;      /* path is ECN capable as far as known */
    uint8_t aead;     /* enum cb_aead: what really runs */
    uint8_t cc_phase; /* enum cb_cc_phase; 0 = the governor does not run */
    uint8_t cc_below; /* enum cb_cc: ngtcp2's controller, whose window bounds the governor's */
    uint8_t reserved[2];
    /* The governor's model; 0 where it does not run or does not know yet. */
    uint64_t bandwidth_bytes_s;  /* what the path delivers */
    uint64_t pacing_bytes_s;     /* the rate of sending; 0 = not paced */
    uint64_t inflight_cap_bytes; /* no more than this is in flight; UINT64_MAX = cwnd_bytes alone bounds it */
    uint64_t path_rtt_ns;        /* round trip of the path without a queue */
} cb_quic_conn_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_quic_conn_stats_get(const cb_quic_conn *c, cb_quic_conn_stats *out);

typedef struct cb_quic_endpoint_stats {
    size_t size; /* set by the caller */
    uint64_t conns_now, conns_total, handshakes_failed;
    uint64_t rx_datagrams, rx_bytes, tx_datagrams, tx_bytes, rx_calls, tx_calls;
    uint64_t retries_sent, version_negotiations, stateless_resets, handed_over, malformed, refused, tx_dropped;
    uint32_t rcvbuf_bytes, sndbuf_bytes; /* granted by the kernel */
    uint8_t gso, gro, ecn, steering;     /* in use; steering: 1 in the kernel, 0 in user space */
    uint8_t aead;                        /* enum cb_aead: what new connections use */
    uint8_t reserved[3];
} cb_quic_endpoint_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_quic_endpoint_stats_get(const cb_quic_endpoint *e, cb_quic_endpoint_stats *out);

CB_END
#endif
