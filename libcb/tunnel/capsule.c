#include "tunnel/capsule.h"
#include "base/error.h"
#include <string.h>

enum { IN_HEAD, IN_DATAGRAM, IN_OTHER, IN_SKIP };

size_t cb_varint_len(uint64_t v) {
    if (v < 0x40) return 1;
    if (v < 0x4000) return 2;
    return v < 0x40000000 ? 4 : 8;
}

size_t cb_varint_put(uint8_t out[8], uint64_t v) {
    static const uint8_t prefix[9] = {[1] = 0x00, [2] = 0x40, [4] = 0x80, [8] = 0xc0};
    size_t n = cb_varint_len(v);
    for (size_t i = n; i-- > 0; v >>= 8)
        out[i] = (uint8_t)v;
    out[0] |= prefix[n];
    return n;
}

size_t cb_varint_get(cb_slice in, uint64_t *v) {
    if (!in.len) return 0;
    size_t n = (size_t)1 << (in.base[0] >> 6);
    if (in.len < n) return 0;
    uint64_t r = in.base[0] & 0x3f;
    for (size_t i = 1; i < n; i++)
        r = r << 8 | in.base[i];
    *v = r;
    return n;
}

size_t cb_capsule_head(uint8_t out[CB_CAPSULE_HEAD_MAX], uint64_t type, uint64_t length) {
    size_t n = cb_varint_put(out, type);
    return n + cb_varint_put(out + n, length);
}

void cb_capsules_init(cb_capsules *c, const cb_alloc *alloc, const cb_capsule_ops *ops, void *user) {
    *c = (cb_capsules){.ops = ops, .user = user};
    cb_buf_init(&c->value, alloc, CB_DATAGRAM_MAX);
}

void cb_capsules_free(cb_capsules *c) {
    cb_buf_free(&c->value);
}

static int give_datagram(cb_capsules *c, cb_slice payload) {
    c->state = IN_HEAD;
    return c->ops->datagram ? c->ops->datagram(c->user, payload) : CB_OK;
}

static int give_other(cb_capsules *c, cb_slice bytes) {
    return c->ops->other && bytes.len ? c->ops->other(c->user, bytes) : CB_OK;
}

/* Takes bytes of the head; when it is complete the state says what its value is. */
static int feed_head(cb_capsules *c, cb_slice *in) {
    while (in->len) {
        uint64_t type, length;
        c->head[c->head_len++] = *in->base;
        in->base++;
        in->len--;
        cb_slice all = {c->head, c->head_len};
        size_t n = cb_varint_get(all, &type);
        size_t m = n ? cb_varint_get((cb_slice){all.base + n, all.len - n}, &length) : 0;
        if (!m) continue;
        c->head_len = 0;
        c->left = length;
        c->state = type != CB_CAPSULE_DATAGRAM ? IN_OTHER : length > CB_DATAGRAM_MAX ? IN_SKIP : IN_DATAGRAM;
        if (c->state == IN_SKIP) c->skipped++;
        if (c->state == IN_DATAGRAM && !length) return give_datagram(c, (cb_slice){c->head, 0});
        if (c->state != IN_OTHER) return CB_OK;
        if (!length) c->state = IN_HEAD;
        return give_other(c, all);
    }
    return CB_OK;
}

static int feed_datagram(cb_capsules *c, cb_slice part) {
    c->left -= part.len;
    if (!c->value.len && !c->left) return give_datagram(c, part);
    int rc = cb_buf_add(&c->value, part.base, part.len);
    if (rc < 0 || c->left) return rc;
    cb_slice whole = cb_buf_slice(&c->value);
    c->value.len = 0;
    return give_datagram(c, whole);
}

int cb_capsules_feed(cb_capsules *c, cb_slice in) {
    int rc = CB_OK;
    while (rc == CB_OK && in.len) {
        if (c->state == IN_HEAD) {
            rc = feed_head(c, &in);
            continue;
        }
        cb_slice part = {in.base, in.len < c->left ? in.len : (size_t)c->left};
        in.base += part.len;
        in.len -= part.len;
        if (c->state == IN_DATAGRAM) {
            rc = feed_datagram(c, part);
            continue;
        }
        c->left -= part.len;
        bool other = c->state == IN_OTHER;
        if (!c->left) c->state = IN_HEAD;
        if (other) rc = give_other(c, part);
    }
    return rc < 0 ? rc : CB_OK;
}

int cb_capsules_end(const cb_capsules *c) {
    if (c->state == IN_HEAD && !c->head_len) return CB_OK;
    return cb_fail(CB_EPROTO, "the stream ended inside of a capsule, %llu bytes before its end",
                   (unsigned long long)c->left);
}
