/* cb_http_server on unix sockets: the path's life, its mode, and who is at the other end. */
#include "loop/unix.h"
#include "support/http_fixture.h"
#include "support/scratch.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct place {
    cb_loop *loop;
    cb_http_server *srv;
    char folder[40], path[64], listen[72];
    cb_unix_peer peer; /* what the server saw */
    uint32_t groups[64];
    char remote[16];
    int rc, seen;
} place;

static int on_end(cb_exchange *x, void *user) {
    place *p = user;
    p->seen++;
    p->peer = (cb_unix_peer){.size = sizeof p->peer};
    p->rc = cb_exchange_unix_peer(x, &p->peer, p->groups, 64);
    snprintf(p->remote, sizeof p->remote, "%s", cb_exchange_remote(x));
    return cb_exchange_send_text(x, 200, "hello\n");
}

static const cb_exchange_ops ops = {.size = sizeof ops, .on_end = on_end};

static void place_open(place *p) {
    *p = (place){0};
    scratch_folder(p->folder, sizeof p->folder, "unix");
    snprintf(p->path, sizeof p->path, "%s/s", p->folder);
    snprintf(p->listen, sizeof p->listen, "unix:%s", p->path);
    cr_assert_eq(cb_loop_new(&p->loop, NULL), CB_OK);
}

static int serve(place *p, cb_http_server **out, cb_http_server_opts o) {
    o.size = sizeof o;
    o.ops = &ops;
    o.user = p;
    if (!o.listen) o.listen = p->listen;
    return cb_http_server_new(out, p->loop, &o);
}

static void place_close(place *p) {
    cb_http_server_free(p->srv);
    cb_loop_free(p->loop);
    unlink(p->path);
    cr_expect_eq(rmdir(p->folder), 0, "%s: something was left there", p->folder);
}

static int dial(const char *path) {
    struct sockaddr_un at;
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(cb_unix_addr(&at, path), CB_OK);
    if (connect(fd, (const struct sockaddr *)&at, sizeof at) == 0) return fd;
    close(fd);
    return -errno;
}

static void ask(place *p, char *out, size_t cap) {
    static const char text[] = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    const int fd = dial(p->path);
    size_t got = 0;
    cr_assert_geq(fd, 0, "%s: %s", p->path, strerror(-fd));
    cr_assert_eq(write(fd, text, sizeof text - 1), (ssize_t)sizeof text - 1);
    out[0] = '\0';
    for (int i = 0; i < 2000 && !strstr(out, "hello\n"); i++) {
        cb_loop_step(p->loop);
        const ssize_t n = recv(fd, out + got, cap - 1 - got, MSG_DONTWAIT);
        if (n > 0) got += (size_t)n;
        out[got] = '\0';
        usleep(200);
    }
    close(fd);
}

static ino_t number(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_ino : 0;
}

Test(http_unix, serves_and_knows_who_asks) {
    place p;
    char text[512];
    struct stat st;
    place_open(&p);
    cr_assert_eq(serve(&p, &p.srv, (cb_http_server_opts){0}), CB_OK, "%s", cb_last_error());
    cr_expect_str_eq(cb_http_server_address(p.srv), p.listen);
    cr_assert_eq(lstat(p.path, &st), 0);
    cr_expect(S_ISSOCK(st.st_mode) && (st.st_mode & 07777) == 0600, "mode %o", st.st_mode);
    ask(&p, text, sizeof text);
    cr_expect(strstr(text, "200 OK"), "%s", text);
    cr_assert_eq(p.rc, CB_OK, "%s", cb_last_error());
    cr_expect_eq(p.peer.uid, getuid());
    cr_expect_eq(p.peer.gid, getgid());
    cr_expect_eq(p.peer.pid, (uint32_t)getpid());
    gid_t mine[64];
    const int n = getgroups(64, mine);
    cr_expect_eq((int)p.peer.n_groups, n);
    for (int i = 0; i < n; i++)
        cr_expect_eq(p.groups[i], mine[i]);
    cr_expect_str_eq(p.remote, "unix");
    cb_http_server_free(p.srv);
    p.srv = NULL;
    cr_expect_eq(number(p.path), 0, "the path was left");
    place_close(&p);
}

