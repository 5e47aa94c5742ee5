#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(cid_steer, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "base/addr.h"
#include "lb/quic_lb.h"
#include <cb/xdp.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 4, NOWHERE = -1 };

static const uint8_t server_id[8] = "server-1";
static const uint8_t key[16] = "mask key 16 byt";

typedef struct site {
    cb_steering *steering;
    cb_quic_lb lb;
    cb_addr at;
    int worker[WORKERS], client;
} site;

static cb_steering *steering_or_skip(void) {
    cb_steering *s = NULL;
    int rc = cb_steering_new(&s, NULL);
    if (rc == CB_EPERM || rc == CB_ENOTSUP) cr_skip_test("%s", cb_last_error());
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    return s;
}

static int open_worker(cb_addr *at) {
    int on = 1;
    socklen_t len = sizeof *at;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), 0);
    cr_assert_eq(bind(fd, &at->sa, cb_addr_len(at)), 0);
    cr_assert_eq(getsockname(fd, &at->sa, &len), 0);
    return fd;
}

static void open_site_under(site *s, cb_steering *steering, uint32_t generation) {
    *s = (site){.steering = steering};
    cr_assert_eq(cb_addr_parse(&s->at, "127.0.0.1", 0), CB_OK);
    cr_assert_eq(cb_quic_lb_init(
                     &s->lb, CB_OPTS(cb_quic_lb_opts, .server_id = server_id, .server_id_bytes = 8, .mask_key = key)),
                 CB_OK);
    for (uint32_t w = 0; w < WORKERS; w++) {
        s->worker[w] = open_worker(&s->at);
        cr_assert_eq(cb_steering_add(s->steering, w, generation, s->worker[w], key), CB_OK, "%s", cb_last_error());
    }
    s->client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static void open_site(site *s, uint32_t generation) {
    open_site_under(s, steering_or_skip(), generation);
}

static void close_site(site *s) {
    for (int w = 0; w < WORKERS; w++)
        if (s->worker[w] >= 0) close(s->worker[w]);
    close(s->client);
    cb_steering_free(s->steering);
}

/* Sends a packet and says which of n sockets got it. */
static int lands_at(const site *s, const int *sockets, int n, const uint8_t *packet, size_t len) {
    struct pollfd p[8];
    char got[64];
    int found = NOWHERE;
    cr_assert_eq(sendto(s->client, packet, len, 0, &s->at.sa, cb_addr_len(&s->at)), (ssize_t)len);
    for (int i = 0; i < n; i++)
        p[i] = (struct pollfd){.fd = sockets[i], .events = POLLIN};
    cr_assert(poll(p, (nfds_t)n, 1000) == 1, "the packet went to none or to several");
    for (int i = 0; i < n; i++)
        if (p[i].revents) found = i;
    cr_assert_eq(recv(sockets[found], got, sizeof got, 0), (ssize_t)len);
    return found;
}

static size_t short_packet(const site *s, uint8_t *out, uint32_t nonce, uint32_t worker, uint32_t generation) {
    uint8_t n[8] = {0};
    memcpy(n, &nonce, sizeof nonce);
    memset(out, 0xaa, 40);
    out[0] = 0x40;
    cr_assert_eq(cb_quic_lb_encode(&s->lb, out + 1, CB_QUIC_LB_CID_MAX, n, worker, generation), 19);
    return 40;
}

static size_t long_packet(uint8_t *out, uint8_t first, const uint8_t *dcid, size_t dcid_len) {
    memset(out, 0xbb, 60);
    out[0] = first;
    memcpy(out + 1, "\0\0\0\1", 4);
    out[5] = (uint8_t)dcid_len;
    memcpy(out + 6, dcid, dcid_len);
    return 60;
}

Test(cid_steer, packets_go_to_the_owner_and_stay_when_another_leaves) {
    site s;
    uint8_t packet[64], handshake[64];
    int before[100];
    bool used[WORKERS] = {false};
    open_site(&s, 7);
    for (uint32_t i = 0; i < 200; i++) {
        size_t len = short_packet(&s, packet, i, i % WORKERS, 7);
        cr_assert_eq(lands_at(&s, s.worker, WORKERS, packet, len), (int)(i % WORKERS), "short header %u", i);
        len = long_packet(handshake, 0xe0, packet + 1, 19);
        cr_assert_eq(lands_at(&s, s.worker, WORKERS, handshake, len), (int)(i % WORKERS), "long header %u", i);
    }
    for (uint8_t i = 0; i < 100; i++) { /* Initial: the client's ID, of 8 to 20 bytes */
        const uint8_t dcid[20] = {0xff, i, 2, 3, 4, 5, 6, 7, 8};
        size_t len = long_packet(packet, 0xc0, dcid, 8 + i % 13);
        before[i] = lands_at(&s, s.worker, WORKERS, packet, len);
        used[before[i]] = true;
        int other = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0); /* the same ID from another port */
        site rebound = s;
        rebound.client = other;
        cr_assert_eq(lands_at(&rebound, s.worker, WORKERS, packet, len), before[i]);
        close(other);
    }
    for (int w = 0; w < WORKERS; w++)
        cr_expect(used[w], "no handshake for worker %d", w);

    close(s.worker[2]);
    int left[] = {s.worker[0], s.worker[1], s.worker[3]};
    static const int index[] = {0, 1, NOWHERE, 2};
    for (uint32_t i = 0; i < 200; i++) {
        size_t len = short_packet(&s, packet, i, i % WORKERS, 7);
        int at = lands_at(&s, left, 3, packet, len);
        if (i % WORKERS != 2) cr_assert_eq(at, index[i % WORKERS], "worker %u was moved", i % WORKERS);
    }
    for (uint8_t i = 0; i < 100; i++) {
        const uint8_t dcid[20] = {0xff, i, 2, 3, 4, 5, 6, 7, 8};
        size_t len = long_packet(packet, 0xc0, dcid, 8 + i % 13);
        int at = lands_at(&s, left, 3, packet, len);
        if (before[i] != 2) cr_assert_eq(at, index[before[i]], "handshake %d was moved", i);
    }
    cb_steering_stats st = {.size = sizeof st};
    /* Counters are kept for each processor; libbpf counts those in /sys, which bare containers lack. */
    if (access("/sys/devices/system/cpu/possible", R_OK) == 0) {
        cr_assert_eq(cb_steering_stats_get(s.steering, &st), CB_OK);
        cr_assert(st.by_cid == 400 + 150 && st.by_hash == 200 + 50 + 100 && st.gone == 50);
    } else {
        cr_assert_lt(cb_steering_stats_get(s.steering, &st), 0, "without /sys there is nothing to sum over");
    }
    s.worker[2] = NOWHERE;
    close_site(&s);
}

