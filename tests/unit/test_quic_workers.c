/* Several workers on one port: each packet finds the owner of its connection. */
#include "support/moved.h"
#include "support/quic_fixture.h"
#include "support/scratch.h"
#include "transport/quic_endpoint_int.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WORKERS = 2 };

typedef struct worker {
    pthread_t thread;
    pthread_barrier_t *all_stopped;
    qt_world w; /* of which only the loop and the server side are used */
    cb_quic_endpoint_stats stats;
} worker;

static void *run(void *user) {
    worker *k = user;
    cr_assert_eq(cb_loop_run(k->w.loop), CB_OK);
    k->stats = (cb_quic_endpoint_stats){.size = sizeof k->stats};
    cb_quic_endpoint_stats_get(k->w.server.endpoint, &k->stats);
    /* A worker that still runs would answer for one that is gone with a stateless reset, and rightly so. */
    pthread_barrier_wait(k->all_stopped);
    cb_quic_endpoint_free(k->w.server.endpoint);
    cb_loop_step(k->w.loop);
    cb_loop_free(k->w.loop);
    return NULL;
}

typedef struct service {
    qt_world w; /* the client's */
    worker k[WORKERS];
    pthread_barrier_t all_stopped;
    cb_group *group;
    cb_tickets *tickets;
} service;

static void start_with(service *s, const char *cid_key_file) {
    qt_world_make(&s->w);
    cr_assert_eq(cb_group_new(&s->group, CB_OPTS(cb_group_opts, .workers = WORKERS, .server_id = "e0e1e2e3",
                                                 .server_id_config = 5, .cid_key_file = cid_key_file)),
                 CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_tickets_new(&s->tickets, NULL), CB_OK);
    char listen[64] = "127.0.0.1:0";
    for (uint32_t i = 0; i < WORKERS; i++) {
        worker *k = &s->k[i];
        memset(k, 0, sizeof *k);
        cr_assert_eq(cb_loop_new(&k->w.loop, NULL), CB_OK);
        k->w.server = (qt_side){.w = &k->w, .echo = true, .take = SIZE_MAX};
        cb_quic_opts o = qt_server_opts(&s->w);
        o.user = &k->w.server;
        o.group = s->group;
        o.tickets = s->tickets;
        o.worker = i;
        int rc = cb_quic_listen(&k->w.server.endpoint, k->w.loop, listen, &o);
        cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
        snprintf(listen, sizeof listen, "%s", cb_quic_endpoint_local(k->w.server.endpoint));
    }
    strcpy(s->w.remote, listen);
    cb_quic_opts co = qt_client_opts(&s->w);
    qt_client_open(&s->w, &co);
    pthread_barrier_init(&s->all_stopped, NULL, WORKERS);
    for (int i = 0; i < WORKERS; i++)
        s->k[i].all_stopped = &s->all_stopped;
    for (int i = 0; i < WORKERS; i++)
        cr_assert_eq(pthread_create(&s->k[i].thread, NULL, run, &s->k[i]), 0);
}

static void start(service *s) {
    start_with(s, NULL);
}

static void stop(service *s) {
    for (int i = 0; i < WORKERS; i++)
        cb_loop_stop(s->k[i].w.loop);
    for (int i = 0; i < WORKERS; i++)
        pthread_join(s->k[i].thread, NULL);
    pthread_barrier_destroy(&s->all_stopped);
    qt_world_drop(&s->w);
    cb_group_unref(s->group);
    cb_tickets_unref(s->tickets);
}

