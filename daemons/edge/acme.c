/* Certificates from ACME servers: a thread of its own with a loop, because files are written and programs run there. It
 * looks after one certificate of each issuer at a time, and tells the listeners when there is a new one. */
#include "acme.h"
#include "telemetry.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TICK_MS = 500, AGAIN_S = 6 * 3600, SOON_S = 60, OPEN_MAX_S = 3600 };

static int64_t now_s(void) {
    return (int64_t)time(NULL);
}

static const char *first_name(const edge_acme_cert *c) {
    return *(const char *const *)c->conf->names.at;
}

static void say_time(char out[32], int64_t at) {
    const time_t t = (time_t)at;
    struct tm tm;
    out[0] = '\0';
    if (gmtime_r(&t, &tm)) strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
}

/* ---- what workers look at ---- */

static void publish_hosts(edge_acme *a) {
    edge_acme_host *hosts = NULL;
    size_t len = 0, room = 0;
    for (const edge_acme_issuer *i = a->issuers; i; i = i->next) {
        if (i->conf->challenge != EDGE_HTTP_01 || !*i->thumbprint) continue;
        for (const edge_acme_cert *c = i->certs; c; c = c->next)
            room += c->conf->names.len;
    }
    if (room) hosts = calloc(room, sizeof *hosts);
    for (const edge_acme_issuer *i = a->issuers; hosts && i; i = i->next) {
        if (i->conf->challenge != EDGE_HTTP_01 || !*i->thumbprint) continue;
        for (const edge_acme_cert *c = i->certs; c; c = c->next)
            for (size_t k = 0; k < c->conf->names.len; k++, len++) {
                snprintf(hosts[len].name, sizeof hosts->name, "%s", ((const char *const *)c->conf->names.at)[k]);
                memcpy(hosts[len].thumbprint, i->thumbprint, sizeof hosts->thumbprint);
            }
    }
    pthread_mutex_lock(&a->lock);
    free(a->hosts);
    a->hosts = hosts;
    a->hosts_len = len;
    pthread_mutex_unlock(&a->lock);
}

static const char *state_of(const edge_acme_issuer *i, const edge_acme_cert *c) {
    if (!i->handle) return "following";
    if (i->current == c) return "ordering";
    return c->failures ? "failing" : "waiting";
}

static void publish_items(edge_acme *a) {
    size_t n = 0;
    for (const edge_acme_issuer *i = a->issuers; i; i = i->next)
        for (const edge_acme_cert *c = i->certs; c; c = c->next)
            n++;
    pthread_mutex_lock(&a->lock);
    edge_acme_item *items = n == a->items_len ? a->items : realloc(a->items, (n ? n : 1) * sizeof *items);
    if (items) {
        a->items = items;
        a->items_len = n;
        for (const edge_acme_issuer *i = a->issuers; i; i = i->next)
            for (const edge_acme_cert *c = i->certs; c; c = c->next, items++) {
                *items = (edge_acme_item){
                    .state = state_of(i, c), .due_s = i->handle ? c->due_s : 0, .failures = c->failures};
                snprintf(items->issuer, sizeof items->issuer, "%s", i->conf->name);
                snprintf(items->certificate, sizeof items->certificate, "%s", first_name(c));
            }
    }
    pthread_mutex_unlock(&a->lock);
}

void edge_acme_list(edge_acme *a, void (*fn)(const edge_acme_item *item, void *user), void *user) {
    pthread_mutex_lock(&a->lock);
    for (size_t i = 0; i < a->items_len; i++)
        fn(&a->items[i], user);
    pthread_mutex_unlock(&a->lock);
}

static void set_thumbprint(edge_acme_issuer *i, const char *text) {
    if (strcmp(i->thumbprint, text) == 0 || strlen(text) != EDGE_ACME_THUMBPRINT - 1) return;
    memcpy(i->thumbprint, text, EDGE_ACME_THUMBPRINT);
    publish_hosts(i->acme);
}

/* What the configuration says now of a listener that may be from one before. */
static const edge_listener_conf *conf_of(const edge_snapshot *s, const edge_listener *l) {
    const edge_listener_conf *all = s->conf->listeners.at;
    for (size_t i = 0; i < s->conf->listeners.len; i++)
        if (strcmp(all[i].name, l->conf->name) == 0) return &all[i];
    return l->conf;
}

