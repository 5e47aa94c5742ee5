/* cb/xsk.h - libcb-xdp (-lcb-xdp): AF_XDP. Packets go from the network driver to a program in memory that both share,
 * past the kernel's network stack: no socket buffers, no routing, no firewall (nftables sees nothing of them).
 *
 * Two levels. cb_packet_io_open_xdp() gives a cb_packet_io (cb/packet.h): datagrams with addresses, the same handler as
 * over a socket. A cb_xsk gives and takes whole Ethernet frames.
 *
 * A small XDP program on the interface takes what rules name and passes everything else to the kernel, so that ARP,
 * neighbour discovery, ICMP and SSH go on. VLAN tags, fragments, IPv4 options, IPv6 extension headers, broadcast and
 * multicast always go to the kernel. One interface takes one XDP program: where another one is (cb/forward.h's, say),
 * opening fails and names it.
 *
 * It needs root, or CAP_BPF (or CAP_SYS_ADMIN), CAP_NET_ADMIN and CAP_NET_RAW, to open; not to run. Memory of frames
 * counts for RLIMIT_MEMLOCK of processes without CAP_IPC_LOCK. Frames larger than one chunk (4 KiB less 256 bytes) are
 * not supported. */
#ifndef CB_XSK_H
#define CB_XSK_H

#include <cb/packet.h>

CB_BEGIN

/* ---- which packets ---- */

/* The program on an interface. Shared by the sockets of its queues, reference counted, thread-safe; it leaves the
 * interface with the last reference, and with the process. */
typedef struct cb_xsk_program cb_xsk_program;

enum cb_xsk_attach {
    CB_XSK_ATTACH_AUTO = 0,   /* in the driver, or behind it when the driver has no XDP */
    CB_XSK_ATTACH_NATIVE = 1, /* in the driver, or fail */
    CB_XSK_ATTACH_GENERIC = 2 /* behind it: for drivers that do it badly */
};

enum cb_xsk_limits {
    CB_XSK_QUEUES = 256,       /* queues of an interface that can be served */
    CB_XSK_RULES = 256,        /* of one program; a rule for both families is two */
    CB_XSK_ANY_PROTOCOL = 255, /* in rules */
    CB_XSK_BATCH = 64          /* frames in one on_frames */
};

typedef struct cb_xsk_program_opts {
    size_t size;
    const char *interface; /* its name, in this network namespace; required */
    uint8_t attach;        /* enum cb_xsk_attach */
    uint8_t reserved[7];
} cb_xsk_program_opts;

/* Gives a program with one reference and no rules: everything passes. CB_EINVAL, CB_ENOENT (no such interface; no
 * Ethernet), CB_EEXIST (it has an XDP program; the detail names it), CB_EPERM (the detail names the rights), CB_ENOTSUP
 * (the driver or the kernel), CB_ESYS, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_xsk_program_new(cb_xsk_program **out, const cb_xsk_program_opts *opts);
CB_API cb_xsk_program *cb_xsk_program_ref(cb_xsk_program *p);
CB_API void cb_xsk_program_unref(cb_xsk_program *p); /* NULL is fine */

/* What a socket of this program gets. Equal rules are counted: each needs its own removal. */
typedef struct cb_xsk_rule {
    size_t size;
    const char *address; /* destination; NULL = any of `family` */
    uint16_t port;       /* destination, of UDP and TCP; 0 = any */
    uint8_t protocol;    /* 0 = UDP; another number of IP, or CB_XSK_ANY_PROTOCOL */
    uint8_t family;      /* without an address: 4, 6, or 0 = both */
    uint8_t reserved[4];
} cb_xsk_rule;

/* CB_EINVAL (the detail says what), CB_ELIMIT (CB_XSK_RULES), CB_ESYS, CB_E2BIG. */
CB_API int cb_xsk_program_add(cb_xsk_program *p, const cb_xsk_rule *rule);
/* CB_ENOENT: there is no such rule. */
CB_API int cb_xsk_program_remove(cb_xsk_program *p, const cb_xsk_rule *rule);

