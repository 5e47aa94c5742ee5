/* cb/http.h - one exchange model over HTTP/1.1, HTTP/2 and HTTP/3, for servers and clients.
 *
 * A cb_exchange is one request with its response (RFC 9110). Above framing nothing differs between the versions:
 * headers, bodies that stream both ways with backpressure, trailers, informational responses, CONNECT and extended
 * CONNECT (RFC 8441, 9220), HTTP datagrams (RFC 9297). Framing is that of RFC 9112, 9113 and 9114. Everything runs on
 * the loop's thread. An exchange lives until on_close returns; do not keep it longer. */
#ifndef CB_HTTP_H
#define CB_HTTP_H

#include <cb/group.h>
#include <cb/loop.h>
#include <cb/metrics.h>
#include <cb/peer.h>
#include <cb/quic.h>

CB_BEGIN

typedef struct cb_exchange cb_exchange;
typedef struct cb_http_server cb_http_server;
typedef struct cb_http_client cb_http_client;

/* A header or trailer field. Names are lower case when they come from libcb, and may be any case when given to it. */
typedef struct cb_field {
    cb_slice name;
    cb_slice value;
} cb_field;

enum cb_http_version {
    CB_HTTP_1 = 1, /* 1.1; 1.0 is understood */
    CB_HTTP_2 = 2,
    CB_HTTP_3 = 4
};

/* The code that an exchange is reset with; mapped to RST_STREAM / H3 error codes / closing an HTTP/1.1 connection. */
enum cb_http_reset {
    CB_RESET_CANCEL = 0,   /* not wanted any more */
    CB_RESET_REFUSED = 1,  /* not processed at all: safe to retry */
    CB_RESET_INTERNAL = 2, /* we failed */
    CB_RESET_PROTOCOL = 3, /* the message was malformed */
    CB_RESET_CALM = 4,     /* too much: ENHANCE_YOUR_CALM / H3_EXCESSIVE_LOAD */
    CB_RESET_CONNECT = 5   /* a CONNECT tunnel failed below */
};

/* What happens on an exchange. Every member may be NULL. A negative int return resets this exchange only. All but
 * on_close may finish, reset or pause the exchange; on_close is the last call and comes exactly once. */
typedef struct cb_exchange_ops {
    size_t size;
    /* Server: a request's head is complete. Client: the final response's head is complete. */
    int (*on_head)(cb_exchange *x, void *user);
    /* Client: an informational response (1xx except 101); its fields are readable during the call. */
    int (*on_info)(cb_exchange *x, int status, void *user);
    /* Body bytes. Returns how many were taken; if fewer, the rest is kept, the peer is held back by flow control, and
     * nothing more comes until cb_exchange_resume(). CB_EAGAIN counts as 0. NULL: bodies are read and thrown away. */
    int64_t (*on_body)(cb_exchange *x, cb_slice data, void *user);
    /* The message is complete; trailers are readable. */
    int (*on_end)(cb_exchange *x, void *user);
    /* cb_exchange_write() took less than it was given before; now there is room. */
    int (*on_writable)(cb_exchange *x, void *user);
    /* An HTTP datagram (RFC 9297). */
    int (*on_datagram)(cb_exchange *x, cb_slice payload, void *user);
    /* rc: CB_OK when both messages were complete, else why not (CB_ECLOSED: the peer reset it or went away). */
    void (*on_close)(cb_exchange *x, int rc, void *user);
} cb_exchange_ops;

/* ---- reading: slices are valid until on_close returns ---- */
CB_API cb_slice cb_exchange_method(const cb_exchange *x);
CB_API cb_slice cb_exchange_scheme(const cb_exchange *x);    /* "https", "http" */
CB_API cb_slice cb_exchange_authority(const cb_exchange *x); /* :authority or Host; empty when there is none */
CB_API cb_slice cb_exchange_path(const cb_exchange *x);      /* with the query; "*" for OPTIONS *; empty for CONNECT */
/* Extended CONNECT's :protocol, or HTTP/1.1's Upgrade token. A server that asks for it in on_head decides on the
 * upgrade by its reply: 101 on HTTP/1.1 (no on_end comes before that), 2xx on later versions. HTTP/1.1 ignores an
 * Upgrade that on_head did not ask for. */
