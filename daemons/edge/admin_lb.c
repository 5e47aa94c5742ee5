/* The forwarding table of the PoP, as this host has it, and what operators do to members. */
#include "admin.h"
#include "forwarding.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* NULL: the call was answered. */
static cb_lb_node *node_of(cb_admin_call *call, edge *e) {
    const edge_forwarding *f = e->forwarding;
    char text[EDGE_SAID + 64];
    if (f->node) return f->node;
    if (!e->now->conf->forwarding) {
        cb_admin_problem(call, 404, "this cb-edge has no \"forwarding\" in its configuration");
        return NULL;
    }
    snprintf(text, sizeof text, "the forwarding table is not shared: %s", *f->said ? f->said : "not open yet");
    cb_admin_problem(call, 503, text);
    return NULL;
}

static void put_hex(cb_json_out *o, const char *name, uint64_t value) {
    char text[20];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)value);
    cb_json_put_str(o, name, text);
}

static void put_ms(cb_json_out *o, const char *name, uint64_t ms) {
    if (ms == UINT64_MAX)
        cb_json_put_null(o, name);
    else
        cb_json_put_uint(o, name, ms);
}

static void put_text(cb_json_out *o, const char *name, const char *text) {
    cb_json_put_str(o, name, *text ? text : NULL);
}

static void put_state(cb_json_out *o, const char *name, int state) {
    cb_json_put_str(o, name, state < 0 ? "absent" : cb_lb_state_name(state));
}

/* ---- GET /v1/lb ---- */

static void put_writes(cb_json_out *o, const cb_lb_node_stats *s) {
    cb_json_put_object(o, "writes");
    cb_json_put_uint(o, "records", s->writes.records);
    cb_json_put_uint(o, "moves", s->writes.moves);
    cb_json_put_uint(o, "taken", s->writes.taken);
    cb_json_put_uint(o, "late", s->writes.late);
    cb_json_put_uint(o, "forced", s->writes.forced);
    cb_json_put_uint(o, "waiting", s->writes.waiting);
    cb_json_put_uint(o, "refused", s->refused);
    cb_json_put_uint(o, "deaths", s->deaths);
    cb_json_put_uint(o, "rises", s->rises);
    cb_json_put_uint(o, "silent", s->silent);
    cb_json_put_end(o);
}

static int get_lb(cb_admin_call *call, void *user) {
    edge *e = user;
    cb_lb_node *n = node_of(call, e);
    cb_lb_node_stats s = {.size = sizeof s};
    if (!n) return CB_OK;
    int rc = cb_lb_node_stats_get(n, &s);
    if (rc < 0) return rc;
    cb_json_out *o = cb_admin_json(call);
    cb_json_put_object(o, NULL);
    cb_json_put_uint(o, "id", s.id);
    cb_json_put_uint(o, "writer", s.writer);
    cb_json_put_str(o, "phase", cb_lb_node_phase_name(s.phase));
    put_state(o, "self", s.self);
    put_text(o, "trouble", s.trouble);
    put_text(o, "listens", cb_lb_node_address(n));
    put_ms(o, "contact_ms", s.contact_ms);
    cb_json_put_uint(o, "epoch", s.epoch);
    cb_json_put_uint(o, "version", s.version);
    cb_json_put_uint(o, "applied", s.applied);
    put_hex(o, "chain", s.chain);
    put_hex(o, "content", s.content);
    cb_json_put_uint(o, "members", s.members);
    cb_json_put_object(o, "buckets");
    cb_json_put_uint(o, "all", s.buckets);
    cb_json_put_uint(o, "announced", s.announced);
    cb_json_put_uint(o, "moved", s.moved);
    cb_json_put_uint(o, "unowned", s.unowned);
    cb_json_put_end(o);
    cb_json_put_uint(o, "records", s.records);
    cb_json_put_uint(o, "tables", s.tables);
    cb_json_put_bool(o, "saved", !s.unsaved);
    if (s.id == s.writer) put_writes(o, &s);
    edge_path_put(e->forwarding, o);
    cb_json_put_end(o);
    return cb_admin_send(call, 200);
}

/* ---- GET /v1/lb/members ---- */

