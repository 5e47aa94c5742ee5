#include "admin/replay.h"
#include "base/error.h"
#include "base/mem.h"
#include <string.h>

enum { BODIES = 8 << 20 };

static const uint64_t KEPT = 3600ull * 1000000000;

void cb_replays_init(cb_replays *r, const cb_alloc *alloc, const uint8_t hash_key[16], size_t max) {
    *r = (cb_replays){.max = max, .alloc = alloc};
    cb_map_init(&r->map, alloc, hash_key);
    cb_list_init(&r->list);
}

void cb_replays_forget(cb_replays *r, cb_replay *e) {
    cb_map_del(&r->map, e->name, e->name_len);
    cb_list_del(&e->link);
    r->n--;
    r->bytes -= e->len;
    cb_mem_free(r->alloc, e->body);
    cb_mem_free(r->alloc, e->location);
    cb_mem_free(r->alloc, e->name);
    cb_mem_free(r->alloc, e);
}

void cb_replays_free(cb_replays *r) {
    while (!cb_list_empty(&r->list))
        cb_replays_forget(r, CB_CONTAINER(r->list.next, cb_replay, link));
    cb_map_free(&r->map);
}

cb_slice cb_replay_key(cb_slice field) {
    const bool quoted = field.len >= 2 && field.base[0] == '"' && field.base[field.len - 1] == '"';
    const cb_slice none = {0};
    if (quoted) field = (cb_slice){field.base + 1, field.len - 2};
    if (field.len > CB_REPLAY_KEY) return none;
    for (size_t i = 0; i < field.len; i++)
        if (field.base[i] <= 0x20 || field.base[i] >= 0x7f || field.base[i] == '"' || field.base[i] == '\\')
            return none;
    return field;
}

static bool of_who(const cb_replay *e, const char *who, size_t len) {
    return e->who_len == len && memcmp(e->name, who, len) == 0;
}

/* The oldest that was answered goes: of who, when they have their share, else of anybody. */
static bool make_room(cb_replays *r, const char *who, size_t len, uint64_t now) {
    cb_replay *oldest = NULL, *own = NULL;
    size_t held = 0;
    for (cb_list *l = r->list.next, *next; l != &r->list; l = next) {
        cb_replay *e = CB_CONTAINER(l, cb_replay, link);
        next = l->next;
        if (e->done && e->until <= now) {
            cb_replays_forget(r, e);
            continue;
        }
        if (e->done && !oldest) oldest = e;
        if (!of_who(e, who, len)) continue;
        held++;
        if (e->done && !own) own = e;
    }
    const size_t share = r->max / 4 ? r->max / 4 : 1;
    cb_replay *victim = held >= share ? own : r->n >= r->max ? oldest : NULL;
    if (held < share && r->n < r->max) return true;
    if (victim) cb_replays_forget(r, victim);
    return victim != NULL;
}

static cb_replay *entry_new(cb_replays *r, const char *who, size_t who_len, cb_slice key) {
    cb_replay *e = cb_mem_new(r->alloc, sizeof *e);
    if (e) e->name = cb_mem_get(r->alloc, who_len + 1 + key.len);
    if (!e || !e->name) {
        cb_mem_free(r->alloc, e);
        return NULL;
    }
    memcpy(e->name, who, who_len);
    e->name[who_len] = '\0'; /* no name holds one: no two pairs look alike */
    memcpy(e->name + who_len + 1, key.base, key.len);
    e->name_len = who_len + 1 + key.len;
    e->who_len = who_len;
    cb_list_init(&e->link);
    return e;
}

int cb_replays_enter(cb_replays *r, const char *who, cb_slice key, const uint8_t print[CB_REPLAY_PRINT], uint64_t now,
                     cb_replay **out) {
    const size_t len = strlen(who);
    cb_replay *fresh = entry_new(r, who, len, key);
    if (!fresh) return cb_fail(CB_ENOMEM, "an Idempotency-Key");
    cb_replay *e = cb_map_get(&r->map, fresh->name, fresh->name_len);
    if (e && e->done && e->until <= now) {
        cb_replays_forget(r, e);
        e = NULL;
    }
    int rc = e ? 1 : CB_OK;
    if (!e && !make_room(r, who, len, now)) rc = cb_fail(CB_ELIMIT, "too many requests with an Idempotency-Key");
    if (rc == CB_OK) rc = cb_map_put(&r->map, fresh->name, fresh->name_len, fresh);
    if (rc != CB_OK) {
        cb_mem_free(r->alloc, fresh->name);
        cb_mem_free(r->alloc, fresh);
        if (rc == 1) *out = e;
        return rc;
    }
    memcpy(fresh->print, print, CB_REPLAY_PRINT);
    fresh->until = now + KEPT;
    cb_list_add_tail(&r->list, &fresh->link);
    r->n++;
    *out = fresh;
    return CB_OK;
}

void cb_replays_answered(cb_replays *r, cb_replay *e, cb_slice body) {
    e->done = true;
    e->large = body.len > CB_REPLAY_BODY || body.len > BODIES - r->bytes;
    if (e->large || body.len == 0) return;
    e->body = cb_mem_get(r->alloc, body.len);
    if (!e->body) {
        e->large = true;
        return;
    }
    memcpy(e->body, body.base, body.len);
    e->len = body.len;
    r->bytes += body.len;
}
