/* Alt-Svc values, and what is remembered of destinations; in a time of the test's own. */
#include "base/mem.h"
#include "http/dest.h"
#include "loop/loop_int.h"
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* "host:port/ma/persist," of each alternative, "clear", or "bad". */
static const char *told(const char *value, char out[512]) {
    cb_alt_value v[3];
    bool clear;
    size_t used = 0;
    int n = cb_alt_svc_read(cb_slice_str(value), v, 3, &clear);
    out[0] = '\0';
    if (n < 0 || clear) return n < 0 ? "bad" : "clear";
    for (int i = 0; i < n; i++)
        used += (size_t)snprintf(out + used, 512 - used, "%s%s:%u/%u%s", i ? "," : "", v[i].host, v[i].port, v[i].ma_s,
                                 v[i].persist ? "/p" : "");
    return out;
}

Test(dest, alt_svc_values) {
    static const struct {
        const char *in, *out;
    } rows[] = {{"h3=\":443\"", ":443/86400"},
                {"h3=\":443\"; ma=60", ":443/60"},
                {" h3=\":443\";ma=60 ; persist=1 ", ":443/60/p"},
                {"h3=\":443\"; persist=true", ":443/86400"},
                {"h3=\"Alt.Example:8443\"", "alt.example:8443/86400"},
                {"h3=\"[2001:DB8::1]:1\"", "2001:db8::1:1/86400"},
                {"h2=\"a:1\", h3=\":2\", h3=\"b:3\"", ":2/86400,b:3/86400"},
                {"h3=\":1\",h3=\":2\",h3=\":3\",h3=\":4\"", ":1/86400,:2/86400,:3/86400"},
                {",, h3=\":1\" ,,", ":1/86400"},
                {"h3-29=\":1\", quic=\":1\"; v=\"43,46\"", ""},
                {"w%3D%3A=\"x:1\"", ""},
                {"h3=\":1\"; ma=\"7\"", ":1/7"},
                {"h3=\":1\"; ma=99999999999999999999999", ":1/2592000"},
                {"h3=\":1\"; unknown=\"a\\\"b;c,d\"; ma=5", ":1/5"},
                {"clear", "clear"},
                {" clear\t", "clear"},
                {"", ""},
                {"Clear", "bad"},
                {"clear, h3=\":1\"", "bad"},
                {"h3", "bad"},
                {"h3=:443", "bad"},
                {"h3=\":443", "bad"},
                {"h3=\"443\"", "bad"},
                {"h3=\":0\"", "bad"},
                {"h3=\":65536\"", "bad"},
                {"h3=\":4 3\"", "bad"},
                {"h3=\"[::1:443\"", "bad"},
                {"h3=\"a b:443\"", "bad"},
                {"h3=\"user@host:443\"", "bad"},
                {"h3=\":443\"; ma", "bad"},
                {"h3=\":443\"; ma=-1", "bad"},
                {"h3=\":443\"; ma=", "bad"},
                {"h3=\":443\" h3=\":444\"", "bad"},
                {"h3=\":1\", nonsense", "bad"}};
    char out[512], big[CB_ALT_VALUE_BYTES + 16];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_expect_str_eq(told(rows[i].in, out), rows[i].out, "%s: %s", rows[i].in, told(rows[i].in, out));
    memset(big, ',', sizeof big);
    big[sizeof big - 1] = '\0';
    cr_expect_str_eq(told(big, out), "bad");
}

struct memory {
    cb_dests all;
    cb_dest *t;
};

static void memory_make(struct memory *m) {
    static const uint8_t key[16] = {1};
    cb_dests_init(&m->all, &cb_alloc_libc, key, 15 * CB_SEC);
    m->t = cb_dest_get(&m->all, "a", 1);
    cr_assert_not_null(m->t);
}

Test(dest, a_failure_of_quic_is_remembered_with_back_off) {
    static const unsigned seconds[] = {15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600};
    struct memory m;
    cb_time now = 1000 * CB_SEC;
    memory_make(&m);
    cr_expect_eq(cb_dest_quic(m.t, now), CB_QUIC_UNTRIED);
    cb_dest_quic_worked(m.t);
    cr_expect_eq(cb_dest_quic(m.t, now), CB_QUIC_WORKS);
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) {
        cb_dest_quic_failed(m.t, &m.all, now);
        cr_expect_eq(cb_dest_quic(m.t, now + seconds[i] * CB_SEC - 1), CB_QUIC_BROKEN, "%zu", i);
        cr_expect_eq(cb_dest_quic(m.t, now + seconds[i] * CB_SEC), CB_QUIC_DUE, "%zu", i);
        now += seconds[i] * CB_SEC;
    }
    cb_dest_quic_worked(m.t);
    cb_dest_quic_failed(m.t, &m.all, now);
    cr_expect_eq(cb_dest_quic(m.t, now + 15 * CB_SEC), CB_QUIC_DUE, "success ends the back-off");
    cb_dests_network_changed(&m.all);
    cr_expect_eq(cb_dest_quic(m.t, now), CB_QUIC_UNTRIED, "another network may let it through");
    for (int i = 0; i < 300; i++) /* the count does not wrap */
        cb_dest_quic_failed(m.t, &m.all, now);
    cr_expect_eq(cb_dest_quic(m.t, now + 3599 * CB_SEC), CB_QUIC_BROKEN);
    cb_dest_unpin(m.t);
    cb_dests_free(&m.all);
}