static void put_member(cb_json_out *o, const cb_lb_node_info *m, uint32_t buckets) {
    cb_json_put_object(o, NULL);
    cb_json_put_uint(o, "id", m->id);
    put_state(o, "state", m->state);
    cb_json_put_uint(o, "weight", m->weight);
    cb_json_put_uint(o, "given_weight", m->given);
    cb_json_put_uint(o, "table_weight", m->table_weight);
    cb_json_put_uint(o, "first", m->first);
    cb_json_put_uint(o, "coming", m->coming);
    cb_json_put_uint(o, "leaving", m->leaving);
    cb_json_put_number(o, "share", buckets ? (double)m->first / buckets : 0);
    cb_json_put_bool(o, "drained", m->drained);
    cb_json_put_bool(o, "stops", m->stops);
    cb_json_put_bool(o, "dead", m->dead);
    cb_json_put_bool(o, "held", m->held);
    cb_json_put_bool(o, "removed", m->removed);
    put_state(o, "health", m->health);
    cb_json_put_uint(o, "percent", m->percent);
    if (m->load == UINT32_MAX)
        cb_json_put_null(o, "load");
    else
        cb_json_put_number(o, "load", m->load / 1000.0);
    put_ms(o, "heard_ms", m->heard_ms);
    cb_json_put_uint(o, "acked", m->acked);
    put_text(o, "address", m->address);
    put_text(o, "control", m->control);
    put_text(o, "trouble", m->trouble);
    cb_json_put_end(o);
}

static int get_members(cb_admin_call *call, void *user) {
    cb_lb_node *n = node_of(call, user);
    cb_lb_node_info m = {.size = sizeof m};
    cb_lb_node_stats s = {.size = sizeof s};
    if (!n) return CB_OK;
    const char *cursor = cb_admin_cursor(call);
    const size_t from = cursor ? strtoul(cursor, NULL, 10) : 0, limit = cb_admin_limit(call);
    cb_lb_node_stats_get(n, &s);
    cb_admin_page_begin(call);
    cb_json_out *o = cb_admin_json(call);
    size_t i = from;
    for (; i < from + limit && cb_lb_node_member_get(n, i, &m) == CB_OK; i++)
        put_member(o, &m, s.buckets);
    char next[24];
    snprintf(next, sizeof next, "%zu", i);
    return cb_admin_page_end(call, cb_lb_node_member_get(n, i, &m) == CB_OK ? next : NULL);
}

/* Answers (and gives false) when there is none. */
static bool find_member(cb_admin_call *call, cb_lb_node *n, cb_lb_node_info *m) {
    const char *text = cb_admin_param(call, "id");
    char *end = NULL;
    const unsigned long id = strtoul(text, &end, 10);
    for (size_t i = 0; *text >= '0' && *text <= '9' && !*end && cb_lb_node_member_get(n, i, m) == CB_OK; i++)
        if (m->id == id) return true;
    cb_admin_problem(call, 404, "there is no such member");
    return false;
}

static int send_member(cb_admin_call *call, cb_lb_node *n) {
    cb_lb_node_info m = {.size = sizeof m};
    cb_lb_node_stats s = {.size = sizeof s};
    if (!find_member(call, n, &m)) return CB_OK;
    cb_lb_node_stats_get(n, &s);
    put_member(cb_admin_json(call), &m, s.buckets);
    return cb_admin_send(call, 200);
}

static int get_member(cb_admin_call *call, void *user) {
    cb_lb_node *n = node_of(call, user);
    return n ? send_member(call, n) : CB_OK;
}

/* ---- PUT /v1/lb/members/{id} ---- */

typedef struct wish_body {
    int32_t drained;
    int64_t weight;
} wish_body;

enum { DRAIN_UNSAID, DRAIN_YES, DRAIN_NO };

static const char *const drain_names[] = {"unchanged", "yes", "no", NULL};
static const cb_config_rule wish_rules[] = {
    {.name = "drained",
     .offset = offsetof(wish_body, drained),
     .kind = CB_CONFIG_ENUM,
     .names = drain_names,
     .fallback = "unchanged",
     .doc = "yes: its flows end there, and it gets no new ones. no: it gets its share again."},
    {.name = "weight",
     .offset = offsetof(wish_body, weight),
     .kind = CB_CONFIG_INT,
     .min = -1,
     .max = CB_LB_WEIGHT_MAX,
     .fallback = "-1",
     .doc = "Instead of the configured one; 0 = the configured one again; -1 or absent = unchanged."},
    {.name = NULL}};
