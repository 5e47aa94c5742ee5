/* The system calls of an AF_XDP socket (Documentation/networking/af_xdp.rst). libbpf 1 has no xsk.h any more. */
#include "base/error.h"
#include "packet/xsk_int.h"
#include <errno.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef AF_XDP
#define AF_XDP 44
#endif
#ifndef SOL_XDP
#define SOL_XDP 283
#endif

enum {
    SEND_BUFFER = 8 * 1024 * 1024,
    MAX_TX_SKB_BUDGET = 9, /* XDP_MAX_TX_SKB_BUDGET, since Linux 6.17 */
    BUSY_TRIES = 200,
    BUSY_NS = 1000000
};

/* ---- opening ---- */

static int open_failed(const cb_xsk *x, int err) {
    if (err == EPERM || err == EACCES)
        return cb_fail(CB_EPERM, "AF_XDP on %s: this process may not open such sockets; it needs root or CAP_NET_RAW",
                       x->interface.name);
    if (err == EAFNOSUPPORT) return cb_fail(CB_ENOTSUP, "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)");
    return cb_fail_errno(err, "opening an AF_XDP socket");
}

static int make_memory(cb_xsk *x) {
    x->memory.len = (size_t)x->o.frames * x->chunk_bytes;
    void *base = mmap(NULL, x->memory.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return cb_fail(CB_ENOMEM, "AF_XDP: no memory for %u frames", (unsigned)x->o.frames);
    x->memory.base = base;
    const struct xdp_umem_reg reg = {
        .addr = (uint64_t)(uintptr_t)base, .len = x->memory.len, .chunk_size = x->chunk_bytes};
    if (setsockopt(x->fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof reg) == 0) return CB_OK;
    if (errno == ENOBUFS)
        return cb_fail(CB_ELIMIT,
                       "AF_XDP: %u frames of %u bytes are more than this process may lock in memory; ask for less "
                       "frames, raise RLIMIT_MEMLOCK or give CAP_IPC_LOCK",
                       (unsigned)x->o.frames, (unsigned)x->chunk_bytes);
    return cb_fail_errno(errno, "AF_XDP: giving the kernel %zu bytes for frames", x->memory.len);
}

typedef struct ring_plan {
    int option;           /* that sets its size */
    size_t item;          /* bytes */
    off_t page;           /* where it is mapped */
    uint32_t frames_part; /* its size: frames divided by this */
} ring_plan;

static const ring_plan plans[XSK_RINGS] = {
    {XDP_UMEM_FILL_RING, sizeof(uint64_t), (off_t)XDP_UMEM_PGOFF_FILL_RING, 2},
    {XDP_UMEM_COMPLETION_RING, sizeof(uint64_t), (off_t)XDP_UMEM_PGOFF_COMPLETION_RING, 4},
    {XDP_RX_RING, sizeof(struct xdp_desc), XDP_PGOFF_RX_RING, 2},
    {XDP_TX_RING, sizeof(struct xdp_desc), XDP_PGOFF_TX_RING, 4},
};

static int map_ring(cb_xsk *x, int i, const struct xdp_ring_offset *at) {
    xsk_ring *rings[XSK_RINGS] = {&x->fill, &x->completion, &x->rx, &x->tx}, *r = rings[i];
    const uint32_t size = x->o.frames / plans[i].frames_part;
    const size_t len = at->desc + size * plans[i].item;
    uint8_t *base = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, x->fd, plans[i].page);
    if (base == MAP_FAILED) return cb_fail_errno(errno, "AF_XDP: mapping a ring");
    x->maps[i] = (xsk_area){base, len};
    *r = (xsk_ring){.producer = (void *)(base + at->producer),
                    .consumer = (void *)(base + at->consumer),
                    .flags = (void *)(base + at->flags),
                    .desc = base + at->desc,
                    .size = size,
                    .mask = size - 1};
    return CB_OK;
}

static int make_rings(cb_xsk *x) {
    struct xdp_mmap_offsets at;
    socklen_t len = sizeof at;
    for (int i = 0; i < XSK_RINGS; i++) {
        const uint32_t size = x->o.frames / plans[i].frames_part;
        if (setsockopt(x->fd, SOL_XDP, plans[i].option, &size, sizeof size) < 0)
            return cb_fail_errno(errno, "AF_XDP: a ring of %u places", (unsigned)size);
    }
    if (getsockopt(x->fd, SOL_XDP, XDP_MMAP_OFFSETS, &at, &len) < 0)
        return cb_fail_errno(errno, "AF_XDP: ring offsets");
    if (len != sizeof at) return cb_fail(CB_ENOTSUP, "AF_XDP: this kernel is older than 5.4");
    const struct xdp_ring_offset *where[XSK_RINGS] = {&at.fr, &at.cr, &at.rx, &at.tx};
    int rc = CB_OK;
    for (int i = 0; i < XSK_RINGS && rc == CB_OK; i++)
        rc = map_ring(x, i, where[i]);
    return rc;
}

