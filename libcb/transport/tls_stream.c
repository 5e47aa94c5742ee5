/* TLS over a byte stream: GnuTLS pulls from the slice that is being fed and pushes into the owner's queue, so that one
 * recv() may bring many records and one writev() may take many. */
#include "base/error.h"
#include "base/mem.h"
#include "transport/tls_session_int.h"
#include <errno.h>
#include <string.h>

enum { RECORD = 16384, PUSH_SLICES = 32, WAIT_BYTES = 65536 };

static ssize_t pull(gnutls_transport_ptr_t ptr, void *to, size_t cap) {
    cb_tls_session *s = ptr;
    if (s->in.len == 0) {
        gnutls_transport_set_errno(s->gnutls, EAGAIN);
        return -1;
    }
    size_t n = s->in.len < cap ? s->in.len : cap;
    memcpy(to, s->in.base, n);
    s->in.base += n;
    s->in.len -= n;
    return (ssize_t)n;
}

static ssize_t push(gnutls_transport_ptr_t ptr, const giovec_t *iov, int count) {
    cb_tls_session *s = ptr;
    cb_slice v[PUSH_SLICES];
    size_t total = 0;
    for (int done = 0; done < count;) {
        size_t n = 0;
        for (; n < PUSH_SLICES && done < count; n++, done++) {
            v[n] = (cb_slice){iov[done].iov_base, iov[done].iov_len};
            total += v[n].len;
        }
        s->push_rc = s->ops->cipher_out(s->ops_user, v, n);
        if (s->push_rc < 0) {
            gnutls_transport_set_errno(s->gnutls, EIO);
            return -1;
        }
    }
    return (ssize_t)total;
}

/* A fatal end: tells the peer, and the owner in words. */
static int fail(cb_tls_session *s, int gnutls_rc) {
    s->alive = false;
    if (s->push_rc < 0) return s->push_rc;
    cb_tls_count_sent_alert(s, gnutls_rc);
    if (s->alert >= 0) {
        (void)gnutls_alert_send(s->gnutls, GNUTLS_AL_FATAL, (gnutls_alert_description_t)s->alert);
    } else {
        (void)gnutls_alert_send_appropriate(s->gnutls, gnutls_rc);
    }
    return cb_tls_session_fail(s, gnutls_rc);
}

static bool again(int gnutls_rc) {
    return gnutls_rc == GNUTLS_E_AGAIN || gnutls_rc == GNUTLS_E_INTERRUPTED;
}

static int handshake(cb_tls_session *s) {
    int rc;
    do {
        rc = cb_tls_session_handshake(s);
    } while (rc < 0 && !gnutls_error_is_fatal(rc) && s->in.len > 0 && !(s->wait && cb_tls_session_waits(s)));
    if (rc < 0 && !gnutls_error_is_fatal(rc)) return CB_OK; /* more is needed */
    if (rc < 0) return fail(s, rc);
    s->opened = true;
    rc = cb_tls_session_send_tickets(s);
    if (rc < 0) return fail(s, GNUTLS_E_INTERNAL_ERROR);
    if (!s->server && gnutls_protocol_get_version(s->gnutls) != GNUTLS_TLS1_3) cb_tls_session_keep(s);
    if (s->ops->open) s->ops->open(s->ops_user);
    return CB_OK;
}

static void drop_packet(cb_tls_session *s) {
    if (s->packet) gnutls_packet_deinit(s->packet);
    s->packet = NULL;
    s->packet_off = 0;
}

/* Hands the current record to the reader; pauses when it does not take it whole. */
static int deliver(cb_tls_session *s) {
    gnutls_datum_t data;
    gnutls_packet_get(s->packet, &data, NULL);
    cb_slice rest = {data.data + s->packet_off, data.size - s->packet_off};
    int64_t took = s->ops->plain_in(s->ops_user, rest);
    if (took < 0) {
        s->alive = false;
        drop_packet(s);
        return (int)took;
    }
    if ((size_t)took >= rest.len) {
        drop_packet(s);
    } else {
        s->packet_off += (size_t)took;
        s->paused = true;
    }
    return CB_OK;
}

static int receive(cb_tls_session *s) {
    while (s->alive && !s->paused && !s->eof) {
        gnutls_packet_t packet = NULL;
        ssize_t n = gnutls_record_recv_packet(s->gnutls, &packet);
        int rc = CB_OK;
        if (n > 0) {
            s->packet = packet;
            rc = deliver(s);
        } else if (n == 0) {
            if (packet) gnutls_packet_deinit(packet);
            s->eof = true;
            s->in.len = 0; /* RFC 8446, 6.1: what follows close_notify is ignored */
            if (s->ops->eof) s->ops->eof(s->ops_user);
        } else if (again((int)n) || n == GNUTLS_E_WARNING_ALERT_RECEIVED) {
            if (s->in.len == 0) break; /* else it was a message of TLS itself, and more follows */
        } else {
            rc = fail(s, (int)n);
        }
        if (rc < 0) return rc;
    }
    return CB_OK;
}

