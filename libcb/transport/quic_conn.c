/* One QUIC connection without I/O: its life, packets in, packets out, the deadline, the end. */
#include "transport/quic_conn.h"
#include "base/blocks.h"
#include "base/error.h"
#include "base/log.h"
#include "base/mem.h"
#include "transport/quic_cc.h"
#include "transport/quic_count.h"
#include "transport/quic_keys.h"
#include "transport/quic_pace.h"
#include "transport/tls_alert.h"
#include <ngtcp2/ngtcp2_crypto_gnutls.h>
#include <stdio.h>
#include <string.h>

static const uint32_t versions_v1[] = {NGTCP2_PROTO_VER_V1, NGTCP2_PROTO_VER_V2};
static const uint32_t versions_v2[] = {NGTCP2_PROTO_VER_V2, NGTCP2_PROTO_VER_V1};
/* From likely to safe: Ethernet, Ethernet with PPPoE or a tunnel or two, IPv6's minimum. */
static const uint16_t probes_v4[] = {1472, 1420, 1372, 1252};
static const uint16_t probes_v6[] = {1452, 1400, 1352, 1232};

/* --- memory --- */

static void *mem_malloc(size_t size, void *user) {
    return cb_mem_get(user, size ? size : 1);
}

static void mem_free(void *p, void *user) {
    cb_mem_free(user, p);
}

static void *mem_calloc(size_t n, size_t size, void *user) {
    if (size && n > SIZE_MAX / size) return NULL;
    return cb_mem_new(user, n && size ? n * size : 1);
}

static void *mem_realloc(void *p, size_t size, void *user) {
    return cb_mem_grow(user, p, size ? size : 1);
}

/* --- the start --- */

static ngtcp2_conn *conn_of(ngtcp2_crypto_conn_ref *ref) {
    return ((cb_quic_conn *)ref->user_data)->ng;
}

static void fill_path(ngtcp2_path *path, const cb_addr *local, const cb_addr *remote) {
    *path = (ngtcp2_path){
        .local = {(ngtcp2_sockaddr *)(uintptr_t)&local->sa, cb_addr_len(local)},
        .remote = {(ngtcp2_sockaddr *)(uintptr_t)&remote->sa, cb_addr_len(remote)},
    };
}

static bool over_v4(const cb_addr *a) {
    return a->sa.sa_family == AF_INET || (a->sa.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr));
}

static void fill_settings(cb_quic_conn *c, const cb_quic_core_init *init, ngtcp2_settings *s) {
    const cb_quic_opts *o = c->opts;
    bool v4 = over_v4(init->remote);
    ngtcp2_settings_default(s);
    c->cc = o->cc;
    c->cc_below = (uint8_t)(o->cc != CB_CC_BBRV3 ? o->cc : init->cc_below ? init->cc_below : CB_CC_CUBIC);
    s->cc_algo = (ngtcp2_cc_algo)cb_quic_cc_algo(c->cc_below);
    s->initial_ts = init->now;
    s->rand_ctx.native_handle = c;
    s->handshake_timeout = o->handshake_timeout_ms * NGTCP2_MILLISECONDS;
    s->max_window = o->max_window_bytes;
    s->max_stream_window = o->fixed_stream_window ? 0 : o->max_window_bytes; /* 0: no auto-tuning */
    s->max_tx_udp_payload_size = o->no_pmtud ? CB_QUIC_PACKET_MIN : v4 ? probes_v4[0] : probes_v6[0];
    s->no_pmtud = o->no_pmtud;
    s->pmtud_probes = v4 ? probes_v4 : probes_v6;
    s->pmtud_probeslen = sizeof probes_v4 / sizeof probes_v4[0];
    s->token = init->token.base;
    s->tokenlen = init->token.len;
    s->token_type = init->token_type;
    s->original_version = init->original_version;
    s->available_versions = init->version == NGTCP2_PROTO_VER_V2 ? versions_v2 : versions_v1;
    s->available_versionslen = c->server && o->version == 1 ? 1 : 2;
    if (c->server && o->version != 2) return; /* a server keeps the version that the client chose */
    /* A client: the order of its first try. Who made it come down from that by a forged packet is found out. */
    if (c->server) s->available_versions = versions_v2;
    s->preferred_versions = init->original_version == NGTCP2_PROTO_VER_V2 ? versions_v2 : s->available_versions;
    s->preferred_versionslen = 2;
}

