#include "base/date.h"
#include "base/log.h"
#include "support/moved.h"
#include "support/scratch.h"
#include <cb/log_writer.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct world {
    char folder[64], path[96], text[1 << 16];
    cb_log_writer *w;
} world;

static void begin(world *t, cb_log_writer_opts o) {
    scratch_folder(t->folder, sizeof t->folder, "log");
    snprintf(t->path, sizeof t->path, "%s/log", t->folder);
    o.size = sizeof o;
    if (!o.target) o.target = t->path;
    cr_assert_eq(cb_log_writer_open(&t->w, &o), CB_OK, "%s", cb_last_error());
}

static void end(world *t) {
    char command[128];
    cb_log_writer_free(t->w);
    snprintf(command, sizeof command, "rm -r %s", t->folder);
    cr_expect_eq(system(command), 0);
}

static const char *written(world *t, const char *path) {
    cr_assert_eq(cb_log_writer_flush(t->w, 10000), CB_OK, "%s", cb_last_error());
    FILE *f = fopen(path, "r");
    cr_assert(f, "%s", path);
    size_t n = fread(t->text, 1, sizeof t->text - 1, f);
    fclose(f);
    t->text[n] = '\0';
    return t->text;
}

static void expect_match(const char *text, const char *pattern) {
    regex_t r;
    cr_assert_eq(regcomp(&r, pattern, REG_EXTENDED | REG_NOSUB), 0);
    cr_expect_eq(regexec(&r, text, 0, NULL, 0), 0, "%s is not %s", text, pattern);
    regfree(&r);
}

static cb_log_writer_stats stats(world *t) {
    cb_log_writer_stats s = {.size = sizeof s};
    cr_assert_eq(cb_log_writer_stats_get(t->w, &s), CB_OK);
    return s;
}

Test(log_writer, the_three_formats) {
    static const char *const patterns[] = {
        "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{3}Z warn quic: a \"b\" \\\\x01\n$",
        "^\\{\"time\":\"[0-9T:.Z-]+\",\"level\":\"warn\",\"module\":\"quic\",\"text\":\"a \\\\\"b\\\\\" "
        "\\\\\\\\x01\"\\}\n$",
        "^<28>1 [0-9T:.Z-]+ [^ ]+ me [0-9]+ quic - a \"b\" \\\\x01\n$",
    };
    for (int i = 0; i < 3; i++) {
        world t;
        struct stat st;
        begin(&t, (cb_log_writer_opts){.format = i, .app_name = "me"});
        cb_log_line(cb_log_writer_hook(t.w), CB_LOG_WARN, "quic", "%s", "a \"b\" \\x01");
        expect_match(written(&t, t.path), patterns[i]);
        cr_expect(stat(t.path, &st) == 0 && (st.st_mode & 0777) == 0640);
        end(&t);
    }
}

Test(log_writer, dates) {
    static const struct {
        int64_t ms;
        const char *text;
    } rows[] = {{0, "1970-01-01T00:00:00.000Z"},
                {1709164799999, "2024-02-28T23:59:59.999Z"},
                {1709164800000, "2024-02-29T00:00:00.000Z"},
                {4107542400000, "2100-03-01T00:00:00.000Z"},
                {-1, "1969-12-31T23:59:59.999Z"}};
    char text[CB_DATE_BYTES];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_date_text(text, rows[i].ms);
        cr_expect_str_eq(text, rows[i].text);
    }
}

