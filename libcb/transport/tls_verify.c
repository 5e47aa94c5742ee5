/* Judging the peer's certificate, with words for the person who must mend it. */
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "transport/tls_session_int.h"
#include <arpa/inet.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { NAME_TEXT = 200, CHAIN_MAX = 16 };

static void refuse(cb_tls_session *s, enum cb_cert_verdict verdict, int alert, const char *text) {
    s->refused = true;
    s->verdict = verdict;
    s->alert = alert;
    cb_mem_free(s->alloc, s->detail);
    s->detail = cb_mem_text(s->alloc, text);
}

static const char *subject(gnutls_x509_crt_t crt, bool issuer, char out[NAME_TEXT]) {
    gnutls_datum_t dn = {NULL, 0};
    int rc = issuer ? gnutls_x509_crt_get_issuer_dn3(crt, &dn, 0) : gnutls_x509_crt_get_dn3(crt, &dn, 0);
    if (rc < 0 || dn.size == 0) {
        snprintf(out, NAME_TEXT, "without a name");
    } else {
        cb_text_escape(out, NAME_TEXT, (cb_slice){dn.data, dn.size});
    }
    gnutls_free(dn.data);
    return out;
}

static const char *date(time_t when, char out[32]) {
    struct tm tm;
    if (!gmtime_r(&when, &tm) || strftime(out, 32, "%Y-%m-%d %H:%M UTC", &tm) == 0) snprintf(out, 32, "?");
    return out;
}

/* The names of a leaf, as many as fit. */
static const char *names_of(gnutls_x509_crt_t leaf, char *out, size_t cap) {
    size_t used = 0;
    out[0] = '\0';
    for (unsigned i = 0;; i++) {
        char raw[256], text[NAME_TEXT];
        size_t size = sizeof raw;
        int type = gnutls_x509_crt_get_subject_alt_name(leaf, i, raw, &size, NULL);
        if (type == GNUTLS_E_SHORT_MEMORY_BUFFER) continue;
        if (type < 0) break;
        if (type == GNUTLS_SAN_IPADDRESS && (size == 4 || size == 16)) {
            inet_ntop(size == 4 ? AF_INET : AF_INET6, raw, text, sizeof text);
        } else if (type == GNUTLS_SAN_DNSNAME) {
            cb_text_escape(text, sizeof text, (cb_slice){(const uint8_t *)raw, strnlen(raw, size)});
        } else {
            continue;
        }
        int n = snprintf(out + used, cap - used, "%s%s", used ? ", " : "", text);
        if (n < 0 || (size_t)n >= cap - used) break;
        used += (size_t)n;
    }
    return used ? out : "no name";
}

static void describe_dates(cb_tls_session *s, gnutls_x509_crt_t *chain, unsigned n, bool expired) {
    char text[512], name[NAME_TEXT], at[32];
    time_t now = time(NULL);
    for (unsigned i = 0; i < n; i++) {
        time_t end = gnutls_x509_crt_get_expiration_time(chain[i]);
        time_t begin = gnutls_x509_crt_get_activation_time(chain[i]);
        if (expired ? end >= now : begin <= now) continue;
        snprintf(text, sizeof text,
                 expired ? "the certificate expired on %s (%s)" : "the certificate is valid only from %s on (%s)",
                 date(expired ? end : begin, at), subject(chain[i], false, name));
        refuse(s, expired ? CB_CERT_EXPIRED : CB_CERT_NOT_YET_VALID, GNUTLS_A_CERTIFICATE_EXPIRED, text);
        return;
    }
    refuse(s, expired ? CB_CERT_EXPIRED : CB_CERT_NOT_YET_VALID, GNUTLS_A_CERTIFICATE_EXPIRED,
           expired ? "a certificate of the issuer has expired" : "a certificate of the issuer is not valid yet");
}

static void describe_issuer(cb_tls_session *s, gnutls_x509_crt_t *chain, unsigned n) {
    char text[640], name[NAME_TEXT], issuer[NAME_TEXT];
    gnutls_x509_crt_t last = chain[n - 1];
    subject(chain[0], false, name);
    if (gnutls_x509_crt_check_issuer(last, last)) {
        snprintf(text, sizeof text,
                 n == 1 ? "the certificate is self-signed and not trusted (%s)"
                        : "the certificate (%s) leads to a root that is not trusted (%s)",
                 name, subject(last, false, issuer));
    } else {
        snprintf(text, sizeof text, "the certificate (%s) has an unknown issuer (%s)", name,
                 subject(last, true, issuer));
    }
    refuse(s, CB_CERT_UNKNOWN_ISSUER, GNUTLS_A_UNKNOWN_CA, text);
}

