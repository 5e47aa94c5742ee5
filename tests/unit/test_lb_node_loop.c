/* Nodes on a loop: certificates, connections, the state file. */
#include "support/http_fixture.h"
#include <cb/lb_node.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct seen {
    uint64_t tables, states;
} seen;

static int on_table(cb_lb_node *n, const cb_lb_table *t, void *user) {
    (void)n;
    (void)t;
    ((seen *)user)->tables++;
    return CB_OK;
}

static void on_state(cb_lb_node *n, void *user) {
    (void)n;
    ((seen *)user)->states++;
}

static const cb_lb_node_ops ops = {.size = sizeof ops, .on_table = on_table, .on_state = on_state};
static const uint8_t key[CB_LB_KEY_BYTES] = "a table of tests";

typedef struct place { /* of the nodes of a test */
    http_world w;
    cb_identity *id[4]; /* by member; 3: of nobody */
    cb_lb_node_member members[2];
    cb_lb_node_opts o;
    seen seen[3];
    char port[64], state[160];
} place;

static void open_place(place *p) {
    memset(p, 0, sizeof *p);
    http_world_open(&p->w);
    p->id[1] = tls_pki_identity(&p->w.pki, "one.test,127.0.0.1");
    p->id[2] = tls_pki_identity(&p->w.pki, "two.test");
    p->id[3] = tls_pki_identity(&p->w.pki, "nobody.test");
    for (uint32_t i = 0; i < 2; i++)
        p->members[i] = (cb_lb_node_member){.size = sizeof p->members[0], .id = i + 1};
    p->members[0].peer = "one.test";
    p->members[1].peer = "two.test";
    p->members[0].control = "127.0.0.1:0";
    tls_pki_path(&p->w.pki, "state", p->state);
    p->o = (cb_lb_node_opts){.size = sizeof p->o,
                             .writer = 1,
                             .members = p->members,
                             .n_members = 2,
                             .key = key,
                             .ops = &ops,
                             .heartbeat_ms = 50,
                             .misses = 40,
                             .start_ms = 500,
                             .buckets = 251};
}

static void close_place(place *p) {
    for (int i = 1; i <= 3; i++)
        cb_identity_unref(p->id[i]);
    http_world_close(&p->w);
}

static cb_lb_node *node(place *p, uint32_t id, cb_identity *identity, const char *state) {
    cb_lb_node *n = NULL;
    cb_lb_node_opts o = p->o;
    o.id = id;
    o.identity = identity;
    o.state_file = state;
    o.user = &p->seen[id];
    cr_assert_eq(cb_lb_node_new(&n, p->w.loop, &o), CB_OK, "%s", cb_last_error());
    if (id == 1) {
        snprintf(p->port, sizeof p->port, "%s", cb_lb_node_address(n));
        p->members[0].control = p->port;
    }
    return n;
}

static cb_lb_node_stats stats(const cb_lb_node *n) {
    cb_lb_node_stats s = {.size = sizeof s};
    cr_assert_eq(cb_lb_node_stats_get(n, &s), CB_OK);
    return s;
}

static void past(cb_loop *loop, void *user) {
    (void)loop;
    *(int *)user = 1;
}

static void wait_ms(place *p, unsigned ms) {
    cb_timer *t = NULL;
    int over = 0;
    cr_assert_eq(cb_timer_start(&t, p->w.loop, ms, 0, past, &over), CB_OK);
    http_run(&p->w, &over);
    cb_timer_free(t);
}

static void wait_phase(place *p, const cb_lb_node *n, int phase) {
    for (int i = 0; i < 1000 && stats(n).phase != phase; i++)
        wait_ms(p, 10);
    cr_assert_eq(stats(n).phase, phase, "%s: %s", cb_lb_node_phase_name(stats(n).phase), stats(n).trouble);
}

Test(lb_node_loop, a_follower_gets_the_table_and_the_state_file_keeps_it) {
    place p;
    open_place(&p);
    cb_lb_node *one = node(&p, 1, p.id[1], p.state), *two = node(&p, 2, p.id[2], NULL);
    wait_phase(&p, two, CB_LB_NODE_FOLLOWING);
    for (int i = 0; i < 100 && (stats(two).members < 2 || stats(two).version != stats(one).version); i++)
        wait_ms(&p, 10);
    cr_expect_eq(stats(two).content, stats(one).content);
    cr_expect_gt(p.seen[2].tables, 0);
    cr_expect_gt(p.seen[1].states, 0);
    cr_expect_eq(cb_lb_node_drain(two, 1, 1), CB_ENOTSUP);
    cr_expect_eq(cb_lb_node_drain(one, 2, 1), CB_OK);
    for (int i = 0; i < 200 && stats(two).self != CB_LB_DRAINING; i++)
        wait_ms(&p, 10);
    cr_expect_eq(stats(two).self, CB_LB_DRAINING);
    const uint64_t version = stats(one).version;
    cb_lb_node_free(one);
    struct stat st;
    cr_assert_eq(stat(p.state, &st), 0);
    cr_expect_eq(st.st_mode & 0777, 0600);
    wait_phase(&p, two, CB_LB_NODE_ALONE);
    cr_expect_eq(stats(two).version, version);
    one = node(&p, 1, p.id[1], p.state); /* at another port: the follower is told by a reload */
    cr_expect_geq(stats(one).version, version);
    cr_assert_eq(cb_lb_node_members(two, p.members, 2), CB_OK, "%s", cb_last_error());
    wait_phase(&p, two, CB_LB_NODE_FOLLOWING);
    cr_expect_eq(stats(one).epoch, 2);
    cb_lb_node_info m = {.size = sizeof m};
    cr_assert_eq(cb_lb_node_member_get(one, 1, &m), CB_OK);
    cr_expect_eq(m.drained, 1);
    cb_lb_node_free(one);
    cb_lb_node_free(two);
    close_place(&p);
}

