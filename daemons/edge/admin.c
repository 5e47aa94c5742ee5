/* Administration while it runs: a door on a unix socket, who may what, and the configuration with its revisions. */
#include "telemetry.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DRAIN_MS = 2000 };

/* The table of roles of a configuration. Names of users are looked up, so it is made anew with each. */
static int make_roles(cb_admin_roles **out, const edge_conf *c, edge_source *from) {
    const edge_role_conf *rows = c->admin->roles.at;
    int rc = cb_admin_roles_new(out);
    for (size_t i = 0; i < c->admin->roles.len && rc == CB_OK; i++) {
        const cb_admin_grant g = {.size = sizeof g,
                                  .who = rows[i].who,
                                  .role = rows[i].role,
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

int edge_admin_prepare(edge *e, edge_snapshot *next, edge_source *from) {
    const edge_admin_conf *c = next->conf->admin;
    const char *socket = c ? c->socket : NULL;
    edge_admin_abort(e);
    if (e->admin && strcmp(socket ? socket : "", e->admin_socket) != 0)
        return edge_wrong(from, "it changed, and that needs an upgrade (SIGUSR2)", "/admin/socket");
    return socket ? make_roles(&e->next_roles, next->conf, from) : CB_OK;
}

void edge_admin_commit(edge *e, edge_snapshot *next) {
    (void)next;
    if (e->admin && e->next_roles) cb_admin_set_roles(e->admin, e->next_roles);
    cb_admin_roles_unref(e->roles);
    e->roles = e->next_roles;
    e->next_roles = NULL;
}

void edge_admin_abort(edge *e) {
    cb_admin_roles_unref(e->next_roles);
    e->next_roles = NULL;
}

static int open_door(edge *e, const char *path) {
    char address[sizeof e->admin_socket + 8];
    snprintf(address, sizeof address, "unix:%s", path);
    int rc = cb_admin_listen(e->admin, CB_OPTS(cb_admin_door_opts, .address = address, .replace = e->elder >= 0));
    return rc < 0 ? rc : CB_OK;
}

int edge_admin_open(edge *e) {
    const edge_admin_conf *c = e->now->conf->admin;
    if (!c || !c->socket) return CB_OK;
    snprintf(e->admin_socket, sizeof e->admin_socket, "%s", c->socket);
    int rc = cb_admin_new(&e->admin, e->loop,
                          CB_OPTS(cb_admin_opts, .name = EDGE_WHAT, .roles = e->roles, .metrics = edge_metrics(e),
                                  .log_writer = e->writer));
    if (rc == CB_OK)
        rc = cb_revisions_admin(e->revisions, e->admin,
                                CB_OPTS(cb_revisions_admin_opts, .allow = edge_scope_allow, .show = edge_scope_show));
    if (rc == CB_OK) rc = open_door(e, c->socket);
    if (rc == CB_OK) cb_admin_ready(e->admin, 1, NULL);
    return rc;
}

void edge_admin_drain(edge *e) {
    if (e->admin) (void)cb_admin_drain(e->admin, DRAIN_MS, e->yields, NULL, NULL);
}

void edge_admin_free(edge *e) {
    cb_admin_free(e->admin);
    e->admin = NULL;
    edge_admin_abort(e);
    cb_admin_roles_unref(e->roles);
    e->roles = NULL;
}
