/* What every public header promises alike: outputs, sizes, NULL, descriptors, signals, independent threads. */
#include "base/opts.h"
#include "support/http_fixture.h"
#include "support/scratch.h"
#include <cb.h>
#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- everything that makes something from options ---- */

typedef int (*maker)(void **out, cb_loop *loop, const void *opts);

static int make_loop(void **out, cb_loop *loop, const void *opts) {
    (void)loop;
    return cb_loop_new((cb_loop **)out, opts);
}
static int make_ca(void **out, cb_loop *loop, const void *opts) {
    (void)loop;
    return cb_ca_open((cb_ca **)out, opts);
}
static int make_identity(void **out, cb_loop *loop, const void *opts) {
    (void)loop;
    return cb_identity_new((cb_identity **)out, opts);
}
static int make_tickets(void **out, cb_loop *loop, const void *opts) {
    (void)loop;
    return cb_tickets_new((cb_tickets **)out, opts);
}
static int make_sessions(void **out, cb_loop *loop, const void *opts) {
    (void)loop;
    return cb_sessions_new((cb_sessions **)out, opts);
}
static int make_group(void **out, cb_loop *loop, const void *opts) {
    (void)loop;
    return cb_group_new((cb_group **)out, opts);
}
static int make_quic_lb(void **out, cb_loop *loop, const void *opts) {
    (void)loop;
    return cb_quic_lb_new((cb_quic_lb **)out, opts);
}
static int make_config(void **out, cb_loop *loop, const void *opts) {
    (void)loop;
    return cb_config_parse((cb_config **)out, opts, cb_slice_str("{}"), "text", NULL, NULL);
}
static int make_schema_text(void **out, cb_loop *loop, const void *opts) {
    (void)loop;
    return cb_config_schema_json((char **)out, opts);
}
static int make_resolver(void **out, cb_loop *loop, const void *opts) {
    return cb_resolver_new((cb_resolver **)out, loop, opts);
}
static int make_log(void **out, cb_loop *loop, const void *opts) {
    return cb_access_log_open((cb_access_log **)out, loop, opts);
}
static int make_listen(void **out, cb_loop *loop, const void *opts) {
    return cb_quic_listen((cb_quic_endpoint **)out, loop, "127.0.0.1:0", opts);
}
static int make_client(void **out, cb_loop *loop, const void *opts) {
    return cb_quic_client((cb_quic_endpoint **)out, loop, NULL, opts);
}
static int make_server(void **out, cb_loop *loop, const void *opts) {
    return cb_http_server_new((cb_http_server **)out, loop, opts);
}
static int make_http_client(void **out, cb_loop *loop, const void *opts) {
    return cb_http_client_new((cb_http_client **)out, loop, opts);
}
static int make_proxy(void **out, cb_loop *loop, const void *opts) {
    return cb_proxy_new((cb_proxy **)out, loop, opts);
}

static const struct {
    const char *name;
    maker make;
    size_t size;
    bool on_loop, optional; /* optional: works without options */
} makers[] = {
    {"cb_loop_opts", make_loop, sizeof(cb_loop_opts), false, true},
    {"cb_ca_opts", make_ca, sizeof(cb_ca_opts), false, false},
    {"cb_identity_opts", make_identity, sizeof(cb_identity_opts), false, true},
    {"cb_tickets_opts", make_tickets, sizeof(cb_tickets_opts), false, true},
    {"cb_sessions_opts", make_sessions, sizeof(cb_sessions_opts), false, true},
    {"cb_group_opts", make_group, sizeof(cb_group_opts), false, true},
    {"cb_quic_lb_opts", make_quic_lb, sizeof(cb_quic_lb_opts), false, false},
    {"cb_config_schema", make_config, sizeof(cb_config_schema), false, false},
    {"cb_config_schema", make_schema_text, sizeof(cb_config_schema), false, false},
    {"cb_resolver_opts", make_resolver, sizeof(cb_resolver_opts), true, true},
    {"cb_access_log_opts", make_log, sizeof(cb_access_log_opts), true, false},
    {"cb_quic_opts", make_listen, sizeof(cb_quic_opts), true, false},
    {"cb_quic_opts", make_client, sizeof(cb_quic_opts), true, false},
    {"cb_http_server_opts", make_server, sizeof(cb_http_server_opts), true, false},
    {"cb_http_client_opts", make_http_client, sizeof(cb_http_client_opts), true, true},
    {"cb_proxy_opts", make_proxy, sizeof(cb_proxy_opts), true, false},
};

