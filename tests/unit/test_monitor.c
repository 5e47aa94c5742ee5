/* Checks on a loop, against listeners of the test's own; their metrics; what answers look like on the wire. */
#include "lb/probe_wire.h"
#include "loop/tcp.h"
#include "support/http_fixture.h"
#include "support/moved.h"
#include "support/scratch.h"
#include <cb/monitor.h>
#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct watch {
    http_world w;
    cb_monitor *m;
    int changes, last_to;
    uint32_t last_id, last_weight;
    char reason[CB_HEALTH_REASON_BYTES];
} watch;

static void on_change(const cb_health_change *c, void *user) {
    watch *x = user;
    if (c->cause != CB_HEALTH_BY_RAMP) x->changes++;
    x->last_to = c->to;
    x->last_id = c->id;
    x->last_weight = c->weight;
    snprintf(x->reason, sizeof x->reason, "%s", c->reason);
}

static void begin(watch *x) {
    memset(x, 0, sizeof *x);
    http_world_open(&x->w);
    cr_assert_eq(cb_monitor_new(&x->m, x->w.loop, CB_OPTS(cb_monitor_opts, .on_change = on_change, .user = x)), CB_OK,
                 "%s", cb_last_error());
}

static void finish(watch *x) {
    cb_monitor_free(x->m);
    http_world_close(&x->w);
}

static const cb_health_opts quick = {.size = sizeof quick,
                                     .interval_ms = 20,
                                     .fast_interval_ms = 10,
                                     .timeout_ms = 2000,
                                     .rise = 1,
                                     .fall = 1,
                                     .no_damping = 1};

/* Runs until there was a change (another one), and says to what. */
static int wait_change(watch *x) {
    const int before = x->changes;
    for (int i = 0; i < 5000 && x->changes == before; i++) {
        cb_loop_step(x->w.loop);
        usleep(1000);
    }
    cr_assert_gt(x->changes, before, "nothing has changed: %s", x->reason);
    return x->last_to;
}

static void add(watch *x, cb_check c) {
    c.size = sizeof c;
    c.id = c.id ? c.id : 7;
    c.health = c.health ? c.health : &quick;
    c.group = "g";
    cr_assert_eq(cb_monitor_add(x->m, &c), CB_OK, "%s", cb_last_error());
}

static void on_guest(cb_tcp_listener *l, int fd, const cb_addr *remote, void *user) {
    const char *says = user;
    (void)l, (void)remote;
    if (*says) (void)!send(fd, says, strlen(says), MSG_NOSIGNAL);
    close(fd);
}

static cb_tcp_listener *listener(watch *x, const char *says, char address[64]) {
    cb_tcp_listener *l = NULL;
    cb_tcp_listener_opts o = {.on_accept = on_guest, .user = (void *)(uintptr_t)says};
    cr_assert_eq(cb_addr_parse(&o.bind, "127.0.0.1:0", 0), CB_OK);
    cr_assert_eq(cb_tcp_listen(&l, x->w.loop, &o), CB_OK);
    char text[CB_ADDR_TEXT];
    snprintf(address, 64, "%s", cb_addr_text(cb_tcp_listener_local(l), text));
    return l;
}

