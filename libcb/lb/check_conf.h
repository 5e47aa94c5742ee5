/* A check as it was asked for: judged and copied. F1. */
#ifndef CB_LB_CHECK_CONF_H
#define CB_LB_CHECK_CONF_H

#include "lb/probe.h"

const cb_probe_kind *cb_probe_kind_get(int kind); /* NULL: not known */
/* CB_EINVAL (the detail names the field), CB_ENOMEM. */
int cb_probe_conf_init(cb_probe_conf *conf, const cb_check *check, const cb_alloc *alloc);
void cb_probe_conf_free(cb_probe_conf *conf, const cb_alloc *alloc);

#endif