/* Listeners present what is in the files now. What fails is tried again, and the old certificates stay meanwhile. */
static void refresh(edge_acme *a) {
    edge_source from = {.name = a->edge->file, .log = a->edge->log};
    a->stale = false;
    for (edge_use *u = a->snapshot->uses; u; u = u->next) {
        cb_identity *fresh = NULL;
        const edge_listener_conf *conf = conf_of(a->snapshot, u->listener);
        if (!conf->tls) continue;
        if (edge_trust_listener(&fresh, conf, a->snapshot->conf, &from, a->edge) == CB_OK) {
            cb_identity_swap(u->listener->identity, fresh);
        } else {
            a->stale = true;
            a->refresh_at_s = now_s() + SOON_S;
        }
        cb_identity_unref(fresh);
    }
}

/* ---- challenges ---- */

static int on_challenge(cb_acme *handle, const cb_acme_challenge *c, void *user) {
    edge_acme_issuer *i = user;
    char stem[EDGE_ACME_STEM];
    int rc = CB_OK;
    (void)handle;
    edge_say_of(i->acme->edge->log, CB_LOG_DEBUG, "acme", "%s: %s waits for its validation", i->conf->name, c->name);
    if (c->type == CB_ACME_DNS_01) return edge_acme_hook(i->conf->dns_hook, "add", c, &i->acme->stopping);
    if (c->type != CB_ACME_TLS_ALPN_01) return CB_OK; /* answered from the thumbprint */
    rc = cb_alpn01_set(i->acme->alpn01, c->name, c->pem);
    return rc < 0 ? rc : edge_acme_put(i->dir, edge_acme_stem(stem, c->name, ".alpn01"), c->name, c->pem);
}

static void on_challenge_done(cb_acme *handle, const cb_acme_challenge *c, void *user) {
    edge_acme_issuer *i = user;
    char stem[EDGE_ACME_STEM];
    (void)handle;
    if (c->type == CB_ACME_DNS_01 && edge_acme_hook(i->conf->dns_hook, "remove", c, &i->acme->stopping) < 0)
        edge_say_of(i->acme->edge->log, CB_LOG_WARN, "acme", "%s: %s", i->conf->name, cb_last_error());
    if (c->type != CB_ACME_TLS_ALPN_01) return;
    cb_alpn01_set(i->acme->alpn01, c->name, NULL);
    edge_acme_remove(i->dir, edge_acme_stem(stem, c->name, ".alpn01"));
}

/* ---- jobs ---- */

static void on_failed(edge_acme_issuer *i, edge_acme_cert *c, int rc, const cb_acme_result *r) {
    char when[32];
    c->due_s = r->retry_at_s > now_s() ? r->retry_at_s : now_s() + SOON_S;
    if (c->failures < UINT8_MAX) c->failures++;
    say_time(when, c->due_s);
    edge_say_of(i->acme->edge->log, CB_LOG_ERROR, "acme", "%s: no certificate for %s: %s: %s; again at %s",
                i->conf->name, first_name(c), cb_strerror(rc), cb_last_error(), when);
}

static void on_good(edge_acme_issuer *i, edge_acme_cert *c, const cb_acme_result *r) {
    char expires[32], renews[32];
    const int64_t soon = now_s() + SOON_S, check = r->check_at_s ? r->check_at_s : now_s() + AGAIN_S;
    c->due_s = r->renew_at_s < check ? r->renew_at_s : check;
    if (c->due_s < soon) c->due_s = soon; /* a certificate of minutes does not keep us busy */
    c->failures = 0;
    if (!r->issued) return;
    say_time(expires, r->not_after_s);
    say_time(renews, r->renew_at_s);
    edge_say_of(i->acme->edge->log, CB_LOG_INFO, "acme", "%s: new certificate for %s, expires %s, is renewed from %s",
                i->conf->name, first_name(c), expires, renews);
    refresh(i->acme);
}

static void on_done(cb_acme *handle, int rc, const cb_acme_result *r, void *user) {
    edge_acme_issuer *i = user;
    edge_acme_cert *c = i->current;
    (void)handle;
    i->current = NULL;
    if (rc < 0)
        on_failed(i, c, rc, r);
    else
        on_good(i, c, r);
}

