#include "loop/work.h"
#include "base/error.h"
#include "loop/loop_priv.h"

struct cb_work {
    uv_work_t request; /* libuv wants it to stay where it is until after_work() */
    cb_loop *loop;
    const cb_work_ops *ops;
    void *job;
    bool forgotten;
};

static void work(uv_work_t *request) {
    cb_work *w = CB_CONTAINER(request, cb_work, request);
    w->ops->run(w->job);
}

static void after_work(uv_work_t *request, int status) {
    cb_work *w = CB_CONTAINER(request, cb_work, request);
    const cb_work_ops *ops = w->ops;
    void *job = w->job;
    bool forgotten = w->forgotten;
    (void)status; /* what was forgotten before it began does not run at all */
    cb_loop_release(w->loop);
    cb_mem_free(&cb_alloc_libc, w);
    if (!forgotten) ops->done(job);
    ops->drop(job);
}

int cb_work_start(cb_work **out, cb_loop *loop, const cb_work_ops *ops, void *job) {
    int rc = cb_loop_needs_kernel(loop, "work on another thread");
    if (rc < 0) return rc;
    cb_work *w = cb_mem_new(&cb_alloc_libc, sizeof *w);
    if (!w) return cb_fail(CB_ENOMEM, "no memory for work on another thread");
    w->loop = loop;
    w->ops = ops;
    w->job = job;
    if (uv_queue_work(&loop->uv, &w->request, work, after_work) < 0) {
        cb_mem_free(&cb_alloc_libc, w);
        return cb_fail(CB_ENOMEM, "work on another thread cannot be started");
    }
    cb_loop_hold(loop);
    loop->dirty = true;
    *out = w;
    return CB_OK;
}

void cb_work_forget(cb_work *w) {
    if (!w) return;
    w->forgotten = true;
    (void)uv_cancel((uv_req_t *)&w->request); /* fails when it runs already */
}
