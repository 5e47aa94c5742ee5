/* cb/admin.h - the administration interface of a daemon: who may ask and change what, over HTTP with JSON.
 *
 * A cb_admin has doors (a unix socket, TCP with TLS and a gate, a loopback listener for scrapers), a table of roles,
 * and resources. It brings /livez, /readyz, /healthz, /metrics, /v1/openapi.json, /v1/whoami, /v1/events and, where it
 * was given what they are about, /v1/log, /v1/log/reopen and /v1/audit. A program adds its own:
 *
 *   static int get_tea(cb_admin_call *call, void *user) {
 *       cb_json_out *o = cb_admin_json(call);
 *       cb_json_put_object(o, NULL);
 *       cb_json_put_str(o, "kind", cb_admin_param(call, "kind"));
 *       cb_json_put_end(o);
 *       return cb_admin_send(call, 200);
 *   }
 *   cb_admin_add(admin, CB_OPTS(cb_admin_resource, .method = "GET", .path = "/v1/tea/{kind}", .id = "getTea",
 *                               .summary = "One kind of tea", .rights = CB_RIGHT_READ, .handle = get_tea), NULL);
 *
 * What it takes care of, for all resources: who asks (uid, gid and groups of the process at the other end of a unix
 * socket; certificate or token elsewhere) and whether they may; audit of each change and each denial before the answer;
 * methods, content types, unknown query parameters, bodies (size, time, well-formed, by schema); errors as problem+json
 * (RFC 9457); conditional requests (RFC 9110, 13); Idempotency-Key; pages; dry runs; an OpenAPI 3.1 description; events
 * (server-sent, with resumption). docs/guide/admin.md is the guide, docs/design/admin.md says why it is so.
 *
 * Threads. Everything belongs to the loop, but cb_admin_roles, which are immutable once a cb_admin has them. */
#ifndef CB_ADMIN_H
#define CB_ADMIN_H

#include <cb/audit.h>
#include <cb/authn.h>
#include <cb/config.h>
#include <cb/http.h>
#include <cb/json.h>
#include <cb/log_writer.h>
#include <cb/metrics.h>

CB_BEGIN

typedef struct cb_admin cb_admin;
typedef struct cb_admin_call cb_admin_call;   /* one request to a resource, until it is answered */
typedef struct cb_admin_roles cb_admin_roles; /* who has which role */

/* ---- rights and roles ---- */

/* What somebody may do, as bits. */
enum cb_admin_right {
    CB_RIGHT_READ = 1,           /* status, configuration, revisions, events */
    CB_RIGHT_READ_TENANT = 2,    /* of these, what belongs to their tenants: the resource leaves out all else */
    CB_RIGHT_METRICS = 4,        /* the scrape */
    CB_RIGHT_OPERATE = 8,        /* drain, reload, log levels, origins out and in */
    CB_RIGHT_CHANGE = 16,        /* any change of configuration */
    CB_RIGHT_CHANGE_OWNED = 32,  /* changes of what they own: the resource looks at the rest */
    CB_RIGHT_CHANGE_TENANT = 64, /* changes of what belongs to their tenants: as above */
    CB_RIGHT_AUDIT = 128         /* the audit log */
};

/* Roles, as bits: somebody may have several, and has the rights of all. */
enum cb_admin_role {
    CB_ROLE_VIEWER = 1,        /* "viewer": READ, METRICS */
    CB_ROLE_OPERATOR = 2,      /* "operator": a viewer's, OPERATE */
    CB_ROLE_SERVICE_OWNER = 4, /* "service-owner": a viewer's, CHANGE_OWNED */
    CB_ROLE_TENANT_ADMIN = 8,  /* "tenant-admin": READ_TENANT, CHANGE_TENANT, and no others */
    CB_ROLE_ADMIN = 16,        /* "admin": all */
    CB_ROLE_AUDITOR = 32       /* "auditor": a viewer's, AUDIT */
};

/* The rights (enum cb_admin_right, or-ed) of roles (or-ed). */
CB_API uint32_t cb_admin_rights_of(uint32_t roles);
/* The role of that name, or 0. */
CB_API int cb_admin_role_named(const char *name);
/* The name of one role, NULL for what is none. Static. */
CB_API const char *cb_admin_role_name(int role);

