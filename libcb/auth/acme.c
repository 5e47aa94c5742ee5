/* The driver: the core's requests go through an HTTP client, its state into a directory. */
#include <cb/acme.h>

#include "auth/acme_cert.h"
#include "auth/acme_core.h"
#include "auth/acme_steps.h"
#include "auth/acme_store.h"
#include "auth/ca_cert.h"
#include "auth/fetch.h"
#include "base/error.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/opts.h"
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { PATIENCE_S = 600, REQUEST_MS = 30000, EAB_BYTES = 512, KEY_BYTES = 16384, CONTACTS = 16 };

static const char key_file[] = "account.key", new_key_file[] = "account.key.new", account_file[] = "account.json";
static const cb_alloc *const heap = &cb_alloc_libc;

typedef struct texts {
    char **at;
    size_t len;
} texts;

struct cb_acme {
    cb_loop *loop;
    cb_http_client *client;
    const cb_acme_ops *ops;
    void *user;
    char *directory, *kid, *eab_kid;
    texts contacts, names;
    uint8_t eab_key[EAB_BYTES];
    size_t eab_key_len;
    int64_t patience_ms;
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
    int64_t renew_at_s;
    cb_timer *timer;
    cb_fetch fetch;
};

static int64_t wall_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void texts_free(texts *t) {
    for (size_t i = 0; i < t->len; i++)
        cb_mem_free(heap, t->at[i]);
    cb_mem_free(heap, t->at);
    *t = (texts){NULL, 0};
}

static int texts_copy(texts *t, const char *const *from, size_t n) {
    texts_free(t);
    if (n == 0) return CB_OK;
    t->at = cb_mem_new(heap, n * sizeof *t->at);
    for (size_t i = 0; t->at && i < n; i++) {
        t->at[i] = cb_mem_text(heap, from[i]);
        if (!t->at[i]) return cb_fail(CB_ENOMEM, "no memory for texts");
        t->len++;
    }
    return t->at ? CB_OK : cb_fail(CB_ENOMEM, "no memory for texts");
}

static const char *const *list(const texts *t) {
    return (const char *const *)t->at;
}

/* --- state --- */

static int load_key(cb_acme *a, cb_acme_key *key, const char *file) {
    cb_buf pem;
    char why[256];
    cb_buf_init(&pem, heap, KEY_BYTES);
    int rc = cb_acme_store_read(&a->store, file, &pem);
    if (rc >= 0) {
        rc = cb_acme_key_read(key, cb_buf_slice(&pem));
        snprintf(why, sizeof why, "%s", cb_last_error());
        if (rc < 0) rc = cb_fail(rc, "%s/%s: %s", a->store.dir, file, why);
    }
    if (pem.base) cb_mem_wipe(pem.base, pem.len);
    cb_buf_free(&pem);
    return rc;
}

static int make_key(cb_acme *a, cb_acme_key *key, const char *file) {
    cb_buf pem;
    cb_buf_init(&pem, heap, KEY_BYTES);
    int rc = cb_acme_make_key(&pem, CB_KEY_ECDSA_P256);
    if (rc >= 0) rc = cb_acme_store_write(&a->store, file, cb_buf_slice(&pem));
    if (rc >= 0) rc = cb_acme_key_read(key, cb_buf_slice(&pem));
    if (pem.base) cb_mem_wipe(pem.base, pem.len);
    cb_buf_free(&pem);
    return rc;
}

/* account.json: {"directory": ..., "account": URL}. What cannot be read is as if it were not there: the key finds the
 * account again. */
