/* The inside of a session store: what a client session takes and gives. */
#ifndef CB_TRANSPORT_SESSIONS_H
#define CB_TRANSPORT_SESSIONS_H

#include "transport/sessions_file.h"
#include <cb/tls.h>

/* Takes a session out for one use (RFC 8446, C.4): the newest that has not expired, and that no other process has
 * taken; NULL = none. The caller frees it. common > 0: of any key that begins with so many bytes of this one. */
cb_saved_session *cb_sessions_take(cb_sessions *s, const char *key, size_t common);
/* Keeps one for lifetime_s (at most seven days: RFC 8446, 4.6.1); the oldest goes when there are too many. CB_ELIMIT:
 * too large; CB_ENOMEM. */
int cb_sessions_put(cb_sessions *s, const char *key, cb_slice session, cb_slice extra, uint32_t lifetime_s);
size_t cb_sessions_len(cb_sessions *s);

#endif
