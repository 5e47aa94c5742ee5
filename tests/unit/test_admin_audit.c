/* Changes and denials in the audit log: before the answer, and no change without a record. */
#include "support/admin_fixture.h"
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static admin_reply r;
static int n_changes, n_commits, commit_rc;
static cb_admin_call *held;

static int change(cb_admin_call *c, void *user) {
    (void)user;
    n_changes++;
    return cb_admin_send_json(c, 200, cb_slice_str("{\"done\":true}"));
}

static int fails(cb_admin_call *c, void *user) {
    (void)user;
    n_changes++;
    return cb_admin_problem(c, 502, "it did not work");
}

static int denies(cb_admin_call *c, void *user) {
    (void)user;
    return cb_admin_problem(c, 403, "/groups/web: its owner is another");
}

static void committed(cb_admin_call *c, int rc, void *user) {
    (void)user;
    commit_rc = rc;
    if (rc < 0) return;
    n_commits++;
    (void)cb_admin_send_json(c, 200, cb_slice_str("{}"));
}

static int commits(cb_admin_call *c, void *user) {
    static uint8_t before[CB_AUDIT_HASH] = {1}, after[CB_AUDIT_HASH] = {2};
    (void)user;
    if (cb_admin_dry_run(c)) {
        cr_expect_eq(cb_admin_commit(c, NULL, committed, NULL), CB_EINVAL, "a dry run");
        return cb_admin_send_nothing(c);
    }
    const cb_admin_change what = {.size = sizeof what,
                                  .object = cb_slice_str("/groups/web"),
                                  .detail = cb_slice_str("revision 18"),
                                  .before = {before, sizeof before},
                                  .after = {after, sizeof after}};
    const int rc = cb_admin_commit(c, &what, committed, NULL);
    if (rc == CB_OK) cr_expect_eq(cb_admin_commit(c, &what, committed, NULL), CB_EINVAL, "twice");
    return rc;
}

static int holds(cb_admin_call *c, void *user) {
    (void)user;
    held = c;
    return CB_OK;
}

static const cb_admin_resource rows[] = {
    {.method = "POST",
     .path = "/v1/change",
     .id = "postChange",
     .summary = "Changes",
     .rights = CB_RIGHT_OPERATE,
     .flags = CB_ADMIN_CHANGES | CB_ADMIN_DRY_RUN | CB_ADMIN_RAW | CB_ADMIN_OPTIONAL,
     .handle = change},
    {.method = "POST",
     .path = "/v1/fails",
     .id = "postFails",
     .summary = "Fails",
     .rights = CB_RIGHT_OPERATE,
     .flags = CB_ADMIN_CHANGES,
     .handle = fails},
    {.method = "POST",
     .path = "/v1/denies",
     .id = "postDenies",
     .summary = "Denies",
     .rights = CB_RIGHT_OPERATE,
     .flags = CB_ADMIN_CHANGES | CB_ADMIN_COMMITS,
     .handle = denies},
    {.method = "POST",
     .path = "/v1/commits",
     .id = "postCommits",
     .summary = "Commits",
     .rights = CB_RIGHT_OPERATE,
     .flags = CB_ADMIN_CHANGES | CB_ADMIN_COMMITS | CB_ADMIN_DRY_RUN,
     .handle = commits},
    {.method = "POST",
     .path = "/v1/holds",
     .id = "postHolds",
     .summary = "Holds",
     .rights = CB_RIGHT_OPERATE,
     .flags = CB_ADMIN_CHANGES,
     .handle = holds},
};

static void open_world(admin_world *w, const char *role, const cb_admin_opts *o) {
    admin_open(w, ADMIN_AUDIT, role, o);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_admin_resource one = rows[i];
        one.size = sizeof one;
        cr_assert_eq(cb_admin_add(w->a, &one, NULL), CB_OK, "%s", cb_last_error());
    }
    n_changes = n_commits = commit_rc = 0;
    held = NULL;
}

/* "action outcome object detail|" of each record, in order. */
typedef struct record_list {
    char text[16384];
    size_t n;
} record_list;

