/* HTTP/1.1 as a connection: what comes in, when it may be parsed, deadlines, and the end. */
#include "base/error.h"
#include "base/mem.h"
#include "http/h1_int.h"
#include <string.h>

void h1_wake(h1_conn *c) {
    if (c->depth || c->gone) return;
    if (c->h.env.owner && c->h.env.owner->wake) c->h.env.owner->wake(&c->h);
}

void h1_limit(h1_conn *c, const char *what) {
    if (c->h.env.owner && c->h.env.owner->limit) c->h.env.owner->limit(&c->h, what);
}

void h1_settle(h1_conn *c) {
    if (!c->x || c->mode != H1_OUT_DONE || (c->in != H1_IN_END && c->in != H1_IN_DISCARD)) return;
    cb_exchange_closed(c->x, CB_OK);
}

/* ---- tunnels ---- */

static int on_capsule_datagram(void *user, cb_slice payload) {
    h1_conn *c = user;
    return c->x ? cb_exchange_in_datagram(c->x, payload) : CB_ECLOSED;
}

static int on_capsule_other(void *user, cb_slice bytes) {
    h1_conn *c = user;
    return c->x ? cb_exchange_in_body(c->x, bytes) : CB_ECLOSED;
}

int h1_begin_tunnel(h1_conn *c) {
    c->in = H1_IN_TUNNEL;
    c->mode = H1_OUT_TUNNEL;
    c->close_after = true;
    return CB_OK;
}

/* RFC 9297, 3.4: the field says that the stream consists of capsules. Somebody must want the datagrams. */
static bool carries_capsules(const cb_exchange *x) {
    cb_slice v = cb_exchange_field(x, "capsule-protocol");
    return x->ops->on_datagram && v.len >= 2 && v.base[0] == '?' && v.base[1] == '1' &&
           (v.len == 2 || v.base[2] == ';');
}

static int tunnel_in(h1_conn *c, cb_slice bytes) {
    static const cb_capsule_ops ops = {on_capsule_datagram, on_capsule_other};
    if (!c->capsules && !carries_capsules(c->x)) return cb_exchange_in_body(c->x, bytes);
    if (!c->capsules) {
        c->capsules = cb_mem_new(c->h.env.alloc, sizeof *c->capsules);
        if (!c->capsules) return cb_fail(CB_ENOMEM, "no memory for reading capsules");
        cb_capsules_init(c->capsules, c->h.env.alloc, &ops, c);
    }
    return cb_capsules_feed(c->capsules, bytes);
}

/* ---- refusing ---- */

/* A server answers and closes; what still comes is thrown away. */
static int refuse(h1_conn *c, int rc, int status) {
    if (c->closing) return CB_OK;
    if (!c->h.env.server) {
        c->closing = true;
        return rc;
    }
    c->close_after = true;
    c->in = H1_IN_DISCARD;
    if (!c->x) {
        int made = cb_hconn_exchange(&c->h, &c->x);
        if (made < 0) return made;
        c->mode = H1_OUT_NONE;
    }
    cb_exchange_fail_status(c->x, status);
    return CB_OK;
}

/* Why llhttp stopped, and what that means to a peer. */
static int parser_error(h1_conn *c, llhttp_errno_t e, const uint8_t *pos) {
    int status = 400;
    switch (e) {
    case HPE_INVALID_METHOD: /* well-formed: not implemented */
        if (pos && cb_token_lower[*pos]) status = 501;
        break;
    case HPE_INVALID_VERSION: /* well-formed and another one, or malformed */
        if (!strcmp(llhttp_get_error_reason(&c->parser), "Invalid HTTP version")) status = 505;
        break;
    default:
        break;
    }
    const char *why = llhttp_get_error_reason(&c->parser);
    int rc = cb_fail(CB_EPROTO, "malformed HTTP/1.1: %s", why && *why ? why : llhttp_errno_name(e));
    return refuse(c, rc, status);
}

/* ---- input ---- */

/* llhttp takes several spaces in the request line, and other protocols' names: look for ourselves. */
static void scan_line(h1_conn *c, cb_slice in) {
    for (size_t i = 0; i < in.len; i++) {
        uint8_t b = in.base[i];
        if (!c->line_len && (b == '\r' || b == '\n')) continue;
        c->line_len++;
        if (b == '\n') {
            c->line_done = true;
            return;
        }
        if (b == ' ')
            c->line_spaces++;
        else if (c->line_spaces == 2 && c->line_proto_len < sizeof c->line_proto)
            c->line_proto[c->line_proto_len++] = (char)b;
    }
}

