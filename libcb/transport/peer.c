/* Reading identities out of certificates. Everything is bounded, and each text is made safe to print here, once. */
#include "transport/peer.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include <arpa/inet.h>
#include <gnutls/crypto.h>
#include <stdatomic.h>
#include <string.h>
#include <strings.h>

enum {
    DER_MAX = 65536,
    NAMES_MAX = 1024,
    NAME_BYTES = 2048,
    TEXT_MAX = 1 << 20,
    KINDS = 4,
    SHA256 = 32,
    SERIAL_MAX = 64
};

struct name {
    size_t at; /* in the text */
    uint32_t kind;
};

struct cb_peer {
    atomic_uint refs;
    cb_buf text; /* texts, each with its NUL */
    size_t subject, issuer, common_name, serial, spiffe_id;
    struct name *names;
    size_t names_len;
    int64_t not_before, expires;
    uint8_t key_sha256[SHA256], cert_sha256[SHA256];
    cb_buf der;
    size_t ends[CB_PEER_CHAIN_MAX]; /* of each certificate in der */
    size_t chain_len;
};

/* ---- SPIFFE ---- */

/* Past the trust domain; NULL when there is none. */
static const char *spiffe_path(const char *uri) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789.-_";
    if (strlen(uri) > NAME_BYTES || strncmp(uri, "spiffe://", 9) != 0) return NULL;
    const char *domain = uri + 9;
    size_t n = strspn(domain, allowed);
    return n > 0 && n <= 255 && (domain[n] == '/' || !domain[n]) ? domain + n : NULL;
}

bool cb_spiffe_id_ok(const char *uri) {
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    const char *p = spiffe_path(uri);
    while (p && *p) {
        size_t n = strspn(p + 1, allowed);
        bool dots = (n == 1 && p[1] == '.') || (n == 2 && p[1] == '.' && p[2] == '.');
        if (*p != '/' || n == 0 || dots) return false;
        p += 1 + n;
    }
    return p != NULL;
}

bool cb_spiffe_leaf_ok(const char *uri) {
    return cb_spiffe_id_ok(uri) && *spiffe_path(uri) == '/';
}

/* ---- texts ---- */

unsigned cb_tls_ip_literal(const char *name, uint8_t out[16]) {
    char bare[64];
    size_t len = strlen(name);
    if (len >= 2 && name[0] == '[' && name[len - 1] == ']') {
        name++;
        len -= 2;
    }
    if (len == 0 || len >= sizeof bare) return 0;
    memcpy(bare, name, len);
    bare[len] = '\0';
    if (inet_pton(AF_INET, bare, out) == 1) return 4;
    return inet_pton(AF_INET6, bare, out) == 1 ? 16 : 0;
}

static int add_text(cb_peer *p, size_t *at, const void *bytes, size_t len) {
    *at = p->text.len;
    int rc = cb_buf_reserve(&p->text, 4 * len + 4);
    if (rc < 0) return rc;
    char *to = (char *)p->text.base + p->text.len;
    cb_text_escape(to, 4 * len + 1, (cb_slice){bytes, len});
    p->text.len += strlen(to) + 1;
    return CB_OK;
}

/* Escaped already, but for what is not printable: that gets the hex pairs of RFC 4514, 2.4. */
static int add_dn(cb_peer *p, size_t *at, gnutls_x509_crt_t crt, bool issuer) {
    gnutls_datum_t dn = {NULL, 0};
    int grc = issuer ? gnutls_x509_crt_get_issuer_dn3(crt, &dn, 0) : gnutls_x509_crt_get_dn3(crt, &dn, 0);
    int rc = CB_OK;
    *at = p->text.len;
    for (unsigned i = 0, n = 0; grc >= 0 && rc >= 0 && i < dn.size; i += n + 1) {
        for (n = 0; i + n < dn.size && dn.data[i + n] >= 0x20 && dn.data[i + n] < 0x7f;)
            n++;
        rc = cb_buf_add(&p->text, dn.data + i, n);
        if (rc >= 0 && i + n < dn.size) rc = cb_buf_printf(&p->text, "\\%02X", dn.data[i + n]);
    }
    gnutls_free(dn.data);
    return rc < 0 ? rc : cb_buf_add(&p->text, "", 1);
}

static bool has_controls(const uint8_t *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (text[i] < 0x20 || text[i] == 0x7f) return true;
    return false;
}

