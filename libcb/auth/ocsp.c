/* An OCSP responder (RFC 6960): reads requests by GnuTLS, knows what the index says, and signs. */
#include "auth/ocsp.h"
#include "auth/ca_der.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/tls_cert.h"
#include <gnutls/crypto.h>
#include <gnutls/ocsp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { VALID_S = 3600, VALID_MAX = 604800, CERTS = 8, CERTS_MAX = 64, NONCE_MAX = 128, SERIAL_MAX = 20, HASHES = 4 };

static const cb_alloc *const heap = &cb_alloc_libc;

/* How the issuer is named in requests. */
static const struct {
    gnutls_digest_algorithm_t hash;
    const char *oid;
} hashes[HASHES] = {{GNUTLS_DIG_SHA1, "1.3.14.3.2.26"},
                    {GNUTLS_DIG_SHA256, "2.16.840.1.101.3.4.2.1"},
                    {GNUTLS_DIG_SHA384, "2.16.840.1.101.3.4.2.2"},
                    {GNUTLS_DIG_SHA512, "2.16.840.1.101.3.4.2.3"}};

/* Which file it was, to see that it is another one. */
struct stamp {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec changed;
};

struct cb_ocsp {
    char *dir, *cert_file, *key_file;
    uint32_t valid_s, max_certs;
    asn1_node definitions;
    gnutls_x509_crt_t issuer;
    gnutls_datum_t issuer_name; /* DER */
    uint8_t name_hash[HASHES][64], key_hash[HASHES][64];
    cb_ocsp_signer signer;
    int64_t signer_from, signer_until;
    cb_ca_index index;
    const cb_ca_entry **sorted; /* by serial number */
    struct stamp index_stamp, cert_stamp;
    cb_ocsp_single *singles;
    gnutls_datum_t answer;
    uint8_t failure[5];
};

