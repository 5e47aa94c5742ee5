/* The Capsule Protocol (RFC 9297, 3): type, length, value, one after another on a stream of bytes. A core: no I/O.
 *
 * The reader takes DATAGRAM capsules out of a stream and passes everything else on as it came, so that HTTP datagrams
 * look the same over HTTP/1.1 and HTTP/2 as QUIC DATAGRAM frames do over HTTP/3. */
#ifndef CB_TUNNEL_CAPSULE_H
#define CB_TUNNEL_CAPSULE_H

#include "base/buf.h"
#include <stdbool.h>

enum {
    CB_CAPSULE_DATAGRAM = 0x00,
    CB_CAPSULE_HEAD_MAX = 16, /* type and length */
    CB_DATAGRAM_MAX = 65535   /* payload; longer ones are skipped */
};

/* RFC 9000, 16: variable-length integers. */
#define CB_VARINT_MAX ((uint64_t)0x3fffffffffffffff)
size_t cb_varint_len(uint64_t v);                 /* 1, 2, 4 or 8 */
size_t cb_varint_put(uint8_t out[8], uint64_t v); /* bytes written; v <= CB_VARINT_MAX */
size_t cb_varint_get(cb_slice in, uint64_t *v);   /* bytes read; 0: more are needed */

/* The head of a capsule, to be followed by `length` bytes of value. Returns its size. */
size_t cb_capsule_head(uint8_t out[CB_CAPSULE_HEAD_MAX], uint64_t type, uint64_t length);

typedef struct cb_capsule_ops {
    /* A whole DATAGRAM capsule's payload. < 0 stops reading with that result. */
    int (*datagram)(void *user, cb_slice payload);
    /* Bytes of other capsules, heads included, in order and in pieces. NULL: they are skipped. */
    int (*other)(void *user, cb_slice bytes);
} cb_capsule_ops;

typedef struct cb_capsules {
    const cb_capsule_ops *ops;
    void *user;
    cb_buf value; /* a datagram that came in pieces */
    uint8_t head[CB_CAPSULE_HEAD_MAX];
    uint8_t head_len;
    uint8_t state;
    uint64_t left;    /* bytes of the value that are to come */
    uint64_t skipped; /* datagrams that were too long */
} cb_capsules;

void cb_capsules_init(cb_capsules *c, const cb_alloc *alloc, const cb_capsule_ops *ops, void *user);
void cb_capsules_free(cb_capsules *c);
/* Reads all of `in`. CB_OK, CB_ENOMEM, or what an op returned (then the reader must not be used again). */
int cb_capsules_feed(cb_capsules *c, cb_slice in);
/* The stream ended: CB_EPROTO in the middle of a capsule (RFC 9297, 3.3). */
int cb_capsules_end(const cb_capsules *c);

#endif
