/* The writer: wishes, words of members and time come in; records go out. */
#include "lb/writer.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include <string.h>

#define MS 1000000ull

/* ---- birth and death ---- */

static void defaults(cb_lb_writer_opts *o) {
    if (!o->buckets) o->buckets = CB_LB_BUCKETS;
    if (!o->step_ms && !o->local) o->step_ms = 1000;
    if (!o->moves_per_step) o->moves_per_step = o->local ? o->buckets : o->buckets / 16 + 1;
    if (!o->ack_ms) o->ack_ms = 2000;
    if (!o->settle_ms) o->settle_ms = 3600000;
}

static int check(const cb_lb_writer_opts *o) {
    if (!o->table) return cb_fail(CB_EINVAL, "cb_lb_writer_opts: table is NULL");
    if (!o->epoch) return cb_fail(CB_EINVAL, "cb_lb_writer_opts: epoch is 0");
    if (o->epoch <= o->table->epoch)
        return cb_fail(CB_EPERM, "cb_lb_writer_opts: epoch %u is not above %u, that of the writer before",
                       (unsigned)o->epoch, (unsigned)o->table->epoch);
    if (o->table->buckets && o->buckets && o->buckets != o->table->buckets)
        return cb_fail(CB_EINVAL, "cb_lb_writer_opts: the table has %u buckets, not %u", (unsigned)o->table->buckets,
                       (unsigned)o->buckets);
    if (o->buckets > CB_LB_BUCKETS_MAX || (o->buckets && !cb_lb_is_prime(o->buckets)))
        return cb_fail(CB_EINVAL, "cb_lb_writer_opts: buckets is %u; it has to be a prime of at most %d",
                       (unsigned)o->buckets, CB_LB_BUCKETS_MAX);
    return CB_OK;
}

static int make_room(cb_lb_writer *w, const cb_alloc *a) {
    const size_t buckets = w->o.buckets;
    w->wants = cb_mem_new(a, CB_LB_MEMBERS_MAX * sizeof *w->wants);
    w->shares = cb_mem_get(a, CB_LB_MEMBERS_MAX * sizeof *w->shares);
    w->give = cb_mem_get(a, CB_LB_MEMBERS_MAX * sizeof *w->give);
    w->record = cb_mem_get(a, CB_LB_HEAD + buckets * CB_LB_MOVE + CB_LB_CHAIN);
    w->idle = cb_mem_new(a, (buckets + 7) / 8);
    const bool all = w->wants && w->shares && w->give && w->record && w->idle;
    return all ? CB_OK : cb_fail(CB_ENOMEM, "no memory for a writer of %zu buckets", buckets);
}

/* What the table has is wanted until somebody says otherwise. */
static void adopt(cb_lb_writer *w) {
    const cb_lb_table *t = w->t;
    for (uint32_t i = 0; i < t->seats_used; i++) {
        const cb_lb_seat *s = &t->seats[i];
        if (s->id) w->wants[w->n_wants++] = (cb_lb_want){.id = s->id, .weight = s->weight, .state = s->state};
    }
    w->announced_version = t->version;
}

int cb_lb_writer_new(cb_lb_writer **out, const cb_lb_writer_opts *opts) {
    cb_lb_writer_opts o;
    if (!out) return cb_fail(CB_EINVAL, "cb_lb_writer_new: out is NULL");
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_lb_writer_opts");
    if (rc == CB_OK) rc = check(&o);
    if (rc < 0) return rc;
    if (o.table->buckets) o.buckets = o.table->buckets;
    defaults(&o);
    cb_lb_writer *w = cb_mem_new(&o.table->alloc, sizeof *w);
    if (!w) return cb_fail(CB_ENOMEM, "no memory for a writer of a forwarding table");
    w->alloc = o.table->alloc;
    w->t = o.table;
    w->o = o;
    w->stirred = true;
    rc = make_room(w, &w->alloc);
    if (rc < 0) {
        cb_lb_writer_free(w);
        return rc;
    }
    adopt(w);
    *out = w;
    return CB_OK;
}

void cb_lb_writer_free(cb_lb_writer *w) {
    if (!w) return;
    const cb_alloc a = w->alloc;
    cb_mem_free(&a, w->wants);
    cb_mem_free(&a, w->shares);
    cb_mem_free(&a, w->give);
    cb_mem_free(&a, w->record);
    cb_mem_free(&a, w->idle);
    cb_mem_free(&a, w);
}

/* ---- what comes in ---- */

