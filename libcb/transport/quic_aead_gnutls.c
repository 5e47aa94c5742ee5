/* Packet protection by GnuTLS. */
#include "transport/quic_aead.h"
#include <gnutls/crypto.h>

static const struct {
    gnutls_cipher_algorithm_t aead, mask;
} ciphers[CB_QUIC_CIPHERS] = {
    [CB_QUIC_AES_128_GCM] = {GNUTLS_CIPHER_AES_128_GCM, GNUTLS_CIPHER_AES_128_CBC},
    [CB_QUIC_AES_256_GCM] = {GNUTLS_CIPHER_AES_256_GCM, GNUTLS_CIPHER_AES_256_CBC},
    [CB_QUIC_CHACHA20_POLY1305] = {GNUTLS_CIPHER_CHACHA20_POLY1305, GNUTLS_CIPHER_CHACHA20_32},
};

static gnutls_datum_t datum(int cipher, const uint8_t *key) {
    return (gnutls_datum_t){(uint8_t *)(uintptr_t)key, (unsigned)cb_quic_cipher_key_len(cipher)};
}

/* --- keys --- */

typedef struct {
    cb_quic_key key;
    gnutls_aead_cipher_hd_t handle;
} aead_key;

static bool seal(cb_quic_key *k, uint8_t *dst, const uint8_t *src, size_t len, const uint8_t *nonce, const uint8_t *aad,
                 size_t aad_len) {
    size_t out = len + CB_QUIC_TAG;
    return gnutls_aead_cipher_encrypt(((aead_key *)k)->handle, nonce, CB_QUIC_NONCE, aad, aad_len, CB_QUIC_TAG, src,
                                      len, dst, &out) == 0;
}

static bool open_sealed(cb_quic_key *k, uint8_t *dst, const uint8_t *src, size_t len, const uint8_t *nonce,
                        const uint8_t *aad, size_t aad_len) {
    size_t out = len;
    return gnutls_aead_cipher_decrypt(((aead_key *)k)->handle, nonce, CB_QUIC_NONCE, aad, aad_len, CB_QUIC_TAG, src,
                                      len + CB_QUIC_TAG, dst, &out) == 0;
}

static void key_free(cb_quic_key *k) {
    gnutls_aead_cipher_deinit(((aead_key *)k)->handle);
    cb_mem_free(k->alloc, k);
}

static cb_quic_key *key_new(int cipher, const uint8_t *key, const cb_alloc *alloc) {
    gnutls_datum_t raw = datum(cipher, key);
    aead_key *k = cb_mem_new(alloc, sizeof *k);
    if (!k) return NULL;
    if (gnutls_aead_cipher_init(&k->handle, ciphers[cipher].aead, &raw) != 0) {
        cb_mem_free(alloc, k);
        return NULL;
    }
    k->key = (cb_quic_key){.alloc = alloc, .seal = seal, .open = open_sealed, .free = key_free};
    cb_list_init(&k->key.link);
    return &k->key;
}

/* --- masks --- */

typedef struct {
    cb_quic_mask mask;
    gnutls_cipher_hd_t handle;
} hp_mask;

/* CBC with an initial value of zeros is one block as it is (RFC 9001, 5.4.3). */
static bool make_aes(cb_quic_mask *m, uint8_t *out, const uint8_t *sample) {
    static const uint8_t zeros[CB_QUIC_SAMPLE];
    gnutls_cipher_hd_t handle = ((hp_mask *)m)->handle;
    gnutls_cipher_set_iv(handle, (void *)(uintptr_t)zeros, sizeof zeros);
    return gnutls_cipher_encrypt2(handle, sample, CB_QUIC_SAMPLE, out, CB_QUIC_SAMPLE) == 0;
}

/* The sample is block counter and nonce (RFC 9001, 5.4.4). */
static bool make_chacha(cb_quic_mask *m, uint8_t *out, const uint8_t *sample) {
    static const uint8_t zeros[CB_QUIC_MASK];
    gnutls_cipher_hd_t handle = ((hp_mask *)m)->handle;
    gnutls_cipher_set_iv(handle, (void *)(uintptr_t)sample, CB_QUIC_SAMPLE);
    return gnutls_cipher_encrypt2(handle, zeros, sizeof zeros, out, CB_QUIC_SAMPLE) == 0;
}

static void mask_free(cb_quic_mask *m) {
    gnutls_cipher_deinit(((hp_mask *)m)->handle);
    cb_mem_free(m->alloc, m);
}

static cb_quic_mask *mask_new(int cipher, const uint8_t *key, const cb_alloc *alloc) {
    gnutls_datum_t raw = datum(cipher, key);
    hp_mask *m = cb_mem_new(alloc, sizeof *m);
    if (!m) return NULL;
    if (gnutls_cipher_init(&m->handle, ciphers[cipher].mask, &raw, NULL) != 0) {
        cb_mem_free(alloc, m);
        return NULL;
    }
    m->mask = (cb_quic_mask){alloc, cipher == CB_QUIC_CHACHA20_POLY1305 ? make_chacha : make_aes, mask_free};
    return &m->mask;
}

const cb_quic_aead cb_quic_aead_gnutls = {CB_AEAD_GNUTLS, key_new, mask_new};
