/* The inside of a pool: origins with their queues (pool.c), connections (pool_conn.c), opening them (pool_open.c). */
#ifndef CB_HTTP_POOL_INT_H
#define CB_HTTP_POOL_INT_H

#include "base/map.h"
#include "http/dest.h"
#include "http/dial.h"
#include "http/drive.h"
#include "http/pool.h"
#include "loop/tcp.h"

enum { POOL_WHY_BYTES = 512, POOL_SPARE_REQS = 256, POOL_SPARE_BYTES = 16384 };

typedef struct cb_pool_req cb_pool_req;
typedef struct cb_pool_conn cb_pool_conn;
typedef struct cb_opening cb_opening;
typedef struct cb_leg cb_leg;

struct cb_pool {
    cb_loop *loop;
    const cb_alloc *alloc;
    const cb_log *log;
    cb_pool_opts opts;
    cb_http_limits limits;
    cb_session_cache *sessions;
    cb_dests dests;
    cb_map origins;
    cb_list list;  /* cb_origin.link */
    cb_list spare; /* cb_pool_req.link */
    size_t n_spare;
    cb_list spare_exchanges; /* cb_exchange.link */
    size_t n_spare_exchanges;
    cb_pool_stats stats;
    uint64_t network; /* how often it has changed */
    size_t refs;      /* the owner's and one of each origin */
    cb_grave grave;
    bool freed, draining;
};

struct cb_origin {
    cb_list link;
    cb_pool *pool;
    size_t refs;      /* callers, connections, openings, requests */
    uint64_t network; /* of the pool, when this was looked at last */
    cb_pool_target t;
    cb_addr proxy_src, proxy_dst;
    char *host, *sni, *name;
    uint8_t *key;
    size_t key_len;
    cb_dest *dest;     /* pinned */
    cb_list conns;     /* open, by cb_pool_conn.link */
    cb_list avail;     /* of these, what may take an exchange; used last first */
    cb_list openings;  /* by cb_opening.link */
    cb_list queue;     /* by cb_pool_req.link, oldest first */
    uint64_t waited;   /* requests that ever came to wait */
    size_t n_openings; /* of these, what requests wait for */
    size_t n_quic;     /* openings that try QUIC now */
    size_t quic_conns; /* open ones that answer */
    bool multiplexes;  /* the last connection did: one opening serves many */
    bool known;        /* multiplexes was seen */
    cb_defer dispatch;
    cb_alarm queue_alarm;
    cb_quic_endpoint *quic[2]; /* IPv4, IPv6; made at need */
    cb_origin_stats stats;
    cb_grave grave;
};

/* One exchange, from cb_pool_send() until it is gone. */
struct cb_pool_req {
    cb_list link; /* in cb_origin.queue while it waits, in cb_pool.spare when unused */
    cb_origin *origin;
    cb_exchange *x;
    cb_pool_conn *conn; /* it went out on that one */
    cb_head head;       /* points into bytes */
    cb_buf bytes;       /* texts of the head, then the field array */
    cb_alarm alarm;
    cb_time due, head_timeout, head_due;
    cb_pool_times times;
    bool has_body, no_retry, retried, no_early, fresh, reused, sent, queued_now;
    uint64_t number;         /* among those that waited for the origin */
    uint8_t version;         /* enum cb_http_version of the connection */
    uint8_t moves;           /* to another connection, because the one before fell silent */
    cb_addr at;              /* of that connection */
    char peer[CB_ADDR_TEXT]; /* the same as text, made when somebody asks */
};

/* A connection; of its opening until it is open, then of its origin. */
struct cb_pool_conn {
    cb_drive drive;
    cb_list link;  /* in cb_leg.tries, then in cb_origin.conns */
    cb_list avail; /* in cb_origin.avail */
    cb_origin *origin;
    cb_leg *leg;                 /* NULL: open, or not wanted any more */
    cb_tcp_connector *connector; /* TCP: not connected yet */
    cb_addr at;
    cb_time began, connected, ready; /* as cb_pool_times */
    cb_quic_app_factory factory;
    uint64_t served;
    int version;  /* enum cb_http_version, once open */
    size_t users; /* requests that point here: what is complete and not taken yet outlives its connection */
    bool open, idle, is_quic, gone;
    bool excused;                    /* that it ends is not the origin's doing: what is idempotent may go again */
    char alt[CB_ALT_HOST_BYTES + 1]; /* with alt_port: the alternative (Alt-Svc) that it goes to, "" = same host */
    uint16_t alt_port;               /* 0: it goes to the origin itself */
    cb_alarm watch;                  /* QUIC, while exchanges wait: does it still answer? pool_stall.c */
    bool silent;                     /* no: it gets nothing new */
    cb_time rescue_due;              /* silent: when another way is looked for the next time */
    cb_time silent_due;              /* and is given up then */
    cb_time busy_since;              /* when data came last, or the first exchange began */
    uint64_t busy_bytes;             /* what had come then */
    uint64_t network;                /* as the origin's */
    cb_grave grave;
};

