/* The seam of packet protection (RFC 9001, 5): who computes AEADs and header masks. GnuTLS always can
 * (quic_aead_gnutls.c); libipsec-mb is faster where it is built in and proves itself (quic_aead_mb.c).
 * quic_aead_choice.c chooses, quic_keys.c makes keys of secrets and hands them to ngtcp2. */
#ifndef CB_TRANSPORT_QUIC_AEAD_H
#define CB_TRANSPORT_QUIC_AEAD_H

#include "base/list.h"
#include "base/mem.h"
#include <cb/quic.h>
#include <stdbool.h>

enum cb_quic_cipher { CB_QUIC_AES_128_GCM, CB_QUIC_AES_256_GCM, CB_QUIC_CHACHA20_POLY1305, CB_QUIC_CIPHERS };
enum { CB_QUIC_TAG = 16, CB_QUIC_NONCE = 12, CB_QUIC_SAMPLE = 16, CB_QUIC_MASK = 5, CB_QUIC_KEY_MAX = 32 };

static inline size_t cb_quic_cipher_key_len(int cipher) {
    return cipher == CB_QUIC_AES_128_GCM ? 16 : 32;
}

/* One key of one direction. The text may be sealed and opened in place. */
typedef struct cb_quic_key {
    cb_list link; /* its owner's */
    const cb_alloc *alloc;
    /* dst takes len + CB_QUIC_TAG bytes. */
    bool (*seal)(struct cb_quic_key *k, uint8_t *dst, const uint8_t *src, size_t len, const uint8_t *nonce,
                 const uint8_t *aad, size_t aad_len);
    /* len counts without the tag, which follows src. False: not authentic; dst holds nothing of use. */
    bool (*open)(struct cb_quic_key *k, uint8_t *dst, const uint8_t *src, size_t len, const uint8_t *nonce,
                 const uint8_t *aad, size_t aad_len);
    void (*rest)(struct cb_quic_key *k); /* gives back what the next packet can make again; may be NULL */
    void (*free)(struct cb_quic_key *k); /* wipes it */
} cb_quic_key;

/* A key of header protection. */
typedef struct cb_quic_mask {
    const cb_alloc *alloc;
    /* Of out, CB_QUIC_MASK bytes count; as many as CB_QUIC_SAMPLE may be written. */
    bool (*make)(struct cb_quic_mask *m, uint8_t *out, const uint8_t *sample);
    void (*free)(struct cb_quic_mask *m); /* wipes it */
} cb_quic_mask;

/* Who computes. key has cb_quic_cipher_key_len() bytes. NULL: no memory. */
typedef struct cb_quic_aead {
    int id; /* enum cb_aead */
    cb_quic_key *(*key_new)(int cipher, const uint8_t *key, const cb_alloc *alloc);
    cb_quic_mask *(*mask_new)(int cipher, const uint8_t *key, const cb_alloc *alloc);
} cb_quic_aead;

extern const cb_quic_aead cb_quic_aead_gnutls;
/* NULL: not built in, or not for this processor. Not thread-safe: quic_aead_choice.c calls it once. */
const cb_quic_aead *cb_quic_aead_mb(void);

#endif
