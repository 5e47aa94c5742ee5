/* One request: who sends it, what it is for, whether it may be, until its resource has it. */
#include "admin/admin_int.h"
#include "base/addr.h"
#include "base/error.h"
#include "http/fields.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GROUPS_MAX = 65536 };

/* ---- life ---- */

static void call_bury(cb_grave *g) {
    cb_admin_call *c = CB_CONTAINER(g, cb_admin_call, grave);
    cb_mem_free(cb_loop_alloc(c->due.loop), c);
}

/* All but the memory, which goes at the end of the turn: a resource may be on the stack. */
static void call_end(cb_admin_call *c) {
    cb_admin *a = c->a;
    if (c->buried) return;
    c->buried = true;
    cb_admin_record_forget(c);
    cb_alarm_stop(&c->due);
    if (c->replay) cb_replays_forget(&a->replays, c->replay);
    if (c->handed && !c->answered) {
        a->n_waiting--;
        cb_cells_move(cb_loop_cells(a->loop), CB_C_ADMIN_WAITING, -1);
    }
    if (c->scraping) a->n_scrapes--;
    a->body_bytes -= c->body.len;
    cb_authn_call_free(c->authn);
    cb_admin_target_free(&c->target, a->alloc);
    cb_admin_person_free(&c->who);
    cb_buf_free(&c->body);
    cb_buf_free(&c->answer);
    cb_config_unref(c->config);
    cb_json_out_free(c->out);
    cb_json_out_free(c->mistakes);
    cb_mem_free(a->alloc, c->location);
    cb_mem_free(a->alloc, c->if_match);
    cb_mem_free(a->alloc, c->if_none_match);
    cb_list_del(&c->link);
    cb_loop_bury(a->loop, &c->grave, call_bury);
}

void cb_admin_call_settle(cb_admin_call *c) {
    const bool held = c->handed && !c->answered; /* the resource has it */
    if (!c->x && !held && !c->recording) call_end(c);
}

void cb_admin_call_cut(cb_admin_call *c) {
    cb_exchange *x = c->x;
    c->x = NULL;
    if (x) cb_exchange_abandon(x);
    if (c->handed && !c->answered && c->on_end) c->on_end(c, c->on_end_user);
    call_end(c);
}

cb_exchange *cb_admin_call_take(cb_admin_call *c) {
    cb_exchange *x = c->x;
    c->x = NULL;
    if (c->handed && !c->answered) c->a->n_waiting--;
    cb_admin_count(c, 200);
    c->answered = true;
    return x;
}

/* ---- to the resource ---- */

static void handle(cb_admin_call *c) {
    c->handed = true;
    c->denied = CB_C_ADMIN_DENIED_RESOURCE;
    c->a->n_waiting++;
    cb_cells_move(cb_loop_cells(c->a->loop), CB_C_ADMIN_WAITING, 1);
    const int rc = c->row->r.handle(c, c->row->user);
    if (rc < 0 && !c->answered) (void)cb_admin_fail(c, rc);
    cb_admin_call_settle(c);
}

static void on_recorded(cb_admin_call *c, int rc) {
    if (rc < 0) {
        (void)cb_admin_problemf(c, 507, "the audit log cannot be written, so nothing is changed: %s", cb_last_error());
        return;
    }
    c->recorded = true;
    handle(c);
}

/* All of the request is here, and it may be. */
static void ask(cb_admin_call *c) {
    const uint32_t flags = c->row->r.flags;
    cb_alarm_stop(&c->due);
    if (cb_admin_check_body(c)) return;
    if (c->a->n_waiting >= c->a->o.max_waiting) {
        (void)cb_admin_problemf(c, 429, "%zu requests wait for their answers", c->a->n_waiting);
        return;
    }
    if (!(flags & CB_ADMIN_CHANGES) || flags & CB_ADMIN_COMMITS || c->dry_run) {
        handle(c);
        return;
    }
    const int rc = cb_admin_record(c, CB_AUDIT_DONE, NULL, on_recorded);
    if (rc < 0) on_recorded(c, rc);
}

/* ---- who asks ---- */

