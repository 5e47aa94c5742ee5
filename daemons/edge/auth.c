/* Who is known, and what of it was revoked: from the configuration to sources and gates. */
#include "edge.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

typedef struct stamp {
    struct timespec changed;
    off_t size;
    ino_t inode;
} stamp;

struct edge_auth {
    const edge_conf *conf;
    cb_jwt_cache *verdicts;
    cb_dpop *proofs;
    cb_revocations *gone;
    cb_authn_source **sources; /* in the order of conf->identities */
    cb_oidc **providers;       /* in the order of conf->providers */
    cb_identity **trust;       /* of these; NULL: the system's roots */
    stamp seen;
    char said[512];
};

static int complain(edge_source *from, const char *name, const char *more) {
    return edge_wrong(from, cb_last_error(), "/identities/%s%s", name, more);
}

static cb_authn_claims claims_of(const edge_identity_conf *i, const char *tenant, const char *roles) {
    return (cb_authn_claims){.size = sizeof(cb_authn_claims),
                             .subject = i->subject_claim,
                             .tenant = i->tenant         ? NULL
                                       : i->tenant_claim ? i->tenant_claim
                                                         : tenant,
                             .tenant_is = i->tenant,
                             .roles = i->roles_claim ? i->roles_claim : roles};
}

/* ---- sources ---- */

static void warn_of_keys(const cb_jwks *keys, edge_source *from, const edge_identity_conf *i) {
    const char *note;
    for (size_t k = 0; (note = cb_jwks_note(keys, k)); k++) {
        char text[300];
        snprintf(text, sizeof text, "left out: %s", note);
        edge_warn(from, text, "/identities/%s/jwt/keys_file", i->name);
    }
    if (!cb_jwks_len(keys)) edge_warn(from, "it has no key that can be used", "/identities/%s/jwt/keys_file", i->name);
}

static size_t provider_index(const edge_conf *c, const char *name) {
    const edge_provider_conf *at = c->providers.at;
    size_t i = 0;
    while (strcmp(at[i].name, name) != 0) /* the schema has seen to it that it is there */
        i++;
    return i;
}

static int load_keys(cb_jwks **out, const edge_identity_conf *i, edge_source *from) {
    const edge_jwt_conf *j = i->jwt;
    const cb_jwks_opts how = {.size = sizeof how, .rsa_alg = j->algorithm, .symmetric = j->symmetric};
    if (cb_jwks_load(out, j->keys_file, j->algorithm, &how) < 0) return complain(from, i->name, "/jwt/keys_file");
    warn_of_keys(*out, from, i);
    return CB_OK;
}

static int make_jwt(cb_authn_source **out, const edge_auth *a, const edge_identity_conf *i, edge_source *from) {
    const edge_jwt_conf *j = i->jwt;
    const cb_authn_claims claims = claims_of(i, NULL, NULL);
    cb_jwks *keys = NULL;
    int rc = j->provider ? CB_OK : load_keys(&keys, i, from);
    if (rc < 0) return rc;
    const cb_jwt_rules rules = {.size = sizeof rules,
                                .issuer = j->issuer,
                                .audiences = j->audiences.at,
                                .audiences_len = j->audiences.len,
                                .any_audience = j->any_audience,
                                .typ = j->type,
                                .revocations = a->gone,
                                .leeway_s = j->leeway_s ? (int32_t)j->leeway_s : -1,
                                .max_age_s = (uint32_t)j->max_age_s};
    const cb_authn_jwt_opts o = {.size = sizeof o,
                                 .name = i->name,
                                 .keys = keys,
                                 .provider = j->provider ? a->providers[provider_index(a->conf, j->provider)] : NULL,
                                 .rules = &rules,
                                 .cache = a->verdicts,
                                 .dpop = j->dpop == EDGE_DPOP_OFF ? NULL : a->proofs,
                                 .claims = &claims,
                                 .need_dpop = j->dpop == EDGE_DPOP_REQUIRE};
    rc = cb_authn_source_jwt(out, &o);
    cb_jwks_unref(keys);
    return rc < 0 ? complain(from, i->name, "/jwt") : CB_OK;
}