static void fill_params(cb_quic_conn *c, const cb_quic_core_init *init, ngtcp2_transport_params *p) {
    const cb_quic_opts *o = c->opts;
    ngtcp2_transport_params_default(p);
    p->initial_max_stream_data_bidi_local = o->stream_window_bytes;
    p->initial_max_stream_data_bidi_remote = o->stream_window_bytes;
    p->initial_max_stream_data_uni = o->stream_window_bytes;
    p->initial_max_data = o->conn_window_bytes;
    p->initial_max_streams_bidi = o->max_streams_bidi;
    p->initial_max_streams_uni = o->max_streams_uni;
    p->max_idle_timeout = o->idle_timeout_ms * NGTCP2_MILLISECONDS;
    p->active_connection_id_limit = 7;
    p->max_datagram_frame_size = o->max_datagram_bytes;
    p->grease_quic_bit = 1;
    if (!c->server) return;
    p->disable_active_migration = o->no_migration;
    p->original_dcid = init->original_dcid;
    p->original_dcid_present = 1;
    if (init->retry_scid) {
        p->retry_scid = *init->retry_scid;
        p->retry_scid_present = 1;
    }
    p->stateless_reset_token_present = 1;
    memcpy(p->stateless_reset_token, init->reset_token, sizeof p->stateless_reset_token);
}

static void take_early_params(cb_quic_conn *c) {
    cb_slice extra = cb_tls_session_extra(c->tls);
    if (!c->opts->early_data || !extra.len) return;
    if (ngtcp2_conn_decode_and_set_0rtt_transport_params(c->ng, extra.base, extra.len) == 0) c->early_tried = true;
}

int cb_quic_core_open(cb_quic_conn *c, const cb_quic_core_init *init, bool server) {
    ngtcp2_settings settings;
    ngtcp2_transport_params params;
    ngtcp2_path path;
    gnutls_session_t session = cb_tls_session_handle(init->tls);
    c->host = init->host;
    c->opts = init->opts;
    c->alloc = init->alloc;
    c->log = init->log;
    c->loop = init->loop;
    c->cells = cb_loop_cells(init->loop);
    if (!c->began) c->began = init->now;
    c->look_at = init->now + NGTCP2_SECONDS;
    c->ssthresh = UINT64_MAX;
    c->aead = init->aead ? init->aead : &cb_quic_aead_gnutls;
    cb_list_init(&c->keys);
    c->tls = init->tls;
    c->server = server;
    c->local = *init->local;
    c->remote = *init->remote;
    const ngtcp2_mem *mem = cb_alloc_is_libc(c->alloc) ? NULL : &c->mem;
    c->mem = (ngtcp2_mem){(void *)(uintptr_t)c->alloc, mem_malloc, mem_free, mem_calloc, mem_realloc};
    c->ref = (ngtcp2_crypto_conn_ref){conn_of, c};
    ngtcp2_ccerr_default(&c->err);
    fill_settings(c, init, &settings);
    fill_params(c, init, &params);
    fill_path(&path, &c->local, &c->remote);
    int rc = cb_quic_pace_open(c, init->now);
    if (rc < 0) {
        cb_quic_core_free(c);
        return rc;
    }
    gnutls_session_set_ptr(session, &c->ref);
    int bad = server ? ngtcp2_crypto_gnutls_configure_server_session(session)
                     : ngtcp2_crypto_gnutls_configure_client_session(session);
    int rv = NGTCP2_ERR_INTERNAL;
    if (!bad) {
        cb_quic_keys_attach(c);
        rv = server ? ngtcp2_conn_server_new(&c->ng, &init->dcid, &init->scid, &path, init->version,
                                             &cb_quic_server_callbacks, &settings, &params, mem, c)
                    : ngtcp2_conn_client_new(&c->ng, &init->dcid, &init->scid, &path, init->version,
                                             &cb_quic_client_callbacks, &settings, &params, mem, c);
    }
    if (rv != 0) {
        cb_quic_core_free(c);
        return cb_fail(rv == NGTCP2_ERR_NOMEM ? CB_ENOMEM : CB_EINVAL, "cannot start a QUIC connection: %s",
                       ngtcp2_strerror(rv));
    }
    ngtcp2_conn_set_tls_native_handle(c->ng, session);
    if (c->opts->keep_alive_ms) {
        ngtcp2_conn_set_keep_alive_timeout(c->ng, c->opts->keep_alive_ms * NGTCP2_MILLISECONDS);
    }
    if (!server) take_early_params(c);
    return CB_OK;
}

