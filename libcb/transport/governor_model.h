/* What the governor believes of the path: delivery rate, round trip, loss. Pure; see governor.h. */
#ifndef CB_TRANSPORT_GOVERNOR_MODEL_H
#define CB_TRANSPORT_GOVERNOR_MODEL_H

#include <cb/base.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CB_GOV_MARKS = 32 };

typedef struct cb_gov_mark {
    cb_time at;
    uint64_t delivered;
} cb_gov_mark;

typedef struct cb_gov_model {
    size_t packet;
    uint64_t flown;     /* bytes ever put in flight */
    uint64_t repeated;  /* of these, bytes that repeat what was lost */
    uint64_t delivered; /* never falls */
    uint64_t inflight;  /* after the latest burst */
    cb_time gone_at;    /* when something left the flight last */
    /* delivery rate */
    cb_gov_mark marks[CB_GOV_MARKS]; /* a ring; the newest at `newest` */
    uint8_t newest, count;
    double rate;            /* the latest sample, bytes a second; 0 = none */
    double best[2];         /* the best of this cycle and of the one before */
    uint64_t limited_until; /* delivered count up to which samples are of an application that had nothing to send; 0 =
                               none */
    /* rounds: a round is over when what was in flight at its start is not any more */
    uint64_t rounds, round_ends;
    bool round_started;
    uint8_t calm_rounds; /* in a row without a queue */
    cb_time round_since;
    uint64_t round_from;
    double last_rate; /* delivered in the latest complete round over its length */
    uint32_t round_samples;
    uint64_t round_sent, round_lost;                                   /* bytes, in the round under way: at its start */
    uint64_t round_min_rtt, round_max_rtt, last_min_rtt, last_max_rtt; /* this and the latest complete round */
    double round_best, last_best;                                      /* best sample */
    bool round_limited, last_limited;
    double last_loss;   /* share lost in the latest complete round */
    uint64_t last_lost; /* bytes */
    double loss;        /* smoothed over rounds without a queue */
    uint64_t judged;    /* bytes sent in these rounds */
    /* round trip of the empty path */
    uint64_t min_rtt; /* 0 = none */
    cb_time min_at;   /* when a sample was near it last */
    /* aggregation of acknowledgements */
    cb_time extra_since;
    uint64_t extra_from;
    uint64_t extra[2]; /* the most in this cycle and the one before */
} cb_gov_model;

void cb_gov_model_init(cb_gov_model *m, size_t packet);
void cb_gov_model_rtt(cb_gov_model *m, cb_time now, uint64_t rtt);
/* After a burst: `before` and `after` are what was in flight. settled: what was lost so far has been sent again, so
 * that `repeated` is complete. */
void cb_gov_model_update(cb_gov_model *m, cb_time now, uint64_t before, uint64_t after, uint64_t repeated, bool limited,
                         bool settled);
void cb_gov_model_cycle(cb_gov_model *m);                /* the max filters forget the cycle before the last */
void cb_gov_model_restart(cb_gov_model *m, double rate); /* ... all; this rate is what is known */
double cb_gov_model_bandwidth(const cb_gov_model *m);
uint64_t cb_gov_model_bdp(const cb_gov_model *m);
uint64_t cb_gov_model_window(const cb_gov_model *m); /* how long a rate is measured: a round, or some packets */
/* Under losses that no queue explains, a queue hides the gaps of those who react to them: ngtcp2's controller bounds
 * its window by what a round delivered. As a share of the bandwidth-delay product. */
double cb_gov_model_loss_room(const cb_gov_model *m);
uint64_t cb_gov_model_extra(const cb_gov_model *m);

#endif
