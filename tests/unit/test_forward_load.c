/* cb_forward: what it refuses, what it writes into the datapath, and what a successor takes over. Packets are in
 * test_forward_branches.c, hosts in tests/interop/test_xdp_lb.py. */
#include <criterion/criterion.h>

#ifndef CB_HAVE_XDP

Test(forward_load, needs_libcb_xdp) {
    cr_skip_test("built without libcb-xdp (libbpf, clang, bpftool)");
}

#else

#include "lb/forward_int.h"
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const uint8_t hash_key[16] = "hash key 16 byte", tag_key[16] = "tag key 16 bytes";
#define BUCKETS 1009

static cb_forward_opts options(void) {
    return (cb_forward_opts){.size = sizeof(cb_forward_opts),
                             .hash_key = hash_key,
                             .tag_key = tag_key,
                             .address4 = "192.0.2.1",
                             .id = 1,
                             .buckets = BUCKETS};
}

static cb_forward *forward_or_skip(void) {
    const cb_forward_opts o = options();
    cb_forward *f = NULL;
    int rc = cb_forward_new(&f, &o);
    if (rc == CB_EPERM || rc == CB_ENOTSUP) cr_skip_test("%s", cb_last_error());
    cr_assert_eq(rc, CB_OK, "%s", cb_last_error());
    return f;
}

/* ---- a table of one writer ---- */

typedef struct place {
    cb_lb_table *table;
    cb_lb_writer *writer;
} place;

static void place_make(place *p) {
    *p = (place){.table = NULL};
    cr_assert_eq(cb_lb_table_new(&p->table, NULL), CB_OK);
    cr_assert_eq(cb_lb_writer_new(&p->writer, CB_OPTS(cb_lb_writer_opts, .table = p->table, .epoch = 1,
                                                      .buckets = BUCKETS, .seed = 5)),
                 CB_OK, "%s", cb_last_error());
}

static void place_member(place *p, uint32_t id, uint32_t weight, int state) {
    cr_assert_eq(cb_lb_writer_member(p->writer, CB_OPTS(cb_lb_member, .id = id, .weight = weight, .state = state)),
                 CB_OK);
}

static void place_run(place *p, cb_time now) {
    cr_assert_eq(cb_lb_writer_run(p->writer, now), CB_OK, "%s", cb_last_error());
}

static void place_drop(place *p) {
    cb_lb_writer_free(p->writer);
    cb_lb_table_free(p->table);
}

static void expect_words(const cb_forward *f, const place *p) {
    size_t n = 0;
    const uint64_t *words = cb_lb_table_words(p->table, &n);
    cr_assert_eq(n, BUCKETS);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t word = 0;
        cr_assert_eq(bpf_map_lookup_elem(fw_map_fd(f, FW_TABLE), &i, &word), 0);
        cr_assert_eq(word, words[i], "bucket %u", i);
    }
}

/* The member's record by its ID, as the program finds it. */
static struct cb_fw_member record(const cb_forward *f, uint32_t id) {
    struct cb_fw_member m = {.flags = 0};
    uint32_t slot = CB_FW_NOBODY;
    if (bpf_map_lookup_elem(fw_map_fd(f, FW_IDS), &id, &slot) == 0)
        cr_assert_eq(bpf_map_lookup_elem(fw_map_fd(f, FW_MEMBERS), &slot, &m), 0);
    return m;
}

/* ---- what is refused ---- */

#define BAD(text, ...)                                                                                                 \
    {                                                                                                                  \
        text, {                                                                                                        \
            .size = sizeof(cb_forward_opts), __VA_ARGS__                                                               \
        }                                                                                                              \
    }

Test(forward_load, options_are_checked_before_anything_is_done) {
    static const struct {
        const char *detail;
        cb_forward_opts o;
    } bad[] = {BAD("hash_key", .id = 1),
               BAD("address4", .hash_key = hash_key, .address4 = "here"),
               BAD("address4", .hash_key = hash_key, .address4 = "2001:db8::1"),
               BAD("address6", .hash_key = hash_key, .address6 = "192.0.2.1"),
               BAD("prime", .hash_key = hash_key, .buckets = 1000),
               BAD("buckets", .hash_key = hash_key, .buckets = 5000011),
               BAD("vips_max", .hash_key = hash_key, .vips_max = 1 << 20),
               BAD("dcids_max", .hash_key = hash_key, .dcids_max = 1 << 30),
               BAD("fragments_max", .hash_key = hash_key, .fragments_max = 1 << 30),
               BAD("underlay_mtu", .hash_key = hash_key, .underlay_mtu = 100)};
    cb_forward *f = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(cb_forward_new(&f, &bad[i].o), CB_EINVAL, "%s", bad[i].detail);
        cr_expect(strstr(cb_last_error(), bad[i].detail) != NULL, "%s: %s", bad[i].detail, cb_last_error());
    }
    cr_expect_eq(cb_forward_new(NULL, NULL), CB_EINVAL);
    cr_expect_eq(
        cb_forward_new(&f, CB_OPTS(cb_forward_opts, .hash_key = hash_key, .buckets = BUCKETS, .pin_dir = "/tmp")),
        geteuid() ? cb_forward_new(&f, CB_OPTS(cb_forward_opts, .hash_key = hash_key, .pin_dir = "/tmp")) : CB_EINVAL);
    cr_expect_null(f);
    cr_expect_eq(cb_forward_unpin(NULL), CB_EINVAL);
    cr_expect_eq(cb_forward_unpin("/nowhere/at/all"), CB_ENOENT);
}

