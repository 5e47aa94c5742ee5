/* Audit logs of several files: put aside and chained, verified as one, opened after crashes and despite flaws; exported
 * as they grow. */
#include "support/moved.h"
#include "support/scratch.h"
#include <cb.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct folder {
    char dir[64], log[96], key[96], head[96];
} folder;

static void make_folder(folder *f) {
    scratch_folder(f->dir, sizeof f->dir, "audits");
    snprintf(f->log, sizeof f->log, "%s/log", f->dir);
    snprintf(f->key, sizeof f->key, "%s/key", f->dir);
    snprintf(f->head, sizeof f->head, "%s/head", f->dir);
}

static void drop_folder(const folder *f) {
    DIR *d = opendir(f->dir);
    for (struct dirent *e; d && (e = readdir(d));)
        (void)unlinkat(dirfd(d), e->d_name, 0);
    if (d) closedir(d);
    rmdir(f->dir);
}

static const char *file_of(const folder *f, int number) {
    static char name[128];
    snprintf(name, sizeof name, "%s.%06d", f->log, number);
    return name;
}

static cb_audit *open_with(const folder *f, cb_audit_opts o) {
    cb_audit *log = NULL;
    o.size = sizeof o;
    o.path = f->log;
    o.key_file = f->key;
    cr_assert_eq(cb_audit_open(&log, &o), CB_OK, "%s", cb_last_error());
    return log;
}

static int open_fails(const folder *f) {
    cb_audit *log = NULL;
    int rc = cb_audit_open(&log, CB_OPTS(cb_audit_opts, .path = f->log, .key_file = f->key));
    cb_audit_free(log);
    return rc;
}

static cb_audit_record row(const char *action) {
    return (cb_audit_record){.size = sizeof(cb_audit_record),
                             .actor = cb_slice_str("ada"),
                             .tenant = cb_slice_str("acme"),
                             .action = cb_slice_str(action),
                             .outcome = CB_AUDIT_DONE};
}

static void write_rows(cb_audit *log, int n) {
    for (int i = 0; i < n; i++) {
        const cb_audit_record r = row("route.set");
        cr_assert_eq(cb_audit_write(log, &r, NULL), CB_OK, "%s", cb_last_error());
    }
}

static int verify(const folder *f, const cb_audit_head *head, cb_audit_report *r) {
    *r = (cb_audit_report){.size = sizeof *r};
    return cb_audit_verify(f->log, CB_OPTS(cb_audit_verify_opts, .head = head, .every_signature = 1), r);
}

/* Three files with two records each. */
static void three_files(const folder *f, cb_audit_head heads[3]) {
    cb_audit *log = open_with(f, (cb_audit_opts){.head_file = f->head});
    for (int i = 0; i < 3; i++) {
        if (i) cr_assert_eq(cb_audit_rotate(log), CB_OK, "%s", cb_last_error());
        write_rows(log, 2);
        cb_audit_head_get(log, &heads[i]);
    }
    cb_audit_stats s = {.size = sizeof s};
    cb_audit_stats_get(log, &s);
    cr_expect_eq(s.rotated, 2);
    cr_expect_eq(s.head_failed, 0);
    cb_metrics *m = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_audit_metrics(log, m, "files"), CB_OK);
    moved_scrape(m);
    EXPECT_MOVED(m, 2, "cb_audit_rotations", "files", "ok");
    EXPECT_MOVED(m, 0, "cb_audit_rotations", "files", "failed");
    EXPECT_MOVED(m, 0, "cb_audit_failed_heads", "files");
    cb_audit_free(log);
    cb_metrics_unref(m);
}

