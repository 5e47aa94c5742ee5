/* What a server must know of a ClientHello before GnuTLS has read it (RFC 8446, 4.1.2): the name asked for, which
 * keys the client can check, and which ticket it brings. Sans-I/O; slices point into the message. */
#ifndef CB_TRANSPORT_CLIENT_HELLO_H
#define CB_TRANSPORT_CLIENT_HELLO_H

#include <cb/base.h>
#include <stdbool.h>

#define CB_ALPN_ACME "acme-tls/1" /* RFC 8737, 6.2 */
#define CB_SNI_MAX   256          /* a DNS name has at most 253 bytes */

/* Keys whose signatures the client can check. */
enum cb_sig_ability {
    CB_SIG_ECDSA_P256 = 1,
    CB_SIG_ECDSA_P384 = 2,
    CB_SIG_ECDSA_P521 = 4,
    CB_SIG_RSA = 8,
    CB_SIG_RSA_PSS = 16, /* certificates whose key is restricted to PSS */
    CB_SIG_ED25519 = 32,
    CB_SIG_ED448 = 64
};

typedef struct cb_client_hello {
    char sni[CB_SNI_MAX]; /* lower case, without a final dot; "" when absent or no plausible host name */
    unsigned abilities;   /* enum cb_sig_ability; 0 when the extension is absent */
    bool has_session_id;  /* TLS 1.2, or the middlebox compatibility mode of TLS 1.3 */
    bool has_alpn;
    bool only_acme;        /* acme-tls/1 is the one protocol offered (RFC 8737, 3) */
    bool has_tls13;        /* supported_versions names TLS 1.3 */
    bool has_early;        /* early data follows */
    cb_slice psk_identity; /* first identity of pre_shared_key: a ticket, as a rule */
    cb_slice ticket;       /* of the session_ticket extension (TLS 1.2) */
} cb_client_hello;

/* Reads the body of a ClientHello (without the 4-byte handshake header). CB_EPROTO: it is malformed (GnuTLS, which
 * parses it again, will say so to the peer); what was found before the flaw is kept. */
int cb_client_hello_read(cb_client_hello *out, cb_slice body);

#endif
