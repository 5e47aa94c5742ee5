#include "base/error.h"
#include "loop/loop_priv.h"

#define ALL_EVENTS ((unsigned)CB_READABLE | (unsigned)CB_WRITABLE)

struct cb_watch {
    uv_poll_t poll;
    cb_list link; /* loop->watches */
    cb_loop *loop;
    cb_watch_fn fn;
    void *user;
    unsigned events;
    bool freed;
};

static void on_poll(uv_poll_t *poll, int status, int events);

static int start(cb_watch *w) {
    int bits = (w->events & CB_READABLE ? UV_READABLE : 0) | (w->events & CB_WRITABLE ? UV_WRITABLE : 0);
    w->loop->dirty = true;
    int rc = bits ? uv_poll_start(&w->poll, bits, on_poll) : uv_poll_stop(&w->poll);
    return rc < 0 ? cb_fail_errno(-rc, "watching a descriptor") : CB_OK;
}

static void on_poll(uv_poll_t *poll, int status, int events) {
    cb_watch *w = poll->data;
    w->loop->served++;
    cb_loop_account_begin(w->loop);
    if (status < 0) {
        /* The descriptor has an error pending (a reset, say). libuv has stopped watching; the next read or
         * write tells what it is, so report what was asked for, and go on unless that ended it. */
        w->fn(w, w->events, w->user);
        if (!w->freed && w->events) start(w);
        return;
    }
    unsigned got = (events & UV_READABLE ? CB_READABLE : 0U) | (events & UV_WRITABLE ? CB_WRITABLE : 0U);
    if (got) w->fn(w, got, w->user);
}

int cb_watch_new(cb_watch **out, cb_loop *loop, int fd, unsigned events, cb_watch_fn fn, void *user) {
    if (!out || !loop || !fn || fd < 0 || events & ~ALL_EVENTS)
        return cb_fail(CB_EINVAL,
                       "cb_watch_new: needs out, a loop, a function, a descriptor and events of cb_watch_event");
    int rc = cb_loop_needs_kernel(loop, "watching a descriptor");
    if (rc < 0) return rc;
    cb_watch *w = cb_mem_new(cb_loop_alloc(loop), sizeof *w);
    if (!w) return cb_fail(CB_ENOMEM, "no memory to watch a descriptor");
    rc = uv_poll_init(&loop->uv, &w->poll, fd);
    if (rc < 0) {
        cb_mem_free(cb_loop_alloc(loop), w);
        return cb_fail_errno(-rc, "watching descriptor %d", fd);
    }
    w->poll.data = w;
    w->loop = loop;
    w->fn = fn;
    w->user = user;
    w->events = events;
    cb_list_add_tail(&loop->watches, &w->link);
    loop->watch_count++;
    cb_cells_set(loop->turn.cells, CB_C_LOOP_WATCHES, (int64_t)loop->watch_count);
    rc = events ? start(w) : CB_OK;
    if (rc < 0) {
        cb_watch_free(w);
        return rc;
    }
    *out = w;
    return CB_OK;
}

int cb_watch_events(cb_watch *w, unsigned events) {
    if (events & ~ALL_EVENTS) return cb_fail(CB_EINVAL, "cb_watch_events: %u is more than cb_watch_event has", events);
    if (w->events == events) return CB_OK;
    w->events = events;
    return start(w);
}

static void on_closed(uv_handle_t *handle) {
    cb_watch *w = handle->data;
    cb_mem_free(cb_loop_alloc(w->loop), w);
}

void cb_watch_free(cb_watch *w) {
    if (!w || w->freed) return;
    w->freed = true;
    w->loop->watch_count--;
    cb_cells_set(w->loop->turn.cells, CB_C_LOOP_WATCHES, (int64_t)w->loop->watch_count);
    cb_list_del(&w->link);
    uv_close((uv_handle_t *)&w->poll, on_closed); /* forgets the descriptor now, gives the memory later */
}

void cb_watches_close(cb_loop *loop) {
    while (!cb_list_empty(&loop->watches))
        cb_watch_free(CB_CONTAINER(loop->watches.next, cb_watch, link));
}
