/* An AF_XDP socket on a loop: its life, its callbacks, and when the kernel is woken. Part of libcb-xdp. */
#include "base/error.h"
#include "base/opts.h"
#include "packet/program.h"
#include "packet/xsk_int.h"
#include <errno.h>
#include <string.h>

enum { READS_A_TURN = 4, KICKS = 64, RETRY_MS = 1, PULSE_MS = 500, FRAMES_MIN = 64, FRAMES_MAX = 1 << 20 };

static void flush(cb_xsk *x);

/* ---- leaving ---- */

/* What may still be looked at inside a callback: all but the descriptor. */
static void shut(cb_xsk *x) {
    cb_watch_free(x->watch);
    cb_timer_free(x->retry);
    cb_timer_free(x->pulse);
    x->watch = NULL;
    x->retry = x->pulse = NULL;
    if (x->joined) xsk_program_leave(x->program, x->o.queue);
    x->joined = false;
    xsk_kernel_close(x);
}

static void destroy(cb_xsk *x) {
    shut(x);
    xsk_kernel_unmap(x);
    cb_chunks_clear(&x->chunks, &cb_alloc_libc);
    cb_xsk_program_unref(x->program);
    cb_mem_free(&cb_alloc_libc, x);
}

void cb_xsk_free(cb_xsk *x) {
    if (!x || x->freed) return;
    x->freed = true;
    shut(x);
    if (!x->depth) destroy(x); /* else who called back does it */
}

/* Back from a callback. False: x is gone. */
static bool survived(cb_xsk *x) {
    x->depth--;
    if (!x->freed) return true;
    if (!x->depth) destroy(x);
    return false;
}

/* ---- turns ---- */

static void on_retry(cb_loop *loop, void *user) {
    cb_xsk *x = user;
    (void)loop;
    cb_timer_free(x->retry);
    x->retry = NULL;
    x->depth++;
    x->unflushed = true;
    flush(x);
    xsk_reap(x);
    xsk_refill(x);
    if (x->starved && !x->down && x->chunks.free && xsk_ring_room(&x->tx, 1)) {
        x->starved = false;
        if (x->o.ops->on_writable) x->o.ops->on_writable(x, x->o.user);
        if (!x->freed) flush(x);
    }
    if (!x->freed && x->starved && !x->retry) cb_timer_start(&x->retry, x->loop, RETRY_MS, 0, on_retry, x);
    survived(x);
}

static void look_again(cb_xsk *x) {
    if (!x->retry && !x->down) cb_timer_start(&x->retry, x->loop, RETRY_MS, 0, on_retry, x);
}

static void starve(cb_xsk *x) {
    x->starved = true;
    look_again(x);
}

/* In copy mode one call sends a bounded number of frames. */
static void flush(cb_xsk *x) {
    if (!x->unflushed || x->down || x->fd < 0) return;
    x->unflushed = false;
    uint32_t left = xsk_ring_pending(&x->tx);
    for (int i = 0; i < KICKS && left && xsk_ring_needs_wakeup(&x->tx); i++) {
        const int err = xsk_kernel_kick_tx(x);
        const uint32_t before = left;
        left = xsk_ring_pending(&x->tx);
        if (left == before && err != EINTR) break; /* the device is full, or down */
    }
    xsk_reap(x);
    if (left) look_again(x);
}

static void go_down(cb_xsk *x, int err) {
    x->down = true;
    xsk_kernel_stats(x, &x->stats); /* the last that can be had */
    shut(x);
    const int rc =
        cb_fail_errno(err, "AF_XDP on %s, queue %u: the interface is gone", x->interface.name, (unsigned)x->o.queue);
    if (x->o.ops->on_down) x->o.ops->on_down(x, rc == CB_ESYS ? CB_ECLOSED : rc, x->o.user);
}

/* One batch to the user. False: nothing was there, or x was freed. */
static bool deliver(cb_xsk *x) {
    cb_xsk_frame frames[CB_XSK_BATCH];
    const uint32_t n = xsk_receive(x, frames);
    if (!n) return false;
    if (x->o.ops->on_frames) {
        x->o.ops->on_frames(x, frames, n, x->o.user);
    } else {
        for (uint32_t i = 0; i < n; i++)
            cb_chunks_pass(&x->chunks, frames[i].chunk, CHUNK_USER, CHUNK_FREE);
    }
    if (x->freed) return false;
    xsk_refill(x);
    return n == CB_XSK_BATCH;
}

