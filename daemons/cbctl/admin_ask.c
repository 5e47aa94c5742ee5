/* One request to the admin interface, and what its answer means for a person and for a script. */
#include "admin.h"
#include "text.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { ANSWER_MAX = 64 << 20, FIELDS_MAX = 8, URL_BYTES = 8192 };

struct cbctl_asking {
    cbctl_admin *a;
    cbctl_question q;
    cb_exchange *x; /* NULL: over */
    cbctl_answer r;
    size_t cap;
    const char *body; /* what is left to send */
    size_t left;
    int rc;
    char why[400];
    bool too_large, wrong_type, out_of_patience;
    cb_timer *patience; /* with on_data: for the head */
    cbctl_over_fn over;
    void *user;
};

void cbctl_answer_free(cbctl_answer *r) {
    free(r->body);
    *r = (cbctl_answer){0};
}

/* ---- callbacks ---- */

static void keep(char *to, size_t cap, cb_slice s) {
    snprintf(to, cap, "%.*s", (int)(s.len < cap ? s.len : cap - 1), s.len ? (const char *)s.base : "");
}

static int on_head(cb_exchange *x, void *user) {
    cbctl_asking *k = user;
    k->r.status = cb_exchange_status(x);
    keep(k->r.type, sizeof k->r.type, cb_exchange_field(x, "content-type"));
    keep(k->r.etag, sizeof k->r.etag, cb_exchange_field(x, "etag"));
    cb_timer_free(k->patience);
    k->patience = NULL;
    k->wrong_type = k->q.on_data && k->r.status == 200 && strncasecmp(k->r.type, k->q.accept, strlen(k->q.accept)) != 0;
    return k->wrong_type ? CB_EPROTO : CB_OK;
}

static void on_patience(cb_loop *loop, void *user) {
    cbctl_asking *k = user;
    (void)loop;
    k->out_of_patience = true;
    cb_exchange_reset(k->x, CB_RESET_CANCEL);
}

static int grow(cbctl_asking *k, size_t more) {
    if (k->r.len + more > ANSWER_MAX) {
        k->too_large = true;
        return CB_ELIMIT;
    }
    size_t cap = k->cap ? k->cap : 4096;
    while (cap < k->r.len + more + 1)
        cap *= 2;
    if (cap == k->cap) return CB_OK;
    char *grown = realloc(k->r.body, cap);
    if (!grown) return CB_ENOMEM;
    k->r.body = grown;
    k->cap = cap;
    return CB_OK;
}

static int64_t on_body(cb_exchange *x, cb_slice data, void *user) {
    cbctl_asking *k = user;
    (void)x;
    int rc = k->q.on_data && k->r.status == 200 ? k->q.on_data(data, k->q.user) : grow(k, data.len);
    if (rc < 0) return rc;
    if (!k->q.on_data || k->r.status != 200) {
        memcpy(k->r.body + k->r.len, data.base, data.len);
        k->r.len += data.len;
        k->r.body[k->r.len] = '\0';
    }
    return (int64_t)data.len;
}

static int on_writable(cb_exchange *x, void *user) {
    cbctl_asking *k = user;
    if (!k->body) return CB_OK;
    while (k->left) {
        const int64_t n = cb_exchange_write(x, (cb_slice){(const uint8_t *)k->body, k->left});
        if (n < 0) return n == CB_EAGAIN ? CB_OK : (int)n;
        k->body += n;
        k->left -= (size_t)n;
    }
    k->body = NULL;
    return cb_exchange_finish(x);
}

/* The detail without the name of whom it is about, which stands before it. */
static const char *reason(const cbctl_asking *k, const char *detail) {
    const char *place = k->a->place;
    if (strncmp(detail, "http+", 5) == 0) detail += 5;
    const size_t n = strlen(place);
    if (strncmp(detail, place, n) != 0) return detail;
    const char *rest = detail + n;
    if (*rest == ':' && rest[1] != ' ') rest += 1 + strspn(rest + 1, "0123456789"); /* the port */
    return strncmp(rest, ": ", 2) == 0 ? rest + 2 : detail;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    cbctl_asking *k = user;
    (void)x;
    k->x = NULL;
    k->rc = rc;
    snprintf(k->why, sizeof k->why, "%s", rc < 0 && *cb_last_error() ? reason(k, cb_last_error()) : cb_strerror(rc));
    if (k->over)
        k->over(k, k->user);
    else
        cb_loop_stop(k->a->loop);
}

static const cb_exchange_ops ops = {
    .size = sizeof ops, .on_head = on_head, .on_body = on_body, .on_writable = on_writable, .on_close = on_close};

