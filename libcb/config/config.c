#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "config/draft.h"
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cb_config_block {
    cb_config_block *next;
    size_t used, size;
    max_align_t data[];
};

enum { BLOCK_BYTES = 4096 };

void *cb_config_arena(cb_config_draft *d, size_t size) {
    const size_t align = sizeof(max_align_t);
    cb_config_block *b = d->out->blocks;
    size = (size + align - 1) / align * align;
    if (!b || b->size - b->used < size) {
        size_t room = size > BLOCK_BYTES ? size : BLOCK_BYTES;
        b = cb_mem_new(&cb_alloc_libc, sizeof *b + room);
        if (!b) {
            d->no_memory = true;
            return NULL;
        }
        b->size = room;
        b->next = d->out->blocks;
        d->out->blocks = b;
    }
    void *p = (char *)b->data + b->used;
    b->used += size;
    return p;
}

/* ---- pointers ---- */

static void path_text(cb_config_draft *d, const char *text) {
    for (; *text; text++) {
        const char *as = *text == '~' ? "~0" : *text == '/' ? "~1" : NULL;
        size_t n = as ? 2 : 1;
        if (d->path_len + n >= sizeof d->path) return;
        memcpy(d->path + d->path_len, as ? as : text, n);
        d->path_len += n;
    }
    d->path[d->path_len] = '\0';
}

void cb_config_push(cb_config_draft *d, const char *name) {
    if (d->path_len + 1 < sizeof d->path) {
        d->path[d->path_len++] = '/';
        d->path[d->path_len] = '\0';
    }
    path_text(d, name);
}

void cb_config_push_index(cb_config_draft *d, size_t i) {
    char text[24];
    snprintf(text, sizeof text, "%zu", i);
    cb_config_push(d, text);
}

void cb_config_pop(cb_config_draft *d, size_t len) {
    d->path_len = len;
    d->path[len] = '\0';
}

/* The item that a pointer names, or the deepest that exists on the way. */
static const cJSON *find(const cb_config_draft *d, const char *pointer) {
    const cJSON *at = d->root;
    while (at && *pointer == '/') {
        const cJSON *child = NULL;
        char name[CB_CONFIG_PATH];
        size_t n = 0, index = 0;
        for (pointer++; *pointer && *pointer != '/'; pointer++) {
            char c = *pointer;
            if (c == '~' && pointer[1]) c = *++pointer == '1' ? '/' : '~';
            if (n + 1 < sizeof name) name[n++] = c;
        }
        name[n] = '\0';
        unsigned long want = strtoul(name, NULL, 10);
        cJSON_ArrayForEach(child, at) {
            if (cJSON_IsArray(at) ? index++ == want : strcmp(child->string, name) == 0) break;
        }
        if (!child) break;
        at = child;
    }
    return at;
}

/* ---- mistakes ---- */

static cb_config_mistake *mistake_at(cb_config_draft *d, uint32_t at, const char *pointer) {
    if (d->n_mistakes == CB_CONFIG_ERRORS) return NULL;
    cb_config_mistake *m = &d->mistakes[d->n_mistakes];
    m->at = at;
    m->order = (uint32_t)d->n_mistakes++;
    snprintf(m->pointer, sizeof m->pointer, "%s", pointer);
    return m;
}

void cb_config_wrong(cb_config_draft *d, const cJSON *item, bool at_key, const char *fmt, ...) {
    const cb_config_spot *spot = cb_config_scan_at(&d->scan, (size_t)item->valueint);
    cb_config_mistake *m = mistake_at(d, at_key ? spot->key : spot->value, d->path);
    if (!m) return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(m->text, sizeof m->text, fmt, ap);
    va_end(ap);
}

void cb_config_complain(cb_config_draft *d, const char *pointer, const char *text) {
    const cJSON *item = find(d, pointer);
    const cb_config_spot *spot = cb_config_scan_at(&d->scan, item ? (size_t)item->valueint : 0);
    cb_config_mistake *m = mistake_at(d, spot->value, pointer);
    if (m) snprintf(m->text, sizeof m->text, "%s", text);
}

