/* The inside of one QUIC connection: ngtcp2 and TLS, sans-I/O. A driver (quic_endpoint.c, or a simulator) embeds it,
 * feeds packets, asks for packets, and acts at the deadline. */
#ifndef CB_TRANSPORT_QUIC_CONN_H
#define CB_TRANSPORT_QUIC_CONN_H

#include "loop/turn.h"
#include "transport/quic_aead.h"
#include "transport/quic_app.h"
#include "transport/quic_dgram.h"
#include <ngtcp2/ngtcp2.h>
#include <ngtcp2/ngtcp2_crypto.h>

enum {
    CB_QUIC_CID_MAX = 20,
    CB_QUIC_CID_CLIENT = 8,    /* length of our clients' own: random */
    CB_QUIC_PACKET_MAX = 1472, /* the largest UDP payload that is sent: Ethernet's MTU under IPv4 */
    CB_QUIC_PACKET_MIN = 1200,
    CB_QUIC_REASON_MAX = 95, /* bytes of what CONNECTION_CLOSE says */
    CB_QUIC_TRAIN_MAX = 64,  /* packets of one size that leave as one message */
    CB_QUIC_TOKEN_MAX = 512
};

enum cb_quic_phase {
    CB_QUIC_OPEN,    /* handshake and after */
    CB_QUIC_CLOSING, /* the end is decided; the driver sends the last packet and calls cb_quic_core_end() */
    CB_QUIC_ENDED    /* `closed` was called; only memory is left */
};

/* What the core asks of its driver. `now`, `random` and `wake` are called at any time, the rest from
 * inside feed and write. */
typedef struct cb_quic_host_ops {
    cb_time (*now)(cb_quic_conn *c);
    void (*random)(cb_quic_conn *c, void *out, size_t len); /* need not be secret */
    void (*wake)(cb_quic_conn *c);                          /* something may have to be sent, or the end is decided */
    int (*new_cid)(cb_quic_conn *c, ngtcp2_cid *cid,
                   uint8_t token[NGTCP2_STATELESS_RESET_TOKENLEN]); /* makes one; packets to it reach c */
    void (*drop_cid)(cb_quic_conn *c, const ngtcp2_cid *cid);
    int (*make_app)(cb_quic_conn *c, cb_quic_app **out); /* server: the ALPN is known */
    void (*handshaken)(cb_quic_conn *c);
    size_t (*make_token)(cb_quic_conn *c, uint8_t *out, size_t cap); /* server: for NEW_TOKEN; 0 = none */
    void (*keep_token)(cb_quic_conn *c, cb_slice token);             /* client: NEW_TOKEN came */
    void (*path_learned)(cb_quic_conn *c, bool lossy); /* of the peer's host, for connections to come; NULL = none */
    /* Client: the server does not speak the version that was tried, but this one: opens c anew (cb_quic_core_reopen()).
     * NULL: there is no second try. */
    int (*other_version)(cb_quic_conn *c, uint32_t version);
} cb_quic_host_ops;

/* The TLS message that is coming in. */
typedef struct cb_quic_tls_in {
    uint32_t left; /* bytes of its body that are to come, once the header is there */
    uint8_t head;  /* bytes of its header that are there */
} cb_quic_tls_in;

struct cb_quic_conn {
    ngtcp2_crypto_conn_ref ref; /* what the TLS session points to */
    ngtcp2_conn *ng;
    cb_tls_session *tls;
    cb_quic_app *app;
    const cb_quic_host_ops *host;
    const cb_quic_opts *opts; /* with defaults filled in; the driver's, outlives c */
    const cb_alloc *alloc;
    const cb_log *log;
    cb_loop *loop;
    const cb_quic_aead *aead;
    cb_list keys; /* cb_quic_key.link */
    ngtcp2_mem mem;
    cb_addr local, remote;
    cb_quic_dgrams dgrams;
    struct cb_quic_spill *spill; /* NULL: none */
    ngtcp2_ccerr err;            /* what CONNECTION_CLOSE says */
    char *reason;                /* NULL: none */
    char *detail;                /* of close_rc, for a person; NULL: none */
    uint8_t phase;               /* enum cb_quic_phase */
    uint8_t ecn;
    uint8_t early; /* as in cb_quic_conn_stats */
    bool server, ready, handshaken, early_tried, busy, err_set, send_close, key_update_due, stateless_reset, no_params;
    cb_quic_tls_in tls_in[3]; /* by level: Initial, Handshake, 1-RTT */
    int close_rc, tls_rc, app_rc;
    int cc;                    /* enum cb_cc */
    struct cb_quic_pace *pace; /* when the governor runs */
    size_t fresh;              /* new bytes of the application in the packet under way */
    uint8_t cc_below;          /* enum cb_cc: ngtcp2's controller */
    bool expired;              /* a timer of ngtcp2 ran out, and nothing was written since */
    bool quiet;                /* nothing of the application's may leave now */
    cb_time cids_until;        /* connection IDs that were made at their rate would last until then */
    cb_time owed;              /* client: as in cb_quic_pulse */
    uint32_t other_version;    /* client: of ours, in the server's Version Negotiation packet; 0 = none */
    uint64_t tx_packets, tx_bytes, rx_packets, rx_bytes, migrations;
    /* for what is counted (quic_count.h) */
    const cb_cells *cells; /* the loop's; NULL = nothing is */
    cb_time began, look_at;
    cb_time asked_at;     /* when something left that is to be acknowledged */
    uint64_t ssthresh;    /* as it was then */
    uint32_t streams;     /* that are open */
    uint32_t keys_made;   /* for updates */
    uint8_t why;          /* enum cb_quic_why */
    bool own_due;         /* the last words of the handshake, tickets and tokens have not left yet */
    bool window_shut;     /* the peer takes no more in all */
    bool key_update_ours; /* the latest was begun here, and keys for a next one are not made yet */
};

