/* cb/policy.h - who may do what: rules from a document, compiled into a table, decided without waiting or allocating.
 *
 *   {"rules": [
 *     {"name": "ops-reload", "effect": "allow", "tenants": ["acme"], "roles": ["operator"], "verbs": ["reload"],
 *      "mtls": "present", "amr": ["otp", "hwk"]},
 *     {"name": "read-api", "effect": "allow", "tenants": ["*"], "methods": ["GET", "HEAD"], "paths": ["/v1/users"],
 *      "claims": [{"path": "/realm_access/roles", "any": ["reader"]}]},
 *     {"name": "night", "effect": "deny", "tenants": ["*"], "verbs": ["reload"],
 *      "times": [{"days": ["mon", "tue", "wed", "thu", "fri"], "from": "22:00", "to": "06:00", "offset": "+01:00"}]}]}
 *
 * A rule matches when all its conditions do; a condition, when one of its values does. What matches a "deny" is denied,
 * whatever else matches; what matches no "allow" is denied, too. A tenant is named by the request and by each rule
 * ("*": whichever was named), never assumed. docs/guide/auth.md has all conditions; cbctl policy checks and explains.
 *
 * A policy never changes after it was made: threads share it and swap the pointer. No function reads a clock. */
#ifndef CB_POLICY_H
#define CB_POLICY_H

#include <cb/auth.h>
#include <cb/authn.h>
#include <cb/base.h>
#include <cb/config.h>

CB_BEGIN

typedef struct cb_policy cb_policy;

/* Makes a policy of a document (as cb/config.h: JSON with comments, at most 1 MiB; at most 4,096 rules). `name` stands
 * for it in messages. Every mistake is told to on_error (may be NULL) with its JSON pointer, and then there is no
 * policy. CB_EINVAL (a mistake; out, name), CB_ELIMIT (larger than 1 MiB), CB_ENOMEM. */
CB_API int cb_policy_parse(cb_policy **out, cb_slice text, const char *name, cb_config_error_fn on_error, void *user);
/* The same of a regular file. Blocks. Also CB_ENOENT, CB_EPERM, CB_ESYS. */
CB_API int cb_policy_load(cb_policy **out, const char *file, cb_config_error_fn on_error, void *user);
CB_API cb_policy *cb_policy_ref(cb_policy *p);
CB_API void cb_policy_unref(cb_policy *p); /* NULL is fine */
/* How many rules. */
CB_API size_t cb_policy_len(const cb_policy *p);
/* The form of the document as JSON Schema, to be freed with cb_config_text_free(). CB_EINVAL (out), CB_ENOMEM. */
CB_API int cb_policy_schema_json(char **out);

/* Who wants what, from where and when. All is borrowed for the call; what is empty is not there, and no rule that asks
 * for it matches. Two things can be unknown rather than absent, source and now_s: then a rule that asks for them
 * matches if it denies, and does not if it allows. */
typedef struct cb_policy_request {
    size_t size;
    cb_slice tenant;       /* whose; empty is denied */
    cb_slice subject;      /* empty with a token: its sub */
    cb_slice issuer;       /* who vouches for the subject; empty with a token: its iss */
    cb_slice spiffe_id;    /* of a verified certificate, such as cb_peer_spiffe_id() */
    const cb_slice *roles; /* that the caller has established */
    size_t roles_len;
    const cb_jwt *token; /* verified; its claims are what "claims", "acr" and "amr" ask for. NULL = none */
    /* In the place of a token, for claims from elsewhere: gives the next value of the claim at path (a name, or "/" and
     * a JSON pointer), beginning with *it = 0. Its values are what a text, number, true or false is as text, each of
     * these in a list, and the names of an object's members. 1, or 0 at the end. Only asked when token is NULL. */
    int (*claim)(const char *path, uint32_t *it, cb_slice *value, void *user);
    void *user;
    cb_slice route;       /* the name of a route */
    cb_slice method;      /* "GET" */
    cb_slice path;        /* of the URL, as it came; a query is ignored */
    cb_slice target_host; /* of a tunnel: a name or an address (without brackets) */
    cb_slice verb;        /* of an administrator, such as "reload" */
    cb_slice source;      /* the client's address: 4 or 16 bytes in network order; v4-mapped counts as IPv4 */
    int64_t now_s;        /* seconds since 1970; 0 = unknown */
    int32_t target_port;  /* 1 to 65,535 with target_host */
    int32_t mtls;         /* 1: the client showed a certificate that was verified */
} cb_policy_request;

