#include "transport/client_hello.h"
#include "base/error.h"
#include <string.h>

enum {
    EXT_SERVER_NAME = 0,
    EXT_SIGNATURE_ALGORITHMS = 13,
    EXT_ALPN = 16,
    EXT_SESSION_TICKET = 35,
    EXT_PRE_SHARED_KEY = 41,
    EXT_EARLY_DATA = 42,
    EXT_SUPPORTED_VERSIONS = 43
};

static const char acme_tls[] = CB_ALPN_ACME;

static bool take(cb_slice *in, size_t n, cb_slice *out) {
    if (in->len < n) return false;
    *out = (cb_slice){in->base, n};
    in->base += n;
    in->len -= n;
    return true;
}

static bool take_uint(cb_slice *in, size_t bytes, size_t *out) {
    cb_slice raw;
    if (!take(in, bytes, &raw)) return false;
    *out = 0;
    for (size_t i = 0; i < bytes; i++) {
        *out = *out << 8 | raw.base[i];
    }
    return true;
}

/* A vector with a length in front of it. */
static bool take_vector(cb_slice *in, size_t length_bytes, cb_slice *out) {
    size_t n;
    return take_uint(in, length_bytes, &n) && take(in, n, out);
}

/* Host names only in the form that certificates and routes use; anything else counts as no name. */
static void copy_name(char out[CB_SNI_MAX], cb_slice name) {
    if (name.len > 0 && name.base[name.len - 1] == '.') name.len--;
    if (name.len == 0 || name.len >= CB_SNI_MAX) return;
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.base[i];
        if (c >= 'A' && c <= 'Z') c = (uint8_t)(c - 'A' + 'a');
        bool good = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
        if (!good) {
            out[0] = '\0';
            return;
        }
        out[i] = (char)c;
    }
    out[name.len] = '\0';
}

static bool read_server_name(cb_client_hello *out, cb_slice ext) {
    cb_slice list, name;
    size_t type;
    if (!take_vector(&ext, 2, &list)) return false;
    while (list.len > 0) {
        if (!take_uint(&list, 1, &type) || !take_vector(&list, 2, &name)) return false;
        if (type == 0 && out->sni[0] == '\0') copy_name(out->sni, name);
    }
    return true;
}

static bool read_signatures(cb_client_hello *out, cb_slice ext) {
    static const struct {
        uint16_t code;
        uint16_t ability;
    } table[] = {
        {0x0403, CB_SIG_ECDSA_P256}, {0x0503, CB_SIG_ECDSA_P384}, {0x0603, CB_SIG_ECDSA_P521}, {0x0401, CB_SIG_RSA},
        {0x0501, CB_SIG_RSA},        {0x0601, CB_SIG_RSA},        {0x0804, CB_SIG_RSA},        {0x0805, CB_SIG_RSA},
        {0x0806, CB_SIG_RSA},        {0x0809, CB_SIG_RSA_PSS},    {0x080a, CB_SIG_RSA_PSS},    {0x080b, CB_SIG_RSA_PSS},
        {0x0807, CB_SIG_ED25519},    {0x0808, CB_SIG_ED448},
    };
    cb_slice list;
    size_t code;
    if (!take_vector(&ext, 2, &list)) return false;
    while (take_uint(&list, 2, &code)) {
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
            if (table[i].code == code) out->abilities |= table[i].ability;
        }
    }
    return list.len == 0;
}

static bool read_psk(cb_client_hello *out, cb_slice ext) {
    cb_slice identities;
    return take_vector(&ext, 2, &identities) && take_vector(&identities, 2, &out->psk_identity);
}

static bool read_versions(cb_client_hello *out, cb_slice ext) {
    cb_slice list;
    size_t version;
    if (!take_vector(&ext, 1, &list)) return false;
    while (take_uint(&list, 2, &version)) {
        if (version == 0x0304) out->has_tls13 = true;
    }
    return list.len == 0;
}

static bool read_extension(cb_client_hello *out, size_t type, cb_slice ext) {
    switch (type) {
    case EXT_SERVER_NAME:
        return read_server_name(out, ext);
    case EXT_SIGNATURE_ALGORITHMS:
        return read_signatures(out, ext);
    case EXT_ALPN:
        out->has_alpn = true;
        out->only_acme =
            ext.len == 2 + 1 + sizeof acme_tls - 1 && memcmp(ext.base + 3, acme_tls, sizeof acme_tls - 1) == 0;
        return true;
    case EXT_SESSION_TICKET:
        out->ticket = ext;
        return true;
    case EXT_PRE_SHARED_KEY:
        return read_psk(out, ext);
    case EXT_EARLY_DATA:
        out->has_early = true;
        return true;
    case EXT_SUPPORTED_VERSIONS:
        return read_versions(out, ext);
    default:
        return true;
    }
}

int cb_client_hello_read(cb_client_hello *out, cb_slice body) {
    cb_slice skip, session_id = {NULL, 0}, extensions, ext;
    size_t type;
    memset(out, 0, sizeof *out);
    bool ok = take(&body, 2 + 32, &skip)                                            /* version, random */
              && take_vector(&body, 1, &session_id) && take_vector(&body, 2, &skip) /* cipher suites */
              && take_vector(&body, 1, &skip) /* compression */;
    out->has_session_id = session_id.len > 0;
    if (ok && body.len == 0) return CB_OK;
    ok = ok && take_vector(&body, 2, &extensions);
    while (ok && extensions.len > 0) {
        ok = take_uint(&extensions, 2, &type) && take_vector(&extensions, 2, &ext) && read_extension(out, type, ext);
    }
    return ok ? CB_OK : cb_fail(CB_EPROTO, "malformed ClientHello");
}