static void describe_name(cb_tls_session *s, gnutls_x509_crt_t leaf) {
    char text[768], names[400];
    snprintf(text, sizeof text, "the certificate is not for \"%s\" but for %s", s->peer_name ? s->peer_name : "",
             names_of(leaf, names, sizeof names));
    refuse(s, CB_CERT_WRONG_NAME, GNUTLS_A_BAD_CERTIFICATE, text);
}

static void describe_rest(cb_tls_session *s, unsigned status, gnutls_x509_crt_t leaf) {
    gnutls_datum_t words = {NULL, 0};
    char text[768], name[NAME_TEXT];
    gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &words, 0);
    snprintf(text, sizeof text, "the certificate (%s) is refused: %s", subject(leaf, false, name),
             words.data ? (const char *)words.data : "not trusted");
    gnutls_free(words.data);
    refuse(s, CB_CERT_OTHER, GNUTLS_A_BAD_CERTIFICATE, text);
}

static void describe_status(cb_tls_session *s, enum cb_cert_verdict verdict, int alert, const char *what,
                            gnutls_x509_crt_t leaf) {
    char text[512], name[NAME_TEXT];
    snprintf(text, sizeof text, "the certificate (%s) %s", subject(leaf, false, name), what);
    refuse(s, verdict, alert, text);
}

static void describe(cb_tls_session *s, unsigned status) {
    gnutls_x509_crt_t chain[CHAIN_MAX];
    unsigned n = 0, sent = 0;
    const gnutls_datum_t *der = gnutls_certificate_get_peers(s->gnutls, &sent);
    for (; der && n < sent && n < CHAIN_MAX; n++) {
        if (gnutls_x509_crt_init(&chain[n]) < 0) break;
        if (gnutls_x509_crt_import(chain[n], &der[n], GNUTLS_X509_FMT_DER) < 0) {
            gnutls_x509_crt_deinit(chain[n]);
            break;
        }
    }
    if (n == 0) {
        refuse(s, CB_CERT_UNREADABLE, GNUTLS_A_BAD_CERTIFICATE, "the certificate cannot be read");
    } else if (status & GNUTLS_CERT_UNEXPECTED_OWNER) {
        describe_name(s, chain[0]);
    } else if (status & (GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED)) {
        describe_dates(s, chain, n, (status & GNUTLS_CERT_EXPIRED) != 0);
    } else if (status & GNUTLS_CERT_SIGNER_NOT_FOUND) {
        describe_issuer(s, chain, n);
    } else if (status & GNUTLS_CERT_MISSING_OCSP_STATUS) {
        refuse(s, CB_CERT_STAPLE, GNUTLS_A_CERTIFICATE_UNKNOWN,
               "the certificate asks its server to staple an OCSP answer (must-staple), and there is none");
    } else if (status & GNUTLS_CERT_REVOKED) {
        describe_status(s, CB_CERT_REVOKED, GNUTLS_A_CERTIFICATE_REVOKED,
                        "was revoked, by the OCSP answer of its server", chain[0]);
    } else if (status & GNUTLS_CERT_INVALID_OCSP_STATUS) {
        describe_status(s, CB_CERT_STAPLE, GNUTLS_A_BAD_CERTIFICATE,
                        "has an OCSP answer that is too old or not its own", chain[0]);
    } else {
        describe_rest(s, status, chain[0]);
    }
    while (n > 0) {
        gnutls_x509_crt_deinit(chain[--n]);
    }
}

static enum cb_cert_verdict verdict_of(int alert) {
    switch (alert) {
    case GNUTLS_A_CERTIFICATE_REVOKED:
        return CB_CERT_REVOKED;
    case GNUTLS_A_CERTIFICATE_UNKNOWN:
        return CB_CERT_REVOCATION_UNKNOWN;
    case GNUTLS_A_ACCESS_DENIED:
        return CB_CERT_NOT_ALLOWED;
    default:
        return CB_CERT_OTHER;
    }
}

