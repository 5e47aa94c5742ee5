/* The TLS and the keys of a peer driven by hand (RFC 9001). */
#include "support/raw_quic.h"
#include <criterion/criterion.h>
#include <string.h>

/* ---- keys ---- */

static void expand(const uint8_t secret[32], const char *label, uint8_t *out, size_t len) {
    uint8_t info[64];
    size_t n = strlen(label), at = 0;
    info[at++] = 0;
    info[at++] = (uint8_t)len;
    info[at++] = (uint8_t)(6 + n);
    memcpy(info + at, "tls13 ", 6);
    memcpy(info + at + 6, label, n);
    at += 6 + n;
    info[at++] = 0;
    const gnutls_datum_t key = {(uint8_t *)(uintptr_t)secret, 32}, text = {info, (unsigned)at};
    cr_assert_eq(gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &key, &text, out, len), 0);
}

static void key_and_iv(raw_keys *k) {
    uint8_t key[16];
    expand(k->secret, "quic key", key, sizeof key);
    expand(k->secret, "quic iv", k->iv, sizeof k->iv);
    const gnutls_datum_t d = {key, sizeof key};
    if (k->have) gnutls_aead_cipher_deinit(k->aead);
    cr_assert_eq(gnutls_aead_cipher_init(&k->aead, GNUTLS_CIPHER_AES_128_GCM, &d), 0);
    k->have = true;
}

void raw_keys_set(raw_keys *k, const uint8_t secret[32]) {
    memcpy(k->secret, secret, 32);
    expand(k->secret, "quic hp", k->hp, sizeof k->hp);
    key_and_iv(k);
}

void raw_keys_next(raw_keys *k) {
    uint8_t next[32];
    expand(k->secret, "quic ku", next, sizeof next);
    memcpy(k->secret, next, sizeof next);
    key_and_iv(k); /* header protection stays (RFC 9001, 6.1) */
}

void raw_keys_free(raw_keys *k) {
    if (k->have) gnutls_aead_cipher_deinit(k->aead);
    k->have = false;
}

void raw_keys_initial(raw_quic *r, const uint8_t *dcid, size_t len) {
    static const uint8_t salt[] = {0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17,
                                   0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f, 0x0a};
    uint8_t initial[32], client[32], server[32];
    const gnutls_datum_t key = {(uint8_t *)(uintptr_t)dcid, (unsigned)len},
                         with = {(uint8_t *)(uintptr_t)salt, sizeof salt};
    cr_assert_eq(gnutls_hkdf_extract(GNUTLS_MAC_SHA256, &key, &with, initial), 0);
    expand(initial, "client in", client, 32);
    expand(initial, "server in", server, 32);
    raw_keys_set(&r->tx[RAW_INITIAL], r->server ? server : client);
    raw_keys_set(&r->rx[RAW_INITIAL], r->server ? client : server);
}

/* One block of AES-128-ECB, which GnuTLS has as CBC with an empty vector. */
void raw_keys_mask(const raw_keys *k, const uint8_t sample[16], uint8_t mask[16]) {
    uint8_t zero[16] = {0};
    gnutls_cipher_hd_t h;
    const gnutls_datum_t key = {(uint8_t *)(uintptr_t)k->hp, 16}, iv = {zero, 16};
    cr_assert_eq(gnutls_cipher_init(&h, GNUTLS_CIPHER_AES_128_CBC, &key, &iv), 0);
    cr_assert_eq(gnutls_cipher_encrypt2(h, sample, 16, mask, 16), 0);
    gnutls_cipher_deinit(h);
}

/* ---- transport parameters ---- */

void raw_param_add(raw_quic *r, uint64_t id, const void *value, size_t len) {
    raw_varint(&r->params, id);
    raw_varint(&r->params, len);
    cb_buf_add(&r->params, value, len);
}

static bool next_param(cb_slice *in, uint64_t *id, cb_slice *value) {
    *id = raw_varint_get(in);
    uint64_t len = raw_varint_get(in);
    if (len > in->len) return false;
    *value = (cb_slice){in->base, (size_t)len};
    *in = (cb_slice){in->base + len, in->len - (size_t)len};
    return true;
}

void raw_param_drop(raw_quic *r, uint64_t id) {
    cb_slice in = cb_buf_slice(&r->params), value;
    cb_buf kept;
    uint64_t which;
    cb_buf_init(&kept, NULL, 1 << 16);
    while (in.len && next_param(&in, &which, &value)) {
        if (which == id) continue;
        raw_varint(&kept, which);
        raw_varint(&kept, value.len);
        cb_buf_add(&kept, value.base, value.len);
    }
    cb_buf_free(&r->params);
    r->params = kept;
}

bool raw_param_get(const raw_quic *r, uint64_t id, cb_slice *value) {
    cb_slice in = cb_buf_slice(&r->peer_params);
    uint64_t which;
    while (in.len && next_param(&in, &which, value))
        if (which == id) return true;
    return false;
}

void raw_params_default(raw_quic *r) {
    static const struct {
        uint64_t id, value;
    } rows[] = {{0x01, 30000}, {0x04, 1 << 24}, {0x05, 1 << 20}, {0x06, 1 << 20}, {0x07, 1 << 20},
                {0x08, 100},   {0x09, 100},     {0x0e, 4},       {0x20, 1200}};
    cb_buf_drop(&r->params, r->params.len);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_buf v;
        cb_buf_init(&v, NULL, 8);
        raw_varint(&v, rows[i].value);
        raw_param_add(r, rows[i].id, v.base, v.len);
        cb_buf_free(&v);
    }
    raw_param_add(r, 0x0f, r->scid, RAW_CID);
    if (r->server) raw_param_add(r, 0x00, r->odcid, r->odcid_len);
}

/* ---- TLS ---- */

