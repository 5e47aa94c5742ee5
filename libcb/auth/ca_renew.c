/* Renewing a certificate: what stands in the old one, whether it is time, and the new one in its place. */
#include "auth/ca_int.h"
#include "auth/renew_time.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/tls_cert.h"
#include "transport/token_key.h"
#include <cb/renewal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { COMMON_NAME = 65, SKEW = 300, STAPLE_S = 86400 };

static const cb_alloc *const heap = &cb_alloc_libc;

/* The certificate that is there, as the leaf that it was. */
typedef struct old_cert {
    bool there;
    gnutls_x509_crt_t crt;
    const char *names[CB_CA_NAMES], *uris[CB_CA_NAMES];
    char *text; /* of them */
    char common_name[COMMON_NAME];
    cb_leaf_opts leaf;
    int64_t from, until, due;
} old_cert;

static void old_clear(old_cert *old) {
    if (old->crt) gnutls_x509_crt_deinit(old->crt);
    cb_mem_free(heap, old->text);
}

static int key_type_of(gnutls_x509_crt_t crt) {
    unsigned bits = 0;
    switch (gnutls_x509_crt_get_pk_algorithm(crt, &bits)) {
    case GNUTLS_PK_RSA:
        return CB_KEY_RSA_2048;
    case GNUTLS_PK_EDDSA_ED25519:
        return CB_KEY_ED25519;
    default:
        return bits > 256 ? CB_KEY_ECDSA_P384 : CB_KEY_ECDSA_P256;
    }
}

static int read_names(old_cert *old, const char *path) {
    char raw[CB_CA_NAME];
    if (!(old->text = cb_mem_get(heap, (size_t)CB_CA_NAMES * CB_CA_NAME))) return cb_fail(CB_ENOMEM, "%s", path);
    char *to = old->text;
    for (unsigned i = 0;; i++, to += strlen(to) + 1) {
        size_t len = sizeof raw - 1;
        int type = gnutls_x509_crt_get_subject_alt_name(old->crt, i, raw, &len, NULL);
        if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) return CB_OK;
        if (i == CB_CA_NAMES || type < 0) return cb_fail(CB_EINVAL, "%s: names that cannot be read", path);
        if (cb_ca_name_text(type, raw, len, to) < 0) return cb_fail(CB_EINVAL, "%s: %s", path, cb_last_error());
        if (type == GNUTLS_SAN_URI) old->uris[old->leaf.uris_len++] = to;
        if (type != GNUTLS_SAN_URI) old->names[old->leaf.names_len++] = to;
    }
}

/* What the index knows of it, and whether it may be renewed. */
static int look_up(const cb_ca *ca, old_cert *old, const char *path) {
    char serial[CB_SERIAL_TEXT];
    cb_ca_index index;
    int rc = cb_cert_serial(old->crt, serial);
    if (rc >= 0) rc = cb_ca_index_read(&index, ca->dir);
    if (rc < 0) return rc;
    const cb_ca_entry *e = cb_ca_index_find(&index, serial);
    if (!e || gnutls_x509_crt_check_issuer(old->crt, ca->crt) == 0) {
        rc = cb_fail(CB_EINVAL, "%s: not issued by the authority in %s", path, ca->dir);
    } else if (e->profile == CB_CERT_AUTHORITY) {
        rc = cb_fail(CB_EINVAL, "%s: the certificate of an authority is not renewed in this way", path);
    } else if (e->revoked_s) {
        rc = cb_fail(CB_EPERM, "%s: the certificate was revoked", path);
    } else {
        old->leaf.profile = e->profile;
    }
    cb_ca_index_clear(&index);
    return rc;
}

static int load_old(old_cert *old, const char *path) {
    gnutls_datum_t pem;
    uint8_t serial[20] = {0};
    size_t len = sizeof serial;
    int rc = cb_tls_file_read(path, &pem, NULL);
    if (rc < 0) return rc;
    int grc = gnutls_x509_crt_init(&old->crt);
    if (grc >= 0) grc = gnutls_x509_crt_import(old->crt, &pem, GNUTLS_X509_FMT_PEM);
    cb_mem_wipe(pem.data, pem.size); /* a key may be in it, too */
    gnutls_free(pem.data);
    if (grc < 0) return cb_fail(CB_EINVAL, "%s: not a PEM certificate: %s", path, gnutls_strerror(grc));
    old->there = true;
    old->from = (int64_t)gnutls_x509_crt_get_activation_time(old->crt);
    old->until = (int64_t)gnutls_x509_crt_get_expiration_time(old->crt);
    if (gnutls_x509_crt_get_serial(old->crt, serial, &len) < 0 || len < 4) len = 4;
    const uint8_t *r = serial + len - 4; /* random, and the same whenever it is asked */
    old->due =
        cb_renew_at(old->from, old->until, (uint32_t)r[0] << 24 | (uint32_t)r[1] << 16 | (uint32_t)r[2] << 8 | r[3]);
    return CB_OK;
}

