/* A PoP of nodes in virtual time: cores of cb/lb_node.h, a network that delays, loses and parts, disks that are late,
 * and what survives a process (the datapath) and a host (the disk). For tests. */
#ifndef CB_TESTS_LB_POP_H
#define CB_TESTS_LB_POP_H

#include "base/mem.h"
#include "lb/node_int.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MS 1000000ull
enum { POP_MAX = 8, POP_MAIL = 256, POP_BUCKETS = 251 };

static const uint8_t pop_key[CB_LB_KEY_BYTES] = "a table of tests";

typedef struct pop_mail {
    cb_time at; /* 0: this place is free */
    uint32_t from, to;
    unsigned start_from, start_to; /* of the processes that they are of */
    uint64_t ask;                  /* an answer to this one; 0: it is one */
    uint64_t number;
    uint8_t *bytes;
    size_t len;
} pop_mail;

typedef struct pop_held { /* a request at the writer */
    bool used;
    uint32_t from;
    unsigned start_from;
    uint64_t number;
} pop_held;

struct pop;

typedef struct pop_host {
    struct pop *pop;
    uint32_t id;
    cb_lb_core *core;  /* NULL: no process */
    cb_lb_table *path; /* the datapath, which outlives processes */
    bool off;          /* the whole host */
    unsigned start;    /* counts processes */
    uint8_t *disk, *writing;
    size_t disk_len, writing_len;
    cb_time written_at;
    uint64_t number; /* of the request that is under way */
    cb_time gives_up;
    uint64_t tables, changes;
} pop_host;

typedef struct pop {
    pop_host host[POP_MAX + 1];
    cb_lb_node_member members[POP_MAX];
    uint32_t n;
    cb_lb_node_opts o;
    pop_mail mail[POP_MAIL];
    pop_held held[POP_MAIL];
    bool cut[POP_MAX + 1][POP_MAX + 1];
    unsigned loss; /* of a thousand */
    cb_time now, disk_delay;
    uint64_t x, numbers;
    char log[65536]; /* what was said */
    size_t log_len;
} pop;

static inline uint64_t pop_dice(pop *p, uint64_t n) {
    p->x ^= p->x << 13;
    p->x ^= p->x >> 7;
    p->x ^= p->x << 17;
    return p->x % n;
}

static inline void pop_send(pop *p, uint32_t from, uint32_t to, uint64_t ask, uint64_t number, cb_slice bytes) {
    if (p->cut[from][to] || pop_dice(p, 1000) < p->loss) return;
    for (size_t i = 0; i < POP_MAIL; i++) {
        pop_mail *m = &p->mail[i];
        if (m->at) continue;
        *m = (pop_mail){.at = p->now + (1 + pop_dice(p, 20)) * MS,
                        .from = from,
                        .to = to,
                        .start_from = p->host[from].start,
                        .start_to = p->host[to].start,
                        .ask = ask,
                        .number = number,
                        .bytes = malloc(bytes.len + 1),
                        .len = bytes.len};
        if (bytes.len) memcpy(m->bytes, bytes.base, bytes.len);
        return;
    }
    cr_assert_fail("no room for mail");
}

static inline void pop_answer(void *held, cb_slice answer, void *user) {
    pop_host *h = user;
    pop_held *q = held;
    cr_assert(q->used, "answered twice");
    q->used = false;
    pop_send(h->pop, h->id, q->from, q->number, 0, answer);
}

/* A datapath takes only what is newer than what it has. */
static inline int pop_table(void *user) {
    pop_host *h = user;
    uint8_t *saved;
    size_t len;
    cr_assert_eq(cb_lb_table_save(h->core->t, &saved, &len), CB_OK);
    const int rc = cb_lb_table_load(h->path, (cb_slice){saved, len});
    cb_lb_table_saved_free(saved);
    cr_assert(rc == CB_OK || (rc == CB_EPERM && !h->core->applied), "host %u: %s", h->id, cb_last_error());
    h->tables++;
    return rc;
}

static inline void pop_state(void *user) {
    ((pop_host *)user)->changes++;
}

static inline void pop_log(int level, const char *text, void *user) {
    pop_host *h = user;
    pop *p = h->pop;
    (void)level;
    const size_t room = sizeof p->log - p->log_len;
    const int n = snprintf(p->log + p->log_len, room, "%u: %s\n", h->id, text);
    if (n > 0 && (size_t)n < room) p->log_len += (size_t)n;
}

