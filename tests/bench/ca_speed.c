/* What certifying costs beside what cannot be saved: `ca_speed ROW CURVE COUNT` prints "count cpu_seconds". The leaves
 * have keys on P-256 and one name; CURVE (p256, p384) is the authority's.
 *
 * ROW: raw (GnuTLS alone builds, signs and encodes, for one key that is there), sign (cb_ca_sign(): the request is
 * checked first, and the index written), rawkey (raw, with a new key each), issue (cb_ca_issue_pem(): a new key each,
 * and the index). */
#include <cb/ca.h>
#include <gnutls/abstract.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct job {
    cb_ca *ca;
    char dir[64];
    gnutls_x509_crt_t issuer;
    gnutls_privkey_t issuer_key;
    gnutls_pubkey_t pub;
    gnutls_datum_t request;
} job;

static double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "ca_speed: %s: %s\n", what, cb_last_error());
    exit(1);
}

static void read_pem(const job *j, const char *name, gnutls_datum_t *out) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", j->dir, name);
    must(gnutls_load_file(path, out) == 0, path);
}

static gnutls_pubkey_t fresh_key(gnutls_x509_privkey_t *key) {
    gnutls_privkey_t any;
    gnutls_pubkey_t pub;
    gnutls_x509_privkey_init(key);
    must(gnutls_x509_privkey_generate(*key, GNUTLS_PK_ECDSA, GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0) == 0,
         "key");
    gnutls_privkey_init(&any);
    gnutls_pubkey_init(&pub);
    must(gnutls_privkey_import_x509(any, *key, 0) == 0 && gnutls_pubkey_import_privkey(pub, any, 0, 0) == 0,
         "public key");
    gnutls_privkey_deinit(any);
    return pub;
}

static void make(job *j, const char *curve) {
    gnutls_datum_t pem;
    gnutls_x509_privkey_t key;
    gnutls_x509_crq_t crq;
    snprintf(j->dir, sizeof j->dir, "/tmp/cb-ca-speed-XXXXXX");
    must(mkdtemp(j->dir) != NULL, "folder");
    must(cb_ca_open(&j->ca, CB_OPTS(cb_ca_opts, .dir = j->dir, .lazy_index = 1,
                                    .key_type = strcmp(curve, "p256") == 0 ? CB_KEY_ECDSA_P256 : CB_KEY_ECDSA_P384)) ==
             0,
         "authority");
    read_pem(j, "ca.pem", &pem);
    gnutls_x509_crt_init(&j->issuer);
    must(gnutls_x509_crt_import(j->issuer, &pem, GNUTLS_X509_FMT_PEM) == 0, "ca.pem");
    gnutls_free(pem.data);
    read_pem(j, "ca-key.pem", &pem);
    gnutls_privkey_init(&j->issuer_key);
    must(gnutls_privkey_import_x509_raw(j->issuer_key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0) == 0, "ca-key.pem");
    gnutls_free(pem.data);
    j->pub = fresh_key(&key);
    gnutls_x509_crq_init(&crq);
    must(gnutls_x509_crq_set_version(crq, 1) == 0 && gnutls_x509_crq_set_key(crq, key) == 0 &&
             gnutls_x509_crq_set_subject_alt_name(crq, GNUTLS_SAN_DNSNAME, "a.test", 6, GNUTLS_FSAN_SET) == 0 &&
             gnutls_x509_crq_sign2(crq, key, GNUTLS_DIG_SHA256, 0) == 0 &&
             gnutls_x509_crq_export2(crq, GNUTLS_X509_FMT_PEM, &j->request) == 0,
         "request");
    gnutls_x509_crq_deinit(crq);
    gnutls_x509_privkey_deinit(key);
}

static void drop(const job *j) {
    static const char *const names[] = {"ca.pem", "ca-key.pem", "root.pem", "index"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", j->dir, names[i]);
        unlink(path);
    }
    rmdir(j->dir);
}

