/* cb-edge: configuration, workers, and what the operating system gives and takes. */
#ifndef CB_EDGE_H
#define CB_EDGE_H

#include "edge_config.h"
#include <cb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

enum { EDGE_WORKERS_MAX = 256 };

typedef struct edge edge;
typedef struct edge_worker edge_worker;

/* One listener of a configuration, shared by the workers: what its sockets were opened with. */
typedef struct edge_listener {
    const edge_listener_conf *conf;
    cb_identity *identity;
    cb_tickets *tickets;
    cb_group *group;
    cb_config *config; /* conf lives in it */
    char *key;         /* all that makes sockets equal, as text: unchanged listeners survive a reload */
    char address[64];  /* the real one: port 0 is chosen by the first worker */
    _Atomic unsigned refs;
} edge_listener;

/* A snapshot's use of a listener. */
typedef struct edge_use {
    struct edge_use *next;
    edge_listener *listener;
    cb_identity *fresh; /* the listener stays from before: its certificates as they are now in the files */
} edge_use;

/* A configuration with everything that was made from it. Immutable; shared by the workers. */
typedef struct edge_snapshot {
    cb_config *config;
    const edge_conf *conf;
    cb_router *router;
    cb_tickets *tickets; /* one for all listeners: what one has taken as early data no other takes again */
    char *tickets_key;   /* what they were made from, as text */
    edge_use *uses;
    _Atomic unsigned refs;
} edge_snapshot;

/* A listener's server in one worker. */
typedef struct edge_server {
    struct edge_server *next;
    edge_worker *worker;
    edge_listener *listener;
    cb_http_server *http;
    bool draining;
} edge_server;

struct edge_worker {
    edge *edge;
    uint32_t number;
    pthread_t thread;
    bool started;
    cb_loop *loop;
    cb_log sink; /* of this thread alone: a reload may change its level */
    cb_proxy *proxy;
    cb_access_log *log;
    char *log_path;
    edge_server *servers, *prepared; /* prepared: of a reload that is not decided yet */
    cb_access_log *prepared_log;
    edge_snapshot *next; /* what the reload under way goes to */
    edge_snapshot *told; /* the same, until the worker has heard of it: it may end before */
    int answer;          /* to prepare, and why; the main thread reads them after the worker has posted */
    char why[512];
    bool stopping, done;
};

struct edge {
    const char *file;
    cb_loop *loop; /* of the main thread: signals, reloads */
    cb_log log;
    edge_snapshot *now;
    edge_worker workers[EDGE_WORKERS_MAX];
    uint32_t n_workers;
    /* a reload under way */
    edge_snapshot *next;
    uint32_t answers;
    bool failed, stopping, again;
    uint32_t stopped;
    uint64_t drain_ms;
    void *steering; /* cb_steering, where it is built in and allowed */
    cb_steering_hook hook;
};

/* --- snapshot.c --- */
/* Reads, checks and makes everything that needs no socket. Each mistake is printed. `before` may be NULL. */
int edge_snapshot_load(edge_snapshot **out, const char *file, const edge_snapshot *before,
                       const cb_steering_hook *hook);
/* Listeners that stay present the certificates that were read with this snapshot. */
void edge_snapshot_certificates(edge_snapshot *s);
uint32_t edge_workers_of(const edge_conf *c);
edge_snapshot *edge_snapshot_ref(edge_snapshot *s);
void edge_snapshot_unref(edge_snapshot *s);
edge_listener *edge_listener_ref(edge_listener *l);
void edge_listener_unref(edge_listener *l);

/* Looks after the ticket keys; says once what is wrong with them. */
void edge_snapshot_turn_keys(const edge_snapshot *s, const cb_log *log);

/* --- worker.c --- */
int edge_worker_open(edge_worker *w, edge_snapshot *s); /* before its thread runs */
int edge_worker_log(edge_worker *w, const edge_snapshot *s);
int edge_worker_start(edge_worker *w);
/* Posts a prepare with its own reference on the snapshot. */
int edge_worker_post_prepare(edge_worker *w, edge_snapshot *next);
/* Tasks for a worker's loop; user is the worker. */
void edge_worker_commit(cb_loop *loop, void *worker);
void edge_worker_abort(cb_loop *loop, void *worker);
void edge_worker_drain(cb_loop *loop, void *worker);
void edge_worker_reopen(cb_loop *loop, void *worker);
void edge_worker_close(edge_worker *w); /* after its thread has ended */

/* --- wiring.c --- */
int edge_run(const char *file);
void edge_answer(edge_worker *w, int rc, const char *detail); /* a worker's answer to prepare; any thread */
void edge_worker_stopped(edge *e);                            /* any thread */

/* --- steering.c: QUIC packets to their worker in the kernel, where libcb-xdp is built in and allowed --- */
void edge_steering_open(edge *e);
void edge_steering_close(edge *e);

/* --- system.c --- */
/* Why edge_check_user() or edge_drop_privileges() failed; else cb_last_error(). */
const char *edge_why(void);
/* Is the address free? Sockets that share a port would otherwise share it with another program of the same user too. */
int edge_probe(const char *address, bool quic);
void edge_raise_files(const cb_log *log);
int edge_check_user(const edge_conf *c);
int edge_drop_privileges(const edge_conf *c, const cb_log *log);
uint32_t edge_cpus(void);
void edge_notify(const char *state); /* sd_notify(3), by its own datagram */
void edge_notify_reloading(void);
void edge_log_to_stderr(cb_log *log, int level, bool json);
void edge_say(const cb_log *log, int level, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