Test(cid_steer, what_is_no_packet_of_ours_still_arrives) {
    site s;
    uint8_t packet[64], cid[19];
    open_site(&s, 0);
    for (size_t len = 0; len <= 30; len++) { /* truncated anywhere */
        static const uint8_t firsts[] = {0x40, 0xc0, 0x00, 0xff};
        for (size_t i = 0; i < sizeof firsts; i++) {
            long_packet(packet, firsts[i], server_id, 8);
            lands_at(&s, s.worker, WORKERS, packet, len);
        }
    }
    for (int dcid_len = 0; dcid_len < 256; dcid_len++) {
        long_packet(packet, 0xc0, server_id, 8);
        packet[5] = (uint8_t)dcid_len;
        lands_at(&s, s.worker, WORKERS, packet, 60);
    }
    for (uint32_t g = 0; g < 256; g += 5) { /* of generations and workers that are not there */
        size_t len = short_packet(&s, packet, g, 1, g);
        int at = lands_at(&s, s.worker, WORKERS, packet, len);
        if (g == 0) cr_assert_eq(at, 1);
        len = short_packet(&s, packet, g, 200, 0);
        lands_at(&s, s.worker, WORKERS, packet, len);
    }
    for (int bit = 0; bit < 8; bit++) { /* another rotation is ours as well, 7 is not; another length never */
        short_packet(&s, packet, 5, 3, 0);
        memcpy(cid, packet + 1, 19);
        packet[1] ^= (uint8_t)(1 << bit);
        lands_at(&s, s.worker, WORKERS, packet, 40);
    }
    close_site(&s);
}