/* One row of the table: somebody, and a role. */
typedef struct cb_admin_grant {
    size_t size;
    /* On unix sockets: "uid:1000", "gid:27" (also a supplementary group), "user:alice", "group:adm" (looked up when the
     * row is added). Through a gate: "subject:NAME" (of the identity), "spiffe://td/path" (of the client certificate;
     * with a slash at its end all below), "role:NAME" (a role that the source gives). Required. */
    const char *who;
    const char *role;         /* a name of enum cb_admin_role; required */
    const char *source;       /* gates: the source (cb_authn_source_name()) that must vouch for them; NULL = any */
    const char *const *owned; /* service-owner: the owners whose things they may change; at least one */
    size_t n_owned;
    const char *tenant; /* tenant-admin: theirs; required on unix sockets; through a gate NULL = that of the identity,
                         * and who has none does not get the role */
} cb_admin_grant;

/* An empty table: nobody may anything. CB_EINVAL (out), CB_ENOMEM. */
CB_API int cb_admin_roles_new(cb_admin_roles **out);
/* Adds a row; before the table is given to a cb_admin. Blocks where a name is looked up (NSS). CB_EINVAL (the detail
 * names the field; the table is in use), CB_ENOENT (no such user or group), CB_ELIMIT (4,096 rows), CB_ENOMEM. */
CB_API int cb_admin_roles_add(cb_admin_roles *r, const cb_admin_grant *grant);
CB_API cb_admin_roles *cb_admin_roles_ref(cb_admin_roles *r); /* thread-safe, as is unref */
CB_API void cb_admin_roles_unref(cb_admin_roles *r);          /* NULL is fine */

/* Who sends a request. */
typedef struct cb_admin_principal {
    const char *name;         /* for logs and audit: "uid:1000", "staff:alice" (source and subject) */
    const char *tenant;       /* of the identity; NULL = none */
    const char *door;         /* the address of the door */
    const char *const *owned; /* by CB_ROLE_SERVICE_OWNER */
    size_t n_owned;
    const char *const *tenants; /* by CB_ROLE_TENANT_ADMIN */
    size_t n_tenants;
    uint32_t roles;  /* enum cb_admin_role, or-ed */
    uint32_t rights; /* enum cb_admin_right, or-ed */
} cb_admin_principal;

/* Is owner among `owned`, and tenant among `tenants`? 1 or 0; NULL and "" never are. */
CB_API int cb_admin_owns(const cb_admin_principal *who, const char *owner);
CB_API int cb_admin_of_tenant(const cb_admin_principal *who, const char *tenant);

/* ---- life ---- */

typedef struct cb_admin_opts {
    size_t size;
    const char *name;            /* of the daemon: title of the description; copied; NULL = "libcb" */
    const char *version;         /* copied; NULL = cb_version_text() */
    cb_admin_roles *roles;       /* referenced; NULL = nobody may anything but ask for health */
    cb_metrics *metrics;         /* referenced: /metrics; NULL = none */
    cb_audit *audit;             /* borrowed: changes and denials, /v1/audit; NULL = nothing is recorded */
    cb_log_writer *log_writer;   /* borrowed: /v1/log; NULL = none */
    uint32_t max_conns;          /* of a door; further ones get 503; 0 = 64 */
    uint32_t max_body_bytes;     /* of a request; 0 = 1 MiB; at most 64 MiB */
    uint32_t request_timeout_ms; /* for a request to arrive; 0 = 10,000 */
    uint32_t send_timeout_ms;    /* without a byte that the client takes; 0 = 10,000 */
    uint32_t max_waiting;        /* requests whose resource has not answered; further ones get 429; 0 = 128 */
    uint32_t keep_events;        /* that a client can ask for again; 0 = 1,024 */
    uint32_t keep_event_bytes;   /* the same in bytes; 0 = 1 MiB */
    uint32_t keep_answers;       /* of requests with Idempotency-Key, for an hour; 0 = 1,024, a quarter of these for one
                                  * principal */
    uint32_t denials_per_s;      /* that are recorded in audit; what comes above is counted, and the count recorded when
                                  * there is room again; 0 = 20, and 100 at once */
    uint32_t needs_audit;        /* 1: while there is no audit log (cb_admin_set_audit()), changes get 507 */
} cb_admin_opts;

/* CB_EINVAL (out, loop; the detail names the field), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_admin_new(cb_admin **out, cb_loop *loop, const cb_admin_opts *opts);
/* Other roles, from the next request on; when they are not the same, event streams end, and their clients come again.
 * NULL = nobody. */
