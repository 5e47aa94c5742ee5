#include "support/moved.h"
#include "support/scratch.h"
#include <cb/audit.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SMALL = 5 };

typedef struct folder {
    char dir[64], log[96], key[96];
} folder;

static void make_folder(folder *f) {
    scratch_folder(f->dir, sizeof f->dir, "audit");
    snprintf(f->log, sizeof f->log, "%s/log", f->dir);
    snprintf(f->key, sizeof f->key, "%s/key", f->dir);
}

static void drop_folder(folder *f) {
    unlink(f->log);
    unlink(f->key);
    rmdir(f->dir);
}

static cb_audit *open_log(const folder *f) {
    cb_audit *log = NULL;
    cr_assert_eq(cb_audit_open(&log, CB_OPTS(cb_audit_opts, .path = f->log, .key_file = f->key)), CB_OK, "%s",
                 cb_last_error());
    return log;
}

static cb_audit_record row(const char *action) {
    static const uint8_t hash[CB_AUDIT_HASH] = {7};
    return (cb_audit_record){.size = sizeof(cb_audit_record),
                             .actor = cb_slice_str("ada"),
                             .tenant = cb_slice_str("acme"),
                             .action = cb_slice_str(action),
                             .object = cb_slice_str("/routes/web"),
                             .after = {hash, sizeof hash},
                             .outcome = CB_AUDIT_DONE};
}

static int verify(const folder *f, const cb_audit_head *head, cb_audit_report *r) {
    *r = (cb_audit_report){.size = sizeof *r};
    return cb_audit_verify(f->log, CB_OPTS(cb_audit_verify_opts, .head = head), r);
}

/* The verdict about bytes, with or without a head. */
static int judge(const uint8_t *at, size_t len, const cb_audit_head *head, cb_audit_report *r) {
    cb_audit_verifier *v;
    *r = (cb_audit_report){.size = sizeof *r};
    cr_assert_eq(cb_audit_verifier_new(&v, CB_OPTS(cb_audit_verify_opts, .head = head)), CB_OK);
    int64_t used = cb_audit_verifier_feed(v, (cb_slice){at, len});
    const size_t n = used > 0 ? (size_t)used : 0;
    int rc = cb_audit_verifier_end(v, (cb_slice){at + n, len - n}, r);
    cb_audit_verifier_free(v);
    return rc;
}

/* A log of SMALL commits, and where its items begin. */
static size_t small_log(uint8_t out[8192], size_t starts[32], size_t *items, cb_audit_head *head) {
    folder f;
    make_folder(&f);
    cb_audit *log = open_log(&f);
    for (int i = 0; i < SMALL; i++) {
        cb_audit_record r = row("route.set");
        cr_assert_eq(cb_audit_write(log, &r, NULL), CB_OK);
    }
    cb_audit_head_get(log, head);
    cb_audit_free(log);
    int fd = open(f.log, O_RDONLY);
    ssize_t n = read(fd, out, 8192);
    close(fd);
    drop_folder(&f);
    cr_assert(n > 0 && n < 8192);
    *items = 0;
    for (size_t at = 0; at < (size_t)n; at += 4 + ((size_t)out[at + 2] << 8 | out[at + 3]))
        starts[(*items)++] = at;
    starts[*items] = (size_t)n;
    return (size_t)n;
}

