/* A follower: asks, applies, and goes on with what it has. */
#include "base/error.h"
#include "lb/node_int.h"
#include <string.h>

/* ---- asking ---- */

int cb_lb_core_idle(cb_lb_core *c, uint32_t bucket, cb_time now) {
    if (bucket >= c->t->buckets)
        return cb_fail(CB_EINVAL, "there is no bucket %u in a table of %u", (unsigned)bucket, (unsigned)c->t->buckets);
    if (cb_lb_core_leads(c)) {
        if (c->w) cb_lb_writer_idle(c->w, c->o.id, bucket, now);
        return CB_OK;
    }
    if (!c->idle) c->idle = cb_mem_new(&c->alloc, (c->t->buckets + 7) / 8);
    if (!c->idle) return cb_fail(CB_ENOMEM, "no memory for buckets without flows");
    c->idle_buckets = c->t->buckets;
    const uint8_t bit = (uint8_t)(1u << (bucket % 8));
    c->n_idle += !(c->idle[bucket / 8] & bit);
    c->idle[bucket / 8] |= bit;
    return CB_OK;
}

static int members_add(const cb_lb_core *c, cb_buf *out) {
    uint8_t p[CB_LB_ASK_MEMBER];
    int rc = CB_OK;
    for (size_t i = 0; i < c->n_hosts && rc == CB_OK; i++) {
        cb_lb_put(p, c->hosts[i].id, 4);
        cb_lb_put(p + 4, c->hosts[i].sum, 4);
        rc = cb_buf_add(out, p, sizeof p);
    }
    return rc;
}

/* Takes up to CB_LB_IDLE_MAX of them; what is lost on the way is said again by whoever looks for flows. */
static int idle_add(cb_lb_core *c, cb_buf *out) {
    uint8_t p[4];
    int rc = CB_OK;
    size_t n = 0;
    for (size_t b = 0; c->n_idle && b < c->idle_buckets && n < CB_LB_IDLE_MAX && rc == CB_OK; b++) {
        if (!c->idle[b / 8]) {
            b |= 7;
            continue;
        }
        const uint8_t bit = (uint8_t)(1u << (b % 8));
        if (!(c->idle[b / 8] & bit)) continue;
        cb_lb_put(p, b, 4);
        rc = cb_buf_add(out, p, sizeof p);
        if (rc < 0) break;
        c->idle[b / 8] &= (uint8_t)~bit;
        c->n_idle--;
        n++;
    }
    return rc;
}

static int write_ask(cb_lb_core *c, cb_buf *out) {
    cb_buf members, idle;
    uint8_t *table = NULL;
    size_t table_len = 0;
    cb_buf_init(&members, &c->alloc, SIZE_MAX / 2);
    cb_buf_init(&idle, &c->alloc, SIZE_MAX / 2);
    int rc = c->send_table && c->t->buckets ? cb_lb_table_save(c->t, &table, &table_len) : CB_OK;
    if (rc == CB_OK) rc = members_add(c, &members);
    if (rc == CB_OK) rc = idle_add(c, &idle);
    const cb_lb_ask a = {.flags = (uint8_t)((c->leaves ? CB_LB_ASK_LEAVES : 0) | (c->lost ? CB_LB_ASK_LOST : 0)),
                         .id = c->o.id,
                         .writer = c->o.writer,
                         .buckets = c->o.buckets,
                         .epoch = c->t->epoch,
                         .instance = c->instance,
                         .key_check = c->key_check,
                         .version = c->t->version,
                         .chain = c->t->chain,
                         .applied = c->applied,
                         .load = c->load,
                         .n_members = c->n_hosts,
                         .n_idle = idle.len / 4,
                         .members = cb_buf_slice(&members),
                         .idle = cb_buf_slice(&idle),
                         .table = {table, table_len}};
    if (rc == CB_OK) rc = cb_lb_ask_write(out, &a);
    cb_buf_free(&members);
    cb_buf_free(&idle);
    cb_lb_table_saved_free(table);
    return rc;
}

int cb_lb_core_ask(cb_lb_core *c, cb_buf *out, cb_time now) {
    if (cb_lb_core_leads(c) || c->asking || now < c->ask_at) return 0;
    int rc = write_ask(c, out);
    if (rc < 0) {
        c->ask_at = now + (cb_time)c->heartbeat_ms * CB_LB_MS;
        cb_lb_core_trouble(c, c->trouble, "the writer cannot be asked: %s", cb_last_error());
        return 0;
    }
    c->send_table = false;
    c->asking = true;
    c->asked_at = now;
    return 1;
}

/* ---- answers ---- */

static cb_time beats(const cb_lb_core *c, unsigned n, unsigned of) {
    return (cb_time)c->heartbeat_ms * n / of * CB_LB_MS;
}