/* Gives bytes to the parser; returns how many it took, or < 0. */
static int64_t parse(h1_conn *c, cb_slice in) {
    if (c->upgrade_paused)
        llhttp_resume_after_upgrade(&c->parser);
    else if (c->paused)
        llhttp_resume(&c->parser);
    c->paused = c->upgrade_paused = false;
    c->err = CB_OK;
    if (!c->line_done && c->h.env.server && (c->in == H1_IN_IDLE || c->in == H1_IN_HEAD)) scan_line(c, in);
    llhttp_errno_t e = llhttp_execute(&c->parser, (const char *)in.base, in.len);
    if (e == HPE_OK) return (int64_t)in.len;
    const uint8_t *pos = (const uint8_t *)llhttp_get_error_pos(&c->parser);
    c->paused = e == HPE_PAUSED;
    c->upgrade_paused = e == HPE_PAUSED_UPGRADE;
    if (c->paused || c->upgrade_paused) return pos - in.base;
    int rc = CB_OK;
    if (c->err == CB_ECLOSED)
        c->closing |= !c->x; /* the exchange was reset, or answered before its body */
    else if (c->err)
        rc = refuse(c, c->err, c->err_status);
    else
        rc = parser_error(c, e, pos);
    if (c->x && c->in != H1_IN_DISCARD && rc == CB_OK) c->in = H1_IN_DISCARD;
    return rc < 0 ? rc : (int64_t)in.len;
}

/* May the next byte be looked at now? */
static bool may_parse(const h1_conn *c) {
    switch (c->in) {
    case H1_IN_WAIT:
    case H1_IN_END:
        return false;
    case H1_IN_BODY:
    case H1_IN_TUNNEL:
        return !c->x || !cb_exchange_in_blocked(c->x);
    default:
        return true;
    }
}

static int64_t feed_some(h1_conn *c, cb_slice in) {
    if (in.len > H1_PIECE) in.len = H1_PIECE;
    if (c->closing || c->in == H1_IN_DISCARD) return (int64_t)in.len;
    if (c->in == H1_IN_TUNNEL) {
        if (!c->x) return (int64_t)in.len;
        if (in.len > c->x->held_max) in.len = c->x->held_max;
        int rc = tunnel_in(c, in);
        if (rc < 0 && rc != CB_ECLOSED) cb_exchange_abort(c->x, rc);
        return (int64_t)in.len;
    }
    if (!c->h.env.server && !c->x) return cb_fail(CB_EPROTO, "bytes came that nobody asked for");
    if (c->in == H1_IN_BODY && c->x && in.len > c->x->held_max) in.len = c->x->held_max;
    if (!c->head_begun && (c->in == H1_IN_IDLE || c->in == H1_IN_HEAD)) {
        c->head_begun = true;
        c->head_from = c->now;
    }
    int64_t n = parse(c, in);
    if (c->in != H1_IN_IDLE && c->in != H1_IN_HEAD) c->head_begun = false;
    return n;
}

/* The user wants the body (on_head returned without a final answer) and none of it has come by itself. */
static int continue_if_due(h1_conn *c) {
    if (!c->expect || !c->x || c->in != H1_IN_BODY) return CB_OK;
    if (c->x->in_bytes) {
        c->expect = false;
        return CB_OK;
    }
    return c->x->head_out ? CB_OK : h1_send_continue(c);
}

static int64_t h1_feed(cb_hconn *h, cb_slice in, cb_time now) {
    h1_conn *c = h1_of(h);
    size_t used = 0;
    int rc = CB_OK;
    c->now = now;
    c->depth++;
    while (used < in.len && (c->closing || may_parse(c))) {
        int64_t n = feed_some(c, (cb_slice){in.base + used, in.len - used});
        if (n < 0) {
            rc = (int)n;
            break;
        }
        used += (size_t)n;
    }
    if (rc == CB_OK) rc = continue_if_due(c);
    c->depth--;
    return rc < 0 ? rc : (int64_t)used;
}

