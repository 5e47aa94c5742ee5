/* TLS sessions, made alike for TCP (channel) and QUIC: priorities, certificates by SNI, tickets, verification. */
#ifndef CB_TRANSPORT_TLS_SESSION_H
#define CB_TRANSPORT_TLS_SESSION_H

#include "base/buf.h"
#include <cb/loop.h>
#include <cb/peer.h>
#include <cb/tls.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>

/* What a client keeps to resume: per client object, keyed by "host:port/alpn-set"; bounded, newest first. */
typedef struct cb_session_cache cb_session_cache;
/* In front of `store` (referenced), or of a private one in memory for max_entries. */
int cb_session_cache_new(cb_session_cache **out, const cb_alloc *alloc, size_t max_entries, cb_sessions *store);
void cb_session_cache_free(cb_session_cache *c);
/* Takes (removes) a saved session: tickets are used once. Data valid until the next call. False: none. `extra` is what
 * the protocol stored beside it (QUIC: 0-RTT transport parameters). */
bool cb_session_cache_take(cb_session_cache *c, const char *key, size_t common, cb_slice *session, cb_slice *extra);
int cb_session_cache_put(cb_session_cache *c, const char *key, cb_slice session, cb_slice extra, uint32_t lifetime_s);
/* One object that lives as long as the cache; NULL until somebody attaches it. */
void *cb_session_cache_attached(const cb_session_cache *c);
void cb_session_cache_attach(cb_session_cache *c, void *object, void (*drop)(void *object));

typedef struct cb_tls_opts {
    bool server;
    bool quic;       /* TLS 1.3 only, no record layer use; flags for ngtcp2's crypto library */
    bool tls12;      /* TCP: TLS 1.2 too (AEAD suites with forward secrecy only) */
    bool early_data; /* QUIC: 0-RTT allowed (off by default); a server needs tickets for it. Ignored on TCP */
    bool request_client_cert, require_client_cert; /* server: verified against the identity's roots */
    /* Server: required. Client: NULL = system roots, no certificate; the roots are read (10 ms) once for each `cache`,
     * or for each session that has none. */
    cb_identity *identity;
    cb_tickets *tickets;        /* server: may be NULL (no resumption) */
    const char *ticket_context; /* bound into the ticket keys (decision 13): what must be equal to resume; NULL = "" */
    const char *alpn;        /* comma list in order of preference, such as "h2,http/1.1"; a server refuses no overlap */
    const char *server_name; /* client: SNI (not sent for IP literals) and name to verify */
    int verify;              /* client: enum cb_verify */
    cb_session_cache *cache; /* client: may be NULL; must outlive the session */
    const char *cache_key;
    bool cache_any; /* resume what another cache_key left, when there is nothing of this one; without early data */
    /* Client: called when the server gave a ticket; what it adds to `out` is kept beside the session (QUIC: the
     * transport parameters for 0-RTT) and comes back in cb_tls_session_extra(). May be NULL. */
    void (*ticket_extra)(void *user, cb_buf *out);
    void *user;
    cb_loop *loop; /* where what comes of it is counted; NULL = nowhere */
} cb_tls_opts;

/* The TLS part of one connection: owns the gnutls session and holds references on what it was made from. */
typedef struct cb_tls_session cb_tls_session;
int cb_tls_session_new(cb_tls_session **out, const cb_alloc *alloc, const cb_tls_opts *opts);
void cb_tls_session_free(cb_tls_session *s);
/* gnutls_session_set_ptr() is left to the owner (ngtcp2 wants its ngtcp2_crypto_conn_ref there); the database pointer
 * and the handshake hook are taken. */
gnutls_session_t cb_tls_session_handle(cb_tls_session *s);
/* Where a handshake may wait for a key that is slow, and who is told that it can go on; without it the loop waits. Not
 * on virtual loops. */
void cb_tls_session_on_signed(cb_tls_session *s, cb_loop *loop, void (*ready)(void *user), void *user);
/* As gnutls_handshake(), GNUTLS_E_AGAIN also while it waits for a signature; verifies the peer of a resumed session,
 * too.
 */
