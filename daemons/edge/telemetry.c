/* The registry of the process: libcb counts into it on every loop, and what only the daemon knows is read at a scrape.
 */
#include "admin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum edge_family {
#define X(id, module, kind, name, unit, decimals, labels, help) EDGE_F_##id,
#include "families.def"
#undef X
    EDGE_FAMILIES
};

static const struct {
    const char *name, *unit, *labels, *help;
    uint8_t kind, decimals;
} rows[] = {
#define X(id, module, kind, name, unit, decimals, labels, help) {name, unit, labels, help, CB_METRIC_##kind, decimals},
#include "families.def"
#undef X
};

struct edge_telemetry {
    edge *edge;
    cb_metrics *metrics;
    cb_metric *families[EDGE_FAMILIES];
    cb_meter *meter; /* of the main thread */
    cb_histogram *reload;
    cb_time offered;
    uint64_t revision, applied_ms;
    uint64_t reloads[EDGE_OUTCOMES], upgrades[EDGE_OUTCOMES];
    uint32_t processes;
    bool good;
    pthread_mutex_t lock; /* of all that a scrape reads */
    edge_snapshot *shown;
};

static uint64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- a scrape ---- */

typedef struct scrape {
    edge_telemetry *t;
    cb_meter *meter;
    const char *kind, *name; /* of what is looked at */
} scrape;

static void show(const scrape *s, enum edge_family f, int64_t value, const char *const *labels) {
    cb_slice values[CB_METRIC_LABELS_MAX];
    cb_counter *c = NULL;
    cb_gauge *g = NULL;
    size_t n = 0;
    for (; labels && labels[n]; n++)
        values[n] = cb_slice_str(labels[n]);
    if (rows[f].kind == CB_METRIC_COUNTER && cb_meter_counter(&c, s->meter, s->t->families[f], values) == CB_OK)
        cb_counter_set(c, (uint64_t)value);
    if (rows[f].kind == CB_METRIC_GAUGE && cb_meter_gauge(&g, s->meter, s->t->families[f], values) == CB_OK)
        cb_gauge_set(g, value);
}

#define SHOW(s, family, value, ...) show(s, family, (int64_t)(value), (const char *const[]){__VA_ARGS__, NULL})

static void show_process(const scrape *s) {
    edge_telemetry *t = s->t;
    const edge *e = t->edge;
    const char *why;
    pthread_mutex_lock(&t->lock);
    show(s, EDGE_F_CONFIG_REVISION, (int64_t)t->revision, NULL);
    show(s, EDGE_F_CONFIG_GOOD, t->good, NULL);
    show(s, EDGE_F_CONFIG_APPLIED, (int64_t)t->applied_ms, NULL);
    SHOW(s, EDGE_F_CONFIG_RELOADS, t->reloads[EDGE_GOOD], "applied");
    SHOW(s, EDGE_F_CONFIG_RELOADS, t->reloads[EDGE_BAD], "refused");
    SHOW(s, EDGE_F_UPGRADES, t->upgrades[EDGE_GOOD], "succeeded");
    SHOW(s, EDGE_F_UPGRADES, t->upgrades[EDGE_BAD], "failed");
    show(s, EDGE_F_PROCESSES, t->processes, NULL);
    pthread_mutex_unlock(&t->lock);
    show(s, EDGE_F_READY, edge_is_ready(e, &why), NULL);
    show(s, EDGE_F_DRAINING, atomic_load(&e->stopping), NULL);
}

static void show_workers(const scrape *s) {
    const edge *e = s->t->edge;
    char number[12];
    show(s, EDGE_F_WORKERS, e->n_workers, NULL);
    for (uint32_t i = 0; i < e->n_workers; i++) {
        snprintf(number, sizeof number, "%u", i);
        SHOW(s, EDGE_F_WORKER_SILENCE, edge_silence_ms(e, i), number);
    }
}

static void show_item(const cb_identity_item *item, void *user) {
    static const enum edge_family families[] = {[CB_IDENTITY_CERTIFICATE] = EDGE_F_CERT_EXPIRY,
                                                [CB_IDENTITY_CHAIN] = EDGE_F_CHAIN_EXPIRY,
                                                [CB_IDENTITY_OCSP] = EDGE_F_OCSP_DUE,
                                                [CB_IDENTITY_ROOTS] = EDGE_F_ROOTS_EXPIRY,
                                                [CB_IDENTITY_CRL] = EDGE_F_CRL_DUE};
    const scrape *s = user;
    if (item->until_s > 0) SHOW(s, families[item->kind], item->until_s, s->kind, s->name, item->name);
}

