#include "forwarding.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef CB_HAVE_XDP
#include <arpa/inet.h>
#include <cb/forward.h>

const bool edge_path_built_in = true;

struct edge_path {
    cb_forward *forward;
};

static void say_once(edge_forwarding *f, const char *what, const char *why) {
    char text[EDGE_SAID];
    snprintf(text, sizeof text, "%s: %s", what, why);
    if (strcmp(f->path_said, text) != 0 && strcmp(f->path_was, text) != 0)
        edge_say_of(f->e->log, CB_LOG_ERROR, "lb", "%s", text);
    snprintf(f->path_said, sizeof f->path_said, "%s", text);
}

static const edge_forward_member_conf *self_of(const edge_forwarding_conf *c) {
    const edge_forward_member_conf *m = c->members.at;
    for (size_t i = 0; i < c->members.len; i++)
        if (m[i].id == c->id) return &m[i];
    return m;
}

/* ---- opening ---- */

static int tag_key(uint8_t key[CB_LB_KEY_BYTES], const edge_forwarding *f, int64_t number) {
    char purpose[32];
    snprintf(purpose, sizeof purpose, "tag %lld", (long long)number);
    return cb_lb_secret_key(key, f->keys.secret, purpose);
}

/* Where the endpoints of all workers tell of their handshakes; before and without a datapath nobody listens. */
static int on_opened(cb_slice dcid, void *user) {
    const edge *e = user;
    const cb_dcid_hook *hook = atomic_load(&e->dcid_hook);
    return hook && hook->opened ? hook->opened(dcid, hook->user) : 0;
}

static void on_closed(cb_slice dcid, void *user) {
    const edge *e = user;
    const cb_dcid_hook *hook = atomic_load(&e->dcid_hook);
    if (hook && hook->closed) hook->closed(dcid, hook->user);
}

cb_dcid_hook edge_forwarding_dcids(edge *e) {
    return (cb_dcid_hook){.size = sizeof(cb_dcid_hook), .opened = on_opened, .closed = on_closed, .user = e};
}

void edge_path_open(edge_forwarding *f, const edge_forwarding_conf *c) {
    const char *address = self_of(c)->address;
    const bool six = strchr(address, ':') != NULL;
    uint8_t tag[CB_LB_KEY_BYTES];
    edge_path *p = calloc(1, sizeof *p);
    int rc = p ? tag_key(tag, f, c->tag_key) : cb_error_set(CB_ENOMEM, "no memory for a datapath");
    if (rc == CB_OK)
        rc = cb_forward_new(&p->forward,
                            CB_OPTS(cb_forward_opts, .log = f->e->log, .hash_key = f->keys.hash,
                                    .address4 = six ? NULL : address, .address6 = six ? address : NULL,
                                    .pin_dir = c->pin_dir, .id = (uint32_t)c->id, .buckets = (uint32_t)c->buckets,
                                    .underlay_mtu = (uint32_t)c->underlay_mtu, .gue_port = (uint16_t)c->gue_port));
    if (rc < 0) {
        say_once(f, "nothing is forwarded, and cb-edge goes on as a plain proxy", cb_last_error());
        free(p);
        return;
    }
    f->path = p;
    f->e->dcids = cb_forward_dcid_hook(p->forward);
    atomic_store(&f->e->dcid_hook, &f->e->dcids);
    if (cb_forward_metrics(p->forward, edge_metrics(f->e)) < 0)
        edge_say_of(f->e->log, CB_LOG_WARN, "lb", "the datapath is not counted: %s", cb_last_error());
}

/* ---- a configuration ---- */

/* Number N is in place N modulo 4; the one before and the one after are known, too. */
static int tell_tags(edge_forwarding *f, const edge_forwarding_conf *c) {
    int rc = CB_OK;
    for (int64_t n = c->tag_key > 0 ? c->tag_key - 1 : 0; n <= c->tag_key + 1 && rc == CB_OK; n++) {
        uint8_t key[CB_LB_KEY_BYTES];
        rc = tag_key(key, f, n);
        if (rc == CB_OK)
            rc = cb_forward_tag_key(f->path->forward, (uint32_t)(n % CB_FORWARD_TAG_KEYS), key, n == c->tag_key);
        explicit_bzero(key, sizeof key);
    }
    return rc;
}