Test(log_writer, levels_of_modules_change_while_it_runs) {
    world t;
    char text[128];
    begin(&t, (cb_log_writer_opts){.levels = "warn,quic=debug,http=off"});
    const cb_log *log = cb_log_writer_hook(t.w);
    cr_expect_eq(cb_log_writer_levels_text(t.w, text, sizeof text), 24);
    cr_expect_str_eq(text, "warn,quic=debug,http=off");
    cr_expect_eq(cb_log_writer_levels_text(t.w, text, 24), CB_ELIMIT);
    cb_log_line(log, CB_LOG_DEBUG, "quic", "1");
    cb_log_line(log, CB_LOG_INFO, "proxy", "no");
    cb_log_line(log, CB_LOG_WARN, "proxy", "2");
    cb_log_line(log, CB_LOG_ERROR, "http", "no");
    cr_expect_eq(cb_log_writer_levels(t.w, "error,http=inf"), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "http=inf"), "%s", cb_last_error());
    cb_log_line(log, CB_LOG_WARN, "proxy", "3"); /* nothing was changed */
    cr_expect_eq(cb_log_writer_levels(t.w, "ERROR,http=Info"), CB_OK);
    cr_expect_eq(log->level, CB_LOG_INFO, "so that nobody formats what nobody wants");
    cb_log_line(log, CB_LOG_INFO, "http", "4");
    cb_log_line(log, CB_LOG_WARN, "proxy", "no");
    cb_log_line(log, CB_LOG_DEBUG, "quic", "no");
    cr_expect_eq(cb_log_writer_levels(t.w, ""), CB_OK);
    cb_log_line(log, CB_LOG_INFO, "proxy", "5");
    const char *all = written(&t, t.path);
    expect_match(all, "quic: 1\n.*proxy: 2\n.*proxy: 3\n.*http: 4\n.*proxy: 5\n$");
    cr_expect_null(strstr(all, "no"));
    static const char *const bad[] = {"=info", "quic=", "quic", "debug,,x=", "averyveryverylongmodulename=info"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        cr_expect_eq(cb_log_writer_levels(t.w, bad[i]), CB_EINVAL, "%s", bad[i]);
    end(&t);
}

Test(log_writer, rotation) {
    world t;
    char moved[128];
    begin(&t, (cb_log_writer_opts){0});
    const cb_log *log = cb_log_writer_hook(t.w);
    snprintf(moved, sizeof moved, "%s.1", t.path);
    cb_log_line(log, CB_LOG_INFO, "m", "before");
    cr_assert_eq(cb_log_writer_flush(t.w, 10000), CB_OK);
    cr_assert_eq(rename(t.path, moved), 0);
    cb_log_line(log, CB_LOG_INFO, "m", "meanwhile");
    cr_assert_eq(cb_log_writer_flush(t.w, 10000), CB_OK);
    cr_assert_eq(cb_log_writer_reopen(t.w), CB_OK);
    cb_log_line(log, CB_LOG_INFO, "m", "after");
    expect_match(written(&t, t.path), "^[^\n]* m: after\n$");
    expect_match(written(&t, moved), "m: before\n.*m: meanwhile\n$");
    end(&t);
}

/* A pipe that nobody reads: lines are lost and counted, and nobody waits; then they are read, and the log says so. */
Test(log_writer, a_reader_that_sleeps_costs_lines) {
    world t;
    char fifo[128], text[1000];
    scratch_folder(t.folder, sizeof t.folder, "log");
    snprintf(fifo, sizeof fifo, "%s/fifo", t.folder);
    cr_assert_eq(mkfifo(fifo, 0600), 0);
    int reader = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    cr_assert_geq(reader, 0);
    cr_assert_eq(cb_log_writer_open(&t.w, CB_OPTS(cb_log_writer_opts, .target = fifo, .buffer_bytes = 20000)), CB_OK,
                 "%s", cb_last_error());
    memset(text, 'x', sizeof text);
    text[900] = '\0';
    uint64_t logged = 0;
    while (cb_log_writer_flush(t.w, 20) == CB_OK && logged < 10000) /* until the pipe is full */
        for (int i = 0; i < 10; i++, logged++)
            cb_log_line(cb_log_writer_hook(t.w), CB_LOG_INFO, "m", "%s", text);
    for (int i = 0; i < 100; i++, logged++)
        cb_log_line(cb_log_writer_hook(t.w), CB_LOG_INFO, "m", "%s", text);
    cb_log_writer_stats s = stats(&t);
    cr_expect_gt(s.dropped, 50);
    cr_expect_eq(s.dropped + s.lines, logged);
    cr_expect_leq(s.waiting_bytes, 20000);
    cb_metrics *m = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_assert_eq(cb_log_writer_metrics(t.w, m, NULL), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_log_writer_metrics(t.w, m, NULL), CB_EEXIST);
    moved_scrape(m);
    EXPECT_MOVED(m, s.lines, "cb_log_lines", "");
    EXPECT_MOVED(m, s.dropped, "cb_log_dropped_lines", "");
    EXPECT_MOVED_IN(m, 1, 20000, "cb_log_waiting_bytes", "");
    size_t lines = 0, told = 0;
    char piece[4096], last[4096] = "";
    for (int quiet = 0; quiet < 3000;) {
        ssize_t n = read(reader, piece, sizeof piece - 1);
        if (n <= 0) {
            if (cb_log_writer_flush(t.w, 1) == CB_OK) quiet += 100;
            quiet++;
            continue;
        }
        piece[n] = '\0';
        for (ssize_t i = 0; i < n; i++)
            lines += piece[i] == '\n';
        strcpy(last, piece);
        if (strstr(piece, "lines were dropped")) told++;
    }
    cr_expect_geq(lines, (size_t)s.lines);
    cr_expect_geq(told, 1);
    close(reader);
    cb_log_writer_free(t.w);
    cb_metrics_unref(m);
    unlink(fifo);
    rmdir(t.folder);
}

