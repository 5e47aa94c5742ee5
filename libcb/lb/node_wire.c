#include "lb/node_wire.h"
#include "base/error.h"
#include <string.h>

static const uint8_t ask_magic[4] = {'c', 'b', 'n', 'q'}, answer_magic[4] = {'c', 'b', 'n', 'r'};

static int begins(cb_slice in, const uint8_t magic[4], size_t head, const char *what) {
    if (in.len < 5 || memcmp(in.base, magic, 4) != 0)
        return cb_fail(CB_EPROTO, "%zu bytes that are no %s about a forwarding table", in.len, what);
    if (in.base[4] != CB_LB_WIRE_FORMAT)
        return cb_fail(CB_EPROTO, "the other host speaks format %d about the forwarding table; libcb %s knows %d",
                       in.base[4], cb_version_text(), CB_LB_WIRE_FORMAT);
    if (in.len < head) return cb_fail(CB_EPROTO, "a %s about a forwarding table is cut at %zu bytes", what, in.len);
    return CB_OK;
}

/* Takes n pieces of `each` bytes from the front. */
static bool cut(cb_slice *rest, cb_slice *out, size_t n, size_t each) {
    if (n > rest->len / each) return false;
    *out = (cb_slice){rest->base, n * each};
    *rest = (cb_slice){rest->base + n * each, rest->len - n * each};
    return true;
}

/* ---- requests ---- */

int cb_lb_ask_read(cb_lb_ask *a, cb_slice in) {
    int rc = begins(in, ask_magic, CB_LB_ASK_HEAD, "request");
    if (rc < 0) return rc;
    const uint8_t *p = in.base;
    *a = (cb_lb_ask){.flags = p[5],
                     .id = (uint32_t)cb_lb_get(p + 8, 4),
                     .writer = (uint32_t)cb_lb_get(p + 12, 4),
                     .buckets = (uint32_t)cb_lb_get(p + 16, 4),
                     .epoch = (uint32_t)cb_lb_get(p + 20, 4),
                     .instance = cb_lb_get(p + 24, 8),
                     .key_check = cb_lb_get(p + 32, 8),
                     .version = cb_lb_get(p + 40, 8),
                     .chain = cb_lb_get(p + 48, 8),
                     .applied = cb_lb_get(p + 56, 8),
                     .load = (uint32_t)cb_lb_get(p + 64, 4),
                     .n_members = cb_lb_get(p + 68, 4),
                     .n_idle = cb_lb_get(p + 72, 4)};
    const size_t table = cb_lb_get(p + 76, 4);
    cb_slice rest = {p + CB_LB_ASK_HEAD, in.len - CB_LB_ASK_HEAD};
    const bool fits = a->n_members <= CB_LB_MEMBERS_MAX && a->n_idle <= CB_LB_IDLE_MAX &&
                      cut(&rest, &a->members, a->n_members, CB_LB_ASK_MEMBER) && cut(&rest, &a->idle, a->n_idle, 4) &&
                      cut(&rest, &a->table, table, 1) && !rest.len;
    if (!fits || !a->id || p[6] || p[7])
        return cb_fail(CB_EPROTO, "a request about a forwarding table (%zu bytes) says what cannot be", in.len);
    return CB_OK;
}

int cb_lb_ask_write(cb_buf *out, const cb_lb_ask *a) {
    uint8_t p[CB_LB_ASK_HEAD] = {0};
    memcpy(p, ask_magic, 4);
    p[4] = CB_LB_WIRE_FORMAT;
    p[5] = a->flags;
    cb_lb_put(p + 8, a->id, 4);
    cb_lb_put(p + 12, a->writer, 4);
    cb_lb_put(p + 16, a->buckets, 4);
    cb_lb_put(p + 20, a->epoch, 4);
    cb_lb_put(p + 24, a->instance, 8);
    cb_lb_put(p + 32, a->key_check, 8);
    cb_lb_put(p + 40, a->version, 8);
    cb_lb_put(p + 48, a->chain, 8);
    cb_lb_put(p + 56, a->applied, 8);
    cb_lb_put(p + 64, a->load, 4);
    cb_lb_put(p + 68, a->n_members, 4);
    cb_lb_put(p + 72, a->n_idle, 4);
    cb_lb_put(p + 76, a->table.len, 4);
    int rc = cb_buf_add(out, p, sizeof p);
    if (rc == CB_OK) rc = cb_buf_add(out, a->members.base, a->members.len);
    if (rc == CB_OK) rc = cb_buf_add(out, a->idle.base, a->idle.len);
    return rc == CB_OK ? cb_buf_add(out, a->table.base, a->table.len) : rc;
}

