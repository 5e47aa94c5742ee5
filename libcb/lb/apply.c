/* What each kind of record asks of a table and does to it. Everything is checked before anything changes. */
#include "base/error.h"
#include "base/mem.h"
#include "lb/table.h"

#define SAID(r) (unsigned long long)(r)->version

static bool seated(const cb_lb_table *t, uint16_t slot) {
    return slot < CB_LB_MEMBERS_MAX && t->seats[slot].id;
}

/* ---- the table itself ---- */

static int genesis_check(cb_lb_table *t, const cb_lb_record *r) {
    const uint32_t buckets = (uint32_t)cb_lb_get(r->body.base, 4);
    if (buckets > CB_LB_BUCKETS_MAX || !cb_lb_is_prime(buckets))
        return cb_fail(CB_EPROTO, "record %llu: %u buckets; a prime of at most %d is possible", SAID(r),
                       (unsigned)buckets, CB_LB_BUCKETS_MAX);
    cb_mem_free(&t->alloc, (void *)t->words); /* of one that was checked and never done */
    t->words = cb_mem_get(&t->alloc, (size_t)buckets * sizeof *t->words);
    return t->words ? CB_OK : cb_fail(CB_ENOMEM, "no memory for %u buckets", (unsigned)buckets);
}

static void genesis_do(cb_lb_table *t, const cb_lb_record *r) {
    t->seed = cb_lb_get(r->body.base + 4, 8);
    cb_lb_table_begin(t, (uint32_t)cb_lb_get(r->body.base, 4));
    for (uint32_t b = 0; b < t->buckets; b++)
        cb_lb_table_first(t, b, (cb_lb_place){.first = CB_LB_NONE, .second = CB_LB_NONE});
}

static int writer_check(cb_lb_table *t, const cb_lb_record *r) {
    if (r->epoch > t->epoch) return CB_OK;
    return cb_fail(CB_EPROTO, "record %llu: another writer begins with epoch %u, after %u", SAID(r), (unsigned)r->epoch,
                   (unsigned)t->epoch);
}

static void nothing_do(cb_lb_table *t, const cb_lb_record *r) {
    (void)t, (void)r;
}

/* ---- members ---- */

static int member_check(cb_lb_table *t, const cb_lb_record *r) {
    const uint8_t *p = r->body.base;
    const uint32_t id = (uint32_t)cb_lb_get(p, 4);
    const uint16_t slot = (uint16_t)cb_lb_get(p + 4, 2);
    const int seat = cb_lb_table_seat(t, id);
    if (!id || slot >= CB_LB_MEMBERS_MAX || p[8] > CB_LB_DEAD || p[9] || p[10] || p[11])
        return cb_fail(CB_EPROTO, "record %llu: no member can be like that", SAID(r));
    if (seat >= 0 ? seat != slot : t->seats[slot].id != 0)
        return cb_fail(CB_EPROTO, "record %llu: member %u in slot %u, which is another's, or not its own", SAID(r),
                       (unsigned)id, (unsigned)slot);
    return CB_OK;
}

static void member_do(cb_lb_table *t, const cb_lb_record *r) {
    const uint8_t *p = r->body.base;
    cb_lb_table_sit(t, (uint16_t)cb_lb_get(p + 4, 2), (uint32_t)cb_lb_get(p, 4), (uint16_t)cb_lb_get(p + 6, 2), p[8]);
}

static int remove_check(cb_lb_table *t, const cb_lb_record *r) {
    const uint32_t id = (uint32_t)cb_lb_get(r->body.base, 4);
    const int seat = id ? cb_lb_table_seat(t, id) : -1;
    if (seat < 0) return cb_fail(CB_EPROTO, "record %llu: no member %u", SAID(r), (unsigned)id);
    const cb_lb_seat *s = &t->seats[seat];
    if (s->first || s->coming || s->leaving)
        return cb_fail(CB_EPROTO, "record %llu: member %u still has buckets", SAID(r), (unsigned)id);
    return CB_OK;
}

static void remove_do(cb_lb_table *t, const cb_lb_record *r) {
    const int seat = cb_lb_table_seat(t, (uint32_t)cb_lb_get(r->body.base, 4));
    cb_lb_table_sit(t, (uint16_t)seat, 0, 0, 0);
}

/* ---- the seed ---- */