Test(forward_load, vips_are_checked_and_counted) {
    static const struct {
        const char *detail;
        cb_forward_vip_opts o;
    } bad[] = {{"address", {.size = sizeof(cb_forward_vip_opts)}},
               {"address", {.size = sizeof(cb_forward_vip_opts), .address = "198.51.100.1/40"}},
               {"protocol", {.size = sizeof(cb_forward_vip_opts), .address = "198.51.100.1", .protocol = 1}},
               {"prefix", {.size = sizeof(cb_forward_vip_opts), .address = "198.51.100.0/24", .port = 80}},
               {"quic", {.size = sizeof(cb_forward_vip_opts), .address = "198.51.100.1", .protocol = 6, .quic = 1}}};
    cb_forward *f = forward_or_skip();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(cb_forward_vip(f, &bad[i].o), CB_EINVAL, "%s", bad[i].detail);
        cr_expect(strstr(cb_last_error(), bad[i].detail) != NULL, "%s", cb_last_error());
    }
    const cb_forward_vip_opts both = {.size = sizeof both, .address = "198.51.100.1", .port = 443},
                              tcp = {.size = sizeof tcp, .address = "198.51.100.1", .port = 443, .protocol = 6},
                              other = {.size = sizeof other, .address = "198.51.100.1", .protocol = 6},
                              net = {.size = sizeof net, .address = "2001:db8::/48", .protocol = 17, .quic = 1};
    cr_expect_eq(cb_forward_vip(f, &both), CB_OK);
    cr_expect_eq(cb_forward_vip(f, &tcp), CB_EEXIST);
    cr_expect_eq(f->control->flags, 0);
    cr_expect_eq(cb_forward_vip(f, &other), CB_OK);
    cr_expect_eq(f->control->flags, CB_FW_ANY_PORT);
    cr_expect_eq(cb_forward_vip(f, &net), CB_OK);
    cr_expect_eq(cb_forward_vip(f, &net), CB_OK, "once more changes nothing");
    cr_expect_eq(f->control->flags, CB_FW_ANY_PORT | CB_FW_PREFIXES);

    cb_forward_vip_stats s = {.size = sizeof s};
    cr_assert_eq(cb_forward_vip_stats_get(f, 2, &s), CB_OK);
    cr_expect(!strcmp(s.address, "2001:db8::/48") && s.protocol == 17 && s.quic == 1, "%s", s.address);
    cr_expect_eq(cb_forward_vip_stats_get(f, 3, &s), CB_ENOENT);

    const struct cb_fw_vip_key address = {.address = {[10] = 0xff, 0xff, 198, 51, 100, 1}};
    struct cb_fw_vip v;
    cr_expect_eq(cb_forward_vip_remove(f, &both), CB_OK);
    cr_expect_eq(bpf_map_lookup_elem(fw_map_fd(f, FW_VIPS), &address, &v), 0, "the address has a VIP still");
    cr_expect_eq(cb_forward_vip_remove(f, &other), CB_OK);
    cr_expect_neq(bpf_map_lookup_elem(fw_map_fd(f, FW_VIPS), &address, &v), 0);
    cr_expect_eq(cb_forward_vip_remove(f, &other), CB_ENOENT);
    cr_expect_eq(cb_forward_vip_remove(f, &net), CB_OK);
    cr_expect_eq(f->control->flags, 0);
    cb_forward_free(f);
}

Test(forward_load, no_more_vips_than_there_is_room_for) {
    cb_forward_opts o = options();
    cb_forward *f = NULL;
    cb_forward_free(forward_or_skip());
    o.vips_max = 2;
    cr_assert_eq(cb_forward_new(&f, &o), CB_OK, "%s", cb_last_error());
    char text[3][24];
    for (int i = 0; i < 3; i++) {
        snprintf(text[i], sizeof text[i], "198.51.100.%d", i);
        cr_expect_eq(cb_forward_vip(f, CB_OPTS(cb_forward_vip_opts, .address = text[i])), i < 2 ? CB_OK : CB_ELIMIT);
    }
    cr_expect_eq(cb_forward_vip_remove(f, CB_OPTS(cb_forward_vip_opts, .address = text[0])), CB_OK);
    cr_expect_eq(cb_forward_vip(f, CB_OPTS(cb_forward_vip_opts, .address = text[2])), CB_OK, "its place is free again");
    cb_forward_free(f);
}

Test(forward_load, members_are_checked) {
    static const struct {
        const char *detail;
        cb_forward_member_opts o;
    } bad[] = {{"id", {.size = sizeof(cb_forward_member_opts), .address = "192.0.2.2"}},
               {"address", {.size = sizeof(cb_forward_member_opts), .id = 2, .address = "no"}},
               {"address6", {.size = sizeof(cb_forward_member_opts), .id = 2, .address = "2001:db8::2"}},
               {"encapsulation",
                {.size = sizeof(cb_forward_member_opts), .id = 2, .address = "192.0.2.2", .encapsulation = 7}},
               {"mtu", {.size = sizeof(cb_forward_member_opts), .id = 2, .address = "192.0.2.2", .mtu = 90}}};
    cb_forward *f = forward_or_skip();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_expect_eq(cb_forward_member(f, &bad[i].o), CB_EINVAL, "%s", bad[i].detail);
        cr_expect(strstr(cb_last_error(), bad[i].detail) != NULL, "%s", cb_last_error());
    }
    cr_expect_eq(cb_forward_member(f, CB_OPTS(cb_forward_member_opts, .id = 2, .address = "192.0.2.2")), CB_OK);
    cr_expect_eq(cb_forward_member(f, CB_OPTS(cb_forward_member_opts, .id = 3, .address = "192.0.2.2")), CB_EEXIST);
    cr_expect_eq(cb_forward_member(f, CB_OPTS(cb_forward_member_opts, .id = 2, .address = "192.0.2.3")), CB_OK);
    cr_expect_eq(cb_forward_member(f, CB_OPTS(cb_forward_member_opts, .id = 4, .address = "2001:db8::2",
                                              .encapsulation = CB_FORWARD_MAC)),
                 CB_OK, "MAC rewriting needs no address of ours");
    cr_expect_eq(cb_forward_member_remove(f, 9), CB_ENOENT);
    cr_expect_eq(cb_forward_member_remove(f, 2), CB_OK);
    cb_forward_free(f);
}

