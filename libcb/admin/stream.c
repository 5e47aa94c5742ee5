/* Events as they happen (server-sent events, HTML standard 9.2). A stream has a place in the ring and no queue of its
 * own: who reads too slowly is overtaken by the ring, and told how many events they have missed. */
#include "admin/admin_int.h"
#include "base/error.h"
#include "http/fields.h"
#include <stdio.h>
#include <string.h>

enum { TYPES_BYTES = 256 };

static const cb_time BEAT = 15 * CB_SEC, GATED = 300 * CB_SEC;

struct cb_admin_stream {
    cb_list link;
    cb_grave grave;
    cb_admin *a;
    const cb_admin_door *door;
    cb_exchange *x;
    uint64_t next;           /* the event to be sent next */
    cb_time until;           /* through a gate: a token may have been revoked since */
    cb_buf rest;             /* of what was written, and did not fit */
    char types[TYPES_BYTES]; /* "" = all */
    bool ended;
};

/* ---- writing ---- */

/* False: it did not fit, and the rest of it goes first. */
static bool put(cb_admin_stream *s, cb_slice text) {
    const int64_t n = cb_exchange_write(s->x, text);
    const size_t took = n > 0 ? (size_t)n : 0;
    if (n < 0 && n != CB_EAGAIN) s->ended = true;
    if (s->ended || took == text.len) return !s->ended;
    if (cb_buf_add(&s->rest, text.base + took, text.len - took) < 0) {
        s->ended = true; /* half an event is none */
        cb_exchange_reset(s->x, CB_RESET_INTERNAL);
    }
    return false;
}

static bool wanted(const cb_admin_stream *s, const char *type) {
    cb_slice list = cb_slice_str(s->types), one;
    if (!*s->types) return true;
    while (cb_list_next(&list, &one))
        if (cb_slice_eq(one, type)) return true;
    return false;
}

static bool put_gap(cb_admin_stream *s, uint64_t missed) {
    char text[160], id[CB_RING_ID];
    cb_cells_add(cb_loop_cells(s->a->loop), CB_C_ADMIN_MISSED, missed);
    cb_ring_id(&s->a->ring, s->a->ring.first - 1, id);
    const int n =
        snprintf(text, sizeof text, "id: %s\nevent: gap\ndata: {\"missed\":%llu}\n\n", id, (unsigned long long)missed);
    return put(s, (cb_slice){(const uint8_t *)text, (size_t)n});
}

static void pump(cb_admin_stream *s) {
    const cb_admin_ring *r = &s->a->ring;
    if (s->rest.len) {
        const int64_t n = cb_exchange_write(s->x, cb_buf_slice(&s->rest));
        if (n > 0) cb_buf_drop(&s->rest, (size_t)n);
        if (n < 0 && n != CB_EAGAIN) s->ended = true;
        if (s->rest.len) return;
        cb_buf_free(&s->rest);
    }
    while (!s->ended && s->next < r->next) {
        cb_slice text;
        const char *type;
        if (s->next < r->first) {
            const uint64_t missed = r->first - s->next;
            s->next = r->first;
            if (!put_gap(s, missed)) return;
            continue;
        }
        if (!cb_ring_get(r, s->next++, &text, &type)) return;
        if (wanted(s, type) && !put(s, text)) return;
    }
}

/* ---- life ---- */

static void stream_bury(cb_grave *g) {
    cb_admin_stream *s = CB_CONTAINER(g, cb_admin_stream, grave);
    cb_buf_free(&s->rest);
    cb_mem_free(s->rest.alloc, s);
}

static void stream_gone(cb_admin_stream *s) {
    cb_admin *a = s->a;
    cb_list_del(&s->link);
    cb_cells_move(cb_loop_cells(a->loop), CB_C_ADMIN_LISTENERS, -1);
    if (--a->n_streams == 0) cb_alarm_stop(&a->beat);
    cb_loop_bury(a->loop, &s->grave, stream_bury);
}

static int on_writable(cb_exchange *x, void *user) {
    (void)x;
    pump(user);
    return CB_OK;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    (void)x;
    (void)rc;
    stream_gone(user);
}

