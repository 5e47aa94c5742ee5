#include "lb/quic_lb.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "base/siphash.h"
#include <string.h>

enum { NONCE_MIN = 4, BODY_DEFAULT = 16, ROTATION_MAX = CB_QUIC_LB_CONFIGS - 1, BLOCK = AES_BLOCK_SIZE };

size_t cb_quic_lb_cid_bytes(const cb_quic_lb *lb) {
    return lb->cid_bytes;
}

size_t cb_quic_lb_nonce_bytes(const cb_quic_lb *lb) {
    return lb->nonce_bytes;
}

uint16_t cb_quic_lb_mask(const uint8_t key[16], const uint8_t *block, size_t len) {
    return (uint16_t)cb_siphash(key, block, len);
}

/* --- options --- */

static int check_codec(const cb_quic_lb_opts *o, uint32_t body) {
    if (o->codec != CB_QUIC_LB_PLAIN && o->codec != CB_QUIC_LB_AES_ONE && o->codec != CB_QUIC_LB_AES_FOUR)
        return cb_fail(CB_EINVAL, "cb_quic_lb_opts: codec %d is not one of enum cb_quic_lb_codec", (int)o->codec);
    if (!o->key != (o->codec == CB_QUIC_LB_PLAIN))
        return cb_fail(CB_EINVAL, o->key ? "cb_quic_lb_opts: key is given, but codec is CB_QUIC_LB_PLAIN"
                                         : "cb_quic_lb_opts: key is missing (16 bytes)");
    if (o->codec == CB_QUIC_LB_AES_ONE && body != BLOCK)
        return cb_fail(CB_EINVAL, "cb_quic_lb_opts: nonce_bytes: one pass needs 16 bytes with the server ID, not %u",
                       (unsigned)body);
    if (o->codec == CB_QUIC_LB_AES_FOUR && body == BLOCK)
        return cb_fail(CB_EINVAL, "cb_quic_lb_opts: nonce_bytes: with 16 bytes in all the codec is CB_QUIC_LB_AES_ONE");
    return CB_OK;
}

static int check(const cb_quic_lb_opts *o, uint32_t *nonce_bytes) {
    const uint32_t body_max = CB_QUIC_LB_BODY_MAX - (o->no_host_bytes ? 0 : CB_QUIC_LB_HOST_BYTES);
    if (o->server_id_bytes < 1 || o->server_id_bytes > body_max - NONCE_MIN)
        return cb_fail(CB_EINVAL, "cb_quic_lb_opts: server_id has %u bytes; 1 to %u are possible",
                       (unsigned)o->server_id_bytes, (unsigned)body_max - NONCE_MIN);
    if (o->server_id && !o->mask_key && !o->no_host_bytes)
        return cb_fail(CB_EINVAL, "cb_quic_lb_opts: mask_key is missing (16 bytes)");
    *nonce_bytes = o->nonce_bytes ? o->nonce_bytes : BODY_DEFAULT - o->server_id_bytes;
    if (*nonce_bytes < NONCE_MIN || *nonce_bytes > body_max - o->server_id_bytes)
        return cb_fail(CB_EINVAL, "cb_quic_lb_opts: nonce_bytes is %u; %d to %u fit beside a server ID of %u bytes",
                       (unsigned)*nonce_bytes, NONCE_MIN, (unsigned)(body_max - o->server_id_bytes),
                       (unsigned)o->server_id_bytes);
    if (o->rotation > ROTATION_MAX)
        return cb_fail(CB_EINVAL, "cb_quic_lb_opts: rotation is %u; 0 to %d are possible (7 means unroutable)",
                       (unsigned)o->rotation, ROTATION_MAX);
    return check_codec(o, o->server_id_bytes + *nonce_bytes);
}

