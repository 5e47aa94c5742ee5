#include "auth/ca_int.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/tls_cert.h"
#include "transport/token_key.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CA_DAYS = 3650, DAYS_MAX = 36500, LEAF_MAX_DAYS = 366, SKEW = 300, CHAIN_MAX = 8 };

static const cb_alloc *const heap = &cb_alloc_libc;

/* --- opening --- */

static int load_token_key(gnutls_privkey_t *out, gnutls_x509_crt_t crt, const char *crt_path, const char *url) {
    int rc = cb_token_key_open(out, NULL, url);
    if (rc < 0) return rc;
    rc = cb_token_key_check(*out, crt, url, crt_path);
    if (rc >= 0) return CB_OK;
    gnutls_privkey_deinit(*out);
    *out = NULL;
    return rc;
}

int cb_ca_key_load(gnutls_privkey_t *out, gnutls_x509_crt_t crt, const char *crt_path, const char *key_path) {
    gnutls_datum_t pem;
    gnutls_x509_privkey_t x = NULL;
    if (cb_token_is_url(key_path)) return load_token_key(out, crt, crt_path, key_path);
    int rc = cb_tls_file_read(key_path, &pem, NULL);
    if (rc < 0) return rc;
    int grc = gnutls_x509_privkey_init(&x);
    if (grc >= 0) grc = gnutls_x509_privkey_import2(x, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    cb_mem_wipe(pem.data, pem.size);
    gnutls_free(pem.data);
    if (grc < 0) {
        if (x) gnutls_x509_privkey_deinit(x);
        return cb_fail(CB_EINVAL, "%s: not a PEM private key: %s", key_path, gnutls_strerror(grc));
    }
    uint8_t a[32], b[32];
    size_t a_len = sizeof a, b_len = sizeof b;
    bool same = gnutls_x509_crt_get_key_id(crt, GNUTLS_KEYID_USE_SHA256, a, &a_len) >= 0 &&
                gnutls_x509_privkey_get_key_id(x, GNUTLS_KEYID_USE_SHA256, b, &b_len) >= 0 &&
                memcmp(a, b, sizeof a) == 0;
    if (same) return cb_key_wrap(out, x);
    gnutls_x509_privkey_deinit(x);
    return cb_fail(CB_EINVAL, "%s is not the key of %s", key_path, crt_path);
}

int cb_ca_key_place(char out[CB_CA_PATH], const char *dir) {
    gnutls_datum_t text;
    int rc = cb_ca_path(out, dir, "ca", "-key.url");
    if (rc >= 0 && access(out, F_OK) == 0) {
        rc = cb_tls_file_read(out, &text, NULL);
        if (rc < 0) return rc;
        size_t len = 0;
        while (len < text.size && len < CB_CA_PATH - 1 && text.data[len] > ' ') {
            len++;
        }
        memcpy(out, text.data, len);
        out[len] = '\0';
        gnutls_free(text.data);
        return cb_token_is_url(out) ? CB_OK : cb_fail(CB_EINVAL, "%s: ca-key.url has no PKCS#11 URL", dir);
    }
    if (rc >= 0) rc = cb_ca_path(out, dir, "ca", "-key.pem");
    return rc < 0 || access(out, F_OK) == 0 ? rc : cb_fail(CB_ENOENT, "%s: ca-key.pem is missing beside ca.pem", dir);
}

static int load_constraints(cb_ca *ca) {
    unsigned critical;
    if (gnutls_x509_name_constraints_init(&ca->constraints) < 0) return cb_fail(CB_ENOMEM, "no memory for a CA");
    int rc = gnutls_x509_crt_get_name_constraints(ca->crt, ca->constraints, 0, &critical);
    if (rc >= 0) return CB_OK;
    gnutls_x509_name_constraints_deinit(ca->constraints);
    ca->constraints = NULL;
    return rc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE
               ? CB_OK
               : cb_fail(CB_EINVAL, "%s: the name constraints cannot be read: %s", ca->dir, gnutls_strerror(rc));
}

/* What issuing needs to know of the certificate in ca->crt. `pem` is what ca.pem holds. */
static int adopt(cb_ca *ca, const gnutls_datum_t *pem) {
    char organization[128];
    size_t len = sizeof organization;
    if (gnutls_x509_crt_get_dn_by_oid(ca->crt, GNUTLS_OID_X520_ORGANIZATION_NAME, 0, 0, organization, &len) >= 0) {
        ca->organization = cb_mem_text(heap, organization);
        if (!ca->organization) return cb_fail(CB_ENOMEM, "no memory for a CA");
    }
    if (gnutls_x509_crt_check_issuer(ca->crt, ca->crt) == 0) {
        ca->chain = cb_mem_new(heap, pem->size + 1);
        if (!ca->chain) return cb_fail(CB_ENOMEM, "no memory for a CA");
        memcpy(ca->chain, pem->data, pem->size);
    }
    return load_constraints(ca);
}

static int load(cb_ca *ca, const char *crt_path, const char *key_path) {
    gnutls_datum_t pem;
    unsigned critical = 0;
    int rc = cb_tls_file_read(crt_path, &pem, NULL);
    if (rc < 0) return rc;
    int grc = gnutls_x509_crt_init(&ca->crt);
    if (grc >= 0) grc = gnutls_x509_crt_import(ca->crt, &pem, GNUTLS_X509_FMT_PEM); /* the first of the file */
    if (grc < 0) {
        rc = cb_fail(CB_EINVAL, "%s: not a PEM certificate: %s", crt_path, gnutls_strerror(grc));
    } else if (gnutls_x509_crt_get_ca_status(ca->crt, &critical) <= 0) {
        rc = cb_fail(CB_EINVAL, "%s: the certificate is not that of an authority", crt_path);
    } else {
        rc = adopt(ca, &pem);
    }
    gnutls_free(pem.data);
    return rc < 0 ? rc : cb_ca_key_load(&ca->key, ca->crt, crt_path, key_path);
}

/* --- making --- */

static int export_pem(gnutls_x509_crt_t crt, const char *above, gnutls_datum_t *out) {
    gnutls_datum_t pem = {NULL, 0};
    int rc = gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem);
    if (rc < 0) return cb_fail(CB_ETLS, "cannot write a certificate as PEM: %s", gnutls_strerror(rc));
    size_t extra = above ? strlen(above) : 0;
    out->data = cb_mem_new(heap, pem.size + extra + 1);
    out->size = (unsigned)(pem.size + extra);
    if (out->data) {
        memcpy(out->data, pem.data, pem.size);
        if (extra) memcpy(out->data + pem.size, above, extra);
    }
    gnutls_free(pem.data);
    return out->data ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a certificate");
}