/* Where the frames of the interface went. */
typedef struct cb_xsk_program_stats {
    size_t size;     /* set by the caller */
    uint64_t taken;  /* to a socket */
    uint64_t passed; /* to the kernel, because no rule names them */
    uint64_t
        unsuitable; /* to the kernel, because of a tag, a fragment, options, extension headers, or the MAC address */
    uint64_t no_socket; /* to the kernel: a rule names them, but their queue has no socket */
    uint32_t id;        /* the kernel's number of the program */
    uint8_t native;     /* 1 = it runs in the driver */
    uint8_t reserved[3];
} cb_xsk_program_stats;

/* CB_EINVAL (size), CB_ESYS, CB_ENOMEM. */
CB_API int cb_xsk_program_stats_get(const cb_xsk_program *p, cb_xsk_program_stats *out);

/* ---- frames ---- */

typedef struct cb_xsk cb_xsk;

/* An Ethernet frame in memory that is shared with the kernel. `chunk` says which piece of that memory it is; whoever
 * has the frame owns the chunk. */
typedef struct cb_xsk_frame {
    uint8_t *data;
    uint32_t len;
    uint32_t room; /* bytes from data to the end of the chunk */
    uint32_t chunk;
    uint32_t reserved;
} cb_xsk_frame;

/* Every member may be NULL. Freeing anything inside a callback is allowed. */
typedef struct cb_xsk_ops {
    size_t size;
    /* 1 to CB_XSK_BATCH frames, which are the callee's from now on: each one is given back by cb_xsk_send() or
     * cb_xsk_release(), now or later. The array is valid during the call. */
    void (*on_frames)(cb_xsk *x, const cb_xsk_frame *frames, size_t n, void *user);
    void (*on_batch_end)(cb_xsk *x, void *user);    /* after the frames of one turn */
    void (*on_writable)(cb_xsk *x, void *user);     /* after cb_xsk_send() took less, or cb_xsk_take() found nothing */
    void (*on_down)(cb_xsk *x, int rc, void *user); /* the interface is gone: nothing comes and goes any more */
} cb_xsk_ops;

enum cb_xsk_mode {
    CB_XSK_MODE_AUTO = 0,     /* the driver writes into our memory where it can, else the kernel copies */
    CB_XSK_MODE_COPY = 1,     /* the kernel copies */
    CB_XSK_MODE_ZERO_COPY = 2 /* or fail */
};

typedef struct cb_xsk_opts {
    size_t size;
    const char *interface;   /* or, for several queues, */
    cb_xsk_program *program; /* its program, referenced; NULL = a private one, and `attach` is looked at */
    const cb_xsk_ops *ops;   /* borrowed; not for cb_packet_io_open_xdp() */
    void *user;
    uint32_t queue;       /* receive queue of the interface; only its packets come here */
    uint32_t frames;      /* chunks: a power of two from 64 to 2^20; 0 = 4,096. Half of them wait to be received into, a
                           * quarter can wait to be sent */
    uint32_t frame_bytes; /* of a chunk: 2,048 or 4,096; 0 = what the interface's MTU needs */
    uint8_t mode;         /* enum cb_xsk_mode */
    uint8_t attach;       /* enum cb_xsk_attach */
    uint8_t no_checksum;  /* cb_packet_io_open_xdp(): 1 = checksums of what comes are not looked at. For veth, whose
                           * other  end leaves them to be filled in by hardware that does not exist */
    uint8_t no_socket;    /* cb_packet_io_open_xdp(): 1 = no UDP socket beside it, see there */
} cb_xsk_opts;

/* CB_EINVAL, CB_ENOENT (interface, queue), CB_EEXIST (another program, or another socket on this queue), CB_EPERM,
 * CB_ENOTSUP (zero-copy, MTU, kernel), CB_ELIMIT (RLIMIT_MEMLOCK), CB_ESYS, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_xsk_open(cb_xsk **out, cb_loop *loop, const cb_xsk_opts *opts);
/* Frames that the caller still has are void. NULL is fine. */
CB_API void cb_xsk_free(cb_xsk *x);
/* Of the interface; 6 bytes, valid while x lives. */
CB_API const uint8_t *cb_xsk_mac(const cb_xsk *x);
CB_API uint32_t cb_xsk_mtu(const cb_xsk *x);       /* when it was opened */
CB_API uint32_t cb_xsk_interface(const cb_xsk *x); /* its number */
/* The program it uses, for rules. Borrowed: valid while x lives. */
CB_API cb_xsk_program *cb_xsk_program_of(const cb_xsk *x);