static int seed_check(cb_lb_table *t, const cb_lb_record *r) {
    if (t->unowned != t->buckets) return cb_fail(CB_EPROTO, "record %llu: the table is seeded already", SAID(r));
    cb_lb_share *shares = cb_mem_get(&t->alloc, CB_LB_MEMBERS_MAX * sizeof *shares);
    if (!t->draft) t->draft = cb_mem_get(&t->alloc, t->buckets * sizeof *t->draft);
    int rc = shares && t->draft ? CB_OK : cb_fail(CB_ENOMEM, "no memory to seed a table");
    if (rc == CB_OK) {
        const size_t n = cb_lb_table_shares(t, shares);
        rc = cb_lb_quotas(shares, n, t->buckets)
                 ? cb_lb_maglev_fill(t->draft, t->buckets, shares, n, t->seed, &t->alloc)
                 : cb_fail(CB_EPROTO, "record %llu: nobody can be given a bucket", SAID(r));
    }
    cb_mem_free(&t->alloc, shares);
    return rc;
}

static void seed_do(cb_lb_table *t, const cb_lb_record *r) {
    for (uint32_t b = 0; b < t->buckets; b++)
        cb_lb_table_put(
            t, b, (cb_lb_place){.first = (uint16_t)t->draft[b], .second = CB_LB_NONE, .version = (uint32_t)r->version});
    cb_mem_free(&t->alloc, t->draft);
    t->draft = NULL;
}

/* ---- moves ---- */

/* The buckets of a list rise; `least` is what the next one must not be below. */
static int bucket_check(const cb_lb_table *t, const cb_lb_record *r, uint32_t bucket, uint32_t *least) {
    if (bucket >= t->buckets || bucket < *least)
        return cb_fail(CB_EPROTO, "record %llu: bucket %u is out of range or out of order", SAID(r), (unsigned)bucket);
    *least = bucket + 1;
    return CB_OK;
}

static int moves_check(cb_lb_table *t, const cb_lb_record *r) {
    uint32_t least = 0;
    for (size_t i = 0; i < r->body.len / CB_LB_MOVE; i++) {
        const cb_lb_move m = cb_lb_move_at(r->body, i);
        int rc = bucket_check(t, r, m.bucket, &least);
        if (rc < 0) return rc;
        const cb_lb_place p = cb_lb_table_place(t, m.bucket);
        const bool good = seated(t, m.slot) && t->seats[m.slot].state != CB_LB_DEAD && p.first != CB_LB_NONE &&
                          p.first != m.slot && (r->kind == CB_LB_TAKE || p.second == CB_LB_NONE);
        if (!good)
            return cb_fail(CB_EPROTO, "record %llu: bucket %u cannot move to slot %u now", SAID(r), (unsigned)m.bucket,
                           (unsigned)m.slot);
    }
    return CB_OK;
}

static void announce_do(cb_lb_table *t, const cb_lb_record *r) {
    for (size_t i = 0; i < r->body.len / CB_LB_MOVE; i++) {
        const cb_lb_move m = cb_lb_move_at(r->body, i);
        cb_lb_place p = cb_lb_table_place(t, m.bucket);
        p.second = m.slot;
        p.announced = true;
        p.version = (uint32_t)r->version;
        cb_lb_table_put(t, m.bucket, p);
    }
}

static void take_do(cb_lb_table *t, const cb_lb_record *r) {
    for (size_t i = 0; i < r->body.len / CB_LB_MOVE; i++) {
        const cb_lb_move m = cb_lb_move_at(r->body, i);
        cb_lb_place p = cb_lb_table_place(t, m.bucket);
        const bool stays =
            cb_lb_place_phase(p) == CB_LB_MOVED && p.second != m.slot && t->seats[p.second].state != CB_LB_DEAD;
        p.first = m.slot;
        if (!stays) p.second = CB_LB_NONE;
        p.version = (uint32_t)r->version;
        cb_lb_table_put(t, m.bucket, p);
    }
}

static int commit_check(cb_lb_table *t, const cb_lb_record *r) {
    return t->announced ? CB_OK : cb_fail(CB_EPROTO, "record %llu: nothing is announced", SAID(r));
}

static void commit_do(cb_lb_table *t, const cb_lb_record *r) {
    for (uint32_t b = 0; b < t->buckets && t->announced; b++) {
        const cb_lb_place p = cb_lb_table_place(t, b);
        if (cb_lb_place_phase(p) != CB_LB_ANNOUNCED) continue;
        cb_lb_table_put(t, b, (cb_lb_place){.first = p.second, .second = p.first, .version = (uint32_t)r->version});
    }
}

static int settle_check(cb_lb_table *t, const cb_lb_record *r) {
    uint32_t least = 0;
    for (size_t i = 0; i < r->body.len / 4; i++) {
        const uint32_t b = (uint32_t)cb_lb_get(r->body.base + 4 * i, 4);
        int rc = bucket_check(t, r, b, &least);
        if (rc < 0) return rc;
        if (cb_lb_table_place(t, b).second == CB_LB_NONE)
            return cb_fail(CB_EPROTO, "record %llu: bucket %u has no second owner", SAID(r), (unsigned)b);
    }
    return CB_OK;
}