static void on_ready(cb_watch *w, unsigned events, void *user) {
    cb_xsk *x = user;
    const uint64_t before = x->stats.rx_frames;
    (void)w;
    (void)events;
    x->depth++;
    xsk_reap(x);
    for (int i = 0; i < READS_A_TURN && deliver(x);)
        i++;
    if (!x->freed && x->stats.rx_frames != before && x->o.ops->on_batch_end) x->o.ops->on_batch_end(x, x->o.user);
    if (!x->freed && !x->down) {
        flush(x);
        xsk_refill(x);
        if (xsk_ring_needs_wakeup(&x->fill)) xsk_kernel_kick_fill(x);
    }
    survived(x);
}

/* Polling does not tell that the interface has gone. */
static void on_pulse(cb_loop *loop, void *user) {
    cb_xsk *x = user;
    (void)loop;
    const int err = xsk_kernel_error(x);
    if (!err) return;
    x->depth++;
    go_down(x, err);
    survived(x);
}

/* ---- opening ---- */

static int check(cb_xsk_opts *o) {
    if (!o->interface == !o->program) return cb_fail(CB_EINVAL, "cb_xsk_opts: needs either an interface or a program");
    if (!o->ops) return cb_fail(CB_EINVAL, "cb_xsk_opts: ops is missing");
    int rc = cb_ops_check(o->ops, sizeof *o->ops, "cb_xsk_ops");
    if (rc < 0) return rc;
    if (!o->frames) o->frames = XSK_FRAMES_DEFAULT;
    if (o->frames < FRAMES_MIN || o->frames > FRAMES_MAX || o->frames & (o->frames - 1))
        return cb_fail(CB_EINVAL, "cb_xsk_opts: frames is %u; a power of two from %d to %d is possible",
                       (unsigned)o->frames, FRAMES_MIN, FRAMES_MAX);
    if (o->frame_bytes && o->frame_bytes != 2048 && o->frame_bytes != 4096)
        return cb_fail(CB_EINVAL, "cb_xsk_opts: frame_bytes is %u; 2048 and 4096 are possible",
                       (unsigned)o->frame_bytes);
    if (o->queue >= CB_XSK_QUEUES)
        return cb_fail(CB_EINVAL, "cb_xsk_opts: queue is %u; 0 to %d are possible", (unsigned)o->queue,
                       CB_XSK_QUEUES - 1);
    if (o->mode > CB_XSK_MODE_ZERO_COPY)
        return cb_fail(CB_EINVAL, "cb_xsk_opts: mode is %u; 0 to 2 are possible", o->mode);
    return CB_OK;
}

/* A frame and what the kernel keeps free before it must fit a chunk. */
static int choose_chunk(cb_xsk *x) {
    const uint32_t need = x->interface.mtu + XSK_ETH + XSK_VLAN + XSK_KERNEL_HEADROOM;
    x->chunk_bytes = x->o.frame_bytes ? x->o.frame_bytes : need <= 2048 ? 2048 : 4096;
    if (need > x->chunk_bytes)
        return cb_fail(CB_ENOTSUP, "AF_XDP on %s: an MTU of %u needs chunks of %u bytes; %u is possible",
                       x->interface.name, (unsigned)x->interface.mtu, (unsigned)need, (unsigned)x->chunk_bytes);
    for (x->chunk_shift = 0; 1U << x->chunk_shift < x->chunk_bytes;)
        x->chunk_shift++;
    return CB_OK;
}

static int find_program(cb_xsk *x) {
    if (x->o.program) {
        x->program = cb_xsk_program_ref(x->o.program);
        return CB_OK;
    }
    return cb_xsk_program_new(&x->program,
                              CB_OPTS(cb_xsk_program_opts, .interface = x->o.interface, .attach = x->o.attach));
}