static int make_introspect(cb_authn_source **out, const edge_auth *a, const edge_identity_conf *i, edge_source *from) {
    const edge_introspect_conf *q = i->introspect;
    const size_t at = provider_index(a->conf, q->provider);
    const cb_authn_claims claims = claims_of(i, NULL, NULL);
    const cb_jwt_rules rules = {.size = sizeof rules,
                                .audiences = q->audiences.at,
                                .audiences_len = q->audiences.len,
                                .any_audience = q->any_audience,
                                .exp_optional = q->exp_optional,
                                .revocations = a->gone};
    const cb_authn_introspect_opts o = {.size = sizeof o,
                                        .name = i->name,
                                        .provider = a->providers[at],
                                        .rules = &rules,
                                        .identity = a->trust[at],
                                        .resolver = a->conf->resolver,
                                        .claims = &claims};
    return cb_authn_source_introspect(out, &o) < 0 ? complain(from, i->name, "/introspect") : CB_OK;
}

static int make_mtls(cb_authn_source **out, const edge_auth *a, const edge_identity_conf *i, edge_source *from) {
    const cb_authn_claims claims = claims_of(i, NULL, NULL);
    const cb_authn_mtls_opts o = {
        .size = sizeof o, .name = i->name, .claims = &claims, .revocations = a->gone, .subject = i->mtls->subject};
    return cb_authn_source_mtls(out, &o) < 0 ? complain(from, i->name, "/mtls") : CB_OK;
}

static int make_api_key(cb_authn_source **out, const edge_auth *a, const edge_identity_conf *i, edge_source *from) {
    const edge_api_key_conf *k = i->api_key;
    const cb_authn_claims claims = claims_of(i, "tenant", "roles");
    cb_api_keys *keys = NULL;
    if (cb_api_keys_load(&keys, k->keys_file, k->hash_key_file, 0) < 0) return complain(from, i->name, "/api_key");
    const cb_authn_api_key_opts o = {
        .size = sizeof o, .name = i->name, .keys = keys, .field = k->header, .claims = &claims, .revocations = a->gone};
    int rc = cb_authn_source_api_key(out, &o);
    cb_api_keys_unref(keys);
    return rc < 0 ? complain(from, i->name, "/api_key") : CB_OK;
}

static int make_source(cb_authn_source **out, const edge_auth *a, const edge_identity_conf *i, edge_source *from) {
    if (i->jwt) return make_jwt(out, a, i, from);
    if (i->introspect) return make_introspect(out, a, i, from);
    return i->mtls ? make_mtls(out, a, i, from) : make_api_key(out, a, i, from);
}

/* ---- revocations ---- */

static stamp stamp_of(const char *path) {
    struct stat st;
    if (stat(path, &st) < 0) return (stamp){.size = -1};
    return (stamp){.changed = st.st_mtim, .size = st.st_size, .inode = st.st_ino};
}

static bool same_stamp(const stamp *a, const stamp *b) {
    return a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec && a->size == b->size &&
           a->inode == b->inode;
}

/* The stamp is from before: what is written while we read is seen the next time. */
static int read_revocations(edge_auth *a) {
    const char *path = a->conf->revocations_file;
    const stamp now = stamp_of(path);
    int rc = cb_revocations_load(a->gone, path, (int64_t)time(NULL));
    if (rc == CB_OK) a->seen = now;
    return rc;
}

void edge_auth_look(edge_auth *a, const cb_log *log) {
    if (!a || !a->conf->revocations_file) return;
    const stamp now = stamp_of(a->conf->revocations_file);
    if (same_stamp(&now, &a->seen)) return;
    const char *why = read_revocations(a) < 0 ? cb_last_error() : "";
    if (*why && strcmp(why, a->said) != 0) edge_say(log, CB_LOG_ERROR, "%s: what was revoked before stays so", why);
    if (!*why) edge_say(log, CB_LOG_INFO, "%zu revocations", cb_revocations_len(a->gone));
    snprintf(a->said, sizeof a->said, "%s", why);
}

