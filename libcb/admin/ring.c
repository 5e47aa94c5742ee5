#include "admin/ring.h"
#include "base/error.h"
#include "base/mem.h"
#include <stdio.h>
#include <string.h>

typedef struct cb_ring_slot {
    char *text; /* what goes over the wire, and behind it the type */
    size_t len;
} slot;

int cb_ring_init(cb_admin_ring *r, const cb_alloc *alloc, size_t cap, size_t max_bytes, uint64_t epoch) {
    *r = (cb_admin_ring){.alloc = alloc, .cap = cap, .max_bytes = max_bytes, .first = 1, .next = 1};
    snprintf(r->epoch, sizeof r->epoch, "%llx", (unsigned long long)epoch);
    r->slots = cb_mem_new(alloc, cap * sizeof *r->slots);
    return r->slots ? CB_OK : cb_fail(CB_ENOMEM, "a ring of events");
}

static slot *at(const cb_admin_ring *r, uint64_t number) {
    return &r->slots[number % r->cap];
}

static void drop_first(cb_admin_ring *r) {
    slot *s = at(r, r->first++);
    r->bytes -= s->len;
    cb_mem_free(r->alloc, s->text);
    *s = (slot){0};
}

void cb_ring_free(cb_admin_ring *r) {
    while (r->slots && r->first < r->next)
        drop_first(r);
    cb_mem_free(r->alloc, r->slots);
    r->slots = NULL;
}

void cb_ring_id(const cb_admin_ring *r, uint64_t number, char out[CB_RING_ID]) {
    snprintf(out, CB_RING_ID, "%s-%llu", r->epoch, (unsigned long long)number);
}

int cb_ring_add(cb_admin_ring *r, const char *type, cb_slice json) {
    char id[CB_RING_ID], head[CB_RING_ID + 80];
    cb_ring_id(r, r->next, id);
    const int n = snprintf(head, sizeof head, "id: %s\nevent: %.40s\ndata: ", id, type);
    const size_t len = (size_t)n + json.len + 2, type_len = strlen(type) + 1;
    char *text = cb_mem_get(r->alloc, len + type_len);
    if (!text) return cb_fail(CB_ENOMEM, "an event");
    memcpy(text, head, (size_t)n);
    memcpy(text + n, json.base, json.len);
    memcpy(text + n + json.len, "\n\n", 2);
    memcpy(text + len, type, type_len);
    while (r->first < r->next && (r->next - r->first == r->cap || r->bytes + len > r->max_bytes))
        drop_first(r);
    *at(r, r->next++) = (slot){text, len};
    r->bytes += len;
    return CB_OK;
}

bool cb_ring_get(const cb_admin_ring *r, uint64_t number, cb_slice *text, const char **type) {
    if (number < r->first || number >= r->next) return false;
    const slot *s = at(r, number);
    *text = (cb_slice){(const uint8_t *)s->text, s->len};
    *type = s->text + s->len;
    return true;
}

uint64_t cb_ring_after(const cb_admin_ring *r, cb_slice id) {
    const size_t n = strlen(r->epoch);
    uint64_t number = 0;
    if (id.len < n + 2 || id.len > n + 1 + 19 || memcmp(id.base, r->epoch, n) != 0 || id.base[n] != '-') return 0;
    for (size_t i = n + 1; i < id.len; i++) {
        if (id.base[i] < '0' || id.base[i] > '9') return 0;
        number = number * 10 + (uint64_t)(id.base[i] - '0');
    }
    return number < r->next ? number + 1 : 0;
}
