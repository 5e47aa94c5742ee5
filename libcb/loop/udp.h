/* A UDP socket for QUIC and tunnels: batches in and out, GSO and GRO, ECN, the local address of each packet. */
#ifndef CB_LOOP_UDP_H
#define CB_LOOP_UDP_H

#include "base/addr.h"
#include "loop/loop_int.h"

typedef struct cb_udp cb_udp;

typedef struct cb_datagram {
    cb_addr local; /* where it came in (address from pktinfo, port of the socket) */
    cb_addr remote;
    uint8_t ecn;   /* the two ECN bits: 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE */
    uint8_t *data; /* valid during the callback; may be changed in place */
    size_t len;
} cb_datagram;

typedef struct cb_udp_opts {
    cb_addr bind;          /* port 0: any. Family AF_INET6 with :: takes both families unless v6_only */
    int fd;                /* > 0: a bound UDP socket to use instead (upgrade, socket activation); owned on success */
    uint32_t rcvbuf_bytes; /* 0 = 4 MiB; SO_RCVBUFFORCE where allowed */
    uint32_t sndbuf_bytes; /* 0 = 4 MiB */
    bool v6_only, reuseport, no_gso, no_gro, no_ecn, no_pmtud; /* no_pmtud: leave DF to the kernel's default */
    /* Join commits to one peer into one train: for tunnels. Not for QUIC: a receiver with several workers finds one
     * worker for a whole train, so a train must belong to one connection. */
    bool merge;
    /* Each datagram; GRO trains are split before. A false return drops the rest of this read (socket closed). */
    bool (*on_datagram)(cb_udp *u, cb_datagram *d, void *user);
    void (*on_batch_end)(cb_udp *u, void *user); /* after the datagrams of one read; may be NULL */
    void (*on_writable)(cb_udp *u, void *user);  /* after a reserve failed for lack of room */
    /* A packet found nobody (ICMP: port, host or network unreachable; or no route here), `err` is its errno. `quote` is
     * the beginning of that packet, as far as ICMP brought it back: the receiver checks it, ICMP is not authenticated.
     * The socket must not be closed in here. NULL: ICMP is not looked at. */
    void (*on_unreachable)(cb_udp *u, int err, const cb_addr *remote, cb_slice quote, void *user);
    void *user;
} cb_udp_opts;

typedef struct cb_udp_stats {
    uint64_t rx_datagrams, rx_bytes, rx_calls, tx_datagrams, tx_bytes, tx_calls, tx_dropped;
    uint32_t rcvbuf, sndbuf; /* granted */
    bool gso, gro, ecn;      /* in use now; gso turns off by itself on EIO/EINVAL (then one datagram a message) */
} cb_udp_stats;

int cb_udp_open(cb_udp **out, cb_loop *loop, const cb_udp_opts *opts); /* CB_EEXIST: address in use */
void cb_udp_close(cb_udp *u);                                          /* drops what is queued; frees deferred */
int cb_udp_fd(const cb_udp *u);
const cb_addr *cb_udp_local(const cb_udp *u); /* bound address with the real port */
const cb_udp_stats *cb_udp_stats_get(const cb_udp *u);

/* A socket that was adopted stays open when this is closed. It is of no use after this. */
void cb_udp_give_back(cb_udp *u);
/* Reads nothing while it rests, and sends as before: somebody else reads the same socket, or is not ready to. */
void cb_udp_rest(cb_udp *u, bool rest);
/* Which socket of the kernel this is: equal for descriptors of the same one, also in other processes. */
uint64_t cb_udp_cookie(const cb_udp *u);

/* Room for building packets in place: at least `want` bytes (<= 65,000), or NULL while the socket is full
 * (on_writable comes). Then commit what was written: `len` bytes to `remote` from `local` (may be NULL),
 * cut by the kernel or by us into datagrams of `segment` bytes (the last may be shorter). Committed
 * messages leave in one sendmmsg at the end of the turn, or when the area is full. */
uint8_t *cb_udp_reserve(cb_udp *u, size_t want);
void cb_udp_commit(cb_udp *u, const cb_addr *local, const cb_addr *remote, unsigned ecn, size_t len, size_t segment);
void cb_udp_flush(cb_udp *u); /* now, not at the end of the turn */

#endif
