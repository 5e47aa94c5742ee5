/* The inside of a ticket ring: keys for one session, and the memory of early data that was seen. */
#ifndef CB_TRANSPORT_TLS_TICKETS_H
#define CB_TRANSPORT_TLS_TICKETS_H

#include <cb/tls.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>

#define CB_TICKET_KEY 64 /* what gnutls_session_ticket_enable_server() takes */

/* What a ticket is bound to: it opens only where all of this is equal. */
typedef struct cb_ticket_scope {
    const char *context;  /* of the owner: tenant, transport parameters, SETTINGS, ... */
    const char *host;     /* the server name that the client asked for, "" = none */
    const uint8_t *roots; /* 32 bytes: what client certificates were checked against; NULL = none were asked for */
    bool cert_needed; /* a client without a certificate was refused: else a ticket could be earned where it is not */
} cb_ticket_scope;

/* Picks the key of this session. `ticket` is what the client brought (may be empty): when a key of the ring sealed it,
 * that key, else the one that seals now. *newest says which: a session on an older key must not be given a new ticket.
 */
int cb_tickets_key(cb_tickets *t, const cb_ticket_scope *scope, cb_slice ticket, uint8_t key[CB_TICKET_KEY],
                   bool *newest);
int cb_tickets_lifetime(const cb_tickets *t); /* seconds */
/* May early data be taken yet? Not while clocks of other hosts could make an old ticket look new. */
bool cb_tickets_early(cb_tickets *t);
/* Lets GnuTLS accept early data once for each ClientHello (RFC 8446, 8.1); shared by all sessions of the ring. */
void cb_tickets_guard_replay(cb_tickets *t, gnutls_session_t session);
/* Early data that was seen again, since this was asked last by any thread: each replay is told once. */
uint64_t cb_tickets_replays(cb_tickets *t);

#endif
