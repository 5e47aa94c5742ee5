/* flow_load - keeps many connections, asks on each of them again and again, and notices every one that breaks or is
 * answered by another server than before.
 *
 *   flow_load --tcp 1000 --quic 1000 --ca ca.pem --to 192.0.2.1:443 --to [2001:db8::1]:443 https://pop.test/headers
 *
 * A flow is a client with one connection: HTTP/1.1 (tcp) or HTTP/3 (quic), to the addresses of --to in turn. The
 * server's name is the last word of the response's Via field. Flows are opened --open at a time; each then asks every
 * --every milliseconds. A flow is broken when its connection ends, when another one was opened in its place, when a
 * response is not 200, or when none comes in --stall milliseconds. With --again a new flow takes a broken one's place.
 *
 * Once a second, and when "report" comes on standard input, a line of JSON tells how things stand; "mark" sets the
 * counters of broken and moved flows to 0 and reports; at the input's end (or SIGTERM) it says so for the last time.
 * --follow: clients heed changes of the network (QUIC connections migrate). */
#include <cb.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SERVERS = 64,
    NAME = 24,
    REASONS = 6,
    ADDRESSES = 8,
    TICK_MS = 10,
    KINDS = 2,
    IDLE_MS = 3600 * 1000,
    MAX_FLOWS = 100000
};
enum reason { STATUS, CLOSED, STALLED, REOPENED, REFUSED, UNNAMED };

static const char *const reasons[REASONS] = {"status", "closed", "stalled", "reopened", "refused", "unnamed"};
static const char *const kinds[KINDS] = {"tcp", "quic"};
static const uint32_t versions[KINDS] = {CB_HTTP_1, CB_HTTP_3};

enum state { NEW, OPENING, LIVE, BROKEN };

struct load;

struct flow {
    struct load *load;
    cb_http_client *client;
    cb_exchange *asked; /* while a request is under way */
    unsigned kind, number;
    enum state state;
    int server; /* -1: not known yet */
    int status;
    cb_time due; /* of the next request */
};

struct count {
    unsigned long broken[REASONS], broken_of[SERVERS + 1], moved, opened, answers;
    uint64_t slowest_us;
};

struct load {
    cb_loop *loop;
    cb_identity *trust;
    const char *url, *to[ADDRESSES];
    unsigned n_to, wanted[KINDS], n, at_once, opening, every_ms, stall_ms, again, follow, next;
    struct flow *flows;
    struct count counts[KINDS];
    char servers[SERVERS][NAME];
    int n_servers;
    char detail[200]; /* of the latest that broke */
    cb_time last_report;
};

