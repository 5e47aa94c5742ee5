/* cb/proxy.h - a reverse proxy: routes by host and path to groups of origins.
 *
 * A cb_router says what goes where. It is built once, then shared by all workers and never changed; to reload, build
 * another and give it to each worker's cb_proxy: requests that run finish on the old one. A cb_proxy belongs to one
 * loop and owns the connections to origins. It answers the exchanges of a cb_http_server:
 *
 *   cb_router_new(&router);
 *   cb_router_group(router, CB_OPTS(cb_origin_group_opts, .name = "web"));
 *   cb_router_origin(router, "web", CB_OPTS(cb_origin_opts, .url = "http://127.0.0.1:8080"));
 *   cb_router_route(router, CB_OPTS(cb_route_opts, .group = "web"));
 *   cb_proxy_new(&proxy, loop, CB_OPTS(cb_proxy_opts, .router = router));
 *   cb_http_server_new(&srv, loop, CB_OPTS(cb_http_server_opts, .listen = ":8443", .identity = me,
 *                      .ops = cb_proxy_exchange_ops(), .user = proxy));
 *
 * Bodies stream both ways with backpressure; trailers, 1xx and Expect pass; WebSocket passes from HTTP/1.1, /2 and /3
 * to origins that speak HTTP/1.1 or /2. Hop-by-hop fields end here (RFC 9110, 7.6.1); Via, Forwarded (RFC 7239) and
 * X-Forwarded-For/-Proto/-Host are added. A response that an origin cut short is never ended as if it were whole.
 *
 * With a tracer each exchange is a span below its caller's context, with spans for its parts (accepting the connection
 * and its handshake, the gate, each attempt at an origin and the connection made for it), written when it is over;
 * origins get the context of the attempt. Names are those of OpenTelemetry's semantic conventions for HTTP. */
#ifndef CB_PROXY_H
#define CB_PROXY_H

#include <cb/access_log.h>
#include <cb/authn.h>
#include <cb/lb.h>
#include <cb/policy.h>
#include <cb/trace.h>

CB_BEGIN

typedef struct cb_router cb_router;
typedef struct cb_proxy cb_proxy;

/* ---- the router: built by one thread, then immutable; reference counted (thread-safe); allocates by malloc() ---- */
/* Gives an empty router with one reference. CB_EINVAL (out), CB_ENOMEM. */
CB_API int cb_router_new(cb_router **out);
/* One more reference; returns r. */
CB_API cb_router *cb_router_ref(cb_router *r);
CB_API void cb_router_unref(cb_router *r); /* NULL is fine */

typedef struct cb_origin_group_opts {
    size_t size;
    const char *name;        /* required; for routes and logs */
    cb_identity *identity;   /* https: trust roots and own certificate, referenced; NULL = system roots */
    const char *server_name; /* https: SNI and name to verify; NULL = the URL's host */
    const char *host;        /* Host field that the origins get; NULL = the client's */
    int32_t policy;          /* enum cb_lb_policy (cb/lb.h). What stays together by hash is a client's address */
    uint32_t versions;       /* enum cb_http_version, or-ed; 0 = HTTP/1.1 and, with https, HTTP/2. HTTP/2 alone on http
                              * is prior knowledge */
    uint32_t connect_timeout_ms;  /* name, TCP and TLS; 0 = 5,000. 504 */
    uint32_t response_timeout_ms; /* from the request to the response's head; 0 = 60,000. 504 */
    uint32_t idle_timeout_ms;     /* without a byte in either direction; 0 = 60,000 */
    uint32_t tunnel_timeout_ms;   /* the same for WebSocket; 0 = 3,600,000 */
    uint32_t keep_alive_ms;       /* of unused connections; 0 = 55,000 */
    uint32_t max_conns;           /* to one origin, for each worker; 0 = 256. Requests above wait, then 503 */
    uint32_t max_idle;            /* 0 = 64 */
    uint32_t max_queue;           /* requests that wait for a connection to one origin; 0 = 1,024. Above: 503 */
    uint32_t max_fails;           /* failures within fail_window_ms that take an origin out; 0 = 3 */
    uint32_t fail_window_ms;      /* 0 = 10,000 */
    uint32_t fail_out_ms;         /* how long; 0 = 10,000. When all are out, all are tried */
    uint32_t retries;             /* on another origin, of a request that no origin has got; 0 = 1 */
    uint8_t no_retry;             /* 1 = never */
    uint8_t verify;               /* enum cb_verify */
    uint8_t tls13_only;           /* 1 = no TLS 1.2 to origins (many servers still have nothing newer) */
    uint8_t send_proxy;           /* PROXY header to origins: version 1 or 2 */
    uint32_t reserved;
    uint8_t client_cert; /* 1 = Client-Cert says what certificate the client showed (RFC 9440), 2 = Client-Cert-Chain,
                          * too. From the outside these fields, and X-Forwarded-Client-Cert, pass only from peers that
                          * cb_router_trust() names */
    uint8_t reserved2[7];
    const char *tenant; /* whose it is: for administration and metrics (1 to 256 bytes); NULL = nobody's */
    const char *owner;  /* the service owner, likewise */
    const cb_outlier_opts
        *outliers;       /* who is left out for what requests come to, instead of max_fails, fail_window_ms
                          * and fail_out_ms; alloc is not looked at. Each worker judges by what it has seen */
    uint8_t down_is_out; /* 1: origins that are down by cb_proxy_allow() are not even tried when all are: 503 */
    uint8_t reserved3[7];
} cb_origin_group_opts;

