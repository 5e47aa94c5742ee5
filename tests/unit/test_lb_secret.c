/* The secret of a PoP, keys that are made from it, and hashes of flows as the datapath makes them. */
#include "support/tls_fixture.h"
#include <cb/lb_node.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Test(lb_secret, keys_for_each_purpose) {
    uint8_t secret[CB_LB_SECRET_BYTES], a[CB_LB_KEY_BYTES], b[CB_LB_KEY_BYTES];
    for (size_t i = 0; i < sizeof secret; i++)
        secret[i] = (uint8_t)i;
    cr_assert_eq(cb_lb_secret_key(a, secret, "chain"), CB_OK);
    cr_assert_eq(cb_lb_secret_key(b, secret, "hash"), CB_OK);
    cr_expect(memcmp(a, b, sizeof a) != 0);
    /* Python: hmac.new(b"libcb forwarding", bytes(range(32)), "sha256"), then of b"chain\1" by that */
    static const uint8_t chain[] = {0x4c, 0xcf, 0xf9, 0x9f, 0x11, 0x0c, 0x92, 0x7a,
                                    0x48, 0x62, 0xf3, 0x67, 0x36, 0x0b, 0x97, 0x53};
    cr_expect_arr_eq(a, chain, sizeof chain);
    cr_expect_eq(cb_lb_secret_key(NULL, secret, "chain"), CB_EINVAL);
}

Test(lb_secret, files_that_are_none) {
    tls_pki pki;
    char path[160];
    uint8_t secret[CB_LB_SECRET_BYTES];
    tls_pki_make(&pki);
    tls_pki_path(&pki, "secret", path);
    cr_expect_eq(cb_lb_secret_read(secret, path), CB_ENOENT);
    for (size_t n = 31; n <= 33; n++) {
        FILE *f = fopen(path, "w");
        cr_assert(f);
        for (size_t i = 0; i < n; i++)
            fputc((int)(i + 1), f);
        fclose(f);
        chmod(path, 0600);
        cr_expect_eq(cb_lb_secret_read(secret, path), n == 32 ? CB_OK : CB_EINVAL, "%zu bytes", n);
        if (n == 32) cr_expect(secret[0] == 1 && secret[31] == 32);
        chmod(path, 0640);
        if (n == 32) cr_expect_eq(cb_lb_secret_read(secret, path), CB_EPERM);
    }
    cr_expect_eq(cb_lb_secret_read(secret, pki.dir), CB_EINVAL);
    unlink(path);
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_expect_eq(cb_lb_secret_read(secret, path), CB_EINVAL, "a pipe, and nobody waits for its writer");
    tls_pki_drop(&pki);
}

Test(lb_secret, flows_hash_as_on_the_wire) {
    static const uint8_t key[CB_LB_KEY_BYTES] = "a table of tests";
    static const uint8_t four[] = {192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x34, 1, 187, 6};
    uint8_t six[37] = {0x20, 1, 0xd, 0xb8, [15] = 1, [16] = 0x20, 1, 0xd, 0xb8, [31] = 2, [32] = 0, 80, 0, 53, 17};
    uint64_t h = 0;
    cr_assert_eq(cb_lb_flow_hash(&h, key, "192.0.2.1:4660", "198.51.100.1:443", 6), CB_OK);
    cr_expect_eq(h, cb_lb_hash(key, four, sizeof four));
    cr_assert_eq(cb_lb_flow_hash(&h, key, "[2001:db8::1]:80", "[2001:db8::2]:53", 17), CB_OK);
    cr_expect_eq(h, cb_lb_hash(key, six, sizeof six));
    cr_expect_eq(cb_lb_flow_hash(&h, key, "192.0.2.1:1", "[2001:db8::2]:53", 17), CB_EINVAL);
    cr_expect(strstr(cb_last_error(), "two families"));
    cr_expect_eq(cb_lb_flow_hash(&h, key, "somewhere", "192.0.2.1:53", 17), CB_EINVAL);
    cr_expect_eq(cb_lb_flow_hash(&h, key, "192.0.2.1:1", "192.0.2.1:53", 1), CB_EINVAL);
}