static const cb_config_schema wish_schema = {.size = sizeof wish_schema,
                                             .title = "What an operator wants of a member",
                                             .members = wish_rules,
                                             .root_size = sizeof(wish_body)};

static int put_wish(cb_admin_call *call, void *user) {
    edge *e = user;
    cb_lb_node *n = node_of(call, e);
    cb_lb_node_info m = {.size = sizeof m};
    const wish_body *body = cb_admin_document(call);
    if (!n || !find_member(call, n, &m)) return CB_OK;
    if (body->drained == DRAIN_UNSAID && body->weight < 0)
        return cb_admin_problem(call, 400, "neither drained nor weight is said");
    int rc = body->drained == DRAIN_UNSAID ? CB_OK : cb_lb_node_drain(n, m.id, body->drained == DRAIN_YES);
    if (rc == CB_OK && body->weight >= 0) rc = cb_lb_node_weight(n, m.id, (uint32_t)body->weight);
    if (rc == CB_ENOTSUP) return cb_admin_problem(call, 409, cb_last_error());
    if (rc < 0) return rc;
    if (body->drained != DRAIN_UNSAID)
        edge_say_of(e->log, CB_LOG_INFO, "lb", "member %u is %s by an operator", m.id,
                    body->drained == DRAIN_YES ? "drained" : "not drained any more");
    if (body->weight >= 0)
        edge_say_of(e->log, CB_LOG_INFO, "lb", "member %u has weight %lld by an operator%s", m.id,
                    (long long)(body->weight ? body->weight : m.weight), body->weight ? "" : " (the configured one)");
    return send_member(call, n);
}

/* ---- buckets ---- */

static void put_bucket(cb_json_out *o, const cb_lb_owner *b) {
    static const char *const phases[] = {"stable", "announced", "moved"};
    cb_json_put_object(o, NULL);
    cb_json_put_uint(o, "bucket", b->bucket);
    if (b->first)
        cb_json_put_uint(o, "first", b->first);
    else
        cb_json_put_null(o, "first");
    if (b->second)
        cb_json_put_uint(o, "second", b->second);
    else
        cb_json_put_null(o, "second");
    cb_json_put_str(o, "phase", phases[b->phase]);
    cb_json_put_end(o);
}

/* All, or those that move, or those of one member. */
static int get_buckets(cb_admin_call *call, void *user) {
    cb_lb_node *n = node_of(call, user);
    uint64_t member = 0;
    if (!n) return CB_OK;
    const char *cursor = cb_admin_cursor(call), *moving = cb_admin_query(call, "moving");
    if (cb_admin_query_uint(call, "member", UINT32_MAX, &member) == CB_EINVAL) return CB_OK;
    uint32_t b = cursor ? (uint32_t)strtoul(cursor, NULL, 10) : 0, found = 0;
    const uint32_t limit = cb_admin_limit(call);
    const bool only_moving = moving && strcmp(moving, "true") == 0;
    cb_lb_owner owner;
    int rc = CB_OK;
    cb_admin_page_begin(call);
    for (; found < limit && (rc = cb_lb_table_bucket(cb_lb_node_table(n), b, &owner)) == CB_OK; b++) {
        if (only_moving && owner.phase == CB_LB_STABLE) continue;
        if (member && owner.first != member && owner.second != member) continue;
        put_bucket(cb_admin_json(call), &owner);
        found++;
    }
    char next[16];
    snprintf(next, sizeof next, "%u", b);
    return cb_admin_page_end(call,
                             rc == CB_OK && cb_lb_table_bucket(cb_lb_node_table(n), b, &owner) == CB_OK ? next : NULL);
}

static int get_bucket(cb_admin_call *call, void *user) {
    cb_lb_node *n = node_of(call, user);
    const char *text = cb_admin_param(call, "n");
    char *end = NULL;
    cb_lb_owner owner;
    if (!n) return CB_OK;
    const unsigned long b = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || b > UINT32_MAX ||
        cb_lb_table_bucket(cb_lb_node_table(n), (uint32_t)b, &owner) < 0)
        return cb_admin_problem(call, 404, "there is no such bucket");
    put_bucket(cb_admin_json(call), &owner);
    return cb_admin_send(call, 200);
}

/* ---- GET /v1/lb/owner: of a flow ---- */

