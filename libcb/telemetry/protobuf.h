/* Writes protocol buffers (the wire format of proto2 and proto3) into a buffer, from front to back. The first failure
 * stays in rc and the rest does nothing, so that a message is written without a question after each field. */
#ifndef CB_TELEMETRY_PROTOBUF_H
#define CB_TELEMETRY_PROTOBUF_H

#include "base/buf.h"

typedef struct cb_pb {
    cb_buf *out;
    int rc; /* CB_OK, CB_ELIMIT, CB_ENOMEM */
} cb_pb;

void cb_pb_raw(cb_pb *p, const void *data, size_t len);
void cb_pb_varint(cb_pb *p, uint32_t field, uint64_t v); /* int32, int64, uint32, uint64, bool, enum */
void cb_pb_sint(cb_pb *p, uint32_t field, int64_t v);    /* sint32, sint64 */
void cb_pb_fixed64(cb_pb *p, uint32_t field, uint64_t v);
void cb_pb_fixed32(cb_pb *p, uint32_t field, uint32_t v);
void cb_pb_double(cb_pb *p, uint32_t field, double v);
void cb_pb_bytes(cb_pb *p, uint32_t field, const void *data, size_t len);
void cb_pb_text(cb_pb *p, uint32_t field, const char *text);
/* A message inside the message: what is written between the two is its content. `mark` goes from one to the other. */
size_t cb_pb_open(cb_pb *p, uint32_t field);
void cb_pb_close(cb_pb *p, size_t mark);
/* The same without a field before it, as in streams of messages: the length comes first. */
size_t cb_pb_open_delimited(cb_pb *p);

#endif
