/* What the head and the body of a request must be before its resource sees it. Each check answers by itself. */
#include "admin/admin_int.h"
#include "admin/match.h"
#include "auth/base64url.h"
#include "auth/json.h"
#include "base/error.h"
#include "http/fields.h"
#include <gnutls/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the head ---- */

static bool refuse_missing(cb_admin_call *c) {
    if (c->row) return false;
    if (*c->allow)
        (void)cb_admin_problemf(c, 405, "here are %s", c->allow);
    else
        (void)cb_admin_problemf(c, 404, "there is nothing at %.200s", c->target.path);
    return true;
}

/* A browser sends a client's certificate for whichever page asks it to: pages of others are turned away. */
static bool refuse_page(cb_admin_call *c) {
    const cb_slice origin = cb_exchange_field(c->x, "origin"), site = cb_exchange_field(c->x, "sec-fetch-site");
    const cb_slice scheme = cb_exchange_scheme(c->x), authority = cb_exchange_authority(c->x);
    bool own = !site.base || cb_slice_eq(site, "same-origin") || cb_slice_eq(site, "none");
    if (own && origin.base)
        own = origin.len == scheme.len + 3 + authority.len && memcmp(origin.base, scheme.base, scheme.len) == 0 &&
              memcmp(origin.base + scheme.len, "://", 3) == 0 &&
              memcmp(origin.base + scheme.len + 3, authority.base, authority.len) == 0;
    if (own) return false;
    c->denied = CB_C_ADMIN_DENIED_PAGE;
    (void)cb_admin_problemf(c, 403, "pages of other sites may not ask here");
    return true;
}

static bool param_known(const cb_admin_row *row, const char *name) {
    const uint32_t flags = row->r.flags;
    if (strcmp(name, "limit") == 0 || strcmp(name, "cursor") == 0) return flags & CB_ADMIN_PAGES;
    if (strcmp(name, "dry_run") == 0) return flags & CB_ADMIN_DRY_RUN;
    for (size_t i = 0; i < row->r.n_query; i++)
        if (strcmp(row->r.query[i].name, name) == 0) return true;
    return false;
}

static bool refuse_cursor(cb_admin_call *c, const char *text) {
    const size_t len = strlen(text);
    char room[CB_ADMIN_CURSOR_BYTES + 4];
    int64_t n = len <= cb_base64url_chars(CB_ADMIN_CURSOR_BYTES - 1) ? cb_base64url_decode(room, text, len) : -1;
    if (n <= 0 || n >= CB_ADMIN_CURSOR_BYTES || memchr(room, '\0', (size_t)n)) {
        (void)cb_admin_problemf(c, 400, "cursor: this is none that a page gave");
        return true;
    }
    memcpy(c->cursor, room, (size_t)n);
    c->cursor[n] = '\0';
    return false;
}

static bool refuse_query(cb_admin_call *c) {
    for (uint32_t i = 0; i < c->target.n_query; i++) {
        if (param_known(c->row, c->target.names[i])) continue;
        (void)cb_admin_problemf(c, 400, "the query parameter \"%.100s\" is not known here", c->target.names[i]);
        return true;
    }
    uint64_t limit = CB_ADMIN_PAGE;
    const int rc = cb_admin_query_uint(c, "limit", CB_ADMIN_PAGE_MAX, &limit);
    if (rc == CB_EINVAL) return true;
    if (limit == 0) {
        (void)cb_admin_problemf(c, 400, "limit: 1 to %d", CB_ADMIN_PAGE_MAX);
        return true;
    }
    c->limit = (uint32_t)limit;
    const char *dry = cb_admin_target_query(&c->target, "dry_run");
    c->dry_run = dry && strcmp(dry, "true") == 0;
    if (dry && !c->dry_run && strcmp(dry, "false") != 0) {
        (void)cb_admin_problemf(c, 400, "dry_run: true or false");
        return true;
    }
    const char *cursor = cb_admin_target_query(&c->target, "cursor");
    return cursor && refuse_cursor(c, cursor);
}

static void trim(cb_slice *s) {
    while (s->len && (s->base[0] == ' ' || s->base[0] == '\t'))
        s->base++, s->len--;
    while (s->len && (s->base[s->len - 1] == ' ' || s->base[s->len - 1] == '\t'))
        s->len--;
}

/* The part before the parameters. */
static cb_slice media(cb_slice s) {
    const uint8_t *end = s.len ? memchr(s.base, ';', s.len) : NULL;
    if (end) s.len = (size_t)(end - s.base);
    trim(&s);
    return s;
}