/* ---- asking ---- */

static void add(cb_field *fields, size_t *n, const char *name, const char *value) {
    if (value && *value) fields[(*n)++] = (cb_field){cb_slice_str(name), cb_slice_str(value)};
}

static int send(cbctl_asking *k) {
    cbctl_admin *a = k->a;
    const cbctl_args *g = &a->args;
    const cbctl_question *q = &k->q;
    char url[URL_BYTES], length[24], match[96] = "";
    cb_field fields[FIELDS_MAX];
    size_t n = 0;
    const int len = snprintf(url, sizeof url, "%s%s", a->base, q->path);
    if (len < 0 || (size_t)len >= sizeof url) return cb_error_set(CB_EINVAL, "the path is too long");
    snprintf(length, sizeof length, "%zu", q->len);
    add(fields, &n, "accept", q->accept ? q->accept : "application/json, application/problem+json");
    add(fields, &n, "user-agent", "cbctl");
    add(fields, &n, "authorization", a->bearer);
    add(fields, &n, "last-event-id", q->last_event_id);
    if (q->body) add(fields, &n, "content-type", q->type);
    if (q->body) add(fields, &n, "content-length", length);
    if (q->change && g->if_match)
        snprintf(match, sizeof match, strchr(g->if_match, '"') || *g->if_match == '*' ? "%s" : "\"%s\"", g->if_match);
    add(fields, &n, "if-match", match);
    if (q->change) add(fields, &n, "idempotency-key", g->idempotency_key);
    const cb_request req = {.size = sizeof req,
                            .method = q->method,
                            .url = url,
                            .fields = fields,
                            .n_fields = n,
                            .connect_to = a->connect_to,
                            .timeout_ms = q->on_data      ? 0
                                          : q->timeout_ms ? q->timeout_ms
                                                          : a->patience_ms,
                            .has_body = q->body != NULL};
    return cb_http_request(&k->x, a->http, &req, &ops, k);
}

int cbctl_ask_start(cbctl_asking **out, cbctl_admin *a, const cbctl_question *q, cbctl_over_fn over, void *user) {
    cbctl_asking *k = calloc(1, sizeof *k);
    if (!k) return cbctl_failed(CB_ENOMEM);
    k->a = a;
    k->q = *q;
    k->body = q->body;
    k->left = q->len;
    k->over = over;
    k->user = user;
    int rc = send(k);
    if (rc >= 0 && q->body) rc = on_writable(k->x, k);
    if (rc >= 0 && q->on_data) rc = cb_timer_start(&k->patience, a->loop, a->patience_ms, 0, on_patience, k);
    if (rc < 0) {
        const int code = cbctl_failed(rc);
        if (k->x) cb_exchange_abandon(k->x);
        free(k);
        return code;
    }
    *out = k;
    return CBCTL_OK;
}

/* What went wrong below HTTP, as an exit code. */
static int transport_code(const cbctl_asking *k) {
    if (k->rc == CB_EPERM) return CBCTL_DENIED;
    return k->r.status ? CBCTL_FAILED : CBCTL_UNREACHABLE;
}

/* An answer of a kind that was not asked for. */
static int say_type(const cbctl_asking *k, char *why, size_t cap) {
    snprintf(why, cap, "%s: the answer is %s, not %s: is that an admin interface?", k->a->place,
             *k->r.type ? k->r.type : "of no type", k->q.accept);
    return CBCTL_FAILED;
}

static int verdict(const cbctl_asking *k, char *why, size_t cap) {
    why[0] = '\0';
    if ((k->q.enough && *k->q.enough) || (k->rc >= 0 && !k->x)) return CBCTL_OK;
    if (k->wrong_type) return say_type(k, why, cap);
    if (k->too_large) {
        snprintf(why, cap, "%s: the answer is larger than %d MiB", k->a->place, ANSWER_MAX >> 20);
        return CBCTL_FAILED;
    }
    if (k->out_of_patience || k->x)
        snprintf(why, cap, "%s: no answer in time", k->a->place);
    else
        snprintf(why, cap, k->r.status ? "%s: the answer was cut off: %s" : "%s: %s", k->a->place, k->why);
    if (!k->r.status && strstr(k->why, k->a->place)) snprintf(why, cap, "%s", k->why);
    return transport_code(k);
}

int cbctl_ask_end(cbctl_asking *k, cbctl_answer *r, char *why, size_t cap) {
    const int code = verdict(k, why, cap);
    if (k->x) cb_exchange_abandon(k->x);
    cb_timer_free(k->patience);
    *r = k->r;
    free(k);
    if (code != CBCTL_OK) cbctl_answer_free(r);
    return code;
}