Test(monitor, tcp_comes_and_goes) {
    watch x;
    char address[64];
    begin(&x);
    cb_tcp_listener *l = listener(&x, "220 ready\r\n", address);
    add(&x, (cb_check){.kind = CB_CHECK_TCP, .address = address, .name = "one"});
    cr_expect_eq(wait_change(&x), CB_HEALTH_UP);
    cr_expect(strstr(x.reason, "connected to 127.0.0.1:"), "%s", x.reason);
    EXPECT_MOVED(x.w.metrics, 1, "cb_health_up", "g", "one");
    EXPECT_MOVED(x.w.metrics, 1, "cb_health_state", "g", "one", "up");
    EXPECT_MOVED(x.w.metrics, 0, "cb_health_state", "g", "one", "unknown");
    EXPECT_MOVED(x.w.metrics, 1, "cb_health_share_ratio", "g", "one");
    EXPECT_MOVED(x.w.metrics, 1, "cb_health_changes", "g", "one");
    EXPECT_MOVED(x.w.metrics, 1, "cb_health_checks", "g", "one", "passed");
    EXPECT_MOVED(x.w.metrics, 1, "cb_health_check_seconds", "tcp");
    cb_tcp_listener_free(l);
    cr_expect_eq(wait_change(&x), CB_HEALTH_DOWN);
    cr_expect(strstr(x.reason, "Connection refused") && strstr(x.reason, address) && strstr(x.reason, "after 0."), "%s",
              x.reason);
    EXPECT_MOVED(x.w.metrics, 0, "cb_health_up", "g", "one");
    EXPECT_MOVED(x.w.metrics, 2, "cb_health_changes", "g", "one");
    EXPECT_MOVED(x.w.metrics, 1, "cb_health_checks", "g", "one", "failed");
    cr_expect(strstr(x.w.log, "health: one of g is down: "), "%s", x.w.log);
    cb_health_status s = {.size = sizeof s};
    cr_expect_eq(cb_monitor_status(x.m, 7, &s), CB_OK);
    cr_expect_eq(s.state, CB_HEALTH_DOWN);
    cr_expect_eq(cb_monitor_status(x.m, 8, &s), CB_ENOENT);
    cr_expect_eq(cb_monitor_override(x.m, 7, CB_HEALTH_FORCE_DRAIN, "later"), CB_OK);
    cr_expect_eq(wait_change(&x), CB_HEALTH_DRAINING);
    cr_expect_eq(cb_monitor_remove(x.m, 7), CB_OK);
    cr_expect_eq(cb_monitor_remove(x.m, 7), CB_ENOENT);
    EXPECT_MOVED(x.w.metrics, 0, "cb_health_state", "g", "one", "draining");
    finish(&x);
}

Test(monitor, tcp_expects_bytes) {
    watch x;
    char address[64];
    begin(&x);
    cb_tcp_listener *l = listener(&x, "220 ready\r\n", address);
    add(&x, (cb_check){.id = 1,
                       .kind = CB_CHECK_TCP,
                       .address = address,
                       .send = cb_slice_str("EHLO x\r\n"),
                       .expect = cb_slice_str("220 ")});
    cr_expect_eq(wait_change(&x), CB_HEALTH_UP, "%s", x.reason);
    cr_expect(strstr(x.reason, "answered as expected"), "%s", x.reason);
    cb_monitor_remove(x.m, 1);
    add(&x, (cb_check){.id = 2, .kind = CB_CHECK_TCP, .address = address, .expect = cb_slice_str("250")});
    cr_expect_eq(wait_change(&x), CB_HEALTH_DOWN);
    cr_expect(strstr(x.reason, "closed the connection") && strstr(x.reason, "220 ready.."), "%s", x.reason);
    cb_tcp_listener_free(l);
    finish(&x);
}

/* Each version, with TLS by the test's own root; statuses, bodies, hosts that hang, and roots that do not fit. */
Test(monitor, http_of_all_versions) {
    for (int i = 0; i < HTTP_WAYS; i++) {
        watch x;
        begin(&x);
        http_serve(&x.w, (cb_http_server_opts){.identity = http_ways[i].tls ? x.w.me : NULL});
        const char *address = strstr(x.w.url, "://") + 3;
        const cb_check base = {.kind = CB_CHECK_HTTP,
                               .address = address,
                               .tls = http_ways[i].tls,
                               .identity = x.w.roots,
                               .versions = http_ways[i].version,
                               .path = "/hello",
                               .server_name = "localhost"};
        const struct {
            const char *path, *statuses, *body;
            int to;
            const char *says;
        } rows[] = {{"/hello", NULL, NULL, CB_HEALTH_UP, "status 200"},
                    {"/hello", "201-299,404", NULL, CB_HEALTH_DOWN, "none of 201-299,404"},
                    {"/hello", NULL, "hello", CB_HEALTH_UP, "status 200"},
                    {"/hello", NULL, "good bye", CB_HEALTH_DOWN, "has not the text \"good bye\""},
                    {"/big?200000", NULL, "good bye", CB_HEALTH_DOWN, "first 64 KiB"},
                    {"/cut?10", NULL, "good bye", CB_HEALTH_DOWN, "after"}};
        for (uint32_t k = 0; k < sizeof rows / sizeof *rows; k++) {
            cb_check c = base;
            c.id = k + 1;
            c.path = rows[k].path;
            c.statuses = rows[k].statuses;
            c.body = rows[k].body;
            add(&x, c);
            cr_expect_eq(wait_change(&x), rows[k].to, "%s, row %u: %s", http_ways[i].name, k, x.reason);
            cr_expect(strstr(x.reason, rows[k].says), "%s, row %u: %s", http_ways[i].name, k, x.reason);
            cb_monitor_remove(x.m, c.id);
        }
        cb_health_opts short_time = quick;
        short_time.timeout_ms = 150;
        cb_check hangs = base;
        hangs.path = "/never";
        hangs.health = &short_time;
        add(&x, hangs);
        cr_expect_eq(wait_change(&x), CB_HEALTH_DOWN);
        cr_expect_str_eq(x.reason, "no answer within 150 ms");
        EXPECT_MOVED(x.w.metrics, 1, "cb_health_checks", "g", address, "timeout");
        cb_monitor_remove(x.m, 7);
        if (http_ways[i].tls) {
            cb_check wrong = base;
            wrong.server_name = "elsewhere.example";
            add(&x, wrong);
            cr_expect_eq(wait_change(&x), CB_HEALTH_DOWN);
            cr_expect(strstr(x.reason, "elsewhere.example") || strstr(x.reason, "certificate"), "%s", x.reason);
        }
        finish(&x);
    }
}

