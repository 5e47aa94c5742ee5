/* cb/monitor.h - checks of endpoints on a loop: TCP, HTTP, gRPC, ICMP and programs, and what they come to.
 *
 *   static void changed(const cb_health_change *c, void *user) {
 *       printf("%s is %s: %s\n", c->name, cb_health_state_name(c->to), c->reason);
 *   }
 *   cb_monitor_new(&m, loop, CB_OPTS(cb_monitor_opts, .on_change = changed));
 *   cb_monitor_add(m, CB_OPTS(cb_check, .id = 1, .kind = CB_CHECK_HTTP, .address = "10.0.0.1:80", .path = "/ready"));
 *
 * Each endpoint has a cb_health (cb/health.h) that says when it is checked and what results mean; here are the drivers
 * that do it, with a deadline each, and a reason that a person understands for whatever happens. A change goes to
 * on_change, to the log, and into the metrics of the loop. From there it is one call to a pool
 * (cb_lb_pool_share()), a proxy (cb_proxy_allow()) or a table (cb_lb_member_health()). */
#ifndef CB_MONITOR_H
#define CB_MONITOR_H

#include <cb/health.h>
#include <cb/loop.h>
#include <cb/tls.h>

CB_BEGIN

typedef struct cb_monitor cb_monitor;

enum cb_check_kind {
    CB_CHECK_TCP = 1,  /* connects; sends and expects bytes where it is told to */
    CB_CHECK_HTTP = 2, /* one request on a connection of its own */
    CB_CHECK_GRPC = 3, /* grpc.health.v1.Health/Check over HTTP/2; only SERVING is well */
    CB_CHECK_ICMP = 4, /* an echo request, of version 4 or 6 */
    CB_CHECK_EXEC = 5  /* a program: exit status 0 is well */
};

enum cb_check_limits {
    CB_CHECK_BYTES_MAX = 4096,  /* of send and expect, and of what is read until expect must be there */
    CB_CHECK_BODY_MAX = 65536,  /* of a body that is searched for a text */
    CB_CHECK_OUTPUT_MAX = 4096, /* of a program that is read; the rest is thrown away */
    CB_CHECK_ARGS_MAX = 64,
    CB_MONITOR_MAX = 16384 /* endpoints */
};

/* An endpoint and how it is checked. */
typedef struct cb_check {
    size_t size;
    uint32_t id;                  /* the caller's number of it, not 0: in changes and calls. Required */
    int32_t kind;                 /* enum cb_check_kind. Required */
    const char *address;          /* "host:port", "[::1]:443"; ICMP: "host"; TCP and HTTP also "unix:/path". Required
                                   * but for EXEC, where it only goes into the environment */
    const char *name, *group;     /* for changes, the log and metrics; NULL = the address, and "" */
    const cb_health_opts *health; /* copied; alloc is not looked at, seed 0 = by chance. NULL = the defaults */
    /* TLS: HTTP and gRPC */
    cb_identity *identity;   /* referenced: trust roots and own certificate; NULL = the system's roots */
    const char *server_name; /* SNI and name to verify; NULL = the address's host */
    uint8_t tls;             /* 1: https */
    uint8_t verify;          /* enum cb_verify; 0 = everything */
    uint8_t tls13_only;
    uint8_t reserved;
    uint32_t versions; /* HTTP: enum cb_http_version; 0 = HTTP/1.1 and, with tls, HTTP/2. CB_HTTP_2 without tls is prior
                        * knowledge, CB_HTTP_3 needs tls. Several: those that TLS chooses from */
    const char *method;   /* NULL = GET */
    const char *path;     /* with its query; NULL = "/" */
    const char *host;     /* Host, :authority; NULL = the address */
    const char *statuses; /* that are well: "200-299,401"; NULL = "200-299" */
    const char *body;     /* a text that the body must have in its first CB_CHECK_BODY_MAX bytes; NULL = whatever */
    /* gRPC */
    const char *service; /* NULL = "": the server as a whole */
    /* TCP */
    cb_slice send;   /* after connecting */
    cb_slice expect; /* must be in what comes, within its first CB_CHECK_BYTES_MAX bytes */
    /* EXEC: the program and its arguments, up to a NULL; found by PATH; no shell. Its environment is PATH and
     * CB_CHECK_NAME, CB_CHECK_GROUP, CB_CHECK_ADDRESS, CB_CHECK_TIMEOUT_MS; its directory "/"; its first line of output
     * is the reason. It gets a process group of its own, which is killed when the time is over, or the program is */
    const char *const *argv;
} cb_check;

typedef struct cb_monitor_opts {
    size_t size;
    void (*on_change)(const cb_health_change *change, void *user); /* may call whatever is here but cb_monitor_free() */
    void *user;
    const char *resolver; /* "address:port,..." of DNS servers; NULL = the system's */
} cb_monitor_opts;

/* Without endpoints. CB_EINVAL (out, loop, resolver), CB_ENOMEM, CB_ESYS, CB_E2BIG. */
CB_API int cb_monitor_new(cb_monitor **out, cb_loop *loop, const cb_monitor_opts *opts);
/* Ends all checks, without a call. NULL is fine. */
CB_API void cb_monitor_free(cb_monitor *m);
/* From now on it is checked; everything is copied. CB_EINVAL (the detail names the field), CB_EEXIST (the ID),
 * CB_ELIMIT, CB_ENOTSUP (a loop of a simulation), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_monitor_add(cb_monitor *m, const cb_check *check);
/* May it be added, but for its ID? Errors as above. Any thread. */
CB_API int cb_check_check(const cb_check *check);
/* Another identity for its TLS, from the next check on; referenced. CB_ENOENT, CB_EINVAL (identity). */
CB_API int cb_monitor_trust(cb_monitor *m, uint32_t id, cb_identity *identity);
/* CB_ENOENT. */
CB_API int cb_monitor_remove(cb_monitor *m, uint32_t id);
/* As cb_health_override() and cb_health_suspect(); a change comes later, from the loop. CB_ENOENT, CB_EINVAL. */
CB_API int cb_monitor_override(cb_monitor *m, uint32_t id, int kind, const char *why);
CB_API int cb_monitor_suspect(cb_monitor *m, uint32_t id);
/* How it is. Texts live until the next turn of the loop. CB_ENOENT, CB_EINVAL (out, size). */
CB_API int cb_monitor_status(const cb_monitor *m, uint32_t id, cb_health_status *out);

/* "tcp" and so on; NULL: there is none of this number. Static storage. */
CB_API const char *cb_check_kind_name(int kind);

CB_END
#endif
