/* The inside of an endpoint: what its files share. quic_endpoint.c makes and ends it, quic_accept.c routes packets and
 * lets connections in, quic_flush.c sends and ends connections. */
#ifndef CB_TRANSPORT_QUIC_ENDPOINT_INT_H
#define CB_TRANSPORT_QUIC_ENDPOINT_INT_H

#include "base/map.h"
#include "loop/udp.h"
#include "transport/group_int.h"
#include "transport/path_memory.h"
#include "transport/quic_conn.h"

enum { ROUTE_CONN, ROUTE_TOMB };

/* What a connection ID leads to. */
typedef struct ep_route {
    uint8_t kind;
} ep_route;

typedef struct ep_conn ep_conn;

/* A socket: the endpoint's own, or one that a client's connection migrated to. */
typedef struct ep_socket {
    cb_list link;
    cb_udp *udp;
    cb_quic_endpoint *e;
    ep_conn *owner; /* NULL: the endpoint */
    bool further;   /* one of several that a server took over; it is only read */
} ep_socket;

struct ep_conn {
    cb_quic_conn core; /* first: a cb_quic_conn is an ep_conn */
    ep_route route;
    cb_quic_endpoint *e;
    cb_list all, dirty;
    cb_alarm alarm;
    cb_grave grave;
    bool handshaking;      /* counts in e->handshakes */
    bool elsewhere;        /* client: as in cb_quic_endpoint_connect() */
    bool told_dcid;        /* the group's cb_dcid_hook knows of first_dcid */
    ngtcp2_cid first_dcid; /* server: the client's choice, routed to us beside our own */
    char *name;            /* client of version 2 first: the server name, for a second try */
    /* Client: our addresses on the newest path and on the one before, with their ports; family 0 = not known. Packets
     * leave from there and nowhere else: sockets are bound to "any", and when addresses change the kernel would change
     * over by itself; a server that sees two moves at once, of the address and then of the port, counts too many
     * connection IDs (ngtcp2 1.11: CONNECTION_ID_LIMIT_ERROR). */
    cb_addr source, source_before;
};

/* What stays of a closed connection for three probe timeouts (RFC 9000, 10.2): its connection IDs, and the last packet
 * when we were the ones who closed. */
typedef struct ep_tomb {
    ep_route route;
    cb_quic_endpoint *e;
    cb_list link;
    cb_alarm alarm;
    uint32_t hits;
    unsigned ecn;
    cb_addr local, remote;
    size_t cids, packet_len;
    ngtcp2_cid cid[12];
    uint8_t packet[];
} ep_tomb;

enum { TOKENS_KEPT = 16, RESETS_A_SECOND = 500, TOMBS_MAX = 4096 };

/* A token for the next connection to the same address. */
typedef struct ep_token {
    cb_addr remote;
    size_t len;
    uint8_t bytes[CB_QUIC_TOKEN_MAX];
} ep_token;

struct cb_quic_endpoint {
    cb_loop *loop;
    const cb_alloc *alloc;
    const cb_log *log;
    const cb_cells *cells;
    bool pinned; /* client: cb_quic_endpoint_pin() */
    bool server, dead, closed, refusing, joined, steered;
    bool superseded; /* a newer generation reads our socket: first packets are its */
    unsigned depth;  /* calls on the stack that may run the user's code */
    cb_quic_opts o;  /* defaults filled in, texts copied */
    cb_quic_conn_ops ops;
    cb_quic_app_factory factory;
    char *alpn;
    char *tenant, *ticket_context; /* cb_quic_opts.ticket_context; all that tickets are bound to */
    cb_identity *identity;
    cb_tickets *tickets;
    cb_group *group;
    const cb_group_keys *keys;
    const cb_quic_aead *aead;
    cb_inbox inbox;
    cb_watch *inbox_watch, *mail_watch;
    cb_mail_batch *batch;    /* for other processes; from the first such packet on */
    uint8_t *mail;           /* from other processes: CB_MAIL_MAX bytes, where other processes know of us */
    cb_session_cache *cache; /* client */
    cb_path_memory *paths;   /* NULL until a path was lossy */
    ep_token *tokens;        /* client: TOKENS_KEPT, a ring */
    unsigned next_token;
    ep_socket main;
    cb_list sockets; /* main first */
    cb_addr bind;
    char local_text[CB_ADDR_TEXT];
    cb_map cids;
    uint8_t last_cid[CB_QUIC_CID_MAX]; /* the latest look-up: packets come in trains */
    size_t last_len;
    ep_route *last_route;
    size_t cid_len;
    cb_list conns, dirty, tombs;   /* tombs: oldest first */
    uint32_t tombs_now, tombs_max; /* above that the oldest goes: a flood of closings must not fill the memory */
    cb_defer flush;
    cb_alarm again; /* the rest of a flush that became too long for one turn */
    cb_grave grave;
    uint32_t conns_now, handshakes;
    uint32_t resets_left;
    cb_time resets_since;
    cb_quic_endpoint_stats stats;
};

