#include "edge.h"

#ifdef CB_HAVE_XDP
#include <cb/xdp.h>

/* Without the right to load BPF programs packets that reach the wrong worker are handed over in user space: slower and
 * as correct. */
void edge_steering_open(edge *e) {
    cb_steering *s = NULL;
    if (cb_steering_new(&s, NULL) < 0) {
        edge_say(&e->log, CB_LOG_DEBUG, "QUIC packets are steered in user space: %s", cb_last_error());
        return;
    }
    e->steering = s;
    e->hook = cb_steering_hook_of(s);
}

void edge_steering_close(edge *e) {
    cb_steering_free(e->steering);
    e->steering = NULL;
}
#else
void edge_steering_open(edge *e) {
    e->steering = NULL;
}

void edge_steering_close(edge *e) {
    (void)e;
}
#endif
