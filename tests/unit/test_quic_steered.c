/* Workers that share a port: every connection lives on after its client has moved to another port. */
#include "support/quic_fixture.h"
#include <criterion/criterion.h>
#include <string.h>
#ifdef CB_HAVE_XDP
#include <cb/xdp.h>
#endif

enum { WORKERS = 4, CONNS = 16 };

typedef struct outcome {
    uint64_t handed_over, resets;
    int steered, busy_workers;
} outcome;

static void echo_everywhere(qt_world *w, cb_quic_conn **conns, int fins) {
    for (int i = 0; i < CONNS; i++) {
        int64_t stream = -1;
        cr_assert_eq(cb_quic_stream_open(conns[i], 1, &stream), CB_OK, "%s", cb_last_error());
        cr_assert_eq(cb_quic_stream_write(conns[i], stream, cb_slice_str("where are you?"), 1), 14);
    }
    cr_assert(qt_until(w, &w->client.fins, fins), "%d of %d answers", w->client.fins, fins);
}

static outcome move_all(const cb_steering_hook *hook) {
    qt_world w;
    cb_group *group = NULL;
    cb_quic_endpoint *server[WORKERS] = {NULL};
    cb_quic_conn *conns[CONNS];
    outcome out = {0};

    qt_world_make(&w);
    cr_assert_eq(cb_group_new(&group, CB_OPTS(cb_group_opts, .workers = WORKERS, .generation = 9, .steering = hook)),
                 CB_OK);
    cb_quic_opts so = qt_server_opts(&w), co = qt_client_opts(&w);
    so.group = group;
    qt_listen(&w, &so);
    server[0] = w.server.endpoint;
    for (uint32_t i = 1; i < WORKERS; i++) {
        so.worker = i;
        cr_assert_eq(cb_quic_listen(&server[i], w.loop, w.remote, &so), CB_OK, "%s", cb_last_error());
    }
    qt_client_open(&w, &co);
    for (int i = 0; i < CONNS; i++) {
        qt_connect(&w);
        conns[i] = w.client.conn;
        cb_loop_step(w.loop); /* each first packet by itself: in one train they would all go where the first goes */
    }
    cr_assert(qt_until(&w, &w.client.handshakes, CONNS), "%s", w.client.detail);
    echo_everywhere(&w, conns, CONNS);
    for (int round = 1; round <= 2; round++) {
        for (int i = 0; i < CONNS; i++) {
            int rc = CB_EAGAIN;
            for (int tries = 0; tries < 100 && rc == CB_EAGAIN; tries++) {
                rc = cb_quic_conn_migrate(conns[i], "127.0.0.1:0");
                if (rc == CB_EAGAIN) qt_turn(&w, 2);
            }
            cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
        }
        echo_everywhere(&w, conns, (round + 1) * CONNS);
    }
    for (int i = 0; i < WORKERS; i++) {
        cb_quic_endpoint_stats st = {.size = sizeof st};
        cr_assert_eq(cb_quic_endpoint_stats_get(server[i], &st), CB_OK);
        out.handed_over += st.handed_over;
        out.resets += st.stateless_resets;
        out.steered += st.steering;
        out.busy_workers += st.conns_total > 0;
    }
    cr_assert_eq(w.client.closes, 0);
    for (int i = 1; i < WORKERS; i++)
        cb_quic_endpoint_free(server[i]);
    qt_world_drop(&w);
    cb_group_unref(group);
    return out;
}

Test(quic_steered, in_user_space_strays_are_handed_over) {
    outcome o = move_all(NULL);
    cr_assert(o.steered == 0 && o.resets == 0);
    cr_assert(o.handed_over > 0, "the kernel's hash found every owner by chance?");
}

Test(quic_steered, in_the_kernel_there_are_no_strays) {
#ifdef CB_HAVE_XDP
    cb_steering *s = NULL;
    int rc = cb_steering_new(&s, NULL);
    if (rc == CB_EPERM || rc == CB_ENOTSUP) cr_skip_test("%s", cb_last_error());
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    cb_steering_hook hook = cb_steering_hook_of(s);
    outcome o = move_all(&hook);
    cr_assert(o.steered == WORKERS && o.resets == 0);
    cr_assert_eq(o.handed_over, 0, "%llu packets went astray", (unsigned long long)o.handed_over);
    cr_assert(o.busy_workers > 1, "one port of a client, one worker: IDs were not hashed");
    cb_steering_free(s);
#else
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
#endif
}
