/* Gates and sources from the inside: authn.c (sources and gates), authn_call.c (one request), authn_answer.c (what a
 * refusal says), authn_jwt.c, authn_token.c, authn_mtls.c and authn_key.c (the kinds of sources). */
#ifndef CB_AUTH_AUTHN_INT_H
#define CB_AUTH_AUTHN_INT_H

#include "auth/claims.h"
#include "auth/jwt.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include <cb/authn.h>

enum { CB_AUTHN_ROLES = 64 };

/* Where a credential comes in. */
enum cb_authn_carrier { CB_CARRIER_AUTHORIZATION = 1, CB_CARRIER_FIELD = 2, CB_CARRIER_CERT = 3 };

/* What is to be told to a client about a refusal (RFC 6750, 3.1; RFC 9449, 7.1). */
enum cb_authn_error {
    CB_AUTHN_ERROR_NONE = 0,
    CB_AUTHN_INVALID_REQUEST,
    CB_AUTHN_INVALID_TOKEN,
    CB_AUTHN_INSUFFICIENT_SCOPE,
    CB_AUTHN_INVALID_PROOF,
    CB_AUTHN_USE_NONCE
};

/* A refusal. Of several the gravest counts, of equal ones the first. */
typedef struct cb_refusal {
    int status;
    int error; /* enum cb_authn_error */
    int grave; /* 0: the credential is not for this source; 1: it is not good; 2: nobody can tell now */
    const char *reason;
} cb_refusal;

/* What a source says of a request. */
typedef struct cb_authn_part {
    cb_json claims;
    cb_jwt *token;   /* that the claims are of; NULL: */
    bool own_claims; /* a copy of its own, else the source's */
    const char *spiffe_id;
    bool present, good;
} cb_authn_part;

typedef struct cb_authn_source_vt {
    int kind;    /* enum cb_authn_kind */
    int carrier; /* enum cb_authn_carrier */
    /* CB_OK: *out is filled. CB_ENOENT: no such credential. CB_EAGAIN: cb_authn_answer() follows. CB_EAUTH: refused
     * with cb_authn_deny(). Others: no memory and the like. */
    int (*judge)(const cb_authn_source *s, cb_authn_call *c, cb_authn_part *out);
    void (*cancel)(const cb_authn_source *s, cb_authn_call *c); /* what waits; NULL: nothing ever does */
    void (*free)(cb_authn_source *s);                           /* what is beyond the head */
} cb_authn_source_vt;

struct cb_authn_source {
    _Atomic uint32_t refs;
    const cb_authn_source_vt *vt;
    char *name, *subject, *tenant, *tenant_is, *roles; /* paths; subject is set */
    char *field;                                       /* CB_CARRIER_FIELD */
    cb_revocations *revocations;
    bool bearer, dpop; /* schemes that it takes */
};

/* Rules with texts of their own. */
typedef struct cb_authn_rules {
    cb_jwt_rules rules; /* for cb_jwt_check() */
    char *issuer, *typ;
    char **audiences;
    size_t n_audiences;
} cb_authn_rules;

struct cb_authn {
    _Atomic uint32_t refs;
    cb_authn_source *sources[CB_AUTHN_SOURCES];
    size_t n;
    char *realm, *tenant, *scope_text; /* scope_text: for challenges, "a b" */
    char **scopes, **roles;
    size_t n_scopes, n_roles;
    bool all, need_tenant, bearer, dpop, authorization;
};

struct cb_authn_worker {
    cb_loop *loop;
    cb_list all;      /* introspectors */
    cb_map decisions; /* cells of what gates said */
};

struct cb_authn_call {
    cb_authn *authn; /* NULL: unused */
    cb_authn_request request;
    cb_authn_done done;
    void *user, *kept;
    cb_authn_worker *worker; /* NULL: none */
    cb_introspection *ask;   /* under way */
    /* read from the request once */
    cb_slice scheme, token, proof;
    unsigned n_authorization, n_proof;
    /* under way */
    size_t at;
    cb_time since; /* when it began to wait; 0: it does not, or nobody counts */
    bool waiting, in_look, answered;
    int answer;
    cb_authn_part parts[CB_AUTHN_SOURCES];
    cb_refusal refusal;
    const cb_dpop *nonce_of;
    /* the result */
    int status;
    cb_principal principal;
    const cb_json *claims; /* of the identity */
    cb_slice roles[CB_AUTHN_ROLES];
    cb_field challenges[5];
    size_t n_challenges;
    cb_buf text; /* of the challenges */
};

/* --- authn.c --- */
/* Makes the head of a source of `bytes`; *out is freed by unref on failure of what follows. */
int cb_authn_source_make(cb_authn_source **out, size_t bytes, const cb_authn_source_vt *vt, const char *name,
                         const cb_authn_claims *claims, cb_revocations *revocations);
/* Copies of lists of texts; NULL entries are refused with CB_EINVAL, naming `what`. */
int cb_authn_texts(char ***out, size_t *n, const char *const *from, size_t len, const char *what);
void cb_authn_texts_free(char **texts, size_t n);

/* --- authn_call.c --- */
/* Notes a refusal; gives CB_EAUTH. */
int cb_authn_deny(cb_authn_call *c, int status, int error, int grave, const char *reason);
/* The source does not take this scheme, or there is no Authorization: what judge() returns then. The token of a scheme
 * that it takes: CB_OK. */
int cb_authn_scheme(const cb_authn_source *s, cb_authn_call *c);
/* Claims from text, copied. CB_EINVAL, CB_ENOMEM. */
int cb_authn_claims_read(cb_authn_part *out, cb_slice text);

/* What a source said after CB_EAGAIN: goes on, and tells done. */
void cb_authn_go_on(cb_authn_call *c, int rc);

/* --- authn_rules.c --- */
/* issuer: where the rules name none; may be NULL. */
int cb_authn_rules_copy(cb_authn_rules *out, const cb_jwt_rules *rules, const char *issuer);
void cb_authn_rules_clear(cb_authn_rules *r);
/* What is known of the request beside a proof. */
cb_jwt_facts cb_authn_facts(const cb_authn_call *c, const char *jkt);

/* --- authn_worker.c --- */
/* The introspector of a provider on this loop. */
int cb_authn_worker_ask(cb_introspector **out, cb_authn_worker *w, cb_oidc *provider, cb_identity *identity,
                        const char *resolver);

/* --- authn_count.c --- */
/* A gate has decided: status 200 or that of the refusal. w NULL, or a loop that counts nothing: nothing is done. */
void cb_authn_count(cb_authn_worker *w, const char *source, int status, const char *reason);
/* A call begins to wait (since 0) or waits no more; gives its new `since`. */
cb_time cb_authn_count_wait(cb_authn_worker *w, cb_time since);
void cb_authn_count_end(cb_authn_worker *w);

/* --- authn_answer.c --- */
void cb_authn_challenge(cb_authn_call *c);

#endif
