/* The connection-ID codec from inside: the object itself, and the mask that bpf/cid_steer.bpf.c computes too. */
#ifndef CB_LB_QUIC_LB_H
#define CB_LB_QUIC_LB_H

#include <cb/quic_lb.h>
#include <nettle/aes.h>
#include <stdbool.h>

enum { CB_QUIC_LB_KEY = 16, CB_QUIC_LB_BODY_MAX = CB_QUIC_LB_CID_MAX - 1 };

struct cb_quic_lb {
    cb_alloc alloc; /* unused when embedded */
    uint8_t server_id[CB_QUIC_LB_SERVER_ID_MAX];
    uint8_t server_id_bytes, nonce_bytes, rotation, codec;
    uint8_t body_bytes, host_bytes, cid_bytes; /* server ID and nonce; CB_QUIC_LB_HOST_BYTES or 0; all in all */
    uint8_t first;                             /* octet of every connection ID */
    uint8_t host_max;                          /* what worker and generation may be: 255 or 0 */
    uint8_t same_id;                           /* enum cb_quic_lb_match of an ID with server_id in it */
    bool reads_only, masked;
    uint8_t mask_key[16], key[CB_QUIC_LB_KEY];
    struct aes128_ctx seal, open; /* of an encrypted codec */
};

/* Makes a codec in place; nothing to free, but to wipe. */
int cb_quic_lb_init(cb_quic_lb *lb, const cb_quic_lb_opts *opts);

/* Low byte masks the worker, the next one the generation. */
uint16_t cb_quic_lb_mask(const uint8_t key[16], const uint8_t *block, size_t len);

/* Server ID and nonce of a block, `body` being what is behind its first octet. Of an encrypted one only the first
 * `need` bytes are sure to be right. */
void cb_quic_lb_body_open(const cb_quic_lb *lb, const uint8_t *body, size_t need, uint8_t out[CB_QUIC_LB_BODY_MAX]);

#endif
