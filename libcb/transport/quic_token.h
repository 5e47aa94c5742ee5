/* Address validation (RFC 9000, 8.1): tokens of Retry packets and NEW_TOKEN frames, and stateless answers. */
#ifndef CB_TRANSPORT_QUIC_TOKEN_H
#define CB_TRANSPORT_QUIC_TOKEN_H

#include "base/addr.h"
#include "transport/quic_conn.h"

enum cb_quic_token_kind {
    CB_QUIC_TOKEN_NONE,   /* no token, or one that does not count: as without */
    CB_QUIC_TOKEN_RETRY,  /* valid; *odcid is filled */
    CB_QUIC_TOKEN_NEW,    /* valid: of an earlier connection */
    CB_QUIC_TOKEN_INVALID /* a Retry token that is not ours or too old: the connection is refused (RFC 9000, 8.1.3) */
};

/* wall: nanoseconds since 1970 (tokens are good on every host that has the secret). */
enum cb_quic_token_kind cb_quic_token_check(const uint8_t secret[32], const ngtcp2_pkt_hd *hd, const cb_addr *remote,
                                            uint64_t wall, ngtcp2_cid *odcid);
size_t cb_quic_token_make(const uint8_t secret[32], const cb_addr *remote, uint64_t wall, uint8_t *out, size_t cap);
/* A whole Retry packet; 0 = failed. */
size_t cb_quic_retry_packet(uint8_t *out, size_t cap, const uint8_t secret[32], const ngtcp2_pkt_hd *hd,
                            const ngtcp2_cid *retry_scid, const cb_addr *remote, uint64_t wall);
/* A Version Negotiation packet that answers the given one. */
size_t cb_quic_version_packet(uint8_t *out, size_t cap, const ngtcp2_version_cid *in, bool v1_only, uint8_t random);
/* A stateless reset, shorter than the packet that it answers (0: that is too short). random: 32 bytes. */
size_t cb_quic_reset_packet(uint8_t *out, size_t cap, const uint8_t secret[32], const uint8_t *cid, size_t cid_len,
                            size_t trigger_len, const uint8_t random[32]);
bool cb_quic_reset_token(const uint8_t secret[32], const ngtcp2_cid *cid, uint8_t out[NGTCP2_STATELESS_RESET_TOKENLEN]);

#endif