static cb_lb_want *want_of(cb_lb_writer *w, uint32_t id) {
    for (size_t i = 0; i < w->n_wants; i++)
        if (w->wants[i].id == id) return &w->wants[i];
    return NULL;
}

int cb_lb_writer_member(cb_lb_writer *w, const cb_lb_member *member) {
    cb_lb_member m;
    int rc = cb_opts_read(&m, sizeof m, member, "cb_lb_member");
    if (rc < 0) return rc;
    m.size = sizeof m;
    rc = cb_lb_member_check(&m);
    if (rc < 0) return rc;
    cb_lb_want *want = want_of(w, m.id);
    if (!want && w->n_wants == CB_LB_MEMBERS_MAX)
        return cb_fail(CB_ELIMIT, "a forwarding table has at most %d members", CB_LB_MEMBERS_MAX);
    if (!want) {
        want = &w->wants[w->n_wants++];
        *want = (cb_lb_want){.id = m.id};
    }
    want->weight = (uint16_t)m.weight;
    want->state = (uint8_t)m.state;
    want->leaves = false;
    w->stirred = true;
    return CB_OK;
}

int cb_lb_writer_remove(cb_lb_writer *w, uint32_t id) {
    cb_lb_want *want = want_of(w, id);
    if (!want) return cb_fail(CB_ENOENT, "there is no member %u", (unsigned)id);
    if (want->state == CB_LB_UP) want->state = CB_LB_DRAINING;
    want->leaves = true;
    w->stirred = true;
    return CB_OK;
}

/* The version that every living member has applied. */
static uint64_t acked_by_all(const cb_lb_writer *w) {
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; w->o.publish && !w->o.local && i < w->n_wants; i++)
        if (w->wants[i].state != CB_LB_DEAD && w->wants[i].acked < least) least = w->wants[i].acked;
    return least;
}

int cb_lb_writer_ack(cb_lb_writer *w, uint32_t id, uint64_t version) {
    cb_lb_want *want = want_of(w, id);
    if (!want) return cb_fail(CB_ENOENT, "there is no member %u", (unsigned)id);
    if (version > want->acked) want->acked = version;
    w->acked = acked_by_all(w);
    if (w->t->announced || w->waits) w->stirred = true;
    return CB_OK;
}

/* Until a host has applied a commit it still sends new flows to the old owner. */
static bool known_to_all(const cb_lb_writer *w, uint32_t version, cb_time now) {
    for (size_t i = 0; i < w->n_commits; i++)
        if (w->commits[i].version >= version && now - w->commits[i].at >= w->o.ack_ms * MS) return true;
    return w->acked >= version;
}

int cb_lb_writer_idle(cb_lb_writer *w, uint32_t id, uint32_t bucket, cb_time now) {
    if (bucket >= w->t->buckets)
        return cb_fail(CB_EINVAL, "there is no bucket %u in a table of %u", (unsigned)bucket, (unsigned)w->t->buckets);
    const cb_lb_place p = cb_lb_table_place(w->t, bucket);
    if (cb_lb_place_phase(p) != CB_LB_MOVED || w->t->seats[p.second].id != id) return 0;
    if (!known_to_all(w, p.version, now)) return 0;
    const uint8_t bit = (uint8_t)(1u << (bucket % 8));
    w->n_idle += !(w->idle[bucket / 8] & bit);
    w->idle[bucket / 8] |= bit;
    w->stirred = true;
    return 1;
}

/* ---- records ---- */

/* Publishes first: what others may have seen must not be unknown here. */
static int emit(cb_lb_writer *w, int kind, size_t body) {
    cb_lb_table *t = w->t;
    cb_lb_record r = {.kind = kind, .epoch = w->o.epoch, .version = t->version + 1, .before = t->chain};
    const size_t len = cb_lb_record_write(w->record, &r, body, t->key);
    int rc = cb_lb_table_check(t, &r);
    if (rc == CB_OK && w->o.publish) rc = w->o.publish((cb_slice){w->record, len}, w->o.user);
    if (rc < 0) return rc;
    cb_lb_table_do(t, &r);
    w->stats.records++;
    return CB_OK;
}

static int begin(cb_lb_writer *w, cb_time now) {
    int rc = CB_OK;
    if (w->begun) return CB_OK;
    if (w->t->buckets) {
        rc = emit(w, CB_LB_WRITER, 0);
    } else {
        cb_lb_put(cb_lb_body(w), w->o.buckets, 4);
        cb_lb_put(cb_lb_body(w) + 4, w->o.seed, 8);
        rc = emit(w, CB_LB_GENESIS, 12);
    }
    if (rc < 0) return rc;
    w->begun = true;
    w->announced_at = now; /* of an announcement of the writer before */
    w->announced_version = w->t->version;
    if (w->t->moved) {
        w->commits[0].version = (uint32_t)w->t->version;
        w->commits[0].at = now;
        w->n_commits = 1;
    }
    return CB_OK;
}

