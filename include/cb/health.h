/* cb/health.h - is it well, and how much can it take? Three cores that know nothing of sockets, clocks or threads:
 *
 *   cb_health    one endpoint that is checked: when the next check is due, what its results come to (rise and fall,
 *                slow start, damping of flaps, what an operator has said), and with what weight it may be used.
 *   cb_outlier   a set of endpoints by what their users see: who fails more, or is slower, than the others is left out
 *                for a while, and never more of them than a share.
 *   cb_lb_adapt  weights by the load that servers report, with damping.
 *
 * Time is an argument, monotonic nanoseconds of any origin; chance comes from a seed. The clock may jump: forward, and
 * checks do not come in a burst; backward, and they do not stop. cb/monitor.h has the drivers that do the checks.
 * docs/guide/health.md shows how to use them. */
#ifndef CB_HEALTH_H
#define CB_HEALTH_H

#include <cb/base.h>

CB_BEGIN

typedef struct cb_health cb_health;
typedef struct cb_outlier cb_outlier;
typedef struct cb_lb_adapt cb_lb_adapt;

enum cb_health_limits {
    CB_HEALTH_REASON_BYTES = 256, /* of a reason, with its NUL: longer ones are cut */
    CB_HEALTH_EVENTS = 16,        /* that wait to be taken; then the oldest go */
    CB_OUTLIER_ENDPOINTS_MAX = 4096,
    CB_LB_ADAPT_MEMBERS_MAX = 4096
};

/* ---- one endpoint that is checked ---- */
enum cb_health_state {
    CB_HEALTH_UNKNOWN = 0, /* no result yet; it counts as the options say */
    CB_HEALTH_UP = 1,
    CB_HEALTH_DOWN = 2,
    CB_HEALTH_DRAINING = 3 /* somebody said so: what it has stays, nothing new comes */
};

/* Why it is in its state. */
enum cb_health_cause {
    CB_HEALTH_BY_START = 0,    /* nothing has happened yet */
    CB_HEALTH_BY_CHECKS = 1,   /* their results */
    CB_HEALTH_BY_DAMPING = 2,  /* it was up and down too often, and is left out for a while although checks pass */
    CB_HEALTH_BY_OVERRIDE = 3, /* cb_health_override() */
    CB_HEALTH_BY_RAMP = 4      /* in changes: only the weight has moved, by the slow start */
};

enum cb_health_override_kind {
    CB_HEALTH_AS_CHECKED = 0, /* no override */
    CB_HEALTH_FORCE_UP = 1,   /* whatever checks say; they go on */
    CB_HEALTH_FORCE_DOWN = 2,
    CB_HEALTH_FORCE_DRAIN = 3
};

typedef struct cb_health_opts {
    size_t size;
    const cb_alloc *alloc;       /* NULL = malloc */
    uint64_t seed;               /* of jitter: another for each endpoint, or all are checked at one time */
    uint32_t interval_ms;        /* from check to check; 0 = 5,000 */
    uint32_t fast_interval_ms;   /* ... while in doubt: before the first result, and after a result that speaks against
                                  * the state, until rise or fall is reached; 0 = a fifth of interval_ms */
    uint32_t timeout_ms;         /* of a check; 0 = 2,000 */
    uint32_t jitter_percent;     /* of an interval, up and down, up to 50; 0 = 10 */
    uint32_t rise;               /* successes in a row that bring it up; 0 = 2 */
    uint32_t fall;               /* failures in a row that take it down; 0 = 3. The first result of all decides alone */
    uint32_t slow_start_ms;      /* its weight grows to 100 in this time when it comes up; 0 = at once */
    uint32_t slow_start_percent; /* and begins with; 1 to 100; 0 = 10 */
    uint32_t flap_half_life_ms;  /* each fall adds 1,000 to a penalty that halves in this time; 0 = 60,000 */
    uint32_t flap_suppress;      /* who has so much is left out; above flap_reuse; 0 = 2,500 */
    uint32_t flap_reuse;         /* until so little is left of it; 0 = 750 */
    uint32_t flap_max_ms;        /* but never longer than this after the last fall; 0 = 300,000 */
    uint8_t no_jitter;           /* 1: intervals are exact */
    uint8_t no_damping;          /* 1: flaps are counted, and nothing else */
    uint8_t unknown_is_down;     /* 1: nothing goes there before the first result; 0: it counts as up */
    uint8_t reserved[5];
} cb_health_opts;

