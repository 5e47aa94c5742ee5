/* What is sent and taken in each step of RFC 8555 7, and RFC 9773 4. */
#include "auth/acme_steps.h"
#include "base/error.h"
#include "base/mem.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { ARI_S = 6 * 3600, ARI_MIN_S = 60, ARI_MAX_S = 86400 }; /* RFC 9773, 4.3 */

static int keep_url(cb_acme_core *c, char **to, const char *url, const char *what) {
    int rc = cb_web_url_check(url, c->plan->directory, c->plan->other_hosts, what);
    return rc < 0 ? rc : cb_acme_core_copy(to, url);
}

static int keep_location(cb_acme_core *c, char **to, cb_slice location, const char *what) {
    char url[CB_WEB_URL_BYTES + 1];
    if (location.len == 0 || location.len > CB_WEB_URL_BYTES || memchr(location.base, 0, location.len)) {
        return cb_fail(CB_EPROTO, "no usable Location of %s", what);
    }
    memcpy(url, location.base, location.len);
    url[location.len] = '\0';
    return keep_url(c, to, url, what);
}

/* --- directory --- */

static int first_step(const cb_acme_core *c) {
    static const uint8_t after[] = {
        [CB_ACME_JOB_ACCOUNT] = STEP_END,
        [CB_ACME_JOB_CONTACTS] = STEP_CONTACTS,
        [CB_ACME_JOB_ROLL] = STEP_ROLL,
        [CB_ACME_JOB_PROBE] = STEP_END,
        [CB_ACME_JOB_DEACTIVATE] = STEP_DEACTIVATE,
        [CB_ACME_JOB_ORDER] = STEP_NEW_ORDER,
        [CB_ACME_JOB_REVOKE] = STEP_REVOKE,
        [CB_ACME_JOB_ARI] = STEP_ARI,
    };
    return c->plan->job == CB_ACME_JOB_ORDER && c->order_url ? STEP_ORDER : after[c->plan->job];
}

static int take_directory(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    (void)a;
    (void)now_ms;
    const struct {
        const char *name;
        char **to;
        bool needed;
    } members[] = {
        {"newNonce", &c->new_nonce, true},    {"newAccount", &c->new_account, true},
        {"newOrder", &c->new_order, true},    {"revokeCert", &c->revoke_cert, false},
        {"keyChange", &c->key_change, false}, {"renewalInfo", &c->renewal_info, false},
    };
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        const char *url = cb_acme_text(json, members[i].name);
        if (!url && !members[i].needed) continue;
        int rc = keep_url(c, members[i].to, url, members[i].name);
        if (rc < 0) return rc;
    }
    if (c->plan->job == CB_ACME_JOB_ARI && c->renewal_info) {
        char url[CB_WEB_URL_BYTES + 256];
        snprintf(url, sizeof url, "%s/%s", c->renewal_info, c->plan->cert_id);
        int rc = cb_acme_core_copy(&c->certificate, url);
        if (rc < 0) return rc;
    }
    const cb_acme_value meta = cb_acme_member(json, "meta");
    const char *profile = c->plan->profile;
    if (c->plan->job == CB_ACME_JOB_ORDER && profile && !cb_acme_member(cb_acme_member(meta, "profiles"), profile).at) {
        return cb_fail(CB_ENOTSUP, "ACME: the server offers no profile \"%s\"", profile);
    }
    const bool makes = !c->kid && c->plan->job != CB_ACME_JOB_PROBE && c->plan->job != CB_ACME_JOB_ARI;
    if (makes && cb_acme_is(cb_acme_member(meta, "externalAccountRequired"), CB_JSON_TRUE) && !c->plan->eab_kid) {
        return cb_fail(CB_EAUTH, "ACME: the server wants an external account binding (eab_kid, eab_key)");
    }
    if (makes && cb_acme_text(meta, "termsOfService") && !c->plan->agree_terms) {
        char terms[300];
        cb_web_plain(terms, sizeof terms, cb_acme_text(meta, "termsOfService"));
        return cb_fail(CB_EAUTH, "ACME: the server wants agreement to its terms: %s", terms);
    }
    /* A probe, and whoever has no account yet, ask for it by its key. */
    c->step = c->kid || c->plan->job == CB_ACME_JOB_ARI ? (uint8_t)first_step(c) : STEP_ACCOUNT;
    if (c->plan->job == CB_ACME_JOB_ACCOUNT || c->plan->job == CB_ACME_JOB_PROBE) c->step = STEP_ACCOUNT;
    return CB_OK;
}