static int gather(const cb_audit_record *record, void *user) {
    static const char *const outcomes[] = {"?", "done", "denied", "failed"};
    record_list *l = user;
    const size_t used = strlen(l->text);
    l->n++;
    snprintf(l->text + used, sizeof l->text - used, "%.*s %s %.*s %.*s|", (int)record->action.len,
             (const char *)record->action.base, outcomes[record->outcome], (int)record->object.len,
             (const char *)record->object.base, (int)record->detail.len, (const char *)record->detail.base);
    return CB_OK;
}

static void records(admin_world *w, record_list *l) {
    *l = (record_list){0};
    cr_assert_eq(cb_audit_verify(w->audit_path, CB_OPTS(cb_audit_verify_opts, .on_record = gather, .user = l), NULL),
                 CB_OK, "%s", cb_last_error());
}

static uint64_t cpu_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

#define POST(path) "POST " path, "content-length: 0", NULL

Test(admin_audit, each_change_and_each_denial_is_there) {
    admin_world w;
    record_list l;
    open_world(&w, "operator", NULL);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 200, "%s", r.text);
    records(&w, &l); /* durable before the answer */
    cr_expect(strstr(l.text, "postChange done /v1/change POST at unix:"), "%s", l.text);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change?dry_run=true")), 200, "%s", r.text);
    records(&w, &l);
    cr_expect_eq(l.n, 1, "a dry run was recorded: %s", l.text);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/fails")), 502, "%s", r.text);
    records(&w, &l);
    cr_expect(strstr(l.text, "postFails done /v1/fails") && strstr(l.text, "postFails failed /v1/fails"), "%s", l.text);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/denies")), 403, "%s", r.text);
    records(&w, &l);
    cr_expect(strstr(l.text, "postDenies denied /v1/denies") && !strstr(l.text, "postDenies done"), "%s", l.text);
    admin_role(&w, "viewer");
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 403, "%s", r.text);
    records(&w, &l);
    cr_expect(strstr(l.text, "postChange denied /v1/change"), "%s", l.text);
    cr_expect_eq(n_changes, 3);
    const size_t before = l.n; /* what reads, and what is malformed, is neither */
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami", NULL, NULL), 200);
    cr_expect_eq(admin_ask(&w, &r, "GET /nothing", NULL, NULL), 404);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami?x=1", NULL, NULL), 400);
    records(&w, &l);
    cr_expect_eq(l.n, before, "%s", l.text);
    admin_close(&w);
}

Test(admin_audit, a_resource_commits) {
    admin_world w;
    record_list l;
    open_world(&w, "operator", NULL);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/commits?dry_run=true")), 204, "%s", r.text);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/commits")), 200, "%s", r.text);
    records(&w, &l);
    cr_expect_eq(l.n, 1);
    cr_expect(strstr(l.text, "postCommits done /groups/web revision 18|"), "%s", l.text);
    admin_close(&w);
}

/* Without an audit log a commit goes through all the same. */
Test(admin_audit, nothing_to_record_in) {
    admin_world w;
    admin_open(&w, 0, "operator", NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_admin_resource one = rows[i];
        one.size = sizeof one;
        cr_assert_eq(cb_admin_add(w.a, &one, NULL), CB_OK);
    }
    n_commits = n_changes = 0;
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/commits")), 200, "%s", r.text);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 200, "%s", r.text);
    cr_expect_eq(n_commits + n_changes, 2);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/audit", NULL, NULL), 404, "%s", r.text);
    admin_close(&w);
}

Test(admin_audit, a_disk_that_takes_nothing_stops_changes_only) {
    admin_world w;
    record_list l;
    struct rlimit before, small;
    open_world(&w, "operator", NULL);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 200, "%s", r.text);
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 1;
    setrlimit(RLIMIT_FSIZE, &small);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 507, "%s", r.text);
    cr_expect(strstr(r.body, "nothing is changed"), "%s", r.body);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/commits")), 507, "%s", r.text);
    cr_expect_lt(commit_rc, 0, "the resource was not told");
    cr_expect_eq(n_changes, 1);
    cr_expect_eq(n_commits, 0);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami", NULL, NULL), 200, "reading goes on");
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change?dry_run=true")), 200, "a dry run changes nothing");
    admin_role(&w, "viewer");
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 403, "a denial stays one");
    admin_role(&w, "operator");
    setrlimit(RLIMIT_FSIZE, &before);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 200, "and heals: %s", r.text);
    records(&w, &l);
    cr_expect_eq(l.n, 2, "%s", l.text);
    admin_close(&w);
}