static void show_config(scrape *s, const edge_snapshot *now) {
    const edge_group_conf *groups = now->conf->groups.at;
    cb_tickets_stats tickets = {.size = sizeof tickets};
    show(s, EDGE_F_CONFIG_LISTENERS, (int64_t)now->conf->listeners.len, NULL);
    show(s, EDGE_F_CONFIG_GROUPS, (int64_t)now->conf->groups.len, NULL);
    show(s, EDGE_F_CONFIG_ROUTES, (int64_t)now->conf->routes.len, NULL);
    for (size_t i = 0; i < now->conf->groups.len; i++)
        SHOW(s, EDGE_F_CONFIG_ORIGINS, groups[i].origins.len, groups[i].name);
    s->kind = "listener";
    for (const edge_use *u = now->uses; u; u = u->next) {
        s->name = u->listener->conf->name;
        if (u->listener->identity) cb_identity_list(u->listener->identity, show_item, s);
    }
    s->kind = "group";
    for (const edge_origin_trust *o = now->origins; o; o = o->next) {
        s->name = o->name;
        cb_identity_list(o->identity, show_item, s);
    }
    if (cb_tickets_stats_get(now->tickets, &tickets) == CB_OK) show(s, EDGE_F_TICKET_KEY, tickets.newest_s, NULL);
}

static void show_acme(const edge_acme_item *item, void *user) {
    const scrape *s = user;
    SHOW(s, EDGE_F_ACME_DUE, item->due_s, item->issuer, item->certificate);
    SHOW(s, EDGE_F_ACME_STATE, 1, item->issuer, item->certificate, item->state);
    SHOW(s, EDGE_F_ACME_FAILURES, item->failures, item->issuer, item->certificate);
}

static void collect(cb_meter *meter, void *user) {
    scrape s = {.t = user, .meter = meter};
    edge_snapshot *now = edge_shown(s.t->edge);
    show_process(&s);
    if (!now) return; /* it starts */
    show_workers(&s);
    show_config(&s, now);
    edge_acme_list(s.t->edge->acme, show_acme, &s);
    edge_snapshot_unref(now);
}

/* ---- what happens ---- */

void edge_telemetry_show(edge *e, edge_snapshot *s) {
    edge_telemetry *t = e->telemetry;
    pthread_mutex_lock(&t->lock);
    edge_snapshot *before = t->shown;
    t->shown = s ? edge_snapshot_ref(s) : NULL;
    t->applied_ms = now_ms();
    if (s) t->revision++;
    pthread_mutex_unlock(&t->lock);
    edge_snapshot_unref(before);
}

edge_snapshot *edge_shown(edge *e) {
    edge_telemetry *t = e->telemetry;
    pthread_mutex_lock(&t->lock);
    edge_snapshot *s = t->shown ? edge_snapshot_ref(t->shown) : NULL;
    pthread_mutex_unlock(&t->lock);
    return s;
}

uint64_t edge_revision(const edge *e) {
    edge_telemetry *t = e->telemetry;
    pthread_mutex_lock(&t->lock);
    uint64_t n = t->revision;
    pthread_mutex_unlock(&t->lock);
    return n;
}

void edge_set_revision(edge *e, uint64_t number) {
    edge_telemetry *t = e->telemetry;
    pthread_mutex_lock(&t->lock);
    t->revision = number;
    pthread_mutex_unlock(&t->lock);
}

void edge_telemetry_offered(edge *e) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* the loop's clock stands still while files are read */
    e->telemetry->offered = (cb_time)t.tv_sec * 1000000000 + (cb_time)t.tv_nsec;
}

void edge_telemetry_decided(edge *e, enum edge_outcome o, bool by_file) {
    edge_telemetry *t = e->telemetry;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (o == EDGE_GOOD)
        cb_histogram_add(t->reload, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec - (uint64_t)t->offered);
    pthread_mutex_lock(&t->lock);
    t->reloads[o]++;
    if (by_file) t->good = o == EDGE_GOOD; /* who asked for another change was told */
    pthread_mutex_unlock(&t->lock);
    edge_event(e, "reload", "{\"outcome\":\"%s\",\"revision\":%llu}", o == EDGE_GOOD ? "applied" : "refused",
               (unsigned long long)edge_revision(e));
}