/* The same certificate as the library's, by GnuTLS alone. */
static void raw(const job *j, gnutls_pubkey_t pub) {
    static unsigned counter;
    unsigned serial = ++counter;
    uint8_t id[64];
    size_t id_len = sizeof id;
    gnutls_x509_crt_t crt;
    gnutls_datum_t pem;
    time_t now = time(NULL);
    gnutls_x509_crt_init(&crt);
    must(gnutls_x509_crt_set_version(crt, 3) == 0 && gnutls_x509_crt_set_serial(crt, &serial, sizeof serial) == 0 &&
             gnutls_x509_crt_set_activation_time(crt, now) == 0 &&
             gnutls_x509_crt_set_expiration_time(crt, now + 86400) == 0 &&
             gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_ORGANIZATION_NAME, 0, "libcb", 5) == 0 &&
             gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, "a.test", 6) == 0 &&
             gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_DNSNAME, "a.test", 6, GNUTLS_FSAN_SET) == 0 &&
             gnutls_x509_crt_set_pubkey(crt, pub) == 0 && gnutls_x509_crt_set_basic_constraints(crt, 0, -1) == 0 &&
             gnutls_x509_crt_set_key_usage(crt, GNUTLS_KEY_DIGITAL_SIGNATURE) == 0 &&
             gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_TLS_WWW_SERVER, 0) == 0 &&
             gnutls_x509_crt_set_key_purpose_oid(crt, GNUTLS_KP_TLS_WWW_CLIENT, 0) == 0,
         "fields");
    must(gnutls_x509_crt_get_key_id(crt, 0, id, &id_len) == 0 &&
             gnutls_x509_crt_set_subject_key_id(crt, id, id_len) == 0,
         "key id");
    id_len = sizeof id;
    must(gnutls_x509_crt_get_subject_key_id(j->issuer, id, &id_len, NULL) == 0 &&
             gnutls_x509_crt_set_authority_key_id(crt, id, id_len) == 0,
         "issuer's key id");
    must(gnutls_x509_crt_privkey_sign(crt, j->issuer, j->issuer_key, GNUTLS_DIG_UNKNOWN, 0) == 0 &&
             gnutls_x509_crt_export2(crt, GNUTLS_X509_FMT_PEM, &pem) == 0,
         "signature");
    gnutls_free(pem.data);
    gnutls_x509_crt_deinit(crt);
}

static void raw_with_key(const job *j) {
    gnutls_x509_privkey_t key;
    gnutls_datum_t pem;
    gnutls_pubkey_t pub = fresh_key(&key);
    must(gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &pem) == 0, "key");
    raw(j, pub);
    gnutls_free(pem.data);
    gnutls_pubkey_deinit(pub);
    gnutls_x509_privkey_deinit(key);
}

static void one(const job *j, const char *row) {
    static const char *const name = "a.test";
    static const cb_leaf_opts leaf = {.size = sizeof leaf, .names = &name, .names_len = 1};
    char *cert = NULL, *key = NULL;
    if (strcmp(row, "raw") == 0) {
        raw(j, j->pub);
    } else if (strcmp(row, "rawkey") == 0) {
        raw_with_key(j);
    } else if (strcmp(row, "sign") == 0) {
        must(cb_ca_sign(j->ca, (cb_slice){j->request.data, j->request.size}, &leaf, &cert) == 0, row);
    } else {
        must(cb_ca_issue_pem(j->ca, &leaf, &cert, &key) == 0, row);
    }
    cb_ca_text_free(cert);
    cb_ca_text_free(key);
}

int main(int argc, char **argv) {
    job j = {0};
    if (argc != 4) {
        fprintf(stderr, "usage: ca_speed raw|sign|rawkey|issue p256|p384 COUNT\n");
        return 2;
    }
    make(&j, argv[2]);
    long count = atol(argv[3]);
    for (int i = 0; i < 20; i++) {
        one(&j, argv[1]);
    }
    double start = cpu();
    for (long i = 0; i < count; i++) {
        one(&j, argv[1]);
    }
    printf("%ld %.6f\n", count, cpu() - start);
    drop(&j);
    return 0;
}
