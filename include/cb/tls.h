/* cb/tls.h - who we are and whom we trust: certificates by name, trust roots, session-ticket keys.
 *
 * These objects are shared by all workers of a process: every call here is thread-safe, and each object is
 * reference counted. They allocate with malloc(). */
#ifndef CB_TLS_H
#define CB_TLS_H

#include <cb/handoff.h>
#include <cb/seal.h>

CB_BEGIN

/* Certificate chains with their keys, chosen by the client's server name (SNI), plus trust roots. */
typedef struct cb_identity cb_identity;

/* Certificates that only answer the validation of names by tls-alpn-01 (RFC 8737), beside those that serve. Shared by
 * identities and workers; every call is thread-safe. */
typedef struct cb_alpn01 cb_alpn01;

/* Gives a set with one reference. CB_EINVAL, CB_ENOMEM. */
CB_API int cb_alpn01_new(cb_alpn01 **out);
/* Until it is taken back (pem NULL), servers on TCP whose identities have the set present pem, a self-signed
 * certificate and its key as of cb_acme_challenge, to clients that ask for this name and offer "acme-tls/1" and nothing
 * else; then they close. name: a DNS name, or an IP address (RFC 8738). Others of the name are not concerned. CB_EINVAL
 * (not PEM; no name), CB_ELIMIT (more than 1,024 names), CB_ENOMEM. */
CB_API int cb_alpn01_set(cb_alpn01 *a, const char *name, const char *pem);
/* One more reference; returns a. */
CB_API cb_alpn01 *cb_alpn01_ref(cb_alpn01 *a);
CB_API void cb_alpn01_unref(cb_alpn01 *a); /* NULL is fine */

typedef struct cb_identity_opts {
    size_t size;
    const char *cert_file; /* PEM chain, leaf first. NULL with key_file NULL: no certificate (a client) */
    const char *key_file;  /* PEM private key (unencrypted PKCS#8, EC or RSA), or the URL of one on a PKCS#11 token (RFC
                            * 7512): "pkcs11:token=edge;object=key?pin-source=file:/path". The file of the PIN must not
                            * be open to others; without one the environment has it: GNUTLS_PIN */
    const char *ca_file;   /* PEM trust roots for verifying the peer; NULL = the system's roots */
    const char
        *ocsp_file; /* OCSP answer to staple (RFC 6066, 8), DER or PEM; NULL = none. It must be about the leaf and
                     * signed by its issuer or by whom that one delegated. An old one is read, and not sent */
    const char *issuer_file; /* PEM: the leaf's issuer, to check that, when cert_file does not have it */
    const char *pem;         /* instead of the two files: key and chain, one text; copied */
    cb_alpn01 *alpn01;       /* of a server: answers tls-alpn-01; referenced; NULL = nothing does */
} cb_identity_opts;

/* Reads the files and gives an identity with one reference. opts may be NULL: no certificate, the system's roots. A key
 * that others may read (mode & 077) is used, with a warning in cb_last_error(). CB_ENOENT, CB_EPERM, CB_ESYS: a file
 * cannot be read; CB_EINVAL: not PEM, no certificate in it, or key and certificate do not belong together (the detail
 * names the file), or a token or its key is not there; CB_EAUTH: the PIN is missing or wrong; CB_ETLS: the system has
 * no trust roots, or GnuTLS cannot be set up; CB_ENOMEM, CB_E2BIG. */
CB_API int cb_identity_new(cb_identity **out, const cb_identity_opts *opts);

/* Adds one more chain and key (ca_file and alpn01 must be NULL). Names come from the certificate's subject alternative
 * names: an exact name wins over a wildcard ("*.example.org" covers one label); for one name an ECDSA and an RSA
 * certificate may stand side by side and the client's abilities decide; the first chain added serves
 * unknown names. Errors as cb_identity_new(); on failure nothing changes. */
CB_API int cb_identity_add(cb_identity *id, const cb_identity_opts *opts);

/* Reads every file again and swaps the whole set at once: new handshakes use the new certificates,
 * connections that exist are not touched. On failure the old set stays. Errors as cb_identity_new(). */
CB_API int cb_identity_reload(cb_identity *id);

