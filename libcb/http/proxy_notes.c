/* What is told of a pass when it is over: a line of the access log, a trace. */
#include "base/error.h"
#include "base/mem.h"
#include "http/proxy_int.h"
#include "telemetry/access_log_int.h"
#include <string.h>
#include <time.h>

enum { STATE_MAX = 512, TEXT_MAX = 16 * 1024 };

/* ---- life ---- */

static cb_pass_notes *notes_get(cb_proxy *p) {
    if (!cb_list_empty(&p->spare_notes)) {
        cb_pass_notes *n = CB_CONTAINER(p->spare_notes.next, cb_pass_notes, link);
        cb_list_del(&n->link);
        return n;
    }
    cb_pass_notes *n = cb_mem_new(p->alloc, sizeof *n);
    if (!n) return NULL;
    n->context.size = n->parent.size = sizeof n->context;
    cb_buf_init(&n->state, p->alloc, STATE_MAX);
    cb_buf_init(&n->text, p->alloc, TEXT_MAX);
    return n;
}

void cb_pass_notes_destroy(cb_pass_notes *n) {
    const cb_alloc *alloc = n->text.alloc;
    cb_list_del(&n->link);
    cb_buf_free(&n->state);
    cb_buf_free(&n->text);
    cb_mem_free(alloc, n);
}

static void notes_release(cb_pass *pass) {
    cb_pass_notes *n = pass->notes;
    pass->notes = NULL;
    n->traced = n->called = n->first = false;
    n->state.len = n->text.len = n->n_fields = 0;
    n->n_attempts = 0;
    cb_list_add_tail(&pass->proxy->spare_notes, &n->link);
}

void cb_pass_notes_begin(cb_pass *pass) {
    cb_proxy *p = pass->proxy;
    size_t n = 0;
    if (p->log) cb_access_log_response_fields(p->log, &n);
    if (!p->tracer && !n) return;
    pass->notes = notes_get(p); /* none: the request matters more than what is told of it */
    if (pass->notes && p->tracer) cb_pass_trace_begin(pass);
}

/* ---- the response ---- */

static bool copy(cb_buf *text, cb_slice *s) {
    const size_t at = text->len;
    if (text->cap - text->len < s->len) return false;
    if (s->len) memcpy(text->base + at, s->base, s->len);
    text->len += s->len;
    s->base = text->base + at;
    return true;
}

/* Room is made once: slices stay where they are. */
void cb_pass_notes_response(cb_pass *pass, const cb_relay *f) {
    cb_pass_notes *n = pass->notes;
    size_t wanted = 0, need = 0;
    const char *const *names = pass->proxy->log ? cb_access_log_response_fields(pass->proxy->log, &wanted) : NULL;
    for (int round = 0; round < 2; round++) {
        if (round && (!need || cb_buf_reserve(&n->text, need) < 0)) return;
        for (size_t i = 0; i < f->n; i++) {
            for (size_t k = 0; k < wanted; k++) {
                cb_field field = f->at[i];
                if (!cb_slice_eq(field.name, names[k])) continue;
                need += field.name.len + field.value.len;
                if (!round || n->n_fields == CB_NOTES_FIELDS) break;
                if (copy(&n->text, &field.name) && copy(&n->text, &field.value)) n->fields[n->n_fields++] = field;
                break;
            }
        }
    }
}

/* ---- the access log ---- */

static void phase(uint64_t ns[CB_ACCESS_PHASES], uint32_t *happened, int which, cb_time from, cb_time to) {
    if (!from || to < from) return;
    ns[which] = to - from;
    *happened |= 1u << which;
}

