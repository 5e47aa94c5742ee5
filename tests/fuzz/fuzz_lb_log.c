/* A log of a forwarding table, or a saved one, signed as a writer with the key would: nothing that it says corrupts the
 * table, and what was accepted is counted rightly and can be saved and loaded. First byte 1: a saved table, whose sum
 * is put right. Else records: kind, length of what it says, and that. */
#include "base/siphash.h"
#include "lb/table.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t key[CB_LB_KEY_BYTES] = "a table of tests";

static cb_lb_table *table(void) {
    cb_lb_table *t;
    if (cb_lb_table_new(&t, CB_OPTS(cb_lb_table_opts, .key = key)) < 0) abort();
    return t;
}

static void must(bool good) {
    if (!good) abort();
}

static void recount(const cb_lb_table *t) {
    static uint32_t first[CB_LB_MEMBERS_MAX];
    uint32_t announced = 0, moved = 0;
    memset(first, 0, sizeof first);
    for (uint32_t b = 0; b < t->buckets; b++) {
        const cb_lb_place p = cb_lb_table_place(t, b);
        must(p.first == CB_LB_NONE || (p.first < CB_LB_MEMBERS_MAX && t->seats[p.first].id));
        must(p.second == CB_LB_NONE || (p.second < CB_LB_MEMBERS_MAX && t->seats[p.second].id && p.second != p.first));
        if (p.first != CB_LB_NONE) first[p.first]++;
        announced += cb_lb_place_phase(p) == CB_LB_ANNOUNCED;
        moved += cb_lb_place_phase(p) == CB_LB_MOVED;
    }
    must(announced == t->announced && moved == t->moved);
    for (uint32_t i = 0; i < CB_LB_MEMBERS_MAX; i++)
        must(first[i] == t->seats[i].first);
}

static void copy(const cb_lb_table *t) {
    cb_lb_table *u = table();
    uint8_t *saved;
    size_t len;
    must(cb_lb_table_save(t, &saved, &len) == CB_OK);
    must(cb_lb_table_load(u, (cb_slice){saved, len}) == CB_OK);
    must(u->content == t->content && u->chain == t->chain);
    recount(u);
    cb_lb_table_saved_free(saved);
    cb_lb_table_free(u);
}

static void play(cb_lb_table *t, const uint8_t *data, size_t size) {
    uint8_t bytes[CB_LB_HEAD + 255 + CB_LB_CHAIN];
    while (size >= 2) {
        size_t len = data[1] < size - 2 ? data[1] : size - 2;
        cb_lb_record r = {.kind = data[0], .version = t->version + 1, .before = t->chain, .epoch = t->epoch};
        r.epoch += r.kind == CB_LB_GENESIS || r.kind == CB_LB_WRITER;
        memcpy(bytes + CB_LB_HEAD, data + 2, len);
        if (r.kind == CB_LB_GENESIS && len > 2) bytes[CB_LB_HEAD + 2] = 0; /* large tables only take time */
        if (r.kind == CB_LB_GENESIS && len > 3) bytes[CB_LB_HEAD + 3] = 0;
        const size_t all = cb_lb_record_write(bytes, &r, len, key);
        (void)cb_lb_table_apply(t, (cb_slice){bytes, all});
        data += 2 + len;
        size -= 2 + len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    cb_lb_table *t = table();
    if (data[0] == 1) {
        uint8_t *in = malloc(size + 8);
        must(in);
        memcpy(in, data + 1, size - 1);
        cb_lb_put(in + size - 1, cb_siphash(key, in, size - 1), 8);
        (void)cb_lb_table_load(t, (cb_slice){in, size + 7});
        free(in);
    } else {
        (void)cb_lb_table_apply(t, (cb_slice){data, size});
        play(t, data + 1, size - 1);
    }
    if (t->buckets) {
        recount(t);
        copy(t);
    }
    cb_lb_table_free(t);
    return 0;
}
