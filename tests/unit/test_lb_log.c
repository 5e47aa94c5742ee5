/* What a table refuses, and the hashing that needs no table. */
#include "lb/table.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t key[CB_LB_KEY_BYTES] = "a table of tests";

/* ---- records ---- */

typedef struct log {
    struct {
        uint8_t *base;
        size_t len;
    } at[64];
    size_t n;
    int fail; /* what publish returns */
} log;

static int keep(cb_slice record, void *user) {
    log *l = user;
    if (l->fail) return l->fail;
    cr_assert_lt(l->n, 64);
    l->at[l->n].base = malloc(record.len);
    memcpy(l->at[l->n].base, record.base, record.len);
    l->at[l->n++].len = record.len;
    return CB_OK;
}

static cb_slice at(const log *l, size_t i) {
    return (cb_slice){l->at[i].base, l->at[i].len};
}

static void drop(log *l) {
    for (size_t i = 0; i < l->n; i++)
        free(l->at[i].base);
}

static cb_lb_table *table(void) {
    cb_lb_table *t;
    cr_assert_eq(cb_lb_table_new(&t, CB_OPTS(cb_lb_table_opts, .key = key)), CB_OK);
    return t;
}

static cb_lb_writer *writer(cb_lb_table *t, log *l, uint32_t epoch) {
    cb_lb_writer *w;
    int rc = cb_lb_writer_new(
        &w, CB_OPTS(cb_lb_writer_opts, .table = t, .publish = keep, .user = l, .epoch = epoch, .seed = 1));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    return w;
}

static void want(cb_lb_writer *w, uint32_t id, uint32_t weight, int state) {
    cr_assert_eq(cb_lb_writer_member(w, CB_OPTS(cb_lb_member, .id = id, .weight = weight, .state = state)), CB_OK);
}

/* Bytes as a writer with the key would sign them. */
static cb_slice forge(uint8_t *bytes, const cb_lb_table *t, int kind, const void *body, size_t len) {
    cb_lb_record r = {.kind = kind, .epoch = t->epoch, .version = t->version + 1, .before = t->chain};
    memcpy(bytes + CB_LB_HEAD, body, len);
    return (cb_slice){bytes, cb_lb_record_write(bytes, &r, len, key)};
}

Test(lb_log, order_and_histories) {
    log l = {.n = 0};
    cb_lb_table *t = table(), *host = table(), *other;
    cb_lb_writer *w = writer(t, &l, 1);
    want(w, 1, 1, CB_LB_UP);
    cr_assert_eq(cb_lb_writer_run(w, 1), CB_OK); /* genesis, member, seed */
    cr_assert_eq(l.n, 3);
    cb_lb_owner o;
    cr_expect_eq(cb_lb_table_lookup(host, 5, &o), CB_ENOENT);
    cr_expect_null(cb_lb_table_words(host, NULL));
    cr_expect_eq(cb_lb_table_apply(host, at(&l, 1)), CB_EAGAIN, "one is missing");
    cr_expect_eq(cb_lb_table_apply(host, at(&l, 0)), CB_OK);
    cr_expect_eq(cb_lb_table_lookup(host, 5, &o), CB_ENOENT, "nobody's");
    cr_expect_eq(cb_lb_table_apply(host, at(&l, 0)), CB_EEXIST);
    cr_expect_eq(cb_lb_table_apply(host, at(&l, 2)), CB_EAGAIN);
    cr_expect_eq(cb_lb_table_apply(host, at(&l, 1)), CB_OK);
    cr_expect_eq(cb_lb_table_apply(host, at(&l, 2)), CB_OK);
    cr_expect_eq(cb_lb_table_lookup(host, 5, &o), CB_OK);
    cr_expect_eq(o.first, 1);
    cr_assert_eq(cb_lb_table_new(&other, NULL), CB_OK);
    cr_expect_eq(cb_lb_table_apply(other, at(&l, 0)), CB_EPROTO, "another key");
    /* another writer goes on: the one before is refused */
    want(w, 2, 1, CB_LB_UP);
    cb_lb_writer *next = writer(host, &l, 2);
    cr_assert_eq(cb_lb_writer_run(next, 1), CB_OK);
    cr_expect_eq(l.n, 4);
    cr_expect_eq(cb_lb_table_apply(t, at(&l, 3)), CB_OK);
    cr_expect_eq(cb_lb_writer_run(w, 2), CB_EPERM, "%s", cb_last_error());
    cr_expect_eq(l.n, 4, "nothing of it was published");
    cb_lb_writer *late;
    cr_expect_eq(cb_lb_writer_new(&late, CB_OPTS(cb_lb_writer_opts, .table = host, .epoch = 2)), CB_EPERM);
    cb_lb_writer_free(w);
    cb_lb_writer_free(next);
    cb_lb_table_free(t);
    cb_lb_table_free(host);
    cb_lb_table_free(other);
    drop(&l);
}