static inline ep_conn *ep_of(cb_quic_conn *c) {
    return (ep_conn *)c;
}

/* --- quic_accept.c --- */
/* One datagram, from the network or from elsewhere (a handed-over stray, a fuzzer). */
void cb_quic_endpoint_packet(cb_quic_endpoint *e, ep_socket *sock, const cb_datagram *d);
/* ICMP says that a client's packet to `remote`, which began with `quote`, found nobody. */
void cb_quic_endpoint_unreachable(cb_quic_endpoint *e, int err, const cb_addr *remote, cb_slice quote);
void cb_quic_endpoint_strays(cb_watch *w, unsigned events, void *user);
void cb_quic_endpoint_read_mail(cb_watch *w, unsigned events, void *user); /* from other processes */
void cb_quic_endpoint_batch_end(cb_udp *u, void *user);

/* --- quic_flush.c --- */
extern const cb_quic_host_ops cb_quic_endpoint_host;
int cb_quic_endpoint_below(const cb_quic_endpoint *e, const cb_addr *remote); /* enum cb_cc; 0 = the usual */
void cb_quic_endpoint_flush(cb_defer *d);
void cb_quic_endpoint_again(cb_alarm *a, cb_time now);
void cb_quic_endpoint_tick(cb_alarm *a, cb_time now); /* a connection's deadline */
void cb_quic_endpoint_handshake_over(ep_conn *c);     /* in either way; again: nothing */
/* A handshake of c may wait for a slow key while the loop goes on. */
void cb_quic_endpoint_may_wait(ep_conn *c);
int cb_quic_endpoint_route(cb_quic_endpoint *e, const ngtcp2_cid *cid, ep_route *route);
void cb_quic_endpoint_unroute(cb_quic_endpoint *e, const ngtcp2_cid *cid);
void cb_quic_endpoint_unroute_all(cb_quic_endpoint *e, const ep_route *route); /* slow: looks at all there are */
ep_route *cb_quic_endpoint_lookup(cb_quic_endpoint *e, const uint8_t *cid, size_t len);
/* A connection ID of ours with its reset token, not in use yet and not routed. */
int cb_quic_endpoint_cid(cb_quic_endpoint *e, ngtcp2_cid *cid, uint8_t token[NGTCP2_STATELESS_RESET_TOKENLEN]);
/* Sends what a closing connection has to say and takes it out; on_close comes. */
void cb_quic_endpoint_finish(ep_conn *c);
void cb_quic_endpoint_tomb_free(ep_tomb *t);
/* Sends one packet of our own making; dropped when the socket is full. */
void cb_quic_endpoint_send(ep_socket *sock, const cb_datagram *to, const uint8_t *packet, size_t len);

/* --- quic_migrate.c, of clients --- */
void cb_quic_endpoint_heard_at(ep_conn *c, const cb_addr *local);
/* What to send from on the path of that local address; NULL: the kernel's choice. */
const cb_addr *cb_quic_endpoint_source(const ep_conn *c, const cb_addr *local);
/* A packet to `remote` could not leave from the address that it was to leave from. */
void cb_quic_endpoint_source_gone(cb_quic_endpoint *e, const cb_addr *remote);

/* --- quic_endpoint.c --- */
/* A client's connection once more, by another version. */
int cb_quic_endpoint_reopen(ep_conn *c, uint32_t version);
int cb_quic_endpoint_conn_new(cb_quic_endpoint *e, ep_conn **out);
void cb_quic_endpoint_conn_drop(ep_conn *c); /* one that never got so far as to be told about */
int cb_quic_endpoint_socket(cb_quic_endpoint *e, ep_socket *sock, const cb_addr *bind);
void cb_quic_endpoint_drop_sockets(ep_conn *owner, const cb_addr *keep_local);
void cb_quic_endpoint_drop_socket(ep_socket *s);

#endif
