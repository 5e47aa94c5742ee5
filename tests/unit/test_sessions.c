/* What clients keep to resume: the store, its file, and processes that share it. */
#include "base/mem.h"
#include "support/http_fixture.h"
#include "support/tls_fixture.h"
#include "transport/sessions.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct kept_log {
    char text[2048];
    int lines;
} kept_log;

static void keep_line(int level, const char *module, const char *text, void *user) {
    kept_log *k = user;
    (void)level;
    k->lines++;
    snprintf(k->text, sizeof k->text, "%s: %s", module, text);
}

static cb_sessions *store(const char *file, const cb_log *log, uint32_t max) {
    cb_sessions *s = NULL;
    int rc = cb_sessions_new(&s, CB_OPTS(cb_sessions_opts, .file = file, .log = log, .max_sessions = max));
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    return s;
}

static void put(cb_sessions *s, const char *key, const char *session) {
    cr_assert_eq(cb_sessions_put(s, key, cb_slice_str(session), cb_slice_str("extra"), 3600), CB_OK);
}

/* The session that is taken, "" when there is none. */
static const char *take(cb_sessions *s, const char *key) {
    static char text[64];
    cb_saved_session *e = cb_sessions_take(s, key, 0);
    text[0] = '\0';
    if (e) snprintf(text, sizeof text, "%.*s", (int)e->session_len, (const char *)e->bytes + e->key_len);
    cb_saved_session_free(e);
    return text;
}

static size_t slurp(const char *path, uint8_t *out, size_t cap) {
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, out, cap);
    if (fd >= 0) close(fd);
    return n > 0 ? (size_t)n : 0;
}

static void spill(const char *path, const void *data, size_t len) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    cr_assert_eq(write(fd, data, len), (ssize_t)len);
    close(fd);
}

Test(sessions, memory_is_bounded_newest_first_and_used_once) {
    cb_sessions *s = store(NULL, NULL, 3);
    put(s, "a", "1");
    put(s, "a", "2");
    put(s, "b", "3");
    put(s, "b", "4"); /* "1" goes */
    cr_expect_str_eq(take(s, "a"), "2");
    cr_expect_str_eq(take(s, "a"), "");
    cr_expect_str_eq(take(s, "b"), "4");
    cr_expect_str_eq(take(s, "b"), "3");
    cr_expect_str_eq(take(s, "b"), "");
    cr_expect_eq(cb_sessions_put(s, "a", cb_slice_str("5"), cb_slice_str(""), 0), CB_OK);
    cr_expect_str_eq(take(s, "a"), "", "a lifetime of 0 says: do not keep");
    cr_expect_eq(cb_sessions_put(s, "a", cb_slice_str("6"), cb_slice_str(""), 1), CB_OK);
    sleep(1);
    cr_expect_str_eq(take(s, "a"), "", "expired");
    static uint8_t big[70000];
    cr_expect_eq(cb_sessions_put(s, "a", (cb_slice){big, sizeof big}, cb_slice_str(""), 9), CB_ELIMIT);
    cb_sessions *none = NULL;
    cr_expect_eq(cb_sessions_new(&none, CB_OPTS(cb_sessions_opts, .max_sessions = 4097)), CB_EINVAL);
    cr_expect_eq(cb_sessions_new(&none, CB_OPTS(cb_sessions_opts, .file = "/nonexistent/sessions")), CB_ENOENT);
    cr_expect_eq(cb_sessions_new(&none, CB_OPTS(cb_sessions_opts, .file = "")), CB_EINVAL);
    cr_expect_eq(cb_sessions_new(NULL, NULL), CB_EINVAL);
    cr_expect_eq(cb_sessions_flush(s), CB_OK);
    cb_sessions_unref(s);
    cb_sessions_unref(NULL);
}

