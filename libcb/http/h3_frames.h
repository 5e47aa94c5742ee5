/* The frames of a request stream, counted before nghttp3 gets them: those that carry nothing and cost their sender next
 * to nothing (RFC 9114, 10.5). nghttp3 1.8 skips them without a word. */
#ifndef CB_HTTP_H3_FRAMES_H
#define CB_HTTP_H3_FRAMES_H

#include "http/h3_control.h"

typedef struct cb_h3_frames {
    cb_h3_varint v;
    uint64_t type, left; /* of the frame; of its payload */
    bool in_length, in_payload;
} cb_h3_frames; /* begins zeroed */

/* How many began in these bytes: empty DATA frames, and frames of unknown types, long ones once more a KiB. */
uint64_t cb_h3_frames_idle(cb_h3_frames *f, cb_slice data);

#endif
