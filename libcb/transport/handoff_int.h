/* The inside of a handoff: the form of its message.
 *
 * Header: "CBHANDOF", then in little endian u32 version, u32 bytes of the body, u32 descriptors, u32 zero. Body:
 * entries of u8 kind, u8 length of the name, u16 zero, u32 length of the bytes, name, bytes. Descriptors travel beside
 * it by SCM_RIGHTS, in the order of their entries. */
#ifndef CB_TRANSPORT_HANDOFF_INT_H
#define CB_TRANSPORT_HANDOFF_INT_H

#include "base/buf.h"
#include <cb/handoff.h>

enum { CB_HANDOFF_HEADER = 24, CB_HANDOFF_VERSION = 1 };

/* CB_EPROTO with the reason. */
int cb_handoff_read_header(const uint8_t in[CB_HANDOFF_HEADER], uint32_t *body, uint32_t *fds);
/* Fills an empty handoff; fds become its own when CB_OK is returned. */
int cb_handoff_read_body(cb_handoff *h, cb_slice body, const int32_t *fds, size_t n);
/* Header and body, and the descriptors, which stay h's: an array of n to be freed, NULL if there are none. */
int cb_handoff_write(const cb_handoff *h, cb_buf *out, int32_t **fds, size_t *n);

#endif
