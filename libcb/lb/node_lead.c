/* The writer: who asks, what they get, and when the table is changed. */
#include "base/error.h"
#include "lb/node_int.h"
#include <stdio.h>
#include <string.h>

enum { EPOCHS_AHEAD = 1 << 20 };

/* ---- records for those who are behind ---- */

static void ring_drop(cb_lb_core *c, size_t n) {
    for (size_t i = 0; i < n; i++) {
        c->ring_bytes -= c->ring[i].len;
        cb_mem_free(&c->alloc, c->ring[i].bytes);
    }
    if (!n) return;
    c->base_version += n;
    c->base_chain = c->ring[n - 1].chain;
    c->ring_n -= n;
    memmove(c->ring, c->ring + n, c->ring_n * sizeof *c->ring);
}

static void ring_reset(cb_lb_core *c) {
    ring_drop(c, c->ring_n);
    c->base_version = c->t->version;
    c->base_chain = c->t->chain;
}

static int publish(cb_slice record, void *user) {
    cb_lb_core *c = user;
    if (c->ring_n == c->ring_cap) {
        const size_t cap = c->ring_cap ? c->ring_cap * 2 : 64;
        cb_lb_kept *ring = cb_mem_grow(&c->alloc, c->ring, cap * sizeof *ring);
        if (!ring) return cb_fail(CB_ENOMEM, "no memory for the log of a forwarding table");
        c->ring = ring;
        c->ring_cap = cap;
    }
    uint8_t *bytes = cb_mem_get(&c->alloc, record.len);
    if (!bytes) return cb_fail(CB_ENOMEM, "no memory for a record of %zu bytes", record.len);
    memcpy(bytes, record.base, record.len);
    c->ring[c->ring_n++] = (cb_lb_kept){
        .bytes = bytes, .len = record.len, .chain = cb_lb_get(record.base + record.len - CB_LB_CHAIN, CB_LB_CHAIN)};
    c->ring_bytes += record.len;
    c->records++;
    size_t over = 0, left = c->ring_bytes;
    while (over + 1 < c->ring_n && left > CB_LB_RING_BYTES)
        left -= c->ring[over++].len;
    ring_drop(c, over);
    return CB_OK;
}

/* Has this host our history, as far as it knows it? */
static bool of_our_line(const cb_lb_core *c, uint64_t version, uint64_t chain) {
    if (version < c->base_version || version > c->base_version + c->ring_n) return false;
    return chain == (version == c->base_version ? c->base_chain : c->ring[version - c->base_version - 1].chain);
}

/* ---- answers ---- */

static void give(cb_lb_core *c, cb_lb_host *h, cb_lb_answer *a) {
    cb_buf out;
    void *held = h->held;
    cb_buf_init(&out, &c->alloc, SIZE_MAX / 2);
    h->held = NULL;
    a->writer = c->o.id;
    a->epoch = c->t->epoch;
    a->heartbeat_ms = c->o.heartbeat_ms;
    a->version = c->t->version;
    a->text = cb_slice_str(h->trouble);
    if (cb_lb_answer_write(&out, a) < 0) cb_buf_free(&out); /* an empty answer is none, and it asks again */
    c->ops.answer(held, cb_buf_slice(&out), c->ops.user);
    cb_buf_free(&out);
}

static void give_table(cb_lb_core *c, cb_lb_host *h) {
    uint8_t *table = NULL;
    size_t len = 0;
    cb_lb_answer a = {0};
    if (cb_lb_table_save(c->t, &table, &len) == CB_OK) {
        a.table = (cb_slice){table, len};
        c->tables++;
    }
    give(c, h, &a);
    cb_lb_table_saved_free(table);
}

static void give_records(cb_lb_core *c, cb_lb_host *h) {
    cb_lb_answer a = {0};
    cb_buf records;
    cb_buf_init(&records, &c->alloc, SIZE_MAX / 2);
    for (size_t i = h->version - c->base_version; i < c->ring_n; i++) {
        const cb_lb_kept *k = &c->ring[i];
        if (records.len && records.len + k->len > CB_LB_ANSWER_BYTES) break;
        if (cb_lb_answer_add(&records, (cb_slice){k->bytes, k->len}) < 0) break;
        a.n_records++;
    }
    a.records = cb_buf_slice(&records);
    give(c, h, &a);
    cb_buf_free(&records);
}