/* --- renewal information --- */

static const char *ari_url(const cb_acme_core *c) {
    return c->certificate;
}

static int take_ari(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    const int64_t again = cb_web_retry_after(a->retry_after, now_ms) / 1000, now_s = now_ms / 1000;
    const cb_acme_value window = cb_acme_member(json, "suggestedWindow");
    const int64_t start = cb_web_date(cb_acme_text(window, "start")), end = cb_web_date(cb_acme_text(window, "end"));
    if (start < 0 || end < 0 || end <= start) return cb_fail(CB_EPROTO, "a suggestedWindow that is none");
    c->renew_at_s = start + (int64_t)((double)(end - start) * c->plan->spread / 4294967296.0);
    c->check_at_s = again ? again : now_s + ARI_S;
    if (c->check_at_s < now_s + ARI_MIN_S) c->check_at_s = now_s + ARI_MIN_S;
    if (c->check_at_s > now_s + ARI_MAX_S) c->check_at_s = now_s + ARI_MAX_S;
    const char *page = cb_acme_text(json, "explanationURL");
    if (page) cb_web_plain(c->explanation, sizeof c->explanation, page);
    c->step = STEP_END;
    return CB_OK;
}

/* --- account --- */

static int put_contacts(const cb_acme_core *c, cb_buf *out) {
    int rc = cb_buf_text(out, "\"contact\":[");
    for (size_t i = 0; rc >= 0 && i < c->plan->contacts_len; i++) {
        if (i) rc = cb_buf_text(out, ",");
        if (rc >= 0) rc = cb_web_put_text(out, c->plan->contacts[i]);
    }
    return rc >= 0 ? cb_buf_text(out, "]") : rc;
}

static int put_eab(const cb_acme_core *c, cb_buf *out) {
    cb_buf head;
    cb_buf_init(&head, &cb_alloc_libc, 4096);
    int rc = cb_buf_text(&head, "{\"alg\":\"HS256\",\"kid\":");
    if (rc >= 0) rc = cb_web_put_text(&head, c->plan->eab_kid);
    if (rc >= 0) rc = cb_buf_printf(&head, ",\"url\":\"%s\"}", c->new_account);
    if (rc >= 0) rc = cb_buf_text(out, ",\"externalAccountBinding\":");
    if (rc >= 0) rc = cb_acme_jws(out, NULL, c->plan->eab_key, cb_buf_slice(&head), cb_slice_str(c->plan->key->json));
    cb_buf_free(&head);
    return rc;
}

static int account_payload(cb_acme_core *c, cb_buf *out) {
    const cb_acme_plan *p = c->plan;
    if (p->job == CB_ACME_JOB_PROBE) return cb_buf_text(out, "{\"onlyReturnExisting\":true}");
    int rc = cb_buf_text(out, "{");
    if (rc >= 0 && p->agree_terms) rc = cb_buf_text(out, "\"termsOfServiceAgreed\":true,");
    if (rc >= 0) rc = put_contacts(c, out);
    if (rc >= 0 && p->eab_kid) rc = put_eab(c, out);
    return rc >= 0 ? cb_buf_text(out, "}") : rc;
}

static const char *account_url(const cb_acme_core *c) {
    return c->new_account;
}

static int take_account(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    (void)now_ms;
    const char *status = cb_acme_text(json, "status");
    if (status && strcmp(status, "valid") != 0) {
        char plain[40];
        cb_web_plain(plain, sizeof plain, status);
        return cb_fail(CB_EAUTH, "ACME: the account is %s", plain);
    }
    int rc = keep_location(c, &c->kid, a->location, "the account");
    if (rc < 0) return rc;
    c->save = true;
    c->step = (uint8_t)first_step(c);
    return CB_OK;
}

static const char *kid_url(const cb_acme_core *c) {
    return c->kid;
}

static int contacts_payload(cb_acme_core *c, cb_buf *out) {
    int rc = cb_buf_text(out, "{");
    if (rc >= 0) rc = put_contacts(c, out);
    return rc >= 0 ? cb_buf_text(out, "}") : rc;
}

static int deactivate_payload(cb_acme_core *c, cb_buf *out) {
    (void)c;
    return cb_buf_text(out, "{\"status\":\"deactivated\"}");
}