/* A packet that did not fit the train before it. */
typedef struct cb_quic_spill {
    size_t len;
    unsigned ecn;
    ngtcp2_path_storage path;
    uint8_t packet[CB_QUIC_PACKET_MAX];
} cb_quic_spill;

enum { SPILL_BLOCK = 2048 };
_Static_assert(sizeof(cb_quic_spill) <= SPILL_BLOCK, "a spilled packet fits a block");

static void drop_spill(cb_quic_conn *c) {
    if (c->spill) cb_block_put(c->alloc, c->spill, SPILL_BLOCK);
    c->spill = NULL;
}

void cb_quic_core_free(cb_quic_conn *c) {
    ngtcp2_conn_del(c->ng);
    c->ng = NULL;
    cb_tls_session_free(c->tls);
    c->tls = NULL;
    cb_quic_dgrams_free(&c->dgrams, c->alloc);
    cb_quic_pace_free(c);
    drop_spill(c);
    cb_mem_free(c->alloc, c->reason);
    cb_mem_free(c->alloc, c->detail);
    c->reason = c->detail = NULL;
}

int cb_quic_core_reopen(cb_quic_conn *c, const cb_quic_core_init *init) {
    cb_quic_core_free(c);
    c->owed = 0;
    c->early_tried = false;
    c->other_version = 0;
    return cb_quic_core_open(c, init, false);
}

/* --- packets in --- */

void cb_quic_core_feed(cb_quic_conn *c, const cb_addr *local, const cb_addr *remote, unsigned ecn, const uint8_t *data,
                       size_t len, cb_time now) {
    ngtcp2_path path;
    ngtcp2_pkt_info pi = {.ecn = (uint8_t)ecn};
    if (c->phase != CB_QUIC_OPEN) return;
    fill_path(&path, local, remote);
    c->rx_packets++;
    c->rx_bytes += len;
    cb_cells_add(c->cells, CB_C_QUIC_PACKETS_IN, 1);
    cb_cells_add(c->cells, CB_C_QUIC_BYTES_IN, len);
    c->busy = true;
    int rv = ngtcp2_conn_read_pkt(c->ng, &path, &pi, data, len, now);
    c->busy = false;
    if (rv != 0) cb_quic_core_failed(c, rv);
    c->owed = 0;
    c->host->wake(c);
}

cb_time cb_quic_core_deadline(const cb_quic_conn *c) {
    return c->phase == CB_QUIC_OPEN ? ngtcp2_conn_get_expiry(c->ng) : UINT64_MAX;
}

cb_time cb_quic_core_wake(const cb_quic_conn *c) {
    return cb_quic_pace_wake(c);
}

void cb_quic_core_expire(cb_quic_conn *c, cb_time now) {
    if (c->phase != CB_QUIC_OPEN) return;
    const uint64_t in_flight = c->cells ? cb_quic_in_flight(c) : 0;
    c->busy = true;
    c->expired = ngtcp2_conn_get_expiry(c->ng) <= now;
    int rv = c->expired ? ngtcp2_conn_handle_expiry(c->ng, now) : 0;
    c->busy = false;
    if (rv != 0) cb_quic_core_failed(c, rv);
    if (c->cells) cb_quic_count_expired(c, in_flight, now);
    c->host->wake(c);
}

