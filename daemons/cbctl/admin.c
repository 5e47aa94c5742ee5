/* Commands of the admin interface: their options, and the way to the daemon. */
#include "admin.h"
#include "ca_args.h"
#include <ctype.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { OPTIONS_MAX = 32, PATIENCE_MS = 30000, TOKEN_BYTES = 8192 };

static const char usual_socket[] = "/run/cb-edge/admin.sock";

/* ---- values ---- */

int64_t cbctl_number(const char *text, int64_t min, int64_t max) {
    int64_t n = 0;
    if (!*text || strlen(text) > 18) return -1;
    for (; *text; text++) {
        if (!isdigit((unsigned char)*text)) return -1;
        n = n * 10 + (*text - '0');
    }
    return n < min || n > max ? -1 : n;
}

int64_t cbctl_duration_ms(const char *text) {
    static const struct {
        const char *unit;
        int64_t ms;
    } units[] = {{"", 1000}, {"s", 1000}, {"ms", 1}, {"m", 60000}, {"h", 3600000}};
    const size_t digits = strspn(text, "0123456789");
    char number[12];
    if (!digits || digits >= sizeof number) return -1;
    memcpy(number, text, digits);
    number[digits] = '\0';
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(text + digits, units[i].unit) != 0) continue;
        const int64_t ms = strtoll(number, NULL, 10) * units[i].ms;
        return ms > UINT32_MAX ? -1 : ms;
    }
    return -1;
}

/* ---- options ---- */

static void take(cbctl_args *args, const cbctl_option *o, const char *value) {
    char *at = (char *)args + o->at;
    if (o->value)
        memcpy(at, &value, sizeof value);
    else
        *(bool *)at = true;
}

static int parse(cbctl_admin *a, int argc, char **argv) {
    struct option known[OPTIONS_MAX + 1] = {{0}};
    const cbctl_option *o;
    int option, at = 0;
    size_t n = 0;
    for (; n < OPTIONS_MAX && (o = cbctl_option_at(a->command, n)); n++)
        known[n] = (struct option){o->name, o->value ? required_argument : no_argument, NULL, 0};
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":", known, &at)) != -1) {
        if (option == ':') return cbctl_usage("%s needs a value", argv[optind - 1]);
        if (option == '?') return cbctl_usage("%s: unknown option %s", a->command->group, argv[optind - 1]);
        take(&a->args, cbctl_option_at(a->command, (size_t)at), optarg);
    }
    a->args.words = argv + optind;
    a->args.n_words = (size_t)(argc - optind);
    return CBCTL_OK;
}

/* ---- the way to the daemon ---- */

/* https, or http to this machine: tokens and answers do not go over a network in the clear. */
static bool url_fits(const char *url) {
    static const char *const plain[] = {"http://127.0.0.1", "http://[::1]", "http://localhost"};
    if (strncmp(url, "https://", 8) == 0) return true;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        const size_t n = strlen(plain[i]);
        if (strncmp(url, plain[i], n) == 0 && (url[n] == ':' || url[n] == '/' || !url[n])) return true;
    }
    return false;
}

static int use_url(cbctl_admin *a) {
    const cbctl_args *g = &a->args;
    size_t n = strlen(g->url);
    if (g->socket) return cbctl_usage("--url or --socket, not both");
    if (!url_fits(g->url)) return cbctl_usage("--url: \"%s\" is not https:// (http:// only to this machine)", g->url);
    while (n && g->url[n - 1] == '/')
        n--;
    if (n >= sizeof a->base || n >= sizeof a->place)
        return cbctl_usage("--url: longer than %zu bytes", sizeof a->place);
    snprintf(a->base, sizeof a->base, "%.*s", (int)n, g->url);
    snprintf(a->place, sizeof a->place, "%.*s", (int)n, g->url);
    return CBCTL_OK;
}

static int use_socket(cbctl_admin *a) {
    const cbctl_args *g = &a->args;
    const char *from = getenv("CBCTL_SOCKET");
    const char *path = g->socket ? g->socket : from && *from ? from : usual_socket;
    char *real = *path == '/' ? NULL : realpath(path, NULL);
    if (g->ca || g->cert || g->key || g->token_file)
        return cbctl_usage("--ca, --cert, --key and --token-file are for --url: a unix socket knows who you are");
    if (real) path = real;
    const int n = snprintf(a->to, sizeof a->to, "unix:%s", path);
    snprintf(a->place, sizeof a->place, "%s", a->to);
    snprintf(a->base, sizeof a->base, "http://localhost");
    a->connect_to = a->to;
    free(real);
    if (n < 0 || (size_t)n >= sizeof a->to) return cbctl_usage("--socket: the path is too long for a socket");
    return CBCTL_OK;
}

static int read_token(cbctl_admin *a) {
    char text[TOKEN_BYTES + 1];
    size_t len = 0;
    if (!a->args.token_file) return CBCTL_OK;
    int code = cbctl_ca_read(a->args.token_file, (uint8_t *)text, sizeof text, &len);
    if (code != CBCTL_OK) return code;
    text[len < sizeof text ? len : sizeof text - 1] = '\0';
    text[strcspn(text, "\r\n")] = '\0';
    if (!*text || len == sizeof text)
        code = cbctl_usage("--token-file: %s has no token of at most %d bytes in its first line", a->args.token_file,
                           TOKEN_BYTES);
    else
        snprintf(a->bearer, sizeof a->bearer, "Bearer %s", text);
    explicit_bzero(text, sizeof text);
    return code;
}

static int make_identity(cbctl_admin *a) {
    const cbctl_args *g = &a->args;
    if (!g->cert != !g->key) return cbctl_usage("--cert and --key belong together");
    if (!g->ca && !g->cert) return CBCTL_OK;
    int rc = cb_identity_new(&a->identity,
                             CB_OPTS(cb_identity_opts, .ca_file = g->ca, .cert_file = g->cert, .key_file = g->key));
    return rc < 0 ? cbctl_failed(rc) : CBCTL_OK;
}

static int open_way(cbctl_admin *a) {
    const int64_t patience = a->args.patience ? cbctl_duration_ms(a->args.patience) : PATIENCE_MS;
    if (patience <= 0) return cbctl_usage("--patience: \"%s\" is not a time such as 30s", a->args.patience);
    a->patience_ms = (uint32_t)patience;
    int code = a->args.url ? use_url(a) : use_socket(a);
    if (code == CBCTL_OK) code = read_token(a);
    if (code == CBCTL_OK) code = make_identity(a);
    if (code != CBCTL_OK) return code;
    int rc = cb_loop_new(&a->loop, NULL);
    if (rc >= 0)
        rc = cb_http_client_new(
            &a->http, a->loop,
            CB_OPTS(cb_http_client_opts, .identity = a->identity, .alt_svc = 1, .connect_timeout_ms = a->patience_ms));
    return rc < 0 ? cbctl_failed(rc) : CBCTL_OK;
}

int cbctl_admin_main(const cbctl_command *c, int argc, char **argv) {
    cbctl_admin *a = calloc(1, sizeof *a);
    if (!a) return cbctl_failed(CB_ENOMEM);
    a->command = c;
    int code = parse(a, argc, argv);
    if (code == CBCTL_OK) code = open_way(a);
    if (code == CBCTL_OK) code = c->admin(a);
    cb_http_client_free(a->http);
    cb_identity_unref(a->identity);
    cb_loop_free(a->loop);
    explicit_bzero(a->bearer, sizeof a->bearer);
    free(a);
    return code;
}