static int client_eof(h1_conn *c) {
    if (!c->x) {
        c->closing = true;
        return CB_OK;
    }
    if (c->in == H1_IN_TUNNEL) return CB_OK;
    if (c->in == H1_IN_BODY && llhttp_message_needs_eof(&c->parser)) {
        c->in = H1_IN_END;
        int rc = cb_exchange_in_end(c->x);
        if (rc < 0)
            cb_exchange_abort(c->x, rc);
        else
            h1_settle(c);
        c->close_after = true;
        return CB_OK;
    }
    if (c->in == H1_IN_END) {
        c->close_after = true;
        return CB_OK;
    }
    c->closing = true;
    return cb_fail(CB_ECLOSED, "the server closed the connection %s",
                   c->in == H1_IN_BODY ? "in the middle of a response" : "before it answered");
}

static int server_eof(h1_conn *c) {
    c->close_after = true;
    switch (c->in) {
    case H1_IN_IDLE:
        c->closing = true;
        return CB_OK;
    case H1_IN_HEAD:
    case H1_IN_BODY:
        c->closing = true;
        return cb_fail(CB_ECLOSED, "the client closed the connection in the middle of a request");
    default: /* a client that half-closed still gets its answer */
        return CB_OK;
    }
}

static int h1_eof(cb_hconn *h, cb_time now) {
    h1_conn *c = h1_of(h);
    c->now = now;
    if (c->eof || c->closing) return CB_OK;
    c->eof = true;
    c->depth++;
    int rc = CB_OK;
    if (c->in == H1_IN_TUNNEL && c->x) {
        cb_exchange *x = c->x;
        rc = c->capsules ? cb_capsules_end(c->capsules) : CB_OK;
        c->in = H1_IN_END;
        if (rc == CB_OK) rc = cb_exchange_in_end(x);
        if (rc < 0)
            cb_exchange_abort(x, rc);
        else
            h1_settle(c);
        rc = CB_OK;
    } else {
        rc = c->h.env.server ? server_eof(c) : client_eof(c);
    }
    c->depth--;
    return rc;
}

/* ---- output ---- */

/* A server's user refused to upgrade: the request was an ordinary one and is complete. */
static void end_wait(h1_conn *c) {
    if (c->in != H1_IN_WAIT || !c->x || !c->x->head_out || c->x->tunnel) return;
    c->in = H1_IN_END;
    int rc = cb_exchange_in_end(c->x);
    if (rc == CB_ECLOSED) return;
    if (rc < 0)
        cb_exchange_abort(c->x, rc);
    else
        h1_settle(c);
}

/* The user took what made the parser pause: the end of the message may be due without another byte. */
static int go_on(h1_conn *c) {
    if (!c->paused || c->in != H1_IN_BODY || !c->x || cb_exchange_in_blocked(c->x)) return CB_OK;
    int64_t n = parse(c, (cb_slice){(const uint8_t *)"", 0});
    return n < 0 ? (int)n : CB_OK;
}

static inline bool out_wanted(const h1_conn *c) {
    return c->x && !c->closing && cb_exchange_out_wanted(c->x) && c->mode != H1_OUT_WAIT;
}

/* Who waits for room is told, and again as long as they wait for more while there is some: a sink tells of room only
 * when it had none at all. */
static void tell_writer(h1_conn *c, cb_time now) {
    size_t room, before;
    if (!out_wanted(c)) {
        c->stuck_from = 0;
        return;
    }
    room = h1_room(&c->h, c->x);
    if (room || !c->stuck_from) c->stuck_from = room ? 0 : now;
    for (before = SIZE_MAX; room && room < before; room = out_wanted(c) ? h1_room(&c->h, c->x) : 0) {
        before = room;
        cb_exchange_out_writable(c->x);
    }
}

static int h1_flush(cb_hconn *h, cb_time now) {
    h1_conn *c = h1_of(h);
    c->now = now;
    c->depth++;
    end_wait(c);
    int rc = go_on(c);
    if (rc == CB_OK) rc = h1_push(c);
    if (rc == CB_OK && c->fin_due && c->x && c->mode == H1_OUT_TUNNEL) {
        c->fin_due = false;
        int64_t sent = h1_send_body(h, c->x, (cb_slice){NULL, 0}, true);
        rc = sent < 0 ? (int)sent : CB_OK;
    }
    tell_writer(c, now);
    if (c->x && c->in == H1_IN_BODY && cb_exchange_in_blocked(c->x)) c->body_from = now;
    if (rc == CB_OK) rc = h1_push(c);
    c->depth--;
    return rc;
}