Test(cid_steer, a_successor_takes_over_the_new_and_leaves_the_old) {
    site s;
    uint8_t packet[64];
    int32_t fds[CB_STEERING_FDS];
    int all[WORKERS + 2];
    cb_steering *next = NULL;
    open_site(&s, 255); /* and the number wraps */
    cb_steering_fds(s.steering, fds);
    cr_assert_eq(cb_steering_new(&next, CB_OPTS(cb_steering_opts, .adopt_fds = fds)), CB_OK, "%s", cb_last_error());
    memcpy(all, s.worker, sizeof s.worker);
    cr_assert_eq(cb_steering_activate(next, 0), CB_EINVAL);
    cb_steering_hook hook = cb_steering_hook_of(next);
    for (uint32_t w = 0; w < 2; w++) {
        all[WORKERS + w] = open_worker(&s.at);
        cr_assert_eq(hook.add(w, 0, all[WORKERS + w], key, hook.user), CB_OK, "%s", cb_last_error());
    }
    for (int step = 0; step < 2; step++) {
        for (uint32_t i = 0; i < 40; i++) {
            const uint8_t dcid[8] = {(uint8_t)i};
            size_t len = long_packet(packet, 0xc0, dcid, 8);
            cr_assert_eq(lands_at(&s, all, 6, packet, len) >= WORKERS, step == 1, "new connection in step %d", step);
            len = short_packet(&s, packet, i, i % WORKERS, 255);
            cr_assert_eq(lands_at(&s, all, 6, packet, len), (int)(i % WORKERS));
            len = short_packet(&s, packet, i, i % 2, 0);
            cr_assert_eq(lands_at(&s, all, 6, packet, len), (int)(WORKERS + i % 2));
        }
        cr_assert_eq(cb_steering_activate(next, 0), CB_OK);
    }
    cb_steering_free(s.steering); /* the predecessor goes; what it attached stays */
    s.steering = next;
    for (int w = 0; w < WORKERS; w++) {
        close(s.worker[w]);
        s.worker[w] = NOWHERE;
    }
    for (uint32_t i = 0; i < 40; i++) {
        size_t len = short_packet(&s, packet, i, i % 2, 0);
        cr_assert_eq(lands_at(&s, all + WORKERS, 2, packet, len), (int)(i % 2));
        len = short_packet(&s, packet, i, i % WORKERS, 255);
        lands_at(&s, all + WORKERS, 2, packet, len);
    }
    /* Generation 4 takes the place of generation 0. */
    int later = open_worker(&s.at);
    cr_assert_eq(cb_steering_add(next, 0, 4, later, key), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_steering_activate(next, 4), CB_OK);
    cr_assert_eq(cb_steering_activate(next, 0), CB_EINVAL);
    int three[] = {all[4], all[5], later};
    size_t len = short_packet(&s, packet, 9, 0, 0);
    cr_assert_eq(lands_at(&s, three, 3, packet, len), 2); /* its owner is forgotten: by hash to the current one */
    close(later);
    close(all[4]);
    close(all[5]);
    close_site(&s);
}