static void begin(edge_acme_issuer *i, edge_acme_cert *c) {
    static const int32_t challenges[] = {
        [EDGE_HTTP_01] = CB_ACME_HTTP_01, [EDGE_TLS_ALPN_01] = CB_ACME_TLS_ALPN_01, [EDGE_DNS_01] = CB_ACME_DNS_01};
    static const int32_t keys[] = {CB_KEY_ECDSA_P256, CB_KEY_ECDSA_P384, CB_KEY_RSA_2048, CB_KEY_ED25519};
    const cb_acme_order o = {.size = sizeof o,
                             .names = c->conf->names.at,
                             .names_len = c->conf->names.len,
                             .profile = i->conf->profile,
                             .challenge = challenges[i->conf->challenge],
                             .key_type = keys[i->conf->key_type],
                             .if_due = 1,
                             .failures = c->failures};
    int rc = cb_acme_issue(i->handle, &o);
    if (rc == CB_OK) {
        i->current = c;
        return;
    }
    const cb_acme_result none = {.size = sizeof none};
    on_failed(i, c, rc, &none);
}

/* ---- the account ---- */

static int make_client(edge_acme_issuer *i) {
    int rc = CB_OK;
    if (i->client) return CB_OK;
    if (i->conf->ca_file) rc = cb_identity_new(&i->roots, CB_OPTS(cb_identity_opts, .ca_file = i->conf->ca_file));
    if (rc == CB_OK)
        rc = cb_http_client_new(&i->client, i->acme->loop,
                                CB_OPTS(cb_http_client_opts, .identity = i->roots, .alt_svc = 1, .tls12 = 1,
                                        .resolver = i->acme->snapshot->conf->resolver));
    return rc;
}

static int open_handle(edge_acme_issuer *i) {
    static const cb_acme_ops ops = {
        .size = sizeof ops, .on_challenge = on_challenge, .on_challenge_done = on_challenge_done, .on_done = on_done};
    const edge_issuer_conf *c = i->conf;
    char key[EDGE_ACME_EAB] = "", text[PATH_MAX + 64];
    const char *dir = i->acme->snapshot->conf->acme->dir;
    if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
        snprintf(text, sizeof text, "%s: %s", dir, strerror(errno));
        return cb_error_set(CB_EUSER, text);
    }
    int rc = make_client(i);
    if (rc < 0) return rc;
    if (c->eab_key_file && (rc = edge_acme_eab(key, c)) < 0) return rc;
    rc = cb_acme_new(&i->handle, i->acme->loop,
                     CB_OPTS(cb_acme_opts, .directory = c->directory, .dir = i->dir, .client = i->client, .ops = &ops,
                             .user = i, .contacts = c->contacts.at, .contacts_len = c->contacts.len,
                             .eab_kid = c->eab_kid, .eab_key = c->eab_kid ? key : NULL,
                             .patience_s = (uint32_t)c->patience_s, .agree_terms = (uint8_t)c->agree_terms,
                             .other_hosts = (uint8_t)c->other_hosts, .settle_ms = (uint32_t)c->settle_ms));
    explicit_bzero(key, sizeof key);
    return rc;
}

static void try_open(edge_acme_issuer *i) {
    const cb_log *log = i->acme->edge->log;
    int rc = open_handle(i);
    if (rc == CB_EEXIST) { /* it may be our predecessor, which goes soon */
        if (!i->follows)
            edge_say_of(log, CB_LOG_INFO, "acme", "%s: %s; this one follows", i->conf->name, cb_last_error());
        i->follows = true;
        return;
    }
    if (rc < 0) {
        int wait = SOON_S << (i->open_failures < 6 ? i->open_failures++ : 6);
        i->open_at_s = now_s() + (wait < OPEN_MAX_S ? wait : OPEN_MAX_S);
        edge_say_of(log, CB_LOG_ERROR, "acme", "%s: %s", i->conf->name, cb_last_error());
        return;
    }
    edge_say_of(log, CB_LOG_INFO, "acme", "%s: this process gets the certificates", i->conf->name);
    i->follows = false;
    i->open_failures = 0;
    edge_acme_drop_answers(i->dir);
    edge_acme_follow_answers(i->acme); /* theirs are not ours */
    set_thumbprint(i, cb_acme_thumbprint(i->handle));
    if (edge_acme_put(i->dir, "thumbprint", i->thumbprint, "") < 0)
        edge_say_of(log, CB_LOG_WARN, "acme", "%s: %s", i->conf->name, cb_last_error());
}

