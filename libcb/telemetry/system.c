#include "telemetry/system.h"
#include "base/error.h"
#include "base/mem.h"
#include "base/opts.h"
#include "telemetry/metrics_int.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
    uint32_t part;
    void (*collect)(cb_system *);
} parts[] = {{CB_SYSTEM_PROCESS, cb_system_process},
             {CB_SYSTEM_INTERFACES, cb_system_interfaces},
             {CB_SYSTEM_KERNEL, cb_system_kernel}};

char *cb_system_read(cb_system *s, const char *folder, const char *name) {
    char path[PATH_MAX];
    size_t len = 0;
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path) return NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return NULL;
    for (ssize_t n = 1; n != 0 && len < sizeof s->text - 1;) {
        n = read(fd, s->text + len, sizeof s->text - 1 - len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break; /* such as "speed" of an interface without a carrier */
        len += (size_t)n;
    }
    close(fd);
    s->text[len] = '\0';
    return len > 0 ? s->text : NULL;
}

void cb_system_show(cb_system *s, enum cb_metric_row family, const char *label, uint64_t value) {
    cb_counter *c = NULL;
    cb_gauge *g = NULL;
    cb_metric *f = s->families[family];
    const cb_slice values = cb_slice_str(label);
    if (f->shape.kind == CB_METRIC_COUNTER && cb_meter_counter(&c, s->meter, f, &values) == CB_OK)
        cb_counter_set(c, value);
    if (f->shape.kind == CB_METRIC_GAUGE && cb_meter_gauge(&g, s->meter, f, &values) == CB_OK)
        cb_gauge_set(g, (int64_t)value);
}

static void collect(cb_meter *meter, void *user) {
    cb_system *s = user;
    s->meter = meter;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (s->parts & parts[i].part) parts[i].collect(s);
}

static void drop(void *user) {
    cb_system *s = user;
    cb_alloc alloc = s->alloc;
    cb_mem_free(&alloc, s->proc);
    cb_mem_free(&alloc, s->sys);
    cb_mem_free(&alloc, s);
}

/* The families of a part stand together in the catalogue. */
static int define(cb_system *s, cb_metrics *m) {
    static const struct {
        uint32_t part;
        enum cb_metric_row first, last;
    } ranges[] = {{CB_SYSTEM_PROCESS, CB_F_PROCESS_CPU, CB_F_BUILD},
                  {CB_SYSTEM_INTERFACES, CB_F_IF_UP, CB_F_IF_COLLISIONS},
                  {CB_SYSTEM_KERNEL, CB_F_IP_RECEIVED, CB_F_SOFTNET_SQUEEZED}};
    int rc = CB_OK;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        for (int f = ranges[i].first; f <= (int)ranges[i].last && rc == CB_OK; f++)
            if (s->parts & ranges[i].part) rc = cb_catalogue_define(&s->families[f], m, (enum cb_metric_row)f);
    return rc;
}

int cb_metrics_add_system(cb_metrics *m, const cb_system_opts *opts) {
    enum { ALL = CB_SYSTEM_PROCESS | CB_SYSTEM_INTERFACES | CB_SYSTEM_KERNEL };
    cb_system_opts o;
    int rc = cb_opts_read(&o, sizeof o, opts, "cb_system_opts");
    if (rc < 0) return rc;
    if (!m) return cb_fail(CB_EINVAL, "cb_metrics_add_system: m is needed");
    if (o.parts & ~(uint32_t)ALL) return cb_fail(CB_EINVAL, "cb_metrics_add_system: parts %#x: no such bits", o.parts);
    cb_system *s = cb_mem_new(&m->alloc, sizeof *s);
    if (!s) return cb_fail(CB_ENOMEM, "no memory for metrics of the system");
    s->alloc = m->alloc;
    s->parts = o.parts ? o.parts : ALL;
    s->proc = cb_mem_text(&s->alloc, o.proc ? o.proc : "/proc");
    s->sys = cb_mem_text(&s->alloc, o.sys ? o.sys : "/sys");
    rc = s->proc && s->sys ? define(s, m) : cb_fail(CB_ENOMEM, "no memory for metrics of the system");
    if (rc == CB_OK) rc = cb_metrics_collect_with(m, collect, s, drop);
    if (rc < 0) drop(s);
    return rc;
}