static int load_account(cb_acme *a) {
    cb_buf text;
    cb_buf_init(&text, heap, CB_ACME_FILE_MAX);
    int rc = cb_acme_store_read(&a->store, account_file, &text);
    cJSON *json = rc >= 0 ? cb_acme_json(cb_buf_slice(&text)) : NULL;
    const char *directory = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "directory"));
    const char *kid = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "account"));
    if (rc == CB_ENOENT) rc = CB_OK;
    if (rc >= 0 && directory && strcmp(directory, a->directory) != 0) {
        rc = cb_fail(CB_EINVAL, "%s: this account is at %s", a->store.dir, directory);
    } else if (rc >= 0 && kid && cb_web_url_check(kid, a->directory, a->other_hosts, "account") >= 0) {
        rc = cb_acme_core_copy(&a->kid, kid);
    }
    cJSON_Delete(json);
    cb_buf_free(&text);
    return rc;
}

static int save_account(cb_acme *a) {
    cb_buf text;
    cb_buf_init(&text, heap, CB_ACME_FILE_MAX);
    int rc = cb_buf_text(&text, "{\"directory\":");
    if (rc >= 0) rc = cb_web_put_text(&text, a->directory);
    if (rc >= 0) rc = cb_buf_text(&text, ",\"account\":");
    if (rc >= 0) rc = cb_web_put_text(&text, a->kid);
    if (rc >= 0) rc = cb_buf_text(&text, "}\n");
    if (rc >= 0) rc = cb_acme_store_write(&a->store, account_file, cb_buf_slice(&text));
    cb_buf_free(&text);
    return rc;
}

static int put_names(cb_acme *a, cb_buf *out) {
    int rc = cb_buf_text(out, "[");
    for (size_t i = 0; rc >= 0 && i < a->names.len; i++) {
        if (i) rc = cb_buf_text(out, ",");
        if (rc >= 0) rc = cb_web_put_text(out, a->names.at[i]);
    }
    return rc >= 0 ? cb_buf_text(out, "]") : rc;
}

static int save_order(cb_acme *a) {
    cb_buf text;
    char name[300];
    cb_buf_init(&text, heap, CB_ACME_FILE_MAX);
    int rc = cb_buf_text(&text, "{\"names\":");
    if (rc >= 0) rc = put_names(a, &text);
    if (rc >= 0) rc = cb_buf_text(&text, ",\"profile\":");
    if (rc >= 0) rc = cb_web_put_text(&text, a->profile ? a->profile : "");
    if (rc >= 0) rc = cb_buf_text(&text, ",\"url\":");
    if (rc >= 0) rc = cb_web_put_text(&text, a->core.order_url);
    if (rc >= 0) rc = cb_buf_text(&text, ",\"key\":");
    if (rc >= 0) rc = cb_buf_add(&a->key_pem, "", 1); /* as text, for a moment */
    if (rc >= 0) {
        rc = cb_web_put_text(&text, (const char *)a->key_pem.base);
        a->key_pem.len--;
    }
    if (rc >= 0) rc = cb_buf_text(&text, "}\n");
    cb_acme_store_name(name, a->names.at[0], ".order");
    if (rc >= 0) rc = cb_acme_store_write(&a->store, name, cb_buf_slice(&text));
    if (text.base) cb_mem_wipe(text.base, text.len);
    cb_buf_free(&text);
    return rc;
}

static bool same_names(const cb_acme *a, const cJSON *names) {
    if (cJSON_GetArraySize(names) != (int)a->names.len) return false;
    for (size_t i = 0; i < a->names.len; i++) {
        const char *name = cJSON_GetStringValue(cJSON_GetArrayItem(names, (int)i));
        if (!name || strcmp(name, a->names.at[i]) != 0) return false;
    }
    return true;
}

/* An order under way for the same thing: *url gets where it is, key_pem its key. Others are forgotten. */
static int load_order(cb_acme *a, char **url) {
    cb_buf text;
    char name[300];
    cb_buf_init(&text, heap, CB_ACME_FILE_MAX);
    cb_acme_store_name(name, a->names.at[0], ".order");
    int rc = cb_acme_store_read(&a->store, name, &text);
    cJSON *json = rc >= 0 ? cb_acme_json(cb_buf_slice(&text)) : NULL;
    const char *key = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "key"));
    const char *at = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "url"));
    const char *profile = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "profile"));
    if (rc == CB_ENOENT) rc = CB_OK;
    if (rc >= 0 && key && at && profile && strcmp(profile, a->profile ? a->profile : "") == 0 &&
        same_names(a, cJSON_GetObjectItemCaseSensitive(json, "names")) &&
        cb_web_url_check(at, a->directory, a->other_hosts, "order") >= 0) {
        rc = cb_acme_core_copy(url, at);
        if (rc >= 0) rc = cb_buf_text(&a->key_pem, key);
    }
    cJSON_Delete(json);
    if (text.base) cb_mem_wipe(text.base, text.len);
    cb_buf_free(&text);
    return rc;
}

