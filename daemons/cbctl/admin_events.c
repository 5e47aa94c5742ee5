/* What happens in a daemon, as it happens. */
#include "admin.h"
#include "sse.h"
#include "text.h"
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { AGAIN_MS = 200, TYPES_BYTES = 512 };

struct follow {
    cbctl_admin *a;
    cbctl_sse sse;
    uint64_t left;   /* events to come; 0: for ever */
    int64_t good_ms; /* when something came last; 0: never */
    bool enough, broken, colours;
};

/* Members with "=" between, after the time of day and the event's name. */
static void print_line(const struct follow *f, const char *event, const json_node *data, const char *text) {
    char clock[16] = "";
    const time_t now = time(NULL);
    struct tm tm;
    if (localtime_r(&now, &tm)) strftime(clock, sizeof clock, "%H:%M:%S", &tm);
    printf("%s%s%s ", cbctl_tone_on(f->colours, CBCTL_DIM), clock, cbctl_tone_off(f->colours, CBCTL_DIM));
    fputs(cbctl_tone_on(f->colours, CBCTL_BOLD), stdout);
    cbctl_put(stdout, event);
    fputs(cbctl_tone_off(f->colours, CBCTL_BOLD), stdout);
    for (const json_node *v = json_is(data, JSON_OBJECT) ? data->child : NULL; v; v = v->next) {
        char *cell = cbctl_json_cell(v);
        putchar(' ');
        cbctl_put(stdout, v->name);
        putchar('=');
        cbctl_put(stdout, cell ? cell : "");
        free(cell);
    }
    if (!json_is(data, JSON_OBJECT)) {
        putchar(' ');
        cbctl_put(stdout, text);
    }
    putchar('\n');
}

/* One object a line: {"event": ..., "data": ...}. */
static void print_json(const char *event, const json_node *data, const char *text, size_t len) {
    cb_json_out *o = NULL;
    cb_slice s = {NULL, 0};
    if (cb_json_out_new(&o, 0) < 0) return;
    cb_json_put_object(o, NULL);
    cb_json_put_str(o, "event", event);
    if (data)
        cb_json_put_raw(o, "data", (cb_slice){(const uint8_t *)data->raw, data->raw_len});
    else
        cb_json_put_text(o, "data", (cb_slice){(const uint8_t *)text, len});
    cb_json_put_end(o);
    if (cb_json_out_text(o, &s) >= 0) cbctl_json_line(stdout, (const char *)s.base, s.len);
    cb_json_out_free(o);
}

/* "config,drain"; what was missed is told in any case. */
static bool wanted(const char *types, const char *event) {
    const size_t n = strlen(event);
    if (strcmp(event, "gap") == 0) return true;
    for (const char *at = types; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (strcspn(at, ",") == n && strncmp(at, event, n) == 0) return true;
    return !types;
}

static int on_event(const char *event, const char *text, size_t len, void *user) {
    struct follow *f = user;
    if (!wanted(f->a->args.type, event)) return CB_OK;
    json_tree *tree = json_read(text, len);
    if (f->a->args.json)
        print_json(event, json_root(tree), text, len);
    else
        print_line(f, event, json_root(tree), text);
    json_free(tree);
    if (fflush(stdout) != 0) return CB_ESYS;
    if (f->left && --f->left == 0) {
        f->enough = true;
        return CB_ECLOSED;
    }
    return CB_OK;
}

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int on_data(cb_slice data, void *user) {
    struct follow *f = user;
    f->good_ms = now_ms();
    const int rc = cbctl_sse_feed(&f->sse, (const char *)data.base, data.len);
    f->broken = rc < 0 && !f->enough;
    return rc;
}

/* A daemon ends streams when rights may have changed, or a successor takes over: then it is asked again for what comes
 * behind the last event, as browsers do. */
static int follow(struct follow *f) {
    const char *types = f->a->args.type;
    char why[512], encoded[TYPES_BYTES] = "", path[TYPES_BYTES + 32];
    if (types && cbctl_url_encode(encoded, sizeof encoded, types, ",") < 0) return cbctl_usage("--type: too long");
    snprintf(path, sizeof path, "/v1/events%s%s", types ? "?types=" : "", encoded);
    for (;;) {
        cbctl_answer r;
        const cbctl_question q = {.path = path,
                                  .accept = "text/event-stream",
                                  .last_event_id = f->sse.id,
                                  .on_data = on_data,
                                  .enough = &f->enough,
                                  .user = f};
        int code = cbctl_ask_quietly(f->a, &q, &r, why, sizeof why);
        cbctl_sse_end(&f->sse);
        const bool over = code == CBCTL_OK && !f->enough;
        if (over) code = cbctl_judge(f->a, &q, &r);
        cbctl_answer_free(&r);
        if (f->enough || (code != CBCTL_OK && !*why)) return code; /* what was refused was told */
        if (over) f->good_ms = now_ms();
        if (f->broken || !f->good_ms || now_ms() - f->good_ms >= f->a->patience_ms) {
            fputs("cbctl: ", stderr);
            cbctl_put(stderr, why);
            putc('\n', stderr);
            return code;
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = AGAIN_MS * 1000000L}, NULL);
    }
}

int cbctl_events(cbctl_admin *a) {
    struct follow f = {.a = a, .sse = {.on_event = on_event}, .colours = cbctl_colours(stdout)};
    if (a->args.n_words) return cbctl_usage("events: what is \"%s\"?", a->args.words[0]);
    if (a->args.limit) {
        const int64_t n = cbctl_number(a->args.limit, 1, INT64_MAX / 16);
        if (n < 0) return cbctl_usage("--limit: \"%s\" is not a number from 1", a->args.limit);
        f.left = (uint64_t)n;
    }
    f.sse.user = &f;
    return follow(&f);
}
