/* A live picture of a daemon. */
#include "top.h"
#include "admin.h"
#include "term.h"
#include "text.h"
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { INTERVAL_MS = 1000, INTERVAL_MIN = 100, INTERVAL_MAX = 3600000, PARTS = 3, TROUBLE_BYTES = 512 };

/* What is asked for each picture. */
enum part { METRICS, STATUS, POOLS };

typedef struct top {
    cbctl_admin *a;
    cbctl_asking *asking[PARTS];
    unsigned waiting;
    bool quit, has_before, has_view;
    int code;
    int64_t began_ms, read_ms; /* when this round was asked for, and the last good page came */
    int64_t interval_ms;
    prom_page before;
    top_view view;
    top_look look;
    char trouble[TROUBLE_BYTES];
    size_t room;
} top;

static int64_t now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- a round of questions ---- */

static void on_over(cbctl_asking *k, void *user) {
    (void)k;
    ((top *)user)->waiting--;
}

static int ask(top *t) {
    static const cbctl_question questions[PARTS] = {
        [METRICS] = {.path = "/metrics", .accept = "text/plain"},
        [STATUS] = {.path = "/v1/status"},
        [POOLS] = {.path = "/v1/pools"},
    };
    t->began_ms = now_ms();
    for (int i = 0; i < PARTS; i++) {
        int code = cbctl_ask_start(&t->asking[i], t->a, &questions[i], on_over, t);
        if (code != CBCTL_OK) return code;
        t->waiting++;
    }
    return CBCTL_OK;
}

/* Without a picture of that, not of all: rights may end where metrics do. */
static json_tree *optional(top *t, enum part which) {
    cbctl_answer r;
    char why[TROUBLE_BYTES];
    json_tree *v = NULL;
    if (cbctl_ask_end(t->asking[which], &r, why, sizeof why) == CBCTL_OK) {
        if (r.status == 200 && strstr(r.type, "json")) v = json_read(r.body ? r.body : "", r.len);
        cbctl_answer_free(&r);
    }
    t->asking[which] = NULL;
    return v;
}

static int metrics(top *t, prom_page *p) {
    cbctl_answer r;
    char *why = t->trouble;
    int code = cbctl_ask_end(t->asking[METRICS], &r, why, TROUBLE_BYTES);
    t->asking[METRICS] = NULL;
    if (code != CBCTL_OK) return code;
    if (r.status != 200 || strncmp(r.type, "text/plain", 10) != 0 || !r.body) {
        snprintf(why, TROUBLE_BYTES, "%s: /metrics: answered with %d, %s", t->a->place, r.status, r.type);
        code = r.status == 401 || r.status == 403 ? CBCTL_DENIED : CBCTL_FAILED;
        cbctl_answer_free(&r);
        return code;
    }
    if (prom_read(p, r.body, r.len) == 0) return CBCTL_OK;
    snprintf(why, TROUBLE_BYTES, "%s: line %zu of the metrics is none", t->a->place, p->line);
    prom_free(p);
    return CBCTL_FAILED;
}

/* Without whom it is about: the title has that. */
static const char *brief(const char *trouble, const char *place) {
    const char *at = strstr(trouble, place);
    if (!at) return trouble;
    at += strlen(place);
    return strncmp(at, ": ", 2) == 0 ? at + 2 : trouble;
}

/* All answers are there, or will not be. */
static void finish_round(top *t) {
    prom_page page = {0};
    json_tree *status = optional(t, STATUS), *pools = optional(t, POOLS);
    t->code = metrics(t, &page);
    t->look.trouble = t->code == CBCTL_OK ? NULL : brief(t->trouble, t->a->place);
    if (t->code == CBCTL_OK) {
        const int64_t now = now_ms();
        const double elapsed = (double)(now - t->read_ms) / 1000;
        if (t->has_before) {
            top_read(&t->view, &t->before, &page, elapsed > 0.001 ? elapsed : 0.001, json_root(status),
                     json_root(pools));
            top_sort(&t->view, t->look.sort);
            t->has_view = true;
        }
        prom_free(&t->before);
        t->before = page;
        t->has_before = true;
        t->read_ms = now;
    }
    json_free(status);
    json_free(pools);
}

