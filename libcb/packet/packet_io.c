/* What every cb_packet_io has in common, whatever carries its datagrams: checks, callbacks, the end of the turn, what
 * is counted, and freeing at any time. */
#include "base/error.h"
#include "base/opts.h"
#include "loop/loop_int.h"
#include "loop/turn.h"
#include <string.h>

#include <cb/packet.h>

enum { COUNT_EVERY_MS = 1000 };

struct cb_packet_io {
    cb_packet_io_opts o;
    cb_packet_driver driver;
    void *self;
    cb_loop *loop;
    cb_defer defer;
    cb_grave grave;
    cb_alarm alarm;             /* what the driver counts becomes metrics */
    cb_packet_io_stats counted; /* until now */
    const cb_packet *replying;  /* the one that may be replied to; NULL = none, or it was */
    size_t reserved;            /* bytes; 0 = nothing */
    bool freed;
};

/* ---- what is counted ---- */

typedef struct io_count {
    enum cb_cell_id cell;
    size_t at; /* in cb_packet_io_stats */
} io_count;

static const io_count io_counts[] = {
    {CB_C_XDP_DATAGRAMS_IN, offsetof(cb_packet_io_stats, xdp_rx_packets)},
    {CB_C_XDP_DATAGRAMS_OUT, offsetof(cb_packet_io_stats, xdp_tx_packets)},
    {CB_C_XDP_BYTES_IN, offsetof(cb_packet_io_stats, xdp_rx_bytes)},
    {CB_C_XDP_BYTES_OUT, offsetof(cb_packet_io_stats, xdp_tx_bytes)},
    {CB_C_XDP_DROPPED_MALFORMED, offsetof(cb_packet_io_stats, xdp_malformed)},
    {CB_C_XDP_DROPPED_CHECKSUM, offsetof(cb_packet_io_stats, xdp_checksum)},
    {CB_C_XDP_DROPPED_OTHER_ADDRESS, offsetof(cb_packet_io_stats, xdp_other)},
    {CB_C_XDP_DROPPED_RING_FULL, offsetof(cb_packet_io_stats, xdp_ring_full)},
    {CB_C_XDP_DROPPED_NO_CHUNK, offsetof(cb_packet_io_stats, xdp_fill_empty)},
    {CB_C_XDP_DROPPED_TOO_LARGE, offsetof(cb_packet_io_stats, xdp_dropped)},
    {CB_C_XDP_DROPPED_INVALID, offsetof(cb_packet_io_stats, xdp_invalid)},
    {CB_C_XDP_UNRESOLVED, offsetof(cb_packet_io_stats, xdp_unresolved)},
};

static uint64_t number_at(const cb_packet_io_stats *s, size_t at) {
    uint64_t n;
    memcpy(&n, (const uint8_t *)s + at, sizeof n);
    return n;
}

static void read_stats(cb_packet_io *io, cb_packet_io_stats *out) {
    *out = (cb_packet_io_stats){.size = sizeof *out};
    io->driver.stats(io->self, out);
}

static void count(cb_packet_io *io) {
    const cb_cells *cells = cb_loop_cells(io->loop);
    cb_packet_io_stats now;
    if (!cells) return;
    read_stats(io, &now);
    for (size_t i = 0; i < sizeof io_counts / sizeof *io_counts; i++) {
        const uint64_t before = number_at(&io->counted, io_counts[i].at), n = number_at(&now, io_counts[i].at);
        if (n > before) cb_cells_add(cells, io_counts[i].cell, n - before);
    }
    cb_cells_move(cells, CB_C_XDP_SOCKETS, (int64_t)now.xdp - (int64_t)io->counted.xdp);
    io->counted = now;
}

static void on_alarm(cb_alarm *alarm, cb_time now) {
    cb_packet_io *io = CB_CONTAINER(alarm, cb_packet_io, alarm);
    count(io);
    cb_alarm_set(alarm, now + COUNT_EVERY_MS * CB_MS);
}

