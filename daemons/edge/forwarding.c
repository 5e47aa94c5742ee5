#include "forwarding.h"
#include "admin.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum { AGAIN_TICKS = 1, PATH_TICKS = 20 }; /* of half a second */

static bool differs(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") != 0;
}

static const edge_forward_member_conf *member_of(const edge_forwarding_conf *c, int64_t id) {
    const edge_forward_member_conf *m = c->members.at;
    for (size_t i = 0; i < c->members.len; i++)
        if (m[i].id == id) return &m[i];
    return NULL;
}

static const char *listen_of(const edge_forwarding_conf *c) {
    if (c->control && c->control->listen) return c->control->listen;
    return member_of(c, c->writer)->control;
}

bool edge_forwarding_differs(const edge_forwarding_conf *a, const edge_forwarding_conf *b) {
    if (!a || !b) return a != b;
    return a->id != b->id || a->writer != b->writer || a->buckets != b->buckets || differs(a->key_file, b->key_file) ||
           differs(a->state_file, b->state_file) || differs(a->pin_dir, b->pin_dir) || a->gue_port != b->gue_port ||
           a->underlay_mtu != b->underlay_mtu || a->heartbeat_ms != b->heartbeat_ms || a->misses != b->misses ||
           a->rise_ms != b->rise_ms || a->min_live_percent != b->min_live_percent || a->start_ms != b->start_ms ||
           a->moves_per_step != b->moves_per_step || a->step_ms != b->step_ms || a->ack_ms != b->ack_ms ||
           a->settle_ms != b->settle_ms || (a->id == a->writer && differs(listen_of(a), listen_of(b))) ||
           differs(member_of(a, a->id)->address, member_of(b, b->id)->address);
}

/* ---- what a configuration says ---- */

static int read_keys(edge_pop_keys *k, const edge_forwarding_conf *c) {
    int rc = cb_lb_secret_read(k->secret, c->key_file);
    if (rc == CB_OK) rc = cb_lb_secret_key(k->chain, k->secret, "chain");
    if (rc == CB_OK) rc = cb_lb_secret_key(k->hash, k->secret, "hash");
    return rc;
}

static int read_identity(cb_identity **out, const edge_forwarding_conf *c) {
    if (!c->control) return CB_OK;
    return cb_identity_new(out, CB_OPTS(cb_identity_opts, .cert_file = c->control->cert_file,
                                        .key_file = c->control->key_file, .ca_file = c->control->ca_file));
}

static int read_roots(cb_identity **out, const edge_forwarding_conf *c) {
    if (!c->health || !c->health->ca_file) return CB_OK;
    return cb_identity_new(out, CB_OPTS(cb_identity_opts, .ca_file = c->health->ca_file));
}

static cb_lb_node_member *make_members(const edge_forwarding_conf *c) {
    const edge_forward_member_conf *from = c->members.at;
    cb_lb_node_member *to = calloc(c->members.len, sizeof *to);
    for (size_t i = 0; to && i < c->members.len; i++)
        to[i] = (cb_lb_node_member){.size = sizeof *to,
                                    .id = (uint32_t)from[i].id,
                                    .weight = (uint32_t)from[i].weight,
                                    .address = from[i].address,
                                    .control = from[i].control,
                                    .peer = from[i].peer};
    return to;
}

/* As quic_lb has it of its own key. */
static int check_cids(const edge_forwarding_conf *c, edge_source *from) {
    const edge_forward_cid_conf *r = c->cids.at;
    char bytes[17], why[PATH_MAX + 64];
    for (size_t i = 0; i < c->cids.len; i++) {
        if (!r[i].cid_key_file) continue;
        FILE *file = fopen(r[i].cid_key_file, "rbe");
        const size_t n = file ? fread(bytes, 1, sizeof bytes, file) : 0;
        if (file) fclose(file);
        explicit_bzero(bytes, sizeof bytes);
        if (n == 16) continue;
        snprintf(why, sizeof why, "\"%s\" cannot be read, or has not 16 bytes", r[i].cid_key_file);
        return edge_wrong(from, why, "/forwarding/cids/%zu/cid_key_file", i);
    }
    return CB_OK;
}

int edge_forwarding_check(const edge_snapshot *s, edge_source *from) {
    const edge_forwarding_conf *c = s->conf->forwarding;
    cb_identity *identity = NULL, *roots = NULL;
    edge_pop_keys keys;
    int rc = CB_OK;
    if (!c) return CB_OK;
    if (read_keys(&keys, c) < 0) rc = edge_wrong(from, cb_last_error(), "/forwarding/key_file");
    explicit_bzero(&keys, sizeof keys);
    if (read_identity(&identity, c) < 0) rc = edge_wrong(from, cb_last_error(), "/forwarding/control");
    if (read_roots(&roots, c) < 0) rc = edge_wrong(from, cb_last_error(), "/forwarding/health/ca_file");
    cb_identity_unref(identity);
    cb_identity_unref(roots);
    if (check_cids(c, from) < 0) rc = CB_EINVAL;
    if (c->interfaces.len && !edge_path_built_in)
        edge_warn(from, "this cb-edge was built without libcb-xdp: nothing is forwarded", "/forwarding/interfaces");
    return rc;
}