int cb_tls_session_handshake(cb_tls_session *s);
bool cb_tls_session_waits(const cb_tls_session *s);
/* After the handshake: verification result is part of the handshake (it fails with an alert); these read what came out.
 */
const char *cb_tls_session_sni(const cb_tls_session *s);  /* "" when none */
const char *cb_tls_session_alpn(const cb_tls_session *s); /* "" when none */
bool cb_tls_session_resumed(const cb_tls_session *s);
const char *cb_tls_session_version(const cb_tls_session *s); /* "1.3", "1.2"; "" before the handshake */
const char *cb_tls_session_cipher(const cb_tls_session *s);  /* "TLS_AES_128_GCM_SHA256"; "" before the handshake */
/* Client, before the handshake: what was kept beside the session that it will try to resume; empty if there is none. */
cb_slice cb_tls_session_extra(const cb_tls_session *s);
/* Server: did the client send early data, taken or not? */
bool cb_tls_session_offered_early(const cb_tls_session *s);
/* Server, after the handshake: would the peer still get in, as the identity is now? Looked at anew when that has
 * changed, such as by another revocation list. False: the detail says why. */
bool cb_tls_session_still_welcome(cb_tls_session *s, cb_identity *id);
/* Server, after the handshake: sends session tickets, if there is a ring and this session is on its newest key (one
 * that was resumed on an older key gets none: GnuTLS would seal it with the old key). The stream does it by itself; for
 * QUIC it is due when the handshake has completed. */
int cb_tls_session_send_tickets(cb_tls_session *s);
/* Server of a QUIC connection, after its tickets: gives back all that only a handshake needs, two thirds of an idle
 * connection's TLS. What came out can still be read; the handle is NULL from here on. Not inside a call of GnuTLS. */
void cb_tls_session_finish(cb_tls_session *s);
/* The detail for a failed handshake in a person's words ("certificate expired on 2026-01-02 (CN=...)"). Sets
 * cb_last_error() and returns CB_ETLS or CB_EAUTH. gnutls_rc is the code of the failing call. */
int cb_tls_session_fail(cb_tls_session *s, int gnutls_rc);

/* Has the peer shown a certificate (a server that requests one; it was verified then)? */
bool cb_tls_session_has_peer_cert(const cb_tls_session *s);
/* Who that was; borrowed, valid while the session lives. NULL: no certificate, or one that cannot be read (the detail
 * is set). Read when it is asked for first. A resumed session has the identity of the one that it resumes. */
const cb_peer *cb_tls_session_peer(const cb_tls_session *s);

/* --- TLS over a byte stream, sans-I/O: ciphertext in and out through buffers (for the channel) --- */
typedef struct cb_tls_stream_ops {
    int (*cipher_out)(void *user, const cb_slice *v, size_t n); /* records to send; takes all */
    int64_t (*plain_in)(void *user, cb_slice data);             /* bytes taken; less pauses (see _resume) */
    void (*open)(void *user);                                   /* handshake complete */
    void (*eof)(void *user);                                    /* close_notify */
} cb_tls_stream_ops;
/* Feeds ciphertext (all of it is consumed or kept). < 0: fatal, detail set; an alert may have been sent out. */
int cb_tls_stream_attach(cb_tls_session *s, const cb_tls_stream_ops *ops, void *user);
int cb_tls_stream_start(cb_tls_session *s); /* client: sends the ClientHello */
int cb_tls_stream_feed(cb_tls_session *s, cb_slice cipher);
int cb_tls_stream_signed(cb_tls_session *s); /* after it waited for a signature: goes on */
int cb_tls_stream_resume(cb_tls_session *s); /* after plain_in took less than it was given */
int cb_tls_stream_write(cb_tls_session *s, const cb_slice *v, size_t n); /* seals all, records of up to 16 KiB */
int cb_tls_stream_bye(cb_tls_session *s);                                /* close_notify */

#endif