Test(log_writer, syslog_over_udp) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    char target[64], text[2048];
    cb_log_writer *w = NULL;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct timeval five = {.tv_sec = 5};
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&at, len) == 0 &&
              getsockname(fd, (struct sockaddr *)&at, &len) == 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &five, sizeof five);
    snprintf(target, sizeof target, "udp:127.0.0.1:%d", ntohs(at.sin_port));
    cr_assert_eq(cb_log_writer_open(&w, CB_OPTS(cb_log_writer_opts, .target = target, .facility = 16)), CB_OK, "%s",
                 cb_last_error());
    cb_log_line(cb_log_writer_hook(w), CB_LOG_ERROR, "tls", "first");
    cb_log_line(cb_log_writer_hook(w), CB_LOG_INFO, "tls", "second");
    for (int i = 0; i < 2; i++) {
        ssize_t n = recv(fd, text, sizeof text - 1, 0);
        cr_assert_gt(n, 0);
        text[n] = '\0';
        expect_match(text, i ? "^<134>1 .* libcb [0-9]+ tls - second$" : "^<131>1 .* libcb [0-9]+ tls - first$");
    }
    cb_log_writer_free(w);
    close(fd);
}

enum { THREADS = 4, EACH = 500 };

static void *logger(void *hook) {
    for (int i = 0; i < EACH; i++)
        cb_log_line(hook, CB_LOG_INFO, "m", "line %d", i);
    return NULL;
}

Test(log_writer, threads_do_not_mix_lines) {
    world t;
    pthread_t threads[THREADS];
    static char all[1 << 18];
    begin(&t, (cb_log_writer_opts){0});
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, logger, (void *)cb_log_writer_hook(t.w)), 0);
    for (int i = 0; i < 20; i++)
        cr_expect_eq(cb_log_writer_levels(t.w, i % 2 ? "info" : "debug"), CB_OK);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(cb_log_writer_flush(t.w, 10000), CB_OK);
    FILE *f = fopen(t.path, "r");
    size_t n = fread(all, 1, sizeof all - 1, f), lines = 0;
    fclose(f);
    all[n] = '\0';
    for (char *rest = all, *line; (line = strsep(&rest, "\n")) && *line; lines++)
        cr_expect(strstr(line, "Z info m: line ") == line + 23, "%s", line);
    cr_expect_eq(lines, THREADS * EACH);
    end(&t);
}

static size_t lines_in(const char *path) {
    size_t n = 0;
    FILE *f = fopen(path, "r");
    cr_assert(f, "%s", path);
    for (int c; (c = getc(f)) != EOF;)
        n += c == '\n';
    fclose(f);
    return n;
}

Test(log_writer, targets_change_under_threads_that_log) {
    enum { TARGETS = 8 };
    world t;
    pthread_t threads[THREADS];
    char path[128];
    size_t lines = 0;
    begin(&t, (cb_log_writer_opts){0});
    const cb_log *log = cb_log_writer_hook(t.w);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, logger, (void *)log), 0);
    for (int i = 0; i < TARGETS; i++) {
        cb_log_writer *next = NULL;
        snprintf(path, sizeof path, "%s/%d", t.folder, i);
        cr_assert_eq(cb_log_writer_open(&next, CB_OPTS(cb_log_writer_opts, .target = path, .levels = "info,quic=debug",
                                                       .format = i % 3)),
                     CB_OK, "%s", cb_last_error());
        cb_log_writer_swap(t.w, next);
        cr_expect_eq(log->level, CB_LOG_DEBUG, "levels come along");
        cb_log_writer_free(next);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cb_log_line(log, CB_LOG_INFO, "m", "last");
    cr_assert_eq(cb_log_writer_flush(t.w, 10000), CB_OK);
    cr_expect_geq(lines_in(path), 1, "the last line is in the last file");
    for (int i = -1; i < TARGETS; i++) {
        if (i >= 0) snprintf(path, sizeof path, "%s/%d", t.folder, i);
        lines += lines_in(i < 0 ? t.path : path);
    }
    cr_expect_eq(lines, THREADS * EACH + 1);
    end(&t);
}

