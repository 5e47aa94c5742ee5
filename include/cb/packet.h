/* cb/packet.h - datagrams in and out, with one handler for whatever carries them: a UDP socket (here), AF_XDP
 * (cb/xsk.h) or a driver of your own.
 *
 *   cb_packet_io_open(&io, loop, "[::]:53", CB_OPTS(cb_packet_io_opts, .ops = &ops));       over a UDP socket
 *   cb_packet_io_open_xdp(&io, loop, "[::]:53", the same, CB_OPTS(cb_xsk_opts, .interface = "eth0"));   over AF_XDP
 *
 * Datagrams come in batches and are sent in batches, at the end of the loop's turn. On a loop of a simulation
 * (cb/sim.h) the socket is a simulated one. Everything runs on the loop's thread; for several threads open one on each
 * loop, with `reuseport`. */
#ifndef CB_PACKET_H
#define CB_PACKET_H

#include <cb/loop.h>

CB_BEGIN

typedef struct cb_packet_io cb_packet_io;

/* An IP address with a port. Compare ip, port and family. */
typedef struct cb_packet_addr {
    uint8_t ip[16];   /* in the order of the wire; of IPv4 the first 4 are used, the others are 0 */
    uint32_t scope;   /* of link-local IPv6: the number of the interface; else 0 */
    uint16_t port;    /* a number of the host */
    uint8_t family;   /* 4, 6, or 0 = not said */
    uint8_t reserved; /* 0 */
} cb_packet_addr;

/* Reads "192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%eth0]:53". CB_EINVAL (the detail says what). Thread-safe. */
CB_API int cb_packet_addr_parse(cb_packet_addr *out, const char *text);
/* Writes the same (64 bytes are enough; less cuts it). Returns out. Thread-safe. */
CB_API const char *cb_packet_addr_text(const cb_packet_addr *a, char *out, size_t cap);
/* Address, port and family are the same: 1 or 0. Thread-safe. */
CB_API int cb_packet_addr_equal(const cb_packet_addr *a, const cb_packet_addr *b);

/* By which way a datagram came. */
enum cb_packet_path { CB_PACKET_SOCKET = 0, CB_PACKET_XDP = 1, CB_PACKET_OWN = 2 /* a driver of your own */ };

enum cb_packet_limits {
    CB_PACKET_MAX = 65000 /* bytes of one datagram that can be sent */
};

/* A datagram that came. */
typedef struct cb_packet {
    size_t size;
    uint8_t *data; /* valid during the callback; may be changed */
    size_t len;
    size_t room;          /* bytes from data on that cb_packet_io_reply() can send from there: at least len */
    cb_packet_addr local; /* where it came in */
    cb_packet_addr remote;
    uint8_t ecn;  /* 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE (RFC 3168) */
    uint8_t path; /* enum cb_packet_path */
    uint8_t reserved[6];
    void *token; /* of the driver */
} cb_packet;

/* Every member may be NULL. Freeing anything inside a callback is allowed. */
typedef struct cb_packet_ops {
    size_t size;
    void (*on_packet)(cb_packet_io *io, const cb_packet *p, void *user);
    void (*on_batch_end)(cb_packet_io *io, void *user); /* after the datagrams of one read */
    void (*on_writable)(cb_packet_io *io, void *user);  /* after a send found no room */
    /* The faster way is closed for ever (AF_XDP: the interface is gone or was set up anew); what has a socket beside it
     * goes on by that. rc: enum cb_error; cb_last_error() has the detail. */
    void (*on_down)(cb_packet_io *io, int rc, void *user);
} cb_packet_ops;

typedef struct cb_packet_io_opts {
    size_t size;
    const cb_packet_ops *ops; /* borrowed; required */
    void *user;
    uint32_t rcvbuf_bytes; /* of the socket; 0 = 4 MiB. The granted size is in the statistics */
    uint32_t sndbuf_bytes; /* 0 = 4 MiB */
    uint8_t v6_only;       /* 1 = [::] does not take IPv4 */
    uint8_t reuseport;     /* 1 = others may have the same address (SO_REUSEPORT): one a loop */
    uint8_t no_fragment;   /* 1 = datagrams that are larger than the path are lost, and no host or router cuts them */
    uint8_t merge;         /* 1 = what is sent to one peer in a row may travel as one train (GSO) */
    uint8_t no_gso, no_gro, no_ecn; /* 1 = off */
    uint8_t reserved;
} cb_packet_io_opts;

/* Opens a UDP socket: listen is "address:port" with a literal address, ":port" (both families), or port 0 for any.
 * CB_EINVAL (the detail names what), CB_EEXIST (address in use), CB_EPERM (port below 1024), CB_ESYS, CB_ENOMEM,
 * CB_E2BIG. */
CB_API int cb_packet_io_open(cb_packet_io **out, cb_loop *loop, const char *listen, const cb_packet_io_opts *opts);
/* Nothing is called back any more; what has not left is dropped. NULL is fine. */
CB_API void cb_packet_io_free(cb_packet_io *io);
/* The bound address, with the port it really has. */
CB_API cb_packet_addr cb_packet_io_local(const cb_packet_io *io);

/* ---- sending ---- */