void cb_quic_core_signed(cb_quic_conn *c) {
    if (c->phase != CB_QUIC_OPEN) return;
    c->busy = true;
    int rv = cb_quic_tls_signed(c);
    if (rv == 0 && !c->server) {
        /* A client of ngtcp2 looks whether TLS has completed only when a packet came, and has an assertion where two
         * come before it looks. This is none, as anybody may send it, and as such discarded. */
        const uint8_t none = 0x80;
        const ngtcp2_pkt_info pi = {0};
        rv = ngtcp2_conn_read_pkt(c->ng, ngtcp2_conn_get_path(c->ng), &pi, &none, sizeof none, c->host->now(c));
    }
    c->busy = false;
    if (rv != 0) cb_quic_core_failed(c, rv);
    c->host->wake(c);
}

/* --- packets out --- */

/* Puts the first waiting datagram into the packet under way. > 0: the packet is complete; 0: nothing may be sent now;
 * NGTCP2_ERR_WRITE_MORE: there is room for more. */
static ngtcp2_ssize write_dgram(cb_quic_conn *c, uint8_t *buf, size_t cap, ngtcp2_path *path, ngtcp2_pkt_info *pi,
                                cb_time now) {
    cb_slice first = cb_quic_dgrams_first(&c->dgrams);
    ngtcp2_vec vec = {(uint8_t *)(uintptr_t)first.base, first.len};
    int accepted = 0;
    ngtcp2_ssize n = ngtcp2_conn_writev_datagram(c->ng, path, pi, buf, cap, &accepted, NGTCP2_WRITE_DATAGRAM_FLAG_MORE,
                                                 0, &vec, first.len ? 1 : 0, now);
    if (accepted) {
        c->fresh += first.len;
        cb_cells_add(c->cells, CB_C_QUIC_DATAGRAMS_OUT, 1);
        cb_quic_dgrams_pop(&c->dgrams);
    }
    if (n == NGTCP2_ERR_INVALID_STATE || n == NGTCP2_ERR_INVALID_ARGUMENT) { /* the path has become too narrow */
        cb_cells_add(c->cells, CB_C_QUIC_DATAGRAMS_DROPPED_TOO_BIG, 1);
        cb_quic_dgrams_pop(&c->dgrams);
        return NGTCP2_ERR_WRITE_MORE;
    }
    return n;
}

/* The peer's window for all streams together. */
static bool may_send_data(cb_quic_conn *c) {
    const bool open = ngtcp2_conn_get_max_data_left(c->ng) > 0;
    if (open != c->window_shut) return open;
    c->window_shut = !open;
    if (!open) cb_cells_add(c->cells, CB_C_QUIC_BLOCKED_CONNECTION, 1);
    return open;
}

static ngtcp2_ssize write_stream(cb_quic_conn *c, uint8_t *buf, size_t cap, ngtcp2_path *path, ngtcp2_pkt_info *pi,
                                 cb_time now) {
    enum { VECTORS = 4 }; /* what fits a packet: more would be counted for nothing */
    cb_slice vec[VECTORS];
    int64_t stream = -1;
    bool fin = false;
    int n = 0;
    if (c->ready && !c->quiet && may_send_data(c)) {
        n = c->app->ops->pull(c->app, &stream, &fin, vec, VECTORS);
        if (n < 0) return cb_quic_core_app_result(c, n);
        if (n == 0 && !fin) stream = -1;
    }
    uint32_t flags = stream < 0 ? 0 : NGTCP2_WRITE_STREAM_FLAG_MORE | (fin ? NGTCP2_WRITE_STREAM_FLAG_FIN : 0);
    ngtcp2_ssize taken = -1;
    _Static_assert(sizeof(ngtcp2_vec) == sizeof(cb_slice), "same shape");
    ngtcp2_ssize rv = ngtcp2_conn_writev_stream(c->ng, path, pi, buf, cap, &taken, flags, stream,
                                                (const ngtcp2_vec *)(const void *)vec, (size_t)n, now);
    switch (rv) {
    case NGTCP2_ERR_STREAM_DATA_BLOCKED:
        cb_cells_add(c->cells, CB_C_QUIC_BLOCKED_STREAM, 1);
        if (c->app->ops->blocked) c->app->ops->blocked(c->app, stream);
        return NGTCP2_ERR_WRITE_MORE;
    case NGTCP2_ERR_STREAM_SHUT_WR:
    case NGTCP2_ERR_STREAM_NOT_FOUND:
        if (c->app->ops->shut) c->app->ops->shut(c->app, stream);
        return NGTCP2_ERR_WRITE_MORE;
    default:
        break;
    }
    if (taken > 0) {
        c->fresh += (size_t)taken;
        cb_cells_add(c->cells, CB_C_QUIC_STREAM_BYTES_OUT, (uint64_t)taken);
    }
    if (taken >= 0 && stream >= 0 && c->app->ops->committed) {
        int rc = c->app->ops->committed(c->app, stream, (size_t)taken);
        if (rc < 0) return cb_quic_core_app_result(c, rc);
    }
    return rv;
}

