/* What the rest of cb-edge sees of ACME: certificates for listeners, answers to http-01, and files that are checked and
 * given to the user. */
#include "acme.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

cb_alpn01 *edge_acme_alpn01(const edge *e) {
    return e && e->acme ? e->acme->alpn01 : NULL;
}

/* ---- certificates ---- */

static int add(cb_identity **id, cb_identity_opts o) {
    return *id ? cb_identity_add(*id, &o) : cb_identity_new(id, &o);
}

int edge_acme_certificate(cb_identity **id, cb_identity_opts o, const edge_conf *c, const edge_certificate_conf *cert,
                          edge_source *from) {
    char path[PATH_MAX], *pem = NULL;
    if (!edge_acme_path(path, c, cert)) return cb_error_set(CB_EINVAL, "the path of its file is too long");
    if (access(path, R_OK) == 0) {
        o.cert_file = o.key_file = path;
        if (add(id, o) == CB_OK) return CB_OK;
        char text[600];
        snprintf(text, sizeof text, "%.500s; a placeholder serves", cb_last_error());
        edge_warn(from, text, "%s", "");
        o.cert_file = o.key_file = NULL;
    }
    int rc = cb_acme_placeholder(&pem, cert->names.at, cert->names.len, (int64_t)time(NULL));
    o.pem = pem;
    if (rc == CB_OK) rc = add(id, o);
    cb_acme_text_free(pem);
    return rc;
}

/* ---- http-01 ---- */

/* The host of an authority, without its port and brackets. */
static cb_slice host_of(cb_slice authority) {
    const char *p = (const char *)authority.base;
    size_t n = authority.len;
    if (n && p[0] == '[') {
        const char *end = memchr(p, ']', n);
        return end ? (cb_slice){authority.base + 1, (size_t)(end - p) - 1} : (cb_slice){NULL, 0};
    }
    const char *colon = n ? memchr(p, ':', n) : NULL;
    return (cb_slice){authority.base, colon ? (size_t)(colon - p) : n};
}

static bool find_thumbprint(edge_acme *a, cb_slice authority, char out[EDGE_ACME_THUMBPRINT]) {
    const cb_slice host = host_of(authority);
    bool found = false;
    pthread_mutex_lock(&a->lock);
    for (size_t i = 0; i < a->hosts_len && !found; i++) {
        const edge_acme_host *h = &a->hosts[i];
        found = strlen(h->name) == host.len && strncasecmp(h->name, (const char *)host.base, host.len) == 0;
        if (found) memcpy(out, h->thumbprint, EDGE_ACME_THUMBPRINT);
    }
    pthread_mutex_unlock(&a->lock);
    return found;
}

/* True: it was a challenge of a name that this edge gets certificates for, and is answered. Others are the origins'. */
static bool answer(edge_worker *w, cb_exchange *x, int *rc) {
    static const char prefix[] = "/.well-known/acme-challenge/";
    const cb_slice path = cb_exchange_path(x);
    char thumbprint[EDGE_ACME_THUMBPRINT], text[CB_ACME_HTTP01_BYTES];
    if (path.len < sizeof prefix || memcmp(path.base, prefix, sizeof prefix - 1) != 0) return false;
    if (!w->edge->acme || !find_thumbprint(w->edge->acme, cb_exchange_authority(x), thumbprint)) return false;
    const int64_t n = cb_acme_http01(text, sizeof text, thumbprint, path);
    if (n < 0) return false;
    const cb_field type = {cb_slice_str("content-type"), cb_slice_str("application/octet-stream")};
    *rc = cb_exchange_send(x, 200, &type, 1, (cb_slice){(const uint8_t *)text, (size_t)n});
    return true;
}

static int on_proxy(cb_exchange *x, void *user) {
    edge_worker *w = user;
    int rc = CB_OK;
    return answer(w, x, &rc) ? rc : cb_proxy_exchange_ops()->on_head(x, w->proxy);
}

static int on_redirect(cb_exchange *x, void *user) {
    edge_worker *w = user;
    int rc = CB_OK;
    return answer(w, x, &rc) ? rc : cb_proxy_redirect_ops()->on_head(x, w->proxy);
}

const cb_exchange_ops *edge_front_ops(bool redirect) {
    static const cb_exchange_ops proxy = {.size = sizeof proxy, .on_head = on_proxy};
    static const cb_exchange_ops to_https = {.size = sizeof to_https, .on_head = on_redirect};
    return redirect ? &to_https : &proxy;
}

/* ---- files ---- */

int edge_acme_eab(char *out, const edge_issuer_conf *c) {
    char text[PATH_MAX + 64];
    FILE *f = fopen(c->eab_key_file, "re");
    const bool good = f && fgets(out, EDGE_ACME_EAB, f);
    if (f) fclose(f);
    if (good) out[strcspn(out, "\r\n")] = '\0';
    if (good && *out) return CB_OK;
    snprintf(text, sizeof text, "%s: %s", c->eab_key_file, f ? "no key in it" : strerror(errno));
    return cb_error_set(CB_EINVAL, text);
}

int edge_acme_check_files(const edge_conf *c, edge_source *from) {
    const edge_issuer_conf *issuers = c->acme ? c->acme->issuers.at : NULL;
    int worst = CB_OK;
    for (size_t i = 0; issuers && i < c->acme->issuers.len; i++) {
        cb_identity *roots = NULL;
        char key[EDGE_ACME_EAB];
        int rc = CB_OK;
        if (issuers[i].ca_file) rc = cb_identity_new(&roots, CB_OPTS(cb_identity_opts, .ca_file = issuers[i].ca_file));
        if (rc == CB_OK && issuers[i].eab_key_file) rc = edge_acme_eab(key, &issuers[i]);
        if (rc < 0) worst = edge_wrong(from, cb_last_error(), "/acme/issuers/%s", issuers[i].name);
        cb_identity_unref(roots);
        explicit_bzero(key, sizeof key);
    }
    return worst;
}

int edge_acme_give(const edge_conf *c, uid_t uid, gid_t gid) {
    const char *dir = c->acme ? c->acme->dir : NULL;
    if (!dir) return CB_OK;
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) return CB_ESYS;
    return edge_give_folder(AT_FDCWD, dir, uid, gid, 1) < 0 ? CB_ESYS : CB_OK;
}
