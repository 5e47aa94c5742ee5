/* The picture of `top`. */
#include "text.h"
#include "top.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { LABEL = 12, LINE_BYTES = 512, GROUP_COLUMNS = 12, STATE_COLUMNS = 8, FIGURES_COLUMNS = 41, HEAD_ROWS = 9 };

const char *const top_sort_names[TOP_SORTS] = {"name", "state", "requests", "errors", "latency"};

/* ---- lines ---- */

typedef struct line {
    FILE *f;
    const top_look *look;
    unsigned left; /* columns */
} line;

static line begin(FILE *f, const top_look *look) {
    return (line){f, look, look->columns};
}

static void end(line *l) {
    fputs(l->look->keys ? "\033[K\n" : "\n", l->f);
}

/* What fits of a text. */
static void put(line *l, enum cbctl_tone tone, const char *fmt, ...) {
    char text[LINE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    const char *at = text;
    for (; *at && l->left; l->left--) {
        at++;
        while (((unsigned char)*at & 0xc0) == 0x80)
            at++;
    }
    if (at == text) return;
    fprintf(l->f, "%s%.*s%s", cbctl_tone_on(l->look->colours, tone), (int)(at - text), text,
            cbctl_tone_off(l->look->colours, tone));
}

/* A text in a column of its own, cut or filled. */
static void put_in(line *l, enum cbctl_tone tone, const char *text, unsigned columns) {
    const size_t n = cbctl_columns(text);
    const char *at = text;
    for (size_t i = 0; *at && i + (n > columns) < columns; i++) {
        at++;
        while (((unsigned char)*at & 0xc0) == 0x80)
            at++;
    }
    put(l, tone, n > columns ? "%.*s~" : "%.*s", (int)(at - text), text);
    if (n < columns) put(l, CBCTL_PLAIN, "%*s", (int)(columns - n), "");
}

static void label(line *l, const char *text) {
    put(l, CBCTL_DIM, "%-*s", LABEL, text);
}

/* "  name 12.3k", with nothing before the first one. */
static void figure(line *l, const char *name, const char *value, enum cbctl_tone tone) {
    if (l->left < l->look->columns - LABEL) put(l, CBCTL_PLAIN, "  ");
    put(l, CBCTL_PLAIN, "%s%s", name, *name ? " " : "");
    put(l, tone, "%s", value);
}

static void rate(line *l, const char *name, double v, enum cbctl_tone tone) {
    char text[16], all[24];
    prom_short(text, v);
    snprintf(all, sizeof all, isnan(v) ? "%s" : "%s/s", text);
    figure(l, name, all, v > 0 ? tone : CBCTL_PLAIN);
}

static void count(line *l, const char *name, double v, enum cbctl_tone tone) {
    char text[16];
    prom_short(text, v);
    figure(l, name, text, v > 0 ? tone : CBCTL_PLAIN);
}

static void seconds(line *l, const char *name, double v) {
    char text[16];
    prom_seconds(text, v);
    figure(l, name, text, CBCTL_BOLD);
}

static void bytes(line *l, const char *name, double v, const char *unit) {
    char text[16], all[24];
    prom_bytes(text, v);
    snprintf(all, sizeof all, "%s%s", text, isnan(v) ? "" : unit);
    figure(l, name, all, CBCTL_PLAIN);
}

static void percent(line *l, const char *name, double v) {
    char text[16] = "-";
    if (!isnan(v)) snprintf(text, sizeof text, "%.0f%%", v * 100);
    figure(l, name, text, v > 0.9 ? CBCTL_BAD : v > 0.7 ? CBCTL_WARN : CBCTL_PLAIN);
}

/* ---- the head ---- */

static void draw_title(FILE *f, const top_view *v, const top_look *look) {
    line l = begin(f, look);
    char up[16];
    put(&l, CBCTL_BOLD, "%s", *v->version ? v->version : "daemon");
    if (!isnan(v->pid)) put(&l, CBCTL_PLAIN, "  pid %.0f", v->pid);
    if (*v->revision) put(&l, CBCTL_PLAIN, "  revision %s", v->revision);
    prom_seconds(up, v->uptime_s);
    if (!isnan(v->uptime_s)) put(&l, CBCTL_PLAIN, "  up %s", up);
    if (v->draining > 0) put(&l, CBCTL_WARN, "  draining");
    if (look->paused) put(&l, CBCTL_WARN, "  stopped");
    put(&l, CBCTL_DIM, "  %s", look->place);
    end(&l);
    l = begin(f, look);
    if (look->trouble) put(&l, CBCTL_BAD, "nothing new: %s", look->trouble);
    end(&l);
}

static void draw_head(FILE *f, const top_view *v, const top_look *look) {
    static const char *const classes[] = {"", "1xx", "2xx", "3xx", "4xx", "5xx"};
    static const char *const versions[TOP_VERSIONS] = {"h1", "h2", "h3"};
    draw_title(f, v, look);
    line l = begin(f, look);
    label(&l, "requests");
    rate(&l, "", v->requests, CBCTL_BOLD);
    for (int i = 2; i < 6; i++)
        count(&l, classes[i], v->class[i], i == 5 ? CBCTL_BAD : i == 4 ? CBCTL_WARN : CBCTL_PLAIN);
    count(&l, "running", v->running, CBCTL_PLAIN);
    count(&l, "total", v->requests_total, CBCTL_PLAIN);
    end(&l);
    l = begin(f, look);
    label(&l, "latency");
    seconds(&l, "p50", v->p50);
    seconds(&l, "p90", v->p90);
    seconds(&l, "p99", v->p99);
    seconds(&l, "mean", v->mean);
    end(&l);
    l = begin(f, look);
    label(&l, "bytes");
    bytes(&l, "in", v->bytes_in, "/s");
    bytes(&l, "out", v->bytes_out, "/s");
    end(&l);
    l = begin(f, look);
    label(&l, "connections");
    count(&l, "", v->connections, CBCTL_PLAIN);
    for (int i = 0; i < TOP_VERSIONS; i++)
        count(&l, versions[i], v->by_version[i], CBCTL_PLAIN);
    rate(&l, "handshakes", v->handshakes, CBCTL_PLAIN);
    rate(&l, "failed", v->handshakes_failed, CBCTL_WARN);
    end(&l);
    l = begin(f, look);
    label(&l, "process");
    count(&l, "workers", v->workers, CBCTL_PLAIN);
    percent(&l, "busy", v->busy);
    percent(&l, "CPU", v->cpu);
    bytes(&l, "memory", v->memory, "");
    count(&l, "files", v->descriptors, CBCTL_PLAIN);
    end(&l);
}

/* ---- origins ---- */

static unsigned name_columns(const top_look *look) {
    const unsigned fixed = GROUP_COLUMNS + 1 + 1 + STATE_COLUMNS + FIGURES_COLUMNS;
    return look->columns > fixed + 10 ? look->columns - fixed : 10;
}

static void draw_origin(FILE *f, const top_origin *o, const top_look *look) {
    line l = begin(f, look);
    char text[16];
    put_in(&l, CBCTL_PLAIN, o->group, GROUP_COLUMNS);
    put(&l, CBCTL_PLAIN, " ");
    put_in(&l, CBCTL_PLAIN, o->name + (strncmp(o->name, "http://", 7) == 0 ? 7 : 0), name_columns(look));
    put(&l, CBCTL_PLAIN, " ");
    put_in(&l, cbctl_tone_of(o->state), o->state, STATE_COLUMNS);
    prom_short(text, o->requests);
    put(&l, CBCTL_PLAIN, " %8s", text);
    prom_short(text, o->errors);
    put(&l, o->errors > 0 ? CBCTL_BAD : CBCTL_PLAIN, " %8s", text);
    prom_seconds(text, o->p50);
    put(&l, CBCTL_PLAIN, " %7s", text);
    prom_seconds(text, o->p99);
    put(&l, CBCTL_PLAIN, " %7s", text);
    prom_short(text, o->active);
    put(&l, CBCTL_PLAIN, " %6s", text);
    end(&l);
}

static void draw_origins_head(FILE *f, const top_look *look) {
    line l = begin(f, look);
    end(&l);
    l = begin(f, look);
    put(&l, CBCTL_DIM, "%-*s %-*s %-*s %8s %8s %7s %7s %6s", GROUP_COLUMNS, "group", (int)name_columns(look), "origin",
        STATE_COLUMNS, "state", "req/s", "err/s", "p50", "p99", "active");
    end(&l);
}

static void draw_keys(FILE *f, const top_view *v, const top_look *look, size_t shown) {
    line l = begin(f, look);
    put(&l, CBCTL_DIM, "q end  s sort: %s  space stop  +/- every %gs  ? help", top_sort_names[look->sort],
        look->interval_s);
    if (shown < v->n_origins + v->n_left_out)
        put(&l, CBCTL_DIM, "  origins %zu to %zu of %zu", look->scroll + 1, look->scroll + shown,
            v->n_origins + v->n_left_out);
    fputs(look->keys ? "\033[K" : "", f); /* no newline: it would scroll */
}

static void draw_help(FILE *f, const top_look *look, size_t rows) {
    static const char *const texts[] = {
        "",
        "q        end",
        "s        sort origins by the next column: name, state, requests, errors, latency",
        "space    stop, and go on",
        "+ -      a shorter or longer interval",
        "up down  scroll origins; also page up and down, Home, End",
        "",
        "requests, bytes, handshakes: a second, over the interval; errors of origins: answers of 5xx and none at all",
        "latency: from the first byte of a request to the last of its answer, of the interval;",
        "         of origins: until the head of the answer, all origins of the group together",
        "busy: how much of their time event loops work; CPU: of one processor",
        "-: the daemon does not say"};
    for (size_t i = 0; i < rows; i++) {
        line l = begin(f, look);
        if (i < sizeof texts / sizeof *texts) put(&l, CBCTL_PLAIN, "%s", texts[i]);
        end(&l);
    }
}

size_t top_draw(FILE *f, const top_view *v, const top_look *look) {
    const size_t room = look->rows > HEAD_ROWS + 1 ? look->rows - HEAD_ROWS - 1 : look->rows ? 1 : v->n_origins;
    size_t shown = 0;
    draw_head(f, v, look);
    if (look->help) {
        draw_help(f, look, room + 2);
    } else {
        draw_origins_head(f, look);
        for (; shown < room && look->scroll + shown < v->n_origins; shown++)
            draw_origin(f, &v->origins[look->scroll + shown], look);
        for (size_t i = shown; look->rows && i < room; i++) {
            line l = begin(f, look);
            end(&l);
        }
    }
    if (look->keys) draw_keys(f, v, look, shown);
    return room;
}

/* ---- JSON ---- */

static void json_head(cb_json_out *o, const top_view *v) {
    static const char *const classes[] = {"", "1xx", "2xx", "3xx", "4xx", "5xx"};
    static const char *const versions[TOP_VERSIONS] = {"h1", "h2", "h3"};
    const struct {
        const char *name;
        double v;
    } rows[] = {{"pid", v->pid},
                {"uptime_s", v->uptime_s},
                {"interval_s", v->interval_s},
                {"requests_per_s", v->requests},
                {"requests_total", v->requests_total},
                {"requests_running", v->running},
                {"latency_p50_s", v->p50},
                {"latency_p90_s", v->p90},
                {"latency_p99_s", v->p99},
                {"latency_mean_s", v->mean},
                {"bytes_in_per_s", v->bytes_in},
                {"bytes_out_per_s", v->bytes_out},
                {"connections", v->connections},
                {"handshakes_per_s", v->handshakes},
                {"handshakes_failed_per_s", v->handshakes_failed},
                {"workers", v->workers},
                {"busy", v->busy},
                {"cpu", v->cpu},
                {"memory_bytes", v->memory},
                {"descriptors", v->descriptors}};
    cb_json_put_str(o, "version", v->version);
    cb_json_put_str(o, "revision", v->revision);
    cb_json_put_bool(o, "draining", v->draining > 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cb_json_put_number(o, rows[i].name, rows[i].v);
    cb_json_put_object(o, "answers_per_s");
    for (int i = 1; i < 6; i++)
        cb_json_put_number(o, classes[i], v->class[i]);
    cb_json_put_end(o);
    cb_json_put_object(o, "connections_by_version");
    for (int i = 0; i < TOP_VERSIONS; i++)
        cb_json_put_number(o, versions[i], v->by_version[i]);
    cb_json_put_end(o);
}

void top_json(cb_json_out *o, const top_view *v) {
    cb_json_put_object(o, NULL);
    json_head(o, v);
    cb_json_put_list(o, "origins");
    for (size_t i = 0; i < v->n_origins; i++) {
        const top_origin *from = &v->origins[i];
        cb_json_put_object(o, NULL);
        cb_json_put_str(o, "group", from->group);
        cb_json_put_str(o, "origin", from->name);
        cb_json_put_str(o, "state", from->state);
        cb_json_put_number(o, "requests_per_s", from->requests);
        cb_json_put_number(o, "errors_per_s", from->errors);
        cb_json_put_number(o, "latency_p50_s", from->p50);
        cb_json_put_number(o, "latency_p99_s", from->p99);
        cb_json_put_number(o, "active", from->active);
        cb_json_put_number(o, "connections", from->connections);
        cb_json_put_end(o);
    }
    cb_json_put_end(o);
    cb_json_put_end(o);
}
