/* One thing that a client wants of its provider, without input and output: discovery where nothing is known yet, the
 * request, asking again while a person decides (device flow), the keys of an ID token. Times are arguments: now_ms from
 * any origin, now_s since 1970.
 *
 *   cb_oidc_job_init(), cb_oidc_form_add(&job->form, ...), then while cb_oidc_job_next() is not CB_OIDC_JOB_DONE: do
 *   what it says. What it was asked with must outlive it. */
#ifndef CB_AUTH_OIDC_JOB_H
#define CB_AUTH_OIDC_JOB_H

#include "auth/jwks.h"
#include "auth/oidc_form.h"

enum cb_oidc_job_kind { CB_OIDC_JOB_TOKEN, CB_OIDC_JOB_DEVICE, CB_OIDC_JOB_REVOKE, CB_OIDC_JOB_INTROSPECT };

enum cb_oidc_job_what {
    CB_OIDC_JOB_SEND,   /* method, url, body and authorization are to be sent */
    CB_OIDC_JOB_WAIT,   /* until wake_ms */
    CB_OIDC_JOB_PROMPT, /* the person is to see `device` */
    CB_OIDC_JOB_DONE    /* rc tells, with `detail` */
};

enum cb_oidc_job_step {
    CB_OIDC_STEP_DISCOVER,
    CB_OIDC_STEP_ASK,
    CB_OIDC_STEP_POLL,
    CB_OIDC_STEP_KEYS,
    CB_OIDC_STEP_END
};

typedef struct cb_oidc_job {
    const cb_oidc_conf *conf;
    int kind, step;
    cb_buf form; /* what is asked, without who we are; wiped */
    /* CB_OIDC_JOB_TOKEN and _DEVICE */
    const char *nonce;                  /* the ID token must have it; NULL: none */
    const cb_jwt_signer *assertion_key; /* an RFC 7523 grant: made anew for each attempt; NULL: none */
    const char *assertion_subject;
    uint32_t max_age_s; /* of its auth_time; 0: not judged */
    bool need_id;       /* an answer without an ID token is refused */
    bool once;          /* the request is not sent a second time: what it carries is good once */
    cb_oidc_meta *meta;
    cb_jwks *keys;
    bool fresh_keys, new_meta; /* keys: fetched by this job; meta: found by it */
    /* under way */
    bool sent, alt, prompt;
    unsigned tries;
    int64_t wake_ms, interval_ms, end_ms;
    const char *method;
    char url[CB_OIDC_URL_BYTES + 1];
    cb_buf body, authorization; /* wiped */
    /* results */
    cb_json answer;        /* what the texts below point into */
    cb_oidc_device device; /* of CB_OIDC_JOB_DEVICE */
    const char *device_code;
    cb_json prompt_answer; /* what device points into */
    cb_oidc_tokens tokens;
    cb_jwt *token; /* CB_OIDC_JOB_INTROSPECT: active */
    int32_t reason;
    int rc;
    char error[64]; /* the OAuth error code; "": none */
    char detail[512];
} cb_oidc_job;

void cb_oidc_job_init(cb_oidc_job *job, const cb_oidc_conf *conf, int kind);
/* It ends with rc and the thread's detail. */
void cb_oidc_job_fail(cb_oidc_job *job, int rc);
void cb_oidc_job_clear(cb_oidc_job *job);
enum cb_oidc_job_what cb_oidc_job_next(cb_oidc_job *job, int64_t now_ms, int64_t now_s, const uint8_t random[16]);
void cb_oidc_job_answer(cb_oidc_job *job, const cb_oidc_answer *a, int64_t now_ms, int64_t now_s);
/* There was no answer, for rc and the reason in the thread's detail. */
void cb_oidc_job_unanswered(cb_oidc_job *job, int rc, int64_t now_ms);
void cb_oidc_job_prompted(cb_oidc_job *job, int64_t now_ms);

#endif
