#include "base/map.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/siphash.h"
#include <stdbool.h>
#include <string.h>

enum { KEY_INLINE = 24, MAP_MIN = 16 }; /* connection IDs and addresses fit inline */

struct cb_map_slot {
    uint64_t hash;
    void *value;
    uint32_t len; /* of the key */
    bool used;
    union {
        uint8_t bytes[KEY_INLINE];
        uint8_t *far;
    } key;
};

static const uint8_t *slot_key(const cb_map_slot *s) {
    return s->len > KEY_INLINE ? s->key.far : s->key.bytes;
}

static void slot_drop(const cb_map *m, cb_map_slot *s) {
    if (s->used && s->len > KEY_INLINE) cb_mem_free(m->alloc, s->key.far);
}

void cb_map_init(cb_map *m, const cb_alloc *alloc, const uint8_t hash_key[16]) {
    *m = (cb_map){.alloc = alloc};
    memcpy(m->key, hash_key, sizeof m->key);
}

void cb_map_free(cb_map *m) {
    for (size_t i = 0; i < m->cap; i++)
        slot_drop(m, &m->slots[i]);
    cb_mem_free(m->alloc, m->slots);
    m->slots = NULL;
    m->len = m->cap = 0;
}

/* The slot of the key, or the free one where it belongs. cap > len always, so it ends. */
static cb_map_slot *find(const cb_map *m, uint64_t hash, const void *key, size_t len) {
    size_t mask = m->cap - 1;
    for (size_t i = (size_t)hash & mask;; i = (i + 1) & mask) {
        cb_map_slot *s = &m->slots[i];
        if (!s->used) return s;
        if (s->hash == hash && s->len == len && (!len || !memcmp(slot_key(s), key, len))) return s;
    }
}

static int grow(cb_map *m) {
    size_t cap = m->cap ? m->cap * 2 : MAP_MIN;
    cb_map_slot *slots = cb_mem_new(m->alloc, cap * sizeof *slots);
    if (!slots) return cb_fail(CB_ENOMEM, "no memory for a table of %zu entries", cap);
    for (size_t i = 0; i < m->cap; i++) {
        const cb_map_slot *s = &m->slots[i];
        if (!s->used) continue;
        size_t at = (size_t)s->hash & (cap - 1);
        while (slots[at].used)
            at = (at + 1) & (cap - 1);
        slots[at] = *s;
    }
    cb_mem_free(m->alloc, m->slots);
    m->slots = slots;
    m->cap = cap;
    return CB_OK;
}

void *cb_map_get(const cb_map *m, const void *key, size_t len) {
    if (!m->len) return NULL;
    const cb_map_slot *s = find(m, cb_siphash(m->key, key, len), key, len);
    return s->used ? s->value : NULL;
}

int cb_map_put(cb_map *m, const void *key, size_t len, void *value) {
    if (len > UINT32_MAX) return cb_fail(CB_ELIMIT, "a key of %zu bytes", len);
    uint64_t hash = cb_siphash(m->key, key, len);
    if (m->len) {
        cb_map_slot *s = find(m, hash, key, len);
        if (s->used) {
            s->value = value;
            return CB_OK;
        }
    }
    if ((m->len + 1) * 4 > m->cap * 3) {
        int rc = grow(m);
        if (rc < 0) return rc;
    }
    cb_map_slot entry = {.hash = hash, .value = value, .len = (uint32_t)len, .used = true};
    if (len > KEY_INLINE) {
        entry.key.far = cb_mem_get(m->alloc, len);
        if (!entry.key.far) return cb_fail(CB_ENOMEM, "no memory for a key of %zu bytes", len);
        memcpy(entry.key.far, key, len);
    } else if (len) {
        memcpy(entry.key.bytes, key, len);
    }
    *find(m, hash, key, len) = entry;
    m->len++;
    return CB_OK;
}

void *cb_map_del(cb_map *m, const void *key, size_t len) {
    if (!m->len) return NULL;
    cb_map_slot *s = find(m, cb_siphash(m->key, key, len), key, len);
    if (!s->used) return NULL;
    void *value = s->value;
    slot_drop(m, s);
    /* Close the gap: move back every follower whose home does not lie behind the gap. */
    size_t mask = m->cap - 1;
    size_t gap = (size_t)(s - m->slots);
    for (size_t i = (gap + 1) & mask; m->slots[i].used; i = (i + 1) & mask) {
        size_t home = (size_t)m->slots[i].hash & mask;
        if (((i - home) & mask) < ((i - gap) & mask)) continue;
        m->slots[gap] = m->slots[i];
        gap = i;
    }
    m->slots[gap].used = false;
    m->len--;
    return value;
}

void *cb_map_next(const cb_map *m, size_t *it, cb_slice *key) {
    for (; *it < m->cap; (*it)++) {
        const cb_map_slot *s = &m->slots[*it];
        if (!s->used) continue;
        if (key) *key = (cb_slice){slot_key(s), s->len};
        (*it)++;
        return s->value;
    }
    return NULL;
}