CB_API cb_slice cb_exchange_protocol(const cb_exchange *x);
CB_API int cb_exchange_status(const cb_exchange *x);  /* client: of the response; 0 before on_head */
CB_API int cb_exchange_version(const cb_exchange *x); /* enum cb_http_version */
/* Server: it came in 0-RTT data and may be a replay. Client: it went out so. */
CB_API int cb_exchange_is_early(const cb_exchange *x);
/* The first field of that name (lower case) that was received, or the empty slice (base NULL). */
CB_API cb_slice cb_exchange_field(const cb_exchange *x, const char *name);
/* All received fields in order; *n gets how many. Pseudo-header fields are not among them. */
CB_API const cb_field *cb_exchange_fields(const cb_exchange *x, size_t *n);
CB_API const cb_field *cb_exchange_trailers(const cb_exchange *x, size_t *n); /* readable from on_end on */
/* The declared length of the received body, or -1 when it is not declared. */
CB_API int64_t cb_exchange_length(const cb_exchange *x);
/* "address:port" of the peer (after PROXY protocol, where accepted) and of our side; "unix" for a unix socket; "" where
 * unknown. Valid as slices above. */
CB_API const char *cb_exchange_remote(const cb_exchange *x);
CB_API const char *cb_exchange_local(const cb_exchange *x);
CB_API const char *cb_exchange_sni(const cb_exchange *x);         /* the TLS server name; "" when there is none */
CB_API int cb_exchange_is_secure(const cb_exchange *x);           /* 1 when TLS protects it */
CB_API const char *cb_exchange_tls_version(const cb_exchange *x); /* "1.3", "1.2"; "" in clear text */
CB_API const char *cb_exchange_tls_cipher(const cb_exchange *x);  /* "TLS_AES_128_GCM_SHA256"; "" in clear text */
CB_API int cb_exchange_tls_resumed(const cb_exchange *x);         /* 1: the connection resumed a session */
/* Who the other side is, by its certificate: on a server the client's, when one was asked for and shown (it was
 * verified then); on a client the server's (with CB_VERIFY_NONE nothing was). NULL: none. Asked for while the
 * connection is open, it stays until on_close returns; cb_peer_ref() keeps it longer. */
CB_API const cb_peer *cb_exchange_peer(const cb_exchange *x);

/* The process at the other end of a unix socket, as the kernel knew it when that connected. Numbers are those of our
 * user namespace; a user that it does not have is the kernel's overflow user (65534). */
typedef struct cb_unix_peer {
    size_t size;  /* set by the caller */
    uint32_t pid; /* 0: of another PID namespace. It may be gone, and its number be another's */
    uint32_t uid, gid;
    uint32_t n_groups; /* supplementary ones */
} cb_unix_peer;

/* Server: who sends it. groups gets the supplementary groups when all of them fit into cap, else nothing (at most
 * 65,536; NULL with cap 0 asks how many there are). CB_ENOENT (the connection is no unix socket), CB_ECLOSED (it is
 * gone), CB_EINVAL (out, size), CB_ESYS. */
CB_API int cb_exchange_unix_peer(const cb_exchange *x, cb_unix_peer *out, uint32_t *groups, size_t cap);

/* ---- the exchange itself ---- */
/* Gives the exchange to other callbacks; usually a server does this in on_head. ops must outlive the exchange; NULL =
 * none. On failure nothing changes. CB_EINVAL (ops->size is not set), CB_E2BIG. */
CB_API int cb_exchange_handle(cb_exchange *x, const cb_exchange_ops *ops, void *user);
/* The user pointer that its callbacks get. */
CB_API void *cb_exchange_user(const cb_exchange *x);
CB_API cb_loop *cb_exchange_loop(const cb_exchange *x);
/* Goes on delivering after on_body took less than it was given. Delivery happens at the end of the turn. */
CB_API void cb_exchange_resume(cb_exchange *x);
/* Ends the exchange at once in both directions; on_close(CB_ECLOSED) follows. `code` is enum cb_http_reset. */
CB_API void cb_exchange_reset(cb_exchange *x, int code);
/* Gives up an exchange's callbacks without on_close (for owners that go away); it is reset if it is not complete. */
CB_API void cb_exchange_abandon(cb_exchange *x);