Test(admin_audit, a_log_that_is_needed_comes_and_goes) {
    admin_world w;
    record_list l;
    admin_open(&w, ADMIN_AUDIT, "operator", CB_OPTS(cb_admin_opts, .needs_audit = 1));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_admin_resource one = rows[i];
        one.size = sizeof one;
        cr_assert_eq(cb_admin_add(w.a, &one, NULL), CB_OK);
    }
    n_commits = n_changes = commit_rc = 0;
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 200, "%s", r.text);
    cr_expect_eq(cb_admin_set_audit(w.a, NULL), CB_OK);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 507, "%s", r.text);
    cr_expect(strstr(r.body, "it is not open"), "%s", r.body);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/commits")), 507, "%s", r.text);
    cr_expect_lt(commit_rc, 0, "the resource was not told");
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami", NULL, NULL), 200, "reading goes on");
    admin_role(&w, "auditor");
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/audit", NULL, NULL), 503, "%s", r.text);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 403, "a denial stays one");
    admin_role(&w, "operator");
    cr_expect_eq(cb_admin_set_audit(w.a, w.audit), CB_OK);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/commits")), 200, "%s", r.text);
    cr_expect(n_changes == 1 && n_commits == 1);
    records(&w, &l);
    cr_expect_eq(l.n, 2, "%s", l.text);
    cr_expect_eq(cb_admin_set_audit(NULL, w.audit), CB_EINVAL);
    admin_close(&w);
    admin_open(&w, ADMIN_AUDIT, "operator", NULL);
    cr_expect_eq(cb_admin_set_audit(w.a, NULL), CB_EINVAL,
                 "nobody may take the log away from one that does not say so");
    admin_close(&w);
}

Test(admin_audit, a_flood_of_denials_is_counted) {
    const cb_admin_opts o = {.denials_per_s = 2};
    admin_world w;
    record_list l;
    open_world(&w, "viewer", &o);
    for (int i = 0; i < 40; i++)
        cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 403, "%s", r.text);
    admin_turn(&w, 1300);
    records(&w, &l);
    cr_expect_leq(l.n, 16, "%zu records", l.n);
    cr_expect_geq(l.n, 10);
    char *counted = strstr(l.text, "denials denied  ");
    cr_assert(counted, "%s", l.text);
    cr_expect_geq((size_t)atoi(counted + 16) + l.n - 1, 40, "%s", counted);
    admin_close(&w);
}

