/* The forwarding table: balance, minimal moves, determinism, two phases, and what a log may not say. */
#include "support/lb_rig.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint32_t *owners_of(const rig *r) {
    cb_lb_table_stats s = {.size = sizeof s};
    cb_lb_table_stats_get(r->table, &s);
    uint32_t *all = malloc(s.buckets * sizeof *all);
    for (uint32_t b = 0; b < s.buckets; b++) {
        cb_lb_owner o;
        cb_lb_table_bucket(r->table, b, &o);
        all[b] = o.first;
    }
    return all;
}

static uint32_t moved(const rig *r, uint32_t *before) {
    uint32_t n = 0, *after = owners_of(r);
    for (uint32_t b = 0; b < r->table->buckets; b++)
        n += before[b] != after[b];
    free(before);
    free(after);
    return n;
}

static uint32_t has(const rig *r, uint32_t id) {
    const int seat = cb_lb_table_seat(r->table, id);
    return seat < 0 ? 0 : r->table->seats[seat].first;
}

/* Each has what its weight says, to less than one bucket. */
static void balanced(const rig *r) {
    cb_lb_member_stats m = {.size = sizeof m};
    double sum = 0;
    for (size_t i = 0; cb_lb_table_member(r->table, i, &m) == CB_OK; i++)
        sum += m.state == CB_LB_UP ? m.weight : 0;
    for (size_t i = 0; cb_lb_table_member(r->table, i, &m) == CB_OK; i++) {
        const double due = m.state == CB_LB_UP ? r->table->buckets * (double)m.weight / sum : 0;
        cr_assert_float_eq(m.first, due, 1, "member %u has %u of %.2f", m.id, m.first, due);
    }
}

Test(lb_table, begins_balanced_by_weight) {
    static const struct {
        uint32_t buckets, members, step;
    } rows[] = {{65537, 100, 0}, {65537, 3, 7}, {251, 100, 3}, {2, 1, 0}, {16381, 1000, 1}, {13, 40, 5}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        rig r;
        make(&r, rows[i].buckets);
        for (uint32_t m = 1; m <= rows[i].members; m++)
            member(&r, m, 10 + rows[i].step * (m % 5), CB_LB_UP);
        finish(&r);
        balanced(&r);
        cb_lb_writer_stats w = {.size = sizeof w};
        cb_lb_writer_stats_get(r.writer, &w);
        cr_expect_eq(w.moves, 0, "row %zu: %llu buckets moved after the seed", i, (unsigned long long)w.moves);
        drop(&r);
    }
}

/* What has to move: the buckets of who leaves, and what newcomers are due. Not one more. */
Test(lb_table, moves_no_more_than_it_must) {
    rig r;
    make(&r, 65537);
    for (uint32_t m = 1; m <= 100; m++)
        member(&r, m, 100, CB_LB_UP);
    finish(&r);
    uint32_t *before = owners_of(&r), had = has(&r, 17);
    member(&r, 17, 100, CB_LB_DEAD);
    run(&r);
    cr_expect_eq(moved(&r, before), had, "a death moves its own");
    finish(&r);
    cr_expect_eq(has(&r, 17), 0);
    before = owners_of(&r);
    member(&r, 17, 100, CB_LB_UP);
    finish(&r);
    cr_expect_eq(moved(&r, before), has(&r, 17), "who comes back gets its due from others, who exchange nothing");
    balanced(&r);
    before = owners_of(&r);
    had = has(&r, 40);
    member(&r, 40, 50, CB_LB_UP);
    finish(&r);
    cr_expect_eq(moved(&r, before), had - has(&r, 40), "half of the weight");
    balanced(&r);
    before = owners_of(&r);
    had = has(&r, 5);
    cr_assert_eq(cb_lb_writer_remove(r.writer, 5), CB_OK);
    finish(&r);
    cr_expect_eq(moved(&r, before), had, "who leaves");
    cr_expect_eq(cb_lb_table_seat(r.table, 5), -1);
    cr_expect_eq(cb_lb_writer_remove(r.writer, 5), CB_ENOENT);
    balanced(&r);
    drop(&r);
}