/* ---- writing a response (server) ---- */
/* Sends a head. 1xx may come several times before the final one. The body follows by cb_exchange_write(), then
 * cb_exchange_finish(). Framing fields (connection, transfer-encoding, ...) are libcb's own and are left out when
 * given; content-length is kept and enforced; for HEAD, 204 and 304 the body is left out by itself. Fields are copied.
 * CB_EINVAL (status, field syntax: named in the detail; a client's exchange; the final head was sent), CB_ECLOSED (the
 * exchange or its connection is gone), CB_ENOMEM. */
CB_API int cb_exchange_reply(cb_exchange *x, int status, const cb_field *fields, size_t n);
/* A whole response in one call. Adds content-length. The body is copied as far as it does not leave at once. Errors as
 * cb_exchange_reply(). */
CB_API int cb_exchange_send(cb_exchange *x, int status, const cb_field *fields, size_t n, cb_slice body);
/* The same with text/plain; charset=utf-8. text: UTF-8, NULL = empty. */
CB_API int cb_exchange_send_text(cb_exchange *x, int status, const char *text);
/* Answers a scrape (cb/metrics.h) in the format that the request accepts; 405 for methods other than GET and HEAD.
 * Renders on this thread, which takes about a millisecond for each thousand series. Call it from on_end. Errors as
 * cb_exchange_reply() and cb_metrics_render(); nothing was answered then. */
CB_API int cb_exchange_send_metrics(cb_exchange *x, cb_metrics *m);

/* ---- writing a body (server: response; client: request; tunnels: both) ---- */
/* Takes bytes into the send buffer: returns how many, or CB_EAGAIN when none fits now (on_writable follows).
 * CB_ECLOSED, CB_ENOMEM, CB_EINVAL (no head yet, body not allowed, or more than content-length). */
CB_API int64_t cb_exchange_write(cb_exchange *x, cb_slice data);
/* How many bytes a write would take now; 0 when none, or when the exchange is over. */
CB_API size_t cb_exchange_room(const cb_exchange *x);
/* Ends the message; trailers are left out on HTTP/1.1 without chunked coding, and on HTTP/1.0. CB_EINVAL: fewer bytes
 * than content-length (the exchange is reset then), finished already, no head yet, or a field that is none for trailers
 * (RFC 9110, 6.5.1); CB_EAGAIN: trailers of a request that is not connected yet; CB_ECLOSED, CB_ENOMEM. */
CB_API int cb_exchange_finish(cb_exchange *x);
CB_API int cb_exchange_finish_trailers(cb_exchange *x, const cb_field *trailers, size_t n);

/* An HTTP datagram on an extended CONNECT exchange: a QUIC DATAGRAM on HTTP/3, a DATAGRAM capsule elsewhere. Unreliable
 * on HTTP/3. CB_EAGAIN (dropped: full), CB_ELIMIT (too large), CB_ENOTSUP (the version or the peer has none),
 * CB_ECLOSED, CB_ENOMEM. */
CB_API int cb_exchange_datagram_send(cb_exchange *x, cb_slice payload);

