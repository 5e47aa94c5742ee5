/* HTTP/1.1 framing (RFC 9112) on llhttp: what its files share. One exchange at a time, in both roles: a server parses
 * the next request when the response of the one before is complete and its exchange is over. */
#ifndef CB_HTTP_H1_INT_H
#define CB_HTTP_H1_INT_H

#include "base/buf.h"
#include "http/hconn.h"
#include "tunnel/capsule.h"
#include <llhttp.h>

enum {
    H1_LINE_EXTRA = 128,     /* method and more, beside the target */
    H1_CHUNK_EXT_MAX = 1024, /* bytes of chunk extensions in a message */
    H1_PIECE = 64 * 1024,    /* bytes given to the parser at once: bounds what one callback can bring */
    H1_CHUNK_OVERHEAD = 32   /* size line, CRLF and the last chunk */
};

typedef enum h1_in {
    H1_IN_IDLE,   /* between messages; client: nothing asked */
    H1_IN_HEAD,   /* client: waiting for the response, or in its head */
    H1_IN_BODY,   /* chunked trailers included */
    H1_IN_WAIT,   /* server: Upgrade or CONNECT, the answer decides */
    H1_IN_END,    /* complete */
    H1_IN_TUNNEL, /* raw bytes */
    H1_IN_DISCARD /* what still comes is thrown away: the connection will close */
} h1_in;

typedef enum h1_out {
    H1_OUT_NONE, /* no head yet */
    H1_OUT_LENGTH,
    H1_OUT_CHUNKED,
    H1_OUT_CLOSE,  /* delimited by the end of the connection */
    H1_OUT_NOBODY, /* HEAD, 204, 304: waits for finish */
    H1_OUT_WAIT,   /* client: Upgrade or CONNECT sent, no bytes before the answer */
    H1_OUT_TUNNEL,
    H1_OUT_DONE
} h1_out;

typedef struct h1_conn {
    cb_hconn h; /* first */
    llhttp_t parser;
    cb_exchange *x;
    cb_buf line; /* method and target as they come */
    cb_buf out;  /* a head that waits for its body or for flush */
    uint32_t method_len;
    uint32_t line_len; /* of the request line so far */
    uint32_t line_spaces;
    uint8_t line_proto_len;
    char line_proto[8]; /* what follows the second space */
    uint32_t chunk_ext;
    h1_in in;
    h1_out mode;
    int err;        /* set by a parser callback: why it stopped; CB_ECLOSED: the exchange is gone */
    int err_status; /* what a server answers */
    int close_rc;   /* with closing */
    cb_time now;
    cb_time head_from, body_from, idle_from, stuck_from;
    cb_capsules *capsules; /* of a tunnel with HTTP datagrams */
    unsigned depth;        /* calls of the owner on the stack */
    bool paused;           /* llhttp_resume() is due */
    bool upgrade_paused;   /* llhttp_resume_after_upgrade() is due */
    bool line_done;        /* the request line is complete */
    bool head_begun;       /* bytes of a head came */
    bool version_10;       /* of the message that is being received */
    bool has_version;      /* the request line had one */
    bool keep_alive_10;    /* HTTP/1.0 peer asked to keep the connection */
    bool upgrade;          /* request: Upgrade was asked for */
    bool interim_now;      /* client: the head that was just read is an informational one */
    bool chunked_in;       /* Transfer-Encoding came */
    bool expect;           /* a 100 (Continue) is due when the user wants the body */
    bool close_after;      /* no further message */
    bool closing;          /* nothing more is read; the owner closes when out is empty */
    bool eof;              /* the peer sends no more */
    bool gone;             /* the transport is gone */
    bool freed;
    bool fin_due; /* client: the tunnel ends as soon as it begins */
    cb_grave grave;
} h1_conn;

extern const llhttp_settings_t h1_settings;

/* h1_head.c: the checks between llhttp and cb_exchange_in_head(); CB_EPROTO and h1->err_status. */
int h1_check_head(h1_conn *c);

/* h1_out.c */
int h1_send_head(cb_hconn *h, cb_exchange *x, const cb_head *head, bool end);
size_t h1_room(const cb_hconn *h, const cb_exchange *x);
int64_t h1_send_body(cb_hconn *h, cb_exchange *x, cb_slice data, bool end);
int h1_send_trailers(cb_hconn *h, cb_exchange *x, const cb_field *f, size_t n);
int h1_send_datagram(cb_hconn *h, cb_exchange *x, cb_slice payload);
int h1_send_continue(h1_conn *c);
int h1_push(h1_conn *c); /* what waits in out goes to the sink */

/* h1_conn.c */
void h1_settle(h1_conn *c); /* ends the exchange when both messages are complete */
void h1_wake(h1_conn *c);   /* the owner is to call flush; nothing inside of its own calls */
int h1_begin_tunnel(h1_conn *c);
void h1_limit(h1_conn *c, const char *what);
static inline h1_conn *h1_of(const cb_hconn *h) {
    return (h1_conn *)(uintptr_t)h; // NOLINT(performance-no-int-to-ptr)
}

#endif
