/* What HTTP/2 and HTTP/3 have in common when they send heads. */
#ifndef CB_HTTP_EXTRAS_H
#define CB_HTTP_EXTRAS_H

#include "http/hconn.h"

/* Up to three fields of ours that a final response lacks: date, server, alt-svc. Their text is the owner's. */
static inline size_t cb_head_extras(const cb_hconn_env *env, const cb_head *head, cb_field out[3]) {
    const cb_field ours[3] = {{cb_slice_str("date"), {(const uint8_t *)env->date, 29}},
                              {cb_slice_str("server"), cb_slice_str(env->server_name)},
                              {cb_slice_str("alt-svc"), cb_slice_str(env->alt_svc)}};
    size_t n = 0;
    if (head->status < 200) return 0;
    for (size_t i = 0; i < 3; i++) {
        bool have = !ours[i].value.base;
        for (size_t k = 0; k < head->n && !have; k++)
            have = head->fields[k].name.len == ours[i].name.len &&
                   cb_slice_ieq(head->fields[k].name, (const char *)ours[i].name.base);
        if (!have) out[n++] = ours[i];
    }
    return n;
}

#endif