/* ---- answers ---- */

bool cb_lb_answer_next(const cb_lb_answer *a, size_t *at, cb_slice *record) {
    if (a->records.len - *at < 4) return false;
    const uint8_t *p = a->records.base + *at;
    const size_t len = cb_lb_get(p, 4);
    if (len > a->records.len - *at - 4) return false;
    *record = (cb_slice){p + 4, len};
    *at += 4 + len;
    return true;
}

/* The records have no length of their own: they are what stands between the text and the table. */
static bool records_fit(const cb_lb_answer *a) {
    cb_slice record;
    size_t at = 0, n = 0;
    while (cb_lb_answer_next(a, &at, &record))
        n++;
    return n == a->n_records && at == a->records.len;
}

int cb_lb_answer_read(cb_lb_answer *a, cb_slice in) {
    int rc = begins(in, answer_magic, CB_LB_ANSWER_HEAD, "answer");
    if (rc < 0) return rc;
    const uint8_t *p = in.base;
    *a = (cb_lb_answer){.status = p[5],
                        .flags = p[6],
                        .writer = (uint32_t)cb_lb_get(p + 8, 4),
                        .epoch = (uint32_t)cb_lb_get(p + 12, 4),
                        .heartbeat_ms = (uint32_t)cb_lb_get(p + 16, 4),
                        .n_records = cb_lb_get(p + 24, 4),
                        .version = cb_lb_get(p + 32, 8)};
    const size_t text = cb_lb_get(p + 20, 4), table = cb_lb_get(p + 28, 4);
    cb_slice rest = {p + CB_LB_ANSWER_HEAD, in.len - CB_LB_ANSWER_HEAD};
    bool fits = text <= CB_LB_TEXT_MAX && cut(&rest, &a->text, text, 1) && table <= rest.len && !p[7];
    if (fits) fits = cut(&rest, &a->records, rest.len - table, 1) && cut(&rest, &a->table, table, 1) && records_fit(a);
    if (!fits || a->status > CB_LB_STATUS_REFUSED)
        return cb_fail(CB_EPROTO, "an answer about a forwarding table (%zu bytes) says what cannot be", in.len);
    return CB_OK;
}

int cb_lb_answer_add(cb_buf *records, cb_slice record) {
    uint8_t len[4];
    cb_lb_put(len, record.len, 4);
    int rc = cb_buf_reserve(records, sizeof len + record.len);
    if (rc == CB_OK) rc = cb_buf_add(records, len, sizeof len);
    return rc == CB_OK ? cb_buf_add(records, record.base, record.len) : rc;
}

int cb_lb_answer_write(cb_buf *out, const cb_lb_answer *a) {
    uint8_t p[CB_LB_ANSWER_HEAD] = {0};
    memcpy(p, answer_magic, 4);
    p[4] = CB_LB_WIRE_FORMAT;
    p[5] = a->status;
    p[6] = a->flags;
    cb_lb_put(p + 8, a->writer, 4);
    cb_lb_put(p + 12, a->epoch, 4);
    cb_lb_put(p + 16, a->heartbeat_ms, 4);
    cb_lb_put(p + 20, a->text.len, 4);
    cb_lb_put(p + 24, a->n_records, 4);
    cb_lb_put(p + 28, a->table.len, 4);
    cb_lb_put(p + 32, a->version, 8);
    int rc = cb_buf_add(out, p, sizeof p);
    if (rc == CB_OK) rc = cb_buf_add(out, a->text.base, a->text.len);
    if (rc == CB_OK) rc = cb_buf_add(out, a->records.base, a->records.len);
    return rc == CB_OK ? cb_buf_add(out, a->table.base, a->table.len) : rc;
}