/* What could not be published has not happened, and comes again. */
Test(lb_log, a_log_that_cannot_be_written) {
    log l = {.n = 0};
    cb_lb_table *t = table();
    cb_lb_writer *w = writer(t, &l, 1);
    for (uint32_t m = 1; m <= 3; m++)
        want(w, m, 1, CB_LB_UP);
    for (size_t stop = 0; stop < 5; stop++) {
        l.fail = CB_ESYS;
        cr_expect_eq(cb_lb_writer_run(w, 1), CB_ESYS);
        cr_expect_eq(t->version, l.n);
        cr_expect_eq(cb_lb_writer_next(w), 0);
        l.fail = 0;
        if (stop == 2) cr_assert_eq(cb_lb_writer_run(w, 1), CB_OK);
        if (stop == 2) break;
    }
    cr_expect_eq(l.n, 5);
    want(w, 3, 1, CB_LB_DEAD);
    l.fail = CB_EAGAIN;
    cr_expect_eq(cb_lb_writer_run(w, 2), CB_EAGAIN);
    l.fail = 0;
    cr_expect_eq(cb_lb_writer_run(w, 2), CB_OK);
    cb_lb_table *host = table();
    for (size_t i = 0; i < l.n; i++)
        cr_expect_eq(cb_lb_table_apply(host, at(&l, i)), CB_OK);
    cr_expect_eq(host->content, t->content);
    cb_lb_writer_free(w);
    cb_lb_table_free(t);
    cb_lb_table_free(host);
    drop(&l);
}

/* Signed well, and impossible: nothing changes. */
Test(lb_log, records_that_cannot_be) {
    log l = {.n = 0};
    cb_lb_table *t = table();
    cb_lb_writer *w = writer(t, &l, 1);
    want(w, 10, 1, CB_LB_UP);   /* slot 0 */
    want(w, 20, 1, CB_LB_UP);   /* slot 1 */
    want(w, 30, 0, CB_LB_DEAD); /* slot 2 */
    cr_assert_eq(cb_lb_writer_run(w, 1), CB_OK);
    const uint32_t zeros = t->seats[0].first; /* of them, bucket b: */
    uint32_t b = 0;
    while (cb_lb_table_place(t, b).first != 0)
        b++;
    cr_assert_gt(zeros, 0);
#define LE2(x) (uint8_t)(x), (uint8_t)((x) >> 8)
#define LE4(x) LE2(x), (uint8_t)((x) >> 16), (uint8_t)((x) >> 24)
    const struct {
        const char *what;
        int kind;
        size_t len;
        uint8_t body[16];
    } rows[] = {
        {"a kind that is not known", 10, 0, {0}},
        {"kind zero", 0, 0, {0}},
        {"a second beginning", CB_LB_GENESIS, 12, {LE4(251)}},
        {"a second seed", CB_LB_SEED, 0, {0}},
        {"a seed that says something", CB_LB_SEED, 1, {0}},
        {"a member without an ID", CB_LB_MEMBER, 12, {LE4(0), LE2(5), LE2(1)}},
        {"a member in another's slot", CB_LB_MEMBER, 12, {LE4(40), LE2(1), LE2(1)}},
        {"a member twice", CB_LB_MEMBER, 12, {LE4(20), LE2(5), LE2(1)}},
        {"a slot out of range", CB_LB_MEMBER, 12, {LE4(40), LE2(4096), LE2(1)}},
        {"a state that is none", CB_LB_MEMBER, 12, {LE4(40), LE2(5), LE2(1), 3}},
        {"a member with more to say", CB_LB_MEMBER, 12, {LE4(40), LE2(5), LE2(1), 0, 1}},
        {"a member cut", CB_LB_MEMBER, 11, {LE4(40), LE2(5), LE2(1)}},
        {"who has buckets leaves", CB_LB_REMOVE, 4, {LE4(10)}},
        {"a stranger leaves", CB_LB_REMOVE, 4, {LE4(99)}},
        {"nobody leaves", CB_LB_REMOVE, 4, {LE4(0)}},
        {"nothing is announced", CB_LB_COMMIT, 0, {0}},
        {"no moves", CB_LB_ANNOUNCE, 0, {0}},
        {"a move cut", CB_LB_ANNOUNCE, 5, {LE4(b), 1}},
        {"to an empty slot", CB_LB_ANNOUNCE, 6, {LE4(b), LE2(7)}},
        {"to no slot", CB_LB_TAKE, 6, {LE4(b), LE2(65535)}},
        {"to the dead", CB_LB_TAKE, 6, {LE4(b), LE2(2)}},
        {"to itself", CB_LB_ANNOUNCE, 6, {LE4(b), LE2(0)}},
        {"a bucket out of range", CB_LB_TAKE, 6, {LE4(65537), LE2(1)}},
        {"a bucket twice", CB_LB_TAKE, 12, {LE4(b), LE2(1), LE4(b), LE2(1)}},
        {"nobody was second", CB_LB_SETTLE, 4, {LE4(b)}},
        {"the same writer begins again", CB_LB_WRITER, 0, {0}},
    };
    uint8_t bytes[64];
    cb_lb_table_stats before = {.size = sizeof before}, after = {.size = sizeof after};
    cb_lb_table_stats_get(t, &before);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cr_expect_eq(cb_lb_table_apply(t, forge(bytes, t, rows[i].kind, rows[i].body, rows[i].len)), CB_EPROTO, "%s",
                     rows[i].what);
        cb_lb_table_stats_get(t, &after);
        cr_expect_eq(memcmp(&before, &after, sizeof before), 0, "%s", rows[i].what);
    }
    /* and the same with a good one: every byte counts */
    const uint8_t good[] = {LE4(b), LE2(1)};
    const cb_slice record = forge(bytes, t, CB_LB_TAKE, good, sizeof good);
    for (size_t i = 0; i < record.len; i++) {
        bytes[i] ^= 1;
        cr_expect_eq(cb_lb_table_apply(t, record), CB_EPROTO, "byte %zu", i);
        bytes[i] ^= 1;
        cr_expect_eq(cb_lb_table_apply(t, (cb_slice){record.base, i}), CB_EPROTO, "cut at %zu", i);
    }
    cr_expect_eq(cb_lb_table_apply(t, record), CB_OK, "%s", cb_last_error());
    cr_expect_eq(t->seats[0].first, zeros - 1);
    cb_lb_writer_free(w);
    cb_lb_table_free(t);
    drop(&l);
}