static int start(cb_xsk *x) {
    int rc = find_program(x);
    if (rc == CB_OK) rc = xsk_interface_read(&x->interface, xsk_program_interface(x->program)->name);
    if (rc == CB_OK) rc = choose_chunk(x);
    if (rc == CB_OK) rc = cb_chunks_init(&x->chunks, &cb_alloc_libc, x->o.frames);
    if (rc == CB_OK) rc = xsk_kernel_open(x);
    if (rc == CB_OK) rc = cb_watch_new(&x->watch, x->loop, x->fd, CB_READABLE, on_ready, x);
    if (rc == CB_OK) rc = cb_timer_start(&x->pulse, x->loop, PULSE_MS, PULSE_MS, on_pulse, x);
    if (rc == CB_OK) rc = xsk_program_join(x->program, x->o.queue, x->fd);
    x->joined = rc == CB_OK;
    return rc;
}

int cb_xsk_open(cb_xsk **out, cb_loop *loop, const cb_xsk_opts *opts) {
    cb_xsk_opts o;
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_xsk_open: %s is NULL", !out ? "out" : "loop");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_xsk_opts");
    if (rc == CB_OK) rc = check(&o);
    if (rc < 0) return rc;
    cb_xsk *x = cb_mem_new(&cb_alloc_libc, sizeof *x);
    if (!x) return cb_fail(CB_ENOMEM, "no memory for an AF_XDP socket");
    x->o = o;
    x->loop = loop;
    x->fd = -1;
    rc = start(x);
    if (rc < 0) {
        destroy(x);
        return rc;
    }
    *out = x;
    return CB_OK;
}

/* ---- what the user calls ---- */

const uint8_t *cb_xsk_mac(const cb_xsk *x) {
    return x->interface.mac;
}

uint32_t cb_xsk_mtu(const cb_xsk *x) {
    return x->interface.mtu;
}

uint32_t cb_xsk_interface(const cb_xsk *x) {
    return x->interface.index;
}

cb_xsk_program *cb_xsk_program_of(const cb_xsk *x) {
    return x->program;
}

int cb_xsk_take(cb_xsk *x, cb_xsk_frame *out) {
    if (!x->chunks.free && !x->down) xsk_reap(x);
    const uint32_t chunk = cb_chunks_take(&x->chunks, CHUNK_USER);
    if (chunk == UINT32_MAX) {
        starve(x);
        return cb_fail(CB_EAGAIN, "AF_XDP: no chunk is free");
    }
    *out = (cb_xsk_frame){
        .data = (uint8_t *)x->memory.base + ((size_t)chunk << x->chunk_shift), .room = x->chunk_bytes, .chunk = chunk};
    return CB_OK;
}

int cb_xsk_release(cb_xsk *x, const cb_xsk_frame *frame) {
    if (cb_chunks_pass(&x->chunks, frame->chunk, CHUNK_USER, CHUNK_FREE)) return CB_OK;
    return cb_fail(CB_EINVAL, "AF_XDP: chunk %u is not the caller's", (unsigned)frame->chunk);
}

int cb_xsk_send(cb_xsk *x, const cb_xsk_frame *frames, size_t n) {
    if (x->down) return cb_fail(CB_ECLOSED, "AF_XDP on %s: the interface is gone", x->interface.name);
    const uint32_t room = xsk_ring_room(&x->tx, n < x->tx.size ? (uint32_t)n : x->tx.size);
    size_t taken = 0;
    int rc = CB_OK;
    while (taken < n && taken < room && rc == CB_OK) {
        rc = xsk_put(x, &frames[taken]);
        taken += rc == CB_OK;
    }
    if (taken) {
        xsk_ring_publish(&x->tx);
        x->unflushed = true;
    }
    if (rc < 0 && !taken) return rc;
    if (rc == CB_OK && taken < n) starve(x);
    return (int)taken;
}

void cb_xsk_flush(cb_xsk *x) {
    flush(x);
}

int cb_xsk_stats_get(const cb_xsk *x, cb_xsk_stats *out) {
    cb_xsk_stats all = x->stats;
    if (!x->down) {
        int rc = xsk_kernel_stats(x, &all);
        if (rc < 0) return rc;
    }
    all.frames = x->chunks.total;
    all.frames_free = x->chunks.free;
    all.frames_out = x->chunks.user;
    all.zero_copy = x->zero_copy;
    all.native = xsk_program_native(x->program);
    all.up = !x->down;
    return cb_stats_give(out, &all, sizeof all, "cb_xsk_stats");
}
