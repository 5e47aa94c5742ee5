/* The connection-ID codec from inside: the object itself, and the mask that bpf/cid_steer.bpf.c computes too. */
#ifndef CB_LB_QUIC_LB_H
#define CB_LB_QUIC_LB_H

#include <cb/quic_lb.h>

struct cb_quic_lb {
    cb_alloc alloc; /* unused when embedded */
    uint8_t server_id[CB_QUIC_LB_SERVER_ID_MAX];
    uint8_t server_id_bytes, nonce_bytes, rotation;
    uint8_t mask_key[16];
};

/* Makes a codec in place; nothing to free. */
int cb_quic_lb_init(cb_quic_lb *lb, const cb_quic_lb_opts *opts);

/* Low byte masks the worker, the next one the generation. */
uint16_t cb_quic_lb_mask(const uint8_t key[16], const uint8_t *block, size_t len);

#endif
