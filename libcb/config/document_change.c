/* Changes of documents: parts, merge patches (RFC 7396), JSON patches (RFC 6902). */
#include "base/error.h"
#include "base/mem.h"
#include "config/document.h"
#include <stdio.h>
#include <string.h>

/* ---- one change of a tree ---- */

/* gone may be NULL */
static int check_size(const cb_document *d, size_t more, const cb_doc_value *gone) {
    if (d->used + more - (gone ? cb_doc_used(gone) : 0) <= CB_DOCUMENT_BYTES) return CB_OK;
    return cb_fail(CB_ELIMIT, "the document would be larger than 1 MiB");
}

static int check_depth(uint32_t depth, const cb_doc_value *v) {
    if (depth + cb_doc_height(v) <= CB_DOC_DEPTH) return CB_OK;
    return cb_fail(CB_ELIMIT, "the document would be nested more than %d levels deep", CB_DOC_DEPTH);
}

/* Where a change is to be made: a place that exists, or one at which something can be added. */
typedef struct target {
    cb_doc_value *parent; /* NULL: the root */
    int64_t place;        /* of what is there; -1: nothing */
    uint32_t depth;       /* of the value */
    cb_doc_walk walk;
} target;

static cb_doc_value **slot_at(cb_document *d, const target *t) {
    return t->parent ? &t->parent->items[t->place].value : &d->root;
}

/* v, which has the name of what is there, stands in its place. */
static void replace_at(cb_document *d, cb_doc_value **slot, cb_doc_value *v) {
    d->used -= cb_doc_used(*slot);
    cb_doc_free(*slot);
    *slot = v;
    d->used += cb_doc_used(v);
}

static int find_target(target *t, cb_document *d, const char *pointer) {
    *t = (target){.place = -1};
    if (!*pointer) return CB_OK;
    int rc = cb_doc_parent(&t->parent, &t->depth, d->root, pointer, &t->walk);
    if (rc == CB_OK) t->place = cb_doc_place(t->parent, &t->walk);
    return rc;
}

/* The index at which an array takes a new item. */
static int64_t place_for_item(const target *t) {
    char end[16];
    snprintf(end, sizeof end, "%u", t->parent->len);
    return t->walk.token[0] == '-' && t->walk.len == 1 ? t->parent->len
           : strcmp(t->walk.token, end) == 0           ? t->parent->len
                                                       : t->place;
}

/* Takes v, also when it fails. shift: what is at that place in an array moves up instead of being replaced. */
static int set(cb_document *d, const char *pointer, cb_doc_value *v, bool shift) {
    target t;
    int64_t at = -1;
    int rc = find_target(&t, d, pointer);
    const bool list = rc == CB_OK && t.parent && t.parent->kind == CB_DOC_LIST;
    if (rc == CB_OK && list) {
        at = shift || t.place < 0 ? place_for_item(&t) : -1;
        if (at < 0 && t.place < 0)
            rc = cb_fail(CB_ENOENT, "\"%.200s\": the array has %u items", pointer, t.parent->len);
    }
    if (rc == CB_OK) rc = check_depth(t.depth, v);
    if (rc == CB_OK) rc = t.parent && !list ? cb_doc_name(v, t.walk.token, t.walk.len) : cb_doc_name(v, NULL, 0);
    const bool replaces = !t.parent || (at < 0 && t.place >= 0);
    if (rc == CB_OK) rc = check_size(d, cb_doc_used(v), replaces ? *slot_at(d, &t) : NULL);
    if (rc == CB_OK && replaces) {
        replace_at(d, slot_at(d, &t), v);
        return CB_OK;
    }
    if (rc == CB_OK) rc = cb_doc_insert(t.parent, list ? (size_t)at : t.parent->len, v);
    if (rc < 0)
        cb_doc_free(v);
    else
        d->used += cb_doc_used(v);
    return rc;
}

