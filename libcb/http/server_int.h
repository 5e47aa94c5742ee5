/* The inside of an HTTP server: what its TCP and its QUIC half share. */
#ifndef CB_HTTP_SERVER_INT_H
#define CB_HTTP_SERVER_INT_H

#include "http/drive.h"
#include "loop/loop_int.h"
#include "loop/tcp.h"
#include "loop/unix.h"
#include <cb/http.h>

enum { SERVER_DATE_TEXT = 30 }; /* "Sat, 21 Nov 2026 05:44:18 GMT" */

enum { SERVER_CLASSES = 6, SERVER_METHODS = 9 }; /* no status, 1xx to 5xx; others, and the well-known ones */

/* Cells of one version. */
typedef struct cb_server_counts {
    cb_cell *active, *lasted; /* of the loop's own; NULL: nothing is counted */
    cb_cell *requests[SERVER_METHODS][SERVER_CLASSES];
} cb_server_counts;

/* One HTTP connection. */
typedef struct cb_server_conn {
    cb_drive drive;
    cb_list link; /* in cb_http_server.conns */
    cb_http_server *server;
    cb_time accepted;         /* by cb_loop_now() */
    cb_server_counts *counts; /* of its version; NULL: nothing is counted, or it is not known yet */
    uint64_t number;          /* as in cb_http_conn */
    cb_grave grave;
} cb_server_conn;

struct cb_http_server {
    cb_loop *loop;
    const cb_alloc *alloc;
    const cb_log *log;
    cb_http_server_opts opts; /* texts: server_name is our copy, listen is not kept */
    cb_http_limits limits;
    cb_tickets *tickets;
    char *server_name;
    cb_tcp_listener *tcp, **further; /* further: n_further others that were taken over */
    int32_t *fds;                    /* while it opens: what it was given, the last n_udp of them UDP */
    uint32_t n_further, n_udp;
    cb_quic_endpoint *quic;
    cb_list conns;
    cb_list spare; /* cb_exchange.link: memory to be used again, by whichever connection comes first */
    size_t n_spare;
    size_t n_conns;
    cb_alarm date_alarm, drain_alarm;
    cb_defer drained;
    cb_task_fn on_drained;
    void *on_drained_user;
    cb_http_server_stats stats;
    cb_grave grave;
    bool draining, freed, paused, told, uncounted;
    cb_time linger_until;           /* while it yields */
    char address[CB_UNIX_PATH + 8]; /* also long enough for CB_ADDR_TEXT */
    cb_unix_place place;            /* of a unix socket that it made */
    char alt_svc[48];               /* "" = none */
    char alpn[24];
    char *tenant, *ticket_context; /* cb_http_server_opts.ticket_context; all that tickets on TCP are bound to */
    char date[SERVER_DATE_TEXT];
    char *label;                /* the listener in metrics */
    cb_server_counts counts[3]; /* by version */
};

/* --- server.c --- */
/* With drive.ch or drive.qc set: the connection is counted and ends with the server from here on. */
void cb_server_conn_add(cb_server_conn *c);
/* What framing is to know; the callers add the sink. */
void cb_server_env(cb_server_conn *c, cb_hconn_env *env, cb_tls_session *tls, const cb_addr *remote,
                   const cb_addr *local);
void cb_server_conn_ready(cb_server_conn *c, cb_hconn *h); /* framing exists */
/* Of cb_drive_ops. */
void cb_server_conn_ended(cb_drive *d, int rc);
void cb_server_conn_gone(cb_drive *d);

/* --- server_count.c --- */
void cb_server_count_opened(cb_server_conn *c, const cb_hconn *h);
void cb_server_count_closed(const cb_http_server *s, const cb_hconn *h, int rc);
void cb_server_count_start(cb_http_server *s); /* it counts from here on */
/* It does not: somebody else counts what it does. Before its first connection. */
void cb_server_uncount(cb_http_server *s);
const cb_cells *cb_server_cells(const cb_http_server *s); /* NULL: it counts nothing */
void cb_server_count_begun(const cb_server_conn *c, const cb_exchange *x);
void cb_server_count_done(const cb_server_conn *c, const cb_exchange *x);
void cb_server_count_misdirected(const cb_http_server *s, bool certificate);
void cb_server_count_limit(const cb_http_server *s, const char *what);
void cb_server_count_end(cb_http_server *s);

/* --- server_tcp.c --- */
int cb_server_tcp_open(cb_http_server *s, const cb_addr *bind);
void cb_server_tcp_pause(cb_http_server *s, bool pause);
void cb_server_tcp_close(cb_http_server *s);
/* Opening failed: what was taken over stays the caller's. */
void cb_server_tcp_give_back(cb_http_server *s);

/* --- server_unix.c --- */
int cb_server_unix_open(cb_http_server *s, const char *path);

/* --- server_h3.c --- */
int cb_server_h3_open(cb_http_server *s, const cb_addr *bind);
/* Tickets go by the SETTINGS of the limits as they are: a client may remember those (RFC 9114, 7.2.4.2). */
int cb_server_h3_bind(cb_http_server *s);

#endif