Test(sessions, a_file_outlives_its_process_and_is_private) {
    tls_pki p;
    char path[160], other[170];
    struct stat st;
    tls_pki_make(&p);
    tls_pki_path(&p, "sessions", path);
    mode_t before = umask(0);
    cb_sessions *s = store(path, NULL, 4);
    for (int i = 0; i < 6; i++) {
        char text[12];
        snprintf(text, sizeof text, "%d", i);
        put(s, "k", text);
    }
    put(s, "short", "x");
    cr_assert_eq(cb_sessions_flush(s), CB_OK, "%s", cb_last_error());
    cr_expect_str_eq(take(s, "k"), "5"); /* used: it must not come back */
    cb_sessions_unref(s);
    umask(before);
    cr_assert_eq(stat(path, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0600);
    snprintf(other, sizeof other, "%s.new", path);
    cr_expect_neq(access(other, F_OK), 0, "a temporary file stays");
    s = store(path, NULL, 0);
    cr_expect_eq(cb_sessions_len(s), 3);
    cr_expect_str_eq(take(s, "k"), "4");
    cr_expect_str_eq(take(s, "k"), "3");
    cr_expect_str_eq(take(s, "k"), "");
    cr_expect_str_eq(take(s, "short"), "x");
    cb_sessions_unref(s);
    s = store(path, NULL, 0);
    cr_expect_eq(cb_sessions_len(s), 0);
    cb_sessions_unref(s);
    tls_pki_drop(&p);
}

/* Files that are not used: what is said, and whether they are left alone. */
Test(sessions, files_that_are_ignored) {
    static const struct {
        const char *name;
        const char *bytes;
        size_t len;
        mode_t mode;
        const char *says;
        bool replaced;
    } rows[] = {
        {"empty", "", 0, 0600, "", true},
        {"foreign", "key = value\nmore = of it\n", 24, 0600, "not a file of saved sessions", false},
        {"foreign and short", "hi", 2, 0600, "not a file of saved sessions", false},
        {"newer", "CBSESS2\nwhatever that will be", 29, 0600, "another version", false},
        {"cut off", "CBSESS1\n\0\0", 10, 0600, "cut off", true},
        {"checksum", "CBSESS1\n\0\0\0\0\1\2\3\4\5\6\7\10", 20, 0600, "checksum", true},
        {"open to others", "", 0, 0644, "others may read", false},
        {"open to the group", "CBSESS1\n\0\0\0\0\1\2\3\4\5\6\7\10", 20, 0640, "others may read", false},
    };
    tls_pki p;
    char path[160];
    uint8_t now[256];
    tls_pki_make(&p);
    tls_pki_path(&p, "sessions", path);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        kept_log k = {.lines = 0};
        cb_log log = {.write = keep_line, .user = &k};
        unlink(path);
        spill(path, rows[i].bytes, rows[i].len);
        cr_assert_eq(chmod(path, rows[i].mode), 0);
        cb_sessions *s = store(path, &log, 0);
        cr_expect_eq(k.lines, *rows[i].says ? 1 : 0, "%s: %d lines", rows[i].name, k.lines);
        cr_expect(strstr(k.text, rows[i].says) != NULL, "%s: %s", rows[i].name, k.text);
        put(s, "k", "1"); /* it works without */
        put(s, "k", "2");
        int rc = cb_sessions_flush(s);
        cr_expect_eq(rc == CB_OK, rows[i].replaced, "%s: %d %s", rows[i].name, rc, cb_last_error());
        cr_expect_str_eq(take(s, "k"), "2", "%s", rows[i].name);
        cb_sessions_unref(s);
        cr_expect_eq(k.lines, *rows[i].says ? 1 : 0, "%s: the same is said again: %s", rows[i].name, k.text);
        size_t n = slurp(path, now, sizeof now);
        bool same = n == rows[i].len && memcmp(now, rows[i].bytes, n) == 0;
        cr_expect_neq(same, rows[i].replaced, "%s", rows[i].name);
    }
    unlink(path);
    cr_assert_eq(symlink("/etc/passwd", path), 0);
    kept_log k = {.lines = 0};
    cb_log log = {.write = keep_line, .user = &k};
    cb_sessions *s = store(path, &log, 0);
    cr_expect_eq(k.lines, 1);
    put(s, "k", "1");
    cr_expect_lt(cb_sessions_flush(s), 0);
    cb_sessions_unref(s);
    tls_pki_drop(&p);
}

