/* Where lines of cb-edge go. One writer serves all threads for the life of the process; a configuration with another
 * target opens that beforehand, which may fail, and then exchanges both, which cannot. */
#include "edge.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cb_log_writer_opts opts_of(const edge_conf *c) {
    const edge_log_conf *l = c->log;
    return (cb_log_writer_opts){.size = sizeof(cb_log_writer_opts),
                                .target = l->target,
                                .levels = l->levels,
                                .format = l->format,
                                .app_name = EDGE_WHAT};
}

int edge_log_begin(edge *e) {
    int rc = cb_log_writer_open(&e->writer, CB_OPTS(cb_log_writer_opts, .target = "-", .app_name = EDGE_WHAT));
    if (rc < 0) {
        fprintf(stderr, "cb-edge: %s\n", cb_last_error());
        return rc;
    }
    e->log = cb_log_writer_hook(e->writer);
    e->log_target = (edge_log_conf){.target = "-", .format = CB_LOG_TEXT};
    return CB_OK;
}

bool edge_log_is_file(const edge_conf *c) {
    const char *t = c->log->target;
    return strcmp(t, "-") != 0 && strcmp(t, "syslog") != 0 && strncmp(t, "udp:", 4) != 0;
}

int edge_log_prepare(edge *e, edge_snapshot *next, edge_source *from) {
    const edge_conf *c = next->conf;
    const cb_log_writer_opts o = opts_of(c);
    if (strcmp(c->log->target, e->log_target.target) == 0 && c->log->format == e->log_target.format) return CB_OK;
    return cb_log_writer_open(&e->next_writer, &o) < 0 ? edge_wrong(from, cb_last_error(), "/log/target") : CB_OK;
}

void edge_log_abort(edge *e) {
    cb_log_writer_free(e->next_writer);
    e->next_writer = NULL;
}

void edge_log_commit(edge *e, edge_snapshot *s) {
    if (e->next_writer)
        cb_log_writer_swap(e->writer, e->next_writer);
    else
        cb_log_writer_levels(e->writer, s->conf->log->levels); /* the schema has seen to it that they are good */
    edge_log_abort(e);                                         /* the old target still gets what was logged before */
    cb_config *before = e->log_config;
    e->log_config = cb_config_ref(s->config);
    e->log_target = *s->conf->log;
    cb_config_unref(before);
}

void edge_log_reopen(edge *e) {
    if (cb_log_writer_reopen(e->writer) < 0) edge_say(e->log, CB_LOG_ERROR, "the old log goes on: %s", cb_last_error());
}

void edge_log_end(edge *e) {
    edge_log_abort(e);
    cb_log_writer_free(e->writer);
    e->writer = NULL;
    cb_config_unref(e->log_config);
    e->log_config = NULL;
}

int edge_log_check(const edge_conf *c, edge_source *from) {
    const cb_log_writer_opts o = opts_of(c);
    int rc = cb_log_writer_check(&o);
    return rc < 0 ? edge_wrong(from, cb_last_error(), "/log/target") : CB_OK;
}

/* ---- lines of the daemon itself ---- */

void edge_say_of(const cb_log *log, int level, const char *module, const char *fmt, ...) {
    char text[1024];
    va_list ap;
    if (level < __atomic_load_n(&log->level, __ATOMIC_RELAXED)) return; /* of the writer, which changes it as it runs */
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    log->write(level, module, text, log->user);
}