static struct stamp stamp_of(const char *path) {
    struct stat st;
    if (stat(path, &st) < 0) return (struct stamp){.size = -1};
    return (struct stamp){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
}

static bool same_stamp(const struct stamp *a, const struct stamp *b) {
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size && a->changed.tv_sec == b->changed.tv_sec &&
           a->changed.tv_nsec == b->changed.tv_nsec;
}

/* --- what it knows --- */

static int compare_serials(const void *pa, const void *pb) {
    const cb_ca_entry *const *a = pa, *const *b = pb;
    return strcmp((*a)->serial, (*b)->serial);
}

static int read_index(cb_ocsp *r) {
    char path[CB_CA_PATH];
    cb_ca_index fresh;
    int rc = cb_ca_path(path, r->dir, "index", "");
    if (rc < 0) return rc;
    struct stamp now = stamp_of(path);
    if (r->sorted && same_stamp(&now, &r->index_stamp)) return CB_OK;
    if ((rc = cb_ca_index_read(&fresh, r->dir)) < 0) return rc;
    const cb_ca_entry **sorted = cb_mem_get(heap, (fresh.len + 1) * sizeof *sorted);
    if (!sorted) {
        cb_ca_index_clear(&fresh);
        return cb_fail(CB_ENOMEM, "no memory for an index");
    }
    for (size_t i = 0; i < fresh.len; i++) {
        sorted[i] = &fresh.entries[i];
    }
    qsort(sorted, fresh.len, sizeof *sorted, compare_serials);
    cb_ca_index_clear(&r->index);
    cb_mem_free(heap, r->sorted);
    r->index = fresh;
    r->sorted = sorted;
    r->index_stamp = now;
    return CB_OK;
}

static const cb_ca_entry *find(const cb_ocsp *r, const gnutls_datum_t *serial) {
    char text[2 * SERIAL_MAX + 1];
    size_t len = sizeof text;
    if (serial->size == 0 || serial->size > SERIAL_MAX || gnutls_hex_encode(serial, text, &len) < 0) return NULL;
    const cb_ca_entry key = {.serial = text}, *wanted = &key;
    const cb_ca_entry **found = bsearch(&wanted, r->sorted, r->index.len, sizeof *r->sorted, compare_serials);
    return found ? *found : NULL;
}

static int load_crt(gnutls_x509_crt_t *out, const char *path) {
    gnutls_datum_t pem;
    int rc = cb_tls_file_read(path, &pem, NULL);
    if (rc < 0) return rc;
    int grc = gnutls_x509_crt_init(out);
    if (grc >= 0 && (grc = gnutls_x509_crt_import(*out, &pem, GNUTLS_X509_FMT_PEM)) < 0) {
        gnutls_x509_crt_deinit(*out);
        *out = NULL;
    }
    gnutls_free(pem.data);
    return grc < 0 ? cb_fail(CB_EINVAL, "%s: not a PEM certificate: %s", path, gnutls_strerror(grc)) : CB_OK;
}

static int load_issuer(cb_ocsp *r) {
    char path[CB_CA_PATH];
    unsigned critical = 0;
    int rc = cb_ca_path(path, r->dir, "ca", ".pem");
    if (rc >= 0) rc = load_crt(&r->issuer, path);
    if (rc < 0) return rc;
    if (gnutls_x509_crt_get_ca_status(r->issuer, &critical) <= 0) {
        return cb_fail(CB_EINVAL, "%s: the certificate is not that of an authority", path);
    }
    int grc = gnutls_x509_crt_get_raw_dn(r->issuer, &r->issuer_name);
    for (size_t i = 0; grc >= 0 && rc >= 0 && i < HASHES; i++) {
        grc = gnutls_hash_fast(hashes[i].hash, r->issuer_name.data, r->issuer_name.size, r->name_hash[i]);
        if (grc >= 0) rc = cb_ocsp_key_hash(r->issuer, hashes[i].hash, r->key_hash[i]);
    }
    return grc < 0 ? cb_fail(CB_ETLS, "%s: %s", path, gnutls_strerror(grc)) : rc;
}

/* RFC 6960, 4.2.2.2: the same key that signed the certificate signs the delegate's, and it says what it is for. */
static int check_delegate(const cb_ocsp *r, gnutls_x509_crt_t crt) {
    char oid[64];
    unsigned critical = 0, status = 0;
    bool may = false;
    for (unsigned i = 0; !may; i++) {
        size_t len = sizeof oid;
        int rc = gnutls_x509_crt_get_key_purpose_oid(crt, i, oid, &len, &critical);
        if (rc == GNUTLS_E_SHORT_MEMORY_BUFFER) continue;
        if (rc < 0) break;
        may = strcmp(oid, GNUTLS_KP_OCSP_SIGNING) == 0;
    }
    if (!may)
        return cb_fail(CB_EINVAL, "%s: the certificate may not sign OCSP answers (issue it with the profile ocsp)",
                       r->cert_file);
    int rc = gnutls_x509_crt_verify(crt, &r->issuer, 1, GNUTLS_VERIFY_DISABLE_TIME_CHECKS, &status);
    return rc < 0 || status ? cb_fail(CB_EINVAL, "%s: not issued by the authority in %s", r->cert_file, r->dir) : CB_OK;
}

static void signer_clear(cb_ocsp_signer *s) {
    if (s->key) gnutls_privkey_deinit(s->key);
    if (s->crt) gnutls_x509_crt_deinit(s->crt);
    *s = (cb_ocsp_signer){0};
}

static void adopt_signer(cb_ocsp *r, const cb_ocsp_signer *fresh) {
    gnutls_x509_crt_t crt = fresh->crt ? fresh->crt : r->issuer;
    signer_clear(&r->signer);
    r->signer = *fresh;
    r->signer_from = (int64_t)gnutls_x509_crt_get_activation_time(crt);
    r->signer_until = (int64_t)gnutls_x509_crt_get_expiration_time(crt);
}

static int load_delegate(cb_ocsp *r) {
    cb_ocsp_signer fresh = {0};
    struct stamp now = stamp_of(r->cert_file);
    if (r->signer.key && same_stamp(&now, &r->cert_stamp)) return CB_OK;
    int rc = load_crt(&fresh.crt, r->cert_file);
    if (rc >= 0) rc = check_delegate(r, fresh.crt);
    if (rc >= 0) rc = cb_ca_key_load(&fresh.key, fresh.crt, r->cert_file, r->key_file);
    if (rc >= 0) rc = cb_ocsp_key_hash(fresh.crt, GNUTLS_DIG_SHA1, fresh.key_hash);
    if (rc < 0) {
        signer_clear(&fresh);
        return rc;
    }
    adopt_signer(r, &fresh);
    r->cert_stamp = now;
    return CB_OK;
}

static int load_own_key(cb_ocsp *r) {
    char crt_path[CB_CA_PATH], key_path[CB_CA_PATH];
    cb_ocsp_signer fresh = {0};
    int rc = cb_ca_path(crt_path, r->dir, "ca", ".pem");
    if (rc >= 0) rc = cb_ca_key_place(key_path, r->dir);
    if (rc >= 0) rc = cb_ca_key_load(&fresh.key, r->issuer, crt_path, key_path);
    if (rc < 0) return rc;
    fresh.name = r->issuer_name;
    adopt_signer(r, &fresh);
    return CB_OK;
}

int cb_ocsp_refresh(cb_ocsp *r) {
    if (!r) return cb_fail(CB_EINVAL, "cb_ocsp_refresh: r is NULL");
    int index = read_index(r), delegate = r->cert_file ? load_delegate(r) : CB_OK;
    return index < 0 ? index : delegate;
}

static int fill(cb_ocsp *r, const cb_ocsp_opts *o) {
    r->valid_s = o->valid_s ? o->valid_s : VALID_S;
    r->max_certs = o->max_certs ? o->max_certs : CERTS;
    r->dir = cb_mem_text(heap, o->dir);
    r->cert_file = cb_mem_text(heap, o->cert_file);
    r->key_file = cb_mem_text(heap, o->key_file);
    r->singles = cb_mem_new(heap, r->max_certs * sizeof *r->singles);
    bool whole = r->dir && r->singles && (r->cert_file || !o->cert_file) && (r->key_file || !o->key_file);
    if (!whole || asn1_array2tree(cb_ca_asn1, &r->definitions, NULL) != ASN1_SUCCESS) {
        return cb_fail(CB_ENOMEM, "no memory for an OCSP responder");
    }
    int rc = load_issuer(r);
    if (rc >= 0 && !r->cert_file) rc = load_own_key(r);
    return rc < 0 ? rc : cb_ocsp_refresh(r);
}

int cb_ocsp_new(cb_ocsp **out, const cb_ocsp_opts *opts) {
    if (!out) return cb_fail(CB_EINVAL, "cb_ocsp_new: out is NULL");
    cb_ocsp_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_ocsp_opts");
    if (rc < 0) return rc;
    if (!o.dir || !*o.dir) return cb_fail(CB_EINVAL, "cb_ocsp_opts: no dir");
    if (!o.cert_file != !o.key_file) return cb_fail(CB_EINVAL, "cb_ocsp_opts: cert_file and key_file go together");
    if (o.valid_s > VALID_MAX) return cb_fail(CB_EINVAL, "cb_ocsp_opts: valid_s is more than 7 days");
    if (o.max_certs > CERTS_MAX) return cb_fail(CB_EINVAL, "cb_ocsp_opts: max_certs is more than %d", CERTS_MAX);
    cb_ocsp *r = cb_mem_new(heap, sizeof *r);
    if (!r) return cb_fail(CB_ENOMEM, "no memory for an OCSP responder");
    rc = fill(r, &o);
    if (rc < 0) {
        cb_ocsp_free(r);
        return rc;
    }
    *out = r;
    return CB_OK;
}

void cb_ocsp_free(cb_ocsp *r) {
    if (!r) return;
    signer_clear(&r->signer);
    if (r->issuer) gnutls_x509_crt_deinit(r->issuer);
    gnutls_free(r->issuer_name.data);
    asn1_delete_structure(&r->definitions);
    cb_ca_index_clear(&r->index);
    cb_mem_free(heap, r->sorted);
    cb_mem_free(heap, r->singles);
    cb_mem_free(heap, r->answer.data);
    cb_mem_free(heap, r->dir);
    cb_mem_free(heap, r->cert_file);
    cb_mem_free(heap, r->key_file);
    cb_mem_free(heap, r);
}

/* --- answering --- */

/* Are the name and the key of the issuer those of this authority? */
static bool ours(const cb_ocsp *r, gnutls_digest_algorithm_t hash, const cb_ocsp_single *s) {
    for (size_t i = 0; i < HASHES; i++) {
        size_t len = gnutls_hash_get_len(hashes[i].hash);
        if (hashes[i].hash != hash) continue;
        return s->name_hash.size == len && s->key_hash.size == len &&
               memcmp(s->name_hash.data, r->name_hash[i], len) == 0 &&
               memcmp(s->key_hash.data, r->key_hash[i], len) == 0;
    }
    return false;
}

static void clear_single(cb_ocsp_single *s) {
    gnutls_free(s->name_hash.data);
    gnutls_free(s->key_hash.data);
    gnutls_free(s->serial.data);
    *s = (cb_ocsp_single){0};
}

/* Reads for which certificates the request is; *known counts those of this authority. */
static int read_certs(cb_ocsp *r, gnutls_ocsp_req_t req, size_t *n, size_t *known) {
    for (*n = 0;; ++*n) {
        gnutls_digest_algorithm_t hash = GNUTLS_DIG_UNKNOWN;
        cb_ocsp_single s = {0};
        int rc = gnutls_ocsp_req_get_cert_id(req, (unsigned)*n, &hash, &s.name_hash, &s.key_hash, &s.serial);
        if (rc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) break;
        if (rc < 0) return cb_fail(CB_EPROTO, "OCSP request: certificate %zu: %s", *n, gnutls_strerror(rc));
        s.hash_oid = gnutls_digest_get_oid(hash);
        if (*n == r->max_certs || !s.hash_oid) {
            clear_single(&s);
            return *n == r->max_certs ? cb_fail(CB_EPROTO, "OCSP request: for more than %u certificates", r->max_certs)
                                      : cb_fail(CB_EPROTO, "OCSP request: certificate %zu: an unknown hash", *n);
        }
        if (ours(r, hash, &s)) {
            s.entry = find(r, &s.serial);
            ++*known;
        }
        r->singles[*n] = s;
    }
    return *n ? CB_OK : cb_fail(CB_EPROTO, "OCSP request: for no certificate");
}

static int check_nonce(gnutls_ocsp_req_t req, const gnutls_datum_t *extension, cb_ocsp_plan *plan) {
    gnutls_datum_t nonce = {NULL, 0};
    int rc = gnutls_ocsp_req_get_nonce(req, NULL, &nonce);
    gnutls_free(nonce.data);
    if (plan->nonce.size || rc < 0 || nonce.size == 0 || nonce.size > NONCE_MAX) {
        return cb_fail(CB_EPROTO, "OCSP request: a nonce that is not one of 1 to %d bytes", NONCE_MAX);
    }
    plan->nonce.data = gnutls_malloc(extension->size);
    if (!plan->nonce.data) return CB_ENOMEM;
    memcpy(plan->nonce.data, extension->data, extension->size);
    plan->nonce.size = extension->size;
    return CB_OK;
}

static int read_extensions(gnutls_ocsp_req_t req, cb_ocsp_plan *plan) {
    int result = CB_OK;
    for (unsigned i = 0; result == CB_OK; i++) {
        gnutls_datum_t oid = {NULL, 0}, data = {NULL, 0};
        unsigned critical = 0;
        int rc = gnutls_ocsp_req_get_extension(req, i, &oid, &critical, &data);
        if (rc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) break;
        if (rc < 0) {
            result = cb_fail(CB_EPROTO, "OCSP request: extension %u: %s", i, gnutls_strerror(rc));
        } else if (strcmp((const char *)oid.data, GNUTLS_OCSP_NONCE) == 0) {
            result = check_nonce(req, &data, plan);
        } else if (critical) {
            result = cb_fail(CB_EPROTO, "OCSP request: a critical extension that is not known here");
        }
        gnutls_free(oid.data);
        gnutls_free(data.data);
    }
    return result;
}

/* An answer without a signature (RFC 6960, 4.2.1). */
static int refuse(cb_ocsp *r, cb_ocsp_answer *a, enum cb_ocsp_status status) {
    const uint8_t der[sizeof r->failure] = {0x30, 3, 10, 1, (uint8_t)status};
    memcpy(r->failure, der, sizeof der);
    a->status = status;
    a->der = (cb_slice){r->failure, sizeof r->failure};
    return CB_OK;
}

static int sign(cb_ocsp *r, cb_ocsp_plan *plan, size_t n, int64_t now, cb_ocsp_answer *a) {
    if (now < r->signer_from || now >= r->signer_until) {
        cb_fail(CB_EINVAL, "%s: the certificate of the responder has expired, or is not valid yet",
                r->cert_file ? r->cert_file : r->dir);
        return refuse(r, a, CB_OCSP_INTERNAL);
    }
    int64_t until = now + r->valid_s;
    plan->singles = r->singles;
    plan->len = n;
    plan->this_update = now;
    plan->next_update = until < r->signer_until ? until : r->signer_until;
    cb_mem_free(heap, r->answer.data);
    r->answer = (gnutls_datum_t){NULL, 0};
    if (cb_ocsp_encode(&r->answer, r->definitions, plan, &r->signer) < 0) return refuse(r, a, CB_OCSP_INTERNAL);
    a->status = CB_OCSP_OK;
    a->der = (cb_slice){r->answer.data, r->answer.size};
    a->this_update_s = plan->this_update;
    a->next_update_s = plan->next_update;
    a->cacheable = plan->nonce.size == 0;
    return CB_OK;
}

static int respond(cb_ocsp *r, gnutls_ocsp_req_t req, cb_slice request, int64_t now, cb_ocsp_answer *a) {
    gnutls_datum_t data = {(uint8_t *)(uintptr_t)request.base, (unsigned)request.len};
    cb_ocsp_plan plan = {0};
    size_t n = 0, known = 0;
    int rc = CB_OK;
    if (request.len == 0 || request.len > CB_OCSP_REQUEST_BYTES) {
        rc = cb_fail(CB_EPROTO, "OCSP request: of %zu bytes, not 1 to %d", request.len, CB_OCSP_REQUEST_BYTES);
    } else {
        int grc = gnutls_ocsp_req_import(req, &data);
        if (grc < 0) rc = cb_fail(CB_EPROTO, "not an OCSP request: %s", gnutls_strerror(grc));
    }
    if (rc >= 0 && gnutls_ocsp_req_get_version(req) != 1) rc = cb_fail(CB_EPROTO, "OCSP request: not version 1");
    if (rc >= 0) rc = read_certs(r, req, &n, &known);
    if (rc >= 0) rc = read_extensions(req, &plan);
    if (rc >= 0 && known == 0) rc = cb_fail(CB_EPERM, "OCSP request: only for certificates of other authorities");
    if (rc >= 0) {
        rc = sign(r, &plan, n, now, a);
    } else if (rc != CB_ENOMEM) {
        rc = refuse(r, a, rc == CB_EPERM ? CB_OCSP_UNAUTHORIZED : CB_OCSP_MALFORMED);
    }
    gnutls_free(plan.nonce.data);
    for (size_t i = 0; i < n; i++) {
        clear_single(&r->singles[i]);
    }
    return rc;
}

int cb_ocsp_respond(cb_ocsp *r, cb_slice request, int64_t now_s, cb_ocsp_answer *out) {
    if (!r || !out) return cb_fail(CB_EINVAL, "cb_ocsp_respond: r or out is NULL");
    gnutls_ocsp_req_t req;
    cb_ocsp_answer a = {0};
    if (gnutls_ocsp_req_init(&req) < 0) return cb_fail(CB_ENOMEM, "no memory for an OCSP request");
    int rc = respond(r, req, request, now_s, &a);
    gnutls_ocsp_req_deinit(req);
    return rc < 0 ? rc : cb_stats_give(out, &a, sizeof a, "cb_ocsp_answer");
}

int cb_ocsp_staple(cb_ocsp *r, cb_slice certificate, int64_t now_s, cb_ocsp_answer *out) {
    if (!r || !out) return cb_fail(CB_EINVAL, "cb_ocsp_staple: r or out is NULL");
    gnutls_datum_t pem = {(uint8_t *)(uintptr_t)certificate.base, (unsigned)certificate.len};
    gnutls_x509_crt_t crt = NULL;
    uint8_t serial[SERIAL_MAX];
    size_t len = sizeof serial;
    unsigned status = 0;
    cb_ocsp_answer a = {0};
    cb_ocsp_plan plan = {0};
    int rc = gnutls_x509_crt_init(&crt) < 0 ? cb_fail(CB_ENOMEM, "no memory for a certificate") : CB_OK;
    if (rc >= 0 && gnutls_x509_crt_import(crt, &pem, GNUTLS_X509_FMT_PEM) < 0)
        rc = cb_fail(CB_EINVAL, "not a PEM certificate");
    if (rc >= 0 && (gnutls_x509_crt_verify(crt, &r->issuer, 1, GNUTLS_VERIFY_DISABLE_TIME_CHECKS, &status) < 0 ||
                    status || gnutls_x509_crt_get_serial(crt, serial, &len) < 0)) {
        rc = cb_fail(CB_EINVAL, "not a certificate of the authority in %s", r->dir);
    }
    if (rc >= 0) { /* named by SHA-1, as every client can (RFC 5019, 2.1.1) */
        r->singles[0] = (cb_ocsp_single){.hash_oid = hashes[0].oid,
                                         .name_hash = {r->name_hash[0], 20},
                                         .key_hash = {r->key_hash[0], 20},
                                         .serial = {serial, (unsigned)len}};
        r->singles[0].entry = find(r, &r->singles[0].serial);
        rc = r->singles[0].entry ? sign(r, &plan, 1, now_s, &a)
                                 : cb_fail(CB_ENOENT, "%s: the index does not know this certificate", r->dir);
        r->singles[0] = (cb_ocsp_single){0};
    }
    if (crt) gnutls_x509_crt_deinit(crt);
    return rc < 0 ? rc : cb_stats_give(out, &a, sizeof a, "cb_ocsp_answer");
}

static int hex_of(uint8_t c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int64_t cb_ocsp_path(uint8_t *out, size_t cap, cb_slice path) {
    uint8_t text[CB_OCSP_REQUEST_BYTES / 3 * 4 + 4];
    gnutls_datum_t base64 = {text, 0}, der = {NULL, 0};
    if (!out || !path.base || path.len < 2 || path.base[0] != '/')
        return cb_fail(CB_EINVAL, "the path has no OCSP request");
    for (size_t i = 1; i < path.len; i++) {
        uint8_t c = path.base[i];
        if (c == '%') {
            int high = i + 2 < path.len ? hex_of(path.base[i + 1]) : -1, low = high < 0 ? -1 : hex_of(path.base[i + 2]);
            if (low < 0) return cb_fail(CB_EINVAL, "the path is not well escaped");
            c = (uint8_t)(high << 4 | low);
            i += 2;
        }
        bool known =
            (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') || c == '+' || c == '/' || c == '=';
        if (!known || base64.size == sizeof text) return cb_fail(CB_EINVAL, "the path is not base64, or too long");
        text[base64.size++] = c;
    }
    int rc = gnutls_base64_decode2(&base64, &der);
    if (rc < 0) return cb_fail(CB_EINVAL, "the path is not base64");
    bool fits = der.size <= cap;
    if (fits) memcpy(out, der.data, der.size);
    gnutls_free(der.data);
    return fits ? (int64_t)der.size : cb_fail(CB_EINVAL, "the OCSP request in the path is too long");
}
