/* What a process gives to its successor: the message, and what is refused. */
#include "support/scratch.h"
#include "transport/group_state.h"
#include "transport/handoff_int.h"
#include <cb/group.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static cb_handoff *make(void) {
    cb_handoff *h = NULL;
    cr_assert_eq(cb_handoff_new(&h), CB_OK);
    return h;
}

static void *send_it(void *user) {
    void **args = user;
    return (void *)(intptr_t)cb_handoff_send(args[0], (int)(intptr_t)args[1], 10000);
}

Test(handoff, bytes_and_descriptors_arrive) {
    enum { MANY = 450 }; /* more than one message of the kernel takes */
    int pair[2], pipes[2];
    void *args[2], *result = NULL;
    pthread_t thread;
    cb_handoff *h = make(), *got = NULL;
    static uint8_t large[900000];
    memset(large, 7, sizeof large);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert_eq(pipe(pipes), 0);
    cr_assert_eq(cb_handoff_put(h, "large", (cb_slice){large, sizeof large}), CB_OK);
    cr_assert_eq(cb_handoff_put(h, "empty", (cb_slice){NULL, 0}), CB_OK);
    cr_assert_eq(cb_handoff_put_fd(h, "large", pipes[1]), CB_OK);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(cb_handoff_put_fd(h, "many", i % 2 ? pipes[0] : pair[0]), CB_OK);
    args[0] = h;
    args[1] = (void *)(intptr_t)pair[0];
    cr_assert_eq(pthread_create(&thread, NULL, send_it, args), 0);
    cr_assert_eq(cb_handoff_receive(&got, pair[1], 10000), CB_OK, "%s", cb_last_error());
    pthread_join(thread, &result);
    cr_assert_eq((intptr_t)result, CB_OK);
    cb_handoff_free(h);

    cb_slice bytes;
    int32_t fds[MANY];
    cr_assert_eq(cb_handoff_get(got, "large", &bytes), CB_OK);
    cr_assert(bytes.len == sizeof large && !memcmp(bytes.base, large, bytes.len));
    cr_assert_eq(cb_handoff_get(got, "empty", &bytes), CB_OK);
    cr_assert_eq(bytes.len, 0);
    cr_assert_eq(cb_handoff_get(got, "many", &bytes), CB_ENOENT);
    cr_assert_eq(cb_handoff_fds(got, "many", fds, MANY), MANY);
    cr_assert_eq(cb_handoff_fds(got, "none", fds, MANY), 0);
    cr_assert_eq(cb_handoff_fds(got, "large", fds, 1), 1);
    cr_assert_eq(write(fds[0], "x", 1), 1); /* it is that pipe */
    char c = 0;
    cr_assert_eq(read(pipes[0], &c, 1), 1);
    cr_assert_eq(c, 'x');
    cb_handoff_free(got);
    for (int i = 0; i < 2; i++) {
        close(pair[i]);
        close(pipes[i]);
    }
}

Test(handoff, mistakes_of_the_caller) {
    static uint8_t big[CB_HANDOFF_BYTES];
    char name[CB_HANDOFF_NAME + 2];
    cb_handoff *h = make();
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    cr_expect_eq(cb_handoff_put(h, "a", (cb_slice){big, 1}), CB_OK);
    cr_expect_eq(cb_handoff_put(h, "a", (cb_slice){big, 1}), CB_EEXIST);
    cr_expect_eq(cb_handoff_put(h, "", (cb_slice){big, 1}), CB_EINVAL);
    cr_expect_eq(cb_handoff_put(h, NULL, (cb_slice){big, 1}), CB_EINVAL);
    cr_expect_eq(cb_handoff_put(h, name, (cb_slice){big, 1}), CB_EINVAL);
    cr_expect_eq(cb_handoff_put(h, "big", (cb_slice){big, sizeof big}), CB_ELIMIT);
    cr_expect_lt(cb_handoff_put_fd(h, "fd", -1), 0);
    cr_expect_eq(cb_handoff_new(NULL), CB_EINVAL);
    cb_handoff_free(h);
    cb_handoff_free(NULL);
}