Test(lb_log, options) {
    cb_lb_table *t = table();
    cb_lb_writer *w;
    const struct {
        cb_lb_writer_opts o;
        int rc;
    } rows[] = {{{.size = sizeof(cb_lb_writer_opts), .epoch = 1}, CB_EINVAL},
                {{.size = sizeof(cb_lb_writer_opts), .table = t}, CB_EINVAL},
                {{.size = sizeof(cb_lb_writer_opts), .table = t, .epoch = 1, .buckets = 65536}, CB_EINVAL},
                {{.size = sizeof(cb_lb_writer_opts), .table = t, .epoch = 1, .buckets = 4194319}, CB_EINVAL},
                {{.size = sizeof(cb_lb_writer_opts), .table = t, .epoch = 1, .buckets = 1}, CB_EINVAL}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        cr_expect_eq(cb_lb_writer_new(&w, &rows[i].o), rows[i].rc, "row %zu", i);
    cr_assert_eq(cb_lb_writer_new(&w, CB_OPTS(cb_lb_writer_opts, .table = t, .epoch = 1, .local = 1, .buckets = 2)),
                 CB_OK);
    const cb_lb_member bad[] = {{.size = sizeof bad[0], .weight = 1},
                                {.size = sizeof bad[0], .id = 1, .weight = 65536},
                                {.size = sizeof bad[0], .id = 1, .state = 3},
                                {.size = sizeof bad[0], .id = 1, .state = -1}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_expect_eq(cb_lb_writer_member(w, &bad[i]), CB_EINVAL, "member %zu", i);
    for (uint32_t id = 1; id <= CB_LB_MEMBERS_MAX; id++)
        want(w, id, 1, CB_LB_UP);
    cr_expect_eq(cb_lb_writer_member(w, CB_OPTS(cb_lb_member, .id = 5000)), CB_ELIMIT);
    cr_expect_eq(cb_lb_writer_run(w, 1), CB_OK);
    cr_expect_eq(cb_lb_writer_ack(w, 5000, 1), CB_ENOENT);
    cb_lb_member_stats m = {.size = sizeof m};
    cr_expect_eq(cb_lb_table_member(t, CB_LB_MEMBERS_MAX, &m), CB_ENOENT);
    cb_lb_writer_free(w);
    cb_lb_table_free(t);
    cb_lb_table_free(NULL);
    cb_lb_writer_free(NULL);
}

/* One process, nobody else: buckets move at once. */
Test(lb_log, a_table_of_ones_own) {
    cb_lb_table *t = table();
    cb_lb_writer *w;
    cr_assert_eq(cb_lb_writer_new(&w, CB_OPTS(cb_lb_writer_opts, .table = t, .epoch = 1, .local = 1)), CB_OK);
    for (uint32_t id = 1; id <= 4; id++)
        want(w, id, id, CB_LB_UP);
    cr_assert_eq(cb_lb_writer_run(w, 0), CB_OK);
    cr_assert_eq(cb_lb_writer_remove(w, 4), CB_OK);
    cr_assert_eq(cb_lb_writer_run(w, 0), CB_OK);
    cr_expect_eq(t->members, 3);
    cr_expect_eq(t->moved + t->announced, 0);
    cr_expect_float_eq(t->seats[2].first, 65537 / 2.0, 1);
    cr_expect_eq(cb_lb_writer_next(w), UINT64_MAX);
    cb_lb_writer_free(w);
    cb_lb_table_free(t);
}

/* ---- threads: one changes, others look ---- */

typedef struct shared {
    cb_lb_table *t;
    _Atomic int over;
    _Atomic long bad, seen;
} shared;

static void *reader(void *user) {
    shared *s = user;
    uint64_t x = 1;
    while (!atomic_load(&s->over)) {
        cb_lb_owner o;
        x = x * 6364136223846793005u + 1442695040888963407u;
        int rc = cb_lb_table_lookup(s->t, x, &o);
        atomic_fetch_add(&s->seen, 1);
        if (rc != CB_OK || o.first < 1 || o.first > 9 || o.second == o.first) atomic_fetch_add(&s->bad, 1);
    }
    return NULL;
}

Test(lb_log, threads_look_up_while_the_table_changes) {
    log l = {.n = 0};
    shared s = {.t = table()};
    cb_lb_table *t = table();
    cb_lb_writer *w = NULL;
    pthread_t threads[2];
    cr_assert_eq(cb_lb_writer_new(&w, CB_OPTS(cb_lb_writer_opts, .table = s.t, .epoch = 1, .step_ms = 1)), CB_OK);
    for (uint32_t id = 1; id <= 8; id++)
        want(w, id, 1, CB_LB_UP);
    cr_assert_eq(cb_lb_writer_run(w, 1), CB_OK);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, reader, &s), 0);
    for (uint64_t i = 1; i < 300 || atomic_load(&s.seen) < 10000; i++) {
        want(w, 1 + (uint32_t)(i % 8), 1 + (uint32_t)(i % 5), i % 11 ? CB_LB_UP : CB_LB_DEAD);
        cr_assert_eq(cb_lb_writer_run(w, i * 3600000000000ull), CB_OK);
    }
    atomic_store(&s.over, 1);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    cr_expect_eq(atomic_load(&s.bad), 0, "%ld of %ld", atomic_load(&s.bad), atomic_load(&s.seen));
    cb_lb_writer_free(w);
    cb_lb_table_free(s.t);
    cb_lb_table_free(t);
    drop(&l);
}

