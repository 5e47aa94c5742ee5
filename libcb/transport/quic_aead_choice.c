/* Chooses who protects packets: libipsec-mb where it computes right and is faster here, else GnuTLS. */
#include "transport/quic_aead_choice.h"
#include "base/error.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { TEXT_MAX = 1472, TEXT_STEP = 61, TIMED = 1350, PACKETS = 16, ROUNDS = 5 };

/* --- does it compute right? --- */

/* The fourth and sixteenth test cases of "The Galois/Counter Mode of Operation" (McGrew, Viega) and RFC 9001, A.5. */
static const struct {
    int cipher;
    const char *key, *nonce, *aad, *text, *sealed;
} known_texts[] = {
    {CB_QUIC_AES_128_GCM, "feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
     "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657"
     "ba637b39",
     "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac97"
     "3d58e0915bc94fbc3221a5db94fae95ae7121a47"},
    {CB_QUIC_AES_256_GCM, "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
     "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2",
     "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657"
     "ba637b39",
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0a"
     "bcc9f66276fc6ece0f4e1768cddf8853bb2d551b"},
    {CB_QUIC_CHACHA20_POLY1305, "c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8",
     "e0459b3474bdd0e46d417eb0", "4200bff4", "01", "655e5cd55c41f69080575d7999c25a5bfb"},
};

/* FIPS 197, C.1 and C.3, and RFC 9001, A.5. */
static const struct {
    int cipher;
    const char *key, *sample, *mask;
} known_masks[] = {
    {CB_QUIC_AES_128_GCM, "000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", "69c4e0d86a"},
    {CB_QUIC_AES_256_GCM, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
     "00112233445566778899aabbccddeeff", "8ea2b7ca51"},
    {CB_QUIC_CHACHA20_POLY1305, "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4",
     "5e5cd55c41f69080575d7999c25a5bfb", "aefefe7d03"},
};

/* Of a table of ours: nothing in it is wrong. Returns the length. */
static size_t bytes_of(uint8_t *out, const char *hex) {
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    for (; hex[2 * n]; n++) {
        out[n] = (uint8_t)((strchr(digits, hex[2 * n]) - digits) << 4 | (strchr(digits, hex[2 * n + 1]) - digits));
    }
    return n;
}

static bool knows_text(const cb_quic_aead *a, size_t i) {
    uint8_t raw[CB_QUIC_KEY_MAX], nonce[CB_QUIC_NONCE], aad[32], text[64], sealed[80], out[80];
    bytes_of(raw, known_texts[i].key);
    bytes_of(nonce, known_texts[i].nonce);
    size_t aad_len = bytes_of(aad, known_texts[i].aad), len = bytes_of(text, known_texts[i].text);
    size_t sealed_len = bytes_of(sealed, known_texts[i].sealed);
    cb_quic_key *key = a->key_new(known_texts[i].cipher, raw, &cb_alloc_libc);
    if (!key) return false;
    bool right = key->seal(key, out, text, len, nonce, aad, aad_len) && memcmp(out, sealed, sealed_len) == 0 &&
                 key->open(key, out, sealed, len, nonce, aad, aad_len) && memcmp(out, text, len) == 0;
    sealed[sealed_len - 1] ^= 1;
    right = right && !key->open(key, out, sealed, len, nonce, aad, aad_len);
    key->free(key);
    return right;
}

static bool knows_mask(const cb_quic_aead *a, size_t i) {
    uint8_t raw[CB_QUIC_KEY_MAX], sample[CB_QUIC_SAMPLE], mask[CB_QUIC_MASK], out[CB_QUIC_SAMPLE];
    bytes_of(raw, known_masks[i].key);
    bytes_of(sample, known_masks[i].sample);
    bytes_of(mask, known_masks[i].mask);
    cb_quic_mask *m = a->mask_new(known_masks[i].cipher, raw, &cb_alloc_libc);
    if (!m) return false;
    bool right = m->make(m, out, sample) && memcmp(out, mask, sizeof mask) == 0;
    m->free(m);
    return right;
}

/* The same as GnuTLS at many lengths: known answers are too short to reach every path of a fast implementation. */
static bool agrees(cb_quic_key *key, cb_quic_key *other) {
    uint8_t text[TEXT_MAX], mine[TEXT_MAX + CB_QUIC_TAG], theirs[TEXT_MAX + CB_QUIC_TAG], nonce[CB_QUIC_NONCE] = {7};
    memset(text, 0x5a, sizeof text);
    for (size_t len = 1; len <= TEXT_MAX; len += TEXT_STEP) {
        size_t aad_len = 1 + len % 40;
        if (!key->seal(key, mine, text, len, nonce, text, aad_len)) return false;
        if (!other->seal(other, theirs, text, len, nonce, text, aad_len)) return false;
        if (memcmp(mine, theirs, len + CB_QUIC_TAG) != 0) return false;
        if (!key->open(key, mine, mine, len, nonce, text, aad_len) || memcmp(mine, text, len) != 0) return false;
        theirs[len / 2] ^= 0x10;
        if (key->open(key, mine, theirs, len, nonce, text, aad_len)) return false;
    }
    return true;
}