static ngtcp2_ssize write_packet(cb_quic_conn *c, uint8_t *buf, size_t cap, ngtcp2_path *path, ngtcp2_pkt_info *pi,
                                 cb_time now) {
    ngtcp2_ssize n;
    do {
        n = c->dgrams.count && c->ready && !c->quiet ? write_dgram(c, buf, cap, path, pi, now)
                                                     : write_stream(c, buf, cap, path, pi, now);
    } while (n == NGTCP2_ERR_WRITE_MORE);
    return n;
}

static void out_path(cb_quic_train *out, const ngtcp2_path *path) {
    memcpy(&out->local, path->local.addr, path->local.addrlen);
    memcpy(&out->remote, path->remote.addr, path->remote.addrlen);
}

static bool take_spill(cb_quic_conn *c, uint8_t *buf, cb_quic_train *out) {
    const cb_quic_spill *s = c->spill;
    if (!s) return false;
    memcpy(buf, s->packet, s->len);
    out->len = out->segment = s->len;
    out->ecn = s->ecn;
    out->more = true;
    out_path(out, &s->path.path);
    drop_spill(c);
    return true;
}

static void keep_spill(cb_quic_conn *c, const uint8_t *packet, size_t len, const ngtcp2_path *path, unsigned ecn) {
    cb_quic_spill *s = c->spill = cb_block_get(c->alloc, SPILL_BLOCK);
    if (!s) return; /* the packet counts as lost */
    memcpy(s->packet, packet, len);
    s->len = len;
    s->ecn = ecn;
    ngtcp2_path_storage_zero(&s->path);
    ngtcp2_path_copy(&s->path.path, path);
}

/* What was sent is to be acknowledged, unless it was acknowledgements only. */
static void note_owed(cb_quic_conn *c, cb_time now) {
    ngtcp2_conn_info info;
    ngtcp2_conn_get_conn_info(c->ng, &info);
    if (info.bytes_in_flight) c->owed = now;
}

void cb_quic_core_write(cb_quic_conn *c, uint8_t *buf, size_t cap, cb_time now, cb_quic_train *out) {
    ngtcp2_path_storage first, ps;
    size_t packets = 0, quantum, spilled = 0, repeated = 0;
    bool drained = false;
    out->len = 0;
    out->more = false;
    if (c->phase != CB_QUIC_OPEN || take_spill(c, buf, out)) return;
    ngtcp2_path_storage_zero(&first);
    ngtcp2_path_storage_zero(&ps);
    quantum = cb_quic_pace_begin(c, now);
    if (!quantum && cb_quic_pace_wait(c, now)) return;
    if (quantum > cap) quantum = cap;
    const uint64_t in_flight = c->cells ? cb_quic_in_flight(c) : 0;
    c->busy = true;
    for (;;) {
        ngtcp2_path_storage *at = packets ? &ps : &first;
        ngtcp2_pkt_info pi = {0};
        size_t room = cap - out->len < CB_QUIC_PACKET_MAX ? cap - out->len : CB_QUIC_PACKET_MAX;
        c->fresh = 0;
        ngtcp2_ssize n = write_packet(c, buf + out->len, room, &at->path, &pi, now);
        if (n < 0) cb_quic_core_failed(c, (int)n);
        drained = n == 0;
        if (n <= 0) break;
        if (c->cells) repeated += cb_quic_count_again(c, (size_t)n, c->fresh);
        cb_quic_pace_packet(c, (size_t)n);
        if (packets && ((size_t)n > out->segment || pi.ecn != out->ecn || !ngtcp2_path_eq(&ps.path, &first.path))) {
            spilled = (size_t)n;
            keep_spill(c, buf + out->len, spilled, &ps.path, pi.ecn);
            out->more = true;
            break;
        }
        if (!packets++) {
            out->segment = (size_t)n;
            out->ecn = pi.ecn;
            out_path(out, &first.path);
        }
        out->len += (size_t)n;
        out->more = true;
        if ((size_t)n < out->segment || packets == CB_QUIC_TRAIN_MAX) break;
        if (out->len + out->segment > quantum || cap - out->len < CB_QUIC_PACKET_MAX) break;
        out->more = false;
    }
    c->busy = false;
    packets += spilled > 0;
    c->tx_packets += packets;
    c->tx_bytes += out->len + spilled;
    if (packets && c->cells) cb_quic_count_written(c, in_flight, packets, out->len + spilled, now);
    if (repeated) cb_cells_add(c->cells, CB_C_QUIC_AGAIN, repeated);
    if (c->phase != CB_QUIC_OPEN) return;
    if (out->len) c->ecn = (uint8_t)out->ecn;
    if (out->len && !c->server && !c->owed) note_owed(c, now);
    bool again = cb_quic_pace_end(c, now, drained);
    if (c->pace) out->more = again || c->spill;
    if (c->key_update_due && ngtcp2_conn_initiate_key_update(c->ng, now) == 0) {
        c->key_update_due = false;
        cb_quic_count_key_update(c);
    }
}