/* Not by gnutls_x509_crt_get_dn_by_oid(), which escapes for a DN. */
static int add_common_name(cb_peer *p, gnutls_x509_crt_t crt) {
    static const char oid[] = GNUTLS_OID_X520_COMMON_NAME;
    enum { UTF8 = 12, PRINTABLE = 19, TELETEX = 20, IA5 = 22 };
    gnutls_x509_dn_t dn;
    gnutls_x509_ava_st ava;
    cb_slice found = {NULL, 0};
    if (gnutls_x509_crt_get_subject(crt, &dn) < 0) return add_text(p, &p->common_name, "", 0);
    for (int rdn = 0; !found.base && gnutls_x509_dn_get_rdn_ava(dn, rdn, 0, &ava) >= 0; rdn++) {
        for (int i = 0; !found.base && gnutls_x509_dn_get_rdn_ava(dn, rdn, i, &ava) >= 0; i++) {
            if (strnlen((const char *)ava.oid.data, ava.oid.size) != sizeof oid - 1) continue;
            if (memcmp(ava.oid.data, oid, sizeof oid - 1) != 0) continue;
            unsigned long tag = ava.value_tag;
            bool text = tag == UTF8 || tag == PRINTABLE || tag == TELETEX || tag == IA5;
            found = (cb_slice){ava.value.data, text ? ava.value.size : 0};
        }
    }
    return add_text(p, &p->common_name, found.base, has_controls(found.base, found.len) ? 0 : found.len);
}

static int add_serial(cb_peer *p, gnutls_x509_crt_t crt) {
    static const char digits[] = "0123456789abcdef";
    uint8_t raw[SERIAL_MAX];
    char hex[2 * SERIAL_MAX];
    size_t size = sizeof raw;
    if (gnutls_x509_crt_get_serial(crt, raw, &size) < 0) size = 0;
    for (size_t i = 0; i < size; i++) {
        hex[2 * i] = digits[raw[i] >> 4];
        hex[2 * i + 1] = digits[raw[i] & 15];
    }
    return add_text(p, &p->serial, hex, 2 * size);
}

/* ---- alternative names ---- */

static int keep_name(cb_peer *p, int kind, const char *text, size_t len) {
    struct name *grown = cb_mem_grow(&cb_alloc_libc, p->names, (p->names_len + 1) * sizeof *grown);
    if (!grown) return CB_ENOMEM;
    p->names = grown;
    size_t at;
    int rc = add_text(p, &at, text, len);
    if (rc < 0) return rc;
    char *kept = (char *)p->text.base + at;
    for (; kind == CB_SAN_DNS && *kept; kept++)
        if (*kept >= 'A' && *kept <= 'Z') *kept = (char)(*kept - 'A' + 'a');
    p->names[p->names_len++] = (struct name){at, (uint32_t)kind};
    return CB_OK;
}

static bool is_plain(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] > '~' || text[i] == '\\') return false;
    return len > 0;
}

static int read_name(cb_peer *p, int type, char *raw, size_t size) {
    static const struct {
        int type, kind;
    } kinds[] = {{GNUTLS_SAN_DNSNAME, CB_SAN_DNS},
                 {GNUTLS_SAN_IPADDRESS, CB_SAN_IP},
                 {GNUTLS_SAN_RFC822NAME, CB_SAN_EMAIL},
                 {GNUTLS_SAN_URI, CB_SAN_URI}};
    char ip[INET6_ADDRSTRLEN];
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (kinds[i].type != type) continue;
        if (type == GNUTLS_SAN_IPADDRESS) {
            if (size != 4 && size != 16) return CB_OK;
            inet_ntop(size == 4 ? AF_INET : AF_INET6, raw, ip, sizeof ip);
            return keep_name(p, CB_SAN_IP, ip, strlen(ip));
        }
        return is_plain(raw, size) ? keep_name(p, kinds[i].kind, raw, size) : CB_OK;
    }
    return CB_OK;
}

/* *uris counts those that cannot be used too: "exactly one" means the certificate. */
static int read_names(cb_peer *p, gnutls_x509_crt_t crt, size_t *uris) {
    char raw[NAME_BYTES + 1];
    for (unsigned i = 0;; i++) {
        size_t size = sizeof raw;
        int type = gnutls_x509_crt_get_subject_alt_name(crt, i, raw, &size, NULL);
        bool too_long = type == GNUTLS_E_SHORT_MEMORY_BUFFER;
        if (type < 0 && !too_long) return CB_OK;
        if (i >= NAMES_MAX) return cb_fail(CB_EINVAL, "a certificate has more than %d names", NAMES_MAX);
        *uris += type == GNUTLS_SAN_URI || too_long; /* its kind is not told: a SPIFFE ID is never so long */
        int rc = too_long ? CB_OK : read_name(p, type, raw, size);
        if (rc < 0) return rc;
    }
}