/* A connection that was begun for this request is its own; one that was under way already was waited for. */
uint32_t cb_pass_phases(const cb_pass *pass, uint64_t ns[CB_ACCESS_PHASES]) {
    const cb_pool_times *t = &pass->times;
    const cb_time now = cb_loop_now(pass->proxy->loop), sent = t->sent ? t->sent : now;
    const bool own = t->began >= t->queued && t->ready;
    uint32_t happened = 0;
    phase(ns, &happened, CB_ACCESS_HEAD, pass->front->started, pass->started);
    if (pass->auth) phase(ns, &happened, CB_ACCESS_AUTH, pass->started, pass->routed ? pass->routed : now);
    phase(ns, &happened, CB_ACCESS_WAIT, t->queued, own ? t->began : sent);
    if (own) phase(ns, &happened, CB_ACCESS_CONNECT, t->began, t->ready);
    phase(ns, &happened, CB_ACCESS_FIRST_BYTE, t->sent, pass->answered_at ? pass->answered_at : now);
    phase(ns, &happened, CB_ACCESS_BODY, pass->answered_at, now);
    return happened;
}

static void who(cb_access_record *r, const cb_pass_auth *auth) {
    const cb_principal *p = cb_authn_principal(auth->call);
    const char *why = auth->reason ? auth->reason : cb_authn_reason(auth->call);
    r->subject = p->subject;
    if (p->tenant) r->tenant = p->tenant;
    r->auth = p->source;
    r->auth_reason = *why ? why : NULL;
    r->auth_rule = auth->rule;
}

static void trace(cb_access_record *r, const cb_pass_notes *n, char text[CB_TRACEPARENT_BYTES + 1]) {
    cb_trace_context_text(&n->context, text);
    r->trace_id = (cb_slice){(const uint8_t *)text + 3, 32};
    r->span_id = (cb_slice){(const uint8_t *)text + 36, 16};
}

static void write_log(const cb_pass *pass) {
    const cb_proxy *p = pass->proxy;
    const cb_exchange *x = pass->front;
    const cb_time now = cb_loop_now(p->loop), took = now - pass->started;
    char ids[CB_TRACEPARENT_BYTES + 1];
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME_COARSE, &wall);
    cb_access_record r = {.size = sizeof r,
                          .time_ms = (int64_t)wall.tv_sec * 1000 + wall.tv_nsec / 1000000 - (int64_t)(took / CB_MS),
                          .remote = *pass->client ? pass->client : pass->remote,
                          .local = cb_exchange_local(x),
                          .method = cb_exchange_method(x),
                          .scheme = cb_exchange_scheme(x),
                          .host = cb_exchange_authority(x),
                          .path = cb_exchange_path(x),
                          .route = pass->group ? pass->group->def->opts.name : NULL,
                          .pattern = pass->route ? pass->route->name : NULL,
                          .tenant = pass->route ? pass->route->tenant : NULL,
                          .origin = pass->origin,
                          .reason = pass->reason,
                          .request_id = cb_exchange_field(x, "x-request-id"),
                          .bytes_in = pass->bytes_in,
                          .bytes_out = pass->bytes_out,
                          .duration_us = took / 1000,
                          .status = pass->status,
                          .retries = pass->retries,
                          .version = cb_exchange_version(x),
                          .sni = cb_exchange_sni(x),
                          .tls_version = cb_exchange_tls_version(x),
                          .tls_cipher = cb_exchange_tls_cipher(x),
                          .tls_resumed = cb_exchange_tls_resumed(x) != 0,
                          .early = cb_exchange_is_early(x) != 0};
    r.request_fields = cb_exchange_fields(x, &r.n_request_fields);
    r.phases = cb_pass_phases(pass, r.phase_us);
    for (int i = 0; i < CB_ACCESS_PHASES; i++)
        r.phase_us[i] /= 1000;
    if (pass->auth) who(&r, pass->auth);
    if (pass->notes) {
        r.response_fields = pass->notes->fields;
        r.n_response_fields = pass->notes->n_fields;
        if (pass->notes->traced) trace(&r, pass->notes, ids);
    }
    cb_access_log_add(p->log, &r);
}

void cb_pass_notes_end(cb_pass *pass) {
    cb_pass_count_end(pass);
    if (pass->proxy->log) write_log(pass);
    if (!pass->notes) return;
    if (pass->notes->traced && pass->proxy->tracer) cb_pass_trace_end(pass);
    notes_release(pass);
}