static uint64_t step(uint64_t *x) {
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return *x;
}

/* The fewest moves that give everyone the whole number below or above what it is due. */
static uint32_t bound(const rig *r, const uint32_t *had, size_t n) {
    double sum = 0;
    uint64_t over = 0, under = 0;
    for (size_t i = 1; i <= n; i++) {
        const int seat = cb_lb_table_seat(r->table, (uint32_t)i);
        if (seat >= 0 && r->table->seats[seat].state == CB_LB_UP) sum += r->table->seats[seat].weight;
    }
    for (size_t i = 1; i <= n; i++) {
        const int seat = cb_lb_table_seat(r->table, (uint32_t)i);
        const bool up = seat >= 0 && r->table->seats[seat].state == CB_LB_UP;
        const uint64_t exact = up ? (uint64_t)r->table->buckets * r->table->seats[seat].weight : 0;
        const uint64_t low = exact / (uint64_t)sum, high = low + (exact % (uint64_t)sum != 0);
        if (had[i] > high) over += had[i] - high;
        if (had[i] < low) under += low - had[i];
    }
    return (uint32_t)(over > under ? over : under);
}

Test(lb_table, any_change_costs_the_fewest_moves) {
    enum { MEMBERS = 30, CHANGES = 300 };
    uint64_t x = 88172645463325252u;
    rig r;
    make(&r, 4093);
    for (uint32_t m = 1; m <= MEMBERS; m++)
        member(&r, m, 1 + m % 7, CB_LB_UP);
    finish(&r);
    for (int i = 0; i < CHANGES; i++) {
        uint32_t had[MEMBERS + 1], *before = owners_of(&r);
        for (uint32_t m = 1; m <= MEMBERS; m++)
            had[m] = has(&r, m);
        const uint32_t who = 1 + (uint32_t)(step(&x) % (MEMBERS - 1)); /* the last is always up */
        switch (step(&x) % 4) {
        case 0:
            member(&r, who, 5, CB_LB_DEAD);
            break;
        case 1:
            member(&r, who, 5, CB_LB_DRAINING);
            break;
        case 2:
            if (has(&r, who)) (void)cb_lb_writer_remove(r.writer, who);
            break;
        default:
            member(&r, who, (uint32_t)(step(&x) % 20), CB_LB_UP);
        }
        finish(&r);
        balanced(&r);
        const uint32_t least = bound(&r, had, MEMBERS), got = moved(&r, before);
        cr_assert_eq(got, least, "change %d: %u moves instead of %u", i, got, least);
    }
    drop(&r);
}

static cb_lb_table *replay(const rig *r, size_t n) {
    cb_lb_table *t;
    cr_assert_eq(cb_lb_table_new(&t, CB_OPTS(cb_lb_table_opts, .key = key)), CB_OK);
    for (size_t i = 0; i < n; i++) {
        int rc = cb_lb_table_apply(t, (cb_slice){r->log[i].base, r->log[i].len});
        cr_assert_eq(rc, CB_OK, "record %zu: %s", i, cb_last_error());
    }
    return t;
}

static void same(const cb_lb_table *a, const cb_lb_table *b) {
    size_t n, m;
    cb_lb_table_stats x = {.size = sizeof x}, y = {.size = sizeof y};
    cb_lb_table_stats_get(a, &x);
    cb_lb_table_stats_get(b, &y);
    cr_expect_eq(memcmp(&x, &y, sizeof x), 0, "%llu %llx %llx, and %llu %llx %llx", (unsigned long long)x.version,
                 (unsigned long long)x.chain, (unsigned long long)x.content, (unsigned long long)y.version,
                 (unsigned long long)y.chain, (unsigned long long)y.content);
    const uint64_t *v = cb_lb_table_words(a, &n), *w = cb_lb_table_words(b, &m);
    cr_assert_eq(n, m);
    cr_expect_eq(memcmp(v, w, n * sizeof *v), 0);
}

