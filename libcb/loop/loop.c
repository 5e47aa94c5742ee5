/* A turn: libuv waits, handles descriptors, then alarms, deferred work and burials run in the check
 * callback. The prepare callback does the same once more for what was queued outside, and sets the time
 * to wake. Whether the loop has anything left to do is counted here and not in libuv's references. */
#include "base/error.h"
#include "base/opts.h"
#include "loop/loop_priv.h"
#include "telemetry/cells.h"
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { SCRATCH_BYTES = 65536, SERVED_MAX = 32 };

/* ---- memory, random ---- */

const uint8_t *cb_loop_hash_key(const cb_loop *loop) {
    return loop->hash_key;
}

uint8_t *cb_loop_scratch(cb_loop *loop, size_t *cap) {
    *cap = SCRATCH_BYTES;
    return loop->scratch;
}

static int from_kernel(void *out, size_t len) {
    uint8_t *p = out;
    while (len) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return cb_fail_errno(errno, "getrandom");
        p += n;
        len -= (size_t)n;
    }
    return CB_OK;
}

int cb_loop_random(cb_loop *loop, void *out, size_t len) {
    if (loop->ops) {
        loop->ops->random(loop->world, out, len);
        return CB_OK;
    }
    if (len > RANDOM_STOCK / 4) return from_kernel(out, len);
    if (len > loop->stock_left) {
        int rc = from_kernel(loop->stock, RANDOM_STOCK);
        if (rc < 0) return rc;
        loop->stock_left = RANDOM_STOCK;
    }
    uint8_t *from = loop->stock + RANDOM_STOCK - loop->stock_left;
    memcpy(out, from, len);
    cb_mem_wipe(from, len); /* what was handed out must not be found here later */
    loop->stock_left -= len;
    return CB_OK;
}

uint64_t cb_loop_wall(const cb_loop *loop) {
    struct timespec ts;
    if (loop->ops) return loop->ops->wall(loop->world);
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * CB_SEC + (uint64_t)ts.tv_nsec;
}

void cb_loop_hold(cb_loop *loop) {
    loop->holds++;
}

void cb_loop_release(cb_loop *loop) {
    if (loop->holds) loop->holds--;
}

static void on_check(uv_check_t *check) {
    cb_loop *loop = check->data;
    if (loop->running) cb_loop_account_begin(loop);
    cb_alarms_run(loop);
    cb_turn_run_leftovers(&loop->turn);
    if (loop->running && atomic_load(&loop->stop)) uv_stop(&loop->uv);
}

/* Work that gains from company waits while descriptors keep coming, up to a limit in number and in time. */
static void run_idles(cb_loop *loop) {
    static const cb_time LONGEST = CB_MS / 4;
    const unsigned served = loop->served;
    loop->served = 0;
    if (cb_list_empty(&loop->turn.idles)) {
        loop->kept_waiting = 0;
        return;
    }
    const cb_time now = cb_loop_now(loop); /* of this turn's beginning */
    if (!loop->kept_waiting) loop->waiting_since = now;
    loop->kept_waiting += served;
    if (served && loop->kept_waiting < SERVED_MAX && now - loop->waiting_since < LONGEST) return;
    loop->kept_waiting = 0;
    cb_turn_idle(&loop->turn);
}

static void on_busy(uv_idle_t *busy) {
    (void)busy;
}

static void on_prepare(uv_prepare_t *prepare) {
    cb_loop *loop = prepare->data;
    cb_alarms_run(loop);
    cb_turn_run_leftovers(&loop->turn);
    run_idles(loop);
    bool due = cb_alarms_arm(loop);
    if (due || cb_turn_has_leftovers(&loop->turn)) {
        uv_idle_start(&loop->busy, on_busy);
    } else {
        uv_idle_stop(&loop->busy);
    }
    if (loop->running && (atomic_load(&loop->stop) || !cb_loop_alive(loop))) uv_stop(&loop->uv);
    if (loop->running) cb_loop_account_end(loop);
    loop->dirty = false; /* libuv hands its changes to epoll right after this */
    loop->turn.fresh = false;
}