/* ---- all together ---- */

static int make_shared(edge_auth *a, const edge *e) {
    int rc = CB_OK;
    if (e) {
        a->verdicts = cb_jwt_cache_ref(e->verdicts);
        a->proofs = cb_dpop_ref(e->proofs);
    } else {
        rc = cb_jwt_cache_new(&a->verdicts, CB_OPTS(cb_jwt_cache_opts, .max_tokens = 16));
        if (rc == CB_OK) rc = cb_dpop_new(&a->proofs, CB_OPTS(cb_dpop_opts, .max_proofs = 16));
    }
    return rc == CB_OK ? cb_revocations_new(&a->gone, 0) : rc;
}

static int make_sources(edge_auth *a, edge_source *from, edge *e) {
    const edge_identity_conf *identities = a->conf->identities.at;
    const edge_provider_conf *providers = a->conf->providers.at;
    int rc = CB_OK;
    for (size_t i = 0; i < a->conf->providers.len; i++)
        if (edge_provider_get(&a->providers[i], &a->trust[i], &providers[i], from, e) < 0) rc = CB_EINVAL;
    for (size_t i = 0; i < a->conf->identities.len && rc == CB_OK; i++)
        if (make_source(&a->sources[i], a, &identities[i], from) < 0) rc = CB_EINVAL;
    return rc;
}

bool edge_auth_uses(const edge_auth *a, const cb_oidc *provider) {
    for (size_t i = 0; i < a->conf->providers.len; i++)
        if (a->providers[i] == provider) return true;
    return false;
}

int edge_auth_new(edge_auth **out, const edge_conf *c, edge_source *from, edge *e) {
    edge_auth *a = calloc(1, sizeof *a);
    if (!a) return CB_ENOMEM;
    a->conf = c;
    int rc = make_shared(a, e);
    a->sources = calloc(c->identities.len + 1, sizeof(cb_authn_source *));
    a->providers = calloc(c->providers.len + 1, sizeof(cb_oidc *));
    a->trust = calloc(c->providers.len + 1, sizeof(cb_identity *));
    if (rc < 0 || !a->sources || !a->providers || !a->trust) {
        edge_auth_free(a);
        return CB_ENOMEM;
    }
    if (c->revocations_file && read_revocations(a) < 0) rc = edge_wrong(from, cb_last_error(), "/revocations_file");
    if (make_sources(a, from, e) < 0) rc = CB_EINVAL;
    if (rc < 0) {
        edge_auth_free(a);
        return rc;
    }
    *out = a;
    return CB_OK;
}

void edge_auth_free(edge_auth *a) {
    if (!a) return;
    for (size_t i = 0; a->sources && i < a->conf->identities.len; i++)
        cb_authn_source_unref(a->sources[i]);
    for (size_t i = 0; a->providers && a->trust && i < a->conf->providers.len; i++) {
        cb_oidc_unref(a->providers[i]);
        cb_identity_unref(a->trust[i]);
    }
    free(a->sources);
    free(a->providers);
    free(a->trust);
    cb_revocations_unref(a->gone);
    cb_dpop_unref(a->proofs);
    cb_jwt_cache_unref(a->verdicts);
    free(a);
}

/* ---- routes ---- */

static cb_authn_source *source_named(const edge_auth *a, const char *name) {
    const edge_identity_conf *identities = a->conf->identities.at;
    for (size_t i = 0; i < a->conf->identities.len; i++)
        if (strcmp(identities[i].name, name) == 0) return a->sources[i];
    return NULL; /* the schema has seen to it that there is one */
}