/* What a connection starts from. */
typedef struct cb_quic_core_init {
    const cb_quic_host_ops *host;
    const cb_quic_opts *opts;
    const cb_alloc *alloc;
    const cb_log *log;
    cb_loop *loop;
    const cb_quic_aead *aead; /* NULL = GnuTLS */
    int cc_below;             /* enum cb_cc, below the governor; 0 = cubic */
    cb_tls_session *tls;      /* owned from here, also on failure */
    const cb_addr *local, *remote;
    cb_time now;
    ngtcp2_cid dcid, scid; /* server: the client's source and our first; client: random and our first */
    uint32_t version;
    uint32_t original_version; /* client: that it tried before a Version Negotiation packet; 0 = none */
    cb_slice token;
    /* server */
    ngtcp2_cid original_dcid;
    const ngtcp2_cid *retry_scid; /* NULL = no Retry was sent */
    ngtcp2_token_type token_type;
    const uint8_t *reset_token;
} cb_quic_core_init;

/* c is zeroed memory. On failure it holds nothing. */
int cb_quic_core_open(cb_quic_conn *c, const cb_quic_core_init *init, bool server);
/* Client: once more from the beginning, before anything came of it; what rides on it stays. On failure c holds nothing,
 * as above. */
int cb_quic_core_reopen(cb_quic_conn *c, const cb_quic_core_init *init);
void cb_quic_core_feed(cb_quic_conn *c, const cb_addr *local, const cb_addr *remote, unsigned ecn, const uint8_t *data,
                       size_t len, cb_time now);

/* Packets of one size (the last may be shorter) for one path. */
typedef struct cb_quic_train {
    size_t len, segment;
    unsigned ecn;
    cb_addr local, remote;
    bool more; /* ask again: it ended for another reason than having nothing to say */
} cb_quic_train;
/* Fills buf (cap >= CB_QUIC_PACKET_MAX). len 0: nothing to send now. */
void cb_quic_core_write(cb_quic_conn *c, uint8_t *buf, size_t cap, cb_time now, cb_quic_train *out);
cb_time cb_quic_core_deadline(const cb_quic_conn *c);
/* When the pacer lets more out; exact, unlike the deadline, which has the grain of QUIC's timers. */
cb_time cb_quic_core_wake(const cb_quic_conn *c);
void cb_quic_core_expire(cb_quic_conn *c, cb_time now);
void cb_quic_core_signed(cb_quic_conn *c); /* cb_tls_session_on_signed(): the handshake goes on */
/* The CONNECTION_CLOSE packet of a connection in CB_QUIC_CLOSING; out->len 0 = none is due. */
void cb_quic_core_last_packet(cb_quic_conn *c, uint8_t *buf, size_t cap, cb_time now, cb_quic_train *out);
/* Client: to another local address (RFC 9000, 9): when it is proven, or at once with the proof following. CB_EAGAIN:
 * not now; CB_EINVAL: the peer forbids it. */
int cb_quic_core_migrate(cb_quic_conn *c, const cb_addr *local, bool at_once, cb_time now);
void cb_quic_core_end(cb_quic_conn *c);  /* tells the app */
void cb_quic_core_free(cb_quic_conn *c); /* what it holds, not c */
/* Decides the end: rc and detail for on_close; no CONNECTION_CLOSE unless send. Does nothing when it was decided. */
void cb_quic_core_finish(cb_quic_conn *c, int rc, bool send, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* --- between quic_conn.c and quic_conn_cb.c --- */
extern const ngtcp2_callbacks cb_quic_client_callbacks, cb_quic_server_callbacks;
int cb_quic_tls_signed(cb_quic_conn *c); /* a code of ngtcp2 */
/* What CONNECTION_CLOSE will say beside its code; cut at CB_QUIC_REASON_MAX. Returns it: "" where there is no memory.
 */
const char *cb_quic_core_reason(cb_quic_conn *c, const char *text);
/* Calls into the app from a callback of ngtcp2: < 0 becomes its error code. */
int cb_quic_core_app_result(cb_quic_conn *c, int rc);
void cb_quic_core_failed(cb_quic_conn *c, int liberr);

#endif
