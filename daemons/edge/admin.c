/* Administration while it runs: who may what, the audit log, and the doors. All of it is the main loop's.
 *
 * What hinders administration (a folder that is missing, an audit log that somebody changed) never hinders the service:
 * it is said, and tried again. Without its audit log only reading goes on. */
#include "admin.h"
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NO_AUDIT "the audit log is closed"

enum { DRAIN_MS = 2000, ROTATE_BYTES = 64 << 20, AGAIN_TICKS = 10 };

/* ---- roles ---- */

/* Without a table: root, and the user that it is. */
static int add_usual(cb_admin_roles *roles) {
    char self[32];
    snprintf(self, sizeof self, "uid:%lu", (unsigned long)geteuid());
    int rc = cb_admin_roles_add(roles, CB_OPTS(cb_admin_grant, .who = "uid:0", .role = "admin"));
    if (rc == CB_OK && geteuid() != 0)
        rc = cb_admin_roles_add(roles, CB_OPTS(cb_admin_grant, .who = self, .role = "admin"));
    return rc;
}

/* Names of users are looked up, so it is made anew with each configuration. */
static int make_roles(cb_admin_roles **out, const edge_conf *c, edge_source *from) {
    const edge_role_conf *rows = c->admin->roles.at;
    int rc = cb_admin_roles_new(out);
    if (rc == CB_OK && !c->admin->roles.len) rc = add_usual(*out);
    if (rc < 0) rc = edge_wrong(from, cb_last_error(), "/admin/roles");
    for (size_t i = 0; i < c->admin->roles.len && rc == CB_OK; i++) {
        const cb_admin_grant g = {.size = sizeof g,
                                  .who = rows[i].who,
                                  .role = rows[i].role,
                                  .source = rows[i].source,
                                  .owned = rows[i].owned.at,
                                  .n_owned = rows[i].owned.len,
                                  .tenant = rows[i].tenant};
        if (cb_admin_roles_add(*out, &g) < 0) rc = edge_wrong(from, cb_last_error(), "/admin/roles/%zu", i);
    }
    if (rc == CB_OK) return CB_OK;
    cb_admin_roles_unref(*out);
    *out = NULL;
    return rc;
}

/* Of the door over TCP: made anew each time, as files and keys may have changed. */
static int make_tcp(cb_identity **identity, cb_authn **gate, const edge_snapshot *s, edge_source *from) {
    const edge_admin_listen_conf *l = s->conf->admin->listen;
    int rc =
        l ? cb_identity_new(identity, CB_OPTS(cb_identity_opts, .cert_file = l->cert_file, .key_file = l->key_file))
          : CB_OK;
    if (l && rc == CB_OK && l->client_ca_file)
        rc = cb_identity_trust(*identity, CB_OPTS(cb_trust_opts, .ca_file = l->client_ca_file,
                                                  .crl_file = l->client_crl_file, .clients = CB_CLIENTS_ASK));
    if (l && rc == CB_OK) rc = edge_auth_gate(gate, s->auth, &l->identities);
    if (rc == CB_OK) return CB_OK;
    cb_identity_unref(*identity);
    *identity = NULL;
    return edge_wrong(from, cb_last_error(), "/admin/listen");
}

int edge_admin_check(const edge_snapshot *s, edge_source *from) {
    cb_admin_roles *roles = NULL;
    cb_identity *identity = NULL;
    cb_authn *gate = NULL;
    int rc = s->conf->admin ? make_roles(&roles, s->conf, from) : CB_OK;
    if (s->conf->admin && s->conf->admin->state_dir && !from->log) edge_state_warn(s->conf->admin->state_dir, from);
    if (rc == CB_OK && s->conf->admin) rc = make_tcp(&identity, &gate, s, from);
    cb_admin_roles_unref(roles);
    cb_identity_unref(identity);
    cb_authn_unref(gate);
    return rc;
}

static const char *tcp_of(const edge_conf *c) {
    return c->admin && c->admin->listen ? c->admin->listen->address : NULL;
}

static bool same_text(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") == 0;
}

/* Other roles end streams of events: not for each change of something else. */
static bool same_roles(const edge_admin_conf *a, const edge_admin_conf *b) {
    const edge_role_conf *x = a->roles.at, *y = b->roles.at;
    bool same = a->roles.len == b->roles.len;
    for (size_t i = 0; same && i < a->roles.len; i++) {
        same = same_text(x[i].who, y[i].who) && same_text(x[i].role, y[i].role) &&
               same_text(x[i].tenant, y[i].tenant) && same_text(x[i].source, y[i].source) &&
               x[i].owned.len == y[i].owned.len;
        for (size_t k = 0; same && k < x[i].owned.len; k++)
            same = same_text(((const char *const *)x[i].owned.at)[k], ((const char *const *)y[i].owned.at)[k]);
    }
    return same;
}