static void refused(size_t row, const char *how, cb_loop *loop, const void *opts, int want, const char *word) {
    static char mark;
    void *out = &mark;
    cb_error_set(CB_OK, "");
    int rc = makers[row].make(&out, loop, opts);
    cr_expect_eq(rc, want, "%s (row %zu), %s: %s", makers[row].name, row, how, cb_strerror(rc));
    cr_expect(out == &mark, "%s (row %zu), %s: the output was written", makers[row].name, row, how);
    cr_expect(strstr(cb_last_error(), word), "%s (row %zu), %s: %s", makers[row].name, row, how, cb_last_error());
}

Test(api, makers_refuse_and_leave_the_output_alone) {
    cb_loop *loop = NULL;
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK, "loop");
    for (size_t i = 0; i < sizeof makers / sizeof *makers; i++) {
        union {
            size_t size;
            uint8_t bytes[1024];
        } o = {.size = 0};
        cr_assert_lt(makers[i].size + 16, sizeof o, "a larger buffer");
        cr_expect_eq(makers[i].make(NULL, loop, &o), CB_EINVAL, "%s (row %zu): no output", makers[i].name, i);
        cr_expect(strstr(cb_last_error(), "out is NULL"), "%s: %s", makers[i].name, cb_last_error());
        refused(i, "size 0", loop, &o, CB_EINVAL, makers[i].name);
        o.size = sizeof(size_t) - 1;
        refused(i, "size 7", loop, &o, CB_EINVAL, makers[i].name);
        o.size = makers[i].size + 16;
        o.bytes[makers[i].size + 15] = 1;
        refused(i, "unknown tail", loop, &o, CB_E2BIG, makers[i].name);
        o = (__typeof__(o)){.size = makers[i].size};
        if (makers[i].on_loop) refused(i, "no loop", NULL, &o, CB_EINVAL, "loop is NULL");
        if (makers[i].optional) continue;
        refused(i, "nothing set", loop, &o, CB_EINVAL, "");
        refused(i, "no options", loop, NULL, CB_EINVAL, "");
        cr_expect(*cb_last_error(), "%s: no detail", makers[i].name);
    }
    cb_loop_free(loop);
}

static void nothing(cb_loop *loop, void *user) {
    (void)loop;
    (void)user;
}

Test(api, missing_arguments_are_named) {
    cb_loop *loop = NULL;
    cb_timer *timer = NULL;
    cb_router *router = NULL;
    cb_http_client *client = NULL;
    cb_exchange *x = NULL;
    cb_config *config = NULL;
    static const cb_config_schema schema = {.size = sizeof schema};
    cb_request req = {.size = sizeof req};
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK, "loop");
    cr_assert_eq(cb_router_new(&router), CB_OK, "router");
    cr_assert_eq(cb_http_client_new(&client, loop, NULL), CB_OK, "client: %s", cb_last_error());
