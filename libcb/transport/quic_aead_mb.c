/* Packet protection by libipsec-mb (x86-64), one packet at a time: ngtcp2 hands over no more. */
#include "transport/quic_aead.h"

#ifdef CB_HAVE_IPSEC_MB
#include <gnutls/gnutls.h>
#include <immintrin.h>
#include <intel-ipsec-mb.h>
#include <string.h>

/* The one manager of the process, made once (quic_aead_choice.c) and only read after: it holds the functions that fit
 * the processor. The single-shot calls used here keep no state in it. */
static IMB_MGR *mb;

/* --- keys --- */

/* The library's own header asks for it only when it builds itself. */
enum { ALIGN = 64 };

/* What GCM computes with. */
typedef struct {
    _Alignas(ALIGN) struct gcm_key_data data;
    void *block; /* what was allocated: the data want more alignment than an allocator gives */
} gcm_tables;

/* The tables are made at the first packet and after each rest: of four keys that a connection has, two are those of the
 * next key phase, which hardly any connection sees, and making them takes a tenth of a microsecond. */
typedef struct {
    cb_quic_key key;
    aes_gcm_enc_dec_t encrypt, decrypt;
    aes_gcm_pre_t prepare;
    gcm_tables *gcm;
    uint8_t raw[CB_QUIC_KEY_MAX];
} mb_key;

static bool make_tables(mb_key *k) {
    void *block = cb_mem_get(k->key.alloc, sizeof(gcm_tables) + ALIGN - 1);
    if (!block) return false;
    k->gcm = (gcm_tables *)(((uintptr_t)block + ALIGN - 1) & ~(uintptr_t)(ALIGN - 1));
    k->gcm->block = block;
    k->prepare(k->raw, &k->gcm->data);
    return true;
}

/* The library makes the tag of what came; whether it is the one that came is for us to say. */
static bool authentic(uint8_t *dst, size_t len, const uint8_t *made, const uint8_t *came) {
    if (gnutls_memcmp(made, came, CB_QUIC_TAG) == 0) return true;
    memset(dst, 0, len);
    return false;
}

static bool gcm_seal(cb_quic_key *key, uint8_t *dst, const uint8_t *src, size_t len, const uint8_t *nonce,
                     const uint8_t *aad, size_t aad_len) {
    mb_key *k = (mb_key *)key;
    _Alignas(ALIGN) struct gcm_context_data state;
    if (!k->gcm && !make_tables(k)) return false;
    k->encrypt(&k->gcm->data, &state, dst, src, len, nonce, aad, aad_len, dst + len, CB_QUIC_TAG);
    return true;
}

static bool gcm_open(cb_quic_key *key, uint8_t *dst, const uint8_t *src, size_t len, const uint8_t *nonce,
                     const uint8_t *aad, size_t aad_len) {
    mb_key *k = (mb_key *)key;
    _Alignas(ALIGN) struct gcm_context_data state;
    uint8_t tag[CB_QUIC_TAG];
    if (!k->gcm && !make_tables(k)) return false;
    k->decrypt(&k->gcm->data, &state, dst, src, len, nonce, aad, aad_len, tag, CB_QUIC_TAG);
    return authentic(dst, len, tag, src + len);
}

static bool chacha_seal(cb_quic_key *key, uint8_t *dst, const uint8_t *src, size_t len, const uint8_t *nonce,
                        const uint8_t *aad, size_t aad_len) {
    const uint8_t *raw = ((const mb_key *)key)->raw;
    _Alignas(ALIGN) struct chacha20_poly1305_context_data state;
    IMB_CHACHA20_POLY1305_INIT(mb, raw, &state, nonce, aad, aad_len);
    IMB_CHACHA20_POLY1305_ENC_UPDATE(mb, raw, &state, dst, src, len);
    IMB_CHACHA20_POLY1305_ENC_FINALIZE(mb, &state, dst + len, CB_QUIC_TAG);
    cb_mem_wipe(&state, sizeof state);
    return true;
}

static bool chacha_open(cb_quic_key *key, uint8_t *dst, const uint8_t *src, size_t len, const uint8_t *nonce,
                        const uint8_t *aad, size_t aad_len) {
    const uint8_t *raw = ((const mb_key *)key)->raw;
    _Alignas(ALIGN) struct chacha20_poly1305_context_data state;
    uint8_t tag[CB_QUIC_TAG];
    IMB_CHACHA20_POLY1305_INIT(mb, raw, &state, nonce, aad, aad_len);
    IMB_CHACHA20_POLY1305_DEC_UPDATE(mb, raw, &state, dst, src, len);
    IMB_CHACHA20_POLY1305_DEC_FINALIZE(mb, &state, tag, CB_QUIC_TAG);
    cb_mem_wipe(&state, sizeof state);
    return authentic(dst, len, tag, src + len);
}