static void story(rig *r) {
    for (uint32_t m = 1; m <= 12; m++)
        member(r, m * 11, 10 * m, CB_LB_UP);
    finish(r);
    member(r, 33, 0, CB_LB_UP);
    member(r, 500, 77, CB_LB_UP);
    finish(r);
    member(r, 121, 110, CB_LB_DEAD);
    run(r);
    member(r, 44, 40, CB_LB_DRAINING);
    run(r);
    cr_assert_eq(cb_lb_writer_remove(r->writer, 22), CB_OK);
    finish(r);
    member(r, 44, 80, CB_LB_UP);
    run(r);
}

/* These numbers were computed once; a compiler, a byte order or a release that gives others breaks running PoPs. */
Test(lb_table, the_same_log_gives_the_same_table) {
    rig r;
    make(&r, 1021);
    story(&r);
    cb_lb_table_stats s = {.size = sizeof s};
    cb_lb_table_stats_get(r.table, &s);
    cr_expect_eq(s.version, 28, "version %llu", (unsigned long long)s.version);
    cr_expect_eq(s.chain, 0x435340828853f1edu, "chain 0x%llxu", (unsigned long long)s.chain);
    cr_expect_eq(s.content, 0xaf513b2cde8d727eu, "content 0x%llxu", (unsigned long long)s.content);
    cb_lb_table *t = replay(&r, r.n);
    same(r.table, t);
    cb_lb_table_free(t);
    drop(&r);
}

/* A host that joins takes a saved table, and goes on with the log. */
Test(lb_table, saved_and_loaded) {
    rig r;
    uint8_t *saved;
    size_t len;
    make(&r, 1021);
    story(&r);
    for (size_t at = 20; at < r.n; at += 7) {
        cb_lb_table *t = replay(&r, at), *u, *other;
        cr_assert_eq(cb_lb_table_save(t, &saved, &len), CB_OK);
        cr_assert_eq(cb_lb_table_new(&u, CB_OPTS(cb_lb_table_opts, .key = key)), CB_OK);
        cr_assert_eq(cb_lb_table_load(u, (cb_slice){saved, len}), CB_OK, "%s", cb_last_error());
        same(t, u);
        for (size_t i = at; i < r.n; i++)
            cr_assert_eq(cb_lb_table_apply(u, (cb_slice){r.log[i].base, r.log[i].len}), CB_OK, "%s", cb_last_error());
        same(u, r.table);
        cr_expect_eq(cb_lb_table_load(u, (cb_slice){saved, len}), CB_EPERM, "an older one");
        cr_assert_eq(cb_lb_table_new(&other, NULL), CB_OK);
        cr_expect_eq(cb_lb_table_load(other, (cb_slice){saved, len}), CB_EPROTO, "another key");
        for (size_t i = 0; i < len; i += 1 + len / 50) {
            saved[i] ^= 4;
            cr_expect_eq(cb_lb_table_load(other, (cb_slice){saved, len}), CB_EPROTO);
            saved[i] ^= 4;
        }
        cr_expect_eq(cb_lb_table_load(other, (cb_slice){saved, len - 1}), CB_EPROTO);
        cb_lb_table_saved_free(saved);
        cb_lb_table_free(t);
        cb_lb_table_free(u);
        cb_lb_table_free(other);
    }
    drop(&r);
}

/* ---- two phases ---- */

static uint32_t any_in(const rig *r, int phase, cb_lb_owner *out) {
    for (uint32_t b = 0; b < r->table->buckets; b++) {
        cb_lb_table_bucket(r->table, b, out);
        if (out->phase == phase) return b;
    }
    cr_assert_fail("no bucket is in phase %d", phase);
    return 0;
}

