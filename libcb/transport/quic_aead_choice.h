/* Which cb_quic_aead an endpoint uses. */
#ifndef CB_TRANSPORT_QUIC_AEAD_CHOICE_H
#define CB_TRANSPORT_QUIC_AEAD_CHOICE_H

#include "base/log.h"
#include "transport/quic_aead.h"

/* Does it compute what the standards say, and what GnuTLS does at all lengths up to a packet's? */
bool cb_quic_aead_proves(const cb_quic_aead *a);
/* For an option (enum cb_aead) and the value of CBR_AEAD (NULL = unset). The first call in a process tests and times,
 * which takes some milliseconds, and logs what came out; thread-safe. CB_EINVAL, CB_ENOTSUP (what is asked for is not
 * built in, or failed its test). */
int cb_quic_aead_choose(const cb_quic_aead **out, int option, const char *environment, const cb_log *log);

#endif