/* ---- limits, with safe defaults: 0 = the default named ---- */
typedef struct cb_http_limits {
    size_t size;
    uint32_t max_head_bytes;   /* all fields of a head or trailer section, names + values + 32 each; 0 = 65,536 (431) */
    uint32_t max_fields;       /* 0 = 100 (431) */
    uint32_t max_target_bytes; /* of the request target; 0 = 8,192 (414) */
    uint32_t max_streams;      /* concurrent exchanges of a connection; 0 = 128 */
    uint64_t max_body_bytes;   /* of a request; 0 = no limit (413) */
    uint32_t head_timeout_ms;  /* from a request's first byte to the end of its head; 0 = 10,000 (408) */
    uint32_t body_timeout_ms;  /* without a byte of an expected body; 0 = 30,000 (408) */
    uint32_t idle_timeout_ms;  /* of a connection without exchanges; 0 = 60,000 */
    uint32_t send_timeout_ms;  /* the peer takes no byte of our output; 0 = 30,000 */
    uint32_t max_resets_per_s; /* streams that the peer resets early, a second over 10 s; 0 = 20 (rapid reset) */
    uint32_t max_settings_per_s;  /* SETTINGS, PING, PRIORITY_UPDATE, unknown and empty frames of each kind, and
                                   * WINDOW_UPDATE beyond what sent bytes account for; 0 = 50 */
    uint32_t max_continuations;   /* CONTINUATION frames of one head; 0 = 8 */
    uint32_t table_bytes;         /* HPACK/QPACK dynamic table; 0 = 4,096. What an HTTP/3 server sends: below */
    uint32_t stream_window_bytes; /* received and not taken, an exchange; 0 = 262,144 */
    uint32_t send_buffer_bytes;   /* written and not sent (HTTP/3: not acknowledged), an exchange; 0 = 262,144. All of a
                                   * connection together: 16 times as much, and 16 KiB for each beyond that */
    uint32_t max_requests;        /* of one connection, then it is closed gracefully; 0 = 100,000 */
    uint32_t reply_table_bytes;   /* QPACK's dynamic table for what a server sends. It saves octets of large fields that
                                   * come back with each response, and costs an idle connection 2 KiB; 0 = none */
} cb_http_limits;

/* ---- server ---- */
typedef struct cb_http_server_opts {
    size_t size;
    const char *listen;           /* "127.0.0.1:8443", "[::1]:8443", ":8443" (both families), "unix:/path"; required */
    cb_identity *identity;        /* referenced; NULL = clear text HTTP/1.1 (and HTTP/2 with prior knowledge) */
    cb_tickets *tickets;          /* referenced; NULL = private, in memory */
    cb_group *group;              /* referenced; NULL = private; needed for several workers on one address */
    const cb_exchange_ops *ops;   /* of each new exchange; borrowed: must outlive the server */
    void *user;                   /* of each new exchange */
    const cb_http_limits *limits; /* copied; NULL = defaults */
    const char *server_name;      /* value of the Server field; NULL = none is sent */
    uint32_t versions;            /* enum cb_http_version, or-ed; 0 = all that fit */
    uint32_t worker;              /* number in the group, from 0 */
    uint32_t max_conns;           /* 0 = 100,000 */
    int32_t cc;                   /* enum cb_cc for HTTP/3; 0 = cubic, see there */
    uint8_t tls12;                /* 1 = TLS 1.2 too */
    uint8_t early_data;           /* 1 = allow 0-RTT to GET, HEAD and OPTIONS without a body, others get 425 (RFC 8470);
                                   * 2 = hand every early request over: see cb_exchange_is_early() */
    uint8_t request_client_cert;  /* 1 = ask, 2 = require; verified against the identity's roots */
    uint8_t proxy_protocol;       /* 1 = each TCP connection starts with a PROXY header (v1 or v2) */
    uint8_t retry;                /* QUIC Retry: 0 under load, 1 always, 2 never */
    uint8_t alt_svc;              /* 0 = advertise HTTP/3 on HTTP/1.1 and /2 responses when it is served, 1 = do not */
    uint8_t unix_replace;         /* 1 = take over a unix socket's path although a process listens there */
    uint8_t reserved;
    uint32_t alt_svc_port; /* 0 = the listening port */
    uint32_t retry_above;  /* handshakes under way; 0 = 256 */
    uint32_t rcvbuf_bytes; /* UDP; 0 = 4 MiB */
    uint32_t sndbuf_bytes; /* UDP; 0 = 4 MiB */
    int32_t tcp_fd;        /* > 0: a listening TCP socket to use; on success it is the server's to close */
    uint32_t at_rest;      /* 1 = it takes nothing until cb_http_server_resume() */
    const int32_t *fds;    /* listening TCP and bound UDP sockets to use, of this address and in any order (socket
                            * activation; a predecessor's, see cb/handoff.h). On success they are the server's to close.
                            * What versions need and is not among them is opened; what they do not need is closed */
    uint32_t n_fds;        /* at most CB_HTTP_SERVER_FDS */
    uint32_t unix_mode;    /* permissions of a unix socket; 0 = 0600 */
    const char
        *ticket_context; /* what its TLS tickets are bound to as well, such as a tenant; copied; NULL = nothing */
    const char *name;    /* the listener in metrics; copied; NULL = what `listen` says */
} cb_http_server_opts;

