/* A QUIC peer driven by hand, for tests of what no honest peer sends. It makes a real handshake over a real socket and
 * encrypts with keys of its own, then sends exactly the frames that a test wants, in the packets that it wants.
 *
 * It stands on GnuTLS alone and shares no code with what it attacks: QUIC v1, TLS_AES_128_GCM_SHA256, loopback. It
 * acknowledges what comes and repeats nothing. */
#ifndef CB_TEST_RAW_QUIC_H
#define CB_TEST_RAW_QUIC_H

#include "base/buf.h"
#include <cb/loop.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <stdbool.h>

enum raw_level { RAW_INITIAL, RAW_HANDSHAKE, RAW_APP, RAW_EARLY, RAW_LEVELS };
enum { RAW_STREAMS = 64, RAW_CID = 8, RAW_CIDS = 16 };

typedef struct raw_keys {
    bool have;
    uint8_t secret[32], iv[12], hp[16];
    gnutls_aead_cipher_hd_t aead;
} raw_keys;

/* One packet. Zero values make an ordinary one. */
typedef struct raw_packet {
    enum raw_level level;
    const void *frames;
    size_t len;
    uint8_t first_xor;   /* bits of the first byte to turn over, before protection */
    bool small;          /* an Initial is not padded */
    bool pad_outside;    /* what follows it in the datagram is no packet */
    bool short_cid;      /* an Initial to a connection ID of 4 bytes */
    const char *token;   /* of an Initial */
    const uint8_t *dcid; /* another destination (8 bytes) */
    bool other_scid;     /* another source connection ID than before */
    uint32_t version;    /* 0: 1 */
    bool corrupt;        /* the last byte is wrong */
} raw_packet;

/* What came on a stream. */
typedef struct raw_stream {
    int64_t id;
    uint64_t bytes, sent, reset_code, stop_code;
    bool fin, reset, stopped;
} raw_stream;

typedef struct raw_quic raw_quic;
struct raw_quic {
    bool server;
    int fd;
    cb_loop *loop; /* of the endpoint under test: turned while the peer waits */
    struct sockaddr_in to;
    gnutls_session_t tls;
    gnutls_certificate_credentials_t cred;
    const char *alpn, *priority;
    void *user;
    void (*prepare)(raw_quic *r);        /* may change the transport parameters */
    cb_buf params;                       /* transport parameters to send */
    cb_buf peer_params;                  /* the other side's */
    bool no_params, complete, confirmed; /* TLS is through; HANDSHAKE_DONE was seen or sent */
    enum raw_level hold_from;            /* what TLS says from this level on is kept back; RAW_LEVELS: nothing */
    int (*edit)(raw_quic *r, enum raw_level level, cb_buf *crypto); /* changes what TLS is about to say */
    gnutls_datum_t session;                                         /* a client's: to resume, with early data; owned */
    int tls_rc;
    raw_keys rx[RAW_LEVELS], tx[RAW_LEVELS];
    uint8_t scid[RAW_CID], dcid[20], odcid[20];
    size_t dcid_len, odcid_len;
    uint64_t pn[RAW_LEVELS], first_rx[RAW_LEVELS], last_rx[RAW_LEVELS], acked[RAW_LEVELS]; /* acked: largest + 1 */
    bool any_rx[RAW_LEVELS], ack_due[RAW_LEVELS], phase, rx_phase;
    cb_buf crypto[RAW_LEVELS]; /* not yet sent */
    uint64_t crypto_sent[RAW_LEVELS], crypto_got[RAW_LEVELS];
    /* what came */
    bool closed, close_app;
    uint64_t close_code, close_frame;
    uint64_t packets, undecryptable, frames[64]; /* by type */
    uint32_t vn_packets, retries, resets;
    uint8_t cids[RAW_CIDS][RAW_CID], challenge[8];
    size_t n_cids; /* the first ones */
    uint8_t last_cid[20];
    size_t last_cid_len;
    raw_stream streams[RAW_STREAMS];
    size_t n_streams;
};

/* ---- life: `server` false makes a client that will talk to `to`, else a server with these files ---- */
void raw_make(raw_quic *r, cb_loop *loop, const char *alpn, const char *cert, const char *key);
void raw_drop(raw_quic *r);
uint16_t raw_port(const raw_quic *r);
/* A client: makes the ClientHello; it is sent by raw_flush() or raw_connect(). */
void raw_client(raw_quic *r, const char *remote /* "127.0.0.1:port" */, const char *sni);
void raw_keep_session(raw_quic *r, gnutls_datum_t *out); /* of a client that has got a ticket; out goes to ->session */
bool raw_connect(raw_quic *r);                           /* until the handshake is confirmed; false: it failed */
bool raw_wait(raw_quic *r, const bool *flag);            /* until set or closed; false: not in time */
void raw_turn(raw_quic *r, int ms);                      /* for so long */
bool raw_answered(raw_quic *r); /* sends PING and waits until it is acknowledged; false: the connection is closed */

/* ---- transport parameters ---- */
void raw_params_default(raw_quic *r);
void raw_param_add(raw_quic *r, uint64_t id, const void *value, size_t len); /* also twice */
void raw_param_drop(raw_quic *r, uint64_t id);
bool raw_param_get(const raw_quic *r, uint64_t id, cb_slice *value); /* of the other side */

/* ---- packets ---- */
void raw_send(raw_quic *r, const raw_packet *p);
void raw_frames(raw_quic *r, enum raw_level level, const void *frames, size_t len);
void raw_flush(raw_quic *r);                                  /* CRYPTO and ACK that are due */
void raw_next_keys(raw_quic *r);                              /* a key update of the sending side */
void raw_datagram(raw_quic *r, const void *data, size_t len); /* as it is */
void raw_stream_send(raw_quic *r, int64_t id, const void *data, size_t len, bool fin);
raw_stream *raw_stream_of(raw_quic *r, int64_t id); /* made when it is new */

/* ---- bytes ---- */
void raw_varint(cb_buf *b, uint64_t v);                     /* in as few bytes as it takes */
void raw_varint_add(cb_buf *b, uint64_t v, unsigned bytes); /* in 1, 2, 4 or 8 */
uint64_t raw_varint_get(cb_slice *in);                      /* UINT64_MAX: cut short */

/* ---- between raw_quic.c and raw_tls.c ---- */
void raw_keys_set(raw_keys *k, const uint8_t secret[32]);
void raw_keys_initial(raw_quic *r, const uint8_t *dcid, size_t len);
void raw_keys_next(raw_keys *k);
void raw_keys_free(raw_keys *k);
void raw_keys_mask(const raw_keys *k, const uint8_t sample[16], uint8_t mask[16]);
void raw_tls_make(raw_quic *r, const char *cert, const char *key, const char *sni);
void raw_tls_feed(raw_quic *r, enum raw_level level, const uint8_t *data, size_t len);

#endif