int cb_quic_core_migrate(cb_quic_conn *c, const cb_addr *local, bool at_once, cb_time now) {
    const ngtcp2_transport_params *peer = ngtcp2_conn_get_remote_transport_params(c->ng);
    ngtcp2_path path;
    if (peer && peer->disable_active_migration) return cb_fail(CB_EINVAL, "the server allows no migration");
    fill_path(&path, local, &c->remote);
    int rv = at_once ? ngtcp2_conn_initiate_immediate_migration(c->ng, &path, now)
                     : ngtcp2_conn_initiate_migration(c->ng, &path, now);
    if (rv == NGTCP2_ERR_CONN_ID_BLOCKED || rv == NGTCP2_ERR_INVALID_STATE) return CB_EAGAIN;
    if (rv != 0) return cb_fail(CB_EINVAL, "cannot migrate: %s", ngtcp2_strerror(rv));
    c->host->wake(c);
    return CB_OK;
}

/* --- the end --- */

const char *cb_quic_core_reason(cb_quic_conn *c, const char *text) {
    cb_mem_free(c->alloc, c->reason);
    c->reason = cb_mem_text(c->alloc, text);
    if (!c->reason) return "";
    if (strlen(text) > CB_QUIC_REASON_MAX) c->reason[CB_QUIC_REASON_MAX] = '\0';
    return c->reason;
}

void cb_quic_core_finish(cb_quic_conn *c, int rc, bool send, const char *fmt, ...) {
    char detail[256];
    va_list ap;
    if (c->phase != CB_QUIC_OPEN) return;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof detail, fmt, ap);
    va_end(ap);
    c->detail = cb_mem_text(c->alloc, detail);
    c->phase = CB_QUIC_CLOSING;
    c->close_rc = rc;
    c->send_close = send;
    if (rc < 0 && c->err.type == NGTCP2_CCERR_TYPE_TRANSPORT && c->err.error_code == NGTCP2_NO_ERROR) {
        ngtcp2_ccerr_set_transport_error(&c->err, NGTCP2_INTERNAL_ERROR, NULL, 0);
    }
    if (!c->handshaken) {
        char text[CB_ADDR_TEXT];
        cb_log_line(c->log, CB_LOG_DEBUG, "quic", "handshake with %s failed: %s", cb_addr_text(&c->remote, text),
                    detail);
    }
    c->host->wake(c);
}