static raw_quic *self(gnutls_session_t s) {
    return gnutls_session_get_ptr(s);
}

static enum raw_level level_of(gnutls_record_encryption_level_t l) {
    return l == GNUTLS_ENCRYPTION_LEVEL_INITIAL     ? RAW_INITIAL
           : l == GNUTLS_ENCRYPTION_LEVEL_HANDSHAKE ? RAW_HANDSHAKE
           : l == GNUTLS_ENCRYPTION_LEVEL_EARLY     ? RAW_EARLY
                                                    : RAW_APP;
}

static int on_secret(gnutls_session_t s, gnutls_record_encryption_level_t level, const void *read, const void *write,
                     size_t size) {
    raw_quic *r = self(s);
    if (size != 32) return GNUTLS_E_INTERNAL_ERROR;
    if (read) raw_keys_set(&r->rx[level_of(level)], read);
    if (write) raw_keys_set(&r->tx[level_of(level)], write);
    return 0;
}

static int on_say(gnutls_session_t s, gnutls_record_encryption_level_t level, gnutls_handshake_description_t type,
                  const void *data, size_t size) {
    if (type == GNUTLS_HANDSHAKE_CHANGE_CIPHER_SPEC) return 0;
    raw_quic *r = self(s);
    cb_buf *out = &r->crypto[level_of(level)];
    if (cb_buf_add(out, data, size) < 0) return GNUTLS_E_MEMORY_ERROR;
    return r->edit ? r->edit(r, level_of(level), out) : 0;
}

static int on_alert(gnutls_session_t s, gnutls_record_encryption_level_t level, gnutls_alert_level_t a,
                    gnutls_alert_description_t d) {
    (void)s, (void)level, (void)a, (void)d;
    return 0;
}

static int params_in(gnutls_session_t s, const unsigned char *data, size_t len) {
    return cb_buf_add(&self(s)->peer_params, data, len) < 0 ? GNUTLS_E_MEMORY_ERROR : 0;
}

static int params_out(gnutls_session_t s, gnutls_buffer_t out) {
    raw_quic *r = self(s);
    if (r->no_params) return 0;
    int rc = gnutls_buffer_append_data(out, r->params.base, r->params.len);
    return rc < 0 ? rc : (int)r->params.len;
}

void raw_tls_make(raw_quic *r, const char *cert, const char *key, const char *sni) {
    const char *priority = r->priority ? r->priority
                                       : "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:-GROUP-ALL:"
                                         "+GROUP-X25519:+GROUP-SECP256R1:%DISABLE_TLS13_COMPAT_MODE";
    unsigned flags = (r->server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK | GNUTLS_NO_AUTO_SEND_TICKET |
                     GNUTLS_NO_END_OF_EARLY_DATA | GNUTLS_KEY_SHARE_TOP |
                     (r->session.size ? GNUTLS_ENABLE_EARLY_DATA : 0);
    cr_assert_eq(gnutls_certificate_allocate_credentials(&r->cred), 0);
    if (cert) cr_assert_eq(gnutls_certificate_set_x509_key_file(r->cred, cert, key, GNUTLS_X509_FMT_PEM), 0);
    cr_assert_eq(gnutls_init(&r->tls, flags), 0);
    gnutls_session_set_ptr(r->tls, r);
    cr_assert_eq(gnutls_priority_set_direct(r->tls, priority, NULL), 0, "%s", priority);
    cr_assert_eq(gnutls_credentials_set(r->tls, GNUTLS_CRD_CERTIFICATE, r->cred), 0);
    if (r->alpn) {
        const gnutls_datum_t d = {(unsigned char *)(uintptr_t)r->alpn, (unsigned)strlen(r->alpn)};
        cr_assert_eq(gnutls_alpn_set_protocols(r->tls, &d, 1, 0), 0);
    }
    if (r->session.size) cr_assert_eq(gnutls_session_set_data(r->tls, r->session.data, r->session.size), 0);
    if (sni) cr_assert_eq(gnutls_server_name_set(r->tls, GNUTLS_NAME_DNS, sni, strlen(sni)), 0);
    gnutls_handshake_set_secret_function(r->tls, on_secret);
    gnutls_handshake_set_read_function(r->tls, on_say);
    gnutls_alert_set_read_function(r->tls, on_alert);
    cr_assert_eq(gnutls_session_ext_register(r->tls, "QUIC Transport Parameters", 0x39, GNUTLS_EXT_TLS, params_in,
                                             params_out, NULL, NULL, NULL,
                                             GNUTLS_EXT_FLAG_TLS | GNUTLS_EXT_FLAG_CLIENT_HELLO | GNUTLS_EXT_FLAG_EE),
                 0);
}

void raw_tls_feed(raw_quic *r, enum raw_level level, const uint8_t *data, size_t len) {
    static const gnutls_record_encryption_level_t levels[] = {
        GNUTLS_ENCRYPTION_LEVEL_INITIAL, GNUTLS_ENCRYPTION_LEVEL_HANDSHAKE, GNUTLS_ENCRYPTION_LEVEL_APPLICATION,
        GNUTLS_ENCRYPTION_LEVEL_EARLY};
    int rc = len ? gnutls_handshake_write(r->tls, levels[level], data, len) : 0;
    if (rc == 0 && !r->complete) {
        rc = gnutls_handshake(r->tls);
        r->complete = rc == 0;
    }
    if (rc < 0 && gnutls_error_is_fatal(rc)) r->tls_rc = rc;
}

void raw_keep_session(raw_quic *r, gnutls_datum_t *out) {
    cr_assert(gnutls_session_get_flags(r->tls) & GNUTLS_SFLAGS_SESSION_TICKET, "no ticket came");
    cr_assert_eq(gnutls_session_get_data2(r->tls, out), 0);
}
