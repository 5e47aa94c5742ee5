/* What the files of a TLS session share: session (making), verify (judging the peer), stream (moving bytes). */
#ifndef CB_TRANSPORT_TLS_SESSION_INT_H
#define CB_TRANSPORT_TLS_SESSION_INT_H

#include "telemetry/count.h"
#include "transport/client_hello.h"
#include "transport/peer.h"
#include "transport/sign_wait.h"
#include "transport/tls_alpn01.h"
#include "transport/tls_identity.h"
#include "transport/tls_session.h"

/* What was thought of the peer's certificate. */
enum cb_cert_verdict {
    CB_CERT_GOOD,
    CB_CERT_NONE,
    CB_CERT_MISSING,
    CB_CERT_EXPIRED,
    CB_CERT_NOT_YET_VALID,
    CB_CERT_UNKNOWN_ISSUER,
    CB_CERT_WRONG_NAME,
    CB_CERT_REVOKED,
    CB_CERT_REVOCATION_UNKNOWN,
    CB_CERT_STAPLE,
    CB_CERT_NOT_ALLOWED,
    CB_CERT_UNREADABLE,
    CB_CERT_OTHER
};

enum { CB_TLS_ABANDONED = 1 }; /* in the place of a code of GnuTLS, which are negative */

struct cb_tls_session {
    gnutls_session_t gnutls;
    const cb_alloc *alloc;
    cb_identity_view *view;
    const cb_tls_trust *trust; /* the view's */
    cb_identity_view *seen;    /* server: the view that the peer was judged by last; referenced */
    cb_tickets *tickets;       /* server */
    char *ticket_context;      /* server */
    char *sni;                 /* server: what the client asked for; client: what is sent */
    char *peer_name;           /* client: name or address to verify; NULL = none */
    cb_peer *peer;             /* who showed a certificate, once somebody asked */
    cb_alpn01_cert *alpn01;    /* server: all that this session is for is to show this (RFC 8737) */
    char *detail;              /* why the peer was refused */
    cb_session_cache *cache;   /* client */
    char *cache_key;           /* with what must be equal beside the owner's key */
    void (*ticket_extra)(void *user, cb_buf *out);
    void *user;
    cb_buf extra;         /* client: came with the session that is resumed */
    uint32_t ticket_life; /* client: seconds, of the ticket that came last */
    unsigned abilities;
    cb_loop *loop; /* with the next two: cb_tls_session_on_signed(); NULL where no key is slow */
    void (*ready)(void *user);
    void *ready_user;
    cb_sign_wait *wait; /* NULL: nothing had to wait */
    int alert;          /* the alert that fits the refusal, -1 = GnuTLS's choice */
    bool server, quic, tls12, early, want_cert, need_cert, ticket_keyed, ticket_newest, refused;
    bool asked, asked_hard; /* server: what the owner wants where the rule leaves it to him: want_cert and need_cert */
    bool greeted;           /* server: a ClientHello has come */
    bool judged;            /* server: the certificate of a resumed session */
    bool expelled;          /* server: by what was seen last the peer would not get in */
    bool finished, resumed, peer_cert; /* finished: the other two are what GnuTLS said */
    char alpn[32];                     /* filled when asked for */
    const char *version, *cipher;      /* static; of one that is finished */

    /* for what is counted */
    const cb_cells *cells; /* NULL: nothing is */
    const cb_loop *clock;
    cb_time began;
    enum cb_cert_verdict verdict; /* when refused */
    bool verifies;                /* client: the server's certificate is judged */
    bool counted;                 /* the end of the handshake was */
    bool brought_ticket, offered_early, stapled;

    /* the stream */
    const cb_tls_stream_ops *ops;
    void *ops_user;
    cb_slice in;            /* ciphertext of the running feed that GnuTLS has not pulled yet */
    cb_buf kept;            /* ciphertext that waits while the reader is paused */
    gnutls_packet_t packet; /* a record that the reader has not taken whole */
    size_t packet_off;
    int push_rc;     /* why cipher_out failed */
    bool opened;     /* handshake complete */
    bool paused;     /* the reader took less than it was given */
    bool eof, alive; /* close_notify came; still usable */
    bool running;    /* inside feed or resume */
};

/* gnutls_certificate_verify_function of every session that verifies; also of what a resumed session brings. */
int cb_tls_verify_peer(gnutls_session_t session);
/* Does the rule ask clients for a certificate, and must they have one? */
static inline bool cb_tls_session_wants(const cb_tls_session *s, const cb_tls_trust *t) {
    return t->clients == CB_CLIENTS_DEFAULT ? s->asked : t->clients != CB_CLIENTS_NONE;
}
static inline bool cb_tls_session_needs(const cb_tls_session *s, const cb_tls_trust *t) {
    return t->clients == CB_CLIENTS_DEFAULT ? s->asked_hard : t->clients == CB_CLIENTS_REQUIRE;
}
/* tls_count.c. A handshake has begun; it is over (rc: of GnuTLS, or CB_TLS_ABANDONED); an alert goes out because of rc.
 */
void cb_tls_count_begin(cb_tls_session *s, cb_loop *loop);
void cb_tls_count_end(cb_tls_session *s, int rc);
void cb_tls_count_sent_alert(const cb_tls_session *s, int rc);
void cb_tls_stream_clear(cb_tls_session *s);
void cb_tls_stream_let_go(cb_tls_session *s); /* the owner is told nothing any more */
/* Client on TLS 1.2, after the handshake: keeps the session (on TLS 1.3 the ticket's message does). */
void cb_tls_session_keep(cb_tls_session *s);

#endif
