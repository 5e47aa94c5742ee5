#include "base/blocks.h"
#include "base/buf.h"
#include "base/chain.h"
#include "base/mem.h"
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

/* An allocator that can be told to fail and that counts what lives. */
typedef struct meter {
    size_t live;
    long allowed; /* allocations until failure; < 0 = no limit */
} meter;

static void *meter_realloc(void *p, size_t size, void *user) {
    meter *m = user;
    if (!size) {
        m->live--;
        free(p);
        return NULL;
    }
    if (m->allowed == 0) return NULL;
    if (m->allowed > 0) m->allowed--;
    if (!p) m->live++;
    return realloc(p, size);
}

static uint32_t next_random(uint32_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 17;
    *s ^= *s << 5;
    return *s;
}

Test(base_buf, grows_to_its_limit_and_not_further) {
    meter m = {.allowed = -1};
    cb_alloc a = {meter_realloc, &m};
    cb_buf b;
    cb_buf_init(&b, &a, 1000);
    char block[400];
    memset(block, 'k', sizeof block);

    cr_assert_eq(cb_buf_add(&b, block, 400), CB_OK);
    cr_assert_eq(cb_buf_add(&b, block, 400), CB_OK);
    cr_assert_eq(cb_buf_add(&b, block, 201), CB_ELIMIT);
    cr_assert_eq(b.len, 800);
    cr_assert_eq(cb_buf_add(&b, block, 200), CB_OK);
    cr_assert_eq(cb_buf_printf(&b, "%d", 1), CB_ELIMIT);
    cr_assert_eq(cb_buf_printf(&b, "%s", ""), CB_OK);
    cb_buf_drop(&b, 990);
    cr_assert_eq(cb_buf_printf(&b, "%0990d", 1), CB_OK);
    cr_assert_eq(b.len, 1000);
    cr_assert_eq(cb_buf_slice(&b).base[999], '1');
    cr_assert_eq(cb_buf_slice(&b).base[9], 'k');
    cb_buf_drop(&b, 5000);
    cr_assert_eq(b.len, 0);
    cb_buf_free(&b);
    cr_assert_eq(m.live, 0);
    cr_assert_eq(cb_buf_text(&b, "again"), CB_OK);
    m.allowed = 0;
    cr_assert_eq(cb_buf_reserve(&b, 900), CB_ENOMEM);
    cr_assert(b.len == 5 && !memcmp(b.base, "again", 5));
    cr_assert_eq(cb_buf_reserve(&b, SIZE_MAX), CB_ELIMIT);
    cb_buf_free(&b);
}

Test(base_buf, printf_of_every_length_near_the_edges) {
    cb_buf b;
    cb_buf_init(&b, NULL, 4096);
    for (int n = 0; n < 600; n++) {
        b.len = 0;
        cr_assert_eq(cb_buf_printf(&b, "%*s", n, ""), CB_OK);
        cr_assert_eq(b.len, (size_t)n);
    }
    cb_buf_free(&b);
}

/* The model: one flat array with two marks. */
typedef struct model {
    uint8_t bytes[1 << 20];
    size_t head, cursor, tail;
} model;

static void check_ready(const cb_chain *c, const model *m) {
    cb_slice s[256];
    size_t n = cb_chain_peek(c, s, 256);
    size_t at = m->cursor;
    for (size_t i = 0; i < n; i++) {
        cr_assert(s[i].len > 0 && at + s[i].len <= m->tail);
        cr_assert(!memcmp(s[i].base, m->bytes + at, s[i].len), "bytes differ at %zu", at);
        at += s[i].len;
    }
    cr_assert_eq(at, m->tail, "peek shows %zu of %zu", at - m->cursor, m->tail - m->cursor);
    cr_assert_eq(c->len, m->tail - m->head);
    cr_assert_eq(cb_chain_ready(c), m->tail - m->cursor);
}

