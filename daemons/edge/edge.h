/* cb-edge: configuration, workers, and what the operating system gives and takes. */
#ifndef CB_EDGE_H
#define CB_EDGE_H

#include "edge_config.h"
#include <cb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#define EDGE_UPGRADE_VARIABLE "CB_EDGE_UPGRADE" /* in the environment of a successor: the socket to its predecessor */
#define EDGE_WHAT             "cb-edge"         /* in a handoff: whose it is; the version */

enum { EDGE_SAID = 256 };
enum { EDGE_WORKERS_MAX = 256, EDGE_ELDERS_MAX = CB_GROUP_GENERATIONS - 1 };

typedef struct edge edge;
typedef struct edge_acme edge_acme;
typedef struct edge_upgrade edge_upgrade;
typedef struct edge_worker edge_worker;
typedef struct edge_auth edge_auth;
typedef struct edge_provider edge_provider;
typedef struct edge_telemetry edge_telemetry;
typedef struct edge_tracing edge_tracing;
typedef struct edge_observe edge_observe;
typedef struct edge_side edge_side;
typedef struct edge_forwarding edge_forwarding;
typedef struct edge_shares edge_shares;
typedef struct edge_checks edge_checks;

/* What is wrong with a configuration. */
typedef struct edge_mistake {
    char pointer[512], text[600];
    uint32_t line, column; /* 0: not known */
} edge_mistake;

enum { EDGE_MISTAKES = 20 };

/* A configuration's text, and what is wrong with it: said as it is found, and kept. */
typedef struct edge_source {
    const char *name;  /* for messages: of the file, or "revision 17" */
    cb_slice text;     /* borrowed */
    const cb_log *log; /* where it is said; NULL: standard error */
    bool quiet;        /* only warnings are said */
    size_t n;
    edge_mistake mistakes[EDGE_MISTAKES];
} edge_source;

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

/* What stays with an address while listeners there come and go: a listener is the successor of the one before it, and
 * the process may be the successor of another one. Of the main thread. */
typedef struct edge_place {
    struct edge_place *next;
    char *conf_address;
    char address[64];
    cb_group *group;
} edge_place;

/* A snapshot's use of a listener. */
typedef struct edge_use {
    struct edge_use *next;
    edge_listener *listener;
    cb_identity *fresh; /* the listener stays from before: its certificates as they are now in the files */
    char said[EDGE_SAID];
} edge_use;

/* The identity of a group of origins. */
typedef struct edge_origin_trust {
    struct edge_origin_trust *next;
    const char *name;
    cb_identity *identity;
    char said[EDGE_SAID]; /* what is wrong with its files, as the log has it */
} edge_origin_trust;

/* A configuration with everything that was made from it. Immutable; shared by the workers. */
typedef struct edge_snapshot {
    cb_config *config;
    const edge_conf *conf;
    cb_router *router;
    cb_tickets *tickets; /* one for all listeners: what one has taken as early data no other takes again */
    char *tickets_key;   /* what they were made from, as text */
    edge_auth *auth;     /* identities, and what was revoked */
    edge_use *uses;
    edge_shares *shares; /* what checks say of its origins */
    edge_origin_trust *origins;
    edge_tracing *tracing; /* where spans go; NULL = nowhere */
    int64_t told_at;       /* when the log was told last what will expire; of the main thread */
    _Atomic unsigned refs;
} edge_snapshot;

/* A listener's server in one worker. */
typedef struct edge_server {
    struct edge_server *next;
    edge_worker *worker;
    edge_listener *listener;
    cb_http_server *http;
    uint64_t serial; /* of this worker's servers, from 1 */
    bool draining;
} edge_server;

/* Sockets of an address that a server is to take over, and which share of them is its own. */
typedef struct edge_given {
    int32_t fds[CB_HTTP_SERVER_FDS];
    uint32_t n, share, of;
} edge_given;

struct edge_worker {
    edge *edge;
    uint32_t number;
    pthread_t thread;
    bool started;
    cb_loop *loop;
    cb_proxy *proxy;
    edge_tracing *tracing; /* what the proxy has */
    edge_shares *shares;   /* of the routes that it has */
    cb_access_log *log;
    char *log_path;
    uint64_t serials;
    edge_server *servers, *prepared; /* prepared: of a reload that is not decided yet */
    cb_access_log *prepared_log;
    edge_snapshot *next;       /* what the reload under way goes to */
    edge_snapshot *told;       /* the same, until the worker has heard of it: it may end before */
    int answer;                /* to prepare, and why; the main thread reads them after the worker has posted */
    char why[512], where[128]; /* where: a pointer into the configuration */
    bool stopping, done;
    _Atomic int64_t answered_ms; /* when it was asked last whether it turns (CLOCK_MONOTONIC) */
    _Atomic bool asked;
};