static const char *roll_url(const cb_acme_core *c) {
    return c->key_change;
}

/* RFC 8555 7.3.5: signed by the new key within what is signed by the old one. */
static int roll_payload(cb_acme_core *c, cb_buf *out) {
    cb_buf head, body;
    cb_buf_init(&head, &cb_alloc_libc, 4096);
    cb_buf_init(&body, &cb_alloc_libc, 4096);
    int rc =
        cb_buf_printf(&head, "{\"alg\":\"ES256\",\"jwk\":%s,\"url\":\"%s\"}", c->plan->new_key->json, c->key_change);
    if (rc >= 0) rc = cb_buf_text(&body, "{\"account\":");
    if (rc >= 0) rc = cb_web_put_text(&body, c->kid);
    if (rc >= 0) rc = cb_buf_printf(&body, ",\"oldKey\":%s}", c->plan->key->json);
    if (rc >= 0) rc = cb_acme_jws(out, c->plan->new_key, (cb_slice){NULL, 0}, cb_buf_slice(&head), cb_buf_slice(&body));
    cb_buf_free(&head);
    cb_buf_free(&body);
    return rc;
}

static int take_end(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    (void)a;
    (void)json;
    (void)now_ms;
    c->step = STEP_END;
    return CB_OK;
}

/* A server that forgot the account gets it anew, once. */
static bool account_gone(cb_acme_core *c, const char *type, int status, int64_t now_ms) {
    (void)status;
    (void)now_ms;
    if (strcmp(type, "accountDoesNotExist") != 0 || c->remade) return false;
    c->remade = true;
    if (cb_acme_core_copy(&c->order_url, NULL) < 0 || cb_acme_core_copy(&c->kid, NULL) < 0) return false;
    c->resumed = false;
    c->step = STEP_ACCOUNT;
    return true;
}

/* --- revocation --- */

static const char *revoke_url(const cb_acme_core *c) {
    return c->revoke_cert;
}

static int revoke_payload(cb_acme_core *c, cb_buf *out) {
    int rc = cb_buf_text(out, "{\"certificate\":\"");
    if (rc >= 0) rc = cb_acme_base64url(out, c->plan->cert.base, c->plan->cert.len);
    if (rc >= 0) rc = cb_buf_printf(out, "\",\"reason\":%u}", c->plan->reason);
    return rc;
}

/* --- orders --- */

static const char *new_order_url(const cb_acme_core *c) {
    return c->new_order;
}

static bool is_ip(const char *name) {
    uint8_t ip[16];
    return inet_pton(AF_INET, name, ip) == 1 || inet_pton(AF_INET6, name, ip) == 1;
}

static int new_order_payload(cb_acme_core *c, cb_buf *out) {
    const cb_acme_plan *p = c->plan;
    int rc = cb_buf_text(out, "{\"identifiers\":[");
    for (size_t i = 0; rc >= 0 && i < p->names_len; i++) {
        rc = cb_buf_printf(out, "%s{\"type\":\"%s\",\"value\":", i ? "," : "", is_ip(p->names[i]) ? "ip" : "dns");
        if (rc >= 0) rc = cb_web_put_text(out, p->names[i]);
        if (rc >= 0) rc = cb_buf_text(out, "}");
    }
    if (rc >= 0) rc = cb_buf_text(out, "]");
    if (rc >= 0 && p->profile) {
        rc = cb_buf_text(out, ",\"profile\":");
        if (rc >= 0) rc = cb_web_put_text(out, p->profile);
    }
    if (rc >= 0 && p->replaces && c->renewal_info && !c->no_replaces) {
        rc = cb_buf_text(out, ",\"replaces\":");
        if (rc >= 0) rc = cb_web_put_text(out, p->replaces);
    }
    return rc >= 0 ? cb_buf_text(out, "}") : rc;
}

static int take_authorizations(cb_acme_core *c, cb_acme_value json) {
    const cb_acme_value list = cb_acme_member(json, "authorizations");
    const uint32_t n = cb_acme_is(list, CB_JSON_LIST) ? list.at->len : 0;
    if (n < 1 || n > CB_ACME_NAMES) return cb_fail(CB_EPROTO, "%u authorizations", n);
    if (c->authz_len) { /* known from before */
        return n == c->authz_len ? CB_OK : cb_fail(CB_EPROTO, "the order's authorizations change");
    }
    for (cb_acme_value url = cb_acme_first(list); url.at; url = cb_acme_next(list, url)) {
        const char *text = cb_acme_is(url, CB_JSON_TEXT) ? json.json->text + url.at->at : NULL;
        int rc = keep_url(c, &c->authz[c->authz_len].url, text, "an authorization");
        c->authz_len++;
        if (rc < 0) return rc;
    }
    return CB_OK;
}

