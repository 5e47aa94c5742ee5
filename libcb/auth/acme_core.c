#include "auth/acme_core.h"
#include "auth/acme_steps.h"
#include "base/error.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>

enum {
    BODY_MAX = 65536,
    CHAIN_MAX = CB_ACME_ANSWER_BYTES,
    BAD_NONCES = 25, /* one after another */
    FAILURES = 5,
    POLL_MS = 200,
    POLL_MAX_MS = 5000,
    RETRY_MS = 500
};

static const char error_urn[] = "urn:ietf:params:acme:error:";

int cb_acme_core_copy(char **to, const char *from) {
    char *copy = cb_mem_text(&cb_alloc_libc, from);
    if (!copy && from) return cb_fail(CB_ENOMEM, "no memory for an ACME job");
    cb_mem_free(&cb_alloc_libc, *to);
    *to = copy;
    return CB_OK;
}

int cb_acme_core_init(cb_acme_core *c, const cb_acme_plan *plan, const char *kid, const char *order_url) {
    memset(c, 0, sizeof *c);
    c->plan = plan;
    cb_buf_init(&c->request.body, &cb_alloc_libc, BODY_MAX);
    cb_buf_init(&c->chain, &cb_alloc_libc, CHAIN_MAX);
    int rc = kid ? cb_acme_core_copy(&c->kid, kid) : CB_OK;
    if (rc >= 0 && order_url) rc = cb_acme_core_copy(&c->order_url, order_url);
    c->resumed = c->order_url != NULL;
    return rc;
}

void cb_acme_core_clear(cb_acme_core *c) {
    char **const texts[] = {&c->new_nonce,   &c->new_account,  &c->new_order,  &c->revoke_cert,
                            &c->key_change,  &c->renewal_info, &c->kid,        &c->order_url,
                            &c->certificate, &c->finalize,     &c->request.url};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        cb_mem_free(&cb_alloc_libc, *texts[i]);
        *texts[i] = NULL;
    }
    for (size_t i = 0; i < c->authz_len; i++) {
        cb_mem_free(&cb_alloc_libc, c->authz[i].url);
        cb_mem_free(&cb_alloc_libc, c->authz[i].challenge);
        cb_mem_free(&cb_alloc_libc, c->authz[i].token);
        cb_mem_free(&cb_alloc_libc, c->authz[i].name);
    }
    c->authz_len = 0;
    cb_buf_free(&c->request.body);
    cb_buf_free(&c->chain);
}

void cb_acme_core_fail(cb_acme_core *c, int rc) {
    if (c->ended) return;
    c->ended = true;
    c->rc = rc;
    snprintf(c->detail, sizeof c->detail, "%s", cb_last_error());
}

void cb_acme_core_poll(cb_acme_core *c, cb_slice retry_after, int64_t now_ms) {
    int64_t at = cb_web_retry_after(retry_after, now_ms);
    int64_t own = POLL_MS;
    for (unsigned i = 0; i < c->polls && own < POLL_MAX_MS; i++)
        own += own / 2;
    if (own > POLL_MAX_MS) own = POLL_MAX_MS;
    c->polls++;
    c->wake_ms = at > now_ms ? at : now_ms + own;
}

/* --- requests --- */

static int put_protected(cb_acme_core *c, cb_buf *out, const cb_acme_step *step) {
    int rc = cb_buf_text(out, "{\"alg\":\"ES256\",");
    if (rc >= 0 && step->signer == CB_ACME_BY_KID) {
        rc = cb_buf_text(out, "\"kid\":");
        if (rc >= 0) rc = cb_web_put_text(out, c->kid);
    } else if (rc >= 0) {
        rc = cb_buf_printf(out, "\"jwk\":%s", c->plan->key->json);
    }
    if (rc >= 0) rc = cb_buf_printf(out, ",\"nonce\":\"%s\",\"url\":\"%s\"}", c->nonce, c->request.url);
    return rc;
}

static int make_post(cb_acme_core *c, const cb_acme_step *step) {
    cb_buf head, payload;
    cb_buf_init(&head, &cb_alloc_libc, BODY_MAX);
    cb_buf_init(&payload, &cb_alloc_libc, BODY_MAX);
    int rc = put_protected(c, &head, step);
    if (rc >= 0 && step->payload) rc = step->payload(c, &payload);
    if (rc >= 0) {
        rc = cb_acme_jws(&c->request.body, c->plan->key, (cb_slice){NULL, 0}, cb_buf_slice(&head),
                         cb_buf_slice(&payload));
    }
    c->nonce[0] = '\0'; /* each is good for one request */
    cb_buf_free(&head);
    cb_buf_free(&payload);
    return rc;
}

static int make_request(cb_acme_core *c) {
    const cb_acme_step *step = cb_acme_step_get(c->step);
    const bool post = step->signer != CB_ACME_GET;
    c->want_nonce = post && !c->nonce[0];
    c->request.body.len = 0;
    int rc = cb_acme_core_copy(&c->request.url, c->want_nonce ? c->new_nonce : step->url(c));
    if (rc < 0) return rc;
    if (!c->request.url) return cb_fail(CB_ENOTSUP, "the server has no %s", step->name);
    c->request.method = c->want_nonce ? "HEAD" : post ? "POST" : "GET";
    c->request.accept = c->step == STEP_CERTIFICATE ? "application/pem-certificate-chain" : "application/json";
    return post && !c->want_nonce ? make_post(c, step) : CB_OK;
}