Test(admin_audit, pages_of_the_log) {
    static const struct {
        const char *query;
        int status, items;
        bool more;
    } cases[] = {
        {"", 200, 12, false},
        {"?limit=5", 200, 5, true},
        {"?limit=12", 200, 12, false},
        {"?action=postChange", 200, 5, false},
        {"?action=postChange&limit=4", 200, 4, true},
        {"?outcome=denied", 200, 2, false},
        {"?outcome=failed&action=postFails", 200, 1, false},
        {"?outcome=good", 400, 0, false},
        {"?actor=uid:77777", 200, 0, false},
        {"?since=4000000000", 200, 0, false},
        {"?since=x", 400, 0, false},
        {"?since=1", 200, 12, false},
        {"?cursor=eHg", 400, 0, false}, /* "xx" */
        {"?offset=3", 400, 0, false},
    };
    admin_world w;
    char line[600];
    open_world(&w, "operator", NULL);
    for (int i = 0; i < 4; i++)
        admin_ask(&w, &r, POST("/v1/change"));
    admin_ask(&w, &r, POST("/v1/fails"));
    for (int i = 0; i < 4; i++)
        admin_ask(&w, &r, POST("/v1/commits"));
    admin_role(&w, "viewer");
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 403);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/audit", NULL, NULL), 403, "a viewer reads it");
    admin_role(&w, "auditor");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int items = 0;
        snprintf(line, sizeof line, "GET /v1/audit%s", cases[i].query);
        cr_expect_eq(admin_ask(&w, &r, line, NULL, NULL), cases[i].status, "%s: %s", line, r.text);
        for (char *at = strstr(r.body, "\"seq\":"); at; at = strstr(at + 1, "\"seq\":"))
            items++;
        cr_expect_eq(items, cases[i].items, "%s: %d", line, items);
        if (r.status == 200) cr_expect_eq(!strstr(r.body, "\"next\":null"), cases[i].more, "%s: %s", line, r.body);
    }
    int seen = 0, last = 1 << 30; /* all pages together, the latest first, each once */
    snprintf(line, sizeof line, "GET /v1/audit?limit=5");
    for (int page = 0; page < 5; page++) {
        cr_assert_eq(admin_ask(&w, &r, line, NULL, NULL), 200, "%s", r.text);
        for (char *at = strstr(r.body, "\"seq\":"); at; at = strstr(at + 1, "\"seq\":")) {
            cr_expect_lt(atoi(at + 6), last);
            last = atoi(at + 6);
            seen++;
        }
        char *next = strstr(r.body, "\"next\":\"");
        if (!next) break;
        snprintf(line, sizeof line, "GET /v1/audit?limit=5&cursor=%.*s", (int)strcspn(next + 8, "\""), next + 8);
    }
    cr_expect_eq(seen, 12);
    admin_close(&w);
}

/* A log of many records is read on another thread; a loop that ends meanwhile does not wait for the end of it. */
Test(admin_audit, a_long_log_is_given_up) {
    static const char page[] = "GET /v1/audit?actor=nobody HTTP/1.1\r\nhost: x\r\n\r\n";
    static uint8_t detail[1000];
    admin_world w;
    memset(detail, 'x', sizeof detail);
    open_world(&w, "auditor", NULL);
    const cb_audit_record record = {.size = sizeof record,
                                    .actor = cb_slice_str("a"),
                                    .tenant = cb_slice_str("-"),
                                    .action = cb_slice_str("x"),
                                    .detail = {detail, sizeof detail},
                                    .outcome = CB_AUDIT_DONE};
    for (int i = 0, rc = CB_OK; i < 40000; i += rc == CB_OK) {
        rc = cb_audit_append(w.audit, &record, NULL, NULL);
        cr_assert(rc == CB_OK || rc == CB_EAGAIN, "%s", cb_last_error());
        if (rc == CB_EAGAIN) usleep(1000);
    }
    cr_assert_eq(cb_audit_write(w.audit, &record, NULL), CB_OK);
    const uint64_t from = cpu_ms();
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/audit?actor=nobody", NULL, NULL), 200);
    const uint64_t whole = cpu_ms() - from;
    const int fd = admin_dial(w.path);
    cr_assert_eq(write(fd, page, sizeof page - 1), (ssize_t)sizeof page - 1);
    admin_turn(&w, 3);
    const uint64_t before = cpu_ms();
    cb_admin_free(w.a);
    w.a = NULL;
    cb_audit_free(w.audit);
    w.audit = NULL;
    cb_loop_free(w.loop);
    const uint64_t end = cpu_ms() - before;
    cr_expect_lt(end, whole / 2 + 2, "%llu ms, of %llu for all", (unsigned long long)end, (unsigned long long)whole);
    cr_assert_eq(cb_loop_new(&w.loop, NULL), CB_OK);
    close(fd);
    admin_close(&w);
}