/* The same when a revocation list or an OCSP answer has another time, size or inode than when it was read: to be called
 * every now and then, by a thread that may wait for a disk. 1: it was read again; 0: nothing has changed. */
CB_API int cb_identity_refresh(cb_identity *id);

/* What a server asks of its clients. */
enum cb_clients {
    CB_CLIENTS_DEFAULT = 0, /* what the server was told: request_client_cert */
    CB_CLIENTS_NONE = 1,    /* no certificate is asked for */
    CB_CLIENTS_ASK = 2,     /* one that is shown must be good; none is fine, too */
    CB_CLIENTS_REQUIRE = 3
};

/* Whom we let in: a rule for the clients of one host of a server, or for the servers of a client. */
typedef struct cb_trust_opts {
    size_t size;
    const char *host; /* server: for clients that ask for this name (SNI); "*.example.org" covers one label; NULL = all
                       * others. Client: NULL */
    const char *ca_file;  /* PEM: roots, and authorities below them that are trusted by themselves. NULL = the system's
                           * roots, which is not for a rule with a host unless it asks for no certificate */
    const char *crl_file; /* revocation lists (RFC 5280, 5), PEM or DER, each signed by a certificate of ca_file. A peer
                           * whose issuer has no list in it is refused, as is everybody while the list is past its
                           * nextUpdate. Certificates in the middle are checked where there is a list of their issuer */
    const char *const
        *names; /* one of these must fit (cb_peer_is()): SPIFFE IDs, DNS names, addresses, e-mail addresses.
                 * On a client they replace the server's name. NULL = any, and the server's name */
    size_t names_len;
    const char *const *pins; /* the peer's key, or that of an authority above it in its chain, must be one of these:
                              * SHA-256 of the SubjectPublicKeyInfo in base64 (RFC 7469), "sha256/" in front or not. Two
                              * at least: one is the spare */
    size_t pins_len;
    const cb_log *log;      /* hears of who fits no pin with pins_report (module "tls"); borrowed; NULL = nobody. Called
                             * on the threads of connections */
    int32_t clients;        /* server: enum cb_clients */
    uint32_t max_chain;     /* certificates that a peer may send; 0 = 16, the most */
    uint8_t pins_report;    /* 1 = who fits no pin is let in, and the log says so */
    uint8_t single_pin;     /* 1 = one pin is enough */
    uint8_t stale_crl;      /* 1 = lists past their nextUpdate still count; 0 = they let nobody in */
    uint8_t require_staple; /* client: the server must staple a good OCSP answer, whatever its certificate says. One
                             * with the must-staple feature (RFC 7633) has to in any case */
    uint8_t reserved[4];
} cb_trust_opts;

/* Adds the rule, or puts it in the place of the one with the same host; without a host it replaces ca_file of
 * cb_identity_new(). New handshakes go by it, and an HTTP server
 * judges the client of an open connection anew at its next request: 421 when it would not get in any more. A session is
 * resumed only under the very rule that it began with: another root, revocation list, name or pin means a full
 * handshake. Texts are copied. CB_EINVAL: a file is none (the detail names it), a list is not signed by ca_file, host,
 * clients, max_chain, names, pins, more than 1,024 rules; CB_ENOENT, CB_EPERM, CB_ESYS, CB_ETLS, CB_ENOMEM, CB_E2BIG;
 * on failure nothing changes. */
CB_API int cb_identity_trust(cb_identity *id, const cb_trust_opts *opts);

/* Calls fn with a line for each thing that has expired or will within within_s seconds from now_s (seconds since 1970),
 * or the last third of its life where that is shorter: certificates, roots, revocation lists, OCSP answers; and for
 * each certificate that must staple and has no good answer to. level: CB_LOG_ERROR when it does harm now, else
 * CB_LOG_WARN. fn must not change the identity. */
CB_API void cb_identity_examine(cb_identity *id, int64_t now_s, uint32_t within_s,
                                void (*fn)(int level, const char *text, void *user), void *user);

enum cb_identity_kind {
    CB_IDENTITY_CERTIFICATE = 1,
    CB_IDENTITY_CHAIN = 2, /* of the certificates above it in the same file: the first that expires */
    CB_IDENTITY_OCSP = 3,  /* the answer that is stapled; until_s: when the next one is due */
    CB_IDENTITY_ROOTS = 4, /* of ca_file: the first that expires */
    CB_IDENTITY_CRL = 5    /* a revocation list; until_s: when the next one is due */
};

