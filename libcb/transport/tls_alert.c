#include "transport/tls_alert.h"
#include <gnutls/gnutls.h>

void cb_tls_count_alert(const cb_cells *cells, bool sent, unsigned alert) {
    static const struct {
        uint16_t alert, in, out; /* a number, and cells */
    } table[] = {
#define ALERT(name) {GNUTLS_A_##name, CB_C_TLS_ALERTS_IN_##name, CB_C_TLS_ALERTS_OUT_##name}
        ALERT(UNEXPECTED_MESSAGE),   ALERT(BAD_RECORD_MAC),          ALERT(RECORD_OVERFLOW),
        ALERT(HANDSHAKE_FAILURE),    ALERT(BAD_CERTIFICATE),         ALERT(CERTIFICATE_REVOKED),
        ALERT(CERTIFICATE_EXPIRED),  ALERT(CERTIFICATE_UNKNOWN),     ALERT(ILLEGAL_PARAMETER),
        ALERT(UNKNOWN_CA),           ALERT(ACCESS_DENIED),           ALERT(DECODE_ERROR),
        ALERT(DECRYPT_ERROR),        ALERT(PROTOCOL_VERSION),        ALERT(INTERNAL_ERROR),
        ALERT(MISSING_EXTENSION),    ALERT(UNSUPPORTED_EXTENSION),   ALERT(UNRECOGNIZED_NAME),
        ALERT(CERTIFICATE_REQUIRED), ALERT(NO_APPLICATION_PROTOCOL),
#undef ALERT
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].alert != alert) continue;
        cb_cells_add(cells, (enum cb_cell_id)(sent ? table[i].out : table[i].in), 1);
        return;
    }
    cb_cells_add(cells, sent ? CB_C_TLS_ALERTS_OUT_OTHER : CB_C_TLS_ALERTS_IN_OTHER, 1);
}