Test(admin_audit, freed_while_records_are_on_their_way) {
    static const char text[] = "POST /v1/change HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    admin_world w;
    int fds[20];
    open_world(&w, "operator", NULL);
    for (int i = 0; i < 20; i++) {
        fds[i] = admin_dial(w.path);
        cr_assert_eq(write(fds[i], text, sizeof text - 1), (ssize_t)sizeof text - 1);
        if (i % 4 == 3) cb_loop_step(w.loop);
    }
    static const char page[] = "GET /v1/audit HTTP/1.1\r\nhost: x\r\n\r\n";
    admin_role(&w, "auditor");
    cr_assert_eq(write(fds[0], page, sizeof page - 1), (ssize_t)sizeof page - 1);
    cb_loop_step(w.loop);
    cb_loop_step(w.loop);
    cb_admin_free(w.a);
    w.a = NULL;
    admin_turn(&w, 100);
    for (int i = 0; i < 20; i++)
        close(fds[i]);
    admin_close(&w);
}

/* Every family of administration is moved. */
Test(admin_audit, what_is_counted) {
    admin_world w;
    struct rlimit before, small;
    admin_open(&w, ADMIN_AUDIT | ADMIN_METRICS, "operator", NULL);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_admin_resource one = rows[i];
        one.size = sizeof one;
        cr_assert_eq(cb_admin_add(w.a, &one, NULL), CB_OK);
    }
    n_changes = n_commits = 0;
    cr_expect_eq(admin_ask(&w, &r, "POST /v1/change", "content-length: 0\nidempotency-key: k", NULL), 200);
    cr_expect_eq(admin_ask(&w, &r, "POST /v1/change", "content-length: 0\nidempotency-key: k", NULL), 200);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change?dry_run=true")), 200);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/fails")), 502);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/denies")), 403);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami", NULL, NULL), 200);
    cr_expect_eq(admin_ask(&w, &r, "GET /livez", NULL, NULL), 200);
    cr_expect_eq(admin_ask(&w, &r, "GET /metrics", NULL, NULL), 200);
    cr_expect_eq(admin_ask(&w, &r, "DELETE /v1/whoami", NULL, NULL), 405);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/audit", NULL, NULL), 403);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami", "origin: http://evil.example", NULL), 403);
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 1;
    setrlimit(RLIMIT_FSIZE, &small);
    cr_expect_eq(admin_ask(&w, &r, POST("/v1/change")), 507);
    setrlimit(RLIMIT_FSIZE, &before);
    static const char text[] = "POST /v1/holds HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    const int fd = admin_dial(w.path);
    cr_assert_eq(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    for (int i = 0; i < 1000 && !held; i++)
        admin_turn(&w, 1);
    cr_assert(held);
    cr_expect_eq(admin_metric(&w, "cb_admin_waiting_requests", NULL, NULL), 1);
    cr_assert_eq(cb_admin_send_nothing(held), CB_OK);
    close(fd);
    cb_admin_set_roles(w.a, NULL);
    cr_expect_eq(admin_ask(&w, &r, "GET /v1/whoami", NULL, NULL), 403);
    static const struct {
        const char *name, *first, *second;
        double value;
    } wanted[] = {
        {"cb_admin_requests", "get", "2xx", 3},        {"cb_admin_requests", "get", "4xx", 3},
        {"cb_admin_requests", "post", "2xx", 4},       {"cb_admin_requests", "post", "4xx", 1},
        {"cb_admin_requests", "post", "5xx", 2},       {"cb_admin_requests", "other", "4xx", 1},
        {"cb_admin_request_seconds", NULL, NULL, 14},  {"cb_admin_waiting_requests", NULL, NULL, 0},
        {"cb_admin_denied_requests", "role", NULL, 1}, {"cb_admin_denied_requests", "right", NULL, 1},
        {"cb_admin_denied_requests", "page", NULL, 1}, {"cb_admin_denied_requests", "resource", NULL, 1},
        {"cb_admin_changes", "done", NULL, 2},         {"cb_admin_changes", "failed", NULL, 1},
        {"cb_admin_changes", "unrecorded", NULL, 1},   {"cb_admin_replayed_answers", NULL, NULL, 1},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const double value = admin_metric(&w, wanted[i].name, wanted[i].first, wanted[i].second);
        cr_expect_eq(value, wanted[i].value, "%s %s %s: %g", wanted[i].name, wanted[i].first ? wanted[i].first : "",
                     wanted[i].second ? wanted[i].second : "", value);
    }
    admin_close(&w);
}