static int export_key(gnutls_privkey_t key, gnutls_datum_t *out) {
    gnutls_datum_t pem = {NULL, 0};
    gnutls_x509_privkey_t x = NULL;
    int rc = gnutls_privkey_export_x509(key, &x);
    if (rc >= 0) rc = gnutls_x509_privkey_export2_pkcs8(x, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &pem);
    if (x) gnutls_x509_privkey_deinit(x);
    if (rc < 0) return cb_fail(CB_ETLS, "cannot write a key as PEM: %s", gnutls_strerror(rc));
    out->data = cb_mem_new(heap, pem.size + 1);
    out->size = pem.size;
    if (out->data) memcpy(out->data, pem.data, pem.size);
    cb_mem_wipe(pem.data, pem.size);
    gnutls_free(pem.data);
    return out->data ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a key");
}

static int check_permitted(const cb_ca_opts *o) {
    bool dns = false;
    if (o->permitted_len && !o->parent) return cb_fail(CB_EINVAL, "cb_ca_opts: a root has no name constraints");
    for (size_t i = 0; i < o->permitted_len; i++) {
        const char *text = o->permitted[i];
        gnutls_datum_t range = {NULL, 0};
        int rc = CB_OK;
        if (strchr(text, '/')) {
            rc = gnutls_x509_cidr_to_rfc5280(text, &range) < 0 ? cb_fail(CB_EINVAL, "\"%s\" is not a prefix", text)
                                                               : CB_OK;
            gnutls_free(range.data);
        } else {
            uint8_t ip[16];
            rc = cb_cert_ip(text, ip) || text[0] == '*'
                     ? cb_fail(CB_EINVAL, "\"%s\": a name without \"*\" or a prefix", text)
                     : cb_cert_check_name(text);
            dns = true;
        }
        if (rc < 0) return rc;
    }
    if (!o->permitted_len || dns) return CB_OK;
    return cb_fail(CB_EINVAL, "cb_ca_opts: permitted needs a DNS name, else every name is");
}