/* Somebody is known: may they? */
static void judge(cb_admin_call *c) {
    const cb_admin_principal *p = &c->who.p;
    c->denied = p->roles ? CB_C_ADMIN_DENIED_RIGHT : CB_C_ADMIN_DENIED_ROLE;
    if (!p->roles) {
        (void)cb_admin_problemf(c, 403, "%s has no role here", p->name);
        return;
    }
    if (c->row && c->row->r.rights && !(c->row->r.rights & p->rights)) {
        (void)cb_admin_problemf(c, 403, "%s may not do this", p->name);
        return;
    }
    if (cb_admin_check_head(c)) return;
    c->admitted = true;
    if (c->body_done)
        ask(c);
    else if (c->x)
        cb_exchange_resume(c->x);
}

static void known(cb_admin_call *c, const cb_admin_facts *facts) {
    const char *address = cb_http_server_address(c->door->srv);
    if (cb_admin_roles_judge(c->a->roles, facts, address, &c->who) < 0)
        (void)cb_admin_problemf(c, 500, "%s", cb_last_error());
    else
        judge(c);
}

static void ask_kernel(cb_admin_call *c) {
    cb_unix_peer peer = {.size = sizeof peer};
    uint32_t few[32], *groups = few;
    int rc = cb_exchange_unix_peer(c->x, &peer, few, 32);
    if (rc == CB_OK && peer.n_groups > 32 && peer.n_groups <= GROUPS_MAX) {
        const uint32_t n = peer.n_groups;
        groups = cb_mem_get(c->a->alloc, n * sizeof *groups);
        rc = groups ? cb_exchange_unix_peer(c->x, &peer, groups, n) : cb_fail(CB_ENOMEM, "groups");
        if (rc == CB_OK && peer.n_groups != n) rc = cb_fail(CB_ESYS, "groups");
    }
    const cb_admin_facts facts = {
        .local = true, .uid = peer.uid, .gid = peer.gid, .groups = groups, .n_groups = peer.n_groups};
    if (rc < 0)
        (void)cb_admin_problemf(c, 500, "who is at the other end of the socket: %s", cb_last_error());
    else
        known(c, &facts);
    if (groups != few) cb_mem_free(c->a->alloc, groups);
}

static void on_gate(cb_authn_call *authn, int rc, void *user) {
    cb_admin_call *c = user;
    const cb_admin_facts facts = {.principal = cb_authn_principal(authn)};
    if (rc == CB_OK) {
        known(c, &facts);
        return;
    }
    c->challenges = cb_authn_challenges(authn, &c->n_challenges);
    const int status = rc == CB_EAUTH ? cb_authn_status(authn) : 500;
    (void)cb_admin_problemf(c, status, "%s", rc == CB_EAUTH ? cb_authn_reason(authn) : cb_last_error());
}

static void ask_gate(cb_admin_call *c) {
    cb_authn_request request;
    cb_authn_request_of(&request, c->x, (int64_t)(cb_loop_wall(c->a->loop) / CB_SEC));
    int rc = cb_authn_call_new(&c->authn, c->a->worker);
    if (rc == CB_OK) rc = cb_authn_begin(c->authn, c->door->gate, &request, on_gate, c);
    if (rc == CB_EAGAIN) return;
    if (c->authn)
        on_gate(c->authn, rc, c);
    else
        (void)cb_admin_problemf(c, 500, "%s", cb_last_error());
}

/* A door for everybody on the host: what a browser's page asks under a name that it made lead here is refused. */
static bool foreign_host(const cb_exchange *x) {
    cb_addr at;
    char text[CB_ADDR_TEXT];
    const cb_slice host = cb_exchange_authority(x);
    if (host.len == 0 || host.len >= sizeof text) return host.len > 0;
    memcpy(text, host.base, host.len);
    text[host.len] = '\0';
    if (strncmp(text, "localhost", 9) == 0 && (text[9] == ':' || !text[9])) return false;
    return cb_addr_parse(&at, text, 0) < 0;
}

static void ask_nobody(cb_admin_call *c) {
    const cb_admin_row *row = c->row;
    c->who.p = (cb_admin_principal){.name = "public", .door = cb_http_server_address(c->door->srv)};
    if (c->door->open && foreign_host(c->x)) {
        (void)cb_admin_problemf(c, 421, "ask by an address, or as localhost");
        return;
    }
    if (!row) {
        (void)cb_admin_problemf(c, *c->allow ? 405 : 404, "this door is for health and metrics only");
        return;
    }
    if (cb_admin_check_head(c)) return;
    c->admitted = true;
    if (c->body_done) ask(c);
}