Test(audit_files, are_one_log) {
    folder f;
    cb_audit_head heads[3], known;
    cb_audit_report r;
    char text[256] = "", shown[CB_AUDIT_HEAD_MAX];
    make_folder(&f);
    three_files(&f, heads);
    cr_expect_eq(verify(&f, NULL, &r), CB_OK, "%s", cb_last_error());
    cr_expect_eq(r.records, 6);
    cr_expect_eq(r.first_file, 1);
    cr_expect_eq(r.file, 3);
    for (int i = 0; i < 3; i++)
        cr_expect_eq(verify(&f, &heads[i], &r), CB_OK, "head %d: %s", i, cb_last_error());
    int fd = open(f.head, O_RDONLY);
    cr_assert_gt(pread(fd, text, sizeof text - 1, 0), 0);
    close(fd);
    cr_expect_eq(cb_audit_head_read(&known, text), CB_OK);
    cr_expect(known.seq == heads[2].seq && memcmp(known.hash, heads[2].hash, CB_AUDIT_HASH) == 0);
    cb_audit_head_text(&heads[2], shown);
    cr_expect_eq(strncmp(shown, text, strlen(shown)), 0);
    /* Opened again it goes on in the third file. */
    cb_audit *log = open_with(&f, (cb_audit_opts){.checkpoint_records = 1});
    write_rows(log, 1);
    cr_expect_eq(cb_audit_rotate(log), CB_OK);
    cb_audit_free(log);
    cr_expect_eq(verify(&f, &heads[0], &r), CB_OK);
    cr_expect_eq(r.file, 4);
    cr_expect_eq(r.records, 7);
    /* Older files may be somewhere else; then what is known of them cannot be judged. */
    unlink(file_of(&f, 1));
    cr_expect_eq(verify(&f, &heads[2], &r), CB_OK, "%s", cb_last_error());
    cr_expect_eq(r.first_file, 2);
    cr_expect_eq(verify(&f, &heads[0], &r), CB_OK, "the second file is chained to it: %s", cb_last_error());
    unlink(file_of(&f, 2));
    cr_expect_eq(verify(&f, &heads[0], &r), CB_EPROTO);
    cr_expect_eq(r.flaw, CB_AUDIT_EARLIER);
    heads[1].hash[0] ^= 1;
    cr_expect_eq(verify(&f, &heads[1], &r), CB_EPROTO);
    cr_expect_eq(r.flaw, CB_AUDIT_HEAD);
    drop_folder(&f);
}

Test(audit_files, a_flaw_in_each_is_found) {
    folder f;
    cb_audit_head heads[3];
    cb_audit_report r;
    make_folder(&f);
    three_files(&f, heads);
    for (int number = 1; number <= 3; number++) {
        const char *name = number == 3 ? f.log : file_of(&f, number);
        uint8_t byte;
        int fd = open(name, O_RDWR);
        const off_t size = lseek(fd, 0, SEEK_END);
        for (off_t at = 0; at < size; at += 11) {
            cr_assert_eq(pread(fd, &byte, 1, at), 1);
            byte ^= 4;
            cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
            cr_expect_eq(verify(&f, &heads[0], &r), CB_EPROTO, "file %d, byte %d", number, (int)at);
            byte ^= 4;
            cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
        }
        if (number < 3) { /* a cut is not taken for a torn end */
            uint8_t whole[4096];
            cr_assert_eq(pread(fd, whole, (size_t)size, 0), size);
            for (off_t to = 0; to < size; to += 37) {
                cr_assert_eq(ftruncate(fd, to), 0);
                cr_expect_eq(verify(&f, &heads[0], &r), CB_EPROTO, "file %d cut to %d", number, (int)to);
            }
            cr_assert_eq(pwrite(fd, whole, (size_t)size, 0), size);
        }
        close(fd);
    }
    cr_expect_eq(verify(&f, NULL, &r), CB_OK);
    char other[128];
    snprintf(other, sizeof other, "%s", file_of(&f, 1));
    cr_assert_eq(rename(file_of(&f, 2), other), 0);
    cr_expect_eq(verify(&f, &heads[0], &r), CB_EPROTO, "the file before is gone");
    drop_folder(&f);
}