static void rest(cb_quic_key *key) {
    mb_key *k = (mb_key *)key;
    if (!k->gcm) return;
    void *block = k->gcm->block;
    cb_mem_wipe(k->gcm, sizeof *k->gcm);
    cb_mem_free(key->alloc, block);
    k->gcm = NULL;
}

static void key_free(cb_quic_key *key) {
    const cb_alloc *alloc = key->alloc;
    rest(key);
    cb_mem_wipe(key, sizeof(mb_key));
    cb_mem_free(alloc, key);
}

static cb_quic_key *key_new(int cipher, const uint8_t *key, const cb_alloc *alloc) {
    mb_key *k = cb_mem_new(alloc, sizeof *k);
    if (!k) return NULL;
    memcpy(k->raw, key, cb_quic_cipher_key_len(cipher));
    k->key = (cb_quic_key){.alloc = alloc, .seal = gcm_seal, .open = gcm_open, .rest = rest, .free = key_free};
    cb_list_init(&k->key.link);
    switch (cipher) {
    case CB_QUIC_AES_128_GCM:
        k->encrypt = mb->gcm128_enc;
        k->decrypt = mb->gcm128_dec;
        k->prepare = mb->gcm128_pre;
        break;
    case CB_QUIC_AES_256_GCM:
        k->encrypt = mb->gcm256_enc;
        k->decrypt = mb->gcm256_dec;
        k->prepare = mb->gcm256_pre;
        break;
    default:
        k->key.seal = chacha_seal;
        k->key.open = chacha_open;
        break;
    }
    return &k->key;
}

/* --- masks --- */

/* One block of AES each, by the processor's instructions: the library takes single blocks as queued jobs only. */
typedef struct {
    cb_quic_mask mask;
    unsigned rounds;
    uint8_t round_keys[][16]; /* rounds + 1 */
} aes_mask;

static size_t mask_size(unsigned rounds) {
    return sizeof(aes_mask) + (rounds + 1) * sizeof((aes_mask *)NULL)->round_keys[0];
}

__attribute__((target("aes,sse2"))) static bool make(cb_quic_mask *m, uint8_t *out, const uint8_t *sample) {
    const aes_mask *a = (const aes_mask *)m;
    const __m128i *keys = (const __m128i *)(const void *)a->round_keys;
    __m128i block = _mm_loadu_si128((const __m128i *)(const void *)sample);
    block = _mm_xor_si128(block, _mm_loadu_si128(keys));
    for (unsigned i = 1; i < a->rounds; i++) {
        block = _mm_aesenc_si128(block, _mm_loadu_si128(keys + i));
    }
    block = _mm_aesenclast_si128(block, _mm_loadu_si128(keys + a->rounds));
    _mm_storeu_si128((__m128i *)(void *)out, block);
    return true;
}

static void mask_free(cb_quic_mask *m) {
    const cb_alloc *alloc = m->alloc;
    cb_mem_wipe(m, mask_size(((aes_mask *)m)->rounds));
    cb_mem_free(alloc, m);
}

static cb_quic_mask *mask_new(int cipher, const uint8_t *key, const cb_alloc *alloc) {
    if (cipher == CB_QUIC_CHACHA20_POLY1305) return cb_quic_aead_gnutls.mask_new(cipher, key, alloc);
    const unsigned rounds = cipher == CB_QUIC_AES_128_GCM ? 10 : 14;
    aes_mask *m = cb_mem_get(alloc, mask_size(rounds));
    if (!m) return NULL;
    m->rounds = rounds;
    _Alignas(16) uint8_t encrypt[15 * 16], decrypt[15 * 16];
    if (rounds == 10)
        IMB_AES_KEYEXP_128(mb, key, encrypt, decrypt);
    else
        IMB_AES_KEYEXP_256(mb, key, encrypt, decrypt);
    m->mask = (cb_quic_mask){alloc, make, mask_free};
    memcpy(m->round_keys, encrypt, (m->rounds + 1) * sizeof m->round_keys[0]);
    cb_mem_wipe(encrypt, sizeof encrypt);
    cb_mem_wipe(decrypt, sizeof decrypt);
    return &m->mask;
}

const cb_quic_aead *cb_quic_aead_mb(void) {
    static const cb_quic_aead self = {CB_AEAD_IPSEC_MB, key_new, mask_new};
    const uint64_t needs = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ;
    IMB_ARCH arch = IMB_ARCH_NONE;
    IMB_MGR *manager = alloc_mb_mgr(0);
    if (!manager) return NULL;
    init_mb_mgr_auto(manager, &arch);
    if (imb_get_errno(manager) != 0 || arch == IMB_ARCH_NONE || (manager->features & needs) != needs) {
        free_mb_mgr(manager);
        return NULL;
    }
    mb = manager;
    return &self;
}
#else
const cb_quic_aead *cb_quic_aead_mb(void) {
    return NULL;
}
#endif