static void drop_round(top *t) {
    cbctl_answer r;
    char why[TROUBLE_BYTES];
    for (int i = 0; i < PARTS; i++) {
        if (t->asking[i]) (void)cbctl_ask_end(t->asking[i], &r, why, sizeof why);
        if (t->asking[i]) cbctl_answer_free(&r);
        t->asking[i] = NULL;
    }
}

/* ---- keys ---- */

static void scroll(top *t, int64_t by) {
    const int64_t most = t->view.n_origins > t->room ? (int64_t)(t->view.n_origins - t->room) : 0;
    int64_t to = (int64_t)t->look.scroll + by;
    to = to > most ? most : to;
    t->look.scroll = (size_t)(to < 0 ? 0 : to);
}

static void key(top *t, int k) {
    const int64_t page = (int64_t)t->room;
    static const struct {
        int key;
        int by; /* pages, times 1000, or lines */
    } moves[] = {
        {KEY_UP, -1},         {'k', -1},         {KEY_DOWN, 1}, {'j', 1}, {KEY_PAGE_UP, -1000}, {KEY_PAGE_DOWN, 1000},
        {KEY_HOME, -1000000}, {KEY_END, 1000000}};
    for (size_t i = 0; i < sizeof moves / sizeof *moves; i++)
        if (moves[i].key == k) scroll(t, abs(moves[i].by) == 1000 ? moves[i].by / 1000 * page : moves[i].by);
    if (k == 'q' || k == 'Q' || k == 3 || k == KEY_ENDED) t->quit = true;
    if (k == '?' || k == 'h') t->look.help = !t->look.help;
    if (k == 033) t->look.help = false;
    if (k == ' ' || k == 'p') t->look.paused = !t->look.paused;
    if (k == 's') t->look.sort = (enum top_sort)((t->look.sort + 1) % TOP_SORTS);
    if (k == 's') top_sort(&t->view, t->look.sort);
    if (k == '+' && t->interval_ms / 2 >= INTERVAL_MIN) t->interval_ms /= 2;
    if (k == '-' && t->interval_ms * 2 <= INTERVAL_MAX) t->interval_ms *= 2;
}

/* ---- pictures ---- */

static int print_json(const top_view *v) {
    cb_json_out *o = NULL;
    cb_slice s = {NULL, 0};
    int rc = cb_json_out_new(&o, 0);
    if (rc < 0) return cbctl_failed(rc);
    top_json(o, v);
    rc = cb_json_out_text(o, &s);
    if (rc >= 0) cbctl_json_line(stdout, (const char *)s.base, s.len);
    cb_json_out_free(o);
    if (rc < 0) return cbctl_failed(rc);
    return fflush(stdout) == 0 ? CBCTL_OK : CBCTL_FAILED;
}

/* Where the lines end that a terminal of so many rows can show. */
static size_t cut(const char *text, size_t len, unsigned rows) {
    const char *at = text;
    for (; rows && (at = strchr(at, '\n')); at++)
        if (--rows == 0) return (size_t)(at - text);
    return len;
}

/* From a text that is whole, so that nobody sees half of it. */
static void draw_live(top *t) {
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);
    if (!f) return;
    cbctl_term_size(&t->look.columns, &t->look.rows);
    t->look.interval_s = (double)t->interval_ms / 1000;
    fputs("\033[H", f);
    scroll(t, 0);
    t->room = top_draw(f, &t->view, &t->look);
    if (fclose(f) == 0) {
        fwrite(text, 1, cut(text, len, t->look.rows), stdout);
        fputs("\033[J", stdout);
    }
    fflush(stdout);
    free(text);
}

/* ---- the loop ---- */

static void wait_fd(int fd, int64_t ms) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    (void)poll(&p, 1, ms < 0 ? -1 : (int)ms);
}

