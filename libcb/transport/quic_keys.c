/* From secrets to keys (RFC 9001, 5 and 6; RFC 9369, 3.3): ngtcp2 says when, TLS gives the secrets, a cb_quic_aead
 * makes of the keys what protects packets. ngtcp2 owns each from then on and gives it back to be wiped. */
#include "transport/quic_keys.h"
#include <gnutls/crypto.h>
#include <ngtcp2/ngtcp2_crypto_gnutls.h>
#include <string.h>

enum { SECRET_MAX = 48, INITIAL_SECRET = 32, INFO_MAX = 2 + 1 + 6 + 16 + 1 };

/* --- what differs between versions and cipher suites --- */

typedef struct version_keys {
    const char *key, *iv, *hp, *update, *retry;
    uint8_t salt[20];
} version_keys;

static const version_keys v1 = {
    .key = "quic key",
    .iv = "quic iv",
    .hp = "quic hp",
    .update = "quic ku",
    .retry = NGTCP2_RETRY_KEY_V1,
    .salt = {0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17,
             0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a},
};
static const version_keys v2 = {
    .key = "quicv2 key",
    .iv = "quicv2 iv",
    .hp = "quicv2 hp",
    .update = "quicv2 ku",
    .retry = NGTCP2_RETRY_KEY_V2,
    .salt = {0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93,
             0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e, 0xd9},
};

static const version_keys *keys_of(uint32_t version) {
    return version == NGTCP2_PROTO_VER_V2 ? &v2 : &v1;
}

/* How many packets one key may protect, and how many forgeries may be tried on it (RFC 9001, 6.6). */
static const struct suite {
    gnutls_cipher_algorithm_t tls;
    uint64_t max_sealed, max_forged;
} suites[CB_QUIC_CIPHERS] = {
    [CB_QUIC_AES_128_GCM] = {GNUTLS_CIPHER_AES_128_GCM, UINT64_C(1) << 23, UINT64_C(1) << 52},
    [CB_QUIC_AES_256_GCM] = {GNUTLS_CIPHER_AES_256_GCM, UINT64_C(1) << 23, UINT64_C(1) << 52},
    [CB_QUIC_CHACHA20_POLY1305] = {GNUTLS_CIPHER_CHACHA20_POLY1305, UINT64_C(1) << 62, UINT64_C(1) << 36},
};

/* What ngtcp2 keeps for an encryption level and passes to the calls below: aead and hp point to the suite, md is the
 * hash's number. False: a suite that is not spoken here. */
static bool fill_context(ngtcp2_crypto_ctx *ctx, gnutls_cipher_algorithm_t cipher, gnutls_digest_algorithm_t hash) {
    for (size_t i = 0; i < CB_QUIC_CIPHERS; i++) {
        if (suites[i].tls != cipher) continue;
        void *suite = (void *)(uintptr_t)&suites[i];
        *ctx = (ngtcp2_crypto_ctx){
            .aead = {suite, CB_QUIC_TAG},
            .md = {(void *)(uintptr_t)hash},
            .hp = {suite},
            .max_encryption = suites[i].max_sealed,
            .max_decryption_failure = suites[i].max_forged,
        };
        return true;
    }
    return false;
}

static int cipher_of(const ngtcp2_crypto_ctx *ctx) {
    return (int)((const struct suite *)ctx->aead.native_handle - suites);
}

static gnutls_mac_algorithm_t hash_of(const ngtcp2_crypto_ctx *ctx) {
    return (gnutls_mac_algorithm_t)(uintptr_t)ctx->md.native_handle; /* GnuTLS gives hash and MAC one number */
}

/* --- deriving --- */

/* HKDF-Expand-Label with an empty context (RFC 8446, 7.1). */
static bool expand(uint8_t *out, size_t len, gnutls_mac_algorithm_t hash, const uint8_t *secret, size_t secret_len,
                   const char *label) {
    uint8_t info[INFO_MAX];
    size_t label_len = strlen(label);
    info[0] = 0;
    info[1] = (uint8_t)len;
    info[2] = (uint8_t)(6 + label_len);
    memcpy(info + 3, "tls13 ", 6);
    memcpy(info + 9, label, label_len);
    info[9 + label_len] = 0;
    gnutls_datum_t key = {(uint8_t *)(uintptr_t)secret, (unsigned)secret_len};
    gnutls_datum_t text = {info, (unsigned)(10 + label_len)};
    return gnutls_hkdf_expand(hash, &key, &text, out, len) == 0;
}

/* One direction: a key, its IV and, unless mask is NULL, its key of header protection. */
typedef struct direction {
    ngtcp2_crypto_aead_ctx key;
    ngtcp2_crypto_cipher_ctx mask;
    uint8_t iv[CB_QUIC_NONCE];
} direction;