/* Instead of one of an earlier run that came to nothing. */
static int renew_order(cb_acme_core *c) {
    for (size_t i = 0; i < c->authz_len; i++) {
        if (c->authz[i].presented)
            return cb_fail(CB_EAUTH, "ACME: the order came to nothing; the next try begins anew");
    }
    for (size_t i = 0; i < c->authz_len; i++) {
        cb_mem_free(&cb_alloc_libc, c->authz[i].url);
        cb_mem_free(&cb_alloc_libc, c->authz[i].challenge);
        cb_mem_free(&cb_alloc_libc, c->authz[i].token);
        cb_mem_free(&cb_alloc_libc, c->authz[i].name);
        memset(&c->authz[i], 0, sizeof c->authz[i]);
    }
    c->authz_len = c->at = 0;
    c->resumed = false;
    c->step = STEP_NEW_ORDER;
    return cb_acme_core_copy(&c->order_url, NULL);
}

static int order_pending(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    int rc = take_authorizations(c, json);
    if (rc < 0) return rc;
    bool open = false;
    for (size_t i = 0; i < c->authz_len; i++)
        open = open || !c->authz[i].done;
    if (open) {
        c->step = STEP_AUTHZ;
        c->at = 0;
    } else { /* all are valid: the server only needs a moment */
        c->step = STEP_ORDER;
        cb_acme_core_poll(c, a->retry_after, now_ms);
    }
    return CB_OK;
}

static int order_ready(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    (void)json;
    if (c->step == STEP_FINALIZE) { /* it was sent, and the order did not move */
        c->step = STEP_ORDER;
        cb_acme_core_poll(c, a->retry_after, now_ms);
        return CB_OK;
    }
    c->step = STEP_FINALIZE;
    return CB_OK;
}

static int order_processing(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    (void)json;
    c->step = STEP_ORDER;
    cb_acme_core_poll(c, a->retry_after, now_ms);
    return CB_OK;
}

static int order_valid(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    (void)a;
    (void)now_ms;
    c->step = STEP_CERTIFICATE;
    return keep_url(c, &c->certificate, cb_acme_text(json, "certificate"), "the certificate");
}

static int order_invalid(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    (void)a;
    (void)now_ms;
    return c->resumed ? renew_order(c) : cb_acme_core_problem(cb_acme_member(json, "error"), "the order is invalid");
}

static int take_order(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    static const struct {
        const char *status;
        int (*take)(cb_acme_core *, const cb_acme_answer *, cb_acme_value, int64_t);
    } table[] = {
        {"pending", order_pending}, {"ready", order_ready},     {"processing", order_processing},
        {"valid", order_valid},     {"invalid", order_invalid},
    };
    const char *status = cb_acme_text(json, "status");
    int rc = keep_url(c, &c->finalize, cb_acme_text(json, "finalize"), "finalize");
    if (rc < 0) return rc;
    for (size_t i = 0; status && i < sizeof table / sizeof *table; i++) {
        if (strcmp(status, table[i].status) == 0) return table[i].take(c, a, json, now_ms);
    }
    return cb_fail(CB_EPROTO, "an order of unknown status");
}

static int take_new_order(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    int rc = keep_location(c, &c->order_url, a->location, "the order");
    if (rc < 0) return rc;
    c->save = true;
    return take_order(c, a, json, now_ms);
}

static bool new_order_problem(cb_acme_core *c, const char *type, int status, int64_t now_ms) {
    if (c->plan->replaces && !c->no_replaces && (strcmp(type, "alreadyReplaced") == 0 || status == 409)) {
        c->no_replaces = true;
        return true;
    }
    return account_gone(c, type, status, now_ms);
}

static const char *order_url(const cb_acme_core *c) {
    return c->order_url;
}

static bool order_problem(cb_acme_core *c, const char *type, int status, int64_t now_ms) {
    if (account_gone(c, type, status, now_ms)) return true;
    return c->resumed && status < 500 && renew_order(c) >= 0; /* it is gone: a new one, once */
}

