/* The inside of an AF_XDP socket: xsk.c is its life, xsk_kernel.c what the kernel is asked, xsk_move.c moves frames. */
#ifndef CB_PACKET_XSK_INT_H
#define CB_PACKET_XSK_INT_H

#include "packet/chunks.h"
#include "packet/interface.h"
#include "packet/ring.h"
#include <cb/xsk.h>

enum { XSK_RINGS = 4, XSK_FRAMES_DEFAULT = 4096, XSK_ETH = 14, XSK_VLAN = 4, XSK_KERNEL_HEADROOM = 256 };

typedef struct xsk_area {
    void *base; /* NULL: not mapped */
    size_t len;
} xsk_area;

struct cb_xsk {
    cb_xsk_opts o;
    cb_loop *loop;
    cb_watch *watch;
    cb_timer *retry; /* the kernel took nothing, or no chunk was free: look again soon */
    cb_timer *pulse; /* is the interface still there? */
    cb_xsk_program *program;
    xsk_interface interface;
    int fd;
    uint32_t chunk_bytes, chunk_shift;
    xsk_area memory, maps[XSK_RINGS];
    xsk_ring fill, completion, rx, tx;
    cb_chunks chunks;
    cb_xsk_stats stats;
    unsigned depth; /* of callbacks */
    bool joined, freed, down, zero_copy;
    bool starved;   /* on_writable is owed */
    bool unflushed; /* frames wait in tx for a wake-up */
};

/* xsk_kernel.c. Opens the socket, its memory and rings and binds it; what was made is closed by the other, also after a
 * failure half way. */
int xsk_kernel_open(cb_xsk *x);
void xsk_kernel_close(cb_xsk *x); /* the descriptor: nothing is received or sent any more */
void xsk_kernel_unmap(cb_xsk *x); /* the memory */
int xsk_kernel_stats(const cb_xsk *x, cb_xsk_stats *out);
/* One call that makes the kernel send, or look at the fill ring. 0, or errno. */
int xsk_kernel_kick_tx(cb_xsk *x);
int xsk_kernel_kick_fill(cb_xsk *x);
int xsk_kernel_error(const cb_xsk *x); /* what ended the socket: an errno; 0 = nothing */

/* xsk_move.c: no system calls. */
void xsk_refill(cb_xsk *x); /* gives free chunks to the kernel to receive into */
void xsk_reap(cb_xsk *x);   /* takes back the chunks that were sent */
uint32_t xsk_receive(cb_xsk *x, cb_xsk_frame frames[CB_XSK_BATCH]);
/* CB_OK, or CB_EINVAL for what may not be sent. */
int xsk_put(cb_xsk *x, const cb_xsk_frame *frame);

#endif