/* q=0 and its spellings: not wanted. */
static bool unwanted(cb_slice range) {
    const uint8_t *at = range.base, *end = range.base + range.len;
    while ((at = memchr(at, ';', (size_t)(end - at)))) {
        cb_slice p = {at + 1, (size_t)(end - at - 1)};
        trim(&p);
        at++;
        if (p.len < 3 || (p.base[0] | 0x20) != 'q' || p.base[1] != '=' || p.base[2] != '0') continue;
        size_t i = 3;
        while (i < p.len && (p.base[i] == '.' || p.base[i] == '0'))
            i++;
        if (i == p.len || p.base[i] == ';' || p.base[i] == ' ') return true;
    }
    return false;
}

/* Does a range of Accept cover the type? The one that names it most closely decides. */
static bool acceptable(cb_slice accept, const char *type) {
    const size_t main_len = (size_t)(strchr(type, '/') - type) + 1;
    int closest = 0;
    bool good = !accept.base;
    cb_slice range;
    while (cb_list_next(&accept, &range)) {
        const cb_slice name = media(range);
        int how = 0;
        if (cb_slice_ieq(name, type))
            how = 3;
        else if (name.len == main_len + 1 && name.base[main_len] == '*' &&
                 !strncasecmp((const char *)name.base, type, main_len))
            how = 2;
        else if (cb_slice_eq(name, "*/*"))
            how = 1;
        if (how < closest || !how) continue;
        closest = how;
        good = !unwanted(range);
    }
    return good;
}

static bool refuse_accept(cb_admin_call *c) {
    const char *type = c->row->r.produces ? c->row->r.produces : "application/json";
    if (c->row->scrape || acceptable(cb_exchange_field(c->x, "accept"), type)) return false;
    (void)cb_admin_problemf(c, 406, "this is %s", type);
    return true;
}

static const char *consumes(const cb_admin_row *row) {
    if (row->r.consumes) return row->r.consumes;
    return row->r.document || row->r.flags & CB_ADMIN_RAW ? "application/json" : NULL;
}

/* The type is one of the list, in lower case as the list is. */
static bool keep_type(cb_admin_call *c, cb_slice type, const char *list) {
    cb_slice rest = cb_slice_str(list), one;
    if (type.len >= sizeof c->content_type) return false;
    for (size_t i = 0; i < type.len; i++)
        c->content_type[i] = (char)(type.base[i] >= 'A' && type.base[i] <= 'Z' ? type.base[i] + 32 : type.base[i]);
    c->content_type[type.len] = '\0';
    while (cb_list_next(&rest, &one))
        if (cb_slice_eq(one, c->content_type)) return true;
    return false;
}

static bool refuse_body(cb_admin_call *c) {
    const int64_t length = cb_exchange_length(c->x);
    const cb_slice type = cb_exchange_field(c->x, "content-type"), coding = cb_exchange_field(c->x, "content-encoding");
    const char *list = consumes(c->row);
    const uint32_t max = c->a->o.max_body_bytes;
    if (length > (int64_t)max)
        (void)cb_admin_problemf(c, 413, "a body has at most %u bytes", max);
    else if (!list && length > 0)
        (void)cb_admin_problemf(c, 400, "this takes no body");
    else if (list && type.base && !keep_type(c, media(type), list))
        (void)cb_admin_problemf(c, 415, "a body is %s", list);
    else if (list && !type.base && length > 0)
        (void)cb_admin_problemf(c, 415, "a body needs a content-type: %s", list);
    else if (coding.base && !cb_slice_ieq(coding, "identity"))
        (void)cb_admin_problemf(c, 415, "bodies are taken without a content-encoding");
    else
        return false;
    return true;
}

static bool refuse_conditions(cb_admin_call *c) {
    const cb_slice key = cb_exchange_field(c->x, "idempotency-key");
    if (c->row->r.flags & CB_ADMIN_MATCH && !cb_exchange_field(c->x, "if-match").base)
        (void)cb_admin_problemf(c, 428, "say with If-Match which state this is a change of");
    else if (c->row->r.flags & CB_ADMIN_CHANGES && key.base && !cb_replay_key(key).len)
        (void)cb_admin_problemf(c, 400, "Idempotency-Key: 1 to %d printable characters without blanks", CB_REPLAY_KEY);
    else
        return false;
    return true;
}

/* A change that was begun goes on when its client is gone, and under the same conditions. */
static bool keep_conditions(cb_admin_call *c) {
    static const char *const names[] = {"if-match", "if-none-match"};
    char **const kept[] = {&c->if_match, &c->if_none_match};
    for (size_t i = 0; i < 2; i++) {
        const cb_slice v = cb_exchange_field(c->x, names[i]);
        if (!v.base) continue;
        *kept[i] = cb_mem_get(c->a->alloc, v.len + 1);
        if (!*kept[i]) {
            (void)cb_admin_problemf(c, 503, "no memory");
            return true;
        }
        memcpy(*kept[i], v.base, v.len);
        (*kept[i])[v.len] = '\0';
    }
    return false;
}