static int free_slot(cb_lb_writer *w) {
    for (unsigned k = 0; k < CB_LB_MEMBERS_MAX; k++) { /* slots rest as long as they can */
        const unsigned slot = (w->next_slot + k) % CB_LB_MEMBERS_MAX;
        if (!w->t->seats[slot].id) return (int)slot;
    }
    return -1;
}

/* A host that has not heard of a death sends what now lives elsewhere to who has come back, and knows nothing of it. So
 * who was dead is up again, or forgotten, only when every member has applied what gave its buckets away. */
static bool death_is_known(const cb_lb_writer *w, const cb_lb_want *want, cb_time now) {
    if (!want->buried) return false;
    return w->acked >= want->buried || now - want->buried_at >= w->o.ack_ms * MS;
}

static int tell_member(cb_lb_writer *w, cb_lb_want *want, cb_time now) {
    int slot = cb_lb_table_seat(w->t, want->id);
    const cb_lb_seat *s = slot < 0 ? NULL : &w->t->seats[slot];
    if (s && s->weight == want->weight && s->state == want->state) return CB_OK;
    if (!s && want->leaves) return CB_OK;
    if (s && s->state == CB_LB_DEAD && want->state != CB_LB_DEAD && !death_is_known(w, want, now)) {
        w->waits = true;
        return CB_OK;
    }
    if (!s) slot = free_slot(w);
    if (slot < 0) return CB_OK; /* when somebody has left */
    uint8_t *p = cb_lb_body(w);
    cb_lb_put(p, want->id, 4);
    cb_lb_put(p + 4, (uint64_t)slot, 2);
    cb_lb_put(p + 6, want->weight, 2);
    cb_lb_put(p + 8, want->state, 4);
    if (!s) w->next_slot = (uint16_t)((slot + 1) % CB_LB_MEMBERS_MAX);
    want->buried = 0;
    return emit(w, CB_LB_MEMBER, 12);
}

static int members(cb_lb_writer *w, cb_time now) {
    int rc = CB_OK;
    w->waits = false;
    for (size_t i = 0; i < w->n_wants && rc == CB_OK; i++)
        rc = tell_member(w, &w->wants[i], now);
    return rc;
}

/* Whose buckets are all given away, as far as there is anybody to take them. */
static void bury(cb_lb_writer *w, cb_time now) {
    for (size_t i = 0; i < w->n_wants; i++) {
        const int slot = cb_lb_table_seat(w->t, w->wants[i].id);
        if (slot < 0 || w->t->seats[slot].state != CB_LB_DEAD || w->wants[i].buried) continue;
        w->wants[i].buried = w->t->version;
        w->wants[i].buried_at = now;
    }
}

static int strike_off(cb_lb_writer *w, cb_time now) {
    for (size_t i = 0; i < w->n_wants;) {
        const int slot = w->wants[i].leaves ? cb_lb_table_seat(w->t, w->wants[i].id) : -1;
        const cb_lb_seat *s = slot < 0 ? NULL : &w->t->seats[slot];
        const bool early = s && s->state == CB_LB_DEAD && !death_is_known(w, &w->wants[i], now);
        if (!w->wants[i].leaves || early || (s && (s->first || s->coming || s->leaving))) {
            w->waits |= early && w->wants[i].leaves;
            i++;
            continue;
        }
        cb_lb_put(cb_lb_body(w), w->wants[i].id, 4);
        int rc = s ? emit(w, CB_LB_REMOVE, 4) : CB_OK;
        if (rc < 0) return rc;
        w->wants[i] = w->wants[--w->n_wants];
    }
    return CB_OK;
}

/* ---- buckets ---- */

static int seed(cb_lb_writer *w) {
    if (w->t->unowned != w->t->buckets || !cb_lb_table_shares(w->t, w->shares)) return CB_OK;
    return emit(w, CB_LB_SEED, 0);
}

/* Buckets changed hands: their old owners have settle_ms from now. */
static void note_change(cb_lb_writer *w, cb_time now) {
    if (w->n_commits == CB_LB_COMMITS) /* the older ones wait as long as the next */
        memmove(w->commits, w->commits + 1, --w->n_commits * sizeof w->commits[0]);
    w->commits[w->n_commits].version = (uint32_t)w->t->version;
    w->commits[w->n_commits++].at = now;
}

