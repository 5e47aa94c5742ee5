/* The governor: libcb's own congestion control above ngtcp2's, without I/O and without ngtcp2.
 *
 * ngtcp2 has no place for a controller of ours, but nobody has to send all that its window allows. The governor keeps a
 * model of the path (how fast it delivers, how long it takes when it is empty) after draft-ietf-ccwg-bbr-06, paces by
 * it, and withholds what the path would only queue. ngtcp2's window stays the outer bound. docs/design/governor.md has
 * the model, the constants with their reasons, and where it differs from the draft.
 *
 * A driver calls, for each burst: observe, then allowance; writes at most so much; then sent; then wake. Units: bytes,
 * nanoseconds, bytes a second. */
#ifndef CB_TRANSPORT_GOVERNOR_H
#define CB_TRANSPORT_GOVERNOR_H

#include "transport/governor_model.h"

enum cb_gov_phase {                     /* as enum cb_cc_phase */
                    CB_GOV_STARTUP = 1, /* doubling, until the path is full */
                    CB_GOV_DRAIN,       /* empties the queue that the startup made */
                    CB_GOV_UP,          /* a round above the model: is there more? */
                    CB_GOV_DOWN,        /* back to it, and the answer comes in */
                    CB_GOV_CRUISE,      /* by the model */
                    CB_GOV_PROBE_RTT,   /* half of the window: what is the round trip of the empty path? */
                    CB_GOV_COMPETE /* somebody else fills the queue whatever we do: ngtcp2's window alone governs */
};

/* What ngtcp2 knows, before a burst. */
typedef struct cb_gov_path {
    size_t packet;                     /* bytes of a full one */
    uint64_t latest_rtt, smoothed_rtt; /* 0: no sample yet */
    uint64_t cwnd, inflight;
} cb_gov_path;

/* What a burst was. */
typedef struct cb_gov_burst {
    uint64_t sent;          /* bytes of packets written */
    uint64_t retransmitted; /* of these, in packets that repeated what was lost */
    uint64_t inflight;      /* ngtcp2's count after the burst */
    bool app_limited;       /* there was nothing more to send */
    bool settled; /* nothing that was lost still waits to be sent again: the last packet had new data, or app_limited */
} cb_gov_burst;

/* For statistics and tests. */
typedef struct cb_gov_view {
    double bandwidth, pacing, loss; /* bytes a second; loss: share of what is sent */
    uint64_t cap, min_rtt;
    uint8_t phase; /* enum cb_gov_phase */
    bool competitive;
} cb_gov_view;

typedef struct cb_gov {
    cb_gov_model m;
    uint8_t phase;
    uint8_t full_rounds;  /* startup: rounds without growth */
    uint8_t phase_rounds; /* rounds in this phase */
    bool held;            /* ProbeRTT: inflight has come down */
    double full_bw;       /* startup: what growth is measured against */
    double before_up;     /* bandwidth when the probe began */
    double pacing;
    double lateness; /* of the pacer's timers, nanoseconds, smoothed */
    uint64_t cap;
    cb_time next_tx; /* when the pacer lets the next packet go */
    cb_time phase_since, cycle_since;
    cb_time yielded_at;  /* end of the latest ProbeRTT */
    double yield_rate;   /* delivered before it */
    cb_time yield_until; /* the one under way lasts at least: a queue leaves, and the empty path answers */
    uint64_t cycle;      /* length of the cycle under way */
    cb_gov_path path;
    uint32_t jitter;                  /* of the length of cycles */
    bool alone;                       /* on the bottleneck: the latest probe was seen in full */
    bool blocked;                     /* it was not the pacer that ended the latest burst */
    bool timed;                       /* ... it was, and waits for its time */
    uint64_t most_rtt, most_inflight; /* in this cycle */
    uint64_t least;                   /* round trip that the latest ProbeRTT found */
    uint8_t same;                     /* ProbeRTTs in a row that found the same, and more than the path's */
    double peak;                      /* the most the path ever delivered */
    /* competition */
    bool competing;
    uint8_t crowded; /* rounds in a row with a queue that governed flows do not make */
    uint8_t swollen; /* ... with any queue */
    uint64_t compete_cap;
    cb_time competed_at, overflow_at;
} cb_gov;

/* packet: bytes of a full packet. */
void cb_gov_init(cb_gov *g, cb_time now, size_t packet);
/* The path is another one: its round trip is not known, nor who shares it. The bandwidth stays until there are samples;
 * ngtcp2's window, which begins anew, bounds it. */
void cb_gov_restart(cb_gov *g, cb_time now);
void cb_gov_observe(cb_gov *g, cb_time now, const cb_gov_path *path);
/* Bytes that may be written now; 0 = none. */
size_t cb_gov_allowance(const cb_gov *g, cb_time now);
void cb_gov_sent(cb_gov *g, cb_time now, const cb_gov_burst *burst);
/* When to come again although nothing arrived; UINT64_MAX = only what arrives can change anything. */
cb_time cb_gov_wake(const cb_gov *g);
void cb_gov_look(const cb_gov *g, cb_gov_view *out);
const char *cb_gov_phase_name(int phase);
/* What the path showed, for the next connection's choice of the controller below: losses that no queue explains call
 * for one that does not answer each of them. */
enum cb_gov_verdict { CB_GOV_UNKNOWN, CB_GOV_CLEAN, CB_GOV_LOSSY };
int cb_gov_verdict(const cb_gov *g);

/* Bytes of a packet that repeat what was lost: all when little of it is new. ngtcp2 puts lost data first. */
static inline size_t cb_gov_retransmitted(size_t packet, size_t fresh) {
    enum { CONTROL = 200 }; /* acknowledgements and limits, which are not data */
    return packet > CONTROL && fresh < packet / 2 ? packet : 0;
}

#endif