/* --- a job: perhaps a probe for a key that was being rolled, perhaps renewal information, then what was asked for ---
 */

static void drive(cb_acme *a);

static void end_core(cb_acme *a) {
    if (a->core_live) cb_acme_core_clear(&a->core);
    a->core_live = false;
}

static void on_time(cb_loop *loop, void *user) {
    (void)loop;
    cb_acme *a = user;
    cb_timer_free(a->timer);
    a->timer = NULL;
    drive(a);
}

static void fill_plan(cb_acme *a, int job) {
    uint32_t spread = 0;
    gnutls_rnd(GNUTLS_RND_NONCE, &spread, sizeof spread);
    a->plan = (cb_acme_plan){
        .job = job,
        .challenge = a->order.challenge,
        .directory = a->directory,
        .other_hosts = a->other_hosts,
        .agree_terms = a->agree_terms,
        .patience_ms = a->patience_ms,
        .key = job == CB_ACME_JOB_PROBE ? &a->new_key : &a->key,
        .new_key = &a->new_key,
        .contacts = list(&a->contacts),
        .contacts_len = a->contacts.len,
        .eab_kid = a->eab_kid,
        .eab_key = {a->eab_key, a->eab_key_len},
        .names = list(&a->names),
        .names_len = a->names.len,
        .profile = a->profile,
        .replaces = a->cert.id[0] ? a->cert.id : NULL,
        .csr = cb_buf_slice(&a->csr),
        .cert = cb_buf_slice(&a->cert_der),
        .reason = a->plan.reason,
        .cert_id = a->cert.id,
        .spread = spread,
    };
}

static int begin(cb_acme *a, int job) {
    char *url = NULL;
    int rc = CB_OK;
    if (job == CB_ACME_JOB_ORDER) {
        a->key_pem.len = a->csr.len = 0;
        rc = load_order(a, &url);
        if (rc >= 0 && !url) rc = cb_acme_make_key(&a->key_pem, a->order.key_type);
        if (rc >= 0) rc = cb_acme_make_csr(&a->csr, cb_buf_slice(&a->key_pem), list(&a->names), a->names.len);
    }
    if (rc >= 0 && job == CB_ACME_JOB_ROLL) rc = make_key(a, &a->new_key, new_key_file);
    end_core(a);
    fill_plan(a, job);
    int made = cb_acme_core_init(&a->core, &a->plan, job == CB_ACME_JOB_PROBE ? NULL : a->kid, url);
    a->core_live = true;
    if (rc >= 0) rc = made;
    if (rc < 0) cb_acme_core_fail(&a->core, rc);
    cb_mem_free(heap, url);
    return CB_OK;
}

static void give_challenge(const cb_acme *a, const cb_acme_authz *z, cb_acme_challenge *out,
                           char auth[CB_ACME_HTTP01_BYTES], char dns[44]) {
    snprintf(auth, CB_ACME_HTTP01_BYTES, "%s.%s", z->token, a->key.thumbprint);
    dns[0] = '\0';
    cb_acme_sha256_text(dns, auth);
    *out = (cb_acme_challenge){.size = sizeof *out,
                               .name = z->name,
                               .token = z->token,
                               .key_auth = auth,
                               .dns_value = dns,
                               .type = a->order.challenge};
}