static const cb_exchange_ops stream_ops = {.size = sizeof stream_ops, .on_writable = on_writable, .on_close = on_close};

static void end(cb_admin_stream *s) {
    if (s->ended) return;
    s->ended = true;
    if (s->rest.len || cb_exchange_finish(s->x) < 0) cb_exchange_reset(s->x, CB_RESET_CANCEL);
}

void cb_admin_streams_end(cb_admin *a, bool at_once) {
    for (cb_list *l = a->streams.next, *next; l != &a->streams; l = next) {
        cb_admin_stream *s = CB_CONTAINER(l, cb_admin_stream, link);
        next = l->next;
        if (!at_once) {
            end(s);
            continue;
        }
        cb_exchange_abandon(s->x);
        stream_gone(s);
    }
}

void cb_admin_streams_end_at(cb_admin *a, const cb_admin_door *door) {
    for (cb_list *l = a->streams.next, *next; l != &a->streams; l = next) {
        cb_admin_stream *s = CB_CONTAINER(l, cb_admin_stream, link);
        next = l->next;
        if (s->door == door) end(s);
    }
}

/* Comments keep what lies between us and the client awake, and tell us that it is gone. */
static void on_beat(cb_alarm *alarm, cb_time now) {
    cb_admin *a = CB_CONTAINER(alarm, cb_admin, beat);
    for (cb_list *l = a->streams.next, *next; l != &a->streams; l = next) {
        cb_admin_stream *s = CB_CONTAINER(l, cb_admin_stream, link);
        next = l->next;
        if (s->until && now >= s->until)
            end(s);
        else if (!s->ended && !s->rest.len)
            (void)put(s, cb_slice_str(":\n\n"));
    }
    (void)cb_alarm_set(&a->beat, now + a->beat_every);
}

/* ---- the resource ---- */

static void begin_at(cb_admin_stream *s, cb_slice last) {
    const cb_admin_ring *r = &s->a->ring;
    const uint64_t after = last.base ? cb_ring_after(r, last) : r->next;
    s->next = after ? after : r->first;
    if (!after) (void)put_gap(s, 0); /* of another process: nobody knows how many were missed */
    pump(s);
}

static int get_events(cb_admin_call *c, void *user) {
    static const cb_field fields[] = {
        {{(const uint8_t *)"content-type", 12}, {(const uint8_t *)"text/event-stream", 17}},
        {{(const uint8_t *)"cache-control", 13}, {(const uint8_t *)"no-store", 8}}};
    cb_admin *a = user;
    const char *types = cb_admin_query(c, "types");
    const cb_slice method = cb_admin_method(c);
    if (types && strlen(types) >= TYPES_BYTES) return cb_admin_problem(c, 400, "types: too long");
    if (a->n_streams >= CB_ADMIN_STREAMS)
        return cb_admin_problemf(c, 429, "%zu listen to events already", a->n_streams);
    if (!cb_admin_exchange(c)) return cb_fail(CB_ECLOSED, "the client is gone");
    if (cb_slice_eq(method, "HEAD")) return cb_admin_send_bytes(c, 200, "text/event-stream", (cb_slice){0});
    cb_admin_stream *s = cb_mem_new(a->alloc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "a stream of events");
    s->a = a;
    s->door = c->door;
    cb_buf_init(&s->rest, a->alloc, 4 * CB_ADMIN_EVENT_BYTES);
    snprintf(s->types, sizeof s->types, "%s", types ? types : "");
    if (c->door->gate) s->until = cb_loop_now(a->loop) + a->gated_for;
    cb_list_init(&s->link);
    cb_list_add_tail(&a->streams, &s->link);
    cb_cells_move(cb_loop_cells(a->loop), CB_C_ADMIN_LISTENERS, 1);
    if (a->n_streams++ == 0) (void)cb_alarm_set(&a->beat, cb_loop_now(a->loop) + a->beat_every);
    s->x = cb_admin_call_take(c);
    const cb_slice last = cb_exchange_field(s->x, "last-event-id");
    (void)cb_exchange_handle(s->x, &stream_ops, s);
    if (cb_exchange_reply(s->x, 200, fields, 2) < 0) {
        s->ended = true;
        cb_exchange_reset(s->x, CB_RESET_INTERNAL);
        return CB_OK;
    }
    if (put(s, cb_slice_str("retry: 1000\n\n"))) begin_at(s, last);
    return CB_OK;
}