Test(forward_load, interfaces_are_checked) {
    cb_forward *f = forward_or_skip();
    cr_expect_eq(cb_forward_attach(f, "no_such_if0", 0, 0), CB_ENOENT);
    cr_expect_eq(cb_forward_attach(f, NULL, 0, 0), CB_EINVAL);
    cr_expect_eq(cb_forward_attach(f, "a_name_that_is_too_long", 0, 0), CB_EINVAL);
    cr_expect_eq(cb_forward_attach(f, "lo", 3, 0), CB_EINVAL);
    cr_expect_eq(cb_forward_attach(f, "lo", 0, 8), CB_EINVAL);
    cr_expect_eq(cb_forward_detach(f, "lo"), CB_ENOENT);
    cb_forward_free(f);
}

Test(forward_load, tag_keys_change_one_after_the_other) {
    static const uint8_t next[16] = "the next tag key";
    cb_forward *f = forward_or_skip();
    cr_expect_eq(cb_forward_tag_key(f, 4, next, 0), CB_EINVAL);
    cr_expect_eq(cb_forward_tag_key(f, 0, NULL, 0), CB_EINVAL, "the current one");
    cr_expect_eq(cb_forward_tag_key(f, 1, NULL, 1), CB_EINVAL);
    cr_expect_eq(cb_forward_tag_key(f, 1, (const uint8_t[16]){0}, 0), CB_EINVAL);
    cr_expect_eq(cb_forward_tag_key(f, 1, next, 0), CB_OK);
    cr_expect(f->control->tag_current == 0 && !memcmp(f->control->tag_key[1], next, 16));
    cr_expect_eq(cb_forward_tag_key(f, 1, next, 1), CB_OK);
    cr_expect_eq(f->control->tag_current, 1);
    cr_expect_eq(cb_forward_tag_key(f, 0, NULL, 0), CB_OK);
    cr_expect(f->control->tag_key[0][0] == 0 && f->control->tag_key[0][1] == 0);
    cb_forward_free(f);
}

/* ---- the table ---- */

Test(forward_load, the_table_comes_into_the_datapath_word_by_word) {
    place p;
    cb_forward *f = forward_or_skip();
    place_make(&p);
    cr_expect_eq(cb_forward_sync(f, p.table), CB_ENOENT, "the table is empty");
    place_member(&p, 1, 100, CB_LB_UP);
    place_member(&p, 2, 100, CB_LB_UP);
    place_run(&p, 1);
    cr_assert_eq(cb_forward_member(f, CB_OPTS(cb_forward_member_opts, .id = 1, .address = "192.0.2.1")), CB_OK);
    cr_assert_eq(cb_forward_member(f, CB_OPTS(cb_forward_member_opts, .id = 2, .address = "192.0.2.2")), CB_OK);
    cr_expect_eq(record(f, 2).flags, 0, "not before the table has it");
    cr_expect_eq(cb_forward_sync(f, p.table), BUCKETS + 2);
    expect_words(f, &p);
    cr_expect_eq(cb_forward_sync(f, p.table), 0, "nothing has changed");
    cr_expect_eq(record(f, 2).flags, CB_FW_HERE | CB_FW_LIVE);
    cr_expect_eq(record(f, 2).id, 2);
    cr_expect_eq(f->control->self_slot, fw_member_at(f, 0)->slot);
    cb_lb_table_stats t = {.size = sizeof t};
    cr_assert_eq(cb_lb_table_stats_get(p.table, &t), CB_OK);
    cr_expect_eq(f->control->table_version, t.version);

    place_member(&p, 3, 100, CB_LB_UP); /* in the table, and nobody knows where it is */
    place_member(&p, 2, 100, CB_LB_DEAD);
    place_run(&p, 2);
    cr_expect(cb_forward_sync(f, p.table) > 0);
    expect_words(f, &p);
    cr_expect_eq(record(f, 2).flags, CB_FW_HERE, "it is dead");
    cr_expect_eq(f->unknown, 1);
    cr_assert_eq(cb_forward_member(f, CB_OPTS(cb_forward_member_opts, .id = 3, .address = "192.0.2.3")), CB_OK);
    cr_expect_eq(cb_forward_sync(f, p.table), 1, "the member, and no word");
    cr_expect_eq(record(f, 3).flags, CB_FW_HERE | CB_FW_LIVE);

    cr_assert_eq(cb_lb_writer_remove(p.writer, 2), CB_OK);
    for (cb_time now = 3; now < 10; now++)
        place_run(&p, now * 1000000000);
    cr_expect(cb_forward_sync(f, p.table) > 0);
    cr_expect_eq(record(f, 2).flags, 0, "struck off");
    cr_assert_eq(cb_forward_member_remove(f, 3), CB_OK);
    cr_expect_eq(record(f, 3).flags, 0);
    place_drop(&p);

    cb_lb_table *other = NULL;
    cb_lb_writer *w = NULL;
    cr_assert_eq(cb_lb_table_new(&other, NULL), CB_OK);
    cr_assert_eq(cb_lb_writer_new(&w, CB_OPTS(cb_lb_writer_opts, .table = other, .epoch = 1, .buckets = 101)), CB_OK);
    cr_assert_eq(cb_lb_writer_member(w, CB_OPTS(cb_lb_member, .id = 1, .weight = 1)), CB_OK);
    cr_assert_eq(cb_lb_writer_run(w, 1), CB_OK);
    cr_expect_eq(cb_forward_sync(f, other), CB_EINVAL, "101 buckets");
    cb_lb_writer_free(w);
    cb_lb_table_free(other);
    cb_forward_free(f);
}

