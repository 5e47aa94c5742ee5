/* Alerts of TLS, counted by name. */
#ifndef CB_TRANSPORT_TLS_ALERT_H
#define CB_TRANSPORT_TLS_ALERT_H

#include "telemetry/count.h"
#include <stdbool.h>

/* alert: the number of RFC 8446, 6. close_notify and what has no name here are "other". */
void cb_tls_count_alert(const cb_cells *cells, bool sent, unsigned alert);

#endif
