/* A hash map from short byte keys (copied) to pointers, keyed against flooding; open addressing. */
#ifndef CB_BASE_MAP_H
#define CB_BASE_MAP_H

#include <cb/base.h>

typedef struct cb_map_slot cb_map_slot;

typedef struct cb_map {
    cb_map_slot *slots;
    size_t len, cap;
    uint8_t key[16];
    const cb_alloc *alloc;
} cb_map;

void cb_map_init(cb_map *m, const cb_alloc *alloc, const uint8_t hash_key[16]);
void cb_map_free(cb_map *m);
void *cb_map_get(const cb_map *m, const void *key, size_t len);      /* NULL: absent */
int cb_map_put(cb_map *m, const void *key, size_t len, void *value); /* replaces; CB_ENOMEM, CB_ELIMIT */
void *cb_map_del(cb_map *m, const void *key, size_t len);            /* the removed value */
/* Visits every entry: start with *it = 0; NULL at the end. No put or del while iterating. */
void *cb_map_next(const cb_map *m, size_t *it, cb_slice *key);

#endif