struct edge {
    const char *file;
    char **argv;
    char *program; /* where it was started from: found anew at each upgrade */
    edge_place *places;
    cb_handoff *inherited;       /* from the process before, until everything is open */
    int elders[EDGE_ELDERS_MAX]; /* sockets to older processes that may still drain, the youngest first */
    uint32_t n_elders;
    int elder;               /* the one we take over from; < 0: none */
    edge_upgrade *upgrade;   /* under way */
    cb_timer *upgrade_waits; /* for a change to end */
    cb_loop *loop;           /* of the main thread: signals, reloads */
    const cb_log *log;       /* of all threads; the writer's */
    cb_log_writer *writer, *next_writer;
    edge_log_conf log_target; /* what the writer has; its texts are of */
    cb_config *log_config;
    edge_snapshot *now;
    cb_jwt_cache *verdicts; /* these two outlive reloads: what was checked, and which proofs were used */
    cb_dpop *proofs;
    edge_provider *providers; /* of the snapshots that there are; the main loop keeps them fresh */
    edge_acme *acme;
    edge_worker workers[EDGE_WORKERS_MAX];
    uint32_t n_workers;
    /* a reload under way */
    edge_snapshot *next;
    uint32_t answers;
    bool failed, workers_told, only_check, by_file, reloads, again;
    edge_source from; /* what it is made of */
    cb_revisions *revisions;
    cb_admin *admin; /* NULL: none */
    cb_admin_roles *roles, *next_roles;
    char admin_socket[104], admin_said[EDGE_SAID];
    uint64_t admin_place[2]; /* device and inode of the socket that is ours */
    cb_audit *audit;
    cb_identity *admin_identity, *next_admin_identity; /* of the door over TCP */
    cb_authn *admin_gate, *next_admin_gate;
    int admin_tcp;               /* its number; -1: none */
    bool audit_lent;             /* an upgrade is under way: only one may write it */
    struct edge_gather *gathers; /* questions to workers */
    cb_admin_call *reload_call;  /* waits for a reload */
    uint64_t origins_out;        /* as the last second had it, for events */
    int64_t certificates;
    char *origin_states; /* what listeners know of origins */
    size_t origin_states_len;
    const edge_snapshot *origin_states_of;
    bool origins_watched;         /* one is not up: they are looked at each second */
    bool stats_known, drain_said; /* drain_said: drain_ms is what somebody asked for */
    int64_t started_s;
    uint32_t ticks;
    cb_store *store; /* NULL: none, or it cannot be opened */
    char *state_dir;
    _Atomic bool stopping, yields, serving; /* of the main thread, seen by others; yields: a successor serves */
    _Atomic int64_t looked_ms;              /* when the main thread looked around last */
    edge_telemetry *telemetry;
    edge_observe *observe;
    edge_checks *checks;
    edge_side *side;
    _Atomic int retiring; /* tracers that nobody uses any more, and that still send */
    uint32_t stopped;
    uint64_t drain_ms;
    void *steering; /* cb_steering, where it is built in and allowed */
    cb_steering_hook hook;
    edge_forwarding *forwarding;
    cb_dcid_hook dcids; /* of the datapath, and where it is while there is one */
    const cb_dcid_hook *_Atomic dcid_hook;
};