static int take(cb_doc_value **out, cb_document *d, const char *pointer) {
    target t;
    if (!*pointer) return cb_fail(CB_EINVAL, "the whole document cannot be removed");
    int rc = find_target(&t, d, pointer);
    if (rc == CB_OK && t.place < 0) rc = cb_fail(CB_ENOENT, "there is nothing at \"%.200s\"", pointer);
    if (rc < 0) return rc;
    *out = cb_doc_take(t.parent, (size_t)t.place);
    d->used -= cb_doc_used(*out);
    return CB_OK;
}

static int need(const void *d, const char *pointer, const char *what) {
    return d && pointer ? CB_OK : cb_fail(CB_EINVAL, "%s: a document and a pointer are needed", what);
}

int cb_document_put(cb_document *d, const char *pointer, cb_slice value, cb_document_mistake *mistake) {
    cb_doc_value *v = NULL;
    size_t used;
    int rc = need(d, pointer, "cb_document_put");
    if (rc == CB_OK) rc = cb_doc_parse(&v, &used, value, "value", mistake);
    return rc < 0 ? rc : set(d, pointer, v, false);
}

int cb_document_remove(cb_document *d, const char *pointer) {
    cb_doc_value *v = NULL;
    int rc = need(d, pointer, "cb_document_remove");
    if (rc == CB_OK) rc = take(&v, d, pointer);
    cb_doc_free(rc == CB_OK ? v : NULL);
    return rc;
}

/* ---- changes that are made whole or not at all ---- */

static int draft_of(cb_document *draft, const cb_document *d) {
    *draft = (cb_document){.used = d->used};
    return cb_doc_clone(&draft->root, d->root);
}

static int settle(cb_document *d, cb_document *draft, int rc) {
    if (rc < 0) {
        cb_doc_free(draft->root);
        return rc;
    }
    cb_doc_free(d->root);
    *d = *draft;
    return CB_OK;
}

/* ---- merge patches ---- */

static int merge(cb_doc_value **slot, const cb_doc_value *patch);

static int merge_member(cb_doc_value *object, const cb_doc_value *patch) {
    const int64_t at = cb_doc_find(object, patch->name, patch->name_len);
    if (patch->kind == CB_DOC_NULL) {
        if (at >= 0) cb_doc_free(cb_doc_take(object, (size_t)at));
        return CB_OK;
    }
    if (at >= 0) return merge(&object->items[at].value, patch);
    cb_doc_value *v = NULL;
    int rc = merge(&v, patch);
    if (rc == CB_OK) rc = cb_doc_name(v, patch->name, patch->name_len);
    if (rc == CB_OK) rc = cb_doc_insert(object, object->len, v);
    if (rc < 0) cb_doc_free(v);
    return rc;
}

/* An empty object in the place of what is no object, with its name. */
static int make_object(cb_doc_value **slot) {
    cb_doc_value *old = *slot, *fresh = NULL;
    const cb_doc_value empty = {.kind = CB_DOC_OBJECT};
    int rc = cb_doc_clone(&fresh, &empty);
    if (rc == CB_OK && old && old->name) rc = cb_doc_name(fresh, old->name, old->name_len);
    if (rc < 0) {
        cb_doc_free(fresh);
        return rc;
    }
    cb_doc_free(old);
    *slot = fresh;
    return CB_OK;
}

static int merge(cb_doc_value **slot, const cb_doc_value *patch) {
    int rc = CB_OK;
    if (patch->kind != CB_DOC_OBJECT) {
        cb_doc_value *v = NULL, *old = *slot;
        rc = cb_doc_clone(&v, patch);
        if (rc == CB_OK) rc = old ? cb_doc_name(v, old->name, old->name_len) : CB_OK;
        if (rc < 0) {
            cb_doc_free(v);
            return rc;
        }
        cb_doc_free(old);
        *slot = v;
        return CB_OK;
    }
    if (!*slot || (*slot)->kind != CB_DOC_OBJECT) rc = make_object(slot);
    for (uint32_t i = 0; i < patch->len && rc == CB_OK; i++)
        rc = merge_member(*slot, patch->items[i].value);
    return rc;
}