static int tell_members(edge_forwarding *f, const edge_forwarding_conf *c) {
    const edge_forward_member_conf *m = c->members.at;
    int rc = CB_OK;
    for (size_t i = 0; i < c->members.len && rc == CB_OK; i++)
        rc = cb_forward_member(f->path->forward,
                               CB_OPTS(cb_forward_member_opts, .address = m[i].address, .id = (uint32_t)m[i].id,
                                       .encapsulation = m[i].encapsulation ? m[i].encapsulation - 1 : c->encapsulation,
                                       .mtu = (uint32_t)m[i].mtu));
    return rc;
}

static const int32_t vip_protocols[] = {CB_FORWARD_ANY, CB_FORWARD_TCP, CB_FORWARD_UDP}; /* by EDGE_VIP_... */

static int tell_vips(edge_forwarding *f, const edge_forwarding_conf *c) {
    const edge_forward_vip_conf *v = c->vips.at;
    int rc = CB_OK;
    for (size_t i = 0; i < c->vips.len && rc == CB_OK; i++)
        rc = cb_forward_vip(f->path->forward, CB_OPTS(cb_forward_vip_opts, .address = v[i].address,
                                                      .protocol = vip_protocols[v[i].protocol],
                                                      .port = (uint16_t)v[i].port, .quic = (uint8_t)v[i].quic));
    return rc;
}

static size_t read_hex(uint8_t *out, size_t cap, const char *text) {
    size_t n = 0;
    unsigned byte;
    while (n < cap && text[2 * n] && sscanf(text + 2 * n, "%2x", &byte) == 1)
        out[n++] = (uint8_t)byte;
    return n;
}

static int read_cid_key(uint8_t key[16], const char *path) {
    FILE *file = fopen(path, "rbe");
    const size_t n = file ? fread(key, 1, 16, file) : 0;
    if (file) fclose(file);
    return n == 16 ? CB_OK : cb_error_set(CB_EINVAL, "a cid_key_file cannot be read, or has not 16 bytes");
}

/* One rotation, and which member each server ID names. */
static int tell_rotation(edge_forwarding *f, const edge_forwarding_conf *c, int64_t rotation, const char *key_file) {
    const edge_forward_member_conf *m = c->members.at;
    uint8_t key[16], id[CB_QUIC_LB_SERVER_ID_MAX];
    const char *first = self_of(c)->server_id;
    if (!first) return CB_OK;
    const size_t len = read_hex(id, sizeof id, first);
    int rc = key_file ? read_cid_key(key, key_file) : CB_OK;
    if (rc == CB_OK)
        rc = cb_forward_cid(f->path->forward,
                            CB_OPTS(cb_quic_lb_opts, .rotation = (uint32_t)rotation, .server_id_bytes = (uint32_t)len,
                                    .codec = key_file ? CB_QUIC_LB_AES_ONE : CB_QUIC_LB_PLAIN,
                                    .key = key_file ? key : NULL));
    explicit_bzero(key, sizeof key);
    for (size_t i = 0; i < c->members.len && rc == CB_OK; i++) {
        const size_t n = m[i].server_id ? read_hex(id, sizeof id, m[i].server_id) : 0;
        if (n) rc = cb_forward_server(f->path->forward, (uint32_t)rotation, (cb_slice){id, n}, (uint32_t)m[i].id);
    }
    return rc;
}