Test(audit_files, by_size) {
    folder f;
    cb_audit_report r;
    cb_audit_stats s = {.size = sizeof s};
    make_folder(&f);
    cb_audit *log = open_with(&f, (cb_audit_opts){.rotate_bytes = 2000});
    write_rows(log, 40);
    cb_audit_stats_get(log, &s);
    cr_expect_gt(s.rotated, 2);
    cr_expect_eq(s.rotate_failed, 0);
    cb_audit_free(log);
    cr_expect_eq(verify(&f, NULL, &r), CB_OK, "%s", cb_last_error());
    cr_expect_eq(r.records, 40);
    drop_folder(&f);
}

Test(audit_files, no_file_is_ever_replaced) {
    folder f;
    cb_audit_report r;
    struct stat st;
    make_folder(&f);
    cb_audit *log = open_with(&f, (cb_audit_opts){.mode = 0600});
    write_rows(log, 1);
    int fd = open(file_of(&f, 1), O_CREAT | O_WRONLY, 0600);
    cr_assert_eq(write(fd, "mine", 4), 4);
    close(fd);
    cr_expect_eq(cb_audit_rotate(log), CB_EEXIST, "%s", cb_last_error());
    cr_assert_eq(stat(file_of(&f, 1), &st), 0);
    cr_expect_eq(st.st_size, 4);
    write_rows(log, 1);
    unlink(file_of(&f, 1));
    cr_expect_eq(cb_audit_rotate(log), CB_OK);
    cb_audit_free(log);
    cr_expect_eq(verify(&f, NULL, &r), CB_OK);
    cr_expect_eq(r.records, 2);
    drop_folder(&f);
}

Test(audit_files, a_crash_between_the_names_is_undone) {
    folder f;
    cb_audit_report r;
    char fresh[128];
    make_folder(&f);
    cb_audit *log = open_with(&f, (cb_audit_opts){.mode = 0600});
    write_rows(log, 2);
    cb_audit_free(log);
    cr_assert_eq(link(f.log, file_of(&f, 1)), 0);
    snprintf(fresh, sizeof fresh, "%s.new", f.log);
    close(open(fresh, O_CREAT | O_WRONLY, 0600));
    log = open_with(&f, (cb_audit_opts){.mode = 0600});
    cr_expect_lt(access(file_of(&f, 1), F_OK), 0);
    cr_expect_lt(access(fresh, F_OK), 0);
    write_rows(log, 1);
    cr_expect_eq(cb_audit_rotate(log), CB_OK, "%s", cb_last_error());
    cb_audit_free(log);
    cr_expect_eq(verify(&f, NULL, &r), CB_OK);
    cr_expect_eq(r.records, 3);
    drop_folder(&f);
}

static void first_action(const cb_audit_record *r, char action[64]) {
    if (!*action) snprintf(action, 64, "%.*s", (int)r->action.len, (const char *)r->action.base);
}

static int keep_first(const cb_audit_record *r, void *user) {
    first_action(r, user);
    return 0;
}