/* The place where the value at a pointer hangs. */
static int slot_of(cb_doc_value ***out, cb_document *d, const char *pointer) {
    target t;
    int rc = find_target(&t, d, pointer);
    if (rc == CB_OK && t.parent && t.place < 0) rc = cb_fail(CB_ENOENT, "there is nothing at \"%.200s\"", pointer);
    if (rc == CB_OK) *out = slot_at(d, &t);
    return rc;
}

static int merge_at(cb_document *draft, const char *pointer, const cb_doc_value *patch) {
    cb_doc_value **slot = NULL;
    int rc = slot_of(&slot, draft, pointer);
    if (rc == CB_OK) rc = merge(slot, patch);
    if (rc == CB_OK) rc = check_depth(0, draft->root);
    if (rc < 0) return rc;
    draft->used = cb_doc_used(draft->root);
    return check_size(draft, 0, NULL);
}

int cb_document_merge(cb_document *d, const char *pointer, cb_slice text, cb_document_mistake *mistake) {
    cb_document draft = {0};
    cb_doc_value *patch = NULL;
    size_t used;
    int rc = need(d, pointer, "cb_document_merge");
    if (rc == CB_OK) rc = cb_doc_parse(&patch, &used, text, "patch", mistake);
    if (rc == CB_OK) rc = draft_of(&draft, d);
    if (rc == CB_OK) rc = settle(d, &draft, merge_at(&draft, pointer, patch));
    cb_doc_free(patch);
    return rc;
}

/* ---- JSON patches ---- */

typedef struct operation {
    const char *op, *path, *from;
    const cb_doc_value *value;
} operation;

static int op_add(cb_document *d, const operation *o) {
    cb_doc_value *v = NULL;
    int rc = cb_doc_clone(&v, o->value);
    return rc < 0 ? rc : set(d, o->path, v, true);
}

static int op_remove(cb_document *d, const operation *o) {
    cb_doc_value *v = NULL;
    int rc = take(&v, d, o->path);
    if (rc == CB_OK) cb_doc_free(v);
    return rc;
}

static int op_replace(cb_document *d, const operation *o) {
    cb_doc_value *v = NULL;
    int rc = cb_doc_at(&v, d->root, o->path);
    if (rc == CB_OK) rc = cb_doc_clone(&v, o->value);
    return rc < 0 ? rc : set(d, o->path, v, false);
}

/* What becomes of a value when it is moved into itself has no answer; to its own place it is no change. */
static int op_move(cb_document *d, const operation *o) {
    const size_t n = strlen(o->from);
    cb_doc_value *v = NULL;
    if (strncmp(o->path, o->from, n) == 0 && o->path[n] == '/')
        return cb_fail(CB_EINVAL, "\"%.200s\" cannot be moved into itself", o->from);
    if (strcmp(o->path, o->from) == 0) return cb_doc_at(&v, d->root, o->from);
    int rc = take(&v, d, o->from);
    return rc < 0 ? rc : set(d, o->path, v, true);
}

static int op_copy(cb_document *d, const operation *o) {
    cb_doc_value *v = NULL;
    int rc = cb_doc_at(&v, d->root, o->from);
    if (rc == CB_OK) rc = check_size(d, cb_doc_used(v), NULL); /* before it takes memory */
    if (rc == CB_OK) rc = cb_doc_clone(&v, v);
    return rc < 0 ? rc : set(d, o->path, v, true);
}

static int op_test(cb_document *d, const operation *o) {
    cb_doc_value *v = NULL;
    int rc = cb_doc_at(&v, d->root, o->path);
    if (rc < 0) return rc;
    return cb_doc_equal(v, o->value, true) ? CB_OK : cb_fail(CB_EEXIST, "\"%.200s\" is something else", o->path);
}