bool cb_admin_check_head(cb_admin_call *c) {
    return keep_conditions(c) || refuse_page(c) || refuse_missing(c) || refuse_query(c) || refuse_accept(c) ||
           refuse_body(c) || refuse_conditions(c);
}

/* ---- the body ---- */

static bool refuse_absent(cb_admin_call *c) {
    const char *list = consumes(c->row);
    if (!list && c->body.len)
        (void)cb_admin_problemf(c, 400, "this takes no body");
    else if (list && c->body.len && !*c->content_type)
        (void)cb_admin_problemf(c, 415, "a body needs a content-type: %s", list);
    else if (list && !c->body.len && !(c->row->r.flags & CB_ADMIN_OPTIONAL) && c->x &&
             cb_exchange_version(c->x) == CB_HTTP_1 && cb_exchange_length(c->x) < 0)
        (void)cb_admin_problemf(c, 411, "a body is needed");
    else if (list && !c->body.len && !(c->row->r.flags & CB_ADMIN_OPTIONAL))
        (void)cb_admin_problemf(c, 400, "a body is needed");
    else
        return false;
    return true;
}

static bool is_json(const char *type) {
    const size_t n = strlen(type);
    return strcmp(type, "application/json") == 0 || (n > 5 && strcmp(type + n - 5, "+json") == 0);
}

static void on_mistake(const cb_config_error *e, void *user) {
    cb_admin_mistake(user, e->pointer, e->text, e->line, e->column);
}

static bool refuse_json(cb_admin_call *c) {
    cb_json json = {0};
    const cb_slice body = cb_buf_slice(&c->body);
    if (!body.len || c->row->r.flags & CB_ADMIN_RAW || !is_json(c->content_type)) return false;
    const int rc = cb_json_open(&json, body);
    cb_json_close(&json);
    if (rc != CB_OK) {
        (void)cb_admin_problemf(c, rc == CB_ENOMEM ? 503 : 400, "%s", cb_last_error());
        return true;
    }
    if (!c->row->r.document || cb_config_parse(&c->config, c->row->r.document, body, "body", on_mistake, c) == CB_OK)
        return false;
    (void)cb_admin_problemf(c, 400, "%s", cb_last_error());
    return true;
}

/* What makes two requests the same. */
static int print_of(const cb_admin_call *c, uint8_t out[CB_REPLAY_PRINT]) {
    const cb_slice parts[] = {cb_exchange_method(c->x), cb_exchange_path(c->x), cb_slice_str(c->content_type),
                              cb_exchange_field(c->x, "if-match"), cb_buf_slice(&c->body)};
    gnutls_hash_hd_t hash;
    if (gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) < 0) return cb_fail(CB_ETLS, "SHA-256");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const uint64_t len = parts[i].len;
        gnutls_hash(hash, &len, sizeof len);
        if (len) gnutls_hash(hash, parts[i].base, parts[i].len);
    }
    gnutls_hash_deinit(hash, out);
    return CB_OK;
}

static void replay(cb_admin_call *c, const cb_replay *e) {
    cb_cells_add(cb_loop_cells(c->a->loop), CB_C_ADMIN_REPLAYED, 1);
    if (e->large) {
        (void)cb_admin_problemf(c, 409, "this was done before; its answer (%d) was too long to be kept", e->status);
        return;
    }
    snprintf(c->etag, sizeof c->etag, "%s", e->etag);
    cb_admin_location(c, e->location);
    (void)cb_admin_answer(c, e->status, *e->type ? e->type : NULL, (cb_slice){e->body, e->len});
}

static bool answered_before(cb_admin_call *c) {
    uint8_t print[CB_REPLAY_PRINT];
    cb_replay *e = NULL;
    if (!(c->row->r.flags & CB_ADMIN_CHANGES) || !c->x) return false;
    const cb_slice key = cb_replay_key(cb_exchange_field(c->x, "idempotency-key"));
    if (!key.len) return false;
    int rc = print_of(c, print);
    if (rc == CB_OK) rc = cb_replays_enter(&c->a->replays, c->who.p.name, key, print, cb_loop_now(c->a->loop), &e);
    if (rc == CB_OK) {
        c->replay = e;
        return false;
    }
    if (rc < 0)
        (void)cb_admin_problemf(c, rc == CB_ELIMIT ? 429 : 503, "%s", cb_last_error());
    else if (memcmp(e->print, print, sizeof print) != 0)
        (void)cb_admin_problemf(c, 422, "this Idempotency-Key was used for another request");
    else if (!e->done)
        (void)cb_admin_problemf(c, 409, "the same request is under way");
    else
        replay(c, e);
    return true;
}

bool cb_admin_check_body(cb_admin_call *c) {
    return refuse_absent(c) || refuse_json(c) || answered_before(c);
}
