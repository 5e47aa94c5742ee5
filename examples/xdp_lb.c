/* A VIP over several servers, in the kernel: whichever host a packet reaches gives it to the one that owns its flow,
 * which answers the client directly. Run it with the same members on each host, as root:
 *
 *   xdp_lb INTERFACE VIP PORT OWN_ID ID=ADDRESS...        OWN_ID 0: this host only forwards
 *   xdp_lb eth0 198.51.100.1 443 0 1=192.0.2.11 2=192.0.2.12 3=192.0.2.13
 *
 * Servers have the VIP on their loopback interface. docs/guide/xdp.md has the rest, and a network to try it in. */
#include <cb.h>
#include <cb/forward.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile sig_atomic_t stop;

static void on_signal(int number) {
    stop = number;
}

static void say(int level, const char *module, const char *text, void *user) {
    (void)level, (void)user;
    fprintf(stderr, "%s: %s\n", module, text);
}

/* The same members in the same order make the same table on every host; who changes it while it runs sends the records
 * of one writer to all instead (docs/guide/lb.md). */
static int add(cb_forward *f, cb_lb_writer *w, const char *text) {
    char *address = NULL;
    const uint32_t id = (uint32_t)strtoul(text, &address, 10);
    if (*address++ != '=') return cb_error_set(CB_EINVAL, "members are written as ID=ADDRESS");
    int rc = cb_lb_writer_member(w, CB_OPTS(cb_lb_member, .id = id, .weight = 100));
    return rc < 0 ? rc : cb_forward_member(f, CB_OPTS(cb_forward_member_opts, .id = id, .address = address));
}

static int run(cb_forward *f, const char *interface, const cb_lb_table *table) {
    const struct timespec second = {.tv_sec = 1}, soon = {.tv_nsec = 100000000};
    int rc = cb_forward_sync(f, table);
    if (rc >= 0) rc = cb_forward_attach(f, interface, CB_FORWARD_AUTO, CB_FORWARD_BOTH);
    while (rc >= 0 && !stop) {
        rc = cb_forward_resolve(f); /* how many members have no way yet */
        if (rc >= 0 && cb_forward_run(f) >= 0) nanosleep(rc > 0 ? &soon : &second, NULL);
    }
    return rc;
}

static void show(cb_forward *f) {
    const char *name = NULL, *help = NULL;
    uint64_t n = 0;
    for (uint32_t i = 0; f && cb_forward_count(f, i, &name, &help, &n) == CB_OK; i++)
        if (n) printf("%12llu %-16s %s\n", (unsigned long long)n, name, help);
}

int main(int argc, char **argv) {
    static const uint8_t hash_key[16] = "secret: 16 bytes",
                         tag_key[16] = "another, as long"; /* the same on all hosts */
    const cb_log log = {.write = say};
    cb_forward *f = NULL;
    cb_lb_table *table = NULL;
    cb_lb_writer *writer = NULL;
    if (argc < 6) return fprintf(stderr, "usage: %s INTERFACE VIP PORT OWN_ID ID=ADDRESS...\n", argv[0]), 2;
    const char *own = getenv("XDP_LB_ADDRESS"); /* this host's, where it is no member */
    const uint32_t id = (uint32_t)strtoul(argv[4], NULL, 10);
    for (int i = 5; i < argc && id; i++)
        if (strtoul(argv[i], NULL, 10) == id && strchr(argv[i], '=')) own = strchr(argv[i], '=') + 1;
    const int six = own && strchr(own, ':') != NULL;

    (void)signal(SIGINT, on_signal), (void)signal(SIGTERM, on_signal);
    int rc = cb_lb_table_new(&table, NULL);
    if (rc == CB_OK) rc = cb_lb_writer_new(&writer, CB_OPTS(cb_lb_writer_opts, .table = table, .epoch = 1));
    if (rc == CB_OK)
        rc =
            cb_forward_new(&f, CB_OPTS(cb_forward_opts, .log = &log, .id = id, .hash_key = hash_key, .tag_key = tag_key,
                                       .address4 = six ? NULL : own, .address6 = six ? own : NULL));
    for (int i = 5; i < argc && rc == CB_OK; i++)
        rc = add(f, writer, argv[i]);
    if (rc == CB_OK) rc = cb_lb_writer_run(writer, 0);
    if (rc == CB_OK)
        rc = cb_forward_vip(f, CB_OPTS(cb_forward_vip_opts, .address = argv[2], .port = (uint16_t)atoi(argv[3])));
    if (rc == CB_OK) rc = run(f, argv[1], table);
    if (rc < 0) fprintf(stderr, "xdp_lb: %s: %s\n", cb_strerror(rc), cb_last_error());
    show(f);
    cb_forward_free(f);
    cb_lb_writer_free(writer);
    cb_lb_table_free(table);
    return rc < 0;
}
