/* Four bytes of configuration, then a connection ID: decoding stays in bounds, what it reads encodes back, and a set
 * reads the same. */
#include "lb/quic_lb.h"
#include <stdlib.h>
#include <string.h>

static const uint8_t mask_key[16] = "0123456789abcde", key[16] = "edcba9876543210";

/* The whole block is read, then written again with what was read. */
static void write_again(cb_quic_lb lb, cb_slice in, const cb_quic_lb_info *info) {
    uint8_t cid[CB_QUIC_LB_CID_MAX], body[CB_QUIC_LB_BODY_MAX];
    cb_quic_lb_body_open(&lb, in.base + 1, sizeof body, body);
    if (memcmp(body, info->server_id, info->server_id_bytes)) abort();
    memcpy(lb.server_id, info->server_id, info->server_id_bytes);
    int n = cb_quic_lb_encode(&lb, cid, sizeof cid, body + info->server_id_bytes, info->worker, info->generation);
    if (n < 0 || (size_t)n != in.len || memcmp(cid, in.base, in.len) != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t id[CB_QUIC_LB_SERVER_ID_MAX] = {0};
    cb_quic_lb_info info, again;
    cb_quic_lb_set *set = NULL;
    cb_quic_lb lb;
    if (size < 4) return 0;
    const cb_quic_lb_opts o = {.size = sizeof o,
                               .server_id = id,
                               .mask_key = mask_key,
                               .server_id_bytes = data[0],
                               .nonce_bytes = data[1],
                               .rotation = data[2] & 7,
                               .codec = data[3] & 3,
                               .key = data[3] & 3 ? key : NULL,
                               .no_host_bytes = data[3] >> 7};
    if (cb_quic_lb_init(&lb, &o) < 0) return 0;
    const cb_quic_lb *one = &lb;
    cb_slice in = {data + 4, size - 4};
    int match = cb_quic_lb_decode(&lb, in, &info);
    if (cb_quic_lb_set_new(&set, &one, 1, NULL) < 0) return 0;
    if (cb_quic_lb_set_decode(set, in, &again) != match || memcmp(&info, &again, sizeof info)) abort();
    cb_quic_lb_set_free(set);
    if (match != CB_QUIC_LB_FOREIGN) write_again(lb, in, &info);
    return 0;
}