/* One way to an origin: a transport to a host and a port, over all of its addresses (RFC 8305). pool_leg.c */
struct cb_leg {
    cb_opening *op;
    struct cb_leg_name {
        cb_leg *leg;
        cb_lookup *lookup;
    } names[2]; /* IPv6, IPv4: asked together */
    char host[CB_ALT_HOST_BYTES + 1];
    uint16_t port;
    bool quic, alt, used, over, waited;
    cb_dial dial;
    cb_list tries;           /* by cb_pool_conn.link: connections in their handshake */
    cb_alarm alarm;          /* the next attempt, or the end of waiting for IPv6 addresses */
    cb_time start, next_due; /* no attempt before `start`; the next one beside those under way */
    int rc;                  /* with over */
};

/* --- pool_origin.c --- */
void cb_origin_hold(cb_origin *o);
void cb_origin_forget(cb_origin *o); /* nobody finds it any more */

/* --- pool.c --- */
void cb_pool_unref(cb_pool *p);
void cb_origin_begin(cb_origin *o); /* its queue, in the constructor */
void cb_origin_wake(cb_origin *o);  /* dispatch at the end of the turn */
void cb_origin_dispatch(cb_origin *o);
bool cb_pool_may_move(const cb_exchange *x); /* away from a connection that fell silent */
/* No connection came about: rc, with the detail set. */
void cb_origin_open_failed(cb_origin *o, int rc);

/* --- pool_conn.c --- */
/* Both: *out belongs to the leg, which is told by cb_leg_won() or _lost() (not inside this call). */
int cb_pool_conn_tcp(cb_pool_conn **out, cb_leg *leg, const cb_addr *at);
int cb_pool_conn_quic(cb_pool_conn **out, cb_leg *leg, const cb_addr *at);
void cb_pool_conn_opened(cb_pool_conn *c);   /* it is its origin's now */
void cb_pool_conn_dropped(cb_pool_conn *c);  /* its leg does not want it */
void cb_pool_conn_released(cb_pool_conn *c); /* an exchange of it ended: one user less */
void cb_pool_conn_idle(cb_pool_conn *c, bool idle);
void cb_pool_conn_offer(cb_pool_conn *c); /* it may take exchanges (again) */

/* --- pool_count.c --- */
void cb_pool_count_opened(const cb_pool_conn *c, bool resumed);
void cb_pool_count_closed(const cb_pool_conn *c, int rc);
void cb_pool_count_failed(const cb_origin *o, int rc);
void cb_pool_count_sent(const cb_pool_req *r);
void cb_pool_count_retried(const cb_pool_req *r, bool silent);

/* --- pool_alt.c --- */
/* cb_exchange.on_response: Alt-Svc is noted. True: a misdirected one, which goes elsewhere. */
bool cb_pool_on_response(cb_exchange *x, void *user);

/* --- pool_stall.c --- */
void cb_stall_init(cb_pool_conn *c);
void cb_stall_watch(cb_pool_conn *c);                 /* an exchange went out on it */
void cb_stall_rescued(cb_origin *o, cb_pool_conn *c); /* c is a new connection that works */

/* --- pool_leg.c --- */
void cb_leg_init(cb_leg *leg, cb_opening *op, bool quic, const char *host, uint16_t port, cb_time start);
int cb_leg_start(cb_leg *leg);
void cb_leg_hurry(cb_leg *leg); /* the first attempt is due now */
void cb_leg_end(cb_leg *leg);   /* quietly: the connections that are being opened go */
/* TCP is there, the handshake begins: others need not be tried while it goes on. */
void cb_leg_connected(cb_leg *leg, const cb_pool_conn *c);
void cb_leg_won(cb_leg *leg, cb_pool_conn *c);
void cb_leg_lost(cb_leg *leg, cb_pool_conn *c, int rc); /* the detail is set */
const char *cb_leg_step(const cb_leg *leg);             /* what it is doing */

/* --- pool_open.c --- */
enum cb_opening_kind {
    CB_OPENING_WANTED, /* requests wait for it */
    CB_OPENING_RESCUE, /* the same, for those of a connection that fell silent: all ways at once */
    CB_OPENING_PROBE   /* only QUIC, beside connections that work: nobody waits */
};
int cb_opening_start(cb_origin *o, int kind);
void cb_opening_cancel_all(cb_origin *o);
void cb_opening_cancel_rescue(cb_origin *o);
/* Tries QUIC beside TCP when that is allowed, promising and not under way. */
void cb_origin_probe(cb_origin *o);
cb_origin *cb_opening_origin(const cb_opening *op);
bool cb_opening_is_rescue(const cb_opening *op);
void cb_opening_won(cb_opening *op, cb_leg *leg, cb_pool_conn *c);
void cb_opening_note(cb_opening *op, int rc);          /* a failed attempt; the detail is set */
void cb_opening_leg_over(cb_opening *op, cb_leg *leg); /* leg->rc says why */

#endif
