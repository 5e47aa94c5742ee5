/* Providers of tokens: they outlive reloads that do not change them, and the main loop keeps their keys fresh. */
#include "telemetry.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SECRET_BYTES = 4096 };

struct edge_provider {
    edge_provider *next;
    char *name, *key; /* key: all that it was made from, as text */
    cb_oidc *oidc;
    cb_identity *identity; /* NULL: the system's roots */
    cb_http_client *client;
    bool runs;
    char said[512];
};

static int complain(edge_source *from, const char *name, const char *more, const char *why) {
    return edge_wrong(from, why, "/providers/%s%s", name, more);
}

static int secret_failed(const char *path, const char *why) {
    char text[512];
    snprintf(text, sizeof text, "\"%s\": %s", path, why);
    return cb_error_set(CB_EINVAL, text);
}

/* One line, without its end. *out is to be wiped and freed. */
int edge_read_secret(char **out, const char *path, edge_source *from) {
    char text[SECRET_BYTES + 1];
    struct stat st;
    FILE *f = fopen(path, "rbe");
    if (!f) return secret_failed(path, strerror(errno));
    size_t n = fread(text, 1, sizeof text, f);
    bool open_to_all = fstat(fileno(f), &st) == 0 && st.st_mode & S_IRWXO;
    fclose(f);
    while (n && (text[n - 1] == '\n' || text[n - 1] == '\r'))
        n--;
    bool good = n && n <= SECRET_BYTES && !memchr(text, '\0', n) && !memchr(text, '\n', n);
    if (good) *out = strndup(text, n);
    explicit_bzero(text, sizeof text);
    if (!good) return secret_failed(path, "it must have one line");
    if (open_to_all) {
        snprintf(text, sizeof text, "%.3000s: every user of this machine may read this secret", path);
        edge_warn(from, text, "%s", "");
    }
    return *out ? CB_OK : CB_ENOMEM;
}

/* What was read from files counts by its content. */
static char *key_of(const edge_provider_conf *c, const char *secret) {
    struct stat st = {.st_size = 0};
    char *key = NULL;
    if (c->ca_file && stat(c->ca_file, &st) < 0) st.st_size = -1;
    int n = asprintf(&key, "%s|%s|%s|%s|%lld.%09ld %lld|%d %d %lld %lld %lld %lld %lld", c->issuer,
                     c->client_id ? c->client_id : "", secret ? secret : "", c->ca_file ? c->ca_file : "",
                     (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long long)st.st_size, c->other_hosts,
                     c->loopback_http, (long long)c->refresh_s, (long long)c->grace_s, (long long)c->stale_s,
                     (long long)c->timeout_ms, (long long)c->introspect_ttl_s);
    return n < 0 ? NULL : key;
}

static int make(edge_provider *p, const edge_provider_conf *c, const char *secret, edge_source *from) {
    const cb_identity_opts trust = {.size = sizeof trust, .ca_file = c->ca_file};
    const cb_oidc_opts o = {.size = sizeof o,
                            .issuer = c->issuer,
                            .client_id = c->client_id,
                            .client_secret = secret,
                            .refresh_s = (uint32_t)c->refresh_s,
                            .grace_s = (uint32_t)c->grace_s,
                            .no_grace = c->grace_s == 0,
                            .stale_s = (uint32_t)c->stale_s,
                            .timeout_ms = (uint32_t)c->timeout_ms,
                            .introspect_ttl_s = (uint32_t)c->introspect_ttl_s,
                            .other_hosts = (uint8_t)c->other_hosts,
                            .loopback_http = (uint8_t)c->loopback_http};
    if (c->ca_file && cb_identity_new(&p->identity, &trust) < 0)
        return complain(from, c->name, "/ca_file", cb_last_error());
    return cb_oidc_new(&p->oidc, &o) < 0 ? complain(from, c->name, "", cb_last_error()) : CB_OK;
}