static const char *transport_error_name(uint64_t code) {
    static const char *const names[] = {
        "NO_ERROR",
        "INTERNAL_ERROR",
        "CONNECTION_REFUSED",
        "FLOW_CONTROL_ERROR",
        "STREAM_LIMIT_ERROR",
        "STREAM_STATE_ERROR",
        "FINAL_SIZE_ERROR",
        "FRAME_ENCODING_ERROR",
        "TRANSPORT_PARAMETER_ERROR",
        "CONNECTION_ID_LIMIT_ERROR",
        "PROTOCOL_VIOLATION",
        "INVALID_TOKEN",
        "APPLICATION_ERROR",
        "CRYPTO_BUFFER_EXCEEDED",
        "KEY_UPDATE_ERROR",
        "AEAD_LIMIT_REACHED",
        "NO_VIABLE_PATH",
    };
    return code < sizeof names / sizeof names[0] ? names[code] : "unknown error";
}

/* The peer sent CONNECTION_CLOSE, or a stateless reset. */
static void peer_closed(cb_quic_conn *c) {
    const ngtcp2_ccerr *e = ngtcp2_conn_get_ccerr(c->ng);
    char reason[128];
    cb_text_escape(reason, sizeof reason, (cb_slice){e->reason, e->reasonlen});
    const char *sep = e->reasonlen ? ": " : "";
    c->why = c->stateless_reset ? CB_QUIC_WHY_RESET : CB_QUIC_WHY_PEER;
    if (!c->stateless_reset) cb_quic_count_close(c->cells, false, e);
    if (c->stateless_reset) {
        cb_quic_core_finish(c, CB_ECLOSED, false, "stateless reset: the peer does not know the connection any more");
    } else if (e->type == NGTCP2_CCERR_TYPE_APPLICATION) {
        cb_quic_core_finish(c, e->error_code ? CB_ECLOSED : CB_OK, false,
                            "the peer closed the connection with application error 0x%llx%s%s",
                            (unsigned long long)e->error_code, sep, reason);
    } else if (e->error_code >= NGTCP2_CRYPTO_ERROR && e->error_code <= NGTCP2_CRYPTO_ERROR + 0xff) {
        const char *alert = gnutls_alert_get_name((gnutls_alert_description_t)(e->error_code & 0xff));
        c->why = CB_QUIC_WHY_RESULT;
        if (c->cells) cb_tls_count_alert(c->cells, false, (unsigned)(e->error_code & 0xff));
        cb_quic_core_finish(c, CB_ETLS, false, "the peer ended TLS with the alert \"%s\"%s%s",
                            alert ? alert : "unknown", sep, reason);
    } else {
        int rc = e->error_code == NGTCP2_NO_ERROR             ? CB_OK
                 : e->error_code == NGTCP2_CONNECTION_REFUSED ? CB_EUNREACH
                                                              : CB_EPROTO;
        if (rc < 0) c->why = rc == CB_EPROTO ? CB_QUIC_WHY_RESULT : CB_QUIC_WHY_REFUSED;
        cb_quic_core_finish(c, rc, false, "the peer closed the connection with %s%s%s",
                            transport_error_name(e->error_code), sep, reason);
    }
}

static void tls_failed(cb_quic_conn *c) {
    int rc = c->tls_rc < 0 ? cb_tls_session_fail(c->tls, c->tls_rc) : cb_fail(CB_ETLS, "TLS failed");
    if (c->cells) cb_tls_count_alert(c->cells, true, ngtcp2_conn_get_tls_alert(c->ng));
    ngtcp2_ccerr_set_tls_alert(&c->err, ngtcp2_conn_get_tls_alert(c->ng), NULL, 0);
    cb_quic_core_finish(c, rc, true, "%s", cb_last_error());
}

/* A server that names a version of ours in Version Negotiation gets it. That nobody forged the packet shows in the
 * handshake (RFC 9368, 4), for which ngtcp2 is told what was tried first. Early data has bound the application to this
 * attempt already. */
static bool try_other_version(cb_quic_conn *c) {
    const uint32_t version = c->other_version;
    if (!version || c->ready || !c->host->other_version) return false;
    if (c->host->other_version(c, version) == CB_OK) return true;
    cb_quic_core_finish(c, CB_ENOMEM, false, "%s", cb_last_error());
    return true;
}

