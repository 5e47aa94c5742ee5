/* The peer's control stream, read along before nghttp3 gets it: which one it is, where it may be cut, and whether the
 * frames that carry one number are right.
 *
 * nghttp3 1.8 ends the process (an assertion) when a delivery ends directly behind the element ID of a PRIORITY_UPDATE
 * frame that goes on (RFC 9218, 7.2): any client could do that. So the byte before such a cut waits for the next one.
 * And it takes GOAWAY, MAX_PUSH_ID and CANCEL_PUSH with more in them than their number (RFC 9114, 7.1). */
#ifndef CB_HTTP_H3_CONTROL_H
#define CB_HTTP_H3_CONTROL_H

#include <cb/base.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct cb_h3_varint {
    uint64_t value;
    uint8_t need; /* bytes still to come */
    bool begun;
} cb_h3_varint;

/* One more byte of a number (RFC 9000, 16), which begins zeroed; true: it is whole. */
bool cb_h3_varint_add(cb_h3_varint *v, uint8_t byte);

typedef struct cb_h3_control {
    int64_t id; /* -1: not found yet */
    uint64_t seen;
    struct {
        int64_t id;
        cb_h3_varint type;
    } pending[4]; /* streams whose type has not come whole */
    unsigned n_pending;
    cb_h3_varint v;
    uint64_t type, left; /* of the frame; of its payload */
    uint64_t max_push;   /* the peer's MAX_PUSH_ID */
    uint16_t error;      /* HTTP/3's code for what came; 0 = none */
    uint8_t step;
    uint8_t held;
    bool holds;
} cb_h3_control;

void cb_h3_control_init(cb_h3_control *c);
/* Bytes of a unidirectional stream of the peer while c->id < 0; *data moves past the stream's type. CB_ELIMIT: too many
 * streams without a type. */
int cb_h3_control_find(cb_h3_control *c, int64_t id, cb_slice *data);
/* Bytes of frames. True: they end where nghttp3 must not see an end. */
bool cb_h3_control_feed(cb_h3_control *c, cb_slice data);

#endif