int cb_quic_lb_init(cb_quic_lb *lb, const cb_quic_lb_opts *opts) {
    cb_quic_lb_opts o;
    uint32_t nonce_bytes = 0;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_quic_lb_opts");
    if (rc == CB_OK) rc = check(&o, &nonce_bytes);
    if (rc < 0) return rc;
    memset(lb, 0, sizeof *lb);
    lb->server_id_bytes = (uint8_t)o.server_id_bytes;
    lb->nonce_bytes = (uint8_t)nonce_bytes;
    lb->rotation = (uint8_t)o.rotation;
    lb->codec = (uint8_t)o.codec;
    lb->host_bytes = o.no_host_bytes ? 0 : CB_QUIC_LB_HOST_BYTES;
    lb->host_max = o.no_host_bytes ? 0 : 255;
    lb->body_bytes = (uint8_t)(lb->server_id_bytes + lb->nonce_bytes);
    lb->cid_bytes = (uint8_t)(1 + lb->body_bytes + lb->host_bytes);
    lb->first = (uint8_t)(lb->rotation << 5 | (lb->cid_bytes - 1));
    lb->reads_only = !o.server_id;
    lb->same_id = o.server_id ? CB_QUIC_LB_OURS : CB_QUIC_LB_OTHER;
    lb->masked = o.mask_key && !o.no_host_bytes;
    if (o.server_id) memcpy(lb->server_id, o.server_id, o.server_id_bytes);
    if (lb->masked) memcpy(lb->mask_key, o.mask_key, sizeof lb->mask_key);
    if (!o.key) return CB_OK;
    memcpy(lb->key, o.key, sizeof lb->key);
    aes128_set_encrypt_key(&lb->seal, lb->key);
    if (o.codec == CB_QUIC_LB_AES_ONE) aes128_invert_key(&lb->open, &lb->seal); /* four passes only encrypt */
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

/* --- encryption --- */

/* One pass of the Feistel network (draft, 5.4.2): one half is encrypted, with length and pass behind it, and changes
 * the other. Odd passes change the right half. Halves of an odd length share the middle octet: the left has its upper
 * four bits, the right the lower. */
static void feistel_pass(const cb_quic_lb *lb, size_t len, int pass, uint8_t *left, uint8_t *right) {
    const size_t half = (len + 1) / 2;
    const bool changes_right = pass & 1;
    const uint8_t *from = changes_right ? left : right;
    uint8_t *to = changes_right ? right : left;
    uint8_t block[BLOCK] = {0};
    memcpy(block, from, half);
    block[BLOCK - 2] = (uint8_t)len;
    block[BLOCK - 1] = (uint8_t)pass;
    aes128_encrypt(&lb->seal, sizeof block, block, block);
    for (size_t i = 0; i < half; i++)
        to[i] ^= block[i];
    if (len % 2 == 0) return;
    if (changes_right)
        to[0] &= 0x0f;
    else
        to[half - 1] &= 0xf0;
}

/* Passes first, first + step ... last. */
static void feistel(const cb_quic_lb *lb, uint8_t *body, int first, int last, int step) {
    const size_t len = lb->body_bytes, half = (len + 1) / 2, odd = len % 2;
    uint8_t left[(CB_QUIC_LB_BODY_MAX + 1) / 2], right[(CB_QUIC_LB_BODY_MAX + 1) / 2];
    memcpy(left, body, half);
    memcpy(right, body + len - half, half);
    if (odd) {
        left[half - 1] &= 0xf0;
        right[0] &= 0x0f;
    }
    for (int pass = first; pass != last + step; pass += step)
        feistel_pass(lb, len, pass, left, right);
    memcpy(body, left, half);
    if (odd) body[half - 1] |= right[0];
    memcpy(body + half, right + odd, half - odd);
}

static void body_seal(const cb_quic_lb *lb, uint8_t *body) {
    if (lb->codec == CB_QUIC_LB_AES_ONE)
        aes128_encrypt(&lb->seal, BLOCK, body, body);
    else if (lb->codec == CB_QUIC_LB_AES_FOUR)
        feistel(lb, body, 1, 4, 1);
}

void cb_quic_lb_body_open(const cb_quic_lb *lb, const uint8_t *body, size_t need, uint8_t out[CB_QUIC_LB_BODY_MAX]) {
    const size_t len = lb->body_bytes;
    memcpy(out, body, len);
    if (lb->codec == CB_QUIC_LB_AES_ONE) aes128_decrypt(&lb->open, BLOCK, out, out);
    /* What lies in the left half is there after three passes (draft, 5.5.2). */
    else if (lb->codec == CB_QUIC_LB_AES_FOUR)
        feistel(lb, out, 4, need * 2 > len ? 1 : 2, -1);
}

/* --- connection IDs --- */

int cb_quic_lb_encode(const cb_quic_lb *lb, uint8_t *cid, size_t cap, const uint8_t *nonce, uint32_t worker,
                      uint32_t generation) {
    if (!lb || !cid || !nonce)
        return cb_fail(CB_EINVAL, "cb_quic_lb_encode: %s is NULL", !lb ? "lb" : !cid ? "cid" : "nonce");
    if (lb->reads_only) return cb_fail(CB_EINVAL, "cb_quic_lb_encode: the codec has no server_id: it only reads");
    if (cap < lb->cid_bytes || (worker | generation) > lb->host_max)
        return cb_fail(CB_EINVAL,
                       "a connection ID of %zu bytes for worker %u, generation %u (at most %u) into %zu bytes",
                       (size_t)lb->cid_bytes, (unsigned)worker, (unsigned)generation, (unsigned)lb->host_max, cap);
    const size_t block = 1 + lb->body_bytes;
    cid[0] = lb->first;
    memcpy(cid + 1, lb->server_id, lb->server_id_bytes);
    memcpy(cid + 1 + lb->server_id_bytes, nonce, lb->nonce_bytes);
    if (lb->codec != CB_QUIC_LB_PLAIN) body_seal(lb, cid + 1);
    if (lb->host_bytes) {
        uint16_t mask = cb_quic_lb_mask(lb->mask_key, cid, block);
        cid[block] = (uint8_t)(worker ^ (mask & 255));
        cid[block + 1] = (uint8_t)(generation ^ mask >> 8);
    }
    return lb->cid_bytes;
}

int cb_quic_lb_decode(const cb_quic_lb *lb, cb_slice cid, cb_quic_lb_info *out) {
    const size_t block = 1 + lb->body_bytes;
    uint8_t opened[CB_QUIC_LB_BODY_MAX];
    *out = (cb_quic_lb_info){.rotation = cid.len ? cid.base[0] >> 5 : 7};
    if (cid.len != lb->cid_bytes || cid.base[0] != lb->first) return CB_QUIC_LB_FOREIGN;
    const uint8_t *body = cid.base + 1;
    if (lb->codec != CB_QUIC_LB_PLAIN) {
        cb_quic_lb_body_open(lb, body, lb->server_id_bytes, opened);
        body = opened;
    }
    out->server_id_bytes = lb->server_id_bytes;
    memcpy(out->server_id, body, lb->server_id_bytes);
    if (lb->masked) {
        uint16_t mask = cb_quic_lb_mask(lb->mask_key, cid.base, block);
        out->worker = (uint8_t)(cid.base[block] ^ (mask & 255));
        out->generation = (uint8_t)(cid.base[block + 1] ^ mask >> 8);
    }
    return memcmp(out->server_id, lb->server_id, lb->server_id_bytes) ? CB_QUIC_LB_OTHER : lb->same_id;
}

/* --- several configurations --- */

struct cb_quic_lb_set {
    cb_alloc alloc;
    bool has[CB_QUIC_LB_CONFIGS];
    cb_quic_lb codecs[CB_QUIC_LB_CONFIGS];
};

static int check_set(const cb_quic_lb *const *codecs, size_t n) {
    bool seen[CB_QUIC_LB_CONFIGS] = {false};
    if (!codecs || n < 1 || n > CB_QUIC_LB_CONFIGS)
        return cb_fail(CB_EINVAL, "cb_quic_lb_set_new: %zu codecs; 1 to %d are possible", codecs ? n : 0,
                       CB_QUIC_LB_CONFIGS);
    for (size_t i = 0; i < n; i++) {
        if (!codecs[i]) return cb_fail(CB_EINVAL, "cb_quic_lb_set_new: codec %zu is NULL", i);
        if (seen[codecs[i]->rotation])
            return cb_fail(CB_EEXIST, "cb_quic_lb_set_new: codec %zu: another has rotation %u", i,
                           (unsigned)codecs[i]->rotation);
        seen[codecs[i]->rotation] = true;
    }
    return CB_OK;
}

int cb_quic_lb_set_new(cb_quic_lb_set **out, const cb_quic_lb *const *codecs, size_t n, const cb_alloc *alloc) {
    if (!out) return cb_fail(CB_EINVAL, "cb_quic_lb_set_new: out is NULL");
    int rc = check_set(codecs, n);
    if (rc < 0) return rc;
    const cb_alloc *a = alloc ? alloc : &cb_alloc_libc;
    cb_quic_lb_set *set = cb_mem_new(a, sizeof *set);
    if (!set) return cb_fail(CB_ENOMEM, "no memory for a set of connection-ID codecs");
    set->alloc = *a;
    for (size_t i = 0; i < n; i++) {
        set->has[codecs[i]->rotation] = true;
        set->codecs[codecs[i]->rotation] = *codecs[i];
    }
    *out = set;
    return CB_OK;
}

void cb_quic_lb_set_free(cb_quic_lb_set *set) {
    if (!set) return;
    cb_alloc a = set->alloc;
    cb_mem_wipe(set, sizeof *set);
    cb_mem_free(&a, set);
}

const cb_quic_lb *cb_quic_lb_set_codec(const cb_quic_lb_set *set, uint32_t rotation) {
    return rotation < CB_QUIC_LB_CONFIGS && set->has[rotation] ? &set->codecs[rotation] : NULL;
}

int cb_quic_lb_set_decode(const cb_quic_lb_set *set, cb_slice cid, cb_quic_lb_info *out) {
    const uint8_t rotation = cid.len ? cid.base[0] >> 5 : 7;
    const cb_quic_lb *lb = cb_quic_lb_set_codec(set, rotation);
    if (lb) return cb_quic_lb_decode(lb, cid, out);
    *out = (cb_quic_lb_info){.rotation = rotation};
    return CB_QUIC_LB_FOREIGN;
}