/* Begins at `now`; the first check is due at once, spread over a fast interval by jitter. opts may be NULL. CB_EINVAL
 * (out; the detail names the field), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_health_new(cb_health **out, const cb_health_opts *opts, cb_time now);
CB_API void cb_health_free(cb_health *h);

/* What the caller is to do. */
enum cb_health_action {
    CB_HEALTH_WAIT = 0,   /* nothing: come again at cb_health_next() */
    CB_HEALTH_CHECK = 1,  /* begin a check; its result comes by cb_health_feed() */
    CB_HEALTH_GIVE_UP = 2 /* end the check that runs: its time is over, which was counted as its failure. When this call
                           * came more than a timeout too late, nothing was counted: we slept, not the endpoint */
};

/* To be called at cb_health_next(), or whenever: what is due. */
CB_API int cb_health_run(cb_health *h, cb_time now);
/* When to run again; UINT64_MAX = never. */
CB_API cb_time cb_health_next(const cb_health *h);

/* The result of a check. */
typedef struct cb_health_result {
    size_t size;
    const char *reason;   /* for people: "connection refused by 10.0.0.1:80 after 0.3 ms"; copied; NULL = none */
    uint64_t duration_ns; /* how long it took */
    int32_t passed;       /* 1: it is well */
    uint32_t reserved;
} cb_health_result;

/* The check that ran is over. 1: the state, or the weight, has changed. CB_EINVAL (result), CB_EAGAIN: no check runs
 * (its time was over, or none was begun), and nothing was counted. */
CB_API int cb_health_feed(cb_health *h, const cb_health_result *result, cb_time now);
/* Somebody who uses it has doubts: the next check is due at once, but no sooner than a fast interval after the last. */
CB_API void cb_health_suspect(cb_health *h, cb_time now);
/* What an operator says, by enum cb_health_override_kind, and why (copied; may be NULL). 1: the state has changed.
 * CB_EINVAL (kind). */
CB_API int cb_health_override(cb_health *h, int kind, const char *why, cb_time now);

/* A change, for tables, pools and announcements. Texts live during the call that tells it. */
typedef struct cb_health_change {
    size_t size;
    cb_time at;
    cb_time until;      /* left out by damping: until then at the earliest; else 0 */
    uint64_t number;    /* of this endpoint's changes, from 1 */
    const char *name;   /* by a monitor: the endpoint's; else "" */
    const char *reason; /* for people; never NULL */
    uint32_t id;        /* by a monitor: the caller's number of the endpoint; else 0 */
    uint32_t weight;    /* percent of its own weight that it may have now; 0: nothing new */
    int32_t from, to;   /* enum cb_health_state */
    int32_t cause;      /* enum cb_health_cause */
    uint32_t reserved;
} cb_health_change;

/* The oldest change that was not taken yet; its texts live until the next call on h. CB_ENOENT: there is none.
 * CB_EINVAL (out, size). */
CB_API int cb_health_take(cb_health *h, cb_health_change *out);

typedef struct cb_health_status {
    size_t size;                       /* set by the caller */
    cb_time since;                     /* in this state */
    cb_time until;                     /* as in cb_health_change */
    cb_time checked_at;                /* the last result came; 0: none has */
    uint64_t duration_ns;              /* of that check */
    uint64_t passed, failed, timeouts; /* checks; timeouts are among the failed */
    uint64_t voided;                   /* checks that say nothing, for the clock had jumped */
    uint64_t changes;                  /* of the state */
    uint64_t flaps;                    /* falls from up */
    uint64_t suppressed;               /* times that damping left it out */
    const char *reason;                /* of the state; never NULL; lives until the next call on h */
    const char *last;                  /* what the last check said, likewise */
    uint32_t weight;                   /* percent */
    uint32_t penalty;
    int32_t state;         /* enum cb_health_state */
    int32_t cause;         /* enum cb_health_cause */
    int32_t override_kind; /* enum cb_health_override_kind */
    uint32_t in_a_row;     /* results of the last kind */
    uint8_t checking;      /* 1: a check runs */
    uint8_t last_passed;
    uint8_t reserved[6];
} cb_health_status;

/* CB_EINVAL (out, size). */
CB_API int cb_health_status_get(const cb_health *h, cb_health_status *out, cb_time now);

/* "up", "down" and so on; NULL: there is none of this number. Static storage. */
CB_API const char *cb_health_state_name(int state);
CB_API const char *cb_health_cause_name(int cause);