static void drop_key(ngtcp2_crypto_aead_ctx *ctx) {
    cb_quic_key *key = ctx->native_handle;
    if (key) {
        cb_list_del(&key->link);
        key->free(key);
    }
    ctx->native_handle = NULL;
}

static void drop_mask(ngtcp2_crypto_cipher_ctx *ctx) {
    cb_quic_mask *mask = ctx->native_handle;
    if (mask) mask->free(mask);
    ctx->native_handle = NULL;
}

static void drop(direction *d) {
    drop_key(&d->key);
    drop_mask(&d->mask);
}

static bool make_key(cb_quic_conn *c, ngtcp2_crypto_aead_ctx *out, int cipher, const uint8_t *raw) {
    cb_quic_key *key = c->aead->key_new(cipher, raw, c->alloc);
    if (key) cb_list_add_tail(&c->keys, &key->link);
    out->native_handle = key;
    return key != NULL;
}

static bool derive_key(cb_quic_conn *c, ngtcp2_crypto_aead_ctx *out, uint8_t *iv, const ngtcp2_crypto_ctx *ctx,
                       const version_keys *v, const uint8_t *secret, size_t len) {
    uint8_t raw[CB_QUIC_KEY_MAX];
    int cipher = cipher_of(ctx);
    bool done = expand(raw, cb_quic_cipher_key_len(cipher), hash_of(ctx), secret, len, v->key) &&
                expand(iv, CB_QUIC_NONCE, hash_of(ctx), secret, len, v->iv) && make_key(c, out, cipher, raw);
    cb_mem_wipe(raw, sizeof raw);
    return done;
}

static bool derive(cb_quic_conn *c, direction *out, const ngtcp2_crypto_ctx *ctx, const version_keys *v,
                   const uint8_t *secret, size_t len) {
    uint8_t raw[CB_QUIC_KEY_MAX];
    int cipher = cipher_of(ctx);
    *out = (direction){0};
    bool done = derive_key(c, &out->key, out->iv, ctx, v, secret, len) &&
                expand(raw, cb_quic_cipher_key_len(cipher), hash_of(ctx), secret, len, v->hp) &&
                (out->mask.native_handle = c->aead->mask_new(cipher, raw, c->alloc)) != NULL;
    cb_mem_wipe(raw, sizeof raw);
    if (!done) drop(out);
    return done;
}

/* --- Initial packets --- */

static bool derive_initial(cb_quic_conn *c, direction *rx, direction *tx, const ngtcp2_crypto_ctx *ctx,
                           uint32_t version, const ngtcp2_cid *dcid) {
    const version_keys *v = keys_of(version);
    uint8_t initial[INITIAL_SECRET], client[INITIAL_SECRET], server[INITIAL_SECRET];
    gnutls_datum_t id = {(uint8_t *)(uintptr_t)dcid->data, (unsigned)dcid->datalen};
    gnutls_datum_t salt = {(uint8_t *)(uintptr_t)v->salt, sizeof v->salt};
    *rx = *tx = (direction){0};
    if (gnutls_hkdf_extract(GNUTLS_MAC_SHA256, &id, &salt, initial) != 0) return false;
    if (!expand(client, sizeof client, GNUTLS_MAC_SHA256, initial, sizeof initial, "client in")) return false;
    if (!expand(server, sizeof server, GNUTLS_MAC_SHA256, initial, sizeof initial, "server in")) return false;
    if (!derive(c, rx, ctx, v, c->server ? client : server, INITIAL_SECRET)) return false;
    if (derive(c, tx, ctx, v, c->server ? server : client, INITIAL_SECRET)) return true;
    drop(rx);
    return false;
}

/* A client checks the tag of a Retry packet. */
static bool set_retry_key(cb_quic_conn *c, const ngtcp2_crypto_ctx *ctx, uint32_t version) {
    const uint8_t *raw = (const uint8_t *)keys_of(version)->retry;
    ngtcp2_crypto_aead_ctx key;
    if (!make_key(c, &key, CB_QUIC_AES_128_GCM, raw)) return false;
    ngtcp2_conn_set_retry_aead(c->ng, &ctx->aead, &key);
    return true;
}

static int install_initial(cb_quic_conn *c, const ngtcp2_cid *dcid) {
    uint32_t version = ngtcp2_conn_get_client_chosen_version(c->ng);
    ngtcp2_crypto_ctx ctx;
    direction rx, tx;
    fill_context(&ctx, GNUTLS_CIPHER_AES_128_GCM, GNUTLS_DIG_SHA256);
    ctx.max_encryption = ctx.max_decryption_failure = 0; /* anybody can forge these packets: nothing to count */
    ngtcp2_conn_set_initial_crypto_ctx(c->ng, &ctx);
    if (!derive_initial(c, &rx, &tx, &ctx, version, dcid)) return NGTCP2_ERR_CALLBACK_FAILURE;
    if (ngtcp2_conn_install_initial_key(c->ng, &rx.key, rx.iv, &rx.mask, &tx.key, tx.iv, &tx.mask, CB_QUIC_NONCE)) {
        drop(&rx);
        drop(&tx);
        return NGTCP2_ERR_CALLBACK_FAILURE;
    }
    if (c->server || ngtcp2_conn_after_retry(c->ng) || set_retry_key(c, &ctx, version)) return 0;
    return NGTCP2_ERR_CALLBACK_FAILURE;
}