static void migrate(const char *cid_key_file) {
    enum { SIZE = 300000, ROUNDS = 12 };
    static service s;
    uint64_t handed = 0;
    start_with(&s, cid_key_file);
    qt_connect(&s.w);
    cr_assert(qt_until(&s.w, &s.w.client.handshakes, 1), "%s", s.w.client.detail);
    for (int i = 0; i < ROUNDS; i++) { /* each new port has an even chance of the other worker's socket */
        qt_send(&s.w.client, SIZE);
        int rc = cb_quic_conn_migrate(s.w.client.conn, "127.0.0.1:0");
        cr_assert(rc == CB_OK || rc == CB_EAGAIN, "%s", cb_last_error());
        if (rc == CB_OK) cr_assert(qt_until(&s.w, &s.w.client.path_changes, s.w.client.path_changes + 1));
        cr_assert(qt_until(&s.w, &s.w.client.fins, i + 1), "round %d: %s", i, s.w.client.detail);
    }
    cr_assert_eq(s.w.client.closes, 0);
    stop(&s);
    for (int i = 0; i < WORKERS; i++) {
        handed += s.k[i].stats.handed_over;
        cr_assert_eq(s.k[i].stats.stateless_resets, 0);
    }
    cr_assert_gt(handed, 10, "%d; %d moves", (int)handed, s.w.client.path_changes);
    cr_assert_eq(s.k[0].stats.conns_total + s.k[1].stats.conns_total, 1);
}

Test(quic_workers, migrating_clients_reach_their_worker) {
    migrate(NULL);
}

Test(quic_workers, and_with_encrypted_connection_ids) {
    char path[SCRATCH_TEXT];
    int fd = scratch_file(path, sizeof path, "cid-key");
    cr_assert(write(fd, "0123456789abcdef", 16) == 16);
    close(fd);
    migrate(path);
    unlink(path);
}

Test(quic_workers, connections_from_many_ports) {
    enum { N = 24 };
    static service s;
    start(&s);
    cb_quic_endpoint *clients[N];
    cb_quic_opts co = qt_client_opts(&s.w);
    cb_quic_endpoint *first = s.w.client.endpoint;
    for (int i = 0; i < N; i++) {
        qt_client_open(&s.w, &co);
        clients[i] = s.w.client.endpoint;
        qt_connect(&s.w);
    }
    cr_assert(qt_until(&s.w, &s.w.client.handshakes, N), "%s", s.w.client.detail);
    s.w.client.endpoint = first;
    for (int i = 0; i < N; i++)
        cb_quic_endpoint_free(clients[i]);
    qt_turn(&s.w, 10);
    stop(&s);
    cr_assert_eq(s.k[0].stats.conns_total + s.k[1].stats.conns_total, N);
    cr_assert(s.k[0].stats.conns_total > 0 && s.k[1].stats.conns_total > 0);
}