/* Every byte of a file counts: changed or cut off anywhere, nothing of it is used. */
Test(sessions, a_file_is_whole_or_nothing) {
    tls_pki p;
    char path[160];
    uint8_t raw[1024];
    cb_list all;
    tls_pki_make(&p);
    tls_pki_path(&p, "sessions", path);
    cb_sessions *s = store(path, NULL, 0);
    put(s, "first", "a session");
    put(s, "second", "another");
    cb_sessions_unref(s);
    size_t len = slurp(path, raw, sizeof raw);
    cb_list_init(&all);
    cr_assert_eq(cb_sessions_decode(&all, (cb_slice){raw, len}), CB_OK);
    cr_assert_not(cb_list_empty(&all));
    cb_saved_sessions_free(&all);
    for (size_t bit = 0; bit < len * 8; bit++) {
        raw[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_expect_lt(cb_sessions_decode(&all, (cb_slice){raw, len}), 0, "bit %zu", bit);
        cr_expect(cb_list_empty(&all), "bit %zu", bit);
        raw[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t n = 0; n < len; n++) {
        cr_expect_lt(cb_sessions_decode(&all, (cb_slice){raw, n}), 0, "%zu bytes", n);
        cr_expect(cb_list_empty(&all), "%zu bytes", n);
    }
    tls_pki_drop(&p);
}

/* Two stores on one file, as two processes have them: what one keeps the other finds, and nothing is used twice. */
Test(processes, sessions_are_shared_and_used_once) {
    enum { N = 40, PROCESSES = 4 };
    tls_pki p;
    char path[160];
    tls_pki_make(&p);
    tls_pki_path(&p, "sessions", path);
    cb_sessions *a = store(path, NULL, 0), *b = store(path, NULL, 0);
    put(a, "k", "from a");
    cr_assert_eq(cb_sessions_flush(a), CB_OK);
    put(b, "k", "from b");
    cr_assert_eq(cb_sessions_flush(b), CB_OK); /* b writes both */
    cr_assert_eq(cb_sessions_len(b), 2);
    cr_expect(strncmp(take(b, "k"), "from ", 5) == 0);
    cr_expect(strncmp(take(b, "k"), "from ", 5) == 0);
    cr_expect_str_eq(take(b, "k"), "");
    cr_expect_str_eq(take(a, "k"), "", "b has taken it, though the file may say otherwise still");
    cr_assert_eq(cb_sessions_flush(b), CB_OK);
    put(a, "k", "new");
    cr_assert_eq(cb_sessions_flush(a), CB_OK);
    cr_expect_str_eq(take(a, "k"), "new");
    cr_expect_str_eq(take(a, "k"), "");
    for (int i = 0; i < N; i++) {
        char text[12];
        snprintf(text, sizeof text, "%d", i);
        put(a, "race", text);
    }
    cb_sessions_unref(a);
    cb_sessions_unref(b);
    /* real processes, all at once; each tells what it got */
    int tell[2];
    cr_assert_eq(pipe(tell), 0);
    for (int i = 0; i < PROCESSES; i++) {
        pid_t pid = fork();
        cr_assert_geq(pid, 0);
        if (pid) continue;
        cb_sessions *s = NULL;
        if (cb_sessions_new(&s, CB_OPTS(cb_sessions_opts, .file = path)) < 0) _exit(1);
        for (int t = 0; t < N; t++) {
            uint8_t got;
            const char *text = take(s, "race");
            if (!*text) break;
            got = (uint8_t)atoi(text);
            if (write(tell[1], &got, 1) != 1) _exit(1);
            usleep(1000);
        }
        cb_sessions_unref(s);
        _exit(0);
    }
    close(tell[1]);
    int seen[N] = {0}, total = 0;
    for (uint8_t got; read(tell[0], &got, 1) == 1; total++) {
        cr_assert_lt(got, N);
        seen[got]++;
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status = 1;
        wait(&status);
        cr_expect_eq(status, 0);
    }
    for (int i = 0; i < N; i++) {
        cr_expect_leq(seen[i], 1, "session %d was used %d times", i, seen[i]);
    }
    cr_expect_gt(total, 0);
    a = store(path, NULL, 0);
    cr_expect_eq(cb_sessions_len(a), (size_t)(N - total), "%d were taken", total);
    cb_sessions_unref(a);
    close(tell[0]);
    tls_pki_drop(&p);
}

/* A client of another process resumes, over TCP and QUIC; with other trust settings it does not. */
Test(sessions, an_http_client_resumes_in_another_run) {
    http_world w;
    http_reply r;
    char path[160];
    http_world_open(&w);
    tls_pki_path(&w.pki, "sessions", path);
    http_serve(&w, (cb_http_server_opts){.identity = w.me, .early_data = 1});
    static const struct {
        uint32_t version;
        uint8_t early, verify;
        bool resumed, early_seen;
    } rows[] = {
        {CB_HTTP_2, 0, CB_VERIFY_FULL, false, false}, {CB_HTTP_2, 0, CB_VERIFY_FULL, true, false},
        {CB_HTTP_2, 0, CB_VERIFY_NONE, false, false}, {CB_HTTP_3, 1, CB_VERIFY_FULL, false, false},
        {CB_HTTP_3, 1, CB_VERIFY_FULL, true, true},   {CB_HTTP_3, 1, CB_VERIFY_CHAIN, false, false},
        {CB_HTTP_3, 0, CB_VERIFY_FULL, true, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_sessions *s = store(path, NULL, 0);
        size_t before = cb_sessions_len(s);
        http_client_make(
            &w, (cb_http_client_opts){
                    .versions = rows[i].version, .early_data = rows[i].early, .verify = rows[i].verify, .sessions = s});
        r = (http_reply){0};
        http_fetch(&r, &w, (cb_request){0}, "/head");
        cr_expect_eq(r.rc, CB_OK, "row %zu: %d %s", i, r.rc, r.detail);
        for (int t = 0; t < 20; t++) { /* the tickets come after the answer */
            usleep(1000);
            cb_loop_step(w.loop);
        }
        cr_expect_eq(strstr(r.body, "early=1") != NULL, rows[i].early_seen, "row %zu: %s", i, r.body);
        /* a fresh connection brings two tickets, a resumed one uses one and brings one */
        cr_expect_eq(cb_sessions_len(s) - before, rows[i].resumed ? 0 : 2, "row %zu: %zu, before %zu", i,
                     cb_sessions_len(s), before);
        cb_http_client_free(w.client);
        w.client = NULL;
        cb_sessions_unref(s);
        cb_loop_step(w.loop); /* the client lets go of the store */
    }
    http_world_close(&w);
}
