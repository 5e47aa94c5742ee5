/* Lets everything pass: see Host.xdp_pass() of world.py. */
#define SECTION(name) __attribute__((section(name), used))

enum { XDP_PASS_ACTION = 2 };

SECTION("xdp") int pass(void *ctx) {
    (void)ctx;
    return XDP_PASS_ACTION;
}

SECTION("license") char terms[] = "Dual BSD/GPL";