/* Two workers on one loop, and a packet that the kernel gave to the wrong one. */
Test(quic_workers, a_stray_is_handed_over) {
    qt_world w;
    cb_group *g = NULL;
    qt_world_make(&w);
    cr_assert_eq(cb_group_new(&g, CB_OPTS(cb_group_opts, .workers = 3, .generation = 7)), CB_OK);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.group = g;
    qt_listen(&w, &so);
    qt_client_open(&w, &co);
    qt_connect(&w);
    cr_assert(qt_until(&w, &w.server.handshakes, 1));
    cb_quic_endpoint *other = NULL, *own = w.server.endpoint;
    cr_assert_eq(cb_quic_listen(&other, w.loop, w.remote, &so), CB_EEXIST, "worker 0 is there already");
    so.worker = 1;
    cr_assert_eq(cb_quic_listen(&other, w.loop, w.remote, &so), CB_OK, "%s", cb_last_error());
    /* one packet of the client, given to the other */
    uint8_t p[1500];
    cb_quic_train t;
    ep_conn *c = CB_CONTAINER(w.client.endpoint->conns.next, ep_conn, all);
    qt_send(&w.client, 500);
    cb_quic_core_write(&c->core, p, sizeof p, cb_loop_now(w.loop), &t);
    cr_assert_gt(t.len, 500);
    cb_datagram d = {.local = *cb_quic_endpoint_addr(own),
                     .remote = *cb_quic_endpoint_addr(w.client.endpoint),
                     .data = p,
                     .len = t.len};
    cb_quic_endpoint_packet(other, &other->main, &d);
    cr_assert_eq(w.server.bytes, 0);
    cb_quic_endpoint_stats s = {.size = sizeof s};
    cb_quic_endpoint_stats_get(other, &s);
    cr_assert_eq(s.handed_over, 1);
    cr_assert(qt_until_bytes(&w, &w.server.bytes, 500));
    cb_quic_endpoint_stats_get(other, &s); /* since the loop turned the kernel may have brought others of the client */
    EXPECT_MOVED(w.metrics, s.handed_over, "cb_quic_handed_over_packets", "out");
    EXPECT_MOVED(w.metrics, s.handed_over - own->inbox.count, "cb_quic_handed_over_packets", "in");
    cr_assert_eq(s.stateless_resets, 0);
    /* of a worker that is not there (3 are expected, 2 came): a reset. Of the process before: silence. Long ago: reset
     */
    static const struct {
        uint32_t worker, generation;
        int resets;
    } table[] = {{2, 7, 1}, {1, 7, 1}, {0, 6, 0}, {0, 5, 1}, {0, 8, 1}};
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        uint8_t nonce[16] = {(uint8_t)i};
        memset(p, 0x55, 100);
        p[0] = 0x40;
        cr_assert_gt(cb_quic_lb_encode(&own->keys->cid, p + 1, 20, nonce, table[i].worker, table[i].generation), 0);
        d.len = 100;
        cb_quic_endpoint_stats_get(other, &s);
        uint64_t before = s.stateless_resets;
        cb_quic_endpoint_packet(other, &other->main, &d);
        cb_quic_endpoint_stats_get(other, &s);
        cr_assert_eq(s.stateless_resets - before, (uint64_t)table[i].resets, "row %zu", i);
    }
    /* the inbox is bounded */
    const uint64_t handed = s.handed_over - own->inbox.count;
    p[0] = 0x40;
    cb_quic_lb_encode(&own->keys->cid, p + 1, 20, p + 40, 0, 7);
    for (int i = 0; i < CB_INBOX_MAX + 500; i++)
        cb_quic_endpoint_packet(other, &other->main, &d);
    cr_assert_eq(own->inbox.count, CB_INBOX_MAX);
    cb_quic_endpoint_stats_get(other, &s);
    cr_assert_eq(s.handed_over, handed + CB_INBOX_MAX);
    for (int i = 0; i < 1000 && own->inbox.count; i++)
        qt_turn(&w, 1);
    cr_assert_eq(own->inbox.count, 0);
    /* and may be full when its endpoint goes */
    cb_quic_endpoint_packet(other, &other->main, &d);
    cb_quic_endpoint_free(own);
    w.server.endpoint = NULL;
    cb_quic_endpoint_packet(other, &other->main, &d);
    cb_quic_endpoint_free(other);
    qt_world_drop(&w);
    cb_group_unref(g);
}

