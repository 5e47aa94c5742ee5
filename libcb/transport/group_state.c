#include "transport/group_state.h"
#include "base/error.h"
#include "base/mem.h"
#include <string.h>

enum { VERSION = 2, SERVER_ID = 4, TOKEN = 20, RESET = 52, MASK = 84, KEY = 100, CODEC = 116, ROWS = 120 };

void cb_group_state_put_head(uint8_t out[CB_GROUP_STATE_HEAD], const cb_group_keys *k, uint32_t rows) {
    memset(out, 0, CB_GROUP_STATE_HEAD);
    out[0] = VERSION;
    out[1] = k->generation;
    out[2] = k->cid.rotation;
    out[3] = k->cid.server_id_bytes;
    memcpy(out + SERVER_ID, k->cid.server_id, k->cid.server_id_bytes);
    memcpy(out + TOKEN, k->token, sizeof k->token);
    memcpy(out + RESET, k->reset, sizeof k->reset);
    memcpy(out + MASK, k->cid.mask_key, sizeof k->cid.mask_key);
    memcpy(out + KEY, k->cid.key, sizeof k->cid.key);
    out[CODEC] = k->cid.codec;
    for (int i = 0; i < 4; i++)
        out[ROWS + i] = (uint8_t)(rows >> 8 * i);
}

void cb_group_state_put_row(uint8_t out[CB_GROUP_STATE_ROW], const cb_owner *owner) {
    out[0] = owner->generation;
    out[1] = owner->worker;
    out[2] = (uint8_t)(owner->port & 0xff);
    out[3] = (uint8_t)(owner->port >> 8);
}

cb_owner cb_group_state_row(const uint8_t in[CB_GROUP_STATE_ROW]) {
    return (cb_owner){.generation = in[0], .worker = in[1], .port = (uint16_t)(in[2] | in[3] << 8)};
}

int cb_group_state_read(cb_group_keys *k, cb_slice *bytes, uint32_t *rows) {
    const uint8_t *in = bytes->base;
    if (bytes->len < CB_GROUP_STATE_HEAD || in[0] != VERSION)
        return cb_fail(CB_EPROTO, "handoff: a group of a form that this program does not understand");
    const cb_quic_lb_opts lb = {.size = sizeof lb,
                                .server_id = in + SERVER_ID,
                                .server_id_bytes = in[3],
                                .rotation = in[2],
                                .mask_key = in + MASK,
                                .codec = in[CODEC],
                                .key = in[CODEC] == CB_QUIC_LB_PLAIN ? NULL : in + KEY};
    uint32_t n = 0;
    for (int i = 0; i < 4; i++)
        n |= (uint32_t)in[ROWS + i] << 8 * i;
    if (n > CB_HANDOFF_FDS || bytes->len != CB_GROUP_STATE_HEAD + (size_t)n * CB_GROUP_STATE_ROW)
        return cb_fail(CB_EPROTO, "handoff: a group of another length than it says");
    memset(k, 0, sizeof *k);
    if (!in[3] || cb_quic_lb_init(&k->cid, &lb) < 0) return cb_fail(CB_EPROTO, "handoff: %s", cb_last_error());
    memcpy(k->token, in + TOKEN, sizeof k->token);
    memcpy(k->reset, in + RESET, sizeof k->reset);
    k->generation = in[1];
    *bytes = (cb_slice){in + CB_GROUP_STATE_HEAD, bytes->len - CB_GROUP_STATE_HEAD};
    *rows = n;
    return CB_OK;
}