/* May `parent` have an intermediate with this path length below it? */
static int check_parent(const cb_ca *parent, uint32_t path_len) {
    unsigned ca = 0, critical = 0;
    int limit = -1;
    int rc = gnutls_x509_crt_get_basic_constraints(parent->crt, &critical, &ca, &limit);
    if (rc < 0) return cb_fail(CB_EINVAL, "%s: no basic constraints: %s", parent->dir, gnutls_strerror(rc));
    if (limit < 0 || (int64_t)path_len < limit) return CB_OK;
    return cb_fail(CB_EINVAL, "%s: its path length is %d: it cannot have an intermediate of path length %u",
                   parent->dir, limit, path_len);
}

static int name_line(char **line, gnutls_x509_crt_t crt, const cb_cert_plan *plan) {
    char serial[CB_SERIAL_TEXT], *names = NULL, *longer;
    int rc = cb_cert_serial(crt, serial);
    for (size_t i = 0; rc >= 0 && i < plan->names_len + plan->uris_len; i++) {
        const char *name = i < plan->names_len ? plan->names[i] : plan->uris[i - plan->names_len];
        int n = asprintf(&longer, "%s%s%s", names ? names : "", names ? "," : "", name);
        free(names);
        names = n < 0 ? NULL : longer;
        if (n < 0) return cb_fail(CB_ENOMEM, "no memory for the index");
    }
    if (rc >= 0 && asprintf(line, "issued\t%s\t%lld\t%lld\t%d\t%s", serial, (long long)plan->not_before,
                            (long long)plan->not_after, plan->profile, names ? names : "") < 0) {
        rc = cb_fail(CB_ENOMEM, "no memory for the index");
    }
    free(names);
    return rc;
}

/* The index knows a certificate before anybody else sees it. */
static int record(const cb_ca *ca, gnutls_x509_crt_t crt, const cb_cert_plan *plan) {
    char *line = NULL;
    int lock = -1, rc = name_line(&line, crt, plan);
    if (rc >= 0) rc = cb_ca_lock(ca->dir, false, &lock);
    if (rc >= 0) rc = cb_ca_index_add(ca->dir, line, ca->lazy);
    if (lock >= 0) close(lock);
    free(line);
    return rc;
}

static int write_authority(cb_ca *ca, const cb_ca_opts *o) {
    char path[CB_CA_PATH];
    gnutls_datum_t crt = {NULL, 0}, key = {NULL, 0}, root = {NULL, 0}, url = {NULL, 0};
    int rc = export_pem(ca->crt, o->parent ? o->parent->chain : NULL, &crt);
    if (rc >= 0 && !o->key_url) rc = export_key(ca->key, &key);
    if (rc >= 0 && o->key_url && asprintf((char **)&url.data, "%s\n", o->key_url) < 0)
        rc = cb_fail(CB_ENOMEM, "no memory for a CA");
    if (rc >= 0 && o->parent) {
        rc = cb_ca_path(path, o->parent->dir, o->parent->chain ? "root" : "ca", ".pem");
        if (rc >= 0) rc = cb_tls_file_read(path, &root, NULL);
    }
    if (rc >= 0) {
        const struct cb_ca_file top = {"root.pem", o->parent ? root : crt, 0644};
        if (url.data) url.size = (unsigned)strlen((const char *)url.data);
        const struct cb_ca_file own[] = {{url.data ? "-key.url" : "-key.pem", url.data ? url : key, 0600},
                                         {".pem", crt, 0644}};
        rc = cb_ca_write(ca->dir, "", &top, 1);
        if (rc >= 0) rc = cb_ca_write(ca->dir, "ca", own, 2);
    }
    if (rc >= 0) { /* a certificate that was built has no encoded names; one that was read has */
        gnutls_x509_crt_deinit(ca->crt);
        ca->crt = NULL;
        int grc = gnutls_x509_crt_init(&ca->crt);
        if (grc >= 0) grc = gnutls_x509_crt_import(ca->crt, &crt, GNUTLS_X509_FMT_PEM);
        rc = grc < 0 ? cb_fail(CB_ETLS, "%s: %s", ca->dir, gnutls_strerror(grc)) : adopt(ca, &crt);
    }
    cb_ca_wipe(&key);
    free(url.data);
    cb_mem_free(heap, crt.data);
    gnutls_free(root.data);
    return rc;
}