/* Something of an identity that has an end. Valid during the call that tells it. */
typedef struct cb_identity_item {
    size_t size;
    const char *name; /* the first of a certificate's names, or its file; of what belongs to one, too; the host of a
                       * rule ("" = all others); the issuer of a list */
    const char *file; /* NULL: from memory */
    const char *const *names; /* of a certificate: all that it serves, in lower case and in order */
    size_t names_len;
    int64_t since_s, until_s; /* seconds since 1970; -1: it does not say */
    int32_t kind;             /* enum cb_identity_kind */
    uint8_t must_staple;      /* 1: clients want an OCSP answer along with it */
    uint8_t bad;              /* 1: an OCSP answer that is not sent, as it says that the certificate is not good */
    uint8_t reserved[2];
} cb_identity_item;

/* Calls fn for each, certificates first: for pages, metrics and alerts. fn must not change the identity. CB_EINVAL,
 * CB_ENOMEM. */
CB_API int cb_identity_list(cb_identity *id, void (*fn)(const cb_identity_item *item, void *user), void *user);

/* Exchanges what two identities hold: files, certificates and roots. With a new identity made from other files this
 * changes what a server presents without touching its sockets: new handshakes use the new certificates. Cannot fail. */
CB_API void cb_identity_swap(cb_identity *a, cb_identity *b);

/* When the first of the certificates expires: seconds since 1970; 0 when there is none. */
CB_API int64_t cb_identity_expires(cb_identity *id);

/* One more reference; returns id. */
CB_API cb_identity *cb_identity_ref(cb_identity *id);
CB_API void cb_identity_unref(cb_identity *id); /* NULL is fine */

/* A ring of three session-ticket keys: one seals, all three open (RFC 8446, 4.6.1). Workers of a process share the
 * object; processes and hosts share the file. The object also remembers, for all of its servers together, which early
 * data was taken (RFC 8446, 8.1): once a process, at most 49,152 a ticket lifetime; beyond that, and for tickets from
 * before the object was made, early data falls back to a full round trip. */
typedef struct cb_tickets cb_tickets;

typedef struct cb_tickets_opts {
    size_t size;
    const char *file;          /* keys shared by several processes, made with mode 0600 if absent; NULL = memory only */
    uint32_t rotate_s;         /* a new key this often; 0 = 43,200 (12 h) */
    uint32_t lifetime_s;       /* of a ticket; 0 = 7,200 (2 h), at most 604,800 */
    const cb_handoff *handoff; /* a ring in memory begins with the keys of the process before, as cb_tickets_save() */
    const char *handoff_name;  /* put them there under this name; without such a name it begins anew */
    uint32_t lead_s; /* a new key is in the file this long before it seals: time to carry the file to other hosts.
                      * 0 = it seals at once; less than rotate_s */
    uint32_t skew_s; /* how far the clocks of hosts that share the keys may differ: early data begins so long after
                      * its first use, and is remembered so much longer; 0 = not at all, at most 3,600 */
    uint8_t follow;  /* 1 = never write the file: somebody else turns it and brings it here (renamed into place) */
    uint8_t reserved[7];
    cb_seal *seal; /* referenced; the file is sealed (cb/seal.h, purpose "tickets"), and one that is not is refused; one
                    * that an old key has sealed is sealed anew. Servers read the file on their loops: use a key in a
                    * file, not one on a token. NULL = not sealed */
} cb_tickets_opts;

/* Gives a ring with one reference. opts may be NULL. With `follow` a file that is not there yet, or whose newest key is
 * older than twice rotate_s, is no failure: keys of our own, in memory, serve until there is a fresh one. CB_EINVAL:
 * out, lifetime_s, lead_s, skew_s, follow without a file, or the file is not a key ring or is open to others
 * (mode & 077); CB_ENOENT (no such folder), CB_EPERM, CB_ESYS, CB_ETLS (no random bytes), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_tickets_new(cb_tickets **out, const cb_tickets_opts *opts);
/* Rotates when it is due (or now if `force`), and reads the file again when another process changed it. A server that
 * was given the ring calls this by itself. On failure the old keys stay; when the newest is older than twice rotate_s,
 * one of our own, in memory, seals until the file is well again. `force` waits for a process that has the file locked.
 * Errors as cb_tickets_new(); with `follow` also CB_ENOTSUP (`force`), CB_ENOENT and CB_ETIMEOUT (the file is absent,
 * or too old: our own keys serve). */
