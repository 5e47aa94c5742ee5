/* Bytes of HTTP/3 for tests that write them by hand. */
#ifndef CB_TEST_H3_BYTES_H
#define CB_TEST_H3_BYTES_H

#include "base/buf.h"

/* The lines of an ordinary request. */
#define H3_GET   ":method= GET\n:scheme= https\n:authority= a\n:path= /\n"
#define H3_POST5 ":method= POST\n:scheme= https\n:authority= a\n:path= /\ncontent-length= 5\n"

void h3_number(cb_buf *b, uint8_t first, unsigned bits, size_t n); /* an integer of QPACK with a prefix */
void h3_frame(cb_buf *b, uint8_t type, const void *data, size_t len);
void h3_headers(cb_buf *b, const char *lines); /* "name= value\n" lines as a HEADERS frame of literals */

#endif