/* ---- every now and then ---- */

static void follow_file(edge_acme *a, edge_acme_cert *c) {
    struct stat st;
    if (stat(c->file, &st) < 0) return;
    if (st.st_ino == c->seen.st_ino && st.st_size == c->seen.st_size &&
        memcmp(&st.st_mtim, &c->seen.st_mtim, sizeof st.st_mtim) == 0)
        return;
    c->seen = st;
    a->stale = true;
    a->refresh_at_s = 0;
}

static void look_after(edge_acme_issuer *i) {
    const int64_t now = now_s();
    char text[256];
    edge_acme_cert *next = NULL;
    if (!i->handle && !i->acme->snapshot->conf->acme->follow && now >= i->open_at_s) try_open(i);
    if (!i->handle) {
        edge_acme_line(text, sizeof text, i->dir, "thumbprint");
        set_thumbprint(i, text);
        for (edge_acme_cert *c = i->certs; c; c = c->next)
            follow_file(i->acme, c);
        return;
    }
    if (i->current) return;
    for (edge_acme_cert *c = i->certs; c; c = c->next)
        if (c->due_s <= now && (!next || c->due_s < next->due_s)) next = c;
    if (next) begin(i, next);
}

static void on_tick(cb_loop *loop, void *user) {
    edge_acme *a = user;
    (void)loop;
    for (edge_acme_issuer *i = a->issuers; i; i = i->next)
        look_after(i);
    edge_acme_follow_answers(a);
    if (a->stale && now_s() >= a->refresh_at_s) refresh(a);
    publish_items(a);
}

/* ---- a configuration ---- */

static void issuers_free(edge_acme_issuer *i) {
    while (i) {
        edge_acme_issuer *next = i->next;
        cb_acme_free(i->handle); /* an order under way is gone on with by whoever has the directory next */
        cb_http_client_free(i->client);
        cb_identity_unref(i->roots);
        while (i->certs) {
            edge_acme_cert *c = i->certs;
            i->certs = c->next;
            free(c);
        }
        free(i);
        i = next;
    }
}

static edge_acme_cert *cert_at(edge_acme_issuer *i, const char *file) {
    for (edge_acme_cert *c = i ? i->certs : NULL; c; c = c->next)
        if (strcmp(c->file, file) == 0) return c;
    return NULL;
}

static edge_acme_issuer *issuer_named(edge_acme_issuer *i, const char *name) {
    while (i && strcmp(i->conf->name, name) != 0)
        i = i->next;
    return i;
}

static bool same_names(const edge_certificate_conf *a, const edge_certificate_conf *b) {
    if (a->names.len != b->names.len) return false;
    for (size_t i = 0; i < a->names.len; i++)
        if (strcmp(((const char *const *)a->names.at)[i], ((const char *const *)b->names.at)[i]) != 0) return false;
    return true;
}

/* What is known of a certificate stays known: a reload does not hurry a server that asked for patience. */
static int add_cert(edge_acme_issuer *i, edge_acme_issuer *before, const edge_certificate_conf *conf,
                    const edge_conf *c) {
    edge_acme_cert *cert = calloc(1, sizeof *cert);
    if (!cert) return CB_ENOMEM;
    cert->conf = conf;
    if (!edge_acme_path(cert->file, c, conf) || cert_at(i, cert->file)) {
        free(cert); /* served by several listeners, got once */
        return CB_OK;
    }
    const edge_acme_cert *old = cert_at(before, cert->file);
    if (old && same_names(old->conf, conf) && strcmp(before->conf->directory, i->conf->directory) == 0) {
        cert->due_s = old->due_s;
        cert->failures = old->failures;
    }
    cert->next = i->certs;
    i->certs = cert;
    return CB_OK;
}

static edge_acme_issuer *add_issuer(edge_acme *a, const edge_issuer_conf *conf, edge_acme_issuer *before,
                                    const edge_conf *c) {
    edge_acme_issuer *i = calloc(1, sizeof *i);
    const edge_listener_conf *l = c->listeners.at;
    if (!i) return NULL;
    i->acme = a;
    i->conf = conf;
    snprintf(i->dir, sizeof i->dir, "%s/%s", c->acme->dir, conf->name);
    if (before) memcpy(i->thumbprint, before->thumbprint, sizeof i->thumbprint);
    for (size_t k = 0; k < c->listeners.len; k++) {
        const edge_certificate_conf *certs = l[k].tls ? l[k].tls->certificates.at : NULL;
        for (size_t m = 0; certs && m < l[k].tls->certificates.len; m++)
            if (certs[m].issuer && strcmp(certs[m].issuer, conf->name) == 0) add_cert(i, before, &certs[m], c);
    }
    return i;
}

