/* Nodes of a PoP: who writes, how the log travels, who is alive. */
#include "base/siphash.h"
#include "support/lb_pop.h"

Test(lb_node, hosts_of_a_pop_come_to_one_table) {
    pop *p = pop_started(6, &(cb_lb_node_opts){0});
    pop_settle(p, 5000);
    cb_lb_node_stats w = pop_stats(p, 1), f = pop_stats(p, 4);
    cr_expect_eq(w.phase, CB_LB_NODE_WRITING);
    cr_expect_eq(f.phase, CB_LB_NODE_FOLLOWING);
    cr_expect_eq(w.members, 6);
    cr_expect_eq(w.unowned, 0);
    cr_expect_eq(f.content, w.content);
    cr_expect_eq(f.applied, w.version);
    cr_expect_eq(w.epoch, 1);
    cr_expect_str_empty(w.trouble);
    for (uint32_t id = 1; id <= 6; id++) {
        cb_lb_node_info m = pop_info(p, 1, id);
        cr_expect(m.first == POP_BUCKETS / 6 || m.first == POP_BUCKETS / 6 + 1, "member %u has %u", id, m.first);
        cr_expect_eq(m.acked, w.version);
        cr_expect_str_empty(m.trouble);
    }
    pop_free(p);
}

Test(lb_node, a_silent_member_dies_and_has_to_be_back_for_a_while) {
    pop *p = pop_started(4, &(cb_lb_node_opts){.rise_ms = 500});
    pop_off(p, 3);
    pop_run(p, 500);
    cr_expect_eq(pop_info(p, 1, 3).state, CB_LB_UP, "dead too early");
    pop_run(p, 500);
    cr_expect_eq(pop_info(p, 1, 3).state, CB_LB_DEAD);
    cr_expect_eq(pop_info(p, 1, 3).first, 0);
    cr_expect_eq(pop_stats(p, 1).deaths, 1);
    cr_expect(pop_said(p, "member 3 has been silent for"));
    pop_start(p, 3);
    pop_run(p, 300);
    cr_expect_eq(pop_info(p, 1, 3).state, CB_LB_DEAD, "back too early");
    pop_run(p, 1000);
    cr_expect_eq(pop_info(p, 1, 3).state, CB_LB_UP);
    cr_expect_eq(pop_stats(p, 1).rises, 1);
    pop_off(p, 3); /* a second time: twice as long */
    pop_run(p, 1000);
    pop_start(p, 3);
    pop_run(p, 900);
    cr_expect_eq(pop_info(p, 1, 3).state, CB_LB_DEAD, "a member that flaps is back too early");
    pop_run(p, 1000);
    cr_expect_eq(pop_info(p, 1, 3).state, CB_LB_UP);
    pop_settle(p, 20000);
    pop_free(p);
}

Test(lb_node, a_writer_that_is_cut_off_declares_nobody_dead) {
    pop *p = pop_started(6, &(cb_lb_node_opts){0});
    for (uint32_t id = 2; id <= 6; id++)
        p->cut[1][id] = p->cut[id][1] = true;
    pop_run(p, 5000);
    cr_expect_eq(pop_stats(p, 1).deaths, 0);
    cr_expect_eq(pop_stats(p, 1).silent, 5);
    cr_expect(pop_said(p, "likely this host that is cut off"));
    cr_expect_eq(pop_stats(p, 4).phase, CB_LB_NODE_ALONE);
    cr_expect_gt(pop_stats(p, 4).contact_ms, 4000);
    cr_expect_eq(pop_stats(p, 4).unowned, 0, "a follower goes on with its table");
    for (uint32_t id = 2; id <= 6; id++)
        p->cut[1][id] = p->cut[id][1] = false;
    pop_run(p, 3000);
    cr_expect_eq(pop_stats(p, 1).silent, 0);
    cr_expect_str_empty(pop_stats(p, 1).trouble);
    cr_expect_eq(pop_stats(p, 4).phase, CB_LB_NODE_FOLLOWING);
    pop_settle(p, 1000);
    pop_free(p);
}