/* --- mistakes.c --- */
/* A mistake at a pointer (which the format gives). Always CB_EINVAL, with why as the detail. */
int edge_wrong(edge_source *s, const char *why, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void edge_wrong_at(const cb_config_error *e, void *source);
void edge_warn(const edge_source *s, const char *why, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void edge_note(const edge_source *s, const char *text); /* more about a mistake: only said */
/* The text of a file, to be freed; not one: CB_EINVAL, and told as a mistake. */
int edge_source_read(edge_source *s, char **text, const char *file);

/* --- snapshot.c --- */
/* Checks a text and makes everything that needs no socket. e may be NULL: only to check. */
int edge_snapshot_load(edge_snapshot **out, edge_source *from, edge *e);
/* Listeners that come later at the same addresses succeed those of this snapshot. */
int edge_snapshot_settle(edge *e, const edge_snapshot *s);
void edge_places_free(edge *e);
/* Names in a handoff: what belongs to an address. */
enum { EDGE_NAME = 200 };
const char *edge_name(char out[EDGE_NAME], const char *conf_address, const char *what);
/* Listeners that stay present the certificates that were read with this snapshot. */
void edge_snapshot_certificates(edge_snapshot *s);
uint32_t edge_workers_of(const edge_conf *c);
edge_snapshot *edge_snapshot_ref(edge_snapshot *s);
void edge_snapshot_unref(edge_snapshot *s);
edge_listener *edge_listener_ref(edge_listener *l);
void edge_listener_unref(edge_listener *l);

/* --- trust.c --- */
/* The identity of a listener with all its rules, as the files are now, or of a group (NULL stays: the system's roots).
 * e may be NULL. Any thread. */
int edge_trust_listener(cb_identity **out, const edge_listener_conf *l, const edge_conf *c, edge_source *from,
                        const edge *e);
int edge_trust_group(cb_identity **out, const edge_group_conf *g, edge_source *from, const edge *e);
/* The identities of groups that a snapshot looks after. The name must live as long. */
int edge_trust_keep(edge_snapshot *s, const char *name, cb_identity *identity);
void edge_trust_drop(edge_snapshot *s);
/* Says what has expired or will within 14 days: to the log, or (NULL) as a warning about a source. */
void edge_trust_tell(const edge_snapshot *s, edge_source *from, const cb_log *log);
/* Every now and then, on the main thread: files that have changed are read; twice a day what will expire is said. */
void edge_trust_tick(edge_snapshot *s, const cb_log *log);

/* Looks after the ticket keys; says once what is wrong with them. */
void edge_snapshot_turn_keys(const edge_snapshot *s, const cb_log *log);

/* --- auth.c --- */
/* Reads keys and revocations. */
int edge_auth_new(edge_auth **out, const edge_conf *c, edge_source *from, edge *e);
void edge_auth_free(edge_auth *a); /* NULL is fine; gates live on in routers */
/* What a route asks, into *out, which lives until edge_auth_route_done(). CB_ENOENT: nothing. */
int edge_auth_route(cb_route_auth *out, const edge_auth *a, const edge_route_conf *r, edge_source *from);
void edge_auth_route_done(cb_route_auth *r);
/* Takes what was added to the file of revocations; says what is wrong with it, once. */
void edge_auth_look(edge_auth *a, const cb_log *log);

/* --- providers.c --- */
/* The provider of a configuration, the one of before where nothing about it has changed; a reference for the caller.
 * e NULL: only to check. */
int edge_provider_get(cb_oidc **out, cb_identity **identity, const edge_provider_conf *c, edge_source *from, edge *e);
/* Those that are new begin, on the main loop; says once what is wrong with one. */
void edge_providers_run(edge *e);
void edge_providers_look(edge *e);
/* Those that no snapshot of ours uses any more end. */
void edge_providers_prune(edge *e);
/* A secret of one line, to be wiped and freed; why not: cb_last_error(). */
int edge_read_secret(char **out, const char *path, edge_source *from);
/* A gate that one of these identities opens. */
int edge_auth_gate(cb_authn **out, const edge_auth *a, const cb_config_list *names);
bool edge_auth_uses(const edge_auth *a, const cb_oidc *provider);

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
void edge_worker_resume(cb_loop *loop, void *worker); /* a successor begins; answers */
void edge_worker_save(cb_loop *loop, void *worker);   /* sockets into the upgrade's handoff; answers */
void edge_worker_reopen(cb_loop *loop, void *worker);
void edge_worker_close(edge_worker *w); /* after its thread has ended */

/* --- wiring.c --- */
int edge_run(const char *file, char **argv);
/* Can this process go over to that configuration? Are its addresses free, and is what cannot change as it was? */
int edge_check_addresses(edge_source *from, const edge *e, const edge_snapshot *next, bool started);
int edge_check_fixed(edge_source *from, const edge *e, const edge_snapshot *next);
void edge_post_all(edge *e, cb_task_fn fn);
void edge_serving(edge *e);           /* everything is open, and begins */
void edge_leave(edge *e, bool yield); /* drain and end */
void edge_drain(edge *e);             /* the same as SIGTERM asks for it */
void edge_worker_stopped(edge *e);    /* any thread */

/* --- reload.c --- */
extern const cb_revisions_ops edge_revisions_ops;
/* Takes over what the file says now, or runs the last revision anew. done (may be NULL) as cb_revisions_propose(). */
int edge_reload(edge *e, cb_revisions_done done, void *user);
void edge_on_reload(cb_loop *loop, void *e);                  /* SIGHUP */
void edge_answer(edge_worker *w, int rc, const char *detail); /* a worker's answer to prepare; any thread */
void edge_took_over(edge_worker *w);                          /* the same to commit */

/* --- state.c --- */
int edge_state_begin(edge *e); /* finds what is to run, into e->now; mistakes are printed */
/* CB_EPERM: others may write in that folder. */
int edge_state_check(const char *folder);
/* Says what would hinder a start from using it. */
void edge_state_warn(const char *folder, const edge_source *from);
void edge_state_begun(edge *e);  /* it runs */
void edge_state_retry(edge *e);  /* a store that could not be opened, or is lost */
void edge_state_pause(edge *e);  /* an upgrade begins: no more changes */
void edge_state_close(edge *e);  /* a turn later: the successor may open the store */
void edge_state_resume(edge *e); /* it failed */
void edge_state_free(edge *e);

/* --- admin.c --- */
int edge_admin_prepare(edge *e, edge_snapshot *next, edge_source *from);
void edge_admin_commit(edge *e, edge_snapshot *next);
void edge_admin_abort(edge *e);
int edge_admin_check(const edge_snapshot *s, edge_source *from); /* opens nothing */
void edge_admin_open(edge *e);                                   /* or says why not, and tries again */
void edge_admin_tick(edge *e);                                   /* now and then */
void edge_admin_drain(edge *e);
void edge_admin_lend(edge *e); /* the audit log, to a successor; or it failed */
void edge_admin_take_back(edge *e);
void edge_admin_free(edge *e);

/* --- scope.c: as cb_revisions_admin_opts has them --- */
int edge_scope_allow(const cb_admin_principal *who, const cb_document_change *c, const cb_document *before,
                     const cb_document *after, void *user);
int edge_scope_show(const cb_admin_principal *who, cb_document *copy, void *user);

/* --- sockets.c --- */
/* Opens a server with the sockets given, or without (NULL). */
int edge_server_open(edge_server **out, edge_worker *w, edge_listener *l, const edge_conf *c, const edge_given *given);
bool edge_speaks_quic(const edge_listener_conf *l);
cb_http_limits edge_limits_of(const edge_conf *c);

/* --- upgrade.c: this process is replaced --- */
void edge_upgrade_begin(cb_loop *loop, void *e);                     /* SIGUSR2 */
void edge_upgrade_saved(edge_worker *w, int rc, const char *detail); /* a worker's answer; any thread */
cb_handoff *edge_upgrade_handoff(const edge *e);
void edge_upgrade_abort(edge *e); /* the process ends; waits for the successor and the talk with it */
void edge_upgrade_end(edge *e);   /* the workers are gone: what they did not answer any more goes, too */

/* --- inherit.c: this process replaces another one --- */
int edge_inherit(edge *e); /* before anything else; CB_OK also when there is nothing */
void edge_inherit_given(const edge *e, const edge_listener *l, uint32_t worker, edge_given *out);
int edge_inherit_ready(edge *e);         /* everything is open: tells, and waits for the word to go */
void edge_inherit_begun(edge_worker *w); /* a worker's answer; any thread */
uint32_t edge_elders(edge *e);           /* that still live */

/* --- steering.c: QUIC packets to their worker in the kernel, where libcb-xdp is built in and allowed --- */
void edge_steering_open(edge *e); /* the predecessor's, if there is one */
int edge_steering_save(const edge *e, cb_handoff *h);
void edge_steering_restore(const edge *e); /* a successor failed in the middle: new connections stay here */
void edge_steering_close(edge *e);

/* --- forwarding.c: one of a PoP whose hosts all forward --- */
edge_forwarding *edge_forwarding_new(edge *e); /* NULL: no memory */
int edge_forwarding_begin(edge *e);            /* before rights are given up */
int edge_forwarding_prepare(edge *e, edge_snapshot *next, edge_source *from);
void edge_forwarding_commit(edge *e, edge_snapshot *next);
void edge_forwarding_abort(edge *e);
int edge_forwarding_check(const edge_snapshot *s, edge_source *from);                       /* opens nothing */
bool edge_forwarding_differs(const edge_forwarding_conf *a, const edge_forwarding_conf *b); /* in what a reload keeps */
void edge_forwarding_open(edge *e);
void edge_forwarding_tick(edge *e);               /* each half second */
void edge_forwarding_leave(edge *e, bool yields); /* yields: a successor takes over */
void edge_forwarding_restore(edge *e);            /* a successor failed, which had taken the datapath over */
void edge_forwarding_free(edge *e);               /* after the workers */
cb_dcid_hook edge_forwarding_dcids(edge *e);      /* for the groups of listeners */

/* --- acme.c: certificates from ACME servers --- */
edge_acme *edge_acme_new(edge *e); /* NULL: no memory */
/* From now on by this configuration; begins with the first that has issuers. */
/* What becomes of each certificate of the ACME servers. Any thread. */
typedef struct edge_acme_item {
    char issuer[64], certificate[256]; /* its first name */
    const char *state;                 /* waiting, ordering, failing; following: another process has the directory */
    int64_t due_s;                     /* when it is looked after again; 0: nobody here does */
    uint32_t failures;                 /* in a row */
} edge_acme_item;
void edge_acme_list(edge_acme *a, void (*fn)(const edge_acme_item *item, void *user), void *user);
int edge_acme_configure(edge_acme *a, edge_snapshot *s);
void edge_acme_stop(edge_acme *a); /* gives the directories back soon: a successor may want them */
void edge_acme_free(edge_acme *a);

/* --- acme_front.c --- */
cb_alpn01 *edge_acme_alpn01(const edge *e); /* NULL: only a check */
/* Adds a certificate by an issuer to an identity (made when it is NULL); a placeholder while there is none. */
int edge_acme_certificate(cb_identity **id, cb_identity_opts o, const edge_conf *c, const edge_certificate_conf *cert,
                          edge_source *from);
/* Of servers; their user is the worker. Challenges of our own names are answered, all else is the proxy's. */
const cb_exchange_ops *edge_front_ops(bool redirect);
int edge_acme_eab(char *out, const edge_issuer_conf *c); /* EDGE_ACME_EAB bytes */
int edge_acme_check_files(const edge_conf *c, edge_source *from);
int edge_acme_give(const edge_conf *c, uid_t uid, gid_t gid);

/* --- checks.c: of origins, by the main thread for all workers --- */
int edge_shares_new(edge_shares **out, const edge_conf *c);
edge_shares *edge_shares_ref(edge_shares *s);
void edge_shares_unref(edge_shares *s); /* NULL is fine */
int edge_checks_prepare(edge *e, edge_snapshot *next, edge_source *from);
void edge_checks_commit(edge *e, edge_snapshot *next);
void edge_checks_abort(edge *e);
void edge_checks_free(edge *e);
/* A worker goes by these from now on. */
void edge_checks_use(edge_worker *w, const edge_snapshot *s);
/* How the n-th of all origins of the configuration is. CB_ENOENT: it is not checked. */
int edge_checks_status(const edge *e, size_t place, cb_health_status *out);

/* --- parts.c: log, metrics and the like --- */
/* Opens what a configuration needs anew; mistakes are told, and then nothing has changed. Commit or abort follows. */
int edge_parts_prepare(edge *e, edge_snapshot *next, edge_source *from);
void edge_parts_commit(edge *e, edge_snapshot *next);
void edge_parts_abort(edge *e);
int edge_parts_check(const edge_snapshot *s, edge_source *from); /* opens nothing */

/* --- log.c --- */
int edge_log_begin(edge *e); /* to standard error, until there is a configuration */
/* A reload: opens a new target, which may fail (and is told); then takes it, or drops it. */
int edge_log_prepare(edge *e, edge_snapshot *next, edge_source *from);
void edge_log_commit(edge *e, edge_snapshot *s);
void edge_log_abort(edge *e);
bool edge_log_is_file(const edge_conf *c);
void edge_log_reopen(edge *e);
void edge_log_end(edge *e);
int edge_log_check(const edge_conf *c, edge_source *from); /* opens nothing; mistakes are printed */
void edge_say_of(const cb_log *log, int level, const char *module, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#define edge_say(log, level, ...) edge_say_of(log, level, "edge", __VA_ARGS__)

/* --- system.c --- */
void edge_forbid_rights(void); /* first of all */
/* Why edge_check_user() or edge_drop_privileges() failed; else cb_last_error(). */
const char *edge_why(void);
/* Is the address free? Sockets that share a port would otherwise share it with another program of the same user too. */
int edge_probe(const char *address, bool quic);
void edge_raise_files(const cb_log *log);
int edge_check_user(const edge_conf *c);
int edge_drop_privileges(const edge_conf *c, const cb_log *log);
void edge_ambient(bool raise); /* of this thread, while a successor is started */
/* A folder and what is in it, as far as it is root's, for the user: `deeper` levels below. -1: errno says why not. */
int edge_give_folder(int at, const char *name, uid_t uid, gid_t gid, int deeper);
uint32_t edge_cpus(void);
/* Sockets of servers belong to the user from now on: another process of that user may open more at their address. */
int edge_give_sockets(const edge *e, const edge_conf *c);
char *edge_find_program(const char *argv0); /* to be freed; NULL: no memory */
int edge_pid_file_write(const edge_conf *c);
void edge_pid_file_remove(const edge_conf *c);
void edge_notify(const char *state); /* sd_notify(3), by its own datagram */
void edge_notify_reloading(void);
#endif