/* Names that were authorized before need no challenge. */
static void skip_done(cb_acme_core *c) {
    if (c->step != STEP_CHALLENGE && c->step != STEP_POLL_AUTHZ) return;
    while (c->at < c->authz_len && c->authz[c->at].done)
        c->at++;
    if (c->at < c->authz_len) return;
    c->at = 0;
    c->step = c->step == STEP_CHALLENGE ? STEP_POLL_AUTHZ : STEP_ORDER;
    skip_done(c);
}

enum cb_acme_what cb_acme_core_next(cb_acme_core *c, int64_t now_ms) {
    if (!c->started) c->end_ms = now_ms + c->plan->patience_ms;
    c->started = true;
    if (c->save) { /* also of a job that failed since */
        c->save = false;
        return CB_ACME_SAVE;
    }
    if (c->step == STEP_END) c->ended = true;
    if (!c->ended && (now_ms >= c->end_ms || c->wake_ms > c->end_ms)) {
        const char *name = c->at < c->authz_len ? c->authz[c->at].name : NULL;
        char plain[280], last[sizeof c->detail];
        cb_web_plain(plain, sizeof plain, name);
        snprintf(last, sizeof last, "%s", c->detail);
        cb_acme_core_fail(c, cb_fail(CB_ETIMEOUT, "ACME: not done within %lld s: waiting for %s%s%s%s%s",
                                     (long long)(c->plan->patience_ms / 1000), cb_acme_step_get(c->step)->name,
                                     *plain ? " of " : "", plain, *last ? "; " : "", last));
    }
    if (c->ended) return CB_ACME_END;
    if (c->present) return CB_ACME_PRESENT;
    if (c->sent || now_ms < c->wake_ms) return CB_ACME_WAIT;
    skip_done(c);
    int rc = make_request(c);
    if (rc < 0) {
        cb_acme_core_fail(c, rc);
        return CB_ACME_END;
    }
    c->sent = true;
    return CB_ACME_SEND;
}

void cb_acme_core_presented(cb_acme_core *c, int rc, int64_t now_ms) {
    c->present = false;
    if (rc < 0) {
        cb_acme_core_fail(c, rc);
        return;
    }
    c->authz[c->at].presented = true;
    c->at++;
    c->step = c->at < c->authz_len ? STEP_AUTHZ : STEP_CHALLENGE;
    if (c->step != STEP_CHALLENGE) return;
    c->at = 0;
    c->wake_ms = now_ms + c->plan->settle_ms;
}

/* --- answers --- */

static void take_nonce(cb_acme_core *c, cb_slice nonce) {
    if (!cb_web_is_token((const char *)nonce.base, nonce.len, CB_ACME_TOKEN_BYTES)) return;
    memcpy(c->nonce, nonce.base, nonce.len);
    c->nonce[nonce.len] = '\0';
}

static int again(cb_acme_core *c, int rc, cb_slice retry_after, int64_t now_ms) {
    if (++c->failures > FAILURES) return rc;
    snprintf(c->detail, sizeof c->detail, "%s", cb_last_error());
    const int64_t at = cb_web_retry_after(retry_after, now_ms);
    c->wake_ms = at > now_ms ? at : now_ms + ((int64_t)RETRY_MS << (c->failures - 1));
    return CB_OK;
}

void cb_acme_core_unanswered(cb_acme_core *c, int rc, int64_t now_ms) {
    c->sent = false;
    rc = again(c, rc, (cb_slice){NULL, 0}, now_ms);
    if (rc < 0) cb_acme_core_fail(c, rc);
}

static const char *text_of(cb_acme_value of, const char *name) {
    const char *text = cb_acme_text(of, name);
    return text ? text : "";
}

/* The words of a problem, and of the first of its subproblems (RFC 8555 6.7.1). */
static void words(char *out, size_t cap, cb_acme_value problem) {
    char type[64], detail[320], name[80];
    const char *from = text_of(problem, "type");
    const cb_acme_value sub = cb_acme_first(cb_acme_member(problem, "subproblems"));
    cb_web_plain(type, sizeof type,
                 strncmp(from, error_urn, sizeof error_urn - 1) ? from : from + sizeof error_urn - 1);
    cb_web_plain(detail, sizeof detail, text_of(problem, "detail"));
    int n = snprintf(out, cap, "%s: %s", type, detail);
    if (!cb_acme_is(sub, CB_JSON_OBJECT) || n < 0 || (size_t)n >= cap) return;
    cb_web_plain(name, sizeof name, text_of(cb_acme_member(sub, "identifier"), "value"));
    cb_web_plain(detail, sizeof detail, text_of(sub, "detail"));
    snprintf(out + n, cap - (size_t)n, " (%s: %s)", name, detail);
}

