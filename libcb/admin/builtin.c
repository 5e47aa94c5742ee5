/* The resources that every daemon has: health, metrics, the description, who asks. */
#include "admin/admin_int.h"
#include "base/error.h"
#include <string.h>

#define HEALTH_SCHEMA                                                                                                  \
    "{\"type\":\"object\",\"required\":[\"ok\"],\"properties\":{\"ok\":{\"type\":\"boolean\"},"                        \
    "\"live\":{\"type\":\"boolean\"},\"ready\":{\"type\":\"boolean\"},\"why\":{\"type\":\"string\"}}}"

static int answer_health(cb_admin_call *c, bool ok, const char *why) {
    cb_json_out *o = cb_admin_json(c);
    cb_json_put_object(o, NULL);
    cb_json_put_bool(o, "ok", ok);
    cb_json_put_bool(o, "live", c->a->alive);
    cb_json_put_bool(o, "ready", c->a->ready);
    if (*why) cb_json_put_str(o, "why", why);
    cb_json_put_end(o);
    return cb_admin_send(c, ok ? 200 : 503);
}

static int get_live(cb_admin_call *c, void *user) {
    cb_admin *a = user;
    return answer_health(c, a->alive, a->alive ? "" : a->why_alive);
}

static int get_ready(cb_admin_call *c, void *user) {
    cb_admin *a = user;
    return answer_health(c, a->ready, a->why_ready);
}

static int get_health(cb_admin_call *c, void *user) {
    cb_admin *a = user;
    return answer_health(c, a->alive && a->ready, a->alive ? a->why_ready : a->why_alive);
}

static int get_metrics(cb_admin_call *c, void *user) {
    cb_admin *a = user;
    if (a->n_scrapes >= CB_ADMIN_SCRAPES)
        return cb_admin_problemf(c, 503, "%zu scrapes are on their way", a->n_scrapes);
    cb_exchange *x = c->x;
    if (!x) return cb_fail(CB_ECLOSED, "the client is gone");
    c->scraping = true; /* until its last byte is taken: a page may be large, and its reader slow */
    a->n_scrapes++;
    const int rc = cb_exchange_send_metrics(x, a->o.metrics);
    if (rc < 0) return rc;
    a->n_waiting--;
    cb_admin_count(c, 200);
    c->answered = true;
    return CB_OK;
}

static int get_description(cb_admin_call *c, void *user) {
    cb_slice text;
    const int rc = cb_admin_describe(user, &text);
    return rc < 0 ? rc : cb_admin_send_json(c, 200, text);
}

static void put_texts(cb_json_out *o, const char *name, const char *const *texts, size_t n) {
    cb_json_put_list(o, name);
    for (size_t i = 0; i < n; i++)
        cb_json_put_str(o, NULL, texts[i]);
    cb_json_put_end(o);
}

static void put_rights(cb_json_out *o, uint32_t rights) {
    static const char *const names[] = {"read",   "read-tenant",  "metrics",       "operate",
                                        "change", "change-owned", "change-tenant", "audit"};
    cb_json_put_list(o, "rights");
    for (uint32_t i = 0; i < sizeof names / sizeof *names; i++)
        if (rights >> i & 1) cb_json_put_str(o, NULL, names[i]);
    cb_json_put_end(o);
}

static int get_whoami(cb_admin_call *c, void *user) {
    const cb_admin_principal *p = cb_admin_who(c);
    cb_json_out *o = cb_admin_json(c);
    (void)user;
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "name", p->name);
    cb_json_put_str(o, "door", p->door);
    if (p->tenant) cb_json_put_str(o, "tenant", p->tenant);
    cb_json_put_list(o, "roles");
    for (uint32_t role = CB_ROLE_VIEWER; role <= CB_ROLE_AUDITOR; role *= 2)
        if (p->roles & role) cb_json_put_str(o, NULL, cb_admin_role_name((int)role));
    cb_json_put_end(o);
    put_rights(o, p->rights);
    put_texts(o, "owned", p->owned, p->n_owned);
    put_texts(o, "tenants", p->tenants, p->n_tenants);
    cb_json_put_end(o);
    return cb_admin_send(c, 200);
}

typedef struct row {
    const char *path, *id, *summary;
    uint32_t rights;
    const char *produces, *schema;
    int (*handle)(cb_admin_call *c, void *user);
    bool open, scrape;
} row;

static int add(cb_admin *a, const row *r) {
    cb_admin_row *made = NULL;
    const cb_admin_resource resource = {.size = sizeof resource,
                                        .method = "GET",
                                        .path = r->path,
                                        .id = r->id,
                                        .summary = r->summary,
                                        .rights = r->rights,
                                        .produces = r->produces,
                                        .answer_schema = r->schema,
                                        .handle = r->handle};
    const int rc = cb_admin_router_add(&a->router, &resource, a, &made);
    if (rc < 0) return rc;
    made->open = r->open;
    made->scrape = r->scrape;
    return CB_OK;
}

int cb_admin_builtin(cb_admin *a) {
    static const row rows[] = {
        {"/livez", "livez", "Does the process turn?", 0, NULL, HEALTH_SCHEMA, get_live, true, false},
        {"/readyz", "readyz", "Does it take requests?", 0, NULL, HEALTH_SCHEMA, get_ready, true, false},
        {"/healthz", "healthz", "Is it well: both of these?", 0, NULL, HEALTH_SCHEMA, get_health, true, false},
        {"/v1/openapi.json", "getDescription", "This description", 0, NULL, "{\"type\":\"object\"}", get_description,
         false, false},
        {"/v1/whoami", "whoami", "Who asks, and what they may", 0, NULL,
         "{\"type\":\"object\",\"required\":[\"name\",\"roles\",\"rights\"]}", get_whoami, false, false},
    };
    static const row metrics = {"/metrics",       "getMetrics", "The page that Prometheus scrapes",
                                CB_RIGHT_METRICS, "text/plain", "{\"type\":\"string\"}",
                                get_metrics,      false,        true};
    int rc = CB_OK;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && rc == CB_OK; i++)
        rc = add(a, &rows[i]);
    if (rc == CB_OK && a->o.metrics) rc = add(a, &metrics);
    if (rc == CB_OK && a->o.log_writer) rc = cb_admin_builtin_log(a);
    if (rc == CB_OK && (a->o.audit || a->o.needs_audit)) rc = cb_admin_builtin_audit(a);
    return rc == CB_OK ? cb_admin_builtin_events(a) : rc;
}