int cb_quic_keys_client_initial(cb_quic_conn *c) {
    return install_initial(c, ngtcp2_conn_get_dcid(c->ng));
}

int cb_quic_keys_server_initial(ngtcp2_conn *ng, const ngtcp2_cid *dcid, void *user) {
    (void)ng;
    return install_initial(user, dcid);
}

int cb_quic_keys_retry(ngtcp2_conn *ng, const ngtcp2_pkt_hd *hd, void *user) {
    const cb_quic_conn *c = user;
    (void)ng;
    cb_cells_add(c->cells, CB_C_QUIC_RETRIES_IN, 1);
    return install_initial(user, &hd->scid);
}

int cb_quic_keys_version(ngtcp2_conn *ng, uint32_t version, const ngtcp2_cid *client_dcid, void *user) {
    direction rx, tx;
    if (!derive_initial(user, &rx, &tx, ngtcp2_conn_get_initial_crypto_ctx(ng), version, client_dcid)) {
        return NGTCP2_ERR_CALLBACK_FAILURE;
    }
    if (ngtcp2_conn_install_vneg_initial_key(ng, version, &rx.key, rx.iv, &rx.mask, &tx.key, tx.iv, &tx.mask,
                                             CB_QUIC_NONCE) == 0) {
        return 0;
    }
    drop(&rx);
    drop(&tx);
    return NGTCP2_ERR_CALLBACK_FAILURE;
}

/* --- the handshake's and those after it --- */

/* NULL: a suite that is not spoken here. */
static const ngtcp2_crypto_ctx *context_of(cb_quic_conn *c, ngtcp2_encryption_level level) {
    gnutls_session_t session = cb_tls_session_handle(c->tls);
    ngtcp2_crypto_ctx made;
    if (level == NGTCP2_ENCRYPTION_LEVEL_0RTT) {
        if (!fill_context(&made, gnutls_early_cipher_get(session), gnutls_early_prf_hash_get(session))) return NULL;
        ngtcp2_conn_set_0rtt_crypto_ctx(c->ng, &made);
        return ngtcp2_conn_get_0rtt_crypto_ctx(c->ng);
    }
    const ngtcp2_crypto_ctx *ctx = ngtcp2_conn_get_crypto_ctx(c->ng);
    if (ctx->aead.native_handle) return ctx;
    if (!fill_context(&made, gnutls_cipher_get(session), gnutls_prf_hash_get(session))) return NULL;
    ngtcp2_conn_set_crypto_ctx(c->ng, &made);
    return ctx;
}

static int install(cb_quic_conn *c, ngtcp2_encryption_level level, bool rx, const uint8_t *secret, size_t len,
                   direction *d) {
    switch (level) {
    case NGTCP2_ENCRYPTION_LEVEL_0RTT:
        return ngtcp2_conn_install_0rtt_key(c->ng, &d->key, d->iv, sizeof d->iv, &d->mask);
    case NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE:
        return rx ? ngtcp2_conn_install_rx_handshake_key(c->ng, &d->key, d->iv, sizeof d->iv, &d->mask)
                  : ngtcp2_conn_install_tx_handshake_key(c->ng, &d->key, d->iv, sizeof d->iv, &d->mask);
    case NGTCP2_ENCRYPTION_LEVEL_1RTT:
        return rx ? ngtcp2_conn_install_rx_key(c->ng, secret, len, &d->key, d->iv, sizeof d->iv, &d->mask)
                  : ngtcp2_conn_install_tx_key(c->ng, secret, len, &d->key, d->iv, sizeof d->iv, &d->mask);
    default:
        return NGTCP2_ERR_INVALID_ARGUMENT;
    }
}

static int take_secret(cb_quic_conn *c, ngtcp2_encryption_level level, bool rx, const uint8_t *secret, size_t len) {
    direction d;
    bool early = level == NGTCP2_ENCRYPTION_LEVEL_0RTT;
    if (early && rx != c->server) return 0; /* goes one way */
    const ngtcp2_crypto_ctx *ctx = context_of(c, level);
    if (!ctx) return -1;
    uint32_t version = early ? ngtcp2_conn_get_client_chosen_version(c->ng) : ngtcp2_conn_get_negotiated_version(c->ng);
    if (!derive(c, &d, ctx, keys_of(version), secret, len)) return -1;
    if (install(c, level, rx, secret, len, &d) == 0) return 0;
    drop(&d);
    return -1;
}

