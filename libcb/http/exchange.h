/* The inside of an exchange: what framing (h1, h2, h3) fills and drives. exchange.c, F1. */
#ifndef CB_HTTP_EXCHANGE_H
#define CB_HTTP_EXCHANGE_H

#include "base/addr.h"
#include "base/chain.h"
#include "base/list.h"
#include "http/fields.h"
#include "loop/loop_int.h"
#include <cb/http.h>
#include <stdbool.h>

struct cb_hconn;

/* A head as it goes out, already validated. Framing adds what its version needs (Connection, Transfer-Encoding,
 * pseudo-header fields). */
typedef struct cb_head {
    int status;                                         /* responses */
    cb_slice method, scheme, authority, path, protocol; /* requests */
    const cb_field *fields;                             /* without hop-by-hop fields; names in any case */
    size_t n;
    int64_t length; /* content-length among the fields, or -1 */
} cb_head;

struct cb_exchange {
    cb_list link;          /* in cb_hconn.exchanges */
    struct cb_hconn *conn; /* NULL: a client exchange that waits for a connection, or one whose connection is gone */
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
    cb_defer deliver;              /* resumed: deliver at the end of the turn (only when loop is set) */
    void (*on_release)(cb_exchange *x, void *user); /* client.c: the exchange is gone */
    void *release_user;
    /* Client: asked by cb_exchange_closed() before anything else when rc < 0 and no response head has come. True: the
     * pool has taken the exchange back for another connection (conn is NULL again); nothing is delivered or freed. */
    bool (*on_retry)(cb_exchange *x, int rc, void *release_user);
    char remote[CB_ADDR_TEXT], local[CB_ADDR_TEXT];
    unsigned server : 1, head_in : 1, end_in : 1, head_out : 1, end_out : 1, blocked : 1, paused : 1, closed : 1,
        end_due : 1, head_req : 1, connect : 1, tunnel : 1, early : 1, abandoned : 1, no_body : 1, in_callback : 1,
        freed : 1, refused : 1; /* refused: set by framing before closed(): the peer did not process the request */
    int close_rc;
    cb_time started; /* cb_loop_now() when the first byte came or the request was made */
};

/* --- life --- */
int cb_exchange_new(cb_exchange **out, cb_loop *loop, const cb_alloc *alloc, bool server, const cb_http_limits *limits);
/* Called by framing when both sides are over or the stream died: delivers what is held (only when rc is CB_OK), then
 * on_close once, then frees (deferred). */
void cb_exchange_closed(cb_exchange *x, int rc);

/* --- framing delivers (each returns < 0 when the exchange is to be reset; on CB_EUSER with CB_RESET_INTERNAL) --- */
/* Pseudo-header fields and fields one by one; names may be any case for h1 (they are lowered), must be lower case for
 * h2/h3. */
int cb_exchange_in_pseudo(cb_exchange *x, cb_slice name,
                          cb_slice value); /* ":method", ... once each, known ones only */
int cb_exchange_in_field(cb_exchange *x, cb_slice name, cb_slice value);
/* Checks the whole head (RFC 9110/9113/9114: required pseudo fields, Host against :authority, content-length,
 * connection-specific fields, TE) and calls on_head / on_info. end: no body follows. CB_EPROTO with detail; CB_ELIMIT
 * (431) */
int cb_exchange_in_head(cb_exchange *x, bool end);
int cb_exchange_in_body(
    cb_exchange *x, cb_slice data); /* never blocks: what the user does not take is held; framing limits by window */
bool cb_exchange_in_blocked(const cb_exchange *x); /* something is held: h1 stops parsing */
int cb_exchange_in_trailer(cb_exchange *x, cb_slice name, cb_slice value);
int cb_exchange_in_end(cb_exchange *x); /* checks content-length; on_end when nothing is held, else later */
int cb_exchange_in_datagram(cb_exchange *x, cb_slice payload);
void cb_exchange_out_writable(cb_exchange *x); /* room came back */
/* For a server: answers with a bare error response if none was begun (431, 414, 413, 408, 400...), else resets. */
void cb_exchange_fail_status(cb_exchange *x, int status);

/* --- the client sends its head when it has a connection (called by client.c after vt->open) --- */
int cb_exchange_send_request(cb_exchange *x, const cb_head *head, bool end);

#endif
