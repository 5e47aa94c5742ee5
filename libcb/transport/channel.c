#include "transport/channel.h"
#include "base/chain.h"
#include "base/error.h"
#include "base/mem.h"
#include "loop/turn.h"
#include "transport/proxy_header.h"
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    HANDSHAKE_S = 10,
    HIGH_WATER = 256 << 10,
    LOW_WATER = 64 << 10,
    WRITE_S = 60,
    LINGER_S = 2,
    LINGER_BYTES = 1 << 20, /* of what a peer sends after our end: read and dropped, so that no RST kills our answer */
    SLICES = 64
};

struct cb_channel {
    cb_loop *loop;
    const cb_channel_ops *ops;
    void *user;
    cb_watch *watch;
    cb_tls_session *tls;
    int fd;
    int close_rc;
    char *detail;     /* of close_rc */
    cb_chain out;     /* sealed bytes on their way */
    cb_buf kept;      /* clear text: what on_data did not take; before that, a part of the PROXY header */
    cb_alarm alarm;   /* handshake, then stalled output, then lingering: one after the other */
    cb_defer turn;    /* what is left for the end of the turn: opening, flushing, resuming, closing */
    cb_orphan orphan; /* between cb_channel_free(), or on_close after a failure, and the end */
    cb_grave grave;
    cb_addr peer, remote, local;
    cb_time write_timeout, began;
    size_t high_water, low_water;
    size_t lingered;
    bool proxy_due;    /* the PROXY header has not come yet */
    bool open;         /* on_open was called */
    bool open_due;     /* clear text: on_open is to be called */
    bool paused;       /* the owner takes no data */
    bool resume_due;   /* the owner resumed inside on_data */
    bool in_data;      /* inside on_data */
    bool delivered;    /* data or end came in this round: on_turn is due */
    bool above;        /* queued was above high_water */
    bool eof;          /* the peer's end of stream was reported */
    bool fin_seen;     /* recv() gave 0 */
    bool stalled;      /* the socket takes no more output */
    bool write_broken; /* the peer takes nothing any more, but what it sent can still be read */
    bool ended;        /* the owner sends no more; nothing is queued after that */
    bool half_closed;  /* and our FIN is out, but reading goes on */
    bool shutting;     /* the owner has ended the channel */
    bool lingering;    /* our FIN is out */
    bool closed;       /* no descriptor any more */
    bool notify_due;   /* on_close is to be called */
    bool notified;     /* on_close was called, or must not be */
    bool reset;        /* by the peer */
};

static const cb_channel_ops no_ops;

static void process(cb_channel *c, cb_slice data);

/* --- closing --- */

static void bury(cb_grave *grave) {
    cb_channel *c = CB_CONTAINER(grave, cb_channel, grave);
    const cb_alloc *alloc = cb_loop_alloc(c->loop);
    cb_tls_session_free(c->tls);
    cb_chain_free(&c->out);
    cb_buf_free(&c->kept);
    cb_mem_free(alloc, c->detail);
    cb_mem_free(alloc, c);
}

/* The owner will hear of the end when the turn ends; the detail is kept until then. */
static void notify_later(cb_channel *c, int rc) {
    if (c->notified || c->notify_due) return;
    c->notify_due = true;
    c->close_rc = rc;
    if (rc < 0) c->detail = cb_mem_text(cb_loop_alloc(c->loop), cb_last_error());
    cb_defer_later(&c->turn);
}

static void close_now(cb_channel *c, int rc);

static void cut(cb_orphan *orphan) {
    close_now(CB_CONTAINER(orphan, cb_channel, orphan), CB_ECLOSED);
}

static void notify(cb_channel *c) {
    c->notify_due = false;
    c->notified = true;
    if (c->close_rc < 0) cb_fail(c->close_rc, "%s", c->detail ? c->detail : "the connection ended");
    const cb_channel_ops *ops = c->ops;
    c->ops = &no_ops;
    if (!c->closed) cb_loop_adopt(c->loop, &c->orphan, cut); /* an alert lingers */
    if (ops->on_close) ops->on_close(c, c->close_rc, c->user);
}