CB_API void cb_admin_set_roles(cb_admin *a, cb_admin_roles *roles);
/* Another audit log, or none (NULL), from the next record on; what was asked of the one before must be done: free it
 * after this. With `needs_audit` only, else CB_EINVAL. */
CB_API int cb_admin_set_audit(cb_admin *a, cb_audit *audit);
/* Takes no new connections; done is called once, from the loop, when the last one is gone, or after deadline_ms; it may
 * free the admin. Event streams end at once. yields: a successor has the sockets (cb_http_server_yield()). NULL done is
 * fine. Calling it again shortens the deadline and replaces done. CB_EINVAL, CB_ENOMEM. */
CB_API int cb_admin_drain(cb_admin *a, uint64_t deadline_ms, int yields, cb_task_fn done, void *user);
/* Ends everything; calls that were not answered are told by cb_admin_call_on_end(). Not inside callbacks of this admin,
 * but for `done` above. NULL is fine. */
CB_API void cb_admin_free(cb_admin *a);

/* ---- doors ---- */

typedef struct cb_admin_door_opts {
    size_t size;
    const char *address; /* "unix:/run/cb/admin.sock", "127.0.0.1:9443", "[::1]:9443"; required */
    uint32_t mode;       /* unix: permissions; 0 = 0600 */
    uint8_t replace;     /* unix: take over the path of a live process (cb_http_server_opts.unix_replace) */
    uint8_t public_only; /* 1: loopback addresses, in clear text, for everybody on the host, reading only: /metrics,
                          * /livez, /readyz, /healthz */
    uint8_t client_cert; /* TLS: 0 and 1 = ask for one, 2 = require one */
    uint8_t reserved;
    cb_identity *identity; /* referenced; TCP: required, unless public_only */
    cb_authn *gate;        /* referenced; TCP: required, unless public_only */
    const int32_t *fds;    /* as cb_http_server_opts.fds */
    uint32_t n_fds;
    uint32_t reserved2;
} cb_admin_door_opts;

enum { CB_ADMIN_DOORS = 16 };

/* Opens a door, and returns its number, from 0. CB_EINVAL (the detail says which rule: TCP without TLS or a gate,
 * public_only on another address than loopback, ...), CB_ELIMIT (CB_ADMIN_DOORS), else as cb_http_server_new(). */
CB_API int cb_admin_listen(cb_admin *a, const cb_admin_door_opts *opts);
/* Another gate for a door over TCP, referenced, from the next request on: keys or revocations have changed. Event
 * streams through it end, and their clients come again. CB_EINVAL
 * (no such door, or it has no gate; gate). */
CB_API int cb_admin_set_gate(cb_admin *a, int door, cb_authn *gate);
/* The real address of a door; NULL for what is none. Lives as long as the admin. */
CB_API const char *cb_admin_address(const cb_admin *a, int door);
/* The server behind a door, for cb_http_server_save(), _fds() and _stats_get() only; NULL for what is none. */
CB_API cb_http_server *cb_admin_server(cb_admin *a, int door);

/* ---- health ---- */

/* Does the daemon take requests? It does not until this says so. why: NULL, or for people; copied. */
CB_API void cb_admin_ready(cb_admin *a, int ready, const char *why);
/* Is it well enough to go on (its threads turn)? It is until this says otherwise. */
CB_API void cb_admin_alive(cb_admin *a, int alive, const char *why);

/* ---- resources ---- */

enum cb_admin_flag {
    CB_ADMIN_CHANGES = 1, /* it changes something: recorded in audit before handle() is called, and 507 when that is not
                           * possible; Idempotency-Key is honoured */
    CB_ADMIN_COMMITS = 2, /* with CB_ADMIN_CHANGES: the record is written by cb_admin_commit() */
    CB_ADMIN_PAGES = 4,   /* has the query parameters limit and cursor */
    CB_ADMIN_DRY_RUN = 8, /* has the query parameter dry_run=true: see cb_admin_dry_run() */
    CB_ADMIN_MATCH = 16,  /* a request without If-Match gets 428 */
    CB_ADMIN_RAW = 32,    /* the body is given as it is: JSON or not, nobody has looked at it */
    CB_ADMIN_OPTIONAL = 64 /* the body may be missing */
};

/* A query parameter. */
typedef struct cb_admin_query_param {
    const char *name;
    const char *about;  /* a sentence */
    const char *schema; /* JSON Schema of the value; NULL = {"type":"string"} */
} cb_admin_query_param;

