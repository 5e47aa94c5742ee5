/* Rates and silences that one connection watches: both cost a few instructions an event and no timer each. */
#ifndef CB_HTTP_RATE_H
#define CB_HTTP_RATE_H

#include "base/list.h"
#include "loop/loop_int.h"

/* Events a second, averaged over ten seconds: a bucket that is empty at rest and full after ten seconds' worth at
 * once (ITU-T I.371's virtual scheduling form of the leaky bucket). */
typedef struct cb_rate {
    cb_time full_at;
} cb_rate;

/* Counts one event; true when it is one too many. */
static inline bool cb_rate_over(cb_rate *r, uint32_t per_s, cb_time now) {
    if (r->full_at < now) r->full_at = now;
    r->full_at += CB_SEC / (per_s ? per_s : 1);
    return r->full_at - now > 10 * CB_SEC;
}

/* The same for `n` of something at once. */
static inline bool cb_rate_over_n(cb_rate *r, uint64_t per_s, uint64_t n, cb_time now) {
    if (r->full_at < now) r->full_at = now;
    r->full_at += n * (CB_SEC / (per_s ? per_s : 1));
    return r->full_at - now > 10 * CB_SEC;
}

/* Who was silent for how long: a list in the order of the last sign of life, so that the first one is the next to
 * expire. All entries of a list have the same limit. */
typedef struct cb_quiet {
    cb_list link;
    cb_time since;
} cb_quiet;

static inline void cb_quiet_touch(cb_list *list, cb_quiet *q, cb_time now) {
    q->since = now;
    if (list->prev == &q->link) return;
    cb_list_del(&q->link);
    cb_list_add_tail(list, &q->link);
}
static inline cb_quiet *cb_quiet_first(const cb_list *list) {
    return cb_list_empty(list) ? NULL : CB_CONTAINER(list->next, cb_quiet, link);
}
static inline cb_time cb_quiet_deadline(const cb_list *list, cb_time span) {
    const cb_quiet *q = cb_quiet_first(list);
    return q ? q->since + span : CB_NEVER;
}
static inline cb_time cb_time_min(cb_time a, cb_time b) {
    return a < b ? a : b;
}

#endif