static enum cb_cell_id why_closed(const cb_channel *c) {
    if (c->reset) return CB_C_TCP_CLOSED_RESET;
    switch (c->close_rc) {
    case CB_OK:
        return CB_C_TCP_CLOSED_CLOSED;
    case CB_ECLOSED:
        return CB_C_TCP_CLOSED_PEER;
    case CB_ETIMEOUT:
        return c->open ? CB_C_TCP_CLOSED_TIMEOUT : CB_C_TCP_CLOSED_HANDSHAKE_TIMEOUT;
    case CB_ETLS:
    case CB_EAUTH:
        return CB_C_TCP_CLOSED_TLS;
    case CB_EPROTO:
        return CB_C_TCP_CLOSED_PROTOCOL;
    default:
        return CB_C_TCP_CLOSED_OTHER;
    }
}

static void count_end(const cb_channel *c) {
    const cb_cells *cells = cb_loop_cells(c->loop);
    struct tcp_info info = {0};
    socklen_t len = sizeof info;
    if (!cells) return;
    cb_cells_move(cells, CB_C_TCP_CONNECTIONS, -1);
    cb_cells_add(cells, why_closed(c), 1);
    cb_cells_observe(cells, CB_C_TCP_LIFE, cb_loop_now(c->loop) - c->began);
    if (getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0) return; /* a unix socket */
    cb_cells_add(cells, CB_C_TCP_SENT_AGAIN, info.tcpi_total_retrans);
    if (info.tcpi_rtt) cb_cells_observe(cells, CB_C_TCP_RTT, (uint64_t)info.tcpi_rtt * 1000);
}

static void close_now(cb_channel *c, int rc) {
    if (c->closed) return;
    notify_later(c, rc);
    c->closed = true;
    count_end(c);
    cb_watch_free(c->watch);
    c->watch = NULL;
    close(c->fd);
    c->fd = -1;
    cb_alarm_stop(&c->alarm);
    cb_chain_free(&c->out);
    cb_defer_later(&c->turn);
}

static void update_watch(cb_channel *c) {
    if (c->closed) return;
    bool reading = c->lingering || (!c->fin_seen && (!c->paused || c->shutting));
    unsigned events = (reading ? CB_READABLE : 0U) | (c->stalled ? CB_WRITABLE : 0U);
    if (cb_watch_events(c->watch, events) < 0) close_now(c, CB_ESYS);
}

static void set_alarm(cb_channel *c, cb_time after) {
    if (cb_alarm_set(&c->alarm, cb_loop_now(c->loop) + after) < 0) close_now(c, CB_ENOMEM);
}

static void begin_linger(cb_channel *c) {
    if (c->fin_seen || c->write_broken || shutdown(c->fd, SHUT_WR) < 0) {
        close_now(c, CB_OK);
        return;
    }
    c->lingering = true;
    set_alarm(c, LINGER_S * CB_SEC);
    update_watch(c);
}

/* A fatal error of TLS or of the PROXY header: what is queued (an alert) still goes out, the owner hears at once. */
static void fail(cb_channel *c, int rc) {
    if (c->closed) return;
    notify_later(c, rc);
    c->shutting = true;
    cb_defer_later(&c->turn);
}

/* --- writing --- */

static void write_failed(cb_channel *c, int err) {
    c->stalled = false;
    c->reset = !c->shutting && (err == ECONNRESET || err == EPIPE);
    cb_chain_free(&c->out);
    if (c->shutting || c->fin_seen) {
        close_now(c, cb_fail(CB_ECLOSED, "the peer has closed the connection: %s", strerror(err)));
        return;
    }
    c->write_broken = true; /* its last words may still lie in the receive buffer */
    set_alarm(c, LINGER_S * CB_SEC);
    update_watch(c);
}

/* One piece needs no vector, which the kernel would have to fetch and check. */
static ssize_t send_slices(int fd, const cb_slice *v, size_t n) {
    enum { FLAGS = MSG_NOSIGNAL | MSG_DONTWAIT };
    struct iovec iov[SLICES];
    struct msghdr m = {.msg_iov = iov, .msg_iovlen = n};
    if (n == 1) return send(fd, v->base, v->len, FLAGS);
    for (size_t i = 0; i < n; i++)
        iov[i] = (struct iovec){(void *)(uintptr_t)v[i].base, v[i].len};
    return sendmsg(fd, &m, FLAGS);
}