enum { CB_HTTP_SERVER_FDS = 512 };

/* Opens the sockets and serves: HTTP/1.1 and HTTP/2 on TCP (with ALPN), HTTP/3 on UDP of the same port. With port 0
 * both get the same port.
 *
 * A unix socket (an absolute path of at most 99 bytes; HTTP/1.1 and HTTP/2; no group) is bound under another name,
 * gets its mode, and is renamed to its path: there is never a moment without one or with a laxer one. What a process
 * that ended left there is replaced; a live one only with unix_replace, and what is no socket never (CB_EEXIST). When
 * the server drains or is freed the path goes, unless it is somebody else's by then, the server yields, or the socket
 * was given in fds. Abstract sockets ("unix:@name") are refused: they have no permissions.
 *
 * CB_EINVAL (the detail names the field), CB_EEXIST (address in use: named), CB_EPERM (a port below 1024, a folder that
 * we may not write to), CB_ENOENT (no such folder), CB_ETLS, CB_ESYS, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_http_server_new(cb_http_server **out, cb_loop *loop, const cb_http_server_opts *opts);
/* "127.0.0.1:8443" with the real port, or "unix:/path"; valid while the server lives. */
CB_API const char *cb_http_server_address(const cb_http_server *srv);
/* Other limits for new connections; open ones take over what they read anew, such as time limits. QUIC's idle timeout
 * stays as it was. limits may be NULL: the defaults. On failure nothing changes. CB_EINVAL, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_http_server_set_limits(cb_http_server *srv, const cb_http_limits *limits);
/* No new connections; GOAWAY / Connection: close; exchanges that run may end within deadline_ms, then they are reset.
 * What cb_http_server_on_drained() set is called when the last connection is gone. Calling it again can shorten the
 * deadline, never extend it. CB_EINVAL (srv), CB_ENOMEM. */
CB_API int cb_http_server_drain(cb_http_server *srv, uint64_t deadline_ms);
/* The same for a server whose address others serve on (its successor, see cb/handoff.h): an unused connection of
 * HTTP/1.1 is closed after its next response or a while without a request, for closing it at once would meet requests
 * that are under way; and first packets of QUIC connections go to the successor. */
CB_API int cb_http_server_yield(cb_http_server *srv, uint64_t deadline_ms);
/* A server that was opened at rest begins. */
CB_API void cb_http_server_resume(cb_http_server *srv);
/* Writes up to cap of its listening TCP and UDP sockets, which stay the server's, and returns how many there are. */
CB_API int cb_http_server_fds(const cb_http_server *srv, int32_t *out, size_t cap);
/* Adds the listening sockets to h under name, and lets a successor reach the QUIC endpoint; cb_group_save() of its
 * group follows when every worker's server has been saved. One that drains adds no sockets, but is still reached by
 * packets of its connections. CB_ECLOSED (it was freed), CB_ELIMIT, CB_ENOMEM, CB_ESYS. */
CB_API int cb_http_server_save(cb_http_server *srv, cb_handoff *h, const char *name);
/* Calls done once, from the loop, when a drain has ended. done may free the server. NULL = nobody. */
CB_API void cb_http_server_on_drained(cb_http_server *srv, cb_task_fn done, void *user);
/* Ends everything at once. Each open exchange gets its on_close(CB_ECLOSED); one that is complete, and only waits for
 * cb_exchange_resume(), lives on until its body is taken, or it is reset or abandoned. May be called inside callbacks.
 * NULL is fine. */
CB_API void cb_http_server_free(cb_http_server *srv);