Test(lb_node, health_checks_cannot_kill_more_than_the_share) {
    pop *p = pop_started(6, &(cb_lb_node_opts){0});
    for (uint32_t id = 2; id <= 6; id++)
        cr_assert_eq(cb_lb_core_state(p->host[1].core, id, CB_LB_DEAD, 0, p->now), CB_OK);
    pop_run(p, 2000);
    unsigned dead = 0;
    for (uint32_t id = 2; id <= 6; id++)
        dead += pop_info(p, 1, id).state == CB_LB_DEAD;
    cr_expect_eq(dead, 3);
    cr_assert_eq(cb_lb_core_state(p->host[1].core, 2, CB_LB_UP, 10, p->now), CB_OK);
    pop_run(p, 5000);
    cr_expect_eq(pop_info(p, 1, 2).table_weight, 10, "slow start: %u", pop_info(p, 1, 2).table_weight);
    cr_expect_eq(cb_lb_core_state(p->host[2].core, 1, CB_LB_UP, 0, p->now), CB_ENOTSUP);
    cr_expect(strstr(cb_last_error(), "member 1 (x:1) is the writer"), "%s", cb_last_error());
    cr_expect_eq(cb_lb_core_state(p->host[1].core, 9, CB_LB_UP, 0, p->now), CB_ENOENT);
    pop_free(p);
}

Test(lb_node, an_operators_wishes_outlive_the_writer) {
    pop *p = pop_started(3, &(cb_lb_node_opts){0});
    cb_lb_core *w = p->host[1].core;
    cr_assert_eq(cb_lb_core_drain(w, 2, 1, p->now), CB_OK);
    cr_assert_eq(cb_lb_core_weight(w, 3, 300, p->now), CB_OK);
    cr_assert_eq(cb_lb_core_weight(w, 3, 70000, p->now), CB_EINVAL);
    pop_run(p, 3000);
    pop_kill(p, 1);
    pop_run(p, 200);
    pop_start(p, 1);
    pop_run(p, 3000);
    cr_expect_eq(pop_stats(p, 1).epoch, 2);
    cr_expect_eq(pop_info(p, 1, 2).state, CB_LB_DRAINING);
    cr_expect_eq(pop_info(p, 1, 2).drained, 1);
    cr_expect_eq(pop_info(p, 1, 3).table_weight, 300);
    cr_assert_eq(cb_lb_core_drain(p->host[1].core, 2, 0, p->now), CB_OK);
    cr_assert_eq(cb_lb_core_weight(p->host[1].core, 3, 0, p->now), CB_OK);
    pop_run(p, 3000);
    cr_expect_eq(pop_info(p, 1, 2).state, CB_LB_UP);
    cr_expect_eq(pop_info(p, 1, 3).table_weight, 100);
    pop_settle(p, 5000);
    pop_free(p);
}

Test(lb_node, a_host_that_stops_is_drained) {
    pop *p = pop_started(3, &(cb_lb_node_opts){0});
    cb_lb_core_leave(p->host[2].core, 1, p->now);
    pop_run(p, 1000);
    cr_expect_eq(pop_info(p, 1, 2).state, CB_LB_DRAINING);
    cr_expect_eq(pop_info(p, 1, 2).stops, 1);
    cb_lb_core_leave(p->host[2].core, 0, p->now);
    cb_lb_core_load(p->host[2].core, 420);
    pop_run(p, 1000);
    cr_expect_eq(pop_info(p, 1, 2).state, CB_LB_UP);
    cr_expect_eq(pop_info(p, 1, 2).load, 420);
    pop_free(p);
}

Test(lb_node, a_writer_without_its_disk_goes_on_from_the_newest_of_the_others) {
    pop *p = pop_started(4, &(cb_lb_node_opts){0});
    pop_settle(p, 3000);
    const uint64_t content = p->host[3].path->content;
    pop_off(p, 1);
    free(p->host[1].disk);
    p->host[1].disk = NULL;
    p->host[1].disk_len = 0;
    pop_start(p, 1);
    pop_run(p, 3000);
    cr_expect(pop_said(p, "goes on from that of member"), "%s", p->log);
    cr_expect_eq(pop_stats(p, 1).epoch, 2);
    cr_expect_eq(p->host[1].path->content, content, "buckets moved for nothing");
    pop_settle(p, 3000);
    pop_free(p);
}

