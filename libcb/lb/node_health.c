/* Who is alive, by the writer's leases and by what health checks say, and what the table is to have of it. */
#include "base/error.h"
#include "lb/node_int.h"

static const cb_time FLAP_NS = 600000 * CB_LB_MS;

static bool is_other(const cb_lb_core *c, const cb_lb_host *h) {
    return h->id != c->o.id && (h->heard || cb_lb_table_seat(c->t, h->id) >= 0);
}

/* How long it has been silent, as far as we listened. */
static cb_time silence(const cb_lb_core *c, const cb_lb_host *h, cb_time now) {
    const cb_time since = h->heard && h->heard_at > c->writing_since ? h->heard_at : c->writing_since;
    return now - since;
}

void cb_lb_lead_heard(cb_lb_core *c, cb_lb_host *h, cb_time now) {
    if (!h->heard || now - h->heard_at > cb_lb_core_lease(c)) h->row_since = now;
    h->heard = true;
    h->heard_at = now;
}

/* How many members there are, and how many of them may be dead. */
static size_t may_be_dead(const cb_lb_core *c, size_t *all) {
    size_t n = 0;
    for (size_t i = 0; i < c->n_hosts; i++)
        n += c->hosts[i].id == c->o.id || (!c->hosts[i].removed && is_other(c, &c->hosts[i]));
    *all = n;
    return n - (n * c->o.min_live_percent + 99) / 100;
}

/* Everybody who is dead, or soon would be: the first that dies is only the first whose time is over. */
static size_t suspects(const cb_lb_core *c, cb_time now, size_t *dead) {
    const cb_time soon = cb_lb_core_lease(c) - (cb_time)c->o.heartbeat_ms * 3 / 2 * CB_LB_MS;
    size_t n = 0;
    *dead = 0;
    for (size_t i = 0; i < c->n_hosts; i++) {
        const cb_lb_host *h = &c->hosts[i];
        if (h->removed) continue;
        *dead += h->dead || h->sick;
        n += h->dead || h->sick || (is_other(c, h) && silence(c, h, now) > soon);
    }
    return n;
}

static void die(cb_lb_core *c, cb_lb_host *h, cb_time now) {
    h->flaps = h->died_at && now - h->died_at < FLAP_NS ? (uint8_t)(h->flaps + (h->flaps < CB_LB_FLAPS)) : 0;
    h->died_at = now;
    h->dead = true;
    c->deaths++;
    cb_lb_core_say(c, CB_LOG_WARN, "forwarding table: member %u has been silent for %llu ms: dead", (unsigned)h->id,
                   (unsigned long long)(silence(c, h, now) / CB_LB_MS));
}

/* It has to be back for a while, and longer each time. */
static cb_time rises_at(const cb_lb_core *c, const cb_lb_host *h) {
    const cb_time rise = (cb_time)c->o.rise_ms * CB_LB_MS << h->flaps;
    return (h->row_since > h->died_at ? h->row_since : h->died_at) + rise;
}

static bool is_silent(const cb_lb_core *c, const cb_lb_host *h, cb_time now) {
    return silence(c, h, now) > cb_lb_core_lease(c);
}

static void look_at(cb_lb_core *c, cb_lb_host *h, size_t *dead, size_t most, bool cut_off, cb_time now) {
    h->held_back = false;
    if (h->dead && !is_silent(c, h, now) && h->heard && now >= rises_at(c, h)) {
        h->dead = false;
        c->rises++;
        cb_lb_core_say(c, CB_LOG_INFO, "forwarding table: member %u is back", (unsigned)h->id);
        return;
    }
    if (h->dead || !is_silent(c, h, now)) return;
    if (h->removed) {
        die(c, h, now);
    } else if (cut_off || *dead >= most) {
        h->held_back = true;
    } else {
        die(c, h, now);
        ++*dead;
    }
}

static void take_sick(cb_lb_host *h, size_t *dead, size_t most) {
    if (h->health != CB_LB_DEAD) {
        h->sick = false;
    } else if (!h->sick && !h->dead && *dead < most) {
        h->sick = true;
        ++*dead;
    }
}