#define ROW(call, word)                                                                                                \
    do {                                                                                                               \
        cr_expect_eq(call, CB_EINVAL, #call);                                                                          \
        cr_expect(strstr(cb_last_error(), word), #call ": %s", cb_last_error());                                       \
    } while (0)
    ROW(cb_loop_run(NULL), "loop");
    ROW(cb_loop_step(NULL), "loop");
    ROW(cb_loop_post(NULL, nothing, NULL), "loop");
    ROW(cb_loop_post(loop, NULL, NULL), "fn");
    ROW(cb_loop_on_signal(NULL, SIGUSR1, nothing, NULL), "loop");
    ROW(cb_timer_start(NULL, loop, 1, 0, nothing, NULL), "out");
    ROW(cb_timer_start(&timer, NULL, 1, 0, nothing, NULL), "loop");
    ROW(cb_timer_start(&timer, loop, 1, 0, NULL, NULL), "fn");
    ROW(cb_router_new(NULL), "out");
    ROW(cb_router_group(NULL, NULL), "r is NULL");
    ROW(cb_router_group(router, NULL), "name");
    ROW(cb_router_origin(router, NULL, NULL), "group");
    ROW(cb_router_route(router, NULL), "group");
    ROW(cb_router_trust(router, NULL), "prefix");
    ROW(cb_http_request(NULL, client, &req, NULL, NULL), "out");
    ROW(cb_http_request(&x, NULL, &req, NULL, NULL), "c is NULL");
    ROW(cb_http_request(&x, client, NULL, NULL, NULL), "URL");
    ROW(cb_http_request(&x, client, &req, NULL, NULL), "URL");
    ROW(cb_http_request(&x, client, &req, &(cb_exchange_ops){0}, NULL), "cb_exchange_ops");
    ROW(cb_http_server_drain(NULL, 0), "server");
    ROW(cb_config_load(&config, &schema, NULL, NULL, NULL), "file");
    ROW(cb_identity_add(NULL, NULL), "id");
    ROW(cb_identity_reload(NULL), "id");
    ROW(cb_tickets_rotate(NULL, 0), "t is NULL");
    ROW(cb_sessions_flush(NULL), "s is NULL");
    ROW(cb_ca_issue(NULL, NULL, NULL, NULL), "ca");
    ROW(cb_ca_issue_pem(NULL, NULL, NULL, NULL), "ca");
    ROW(cb_ca_sign(NULL, (cb_slice){NULL, 0}, NULL, NULL), "ca");
    ROW(cb_ca_revoke(NULL, "00", 0), "ca");
    ROW(cb_ca_crl(NULL, 0, NULL), "ca");
    ROW(cb_ca_list(NULL, NULL, NULL), "ca");
#undef ROW
    cr_expect(!timer && !x && !config, "an output was written");
    cb_http_client_free(client);
    cb_router_unref(router);
    cb_loop_free(loop);
}

Test(api, freeing_nothing_is_fine) {
    cb_access_log_free(NULL);
    cb_ca_free(NULL);
    cb_ca_text_free(NULL);
    cb_config_unref(NULL);
    cb_config_text_free(NULL);
    cb_group_unref(NULL);
    cb_http_client_free(NULL);
    cb_http_server_free(NULL);
    cb_identity_unref(NULL);
    cb_lookup_cancel(NULL);
    cb_loop_free(NULL);
    cb_proxy_free(NULL);
    cb_quic_endpoint_free(NULL);
    cb_quic_lb_free(NULL);
    cb_resolver_free(NULL);
    cb_router_unref(NULL);
    cb_tickets_unref(NULL);
    cb_sessions_unref(NULL);
    cb_timer_free(NULL);
    cr_expect_eq(cb_error_set(CB_EUSER, NULL), CB_EUSER, "no detail is fine");
    cr_expect_str_empty(cb_last_error(), "%s", cb_last_error());
}

Test(api, callers_of_any_age_get_statistics) {
    typedef struct old_stats {
        size_t size;
        uint64_t a;
    } old_stats;
    typedef struct new_stats {
        size_t size;
        uint64_t a, b;
    } new_stats;
    const old_stats had = {.size = sizeof had, .a = 7};
    const new_stats has = {.size = sizeof has, .a = 7, .b = 8};
    old_stats old = {.size = sizeof old};
    new_stats fresh = {.size = sizeof fresh, .b = 99};
    cr_expect_eq(cb_stats_give(&old, &has, sizeof has, "s"), CB_OK, "an older caller");
    cr_expect(old.size == sizeof old && old.a == 7, "size %zu", old.size);
    cr_expect_eq(cb_stats_give(&fresh, &had, sizeof had, "s"), CB_OK, "a newer caller");
    cr_expect(fresh.size == sizeof had && fresh.a == 7 && fresh.b == 0, "size %zu", fresh.size);
    old.size = 0;
    cr_expect_eq(cb_stats_give(&old, &has, sizeof has, "s"), CB_EINVAL, "size 0");
    cr_expect_eq(cb_stats_give(NULL, &has, sizeof has, "s"), CB_EINVAL, "no output");
}

Test(api, tables_of_callbacks_need_their_size) {
    struct {
        cb_exchange_ops known;
        uint64_t more;
    } later = {.known = {.size = sizeof later}};
    cr_expect_eq(cb_ops_check(&later, sizeof later.known, "cb_exchange_ops"), CB_OK, "an unset tail");
    later.more = 1;
    cr_expect_eq(cb_ops_check(&later, sizeof later.known, "cb_exchange_ops"), CB_E2BIG, "a tail");
    later.known.size = sizeof later.known - 1;
    cr_expect_eq(cb_ops_check(&later, sizeof later.known, "cb_exchange_ops"), CB_EINVAL, "too small");
    cb_loop *loop = NULL;
    cb_http_server *srv = NULL;
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK, "loop");
    cb_http_server_opts o = {.size = sizeof o, .listen = "127.0.0.1:0", .ops = &later.known};
    cr_expect_eq(cb_http_server_new(&srv, loop, &o), CB_EINVAL, "%s", cb_last_error());
    cr_expect(!srv && strstr(cb_last_error(), "cb_exchange_ops"), "%s", cb_last_error());
    cb_loop_free(loop);
}