/* A member that leaves and one that comes may have the same slot: whoever has it last is found there. */
Test(forward_load, slots_go_from_one_member_to_another) {
    place p;
    cb_forward *f = forward_or_skip();
    place_make(&p);
    place_member(&p, 1, 100, CB_LB_UP);
    place_member(&p, 2, 100, CB_LB_UP);
    place_run(&p, 1);
    for (uint32_t id = 1; id <= 3; id++) {
        char text[16];
        snprintf(text, sizeof text, "192.0.2.%u", id);
        cr_assert_eq(cb_forward_member(f, CB_OPTS(cb_forward_member_opts, .id = id, .address = text)), CB_OK);
    }
    cr_assert_eq(cb_forward_cid(f, CB_OPTS(cb_quic_lb_opts, .server_id_bytes = 4, .rotation = 2)), CB_OK, "%s",
                 cb_last_error());
    cr_assert_eq(cb_forward_server(f, 2, cb_slice_str("srv2"), 2), CB_OK, "%s", cb_last_error());
    cr_assert_eq(cb_forward_server(f, 2, cb_slice_str("srv3"), 3), CB_OK);
    cr_assert(cb_forward_sync(f, p.table) > 0);
    const uint32_t slot = fw_member_at(f, 1)->slot;
    place_member(&p, 2, 100, CB_LB_DEAD);
    cr_assert_eq(cb_lb_writer_remove(p.writer, 2), CB_OK);
    for (cb_time now = 2; now < 9; now++)
        place_run(&p, now * 1000000000);
    cb_lb_writer_free(p.writer); /* slots rest as long as a writer can let them; another one knows nothing of that */
    cr_assert_eq(cb_lb_writer_new(&p.writer, CB_OPTS(cb_lb_writer_opts, .table = p.table, .epoch = 2)), CB_OK);
    place_member(&p, 1, 100, CB_LB_UP);
    place_member(&p, 3, 100, CB_LB_UP);
    place_run(&p, 9000000000);
    cr_assert(cb_forward_sync(f, p.table) > 0); /* it sees both changes at once */
    cr_assert_eq(fw_member_at(f, 2)->slot, slot, "the test wants the slot to be used again");
    cr_expect_eq(record(f, 3).id, 3);
    cr_expect_eq(record(f, 2).flags, 0);
    struct cb_fw_server key = {.rotation_length = 2 << 4 | 4, .server_id = "srv2"};
    uint32_t got = 0;
    cr_expect_neq(bpf_map_lookup_elem(fw_map_fd(f, FW_SERVERS), &key, &got), 0, "its server ID names nobody now");
    memcpy(key.server_id, "srv3", 4);
    cr_expect(bpf_map_lookup_elem(fw_map_fd(f, FW_SERVERS), &key, &got) == 0 && got == slot);
    place_drop(&p);
    cb_forward_free(f);
}

/* ---- QUIC ---- */

Test(forward_load, forms_of_connection_ids_and_their_servers) {
    static const uint8_t key[16] = "0123456789abcdef";
    cb_forward *f = forward_or_skip();
    cr_expect_eq(cb_forward_server(f, 0, cb_slice_str("abcd"), 1), CB_EINVAL, "there is no form yet");
    cr_expect_eq(cb_forward_cid(f, CB_OPTS(cb_quic_lb_opts, .server_id_bytes = 4, .codec = CB_QUIC_LB_AES_ONE)),
                 CB_EINVAL);
    cr_assert_eq(
        cb_forward_cid(f, CB_OPTS(cb_quic_lb_opts, .server_id_bytes = 4, .codec = CB_QUIC_LB_AES_ONE, .key = key)),
        CB_OK);
    struct cb_fw_cid c;
    const uint32_t zero = 0;
    cr_assert_eq(bpf_map_lookup_elem(fw_map_fd(f, FW_CIDS), &zero, &c), 0);
    cr_expect(c.used && c.codec == CB_QUIC_LB_AES_ONE && c.server_id_bytes == 4 && c.nonce_bytes == 12 &&
              c.cid_bytes == 19);
    cr_expect_eq(c.round_keys[40], 0x30313233, "one pass decrypts: the key itself is that of the last round");
    cr_expect_eq(cb_forward_server(f, 0, cb_slice_str("abc"), 1), CB_EINVAL);
    cr_expect_eq(cb_forward_server(f, 9, cb_slice_str("abcd"), 1), CB_EINVAL);
    cr_expect_eq(cb_forward_server(f, 0, cb_slice_str("abcd"), 0), CB_EINVAL);
    cr_expect_eq(cb_forward_server(f, 0, cb_slice_str("abcd"), 1), CB_OK);
    cr_expect_eq(cb_forward_server_remove(f, 0, cb_slice_str("abce")), CB_ENOENT);
    cr_expect_eq(cb_forward_server_remove(f, 0, cb_slice_str("abcd")), CB_OK);
    cr_expect_eq(cb_forward_server(f, 0, cb_slice_str("abcd"), 1), CB_OK);
    cr_assert_eq(cb_forward_cid(f, CB_OPTS(cb_quic_lb_opts, .server_id_bytes = 8)), CB_OK);
    cb_forward_stats s = {.size = sizeof s};
    cr_assert_eq(cb_forward_stats_get(f, &s), CB_OK);
    cr_expect_eq(s.servers, 0, "server IDs have another length now");
    cr_expect_eq(cb_forward_cid_remove(f, 3), CB_ENOENT);
    cr_expect_eq(cb_forward_cid_remove(f, 0), CB_OK);
    cr_assert_eq(bpf_map_lookup_elem(fw_map_fd(f, FW_CIDS), &zero, &c), 0);
    cr_expect_eq(c.used, 0);

    cb_dcid_hook hook = cb_forward_dcid_hook(f);
    const struct cb_fw_dcid id = {.length = 8, .bytes = "client 1"};
    uint64_t live;
    cr_expect_eq(hook.opened((cb_slice){id.bytes, 8}, hook.user), CB_OK);
    cr_expect_eq(bpf_map_lookup_elem(fw_map_fd(f, FW_LIVE), &id, &live), 0);
    hook.closed((cb_slice){id.bytes, 8}, hook.user);
    cr_expect_neq(bpf_map_lookup_elem(fw_map_fd(f, FW_LIVE), &id, &live), 0);
    cr_expect_eq(hook.opened((cb_slice){(const uint8_t *)"a connection ID of 21", 21}, hook.user), CB_EINVAL);
    cb_forward_free(f);
}