static void provider_free(edge_provider *p) {
    if (p->oidc) cb_oidc_stop(p->oidc);
    cb_http_client_free(p->client);
    cb_oidc_unref(p->oidc);
    cb_identity_unref(p->identity);
    if (p->key) explicit_bzero(p->key, strlen(p->key));
    free(p->key);
    free(p->name);
    free(p);
}

static edge_provider *known(const edge *e, const char *key) {
    for (edge_provider *p = e ? e->providers : NULL; p; p = p->next)
        if (strcmp(p->key, key) == 0) return p;
    return NULL;
}

static void give(edge_provider *p, cb_oidc **out, cb_identity **identity) {
    *out = cb_oidc_ref(p->oidc);
    *identity = p->identity ? cb_identity_ref(p->identity) : NULL;
}

static int add(cb_oidc **out, cb_identity **identity, const edge_provider_conf *c, const char *secret, char *key,
               edge_source *from, edge *e) {
    edge_provider *p = calloc(1, sizeof *p);
    if (!p || !(p->name = strdup(c->name))) {
        free(p);
        free(key);
        return CB_ENOMEM;
    }
    p->key = key;
    int rc = make(p, c, secret, from);
    if (rc == CB_OK) give(p, out, identity);
    if (rc < 0 || !e) {
        provider_free(p);
        return rc;
    }
    p->next = e->providers;
    e->providers = p;
    return CB_OK;
}

int edge_provider_get(cb_oidc **out, cb_identity **identity, const edge_provider_conf *c, edge_source *from, edge *e) {
    char *secret = NULL;
    int rc = c->client_secret_file ? edge_read_secret(&secret, c->client_secret_file, from) : CB_OK;
    if (rc == CB_EINVAL) return complain(from, c->name, "/client_secret_file", cb_last_error());
    char *key = rc == CB_OK ? key_of(c, secret) : NULL;
    edge_provider *old = key ? known(e, key) : NULL;
    if (old) {
        give(old, out, identity);
        free(key);
    } else if (rc == CB_OK) {
        rc = key ? add(out, identity, c, secret, key, from, e) : CB_ENOMEM;
    }
    if (secret) explicit_bzero(secret, strlen(secret));
    free(secret);
    return rc;
}

void edge_providers_run(edge *e) {
    for (edge_provider *p = e->providers; p; p = p->next) {
        if (p->runs) continue;
        const cb_http_client_opts o = {.size = sizeof o, .identity = p->identity, .resolver = e->now->conf->resolver};
        int rc = p->client ? CB_OK : cb_http_client_new(&p->client, e->loop, &o);
        if (rc == CB_OK) rc = cb_oidc_metrics(p->oidc, edge_metrics(e), p->name);
        if (rc == CB_OK || rc == CB_EEXIST) rc = cb_oidc_run(p->oidc, e->loop, p->client); /* after a run that failed */
        p->runs = rc == CB_OK;
        if (rc < 0) edge_say(e->log, CB_LOG_ERROR, "provider %s: %s", p->name, cb_last_error());
    }
}

void edge_providers_look(edge *e) {
    for (edge_provider *p = e->providers; p; p = p->next) {
        char why[sizeof p->said];
        cb_oidc_error(p->oidc, why, sizeof why);
        if (strcmp(why, p->said) == 0) continue;
        if (*why) edge_say(e->log, CB_LOG_WARN, "provider %s: %s: what is known of it stays", p->name, why);
        if (!*why) edge_say(e->log, CB_LOG_INFO, "provider %s: all is well again", p->name);
        memcpy(p->said, why, sizeof why);
    }
}

void edge_providers_prune(edge *e) {
    for (edge_provider **at = &e->providers; *at;) {
        edge_provider *p = *at;
        if ((e->now && edge_auth_uses(e->now->auth, p->oidc)) || (e->next && edge_auth_uses(e->next->auth, p->oidc))) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        provider_free(p);
    }
}