Test(audit, each_bit_counts) {
    uint8_t log[8192];
    size_t starts[33], items;
    cb_audit_head head;
    cb_audit_report r;
    size_t len = small_log(log, starts, &items, &head);
    cr_assert_eq(judge(log, len, NULL, &r), CB_OK, "%s", cb_last_error());
    cr_assert_eq(judge(log, len, &head, &r), CB_OK, "%s", cb_last_error());
    cr_expect_eq(r.records, SMALL);
    cr_expect_eq(items, 2 + 2 * SMALL);
    cr_expect_eq(r.tail_bytes, 0);
    for (size_t bit = 0; bit < len * 8; bit++) {
        log[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_expect_eq(judge(log, len, NULL, &r), CB_EPROTO, "bit %zu of byte %zu", bit % 8, bit / 8);
        cr_expect_neq(r.flaw, CB_AUDIT_SOUND);
        if (bit >= 120 * 8) cr_expect(r.offset + 256 >= bit / 8 || r.flaw == CB_AUDIT_SIGNATURE, "%zu", bit / 8);
        log[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

Test(audit, cut_anywhere) {
    uint8_t log[8192];
    size_t starts[33], items, proven = 0;
    cb_audit_head head;
    cb_audit_report r;
    size_t len = small_log(log, starts, &items, &head);
    for (size_t i = 0, n = 0; n < len; n++) {
        while (starts[i + 1] <= n)
            i++;
        if (n == starts[i] && i >= 2 && log[starts[i - 1] + 4] == 'C') proven = n;
        cr_expect_eq(judge(log, n, &head, &r), CB_EPROTO, "cut at %zu", n);
        int alone = judge(log, n, NULL, &r);
        cr_expect_eq(alone, proven ? CB_OK : CB_EPROTO, "cut at %zu", n);
        if (proven) cr_expect_eq(r.tail_bytes, n - proven, "cut at %zu", n);
    }
}

Test(audit, dropped_repeated_and_swapped) {
    uint8_t log[8192], other[16384];
    size_t starts[33], items;
    cb_audit_head head;
    cb_audit_report r;
    size_t len = small_log(log, starts, &items, &head);
    for (size_t i = 0; i + 1 < items; i++) {
        const size_t a = starts[i], b = starts[i + 1], c = starts[i + 2];
        memcpy(other, log, a);
        memcpy(other + a, log + b, len - b);
        cr_expect_eq(judge(other, len - (b - a), NULL, &r), CB_EPROTO, "dropped %zu", i);
        cr_expect_eq(r.flaw, i ? CB_AUDIT_LOST : CB_AUDIT_MALFORMED);
        cr_expect_eq(r.offset, a);
        memcpy(other, log, b);
        memcpy(other + b, log + a, len - a);
        cr_expect_eq(judge(other, len + (b - a), NULL, &r), CB_EPROTO, "repeated %zu", i);
        cr_expect_eq(r.flaw, CB_AUDIT_ORDER);
        cr_expect_eq(r.offset, b);
        memcpy(other, log, len);
        memcpy(other + a, log + b, c - b);
        memcpy(other + a + (c - b), log + a, b - a);
        cr_expect_eq(judge(other, len, NULL, &r), CB_EPROTO, "swapped %zu", i);
        cr_expect_eq(r.offset, a);
    }
}

Test(audit, a_log_written_anew_is_not_the_known_one) {
    uint8_t one[8192], two[8192], key[CB_AUDIT_HASH] = {1};
    size_t starts[33], items;
    cb_audit_head first, second;
    cb_audit_report r;
    cb_audit_verifier *v;
    small_log(one, starts, &items, &first);
    size_t len = small_log(two, starts, &items, &second);
    cr_expect_eq(judge(two, len, &first, &r), CB_EPROTO);
    cr_expect_eq(r.flaw, CB_AUDIT_HEAD);
    cr_assert_eq(cb_audit_verifier_new(&v, CB_OPTS(cb_audit_verify_opts, .key = key)), CB_OK);
    cr_expect_eq(cb_audit_verifier_feed(v, (cb_slice){two, len}), CB_EPROTO);
    cr_expect_eq(cb_audit_verifier_end(v, (cb_slice){NULL, 0}, &r), CB_EPROTO);
    cr_expect_eq(r.flaw, CB_AUDIT_KEY);
    cb_audit_verifier_free(v);
}

Test(audit, records_that_are_refused) {
    static uint8_t big[5000];
    folder f;
    make_folder(&f);
    cb_audit *log = open_log(&f), *again = NULL;
    cb_audit_record rows[] = {row("x"), row("x"), row("x"), row("x"), row("x"), row("x")};
    rows[0].tenant.len = 0;
    rows[1].actor.len = 0;
    rows[2].outcome = 9;
    rows[3].before = (cb_slice){big, 31};
    rows[4].detail = (cb_slice){big, CB_AUDIT_DETAIL_MAX + 1};
    rows[5].action = (cb_slice){big, CB_AUDIT_TEXT_MAX + 1};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(cb_audit_append(log, &rows[i], NULL, NULL), CB_EINVAL, "row %zu", i);
    cr_expect_eq(cb_audit_open(&again, CB_OPTS(cb_audit_opts, .path = f.log, .key_file = f.key)), CB_EEXIST);
    cb_audit_free(log);
    cr_assert_eq(chmod(f.key, 0644), 0);
    cr_expect_eq(cb_audit_open(&again, CB_OPTS(cb_audit_opts, .path = f.log, .key_file = f.key)), CB_EPERM);
    drop_folder(&f);
}

static void count(int rc, uint64_t seq, void *user) {
    uint64_t *n = user;
    if (rc == CB_OK && seq > 0) ++*n;
}

static void *many(void *user) {
    for (int i = 0; i < 500; i++) {
        cb_audit_record r = row("route.set");
        if (cb_audit_append(user, &r, NULL, NULL) < 0) abort();
    }
    return NULL;
}

Test(audit, many_threads_share_commits_and_a_reader_looks_on) {
    folder f;
    make_folder(&f);
    cb_audit *log = open_log(&f);
    cb_audit_report r;
    cb_audit_stats s = {.size = sizeof s};
    pthread_t threads[4];
    uint64_t done = 0;
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, many, log);
    for (int i = 0; i < 20; i++)
        cr_expect_eq(verify(&f, NULL, &r), CB_OK, "%s", cb_last_error());
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cb_audit_record last = row("route.drop");
    cr_assert_eq(cb_audit_append(log, &last, count, &done), CB_OK);
    cr_assert_eq(cb_audit_write(log, &last, NULL), CB_OK);
    cr_assert_eq(cb_audit_stats_get(log, &s), CB_OK);
    cr_expect_eq(s.records, 2002);
    cb_metrics *m = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_expect_eq(cb_audit_metrics(NULL, m, "a"), CB_EINVAL);
    cr_expect_eq(cb_audit_metrics(log, NULL, "a"), CB_EINVAL);
    cr_assert_eq(cb_audit_metrics(log, m, "a"), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_audit_metrics(log, m, "b"), CB_EEXIST);
    moved_scrape(m);
    EXPECT_MOVED(m, 2002, "cb_audit_records", "a");
    EXPECT_MOVED(m, s.commits, "cb_audit_commits", "a");
    EXPECT_MOVED(m, 0, "cb_audit_failed_records", "a");
    cb_audit_free(log);
    moved_scrape(m);
    EXPECT_MOVED(m, 0, "cb_audit_records", "a"); /* it is gone with the log */
    cb_metrics_unref(m);
    cr_expect_eq(done, 1);
    cr_expect_eq(verify(&f, NULL, &r), CB_OK);
    cr_expect_eq(r.records, 2002);
    drop_folder(&f);
}

/* A child writes and tells each number that is durable; it is killed some time after it has told `least`. */
static uint64_t killed_child(const folder *f, int least, unsigned us) {
    int ends[2];
    uint64_t seq, last = 0;
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        cb_audit *log;
        if (cb_audit_open(&log, CB_OPTS(cb_audit_opts, .path = f->log, .key_file = f->key)) < 0) _exit(1);
        for (;;) {
            cb_audit_record r = row("route.set");
            for (int i = 0; i < 20; i++)
                (void)cb_audit_append(log, &r, NULL, NULL);
            if (cb_audit_write(log, &r, &seq) < 0 || write(ends[1], &seq, sizeof seq) != sizeof seq) _exit(1);
        }
    }
    close(ends[1]);
    for (int i = 0; i < least && read(ends[0], &seq, sizeof seq) == sizeof seq; i++)
        last = seq;
    usleep(us);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    while (read(ends[0], &seq, sizeof seq) == sizeof seq)
        last = seq;
    close(ends[0]);
    return last;
}

Test(processes, an_audit_log_loses_nothing_that_was_told) {
    folder f;
    make_folder(&f);
    uint64_t last = 0;
    cb_audit_free(open_log(&f)); /* the key is there */
    for (unsigned i = 0; i < 50; i++) {
        cb_audit_report r;
        uint64_t told = killed_child(&f, (int)(i % 4), i * 7919 % 9000);
        if (told) last = told;
        cr_assert_eq(verify(&f, NULL, &r), CB_OK, "%u: %s", i, cb_last_error());
        cr_assert(r.head.seq >= last);
    }
    cr_expect(last > 50);
    drop_folder(&f);
}

Test(audit, a_torn_end_is_cut_with_a_record_and_a_break_is_refused) {
    folder f;
    make_folder(&f);
    cb_audit *log = open_log(&f);
    cb_audit_record r = row("route.set");
    cb_audit_report report;
    cb_audit_stats s = {.size = sizeof s};
    cr_assert_eq(cb_audit_write(log, &r, NULL), CB_OK);
    cb_audit_free(log);
    int fd = open(f.log, O_RDWR | O_APPEND);
    cr_assert_eq(write(fd, "\0\0\1\0R\1\0\0torn", 12), 12);
    log = open_log(&f);
    cr_assert_eq(cb_audit_stats_get(log, &s), CB_OK);
    cr_expect_eq(s.cut_bytes, 12);
    cb_metrics *m = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_audit_metrics(log, m, NULL), CB_OK);
    moved_scrape(m);
    EXPECT_MOVED(m, 12, "cb_audit_cut_bytes", "");
    cb_audit_free(log);
    cb_metrics_unref(m);
    cr_expect_eq(verify(&f, NULL, &report), CB_OK);
    cr_expect_eq(report.records, 2);
    cr_expect_eq(report.tail_bytes, 0);
    cr_assert_eq(write(fd, "no record at all", 16), 16);
    close(fd);
    log = NULL;
    cr_expect_eq(cb_audit_open(&log, CB_OPTS(cb_audit_opts, .path = f.log, .key_file = f.key)), CB_EPROTO);
    cr_expect_null(log);
    drop_folder(&f);
}

Test(audit, a_full_disk_fails_closed_and_heals) {
    folder f;
    make_folder(&f);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before, small;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    cb_audit *log = open_log(&f);
    cb_audit_report report;
    cb_audit_record r = row("route.set");
    uint64_t good = 0, after;
    int rc = CB_OK;
    small = before;
    small.rlim_cur = 3000;
    setrlimit(RLIMIT_FSIZE, &small);
    for (int i = 0; i < 100 && rc == CB_OK; i++) {
        rc = cb_audit_write(log, &r, NULL);
        good += rc == CB_OK;
    }
    cr_expect_eq(rc, CB_ESYS);
    setrlimit(RLIMIT_FSIZE, &before);
    cr_expect_eq(cb_audit_write(log, &r, &after), CB_OK, "%s", cb_last_error());
    cr_expect_eq(after, 3 + good * 2);
    cb_audit_free(log);
    cr_expect_eq(verify(&f, NULL, &report), CB_OK, "%s", cb_last_error());
    cr_expect_eq(report.records, good + 1);
    drop_folder(&f);
}