static int make_key(gnutls_privkey_t *out, int key_type) {
    gnutls_x509_privkey_t x;
    int rc = cb_key_generate(&x, key_type);
    return rc < 0 ? rc : cb_key_wrap(out, x);
}

static int make(cb_ca *ca, const cb_ca_opts *o) {
    int64_t now = (int64_t)time(NULL), end = now + (int64_t)(o->days ? o->days : CA_DAYS) * CB_DAY;
    gnutls_pubkey_t pub = NULL;
    cb_ca *parent = o->parent;
    cb_cert_plan plan = {
        .organization = o->organization ? o->organization
                        : parent        ? parent->organization
                                        : "libcb",
        .common_name = o->common_name ? o->common_name : "libcb development CA",
        .not_before = now - 3600,
        .not_after = end,
        .profile = CB_CERT_AUTHORITY,
        .path_len = (int)o->path_len,
        .permitted = o->permitted,
        .permitted_len = o->permitted_len,
    };
    int rc = check_permitted(o);
    if (rc >= 0 && o->path_len > CHAIN_MAX) rc = cb_fail(CB_EINVAL, "cb_ca_opts: a path length above %d", CHAIN_MAX);
    if (rc >= 0 && parent) {
        int64_t above = (int64_t)gnutls_x509_crt_get_expiration_time(parent->crt);
        plan.not_after = end < above ? end : above;
        rc = above <= now ? cb_fail(CB_EINVAL, "%s: the authority has expired", parent->dir)
                          : check_parent(parent, o->path_len);
    }
    if (rc >= 0 && o->key_url) rc = cb_token_key_open(&ca->key, &pub, o->key_url);
    if (rc >= 0 && !o->key_url) rc = make_key(&ca->key, o->key_type ? o->key_type : CB_KEY_ECDSA_P384);
    if (rc >= 0 && !o->key_url) rc = cb_cert_public(&pub, ca->key);
    if (rc >= 0) rc = cb_cert_build(&ca->crt, &plan, pub, parent ? parent->crt : NULL, parent ? parent->key : ca->key);
    if (pub) gnutls_pubkey_deinit(pub);
    if (rc >= 0 && parent) {
        plan.names = &plan.common_name;
        plan.names_len = 1;
        rc = strpbrk(plan.common_name, "\t\n,")
                 ? cb_fail(CB_EINVAL, "cb_ca_opts: common_name with tab, newline or comma")
                 : record(parent, ca->crt, &plan);
    }
    return rc >= 0 ? write_authority(ca, o) : rc;
}

static int load_or_make(cb_ca *ca, const cb_ca_opts *o) {
    char crt_path[CB_CA_PATH], key_path[CB_CA_PATH];
    int rc = cb_ca_path(crt_path, ca->dir, "ca", ".pem");
    if (rc < 0) return rc;
    bool no_crt = access(crt_path, F_OK) < 0 && errno == ENOENT;
    int key = cb_ca_key_place(key_path, ca->dir);
    if (no_crt && key == CB_ENOENT) {
        return o->mode == CB_CA_OPEN ? cb_fail(CB_ENOENT, "%s: no authority in this folder", ca->dir) : make(ca, o);
    }
    if (o->mode == CB_CA_MAKE) return cb_fail(CB_EEXIST, "%s: there is an authority already", ca->dir);
    if (no_crt) return cb_fail(CB_EINVAL, "%s: ca.pem is missing beside its key", ca->dir);
    if (key < 0) return key == CB_ENOENT ? cb_fail(CB_EINVAL, "%s: ca-key.pem is missing beside ca.pem", ca->dir) : key;
    return load(ca, crt_path, key_path);
}