static bool is_svid_leaf(gnutls_x509_crt_t crt) {
    unsigned critical, ca = 0, usage = 0;
    int rc = gnutls_x509_crt_get_basic_constraints(crt, &critical, &ca, NULL);
    if (rc < 0 && rc != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) return false;
    if (rc >= 0 && ca) return false;
    if (gnutls_x509_crt_get_key_usage(crt, &usage, &critical) < 0) return false;
    return usage & GNUTLS_KEY_DIGITAL_SIGNATURE && !(usage & (GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN));
}

static int read_spiffe_id(cb_peer *p, gnutls_x509_crt_t crt, size_t uris) {
    const char *id = cb_peer_name(p, CB_SAN_URI, 0);
    if (uris != 1 || !id || !cb_spiffe_leaf_ok(id) || !is_svid_leaf(crt)) id = "";
    char copy[NAME_BYTES + 1]; /* the text moves as it grows */
    size_t len = strlen(id);
    memcpy(copy, id, len);
    return add_text(p, &p->spiffe_id, copy, len);
}

/* ---- the whole ---- */

static int read_digests(cb_peer *p, gnutls_x509_crt_t crt, cb_slice der) {
    size_t size = sizeof p->key_sha256;
    int rc = gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, p->key_sha256, &size);
    if (rc >= 0) rc = gnutls_hash_fast(GNUTLS_DIG_SHA256, der.base, der.len, p->cert_sha256);
    return rc < 0 ? cb_fail(CB_EINVAL, "the key of a certificate cannot be read: %s", gnutls_strerror(rc)) : CB_OK;
}

static int read_leaf(cb_peer *p, gnutls_x509_crt_t crt, cb_slice der) {
    size_t uris = 0;
    gnutls_datum_t data = {(unsigned char *)(uintptr_t)der.base, (unsigned)der.len};
    int grc = gnutls_x509_crt_import(crt, &data, GNUTLS_X509_FMT_DER);
    if (grc < 0) return cb_fail(CB_EINVAL, "a certificate cannot be read: %s", gnutls_strerror(grc));
    int rc = add_dn(p, &p->subject, crt, false);
    if (rc >= 0) rc = add_dn(p, &p->issuer, crt, true);
    if (rc >= 0) rc = add_common_name(p, crt);
    if (rc >= 0) rc = add_serial(p, crt);
    if (rc >= 0) rc = read_names(p, crt, &uris);
    if (rc >= 0) rc = read_spiffe_id(p, crt, uris);
    if (rc >= 0) rc = read_digests(p, crt, der);
    p->not_before = gnutls_x509_crt_get_activation_time(crt);
    p->expires = gnutls_x509_crt_get_expiration_time(crt);
    return rc;
}

static int read_chain(cb_peer *p, const cb_slice *chain, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int rc = cb_buf_add(&p->der, chain[i].base, chain[i].len);
        if (rc == CB_ELIMIT) return cb_fail(CB_EINVAL, "a chain of more than %d bytes", DER_MAX);
        if (rc < 0) return rc;
        p->ends[p->chain_len++] = p->der.len;
    }
    gnutls_x509_crt_t crt;
    if (gnutls_x509_crt_init(&crt) < 0) return CB_ENOMEM;
    int rc = read_leaf(p, crt, chain[0]);
    gnutls_x509_crt_deinit(crt);
    return rc;
}

int cb_peer_read(cb_peer **out, const cb_slice *chain, size_t n) {
    if (!out || !chain) return cb_fail(CB_EINVAL, "cb_peer_read: %s is NULL", out ? "chain" : "out");
    if (n == 0 || n > CB_PEER_CHAIN_MAX)
        return cb_fail(CB_EINVAL, "a chain of %zu certificates: 1 to %d can be read", n, CB_PEER_CHAIN_MAX);
    cb_peer *p = cb_mem_new(&cb_alloc_libc, sizeof *p);
    if (!p) return cb_fail(CB_ENOMEM, "no memory for a peer");
    atomic_init(&p->refs, 1);
    cb_buf_init(&p->text, &cb_alloc_libc, TEXT_MAX);
    cb_buf_init(&p->der, &cb_alloc_libc, DER_MAX);
    int rc = read_chain(p, chain, n);
    if (rc < 0) {
        cb_peer_unref(p);
        if (rc == CB_ENOMEM) return cb_fail(rc, "no memory for a peer");
        return rc == CB_ELIMIT ? cb_fail(CB_EINVAL, "a certificate has too long names") : rc;
    }
    *out = p;
    return CB_OK;
}

