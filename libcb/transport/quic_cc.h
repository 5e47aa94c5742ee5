/* Names of congestion controllers. */
#ifndef CB_TRANSPORT_QUIC_CC_H
#define CB_TRANSPORT_QUIC_CC_H

#include <cb/quic.h>

/* ngtcp2's number for enum cb_cc; cubic for what ngtcp2 does not know. */
int cb_quic_cc_algo(int cc);
/* Option before environment (the value of CBR_CC, NULL = unset) before cubic. CB_EINVAL names what is wrong. */
int cb_quic_cc_choose(int option, const char *environment);

#endif