static int tell_cids(edge_forwarding *f, const edge_conf *c) {
    const edge_forward_cid_conf *others = c->forwarding->cids.at;
    int rc = c->quic_lb ? tell_rotation(f, c->forwarding, c->quic_lb->rotation, c->quic_lb->cid_key_file) : CB_OK;
    for (size_t i = 0; i < c->forwarding->cids.len && rc == CB_OK; i++)
        rc = tell_rotation(f, c->forwarding, others[i].rotation, others[i].cid_key_file);
    return rc;
}

/* Else connection IDs of a rotation that is over, and its key, would be believed until the next start. */
static void drop_rotations(edge_forwarding *f, const edge_conf *c) {
    enum { ROTATIONS = 7 };
    const edge_forward_cid_conf *others = c->forwarding->cids.at;
    for (int64_t r = 0; r < ROTATIONS; r++) {
        bool there = c->quic_lb && c->quic_lb->rotation == r;
        for (size_t i = 0; i < c->forwarding->cids.len; i++)
            there |= others[i].rotation == r;
        if (!there) (void)cb_forward_cid_remove(f->path->forward, (uint32_t)r);
    }
}

static int tell_interfaces(edge_forwarding *f, const edge_forwarding_conf *c) {
    const edge_forward_interface_conf *all = c->interfaces.at;
    int worst = CB_OK;
    for (size_t i = 0; i < c->interfaces.len; i++) {
        const int rc =
            cb_forward_attach(f->path->forward, all[i].name, all[i].mode, (uint32_t)all[i].role + CB_FORWARD_EDGE);
        if (rc < 0) worst = rc;
        if (rc < 0) say_once(f, all[i].name, cb_last_error());
    }
    return worst;
}

static void drop_interfaces(edge_forwarding *f, const edge_forwarding_conf *c) {
    const edge_forward_interface_conf *conf = c->interfaces.at;
    cb_forward_interface_stats i = {.size = sizeof i};
    for (size_t k = 0; cb_forward_interface_stats_get(f->path->forward, k, &i) == CB_OK;) {
        bool there = false;
        for (size_t j = 0; j < c->interfaces.len; j++)
            there |= strcmp(conf[j].name, i.name) == 0;
        k += there || cb_forward_detach(f->path->forward, i.name) < 0;
    }
}

/* One whose address another one has by now goes, too: it is told anew. */
static bool stays(const edge_forwarding_conf *c, const cb_forward_member_stats *m) {
    const edge_forward_member_conf *conf = c->members.at;
    bool there = false;
    for (size_t j = 0; j < c->members.len; j++) {
        there |= conf[j].id == m->id;
        if (conf[j].id != m->id && edge_prefix_same(conf[j].address, m->address)) return false;
    }
    return there;
}

static void drop_members(edge_forwarding *f, const edge_forwarding_conf *c) {
    cb_forward_member_stats m = {.size = sizeof m};
    for (size_t k = 0; cb_forward_member_stats_get(f->path->forward, k, &m) == CB_OK;)
        k += stays(c, &m) || cb_forward_member_remove(f->path->forward, m.id) < 0;
}

static void drop_vips(edge_forwarding *f, const edge_forwarding_conf *c) {
    const edge_forward_vip_conf *conf = c->vips.at;
    cb_forward_vip_stats v = {.size = sizeof v};
    for (size_t k = 0; cb_forward_vip_stats_get(f->path->forward, k, &v) == CB_OK;) {
        bool there = false;
        for (size_t j = 0; j < c->vips.len && !there; j++)
            there = vip_protocols[conf[j].protocol] == v.protocol && conf[j].port == v.port &&
                    edge_prefix_same(conf[j].address, v.address); /* it may be written in another way */
        const cb_forward_vip_opts o = {.size = sizeof o, .address = v.address, .protocol = v.protocol, .port = v.port};
        k += there || cb_forward_vip_remove(f->path->forward, &o) < 0;
    }
}