/* An empty frame to fill and send: data has room for headers and payload as large as the interface takes. CB_EAGAIN:
 * none is free (on_writable follows). */
CB_API int cb_xsk_take(cb_xsk *x, cb_xsk_frame *out);
/* Gives a frame back unsent. CB_EINVAL: it is not the caller's. */
CB_API int cb_xsk_release(cb_xsk *x, const cb_xsk_frame *frame);
/* Sends frames: [data, len) anywhere inside their chunks, a whole Ethernet frame without its checksum. Returns how many
 * were taken, which are the kernel's now; fewer than n when the ring is full (on_writable follows). They leave by
 * cb_xsk_flush(), or at the end of on_frames. CB_EINVAL: the first one not taken is not the caller's, or not inside its
 * chunk, or has no Ethernet header, or is larger than the interface takes (those before it were taken, if any: then
 * their number is returned). CB_ECLOSED: it is down. */
CB_API int cb_xsk_send(cb_xsk *x, const cb_xsk_frame *frames, size_t n);
CB_API void cb_xsk_flush(cb_xsk *x);

typedef struct cb_xsk_stats {
    size_t size; /* set by the caller */
    uint64_t rx_frames, rx_bytes, tx_frames, tx_bytes;
    uint64_t rx_calls, tx_calls;     /* system calls that were needed to wake the kernel */
    uint64_t rx_dropped;             /* the rest is told by the kernel (XDP_STATISTICS): too large for a chunk */
    uint64_t rx_ring_full;           /* we are too slow */
    uint64_t rx_fill_empty;          /* no chunk was free */
    uint64_t rx_invalid, tx_invalid; /* descriptors that it refused */
    uint64_t tx_ring_empty;
    uint32_t frames, frames_free;
    uint32_t frames_out; /* that the caller has */
    uint8_t zero_copy;   /* 1 = the driver writes into our memory */
    uint8_t native;      /* 1 = the program runs in the driver */
    uint8_t up;          /* 0 = it is down */
    uint8_t reserved;
} cb_xsk_stats;

/* CB_EINVAL (size), CB_ESYS. */
CB_API int cb_xsk_stats_get(const cb_xsk *x, cb_xsk_stats *out);

/* ---- datagrams ---- */

/* As cb_packet_io_open(), over AF_XDP on one queue of an interface. A UDP socket is opened beside it at the same
 * address, and what AF_XDP cannot do goes that way, unseen by the handler: datagrams from other interfaces and queues,
 * fragments, what has options; and those to peers whose Ethernet address nobody knows yet (the kernel asks for it) or
 * that are larger than the path. Without that socket (no_socket) they are lost, port 0 is refused, and the kernel
 * answers "port unreachable" to what it is passed.
 *
 * Where a datagram goes: an answer goes to the Ethernet address that it came from, for 30 s, if it is no larger than
 * 1,280 bytes with its IP header; everything else is asked of the kernel's routes and neighbours, once a second and
 * peer. IPv4 packets up to that size may be fragmented by routers, larger ones may not. Datagrams that came are checked
 * as the kernel does it, but for reverse paths (rp_filter).
 * listen: the address that the rule is for; ":53" and "[::]:53" take the addresses that the host has when it is opened,
 * both families (not what it routes for others); those that it gets later are served by the socket. Errors as
 * cb_packet_io_open() and cb_xsk_open(). */
CB_API int cb_packet_io_open_xdp(cb_packet_io **out, cb_loop *loop, const char *listen, const cb_packet_io_opts *opts,
                                 const cb_xsk_opts *xsk);

CB_END
#endif
