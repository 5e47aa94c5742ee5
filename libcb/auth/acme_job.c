/* A job: perhaps a probe for a key that was being rolled, perhaps renewal information, then what was asked for. The
 * core's requests go through an HTTP client, its state into files. */
#include "auth/acme_int.h"
#include "auth/acme_self.h"
#include "auth/renew_time.h"
#include "base/error.h"
#include "base/list.h"
#include "base/mem.h"
#include "loop/loop_int.h"
#include "loop/turn.h"
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { REQUEST_MS = 30000, RETRY_MIN_S = 60, RETRY_MAX_S = 6 * 3600 };

static const cb_alloc *const heap = &cb_alloc_libc;

int64_t cb_acme_wall_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void drive(cb_acme *a);

void cb_acme_job_end(cb_acme *a) {
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
        .settle_ms = a->settle_ms,
        .key = job == CB_ACME_JOB_PROBE ? &a->new_key : &a->key,
        .new_key = &a->new_key,
        .contacts = cb_acme_list(&a->contacts),
        .contacts_len = a->contacts.len,
        .eab_kid = a->eab_kid,
        .eab_key = {a->eab_key, a->eab_key_len},
        .names = cb_acme_list(&a->names),
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
        rc = cb_acme_files_load_order(a, &url);
        if (rc >= 0 && !url) rc = cb_acme_make_key(&a->key_pem, a->order.key_type);
        if (rc >= 0) rc = cb_acme_make_csr(&a->csr, cb_buf_slice(&a->key_pem), cb_acme_list(&a->names), a->names.len);
    }
    if (rc >= 0 && job == CB_ACME_JOB_ROLL) rc = cb_acme_files_make_new_key(a);
    cb_acme_job_end(a);
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

/* What a TLS server has to show (RFC 8737, 3), for a week: longer than any order waits. */
static int make_alpn01(cb_buf *pem, const cb_acme_challenge *c) {
    const cb_acme_self o = {.names = &c->name,
                            .names_len = 1,
                            .common_name = "tls-alpn-01",
                            .key_auth = c->key_auth,
                            .now_s = cb_acme_wall_ms() / 1000,
                            .days = 7};
    int rc = cb_acme_self_signed(pem, &o);
    return rc < 0 ? rc : cb_buf_add(pem, "", 1);
}

static void present(cb_acme *a) {
    char auth[CB_ACME_HTTP01_BYTES], dns[44];
    cb_acme_challenge c;
    cb_buf pem;
    int rc = CB_OK;
    give_challenge(a, &a->core.authz[a->core.at], &c, auth, dns);
    cb_buf_init(&pem, heap, CB_ACME_KEY_BYTES);
    if (c.type == CB_ACME_TLS_ALPN_01) {
        rc = make_alpn01(&pem, &c);
        c.pem = (const char *)pem.base;
    }
    if (rc >= 0 && a->ops->on_challenge) rc = a->ops->on_challenge(a, &c, a->user);
    if (rc >= 0)
        cb_cells_add(cb_loop_cells(a->loop),
                     c.type == CB_ACME_DNS_01        ? CB_C_ACME_CHALLENGES_DNS_01
                     : c.type == CB_ACME_TLS_ALPN_01 ? CB_C_ACME_CHALLENGES_TLS_ALPN_01
                                                     : CB_C_ACME_CHALLENGES_HTTP_01,
                     1);
    if (pem.base) cb_mem_wipe(pem.base, pem.len);
    cb_buf_free(&pem);
    cb_acme_core_presented(&a->core, rc, cb_acme_wall_ms());
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
        if (rc >= 0) rc = cb_acme_files_save_account(a);
    }
    if (rc >= 0 && a->plan.job == CB_ACME_JOB_ORDER && a->core.order_url) rc = cb_acme_files_save_order(a);
    return rc;
}

/* When to try again what failed. */
static int64_t retry_at(const cb_acme *a) {
    uint32_t spread = 0;
    gnutls_rnd(GNUTLS_RND_NONCE, &spread, sizeof spread);
    const int64_t own =
        cb_acme_wall_ms() / 1000 + cb_renew_wait(a->order.failures + 1u, RETRY_MIN_S, RETRY_MAX_S, spread);
    return a->core.retry_at_s > own ? a->core.retry_at_s : own;
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
        .retry_at_s = rc < 0 ? retry_at(a) : 0,
        .issued = issued,
        .check_at_s = a->check_at_s,
    };
    cb_acme_job_end(a);
    a->busy = false;
    cb_cells_add(cb_loop_cells(a->loop),
                 rc < 0   ? CB_C_ACME_ORDERS_FAILED
                 : issued ? CB_C_ACME_ORDERS_ISSUED
                          : CB_C_ACME_ORDERS_NOTHING,
                 1);
    cb_cells_observe(cb_loop_cells(a->loop), CB_C_ACME_SECONDS, cb_loop_now(a->loop) - a->begun);
    cb_error_set(rc, text);
    if (a->ops->on_done) a->ops->on_done(a, rc, &result, a->user); /* a may be gone */
}