/* ---- threads ---- */

typedef struct shared {
    cb_forward *f;
    place p;
    atomic_bool over;
    atomic_int mistakes;
} shared;

static void *handshakes(void *user) {
    shared *s = user;
    cb_dcid_hook hook = cb_forward_dcid_hook(s->f);
    uint8_t id[8];
    for (uint64_t i = (uintptr_t)&id; !atomic_load(&s->over); i++) {
        memcpy(id, &i, sizeof id);
        if (hook.opened((cb_slice){id, sizeof id}, hook.user) < 0) atomic_fetch_add(&s->mistakes, 1);
        hook.closed((cb_slice){id, sizeof id}, hook.user);
    }
    return NULL;
}

static void *reader(void *user) {
    shared *s = user;
    while (!atomic_load(&s->over)) {
        cb_forward_stats st = {.size = sizeof st};
        cb_forward_member_stats m = {.size = sizeof m};
        uint64_t n;
        int rc = cb_forward_stats_get(s->f, &st);
        if (rc == CB_OK) rc = cb_forward_count(s->f, 0, NULL, NULL, &n);
        if (rc == CB_OK) (void)cb_forward_member_stats_get(s->f, 1, &m);
        if (rc < 0) atomic_fetch_add(&s->mistakes, 1);
    }
    return NULL;
}

static void *changer(void *user) {
    shared *s = user;
    while (!atomic_load(&s->over)) {
        int rc = cb_forward_member(s->f, CB_OPTS(cb_forward_member_opts, .id = 2, .address = "192.0.2.2"));
        if (rc >= 0) rc = cb_forward_sync(s->f, s->p.table);
        if (rc >= 0) rc = cb_forward_member_remove(s->f, 2);
        if (rc < 0) atomic_fetch_add(&s->mistakes, 1);
    }
    return NULL;
}

Test(forward_load, threads_may_share_it) {
    static void *(*const tasks[])(void *) = {handshakes, handshakes, reader, changer};
    pthread_t t[4];
    shared s = {.f = forward_or_skip()};
    place_make(&s.p);
    place_member(&s.p, 1, 100, CB_LB_UP);
    place_member(&s.p, 2, 100, CB_LB_UP);
    place_run(&s.p, 1);
    for (size_t i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&t[i], NULL, tasks[i], &s), 0);
    usleep(300000);
    atomic_store(&s.over, true);
    for (size_t i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    cr_expect_eq(atomic_load(&s.mistakes), 0);
    struct cb_fw_dcid any;
    cr_expect_neq(bpf_map_get_next_key(fw_map_fd(s.f, FW_LIVE), NULL, &any), 0, "a handshake that is over lives");
    cb_forward_free(s.f);
    place_drop(&s.p);
}

/* ---- numbers ---- */

static bool shows(cb_metrics *m, const char *name, const char *label) {
    const cb_slice values[] = {cb_slice_str(label)};
    double v;
    return cb_metrics_value(m, name, label ? values : NULL, &v) == CB_OK;
}

static int nowhere(cb_slice piece, void *user) {
    *(size_t *)user += piece.len;
    return CB_OK;
}

Test(forward_load, all_numbers_are_shown) {
    static const char *const plain[] = {"cb_forward_table_version",      "cb_forward_members",
                                        "cb_forward_unresolved_members", "cb_forward_interfaces",
                                        "cb_forward_missing_interfaces", "cb_forward_refused_dcids"};
    cb_metrics *m = NULL;
    size_t bytes = 0;
    cb_forward *f = forward_or_skip();
    cr_assert_eq(cb_metrics_new(&m, NULL), CB_OK);
    cr_expect_eq(cb_forward_metrics(f, NULL), CB_EINVAL);
    cr_assert_eq(cb_forward_metrics(f, m), CB_OK);
    cr_expect_eq(cb_forward_metrics(f, m), CB_EEXIST);
    cr_assert_eq(cb_forward_vip(f, CB_OPTS(cb_forward_vip_opts, .address = "2001:db8::1", .port = 443, .protocol = 6)),
                 CB_OK);
    cr_assert_eq(cb_forward_member(f, CB_OPTS(cb_forward_member_opts, .id = 2, .address = "192.0.2.2")), CB_OK);
    cr_assert_eq(cb_metrics_render(m, CB_METRICS_TEXT, 0, nowhere, &bytes), CB_OK);
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        cr_expect(shows(m, plain[i], NULL), "%s", plain[i]);
    const char *name, *help;
    uint32_t n = 0;
    for (; cb_forward_count(f, n, &name, &help, NULL) == CB_OK; n++)
        cr_expect(shows(m, "cb_forward_packets", name) && *help, "%s", name);
    cr_expect_eq(n, CB_FW_N_ALL);
    cr_expect(shows(m, "cb_forward_vip_packets", "[2001:db8::1]:443/tcp"));
    cr_expect(shows(m, "cb_forward_vip_bytes", "[2001:db8::1]:443/tcp"));
    cr_expect(shows(m, "cb_forward_member_packets", "2") && shows(m, "cb_forward_member_bytes", "2"));
    cr_expect(shows(m, "cb_forward_fanned_icmp", "sent") && shows(m, "cb_forward_fanned_icmp", "failed"));
    cb_forward_free(f);
    cr_assert_eq(cb_metrics_render(m, CB_METRICS_TEXT, 0, nowhere, &bytes), CB_OK, "f is gone, the registry lives on");
    cb_metrics_unref(m);
}

