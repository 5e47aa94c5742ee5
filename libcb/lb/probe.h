/* One check that runs: what a monitor and the kinds of checks have in common. */
#ifndef CB_LB_PROBE_H
#define CB_LB_PROBE_H

#include "base/addr.h"
#include "loop/loop_int.h"
#include <cb/monitor.h>
#include <cb/resolver.h>

typedef struct cb_probe cb_probe;

/* A way to check. */
typedef struct cb_probe_kind {
    const char *name;
    /* CB_OK: it runs, and comes to its end by cb_probe_over(), perhaps in this very call. < 0: it could not begin;
     * the detail says why, and end() follows. */
    int (*begin)(cb_probe *p);
    void (*end)(cb_probe *p); /* frees what it has, whether it is over or not. Not inside a callback of its own */
    bool dials;               /* wants an address with a port */
    bool needs_address;
} cb_probe_kind;

extern const cb_probe_kind cb_probe_tcp, cb_probe_http, cb_probe_grpc, cb_probe_icmp, cb_probe_exec;

/* What is checked: copies, zero fields filled. */
typedef struct cb_probe_conf {
    cb_check c;
    char *host; /* of the address, without brackets, or "unix:/path" */
    uint16_t port;
    uint8_t ok[125]; /* statuses 0 to 999 that are well, as bits */
    uint8_t reserved;
    char **argv;
} cb_probe_conf;

struct cb_probe {
    cb_loop *loop;
    const cb_alloc *alloc;
    cb_resolver *resolver;
    const cb_probe_kind *kind;
    const cb_probe_conf *conf;
    cb_time began, timeout;
    cb_defer over; /* tells the owner, when nothing of the kind is on the stack any more */
    void *state;   /* of the kind; NULL: nothing runs */
    bool passed, is_over;
    char reason[CB_HEALTH_REASON_BYTES];
};

/* It is over; the reason is for people. Only the first call counts. */
void cb_probe_over(cb_probe *p, bool passed, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same for a failure whose detail is cb_last_error(): with how long it took. */
void cb_probe_failed(cb_probe *p);
/* "0.3 ms", since it began. */
const char *cb_probe_took(const cb_probe *p, char out[24]);
/* Bytes of the network as a text in quotes, printable and cut. */
const char *cb_probe_quote(cb_slice bytes, char out[80]);

#endif
