/* The inside of an exchange: what framing (h1, h2, h3) fills and drives. exchange.c, F1. */
#ifndef CB_HTTP_EXCHANGE_H
#define CB_HTTP_EXCHANGE_H

#include "base/addr.h"
#include "base/chain.h"
#include "base/list.h"
#include "http/fields.h"
#include "loop/loop_int.h"
#include "loop/turn.h"
#include <cb/http.h>
#include <stdbool.h>

typedef struct cb_hconn cb_hconn;
typedef struct cb_hconn_vt cb_hconn_vt;
typedef struct cb_hconn_env cb_hconn_env;

/* A head as it goes out, already validated. Framing adds what its version needs (Connection, Transfer-Encoding,
 * pseudo-header fields). */
typedef struct cb_head {
    int status;                                         /* responses */
    cb_slice method, scheme, authority, path, protocol; /* requests */
    const cb_field *fields;                             /* without hop-by-hop fields; names in any case */
    size_t n;
    int64_t length; /* content-length among the fields, or -1 */
    bool checked;   /* the syntax of all that was checked before: it came with another exchange */
} cb_head;

struct cb_exchange {
    cb_list link;   /* in cb_hconn.exchanges */
    cb_hconn *conn; /* NULL: a client exchange that waits for a connection, or one whose connection is gone */
    const cb_exchange_ops *ops;
    void *user;
    const cb_alloc *alloc;
    cb_loop *loop;
    void *frame;       /* framing's own stream state */
    int64_t stream_id; /* h2, h3; h1: a count */
    /* received head */
    cb_slice method, scheme, authority, path, protocol;
    cb_fields in;
    cb_fields trailers;
    int status;
    int64_t in_length, in_bytes;   /* declared (-1: not), received */
    int64_t out_length, out_bytes; /* declared by us (-1: not), accepted from the user */
    cb_chain held;                 /* received, not taken by the user */
    cb_chain rest;                 /* of cb_exchange_send(): what framing had no room for yet */
    cb_defer deliver;              /* resumed: deliver at the end of the turn (only when loop is set) */
    void (*on_release)(cb_exchange *x, void *user); /* client.c: the exchange is gone */
    void *release_user;
    /* Client: asked by cb_exchange_closed() before anything else when rc < 0 and no response head has come. True: the
     * pool has taken the exchange back for another connection (conn is NULL again); nothing is delivered or freed. */
    bool (*on_retry)(cb_exchange *x, int rc, void *release_user);
    /* Client: a final response's head is there, and nobody has seen it. True: it is not wanted, the request is to go
     * elsewhere (on_retry is asked). May be NULL. */
    bool (*on_response)(cb_exchange *x, void *release_user);
    cb_peer *peer; /* once somebody asked: it outlives the connection */
    char remote[CB_ADDR_TEXT], local[CB_ADDR_TEXT];
    unsigned server : 1, head_in : 1, end_in : 1, head_out : 1, end_out : 1, blocked : 1, paused : 1, closed : 1,
        end_due : 1, head_req : 1, connect : 1, tunnel : 1, early : 1, abandoned : 1, no_body : 1, seen : 1, done : 1,
        resume_due : 1, part_open : 1, failing : 1, asked : 1, counted : 1, /* counted: as an open tunnel */
        too_early : 1, /* client: the answer was 425, to early data: it may be sent again (RFC 8470, 5.2) */
        refused : 1;   /* refused: set by framing before closed(): the peer did not process the request */
    int close_rc;
    int fail_rc;         /* why a bare error response was sent: on_close says it although both messages were complete */
    uint8_t version;     /* enum cb_http_version, once attached */
    uint16_t out_status; /* server: of the final response; 0: none was begun */
    uint16_t interims;   /* client: informational responses that came */
    uint16_t busy;       /* calls that may reach the user and are on the stack */
    uint32_t part_name;  /* length of the name of the field that is being gathered */
    size_t part_at;      /* where it begins in the arena of in or trailers */
    size_t held_max;     /* cb_http_limits.stream_window_bytes */
    uint64_t max_body;   /* cb_http_limits.max_body_bytes; 0 = no limit */
    uint32_t max_target; /* cb_http_limits.max_target_bytes */
    uint32_t pseudo_seen; /* which pseudo-header fields came */
    int fail_status;      /* what a server should answer after a head was refused: 400, 413, 414, 431, 501 */
    cb_time started;      /* cb_loop_now() when the first byte came or the request was made */
    /* Gets the memory of an exchange that is over, when nothing of it is on the stack any more, for
     * cb_exchange_renew(), cb_hconn_owner_ops.spare or cb_exchange_destroy(). NULL: it is freed. Not called for one of
     * a server that outlived its connection. */
    void (*on_keep)(cb_exchange *x, void *keep_user);
    void *keep_user;
    cb_grave grave;
};

/* --- life ---
 * Who does what at the end: framing says cb_exchange_closed() once, when both messages are over or the stream died.
 * exchange.c then delivers what is held (rc CB_OK), calls on_close when no call of this exchange is on the stack,
 * calls vt->detach (drop x->frame there, nothing else), unlinks x from the connection, counts, tells
 * owner->exchange_done, and lets the memory go. Framing neither calls owner->exchange_new nor exchange_done nor links.
 * After any function below returned CB_ECLOSED, and after cb_exchange_closed(), x must not be touched any more. */