/* A request of a host that has version 7 of epoch 3, with its table or without. */
static void ahead(pop *p, uint32_t id, cb_slice table) {
    cb_buf out;
    pop_mail m = {.from = id};
    cb_buf_init(&out, &cb_alloc_libc, 1 << 20);
    const cb_lb_ask a = {.id = id,
                         .writer = 1,
                         .buckets = POP_BUCKETS,
                         .epoch = p->host[2].path->epoch,
                         .version = p->host[2].path->version,
                         .chain = p->host[2].path->chain,
                         .instance = id,
                         .key_check = p->host[1].core->key_check,
                         .table = table};
    cr_assert_eq(cb_lb_ask_write(&out, &a), CB_OK);
    cb_lb_core_asked(p->host[1].core, cb_buf_slice(&out), "somebody", pop_hold(p, &m), p->now);
    cb_buf_free(&out);
}

Test(lb_node, a_writer_waits_for_the_table_that_it_has_asked_for) {
    pop *p = pop_started(3, &(cb_lb_node_opts){0});
    uint8_t *saved;
    size_t len;
    pop_settle(p, 3000);
    cr_assert_eq(cb_lb_table_save(p->host[2].path, &saved, &len), CB_OK);
    for (uint32_t id = 1; id <= 3; id++)
        pop_off(p, id);
    cr_assert_eq(cb_lb_table_load(p->host[2].path, (cb_slice){saved, len}), CB_OK);
    free(p->host[1].disk);
    p->host[1].disk = NULL;
    p->host[1].disk_len = 0;
    pop_start(p, 1);
    ahead(p, 2, (cb_slice){NULL, 0});
    ahead(p, 3, (cb_slice){NULL, 0}); /* now all were heard */
    pop_run(p, 100);
    cr_expect_eq(pop_stats(p, 1).phase, CB_LB_NODE_STARTING, "it began without the table of the others");
    ahead(p, 2, (cb_slice){saved, len});
    pop_run(p, 100);
    cr_expect_eq(pop_stats(p, 1).phase, CB_LB_NODE_WRITING);
    cr_expect_eq(p->host[1].path->content, p->host[2].path->content);
    cb_lb_table_saved_free(saved);
    pop_free(p);
}

/* Who has the key could else use all epochs up, and nobody would ever write again. */
Test(lb_node, a_table_of_another_epoch_than_was_claimed_is_not_gone_on_from) {
    pop *p = pop_started(3, &(cb_lb_node_opts){0});
    uint8_t *saved;
    size_t len;
    pop_settle(p, 3000);
    cr_assert_eq(cb_lb_table_save(p->host[2].path, &saved, &len), CB_OK);
    for (uint32_t id = 1; id <= 3; id++)
        pop_off(p, id);
    cr_assert_eq(cb_lb_table_load(p->host[2].path, (cb_slice){saved, len}), CB_OK);
    free(p->host[1].disk);
    p->host[1].disk = NULL;
    p->host[1].disk_len = 0;
    pop_start(p, 1);
    cb_lb_put(saved + 12, UINT32_MAX, 4);
    cb_lb_put(saved + len - 8, cb_siphash(p->host[1].core->key, saved, len - 8), 8);
    ahead(p, 2, (cb_slice){saved, len});
    cr_expect(pop_said(p, "that of member 2 cannot be used"), "%s", p->log);
    pop_run(p, 10000);
    cr_expect_eq(pop_stats(p, 1).phase, CB_LB_NODE_WRITING);
    cr_expect_leq(pop_stats(p, 1).epoch, 3);
    cb_lb_table_saved_free(saved);
    pop_free(p);
}