/* ---- what users see: outliers ---- */
enum cb_outlier_result {
    CB_OUTLIER_WORKED = 0,
    CB_OUTLIER_ERROR = 1,  /* it answered that it failed: a status of 500 and above */
    CB_OUTLIER_FAILED = 2, /* it gave no answer: cut off, too late, no protocol */
    CB_OUTLIER_CONNECT = 3 /* there was no way to it: refused, reset, no route, no handshake */
};

/* By which rule an endpoint is left out. */
enum cb_outlier_rule {
    CB_OUTLIER_NONE = 0,
    CB_OUTLIER_BY_FAILS = 1,       /* max_fails within fail_window_ms */
    CB_OUTLIER_BY_CONSECUTIVE = 2, /* errors in a row */
    CB_OUTLIER_BY_CONNECT = 3,     /* connections in a row that could not be made */
    CB_OUTLIER_BY_ERRORS = 4,      /* share of errors */
    CB_OUTLIER_BY_SUCCESS = 5,     /* success rate below that of its peers */
    CB_OUTLIER_BY_LATENCY = 6,     /* slower than its peers */
    CB_OUTLIER_RULES = 7
};

/* Rules that are 0 are not looked at. */
typedef struct cb_outlier_opts {
    size_t size;
    const cb_alloc *alloc;       /* NULL = malloc */
    uint32_t max_fails;          /* so many FAILED and CONNECT within fail_window_ms, whatever comes between */
    uint32_t fail_window_ms;     /* 0 = 10,000 */
    uint32_t consecutive_errors; /* so many of ERROR, FAILED and CONNECT in a row */
    uint32_t connect_fails;      /* so many CONNECT in a row */
    uint32_t error_percent;      /* so many of a hundred calls of an interval fail; up to 100 */
    uint32_t success_deviations; /* a success rate so many thousandths of a standard deviation below the mean of those
                                  * that are judged: 1,900 leaves one of twenty out by chance, were they alike */
    uint32_t latency_percent;    /* a mean latency of so many percent of the median of those that are judged; above 100:
                                  * 300 = three times */
    uint32_t interval_ms;        /* over which rates and latencies are taken; 0 = 10,000 */
    uint32_t min_requests;       /* who had fewer in an interval is not judged by it; 0 = 20 */
    uint32_t min_endpoints;      /* nor is anybody by its peers when fewer are judged; 0 = 3 */
    uint32_t eject_ms;           /* the first time; with each repetition longer by as much; 0 = 30,000. An interval
                                  * without makes it one less */
    uint32_t max_eject_ms;       /* 0 = 300,000, or eject_ms where that is more */
    uint32_t max_eject_percent;  /* never more of all that are there; 0 = 50 */
    uint8_t last_too;        /* 1: with 100 percent the last one may go, too: who picks knows what to do then. 0: one
                              * stays */
    uint8_t answer_readmits; /* 1: who answers is in again at once */
    uint8_t reserved[2];
} cb_outlier_opts;

/* An empty set. opts may be NULL: nobody is left out. CB_EINVAL (out; the detail names the field), CB_ENOMEM, CB_E2BIG.
 */
CB_API int cb_outlier_new(cb_outlier **out, const cb_outlier_opts *opts);
CB_API void cb_outlier_free(cb_outlier *o);
/* Adds an endpoint and gives its number: 0, 1 and so on. CB_ELIMIT (4,096), CB_ENOMEM. */
CB_API int cb_outlier_add(cb_outlier *o);
/* 0: it is not there (a check says so, or an operator): it counts neither among all nor as one that stays. CB_ENOENT.
 */
CB_API int cb_outlier_present(cb_outlier *o, uint32_t endpoint, int present);
/* What became of a call. latency_ns: until its answer; 0 = not measured. 1: this one left it out; else 0. Intervals
 * that are over are judged first, so nobody has to call cb_outlier_run(). CB_ENOENT, CB_EINVAL (result). */
CB_API int cb_outlier_report(cb_outlier *o, uint32_t endpoint, int result, uint64_t latency_ns, cb_time now);
/* Judges an interval that is over. How many it left out. */
CB_API int cb_outlier_run(cb_outlier *o, cb_time now);
/* The number of an endpoint that was left out, by a call or an interval, and that this has not told yet. CB_ENOENT:
 * there is none. */
