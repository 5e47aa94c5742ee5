/* Signing requests (PKCS#10, RFC 2986): proof of possession, keys that are good enough, and only names that are
 * allowed. */
#include "auth/ca_int.h"
#include "base/error.h"
#include "base/mem.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { REQUEST_MAX = 64 << 10, RSA_MIN = 2048, RSA_MAX = 8192 };

static const cb_alloc *const heap = &cb_alloc_libc;

static bool allowed(const char *name, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const char *rule = list[i];
        size_t len = strlen(name), tail = strlen(rule);
        if (strcmp(rule, "*") == 0 || strcasecmp(name, rule) == 0) return true;
        if (rule[0] == '.' && len > tail && strcasecmp(name + len - tail, rule) == 0) return true;
    }
    return false;
}

/* The scheme and the trust domain are in lower case by cb_cert_check_uri(); a rule that ends in "/" allows what is
 * below. */
static bool uri_allowed(const char *uri, const char *const *list, size_t n) {
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(list[i]);
        if (strcmp(uri, list[i]) == 0) return true;
        if (len && list[i][len - 1] == '/' && strncmp(uri, list[i], len) == 0 && uri[len]) return true;
    }
    return false;
}

static int import(gnutls_x509_crq_t crq, cb_slice request) {
    static const char mark[] = "-----BEGIN";
    if (request.len == 0) return cb_fail(CB_EINVAL, "the signing request is empty");
    if (request.len > REQUEST_MAX) {
        return cb_fail(CB_EINVAL, "the signing request has more than %d bytes", REQUEST_MAX);
    }
    gnutls_datum_t data = {(uint8_t *)(uintptr_t)request.base, (unsigned)request.len};
    bool pem = memmem(request.base, request.len, mark, sizeof mark - 1) != NULL;
    int rc = gnutls_x509_crq_import(crq, &data, pem ? GNUTLS_X509_FMT_PEM : GNUTLS_X509_FMT_DER);
    return rc < 0 ? cb_fail(CB_EINVAL, "not a signing request in %s: %s", pem ? "PEM" : "DER", gnutls_strerror(rc))
                  : CB_OK;
}

static int check_key(gnutls_x509_crq_t crq, gnutls_pubkey_t pub) {
    unsigned bits = 0;
    int rc = gnutls_pubkey_import_x509_crq(pub, crq, 0);
    if (rc < 0) return cb_fail(CB_EINVAL, "the request's key cannot be used: %s", gnutls_strerror(rc));
    int algorithm = gnutls_pubkey_get_pk_algorithm(pub, &bits);
    bool rsa = algorithm == GNUTLS_PK_RSA;
    if (rsa && (bits < RSA_MIN || bits > RSA_MAX)) {
        return cb_fail(CB_EINVAL, "the request's RSA key has %u bits, not %d to %d", bits, RSA_MIN, RSA_MAX);
    }
    bool curve = algorithm == GNUTLS_PK_ECDSA && bits >= 256;
    if (!rsa && !curve && algorithm != GNUTLS_PK_EDDSA_ED25519) {
        return cb_fail(CB_EINVAL, "the request's key is neither RSA, ECDSA of 256 bits or more, nor Ed25519");
    }
    int sign = gnutls_x509_crq_get_signature_algorithm(crq);
    if (sign < 0 || !gnutls_sign_is_secure((gnutls_sign_algorithm_t)sign)) {
        return cb_fail(CB_EINVAL, "the request is signed by an algorithm that is unknown or too weak");
    }
    rc = gnutls_x509_crq_verify(crq, 0);
    return rc < 0 ? cb_fail(CB_EAUTH, "the request is not signed by its own key: %s", gnutls_strerror(rc)) : CB_OK;
}

static int check_authority(gnutls_x509_crq_t crq) {
    unsigned critical = 0, ca = 0, usage = 0;
    int path_len;
    int rc = gnutls_x509_crq_get_basic_constraints(crq, &critical, &ca, &path_len);
    if (rc >= 0 && ca) return cb_fail(CB_EINVAL, "the request asks to become an authority");
    rc = gnutls_x509_crq_get_key_usage(crq, &usage, &critical);
    if (rc >= 0 && usage & (GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN)) {
        return cb_fail(CB_EINVAL, "the request asks for the right to sign certificates or CRLs");
    }
    return CB_OK;
}