Test(lb_node, an_old_state_rises_above_the_epoch_of_the_others) {
    pop *p = pop_started(3, &(cb_lb_node_opts){.start_ms = 300});
    uint8_t *old = malloc(p->host[1].disk_len);
    const size_t old_len = p->host[1].disk_len;
    memcpy(old, p->host[1].disk, old_len);
    for (int i = 0; i < 3; i++) { /* epochs 2 to 4 */
        pop_kill(p, 1);
        pop_start(p, 1);
        pop_run(p, 2000);
    }
    pop_kill(p, 1);
    free(p->host[1].disk);
    p->host[1].disk = old;
    p->host[1].disk_len = old_len;
    cb_lb_table_free(p->host[1].path); /* the whole host was set back */
    cr_assert_eq(cb_lb_table_new(&p->host[1].path, CB_OPTS(cb_lb_table_opts, .key = pop_key)), CB_OK);
    p->cut[2][1] = p->cut[1][2] = p->cut[3][1] = p->cut[1][3] = true;
    pop_start(p, 1); /* it hears nobody until it writes */
    pop_run(p, 1500);
    cr_expect_eq(pop_stats(p, 1).epoch, 2);
    p->cut[2][1] = p->cut[1][2] = p->cut[3][1] = p->cut[1][3] = false;
    pop_run(p, 5000);
    cr_expect_geq(pop_stats(p, 1).epoch, 5);
    pop_settle(p, 5000);
    cr_expect(pop_said(p, "begins anew above it"));
    pop_free(p);
}

Test(lb_node, a_follower_that_diverged_takes_a_whole_table) {
    pop *p = pop_started(3, &(cb_lb_node_opts){0});
    pop_settle(p, 3000);
    cb_lb_table *t = p->host[2].core->t;
    t->chain ^= 1; /* another history of the same length */
    cb_lb_core_weight(p->host[1].core, 3, 200, p->now);
    pop_run(p, 3000);
    cr_expect_geq(pop_stats(p, 2).tables, 1);
    pop_settle(p, 3000);
    cr_expect_str_empty(pop_stats(p, 2).trouble);
    pop_free(p);
}

Test(lb_node, a_follower_starts_from_its_disk_while_the_writer_is_away) {
    pop *p = pop_started(3, &(cb_lb_node_opts){0});
    pop_run(p, 3000);
    pop_kill(p, 1);
    pop_off(p, 2);
    pop_start(p, 2);
    cr_expect_eq(pop_stats(p, 2).phase, CB_LB_NODE_JOINING);
    cr_expect_eq(pop_stats(p, 2).contact_ms, UINT64_MAX);
    cr_expect_eq(p->host[2].path->version, 0, "what is on the disk is older than what a datapath may have");
    pop_run(p, 1000);
    cr_expect_gt(p->host[2].path->version, 0);
    cr_expect_eq(pop_stats(p, 2).unowned, 0);
    pop_start(p, 1);
    pop_run(p, 2000);
    pop_settle(p, 3000);
    pop_free(p);
}

static cb_lb_node_opts own(pop *p, uint32_t id) {
    cb_lb_node_opts o = p->o;
    o.id = id;
    return o;
}

/* Each mistake in a configuration has words of its own, on both sides. */
Test(lb_node, hosts_that_do_not_fit_are_told_why) {
    static const uint8_t other[CB_LB_KEY_BYTES] = "a key of others";
    pop *p = pop_started(3, &(cb_lb_node_opts){0});
    struct {
        const char *words;
        cb_lb_node_opts o;
    } cases[] = {{"has another key than the writer", own(p, 3)},
                 {"is configured for 127 buckets, the writer for 251", own(p, 3)},
                 {"takes 2 for the writer, but 1 asks to be it", own(p, 3)},
                 {"the writer has no member 7 in its configuration", own(p, 7)}};
    cb_lb_node_member more[4];
    memcpy(more, p->members, 3 * sizeof more[0]);
    more[3] = (cb_lb_node_member){.size = sizeof more[0], .id = 7};
    cases[0].o.key = other;
    cases[1].o.buckets = 127;
    cases[2].o.writer = 2;
    cases[3].o.members = more;
    cases[3].o.n_members = 4;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (p->host[3].core) pop_kill(p, 3);
        p->host[3].disk_len = 0;
        pop_run(p, 1000);
        pop_hush(p);
        cr_assert_eq(pop_try(p, 3, &cases[i].o), CB_OK, "%s", cb_last_error());
        pop_run(p, 500);
        cb_lb_node_stats f = pop_stats(p, 3);
        cr_expect_eq(f.phase, CB_LB_NODE_REFUSED, "%zu", i);
        cr_expect(strstr(f.trouble, cases[i].words), "%s", f.trouble);
        char line[160];
        snprintf(line, sizeof line, "1: forwarding table: host3 was refused: member %u %s", cases[i].o.id,
                 cases[i].words);
        cr_expect(pop_said(p, i < 3 ? line : "1: forwarding table: host3 was refused: the writer has no member 7") ||
                      i == 3,
                  "%s", p->log);
        cr_expect_gt(pop_stats(p, 1).refused, 0);
    }
    pop_free(p);
}