/* What the probe found: whether the server took a key that we did not hear of. */
static int after_probe(cb_acme *a, int rc) {
    if (rc >= 0) return cb_acme_files_take_new_key(a);
    return rc == CB_ENOENT ? cb_acme_files_drop_new_key(a) : rc;
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
        a->renew_at_s = rc >= 0 && a->core.renew_at_s
                            ? a->core.renew_at_s
                            : cb_renew_at(a->cert.not_before_s, a->cert.not_after_s, a->cert.spread);
        a->check_at_s = rc >= 0 ? a->core.check_at_s : 0;
        if (a->renew_at_s <= cb_acme_wall_ms() / 1000) return begin(a, CB_ACME_JOB_ORDER) >= 0;
        rc = CB_OK;
        cb_acme_files_forget_order(a, rc); /* of a process that ended between the certificate and this */
    } else if (part == CB_ACME_JOB_ORDER) {
        const bool ok = rc >= 0;
        clean(a);
        if (ok) rc = cb_acme_files_keep(a);
        if (ok && rc < 0) snprintf(a->core.detail, sizeof a->core.detail, "ACME: %s", cb_last_error());
        issued = rc >= 0;
        cb_acme_files_forget_order(a, rc);
    } else if (part == CB_ACME_JOB_ROLL) {
        /* Lost answers leave both keys: the next job's probe finds out. */
        if (rc >= 0) {
            rc = cb_acme_files_take_new_key(a);
        } else if (rc == CB_EAUTH || rc == CB_EPROTO || rc == CB_ENOTSUP || rc == CB_ELIMIT) {
            cb_acme_files_drop_new_key(a);
        }
    }
    finish(a, rc, a->core.detail, issued);
    return false;
}

/* --- HTTP --- */

void cb_acme_on_answer(cb_fetch *fetch, cb_exchange *x, int rc) {
    cb_acme *a = CB_CONTAINER(fetch, cb_acme, fetch);
    if (fetch->too_large) {
        cb_acme_core_fail(&a->core, cb_fail(CB_EPROTO, "ACME: an answer of more than %d bytes", CB_ACME_ANSWER_BYTES));
    } else if (rc < 0) {
        cb_acme_core_unanswered(&a->core, rc, cb_acme_wall_ms());
    } else {
        const cb_acme_answer answer = {
            .status = cb_exchange_status(x),
            .nonce = cb_exchange_field(x, "replay-nonce"),
            .location = cb_exchange_field(x, "location"),
            .retry_after = cb_exchange_field(x, "retry-after"),
            .content_type = cb_exchange_field(x, "content-type"),
            .body = cb_buf_slice(&fetch->answer),
        };
        cb_acme_core_answer(&a->core, &answer, cb_acme_wall_ms());
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
    const int64_t now = cb_acme_wall_ms();
    if (a->fetch.x || a->timer) return;
    int rc = cb_timer_start(&a->timer, a->loop, at_ms > now ? (uint64_t)(at_ms - now) : 0, 0, on_time, a);
    if (rc < 0) cb_acme_core_fail(&a->core, rc);
}

static void drive(cb_acme *a) {
    for (;;) {
        int rc = CB_OK;
        switch (cb_acme_core_next(&a->core, cb_acme_wall_ms())) {
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

int cb_acme_job_start(cb_acme *a, int job) {
    a->check_at_s = 0;
    a->begun = cb_loop_now(a->loop);
    a->job = job;
    a->plan.reason = job == CB_ACME_JOB_REVOKE ? a->plan.reason : 0;
    int rc = begin(a, a->new_key.priv ? CB_ACME_JOB_PROBE : first_job(a));
    if (rc >= 0) rc = cb_timer_start(&a->timer, a->loop, 0, 0, on_time, a);
    if (rc < 0) cb_acme_job_end(a);
    a->busy = rc >= 0;
    return rc;
}
