/* Watches endpoints and prints each change: health_watch [--ca FILE] [--interval MS] [--timeout MS] [--rise N] [--fall
 * N] [--damping 0] ENDPOINT...
 *
 *   tcp://10.0.0.1:5432   http://10.0.0.1:80/ready   https://...   h2c://...   h3://...
 *   grpc://10.0.0.1:50051/service   grpcs://...   icmp://10.0.0.1   exec:/usr/local/bin/check */
#include <cb.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct scheme {
    const char *prefix;
    int kind, tls;
    uint32_t versions;
} schemes[] = {
    {"tcp://", CB_CHECK_TCP, 0, 0},          {"http://", CB_CHECK_HTTP, 0, 0},       {"https://", CB_CHECK_HTTP, 1, 0},
    {"h2c://", CB_CHECK_HTTP, 0, CB_HTTP_2}, {"h3://", CB_CHECK_HTTP, 1, CB_HTTP_3}, {"grpc://", CB_CHECK_GRPC, 0, 0},
    {"grpcs://", CB_CHECK_GRPC, 1, 0},       {"icmp://", CB_CHECK_ICMP, 0, 0},       {"exec:", CB_CHECK_EXEC, 0, 0}};

static const struct scheme *scheme_of(const char *text) {
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (strncmp(text, schemes[i].prefix, strlen(schemes[i].prefix)) == 0) return &schemes[i];
    return NULL;
}

static void changed(const cb_health_change *c, void *user) {
    (void)user;
    printf("%s %s %u%% %s: %s\n", c->name, cb_health_state_name(c->to), (unsigned)c->weight,
           cb_health_cause_name(c->cause), c->reason);
    fflush(stdout);
}

static void quit(cb_loop *loop, void *user) {
    (void)user;
    cb_loop_stop(loop);
}

static int add(cb_monitor *m, uint32_t id, const char *text, const cb_health_opts *health, cb_identity *trust) {
    const struct scheme *s = scheme_of(text);
    char address[300];
    if (!s) {
        snprintf(address, sizeof address, "\"%.200s\" begins with none of tcp://, http://, grpc://, icmp://...", text);
        return cb_error_set(CB_EINVAL, address);
    }
    const char *rest = text + strlen(s->prefix), *path = s->kind == CB_CHECK_EXEC ? NULL : strchr(rest, '/');
    const char *const argv[] = {rest, NULL};
    snprintf(address, sizeof address, "%.*s", (int)(path ? (size_t)(path - rest) : strlen(rest)), rest);
    return cb_monitor_add(m, CB_OPTS(cb_check, .id = id, .kind = s->kind, .tls = (uint8_t)s->tls, .address = address,
                                     .versions = s->versions, .name = text, .health = health, .identity = trust,
                                     .path = s->kind == CB_CHECK_HTTP ? path : NULL, .service = path ? path + 1 : NULL,
                                     .argv = argv));
}

/* false: there is no such option, or its value is no number. */
static bool take_option(cb_health_opts *h, const char **ca, const char *name, const char *value) {
    uint32_t damping = 1;
    const struct {
        const char *name;
        uint32_t *to;
    } numbers[] = {{"--interval", &h->interval_ms},
                   {"--timeout", &h->timeout_ms},
                   {"--rise", &h->rise},
                   {"--fall", &h->fall},
                   {"--damping", &damping}};
    if (strcmp(name, "--ca") == 0) {
        *ca = value;
        return true;
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char *end = NULL;
        if (strcmp(name, numbers[i].name) != 0) continue;
        const unsigned long n = strtoul(value, &end, 10);
        if (*value < '0' || *value > '9' || *end || n > UINT32_MAX) return false;
        *numbers[i].to = (uint32_t)n;
        h->no_damping |= !damping;
        return true;
    }
    return false;
}

int main(int argc, char **argv) {
    cb_health_opts health = {.size = sizeof health, .interval_ms = 1000};
    const char *ca = NULL;
    cb_loop *loop = NULL;
    cb_monitor *m = NULL;
    cb_identity *trust = NULL;
    int at = 1;
    while (at + 1 < argc && strncmp(argv[at], "--", 2) == 0 && take_option(&health, &ca, argv[at], argv[at + 1]))
        at += 2;
    if (at >= argc || strncmp(argv[at], "--", 2) == 0) {
        fprintf(stderr, "usage: health_watch [--ca FILE] [--interval MS] [--timeout MS] [--rise N] [--fall N] "
                        "[--damping 0] ENDPOINT...\n");
        return 2;
    }
    int rc = cb_loop_new(&loop, NULL);
    if (rc == CB_OK && ca) rc = cb_identity_new(&trust, CB_OPTS(cb_identity_opts, .ca_file = ca));
    if (rc == CB_OK) rc = cb_monitor_new(&m, loop, CB_OPTS(cb_monitor_opts, .on_change = changed));
    for (uint32_t id = 1; at < argc && rc == CB_OK; at++, id++)
        rc = add(m, id, argv[at], &health, trust);
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGTERM, quit, NULL);
    if (rc == CB_OK) rc = cb_loop_on_signal(loop, SIGINT, quit, NULL);
    if (rc == CB_OK) rc = cb_loop_run(loop);
    if (rc < 0) fprintf(stderr, "health_watch: %s: %s\n", cb_strerror(rc), cb_last_error());
    cb_monitor_free(m);
    cb_identity_unref(trust);
    if (loop) cb_loop_free(loop);
    return rc < 0;
}
