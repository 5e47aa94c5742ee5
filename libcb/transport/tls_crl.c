#include "transport/tls_crl.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include <stdlib.h>
#include <string.h>

enum { LISTS_MAX = 64, ENTRIES_MAX = 1 << 20, SERIAL_MAX = 32, NAME_TEXT = 160 };

static const cb_alloc *const heap = &cb_alloc_libc;

typedef struct entry {
    int64_t when;
    uint8_t len, serial[SERIAL_MAX]; /* without zeros in front */
} entry;

typedef struct list {
    gnutls_datum_t issuer; /* raw name; gnutls_free() */
    entry *entries;        /* sorted */
    size_t n;
    int64_t since, due;  /* due -1 = it does not say */
    bool issuer_revoked; /* by another list of the set */
    char name[NAME_TEXT];
} list;

struct cb_crl_set {
    list *lists;
    size_t n;
};

static int compare(const void *pa, const void *pb) {
    const entry *a = pa, *b = pb;
    return a->len != b->len ? (int)a->len - (int)b->len : memcmp(a->serial, b->serial, a->len);
}

/* False: longer than any that can be in a list. */
static bool normalise(entry *e, const uint8_t *serial, size_t len) {
    while (len > 0 && *serial == 0) {
        serial++;
        len--;
    }
    if (len > SERIAL_MAX) return false;
    e->len = (uint8_t)len;
    memcpy(e->serial, serial, len);
    return true;
}

static void set_name(list *l, gnutls_x509_crl_t crl) {
    gnutls_datum_t dn = {NULL, 0};
    if (gnutls_x509_crl_get_issuer_dn3(crl, &dn, 0) >= 0)
        cb_text_escape(l->name, NAME_TEXT, (cb_slice){dn.data, dn.size});
    gnutls_free(dn.data);
}

/* What cannot be understood must not be used (RFC 5280, 5.2). */
static int check_extensions(const list *l, gnutls_x509_crl_t crl, const char *file) {
    for (unsigned i = 0;; i++) {
        char oid[128];
        size_t size = sizeof oid;
        unsigned critical = 0;
        int rc = gnutls_x509_crl_get_extension_info(crl, i, oid, &size, &critical);
        if (rc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) return CB_OK;
        if (rc < 0) return cb_fail(CB_EINVAL, "%s: the list of %s has extensions that cannot be read", file, l->name);
        if (critical)
            return cb_fail(CB_EINVAL,
                           "%s: the list of %s has the critical extension %s (a delta, partial or indirect list), "
                           "which is not supported",
                           file, l->name, oid);
    }
}

static bool may_sign_lists(gnutls_x509_crt_t crt) {
    unsigned usage = 0, critical = 0;
    int rc = gnutls_x509_crt_get_key_usage(crt, &usage, &critical);
    return rc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE || (rc >= 0 && usage & GNUTLS_KEY_CRL_SIGN);
}

/* Whether it is too old is asked at each handshake. GnuTLS gives every other flaw a flag of its own, too. */
static bool only_old(unsigned status) {
    const unsigned old = GNUTLS_CERT_REVOCATION_DATA_SUPERSEDED | GNUTLS_CERT_REVOCATION_DATA_ISSUED_IN_FUTURE;
    return (status & old) && !(status & ~(old | GNUTLS_CERT_INVALID));
}

static int authenticate(const list *l, gnutls_x509_crl_t crl, const char *file, const gnutls_x509_crt_t *issuers,
                        unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        unsigned status = 0;
        if (!gnutls_x509_crl_check_issuer(crl, issuers[i]) || !may_sign_lists(issuers[i])) continue;
        int rc = gnutls_x509_crl_verify(crl, &issuers[i], 1, 0, &status);
        if (rc >= 0 && (status == 0 || only_old(status))) return CB_OK;
    }
    return cb_fail(CB_EINVAL,
                   "%s: none of the trusted certificates has signed the list of %s: add its issuer's to them", file,
                   l->name);
}

static int read_entries(list *l, gnutls_x509_crl_t crl, const char *file) {
    int count = gnutls_x509_crl_get_crt_count(crl);
    if (count < 0 || count > ENTRIES_MAX) return cb_fail(CB_EINVAL, "%s: the list of %s cannot be read", file, l->name);
    if (count == 0) return CB_OK;
    if (!(l->entries = cb_mem_new(heap, (size_t)count * sizeof *l->entries))) return cb_fail(CB_ENOMEM, "%s", file);
    gnutls_x509_crl_iter_t at = NULL;
    int rc = CB_OK;
    while (l->n < (size_t)count) {
        uint8_t serial[64];
        size_t size = sizeof serial;
        time_t when = 0;
        int grc = gnutls_x509_crl_iter_crt_serial(crl, &at, serial, &size, &when);
        if (grc == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) break;
        if (grc < 0 || !normalise(&l->entries[l->n], serial, size)) {
            rc = cb_fail(CB_EINVAL, "%s: the list of %s has an entry that cannot be read", file, l->name);
            break;
        }
        l->entries[l->n++].when = (int64_t)when;
    }
    gnutls_x509_crl_iter_deinit(at);
    if (l->n > 1) qsort(l->entries, l->n, sizeof *l->entries, compare);
    return rc;
}

static int read_list(list *l, gnutls_x509_crl_t crl, const char *file, const gnutls_x509_crt_t *issuers, unsigned n) {
    set_name(l, crl);
    if (gnutls_x509_crl_get_raw_issuer_dn(crl, &l->issuer) < 0)
        return cb_fail(CB_EINVAL, "%s: a list without an issuer", file);
    l->since = (int64_t)gnutls_x509_crl_get_this_update(crl);
    l->due = (int64_t)gnutls_x509_crl_get_next_update(crl);
    int rc = check_extensions(l, crl, file);
    if (rc >= 0) rc = authenticate(l, crl, file, issuers, n);
    return rc >= 0 ? read_entries(l, crl, file) : rc;
}

