#include "edge.h"

#ifdef CB_HAVE_XDP
#include <cb/xdp.h>

/* Without the right to load BPF programs packets that reach the wrong worker are handed over in user space: slower and
 * as correct. A successor steers if its predecessor did: programs that know nothing of older sockets would cut them
 * off.
 */
void edge_steering_open(edge *e) {
    int32_t fds[CB_STEERING_FDS];
    cb_steering *s = NULL;
    if (e->inherited && cb_handoff_fds(e->inherited, "steering", fds, CB_STEERING_FDS) != CB_STEERING_FDS) return;
    const cb_steering_opts o = {.size = sizeof o, .adopt_fds = e->inherited ? fds : NULL};
    if (cb_steering_new(&s, &o) < 0) {
        edge_say(e->log, e->inherited ? CB_LOG_WARN : CB_LOG_DEBUG, "QUIC packets are steered in user space: %s",
                 cb_last_error());
        return;
    }
    e->steering = s;
    e->hook = cb_steering_hook_of(s);
}

int edge_steering_save(const edge *e, cb_handoff *h) {
    int32_t fds[CB_STEERING_FDS];
    int rc = CB_OK;
    if (!e->steering) return CB_OK;
    cb_steering_fds(e->steering, fds);
    for (int i = 0; i < CB_STEERING_FDS && rc == CB_OK; i++)
        rc = cb_handoff_put_fd(h, "steering", fds[i]);
    return rc;
}

void edge_steering_restore(const edge *e) {
    for (const edge_use *u = e->steering ? e->now->uses : NULL; u; u = u->next)
        (void)cb_steering_activate(e->steering, cb_group_generation(u->listener->group));
}

void edge_steering_close(edge *e) {
    cb_steering_free(e->steering);
    e->steering = NULL;
}
#else
void edge_steering_open(edge *e) {
    e->steering = NULL;
}

int edge_steering_save(const edge *e, cb_handoff *h) {
    (void)e, (void)h;
    return CB_OK;
}

void edge_steering_restore(const edge *e) {
    (void)e;
}

void edge_steering_close(edge *e) {
    (void)e;
}
#endif