static inline bool pop_said(const pop *p, const char *text) {
    return strstr(p->log, text) != NULL;
}

static inline void pop_hush(pop *p) {
    p->log_len = 0;
    p->log[0] = 0;
}

static inline int pop_try(pop *p, uint32_t id, const cb_lb_node_opts *own) {
    pop_host *h = &p->host[id];
    const cb_lb_core_ops ops = {
        .answer = pop_answer, .table = pop_table, .state = pop_state, .log = pop_log, .user = h};
    cb_lb_node_opts o = own ? *own : p->o;
    if (!own) o.id = id;
    h->start++;
    h->off = false;
    h->number = 0;
    return cb_lb_core_new(&h->core, &o, &ops, &cb_alloc_libc, (cb_slice){h->disk, h->disk_len}, pop_dice(p, UINT64_MAX),
                          p->now);
}

static inline void pop_start(pop *p, uint32_t id) {
    cr_assert_eq(pop_try(p, id, NULL), CB_OK, "%s", cb_last_error());
}

/* The process ends; what was on its way to the disk may not get there. */
static inline void pop_kill(pop *p, uint32_t id) {
    pop_host *h = &p->host[id];
    cb_lb_core_free(h->core);
    h->core = NULL;
    for (size_t i = 0; i < POP_MAIL; i++)
        if (id == p->o.writer) p->held[i].used = false;
    if (h->writing) cb_lb_table_saved_free(h->writing);
    h->writing = NULL;
}

/* The host ends, and its datapath with it. */
static inline void pop_off(pop *p, uint32_t id) {
    pop_host *h = &p->host[id];
    if (h->core) pop_kill(p, id);
    h->off = true;
    cb_lb_table_free(h->path);
    cr_assert_eq(cb_lb_table_new(&h->path, CB_OPTS(cb_lb_table_opts, .key = p->o.key)), CB_OK);
}

static inline void pop_ask(pop *p, pop_host *h) {
    cb_buf out;
    cb_buf_init(&out, &cb_alloc_libc, 1 << 20);
    if (cb_lb_core_ask(h->core, &out, p->now) == 1) {
        h->number = ++p->numbers;
        h->gives_up = p->now + 1000 * MS;
        pop_send(p, h->id, p->o.writer, 0, h->number, cb_buf_slice(&out));
    }
    cb_buf_free(&out);
}

static inline pop_held *pop_hold(pop *p, const pop_mail *m) {
    for (size_t i = 0; i < POP_MAIL; i++) {
        if (p->held[i].used) continue;
        p->held[i] = (pop_held){true, m->from, m->start_from, m->number};
        return &p->held[i];
    }
    cr_assert_fail("no room for requests");
    return NULL;
}

static inline void pop_deliver(pop *p, pop_mail *m) {
    pop_host *h = &p->host[m->to];
    const pop_mail mail = *m;
    m->at = 0;
    if (h->core && mail.ask && h->number == mail.ask) {
        h->number = 0;
        cb_lb_core_answered(h->core, (cb_slice){mail.bytes, mail.len}, p->now);
    } else if (h->core && !mail.ask) {
        char from[16];
        snprintf(from, sizeof from, "host%u", mail.from);
        cb_lb_core_asked(h->core, (cb_slice){mail.bytes, mail.len}, from, pop_hold(p, &mail), p->now);
    }
    free(mail.bytes);
}

static inline void pop_disk(pop *p, pop_host *h) {
    if (h->writing && p->now >= h->written_at) {
        free(h->disk);
        h->disk = malloc(h->writing_len);
        memcpy(h->disk, h->writing, h->writing_len);
        h->disk_len = h->writing_len;
        cb_lb_table_saved_free(h->writing);
        h->writing = NULL;
        cb_lb_core_saved(h->core, CB_OK, p->now);
    }
    if (!h->writing && cb_lb_core_save(h->core, &h->writing, &h->writing_len, 0, p->now) == 1)
        h->written_at = p->now + p->disk_delay;
}

/* What must always be: hosts with one epoch and version have one content, and a table that was seeded has an owner for
 * each bucket. */