/* ---- what goes wrong with the kernel ---- */

Test(forward_load, a_program_that_is_refused_is_told_with_the_verifiers_words) {
    static const char log[] = "func#0 @0\n0: R1=ctx(off=0,imm=0) R10=fp0\n0: (71) r0 = *(u8 *)(r1 +0)\n"
                              "invalid bpf_context access off=0 size=1\nprocessed 1 insns (limit 1000000)\n";
    cr_expect_eq(fw_load_failed(EINVAL, "forward", log), CB_ENOTSUP);
    cr_expect(strstr(cb_last_error(), "\"forward\"") && strstr(cb_last_error(), "invalid bpf_context access off=0") &&
                  !strstr(cb_last_error(), "processed") && !strchr(cb_last_error(), '\n'),
              "%s", cb_last_error());
    cr_expect_eq(fw_load_failed(EACCES, "forward", log), CB_ENOTSUP, "the verifier's other number");
    cr_expect_eq(fw_load_failed(EPERM, "forward", ""), CB_EPERM);
    cr_expect_eq(fw_load_failed(ENOMEM, "forward", ""), CB_ENOMEM);
}

/* In a process of its own: rights, and the places of files and interfaces, are its alone. */
static int in_child(int (*what)(void)) {
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) _exit(what());
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

enum { FINE = 0, SKIP = 77 };
#define CHECK(what, ...)                                                                                               \
    do {                                                                                                               \
        if (what) break;                                                                                               \
        fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #what, cb_last_error());                                \
        return 1;                                                                                                      \
    } while (0)

static int without_rights(void) {
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct d[2] = {{0}};
    const cb_forward_opts o = options();
    cb_forward *f = NULL;
    if (syscall(SYS_capget, &h, d) < 0 || !(d[1].effective >> (CAP_BPF - 32) & 1)) return SKIP;
    d[0].effective &= ~(1u << CAP_SYS_ADMIN);
    d[1].effective &= ~(1u << (CAP_PERFMON - 32));
    if (syscall(SYS_capset, &h, d) < 0) return SKIP;
    CHECK(cb_forward_new(&f, &o) == CB_EPERM);
    CHECK(strstr(cb_last_error(), "lacks CAP_PERFMON"));
    d[1].effective |= 1u << (CAP_PERFMON - 32);
    if (syscall(SYS_capset, &h, d) < 0) return SKIP;
    CHECK(cb_forward_new(&f, &o) == CB_OK); /* these three are enough */
    cb_forward_free(f);
    d[1].effective &= ~(1u << (CAP_BPF - 32));
    if (syscall(SYS_capset, &h, d) < 0) return SKIP;
    CHECK(cb_forward_new(&f, &o) == CB_EPERM);
    CHECK(strstr(cb_last_error(), "CAP_BPF") && !strstr(cb_last_error(), "CAP_NET_ADMIN"));
    d[0].effective &= ~(1u << CAP_NET_ADMIN);
    if (syscall(SYS_capset, &h, d) < 0) return SKIP;
    CHECK(cb_forward_new(&f, &o) == CB_EPERM);
    CHECK(strstr(cb_last_error(), "CAP_BPF and CAP_NET_ADMIN"));
    return FINE;
}

Test(forward_load, missing_rights_are_named) {
    int rc = in_child(without_rights);
    if (rc == SKIP) cr_skip_test("needs CAP_BPF, to drop it");
    cr_assert_eq(rc, FINE);
}

/* ---- pinning ---- */

#define FILES "/sys/fs/bpf" /* whatever is mounted there, or nothing, is hidden from the test and left alone */

/* A BPF file system, and a network with two interfaces, that only this process sees. */
static int own_world(void) {
    if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0) return SKIP;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return SKIP;
    if (mount("bpf", FILES, "bpf", 0, "mode=0700") < 0) return SKIP;
    return system("ip link add cbt0 type veth peer name cbt1 && ip link set cbt0 up && ip link set cbt1 up") ? SKIP
                                                                                                             : FINE;
}

static int count_files(const char *name) {
    struct stat st;
    char path[200];
    snprintf(path, sizeof path, FILES "/place/%s", name);
    return stat(path, &st) == 0;
}

static int first_process(cb_forward **out, const cb_forward_opts *o, uint32_t *program) {
    cb_forward_stats s = {.size = sizeof s};
    CHECK(cb_forward_new(out, o) == CB_OK);
    CHECK(cb_forward_vip(*out, CB_OPTS(cb_forward_vip_opts, .address = "198.51.100.1", .port = 443)) == CB_OK);
    CHECK(cb_forward_vip(*out, CB_OPTS(cb_forward_vip_opts, .address = "2001:db8::/64", .protocol = 17, .quic = 1)) ==
          CB_OK);
    CHECK(cb_forward_member(*out, CB_OPTS(cb_forward_member_opts, .id = 1, .address = "192.0.2.1")) == CB_OK);
    CHECK(cb_forward_member(*out, CB_OPTS(cb_forward_member_opts, .id = 2, .address = "192.0.2.2",
                                          .encapsulation = CB_FORWARD_IPIP)) == CB_OK);
    CHECK(cb_forward_cid(*out, CB_OPTS(cb_quic_lb_opts, .server_id_bytes = 4, .rotation = 2)) == CB_OK);
    CHECK(cb_forward_server(*out, 2, cb_slice_str("srv2"), 2) == CB_OK);
    CHECK(cb_forward_attach(*out, "cbt0", CB_FORWARD_AUTO, CB_FORWARD_EDGE) == CB_OK);
    CHECK(cb_forward_attach(*out, "cbt1", CB_FORWARD_GENERIC, 0) == CB_OK);
    CHECK(cb_forward_stats_get(*out, &s) == CB_OK && !s.adopted && s.interfaces == 2);
    *program = s.program_id;
    return FINE;
}