/* ---- tasks from other threads ---- */

void cb_loop_run_posts(cb_loop *loop) {
    pthread_mutex_lock(&loop->lock);
    cb_post *p = loop->posts;
    loop->posts = NULL;
    loop->posts_end = &loop->posts;
    pthread_mutex_unlock(&loop->lock);
    while (p) {
        cb_post *next = p->next;
        p->fn(loop, p->user);
        cb_cells_add(loop->turn.cells, CB_C_LOOP_TASKS, 1);
        cb_mem_free(&cb_alloc_libc, p);
        p = next;
    }
}

static void on_wake(uv_async_t *wake) {
    cb_loop_account_begin(wake->data);
    cb_loop_run_posts(wake->data);
}

/* From any thread. */
static void wake_up(cb_loop *loop) {
    if (loop->ops)
        loop->ops->wake(loop->world);
    else
        uv_async_send(&loop->wake);
}

int cb_loop_post(cb_loop *loop, cb_task_fn fn, void *user) {
    return cb_loop_post_owner(loop, fn, NULL, user);
}

int cb_loop_post_owner(cb_loop *loop, cb_task_fn fn, void (*drop)(void *user), void *user) {
    if (!loop || !fn) return cb_fail(CB_EINVAL, "cb_loop_post: %s is NULL", !loop ? "loop" : "fn");
    /* Not from the loop's allocator: that one belongs to the loop's thread. */
    cb_post *p = cb_mem_get(&cb_alloc_libc, sizeof *p);
    if (!p) return cb_fail(CB_ENOMEM, "no memory to post a task");
    *p = (cb_post){.fn = fn, .drop = drop, .user = user};

    pthread_mutex_lock(&loop->lock);
    bool closing = loop->closing;
    bool first = !loop->posts;
    if (!closing) {
        *loop->posts_end = p;
        loop->posts_end = &p->next;
        if (first) wake_up(loop);
    }
    pthread_mutex_unlock(&loop->lock);
    if (!closing) return CB_OK;
    cb_mem_free(&cb_alloc_libc, p);
    return cb_fail(CB_ECLOSED, "a task was posted to a loop that is being freed");
}

bool cb_loop_has_posts(const cb_loop *loop) {
    cb_loop *l = (cb_loop *)loop;
    pthread_mutex_lock(&l->lock);
    bool yes = l->posts != NULL;
    pthread_mutex_unlock(&l->lock);
    return yes;
}

static void drop_posts(cb_loop *loop) {
    pthread_mutex_lock(&loop->lock);
    cb_post *p = loop->posts;
    loop->posts = NULL;
    loop->posts_end = &loop->posts;
    loop->closing = true;
    pthread_mutex_unlock(&loop->lock);
    while (p) {
        cb_post *next = p->next;
        if (p->drop) p->drop(p->user);
        cb_mem_free(&cb_alloc_libc, p);
        p = next;
    }
}

/* ---- running ---- */

int cb_loop_alive(const cb_loop *loop) {
    return loop->watch_count || loop->holds || loop->alarms.len || cb_turn_has_leftovers(&loop->turn) ||
           cb_loop_has_posts(loop);
}

static int turn(cb_loop *loop, uv_run_mode mode) {
    loop->turn.in_turn = true;
    loop->turn.fresh = false;
    loop->running = loop->turn.patient = mode == UV_RUN_DEFAULT;
    cb_loop_account_begin(loop);
    int rc = uv_run(&loop->uv, mode);
    loop->turn.patient = false;
    if (loop->running) cb_turn_idle(&loop->turn);
    cb_loop_account_end(loop);
    loop->waited_since = 0; /* what passes until the next call is not the loop's waiting */
    loop->running = loop->turn.fresh = loop->turn.in_turn = false;
    return rc < 0 ? cb_fail_errno(-rc, "event loop") : CB_OK;
}