/* What is left of the configuration before goes first: what comes may have its addresses. */
void edge_path_update(edge_forwarding *f, const edge_conf *c) {
    const edge_forwarding_conf *w = c->forwarding;
    memcpy(f->path_was, f->path_said, sizeof f->path_was);
    f->path_said[0] = '\0';
    drop_members(f, w);
    drop_vips(f, w);
    drop_rotations(f, c);
    int rc = tell_tags(f, w);
    if (rc == CB_OK) rc = tell_members(f, w);
    if (rc == CB_OK) rc = tell_vips(f, w);
    if (rc == CB_OK) rc = tell_cids(f, c);
    if (rc < 0) say_once(f, "the datapath has not all of the configuration", cb_last_error());
    if (rc < 0) return;
    (void)tell_interfaces(f, w); /* says itself which one cannot be had; the others forward */
    drop_interfaces(f, w);
    if (cb_forward_prune(f->path->forward) < 0)
        say_once(f, "what a predecessor had is not all taken away", cb_last_error());
    (void)cb_forward_resolve(f->path->forward); /* comes again each second */
}

/* ---- while it runs ---- */

/* A pinned table of the process before may be newer than the one of our state file. */
int edge_path_sync(edge_forwarding *f, const cb_lb_table *table) {
    cb_forward_stats now = {.size = sizeof now};
    cb_lb_table_stats t = {.size = sizeof t};
    cb_lb_node_stats n = {.size = sizeof n};
    if (cb_forward_stats_get(f->path->forward, &now) == CB_OK && cb_lb_table_stats_get(table, &t) == CB_OK && f->node &&
        cb_lb_node_stats_get(f->node, &n) == CB_OK && now.adopted && now.table_version > t.version &&
        n.phase != CB_LB_NODE_WRITING && n.phase != CB_LB_NODE_FOLLOWING)
        return cb_error_set(CB_EPERM, "the datapath has a newer table");
    const int rc = cb_forward_sync(f->path->forward, table);
    return rc == CB_ENOENT || rc > 0 ? CB_OK : rc;
}

static int on_idle(uint32_t bucket, void *user) {
    edge_forwarding *f = user;
    return cb_lb_node_idle(f->node, bucket);
}

void edge_path_tick(edge_forwarding *f) {
    cb_lb_node_stats s = {.size = sizeof s};
    if (cb_forward_resolve(f->path->forward) < 0)
        edge_say_of(f->e->log, CB_LOG_WARN, "lb", "ways to members are not looked for: %s", cb_last_error());
    (void)cb_forward_run(f->path->forward);
    if (cb_lb_node_stats_get(f->node, &s) == CB_OK && s.moved) (void)cb_forward_idle(f->path->forward, on_idle, f);
}

static void put_counters(cb_forward *w, cb_json_out *o) {
    const char *name;
    uint64_t value;
    cb_json_put_object(o, "counters");
    for (uint32_t i = 0; cb_forward_count(w, i, &name, NULL, &value) == CB_OK; i++)
        cb_json_put_uint(o, name, value);
    cb_json_put_end(o);
}

static void put_interfaces(cb_forward *w, cb_json_out *o) {
    static const char *const roles[] = {"", "edge", "underlay", "both"};
    cb_forward_interface_stats s = {.size = sizeof s};
    cb_json_put_list(o, "interfaces");
    for (size_t i = 0; cb_forward_interface_stats_get(w, i, &s) == CB_OK; i++) {
        cb_json_put_object(o, NULL);
        cb_json_put_str(o, "name", s.name);
        cb_json_put_str(o, "role", roles[s.roles & 3]);
        cb_json_put_str(o, "mode", s.mode == CB_FORWARD_NATIVE ? "native" : "generic");
        cb_json_put_bool(o, "there", s.ifindex != 0);
        cb_json_put_end(o);
    }
    cb_json_put_end(o);
}