static void flush(cb_channel *c) {
    bool moved = false;
    while (c->out.len > 0) {
        cb_slice v[SLICES];
        size_t n = cb_chain_peek(&c->out, v, SLICES), want = 0;
        for (size_t i = 0; i < n; i++)
            want += v[i].len;
        ssize_t sent = send_slices(c->fd, v, n);
        if (sent < 0 && errno == EINTR) continue;
        if (sent < 0 && errno != EAGAIN && errno != ENOBUFS) {
            write_failed(c, errno);
            return;
        }
        if (sent > 0) {
            moved = true;
            cb_cells_add(cb_loop_cells(c->loop), CB_C_TCP_BYTES_OUT, (uint64_t)sent);
            cb_chain_drop(&c->out, (size_t)sent);
        }
        if (sent < 0 || (size_t)sent < want) break; /* the socket is full: asking again would cost a call */
    }
    bool stalled = c->out.len > 0;
    if (!stalled) cb_chain_free(&c->out); /* an idle connection holds no chunk */
    if (c->open && (moved || !stalled) && cb_alarm_at(&c->alarm) != CB_NEVER) cb_alarm_stop(&c->alarm);
    if (c->open && stalled && cb_alarm_at(&c->alarm) == CB_NEVER) set_alarm(c, c->write_timeout);
    if (c->closed || stalled == c->stalled) return;
    c->stalled = stalled;
    if (stalled) cb_cells_add(cb_loop_cells(c->loop), CB_C_TCP_STALLS, 1);
    update_watch(c);
}

static int queue(void *user, const cb_slice *v, size_t n) {
    cb_channel *c = user;
    if (c->closed || c->write_broken) return cb_fail(CB_ECLOSED, "the connection is closed");
    if (c->ended) return CB_OK; /* an answer of TLS itself to a message that came after our close_notify */
    int rc = cb_chain_addv(&c->out, v, n);
    if (rc < 0) return rc;
    if (c->out.len >= c->high_water) c->above = true; /* cb_channel_room() is 0 now: a drain will follow */
    cb_defer_later(&c->turn);
    return CB_OK;
}

/* --- reading --- */

static int64_t take(cb_channel *c, cb_slice data) {
    if (c->closed) return CB_ECLOSED;
    if (c->shutting) return (int64_t)data.len; /* nobody wants it */
    if (c->paused) return 0;
    c->delivered = true;
    c->resume_due = false;
    c->in_data = true;
    int64_t took = c->ops->on_data ? c->ops->on_data(c, data, c->user) : (int64_t)data.len;
    c->in_data = false;
    if (c->closed) return CB_ECLOSED;
    if (took < 0) {
        close_now(c, (int)took);
        return took;
    }
    if ((size_t)took < data.len) {
        if (c->resume_due) cb_defer_later(&c->turn);
        c->paused = true;
    }
    return took;
}

static int64_t plain_in(void *user, cb_slice data) {
    return take(user, data);
}

static void peer_ended(cb_channel *c) {
    if (c->eof || c->closed) return;
    c->eof = true;
    c->delivered = true;
    if (!c->shutting && c->ops->on_eof) c->ops->on_eof(c, c->user);
}

static void tls_ended(void *user) {
    peer_ended(user);
}

static void opened(void *user) {
    cb_channel *c = user;
    if (c->closed || c->shutting) return;
    c->open = true;
    cb_alarm_stop(&c->alarm);
    if (c->ops->on_open) c->ops->on_open(c, c->user);
}

/* The header of a balancer in front of us; true when it has come whole, with `data` moved past it. */
static bool take_proxy_header(cb_channel *c, cb_slice *data) {
    cb_proxy_header header;
    size_t before = c->kept.len;
    size_t room = CB_PROXY_HEADER_MAX - before;
    size_t part = data->len < room ? data->len : room;
    int rc = cb_buf_add(&c->kept, data->base, part);
    if (rc < 0) {
        fail(c, rc);
        return false;
    }
    int64_t len = cb_proxy_header_read(&header, cb_buf_slice(&c->kept));
    const cb_cells *cells = cb_loop_cells(c->loop);
    if (len == CB_EAGAIN && c->kept.len < CB_PROXY_HEADER_MAX) return false;
    if (len < 0) {
        cb_cells_add(cells, CB_C_TCP_PROXY_HEADERS_BAD, 1);
        fail(c, (int)len);
        return false;
    }
    cb_cells_add(cells, header.named ? CB_C_TCP_PROXY_HEADERS_NAMED : CB_C_TCP_PROXY_HEADERS_UNNAMED, 1);
    c->proxy_due = false;
    if (header.named) c->remote = header.source;
    cb_buf_free(&c->kept);
    size_t used = (size_t)len - before; /* the header ended in this piece */
    data->base += used;
    data->len -= used;
    return true;
}

