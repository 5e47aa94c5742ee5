/* The inside of a cb_proxy: proxy.c (API), origin_group.c (groups on one loop), proxy_pass.c (one exchange), F3. */
#ifndef CB_HTTP_PROXY_INT_H
#define CB_HTTP_PROXY_INT_H

#include "base/list.h"
#include "http/pool.h"
#include "http/route.h"
#include "lb/policy.h"
#include "loop/loop_int.h"
#include <cb/opa.h>
#include <cb/proxy.h>

typedef struct cb_pass cb_pass;

typedef struct cb_proxy_pool {
    cb_list link; /* in cb_proxy.pools */
    cb_pool *pool;
    cb_pool_opts opts; /* what it was made with */
    uint32_t refs;     /* groups */
} cb_proxy_pool;

typedef struct cb_proxy_target {
    const cb_router_origin_def *def;
    cb_origin *origin; /* made when it is first needed */
    cb_origin *tunnel; /* the same for WebSocket: HTTP/1.1 where the group allows it */
} cb_proxy_target;

/* What a pass waits for; each has a list in the order of the last byte and one time limit. */
enum { CB_WAIT_HEAD, CB_WAIT_BODY, CB_WAIT_TUNNEL, CB_WAITS };

typedef struct cb_origin_group {
    const cb_router_group_def *def;
    struct cb_proxy_table *table;
    cb_lb lb;
    cb_proxy_target *targets;
    cb_proxy_pool *pool;
    cb_list waits[CB_WAITS];
    cb_time limits[CB_WAITS];
} cb_origin_group;

/* A router as one proxy uses it; lives until the last exchange on it is over. */
typedef struct cb_proxy_table {
    cb_list link; /* in cb_proxy.tables */
    cb_proxy *proxy;
    cb_router *router;
    cb_origin_group *groups;
    struct cb_table_cells *counts; /* NULL: nothing is counted */
    cb_opa **opas;                 /* by guard, made when they are first needed; NULL: none yet */
    uint32_t refs;
} cb_proxy_table;

/* What a gate is asked, and has said, about a pass; used again. */
typedef struct cb_pass_auth {
    cb_list link; /* in cb_proxy.spare_auth */
    cb_authn_call *call;
    cb_buf text; /* of the fields */
    cb_field more[CB_ROUTE_HEADERS];
    size_t n_more;
    const char *reason, *rule; /* of the policy; NULL: none */
    cb_opa_call *opa;          /* under way */
    bool waiting;              /* for a source: the body is held */
} cb_pass_auth;

/* One attempt at an origin, for a trace. */
typedef struct cb_attempt {
    uint8_t span_id[8];
    const cb_router_origin_def *def;
    cb_pool_times times;
    cb_time began, answered, ended; /* 0: not */
    const char *reason;             /* why it failed; NULL: it did not */
    int status, version;
    bool reused;
    char peer[CB_ADDR_TEXT];
} cb_attempt;

enum { CB_NOTES_ATTEMPTS = 4, CB_NOTES_FIELDS = 32 };

/* What is written down about a pass for traces, and of its response for the access log; used again. */
typedef struct cb_pass_notes {
    cb_list link;               /* in cb_proxy.spare_notes */
    bool traced, called, first; /* called: there is a parent; first: of its connection */
    cb_trace_context context, parent;
    cb_buf state;                           /* tracestate that goes on */
    cb_attempt attempts[CB_NOTES_ATTEMPTS]; /* the last place is used again */
    uint32_t n_attempts;
    char traceparent[CB_TRACEPARENT_BYTES + 1]; /* of the last attempt */
    cb_buf text;                                /* of fields */
    cb_field fields[CB_NOTES_FIELDS];
    size_t n_fields;
} cb_pass_notes;

/* One exchange of a client on its way through. */
struct cb_pass {
    cb_list link; /* in cb_proxy.passes or .spare */
    cb_list wait; /* in cb_origin_group.waits */
    cb_grave grave;
    cb_proxy *proxy;
    cb_proxy_table *table;
    cb_origin_group *group;
    cb_exchange *front, *back;
    const cb_route *route;
    const cb_route_guard *guard; /* of its route; NULL: everybody may */
    cb_pass_auth *auth;          /* NULL: nobody was asked */
    cb_pass_notes *notes;        /* NULL: nobody wants to know */
    const char *reason;
    cb_time started, last;
    cb_time routed, answered_at; /* the first attempt began; the head of the response that is passed on came. 0: not */
    cb_time picked_at;           /* the latest attempt began */
    cb_pool_times times;         /* of the last attempt */
    uint64_t bytes_in, bytes_out, tried;
    size_t peer;                  /* of group->lb, while picked */
    uint32_t retries, info_bytes; /* info_bytes: passed on in informational responses */
    int status, waits;            /* waits: which list */
    unsigned picked : 1, has_body : 1, front_end : 1, back_end : 1, answered : 1, upgrade : 1, tunnel : 1, to_h1 : 1,
        cut : 1;        /* its answer had begun when it failed */
    char ws_accept[29]; /* what an origin must answer to the key that we made */
    char client[46], remote[CB_ADDR_TEXT], origin[CB_ADDR_TEXT];
};