static void present(cb_acme *a) {
    char auth[CB_ACME_HTTP01_BYTES], dns[44];
    cb_acme_challenge c;
    give_challenge(a, &a->core.authz[a->core.at], &c, auth, dns);
    int rc = a->ops->on_challenge ? a->ops->on_challenge(a, &c, a->user) : CB_OK;
    cb_acme_core_presented(&a->core, rc);
}

static void clean(cb_acme *a) {
    char auth[CB_ACME_HTTP01_BYTES], dns[44];
    cb_acme_challenge c;
    for (size_t i = 0; a->ops->on_challenge_done && i < a->core.authz_len; i++) {
        if (!a->core.authz[i].presented) continue;
        give_challenge(a, &a->core.authz[i], &c, auth, dns);
        a->ops->on_challenge_done(a, &c, a->user);
    }
}

static int save(cb_acme *a) {
    int rc = CB_OK;
    if (a->plan.job == CB_ACME_JOB_PROBE) return CB_OK;
    if (a->core.kid && (!a->kid || strcmp(a->kid, a->core.kid) != 0)) {
        rc = cb_acme_core_copy(&a->kid, a->core.kid);
        if (rc >= 0) rc = save_account(a);
    }
    if (rc >= 0 && a->plan.job == CB_ACME_JOB_ORDER && a->core.order_url) rc = save_order(a);
    return rc;
}

static int keep_certificate(cb_acme *a) {
    char name[300];
    cb_buf whole;
    int rc = cb_acme_chain_check(cb_buf_slice(&a->core.chain), cb_buf_slice(&a->key_pem), list(&a->names), a->names.len,
                                 wall_ms() / 1000);
    if (rc < 0) return rc;
    cb_buf_init(&whole, heap, CB_ACME_FILE_MAX);
    rc = cb_buf_add(&whole, a->key_pem.base, a->key_pem.len);
    if (rc >= 0) rc = cb_buf_add(&whole, a->core.chain.base, a->core.chain.len);
    cb_acme_store_name(name, a->names.at[0], ".pem");
    if (rc >= 0) rc = cb_acme_store_write(&a->store, name, cb_buf_slice(&whole));
    if (rc >= 0) rc = cb_acme_cert_read(&a->cert, cb_buf_slice(&whole), NULL);
    a->renew_at_s = cb_acme_renewal(a->cert.not_before_s, a->cert.not_after_s);
    if (whole.base) cb_mem_wipe(whole.base, whole.len);
    cb_buf_free(&whole);
    return rc;
}

/* An order that cannot come to a good end is forgotten; after time limits and lost connections it goes on. */
static void forget_order(cb_acme *a, int rc) {
    char name[300];
    if (rc == CB_ETIMEOUT || rc == CB_ELIMIT || rc == CB_EUNREACH || rc == CB_ECLOSED || rc == CB_EDNS ||
        rc == CB_ESYS || rc == CB_ENOMEM || rc == CB_ETLS || rc == CB_EUSER) {
        return;
    }
    cb_acme_store_name(name, a->names.at[0], ".order");
    cb_acme_store_remove(&a->store, name);
}

static int take_new_key(cb_acme *a) {
    int rc = cb_acme_store_rename(&a->store, new_key_file, key_file);
    if (rc < 0) return rc;
    cb_jwk_clear(&a->key);
    a->key = a->new_key;
    memset(&a->new_key, 0, sizeof a->new_key);
    return CB_OK;
}

static int drop_new_key(cb_acme *a) {
    cb_jwk_clear(&a->new_key);
    return cb_acme_store_remove(&a->store, new_key_file);
}

static void finish(cb_acme *a, int rc, const char *detail, bool issued) {
    char text[700], explanation[CB_WEB_URL_BYTES];
    snprintf(text, sizeof text, "%s", detail);
    snprintf(explanation, sizeof explanation, "%s", a->core.explanation);
    const cb_acme_result result = {
        .size = sizeof result,
        .account = a->kid,
        .file = a->file[0] ? a->file : NULL,
        .explanation = explanation[0] ? explanation : NULL,
        .not_before_s = a->cert.not_before_s,
        .not_after_s = a->cert.not_after_s,
        .renew_at_s = a->renew_at_s,
        .retry_at_s = a->core.retry_at_s,
        .issued = issued,
    };
    end_core(a);
    a->busy = false;
    cb_error_set(rc, text);
    if (a->ops->on_done) a->ops->on_done(a, rc, &result, a->user); /* a may be gone */
}