static void deliver_clear(cb_channel *c, cb_slice data) {
    int64_t took = take(c, data);
    if (took < 0 || (size_t)took == data.len) return;
    int rc = cb_buf_add(&c->kept, data.base + took, data.len - (size_t)took);
    if (rc < 0) close_now(c, rc);
}

static void end_round(cb_channel *c) {
    if (!c->delivered) return;
    c->delivered = false;
    if (!c->closed && !c->shutting && c->ops->on_turn) c->ops->on_turn(c, c->user);
}

static void process(cb_channel *c, cb_slice data) {
    if (c->shutting || c->closed) return;
    if (c->proxy_due) {
        if (!take_proxy_header(c, &data)) return;
        if (!c->tls) opened(c);
        if (data.len == 0) return;
    }
    if (c->tls) {
        int rc = cb_tls_stream_feed(c->tls, data);
        if (rc < 0 && !c->closed) fail(c, rc);
    } else {
        deliver_clear(c, data);
    }
    end_round(c);
}

/* The handshake waited for a signature. */
static void tls_signed(void *user) {
    cb_channel *c = user;
    if (c->shutting || c->closed) return;
    int rc = cb_tls_stream_signed(c->tls);
    if (rc < 0 && !c->closed) fail(c, rc);
    end_round(c);
    if (!c->closed) update_watch(c);
}

static void on_fin(cb_channel *c) {
    c->fin_seen = true;
    if (c->lingering || c->shutting) {
        if (c->out.len == 0) close_now(c, CB_OK);
    } else if (c->write_broken) {
        close_now(c, cb_fail(CB_ECLOSED, "the peer has closed the connection"));
    } else if (!c->open) {
        close_now(c, cb_fail(CB_ECLOSED, "the peer closed the connection before it was established"));
    } else if (c->tls && !c->eof) {
        close_now(c, cb_fail(CB_ECLOSED, "the peer closed the connection without TLS's close_notify"));
    } else {
        peer_ended(c);
        end_round(c);
    }
    if (!c->closed) update_watch(c);
}

static void drop_input(cb_channel *c, size_t n) {
    if (!c->lingering) return;
    c->lingered += n;
    if (c->lingered > LINGER_BYTES) close_now(c, CB_OK);
}

static void read_some(cb_channel *c) {
    size_t cap;
    uint8_t *scratch = cb_loop_scratch(c->loop, &cap);
    ssize_t n = recv(c->fd, scratch, cap, MSG_DONTWAIT);
    if (n < 0) {
        if (errno == EAGAIN || errno == EINTR) return;
        c->reset = !c->lingering && errno == ECONNRESET;
        int rc = cb_fail(CB_ECLOSED, "the connection broke: %s", strerror(errno));
        close_now(c, c->lingering ? CB_OK : rc);
        return;
    }
    cb_cells_add(cb_loop_cells(c->loop), CB_C_TCP_BYTES_IN, (uint64_t)n);
    if (n == 0) {
        on_fin(c);
    } else if (c->shutting) {
        drop_input(c, (size_t)n);
    } else {
        process(c, (cb_slice){scratch, (size_t)n});
        update_watch(c);
    }
}

static void on_event(cb_watch *w, unsigned events, void *user) {
    cb_channel *c = user;
    (void)w;
    if (events & CB_READABLE) read_some(c);
    if ((events & CB_WRITABLE) && !c->closed) cb_defer_later(&c->turn);
}

/* --- the end of a turn --- */

/* Nothing is left to send, and the owner has ended that direction only. */
static void half_close(cb_channel *c) {
    c->half_closed = true;
    if (shutdown(c->fd, SHUT_WR) < 0) write_failed(c, errno);
}

