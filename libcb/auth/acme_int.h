/* The ACME client's object, for the files it is made of: acme.c (the interface), acme_job.c (the core's requests
 * through an HTTP client), acme_files.c (what is kept in the directory). */
#ifndef CB_AUTH_ACME_INT_H
#define CB_AUTH_ACME_INT_H

#include "auth/acme_cert.h"
#include "auth/acme_core.h"
#include "auth/acme_store.h"
#include "http/fetch.h"

enum { CB_ACME_EAB_BYTES = 512, CB_ACME_KEY_BYTES = 16384 };

typedef struct cb_acme_texts {
    char **at;
    size_t len;
} cb_acme_texts;

struct cb_acme {
    cb_loop *loop;
    cb_http_client *client;
    const cb_acme_ops *ops;
    void *user;
    char *directory, *kid, *eab_kid;
    cb_acme_texts contacts, names;
    uint8_t eab_key[CB_ACME_EAB_BYTES];
    size_t eab_key_len;
    int64_t patience_ms, settle_ms;
    bool agree_terms, other_hosts;
    cb_acme_store store;
    cb_acme_key key, new_key;
    /* the job */
    bool busy, core_live;
    int job; /* what was asked for: enum cb_acme_job; plan.job may be one before it */
    cb_acme_order order;
    char *profile;
    cb_acme_plan plan;
    cb_acme_core core;
    cb_acme_cert cert; /* of the file that is there */
    cb_buf key_pem, csr, cert_der;
    char file[CB_ACME_PATH];
    int64_t renew_at_s, check_at_s;
    cb_time begun; /* the job */
    cb_timer *timer;
    cb_fetch fetch;
};

static inline const char *const *cb_acme_list(const cb_acme_texts *t) {
    return (const char *const *)t->at;
}

int64_t cb_acme_wall_ms(void); /* since 1970 */

/* --- acme_files.c --- */
/* The account's keys and where it is; a key is made when there is none. */
int cb_acme_files_open(cb_acme *a);
int cb_acme_files_save_account(cb_acme *a);
int cb_acme_files_save_order(cb_acme *a);
/* An order under way for the same thing: *url gets where it is, key_pem its key. Others are forgotten. */
int cb_acme_files_load_order(cb_acme *a, char **url);
/* An order that cannot come to a good end is forgotten; after time limits and lost connections it goes on. */
void cb_acme_files_forget_order(cb_acme *a, int rc);
/* What is in STEM.pem, if it has these names; any_names: whatever it has. */
int cb_acme_files_look(cb_acme *a, const char *name, bool any_names);
/* The chain that came, and its key, into STEM.pem, if they are what was asked for. */
int cb_acme_files_keep(cb_acme *a);
/* A key for the account to roll to; it becomes the account's, or is dropped. */
int cb_acme_files_make_new_key(cb_acme *a);
int cb_acme_files_take_new_key(cb_acme *a);
int cb_acme_files_drop_new_key(cb_acme *a);

/* --- acme_job.c --- */
int cb_acme_job_start(cb_acme *a, int job);
void cb_acme_job_end(cb_acme *a);
void cb_acme_on_answer(cb_fetch *fetch, cb_exchange *x, int rc);

#endif
