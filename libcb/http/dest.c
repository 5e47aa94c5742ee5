#include "http/dest.h"
#include "base/mem.h"
#include "loop/loop_int.h"
#include <string.h>

#define FAMILY_LIFE  (600 * CB_SEC)
#define DEAD_LIFE    (30 * CB_SEC)
#define BACK_OFF_MAX (3600 * CB_SEC)

/* ---- the table ---- */

void cb_dests_init(cb_dests *d, const cb_alloc *alloc, const uint8_t hash_key[16], cb_time first_delay) {
    *d = (cb_dests){.alloc = alloc, .first_delay = first_delay, .max = CB_DEST_MAX};
    cb_map_init(&d->map, alloc, hash_key);
    cb_list_init(&d->order);
}

static void drop(cb_dests *d, cb_dest *t) {
    cb_list_del(&t->link);
    cb_map_del(&d->map, t->key, t->key_len);
    cb_mem_free(d->alloc, t->alts);
    cb_mem_free(d->alloc, t);
}

void cb_dests_free(cb_dests *d) {
    while (!cb_list_empty(&d->order))
        drop(d, CB_CONTAINER(d->order.next, cb_dest, link));
    cb_map_free(&d->map);
}

static void make_room(cb_dests *d) {
    for (cb_list *l = d->order.next, *next; d->map.len >= d->max && l != &d->order; l = next) {
        next = l->next;
        cb_dest *t = CB_CONTAINER(l, cb_dest, link);
        if (!t->pins) drop(d, t);
    }
}

cb_dest *cb_dest_get(cb_dests *d, const void *key, size_t len) {
    cb_dest *t = cb_map_get(&d->map, key, len);
    if (!t) {
        make_room(d);
        t = cb_mem_new(d->alloc, sizeof *t + len);
        if (!t) return NULL;
        t->key_len = len;
        memcpy(t->key, key, len);
        cb_list_init(&t->link);
        if (cb_map_put(&d->map, key, len, t) < 0) {
            cb_mem_free(d->alloc, t);
            return NULL;
        }
    }
    cb_list_del(&t->link);
    cb_list_add_tail(&d->order, &t->link);
    t->pins++;
    return t;
}

void cb_dest_unpin(cb_dest *t) {
    if (t) t->pins--;
}

void cb_dests_network_changed(cb_dests *d) {
    for (cb_list *l = d->order.next; l != &d->order; l = l->next) {
        cb_dest *t = CB_CONTAINER(l, cb_dest, link);
        size_t kept = 0;
        for (size_t i = 0; i < t->n_alts; i++)
            if (t->alts[i].v.persist) t->alts[kept++] = t->alts[i];
        t->n_alts = kept;
        t->family = 0;
        t->quic_works = false;
        t->quic_failures = 0;
        t->broken_until = 0;
        memset(t->dead, 0, sizeof t->dead);
    }
}

/* ---- QUIC ---- */

int cb_dest_quic(const cb_dest *t, cb_time now) {
    if (t->quic_failures) return now < t->broken_until ? CB_QUIC_BROKEN : CB_QUIC_DUE;
    return t->quic_works ? CB_QUIC_WORKS : CB_QUIC_UNTRIED;
}

void cb_dest_quic_worked(cb_dest *t) {
    t->quic_works = true;
    t->quic_failures = 0;
}

void cb_dest_quic_failed(cb_dest *t, const cb_dests *d, cb_time now) {
    cb_time delay = d->first_delay;
    for (uint8_t i = 0; i < t->quic_failures && delay < BACK_OFF_MAX; i++)
        delay *= 2;
    if (t->quic_failures < UINT8_MAX) t->quic_failures++;
    t->broken_until = now + (delay < BACK_OFF_MAX ? delay : BACK_OFF_MAX);
    t->quic_works = false;
}

/* ---- addresses ---- */

void cb_dest_came_through(cb_dest *t, const cb_addr *at, cb_time now) {
    if (at->sa.sa_family == AF_UNIX) return;
    t->family = at->sa.sa_family == AF_INET ? 4 : 6;
    t->family_until = now + FAMILY_LIFE;
    for (size_t i = 0; i < CB_DEST_DEAD; i++)
        if (t->dead[i].until && cb_addr_same_host(&t->dead[i].at, at)) t->dead[i].until = 0;
}

void cb_dest_went_dead(cb_dest *t, const cb_addr *at, cb_time now) {
    size_t slot = t->next_dead;
    if (at->sa.sa_family == AF_UNIX) return;
    for (size_t i = 0; i < CB_DEST_DEAD; i++)
        if (t->dead[i].until && cb_addr_same_host(&t->dead[i].at, at)) slot = i;
    if (slot == t->next_dead) t->next_dead = (t->next_dead + 1) % CB_DEST_DEAD;
    t->dead[slot].at = *at;
    t->dead[slot].until = now + DEAD_LIFE;
}

bool cb_dest_is_dead(const cb_dest *t, const cb_addr *at, cb_time now) {
    for (size_t i = 0; i < CB_DEST_DEAD; i++)
        if (t->dead[i].until > now && cb_addr_same_host(&t->dead[i].at, at)) return true;
    return false;
}

int cb_dest_family(const cb_dest *t, cb_time now) {
    if (!t->family || t->family_until <= now) return 0;
    return t->family == 4 ? AF_INET : AF_INET6;
}

/* ---- alternatives ---- */

void cb_dest_alt_svc(cb_dest *t, const cb_dests *d, cb_slice value, bool more, cb_time now) {
    cb_alt_value v[CB_DEST_ALTS];
    bool clear;
    const int n = cb_alt_svc_read(value, v, CB_DEST_ALTS, &clear);
    if (n < 0) return;
    if (!more || clear) t->n_alts = 0;
    if (n > 0 && !t->alts) t->alts = cb_mem_new(d->alloc, CB_DEST_ALTS * sizeof *t->alts);
    if (!t->alts) return;
    for (int i = 0; i < n && t->n_alts < CB_DEST_ALTS; i++)
        if (v[i].ma_s) t->alts[t->n_alts++] = (cb_dest_alt){v[i], now + v[i].ma_s * CB_SEC};
}

const cb_dest_alt *cb_dest_offer(cb_dest *t, cb_time now) {
    size_t kept = 0;
    for (size_t i = 0; i < t->n_alts; i++)
        if (t->alts[i].expires > now) t->alts[kept++] = t->alts[i];
    t->n_alts = kept;
    return kept ? &t->alts[0] : NULL;
}

void cb_dest_alt_drop(cb_dest *t, const char *host, uint16_t port) {
    size_t kept = 0;
    for (size_t i = 0; i < t->n_alts; i++)
        if (t->alts[i].v.port != port || strcmp(t->alts[i].v.host, host) != 0) t->alts[kept++] = t->alts[i];
    t->n_alts = kept;
}
