/* Frames and chunks between the rings of an AF_XDP socket, the free list and the user. No system calls. */
#include "base/error.h"
#include "packet/xsk_int.h"

/* A quarter of the chunks is not given away for receiving: there is always something to send from. */
void xsk_refill(cb_xsk *x) {
    const uint32_t spare = x->chunks.total / 4;
    uint32_t n = x->chunks.free > spare ? x->chunks.free - spare : 0;
    const uint32_t room = n ? xsk_ring_room(&x->fill, n) : 0;
    if (n > room) n = room;
    if (!n) return;
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t chunk = cb_chunks_take(&x->chunks, CHUNK_KERNEL);
        *xsk_ring_addr(&x->fill, x->fill.mine++) = (uint64_t)chunk << x->chunk_shift;
    }
    xsk_ring_publish(&x->fill);
}

void xsk_reap(cb_xsk *x) {
    const uint32_t n = xsk_ring_waiting(&x->completion);
    if (!n) return;
    for (uint32_t i = 0; i < n; i++) {
        const uint64_t chunk = *xsk_ring_addr(&x->completion, x->completion.mine++) >> x->chunk_shift;
        if (chunk < x->chunks.total) cb_chunks_pass(&x->chunks, (uint32_t)chunk, CHUNK_KERNEL, CHUNK_FREE);
    }
    xsk_ring_consumed(&x->completion);
}

/* A descriptor of the kernel as a frame; what it says is held against the memory that there is. */
static bool read_desc(cb_xsk *x, const struct xdp_desc *d, cb_xsk_frame *out) {
    const uint64_t chunk = d->addr >> x->chunk_shift;
    if (chunk >= x->chunks.total) return false;
    const uint64_t end = (chunk + 1) << x->chunk_shift;
    if (d->len > end - d->addr) return false;
    if (!cb_chunks_pass(&x->chunks, (uint32_t)chunk, CHUNK_KERNEL, CHUNK_USER)) return false;
    *out = (cb_xsk_frame){.data = (uint8_t *)x->memory.base + d->addr,
                          .len = d->len,
                          .room = (uint32_t)(end - d->addr),
                          .chunk = (uint32_t)chunk};
    return true;
}

uint32_t xsk_receive(cb_xsk *x, cb_xsk_frame frames[CB_XSK_BATCH]) {
    uint32_t n = xsk_ring_waiting(&x->rx), got = 0;
    if (n > CB_XSK_BATCH) n = CB_XSK_BATCH;
    for (uint32_t i = 0; i < n; i++) {
        if (!read_desc(x, xsk_ring_desc(&x->rx, x->rx.mine++), &frames[got])) continue;
        x->stats.rx_bytes += frames[got].len;
        got++;
    }
    if (n) xsk_ring_consumed(&x->rx);
    x->stats.rx_frames += got;
    return got;
}

int xsk_put(cb_xsk *x, const cb_xsk_frame *frame) {
    const uint64_t at = (uint64_t)(frame->data - (uint8_t *)x->memory.base);
    if (frame->len < XSK_ETH || frame->len > x->interface.mtu + XSK_ETH + XSK_VLAN)
        return cb_fail(CB_EINVAL, "AF_XDP: a frame of %u bytes; %s takes %d to %u", (unsigned)frame->len,
                       x->interface.name, XSK_ETH, (unsigned)(x->interface.mtu + XSK_ETH + XSK_VLAN));
    if (at >> x->chunk_shift != frame->chunk || (at + frame->len - 1) >> x->chunk_shift != frame->chunk)
        return cb_fail(CB_EINVAL, "AF_XDP: a frame is not inside its chunk");
    if (!cb_chunks_pass(&x->chunks, frame->chunk, CHUNK_USER, CHUNK_KERNEL))
        return cb_fail(CB_EINVAL, "AF_XDP: chunk %u is not the caller's", (unsigned)frame->chunk);
    *xsk_ring_desc(&x->tx, x->tx.mine++) = (struct xdp_desc){.addr = at, .len = frame->len};
    x->stats.tx_frames++;
    x->stats.tx_bytes += frame->len;
    return CB_OK;
}