static int others_are_refused(void) {
    static const uint8_t other_key[16] = "another hash key";
    cb_forward_opts o = options();
    cb_forward *f = NULL;
    o.pin_dir = FILES "/place";
    o.hash_key = other_key;
    CHECK(cb_forward_new(&f, &o) == CB_EEXIST && strstr(cb_last_error(), "hash_key"));
    o.hash_key = hash_key;
    o.buckets = 101;
    CHECK(cb_forward_new(&f, &o) == CB_EEXIST && strstr(cb_last_error(), "\"table\""));
    o.buckets = BUCKETS;
    o.vips_max = 5;
    CHECK(cb_forward_new(&f, &o) == CB_EEXIST && strstr(cb_last_error(), "\"vips\""));
    return FINE;
}

static int second_process(cb_forward **out, const cb_forward_opts *o, uint32_t program) {
    cb_forward_stats s = {.size = sizeof s};
    cb_forward_vip_stats v = {.size = sizeof v};
    cb_forward_member_stats m = {.size = sizeof m};
    cb_forward_interface_stats i = {.size = sizeof i};
    CHECK(cb_forward_new(out, o) == CB_OK);
    CHECK(cb_forward_stats_get(*out, &s) == CB_OK && s.adopted && s.program_id != program);
    CHECK(s.vips == 2 && s.members == 2 && s.interfaces == 2 && s.servers == 1);
    for (size_t n = 0; n < 2; n++, v.size = sizeof v, i.size = sizeof i) {
        CHECK(cb_forward_vip_stats_get(*out, n, &v) == CB_OK && v.adopted);
        CHECK(strcmp(v.address, "198.51.100.1") || (v.port == 443 && v.protocol == CB_FORWARD_ANY && !v.quic));
        CHECK(strcmp(v.address, "2001:db8::/64") || (v.port == 0 && v.protocol == CB_FORWARD_UDP && v.quic));
        CHECK(cb_forward_interface_stats_get(*out, n, &i) == CB_OK && i.adopted);
        CHECK(strcmp(i.name, "cbt0") || (i.mode == CB_FORWARD_NATIVE && i.roles == CB_FORWARD_EDGE));
        CHECK(strcmp(i.name, "cbt1") || (i.mode == CB_FORWARD_GENERIC && i.roles == CB_FORWARD_BOTH));
    }
    CHECK(cb_forward_member_stats_get(*out, 1, &m) == CB_OK && m.id == 2 && m.encapsulation == CB_FORWARD_IPIP);
    CHECK(!strcmp(m.address, "192.0.2.2") && m.slot != CB_FW_NOBODY && m.live);
    return FINE;
}

static int stories_of_pinning(void) {
    cb_forward_opts o = options();
    cb_forward *f = NULL, *successor = NULL;
    uint32_t program = 0;
    place p;
    int rc = own_world();
    if (rc) return rc;
    o.pin_dir = FILES "/place";
    place_make(&p);
    place_member(&p, 1, 1, CB_LB_UP);
    place_member(&p, 2, 1, CB_LB_UP);
    place_run(&p, 1);
    if ((rc = first_process(&f, &o, &program)) != FINE) return rc;
    CHECK(cb_forward_sync(f, p.table) > 0);
    CHECK(count_files("table") && count_files("vips"));
    if ((rc = others_are_refused()) != FINE) return rc;
    cb_forward_free(f);
    CHECK(system("ip link show cbt0 | grep -q xdp") == 0);
    if ((rc = second_process(&successor, &o, program)) != FINE) return rc;

    CHECK(cb_forward_sync(successor, p.table) == 0); /* it is all there: not a word is written */
    CHECK(cb_forward_vip(successor, CB_OPTS(cb_forward_vip_opts, .address = "198.51.100.1", .port = 443)) == CB_OK);
    CHECK(cb_forward_member(successor, CB_OPTS(cb_forward_member_opts, .id = 1, .address = "192.0.2.1")) == CB_OK);
    CHECK(cb_forward_attach(successor, "cbt0", CB_FORWARD_AUTO, CB_FORWARD_EDGE) == CB_OK);
    CHECK(cb_forward_prune(successor) == 4); /* a VIP, a member, a form with its server ID, an interface */
    CHECK(cb_forward_prune(successor) == 0);
    CHECK(system("tc filter show dev cbt0 egress | grep -q cb_forward_mss") == 0);
    CHECK(system("ip link show cbt1 | grep -q xdp") != 0);
    cb_forward_free(successor);
    o.no_mss = 1;
    CHECK(cb_forward_new(&successor, &o) == CB_OK);
    cb_forward_free(successor);
    CHECK(system("tc filter show dev cbt0 egress | grep -q cb_forward_mss") != 0);
    CHECK(system("ip link show cbt0 | grep -q xdp") == 0);

    CHECK(cb_forward_unpin(FILES "/place") == CB_OK);
    CHECK(system("ip link show cbt0 | grep -q xdp") != 0);
    CHECK(access(FILES "/place", F_OK) < 0);
    place_drop(&p);
    return FINE;
}

Test(forward_load, a_successor_takes_over_what_is_pinned) {
    int rc = in_child(stories_of_pinning);
    if (rc == SKIP) cr_skip_test("needs root, to have a network and a BPF file system of its own");
    cr_assert_eq(rc, FINE);
}

