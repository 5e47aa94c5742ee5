#include "http/dial.h"
#include "base/error.h"
#include "loop/tcp.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { WHY_BYTES = 400 };

struct attempt {
    cb_dial *dial;
    cb_tcp_connector *connector; /* NULL: not begun, or over */
    cb_addr at;
};

struct cb_dial {
    cb_loop *loop;
    cb_time delay;
    cb_dial_fn fn;
    void *user;
    cb_alarm alarm; /* when the next attempt is due */
    cb_grave grave;
    size_t n, next, open;
    int rc; /* of the last attempt that failed */
    char why[WHY_BYTES];
    struct attempt attempts[];
};

static void dial_bury(cb_grave *g) {
    cb_dial *d = CB_CONTAINER(g, cb_dial, grave);
    cb_mem_free(cb_loop_alloc(d->loop), d);
}

void cb_dial_cancel(cb_dial *d) {
    if (!d) return;
    cb_alarm_stop(&d->alarm);
    for (size_t i = 0; i < d->n; i++) {
        if (d->attempts[i].connector) cb_tcp_connect_cancel(d->attempts[i].connector);
        d->attempts[i].connector = NULL;
    }
    cb_loop_bury(d->loop, &d->grave, dial_bury);
}

static void finish(cb_dial *d, int fd_or_rc, const cb_addr *at) {
    const cb_dial_fn fn = d->fn;
    void *user = d->user;
    cb_dial_cancel(d);
    if (fd_or_rc < 0) cb_fail(fd_or_rc, "%s", d->why);
    fn(fd_or_rc, at, user);
}

static void note(cb_dial *d, const cb_addr *at, int rc) {
    char text[CB_ADDR_TEXT];
    size_t used = strlen(d->why);
    const char *why = cb_last_error();
    cb_addr_text(at, text);
    d->rc = rc;
    if (strstr(why, text)) /* the detail names the address itself */
        snprintf(d->why + used, sizeof d->why - used, "%s%s", used ? "; " : "", why);
    else
        snprintf(d->why + used, sizeof d->why - used, "%s%s: %s", used ? "; " : "", text, why);
}

static void on_connect(int fd_or_rc, void *user);

/* Begins attempts until one is under way; the one after it is due in `delay`. */
static void go_on(cb_dial *d, cb_time now) {
    while (d->next < d->n) {
        struct attempt *a = &d->attempts[d->next++];
        int rc = cb_tcp_connect(&a->connector, d->loop, &a->at, 0, on_connect, a);
        if (rc == CB_OK) {
            d->open++;
            if (d->next < d->n) cb_alarm_set(&d->alarm, now + d->delay);
            return;
        }
        a->connector = NULL;
        note(d, &a->at, rc);
    }
    if (d->open == 0) finish(d, d->rc, NULL);
}

static void on_connect(int fd_or_rc, void *user) {
    struct attempt *a = user;
    cb_dial *d = a->dial;
    a->connector = NULL;
    d->open--;
    if (fd_or_rc >= 0) {
        finish(d, fd_or_rc, &a->at);
        return;
    }
    note(d, &a->at, fd_or_rc);
    cb_alarm_stop(&d->alarm);
    go_on(d, cb_loop_now(d->loop));
}

static void on_alarm(cb_alarm *alarm, cb_time now) {
    go_on(CB_CONTAINER(alarm, cb_dial, alarm), now);
}

int cb_dial_start(cb_dial **out, cb_loop *loop, const cb_addr *at, size_t n, cb_time delay, cb_dial_fn fn, void *user) {
    cb_dial *d = cb_mem_new(cb_loop_alloc(loop), sizeof *d + n * sizeof d->attempts[0]);
    if (!d) return cb_fail(CB_ENOMEM, "dialling %zu addresses", n);
    d->loop = loop;
    d->delay = delay;
    d->fn = fn;
    d->user = user;
    d->n = n;
    d->rc = CB_EUNREACH;
    cb_alarm_init(&d->alarm, loop, on_alarm);
    for (size_t i = 0; i < n; i++)
        d->attempts[i] = (struct attempt){.dial = d, .at = at[i]};
    int rc = cb_alarm_set(&d->alarm, cb_loop_now(loop)); /* the first one from the loop: fn must not come in here */
    if (rc < 0) {
        cb_mem_free(cb_loop_alloc(loop), d);
        return rc;
    }
    *out = d;
    return CB_OK;
}

static void to_addr(cb_addr *out, const cb_host_address *h, uint16_t port) {
    memset(out, 0, sizeof *out);
    if (h->family == CB_FAMILY_V4) {
        out->v4.sin_family = AF_INET;
        memcpy(&out->v4.sin_addr, h->bytes, 4);
    } else {
        out->v6.sin6_family = AF_INET6;
        memcpy(&out->v6.sin6_addr, h->bytes, 16);
        out->v6.sin6_scope_id = h->scope;
    }
    cb_addr_set_port(out, port);
}

size_t cb_dial_order(cb_addr *out, size_t cap, const cb_host_address *at, size_t n, uint16_t port) {
    size_t made = 0, next[2] = {0, 0}; /* where to look on for the first one's family, and for the other */
    for (int which = 0; made < cap; which = !which) {
        size_t *i = &next[which];
        while (*i < n && (at[*i].family == at[0].family) == (which == 1))
            ++*i;
        if (*i < n)
            to_addr(&out[made++], &at[(*i)++], port);
        else if (next[!which] >= n)
            break;
    }
    return made;
}