static const struct {
    const char *name;
    bool value, from;
    int (*run)(cb_document *d, const operation *o);
} operations[] = {
    {"add", true, false, op_add},   {"remove", false, false, op_remove}, {"replace", true, false, op_replace},
    {"move", false, true, op_move}, {"copy", false, true, op_copy},      {"test", true, false, op_test},
};

static const cb_doc_value *member(const cb_doc_value *object, const char *name) {
    const int64_t at = cb_doc_find(object, name, strlen(name));
    return at < 0 ? NULL : object->items[at].value;
}

static const char *text_member(const cb_doc_value *object, const char *name) {
    const cb_doc_value *v = member(object, name);
    return v && v->kind == CB_DOC_TEXT ? v->text : NULL;
}

static int run_operation(cb_document *d, const cb_doc_value *item) {
    if (item->kind != CB_DOC_OBJECT) return cb_fail(CB_EINVAL, "an operation is an object");
    const operation o = {.op = text_member(item, "op"),
                         .path = text_member(item, "path"),
                         .from = text_member(item, "from"),
                         .value = member(item, "value")};
    if (!o.op || !o.path) return cb_fail(CB_EINVAL, "\"op\" and \"path\" are needed, as texts");
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (strcmp(operations[i].name, o.op) != 0) continue;
        if (operations[i].value && !o.value) return cb_fail(CB_EINVAL, "\"%s\" needs \"value\"", o.op);
        if (operations[i].from && !o.from) return cb_fail(CB_EINVAL, "\"%s\" needs \"from\", as a text", o.op);
        return operations[i].run(d, &o);
    }
    return cb_fail(CB_EINVAL, "\"%.20s\" is no operation: add, remove, replace, move, copy or test", o.op);
}

static int run_patch(cb_document *draft, const cb_doc_value *patch) {
    if (patch->kind != CB_DOC_LIST) return cb_fail(CB_EINVAL, "a JSON patch is an array of operations");
    if (patch->len > CB_DOCUMENT_PATCH_OPS)
        return cb_fail(CB_ELIMIT, "a patch of %u operations; %d are the most", patch->len, CB_DOCUMENT_PATCH_OPS);
    for (uint32_t i = 0; i < patch->len; i++) {
        char why[400];
        int rc = run_operation(draft, patch->items[i].value);
        if (rc == CB_OK) continue;
        snprintf(why, sizeof why, "%s", cb_last_error());
        return cb_fail(rc, "operation %u: %s", i, why);
    }
    return CB_OK;
}

/* A patch for a part sees only that part: it becomes a document for a while. */
static int patch_at(cb_document *draft, const char *pointer, const cb_doc_value *patch) {
    cb_doc_value **slot = NULL, *whole = draft->root;
    char *name = NULL;
    if (!*pointer) return run_patch(draft, patch);
    int rc = slot_of(&slot, draft, pointer);
    if (rc < 0) return rc;
    const uint32_t name_len = (*slot)->name_len;
    name = (*slot)->name;
    (*slot)->name = NULL;
    (*slot)->name_len = 0;
    cb_document part = {.root = *slot, .used = draft->used};
    rc = run_patch(&part, patch);
    part.root->name = name;
    part.root->name_len = name_len;
    *slot = part.root;
    draft->used = cb_doc_used(whole);
    return rc < 0 ? rc : check_depth(0, whole);
}

int cb_document_patch(cb_document *d, const char *pointer, cb_slice text, cb_document_mistake *mistake) {
    cb_document draft = {0};
    cb_doc_value *patch = NULL;
    size_t used;
    int rc = need(d, pointer, "cb_document_patch");
    if (rc == CB_OK) rc = cb_doc_parse(&patch, &used, text, "patch", mistake);
    if (rc == CB_OK) rc = draft_of(&draft, d);
    if (rc == CB_OK) rc = settle(d, &draft, patch_at(&draft, pointer, patch));
    cb_doc_free(patch);
    return rc;
}
