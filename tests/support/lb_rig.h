/* A writer of a forwarding table, its table, and the log that it writes; for the tests of both. */
#ifndef CB_TESTS_LB_RIG_H
#define CB_TESTS_LB_RIG_H

#include "lb/table.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { LOG_MAX = 8000 };
#define S 1000000000ull

static const uint8_t key[CB_LB_KEY_BYTES] = "a table of tests";

typedef struct rig {
    cb_lb_table *table;
    cb_lb_writer *writer;
    struct {
        uint8_t *base;
        size_t len;
    } log[LOG_MAX];
    size_t n, fail_at;
    cb_time now;
} rig;

static inline int publish(cb_slice record, void *user) {
    rig *r = user;
    cr_assert_lt(r->n, LOG_MAX);
    if (r->n == r->fail_at) return CB_ESYS;
    r->log[r->n].base = malloc(record.len);
    memcpy(r->log[r->n].base, record.base, record.len);
    r->log[r->n++].len = record.len;
    return CB_OK;
}

static inline void make_of(rig *r, const cb_lb_writer_opts *o) {
    *r = (rig){.fail_at = SIZE_MAX, .now = 100 * S};
    cr_assert_eq(cb_lb_table_new(&r->table, CB_OPTS(cb_lb_table_opts, .key = key)), CB_OK);
    cb_lb_writer_opts all = *o;
    all.size = sizeof all;
    all.table = r->table;
    all.publish = publish;
    all.user = r;
    all.epoch = 1;
    cr_assert_eq(cb_lb_writer_new(&r->writer, &all), CB_OK, "%s", cb_last_error());
}

static inline void make(rig *r, uint32_t buckets) {
    make_of(r, &(cb_lb_writer_opts){.buckets = buckets, .seed = 42, .moves_per_step = buckets});
}

static inline void drop(rig *r) {
    for (size_t i = 0; i < r->n; i++)
        free(r->log[i].base);
    cb_lb_writer_free(r->writer);
    cb_lb_table_free(r->table);
}

static inline void member(rig *r, uint32_t id, uint32_t weight, int state) {
    cr_assert_eq(cb_lb_writer_member(r->writer, CB_OPTS(cb_lb_member, .id = id, .weight = weight, .state = state)),
                 CB_OK, "%s", cb_last_error());
}

static inline void run(rig *r) {
    cr_assert_eq(cb_lb_writer_run(r->writer, r->now), CB_OK, "%s", cb_last_error());
}

static inline void hosts_answer(rig *r) {
    cb_lb_member_stats m = {.size = sizeof m};
    for (size_t k = 0; cb_lb_table_member(r->table, k, &m) == CB_OK; k++)
        (void)cb_lb_writer_ack(r->writer, m.id, r->table->version);
    for (uint32_t b = 0; r->table->moved && b < r->table->buckets; b++) {
        cb_lb_owner o;
        cb_lb_table_bucket(r->table, b, &o);
        if (o.phase == CB_LB_MOVED) cr_assert_eq(cb_lb_writer_idle(r->writer, o.second, b, r->now), 1);
    }
}

/* All hosts are quick, and all old flows end: until nothing is left to do. */
static inline void finish(rig *r) {
    for (int i = 0; i < 1000; i++) {
        run(r);
        hosts_answer(r);
        if (cb_lb_writer_next(r->writer) == UINT64_MAX) break;
        if (cb_lb_writer_next(r->writer) > r->now) r->now = cb_lb_writer_next(r->writer);
    }
    cb_lb_writer_stats w = {.size = sizeof w};
    cb_lb_table_stats s = {.size = sizeof s};
    cb_lb_writer_stats_get(r->writer, &w);
    cb_lb_table_stats_get(r->table, &s);
    cr_assert(!w.waiting && !s.announced && !s.moved, "%u wait, %u announced, %u moved", w.waiting, s.announced,
              s.moved);
}

static inline uint64_t version_of(const rig *r) {
    return r->table->version;
}

static inline void ack_all(rig *r) {
    cb_lb_member_stats m = {.size = sizeof m};
    for (size_t k = 0; cb_lb_table_member(r->table, k, &m) == CB_OK; k++)
        cr_assert_eq(cb_lb_writer_ack(r->writer, m.id, version_of(r)), CB_OK);
}

static inline cb_lb_table_stats stats_of(const rig *r) {
    cb_lb_table_stats s = {.size = sizeof s};
    cb_lb_table_stats_get(r->table, &s);
    return s;
}

#endif