static int server_number(struct load *l, cb_slice via) {
    size_t begin = via.len;
    while (begin && via.base[begin - 1] != ' ')
        begin--;
    const size_t len = via.len - begin;
    if (len == 0 || len >= NAME) return -1;
    for (int i = 0; i < l->n_servers; i++)
        if (strlen(l->servers[i]) == len && !memcmp(l->servers[i], via.base + begin, len)) return i;
    if (l->n_servers == SERVERS) return -1;
    for (size_t i = 0; i < len; i++) /* names go into JSON as they are */
        if (!memchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", via.base[begin + i], 65))
            return -1;
    memcpy(l->servers[l->n_servers], via.base + begin, len);
    return l->n_servers++;
}

static uint64_t opened(const struct flow *f) {
    cb_http_client_stats s = {.size = sizeof s};
    if (!f->client || cb_http_client_stats_get(f->client, &s) < 0) return 0;
    return s.opened_h1 + s.opened_h2 + s.opened_h3;
}

static void broke(struct flow *f, enum reason why, const char *detail) {
    struct count *c = &f->load->counts[f->kind];
    if (f->state == BROKEN) return;
    c->broken[why]++;
    c->broken_of[f->server < 0 ? SERVERS : f->server]++;
    snprintf(f->load->detail, sizeof f->load->detail, "%s %s: %s", kinds[f->kind], reasons[why], detail);
    if (f->state == OPENING) f->load->opening--;
    f->state = BROKEN;
}

static int on_head(cb_exchange *x, void *user) {
    struct flow *f = user;
    f->status = cb_exchange_status(x);
    const int server = server_number(f->load, cb_exchange_field(x, "via"));
    if (f->status != 200) {
        broke(f, STATUS, f->server < 0 ? "-" : f->load->servers[f->server]);
    } else if (server < 0) {
        broke(f, UNNAMED, "no Via field with a server's name");
    } else if (f->server >= 0 && f->server != server) {
        if (opened(f) < 2) f->load->counts[f->kind].moved++;
    }
    if (f->server < 0) f->server = server;
    return CB_OK;
}

static enum reason reason_of(int rc) {
    if (rc == CB_ETIMEOUT) return STALLED;
    return rc == CB_EUNREACH || rc == CB_ETLS || rc == CB_EAUTH || rc == CB_EDNS ? REFUSED : CLOSED;
}

static void on_close(cb_exchange *x, int rc, void *user) {
    struct flow *f = user;
    struct load *l = f->load;
    (void)x;
    f->asked = NULL;
    if (rc < 0)
        broke(f, reason_of(rc), cb_last_error());
    else if (opened(f) > 1)
        broke(f, REOPENED, "another connection was opened");
    if (f->state == OPENING) {
        l->opening--;
        l->counts[f->kind].opened++;
        f->state = LIVE;
    }
    if (f->state != LIVE) return;
    const uint64_t took = (uint64_t)(cb_loop_now(l->loop) + (cb_time)l->every_ms * 1000000 - f->due) / 1000;
    if (took > l->counts[f->kind].slowest_us) l->counts[f->kind].slowest_us = took;
    l->counts[f->kind].answers++;
}

static const cb_exchange_ops ops = {.size = sizeof ops, .on_head = on_head, .on_close = on_close};

static void ask(struct flow *f) {
    struct load *l = f->load;
    const cb_request request = {
        .size = sizeof request, .url = l->url, .connect_to = l->to[f->number % l->n_to], .timeout_ms = l->stall_ms};
    f->due = cb_loop_now(l->loop) + (cb_time)l->every_ms * 1000000;
    const int rc = cb_http_request(&f->asked, f->client, &request, &ops, f);
    if (rc < 0) broke(f, CLOSED, cb_last_error());
}

static void open_flow(struct flow *f) {
    static const cb_http_limits limits = {.size = sizeof limits, .idle_timeout_ms = IDLE_MS};
    struct load *l = f->load;
    f->state = OPENING;
    f->server = -1;
    l->opening++;
    const int rc = cb_http_client_new(&f->client, l->loop,
                                      CB_OPTS(cb_http_client_opts, .identity = l->trust, .versions = versions[f->kind],
                                              .limits = &limits, .idle_timeout_ms = IDLE_MS, .max_conns_per_host = 1,
                                              .alt_svc = 1, .follow_network = (uint8_t)l->follow));
    if (rc < 0)
        broke(f, REFUSED, cb_last_error());
    else
        ask(f);
}

/* One turn of a flow: 1 when it began something. */
static int visit(struct flow *f, cb_time now) {
    if (f->state == BROKEN && !f->asked && f->client) {
        cb_http_client_free(f->client);
        f->client = NULL;
    }
    if (f->state == BROKEN && !f->client && f->load->again) f->state = NEW;
    if (f->state == NEW && f->load->opening < f->load->at_once) {
        open_flow(f);
        return 1;
    }
    if (f->state != LIVE || f->asked || f->due > now) return 0;
    ask(f);
    return 1;
}

static void report(struct load *l, const char *what) {
    printf("{\"at\": \"%s\", \"time\": %.3f", what, (double)cb_loop_now(l->loop) / 1e9);
    for (unsigned k = 0; k < KINDS; k++) {
        const struct count *c = &l->counts[k];
        unsigned long live = 0, live_of[SERVERS] = {0}, broken = 0;
        for (unsigned i = 0; i < l->n; i++)
            if (l->flows[i].kind == k && l->flows[i].state == LIVE) {
                live++;
                if (l->flows[i].server >= 0) live_of[l->flows[i].server]++;
            }
        printf(", \"%s\": {\"live\": %lu, \"opened\": %lu, \"answers\": %lu, \"moved\": %lu, \"slowest_ms\": %.1f, "
               "\"servers\": {",
               kinds[k], live, c->opened, c->answers, c->moved, (double)c->slowest_us / 1000);
        for (int i = 0, first = 1; i < l->n_servers; i++)
            if (live_of[i]) printf("%s\"%s\": %lu", first ? "" : ", ", l->servers[i], live_of[i]), first = 0;
        printf("}, \"reasons\": {");
        for (int i = 0, first = 1; i < REASONS; i++) {
            broken += c->broken[i];
            if (c->broken[i]) printf("%s\"%s\": %lu", first ? "" : ", ", reasons[i], c->broken[i]), first = 0;
        }
        printf("}, \"broken_of\": {");
        for (int i = 0, first = 1; i <= SERVERS; i++)
            if (c->broken_of[i])
                printf("%s\"%s\": %lu", first ? "" : ", ", i == SERVERS ? "-" : l->servers[i], c->broken_of[i]),
                    first = 0;
        printf("}, \"broken\": %lu}", broken);
    }
    printf(", \"detail\": \"");
    for (const char *p = l->detail; *p; p++)
        putchar(*p == '"' || *p == '\\' || (unsigned char)*p < 32 ? '\'' : *p);
    printf("\"}\n");
    fflush(stdout);
}

static void tick(cb_loop *loop, void *user) {
    struct load *l = user;
    const cb_time now = cb_loop_now(loop);
    /* requests of all flows are spread over the interval; those that are behind (the machine was busy) catch up slowly
     */
    unsigned left = 2 * (l->n * TICK_MS / l->every_ms + 1);
    for (unsigned i = 0; i < l->n && left; i++) {
        left -= (unsigned)visit(&l->flows[l->next], now);
        l->next = (l->next + 1) % l->n;
    }
    if (now - l->last_report < INT64_C(1000000000)) return;
    l->last_report = now;
    report(l, "second");
}

static void on_report(cb_loop *loop, void *user) {
    (void)loop;
    report(user, "report");
}

static void on_mark(cb_loop *loop, void *user) {
    struct load *l = user;
    (void)loop;
    memset(l->counts, 0, sizeof l->counts);
    l->detail[0] = 0;
    report(l, "mark");
}

static void on_end(cb_loop *loop, void *user) {
    report(user, "end");
    cb_loop_stop(loop);
}

static void *read_input(void *user) {
    struct load *l = user;
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "report\n")) cb_loop_post(l->loop, on_report, l);
        if (!strcmp(line, "mark\n")) cb_loop_post(l->loop, on_mark, l);
    }
    cb_loop_post(l->loop, on_end, l);
    return NULL;
}