cb_peer *cb_peer_ref(cb_peer *p) {
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void cb_peer_unref(cb_peer *p) {
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1) return;
    cb_buf_free(&p->text);
    cb_buf_free(&p->der);
    cb_mem_free(&cb_alloc_libc, p->names);
    cb_mem_free(&cb_alloc_libc, p);
}

/* ---- asking ---- */

static const char *text_at(const cb_peer *p, size_t at) {
    return (const char *)p->text.base + at;
}

const char *cb_peer_subject(const cb_peer *p) {
    return text_at(p, p->subject);
}

const char *cb_peer_issuer(const cb_peer *p) {
    return text_at(p, p->issuer);
}

const char *cb_peer_common_name(const cb_peer *p) {
    return text_at(p, p->common_name);
}

const char *cb_peer_serial(const cb_peer *p) {
    return text_at(p, p->serial);
}

size_t cb_peer_names(const cb_peer *p, int kind) {
    size_t n = 0;
    for (size_t i = 0; i < p->names_len; i++)
        n += p->names[i].kind == (uint32_t)kind;
    return n;
}

const char *cb_peer_name(const cb_peer *p, int kind, size_t i) {
    for (size_t at = 0; at < p->names_len; at++)
        if (p->names[at].kind == (uint32_t)kind && i-- == 0) return text_at(p, p->names[at].at);
    return NULL;
}

const char *cb_peer_spiffe_id(const cb_peer *p) {
    return text_at(p, p->spiffe_id);
}

const uint8_t *cb_peer_key_sha256(const cb_peer *p) {
    return p->key_sha256;
}

const uint8_t *cb_peer_cert_sha256(const cb_peer *p) {
    return p->cert_sha256;
}

int64_t cb_peer_not_before(const cb_peer *p) {
    return p->not_before;
}

int64_t cb_peer_expires(const cb_peer *p) {
    return p->expires;
}

cb_slice cb_peer_cert(const cb_peer *p, size_t i) {
    if (i >= p->chain_len) return (cb_slice){NULL, 0};
    size_t from = i ? p->ends[i - 1] : 0;
    return (cb_slice){p->der.base + from, p->ends[i] - from};
}

/* ---- does a name fit? ---- */

static bool fits_spiffe(const char *id, const char *name) {
    size_t len = strlen(name);
    if (len > 10 && name[len - 1] == '/') return strncmp(id, name, len) == 0 && id[len];
    return *name && strcmp(id, name) == 0;
}

static bool fits_dns(const char *pattern, const char *name, size_t len) {
    if (pattern[0] == '*' && pattern[1] == '.') {
        const char *dot = memchr(name, '.', len);
        if (!dot || dot == name) return false;
        len -= (size_t)(dot - name);
        name = dot;
        pattern++;
    }
    return strlen(pattern) == len && strncasecmp(pattern, name, len) == 0;
}

static bool fits_email(const char *have, const char *want) {
    const char *at = strrchr(have, '@');
    size_t local = at ? (size_t)(at - have) : 0;
    return at && strncmp(have, want, local + 1) == 0 && strcasecmp(have + local + 1, want + local + 1) == 0;
}

static bool fits(int kind, const char *have, const char *want) {
    size_t len = strlen(want);
    if (kind == CB_SAN_DNS) return fits_dns(have, want, len && want[len - 1] == '.' ? len - 1 : len);
    return kind == CB_SAN_EMAIL ? fits_email(have, want) : strcmp(have, want) == 0;
}

int cb_peer_is(const cb_peer *p, const char *name) {
    uint8_t ip[16];
    char plain[INET6_ADDRSTRLEN];
    if (strncmp(name, "spiffe:", 7) == 0) return fits_spiffe(cb_peer_spiffe_id(p), name);
    unsigned ip_len = cb_tls_ip_literal(name, ip);
    int kind = ip_len ? CB_SAN_IP : strchr(name, ':') ? CB_SAN_URI : strchr(name, '@') ? CB_SAN_EMAIL : CB_SAN_DNS;
    if (ip_len) name = inet_ntop(ip_len == 4 ? AF_INET : AF_INET6, ip, plain, sizeof plain);
    for (size_t i = 0; i < p->names_len; i++)
        if (p->names[i].kind == (uint32_t)kind && fits(kind, text_at(p, p->names[i].at), name)) return 1;
    return 0;
}
