/* What came of handshakes: counted once for each, when it is over. */
#include "loop/turn.h"
#include "transport/tls_alert.h"
#include "transport/tls_session_int.h"
#include "transport/tls_tickets.h"
#include <string.h>

void cb_tls_count_begin(cb_tls_session *s, cb_loop *loop) {
    if (!loop || !(s->cells = cb_loop_cells(loop))) return;
    s->clock = loop;
    s->began = cb_loop_now(loop);
    cb_cells_move(s->cells, CB_SIDE(s->server, TLS_UNDER_WAY), 1);
}

static enum cb_cell_id cipher(gnutls_session_t g) {
    switch (gnutls_cipher_get(g)) {
    case GNUTLS_CIPHER_AES_128_GCM:
        return CB_C_TLS_CIPHER_AES_128_GCM;
    case GNUTLS_CIPHER_AES_256_GCM:
        return CB_C_TLS_CIPHER_AES_256_GCM;
    case GNUTLS_CIPHER_CHACHA20_POLY1305:
        return CB_C_TLS_CIPHER_CHACHA20_POLY1305;
    default:
        return CB_C_TLS_CIPHER_OTHER;
    }
}

static enum cb_cell_id group(gnutls_session_t g) {
    switch (gnutls_group_get(g)) {
    case GNUTLS_GROUP_X25519:
        return CB_C_TLS_GROUP_X25519;
    case GNUTLS_GROUP_SECP256R1:
        return CB_C_TLS_GROUP_SECP256R1;
    case GNUTLS_GROUP_SECP384R1:
        return CB_C_TLS_GROUP_SECP384R1;
    case GNUTLS_GROUP_SECP521R1:
        return CB_C_TLS_GROUP_SECP521R1;
    case GNUTLS_GROUP_X448:
        return CB_C_TLS_GROUP_X448;
    case GNUTLS_GROUP_INVALID:
        return CB_C_TLS_GROUP_NONE;
    default:
        return CB_C_TLS_GROUP_OTHER;
    }
}

/* Of the server, whichever of the two we are. */
static enum cb_cell_id signature(const cb_tls_session *s) {
    const int sign = gnutls_sign_algorithm_get(s->gnutls);
    if (gnutls_session_is_resumed(s->gnutls)) return CB_C_TLS_SIGNATURE_NONE;
    switch (gnutls_sign_get_pk_algorithm((gnutls_sign_algorithm_t)sign)) {
    case GNUTLS_PK_ECDSA:
        return CB_C_TLS_SIGNATURE_ECDSA;
    case GNUTLS_PK_EDDSA_ED25519:
    case GNUTLS_PK_EDDSA_ED448:
        return CB_C_TLS_SIGNATURE_EDDSA;
    case GNUTLS_PK_RSA:
    case GNUTLS_PK_RSA_PSS:
        return CB_C_TLS_SIGNATURE_RSA;
    default:
        return CB_C_TLS_SIGNATURE_NONE;
    }
}

static enum cb_cell_id protocol(const cb_tls_session *s) {
    static const struct {
        const char *name;
        uint16_t cell;
    } table[] = {{"", CB_C_TLS_ALPN_NONE},
                 {"h3", CB_C_TLS_ALPN_H3},
                 {"h2", CB_C_TLS_ALPN_H2},
                 {"http/1.1", CB_C_TLS_ALPN_HTTP_1_1}};
    const char *alpn = cb_tls_session_alpn(s);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(alpn, table[i].name) == 0) return (enum cb_cell_id)table[i].cell;
    return CB_C_TLS_ALPN_OTHER;
}

/* What was thought of the peer's certificate. */
static void count_certificate(const cb_tls_session *s) {
    static const uint16_t cells[][2] = {
#define VERDICT(name) [CB_CERT_##name] = {CB_C_TLS_CERTIFICATES_CLIENT_##name, CB_C_TLS_CERTIFICATES_SERVER_##name}
        VERDICT(GOOD),       VERDICT(NONE),          VERDICT(MISSING),
        VERDICT(EXPIRED),    VERDICT(NOT_YET_VALID), VERDICT(UNKNOWN_ISSUER),
        VERDICT(WRONG_NAME), VERDICT(REVOKED),       VERDICT(REVOCATION_UNKNOWN),
        VERDICT(STAPLE),     VERDICT(NOT_ALLOWED),   VERDICT(UNREADABLE),
        VERDICT(OTHER),
#undef VERDICT
    };
    enum cb_cert_verdict v = s->verdict;
    if (!s->refused && !(s->server ? s->want_cert : s->verifies)) return; /* nobody looked */
    if (!s->refused) v = cb_tls_session_has_peer_cert(s) ? CB_CERT_GOOD : CB_CERT_NONE;
    cb_cells_add(s->cells, (enum cb_cell_id)cells[v][s->server], 1);
}

