/* What is wrong with a configuration: said to a person, and kept for whoever asked for it. */
#include "edge.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void say(const edge_source *s, int level, const char *text) {
    if (s->log)
        edge_say(s->log, level, "%s", text);
    else
        fprintf(stderr, "%s\n", text);
}

static void keep(edge_source *s, const char *pointer, const char *text, uint32_t line, uint32_t column) {
    if (s->n == EDGE_MISTAKES) return;
    edge_mistake *m = &s->mistakes[s->n++];
    *m = (edge_mistake){.line = line, .column = column};
    snprintf(m->pointer, sizeof m->pointer, "%s", pointer);
    snprintf(m->text, sizeof m->text, "%s", text);
}

void edge_wrong_at(const cb_config_error *e, void *source) {
    edge_source *s = source;
    char line[1200];
    keep(s, e->pointer, e->text, e->line, e->column);
    snprintf(line, sizeof line, "%s:%u:%u: %s%s%s", s->name, e->line, e->column, e->pointer, *e->pointer ? ": " : "",
             e->text);
    if (!s->quiet) say(s, CB_LOG_ERROR, line);
}

int edge_wrong(edge_source *s, const char *why, const char *fmt, ...) {
    char pointer[sizeof s->mistakes->pointer], line[1800];
    uint32_t row = 0, column = 0;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(pointer, sizeof pointer, fmt, ap);
    va_end(ap);
    snprintf(line, sizeof line, "%s: %s%s%s", s->name, pointer, *pointer ? ": " : "", why);
    char text[sizeof s->mistakes->text];
    snprintf(text, sizeof text, "%s", why); /* it may be the detail that the next call overwrites */
    if (s->text.base) (void)cb_document_where(s->text, pointer, &row, &column);
    keep(s, pointer, text, row, column);
    if (!s->quiet) say(s, CB_LOG_ERROR, line);
    return cb_error_set(CB_EINVAL, text);
}

void edge_note(const edge_source *s, const char *text) {
    char line[1200];
    snprintf(line, sizeof line, "%s: %s", s->name, text);
    if (!s->quiet) say(s, CB_LOG_ERROR, line);
}

void edge_warn(const edge_source *s, const char *why, const char *fmt, ...) {
    char pointer[sizeof s->mistakes->pointer], line[1800];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(pointer, sizeof pointer, fmt, ap);
    va_end(ap);
    snprintf(line, sizeof line, "%s: %s%swarning: %s", s->name, pointer, *pointer ? ": " : "", why);
    say(s, CB_LOG_WARN, line);
}

static int read_all(char *text, size_t room, int fd) {
    size_t at = 0;
    for (ssize_t n; at < room && (n = read(fd, text + at, room - at)) != 0;) {
        if (n < 0 && errno != EINTR) return -1;
        if (n > 0) at += (size_t)n;
    }
    return (int)at;
}

int edge_source_read(edge_source *s, char **text, const char *file) {
    const size_t room = CB_DOCUMENT_BYTES + 1;
    struct stat st;
    char *bytes = NULL, why[600];
    int n = -1, fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO would wait for its other end */
    const bool regular = fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (regular && (bytes = malloc(room))) n = read_all(bytes, room, fd);
    snprintf(why, sizeof why, "%s", fd < 0 || regular ? strerror(errno) : "not a regular file");
    if (fd >= 0) close(fd);
    if (n < 0) {
        free(bytes);
        return edge_wrong(s, why, "%s", "");
    }
    *text = bytes;
    s->text = (cb_slice){(const uint8_t *)bytes, (size_t)n};
    return CB_OK;
}