Test(lb_table, moves_are_announced_then_made_then_settled) {
    cb_lb_owner o;
    rig r;
    make_of(&r, &(cb_lb_writer_opts){.buckets = 251, .moves_per_step = 20});
    member(&r, 1, 1, CB_LB_UP);
    member(&r, 2, 1, CB_LB_UP);
    run(&r);
    member(&r, 3, 1, CB_LB_UP);
    run(&r);
    cr_expect_eq(stats_of(&r).announced, 20);
    any_in(&r, CB_LB_ANNOUNCED, &o);
    cr_expect_eq(o.second, 3);
    cr_expect_eq(has(&r, 3), 0, "nothing is its own yet");
    /* one has not told: not yet */
    cb_lb_writer_ack(r.writer, 1, version_of(&r));
    cb_lb_writer_ack(r.writer, 2, version_of(&r));
    run(&r);
    cr_expect_eq(stats_of(&r).announced, 20);
    cr_expect_eq(cb_lb_writer_next(r.writer), r.now + 2 * S);
    cb_lb_writer_ack(r.writer, 3, version_of(&r));
    cr_expect_eq(cb_lb_writer_next(r.writer), 0);
    run(&r);
    cr_expect_eq(stats_of(&r).announced, 0);
    cr_expect_eq(stats_of(&r).moved, 20);
    cr_expect_eq(has(&r, 3), 20);
    const uint32_t b = any_in(&r, CB_LB_MOVED, &o);
    cr_expect_eq(o.first, 3);
    /* until all have applied that, the old owner may still get new flows: its word does not count */
    cr_expect_eq(cb_lb_writer_idle(r.writer, o.second, b, r.now), 0);
    ack_all(&r);
    cr_expect_eq(cb_lb_writer_idle(r.writer, 3, b, r.now), 0, "not the old owner");
    cr_expect_eq(cb_lb_writer_idle(r.writer, o.second, b, r.now), 1);
    cr_expect_eq(cb_lb_writer_idle(r.writer, o.second, 251, r.now), CB_EINVAL);
    run(&r);
    cr_expect_eq(stats_of(&r).moved, 19);
    /* the next ones begin a second later, not with those that are on the move */
    r.now = cb_lb_writer_next(r.writer);
    cr_expect_eq(r.now, 101 * S);
    run(&r);
    cr_expect_eq(stats_of(&r).announced, 20);
    cr_expect_eq(stats_of(&r).moved, 19);
    /* nobody tells: two seconds, and it counts how often */
    r.now = cb_lb_writer_next(r.writer);
    cr_expect_eq(r.now, 103 * S);
    run(&r);
    cb_lb_writer_stats w = {.size = sizeof w};
    cb_lb_writer_stats_get(r.writer, &w);
    cr_expect_eq(w.late, 1);
    cr_expect_eq(stats_of(&r).moved, 39);
    /* the old owners say nothing: an hour after their moves */
    for (int i = 0; i < 20; i++) {
        r.now += 2 * S;
        run(&r);
    }
    cr_expect_eq(has(&r, 3), 83);
    r.now = 3700 * S - 1;
    run(&r);
    cr_expect_eq(stats_of(&r).moved, 82);
    r.now += 1;
    run(&r);
    cr_expect_eq(stats_of(&r).moved, 82 - 19);
    r.now += 3700 * S;
    run(&r);
    cr_expect_eq(stats_of(&r).moved, 0);
    cb_lb_writer_stats_get(r.writer, &w);
    cr_expect_eq(w.forced, 82);
    cr_expect_eq(cb_lb_writer_next(r.writer), UINT64_MAX);
    drop(&r);
}