int edge_admin_prepare(edge *e, edge_snapshot *next, edge_source *from) {
    const edge_admin_conf *c = next->conf->admin;
    edge_admin_abort(e);
    if (e->admin && strcmp(c ? c->socket : "", e->admin_socket) != 0)
        return edge_wrong(from, "it changed, and that needs an upgrade (SIGUSR2)", "/admin/socket");
    if (e->admin && !same_text(tcp_of(e->now->conf), tcp_of(next->conf)))
        return edge_wrong(from, "it changed, and that needs an upgrade (SIGUSR2)", "/admin/listen/address");
    if (c && make_tcp(&e->next_admin_identity, &e->next_admin_gate, next, from) < 0) return CB_EINVAL;
    const edge_admin_conf *before = e->roles && e->now != next ? e->now->conf->admin : NULL;
    if (c && before && same_roles(before, c)) return CB_OK;
    return c ? make_roles(&e->next_roles, next->conf, from) : CB_OK;
}

void edge_admin_abort(edge *e) {
    cb_identity_unref(e->next_admin_identity);
    cb_authn_unref(e->next_admin_gate);
    e->next_admin_identity = NULL;
    e->next_admin_gate = NULL;
    cb_admin_roles_unref(e->next_roles);
    e->next_roles = NULL;
}

/* ---- the audit log ---- */

static int open_audit(edge *e) {
    const edge_admin_conf *c = e->now->conf->admin;
    char path[PATH_MAX], key[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/audit", c->state_dir) >= (int)sizeof path ||
        snprintf(key, sizeof key, "%s/audit.key", c->state_dir) >= (int)sizeof key)
        return cb_error_set(CB_EINVAL, "state_dir is too long");
    const int rc = edge_state_check(c->state_dir);
    if (rc < 0) return rc;
    return cb_audit_open(&e->audit, CB_OPTS(cb_audit_opts, .path = path, .key_file = key, .mode = 0600,
                                            .head_file = c->audit_head_file, .rotate_bytes = ROTATE_BYTES));
}

static void say_once(edge *e, const char *what) {
    char text[EDGE_SAID];
    snprintf(text, sizeof text, "%s: %s", what, cb_last_error());
    if (strcmp(e->admin_said, text) != 0) edge_say_of(e->log, CB_LOG_ERROR, "admin", "%s", text);
    snprintf(e->admin_said, sizeof e->admin_said, "%s", text);
}

static void try_audit(edge *e) {
    if (!e->admin || e->audit || !e->now->conf->admin->state_dir || e->audit_lent) return;
    if (open_audit(e) < 0) {
        say_once(e, NO_AUDIT ", and nothing can be changed");
        return;
    }
    if (cb_audit_metrics(e->audit, edge_metrics(e), "admin") < 0)
        edge_say_of(e->log, CB_LOG_WARN, "admin", "the audit log is not counted: %s", cb_last_error());
    cb_admin_set_audit(e->admin, e->audit);
    if (strncmp(e->admin_said, NO_AUDIT, sizeof NO_AUDIT - 1) != 0) return;
    edge_say_of(e->log, CB_LOG_INFO, "admin", "the audit log is open");
    e->admin_said[0] = '\0';
}

void edge_admin_lend(edge *e) {
    e->audit_lent = true;
    if (!e->audit) return;
    cb_admin_set_audit(e->admin, NULL);
    cb_audit_free(e->audit);
    e->audit = NULL;
}

void edge_admin_take_back(edge *e) {
    e->audit_lent = false;
    try_audit(e);
}

/* ---- a configuration ---- */

/* A door that is open gets other certificates and another gate. */
static void commit_tcp(edge *e) {
    if (!e->next_admin_gate) return;
    if (e->admin_identity)
        cb_identity_swap(e->admin_identity, e->next_admin_identity);
    else
        e->admin_identity = cb_identity_ref(e->next_admin_identity);
    if (e->admin && e->admin_tcp >= 0) cb_admin_set_gate(e->admin, e->admin_tcp, e->next_admin_gate);
    cb_authn_unref(e->admin_gate);
    e->admin_gate = e->next_admin_gate;
    e->next_admin_gate = NULL;
    cb_identity_unref(e->next_admin_identity);
    e->next_admin_identity = NULL;
}

void edge_admin_commit(edge *e, edge_snapshot *next) {
    (void)next;
    commit_tcp(e);
    try_audit(e);
    if (!e->next_roles) return;
    if (e->admin) cb_admin_set_roles(e->admin, e->next_roles);
    cb_admin_roles_unref(e->roles);
    e->roles = e->next_roles;
    e->next_roles = NULL;
}

/* ---- the doors ---- */

static int add_resources(edge *e) {
    int rc = cb_revisions_admin(e->revisions, e->admin,
                                CB_OPTS(cb_revisions_admin_opts, .allow = edge_scope_allow, .show = edge_scope_show));
    if (rc == CB_OK) rc = edge_admin_status(e, e->admin);
    if (rc == CB_OK) rc = edge_admin_pools(e, e->admin);
    if (rc == CB_OK) rc = edge_admin_connections(e, e->admin);
    if (rc == CB_OK) rc = edge_admin_operate(e, e->admin);
    if (rc == CB_OK) rc = edge_admin_lb(e, e->admin);
    return rc;
}

