#include "lb/quic_lb.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/siphash.h"
#include <string.h>

enum { NONCE_MIN = 4, BODY_MAX = CB_QUIC_LB_CID_MAX - 1 - CB_QUIC_LB_HOST_BYTES, BODY_DEFAULT = 16, ROTATION_MAX = 6 };

/* Server ID and nonce: the block without its first octet. */
static size_t body_bytes(const cb_quic_lb *lb) {
    return (size_t)lb->server_id_bytes + lb->nonce_bytes;
}

size_t cb_quic_lb_cid_bytes(const cb_quic_lb *lb) {
    return 1 + body_bytes(lb) + CB_QUIC_LB_HOST_BYTES;
}

size_t cb_quic_lb_nonce_bytes(const cb_quic_lb *lb) {
    return lb->nonce_bytes;
}

uint16_t cb_quic_lb_mask(const uint8_t key[16], const uint8_t *block, size_t len) {
    return (uint16_t)cb_siphash(key, block, len);
}

static int check(const cb_quic_lb_opts *o, uint32_t *nonce_bytes) {
    if (!o->server_id || o->server_id_bytes < 1 || o->server_id_bytes > CB_QUIC_LB_SERVER_ID_MAX)
        return cb_fail(CB_EINVAL, "cb_quic_lb_opts: server_id has %u bytes; 1 to %d are possible",
                       o->server_id ? (unsigned)o->server_id_bytes : 0U, CB_QUIC_LB_SERVER_ID_MAX);
    if (!o->mask_key) return cb_fail(CB_EINVAL, "cb_quic_lb_opts: mask_key is missing (16 bytes)");
    *nonce_bytes = o->nonce_bytes ? o->nonce_bytes : BODY_DEFAULT - o->server_id_bytes;
    if (*nonce_bytes < NONCE_MIN || *nonce_bytes > BODY_MAX - o->server_id_bytes)
        return cb_fail(CB_EINVAL, "cb_quic_lb_opts: nonce_bytes is %u; %d to %u fit beside a server ID of %u bytes",
                       (unsigned)*nonce_bytes, NONCE_MIN, (unsigned)(BODY_MAX - o->server_id_bytes),
                       (unsigned)o->server_id_bytes);
    if (o->rotation > ROTATION_MAX)
        return cb_fail(CB_EINVAL, "cb_quic_lb_opts: rotation is %u; 0 to %d are possible (7 means unroutable)",
                       (unsigned)o->rotation, ROTATION_MAX);
    if (o->codec == CB_QUIC_LB_AES_ONE || o->codec == CB_QUIC_LB_AES_FOUR)
        return cb_fail(CB_ENOTSUP, "cb_quic_lb_opts: encrypted connection IDs are not supported by libcb %s",
                       cb_version_text());
    if (o->codec != CB_QUIC_LB_PLAIN)
        return cb_fail(CB_EINVAL, "cb_quic_lb_opts: codec %d is not one of enum cb_quic_lb_codec", (int)o->codec);
    return CB_OK;
}

int cb_quic_lb_init(cb_quic_lb *lb, const cb_quic_lb_opts *opts) {
    cb_quic_lb_opts o;
    uint32_t nonce_bytes = 0;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_quic_lb_opts");
    if (rc == CB_OK) rc = check(&o, &nonce_bytes);
    if (rc < 0) return rc;
    *lb = (cb_quic_lb){.server_id_bytes = (uint8_t)o.server_id_bytes,
                       .nonce_bytes = (uint8_t)nonce_bytes,
                       .rotation = (uint8_t)o.rotation};
    memcpy(lb->server_id, o.server_id, o.server_id_bytes);
    memcpy(lb->mask_key, o.mask_key, sizeof lb->mask_key);
    return CB_OK;
}

int cb_quic_lb_new(cb_quic_lb **out, const cb_quic_lb_opts *opts) {
    if (!out) return cb_fail(CB_EINVAL, "cb_quic_lb_new: out is NULL");
    cb_quic_lb made;
    int rc = cb_quic_lb_init(&made, opts);
    if (rc < 0) return rc;
    cb_quic_lb_opts o;
    cb_opts_read(&o, sizeof o, opts, "cb_quic_lb_opts"); /* read before: it holds */
    const cb_alloc *a = o.alloc ? o.alloc : &cb_alloc_libc;
    cb_quic_lb *lb = cb_mem_get(a, sizeof *lb);
    if (lb) {
        *lb = made;
        lb->alloc = *a;
        *out = lb;
    }
    cb_mem_wipe(&made, sizeof made);
    return lb ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a connection-ID codec");
}

void cb_quic_lb_free(cb_quic_lb *lb) {
    if (!lb) return;
    cb_alloc a = lb->alloc;
    cb_mem_wipe(lb, sizeof *lb);
    cb_mem_free(&a, lb);
}

static uint8_t first_octet(const cb_quic_lb *lb) {
    return (uint8_t)(lb->rotation << 5 | (uint8_t)(cb_quic_lb_cid_bytes(lb) - 1));
}

int cb_quic_lb_encode(const cb_quic_lb *lb, uint8_t *cid, size_t cap, const uint8_t *nonce, uint32_t worker,
                      uint32_t generation) {
    if (!lb || !cid || !nonce)
        return cb_fail(CB_EINVAL, "cb_quic_lb_encode: %s is NULL", !lb ? "lb" : !cid ? "cid" : "nonce");
    size_t block = 1 + body_bytes(lb);
    if (cap < cb_quic_lb_cid_bytes(lb) || worker > 255 || generation > 255)
        return cb_fail(CB_EINVAL, "a connection ID of %zu bytes for worker %u, generation %u into %zu bytes",
                       cb_quic_lb_cid_bytes(lb), (unsigned)worker, (unsigned)generation, cap);
    cid[0] = first_octet(lb);
    memcpy(cid + 1, lb->server_id, lb->server_id_bytes);
    memcpy(cid + 1 + lb->server_id_bytes, nonce, lb->nonce_bytes);
    uint16_t mask = cb_quic_lb_mask(lb->mask_key, cid, block);
    cid[block] = (uint8_t)(worker ^ (mask & 255));
    cid[block + 1] = (uint8_t)(generation ^ mask >> 8);
    return (int)cb_quic_lb_cid_bytes(lb);
}

int cb_quic_lb_decode(const cb_quic_lb *lb, cb_slice cid, cb_quic_lb_info *out) {
    size_t block = 1 + body_bytes(lb);
    *out = (cb_quic_lb_info){.rotation = cid.len ? cid.base[0] >> 5 : 7};
    if (cid.len != cb_quic_lb_cid_bytes(lb) || cid.base[0] != first_octet(lb)) return CB_QUIC_LB_FOREIGN;
    uint16_t mask = cb_quic_lb_mask(lb->mask_key, cid.base, block);
    out->server_id_bytes = lb->server_id_bytes;
    memcpy(out->server_id, cid.base + 1, lb->server_id_bytes);
    out->worker = (uint8_t)(cid.base[block] ^ (mask & 255));
    out->generation = (uint8_t)(cid.base[block + 1] ^ mask >> 8);
    return memcmp(out->server_id, lb->server_id, lb->server_id_bytes) ? CB_QUIC_LB_OTHER : CB_QUIC_LB_OURS;
}