int cb_exchange_new(cb_exchange **out, cb_loop *loop, const cb_alloc *alloc, bool server, const cb_http_limits *limits);
/* A client exchange once more, in memory that on_keep got. */
void cb_exchange_renew(cb_exchange *x, cb_loop *loop, const cb_http_limits *limits);
void cb_exchange_destroy(cb_exchange *x);
/* Server framing: a new exchange of this connection, attached; recycled where possible. owner->exchange_new is called
 * by cb_exchange_in_head(), right before on_head: an exchange without a valid head is never seen by the user. */
int cb_hconn_exchange(cb_hconn *h, cb_exchange **out);
/* Client framing, in vt->open: links x into h->exchanges, sets x->conn, fills remote and local. */
void cb_exchange_attach(cb_exchange *x, cb_hconn *h);
/* Called by framing when both sides are over or the stream died (also by its own doing, after it sent RST_STREAM).
 * Idempotent. With CB_OK while something is held or on_end is due, on_close waits for that. */
void cb_exchange_closed(cb_exchange *x, int rc);
/* Framing gives x up after one of the functions below failed with rc: vt->reset with the code that fits rc, then
 * cb_exchange_closed(x, rc). rc CB_ECLOSED: x is gone already, nothing happens. */
void cb_exchange_abort(cb_exchange *x, int rc);
int cb_reset_code(int rc); /* the enum cb_http_reset that fits a result: CB_EPROTO, CB_ELIMIT, CB_EUSER... */

/* --- what every connection has in common --- */
void cb_hconn_init(cb_hconn *h, const cb_hconn_vt *vt, const cb_hconn_env *env); /* in the constructor */
void cb_hconn_end_all(cb_hconn *h, int rc); /* vt->closed: cb_exchange_closed(rc) for each open exchange */

/* --- framing delivers (each returns < 0 when the exchange is to be reset with cb_exchange_abort(); CB_ECLOSED: it is
 * gone) --- */
/* Pseudo-header fields and fields one by one; names may be any case for h1 (they are lowered), must be lower case for
 * h2/h3. */
int cb_exchange_in_pseudo(cb_exchange *x, cb_slice name,
                          cb_slice value); /* ":method", ... once each, known ones only */
int cb_exchange_in_field(cb_exchange *x, cb_slice name, cb_slice value);
/* Checks the whole head (RFC 9110/9113/9114: required pseudo fields, Host against :authority, content-length,
 * connection-specific fields, TE) and calls on_head / on_info. end: no body follows; does cb_exchange_in_end() too
 * (calling that again is harmless). CB_EPROTO with detail; CB_ELIMIT; x->fail_status says what a server answers. */
int cb_exchange_in_head(cb_exchange *x, bool end);
/* Never blocks: what the user does not take is held; framing limits by window. CB_EPROTO: more than content-length;
 * CB_ELIMIT: more than max_body_bytes (fail_status 413) or more held than the window. */
int cb_exchange_in_body(cb_exchange *x, cb_slice data);
bool cb_exchange_in_blocked(const cb_exchange *x); /* something is held: h1 stops parsing */
int cb_exchange_in_trailer(cb_exchange *x, cb_slice name, cb_slice value);
int cb_exchange_in_end(cb_exchange *x); /* checks content-length; on_end when nothing is held, else later */
int cb_exchange_in_datagram(cb_exchange *x, cb_slice payload);
void cb_exchange_out_writable(cb_exchange *x); /* room came back; x may be gone afterwards */
/* For a server: answers with a bare error response if none was begun (431, 414, 413, 408, 400...), else resets. In
 * both cases the rest of the request is not wanted. x may be gone afterwards. */
void cb_exchange_fail_status(cb_exchange *x, int status);
/* h1 gathers a field in pieces: name pieces, value pieces, end. */
int cb_exchange_part(cb_exchange *x, bool name, cb_slice piece);
int cb_exchange_part_end(cb_exchange *x);
/* What has come of a head is nothing of the one that comes next: an interim one, or another connection's. */
void cb_exchange_in_forget(cb_exchange *x);
/* Makes the slices of the head readable before cb_exchange_in_head(), which does it otherwise. */
void cb_exchange_in_seal(cb_exchange *x);
/* Framing calls cb_exchange_out_writable() when it has room for an exchange of which this says true. */
static inline bool cb_exchange_out_wanted(const cb_exchange *x) {
    return !x->closed && (x->blocked || x->rest.len);
}

/* Server: may this request run though it came as early data, and so may be a replay (RFC 8470, 3)? GET, HEAD and
 * OPTIONS without a body. */
bool cb_exchange_early_ok(const cb_exchange *x);

/* --- the client sends its head when it has a connection (called by client.c after vt->open) --- */
int cb_exchange_send_request(cb_exchange *x, const cb_head *head, bool end);
/* As cb_exchange_reply(), with fields that came with another exchange and were checked there. */
int cb_exchange_pass_on(cb_exchange *x, int status, const cb_field *fields, size_t n);

#endif