/* What the path may hold, and what becomes of it. */
Test(http_unix, path_and_its_mistakes) {
    place p;
    char text[512], longest[120] = "unix:/tmp/";
    memset(longest + 10, 'x', 95);
    place_open(&p);
    const cb_http_server_opts rows[] = {
        {.listen = "unix:"},
        {.listen = "unix:@abstract"},
        {.listen = "unix:relative"},
        {.listen = longest},
        {.versions = CB_HTTP_3},
        {.unix_mode = 01777},
        {.listen = "unix:/no-such-folder/s"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_http_server *srv = NULL;
        const int rc = serve(&p, &srv, rows[i]);
        cr_expect_eq(rc, i == 6 ? CB_ENOENT : CB_EINVAL, "row %zu: %d %s", i, rc, cb_last_error());
        cr_expect_null(srv);
    }
    close(open(p.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    const ino_t file = number(p.path);
    cr_expect_eq(serve(&p, &p.srv, (cb_http_server_opts){.unix_replace = 1}), CB_EEXIST, "a file was replaced");
    cr_expect_eq(number(p.path), file, "the file is gone");
    unlink(p.path);

    const int stale = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); /* what a process that was killed leaves */
    struct sockaddr_un at;
    cr_assert_eq(cb_unix_addr(&at, p.path), CB_OK);
    cr_assert_eq(bind(stale, (const struct sockaddr *)&at, sizeof at), 0);
    close(stale);
    cr_assert_eq(serve(&p, &p.srv, (cb_http_server_opts){.unix_mode = 0660}), CB_OK, "%s", cb_last_error());
    ask(&p, text, sizeof text);
    cr_expect(strstr(text, "200 OK"), "%s", text);
    struct stat st;
    cr_expect(lstat(p.path, &st) == 0 && (st.st_mode & 07777) == 0660, "mode %o", st.st_mode);
    place_close(&p);
}

Test(http_unix, a_live_path_is_taken_over_only_when_told) {
    place p;
    cb_http_server *next = NULL;
    char text[512];
    place_open(&p);
    cr_assert_eq(serve(&p, &p.srv, (cb_http_server_opts){0}), CB_OK, "%s", cb_last_error());
    const ino_t first = number(p.path);
    cr_expect_eq(serve(&p, &next, (cb_http_server_opts){0}), CB_EEXIST, "%s", cb_last_error());
    cr_expect_eq(number(p.path), first);
    cr_assert_eq(serve(&p, &next, (cb_http_server_opts){.unix_replace = 1}), CB_OK, "%s", cb_last_error());
    cr_expect_neq(number(p.path), first);
    cb_http_server_free(p.srv); /* leaves the path alone: it is its successor's */
    p.srv = next;
    ask(&p, text, sizeof text);
    cr_expect(strstr(text, "200 OK"), "%s", text);
    place_close(&p);
}

/* The listening socket itself goes to a successor, as a handoff does; who yields leaves the path. */
Test(http_unix, a_socket_is_handed_over) {
    place p;
    cb_http_server *next = NULL;
    char text[512];
    int32_t fd = -1;
    place_open(&p);
    cr_assert_eq(serve(&p, &p.srv, (cb_http_server_opts){0}), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_http_server_fds(p.srv, &fd, 1), 1);
    fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    cr_assert_eq(serve(&p, &next, (cb_http_server_opts){.fds = &fd, .n_fds = 1}), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_http_server_yield(p.srv, 100), CB_OK);
    cb_http_server_free(p.srv);
    p.srv = next;
    ask(&p, text, sizeof text);
    cr_expect(strstr(text, "200 OK"), "%s", text);
    const int tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_expect_eq(serve(&p, &next, (cb_http_server_opts){.fds = &tcp, .n_fds = 1}), CB_EINVAL, "a TCP socket");
    close(tcp);
    place_close(&p);
}

/* In `processes`: a child of another user connects. */
Test(processes, http_unix_of_another_user) {
    place p;
    int status = 0;
    if (getuid() != 0) cr_skip_test("needs root, to become somebody else");
    place_open(&p);
    cr_assert_eq(chmod(p.folder, 0755), 0);
    cr_assert_eq(serve(&p, &p.srv, (cb_http_server_opts){.unix_mode = 0666}), CB_OK, "%s", cb_last_error());
    const pid_t child = fork();
    if (child == 0) {
        static const char question[] = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        const gid_t groups[] = {4001, 4002, 4003};
        char out[512];
        if (setgroups(3, groups) != 0 || setgid(4000) != 0 || setuid(4000) != 0) _exit(2);
        const int fd = dial(p.path);
        if (fd < 0 || write(fd, question, sizeof question - 1) < 0) _exit(3);
        _exit(read(fd, out, sizeof out) > 0 ? 0 : 4);
    }
    for (int i = 0; i < 5000 && waitpid(child, &status, WNOHANG) == 0; i++) {
        cb_loop_step(p.loop);
        usleep(200);
    }
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child: %x", status);
    cr_expect_eq(p.seen, 1);
    cr_expect_eq(p.peer.uid, 4000);
    cr_expect_eq(p.peer.gid, 4000);
    cr_expect_eq(p.peer.n_groups, 3);
    cr_expect(p.groups[0] == 4001 && p.groups[2] == 4003);
    place_close(&p);
}