/* Is it ahead of us: did another writer go on, or we from an old state? */
static bool is_ahead(const cb_lb_core *c, uint32_t epoch, uint64_t version) {
    return epoch > c->t->epoch || (epoch == c->t->epoch && version > c->t->version);
}

/* Answers when there is news for it, or its time is over. */
static void serve(cb_lb_core *c, cb_lb_host *h, cb_time now) {
    if (!h->held) return;
    const bool writing = c->w && c->t->buckets;
    if (writing && (h->lost || !of_our_line(c, h->version, h->chain)))
        give_table(c, h);
    else if (writing && h->version < c->t->version)
        give_records(c, h);
    else if (now >= h->held_until)
        give(c, h, &(cb_lb_answer){0});
}

static void serve_all(cb_lb_core *c, cb_time now) {
    for (size_t i = 0; i < c->n_hosts; i++)
        serve(c, &c->hosts[i], now);
}

void cb_lb_lead_forget(cb_lb_core *c, cb_lb_host *h) {
    if (h->held) give(c, h, &(cb_lb_answer){0});
}

void cb_lb_core_gone(cb_lb_core *c, const void *held) {
    for (size_t i = 0; i < c->n_hosts; i++)
        if (c->hosts[i].held == held) c->hosts[i].held = NULL;
}

/* ---- who asks ---- */

static bool is_alive(const cb_lb_core *c, const cb_lb_host *h, cb_time now) {
    return h->heard && now - h->heard_at <= cb_lb_core_lease(c);
}

void cb_lb_core_stranger(cb_lb_core *c, const char *from, const char *why, cb_time now) {
    c->refusals++;
    if (c->refusal_told && now - c->refusal_at < 60000 * CB_LB_MS) return;
    c->refusal_told = true;
    c->refusal_at = now;
    cb_lb_core_say(c, CB_LOG_WARN, "forwarding table: %s was refused: %s", from, why);
}

static void refuse(cb_lb_core *c, void *held, const char *from, uint32_t id, const char *text, cb_time now) {
    cb_buf out;
    cb_buf_init(&out, &c->alloc, SIZE_MAX / 2);
    const cb_lb_answer a = {.status = CB_LB_STATUS_REFUSED,
                            .writer = c->o.id,
                            .heartbeat_ms = c->o.heartbeat_ms,
                            .text = cb_slice_str(text)};
    if (cb_lb_answer_write(&out, &a) < 0) cb_buf_free(&out);
    cb_lb_host *h = id == c->o.id ? NULL : cb_lb_host_find(c, id);
    if (h && !is_alive(c, h, now)) { /* says it once, until it is another or over */
        c->refusals++;
        const char *port = strrchr(from, ':'); /* another for each connection, and no other trouble for that */
        cb_lb_core_trouble(c, h->trouble, "%.*s was refused: %s", port ? (int)(port - from) : (int)strlen(from), from,
                           text);
    } else {
        cb_lb_core_stranger(c, from, text, now);
    }
    c->ops.answer(held, cb_buf_slice(&out), c->ops.user);
    cb_buf_free(&out);
}

/* What must be the same on both sides. False: text says what is not. */
static bool fits(const cb_lb_core *c, const cb_lb_ask *a, const cb_lb_host *h, char text[CB_LB_NODE_TEXT]) {
    *text = 0;
    if (a->key_check != c->key_check)
        snprintf(text, CB_LB_NODE_TEXT, "member %u has another key than the writer", (unsigned)a->id);
    else if (a->buckets != c->o.buckets)
        snprintf(text, CB_LB_NODE_TEXT, "member %u is configured for %u buckets, the writer for %u", (unsigned)a->id,
                 (unsigned)a->buckets, (unsigned)c->o.buckets);
    else if (a->writer != c->o.id)
        snprintf(text, CB_LB_NODE_TEXT, "member %u takes %u for the writer, but %u asks to be it", (unsigned)a->id,
                 (unsigned)a->writer, (unsigned)c->o.id);
    else if (a->id == c->o.id)
        snprintf(text, CB_LB_NODE_TEXT, "two hosts have the ID %u: it is the writer's own", (unsigned)a->id);
    else if (!h)
        snprintf(text, CB_LB_NODE_TEXT, "the writer has no member %u in its configuration", (unsigned)a->id);
    return !*text;
}

