/* The client's certificate as a source: its names become claims. */
#include "auth/authn_int.h"
#include "auth/revocations.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <inttypes.h>
#include <string.h>

enum { CLAIMS_BYTES = 65536 };

typedef struct mtls_source {
    cb_authn_source head;
    int32_t subject;
} mtls_source;

static void mtls_free(cb_authn_source *head) {
    (void)head;
}

/* ---- a certificate as claims ---- */

typedef struct teller {
    cb_buf out;
    int rc;
} teller;

static void put(teller *t, const char *text) {
    if (t->rc == CB_OK) t->rc = cb_buf_text(&t->out, text);
}

static void put_quoted(teller *t, const char *text) {
    if (t->rc == CB_OK) t->rc = cb_json_quote(&t->out, text);
}

static void member(teller *t, const char *name, const char *value) {
    if (!value || !*value) return;
    put(t, ",\"");
    put(t, name);
    put(t, "\":");
    put_quoted(t, value);
}

static void names(teller *t, const cb_peer *p, int kind, const char *name) {
    size_t n = cb_peer_names(p, kind);
    for (size_t i = 0; i < n; i++) {
        put(t, i ? "," : ",\"");
        if (!i) {
            put(t, name);
            put(t, "\":[");
        }
        put_quoted(t, cb_peer_name(p, kind, i));
    }
    if (n) put(t, "]");
}

static const char *first(const cb_peer *p, int kind) {
    return cb_peer_names(p, kind) ? cb_peer_name(p, kind, 0) : "";
}

static const char *subject_of(const cb_peer *p, int32_t want) {
    const char *spiffe = cb_peer_spiffe_id(p);
    const char *found[] = {[CB_AUTHN_NAME_ANY] = "",
                           [CB_AUTHN_NAME_SPIFFE] = spiffe,
                           [CB_AUTHN_NAME_URI] = *spiffe ? "" : first(p, CB_SAN_URI),
                           [CB_AUTHN_NAME_EMAIL] = first(p, CB_SAN_EMAIL),
                           [CB_AUTHN_NAME_DNS] = first(p, CB_SAN_DNS),
                           [CB_AUTHN_NAME_CN] = cb_peer_common_name(p)};
    /* A SPIFFE URI in a certificate that is no SVID says nothing, and no other name may stand in for it by chance. */
    if (strncasecmp(found[CB_AUTHN_NAME_URI], "spiffe:", 7) == 0) found[CB_AUTHN_NAME_URI] = "";
    for (int i = CB_AUTHN_NAME_SPIFFE; i < CB_AUTHN_NAME_CN; i++)
        if (*found[i]) found[CB_AUTHN_NAME_CN] = ""; /* RFC 9525, 2 */
    if (want) return found[want];
    for (int i = CB_AUTHN_NAME_SPIFFE; i <= CB_AUTHN_NAME_CN; i++)
        if (*found[i]) return found[i];
    return "";
}

static void hex(char *out, const uint8_t *bytes, size_t n) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = '\0';
}

static int read_peer(cb_authn_part *out, const cb_peer *p, int32_t want) {
    teller t = {.rc = CB_OK};
    char sum[65];
    cb_buf_init(&t.out, &cb_alloc_libc, CLAIMS_BYTES);
    hex(sum, cb_peer_cert_sha256(p), 32);
    t.rc = cb_buf_printf(&t.out, "{\"iat\":%" PRId64 ",\"exp\":%" PRId64, cb_peer_not_before(p), cb_peer_expires(p));
    member(&t, "sub", subject_of(p, want));
    member(&t, "spiffe_id", cb_peer_spiffe_id(p));
    member(&t, "cn", cb_peer_common_name(p));
    member(&t, "subject", cb_peer_subject(p));
    member(&t, "issuer", cb_peer_issuer(p));
    member(&t, "serial", cb_peer_serial(p));
    member(&t, "sha256", sum);
    names(&t, p, CB_SAN_URI, "uri");
    names(&t, p, CB_SAN_DNS, "dns");
    names(&t, p, CB_SAN_EMAIL, "email");
    names(&t, p, CB_SAN_IP, "ip");
    put(&t, "}");
    if (t.rc == CB_OK) t.rc = cb_authn_claims_read(out, cb_buf_slice(&t.out));
    int rc = t.rc;
    cb_buf_free(&t.out);
    return rc;
}

/* ---- the source ---- */

static int mtls_judge(const cb_authn_source *head, cb_authn_call *c, cb_authn_part *out) {
    const mtls_source *s = (const mtls_source *)head;
    const cb_peer *p = c->request.peer;
    if (!p) return CB_ENOENT;
    /* The handshake judged the dates; a connection may live on after them. */
    if (c->request.now_s >= cb_peer_expires(p))
        return cb_authn_deny(c, 403, CB_AUTHN_ERROR_NONE, 1, "certificate-expired");
    int rc = read_peer(out, p, s->subject);
    if (rc == CB_ENOMEM) return rc;
    if (rc < 0) return cb_authn_deny(c, 403, CB_AUTHN_ERROR_NONE, 1, "certificate");
    const char *subject = cb_claims_text(&out->claims, head->subject);
    out->spiffe_id = cb_claims_text(&out->claims, "spiffe_id");
    if (head->revocations &&
        cb_revocations_hit(head->revocations, head->name, cb_peer_serial(p), subject, (double)cb_peer_not_before(p)))
        return cb_authn_deny(c, 403, CB_AUTHN_ERROR_NONE, 1, cb_jwt_reason_text(CB_JWT_REVOKED));
    return CB_OK;
}

static const cb_authn_source_vt mtls_vt = {
    .kind = CB_AUTHN_MTLS, .carrier = CB_CARRIER_CERT, .judge = mtls_judge, .free = mtls_free};

int cb_authn_source_mtls(cb_authn_source **out, const cb_authn_mtls_opts *opts) {
    cb_authn_mtls_opts o;
    cb_authn_source *head = NULL;
    if (!out) return cb_fail(CB_EINVAL, "cb_authn_source_mtls: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_authn_mtls_opts");
    if (rc < 0) return rc;
    if (o.subject < CB_AUTHN_NAME_ANY || o.subject > CB_AUTHN_NAME_CN)
        return cb_fail(CB_EINVAL, "cb_authn_mtls_opts: subject %d is not known", o.subject);
    rc = cb_authn_source_make(&head, sizeof(mtls_source), &mtls_vt, o.name, o.claims, o.revocations);
    if (rc < 0) return rc;
    ((mtls_source *)head)->subject = o.subject;
    *out = head;
    return CB_OK;
}