static void take_told(cb_loop *loop, void *user) {
    edge_acme *a = user;
    (void)loop;
    pthread_mutex_lock(&a->lock);
    edge_snapshot *s = a->told, *gone = a->snapshot;
    a->told = NULL;
    pthread_mutex_unlock(&a->lock);
    if (!s) return;
    edge_acme_issuer *before = a->issuers;
    a->issuers = NULL;
    a->snapshot = s;
    const edge_issuer_conf *conf = s->conf->acme ? s->conf->acme->issuers.at : NULL;
    for (size_t k = s->conf->acme ? s->conf->acme->issuers.len : 0; k-- > 0;) {
        edge_acme_issuer *i = add_issuer(a, &conf[k], issuer_named(before, conf[k].name), s->conf);
        if (!i) continue;
        i->next = a->issuers;
        a->issuers = i;
    }
    issuers_free(before); /* with their locks, before the new ones want them */
    edge_snapshot_unref(gone);
    publish_hosts(a);
    a->stale = a->issuers != NULL; /* what the snapshot had read may be older than what came meanwhile */
    a->refresh_at_s = 0;
    on_tick(a->loop, a);
}

static void leave(cb_loop *loop, void *user) {
    edge_acme *a = user;
    issuers_free(a->issuers);
    a->issuers = NULL;
    cb_timer_free(a->tick);
    a->tick = NULL;
    cb_loop_stop(loop);
}

static void *run(void *user) {
    edge_acme *a = user;
    int rc = cb_loop_run(a->loop);
    if (rc < 0) edge_say_of(a->edge->log, CB_LOG_ERROR, "acme", "%s", cb_last_error());
    return NULL;
}

/* ---- the main thread's ---- */

edge_acme *edge_acme_new(edge *e) {
    edge_acme *a = calloc(1, sizeof *a);
    if (!a || cb_alpn01_new(&a->alpn01) < 0) {
        free(a);
        return NULL;
    }
    a->edge = e;
    pthread_mutex_init(&a->lock, NULL);
    return a;
}

static int start(edge_acme *a) {
    sigset_t all, before;
    int rc = cb_loop_new(&a->loop, CB_OPTS(cb_loop_opts, .log = a->edge->log, .metrics = edge_metrics(a->edge)));
    if (rc == CB_OK) rc = cb_timer_start(&a->tick, a->loop, TICK_MS, TICK_MS, on_tick, a);
    if (rc < 0) return rc;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the main thread's */
    a->threaded = pthread_create(&a->thread, NULL, run, a) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return a->threaded ? CB_OK : CB_ESYS;
}

int edge_acme_configure(edge_acme *a, edge_snapshot *s) {
    int rc = CB_OK;
    if (a->stopping || (!s->conf->acme && !a->threaded)) return CB_OK;
    if (!a->threaded) rc = start(a);
    if (rc < 0) return rc;
    pthread_mutex_lock(&a->lock);
    edge_snapshot_unref(a->told);
    a->told = edge_snapshot_ref(s);
    pthread_mutex_unlock(&a->lock);
    return cb_loop_post(a->loop, take_told, a);
}

void edge_acme_stop(edge_acme *a) {
    if (a->threaded && !a->stopping) cb_loop_post(a->loop, leave, a);
    a->stopping = true;
}

void edge_acme_free(edge_acme *a) {
    if (!a) return;
    edge_acme_stop(a);
    if (a->threaded) pthread_join(a->thread, NULL);
    issuers_free(a->issuers);
    cb_timer_free(a->tick);
    if (a->loop) cb_loop_free(a->loop);
    edge_snapshot_unref(a->told);
    edge_snapshot_unref(a->snapshot);
    for (size_t i = 0; i < a->shown_len; i++)
        free(a->shown[i]);
    free(a->shown);
    free(a->hosts);
    free(a->items);
    cb_alpn01_unref(a->alpn01);
    pthread_mutex_destroy(&a->lock);
    free(a);
}
