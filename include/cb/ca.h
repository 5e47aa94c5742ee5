/* cb/ca.h - a private certificate authority in a directory: roots, intermediates, short-lived leaves, revocation.
 *
 * The directory (mode 0700) holds ca.pem (the authority's certificate; of an intermediate also those above it, without
 * the root), ca-key.pem (or ca-key.url, when the key is on a PKCS#11 token), root.pem (what others trust), index (which
 * serial numbers were given and taken back; only appended to), ca.crl, and NAME.pem / NAME-key.pem for each leaf. Keys
 * have mode 0600; files are replaced whole. Calls block (files, key generation): not for a loop that serves. An object
 * is used by one thread at a time; several processes may open one directory. */
#ifndef CB_CA_H
#define CB_CA_H

#include <cb/base.h>

CB_BEGIN

typedef struct cb_ca cb_ca;

enum cb_key_type {
    CB_KEY_DEFAULT = 0, /* CB_KEY_ECDSA_P256 */
    CB_KEY_ECDSA_P256 = 1,
    CB_KEY_ECDSA_P384 = 2,
    CB_KEY_RSA_2048 = 3,
    CB_KEY_ED25519 = 4
};

/* What cb_ca_open() does. */
enum cb_ca_mode {
    CB_CA_OPEN_OR_MAKE = 0, /* opens the authority, or makes it when the directory has none */
    CB_CA_OPEN = 1,         /* CB_ENOENT when there is none */
    CB_CA_MAKE = 2          /* CB_EEXIST when there is one */
};

/* Fields without "of a new one" also hold for one that is opened. */
typedef struct cb_ca_opts {
    size_t size;
    const char *dir;         /* required; made when absent */
    const char *common_name; /* of a new one; NULL = "libcb development CA" */
    uint32_t days;    /* of a new one; 0 = 3,650 (10 years). An intermediate ends with its parent at the latest */
    int32_t key_type; /* enum cb_key_type of a new one; 0 = CB_KEY_ECDSA_P384 here (which signs with SHA-384) */
    const char *organization; /* of a new one and so of its leaves; NULL = the parent's, or "libcb" */
    cb_ca *parent;            /* a new one is an intermediate signed by this one; NULL = a root. Used during the call */
    const char *const *permitted; /* of a new intermediate: name constraints (RFC 5280, 4.2.1.10): DNS names (each with
                                   * all below it) and "10.0.0.0/8". A family of addresses without a prefix is
                                   * not permitted at all */
    size_t permitted_len;         /* 0 = no constraints; of addresses alone: CB_EINVAL */
    uint32_t path_len;            /* of a new one: how many intermediates may stand below it; 0 = none, only leaves */
    uint32_t max_leaf_days;       /* longer leaves are refused; 0 = 366 */
    int32_t mode;                 /* enum cb_ca_mode */
    uint8_t lazy_index; /* 1 = do not wait until the index is on the disk: a power cut may forget certificates that were
                         * issued in the last seconds, so that they cannot be revoked by name; a crash does not */
    uint8_t reserved[3];
    const char *key_url; /* of a new one: its key is on a PKCS#11 token ("pkcs11:token=T;object=K", as key_file of
                          * cb_identity_opts), and stays there; key_type does not count. Kept in ca-key.url */
} cb_ca_opts;

/* Opens the authority in dir, or makes it. CB_EINVAL (out, dir missing, key_type, permitted, the parent may not have
 * intermediates below it, files that are no CA), CB_ENOENT (mode, or no folder above dir), CB_EEXIST (mode), CB_EPERM,
 * CB_ESYS, CB_ETLS (GnuTLS cannot make or use a key), CB_EAUTH (the token's PIN), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_ca_open(cb_ca **out, const cb_ca_opts *opts);

/* What a certificate is for: its key usages and extended key usages (RFC 5280, 4.2.1.3, 4.2.1.12). */
enum cb_cert_profile {
    CB_CERT_BOTH = 0,   /* TLS servers and clients */
    CB_CERT_SERVER = 1, /* TLS servers only */
    CB_CERT_CLIENT = 2, /* TLS clients only; needs no name beyond its common name */
    CB_CERT_SVID = 3,   /* both, by the rules of SPIFFE X.509-SVID: exactly one URI, spiffe://DOMAIN/PATH, no subject */
    CB_CERT_OCSP = 4    /* a delegated OCSP responder (RFC 6960, 4.2.2.2), itself never checked by OCSP */
};