static int run(struct load *l, const char *ca) {
    pthread_t thread;
    cb_timer *timer = NULL;
    l->n = l->wanted[0] + l->wanted[1];
    l->flows = calloc(l->n, sizeof *l->flows);
    if (!l->flows) return CB_ENOMEM;
    for (unsigned i = 0; i < l->n; i++) { /* both kinds in turn, and each to all addresses */
        struct flow *f = &l->flows[i];
        const unsigned kind = l->wanted[0] && l->wanted[1] ? i & 1 : l->wanted[1] != 0;
        *f = (struct flow){.load = l, .kind = kind, .number = l->wanted[0] && l->wanted[1] ? i / 2 : i, .server = -1};
    }
    int rc = cb_loop_new(&l->loop, NULL);
    if (rc == CB_OK) rc = cb_identity_new(&l->trust, CB_OPTS(cb_identity_opts, .ca_file = ca));
    if (rc == CB_OK) rc = cb_loop_on_signal(l->loop, SIGTERM, on_end, l);
    if (rc == CB_OK) rc = cb_timer_start(&timer, l->loop, 0, TICK_MS, tick, l);
    if (rc < 0) return rc;
    l->last_report = cb_loop_now(l->loop);
    if (pthread_create(&thread, NULL, read_input, l) != 0) return CB_ESYS;
    return cb_loop_run(l->loop);
}

static int usage(const char *name) {
    fprintf(stderr,
            "usage: %s --tcp N --quic N --ca FILE --to ADDRESS:PORT... [--every MS] [--stall MS] [--open N] [--again] "
            "[--follow] URL\n"
            "One of N may be 0, else both are the same.\n",
            name);
    return 2;
}

static int parse(struct load *l, const char **ca, int argc, char **argv) {
    static const struct option longs[] = {{"tcp", 1, NULL, 't'},  {"quic", 1, NULL, 'q'},  {"ca", 1, NULL, 'C'},
                                          {"to", 1, NULL, 'T'},   {"every", 1, NULL, 'e'}, {"stall", 1, NULL, 's'},
                                          {"open", 1, NULL, 'o'}, {"again", 0, NULL, 'a'}, {"follow", 0, NULL, 'f'},
                                          {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        const unsigned number = optarg ? (unsigned)strtoul(optarg, NULL, 10) : 0;
        if (c == 't')
            l->wanted[0] = number;
        else if (c == 'q')
            l->wanted[1] = number;
        else if (c == 'C')
            *ca = optarg;
        else if (c == 'T' && l->n_to < ADDRESSES)
            l->to[l->n_to++] = optarg;
        else if (c == 'e')
            l->every_ms = number;
        else if (c == 's')
            l->stall_ms = number;
        else if (c == 'o')
            l->at_once = number;
        else if (c == 'a')
            l->again = 1;
        else if (c == 'f')
            l->follow = 1;
        else
            return -1;
    }
    l->url = argv[optind];
    const unsigned *w = l->wanted;
    if (optind + 1 != argc || !*ca || !l->n_to || !l->every_ms || !l->stall_ms || !l->at_once) return -1;
    if (w[0] > MAX_FLOWS || w[1] > MAX_FLOWS || w[0] + w[1] == 0) return -1;
    return w[0] && w[1] && w[0] != w[1] ? -1 : 0;
}

int main(int argc, char **argv) {
    static struct load l = {.every_ms = 1000, .stall_ms = 5000, .at_once = 64};
    const char *ca = NULL;
    if (parse(&l, &ca, argc, argv) < 0) return usage(argv[0]);
    const int rc = run(&l, ca);
    if (rc < 0) fprintf(stderr, "flow_load: %s: %s\n", cb_strerror(rc), cb_last_error());
    _exit(rc < 0); /* thousands of connections need not take leave one by one */
}