static int read_old(const cb_ca *ca, old_cert *old, const char *path) {
    unsigned critical;
    gnutls_datum_t feature = {NULL, 0};
    size_t name_len = sizeof old->common_name;
    int rc = load_old(old, path);
    if (rc < 0) return rc;
    int64_t life = old->until - old->from;
    old->leaf = (cb_leaf_opts){.size = sizeof old->leaf,
                               .names = old->names,
                               .uris = old->uris,
                               .key_type = key_type_of(old->crt),
                               .lifetime_s = (uint32_t)(life > 2 * SKEW ? life - SKEW : life)};
    if (gnutls_x509_crt_get_dn_by_oid(old->crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, old->common_name, &name_len) >= 0)
        old->leaf.file_stem = old->common_name;
    old->leaf.must_staple =
        gnutls_x509_crt_get_extension_by_oid2(old->crt, "1.3.6.1.5.5.7.1.24", 0, &feature, &critical) >= 0;
    gnutls_free(feature.data);
    rc = read_names(old, path);
    return rc < 0 ? rc : look_up(ca, old, path);
}

static bool same_texts(const char *const *a, size_t a_len, const char *const *b, size_t b_len, bool fold) {
    if (a_len != b_len) return false;
    for (size_t i = 0; i < a_len; i++) {
        if ((fold ? strcasecmp(a[i], b[i]) : strcmp(a[i], b[i])) != 0) return false;
    }
    return true;
}

static bool same_names(const cb_leaf_opts *a, const cb_leaf_opts *b) {
    return same_texts(a->names, a->names_len, b->names, b->names_len, true) &&
           same_texts(a->uris, a->uris_len, b->uris, b->uris_len, false);
}

/* What takes its place together. The certificate comes last: who reads in between keeps what he has. */
static int put(const cb_renew_opts *o, const char *key_file, gnutls_datum_t crt, gnutls_datum_t key,
               gnutls_datum_t staple) {
    struct cb_ca_place files[3];
    size_t n = 0;
    bool one = strcmp(o->cert_file, key_file) == 0;
    gnutls_datum_t both = {NULL, 0};
    if (one) {
        both = (gnutls_datum_t){cb_mem_get(heap, (size_t)key.size + crt.size), key.size + crt.size};
        if (!both.data) return cb_fail(CB_ENOMEM, "%s", o->cert_file);
        memcpy(both.data, key.data, key.size);
        memcpy(both.data + key.size, crt.data, crt.size);
    }
    if (staple.size) files[n++] = (struct cb_ca_place){o->ocsp_file, staple, 0644, true};
    if (!one) files[n++] = (struct cb_ca_place){key_file, key, 0600, true};
    files[n++] = (struct cb_ca_place){o->cert_file, one ? both : crt, one ? 0600 : 0644, true};
    int rc = cb_ca_replace(files, n);
    cb_ca_wipe(&both);
    return rc;
}

/* An answer about a certificate (PEM), of libc's heap. */
static int make_staple(const cb_ca *ca, gnutls_datum_t crt, gnutls_datum_t *out) {
    cb_ocsp *ocsp = NULL;
    cb_ocsp_answer a = {.size = sizeof a};
    int rc = cb_ocsp_new(&ocsp, CB_OPTS(cb_ocsp_opts, .dir = ca->dir, .valid_s = STAPLE_S));
    if (rc >= 0) rc = cb_ocsp_staple(ocsp, (cb_slice){crt.data, crt.size}, (int64_t)time(NULL), &a);
    if (rc >= 0 && a.status != CB_OCSP_OK) rc = CB_EINVAL; /* the detail says why */
    if (rc >= 0 && !(out->data = cb_mem_get(heap, a.der.len))) rc = cb_fail(CB_ENOMEM, "no memory for an OCSP answer");
    if (rc >= 0) {
        memcpy(out->data, a.der.base, a.der.len);
        out->size = (unsigned)a.der.len;
    }
    cb_ocsp_free(ocsp);
    return rc;
}