typedef struct reopener {
    cb_log_writer *w;
    _Atomic bool ends;
} reopener;

static void *reopen(void *user) {
    reopener *r = user;
    while (!r->ends)
        (void)cb_log_writer_reopen(r->w);
    return NULL;
}

Test(log_writer, a_target_changes_while_another_thread_opens_it_again) {
    enum { CHANGES = 1000 };
    world t;
    pthread_t thread;
    char path[128];
    begin(&t, (cb_log_writer_opts){0});
    const cb_log *log = cb_log_writer_hook(t.w);
    reopener r = {.w = t.w};
    cr_assert_eq(pthread_create(&thread, NULL, reopen, &r), 0);
    for (int i = 0; i < CHANGES; i++) {
        cb_log_writer *next = NULL;
        snprintf(path, sizeof path, "%s/%d", t.folder, i % 2);
        cr_assert_eq(cb_log_writer_open(&next, CB_OPTS(cb_log_writer_opts, .target = path)), CB_OK);
        cb_log_writer_swap(t.w, next);
        cb_log_writer_free(next);
        cb_log_line(log, CB_LOG_INFO, "m", i % 2 ? "odd" : "even");
    }
    r.ends = true;
    pthread_join(thread, NULL);
    cr_assert_eq(cb_log_writer_flush(t.w, 10000), CB_OK);
    cr_expect_eq(lines_in(path), CHANGES / 2);
    cr_expect(!strstr(written(&t, path), "even"), "lines go to the target that is the writer's");
    snprintf(path, sizeof path, "%s/0", t.folder);
    cr_expect(!strstr(written(&t, path), "odd"));
    cr_expect_eq(lines_in(path), CHANGES / 2);
    end(&t);
}

Test(log_writer, a_check_makes_nothing) {
    world t;
    char path[128];
    struct stat st;
    begin(&t, (cb_log_writer_opts){0});
    snprintf(path, sizeof path, "%s/new", t.folder);
    cr_expect_eq(cb_log_writer_check(CB_OPTS(cb_log_writer_opts, .target = path)), CB_OK, "%s", cb_last_error());
    cr_expect_eq(stat(path, &st), -1);
    cr_expect_eq(cb_log_writer_check(CB_OPTS(cb_log_writer_opts, .target = t.path)), CB_OK, "%s", cb_last_error());
    static const struct {
        const char *target;
        int rc;
    } rows[] = {{"-", CB_OK},
                {"file-in-this-folder", CB_OK},
                {"udp:127.0.0.1:5514", CB_OK},
                {"udp:[::1]:5514", CB_OK},
                {"udp:somewhere", CB_EINVAL},
                {"/nonexistent/log", CB_ENOENT},
                {"/tmp", CB_ESYS},
                {"/dev/null/log", CB_ESYS},
                {"", CB_EINVAL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_eq(cb_log_writer_check(CB_OPTS(cb_log_writer_opts, .target = rows[i].target)), rows[i].rc, "%s: %s",
                     rows[i].target, cb_last_error());
    end(&t);
}

Test(log_writer, bad_options_are_named) {
    static const struct {
        cb_log_writer_opts o;
        int rc;
        const char *text;
    } rows[] = {
        {{.target = NULL}, CB_EINVAL, "target"},
        {{.target = "/nonexistent/log"}, CB_ENOENT, "/nonexistent/log"},
        {{.target = "/tmp"}, CB_ESYS, "/tmp"},
        {{.target = "udp:host"}, CB_EINVAL, "host"},
        {{.target = "x", .format = 3}, CB_EINVAL, "format"},
        {{.target = "x", .levels = "loud"}, CB_EINVAL, "loud"},
        {{.target = "x", .facility = 24}, CB_EINVAL, "facility"},
        {{.target = "x", .app_name = "a b"}, CB_EINVAL, "app_name"},
        {{.target = "x", .buffer_bytes = 1u << 30}, CB_EINVAL, "buffer_bytes"},
    };
    cb_log_writer *w = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_log_writer_opts o = rows[i].o;
        o.size = sizeof o;
        cr_expect_eq(cb_log_writer_open(&w, &o), rows[i].rc, "row %zu: %s", i, cb_last_error());
        cr_expect(strstr(cb_last_error(), rows[i].text), "row %zu: %s", i, cb_last_error());
        cr_expect_eq(cb_log_writer_check(&o), rows[i].rc, "row %zu: %s", i, cb_last_error());
    }
    cb_log_writer_free(NULL);
}
