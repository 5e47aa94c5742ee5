#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "transport/tls_view.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

enum { TRUSTS_MAX = 1024 };

static const cb_alloc *const heap = &cb_alloc_libc;

struct cb_identity {
    atomic_uint refs;
    pthread_mutex_t change_lock; /* one change at a time; guards the content, held while files are read */
    cb_identity_content content;
    uint64_t stamp;                   /* of the files that cb_identity_refresh() looks at, as they were read last */
    pthread_mutex_t view_lock;        /* guards the pointer only, so handshakes never wait for a file */
    _Atomic(cb_identity_view *) view; /* changed with both locks; compared without */
};

/* --- the identity --- */

cb_identity_view *cb_identity_view_get(cb_identity *id) {
    pthread_mutex_lock(&id->view_lock);
    cb_identity_view *v = cb_identity_view_ref(id->view);
    pthread_mutex_unlock(&id->view_lock);
    return v;
}

bool cb_identity_view_is_current(cb_identity *id, const cb_identity_view *view) {
    return atomic_load_explicit(&id->view, memory_order_acquire) == view;
}

static void swap_view(cb_identity *id, cb_identity_view *fresh) {
    pthread_mutex_lock(&id->view_lock);
    cb_identity_view *old = id->view;
    id->view = fresh;
    pthread_mutex_unlock(&id->view_lock);
    cb_identity_view_unref(old);
}

static void source_clear(cb_identity_opts *s) {
    cb_mem_free(heap, (char *)(uintptr_t)s->cert_file);
    cb_mem_free(heap, (char *)(uintptr_t)s->key_file);
    cb_mem_free(heap, (char *)(uintptr_t)s->ocsp_file);
    cb_mem_free(heap, (char *)(uintptr_t)s->issuer_file);
    if (s->pem) cb_mem_wipe((char *)(uintptr_t)s->pem, strlen(s->pem));
    cb_mem_free(heap, (char *)(uintptr_t)s->pem);
    *s = (cb_identity_opts){.size = 0};
}

static int source_copy(cb_identity_opts *out, const cb_identity_opts *o) {
    *out = (cb_identity_opts){.size = sizeof *out,
                              .cert_file = cb_mem_text(heap, o->cert_file),
                              .key_file = cb_mem_text(heap, o->key_file),
                              .ocsp_file = cb_mem_text(heap, o->ocsp_file),
                              .issuer_file = cb_mem_text(heap, o->issuer_file),
                              .pem = cb_mem_text(heap, o->pem)};
    bool whole = ((out->cert_file && out->key_file) || out->pem) && !o->ocsp_file == !out->ocsp_file &&
                 !o->issuer_file == !out->issuer_file;
    if (whole) return CB_OK;
    source_clear(out);
    return cb_fail(CB_ENOMEM, "no memory for an identity");
}

static void identity_free(cb_identity *id) {
    for (size_t i = 0; i < id->content.sources_len; i++) {
        source_clear(&id->content.sources[i]);
    }
    for (size_t i = 0; i < id->content.trusts_len; i++) {
        cb_trust_source_clear(&id->content.trusts[i]);
    }
    cb_mem_free(heap, id->content.sources);
    cb_mem_free(heap, id->content.trusts);
    cb_alpn01_unref(id->content.alpn01);
    cb_identity_view_unref(id->view);
    pthread_mutex_destroy(&id->view_lock);
    pthread_mutex_destroy(&id->change_lock);
    cb_mem_free(heap, id);
}

static int check_files(const cb_identity_opts *o) {
    if (!o->cert_file != !o->key_file) {
        return cb_fail(CB_EINVAL, "cb_identity_opts: %s is set but not %s", o->cert_file ? "cert_file" : "key_file",
                       o->cert_file ? "key_file" : "cert_file");
    }
    if (o->pem && o->cert_file) return cb_fail(CB_EINVAL, "cb_identity_opts: pem and cert_file exclude each other");
    if ((o->ocsp_file || o->issuer_file) && !o->cert_file && !o->pem)
        return cb_fail(CB_EINVAL, "cb_identity_opts: %s without cert_file", o->ocsp_file ? "ocsp_file" : "issuer_file");
    return CB_OK;
}

/* ---- files that change by themselves ---- */