/* ---- hashing without a table ---- */

enum { KEYS = 200000, N = 10 };

static void members_make(cb_lb_member *m, const uint32_t *weights) {
    for (uint32_t i = 0; i < N; i++)
        m[i] = (cb_lb_member){.size = sizeof *m, .id = 100 + i, .weight = weights ? weights[i] : 1};
}

static uint64_t key_of(uint64_t i) {
    return cb_lb_hash(key, &i, sizeof i);
}

/* Chi-square of what each got; 9 degrees of freedom: 27.9 is met by chance once in a thousand. The keys are fixed. */
Test(lb_log, rendezvous_shares_by_weight_and_moves_the_least) {
    static const uint32_t weights[N] = {1, 1, 2, 3, 5, 8, 13, 21, 34, 55};
    cb_lb_member m[N];
    uint32_t got[N] = {0}, wrong = 0, moved = 0;
    members_make(m, weights);
    double chi = 0, sum = 0;
    for (int i = 0; i < N; i++)
        sum += weights[i];
    uint8_t *owner = malloc(KEYS);
    for (uint64_t i = 0; i < KEYS; i++)
        got[owner[i] = (uint8_t)cb_lb_rendezvous(m, N, key_of(i))]++;
    for (int i = 0; i < N; i++) {
        const double due = KEYS * weights[i] / sum;
        chi += (got[i] - due) * (got[i] - due) / due;
    }
    cr_expect_lt(chi, 27.9, "chi-square %.1f", chi);
    m[9].weight = 20; /* only what it loses moves */
    for (uint64_t i = 0; i < KEYS; i++) {
        const uint8_t now = (uint8_t)cb_lb_rendezvous(m, N, key_of(i));
        moved += now != owner[i];
        wrong += now != owner[i] && owner[i] != 9;
    }
    cr_expect_eq(wrong, 0);
    cr_expect_gt(moved, KEYS / 10);
    m[9].state = CB_LB_DEAD;
    for (uint64_t i = 0; i < 1000; i++)
        cr_expect_neq(cb_lb_rendezvous(m, N, key_of(i)), 9);
    for (int i = 0; i < N; i++)
        m[i].weight = 0;
    cr_expect_eq(cb_lb_rendezvous(m, N, 1), CB_ENOENT);
    cr_expect_eq(cb_lb_rendezvous(NULL, 1, 1), CB_EINVAL);
    m[3].id = 0;
    cr_expect_eq(cb_lb_rendezvous(m, N, 1), CB_EINVAL);
    free(owner);
}