static inline void pop_check(const pop *p) {
    for (uint32_t a = 1; a <= p->n; a++) {
        const cb_lb_table *x = p->host[a].path;
        if (x->buckets && x->unowned) cr_assert_eq(x->unowned, x->buckets, "host %u: %u unowned", a, x->unowned);
        for (uint32_t b = a + 1; b <= p->n; b++) {
            const cb_lb_table *y = p->host[b].path;
            if (x->epoch != y->epoch || x->version != y->version) continue;
            cr_assert_eq(x->content, y->content, "hosts %u and %u at %u/%llu", a, b, x->epoch,
                         (unsigned long long)x->version);
            cr_assert_eq(x->chain, y->chain);
        }
    }
}

static inline void pop_step(pop *p) {
    p->now += 5 * MS;
    for (size_t i = 0; i < POP_MAIL; i++)
        if (p->mail[i].at && p->mail[i].at <= p->now) pop_deliver(p, &p->mail[i]);
    for (uint32_t id = 1; id <= p->n; id++) {
        pop_host *h = &p->host[id];
        if (!h->core) continue;
        if (h->number && p->now >= h->gives_up) {
            h->number = 0;
            cb_error_set(CB_ETIMEOUT, "no answer");
            cb_lb_core_unanswered(h->core, p->now);
        }
        if (cb_lb_core_next(h->core, p->now) <= p->now) cb_lb_core_run(h->core, p->now);
        pop_ask(p, h);
        pop_disk(p, h);
    }
    pop_check(p);
}

static inline void pop_run(pop *p, unsigned ms) {
    for (const cb_time until = p->now + ms * MS; p->now < until;)
        pop_step(p);
}

static inline pop *pop_new(uint32_t n, const cb_lb_node_opts *o) {
    pop *p = calloc(1, sizeof *p);
    p->x = 0x9e3779b97f4a7c15u;
    p->n = n;
    p->now = 1000000 * MS;
    p->disk_delay = 8 * MS;
    p->o = *o;
    if (!p->o.buckets) p->o.buckets = POP_BUCKETS;
    if (!p->o.heartbeat_ms) p->o.heartbeat_ms = 200;
    p->o.writer = 1;
    p->o.key = pop_key;
    p->o.members = p->members;
    p->o.n_members = n;
    for (uint32_t id = 1; id <= n; id++) {
        p->members[id - 1] = (cb_lb_node_member){.size = sizeof(cb_lb_node_member), .id = id, .control = "x:1"};
        p->host[id].pop = p;
        p->host[id].id = id;
        cr_assert_eq(cb_lb_table_new(&p->host[id].path, CB_OPTS(cb_lb_table_opts, .key = pop_key)), CB_OK);
    }
    return p;
}

static inline pop *pop_started(uint32_t n, const cb_lb_node_opts *o) {
    pop *p = pop_new(n, o);
    for (uint32_t id = 1; id <= n; id++)
        pop_start(p, id);
    pop_run(p, 1000);
    return p;
}

static inline void pop_free(pop *p) {
    for (uint32_t id = 1; id <= p->n; id++) {
        if (p->host[id].core) pop_kill(p, id);
        cb_lb_table_free(p->host[id].path);
        free(p->host[id].disk);
    }
    for (size_t i = 0; i < POP_MAIL; i++)
        if (p->mail[i].at) free(p->mail[i].bytes);
    free(p);
}

static inline cb_lb_node_stats pop_stats(const pop *p, uint32_t id) {
    cb_lb_node_stats s;
    cb_lb_core_stats(p->host[id].core, &s, p->now);
    return s;
}

static inline cb_lb_node_info pop_info(const pop *p, uint32_t at, uint32_t id) {
    cb_lb_node_info m;
    for (size_t i = 0; cb_lb_core_info(p->host[at].core, i, &m, p->now) == CB_OK; i++)
        if (m.id == id) return m;
    cr_assert_fail("host %u knows no member %u", at, id);
    return m;
}

/* All processes that run have what the writer has. */
static inline bool pop_agrees(const pop *p) {
    const cb_lb_table *w = p->host[p->o.writer].path;
    for (uint32_t id = 1; id <= p->n; id++)
        if (p->host[id].core && p->host[id].path->chain != w->chain) return false;
    return w->version > 0;
}

static inline void pop_settle(pop *p, unsigned ms) {
    for (const cb_time until = p->now + ms * MS; p->now < until && !pop_agrees(p);)
        pop_step(p);
    cr_assert(pop_agrees(p), "the hosts do not agree:\n%s", p->log);
}

#endif