static uint64_t mix(uint64_t h, uint64_t v) {
    return (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
}

static uint64_t stamp_file(uint64_t h, const char *file) {
    struct stat st;
    if (!file) return h;
    if (stat(file, &st) < 0) return mix(h, 1);
    h = mix(h, (uint64_t)st.st_mtim.tv_sec);
    h = mix(h, (uint64_t)st.st_mtim.tv_nsec);
    return mix(mix(h, (uint64_t)st.st_size), (uint64_t)st.st_ino);
}

/* Before the files are read, so that a change meanwhile is found the next time. */
static uint64_t stamp_of(const cb_identity_content *c) {
    uint64_t h = 1;
    for (size_t i = 0; i < c->sources_len; i++)
        h = stamp_file(h, c->sources[i].ocsp_file);
    for (size_t i = 0; i < c->trusts_len; i++)
        h = stamp_file(h, c->trusts[i].o.crl_file);
    return h;
}

/* Reads everything and shows it to new handshakes. Called with change_lock. */
static int identity_load(cb_identity *id, const cb_identity_content *c) {
    cb_identity_view *v = NULL;
    uint64_t stamp = stamp_of(c);
    int rc = cb_identity_view_load(&v, c);
    if (rc < 0) return rc;
    id->stamp = stamp;
    swap_view(id, v);
    return CB_OK;
}

/* Reads all sources and one more; makes it part of the identity when everything was good. Called with change_lock. */
static int identity_extend(cb_identity *id, const cb_identity_opts *o) {
    cb_identity_content *c = &id->content;
    cb_identity_opts *grown = cb_mem_grow(heap, c->sources, (c->sources_len + 1) * sizeof *grown);
    if (!grown) return cb_fail(CB_ENOMEM, "no memory for an identity");
    c->sources = grown;
    int rc = source_copy(&grown[c->sources_len], o);
    if (rc < 0) return rc;
    c->sources_len++;
    rc = identity_load(id, c);
    if (rc < 0) source_clear(&grown[--c->sources_len]);
    return rc;
}

static int begin_trust(cb_identity *id, const char *ca_file) {
    id->content.trusts = cb_mem_new(heap, sizeof *id->content.trusts);
    if (!id->content.trusts) return cb_fail(CB_ENOMEM, "no memory for an identity");
    int rc = cb_trust_source_copy(id->content.trusts, CB_OPTS(cb_trust_opts, .ca_file = ca_file));
    id->content.trusts_len = rc >= 0;
    return rc;
}

int cb_identity_new(cb_identity **out, const cb_identity_opts *opts) {
    if (!out) return cb_fail(CB_EINVAL, "cb_identity_new: out is NULL");
    cb_identity_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_identity_opts");
    if (rc >= 0) rc = check_files(&o);
    if (rc < 0) return rc;
    cb_identity *id = cb_mem_new(heap, sizeof *id);
    if (!id) return cb_fail(CB_ENOMEM, "no memory for an identity");
    atomic_init(&id->refs, 1);
    pthread_mutex_init(&id->view_lock, NULL);
    pthread_mutex_init(&id->change_lock, NULL);
    rc = begin_trust(id, o.ca_file);
    if (o.alpn01) id->content.alpn01 = cb_alpn01_ref(o.alpn01);
    if (rc >= 0) rc = o.cert_file || o.pem ? identity_extend(id, &o) : identity_load(id, &id->content);
    if (rc < 0) {
        identity_free(id);
        return rc;
    }
    *out = id;
    return CB_OK;
}

int cb_identity_add(cb_identity *id, const cb_identity_opts *opts) {
    if (!id) return cb_fail(CB_EINVAL, "cb_identity_add: id is NULL");
    cb_identity_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_identity_opts");
    if (rc >= 0) rc = check_files(&o);
    if (rc < 0) return rc;
    if (o.ca_file) return cb_fail(CB_EINVAL, "cb_identity_add: ca_file belongs into cb_identity_new()");
    if (o.alpn01) return cb_fail(CB_EINVAL, "cb_identity_add: alpn01 belongs into cb_identity_new()");
    if (!o.cert_file && !o.pem) return cb_fail(CB_EINVAL, "cb_identity_add: no cert_file");
    pthread_mutex_lock(&id->change_lock);
    rc = identity_extend(id, &o);
    pthread_mutex_unlock(&id->change_lock);
    return rc;
}

/* The rules with that one in its place. The content keeps its own until all is read. Called with change_lock. */
static int identity_set_trust(cb_identity *id, cb_trust_source *fresh) {
    const cb_identity_content *c = &id->content;
    size_t at = 0;
    while (at < c->trusts_len && strcmp(c->trusts[at].o.host, fresh->o.host) < 0)
        at++;
    const bool replaces = at < c->trusts_len && strcmp(c->trusts[at].o.host, fresh->o.host) == 0;
    if (c->trusts_len - replaces >= TRUSTS_MAX) return cb_fail(CB_EINVAL, "more than %d rules", TRUSTS_MAX);
    cb_identity_content next = *c;
    next.trusts = cb_mem_new(heap, (c->trusts_len + 1) * sizeof *next.trusts);
    if (!next.trusts) return cb_fail(CB_ENOMEM, "no memory for a rule");
    next.trusts_len = c->trusts_len + !replaces;
    memcpy(next.trusts, c->trusts, at * sizeof *next.trusts);
    next.trusts[at] = *fresh;
    memcpy(next.trusts + at + 1, c->trusts + at + replaces, (c->trusts_len - at - replaces) * sizeof *next.trusts);
    int rc = identity_load(id, &next);
    if (rc < 0) {
        cb_mem_free(heap, next.trusts);
        return rc;
    }
    if (replaces) cb_trust_source_clear(&c->trusts[at]);
    cb_mem_free(heap, c->trusts);
    id->content = next;
    return CB_OK;
}

int cb_identity_trust(cb_identity *id, const cb_trust_opts *opts) {
    if (!id) return cb_fail(CB_EINVAL, "cb_identity_trust: id is NULL");
    cb_trust_opts o;
    cb_trust_source fresh;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_trust_opts");
    if (rc >= 0) rc = cb_trust_source_copy(&fresh, &o);
    if (rc < 0) return rc;
    pthread_mutex_lock(&id->change_lock);
    rc = identity_set_trust(id, &fresh);
    pthread_mutex_unlock(&id->change_lock);
    if (rc < 0) cb_trust_source_clear(&fresh);
    return rc;
}

int cb_identity_reload(cb_identity *id) {
    if (!id) return cb_fail(CB_EINVAL, "cb_identity_reload: id is NULL");
    pthread_mutex_lock(&id->change_lock);
    int rc = identity_load(id, &id->content);
    pthread_mutex_unlock(&id->change_lock);
    return rc;
}

int cb_identity_refresh(cb_identity *id) {
    if (!id) return cb_fail(CB_EINVAL, "cb_identity_refresh: id is NULL");
    pthread_mutex_lock(&id->change_lock);
    bool changed = stamp_of(&id->content) != id->stamp;
    int rc = changed ? identity_load(id, &id->content) : CB_OK;
    pthread_mutex_unlock(&id->change_lock);
    return rc < 0 ? rc : changed;
}

void cb_identity_swap(cb_identity *a, cb_identity *b) {
    if (a == b) return;
    cb_identity *first = a < b ? a : b, *second = a < b ? b : a; /* one order for all: no deadlock */
    pthread_mutex_lock(&first->change_lock);
    pthread_mutex_lock(&second->change_lock);
    cb_identity_content content = a->content;
    uint64_t stamp = a->stamp;
    cb_identity_view *view = cb_identity_view_get(a);
    a->content = b->content;
    a->stamp = b->stamp;
    b->content = content;
    b->stamp = stamp;
    swap_view(a, cb_identity_view_get(b));
    swap_view(b, view);
    pthread_mutex_unlock(&second->change_lock);
    pthread_mutex_unlock(&first->change_lock);
}

int64_t cb_identity_expires(cb_identity *id) {
    cb_identity_view *v = cb_identity_view_get(id);
    int64_t at = cb_identity_view_expires(v);
    cb_identity_view_unref(v);
    return at;
}

void cb_identity_examine(cb_identity *id, int64_t now_s, uint32_t within_s,
                         void (*fn)(int level, const char *text, void *user), void *user) {
    pthread_mutex_lock(&id->change_lock); /* the view belongs to the content */
    cb_identity_view_examine(id->view, &id->content, now_s, within_s, fn, user);
    pthread_mutex_unlock(&id->change_lock);
}

int cb_identity_list(cb_identity *id, void (*fn)(const cb_identity_item *item, void *user), void *user) {
    if (!id || !fn) return cb_fail(CB_EINVAL, "cb_identity_list: id and fn are needed");
    pthread_mutex_lock(&id->change_lock);
    int rc = cb_identity_view_list(id->view, &id->content, fn, user);
    pthread_mutex_unlock(&id->change_lock);
    return rc;
}

cb_identity *cb_identity_ref(cb_identity *id) {
    atomic_fetch_add_explicit(&id->refs, 1, memory_order_relaxed);
    return id;
}

void cb_identity_unref(cb_identity *id) {
    if (id && atomic_fetch_sub_explicit(&id->refs, 1, memory_order_acq_rel) == 1) identity_free(id);
}