typedef struct cb_http_server_stats {
    size_t size;                           /* set by the caller */
    uint64_t conns_h1, conns_h2, conns_h3; /* open now */
    uint64_t conns_total, exchanges_total, exchanges_now;
    uint64_t handshakes_failed; /* TLS and QUIC */
    uint64_t limits_hit;
} cb_http_server_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_http_server_stats_get(const cb_http_server *srv, cb_http_server_stats *out);
/* Of the QUIC endpoint under HTTP/3. CB_ENOENT: the server has none, or has drained; CB_EINVAL (out, size). */
CB_API int cb_http_server_quic_stats_get(const cb_http_server *srv, cb_quic_endpoint_stats *out);

/* An open connection of a server. Texts live during the call that tells it. */
typedef struct cb_http_conn {
    size_t size;
    uint64_t number;    /* of this server, from 1, in the order in which they came */
    const char *remote; /* "address:port" of the peer (behind a PROXY header the one it names); "" in the handshake */
    const char *sni;    /* "" when there was none */
    const char *tls;    /* "1.3", "1.2"; "" = clear text, or in the handshake */
    uint64_t age_ms;
    uint64_t requests; /* that are over */
    uint32_t active;   /* exchanges that run */
    int32_t version;   /* enum cb_http_version; 0: in the handshake */
    uint8_t draining;  /* 1: it takes no more requests */
    uint8_t reserved[7];
} cb_http_conn;

/* Calls fn for each connection with a number above `after`, in their order; fn returns < 0 to stop, which is returned,
 * and must not change the server. On the loop's thread. CB_EINVAL (srv, fn). */
CB_API int cb_http_server_conns(const cb_http_server *srv, uint64_t after,
                                int (*fn)(const cb_http_conn *conn, void *user), void *user);

/* ---- client ---- */
typedef struct cb_http_client_opts {
    size_t size;
    cb_identity *identity;        /* referenced: trust roots and own certificate; NULL = system roots */
    const cb_http_limits *limits; /* copied; NULL = defaults */
    const char *resolver;         /* "address:port,..." of DNS servers; NULL = the system's */
    uint32_t versions;            /* offered; 0 = HTTP/2 and HTTP/1.1 (HTTP/3 by Alt-Svc or when asked for alone) */
    uint32_t connect_timeout_ms;  /* 0 = 10,000, name resolution and handshake included */
    uint32_t idle_timeout_ms;     /* of kept connections; 0 = 60,000 */
    uint32_t max_conns_per_host;  /* 0 = 64 */
    uint32_t max_idle_per_host;   /* 0 = 32 */
    uint32_t happy_eyeballs_ms;   /* delay between address attempts (RFC 8305); 0 = 250 */
    int32_t cc;                   /* enum cb_cc for HTTP/3; 0 = cubic, see there */
    uint8_t verify;               /* enum cb_verify; 0 = everything */
    uint8_t tls12;                /* 1 = TLS 1.2 too */
    uint8_t early_data;        /* 1 = send safe requests as 0-RTT data where a ticket allows it; they can be replayed.
                                * Those that are answered with 425 are sent again after the handshake */
    uint8_t send_proxy;        /* 1 or 2: write that version of the PROXY header on new connections */
    const char *server_name;   /* NULL = the URL's host: SNI and name to verify */
    cb_sessions *sessions;     /* referenced: what is kept to resume; NULL = private, in memory */
    uint32_t h3_head_start_ms; /* of QUIC before TCP, where both may be used; 0 = 300 */
    uint32_t h3_retry_ms;      /* HTTP/3 that did not come through is tried again after so long, in the background, then
                                * after twice as long, up to an hour; 0 = 15,000 */
    uint8_t alt_svc;           /* 0 = follow Alt-Svc (RFC 7838) unless `versions` leaves HTTP/3 out, 1 = do not */
    uint8_t follow_network;    /* 1 = call cb_http_client_network_changed() by itself (rtnetlink). The client then keeps
                                * cb_loop_run() going until it is freed */
    uint8_t reserved[6];
} cb_http_client_opts;