/* ---- what the process around it notices ---- */

/* A listening socket that is handed over is the server's only when the server came to be. */
/* A listening TCP socket and a UDP socket on one port that the kernel chose; false: another program had it for TCP. */
static bool both_on_one_port(int *tcp, int *udp, struct sockaddr_in *at) {
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof *at;
    *tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert(*tcp >= 0 && *udp >= 0 && bind(*udp, (struct sockaddr *)at, sizeof *at) == 0, "sockets");
    cr_assert_eq(getsockname(*udp, (struct sockaddr *)at, &len), 0, "name");
    if (bind(*tcp, (struct sockaddr *)at, sizeof *at) == 0 && listen(*tcp, 8) == 0) return true;
    close(*tcp);
    close(*udp);
    *tcp = *udp = -1;
    return false;
}

Test(api, a_failed_server_gives_the_socket_back) {
    char listen_at[32];
    http_world w;
    cb_http_server *srv = NULL;
    static const cb_exchange_ops ops = {.size = sizeof ops};
    http_world_open(&w);
    int tcp = -1, udp = -1;
    struct sockaddr_in at = {0};
    for (int tries = 0; tries < 20 && !both_on_one_port(&tcp, &udp, &at); tries++) {}
    cr_assert(tcp >= 0 && udp >= 0, "no port is free for both");
    snprintf(listen_at, sizeof listen_at, "127.0.0.1:%u", ntohs(at.sin_port));
    cb_http_server_opts o = {
        .size = sizeof o, .listen = listen_at, .identity = w.me, .ops = &ops, .tcp_fd = tcp}; /* UDP is taken */
    cr_expect_eq(cb_http_server_new(&srv, w.loop, &o), CB_EEXIST, "%s", cb_last_error());
    cr_expect(fcntl(tcp, F_GETFD) >= 0, "the socket was closed");
    close(udp);
    cr_expect_eq(cb_http_server_new(&srv, w.loop, &o), CB_OK, "%s", cb_last_error());
    cb_http_server_free(srv);
    cr_expect(fcntl(tcp, F_GETFD) < 0, "the server did not close its socket");
    http_world_close(&w);
}