static int get_owner(cb_admin_call *call, void *user) {
    edge *e = user;
    cb_lb_node *n = node_of(call, e);
    const char *from = cb_admin_query(call, "from"), *to = cb_admin_query(call, "to");
    const char *protocol = cb_admin_query(call, "protocol");
    cb_lb_owner owner = {.bucket = 0};
    uint64_t hash = 0;
    if (!n) return CB_OK;
    if (!from || !to)
        return cb_admin_problem(call, 400, "from and to are needed: the client's address and ours, with ports");
    const int number = !protocol || strcmp(protocol, "tcp") == 0 ? 6 : strcmp(protocol, "udp") == 0 ? 17 : 0;
    int rc = cb_lb_flow_hash(&hash, e->forwarding->keys.hash, from, to, number);
    if (rc < 0) return cb_admin_problem(call, 400, cb_last_error());
    const uint32_t buckets = (uint32_t)e->now->conf->forwarding->buckets;
    rc = cb_lb_table_bucket(cb_lb_node_table(n), cb_lb_bucket(hash, buckets), &owner);
    if (rc < 0) return cb_admin_problem(call, 503, "the table is empty");
    put_bucket(cb_admin_json(call), &owner);
    return cb_admin_send(call, 200);
}

int edge_admin_lb(edge *e, cb_admin *a) {
    static const cb_admin_query_param buckets[] = {
        {"moving", "\"true\": only those that move", "{\"type\":\"string\",\"enum\":[\"true\",\"false\"]}"},
        {"member", "Only those that this member is first or second in", "{\"type\":\"integer\",\"minimum\":0}"}};
    static const cb_admin_query_param flow[] = {
        {"from", "The client's address and port: \"192.0.2.1:1234\", \"[2001:db8::1]:1234\"", NULL},
        {"to", "The VIP and port", NULL},
        {"protocol", "tcp when absent", "{\"type\":\"string\",\"enum\":[\"tcp\",\"udp\"]}"}};
    static const cb_admin_resource rows[] = {{.size = sizeof rows[0],
                                              .method = "GET",
                                              .path = "/v1/lb",
                                              .id = "getLb",
                                              .summary = "The forwarding table and the datapath of this host",
                                              .rights = CB_RIGHT_READ,
                                              .handle = get_lb},
                                             {.size = sizeof rows[0],
                                              .method = "GET",
                                              .path = "/v1/lb/members",
                                              .id = "getLbMembers",
                                              .summary = "Members of the PoP, and how each is",
                                              .rights = CB_RIGHT_READ,
                                              .flags = CB_ADMIN_PAGES,
                                              .handle = get_members},
                                             {.size = sizeof rows[0],
                                              .method = "GET",
                                              .path = "/v1/lb/members/{id}",
                                              .id = "getLbMember",
                                              .summary = "One member",
                                              .rights = CB_RIGHT_READ,
                                              .handle = get_member},
                                             {.size = sizeof rows[0],
                                              .method = "PUT",
                                              .path = "/v1/lb/members/{id}",
                                              .id = "putLbMember",
                                              .summary = "Drain a member, or give it another weight; on the writer",
                                              .rights = CB_RIGHT_OPERATE,
                                              .flags = CB_ADMIN_CHANGES,
                                              .document = &wish_schema,
                                              .handle = put_wish},
                                             {.size = sizeof rows[0],
                                              .method = "GET",
                                              .path = "/v1/lb/buckets",
                                              .id = "getLbBuckets",
                                              .summary = "Buckets of the table with their owners",
                                              .rights = CB_RIGHT_READ,
                                              .flags = CB_ADMIN_PAGES,
                                              .query = buckets,
                                              .n_query = 2,
                                              .handle = get_buckets},
                                             {.size = sizeof rows[0],
                                              .method = "GET",
                                              .path = "/v1/lb/buckets/{n}",
                                              .id = "getLbBucket",
                                              .summary = "The owners of one bucket",
                                              .rights = CB_RIGHT_READ,
                                              .handle = get_bucket},
                                             {.size = sizeof rows[0],
                                              .method = "GET",
                                              .path = "/v1/lb/owner",
                                              .id = "getLbOwner",
                                              .summary = "Whose a flow is, by its addresses and ports",
                                              .rights = CB_RIGHT_READ,
                                              .query = flow,
                                              .n_query = 3,
                                              .handle = get_owner}};
    return edge_admin_add(a, rows, sizeof rows / sizeof *rows, e);
}