/* Opens nothing yet: connections are made when requests need them. opts may be NULL.
 *
 * Connections are made by Happy Eyeballs (RFC 8305): both families are asked for and tried in turn, and QUIC races TCP
 * where HTTP/3 is allowed, by `versions` or by Alt-Svc. What came through is remembered. When a QUIC connection gives
 * no sign of life while requests wait, another one is opened beside it over any address and TCP; requests without a
 * body and of an idempotent method (RFC 9110, 9.2.2) of whose response nothing has come move there by themselves.
 * Others end with CB_ECLOSED some seconds later if it does not come back.
 *
 * CB_EINVAL (out, loop; the detail names the field), CB_ETLS (no trust roots), CB_ESYS (also: follow_network, and there
 * is no netlink), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_http_client_new(cb_http_client **out, cb_loop *loop, const cb_http_client_opts *opts);
/* Open exchanges get their on_close(CB_ECLOSED); complete ones that wait for cb_exchange_resume() live on, as above.
 * May be called inside callbacks. NULL is fine. */
CB_API void cb_http_client_free(cb_http_client *c);

/* The network changed: another interface, address or route. Learned things are forgotten (Alt-Svc without persist=1,
 * which family and transport work, names), QUIC connections migrate (RFC 9000, 9) when their packets now leave from
 * another address, and TCP connections whose local address is gone end: what is idempotent goes out again. CB_EINVAL
 * (c), CB_ECLOSED (the client was freed). */
CB_API int cb_http_client_network_changed(cb_http_client *c);

typedef struct cb_http_client_stats {
    size_t size;                              /* set by the caller */
    uint64_t opened_h1, opened_h2, opened_h3; /* connections, since ever */
    uint64_t failed;                          /* attempts to get one, all addresses and transports together */
    uint64_t retried;                         /* requests sent a second time */
    uint64_t moved;                           /* of these, away from an HTTP/3 connection that fell silent */
    uint64_t silent;                          /* HTTP/3 connections that fell silent while requests waited */
    uint64_t probes;                          /* HTTP/3 tried beside connections that work */
    uint64_t migrated;                        /* HTTP/3 connections that followed a change of address */
    uint64_t network_changes;
    uint64_t resumed; /* connections that resumed a TLS session when they became ready */
} cb_http_client_stats;

/* CB_EINVAL (c, out, size), CB_ECLOSED (the client was freed). */
CB_API int cb_http_client_stats_get(const cb_http_client *c, cb_http_client_stats *out);

/* One request; everything is copied during the call. */
typedef struct cb_request {
    size_t size;
    const char *method;   /* NULL = GET */
    const char *url;      /* "https://host[:port]/path?query"; required */
    const char *protocol; /* extended CONNECT (:protocol) or HTTP/1.1 Upgrade token, e.g. "websocket"; NULL = none */
    const cb_field *fields;
    size_t n_fields;
    const char *connect_to; /* "address:port" or "unix:/path" (of a socket in the file system) to dial instead of the
                             * URL's host; NULL = resolve it */
    uint32_t versions;      /* of this request; 0 = the client's */
    uint32_t timeout_ms;    /* to the end of the response; 0 = none */
    uint8_t has_body;       /* 1: the body follows by cb_exchange_write() and cb_exchange_finish() */
    uint8_t reserved[7];
} cb_request;

/* Starts a request. The head goes out when a connection is there; writing a body may begin at once (CB_EAGAIN until
 * connected). Failing to resolve, connect or verify arrives as on_close with the reason in cb_last_error(): CB_EDNS,
 * CB_EUNREACH, CB_EPERM (a unix socket that we may not write to), CB_ETIMEOUT, CB_ETLS, CB_EAUTH, CB_EPROTO,
 * CB_ECLOSED. No callback comes inside this call. ops is borrowed; NULL = the response is thrown away. CB_EINVAL (out,
 * c; url, fields, method, ops: named), CB_ECLOSED (the client was freed), CB_ELIMIT (too many requests wait),
 * CB_ENOMEM, CB_E2BIG. */
CB_API int cb_http_request(cb_exchange **out, cb_http_client *c, const cb_request *req, const cb_exchange_ops *ops,
                           void *user);

CB_END
#endif
