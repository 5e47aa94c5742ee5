/* The inside of a pool: origins with their queues (pool.c), connections (pool_conn.c), opening them (pool_open.c). */
#ifndef CB_HTTP_POOL_INT_H
#define CB_HTTP_POOL_INT_H

#include "base/map.h"
#include "http/dial.h"
#include "http/drive.h"
#include "http/pool.h"

enum { POOL_ADDRESSES = 16, POOL_WHY_BYTES = 512, POOL_SPARE_REQS = 256, POOL_SPARE_BYTES = 16384 };

typedef struct cb_pool_req cb_pool_req;
typedef struct cb_pool_conn cb_pool_conn;
typedef struct cb_opening cb_opening;

struct cb_pool {
    cb_loop *loop;
    const cb_alloc *alloc;
    const cb_log *log;
    cb_pool_opts opts;
    cb_http_limits limits;
    cb_session_cache *sessions;
    cb_map origins;
    cb_list list;  /* cb_origin.link */
    cb_list spare; /* cb_pool_req.link */
    size_t n_spare;
    cb_list spare_exchanges; /* cb_exchange.link */
    size_t n_spare_exchanges;
    size_t refs; /* the owner's and one of each origin */
    cb_grave grave;
    bool freed, draining;
};

struct cb_origin {
    cb_list link;
    cb_pool *pool;
    size_t refs; /* callers, connections, openings, requests */
    cb_pool_target t;
    cb_addr proxy_src, proxy_dst;
    char *host, *sni, *name;
    uint8_t *key;
    size_t key_len;
    cb_list conns;    /* open, by cb_pool_conn.link */
    cb_list avail;    /* of these, what may take an exchange; used last first */
    cb_list openings; /* by cb_opening.link */
    cb_list queue;    /* by cb_pool_req.link, oldest first */
    size_t n_openings;
    bool multiplexes; /* the last connection did: one opening serves many */
    bool known;       /* multiplexes was seen */
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
    cb_time queued, due, head_timeout, head_due;
    bool has_body, no_retry, retried, no_early, fresh, reused, sent, queued_now;
    cb_addr at;              /* of that connection */
    char peer[CB_ADDR_TEXT]; /* the same as text, made when somebody asks */
};

/* A connection; of its opening until it is open, then of its origin. */
struct cb_pool_conn {
    cb_drive drive;
    cb_list link;  /* in cb_opening.tries, then in cb_origin.conns */
    cb_list avail; /* in cb_origin.avail */
    cb_origin *origin;
    cb_opening *opening; /* NULL: open, or not wanted any more */
    cb_addr at;
    cb_quic_app_factory factory;
    uint64_t served;
    bool open, idle;
    cb_grave grave;
};

/* --- pool_origin.c --- */
void cb_origin_hold(cb_origin *o);
void cb_origin_forget(cb_origin *o); /* nobody finds it any more */

/* --- pool.c --- */
void cb_pool_unref(cb_pool *p);
void cb_origin_begin(cb_origin *o); /* its queue, in the constructor */
void cb_origin_wake(cb_origin *o);  /* dispatch at the end of the turn */
void cb_origin_dispatch(cb_origin *o);
/* No connection came about: rc, with the detail set. */
void cb_origin_open_failed(cb_origin *o, int rc);

/* --- pool_conn.c --- */
/* Both: *out belongs to the opening, which is told by cb_opening_won() or _lost() (not inside this call). */
int cb_pool_conn_tcp(cb_pool_conn **out, cb_opening *op, int fd, const cb_addr *at); /* fd is owned from here */
int cb_pool_conn_quic(cb_pool_conn **out, cb_opening *op, const cb_addr *at);
void cb_pool_conn_opened(cb_pool_conn *c);   /* it is its origin's now */
void cb_pool_conn_dropped(cb_pool_conn *c);  /* its opening does not want it */
void cb_pool_conn_released(cb_pool_conn *c); /* an exchange of it ended */

/* --- pool_open.c --- */
int cb_opening_start(cb_origin *o);
void cb_opening_cancel_all(cb_origin *o);
cb_origin *cb_opening_origin(const cb_opening *op);
void cb_opening_won(cb_opening *op, cb_pool_conn *c);
void cb_opening_lost(cb_opening *op, cb_pool_conn *c, int rc); /* the detail is set */

#endif