/* ---- a configuration ---- */

int edge_forwarding_prepare(edge *e, edge_snapshot *next, edge_source *from) {
    edge_forwarding *f = e->forwarding;
    const edge_forwarding_conf *c = next->conf->forwarding;
    edge_forwarding_abort(e);
    if (!c) return CB_OK;
    if (!f->has_keys && read_keys(&f->keys, c) < 0) return edge_wrong(from, cb_last_error(), "/forwarding/key_file");
    f->has_keys = true;
    if (read_identity(&f->next_identity, c) < 0) return edge_wrong(from, cb_last_error(), "/forwarding/control");
    if (read_roots(&f->next_roots, c) < 0) return edge_wrong(from, cb_last_error(), "/forwarding/health/ca_file");
    return CB_OK;
}

void edge_forwarding_abort(edge *e) {
    edge_forwarding *f = e->forwarding;
    cb_identity_unref(f->next_identity);
    cb_identity_unref(f->next_roots);
    f->next_identity = f->next_roots = NULL;
}

static void take_members(edge_forwarding *f, const edge_forwarding_conf *c) {
    cb_lb_node_member *members = make_members(c);
    if (!members || cb_lb_node_members(f->node, members, c->members.len) < 0)
        edge_say_of(f->e->log, CB_LOG_ERROR, "lb", "members stay as they were: %s",
                    members ? cb_last_error() : "no memory");
    free(members);
}

void edge_forwarding_commit(edge *e, edge_snapshot *next) {
    edge_forwarding *f = e->forwarding;
    const edge_forwarding_conf *c = next->conf->forwarding;
    if (f->next_identity && f->identity)
        cb_identity_swap(f->identity, f->next_identity);
    else if (f->next_identity)
        f->identity = cb_identity_ref(f->next_identity);
    cb_identity_unref(f->roots);
    f->roots = f->next_roots;
    f->next_roots = NULL;
    edge_forwarding_abort(e);
    if (c && f->node) take_members(f, c);
    if (c && f->node) edge_watch_begin(f, c);
    if (c && f->path) edge_path_update(f, next->conf);
    if (c && e->serving) edge_addresses_look(e, c);
}

/* ---- the node ---- */

static int on_table(cb_lb_node *n, const cb_lb_table *table, void *user) {
    edge_forwarding *f = user;
    (void)n;
    return f->path ? edge_path_sync(f, table) : CB_OK;
}

static void on_state(cb_lb_node *n, void *user) {
    const edge_forwarding *f = user;
    cb_lb_node_stats s = {.size = sizeof s};
    if (!f->e->admin || cb_lb_node_stats_get(n, &s) < 0) return;
    edge_event(f->e, "forwarding", "{\"phase\":\"%s\",\"version\":%llu,\"epoch\":%u,\"members\":%u}",
               cb_lb_node_phase_name(s.phase), (unsigned long long)s.version, s.epoch, s.members);
}

static int open_node(edge_forwarding *f, const edge_forwarding_conf *c) {
    static const cb_lb_node_ops ops = {.size = sizeof ops, .on_table = on_table, .on_state = on_state};
    cb_lb_node_member *members = make_members(c);
    if (!members) return cb_error_set(CB_ENOMEM, "no memory for members");
    const cb_lb_node_opts o = {.size = sizeof o,
                               .id = (uint32_t)c->id,
                               .writer = (uint32_t)c->writer,
                               .members = members,
                               .n_members = c->members.len,
                               .key = f->keys.chain,
                               .identity = f->identity,
                               .listen = c->control ? c->control->listen : NULL,
                               .state_file = c->state_file,
                               .ops = &ops,
                               .user = f,
                               .buckets = (uint32_t)c->buckets,
                               .heartbeat_ms = (uint32_t)c->heartbeat_ms,
                               .misses = (uint32_t)c->misses,
                               .rise_ms = (uint32_t)c->rise_ms,
                               .min_live_percent = (uint32_t)c->min_live_percent,
                               .start_ms = (uint32_t)c->start_ms,
                               .moves_per_step = (uint32_t)c->moves_per_step,
                               .step_ms = (uint32_t)c->step_ms,
                               .ack_ms = (uint32_t)c->ack_ms,
                               .settle_ms = (uint32_t)c->settle_ms};
    int rc = cb_lb_node_new(&f->node, f->e->loop, &o);
    free(members);
    if (rc == CB_OK && cb_lb_node_metrics(f->node, edge_metrics(f->e)) < 0)
        edge_say_of(f->e->log, CB_LOG_WARN, "lb", "the table is not counted: %s", cb_last_error());
    return rc;
}