static void put_vips(cb_forward *w, cb_json_out *o) {
    cb_forward_vip_stats s = {.size = sizeof s};
    cb_json_put_list(o, "vips");
    for (size_t i = 0; cb_forward_vip_stats_get(w, i, &s) == CB_OK; i++) {
        cb_json_put_object(o, NULL);
        cb_json_put_str(o, "address", s.address);
        cb_json_put_str(o, "protocol",
                        s.protocol == CB_FORWARD_TCP   ? "tcp"
                        : s.protocol == CB_FORWARD_UDP ? "udp"
                                                       : "tcp+udp");
        cb_json_put_uint(o, "port", s.port);
        cb_json_put_bool(o, "quic", s.quic);
        cb_json_put_uint(o, "packets", s.packets);
        cb_json_put_uint(o, "bytes", s.bytes);
        cb_json_put_end(o);
    }
    cb_json_put_end(o);
}

static void put_ways(cb_forward *w, cb_json_out *o) {
    static const char *const forms[] = {"gue", "ipip", "mac"};
    cb_forward_member_stats s = {.size = sizeof s};
    cb_json_put_list(o, "ways");
    for (size_t i = 0; cb_forward_member_stats_get(w, i, &s) == CB_OK; i++) {
        cb_json_put_object(o, NULL);
        cb_json_put_uint(o, "member", s.id);
        cb_json_put_str(o, "address", s.address);
        cb_json_put_str(o, "encapsulation", forms[s.encapsulation % 3]);
        cb_json_put_uint(o, "mtu", s.mtu);
        cb_json_put_bool(o, "resolved", s.resolved);
        cb_json_put_str(o, "why", *s.why ? s.why : NULL);
        cb_json_put_uint(o, "packets", s.packets);
        cb_json_put_uint(o, "bytes", s.bytes);
        cb_json_put_end(o);
    }
    cb_json_put_end(o);
}

void edge_path_put(const edge_forwarding *f, cb_json_out *o) {
    cb_forward_stats s = {.size = sizeof s};
    cb_json_put_object(o, "datapath");
    cb_json_put_bool(o, "running", f->path != NULL);
    cb_json_put_str(o, "trouble", *f->path_said ? f->path_said : NULL);
    if (f->path && cb_forward_stats_get(f->path->forward, &s) == CB_OK) {
        cb_json_put_uint(o, "table_version", s.table_version);
        cb_json_put_uint(o, "unresolved", s.unresolved);
        cb_json_put_uint(o, "program", s.program_id);
        cb_json_put_bool(o, "adopted", (int)s.adopted);
        put_interfaces(f->path->forward, o);
        put_vips(f->path->forward, o);
        put_ways(f->path->forward, o);
        put_counters(f->path->forward, o);
    }
    cb_json_put_end(o);
}

void edge_path_close(edge_forwarding *f) {
    edge_path *p = f->path;
    if (!p) return;
    atomic_store(&f->e->dcid_hook, NULL);
    cb_forward_free(p->forward);
    free(p);
    f->path = NULL;
}
#else
const bool edge_path_built_in = false;

cb_dcid_hook edge_forwarding_dcids(edge *e) {
    (void)e;
    return (cb_dcid_hook){.size = sizeof(cb_dcid_hook)};
}

void edge_path_open(edge_forwarding *f, const edge_forwarding_conf *c) {
    (void)c;
    snprintf(f->path_said, sizeof f->path_said, "this cb-edge was built without libcb-xdp: nothing is forwarded");
    edge_say_of(f->e->log, CB_LOG_ERROR, "lb", "%s", f->path_said);
}

void edge_path_update(edge_forwarding *f, const edge_conf *c) {
    (void)f, (void)c;
}

int edge_path_sync(edge_forwarding *f, const cb_lb_table *table) {
    (void)f, (void)table;
    return CB_OK;
}

void edge_path_tick(edge_forwarding *f) {
    (void)f;
}

void edge_path_put(const edge_forwarding *f, cb_json_out *o) {
    cb_json_put_object(o, "datapath");
    cb_json_put_bool(o, "running", 0);
    cb_json_put_str(o, "trouble", *f->path_said ? f->path_said : NULL);
    cb_json_put_end(o);
}

void edge_path_close(edge_forwarding *f) {
    (void)f;
}
#endif
