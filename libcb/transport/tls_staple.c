#include "transport/tls_staple.h"
#include "base/error.h"
#include "base/mem.h"
#include "transport/tls_cert.h"
#include <gnutls/ocsp.h>

enum { CLOCKS_DIFFER_S = 300, STATUS_REQUEST = 5 };

static int check(gnutls_ocsp_resp_t answer, const char *file, gnutls_x509_crt_t leaf, gnutls_x509_crt_t issuer) {
    unsigned verdict = 0;
    int status = gnutls_ocsp_resp_get_status(answer);
    if (status != GNUTLS_OCSP_RESP_SUCCESSFUL)
        return cb_fail(CB_EINVAL, "%s: the responder refused to answer (status %d)", file, status);
    if (gnutls_ocsp_resp_check_crt(answer, 0, leaf) < 0)
        return cb_fail(CB_EINVAL, "%s: this OCSP answer is about another certificate", file);
    int rc = gnutls_ocsp_resp_verify_direct(answer, issuer, &verdict, 0);
    if (rc < 0 || verdict != 0)
        return cb_fail(CB_EINVAL, "%s: the signature of this OCSP answer is not by the issuer of the certificate",
                       file);
    return CB_OK;
}

static int fill(cb_tls_staple *s, gnutls_ocsp_resp_t answer) {
    unsigned status = GNUTLS_OCSP_CERT_UNKNOWN;
    time_t from = -1, to = -1;
    int rc = gnutls_ocsp_resp_get_single(answer, 0, NULL, NULL, NULL, NULL, &status, &from, &to, NULL, NULL);
    if (rc >= 0) rc = gnutls_ocsp_resp_export2(answer, &s->data.response, GNUTLS_X509_FMT_DER);
    s->data.exptime = to;
    s->this_update = (int64_t)from;
    s->next_update = (int64_t)to;
    s->good = status == GNUTLS_OCSP_CERT_GOOD;
    return rc < 0 ? cb_fail(CB_EINVAL, "%s: not an OCSP answer: %s", s->file, gnutls_strerror(rc)) : CB_OK;
}

int cb_tls_staple_read(cb_tls_staple *out, const char *file, gnutls_x509_crt_t leaf, gnutls_x509_crt_t issuer) {
    gnutls_datum_t raw;
    gnutls_ocsp_resp_t answer;
    cb_tls_staple s = {.good = false};
    int rc = cb_tls_file_read(file, &raw, NULL);
    if (rc < 0) return rc;
    int grc = gnutls_ocsp_resp_init(&answer);
    if (grc < 0) {
        gnutls_free(raw.data);
        return cb_fail(CB_ENOMEM, "%s", file);
    }
    bool pem = raw.data[0] != 0x30; /* DER begins with a SEQUENCE */
    grc = gnutls_ocsp_resp_import2(answer, &raw, pem ? GNUTLS_X509_FMT_PEM : GNUTLS_X509_FMT_DER);
    gnutls_free(raw.data);
    if (grc < 0) rc = cb_fail(CB_EINVAL, "%s: not an OCSP answer (DER or PEM): %s", file, gnutls_strerror(grc));
    if (rc >= 0) rc = check(answer, file, leaf, issuer);
    if (rc >= 0 && !(s.file = cb_mem_text(&cb_alloc_libc, file))) rc = cb_fail(CB_ENOMEM, "%s", file);
    if (rc >= 0) rc = fill(&s, answer);
    gnutls_ocsp_resp_deinit(answer);
    if (rc < 0) {
        cb_tls_staple_clear(&s);
        return rc;
    }
    *out = s;
    return CB_OK;
}

void cb_tls_staple_clear(cb_tls_staple *s) {
    gnutls_free(s->data.response.data);
    cb_mem_free(&cb_alloc_libc, s->file);
    *s = (cb_tls_staple){.good = false};
}

bool cb_tls_staple_usable(const cb_tls_staple *s, int64_t now_s) {
    if (!s->data.response.data || !s->good) return false;
    return s->this_update <= now_s + CLOCKS_DIFFER_S && (s->next_update == -1 || s->next_update > now_s);
}

bool cb_tls_must_staple(gnutls_x509_crt_t crt) {
    gnutls_x509_tlsfeatures_t features;
    bool found = false;
    if (gnutls_x509_tlsfeatures_init(&features) < 0) return false;
    int rc = gnutls_x509_crt_get_tlsfeatures(crt, features, 0, NULL);
    unsigned feature = 0;
    for (unsigned i = 0; rc >= 0 && !found && gnutls_x509_tlsfeatures_get(features, i, &feature) >= 0; i++)
        found = feature == STATUS_REQUEST;
    gnutls_x509_tlsfeatures_deinit(features);
    return found;
}