/* What hinders it never hinders the service: it is said, and tried again. */
void edge_forwarding_open(edge *e) {
    edge_forwarding *f = e->forwarding;
    const edge_forwarding_conf *c = e->now->conf->forwarding;
    if (!c || f->node || f->left || e->stopping) return;
    if (open_node(f, c) < 0) {
        const bool early = e->elder >= 0 && !f->tried; /* the process before is about to let go of the port */
        if (strcmp(f->said, cb_last_error()) != 0 && !early)
            edge_say_of(e->log, CB_LOG_ERROR, "lb", "the forwarding table is not shared: %s", cb_last_error());
        snprintf(f->said, sizeof f->said, "%s", early ? "" : cb_last_error());
        f->tried = true;
        f->open_at = f->ticks + AGAIN_TICKS;
        return;
    }
    f->said[0] = '\0';
    edge_watch_begin(f, c);
    const char *at = cb_lb_node_address(f->node);
    edge_say_of(e->log, CB_LOG_INFO, "lb", "member %lld of %zu; the writer is %lld%s%s", (long long)c->id,
                c->members.len, (long long)c->writer, *at ? ", at " : "", at);
    edge_addresses_look(e, c);
}

/* The load of the machine, as the kernel smooths it over a minute, by its processors. */
static void tell_load(edge_forwarding *f) {
    double load;
    if (getloadavg(&load, 1) != 1) return;
    const double permille = load * 1000 / edge_cpus();
    cb_lb_node_load(f->node, permille > 1e6 ? 1000000 : (uint32_t)permille);
}

/* Without a datapath no flow gets here by the table, so nothing has to end before a bucket has settled. */
static void tell_idle(edge_forwarding *f) {
    const cb_lb_table *t = cb_lb_node_table(f->node);
    cb_lb_node_stats s = {.size = sizeof s};
    cb_lb_owner o;
    if (cb_lb_node_stats_get(f->node, &s) < 0 || !s.moved) return;
    for (uint32_t b = 0; cb_lb_table_bucket(t, b, &o) == CB_OK; b++)
        if (o.phase == CB_LB_MOVED && o.second == s.id) (void)cb_lb_node_idle(f->node, b);
}

void edge_forwarding_tick(edge *e) {
    edge_forwarding *f = e->forwarding;
    f->ticks++;
    if (!f->node && !f->left && e->serving && f->ticks >= f->open_at) edge_forwarding_open(e);
    if (f->ticks % 2) return;
    if (f->node) tell_load(f);
    if (f->node && !f->path) tell_idle(f);
    if (f->node) edge_watch_tick(f);
    if (f->path && f->node) edge_path_tick(f);
    if (f->path && f->node && *f->path_said && f->ticks % PATH_TICKS == 0) edge_path_update(f, e->now->conf);
}

void edge_forwarding_restore(edge *e) {
    edge_forwarding *f = e->forwarding;
    if (f->path) edge_path_update(f, e->now->conf);
    if (f->path && f->node) (void)edge_path_sync(f, cb_lb_node_table(f->node));
}

void edge_forwarding_leave(edge *e, bool yields) {
    edge_forwarding *f = e->forwarding;
    f->left = true;
    if (!yields) {
        if (f->node) cb_lb_node_leave(f->node, 1);
        return;
    }
    edge_watch_end(f);
    cb_lb_node_free(f->node); /* a successor has the state file, the port, and what is pinned */
    f->node = NULL;           /* the datapath's object stays for the workers, who tell it of handshakes */
}

edge_forwarding *edge_forwarding_new(edge *e) {
    edge_forwarding *f = calloc(1, sizeof *f);
    if (f) f->e = e;
    return f;
}

/* As root, before rights are given up: the datapath may need them. */
int edge_forwarding_begin(edge *e) {
    edge_forwarding *f = e->forwarding;
    const edge_forwarding_conf *c = e->now->conf->forwarding;
    if (!c) return CB_OK;
    int rc = read_keys(&f->keys, c);
    if (rc < 0) return rc;
    f->has_keys = true;
    if (!c->interfaces.len) return CB_OK;
    edge_path_open(f, c);
    if (f->path) edge_path_update(f, e->now->conf);
    return CB_OK;
}

void edge_forwarding_free(edge *e) {
    edge_forwarding *f = e->forwarding;
    if (!f) return;
    edge_watch_end(f);
    cb_lb_node_free(f->node);
    edge_path_close(f);
    edge_forwarding_abort(e);
    cb_identity_unref(f->identity);
    cb_identity_unref(f->roots);
    explicit_bzero(&f->keys, sizeof f->keys);
    free(f);
    e->forwarding = NULL;
}