int cb_admin_builtin_events(cb_admin *a) {
    static const cb_admin_query_param query[] = {{"types", "Only these, by commas; without it all.", NULL}};
    static const cb_admin_resource row = {.size = sizeof row,
                                          .method = "GET",
                                          .path = "/v1/events",
                                          .id = "getEvents",
                                          .summary = "What happens, as server-sent events",
                                          .rights = CB_RIGHT_READ,
                                          .query = query,
                                          .n_query = 1,
                                          .produces = "text/event-stream",
                                          .answer_schema = "{\"type\":\"string\"}",
                                          .handle = get_events};
    cb_alarm_init(&a->beat, a->loop, on_beat);
    a->beat_every = BEAT;
    a->gated_for = GATED;
    return cb_admin_router_add(&a->router, &row, a, NULL);
}

/* ---- telling ---- */

static int check(const char *type, cb_slice json) {
    const size_t n = type ? strlen(type) : 0;
    if (n == 0 || n > CB_ADMIN_EVENT_TYPE) return cb_fail(CB_EINVAL, "type: 1 to %d bytes", CB_ADMIN_EVENT_TYPE);
    for (size_t i = 0; i < n; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789.-", type[i]))
            return cb_fail(CB_EINVAL, "type \"%.40s\": a-z, 0-9, dots and dashes", type);
    if (json.len > CB_ADMIN_EVENT_BYTES)
        return cb_fail(CB_ELIMIT, "%s: an event has at most %d bytes", type, CB_ADMIN_EVENT_BYTES);
    if (!json.len || memchr(json.base, '\n', json.len) || memchr(json.base, '\r', json.len))
        return cb_fail(CB_EINVAL, "%s: one line of JSON", type);
    return CB_OK;
}

int cb_admin_event(cb_admin *a, const char *type, cb_slice json) {
    if (!a) return cb_fail(CB_EINVAL, "cb_admin_event: no admin");
    int rc = check(type, json);
    if (rc == CB_OK) rc = cb_ring_add(&a->ring, type, json);
    if (rc < 0) return rc;
    cb_cells_add(cb_loop_cells(a->loop), CB_C_ADMIN_EVENTS, 1);
    for (cb_list *l = a->streams.next, *next; l != &a->streams; l = next) {
        cb_admin_stream *s = CB_CONTAINER(l, cb_admin_stream, link);
        next = l->next;
        if (!s->ended && !s->rest.len) pump(s);
    }
    return CB_OK;
}

int cb_admin_event_passing(cb_admin *a, const char *type, cb_slice json) {
    char head[CB_ADMIN_EVENT_TYPE + 24];
    cb_buf text;
    if (!a) return cb_fail(CB_EINVAL, "cb_admin_event_passing: no admin");
    int rc = check(type, json);
    if (rc < 0 || !a->n_streams) return rc;
    snprintf(head, sizeof head, "event: %s\ndata: ", type);
    cb_buf_init(&text, a->alloc, 2 * CB_ADMIN_EVENT_BYTES);
    rc = cb_buf_text(&text, head);
    if (rc == CB_OK) rc = cb_buf_add(&text, json.base, json.len);
    if (rc == CB_OK) rc = cb_buf_text(&text, "\n\n");
    for (cb_list *l = a->streams.next, *next; l != &a->streams && rc == CB_OK; l = next) {
        cb_admin_stream *s = CB_CONTAINER(l, cb_admin_stream, link);
        next = l->next;
        const bool keeps_up = !s->ended && !s->rest.len && s->next == a->ring.next;
        if (keeps_up && wanted(s, type) && cb_exchange_room(s->x) >= text.len) (void)put(s, cb_buf_slice(&text));
    }
    cb_buf_free(&text);
    return rc;
}

size_t cb_admin_listeners(const cb_admin *a) {
    return a->n_streams;
}
