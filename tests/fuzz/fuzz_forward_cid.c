/* A connection ID behind the lengths of its form: the datapath (bpf/fw_cid.h) reads the server ID that libcb's codec
 * reads, and both know the same forms. */
#include "../../bpf/fw_cid.h"
#include "lb/quic_lb.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t cid[FW_CID_BYTES] = {0};
    struct cb_fw_server server = {0};
    struct cb_fw_cid form;
    cb_quic_lb_info info;
    cb_quic_lb lb;
    if (size < 4 + 16 + 1) return 0;
    const uint8_t *key = data + 4;
    const int codec = data[2] % 3;
    const uint32_t n = data[0] % 18, nonce = data[1] % 20, host = data[3] & 1 ? 0 : CB_QUIC_LB_HOST_BYTES;
    memcpy(cid, data + 20, size - 20 < sizeof cid ? size - 20 : sizeof cid);
    const cb_quic_lb_opts o = {.size = sizeof o,
                               .server_id_bytes = n,
                               .nonce_bytes = nonce,
                               .rotation = (cid[0] >> 5) % 7,
                               .codec = codec,
                               .key = codec ? key : NULL,
                               .no_host_bytes = !host};
    const int known = nonce >= 4 && cb_quic_lb_init(&lb, &o) == CB_OK; /* 0 would be the rest of 16 */
    const int prepared = fw_cid_prepare(&form, codec, n, nonce, host, key) == 0;
    if (known && !prepared) abort();
    /* Four passes over 16 bytes are not the draft's, but can be read. */
    if (prepared && !known && !(codec == FW_CID_FOUR && n + nonce == 16)) abort();
    if (!known) return 0;
    if (form.cid_bytes != cb_quic_lb_cid_bytes(&lb)) abort();
    cid[0] = (uint8_t)(o.rotation << 5 | (form.cid_bytes - 1U));
    if (cb_quic_lb_decode(&lb, (cb_slice){cid, form.cid_bytes}, &info) != CB_QUIC_LB_OTHER) abort();
    fw_cid_server(&form, cid, &server);
    if (server.rotation_length != (o.rotation << 4 | n) || memcmp(server.server_id, info.server_id, n) != 0) abort();
    for (uint32_t i = n; i < sizeof server.server_id; i++)
        if (server.server_id[i]) abort();
    return 0;
}
