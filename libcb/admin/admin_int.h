/* The inside of an administration interface: what its files share. */
#ifndef CB_ADMIN_INT_H
#define CB_ADMIN_INT_H

#include "admin/replay.h"
#include "admin/ring.h"
#include "admin/roles.h"
#include "admin/router.h"
#include "base/buf.h"
#include "loop/loop_int.h"
#include "loop/turn.h"
#include "loop/work.h"
#include "telemetry/count.h"
#include <cb/admin.h>

enum {
    CB_ADMIN_STREAMS = 64,    /* of events, of one admin */
    CB_ADMIN_ETAG_BYTES = 80, /* with quotes and NUL */
    CB_ADMIN_CURSOR_BYTES = 256,
    CB_ADMIN_PAGE = 100, /* items, when nobody says otherwise */
    CB_ADMIN_PAGE_MAX = 1000,
    CB_ADMIN_SCRAPES = 4, /* pages of metrics on their way at once */
    CB_ADMIN_BODIES = 16  /* so many of the largest bodies at once */
};

typedef struct cb_admin_door {
    cb_admin *a;
    cb_http_server *srv; /* NULL: none */
    cb_authn *gate;
    bool local, open; /* a unix socket; public_only */
} cb_admin_door;

typedef struct cb_admin_stream cb_admin_stream;

struct cb_admin {
    cb_loop *loop;
    const cb_alloc *alloc;
    const cb_log *log;
    cb_admin_opts o; /* every field set; texts are copies */
    char *name, *version;
    cb_admin_roles *roles;
    cb_authn_worker *worker; /* made with the first gate */
    cb_admin_door doors[CB_ADMIN_DOORS];
    int n_doors;
    cb_admin_router router;
    cb_list calls, streams; /* cb_admin_call.link, cb_admin_stream.link */
    size_t n_waiting, n_streams, n_scrapes, body_bytes;
    cb_replays replays;
    cb_admin_ring ring;
    cb_alarm beat;                 /* while somebody listens to events */
    cb_time beat_every, gated_for; /* how often streams get a comment; how long one through a gate lives */
    cb_alarm denials;              /* while denials were not recorded */
    uint64_t denied;               /* not recorded */
    double tokens;                 /* records of denials that may be written now */
    cb_time tokens_at;
    char *description; /* NULL: to be made */
    size_t description_len;
    bool ready, alive;
    char why_ready[200], why_alive[200];
    cb_work *reading; /* of the audit log: one page at a time */
    int draining;     /* doors that are not drained yet */
    bool ending;      /* cb_admin_drain() was called */
    cb_task_fn drained;
    void *drained_user;
    cb_defer no_doors; /* drained, with no door to tell of it */
};

struct cb_admin_call {
    cb_list link;
    cb_grave grave;
    cb_admin *a;
    cb_admin_door *door;
    cb_exchange *x; /* NULL: the client is gone */
    cb_admin_target target;
    const cb_admin_row *row;
    char allow[64];
    cb_admin_person who;
    cb_authn_call *authn; /* NULL: no gate, or not any more */
    cb_buf body;
    char content_type[64];
    char *if_match, *if_none_match; /* NULL: absent */
    cb_config *config;
    cb_json_out *out, *mistakes;
    uint32_t n_mistakes;
    uint32_t limit;
    char cursor[CB_ADMIN_CURSOR_BYTES];
    cb_replay *replay;      /* the entry that waits for our answer */
    cb_alarm due;           /* the request is to have arrived */
    cb_time began;          /* its head was here */
    enum cb_cell_id denied; /* of CB_C_ADMIN_DENIED_...: why, if it is */
    struct cb_admin_recording *recording;
    cb_admin_committed committed;
    void *committed_user;
    void *kept;
    void (*on_end)(cb_admin_call *call, void *user);
    void *on_end_user;
    /* the answer to come */
    int status;
    char etag[CB_ADMIN_ETAG_BYTES], type[64];
    char *location;
    const cb_field *challenges;
    size_t n_challenges;
    cb_buf answer;  /* while it waits for a record */
    bool admitted;  /* it may be asked: the body is taken */
    bool body_done; /* all of the request is here */
    bool dry_run;
    bool handed;   /* to the resource */
    bool recorded; /* as done, in audit, or there is no audit and it would be */
    bool answered, scraping, buried;
};

/* --- admin.c --- */
/* How many connections a door has now. */
uint64_t cb_admin_door_conns(const cb_admin_door *door);

/* --- call.c: from the head of a request to its resource --- */
extern const cb_exchange_ops cb_admin_door_ops; /* user: cb_admin_door */
/* Frees it when nothing needs it any more. */
void cb_admin_call_settle(cb_admin_call *call);
/* The admin goes away. */
void cb_admin_call_cut(cb_admin_call *call);
/* Takes the exchange out of the call, which is answered then; NULL: the client is gone. */
cb_exchange *cb_admin_call_take(cb_admin_call *call);

/* --- check.c: what a request's head and body must be --- */
/* True: the call was answered. */
bool cb_admin_check_head(cb_admin_call *call);
bool cb_admin_check_body(cb_admin_call *call);

/* --- answer.c --- */
int cb_admin_answer(cb_admin_call *call, int status, const char *content_type, cb_slice body);
int cb_admin_problemf(cb_admin_call *call, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The answer goes out, now that it may. */
void cb_admin_deliver(cb_admin_call *call, cb_slice body);
/* The call has been answered with this status: counted. */
void cb_admin_count(cb_admin_call *call, int status);

/* --- record.c: audit --- */
typedef void (*cb_admin_recorded)(cb_admin_call *call, int rc);
/* Writes a record about the call; done follows later, also when there is no audit. change may be NULL. < 0: it could
 * not be queued; done does not follow. */
int cb_admin_record(cb_admin_call *call, int outcome, const cb_admin_change *change, cb_admin_recorded done);
/* May a denial be recorded? False: it was counted instead. */
bool cb_admin_may_record_denial(cb_admin *a);
void cb_admin_denials_init(cb_admin *a);
/* The call goes away: nobody is told any more. */
void cb_admin_record_forget(cb_admin_call *call);

/* --- builtin.c, audit_page.c --- */
int cb_admin_builtin(cb_admin *a);
int cb_admin_builtin_log(cb_admin *a);
int cb_admin_builtin_audit(cb_admin *a);

/* --- stream.c --- */
int cb_admin_builtin_events(cb_admin *a);
/* All end: done when roles change, and when the admin drains or goes. */
void cb_admin_streams_end(cb_admin *a, bool at_once);
void cb_admin_streams_end_at(cb_admin *a, const cb_admin_door *door); /* those that came through it */

#endif
