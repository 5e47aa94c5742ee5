/* What ngtcp2 tells a connection, passed on to TLS, the app and the driver. */
#include "base/error.h"
#include "base/log.h"
#include "transport/quic_count.h"
#include "transport/quic_keys.h"
#include "transport/quic_pace.h"
#include <ngtcp2/ngtcp2_crypto_gnutls.h>
#include <string.h>

int cb_quic_core_app_result(cb_quic_conn *c, int rc) {
    if (rc >= 0) return 0;
    c->app_rc = rc;
    return NGTCP2_ERR_CALLBACK_FAILURE;
}

/* Calls an optional member of the app's operations; once the end is decided, nothing more. */
#define APP(c, member, ...)                                                                                            \
    ((c)->phase != CB_QUIC_OPEN ? NGTCP2_ERR_CALLBACK_FAILURE                                                          \
     : (c)->app && (c)->app->ops->member                                                                               \
         ? cb_quic_core_app_result((c), (c)->app->ops->member((c)->app, ##__VA_ARGS__))                                \
         : 0)

static int become_ready(cb_quic_conn *c) {
    if (c->ready) return 0;
    if (!c->app) {
        int rc = c->host->make_app(c, &c->app);
        if (rc < 0) return cb_quic_core_app_result(c, rc);
    }
    c->ready = true;
    return APP(c, ready);
}

/* --- TLS --- */

/* Which TLS messages may begin after the handshake: for a client tickets, for a server none (RFC 9001, 4.4 and 6).
 * GnuTLS would act on a KeyUpdate, and ngtcp2 1.11 abort the program over the new keys. */
static int check_late_type(cb_quic_conn *c, uint8_t type) {
    enum { NEW_SESSION_TICKET = 4, CERTIFICATE_REQUEST = 13 };
    if (!c->server && type == NEW_SESSION_TICKET) return 0;
    c->tls_rc = GNUTLS_E_UNEXPECTED_HANDSHAKE_PACKET;
    if (!c->server && type == CERTIFICATE_REQUEST) return NGTCP2_ERR_PROTO;
    ngtcp2_conn_set_tls_alert(c->ng, GNUTLS_A_UNEXPECTED_MESSAGE);
    return NGTCP2_ERR_CRYPTO;
}

/* Reads TLS messages along before GnuTLS, which keeps what is not whole: up to 16 MiB of each. */
static int check_tls(cb_quic_conn *c, ngtcp2_encryption_level level, const uint8_t *data, size_t len) {
    enum { HEAD = 4, MESSAGE_MAX = 128 << 10 };
    cb_quic_tls_in *in = &c->tls_in[level == NGTCP2_ENCRYPTION_LEVEL_1RTT        ? 2
                                    : level == NGTCP2_ENCRYPTION_LEVEL_HANDSHAKE ? 1
                                                                                 : 0];
    while (len) {
        if (in->head == HEAD) {
            size_t n = len < in->left ? len : in->left;
            in->left -= (uint32_t)n;
            data += n;
            len -= n;
        } else {
            int rv = !in->head && level == NGTCP2_ENCRYPTION_LEVEL_1RTT ? check_late_type(c, *data) : 0;
            if (rv != 0) return rv;
            in->left = in->head++ ? in->left << 8 | *data : 0;
            data++;
            len--;
        }
        if (in->head == HEAD && in->left > MESSAGE_MAX) {
            c->tls_rc = GNUTLS_E_HANDSHAKE_TOO_LARGE;
            ngtcp2_conn_set_tls_alert(c->ng, GNUTLS_A_DECODE_ERROR);
            return NGTCP2_ERR_CRYPTO;
        }
        if (in->head == HEAD && !in->left) in->head = 0;
    }
    return 0;
}

/* Early data of QUIC is bounded by flow control only, and tickets have to say so (RFC 9001, 4.6.1). */
static bool bad_ticket(gnutls_session_t session) {
    size_t early = gnutls_record_get_max_early_data_size(session);
    return early != 0 && early != UINT32_MAX;
}

/* The handshake is complete; is it one of QUIC? */
static int check_done(cb_quic_conn *c) {
    bool agreed = c->server || cb_tls_session_alpn(c->tls)[0];
    return agreed ? 0 : GNUTLS_E_NO_APPLICATION_PROTOCOL; /* RFC 9001, 8.1 */
}

/* What a result of GnuTLS means to ngtcp2; keeps it, for it names the reason. */
static int tls_outcome(cb_quic_conn *c, gnutls_session_t session, int rv) {
    if (rv == 0 || !gnutls_error_is_fatal(rv)) return 0;
    c->tls_rc = c->no_params ? GNUTLS_E_MISSING_EXTENSION : rv;
    gnutls_alert_send_appropriate(session, c->tls_rc);
    int tls_error = ngtcp2_conn_get_tls_error(c->ng);
    return tls_error ? tls_error : NGTCP2_ERR_CRYPTO;
}

static int handshake_step(cb_quic_conn *c) {
    int rv = cb_tls_session_handshake(c->tls);
    if (rv == 0) rv = check_done(c);
    if (rv == 0) ngtcp2_conn_tls_handshake_completed(c->ng);
    return rv;
}

int cb_quic_tls_signed(cb_quic_conn *c) {
    gnutls_session_t session = cb_tls_session_handle(c->tls);
    return session ? tls_outcome(c, session, handshake_step(c)) : 0;
}

/* As ngtcp2_crypto_recv_crypto_data_cb(), but keeps GnuTLS's result. */
static int on_crypto(ngtcp2_conn *ng, ngtcp2_encryption_level level, uint64_t offset, const uint8_t *data, size_t len,
                     void *user) {
    cb_quic_conn *c = user;
    gnutls_session_t session = cb_tls_session_handle(c->tls);
    int rv = 0;
    (void)offset;
    if ((rv = check_tls(c, level, data, len)) != 0) return rv;
    if (!session) return NGTCP2_ERR_CRYPTO; /* given back: on_handshake() */
    /* Before our signature is out a peer has nothing more to say. */
    if (cb_tls_session_waits(c->tls)) rv = GNUTLS_E_UNEXPECTED_HANDSHAKE_PACKET;
    if (rv == 0 && len > 0) {
        rv = gnutls_handshake_write(session, ngtcp2_crypto_gnutls_from_ngtcp2_encryption_level(level), data, len);
    }
    if (rv == 0 && level == NGTCP2_ENCRYPTION_LEVEL_1RTT && bad_ticket(session)) {
        c->tls_rc = GNUTLS_E_RECEIVED_ILLEGAL_PARAMETER;
        return NGTCP2_ERR_PROTO;
    }
    if ((rv == 0 || !gnutls_error_is_fatal(rv)) && !ngtcp2_conn_get_handshake_completed(ng)) rv = handshake_step(c);
    return tls_outcome(c, session, rv);
}

static int on_client_initial(ngtcp2_conn *ng, void *user) {
    int rv = cb_quic_keys_client_initial(user);
    return rv ? rv : on_crypto(ng, NGTCP2_ENCRYPTION_LEVEL_INITIAL, 0, NULL, 0, user); /* the ClientHello */
}

static int on_rx_key(ngtcp2_conn *ng, ngtcp2_encryption_level level, void *user) {
    cb_quic_conn *c = user;
    (void)ng;
    if (c->server && level == NGTCP2_ENCRYPTION_LEVEL_0RTT) c->early = 1;
    return 0;
}

static int on_tx_key(ngtcp2_conn *ng, ngtcp2_encryption_level level, void *user) {
    cb_quic_conn *c = user;
    /* A peer that speaks TLS and not QUIC (RFC 9001, 8.2). ngtcp2 1.11 would abort the program. */
    c->no_params = level == NGTCP2_ENCRYPTION_LEVEL_1RTT && !ngtcp2_conn_get_remote_transport_params(ng);
    if (c->no_params) return NGTCP2_ERR_CALLBACK_FAILURE;
    /* Early keys are of use only with the limits that were kept beside the session. */
    if (level == NGTCP2_ENCRYPTION_LEVEL_0RTT) return c->early_tried ? become_ready(c) : 0;
    return level == NGTCP2_ENCRYPTION_LEVEL_1RTT && c->server ? become_ready(c) : 0;
}

static int submit_token(cb_quic_conn *c) {
    uint8_t token[CB_QUIC_TOKEN_MAX];
    size_t len = c->host->make_token(c, token, sizeof token);
    if (len) cb_cells_add(c->cells, CB_C_QUIC_NEW_TOKENS_OUT, 1);
    c->own_due = true;
    return len ? ngtcp2_conn_submit_new_token(c->ng, token, len) : 0;
}

static int on_handshake(ngtcp2_conn *ng, void *user) {
    cb_quic_conn *c = user;
    c->handshaken = c->own_due = true;
    c->host->handshaken(c);
    if (c->server) {
        if (cb_tls_session_send_tickets(c->tls) < 0) {
            cb_log_line(c->log, CB_LOG_DEBUG, "quic", "%s", cb_last_error());
        }
        int rv = submit_token(c);
        if (rv != 0) return NGTCP2_ERR_CALLBACK_FAILURE;
    } else if (c->early_tried) {
        bool taken = gnutls_session_get_flags(cb_tls_session_handle(c->tls)) & GNUTLS_SFLAGS_EARLY_DATA;
        c->early = taken ? 1 : 2;
        if (!taken && ngtcp2_conn_tls_early_data_rejected(ng) != 0) return NGTCP2_ERR_CALLBACK_FAILURE;
    }
    cb_quic_count_handshake(c);
    int rv = become_ready(c);
    if (rv == 0) rv = APP(c, handshake);
    if (rv == 0 && c->server) {
        cb_tls_session_finish(c->tls);
        ngtcp2_conn_set_tls_native_handle(ng, NULL);
    }
    return rv;
}

static int on_early_rejected(ngtcp2_conn *ng, void *user) {
    cb_quic_conn *c = user;
    (void)ng;
    cb_quic_count_streams_over(c, c->streams);
    return c->ready ? APP(c, early_rejected) : 0;
}

/* --- streams --- */

static int on_stream_open(ngtcp2_conn *ng, int64_t stream, void *user) {
    cb_quic_conn *c = user;
    (void)ng;
    cb_quic_count_stream(c, false, stream);
    return APP(c, stream_open, stream);
}

static int on_stream_data(ngtcp2_conn *ng, uint32_t flags, int64_t stream, uint64_t offset, const uint8_t *data,
                          size_t len, void *user, void *stream_user) {
    cb_quic_conn *c = user;
    unsigned told = (flags & NGTCP2_STREAM_DATA_FLAG_FIN ? CB_QUIC_FIN : 0) |
                    (flags & NGTCP2_STREAM_DATA_FLAG_0RTT ? CB_QUIC_EARLY : 0);
    (void)ng;
    (void)offset;
    (void)stream_user;
    cb_cells_add(c->cells, CB_C_QUIC_STREAM_BYTES_IN, len);
    return APP(c, recv, stream, told, ((cb_slice){data, len}));
}

static int on_acked(ngtcp2_conn *ng, int64_t stream, uint64_t offset, uint64_t len, void *user, void *stream_user) {
    cb_quic_conn *c = user;
    (void)ng;
    (void)offset;
    (void)stream_user;
    if (c->phase == CB_QUIC_OPEN && c->app && c->app->ops->acked) c->app->ops->acked(c->app, stream, len);
    return 0;
}

static int on_stream_close(ngtcp2_conn *ng, uint32_t flags, int64_t stream, uint64_t code, void *user,
                           void *stream_user) {
    cb_quic_conn *c = user;
    (void)ng;
    (void)stream_user;
    cb_quic_count_streams_over(c, 1);
    return APP(c, stream_close, stream, flags & NGTCP2_STREAM_CLOSE_FLAG_APP_ERROR_CODE_SET ? code : UINT64_MAX);
}

static int on_stream_reset(ngtcp2_conn *ng, int64_t stream, uint64_t final_size, uint64_t code, void *user,
                           void *stream_user) {
    cb_quic_conn *c = user;
    (void)ng;
    (void)final_size;
    (void)stream_user;
    cb_cells_add(c->cells, CB_C_QUIC_STREAM_RESETS_IN, 1);
    return APP(c, stream_reset, stream, code);
}

static int on_stream_stop(ngtcp2_conn *ng, int64_t stream, uint64_t code, void *user, void *stream_user) {
    cb_quic_conn *c = user;
    (void)ng;
    (void)stream_user;
    cb_cells_add(c->cells, CB_C_QUIC_STREAM_STOPS_IN, 1);
    return APP(c, stream_stop, stream, code);
}

static int on_stream_window(ngtcp2_conn *ng, int64_t stream, uint64_t max, void *user, void *stream_user) {
    cb_quic_conn *c = user;
    (void)ng;
    (void)max;
    (void)stream_user;
    if (c->phase == CB_QUIC_OPEN && c->app && c->app->ops->unblocked) c->app->ops->unblocked(c->app, stream);
    return 0;
}

static int on_more_streams(ngtcp2_conn *ng, uint64_t max, void *user) {
    cb_quic_conn *c = user;
    (void)ng;
    (void)max;
    if (c->phase == CB_QUIC_OPEN && c->ready && c->app->ops->streams_available) c->app->ops->streams_available(c->app);
    return 0;
}

static int on_datagram(ngtcp2_conn *ng, uint32_t flags, const uint8_t *data, size_t len, void *user) {
    cb_quic_conn *c = user;
    (void)ng;
    (void)flags;
    cb_cells_add(c->cells, CB_C_QUIC_DATAGRAMS_IN, 1);
    return APP(c, datagram, ((cb_slice){data, len}));
}

/* --- paths and connection IDs --- */

enum { CIDS_A_SECOND = 20, CIDS_SPAN_S = 10 };

/* A frame of three bytes that retires a connection ID makes us derive a token and send a frame of some forty: a peer
 * that moves needs few, one that floods gets no more than so many (RFC 9000, 21.9; ngtcp2 1.11 counts none). */
static bool too_many_cids(cb_quic_conn *c) {
    const cb_time now = c->host->now(c);
    if (c->cids_until < now) c->cids_until = now;
    c->cids_until += NGTCP2_SECONDS / CIDS_A_SECOND;
    return c->cids_until - now > CIDS_SPAN_S * NGTCP2_SECONDS;
}

static int on_new_cid(ngtcp2_conn *ng, ngtcp2_cid *cid, uint8_t *token, size_t len, void *user) {
    static const char why[] = "too many connection IDs are retired";
    cb_quic_conn *c = user;
    (void)ng;
    (void)len; /* all of a driver's are of one length */
    if (too_many_cids(c)) {
        const char *reason = cb_quic_core_reason(c, why);
        ngtcp2_ccerr_set_transport_error(&c->err, NGTCP2_PROTOCOL_VIOLATION, (const uint8_t *)reason, strlen(reason));
        c->err_set = true;
        return cb_quic_core_app_result(c, CB_ELIMIT);
    }
    if (c->host->new_cid(c, cid, token) < 0) return NGTCP2_ERR_CALLBACK_FAILURE;
    cb_cells_add(c->cells, CB_C_QUIC_CIDS_ISSUED, 1);
    return 0;
}

static int on_drop_cid(ngtcp2_conn *ng, const ngtcp2_cid *cid, void *user) {
    cb_quic_conn *c = user;
    (void)ng;
    cb_cells_add(c->cells, CB_C_QUIC_CIDS_RETIRED, 1);
    c->host->drop_cid(c, cid);
    return 0;
}

static int on_lost_datagram(ngtcp2_conn *ng, uint64_t id, void *user) {
    const cb_quic_conn *c = user;
    (void)ng;
    (void)id;
    cb_cells_add(c->cells, CB_C_QUIC_DATAGRAMS_DROPPED_LOST, 1);
    return 0;
}

static void count_validation(const cb_cells *cells, ngtcp2_path_validation_result result) {
    switch (result) {
    case NGTCP2_PATH_VALIDATION_RESULT_SUCCESS:
        cb_cells_add(cells, CB_C_QUIC_VALIDATIONS_OK, 1);
        break;
    case NGTCP2_PATH_VALIDATION_RESULT_FAILURE:
        cb_cells_add(cells, CB_C_QUIC_VALIDATIONS_FAILED, 1);
        break;
    case NGTCP2_PATH_VALIDATION_RESULT_ABORTED:
        cb_cells_add(cells, CB_C_QUIC_VALIDATIONS_ABORTED, 1);
        break;
    }
}

static int on_path_validation(ngtcp2_conn *ng, uint32_t flags, const ngtcp2_path *path, const ngtcp2_path *old,
                              ngtcp2_path_validation_result result, void *user) {
    cb_quic_conn *c = user;
    (void)ng;
    (void)old;
    count_validation(c->cells, result);
    if (result != NGTCP2_PATH_VALIDATION_RESULT_SUCCESS) return 0;
    if (c->server && (flags & NGTCP2_PATH_VALIDATION_FLAG_NEW_TOKEN) && submit_token(c) != 0) {
        return NGTCP2_ERR_CALLBACK_FAILURE;
    }
    cb_addr local, remote;
    memset(&local, 0, sizeof local);
    memset(&remote, 0, sizeof remote);
    memcpy(&local, path->local.addr, path->local.addrlen);
    memcpy(&remote, path->remote.addr, path->remote.addrlen);
    if (cb_addr_equal(&local, &c->local) && cb_addr_equal(&remote, &c->remote)) return 0;
    const bool moved = !cb_addr_same_host(&local, &c->local) || !cb_addr_same_host(&remote, &c->remote);
    cb_cells_add(c->cells, moved ? CB_C_QUIC_MIGRATIONS_ADDRESS : CB_C_QUIC_MIGRATIONS_PORT, 1);
    if (moved) {
        cb_quic_pace_reset(c, c->host->now(c)); /* RFC 9000, 9.4: another path; a new port alone is none */
    }
    c->local = local;
    c->remote = remote;
    c->migrations++;
    return APP(c, path_change);
}

/* --- the rest --- */

static int on_new_token(ngtcp2_conn *ng, const uint8_t *token, size_t len, void *user) {
    cb_quic_conn *c = user;
    (void)ng;
    cb_cells_add(c->cells, CB_C_QUIC_NEW_TOKENS_IN, 1);
    c->host->keep_token(c, (cb_slice){token, len});
    return 0;
}

static int on_stateless_reset(ngtcp2_conn *ng, const ngtcp2_pkt_stateless_reset *reset, void *user) {
    cb_quic_conn *c = user;
    (void)ng;
    (void)reset;
    cb_cells_add(c->cells, CB_C_QUIC_RESETS_IN, 1);
    c->stateless_reset = true;
    return 0;
}

static void on_rand(uint8_t *out, size_t len, const ngtcp2_rand_ctx *ctx) {
    cb_quic_conn *c = ctx->native_handle;
    c->host->random(c, out, len);
}

static int on_versions(ngtcp2_conn *ng, const ngtcp2_pkt_hd *hd, const uint32_t *sv, size_t nsv, void *user) {
    cb_quic_conn *c = user;
    const uint32_t tried = ngtcp2_conn_get_client_chosen_version(ng);
    const uint32_t other = tried == NGTCP2_PROTO_VER_V2 ? NGTCP2_PROTO_VER_V1 : NGTCP2_PROTO_VER_V2;
    (void)hd;
    for (size_t i = 0; i < nsv; i++)
        if (sv[i] == other) c->other_version = other;
    return 0;
}

#define COMMON                                                                                                         \
    .recv_crypto_data = on_crypto, .handshake_completed = on_handshake, .encrypt = cb_quic_keys_encrypt,               \
    .decrypt = cb_quic_keys_decrypt, .hp_mask = cb_quic_keys_mask, .recv_stream_data = on_stream_data,                 \
    .acked_stream_data_offset = on_acked, .stream_open = on_stream_open, .stream_close = on_stream_close,              \
    .recv_stateless_reset = on_stateless_reset, .extend_max_local_streams_bidi = on_more_streams,                      \
    .extend_max_local_streams_uni = on_more_streams, .rand = on_rand, .get_new_connection_id = on_new_cid,             \
    .remove_connection_id = on_drop_cid, .update_key = cb_quic_keys_update, .path_validation = on_path_validation,     \
    .stream_reset = on_stream_reset, .extend_max_stream_data = on_stream_window,                                       \
    .delete_crypto_aead_ctx = cb_quic_keys_drop, .delete_crypto_cipher_ctx = cb_quic_keys_drop_mask,                   \
    .recv_datagram = on_datagram, .get_path_challenge_data = ngtcp2_crypto_get_path_challenge_data_cb,                 \
    .stream_stop_sending = on_stream_stop, .lost_datagram = on_lost_datagram,                                          \
    .version_negotiation = cb_quic_keys_version, .recv_rx_key = on_rx_key, .recv_tx_key = on_tx_key

const ngtcp2_callbacks cb_quic_client_callbacks = {
    COMMON,
    .client_initial = on_client_initial,
    .recv_retry = cb_quic_keys_retry,
    .recv_new_token = on_new_token,
    .recv_version_negotiation = on_versions,
    .tls_early_data_rejected = on_early_rejected,
};

const ngtcp2_callbacks cb_quic_server_callbacks = {
    COMMON,
    .recv_client_initial = cb_quic_keys_server_initial,
};
