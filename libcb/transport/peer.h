/* The inside of cb/peer.h: rules of names that others need too. */
#ifndef CB_TRANSPORT_PEER_H
#define CB_TRANSPORT_PEER_H

#include <cb/peer.h>
#include <gnutls/x509.h>
#include <stdbool.h>

enum { CB_PEER_CHAIN_MAX = 16 };

/* "spiffe://trust-domain" and, if it has one, its path by the rules of SPIFFE-ID, 2. */
bool cb_spiffe_id_ok(const char *uri);
/* The same with a path. */
bool cb_spiffe_leaf_ok(const char *uri);
/* Reads `name` as an IP address, brackets allowed; 4, 16, or 0 when it is none. */
unsigned cb_tls_ip_literal(const char *name, uint8_t out[16]);

#endif
