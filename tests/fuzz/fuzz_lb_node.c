/* What hosts of a PoP say to each other about their table, and what a node keeps on its disk, with key and sum put
 * right so that the checks behind them are reached. First byte: 0 = a request at a writer that starts, 1 = at one that
 * writes, 2 = an answer at a follower, 3 = the same where the follower has a table, 4 = a saved state. */
#include "base/mem.h"
#include "base/siphash.h"
#include "lb/node_int.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t key[CB_LB_KEY_BYTES] = "a table of tests";
static const cb_time began = 1000000 * CB_LB_MS;
static const cb_lb_node_member members[] = {{.size = sizeof members[0], .id = 1, .control = "x:1"},
                                            {.size = sizeof members[0], .id = 2, .address = "192.0.2.2"},
                                            {.size = sizeof members[0], .id = 3}};

static void must(bool good) {
    if (!good) abort();
}

static unsigned answers;

static void on_answer(void *held, cb_slice answer, void *user) {
    cb_lb_answer a;
    (void)held;
    (void)user;
    must(cb_lb_answer_read(&a, answer) == CB_OK);
    answers++;
}

static cb_lb_core *core(uint32_t id, cb_slice saved) {
    static const cb_lb_core_ops ops = {.answer = on_answer};
    const cb_lb_node_opts o = {
        .id = id, .writer = 1, .members = members, .n_members = 3, .key = key, .buckets = 31, .start_ms = 1};
    cb_lb_core *c = NULL;
    const int rc = cb_lb_core_new(&c, &o, &ops, &cb_alloc_libc, saved, 7, began);
    must(rc == CB_OK || saved.len);
    return rc == CB_OK ? c : NULL;
}

/* Runs, with a disk that is quick. */
static void live(cb_lb_core *c, cb_time now) {
    uint8_t *out;
    size_t len;
    cb_lb_core_run(c, now);
    if (cb_lb_core_save(c, &out, &len, 1, now) != 1) return;
    cb_lb_table_saved_free(out);
    cb_lb_core_saved(c, CB_OK, now);
}

static void sound(const cb_lb_core *c) {
    cb_lb_node_stats s;
    cb_lb_node_info m;
    cb_lb_core_stats(c, &s, began + CB_LB_MS);
    for (size_t i = 0; cb_lb_core_info(c, i, &m, began + CB_LB_MS) == CB_OK; i++)
        must(memchr(m.trouble, 0, sizeof m.trouble) != NULL);
    must(c->t->unowned == 0 || c->t->unowned == c->t->buckets);
}

static void ask(uint8_t *in, size_t size, bool writes) {
    cb_lb_core *c = core(1, (cb_slice){NULL, 0});
    int held = 0;
    if (writes) live(c, began + 10 * CB_LB_MS);
    if (writes) live(c, began + 11 * CB_LB_MS);
    must(!writes || c->w);
    if (size >= CB_LB_ASK_HEAD) cb_lb_put(in + 32, c->key_check, 8);
    answers = 0;
    cb_lb_core_asked(c, (cb_slice){in, size}, "somebody", &held, began + 12 * CB_LB_MS);
    must(answers <= 1);
    live(c, began + 13 * CB_LB_MS);
    live(c, began + 5000 * CB_LB_MS);
    if (writes) must(answers == 1); /* nobody waits for ever */
    sound(c);
    cb_lb_core_free(c);
}

static void give_table(cb_lb_core *c) {
    cb_lb_core *w = core(1, (cb_slice){NULL, 0});
    uint8_t *saved;
    size_t len;
    live(w, began + 10 * CB_LB_MS);
    live(w, began + 11 * CB_LB_MS);
    must(cb_lb_table_save(w->t, &saved, &len) == CB_OK && cb_lb_table_load(c->t, (cb_slice){saved, len}) == CB_OK);
    cb_lb_table_saved_free(saved);
    cb_lb_core_free(w);
}

static void answer(const uint8_t *in, size_t size, bool has_table) {
    cb_lb_core *c = core(2, (cb_slice){NULL, 0});
    cb_buf out;
    cb_buf_init(&out, &cb_alloc_libc, 1 << 20);
    if (has_table) give_table(c);
    must(cb_lb_core_ask(c, &out, began) == 1);
    cb_lb_core_answered(c, (cb_slice){in, size}, began + CB_LB_MS);
    must(!c->asking);
    out.len = 0;
    (void)cb_lb_core_ask(c, &out, began + 60000 * CB_LB_MS);
    cb_buf_free(&out);
    sound(c);
    cb_lb_core_free(c);
}

static void saved(uint8_t *in, size_t size) {
    if (size >= 8) cb_lb_put(in + size - 8, cb_siphash(key, in, size - 8), 8);
    cb_lb_core *c = core(2, (cb_slice){in, size});
    if (c) sound(c);
    cb_lb_core_free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    uint8_t *in = malloc(size);
    must(in);
    memcpy(in, data + 1, size - 1);
    if (data[0] % 5 < 2)
        ask(in, size - 1, data[0] % 5);
    else if (data[0] % 5 < 4)
        answer(in, size - 1, data[0] % 5 == 3);
    else
        saved(in, size - 1);
    free(in);
    return 0;
}