static void on_turn_end(cb_defer *defer) {
    cb_channel *c = CB_CONTAINER(defer, cb_channel, turn);
    if (c->open_due && !c->closed && !c->shutting) {
        c->open_due = false;
        opened(c);
    }
    if (c->resume_due && !c->closed) {
        c->resume_due = false;
        cb_channel_resume(c);
    }
    if (!c->closed && !c->lingering && !c->write_broken) flush(c);
    if (!c->closed && c->ended && !c->half_closed && !c->shutting && !c->write_broken && c->out.len == 0) half_close(c);
    if (!c->closed && c->above && c->out.len <= c->low_water) {
        c->above = false;
        if (!c->shutting && !c->write_broken && c->ops->on_drain) c->ops->on_drain(c, c->user);
    }
    if (!c->closed && c->shutting && !c->lingering && c->out.len == 0) begin_linger(c);
    if (c->notify_due) notify(c);
    if (c->closed && !c->notify_due) {
        cb_defer_cancel(&c->turn);
        cb_orphan_gone(&c->orphan);
        cb_loop_bury(c->loop, &c->grave, bury);
    }
}

static void on_alarm(cb_alarm *alarm, cb_time now) {
    cb_channel *c = CB_CONTAINER(alarm, cb_channel, alarm);
    (void)now;
    if (c->lingering) {
        close_now(c, CB_OK);
    } else if (c->write_broken) {
        close_now(c, cb_fail(CB_ECLOSED, "the peer takes no more data"));
    } else if (!c->open) {
        close_now(c, cb_fail(CB_ETIMEOUT, "the %s took too long",
                             c->proxy_due ? "PROXY header"
                             : c->tls     ? "TLS handshake"
                                          : "opening"));
    } else {
        close_now(c, cb_fail(CB_ETIMEOUT, "the peer took no data for %u s", (unsigned)(c->write_timeout / CB_SEC)));
    }
}

/* --- the owner's side --- */

static int prepare(cb_channel *c, const cb_channel_opts *o) {
    static const cb_tls_stream_ops stream_ops = {queue, plain_in, opened, tls_ended};
    const cb_alloc *alloc = cb_loop_alloc(c->loop);
    int rc = CB_OK;
    if (o->tls) {
        cb_tls_opts tls = *o->tls;
        tls.loop = c->loop;
        rc = cb_tls_session_new(&c->tls, alloc, &tls);
    }
    if (c->tls && !cb_loop_is_virtual(c->loop)) cb_tls_session_on_signed(c->tls, c->loop, tls_signed, c);
    if (rc >= 0) rc = cb_watch_new(&c->watch, c->loop, c->fd, CB_READABLE, on_event, c);
    if (rc >= 0 && c->tls) rc = cb_tls_stream_attach(c->tls, &stream_ops, c);
    if (rc >= 0 && (c->tls || c->proxy_due)) {
        cb_time limit = o->handshake_timeout ? o->handshake_timeout : HANDSHAKE_S * CB_SEC;
        rc = cb_alarm_set(&c->alarm, cb_loop_now(c->loop) + limit);
    }
    if (rc >= 0 && c->tls) rc = cb_tls_stream_start(c->tls);
    return rc;
}