int cb_ca_open(cb_ca **out, const cb_ca_opts *opts) {
    if (!out) return cb_fail(CB_EINVAL, "cb_ca_open: out is NULL");
    cb_ca_opts o;
    int lock = -1, rc = cb_opts_read(&o, sizeof o, opts, "cb_ca_opts");
    if (rc < 0) return rc;
    if (!o.dir || !*o.dir) return cb_fail(CB_EINVAL, "cb_ca_opts: no dir");
    if (o.days > DAYS_MAX) return cb_fail(CB_EINVAL, "cb_ca_opts: %u days are more than 100 years", o.days);
    if (o.max_leaf_days > DAYS_MAX) return cb_fail(CB_EINVAL, "cb_ca_opts: max_leaf_days is more than 100 years");
    if (o.mode < CB_CA_OPEN_OR_MAKE || o.mode > CB_CA_MAKE) return cb_fail(CB_EINVAL, "cb_ca_opts: no mode %d", o.mode);
    if (o.key_url && !cb_token_is_url(o.key_url)) return cb_fail(CB_EINVAL, "cb_ca_opts: key_url is no pkcs11: URL");
    if (o.parent && strcmp(o.parent->dir, o.dir) == 0) return cb_fail(CB_EINVAL, "%s: the parent lives here", o.dir);
    cb_ca *ca = cb_mem_new(heap, sizeof *ca);
    if (!ca || !(ca->dir = cb_mem_text(heap, o.dir))) {
        cb_ca_free(ca);
        return cb_fail(CB_ENOMEM, "no memory for a CA");
    }
    ca->max_leaf_s = (o.max_leaf_days ? o.max_leaf_days : LEAF_MAX_DAYS) * (uint32_t)CB_DAY;
    ca->lazy = o.lazy_index;
    rc = cb_ca_lock(ca->dir, o.mode != CB_CA_OPEN, &lock);
    if (rc >= 0) rc = load_or_make(ca, &o);
    if (lock >= 0) close(lock);
    if (rc < 0) {
        cb_ca_free(ca);
        return rc;
    }
    *out = ca;
    return CB_OK;
}

void cb_ca_free(cb_ca *ca) {
    if (!ca) return;
    if (ca->crt) gnutls_x509_crt_deinit(ca->crt);
    if (ca->key) gnutls_privkey_deinit(ca->key);
    if (ca->constraints) gnutls_x509_name_constraints_deinit(ca->constraints);
    cb_mem_free(heap, ca->dir);
    cb_mem_free(heap, ca->chain);
    cb_mem_free(heap, ca->organization);
    cb_mem_free(heap, ca);
}

void cb_ca_text_free(char *text) {
    if (text) cb_mem_wipe(text, strlen(text));
    cb_mem_free(heap, text);
}

/* --- leaves --- */

static int check_names(const cb_leaf_opts *o) {
    size_t spiffe = 0;
    if ((o->names_len && !o->names) || (o->uris_len && !o->uris))
        return cb_fail(CB_EINVAL, "cb_leaf_opts: names are NULL");
    for (size_t i = 0; i < o->names_len; i++) {
        int rc = cb_cert_check_name(o->names[i]);
        if (rc < 0) return rc;
    }
    for (size_t i = 0; i < o->uris_len; i++) {
        int rc = cb_cert_check_uri(o->uris[i]);
        if (rc < 0) return rc;
        if (strncmp(o->uris[i], "spiffe:", 7) == 0) spiffe++;
    }
    if (spiffe > 1) return cb_fail(CB_EINVAL, "a certificate has at most one SPIFFE ID");
    if (o->profile == CB_CERT_SVID && (spiffe != 1 || o->uris_len != 1)) {
        return cb_fail(CB_EINVAL, "an SVID has exactly one URI: its SPIFFE ID");
    }
    bool nameless = o->profile == CB_CERT_CLIENT || o->profile == CB_CERT_OCSP;
    if (o->names_len + o->uris_len == 0 && !nameless) return cb_fail(CB_EINVAL, "a certificate needs a name");
    return CB_OK;
}

static int check_constraints(const cb_ca *ca, const cb_cert_plan *plan) {
    for (size_t i = 0; ca->constraints && i < plan->names_len; i++) {
        uint8_t ip[16];
        const char *text = plan->names[i];
        unsigned ip_len = cb_cert_ip(text, ip);
        gnutls_datum_t name = {(uint8_t *)(uintptr_t)text, (unsigned)strlen(text)};
        if (ip_len) name = (gnutls_datum_t){ip, ip_len};
        if (gnutls_x509_name_constraints_check(ca->constraints, ip_len ? GNUTLS_SAN_IPADDRESS : GNUTLS_SAN_DNSNAME,
                                               &name)) {
            continue;
        }
        return cb_fail(CB_EPERM, "%s: \"%s\" is outside of this authority's name constraints", ca->dir, text);
    }
    return CB_OK;
}