typedef struct cb_leaf_opts {
    size_t size;
    const char *const *names; /* DNS names, wildcards and IP addresses; the first names the files, and the subject */
    size_t names_len;         /* may be 0 with uris, and for CB_CERT_CLIENT and CB_CERT_OCSP with file_stem */
    const char *file_stem;    /* NULL = the first name, "*" as "_"; without names the first URI */
    uint32_t days;            /* 0 = lifetime_s counts. No leaf outlives its authority: it is cut to that */
    int32_t key_type;         /* enum cb_key_type */
    int64_t not_before_s;     /* seconds since 1970; 0 = five minutes ago (clocks differ) */
    const char *const *uris;  /* URI names */
    size_t uris_len;          /* at most one spiffe: URI */
    uint32_t lifetime_s;      /* 0 = 86,400 (24 h), when days is 0, too */
    int32_t profile;          /* enum cb_cert_profile */
    uint8_t must_staple;      /* 1 = TLS feature status_request (RFC 7633): servers must staple. Not for clients */
    uint8_t reserved[7];
} cb_leaf_opts;

/* Makes a key and a certificate and writes both files all or nothing; NAME.pem has the chain up to, but without, the
 * root. cert_path and key_path (may be NULL) get the paths, to be freed with cb_ca_text_free(). CB_EINVAL (names, uris,
 * days, profile, key_type, file_stem, the authority has expired: the detail says which), CB_EPERM (also: a name is
 * outside of the authority's name constraints), CB_ESYS, CB_ETLS, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_ca_issue(cb_ca *ca, const cb_leaf_opts *opts, char **cert_path, char **key_path);

/* The same without files: *cert gets the chain and *key the key, as PEM, to be freed
 * with cb_ca_text_free(), which wipes. Only the index is written. Errors as cb_ca_issue(). */
CB_API int cb_ca_issue_pem(cb_ca *ca, const cb_leaf_opts *opts, char **cert, char **key);

/* Certifies the key of a signing request (PKCS#10, RFC 2986; PEM or DER, at most 64 KiB) and gives the chain as PEM.
 * The request must be signed by its own key (proof of possession). The certificate gets the alternative names of the
 * request and nothing else of it; each must be in `names` or `uris` of opts, where ".example.org" allows all below it,
 * "*" any DNS name or address, and "spiffe://domain/" (with the slash at its end) all below it. A request without names
 * gets those of opts as they are, when they are all certifiable. key_type and file_stem do not count.
 * CB_EINVAL: the request is malformed, its key or signature too weak, it asks for an authority or for names of other
 * kinds (the detail says what); CB_EAUTH: its signature is wrong; CB_EPERM: a name is not allowed (the detail says
 * which); else as cb_ca_issue(). */
CB_API int cb_ca_sign(cb_ca *ca, cb_slice request, const cb_leaf_opts *opts, char **cert);

/* Why a certificate is revoked (RFC 5280, 5.3.1). */
enum cb_revoke_reason {
    CB_REVOKE_UNSPECIFIED = 0,
    CB_REVOKE_KEY_COMPROMISE = 1,
    CB_REVOKE_CA_COMPROMISE = 2,
    CB_REVOKE_AFFILIATION_CHANGED = 3,
    CB_REVOKE_SUPERSEDED = 4,
    CB_REVOKE_CESSATION = 5,
    CB_REVOKE_PRIVILEGE_WITHDRAWN = 9
};

/* Revokes the certificate with this serial number (hexadecimal, case and colons do not matter), durably; the next CRL
 * and OCSP answer tell. CB_EINVAL (the serial number, the reason), CB_ENOENT (this authority issued none such),
 * CB_EEXIST (it is revoked already), CB_ESYS, CB_EPERM, CB_ENOMEM. */
CB_API int cb_ca_revoke(cb_ca *ca, const char *serial, int reason);

/* Signs a CRL (RFC 5280, 5) with the next number, of all revoked certificates that have not expired for a day, and
 * writes ca.crl. next_update_s: from now on; 0 = 604,800 (7 days). pem (may be NULL) gets it too, to be freed with
 * cb_ca_text_free(). CB_EINVAL (next_update_s above 366 days), CB_ESYS, CB_EPERM, CB_ETLS, CB_ENOMEM. */
CB_API int cb_ca_crl(cb_ca *ca, uint32_t next_update_s, char **pem);

/* A certificate of the index. Texts live during the call. */
typedef struct cb_ca_entry {
    size_t size;
    const char *serial;                /* hexadecimal, lower case */
    const char *names;                 /* separated by commas; may be empty */
    int64_t not_before_s, not_after_s; /* seconds since 1970 */
    int64_t revoked_s;                 /* 0 = it is not revoked */
    int32_t reason;                    /* enum cb_revoke_reason */
    int32_t profile;                   /* enum cb_cert_profile; -1 = an intermediate */
} cb_ca_entry;