/* A program: its status, its words, its environment, its time, and what it leaves behind. */
static void script(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0 && chmod(path, 0700) == 0);
}

Test(monitor, programs) {
    watch x;
    char folder[SCRATCH_TEXT], path[128], pid_file[140], text[600];
    begin(&x);
    scratch_folder(folder, sizeof folder, "monitor");
    snprintf(path, sizeof path, "%s/program", folder);
    snprintf(pid_file, sizeof pid_file, "%s.pid", path);
    const char *const argv[] = {path, "an argument", NULL};
    const struct {
        const char *text;
        int to;
        const char *says;
    } rows[] = {
        {"#!/bin/sh\necho \"$1 $CB_CHECK_NAME $CB_CHECK_GROUP $CB_CHECK_ADDRESS $CB_CHECK_TIMEOUT_MS $HOME.\"; pwd\n",
         CB_HEALTH_UP, "\"an argument disk g 10.0.0.1:9 2000 .\""},
        {"#!/bin/sh\necho full; exit 3\n", CB_HEALTH_DOWN, "exit status 3"},
        {"#!/bin/sh\nkill -9 $$\n", CB_HEALTH_DOWN, "signal 9"},
        {"#!/bin/sh\nhead -c 300000 /dev/zero | tr '\\0' x\n", CB_HEALTH_UP, "exit status 0"},
        {"not a program", CB_HEALTH_DOWN, "starting"},
    };
    for (uint32_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        script(path, rows[k].text);
        add(&x, (cb_check){.id = k + 1, .kind = CB_CHECK_EXEC, .argv = argv, .name = "disk", .address = "10.0.0.1:9"});
        cr_expect_eq(wait_change(&x), rows[k].to, "row %u: %s", k, x.reason);
        cr_expect(strstr(x.reason, rows[k].says), "row %u: %s", k, x.reason);
        cb_monitor_remove(x.m, k + 1);
    }
    /* it hangs, and so does what it has started: both are gone when the time is over */
    cb_health_opts short_time = quick;
    short_time.timeout_ms = 300;
    snprintf(text, sizeof text, "#!/bin/sh\nsleep 600 &\necho $! > %s\nwait\n", pid_file);
    script(path, text);
    add(&x, (cb_check){.kind = CB_CHECK_EXEC, .argv = argv, .name = "disk", .health = &short_time});
    cr_expect_eq(wait_change(&x), CB_HEALTH_DOWN);
    cr_expect_str_eq(x.reason, "no answer within 300 ms");
    cb_monitor_remove(x.m, 7);
    FILE *f = fopen(pid_file, "r");
    int pid = 0, alive = 1;
    cr_assert(f && fscanf(f, "%d", &pid) == 1 && pid > 1);
    fclose(f);
    for (int i = 0; i < 200 && alive; i++) {
        char stat[64], state = '?';
        cb_loop_step(x.w.loop);
        usleep(5000);
        snprintf(stat, sizeof stat, "/proc/%d/stat", pid);
        FILE *s = fopen(stat, "r");
        alive = s && fscanf(s, "%*d (sleep) %c", &state) == 1 && state != 'Z';
        if (s) fclose(s);
    }
    cr_expect(!alive, "%d lives", pid);
    unlink(path);
    unlink(pid_file);
    finish(&x);
}