static int by_place(const void *a, const void *b) {
    const cb_config_mistake *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static int tell(cb_config_draft *d, const char *name, cb_config_error_fn fn, void *user) {
    char first[900] = "";
    qsort(d->mistakes, d->n_mistakes, sizeof *d->mistakes, by_place);
    for (size_t i = 0; i < d->n_mistakes; i++) {
        const cb_config_mistake *m = &d->mistakes[i];
        cb_config_error e = {.file = name, .pointer = m->pointer, .text = m->text};
        cb_config_line_column(d->text, m->at, &e.line, &e.column);
        if (i == 0)
            snprintf(first, sizeof first, "%.200s:%u:%u: %.300s%s%s", name, e.line, e.column, m->pointer,
                     *m->pointer ? ": " : "", m->text);
        if (fn) fn(&e, user);
    }
    return cb_fail(CB_EINVAL, "%s", first);
}

/* ---- life ---- */

static void number_items(cJSON *item, int *next) {
    cJSON *child = NULL;
    item->valueint = (*next)++;
    cJSON_ArrayForEach(child, item) number_items(child, next);
}

static int read_tree(cb_config_draft *d, char *text, size_t len) {
    int rc = cb_config_scan_text(&d->scan, text, len);
    if (rc == CB_EINVAL) {
        cb_config_mistake *m = mistake_at(d, d->scan.error_at, "");
        if (m) snprintf(m->text, sizeof m->text, "%s", cb_last_error());
        return CB_OK;
    }
    if (rc < 0) return rc;
    d->root = cJSON_ParseWithLength(text, len);
    if (!d->root) return cb_fail(CB_ENOMEM, "no memory for the tree of a document of %zu bytes", len);
    int next = 0;
    number_items(d->root, &next);
    return CB_OK;
}

static int run(cb_config_draft *d, const cb_config_schema *schema, char *text, size_t len) {
    int rc = read_tree(d, text, len);
    if (rc < 0 || d->n_mistakes) return rc;
    cb_config_decode(d, schema);
    if (d->no_memory) return cb_fail(CB_ENOMEM, "no memory for a configuration");
    if (!d->n_mistakes && schema->check) schema->check(d, d->out->root);
    return CB_OK;
}

int cb_config_parse(cb_config **out, const cb_config_schema *schema_in, cb_slice doc, const char *name,
                    cb_config_error_fn on_error, void *user) {
    if (!out || !schema_in) return cb_fail(CB_EINVAL, "cb_config_parse: %s is NULL", !out ? "out" : "schema_in");
    cb_config_schema schema;
    int rc = cb_opts_read(&schema, sizeof schema, schema_in, "cb_config_schema");
    if (rc < 0) return rc;
    if (!schema.members || !schema.root_size) return cb_fail(CB_EINVAL, "cb_config_schema: members or root_size is 0");
    if (!name) name = "configuration";
    if (doc.len > CB_CONFIG_BYTES) return cb_fail(CB_ELIMIT, "%s: larger than 1 MiB", name);
    cb_config_draft d = {0};
    cb_config_scan_init(&d.scan);
    char *text = cb_mem_get(&cb_alloc_libc, doc.len + 1);
    d.out = cb_mem_new(&cb_alloc_libc, sizeof *d.out);
    d.mistakes = cb_mem_new(&cb_alloc_libc, CB_CONFIG_ERRORS * sizeof *d.mistakes);
    if (!text || !d.out || !d.mistakes) {
        rc = cb_fail(CB_ENOMEM, "no memory for a configuration of %zu bytes", doc.len);
        goto end;
    }
    d.text = text;
    if (doc.len) memcpy(text, doc.base, doc.len);
    text[doc.len] = '\0';
    atomic_init(&d.out->refs, 1);
    rc = run(&d, &schema, text, doc.len);
    if (rc == CB_OK && d.n_mistakes) rc = tell(&d, name, on_error, user);
    if (rc == CB_OK) {
        *out = d.out;
        d.out = NULL;
    }
end:
    cJSON_Delete(d.root);
    cb_config_scan_free(&d.scan);
    cb_mem_free(&cb_alloc_libc, d.mistakes);
    cb_mem_free(&cb_alloc_libc, text);
    cb_config_unref(d.out);
    return rc;
}

const void *cb_config_root(const cb_config *c) {
    return c->root;
}

cb_config *cb_config_ref(cb_config *c) {
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void cb_config_unref(cb_config *c) {
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) > 1) return;
    for (cb_config_block *b = c->blocks, *next; b; b = next) {
        next = b->next;
        cb_mem_free(&cb_alloc_libc, b);
    }
    cb_mem_free(&cb_alloc_libc, c);
}