static int take_table(cb_lb_core *c, cb_slice table) {
    int rc = cb_lb_table_load(c->t, table);
    if (rc < 0) return rc;
    c->tables++;
    c->lost = false;
    cb_lb_core_say(c, CB_LOG_INFO, "forwarding table: took over that of the writer, version %llu of epoch %u",
                   (unsigned long long)c->t->version, (unsigned)c->t->epoch);
    return CB_OK;
}

static int take_records(cb_lb_core *c, const cb_lb_answer *a) {
    cb_slice record;
    size_t at = 0;
    while (cb_lb_answer_next(a, &at, &record)) {
        int rc = cb_lb_table_apply(c->t, record);
        if (rc == CB_EEXIST) continue;
        if (rc < 0) {
            c->lost = rc != CB_ENOMEM;
            return rc;
        }
        c->records++;
    }
    return CB_OK;
}

/* What it says, as far as it was no refusal. True: it brought news. */
static bool take_answer(cb_lb_core *c, const cb_lb_answer *a, cb_time now) {
    const uint64_t before = c->t->chain;
    const uint32_t buckets = c->t->buckets;
    int rc = a->table.len ? take_table(c, a->table) : CB_OK;
    if (rc == CB_OK) rc = take_records(c, a);
    const bool changed = c->t->chain != before || c->t->buckets != buckets;
    /* A writer that only starts knows no version yet. */
    const bool first = !c->applied && c->t->version && a->version == c->t->version && a->epoch == c->t->epoch;
    c->send_table = a->flags & CB_LB_ANSWER_SEND_TABLE;
    c->spoken = true;
    c->contact_at = now;
    if (a->heartbeat_ms >= 50 && a->heartbeat_ms <= 60000) c->heartbeat_ms = a->heartbeat_ms;
    if (changed || first) cb_lb_core_push(c, now);
    if (rc < 0)
        cb_lb_core_trouble(c, c->trouble, "what the writer says does not fit our table: %s", cb_last_error());
    else if (!c->table_again)
        cb_lb_core_trouble(c, c->trouble, a->text.len ? "%.*s" : NULL, (int)a->text.len, (const char *)a->text.base);
    return changed || (rc < 0 && c->lost) || c->send_table;
}

void cb_lb_core_answered(cb_lb_core *c, cb_slice answer, cb_time now) {
    cb_lb_answer a;
    const bool was_lost = c->lost;
    c->asking = false;
    if (cb_lb_answer_read(&a, answer) < 0) {
        cb_lb_core_unanswered(c, now);
        return;
    }
    if (a.status == CB_LB_STATUS_REFUSED) {
        c->refused = true;
        c->ask_at = now + beats(c, 1, 1);
        cb_lb_core_trouble(c, c->trouble, "the writer refuses us: %.*s", (int)a.text.len, (const char *)a.text.base);
    } else if (a.writer != c->o.writer) {
        c->ask_at = now + beats(c, 1, 1);
        cb_lb_core_trouble(c, c->trouble, "who answers as the writer, %u, is %u", (unsigned)c->o.writer,
                           (unsigned)a.writer);
    } else {
        c->refused = false;
        const bool news = take_answer(c, &a, now);
        /* Who answers at once without news, or with what never fits, is not asked all the time. */
        const bool fast = news && !(was_lost && c->lost);
        c->ask_at = fast || now - c->asked_at >= beats(c, 1, 4) ? now : now + beats(c, 1, 4);
    }
    cb_lb_core_run(c, now);
}

void cb_lb_core_unanswered(cb_lb_core *c, cb_time now) {
    c->asking = false;
    c->ask_at = now + beats(c, 1, 2);
    cb_lb_core_trouble(c, c->trouble, "the writer does not answer: %s", cb_last_error());
    cb_lb_core_run(c, now);
}

/* ---- time ---- */

/* What came from the disk is older than what the datapath may have kept, so it waits for the writer's word a little. */
static cb_time patience(const cb_lb_core *c) {
    return c->began_at + beats(c, 2, 1);
}

static bool waits_for_word(const cb_lb_core *c) {
    return !c->applied && c->t->version && !c->table_again;
}

void cb_lb_follow_run(cb_lb_core *c, cb_time now) {
    if (waits_for_word(c) && now >= patience(c)) cb_lb_core_push(c, now);
}

cb_time cb_lb_follow_next(const cb_lb_core *c, cb_time now) {
    cb_time at = c->asking ? UINT64_MAX : c->ask_at;
    if (waits_for_word(c) && patience(c) < at) at = patience(c);
    const cb_time alone = c->contact_at + cb_lb_core_lease(c) + CB_LB_MS;
    if (c->spoken && alone > now && alone < at) at = alone;
    return at;
}