static int on_secret(gnutls_session_t session, gnutls_record_encryption_level_t tls_level, const void *rx,
                     const void *tx, size_t len) {
    cb_quic_conn *c = ((ngtcp2_crypto_conn_ref *)gnutls_session_get_ptr(session))->user_data;
    ngtcp2_encryption_level level = ngtcp2_crypto_gnutls_from_gnutls_record_encryption_level(tls_level);
    if (rx && take_secret(c, level, true, rx, len) != 0) return -1;
    return tx ? take_secret(c, level, false, tx, len) : 0;
}

void cb_quic_keys_attach(cb_quic_conn *c) {
    gnutls_handshake_set_secret_function(cb_tls_session_handle(c->tls), on_secret);
}

int cb_quic_keys_update(ngtcp2_conn *ng, uint8_t *rx_secret, uint8_t *tx_secret, ngtcp2_crypto_aead_ctx *rx_ctx,
                        uint8_t *rx_iv, ngtcp2_crypto_aead_ctx *tx_ctx, uint8_t *tx_iv, const uint8_t *old_rx,
                        const uint8_t *old_tx, size_t secret_len, void *user) {
    cb_quic_conn *c = user;
    const ngtcp2_crypto_ctx *ctx = ngtcp2_conn_get_crypto_ctx(ng);
    const version_keys *v = keys_of(ngtcp2_conn_get_negotiated_version(ng));
    /* ngtcp2 asks for keys in advance: for the first time when the handshake is confirmed, then some time after each
     * update, whoever began it. */
    if (c->keys_made++ && !c->key_update_ours) cb_cells_add(c->cells, CB_C_QUIC_KEY_UPDATES_PEER, 1);
    c->key_update_ours = false;
    if (!expand(rx_secret, secret_len, hash_of(ctx), old_rx, secret_len, v->update) ||
        !expand(tx_secret, secret_len, hash_of(ctx), old_tx, secret_len, v->update) ||
        !derive_key(c, rx_ctx, rx_iv, ctx, v, rx_secret, secret_len)) {
        return NGTCP2_ERR_CALLBACK_FAILURE;
    }
    if (derive_key(c, tx_ctx, tx_iv, ctx, v, tx_secret, secret_len)) return 0;
    drop_key(rx_ctx);
    return NGTCP2_ERR_CALLBACK_FAILURE;
}

void cb_quic_keys_rest(cb_quic_conn *c) {
    for (cb_list *l = c->keys.next; l != &c->keys; l = l->next) {
        cb_quic_key *key = CB_CONTAINER(l, cb_quic_key, link);
        if (key->rest) key->rest(key);
    }
}

/* --- packets --- */

int cb_quic_keys_encrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *ctx,
                         const uint8_t *text, size_t len, const uint8_t *nonce, size_t nonce_len, const uint8_t *aad,
                         size_t aad_len) {
    cb_quic_key *key = ctx->native_handle;
    (void)aead;
    (void)nonce_len;
    return key->seal(key, dest, text, len, nonce, aad, aad_len) ? 0 : NGTCP2_ERR_CALLBACK_FAILURE;
}

int cb_quic_keys_decrypt(uint8_t *dest, const ngtcp2_crypto_aead *aead, const ngtcp2_crypto_aead_ctx *ctx,
                         const uint8_t *sealed, size_t len, const uint8_t *nonce, size_t nonce_len, const uint8_t *aad,
                         size_t aad_len) {
    cb_quic_key *key = ctx->native_handle;
    (void)aead;
    (void)nonce_len;
    if (len < CB_QUIC_TAG) return NGTCP2_ERR_DECRYPT;
    return key->open(key, dest, sealed, len - CB_QUIC_TAG, nonce, aad, aad_len) ? 0 : NGTCP2_ERR_DECRYPT;
}

int cb_quic_keys_mask(uint8_t *dest, const ngtcp2_crypto_cipher *hp, const ngtcp2_crypto_cipher_ctx *ctx,
                      const uint8_t *sample) {
    cb_quic_mask *mask = ctx->native_handle;
    (void)hp;
    return mask->make(mask, dest, sample) ? 0 : NGTCP2_ERR_CALLBACK_FAILURE;
}

void cb_quic_keys_drop(ngtcp2_conn *ng, ngtcp2_crypto_aead_ctx *ctx, void *user) {
    (void)ng;
    (void)user;
    drop_key(ctx);
}

void cb_quic_keys_drop_mask(ngtcp2_conn *ng, ngtcp2_crypto_cipher_ctx *ctx, void *user) {
    (void)ng;
    (void)user;
    drop_mask(ctx);
}