/* Calls fn with each certificate that was issued, oldest first, until it gives non-zero, which is returned when
 * negative. CB_EINVAL (the index is damaged: the detail says in which line), CB_ESYS, CB_EPERM, CB_ENOMEM. */
CB_API int cb_ca_list(cb_ca *ca, int (*fn)(const cb_ca_entry *entry, void *user), void *user);

/* ---- OCSP (RFC 6960; nonces by RFC 9654) ----
 * A responder for an authority: the bytes of a request in, the bytes of the answer out, no sockets and no clock. It
 * reads the authority's ca.pem and index, of which another host may have copies, and signs with the key of a delegated
 * certificate (CB_CERT_OCSP) or, without one, with the authority's own. Used by one thread at a time. */
typedef struct cb_ocsp cb_ocsp;

typedef struct cb_ocsp_opts {
    size_t size;
    const char *dir; /* the authority's directory, as of cb_ca_opts; required. Its key is read only when it signs */
    const char *cert_file; /* PEM, of a delegated responder; NULL = the authority's key signs */
    const char *key_file;  /* and its key; PEM, or a PKCS#11 URL */
    uint32_t valid_s;   /* from thisUpdate to nextUpdate; 0 = 3,600, at most 604,800. Never beyond the signer's end */
    uint32_t max_certs; /* that one request may ask for; 0 = 8, at most 64 */
} cb_ocsp_opts;

/* CB_EINVAL (out, opts; a file that is not what it must be, a delegate that this authority did not issue or that may
 * not sign OCSP answers: the detail says which), CB_ENOENT, CB_EPERM, CB_ESYS, CB_ETLS, CB_ENOMEM, CB_E2BIG. */
CB_API int cb_ocsp_new(cb_ocsp **out, const cb_ocsp_opts *opts);
/* Reads the index and the delegate's files again where they have changed; blocks. On failure what was read before
 * serves on. Call it before answering, or once a second: until then a revocation is not known. Errors as
 * cb_ocsp_new(). */
CB_API int cb_ocsp_refresh(cb_ocsp *r);
CB_API void cb_ocsp_free(cb_ocsp *r); /* NULL is fine */

/* RFC 6960, 4.2.1. Answers other than CB_OCSP_OK carry no signature and say nothing about certificates. */
enum cb_ocsp_status {
    CB_OCSP_OK = 0,
    CB_OCSP_MALFORMED = 1,   /* no request, too long or for too many certificates, a nonce of 0 or above 128 bytes, an
                              * unknown critical extension */
    CB_OCSP_INTERNAL = 2,    /* the signer has expired or failed */
    CB_OCSP_UNAUTHORIZED = 6 /* only about certificates of other authorities */
};

typedef struct cb_ocsp_answer {
    size_t size;  /* set by the caller */
    cb_slice der; /* what is sent (application/ocsp-response); valid until the next call with the responder */
    int64_t this_update_s, next_update_s; /* of CB_OCSP_OK; seconds since 1970 */
    int32_t status;                       /* enum cb_ocsp_status */
    uint8_t cacheable;                    /* 1 = it is the same for all who ask: good, and without a nonce */
    uint8_t reserved[3];
} cb_ocsp_answer;

enum { CB_OCSP_REQUEST_BYTES = 16384 }; /* the longest request that is read */

/* Answers a request (application/ocsp-request). Certificates of the index are good or revoked (with the reason), all
 * others unknown. CB_OK: there is an answer, whatever its status, and for a status other than CB_OCSP_OK
 * cb_last_error() says why. CB_EINVAL (r, out, its size), CB_ENOMEM: there is none. */
CB_API int cb_ocsp_respond(cb_ocsp *r, cb_slice request, int64_t now_s, cb_ocsp_answer *out);
/* The request in a path of HTTP GET (RFC 6960, A.1): "/" and then base64 with percent signs or without. Returns its
 * length; CB_EINVAL: it is none, or does not fit into cap. */
CB_API int64_t cb_ocsp_path(uint8_t *out, size_t cap, cb_slice path);
/* An answer about one certificate (PEM; the first of a chain) without a request, for a server to staple. As
 * cb_ocsp_respond(); CB_EINVAL also: not a certificate of this authority; CB_ENOENT: the index does not know it. */
CB_API int cb_ocsp_staple(cb_ocsp *r, cb_slice certificate, int64_t now_s, cb_ocsp_answer *out);

/* Frees a text, after wiping it. NULL is fine. */
CB_API void cb_ca_text_free(char *text);
/* Frees the object; the files stay. NULL is fine. */
CB_API void cb_ca_free(cb_ca *ca);

CB_END
#endif