static int bind_failed(const cb_xsk *x, int err) {
    const char *name = x->interface.name;
    const unsigned queue = x->o.queue;
    switch (err) {
    case EBUSY:
        return cb_fail(CB_EEXIST, "AF_XDP on %s: queue %u has a socket already", name, queue);
    case EINVAL:
        return cb_fail(CB_ENOENT, "AF_XDP on %s: it has no queue %u, or does not take this kind of socket there", name,
                       queue);
    case EOPNOTSUPP:
    case EPROTONOSUPPORT:
        return cb_fail(CB_ENOTSUP, "AF_XDP on %s: its driver has no zero-copy; use CB_XSK_MODE_AUTO or _COPY", name);
    case ENETDOWN:
        return cb_fail(CB_ENOENT, "AF_XDP on %s: the interface is down", name);
    default:
        return cb_fail_errno(err, "AF_XDP on %s, queue %u", name, queue);
    }
}

static int try_bind(int fd, const struct sockaddr_xdp *a) {
    return bind(fd, (const struct sockaddr *)(const void *)a, sizeof *a) < 0 ? errno : 0;
}

/* The kernel lets go of a queue some milliseconds after the socket that had it was closed. */
static int bind_queue(cb_xsk *x) {
    static const uint16_t mode_flags[] = {0, XDP_COPY, XDP_ZEROCOPY}; /* 0: the kernel tries zero-copy first */
    const struct sockaddr_xdp a = {.sxdp_family = AF_XDP,
                                   .sxdp_flags = mode_flags[x->o.mode] | XDP_USE_NEED_WAKEUP,
                                   .sxdp_ifindex = x->interface.index,
                                   .sxdp_queue_id = x->o.queue};
    struct xdp_options options = {0};
    socklen_t len = sizeof options;
    int err = try_bind(x->fd, &a);
    for (int i = 0; i < BUSY_TRIES && err == EBUSY; i++) {
        nanosleep(&(struct timespec){.tv_nsec = BUSY_NS}, NULL);
        err = try_bind(x->fd, &a);
    }
    if (err) return bind_failed(x, err);
    if (getsockopt(x->fd, SOL_XDP, XDP_OPTIONS, &options, &len) == 0)
        x->zero_copy = options.flags & XDP_OPTIONS_ZEROCOPY;
    return CB_OK;
}

/* Failures cost speed only. */
static void tune(const cb_xsk *x) {
    const int bytes = SEND_BUFFER;
    const uint32_t budget = x->tx.size;
    if (setsockopt(x->fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) < 0)
        setsockopt(x->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    setsockopt(x->fd, SOL_XDP, MAX_TX_SKB_BUDGET, &budget, sizeof budget);
}

int xsk_kernel_open(cb_xsk *x) {
    x->fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (x->fd < 0) return open_failed(x, errno);
    int rc = make_memory(x);
    if (rc == CB_OK) rc = make_rings(x);
    if (rc < 0) return rc;
    tune(x);
    xsk_refill(x);
    return bind_queue(x);
}

/* ---- closing ---- */

void xsk_kernel_close(cb_xsk *x) {
    if (x->fd >= 0) close(x->fd);
    x->fd = -1;
}

static void unmap(xsk_area *a) {
    if (a->base) munmap(a->base, a->len);
    a->base = NULL;
}

void xsk_kernel_unmap(cb_xsk *x) {
    for (int i = 0; i < XSK_RINGS; i++)
        unmap(&x->maps[i]);
    unmap(&x->memory);
}

/* ---- running ---- */

int xsk_kernel_kick_tx(cb_xsk *x) {
    x->stats.tx_calls++;
    return sendto(x->fd, NULL, 0, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0) < 0 ? errno : 0;
}

int xsk_kernel_kick_fill(cb_xsk *x) {
    x->stats.rx_calls++;
    return recvfrom(x->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL) < 0 ? errno : 0;
}

int xsk_kernel_error(const cb_xsk *x) {
    int err = 0;
    socklen_t len = sizeof err;
    return getsockopt(x->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0 ? errno : err;
}

int xsk_kernel_stats(const cb_xsk *x, cb_xsk_stats *out) {
    struct xdp_statistics s = {0}; /* older kernels fill less of it */
    socklen_t len = sizeof s;
    if (getsockopt(x->fd, SOL_XDP, XDP_STATISTICS, &s, &len) < 0)
        return cb_fail_errno(errno, "AF_XDP: reading the kernel's statistics");
    /* The kernel counts what found no chunk there as well, when it copies. */
    out->rx_dropped = s.rx_dropped > s.rx_fill_ring_empty_descs ? s.rx_dropped - s.rx_fill_ring_empty_descs : 0;
    out->rx_ring_full = s.rx_ring_full;
    out->rx_fill_empty = s.rx_fill_ring_empty_descs;
    out->rx_invalid = s.rx_invalid_descs;
    out->tx_invalid = s.tx_invalid_descs;
    out->tx_ring_empty = s.tx_ring_empty_descs;
    return CB_OK;
}