/* What a stranger might write into the socket. */
Test(handoff, what_is_none_is_refused) {
    static const uint8_t good[] = "CBHANDOF\1\0\0\0\13\0\0\0\0\0\0\0\0\0\0\0\1\1\0\0\2\0\0\0abc";
    const size_t len = sizeof good - 1;
    static const struct {
        size_t at, cut;
        uint8_t value;
        int rc;
        const char *text;
    } rows[] = {
        {0, 0, 'C', CB_OK, ""},
        {0, 0, 'X', CB_EPROTO, "none"},
        {8, 0, 2, CB_EPROTO, "version 2"},
        {14, 0, 0xff, CB_EPROTO, "too many"}, /* bytes */
        {18, 0, 0xff, CB_EPROTO, "too many"}, /* descriptors */
        {16, 0, 1, CB_EPROTO, "descriptors"}, /* one that does not come */
        {23, 0, 1, CB_EPROTO, "too many"},    /* reserved */
        {24, 0, 3, CB_EPROTO, "understood"},  /* kind */
        {24, 0, 2, CB_EPROTO, "understood"},  /* a descriptor with bytes */
        {25, 0, 9, CB_EPROTO, "cut off"},     /* name */
        {25, 0, 0, CB_EPROTO, "names"},       /* no name, and then what looks like another entry */
        {26, 0, 1, CB_EPROTO, "understood"},  /* reserved */
        {28, 0, 3, CB_EPROTO, "cut off"},     /* bytes */
        {0, 1, 'C', CB_ECLOSED, "went away"}, /* and whoever ends in the middle */
        {0, 20, 'C', CB_ECLOSED, "went away"},
        {0, 35, 'C', CB_ECLOSED, "went away"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t bytes[sizeof good];
        int pair[2];
        cb_handoff *got = NULL;
        memcpy(bytes, good, sizeof good);
        bytes[rows[i].at] = rows[i].value;
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        cr_assert_eq(write(pair[0], bytes, len - rows[i].cut), (ssize_t)(len - rows[i].cut));
        if (rows[i].rc != CB_EPROTO || rows[i].at != 16) shutdown(pair[0], SHUT_WR);
        cr_expect_eq(cb_handoff_receive(&got, pair[1], 2000), rows[i].rc, "row %zu: %s", i, cb_last_error());
        if (rows[i].rc < 0) cr_expect(strstr(cb_last_error(), rows[i].text), "row %zu: %s", i, cb_last_error());
        cr_expect((rows[i].rc == CB_OK) == (got != NULL));
        cb_handoff_free(got);
        close(pair[0]);
        close(pair[1]);
    }
}

/* Sends n descriptors of one end of a pipe with `bytes`, and keeps none. Returns the other end. */
static int send_with_ends(int sock, const uint8_t *bytes, size_t len, size_t n) {
    enum { MOST = 4 };
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(MOST * sizeof(int))] = {0};
    int pipes[2], ends[MOST];
    struct iovec v = {(void *)(uintptr_t)bytes, len};
    struct msghdr m = {
        .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(n * sizeof(int))};
    cr_assert_eq(pipe2(pipes, O_CLOEXEC), 0);
    for (size_t i = 0; i < n; i++)
        ends[i] = pipes[1];
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(c), ends, n * sizeof(int));
    cr_assert_eq(sendmsg(sock, &m, 0), (ssize_t)len);
    close(pipes[1]);
    return pipes[0];
}