/* ---- life ---- */

static void on_turn_end(cb_defer *d) {
    cb_packet_io *io = CB_CONTAINER(d, cb_packet_io, defer);
    if (io->driver.flush) io->driver.flush(io->self);
}

static void bury(cb_grave *g) {
    cb_packet_io *io = CB_CONTAINER(g, cb_packet_io, grave);
    io->driver.destroy(io->self);
    cb_mem_free(cb_loop_alloc(io->loop), io);
}

static int check_driver(const cb_packet_driver *d) {
    if (d->reserve && d->commit && d->reply && d->local && d->stats && d->close && d->destroy) return CB_OK;
    return cb_fail(CB_EINVAL, "cb_packet_io_new: a function of cb_packet_driver is missing");
}

int cb_packet_io_new(cb_packet_io **out, cb_loop *loop, const cb_packet_io_opts *opts, const cb_packet_driver *driver,
                     void *self) {
    cb_packet_io_opts o;
    cb_packet_driver d;
    if (!out || !loop || !driver)
        return cb_fail(CB_EINVAL, "cb_packet_io_new: %s is NULL", !out ? "out" : !loop ? "loop" : "driver");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_packet_io_opts");
    if (rc == CB_OK) rc = cb_opts_read(&d, sizeof d, driver, "cb_packet_driver");
    if (rc == CB_OK) rc = check_driver(&d);
    if (rc == CB_OK && !o.ops) rc = cb_fail(CB_EINVAL, "cb_packet_io_opts: ops is missing");
    if (rc == CB_OK) rc = cb_ops_check(o.ops, sizeof *o.ops, "cb_packet_ops");
    if (rc < 0) return rc;
    cb_packet_io *io = cb_mem_new(cb_loop_alloc(loop), sizeof *io);
    if (!io) return cb_fail(CB_ENOMEM, "no memory for packet I/O");
    io->o = o;
    io->driver = d;
    io->self = self;
    io->loop = loop;
    cb_defer_init(&io->defer, loop, on_turn_end);
    cb_alarm_init(&io->alarm, loop, on_alarm);
    if (cb_loop_cells(loop)) {
        rc = cb_alarm_set(&io->alarm, cb_loop_now(loop) + COUNT_EVERY_MS * CB_MS);
        if (rc < 0) {
            cb_mem_free(cb_loop_alloc(loop), io);
            return rc;
        }
        count(io);
    }
    *out = io;
    return CB_OK;
}

void cb_packet_io_free(cb_packet_io *io) {
    if (!io || io->freed) return;
    count(io);
    cb_cells_move(cb_loop_cells(io->loop), CB_C_XDP_SOCKETS, -(int64_t)io->counted.xdp);
    io->freed = true;
    cb_alarm_stop(&io->alarm);
    cb_defer_cancel(&io->defer);
    io->driver.close(io->self);
    cb_loop_bury(io->loop, &io->grave, bury);
}

cb_packet_addr cb_packet_io_local(const cb_packet_io *io) {
    cb_packet_addr a = {.family = 0};
    io->driver.local(io->self, &a);
    return a;
}

/* ---- what came ---- */

int cb_packet_io_deliver(cb_packet_io *io, const cb_packet *p) {
    if (io->freed) return 0;
    io->replying = p;
    if (io->o.ops->on_packet) io->o.ops->on_packet(io, p, io->o.user);
    io->replying = NULL;
    return !io->freed;
}

int cb_packet_io_batch_end(cb_packet_io *io) {
    if (!io->freed && io->o.ops->on_batch_end) io->o.ops->on_batch_end(io, io->o.user);
    return !io->freed;
}

int cb_packet_io_writable(cb_packet_io *io) {
    if (!io->freed && io->o.ops->on_writable) io->o.ops->on_writable(io, io->o.user);
    return !io->freed;
}

int cb_packet_io_down(cb_packet_io *io, int rc) {
    if (!io->freed && io->o.ops->on_down) io->o.ops->on_down(io, rc, io->o.user);
    return !io->freed;
}