/* Marks the descriptors that are open; or looks at those that are not marked, and returns how many. */
static int each_fd(uint8_t seen[1024], bool check) {
    DIR *d = opendir("/proc/self/fd");
    char path[64], target[256];
    int found = 0;
    cr_assert(d, "/proc/self/fd");
    for (struct dirent *e; (e = readdir(d));) {
        int fd = atoi(e->d_name);
        if (e->d_name[0] == '.' || fd == dirfd(d) || fd >= 1024) continue;
        if (!check) {
            seen[fd] = 1;
            continue;
        }
        if (seen[fd]) continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof target - 1);
        target[n < 0 ? 0 : n] = '\0';
        cr_expect(fcntl(fd, F_GETFD) & FD_CLOEXEC, "descriptor %d (%s) does not close on exec", fd, target);
        found++;
    }
    closedir(d);
    return found;
}

static void on_lookup(int rc, const cb_host_address *at, size_t n, void *user) {
    (void)rc;
    (void)at;
    (void)n;
    (void)user;
}

Test(api, every_descriptor_closes_on_exec) {
    uint8_t seen[1024] = {0};
    http_world w;
    cb_access_log *log = NULL, *standard = NULL;
    cb_resolver *resolver = NULL;
    cb_quic_endpoint *client = NULL;
    cb_group *group = NULL;
    char path[160];
    each_fd(seen, false);
    http_world_open(&w);
    cr_assert_eq(cb_group_new(&group, CB_OPTS(cb_group_opts, .workers = 2)), CB_OK, "group");
    http_serve(&w, (cb_http_server_opts){.identity = w.me, .group = group});
    http_client_make(&w, (cb_http_client_opts){0});
    for (uint32_t v = CB_HTTP_1; v <= CB_HTTP_3; v *= 2) { /* their connections are kept */
        http_reply r = {0};
        http_fetch(&r, &w, (cb_request){.versions = v}, "/hello");
        cr_assert_eq(r.status, 200, "version %u: %s", v, r.detail);
    }
    tls_pki_path(&w.pki, "access.log", path);
    cr_assert_eq(cb_access_log_open(&log, w.loop, CB_OPTS(cb_access_log_opts, .path = path)), CB_OK, "log");
    cr_assert_eq(cb_access_log_open(&standard, w.loop, CB_OPTS(cb_access_log_opts, .path = "-")), CB_OK, "log");
    cr_assert_eq(cb_resolver_new(&resolver, w.loop, CB_OPTS(cb_resolver_opts, .servers = "127.0.0.1:9")), CB_OK, "dns");
    cr_assert_eq(cb_resolver_lookup(NULL, resolver, "name.test", 0, on_lookup, NULL), CB_OK, "lookup");
    cr_assert_eq(cb_quic_client(&client, w.loop, "127.0.0.1:0", CB_OPTS(cb_quic_opts, .alpn = "x")), CB_OK, "client");
    cr_assert_eq(cb_loop_on_signal(w.loop, SIGUSR2, nothing, NULL), CB_OK, "signal");
    cr_assert_eq(cb_loop_step(w.loop), CB_OK, "step");
    int found = each_fd(seen, true);
    cr_expect_gt(found, 10, "only %d descriptors were opened", found);
    cb_quic_endpoint_free(client);
    cb_resolver_free(resolver);
    cb_access_log_free(standard);
    cb_access_log_free(log);
    http_world_close(&w);
    cb_group_unref(group);
}