Test(audit_files, despite_a_flaw_only_when_told) {
    folder f;
    cb_audit_head heads[3];
    cb_audit_report r = {.size = sizeof r};
    char action[64] = "";
    make_folder(&f);
    three_files(&f, heads);
    int fd = open(f.log, O_RDWR);
    cr_assert_eq(pwrite(fd, "X", 1, 200), 1);
    close(fd);
    cr_expect_eq(open_fails(&f), CB_EPROTO);
    cb_audit *log = open_with(&f, (cb_audit_opts){.despite_flaw = 1});
    write_rows(log, 1);
    cb_audit_free(log);
    cr_expect_eq(cb_audit_verify(f.log, CB_OPTS(cb_audit_verify_opts, .on_record = keep_first, .user = action), &r),
                 CB_OK, "%s", cb_last_error());
    cr_expect_str_eq(action, "audit.flaw");
    cr_expect_eq(r.records, 2);
    cr_expect_eq(r.first_file, 3, "the files of the flawed log are another log");
    cr_expect_eq(verify(&f, &heads[2], &r), CB_EPROTO, "who knows a head sees it");
    int flawed = 0;
    DIR *d = opendir(f.dir);
    for (struct dirent *e; (e = readdir(d));)
        flawed += strncmp(e->d_name, "log.flawed-", 11) == 0;
    closedir(d);
    cr_expect_eq(flawed, 1);
    cr_expect_eq(open_fails(&f), CB_OK);
    /* The file that is written has gone. */
    unlink(f.log);
    cr_expect_eq(open_fails(&f), CB_EPROTO);
    close(open(f.log, O_CREAT | O_WRONLY, 0600));
    cr_expect_eq(open_fails(&f), CB_EPROTO);
    log = open_with(&f, (cb_audit_opts){.despite_flaw = 1});
    cb_audit_free(log);
    *action = '\0';
    cr_expect_eq(cb_audit_verify(f.log, CB_OPTS(cb_audit_verify_opts, .on_record = keep_first, .user = action), &r),
                 CB_OK);
    cr_expect_str_eq(action, "audit.flaw");
    drop_folder(&f);
}

Test(audit_files, another_file_in_the_place_of_the_last_is_seen) {
    folder f;
    cb_audit_head heads[3];
    char aside[128];
    make_folder(&f);
    three_files(&f, heads);
    /* The second file again as the one that is written: sound by itself, but it does not follow the second. */
    snprintf(aside, sizeof aside, "%s.x", f.log);
    cr_assert_eq(rename(f.log, aside), 0);
    uint8_t whole[4096];
    int from = open(file_of(&f, 1), O_RDONLY);
    const ssize_t n = read(from, whole, sizeof whole);
    close(from);
    unlink(file_of(&f, 1));
    int fd = open(file_of(&f, 1), O_CREAT | O_WRONLY, 0600);
    cr_assert_eq(write(fd, whole, (size_t)n - 128), n - 128); /* its last commit is gone */
    close(fd);
    cr_assert_eq(rename(file_of(&f, 2), f.log), 0);
    cr_expect_eq(open_fails(&f), CB_EPROTO, "%s", cb_last_error());
    drop_folder(&f);
}

/* ---- exporting ---- */

typedef struct seen {
    int records, heads, done;
    uint64_t seq;
    char line[512];
    cb_loop *loop;
    pthread_t thread;
} seen;

static void export_record(const cb_audit_record *r, void *user) {
    seen *s = user;
    s->records++;
    s->seq = r->seq;
    cr_assert_gt(cb_audit_line(s->line, sizeof s->line, r, CB_AUDIT_SYSLOG, "edge1"), 0);
}

static void export_head(const cb_audit_head *head, void *user) {
    seen *s = user;
    s->heads += head->seq > 0;
}

static void done_on_loop(int rc, uint64_t seq, void *user) {
    seen *s = user;
    cr_expect_eq(rc, CB_OK);
    cr_expect_gt(seq, 0);
    cr_expect(pthread_equal(s->thread, pthread_self()), "on the loop's thread");
    s->done++;
}

Test(audit_files, records_are_told_to_a_loop_and_exported) {
    folder f;
    seen s = {.thread = pthread_self()};
    make_folder(&f);
    cr_assert_eq(cb_loop_new(&s.loop, NULL), CB_OK);
    cb_audit *log = open_with(&f, (cb_audit_opts){.on_record = export_record, .on_head = export_head, .user = &s});
    for (int i = 0; i < 3; i++) {
        const cb_audit_record r = row("key.turn");
        cr_assert_eq(cb_audit_append_loop(log, &r, s.loop, done_on_loop, &s), CB_OK);
    }
    const cb_audit_record r = row("x");
    cr_expect_eq(cb_audit_append_loop(log, &r, NULL, done_on_loop, &s), CB_EINVAL);
    cr_expect_eq(cb_audit_append_loop(log, &r, s.loop, NULL, &s), CB_EINVAL);
    struct pollfd p = {.fd = cb_loop_fd(s.loop), .events = POLLIN};
    for (int turns = 0; s.done < 3 && turns < 2000; turns++) {
        cr_assert_eq(cb_loop_step(s.loop), CB_OK);
        (void)poll(&p, 1, 10);
    }
    cb_audit_free(log);
    cr_expect_eq(s.done, 3);
    cr_expect_eq(s.records, 3);
    cr_expect_gt(s.heads, 0);
    cr_expect_not_null(strstr(s.line, "Z edge1 cb-audit - - [audit@32473 seq=\""), "%s", s.line);
    cr_expect_not_null(strstr(s.line, "action=\"key.turn\"]"), "%s", s.line);
    cb_loop_free(s.loop);
    drop_folder(&f);
}