/* The certificate stays; its answer is made anew when half of its time is over. */
static int restaple(const cb_ca *ca, const cb_renew_opts *o, cb_renew_result *result) {
    struct stat st;
    gnutls_datum_t crt, staple = {NULL, 0};
    if (!o->ocsp_file) return CB_OK;
    if (stat(o->ocsp_file, &st) == 0 && st.st_mtime + STAPLE_S / 2 > time(NULL)) return CB_OK;
    int rc = cb_tls_file_read(o->cert_file, &crt, NULL);
    if (rc < 0) return rc;
    rc = make_staple(ca, crt, &staple);
    cb_mem_wipe(crt.data, crt.size);
    gnutls_free(crt.data);
    const struct cb_ca_place file = {o->ocsp_file, staple, 0644, true};
    if (rc >= 0) rc = cb_ca_replace(&file, 1);
    if (rc >= 0) result->stapled = 1;
    cb_mem_free(heap, staple.data);
    return rc;
}

void cb_renew_dates(const char *cert_file, cb_renew_result *r) {
    old_cert now = {0};
    if (load_old(&now, cert_file) >= 0) {
        r->not_before_s = now.from;
        r->not_after_s = now.until;
        r->renew_at_s = now.due;
    }
    old_clear(&now);
}

static int key_path(char out[CB_CA_PATH], const cb_renew_opts *o) {
    size_t len = strlen(o->cert_file), stem = len > 4 && strcmp(o->cert_file + len - 4, ".pem") == 0 ? len - 4 : len;
    int n = o->key_file ? snprintf(out, CB_CA_PATH, "%s", o->key_file)
                        : snprintf(out, CB_CA_PATH, "%.*s-key.pem", (int)stem, o->cert_file);
    return n > 0 && n < CB_CA_PATH ? CB_OK : cb_fail(CB_EINVAL, "%s: the path is too long", o->cert_file);
}

static int renew(cb_ca *ca, const cb_renew_opts *o, old_cert *old, cb_renew_result *result) {
    char key_file[CB_CA_PATH];
    cb_leaf_opts leaf = {0};
    gnutls_datum_t crt = {NULL, 0}, key = {NULL, 0}, staple = {NULL, 0};
    int rc = o->leaf ? cb_opts_read(&leaf, sizeof leaf, o->leaf, "cb_leaf_opts") : CB_OK;
    if (rc >= 0) rc = key_path(key_file, o);
    if (rc >= 0) rc = read_old(ca, old, o->cert_file);
    if (rc == CB_ENOENT && o->leaf) rc = CB_OK; /* the first one */
    if (rc < 0) return rc;
    if (cb_token_is_url(key_file)) {
        return cb_fail(CB_EINVAL, "%s: a key on a token is not renewed: sign a new request for it", key_file);
    }
    if (old->there && access(key_file, F_OK) < 0) {
        return cb_fail(CB_ENOENT, "%s: the key is missing; what was made from a signing request needs a new request",
                       key_file);
    }
    bool same = old->there && (!o->leaf || same_names(&leaf, &old->leaf));
    if (o->if_due && same && (int64_t)time(NULL) < old->due) return restaple(ca, o, result);
    rc = cb_ca_make_leaf(ca, o->leaf ? &leaf : &old->leaf, &crt, &key);
    if (rc >= 0 && o->ocsp_file) rc = make_staple(ca, crt, &staple);
    if (rc >= 0) rc = put(o, key_file, crt, key, staple);
    if (rc >= 0) result->renewed = 1;
    if (rc >= 0) result->stapled = staple.size != 0;
    cb_ca_wipe(&key);
    cb_mem_free(heap, staple.data);
    cb_mem_free(heap, crt.data);
    return rc;
}

int cb_ca_renew(cb_ca *ca, const cb_renew_opts *opts, cb_renew_result *out) {
    if (!ca) return cb_fail(CB_EINVAL, "cb_ca_renew: ca is NULL");
    cb_renew_opts o;
    old_cert old = {0};
    cb_renew_result result = {.size = sizeof result};
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_renew_opts");
    if (rc >= 0 && (!o.cert_file || !*o.cert_file)) rc = cb_fail(CB_EINVAL, "cb_renew_opts: no cert_file");
    if (rc < 0) return rc;
    rc = renew(ca, &o, &old, &result);
    char detail[CB_CA_NAME];
    snprintf(detail, sizeof detail, "%s", cb_last_error()); /* of renewing, not of looking */
    cb_renew_dates(o.cert_file, &result);
    if (rc < 0) cb_fail(rc, "%s", detail);
    old_clear(&old);
    if (!out) return rc;
    int given = cb_stats_give(out, &result, sizeof result, "cb_renew_result");
    return rc < 0 ? rc : given;
}