Test(handoff, descriptors_of_a_refused_one_are_closed) {
    /* one descriptor "a", three that come: only the first row says and names three */
    static const char entries[] = "\2\1\0\0\0\0\0\0a\2\1\0\0\0\0\0\0a\2\1\0\0\0\0\0\0a";
    enum { ENTRY = 9, HEAD = CB_HANDOFF_HEADER };
    static const struct {
        uint8_t says, names;
        size_t sent; /* bytes; 0 = all */
        char first;
        int rc;
    } rows[] = {{3, 3, 0, 'C', CB_OK},         {1, 1, 0, 'C', CB_EPROTO},        {3, 1, 0, 'C', CB_EPROTO},
                {4, 3, 0, 'C', CB_EPROTO},     {0, 0, 0, 'C', CB_EPROTO},        {3, 3, 0, 'X', CB_EPROTO},
                {3, 3, HEAD, 'C', CB_ECLOSED}, {3, 3, HEAD - 4, 'C', CB_ECLOSED}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t bytes[HEAD + 3 * ENTRY] = "CBHANDOF\1";
        const size_t body = (size_t)rows[i].names * ENTRY, len = rows[i].sent ? rows[i].sent : HEAD + body;
        int pair[2];
        int32_t fd = -1;
        cb_handoff *got = NULL;
        bytes[0] = (uint8_t)rows[i].first;
        bytes[12] = (uint8_t)body;
        bytes[16] = rows[i].says;
        memcpy(bytes + HEAD, entries, body);
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        int end = send_with_ends(pair[0], bytes, len, 3);
        shutdown(pair[0], SHUT_WR);
        cr_expect_eq(cb_handoff_receive(&got, pair[1], 2000), rows[i].rc, "row %zu: %s", i, cb_last_error());
        struct pollfd p = {.fd = end, .events = POLLIN};
        if (got) {
            cr_expect_eq(poll(&p, 1, 0), 0, "they are open while it lives");
            cr_expect(cb_handoff_fds(got, "a", &fd, 1) == 3 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
            cb_handoff_free(got);
        }
        close(pair[0]);
        close(pair[1]);
        cr_expect(poll(&p, 1, 0) == 1 && p.revents & POLLHUP, "row %zu: a descriptor stays open", i);
        close(end);
    }
}

Test(handoff, who_is_silent_is_not_waited_for_long) {
    int pair[2];
    cb_handoff *got = NULL, *h = make();
    static uint8_t large[1000000];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    cr_expect_eq(cb_handoff_receive(&got, pair[1], 20), CB_ETIMEOUT);
    cr_assert_eq(cb_handoff_put(h, "l", (cb_slice){large, sizeof large}), CB_OK);
    cr_expect_eq(cb_handoff_send(h, pair[0], 20), CB_ETIMEOUT);
    close(pair[1]);
    cr_expect_eq(cb_handoff_send(h, pair[0], 20), CB_ECLOSED);
    close(pair[0]);
    cb_handoff_free(h);
}

Test(handoff, groups_and_tickets_travel) {
    cb_group *a = NULL, *b = NULL;
    cb_tickets *t = NULL, *u = NULL;
    cb_handoff *h = make();
    cr_assert_eq(cb_group_new(&a, CB_OPTS(cb_group_opts, .workers = 2, .generation = 255, .server_id = "aabb01")),
                 CB_OK);
    cr_assert_eq(cb_tickets_new(&t, NULL), CB_OK);
    cr_assert_eq(cb_group_save(a, h, "g"), CB_OK);
    cr_assert_eq(cb_group_save(a, h, "g"), CB_EEXIST);
    cr_assert_eq(cb_tickets_save(t, h, "t"), CB_OK);
    cr_assert_eq(cb_group_new(&b, CB_OPTS(cb_group_opts, .workers = 5, .handoff = h, .handoff_name = "g")), CB_OK);
    cr_assert_eq(cb_group_generation(b), 0);
    cr_assert_eq(cb_group_workers(b), 5);
    cr_assert_eq(memcmp(&cb_group_keys_of(a)->cid, &cb_group_keys_of(b)->cid, sizeof(cb_quic_lb)), 0);
    cr_assert_eq(memcmp(cb_group_keys_of(a)->token, cb_group_keys_of(b)->token, 64), 0);
    cb_group_unref(b);
    cr_assert_eq(cb_tickets_new(&u, CB_OPTS(cb_tickets_opts, .handoff = h, .handoff_name = "t")), CB_OK);
    cb_handoff *again = make();
    cb_slice one, two;
    cr_assert_eq(cb_tickets_save(u, again, "t"), CB_OK);
    cb_handoff_get(h, "t", &one);
    cb_handoff_get(again, "t", &two);
    cr_assert(one.len == two.len && !memcmp(one.base, two.base, one.len));
    cb_tickets_unref(u);

    cr_expect_eq(cb_group_new(&b, CB_OPTS(cb_group_opts, .handoff = h, .handoff_name = "x")), CB_ENOENT);
    cr_expect_eq(cb_group_new(&b, CB_OPTS(cb_group_opts, .handoff = h, .handoff_name = "t")), CB_EPROTO);
    cr_expect_eq(cb_group_new(&b, CB_OPTS(cb_group_opts, .handoff = h)), CB_EINVAL);
    cr_expect_eq(cb_group_new(&b, CB_OPTS(cb_group_opts, .handoff = h, .handoff_name = "g", .predecessor = a)),
                 CB_EINVAL);
    cr_expect_eq(cb_tickets_new(&u, CB_OPTS(cb_tickets_opts, .handoff = h, .handoff_name = "g")), CB_EINVAL);
    cr_expect_eq(cb_tickets_new(&u, CB_OPTS(cb_tickets_opts, .handoff = h, .handoff_name = "none")), CB_OK);
    cb_tickets_unref(u);
    cb_tickets_unref(t);
    cb_group_unref(a);
    cb_handoff_free(h);
    cb_handoff_free(again);
}

/* The successor writes and reads the same connection IDs, and its state has the key. */
Test(handoff, encrypted_connection_ids_travel) {
    char path[SCRATCH_TEXT];
    int fd = scratch_file(path, sizeof path, "cid-key");
    cr_assert(write(fd, "0123456789abcdef", 16) == 16);
    close(fd);
    cb_group *a = NULL, *b = NULL, *c = NULL;
    cb_handoff *h = make();
    cr_assert_eq(
        cb_group_new(&a, CB_OPTS(cb_group_opts, .server_id = "aabb01", .server_id_config = 3, .cid_key_file = path)),
        CB_OK, "%s", cb_last_error());
    unlink(path);
    cr_assert_eq(cb_group_save(a, h, "g"), CB_OK);
    cr_assert_eq(cb_group_new(&b, CB_OPTS(cb_group_opts, .handoff = h, .handoff_name = "g")), CB_OK);
    cr_assert_eq(cb_group_new(&c, CB_OPTS(cb_group_opts, .predecessor = a)), CB_OK);
    const uint8_t nonce[16] = {1, 2, 3};
    uint8_t one[20], two[20];
    cb_quic_lb_info info;
    cr_assert_eq(cb_quic_lb_encode(&cb_group_keys_of(a)->cid, one, sizeof one, nonce, 1, 2), 19);
    cr_assert(memcmp(one + 1, "\xaa\xbb\x01", 3) != 0);
    cb_group *after[] = {b, c};
    for (int i = 0; i < 2; i++) {
        const cb_quic_lb *lb = &cb_group_keys_of(after[i])->cid;
        cr_assert_eq(cb_quic_lb_encode(lb, two, sizeof two, nonce, 1, 2), 19);
        cr_assert_eq(memcmp(one, two, 19), 0);
        cr_assert_eq(cb_quic_lb_decode(lb, (cb_slice){one, 19}, &info), CB_QUIC_LB_OURS);
        cr_assert(info.rotation == 3 && info.worker == 1 && info.generation == 2);
    }
    cb_group_unref(a);
    cb_group_unref(b);
    cb_group_unref(c);
    cb_handoff_free(h);
}

Test(handoff, a_group_of_another_form) {
    uint8_t good[CB_GROUP_STATE_HEAD + CB_GROUP_STATE_ROW] = {2, 3, 0, 8};
    static const struct {
        size_t at, len;
        uint8_t value;
    } rows[] = {{0, sizeof good, 1},   {3, sizeof good, 0},   {3, sizeof good, 16}, {2, sizeof good, 7},
                {120, sizeof good, 2}, {123, sizeof good, 1}, {0, 20, 2},           {0, sizeof good - 1, 2},
                {116, sizeof good, 3}, {116, sizeof good, 2}};
    good[120] = 1;
    cb_group_keys k;
    uint32_t n = 0;
    cb_slice all = {good, sizeof good};
    cr_assert_eq(cb_group_state_read(&k, &all, &n), CB_OK, "%s", cb_last_error());
    cr_assert(n == 1 && all.len == CB_GROUP_STATE_ROW && k.generation == 3);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint8_t bad[sizeof good];
        memcpy(bad, good, sizeof good);
        bad[rows[i].at] = rows[i].value;
        cb_slice in = {bad, rows[i].len};
        cr_expect_eq(cb_group_state_read(&k, &in, &n), CB_EPROTO, "row %zu", i);
    }
}