CB_API int64_t cb_outlier_take(cb_outlier *o);
/* When an interval is over; UINT64_MAX = never. */
CB_API cb_time cb_outlier_next(const cb_outlier *o);
/* Is it left out? 1 or 0. CB_ENOENT. */
CB_API int cb_outlier_is_out(const cb_outlier *o, uint32_t endpoint, cb_time now);
/* It is in again, and its past forgotten. CB_ENOENT. */
CB_API int cb_outlier_readmit(cb_outlier *o, uint32_t endpoint);

typedef struct cb_outlier_stats {
    size_t size;                               /* set by the caller */
    cb_time out_until;                         /* 0: it was never out */
    uint64_t worked, errors, failed, connects; /* calls by their results */
    uint64_t ejections[CB_OUTLIER_RULES];      /* by enum cb_outlier_rule */
    uint64_t spared;                           /* times that a rule spoke against it, and the share forbade */
    uint64_t mean_latency_ns;                  /* of the last interval; 0 = none */
    uint32_t requests;                         /* of the last interval */
    uint32_t success_permille;                 /* likewise */
    uint32_t times;                            /* what its next ejection multiplies */
    uint32_t fails;                            /* within fail_window_ms */
    int32_t rule;                              /* the last one that left it out */
    uint8_t out;                               /* 1 until out_until, by the latest time that was told */
    uint8_t present;
    uint8_t reserved[2];
} cb_outlier_stats;

/* CB_ENOENT, CB_EINVAL (out, size). */
CB_API int cb_outlier_stats_get(const cb_outlier *o, uint32_t endpoint, cb_outlier_stats *out);
/* "errors in a row" and so on; NULL: there is none of this number. Static storage. */
CB_API const char *cb_outlier_rule_name(int rule);

/* ---- weights by load ---- */
typedef struct cb_lb_adapt_opts {
    size_t size;
    const cb_alloc *alloc; /* NULL = malloc */
    uint32_t step_ms; /* weights change this often at most; 0 = 10,000. Not shorter than half of what a change needs to
                       * show in the reports */
    uint32_t smooth_ms;         /* in which time an old report fades; 0 = 5,000 */
    uint32_t stale_ms;          /* who has not reported for so long is unknown; 0 = 30,000 */
    uint32_t dead_band_percent; /* loads that differ by less from the mean are equal; 0 = 5 */
    uint32_t gain_percent;      /* of a difference that one step takes away; up to 100; 0 = 20 */
    uint32_t max_step_percent;  /* of its weight that a member gains or loses in a step at most; 0 = 10 */
    uint32_t min_percent;       /* of its own weight that is left to a member; 0 = 20 */
    uint32_t max_percent;       /* ... that it gets at most; above 100; 0 = 300 */
    uint32_t idle_percent;      /* while the mean load is below this, nothing moves; 0 = 10 */
    uint32_t reserved;
} cb_lb_adapt_opts;

/* Without members. opts may be NULL. CB_EINVAL (out; the detail names the field), CB_ENOMEM, CB_E2BIG. */
CB_API int cb_lb_adapt_new(cb_lb_adapt **out, const cb_lb_adapt_opts *opts);
CB_API void cb_lb_adapt_free(cb_lb_adapt *a);
/* Adds a member with its own weight, up to CB_LB_WEIGHT_MAX (cb/lb.h), and gives its number: 0, 1 and so on. Weights
 * are whole: let them be a hundred and more. CB_EINVAL (weight), CB_ELIMIT, CB_ENOMEM. */
CB_API int cb_lb_adapt_add(cb_lb_adapt *a, uint32_t weight);
/* Its load: utilisation from 0 to 1 and above, or calls in flight by their limit. Negative, or no number: unknown from
 * now on, its weight stays. CB_ENOENT. */
CB_API int cb_lb_adapt_report(cb_lb_adapt *a, uint32_t member, double load, cb_time now);
/* 0: it has left for now (it is down, it drains); the others share by the weights that they have. CB_ENOENT. */
CB_API int cb_lb_adapt_present(cb_lb_adapt *a, uint32_t member, int present);
/* Makes a step when one is due. 1: weights have changed; else 0. The sum over all that are known stays as it was. */
CB_API int cb_lb_adapt_run(cb_lb_adapt *a, cb_time now);
/* When the next step is due; UINT64_MAX: before the first report. */
CB_API cb_time cb_lb_adapt_next(const cb_lb_adapt *a);
/* Its weight now, for cb_lb_member and cb_lb_backend. CB_ENOENT. */
CB_API int64_t cb_lb_adapt_weight(const cb_lb_adapt *a, uint32_t member);

CB_END
#endif