/* What the probe found: whether the server took a key that we did not hear of. */
static int after_probe(cb_acme *a, int rc) {
    if (rc >= 0) return take_new_key(a);
    return rc == CB_ENOENT ? drop_new_key(a) : rc;
}

static int first_job(const cb_acme *a) {
    return a->job == CB_ACME_JOB_ORDER && a->order.if_due && a->cert.not_after_s ? CB_ACME_JOB_ARI : a->job;
}

/* The part of the job that ran is over. True: the next one begins. */
static bool next_part(cb_acme *a) {
    int rc = a->core.rc;
    const int part = a->plan.job;
    bool issued = false;
    if (part == CB_ACME_JOB_PROBE) {
        rc = after_probe(a, rc);
        if (rc >= 0) return begin(a, first_job(a)) >= 0;
        snprintf(a->core.detail, sizeof a->core.detail, "%s", cb_last_error());
    } else if (part == CB_ACME_JOB_ARI) { /* no renewal information is no failure: the lifetime tells too */
        a->renew_at_s = rc >= 0 && a->core.renew_at_s ? a->core.renew_at_s
                                                      : cb_acme_renewal(a->cert.not_before_s, a->cert.not_after_s);
        if (a->renew_at_s <= wall_ms() / 1000) return begin(a, CB_ACME_JOB_ORDER) >= 0;
        rc = CB_OK;
    } else if (part == CB_ACME_JOB_ORDER) {
        const bool ok = rc >= 0;
        clean(a);
        if (ok) rc = keep_certificate(a);
        if (ok && rc < 0) snprintf(a->core.detail, sizeof a->core.detail, "ACME: %s", cb_last_error());
        issued = rc >= 0;
        forget_order(a, rc);
    } else if (part == CB_ACME_JOB_ROLL) {
        /* Lost answers leave both keys: the next job's probe finds out. */
        if (rc >= 0) {
            rc = take_new_key(a);
        } else if (rc == CB_EAUTH || rc == CB_EPROTO || rc == CB_ENOTSUP || rc == CB_ELIMIT) {
            drop_new_key(a);
        }
    }
    finish(a, rc, a->core.detail, issued);
    return false;
}

/* --- HTTP --- */

static void on_answer(cb_fetch *fetch, cb_exchange *x, int rc) {
    cb_acme *a = CB_CONTAINER(fetch, cb_acme, fetch);
    if (fetch->too_large) {
        cb_acme_core_fail(&a->core, cb_fail(CB_EPROTO, "ACME: an answer of more than %d bytes", CB_ACME_ANSWER_BYTES));
    } else if (rc < 0) {
        cb_acme_core_unanswered(&a->core, rc, wall_ms());
    } else {
        const cb_acme_answer answer = {
            .status = cb_exchange_status(x),
            .nonce = cb_exchange_field(x, "replay-nonce"),
            .location = cb_exchange_field(x, "location"),
            .retry_after = cb_exchange_field(x, "retry-after"),
            .content_type = cb_exchange_field(x, "content-type"),
            .body = cb_buf_slice(&fetch->answer),
        };
        cb_acme_core_answer(&a->core, &answer, wall_ms());
    }
    drive(a);
}

static int send_request(cb_acme *a) {
    const bool post = strcmp(a->core.request.method, "POST") == 0;
    return cb_fetch_start(&a->fetch, a->client,
                          &(cb_fetch_request){.method = a->core.request.method,
                                              .url = a->core.request.url,
                                              .accept = a->core.request.accept,
                                              .content_type = post ? "application/jose+json" : NULL,
                                              .body = cb_buf_slice(&a->core.request.body),
                                              .timeout_ms = REQUEST_MS});
}

