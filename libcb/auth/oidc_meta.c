#include "auth/oidc_meta.h"
#include "base/error.h"
#include "base/mem.h"
#include "http/url.h"
#include "http/web.h"
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static const cb_alloc *const heap = &cb_alloc_libc;

/* ---- URLs ---- */

static bool is_loopback(const cb_url *u) {
    return strcmp(u->host, "localhost") == 0 || strcmp(u->host, "::1") == 0 ||
           (strncmp(u->host, "127.", 4) == 0 && strspn(u->host, "0123456789.") == strlen(u->host));
}

static int read_url(cb_url *u, const char *url, bool loopback_http) {
    if (strlen(url) > CB_OIDC_URL_BYTES) return cb_fail(CB_EINVAL, "a URL longer than %d", CB_OIDC_URL_BYTES);
    int rc = cb_url_parse(u, url);
    if (rc < 0) return rc;
    if (strchr(url, '#')) return cb_fail(CB_EINVAL, "\"%.200s\" has a fragment", url);
    if (u->tls || (loopback_http && is_loopback(u))) return CB_OK;
    return cb_fail(CB_EINVAL, "\"%.200s\" is not https%s", url,
                   is_loopback(u)  ? " (loopback_http allows it)"
                   : loopback_http ? ", and not a loopback address"
                                   : "");
}

int cb_oidc_issuer_check(const char *url, bool loopback_http) {
    cb_url u;
    int rc = read_url(&u, url, loopback_http);
    if (rc < 0) return rc;
    return strchr(url, '?') ? cb_fail(CB_EINVAL, "\"%.200s\" has a query", url) : CB_OK;
}

int cb_oidc_url_check(const cb_oidc_conf *conf, const char *url, const char *what) {
    char why[400];
    cb_url u, own;
    if (read_url(&u, url, conf->loopback_http) < 0 || cb_url_parse(&own, conf->issuer) < 0) {
        snprintf(why, sizeof why, "%s", cb_last_error());
        return cb_fail(CB_EPROTO, "%s: %s", what, why);
    }
    if (conf->other_hosts || (u.tls == own.tls && u.port == own.port && strcmp(u.host, own.host) == 0)) return CB_OK;
    return cb_fail(CB_EPROTO, "%s: \"%.200s\" leads to another host than the issuer (other_hosts allows it)", what,
                   url);
}

int cb_oidc_discovery_url(const cb_oidc_conf *conf, bool alt, char *out) {
    static const char oidc[] = "/.well-known/openid-configuration", oauth[] = "/.well-known/oauth-authorization-server";
    const char *issuer = conf->issuer, *host = strstr(issuer, "://") + 3;
    size_t origin = (size_t)(host - issuer) + strcspn(host, "/"), len = strlen(issuer);
    while (len > origin && issuer[len - 1] == '/')
        len--;
    if (!alt) origin = len;
    int n = snprintf(out, CB_OIDC_URL_BYTES + 1, "%.*s%s%.*s", (int)origin, issuer, alt ? oauth : oidc,
                     (int)(len - origin), issuer + origin);
    return n <= CB_OIDC_URL_BYTES ? CB_OK : cb_fail(CB_EINVAL, "the issuer is too long");
}

/* ---- answers ---- */

int cb_oidc_answer_check(const cb_oidc_answer *a, const char *what) {
    if (a->status >= 300 && a->status < 400)
        return cb_fail(CB_EPROTO, "%s: status %d: redirects are not followed", what, a->status);
    if (a->status == 429) return cb_fail(CB_ELIMIT, "%s: status 429: too many requests", what);
    if (a->status >= 500) return cb_fail(CB_EUNREACH, "%s: status %d", what, a->status);
    if (a->status != 200) return cb_fail(a->status >= 400 ? CB_EAUTH : CB_EPROTO, "%s: status %d", what, a->status);
    if (cb_web_is_type(a->content_type, "application/json")) return CB_OK;
    return cb_fail(CB_EPROTO, "%s: an answer of %s", what,
                   a->content_type.len ? "another content type than application/json" : "no content type");
}

int cb_oidc_open(cb_json *j, const cb_oidc_answer *a, const char *what) {
    char why[300];
    int rc = cb_json_open(j, a->body);
    if (rc == CB_OK && j->nodes->kind == CB_JSON_OBJECT) return CB_OK;
    snprintf(why, sizeof why, "%s", rc == CB_OK ? "not a JSON object" : cb_last_error());
    if (rc == CB_OK) cb_json_close(j);
    return cb_fail(rc < 0 ? rc : CB_EPROTO, "%s: %s", what, why);
}

int cb_oidc_keys_read(cb_jwks **out, const cb_oidc_answer *a) {
    char why[400];
    cb_oidc_answer as_json = *a;
    if (cb_web_is_type(a->content_type, "application/jwk-set+json"))
        as_json.content_type = cb_slice_str("application/json");
    int rc = cb_oidc_answer_check(&as_json, "keys");
    if (rc < 0) return rc;
    cb_jwks *set = NULL;
    rc = cb_jwks_new(&set, CB_OPTS(cb_jwks_opts, .json = a->body));
    snprintf(why, sizeof why, "%s",
             rc < 0                 ? cb_last_error()
             : cb_jwks_note(set, 0) ? cb_jwks_note(set, 0)
                                    : "none is there");
    if (rc == CB_OK && cb_jwks_len(set)) {
        *out = set;
        return CB_OK;
    }
    cb_jwks_unref(set);
    if (rc == CB_OK) return cb_fail(CB_EPROTO, "keys: not one can be used: %s", why);
    return cb_fail(rc == CB_ENOMEM ? rc : CB_EPROTO, "keys: %s", why);
}