Test(base_chain, behaves_as_a_flat_fifo) {
    model *m = calloc(1, sizeof *m);
    meter live = {.allowed = -1};
    cb_alloc a = {meter_realloc, &live};
    uint8_t *random_bytes = malloc(40000);
    for (uint32_t seed = 1; seed <= 20; seed++) {
        uint32_t s = seed * 2654435761U;
        cb_chain c;
        cb_chain_init(&c, &a);
        m->head = m->cursor = m->tail = 0;
        for (int step = 0; step < 1500; step++) {
            uint32_t r = next_random(&s);
            size_t n = r >> 8;
            if (r % 5 < 2) {
                n = r % 7 ? n % 700 : n % 40000;
                if (m->tail + n > sizeof m->bytes) continue;
                for (size_t i = 0; i < n; i++)
                    random_bytes[i] = (uint8_t)next_random(&s);
                cr_assert_eq(cb_chain_add(&c, random_bytes, n), CB_OK);
                memcpy(m->bytes + m->tail, random_bytes, n);
                m->tail += n;
            } else if (r % 5 < 4) {
                n %= m->tail - m->cursor + 1;
                cb_chain_take(&c, n);
                m->cursor += n;
            } else {
                /* mostly within what was handed out, sometimes beyond, sometimes all */
                n = r % 11 == 0 ? m->tail - m->head : n % ((r % 3 ? m->cursor : m->tail) - m->head + 1);
                cb_chain_drop(&c, n);
                m->head += n;
                if (m->cursor < m->head) m->cursor = m->head;
            }
            check_ready(&c, m);
        }
        cb_chain_free(&c);
        cr_assert_eq(live.live, 0);
    }
    free(random_bytes);
    free(m);
}

Test(base_chain, chunks_do_not_move_and_idle_chains_are_small) {
    meter m = {.allowed = -1};
    cb_alloc a = {meter_realloc, &m};
    cb_chain c;
    cb_slice first, now;
    static uint8_t big[100000];
    cb_chain_init(&c, &a);
    cb_chain_add(&c, "abc", 3);
    cb_chain_peek(&c, &first, 1);
    cb_chain_take(&c, 3);
    cr_assert_eq(cb_chain_add(&c, big, sizeof big), CB_OK);
    cr_assert(m.live < 20);
    cr_assert(!memcmp(first.base, "abc", 3));
    cb_chain_drop(&c, c.len);
    cr_assert_eq(m.live, 0); /* the big chunks went at once */
    cb_chain_add(&c, "xyz", 3);
    cb_chain_drop(&c, 3);
    cb_chain_peek(&c, &first, 1);
    cb_chain_add(&c, "123", 3);
    cr_assert_eq(m.live, 1);
    cr_assert_eq(cb_chain_peek(&c, &now, 1), 1);
    cr_assert_eq(now.len, 3);
    cb_chain_free(&c);
    cr_assert_eq(m.live, 0);
}

Test(base_chain, a_failed_add_changes_nothing) {
    static uint8_t big[200000];
    for (long allowed = 0; allowed < 8; allowed++) {
        meter m = {.allowed = -1};
        cb_alloc a = {meter_realloc, &m};
        cb_chain c;
        cb_chain_init(&c, &a);
        cb_chain_add(&c, "head", 4);
        size_t before = m.live;
        m.allowed = allowed;
        cr_assert_eq(cb_chain_add(&c, big, sizeof big), CB_ENOMEM);
        cr_assert(c.len == 4 && m.live == before);
        m.allowed = -1;
        cr_assert_eq(cb_chain_add(&c, "tail", 4), CB_OK);
        cb_slice s;
        cr_assert_eq(cb_chain_peek(&c, &s, 1), 1);
        cr_assert(s.len == 8 && !memcmp(s.base, "headtail", 8));
        cb_chain_free(&c);
        cr_assert_eq(m.live, 0);
    }
}

Test(base_mem, texts_and_zeroes) {
    char *t = cb_mem_text(NULL, "text");
    cr_assert_str_eq(t, "text");
    cr_assert_null(cb_mem_text(NULL, NULL));
    cb_mem_wipe(t, 4);
    cr_assert_eq(t[0] | t[1] | t[2] | t[3], 0);
    cb_mem_free(NULL, t);
    cb_mem_free(NULL, NULL);
    uint8_t *z = cb_mem_new(&cb_alloc_libc, 64);
    for (int i = 0; i < 64; i++)
        cr_assert_eq(z[i], 0);
    cb_mem_free(&cb_alloc_libc, z);
    cr_assert_eq(cb_slice_str("four").len, 4);
    cr_assert_eq(cb_slice_str(NULL).len, 0);
}