Test(lb_node, one_id_twice_is_found_and_the_first_one_stays) {
    pop *p = pop_started(3, &(cb_lb_node_opts){0});
    cb_lb_node_opts o = own(p, 2);
    pop_kill(p, 3);
    p->host[3].disk_len = 0;
    cr_assert_eq(pop_try(p, 3, &o), CB_OK); /* host 3 believes that it is 2 */
    pop_run(p, 2000);
    cr_expect_eq(pop_stats(p, 3).phase, CB_LB_NODE_REFUSED);
    cr_expect(strstr(pop_stats(p, 3).trouble, "two hosts have the ID 2"), "%s", pop_stats(p, 3).trouble);
    cr_expect_eq(pop_stats(p, 2).phase, CB_LB_NODE_FOLLOWING);
    cr_expect(strstr(pop_stats(p, 2).trouble, "two hosts have the ID 2"), "%s", pop_stats(p, 2).trouble);
    cr_expect(strstr(pop_info(p, 1, 2).trouble, "two hosts have the ID 2"));
    pop_kill(p, 3);
    pop_run(p, 20000);
    cr_expect_str_empty(pop_stats(p, 2).trouble);
    pop_kill(p, 2); /* a start that is only a restart is none */
    pop_run(p, 100);
    pop_start(p, 2);
    pop_run(p, 1000);
    cr_expect_eq(pop_stats(p, 2).phase, CB_LB_NODE_FOLLOWING);
    cr_expect_str_empty(pop_info(p, 1, 2).trouble);
    pop_free(p);
}

Test(lb_node, two_hosts_cannot_both_be_the_writer) {
    pop *p = pop_started(2, &(cb_lb_node_opts){0});
    uint8_t ask[CB_LB_ASK_HEAD];
    cb_buf out;
    cb_buf_init(&out, &cb_alloc_libc, 4096);
    cr_assert_eq(
        cb_lb_ask_write(
            &out, &(cb_lb_ask){.id = 1, .writer = 1, .buckets = POP_BUCKETS, .key_check = p->host[1].core->key_check}),
        CB_OK);
    cr_assert_eq(out.len, sizeof ask);
    pop_mail m = {.from = 2};
    pop_hush(p);
    cb_lb_core_asked(p->host[1].core, cb_buf_slice(&out), "somebody", pop_hold(p, &m), p->now);
    cr_expect(pop_said(p, "two hosts have the ID 1: it is the writer's own"), "%s", p->log);
    cb_buf_free(&out);
    pop_free(p);
}