/* Verifiers hold a common name against the constraints of DNS names: one that is none would be refused there. */
static const char *common_name(const cb_ca *ca, const cb_leaf_opts *o) {
    uint8_t ip[16];
    if (o->profile == CB_CERT_SVID) return NULL;
    if (o->names_len == 0) return ca->constraints ? NULL : o->file_stem;
    return ca->constraints && cb_cert_ip(o->names[0], ip) ? NULL : o->names[0];
}

static int plan_leaf(const cb_ca *ca, const cb_leaf_opts *o, cb_cert_plan *plan) {
    int64_t now = (int64_t)time(NULL), ca_end = (int64_t)gnutls_x509_crt_get_expiration_time(ca->crt);
    int64_t life = o->days ? (int64_t)o->days * CB_DAY : o->lifetime_s ? o->lifetime_s : CB_DAY;
    if (o->profile < 0 || o->profile > CB_CERT_OCSP) return cb_fail(CB_EINVAL, "no such profile: %d", o->profile);
    if (o->must_staple && (o->profile == CB_CERT_CLIENT || o->profile == CB_CERT_OCSP)) {
        return cb_fail(CB_EINVAL, "must_staple is for servers");
    }
    if (life > (int64_t)ca->max_leaf_s) {
        return cb_fail(CB_EINVAL, "%lld s (%lld days) are longer than this authority's limit of %u days",
                       (long long)life, (long long)(life / CB_DAY), ca->max_leaf_s / (uint32_t)CB_DAY);
    }
    if (ca_end <= now) return cb_fail(CB_EINVAL, "%s: the authority has expired", ca->dir);
    int rc = check_names(o);
    if (rc < 0) return rc;
    int64_t begin = o->not_before_s ? o->not_before_s : now - SKEW;
    int64_t end = (o->not_before_s ? begin : now) + life;
    *plan = (cb_cert_plan){
        .organization = o->profile == CB_CERT_SVID ? NULL : ca->organization,
        .common_name = common_name(ca, o),
        .names = o->names,
        .names_len = o->names_len,
        .uris = o->uris,
        .uris_len = o->uris_len,
        .not_before = begin,
        .not_after = end < ca_end ? end : ca_end,
        .profile = o->profile,
        .must_staple = o->must_staple,
    };
    return CB_OK;
}

/* Certifies `pub`, and writes it down. */
static int certify(cb_ca *ca, const cb_leaf_opts *o, gnutls_pubkey_t pub, gnutls_datum_t *pem) {
    cb_cert_plan plan;
    gnutls_x509_crt_t crt = NULL;
    int rc = plan_leaf(ca, o, &plan);
    if (rc >= 0) rc = check_constraints(ca, &plan);
    if (rc >= 0) rc = cb_cert_build(&crt, &plan, pub, ca->crt, ca->key);
    if (rc >= 0) rc = export_pem(crt, ca->chain, pem);
    if (rc >= 0 && (rc = record(ca, crt, &plan)) < 0) {
        cb_mem_free(heap, pem->data);
        pem->data = NULL;
    }
    if (crt) gnutls_x509_crt_deinit(crt);
    return rc;
}

int cb_ca_make_leaf(cb_ca *ca, const cb_leaf_opts *o, gnutls_datum_t *crt, gnutls_datum_t *key) {
    gnutls_privkey_t x = NULL;
    gnutls_pubkey_t pub = NULL;
    int rc = check_names(o); /* before a key is made for nothing */
    if (rc >= 0) rc = make_key(&x, o->key_type ? o->key_type : CB_KEY_ECDSA_P256);
    if (rc >= 0) rc = cb_cert_public(&pub, x);
    if (rc >= 0) rc = export_key(x, key);
    if (rc >= 0) rc = certify(ca, o, pub, crt);
    if (pub) gnutls_pubkey_deinit(pub);
    if (x) gnutls_privkey_deinit(x);
    return rc;
}

void cb_ca_wipe(gnutls_datum_t *pem) {
    if (pem->data) cb_mem_wipe(pem->data, pem->size);
    cb_mem_free(heap, pem->data);
    *pem = (gnutls_datum_t){NULL, 0};
}

