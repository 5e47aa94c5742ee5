/* The form in which a group travels: its keys and generation, then a row for each mailbox. */
#ifndef CB_TRANSPORT_GROUP_STATE_H
#define CB_TRANSPORT_GROUP_STATE_H

#include "transport/group_int.h"

enum {
    CB_GROUP_STATE_HEAD = 124, /* u8 version, u8 generation, u8 rotation, u8 bytes of the server ID, 16 bytes of it,
                                * token and reset secrets of 32 each, mask key of 16, key of 16 (zeros: plain),
                                * u8 codec, 3 of zero, u32 rows */
    CB_GROUP_STATE_ROW = 4     /* u8 generation, u8 worker, u16 port */
};

void cb_group_state_put_head(uint8_t out[CB_GROUP_STATE_HEAD], const cb_group_keys *k, uint32_t rows);
void cb_group_state_put_row(uint8_t out[CB_GROUP_STATE_ROW], const cb_owner *owner);
/* Fills keys (with the generation of who saved it); *bytes becomes the rows, which are exactly *rows. CB_EPROTO. */
int cb_group_state_read(cb_group_keys *k, cb_slice *bytes, uint32_t *rows);
cb_owner cb_group_state_row(const uint8_t in[CB_GROUP_STATE_ROW]);

#endif
