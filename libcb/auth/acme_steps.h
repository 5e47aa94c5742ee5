/* The steps of ACME jobs: for acme_core.c. */
#ifndef CB_AUTH_ACME_STEPS_H
#define CB_AUTH_ACME_STEPS_H

#include "auth/acme_core.h"

enum cb_acme_step_no {
    STEP_DIRECTORY,
    STEP_ARI,
    STEP_ACCOUNT,
    STEP_CONTACTS,
    STEP_ROLL,
    STEP_DEACTIVATE,
    STEP_REVOKE,
    STEP_NEW_ORDER,
    STEP_ORDER,
    STEP_AUTHZ,
    STEP_CHALLENGE,
    STEP_POLL_AUTHZ,
    STEP_FINALIZE,
    STEP_CERTIFICATE,
    STEP_END
};

enum cb_acme_signer { CB_ACME_GET, CB_ACME_BY_JWK, CB_ACME_BY_KID };

typedef struct cb_acme_step {
    const char *name;
    int signer;
    const char *(*url)(const cb_acme_core *c);
    int (*payload)(cb_acme_core *c, cb_buf *out); /* NULL: nothing (POST-as-GET) */
    /* Takes a 2xx answer and sets the next step; json is none where answers are not JSON. */
    int (*take)(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms);
    /* A problem of this type: true when it was dealt with. NULL: it ends the job. */
    bool (*problem)(cb_acme_core *c, const char *type, int status, int64_t now_ms);
    bool text; /* the answer's body is not JSON, or is not read */
} cb_acme_step;

const cb_acme_step *cb_acme_step_get(unsigned step);
/* The step again at the time the server or patience says. */
void cb_acme_core_poll(cb_acme_core *c, cb_slice retry_after, int64_t now_ms);
/* CB_EAUTH with the words of a problem document (RFC 7807) in an authorization or order. */
int cb_acme_core_problem(cb_acme_value problem, const char *what);

#endif