/* ---- what is not good ---- */

static int code_of(int status, bool mistakes) {
    if (status >= 200 && status < 300) return CBCTL_OK;
    if (status == 401 || status == 403) return CBCTL_DENIED;
    if (status == 409 || status == 412 || status == 428) return CBCTL_CONFLICT;
    return mistakes ? CBCTL_INVALID : CBCTL_FAILED;
}

static uint32_t number_at(const json_node *o, const char *name) {
    const double n = json_number(json_get(o, name));
    return n > 0 && n < 1e9 ? (uint32_t)n : 0;
}

/* "file:line:column: pointer: text", as compilers write it. */
static void print_mistake(const json_node *m, const cbctl_question *q) {
    const char *pointer = json_text(m, "pointer"), *text = json_text(m, "detail");
    uint32_t line = number_at(m, "line"), column = number_at(m, "column");
    if (!line && q->whole && pointer) /* we have the text that it is about */
        (void)cb_document_where((cb_slice){(const uint8_t *)q->body, q->len}, pointer, &line, &column);
    cbctl_put(stderr, q->document ? q->document : "configuration");
    if (line) fprintf(stderr, ":%u", line);
    if (line && column) fprintf(stderr, ":%u", column);
    fputs(": ", stderr);
    if (pointer && *pointer) {
        cbctl_put(stderr, pointer);
        fputs(": ", stderr);
    }
    cbctl_put(stderr, text ? text : "not valid");
    putc('\n', stderr);
}

/* RFC 9457, or whatever came in its place. */
static int print_problem(const cbctl_admin *a, const cbctl_question *q, const cbctl_answer *r) {
    json_tree *tree = r->len && strstr(r->type, "json") ? json_read(r->body, r->len) : NULL;
    const json_node *p = json_root(tree);
    const char *title = json_text(p, "title"), *detail = json_text(p, "detail");
    const json_node *mistakes = json_get(p, "errors");
    const bool listed = json_is(mistakes, JSON_LIST) && mistakes->child;
    fprintf(stderr, "cbctl: %s: %d ", a->place, r->status);
    cbctl_put(stderr, title ? title : "is all that it says");
    if (detail) {
        fputs(": ", stderr);
        cbctl_put(stderr, detail);
    }
    putc('\n', stderr);
    for (const json_node *m = listed ? mistakes->child : NULL; m; m = m->next)
        print_mistake(m, q);
    if (p && a->args.json) cbctl_json_print(stdout, r->body, r->len);
    json_free(tree);
    return code_of(r->status, listed);
}

int cbctl_ask_quietly(cbctl_admin *a, const cbctl_question *q, cbctl_answer *r, char *why, size_t cap) {
    cbctl_asking *k = NULL;
    *r = (cbctl_answer){0};
    why[0] = '\0';
    int code = cbctl_ask_start(&k, a, q, NULL, NULL);
    if (code != CBCTL_OK) return code;
    while (k->x && cb_loop_alive(a->loop) && cb_loop_run(a->loop) >= 0)
        continue;
    return cbctl_ask_end(k, r, why, cap);
}

int cbctl_judge(const cbctl_admin *a, const cbctl_question *q, cbctl_answer *r) {
    if (r->status >= 200 && r->status < 300) return CBCTL_OK;
    int code = print_problem(a, q, r);
    cbctl_answer_free(r);
    return code;
}

int cbctl_ask(cbctl_admin *a, const cbctl_question *q, cbctl_answer *r) {
    char why[512];
    int code = cbctl_ask_quietly(a, q, r, why, sizeof why);
    if (code == CBCTL_OK) return cbctl_judge(a, q, r);
    if (*why) {
        fputs("cbctl: ", stderr);
        cbctl_put(stderr, why);
        putc('\n', stderr);
    }
    return code;
}

int cbctl_ask_json(cbctl_admin *a, const cbctl_question *q, json_tree **out, cbctl_answer *r) {
    int code = cbctl_ask(a, q, r);
    *out = NULL;
    if (code != CBCTL_OK) return code;
    const bool json = strncasecmp(r->type, "application/json", 16) == 0 || strstr(r->type, "+json");
    if (json) *out = json_read(r->body ? r->body : "", r->len);
    if (*out) return CBCTL_OK;
    fprintf(stderr, "cbctl: %s: the answer is ", a->place);
    cbctl_put(stderr, json ? "not JSON, although it says so" : *r->type ? r->type : "of no type");
    fputs(json ? "\n" : ", not JSON: is that an admin interface?\n", stderr);
    cbctl_answer_free(r);
    return CBCTL_FAILED;
}