int cb_loop_run(cb_loop *loop) {
    if (!loop) return cb_fail(CB_EINVAL, "cb_loop_run: loop is NULL");
    if (loop->turn.in_turn) return cb_fail(CB_EINVAL, "cb_loop_run() was called from inside of the same loop");
    int rc = cb_loop_needs_kernel(loop, "cb_loop_run(): use cb_sim_run(),");
    while (rc == CB_OK && !atomic_load(&loop->stop) && cb_loop_alive(loop))
        rc = turn(loop, UV_RUN_DEFAULT);
    atomic_store(&loop->stop, false);
    return rc;
}

int cb_loop_step(cb_loop *loop) {
    if (!loop) return cb_fail(CB_EINVAL, "cb_loop_step: loop is NULL");
    if (loop->turn.in_turn) return cb_fail(CB_EINVAL, "cb_loop_step() was called from inside of the same loop");
    int rc = cb_loop_needs_kernel(loop, "cb_loop_step(): use cb_sim_run_until(),");
    if (rc < 0) return rc;
    rc = turn(loop, UV_RUN_NOWAIT);
    cb_alarms_arm(loop); /* whoever waits on cb_loop_fd() wakes in time, too */
    return rc;
}

void cb_loop_stop(cb_loop *loop) {
    atomic_store(&loop->stop, true);
    wake_up(loop);
}

int cb_loop_fd(const cb_loop *loop) {
    return loop->ops ? -1 : uv_backend_fd(&loop->uv);
}

int64_t cb_loop_timeout_ms(const cb_loop *loop) {
    if (loop->ops) return -1; /* its simulation knows */
    if (loop->dirty || cb_turn_has_leftovers(&loop->turn) || cb_loop_has_posts(loop) || !uv_backend_timeout(&loop->uv))
        return 0;
    const cb_heap_node *next = cb_heap_min(&loop->alarms);
    if (!next) return -1;
    cb_time now = cb_loop_now(loop);
    if (next->key <= now) return 0;
    uint64_t ms = (next->key - now + CB_MS - 1) / CB_MS;
    return ms > INT32_MAX ? INT32_MAX : (int64_t)ms;
}

/* ---- birth and death ---- */

static int open_handles(cb_loop *loop) {
    int rc = uv_async_init(&loop->uv, &loop->wake, on_wake);
    if (rc < 0) return cb_fail_errno(-rc, "event loop: wake-up descriptor");
    uv_prepare_init(&loop->uv, &loop->prepare);
    uv_check_init(&loop->uv, &loop->check);
    uv_idle_init(&loop->uv, &loop->busy);
    uv_timer_init(&loop->uv, &loop->far);
    loop->wake.data = loop->prepare.data = loop->check.data = loop->busy.data = loop->far.data = loop;
    uv_prepare_start(&loop->prepare, on_prepare);
    uv_check_start(&loop->check, on_check);
    return cb_alarms_open(loop);
}

static void close_one(uv_handle_t *h, void *user) {
    (void)user;
    if (!uv_is_closing(h)) uv_close(h, NULL);
}

static void close_handles(cb_loop *loop) {
    cb_watches_close(loop);
    cb_signals_close(loop);
    uv_walk(&loop->uv, close_one, NULL);
    while (uv_loop_close(&loop->uv) == UV_EBUSY)
        uv_run(&loop->uv, UV_RUN_NOWAIT);
    if (loop->near_fd >= 0) close(loop->near_fd);
}

static void release(cb_loop *loop) {
    cb_alloc a = loop->turn.blocks.under;
    cb_cells_free(loop->turn.cells);
    cb_heap_free(&loop->alarms);
    cb_blocks_free(&loop->turn.blocks);
    pthread_mutex_destroy(&loop->lock);
    cb_mem_free(&a, loop->scratch);
    cb_mem_free(&a, loop->udp_area);
    cb_mem_wipe(loop, sizeof *loop);
    cb_mem_free(&a, loop);
}