/* ---- the exchange ---- */

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    cb_admin_call *c = user;
    cb_admin *a = c->a;
    (void)x;
    if (c->answered) return (int64_t)data.len;
    if (!c->admitted) return 0; /* nobody is known yet: the peer is held back */
    if (data.len > a->o.max_body_bytes - c->body.len) {
        (void)cb_admin_problemf(c, 413, "a body has at most %u bytes", a->o.max_body_bytes);
        return (int64_t)data.len;
    }
    if (a->body_bytes + data.len > (size_t)CB_ADMIN_BODIES * a->o.max_body_bytes ||
        cb_buf_add(&c->body, data.base, data.len) < 0) {
        (void)cb_admin_problemf(c, 503, "too many large requests at once");
        return (int64_t)data.len;
    }
    a->body_bytes += data.len;
    return (int64_t)data.len;
}

static int on_end(cb_exchange *x, void *user) {
    cb_admin_call *c = user;
    (void)x;
    c->body_done = true;
    if (c->answered) cb_alarm_stop(&c->due);
    if (c->admitted && !c->answered) ask(c);
    return CB_OK;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    cb_admin_call *c = user;
    (void)x;
    (void)rc;
    c->x = NULL;
    if (!c->handed && !c->recording) c->answered = true; /* it never was asked */
    if (c->authn) cb_authn_call_reset(c->authn);
    cb_admin_call_settle(c);
}

static const cb_exchange_ops call_ops = {
    .size = sizeof call_ops, .on_body = on_body, .on_end = on_end, .on_close = on_close};

static void on_due(cb_alarm *alarm, cb_time now) {
    cb_admin_call *c = CB_CONTAINER(alarm, cb_admin_call, due);
    (void)now;
    if (c->authn && !c->admitted) cb_authn_call_reset(c->authn);
    if (c->answered && c->x)
        cb_exchange_reset(c->x, CB_RESET_CALM); /* it was answered, and still sends */
    else if (!c->answered)
        (void)cb_admin_problemf(c, 408, "the request did not arrive within %u ms", c->a->o.request_timeout_ms);
    if (c->x && !c->buried) (void)cb_alarm_set(&c->due, cb_loop_now(c->a->loop) + CB_SEC);
}

static cb_admin_call *call_new(cb_admin_door *door, cb_exchange *x) {
    cb_admin *a = door->a;
    cb_admin_call *c = cb_mem_new(a->alloc, sizeof *c);
    if (!c || cb_json_out_new(&c->out, 0) < 0) {
        cb_mem_free(a->alloc, c);
        return NULL;
    }
    c->a = a;
    c->door = door;
    c->x = x;
    c->began = cb_loop_now(a->loop);
    c->denied = CB_C_ADMIN_DENIED_UNKNOWN;
    cb_alarm_init(&c->due, a->loop, on_due);
    cb_buf_init(&c->body, a->alloc, a->o.max_body_bytes);
    cb_buf_init(&c->answer, a->alloc, SIZE_MAX);
    cb_list_init(&c->link);
    cb_list_add_tail(&a->calls, &c->link);
    return c;
}

static int on_head(cb_exchange *x, void *user) {
    cb_admin_door *door = user;
    cb_admin *a = door->a;
    cb_admin_call *c = call_new(door, x);
    if (!c) return cb_fail(CB_ENOMEM, "a request");
    (void)cb_exchange_handle(x, &call_ops, c);
    int rc = cb_alarm_set(&c->due, cb_loop_now(a->loop) + a->o.request_timeout_ms * CB_MS);
    if (rc < 0) return rc; /* no request without an end: it is reset */
    if (cb_admin_door_conns(door) > a->o.max_conns)
        return cb_admin_problemf(c, 503, "%u connections are open already", a->o.max_conns);
    const char *wrong = cb_admin_target_read(&c->target, a->alloc, cb_exchange_path(x));
    if (wrong) return cb_admin_problemf(c, 400, "%s", wrong);
    c->row = cb_admin_router_find(&a->router, &c->target, cb_exchange_method(x), door->open, c->allow);
    if (door->open || (c->row && c->row->open)) {
        ask_nobody(c);
    } else if (door->local) {
        ask_kernel(c);
    } else {
        ask_gate(c);
    }
    return CB_OK;
}

const cb_exchange_ops cb_admin_door_ops = {.size = sizeof cb_admin_door_ops, .on_head = on_head};