/* A program that runs when the monitor, and the loop, go. */
Test(monitor, ends_while_checks_run) {
    watch x;
    const char *const argv[] = {"sleep", "600", NULL};
    begin(&x);
    add(&x, (cb_check){.id = 1, .kind = CB_CHECK_EXEC, .argv = argv});
    add(&x, (cb_check){.id = 2, .kind = CB_CHECK_TCP, .address = "192.0.2.1:80"});
    add(&x, (cb_check){.id = 3, .kind = CB_CHECK_HTTP, .address = "192.0.2.1:80"});
    add(&x, (cb_check){.id = 4, .kind = CB_CHECK_GRPC, .address = "192.0.2.1:80"});
    add(&x, (cb_check){.id = 5, .kind = CB_CHECK_ICMP, .address = "127.0.0.1"});
    for (int i = 0; i < 20; i++) {
        cb_loop_step(x.w.loop);
        usleep(1000);
    }
    finish(&x);
}

Test(monitor, echo_on_loopback) {
    static const char *const addresses[] = {"127.0.0.1", "::1", "localhost"};
    for (size_t i = 0; i < 3; i++) {
        watch x;
        begin(&x);
        add(&x, (cb_check){.kind = CB_CHECK_ICMP, .address = addresses[i]});
        const int to = wait_change(&x);
        if (to == CB_HEALTH_DOWN && strstr(x.reason, "no right")) {
            finish(&x);
            cr_skip_test("this process has no right to send ICMP");
        }
        cr_expect_eq(to, CB_HEALTH_UP, "%s: %s", addresses[i], x.reason);
        cr_expect(strstr(x.reason, "replied after"), "%s", x.reason);
        finish(&x);
    }
}

/* Three falls in a row: it is left out, and counted. */
Test(monitor, flaps_are_counted) {
    watch x;
    char path[SCRATCH_TEXT];
    begin(&x);
    close(scratch_file(path, sizeof path, "flap"));
    const char *const argv[] = {"sh", "-c", "test -e \"$0\"", path, NULL};
    const cb_health_opts o = {.size = sizeof o, .interval_ms = 20, .fast_interval_ms = 10, .rise = 1, .fall = 1};
    unlink(path);
    add(&x, (cb_check){.kind = CB_CHECK_EXEC, .argv = argv, .name = "f", .health = &o});
    cr_expect_eq(wait_change(&x), CB_HEALTH_DOWN);
    for (int i = 0; i < 3; i++) {
        script(path, "");
        cr_expect_eq(wait_change(&x), CB_HEALTH_UP, "%s", x.reason);
        unlink(path);
        cr_expect_eq(wait_change(&x), CB_HEALTH_DOWN);
    }
    script(path, "");
    cr_expect_eq(wait_change(&x), CB_HEALTH_DOWN, "the cause is another");
    cr_expect(strstr(x.reason, "too often"), "%s", x.reason);
    EXPECT_MOVED(x.w.metrics, 1, "cb_health_suppressions", "g", "f");
    cr_expect(strstr(x.w.log, "(for "), "%s", x.w.log);
    unlink(path);
    finish(&x);
}

Test(monitor, what_is_wrong_is_said) {
    static const char *const none[] = {NULL};
    static const struct {
        cb_check c;
        const char *says;
    } rows[] = {
        {{.id = 0, .kind = CB_CHECK_TCP, .address = "a:1"}, "id is 0"},
        {{.id = 1, .kind = 9, .address = "a:1"}, "kind 9"},
        {{.id = 1, .kind = CB_CHECK_TCP}, "address is missing"},
        {{.id = 1, .kind = CB_CHECK_TCP, .address = "a"}, "must be \"host:port\""},
        {{.id = 1, .kind = CB_CHECK_TCP, .address = "a:0"}, "port of 1 to 65535"},
        {{.id = 1, .kind = CB_CHECK_TCP, .address = "a:80x"}, "port of 1 to 65535"},
        {{.id = 1, .kind = CB_CHECK_TCP, .address = "::1:80"}, "brackets"},
        {{.id = 1, .kind = CB_CHECK_TCP, .address = "[::1:80"}, "without \"]\""},
        {{.id = 1, .kind = CB_CHECK_TCP, .address = ":80"}, "no host"},
        {{.id = 1, .kind = CB_CHECK_GRPC, .address = "unix:/x"}, "unix socket"},
        {{.id = 1, .kind = CB_CHECK_HTTP, .address = "a:1", .statuses = "2xx"}, "statuses \"2xx\""},
        {{.id = 1, .kind = CB_CHECK_HTTP, .address = "a:1", .statuses = "300-200"}, "statuses"},
        {{.id = 1, .kind = CB_CHECK_HTTP, .address = "a:1", .path = "x"}, "path \"x\""},
        {{.id = 1, .kind = CB_CHECK_HTTP, .address = "a:1", .path = "/a b"}, "path"},
        {{.id = 1, .kind = CB_CHECK_HTTP, .address = "a:1", .method = "GET /"}, "method"},
        {{.id = 1, .kind = CB_CHECK_HTTP, .address = "a:1", .host = "a b"}, "host \"a b\""},
        {{.id = 1, .kind = CB_CHECK_HTTP, .address = "a:1", .versions = CB_HTTP_3}, "HTTP/3 needs tls"},
        {{.id = 1, .kind = CB_CHECK_HTTP, .address = "a:1", .body = ""}, "body"},
        {{.id = 1, .kind = CB_CHECK_EXEC}, "no program"},
        {{.id = 1, .kind = CB_CHECK_EXEC, .argv = none}, "no program"},
    };
    watch x;
    begin(&x);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_check c = rows[i].c;
        c.size = sizeof c;
        cr_expect_eq(cb_monitor_add(x.m, &c), CB_EINVAL, "row %zu", i);
        cr_expect(strstr(cb_last_error(), rows[i].says), "row %zu: %s", i, cb_last_error());
        cr_expect_eq(cb_check_check(&c), CB_EINVAL);
    }
    const cb_check good = {.size = sizeof good, .id = 1, .kind = CB_CHECK_TCP, .address = "[::1]:80"};
    cr_expect_eq(cb_check_check(&good), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_monitor_add(x.m, &good), CB_OK);
    cr_expect_eq(cb_monitor_add(x.m, &good), CB_EEXIST);
    cr_expect_eq(cb_monitor_new(NULL, x.w.loop, NULL), CB_EINVAL);
    cr_expect_null(cb_check_kind_name(0));
    finish(&x);
}