void cb_lb_lead_leases(cb_lb_core *c, cb_time now) {
    size_t all, dead;
    const size_t most = may_be_dead(c, &all);
    const bool cut_off = suspects(c, now, &dead) > most;
    const uint32_t silent_before = c->silent;
    c->silent = 0;
    for (size_t i = 0; i < c->n_hosts; i++) {
        cb_lb_host *h = &c->hosts[i];
        if (is_other(c, h)) look_at(c, h, &dead, most, cut_off, now);
        take_sick(h, &dead, most);
        c->silent += h->held_back;
    }
    if (c->silent && !silent_before)
        cb_lb_core_trouble(
            c, c->trouble,
            "%u of %zu members are silent: too many to be dead, so it is likely this host that is cut off",
            (unsigned)c->silent, all);
    if (!c->silent && silent_before) cb_lb_core_trouble(c, c->trouble, NULL);
}

cb_time cb_lb_lead_lease_next(const cb_lb_core *c, cb_time now) {
    cb_time at = UINT64_MAX;
    for (size_t i = 0; i < c->n_hosts; i++) {
        const cb_lb_host *h = &c->hosts[i];
        if (!is_other(c, h)) continue;
        const bool silent = is_silent(c, h, now);
        cb_time due = UINT64_MAX;
        if (h->dead && !silent)
            due = rises_at(c, h);
        else if (h->held_back)
            due = now + (cb_time)c->o.heartbeat_ms * CB_LB_MS;
        else if (!h->dead && silent)
            due = now;
        else if (!h->dead)
            due = now - silence(c, h, now) + cb_lb_core_lease(c) + CB_LB_MS;
        if (due < at) at = due;
    }
    return at;
}

/* ---- what the table is to have ---- */

static uint32_t weight_of(const cb_lb_host *h) {
    const uint64_t w = (uint64_t)(h->given ? h->given : h->weight) * h->percent / 100;
    return w < 1 ? 1 : w > CB_LB_WEIGHT_MAX ? CB_LB_WEIGHT_MAX : (uint32_t)w;
}

static uint8_t state_of(const cb_lb_host *h) {
    if (h->dead || h->sick) return CB_LB_DEAD;
    return h->drained || h->stops || h->removed || h->health == CB_LB_DRAINING ? CB_LB_DRAINING : CB_LB_UP;
}

const cb_lb_host *cb_lb_lead_blind(const cb_lb_core *c) {
    for (size_t i = 0; i < c->n_hosts; i++) {
        const cb_lb_host *h = &c->hosts[i];
        if (h->id != c->o.id && h->heard && !h->dead && !h->removed && !h->knows_all) return h;
    }
    return NULL;
}

static int tell(cb_lb_core *c, cb_lb_host *h) {
    const uint8_t state = state_of(h);
    const uint32_t weight = weight_of(h);
    if (h->told && h->told_state == state && h->told_weight == weight && h->told_leaves == h->removed) return CB_OK;
    int rc = cb_lb_writer_member(c->w, CB_OPTS(cb_lb_member, .id = h->id, .weight = weight, .state = state));
    if (rc == CB_OK && h->removed) rc = cb_lb_writer_remove(c->w, h->id);
    if (rc < 0) return rc;
    h->told = true;
    h->told_state = state;
    h->told_weight = weight;
    h->told_leaves = h->removed;
    return CB_OK;
}

/* New ones come when they are heard, and all others know them. */
static bool may_come(const cb_lb_core *c, const cb_lb_host *h) {
    return !h->removed && !h->dead && (h->heard || h->id == c->o.id) && !cb_lb_lead_blind(c);
}

/* Who has left the configuration and the table. */
static void forget_left(cb_lb_core *c) {
    for (size_t i = 0; i < c->n_hosts;) {
        cb_lb_host *h = &c->hosts[i];
        if (!h->removed || !h->told_leaves || cb_lb_table_seat(c->t, h->id) >= 0) {
            i++;
            continue;
        }
        cb_lb_lead_forget(c, h);
        cb_lb_core_say(c, CB_LOG_INFO, "forwarding table: member %u has left", (unsigned)h->id);
        cb_mem_free(&c->alloc, h->address);
        cb_mem_free(&c->alloc, h->control);
        cb_mem_free(&c->alloc, h->peer);
        for (size_t k = i + 1; k < c->n_hosts; k++)
            c->hosts[k - 1] = c->hosts[k];
        c->n_hosts--;
    }
}

int cb_lb_lead_wishes(cb_lb_core *c) {
    int rc = CB_OK;
    forget_left(c);
    for (size_t i = 0; i < c->n_hosts && rc == CB_OK; i++) {
        cb_lb_host *h = &c->hosts[i];
        if (cb_lb_table_seat(c->t, h->id) >= 0 || h->told || may_come(c, h)) rc = tell(c, h);
    }
    return rc;
}