Test(base_blocks, sparse_blocks_have_pages_of_their_own_and_are_used_again) {
    enum { N = 150 };
    cb_blocks stock;
    cb_blocks_init(&stock, &cb_alloc_libc);
    uint8_t *held[N];
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < N; i++) {
            held[i] = cb_sparse_get(&stock.alloc);
            cr_assert_not_null(held[i]);
            memset(held[i], (int)i, CB_SPARSE);
            if (stock.sparse.slabs) cr_expect_eq((uintptr_t)held[i] % 4096, 0);
        }
        const void *first = stock.sparse.slabs;
        for (size_t i = 0; i < N; i++) {
            cr_expect_eq(held[i][0], (uint8_t)i);
            cr_expect_eq(held[i][CB_SPARSE - 1], (uint8_t)i);
            cb_sparse_put(&stock.alloc, held[i]);
        }
        held[0] = cb_sparse_get(&stock.alloc);
        cr_expect_eq(stock.sparse.slabs, first, "what came back is there for the next");
        cb_sparse_put(&stock.alloc, held[0]);
    }
    void *plain = cb_sparse_get(&cb_alloc_libc);
    memset(plain, 1, CB_SPARSE);
    cb_sparse_put(&cb_alloc_libc, plain);
    cb_blocks_free(&stock);
    cr_expect_null(stock.sparse.slabs);
}

Test(base_blocks, small_pieces) {
    cb_blocks stock;
    cb_blocks_init(&stock, &cb_alloc_libc);
    const cb_alloc *from[] = {&stock.alloc, &cb_alloc_libc}; /* with a stock and without */
    for (size_t at = 0; at < 2; at++) {
        for (int round = 0; round < 2; round++) {
            uint8_t *held[1100];
            for (size_t size = 1; size < 1100; size++) {
                held[size] = size % 2 ? cb_small_get(from[at], size) : cb_small_new(from[at], size);
                cr_assert_not_null(held[size]);
                for (size_t i = 0; size % 2 == 0 && i < size; i++)
                    cr_assert_eq(held[size][i], 0, "%zu: %zu", size, i);
                memset(held[size], (int)size & 0xff, size);
                if (size % 10 == 3) held[size] = cb_small_grow(from[at], held[size], size + 500);
            }
            for (size_t size = 1; size < 1100; size++) {
                for (size_t i = 0; i < size; i++)
                    cr_assert_eq(held[size][i], size & 0xff, "%zu: %zu", size, i);
                cb_small_put(from[at], held[size]);
            }
            cb_small_put(from[at], NULL);
            cr_assert_leq(stock.small.bytes, 512u << 10);
        }
    }
    void *piece = cb_small_grow(&stock.alloc, NULL, 40);
    size_t before = stock.small.bytes;
    cb_small_put(&stock.alloc, piece);
    cr_expect(stock.small.bytes == before + 40 || stock.small.bytes == 0); /* 0: under the address sanitizer */
    cb_blocks_free(&stock);
    cr_assert_eq(stock.small.bytes, 0);
}

Test(base_blocks, the_stock_serves_its_own_allocator_only) {
    cb_blocks stock;
    cb_blocks_init(&stock, &cb_alloc_libc);
    void *held[200];
    for (size_t size = CB_BLOCK_MIN, at = 0; size <= CB_BLOCK; size *= 2, at++) {
        for (int round = 0; round < 2; round++) {
            for (size_t i = 0; i < 200; i++) {
                held[i] = cb_block_get(&stock.alloc, size);
                cr_assert_not_null(held[i]);
                memset(held[i], (int)i, size);
            }
            for (size_t i = 0; i < 200; i++) {
                cr_expect_eq(((uint8_t *)held[i])[size - 1], (uint8_t)i);
                cb_block_put(&stock.alloc, held[i], size);
            }
            cr_expect(stock.sizes[at].len <= (size < 4096 ? ((size_t)512 << 10) / size : 128));
        }
        void *plain = cb_block_get(&cb_alloc_libc, size);
        size_t before = stock.sizes[at].len;
        cb_block_put(&cb_alloc_libc, plain, size);
        cr_expect_eq(stock.sizes[at].len, before);
        void *other = cb_mem_get(&stock.alloc, 100); /* what is no block passes through */
        cb_mem_free(&stock.alloc, other);
        cr_expect_eq(stock.sizes[at].len, before);
    }
    cb_blocks_free(&stock);
    for (size_t at = 0; at < CB_BLOCK_SIZES; at++)
        cr_expect_null(stock.sizes[at].spare);
}