/* A start that another one has replaced speaks again: so both run, with one ID. The later one is in the wrong. */
static bool is_double(cb_lb_core *c, cb_lb_host *h, const cb_lb_ask *a, cb_time now) {
    const cb_time twice = now + 10 * cb_lb_core_lease(c);
    if (!h->heard || a->instance == h->instance) return false;
    const bool again = h->replaced == a->instance, known = now < h->twice_until;
    if (is_alive(c, h, now) && (again || known)) h->twice_until = twice;
    if (is_alive(c, h, now) && known) return true;
    h->replaced = h->instance;
    h->instance = a->instance;
    return false;
}

/* Does it know all that we know? What differs is told, and keeps new members waiting, but nobody out: hosts get a new
 * configuration one after the other. */
static void compare_members(const cb_lb_core *c, cb_lb_host *h, const cb_lb_ask *a, char text[CB_LB_NODE_TEXT]) {
    h->knows_all = true;
    for (size_t i = 0, k = 0; i < c->n_hosts; i++) { /* both are sorted */
        const cb_lb_host *m = &c->hosts[i];
        while (k < a->n_members && cb_lb_ask_member_id(a, k) < m->id)
            k++;
        const bool there = k < a->n_members && cb_lb_ask_member_id(a, k) == m->id;
        const bool same = there && cb_lb_ask_member_sum(a, k) == m->sum;
        if (m->removed || same) continue;
        h->knows_all = false;
        if (!*text)
            snprintf(text, CB_LB_NODE_TEXT,
                     there ? "member %u has another address for member %u than the writer"
                           : "member %u has no member %u in its configuration",
                     (unsigned)h->id, (unsigned)m->id);
    }
    for (size_t k = 0; k < a->n_members && !*text; k++) {
        const cb_lb_host *m = cb_lb_host_find(c, cb_lb_ask_member_id(a, k));
        if (!m || m->removed)
            snprintf(text, CB_LB_NODE_TEXT, "member %u has a member %u in its configuration that the writer has not",
                     (unsigned)h->id, (unsigned)cb_lb_ask_member_id(a, k));
    }
}

/* While it waits for the others: the newest table of all is gone on with. True: h was answered. */
static bool look_for_newer(cb_lb_core *c, cb_lb_host *h, const cb_lb_ask *a) {
    if (a->epoch > c->epoch_heard) c->epoch_heard = a->epoch;
    if (!a->version || !is_ahead(c, a->epoch, a->version)) return false;
    if (!a->table.len) {
        give(c, h, &(cb_lb_answer){.flags = CB_LB_ANSWER_SEND_TABLE});
        return true;
    }
    const bool right = cb_lb_saved_is(a->table, c->o.buckets, a->epoch, a->version);
    if (!right || cb_lb_table_load(c->t, a->table) < 0) {
        cb_lb_core_say(c, CB_LOG_WARN, "forwarding table: that of member %u cannot be used: %s", (unsigned)h->id,
                       right ? cb_last_error() : "another number of buckets, epoch or version than it says");
        return false;
    }
    c->tables++;
    cb_lb_core_say(c, CB_LOG_INFO, "forwarding table: goes on from that of member %u, version %llu of epoch %u",
                   (unsigned)h->id, (unsigned long long)c->t->version, (unsigned)c->t->epoch);
    return false;
}

/* It is ahead of us, who write: another writer was at work, or an old state file came back. Its table is replaced by
 * ours, under an epoch that is larger than all. */
static void rise_above(cb_lb_core *c, const cb_lb_host *h, uint32_t epoch, cb_time now) {
    if (c->raised_at && now - c->raised_at < cb_lb_core_lease(c)) return;
    c->raised_at = now;
    c->epoch_heard = epoch > c->epoch_heard ? epoch : c->epoch_heard;
    cb_lb_core_say(c, CB_LOG_WARN,
                   "forwarding table: member %u has version %llu of epoch %u, and we write epoch %u: "
                   "begins anew above it",
                   (unsigned)h->id, (unsigned long long)h->version, (unsigned)epoch, (unsigned)c->t->epoch);
    cb_lb_writer_free(c->w);
    c->w = NULL;
    c->started = false;
    c->start_until = now;
}

