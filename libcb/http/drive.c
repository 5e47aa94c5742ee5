#include "http/drive.h"
#include "base/error.h"

enum { H3_NO_ERROR = 0x100, H3_INTERNAL_ERROR = 0x102 }; /* RFC 9114, 8.1 */

static void end_now(cb_drive *d, int rc);

static void enter(cb_drive *d) {
    d->busy++;
}

/* False: it has ended meanwhile. */
static bool leave(cb_drive *d) {
    if (--d->busy == 0 && d->dead) {
        d->dead = false;
        end_now(d, d->dead_rc);
    }
    return !d->ending && !d->over;
}

/* ---- the turn ---- */

static void on_fire(cb_alarm *a, cb_time now) {
    cb_drive *d = CB_CONTAINER(a, cb_drive, alarm);
    cb_hconn *h = d->h;
    if (!h) {
        end_now(d, cb_fail(CB_ETIMEOUT, "nothing came in time"));
        return;
    }
    cb_time due = h->vt->deadline(h);
    if (due > now) {
        if (due != CB_NEVER) cb_alarm_set(&d->alarm, due);
        return;
    }
    enter(d);
    int rc = h->vt->expire(h, now);
    if (!leave(d)) return;
    if (rc < 0)
        end_now(d, rc);
    else
        cb_drive_flush(d);
}

static void on_defer(cb_defer *defer) {
    cb_drive_flush(CB_CONTAINER(defer, cb_drive, defer));
}

/* Delivering ends in a flush, which comes here again: framing that still waits says by cb_drive_on_wake() when it no
 * longer does. */
static void take_up_input(cb_drive *d) {
    if (!d->waits || d->resuming) return;
    d->waits = false;
    d->resuming = true;
    cb_channel_resume(d->ch);
    d->resuming = false;
}

void cb_drive_flush(cb_drive *d) {
    cb_hconn *h = d->h;
    cb_defer_cancel(&d->defer);
    if (!h || d->busy || d->ending) return;
    enter(d);
    int rc = h->vt->flush(h, cb_loop_now(d->loop));
    if (!leave(d)) return;
    if (rc < 0 || h->vt->done(h)) {
        end_now(d, rc < 0 ? rc : CB_OK);
        return;
    }
    cb_time due = h->vt->deadline(h);
    if (due < cb_alarm_at(&d->alarm)) cb_alarm_set(&d->alarm, due);
    take_up_input(d);
}

void cb_drive_later(cb_drive *d) {
    if (d->h && !d->ending) cb_defer_later(&d->defer);
}

void cb_drive_run(cb_drive *d, cb_hconn *h) {
    d->h = h;
    cb_alarm_stop(&d->alarm); /* of the time before */
    cb_drive_later(d);        /* HTTP/2: SETTINGS go first */
}

/* ---- the end ---- */

static void drop_framing(cb_drive *d, int rc, bool closed) {
    cb_hconn *h = d->h;
    cb_defer_cancel(&d->defer);
    cb_alarm_stop(&d->alarm);
    if (!h) return;
    d->h = NULL;
    if (!closed) h->vt->closed(h, rc);
    h->vt->free(h);
}

static void note_end(cb_drive *d, int rc) {
    if (d->ending) return;
    d->ending = true;
    if (d->ops->ended) d->ops->ended(d, rc);
}

static void all_over(cb_drive *d) {
    if (d->over) return;
    d->over = true;
    cb_defer_cancel(&d->defer);
    cb_alarm_stop(&d->alarm);
    d->ops->gone(d);
}

static void end_tcp(cb_drive *d, int rc) {
    const bool first = !d->ending;
    if (first) {
        note_end(d, rc);
        drop_framing(d, rc < 0 ? rc : CB_ECLOSED, false);
    }
    if (!d->ch) return; /* ended by a callback of the above */
    if (d->forget) {
        cb_channel_abort(d->ch, CB_ECLOSED); /* by itself, a forgotten channel would linger */
        cb_channel_free(d->ch);
        d->ch = NULL;
        all_over(d);
    } else if (first) {
        cb_channel_shutdown(d->ch);
        take_up_input(d); /* to be thrown away */
    }
}

/* Framing lives until QUIC says that it is over: cb_drive_on_gone(). */
static void end_quic(cb_drive *d, int rc) {
    if (d->ending) return;
    note_end(d, rc);
    cb_defer_cancel(&d->defer);
    cb_alarm_stop(&d->alarm);
    cb_quic_conn_close(d->qc, rc == CB_OK || rc == CB_ECLOSED ? H3_NO_ERROR : H3_INTERNAL_ERROR, "");
}

static void end_now(cb_drive *d, int rc) {
    if (d->over) return;
    if (d->qc)
        end_quic(d, rc);
    else
        end_tcp(d, rc);
}