Test(lb_node_loop, only_certificates_of_members_speak) {
    place p;
    open_place(&p);
    cb_lb_node *one = node(&p, 1, p.id[1], p.state), *two = node(&p, 2, p.id[3], NULL);
    wait_ms(&p, 400);
    cr_expect_eq(stats(two).phase, CB_LB_NODE_JOINING);
    cr_expect(strstr(stats(two).trouble, "is not that of member 2"), "%s", stats(two).trouble);
    cr_expect_gt(stats(one).refused, 0);
    cr_expect(strstr(p.w.log, "is not that of member 2"), "%s", p.w.log);
    cb_lb_node_free(two);
    cb_lb_node_free(one);
    p.members[0].control = "127.0.0.1:0"; /* and only that of the writer gives records */
    one = node(&p, 1, p.id[3], p.state);
    two = node(&p, 2, p.id[2], NULL);
    wait_ms(&p, 400);
    cr_expect_eq(stats(two).phase, CB_LB_NODE_JOINING);
    cr_expect(strstr(stats(two).trouble, "is not that of the writer (one.test)"), "%s", stats(two).trouble);
    cr_expect_eq(stats(two).version, 0);
    cb_lb_node_free(two);
    p.members[0].peer = NULL; /* without a name, the host of the address counts */
    two = node(&p, 2, p.id[2], NULL);
    wait_ms(&p, 400);
    cr_expect_eq(stats(two).version, 0);
    cr_expect(strstr(stats(two).trouble, "127.0.0.1"), "%s", stats(two).trouble);
    cb_lb_node_free(two);
    cb_lb_node_free(one);
    close_place(&p);
}

Test(lb_node_loop, state_files_that_cannot_be_used) {
    place p;
    open_place(&p);
    FILE *f = fopen(p.state, "w");
    cr_assert(f);
    fputs("cbln but no state", f);
    fclose(f);
    cb_lb_node *n = NULL;
    cb_lb_node_opts o = p.o;
    o.id = 1;
    o.identity = p.id[1];
    o.state_file = p.state;
    o.user = &p.seen[1];
    chmod(p.state, 0644);
    cr_expect_eq(cb_lb_node_new(&n, p.w.loop, &o), CB_EPERM);
    cr_expect(strstr(cb_last_error(), "mode 644"), "%s", cb_last_error());
    chmod(p.state, 0600);
    cr_assert_eq(cb_lb_node_new(&n, p.w.loop, &o), CB_OK, "%s", cb_last_error());
    char bad[200];
    snprintf(bad, sizeof bad, "%s.bad", p.state);
    cr_expect_eq(access(bad, F_OK), 0);
    cr_expect(strstr(p.w.log, "is put aside"), "%s", p.w.log);
    cb_lb_node_free(n);
    o.state_file = NULL;
    cr_expect_eq(cb_lb_node_new(&n, p.w.loop, &o), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "state_file is needed on the writer"), "%s", cb_last_error());
    o.state_file = "/nowhere/at/all/state";
    cr_assert_eq(cb_lb_node_new(&n, p.w.loop, &o), CB_OK);
    wait_ms(&p, 700);
    cr_expect_eq(stats(n).phase, CB_LB_NODE_STARTING, "without its epoch on the disk it must not write");
    cr_expect(strstr(stats(n).trouble, "the state file cannot be written"), "%s", stats(n).trouble);
    cb_lb_node_free(n);
    o.identity = NULL;
    cr_expect_eq(cb_lb_node_new(&n, p.w.loop, &o), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "identity is needed"), "%s", cb_last_error());
    close_place(&p);
}

static int take_piece(cb_slice piece, void *user) {
    strncat(user, (const char *)piece.base, piece.len);
    return CB_OK;
}

Test(lb_node_loop, metrics_have_all_families) {
    static const char *const families[] = {"cb_lb_table_version",  "cb_lb_table_applied_version",
                                           "cb_lb_table_epoch",    "cb_lb_table_content",
                                           "cb_lb_node_phase",     "cb_lb_writer_contact_age_seconds",
                                           "cb_lb_buckets",        "cb_lb_members",
                                           "cb_lb_silent_members", "cb_lb_records",
                                           "cb_lb_whole_tables",   "cb_lb_refused_requests",
                                           "cb_lb_member_changes", "cb_lb_moved_buckets",
                                           "cb_lb_late_commits",   "cb_lb_waiting_buckets",
                                           "cb_lb_troubles"};
    place p;
    open_place(&p);
    cb_metrics *m = NULL;
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cb_lb_node *n = node(&p, 1, p.id[1], p.state);
    cr_assert_eq(cb_lb_node_metrics(n, m), CB_OK, "%s", cb_last_error());
    cr_expect_eq(cb_lb_node_metrics(n, m), CB_EEXIST);
    wait_phase(&p, n, CB_LB_NODE_WRITING);
    wait_ms(&p, 100);
    static char page[65536];
    *page = 0;
    cr_assert_eq(cb_metrics_render(m, CB_METRICS_TEXT, 0, take_piece, page), CB_OK);
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        cr_expect(strstr(page, families[i]), "%s", families[i]);
    cr_expect(strstr(page, "cb_lb_buckets{phase=\"stable\"} 251"), "%s", page);
    cr_expect(strstr(page, "cb_lb_members{state=\"absent\"} 1"));
    cr_expect(strstr(page, "cb_lb_node_phase{phase=\"writing\"} 1"));
    cb_lb_node_free(n);
    cb_metrics_unref(m);
    close_place(&p);
}
