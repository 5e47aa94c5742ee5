/* What a resource may ask of its call. */
#include "admin/admin_int.h"
#include "base/error.h"
#include <stdlib.h>
#include <string.h>

const cb_admin_principal *cb_admin_who(const cb_admin_call *c) {
    return &c->who.p;
}

cb_slice cb_admin_method(const cb_admin_call *c) {
    const bool head = strcmp(c->row->r.method, "GET") == 0 && c->x && cb_exchange_method(c->x).len == 4;
    return cb_slice_str(head ? "HEAD" : c->row->r.method);
}

const char *cb_admin_path(const cb_admin_call *c) {
    return c->target.path;
}

const char *cb_admin_param(const cb_admin_call *c, const char *name) {
    return cb_admin_row_param(c->row, &c->target, name);
}

const char *cb_admin_query(const cb_admin_call *c, const char *name) {
    return cb_admin_target_query(&c->target, name);
}

int cb_admin_query_uint(cb_admin_call *c, const char *name, uint64_t max, uint64_t *out) {
    const char *text = cb_admin_query(c, name);
    uint64_t n = 0;
    if (!text) return cb_fail(CB_ENOENT, "%s: absent", name);
    bool good = *text != '\0';
    for (const char *p = text; *p && good; p++) {
        const uint64_t digit = (uint64_t)(uint8_t)*p - '0';
        good = digit <= 9 && n <= (max - (digit <= max ? digit : max)) / 10 && digit <= max;
        n = n * 10 + digit;
    }
    if (good) {
        *out = n;
        return CB_OK;
    }
    (void)cb_admin_problemf(c, 400, "%s: a number up to %llu", name, (unsigned long long)max);
    return cb_fail(CB_EINVAL, "%s: a number up to %llu", name, (unsigned long long)max);
}

cb_slice cb_admin_body(const cb_admin_call *c) {
    return cb_buf_slice(&c->body);
}

cb_slice cb_admin_content_type(const cb_admin_call *c) {
    return cb_slice_str(c->content_type);
}

const void *cb_admin_document(const cb_admin_call *c) {
    return c->config ? cb_config_root(c->config) : NULL;
}

int cb_admin_dry_run(const cb_admin_call *c) {
    return c->dry_run;
}

cb_slice cb_admin_if_match(const cb_admin_call *c) {
    return cb_slice_str(c->if_match);
}

uint32_t cb_admin_limit(const cb_admin_call *c) {
    return c->limit;
}

const char *cb_admin_cursor(const cb_admin_call *c) {
    return *c->cursor ? c->cursor : NULL;
}

const cb_exchange *cb_admin_exchange(const cb_admin_call *c) {
    return c->x;
}

cb_loop *cb_admin_loop(const cb_admin_call *c) {
    return c->a->loop;
}

void cb_admin_call_keep(cb_admin_call *c, void *kept) {
    c->kept = kept;
}

void *cb_admin_call_kept(const cb_admin_call *c) {
    return c->kept;
}

void cb_admin_call_on_end(cb_admin_call *c, void (*fn)(cb_admin_call *call, void *user), void *user) {
    c->on_end = fn;
    c->on_end_user = user;
}