CB_API int cb_tickets_rotate(cb_tickets *t, int force);
/* What a ring is like. */
typedef struct cb_tickets_stats {
    size_t size;       /* set by the caller */
    int64_t newest_s;  /* when its newest key was made, seconds since 1970; ahead of now with lead_s */
    uint32_t rotate_s; /* how often it is turned */
    uint32_t own;      /* 1: with `follow`, the file is absent or too old, and keys of our own serve */
} cb_tickets_stats;

/* CB_EINVAL (t, out, size). */
CB_API int cb_tickets_stats_get(cb_tickets *t, cb_tickets_stats *out);
/* Puts the keys into h for a successor. CB_EEXIST (the name is taken), CB_ELIMIT, CB_ENOMEM. */
CB_API int cb_tickets_save(cb_tickets *t, cb_handoff *h, const char *name);
/* One more reference; returns t. */
CB_API cb_tickets *cb_tickets_ref(cb_tickets *t);
CB_API void cb_tickets_unref(cb_tickets *t); /* NULL is fine */

/* What clients keep to resume: TLS sessions, each bound to the server's name and port (QUIC: and address), ALPN, QUIC
 * or TCP, and to the trust settings (roots, own certificate, enum cb_verify), and used once (RFC 8446, C.4). Clients
 * without one keep theirs in memory; one store may serve many clients on many loops and, with a file, several processes
 * and runs. Whoever reads the file can resume as the client, and can read the 0-RTT data of those sessions. */
typedef struct cb_sessions cb_sessions;

typedef struct cb_sessions_opts {
    size_t size;
    const char *file;      /* made with mode 0600, with FILE.lock beside it; NULL = in memory only */
    const cb_log *log;     /* says why a file is ignored or cannot be written (module "tls"); borrowed; NULL = nobody.
                            * Called on the threads of clients and on the store's own */
    uint32_t max_sessions; /* the oldest goes; 0 = 256, at most 4,096. The file has at most 4 MiB */
    uint32_t reserved;
} cb_sessions_opts;

/* Gives a store with one reference. opts may be NULL. A file that cannot be used is ignored with a log line, and the
 * store works in memory: one that is damaged or cut off is replaced at the next change; one that is no file of
 * sessions, is of another version of libcb or of another user, or that others may read (mode & 077), is left alone. The
 * file is read here, and later by whoever takes a session after another process has changed it; it is written (beside
 * it, synced, renamed) by a thread of the store's own. Expired sessions are dropped: none lives longer than its server
 * said, nor than seven days. CB_EINVAL (out, max_sessions, file: empty or too long), CB_ENOENT (no such folder),
 * CB_EPERM, CB_ESYS (FILE.lock cannot be made), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_sessions_new(cb_sessions **out, const cb_sessions_opts *opts);
/* Waits until the file has what the store has; not for the thread of a loop that must not wait. Failing: why the file
 * is not used or cannot be written: CB_EINVAL, CB_ENOTSUP, CB_EPROTO (damaged, and nothing has replaced it yet),
 * CB_EPERM, CB_ESYS, CB_ENOMEM. */
CB_API int cb_sessions_flush(cb_sessions *s);
/* One more reference; returns s. */
CB_API cb_sessions *cb_sessions_ref(cb_sessions *s);
/* NULL is fine. The last one waits for the file, as cb_sessions_flush() does. */
CB_API void cb_sessions_unref(cb_sessions *s);

/* How a client checks its server. */
enum cb_verify {
    CB_VERIFY_FULL = 0,  /* chain to a trust root, dates, and the server's name */
    CB_VERIFY_CHAIN = 1, /* chain and dates, any name */
    CB_VERIFY_NONE = 2   /* nothing: for tests of your own only */
};

CB_END
#endif
