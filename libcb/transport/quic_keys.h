/* The keys of one connection: from TLS's secrets into ngtcp2, through a cb_quic_aead. */
#ifndef CB_TRANSPORT_QUIC_KEYS_H
#define CB_TRANSPORT_QUIC_KEYS_H

#include "transport/quic_conn.h"

/* After ngtcp2_crypto_gnutls_configure_*_session(): the session's secrets become keys here. */
void cb_quic_keys_attach(cb_quic_conn *c);
/* The connection is idle: its keys give back what the next packet can make again. Not inside a call of ngtcp2. */
void cb_quic_keys_rest(cb_quic_conn *c);

/* What ngtcp2 calls back for packet protection: members of ngtcp2_callbacks. */
int cb_quic_keys_encrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *ctx,
                         const uint8_t *text, size_t len, const uint8_t *nonce, size_t nonce_len, const uint8_t *aad,
                         size_t aad_len);
int cb_quic_keys_decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *ctx,
                         const uint8_t *sealed, size_t len, const uint8_t *nonce, size_t nonce_len, const uint8_t *aad,
                         size_t aad_len);
int cb_quic_keys_mask(uint8_t *dest, const ngtcp2_crypto_cipher *hp, const ngtcp2_crypto_cipher_ctx *ctx,
                      const uint8_t *sample);
int cb_quic_keys_update(ngtcp2_conn *ng, uint8_t *rx_secret, uint8_t *tx_secret, ngtcp2_crypto_aead_ctx *rx_ctx,
                        uint8_t *rx_iv, ngtcp2_crypto_aead_ctx *tx_ctx, uint8_t *tx_iv, const uint8_t *old_rx,
                        const uint8_t *old_tx, size_t secret_len, void *user);
int cb_quic_keys_version(ngtcp2_conn *ng, uint32_t version, const ngtcp2_cid *client_dcid, void *user);
int cb_quic_keys_retry(ngtcp2_conn *ng, const ngtcp2_pkt_hd *hd, void *user);
int cb_quic_keys_server_initial(ngtcp2_conn *ng, const ngtcp2_cid *dcid, void *user);
int cb_quic_keys_client_initial(cb_quic_conn *c);
void cb_quic_keys_drop(ngtcp2_conn *ng, ngtcp2_crypto_aead_ctx *ctx, void *user);
void cb_quic_keys_drop_mask(ngtcp2_conn *ng, ngtcp2_crypto_cipher_ctx *ctx, void *user);

#endif
