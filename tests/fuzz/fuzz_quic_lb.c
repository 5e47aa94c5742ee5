/* Two bytes of configuration, then a connection ID: decoding stays in bounds, and what it reads encodes back. */
#include "lb/quic_lb.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t key[16] = "0123456789abcde";
    uint8_t id[CB_QUIC_LB_SERVER_ID_MAX] = {0}, cid[CB_QUIC_LB_CID_MAX];
    cb_quic_lb_info info;
    cb_quic_lb lb;
    if (size < 2) return 0;
    const cb_quic_lb_opts o = {.size = sizeof o,
                               .server_id = id,
                               .mask_key = key,
                               .server_id_bytes = data[0] >> 4,
                               .nonce_bytes = data[0] & 15,
                               .rotation = data[1] & 7};
    if (cb_quic_lb_init(&lb, &o) < 0) return 0;
    cb_slice in = {data + 2, size - 2};
    if (cb_quic_lb_decode(&lb, in, &info) == CB_QUIC_LB_FOREIGN) return 0;
    memcpy(lb.server_id, info.server_id, info.server_id_bytes);
    int n = cb_quic_lb_encode(&lb, cid, sizeof cid, in.base + 1 + info.server_id_bytes, info.worker, info.generation);
    if (n < 0 || (size_t)n != in.len || memcmp(cid, in.base, in.len) != 0) abort();
    return 0;
}