/* ---- time ---- */

static cb_time after(cb_time from, uint32_t ms) {
    return from + ms * CB_MS;
}

static cb_time sooner(cb_time a, cb_time b) {
    return a < b ? a : b;
}

static bool waits_for_body(const h1_conn *c) {
    return c->x && c->in == H1_IN_BODY && !cb_exchange_in_blocked(c->x);
}

static bool waits_for_head(const h1_conn *c) {
    return c->head_begun && c->h.env.server && (c->in == H1_IN_IDLE || c->in == H1_IN_HEAD);
}

/* A connection that is idle for a while gives back what makes the next request cheap. */
static cb_time trim_due(const h1_conn *c) {
    bool idle = !c->x && !c->head_begun && (c->line.base || (c->out.base && !c->out.len));
    return idle ? c->idle_from + CB_TRIM : CB_NEVER;
}

static void trim(h1_conn *c) {
    cb_buf_free(&c->line);
    if (!c->out.len) cb_buf_free(&c->out);
}

/* Until when a connection without an exchange may stay. */
static cb_time idle_until(const h1_conn *c) {
    cb_time due = after(c->idle_from, c->h.env.limits->idle_timeout_ms);
    return c->h.linger_until ? sooner(due, c->h.linger_until) : due;
}

static cb_time h1_deadline(const cb_hconn *h) {
    const h1_conn *c = h1_of(h);
    const cb_http_limits *l = c->h.env.limits;
    cb_time due = CB_NEVER;
    if (c->closing || c->gone) return due;
    due = trim_due(c);
    if (waits_for_head(c))
        due = sooner(due, after(c->head_from, l->head_timeout_ms));
    else if (!c->x)
        due = sooner(due, idle_until(c));
    if (waits_for_body(c)) due = sooner(due, after(c->body_from, l->body_timeout_ms));
    if (c->stuck_from) due = sooner(due, after(c->stuck_from, l->send_timeout_ms));
    return due;
}

static int h1_expire(cb_hconn *h, cb_time now) {
    h1_conn *c = h1_of(h);
    const cb_http_limits *l = c->h.env.limits;
    int rc = CB_OK;
    c->now = now;
    if (c->closing || c->gone) return CB_OK;
    c->depth++;
    if (now >= trim_due(c)) trim(c);
    if (c->stuck_from && now >= after(c->stuck_from, l->send_timeout_ms)) {
        h1_limit(c, "send timeout");
        rc = cb_fail(CB_ETIMEOUT, "the peer took no byte for %u ms", l->send_timeout_ms);
    } else if (waits_for_head(c) && now >= after(c->head_from, l->head_timeout_ms)) {
        h1_limit(c, "head timeout");
        rc = refuse(c, cb_fail(CB_ETIMEOUT, "no whole head in %u ms", l->head_timeout_ms), 408);
    } else if (waits_for_body(c) && now >= after(c->body_from, l->body_timeout_ms)) {
        h1_limit(c, "body timeout");
        rc = refuse(c, cb_fail(CB_ETIMEOUT, "no byte of the body for %u ms", l->body_timeout_ms), 408);
    } else if (!c->x && !c->head_begun && now >= idle_until(c)) {
        c->closing = true;
    }
    c->depth--;
    return rc;
}

/* ---- the end ---- */

static void h1_drain(cb_hconn *h) {
    h1_conn *c = h1_of(h);
    c->h.draining = true;
    if (!c->x && !c->head_begun && !h->linger_until) c->closing = true;
    h1_wake(c);
}

static bool h1_done(const cb_hconn *h) {
    const h1_conn *c = h1_of(h);
    return c->closing && !c->out.len;
}

static size_t h1_capacity(const cb_hconn *h) {
    const h1_conn *c = h1_of(h);
    bool usable = !c->h.env.server && !c->x && !c->closing && !c->close_after && !c->gone && !c->eof;
    return usable && !c->h.draining ? 1 : 0;
}

static void h1_closed(cb_hconn *h, int rc) {
    h1_conn *c = h1_of(h);
    c->gone = c->closing = true;
    c->depth++;
    cb_hconn_end_all(h, rc);
    c->depth--;
}