int cb_acme_core_problem(cb_acme_value problem, const char *what) {
    char text[500] = "no reason given";
    if (cb_acme_is(problem, CB_JSON_OBJECT)) words(text, sizeof text, problem);
    return cb_fail(CB_EAUTH, "ACME: %s: %s", what, text);
}

static int code_of(const char *type, int status) {
    static const struct {
        const char *type;
        int rc;
    } table[] = {
        {"malformed", CB_EPROTO},
        {"badCSR", CB_EPROTO},
        {"badSignatureAlgorithm", CB_ENOTSUP},
        {"serverInternal", CB_EUNREACH},
        {"alreadyRevoked", CB_EEXIST},
        {"accountDoesNotExist", CB_ENOENT},
        {"invalidProfile", CB_ENOTSUP},
        {"unsupportedContact", CB_EINVAL},
        {"invalidContact", CB_EINVAL},
        {"unsupportedIdentifier", CB_ENOTSUP},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (strcmp(type, table[i].type) == 0) return table[i].rc;
    }
    return status >= 500 ? CB_EUNREACH : CB_EAUTH;
}

static int take_problem(cb_acme_core *c, const cb_acme_answer *a, const cb_acme_step *step, int64_t now_ms) {
    char text[500] = "no problem document", type[64] = "";
    const bool typed = cb_web_is_type(a->content_type, "application/problem+json");
    cb_json json = {0};
    if (typed && cb_acme_json(&json, a->body) >= 0) {
        const char *from = text_of(cb_acme_root(&json), "type");
        if (strncmp(from, error_urn, sizeof error_urn - 1) == 0) {
            cb_web_plain(type, sizeof type, from + sizeof error_urn - 1);
        }
        words(text, sizeof text, cb_acme_root(&json));
    }
    cb_json_close(&json);
    if (strcmp(type, "badNonce") == 0 && step->signer != CB_ACME_GET) {
        if (++c->bad_nonces <= BAD_NONCES) return CB_OK;
        return cb_fail(CB_EPROTO, "ACME: %s: the server refused %d nonces in a row", step->name, BAD_NONCES);
    }
    if (a->status == 429 || strcmp(type, "rateLimited") == 0) {
        c->retry_at_s = cb_web_retry_after(a->retry_after, now_ms) / 1000;
        return cb_fail(CB_ELIMIT, "ACME: %s: %d %s", step->name, a->status, text);
    }
    if (step->problem && step->problem(c, type, a->status, now_ms)) return CB_OK;
    int rc = cb_fail(code_of(type, a->status), "ACME: %s: %d %s", step->name, a->status, text);
    return a->status >= 500 ? again(c, rc, a->retry_after, now_ms) : rc;
}

static int take_nonce_answer(const cb_acme_core *c, const cb_acme_answer *a) {
    if (a->status != 200 && a->status != 204) return cb_fail(CB_EPROTO, "ACME: newNonce: status %d", a->status);
    return c->nonce[0] ? CB_OK : cb_fail(CB_EPROTO, "ACME: newNonce: no usable Replay-Nonce");
}

static int take_good(cb_acme_core *c, const cb_acme_answer *a, const cb_acme_step *step, int64_t now_ms) {
    char detail[512];
    if (step->text) return step->take(c, a, (cb_acme_value){NULL, NULL}, now_ms);
    if (!cb_web_is_type(a->content_type, "application/json")) {
        cb_web_plain(detail, sizeof detail,
                     a->content_type.len ? "another content type than application/json" : "no content type");
        return cb_fail(CB_EPROTO, "ACME: %s: an answer of %s", step->name, detail);
    }
    cb_json json;
    int rc = cb_acme_json(&json, a->body);
    if (rc >= 0) rc = step->take(c, a, cb_acme_root(&json), now_ms);
    cb_json_close(&json);
    if (rc == CB_EPROTO) {
        snprintf(detail, sizeof detail, "%s", cb_last_error());
        rc = cb_fail(rc, "ACME: %s: %s", step->name, detail);
    }
    return rc;
}

void cb_acme_core_answer(cb_acme_core *c, const cb_acme_answer *a, int64_t now_ms) {
    const cb_acme_step *step = cb_acme_step_get(c->step);
    int rc;
    if (c->ended || !c->sent) return;
    c->sent = false;
    take_nonce(c, a->nonce);
    if (a->status >= 300 && a->status < 400) {
        rc = cb_fail(CB_EPROTO, "ACME: %s: status %d: redirects are not followed", step->name, a->status);
    } else if (c->want_nonce && a->status < 400) {
        rc = take_nonce_answer(c, a);
    } else if (a->status >= 200 && a->status < 300) {
        const uint8_t before = c->step;
        c->failures = c->bad_nonces = 0;
        c->detail[0] = '\0';
        rc = take_good(c, a, step, now_ms);
        if (c->step != before && c->wake_ms <= now_ms) c->polls = 0;
    } else {
        rc = take_problem(c, a, step, now_ms);
    }
    if (rc < 0) cb_acme_core_fail(c, rc);
}
