/* What a registry of metrics shows of a node: a copy of each turn, for scrapes on any thread. */
#ifndef CB_LB_NODE_SHOWN_H
#define CB_LB_NODE_SHOWN_H

#include "lb/node_drive.h"
#include <pthread.h>

void cb_lb_shown_update(cb_lb_node *n, cb_time now); /* does nothing while nobody asked for metrics */
void cb_lb_shown_free(cb_lb_node *n);

#endif
