/* The inside of a UDP socket: udp.c opens it, udp_rx.c reads, udp_tx.c writes. */
#ifndef CB_LOOP_UDP_PRIV_H
#define CB_LOOP_UDP_PRIV_H

#include "loop/loop_priv.h"
#include "loop/udp.h"
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    UDP_RX_MSGS = 16,
    UDP_RX_STRIDE = 65536 + 1088, /* not a power of two: the starts must not share cache sets */
    UDP_RX_CONTROL = 256,
    UDP_TX_MSGS = 64, /* messages in one sendmmsg() */
    UDP_TX_CONTROL = 128,
    UDP_TX_ENTRIES = 512,
    UDP_TX_ARENA = 256 * 1024,
};

typedef union udp_control {
    struct cmsghdr align;
    uint8_t bytes[UDP_RX_CONTROL];
} udp_control;

/* Vectors for the two system calls and the bytes of one read: nothing in it outlives a call. */
typedef struct cb_udp_area {
    struct mmsghdr rx[UDP_RX_MSGS], tx[UDP_TX_MSGS];
    struct iovec rx_iov[UDP_RX_MSGS], tx_iov[UDP_TX_MSGS];
    cb_addr rx_name[UDP_RX_MSGS], tx_name[UDP_TX_MSGS];
    udp_control rx_control[UDP_RX_MSGS], tx_control[UDP_TX_MSGS];
    uint8_t rx_data[UDP_RX_MSGS][UDP_RX_STRIDE];
} cb_udp_area;

/* A committed train of datagrams in the arena. */
typedef struct udp_train {
    size_t off, len, segment;
    cb_addr local, remote;
    bool has_local;
    uint8_t ecn;
} udp_train;

/* What is behind a socket: the kernel, or a host of a simulation. */
struct cb_udp_port {
    int (*open)(cb_udp *u); /* binds u->o.bind; fills local and stats. On failure nothing is left open */
    void (*close)(cb_udp *u);
    void (*send)(cb_udp *u); /* the trains [first, count); those that have left are consumed */
};

struct cb_udp {
    cb_udp_opts o;
    cb_loop *loop;
    void *behind; /* the port's own */
    cb_watch *watch;
    cb_grave grave;
    cb_defer defer;
    cb_udp_stats stats;
    cb_addr local;
    int fd;
    bool closed;
    bool resting;   /* not reading */
    bool blocked;   /* the kernel's buffer is full: waiting for CB_WRITABLE */
    bool starved;   /* a reserve failed: on_writable is owed */
    bool gso_trial; /* a message with segments was refused: was it the segments? */
    int last_errno; /* logged once in a row */
    uint8_t *arena; /* UDP_TX_ARENA bytes, from the first reserve on */
    udp_train *trains;
    size_t filled;       /* bytes of the arena */
    size_t first, count; /* trains [first, count) wait; the bytes before trains[first].off have left */
};

void cb_udp_read(cb_udp *u);
void cb_udp_watch(cb_udp *u);       /* asks for the events that are of use now */
void cb_udp_send_queued(cb_udp *u); /* to the kernel */
/* udp_err.c. What ICMP said goes to on_unreachable. True: there was something, and with it a pending error of the
 * socket that some call of ours got, whatever it was about. */
bool cb_udp_take_errors(cb_udp *u);
void cb_udp_unreachable(cb_udp *u, int err, const cb_addr *remote, cb_slice quote);
/* udp_count.c. A message that came; what one system call sent; what was refused; what ICMP said. */
void cb_udp_count_in(const cb_cells *cells, size_t bytes, size_t datagrams, unsigned ecn);
void cb_udp_count_out(const cb_cells *cells, size_t bytes, size_t datagrams, size_t segmented);
void cb_udp_count_drop(const cb_cells *cells, int err, uint64_t datagrams);
void cb_udp_count_icmp(const cb_cells *cells, int err);

#endif