Test(lb_node, members_come_and_go_by_configuration) {
    pop *p = pop_new(4, &(cb_lb_node_opts){0});
    p->o.n_members = 3; /* the fourth is to come */
    for (uint32_t id = 1; id <= 3; id++)
        pop_start(p, id);
    pop_run(p, 2000);
    cr_expect_eq(pop_stats(p, 1).members, 3);
    p->o.n_members = 4;
    cr_assert_eq(cb_lb_core_members(p->host[1].core, p->members, 4, p->now), CB_OK);
    pop_start(p, 4);
    pop_run(p, 2000);
    cr_expect_eq(pop_info(p, 1, 4).state, -1, "others do not know it yet");
    cr_expect(strstr(pop_info(p, 1, 4).trouble, "waits to come into the table until member 2 knows it"), "%s",
              pop_info(p, 1, 4).trouble);
    cr_expect(strstr(pop_stats(p, 2).trouble, "member 2 has no member 4 in its configuration"), "%s",
              pop_stats(p, 2).trouble);
    for (uint32_t id = 2; id <= 3; id++)
        cr_assert_eq(cb_lb_core_members(p->host[id].core, p->members, 4, p->now), CB_OK);
    pop_run(p, 5000);
    cr_expect_eq(pop_info(p, 1, 4).state, CB_LB_UP);
    cr_expect_gt(pop_info(p, 1, 4).first, 0);
    cr_expect_str_empty(pop_stats(p, 2).trouble);
    for (uint32_t id = 1; id <= 4; id++) { /* and goes */
        p->o.n_members = 3;
        if (id < 4) cr_assert_eq(cb_lb_core_members(p->host[id].core, p->members, 3, p->now), CB_OK);
    }
    pop_run(p, 500);
    cr_expect_eq(pop_info(p, 1, 4).removed, 1);
    pop_kill(p, 4);
    pop_run(p, 20000);
    cb_lb_node_info m;
    cr_expect_eq(cb_lb_core_info(p->host[1].core, 3, &m, p->now), CB_ENOENT);
    cr_expect_eq(pop_stats(p, 1).members, 3);
    cr_expect_eq(pop_stats(p, 1).unowned, 0);
    pop_free(p);
}

Test(lb_node, hosts_compare_where_members_are) {
    pop *p = pop_new(2, &(cb_lb_node_opts){0});
    cb_lb_node_member there[2];
    p->members[0].address = "192.0.2.1";
    p->members[1].address = "192.0.2.2";
    memcpy(there, p->members, sizeof there);
    there[0].address = "192.0.2.9";
    cb_lb_node_opts o = own(p, 2);
    o.members = there;
    pop_start(p, 1);
    cr_assert_eq(pop_try(p, 2, &o), CB_OK);
    pop_run(p, 1000);
    cr_expect(strstr(pop_stats(p, 2).trouble, "another address for member 1"), "%s", pop_stats(p, 2).trouble);
    cr_expect(strstr(pop_info(p, 1, 2).trouble, "another address for member 1"));
    pop_free(p);
}

Test(lb_node, options_that_cannot_be_are_refused) {
    pop *p = pop_new(2, &(cb_lb_node_opts){0});
    struct {
        const char *words;
        cb_lb_node_opts o;
    } cases[] = {{"id is 0", own(p, 0)},
                 {"id 9 is none of the members", own(p, 9)},
                 {"key is NULL", own(p, 1)},
                 {"buckets is 250", own(p, 1)},
                 {"misses is 2", own(p, 1)},
                 {"heartbeat_ms is 10", own(p, 1)},
                 {"two members have", own(p, 1)},
                 {"writer 5 is none", own(p, 1)},
                 {"weight 70000", own(p, 1)},
                 {"0 members", own(p, 1)},
                 {"min_live_percent is 101", own(p, 1)}};
    cb_lb_node_member same[2] = {p->members[0], p->members[0]}, heavy[2] = {p->members[0], p->members[1]};
    heavy[1].weight = 70000;
    cases[2].o.key = NULL;
    cases[3].o.buckets = 250;
    cases[4].o.misses = 2;
    cases[5].o.heartbeat_ms = 10;
    cases[6].o.members = same;
    cases[7].o.writer = 5;
    cases[8].o.members = heavy;
    cases[9].o.n_members = 0;
    cases[10].o.min_live_percent = 101;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_expect_eq(pop_try(p, 1, &cases[i].o), CB_EINVAL, "%zu", i);
        cr_expect(strstr(cb_last_error(), cases[i].words), "%s", cb_last_error());
    }
    pop_free(p);
}