void edge_telemetry_upgraded(edge *e, enum edge_outcome o) {
    edge_telemetry *t = e->telemetry;
    pthread_mutex_lock(&t->lock);
    t->upgrades[o]++;
    pthread_mutex_unlock(&t->lock);
    edge_event(e, "upgrade", "{\"outcome\":\"%s\"}", o == EDGE_GOOD ? "succeeded" : "failed");
}

void edge_telemetry_look(edge *e) {
    edge_telemetry *t = e->telemetry;
    const uint32_t n = 1 + edge_elders(e);
    pthread_mutex_lock(&t->lock);
    t->processes = n;
    pthread_mutex_unlock(&t->lock);
}

/* ---- from one process to the next ---- */

int edge_telemetry_save(const edge *e, cb_handoff *h) {
    const uint64_t upgrades = e->telemetry->upgrades[EDGE_GOOD] + 1;
    return cb_handoff_put(h, "upgrades", (cb_slice){(const uint8_t *)&upgrades, sizeof upgrades});
}

void edge_telemetry_inherit(edge *e) {
    cb_slice kept;
    uint64_t n;
    edge_telemetry_look(e);
    if (!e->inherited || cb_handoff_get(e->inherited, "upgrades", &kept) < 0 || kept.len != sizeof n) return;
    memcpy(&n, kept.base, sizeof n);
    e->telemetry->upgrades[EDGE_GOOD] = n;
}

/* ---- life ---- */

static int define(edge_telemetry *t, enum edge_family f) {
    char text[128];
    const char *names[CB_METRIC_LABELS_MAX];
    char *rest = NULL;
    size_t n = 0;
    snprintf(text, sizeof text, "%s", rows[f].labels);
    for (char *name = strtok_r(text, ",", &rest); name && n < CB_METRIC_LABELS_MAX; name = strtok_r(NULL, ",", &rest)) {
        name[strcspn(name, "=")] = '\0';
        names[n++] = name;
    }
    return cb_metrics_define(&t->families[f], t->metrics,
                             CB_OPTS(cb_metric_opts, .name = rows[f].name, .help = rows[f].help, .unit = rows[f].unit,
                                     .kind = rows[f].kind, .decimals = rows[f].decimals, .labels = names,
                                     .labels_len = n));
}

int edge_telemetry_new(edge *e) {
    edge_telemetry *t = e->telemetry = calloc(1, sizeof *t);
    if (!t) return CB_ENOMEM;
    t->edge = e;
    t->good = true;
    t->processes = 1;
    pthread_mutex_init(&t->lock, NULL);
    int rc = cb_metrics_new(&t->metrics, NULL);
    if (rc == CB_OK) rc = cb_metrics_add_system(t->metrics, NULL);
    for (int f = 0; f < EDGE_FAMILIES && rc == CB_OK; f++)
        rc = define(t, (enum edge_family)f);
    if (rc == CB_OK) rc = cb_meter_new(&t->meter, t->metrics);
    if (rc == CB_OK) rc = cb_meter_histogram(&t->reload, t->meter, t->families[EDGE_F_CONFIG_RELOAD], NULL);
    if (rc == CB_OK) rc = cb_metrics_collector(t->metrics, collect, t);
    if (rc == CB_OK) rc = cb_log_writer_metrics(e->writer, t->metrics, "edge");
    if (rc < 0) edge_say(e->log, CB_LOG_ERROR, "metrics: %s", cb_last_error());
    return rc;
}

void edge_telemetry_free(edge *e) {
    edge_telemetry *t = e->telemetry;
    if (!t) return;
    if (t->metrics) cb_metrics_collector_remove(t->metrics, collect, t);
    cb_meter_free(t->meter);
    cb_metrics_unref(t->metrics);
    edge_snapshot_unref(t->shown);
    pthread_mutex_destroy(&t->lock);
    free(t);
    e->telemetry = NULL;
}

cb_metrics *edge_metrics(const edge *e) {
    return e->telemetry->metrics;
}