static void settle_do(cb_lb_table *t, const cb_lb_record *r) {
    for (size_t i = 0; i < r->body.len / 4; i++) {
        const uint32_t b = (uint32_t)cb_lb_get(r->body.base + 4 * i, 4);
        cb_lb_place p = cb_lb_table_place(t, b);
        p.second = CB_LB_NONE;
        p.version = (uint32_t)r->version;
        cb_lb_table_put(t, b, p);
    }
}

/* ---- all of them ---- */

typedef struct kind {
    size_t item; /* bytes of one; 0 = the body is empty */
    bool list;   /* any number of items from one on; else one */
    bool (*ready)(const cb_lb_table *t);
    int (*check)(cb_lb_table *t, const cb_lb_record *r);
    void (*run)(cb_lb_table *t, const cb_lb_record *r);
} kind;

static bool new_table(const cb_lb_table *t) {
    return !t->buckets;
}

static bool old_table(const cb_lb_table *t) {
    return t->buckets != 0;
}

static const kind kinds[] = {
    [CB_LB_GENESIS] = {12, false, new_table, genesis_check, genesis_do},
    [CB_LB_MEMBER] = {12, false, old_table, member_check, member_do},
    [CB_LB_REMOVE] = {4, false, old_table, remove_check, remove_do},
    [CB_LB_SEED] = {0, false, old_table, seed_check, seed_do},
    [CB_LB_ANNOUNCE] = {CB_LB_MOVE, true, old_table, moves_check, announce_do},
    [CB_LB_COMMIT] = {0, false, old_table, commit_check, commit_do},
    [CB_LB_TAKE] = {CB_LB_MOVE, true, old_table, moves_check, take_do},
    [CB_LB_SETTLE] = {4, true, old_table, settle_check, settle_do},
    [CB_LB_WRITER] = {0, false, old_table, writer_check, nothing_do},
};

static bool fits(const kind *k, size_t len) {
    if (!k->list) return len == k->item;
    return len && len % k->item == 0;
}

static int order_check(const cb_lb_table *t, const cb_lb_record *r) {
    if (r->version <= t->version)
        return cb_fail(CB_EEXIST, "record %llu was applied before; the table is at %llu", SAID(r),
                       (unsigned long long)t->version);
    if (r->epoch < t->epoch)
        return cb_fail(CB_EPERM, "record %llu is of writer %u, which writer %u has replaced", SAID(r),
                       (unsigned)r->epoch, (unsigned)t->epoch);
    if (r->version != t->version + 1)
        return cb_fail(CB_EAGAIN, "record %llu cannot follow %llu: one is missing", SAID(r),
                       (unsigned long long)t->version);
    if (r->before != t->chain) return cb_fail(CB_EPROTO, "record %llu is of another history", SAID(r));
    if (r->version > INT32_MAX) return cb_fail(CB_EPROTO, "the log is full");
    return CB_OK;
}

int cb_lb_table_check(cb_lb_table *t, const cb_lb_record *r) {
    int rc = order_check(t, r);
    if (rc < 0) return rc;
    const size_t known = sizeof kinds / sizeof kinds[0];
    const kind *k = r->kind > 0 && (size_t)r->kind < known ? &kinds[r->kind] : NULL;
    if (!k) return cb_fail(CB_EPROTO, "record %llu is of kind %d, which is not known", SAID(r), r->kind);
    if (!k->ready(t) || !fits(k, r->body.len))
        return cb_fail(CB_EPROTO, "record %llu: kind %d, %zu bytes, is not possible here", SAID(r), r->kind,
                       r->body.len);
    const bool begins = r->kind == CB_LB_GENESIS || r->kind == CB_LB_WRITER;
    if (!begins && r->epoch != t->epoch)
        return cb_fail(CB_EPROTO, "record %llu: writer %u has not begun", SAID(r), (unsigned)r->epoch);
    return k->check(t, r);
}

void cb_lb_table_do(cb_lb_table *t, const cb_lb_record *r) {
    kinds[r->kind].run(t, r);
    t->version = r->version;
    t->chain = r->chain;
    t->epoch = r->epoch;
}

int cb_lb_table_apply(cb_lb_table *t, cb_slice record) {
    cb_lb_record r;
    int rc = cb_lb_record_read(&r, record, t->key);
    if (rc == CB_OK) rc = cb_lb_table_check(t, &r);
    if (rc == CB_OK) cb_lb_table_do(t, &r);
    return rc;
}