/* Adds a group of origins. On failure nothing changes. CB_EINVAL (the detail names what), CB_EEXIST (the name),
 * CB_ENOMEM, CB_E2BIG. */
CB_API int cb_router_group(cb_router *r, const cb_origin_group_opts *opts);

typedef struct cb_origin_opts {
    size_t size;
    const char *url;   /* "http://host[:port]" or "https://host[:port]"; names are resolved again by their TTL */
    uint32_t weight;   /* 1 to 1,000; 0 = 1 */
    uint32_t priority; /* 0 is first: others get requests only when less than half of the better ones is in */
} cb_origin_opts;

/* Adds an origin to a group. CB_EINVAL (url, weight), CB_ENOENT (no such group), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_router_origin(cb_router *r, const char *group, const cb_origin_opts *opts);

/* A field that tells the origin who was let in. */
typedef struct cb_route_header {
    const char *name; /* in lower case; not one that this proxy or HTTP itself uses */
    const char *from; /* subject, tenant, roles, source, kind or spiffe_id; or, beginning with "/", a claim (RFC 6901).
                       * Lists, and the members' names of objects, become "a, b"; absent ones no field at all */
} cb_route_header;

enum { CB_ROUTE_HEADERS = 32 };

/* An Open Policy Agent that is asked about each request (cb/opa.h), after the policy and without claims. */
typedef struct cb_route_opa {
    size_t size;
    const char *url;     /* required */
    const char *token;   /* NULL = none */
    uint32_t timeout_ms; /* 0 = 250 */
    uint32_t cache_ms;   /* a decision is good for the same request so long; 0 = not at all */
    int32_t fail_open;   /* 1: an outage allows */
    uint32_t reserved;
} cb_route_opa;

/* What a route asks of whoever comes. Requests of early data get 425 there: they could be replays. What is not let in
 * gets 400, 401, 403 or 503 with the challenges of cb/authn.h, and nothing of it reaches an origin. */
typedef struct cb_route_auth {
    size_t size;
    cb_authn *authn;                /* referenced; required */
    const cb_route_header *headers; /* from outside fields of these names never pass, on no route of the router, in no
                                     * spelling ("_" for "-"), nor as trailers. An identity whose claim cannot stand in
                                     * its field (a control character; a comma within an item of a list) gets 403 */
    size_t n_headers;               /* at most CB_ROUTE_HEADERS */
    cb_policy *policy;        /* referenced: what of those who are let in may, by all that cb_policy_request has but
                               * tunnel and verb; the route's name is that of its group, the source the client as far
                               * as trusted peers tell. Others get 403. NULL = everything */
    const cb_route_opa *opa;  /* copied; NULL = none is asked */
    uint8_t keep_credentials; /* 1: Authorization and whatever else carried them go on to the origin */
    uint8_t pass_preflight;   /* 1: CORS preflights pass without credentials, and without identity */
    uint8_t reserved[6];
} cb_route_auth;

typedef struct cb_route_opts {
    size_t size;
    const char *host;  /* "www.example.org", "*.example.org" (any labels before), NULL or "*" = every other host. An
                        * exact host wins over the longest wildcard, that over "*" */
    const char *path;  /* prefix of whole segments: "/api" covers "/api" and "/api/x"; NULL = "/". The longest of the
                        * host wins */
    const char *group; /* required */
    const cb_route_auth *auth; /* who may; NULL = everybody */
    const char *tenant; /* whose traffic this is, in metrics, spans and the access log, where the identity that was let
                         * in does not tell (1 to 256 bytes); NULL = the group's */
} cb_route_opts;

/* Sends a host and path to a group. CB_EINVAL (host, path, tenant, no group named, auth: the detail says what),
 * CB_ENOENT (no such group), CB_EEXIST (the same host and path), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_router_route(cb_router *r, const cb_route_opts *opts);

/* Peers whose Forwarded and X-Forwarded-* fields are believed and extended: "10.0.0.0/8". From all others they are
 * removed. CB_EINVAL (not a prefix), CB_ENOMEM. */
CB_API int cb_router_trust(cb_router *r, const char *prefix);

