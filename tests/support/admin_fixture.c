#include "support/admin_fixture.h"
#include "base/addr.h"
#include "support/scratch.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 15000 };

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static cb_admin_roles *table(const char *role) {
    static const char *const owned[] = {"team-a", "team-b"};
    char who[32];
    cb_admin_roles *r = NULL;
    snprintf(who, sizeof who, "uid:%u", getuid());
    const bool owner = strcmp(role, "service-owner") == 0, tenant = strcmp(role, "tenant-admin") == 0;
    cr_assert_eq(cb_admin_roles_new(&r), CB_OK);
    cr_assert_eq(cb_admin_roles_add(r, CB_OPTS(cb_admin_grant, .who = who, .role = role, .owned = owned,
                                               .n_owned = owner ? 2 : 0, .tenant = tenant ? "acme" : NULL)),
                 CB_OK, "%s", cb_last_error());
    return r;
}

void admin_open(admin_world *w, uint32_t with, const char *role, const cb_admin_opts *opts) {
    cb_admin_opts o = opts ? *opts : (cb_admin_opts){0};
    *w = (admin_world){0};
    scratch_folder(w->folder, sizeof w->folder, "admin");
    snprintf(w->path, sizeof w->path, "%s/s", w->folder);
    snprintf(w->address, sizeof w->address, "unix:%s", w->path);
    snprintf(w->audit_path, sizeof w->audit_path, "%s/audit", w->folder);
    snprintf(w->key_path, sizeof w->key_path, "%s/key", w->folder);
    snprintf(w->log_path, sizeof w->log_path, "%s/log", w->folder);
    if (with & ADMIN_METRICS) cr_assert_eq(cb_metrics_new(&w->metrics, NULL), CB_OK);
    cr_assert_eq(cb_loop_new(&w->loop, CB_OPTS(cb_loop_opts, .metrics = w->metrics)), CB_OK);
    if (with & ADMIN_AUDIT)
        cr_assert_eq(cb_audit_open(&w->audit, CB_OPTS(cb_audit_opts, .path = w->audit_path, .key_file = w->key_path)),
                     CB_OK, "%s", cb_last_error());
    if (with & ADMIN_LOG)
        cr_assert_eq(cb_log_writer_open(&w->logs, CB_OPTS(cb_log_writer_opts, .target = w->log_path)), CB_OK, "%s",
                     cb_last_error());
    if (!(with & ADMIN_NO_ROLE)) w->roles = table(role);
    o.size = sizeof o;
    o.roles = w->roles;
    o.audit = w->audit;
    o.metrics = w->metrics;
    o.log_writer = w->logs;
    cr_assert_eq(cb_admin_new(&w->a, w->loop, &o), CB_OK, "%s", cb_last_error());
    if (!(with & ADMIN_NO_DOOR))
        cr_assert_eq(cb_admin_listen(w->a, CB_OPTS(cb_admin_door_opts, .address = w->address)), 0, "%s",
                     cb_last_error());
}

double admin_metric(const admin_world *w, const char *name, const char *first, const char *second) {
    const cb_slice values[] = {cb_slice_str(first), cb_slice_str(second)};
    double value = 0;
    cr_assert_eq(cb_metrics_value(w->metrics, name, first ? values : NULL, &value), CB_OK, "%s: %s", name,
                 cb_last_error());
    return value;
}

void admin_role(admin_world *w, const char *role) {
    cb_admin_roles *fresh = table(role);
    cb_admin_set_roles(w->a, fresh);
    cb_admin_roles_unref(w->roles);
    w->roles = fresh;
}

void admin_close(admin_world *w) {
    cb_admin_free(w->a);
    admin_turn(w, 20); /* what the audit log had to tell */
    cb_audit_free(w->audit);
    admin_turn(w, 20);
    cb_loop_free(w->loop);
    cb_log_writer_free(w->logs);
    cb_metrics_unref(w->metrics);
    cb_admin_roles_unref(w->roles);
    scratch_drop(w->folder);
}

void admin_turn(admin_world *w, int ms) {
    const uint64_t end = now_ms() + (uint64_t)ms;
    do {
        cb_loop_step(w->loop);
        usleep(200);
    } while (now_ms() < end);
}

int admin_dial(const char *path) {
    struct sockaddr_un at;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(cb_unix_addr(&at, path), CB_OK);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&at, sizeof at), 0, "%s", path);
    return fd;
}

int admin_dial_tcp(const char *address) {
    cb_addr at;
    cr_assert_eq(cb_addr_parse(&at, address, 0), CB_OK);
    const int fd = socket(at.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, &at.sa, cb_addr_len(&at)), 0, "%s", address);
    return fd;
}

const char *admin_field(const admin_reply *r, const char *name, char out[256]) {
    const size_t n = strlen(name);
    *out = '\0';
    for (const char *line = strstr(r->text, "\r\n"); line && line + 2 < r->body; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, n) == 0 && line[2 + n] == ':')
            snprintf(out, 256, "%.*s", (int)strcspn(line + 4 + n, "\r"), line + 4 + n);
    return out;
}

/* All of it: the head, and as much as it says. */
static bool whole(admin_reply *r) {
    char length[256];
    const char *end = strstr(r->text, "\r\n\r\n");
    if (!end) return false;
    r->body = end + 4;
    r->status = atoi(r->text + 9);
    if (r->status == 304 || r->status == 204) return true;
    return *admin_field(r, "content-length", length) && r->len - (size_t)(r->body - r->text) >= (size_t)atol(length);
}

int admin_read(admin_world *w, int fd, admin_reply *r) {
    const uint64_t end = now_ms() + PATIENCE_MS;
    r->len = 0;
    r->status = -1;
    r->body = r->text;
    r->text[0] = '\0';
    while (now_ms() < end && r->len + 1 < sizeof r->text) {
        cb_loop_step(w->loop);
        const ssize_t n = recv(fd, r->text + r->len, sizeof r->text - 1 - r->len, MSG_DONTWAIT);
        if (n > 0) r->len += (size_t)n;
        r->text[r->len] = '\0';
        if (n == 0 || whole(r)) break;
        if (n < 0) usleep(100);
    }
    (void)whole(r);
    return r->status;
}

int admin_ask(admin_world *w, admin_reply *r, const char *line, const char *fields, const char *body) {
    char head[16384];
    const int fd = admin_dial(w->path);
    int n = snprintf(head, sizeof head, "%s HTTP/1.1\r\nhost: x\r\n", line);
    while (fields && *fields) {
        const size_t len = strcspn(fields, "\n");
        n += snprintf(head + n, sizeof head - (size_t)n, "%.*s\r\n", (int)len, fields);
        fields += len + (fields[len] == '\n');
    }
    if (body) n += snprintf(head + n, sizeof head - (size_t)n, "content-length: %zu\r\n", strlen(body));
    n += snprintf(head + n, sizeof head - (size_t)n, "\r\n");
    cr_assert_eq(send(fd, head, (size_t)n, MSG_NOSIGNAL), n);
    for (size_t at = 0, len = body ? strlen(body) : 0; at < len;) {
        const ssize_t sent = send(fd, body + at, len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) at += (size_t)sent;
        if (sent < 0) admin_turn(w, 1);
    }
    admin_read(w, fd, r);
    close(fd);
    return r->status;
}
