#include "packet/chunks.h"
#include "base/error.h"

int cb_chunks_init(cb_chunks *c, const cb_alloc *a, uint32_t total) {
    *c = (cb_chunks){.total = total, .free = total};
    c->stack = cb_mem_get(a, total * sizeof *c->stack);
    c->owner = cb_mem_new(a, total);
    if (!c->stack || !c->owner) {
        cb_chunks_clear(c, a);
        return cb_fail(CB_ENOMEM, "no memory for the list of %u chunks", (unsigned)total);
    }
    for (uint32_t i = 0; i < total; i++)
        c->stack[i] = total - 1 - i;
    return CB_OK;
}

void cb_chunks_clear(cb_chunks *c, const cb_alloc *a) {
    cb_mem_free(a, c->stack);
    cb_mem_free(a, c->owner);
    *c = (cb_chunks){.total = 0};
}

uint32_t cb_chunks_take(cb_chunks *c, enum chunk_owner to) {
    if (!c->free) return UINT32_MAX;
    const uint32_t chunk = c->stack[--c->free];
    c->owner[chunk] = (uint8_t)to;
    c->user += to == CHUNK_USER;
    return chunk;
}

bool cb_chunks_pass(cb_chunks *c, uint32_t chunk, enum chunk_owner from, enum chunk_owner to) {
    if (chunk >= c->total || c->owner[chunk] != from) return false;
    c->user += (to == CHUNK_USER) - (from == CHUNK_USER);
    c->owner[chunk] = (uint8_t)to;
    if (to == CHUNK_FREE) c->stack[c->free++] = chunk;
    return true;
}
