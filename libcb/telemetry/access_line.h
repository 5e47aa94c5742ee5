/* The text of an access record, without I/O. */
#ifndef CB_TELEMETRY_ACCESS_LINE_H
#define CB_TELEMETRY_ACCESS_LINE_H

#include "base/buf.h"
#include <cb/access_log.h>

/* Appends one JSON line. CB_ELIMIT (the buffer is full: it is as it was), CB_ENOMEM. */
int cb_access_line(cb_buf *out, const cb_access_record *r);

#endif