Test(api, a_log_without_a_reader_raises_no_signal) {
    char path[SCRATCH_TEXT], fifo[SCRATCH_TEXT + 8];
    cb_loop *loop = NULL;
    cb_access_log *log = NULL;
    sigset_t pending, before, after;
    scratch_folder(path, sizeof path, "api");
    snprintf(fifo, sizeof fifo, "%s/fifo", path);
    cr_assert_eq(mkfifo(fifo, 0600), 0, "a fifo");
    int reader = open(fifo, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    cr_assert_eq(cb_loop_new(&loop, NULL), CB_OK, "loop");
    cr_assert_eq(cb_access_log_open(&log, loop, CB_OPTS(cb_access_log_opts, .path = fifo)), CB_OK, "%s",
                 cb_last_error());
    close(reader);
    pthread_sigmask(SIG_SETMASK, NULL, &before);
    cb_access_log_add(log, &(cb_access_record){.size = sizeof(cb_access_record), .status = 200});
    cb_access_log_free(log); /* writes: SIGPIPE would end the process */
    sigemptyset(&pending);
    sigpending(&pending);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    cr_expect(!sigismember(&pending, SIGPIPE), "SIGPIPE is left pending");
    cr_expect_eq(sigismember(&after, SIGPIPE), sigismember(&before, SIGPIPE), "the mask has changed");
    cb_loop_free(loop);
    unlink(fifo);
    rmdir(path);
}

/* ---- two threads that know nothing of each other ---- */

typedef struct one_thread {
    cb_identity *me, *roots; /* shared: they may be */
    cb_loop *loop;
    int done, good, bad_handle;
    char error[256];
} one_thread;

static int answer(cb_exchange *x, void *user) {
    one_thread *t = user;
    static const cb_exchange_ops unsized = {.size = 0};
    t->bad_handle = cb_exchange_handle(x, &unsized, user);
    return cb_exchange_send_text(x, 200, "hello\n");
}

static void fetched(cb_exchange *x, int rc, void *user) {
    one_thread *t = user;
    t->done++;
    if (rc == CB_OK && cb_exchange_status(x) == 200)
        t->good++;
    else
        snprintf(t->error, sizeof t->error, "%s: %s", cb_strerror(rc), cb_last_error());
    if (t->done == 3) cb_loop_stop(t->loop);
}

static void *serve_and_fetch(void *arg) {
    static const cb_exchange_ops server_ops = {.size = sizeof server_ops, .on_end = answer};
    static const cb_exchange_ops client_ops = {.size = sizeof client_ops, .on_close = fetched};
    one_thread *t = arg;
    cb_http_server *srv = NULL;
    cb_http_client *client = NULL;
    cb_exchange *x = NULL;
    char url[128];
    int rc = cb_loop_new(&t->loop, NULL);
    if (rc == CB_OK)
        rc = cb_http_server_new(
            &srv, t->loop,
            CB_OPTS(cb_http_server_opts, .listen = "127.0.0.1:0", .identity = t->me, .ops = &server_ops, .user = t));
    if (rc == CB_OK) rc = cb_http_client_new(&client, t->loop, CB_OPTS(cb_http_client_opts, .identity = t->roots));
    if (rc == CB_OK) snprintf(url, sizeof url, "https://%s/", cb_http_server_address(srv));
    for (uint32_t v = CB_HTTP_1; rc == CB_OK && v <= CB_HTTP_3; v *= 2)
        rc = cb_http_request(&x, client, CB_OPTS(cb_request, .url = url, .versions = v), &client_ops, t);
    if (rc == CB_OK) rc = cb_loop_run(t->loop);
    if (rc < 0) snprintf(t->error, sizeof t->error, "%s: %s", cb_strerror(rc), cb_last_error());
    cb_http_client_free(client);
    cb_http_server_free(srv);
    cb_loop_free(t->loop);
    return NULL;
}

Test(api, loops_of_two_threads_are_independent) {
    tls_pki pki;
    pthread_t id[2];
    tls_pki_make(&pki);
    cb_identity *me = tls_pki_identity(&pki, "127.0.0.1"), *roots = tls_pki_client(&pki);
    one_thread t[2] = {{.me = me, .roots = roots}, {.me = me, .roots = roots}};
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&id[i], NULL, serve_and_fetch, &t[i]), 0, "a thread");
    for (int i = 0; i < 2; i++)
        pthread_join(id[i], NULL);
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(t[i].good, 3, "thread %d: %d of %d: %s", i, t[i].good, t[i].done, t[i].error);
        cr_expect_eq(t[i].bad_handle, CB_EINVAL, "callbacks without a size: %d", t[i].bad_handle);
    }
    cb_identity_unref(me);
    cb_identity_unref(roots);
    tls_pki_drop(&pki);
}