/* What the rule asks for beyond the chain. */
static int judge_more(cb_tls_session *s) {
    int alert = GNUTLS_A_BAD_CERTIFICATE;
    if (!s->server && !cb_tls_trust_asks(s->trust)) return 0; /* who the server is, is read when somebody asks */
    const cb_peer *peer = cb_tls_session_peer(s);
    if (!peer) {
        refuse(s, CB_CERT_UNREADABLE, alert, cb_last_error());
    } else if (s->trust->require_staple && !gnutls_ocsp_status_request_is_checked(s->gnutls, 0)) {
        refuse(s, CB_CERT_STAPLE, GNUTLS_A_BAD_CERTIFICATE,
               "the server stapled no good OCSP answer, and one is required");
    } else if (cb_tls_trust_judge(s->trust, peer, (int64_t)time(NULL), &alert) == CB_OK) {
        return 0;
    } else {
        refuse(s, verdict_of(alert), alert, cb_last_error());
    }
    return GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
}

int cb_tls_verify_peer(gnutls_session_t session) {
    cb_tls_session *s = gnutls_db_get_ptr(session);
    unsigned status = 0, sent = 0, n = 0;
    uint8_t ip[16];
    gnutls_typed_vdata_st data[2] = {0};
    if (!gnutls_certificate_get_peers(session, &sent) || sent == 0) {
        if (s->server && !s->need_cert) return 0;
        refuse(s, CB_CERT_MISSING, GNUTLS_A_CERTIFICATE_REQUIRED,
               "the peer showed no certificate, and one is required");
        return GNUTLS_E_CERTIFICATE_REQUIRED;
    }
    const char *purpose = s->server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER;
    data[n++] = (gnutls_typed_vdata_st){GNUTLS_DT_KEY_PURPOSE_OID, (unsigned char *)(uintptr_t)purpose, 0};
    if (!s->server && s->peer_name && s->trust->names_len == 0) {
        unsigned ip_len = cb_tls_ip_literal(s->peer_name, ip);
        data[n++] = ip_len ? (gnutls_typed_vdata_st){GNUTLS_DT_IP_ADDRESS, ip, ip_len}
                           : (gnutls_typed_vdata_st){GNUTLS_DT_DNS_HOSTNAME, (unsigned char *)s->peer_name, 0};
    }
    int rc = gnutls_certificate_verify_peers(session, data, n, &status);
    if (rc >= 0 && status == 0) return judge_more(s);
    if (rc < 0) {
        refuse(s, CB_CERT_UNREADABLE, GNUTLS_A_BAD_CERTIFICATE, "the certificate cannot be read");
    } else {
        describe(s, status);
    }
    return GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
}

static bool welcome_by(cb_tls_session *s, cb_identity_view *view) {
    const cb_tls_trust *t = cb_identity_view_trust(view, s->sni);
    const cb_peer *peer = cb_tls_session_peer(s);
    int alert;
    if (!cb_tls_session_wants(s, t)) return true;
    if (!peer && !cb_tls_session_needs(s, t)) return true;
    if (!peer) return cb_fail(CB_EAUTH, "a certificate is required now, and none was shown") == CB_OK;
    if (cb_identity_view_need_roots(view) < 0 || cb_tls_trust_verify(t, peer) < 0) return false;
    return cb_tls_trust_judge(t, peer, (int64_t)time(NULL), &alert) == CB_OK;
}

bool cb_tls_session_still_welcome(cb_tls_session *s, cb_identity *id) {
    if (s->seen && !cb_identity_view_is_current(id, s->seen)) {
        cb_identity_view *now = cb_identity_view_get(id);
        s->expelled = !welcome_by(s, now);
        if (s->expelled) {
            refuse(s, CB_CERT_NOT_ALLOWED, GNUTLS_A_ACCESS_DENIED, cb_last_error());
            cb_cells_add(s->cells, CB_C_TLS_EXPELLED, 1);
        }
        cb_identity_view_unref(s->seen);
        s->seen = now;
    }
    if (s->expelled) cb_fail(CB_EAUTH, "%s", s->detail ? s->detail : "");
    return !s->expelled;
}