/* ---- sending ---- */

static int check_remote(const cb_packet_addr *remote) {
    if ((remote->family == 4 || remote->family == 6) && remote->port) return CB_OK;
    return cb_fail(CB_EINVAL, "sending a datagram: where to is no address with a port");
}

static int check_length(size_t len, size_t most) {
    if (len && len <= most) return CB_OK;
    return cb_fail(CB_EINVAL, "sending a datagram of %zu bytes: 1 to %zu are possible", len, most);
}

static int no_room(void) {
    return cb_fail(CB_EAGAIN, "no room for another datagram now");
}

/* An address that says nothing is none. */
static const cb_packet_addr *said(const cb_packet_addr *local) {
    static const uint8_t any[16];
    return local && local->family && memcmp(local->ip, any, sizeof any) != 0 ? local : NULL;
}

uint8_t *cb_packet_io_reserve(cb_packet_io *io, size_t want) {
    if (io->freed || !want || want > CB_PACKET_MAX) return NULL;
    uint8_t *room = io->driver.reserve(io->self, want);
    io->reserved = room ? want : 0;
    return room;
}

int cb_packet_io_commit(cb_packet_io *io, const cb_packet_addr *local, const cb_packet_addr *remote, uint32_t ecn,
                        size_t len) {
    const size_t most = io->reserved;
    io->reserved = 0;
    if (io->freed) return cb_fail(CB_ECLOSED, "sending a datagram: the packet I/O was freed");
    if (!most) return cb_fail(CB_EINVAL, "cb_packet_io_commit: nothing is reserved");
    int rc = check_length(len, most);
    if (rc == CB_OK) rc = check_remote(remote);
    if (rc == CB_OK) {
        rc = io->driver.commit(io->self, said(local), remote, ecn & 3, len);
        cb_defer_later(&io->defer);
    }
    return rc == CB_EAGAIN ? no_room() : rc;
}

int cb_packet_io_send(cb_packet_io *io, const cb_packet_addr *local, const cb_packet_addr *remote, uint32_t ecn,
                      cb_slice data) {
    if (io->freed) return cb_fail(CB_ECLOSED, "sending a datagram: the packet I/O was freed");
    int rc = check_length(data.len, CB_PACKET_MAX);
    if (rc == CB_OK) rc = check_remote(remote);
    if (rc < 0) return rc;
    uint8_t *room = cb_packet_io_reserve(io, data.len);
    if (!room) return no_room();
    memcpy(room, data.base, data.len);
    return cb_packet_io_commit(io, local, remote, ecn, data.len);
}

int cb_packet_io_reply(cb_packet_io *io, const cb_packet *p, size_t len, uint32_t ecn) {
    if (io->freed) return cb_fail(CB_ECLOSED, "sending a datagram: the packet I/O was freed");
    if (!p || io->replying != p)
        return cb_fail(CB_EINVAL, "cb_packet_io_reply: not the datagram of this callback, or it was replied to");
    int rc = check_length(len, p->room < CB_PACKET_MAX ? p->room : CB_PACKET_MAX);
    if (rc == CB_OK) rc = check_remote(&p->remote);
    if (rc < 0) return rc;
    rc = io->driver.reply(io->self, p, len, ecn & 3);
    if (rc == CB_EAGAIN) return no_room();
    io->replying = NULL;
    io->reserved = 0;
    cb_defer_later(&io->defer);
    return rc;
}

void cb_packet_io_flush(cb_packet_io *io) {
    if (io->freed || !io->driver.flush) return;
    cb_defer_cancel(&io->defer);
    io->driver.flush(io->self);
}

int cb_packet_io_stats_get(cb_packet_io *io, cb_packet_io_stats *out) {
    cb_packet_io_stats all = {.size = sizeof all};
    if (!io->freed) read_stats(io, &all);
    all.size = sizeof all;
    return cb_stats_give(out, &all, sizeof all, "cb_packet_io_stats");
}