int edge_auth_gate(cb_authn **out, const edge_auth *a, const cb_config_list *names) {
    cb_authn_source *sources[CB_AUTHN_SOURCES];
    const char *const *at = names->at;
    if (names->len > CB_AUTHN_SOURCES) return cb_error_set(CB_EINVAL, "too many identities");
    for (size_t i = 0; i < names->len; i++)
        sources[i] = source_named(a, at[i]);
    return cb_authn_new(out, CB_OPTS(cb_authn_opts, .sources = sources, .n_sources = names->len));
}

static void told(const cb_config_error *m, void *user) {
    edge_source *from = user;
    char text[900];
    snprintf(text, sizeof text, "%s:%u:%u: %s%s%s", m->file, m->line, m->column, m->pointer, *m->pointer ? ": " : "",
             m->text);
    edge_note(from, text);
}

static int make_opa(cb_route_opa **out, const edge_opa_conf *c, edge_source *from) {
    char *token = NULL;
    int rc = c->token_file ? edge_read_secret(&token, c->token_file, from) : CB_OK;
    if (rc < 0) return rc;
    cb_route_opa *o = calloc(1, sizeof *o);
    if (!o) {
        free(token);
        return CB_ENOMEM;
    }
    *o = (cb_route_opa){.size = sizeof *o,
                        .url = c->url,
                        .token = token,
                        .timeout_ms = (uint32_t)c->timeout_ms,
                        .cache_ms = (uint32_t)c->cache_ms,
                        .fail_open = c->fail_open};
    *out = o;
    return CB_OK;
}

int edge_auth_route(cb_route_auth *out, const edge_auth *a, const edge_route_conf *r, edge_source *from) {
    const edge_auth_conf *c = r->auth;
    cb_authn_source *sources[CB_AUTHN_SOURCES];
    if (!c) return CB_ENOENT;
    const cb_config_list *names = c->all.len ? &c->all : &c->any;
    const char *const *at = names->at;
    for (size_t i = 0; i < names->len; i++)
        sources[i] = source_named(a, at[i]);
    const cb_authn_opts o = {.size = sizeof o,
                             .sources = sources,
                             .n_sources = names->len,
                             .realm = c->realm,
                             .scopes = c->scopes.at,
                             .n_scopes = c->scopes.len,
                             .roles = c->roles.at,
                             .n_roles = c->roles.len,
                             .tenant = c->tenant,
                             .all = c->all.len > 0,
                             .need_tenant = c->need_tenant};
    const cb_config_pair *pairs = c->headers.at;
    cb_route_header *headers = calloc(c->headers.len + 1, sizeof *headers);
    cb_authn *gate = NULL;
    cb_policy *policy = NULL;
    int rc = headers ? cb_authn_new(&gate, &o) : CB_ENOMEM;
    if (rc == CB_OK && c->policy_file) rc = cb_policy_load(&policy, c->policy_file, told, from);
    cb_route_opa *opa = NULL;
    if (rc == CB_OK && c->opa) rc = make_opa(&opa, c->opa, from);
    if (rc < 0) {
        cb_authn_unref(gate);
        cb_policy_unref(policy);
        free(headers);
        return rc;
    }
    for (size_t i = 0; i < c->headers.len; i++)
        headers[i] = (cb_route_header){.name = pairs[i].name, .from = pairs[i].text};
    *out = (cb_route_auth){.size = sizeof *out,
                           .authn = gate,
                           .policy = policy,
                           .opa = opa,
                           .headers = headers,
                           .n_headers = c->headers.len,
                           .keep_credentials = (uint8_t)c->keep_credentials,
                           .pass_preflight = (uint8_t)c->preflight};
    return CB_OK;
}

void edge_auth_route_done(cb_route_auth *r) {
    cb_authn_unref(r->authn);
    cb_policy_unref(r->policy);
    if (r->opa && r->opa->token) explicit_bzero((char *)(uintptr_t)r->opa->token, strlen(r->opa->token));
    if (r->opa) free((void *)(uintptr_t)r->opa->token);
    free((void *)(uintptr_t)r->opa);
    free((void *)(uintptr_t)r->headers);
}