static void count_server(const cb_tls_session *s, bool resumed) {
    const cb_cells *cells = s->cells;
    if (s->brought_ticket) cb_cells_add(cells, resumed ? CB_C_TLS_TICKETS_ACCEPTED : CB_C_TLS_TICKETS_REFUSED, 1);
    if (s->stapled) cb_cells_add(cells, CB_C_TLS_STAPLED, 1);
    if (s->alpn01) cb_cells_add(cells, CB_C_TLS_VALIDATIONS, 1);
    if (!s->sni[0])
        cb_cells_add(cells, CB_C_TLS_NAMES_NONE, 1);
    else
        cb_cells_add(cells, cb_identity_view_named(s->view, s->sni) ? CB_C_TLS_NAMES_KNOWN : CB_C_TLS_NAMES_UNKNOWN, 1);
}

static void count_done(const cb_tls_session *s) {
    const cb_cells *cells = s->cells;
    const bool resumed = gnutls_session_is_resumed(s->gnutls) != 0;
    const bool tls13 = gnutls_protocol_get_version(s->gnutls) == GNUTLS_TLS1_3;
    cb_cells_add(cells, CB_SIDE(s->server, TLS_HANDSHAKES), 1);
    cb_cells_observe(cells, CB_SIDE(s->server, TLS_HANDSHAKE), cb_loop_now(s->clock) - s->began);
    cb_cells_add(cells, tls13 ? CB_C_TLS_VERSION_1_3 : CB_C_TLS_VERSION_1_2, 1);
    cb_cells_add(cells, cipher(s->gnutls), 1);
    cb_cells_add(cells, group(s->gnutls), 1);
    cb_cells_add(cells, signature(s), 1);
    cb_cells_add(cells, protocol(s), 1);
    if (resumed) cb_cells_add(cells, CB_SIDE(s->server, TLS_RESUMED), 1);
    if (s->server)
        count_server(s, resumed);
    else if (resumed)
        cb_cells_add(cells, CB_C_TLS_CLIENT_TICKETS_ACCEPTED, 1);
}

static enum cb_cell_id why_failed(const cb_tls_session *s, int rc) {
#define REASON(name) (s->server ? CB_C_TLS_FAILED_SERVER_##name : CB_C_TLS_FAILED_CLIENT_##name)
    if (s->refused) return REASON(CERTIFICATE);
    switch (rc) {
    case CB_TLS_ABANDONED:
        return s->server && !s->greeted ? REASON(SILENT) : REASON(ABANDONED);
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
    case GNUTLS_E_WARNING_ALERT_RECEIVED:
        return REASON(ALERT);
    case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
        return REASON(VERSION);
    case GNUTLS_E_NO_APPLICATION_PROTOCOL:
        return REASON(ALPN);
    case GNUTLS_E_NO_CIPHER_SUITES:
    case GNUTLS_E_NO_COMMON_KEY_SHARE:
    case GNUTLS_E_INSUFFICIENT_SECURITY:
    case GNUTLS_E_UNSUPPORTED_SIGNATURE_ALGORITHM:
        return REASON(PARAMETERS);
    default:
        return REASON(PROTOCOL);
    }
#undef REASON
}

void cb_tls_count_end(cb_tls_session *s, int rc) {
    const cb_cells *cells = s->cells;
    if (!cells || s->counted) return;
    s->counted = true;
    cb_cells_move(cells, CB_SIDE(s->server, TLS_UNDER_WAY), -1);
    if (!s->refused && (rc == GNUTLS_E_CERTIFICATE_REQUIRED || rc == GNUTLS_E_NO_CERTIFICATE_FOUND)) {
        s->verdict = CB_CERT_MISSING;
        s->refused = true;
    }
    if (rc == 0 || s->refused) count_certificate(s);
    if (rc == 0)
        count_done(s);
    else
        cb_cells_add(cells, why_failed(s, rc), 1);
    if (rc == GNUTLS_E_FATAL_ALERT_RECEIVED) cb_tls_count_alert(cells, false, (unsigned)gnutls_alert_get(s->gnutls));
    if (s->tickets && s->offered_early) cb_cells_add(cells, CB_C_TLS_REPLAYS, cb_tickets_replays(s->tickets));
}

void cb_tls_count_sent_alert(const cb_tls_session *s, int rc) {
    int level = 0;
    int alert = s->alert >= 0 ? s->alert : gnutls_error_to_alert(rc, &level);
    if (s->cells) cb_tls_count_alert(s->cells, true, (unsigned)alert);
}
