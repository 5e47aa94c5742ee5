/* An ACME client without input and output (RFC 8555): one job, as requests to send and answers to take. Time is an
 * argument: milliseconds since 1970.
 *
 *   while ((what = cb_acme_core_next(c, now)) != CB_ACME_END) do what it says;
 *
 * Steps are rows of a table (acme_steps.c): where a request goes, what it carries, who takes its answer. */
#ifndef CB_AUTH_ACME_CORE_H
#define CB_AUTH_ACME_CORE_H

#include "auth/acme_jws.h"
#include "auth/acme_read.h"
#include <cb/acme.h>

enum cb_acme_job {
    CB_ACME_JOB_ACCOUNT,
    CB_ACME_JOB_CONTACTS,
    CB_ACME_JOB_ROLL,
    CB_ACME_JOB_PROBE,
    CB_ACME_JOB_DEACTIVATE,
    CB_ACME_JOB_ORDER,
    CB_ACME_JOB_REVOKE,
    CB_ACME_JOB_ARI
};

/* What a job works with. Borrowed: it must outlive the core. */
typedef struct cb_acme_plan {
    int job;
    int challenge; /* enum cb_acme_challenge_type */
    const char *directory;
    bool other_hosts, agree_terms;
    int64_t patience_ms, settle_ms;
    const cb_acme_key *key, *new_key; /* new_key: ROLL */
    const char *const *contacts;
    size_t contacts_len;
    const char *eab_kid;
    cb_slice eab_key;
    const char *const *names;
    size_t names_len;
    const char *profile, *replaces; /* NULL: none */
    cb_slice csr;                   /* DER */
    cb_slice cert;                  /* DER: REVOKE */
    uint32_t reason;
    const char *cert_id; /* ARI, RFC 9773 4.1 */
    uint32_t spread;     /* where in the suggested window, of 2^32 */
} cb_acme_plan;

enum cb_acme_what {
    CB_ACME_SEND,    /* request is to be sent */
    CB_ACME_WAIT,    /* until wake_ms */
    CB_ACME_SAVE,    /* kid and order_url are to be kept */
    CB_ACME_PRESENT, /* challenge of authz[at] is to be shown, then cb_acme_core_presented() */
    CB_ACME_END      /* rc and detail tell */
};

enum { CB_ACME_NAMES = 100 };

typedef struct cb_acme_authz {
    char *url, *challenge, *token, *name;
    bool presented, asked, done;
} cb_acme_authz;

typedef struct cb_acme_answer {
    int status;
    cb_slice nonce, location, retry_after, content_type; /* fields; empty: not there */
    cb_slice body;
} cb_acme_answer;

typedef struct cb_acme_core {
    const cb_acme_plan *plan;
    char *new_nonce, *new_account, *new_order, *revoke_cert, *key_change, *renewal_info; /* the directory */
    bool has_profile;
    char *kid, *order_url, *finalize, *certificate; /* kid and order_url: set before the start to go on */
    char nonce[CB_ACME_TOKEN_BYTES + 1];
    cb_acme_authz authz[CB_ACME_NAMES];
    size_t authz_len, at;
    uint8_t step; /* acme_steps.c */
    bool resumed, remade, save, sent, want_nonce, present, ended, started, no_replaces;
    unsigned bad_nonces, failures, polls;
    int64_t end_ms, wake_ms;
    struct { /* what is to be sent; lives until the answer */
        const char *method;
        char *url;
        cb_buf body;
        const char *accept;
    } request;
    cb_buf chain;                       /* the downloaded PEM */
    int64_t renew_at_s, check_at_s;     /* ARI */
    int64_t retry_at_s;                 /* rate limits */
    char explanation[CB_WEB_URL_BYTES]; /* ARI */
    int rc;
    char detail[640];
} cb_acme_core;

int cb_acme_core_init(cb_acme_core *c, const cb_acme_plan *plan, const char *kid, const char *order_url);
void cb_acme_core_clear(cb_acme_core *c);
/* A copy of from (NULL: none) into *to, whose text is freed. CB_ENOMEM. */
int cb_acme_core_copy(char **to, const char *from);
enum cb_acme_what cb_acme_core_next(cb_acme_core *c, int64_t now_ms);
void cb_acme_core_answer(cb_acme_core *c, const cb_acme_answer *a, int64_t now_ms);
/* The request did not get an answer: sent again later, some times; then the job fails with rc and the detail. */
void cb_acme_core_unanswered(cb_acme_core *c, int rc, int64_t now_ms);
void cb_acme_core_presented(cb_acme_core *c, int rc, int64_t now_ms);
/* Ends the job with rc and the thread's detail. */
void cb_acme_core_fail(cb_acme_core *c, int rc);

#endif
