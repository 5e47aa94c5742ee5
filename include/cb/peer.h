/* cb/peer.h - who the other side is, by its certificate: names, SPIFFE ID, fingerprints.
 *
 * A peer is what a verified certificate says, read once and never changed. cb_exchange_peer() and cb_quic_conn_peer()
 * give it. Every call is thread-safe, and the object is reference counted; it allocates with malloc(). */
#ifndef CB_PEER_H
#define CB_PEER_H

#include <cb/base.h>

CB_BEGIN

typedef struct cb_peer cb_peer;

/* The kinds of subject alternative names (RFC 5280, 4.2.1.6). */
enum cb_san {
    CB_SAN_DNS = 0,   /* lower case; "*.example.org" for a wildcard */
    CB_SAN_IP = 1,    /* as text: "192.0.2.1", "2001:db8::1" */
    CB_SAN_EMAIL = 2, /* as it stands */
    CB_SAN_URI = 3    /* as it stands */
};

/* Reads a chain of DER certificates, the peer's own first, and gives a peer with one reference. It verifies nothing:
 * that is for certificates that somebody has verified. CB_EINVAL: out, chain, more than 16 certificates, more than
 * 64 KiB, the first is no certificate, or has more than 1,024 names; CB_ENOMEM. */
CB_API int cb_peer_read(cb_peer **out, const cb_slice *chain, size_t n);

/* Texts and slices live as long as the peer. Texts are printable ASCII: what else a subject or issuer has stands there
 * as \NN (RFC 4514, 2.4), and in a common name as \xNN. Alternative names of other kinds, and those with bytes that no
 * such name has (NUL, blanks, control characters), are left out. */
CB_API const char *cb_peer_subject(const cb_peer *p);     /* RFC 4514; "" when it is empty */
CB_API const char *cb_peer_issuer(const cb_peer *p);      /* the same */
CB_API const char *cb_peer_common_name(const cb_peer *p); /* the first; "" = none, or one with control characters */
CB_API const char *cb_peer_serial(const cb_peer *p);      /* hexadecimal, lower case */
CB_API size_t cb_peer_names(const cb_peer *p, int kind);  /* how many of enum cb_san */
CB_API const char *cb_peer_name(const cb_peer *p, int kind, size_t i); /* NULL beyond the last */
/* The SPIFFE ID: only when the certificate is a leaf by the rules of X.509-SVID (exactly one URI name, that one a
 * SPIFFE ID with a path; no authority; a key usage with digitalSignature and without keyCertSign and cRLSign); "" =
 * none. */
CB_API const char *cb_peer_spiffe_id(const cb_peer *p);
CB_API const uint8_t *cb_peer_key_sha256(const cb_peer *p);  /* 32 bytes: of the SubjectPublicKeyInfo (RFC 7469, 2.4) */
CB_API const uint8_t *cb_peer_cert_sha256(const cb_peer *p); /* 32 bytes: of the certificate (RFC 8705: x5t#S256) */
CB_API int64_t cb_peer_not_before(const cb_peer *p);         /* seconds since 1970 */
CB_API int64_t cb_peer_expires(const cb_peer *p);            /* seconds since 1970 */
/* The certificates as they were sent, DER, the peer's own first; the empty slice beyond the last. */
CB_API cb_slice cb_peer_cert(const cb_peer *p, size_t i);

/* Does one of the peer's names fit? `name` is a SPIFFE ID or another URI ("spiffe://td/path", compared as a whole; a
 * SPIFFE ID must be the peer's cb_peer_spiffe_id(); "spiffe://td/" with a slash at its end fits every ID of that trust
 * domain, "spiffe://td/a/" all below), an e-mail address (the part after the "@" in any case), an IP address, or a DNS
 * name (a wildcard of the certificate covers one label, RFC 6125, 6.4.3). The common name never counts. */
CB_API int cb_peer_is(const cb_peer *p, const char *name);

/* One more reference; returns p. */
CB_API cb_peer *cb_peer_ref(cb_peer *p);
CB_API void cb_peer_unref(cb_peer *p); /* NULL is fine */

CB_END
#endif
