/* cb/opa.h - decisions of an Open Policy Agent: a request of cb/policy.h goes to its REST API (POST /v1/data/...), and
 * what does not come back in time is denied.
 *
 *   cb_opa_new(&opa, CB_OPTS(cb_opa_opts, .client = client, .loop = loop,
 *                            .url = "http://127.0.0.1:8181/v1/data/edge/allow"));
 *   int rc = cb_opa_ask(opa, &request, none, &decision, &call, on_decision, me);
 *   if (rc != CB_EAGAIN) ...  // known at once; else on_decision() follows
 *
 * The input has the texts of the request that are there: tenant, subject, issuer, spiffe_id, roles, mtls, route,
 * method, path, target_host, target_port, verb, source, time (seconds), and `extra`. The answer's "result" must be a
 * boolean, or an object with the boolean "allow".
 *
 * Objects here belong to one loop. The agent itself is not part of libcb and not packaged in Debian: what is tested is
 * its documented API. */
#ifndef CB_OPA_H
#define CB_OPA_H

#include <cb/http.h>
#include <cb/policy.h>

CB_BEGIN

typedef struct cb_opa cb_opa;
typedef struct cb_opa_call cb_opa_call;

typedef struct cb_opa_opts {
    size_t size;
    cb_loop *loop;          /* required */
    cb_http_client *client; /* borrowed, of the same loop; required */
    const char *url;        /* required */
    const char *token;      /* sent as a bearer token; NULL = none */
    uint32_t timeout_ms;    /* of a decision; 0 = 250 */
    uint32_t max_calls;     /* under way at a time; more count as an outage; 0 = 1,024 */
    uint32_t cache_ms;      /* a decision is good for the same input so long; 0 = not kept, at most 60,000 */
    uint32_t max_cached;    /* 0 = 4,096, at most 1,048,576 */
    int32_t fail_open; /* 1: an outage (no answer in time, unreachable, status 5xx, too many calls) allows. An answer
                        * that makes no sense, or is undefined, always denies */
    uint32_t reserved;
} cb_opa_opts;

/* CB_EINVAL (out; the detail names the field), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_opa_new(cb_opa **out, const cb_opa_opts *opts);
/* Calls that wait are not told any more. NULL is fine. */
CB_API void cb_opa_free(cb_opa *opa);

/* Why. The values are frozen; cb_opa_reason_text() names them. */
enum cb_opa_reason {
    CB_OPA_RESULT = 1,    /* the agent said so */
    CB_OPA_UNDEFINED = 2, /* denied: its answer has no result, as no rule has made one */
    CB_OPA_ANSWER = 3,    /* denied: an answer that makes no sense: status, JSON, a result of another kind, more than 64
                           * KiB */
    CB_OPA_TIMEOUT = 4,   /* by fail_open */
    CB_OPA_OUTAGE = 5     /* by fail_open */
};

typedef struct cb_opa_decision {
    size_t size;
    int32_t allowed; /* 1 or 0 */
    int32_t reason;  /* enum cb_opa_reason */
    int32_t cached;  /* 1: it was remembered */
    uint32_t reserved;
} cb_opa_decision;

/* rc: CB_OK (allowed) or CB_EAUTH; for an outage or a senseless answer cb_last_error() says what happened. May ask
 * again, and free the object. */
typedef void (*cb_opa_fn)(const cb_opa_decision *decision, int rc, void *user);

/* Asks. CB_OK, CB_EAUTH: decided at once, *now (may be NULL) says how, and done is not called. CB_EAGAIN: done follows,
 * not within this call; *call (may be NULL) is for cb_opa_cancel() until then. extra: one JSON object of at most 64
 * KiB, which becomes the input's "extra", such as the claims of a token; empty = none. The request's token and claim
 * are not read, all else is; a request without a tenant is CB_EAUTH and not asked for. CB_EINVAL (opa, request, done;
 * extra is no object; a text that is not UTF-8; source), CB_ENOMEM. */
CB_API int cb_opa_ask(cb_opa *opa, const cb_policy_request *request, cb_slice extra, cb_opa_decision *now,
                      cb_opa_call **call, cb_opa_fn done, void *user);
/* done is not called any more. */
CB_API void cb_opa_cancel(cb_opa_call *call);
/* Forgets what was remembered: the policy has changed. */
CB_API void cb_opa_flush(cb_opa *opa);

typedef struct cb_opa_stats {
    size_t size;
    uint64_t asked, cached, allowed, denied; /* cached: without asking; the other two count all */
    uint64_t outages, senseless;             /* of those that were asked */
    uint64_t calls;                          /* under way */
} cb_opa_stats;

/* CB_EINVAL (out, size). */
CB_API int cb_opa_stats_get(const cb_opa *opa, cb_opa_stats *out);
/* "result", "undefined", "answer", "timeout", "outage"; "" for none. Static. */
CB_API const char *cb_opa_reason_text(int reason);

CB_END
#endif