static void wait_until(cb_acme *a, int64_t at_ms) {
    const int64_t now = wall_ms();
    if (a->fetch.x || a->timer) return;
    int rc = cb_timer_start(&a->timer, a->loop, at_ms > now ? (uint64_t)(at_ms - now) : 0, 0, on_time, a);
    if (rc < 0) cb_acme_core_fail(&a->core, rc);
}

static void drive(cb_acme *a) {
    for (;;) {
        int rc = CB_OK;
        switch (cb_acme_core_next(&a->core, wall_ms())) {
        case CB_ACME_SEND:
            rc = send_request(a);
            if (rc >= 0) return;
            break;
        case CB_ACME_WAIT:
            wait_until(a, a->core.wake_ms);
            if (a->fetch.x || a->timer) return;
            break;
        case CB_ACME_SAVE:
            rc = save(a);
            break;
        case CB_ACME_PRESENT:
            present(a);
            break;
        case CB_ACME_END:
            if (!next_part(a)) return;
            break;
        }
        if (rc < 0) cb_acme_core_fail(&a->core, rc);
    }
}

/* --- the interface --- */

static int check_opts(const cb_acme_opts *o) {
    if (!o->directory || !o->dir || !*o->dir || !o->client || !o->ops) {
        return cb_fail(CB_EINVAL, "cb_acme_opts: directory, dir, client and ops are needed");
    }
    if (cb_web_url_check(o->directory, o->directory, true, "directory") < 0) return CB_EINVAL;
    if (!o->eab_kid != !o->eab_key) return cb_fail(CB_EINVAL, "cb_acme_opts: eab_kid and eab_key belong together");
    if (o->contacts_len > CONTACTS) return cb_fail(CB_EINVAL, "cb_acme_opts: more than %d contacts", CONTACTS);
    for (size_t i = 0; i < o->contacts_len; i++) {
        if (!o->contacts[i] || !strchr(o->contacts[i], ':')) {
            return cb_fail(CB_EINVAL, "cb_acme_opts: contact %zu is no URL such as mailto:ops@example.org", i);
        }
    }
    return cb_ops_check(o->ops, sizeof *o->ops, "cb_acme_ops");
}

static int set_up(cb_acme *a, const cb_acme_opts *o) {
    int rc = cb_acme_core_copy(&a->directory, o->directory);
    if (rc >= 0 && o->eab_kid) rc = cb_acme_core_copy(&a->eab_kid, o->eab_kid);
    if (rc >= 0 && o->eab_key) {
        int64_t n = cb_acme_base64url_decode(a->eab_key, sizeof a->eab_key, o->eab_key);
        if (n < 16) return cb_fail(CB_EINVAL, "cb_acme_opts: eab_key is not a key in base64url");
        a->eab_key_len = (size_t)n;
    }
    if (rc >= 0) rc = texts_copy(&a->contacts, o->contacts, o->contacts_len);
    if (rc >= 0) rc = cb_acme_store_open(&a->store, o->dir);
    if (rc >= 0) {
        rc = load_key(a, &a->key, key_file);
        if (rc == CB_ENOENT) rc = make_key(a, &a->key, key_file);
    }
    if (rc >= 0) {
        rc = load_key(a, &a->new_key, new_key_file);
        if (rc == CB_ENOENT) rc = CB_OK;
    }
    return rc >= 0 ? load_account(a) : rc;
}