/* Waits for what comes next: answers, keys, time. */
static bool wait_some(top *t, int64_t ms, bool live) {
    const int64_t loop_ms = cb_loop_timeout_ms(t->a->loop);
    if (loop_ms >= 0 && (ms < 0 || loop_ms < ms)) ms = loop_ms;
    bool anew = false;
    if (live) {
        anew = cbctl_term_wait(cb_loop_fd(t->a->loop), ms);
        for (int k; !t->quit && (k = cbctl_term_key()) != KEY_NONE; anew = true)
            key(t, k);
    } else {
        wait_fd(cb_loop_fd(t->a->loop), ms);
    }
    (void)cb_loop_step(t->a->loop);
    return anew;
}

/* One round: asks, and waits until all is there. */
static int once_round(top *t) {
    int code = ask(t);
    while (code == CBCTL_OK && t->waiting)
        wait_some(t, -1, false);
    if (code == CBCTL_OK) finish_round(t);
    return code == CBCTL_OK ? t->code : code;
}

static void sleep_until(top *t, int64_t at) {
    for (int64_t left; (left = at - now_ms()) > 0;)
        wait_some(t, left, false);
}

static int print_pictures(top *t) {
    int code = once_round(t);
    do {
        if (code != CBCTL_OK) {
            fprintf(stderr, "cbctl: ");
            cbctl_put(stderr, t->trouble);
            putc('\n', stderr);
            return code;
        }
        sleep_until(t, t->read_ms + t->interval_ms);
        code = once_round(t);
        if (code != CBCTL_OK) continue;
        if (t->a->args.json) {
            code = print_json(&t->view);
        } else {
            top_draw(stdout, &t->view, &t->look);
            fflush(stdout);
        }
    } while (!t->a->args.once || code != CBCTL_OK);
    return code;
}

/* Trouble is shown, and it is tried again: a daemon may come back. */
static int live(top *t) {
    int64_t next = now_ms();
    int code = CBCTL_OK;
    bool anew = true;
    while (!t->quit) {
        if (t->asking[METRICS] && !t->waiting) {
            finish_round(t);
            next = t->began_ms + (t->has_view || t->code != CBCTL_OK ? t->interval_ms : INTERVAL_MIN);
            anew = true;
        }
        if (anew) draw_live(t);
        if (!t->asking[METRICS] && !t->look.paused && now_ms() >= next) code = ask(t);
        if (code != CBCTL_OK) break;
        const int64_t left = next - now_ms();
        anew = wait_some(t, t->asking[METRICS] || t->look.paused ? -1 : left > 0 ? left : 0, true);
    }
    return code;
}

static int read_options(top *t) {
    const cbctl_args *g = &t->a->args;
    t->interval_ms = g->interval ? cbctl_duration_ms(g->interval) : INTERVAL_MS;
    if (g->n_words) return cbctl_usage("top: what is \"%s\"?", g->words[0]);
    if (t->interval_ms < INTERVAL_MIN || t->interval_ms > INTERVAL_MAX)
        return cbctl_usage("--interval: \"%s\" is not a time from 100ms to 1h", g->interval);
    for (int i = 0; g->sort && strcmp(top_sort_names[t->look.sort], g->sort) != 0; i++) {
        if (i == TOP_SORTS)
            return cbctl_usage("--sort: \"%s\" is not name, state, requests, errors or latency", g->sort);
        t->look.sort = (enum top_sort)i;
    }
    return CBCTL_OK;
}

static int on_terminal(top *t) {
    if (!cbctl_term_open()) return cbctl_usage("top: there is no terminal; --once prints one picture");
    t->look.keys = true;
    top_read_nothing(&t->view);
    const int code = live(t);
    cbctl_term_close();
    return code;
}

int cbctl_top(cbctl_admin *a) {
    top *t = calloc(1, sizeof *t);
    if (!t) return cbctl_failed(CB_ENOMEM);
    t->a = a;
    t->look.place = a->place;
    t->look.colours = cbctl_colours(stdout);
    cbctl_term_size(&t->look.columns, &t->look.rows);
    t->look.rows = 0;
    int code = read_options(t);
    if (code == CBCTL_OK) code = a->args.once || a->args.json ? print_pictures(t) : on_terminal(t);
    drop_round(t);
    prom_free(&t->before);
    free(t);
    return code;
}