Test(lb_node, saved_states_of_others_are_refused) {
    pop *p = pop_started(2, &(cb_lb_node_opts){0});
    pop_run(p, 3000);
    uint8_t *good = malloc(p->host[1].disk_len);
    const size_t len = p->host[1].disk_len;
    memcpy(good, p->host[1].disk, len);
    pop_kill(p, 1);
    pop_kill(p, 2);
    for (size_t i = 0; i < len; i += 7) { /* any byte */
        memcpy(p->host[1].disk, good, len);
        p->host[1].disk[i] ^= 0x40;
        cr_assert_eq(pop_try(p, 1, NULL), CB_EPROTO, "byte %zu", i);
    }
    for (size_t cut = 0; cut < len; cut += 13) {
        p->host[1].disk_len = cut;
        memcpy(p->host[1].disk, good, len);
        const int rc = pop_try(p, 1, NULL);
        cr_assert_eq(rc, cut ? CB_EPROTO : CB_OK, "cut at %zu", cut);
        if (rc == CB_OK) pop_kill(p, 1);
    }
    p->host[1].disk_len = len;
    memcpy(p->host[1].disk, good, len);
    free(p->host[2].disk);
    p->host[2].disk = good;
    p->host[2].disk_len = len;
    cr_expect_eq(pop_try(p, 2, NULL), CB_EPROTO);
    cr_expect(strstr(cb_last_error(), "that of member 1, not of 2"), "%s", cb_last_error());
    pop_free(p);
}

/* ---- a long life with everything that goes wrong ---- */

static void misfortune(pop *p, uint32_t most_down) {
    const uint32_t id = 1 + (uint32_t)pop_dice(p, p->n);
    unsigned down = 0;
    for (uint32_t i = 1; i <= p->n; i++)
        down += p->host[i].core == NULL;
    switch (pop_dice(p, 6)) {
    case 0:
        if (p->host[id].core && down < most_down) pop_kill(p, id);
        break;
    case 1:
        if (p->host[id].core && down < most_down && id != p->o.writer) pop_off(p, id);
        break;
    case 2:
    case 3:
        if (!p->host[id].core) pop_start(p, id);
        break;
    case 4:
        if (id != 1) p->cut[1][id] = p->cut[id][1] = pop_dice(p, 3) == 0;
        break;
    default:
        if (p->host[1].core && pop_dice(p, 2))
            cb_lb_core_weight(p->host[1].core, id, 1 + (uint32_t)pop_dice(p, 300), p->now);
        else if (p->host[1].core)
            cb_lb_core_drain(p->host[1].core, id, pop_dice(p, 3) == 0, p->now);
    }
}

Test(lb_node, whatever_happens_tables_agree_and_come_together_again) {
    for (uint64_t seed = 1; seed <= 6; seed++) {
        pop *p = pop_new(6, &(cb_lb_node_opts){.step_ms = 100, .settle_ms = 3000, .ack_ms = 500, .start_ms = 1000});
        p->x = seed * 0x9e3779b97f4a7c15u;
        p->loss = 30;
        for (uint32_t id = 1; id <= 6; id++)
            pop_start(p, id);
        for (int i = 0; i < 300; i++) {
            misfortune(p, 3);
            pop_run(p, 50 + (unsigned)pop_dice(p, 500));
            pop_hush(p);
        }
        p->loss = 0;
        memset(p->cut, 0, sizeof p->cut);
        for (uint32_t id = 1; id <= 6; id++)
            if (!p->host[id].core) pop_start(p, id);
        for (uint32_t id = 1; id <= 6; id++)
            cb_lb_core_drain(p->host[1].core, id, 0, p->now);
        pop_run(p, 60000);
        pop_settle(p, 10000);
        cb_lb_node_stats s = pop_stats(p, 1);
        cr_expect_eq(s.unowned, 0);
        for (uint32_t id = 1; id <= 6; id++)
            cr_expect_eq(pop_info(p, 1, id).state, CB_LB_UP, "seed %d, member %u: %s", (int)seed, id,
                         pop_info(p, 1, id).trouble);
        pop_free(p);
    }
}