int cb_acme_new(cb_acme **out, cb_loop *loop, const cb_acme_opts *opts) {
    cb_acme_opts o;
    if (!out || !loop) return cb_fail(CB_EINVAL, "cb_acme_new: out or loop is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_acme_opts");
    if (rc >= 0) rc = check_opts(&o);
    if (rc < 0) return rc;
    cb_acme *a = cb_mem_new(heap, sizeof *a);
    if (!a) return cb_fail(CB_ENOMEM, "no memory for an ACME client");
    a->loop = loop;
    a->client = o.client;
    a->ops = o.ops;
    a->user = o.user;
    a->patience_ms = (int64_t)(o.patience_s ? o.patience_s : PATIENCE_S) * 1000;
    a->agree_terms = o.agree_terms;
    a->other_hosts = o.other_hosts;
    a->store.fd = -1;
    cb_buf_init(&a->key_pem, heap, KEY_BYTES);
    cb_buf_init(&a->csr, heap, CB_ACME_FILE_MAX);
    cb_buf_init(&a->cert_der, heap, CB_ACME_FILE_MAX);
    cb_fetch_init(&a->fetch, CB_ACME_ANSWER_BYTES, on_answer);
    rc = set_up(a, &o);
    if (rc < 0) {
        cb_acme_free(a);
        return rc;
    }
    *out = a;
    return CB_OK;
}

void cb_acme_free(cb_acme *a) {
    if (!a) return;
    cb_fetch_free(&a->fetch);
    cb_timer_free(a->timer);
    end_core(a);
    texts_free(&a->contacts);
    texts_free(&a->names);
    cb_jwk_clear(&a->key);
    cb_jwk_clear(&a->new_key);
    if (a->key_pem.base) cb_mem_wipe(a->key_pem.base, a->key_pem.cap);
    cb_buf_free(&a->key_pem);
    cb_buf_free(&a->csr);
    cb_buf_free(&a->cert_der);
    cb_acme_store_close(&a->store);
    cb_mem_free(heap, a->directory);
    cb_mem_free(heap, a->kid);
    cb_mem_free(heap, a->eab_kid);
    cb_mem_free(heap, a->profile);
    cb_mem_wipe(a, sizeof *a);
    cb_mem_free(heap, a);
}

static int start(cb_acme *a, int job) {
    a->job = job;
    a->plan.reason = job == CB_ACME_JOB_REVOKE ? a->plan.reason : 0;
    int rc = begin(a, a->new_key.priv ? CB_ACME_JOB_PROBE : first_job(a));
    if (rc >= 0) rc = cb_timer_start(&a->timer, a->loop, 0, 0, on_time, a);
    if (rc < 0) end_core(a);
    a->busy = rc >= 0;
    return rc;
}

/* What is in STEM.pem, if it has these names; any_names: whatever it has. */
static int look_at_file(cb_acme *a, const char *name, bool any_names) {
    char file[300];
    cb_buf pem;
    cb_acme_store_name(file, name, ".pem");
    snprintf(a->file, sizeof a->file, "%s/%s", a->store.dir, file);
    memset(&a->cert, 0, sizeof a->cert);
    a->renew_at_s = 0;
    a->cert_der.len = 0;
    cb_buf_init(&pem, heap, CB_ACME_FILE_MAX);
    int rc = cb_acme_store_read(&a->store, file, &pem);
    if (rc >= 0 && (any_names || cb_acme_cert_has_names(cb_buf_slice(&pem), list(&a->names), a->names.len))) {
        rc = cb_acme_cert_read(&a->cert, cb_buf_slice(&pem), &a->cert_der);
    }
    if (pem.base) cb_mem_wipe(pem.base, pem.len);
    cb_buf_free(&pem);
    return rc;
}

static int check_order(const cb_acme_order *o) {
    if (!o->names || o->names_len == 0 || o->names_len > CB_ACME_NAMES) {
        return cb_fail(CB_EINVAL, "cb_acme_order: 1 to %d names", CB_ACME_NAMES);
    }
    if (o->challenge < 0 || o->challenge > CB_ACME_DNS_01)
        return cb_fail(CB_EINVAL, "cb_acme_order: challenge %d", o->challenge);
    if (o->key_type < 0 || o->key_type > CB_KEY_ED25519)
        return cb_fail(CB_EINVAL, "cb_acme_order: key_type %d", o->key_type);
    if (o->profile && !cb_web_is_token(o->profile, strlen(o->profile), 64)) {
        return cb_fail(CB_EINVAL, "cb_acme_order: \"%.80s\" is no name of a profile", o->profile);
    }
    for (size_t i = 0; i < o->names_len; i++) {
        int rc = cb_cert_check_name(o->names[i]);
        if (rc < 0) return rc;
        if (o->names[i][0] == '*' && o->challenge != CB_ACME_DNS_01) {
            return cb_fail(CB_EINVAL, "%s: a wildcard needs dns-01", o->names[i]);
        }
    }
    return CB_OK;
}