void cb_drive_end(cb_drive *d, int rc, bool forget) {
    d->forget |= forget;
    if (!d->busy) {
        end_now(d, rc);
        return;
    }
    d->dead = true;
    d->dead_rc = rc;
}

/* ---- the channel ---- */

static size_t sink_room(cb_sink *s) {
    return cb_channel_room(CB_CONTAINER(s, cb_drive, sink)->ch);
}

static int sink_write(cb_sink *s, const cb_slice *v, size_t n) {
    return cb_channel_write(CB_CONTAINER(s, cb_drive, sink)->ch, v, n);
}

static void sink_shut(cb_sink *s) {
    cb_channel_end_output(CB_CONTAINER(s, cb_drive, sink)->ch);
}

static void on_open(cb_channel *ch, void *user) {
    (void)ch;
    cb_drive *d = user;
    if (!d->ending) d->ops->open(d);
}

static int64_t feed(cb_drive *d, cb_slice data) {
    cb_hconn *h = d->h;
    enter(d);
    int64_t n = h->vt->feed(h, data, cb_loop_now(d->loop));
    if (!leave(d)) return (int64_t)data.len;
    if (n >= 0) return n;
    end_now(d, (int)n);
    return (int64_t)data.len;
}

/* The first bytes tell which framing it will be. */
static void take_first(cb_drive *d, cb_slice *data) {
    while (d->n_kept < sizeof d->kept && data->len) {
        d->kept[d->n_kept++] = *data->base++;
        data->len--;
    }
    const cb_slice kept = {d->kept, d->n_kept};
    int rc = d->ops->first ? d->ops->first(d, kept) : cb_fail(CB_EPROTO, "the peer speaks before it is asked");
    if (rc == CB_EAGAIN && d->n_kept == sizeof d->kept) rc = cb_fail(CB_EPROTO, "the first bytes are no HTTP");
    if (rc < 0 && rc != CB_EAGAIN)
        end_now(d, rc);
    else if (d->h)
        feed(d, kept); /* never pauses framing: it is less than a request line or a preface */
}

static int64_t on_data(cb_channel *ch, cb_slice data, void *user) {
    (void)ch;
    cb_drive *d = user;
    const int64_t all = (int64_t)data.len;
    if (!d->h && !d->ending) take_first(d, &data);
    if (d->ending || !d->h || data.len == 0) return all;
    int64_t n = feed(d, data);
    if (d->ending || n >= (int64_t)data.len) return all;
    d->waits = true;
    return all - (int64_t)data.len + n;
}

static void on_turn(cb_channel *ch, void *user) {
    (void)ch;
    cb_drive_flush(user);
}

static void on_eof(cb_channel *ch, void *user) {
    (void)ch;
    cb_drive *d = user;
    cb_hconn *h = d->h;
    if (d->ending) return;
    if (!h) {
        end_now(d, CB_OK);
        return;
    }
    enter(d);
    int rc = h->vt->eof(h, cb_loop_now(d->loop));
    if (!leave(d)) return;
    if (rc < 0)
        end_now(d, rc);
    else
        cb_drive_flush(d);
}

static void on_drain(cb_channel *ch, void *user) {
    (void)ch;
    cb_drive_flush(user);
}

static void on_close(cb_channel *ch, int rc, void *user) {
    cb_drive *d = user;
    if (!d->ending) {
        note_end(d, rc);
        drop_framing(d, rc < 0 ? rc : CB_ECLOSED, false);
    }
    if (d->ch) cb_channel_free(ch);
    d->ch = NULL;
    all_over(d);
}

const cb_channel_ops cb_drive_channel_ops = {.on_open = on_open,
                                             .on_data = on_data,
                                             .on_turn = on_turn,
                                             .on_eof = on_eof,
                                             .on_drain = on_drain,
                                             .on_close = on_close};

void cb_drive_init(cb_drive *d, cb_loop *loop, const cb_drive_ops *ops) {
    d->loop = loop;
    d->ops = ops;
    d->sink = (cb_sink){.room = sink_room, .write = sink_write, .shut = sink_shut};
    cb_defer_init(&d->defer, loop, on_defer);
    cb_alarm_init(&d->alarm, loop, on_fire);
}

/* ---- framing ---- */

/* HTTP/1 has one message for its peer; the streams of the others fill packets and records together. */
void cb_drive_on_wake(cb_hconn *h) {
    cb_drive *d = h->env.owner_user;
    if (h->vt->version == CB_HTTP_1)
        cb_drive_later(d);
    else if (d->h && !d->ending)
        cb_defer_idle(&d->defer);
}

void cb_drive_on_gone(cb_hconn *h, int rc) {
    cb_drive *d = h->env.owner_user;
    note_end(d, rc);
    drop_framing(d, rc, true);
    d->qc = NULL;
    all_over(d);
}