int cb_channel_new(cb_channel **out, cb_loop *loop, int fd, const cb_addr *remote, const cb_channel_opts *opts) {
    const cb_alloc *alloc = cb_loop_alloc(loop);
    cb_channel *c = cb_mem_new(alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for a connection");
    c->loop = loop;
    c->fd = fd;
    c->began = cb_loop_now(loop);
    c->ops = opts->ops ? opts->ops : &no_ops;
    c->user = opts->user;
    if (remote) c->peer = c->remote = *remote;
    c->high_water = opts->high_water ? opts->high_water : HIGH_WATER;
    c->low_water = opts->low_water ? opts->low_water : LOW_WATER;
    c->write_timeout = opts->write_timeout ? opts->write_timeout : WRITE_S * CB_SEC;
    c->proxy_due = opts->accept_proxy_header;
    cb_chain_init(&c->out, alloc);
    cb_buf_init(&c->kept, alloc, SIZE_MAX);
    cb_alarm_init(&c->alarm, loop, on_alarm);
    cb_defer_init(&c->turn, loop, on_turn_end);
    int rc = prepare(c, opts);
    if (rc < 0) {
        cb_defer_cancel(&c->turn);
        cb_alarm_stop(&c->alarm);
        cb_watch_free(c->watch);
        bury(&c->grave);
        return rc;
    }
    if (!c->tls && !c->proxy_due) {
        c->open_due = true;
        cb_defer_later(&c->turn);
    }
    cb_cells_move(cb_loop_cells(loop), CB_C_TCP_CONNECTIONS, 1);
    *out = c;
    return CB_OK;
}

int cb_channel_write(cb_channel *c, const cb_slice *v, size_t n) {
    if (c->closed || c->shutting || c->write_broken) return cb_fail(CB_ECLOSED, "the connection is closed");
    if (c->ended) return cb_fail(CB_ECLOSED, "the output of the connection was ended");
    return c->tls ? cb_tls_stream_write(c->tls, v, n) : queue(c, v, n);
}

size_t cb_channel_room(const cb_channel *c) {
    return c->out.len < c->high_water ? c->high_water - c->out.len : 0;
}

size_t cb_channel_queued(const cb_channel *c) {
    return c->out.len;
}

void cb_channel_resume(cb_channel *c) {
    if (c->in_data) {
        c->resume_due = true;
        return;
    }
    if (!c->paused || c->closed || c->shutting) return;
    c->paused = false;
    if (c->tls) {
        int rc = cb_tls_stream_resume(c->tls);
        if (rc < 0 && !c->closed) fail(c, rc);
    } else if (c->kept.len > 0) {
        cb_slice kept = cb_buf_slice(&c->kept);
        int64_t took = take(c, kept);
        if (took > 0) cb_buf_drop(&c->kept, (size_t)took);
        if (c->kept.len == 0) cb_buf_free(&c->kept);
    }
    end_round(c);
    update_watch(c);
}

void cb_channel_pause(cb_channel *c) {
    c->resume_due = false;
    if (c->paused || c->closed) return;
    c->paused = true;
    update_watch(c);
}

void cb_channel_shutdown(cb_channel *c) {
    if (c->closed || c->shutting) return;
    c->shutting = true;
    if (!c->open) {
        close_now(c, CB_OK);
        return;
    }
    if (c->tls && !c->ended) (void)cb_tls_stream_bye(c->tls);
    update_watch(c);
    cb_defer_later(&c->turn);
}

void cb_channel_end_output(cb_channel *c) {
    if (c->closed || c->shutting || c->ended) return;
    if (!c->open) {
        cb_channel_shutdown(c); /* nobody is there to go on reading from */
        return;
    }
    if (c->tls) (void)cb_tls_stream_bye(c->tls);
    c->ended = true;
    cb_defer_later(&c->turn);
}

void cb_channel_abort(cb_channel *c, int rc) {
    if (c->closed) return;
    if (rc < 0 && !c->tls) {
        /* Without TLS only a reset tells the peer that what it got is not all. */
        struct linger reset = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    close_now(c, rc);
}

void cb_channel_free(cb_channel *c) {
    if (!c) return;
    c->ops = &no_ops;
    cb_channel_shutdown(c);
    if (!c->closed) cb_loop_adopt(c->loop, &c->orphan, cut);
}

const cb_addr *cb_channel_remote(const cb_channel *c) {
    return &c->remote;
}

const cb_addr *cb_channel_peer(const cb_channel *c) {
    return &c->peer;
}

const cb_addr *cb_channel_local(const cb_channel *c) {
    cb_channel *mutable_c = (cb_channel *)(uintptr_t)c; /* looked up when somebody asks first */
    socklen_t len = sizeof c->local;
    if (c->local.sa.sa_family == 0 && c->fd >= 0) (void)getsockname(c->fd, &mutable_c->local.sa, &len);
    return &c->local;
}

cb_tls_session *cb_channel_tls(const cb_channel *c) {
    return c->tls;
}

int cb_channel_fd(const cb_channel *c) {
    return c->fd;
}

void cb_channel_set_user(cb_channel *c, const cb_channel_ops *ops, void *user) {
    if (c->notified) return;
    c->ops = ops ? ops : &no_ops;
    c->user = user;
}