static void take_word(cb_lb_core *c, cb_lb_host *h, const cb_lb_ask *a, cb_time now) {
    cb_lb_lead_heard(c, h, now);
    h->epoch = a->epoch;
    h->version = a->version;
    h->chain = a->chain;
    h->lost = a->flags & CB_LB_ASK_LOST;
    h->load = a->load;
    h->stops = a->flags & CB_LB_ASK_LEAVES;
    const bool ours = c->w && !h->lost && of_our_line(c, a->version, a->chain);
    if (!ours) return;
    h->acked = a->applied < a->version ? a->applied : a->version;
    cb_lb_writer_ack(c->w, h->id, h->acked);
    for (size_t i = 0; i < a->n_idle; i++)
        if (cb_lb_ask_idle(a, i) < c->t->buckets) cb_lb_writer_idle(c->w, h->id, cb_lb_ask_idle(a, i), now);
}

/* Epochs that nobody can have reached would use up the numbers. */
static bool believable(const cb_lb_core *c, const cb_lb_ask *a, char text[CB_LB_NODE_TEXT]) {
    const uint64_t ours = c->epoch > c->t->epoch ? c->epoch : c->t->epoch;
    if (a->epoch <= ours + EPOCHS_AHEAD && a->version <= INT32_MAX) return true;
    snprintf(text, CB_LB_NODE_TEXT, "member %u claims epoch %u and version %llu; the writer has %llu", (unsigned)a->id,
             (unsigned)a->epoch, (unsigned long long)a->version, (unsigned long long)ours);
    return false;
}

void cb_lb_core_asked(cb_lb_core *c, cb_slice bytes, const char *from, void *held, cb_time now) {
    cb_lb_ask a;
    char text[CB_LB_NODE_TEXT] = "";
    if (!cb_lb_core_leads(c)) {
        snprintf(text, sizeof text, "member %u is not the writer", (unsigned)c->o.id);
        refuse(c, held, from, 0, text, now);
        return;
    }
    if (cb_lb_ask_read(&a, bytes) < 0) {
        snprintf(text, sizeof text, "%.200s", cb_last_error());
        refuse(c, held, from, 0, text, now);
        return;
    }
    cb_lb_host *h = cb_lb_host_find(c, a.id);
    bool good = fits(c, &a, h, text) && believable(c, &a, text);
    if (good && is_double(c, h, &a, now)) {
        good = false;
        snprintf(text, sizeof text, "two hosts have the ID %u, and the other one was first", (unsigned)a.id);
    }
    if (!good) {
        refuse(c, held, from, a.id, text, now);
        return;
    }
    cb_lb_lead_forget(c, h); /* an older request of the same host */
    if (!h->heard) h->instance = a.instance;
    h->held = held;
    h->held_until = now + (cb_time)c->o.heartbeat_ms * CB_LB_MS;
    compare_members(c, h, &a, text);
    const cb_lb_host *blind = cb_lb_table_seat(c->t, a.id) < 0 ? cb_lb_lead_blind(c) : NULL;
    if (!*text && now < h->twice_until) snprintf(text, sizeof text, "two hosts have the ID %u", (unsigned)a.id);
    if (!*text && blind)
        snprintf(text, sizeof text, "member %u waits to come into the table until member %u knows it", (unsigned)a.id,
                 (unsigned)blind->id);
    cb_lb_core_trouble(c, h->trouble, *text ? "%s" : NULL, text);
    take_word(c, h, &a, now);
    if (!c->w && !c->started)
        look_for_newer(c, h, &a);
    else if (c->w && a.version && is_ahead(c, a.epoch, a.version))
        rise_above(c, h, a.epoch, now);
    cb_lb_core_run(c, now);
}

/* ---- beginning to write ---- */

void cb_lb_lead_init(cb_lb_core *c, cb_time now) {
    c->start_until = now + (cb_time)c->o.start_ms * CB_LB_MS;
}

void cb_lb_lead_free(cb_lb_core *c) {
    cb_lb_writer_free(c->w);
    ring_drop(c, c->ring_n);
    cb_mem_free(&c->alloc, c->ring);
}