static cb_time now(const cb_turn *turn) {
    (void)turn;
    return uv_hrtime();
}

bool cb_loop_is_virtual(const cb_loop *loop) {
    return loop->ops != NULL;
}

int cb_loop_needs_kernel(const cb_loop *loop, const char *what) {
    if (!loop->ops) return CB_OK;
    return cb_fail(CB_ENOTSUP, "%s is not to be had on a loop of a simulation (cb/sim.h)", what);
}

int cb_loop_blank(cb_loop **out, const cb_loop_opts *o) {
    const cb_alloc *a = o->alloc ? o->alloc : &cb_alloc_libc;
    cb_loop *loop = cb_mem_new(a, sizeof *loop);
    if (!loop) return cb_fail(CB_ENOMEM, "no memory for an event loop");
    cb_turn_init(&loop->turn, a, o->log, now);
    loop->udp_port = &cb_udp_kernel;
    loop->near_fd = -1;
    loop->near_at = loop->far_at = CB_NEVER;
    loop->dirty = true;
    loop->posts_end = &loop->posts;
    atomic_init(&loop->stop, false);
    pthread_mutex_init(&loop->lock, NULL);
    cb_list_init(&loop->watches);
    cb_list_init(&loop->signals);
    cb_list_init(&loop->orphans);
    cb_heap_init(&loop->alarms, &loop->turn.blocks.alloc);
    int rc = o->metrics ? cb_cells_new(&loop->turn.cells, o->metrics) : CB_OK;
    if (rc < 0) {
        release(loop);
        return rc;
    }
    cb_cells_move(loop->turn.cells, CB_C_LOOPS, 1);
    *out = loop;
    return CB_OK;
}

int cb_loop_new(cb_loop **out, const cb_loop_opts *opts) {
    if (!out) return cb_fail(CB_EINVAL, "cb_loop_new: out is NULL");
    cb_loop_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_loop_opts");
    if (rc < 0) return rc;
    cb_loop *loop;
    if ((rc = cb_loop_blank(&loop, &o)) < 0) return rc;
    loop->scratch = cb_mem_get(&loop->turn.blocks.under, SCRATCH_BYTES);
    if (!loop->scratch) {
        release(loop);
        return cb_fail(CB_ENOMEM, "no memory for the scratch area of an event loop");
    }
    rc = cb_loop_random(loop, loop->hash_key, sizeof loop->hash_key);
    if (rc == CB_OK) {
        int err = uv_loop_init(&loop->uv);
        if (err < 0) rc = cb_fail_errno(-err, "event loop");
    }
    if (rc < 0) {
        release(loop);
        return rc;
    }
    rc = open_handles(loop);
    if (rc < 0) {
        close_handles(loop);
        release(loop);
        return rc;
    }
    *out = loop;
    return CB_OK;
}

static void run_to_the_end(cb_loop *loop) {
    while (cb_turn_has_leftovers(&loop->turn) || !cb_list_empty(&loop->orphans)) {
        cb_turn_idle(&loop->turn); /* a last flush, before anything is cut */
        if (cb_list_empty(&loop->orphans)) continue;
        cb_orphan *o = CB_CONTAINER(loop->orphans.next, cb_orphan, link);
        void (*cut)(cb_orphan *) = o->cut;
        cb_orphan_gone(o);
        cut(o);
    }
}

void cb_loop_adopt(cb_loop *loop, cb_orphan *orphan, void (*cut)(cb_orphan *orphan)) {
    cb_orphan_gone(orphan);
    orphan->cut = cut;
    cb_list_add_tail(&loop->orphans, &orphan->link);
}

void cb_loop_free(cb_loop *loop) {
    if (loop && !loop->ops && !loop->turn.in_turn) cb_loop_destroy(loop); /* a virtual one belongs to its world */
}

void cb_loop_destroy(cb_loop *loop) {
    drop_posts(loop);
    run_to_the_end(loop);
    if (!loop->ops) close_handles(loop);
    run_to_the_end(loop);
    release(loop);
}
