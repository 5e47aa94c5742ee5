#include "lb/node_shown.h"
#include "base/error.h"
#include "telemetry/catalogue.h"
#include <stddef.h>
#include <string.h>

typedef struct cb_lb_node_shown {
    cb_metrics *metrics;
    pthread_mutex_t lock; /* guards what follows */
    uint64_t version, applied, epoch, content, contact_ms, silent, records, tables, refused, waiting, late, troubles;
    uint64_t phases[6], buckets[4], members[4], changes[2], moves[3];
    bool spoken;
} shown;

typedef struct row {
    enum cb_metric_row family;
    size_t at;
    const char *label;
} row;

#define AT(field) offsetof(shown, field)

static const row rows[] = {
    {CB_F_LB_VERSION, AT(version), NULL},
    {CB_F_LB_APPLIED, AT(applied), NULL},
    {CB_F_LB_EPOCH, AT(epoch), NULL},
    {CB_F_LB_CONTENT, AT(content), NULL},
    {CB_F_LB_PHASE, AT(phases[0]), "starting"},
    {CB_F_LB_PHASE, AT(phases[1]), "writing"},
    {CB_F_LB_PHASE, AT(phases[2]), "joining"},
    {CB_F_LB_PHASE, AT(phases[3]), "following"},
    {CB_F_LB_PHASE, AT(phases[4]), "alone"},
    {CB_F_LB_PHASE, AT(phases[5]), "refused"},
    {CB_F_LB_BUCKETS, AT(buckets[0]), "stable"},
    {CB_F_LB_BUCKETS, AT(buckets[1]), "announced"},
    {CB_F_LB_BUCKETS, AT(buckets[2]), "moved"},
    {CB_F_LB_BUCKETS, AT(buckets[3]), "unowned"},
    {CB_F_LB_MEMBERS, AT(members[0]), "up"},
    {CB_F_LB_MEMBERS, AT(members[1]), "draining"},
    {CB_F_LB_MEMBERS, AT(members[2]), "dead"},
    {CB_F_LB_MEMBERS, AT(members[3]), "absent"},
    {CB_F_LB_SILENT, AT(silent), NULL},
    {CB_F_LB_RECORDS, AT(records), NULL},
    {CB_F_LB_TABLES, AT(tables), NULL},
    {CB_F_LB_REFUSED, AT(refused), NULL},
    {CB_F_LB_CHANGES, AT(changes[0]), "died"},
    {CB_F_LB_CHANGES, AT(changes[1]), "rose"},
    {CB_F_LB_MOVES, AT(moves[0]), "planned"},
    {CB_F_LB_MOVES, AT(moves[1]), "taken"},
    {CB_F_LB_MOVES, AT(moves[2]), "forced"},
    {CB_F_LB_LATE, AT(late), NULL},
    {CB_F_LB_WAITING, AT(waiting), NULL},
    {CB_F_LB_TROUBLE, AT(troubles), NULL},
};

static void show(cb_meter *meter, cb_metrics *m, enum cb_metric_row family, const char *label, uint64_t value) {
    const cb_slice values[] = {cb_slice_str(label)};
    cb_metric *f = NULL;
    cb_counter *counter = NULL;
    cb_gauge *gauge = NULL;
    if (cb_catalogue_define(&f, m, family) < 0) return;
    if (cb_meter_counter(&counter, meter, f, label ? values : NULL) == CB_OK)
        cb_counter_set(counter, value);
    else if (cb_meter_gauge(&gauge, meter, f, label ? values : NULL) == CB_OK)
        cb_gauge_set(gauge, (int64_t)value);
}

static void collect(cb_meter *meter, void *user) {
    shown *s = user;
    pthread_mutex_lock(&s->lock);
    const shown now = *s;
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint64_t value;
        memcpy(&value, (const uint8_t *)&now + rows[i].at, sizeof value);
        show(meter, s->metrics, rows[i].family, rows[i].label, value);
    }
    if (now.spoken) show(meter, s->metrics, CB_F_LB_CONTACT, NULL, now.contact_ms);
}

static void count_members(const cb_lb_node *n, shown *s, cb_time now) {
    cb_lb_node_info m = {.size = sizeof m};
    memset(s->members, 0, sizeof s->members);
    for (size_t i = 0; cb_lb_core_info(n->core, i, &m, now) == CB_OK; i++) {
        s->members[m.state < 0 ? 3 : m.state]++;
        s->troubles += *m.trouble != 0;
    }
}

void cb_lb_shown_update(cb_lb_node *n, cb_time now) {
    shown *s = n->shown;
    cb_lb_node_stats a;
    if (!s) return;
    cb_lb_core_stats(n->core, &a, now);
    pthread_mutex_lock(&s->lock);
    s->version = a.version;
    s->applied = a.applied;
    s->epoch = a.epoch;
    s->content = a.content >> 12; /* a double has no more */
    s->spoken = a.contact_ms != UINT64_MAX;
    s->contact_ms = a.contact_ms;
    s->silent = a.silent;
    s->records = a.records;
    s->tables = a.tables;
    s->refused = a.refused;
    s->waiting = a.writes.waiting;
    s->late = a.writes.late;
    s->troubles = *a.trouble != 0;
    for (int i = 0; i < 6; i++)
        s->phases[i] = a.phase == i;
    s->buckets[0] = a.buckets - a.announced - a.moved - a.unowned;
    s->buckets[1] = a.announced;
    s->buckets[2] = a.moved;
    s->buckets[3] = a.unowned;
    s->changes[0] = a.deaths;
    s->changes[1] = a.rises;
    s->moves[0] = a.writes.moves - a.writes.taken;
    s->moves[1] = a.writes.taken;
    s->moves[2] = a.writes.forced;
    count_members(n, s, now);
    pthread_mutex_unlock(&s->lock);
}

int cb_lb_node_metrics(cb_lb_node *n, cb_metrics *m) {
    if (!n || !m) return cb_fail(CB_EINVAL, "cb_lb_node_metrics: n and m are needed");
    if (n->shown) return cb_fail(CB_EEXIST, "cb_lb_node_metrics: it is shown already");
    shown *s = cb_mem_new(&cb_alloc_libc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for metrics");
    s->metrics = cb_metrics_ref(m);
    pthread_mutex_init(&s->lock, NULL);
    n->shown = s;
    cb_lb_shown_update(n, cb_loop_now(n->loop));
    int rc = cb_metrics_collector(m, collect, s);
    if (rc < 0) {
        n->shown = NULL;
        pthread_mutex_destroy(&s->lock);
        cb_metrics_unref(m);
        cb_mem_free(&cb_alloc_libc, s);
    }
    return rc;
}

void cb_lb_shown_free(cb_lb_node *n) {
    shown *s = n->shown;
    if (!s) return;
    cb_metrics_collector_remove(s->metrics, collect, s);
    cb_metrics_unref(s->metrics);
    pthread_mutex_destroy(&s->lock);
    cb_mem_free(&cb_alloc_libc, s);
    n->shown = NULL;
}
