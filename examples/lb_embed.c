/* A balancer of one's own: a forwarding table that moves no more than it must. lb_embed gives 65,537 buckets to four
 * servers by weight, lets one die, and says how many buckets changed hands and where a name goes. */
#include <cb.h>
#include <stdio.h>
#include <stdlib.h>

enum { SERVERS = 4 };

static int set(cb_lb_writer *w, uint32_t id, uint32_t weight, int state) {
    int rc = cb_lb_writer_member(w, CB_OPTS(cb_lb_member, .id = id, .weight = weight, .state = state));
    return rc < 0 ? rc : cb_lb_writer_run(w, 0);
}

static void show(const cb_lb_table *t, const char *when) {
    cb_lb_member_stats m = {.size = sizeof m};
    printf("%s:", when);
    for (size_t i = 0; cb_lb_table_member(t, i, &m) == CB_OK; i++)
        printf(" %u has %u", m.id, m.first);
    printf("\n");
}

int main(int argc, char **argv) {
    static const uint8_t key[CB_LB_KEY_BYTES] = "secret: 16 bytes"; /* or strangers aim at one server */
    const cb_slice name = cb_slice_str(argc > 1 ? argv[1] : "user-4711");
    cb_lb_table *table = NULL;
    cb_lb_writer *writer = NULL;
    cb_lb_owner owner = {0};

    int rc = cb_lb_table_new(&table, CB_OPTS(cb_lb_table_opts, .key = key));
    if (rc == CB_OK) rc = cb_lb_writer_new(&writer, CB_OPTS(cb_lb_writer_opts, .table = table, .epoch = 1, .local = 1));
    for (uint32_t id = 1; id <= SERVERS && rc == CB_OK; id++)
        rc = set(writer, id, 100 * id, CB_LB_UP);
    if (rc == CB_OK) show(table, "all are up");
    if (rc == CB_OK) rc = set(writer, 2, 200, CB_LB_DEAD);
    if (rc == CB_OK) rc = cb_lb_table_lookup(table, cb_lb_hash(key, name.base, name.len), &owner);
    if (rc == CB_OK) {
        show(table, "2 is dead");
        printf("%.*s goes to %u\n", (int)name.len, (const char *)name.base, owner.first);
    } else {
        fprintf(stderr, "lb_embed: %s: %s\n", cb_strerror(rc), cb_last_error());
    }
    cb_lb_writer_free(writer);
    cb_lb_table_free(table);
    return rc < 0;
}