typedef bool pair_test(cb_quic_key *key, cb_quic_key *other);

static bool with_keys(const cb_quic_aead *a, int cipher, pair_test *test) {
    static const uint8_t raw[CB_QUIC_KEY_MAX] = {1, 2, 3};
    cb_quic_key *key = a->key_new(cipher, raw, &cb_alloc_libc);
    cb_quic_key *other = cb_quic_aead_gnutls.key_new(cipher, raw, &cb_alloc_libc);
    bool passed = key && other && test(key, other);
    if (key) key->free(key);
    if (other) other->free(other);
    return passed;
}

bool cb_quic_aead_proves(const cb_quic_aead *a) {
    bool right = true;
    for (size_t i = 0; right && i < CB_QUIC_CIPHERS; i++) {
        right = knows_text(a, i) && knows_mask(a, i) && with_keys(a, (int)i, agrees);
    }
    return right;
}

/* --- is it faster? --- */

static uint64_t clock_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

/* What sealing some packets takes at best: a pause of the thread in one round does not count. */
static uint64_t time_of(cb_quic_key *key) {
    uint8_t text[TIMED + CB_QUIC_TAG] = {0}, nonce[CB_QUIC_NONCE] = {0};
    uint64_t best = UINT64_MAX;
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t start = clock_ns();
        for (int i = 0; i < PACKETS; i++) {
            if (!key->seal(key, text, text, TIMED, nonce, nonce, sizeof nonce)) return UINT64_MAX;
        }
        uint64_t took = clock_ns() - start;
        if (took < best) best = took;
    }
    return best;
}

static bool faster(cb_quic_key *key, cb_quic_key *other) {
    return time_of(key) < time_of(other);
}

static bool wins(const cb_quic_aead *a) {
    for (int cipher = 0; cipher < CB_QUIC_CIPHERS; cipher++) {
        if (!with_keys(a, cipher, faster)) return false;
    }
    return true;
}

/* --- the choice --- */

/* What the test found out. Written once, under `once`; what a processor can do does not change. */
static struct {
    const cb_quic_aead *mb; /* NULL: not there, or it computes wrong */
    bool wins;
    const char *verdict;
} found;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_flag told = ATOMIC_FLAG_INIT;

static void test_all(void) {
    const cb_quic_aead *mb = cb_quic_aead_mb();
    if (!mb) {
        found.verdict = "libipsec-mb is not built in or does not fit this processor";
    } else if (!cb_quic_aead_proves(mb)) {
        found.verdict = "libipsec-mb failed its known answers";
    } else {
        found.mb = mb;
        found.wins = wins(mb);
        found.verdict = found.wins ? "libipsec-mb is faster here" : "GnuTLS is faster here than libipsec-mb";
    }
}

static int parse(const char *name) {
    static const char *const words[] = {"auto", "gnutls", "ipsec-mb"};
    for (int i = 0; i < (int)(sizeof words / sizeof words[0]); i++) {
        if (strcasecmp(name, words[i]) == 0) return i;
    }
    return cb_fail(CB_EINVAL, "environment CBR_AEAD: \"%s\" is not one of auto, gnutls, ipsec-mb", name);
}

int cb_quic_aead_choose(const cb_quic_aead **out, int option, const char *environment, const cb_log *log) {
    if (option < CB_AEAD_DEFAULT || option > CB_AEAD_IPSEC_MB) {
        return cb_fail(CB_EINVAL, "packet protection %d: no such number", option);
    }
    if (option == CB_AEAD_DEFAULT && environment && *environment && (option = parse(environment)) < 0) return option;
    *out = &cb_quic_aead_gnutls;
    if (option == CB_AEAD_GNUTLS) return CB_OK;
    pthread_once(&once, test_all);
    if (!atomic_flag_test_and_set(&told))
        cb_log_line(log, CB_LOG_DEBUG, "quic", "packet protection: %s", found.verdict);
    if (option == CB_AEAD_IPSEC_MB && !found.mb) {
        return cb_fail(CB_ENOTSUP, "packet protection by libipsec-mb: %s", found.verdict);
    }
    if (option == CB_AEAD_IPSEC_MB || found.wins) *out = found.mb;
    return CB_OK;
}

const char *cb_aead_name(int aead) {
    static const char *const names[] = {"default", "gnutls", "ipsec-mb"};
    return aead >= 0 && aead < (int)(sizeof names / sizeof names[0]) ? names[aead] : "unknown";
}
