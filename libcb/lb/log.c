#include "lb/log.h"
#include "base/error.h"
#include "base/siphash.h"

int cb_lb_record_read(cb_lb_record *r, cb_slice bytes, const uint8_t *key) {
    const uint8_t *p = bytes.base;
    if (bytes.len < CB_LB_HEAD + CB_LB_CHAIN) return cb_fail(CB_EPROTO, "a record of %zu bytes is cut", bytes.len);
    const size_t signed_len = bytes.len - CB_LB_CHAIN;
    *r = (cb_lb_record){.kind = p[0],
                        .epoch = (uint32_t)cb_lb_get(p + 4, 4),
                        .version = cb_lb_get(p + 8, 8),
                        .before = cb_lb_get(p + 16, 8),
                        .chain = cb_lb_get(p + signed_len, 8),
                        .body = {p + CB_LB_HEAD, signed_len - CB_LB_HEAD}};
    if (cb_siphash(key, p, signed_len) != r->chain)
        return cb_fail(CB_EPROTO, "record %llu is damaged, or of a table with another key",
                       (unsigned long long)r->version);
    if (p[1] != CB_LB_FORMAT || p[2] || p[3])
        return cb_fail(CB_EPROTO, "record %llu has format %d, which libcb %s does not know",
                       (unsigned long long)r->version, p[1], cb_version_text());
    return CB_OK;
}

size_t cb_lb_record_write(uint8_t *bytes, cb_lb_record *r, size_t body, const uint8_t *key) {
    cb_lb_put(bytes, (uint64_t)r->kind, 1);
    cb_lb_put(bytes + 1, CB_LB_FORMAT, 3);
    cb_lb_put(bytes + 4, r->epoch, 4);
    cb_lb_put(bytes + 8, r->version, 8);
    cb_lb_put(bytes + 16, r->before, 8);
    r->body = (cb_slice){bytes + CB_LB_HEAD, body};
    r->chain = cb_siphash(key, bytes, CB_LB_HEAD + body);
    cb_lb_put(bytes + CB_LB_HEAD + body, r->chain, CB_LB_CHAIN);
    return CB_LB_HEAD + body + CB_LB_CHAIN;
}
