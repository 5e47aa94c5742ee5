#include "base/error.h"
#include "base/mem.h"
#include "transport/sessions.h"
#include "transport/tls_session.h"

struct cb_session_cache {
    const cb_alloc *alloc;
    cb_sessions *store;
    cb_saved_session *taken; /* what the last take handed out */
    void *object;            /* attached */
    void (*drop)(void *object);
};

int cb_session_cache_new(cb_session_cache **out, const cb_alloc *alloc, size_t max_entries, cb_sessions *store) {
    cb_session_cache *c = cb_mem_new(alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for a session cache");
    c->alloc = alloc;
    int rc = CB_OK;
    if (store)
        c->store = cb_sessions_ref(store);
    else
        rc = cb_sessions_new(&c->store, CB_OPTS(cb_sessions_opts, .max_sessions = (uint32_t)max_entries));
    if (rc < 0) {
        cb_mem_free(alloc, c);
        return rc;
    }
    *out = c;
    return CB_OK;
}

void cb_session_cache_free(cb_session_cache *c) {
    if (!c) return;
    if (c->drop) c->drop(c->object);
    cb_saved_session_free(c->taken);
    cb_sessions_unref(c->store);
    cb_mem_free(c->alloc, c);
}

bool cb_session_cache_take(cb_session_cache *c, const char *key, size_t common, cb_slice *session, cb_slice *extra) {
    cb_saved_session_free(c->taken);
    c->taken = cb_sessions_take(c->store, key, common);
    if (!c->taken) return false;
    *session = cb_saved_session_data(c->taken);
    *extra = cb_saved_session_extra(c->taken);
    return true;
}

int cb_session_cache_put(cb_session_cache *c, const char *key, cb_slice session, cb_slice extra, uint32_t lifetime_s) {
    return cb_sessions_put(c->store, key, session, extra, lifetime_s);
}

void *cb_session_cache_attached(const cb_session_cache *c) {
    return c->object;
}

void cb_session_cache_attach(cb_session_cache *c, void *object, void (*drop)(void *object)) {
    if (c->drop) c->drop(c->object);
    c->object = object;
    c->drop = drop;
}