/* ---- discovery ---- */

static const char *const names[CB_OIDC_ENDPOINTS] = {[CB_OIDC_AUTHORIZATION] = "authorization_endpoint",
                                                     [CB_OIDC_TOKEN] = "token_endpoint",
                                                     [CB_OIDC_JWKS] = "jwks_uri",
                                                     [CB_OIDC_INTROSPECTION] = "introspection_endpoint",
                                                     [CB_OIDC_REVOCATION] = "revocation_endpoint",
                                                     [CB_OIDC_DEVICE] = "device_authorization_endpoint",
                                                     [CB_OIDC_USERINFO] = "userinfo_endpoint",
                                                     [CB_OIDC_END_SESSION] = "end_session_endpoint"};

static int read_endpoint(cb_oidc_meta *m, const cb_oidc_conf *conf, const cb_json *j, const cb_json_node *of, int i) {
    const cb_json_node *at = cb_json_get(j, of, names[i], strlen(names[i]));
    if (!at || at->kind == CB_JSON_NULL) return CB_OK;
    if (at->kind != CB_JSON_TEXT) return cb_fail(CB_EPROTO, "%s is no text", names[i]);
    const char *url = j->text + at->at;
    int rc = cb_oidc_url_check(conf, url, names[i]);
    if (rc < 0) return rc;
    cb_mem_free(heap, m->endpoints[i]);
    m->endpoints[i] = cb_mem_text(heap, url);
    return m->endpoints[i] ? CB_OK : cb_fail(CB_ENOMEM, "no memory for what a provider says");
}

static bool lacks(const cb_json *j, const char *name, const char *word) {
    const cb_json_node *list = cb_json_get(j, j->nodes, name, strlen(name));
    if (!cb_json_is(list, CB_JSON_LIST)) return false;
    for (const cb_json_node *at = cb_json_first(j, list); at; at = cb_json_next(j, list, at))
        if (at->kind == CB_JSON_TEXT && strcmp(j->text + at->at, word) == 0) return false;
    return true;
}

static int read_document(cb_oidc_meta *m, const cb_oidc_conf *conf, const cb_json *j) {
    static const char iss[] = "authorization_response_iss_parameter_supported", aliases[] = "mtls_endpoint_aliases";
    char shown[200];
    int rc = CB_OK;
    const char *issuer = cb_json_text(j, j->nodes, "issuer");
    if (!issuer || strcmp(issuer, conf->issuer) != 0) {
        cb_web_plain(shown, sizeof shown, issuer);
        return cb_fail(CB_EPROTO, "the issuer is \"%s\", not \"%.200s\"", shown, conf->issuer);
    }
    for (int i = 0; rc == CB_OK && i < CB_OIDC_ENDPOINTS; i++)
        rc = read_endpoint(m, conf, j, j->nodes, i);
    const cb_json_node *others = cb_json_get(j, j->nodes, aliases, sizeof aliases - 1); /* RFC 8705 5 */
    const bool use = conf->client_auth == CB_OIDC_AUTH_TLS && cb_json_is(others, CB_JSON_OBJECT);
    for (int i = 0; rc == CB_OK && use && i < CB_OIDC_ENDPOINTS; i++)
        rc = read_endpoint(m, conf, j, others, i);
    m->iss_parameter = cb_json_is(cb_json_get(j, j->nodes, iss, sizeof iss - 1), CB_JSON_TRUE);
    m->no_s256 = lacks(j, "code_challenge_methods_supported", "S256");
    return rc;
}

int cb_oidc_meta_read(cb_oidc_meta **out, const cb_oidc_conf *conf, const cb_oidc_answer *a) {
    char why[500];
    cb_json j;
    int rc = cb_oidc_answer_check(a, "discovery");
    if (rc == CB_OK) rc = cb_oidc_open(&j, a, "discovery");
    if (rc < 0) return rc;
    cb_oidc_meta *m = cb_mem_new(heap, sizeof *m);
    if (m) {
        atomic_init(&m->refs, 1);
        rc = read_document(m, conf, &j);
        snprintf(why, sizeof why, "%s", cb_last_error());
    }
    cb_json_close(&j);
    if (!m) return cb_fail(CB_ENOMEM, "no memory for what a provider says");
    if (rc < 0) {
        cb_oidc_meta_unref(m);
        return cb_fail(rc, "discovery: %s", why);
    }
    *out = m;
    return CB_OK;
}

cb_oidc_meta *cb_oidc_meta_ref(cb_oidc_meta *m) {
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

void cb_oidc_meta_unref(cb_oidc_meta *m) {
    if (!m || atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1) return;
    for (size_t i = 0; i < CB_OIDC_ENDPOINTS; i++)
        cb_mem_free(heap, m->endpoints[i]);
    cb_mem_free(heap, m);
}
