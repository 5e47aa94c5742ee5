/* Minimal repair: which buckets have to move. A member's due is its quota (maglev.h); nobody gives below it, nobody
 * takes above it, and what has no living owner goes first. So exactly as many buckets move as have to. */
#include "lb/writer.h"

/* ---- who is due what ---- */

/* When what is announced has happened. */
static uint32_t final(const cb_lb_seat *s) {
    return s->first - s->going + s->coming;
}

/* Sorted by ID, with quotas; give[slot] is what a living member has too many. The number of shares. */
static size_t settle_up(cb_lb_writer *w) {
    cb_lb_table *t = w->t;
    const size_t n = cb_lb_table_shares(t, w->shares);
    for (size_t i = 0; i < n; i++)
        w->shares[i].have = final(&t->seats[w->shares[i].tag]);
    if (!cb_lb_quotas(w->shares, n, t->buckets)) return 0;
    for (uint32_t i = 0; i < t->seats_used; i++)
        w->give[i] = t->seats[i].id && t->seats[i].state != CB_LB_DEAD ? final(&t->seats[i]) : 0;
    for (size_t i = 0; i < n; i++) {
        const cb_lb_share *s = &w->shares[i];
        w->give[s->tag] = s->have > s->quota ? s->have - s->quota : 0;
    }
    return n;
}

/* Those who have too little take turns. */
typedef struct turns {
    cb_lb_share *shares;
    size_t n, at;
} turns;

static cb_lb_share *next_taker(turns *t) {
    for (size_t k = 0; k < t->n; k++) {
        cb_lb_share *s = &t->shares[t->at];
        t->at = t->at + 1 == t->n ? 0 : t->at + 1;
        if (s->have < s->quota) return s;
    }
    return NULL;
}

static cb_lb_share *share_of(turns *t, uint16_t slot) {
    for (size_t i = 0; i < t->n; i++)
        if (t->shares[i].tag == slot) return &t->shares[i];
    return NULL;
}

static size_t put_move(cb_lb_writer *w, size_t at, uint32_t bucket, uint32_t slot) {
    uint8_t *p = cb_lb_body(w) + at;
    cb_lb_put(p, bucket, 4);
    cb_lb_put(p + 4, slot, 2);
    return at + CB_LB_MOVE;
}

/* ---- the dead ---- */

/* To whom a dead member's bucket goes: to whom it was announced; back to whom it came from, whose flows live; else to
 * those who have too little. */
static cb_lb_share *heir(const cb_lb_table *t, turns *takers, cb_lb_place p) {
    if (p.second != CB_LB_NONE && t->seats[p.second].state == CB_LB_UP) {
        cb_lb_share *s = share_of(takers, p.second);
        if (s) return s;
    }
    return next_taker(takers);
}

size_t cb_lb_plan_rescue(cb_lb_writer *w) {
    const cb_lb_table *t = w->t;
    size_t len = 0;
    uint32_t left = 0;
    for (uint32_t i = 0; i < t->seats_used; i++)
        if (t->seats[i].state == CB_LB_DEAD) left += t->seats[i].first;
    if (!left) return 0;
    turns takers = {.shares = w->shares, .n = settle_up(w)};
    for (uint32_t b = 0; takers.n && left; b++) {
        const cb_lb_place p = cb_lb_table_place(t, b);
        if (t->seats[p.first].state != CB_LB_DEAD) continue;
        left--;
        cb_lb_share *s = heir(t, &takers, p);
        if (!s) continue;
        if (cb_lb_place_phase(p) != CB_LB_ANNOUNCED || p.second != s->tag) s->have++;
        len = put_move(w, len, b, s->tag);
    }
    return len;
}

/* ---- second owners whose time is over ---- */

static bool dead_second(const cb_lb_table *t) {
    for (uint32_t i = 0; i < t->seats_used; i++)
        if (t->seats[i].state == CB_LB_DEAD && (t->seats[i].coming || t->seats[i].leaving)) return true;
    return false;
}

size_t cb_lb_plan_settle(cb_lb_writer *w, uint32_t expired, uint32_t *forced) {
    const cb_lb_table *t = w->t;
    size_t len = 0;
    *forced = 0;
    if (!w->n_idle && !expired && !dead_second(t)) return 0;
    for (uint32_t b = 0; b < t->buckets; b++) {
        const cb_lb_place p = cb_lb_table_place(t, b);
        if (p.second == CB_LB_NONE) continue;
        const bool idle = w->idle[b / 8] >> (b % 8) & 1;
        const bool old = !p.announced && expired && p.version <= expired;
        if (!idle && !old && t->seats[p.second].state != CB_LB_DEAD) continue;
        *forced += old && !idle;
        cb_lb_put(cb_lb_body(w) + len, b, 4);
        len += 4;
    }
    return len;
}

/* ---- the rest ---- */

size_t cb_lb_plan_moves(cb_lb_writer *w, uint32_t most) {
    const cb_lb_table *t = w->t;
    size_t len = 0;
    turns takers = {.shares = w->shares, .n = settle_up(w)};
    w->surplus = 0;
    if (!takers.n) return 0;
    for (uint32_t i = 0; i < t->seats_used; i++)
        w->surplus += w->give[i];
    uint32_t left = w->surplus < most ? w->surplus : most;
    for (uint32_t b = 0; b < t->buckets && left; b++) {
        const cb_lb_place p = cb_lb_table_place(t, b);
        if (p.second != CB_LB_NONE || !w->give[p.first]) continue;
        cb_lb_share *s = next_taker(&takers);
        if (!s) break;
        s->have++;
        w->give[p.first]--;
        left--;
        len = put_move(w, len, b, s->tag);
    }
    return len;
}