static int open_door(edge *e, const char *path) {
    char address[sizeof e->admin_socket + 8];
    snprintf(address, sizeof address, "unix:%s", path);
    /* The one of the process before is alive, and its path becomes ours; later whoever is there is a stranger. */
    const bool inherits = e->elder >= 0 && !e->admin_place[1];
    int rc = cb_admin_listen(e->admin, CB_OPTS(cb_admin_door_opts, .address = address, .replace = inherits));
    return rc < 0 ? rc : CB_OK;
}

static int open_tcp(edge *e, const edge_admin_listen_conf *l) {
    e->admin_tcp = -1;
    if (!l) return CB_OK;
    int rc = cb_admin_listen(e->admin, CB_OPTS(cb_admin_door_opts, .address = l->address, .identity = e->admin_identity,
                                               .gate = e->admin_gate));
    if (rc >= 0) e->admin_tcp = rc;
    return rc < 0 ? rc : CB_OK;
}

/* Revisions outlive it, and tell it of each change. */
static void close_all(edge *e) {
    if (e->admin) (void)cb_revisions_admin(e->revisions, NULL, NULL);
    cb_admin_free(e->admin);
    cb_audit_free(e->audit);
    e->admin = NULL;
    e->audit = NULL;
}

static int open_all(edge *e, const edge_admin_conf *c) {
    int rc = cb_admin_new(&e->admin, e->loop,
                          CB_OPTS(cb_admin_opts, .name = EDGE_WHAT, .roles = e->roles, .metrics = edge_metrics(e),
                                  .needs_audit = c->state_dir != NULL, .log_writer = e->writer));
    if (rc == CB_OK) rc = add_resources(e);
    if (rc == CB_OK) try_audit(e);
    if (rc == CB_OK) rc = open_door(e, c->socket);
    if (rc == CB_OK) rc = open_tcp(e, c->listen);
    if (rc == CB_OK) return CB_OK;
    char why[EDGE_SAID];
    snprintf(why, sizeof why, "%s", cb_last_error());
    close_all(e);
    return cb_error_set(rc, why);
}

static bool find_socket(const edge *e, uint64_t place[2]) {
    struct stat st;
    if (lstat(e->admin_socket, &st) < 0) return false;
    place[0] = st.st_dev;
    place[1] = st.st_ino;
    return true;
}

/* Somebody removed it, or a successor that failed had taken its place. */
static void look_after_socket(edge *e) {
    uint64_t now[2];
    if (!e->admin || e->upgrade) return;
    const bool found = find_socket(e, now);
    if (found ? memcmp(now, e->admin_place, sizeof now) == 0 : errno != ENOENT) return; /* we may not look: it may do */
    edge_say_of(e->log, CB_LOG_WARN, "admin", "unix:%s is not ours any more: it is opened again", e->admin_socket);
    close_all(e);
}

void edge_admin_open(edge *e) {
    const edge_admin_conf *c = e->now->conf->admin;
    if (!c || e->admin || e->stopping) return;
    snprintf(e->admin_socket, sizeof e->admin_socket, "%s", c->socket);
    if (open_all(e, c) < 0) {
        say_once(e, "administration is closed");
        return;
    }
    (void)find_socket(e, e->admin_place);
    edge_health_show(e, e->admin);
}

void edge_admin_tick(edge *e) {
    const uint32_t tick = e->ticks++;
    if (e->admin) edge_health_show(e, e->admin);
    if (tick % 2 == 0) edge_events_tick(e); /* once a second */
    if (tick % AGAIN_TICKS || !e->serving || e->stopping) return;
    look_after_socket(e);
    edge_admin_open(e);
    try_audit(e);
}

/* The log is let go as soon as nobody is answered any more: a successor waits for it. */
static void on_drained(cb_loop *loop, void *user) {
    (void)loop;
    close_all(user);
}

void edge_admin_drain(edge *e) {
    if (!e->admin) return;
    edge_event(e, "drain", "{\"yields\":%s}", e->yields ? "true" : "false");
    edge_health_show(e, e->admin);
    if (!e->yields) return; /* who asked how it drains is answered until the end */
    if (cb_admin_drain(e->admin, DRAIN_MS, 1, on_drained, e) < 0) on_drained(e->loop, e);
}

void edge_admin_free(edge *e) {
    close_all(e);
    edge_asks_free(e);
    edge_admin_abort(e);
    cb_admin_roles_unref(e->roles);
    cb_identity_unref(e->admin_identity);
    cb_authn_unref(e->admin_gate);
    e->roles = NULL;
    e->admin_identity = NULL;
    e->admin_gate = NULL;
}