static const entry *find(const list *l, gnutls_x509_crt_t crt) {
    uint8_t serial[64];
    size_t size = sizeof serial;
    entry wanted;
    if (gnutls_x509_crt_get_serial(crt, serial, &size) < 0 || !normalise(&wanted, serial, size) || l->n == 0)
        return NULL;
    return bsearch(&wanted, l->entries, l->n, sizeof *l->entries, compare);
}

static bool is_of(const list *l, const gnutls_datum_t *issuer) {
    return l->issuer.size == issuer->size && memcmp(l->issuer.data, issuer->data, issuer->size) == 0;
}

/* An authority in the middle is trusted by itself: that somebody above took it back must be found out here. */
static void mark_issuers(cb_crl_set *set, const gnutls_x509_crt_t *issuers, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        gnutls_datum_t subject = {NULL, 0}, above = {NULL, 0};
        bool revoked = false;
        if (gnutls_x509_crt_get_raw_dn(issuers[i], &subject) < 0 ||
            gnutls_x509_crt_get_raw_issuer_dn(issuers[i], &above) < 0) {
            gnutls_free(subject.data);
            continue;
        }
        for (size_t k = 0; k < set->n && !revoked; k++)
            revoked = is_of(&set->lists[k], &above) && find(&set->lists[k], issuers[i]);
        for (size_t k = 0; k < set->n && revoked; k++)
            if (is_of(&set->lists[k], &subject)) set->lists[k].issuer_revoked = true;
        gnutls_free(subject.data);
        gnutls_free(above.data);
    }
}

static int import(const char *file, cb_slice data, gnutls_x509_crl_t **out, unsigned *n) {
    const gnutls_datum_t raw = {(unsigned char *)(uintptr_t)data.base, (unsigned)data.len};
    const bool pem = data.len > 0 && data.base[0] != 0x30; /* DER begins with a SEQUENCE */
    int rc = gnutls_x509_crl_list_import2(out, n, &raw, pem ? GNUTLS_X509_FMT_PEM : GNUTLS_X509_FMT_DER, 0);
    return rc < 0 ? cb_fail(CB_EINVAL, "%s: no revocation list in it (PEM or DER): %s", file, gnutls_strerror(rc))
                  : CB_OK;
}

int cb_crl_set_read(cb_crl_set **out, const char *file, cb_slice data, const gnutls_x509_crt_t *issuers, unsigned n) {
    gnutls_x509_crl_t *crls = NULL;
    unsigned len = 0;
    int rc = import(file, data, &crls, &len);
    if (rc < 0) return rc;
    cb_crl_set *set = cb_mem_new(heap, sizeof *set);
    if (!set || !(set->lists = cb_mem_new(heap, (len ? len : 1) * sizeof *set->lists)))
        rc = cb_fail(CB_ENOMEM, "%s", file);
    if (rc >= 0 && len > LISTS_MAX) rc = cb_fail(CB_EINVAL, "%s: more than %d lists", file, LISTS_MAX);
    for (unsigned i = 0; i < len; i++) {
        if (rc >= 0) rc = read_list(&set->lists[set->n++], crls[i], file, issuers, n);
        gnutls_x509_crl_deinit(crls[i]);
    }
    gnutls_free(crls);
    if (rc < 0) {
        cb_crl_set_free(set);
        return rc;
    }
    mark_issuers(set, issuers, n);
    *out = set;
    return CB_OK;
}

void cb_crl_set_free(cb_crl_set *set) {
    if (!set) return;
    for (size_t i = 0; i < set->n; i++) {
        gnutls_free(set->lists[i].issuer.data);
        cb_mem_free(heap, set->lists[i].entries);
    }
    cb_mem_free(heap, set->lists);
    cb_mem_free(heap, set);
}

enum cb_crl_verdict cb_crl_set_judge(const cb_crl_set *set, gnutls_x509_crt_t crt, int64_t now_s, bool stale_ok,
                                     int64_t *at) {
    gnutls_datum_t issuer = {NULL, 0};
    enum cb_crl_verdict verdict = CB_CRL_UNCOVERED;
    int64_t when = 0;
    if (gnutls_x509_crt_get_raw_issuer_dn(crt, &issuer) < 0) return CB_CRL_UNCOVERED;
    for (size_t i = 0; i < set->n && verdict != CB_CRL_REVOKED; i++) {
        const list *l = &set->lists[i];
        if (!is_of(l, &issuer)) continue;
        const entry *e = find(l, crt);
        if (e || l->issuer_revoked) {
            verdict = CB_CRL_REVOKED;
            when = e ? e->when : 0;
        } else if (stale_ok || l->due == -1 || l->due > now_s) {
            verdict = CB_CRL_GOOD;
        } else if (verdict == CB_CRL_UNCOVERED) {
            verdict = CB_CRL_STALE;
            when = l->due;
        }
    }
    gnutls_free(issuer.data);
    if (at) *at = when;
    return verdict;
}

size_t cb_crl_set_len(const cb_crl_set *set) {
    return set ? set->n : 0;
}

int64_t cb_crl_set_due(const cb_crl_set *set, size_t i, const char **issuer, int64_t *since) {
    *since = set->lists[i].since;
    *issuer = set->lists[i].name;
    return set->lists[i].due;
}
