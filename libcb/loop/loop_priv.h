/* The inside of a loop; only libcb/loop/ looks at it. */
#ifndef CB_LOOP_PRIV_H
#define CB_LOOP_PRIV_H

#include "loop/loop_int.h"
#include "loop/turn.h"
#include "loop/virtual.h"
#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

enum { RANDOM_STOCK = 512 };

typedef struct cb_post {
    struct cb_post *next;
    cb_task_fn fn;
    void (*drop)(void *user); /* NULL: nothing is lost when it never runs */
    void *user;
} cb_post;

struct cb_loop {
    cb_turn turn;              /* must be first: turn.c finds it there */
    const cb_virtual_ops *ops; /* of the world that drives a virtual loop; NULL: libuv does, and the kernel */
    void *world;
    const struct cb_udp_port *udp_port; /* where datagrams go */
    uv_loop_t uv;
    uv_prepare_t prepare; /* the last thing before the loop waits */
    uv_check_t check;     /* the first thing after the descriptors were handled */
    uv_idle_t busy;       /* active while there is a reason not to wait */
    uv_async_t wake;
    cb_time far_at; /* what `far` is set to; CB_NEVER = not set */
    uv_timer_t far; /* wakes for the next deadline, in milliseconds */
    uv_poll_t near; /* wakes for it in nanoseconds, by near_fd */
    int near_fd;
    bool near_fired; /* near_fd is readable; read it or set it anew */
    cb_time near_at; /* what near_fd is set to; CB_NEVER = not set */
    cb_heap alarms;
    cb_list watches, signals, orphans;
    size_t watch_count, holds;
    unsigned served;       /* descriptors, or what was read from them, in this turn */
    unsigned kept_waiting; /* and since cb_defer_idle() found work to wait */
    cb_time waiting_since;
    cb_time worked_since, waited_since; /* for what is counted; 0 = not in a turn, not between two */
    bool running;                       /* inside cb_loop_run() */
    bool dirty;                         /* libuv has changes that its epoll descriptor does not know yet */
    atomic_bool stop;
    pthread_mutex_t lock; /* guards the next three */
    cb_post *posts, **posts_end;
    bool closing;
    uint8_t hash_key[16];
    uint8_t stock[RANDOM_STOCK];
    size_t stock_left;
    uint8_t *scratch;
    struct cb_udp_area *udp_area; /* one for all UDP sockets of the loop; made by the first */
    bool udp_warned;              /* about small socket buffers: once is enough */
};

/* loop.c */
int cb_loop_blank(cb_loop **out, const cb_loop_opts *o); /* errors as cb_loop_new() */
void cb_loop_run_posts(cb_loop *loop);
bool cb_loop_has_posts(const cb_loop *loop);
void cb_loop_destroy(cb_loop *loop);
/* alarm.c */
int cb_alarms_open(cb_loop *loop);
void cb_alarms_run(cb_loop *loop); /* fires what is due */
bool cb_alarms_arm(cb_loop *loop); /* makes the loop wake in time; true: something is due already */
/* account.c: how long the loop works and waits, where it is counted. */
void cb_loop_begins(cb_loop *loop);
void cb_loop_ends(cb_loop *loop);
/* A turn begins, if it has not begun; a turn is over. */
static inline void cb_loop_account_begin(cb_loop *loop) {
    if (loop->turn.cells && !loop->worked_since) cb_loop_begins(loop);
}
static inline void cb_loop_account_end(cb_loop *loop) {
    if (loop->turn.cells && loop->worked_since) cb_loop_ends(loop);
}
/* watch.c, signal.c: at the end of a loop's life */
void cb_watches_close(cb_loop *loop);
void cb_signals_close(cb_loop *loop);

#endif