Test(lb_log, maglev_is_even_and_knows_no_order) {
    enum { BUCKETS = 16381 };
    static const uint32_t weights[N] = {1, 1, 2, 3, 5, 8, 13, 21, 34, 55};
    cb_lb_member m[N];
    uint32_t *a = malloc(BUCKETS * sizeof *a), *b = malloc(BUCKETS * sizeof *b), got[N] = {0}, moved = 0;
    members_make(m, weights);
    cr_assert_eq(cb_lb_maglev(a, BUCKETS, m, N, 7), CB_OK, "%s", cb_last_error());
    for (int i = 0; i < BUCKETS; i++)
        got[a[i]]++;
    for (int i = 0; i < N; i++)
        cr_expect_float_eq(got[i], BUCKETS * weights[i] / 143.0, 1);
    for (int i = 0; i < N / 2; i++) { /* turned round */
        const cb_lb_member x = m[i];
        m[i] = m[N - 1 - i];
        m[N - 1 - i] = x;
    }
    cr_assert_eq(cb_lb_maglev(b, BUCKETS, m, N, 7), CB_OK);
    for (int i = 0; i < BUCKETS; i++)
        cr_assert_eq(a[i], N - 1 - b[i]);
    m[4].state = CB_LB_DRAINING; /* the one with 8 of 143 */
    cr_assert_eq(cb_lb_maglev(a, BUCKETS, m, N, 7), CB_OK);
    for (int i = 0; i < BUCKETS; i++)
        moved += a[i] != b[i] && b[i] != 4;
    cr_expect_lt(moved, BUCKETS / 20, "%u move more than they must", moved);
    cr_expect_gt(moved, 0, "it is not minimal: that is what the log is for");
    cr_expect_eq(cb_lb_maglev(a, BUCKETS + 2, m, N, 7), CB_EINVAL);
    m[1].id = m[2].id;
    cr_expect_eq(cb_lb_maglev(a, BUCKETS, m, N, 7), CB_EEXIST);
    for (int i = 0; i < N; i++)
        m[i].state = CB_LB_DEAD;
    cr_expect_eq(cb_lb_maglev(a, BUCKETS, m, N, 7), CB_ENOENT);
    free(a);
    free(b);
}

Test(lb_log, buckets_of_hashes) {
    cr_expect_eq(cb_lb_bucket(0, 65537), 0);
    cr_expect_eq(cb_lb_bucket(UINT64_MAX, 65537), 65536);
    enum { M = 251 };
    uint32_t got[M] = {0};
    double chi = 0;
    for (uint64_t i = 0; i < KEYS; i++)
        got[cb_lb_bucket(key_of(i), M)]++;
    for (int i = 0; i < M; i++)
        chi += (got[i] - (double)KEYS / M) * (got[i] - (double)KEYS / M) / ((double)KEYS / M);
    cr_expect_lt(chi, 324, "chi-square %.1f of 250", chi); /* once in a thousand */
}