int cb_ca_name_text(int type, const char *from, size_t len, char to[CB_CA_NAME]) {
    if (type == GNUTLS_SAN_IPADDRESS) {
        if (len != 4 && len != 16) return cb_fail(CB_EINVAL, "an address of %zu bytes", len);
        inet_ntop(len == 4 ? AF_INET : AF_INET6, from, to, CB_CA_NAME);
        return CB_OK;
    }
    if (type != GNUTLS_SAN_DNSNAME && type != GNUTLS_SAN_URI) {
        return cb_fail(CB_EINVAL, "a name that is neither DNS name, address nor URI");
    }
    if (memchr(from, '\0', len)) return cb_fail(CB_EINVAL, "a name with a NUL inside");
    memcpy(to, from, len);
    to[len] = '\0';
    return type == GNUTLS_SAN_URI ? cb_cert_check_uri(to) : cb_cert_check_name(to);
}

static int read_names(cb_csr *c, const cb_leaf_opts *o) {
    char raw[CB_CA_NAME], *to = c->text;
    for (unsigned i = 0;; i++) {
        size_t len = sizeof raw - 1;
        unsigned kind = 0, critical = 0;
        int type = gnutls_x509_crq_get_subject_alt_name(c->crq, i, raw, &len, &kind, &critical);
        if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) return CB_OK;
        if (i == CB_CA_NAMES) return cb_fail(CB_EINVAL, "the request has more than %d names", CB_CA_NAMES);
        if (type == GNUTLS_E_SHORT_MEMORY_BUFFER) return cb_fail(CB_EINVAL, "the request has a name of %zu bytes", len);
        if (type < 0) return cb_fail(CB_EINVAL, "the request's names cannot be read: %s", gnutls_strerror(type));
        int rc = cb_ca_name_text(type, raw, len, to);
        if (rc < 0) return rc;
        bool uri = type == GNUTLS_SAN_URI;
        if (!(uri ? uri_allowed(to, o->uris, o->uris_len) : allowed(to, o->names, o->names_len))) {
            return cb_fail(CB_EPERM, "the request asks for \"%s\", which is not allowed", to);
        }
        if (uri) c->uris[c->uris_len++] = to;
        if (!uri) c->names[c->names_len++] = to;
        to += strlen(to) + 1;
    }
}

/* A request without names gets what opts say. */
static void default_names(cb_csr *c, const cb_leaf_opts *o) {
    for (size_t i = 0; i < o->names_len && i < CB_CA_NAMES; i++) {
        c->names[c->names_len++] = o->names[i];
    }
    for (size_t i = 0; i < o->uris_len && i < CB_CA_NAMES; i++) {
        c->uris[c->uris_len++] = o->uris[i];
    }
}

int cb_csr_read(cb_csr *out, cb_slice request, const cb_leaf_opts *o) {
    cb_csr c = {0};
    c.names = cb_mem_new(heap, 2 * CB_CA_NAMES * sizeof *c.names);
    c.uris = c.names ? c.names + CB_CA_NAMES : NULL;
    c.text = cb_mem_new(heap, REQUEST_MAX + (size_t)CB_CA_NAMES * INET6_ADDRSTRLEN + CB_CA_NAME);
    int rc = c.names && c.text ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a signing request");
    int grc = gnutls_x509_crq_init(&c.crq);
    if (grc >= 0) grc = gnutls_pubkey_init(&c.pub);
    if (rc >= 0 && grc < 0) rc = cb_fail(CB_ENOMEM, "no memory for a signing request");
    if (rc >= 0) rc = import(c.crq, request);
    if (rc >= 0) rc = check_key(c.crq, c.pub);
    if (rc >= 0) rc = check_authority(c.crq);
    if (rc >= 0) rc = read_names(&c, o);
    if (rc < 0) {
        cb_csr_clear(&c);
        return rc;
    }
    if (c.names_len + c.uris_len == 0) default_names(&c, o);
    *out = c;
    return CB_OK;
}

void cb_csr_clear(cb_csr *c) {
    if (c->crq) gnutls_x509_crq_deinit(c->crq);
    if (c->pub) gnutls_pubkey_deinit(c->pub);
    cb_mem_free(heap, c->names);
    cb_mem_free(heap, c->text);
    *c = (cb_csr){0};
}