static int stories_of_damage(void) {
    cb_forward_opts o = options();
    cb_forward *f = NULL;
    int rc = own_world();
    if (rc) return rc;
    o.pin_dir = FILES "/place";
    CHECK(cb_forward_new(&f, &o) == CB_OK);
    CHECK(cb_forward_attach(f, "cbt0", 0, 0) == CB_OK);
    f->control->layout = CB_FW_LAYOUT + 1;
    cb_forward_free(f);
    CHECK(cb_forward_new(&f, &o) == CB_EEXIST && strstr(cb_last_error(), "layout"));
    CHECK(unlink(FILES "/place/vips") == 0);
    CHECK(cb_forward_new(&f, &o) == CB_EEXIST && strstr(cb_last_error(), "maps are there"));
    CHECK(system("ip link show cbt0 | grep -q xdp") == 0);
    CHECK(mkdir(FILES "/place/mine", 0700) == 0);
    CHECK(cb_forward_unpin(FILES "/place") == CB_EINVAL && strstr(cb_last_error(), "mine"));
    CHECK(system("ip link show cbt0 | grep -q xdp") == 0); /* nothing was ended */
    CHECK(rmdir(FILES "/place/mine") == 0);
    CHECK(cb_forward_unpin(FILES "/place") == CB_OK);

    CHECK(cb_forward_new(&f, &o) == CB_OK); /* a start that did not come to its end: maps, and no link */
    cb_forward_free(f);
    CHECK(unlink(FILES "/place/vips") == 0);
    CHECK(cb_forward_new(&f, &o) == CB_OK);
    CHECK(!f->adopted);
    cb_forward_free(f);
    CHECK(chmod(FILES "/place", 0777) == 0);
    CHECK(cb_forward_new(&f, &o) == CB_EINVAL && strstr(cb_last_error(), "others may write"));
    return FINE;
}

Test(forward_load, what_cannot_be_taken_over_is_told_and_left_alone) {
    int rc = in_child(stories_of_damage);
    if (rc == SKIP) cr_skip_test("needs root, to have a network and a BPF file system of its own");
    cr_assert_eq(rc, FINE);
}

static int stories_of_interfaces(void) {
    cb_forward_opts o = options();
    cb_forward_stats s = {.size = sizeof s};
    cb_forward_interface_stats i = {.size = sizeof i};
    cb_forward *f = NULL, *other = NULL;
    int rc = own_world();
    if (rc) return rc;
    CHECK(cb_forward_new(&f, &o) == CB_OK && cb_forward_new(&other, &o) == CB_OK);
    CHECK(cb_forward_attach(other, "cbt0", CB_FORWARD_NATIVE, 0) == CB_OK);
    CHECK(cb_forward_attach(f, "cbt0", CB_FORWARD_AUTO, 0) == CB_EEXIST);
    CHECK(strstr(cb_last_error(), "\"forward\"") && strstr(cb_last_error(), "ID "));
    cb_forward_free(other); /* nothing was pinned: it leaves with its process */
    CHECK(system("ip link show cbt0 | grep -q xdp") != 0);
    CHECK(cb_forward_attach(f, "cbt0", CB_FORWARD_AUTO, CB_FORWARD_EDGE) == CB_OK);
    CHECK(cb_forward_attach(f, "cbt0", CB_FORWARD_GENERIC, CB_FORWARD_UNDERLAY) == CB_OK);
    CHECK(cb_forward_interface_stats_get(f, 0, &i) == CB_OK);
    CHECK(i.mode == CB_FORWARD_GENERIC && i.roles == CB_FORWARD_UNDERLAY && i.ifindex);
    CHECK(cb_forward_interface_stats_get(f, 1, &i) == CB_ENOENT);

    CHECK(system("ip link del cbt0") == 0);
    CHECK(cb_forward_resolve(f) == 0);
    CHECK(cb_forward_stats_get(f, &s) == CB_OK && s.missing == 1 && s.interfaces == 1);
    CHECK(system("ip link add cbt0 type veth peer name cbt1") == 0);
    CHECK(cb_forward_resolve(f) == 0);
    CHECK(cb_forward_stats_get(f, &s) == CB_OK && s.missing == 0 && s.reattached == 1);
    CHECK(system("ip link show cbt0 | grep -q xdpgeneric") == 0);

    CHECK(cb_forward_new(&other, &o) == CB_OK); /* it comes back, and somebody else is quicker */
    CHECK(system("ip link del cbt0") == 0 && cb_forward_resolve(f) == 0);
    CHECK(system("ip link add cbt0 type veth peer name cbt1") == 0);
    CHECK(cb_forward_attach(other, "cbt0", CB_FORWARD_GENERIC, 0) == CB_OK);
    CHECK(cb_forward_resolve(f) == 0 && cb_forward_resolve(f) == 0);
    CHECK(cb_forward_stats_get(f, &s) == CB_OK && s.missing == 1);
    cb_forward_free(other);
    CHECK(cb_forward_resolve(f) == 0 && cb_forward_stats_get(f, &s) == CB_OK && s.missing == 0);
    CHECK(cb_forward_detach(f, "cbt0") == CB_OK);
    CHECK(system("ip link show cbt0 | grep -q xdp") != 0);
    CHECK(cb_forward_attach(f, "lo", CB_FORWARD_NATIVE, 0) == CB_ENOTSUP);
    CHECK(cb_forward_stats_get(f, &s) == CB_OK && s.interfaces == 0);
    cb_forward_free(f);
    return FINE;
}

Test(forward_load, interfaces_go_and_come_back) {
    int rc = in_child(stories_of_interfaces);
    if (rc == SKIP) cr_skip_test("needs root, to have a network and a BPF file system of its own");
    cr_assert_eq(rc, FINE);
}

#endif
