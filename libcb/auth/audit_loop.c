/* Records whose end is told to a loop. */
#include "base/error.h"
#include "base/mem.h"
#include <cb/audit.h>
#include <stdio.h>

typedef struct telling {
    cb_loop *loop;
    cb_audit_done_fn done;
    void *user;
    uint64_t seq;
    int rc;
    char why[256];
} telling;

static void on_loop(cb_loop *loop, void *user) {
    (void)loop;
    telling *t = user;
    if (t->rc < 0) (void)cb_error_set(t->rc, t->why);
    t->done(t->rc, t->seq, t->user);
    cb_mem_free(&cb_alloc_libc, t);
}

static void to_loop(int rc, uint64_t seq, void *user) {
    telling *t = user;
    t->rc = rc;
    t->seq = seq;
    if (rc < 0) snprintf(t->why, sizeof t->why, "%s", cb_last_error());
    if (cb_loop_post(t->loop, on_loop, t) < 0) cb_mem_free(&cb_alloc_libc, t);
}

int cb_audit_append_loop(cb_audit *log, const cb_audit_record *record, cb_loop *loop, cb_audit_done_fn done,
                         void *user) {
    if (!loop || !done) return cb_fail(CB_EINVAL, "cb_audit_append_loop: %s is NULL", loop ? "done" : "loop");
    telling *t = cb_mem_new(&cb_alloc_libc, sizeof *t);
    if (!t) return cb_fail(CB_ENOMEM, "no memory for an audit record");
    *t = (telling){.loop = loop, .done = done, .user = user};
    int rc = cb_audit_append(log, record, to_loop, t);
    if (rc < 0) cb_mem_free(&cb_alloc_libc, t);
    return rc;
}
