/* Identities and who may pass a route: the part of the schema. */
#include "edge_config.h"
#include "edge_schema.h"
#include <cb/proxy.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* In the order of enum cb_jwt_alg and enum cb_authn_name. */
static const char *const alg_names[] = {"key",   "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256",
                                        "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", NULL};
static const char *const subject_names[] = {"any", "spiffe", "uri", "email", "dns", "cn", NULL};
static const char *const dpop_names[] = {"off", "accept", "require", NULL};
static const char *const preflight_names[] = {"check", "pass", NULL};

const cb_config_rule edge_provider_rules[] = {
    {MEMBER(edge_provider_conf, issuer), .kind = CB_CONFIG_TEXT, .required = 1, .min = 1, .max = 1024,
     .doc =
         "Its URL, exactly as iss in its tokens. Keys and endpoints are found from there (OpenID Connect Discovery)."},
    {MEMBER(edge_provider_conf, client_id), .kind = CB_CONFIG_TEXT, .min = 1, .max = 512,
     .doc = "Who we are there; only introspection needs it."},
    {MEMBER(edge_provider_conf, client_secret_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "File with the secret of client_id, which should be readable by its owner only."},
    {MEMBER(edge_provider_conf, ca_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "PEM file with trust roots for it; the system's when absent."},
    {MEMBER(edge_provider_conf, refresh_s), .kind = CB_CONFIG_INT, .min = 1, .max = 86400, .fallback = "300",
     .doc = "How often keys are fetched. Keep it below the time for which a new key is published before it signs."},
    {MEMBER(edge_provider_conf, grace_s), .kind = CB_CONFIG_INT, .min = 0, .max = 86400, .fallback = "300",
     .doc = "A key that is not published any more is good for so much longer."},
    {MEMBER(edge_provider_conf, stale_s), .kind = CB_CONFIG_INT, .min = 1, .max = 604800, .fallback = "86400",
     .doc = "Keys stay good for so long while the provider cannot be reached."},
    {MEMBER(edge_provider_conf, timeout_ms), MILLISECONDS, .fallback = "10000", .doc = "Of a request to it."},
    {MEMBER(edge_provider_conf, introspect_ttl_s), .kind = CB_CONFIG_INT, .min = 1, .max = 3600, .fallback = "60",
     .doc = "How long it is believed that an opaque token is active; never beyond its exp."},
    {MEMBER(edge_provider_conf, other_hosts), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Its endpoints may be on other https hosts than the issuer."},
    {MEMBER(edge_provider_conf, loopback_http), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Take http for a provider on this machine. For tests."},
    END};

static const cb_config_rule introspect_rules[] = {
    {MEMBER(edge_introspect_conf, provider), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME, .required = 1,
     .doc = "A name from \"providers\", with client_id."},
    {MEMBER(edge_introspect_conf, audiences), .kind = CB_CONFIG_ARRAY, .max = 64,
     .doc = "aud of the answer must have one of these."},
    {MEMBER(edge_introspect_conf, any_audience), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Take tokens for every audience, also where the provider tells none."},
    {MEMBER(edge_introspect_conf, exp_optional), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Take answers without exp."},
    END};

static const cb_config_rule jwt_rules[] = {
    {MEMBER(edge_jwt_conf, provider), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME,
     .doc = "A name from \"providers\": issuer and keys are its own, and follow its rotations. Or:"},
    {MEMBER(edge_jwt_conf, issuer), .kind = CB_CONFIG_TEXT, .min = 1, .max = 1024, .doc = "What iss must be, exactly."},
    {MEMBER(edge_jwt_conf, keys_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "Keys that sign tokens: a JWK set, or one public key or certificate as PEM. Read again on SIGHUP."},
    {MEMBER(edge_jwt_conf, audiences), .kind = CB_CONFIG_ARRAY, .max = 64, .doc = "aud must have one of these."},
    {MEMBER(edge_jwt_conf, any_audience), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Take tokens for every audience. Then another service's tokens are good here, too."},
    {MEMBER(edge_jwt_conf, algorithm), .kind = CB_CONFIG_ENUM, .names = alg_names, .fallback = "key",
     .doc = "Of RSA keys that do not name theirs, and of PEM files; \"key\" is what the key says, RS256 for RSA in a "
            "JWK set."},
    {MEMBER(edge_jwt_conf, symmetric), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Take secrets (kty oct) from keys_file, too. Whoever can check such tokens can make them."},
    {MEMBER(edge_jwt_conf, type), .kind = CB_CONFIG_TEXT, .min = 1, .max = 128,
     .doc = "What typ must be, such as \"at+jwt\"; anything when absent."},
    {MEMBER(edge_jwt_conf, dpop), .kind = CB_CONFIG_ENUM, .names = dpop_names, .fallback = "off",
     .doc = "Proofs of possession (RFC 9449): none, for tokens that come with one, or for every token."},
    {MEMBER(edge_jwt_conf, leeway_s), .kind = CB_CONFIG_INT, .min = 0, .max = 300, .fallback = "30",
     .doc = "How far clocks may differ."},
    {MEMBER(edge_jwt_conf, max_age_s), .kind = CB_CONFIG_INT, .min = 0, .max = 31536000, .fallback = "0",
     .doc = "Since iat; 0 = no limit but exp."},
    END};

static const cb_config_rule mtls_rules[] = {
    {MEMBER(edge_mtls_conf, subject), .kind = CB_CONFIG_ENUM, .names = subject_names, .fallback = "any",
     .doc = "Which name of the certificate is the subject: the SPIFFE ID, a URI, an e-mail address, a DNS name, the "
            "common name (only without the others), or the first of these that there is."},
    END};

static const cb_config_rule api_key_rules[] = {
    {MEMBER(edge_api_key_conf, keys_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .required = 1,
     .doc = "Lines of \"cbctl auth key new\". Read again on SIGHUP."},
    {MEMBER(edge_api_key_conf, hash_key_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE, .required = 1,
     .doc = "The 32 bytes that hash them, of mode 0600."},
    {MEMBER(edge_api_key_conf, header), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_NAME, .fallback = "x-api-key",
     .doc = "The field that keys come in, in small letters."},
    END};

const cb_config_rule edge_identity_rules[] = {
    {MEMBER(edge_identity_conf, jwt), .kind = CB_CONFIG_OBJECT, .members = jwt_rules,
     .item_size = sizeof(edge_jwt_conf), .doc = "Signed bearer tokens."},
    {MEMBER(edge_identity_conf, introspect), .kind = CB_CONFIG_OBJECT, .members = introspect_rules,
     .item_size = sizeof(edge_introspect_conf), .doc = "Opaque bearer tokens, about which a provider is asked."},
    {MEMBER(edge_identity_conf, mtls), .kind = CB_CONFIG_OBJECT, .members = mtls_rules,
     .item_size = sizeof(edge_mtls_conf),
     .doc = "Client certificates, where a listener asks for them (client_certificates, clients)."},
    {MEMBER(edge_identity_conf, api_key), .kind = CB_CONFIG_OBJECT, .members = api_key_rules,
     .item_size = sizeof(edge_api_key_conf), .doc = "API keys."},
    {MEMBER(edge_identity_conf, subject_claim), .kind = CB_CONFIG_TEXT, .min = 1, .max = 256, .fallback = "sub",
     .doc = "The claim with the subject: a name, or a JSON pointer, which begins with \"/\"."},
    {MEMBER(edge_identity_conf, tenant_claim), .kind = CB_CONFIG_TEXT, .min = 1, .max = 256,
     .doc =
         "The claim with the tenant. Without it, and without \"tenant\", identities have none (API keys: \"tenant\")."},
    {MEMBER(edge_identity_conf, tenant), .kind = CB_CONFIG_TEXT, .min = 1, .max = 256,
     .doc = "The tenant that all of these identities belong to."},
    {MEMBER(edge_identity_conf, roles_claim), .kind = CB_CONFIG_TEXT, .min = 1, .max = 256,
     .doc = "The claim with the roles: a text, a list, or an object with them as names (API keys: \"roles\")."},
    END};

static const cb_config_rule opa_rules[] = {
    {MEMBER(edge_opa_conf, url), .kind = CB_CONFIG_TEXT, .required = 1, .min = 8, .max = 2048,
     .doc = "Its decision, such as \"http://127.0.0.1:8181/v1/data/edge/allow\"."},
    {MEMBER(edge_opa_conf, token_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "File with a bearer token for it."},
    {MEMBER(edge_opa_conf, timeout_ms), COUNT(60000), .fallback = "250", .doc = "Of a decision."},
    {MEMBER(edge_opa_conf, cache_ms), .kind = CB_CONFIG_INT, .min = 0, .max = 60000, .fallback = "0",
     .doc = "A decision is good for the same request so long; 0 = not at all."},
    {MEMBER(edge_opa_conf, fail_open), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Allow what it does not decide in time."},
    END};

const cb_config_rule edge_auth_rules[] = {
    {MEMBER(edge_auth_conf, any), .kind = CB_CONFIG_ARRAY, .format = CB_FORMAT_NAME, .max = CB_AUTHN_SOURCES,
     .doc = "Names of identities, of which one is needed. The first that is good is who it is."},
    {MEMBER(edge_auth_conf, all), .kind = CB_CONFIG_ARRAY, .format = CB_FORMAT_NAME, .max = CB_AUTHN_SOURCES,
     .doc = "Names of identities, all of which are needed. The first is who it is."},
    {MEMBER(edge_auth_conf, realm), .kind = CB_CONFIG_TEXT, .min = 1, .max = 128, .fallback = "api",
     .doc = "The realm of challenges."},
    {MEMBER(edge_auth_conf, scopes), .kind = CB_CONFIG_ARRAY, .max = 64, .doc = "Scopes, all of which are needed."},
    {MEMBER(edge_auth_conf, roles), .kind = CB_CONFIG_ARRAY, .max = 64, .doc = "Roles, one of which is needed."},
    {MEMBER(edge_auth_conf, tenant), .kind = CB_CONFIG_TEXT, .min = 1, .max = 256, .doc = "The one tenant that may."},
    {MEMBER(edge_auth_conf, need_tenant), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Refuse identities without a tenant."},
    {MEMBER(edge_auth_conf, policy_file), .kind = CB_CONFIG_TEXT, .format = CB_FORMAT_FILE,
     .doc = "Rules (cbctl policy) of what those who are let in may; what no rule allows gets 403."},
    {MEMBER(edge_auth_conf, opa), .kind = CB_CONFIG_OBJECT, .members = opa_rules, .item_size = sizeof(edge_opa_conf),
     .doc = "An Open Policy Agent that is asked, too, about each request."},
    {MEMBER(edge_auth_conf, headers), .kind = CB_CONFIG_MAP, .format = CB_FORMAT_NAME, .max = CB_ROUTE_HEADERS,
     .doc =
         "Fields that tell the origin who it is: subject, tenant, roles, source, kind, spiffe_id, or a claim by JSON "
         "pointer. Fields of these names never pass from outside, on any route."},
    {MEMBER(edge_auth_conf, keep_credentials), .kind = CB_CONFIG_BOOL, .fallback = "false",
     .doc = "Pass on to the origin what carried the credentials, such as Authorization."},
    {MEMBER(edge_auth_conf, preflight), .kind = CB_CONFIG_ENUM, .names = preflight_names, .fallback = "check",
     .doc = "CORS preflights, which carry no credentials: ask for some all the same, or pass them on."},
    END};

/* ---- what rules cannot say ---- */

static const edge_identity_conf *identity_of(const edge_conf *c, const char *name) {
    const edge_identity_conf *at = c->identities.at;
    for (size_t i = 0; i < c->identities.len; i++)
        if (strcmp(at[i].name, name) == 0) return &at[i];
    return NULL;
}

static const edge_provider_conf *provider_of(const edge_conf *c, const char *name) {
    const edge_provider_conf *at = c->providers.at;
    for (size_t i = 0; i < c->providers.len; i++)
        if (strcmp(at[i].name, name) == 0) return &at[i];
    return NULL;
}

static void check_provider(cb_config_draft *d, const edge_conf *c, const edge_identity_conf *i, const char *kind,
                           const char *name) {
    const edge_provider_conf *p = provider_of(c, name);
    char pointer[256], text[256];
    snprintf(pointer, sizeof pointer, "/identities/%s/%s/provider", i->name, kind);
    snprintf(text, sizeof text, "there is no provider \"%.100s\"", name);
    if (!p) cb_config_complain(d, pointer, text);
    if (p && i->introspect && !p->client_id) cb_config_complain(d, pointer, "it has no client_id");
}

static void check_jwt(cb_config_draft *d, const edge_conf *c, const edge_identity_conf *i) {
    const edge_jwt_conf *j = i->jwt;
    char pointer[256];
    snprintf(pointer, sizeof pointer, "/identities/%s/jwt", i->name);
    if (j->provider ? j->issuer || j->keys_file : !j->issuer || !j->keys_file)
        cb_config_complain(d, pointer, "needs \"provider\", or \"issuer\" and \"keys_file\"");
    if ((j->audiences.len > 0) == j->any_audience)
        cb_config_complain(d, pointer, "needs \"audiences\", or \"any_audience\" instead");
    if (j->provider) check_provider(d, c, i, "jwt", j->provider);
}

static void check_introspect(cb_config_draft *d, const edge_conf *c, const edge_identity_conf *i) {
    const edge_introspect_conf *q = i->introspect;
    char pointer[256];
    snprintf(pointer, sizeof pointer, "/identities/%s/introspect", i->name);
    if ((q->audiences.len > 0) == q->any_audience)
        cb_config_complain(d, pointer, "needs \"audiences\", or \"any_audience\" instead");
    check_provider(d, c, i, "introspect", q->provider);
}

static void check_identities(cb_config_draft *d, const edge_conf *c) {
    const edge_identity_conf *at = c->identities.at;
    char pointer[256];
    for (size_t i = 0; i < c->identities.len; i++) {
        snprintf(pointer, sizeof pointer, "/identities/%s", at[i].name);
        if (!!at[i].jwt + !!at[i].introspect + !!at[i].mtls + !!at[i].api_key != 1)
            cb_config_complain(d, pointer, "needs exactly one of \"jwt\", \"introspect\", \"mtls\" and \"api_key\"");
        if (at[i].tenant && at[i].tenant_claim)
            cb_config_complain(d, pointer, "\"tenant\" or \"tenant_claim\", not both");
        if (at[i].jwt) check_jwt(d, c, &at[i]);
        if (at[i].introspect) check_introspect(d, c, &at[i]);
    }
}

static bool asks_for_certificates(const edge_conf *c) {
    const edge_listener_conf *l = c->listeners.at;
    for (size_t i = 0; i < c->listeners.len; i++) {
        const edge_tls_conf *t = l[i].tls;
        const edge_clients_conf *rules = t ? t->clients.at : NULL;
        if (t && t->client_certificates) return true;
        for (size_t k = 0; t && k < t->clients.len; k++)
            if (rules[k].certificates) return true;
    }
    return false;
}

static void check_names(cb_config_draft *d, const edge_conf *c, size_t route, const cb_config_list *names,
                        const char *list) {
    const char *const *at = names->at;
    char pointer[64], text[256];
    for (size_t i = 0; i < names->len; i++) {
        const edge_identity_conf *identity = identity_of(c, at[i]);
        snprintf(pointer, sizeof pointer, "/routes/%zu/auth/%s/%zu", route, list, i);
        snprintf(text, sizeof text, "there are no identities \"%.100s\"", at[i]);
        if (!identity) cb_config_complain(d, pointer, text);
        if (identity && identity->mtls && !asks_for_certificates(c))
            cb_config_complain(d, pointer,
                               "no listener asks for certificates (client_certificates, or a rule of clients)");
    }
}

void edge_config_check_auth(cb_config_draft *d, const edge_conf *c) {
    const edge_route_conf *r = c->routes.at;
    char pointer[64];
    check_identities(d, c);
    for (size_t i = 0; i < c->routes.len; i++) {
        const edge_auth_conf *a = r[i].auth;
        if (!a) continue;
        snprintf(pointer, sizeof pointer, "/routes/%zu/auth", i);
        if (!a->any.len == !a->all.len) cb_config_complain(d, pointer, "needs \"any\" or \"all\"");
        check_names(d, c, i, &a->any, "any");
        check_names(d, c, i, &a->all, "all");
    }
}