/* --- authorizations --- */

static const char *authz_url(const cb_acme_core *c) {
    return c->authz[c->at].url;
}

static void next_authz(cb_acme_core *c, uint8_t after) {
    if (++c->at < c->authz_len) return;
    c->at = 0;
    c->step = after;
}

static bool asked_for(const cb_acme_core *c, const char *name, bool wildcard) {
    for (size_t i = 0; i < c->plan->names_len; i++) {
        const char *want = c->plan->names[i];
        const bool star = strncmp(want, "*.", 2) == 0;
        if (star == wildcard && strcasecmp(star ? want + 2 : want, name) == 0) return true;
        uint8_t a[16], b[16];
        if (inet_pton(AF_INET6, want, a) == 1 && inet_pton(AF_INET6, name, b) == 1 && memcmp(a, b, 16) == 0)
            return true;
    }
    return false;
}

static int choose_challenge(cb_acme_core *c, cb_acme_authz *z, cb_acme_value json) {
    static const char *const types[] = {
        [CB_ACME_HTTP_01] = "http-01", [CB_ACME_DNS_01] = "dns-01", [CB_ACME_TLS_ALPN_01] = "tls-alpn-01"};
    const char *want = types[c->plan->challenge];
    const cb_acme_value all = cb_acme_member(json, "challenges");
    for (cb_acme_value each = cb_acme_first(all); each.at; each = cb_acme_next(all, each)) {
        const char *type = cb_acme_text(each, "type"), *token = cb_acme_text(each, "token");
        if (!type || strcmp(type, want) != 0) continue;
        if (!token || !cb_web_is_token(token, strlen(token), CB_ACME_TOKEN_BYTES)) {
            return cb_fail(CB_EPROTO, "a token that is not base64url");
        }
        int rc = keep_url(c, &z->challenge, cb_acme_text(each, "url"), "a challenge");
        if (rc >= 0) rc = cb_acme_core_copy(&z->token, token);
        return rc;
    }
    return cb_fail(CB_EAUTH, "ACME: the server offers no %s for %s", want, z->name);
}

static int authz_failed(const cb_acme_authz *z, cb_acme_value json, const char *status) {
    const cb_acme_value all = cb_acme_member(json, "challenges");
    cb_acme_value error = {json.json, NULL};
    char what[360], plain[280], state[24];
    for (cb_acme_value each = cb_acme_first(all); each.at && !error.at; each = cb_acme_next(all, each))
        error = cb_acme_member(each, "error");
    cb_web_plain(plain, sizeof plain, z->name);
    cb_web_plain(state, sizeof state, status);
    snprintf(what, sizeof what, "the authorization of %s is %s", plain, state);
    return cb_acme_core_problem(error, what);
}

static int take_authz(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    cb_acme_authz *z = &c->authz[c->at];
    const char *status = cb_acme_text(json, "status"),
               *name = cb_acme_text(cb_acme_member(json, "identifier"), "value");
    const bool first = c->step == STEP_AUTHZ;
    if (!name || !asked_for(c, name, cb_acme_is(cb_acme_member(json, "wildcard"), CB_JSON_TRUE))) {
        return cb_fail(CB_EPROTO, "an authorization of a name that was not asked for");
    }
    int rc = cb_acme_core_copy(&z->name, name);
    if (rc < 0) return rc;
    if (status && strcmp(status, "valid") == 0) {
        z->done = true;
        next_authz(c, first ? STEP_CHALLENGE : STEP_ORDER);
        c->polls = 0;
        return CB_OK;
    }
    if (!status || strcmp(status, "pending") != 0) {
        return c->resumed ? renew_order(c) : authz_failed(z, json, status ? status : "without a status");
    }
    if (!first) {
        cb_acme_core_poll(c, a->retry_after, now_ms);
        return CB_OK;
    }
    rc = choose_challenge(c, z, json);
    if (rc >= 0) c->present = true;
    return rc;
}

static const char *challenge_url(const cb_acme_core *c) {
    return c->authz[c->at].challenge;
}

static int challenge_payload(cb_acme_core *c, cb_buf *out) {
    c->authz[c->at].asked = true;
    return cb_buf_text(out, "{}");
}