/* One method of one path. Everything it points to is borrowed: tables are static data. */
typedef struct cb_admin_resource {
    size_t size;
    const char *method; /* GET (HEAD comes with it), POST, PUT, PATCH, DELETE */
    /* "/v1/pools/{group}/origins/{n}": a part in braces matches one segment; "{path...}", as the last, matches what is
     * left, with its slashes. Where several paths fit a request, the one with more fixed segments from the left does.
     */
    const char *path;
    const char *id;      /* unique, letters and digits: operationId, and the action in audit; required */
    const char *summary; /* one line; required */
    uint32_t rights;     /* enum cb_admin_right, or-ed: who has one of them may call it; 0 = who has any role */
    uint32_t flags;      /* enum cb_admin_flag, or-ed */
    const cb_admin_query_param *query;
    size_t n_query;
    const char *consumes;             /* content types of the body, by commas; NULL = application/json when it has a
                                       * document or is raw, else a body is refused */
    const cb_config_schema *document; /* of the body: it is decoded, and mistakes are told; NULL = none */
    const char *produces;             /* content type of the answer; NULL = application/json */
    const char *answer_schema;        /* JSON Schema of the answer; NULL = any */
    /* Answers, now or later. < 0, when it has not answered: as cb_admin_fail(). */
    int (*handle)(cb_admin_call *call, void *user);
} cb_admin_resource;

/* CB_EINVAL (the detail names the field), CB_EEXIST (method and path, or id), CB_ELIMIT (1,024), CB_ENOMEM. */
CB_API int cb_admin_add(cb_admin *a, const cb_admin_resource *r, void *user);
/* The OpenAPI 3.1 description, as it is served; lives until a resource is added or the admin is freed. CB_ENOMEM,
 * CB_EINVAL (a schema of a resource cannot be written). */
CB_API int cb_admin_describe(cb_admin *a, cb_slice *out);

/* ---- a call: asking. What is returned lives until it is answered ---- */

CB_API const cb_admin_principal *cb_admin_who(const cb_admin_call *call);
CB_API cb_slice cb_admin_method(const cb_admin_call *call);
CB_API const char *cb_admin_path(const cb_admin_call *call); /* as asked, without the query */
/* A part of the path: UTF-8 without control characters, slashes (but those of "{path...}") and dot segments, decoded;
 * NULL when the template has none of that name. "{path...}" comes without its first slash. */
CB_API const char *cb_admin_param(const cb_admin_call *call, const char *name);
/* A query parameter, decoded; NULL when it is absent. */
CB_API const char *cb_admin_query(const cb_admin_call *call, const char *name);
/* The same as a number from 0 to max. CB_ENOENT: absent. CB_EINVAL: it is none, and the call was answered (400). */
CB_API int cb_admin_query_uint(cb_admin_call *call, const char *name, uint64_t max, uint64_t *out);
CB_API cb_slice cb_admin_body(const cb_admin_call *call);
/* Without parameters, lower case; empty when there is no body. */
CB_API cb_slice cb_admin_content_type(const cb_admin_call *call);
/* The root of the decoded body (cb_admin_resource.document); NULL when there is none. */
CB_API const void *cb_admin_document(const cb_admin_call *call);
CB_API int cb_admin_dry_run(const cb_admin_call *call); /* 1: check only, change nothing */
/* The value of If-Match; empty when it is absent. */
CB_API cb_slice cb_admin_if_match(const cb_admin_call *call);
/* Judges If-Match and If-None-Match by the current entity tag ("\"17\"", with its quotes; NULL = there is nothing), and
 * sets ETag of the answer to it. CB_OK: go on. CB_EEXIST: the call was answered (412; for GET and HEAD 304). */
CB_API int cb_admin_check_match(cb_admin_call *call, const char *etag);
CB_API uint32_t cb_admin_limit(const cb_admin_call *call); /* of a page: 1 to 1,000 */
/* What cb_admin_page_end() was given for the page before, at most 255 bytes without NUL (a client may have made it up);
 * NULL = the first page. */
