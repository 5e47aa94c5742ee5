#include "lb/policy.h"
#include <criterion/criterion.h>
#include <string.h>

static void picks(cb_lb *lb, char *out, size_t n, bool end) {
    for (size_t i = 0; i < n; i++) {
        int64_t at = cb_lb_begin(lb, 0, 0, 0, NULL);
        out[i] = (char)('a' + at);
        if (end) cb_lb_end(lb, (size_t)at);
    }
    out[n] = '\0';
}

Test(lb_policy, turns_and_weights) {
    static const struct {
        int kind;
        uint32_t weights[3];
        bool end;
        const char *picks;
    } rows[] = {
        {CB_LB_ROUND_ROBIN, {1, 1, 1}, true, "abcabca"},         {CB_LB_ROUND_ROBIN, {5, 1, 1}, true, "aabacaaaabacaa"},
        {CB_LB_LEAST_CONNECTIONS, {1, 1, 1}, true, "abcabc"},    {CB_LB_LEAST_CONNECTIONS, {1, 1, 1}, false, "abcabc"},
        {CB_LB_LEAST_CONNECTIONS, {2, 1, 1}, false, "abcabcaa"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cb_lb lb;
        char out[32];
        cr_assert_eq(cb_lb_init(&lb, NULL, rows[i].kind, 3), CB_OK);
        for (size_t k = 0; k < 3; k++)
            lb.peers[k].weight = rows[i].weights[k];
        picks(&lb, out, strlen(rows[i].picks), rows[i].end);
        cr_expect_str_eq(out, rows[i].picks, "row %zu: %s", i, out);
        cb_lb_free(&lb);
    }
    cb_lb lb;
    cr_expect_eq(cb_lb_init(&lb, NULL, 99, 3), CB_EINVAL);
    cr_expect_eq(cb_lb_init(&lb, NULL, 0, 0), CB_OK);
    cr_expect_eq(cb_lb_begin(&lb, 0, 0, 0, NULL), -1);
    cb_lb_free(&lb);
}

Test(lb_policy, the_least_busy_wins) {
    cb_lb lb;
    cr_assert_eq(cb_lb_init(&lb, NULL, CB_LB_LEAST_CONNECTIONS, 3), CB_OK);
    lb.peers[0].active = 4;
    lb.peers[1].active = 2;
    lb.peers[2].active = 3;
    cr_expect_eq(cb_lb_begin(&lb, 0, 0, 0, NULL), 1);
    cr_expect_eq(lb.peers[1].active, 3);
    cr_expect_eq(cb_lb_begin(&lb, 0, 0, 1u << 1, NULL), 2);
    cb_lb_end(&lb, 0);
    cr_expect_eq(lb.peers[0].active, 3);
    for (int i = 0; i < 9; i++)
        cb_lb_end(&lb, 0);
    cr_expect_eq(lb.peers[0].active, 0);
    cb_lb_free(&lb);
}

Test(lb_policy, failures_take_out_for_a_while) {
    cb_lb lb;
    const cb_time s = 1000000000;
    cr_assert_eq(cb_lb_init(&lb, NULL, CB_LB_ROUND_ROBIN, 2), CB_OK);
    const cb_outlier_opts rules = cb_lb_simple_rules(3, 10000, 5000);
    cr_assert_eq(cb_lb_rules(&lb, &rules), CB_OK);
    /* spread over more than the window: stays in */
    cr_expect(!cb_lb_report(&lb, 0, CB_OUTLIER_FAILED, 0, 1 * s));
    cr_expect(!cb_lb_report(&lb, 0, CB_OUTLIER_FAILED, 0, 2 * s));
    cr_expect(!cb_lb_report(&lb, 0, CB_OUTLIER_FAILED, 0, 12 * s));
    cr_expect(!cb_lb_report(&lb, 0, CB_OUTLIER_FAILED, 0, 13 * s));
    cr_expect(cb_lb_report(&lb, 0, CB_OUTLIER_FAILED, 0, 14 * s));
    for (int i = 0; i < 4; i++)
        cr_expect_eq(cb_lb_begin(&lb, 15 * s, 0, 0, NULL), 1);
    /* all out: tried anyway, but not what was tried already */
    cr_expect(!cb_lb_report(&lb, 1, CB_OUTLIER_FAILED, 0, 15 * s));
    cr_expect(!cb_lb_report(&lb, 1, CB_OUTLIER_FAILED, 0, 15 * s));
    cr_expect(cb_lb_report(&lb, 1, CB_OUTLIER_FAILED, 0, 15 * s));
    cr_expect(!cb_lb_report(&lb, 1, CB_OUTLIER_FAILED, 0, 15 * s), "one that is out does not go out again");
    cr_expect_geq(cb_lb_begin(&lb, 16 * s, 0, 0, NULL), 0);
    cr_expect_eq(cb_lb_begin(&lb, 16 * s, 0, 1, NULL), 1);
    cr_expect_eq(cb_lb_begin(&lb, 16 * s, 0, 3, NULL), -1);
    /* one answers: in again at once; the other by time */
    (void)cb_lb_report(&lb, 1, CB_OUTLIER_WORKED, 0, 16 * s);
    cr_expect_eq(cb_lb_begin(&lb, 17 * s, 0, 0, NULL), 1);
    cr_expect_eq(cb_lb_begin(&lb, 17 * s, 0, 0, NULL), 1);
    bool seen = false;
    for (int i = 0; i < 8; i++)
        seen |= cb_lb_begin(&lb, 20 * s, 0, 0, NULL) == 0;
    cr_expect(seen);
    cb_lb_free(&lb);
}

Test(lb_policy, what_is_held_gets_nothing) {
    cb_lb lb;
    cr_assert_eq(cb_lb_init(&lb, NULL, CB_LB_ROUND_ROBIN, 3), CB_OK);
    const cb_outlier_opts rules = cb_lb_simple_rules(1, 10000, 1);
    cr_assert_eq(cb_lb_rules(&lb, &rules), CB_OK);
    lb.peers[1].held = true;
    for (int i = 0; i < 8; i++)
        cr_expect_neq(cb_lb_begin(&lb, 1, 0, 0, NULL), 1);
    cb_lb_report(&lb, 0, CB_OUTLIER_FAILED, 0, 1);
    cb_lb_report(&lb, 2, CB_OUTLIER_FAILED, 0, 1);
    for (int i = 0; i < 8; i++) /* those that are out are tried before it */
        cr_expect_neq(cb_lb_begin(&lb, 2, 0, 0, NULL), 1);
    cr_expect_eq(cb_lb_begin(&lb, 2, 0, 5, NULL), -1);
    lb.peers[0].held = lb.peers[2].held = true;
    cr_expect_eq(cb_lb_begin(&lb, 5000000, 0, 0, NULL), -1);
    lb.peers[1].held = false;
    cr_expect_eq(cb_lb_begin(&lb, 5000000, 0, 0, NULL), 1);
    cb_lb_free(&lb);
}