int cb_ca_issue_pem(cb_ca *ca, const cb_leaf_opts *opts, char **cert, char **key) {
    if (!ca || !cert || !key) return cb_fail(CB_EINVAL, "cb_ca_issue_pem: ca, cert or key is NULL");
    cb_leaf_opts o;
    gnutls_datum_t crt_pem = {NULL, 0}, key_pem = {NULL, 0};
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_leaf_opts");
    if (rc >= 0) rc = cb_ca_make_leaf(ca, &o, &crt_pem, &key_pem);
    if (rc < 0) {
        cb_ca_wipe(&key_pem);
        return rc;
    }
    *cert = (char *)crt_pem.data;
    *key = (char *)key_pem.data;
    return CB_OK;
}

int cb_ca_sign(cb_ca *ca, cb_slice request, const cb_leaf_opts *opts, char **cert) {
    if (!ca || !cert) return cb_fail(CB_EINVAL, "cb_ca_sign: ca or cert is NULL");
    cb_leaf_opts o;
    cb_csr csr;
    gnutls_datum_t pem = {NULL, 0};
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_leaf_opts");
    if (rc >= 0) rc = cb_csr_read(&csr, request, &o);
    if (rc < 0) return rc;
    o.names = csr.names;
    o.names_len = csr.names_len;
    o.uris = csr.uris;
    o.uris_len = csr.uris_len;
    rc = certify(ca, &o, csr.pub, &pem);
    cb_csr_clear(&csr);
    if (rc < 0) return rc;
    *cert = (char *)pem.data;
    return CB_OK;
}

/* "*" and ":" trouble shells and other systems; what the authority's own files are called is taken. */
static int stem_of(char out[CB_CA_PATH], const cb_leaf_opts *o) {
    const char *given = o->file_stem, *uri = NULL;
    if (given && (!*given || *given == '.' || strchr(given, '/') || !strcmp(given, "ca") || !strcmp(given, "root"))) {
        return cb_fail(CB_EINVAL, "\"%s\" cannot name a certificate's files", given);
    }
    if (!given && o->names_len == 0 && o->uris_len) uri = strstr(o->uris[0], "://");
    const char *from = given ? given : o->names_len ? o->names[0] : uri ? uri + 3 : NULL;
    if (!from || !*from) return cb_fail(CB_EINVAL, "cb_leaf_opts: file_stem is needed where there is no name");
    bool taken = strcmp(from, "ca") == 0 || strcmp(from, "root") == 0;
    int n = snprintf(out, CB_CA_PATH, "%s%s", from, taken ? "_" : "");
    if (n < 0 || n >= 245) return cb_fail(CB_EINVAL, "\"%.40s...\" is too long to name files", from);
    for (char *p = out; *p; p++) {
        if (*p == '*' || *p == ':' || *p == '/') *p = '_';
    }
    if (*out == '.') *out = '_';
    return CB_OK;
}

static int give_path(char **out, const char *dir, const char *stem, const char *tail) {
    char path[CB_CA_PATH];
    if (!out) return CB_OK;
    int rc = cb_ca_path(path, dir, stem, tail);
    if (rc < 0) return rc;
    *out = cb_mem_text(heap, path);
    return *out ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a path");
}

int cb_ca_issue(cb_ca *ca, const cb_leaf_opts *opts, char **cert_path, char **key_path) {
    if (!ca) return cb_fail(CB_EINVAL, "cb_ca_issue: ca is NULL");
    cb_leaf_opts o;
    char stem[CB_CA_PATH], *crt_text = NULL, *key_text = NULL;
    gnutls_datum_t crt = {NULL, 0}, key = {NULL, 0};
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_leaf_opts");
    if (rc >= 0) rc = check_names(&o);
    if (rc >= 0) rc = stem_of(stem, &o);
    if (rc < 0) return rc;
    rc = give_path(cert_path ? &crt_text : NULL, ca->dir, stem, ".pem");
    if (rc >= 0) rc = give_path(key_path ? &key_text : NULL, ca->dir, stem, "-key.pem");
    if (rc >= 0) rc = cb_ca_make_leaf(ca, &o, &crt, &key);
    if (rc >= 0) {
        const struct cb_ca_file files[] = {{"-key.pem", key, 0600}, {".pem", crt, 0644}};
        rc = cb_ca_write(ca->dir, stem, files, 2);
    }
    cb_ca_wipe(&key);
    cb_mem_free(heap, crt.data);
    if (rc < 0) {
        cb_ca_text_free(crt_text);
        cb_ca_text_free(key_text);
        return rc;
    }
    if (cert_path) *cert_path = crt_text;
    if (key_path) *key_path = key_text;
    return CB_OK;
}
