/* The inside of an HTTP server: what its TCP and its QUIC half share. */
#ifndef CB_HTTP_SERVER_INT_H
#define CB_HTTP_SERVER_INT_H

#include "http/hconn.h"
#include "loop/loop_int.h"
#include "loop/tcp.h"
#include "transport/tls_session.h"
#include <cb/http.h>

enum { SERVER_DATE_TEXT = 30 }; /* "Sat, 21 Nov 2026 05:44:18 GMT" */

typedef struct cb_server_conn cb_server_conn;

/* How the two halves close a connection. */
typedef struct cb_server_conn_kind {
    void (*end)(cb_server_conn *c, int rc); /* what is queued may still leave; exchanges get rc unless they are over */
    void (*more)(cb_server_conn *c);        /* after a flush: take up input that waited; may be NULL */
} cb_server_conn_kind;

/* One HTTP connection; first member of the halves' own structs. */
struct cb_server_conn {
    cb_list link; /* in cb_http_server.conns */
    cb_http_server *server;
    const cb_server_conn_kind *kind;
    cb_hconn *h;    /* NULL: not yet, or over */
    cb_defer defer; /* flush at the end of the turn */
    cb_alarm alarm; /* of the framing's deadline; may be early: moving it back is left to its firing */
    cb_grave grave;
    unsigned busy; /* framing is on the stack */
    int dead_rc;   /* with dead: what its exchanges end with */
    bool dead;     /* to be ended when framing has returned */
};

struct cb_http_server {
    cb_loop *loop;
    const cb_alloc *alloc;
    const cb_log *log;
    cb_http_server_opts opts; /* texts: server_name is our copy, listen is not kept */
    cb_http_limits limits;
    cb_tickets *tickets;
    char *server_name;
    cb_tcp_listener *tcp;
    cb_quic_endpoint *quic;
    cb_list conns;
    size_t n_conns;
    cb_alarm date_alarm, drain_alarm;
    cb_defer drained;
    cb_task_fn on_drained;
    void *on_drained_user;
    cb_http_server_stats stats;
    cb_grave grave;
    bool draining, freed, paused, told;
    char address[CB_ADDR_TEXT];
    char alt_svc[48]; /* "" = none */
    char alpn[24], ticket_context[48];
    char date[SERVER_DATE_TEXT];
};

/* --- server.c --- */
void cb_server_conn_init(cb_server_conn *c, cb_http_server *s, const cb_server_conn_kind *kind);
/* What framing is to know; the halves add sink, sni and addresses. */
void cb_server_env(cb_http_server *s, cb_hconn_env *env, const char *sni, const cb_addr *remote, const cb_addr *local);
void cb_server_conn_ready(cb_server_conn *c, cb_hconn *h); /* framing exists: counts it */
void cb_server_conn_flush(cb_server_conn *c);
void cb_server_conn_enter(cb_server_conn *c);
bool cb_server_conn_leave(cb_server_conn *c);                       /* false: it has ended, touch nothing */
void cb_server_conn_drop_h(cb_server_conn *c, int rc, bool closed); /* ends framing; closed: vt->closed was done */
void cb_server_conn_gone(cb_server_conn *c);                        /* off the list, memory later */

/* --- server_tcp.c --- */
int cb_server_tcp_open(cb_http_server *s, const cb_addr *bind);

/* --- server_h3.c --- */
int cb_server_h3_open(cb_http_server *s, const cb_addr *bind);

#endif
