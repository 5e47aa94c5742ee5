/* Who we are and whom we let in, as the configuration has it: identities of listeners and of groups of origins. */
#include "edge.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { SOON_S = 14 * 86400, TELL_EVERY_S = 12 * 3600 };

static int complain(edge_source *from, const char *kind, const char *name, const char *more) {
    return edge_wrong(from, cb_last_error(), "/%s/%s%s", kind, name, more);
}

/* A group of its own for a key is a habit that serves well (Debian's ssl-cert); the whole machine is not. */
static void warn_of_key(edge_source *from, const char *kind, const char *name, const char *more, const char *key) {
    struct stat st;
    if (stat(key, &st) < 0 || !(st.st_mode & S_IRWXO)) return;
    char text[600];
    snprintf(text, sizeof text, "%.240s: every user of this machine may read this private key (chmod o= %.240s)", key,
             key);
    edge_warn(from, text, "/%s/%s%s", kind, name, more);
}

static cb_trust_opts trust_of(const edge_trust_conf *t, const edge *e) {
    return (cb_trust_opts){.size = sizeof(cb_trust_opts),
                           .ca_file = t->ca_file,
                           .crl_file = t->crl_file,
                           .names = t->names.at,
                           .names_len = t->names.len,
                           .pins = t->pins.at,
                           .pins_len = t->pins.len,
                           .pins_report = (uint8_t)t->pins_report,
                           .stale_crl = (uint8_t)t->old_crl,
                           .log = e ? e->log : NULL};
}

/* ---- listeners ---- */

static int add_clients(cb_identity *id, const edge_listener_conf *l, edge_source *from, const edge *e) {
    const edge_clients_conf *rules = l->tls->clients.at;
    char more[64];
    for (size_t i = 0; i < l->tls->clients.len; i++) {
        cb_trust_opts o = trust_of(&rules[i].trust, e);
        o.host = strcmp(rules[i].host, "*") == 0 ? NULL : rules[i].host;
        o.clients = rules[i].certificates + CB_CLIENTS_NONE;
        snprintf(more, sizeof more, "/tls/clients/%zu", i);
        if (cb_identity_trust(id, &o) < 0) return complain(from, "listeners", l->name, more);
    }
    return CB_OK;
}

int edge_trust_listener(cb_identity **out, const edge_listener_conf *l, const edge_conf *c, edge_source *from,
                        const edge *e) {
    const edge_certificate_conf *certs = l->tls->certificates.at;
    const edge_trust_conf all = {.ca_file = l->tls->client_ca_file, .crl_file = l->tls->client_crl_file};
    char more[64];
    for (size_t i = 0; i < l->tls->certificates.len; i++) {
        const cb_identity_opts o = {.size = sizeof o,
                                    .cert_file = certs[i].cert_file,
                                    .key_file = certs[i].key_file,
                                    .ocsp_file = certs[i].ocsp_file,
                                    .issuer_file = certs[i].issuer_file,
                                    .alpn01 = i ? NULL : edge_acme_alpn01(e)};
        int rc = certs[i].issuer ? edge_acme_certificate(out, o, c, &certs[i], from)
                 : i             ? cb_identity_add(*out, &o)
                                 : cb_identity_new(out, &o);
        snprintf(more, sizeof more, "/tls/certificates/%zu", i);
        if (rc < 0) return complain(from, "listeners", l->name, more);
        if (certs[i].key_file) warn_of_key(from, "listeners", l->name, more, certs[i].key_file);
    }
    const cb_trust_opts o = trust_of(&all, e);
    if (all.ca_file && cb_identity_trust(*out, &o) < 0)
        return complain(from, "listeners", l->name, all.crl_file ? "/tls/client_crl_file" : "/tls/client_ca_file");
    return add_clients(*out, l, from, e);
}

/* ---- groups ---- */

int edge_trust_group(cb_identity **out, const edge_group_conf *g, edge_source *from, const edge *e) {
    cb_trust_opts o = trust_of(&g->trust, e);
    const cb_identity_opts own = {.size = sizeof own, .cert_file = g->cert_file, .key_file = g->key_file};
    o.require_staple = (uint8_t)g->require_staple;
    const bool plain = !o.ca_file && !o.names_len && !o.pins_len && !o.require_staple && !g->cert_file;
    if (plain) return CB_OK; /* the system's roots: one for all groups */
    if (cb_identity_new(out, &own) < 0) return complain(from, "groups", g->name, "/cert_file");
    if (g->key_file) warn_of_key(from, "groups", g->name, "/key_file", g->key_file);
    if (cb_identity_trust(*out, &o) < 0)
        return complain(from, "groups", g->name, o.crl_file ? "/crl_file" : "/ca_file");
    return CB_OK;
}

/* ---- looking after them ---- */

typedef struct teller {
    const cb_log *log; /* NULL: the source, with the place */
    edge_source *from;
    const char *kind, *name;
} teller;

static void tell(int level, const char *text, void *user) {
    const teller *t = user;
    if (t->log)
        edge_say(t->log, level, "%s: %s", t->name, text);
    else
        edge_warn(t->from, text, "/%s/%s", t->kind, t->name);
}

void edge_trust_tell(const edge_snapshot *s, edge_source *from, const cb_log *log) {
    const int64_t now = (int64_t)time(NULL);
    for (const edge_use *u = s->uses; u; u = u->next) {
        teller t = {log, from, "listeners", u->listener->conf->name};
        cb_identity *id = u->fresh ? u->fresh : u->listener->identity;
        if (id) cb_identity_examine(id, now, SOON_S, tell, &t);
    }
    for (const edge_origin_trust *o = s->origins; o; o = o->next) {
        teller t = {log, from, "groups", o->name};
        cb_identity_examine(o->identity, now, SOON_S, tell, &t);
    }
}

static void refresh(cb_identity *id, const char *name, char said[EDGE_SAID], const cb_log *log) {
    int rc = cb_identity_refresh(id);
    const char *why = rc < 0 ? cb_last_error() : "";
    if (rc == 1) edge_say(log, CB_LOG_INFO, "%s: revocation lists and OCSP answers were read again", name);
    if (*why && strcmp(why, said) != 0) edge_say(log, CB_LOG_WARN, "%s: what was read before serves on: %s", name, why);
    snprintf(said, EDGE_SAID, "%s", why);
}

void edge_trust_tick(edge_snapshot *s, const cb_log *log) {
    const int64_t now = (int64_t)time(NULL);
    for (edge_use *u = s->uses; u; u = u->next)
        if (u->listener->identity) refresh(u->listener->identity, u->listener->conf->name, u->said, log);
    for (edge_origin_trust *o = s->origins; o; o = o->next)
        refresh(o->identity, o->name, o->said, log);
    if (now < s->told_at + TELL_EVERY_S) return;
    if (s->told_at) edge_trust_tell(s, NULL, log);
    s->told_at = now;
}

int edge_trust_keep(edge_snapshot *s, const char *name, cb_identity *identity) {
    edge_origin_trust *o = calloc(1, sizeof *o);
    if (!o) return CB_ENOMEM;
    o->name = name;
    o->identity = cb_identity_ref(identity);
    o->next = s->origins;
    s->origins = o;
    return CB_OK;
}

void edge_trust_drop(edge_snapshot *s) {
    while (s->origins) {
        edge_origin_trust *o = s->origins;
        s->origins = o->next;
        cb_identity_unref(o->identity);
        free(o);
    }
}