static int run(cb_tls_session *s) {
    s->running = true;
    int rc = s->opened ? CB_OK : handshake(s);
    if (rc >= 0 && s->opened) rc = receive(s);
    s->running = false;
    return rc;
}

int cb_tls_stream_attach(cb_tls_session *s, const cb_tls_stream_ops *ops, void *user) {
    s->ops = ops;
    s->ops_user = user;
    gnutls_transport_set_ptr(s->gnutls, s);
    gnutls_transport_set_pull_function(s->gnutls, pull);
    gnutls_transport_set_vec_push_function(s->gnutls, push);
    return CB_OK;
}

int cb_tls_stream_start(cb_tls_session *s) {
    return s->server ? CB_OK : run(s);
}

/* What comes while a signature is waited for. */
static int keep_waiting(cb_tls_session *s, cb_slice cipher) {
    if (s->kept.len + cipher.len > WAIT_BYTES) {
        return cb_fail(CB_ELIMIT, "the peer sends on and on before TLS has answered");
    }
    return cb_buf_add(&s->kept, cipher.base, cipher.len);
}

int cb_tls_stream_feed(cb_tls_session *s, cb_slice cipher) {
    if (!s->alive) return cb_fail(CB_ECLOSED, "the TLS session has ended");
    if (s->eof || cipher.len == 0) return CB_OK;
    if (s->wait && cb_tls_session_waits(s)) return keep_waiting(s, cipher);
    if (s->paused || s->kept.len > 0) return cb_buf_add(&s->kept, cipher.base, cipher.len);
    s->in = cipher;
    int rc = run(s);
    if (rc >= 0 && s->in.len > 0) rc = cb_buf_add(&s->kept, s->in.base, s->in.len);
    s->in = (cb_slice){NULL, 0};
    return rc;
}

/* Takes up what was kept. */
static int run_kept(cb_tls_session *s) {
    s->in = cb_buf_slice(&s->kept);
    int rc = run(s);
    if (s->in.len > 0) {
        cb_buf_drop(&s->kept, s->kept.len - s->in.len);
    } else {
        cb_buf_free(&s->kept);
    }
    s->in = (cb_slice){NULL, 0};
    return rc;
}

int cb_tls_stream_resume(cb_tls_session *s) {
    if (!s->alive) return cb_fail(CB_ECLOSED, "the TLS session has ended");
    if (!s->paused || s->running) return CB_OK;
    s->paused = false;
    s->running = true;
    int rc = s->packet ? deliver(s) : CB_OK;
    s->running = false;
    return rc < 0 || s->paused ? rc : run_kept(s);
}

int cb_tls_stream_signed(cb_tls_session *s) {
    return !s->alive || s->opened || s->running ? CB_OK : run_kept(s);
}

static int seal(cb_tls_session *s, const uint8_t *data, size_t len) {
    while (len > 0) {
        ssize_t n = gnutls_record_send(s->gnutls, data, len < RECORD ? len : RECORD);
        if (again((int)n)) continue; /* the owner takes all, so this is a signal's doing at most */
        if (n <= 0) return fail(s, n == 0 ? GNUTLS_E_INTERNAL_ERROR : (int)n);
        data += n;
        len -= (size_t)n;
    }
    return CB_OK;
}

/* Small pieces share a record; what fills records by itself is sealed where it lies. */
int cb_tls_stream_write(cb_tls_session *s, const cb_slice *v, size_t n) {
    uint8_t joined[RECORD];
    size_t used = 0;
    int rc = CB_OK;
    if (!s->alive) return cb_fail(CB_ECLOSED, "the TLS session has ended");
    if (!s->opened) return cb_fail(CB_EAGAIN, "the TLS handshake is not complete");
    for (size_t i = 0; i < n && rc >= 0; i++) {
        cb_slice in = v[i];
        if (used == 0 && i + 1 == n) return seal(s, in.base, in.len);
        while (in.len > 0 && rc >= 0) {
            size_t part = RECORD - used;
            if (used == 0 && in.len >= RECORD) {
                part = RECORD;
                rc = seal(s, in.base, part);
            } else {
                if (part > in.len) part = in.len;
                memcpy(joined + used, in.base, part);
                used += part;
            }
            in.base += part;
            in.len -= part;
            if (used == RECORD && rc >= 0) {
                rc = seal(s, joined, used);
                used = 0;
            }
        }
    }
    return rc >= 0 && used ? seal(s, joined, used) : rc;
}

int cb_tls_stream_bye(cb_tls_session *s) {
    if (!s->alive || !s->opened) return CB_OK;
    int rc = gnutls_bye(s->gnutls, GNUTLS_SHUT_WR);
    return rc < 0 && !again(rc) ? fail(s, rc) : CB_OK;
}

static int to_nobody(void *user, const cb_slice *v, size_t n) {
    (void)user;
    (void)v;
    (void)n;
    return CB_ECLOSED;
}

void cb_tls_stream_let_go(cb_tls_session *s) {
    static const cb_tls_stream_ops nobody = {.cipher_out = to_nobody};
    s->ops = &nobody;
}

void cb_tls_stream_clear(cb_tls_session *s) {
    drop_packet(s);
    cb_buf_free(&s->kept);
}