/* ---- the proxy: one for each loop ---- */
typedef struct cb_proxy_opts {
    size_t size;
    cb_router *router;      /* referenced; required */
    cb_access_log *log;     /* borrowed; of the same loop; NULL = none */
    const char *resolver;   /* "address:port,..." of DNS servers; NULL = the system's */
    const char *via;        /* pseudonym in Via; NULL = "libcb" */
    uint32_t https_port;    /* for cb_proxy_redirect_ops(); 0 = 443 */
    uint8_t no_forwarded;   /* 1 = add no Forwarded field */
    uint8_t no_x_forwarded; /* 1 = add no X-Forwarded-* fields */
    uint8_t trace_from;     /* enum cb_trace_from */
    uint8_t reserved;
    cb_tracer *tracer;   /* borrowed; gets the spans. NULL = none: trace context passes on as it comes */
    cb_sampler *sampler; /* borrowed; NULL = what a caller has decided, and every trace that begins here */
} cb_proxy_opts;

/* Whose trace context (traceparent, tracestate; W3C Trace Context) is gone on with. That of others is removed, and a
 * new trace begins. A caller's decision to record counts, unless the sampler says otherwise (not_parent). */
enum cb_trace_from {
    CB_TRACE_FROM_ALL = 0,     /* everybody's */
    CB_TRACE_FROM_TRUSTED = 1, /* that of peers which cb_router_trust() names */
    CB_TRACE_FROM_NOBODY = 2
};

/* CB_EINVAL (out, loop; the detail names the field), CB_ENOMEM, CB_ESYS, CB_E2BIG. */
CB_API int cb_proxy_new(cb_proxy **out, cb_loop *loop, const cb_proxy_opts *opts);
/* For cb_http_server_opts: ops, with the cb_proxy as user. Static storage. */
CB_API const cb_exchange_ops *cb_proxy_exchange_ops(void);
/* The same for a clear-text listener that only sends clients to https: 301 for GET and HEAD, else 308. */
CB_API const cb_exchange_ops *cb_proxy_redirect_ops(void);
/* New requests go by this router. Connections to origins that stay are kept. On failure nothing changes. CB_ENOMEM,
 * CB_EINVAL. */
CB_API int cb_proxy_swap(cb_proxy *p, cb_router *router);
/* Where log lines go from now on; borrowed; NULL = nowhere. */
CB_API void cb_proxy_set_log(cb_proxy *p, cb_access_log *log);

/* Where spans go from now on, which are kept, whose context counts; as in cb_proxy_opts. CB_EINVAL (trace_from). */
CB_API int cb_proxy_set_tracing(cb_proxy *p, cb_tracer *tracer, cb_sampler *sampler, int trace_from);

typedef struct cb_proxy_stats {
    size_t size; /* set by the caller */
    uint64_t requests, active, tunnels, retries;
    uint64_t failed;      /* answered with 502, 503 or 504, or cut */
    uint64_t origins_out; /* times that an origin was taken out */
    uint64_t refused;     /* answered with 400, 401, 403 or 503 by a gate */
} cb_proxy_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_proxy_stats_get(const cb_proxy *p, cb_proxy_stats *out);

/* An origin of a group, as this proxy has it. Texts live during the call that tells it. */
typedef struct cb_proxy_origin {
    size_t size;
    const char *group, *url;
    uint32_t number, weight;                   /* number: in its group, from 0 */
    uint32_t active;                           /* exchanges that run there */
    uint32_t conns, idle, connecting, waiting; /* connections: open, unused of these, being opened; exchanges that wait
                                                * for one */
    uint64_t requests, opened, failed; /* sent there; connections opened, and that could not be. Of connections with a
                                        * PROXY header only those of the latest client */
    uint32_t failures;                 /* within fail_window_ms */
    uint32_t out_ms;                   /* failures have taken it out for so much longer; 0 = in */
    uint32_t held;                     /* 1: cb_proxy_hold() */
    uint32_t share;                    /* cb_proxy_allow(): percent; 0: down */
    uint64_t spared;                   /* times that it should have been left out, and the share of others forbade */
    int32_t rule;                      /* enum cb_outlier_rule: the last one that left it out */
    uint32_t reserved;
} cb_proxy_origin;

/* Calls fn for each, group by group; fn must not change the proxy. CB_EINVAL (p, fn). */
CB_API int cb_proxy_origins(const cb_proxy *p, void (*fn)(const cb_proxy_origin *origin, void *user), void *user);
/* held 1: an origin gets nothing new, whatever the others are like (when all of a group are held: 503, no_origin); what
 * runs there ends as it would. 0: it is in again, also when failures had taken it out. Until cb_proxy_swap(). CB_ENOENT
 * (no such group or origin), CB_EINVAL (p, group). */
CB_API int cb_proxy_hold(cb_proxy *p, const char *group, uint32_t number, int held);

/* What checks say of an origin: how much of its weight it may have, in percent. 0: it is down, and is tried only when
 * all others are as well. What runs there goes on. Origins of the same URL in a group of the same name keep it over
 * cb_proxy_swap(). CB_ENOENT (no such group or origin), CB_EINVAL (p, group, percent). */
CB_API int cb_proxy_allow(cb_proxy *p, const char *group, uint32_t number, uint32_t percent);

/* Free the servers first. Exchanges that run are reset. NULL is fine. */
CB_API void cb_proxy_free(cb_proxy *p);

CB_END
#endif