Test(audit_files, lines) {
    static const uint8_t odd[] = {'a', '"', ']', '\\', 1, 0xff}, hash[32] = {0xab};
    char *line = malloc(CB_AUDIT_LINE_MAX), *full = malloc(CB_AUDIT_DETAIL_MAX);
    cb_audit_record r = row("x");
    r.seq = 7;
    r.time_us = 1700000000000001;
    r.outcome = CB_AUDIT_DENIED;
    r.object = (cb_slice){odd, sizeof odd};
    r.before = (cb_slice){hash, sizeof hash};
    const int n = cb_audit_line(line, CB_AUDIT_LINE_MAX, &r, CB_AUDIT_JSON, NULL);
    cr_expect_eq((size_t)n, strlen(line));
    cr_expect_str_eq(line,
                     "{\"seq\":7,\"time\":\"2023-11-14T22:13:20.000001Z\",\"outcome\":\"denied\",\"actor\":\"ada\","
                     "\"tenant\":\"acme\",\"action\":\"x\",\"object\":\"a\\\"]\\\\\\u0001\\u00ff\",\"before\":\""
                     "ab00000000000000000000000000000000000000000000000000000000000000\"}");
    cr_expect_eq(cb_audit_line(line, (size_t)n, &r, CB_AUDIT_JSON, NULL), CB_ELIMIT);
    cr_expect_eq(cb_audit_line(line, (size_t)n + 1, &r, CB_AUDIT_JSON, NULL), n);
    cr_expect_gt(cb_audit_line(line, CB_AUDIT_LINE_MAX, &r, CB_AUDIT_SYSLOG, NULL), 0);
    cr_expect_str_eq(line,
                     "<108>1 2023-11-14T22:13:20.000001Z - cb-audit - - [audit@32473 seq=\"7\" outcome=\"denied\" "
                     "actor=\"ada\" tenant=\"acme\" action=\"x\" object=\"a\\\"\\]\\\\??\"]");
    cr_expect_eq(cb_audit_line(line, CB_AUDIT_LINE_MAX, &r, CB_AUDIT_SYSLOG, "a b"), CB_EINVAL);
    cr_expect_eq(cb_audit_line(line, CB_AUDIT_LINE_MAX, &r, 3, NULL), CB_EINVAL);
    memset(full, 1, CB_AUDIT_DETAIL_MAX);
    r.actor = r.tenant = r.action = (cb_slice){(uint8_t *)full, CB_AUDIT_TEXT_MAX};
    r.object = (cb_slice){(uint8_t *)full, CB_AUDIT_OBJECT_MAX};
    r.detail = (cb_slice){(uint8_t *)full, CB_AUDIT_DETAIL_MAX};
    r.after = r.before;
    cr_expect_gt(cb_audit_line(line, CB_AUDIT_LINE_MAX, &r, CB_AUDIT_JSON, NULL), 0, "the largest record fits");
    static const char *const bad[] = {"", "7", "0:00", ":00", "7:xyz", "99999999999999999999999:00"};
    cb_audit_head head;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(cb_audit_head_read(&head, bad[i]), CB_EINVAL, "%s", bad[i]);
    free(line);
    free(full);
}
