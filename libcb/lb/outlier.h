/* Outliers, for balancers that have the set inside. F1. */
#ifndef CB_LB_OUTLIER_H
#define CB_LB_OUTLIER_H

#include <cb/health.h>
#include <stdbool.h>

typedef struct cb_outlier_endpoint {
    cb_time until;       /* left out until then; 0 = in */
    cb_time window;      /* of fails: when it began */
    uint64_t results[4]; /* by enum cb_outlier_result */
    uint64_t ejections[CB_OUTLIER_RULES], spared, mean;
    uint64_t latency;   /* of this interval, summed */
    uint32_t timed;     /* calls that were measured */
    uint32_t good, bad; /* calls of this interval */
    uint32_t fails, errors_in_a_row, connects_in_a_row, times;
    uint32_t requests, permille; /* of the last interval */
    uint8_t rule;
    bool out;   /* until is in the future, by the latest time that was told */
    bool gone;  /* not present */
    bool fresh; /* was left out within this interval */
    bool news;  /* was left out, and nobody has been told */
} cb_outlier_endpoint;

struct cb_outlier {
    cb_alloc alloc;
    cb_outlier_opts o; /* zero fields filled with their defaults */
    cb_outlier_endpoint *at;
    size_t n, cap, n_news;
    cb_time seen, due; /* due: the end of the interval; 0 = it has not begun */
};

/* alloc must outlive it. */
int cb_outlier_init(cb_outlier *o, const cb_outlier_opts *opts, const cb_alloc *alloc);
void cb_outlier_fini(cb_outlier *o);
int cb_outlier_check(const cb_outlier_opts *opts); /* CB_EINVAL: the detail names the field */

static inline bool cb_outlier_has_out(const cb_outlier *o, size_t i, cb_time now) {
    return o->at[i].until > now;
}

#endif