/* A member dies in each phase of a move: as old owner, as new one, and as both. */
Test(lb_table, deaths_in_the_middle) {
    for (int phase = CB_LB_STABLE; phase <= CB_LB_MOVED; phase++) {
        for (uint32_t dead = 1; dead <= 3; dead++) {
            rig r;
            make(&r, 251);
            member(&r, 1, 1, CB_LB_UP);
            member(&r, 2, 1, CB_LB_UP);
            run(&r);
            member(&r, 3, 1, CB_LB_UP);
            if (phase >= CB_LB_ANNOUNCED) run(&r);
            ack_all(&r);
            if (phase == CB_LB_MOVED) run(&r);
            cr_assert_eq(phase == CB_LB_ANNOUNCED, stats_of(&r).announced > 0);
            cr_assert_eq(phase == CB_LB_MOVED, stats_of(&r).moved > 0);
            const uint32_t ones = has(&r, 1), twos = has(&r, 2);
            member(&r, dead, 1, CB_LB_DEAD);
            run(&r);
            cr_expect_eq(has(&r, dead), 0);
            for (uint32_t b = 0; b < 251; b++) {
                cb_lb_owner o;
                cb_lb_table_bucket(r.table, b, &o);
                cr_expect(o.first && o.first != dead && o.second != dead, "bucket %u: %u, %u", b, o.first, o.second);
            }
            if (dead == 3 && phase == CB_LB_MOVED) {
                cr_expect_eq(has(&r, 1) + has(&r, 2), 251);
                cr_expect_eq(stats_of(&r).moved, 0, "all went back to where their flows are");
                cr_expect_leq(has(&r, 1) - ones, 42);
                cr_expect_leq(has(&r, 2) - twos, 42);
            }
            finish(&r);
            balanced(&r);
            drop(&r);
        }
    }
}

/* When all others are gone, those that drain serve; and whoever comes takes over from the dead. */
Test(lb_table, the_last_ones) {
    rig r;
    make(&r, 13);
    member(&r, 1, 5, CB_LB_UP);
    member(&r, 2, 5, CB_LB_DRAINING);
    run(&r);
    cr_expect_eq(has(&r, 1), 13);
    member(&r, 1, 5, CB_LB_DEAD);
    run(&r);
    cr_expect_eq(has(&r, 2), 13);
    member(&r, 2, 5, CB_LB_DEAD);
    run(&r);
    cr_expect_eq(has(&r, 2), 13, "nobody else is there");
    cr_assert_eq(cb_lb_writer_remove(r.writer, 2), CB_OK);
    run(&r);
    cr_expect_eq(has(&r, 2), 13);
    member(&r, 3, 1, CB_LB_UP);
    run(&r);
    cr_expect_eq(has(&r, 3), 13);
    cr_expect_neq(cb_lb_table_seat(r.table, 2), -1, "not all know of the death");
    ack_all(&r);
    run(&r);
    cr_expect_eq(cb_lb_table_seat(r.table, 2), -1);
    drop(&r);
}

/* A writer dies between an announcement and its commit, and after: its successor finishes what it began. */
Test(lb_table, another_writer_finishes) {
    for (int after_commit = 0; after_commit < 2; after_commit++) {
        rig r, next = {.fail_at = SIZE_MAX, .now = 500 * S};
        uint8_t *saved;
        size_t len;
        make(&r, 251);
        member(&r, 1, 1, CB_LB_UP);
        member(&r, 2, 1, CB_LB_UP);
        run(&r);
        member(&r, 3, 1, CB_LB_UP);
        run(&r);
        ack_all(&r);
        if (after_commit) run(&r);
        cr_assert(after_commit ? stats_of(&r).moved : stats_of(&r).announced);
        cr_assert_eq(cb_lb_table_save(r.table, &saved, &len), CB_OK);
        cr_assert_eq(cb_lb_table_new(&next.table, CB_OPTS(cb_lb_table_opts, .key = key)), CB_OK);
        cr_assert_eq(cb_lb_table_load(next.table, (cb_slice){saved, len}), CB_OK);
        cb_lb_table_saved_free(saved);
        cr_assert_eq(cb_lb_writer_new(&next.writer, CB_OPTS(cb_lb_writer_opts, .table = next.table, .publish = publish,
                                                            .user = &next, .epoch = 2)),
                     CB_OK, "%s", cb_last_error());
        run(&next);
        cr_expect_eq(stats_of(&next).announced > 0, !after_commit, "nobody has told this one anything yet");
        finish(&next);
        balanced(&next);
        for (size_t i = 0; i < next.n; i++) /* the host that the old one ran on follows */
            cr_assert_eq(cb_lb_table_apply(r.table, (cb_slice){next.log[i].base, next.log[i].len}), CB_OK);
        same(r.table, next.table);
        drop(&r);
        drop(&next);
    }
}
