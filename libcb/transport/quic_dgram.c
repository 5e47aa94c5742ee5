#include "transport/quic_dgram.h"
#include "base/error.h"
#include "base/mem.h"
#include <string.h>

/* An entry is a 16-bit length and its bytes, never split: the mark WRAP sends the reader back to the start. */
enum { HEAD = 2, WRAP = 0xffff, ONE_MAX = 65000 };

static void put_len(uint8_t *p, size_t len) {
    p[0] = (uint8_t)(len >> 8);
    p[1] = (uint8_t)len;
}

static size_t get_len(const uint8_t *p) {
    return (size_t)p[0] << 8 | p[1];
}

/* Where an entry of `need` bytes goes; UINT32_MAX: nowhere. One byte stays free so that equal ends mean empty. */
static uint32_t place(const cb_quic_dgrams *q, uint32_t need) {
    if (q->tail < q->head) return q->head - q->tail > need ? q->tail : UINT32_MAX;
    if (CB_QUIC_DGRAMS_MAX - q->tail > need) return q->tail;
    return q->head > need ? 0 : UINT32_MAX;
}

int cb_quic_dgrams_add(cb_quic_dgrams *q, const cb_alloc *alloc, const cb_slice *v, size_t n) {
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        len += v[i].len;
        if (len > ONE_MAX) return cb_fail(CB_ELIMIT, "a datagram of more than %d bytes", ONE_MAX);
    }
    if (!q->ring && !(q->ring = cb_mem_get(alloc, CB_QUIC_DGRAMS_MAX))) {
        return cb_fail(CB_ENOMEM, "no memory for datagrams");
    }
    if (q->count == 0) q->head = q->tail = 0;
    uint32_t at = place(q, (uint32_t)len + HEAD);
    if (at == UINT32_MAX) return CB_EAGAIN;
    if (at != q->tail && CB_QUIC_DGRAMS_MAX - q->tail >= HEAD) put_len(q->ring + q->tail, WRAP);
    uint8_t *p = q->ring + at;
    put_len(p, len);
    p += HEAD;
    for (size_t i = 0; i < n; i++) {
        if (v[i].len) memcpy(p, v[i].base, v[i].len);
        p += v[i].len;
    }
    q->tail = (uint32_t)(p - q->ring);
    q->count++;
    return CB_OK;
}

static uint32_t front(const cb_quic_dgrams *q) {
    if (CB_QUIC_DGRAMS_MAX - q->head < HEAD || get_len(q->ring + q->head) == WRAP) return 0;
    return q->head;
}

cb_slice cb_quic_dgrams_first(const cb_quic_dgrams *q) {
    const uint8_t *p = q->ring + front(q);
    return (cb_slice){p + HEAD, get_len(p)};
}

void cb_quic_dgrams_pop(cb_quic_dgrams *q) {
    uint32_t at = front(q);
    q->head = at + HEAD + (uint32_t)get_len(q->ring + at);
    q->count--;
}

void cb_quic_dgrams_free(cb_quic_dgrams *q, const cb_alloc *alloc) {
    cb_mem_free(alloc, q->ring);
    *q = (cb_quic_dgrams){0};
}