static int check_idle(const cb_acme *a) {
    if (!a) return cb_fail(CB_EINVAL, "cb_acme: a is NULL");
    return a->busy ? cb_fail(CB_EAGAIN, "an ACME job is under way") : CB_OK;
}

int cb_acme_issue(cb_acme *a, const cb_acme_order *order) {
    cb_acme_order o;
    int rc = check_idle(a);
    if (rc >= 0) rc = cb_opts_read(&o, sizeof o, order, "cb_acme_order");
    if (rc >= 0) rc = check_order(&o);
    if (rc >= 0) rc = texts_copy(&a->names, o.names, o.names_len);
    if (rc < 0) return rc;
    cb_mem_free(heap, a->profile);
    a->profile = cb_mem_text(heap, o.profile);
    if (o.profile && !a->profile) return cb_fail(CB_ENOMEM, "no memory for an ACME job");
    a->order = o;
    a->order.names = NULL;
    a->order.profile = NULL;
    if (!a->order.challenge) a->order.challenge = CB_ACME_HTTP_01;
    look_at_file(a, a->names.at[0], false); /* one that is not there or unreadable is replaced */
    return start(a, CB_ACME_JOB_ORDER);
}

int cb_acme_account(cb_acme *a, int op) {
    static const int jobs[] = {CB_ACME_JOB_ACCOUNT, CB_ACME_JOB_CONTACTS, CB_ACME_JOB_ROLL, CB_ACME_JOB_DEACTIVATE};
    int rc = check_idle(a);
    if (rc < 0) return rc;
    if (op < 0 || (size_t)op >= sizeof jobs / sizeof *jobs) return cb_fail(CB_EINVAL, "cb_acme_account: op %d", op);
    a->file[0] = '\0';
    memset(&a->cert, 0, sizeof a->cert);
    a->renew_at_s = 0;
    return start(a, jobs[op]);
}

int cb_acme_revoke(cb_acme *a, const char *name, uint32_t reason) {
    int rc = check_idle(a);
    if (rc >= 0) rc = cb_cert_check_name(name);
    if (rc >= 0) rc = look_at_file(a, name, true);
    if (rc < 0) return rc;
    a->plan.reason = reason;
    return start(a, CB_ACME_JOB_REVOKE);
}

const char *cb_acme_thumbprint(const cb_acme *a) {
    return a->key.thumbprint;
}

int64_t cb_acme_http01(char *out, size_t cap, const char *thumbprint, cb_slice path) {
    static const char prefix[] = "/.well-known/acme-challenge/";
    const size_t skip = sizeof prefix - 1;
    if (!out || cap < CB_ACME_HTTP01_BYTES)
        return cb_fail(CB_EINVAL, "cb_acme_http01: out has fewer than %d bytes", CB_ACME_HTTP01_BYTES);
    if (!thumbprint || strlen(thumbprint) != CB_ACME_THUMBPRINT ||
        !cb_web_is_token(thumbprint, CB_ACME_THUMBPRINT, CB_ACME_THUMBPRINT)) {
        return cb_fail(CB_EINVAL, "cb_acme_http01: not a thumbprint");
    }
    if (path.len <= skip || memcmp(path.base, prefix, skip) != 0 ||
        !cb_web_is_token((const char *)path.base + skip, path.len - skip, CB_ACME_TOKEN_BYTES)) {
        return CB_ENOENT;
    }
    return snprintf(out, cap, "%.*s.%s", (int)(path.len - skip), (const char *)path.base + skip, thumbprint);
}