/* What a result of ngtcp2 means for the connection. */
void cb_quic_core_failed(cb_quic_conn *c, int liberr) {
    switch (liberr) {
    case NGTCP2_ERR_DRAINING:
        peer_closed(c);
        return;
    case NGTCP2_ERR_CLOSING:
        return;
    case NGTCP2_ERR_IDLE_CLOSE:
        c->why = CB_QUIC_WHY_IDLE;
        cb_quic_core_finish(c, c->server ? CB_OK : CB_ETIMEOUT, false, "nothing came for %u ms",
                            (unsigned)c->opts->idle_timeout_ms);
        return;
    case NGTCP2_ERR_HANDSHAKE_TIMEOUT:
        c->why = CB_QUIC_WHY_SLOW;
        cb_quic_core_finish(c, CB_ETIMEOUT, false, "the QUIC handshake was not complete after %u ms",
                            (unsigned)c->opts->handshake_timeout_ms);
        return;
    case NGTCP2_ERR_RETRY:
    case NGTCP2_ERR_DROP_CONN:
        cb_quic_core_finish(c, CB_EPROTO, false, "not a usable first packet");
        return;
    case NGTCP2_ERR_RECV_VERSION_NEGOTIATION:
        cb_cells_add(c->cells, CB_C_QUIC_VERSIONS_NEGOTIATED_IN, 1);
        if (try_other_version(c)) return;
        c->why = CB_QUIC_WHY_VERSION;
        cb_quic_core_finish(c, CB_ENOTSUP, false, "the server does not speak the QUIC version that was tried (0x%x)",
                            (unsigned)ngtcp2_conn_get_client_chosen_version(c->ng));
        return;
    case NGTCP2_ERR_CRYPTO:
        tls_failed(c);
        return;
    case NGTCP2_ERR_NOMEM:
        cb_quic_core_finish(c, CB_ENOMEM, false, "no memory");
        return;
    default:
        break;
    }
    bool ours = liberr == NGTCP2_ERR_CALLBACK_FAILURE && c->app_rc < 0;
    if (!c->err_set) {
        if (ours)
            ngtcp2_ccerr_set_transport_error(&c->err, NGTCP2_INTERNAL_ERROR, NULL, 0);
        else
            ngtcp2_ccerr_set_liberr(&c->err, liberr, NULL, 0);
    }
    if (ours && c->app_rc != CB_EPROTO && c->app_rc != CB_ELIMIT) c->why = CB_QUIC_WHY_APPLICATION;
    if (ours)
        cb_quic_core_finish(c, c->app_rc, true, "%s", c->err_set && c->reason ? c->reason : cb_last_error());
    else
        cb_quic_core_finish(c, CB_EPROTO, true, "QUIC: %s", ngtcp2_strerror(liberr));
}

void cb_quic_core_last_packet(cb_quic_conn *c, uint8_t *buf, size_t cap, cb_time now, cb_quic_train *out) {
    ngtcp2_path_storage ps;
    ngtcp2_pkt_info pi = {0};
    out->len = 0;
    out->more = false;
    if (c->phase != CB_QUIC_CLOSING || !c->send_close) return;
    c->send_close = false;
    ngtcp2_path_storage_zero(&ps);
    if (cap > CB_QUIC_PACKET_MAX) cap = CB_QUIC_PACKET_MAX;
    ngtcp2_ssize n = ngtcp2_conn_write_connection_close(c->ng, &ps.path, &pi, buf, cap, &c->err, now);
    if (n <= 0) return;
    out->len = out->segment = (size_t)n;
    out->ecn = pi.ecn;
    out_path(out, &ps.path);
    c->tx_packets++;
    c->tx_bytes += (size_t)n;
    if (c->cells) cb_quic_count_written(c, UINT64_MAX, 1, (size_t)n, now);
    cb_quic_count_close(c->cells, true, &c->err);
}

void cb_quic_core_end(cb_quic_conn *c) {
    if (c->phase == CB_QUIC_ENDED) return;
    c->phase = CB_QUIC_ENDED;
    cb_quic_count_end(c);
    cb_quic_app *app = c->app;
    c->app = NULL;
    if (c->close_rc < 0) cb_fail(c->close_rc, "%s", c->detail ? c->detail : "the connection ended");
    if (app && app->ops->closed) app->ops->closed(app, c->close_rc);
}