/* ---- the wire ---- */

Test(monitor, grpc_messages) {
    static const uint8_t asked[] = {0, 0, 0, 0, 5, 0x0a, 3, 'w', 'e', 'b'};
    uint8_t out[CB_GRPC_REQUEST_MAX];
    cr_assert_eq(cb_grpc_health_request(out, "web"), sizeof asked);
    cr_expect_arr_eq(out, asked, sizeof asked);
    cr_expect_eq(cb_grpc_health_request(out, ""), 5);
    cr_expect_arr_eq(out, "\0\0\0\0\0", 5);
    static const struct {
        const char *bytes;
        size_t len;
        int rc;
        uint64_t serving;
    } rows[] = {{"\0\0\0\0\2\x08\1", 7, CB_OK, 1},
                {"\0\0\0\0\0", 5, CB_OK, 0}, /* proto3 leaves UNKNOWN out */
                {"\0\0\0\0\2\x08\2", 7, CB_OK, 2},
                {"\0\0\0\0\2\x08\x63", 7, CB_OK, 99},
                {"\0\0\0\0\x06\x12\2ab\x08\1", 11, CB_OK, 1}, /* a field that we do not know */
                {"\0\0\0\0\4\x08\2\x08\1", 9, CB_OK, 1},      /* the last one counts */
                {"\0\0\0\0\2\x08", 6, CB_EPROTO, 0},
                {"\0\0\0\0\1\x08", 6, CB_EPROTO, 0},
                {"\1\0\0\0\2\x08\1", 7, CB_EPROTO, 0},
                {"\0\0\0\0", 4, CB_EPROTO, 0},
                {"\0\0\0\0\2\0\1", 7, CB_EPROTO, 0},
                {"\0\0\0\0\3\x12\x7f"
                 "a",
                 8, CB_EPROTO, 0},
                {"\0\0\0\0\2\x0b\1", 7, CB_EPROTO, 0},
                {"\0\0\0\0\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\2", 16, CB_EPROTO, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t serving = 77;
        const cb_slice in = {(const uint8_t *)rows[i].bytes, rows[i].len};
        cr_expect_eq(cb_grpc_health_answer(&serving, in), rows[i].rc, "row %zu", i);
        if (rows[i].rc == CB_OK) cr_expect_eq(serving, rows[i].serving, "row %zu", i);
    }
    cr_expect_str_eq(cb_grpc_serving_name(2), "NOT_SERVING");
    cr_expect_eq(cb_grpc_status(cb_slice_str("16")), 16);
    cr_expect_eq(cb_grpc_status(cb_slice_str("17")), -1);
    cr_expect_eq(cb_grpc_status(cb_slice_str("")), -1);
    cr_expect_eq(cb_grpc_status(cb_slice_str("1x")), -1);
    cr_expect_str_eq(cb_grpc_status_name(12), "UNIMPLEMENTED");
}