static void destroy(h1_conn *c) {
    cb_buf_free(&c->line);
    cb_buf_free(&c->out);
    if (c->capsules) cb_capsules_free(c->capsules);
    cb_mem_free(c->h.env.alloc, c->capsules);
    cb_mem_free(c->h.env.alloc, c);
}

static void bury(cb_grave *g) {
    destroy(CB_CONTAINER(g, h1_conn, grave));
}

static void h1_free(cb_hconn *h) {
    h1_conn *c = h1_of(h);
    if (c->freed) return;
    c->freed = true;
    if (!c->gone) h1_closed(h, CB_ECLOSED);
    if (c->h.env.loop)
        cb_loop_bury(c->h.env.loop, &c->grave, bury);
    else
        destroy(c);
}

static int h1_open(cb_hconn *h, cb_exchange *x) {
    h1_conn *c = h1_of(h);
    if (!h1_capacity(h)) return CB_EAGAIN;
    cb_exchange_attach(x, h);
    x->stream_id = (int64_t)h->n_served;
    c->x = x;
    c->in = H1_IN_HEAD;
    c->mode = H1_OUT_NONE;
    c->interim_now = c->upgrade = c->fin_due = c->head_begun = false;
    if (h->n_served + 1 >= h->env.limits->max_requests) c->close_after = true;
    return CB_OK;
}

static void h1_reset(cb_hconn *h, cb_exchange *x, int code) {
    h1_conn *c = h1_of(h);
    (void)code;
    if (c->x != x) return;
    c->closing = true; /* HTTP/1.1 has no other way */
    h1_wake(c);
}

static void h1_detach(cb_hconn *h, cb_exchange *x) {
    h1_conn *c = h1_of(h);
    if (c->x != x) return;
    bool complete = c->in == H1_IN_END && c->mode == H1_OUT_DONE;
    c->x = NULL;
    c->idle_from = c->now;
    c->expect = c->upgrade = false;
    if (!complete || c->close_after || c->h.draining || c->eof)
        c->closing = true;
    else
        c->in = H1_IN_IDLE;
    c->mode = H1_OUT_NONE;
    if (!c->gone && c->h.env.owner && c->h.env.owner->capacity) c->h.env.owner->capacity(h);
    h1_wake(c);
}

static void h1_took(cb_hconn *h, cb_exchange *x, size_t n) {
    (void)h, (void)x, (void)n;
}

static void h1_resume(cb_hconn *h, cb_exchange *x) {
    (void)x;
    h1_wake(h1_of(h));
}

static const cb_hconn_vt vt = {.version = CB_HTTP_1,
                               .feed = h1_feed,
                               .eof = h1_eof,
                               .flush = h1_flush,
                               .deadline = h1_deadline,
                               .expire = h1_expire,
                               .drain = h1_drain,
                               .done = h1_done,
                               .capacity = h1_capacity,
                               .closed = h1_closed,
                               .free = h1_free,
                               .open = h1_open,
                               .send_head = h1_send_head,
                               .room = h1_room,
                               .send_body = h1_send_body,
                               .send_trailers = h1_send_trailers,
                               .reset = h1_reset,
                               .took = h1_took,
                               .resume = h1_resume,
                               .send_datagram = h1_send_datagram,
                               .detach = h1_detach};

int cb_h1_new(cb_hconn **out, const cb_hconn_env *env) {
    const cb_alloc *alloc = env->alloc ? env->alloc : env->loop ? cb_loop_alloc(env->loop) : NULL;
    h1_conn *c = cb_mem_new(alloc, sizeof *c);
    if (!c) return cb_fail(CB_ENOMEM, "no memory for an HTTP/1.1 connection");
    cb_hconn_init(&c->h, &vt, env);
    cb_buf_init(&c->line, c->h.env.alloc, (size_t)env->limits->max_target_bytes + H1_LINE_EXTRA);
    cb_buf_init(&c->out, c->h.env.alloc, SIZE_MAX);
    llhttp_init(&c->parser, env->server ? HTTP_REQUEST : HTTP_RESPONSE, &h1_settings);
    c->parser.data = c;
    c->now = c->idle_from = env->loop ? cb_loop_now(env->loop) : 0;
    *out = &c->h;
    return CB_OK;
}
