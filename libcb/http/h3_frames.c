#include "http/h3_frames.h"

enum { DATA = 0, HEADERS = 1, KIB = 1024 };

static uint64_t begin_payload(cb_h3_frames *f) {
    f->left = f->v.value;
    f->in_length = false;
    f->in_payload = f->left > 0;
    if (f->type == HEADERS) return 0;
    return f->type == DATA ? f->left == 0 : 1 + f->left / KIB;
}

uint64_t cb_h3_frames_idle(cb_h3_frames *f, cb_slice data) {
    uint64_t idle = 0;
    while (data.len) {
        if (f->in_payload) {
            const size_t n = data.len < f->left ? data.len : (size_t)f->left;
            data.base += n;
            data.len -= n;
            f->left -= n;
            f->in_payload = f->left > 0;
            continue;
        }
        data.len--;
        if (!cb_h3_varint_add(&f->v, *data.base++)) continue;
        if (f->in_length) {
            idle += begin_payload(f);
        } else {
            f->type = f->v.value;
            f->in_length = true;
        }
    }
    return idle;
}
