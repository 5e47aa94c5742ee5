/* Names of congestion controllers. */
#ifndef CB_TRANSPORT_QUIC_CC_H
#define CB_TRANSPORT_QUIC_CC_H

#include <cb/quic.h>

/* The library's number for enum cb_cc (CB_CC_DEFAULT = cubic); *runs is what really runs. */
int cb_quic_cc_algo(int cc, int *runs);
/* Option before environment (the value of CBR_CC, NULL = unset) before cubic. CB_EINVAL names what is wrong. */
int cb_quic_cc_choose(int option, const char *environment);

#endif