/* Sends a copy of data (1 to CB_PACKET_MAX bytes). local: where from, as cb_packet.local of what is answered; NULL, or
 * an address of zeros, = the system chooses. ecn: the two bits, usually 0. That a datagram cannot reach its peer is not
 * told, as with sockets. CB_EAGAIN (no room: on_writable follows), CB_EINVAL (a length or an address that cannot be),
 * CB_ECLOSED (freed). */
CB_API int cb_packet_io_send(cb_packet_io *io, const cb_packet_addr *local, const cb_packet_addr *remote, uint32_t ecn,
                             cb_slice data);
/* Answers p, inside its on_packet, with the first len bytes (1 to p->room) of p->data: from where p came in to where it
 * came from. With AF_XDP nothing is copied: the frame that came goes back. After it p->data is no longer the caller's;
 * it can be done once. Errors as cb_packet_io_send(). */
CB_API int cb_packet_io_reply(cb_packet_io *io, const cb_packet *p, size_t len, uint32_t ecn);
/* To build datagrams where they are sent from: room for `want` bytes (at most CB_PACKET_MAX), or NULL (no room:
 * on_writable follows). It is valid until the next call to io; without a commit nothing is sent. */
CB_API uint8_t *cb_packet_io_reserve(cb_packet_io *io, size_t want);
/* Sends the first len bytes of what was reserved. Errors as cb_packet_io_send(); in any case the room is gone. */
CB_API int cb_packet_io_commit(cb_packet_io *io, const cb_packet_addr *local, const cb_packet_addr *remote,
                               uint32_t ecn, size_t len);
/* Now, and not at the end of the turn. */
CB_API void cb_packet_io_flush(cb_packet_io *io);

/* ---- numbers ---- */

typedef struct cb_packet_io_stats {
    size_t size;                                         /* set by the caller */
    uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes; /* by whatever way; bytes of payload */
    uint64_t rx_calls, tx_calls; /* system calls; with AF_XDP mostly none is needed to receive */
    uint64_t tx_dropped;         /* refused by the system, or no way to the peer is known */
    /* Of AF_XDP; what came and went by it is counted above as well. */
    uint64_t xdp_rx_packets, xdp_rx_bytes, xdp_tx_packets, xdp_tx_bytes;
    uint64_t xdp_malformed;  /* frames that hold no datagram: lengths, versions, sources that cannot be */
    uint64_t xdp_checksum;   /* wrong checksum of IPv4 or UDP, or none where there must be one (IPv6) */
    uint64_t xdp_other;      /* valid, but not for this address and port */
    uint64_t xdp_ring_full;  /* dropped by the kernel: we are too slow */
    uint64_t xdp_fill_empty; /* dropped by the kernel: no chunk was free */
    uint64_t xdp_dropped;    /* dropped by the kernel for other reasons: the frame is larger than a chunk */
    uint64_t xdp_invalid;    /* descriptors that the kernel refused */
    uint64_t xdp_unresolved; /* datagrams that went by the socket, or (without one) nowhere: nobody knew the way */
    uint32_t rcvbuf_bytes, sndbuf_bytes;  /* of the socket, granted */
    uint32_t xdp_frames, xdp_frames_free; /* chunks of memory, and those in nobody's hands */
    uint8_t xdp;                          /* 1 = AF_XDP is in use */
    uint8_t xdp_zero_copy;                /* 1 = the driver writes into our memory, 0 = the kernel copies */
    uint8_t xdp_native;                   /* 1 = the program runs in the driver, 0 = behind it (generic) */
    uint8_t gso, gro, ecn;                /* of the socket, in use */
    uint8_t reserved[2];
} cb_packet_io_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_packet_io_stats_get(cb_packet_io *io, cb_packet_io_stats *out);

/* ---- drivers of your own ---- */

/* What carries the datagrams; self is the driver's own. Required: all but flush. */
typedef struct cb_packet_driver {
    size_t size;
    /* Lengths and addresses were checked. They return CB_OK or CB_EAGAIN, and call cb_packet_io_writable() later. */
    uint8_t *(*reserve)(void *self, size_t want);
    int (*commit)(void *self, const cb_packet_addr *local, const cb_packet_addr *remote, uint32_t ecn, size_t len);
    int (*reply)(void *self, const cb_packet *p, size_t len, uint32_t ecn);
    void (*flush)(void *self); /* at the end of a turn in which something was committed */
    void (*local)(void *self, cb_packet_addr *out);
    void (*stats)(void *self, cb_packet_io_stats *out); /* zeroed, with size set */
    void (*close)(void *self);                          /* no callback any more; perhaps called inside one */
    void (*destroy)(void *self);                        /* after the turn in which it was closed: frees self */
} cb_packet_driver;

/* The driver is copied. On failure self is still the caller's. CB_EINVAL, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_packet_io_new(cb_packet_io **out, cb_loop *loop, const cb_packet_io_opts *opts,
                            const cb_packet_driver *driver, void *self);
/* For drivers: a datagram came; a batch is over; there is room again; it is down. 1, or 0 when the user has freed io
 * in between: nothing else may be called then. */
CB_API int cb_packet_io_deliver(cb_packet_io *io, const cb_packet *p);
CB_API int cb_packet_io_batch_end(cb_packet_io *io);
CB_API int cb_packet_io_writable(cb_packet_io *io);
CB_API int cb_packet_io_down(cb_packet_io *io, int rc);

CB_END
#endif
