/* A stream of capsules: the same in one piece and byte by byte. */
#include "base/error.h"
#include "tunnel/capsule.h"
#include <stdlib.h>
#include <string.h>

typedef struct sum {
    uint64_t datagrams, bytes, others, hash;
} sum;

static int datagram(void *user, cb_slice payload) {
    sum *s = user;
    if (payload.len > CB_DATAGRAM_MAX) abort();
    s->datagrams++;
    s->bytes += payload.len;
    for (size_t i = 0; i < payload.len; i++)
        s->hash = s->hash * 31 + payload.base[i];
    return CB_OK;
}

static int other(void *user, cb_slice bytes) {
    sum *s = user;
    s->others += bytes.len;
    for (size_t i = 0; i < bytes.len; i++)
        s->hash = s->hash * 37 + bytes.base[i];
    return CB_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const cb_capsule_ops ops = {datagram, other};
    sum whole = {0}, pieces = {0};
    cb_capsules a, b;
    cb_capsules_init(&a, NULL, &ops, &whole);
    cb_capsules_init(&b, NULL, &ops, &pieces);
    if (cb_capsules_feed(&a, (cb_slice){data, size}) < 0) abort();
    for (size_t i = 0; i < size; i++)
        if (cb_capsules_feed(&b, (cb_slice){data + i, 1}) < 0) abort();
    if (memcmp(&whole, &pieces, sizeof whole) != 0 || cb_capsules_end(&a) != cb_capsules_end(&b)) abort();
    if (a.skipped != b.skipped) abort();
    cb_capsules_free(&a);
    cb_capsules_free(&b);
    return 0;
}
