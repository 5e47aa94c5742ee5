#include "base/heap.h"
#include "base/list.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/siphash.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static uint32_t next_random(uint32_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 17;
    *s ^= *s << 5;
    return *s;
}

Test(base_siphash, published_vectors) {
    /* From the reference implementation: key 00..0f, message 00 01 02 ... of the row's length. */
    static const uint64_t rows[] = {
        0x726fdb47dd0e0e31, 0x74f839c593dc67fd, 0x0d6c8009d9a94f5a, 0x85676696d7fb7e2d,
        0xcf2794e0277187b7, 0x18765564cd99a68d, 0xcbc9466e58fee3ce, 0xab0200f58b01d137,
        0x93f5f5799a932462, 0x9e0082df0ba9e4b0, 0x7a5dbbc594ddb9f3, 0xf4b32f46226bada7,
        0x751e8fbc860ee5fb, 0x14ea5627c0843d90, 0xf723ca908e7af2ee, 0xa129ca6149be45e5,
    };
    uint8_t key[16], message[16];
    for (uint8_t i = 0; i < 16; i++)
        key[i] = message[i] = i;
    for (size_t n = 0; n < 16; n++)
        cr_expect_eq(cb_siphash(key, message, n), rows[n], "length %zu", n);
}

enum { NODES = 300 };

static void heap_is_sound(const cb_heap *h) {
    for (size_t i = 0; i < h->len; i++) {
        cr_assert_eq(h->at[i]->pos, i + 1);
        if (i) cr_assert(h->at[(i - 1) / 2]->key <= h->at[i]->key);
    }
}

Test(base_heap, stays_a_heap_under_random_use) {
    cb_heap h;
    cb_heap_node nodes[NODES] = {0};
    uint32_t s = 4711;
    size_t in = 0;
    cb_heap_init(&h, NULL);
    for (int step = 0; step < 20000; step++) {
        cb_heap_node *n = &nodes[next_random(&s) % NODES];
        if (next_random(&s) % 3) {
            in += n->pos == 0;
            cr_assert_eq(cb_heap_set(&h, n, next_random(&s) % 1000), CB_OK);
        } else {
            in -= n->pos != 0;
            cb_heap_del(&h, n);
        }
        cr_assert_eq(h.len, in);
        if (step % 50 == 0) heap_is_sound(&h);
    }
    uint64_t last = 0;
    while (cb_heap_min(&h)) {
        cr_assert(cb_heap_min(&h)->key >= last);
        last = cb_heap_min(&h)->key;
        cb_heap_del(&h, cb_heap_min(&h));
    }
    cb_heap_del(&h, &nodes[0]);
    cb_heap_set(&h, &nodes[0], 1);
    cb_heap_free(&h);
    cr_assert_eq(nodes[0].pos, 0);
}

Test(base_map, behaves_as_an_array_of_pairs) {
    enum { KEYS = 500 };
    static const uint8_t hash_key[16] = "sixteen bytes..";
    static uint8_t keys[KEYS][64];
    static char values[KEYS];
    size_t lens[KEYS];
    void *model[KEYS] = {0};
    uint32_t s = 99;
    size_t in = 0;
    cb_map m;

    cb_map_init(&m, NULL, hash_key);
    for (uint32_t i = 0; i < KEYS; i++) {
        lens[i] = i % 65 < 4 ? 4 : i % 65; /* inline and far keys */
        for (size_t k = 0; k < lens[i]; k++)
            keys[i][k] = (uint8_t)next_random(&s);
        memcpy(keys[i], &i, 4);
    }
    for (int step = 0; step < 50000; step++) {
        size_t i = next_random(&s) % KEYS;
        switch (next_random(&s) % 4) {
        case 0:
        case 1:
            in += !model[i];
            model[i] = &values[next_random(&s) % KEYS];
            cr_assert_eq(cb_map_put(&m, keys[i], lens[i], model[i]), CB_OK);
            break;
        case 2:
            cr_assert_eq(cb_map_del(&m, keys[i], lens[i]), model[i]);
            in -= model[i] != NULL;
            model[i] = NULL;
            break;
        default:
            cr_assert_eq(cb_map_get(&m, keys[i], lens[i]), model[i]);
        }
        cr_assert_eq(m.len, in);
    }
    size_t it = 0, seen = 0;
    cb_slice key;
    for (void *v; (v = cb_map_next(&m, &it, &key)); seen++) {
        uint32_t i = 0;
        memcpy(&i, key.base, 4);
        cr_assert(i < KEYS && key.len == lens[i] && v == model[i]);
    }
    cr_assert_eq(seen, in);
    cb_map_free(&m);
    cr_assert_null(cb_map_get(&m, keys[0], lens[0]));
    cr_assert_eq(cb_map_put(&m, "", 0, values), CB_OK); /* the empty key is a key */
    cr_assert_eq(cb_map_get(&m, NULL, 0), values);
    cb_map_free(&m);
}

static long allowed;
static void *stingy(void *p, size_t size, void *user) {
    (void)user;
    if (!size) {
        free(p);
        return NULL;
    }
    return allowed-- > 0 ? realloc(p, size) : NULL;
}

Test(base_map, without_memory_nothing_changes) {
    static const uint8_t hash_key[16] = {1};
    static const char far_key[] = "a key that is too long to be kept inside of a slot";
    cb_alloc a = {.realloc = stingy};
    cb_map m;
    int value = 0;
    cb_map_init(&m, &a, hash_key);
    allowed = 0;
    cr_assert_eq(cb_map_put(&m, "k", 1, &value), CB_ENOMEM);
    allowed = 1;
    cr_assert_eq(cb_map_put(&m, far_key, sizeof far_key, &value), CB_ENOMEM);
    cr_assert_null(cb_map_get(&m, far_key, sizeof far_key));
    allowed = 1;
    cr_assert_eq(cb_map_put(&m, far_key, sizeof far_key, &value), CB_OK);
    cr_assert_eq(m.len, 1);
    cb_map_free(&m);
    cb_heap h;
    cb_heap_node n = {0};
    cb_heap_init(&h, &a);
    allowed = 0;
    cr_assert_eq(cb_heap_set(&h, &n, 1), CB_ENOMEM);
    cr_assert(n.pos == 0 && h.len == 0);
    cb_heap_free(&h);
}

Test(base_list, fifo_with_removal_anywhere) {
    cb_list head, n[3];
    cb_list_init(&head);
    for (int i = 0; i < 3; i++)
        cb_list_add_tail(&head, &n[i]);
    cb_list_del(&n[1]);
    cr_assert(head.next == &n[0] && n[0].next == &n[2] && head.prev == &n[2]);
    cb_list_del(&n[1]); /* unlinked: harmless */
    cb_list_del(&n[0]);
    cb_list_del(&n[2]);
    cr_assert(cb_list_empty(&head));
}