Test(dest, families_and_dead_addresses) {
    struct memory m;
    cb_addr four, six, other;
    char text[32];
    cb_time now = CB_SEC;
    memory_make(&m);
    cr_assert_eq(cb_addr_parse(&four, "192.0.2.1:443", 0), CB_OK);
    cr_assert_eq(cb_addr_parse(&six, "[2001:db8::1]:443", 0), CB_OK);
    cr_expect_eq(cb_dest_family(m.t, now), 0);
    cb_dest_came_through(m.t, &four, now);
    cr_expect_eq(cb_dest_family(m.t, now), AF_INET);
    cb_dest_came_through(m.t, &six, now);
    cr_expect_eq(cb_dest_family(m.t, now + 599 * CB_SEC), AF_INET6);
    cr_expect_eq(cb_dest_family(m.t, now + 600 * CB_SEC), 0, "not for ever");
    cb_dest_went_dead(m.t, &four, now);
    cb_dest_went_dead(m.t, &four, now);
    cb_addr_set_port(&four, 80);
    cr_expect(cb_dest_is_dead(m.t, &four, now + 29 * CB_SEC), "the host, whatever the port");
    cr_expect(!cb_dest_is_dead(m.t, &four, now + 30 * CB_SEC));
    cr_expect(!cb_dest_is_dead(m.t, &six, now));
    for (int i = 2; i < 9; i++) {
        snprintf(text, sizeof text, "192.0.2.%d:443", i);
        cr_assert_eq(cb_addr_parse(&other, text, 0), CB_OK);
        cb_dest_went_dead(m.t, &other, now);
    }
    cr_expect(cb_dest_is_dead(m.t, &four, now), "eight are kept");
    cb_dest_came_through(m.t, &four, now);
    cr_expect(!cb_dest_is_dead(m.t, &four, now));
    cb_dest_unpin(m.t);
    cb_dests_free(&m.all);
}

static void say(struct memory *m, const char *value, bool more, cb_time now) {
    cb_dest_alt_svc(m->t, &m->all, cb_slice_str(value), more, now);
}

Test(dest, alternatives_live_as_long_as_they_should) {
    struct memory m;
    cb_time now = CB_SEC;
    memory_make(&m);
    say(&m, "clear", false, now);
    cr_expect_null(cb_dest_offer(m.t, now));
    say(&m, "h3=\"one:1\"; ma=10, h3=\"two:2\"; ma=20; persist=1", false, now);
    cr_expect_str_eq(cb_dest_offer(m.t, now)->v.host, "one");
    cr_expect_str_eq(cb_dest_offer(m.t, now + 10 * CB_SEC)->v.host, "two", "the first one has expired");
    cr_expect_null(cb_dest_offer(m.t, now + 20 * CB_SEC));
    say(&m, "h3=\"one:1\"", false, now);
    say(&m, "h3=\"two:2\"; persist=1", true, now);
    say(&m, "h3=broken", false, now);
    cr_expect_str_eq(cb_dest_offer(m.t, now)->v.host, "one", "a malformed value changes nothing");
    cb_dest_alt_drop(m.t, "one", 2);
    cr_expect_str_eq(cb_dest_offer(m.t, now)->v.host, "one", "another port is another alternative");
    cb_dests_network_changed(&m.all);
    cr_expect_str_eq(cb_dest_offer(m.t, now)->v.host, "two", "persist=1 survives a change of the network");
    cb_dest_alt_drop(m.t, "two", 2);
    cr_expect_null(cb_dest_offer(m.t, now));
    say(&m, "h3=\":1\"", false, now);
    say(&m, "h3=\":1\"; ma=0", false, now);
    cr_expect_null(cb_dest_offer(m.t, now), "ma=0 takes it back");
    say(&m, "h3=\":1\",h3=\":2\",h3=\":3\"", false, now);
    say(&m, "h3=\":4\"", true, now);
    cr_expect_eq(m.t->n_alts, 3, "bounded: %zu", m.t->n_alts);
    say(&m, "clear", true, now);
    cr_expect_null(cb_dest_offer(m.t, now));
    cb_dest_unpin(m.t);
    cb_dests_free(&m.all);
}

Test(dest, the_table_is_bounded) {
    struct memory m;
    char name[16];
    memory_make(&m); /* "a" stays pinned */
    cb_dest_quic_worked(m.t);
    for (int i = 0; i < 3 * CB_DEST_MAX; i++) {
        int n = snprintf(name, sizeof name, "n%d", i);
        cb_dest *t = cb_dest_get(&m.all, name, (size_t)n);
        cr_assert_not_null(t);
        cb_dest_unpin(t);
    }
    cr_expect_leq(m.all.map.len, CB_DEST_MAX, "%zu", m.all.map.len);
    cb_dest *again = cb_dest_get(&m.all, "a", 1);
    cr_expect_eq(again, m.t, "what is pinned is not dropped");
    cb_dest_unpin(again);
    cb_dest_unpin(m.t);
    cb_dests_free(&m.all);
}