Test(cid_steer, several_addresses_do_not_mix) {
    site a, b, more;
    uint8_t packet[64];
    int both[2 * WORKERS];
    open_site(&a, 3);
    open_site_under(&b, a.steering, 3);
    memcpy(both, a.worker, sizeof a.worker);
    memcpy(both + WORKERS, b.worker, sizeof b.worker);
    for (uint32_t i = 0; i < 40; i++) {
        size_t len = short_packet(&a, packet, i, i % WORKERS, 3);
        cr_assert_eq(lands_at(&a, both, 2 * WORKERS, packet, len), (int)(i % WORKERS));
        cr_assert_eq(lands_at(&b, both, 2 * WORKERS, packet, len), (int)(WORKERS + i % WORKERS));
        len = long_packet(packet, 0xc0, server_id, 8);
        cr_assert(lands_at(&a, both, 2 * WORKERS, packet, len) < WORKERS);
        cr_assert(lands_at(&b, both, 2 * WORKERS, packet, len) >= WORKERS);
    }
    for (int i = 0; i < 2 * CB_STEERING_ADDRESSES; i++) { /* the places of closed ones are used again */
        open_site_under(&more, a.steering, 3);
        size_t len = short_packet(&more, packet, 1, 2, 3);
        cr_assert_eq(lands_at(&more, more.worker, WORKERS, packet, len), 2);
        for (int w = 0; w < WORKERS; w++)
            close(more.worker[w]);
        close(more.client);
    }
    int full[CB_STEERING_ADDRESSES], rc = CB_OK, n = 0;
    for (n = 0; n < CB_STEERING_ADDRESSES && rc == CB_OK; n++) {
        cb_addr_parse(&more.at, "127.0.0.1", 0);
        full[n] = open_worker(&more.at);
        rc = cb_steering_add(a.steering, 0, 3, full[n], key);
    }
    cr_assert(rc == CB_ELIMIT && n == CB_STEERING_ADDRESSES - 1, "%d %d", rc, n);
    while (n--)
        close(full[n]);
    size_t len = short_packet(&a, packet, 77, 1, 3);
    cr_assert_eq(lands_at(&a, both, 2 * WORKERS, packet, len), 1);
    for (int w = 0; w < WORKERS; w++)
        close(b.worker[w]);
    close(b.client);
    close_site(&a);
}

Test(cid_steer, mistakes_are_named) {
    site s;
    cb_addr at;
    static const uint8_t other_key[16] = {1};
    open_site(&s, 1);
    cr_expect_eq(cb_steering_add(s.steering, 256, 1, s.worker[0], key), CB_EINVAL);
    cr_expect_eq(cb_steering_add(s.steering, 0, 256, s.worker[0], key), CB_EINVAL);
    cr_expect_eq(cb_steering_add(s.steering, 5, 1, s.worker[0], other_key), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "key"));
    cr_expect_eq(cb_steering_add(s.steering, 5, 1, s.worker[0], key), CB_EEXIST, "%s", cb_last_error());
    cr_expect_eq(cb_steering_add(s.steering, 5, 1, -1, key), CB_EINVAL, "%s", cb_last_error());
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    cr_expect_eq(cb_steering_add(s.steering, 5, 1, pipes[0], key), CB_EINVAL, "%s", cb_last_error());
    int plain = socket(AF_INET, SOCK_DGRAM, 0);
    cb_addr_parse(&at, "127.0.0.1", 0);
    cr_assert_eq(bind(plain, &at.sa, cb_addr_len(&at)), 0);
    cr_expect_eq(cb_steering_add(s.steering, 5, 1, plain, key), CB_EINVAL, "%s", cb_last_error());

    int32_t fds[CB_STEERING_FDS];
    cb_steering *t = NULL;
    cb_steering_fds(s.steering, fds);
    int32_t keep = fds[2];
    fds[2] = fds[1]; /* a map, but another */
    cr_expect_eq(cb_steering_new(&t, CB_OPTS(cb_steering_opts, .adopt_fds = fds)), CB_EINVAL);
    fds[2] = pipes[0];
    cr_expect_eq(cb_steering_new(&t, CB_OPTS(cb_steering_opts, .adopt_fds = fds)), CB_EINVAL);
    fds[2] = -1;
    cr_expect(cb_steering_new(&t, CB_OPTS(cb_steering_opts, .adopt_fds = fds)) < 0);
    fds[2] = keep;
    cr_expect_null(t);
    cb_steering_stats st = {.size = 1};
    cr_expect_eq(cb_steering_stats_get(s.steering, &st), CB_EINVAL);
    close(pipes[0]);
    close(pipes[1]);
    close(plain);
    close_site(&s);
    cb_steering_free(NULL);
}

Test(cid_steer, without_the_right_it_says_so) {
    if (geteuid() != 0) cr_skip_test("needs root, to become somebody else");
    pid_t child = fork();
    if (child == 0) {
        cb_steering *s = NULL;
        if (setresuid(65534, 65534, 65534) != 0) _exit(9);
        int rc = cb_steering_new(&s, NULL);
        _exit(rc == CB_EPERM && strstr(cb_last_error(), "CAP_BPF") ? 0 : 1 - rc);
    }
    int status = -1;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %x", status);
}

#endif
