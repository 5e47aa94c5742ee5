/* What stands beside a revision in the store: who, why and how, as JSON. F1. */
#ifndef CB_ADMIN_REVISION_NOTE_H
#define CB_ADMIN_REVISION_NOTE_H

#include "base/buf.h"

enum { CB_REVISION_HASH = 64 }; /* SHA-256 in hex */

typedef struct cb_revision_note {
    const char *actor, *reason, *how, *pointer; /* NULL is "" */
    uint64_t from, before;
    char file[CB_REVISION_HASH + 1]; /* of the file as it was last taken over; "" = never */
} cb_revision_note;

/* Appends it, in at most CB_STORE_NOTE_BYTES: a pointer that is too long is left out. CB_EINVAL (not UTF-8, control
 * characters, too long), CB_ENOMEM. */
int cb_revision_note_write(cb_buf *out, const cb_revision_note *n);
/* Reads one; its texts stand in *bytes, which is to be given back with cb_mem_free(). What somebody else wrote is a
 * note without an actor, with the text as its reason. CB_ENOMEM. */
int cb_revision_note_read(cb_revision_note *out, char **bytes, cb_slice text);

#endif