CB_API const char *cb_admin_cursor(const cb_admin_call *call);
/* The exchange, for its fields; NULL when the client is gone. Do not answer by it. */
CB_API const cb_exchange *cb_admin_exchange(const cb_admin_call *call);
CB_API cb_loop *cb_admin_loop(const cb_admin_call *call);
/* Whatever a resource keeps with a call that waits. */
CB_API void cb_admin_call_keep(cb_admin_call *call, void *kept);
CB_API void *cb_admin_call_kept(const cb_admin_call *call);
/* fn is called when the admin is freed before the call was answered: it is dead then. A client that goes away ends no
 * call. */
CB_API void cb_admin_call_on_end(cb_admin_call *call, void (*fn)(cb_admin_call *call, void *user), void *user);

/* What a change was, for audit. Texts longer than audit takes are cut. */
typedef struct cb_admin_change {
    size_t size;
    cb_slice object, detail; /* object empty = the path of the request */
    cb_slice before, after;  /* SHA-256 of the object, or empty */
} cb_admin_change;

/* CB_OK: it is recorded, go on and answer. < 0: it is not, and the call was answered (507): undo what was prepared. */
typedef void (*cb_admin_committed)(cb_admin_call *call, int rc, void *user);
/* For CB_ADMIN_COMMITS, once a call: the point after which a change will not fail by its own. done is called later,
 * once, but not after the call was told its end. When the call then answers 400 or more, another record says that it
 * failed. CB_EINVAL (done; committed before; not such a resource; a dry run). */
CB_API int cb_admin_commit(cb_admin_call *call, const cb_admin_change *change, cb_admin_committed done, void *user);

/* ---- a call: answering, once. Then the call is dead to the resource. CB_EINVAL: it was answered before, or the status
 * is not 200 to 599 ---- */

/* A writer of the call's own, empty at first. */
CB_API cb_json_out *cb_admin_json(cb_admin_call *call);
/* Answers with what was written. A writer that failed is a 500. */
CB_API int cb_admin_send(cb_admin_call *call, int status);
CB_API int cb_admin_send_json(cb_admin_call *call, int status, cb_slice json);
CB_API int cb_admin_send_bytes(cb_admin_call *call, int status, const char *content_type, cb_slice bytes);
CB_API int cb_admin_send_nothing(cb_admin_call *call); /* 204 */
/* A page: begins it, in the writer; then put the items, one value each; then end it. next: where the next page begins
 * (at most 255 bytes, not empty); NULL = there is none. */
CB_API void cb_admin_page_begin(cb_admin_call *call);
CB_API int cb_admin_page_end(cb_admin_call *call, const char *next);
/* Fields of the answer to come; copied. NULL = none. Values that are no field values are left out. A 200 to GET with a
 * tag that the client has (If-None-Match) becomes a 304. */
CB_API void cb_admin_etag(cb_admin_call *call, const char *etag);
CB_API void cb_admin_location(cb_admin_call *call, const char *path);

/* One of the mistakes that the problem to come lists as `errors` (the first 20). line and column: 0 = none. */
CB_API void cb_admin_mistake(cb_admin_call *call, const char *pointer, const char *detail, uint32_t line,
                             uint32_t column);
/* An error, 400 to 599, as problem+json. detail: NULL = none. 403 is recorded in audit as a denial. */
CB_API int cb_admin_problem(cb_admin_call *call, int status, const char *detail);
/* The same for a result of libcb and cb_last_error(): CB_EINVAL, CB_E2BIG 400; CB_EPERM, CB_EAUTH 403; CB_ENOENT 404;
 * CB_EEXIST 409; CB_ELIMIT, CB_EAGAIN 503; CB_ENOTSUP 501; CB_ETIMEOUT 504; else 500. */
CB_API int cb_admin_fail(cb_admin_call *call, int rc);

/* ---- events: GET /v1/events, as server-sent events (the HTML standard, 9.2) ---- */

enum { CB_ADMIN_EVENT_BYTES = 16384, CB_ADMIN_EVENT_TYPE = 32 };

/* Tells everybody who listens, and keeps it for those who come back with Last-Event-ID. type: [a-z0-9.-]; json: one
 * value, in one line. CB_EINVAL, CB_ELIMIT (larger than CB_ADMIN_EVENT_BYTES), CB_ENOMEM. */
CB_API int cb_admin_event(cb_admin *a, const char *type, cb_slice json);
/* The same for what is outdated by the next of its kind: it is not kept, and who reads slowly misses it. */
CB_API int cb_admin_event_passing(cb_admin *a, const char *type, cb_slice json);
/* How many listen. */
CB_API size_t cb_admin_listeners(const cb_admin *a);

CB_END
#endif
