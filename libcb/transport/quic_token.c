#include "transport/quic_token.h"
#include <string.h>

enum { RETRY_TOKEN_S = 10, NEW_TOKEN_S = 24 * 3600, SECRET = 32 };

enum cb_quic_token_kind cb_quic_token_check(const uint8_t secret[32], const ngtcp2_pkt_hd *hd, const cb_addr *remote,
                                            uint64_t wall, ngtcp2_cid *odcid) {
    if (!hd->tokenlen) return CB_QUIC_TOKEN_NONE;
    if (hd->token[0] == NGTCP2_CRYPTO_TOKEN_MAGIC_RETRY2) {
        int rv =
            ngtcp2_crypto_verify_retry_token2(odcid, hd->token, hd->tokenlen, secret, SECRET, hd->version, &remote->sa,
                                              cb_addr_len(remote), &hd->dcid, RETRY_TOKEN_S * NGTCP2_SECONDS, wall);
        return rv == 0 ? CB_QUIC_TOKEN_RETRY : CB_QUIC_TOKEN_INVALID;
    }
    if (hd->token[0] != NGTCP2_CRYPTO_TOKEN_MAGIC_REGULAR) return CB_QUIC_TOKEN_NONE;
    int rv = ngtcp2_crypto_verify_regular_token(hd->token, hd->tokenlen, secret, SECRET, &remote->sa,
                                                cb_addr_len(remote), NEW_TOKEN_S * NGTCP2_SECONDS, wall);
    return rv == 0 ? CB_QUIC_TOKEN_NEW : CB_QUIC_TOKEN_NONE;
}

size_t cb_quic_token_make(const uint8_t secret[32], const cb_addr *remote, uint64_t wall, uint8_t *out, size_t cap) {
    if (cap < NGTCP2_CRYPTO_MAX_REGULAR_TOKENLEN) return 0;
    ngtcp2_ssize n = ngtcp2_crypto_generate_regular_token(out, secret, SECRET, &remote->sa, cb_addr_len(remote), wall);
    return n > 0 ? (size_t)n : 0;
}

size_t cb_quic_retry_packet(uint8_t *out, size_t cap, const uint8_t secret[32], const ngtcp2_pkt_hd *hd,
                            const ngtcp2_cid *retry_scid, const cb_addr *remote, uint64_t wall) {
    uint8_t token[NGTCP2_CRYPTO_MAX_RETRY_TOKENLEN2];
    ngtcp2_ssize n = ngtcp2_crypto_generate_retry_token2(token, secret, SECRET, hd->version, &remote->sa,
                                                         cb_addr_len(remote), retry_scid, &hd->dcid, wall);
    if (n < 0) return 0;
    n = ngtcp2_crypto_write_retry(out, cap, hd->version, &hd->scid, retry_scid, &hd->dcid, token, (size_t)n);
    return n > 0 ? (size_t)n : 0;
}

size_t cb_quic_version_packet(uint8_t *out, size_t cap, const ngtcp2_version_cid *in, bool v1_only, uint8_t random) {
    uint32_t reserved = 0x0a0a0a0aU | (uint32_t)(random & 0xf0) << 24; /* RFC 9000, 15: keeps clients tolerant */
    uint32_t versions[] = {reserved, NGTCP2_PROTO_VER_V1, NGTCP2_PROTO_VER_V2};
    ngtcp2_ssize n = ngtcp2_pkt_write_version_negotiation(out, cap, random, in->scid, in->scidlen, in->dcid,
                                                          in->dcidlen, versions, v1_only ? 2 : 3);
    return n > 0 ? (size_t)n : 0;
}

size_t cb_quic_reset_packet(uint8_t *out, size_t cap, const uint8_t secret[32], const uint8_t *cid, size_t cid_len,
                            size_t trigger_len, const uint8_t random[32]) {
    enum { TOKEN = NGTCP2_STATELESS_RESET_TOKENLEN, USUAL = 43 };
    uint8_t token[TOKEN];
    ngtcp2_cid id;
    size_t len = trigger_len > USUAL ? USUAL : trigger_len - 1; /* each answer is shorter: loops come to an end */
    if (trigger_len < TOKEN + NGTCP2_MIN_STATELESS_RESET_RANDLEN + 1) return 0;
    ngtcp2_cid_init(&id, cid, cid_len);
    if (!cb_quic_reset_token(secret, &id, token)) return 0;
    ngtcp2_ssize n = ngtcp2_pkt_write_stateless_reset(out, cap, token, random, len - TOKEN);
    return n > 0 ? (size_t)n : 0;
}

bool cb_quic_reset_token(const uint8_t secret[32], const ngtcp2_cid *cid,
                         uint8_t out[NGTCP2_STATELESS_RESET_TOKENLEN]) {
    return ngtcp2_crypto_generate_stateless_reset_token(out, secret, SECRET, cid) == 0;
}
