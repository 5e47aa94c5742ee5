/* Life of a node's core, its members, and what it tells of itself. */
#include "base/error.h"
#include "base/opts.h"
#include "base/siphash.h"
#include "lb/maglev.h"
#include "lb/node_int.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- saying ---- */

void cb_lb_core_say(cb_lb_core *c, int level, const char *fmt, ...) {
    char text[512];
    va_list ap;
    if (!c->ops.log) return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    c->ops.log(level, text, c->ops.user);
}

void cb_lb_core_trouble(cb_lb_core *c, char text[CB_LB_NODE_TEXT], const char *fmt, ...) {
    char now[CB_LB_NODE_TEXT] = "";
    if (fmt) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(now, sizeof now, fmt, ap);
        va_end(ap);
    }
    if (!strcmp(now, text)) return;
    memcpy(text, now, sizeof now);
    if (*now) cb_lb_core_say(c, CB_LOG_WARN, "forwarding table: %s", now);
    if (c->ops.state) c->ops.state(c->ops.user);
}

/* ---- members ---- */

static int by_id(const void *a, const void *b) {
    const cb_lb_host *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

cb_lb_host *cb_lb_host_find(const cb_lb_core *c, uint32_t id) {
    const cb_lb_host wanted = {.id = id};
    return c->n_hosts ? bsearch(&wanted, c->hosts, c->n_hosts, sizeof *c->hosts, by_id) : NULL;
}

const cb_lb_host *cb_lb_core_host(const cb_lb_core *c, uint32_t id) {
    return cb_lb_host_find(c, id);
}

static void host_drop(cb_lb_core *c, cb_lb_host *h) {
    cb_mem_free(&c->alloc, h->address);
    cb_mem_free(&c->alloc, h->control);
    cb_mem_free(&c->alloc, h->peer);
}

static int host_make(cb_lb_core *c, cb_lb_host *h, const cb_lb_node_member *m) {
    const char *address = m->address ? m->address : "";
    *h = (cb_lb_host){.id = m->id,
                      .weight = m->weight ? m->weight : 100,
                      .sum = m->address ? (uint32_t)cb_siphash(c->key, address, strlen(address)) | 1 : 0,
                      .address = cb_mem_text(&c->alloc, address),
                      .control = cb_mem_text(&c->alloc, m->control ? m->control : ""),
                      .peer = cb_mem_text(&c->alloc, m->peer),
                      .percent = 100,
                      .load = UINT32_MAX};
    if (h->address && h->control && (h->peer || !m->peer)) return CB_OK;
    host_drop(c, h);
    return cb_fail(CB_ENOMEM, "no memory for a member of a forwarding table");
}

static int member_check(const cb_lb_node_member *m, size_t i) {
    static const char *const where = "cb_lb_node_member";
    if (!m->id) return cb_fail(CB_EINVAL, "%s %zu: id is 0", where, i);
    if (m->weight > CB_LB_WEIGHT_MAX)
        return cb_fail(CB_EINVAL, "%s %u: weight %u is above %d", where, (unsigned)m->id, (unsigned)m->weight,
                       CB_LB_WEIGHT_MAX);
    if (m->address && strlen(m->address) >= sizeof((cb_lb_node_info *)0)->address)
        return cb_fail(CB_EINVAL, "%s %u: address is too long", where, (unsigned)m->id);
    if (m->control && strlen(m->control) >= sizeof((cb_lb_node_info *)0)->control)
        return cb_fail(CB_EINVAL, "%s %u: control is too long", where, (unsigned)m->id);
    return CB_OK;
}

/* They are sorted: of one ID are neighbours. */
static int set_check(const cb_lb_core *c, const cb_lb_host *hosts, size_t n) {
    bool us = false, writer = false;
    for (size_t i = 0; i < n; i++) {
        if (i && hosts[i].id == hosts[i - 1].id)
            return cb_fail(CB_EINVAL, "cb_lb_node_opts: two members have the id %u", (unsigned)hosts[i].id);
        us |= hosts[i].id == c->o.id;
        writer |= hosts[i].id == c->o.writer;
    }
    if (!us) return cb_fail(CB_EINVAL, "cb_lb_node_opts: id %u is none of the members", (unsigned)c->o.id);
    if (!writer) return cb_fail(CB_EINVAL, "cb_lb_node_opts: writer %u is none of the members", (unsigned)c->o.writer);
    return CB_OK;
}

/* What was learnt of a member stays with it. */
static void carry_over(cb_lb_core *c, cb_lb_host *to, cb_lb_host *from) {
    cb_lb_host fresh = *to;
    *to = *from;
    to->weight = fresh.weight;
    to->sum = fresh.sum;
    to->removed = false;
    to->address = fresh.address;
    to->control = fresh.control;
    to->peer = fresh.peer;
    host_drop(c, from);
    from->id = 0;
}

static void drop_all(cb_lb_core *c, cb_lb_host *hosts, size_t n) {
    for (size_t i = 0; i < n; i++)
        host_drop(c, &hosts[i]);
    cb_mem_free(&c->alloc, hosts);
}

/* The new set in the place of the old one; who is not in it leaves (on the writer), or is forgotten. */
static void swap_in(cb_lb_core *c, cb_lb_host *hosts, size_t n) {
    const size_t configured = n;
    for (size_t i = 0; i < c->n_hosts; i++) {
        cb_lb_host *old = &c->hosts[i];
        cb_lb_host *to = bsearch(old, hosts, configured, sizeof *hosts, by_id);
        if (to) {
            carry_over(c, to, old);
        } else if (cb_lb_core_leads(c) && (old->told || cb_lb_table_seat(c->t, old->id) >= 0)) {
            hosts[n] = *old;
            hosts[n].removed = true;
            hosts[n++].trouble[0] = 0;
        } else {
            cb_lb_lead_forget(c, old);
            host_drop(c, old);
        }
    }
    for (size_t i = 0; i < n; i++)
        hosts[i].knows_all = false; /* until it says so */
    cb_mem_free(&c->alloc, c->hosts);
    qsort(hosts, n, sizeof *hosts, by_id);
    c->hosts = hosts;
    c->n_hosts = n;
}

static int take_members(cb_lb_core *c, const cb_lb_node_member *members, size_t n) {
    if (!members || !n || n > CB_LB_MEMBERS_MAX)
        return cb_fail(CB_EINVAL, "cb_lb_node_opts: %zu members; 1 to %d are possible", n, CB_LB_MEMBERS_MAX);
    cb_lb_host *hosts = cb_mem_new(&c->alloc, (n + c->n_hosts) * sizeof *hosts);
    if (!hosts) return cb_fail(CB_ENOMEM, "no memory for %zu members", n);
    size_t made = 0;
    int rc = CB_OK;
    for (size_t i = 0; i < n && rc == CB_OK; i++) {
        cb_lb_node_member m;
        const uint8_t *at = (const uint8_t *)members + i * members->size;
        rc = cb_opts_read(&m, sizeof m, at, "cb_lb_node_member");
        if (rc == CB_OK) rc = member_check(&m, i);
        if (rc == CB_OK) rc = host_make(c, &hosts[i], &m);
        made += rc == CB_OK;
    }
    if (rc == CB_OK) qsort(hosts, n, sizeof *hosts, by_id);
    if (rc == CB_OK) rc = set_check(c, hosts, n);
    if (rc < 0) {
        drop_all(c, hosts, made);
        return rc;
    }
    swap_in(c, hosts, n);
    return CB_OK;
}

int cb_lb_core_members(cb_lb_core *c, const cb_lb_node_member *members, size_t n, cb_time now) {
    int rc = take_members(c, members, n);
    if (rc < 0) return rc;
    c->dirty = true;
    cb_lb_core_run(c, now);
    return CB_OK;
}

int cb_lb_host_add(cb_lb_core *c, uint32_t id) {
    cb_lb_host *hosts = cb_mem_grow(&c->alloc, c->hosts, (c->n_hosts + 1) * sizeof *hosts);
    if (!hosts) return cb_fail(CB_ENOMEM, "no memory for member %u", (unsigned)id);
    c->hosts = hosts;
    int rc = host_make(c, &hosts[c->n_hosts], &(cb_lb_node_member){.id = id});
    if (rc < 0) return rc;
    hosts[c->n_hosts++].removed = true;
    qsort(hosts, c->n_hosts, sizeof *hosts, by_id);
    return CB_OK;
}

/* ---- birth and death ---- */

static int in_range(uint32_t value, uint32_t least, uint32_t most, const char *name) {
    if (value >= least && value <= most) return CB_OK;
    return cb_fail(CB_EINVAL, "cb_lb_node_opts: %s is %u; %u to %u are possible", name, (unsigned)value,
                   (unsigned)least, (unsigned)most);
}

int cb_lb_core_opts(cb_lb_node_opts *o) {
    if (!o->id) return cb_fail(CB_EINVAL, "cb_lb_node_opts: id is 0");
    if (!o->writer) return cb_fail(CB_EINVAL, "cb_lb_node_opts: writer is 0");
    if (!o->key) return cb_fail(CB_EINVAL, "cb_lb_node_opts: key is NULL");
    if (!o->buckets) o->buckets = CB_LB_BUCKETS;
    if (!o->heartbeat_ms) o->heartbeat_ms = 1000;
    if (!o->misses) o->misses = 3;
    if (!o->min_live_percent) o->min_live_percent = 50;
    if (!o->start_ms) o->start_ms = 5000;
    int rc = in_range(o->heartbeat_ms, 50, 60000, "heartbeat_ms");
    if (rc == CB_OK) rc = in_range(o->misses, 3, 100, "misses");
    if (rc == CB_OK) rc = in_range(o->min_live_percent, 1, 100, "min_live_percent");
    if (rc == CB_OK && (o->buckets > CB_LB_BUCKETS_MAX || !cb_lb_is_prime(o->buckets)))
        rc = cb_fail(CB_EINVAL, "cb_lb_node_opts: buckets is %u; it has to be a prime of at most %d",
                     (unsigned)o->buckets, CB_LB_BUCKETS_MAX);
    if (!o->rise_ms) o->rise_ms = o->misses * o->heartbeat_ms;
    return rc;
}

static int take_key(cb_lb_core *c, const uint8_t *key) {
    static const char what[] = "cb_lb_node: which key";
    memcpy(c->key, key, sizeof c->key);
    c->key_check = cb_siphash(key, what, sizeof what);
    return cb_lb_table_new(&c->t, CB_OPTS(cb_lb_table_opts, .alloc = &c->alloc, .key = key));
}

int cb_lb_core_new(cb_lb_core **out, const cb_lb_node_opts *opts, const cb_lb_core_ops *ops, const cb_alloc *alloc,
                   cb_slice saved, uint64_t instance, cb_time now) {
    cb_lb_node_opts o = *opts;
    int rc = cb_lb_core_opts(&o);
    if (rc < 0) return rc;
    cb_lb_core *c = cb_mem_new(alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for a node of a forwarding table");
    c->alloc = *alloc;
    c->o = o;
    c->ops = *ops;
    c->instance = instance;
    c->heartbeat_ms = o.heartbeat_ms;
    c->load = UINT32_MAX;
    c->began_at = c->ask_at = now;
    c->phase_told = -1;
    rc = take_key(c, o.key);
    if (rc == CB_OK) rc = take_members(c, o.members, o.n_members);
    if (rc == CB_OK && saved.len) rc = cb_lb_saved_read(c, saved);
    if (rc == CB_OK) {
        cb_lb_lead_init(c, now);
        *out = c;
        return CB_OK;
    }
    cb_lb_core_free(c);
    return rc;
}

void cb_lb_core_free(cb_lb_core *c) {
    if (!c) return;
    const cb_alloc a = c->alloc;
    cb_lb_lead_free(c);
    drop_all(c, c->hosts, c->n_hosts);
    cb_lb_table_free(c->t);
    cb_mem_free(&a, c->idle);
    cb_mem_wipe(c->key, sizeof c->key);
    cb_mem_free(&a, c);
}

/* ---- what both kinds do ---- */

void cb_lb_core_push(cb_lb_core *c, cb_time now) {
    const uint64_t version = c->t->version;
    c->dirty = true;
    c->table_again = 0;
    const int rc = c->ops.table ? c->ops.table(c->ops.user) : CB_OK;
    if (rc < 0) {
        c->table_again = now + (cb_time)c->heartbeat_ms * CB_LB_MS;
        if (rc == CB_EPERM) return; /* it has a newer one, of the process before: until the writer has spoken */
        cb_lb_core_trouble(c, c->trouble, "the datapath did not take the table: %s", cb_last_error());
        return;
    }
    if (!strncmp(c->trouble, "the datapath", 12)) cb_lb_core_trouble(c, c->trouble, NULL);
    c->applied = version;
    if (c->w) cb_lb_writer_ack(c->w, c->o.id, version);
}

void cb_lb_core_run(cb_lb_core *c, cb_time now) {
    if (c->table_again && now >= c->table_again) cb_lb_core_push(c, now);
    if (cb_lb_core_leads(c))
        cb_lb_lead_run(c, now);
    else
        cb_lb_follow_run(c, now);
    const int phase = cb_lb_core_phase(c, now);
    if (phase == c->phase_told) return;
    c->phase_told = phase;
    if (c->ops.state) c->ops.state(c->ops.user);
}

cb_time cb_lb_core_next(const cb_lb_core *c, cb_time now) {
    cb_time at = cb_lb_core_leads(c) ? cb_lb_lead_next(c, now) : cb_lb_follow_next(c, now);
    if (cb_lb_core_phase(c, now) != c->phase_told) return now;
    if (c->table_again && c->table_again < at) at = c->table_again;
    if (c->dirty && !c->saving && c->save_at < at) at = c->save_at;
    return at;
}

int cb_lb_core_phase(const cb_lb_core *c, cb_time now) {
    if (cb_lb_core_leads(c)) return c->w ? CB_LB_NODE_WRITING : CB_LB_NODE_STARTING;
    if (c->refused) return CB_LB_NODE_REFUSED;
    if (!c->spoken) return CB_LB_NODE_JOINING;
    return now - c->contact_at > cb_lb_core_lease(c) ? CB_LB_NODE_ALONE : CB_LB_NODE_FOLLOWING;
}

/* ---- wishes ---- */

void cb_lb_core_load(cb_lb_core *c, uint32_t permille) {
    cb_lb_host *us = cb_lb_host_find(c, c->o.id);
    c->load = us->load = permille;
}

void cb_lb_core_leave(cb_lb_core *c, int leaves, cb_time now) {
    cb_lb_host *us = cb_lb_host_find(c, c->o.id);
    c->leaves = us->stops = leaves != 0;
    cb_lb_core_run(c, now);
}

static int ours_to_write(cb_lb_core *c, uint32_t id, cb_lb_host **out) {
    const cb_lb_host *w = cb_lb_host_find(c, c->o.writer);
    if (!cb_lb_core_leads(c))
        return cb_fail(CB_ENOTSUP, "member %u (%s) is the writer of this forwarding table: ask there", (unsigned)w->id,
                       *w->control ? w->control : w->address);
    *out = cb_lb_host_find(c, id);
    return *out && !(*out)->removed ? CB_OK : cb_fail(CB_ENOENT, "there is no member %u", (unsigned)id);
}

int cb_lb_core_state(cb_lb_core *c, uint32_t id, int state, uint32_t percent, cb_time now) {
    cb_lb_host *h = NULL;
    if (state < CB_LB_UP || state > CB_LB_DEAD) return cb_fail(CB_EINVAL, "cb_lb_node_state: state is %d", state);
    if (percent > 1000) return cb_fail(CB_EINVAL, "cb_lb_node_state: %u percent; 1000 is the most", (unsigned)percent);
    int rc = ours_to_write(c, id, &h);
    if (rc < 0) return rc;
    h->health = state;
    h->percent = percent ? percent : 100;
    cb_lb_core_run(c, now);
    return CB_OK;
}

/* What an operator wants is not waited with. */
static void soon_on_disk(cb_lb_core *c) {
    c->dirty = true;
    c->save_at = 0;
}

int cb_lb_core_drain(cb_lb_core *c, uint32_t id, int drains, cb_time now) {
    cb_lb_host *h = NULL;
    int rc = ours_to_write(c, id, &h);
    if (rc < 0) return rc;
    if (h->drained != (drains != 0)) soon_on_disk(c);
    h->drained = drains != 0;
    cb_lb_core_run(c, now);
    return CB_OK;
}

int cb_lb_core_weight(cb_lb_core *c, uint32_t id, uint32_t weight, cb_time now) {
    cb_lb_host *h = NULL;
    if (weight > CB_LB_WEIGHT_MAX)
        return cb_fail(CB_EINVAL, "weight %u is above %d", (unsigned)weight, CB_LB_WEIGHT_MAX);
    int rc = ours_to_write(c, id, &h);
    if (rc < 0) return rc;
    if (h->given != weight) soon_on_disk(c);
    h->given = weight;
    cb_lb_core_run(c, now);
    return CB_OK;
}

/* ---- telling ---- */

const cb_lb_table *cb_lb_core_table(const cb_lb_core *c) {
    return c->t;
}

void cb_lb_core_stats(const cb_lb_core *c, cb_lb_node_stats *out, cb_time now) {
    const cb_lb_table *t = c->t;
    const int seat = cb_lb_table_seat(t, c->o.id);
    *out = (cb_lb_node_stats){.size = sizeof *out,
                              .id = c->o.id,
                              .writer = c->o.writer,
                              .phase = cb_lb_core_phase(c, now),
                              .self = seat < 0 ? -1 : t->seats[seat].state,
                              .version = t->version,
                              .chain = t->chain,
                              .content = t->content,
                              .epoch = t->epoch,
                              .buckets = c->o.buckets,
                              .members = t->members,
                              .announced = t->announced,
                              .moved = t->moved,
                              .unowned = t->buckets ? t->unowned : c->o.buckets,
                              .applied = c->applied,
                              .contact_ms = cb_lb_core_leads(c) ? 0
                                            : c->spoken         ? (now - c->contact_at) / CB_LB_MS
                                                                : UINT64_MAX,
                              .records = c->records,
                              .tables = c->tables,
                              .refused = c->refusals,
                              .deaths = c->deaths,
                              .rises = c->rises,
                              .silent = c->silent,
                              .unsaved = c->dirty || c->saving,
                              .writes = {.size = sizeof out->writes}};
    if (c->w) cb_lb_writer_stats_get(c->w, &out->writes);
    memcpy(out->trouble, c->trouble, sizeof out->trouble);
}

int cb_lb_core_info(const cb_lb_core *c, size_t i, cb_lb_node_info *out, cb_time now) {
    if (i >= c->n_hosts) return cb_fail(CB_ENOENT, "there are %zu members", c->n_hosts);
    const cb_lb_host *h = &c->hosts[i];
    const int seat = cb_lb_table_seat(c->t, h->id);
    const cb_lb_seat *s = seat < 0 ? NULL : &c->t->seats[seat];
    const bool us = h->id == c->o.id;
    *out = (cb_lb_node_info){.size = sizeof *out,
                             .id = h->id,
                             .weight = h->weight,
                             .given = h->given,
                             .percent = h->percent,
                             .state = s ? s->state : -1,
                             .health = h->health,
                             .table_weight = s ? s->weight : 0,
                             .first = s ? s->first : 0,
                             .coming = s ? s->coming : 0,
                             .leaving = s ? s->leaving : 0,
                             .load = h->load,
                             .heard_ms = us         ? 0
                                         : h->heard ? (now - h->heard_at) / CB_LB_MS
                                                    : UINT64_MAX,
                             .acked = us ? c->applied : h->acked,
                             .drained = h->drained,
                             .stops = h->stops,
                             .dead = h->dead,
                             .held = h->held_back,
                             .removed = h->removed};
    snprintf(out->address, sizeof out->address, "%s", h->address);
    snprintf(out->control, sizeof out->control, "%s", h->control);
    memcpy(out->trouble, h->trouble, sizeof out->trouble);
    return CB_OK;
}

const char *cb_lb_node_phase_name(int phase) {
    static const char *const names[] = {"starting", "writing", "joining", "following", "alone", "refused"};
    return phase >= 0 && (size_t)phase < sizeof names / sizeof names[0] ? names[phase] : NULL;
}

const char *cb_lb_state_name(int state) {
    static const char *const names[] = {"up", "draining", "dead"};
    return state >= 0 && (size_t)state < sizeof names / sizeof names[0] ? names[state] : NULL;
}