static int settle(cb_lb_writer *w, cb_time now) {
    uint32_t expired = 0, forced;
    size_t over = 0;
    while (over < w->n_commits && now - w->commits[over].at >= w->o.settle_ms * MS)
        expired = w->commits[over++].version;
    const size_t len = cb_lb_plan_settle(w, expired, &forced);
    int rc = len ? emit(w, CB_LB_SETTLE, len) : CB_OK;
    if (rc < 0) return rc;
    w->stats.forced += forced;
    if (w->n_idle) memset(w->idle, 0, (w->t->buckets + 7) / 8);
    w->n_idle = 0;
    w->n_commits -= over;
    memmove(w->commits, w->commits + over, w->n_commits * sizeof w->commits[0]);
    if (!w->t->moved) w->n_commits = 0;
    return CB_OK;
}

static int take(cb_lb_writer *w, size_t len, cb_time now) {
    if (!len) return CB_OK;
    int rc = emit(w, CB_LB_TAKE, len);
    if (rc < 0) return rc;
    w->stats.moves += len / CB_LB_MOVE;
    if (w->t->moved) note_change(w, now);
    return CB_OK;
}

static int rescue(cb_lb_writer *w, cb_time now) {
    const size_t len = cb_lb_plan_rescue(w);
    int rc = take(w, len, now);
    if (rc < 0) return rc;
    w->stats.taken += len / CB_LB_MOVE;
    bury(w, now);
    return rc;
}

static int commit(cb_lb_writer *w, cb_time now) {
    if (!w->t->announced) return CB_OK;
    const bool all = w->acked >= w->announced_version;
    if (!all && now - w->announced_at < w->o.ack_ms * MS) return CB_OK;
    int rc = emit(w, CB_LB_COMMIT, 0);
    if (rc < 0) return rc;
    w->stats.late += !all;
    note_change(w, now);
    return CB_OK;
}

static int move(cb_lb_writer *w, cb_time now) {
    const bool due = now >= w->step_at;
    if (w->t->announced || w->t->unowned) return CB_OK;
    const size_t len = cb_lb_plan_moves(w, due ? w->o.moves_per_step : 0);
    if (due && w->surplus) w->step_at = now + w->o.step_ms * MS; /* though all of it be on the move already */
    if (!len) return CB_OK;
    int rc = w->o.local ? take(w, len, now) : emit(w, CB_LB_ANNOUNCE, len);
    if (rc < 0) return rc;
    if (!w->o.local) w->stats.moves += len / CB_LB_MOVE;
    w->surplus -= (uint32_t)(len / CB_LB_MOVE);
    w->announced_at = now;
    w->announced_version = w->t->version;
    return CB_OK;
}

int cb_lb_writer_run(cb_lb_writer *w, cb_time now) {
    static int (*const steps[])(cb_lb_writer *, cb_time) = {settle, rescue, commit, move};
    w->acked = acked_by_all(w);
    int rc = begin(w, now);
    if (rc == CB_OK) rc = members(w, now);
    if (rc == CB_OK) rc = seed(w);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && rc == CB_OK; i++)
        rc = steps[i](w, now);
    if (rc == CB_OK) rc = strike_off(w, now);
    w->acked = acked_by_all(w);
    w->stirred = rc < 0;
    return rc;
}

static cb_time sooner(cb_time a, cb_time b) {
    return a < b ? a : b;
}

cb_time cb_lb_writer_next(const cb_lb_writer *w) {
    cb_time at = UINT64_MAX;
    if (w->stirred) return 0;
    if (w->t->announced) at = sooner(at, w->acked >= w->announced_version ? 0 : w->announced_at + w->o.ack_ms * MS);
    if (w->n_commits && w->t->moved) at = sooner(at, w->commits[0].at + w->o.settle_ms * MS);
    for (size_t i = 0; i < w->n_wants && w->waits; i++)
        if (w->wants[i].buried) at = sooner(at, w->wants[i].buried_at + w->o.ack_ms * MS);
    /* Those that are on the move already have to arrive first. */
    if (w->surplus && !w->t->announced) at = sooner(at, w->step_at);
    return at;
}

int cb_lb_writer_stats_get(const cb_lb_writer *w, cb_lb_writer_stats *out) {
    cb_lb_writer_stats all = w->stats;
    all.waiting = w->surplus;
    return cb_stats_give(out, &all, sizeof all, "cb_lb_writer_stats");
}