Test(quic_workers, group_options) {
    cb_group *g = NULL, *h = NULL;
    tls_pki pki;
    tls_pki_make(&pki); /* for its folder */
    char path[160], open_path[160], short_path[160];
    tls_pki_path(&pki, "secret", path);
    tls_pki_path(&pki, "open", open_path);
    tls_pki_path(&pki, "short", short_path);
    FILE *f = fopen(open_path, "w");
    fputs("0123456789abcdef0123456789abcdef", f);
    fclose(f);
    chmod(open_path, 0644);
    f = fopen(short_path, "w");
    fputs("0123", f);
    fclose(f);
    chmod(short_path, 0600);
    const struct {
        cb_group_opts o;
        int rc;
        const char *detail;
    } table[] = {
        {{.workers = 257}, CB_EINVAL, "workers"},
        {{.generation = 256}, CB_EINVAL, "generation"},
        {{.server_id_config = 7}, CB_EINVAL, "server_id_config"},
        {{.server_id = ""}, CB_EINVAL, "server_id"},
        {{.server_id = "abc"}, CB_EINVAL, "server_id"},
        {{.server_id = "zz"}, CB_EINVAL, "server_id"},
        {{.server_id = "00112233445566778899aabbcc"}, CB_EINVAL, "server_id"},
        {{.secret_file = open_path}, CB_EINVAL, "chmod"},
        {{.secret_file = short_path}, CB_EINVAL, "32 bytes"},
        {{.secret_file = "/nowhere/at/all"}, CB_ENOENT, "/nowhere/at/all"},
        {{.cid_key_file = open_path}, CB_EINVAL, "cid_key_file"},
        {{.cid_key_file = short_path}, CB_EINVAL, "16 bytes"},
        {{.cid_key_file = "/nowhere/at/all"}, CB_ENOENT, "/nowhere/at/all"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        cb_group_opts o = table[i].o;
        o.size = sizeof o;
        cr_assert_eq(cb_group_new(&g, &o), table[i].rc, "row %zu: %s", i, cb_last_error());
        cr_assert(strstr(cb_last_error(), table[i].detail) != NULL, "row %zu: %s", i, cb_last_error());
        cr_assert_null(g);
    }
    /* one that died while it made the file, and had the number that this process has */
    char left[200];
    snprintf(left, sizeof left, "%s.%ld", path, (long)getpid());
    close(open(left, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    /* two processes with one file have the same keys, without it other ones */
    cr_assert_eq(cb_group_new(&g, CB_OPTS(cb_group_opts, .secret_file = path, .server_id = "0a0B")), CB_OK);
    cr_assert_eq(cb_group_new(&h, CB_OPTS(cb_group_opts, .secret_file = path, .server_id = "0a0B")), CB_OK);
    cr_assert_eq(memcmp(cb_group_keys_of(g), cb_group_keys_of(h), sizeof(cb_group_keys)), 0);
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    cr_assert_eq(st.st_size, 32);
    cb_group_unref(h);
    cr_assert_eq(cb_group_new(&h, NULL), CB_OK);
    cr_assert_neq(memcmp(cb_group_keys_of(g)->reset, cb_group_keys_of(h)->reset, 32), 0);
    cr_assert_neq(memcmp(cb_group_keys_of(g)->reset, cb_group_keys_of(g)->token, 32), 0);
    cb_group_unref(cb_group_ref(g));
    cb_group_unref(g);
    cb_group_unref(h);
    cb_group_unref(NULL);
    tls_pki_drop(&pki);
}

static int steer(uint32_t worker, uint32_t generation, int fd, const uint8_t key[16], void *user) {
    int *calls = user;
    cr_assert_eq(worker, 0);
    cr_assert_eq(generation, 9);
    cr_assert_geq(fd, 0);
    cr_assert_not_null(key);
    return ++*calls == 1 ? CB_OK : CB_EPERM;
}

Test(quic_workers, steering_in_the_kernel_is_asked_for) {
    int calls = 0;
    cb_steering_hook hook = {.size = sizeof hook, .add = steer, .user = &calls};
    qt_world w;
    cb_group *g = NULL;
    qt_world_make(&w);
    cr_assert_eq(cb_group_new(&g, CB_OPTS(cb_group_opts, .generation = 9, .steering = &hook)), CB_OK);
    for (int i = 0; i < 2; i++) { /* the second time the kernel refuses: it works all the same */
        cb_quic_opts so = qt_server_opts(&w);
        so.group = g;
        qt_listen(&w, &so);
        cb_quic_endpoint_stats s = {.size = sizeof s};
        cb_quic_endpoint_stats_get(w.server.endpoint, &s);
        cr_assert_eq(s.steering, i == 0);
        cr_assert_eq(calls, i + 1);
        cb_quic_endpoint_free(w.server.endpoint);
        w.server.endpoint = NULL;
    }
    hook.add = NULL;
    cb_group *bad = NULL;
    cr_assert_eq(cb_group_new(&bad, CB_OPTS(cb_group_opts, .steering = &hook)), CB_EINVAL);
    qt_world_drop(&w);
    cb_group_unref(g);
}