/* Begins a request with who was let in by a gate (cb/authn.h): tenant, subject, issuer (claim iss), roles, SPIFFE ID,
 * certificate and claims. All else is empty. It borrows from the call until that is reset. CB_EINVAL (out, call). */
CB_API int cb_policy_request_of(cb_policy_request *out, const cb_authn_call *call);

/* Why it was decided so. The values are frozen. */
enum cb_policy_reason {
    CB_POLICY_RULE = 1,      /* by the rule that the decision names */
    CB_POLICY_NO_RULE = 2,   /* denied: no rule allows it */
    CB_POLICY_NO_TENANT = 3, /* denied: the request names no tenant */
    CB_POLICY_PATH = 4,   /* denied: the path can be read in several ways: "." or ".." segments, an encoded "/", "\" or
                           * NUL, a "\", a ";", a bad "%", or more than 4,096 bytes with "%" or "//" within. Only when
                           * a rule looks at paths */
    CB_POLICY_TARGET = 5, /* denied: the target is no name, address and port, or a number that some read as an address
                           * ("127.1"). Only when a rule looks at targets */
    CB_POLICY_SOURCE = 6  /* denied: the source is neither empty nor 4 or 16 bytes */
};

typedef struct cb_policy_decision {
    size_t size;
    const char *rule; /* the name of the first rule that decided, denials before permissions; lives as long as the
                       * policy. NULL: none */
    uint32_t index;   /* of that rule in the document */
    int32_t reason;   /* enum cb_policy_reason */
    int32_t allowed;  /* 1 or 0 */
    uint32_t reserved;
} cb_policy_decision;

/* Decides; thread-safe, without an allocation. CB_OK: allowed. CB_EAUTH: denied; *out says by what, cb_last_error()
 * says nothing. out may be NULL. CB_EINVAL: policy, request, sizes. */
CB_API int cb_policy_decide(const cb_policy *p, const cb_policy_request *request, cb_policy_decision *out);

/* What a rule can ask for. The values are frozen; cb_policy_condition_text() names the member of the document. */
enum cb_policy_condition {
    CB_POLICY_TENANTS = 0,
    CB_POLICY_ROLES = 1,
    CB_POLICY_SUBJECTS = 2,
    CB_POLICY_ISSUERS = 3,
    CB_POLICY_SPIFFE = 4,
    CB_POLICY_CLAIMS = 5, /* acr and amr too */
    CB_POLICY_ROUTES = 6,
    CB_POLICY_METHODS = 7,
    CB_POLICY_PATHS = 8,
    CB_POLICY_TARGETS = 9,
    CB_POLICY_VERBS = 10,
    CB_POLICY_SOURCES = 11,
    CB_POLICY_MTLS = 12,
    CB_POLICY_TIMES = 13,
    CB_POLICY_DATES = 14 /* not_before, not_after */
};
enum { CB_POLICY_CONDITIONS = 15 };

/* How one rule stands to a request. Bit 1 << c stands for enum cb_policy_condition c. */
typedef struct cb_policy_step {
    size_t size;
    const char *rule;
    uint32_t index;
    int32_t allow;       /* 1: it allows, 0: it denies */
    int32_t matches;     /* 1: all its conditions do */
    uint32_t conditions; /* that it has */
    uint32_t failed;     /* of these, those that do not match */
    uint32_t reserved;
} cb_policy_step;

/* Decides in the same way, and tells on_step of each rule, in the order of the document. For people: it judges every
 * condition of every rule. Nothing is told when the request itself is denied (no tenant, an unclear path, target or
 * source). As cb_policy_decide(). */
CB_API int cb_policy_explain(const cb_policy *p, const cb_policy_request *request, cb_policy_decision *out,
                             void (*on_step)(const cb_policy_step *step, void *user), void *user);

/* "tenants" ...; "" for none. Static. */
CB_API const char *cb_policy_condition_text(int condition);
/* A short stable name, such as "rule" or "no-tenant", for logs and metrics; "" for none. Static. */
CB_API const char *cb_policy_reason_text(int reason);

CB_END
#endif