static int take_challenge(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    (void)a;
    (void)json;
    (void)now_ms;
    next_authz(c, STEP_POLL_AUTHZ);
    return CB_OK;
}

/* Asked before (a lost answer, or an order of an earlier run): what came of it, the authorization tells. */
static bool challenge_problem(cb_acme_core *c, const char *type, int status, int64_t now_ms) {
    if (status >= 500 || strcmp(type, "malformed") != 0 || !(c->resumed || c->failures)) return false;
    return take_challenge(c, NULL, (cb_acme_value){NULL, NULL}, now_ms) >= 0;
}

/* --- the certificate --- */

static const char *finalize_url(const cb_acme_core *c) {
    return c->finalize;
}

static int finalize_payload(cb_acme_core *c, cb_buf *out) {
    int rc = cb_buf_text(out, "{\"csr\":\"");
    if (rc >= 0) rc = cb_acme_base64url(out, c->plan->csr.base, c->plan->csr.len);
    return rc >= 0 ? cb_buf_text(out, "\"}") : rc;
}

static bool finalize_problem(cb_acme_core *c, const char *type, int status, int64_t now_ms) {
    (void)status;
    if (strcmp(type, "orderNotReady") != 0) return false;
    c->step = STEP_ORDER;
    cb_acme_core_poll(c, (cb_slice){NULL, 0}, now_ms);
    return true;
}

static const char *certificate_url(const cb_acme_core *c) {
    return c->certificate;
}

static int take_certificate(cb_acme_core *c, const cb_acme_answer *a, cb_acme_value json, int64_t now_ms) {
    (void)json;
    (void)now_ms;
    if (!cb_web_is_type(a->content_type, "application/pem-certificate-chain")) {
        return cb_fail(CB_EPROTO, "ACME: certificate: the answer is not application/pem-certificate-chain");
    }
    if (a->body.len == 0) return cb_fail(CB_EPROTO, "ACME: certificate: an empty answer");
    c->chain.len = 0;
    c->step = STEP_END;
    return cb_buf_add(&c->chain, a->body.base, a->body.len);
}

static const char *directory_url(const cb_acme_core *c) {
    return c->plan->directory;
}

const cb_acme_step *cb_acme_step_get(unsigned step) {
    static const cb_acme_step steps[] = {
        [STEP_DIRECTORY] = {"directory", CB_ACME_GET, directory_url, NULL, take_directory, NULL, false},
        [STEP_ARI] = {"renewalInfo", CB_ACME_GET, ari_url, NULL, take_ari, NULL, false},
        [STEP_ACCOUNT] = {"newAccount", CB_ACME_BY_JWK, account_url, account_payload, take_account, NULL, false},
        [STEP_CONTACTS] = {"account", CB_ACME_BY_KID, kid_url, contacts_payload, take_end, account_gone, false},
        [STEP_ROLL] = {"keyChange", CB_ACME_BY_KID, roll_url, roll_payload, take_end, NULL, true},
        [STEP_DEACTIVATE] = {"account", CB_ACME_BY_KID, kid_url, deactivate_payload, take_end, NULL, false},
        [STEP_REVOKE] = {"revokeCert", CB_ACME_BY_KID, revoke_url, revoke_payload, take_end, account_gone, true},
        [STEP_NEW_ORDER] = {"newOrder", CB_ACME_BY_KID, new_order_url, new_order_payload, take_new_order,
                            new_order_problem, false},
        [STEP_ORDER] = {"order", CB_ACME_BY_KID, order_url, NULL, take_order, order_problem, false},
        [STEP_AUTHZ] = {"authorization", CB_ACME_BY_KID, authz_url, NULL, take_authz, NULL, false},
        [STEP_CHALLENGE] = {"challenge", CB_ACME_BY_KID, challenge_url, challenge_payload, take_challenge,
                            challenge_problem, false},
        [STEP_POLL_AUTHZ] = {"authorization", CB_ACME_BY_KID, authz_url, NULL, take_authz, NULL, false},
        [STEP_FINALIZE] = {"finalize", CB_ACME_BY_KID, finalize_url, finalize_payload, take_order, finalize_problem,
                           false},
        [STEP_CERTIFICATE] = {"certificate", CB_ACME_BY_KID, certificate_url, NULL, take_certificate, NULL, true},
        [STEP_END] = {"end", CB_ACME_GET, directory_url, NULL, take_end, NULL, true},
    };
    return &steps[step];
}
