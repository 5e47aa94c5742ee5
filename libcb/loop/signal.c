#include "base/error.h"
#include "loop/loop_priv.h"
#include <signal.h>

typedef struct cb_signal {
    uv_signal_t handle;
    cb_list link; /* loop->signals */
    cb_loop *loop;
    cb_task_fn fn;
    void *user;
    int signum;
} cb_signal;

static void on_signal(uv_signal_t *handle, int signum) {
    (void)signum;
    cb_signal *s = handle->data;
    s->fn(s->loop, s->user);
}

static void on_closed(uv_handle_t *handle) {
    cb_signal *s = handle->data;
    cb_mem_free(cb_loop_alloc(s->loop), s);
}

static void close_signal(cb_signal *s) {
    cb_list_del(&s->link);
    uv_close((uv_handle_t *)&s->handle, on_closed);
}

static cb_signal *find(cb_loop *loop, int signum) {
    for (cb_list *l = loop->signals.next; l != &loop->signals; l = l->next) {
        cb_signal *s = CB_CONTAINER(l, cb_signal, link);
        if (s->signum == signum) return s;
    }
    return NULL;
}

int cb_loop_on_signal(cb_loop *loop, int signum, cb_task_fn fn, void *user) {
    if (!loop) return cb_fail(CB_EINVAL, "cb_loop_on_signal: loop is NULL");
    int rc = cb_loop_needs_kernel(loop, "cb_loop_on_signal()");
    if (rc < 0) return rc;
    if (signum <= 0 || signum >= NSIG || signum == SIGKILL || signum == SIGSTOP)
        return cb_fail(CB_EINVAL, "signal %d cannot be handled", signum);
    cb_signal *s = find(loop, signum);
    if (!fn) {
        if (s) close_signal(s);
        return CB_OK;
    }
    if (s) {
        s->fn = fn;
        s->user = user;
        return CB_OK;
    }
    s = cb_mem_new(cb_loop_alloc(loop), sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for a signal handler");
    rc = uv_signal_init(&loop->uv, &s->handle);
    if (rc < 0) {
        cb_mem_free(cb_loop_alloc(loop), s);
        return cb_fail_errno(-rc, "signal %d", signum);
    }
    s->handle.data = s;
    s->loop = loop;
    s->fn = fn;
    s->user = user;
    s->signum = signum;
    cb_list_add_tail(&loop->signals, &s->link);
    loop->dirty = true;
    rc = uv_signal_start(&s->handle, on_signal, signum);
    if (rc == 0) return CB_OK;
    close_signal(s);
    return rc == UV_EINVAL ? cb_fail(CB_EINVAL, "signal %d cannot be handled", signum)
                           : cb_fail_errno(-rc, "signal %d", signum);
}

void cb_signals_close(cb_loop *loop) {
    while (!cb_list_empty(&loop->signals))
        close_signal(CB_CONTAINER(loop->signals.next, cb_signal, link));
}