/* All that may have a newer table have been heard, and have brought it. */
static bool all_heard(const cb_lb_core *c) {
    for (size_t i = 0; i < c->n_hosts; i++) {
        const cb_lb_host *h = &c->hosts[i];
        const int seat = cb_lb_table_seat(c->t, h->id);
        const bool dead = seat >= 0 && c->t->seats[seat].state == CB_LB_DEAD;
        if (h->id != c->o.id && !h->removed && !dead && !h->heard) return false;
        if (h->heard && h->version && is_ahead(c, h->epoch, h->version)) return false;
    }
    return true;
}

static void choose_epoch(cb_lb_core *c, cb_time now) {
    uint32_t most = c->epoch > c->t->epoch ? c->epoch : c->t->epoch;
    if (c->epoch_heard > most) most = c->epoch_heard;
    if (most == UINT32_MAX) {
        cb_lb_core_trouble(c, c->trouble,
                           "cannot write the table: its epochs are used up; begin anew with another key");
        c->start_until = now + 60000 * CB_LB_MS;
        return;
    }
    c->epoch = most + 1;
    c->started = true;
    c->dirty = true;
    c->save_at = 0;
}

static void begin(cb_lb_core *c, cb_time now) {
    int rc = CB_OK;
    for (size_t i = 0; i < CB_LB_MEMBERS_MAX && rc == CB_OK; i++)
        if (c->t->seats[i].id && !cb_lb_host_find(c, c->t->seats[i].id)) rc = cb_lb_host_add(c, c->t->seats[i].id);
    if (rc == CB_OK)
        rc = cb_lb_writer_new(&c->w, CB_OPTS(cb_lb_writer_opts, .table = c->t, .publish = publish, .user = c,
                                             .epoch = c->epoch, .buckets = c->o.buckets, .seed = c->o.seed,
                                             .moves_per_step = c->o.moves_per_step, .step_ms = c->o.step_ms,
                                             .ack_ms = c->o.ack_ms, .settle_ms = c->o.settle_ms));
    if (rc < 0) {
        cb_lb_core_trouble(c, c->trouble, "cannot write the table: %s", cb_last_error());
        c->start_until = now + 5000 * CB_LB_MS;
        c->started = false;
        return;
    }
    ring_reset(c);
    c->writing_since = now;
    for (size_t i = 0; i < c->n_hosts; i++) {
        c->hosts[i].told = false;
        c->hosts[i].acked = 0;
        c->hosts[i].held_back = false;
    }
    cb_lb_core_say(c, CB_LOG_INFO, "forwarding table: writes epoch %u from version %llu on", (unsigned)c->epoch,
                   (unsigned long long)c->t->version);
    if (c->ops.state) c->ops.state(c->ops.user);
}

void cb_lb_lead_run(cb_lb_core *c, cb_time now) {
    if (!c->w && !c->started && (now >= c->start_until || all_heard(c))) choose_epoch(c, now);
    if (!c->w && c->started && c->epoch_saved == c->epoch) begin(c, now);
    if (c->w) {
        const uint64_t before = c->t->version;
        cb_lb_lead_leases(c, now);
        int rc = cb_lb_lead_wishes(c);
        if (rc == CB_OK) rc = cb_lb_writer_run(c->w, now);
        if (rc < 0) cb_lb_core_say(c, CB_LOG_ERROR, "forwarding table: cannot be changed: %s", cb_last_error());
        if (c->t->version != before || (c->t->version && !c->applied && !c->table_again)) cb_lb_core_push(c, now);
    }
    serve_all(c, now);
}

cb_time cb_lb_lead_next(const cb_lb_core *c, cb_time now) {
    cb_time at = UINT64_MAX;
    for (size_t i = 0; i < c->n_hosts; i++)
        if (c->hosts[i].held && c->hosts[i].held_until < at) at = c->hosts[i].held_until;
    if (!c->w && !c->started && c->start_until < at) at = c->start_until;
    if (!c->w) return at;
    const cb_time due = cb_lb_writer_next(c->w), lease = cb_lb_lead_lease_next(c, now);
    if (due < at) at = due;
    return lease < at ? lease : at;
}