struct cb_proxy {
    cb_loop *loop;
    const cb_alloc *alloc;
    cb_resolver *resolver;
    cb_proxy_table *table;
    cb_list tables, pools, passes, spare, spare_auth, spare_notes;
    cb_http_client *agents; /* asks policy agents; made when it is first needed */
    cb_authn_worker *asks;  /* providers, for gates */
    cb_access_log *log;
    cb_tracer *tracer;
    cb_sampler *sampler;
    cb_relay forward; /* scratch for the message at hand */
    cb_alarm alarm;   /* the nearest time limit of a pass */
    cb_proxy_stats stats;
    char *via;
    char location[9216]; /* scratch of redirects */
    uint32_t https_port, refs;
    uint8_t trace_from; /* enum cb_trace_from */
    bool no_forwarded, no_x_forwarded, freed;
};

/* --- origin_group.c --- */
int cb_proxy_table_new(cb_proxy_table **out, cb_proxy *p, cb_router *router);
void cb_proxy_table_unref(cb_proxy_table *t);
/* The pool's origin for a choice of the group's balancer; the group keeps the reference. */
/* Origins of the same URL keep what checks said of them. */
void cb_proxy_table_inherit(cb_proxy_table *t, const cb_proxy_table *before);
/* Says and counts which origins were left out just now. */
void cb_origin_group_tell_out(cb_origin_group *g);
int cb_origin_group_open(cb_origin **out, cb_origin_group *g, size_t peer, const cb_pass *pass);
/* The HTTP versions that WebSocket may use: HTTP/1.1 if the group has it, else the others. */
uint32_t cb_origin_group_tunnel_versions(const cb_origin_group *g);

/* --- proxy.c --- */
void cb_proxy_ref(cb_proxy *p);
void cb_proxy_unref(cb_proxy *p);
void cb_proxy_arm(cb_proxy *p, cb_time at);

/* --- proxy_pass.c --- */
extern const cb_exchange_ops cb_proxy_new_ops;
cb_pass *cb_pass_new(cb_proxy *p, cb_exchange *front); /* NULL: no memory */
/* Answers with a status, or cuts the answer that has begun; the reason is for the log. < 0: of cb_exchange_send(). */
int cb_pass_refuse(cb_pass *pass, int status, const char *reason);
/* The same with fields of the answer. */
int cb_pass_refuse_with(cb_pass *pass, int status, const char *reason, const cb_field *more, size_t n);
int cb_pass_build_fields(cb_pass *pass); /* those of the request, and who the client is */
int cb_pass_start(cb_pass *pass);        /* to an origin */
void cb_pass_expire(cb_pass *pass);      /* its time limit has passed */
void cb_pass_cut(cb_pass *pass);         /* the proxy goes away */

/* --- proxy_auth.c --- */
/* Asks the gate of the pass's route; then it is refused, started, or waits. */
int cb_pass_authenticate(cb_pass *pass);
/* Fields that carried credentials leave the message that goes on, unless they are to stay. */
void cb_pass_drop_credentials(const cb_pass *pass, cb_relay *f);
void cb_pass_auth_release(cb_pass *pass); /* at the end of a pass */
void cb_proxy_table_opas_free(cb_proxy_table *t);
void cb_pass_auth_destroy(cb_pass_auth *a); /* of the spare ones */

/* --- proxy_notes.c: what is told of a pass --- */
void cb_pass_notes_begin(cb_pass *pass); /* its head is there; makes notes where they are wanted */
void cb_pass_notes_response(cb_pass *pass, const cb_relay *f); /* these fields go to the client */
void cb_pass_notes_end(cb_pass *pass);        /* it is over: the access log and the trace are written */
void cb_pass_notes_destroy(cb_pass_notes *n); /* of the spare ones */

/* How long each phase took (enum cb_access_phase), in nanoseconds; which happened, as bits. At the end of a pass. */
uint32_t cb_pass_phases(const cb_pass *pass, uint64_t ns[CB_ACCESS_PHASES]);

/* --- proxy_count.c --- */
int cb_proxy_count_begin(cb_proxy_table *table);
void cb_proxy_count_end(cb_proxy_table *table);
void cb_pass_count_routed(cb_pass *pass);
void cb_pass_count_attempt(cb_pass *pass, int by); /* pass->peer has one request more, or one less */
void cb_pass_count_tunnel(cb_pass *pass, int by);
void cb_pass_count_retry(cb_pass *pass);
void cb_pass_count_answered(cb_pass *pass, int status);
void cb_pass_count_blame(cb_pass *pass, const char *reason);
void cb_origin_count_out(const cb_origin_group *g, size_t peer); /* it is left out */
void cb_origin_count_up(const cb_origin_group *g, size_t peer);  /* is it in use? */
void cb_pass_count_end(cb_pass *pass);

/* --- proxy_trace.c --- */
/* Whose trace it is, and our part in it. */
void cb_pass_trace_begin(cb_pass *pass);
/* An attempt begins: its context goes to the origin. */
void cb_pass_trace_attempt(cb_pass *pass);
/* The attempt's response is there; the attempt is over, because of reason (NULL: well). back may be NULL. */
void cb_pass_trace_answered(cb_pass *pass, cb_exchange *back);
void cb_pass_trace_attempt_over(cb_pass *pass, cb_exchange *back, const char *reason);
void cb_pass_trace_end(cb_pass *pass);
/* What a request's fields are to say of traces. */
void cb_pass_trace_env(const cb_pass *pass, cb_relay_env *env);

/* --- proxy_redirect.c --- */
extern const cb_exchange_ops cb_proxy_new_redirect_ops;

#endif
