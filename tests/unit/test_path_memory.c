/* What is remembered of hosts whose paths lose packets. */
#include "transport/path_memory.h"
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static cb_addr v4(uint32_t address) {
    cb_addr a;
    memset(&a, 0, sizeof a);
    a.v4.sin_family = AF_INET;
    a.v4.sin_addr.s_addr = htonl(address);
    a.v4.sin_port = htons((uint16_t)(1000 + address % 7));
    return a;
}

static cb_addr v6(const char *text) {
    cb_addr a;
    memset(&a, 0, sizeof a);
    a.v6.sin6_family = AF_INET6;
    cr_assert_eq(inet_pton(AF_INET6, text, &a.v6.sin6_addr), 1);
    return a;
}

Test(path_memory, remembers_by_host_and_forgets) {
    static cb_path_memory m = {.key = {1, 2, 3}};
    cb_addr a = v4(0x0a000001), b = v4(0x0a000002), mapped = v6("::ffff:10.0.0.1");
    cb_addr six = v6("2001:db8::1"), neighbour = v6("2001:db8::2"), other = v6("2001:db8:0:1::1");
    cb_time now = 1000;
    cr_assert_not(cb_path_memory_lossy(&m, &a, now));
    cb_path_memory_put(&m, &a, true, now);
    cb_path_memory_put(&m, &six, true, now);
    cr_assert(cb_path_memory_lossy(&m, &a, now));
    a.v4.sin_port = htons(9);
    cr_assert(cb_path_memory_lossy(&m, &a, now), "the port does not matter");
    cr_assert(cb_path_memory_lossy(&m, &mapped, now), "the same host");
    cr_assert_not(cb_path_memory_lossy(&m, &b, now));
    cr_assert(cb_path_memory_lossy(&m, &neighbour, now), "one /64 is one host");
    cr_assert_not(cb_path_memory_lossy(&m, &other, now));
    cr_assert_not(cb_path_memory_lossy(&m, &a, now + 3600 * 1000000000ull), "paths change");
    cb_path_memory_put(&m, &a, false, now + 1);
    cr_assert_not(cb_path_memory_lossy(&m, &a, now + 1));
}

/* Any number of hosts fits; a crowd makes some forgotten, never one mistaken for another. */
Test(path_memory, is_bounded) {
    static cb_path_memory m = {.key = {9}};
    for (uint32_t i = 0; i < 100000; i++) {
        cb_addr a = v4(i);
        cb_path_memory_put(&m, &a, true, i);
        cr_assert(cb_path_memory_lossy(&m, &a, i));
    }
    unsigned known = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        cb_addr a = v4(i), stranger = v4(0x80000000u + i);
        known += cb_path_memory_lossy(&m, &a, 100000);
        cr_assert_not(cb_path_memory_lossy(&m, &stranger, 100000));
    }
    cr_assert_leq(known, CB_PATHS);
    cr_assert_gt(known, CB_PATHS * 3 / 4);
}
