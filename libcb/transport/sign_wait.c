#include "transport/sign_wait.h"
#include "base/error.h"
#include "loop/turn.h"
#include "loop/work.h"
#include "transport/fiber.h"

struct cb_sign_wait {
    cb_loop *loop;
    void (*ready)(void *user);
    void *user;
    cb_fiber *fiber; /* NULL between handshakes */
    gnutls_session_t session;
    cb_work *work; /* under way */
    bool waiting;  /* the fiber is inside a signature */
    bool cancelled;
    cb_time since; /* the errand was sent off */
    int rc;        /* of gnutls_handshake(), and of the signature before that */
    gnutls_datum_t signature;
};

/* One job and who waits for it. */
struct errand {
    cb_sign_job *job;
    cb_sign_wait *waiter;
};

/* Which handshake this thread is inside of: GnuTLS does not tell a key for which session it signs. */
static _Thread_local cb_sign_wait *current;

/* --- an errand --- */

static void errand_run(void *p) {
    struct errand *e = p;
    e->job->run(e->job);
}

static void errand_done(void *p) {
    struct errand *e = p;
    cb_sign_wait *w = e->waiter;
    w->work = NULL;
    w->rc = e->job->rc;
    cb_cells_observe(cb_loop_cells(w->loop), CB_C_TLS_SIGN_WAIT, cb_loop_now(w->loop) - w->since);
    w->signature = e->job->signature;
    e->job->signature = (gnutls_datum_t){NULL, 0};
    w->ready(w->user); /* may free the waiter */
}

static void errand_drop(void *p) {
    struct errand *e = p;
    e->job->drop(e->job);
    cb_mem_free(&cb_alloc_libc, e);
}

static bool send_off(cb_sign_wait *w, cb_sign_job *job) {
    static const cb_work_ops ops = {errand_run, errand_done, errand_drop};
    struct errand *e = cb_mem_new(&cb_alloc_libc, sizeof *e);
    if (!e) return false;
    *e = (struct errand){job, w};
    w->since = cb_loop_now(w->loop);
    if (cb_work_start(&w->work, w->loop, &ops, e) >= 0) return true;
    cb_mem_free(&cb_alloc_libc, e);
    return false;
}

int cb_sign_job_do(cb_sign_job *job, gnutls_datum_t *signature) {
    cb_sign_wait *w = current;
    if (!w || !send_off(w, job)) {
        job->run(job);
        int rc = job->rc;
        *signature = job->signature;
        job->signature = (gnutls_datum_t){NULL, 0};
        job->drop(job);
        return rc;
    }
    w->waiting = true;
    cb_fiber_wait(w->fiber);
    w->waiting = false;
    if (w->cancelled) return GNUTLS_E_SESSION_EOF;
    *signature = w->signature;
    w->signature = (gnutls_datum_t){NULL, 0};
    return w->rc;
}

/* --- a handshake --- */

static void handshake(void *p) {
    cb_sign_wait *w = p;
    w->rc = gnutls_handshake(w->session);
}

static bool enter(cb_sign_wait *w, bool start) {
    cb_sign_wait *outer = current;
    current = w;
    bool returned = start ? cb_fiber_start(w->fiber, handshake, w) : cb_fiber_go_on(w->fiber);
    current = outer;
    return returned;
}

int cb_sign_wait_new(cb_sign_wait **out, cb_loop *loop, void (*ready)(void *user), void *user) {
    cb_sign_wait *w = cb_mem_new(&cb_alloc_libc, sizeof *w);
    if (!w) return cb_fail(CB_ENOMEM, "no memory for a handshake");
    w->loop = loop;
    w->ready = ready;
    w->user = user;
    *out = w;
    return CB_OK;
}

bool cb_sign_wait_pending(const cb_sign_wait *w) {
    return w && w->work;
}

int cb_sign_wait_handshake(cb_sign_wait *w, gnutls_session_t session) {
    if (w->work) return GNUTLS_E_AGAIN;
    if (!w->fiber && cb_fiber_new(&w->fiber) < 0) return GNUTLS_E_MEMORY_ERROR;
    w->session = session;
    if (!enter(w, !w->waiting)) return GNUTLS_E_AGAIN;
    if (w->rc != 0 && !gnutls_error_is_fatal(w->rc)) return w->rc; /* more has to come in first */
    cb_fiber_free(w->fiber);
    w->fiber = NULL;
    return w->rc;
}

void cb_sign_wait_free(cb_sign_wait *w) {
    if (!w) return;
    cb_work_forget(w->work);
    w->cancelled = true;
    if (w->waiting) (void)enter(w, false);
    gnutls_free(w->signature.data);
    cb_fiber_free(w->fiber);
    cb_mem_free(&cb_alloc_libc, w);
}
